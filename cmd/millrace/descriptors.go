package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/internal/gate"
)

// fewDescriptors is the limit on open files below which the log says so.
const fewDescriptors = 4096

// keptAtMost is what 1,000 broadcasts take: some 26 files each, with both ends of the
// connections of their worker and their edge.
const keptAtMost = 26_000

// shares are the most connections at a time of each kind of listener. All come
// out of one table of file descriptors; what they leave is for what this process
// does by itself: FFmpeg's pipes, Redis, S3, the spool, the database, and its own
// ends of connections to private listeners.
type shares struct {
	// public are viewers: HTTP and HTTPS together.
	public int
	// publicSource is the most of one address. 2,048 are 340 viewers behind one NAT
	// that open 6 each, as browsers do over HTTP/1; more can watch, since those that
	// idle make room, and over HTTP/2 each has one. With a small limit it is a quarter
	// of all, so that one address leaves most to the others.
	publicSource int
	// rtmp are encoders: RTMP and RTMPS together. A broadcast is much more work
	// than a connection, so 1,000 are enough for any machine.
	rtmp int
	// rtmpSource is the most of one address: a studio's encoders.
	rtmpSource int
	// private are other services: each worker has a few connections to each
	// ingest, each edge one for each broadcast and those of its fetches.
	private int
	// ops are probes, Prometheus and people.
	ops int
	// fetches and stores are connections to S3, out of what is kept: those of the
	// edge, and those of all else. Viewers can't take the ones that segments are
	// stored by. With an S3 server of our own each is three open files, its other end
	// and the object.
	fetches, stores int
	// redis are connections of one client, out of what is kept; a process has some five.
	redis int
}

// connectionMemory is what an idle connection of a viewer takes, in bytes: some 35 KB
// were measured with HTTP/1 and with TLS and HTTP/2.
const connectionMemory = 64 << 10

// divide shares a limit on open files: of 1,024, 544 are for viewers, 128 for
// encoders, 64 for other services, 32 for operators, and 256 are kept. The idle
// connections of viewers take no more than a quarter of the memory, where that is
// known: who has an IPv6 network comes from as many addresses as he likes.
func divide(descriptors int, memory int64) shares {
	s := shares{rtmp: min(descriptors/8, 1000), private: min(descriptors/16, 4096), ops: min(descriptors/16, 32)}
	kept := min(descriptors/4, keptAtMost)
	s.public = min(descriptors-kept-s.rtmp-s.private-s.ops, 65_536)
	if memory > 0 {
		s.public = min(s.public, int(memory/4/connectionMemory))
	}
	s.publicSource = min(s.public/4, 2048)
	s.rtmpSource = min(s.rtmp/4, 32)
	s.fetches, s.stores = min(kept/10, 512), min(kept/32, 64)
	s.redis = kept / 16
	return s
}

// shareDescriptors divides the limit on open files, and says so when it is small.
func shareDescriptors(log *slog.Logger) (shares, error) {
	limit, err := descriptorLimit()
	if err != nil {
		return shares{}, err
	}
	s := divide(limit, memoryLimit())
	if limit < fewDescriptors {
		log.Warn("few files may be open at a time, so few people can watch: raise the limit with ulimit -n, or LimitNOFILE= of systemd",
			"limit", limit, "viewers_connections", s.public)
	}
	return s, nil
}

// descriptorLimit is how many files this process may have open. Go has raised
// the soft limit to the hard one when the process started; children get the one
// that we got.
func descriptorLimit() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("ask for the limit on open files: %w", err)
	}
	return int(min(limit.Cur, 1<<20)), nil
}

// memoryLimit is how many bytes of memory this machine has, or the control group at
// the root of what this process sees may take (that of a container); 0 if unknown.
func memoryLimit() int64 {
	var limit int64
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &limit); err == nil {
			limit <<= 10
		}
	}
	var group int64 // "max" is no number
	if text, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		group, _ = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	}
	if group > 0 && (limit == 0 || group < limit) {
		return group
	}
	return limit
}

// gates are before each kind of listener.
type gates struct {
	public, rtmp, private, ops *gate.Gate
}

// newGates makes the gates, for shares.
func newGates(s shares, trusted []netip.Prefix, r prometheus.Registerer, log *slog.Logger) gates {
	m := gate.NewMetrics(r)
	public := gate.New(gate.Config{Total: s.public, PerSource: s.publicSource, Trusted: trusted, Metrics: m, Log: log})
	return gates{
		public: public,
		// Who publishes is never closed for somebody else.
		rtmp: gate.New(gate.Config{Total: s.rtmp, PerSource: s.rtmpSource, Trusted: trusted, Spare: true, Yields: public, Metrics: m, Log: log}),
		// Only services of our own come here, perhaps all from one address.
		private: gate.New(gate.Config{Total: s.private, Spare: true, Yields: public, Metrics: m, Log: log}),
		// The newest gets in, whatever the others do: it may be the probe that
		// decides whether this process lives.
		ops: gate.New(gate.Config{Total: s.ops, Yields: public, Metrics: m, Log: log}),
	}
}
