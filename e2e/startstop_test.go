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
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/internal/testenv"
)

// TestStartAndStop is the operator's side: it says quickly where to publish,
// ends quickly with all that it started, and finds its data again.
func TestStartAndStop(t *testing.T) {
	start := time.Now()
	s := startAll(t)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %s to say where to publish and watch", took)
	}
	for _, want := range []string{"rtmp://" + s.rtmp + "/live", s.http + "/demo"} {
		if !strings.Contains(s.out.String(), want) {
			t.Errorf("it doesn't name %s:\n%s", want, s.out.String())
		}
	}
	if s.key == "" {
		t.Fatalf("the first start shows no stream key:\n%s", s.out.String())
	}
	if strings.Contains(s.log.String(), s.key) {
		t.Error("the stream key is in the log")
	}
	p := s.publishClip(t, s.key, longClip)
	s.awaitLive("demo", "")
	children := descendants(s.cmd.Process.Pid)
	if !slices.ContainsFunc(children, isProgram("redis-server")) || !slices.ContainsFunc(children, isProgram("ffmpeg")) {
		t.Errorf("children %v, want a redis-server and ffmpegs", children)
	}

	start = time.Now()
	s.interrupt()
	if err := s.wait(15 * time.Second); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s to end after Ctrl-C", took)
	}
	waitGone(t, children)
	p.kill()
	if strings.Contains(s.log.String(), `"level":"ERROR"`) || strings.Contains(s.log.String(), "panic") {
		t.Errorf("errors in the log:\n%s", s.log.String())
	}

	// The second start finds the channel, and its key still works.
	key := s.key
	s = s.again(t)
	if s.key != "" {
		t.Error("the second start shows a stream key")
	}
	p = s.publishClip(t, key, longClip)
	s.awaitLive("demo", "")
	children = descendants(s.cmd.Process.Pid)
	s.kill()
	waitGone(t, children)
	p.kill()

	// So does one after kill -9, also with a redis-server left behind.
	orphan := orphanRedis(t, s.data)
	s = s.again(t)
	s.publishClip(t, key, longClip)
	s.awaitLive("demo", "")
	if err := orphan.wait(5 * time.Second); err != nil {
		t.Logf("the orphan: %v", err)
	}
}

// orphanRedis starts a redis-server as a killed millrace would leave it behind
// where the kernel doesn't end children with their parent.
func orphanRedis(t *testing.T, data string) *program {
	t.Helper()
	dir := filepath.Join(data, "redis")
	socket := filepath.Join(dir, "redis.sock")
	p := run(t, "orphan", testenv.Program(t, "redis-server"), nil, "--port", "0", "--unixsocket", socket, "--dir", dir,
		"--save", "", "--appendonly", "yes", "--daemonize", "no")
	if err := os.WriteFile(filepath.Join(dir, "redis.pid"), []byte(strconv.Itoa(p.cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() error {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return p
}

// process is a process of the system; started tells it from a later one with
// the same number.
type process struct {
	pid           int
	name, started string
}

func isProgram(name string) func(process) bool {
	return func(p process) bool { return p.name == name }
}

// look reads a process's entry; ok is false for one that is gone or only
// waits to be reaped.
func look(pid int) (p process, parent int, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, 0, false
	}
	open, closing := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[closing+1:]))
	parent, err = strconv.Atoi(fields[1])
	return process{pid, string(text[open+1 : closing]), fields[19]}, parent, err == nil && fields[0] != "Z"
}

// descendants are the children of a process and theirs.
func descendants(pid int) []process {
	entries, _ := os.ReadDir("/proc")
	parents := make(map[int]int)
	found := make(map[int]process)
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, parent, ok := look(n); ok {
			parents[n], found[n] = parent, p
		}
	}
	var list []process
	for n, p := range found {
		for up := parents[n]; up > 1; up = parents[up] {
			if up == pid {
				list = append(list, p)
				break
			}
		}
	}
	return list
}

// waitGone waits until the processes have ended.
func waitGone(t *testing.T, list []process) {
	t.Helper()
	eventually(t, 5*time.Second, func() error {
		for _, old := range list {
			if p, _, ok := look(old.pid); ok && p.started == old.started {
				return fmt.Errorf("%v goes on without its parent", p)
			}
		}
		return nil
	})
}

// TestStartFails is a start that can't succeed: it must say why, and leave
// nothing behind.
func TestStartFails(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for name, tt := range map[string]struct {
		args []string
		env  []string
		says string
	}{
		"port in use":     {[]string{"--http", busy.Addr().String()}, nil, "in use"},
		"bad flag":        {[]string{"--dvr-window", "soon"}, nil, "dvr-window"},
		"no ffmpeg":       {[]string{"--ffmpeg", "/nowhere/ffmpeg"}, nil, "ffmpeg"},
		"no redis-server": {nil, []string{"PATH=/nowhere"}, "redis-server"},
		"no bucket":       {[]string{"--s3-bucket", "x", "--s3-endpoint", "http://127.0.0.1:1"}, []string{"MILLRACE_S3_ACCESS_KEY=a", "MILLRACE_S3_SECRET_KEY=b"}, "S3"},
	} {
		t.Run(name, func(t *testing.T) {
			ffmpeg := testenv.FFmpeg(t)
			args := append([]string{
				"all", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--rtmp", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--private", "127.0.0.1:0", "--ffmpeg", ffmpeg,
			}, tt.args...)
			p := run(t, "millrace", shared.binary, tt.env, args...)
			if err := p.wait(20 * time.Second); err == nil {
				t.Error("it ended without an error")
			}
			said := strings.TrimSpace(p.log.String())
			if lines := strings.Split(said, "\n"); !strings.Contains(said, tt.says) || len(lines) > 4 || strings.Contains(said, "goroutine ") {
				t.Errorf("it should say plainly what is wrong with %q:\n%s", tt.says, said)
			}
		})
	}
}

// TestWeb checks what a CDN, a foreign page and an old or new client need of
// HTTP, with TLS and without.
func TestWeb(t *testing.T) {
	cert, key, pool := selfSigned(t)
	https, rtmps := testenv.FreeAddress(t), testenv.FreeAddress(t)
	s := startAll(t, "--tls-cert", cert, "--tls-key", key, "--https", https, "--rtmps", rtmps)
	publishTo(t, "rtmps://"+rtmps+"/live/"+s.key, []string{"-re", "-i", shortClip.file(t), "-c", "copy"})
	waitSegments(t, s.playlist("demo"), 1)

	secure := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	clear2 := &http.Transport{Protocols: new(http.Protocols)}
	clear2.Protocols.SetUnencryptedHTTP2(true)
	for _, tt := range []struct {
		name, base, proto string
		transport         *http.Transport
	}{
		{"HTTPS", "https://" + https, "HTTP/2.0", secure},
		{"h2c", s.http, "HTTP/2.0", clear2},
		{"HTTP/1.1", s.http, "HTTP/1.1", &http.Transport{}},
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
	ask := func(address string, header ...string) answer {
		t.Helper()
		a, err := fetch(t.Context(), c, address, header...)
		if err != nil {
			t.Fatal(err)
		}
		if a.proto != proto {
			t.Errorf("GET %s: %s, want %s", address, a.proto, proto)
		}
		if origin := a.header.Get("Access-Control-Allow-Origin"); origin != "*" {
			t.Errorf("GET %s: Access-Control-Allow-Origin is %q", address, origin)
		}
		return a
	}
	root := base + "/hls/demo/"
	a := ask(root+"index.m3u8", "Origin", "https://example.com")
	if cache := a.header.Get("Cache-Control"); cache != "no-cache" {
		t.Errorf("the multivariant playlist: Cache-Control %q", cache)
	}
	m, err := parseMultivariant(string(a.body))
	if err != nil {
		t.Fatal(err)
	}
	list := root + m.Variants[0].URI
	plain := ask(list)
	zipped := ask(list, "Accept-Encoding", "gzip")
	if zipped.header.Get("Content-Encoding") != "gzip" || !strings.Contains(zipped.header.Get("Vary"), "Accept-Encoding") {
		t.Errorf("a playlist isn't compressed: %v", zipped.header)
	}
	r, err := gzip.NewReader(bytes.NewReader(zipped.body))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range [][]byte{plain.body, text} {
		if _, err := parseMedia(string(body)); err != nil {
			t.Error(err)
		}
	}
	if typ := plain.header.Get("Content-Type"); typ != "application/vnd.apple.mpegurl" {
		t.Errorf("a playlist is %q", typ)
	}
	media, err := parseMedia(string(plain.body))
	if err != nil {
		t.Fatal(err)
	}
	segment := list[:strings.LastIndexByte(list, '/')+1] + media.Segments[0].URI
	whole := ask(segment)
	if cache := whole.header.Get("Cache-Control"); !strings.Contains(cache, "immutable") {
		t.Errorf("a segment: Cache-Control %q", cache)
	}
	part := ask(segment, "Range", "bytes=10-19")
	if part.status != http.StatusPartialContent || !bytes.Equal(part.body, whole.body[10:20]) {
		t.Errorf("a range of a segment: %d, %d bytes", part.status, len(part.body))
	}
	// A channel that isn't live, and a page that looks from elsewhere.
	if a := ask(base + "/hls/nobody/index.m3u8"); a.status != http.StatusNotFound || !strings.Contains(string(a.body), `"not_live"`) {
		t.Errorf("a channel that isn't live: %d %s", a.status, a.body)
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
	return keep(t, "cert.pem", certPEM), keep(t, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), pool
}

// TestChannelCommands makes channels while millrace runs and while it doesn't.
func TestChannelCommands(t *testing.T) {
	data := t.TempDir()
	before := createChannel(t, "early", "--data", data)
	s := startOn(t, data)
	while := s.channel("late")
	for channel, key := range map[string]string{"early": before, "late": while} {
		p := s.publishClip(t, key, shortClip)
		eventually(t, 20*time.Second, func() error {
			a, err := fetch(t.Context(), client, s.playlist(channel))
			if err == nil && a.status != http.StatusOK {
				err = fmt.Errorf("%s: %d %s", channel, a.status, a.body)
			}
			return err
		})
		p.end()
	}
	out, err := exec.Command(shared.binary, "channel", "list", "--data", data).Output()
	for _, channel := range []string{"demo", "early", "late"} {
		if err != nil || !strings.Contains(string(out), channel) {
			t.Errorf("channel list: %v, without %s:\n%s", err, channel, out)
		}
	}
}
