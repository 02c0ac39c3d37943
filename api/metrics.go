package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics counts requests and copies of stream keys.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	keySyncs *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	auto := promauto.With(r)
	m := &metrics{
		requests: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_api_requests_total",
			Help: "HTTP requests by route and status.",
		}, []string{"route", "status"}),
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "millrace_api_request_seconds",
			Help:    "Time to answer a request, by route.",
			Buckets: []float64{.001, .005, .02, .1, .5, 2, 10},
		}, []string{"route"}),
		keySyncs: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_api_key_syncs_total",
			Help: "Copies of the stream keys from SQL to Redis, by result.",
		}, []string{"result"}),
	}
	// From 0 on: an alert on an increase doesn't see a counter that appears with 1.
	for _, result := range []string{"ok", "failed"} {
		m.keySyncs.WithLabelValues(result)
	}
	return m
}

// count counts the requests of a route and the time they take.
func (m *metrics) count(route string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		m.requests.WithLabelValues(route, strconv.Itoa(rec.status)).Inc()
		m.seconds.WithLabelValues(route).Observe(time.Since(start).Seconds())
	})
}

// statusRecorder remembers the status that was sent.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status and sends it.
func (r *statusRecorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
