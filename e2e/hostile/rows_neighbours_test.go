//go:build hostile

package hostile

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// guarded has a secret that must not be told.
var guarded = shape{name: "all, with a secret", args: []string{"--private-secret", secret}}

const secret = "between-us-and-nobody-else"

// neighbourRows come from the machine itself, from a page that a browser has open there,
// or from who can write to Redis.
func neighbourRows() []row {
	return []row{
		{name: "a web page posts to the private listener", on: plain, target: "4xx, the publisher stays", attack: crossSite},
		{name: "DNS rebinding on the private and the ops listener", on: plain, target: "4xx, nothing told", attack: rebinding},
		{name: "requests without the secret on the private listener", on: plain, target: "4xx", attack: withoutSecret},
		{name: "a forged slot in Redis", on: guarded, target: "nobody is asked, and nobody is told the secret", attack: forgedSlot},
		{name: "profiles and metrics are read for secrets", on: guarded, target: "nothing told", attack: readSecrets},
		{name: "another user reads the data directory", on: guarded, target: "nothing is readable", attack: otherUser},
	}
}

func refusedStatus(status string) bool { return strings.HasPrefix(status, "4") }

// crossSite sends what a browser sends for a form on another site.
func crossSite(a *attack) {
	client := a.client("127.0.0.1", 2, false)
	for _, page := range []map[string]string{
		{"Origin": "https://evil.example", "Content-Type": "text/plain", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
		{"Origin": "null", "Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "cross-site"},
		{"Referer": "https://evil.example/"},
		{},
	} {
		for _, path := range []string{"/release/" + a.broadcast + "?epoch=99999999999999999", "/close/" + a.broadcast + "?epoch=99999999999999999", "/claim/" + a.broadcast + "/0"} {
			r := a.request(http.MethodPost, "http://"+a.server.Private+path)
			for name, value := range page {
				r.Header.Set(name, value)
			}
			status, _, _ := a.ask(client, r)
			a.answered(status)
			a.check(refusedStatus(status) && status != "409" && status != "404", "%s with %v: %s", strings.Split(path, "/")[1], page, status)
		}
	}
	status, body := a.get("127.0.0.1", a.server.HTTP+"/api/v1/channels/demo")
	a.check(status == "200" && strings.Contains(body, a.broadcast) && strings.Contains(body, `"live"`), "the channel afterwards: %s %.200s", status, body)
}

// rebinding asks by a name that the attacker has made point to this machine.
func rebinding(a *attack) {
	for _, host := range []string{"evil.example", "evil.example:80", "127.0.0.1.evil.example", ""} {
		for _, at := range []string{
			a.server.Ops + "/metrics", a.server.Ops + "/debug/pprof/", a.server.Ops + "/debug/pprof/cmdline", a.server.Ops + "/debug/pprof/heap",
			a.server.Private + "/follow/" + a.broadcast, a.server.Private + "/relay/" + a.broadcast, a.server.Private + "/sending/" + a.broadcast,
		} {
			address, path, _ := strings.Cut(at, "/")
			answer, _ := a.raw("127.0.0.1", address, fmt.Sprintf("GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host), time.Second)
			status, _, _ := strings.Cut(strings.TrimPrefix(answer, "HTTP/1.1 "), " ")
			a.answered(status)
			a.check(refusedStatus(status), "/%s for the host %q: %q", path, host, status)
		}
	}
	// As a page does that was loaded from such a name, and a fetch of another site.
	for _, at := range []string{a.server.Ops + "/metrics", a.server.Private + "/sending/" + a.broadcast} {
		status, _ := a.get("127.0.0.1", "http://"+at, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example")
		a.answered(status)
		a.check(refusedStatus(status), "%s across sites: %s", at, status)
	}
	// Operators and their tools get in.
	for _, name := range []string{a.server.Ops, strings.Replace(a.server.Ops, "127.0.0.1", "localhost", 1)} {
		status, _ := a.get("127.0.0.1", "http://"+a.server.Ops+"/metrics", "Host", name)
		a.check(status == "200", "metrics for the host %s: %s", name, status)
	}
}

// withoutSecret asks as any process of the machine can.
func withoutSecret(a *attack) {
	client := a.client("127.0.0.1", 4, false)
	client.Timeout = 3 * time.Second
	for _, path := range []string{"/follow/", "/relay/", "/window/", "/sending/"} {
		suffix := map[string]string{"/window/": "/thumbnail.jpg"}[path]
		for _, head := range []string{"", "x", secret, strings.Repeat("a", 4000)} {
			r := a.request(http.MethodGet, "http://"+a.server.Private+path+a.broadcast+suffix)
			if head != "" {
				r.Header.Set("X-Millrace-Secret", head)
				r.Header.Set("Authorization", "Bearer "+head)
			}
			status, _, _ := a.ask(client, r)
			a.answered(status)
			a.check(refusedStatus(status) && status != "404", "%s: %s", path, status)
		}
	}
}

// forgedSlot has Redis name the attacker as the broadcast's worker.
func forgedSlot(a *attack) {
	var mu sync.Mutex
	asked, told := 0, 0
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		for _, values := range r.Header {
			if strings.Contains(strings.Join(values, " "), secret) {
				told++
			}
		}
		http.Redirect(w, r, a.server.HTTP+"/metrics", http.StatusFound)
	}))
	defer evil.Close()
	var socket string
	_ = filepath.WalkDir(a.server.Data, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSocket != 0 {
			socket = path
		}
		return nil
	})
	if socket == "" {
		matches, _ := filepath.Glob("/tmp/millrace-*/redis.sock") // where its path would be too long
		a.t.Fatalf("redis-server's socket isn't in %s; there are %v", a.server.Data, matches)
	}
	db := redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
	defer db.Close()
	slots := "millrace:broadcast:{" + a.broadcast + "}:slots"
	began := time.Now()
	for n := 0; time.Since(began) < 8*time.Second; n++ {
		value := fmt.Sprintf(`{"address":%q,"epoch":{"lease":%d,"grant":%d}}`, evil.URL, time.Now().UnixMilli()*1000, 1000+n)
		for _, slot := range []string{"1", "7"} {
			if err := db.HSet(a.t.Context(), slots, slot, value).Err(); err != nil {
				a.problem("Redis: %v", err)
				return
			}
			a.requests.Add(1)
		}
		// Ingest's address in the record of the channel, for a broadcast that asks it.
		a.check(db.HSet(a.t.Context(), "millrace:broadcast:{forgedforgedforg}:slots", "0", value).Err() == nil, "Redis")
		_, _ = a.get(stranger(0), a.server.HTTP+"/hls/demo/forgedforgedforg/source/index.m3u8")
		time.Sleep(200 * time.Millisecond)
	}
	_ = db.HDel(a.t.Context(), slots, "1", "7")
	mu.Lock()
	defer mu.Unlock()
	a.note("the forged worker was asked %d times, and told the secret %d times", asked, told)
	a.check(told == 0, "the secret was told %d times", told)
	a.check(asked == 0, "the forged worker was asked %d times", asked)
}

// readSecrets looks for the secret in what operators' programs get.
func readSecrets(a *attack) {
	for _, path := range []string{"/debug/pprof/cmdline", "/metrics", "/readyz", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1"} {
		status, body := a.get("127.0.0.1", "http://"+a.server.Ops+path)
		a.answered(status)
		a.check(!strings.Contains(body, secret), "%s shows the secret", path)
		a.check(!strings.Contains(body, a.server.Key), "%s shows the stream key", path)
	}
	a.check(!strings.Contains(a.server.Log.String(), secret), "the log shows the secret")
	a.check(!strings.Contains(a.server.Log.String(), a.server.Key), "the log shows the stream key")
}

// otherUser looks at the modes of what is kept.
func otherUser(a *attack) {
	info, err := os.Stat(a.server.Data)
	if err != nil {
		a.problem("%v", err)
		return
	}
	a.note("the data directory's mode is %v", info.Mode())
	a.check(info.Mode().Perm()&0o077 == 0, "the data directory is open to others: %v", info.Mode())
	a.requests.Add(1)
}
