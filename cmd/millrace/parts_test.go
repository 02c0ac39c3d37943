package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/testenv"
)

// writeCertificate writes a new pair for 127.0.0.1.
func writeCertificate(t *testing.T, certFile, keyFile string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTLSAndItsReload(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, cert, key, 1)
	r := startAll(t, filepath.Join(dir, "data"), "--tls-cert", cert, "--tls-key", key)
	if b := r.stdout.String(); !strings.Contains(b, "https://"+r.https+"/demo") || !strings.Contains(b, "rtmps://") {
		t.Errorf("the banner doesn't name the addresses with TLS:\n%s", b)
	}
	serial := func(address string) int64 {
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://" + r.https + "/demo")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
		t.Errorf("HTTPS answers %s %s, want 200 by HTTP/2", resp.Proto, resp.Status)
	}
	if serial(r.https) != 1 || serial(r.rtmps) != 1 {
		t.Error("a listener has another certificate")
	}

	if err := os.WriteFile(cert, []byte("half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.eventually("the broken certificate is noticed", func() bool {
		return strings.Contains(r.stderr.String(), "the earlier one stays")
	})
	if serial(r.https) != 1 {
		t.Error("a broken certificate replaced the good one")
	}
	writeCertificate(t, cert, key, 2)
	r.eventually("the new certificate is used", func() bool { return serial(r.https) == 2 })
	if serial(r.rtmps) != 2 {
		t.Error("RTMPS still has the earlier certificate")
	}
	r.stop()
}

func TestOneServiceEach(t *testing.T) {
	redis := testenv.StartRedis(t)
	bucket := testenv.BucketConfig(t)
	testenv.CreateBucket(t, bucket)
	common := []string{"--redis", redis.URL(), "--s3-bucket", bucket.Bucket, "--s3-endpoint", bucket.Endpoint,
		"--s3-access-key", bucket.AccessKey, "--s3-secret-key", bucket.SecretKey, "--private-secret", "shared", "--drain", "0s"}
	var all []*running
	roles := []string{"api", "edge", "transcode", "ingest"}
	for _, role := range roles {
		all = append(all, start(t, role, t.TempDir(), common...))
	}
	for _, r := range all {
		r.eventually("it is ready", r.ready)
	}
	if code, _ := all[0].get("http://" + all[0].http + "/api/v1/channels"); code != 200 {
		t.Errorf("api answers %d", code)
	}
	if code, body := all[1].get("http://" + all[1].http + "/hls/demo/index.m3u8"); code != 404 || !strings.Contains(body, `"code"`) {
		t.Errorf("edge answers %d %s", code, body)
	}
	redis.Stop()
	for i, role := range roles {
		r := all[i]
		if role == "edge" { // what is live goes on
			_, body := r.get("http://" + r.ops + "/readyz")
			if !r.ready() || strings.Contains(body, "redis: ok") {
				t.Errorf("an edge without Redis should say so and stay ready: %s", body)
			}
			continue
		}
		r.eventually("it is not ready without Redis", func() bool { return !r.ready() })
	}
	redis.Start()
	for _, r := range all {
		r.eventually("it is ready again", r.ready)
	}
	for _, r := range all {
		r.stop()
	}
}

// serveStalls serves h with a limit on an unused port.
func serveStalls(t *testing.T, h http.HandlerFunc, limit time.Duration) string {
	t.Helper()
	s := httptest.NewServer(limitStalls(h, limit))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestReaderWhoTakesNothingIsCutOff(t *testing.T) {
	done := make(chan error, 1)
	address := serveStalls(t, func(w http.ResponseWriter, _ *http.Request) {
		var err error
		for i := 0; i < 1000 && err == nil; i++ {
			_, err = w.Write(make([]byte, 1<<20))
		}
		done <- err
	}, 100*time.Millisecond)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the handler's write ended with %v, want a deadline", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the handler is still held up by a reader who takes nothing")
	}
}

func TestAnAnswerMayWaitBeforeItsFirstByte(t *testing.T) {
	const limit = 50 * time.Millisecond
	address := serveStalls(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			select {
			case <-time.After(4 * limit):
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, "here")
	}, limit)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	br := bufio.NewReader(conn)
	for _, path := range []string{"/", "/wait", "/"} { // on one connection
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("GET %s: %v", path, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "here" {
			t.Errorf("GET %s = %q, %v", path, body, err)
		}
	}
}

func TestLayersStopFromTheTop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLayers(slog.New(slog.DiscardHandler), stopLimits(roleAll, 0))
		ended := make(chan level, levels)
		for at := range levels {
			l.start(at, "part", func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(10 * time.Millisecond)
				ended <- at
				return nil
			})
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.run(ctx); err != nil {
			t.Errorf("run = %v", err)
		}
		l.stop()
		for want := levels - 1; want >= 0; want-- {
			if got := <-ended; got != want {
				t.Errorf("level %d ended, want %d", got, want)
			}
		}
	})
}

func TestLayersGiveUpOnWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		l := newLayers(slog.New(slog.NewTextHandler(&log, nil)), stopLimits(roleAll, 0))
		release := make(chan struct{})
		for at := range levels {
			l.start(at, "part", func(context.Context) error {
				<-release
				return nil
			})
		}
		begin := time.Now()
		l.stop()
		if took := time.Since(begin); took >= 5*time.Second {
			t.Errorf("stopping what hangs took %s, want less than 5 s", took)
		}
		if got := strings.Count(log.String(), "parts=part "); got != int(levels) {
			t.Errorf("%d levels name what hangs, want %d:\n%s", got, levels, log.String())
		}
		close(release)
		synctest.Wait()
	})
}

func TestLayersFailWithTheirPart(t *testing.T) {
	fault := errors.New("fault")
	for name, c := range map[string]struct {
		result error
		want   string
	}{"an error": {fault, "part: fault"}, "an end": {nil, "part: it ended by itself"}} {
		t.Run(name, func(t *testing.T) {
			l := newLayers(slog.New(slog.DiscardHandler), stopLimits(roleAll, 0))
			l.start(levelServices, "part", func(context.Context) error { return c.result })
			if err := l.run(t.Context()); err == nil || err.Error() != c.want {
				t.Errorf("run = %v, want %s", err, c.want)
			}
			l.stop()
		})
	}
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]byteSize{
		"0": 0, "512": 512, "10B": 10, "3 kb": 3000, "500MB": 5e8, "2gb": 2e9, "1TB": 1e12,
		"": -1, "-1": -1, "GB": -1, "1.5GB": -1, "9999999999TB": -1,
	} {
		var got byteSize
		err := got.UnmarshalText([]byte(text))
		if (err != nil) != (want == -1) || err == nil && got != want {
			t.Errorf("%q = %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestRedisSocketFitsItsAddress(t *testing.T) {
	long := "/" + strings.Repeat("d", 120)
	if got := redisSocket(long); len(got) > maxSocketPath || got == redisSocket(long+"x") {
		t.Errorf("socket of a long path: %s", got)
	}
	if got := redisSocket("/data"); got != "/data/redis/redis.sock" {
		t.Errorf("socket of a short path: %s", got)
	}
}

func TestLongDataDirectory(t *testing.T) {
	data := filepath.Join(t.TempDir(), strings.Repeat("d", 100))
	r := startAll(t, data)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(redisSocket(data))) })
	r.stop()
}

func TestPrivateDirRefusesOthers(t *testing.T) {
	dir := t.TempDir()
	if err := privateDir(filepath.Join(dir, "new")); err != nil {
		t.Error(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"open", "link"} {
		if err := privateDir(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestSecretsDontPrint(t *testing.T) {
	s := settings{S3SecretKey: "hunter2", S3AccessKey: "hunter2"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if out := fmt.Sprintf(format, s); strings.Contains(out, "hunter2") {
			t.Errorf("%s shows a secret: %s", format, out)
		}
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s.S3SecretKey)
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log shows a secret: %s", log.String())
	}
}

// TestAnEdgeDrains asks an edge to end: a load balancer must see it at once,
// while viewers are still served, over connections that close. A second signal
// doesn't wait.
func TestAnEdgeDrains(t *testing.T) {
	redis := testenv.StartRedis(t)
	bucket := testenv.BucketConfig(t)
	testenv.CreateBucket(t, bucket)
	run := func(drain string) *running {
		r := start(t, "edge", t.TempDir(), "--redis", redis.URL(), "--s3-bucket", bucket.Bucket, "--s3-endpoint", bucket.Endpoint,
			"--s3-access-key", bucket.AccessKey, "--s3-secret-key", bucket.SecretKey, "--drain", drain)
		r.eventually("it is ready", r.ready)
		return r
	}
	r := run("10m")
	end := func() {
		t.Helper()
		if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	end()
	r.eventually("it is not ready", func() bool { return !r.ready() })
	if code, body := r.get("http://" + r.ops + "/readyz"); code != 503 || !strings.Contains(body, "process: "+errStopping.Error()) {
		t.Errorf("/readyz = %d %s; want 503 and that it stops", code, body)
	}
	resp, err := http.Get("http://" + r.http + "/hls/demo/index.m3u8")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 404 || !resp.Close {
		t.Errorf("while it drains it answers %s, closing %t; want 404 and a connection that closes", resp.Status, resp.Close)
	}
	end()
	select {
	case <-r.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on after the second signal")
	}

	r = run("100ms")
	end()
	select {
	case <-r.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on after its drain")
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ended with %v", r.cmd.ProcessState)
	}
}
