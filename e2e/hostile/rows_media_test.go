//go:build hostile

package hostile

import (
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// loud has a channel with segments of 15 MB, most of which the edge can't hold.
var loud = shape{name: "all, a channel of 60 Mb/s", args: []string{"--ladder", "none", "--cache-max", "64MB"}, loud: true}

// mediaRows take media as no viewer does.
func mediaRows() []row {
	return []row{
		{name: "HEAD of segments, 1,000 a second", on: small, short: true, target: "≤ 50 go upstream", attack: func(a *attack) { heads(a, "demo") }},
		{name: "HEAD of large segments, 200 a second", on: loud, growth: 250, target: "≤ 50 go upstream", attack: func(a *attack) { heads(a, "loud") }},
		{name: "large segments asked for and reset at once, 300 a second", on: loud, growth: 250, target: "≤ 200 go upstream", attack: resets},
		{name: "two HTTP/2 connections of 100 streams that take 64 kB in 5 s", on: loud, growth: 250, target: "others go on", attack: slowStreams},
		{name: "200 connections that take 64 kB in 5 s", on: loud, growth: 250, target: "others go on", attack: slowConnections},
		{name: "a broadcast of 60 Mb/s that doesn't end", on: thrifty, growth: 300, target: "≤ 1,000 MB on disk with a quota of 300 MB, the newest media of both stay", attack: endless},
	}
}

// heads asks only how large segments are.
func heads(a *attack, channel string) {
	list := a.segments(channel, "source")
	rate := 1000
	if channel == "loud" {
		rate = 200
	}
	before, began := a.upstream(), time.Now()
	a.flood(flood{rate: rate, lasts: lengthOf(12 * time.Second), workers: 50, clients: a.h2Clients(1), request: func(n int) *http.Request {
		return a.request("HEAD", list[n%len(list)])
	}})
	a.bounded("went upstream", a.upstream()-before, 50+a.usual(began))
	a.check(a.answersOf("200")+a.answersOf("429")+a.answersOf("503") > 0, "nothing was answered")
}

// resets asks for segments and doesn't want them.
func resets(a *attack) {
	list := a.segments("loud", "source")
	f, err := a.preface(stranger(0))
	if err != nil {
		a.problem("HTTP/2: %v", err)
		return
	}
	before, began := a.upstream(), time.Now()
	for n := 0; n < 3000 && err == nil; n++ {
		var stream uint32
		if stream, err = f.ask("GET", strings.TrimPrefix(list[n%len(list)], a.server.HTTP), true); err == nil {
			time.Sleep(3 * time.Millisecond) // it has begun
			err = f.WriteRSTStream(stream, http2.ErrCodeCancel)
		}
	}
	f.tally()
	_ = f.conn.Close()
	a.bounded("went upstream", a.upstream()-before, 200+a.usual(began))
}

// slowStreams takes as little as isn't cut off.
func slowStreams(a *attack) {
	list := a.segments("loud", "source")
	var group sync.WaitGroup
	var taken atomic.Int64
	for range 2 {
		group.Go(func() {
			f, err := a.preface(stranger(0), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 64 << 10})
			if err != nil {
				a.answered("no connection")
				return
			}
			_ = f.WriteWindowUpdate(0, 1<<30) // the next write says it
			for n := range 100 {
				if _, err := f.ask("GET", strings.TrimPrefix(list[n%len(list)], a.server.HTTP), true); err != nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			for range 3 {
				time.Sleep(5 * time.Second)
				for id := uint32(1); id <= f.last && err == nil; id += 2 {
					err = f.WriteWindowUpdate(id, 64<<10)
				}
			}
			f.tally()
			taken.Add(int64(f.received()))
			_ = f.conn.Close()
		})
	}
	group.Wait()
	a.note("%.1f MB taken", float64(taken.Load())/1e6)
}

// slowConnections does the same with a connection for each segment.
func slowConnections(a *attack) {
	list := a.segments("loud", "source")
	var group sync.WaitGroup
	for n := range 200 {
		group.Go(func() {
			time.Sleep(time.Duration(n) * 10 * time.Millisecond)
			conn, err := a.dial(a.t.Context(), stranger(n/50), a.web())
			if err != nil {
				a.answered("no connection")
				return
			}
			defer conn.Close()
			a.requests.Add(1)
			_ = conn.SetDeadline(time.Now().Add(25 * time.Second))
			_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", strings.TrimPrefix(list[n%len(list)], a.server.HTTP))
			data := make([]byte, 64<<10)
			for i := 0; i < 4 && err == nil; i++ {
				time.Sleep(4 * time.Second)
				_, err = conn.Read(data)
			}
			if err != nil {
				a.answered("cut off")
			} else {
				a.answered("still served")
			}
		})
	}
	group.Wait()
}

// thrifty has a quota for each channel.
var thrifty = shape{name: "all, with a quota", args: []string{"--ladder", "none", "--channel-quota", "300MB"}, loud: true}

// endless is a broadcast that never ends: after 230 s it has sent 1.7 GB. What is stored is
// looked at once a minute, in which 450 MB come.
func endless(a *attack) {
	most := int64(0)
	for began := time.Now(); time.Since(began) < 200*time.Second; time.Sleep(time.Second) {
		most = max(most, sizeOf(a.server.Data))
	}
	a.bounded("MB in the data directory", float64(most)/1e6, 1000)
	status, _ := a.get(stranger(0), a.segments("demo", "source")[0])
	a.check(status == "200", "the calm channel's oldest segment: %s", status)
	status, _ = a.get(stranger(0), a.newest("loud", "source"))
	a.check(status == "200", "the newest segment of the channel that reached its quota: %s", status)
}

// sizeOf is how many bytes the files below a directory have.
func sizeOf(dir string) int64 {
	total := int64(0)
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil // what is gone meanwhile counts nothing
	})
	return total
}
