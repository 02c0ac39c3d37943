package private

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"millrace/internal/seal"
)

// Headers of requests and answers.
const (
	signatureHeader = "X-Millrace-Signature"
	proofHeader     = "X-Millrace-Proof"
)

// reason is why a request was refused.
type reason string

const (
	fromBrowser reason = "browser"
	otherHost   reason = "host"
	unsigned    reason = "unsigned"
	wrongCode   reason = "signature"
	wrongTime   reason = "time"
	replayed    reason = "replayed"
	crowded     reason = "crowded"
)

var reasons = []reason{fromBrowser, otherHost, unsigned, wrongCode, wrongTime, replayed, crowded}

// Guard lets requests of peers through, once each, and proves to them that this
// process knows the secret.
func (p *Peers) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		why, say := p.judge(w.Header(), r)
		if why == "" {
			next.ServeHTTP(w, r)
			return
		}
		p.refused.WithLabelValues(string(why)).Inc()
		status := http.StatusForbidden
		if why == crowded {
			status = http.StatusServiceUnavailable
		}
		w.Header().Set("Connection", "close") // its body isn't read
		http.Error(w, say, status)
	})
}

// judge finds out whether a request may pass; else it returns why not, also in
// words for who asked. It puts the proof into header for whoever signed it.
func (p *Peers) judge(header http.Header, r *http.Request) (why reason, say string) {
	if ofBrowser(r.Header) {
		return fromBrowser, "this listener is for services, no page may ask it"
	}
	if !strings.EqualFold(r.Host, p.host) {
		return otherHost, fmt.Sprintf("this service is %s and no other: ask it there, or correct its --advertise", p.host)
	}
	signature := r.Header.Get(signatureHeader)
	s, err := p.keys.Verify(seal.Request{Method: r.Method, Host: p.host, URI: r.RequestURI}, signature)
	switch {
	case errors.Is(err, seal.ErrUnsigned):
		return unsigned, "the request isn't signed: only services that have the same --private-secret may ask"
	case err != nil:
		return wrongCode, "the request's signature is wrong: set the same --private-secret on all services"
	}
	header.Set(proofHeader, p.keys.Proof(signature))
	now := time.Now()
	if ahead := s.At.Sub(now); ahead.Abs() > MaxSkew {
		return wrongTime, fmt.Sprintf("the clock of who asks is %s ahead of this machine's, at most %s are allowed: have both set by NTP", ahead.Round(time.Second), MaxSkew)
	}
	switch why := p.nonces.take(s, now); why {
	case replayed:
		return why, "the request was taken already"
	case crowded:
		return why, "too many requests in a minute"
	}
	return "", ""
}

// ofBrowser reports whether a page had its browser send a request.
func ofBrowser(h http.Header) bool {
	if h.Get("Origin") != "" {
		return true
	}
	for name := range h {
		if strings.HasPrefix(name, "Sec-Fetch-") {
			return true
		}
	}
	return false
}

// NewServer returns a server for a guarded handler: HTTP/1.1, and HTTP/2 also
// without TLS.
func NewServer(h http.Handler) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		Protocols:         new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}
