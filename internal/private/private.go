// Package private guards the listeners that services use among each other
// (relay, claim, follow, window). On loopback they are open; beyond it every
// request must carry the shared secret.
package private

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// header carries the secret.
const header = "X-Millrace-Secret"

// Secret is the shared secret; it prints as "[redacted]". Empty means none.
type Secret string

// String hides the secret.
func (Secret) String() string { return "[redacted]" }

// GoString hides the secret.
func (Secret) GoString() string { return "[redacted]" }

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// CheckAddress refuses a listener beyond loopback without a secret.
func CheckAddress(address string, s Secret) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("private listener %q: %w", address, err)
	}
	ip := net.ParseIP(host)
	if host == "localhost" || (ip != nil && ip.IsLoopback()) || s != "" {
		return nil
	}
	return fmt.Errorf("private listener %s is reachable from other machines: set --private-secret to the same value on all of them, or listen on 127.0.0.1", address)
}

// Guard lets requests through that carry the secret; without a secret, all.
func (s Secret) Guard(next http.Handler) http.Handler {
	if s == "" {
		return next
	}
	want := sha256.Sum256([]byte(s))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get(header)))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			http.Error(w, "the shared secret is missing or wrong: set the same --private-secret on all services", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Authorize adds the secret to a request.
func (s Secret) Authorize(r *http.Request) {
	if s != "" {
		r.Header.Set(header, string(s))
	}
}

// NewTransport returns a transport for private requests: no proxy, quick to
// notice a dead peer. With http2 set it speaks HTTP/2 without TLS, which
// carries claims (both directions stay open).
func NewTransport(http2 bool) *http.Transport {
	t := &http.Transport{
		DialContext: (&net.Dialer{
			Timeout:         2 * time.Second,
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3},
		}).DialContext,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       30 * time.Second,
		ResponseHeaderTimeout: 5 * time.Second,
		DisableCompression:    true,
	}
	if http2 {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	return t
}

// NewServer returns a server for private requests: HTTP/1.1, and HTTP/2 without TLS.
func NewServer(h http.Handler) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		Protocols:         new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}
