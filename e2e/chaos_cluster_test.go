//go:build chaos

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/jobs"
	"millrace/internal/objects"
	"millrace/internal/testenv"
)

// shape says which processes a row runs. Zero means one ingest, two workers,
// one edge, the common clip and the services' defaults.
type shape struct {
	ingests, workers, edges int
	clip                    clip
	// args are further arguments by role; workerArgs those of the workers by number.
	args       map[string][]string
	workerArgs [][]string
	// proxies puts toxiproxy before Redis and S3, and a wire before each ingest's RTMP port.
	proxies bool
	// wires puts a proxy on every way to and from the workers.
	wires bool
	// sentinel runs a replicated Redis behind three Sentinels.
	sentinel bool
	// workerProcs bounds the cores that a worker thinks it has, 0 for all.
	workerProcs int
	// level is what the witness watches: 0 for the smallest rung, -1 for what hls.js chooses.
	level int
}

// common is what is published: keyframes each 2 s, small, with sound.
var common = clip{name: "chaos", seconds: "240", size: "640x360", rate: "30", video: []string{"-g", "60", "-bf", "2"}, audio: stereo}

// cluster is the services of one row, each a process of its own.
type cluster struct {
	t     testing.TB
	shape shape

	redisServer *redisServer
	sentinels   *testenv.SentinelCluster
	redis       redis.UniversalClient // straight, not by way of a proxy
	bucket      *objects.Bucket       // likewise
	redisProxy  *testenv.FaultProxy
	s3Proxy     *testenv.FaultProxy
	s3Faults    *s3Faults
	rtmpWires   []*wire

	api                    *server
	ingests, workers       []*server
	edges                  []*server
	ingestWires, edgeWires []*wire // before ingests, before workers
	outWires               []*wire // before Redis and S3

	// front is the address of pages and video for browsers.
	front    string
	key      string
	env      []string
	redisURL string
}

// newChannel makes a channel and returns its stream key.
func (c *cluster) newChannel(name string) string {
	c.t.Helper()
	return createChannel(c.t, name, "--data", c.api.data, "--redis", c.redisURL)
}

// startCluster starts all of it and waits until it is ready.
func startCluster(t testing.TB, s shape) *cluster {
	t.Helper()
	s.ingests, s.workers, s.edges = max(s.ingests, 1), max(s.workers, 0), max(s.edges, 1)
	if s.workers == 0 {
		s.workers = 2
	}
	if s.clip.name == "" {
		s.clip = common
	}
	c := &cluster{t: t, shape: s}
	s.clip.file(t)
	redisURL := c.startRedis()
	cfg := testenv.BucketConfig(t)
	c.bucket = testenv.CreateBucket(t, cfg)
	endpoint := cfg.Endpoint
	if s.proxies {
		c.s3Faults = startS3Faults(t, cfg.Endpoint)
		c.s3Proxy = testenv.Proxy(t, c.s3Faults.address)
		endpoint = "http://" + c.s3Proxy.Address
	}
	workerRedis, workerEndpoint := redisURL, endpoint
	if s.wires {
		a, b := startWire(t, hostOf(redisURL)), startWire(t, hostOf(endpoint))
		c.outWires = []*wire{a, b}
		workerRedis, workerEndpoint = "redis://"+a.address, "http://"+b.address
	}
	c.env = []string{"MILLRACE_S3_ACCESS_KEY=" + cfg.AccessKey, "MILLRACE_S3_SECRET_KEY=" + cfg.SecretKey}
	shared := func(role string) []string {
		args := []string{"--redis", redisURL, "--s3-endpoint", endpoint, "--s3-bucket", cfg.Bucket}
		if role == "transcode" {
			args = []string{"--redis", workerRedis, "--s3-endpoint", workerEndpoint, "--s3-bucket", cfg.Bucket}
		}
		return append(args, s.args[role]...)
	}
	start := func(role string, n int) *server {
		args := shared(role)
		if role == "transcode" && n < len(s.workerArgs) {
			for _, a := range s.workerArgs[n] {
				if a == otherBuild {
					a = foreignFFmpeg(t)
				}
				args = append(args, a)
			}
		}
		var w *wire
		if s.wires && (role == "ingest" || role == "transcode") {
			w = startWire(t, "")
			args = append(args, "--advertise", "http://"+w.address)
		}
		// The last of several edges is none that players know: the observer's.
		if role == "edge" && s.edges > 1 && n < s.edges-1 {
			w = startWire(t, "")
			args = append(args, "--edge-url", "http://"+w.address)
		}
		env := c.env
		if role == "transcode" && s.workerProcs > 0 {
			env = append(slices.Clone(env), "GOMAXPROCS="+strconv.Itoa(s.workerProcs))
		}
		srv := startRole(t, role, t.TempDir(), env, args...)
		switch {
		case w == nil:
		case role == "edge":
			w.aim(hostOf(srv.http))
		case role == "ingest":
			w.aim(srv.private)
			c.ingestWires = append(c.ingestWires, w)
		default:
			w.aim(srv.private)
			c.edgeWires = append(c.edgeWires, w)
		}
		return srv
	}
	c.api = start("api", 0)
	for n := range s.ingests {
		c.ingests = append(c.ingests, start("ingest", n))
	}
	for n := range s.edges {
		c.edges = append(c.edges, start("edge", n))
	}
	for n := range s.workers {
		c.workers = append(c.workers, start("transcode", n))
	}
	for _, srv := range c.all() {
		isReady(t, srv)
	}
	if s.proxies {
		for _, i := range c.ingests {
			c.rtmpWires = append(c.rtmpWires, startWire(t, i.rtmp))
		}
	}
	t.Cleanup(func() {
		// A row is over when it was measured: nobody waits for a clean end.
		for _, srv := range c.all() {
			_ = srv.cmd.Process.Signal(syscall.SIGCONT)
			srv.kill()
		}
	})
	c.redisURL = redisURL
	c.key = c.newChannel("demo")
	c.startFront()
	return c
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Host
}

// startRedis starts what keeps the services' state and returns the --redis for them.
func (c *cluster) startRedis() string {
	if c.shape.sentinel {
		c.sentinels = testenv.Sentinel(c.t)
		o, err := redis.ParseFailoverURL(c.sentinels.URL())
		if err != nil {
			c.t.Fatal(err)
		}
		o.ContextTimeoutEnabled, o.DialerRetries = true, 1
		c.redis = redis.NewFailoverClient(o)
		c.t.Cleanup(func() { _ = c.redis.Close() })
		return c.sentinels.URL()
	}
	c.redisServer = startRedisServer(c.t)
	c.redis = c.redisServer.client(c.t)
	if !c.shape.proxies {
		return "redis://" + c.redisServer.address
	}
	c.redisProxy = testenv.Proxy(c.t, c.redisServer.address)
	return "redis://" + c.redisProxy.Address
}

// startFront joins pages and video under one address, as a site's own proxy does.
// A request for video goes to the first edge that can be reached.
func (c *cluster) startFront() {
	page, _ := url.Parse(c.api.http)
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetXForwarded()
			if strings.HasPrefix(r.In.URL.Path, "/hls/") {
				r.SetURL(c.edgeForPages())
			} else {
				r.SetURL(page)
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		Transport:    &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second},
	}
	front := httptest.NewServer(proxy)
	c.t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
		proxy.Transport.(*http.Transport).CloseIdleConnections()
	})
	c.front = front.URL
}

// edgeForPages is the first edge that runs, as a load balancer would choose.
func (c *cluster) edgeForPages() *url.URL {
	at := c.edges[0]
	for _, e := range c.edges {
		if c.isUp(e) {
			at = e
			break
		}
	}
	u, _ := url.Parse(at.http)
	return u
}

// isUp reports whether somebody listens on a service's public port; restarts
// are the test's goroutine's business, so the process itself isn't looked at.
func (c *cluster) isUp(s *server) bool {
	conn, err := net.DialTimeout("tcp", hostOf(s.http), 200*time.Millisecond)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// all are the services' processes.
func (c *cluster) all() []*server {
	list := []*server{c.api}
	list = append(list, c.ingests...)
	list = append(list, c.workers...)
	return append(list, c.edges...)
}

// isReady waits until a service says that it is ready.
func isReady(t testing.TB, s *server) {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		if !s.running() {
			t.Fatalf("%s ended: %v\n%s", s.name, s.err, lastLines(s.log.String(), 20))
		}
		a, err := fetch(t.Context(), client, "http://"+s.ops+"/readyz")
		if err == nil && a.status != 200 {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return err
	})
}

// restart starts a service again, on its addresses and data.
func (c *cluster) restart(s *server) {
	c.t.Helper()
	if s.running() {
		c.t.Fatalf("%s is to be started again, and runs", s.name)
	}
	s.keepEarlierLog()
	s.start(c.t)
	isReady(c.t, s)
}

// keepEarlierLog saves what the process said that is followed by another one.
func (s *server) keepEarlierLog() {
	if os.Getenv("CHAOS_LOGS") != "" {
		s.program.keepLog()
	}
}

// drain is SIGTERM and the wait for the end; it returns how long that took.
func (c *cluster) drain(s *server, limit time.Duration) time.Duration {
	c.t.Helper()
	start := time.Now()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.wait(limit); err != nil {
		c.t.Errorf("%s after SIGTERM: %v", s.name, err)
	}
	return time.Since(start)
}

// broadcast is the channel's, from Redis.
func (c *cluster) broadcast() string {
	c.t.Helper()
	id, err := c.redis.HGet(context.Background(), "millrace:channel:{demo}", "broadcast").Result()
	if err != nil {
		c.t.Fatalf("the channel's broadcast: %v", err)
	}
	return id
}

// holder is the worker that has a slot, or nil.
func (c *cluster) holder(broadcast string, slot int) *server {
	text, err := c.redis.HGet(context.Background(), "millrace:broadcast:{"+broadcast+"}:slots", strconv.Itoa(slot)).Result()
	var s jobs.Slot
	if err != nil || json.Unmarshal([]byte(text), &s) != nil {
		return nil
	}
	for n, w := range c.workers {
		if s.Address == "http://"+w.private || n < len(c.edgeWires) && s.Address == "http://"+c.edgeWires[n].address {
			return w
		}
	}
	return nil
}

// busy is the worker in a slot; it waits for one that runs.
func (c *cluster) busy(slot int) *server {
	c.t.Helper()
	var w *server
	eventually(c.t, 20*time.Second, func() error {
		w = c.holder(c.broadcast(), slot)
		if w == nil || !w.running() {
			return fmt.Errorf("no running worker in slot %d", slot)
		}
		return nil
	})
	return w
}

// number is a worker's place in the list.
func (c *cluster) number(w *server) int {
	for n, x := range c.workers {
		if x == w {
			return n
		}
	}
	return -1
}

// children are the processes that a service has started, by name.
func children(pid int, name string) []int {
	var list []int
	entries, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range entries {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// pid (comm) state ppid ...
		open, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
		if open < 0 || end < open {
			continue
		}
		fields := strings.Fields(string(text[end+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(pid) || !strings.Contains(string(text[open:end]), name) {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimSpace(string(text[:open]))); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// rss is a process's resident memory in bytes, 0 when it is gone.
func rss(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// memory is the resident memory of each role's processes, their mean, in MB.
func (c *cluster) memory() map[string]float64 {
	sum, count := make(map[string]float64), make(map[string]float64)
	for _, s := range c.all() {
		if s.running() {
			sum[s.role] += float64(rss(s.cmd.Process.Pid)) / 1e6
			count[s.role]++
		}
	}
	for role := range sum {
		sum[role] /= count[role]
	}
	return sum
}

// sum adds a metric up over services that run.
func sum(list []*server, name, label string) float64 {
	total := 0.0
	for _, s := range list {
		if s.running() {
			total += s.metric(name, label)
		}
	}
	return total
}
