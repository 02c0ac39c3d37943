// Package s3server is the S3 server of `millrace all` and of tests: versitygw's S3
// API over a directory, in this process.
//
// It is put together from versitygw's packages by hand. Their own way,
// embedgw.RunVersityGW, can do all that versitygw's configuration can, and so links clients
// of Kafka, NATS, RabbitMQ, Vault, LDAP and StatsD; it also serves an administration
// API on the same port, and prints what went wrong in colours.
package s3server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3api"
	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"millrace/internal/sparselog"
)

const (
	// region is the one that clients name.
	region = "us-east-1"
	// defaultConnections bound what is served at a time where Config names no bound.
	defaultConnections = 5000
	// multipartParts is S3's own bound on the parts of an upload; nobody here makes such.
	multipartParts = 10000
	// copyThreshold is S3's own bound on what is copied in one request.
	copyThreshold = 5 << 30
)

// Config is what a server needs; all of it is required but Connections.
type Config struct {
	// Dir holds everything; it exists. Its file system has extended attributes.
	Dir string
	// Address is where to listen.
	Address string
	// AccessKey and SecretKey are those of the only account.
	AccessKey, SecretKey string
	// Connections bounds those at a time, and the requests on them; 0 means 5,000.
	Connections int
	Log         *slog.Logger
}

// Check fails when a directory's file system has no extended attributes.
func Check(dir string) error { return meta.XattrMeta{}.Test(dir) }

// Run serves until ctx ends. A process can have only one: it changes the working directory.
func Run(ctx context.Context, c Config) error {
	c.Connections = cmp.Or(c.Connections, defaultConnections)
	files, err := posix.New(c.Dir, meta.XattrMeta{}, posix.PosixOpts{CopyObjectThreshold: copyThreshold})
	if err != nil {
		return fmt.Errorf("S3 server over %s: %w", c.Dir, err)
	}
	defer files.Shutdown()
	account := auth.Account{Access: c.AccessKey, Secret: c.SecretKey, Role: auth.RoleAdmin}
	listens := make(chan struct{})
	server, err := s3api.New(&store{Backend: files, log: c.Log}, middlewares.RootUserConfig{Access: c.AccessKey, Secret: c.SecretKey}, region,
		auth.NewIAMServiceSingle(account), nil, nil, nil, nil, // no access logs, events and metrics
		s3api.WithConcurrencyLimiter(c.Connections, c.Connections), s3api.WithMpMaxParts(multipartParts),
		s3api.WithQuiet(), s3api.WithKeepAlive(), s3api.WithHealth("/healthz"), s3api.WithOnListen(func() { close(listens) }))
	if err != nil {
		return fmt.Errorf("S3 server over %s: %w", c.Dir, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeMultiPort([]string{c.Address}) }()
	select {
	case err := <-ended:
		return fmt.Errorf("S3 server on %s: %w", c.Address, err)
	case <-listens: // asked to end before, it wouldn't
	}
	select {
	case err := <-ended: // as when it can't take a connection; those that it has are closed
		return errors.Join(fmt.Errorf("S3 server on %s: %w", c.Address, err), server.ShutDown())
	case <-ctx.Done():
	}
	err = server.ShutDown()
	<-ended // says that the listener was closed
	if err != nil {
		return fmt.Errorf("end the S3 server: %w", err)
	}
	return nil
}

// store is the directory, with its faults in our log: what isn't an answer that S3 knows,
// versitygw would print to standard error.
type store struct {
	backend.Backend
	log   *slog.Logger
	fault sparselog.Limiter
}

// plain logs an error that S3 has no answer for, and returns one that it has.
func (s *store) plain(ctx context.Context, what string, err error) error {
	if _, known := err.(s3err.S3Error); known || err == nil { // versitygw asks so, wrapped ones aren't known to it
		return err
	}
	if ctx.Err() == nil {
		s.fault.Warn(s.log, "the S3 server can't do what it was asked to", err, "request", what)
	}
	return s3err.GetAPIError(s3err.ErrInternalError)
}

func (s *store) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	out, err := s.Backend.PutObject(ctx, in)
	return out, s.plain(ctx, "put", err)
}

func (s *store) HeadObject(ctx context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	out, err := s.Backend.HeadObject(ctx, in)
	return out, s.plain(ctx, "head", err)
}

func (s *store) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	out, err := s.Backend.GetObject(ctx, in)
	return out, s.plain(ctx, "get", err)
}

func (s *store) ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input) (s3response.ListObjectsV2Result, error) {
	out, err := s.Backend.ListObjectsV2(ctx, in)
	return out, s.plain(ctx, "list", err)
}

func (s *store) DeleteObjects(ctx context.Context, in *s3.DeleteObjectsInput) (s3response.DeleteResult, error) {
	out, err := s.Backend.DeleteObjects(ctx, in)
	return out, s.plain(ctx, "delete", err)
}
