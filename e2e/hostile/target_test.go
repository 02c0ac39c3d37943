//go:build hostile

package hostile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/viewer"
	"millrace/internal/testenv"
)

// shape is how the server runs that attacks are done to. Zero means `millrace all`
// with its defaults, and small rungs.
type shape struct {
	// name tells it from other ones.
	name string
	args []string
	// files is the limit on file descriptors; 0 means that of the tests.
	files int
	// loud has a second channel, whose publisher sends pictures of no sense in large
	// segments.
	loud bool
}

var (
	plain = shape{name: "all"}
	small = shape{name: "all, 1,024 descriptors", files: 1024, args: []string{"--cache-max", "1MB"}}
)

// calm is what the undisturbed channel shows.
var calm = harness.Clip{Name: "hostile", Seconds: "60", Size: "640x360", Rate: "30", Video: []string{"-g", "60", "-bf", "2"}, Audio: harness.Stereo}

// target is a server with a publisher and a viewer that attacks must not disturb.
type target struct {
	shape  shape
	server *harness.Server
	// https and rtmps are its addresses with TLS.
	https, rtmps string
	pub          *harness.Publisher
	// witness and observer watch the channel demo.
	witness  *viewer.Witness
	observer *viewer.Observer
	// broadcast is that channel's.
	broadcast string
	loud      *loudChannel
	// spoiled is set when it can't be used again.
	spoiled bool
	used    bool
}

// start starts a server of a shape, publishes, and waits until the viewer plays.
func start(t testing.TB, s shape) *target {
	t.Helper()
	args := append([]string{"--ladder", "160p30=200k"}, s.args...)
	x := &target{shape: s, https: testenv.FreeAddress(t), rtmps: testenv.FreeAddress(t)}
	cert, key := certificate(t)
	args = append(args, "--https", x.https, "--rtmps", x.rtmps, "--tls-cert", cert, "--tls-key", key)
	if s.files > 0 {
		x.server = harness.StartBinary(t, limited(t, s.files), t.TempDir(), args...)
	} else {
		x.server = harness.StartAll(t, args...)
	}
	x.pub = x.server.Publish(t, x.server.Key, []string{"-re", "-stream_loop", "-1", "-i", calm.File(t), "-c", "copy"})
	x.broadcast = x.server.AwaitLive("demo", "")
	if s.loud {
		x.loud = publishLoud(t, x.server, "loud")
		harness.WaitSegments(t, x.server.Playlist("loud"), 14) // more than a worker keeps in memory
	}
	x.observer = viewer.Observe(t, x.server.Playlist("demo"))
	x.witness = viewer.Watch(t, x.server.HTTP+"/demo", 0)
	time.Sleep(4 * time.Second) // what is usual is measured
	return x
}

// limited is a program that runs millrace with a limit on file descriptors.
func limited(t testing.TB, files int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "millrace")
	text := fmt.Sprintf("#!/bin/sh\nulimit -n %d\nexec %s \"$@\"\n", files, harness.Binary())
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// in makes the target that of a row's test.
func (x *target) in(t testing.TB) {
	x.server = x.server.In(t)
	x.witness.T = t
	if x.used { // the rest of an attack is over
		time.Sleep(lengthOf(2 * time.Second))
	}
	x.used = true
}

// stop ends all of it.
func (x *target) stop() {
	if x == nil {
		return
	}
	x.observer.Stop()
	if x.loud != nil {
		x.loud.stop()
	}
	x.pub.Kill()
	x.server.Kill()
}

// lasting are the processes that have to live as long as the server does: itself and
// its redis-server. Encoders come and go.
func lasting(s *harness.Server) []int {
	pid := s.Cmd.Process.Pid
	list := []int{pid}
	for _, p := range harness.Descendants(pid) {
		if p.Name == "redis-server" {
			list = append(list, p.PID)
		}
	}
	slices.Sort(list)
	return list
}

// certificate makes a certificate that nobody has signed, and returns its files.
func certificate(t testing.TB) (cert, key string) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &secret.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
}
