package seal

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"
)

// The errors of Verify.
var (
	// ErrUnsigned means that there is no signature, or none of this version.
	ErrUnsigned = errors.New("the request isn't signed")
	// ErrSignature means that the signature is of another request or by another secret.
	ErrSignature = errors.New("the request's signature is wrong")
)

// Nonce is a random number that no two requests have in common.
type Nonce [16]byte

// Request is what the signature of a request covers beside its time and nonce: the
// host it is for keeps others from passing it on.
type Request struct {
	Method string
	// Host is the host and port of the address that was asked.
	Host string
	// URI is the path with its query, as it is sent.
	URI string
}

// Signed is what a signature says.
type Signed struct {
	At    time.Time
	Nonce Nonce
}

// Sign returns the signature of a request:
//
//	v1 1795465319064 mVYb3Y5b8XW0m1lqTq8N3g 2Uu4...
//
// that is its version, the time in Unix milliseconds, the nonce and the code.
func (k *Keys) Sign(r Request, s Signed) string {
	at := strconv.FormatInt(s.At.UnixMilli(), 10)
	nonce := base64.RawURLEncoding.EncodeToString(s.Nonce[:])
	return version + " " + at + " " + nonce + " " + k.codeOf(r, at, nonce)
}

// Verify returns what a request's signature says, if it is one. Whether its time is
// near, and its nonce new, is the caller's to decide.
func (k *Keys) Verify(r Request, signature string) (Signed, error) {
	form, rest, _ := strings.Cut(signature, " ")
	at, rest, _ := strings.Cut(rest, " ")
	nonce, code, _ := strings.Cut(rest, " ")
	if form != version {
		return Signed{}, ErrUnsigned
	}
	if !k.requests.is(code, r.Method, strings.ToLower(r.Host), r.URI, at, nonce) {
		return Signed{}, ErrSignature
	}
	var s Signed
	ms, err := strconv.ParseInt(at, 10, 64)
	if err != nil || base64.RawURLEncoding.DecodedLen(len(nonce)) != len(s.Nonce) {
		return Signed{}, ErrUnsigned
	}
	if _, err := base64.RawURLEncoding.Decode(s.Nonce[:], []byte(nonce)); err != nil {
		return Signed{}, ErrUnsigned
	}
	s.At = time.UnixMilli(ms)
	return s, nil
}

func (k *Keys) codeOf(r Request, at, nonce string) string {
	return k.requests.sum(r.Method, strings.ToLower(r.Host), r.URI, at, nonce)
}

// Proof is what who answers a request shows: that it knows the secret, too. It is
// of that request's signature, and of no other.
func (k *Keys) Proof(signature string) string { return version + " " + k.proofs.sum(signature) }

// Proves reports whether proof is the one of a request's signature.
func (k *Keys) Proves(proof, signature string) bool {
	form, code, _ := strings.Cut(proof, " ")
	return form == version && k.proofs.is(code, signature)
}
