package edge

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

func viewerRequest(peer, agent, forwarded string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = peer
	r.Header.Set("User-Agent", agent)
	if forwarded != "" {
		r.Header.Set("X-Forwarded-For", forwarded)
	}
	return r
}

func TestAudience(t *testing.T) {
	a := newAudience([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, newMetrics(discard{}))
	start := time.Now()
	a.saw("one", viewerRequest("1.2.3.4:1000", "x", ""), start)
	a.saw("one", viewerRequest("1.2.3.4:2000", "x", ""), start) // the same, on another connection
	a.saw("one", viewerRequest("1.2.3.4:2000", "y", ""), start)
	a.saw("two", viewerRequest("10.0.0.1:1", "x", "5.6.7.8, 10.0.0.2"), start)
	a.saw("two", viewerRequest("10.0.0.1:1", "x", "9.9.9.9, 10.0.0.2"), start.Add(10*time.Second))
	if got := a.sweep(start.Add(14 * time.Second)); got["one"] != 2 || got["two"] != 2 {
		t.Errorf("%v", got)
	}
	if got := a.sweep(start.Add(16 * time.Second)); got["two"] != 1 || len(got) != 2 || got["one"] != 0 {
		t.Errorf("%v: one that has no viewers any more is told once", got)
	}
	if got := a.sweep(start.Add(17 * time.Second)); got["two"] != 1 || len(got) != 1 {
		t.Errorf("%v", got)
	}
	if a.total != 1 {
		t.Errorf("%d are kept", a.total)
	}
}

func TestClientAddress(t *testing.T) {
	a := newAudience([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}, newMetrics(discard{}))
	tests := []struct{ peer, forwarded, want string }{
		{"1.2.3.4:5", "6.6.6.6", "1.2.3.4"}, // a stranger may claim what he likes
		{"10.1.1.1:5", "6.6.6.6", "6.6.6.6"},
		{"10.1.1.1:5", "7.7.7.7, 6.6.6.6, 10.2.2.2", "6.6.6.6"},
		{"10.1.1.1:5", "", "10.1.1.1"},
		{"[::1]:5", "2001:db8::1", "2001:db8::1"},
		{"[::ffff:10.1.1.1]:5", "6.6.6.6", "6.6.6.6"},
		{"10.1.1.1:5", "junk", "junk"},
	}
	for _, tt := range tests {
		if got := a.client(viewerRequest(tt.peer, "", tt.forwarded)); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

func TestAudienceIsBounded(t *testing.T) {
	a := newAudience(nil, newMetrics(discard{}))
	now := time.Now()
	r := viewerRequest("1.2.3.4:5", "", "")
	for i := range maxViewers + 100 {
		r.Header.Set("CMCD-Session", `sid="`+strconv.Itoa(i)+`"`)
		a.saw("one", r, now)
	}
	if got := a.sweep(now)["one"]; got != maxViewers {
		t.Errorf("%d viewers are kept, want %d", got, maxViewers)
	}
}

func TestSessionID(t *testing.T) {
	long := strings.Repeat("x", 65)
	tests := []struct{ query, header, want string }{
		{query: "CMCD=" + url.QueryEscape(`br=100,sid="6e2f,b5",v=1`), want: "6e2f,b5"},
		{query: "a=b&CMCD=" + url.QueryEscape(`bs,sid="a\"b"`), want: `a"b`},
		{header: `sid="h"`, query: "CMCD=" + url.QueryEscape(`sid="q"`), want: "h"},
		{header: `cid="c",sid="h"`, want: "h"},
		{query: "CMCD=" + url.QueryEscape(`sid=""`)},
		{query: "CMCD=" + url.QueryEscape(`sid="open`)},
		{query: "CMCD=" + url.QueryEscape(`sid="`+long+`"`)},
		{query: "CMCD=%zz"},
		{query: "CMCD="},
		{},
	}
	for _, tt := range tests {
		r := &http.Request{URL: &url.URL{RawQuery: tt.query}, Header: http.Header{}}
		if tt.header != "" {
			r.Header.Set("CMCD-Session", tt.header)
		}
		if got := sessionID(r); got != tt.want {
			t.Errorf("%q %q: %q, want %q", tt.query, tt.header, got, tt.want)
		}
	}
}

func FuzzCMCD(f *testing.F) {
	for _, seed := range []string{`br=100,sid="6e2f",v=1`, `bs,sid="a\"b"`, `sid=`, `=,=,"`, `sid="x`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if sid := cmcdSession(s); len(sid) > maxSessionID {
			t.Errorf("%d characters", len(sid))
		}
	})
}
