// Package seal proves that what a service reads comes from another service of
// the same installation: all of them share a [Secret], and the [Keys] that are
// derived from it sign addresses in Redis ([Address]) and requests on private
// listeners. Nothing that is sent tells the secret. It does no I/O.
//
// All forms begin with their version. What has another one isn't taken.
package seal

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"strings"
	"sync"
)

// version begins every form.
const version = "v1"

// MinSecret is the least length of a secret in characters: what is signed is seen
// by others, who may try secrets for as long as they like.
const MinSecret = 16

// Secret is what the services of an installation share; it prints as "[redacted]".
type Secret string

// String hides the secret.
func (Secret) String() string { return "[redacted]" }

// GoString hides the secret.
func (Secret) GoString() string { return "[redacted]" }

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// Keys sign and verify. They are safe for concurrent use.
type Keys struct {
	addresses, requests, proofs *key
}

// New derives the keys from a secret.
func New(s Secret) (*Keys, error) {
	if len(s) < MinSecret {
		return nil, fmt.Errorf("the secret that services share has %d characters, at least %d are needed: make one with \"openssl rand -hex 32\"", len(s), MinSecret)
	}
	var k Keys
	for _, of := range []struct {
		to  **key
		use string
	}{{&k.addresses, "addresses"}, {&k.requests, "requests"}, {&k.proofs, "proofs"}} {
		derived, err := hkdf.Key(sha256.New, []byte(s), nil, "millrace "+version+" "+of.use, sha256.Size)
		if err != nil {
			return nil, fmt.Errorf("derive keys from the secret that services share: %w", err)
		}
		*of.to = newKey(derived)
	}
	return &k, nil
}

// key computes HMAC-SHA256. A computation's state is used again: that saves the
// two blocks that the key takes.
type key struct{ states sync.Pool }

type state struct {
	mac     hash.Hash
	message []byte
	sum     [sha256.Size]byte
}

func newKey(secret []byte) *key {
	return &key{states: sync.Pool{New: func() any {
		return &state{mac: hmac.New(sha256.New, secret)}
	}}}
}

// sum returns the fields' code in base64. Each field stands behind its length, so
// that no two lists of fields have one code.
func (k *key) sum(fields ...string) string {
	s := k.states.Get().(*state)
	defer k.states.Put(s)
	s.message = s.message[:0]
	for _, f := range fields {
		s.message = append(binary.BigEndian.AppendUint32(s.message, uint32(len(f))), f...)
	}
	s.mac.Reset()
	s.mac.Write(s.message)
	return base64.RawURLEncoding.EncodeToString(s.mac.Sum(s.sum[:0]))
}

// is reports whether code is the fields', in a time that doesn't tell how much of it is right.
func (k *key) is(code string, fields ...string) bool {
	return hmac.Equal([]byte(code), []byte(k.sum(fields...)))
}

// Role is what a service serves at an address.
type Role string

// The roles.
const (
	// Ingest serves claim, relay and release to other services; the scope is the channel.
	Ingest Role = "ingest"
	// Worker serves follow, window and close to other services; the scope is the broadcast.
	Worker Role = "worker"
	// Edge serves viewers; the scope is the time of its announcement.
	Edge Role = "edge"
)

// Address is the base URL of a service as that service signed it for others to
// find:
//
//	v1.7pX0... http://10.0.0.5:7080
//
// The signature covers the role, and a scope beside which alone it is taken. The
// same address in the same scope always has the same form.
type Address string

// String returns the URL without its signature, for logs: nobody has verified it.
func (a Address) String() string {
	_, url, signed := strings.Cut(string(a), " ")
	if !signed {
		return string(a)
	}
	return url
}

// LogValue is the same for slog.
func (a Address) LogValue() slog.Value { return slog.StringValue(a.String()) }

// ErrForged means that an address wasn't signed by a service of this installation,
// or was signed for something else.
var ErrForged = errors.New("the address isn't signed by a service that has the same secret")

// Seal signs the base URL of a service.
func (k *Keys) Seal(role Role, scope, url string) Address {
	return Address(version + "." + k.addresses.sum(string(role), scope, url) + " " + url)
}

// Open returns the base URL in an address that a service sealed in that role and
// scope, or [ErrForged].
func (k *Keys) Open(role Role, scope string, a Address) (url string, err error) {
	head, url, _ := strings.Cut(string(a), " ")
	form, code, _ := strings.Cut(head, ".")
	if form != version || !k.addresses.is(code, string(role), scope, url) {
		return "", ErrForged
	}
	return url, nil
}
