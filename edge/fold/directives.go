package fold

import (
	"errors"
	"net/url"
	"strconv"
	"strings"

	"millrace/edge/playlist"
)

// Directives are the delivery directives of a media playlist request
// (RFC 8216bis, 6.2.5).
type Directives struct {
	// Blocking is set when Sequence and Part say what to wait for; Part is
	// [playlist.NoPart] for a whole segment.
	Blocking bool
	Sequence uint64
	Part     int
	Skip     playlist.Skip
}

var (
	errDirective = errors.New("_HLS_msn and _HLS_part must be decimal numbers")
	errPartAlone = errors.New("_HLS_part needs _HLS_msn")
	errTwice     = errors.New("a delivery directive may be given once")
	errQuery     = errors.New("the query is malformed")
)

// ParseDirectives reads the directives in a query and skips all else. Unknown
// values of _HLS_skip are ignored.
func ParseDirectives(query string) (Directives, error) {
	d := Directives{Part: playlist.NoPart}
	if query == "" {
		return d, nil
	}
	msn, part, skip, err := directiveValues(query)
	if err != nil {
		return Directives{}, err
	}
	switch skip {
	case "YES":
		d.Skip = playlist.SkipYes
	case "v2":
		d.Skip = playlist.SkipV2
	}
	if part != "" && msn == "" {
		// If the Playlist URI contains an _HLS_part directive but no _HLS_msn
		// directive, the Server MUST return Bad Request, such as HTTP 400.
		return Directives{}, errPartAlone
	}
	if msn != "" {
		if d.Sequence, err = strconv.ParseUint(msn, 10, 63); err != nil || msn[0] == '+' {
			return Directives{}, errDirective
		}
		d.Blocking = true
	}
	if part != "" {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil || part[0] == '+' {
			return Directives{}, errDirective
		}
		d.Part = int(n)
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
