//go:build hostile

package hostile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
	"millrace/internal/media/mediatest"
)

// keyRows have a stream key.
func keyRows() []row {
	list := []row{
		{name: "a key that was reset still publishes", on: small, short: true, growth: 320, target: "ended within 1 s, and the new key is let in", attack: resetKey},
		{name: "a channel that is kicked, disabled, deleted still publishes", on: plain, growth: 320, target: "ended within 1 s each", attack: endChannel},
		{name: "1,000 pictures a second", on: plain, growth: 300, target: "others go on", attack: thousandFPS},
		{name: "reconnects for 20 s, a picture each time", on: plain, growth: 300, target: "a playlist of ≤ 64 kB", attack: reconnects},
		{name: "another decoder configuration at each keyframe", on: plain, growth: 300, target: "told, and ended", attack: configurations},
	}
	for _, size := range []struct {
		name                      string
		width, height, references int
		short                     bool
	}{
		{"8192x8192 with 16 references", 512, 512, 16, true},
		{"16384x4096 with 16 references", 1024, 256, 16, false},
		{"3840x2160 with 16 references", 240, 135, 16, false},
	} {
		on := plain
		if size.short {
			on = small
		}
		list = append(list, row{
			name: "H.264 of " + size.name + " after 6 s of 360p", on: on, short: size.short, growth: 700,
			target: "refused, or within what the machine has", attack: func(a *attack) { giant(a, size.width, size.height, size.references) },
		})
	}
	return list
}

// running publishes the calm clip on a channel, again and again, until it is stopped
// or ended by the server.
type running struct {
	gone <-chan struct{}
	said func() string
	stop func()
}

// run begins to publish.
func (a *attack) run(from, key string) *running {
	a.t.Helper()
	e, err := a.publisher(from, key)
	if err != nil {
		a.t.Fatal(err)
	}
	quit := make(chan struct{})
	var sending sync.WaitGroup
	list := tags(a.t, calm)
	sending.Go(func() { _ = send(e, list, 0, 1, quit) }) // Gone says it
	var once sync.Once
	x := &running{gone: e.Gone, said: e.Said, stop: func() {
		once.Do(func() {
			close(quit)
			e.Close()
			sending.Wait()
		})
	}}
	a.later(x.stop)
	return x
}

// endedWithin notes how long it takes until a publisher is ended.
func (a *attack) endedWithin(x *running, what string, limit time.Duration) {
	began := time.Now()
	select {
	case <-x.gone:
		took := time.Since(began)
		a.note("%s: ended after %d ms", what, took.Milliseconds())
		a.check(took <= limit, "%s: ended after %s", what, took)
	case <-time.After(limit + 4*time.Second):
		a.problem("%s: still publishing after %s", what, limit+4*time.Second)
	}
	x.stop()
}

// resetKey: who has the old key goes on, and the owner is kept out.
func resetKey(a *attack) {
	old := a.server.Channel("stolen")
	x := a.run(stranger(0), old)
	a.server.AwaitLive("stolen", "")
	key, err := a.command("reset-key", "stolen")
	if err != nil {
		a.problem("%v", err)
		return
	}
	a.endedWithin(x, "reset-key", time.Second)
	owner, err := a.publisher(stranger(1), key)
	if err != nil {
		a.problem("the owner with the new key: %v", err)
		return
	}
	defer owner.Close()
	a.check(strings.Contains(owner.Said(), "NetStream.Publish.Start"), "the owner is told %.200q", owner.Said())
	if e, err := a.publisher(stranger(0), old); err == nil {
		a.check(!strings.Contains(e.Said(), "Publish.Start"), "the old key is let in again")
		e.Close()
	}
}

// endChannel is what an operator does about a channel.
func endChannel(a *attack) {
	for _, command := range []string{"kick", "disable", "delete"} {
		name := "bad" + command
		key := a.server.Channel(name)
		x := a.run(stranger(0), key)
		a.server.AwaitLive(name, "")
		if _, err := a.command(command, name); err != nil {
			a.problem("%v", err)
			x.stop()
			continue
		}
		a.endedWithin(x, command, time.Second)
		if command != "kick" {
			if e, err := a.publisher(stranger(1), key); err == nil {
				a.check(!strings.Contains(e.Said(), "Publish.Start"), "after %s the key is let in", command)
				e.Close()
			}
		}
	}
	if _, err := a.command("enable", "baddisable"); err != nil {
		a.problem("%v", err)
	}
}

// thousandFPS sends a clip's pictures at 33 times their speed.
func thousandFPS(a *attack) {
	e, err := a.publisher(stranger(0), a.server.Channel("fast"))
	if err != nil {
		a.problem("%v", err)
		return
	}
	defer e.Close()
	var list []tag
	for _, x := range tags(a.t, calm) {
		if x.kind == 9 {
			list = append(list, x)
		}
	}
	began := time.Now()
	for n := 0; n < 5 && err == nil; n++ {
		err = send(e, list, uint32(n)*60_000/33, 33, nil)
	}
	a.note("sent for %.0f s: %v", time.Since(began).Seconds(), err)
}

// reconnects publishes one picture on each of many connections.
func reconnects(a *attack) {
	key := a.server.Channel("again", "--grace", "60s")
	list := tags(a.t, calm)
	first := a.run(stranger(0), key) // it begins a broadcast
	a.server.AwaitLive("again", "")
	first.stop()
	size := 0
	began := time.Now()
	for n := 0; time.Since(began) < 20*time.Second; n++ {
		e, err := a.publisher(stranger(n%40), key)
		if err != nil {
			a.answered("not let in")
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if strings.Contains(e.Said(), "Publish.Start") {
			a.answered("let in")
		} else {
			a.answered("refused")
		}
		_ = send(e, list[:3], uint32(n*40), 1000, nil) // both configurations, and a keyframe; the server may have been faster
		hangUp(e)
		if n%50 == 49 {
			size = max(size, a.playlistSize("again"))
		}
	}
	size = max(size, a.playlistSize("again"))
	a.check(size > 0, "there is no playlist")
	a.bounded("bytes of playlist", float64(size), 64<<10)
}

// hangUp ends a connection after what was sent.
func hangUp(e *harness.Encoder) {
	if half, ok := e.Conn.(counted).Conn.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
	select {
	case <-e.Gone:
	case <-time.After(300 * time.Millisecond):
	}
	e.Close()
}

// playlistSize is how long a channel's source playlist is; 0 if it isn't live.
func (a *attack) playlistSize(channel string) int {
	main, err := hls.Fetch(a.t.Context(), hls.Client, a.server.Playlist(channel))
	if err != nil || main.Status != http.StatusOK {
		return 0
	}
	m, err := hls.ParseMultivariant(string(main.Body))
	if err != nil {
		return 0
	}
	most := 0
	for _, uri := range m.Renditions() {
		list, err := hls.Fetch(a.t.Context(), hls.Client, strings.TrimSuffix(a.server.Playlist(channel), "index.m3u8")+uri)
		if err == nil {
			most = max(most, len(list.Body))
		}
	}
	return most
}

// configurations sends another large parameter set with each keyframe.
func configurations(a *attack) {
	e, err := a.publisher(stranger(0), a.server.Channel("sets"))
	if err != nil {
		a.problem("%v", err)
		return
	}
	defer e.Close()
	x := mediatest.Skipped{Width: 40, Height: 23, Refs: 1}
	picture := append([]byte{0x17, 1, 0, 0, 0}, x.Picture(0)...)
	n := 0
	for ; n < 64 && err == nil; n++ {
		record := recordOf(x.SPS(), append(x.PPS(), bytes.Repeat([]byte{byte('a' + n%26), byte(n + 1)}, 30_000)...))
		if err = e.Video(uint32(n*100), append([]byte{0x17, 0, 0, 0, 0}, record...)); err == nil {
			err = e.Video(uint32(n*100), picture)
		}
		if err == nil {
			err = e.Flush()
		}
		a.requests.Add(2)
		select {
		case <-e.Gone:
			err = errors.New("ended")
		case <-time.After(100 * time.Millisecond):
		}
	}
	a.note("%d configurations, %s", n, a.told(e))
	a.check(err != nil, "%d configurations of 60 kB were taken", n)
}

// recordOf is an AVCDecoderConfigurationRecord.
func recordOf(sps, pps []byte) []byte {
	b := append([]byte{1}, sps[1], sps[2], sps[3], 0xff, 0xe1)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(sps))), sps...)
	b = append(b, 1)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(pps))), pps...)
}

// told is why a publisher was refused or ended, in the server's words.
func (a *attack) told(e *harness.Encoder) string {
	text := e.Said()
	at := strings.LastIndex(text, "description")
	if at < 0 {
		return "told nothing"
	}
	text = text[at+len("description"):]
	return fmt.Sprintf("told %q", strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, text[:min(120, len(text))]))
}

// giant changes to pictures that need gigabytes to be decoded.
func giant(a *attack, width, height, references int) {
	e, err := a.publisher(stranger(0), a.server.Channel(fmt.Sprintf("giant%d", width)))
	if err != nil {
		a.problem("%v", err)
		return
	}
	defer e.Close()
	seconds := uint32(lengthOf(6 * time.Second).Seconds())
	var list []tag
	for _, x := range tags(a.t, calm) {
		if x.at < seconds*1000 {
			list = append(list, x)
		}
	}
	if err := send(e, list, 0, 1, nil); err != nil {
		a.problem("360p before: %v", err)
	}
	x := mediatest.Skipped{Width: width, Height: height, Refs: references}
	keyframe := append([]byte{0x17, 1, 0, 0, 0}, x.Picture(0)...)
	began := time.Now()
	pictures := int(lengthOf(12*time.Second).Seconds() * 25)
	for n := 0; n < pictures && err == nil; n++ {
		at := seconds*1000 + uint32(n*40)
		body := keyframe
		if n%50 == 0 {
			err = e.Video(at, append([]byte{0x17, 0, 0, 0, 0}, x.Record()...))
		} else {
			body = append([]byte{0x27, 1, 0, 0, 0}, x.Picture(n%50)...)
		}
		if err == nil {
			err = e.Video(at, body)
		}
		if err == nil {
			err = e.Flush()
		}
		select {
		case <-e.Gone:
			err = errors.New("ended")
		case <-time.After(time.Until(began.Add(time.Duration(n) * 40 * time.Millisecond))):
		}
	}
	a.note("sent for %.1f s, %s", time.Since(began).Seconds(), a.told(e))
}
