package fold

import (
	"errors"
	"strconv"
	"strings"

	"millrace/edge/playlist"
	"millrace/internal/channelname"
)

// Kind tells what an address names; it is a label value of metrics.
type Kind string

// The kinds of address. A media playlist that is asked for with a blocking
// reload counts as one of its own.
const (
	KindMultivariant Kind = "multivariant"
	KindMedia        Kind = "media_playlist"
	KindReload       Kind = "blocking_reload"
	KindSegment      Kind = "segment"
	KindPart         Kind = "part"
	KindInit         Kind = "init"
	KindThumbnail    Kind = "thumbnail"
	KindSteering     Kind = "steering"
	KindOther        Kind = "other"
)

// SteeringName is the steering manifest's name below a channel.
const SteeringName = "steering.json"

// Address is a parsed path below /hls/.
type Address struct {
	Kind      Kind
	Channel   string
	Broadcast string
	Rendition string
	// Epoch, Sequence, Part and Profile name a segment or part; Profile is the
	// hash of an init section.
	Epoch    uint64
	Sequence uint64
	Part     int
	Profile  string
}

var errAddress = errors.New("no such address")

// ParseAddress reads a path such as
//
//	/hls/{channel}/index.m3u8
//	/hls/{channel}/steering.json
//	/hls/{channel}/{broadcast}/thumbnail.jpg
//	/hls/{channel}/{broadcast}/{rendition}/index.m3u8
//	/hls/{channel}/{broadcast}/{rendition}/{epoch}.{sequence}[.{part}].{profile}.m4s
//	/hls/{channel}/{broadcast}/{rendition}/init-{hash}.mp4
func ParseAddress(path string) (Address, error) {
	rest, ok := strings.CutPrefix(path, "/hls/")
	if !ok {
		return Address{}, errAddress
	}
	var a Address
	a.Channel, rest, ok = strings.Cut(rest, "/")
	if !ok || !channelname.Valid(a.Channel) {
		return Address{}, errAddress
	}
	if rest == "index.m3u8" {
		a.Kind = KindMultivariant
		return a, nil
	}
	if rest == SteeringName {
		a.Kind = KindSteering
		return a, nil
	}
	a.Broadcast, rest, ok = strings.Cut(rest, "/")
	if !ok || !IsName(a.Broadcast) {
		return Address{}, errAddress
	}
	if rest == "thumbnail.jpg" {
		a.Kind = KindThumbnail
		return a, nil
	}
	a.Rendition, rest, ok = strings.Cut(rest, "/")
	if !ok || !IsName(a.Rendition) {
		return Address{}, errAddress
	}
	if rest == "index.m3u8" {
		a.Kind = KindMedia
		return a, nil
	}
	if name, ok := strings.CutPrefix(rest, "init-"); ok {
		a.Kind = KindInit
		a.Profile, ok = strings.CutSuffix(name, ".mp4")
		if !ok || !IsName(a.Profile) {
			return Address{}, errAddress
		}
		return a, nil
	}
	return parseMediaName(a, rest)
}

// LowerPath returns the path that is meant where a channel's name is written with
// capital letters. What follows the name has to be as it is written.
func LowerPath(path string) (lower string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/hls/")
	if !ok {
		return "", false
	}
	name, rest, _ := strings.Cut(rest, "/")
	if name, ok = channelname.Lower(name); !ok {
		return "", false
	}
	lower = "/hls/" + name + "/" + rest
	_, err := ParseAddress(lower)
	return lower, err == nil
}

func parseMediaName(a Address, name string) (Address, error) {
	name, ok := strings.CutSuffix(name, ".m4s")
	if !ok {
		return Address{}, errAddress
	}
	epoch, name, ok := strings.Cut(name, ".")
	if !ok {
		return Address{}, errAddress
	}
	sequence, name, ok := strings.Cut(name, ".")
	if !ok {
		return Address{}, errAddress
	}
	a.Kind, a.Part = KindSegment, playlist.NoPart
	if part, profile, ok := strings.Cut(name, "."); ok {
		n, err := parseNumber(part, 16)
		if err != nil {
			return Address{}, errAddress
		}
		a.Kind, a.Part, name = KindPart, int(n), profile
	}
	var err1, err2 error
	a.Epoch, err1 = parseNumber(epoch, 64)
	a.Sequence, err2 = parseNumber(sequence, 63)
	if err1 != nil || err2 != nil || !IsName(name) {
		return Address{}, errAddress
	}
	a.Profile = name
	return a, nil
}

// parseNumber reads a decimal number that is written in the only way that
// playlists write it, so that each object has one address.
func parseNumber(s string, bits int) (uint64, error) {
	if s == "" || s[0] == '+' || s[0] == '0' && len(s) > 1 {
		return 0, errAddress
	}
	return strconv.ParseUint(s, 10, bits)
}

// IsName reports whether s can stand between dots in an address.
func IsName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// isCodec reports whether s can stand in a CODECS attribute.
func isCodec(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '"' || s[i] == ',' {
			return false
		}
	}
	return len(s) <= 64
}
