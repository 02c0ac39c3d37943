package private

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"millrace/internal/seal"
)

const (
	// answerTimeout is how long a peer may take to the head of its answer, and
	// maxAnswerHead that head's size in bytes.
	answerTimeout = 5 * time.Second
	maxAnswerHead = 16 << 10
	// maxRefusal bounds what is read of the words of a refusal, in bytes.
	maxRefusal = 512
)

// ErrStranger means that who answered doesn't know the secret: nothing that it
// says is believed.
var ErrStranger = errors.New("who answers doesn't prove that it knows the secret: set the same --private-secret on all services")

// ErrRefused means that the peer refused the request; its words say why.
var ErrRefused = errors.New("refused")

// Client returns a client for requests to peers. It signs them, fails with
// [ErrStranger] where the answer isn't proven, with [ErrRefused] where a peer's
// guard refuses, and follows no redirect. It has connections of its own.
func (p *Peers) Client() *http.Client { return p.client(p.transport()) }

// ClaimClient returns a client like [Peers.Client] that speaks HTTP/2, with or
// without TLS: both directions of a request stay open.
func (p *Peers) ClaimClient() *http.Client {
	t := p.transport()
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP2(true)
	t.Protocols.SetUnencryptedHTTP2(true)
	return p.client(t)
}

func (p *Peers) client(t *http.Transport) *http.Client {
	return &http.Client{
		Transport:     &signer{peers: p, next: t},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// transport makes connections to peers: through no proxy, and quick to notice a
// dead peer.
func (p *Peers) transport() *http.Transport {
	return &http.Transport{
		DialContext: (&net.Dialer{
			Timeout:         2 * time.Second,
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3},
		}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: p.authorities},
		TLSHandshakeTimeout:    2 * time.Second,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        30 * time.Second,
		ResponseHeaderTimeout:  answerTimeout,
		MaxResponseHeaderBytes: maxAnswerHead,
		DisableCompression:     true,
	}
}

// signer signs requests and wants proof of their answers.
type signer struct {
	peers *Peers
	next  *http.Transport
}

// RoundTrip implements [http.RoundTripper].
func (s *signer) RoundTrip(r *http.Request) (*http.Response, error) {
	p := s.peers
	about := seal.Signed{At: time.Now()}
	_, _ = rand.Read(about.Nonce[:]) // it never fails
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	signature := p.keys.Sign(seal.Request{Method: r.Method, Host: host, URI: r.URL.RequestURI()}, about)
	signed := r.WithContext(r.Context()) // a round tripper changes no request
	signed.Header = r.Header.Clone()
	if signed.Header == nil {
		signed.Header = http.Header{}
	}
	signed.Header.Set(signatureHeader, signature)
	resp, err := s.next.RoundTrip(signed)
	if err != nil {
		return nil, err
	}
	if !p.keys.Proves(resp.Header.Get(proofHeader), signature) {
		p.strangers.Inc()
		return nil, fmt.Errorf("%s: %w (%s: %q)", host, ErrStranger, resp.Status, words(resp))
	}
	if resp.StatusCode == http.StatusForbidden {
		return nil, fmt.Errorf("%s: %w: %s", host, ErrRefused, words(resp))
	}
	return resp, nil
}

// words returns how the body of an answer begins, and closes it.
func words(resp *http.Response) string {
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // what came is shown
	return strings.TrimSpace(string(text))
}

// CloseIdleConnections is for [http.Client.CloseIdleConnections].
func (s *signer) CloseIdleConnections() { s.next.CloseIdleConnections() }
