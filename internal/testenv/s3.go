package testenv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"millrace/internal/child"
	"millrace/internal/objects"
	"millrace/internal/s3server"
)

// s3DirEnv tells a copy of the test binary to be an S3 server over this
// directory. versitygw changes the working directory and allows one instance
// per process, so it can't live in the process that tests.
const s3DirEnv = "MILLRACE_TESTENV_S3_DIR"

// The server's credentials.
const (
	S3AccessKey = "millrace-test"
	S3SecretKey = "millrace-test-secret"
)

// shared is this process's S3 server, guarded by mu.
var shared struct {
	mu       sync.Mutex
	cmd      *exec.Cmd
	dir      string
	endpoint string
}

var buckets atomic.Int64

// Bucket returns an empty bucket of its own for this test, on an S3 server that
// the tests of this process share.
func Bucket(t testing.TB) *objects.Bucket {
	t.Helper()
	return CreateBucket(t, BucketConfig(t))
}

// CreateBucket makes the bucket that BucketConfig named.
func CreateBucket(t testing.TB, c objects.Config) *objects.Bucket {
	t.Helper()
	b, err := objects.Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// BucketConfig is how to reach a bucket of this test's own, which doesn't exist yet.
func BucketConfig(t testing.TB) objects.Config {
	t.Helper()
	endpoint, err := startS3()
	if err != nil {
		t.Fatal(err)
	}
	return objects.Config{
		Endpoint:  endpoint,
		Bucket:    "test-" + strconv.FormatInt(buckets.Add(1), 10),
		AccessKey: S3AccessKey,
		SecretKey: S3SecretKey,
	}
}

func startS3() (endpoint string, err error) {
	if !mainCalled {
		return "", errors.New("testenv.Bucket needs `func TestMain(m *testing.M) { testenv.Main(m) }` in this package")
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cmd != nil {
		return shared.endpoint, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("start S3 server: %w", err)
	}
	dir, err := os.MkdirTemp("", "millrace-s3-")
	if err != nil {
		return "", fmt.Errorf("start S3 server: %w", err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), s3DirEnv+"="+dir)
	cmd.Stderr = os.Stderr
	child.Prepare(cmd, syscall.SIGKILL)
	out, in, err := os.Pipe() // the child's file 3: versitygw writes to standard output
	if err != nil {
		return "", fmt.Errorf("start S3 server: %w", err)
	}
	defer out.Close()
	cmd.ExtraFiles = []*os.File{in}
	err = cmd.Start()
	in.Close()
	if err != nil {
		return "", fmt.Errorf("start S3 server: %w", err)
	}
	// The first line is the address it listens on.
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		child.Kill(cmd)
		return "", fmt.Errorf("S3 server didn't start: %w", errors.Join(err, cmd.Wait(), os.RemoveAll(dir)))
	}
	shared.cmd, shared.dir, shared.endpoint = cmd, dir, "http://"+strings.TrimSpace(line)
	return shared.endpoint, nil
}

func stopS3() {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cmd == nil {
		return
	}
	child.Kill(shared.cmd)
	_ = shared.cmd.Wait() // "signal: killed"
	_ = os.RemoveAll(shared.dir)
	shared.cmd = nil
}

// serveS3 is the child: it serves dir until it is killed.
func serveS3(dir string) {
	if err := runS3(dir); err != nil {
		fmt.Fprintf(os.Stderr, "S3 server for tests: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runS3(dir string) error {
	addr, err := freeAddress()
	if err != nil {
		return err
	}
	if err := s3server.Check(dir); err != nil {
		return fmt.Errorf("%s: %w: set TMPDIR to a directory on ext4, xfs or btrfs", dir, err)
	}
	go announce(addr) // ends when the server answers, or with this process
	return s3server.Run(context.Background(), s3server.Config{
		Dir: dir, Address: addr, AccessKey: S3AccessKey, SecretKey: S3SecretKey, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}

// announce prints the address when it can be reached.
func announce(addr string) {
	err := Until(context.Background(), 20*time.Second, func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "S3 server for tests: %v\n", err)
		os.Exit(1)
	}
	f := os.NewFile(3, "address")
	_, _ = io.WriteString(f, addr+"\n")
	_ = f.Close()
}

// firstPort is where this process begins to look, portsGiven how far it came: it
// gives no port twice, since a program may take a while to listen.
var (
	firstPort  = rand.IntN(20000)
	portsGiven atomic.Int64
)

// freeAddress returns a loopback address that nobody listens on. Its port lies
// below those that systems give to connections, so that none takes it meanwhile.
func freeAddress() (string, error) {
	for range 100 {
		addr := "127.0.0.1:" + strconv.Itoa(10000+(firstPort+int(portsGiven.Add(1)))%20000)
		if l, err := net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.New("no free port found from 10000 to 29999")
}

// FreeAddress returns a loopback address that nobody listens on at the moment.
func FreeAddress(t testing.TB) string {
	t.Helper()
	addr, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// ProxiedBucket returns an empty bucket of the test's own twice: through a proxy
// that can disturb it, and directly.
func ProxiedBucket(t testing.TB) (through, direct *objects.Bucket, proxy *FaultProxy) {
	t.Helper()
	c := BucketConfig(t)
	direct = CreateBucket(t, c)
	proxy = Proxy(t, strings.TrimPrefix(c.Endpoint, "http://"))
	c.Endpoint, c.Timeout = "http://"+proxy.Address, time.Second
	through, err := objects.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return through, direct, proxy
}
