package harness

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/e2e/hls"
	"millrace/internal/testenv"
)

// Server is a running millrace.
type Server struct {
	*Program
	// Data is its data directory.
	Data string
	// Addresses; HTTP is a base URL.
	HTTP, RTMP, IRC, Ops, Private string
	// Key is that of the channel demo, if this start made it.
	Key string

	Role      string
	env, args []string
	// Binary is another build than the shared one; empty for that.
	Binary string
}

// StartAll starts `millrace all` on a new data directory.
func StartAll(t testing.TB, args ...string) *Server {
	t.Helper()
	return StartOn(t, t.TempDir(), args...)
}

// StartOn starts `millrace all` on a data directory and waits until it has said
// where to publish and watch.
func StartOn(t testing.TB, data string, args ...string) *Server {
	t.Helper()
	return StartBinary(t, "", data, args...)
}

// StartBinary is StartOn with another program than the shared one.
func StartBinary(t testing.TB, binary, data string, args ...string) *Server {
	t.Helper()
	// Tests that aren't about the grace period have no time for it.
	s := newServer(t, "all", data, nil, append([]string{"--grace", "2s"}, args...)...)
	s.Binary = binary
	s.Start(t)
	s.awaitBanner(t)
	return s
}

// Again starts `millrace all` another time, on the same data and addresses.
func (s *Server) Again(t testing.TB) *Server {
	t.Helper()
	n := *s
	n.Key = ""
	n.Start(t)
	n.awaitBanner(t)
	return &n
}

// awaitBanner waits for what is printed at the start, and reads the key there.
func (s *Server) awaitBanner(t testing.TB) {
	t.Helper()
	Eventually(t, 30*time.Second, func() error {
		if !s.Running() {
			t.Fatalf("millrace ended: %v\n%s", s.Err, s.Log.String())
		}
		if !strings.Contains(s.Out.String(), "Ctrl-C") {
			return fmt.Errorf("no banner: %q", s.Out.String())
		}
		return nil
	})
	if m := regexp.MustCompile(`Stream key\s+(live_\S+)`).FindStringSubmatch(s.Out.String()); m != nil {
		s.Key = m[1]
	}
}

// StartRole starts one role of millrace on free ports.
func StartRole(t testing.TB, role, data string, env []string, args ...string) *Server {
	t.Helper()
	s := newServer(t, role, data, env, args...)
	s.Start(t)
	return s
}

// newServer is a server that wasn't started.
func newServer(t testing.TB, role, data string, env []string, args ...string) *Server {
	t.Helper()
	s := &Server{
		Data: data, RTMP: testenv.FreeAddress(t), IRC: testenv.FreeAddress(t), Ops: testenv.FreeAddress(t), Private: testenv.FreeAddress(t),
		Role: role, env: env,
	}
	if role != "all" { // that makes one of its own
		s.env = append(env[:len(env):len(env)], "MILLRACE_PRIVATE_SECRET="+string(testenv.Secret))
	}
	web := testenv.FreeAddress(t)
	s.HTTP = "http://" + web
	s.args = append([]string{
		role, "--data", data, "--http", web, "--rtmp", s.RTMP, "--irc", s.IRC, "--ops", s.Ops, "--private", s.Private,
		"--drain", "0s", // args may say otherwise
	}, args...)
	return s
}

// Start starts the process: the first one, or another one after its end.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.Program = Run(t, "millrace-"+s.Role, cmp.Or(s.Binary, Binary()), s.env, s.args...)
	t.Cleanup(s.stop)
}

// stop is Ctrl-C and the end within a generous bound.
func (s *Server) stop() {
	if !s.Running() {
		return
	}
	s.Interrupt()
	select {
	case <-s.Ended:
	case <-time.After(20 * time.Second):
		s.T.Errorf("millrace doesn't end after Ctrl-C")
		s.Kill()
	}
}

// Channel makes a channel and returns its stream key.
func (s *Server) Channel(name string, args ...string) string {
	s.T.Helper()
	return CreateChannel(s.T, name, append([]string{"--data", s.Data}, args...)...)
}

// CreateChannel makes a channel, where the arguments say, and returns its stream key.
func CreateChannel(t testing.TB, name string, args ...string) string {
	t.Helper()
	return lastLine(t, append([]string{"channel", "create", name}, args...))
}

// CreateToken makes a token for chat and returns it.
func CreateToken(t testing.TB, user string, args ...string) string {
	t.Helper()
	return lastLine(t, append([]string{"token", "create", "--user", user}, args...))
}

// lastLine runs a command and returns the last line of what it prints.
func lastLine(t testing.TB, args []string) string {
	t.Helper()
	cmd := exec.Command(Binary(), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("millrace %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// Playlist is the address of a channel's multivariant playlist.
func (s *Server) Playlist(channel string) string { return s.HTTP + "/hls/" + channel + "/index.m3u8" }

// AwaitLive waits until a channel plays a broadcast other than the one before,
// if one is named, and has a complete segment of it. It returns the broadcast.
func (s *Server) AwaitLive(channel, before string) string {
	s.T.Helper()
	var now struct{ Broadcast, State string }
	Eventually(s.T, 30*time.Second, func() error {
		a, err := hls.Fetch(s.T.Context(), hls.Client, s.HTTP+"/api/v1/channels/"+channel)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(a.Body, &now); err != nil || now.State != "live" || now.Broadcast == before {
			return fmt.Errorf("the channel isn't live: %d %s", a.Status, a.Body)
		}
		a, err = hls.Fetch(s.T.Context(), hls.Client, s.Playlist(channel))
		if err != nil || !strings.Contains(string(a.Body), now.Broadcast) {
			return fmt.Errorf("the playlist isn't that of %s: %v %d %s", now.Broadcast, err, a.Status, a.Body)
		}
		return nil
	})
	WaitSegments(s.T, s.Playlist(channel), 1)
	return now.Broadcast
}

// Metric sums up a metric over its labels, or over those with a label that
// contains the text. A metric that isn't there is 0.
func (s *Server) Metric(name, label string) float64 {
	s.T.Helper()
	text := string(hls.Get(s.T, "http://"+s.Ops+"/metrics").Body)
	sum := 0.0
	for line := range strings.Lines(text) {
		var value float64
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' || !strings.Contains(rest, label) {
			continue
		}
		if _, err := fmt.Sscan(rest[strings.LastIndexByte(strings.TrimSpace(rest), ' ')+1:], &value); err == nil {
			sum += value
		}
	}
	return sum
}

// WaitSegments waits until every rendition lists so many complete segments.
func WaitSegments(t testing.TB, address string, n int) {
	t.Helper()
	Eventually(t, 40*time.Second, func() error {
		a, err := hls.Fetch(t.Context(), hls.Client, address)
		if err != nil {
			return err
		}
		if a.Status != http.StatusOK {
			return fmt.Errorf("GET %s: %d %s", address, a.Status, a.Body)
		}
		m, err := hls.ParseMultivariant(string(a.Body))
		if err != nil {
			t.Fatal(err)
		}
		for _, uri := range m.Renditions() {
			media, err := hls.ParseMedia(string(hls.Get(t, strings.TrimSuffix(address, "index.m3u8")+uri).Body))
			if err != nil {
				t.Fatal(err)
			}
			if len(media.Segments) == 0 || media.Segments[len(media.Segments)-1].Sequence < uint64(n) {
				return fmt.Errorf("%s has %d segments, want %d", uri, len(media.Segments), n)
			}
		}
		return nil
	})
}

// In returns the server for a subtest.
func (s *Server) In(t testing.TB) *Server {
	p := *s
	p.Program = &Program{T: t, Name: s.Name, Cmd: s.Cmd, Ended: s.Ended}
	return &p
}

func channelState(t testing.TB, api *Server, channel string) (state, broadcast string) {
	t.Helper()
	var now struct{ State, Broadcast string }
	if err := json.Unmarshal(hls.Get(t, api.HTTP+"/api/v1/channels/"+channel).Body, &now); err != nil {
		t.Fatal(err)
	}
	return now.State, now.Broadcast
}

// AwaitState waits until api says that of a channel's broadcast.
func AwaitState(t testing.TB, api *Server, channel, state, broadcast string) {
	t.Helper()
	Eventually(t, 15*time.Second, func() error {
		if s, b := channelState(t, api, channel); s != state || b != broadcast {
			return fmt.Errorf("the channel is %s with broadcast %q, want %s with %q", s, b, state, broadcast)
		}
		return nil
	})
}

// AwaitReady waits until a service says that it is ready.
func AwaitReady(t testing.TB, s *Server) {
	t.Helper()
	Eventually(t, 30*time.Second, func() error {
		if !s.Running() {
			t.Fatalf("%s ended: %v\n%s", s.Name, s.Err, LastLines(s.Log.String(), 20))
		}
		a, err := hls.Fetch(t.Context(), hls.Client, "http://"+s.Ops+"/readyz")
		if err == nil && a.Status != 200 {
			err = fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return err
	})
}

// SideBySide runs subtests at once, all of them: unlike those that call t.Parallel,
// none waits for its turn while a broadcast beside it goes on.
func (s *Server) SideBySide(t *testing.T, tests map[string]func(*testing.T, *Server)) {
	var group sync.WaitGroup
	for name, test := range tests {
		group.Go(func() { t.Run(name, func(t *testing.T) { test(t, s.In(t)) }) })
	}
	group.Wait()
}
