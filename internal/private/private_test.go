package private_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"millrace/internal/private"
	"millrace/internal/seal"
	"millrace/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	signature = "X-Millrace-Signature"
	proof     = "X-Millrace-Proof"
)

// service is a peer that serves others.
type service struct {
	*httptest.Server
	registry *prometheus.Registry
	asked    atomic.Int64 // requests that came through the guard
	seen     chan http.Header
}

func newService(t *testing.T, h http.HandlerFunc) *service {
	t.Helper()
	s := &service{registry: prometheus.NewRegistry(), seen: make(chan http.Header, 16)}
	s.Server = httptest.NewUnstartedServer(nil)
	p, err := private.New(private.Config{Secret: testenv.Secret, Advertise: "http://" + s.Listener.Addr().String(), Registerer: s.registry})
	if err != nil {
		t.Fatal(err)
	}
	s.Config = private.NewServer(p.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		s.seen <- r.Header.Clone()
		if h != nil {
			h(w, r)
		}
	})))
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

func (s *service) refused(t *testing.T, reason string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "millrace_private_refused_total" && m.GetLabel()[0].GetValue() == reason {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no reason %s", reason)
	return 0
}

// sign returns a request that a peer has signed at a time.
func sign(t *testing.T, secret seal.Secret, method, url string, at time.Time, nonce byte) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := seal.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	about := seal.Signed{At: at, Nonce: seal.Nonce{nonce}}
	r.Header.Set(signature, keys.Sign(seal.Request{Method: method, Host: r.URL.Host, URI: r.URL.RequestURI()}, about))
	return r
}

// Peers talk over HTTP/1.1 and HTTP/2, and neither tells the other the secret.
func TestPeersTalk(t *testing.T) {
	s := newService(t, func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.Proto, " ", r.URL) })
	peers := testenv.Peers(t, "")
	for proto, client := range map[string]*http.Client{"HTTP/1.1": peers.Client(), "HTTP/2.0": peers.ClaimClient()} {
		for range 2 {
			resp, err := client.Get(s.URL + "/window/b/%C3%A4/1.m4s?v=1.ab")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if want := proto + " /window/b/%C3%A4/1.m4s?v=1.ab"; err != nil || string(body) != want {
				t.Errorf("the answer is %q, %v; want %q", body, err, want)
			}
			if told := fmt.Sprint(<-s.seen, resp.Header); strings.Contains(told, string(testenv.Secret)) {
				t.Errorf("the secret is told: %s", told)
			}
		}
		client.CloseIdleConnections()
	}
}

// Both directions of a claim stay open.
func TestGuardLetsStreamsThrough(t *testing.T) {
	s := newService(t, func(w http.ResponseWriter, r *http.Request) {
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			_, _ = fmt.Fprintln(w, "heard", lines.Text())
			_ = http.NewResponseController(w).Flush()
		}
	})
	client := testenv.Peers(t, "").ClaimClient()
	defer client.CloseIdleConnections()
	body, up := io.Pipe()
	defer up.Close()
	go func() { _, _ = io.WriteString(up, "one\n") }()
	resp, err := client.Post(s.URL+"/claim/b/0", "", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	down := bufio.NewScanner(resp.Body)
	for n, word := range []string{"one", "two", "three"} {
		if n > 0 {
			_, _ = io.WriteString(up, word+"\n")
		}
		if !down.Scan() || down.Text() != "heard "+word {
			t.Fatalf("it says %q, %v", down.Text(), down.Err())
		}
	}
}

// What isn't a peer's own request, asked here, now, once, is refused and counted.
func TestGuardRefuses(t *testing.T) {
	s := newService(t, nil)
	elsewhere := newService(t, nil)
	now := time.Now()
	good := func(nonce byte) *http.Request {
		return sign(t, testenv.Secret, http.MethodPost, s.URL+"/release/b?epoch=7", now, nonce)
	}
	with := func(r *http.Request, change func(*http.Request)) *http.Request { change(r); return r }
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	bare := func() *http.Request {
		return with(good(0), func(r *http.Request) { r.Header.Del(signature) })
	}
	for _, c := range []struct {
		name    string
		request *http.Request
		reason  string
		proven  bool
	}{
		{"a stranger", bare(), "unsigned", false},
		{"a page's form, of another site", with(bare(), header("Origin", "http://evil.example")), "browser", false},
		{"a page in a sandbox", with(bare(), header("Origin", "null")), "browser", false},
		{"a page's image", with(bare(), header("Sec-Fetch-Site", "cross-site")), "browser", false},
		{"a typed address", with(bare(), header("Sec-Fetch-Mode", "navigate")), "browser", false},
		{"a page that could sign", with(good(1), header("Origin", s.URL)), "browser", false},
		{"a name that leads here", with(bare(), func(r *http.Request) { r.Host = "rebound.example:7080" }), "host", false},
		{"another port", with(good(2), func(r *http.Request) { r.Host = "127.0.0.1" }), "host", false},
		{"who passes on what is for another", with(sign(t, testenv.Secret, http.MethodPost, elsewhere.URL+"/release/b?epoch=7", now, 3), func(r *http.Request) {
			r.URL.Host, r.Host = s.Listener.Addr().String(), s.Listener.Addr().String()
		}), "signature", false},
		{"the same with its Host", with(sign(t, testenv.Secret, http.MethodPost, elsewhere.URL+"/release/b?epoch=7", now, 4), func(r *http.Request) {
			r.Host, r.URL.Host = r.URL.Host, s.Listener.Addr().String()
		}), "host", false},
		{"another broadcast", with(good(5), func(r *http.Request) { r.URL.Path = "/release/c" }), "signature", false},
		{"another epoch", with(good(6), func(r *http.Request) { r.URL.RawQuery = "epoch=8" }), "signature", false},
		{"another method", with(good(7), func(r *http.Request) { r.Method = http.MethodGet }), "signature", false},
		{"another secret", sign(t, testenv.Secret+"!", http.MethodPost, s.URL+"/release/b?epoch=7", now, 8), "signature", false},
		{"a while ago", sign(t, testenv.Secret, http.MethodPost, s.URL+"/release/b?epoch=7", now.Add(-private.MaxSkew-5*time.Second), 9), "time", true},
		{"the future", sign(t, testenv.Secret, http.MethodPost, s.URL+"/release/b?epoch=7", now.Add(time.Minute), 10), "time", true},
	} {
		before := s.refused(t, c.reason)
		resp, err := http.DefaultClient.Do(c.request)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden || (resp.Header.Get(proof) != "") != c.proven || s.refused(t, c.reason) != before+1 {
			t.Errorf("%s: %s, proof %q, %v refused as %s", c.name, resp.Status, resp.Header.Get(proof), s.refused(t, c.reason)-before, c.reason)
		}
	}
	if n := s.asked.Load(); n != 0 {
		t.Errorf("%d of them came through", n)
	}
	// The same request again, as who has recorded it sends it.
	for n, want := range []int{http.StatusOK, http.StatusForbidden, http.StatusForbidden} {
		resp, err := http.DefaultClient.Do(good(11))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("time %d: %s, want %d", n+1, resp.Status, want)
		}
	}
	if n := s.refused(t, "replayed"); n != 2 {
		t.Errorf("%v were refused as replayed", n)
	}
}

// Clocks may differ by MaxSkew, and no more.
func TestGuardAllowsSkew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := testenv.Peers(t, "http://h:1").Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		for n, c := range []struct {
			ahead time.Duration
			want  int
		}{{-private.MaxSkew, 200}, {private.MaxSkew, 200}, {-private.MaxSkew - time.Second, 403}, {private.MaxSkew + time.Second, 403}} {
			r := sign(t, testenv.Secret, http.MethodGet, "http://h:1/", time.Now().Add(c.ahead), byte(n))
			r.RequestURI = "/"
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.want || c.want == 403 && !strings.Contains(w.Body.String(), "NTP") {
				t.Errorf("%s ahead: %d %s", c.ahead, w.Code, w.Body)
			}
		}
	})
}

// A client believes nobody who doesn't know the secret, and learns why a peer refuses.
func TestClientWantsProof(t *testing.T) {
	old := newService(t, nil)
	stranger := func(answer http.HandlerFunc) string {
		s := httptest.NewServer(answer)
		t.Cleanup(s.Close)
		return s.URL
	}
	var recorded atomic.Pointer[string]
	registry := prometheus.NewRegistry()
	peers, err := private.New(private.Config{Secret: testenv.Secret, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	client := peers.Client()
	defer client.CloseIdleConnections()
	resp, err := client.Get(old.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	shown := resp.Header.Get(proof)
	recorded.Store(&shown)
	for name, url := range map[string]string{
		"says nothing of a secret": stranger(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "media") }),
		"shows an earlier proof":   stranger(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(proof, *recorded.Load()) }),
		"gives the signature back": stranger(func(w http.ResponseWriter, r *http.Request) { w.Header().Set(proof, r.Header.Get(signature)) }),
		"has no such thing":        stranger(http.NotFound),
	} {
		resp, err := client.Get(url)
		if err == nil {
			_ = resp.Body.Close()
		}
		if !errors.Is(err, private.ErrStranger) {
			t.Errorf("who %s: %v", name, err)
		}
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP millrace_private_strangers_total Answers of who doesn't know the secret that services share.
# TYPE millrace_private_strangers_total counter
millrace_private_strangers_total 4
`), "millrace_private_strangers_total"); err != nil {
		t.Error(err)
	}
	refuses := newService(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not today", http.StatusForbidden) })
	if _, err := client.Get(refuses.URL); !errors.Is(err, private.ErrRefused) || !strings.Contains(err.Error(), "not today") {
		t.Errorf("a refusal gave %v", err)
	}
}

// Where a peer's answer points to, nobody goes.
func TestClientFollowsNoRedirect(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var came atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := target.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			_ = c.Close()
		}
	}()
	s := newService(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+target.Addr().String()+"/", http.StatusTemporaryRedirect)
	})
	peers := testenv.Peers(t, "")
	for _, client := range []*http.Client{peers.Client(), peers.ClaimClient()} {
		resp, err := client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusTemporaryRedirect {
			t.Errorf("the answer is %s", resp.Status)
		}
		client.CloseIdleConnections()
	}
	_ = target.Close()
	<-done
	if n := came.Load(); n != 0 {
		t.Errorf("%d connections came to where the answers pointed", n)
	}
}

// The head of an answer has a bound.
func TestClientBoundsTheHead(t *testing.T) {
	s := newService(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Long", strings.Repeat("x", 100<<10)) })
	if resp, err := testenv.PrivateClient(t).Get(s.URL); err == nil {
		_ = resp.Body.Close()
		t.Error("a head of 100 kB was taken")
	}
}

// With TLS who answers must also have a certificate of the authority.
func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(nil)
	s.Config = private.NewServer(testenv.Peers(t, "https://"+s.Listener.Addr().String()).Guard(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	pool := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	ours, err := private.New(private.Config{Secret: testenv.Secret, Authorities: pool})
	if err != nil {
		t.Fatal(err)
	}
	for proto, client := range map[string]*http.Client{"HTTP/1.1": ours.Client(), "HTTP/2.0": ours.ClaimClient()} {
		resp, err := client.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(body) != proto || resp.TLS == nil || resp.TLS.Version != tls.VersionTLS13 {
			t.Errorf("it speaks %s, want %s with TLS 1.3", body, proto)
		}
		client.CloseIdleConnections()
	}
	var unknown *tls.CertificateVerificationError
	if _, err := testenv.PrivateClient(t).Get(s.URL); !errors.As(err, &unknown) {
		t.Errorf("another authority's certificate gave %v", err)
	}
}

// Addresses that no peer has sealed, or too long ago, are counted, and logged once.
func TestAddresses(t *testing.T) {
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	p, err := private.New(private.Config{
		Secret: testenv.Secret, Advertise: "http://10.0.0.5:7080", Registerer: registry, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if u, err := p.Open(seal.Worker, "b", p.Self(seal.Worker, "b")); u != p.Advertise() || err != nil {
		t.Errorf("its own address opens as %q, %v", u, err)
	}
	for range 3 {
		if u, err := p.Open(seal.Worker, "b", "http://evil.example"); u != "" || !errors.Is(err, seal.ErrForged) {
			t.Errorf("a forged address opens as %q, %v", u, err)
		}
	}
	if n := strings.Count(log.String(), "evil.example"); n != 1 {
		t.Errorf("it was logged %d times:\n%s", n, log.String())
	}
	now := time.UnixMilli(1_795_465_319_064)
	const within = 6 * time.Second
	said := p.SealAt(seal.Edge, now, "https://edge1.example")
	for later, want := range map[time.Duration]error{
		0: nil, within + private.MaxSkew: nil, -within - private.MaxSkew: nil,
		within + private.MaxSkew + 1: private.ErrOld, -within - private.MaxSkew - 1: private.ErrOld,
	} {
		if u, err := p.OpenAt(seal.Edge, now.Add(later), within, said); !errors.Is(err, want) || err == nil && u != "https://edge1.example" {
			t.Errorf("%s later it opens as %q, %v; want %v", later, u, err, want)
		}
	}
	_, address, _ := strings.Cut(said, " ")
	for _, forged := range []string{"", "1795465319065 " + address, address, "x " + address} {
		if u, err := p.OpenAt(seal.Edge, now, within, forged); !errors.Is(err, seal.ErrForged) {
			t.Errorf("%q opens as %q, %v", forged, u, err)
		}
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP millrace_private_addresses_refused_total Looks at addresses in Redis that no service of ours signed (forged), or that are too old, by role.
# TYPE millrace_private_addresses_refused_total counter
millrace_private_addresses_refused_total{reason="forged",role="edge"} 4
millrace_private_addresses_refused_total{reason="forged",role="ingest"} 0
millrace_private_addresses_refused_total{reason="forged",role="worker"} 3
millrace_private_addresses_refused_total{reason="old",role="edge"} 2
`), "millrace_private_addresses_refused_total"); err != nil {
		t.Error(err)
	}
}

// BenchmarkFetch is a whole request between peers, with a signature and a proof and without.
func BenchmarkFetch(b *testing.B) {
	media := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<10)) })
	guarded := testenv.PrivateServer(b, media)
	defer guarded.Close()
	open := httptest.NewServer(media)
	defer open.Close()
	for name, c := range map[string]struct {
		client *http.Client
		url    string
	}{"signed": {testenv.PrivateClient(b), guarded.URL}, "open": {open.Client(), open.URL}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, c.url+"/window/mwtpoyonhsyndxdn/source/4.3.m4s?v=1.c408ceb4", nil)
				resp, err := c.client.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
}
