package event

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	// MaxText is the longest message, in code points.
	MaxText = 500
	// maxMarks is how many marks may be stacked on one letter: none of the world's scripts needs more.
	maxMarks = 4
)

// What is wrong with a text.
var (
	ErrEmpty   = errors.New("the message is empty")
	ErrTooLong = errors.New("the message is longer than 500 characters")
	ErrNotText = errors.New("the message isn't text in UTF-8")
)

// Clean returns what is shown of a text that somebody typed: composed (NFC), in one line, without control
// characters, characters that turn the direction of others, and marks that are stacked.
func Clean(text string) (string, error) {
	if len(text) > 8*MaxText {
		return "", ErrTooLong
	}
	if !utf8.ValidString(text) {
		return "", ErrNotText
	}
	var b strings.Builder
	marks, space := 0, true
	for _, r := range norm.NFC.String(text) {
		switch {
		case unicode.IsSpace(r):
			if space {
				continue
			}
			r, space, marks = ' ', true, 0
		case r == '\u200d' || r == '\ufe0f': // joins emoji
			space = false
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r) && !isTag(r), unicode.Is(unicode.Co, r), r == unicode.ReplacementChar:
			continue
		case unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Me, r):
			if marks++; marks > maxMarks {
				continue
			}
		default:
			marks, space = 0, false
		}
		b.WriteRune(r)
	}
	clean := norm.NFC.String(strings.TrimRight(b.String(), " ")) // what stood between is gone
	switch {
	case strings.Trim(clean, " \u200d\ufe0f") == "":
		return "", ErrEmpty
	case utf8.RuneCountInString(clean) > MaxText:
		return "", ErrTooLong
	}
	return clean, nil
}

// isTag tells the characters that flags of regions are made of.
func isTag(r rune) bool { return r >= 0xe0020 && r <= 0xe007f }
