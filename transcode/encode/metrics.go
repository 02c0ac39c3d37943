package encode

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics counts what the workers of a process do.
type Metrics struct {
	coldStarts, failures, shed prometheus.Counter
	hangs, encodeSeconds       prometheus.Counter
	overMemory, ended          prometheus.Counter
	rungsShed                  prometheus.Gauge
	takeover                   prometheus.Histogram
}

// NewMetrics registers them, and what b says.
func NewMetrics(r prometheus.Registerer, b *Budget) *Metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "millrace_transcode_" + name, Help: help})
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "millrace_transcode_room_cores", Help: "Cores that are free for rungs of further broadcasts, by what encoding was measured to cost here.",
	}, b.Room)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "millrace_transcode_room_memory_bytes", Help: "Memory that is free for rungs of further broadcasts, by what their pictures' sizes need.",
	}, b.MemoryRoom)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "millrace_transcode_cost_ratio", Help: "What encoding costs here over what was estimated.",
	}, b.Scale)
	return &Metrics{
		coldStarts: counter("encoder_cold_starts_total", "Encoders that were started when they were needed, since no spare was ready."),
		failures:   counter("encoder_failures_total", "Encoders that ended before their segment did."),
		overMemory: counter("encoder_memory_limits_total", "Encoders that ended, or left pictures out, since they wanted more memory than what they do should take."),
		ended:      counter("rungs_ended_total", "Broadcasts whose rungs aren't made for a while, since their encoders died again and again."),
		shed:       counter("rung_segments_shed_total", "Segments of rungs that were not encoded because encoding was too slow; another rendition's stand in."),
		hangs:      counter("encoder_hangs_total", "Encoders that were ended since they made nothing of what they were fed."),
		rungsShed: f.NewGauge(prometheus.GaugeOpts{
			Name: "millrace_transcode_rungs_shed", Help: "Rungs that aren't made now for want of room; another rendition's segments stand in.",
		}),
		takeover: f.NewHistogram(prometheus.HistogramOpts{
			Name: "millrace_transcode_takeover_seconds", Help: "Time from the grant of a broadcast that others had to the first new part of a rung.",
			Buckets: []float64{.05, .1, .15, .2, .3, .5, .75, 1, 2, 5, 10},
		}),
		encodeSeconds: counter("encoder_cpu_seconds_total", "CPU time of encoders that have ended."),
	}
}
