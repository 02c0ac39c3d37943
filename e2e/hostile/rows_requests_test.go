//go:build hostile

package hostile

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// requestRows send requests that aren't as they should be.
func requestRows() []row {
	return []row{
		{name: "request smuggling", on: plain, target: "no second request is answered", attack: smuggling},
		{name: "path traversal", on: plain, target: "nothing but pages and errors", attack: traversal},
		{name: "heads of 20 kB and more", on: plain, target: "431, or closed", attack: largeHeads},
		{name: "queries and cookies of 12 kB, 300 a second", on: plain, target: "answered as without", attack: longQueries},
		{name: "gzip bombs as bodies", on: plain, target: "405, nothing is unpacked", attack: gzipBombs},
		{name: "what answers have browsers believe", on: plain, target: "nosniff everywhere, HSTS with TLS alone", attack: headers},
		{name: "Range with 1,000 ranges", on: plain, target: "no more bytes than the object has", attack: ranges},
		{name: "HTTP/2: 40,000 streams, each reset at once", on: plain, target: "others go on", attack: rapidReset},
		{name: "HTTP/2: CONTINUATION without end", on: plain, target: "closed within 5 s", attack: continuations},
		{name: "HTTP/2: PING and SETTINGS without reading", on: plain, target: "closed, or nothing is kept", attack: pings},
		{name: "HTTP/2: bodies that nobody asked for", on: plain, target: "≤ 40 MB are held", growth: 60, attack: bodies},
	}
}

// smuggling sends what two servers might cut into requests differently. The second
// request, for an address of its own, must not be answered.
func smuggling(a *attack) {
	hidden := "GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
	chunk := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden)
	for what, request := range map[string]string{
		"CL and TE":          "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk,
		"CL shorter":         fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nContent-Length: 0\r\n\r\n", len(hidden)) + hidden,
		"CL twice in one":    fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0, %d\r\n\r\n", len(hidden)) + hidden,
		"TE twice":           "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + chunk,
		"TE with a tab":      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\tchunked\r\nContent-Length: 0\r\n\r\n" + hidden,
		"TE of another kind": "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n" + chunk,
		"space before colon": fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length : %d\r\n\r\n", len(hidden)) + hidden,
		"a bare LF":          "POST / HTTP/1.1\nHost: x\nX: y\rContent-Length: 0\n\n" + hidden,
		"a folded line":      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: 0\r\n\r\n" + hidden,
		"chunk extension":    "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0;\n" + hidden + "\r\n\r\n",
		"a negative length":  "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n" + hidden,
		"a length with plus": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n" + hidden,
		"GET with a body":    fmt.Sprintf("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(hidden)) + hidden,
		"no Host":            "GET / HTTP/1.1\r\n\r\n",
		"two Hosts":          "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"a NUL":              "GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
	} {
		answer, _ := a.raw(stranger(0), a.web(), request, 2*time.Second)
		status, _, _ := strings.Cut(strings.TrimPrefix(answer, "HTTP/1.1 "), " ")
		a.answered(status)
		if strings.Contains(answer, `"openapi"`) {
			a.problem("%s: the hidden request was answered", what)
		}
		if bad := slices.Contains([]string{"no Host", "two Hosts", "a NUL", "CL shorter", "space before colon", "TE of another kind"}, what); bad && status < "400" {
			a.problem("%s: %s", what, status)
		}
	}
}

// traversal asks for files beside those of the pages.
func traversal(a *attack) {
	secrets := []string{"root:", "SQLite format", "redis", "BEGIN", "ELF"}
	for _, path := range []string{
		"/../../../../etc/passwd", "/..%2f..%2f..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/assets/../../../../etc/passwd",
		"/assets/..%5c..%5cmillrace.db", "/assets/%00", "/hls/../../etc/passwd", "/hls/demo/..%2f..%2fmillrace.db", "/hls/demo/%2e%2e/%2e%2e/x/index.m3u8",
		"//etc/passwd", "/./././etc/passwd", "/hls/demo/" + a.broadcast + "/..%2f..%2fdemo/index.m3u8", "/hls/demo/" + a.broadcast + "/source/..;/index.m3u8",
		"/hls/demo/" + a.broadcast + "/source/init-..%2f..%2fx.mp4", "/hls/demo/" + a.broadcast + "/%2e%2e%2fbroadcasts/index.m3u8", "/.git/config", "/data/millrace.db",
		"/api/v1/channels/..%2f..%2fhealthz", "/debug/pprof/heap", "/metrics", "/%c0%ae%c0%ae/etc/passwd", "/" + strings.Repeat("../", 300) + "etc/passwd",
	} {
		answer, _ := a.raw(stranger(0), a.web(), "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 3*time.Second)
		head, body, _ := strings.Cut(answer, "\r\n\r\n")
		status, _, _ := strings.Cut(strings.TrimPrefix(head, "HTTP/1.1 "), " ")
		a.answered(status)
		for _, s := range secrets {
			if strings.Contains(body, s) && !strings.Contains(body, "<!doctype html>") {
				a.problem("%.60s: %s %.80q", path, status, body)
			}
		}
		if status >= "500" || status == "" {
			a.problem("%.60s: answered %q", path, status)
		}
	}
}

// largeHeads sends heads that are larger than any may be.
func largeHeads(a *attack) {
	long := strings.Repeat("a", 20<<10)
	many := strings.Repeat("A: "+strings.Repeat("b", 90)+"\r\n", 2000)
	for what, request := range map[string]string{
		"path":    "GET /" + long + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"query":   "GET /hls/demo/index.m3u8?" + long + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"cookie":  "GET / HTTP/1.1\r\nHost: x\r\nCookie: a=" + long + "\r\n\r\n",
		"lines":   "GET / HTTP/1.1\r\nHost: x\r\n" + many + "\r\n",
		"method":  long + " / HTTP/1.1\r\nHost: x\r\n\r\n",
		"endless": "GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("z", 1<<20),
	} {
		for range 10 {
			answer, closed := a.raw(stranger(0), a.web(), request, 5*time.Second)
			status, _, _ := strings.Cut(strings.TrimPrefix(answer, "HTTP/1.1 "), " ")
			if status == "" {
				status = "closed"
			}
			a.answered(status)
			if !closed || status != "431" && status != "closed" && status != "400" {
				a.problem("%s: %.40q, closed %v", what, answer, closed)
			}
		}
	}
}

func longQueries(a *attack) {
	long := strings.Repeat("a", 12<<10)
	a.flood(flood{rate: 300, lasts: 8 * time.Second, workers: 16, clients: []*http.Client{a.client(stranger(0), 16, false)}, request: func(n int) *http.Request {
		r := a.request("GET", fmt.Sprintf("%s?%d=%s", a.server.Playlist("demo"), n, long))
		if n%2 == 1 {
			r = a.request("GET", a.server.HTTP+"/")
			r.Header.Set("Cookie", "a="+long)
		}
		return r
	}})
	a.check(a.answersOf("200") > 0, "nothing was answered")
}

func gzipBombs(a *attack) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(make([]byte, 50<<20)) // to memory
	_ = z.Close()
	client := a.client(stranger(0), 4, false)
	a.flood(flood{rate: 50, lasts: 6 * time.Second, workers: 4, clients: []*http.Client{client}, request: func(n int) *http.Request {
		r, err := http.NewRequestWithContext(a.t.Context(), []string{"POST", "PUT"}[n%2], a.server.HTTP+[]string{"/api/v1/channels", "/hls/demo/index.m3u8", "/"}[n%3], bytes.NewReader(packed.Bytes()))
		if err != nil {
			panic(err)
		}
		r.Header.Set("Content-Encoding", "gzip")
		r.Header.Set("Content-Type", "application/json")
		return r
	}})
	a.check(a.answersOf("200") == 0, "a body was taken")
}

// headers looks at what keeps a browser from taking an answer for something else.
func headers(a *attack) {
	client := a.client(stranger(0), 4, false)
	segment := strings.TrimPrefix(a.newest("demo", "source"), a.server.HTTP)
	for _, base := range []string{a.server.HTTP, "https://" + a.https} {
		for _, path := range []string{"/", "/demo", "/api/v1/channels", "/hls/demo/index.m3u8", "/hls/demo/none", segment, "/hls/nobody/index.m3u8", "/assets/none.js"} {
			r := a.request("GET", base+path)
			r.Host = "stream.example" // HTTPS has its usual port
			status, head, _ := a.ask(client, r)
			a.answered(status)
			a.check(head.Get("X-Content-Type-Options") == "nosniff", "%.30s: no nosniff", path)
			a.check((head.Get("Strict-Transport-Security") != "") == strings.HasPrefix(base, "https"), "%.30s: HSTS is %q", base+path, head.Get("Strict-Transport-Security"))
		}
	}
}

// ranges asks for a thousand pieces of a segment at once.
func ranges(a *attack) {
	segment := a.newest("demo", "source")
	_, whole := a.get(stranger(0), segment)
	a.check(len(whole) > 0, "there is no segment")
	var list, small []string
	for i := range 1000 {
		list = append(list, fmt.Sprintf("%d-", i))
		small = append(small, fmt.Sprintf("%d-%d", 2*i, 2*i))
	}
	client := a.client(stranger(0), 4, false)
	a.flood(flood{rate: 60, lasts: 6 * time.Second, workers: 4, clients: []*http.Client{client}, request: func(n int) *http.Request {
		r := a.request("GET", segment)
		r.Header.Set("Range", "bytes="+strings.Join([][]string{list, small}[n%2], ","))
		return r
	}})
	for _, wanted := range [][]string{list, small} {
		status, body := a.get(stranger(0), segment, "Range", "bytes="+strings.Join(wanted, ","))
		if len(body) > len(whole) {
			a.problem("%s with %d bytes of an object of %d", status, len(body), len(whole))
		}
	}
}

// rapidReset is CVE-2023-44487.
func rapidReset(a *attack) {
	f, err := a.preface(stranger(0))
	if err != nil {
		a.problem("HTTP/2: %v", err)
		return
	}
	path := strings.TrimPrefix(a.newest("demo", "source"), a.server.HTTP)
	for n := 0; n < 40000 && err == nil; n++ {
		var stream uint32
		if stream, err = f.ask("GET", path, true); err == nil {
			err = f.WriteRSTStream(stream, http2.ErrCodeCancel)
		}
		if n%100 == 99 {
			time.Sleep(20 * time.Millisecond)
		}
	}
	f.tally()
	_ = f.conn.Close()
}

// continuations is CVE-2023-45288: a header that never ends.
func continuations(a *attack) {
	for range 4 {
		f, err := a.preface(stranger(0))
		if err != nil {
			a.problem("HTTP/2: %v", err)
			return
		}
		err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.fields("GET", "/"), EndStream: true})
		for n := 0; n < 20000 && err == nil; n++ {
			err = f.WriteContinuation(1, false, bytes.Clone(f.fieldOf("a", strings.Repeat("b", 4000))))
		}
		a.check(f.hungUp(5*time.Second), "a header without end isn't ended")
		f.tally()
	}
}

// pings asks for what the server has to answer, and takes no answer.
func pings(a *attack) {
	conn, err := a.dial(a.t.Context(), stranger(0), a.web())
	if err != nil {
		a.problem("HTTP/2: %v", err)
		return
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	w := http2.NewFramer(conn, nil)
	_, err = io.WriteString(conn, http2.ClientPreface)
	n := 0
	for ; n < 400_000 && err == nil; n++ {
		if n%2 == 0 {
			err = w.WritePing(false, [8]byte{})
		} else {
			err = w.WriteSettings()
		}
	}
	a.note("%s frames taken", grouped(int64(n)))
}

// bodies sends what it may of bodies that no handler reads.
func bodies(a *attack) {
	var group sync.WaitGroup
	for c := range 20 {
		group.Go(func() {
			f, err := a.preface(stranger(c))
			if err != nil {
				a.answered("no connection")
				return
			}
			data := make([]byte, 16<<10)
			for range 100 {
				if _, err = f.ask("POST", "/hls/demo/index.m3u8?_HLS_msn=1", false); err != nil {
					break
				}
				_ = f.WriteData(f.last, false, data)
			}
			time.Sleep(5 * time.Second)
			f.tally()
			_ = f.conn.Close()
		})
	}
	group.Wait()
}
