package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// certificateEvery is how often the certificate's files are looked at.
const certificateEvery = 2 * time.Second

// certificate is a TLS certificate that is read again when its files change. While
// the changed files can't be read, the earlier certificate stays in use: tools
// write the two files one by one.
type certificate struct {
	flags             string // that name the files
	certFile, keyFile string
	log               *slog.Logger
	current           atomic.Pointer[tls.Certificate]
	// Owned by Run: what the files were like when they were last read, and when they
	// last couldn't be.
	seen, unread string
}

func newCertificate(flags, certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{flags: flags, certFile: certFile, keyFile: keyFile, log: log}
	c.seen = c.stamp()
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// config returns the TLS settings of a listener that speaks these protocols (ALPN).
func (c *certificate) config(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: protocols,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.current.Load(), nil
		},
	}
}

// Run watches the files until ctx ends.
func (c *certificate) Run(ctx context.Context) error {
	tick := time.NewTicker(certificateEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.check()
		}
	}
}

func (c *certificate) check() {
	now := c.stamp()
	if now == c.seen {
		return
	}
	if err := c.load(); err != nil {
		// It may be no fault of the files, such as no open files left: they are read
		// again next time, and it is said once.
		if now != c.unread {
			c.log.Error("the changed certificate can't be used, the earlier one stays", "err", err)
		}
		c.unread = now
		return
	}
	c.seen, c.unread = now, ""
	c.log.Info("certificate read again", "file", c.certFile, "valid_until", c.current.Load().Leaf.NotAfter)
}

func (c *certificate) load() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("%s: %w", c.flags, err)
	}
	c.current.Store(&pair)
	return nil
}

// stamp changes when one of the files does, also behind a symbolic link.
func (c *certificate) stamp() string {
	var s string
	for _, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			s += fmt.Sprint(info.ModTime().UnixNano(), " ", info.Size(), " ")
		}
	}
	return s
}
