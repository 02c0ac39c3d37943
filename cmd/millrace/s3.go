package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"millrace/internal/objects"
	"millrace/internal/s3server"
)

const (
	// s3Start bounds the start of the S3 server.
	s3Start = 30 * time.Second
	// s3Again is the pause before it is started again.
	s3Again = 500 * time.Millisecond
)

// s3Keys are the credentials of our own S3 server, kept in the data directory.
type s3Keys struct {
	Access secretText `json:"access_key"`
	Secret secretText `json:"secret_key"`
}

// s3Server is the S3 server of `millrace all`, over a directory, on a loopback
// port. A process can have only one: it changes the working directory.
type s3Server struct {
	dir     string
	address string
	keys    s3Keys
	// connections are the most at a time. They and a few more are taken: others on
	// this machine can knock too.
	connections int
	log         *slog.Logger
}

// newS3Server makes the directory and the credentials, and finds a free port.
func newS3Server(data string, connections int, log *slog.Logger) (*s3Server, error) {
	s := &s3Server{dir: filepath.Join(data, "s3"), connections: connections + 8, log: log}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory for S3: %w", err)
	}
	if err := s3server.Check(s.dir); err != nil {
		return nil, fmt.Errorf("the S3 server can't use %s: %w; put --data on ext4, xfs, btrfs or zfs, or name a bucket with --s3-bucket", s.dir, err)
	}
	var err error
	if s.keys, err = loadS3Keys(filepath.Join(data, "s3-keys.json")); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // finds a free port
	if err != nil {
		return nil, fmt.Errorf("find a port for the S3 server: %w", err)
	}
	s.address = l.Addr().String()
	return s, l.Close()
}

// loadS3Keys reads the credentials, or makes them at the first start.
func loadS3Keys(path string) (s3Keys, error) {
	var k s3Keys
	doc, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(doc, &k)
		if err == nil && (k.Access == "" || k.Secret == "") {
			err = errors.New("a key is missing")
		}
		if err != nil {
			return k, fmt.Errorf("credentials of the S3 server in %s: %w; delete the file, new ones will be made", path, err)
		}
		return k, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return k, fmt.Errorf("credentials of the S3 server: %w", err)
	}
	k = s3Keys{secretText("millrace-" + strings.ToLower(rand.Text()[:8])), secretText(rand.Text() + rand.Text())}
	if doc, err = json.Marshal(k); err != nil {
		return k, err
	}
	if err := os.WriteFile(path, doc, 0o600); err != nil {
		return k, fmt.Errorf("keep credentials of the S3 server: %w", err)
	}
	return k, nil
}

// config says how this server's bucket is reached.
func (s *s3Server) config() objects.Config {
	return objects.Config{
		Endpoint: "http://" + s.address, Bucket: "millrace",
		AccessKey: string(s.keys.Access), SecretKey: string(s.keys.Secret),
	}
}

// Run serves until ctx ends. A server that ended by itself after it had served is
// started again: it does so when it can't take one connection, such as for want of
// open files.
func (s *s3Server) Run(ctx context.Context) error {
	for first := true; ; first = false {
		began := time.Now()
		err := s.runOnce(ctx)
		if ctx.Err() != nil || first && time.Since(began) < s3Again {
			return err
		}
		s.log.Error("the S3 server ended, it is started again", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(s3Again):
		}
	}
}

func (s *s3Server) runOnce(ctx context.Context) error {
	return s3server.Run(ctx, s3server.Config{
		Dir: s.dir, Address: s.address, AccessKey: string(s.keys.Access), SecretKey: string(s.keys.Secret),
		Connections: s.connections, Log: s.log,
	})
}

// await waits until the server takes connections.
func (s *s3Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s3Start)
	defer cancel()
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "tcp", s.address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the S3 server over %s doesn't answer: %w", s.dir, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
