package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"millrace/e2e/harness"
	"millrace/internal/testenv"
)

// chatFleet is two processes of chat with the pages' one, and a proxy in front of each.
type chatFleet struct {
	t       *testing.T
	redis   string
	api     *harness.Server
	chats   [2]*harness.Server
	proxies [2]string // prefers that process, and takes the other one where it is gone
}

func startChat(t *testing.T) *chatFleet {
	t.Helper()
	f := &chatFleet{t: t, redis: testenv.StartRedis(t).URL()}
	f.api = harness.StartRole(t, "api", t.TempDir(), nil, "--redis", f.redis)
	for i := range f.chats {
		f.chats[i] = harness.StartRole(t, "chat", t.TempDir(), nil, "--redis", f.redis)
	}
	for _, s := range []*harness.Server{f.api, f.chats[0], f.chats[1]} {
		harness.AwaitReady(t, s)
	}
	harness.CreateChannel(t, "demo", "--data", f.api.Data, "--redis", f.redis)
	for i := range f.proxies {
		f.proxies[i] = f.proxy(i)
	}
	return f
}

// proxy is what an operator has in front: chat to one of its processes, all else to api.
func (f *chatFleet) proxy(prefers int) string {
	to := func(address string) *httputil.ReverseProxy {
		u, err := url.Parse(address)
		if err != nil {
			f.t.Fatal(err)
		}
		return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Host = r.In.Host
		}}
	}
	pages := to(f.api.HTTP)
	chats := [2]*httputil.ReverseProxy{to(f.chats[prefers].HTTP), to(f.chats[1-prefers].HTTP)}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/chat/") {
			pages.ServeHTTP(w, r)
			return
		}
		address := strings.TrimPrefix(f.chats[prefers].HTTP, "http://")
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			chats[1].ServeHTTP(w, r)
			return
		}
		_ = conn.Close()
		chats[0].ServeHTTP(w, r)
	}))
	f.t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

// token makes a token for somebody.
func (f *chatFleet) token(login string) string {
	f.t.Helper()
	return harness.CreateToken(f.t, login, "--data", f.api.Data, "--redis", f.redis)
}

// tmiBot is a bot made with tmi.js.
type tmiBot struct {
	t  *testing.T
	in io.Writer

	mu    sync.Mutex
	heard []map[string]any
}

func (f *chatFleet) bot(s *harness.Server, name, token string) *tmiBot {
	f.t.Helper()
	host, port, _ := net.SplitHostPort(strings.TrimPrefix(s.HTTP, "http://"))
	cmd := exec.CommandContext(f.t.Context(), testenv.Program(f.t, "node"), "bots/tmi.js", host, port, "demo", name, token)
	in, err := cmd.StdinPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	cmd.Stderr = f.t.Output()
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	b := &tmiBot{t: f.t, in: in}
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			m := map[string]any{}
			if json.Unmarshal(lines.Bytes(), &m) != nil {
				continue // tmi.js's own log
			}
			b.mu.Lock()
			b.heard = append(b.heard, m)
			b.mu.Unlock()
		}
	})
	f.t.Cleanup(func() {
		_ = in.Close()
		reading.Wait()
		_ = cmd.Wait()
	})
	return b
}

func (b *tmiBot) say(text string) {
	b.t.Helper()
	if _, err := io.WriteString(b.in, text+"\n"); err != nil {
		b.t.Fatal(err)
	}
}

// await waits until the bot has heard of something.
func (b *tmiBot) await(kind, field string, value any) {
	b.t.Helper()
	harness.Eventually(b.t, 30*time.Second, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, m := range b.heard {
			if m["kind"] == kind && (field == "" || m[field] == value) {
				return nil
			}
		}
		return fmt.Errorf("no %s with %s %v in %v", kind, field, value, b.heard)
	})
}

// said is what the bot heard others say.
func (b *tmiBot) said() (list []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.heard {
		if m["kind"] == "message" && m["self"] == false {
			list = append(list, fmt.Sprint(m["user"], ": ", m["text"]))
		}
	}
	return list
}

// chatPage opens a channel's chat in a window of its own.
func chatPage(t *testing.T, at, token string) *harness.Browser {
	t.Helper()
	b := harness.OpenBrowser(t)
	b.Open(at + "/demo/chat")
	if token != "" {
		b.Do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("localStorage.setItem('millrace.chat.token', %q)", token)))
		b.Open(at + "/demo/chat")
		harness.Eventually(t, 30*time.Second, func() error {
			if !harness.Eval[bool](b, "document.querySelector('#chat-box') !== null") {
				return fmt.Errorf("there is nothing to write in: %s", b.Text())
			}
			return nil
		})
	}
	return b
}

// pageSaid is what a page shows of what was said.
func pageSaid(b *harness.Browser) []string {
	return harness.Eval[[]string](b, `[...document.querySelectorAll('.line.message:not(.deleted)')].map(l =>
		l.querySelector('.name').innerText + ': ' + l.querySelector('.text').innerText)`)
}

// pageSays writes a text, sends it, and waits until it was taken.
func pageSays(b *harness.Browser, text string) {
	b.T.Helper()
	b.Do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`{
		const box = document.querySelector('#chat-box')
		box.value = %q
		box.dispatchEvent(new Event('input'))
	}`, text)))
	pressed := false
	harness.Eventually(b.T, 30*time.Second, func() error {
		switch {
		case !pressed:
			pressed = harness.Eval[bool](b, `{
				const button = document.querySelector('.write .send')
				const ready = !button.disabled
				if (ready) button.click()
				ready
			}`)
			fallthrough
		case harness.Eval[string](b, "document.querySelector('#chat-box').value") != "":
			return fmt.Errorf("%q isn't sent (pressed: %v): %s", text, pressed, b.Text())
		}
		return nil
	})
}

// TestChat: two browsers, tmi.js and a client of IRC talk in one room across two processes, a moderator
// acts, one process is killed, and all of them have the same record.
func TestChat(t *testing.T) {
	t.Parallel()
	f := startChat(t)
	anna, owner := chatPage(t, f.proxies[0], f.token("anna")), chatPage(t, f.proxies[1], f.token("demo"))
	bot := f.bot(f.chats[1], "robot", f.token("robot"))
	bot.await("joined", "user", "robot")

	pageSays(anna, "hello from anna")
	bot.await("message", "text", "hello from anna")
	bot.say("hello from the bot")
	pageSays(owner, "hello from the owner")
	want := []string{"anna: hello from anna", "robot: hello from the bot", "demo: hello from the owner"}
	sameRecord(t, want, anna, owner)

	pageSays(owner, "/slow 5")
	bot.await("roomstate", "slow", "5")
	pageSays(owner, "/slowoff")
	pageSays(owner, "/timeout robot 600 too loud")
	bot.await("timeout", "user", "robot")
	bot.say("am I heard?")
	bot.await("notice", "id", "msg_timedout")
	pageSays(owner, "/unban robot")

	f.chats[0].Kill() // anna's
	pageSays(owner, "is everybody here?")
	bot.await("message", "text", "is everybody here?")
	harness.Eventually(t, 30*time.Second, func() error {
		if text := anna.Text(); !strings.Contains(text, "is everybody here?") {
			return fmt.Errorf("anna's page shows %s", text)
		}
		return nil
	})
	pageSays(anna, "yes")
	bot.await("message", "text", "yes")
	want = []string{"anna: hello from anna", "demo: hello from the owner", "demo: is everybody here?", "anna: yes"} // the bot's were taken away
	sameRecord(t, want, anna, owner)
	if got := bot.said(); !slices.Equal(got, want) {
		t.Errorf("the bot heard %q, want %q", got, want)
	}
}

// sameRecord waits until pages show the same messages, in whatever order these were sent.
func sameRecord(t *testing.T, want []string, pages ...*harness.Browser) {
	t.Helper()
	harness.Eventually(t, 30*time.Second, func() error {
		first := pageSaid(pages[0])
		if got := slices.Sorted(slices.Values(first)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			return fmt.Errorf("a page shows %q, want %q", first, want)
		}
		for _, b := range pages[1:] {
			if other := pageSaid(b); !slices.Equal(other, first) {
				return fmt.Errorf("one page shows %q, another %q", first, other)
			}
		}
		return nil
	})
}
