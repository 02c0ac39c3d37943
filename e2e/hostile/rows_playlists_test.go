//go:build hostile

package hostile

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"millrace/e2e/hls"
)

// lists are a channel's media playlists, by rendition, with their addresses.
func (a *attack) lists(channel string) (lists map[string]*hls.MediaPlaylist, at map[string]*url.URL) {
	a.t.Helper()
	lists, at = make(map[string]*hls.MediaPlaylist), make(map[string]*url.URL)
	main, err := url.Parse(a.server.Playlist(channel))
	if err != nil {
		a.t.Fatal(err)
	}
	m, err := hls.ParseMultivariant(string(hls.Get(a.t, main.String()).Body))
	if err != nil {
		a.t.Fatal(err)
	}
	for _, uri := range m.Renditions() {
		u, err := main.Parse(uri)
		if err != nil {
			a.t.Fatal(err)
		}
		list, err := hls.ParseMedia(string(hls.Get(a.t, u.String()).Body))
		if err != nil {
			a.t.Fatal(err)
		}
		name := path.Base(path.Dir(u.Path))
		lists[name], at[name] = list, u
	}
	return lists, at
}

// segments are the addresses of all segments of a rendition that are whole.
func (a *attack) segments(channel, rendition string) []string {
	a.t.Helper()
	lists, at := a.lists(channel)
	if lists[rendition] == nil {
		a.t.Fatalf("%s has no rendition %s", channel, rendition)
	}
	var found []string
	for _, s := range lists[rendition].Segments {
		if s.Open() || s.Gap {
			continue
		}
		u, err := at[rendition].Parse(s.URI)
		if err != nil {
			a.t.Fatal(err)
		}
		found = append(found, u.String())
	}
	return found
}

// newest is the address of a rendition's newest whole segment.
func (a *attack) newest(channel, rendition string) string {
	a.t.Helper()
	list := a.segments(channel, rendition)
	if len(list) == 0 {
		a.t.Fatalf("%s has no segments", channel)
	}
	return list[len(list)-1]
}

// playlistRows ask for what isn't there, or will never be.
func playlistRows() []row {
	return []row{
		{name: "blocking reloads of segment 999999, 500 a second", on: plain, target: "400 at once", attack: farReloads},
		{name: "2,000 blocking reloads that wait", on: plain, growth: 220, target: "others go on", attack: waitingReloads},
		{name: "playlists with ever other queries, 1,000 a second", on: plain, target: "others go on", attack: otherQueries},
		{name: "names of renditions and inits that don't exist, 2,000 a second", on: small, short: true, target: "≤ 50 of them go upstream", attack: unknownNames},
		{name: "6,000 names of channels that don't exist", on: plain, growth: 320, target: "a new channel is served", attack: unknownChannels},
		{name: "steering manifests, 1,000 a second", on: plain, target: "others go on", attack: steering},
		{name: "20,000 forged viewers of one address", on: plain, target: "≤ 256 are counted", attack: forgedViewers},
	}
}

// h2Clients are clients that speak HTTP/2, of so many addresses.
func (a *attack) h2Clients(strangers int) []*http.Client {
	var list []*http.Client
	for n := range strangers {
		list = append(list, a.client(stranger(n), 4, true))
	}
	return list
}

// playlistOf is the address of a media playlist of the calm channel.
func (a *attack) playlistOf(rendition string) string {
	return fmt.Sprintf("%s/hls/demo/%s/%s/index.m3u8", a.server.HTTP, a.broadcast, rendition)
}

func farReloads(a *attack) {
	a.flood(flood{rate: 500, lasts: 8 * time.Second, workers: 100, clients: a.h2Clients(1), request: func(n int) *http.Request {
		return a.request("GET", fmt.Sprintf("%s?_HLS_msn=%d&_HLS_part=%d", a.playlistOf("source"), 999_999+n, n%5))
	}})
	n, limited := a.answersOf("400"), a.answersOf("429")+a.answersOf("503")
	a.check(n > 0 && a.answersOf("timeout") == 0 && a.answersOf("200") == 0, "%d × 400, %d refused", n, limited)
}

// waitingReloads waits with 2,000 requests of one address for the next segment but one.
func waitingReloads(a *attack) {
	clients := make([]*http.Client, 20)
	for i := range clients {
		clients[i] = a.client(stranger(0), 1, true)
	}
	var mu sync.Mutex
	next := uint64(0)
	look := func() {
		lists, _ := a.lists("demo")
		mu.Lock()
		defer mu.Unlock()
		next, _ = lists["source"].Next()
	}
	look()
	began := time.Now()
	for time.Since(began) < 9*time.Second {
		var group sync.WaitGroup
		for i := range 2000 {
			group.Go(func() {
				status, _, _ := a.ask(clients[i%len(clients)], a.request("GET", fmt.Sprintf("%s?_HLS_msn=%d", a.playlistOf("source"), next+1)))
				a.answered(status)
			})
		}
		group.Wait()
		look()
	}
	a.note("edge had at most %.0f waiters now", a.server.Metric("millrace_edge_waiters", ""))
}

func otherQueries(a *attack) {
	a.flood(flood{rate: 1000, lasts: 8 * time.Second, workers: 50, clients: a.h2Clients(1), request: func(n int) *http.Request {
		switch at := a.playlistOf("source"); n % 5 {
		case 0:
			return a.request("GET", fmt.Sprintf("%s?_HLS_skip=YES&x=%d", at, n))
		case 1:
			return a.request("GET", fmt.Sprintf("%s?_HLS_msn=%d&_HLS_part=%d", at, n%3, n))
		case 2:
			return a.request("GET", fmt.Sprintf("%s?_HLS_msn=-1&_HLS_report=%d", at, n))
		case 3:
			return a.request("GET", fmt.Sprintf("%s?_HLS_pathway=%d&CMCD=br%%3D%d", a.server.Playlist("demo"), n, n))
		default:
			return a.request("GET", fmt.Sprintf("%s?%s", at, strings.Repeat(fmt.Sprintf("a%d=1&", n), 50)))
		}
	}})
	a.check(a.answersOf("500") == 0, "%d × 500", a.answersOf("500"))
}

// upstream is how many requests the edge has sent to workers and S3.
func (a *attack) upstream() float64 {
	a.t.Helper()
	return a.server.Metric("millrace_edge_upstream_fetches_total", "")
}

// unknownNames asks for what the broadcast doesn't have.
func unknownNames(a *attack) {
	before, began := a.upstream(), time.Now()
	epoch := strings.Split(path.Base(a.newest("demo", "source")), ".")[0]
	a.flood(flood{rate: 2000, lasts: lengthOf(12 * time.Second), workers: 200, clients: a.h2Clients(1), request: func(n int) *http.Request {
		at := fmt.Sprintf("%s/hls/demo/%s/", a.server.HTTP, a.broadcast)
		switch n % 5 {
		case 0:
			return a.request("GET", fmt.Sprintf("%ssource/init-%016x.mp4", at, n))
		case 1:
			return a.request("GET", fmt.Sprintf("%sr%d/init-%016x.mp4", at, n, n))
		case 2:
			return a.request("GET", fmt.Sprintf("%sr%d/%s.1.%08x.m4s", at, n, epoch, n))
		case 3:
			return a.request("GET", fmt.Sprintf("%ssource/%s.1.%08x.m4s", at, epoch, n))
		default:
			return a.request("GET", fmt.Sprintf("%ssource/%s.%d.%08x.m4s", at, epoch, n, n))
		}
	}})
	a.bounded("went upstream", a.upstream()-before, 50+a.usual(began))
	a.check(a.answersOf("200") == 0, "%d × 200", a.answersOf("200"))
}

// usual is how many requests the viewers beside have the edge send, at most.
func (a *attack) usual(since time.Time) float64 {
	const perSecond = 20 // of three renditions: 3 parts, a segment in 2 s; the picture
	return perSecond * time.Since(since).Seconds()
}

// bounded notes a number, which may be so large.
func (a *attack) bounded(what string, got, limit float64) {
	a.note("%.0f %s", got, what)
	a.check(got <= limit, "%.0f %s, at most %.0f", got, what, limit)
}

func unknownChannels(a *attack) {
	a.flood(flood{rate: 800, lasts: 8 * time.Second, workers: 50, clients: a.h2Clients(1), request: func(n int) *http.Request {
		return a.request("GET", a.server.Playlist(fmt.Sprintf("nobody%d", n)))
	}})
	key := a.server.Channel("newcomer")
	p := a.server.Publish(a.t, key, []string{"-re", "-t", "20", "-i", calm.File(a.t), "-c", "copy"})
	defer p.Kill()
	a.server.AwaitLive("newcomer", "") // fails the row
	status, _ := a.get(stranger(300), a.server.Playlist("newcomer"))
	a.check(status == "200", "a new channel's playlist: %s", status)
}

func steering(a *attack) {
	a.flood(flood{rate: 1000, lasts: 6 * time.Second, workers: 50, clients: a.h2Clients(1), request: func(n int) *http.Request {
		return a.request("GET", fmt.Sprintf("%s/hls/demo/steering.json?_HLS_pathway=%d&_HLS_throughput=%d&%s", a.server.HTTP, n, n, strings.Repeat("a", n%4000)))
	}})
}

// forgedViewers is a viewer with 20,000 session ids.
func forgedViewers(a *attack) {
	segment := a.newest("demo", "audio") // small: what is counted isn't how much is taken
	a.flood(flood{rate: 3000, lasts: 7 * time.Second, workers: 100, clients: a.h2Clients(1), request: func(n int) *http.Request {
		at := []string{segment, a.playlistOf("source")}[n%2]
		method := []string{"GET", "HEAD", "HEAD", "GET"}[n%4]
		r := a.request(method, fmt.Sprintf("%s?CMCD=%s", at, url.QueryEscape(fmt.Sprintf(`sid="%d"`, n))))
		r.Header.Set("User-Agent", fmt.Sprint(n))
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", n%250, n/250%250, n/62500))
		return r
	}})
	most := 0.0
	for range 12 { // counted each 5 s
		time.Sleep(500 * time.Millisecond)
		most = max(most, a.server.Metric("millrace_edge_viewers", ""))
	}
	a.bounded("viewers counted", most, 256+2) // the browser and the reader beside are two more
}
