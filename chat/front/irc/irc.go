// Package irc is the front of chat that speaks Twitch's dialect of IRC, over TCP and over websocket, so that
// bots and clients made for that work unchanged: tmi.js, twurple, dank-twitch-irc, go-twitch-irc.
package irc

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"

	"millrace/chat/event"
	"millrace/chat/moderation"
	"millrace/chat/room"
	"millrace/chat/talk"
	"millrace/internal/channelname"
	"millrace/internal/rate"
	"millrace/internal/session"
)

const (
	// answerIn bounds how long one line of a client may take: then it is told that chat is unavailable.
	answerIn = 10 * time.Second
	// maxRooms is how many rooms a connection may be in.
	maxRooms = 100
)

// joinLimit bounds joins of a connection, and lineLimit its lines.
var (
	joinLimit = rate.Limit{PerSecond: 2, Size: 20}
	lineLimit = rate.Limit{PerSecond: 20, Size: 200}
)

// Formats are the ways in which events are written: with what a client asked for by CAP, and without.
type Formats struct{ Plain, Full *room.Format }

// NewFormats returns the formats of a transport, and how events are encoded in them: wrap makes frames of lines.
func NewFormats(name string, wrap func(lines string) []byte) (Formats, map[*room.Format]talk.Encode) {
	f := Formats{&room.Format{Name: name, SkipOwn: true}, &room.Format{Name: name + "-tags", SkipOwn: true}}
	encoder := func(full bool) talk.Encode {
		return func(name string, e *event.Event) []byte {
			if lines := encode(name, e, full); lines != "" {
				return wrap(lines)
			}
			return nil
		}
	}
	return f, map[*room.Format]talk.Encode{f.Plain: encoder(false), f.Full: encoder(true)}
}

// Client is one connection's side of the dialect. Its methods but Gap and Goodbye are called by the connection's goroutine.
type Client struct {
	Talk    *talk.Talk
	Formats Formats
	Wrap    func(lines string) []byte
	// Welcomed, where it is set, is called when the client has said who it is.
	Welcomed func()

	partial []byte // of a line
	joins   rate.Bucket
	lines   rate.Bucket

	negotiating             bool // by CAP: the welcome waits for its end
	tags, commands, members bool
	password, nick          string
	welcomed                bool
	who                     session.Identity
}

// Receive takes bytes of a client over TCP.
func (c *Client) Receive(conn *room.Conn, p []byte) error {
	for len(p) > 0 {
		text, rest, whole := bytes.Cut(p, []byte("\n"))
		if len(c.partial)+len(text) > MaxLine {
			return room.Reason{Name: "line", Text: "a line is too long"}
		}
		if !whole {
			c.partial = append(c.partial, text...)
			return nil
		}
		line := string(append(c.partial, text...))
		c.partial, p = c.partial[:0], rest
		if err := c.Line(conn, line); err != nil {
			return err
		}
	}
	return nil
}

// Line takes one line, with its end or without.
func (c *Client) Line(conn *room.Conn, text string) error {
	text = strings.Trim(text, "\r\n\x00 ")
	if text == "" {
		return nil
	}
	if len(text) > MaxLine {
		return room.Reason{Name: "line", Text: "a line is too long"}
	}
	if !c.lines.Take(1, lineLimit, time.Now()) {
		return room.Reason{Name: "flood", Text: "too many lines"}
	}
	l, err := parseLine(text)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerIn)
	defer cancel()
	switch l.command {
	case "PING":
		c.pong(conn, &l)
	case "PONG", "USER", "WHO":
	case "QUIT":
		return room.Left
	case "CAP":
		c.capabilities(conn, &l)
	case "PASS":
		c.password = l.param(0)
	case "NICK":
		c.nick = strings.ToLower(l.param(0))
	default:
		return c.command(ctx, conn, &l)
	}
	return c.welcome(ctx, conn)
}

// command takes what only who is welcome may ask.
func (c *Client) command(ctx context.Context, conn *room.Conn, l *line) error {
	if !c.welcomed {
		return nil
	}
	switch l.command {
	case "JOIN":
		for name := range strings.SplitSeq(l.param(0), ",") {
			c.join(ctx, conn, channel(name))
		}
	case "PART":
		for name := range strings.SplitSeq(l.param(0), ",") {
			if name = channel(name); c.Talk.Leave(conn, name) {
				c.send(conn, mask(c.nick)+" PART #"+name+"\r\n")
			}
		}
	case "PRIVMSG":
		c.say(ctx, conn, channel(l.param(0)), l)
	default:
		c.send(conn, ":"+host+" 421 "+c.nick+" "+escapeControl(l.command)+" :Unknown command\r\n")
	}
	return nil
}

func channel(name string) string { return strings.ToLower(strings.TrimPrefix(name, "#")) }

// escapeControl keeps what a client sent from being more than a word of a line.
func escapeControl(word string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f {
			return -1
		}
		return r
	}, word[:min(len(word), 64)])
}

func (c *Client) send(conn *room.Conn, lines string) { conn.Send(c.Wrap(lines)) }

// pong answers in the form of the question: some clients compare it.
func (c *Client) pong(conn *room.Conn, l *line) {
	if len(l.params) == 0 {
		c.send(conn, "PONG\r\n")
		return
	}
	c.send(conn, ":"+host+" PONG "+host+" :"+strings.Join(l.params, " ")+"\r\n")
}

// capabilities are what a client may ask for.
var capabilities = []string{"twitch.tv/tags", "twitch.tv/commands", "twitch.tv/membership"}

func (c *Client) capabilities(conn *room.Conn, l *line) {
	switch strings.ToUpper(l.param(0)) {
	case "LS":
		c.negotiating = !c.welcomed
		c.send(conn, ":"+host+" CAP * LS :"+strings.Join(capabilities, " ")+"\r\n")
	case "LIST":
		c.send(conn, ":"+host+" CAP * LIST :"+strings.Join(c.has(), " ")+"\r\n")
	case "REQ":
		asked := strings.Fields(l.param(1))
		for _, name := range asked {
			switch name {
			case "twitch.tv/tags", "twitch.tv/commands", "twitch.tv/membership":
			default:
				c.send(conn, ":"+host+" CAP * NAK :"+escapeText(l.param(1))+"\r\n")
				return
			}
		}
		for _, name := range asked {
			c.tags = c.tags || name == "twitch.tv/tags"
			c.commands = c.commands || name == "twitch.tv/commands"
			c.members = c.members || name == "twitch.tv/membership"
		}
		c.send(conn, ":"+host+" CAP * ACK :"+strings.Join(asked, " ")+"\r\n")
	case "END":
		c.negotiating = false
	}
}

// escapeText keeps text that came from a client in one line.
func escapeText(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return -1
		}
		return r
	}, text[:min(len(text), 400)])
}

func (c *Client) has() (list []string) {
	for i, on := range []bool{c.tags, c.commands, c.members} {
		if on {
			list = append(list, capabilities[i])
		}
	}
	return list
}

// full reports whether the client gets all that there is.
func (c *Client) full() bool { return c.tags || c.commands }

// anonymous is what clients call themselves that only read.
var anonymous = regexp.MustCompile(`^justinfan[0-9]{1,12}$`)

// welcome lets a client in when it has said who it is.
func (c *Client) welcome(ctx context.Context, conn *room.Conn) error {
	if c.welcomed || c.negotiating || c.nick == "" {
		return nil
	}
	if !anonymous.MatchString(c.nick) {
		refused := func(text string) error {
			c.send(conn, ":"+host+" NOTICE * :"+text+"\r\n")
			return room.Reason{Name: "login", Text: text}
		}
		if strings.Trim(c.password, ": ") == "" || strings.Contains(c.password, " ") {
			return refused("Improperly formatted auth")
		}
		who, err := c.Talk.Identify(ctx, session.ParseToken(c.password))
		if errors.Is(err, session.ErrUnknownToken) {
			return refused("Login authentication failed")
		}
		if err != nil {
			return refused("Login unsuccessful: chat can't reach its memory at the moment")
		}
		c.who, c.nick = who, who.Login
	}
	c.welcomed, c.password = true, ""
	if c.Welcomed != nil {
		c.Welcomed()
	}
	numeric := func(n, text string) string { return ":" + host + " " + n + " " + c.nick + " " + text + "\r\n" }
	lines := numeric("001", ":Welcome, GLHF!") + numeric("002", ":Your host is "+host) + numeric("003", ":This server is rather new") +
		numeric("004", ":-") + numeric("375", ":-") + numeric("372", ":You are in a maze of twisty passages, all alike.") + numeric("376", ":>")
	if !c.who.Anonymous() && c.commands {
		var t tags
		t.add("badge-info", "")
		t.add("badges", "")
		t.add("color", "")
		t.add("display-name", c.who.Name)
		t.add("emote-sets", "0")
		t.add("user-id", c.who.ID)
		t.add("user-type", "")
		lines += t.line(c.tags, ":", host, " GLOBALUSERSTATE")
	}
	c.send(conn, lines)
	return nil
}

// join brings the client into a room.
func (c *Client) join(ctx context.Context, conn *room.Conn, name string) {
	switch {
	case !c.joins.Take(1, joinLimit, time.Now()) || len(conn.Rooms()) >= maxRooms:
		c.send(conn, notice(escapeControl(name), "msg_ratelimit", "You are joining too many channels, too fast.", c.full()))
		return
	case !channelname.Valid(name):
		c.send(conn, notice(escapeControl(name), "msg_channel_suspended", "This channel does not exist or has been suspended.", c.full()))
		return
	}
	r, err := c.Talk.Open(ctx, name)
	if err != nil {
		id, text := "msg_channel_suspended", "This channel does not exist or has been suspended."
		if !errors.Is(err, talk.ErrNoRoom) {
			id, text = "msg_rejected", talk.Refused(err).Text
		}
		c.send(conn, notice(name, id, text, c.full()))
		return
	}
	lines := mask(c.nick) + " JOIN #" + name + "\r\n" +
		":" + c.nick + "." + host + " 353 " + c.nick + " = #" + name + " :" + c.nick + "\r\n" +
		":" + c.nick + "." + host + " 366 " + c.nick + " #" + name + " :End of /NAMES list\r\n"
	if c.full() {
		if !c.who.Anonymous() {
			lines += c.userState(r, "")
		}
		lines += roomState(name, r.Settings())
	}
	c.send(conn, lines)
	conn.SetFormat(c.format())
	if _, _, err = c.Talk.Enter(ctx, conn, name, "", 0); err != nil && !errors.Is(err, room.ErrJoined) {
		c.send(conn, notice(name, "msg_rejected", talk.Refused(err).Text, c.full()))
	}
}

func (c *Client) format() *room.Format {
	if c.full() {
		return c.Formats.Full
	}
	return c.Formats.Plain
}

// userState tells the client what it is in a room, and by id which of its messages was taken.
func (c *Client) userState(r *talk.Room, nonce string) string {
	var t tags
	var badge []string
	role := r.Role(c.who)
	if role != moderation.Nobody {
		badge = []string{string(role)}
	}
	t.add("badge-info", "")
	t.add("badges", badges(badge))
	if nonce != "" {
		t.add("client-nonce", nonce)
	}
	t.add("color", "")
	t.add("display-name", c.who.Name)
	t.add("emote-sets", "0")
	t.flag("mod", role.Moderates())
	t.flag("subscriber", false)
	kind := ""
	if role == moderation.Moderator {
		kind = "mod"
	}
	t.add("user-type", kind)
	return t.line(c.tags, ":", host, " USERSTATE #", r.Name)
}

// say sends what the client said.
func (c *Client) say(ctx context.Context, conn *room.Conn, name string, l *line) {
	if !channelname.Valid(name) || len(l.params) < 2 {
		return
	}
	text := l.params[1]
	inner, action := strings.CutPrefix(text, "\x01ACTION ")
	if action {
		text = strings.TrimSuffix(inner, "\x01")
	}
	nonce := l.tag("client-nonce")
	_, err := c.Talk.Say(ctx, c.who, talk.Said{
		Room: name, Nonce: nonce, Text: text, Action: action, Reply: event.ID(l.tag("reply-parent-msg-id")), Origin: conn.ID(),
	})
	if err != nil {
		r := talk.Refused(err)
		c.send(conn, notice(name, noticeID(r.Code), sentence(r), c.full()))
		return
	}
	if r, err := c.Talk.Open(ctx, name); err == nil && c.commands {
		c.send(conn, c.userState(r, nonce))
	}
}

// noticeID is what the dialect calls a refusal.
func noticeID(code talk.Code) string {
	switch code {
	case "banned":
		return "msg_banned"
	case "timed_out":
		return "msg_timedout"
	case "slow":
		return "msg_slowmode"
	case "duplicate":
		return "msg_duplicate"
	case "rate":
		return "msg_ratelimit"
	case "emote_only":
		return "msg_emoteonly"
	case "shield", "followers_only":
		return "msg_followersonly"
	case "subscribers_only":
		return "msg_subsonly"
	case talk.NoRoom:
		return "msg_channel_suspended"
	}
	return "msg_rejected"
}

// sentence tells a refusal, and when it ends.
func sentence(r *talk.Refusal) string {
	text := strings.ToUpper(r.Text[:1]) + r.Text[1:]
	if left := time.Until(r.Until); left > 0 {
		text += " for " + strconv.Itoa(int(left.Seconds())+1) + " more seconds"
	}
	return text + "."
}

// Gap tells nothing: the dialect has no word for it.
func (c *Client) Gap(*room.Room, uint64, string) []byte { return nil }

// Goodbye asks the client to come back to another process.
func (c *Client) Goodbye(why room.Reason) []byte {
	if why.Name == room.Drained.Name {
		return c.Wrap(":" + host + " RECONNECT\r\n")
	}
	return nil
}

// Closed does nothing: the connection has left its rooms.
func (c *Client) Closed(*room.Conn, room.Reason) {}
