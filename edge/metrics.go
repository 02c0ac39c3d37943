package edge

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/edge/fold"
)

// metrics are the counters of one Service.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
	hits     *prometheus.CounterVec
	misses   *prometheus.CounterVec
	fetches  *prometheus.CounterVec
	hedged   prometheus.Counter
	follows  *prometheus.CounterVec
	refused  *prometheus.CounterVec
	redis    prometheus.Counter
	rejected *prometheus.CounterVec
	renders  prometheus.Counter
	waiters  prometheus.Gauge
	channels prometheus.Gauge
	streams  prometheus.Gauge
	viewers  prometheus.Gauge
	held     prometheus.Gauge
	sending  prometheus.Gauge
	paused   prometheus.Gauge
	lost     prometheus.Gauge
	edges    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "millrace", Subsystem: "edge", Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "millrace", Subsystem: "edge", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "millrace", Subsystem: "edge", Name: name, Help: help})
	}
	m := &metrics{
		requests: counters("requests_total", "Requests answered, by kind and status.", "kind", "code"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "millrace", Subsystem: "edge", Name: "request_seconds",
			Help:    "Time from a request to the last byte handed to the system, waiting included.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"kind"}),
		bytes:    counters("bytes_total", "Bytes of bodies sent to viewers, by kind.", "kind"),
		hits:     counters("cache_hits_total", "Objects found in the cache, by kind.", "kind"),
		misses:   counters("cache_misses_total", "Objects that had to be fetched or made, by kind.", "kind"),
		fetches:  counters("upstream_fetches_total", "Requests to workers (window) and S3 (bucket), by result.", "source", "result"),
		hedged:   counter("hedged_fetches_total", "Times another source was asked too, because the one before let a fetch wait."),
		follows:  counters("follow_breaks_total", "Follow streams that broke, by reason.", "reason"),
		refused:  counters("entries_refused_total", "Index entries that were refused, by reason.", "reason"),
		redis:    counter("redis_errors_total", "Reads from and reports to Redis that failed."),
		rejected: counters("rejected_total", "Requests turned away or ended because a bound was reached, by reason.", "reason"),
		renders:  counter("playlist_renders_total", "Media playlists rendered; many requests share one."),
		waiters:  gauge("waiters", "Requests that wait for a part or segment to exist."),
		channels: gauge("channels", "Channels that somebody asked for lately."),
		streams:  gauge("follows", "Open follow streams."),
		viewers:  gauge("viewers", "Viewers seen lately on this edge."),
		held:     gauge("cache_bytes", "Bytes held by the cache: objects that are there or being fetched, those that are being sent too."),
		sending:  gauge("sending_bytes", "Bytes of the cache that are being sent to somebody."),
		paused:   gauge("broadcasts_paused", "Broadcasts followed of which nothing new comes: the publisher is away, or all upstream."),
		lost:     gauge("upstream_lost", "Broadcasts followed that no worker tells of; they are served from what is held."),
		edges:    gauge("edges", "Edges known that players can change between, this one included."),
	}
	reg.MustRegister(m.requests, m.seconds, m.bytes, m.hits, m.misses, m.fetches, m.follows, m.refused,
		m.redis, m.rejected, m.renders, m.waiters, m.channels, m.streams, m.viewers, m.held, m.sending,
		m.hedged, m.paused, m.lost, m.edges)
	// From 0 on: an alert on an increase doesn't see a counter that appears with 1.
	for _, reason := range []string{
		"waiters", "viewers", "channels", "lookups", "fetches", "room", "slow_reader", "guesses", "inits",
		"address_requests", "address_fetches", "address_bytes", "address_misses", "address_lookups", "address_viewers",
	} {
		m.rejected.WithLabelValues(reason)
	}
	return m
}

func (m *metrics) answered(k fold.Kind, code int, bytes int64, took time.Duration) {
	m.requests.WithLabelValues(string(k), strconv.Itoa(code)).Inc()
	m.seconds.WithLabelValues(string(k)).Observe(took.Seconds())
	if bytes > 0 {
		m.bytes.WithLabelValues(string(k)).Add(float64(bytes))
	}
}
