package chat

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"millrace/internal/credentials"
	"millrace/internal/session"
	"millrace/internal/testenv"
)

// process is one process of chat.
type process struct {
	t    *testing.T
	http string // host and port
	irc  string
	stop func()
}

func start(t *testing.T, db redis.UniversalClient, name string) *process {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{
		Redis: db, Process: name, IRC: l, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Drain: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(s.Handler())
	stop := sync.OnceFunc(func() {
		cancel()
		running.Wait()
		server.Close()
	})
	t.Cleanup(stop)
	return &process{t, strings.TrimPrefix(server.URL, "http://"), l.Addr().String(), stop}
}

// people makes the channel demo and a token for each name.
func people(t *testing.T, db redis.UniversalClient, names ...string) map[string]session.Token {
	t.Helper()
	if err := credentials.Replace(t.Context(), db, credentials.Catalogue{Version: 1, Channels: []credentials.Channel{{Name: "demo", KeyHash: "x"}, {Name: "other", KeyHash: "y"}}}); err != nil {
		t.Fatal(err)
	}
	tokens, all := map[string]session.Token{}, map[string]session.Identity{}
	for _, name := range names {
		tokens[name] = session.NewToken()
		all[tokens[name].Hash()] = session.Identity{ID: session.IDOf(name), Login: name, Name: strings.ToUpper(name[:1]) + name[1:]}
	}
	if err := session.Replace(t.Context(), db, all); err != nil {
		t.Fatal(err)
	}
	return tokens
}

// page is a page's connection.
type page struct {
	t    *testing.T
	conn net.Conn

	mu  sync.Mutex
	got []map[string]any
}

func (p *process) page(token session.Token) *page {
	p.t.Helper()
	conn, buffered, _, err := ws.Dial(p.t.Context(), "ws://"+p.http+"/chat/ws")
	if err != nil {
		p.t.Fatal(err)
	}
	var in net.Conn = conn
	if buffered != nil {
		p.t.Fatal("frames came with the handshake")
	}
	c := &page{t: p.t, conn: conn}
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			doc, err := wsutil.ReadServerText(in)
			if err != nil {
				return
			}
			m := map[string]any{}
			if err := json.Unmarshal(doc, &m); err != nil {
				p.t.Errorf("%q: %v", doc, err)
			}
			c.mu.Lock()
			c.got = append(c.got, m)
			c.mu.Unlock()
		}
	})
	p.t.Cleanup(func() {
		_ = conn.Close()
		reading.Wait()
	})
	if token != "" {
		c.send(map[string]any{"type": "auth", "token": token.Reveal()})
		c.await("welcome", "")
	}
	return c
}

func (c *page) send(m map[string]any) {
	c.t.Helper()
	doc, _ := json.Marshal(m)
	if err := wsutil.WriteClientText(c.conn, doc); err != nil {
		c.t.Fatal(err)
	}
}

// await waits for a message of a type, in which "text" holds a text, and returns it.
func (c *page) await(kind, text string) (found map[string]any) {
	c.t.Helper()
	testenv.Eventually(c.t, 20*time.Second, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, m := range c.got {
			if (m["type"] == kind || m["kind"] == kind) && (text == "" || m["text"] == text) {
				found = m
				return nil
			}
		}
		return fmt.Errorf("no %s %q in %v", kind, text, c.got)
	})
	return found
}

// said returns the messages that came, as "login: text".
func (c *page) said() (list []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.got {
		if m["kind"] == "message" {
			list = append(list, fmt.Sprint(m["user"].(map[string]any)["login"], ": ", m["text"]))
		}
	}
	return list
}

// bot is a client of IRC.
type bot struct {
	t    *testing.T
	conn net.Conn

	mu    sync.Mutex
	lines []string
}

func (p *process) bot(lines ...string) *bot {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.irc)
	if err != nil {
		p.t.Fatal(err)
	}
	b := &bot{t: p.t, conn: conn}
	var reading sync.WaitGroup
	reading.Go(func() {
		in := bufio.NewScanner(conn)
		for in.Scan() {
			b.mu.Lock()
			b.lines = append(b.lines, in.Text())
			b.mu.Unlock()
		}
	})
	p.t.Cleanup(func() {
		_ = conn.Close()
		reading.Wait()
	})
	b.send(lines...)
	return b
}

func (b *bot) send(lines ...string) {
	b.t.Helper()
	if _, err := b.conn.Write([]byte(strings.Join(lines, "\r\n") + "\r\n")); err != nil {
		b.t.Fatal(err)
	}
}

// await waits for a line that has all of the parts.
func (b *bot) await(parts ...string) (found string) {
	b.t.Helper()
	testenv.Eventually(b.t, 20*time.Second, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, l := range b.lines {
			if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(l, part) }) {
				found = l
				return nil
			}
		}
		return fmt.Errorf("no line with %q in\n%s", parts, strings.Join(b.lines, "\n"))
	})
	return found
}

func (b *bot) has(part string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.lines, func(l string) bool { return strings.Contains(l, part) })
}

// Pages and bots on two processes talk in one room, and a moderator acts.
func TestOneRoomOnTwoProcesses(t *testing.T) {
	t.Parallel()
	server := testenv.StartRedis(t)
	tokens := people(t, server.Client(), "demo", "anna", "bob", "carl")
	first, second := start(t, server.Client(), "a"), start(t, server.Client(), "b")
	anna, reader, owner := first.page(tokens["anna"]), second.page(""), second.page(tokens["demo"])
	for _, p := range []*page{anna, reader, owner} {
		p.send(map[string]any{"type": "join", "room": "demo", "history": 50})
		p.await("joined", "")
	}
	bob := second.bot("CAP REQ :twitch.tv/tags twitch.tv/commands", "PASS oauth:"+tokens["bob"].Reveal(), "NICK bob", "JOIN #demo")
	bob.await(" 001 bob ")
	bob.await("ROOMSTATE #demo")
	bob.await("USERSTATE #demo")
	plain := first.bot("NICK justinfan123", "JOIN #demo")
	plain.await(" 366 ")

	anna.send(map[string]any{"type": "send", "room": "demo", "nonce": "n1", "text": "hello  from anna"})
	id := anna.await("sent", "")["id"].(string)
	bob.await("PRIVMSG #demo :hello from anna", "id="+id, "display-name=Anna", "user-id="+session.IDOf("anna"), "first-msg=1")
	plain.await(":anna!anna@anna.tmi.twitch.tv PRIVMSG #demo :hello from anna")
	bob.send("@reply-parent-msg-id="+id+";client-nonce=x1 PRIVMSG #demo :hi anna", "PRIVMSG #demo :\x01ACTION waves\x01")
	m := reader.await("message", "hi anna")
	if m["reply"].(map[string]any)["id"] != id || m["room"] != "demo" || int64(m["time"].(float64)) <= 0 {
		t.Errorf("the reply is %v", m)
	}
	plain.await("PRIVMSG #demo :\x01ACTION waves\x01")
	if bob.has("hi anna") {
		t.Error("bob got his own message")
	}

	reader.send(map[string]any{"type": "send", "room": "demo", "text": "me too"})
	if r := reader.await("refused", ""); r["code"] != "anonymous" {
		t.Errorf("somebody without a name was answered %v", r)
	}
	anna.send(map[string]any{"type": "act", "room": "demo", "do": "ban", "login": "bob"})
	if r := anna.await("refused", ""); r["code"] != "not_allowed" {
		t.Errorf("anna, who is nobody, was answered %v", r)
	}
	owner.send(map[string]any{"type": "act", "room": "demo", "do": "delete", "target": id})
	bob.await("CLEARMSG #demo :hello from anna", "target-msg-id="+id, "login=anna")
	owner.send(map[string]any{"type": "act", "room": "demo", "do": "timeout", "login": "bob", "seconds": 600, "reason": "waving"})
	bob.await("CLEARCHAT #demo :bob", "ban-duration=600")
	if e := anna.await("user_cleared", "waving"); e["subject"].(map[string]any)["login"] != "bob" {
		t.Errorf("the timeout is %v", e)
	}
	bob.send("PRIVMSG #demo :still here")
	bob.await("msg-id=msg_timedout", "NOTICE #demo")
	owner.send(map[string]any{"type": "act", "room": "demo", "do": "settings", "settings": map[string]any{"slow": 30}})
	bob.await("ROOMSTATE #demo", "slow=30")
}

// A page whose process ends goes to another one, and has all messages, each once.
func TestResume(t *testing.T) {
	t.Parallel()
	server := testenv.StartRedis(t)
	tokens := people(t, server.Client(), "demo", "anna")
	first, second := start(t, server.Client(), "a"), start(t, server.Client(), "b")
	steady, moving, anna := second.page(""), first.page(""), second.page(tokens["demo"])
	for _, p := range []*page{steady, moving, anna} {
		p.send(map[string]any{"type": "join", "room": "demo"})
		p.await("joined", "")
	}
	say := func(from, to int) {
		for i := from; i < to; i++ {
			anna.send(map[string]any{"type": "send", "room": "demo", "nonce": strconv.Itoa(i), "text": "message " + strconv.Itoa(i)})
		}
		anna.await("message", "message "+strconv.Itoa(to-1))
	}
	say(0, 10)
	last := moving.await("message", "message 9")["id"]
	first.stop()
	say(10, 20)
	again := second.page("")
	again.send(map[string]any{"type": "join", "room": "demo", "after": last})
	say(20, 30)
	again.await("message", "message 29")
	steady.await("message", "message 29")
	if got, want := append(moving.said(), again.said()...), steady.said(); !slices.Equal(got, want) || len(want) != 30 {
		t.Errorf("who moved has\n%q\nwho stayed\n%q", got, want)
	}
}

// What isn't a channel has no room, and what isn't a token lets nobody in.
func TestNoSuchThing(t *testing.T) {
	t.Parallel()
	db := testenv.Redis(t)
	people(t, db, "anna")
	p := start(t, db, "a")
	reader := p.page("")
	reader.send(map[string]any{"type": "join", "room": "nowhere"})
	if r := reader.await("refused", ""); r["code"] != "no_room" {
		t.Errorf("answered %v", r)
	}
	reader.send(map[string]any{"type": "auth", "token": "abc"})
	testenv.Eventually(t, 10*time.Second, func() error {
		reader.mu.Lock()
		defer reader.mu.Unlock()
		if last := reader.got[len(reader.got)-1]; last["code"] != "token" {
			return fmt.Errorf("answered %v", last)
		}
		return nil
	})
	p.bot("PASS oauth:abc", "NICK anna").await("NOTICE * :Login authentication failed")
	p.bot("NICK anna").await("NOTICE * :Improperly formatted auth")
	bot := p.bot("NICK justinfan1", "JOIN #nowhere", "PING 1234", "PING", "NONSENSE")
	bot.await("NOTICE #nowhere :This channel does not exist")
	bot.await(":tmi.twitch.tv PONG tmi.twitch.tv :1234")
	bot.await(" 421 justinfan1 NONSENSE ")
	if !slices.Contains(bot.lines, "PONG") {
		t.Errorf("a bare PING isn't answered by a bare PONG: %q", bot.lines)
	}
}
