package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"unicode/utf8"

	"millrace/api/store"
	"millrace/internal/credentials"
)

// demoChannel is the channel that millrace makes at its first start, so that
// there is one to publish to.
const demoChannel = "demo"

// ensureDemo makes the channel demo and returns its key; where the channel exists
// already, the key is empty.
func ensureDemo(ctx context.Context, st *store.Store) (credentials.StreamKey, error) {
	if _, err := st.Channel(ctx, demoChannel); !errors.Is(err, store.ErrNotFound) {
		return "", err
	}
	key := credentials.NewStreamKey()
	err := st.CreateChannel(ctx, demoChannel, key)
	if errors.Is(err, store.ErrExists) { // another process was quicker
		return "", nil
	}
	return key, err
}

// printBanner tells the streamer what to type into OBS, and where to watch.
func printBanner(w io.Writer, s settings, l listeners, key credentials.StreamKey) error {
	host := publicHost(s, l)
	base := strings.TrimSuffix(s.PublicURL, "/")
	switch {
	case base != "":
	case l.https != nil:
		base = "https://" + withPort(host, l.https, "443")
	default:
		base = "http://" + withPort(host, l.http, "80")
	}
	server := "rtmp://" + withPort(host, l.rtmp, "") + "/live"
	lines := []string{
		"Millrace is running.", "",
		"In OBS: Settings > Stream > Service: Custom...",
		"  Server      " + server,
	}
	if l.rtmps != nil {
		lines = append(lines, "     or       rtmps://"+withPort(host, l.rtmps, "")+"/live")
	}
	if key != "" {
		lines = append(lines, "  Stream key  "+key.Reveal(),
			"              (of the channel "+demoChannel+"; note it, it is shown only this once)")
	} else {
		lines = append(lines, "  Stream key  as shown at first start; reset with",
			"              millrace channel reset-key "+demoChannel)
	}
	lines = append(lines, "", "Watch         "+base+"/"+demoChannel, "Stop          Ctrl-C")
	_, err := io.WriteString(w, frame(lines))
	return err
}

// frame draws a box around lines.
func frame(lines []string) string {
	width := 0
	for _, line := range lines {
		width = max(width, utf8.RuneCountInString(line))
	}
	var b strings.Builder
	edge := strings.Repeat("─", width+4)
	fmt.Fprintf(&b, "┌%s┐\n", edge)
	for _, line := range lines {
		fmt.Fprintf(&b, "│  %s%s  │\n", line, strings.Repeat(" ", width-utf8.RuneCountInString(line)))
	}
	fmt.Fprintf(&b, "└%s┘\n", edge)
	return b.String()
}

// publicHost is the name or address that others can reach this machine by, as
// far as it can be told from here.
func publicHost(s settings, l listeners) string {
	if u, err := url.Parse(s.PublicURL); err == nil && u.Host != "" {
		return u.Hostname()
	}
	if a, ok := l.rtmp.Addr().(*net.TCPAddr); ok && !a.IP.IsUnspecified() {
		return a.IP.String()
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "localhost"
	}
	var v6 string
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue
		}
		if n.IP.To4() != nil {
			return n.IP.String()
		}
		v6 = cmp.Or(v6, n.IP.String())
	}
	return cmp.Or(v6, "localhost")
}

// withPort adds a listener's port to a host, unless it is the usual one.
func withPort(host string, l net.Listener, usual string) string {
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil || port == usual {
		if strings.Contains(host, ":") {
			return "[" + host + "]"
		}
		return host
	}
	return net.JoinHostPort(host, port)
}
