// Package objects is the contract about what lies in S3: how objects are
// named, and how they are put and read.
//
// Objects are immutable: a key names one content for ever, and a PUT is
// conditional on the key being free.
//
//	broadcasts/{broadcast}/{ingest epoch}/{rendition}/{sequence}.{profile}.m4s
//	broadcasts/{broadcast}/{ingest epoch}/{rendition}/init-{hash}.mp4
package objects

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// CacheControl is what every object is stored with: its content never changes.
const CacheControl = "public, max-age=31536000, immutable"

// MaxObject bounds what Get reads into memory, in bytes.
const MaxObject = 256 << 20

// The errors that callers branch on.
var (
	// ErrNotFound means that there is no such object.
	ErrNotFound = errors.New("no such object")
	// ErrConflict means that the key exists with other content: somebody broke
	// the rule that a key names one content for ever.
	ErrConflict = errors.New("the key exists with other content")
)

// SegmentKey names a whole segment.
func SegmentKey(broadcast string, epoch uint64, rendition string, sequence uint64, profile string) string {
	return renditionPrefix(broadcast, epoch, rendition) + strconv.FormatUint(sequence, 10) + "." + profile + ".m4s"
}

// InitKey names an init section.
func InitKey(broadcast string, epoch uint64, rendition, hash string) string {
	return renditionPrefix(broadcast, epoch, rendition) + "init-" + hash + ".mp4"
}

func renditionPrefix(broadcast string, epoch uint64, rendition string) string {
	return Prefix(broadcast) + strconv.FormatUint(epoch, 10) + "/" + rendition + "/"
}

// Sequence returns the sequence of the segment that a key names; ok is false when
// it names something else.
func Sequence(key string) (sequence uint64, ok bool) {
	name, isSegment := strings.CutSuffix(key[strings.LastIndexByte(key, '/')+1:], ".m4s")
	number, _, found := strings.Cut(name, ".")
	sequence, err := strconv.ParseUint(number, 10, 64)
	return sequence, isSegment && found && err == nil
}

// Prefix is what all keys of a broadcast begin with.
func Prefix(broadcast string) string { return "broadcasts/" + broadcast + "/" }

// ContentType returns the media type of a key.
func ContentType(key string) string {
	switch {
	case strings.HasSuffix(key, ".m4s"), strings.HasSuffix(key, ".mp4"):
		return "video/mp4"
	case strings.HasSuffix(key, ".jpg"):
		return "image/jpeg"
	}
	return "application/octet-stream"
}

// Config names a bucket. Without AccessKey the SDK's own chain finds
// credentials (environment, profile, instance role).
type Config struct {
	// Endpoint is the base URL of an S3-compatible server; empty means AWS.
	Endpoint string
	Bucket   string
	// Region defaults to "us-east-1".
	Region               string
	AccessKey, SecretKey string
	// Timeout bounds one call, and one that moves media by as much more as the
	// media takes at 1 Mb/s; 0 means 10 s.
	Timeout time.Duration
	// Connections bounds those to the server; calls wait for one. 0 means no bound.
	Connections int
}

// Bucket reads and writes one bucket. It is safe for concurrent use.
type Bucket struct {
	client  *s3.Client
	conns   *http.Client // below client
	name    string
	timeout time.Duration
}

// Open prepares a client. It does no I/O beyond reading the SDK's
// configuration; Check reaches the server.
func Open(ctx context.Context, c Config) (*Bucket, error) {
	if c.Bucket == "" {
		return nil, errors.New("open bucket: no bucket named; set --s3-bucket")
	}
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	built := awshttp.NewBuildableClient().WithDialerOptions(func(d *net.Dialer) { d.Timeout = connectTimeout })
	opts := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithRegion(c.Region),
		awsconfig.WithHTTPClient(built),
		awsconfig.WithRetryMaxAttempts(2),
	}
	if c.AccessKey != "" {
		opts = append(opts, awsconfig.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, "")))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", c.Bucket, err)
	}
	if b, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		built = b // with what the environment asks for, such as AWS_CA_BUNDLE
	}
	transport := built.GetTransport()
	transport.MaxConnsPerHost = c.Connections
	conns := newHTTPClient(transport)
	cfg.HTTPClient = conns
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if c.Endpoint != "" {
			o.BaseEndpoint = aws.String(c.Endpoint)
			o.UsePathStyle = true
		}
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	})
	return &Bucket{client: client, conns: conns, name: c.Bucket, timeout: c.Timeout}, nil
}

// newHTTPClient makes the client that the SDK would make for itself, as one whose
// idle connections can be closed.
func newHTTPClient(t *http.Transport) *http.Client {
	return &http.Client{Transport: t, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if code := r.Response.StatusCode; code == http.StatusTemporaryRedirect || code == http.StatusPermanentRedirect {
			return nil
		}
		return http.ErrUseLastResponse
	}}
}

// CloseIdle closes the connections that no call uses, also those that none has used
// yet: a server that is being stopped may wait for those.
func (b *Bucket) CloseIdle() { b.conns.CloseIdleConnections() }

// connectTimeout bounds the connecting to a server that drops what comes.
const connectTimeout = 3 * time.Second

// slowest is the pace that a transfer may have at least, in bytes a second.
const slowest = 1e6 / 8

// bound bounds a call that moves size bytes.
func (b *Bucket) bound(ctx context.Context, size int64) (context.Context, context.CancelFunc) {
	limit := b.timeout + time.Duration(float64(size)/slowest*float64(time.Second))
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit.Round(time.Millisecond)))
}

// Create makes the bucket unless it exists.
func (b *Bucket) Create(ctx context.Context) error {
	ctx, cancel := b.bound(ctx, 0)
	defer cancel()
	_, err := b.client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &b.name})
	var owned *types.BucketAlreadyOwnedByYou
	var exists *types.BucketAlreadyExists
	if err != nil && !errors.As(err, &owned) && !errors.As(err, &exists) {
		return fmt.Errorf("create bucket %s: %w", b.name, err)
	}
	return nil
}

// Check writes, reads and deletes a small object, so that a wrong endpoint,
// bucket, key or permission shows at the start and not when the first segment
// is lost.
func (b *Bucket) Check(ctx context.Context) error {
	key := "checks/" + strconv.FormatInt(time.Now().UnixNano(), 36)
	err := b.Put(ctx, key, []byte("millrace"))
	for range checkRetries {
		if code := status(err); err == nil || ctx.Err() != nil || code >= 400 && code < 500 {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(checkPause):
		}
		err = b.Put(ctx, key, []byte("millrace"))
	}
	if err != nil {
		return fmt.Errorf("bucket %s can't be written: %w; %s", b.name, err, b.hint(err))
	}
	if _, err := b.Get(ctx, key); err != nil {
		return fmt.Errorf("bucket %s can't be read: %w; %s", b.name, err, b.hint(err))
	}
	if err := b.Delete(ctx, []string{key}); err != nil {
		return fmt.Errorf("objects in bucket %s can't be deleted: %w; %s", b.name, err, b.hint(err))
	}
	return nil
}

// Check tries again for a moment when S3 doesn't answer, or badly.
const (
	checkRetries = 3
	checkPause   = 300 * time.Millisecond
)

// hint says in plain words what to do about an error of S3.
func (b *Bucket) hint(err error) string {
	var api smithy.APIError
	code := ""
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	switch {
	case code == "NoSuchBucket":
		return "there is no bucket of that name: create it, or correct --s3-bucket"
	case code == "InvalidAccessKeyId" || code == "XAdminUserNotFound": // the latter is versitygw's
		return "S3 doesn't know the access key: check MILLRACE_S3_ACCESS_KEY"
	case code == "SignatureDoesNotMatch":
		return "the secret key doesn't belong to the access key: check MILLRACE_S3_SECRET_KEY"
	case strings.Contains(err.Error(), "get credentials"): // the SDK has no type for it
		return "there are no credentials: set MILLRACE_S3_ACCESS_KEY and MILLRACE_S3_SECRET_KEY"
	case status(err) == http.StatusForbidden:
		return "the key may not do that: it needs to put, get, list and delete objects in the bucket"
	case status(err) == http.StatusMovedPermanently || code == "AuthorizationHeaderMalformed":
		return "the bucket is in another region: check --s3-region"
	case status(err) == 0:
		return "S3 can't be reached: check --s3-endpoint and --s3-region, and that it runs"
	}
	return "check --s3-endpoint, --s3-bucket, --s3-region and the credentials"
}

// Reach reports whether S3 answers, in a request without effect.
func (b *Bucket) Reach(ctx context.Context) error {
	_, err := b.Exists(ctx, "checks/reach")
	return err
}

// Put stores data under key unless the key exists. An existing key with the
// same content is success; with other content it is [ErrConflict]. It tries once.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
	ctx, cancel := b.bound(ctx, int64(len(data)))
	defer cancel()
	sum := sha256.Sum256(data)
	digest := base64.StdEncoding.EncodeToString(sum[:])
	_, err := b.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket:       &b.name,
		Key:          &key,
		Body:         bytes.NewReader(data),
		CacheControl: aws.String(CacheControl),
		ContentType:  aws.String(ContentType(key)),
		IfNoneMatch:  aws.String("*"),
		Metadata:     map[string]string{"sha256": digest},
	}, once)
	if err == nil {
		return nil
	}
	// 412: it exists. 409: another PUT of it is under way (AWS S3): retry later.
	if status(err) != http.StatusPreconditionFailed {
		return fmt.Errorf("put %s: %w", key, err)
	}
	head, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &key})
	if err != nil {
		return fmt.Errorf("put %s: it exists and can't be compared: %w", key, err)
	}
	if head.Metadata["sha256"] != digest {
		return fmt.Errorf("put %s: %w", key, ErrConflict)
	}
	return nil
}

// once leaves it to the caller to try again.
func once(o *s3.Options) { o.RetryMaxAttempts = 1 }

// Get reads a whole object. A missing one is [ErrNotFound].
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, error) {
	head, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(b.timeout, func() { cancel(fmt.Errorf("no answer within %s", b.timeout)) })
	defer silent.Stop()
	out, err := b.client.GetObject(head, &s3.GetObjectInput{Bucket: &b.name, Key: &key})
	if err != nil {
		if status(err) == http.StatusNotFound {
			return nil, fmt.Errorf("get %s: %w", key, ErrNotFound)
		}
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	defer out.Body.Close()
	silent.Reset(b.timeout + time.Duration(float64(aws.ToInt64(out.ContentLength))/slowest*float64(time.Second)))
	if aws.ToInt64(out.ContentLength) > MaxObject {
		return nil, fmt.Errorf("get %s: %d bytes are more than the %d accepted", key, *out.ContentLength, MaxObject)
	}
	data, err := io.ReadAll(io.LimitReader(out.Body, MaxObject))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if n := aws.ToInt64(out.ContentLength); n != int64(len(data)) {
		return nil, fmt.Errorf("get %s: %d of %d bytes: %w", key, len(data), n, io.ErrUnexpectedEOF)
	}
	return data, nil
}

// Exists reports whether key is there.
func (b *Bucket) Exists(ctx context.Context, key string) (bool, error) {
	ctx, cancel := b.bound(ctx, 0)
	defer cancel()
	_, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &key})
	if err == nil {
		return true, nil
	}
	if status(err) == http.StatusNotFound {
		return false, nil
	}
	return false, fmt.Errorf("head %s: %w", key, err)
}

// Object is what a listing tells of an object.
type Object struct {
	Key string
	// Size is in bytes.
	Size int64
	// Stored is when it was put.
	Stored time.Time
}

// List calls fn with up to 1,000 keys at a time that begin with prefix.
func (b *Bucket) List(ctx context.Context, prefix string, fn func(keys []string) error) error {
	return b.Survey(ctx, prefix, func(found []Object) error {
		keys := make([]string, len(found))
		for i, o := range found {
			keys[i] = o.Key
		}
		return fn(keys)
	})
}

// Survey calls fn with up to 1,000 objects at a time whose keys begin with prefix.
func (b *Bucket) Survey(ctx context.Context, prefix string, fn func([]Object) error) error {
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := b.nextPage(ctx, pages)
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		found := make([]Object, len(page.Contents))
		for i, o := range page.Contents {
			found[i] = Object{aws.ToString(o.Key), aws.ToInt64(o.Size), aws.ToTime(o.LastModified)}
		}
		if len(found) == 0 {
			continue
		}
		if err := fn(found); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bucket) nextPage(ctx context.Context, pages *s3.ListObjectsV2Paginator) (*s3.ListObjectsV2Output, error) {
	ctx, cancel := b.bound(ctx, 0)
	defer cancel()
	return pages.NextPage(ctx)
}

// Delete removes up to 1,000 objects; those that don't exist are no error.
func (b *Bucket) Delete(ctx context.Context, keys []string) error {
	ctx, cancel := b.bound(ctx, 0)
	defer cancel()
	ids := make([]types.ObjectIdentifier, len(keys))
	for i := range keys {
		ids[i].Key = &keys[i]
	}
	out, err := b.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &b.name, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)},
	})
	if err != nil {
		return fmt.Errorf("delete %d objects: %w", len(keys), err)
	}
	if len(out.Errors) > 0 {
		e := out.Errors[0]
		return fmt.Errorf("delete %s: %s", aws.ToString(e.Key), aws.ToString(e.Message))
	}
	return nil
}

// status returns the HTTP status behind an error of the SDK, or 0.
func status(err error) int {
	var re *awshttp.ResponseError
	if errors.As(err, &re) {
		return re.HTTPStatusCode()
	}
	return 0
}
