package main

import (
	"strings"
	"testing"

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
