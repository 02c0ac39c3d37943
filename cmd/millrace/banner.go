package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"

	"millrace/api/store"
	"millrace/internal/credentials"
)

// demoChannel is the channel that millrace makes at its first start, so that
// there is one to publish to.
const demoChannel = "demo"

// demo is what is known of that channel.
type demo struct {
	key     credentials.StreamKey // set when it was made just now
	deleted bool
}

// ensureDemo makes the channel demo at the first start.
func ensureDemo(ctx context.Context, st *store.Store) (demo, error) {
	key := credentials.NewStreamKey()
	if made, err := st.MakeOnce(ctx, demoChannel, key); err != nil || made {
		return demo{key: key}, err
	}
	_, err := st.Channel(ctx, demoChannel)
	if errors.Is(err, store.ErrNotFound) {
		return demo{deleted: true}, nil
	}
	return demo{}, err
}

// printBanner tells the streamer what to type into OBS, and where to watch.
func printBanner(w io.Writer, s settings, l listeners, d demo) error {
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
	page := base + "/" + demoChannel
	switch {
	case d.deleted:
		lines = append(lines, "  Stream key  your channel's; make a channel with", "              millrace channel create NAME")
		page = base + "/"
	case d.key == "":
		lines = append(lines, "  Stream key  as shown at first start; reset with", "              millrace channel reset-key "+demoChannel)
	case isJournal(w):
		lines = append(lines, "  Stream key  not shown here, since the journal keeps it; make one with", "              millrace channel reset-key "+demoChannel)
	default:
		lines = append(lines, "  Stream key  "+d.key.Reveal(), "              (of the channel "+demoChannel+"; note it, it is shown only this once)")
	}
	lines = append(lines, "", "Watch         "+page, "Stop          Ctrl-C")
	_, err := io.WriteString(w, frame(lines))
	return err
}

// isJournal reports whether w is systemd's journal, which says so by the device and the
// inode of its stream.
func isJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
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
