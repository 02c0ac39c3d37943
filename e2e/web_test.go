package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
	"millrace/internal/testenv"
)

// TestWeb checks what a CDN, a foreign page and an old or new client need of
// HTTP, with TLS and without.
func TestWeb(t *testing.T) {
	t.Parallel()
	cert, key, pool := selfSigned(t)
	https, rtmps := testenv.FreeAddress(t), testenv.FreeAddress(t)
	s := harness.StartAll(t, "--tls-cert", cert, "--tls-key", key, "--https", https, "--rtmps", rtmps)
	harness.PublishTo(t, "rtmps://"+rtmps+"/live/"+s.Key, []string{"-re", "-i", shortClip.File(t), "-c", "copy"})
	harness.WaitSegments(t, s.Playlist("demo"), 1)

	secure := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	clear2 := &http.Transport{Protocols: new(http.Protocols)}
	clear2.Protocols.SetUnencryptedHTTP2(true)
	for _, tt := range []struct {
		name, base, proto string
		transport         *http.Transport
	}{
		{"HTTPS", "https://" + https, "HTTP/2.0", secure},
		{"h2c", s.HTTP, "HTTP/2.0", clear2},
		{"HTTP/1.1", s.HTTP, "HTTP/1.1", &http.Transport{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer tt.transport.CloseIdleConnections()
			c := &http.Client{Transport: tt.transport, Timeout: 20 * time.Second}
			checkWeb(t, c, tt.base, tt.proto)
		})
	}
	t.Run("gohlslib over HTTPS", func(t *testing.T) {
		playWithGohlslib(t, "https://"+https+"/hls/demo/index.m3u8", 3*time.Second, secure)
	})
}

// checkWeb walks from the multivariant playlist to a segment.
func checkWeb(t *testing.T, c *http.Client, base, proto string) {
	t.Helper()
	ask := func(address string, header ...string) hls.Answer {
		t.Helper()
		a, err := hls.Fetch(t.Context(), c, address, header...)
		if err != nil {
			t.Fatal(err)
		}
		if a.Proto != proto {
			t.Errorf("GET %s: %s, want %s", address, a.Proto, proto)
		}
		if origin := a.Header.Get("Access-Control-Allow-Origin"); origin != "*" {
			t.Errorf("GET %s: Access-Control-Allow-Origin is %q", address, origin)
		}
		return a
	}
	root := base + "/hls/demo/"
	a := ask(root+"index.m3u8", "Origin", "https://example.com")
	if cache := a.Header.Get("Cache-Control"); cache != "no-cache" {
		t.Errorf("the multivariant playlist: Cache-Control %q", cache)
	}
	m, err := hls.ParseMultivariant(string(a.Body))
	if err != nil {
		t.Fatal(err)
	}
	list := root + m.Variants[0].URI
	plain := ask(list)
	zipped := ask(list, "Accept-Encoding", "gzip")
	if zipped.Header.Get("Content-Encoding") != "gzip" || !strings.Contains(zipped.Header.Get("Vary"), "Accept-Encoding") {
		t.Errorf("a playlist isn't compressed: %v", zipped.Header)
	}
	r, err := gzip.NewReader(bytes.NewReader(zipped.Body))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range [][]byte{plain.Body, text} {
		if _, err := hls.ParseMedia(string(body)); err != nil {
			t.Error(err)
		}
	}
	if typ := plain.Header.Get("Content-Type"); typ != "application/vnd.apple.mpegurl" {
		t.Errorf("a playlist is %q", typ)
	}
	media, err := hls.ParseMedia(string(plain.Body))
	if err != nil {
		t.Fatal(err)
	}
	segment := list[:strings.LastIndexByte(list, '/')+1] + media.Segments[0].URI
	whole := ask(segment)
	if cache := whole.Header.Get("Cache-Control"); !strings.Contains(cache, "immutable") {
		t.Errorf("a segment: Cache-Control %q", cache)
	}
	part := ask(segment, "Range", "bytes=10-19")
	if part.Status != http.StatusPartialContent || !bytes.Equal(part.Body, whole.Body[10:20]) {
		t.Errorf("a range of a segment: %d, %d bytes", part.Status, len(part.Body))
	}
	// A channel that isn't live, and a page that looks from elsewhere.
	if a := ask(base + "/hls/nobody/index.m3u8"); a.Status != http.StatusNotFound || !strings.Contains(string(a.Body), `"not_live"`) {
		t.Errorf("a channel that isn't live: %d %s", a.Status, a.Body)
	}
	preflight, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, segment, nil)
	if err != nil {
		t.Fatal(err)
	}
	preflight.Header.Set("Origin", "https://example.com")
	preflight.Header.Set("Access-Control-Request-Method", "GET")
	preflight.Header.Set("Access-Control-Request-Headers", "range")
	resp, err := c.Do(preflight)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode/100 != 2 || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("preflight: %d %v", resp.StatusCode, resp.Header)
	}
}

// selfSigned makes a certificate for 127.0.0.1.
func selfSigned(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "millrace"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return hls.KeepFile(t, "cert.pem", certPEM), hls.KeepFile(t, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), pool
}
