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
	st := audienceOf(t, netip.MustParsePrefix("10.0.0.0/8"))
	a := st.audience
	start := time.Now()
	a.took("one", st.viewer(viewerRequest("1.2.3.4:1000", "x", "")), start)
	a.took("one", st.viewer(viewerRequest("1.2.3.4:2000", "x", "")), start) // the same, on another connection
	a.took("one", st.viewer(viewerRequest("1.2.3.4:2000", "y", "")), start)
	a.took("two", st.viewer(viewerRequest("10.0.0.1:1", "x", "5.6.7.8, 10.0.0.2")), start)
	a.took("two", st.viewer(viewerRequest("10.0.0.1:1", "x", "9.9.9.9, 10.0.0.2")), start.Add(10*time.Second))
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
	c := newCallers([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}, newMetrics(discard{}))
	tests := []struct {
		peer, forwarded, want string
		proxy                 bool
	}{
		{peer: "1.2.3.4:5", forwarded: "6.6.6.6", want: "1.2.3.4"}, // a stranger may claim what he likes
		{peer: "10.1.1.1:5", forwarded: "6.6.6.6", want: "6.6.6.6"},
		{peer: "10.1.1.1:5", forwarded: "6.6.6.6:7", want: "6.6.6.6"},
		{peer: "10.1.1.1:5", forwarded: "7.7.7.7, 6.6.6.6, 10.2.2.2", want: "6.6.6.6"},
		{peer: "10.1.1.1:5", want: "10.1.1.1", proxy: true},
		{peer: "[::1]:5", forwarded: "2001:db8::1", want: "2001:db8::1"},
		{peer: "[::1]:5", forwarded: "[2001:db8::1]:7", want: "2001:db8::1"},
		{peer: "[::ffff:10.1.1.1]:5", forwarded: "6.6.6.6", want: "6.6.6.6"},
		{peer: "10.1.1.1:5", forwarded: "6.6.6.6, junk", want: "10.1.1.1", proxy: true},
	}
	for _, tt := range tests {
		if got, ok := c.origin(viewerRequest(tt.peer, "", tt.forwarded)); got.String() != tt.want || ok == tt.proxy {
			t.Errorf("%+v: %s, %t", tt, got, ok)
		}
	}
}

// audienceOf returns a service of which only the audience works.
func audienceOf(t *testing.T, trusted ...netip.Prefix) *Service {
	t.Helper()
	m := newMetrics(discard{})
	return &Service{audience: newAudience(m), callers: newCallers(trusted, m), metrics: m}
}

func TestAudienceIsBounded(t *testing.T) {
	a := newAudience(newMetrics(discard{}))
	now := time.Now()
	for i := range uint64(maxViewers + 100) {
		a.took("one", viewer{who: i, from: i/100 + 1}, now)
	}
	if got := a.sweep(now)["one"]; got != maxViewers {
		t.Errorf("%d viewers are kept, want %d", got, maxViewers)
	}
}

// However many one address claims to be, on however many channels, it counts as no more
// than a lecture hall; others count beside it, and when its viewers are gone it counts anew.
func TestViewersOfOneAddressAreBounded(t *testing.T) {
	st := audienceOf(t)
	now := time.Now()
	for _, channel := range []string{"one", "two"} {
		for i := range 2 * maxViewersEach {
			r := viewerRequest("[2001:db8::"+strconv.Itoa(i)+"]:5", strconv.Itoa(i), "") // all of one /64
			if i%2 == 0 {
				r.Header.Set("CMCD-Session", `sid="`+channel+strconv.Itoa(i)+`"`)
			}
			st.audience.took(channel, st.viewer(r), now)
		}
	}
	st.audience.took("one", st.viewer(viewerRequest("[2001:db8:0:1::1]:5", "", "")), now)
	got := st.audience.sweep(now)
	if got["one"] != maxViewersEach+1 || got["two"] != 0 {
		t.Errorf("%v, want %d viewers of the one address and one of another", got, maxViewersEach)
	}
	now = now.Add(seenFor)
	st.audience.sweep(now)
	st.audience.took("two", st.viewer(viewerRequest("[2001:db8::1]:5", "", "")), now)
	if got := st.audience.sweep(now); got["two"] != 1 || len(st.audience.from) != 1 {
		t.Errorf("%v after all were gone; %d addresses are known", got, len(st.audience.from))
	}
}

// Who asks for playlists alone is no viewer; one who took media stays one while he asks
// for news, but not for ever.
func TestOnlyWhoTookMediaCounts(t *testing.T) {
	st := audienceOf(t)
	now := time.Now()
	v := st.viewer(viewerRequest("1.2.3.4:5", "", ""))
	st.audience.stays("one", v, now)
	if got := st.audience.sweep(now)["one"]; got != 0 {
		t.Errorf("%d viewers, and none took media", got)
	}
	st.audience.took("one", v, now)
	for after := seenFor / 2; after < tookFor; after += seenFor / 2 {
		st.audience.stays("one", v, now.Add(after))
		if got := st.audience.sweep(now.Add(after))["one"]; got != 1 {
			t.Fatalf("%d viewers %s after the media, want 1", got, after)
		}
	}
	st.audience.stays("one", v, now.Add(tookFor))
	st.audience.stays("one", v, now.Add(tookFor+seenFor))
	if got := st.audience.sweep(now.Add(tookFor + seenFor))["one"]; got != 0 {
		t.Errorf("%d viewers long after the last media", got)
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
