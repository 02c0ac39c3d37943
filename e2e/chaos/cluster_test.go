//go:build chaos

package chaos

import (
	"net/url"
	"os"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"millrace/e2e/harness"
	"millrace/internal/objects"
	"millrace/internal/testenv"
)

// shape says which processes a row runs. Zero means one ingest, two workers,
// one edge, the common clip and the services' defaults.
type shape struct {
	ingests, workers, edges int
	clip                    harness.Clip
	// args are further arguments by role; workerArgs those of the workers by number.
	args       map[string][]string
	workerArgs [][]string
	// proxies puts toxiproxy before Redis and S3, and a wire before each ingest's RTMP port.
	proxies bool
	// wires puts a proxy on every way to and from the workers.
	wires bool
	// sentinel runs a replicated Redis behind three Sentinels.
	sentinel bool
	// level is what the witness watches: 0 for the smallest rung, -1 for what hls.js chooses.
	level int
}

// common is what is published: keyframes each 2 s, small, with sound.
var common = harness.Clip{Name: "chaos", Seconds: "300", Size: "640x360", Rate: "30", Video: []string{"-g", "60", "-bf", "2"}, Audio: harness.Stereo}

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

	api                    *harness.Server
	ingests, workers       []*harness.Server
	edges                  []*harness.Server
	ingestWires, edgeWires []*wire // before ingests, before workers
	outWires               []*wire // before Redis and S3
	pageWires              []*wire // before the edges that players know

	// front is the address of pages and video for browsers.
	front    string
	key      string
	args     map[string][]string // of all services, by role
	env      []string
	redisURL string
}

// newChannel makes a channel and returns its stream key.
func (c *cluster) newChannel(name string) string {
	c.t.Helper()
	return harness.CreateChannel(c.t, name, "--data", c.api.Data, "--redis", c.redisURL)
}

// startCluster starts all of it and waits until it is ready.
func startCluster(t testing.TB, s shape) *cluster {
	t.Helper()
	s.ingests, s.workers, s.edges = max(s.ingests, 1), max(s.workers, 0), max(s.edges, 1)
	if s.workers == 0 {
		s.workers = 2
	}
	if s.clip.Name == "" {
		s.clip = common
	}
	c := &cluster{t: t, shape: s}
	s.clip.File(t)
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
	// Each has a service's own time to leave: nobody is handed anything within none.
	usual := func(redis, endpoint string) []string {
		return []string{"--drain", "20s", "--redis", redis, "--s3-endpoint", endpoint, "--s3-bucket", cfg.Bucket}
	}
	c.args = map[string][]string{"transcode": usual(workerRedis, workerEndpoint)}
	for _, role := range []string{"api", "ingest", "edge"} {
		c.args[role] = usual(redisURL, endpoint)
	}
	c.api = c.launch("api")
	for range s.ingests {
		c.launch("ingest")
	}
	for range s.edges {
		c.launch("edge")
	}
	for range s.workers {
		c.launch("transcode")
	}
	for _, srv := range c.all() {
		harness.AwaitReady(t, srv)
	}
	if s.proxies {
		for _, i := range c.ingests {
			c.rtmpWires = append(c.rtmpWires, startWire(t, i.RTMP))
		}
	}
	c.redisURL = redisURL
	c.key = c.newChannel("demo")
	c.startFront()
	return c
}

// launch starts one more service of a role.
func (c *cluster) launch(role string) *harness.Server {
	c.t.Helper()
	s := c.shape
	args, env := slices.Concat(c.args[role], s.args[role]), c.env
	var list *[]*harness.Server
	var w *wire
	switch role {
	case "ingest":
		list = &c.ingests
		if s.wires {
			w = startWire(c.t, "")
			c.ingestWires = append(c.ingestWires, w)
		}
	case "transcode":
		list = &c.workers
		if n := len(c.workers); n < len(s.workerArgs) {
			for _, a := range s.workerArgs[n] {
				if a == otherBuild {
					a = foreignFFmpeg(c.t)
				}
				args = append(args, a)
			}
		}
		if s.wires {
			w = startWire(c.t, "")
			c.edgeWires = append(c.edgeWires, w)
		}
	case "edge":
		list = &c.edges
		// The last of several edges is none that players know: the observer's.
		if len(c.edges) < s.edges-1 {
			w = startWire(c.t, "")
			c.pageWires = append(c.pageWires, w)
		}
	}
	if w != nil {
		flag := "--advertise"
		if role == "edge" {
			flag = "--edge-url"
		}
		args = append(args, flag, "http://"+w.address)
	}
	srv := harness.StartRole(c.t, role, c.t.TempDir(), env, args...)
	// A row is over when it was measured: nobody waits for a clean end.
	c.t.Cleanup(srv.Kill)
	if w != nil && role == "edge" {
		w.aim(hostOf(srv.HTTP))
	} else if w != nil {
		w.aim(srv.Private)
	}
	if list != nil {
		*list = append(*list, srv)
	}
	return srv
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

// all are the services' processes.
func (c *cluster) all() []*harness.Server {
	list := []*harness.Server{c.api}
	list = append(list, c.ingests...)
	list = append(list, c.workers...)
	return append(list, c.edges...)
}

// restart starts a service again, on its addresses and data.
func (c *cluster) restart(s *harness.Server) {
	c.t.Helper()
	if s.Running() {
		c.t.Fatalf("%s is to be started again, and runs", s.Name)
	}
	if os.Getenv("CHAOS_LOGS") != "" { // what is followed by another process
		s.KeepLog()
	}
	s.Start(c.t)
	c.t.Cleanup(s.Kill)
	harness.AwaitReady(c.t, s)
}
