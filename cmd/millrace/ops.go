package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"os"
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

// errNotReady is what is said of a dependency to who isn't an operator.
var errNotReady = errors.New("not ready")

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
// profiles. Its guard says who may ask.
func newOpsServer(s settings, r *prometheus.Registry, needs []dependency) *http.Server {
	g := newOpsGuard(s, r)
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		status, lines := ready(r.Context(), needs, g.trusts(r))
		w.WriteHeader(status)
		_, _ = fmt.Fprintln(w, strings.Join(lines, "\n"))
	})
	mux.Handle("/metrics", g.operators(promhttp.HandlerFor(r, promhttp.HandlerOpts{})))
	profiles := http.NewServeMux()
	profiles.HandleFunc("/debug/pprof/", pprof.Index)
	profiles.HandleFunc("/debug/pprof/cmdline", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, os.Args[0]) // what comes after it may be secret
	})
	profiles.HandleFunc("/debug/pprof/profile", pprof.Profile)
	profiles.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	profiles.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.Handle("/debug/pprof/", g.operators(profiles))
	return &http.Server{Handler: g.noPages(mux), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
}

// ready looks at what a process depends on, and returns a line about each. Errors,
// which name addresses, are for operators only.
func ready(ctx context.Context, needs []dependency, operator bool) (status int, lines []string) {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	// All at once: one that hangs isn't to be taken for another.
	found := make([]error, len(needs))
	var looks sync.WaitGroup
	for i, d := range needs {
		looks.Go(func() { found[i] = d.check(ctx) })
	}
	looks.Wait()
	status = http.StatusOK
	for i, d := range needs {
		if found[i] == nil {
			lines = append(lines, d.name+": ok")
			continue
		}
		if !d.optional {
			status = http.StatusServiceUnavailable
		}
		if !operator {
			found[i] = errNotReady
		}
		lines = append(lines, fmt.Sprintf("%s: %v", d.name, found[i]))
	}
	return status, lines
}
