// Package session is the contract by which services learn who is asking, without api:
// hashes of tokens in Redis, each with the identity that it stands for. A Redis that leaks
// gives nobody a token.
package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// tokensHash maps hash of token -> Identity as JSON.
const tokensHash = "millrace:tokens"

// ErrUnknownToken means that nobody has this token.
var ErrUnknownToken = errors.New("unknown token")

// Token stands for a person: whoever has it writes in that person's name. It is of lower-case letters
// and digits, since some clients of chat change the others. It prints as "[redacted]".
type Token string

// NewToken makes a token with 160 random bits.
func NewToken() Token {
	var b [20]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return Token(strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])))
}

// ParseToken returns the token that somebody typed, or that a client sent as IRC's password: with or
// without "oauth:" before it.
func ParseToken(text string) Token {
	return Token(strings.TrimPrefix(strings.ToLower(strings.TrimSpace(text)), "oauth:"))
}

// Hash is what may be stored: SHA-256 is enough for a secret of 160 random bits.
func (t Token) Hash() string {
	sum := sha256.Sum256([]byte(t))
	return hex.EncodeToString(sum[:])
}

// String hides the token.
func (Token) String() string { return "[redacted]" }

// GoString hides the token.
func (Token) GoString() string { return "[redacted]" }

// LogValue hides the token.
func (Token) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// Reveal returns the token itself, for the one moment when its owner is shown it.
func (t Token) Reveal() string { return string(t) }

// Identity is who somebody is. The zero value is nobody: who reads without a name.
type Identity struct {
	// ID is a decimal number that never changes and is never given to somebody else.
	ID string `json:"id"`
	// Login is the name in lower case, by the rule of package channelname; Name is as it is shown.
	Login string `json:"login"`
	Name  string `json:"name"`
	// Created is when the account was made.
	Created time.Time `json:"created"`
}

// Anonymous reports whether it is nobody.
func (i Identity) Anonymous() bool { return i.ID == "" }

// Lookup returns who has a token, or [ErrUnknownToken]. Tokens are found by their hash, so nothing can
// be learned from the time it takes.
func Lookup(ctx context.Context, db redis.UniversalClient, token Token) (Identity, error) {
	doc, err := db.HGet(ctx, tokensHash, token.Hash()).Bytes()
	if errors.Is(err, redis.Nil) {
		return Identity{}, ErrUnknownToken
	}
	var who Identity
	if err == nil {
		err = json.Unmarshal(doc, &who)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("look up token: %w", err)
	}
	return who, nil
}

// Replace makes tokens, by their hashes, the whole truth: others stop working.
func Replace(ctx context.Context, db redis.UniversalClient, tokens map[string]Identity) error {
	_, err := db.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Del(ctx, tokensHash)
		for hash, who := range tokens {
			doc, err := json.Marshal(who)
			if err != nil {
				return err
			}
			p.HSet(ctx, tokensHash, hash, doc)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("publish %d tokens to Redis: %w", len(tokens), err)
	}
	return nil
}

// IDOf is the ID of whoever has a name, and of the channel of that name, as long as nobody can change a
// name: ten digits of its hash.
func IDOf(login string) string {
	sum := sha256.Sum256([]byte(login))
	return strconv.FormatUint(1_000_000_000+binary.BigEndian.Uint64(sum[:])%9_000_000_000, 10)
}
