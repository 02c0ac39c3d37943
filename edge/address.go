package edge

import (
	"errors"
	"net/url"
	"strconv"
	"strings"

	"millrace/edge/playlist"
	"millrace/internal/channelname"
)

// kind tells what an address names; it is a label value of metrics.
type kind string

const (
	kindMultivariant kind = "multivariant"
	kindMedia        kind = "media_playlist"
	kindReload       kind = "blocking_reload"
	kindSegment      kind = "segment"
	kindPart         kind = "part"
	kindInit         kind = "init"
	kindThumbnail    kind = "thumbnail"
	kindSteering     kind = "steering"
	kindOther        kind = "other"
)

// address is a parsed path below /hls/.
type address struct {
	kind      kind
	channel   string
	broadcast string
	rendition string
	// epoch, sequence, part and profile name a segment or part; profile is the
	// hash of an init section.
	epoch    uint64
	sequence uint64
	part     int
	profile  string
}

var errAddress = errors.New("no such address")

// parseAddress reads a path such as
//
//	/hls/{channel}/index.m3u8
//	/hls/{channel}/steering.json
//	/hls/{channel}/{broadcast}/thumbnail.jpg
//	/hls/{channel}/{broadcast}/{rendition}/index.m3u8
//	/hls/{channel}/{broadcast}/{rendition}/{epoch}.{sequence}[.{part}].{profile}.m4s
//	/hls/{channel}/{broadcast}/{rendition}/init-{hash}.mp4
func parseAddress(path string) (address, error) {
	rest, ok := strings.CutPrefix(path, "/hls/")
	if !ok {
		return address{}, errAddress
	}
	var a address
	a.channel, rest, ok = strings.Cut(rest, "/")
	if !ok || !channelname.Valid(a.channel) {
		return address{}, errAddress
	}
	if rest == "index.m3u8" {
		a.kind = kindMultivariant
		return a, nil
	}
	if rest == steeringName {
		a.kind = kindSteering
		return a, nil
	}
	a.broadcast, rest, ok = strings.Cut(rest, "/")
	if !ok || !isName(a.broadcast) {
		return address{}, errAddress
	}
	if rest == "thumbnail.jpg" {
		a.kind = kindThumbnail
		return a, nil
	}
	a.rendition, rest, ok = strings.Cut(rest, "/")
	if !ok || !isName(a.rendition) {
		return address{}, errAddress
	}
	if rest == "index.m3u8" {
		a.kind = kindMedia
		return a, nil
	}
	if name, ok := strings.CutPrefix(rest, "init-"); ok {
		a.kind = kindInit
		a.profile, ok = strings.CutSuffix(name, ".mp4")
		if !ok || !isName(a.profile) {
			return address{}, errAddress
		}
		return a, nil
	}
	return parseMediaName(a, rest)
}

func parseMediaName(a address, name string) (address, error) {
	name, ok := strings.CutSuffix(name, ".m4s")
	if !ok {
		return address{}, errAddress
	}
	epoch, name, ok := strings.Cut(name, ".")
	if !ok {
		return address{}, errAddress
	}
	sequence, name, ok := strings.Cut(name, ".")
	if !ok {
		return address{}, errAddress
	}
	a.kind, a.part = kindSegment, playlist.NoPart
	if part, profile, ok := strings.Cut(name, "."); ok {
		n, err := parseNumber(part, 16)
		if err != nil {
			return address{}, errAddress
		}
		a.kind, a.part, name = kindPart, int(n), profile
	}
	var err1, err2 error
	a.epoch, err1 = parseNumber(epoch, 64)
	a.sequence, err2 = parseNumber(sequence, 63)
	if err1 != nil || err2 != nil || !isName(name) {
		return address{}, errAddress
	}
	a.profile = name
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

// directives are the delivery directives of a media playlist request
// (RFC 8216bis, 6.2.5).
type directives struct {
	// blocking is set when sequence and part say what to wait for; part is
	// NoPart for a whole segment.
	blocking bool
	sequence uint64
	part     int
	skip     playlist.Skip
}

var (
	errDirective = errors.New("_HLS_msn and _HLS_part must be decimal numbers")
	errPartAlone = errors.New("_HLS_part needs _HLS_msn")
	errTwice     = errors.New("a delivery directive may be given once")
	errQuery     = errors.New("the query is malformed")
)

// parseDirectives reads the directives in a query and skips all else. Unknown
// values of _HLS_skip are ignored.
func parseDirectives(query string) (directives, error) {
	d := directives{part: playlist.NoPart}
	if query == "" {
		return d, nil
	}
	msn, part, skip, err := directiveValues(query)
	if err != nil {
		return directives{}, err
	}
	switch skip {
	case "YES":
		d.skip = playlist.SkipYes
	case "v2":
		d.skip = playlist.SkipV2
	}
	if part != "" && msn == "" {
		// If the Playlist URI contains an _HLS_part directive but no _HLS_msn
		// directive, the Server MUST return Bad Request, such as HTTP 400.
		return directives{}, errPartAlone
	}
	if msn != "" {
		if d.sequence, err = strconv.ParseUint(msn, 10, 63); err != nil || msn[0] == '+' {
			return directives{}, errDirective
		}
		d.blocking = true
	}
	if part != "" {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil || part[0] == '+' {
			return directives{}, errDirective
		}
		d.part = int(n)
	}
	return d, nil
}

func directiveValues(query string) (msn, part, skip string, err error) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if !strings.HasPrefix(pair, "_HLS_") {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		var into *string
		switch name {
		case "_HLS_msn":
			into = &msn
		case "_HLS_part":
			into = &part
		case "_HLS_skip":
			into = &skip
		default:
			continue
		}
		if *into != "" {
			return "", "", "", errTwice
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return "", "", "", errQuery
		}
		if value == "" && name != "_HLS_skip" {
			return "", "", "", errDirective
		}
		*into = value
	}
	return msn, part, skip, nil
}

// isName reports whether s can stand between dots in an address.
func isName(s string) bool {
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
