// Package channelname is the one rule for what a channel may be called: its name
// is a path segment of the pages and of the video, and a name on IRC.
package channelname

import (
	"fmt"
	"strings"
)

// MaxLength is the longest name, in bytes.
const MaxLength = 25

// reserved are the first path segments of the public surface, whether they serve
// anything today or not.
var reserved = map[string]bool{
	"api": true, "assets": true, "chat": true, "debug": true, "embed": true, "eventsub": true, "healthz": true,
	"helix": true, "hls": true, "irc": true, "live": true, "metrics": true, "oauth2": true, "readyz": true,
	"whep": true, "whip": true,
}

// Check tells what is wrong with a channel's name, in words for whoever chose it,
// or returns nil.
func Check(name string) error {
	if !wellFormed(name) {
		return fmt.Errorf("%q can't be a channel's name: use 1 to %d of a-z, 0-9 and _, not beginning with _", name, MaxLength)
	}
	if reserved[name] {
		return fmt.Errorf("%q can't be a channel's name: it is reserved", name)
	}
	return nil
}

// Valid reports whether a channel may have this name. It allocates nothing: an
// edge asks for each request.
func Valid(name string) bool { return wellFormed(name) && !reserved[name] }

// Lower returns the channel's name that somebody wrote with capital letters; ok is
// false where text has none, or is no channel's name in lower case either.
func Lower(text string) (name string, ok bool) {
	if len(text) > MaxLength {
		return "", false
	}
	name = strings.ToLower(text)
	return name, name != text && Valid(name)
}

// wellFormed reports whether name matches [a-z0-9][a-z0-9_]{0,24}.
func wellFormed(name string) bool {
	if name == "" || len(name) > MaxLength || name[0] == '_' {
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}
