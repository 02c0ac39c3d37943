package irc

import (
	"errors"
	"strings"
)

const (
	// MaxLine is the longest line that is read, in bytes: IRCv3's 8,191 of tags and 512 of the rest.
	MaxLine = 8191 + 512
	// maxParams is how many parameters a line may have (RFC 2812, 2.3.1).
	maxParams = 15
)

// line is one line of a client: its command in capital letters, and what follows it.
type line struct {
	tags    string // as they came, without the @; "" for none
	command string
	params  []string
}

// param returns a parameter, "" where there is none.
func (l *line) param(i int) string {
	if i < len(l.params) {
		return l.params[i]
	}
	return ""
}

// tag returns the value of a tag, "" where there is none.
func (l *line) tag(name string) string {
	for t := range strings.SplitSeq(l.tags, ";") {
		if value, ok := strings.CutPrefix(t, name+"="); ok {
			return unescape(value)
		}
	}
	return ""
}

var errLine = errors.New("a line without a command")

// parseLine reads a line without its end.
func parseLine(text string) (l line, err error) {
	if rest, ok := strings.CutPrefix(text, "@"); ok {
		l.tags, text, _ = strings.Cut(rest, " ")
		text = strings.TrimLeft(text, " ")
	}
	if strings.HasPrefix(text, ":") { // a prefix says nothing that is believed of a client
		_, text, _ = strings.Cut(text, " ")
		text = strings.TrimLeft(text, " ")
	}
	l.command, text, _ = strings.Cut(text, " ")
	l.command = strings.ToUpper(l.command)
	if l.command == "" {
		return l, errLine
	}
	for text = strings.TrimLeft(text, " "); text != ""; text = strings.TrimLeft(text, " ") {
		if last, ok := strings.CutPrefix(text, ":"); ok || len(l.params) == maxParams-1 {
			if !ok {
				last = text
			}
			l.params = append(l.params, last)
			break
		}
		var p string
		p, text, _ = strings.Cut(text, " ")
		l.params = append(l.params, p)
	}
	return l, nil
}

// escaper writes the value of a tag (IRCv3, message tags).
var escaper = strings.NewReplacer(`\`, `\\`, ";", `\:`, " ", `\s`, "\r", `\r`, "\n", `\n`)

func escape(value string) string { return escaper.Replace(value) }

// unescape reads one. A lone backslash at the end goes, one before another character stands for that.
func unescape(value string) string {
	if !strings.Contains(value, `\`) {
		return value
	}
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		if value[i] != '\\' {
			b.WriteByte(value[i])
			continue
		}
		if i++; i == len(value) {
			break
		}
		switch value[i] {
		case ':':
			b.WriteByte(';')
		case 's':
			b.WriteByte(' ')
		case 'r':
			b.WriteByte('\r')
		case 'n':
			b.WriteByte('\n')
		default:
			b.WriteByte(value[i])
		}
	}
	return b.String()
}
