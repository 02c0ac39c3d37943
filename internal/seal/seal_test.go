package seal

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

const secret Secret = "a secret of services"

func keys(t testing.TB, s Secret) *Keys {
	t.Helper()
	k, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSecret(t *testing.T) {
	if _, err := New(secret[:MinSecret-1]); err == nil || !strings.Contains(err.Error(), "openssl rand") || strings.Contains(err.Error(), string(secret[:8])) {
		t.Errorf("a short secret gave %v", err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", secret)
	if all := fmt.Sprintf("%s %v %+v %#v %q %s", secret, secret, struct{ S Secret }{secret}, secret, secret, log.String()); strings.Contains(all, "services") {
		t.Errorf("it prints as %s", all)
	}
}

// What was sealed is taken as what it was sealed for, and as nothing else.
func TestAddress(t *testing.T) {
	k, other := keys(t, secret), keys(t, secret+"!")
	const url = "http://10.0.0.5:7080"
	sealed := k.Seal(Worker, "b1", url)
	if again := keys(t, secret).Seal(Worker, "b1", url); again != sealed {
		t.Errorf("one address has two forms: %q, %q", string(sealed), string(again))
	}
	if u, err := k.Open(Worker, "b1", sealed); u != url || err != nil {
		t.Errorf("%q opens as %q, %v", string(sealed), u, err)
	}
	if !strings.HasPrefix(string(sealed), "v1.") || sealed.String() != url || fmt.Sprint(sealed) != url {
		t.Errorf("it is %q and prints as %s", string(sealed), sealed)
	}
	text := string(sealed)
	for name, c := range map[string]struct {
		keys    *Keys
		role    Role
		scope   string
		address Address
	}{
		"another secret":     {other, Worker, "b1", sealed},
		"another role":       {k, Ingest, "b1", sealed},
		"another broadcast":  {k, Worker, "b2", sealed},
		"another host":       {k, Worker, "b1", Address(strings.Replace(text, "10.0.0.5", "10.0.0.6", 1))},
		"more behind it":     {k, Worker, "b1", sealed + "/x"},
		"another version":    {k, Worker, "b1", "v2" + sealed[2:]},
		"without signature":  {k, Worker, "b1", url},
		"an empty signature": {k, Worker, "b1", "v1. " + url},
		"nothing":            {k, Worker, "b1", ""},
		// Fields don't run into each other.
		"a part moved": {k, Worker, "b", k.Seal(Worker, "b", "1http://10.0.0.5")[:47] + " 1http://10.0.0.5:7080"},
	} {
		if u, err := c.keys.Open(c.role, c.scope, c.address); u != "" || !errors.Is(err, ErrForged) {
			t.Errorf("%s: it opens as %q, %v", name, u, err)
		}
	}
}

func TestRequest(t *testing.T) {
	k, other := keys(t, secret), keys(t, secret+"!")
	r := Request{Method: "POST", Host: "10.0.0.5:7080", URI: "/release/b1?epoch=7"}
	about := Signed{At: time.UnixMilli(1_795_465_319_064), Nonce: Nonce{1, 2, 3}}
	signature := k.Sign(r, about)
	if got, err := k.Verify(r, signature); got != about || err != nil {
		t.Errorf("%q says %+v, %v", signature, got, err)
	}
	change := func(f func(*Request)) Request { c := r; f(&c); return c }
	field := func(n int, to string) string {
		f := strings.Fields(signature)
		f[n] = to
		return strings.Join(f, " ")
	}
	for name, c := range map[string]struct {
		keys      *Keys
		request   Request
		signature string
		want      error
	}{
		"another secret":   {other, r, signature, ErrSignature},
		"another method":   {k, change(func(r *Request) { r.Method = "GET" }), signature, ErrSignature},
		"another host":     {k, change(func(r *Request) { r.Host = "10.0.0.6:7080" }), signature, ErrSignature},
		"another port":     {k, change(func(r *Request) { r.Host = "10.0.0.5:7081" }), signature, ErrSignature},
		"another path":     {k, change(func(r *Request) { r.URI = "/release/b2?epoch=7" }), signature, ErrSignature},
		"another query":    {k, change(func(r *Request) { r.URI = "/release/b1?epoch=8" }), signature, ErrSignature},
		"another time":     {k, r, field(1, "1795465319065"), ErrSignature},
		"another nonce":    {k, r, field(2, "AQIDBAAAAAAAAAAAAAAAAA"), ErrSignature},
		"another code":     {k, r, field(3, strings.Repeat("A", 43)), ErrSignature},
		"another version":  {k, r, field(0, "v2"), ErrUnsigned},
		"nothing":          {k, r, "", ErrUnsigned},
		"the secret's own": {k, r, string(secret), ErrUnsigned},
		"its proof":        {k, r, k.Proof(signature), ErrSignature},
	} {
		if _, err := c.keys.Verify(c.request, c.signature); !errors.Is(err, c.want) {
			t.Errorf("%s gave %v, want %v", name, err, c.want)
		}
	}
	// Names of hosts are the same in capital letters.
	if _, err := k.Verify(Request{"GET", "host:1", "/"}, k.Sign(Request{"GET", "HOST:1", "/"}, about)); err != nil {
		t.Error(err)
	}

	proof := k.Proof(signature)
	if !k.Proves(proof, signature) {
		t.Errorf("%q is no proof", proof)
	}
	later := k.Sign(r, Signed{At: about.At, Nonce: Nonce{9}})
	for name, ok := range map[string]bool{
		"of another request": k.Proves(proof, later), "by another secret": k.Proves(other.Proof(signature), signature),
		"the signature": k.Proves(signature, signature), "nothing": k.Proves("", signature), "a version": k.Proves("v1 ", signature),
	} {
		if ok {
			t.Errorf("a proof that is %s counts", name)
		}
	}
}

// FuzzVerify: what wasn't signed is never taken, whatever it looks like.
func FuzzVerify(f *testing.F) {
	k, _ := New(secret)
	r := Request{Method: "GET", Host: "h:1", URI: "/"}
	good := k.Sign(r, Signed{At: time.UnixMilli(1), Nonce: Nonce{1}})
	for _, s := range []string{good, "", "v1", "v1 1 1 1", "v1    ", good + " ", "v1 -1 \x00 ="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := k.Verify(r, s); err == nil && s != good {
			t.Errorf("%q is taken", s)
		}
		if _, err := k.Open(Edge, "1", Address(s)); err == nil {
			t.Errorf("%q opens", s)
		}
	})
}

// BenchmarkRequest is what a request costs in all: signed, verified, proven, believed.
func BenchmarkRequest(b *testing.B) {
	k := keys(b, secret)
	r := Request{Method: "GET", Host: "10.0.0.5:7080", URI: "/window/mwtpoyonhsyndxdn/source/4.3.m4s?v=1795465319064.c408ceb4"}
	about := Signed{At: time.Now(), Nonce: Nonce{1}}
	b.ReportAllocs()
	for b.Loop() {
		signature := k.Sign(r, about)
		if _, err := k.Verify(r, signature); err != nil || !k.Proves(k.Proof(signature), signature) {
			b.Fatal(err)
		}
	}
}
