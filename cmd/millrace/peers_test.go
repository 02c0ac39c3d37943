package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"millrace/internal/seal"
	"millrace/internal/testenv"
)

// A secret of its own is made once, for the owner's eyes only.
func TestKeptSecret(t *testing.T) {
	data := t.TempDir()
	made, err := keptSecret(data)
	if err != nil || len(made) < 32 {
		t.Fatalf("it has %d characters, %v", len(made), err)
	}
	if again, err := keptSecret(data); again != made || err != nil {
		t.Errorf("the next start has another one, %v", err)
	}
	if info, err := os.Stat(secretFile(data)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("it is kept as %v, %v", info, err)
	}
	if other, _ := keptSecret(t.TempDir()); other == made {
		t.Error("another installation has the same one")
	}
}

// TestBrowserOnTheMachine: what a web page can have a browser on this machine do
// reaches neither the private nor the ops listener, and a peer is answered.
func TestBrowserOnTheMachine(t *testing.T) {
	private := testenv.FreeAddress(t)
	r := startAll(t, t.TempDir(), "--private", private, "--private-secret", "on the command line")
	ask := func(method, url, host string, header ...string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	const release = "/release/b?epoch=99999999999999"
	for name, status := range map[string]int{
		"a cross-site POST to release": ask("POST", "http://"+private+release, "", "Origin", "http://evil.example", "Sec-Fetch-Site", "cross-site"),
		"the same without a header":    ask("POST", "http://"+private+release, ""),
		"a rebound name, private":      ask("GET", "http://"+private+"/follow/b", "evil.example:7080"),
		"a rebound name, metrics":      ask("GET", "http://"+r.ops+"/metrics", "evil.example:9190"),
		"a rebound name, profiles":     ask("GET", "http://"+r.ops+"/debug/pprof/heap", "evil.example:9190"),
		"a cross-site look at metrics": ask("GET", "http://"+r.ops+"/metrics", "", "Sec-Fetch-Site", "cross-site"),
	} {
		if status != http.StatusForbidden {
			t.Errorf("%s: %d, want 403", name, status)
		}
	}
	if _, body := r.get("http://" + r.ops + "/debug/pprof/cmdline"); !strings.HasSuffix(body, "millrace") || strings.Contains(body, "--") {
		t.Errorf("cmdline shows %q", body)
	}
	_, metrics := r.get("http://" + r.ops + "/metrics")
	for _, line := range []string{
		`millrace_private_refused_total{reason="browser"} 1`, `millrace_private_refused_total{reason="unsigned"} 1`,
		`millrace_private_refused_total{reason="host"} 1`, `millrace_ops_refused_total{reason="host"} 2`, `millrace_ops_refused_total{reason="browser"} 1`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("the metrics don't say %s", line)
		}
	}
	// Who has the secret is answered: that the broadcast isn't there.
	peek := func(env ...string) string {
		cmd := exec.CommandContext(context.Background(), "millrace", "peek", "http://"+private+"/sending/b", "--data", r.data)
		cmd.Env = append(os.Environ(), env...)
		said, _ := cmd.CombinedOutput() // it exits with 1
		return string(said)
	}
	if said := peek("MILLRACE_PRIVATE_SECRET=on the command line"); !strings.Contains(said, "404 Not Found") {
		t.Errorf("a peer is told %s", said)
	}
	if said := peek("MILLRACE_PRIVATE_SECRET=another one for this"); !strings.Contains(said, "doesn't prove that it knows the secret") {
		t.Errorf("who has another secret is told %s", said)
	}
	if said := peek(); !strings.Contains(said, "needs --private-secret") {
		t.Errorf("who has none is told %s", said)
	}
	if _, err := os.Stat(filepath.Join(r.data, "private-secret")); err == nil {
		t.Error("a secret was made though one was given")
	}
	r.stop()
}

// A power cut may leave an empty file where the secret was to be kept.
func TestEmptySecretIsMadeAnew(t *testing.T) {
	data := t.TempDir()
	if err := os.WriteFile(secretFile(data), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made, err := keptSecret(data)
	if err != nil || len(made) < seal.MinSecret {
		t.Fatalf("it has %d characters, %v", len(made), err)
	}
	if again, err := keptSecret(data); err != nil || again != made {
		t.Errorf("the next start has another one, %v", err)
	}
}
