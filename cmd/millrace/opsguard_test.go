package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Who may ask the ops listener, and what it says then.
func TestOpsGuard(t *testing.T) {
	const token = "for operators only"
	broken := dependency{name: "redis", check: func(context.Context) error { return errors.New("dial tcp 10.0.0.9:6379: refused") }, optional: true}
	all := http.Header{}
	with := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	for _, c := range []struct {
		name, token, method, host, path string
		header                          http.Header
		want                            int
		refused                         string // reason
		detail                          bool   // errors are shown
	}{
		{"an operator here", "", "GET", "127.0.0.1:9190", "/metrics", all, 200, "", false},
		{"by a name of this machine", "", "GET", "localhost:9190", "/debug/pprof/", all, 200, "", false},
		{"by IPv6", "", "GET", "[::1]:9190", "/metrics", all, 200, "", false},
		{"by the configured name", "", "GET", "OPS.internal:9190", "/metrics", all, 200, "", false},
		{"an address that was typed in", "", "GET", "127.0.0.1:9190", "/debug/pprof/", with("Sec-Fetch-Site", "none"), 200, "", false},
		{"a link on our own page", "", "GET", "127.0.0.1:9190", "/debug/pprof/heap", with("Sec-Fetch-Site", "same-origin"), 200, "", false},
		{"a rebound name", "", "GET", "evil.example:9190", "/metrics", all, 403, "host", false},
		{"a rebound name that ends alike", "", "GET", "evil-localhost:9190", "/debug/pprof/cmdline", all, 403, "host", false},
		{"a rebound name, its own page", "", "GET", "evil.example:9190", "/debug/pprof/heap", with("Sec-Fetch-Site", "same-origin"), 403, "host", false},
		{"no name", "", "GET", "", "/metrics", all, 403, "host", false},
		{"another site's page", "", "GET", "127.0.0.1:9190", "/metrics", with("Sec-Fetch-Site", "cross-site"), 403, "browser", false},
		{"a page of another port", "", "GET", "127.0.0.1:9190", "/debug/pprof/profile", with("Sec-Fetch-Site", "same-site"), 403, "browser", false},
		{"another origin", "", "GET", "127.0.0.1:9190", "/metrics", with("Origin", "http://evil.example"), 403, "browser", false},
		{"a page in a sandbox", "", "GET", "127.0.0.1:9190", "/healthz", with("Origin", "null"), 403, "browser", false},
		{"a post", "", "POST", "127.0.0.1:9190", "/debug/pprof/symbol", all, 405, "method", false},
		{"a probe by any name", "", "GET", "pod.example:9190", "/healthz", all, 200, "", false},
		{"a probe of readiness by any name", "", "GET", "pod.example:9190", "/readyz", all, 200, "", false},
		{"an operator who looks at readiness", "", "GET", "127.0.0.1:9190", "/readyz", all, 200, "", true},
		{"without the token", token, "GET", "10.0.0.5:9190", "/metrics", all, 401, "token", false},
		{"without it on this machine", token, "GET", "127.0.0.1:9190", "/debug/pprof/", all, 401, "token", false},
		{"with another one", token, "GET", "10.0.0.5:9190", "/metrics", with("Authorization", "Bearer x"), 401, "token", false},
		{"with a bare one", token, "GET", "10.0.0.5:9190", "/metrics", with("Authorization", token), 401, "token", false},
		{"Prometheus", token, "GET", "millrace-0.millrace:9190", "/metrics", with("Authorization", "Bearer "+token), 200, "", false},
		{"a page that has it", token, "GET", "10.0.0.5:9190", "/metrics", with("Authorization", "Bearer "+token, "Sec-Fetch-Site", "cross-site"), 403, "browser", false},
		{"kubelet", token, "GET", "10.0.0.5:9190", "/readyz", all, 200, "", false},
		{"kubelet again", token, "GET", "10.0.0.5:9190", "/healthz", all, 200, "", false},
		{"readiness with the token", token, "GET", "10.0.0.5:9190", "/readyz", with("Authorization", "Bearer "+token), 200, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			server := newOpsServer(settings{Ops: "ops.internal:9190", OpsToken: secretText(c.token)}, registry, []dependency{broken})
			r := httptest.NewRequest(c.method, c.path, nil)
			r.Host, r.Header = c.host, c.header.Clone()
			if c.path == "/debug/pprof/profile" {
				r.URL.RawQuery = "seconds=1"
			}
			w := httptest.NewRecorder()
			server.Handler.ServeHTTP(w, r)
			if w.Code != c.want {
				t.Errorf("%d %s, want %d", w.Code, w.Body, c.want)
			}
			if shown := strings.Contains(w.Body.String(), "10.0.0.9"); shown != c.detail {
				t.Errorf("it says %s", w.Body)
			}
			for _, reason := range []string{"browser", "method", "token", "host"} {
				want := 0
				if reason == c.refused {
					want = 1
				}
				if n := countOf(t, registry, "millrace_ops_refused_total", reason); n != want {
					t.Errorf("%d were refused as %s, want %d", n, reason, want)
				}
			}
		})
	}
}

// countOf is a counter with one label.
func countOf(t *testing.T, r *prometheus.Registry, name, label string) int {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	t.Fatalf("there is no %s{%s}", name, label)
	return 0
}

// What the program was started with is no operator's program's business.
func TestCmdlineShowsNoFlags(t *testing.T) {
	server := newOpsServer(settings{Ops: "127.0.0.1:9190"}, prometheus.NewRegistry(), nil)
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:9190/debug/pprof/cmdline", nil)
	w := httptest.NewRecorder()
	server.Handler.ServeHTTP(w, r)
	if w.Body.String() != os.Args[0] {
		t.Errorf("it shows %q of %q", w.Body, os.Args)
	}
}

func TestCheckOps(t *testing.T) {
	for address, open := range map[string]bool{
		"127.0.0.1:9190": false, "127.8.8.8:0": false, "[::1]:9190": false, "localhost:9190": false,
		":9190": true, "0.0.0.0:9190": true, "[::]:9190": true, "10.0.0.5:9190": true, "ops.internal:9190": true,
	} {
		without, with := settings{Ops: address}, settings{Ops: address, OpsToken: "for operators only"}
		if err := without.checkOps(); (err != nil) != open || err != nil && !strings.Contains(err.Error(), "set --ops-token") {
			t.Errorf("%s without a token: %v", address, err)
		}
		if err := with.checkOps(); err != nil {
			t.Errorf("%s with a token: %v", address, err)
		}
	}
}
