package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readyLimit bounds the look at what a process depends on. Probes of Kubernetes
// give up after 1 s.
const readyLimit = 800 * time.Millisecond

// dependency is something that a process is not ready without.
type dependency struct {
	name  string
	check func(context.Context) error
	// optional: its absence is shown, and the process stays ready.
	optional bool
}

// newRegistry returns a registry with the process's own metrics.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewBuildInfoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// newOpsServer serves operators: is it alive, is it ready, its metrics and
// profiles.
func newOpsServer(g prometheus.Gatherer, needs []dependency) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyLimit)
		defer cancel()
		// All at once: one that hangs isn't to be taken for another.
		found := make([]error, len(needs))
		var looks sync.WaitGroup
		for i, d := range needs {
			looks.Go(func() { found[i] = d.check(ctx) })
		}
		looks.Wait()
		status, lines := http.StatusOK, []string{}
		for i, d := range needs {
			switch err := found[i]; {
			case err == nil:
				lines = append(lines, d.name+": ok")
				continue
			case !d.optional:
				status = http.StatusServiceUnavailable
			}
			lines = append(lines, fmt.Sprintf("%s: %v", d.name, found[i]))
		}
		w.WriteHeader(status)
		_, _ = fmt.Fprintln(w, strings.Join(lines, "\n"))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(g, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
}
