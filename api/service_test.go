package api

import (
	"context"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"millrace/api/store"
	"millrace/internal/credentials"
	"millrace/internal/lease"
	"millrace/internal/testenv"
	"millrace/internal/viewers"
)

func TestMain(m *testing.M) { testenv.Main(m) }

var frontEnd = fstest.MapFS{
	"index.html":        {Data: []byte("<!doctype html><title>Millrace</title>")},
	"favicon.svg":       {Data: []byte("<svg/>")},
	".gitkeep":          {},
	"assets/main-a1.js": {Data: []byte(strings.Repeat("let x = 1\n", 200))},
	"assets/f-b2.woff2": {Data: []byte("font")},
}

// fixture is an api with real databases behind it.
type fixture struct {
	*Service
	t      *testing.T
	server *testenv.RedisServer
	db     redis.UniversalClient
}

func newFixture(t *testing.T, web fs.FS, channels ...string) *fixture {
	t.Helper()
	st, err := store.Open(t.Context(), store.SQLiteURL(filepath.Join(t.TempDir(), "millrace.db")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	for _, name := range channels {
		if err := st.CreateChannel(t.Context(), name, keyOf(name)); err != nil {
			t.Fatal(err)
		}
	}
	f := &fixture{t: t, server: testenv.StartRedis(t)}
	f.db = f.server.Client()
	f.Service, err = New(Config{Redis: f.server.Client(), Store: st, Web: web, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// keyOf is the stream key of a channel made by newFixture.
func keyOf(channel string) credentials.StreamKey { return credentials.StreamKey("live_" + channel) }

func (f *fixture) do(method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	f.Handler().ServeHTTP(w, r)
	return w
}

// get decodes an answer of the API.
func get[T any](f *fixture, path string, status int) T {
	f.t.Helper()
	w := f.do(http.MethodGet, path)
	var v T
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != status {
		f.t.Fatalf("GET %s = %d %s; want %d and JSON", path, w.Code, w.Body, status)
	}
	if ct := w.Header().Get("Content-Type"); ct != "application/json" {
		f.t.Errorf("GET %s: Content-Type %q", path, ct)
	}
	if cc := w.Header().Get("Cache-Control"); cc != "no-store" {
		f.t.Errorf("GET %s: Cache-Control %q", path, cc)
	}
	return v
}

// broadcast puts a channel on air as ingest does.
func (f *fixture) broadcast(channel string, state lease.State, watching int) lease.Record {
	f.t.Helper()
	r, _, err := lease.Acquire(f.t.Context(), f.db, channel, "b-"+channel, "http://ingest", time.Second, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	r.State, r.Width, r.Height, r.FrameRate = state, 1280, 720, 29.97
	if err := lease.Renew(f.t.Context(), f.db, channel, r); err != nil {
		f.t.Fatal(err)
	}
	if err := viewers.Report(f.t.Context(), f.db, "edge1", map[string]int{channel: watching}); err != nil {
		f.t.Fatal(err)
	}
	return r
}

type listBody struct{ Channels []Channel }

func TestChannelStates(t *testing.T) {
	f := newFixture(t, frontEnd, "alice", "bob", "carol", "dave", "erin")
	alice := f.broadcast("alice", lease.Live, 3)
	f.broadcast("bob", lease.Reconnecting, 7)
	f.broadcast("carol", lease.Ended, 1)
	f.broadcast("dave", lease.Live, 1)
	old := strconv.FormatInt(time.Now().Add(-leaseDead-graceSlack-time.Second).UnixMilli(), 10)
	if err := f.db.HSet(t.Context(), "millrace:channel:{dave}", "seen", old).Err(); err != nil {
		t.Fatal(err)
	}

	got := f.do(http.MethodGet, "/api/v1/channels/alice").Body.String()
	want := `{"name":"alice","live":true,"state":"live","broadcast":"b-alice","started_at":"` +
		alice.Started.Format(time.RFC3339Nano) + `","viewers":3,` +
		`"video":{"width":1280,"height":720,"frame_rate":29.97},"thumbnail":"/hls/alice/b-alice/thumbnail.jpg"}` + "\n"
	if got != want {
		t.Errorf("live channel:\n%s\nwant\n%s", got, want)
	}
	if bob := get[Channel](f, "/api/v1/channels/bob", 200); !bob.Live || bob.State != "reconnecting" {
		t.Errorf("reconnecting channel: %+v", bob)
	}
	for _, name := range []string{"carol", "dave", "erin"} {
		got := f.do(http.MethodGet, "/api/v1/channels/"+name).Body.String()
		want := `{"name":"` + name + `","live":false,"state":"offline","broadcast":null,"started_at":null,"viewers":0,"video":null,"thumbnail":null}` + "\n"
		if got != want {
			t.Errorf("offline channel:\n%s\nwant\n%s", got, want)
		}
	}
	if got := names(get[listBody](f, "/api/v1/channels?live=true", 200)); !slices.Equal(got, []string{"bob", "alice"}) {
		t.Errorf("live channels = %v, want those with most viewers first", got)
	}
	all := newChannels(f.db, f.store, true)
	if list, err := all.list(t.Context(), false); err != nil || !slices.Equal(names(listBody{list}), []string{"alice", "bob", "carol", "dave", "erin"}) {
		t.Errorf("all channels = %v, %v; want them by name", names(listBody{list}), err)
	}
	if list, err := all.list(t.Context(), true); err != nil || !slices.Equal(names(listBody{list}), []string{"bob", "alice"}) {
		t.Errorf("live channels = %v, %v", names(listBody{list}), err)
	}
}

func TestStateOf(t *testing.T) {
	const grace = time.Minute
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	for name, c := range map[string]struct {
		record  lease.Record
		ageless bool
		want    string
	}{
		"sends":                             {lease.Record{State: lease.Live, Age: time.Second}, false, stateLive},
		"publisher gone":                    {lease.Record{State: lease.Reconnecting, Lost: ago(time.Second)}, false, stateReconnecting},
		"publisher gone, ingest dead":       {lease.Record{State: lease.Reconnecting, Lost: ago(40 * time.Second), Age: 30 * time.Second}, false, stateReconnecting},
		"publisher gone for long":           {lease.Record{State: lease.Reconnecting, Lost: ago(70 * time.Second), Age: 30 * time.Second}, false, stateOffline},
		"ingest dead":                       {lease.Record{State: lease.Live, Age: 4 * time.Second}, false, stateReconnecting},
		"ingest dead for long":              {lease.Record{State: lease.Live, Age: grace + graceSlack + time.Second}, false, stateOffline},
		"the holder ends it":                {lease.Record{State: lease.Reconnecting, Lost: ago(70 * time.Second)}, false, stateReconnecting},
		"Redis was away":                    {lease.Record{State: lease.Live, Age: 2 * time.Minute}, true, stateLive},
		"Redis was away, publisher gone":    {lease.Record{State: lease.Reconnecting, Age: 2 * time.Minute}, true, stateReconnecting},
		"Redis was away, broadcast is over": {lease.Record{State: lease.Ended, Age: 2 * time.Minute}, true, stateOffline},
	} {
		c.record.Grace = grace
		c.record.Seen = time.Now().Add(-c.record.Age)
		if got := stateOf(c.record, c.ageless); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func names(b listBody) []string {
	var list []string
	for _, c := range b.Channels {
		list = append(list, c.Name)
	}
	return list
}

func TestAudioOnlyHasNoPicture(t *testing.T) {
	f := newFixture(t, frontEnd, "radio")
	r, _, err := lease.Acquire(t.Context(), f.db, "radio", "b1", "http://ingest", time.Second, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.State = lease.Live
	if err := lease.Renew(t.Context(), f.db, "radio", r); err != nil {
		t.Fatal(err)
	}
	if c := get[Channel](f, "/api/v1/channels/radio", 200); !c.Live || c.Video != nil || c.Thumbnail != nil {
		t.Errorf("audio-only channel: %+v", c)
	}
}

func TestNobodyLiveIsAnEmptyList(t *testing.T) {
	f := newFixture(t, frontEnd)
	if got, want := f.do(http.MethodGet, "/api/v1/channels?live=true").Body.String(), `{"channels":[]}`+"\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestErrorsAreCodeAndMessage(t *testing.T) {
	f := newFixture(t, frontEnd, "alice")
	for _, c := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/api/v1/channels/nobody", 404, "channel_not_found"},
		{"GET", "/api/v1/channels/Not%20A%20Name", 404, "channel_not_found"},
		{"GET", "/api/v1/channels/" + strings.Repeat("a", 5000), 422, "invalid_request"},
		{"GET", "/api/v1/channels?live=perhaps", 422, "invalid_request"},
		{"GET", "/api/v1/nothing", 404, "not_found"},
		{"GET", "/api/", 404, "not_found"},
		{"POST", "/api/v1/channels", 405, "method_not_allowed"},
		{"DELETE", "/api/v1/channels/alice", 405, "method_not_allowed"},
		{"POST", "/", 405, "method_not_allowed"},
	} {
		w := f.do(c.method, c.path)
		var e Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != c.status || e.Code != c.code || e.Message == "" {
			t.Errorf("%s %.40s = %d %s; want %d %s with a message", c.method, c.path, w.Code, w.Body, c.status, c.code)
		}
		if ct := w.Header().Get("Content-Type"); ct != "application/json" {
			t.Errorf("%s %.40s: Content-Type %q", c.method, c.path, ct)
		}
	}
}

func TestRedisAway(t *testing.T) {
	f := newFixture(t, frontEnd, "alice")
	f.server.Stop()
	if e := get[Error](f, "/api/v1/channels/alice", 503); e.Code != "unavailable" {
		t.Errorf("error = %+v", e)
	}
	if e := get[Error](f, "/api/v1/channels?live=true", 503); e.Code != "unavailable" {
		t.Errorf("error = %+v", e)
	}
	if w := f.do(http.MethodGet, "/alice"); w.Code != 200 {
		t.Errorf("the page answers %d while Redis is away", w.Code)
	}
	f.server.Start()
	eventually(t, "the API answers again", func() bool {
		return f.do(http.MethodGet, "/api/v1/channels/alice").Code == 200
	})
}

// eventually waits for something that another process or goroutine does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within 10 s: %s", what)
		case <-tick.C:
		}
	}
}

func TestFloodCostsRedisLittle(t *testing.T) {
	f := newFixture(t, frontEnd, "alice")
	f.broadcast("alice", lease.Live, 1)
	before := commands(t, f.db)
	start := time.Now()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 100 {
				f.do(http.MethodGet, "/api/v1/channels/alice")
				f.do(http.MethodGet, "/api/v1/channels?live=true")
				f.do(http.MethodGet, "/alice")
			}
		})
	}
	wg.Wait()
	// A look takes up to 4 commands (the script is loaded, a connection is
	// made), and there are two kinds of look in each second.
	limit := 20 * (int(time.Since(start)/cacheFor) + 1)
	if n := commands(t, f.db) - before; n > limit {
		t.Errorf("6000 requests cost Redis %d commands, want at most %d", n, limit)
	}
}

func commands(t *testing.T, db redis.UniversalClient) int {
	t.Helper()
	info, err := db.Info(t.Context(), "stats").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(info, "total_commands_processed:")
	text, _, _ := strings.Cut(rest, "\r\n")
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSpecification(t *testing.T) {
	f := newFixture(t, frontEnd)
	w := f.do(http.MethodGet, "/api/v1/openapi.json")
	var spec struct {
		OpenAPI    string
		Paths      map[string]any
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &spec); err != nil {
		t.Fatal(err)
	}
	if spec.OpenAPI == "" || spec.Paths["/api/v1/channels"] == nil || spec.Paths["/api/v1/channels/{name}"] == nil {
		t.Errorf("the specification lacks routes: %s", w.Body)
	}
	if spec.Components.Schemas["Error"] == nil || spec.Components.Schemas["ErrorModel"] != nil {
		t.Errorf("the specification has other errors than are sent: %s", w.Body)
	}
}

func TestKeysReachRedis(t *testing.T) {
	f := newFixture(t, frontEnd, "alice", "bob")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	known := func(channel string, key credentials.StreamKey) func() bool {
		return func() bool {
			got, err := credentials.Lookup(t.Context(), f.db, key)
			return err == nil && got.Name == channel
		}
	}
	eventually(t, "alice's key is in Redis", known("alice", keyOf("alice")))

	f.server.Stop()
	f.server.Start() // comes back empty
	eventually(t, "bob's key is in Redis again", known("bob", keyOf("bob")))

	// A reset, as `millrace channel reset-key` does it.
	if err := f.store.ResetKey(t.Context(), "bob", "live_new"); err != nil {
		t.Fatal(err)
	}
	if err := PublishKeys(t.Context(), f.store, f.db); err != nil {
		t.Fatal(err)
	}
	if !known("bob", "live_new")() || known("bob", keyOf("bob"))() {
		t.Error("after a reset the new key must work and the earlier one must not")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
}

func TestPages(t *testing.T) {
	f := newFixture(t, frontEnd, "alice")
	for _, c := range []struct {
		path         string
		status       int
		body         string
		cacheControl string
	}{
		{"/", 200, "<title>Millrace", "no-cache"},
		{"/index.html", 404, "<title>Millrace", "no-cache"},
		{"/alice", 200, "<title>Millrace", "no-cache"},
		{"/alice/", 200, "<title>Millrace", "no-cache"},
		{"/nobody", 404, "<title>Millrace", "no-cache"},
		{"/hls", 404, "<title>Millrace", "no-cache"},
		{"/alice/videos", 404, "<title>Millrace", "no-cache"},
		{"/A%2f..%2fB", 404, "<title>Millrace", "no-cache"},
		{"/favicon.svg", 200, "<svg/>", "public, max-age=3600"},
		{"/assets/main-a1.js", 200, "let x", immutable},
		{"/assets/f-b2.woff2", 200, "font", immutable},
		{"/assets/gone.js", 404, "no such file", "no-store"},
		{"/.gitkeep", 404, "<title>Millrace", "no-cache"},
	} {
		w := f.do(http.MethodGet, c.path)
		h := w.Header()
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) || h.Get("Cache-Control") != c.cacheControl {
			t.Errorf("GET %s = %d %q %.60s; want %d %q %s", c.path, w.Code, h.Get("Cache-Control"), w.Body, c.status, c.cacheControl, c.body)
		}
		if !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'self'") ||
			h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") == "" {
			t.Errorf("GET %s lacks security headers: %v", c.path, h)
		}
	}
}

// A channel's name may be written with capital letters: the address with the name
// itself is shown, for good.
func TestCapitalLettersRedirect(t *testing.T) {
	f := newFixture(t, frontEnd, "s21")
	for path, want := range map[string]string{ // "": answered as it is
		"/S21":                            "/s21",
		"/S21/?a=B&c":                     "/s21?a=B&c",
		"/Nobody":                         "/nobody",
		"/api/v1/channels/S21":            "/api/v1/channels/s21",
		"/api/v1/channels/S21/health?Q=1": "/api/v1/channels/s21/health?Q=1",
		"/api/v1/channels/S21/":           "",
		"/API":                            "",
		"/S21/videos":                     "",
		"/s21":                            "",
		"/S21%0d%0aX-Header:":             "",
		"/A%2f..%2fB":                     "",
		"/api/v1/channels/S21/nothing":    "",
		"/api/v1/channels/Not%20A%20Name": "",
		"/api/v1/Channels":                "",
	} {
		w := f.do(http.MethodGet, path)
		if got := w.Header().Get("Location"); got != want || (w.Code == http.StatusMovedPermanently) != (want != "") {
			t.Errorf("GET %s = %d to %q, want %q", path, w.Code, got, want)
		}
	}
	if w := f.do(http.MethodPost, "/api/v1/channels/S21"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST = %d", w.Code)
	}
}

func TestPagesCompressAndRevalidate(t *testing.T) {
	f := newFixture(t, frontEnd)
	plain := f.do(http.MethodGet, "/assets/main-a1.js")
	zipped := f.do(http.MethodGet, "/assets/main-a1.js", "Accept-Encoding", "br, gzip")
	if zipped.Header().Get("Content-Encoding") != "gzip" || zipped.Body.Len() >= plain.Body.Len() {
		t.Errorf("%d bytes, %q; want fewer than %d, gzip", zipped.Body.Len(), zipped.Header().Get("Content-Encoding"), plain.Body.Len())
	}
	if w := f.do(http.MethodGet, "/assets/main-a1.js", "Accept-Encoding", "gzip;q=0"); w.Header().Get("Content-Encoding") != "" {
		t.Error("gzip was sent to a client that refuses it")
	}
	page := f.do(http.MethodGet, "/")
	if w := f.do(http.MethodGet, "/", "If-None-Match", page.Header().Get("ETag")); w.Code != 304 || w.Body.Len() > 0 {
		t.Errorf("revalidation = %d with %d bytes, want 304 with none", w.Code, w.Body.Len())
	}
	if w := f.do(http.MethodHead, "/"); w.Code != 200 || w.Body.Len() > 0 || w.Header().Get("Content-Length") != strconv.Itoa(page.Body.Len()) {
		t.Errorf("HEAD = %d with %d bytes, Content-Length %s", w.Code, w.Body.Len(), w.Header().Get("Content-Length"))
	}
}

func TestPageOfABinaryWithoutFrontEnd(t *testing.T) {
	f := newFixture(t, fstest.MapFS{".gitkeep": {}})
	if w := f.do(http.MethodGet, "/"); w.Code != 200 || !strings.Contains(w.Body.String(), "make build") {
		t.Errorf("GET / = %d %s; want advice to run make build", w.Code, w.Body)
	}
}

func TestConfigNamesWhatIsMissing(t *testing.T) {
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "Config.Redis") {
		t.Errorf("New = %v", err)
	}
}

// A streamer reads what is wrong with the own stream, with its key; nobody else does.
func TestHealth(t *testing.T) {
	f := newFixture(t, frontEnd, "alice", "bob")
	if err := PublishKeys(t.Context(), f.store, f.db); err != nil {
		t.Fatal(err)
	}
	r := f.broadcast("alice", lease.Live, 0)
	r.Health = `[{"code":"keyframe_interval","text":"set it to 2 s"}]`
	if err := lease.Renew(t.Context(), f.db, "alice", r); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		channel, authorization string
		status                 int
		want                   string
	}{
		{"alice", "Bearer live_alice", 200, `{"state":"live","problems":[{"code":"keyframe_interval","text":"set it to 2 s"}]}`},
		{"bob", "Bearer live_bob", 200, `{"state":"offline","problems":[]}`},
		{"alice", "Bearer live_bob", 401, `"wrong_key"`},
		{"alice", "live_alice", 401, `"wrong_key"`},
		{"alice", "", 401, `"wrong_key"`},
		{"nobody", "Bearer live_alice", 401, `"wrong_key"`},
	} {
		w := f.do(http.MethodGet, "/api/v1/channels/"+c.channel+"/health", "Authorization", c.authorization)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s with %q: %d %s; want %d and %s", c.channel, c.authorization, w.Code, w.Body, c.status, c.want)
		}
	}
}
