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
	// Timeout bounds one request; 0 means 10 s.
	Timeout time.Duration
}

// Bucket reads and writes one bucket. It is safe for concurrent use.
type Bucket struct {
	client *s3.Client
	name   string
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
	opts := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithRegion(c.Region),
		awsconfig.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(c.Timeout)),
		awsconfig.WithRetryMaxAttempts(2),
	}
	if c.AccessKey != "" {
		opts = append(opts, awsconfig.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, "")))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", c.Bucket, err)
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if c.Endpoint != "" {
			o.BaseEndpoint = aws.String(c.Endpoint)
			o.UsePathStyle = true
		}
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	})
	return &Bucket{client: client, name: c.Bucket}, nil
}

// Create makes the bucket unless it exists.
func (b *Bucket) Create(ctx context.Context) error {
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
	const hint = "check --s3-endpoint, --s3-bucket, --s3-region and the credentials"
	if err := b.Put(ctx, key, []byte("millrace")); err != nil {
		return fmt.Errorf("bucket %s can't be written: %w; %s", b.name, err, hint)
	}
	if _, err := b.Get(ctx, key); err != nil {
		return fmt.Errorf("bucket %s can't be read: %w; %s", b.name, err, hint)
	}
	if err := b.Delete(ctx, []string{key}); err != nil {
		return fmt.Errorf("objects in bucket %s can't be deleted: %w; %s", b.name, err, hint)
	}
	return nil
}

// Put stores data under key unless the key exists. An existing key with the
// same content is success; with other content it is [ErrConflict].
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
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
	})
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

// Get reads a whole object. A missing one is [ErrNotFound].
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, error) {
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: &key})
	if err != nil {
		if status(err) == http.StatusNotFound {
			return nil, fmt.Errorf("get %s: %w", key, ErrNotFound)
		}
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	defer out.Body.Close()
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
	_, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &key})
	if err == nil {
		return true, nil
	}
	if status(err) == http.StatusNotFound {
		return false, nil
	}
	return false, fmt.Errorf("head %s: %w", key, err)
}

// List calls fn with up to 1,000 keys at a time that begin with prefix.
func (b *Bucket) List(ctx context.Context, prefix string, fn func(keys []string) error) error {
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		keys := make([]string, len(page.Contents))
		for i, o := range page.Contents {
			keys[i] = aws.ToString(o.Key)
		}
		if len(keys) == 0 {
			continue
		}
		if err := fn(keys); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes up to 1,000 objects; those that don't exist are no error.
func (b *Bucket) Delete(ctx context.Context, keys []string) error {
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
