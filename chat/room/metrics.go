package room

import "github.com/prometheus/client_golang/prometheus"

// metrics are those of a hub.
type metrics struct {
	connections *prometheus.GaugeVec
	delivered   *prometheus.CounterVec
	skipped     *prometheus.CounterVec
	closed      *prometheus.CounterVec
	writes      prometheus.Counter
	bytes       prometheus.Counter
	refused     prometheus.Counter
}

// formatMetrics are those of a format.
type formatMetrics struct {
	connections        prometheus.Gauge
	delivered, skipped prometheus.Counter
}

func newMetrics(h *Hub) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	held := func(name, help string, b *budget) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(b.used.Load()) })
	}
	m := &metrics{
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "millrace_chat_connections", Help: "Open chat connections.",
		}, []string{"format"}),
		delivered: vec("millrace_chat_deliveries_total", "Entries of rooms that were sent to a connection.", "format"),
		skipped:   vec("millrace_chat_skipped_total", "Entries that a connection missed, because it was too slow or they were lost.", "format"),
		closed:    vec("millrace_chat_closed_total", "Chat connections that ended, by why.", "format", "reason"),
		writes:    counter("millrace_chat_writes_total", "Writes to chat connections."),
		bytes:     counter("millrace_chat_written_bytes_total", "Bytes written to chat connections."),
		refused:   counter("millrace_chat_refused_total", "Connections that weren't taken, because there are too many."),
	}
	h.Metrics.MustRegister(m.connections, m.delivered, m.skipped, m.closed, m.writes, m.bytes, m.refused,
		held("millrace_chat_log_bytes", "Size of all rooms' logs in memory.", &h.logs),
		held("millrace_chat_waiting_bytes", "Bytes that wait for connections to take them.", &h.held))
	return m
}

func (m *metrics) of(f *Format) formatMetrics {
	return formatMetrics{
		connections: m.connections.WithLabelValues(f.Name),
		delivered:   m.delivered.WithLabelValues(f.Name),
		skipped:     m.skipped.WithLabelValues(f.Name),
	}
}
