package transcode

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics counts the broadcasts of this worker process.
type metrics struct {
	broadcasts, detached prometheus.Gauge
	claims               *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	return &metrics{
		broadcasts: f.NewGauge(prometheus.GaugeOpts{
			Name: "millrace_transcode_broadcasts", Help: "Broadcasts that this worker works on.",
		}),
		detached: f.NewGauge(prometheus.GaugeOpts{
			Name: "millrace_transcode_orphans", Help: "Broadcasts whose ingest is gone, kept until another one goes on with them.",
		}),
		claims: f.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_transcode_claims_total", Help: "Claims on broadcasts, by how they ended.",
		}, []string{"result"}),
	}
}
