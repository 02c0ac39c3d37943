package ingest

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	broadcasts, publishers            prometheus.Gauge
	relayReaders                      prometheus.Gauge
	relayLost                         prometheus.Counter
	claimsLost, takeovers, handovers  *prometheus.CounterVec
	rightsChecks                      *prometheus.CounterVec
	problems                          *prometheus.GaugeVec
	found                             *prometheus.CounterVec
	dropped                           *prometheus.CounterVec
	bitrate, frameRate, interval, lag prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) metrics {
	f := promauto.With(r)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "millrace_ingest_" + name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: "millrace_ingest_" + name, Help: help, Buckets: buckets})
	}
	m := metrics{
		broadcasts:   gauge("broadcasts", "Broadcasts whose log this ingest holds."),
		publishers:   gauge("publishers", "Publishers that are connected."),
		relayReaders: gauge("relay_readers", "Readers of the relay."),
		relayLost: f.NewCounter(prometheus.CounterOpts{
			Name: "millrace_ingest_relay_lost_total", Help: "Relay readers that fell behind the log's oldest item.",
		}),
		claimsLost: f.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_ingest_claims_lost_total", Help: "Claims that ended before their broadcast, by reason.",
		}, []string{"reason"}),
		takeovers: f.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_ingest_takeovers_total", Help: "Broadcasts that another ingest began and this one goes on with, by who told from where.",
		}, []string{"source"}),
		handovers: f.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_ingest_handovers_total", Help: "Planned handovers from a worker to another one, by result.",
		}, []string{"result"}),
		rightsChecks: f.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_ingest_rights_checks_total", Help: "Looks at whether publishers still may publish, by result: failed, Redis is away; unknown, it has no channels.",
		}, []string{"result"}),
		problems: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "millrace_ingest_health_problems", Help: "Publishers that have a problem now, by problem.",
		}, []string{"problem"}),
		found: f.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_ingest_health_problems_total", Help: "Problems found in what publishers send, by problem.",
		}, []string{"problem"}),
		dropped: f.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_ingest_units_dropped_total", Help: "Access units that were left out, by reason.",
		}, []string{"reason"}),
		bitrate:   histogram("bitrate_bits", "Bits a second of publishers, over 10 s.", prometheus.ExponentialBuckets(250e3, 2, 10)),
		frameRate: histogram("frame_rate", "Frames a second of publishers, over 10 s.", []float64{5, 10, 15, 20, 24, 26, 29, 31, 49, 51, 59, 61, 120}),
		interval:  histogram("keyframe_interval_seconds", "Seconds between keyframes.", []float64{0.5, 1, 1.5, 2.1, 3, 4.1, 6, 8.5, 10, 20}),
		lag:       histogram("late_seconds", "How far frames are behind their timestamps.", []float64{0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30}),
	}
	for _, p := range problems {
		m.problems.WithLabelValues(string(p))
	}
	// From 0 on: an alert on an increase doesn't see a counter that appears with 1.
	for vec, values := range map[*prometheus.CounterVec][]string{
		m.claimsLost: {"silent", "closed"}, m.takeovers: {"ingest", "worker", "redis"},
		m.handovers: {"done", "successor_lost", "worker_lost"}, m.rightsChecks: {"ok", "failed", "unknown"},
	} {
		for _, v := range values {
			vec.WithLabelValues(v)
		}
	}
	return m
}
