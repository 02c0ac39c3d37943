// Package moderation is what a room's rules say of a text and of who may do what. It is pure:
// what a room remembers of its users, such as bans and slow mode, is judged where it is kept, by
// package store.
package moderation

import (
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"millrace/chat/event"
)

// Role is what somebody is in a room.
type Role string

// The roles, by rising rights.
const (
	Nobody      Role = ""
	VIP         Role = "vip"
	Moderator   Role = "moderator"
	Broadcaster Role = "broadcaster"
)

// Moderates reports whether r may act on others.
func (r Role) Moderates() bool { return r == Moderator || r == Broadcaster }

// MayActOn reports whether r may delete what somebody of another role wrote, or ban that one: a
// moderator may not act on moderators or on the broadcaster, and nobody on the broadcaster.
func (r Role) MayActOn(other Role) bool {
	return r == Broadcaster && other != Broadcaster || r == Moderator && !other.Moderates()
}

// Code is why a text is refused: one of a fixed set.
type Code string

// The refusals that depend on the text.
const (
	EmoteOnly Code = "emote_only"
	Link      Code = "link"
	Term      Code = "term"
)

// Refusal is a text that isn't let through.
type Refusal struct {
	Code Code
	// Held is set where moderators may let it through yet.
	Held bool
}

// Error says why, in words for whoever sent it.
func (r *Refusal) Error() string {
	switch r.Code {
	case EmoteOnly:
		return "this chat takes emotes only"
	case Link:
		return "this chat takes links from moderators only"
	}
	return "a word in it isn't allowed in this chat"
}

// Check tells what a room's rules refuse of a text, which package event has cleaned; nil if nothing.
// emote tells the words that are emotes.
func Check(text string, role Role, s event.Settings, terms *Terms, emote func(string) bool) *Refusal {
	if role.Moderates() {
		return nil
	}
	if s.EmoteOnly && role != VIP {
		for word := range strings.FieldsSeq(text) {
			if !emote(word) {
				return &Refusal{Code: EmoteOnly}
			}
		}
	}
	if s.HoldLinks && role != VIP && HasLink(text) {
		return &Refusal{Code: Link, Held: true}
	}
	if terms.Match(text) {
		return &Refusal{Code: Term, Held: true}
	}
	return nil
}

// link is what people, and their clients, take for one: with a scheme, or a name with a known ending.
var link = regexp.MustCompile(`(?i)(?:\bhttps?://|\bwww\.)\S|\b(?:[a-z0-9-]+\.)+(?:com|net|org|io|tv|gg|me|ly|ru|cn|de|uk|info|xyz|app|dev|link|live|shop|site|top)\b`)

// HasLink reports whether a text has something that leads elsewhere.
func HasLink(text string) bool { return link.MatchString(text) }

const (
	// MaxTerms is how many blocked terms a room may have, and MaxTerm how long each may be, in code points.
	MaxTerms, MaxTerm = 500, 100
)

// Terms are the words that a room blocks. Nil blocks nothing. It is never changed, and safe for concurrent use.
type Terms struct {
	words    map[string]bool // whole words, folded
	prefixes []string        // of words
	parts    []string        // anywhere in a text without its spaces
	phrases  []string        // several words, with one space between and around
}

// NewTerms makes terms of what a moderator typed: a word, "word*" for all that begin so, "*part*" for
// what stands anywhere, also spread over several words, or several words. More than [MaxTerms] are left out.
func NewTerms(list []string) *Terms {
	t := &Terms{words: make(map[string]bool)}
	for _, text := range list[:min(len(list), MaxTerms)] {
		text = strings.TrimSpace(text)
		folded := strings.Join(foldedWords(strings.Trim(text, "*")), " ")
		switch {
		case folded == "" || len([]rune(text)) > MaxTerm:
		case strings.HasPrefix(text, "*") && strings.HasSuffix(text, "*"):
			t.parts = append(t.parts, strings.ReplaceAll(folded, " ", ""))
		case strings.Contains(folded, " "):
			t.phrases = append(t.phrases, " "+folded+" ")
		case strings.HasSuffix(text, "*"):
			t.prefixes = append(t.prefixes, folded)
		default:
			t.words[folded] = true
		}
	}
	return t
}

// Match reports whether a text holds one of the terms. Its cost is bounded by the length of both.
func (t *Terms) Match(text string) bool {
	if t == nil {
		return false
	}
	words := foldedWords(text)
	for _, w := range words {
		if t.words[w] {
			return true
		}
		for _, p := range t.prefixes {
			if strings.HasPrefix(w, p) {
				return true
			}
		}
	}
	whole, joined := " "+strings.Join(words, " ")+" ", strings.Join(words, "")
	for _, p := range t.phrases {
		if strings.Contains(whole, p) {
			return true
		}
	}
	for _, p := range t.parts {
		if strings.Contains(joined, p) {
			return true
		}
	}
	return false
}

// foldedWords returns a text's words as those who get around a block write them: in small letters, without
// marks, with letters that look like others as these, repeated ones once.
func foldedWords(text string) []string {
	var words []string
	var b strings.Builder
	last := rune(-1)
	flush := func() {
		if b.Len() > 0 {
			words = append(words, b.String())
		}
		b.Reset()
		last = -1
	}
	runes := []rune(norm.NFKD.String(text))
	for i, r := range runes {
		if unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Cf, r) {
			continue
		}
		r = unicode.ToLower(r)
		sign := unicode.IsPunct(r) || unicode.IsSymbol(r)
		if like, ok := lookAlike[r]; ok && (!sign || i+1 < len(runes) && unicode.IsLetter(runes[i+1])) {
			r = like // a sign ends most words that it stands behind
		}
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			flush()
			continue
		}
		if r != last {
			b.WriteRune(r)
		}
		last = r
	}
	flush()
	return words
}

// lookAlike are letters of other scripts, digits and signs that are read as Latin letters.
var lookAlike = map[rune]rune{
	'0': 'o', '1': 'i', '3': 'e', '4': 'a', '5': 's', '7': 't', '8': 'b', '@': 'a', '$': 's', '!': 'i', '|': 'i', 'l': 'i',
	'а': 'a', 'в': 'b', 'с': 'c', 'е': 'e', 'ё': 'e', 'н': 'h', 'і': 'i', 'ї': 'i', 'ј': 'j', 'к': 'k', 'м': 'm', 'о': 'o', 'р': 'p', 'ѕ': 's', 'т': 't', 'у': 'y', 'х': 'x',
	'α': 'a', 'β': 'b', 'ε': 'e', 'η': 'n', 'ι': 'i', 'κ': 'k', 'ν': 'v', 'ο': 'o', 'ρ': 'p', 'τ': 't', 'υ': 'u', 'χ': 'x',
	'ø': 'o', 'ł': 'i', 'đ': 'd', 'ı': 'i', 'ß': 's', 'ɑ': 'a', 'ɡ': 'g',
}
