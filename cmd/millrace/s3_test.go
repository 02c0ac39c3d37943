package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"millrace/internal/objects"
	"millrace/internal/testenv"
)

// A wrong bucket or key stops the start, and says what to do.
func TestWrongBucketOrKey(t *testing.T) {
	redis, c := testenv.StartRedis(t), testenv.BucketConfig(t)
	testenv.CreateBucket(t, c)
	for name, x := range map[string]struct{ bucket, key, secret, want string }{
		"bucket": {"no-such-bucket", c.AccessKey, c.SecretKey, "there is no bucket of that name: create it, or correct --s3-bucket"},
		"key":    {c.Bucket, "nobody", c.SecretKey, "S3 doesn't know the access key: check MILLRACE_S3_ACCESS_KEY"},
		"secret": {c.Bucket, c.AccessKey, "not-the-secret", "the secret key doesn't belong to the access key: check MILLRACE_S3_SECRET_KEY"},
	} {
		for _, role := range []string{"transcode", "edge"} {
			r := start(t, role, t.TempDir(), "--redis", redis.URL(), "--s3-endpoint", c.Endpoint,
				"--s3-bucket", x.bucket, "--s3-access-key", x.key, "--s3-secret-key", x.secret)
			<-r.ended
			said := r.stderr.String()
			if code := r.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(said, x.want) || strings.Contains(said, x.secret) {
				t.Errorf("%s with a wrong %s: status %d; want 1 and %q in\n%s", role, name, code, x.want, said)
			}
		}
	}
}

// A connection that our own S3 server can't take for want of open files ends it; it
// is started again, and the process goes on.
func TestS3ServerWithoutDescriptors(t *testing.T) {
	if !inProcessOfItsOwn(t) {
		return
	}
	log := new(output)
	s, err := newS3Server(t.TempDir(), 8, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	if err := s.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	bucket, err := objects.Open(t.Context(), s.config())
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	bucket.CloseIdle()
	spare, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	testenv.Eventually(t, 10*time.Second, func() error { // a server that ends at once was never up
		if time.Since(began) < s3Again {
			return errors.New("it is too young")
		}
		return nil
	})
	giveBack := takeDescriptors(t)
	defer giveBack()
	_ = spare.Close()                                        // for our end of a connection
	if conn, err := net.Dial("tcp", s.address); err == nil { // else the server was quicker to end
		defer conn.Close()
	}
	testenv.Eventually(t, 10*time.Second, func() error {
		if !strings.Contains(log.String(), "it is started again") {
			return errors.New("it took a connection without a descriptor")
		}
		return nil
	})
	giveBack()
	testenv.Eventually(t, 20*time.Second, func() error {
		return bucket.Put(t.Context(), "checks/again", []byte("x"))
	})
	bucket.CloseIdle()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
