package rtmp

import (
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// instance is the path segment that servers of Adobe's kind name their default application instance by.
const instance = "_definst_"

// publishTarget finds the app and the stream key in what an encoder gives as its app and as the stream's
// name. The key is the last path segment of both together, wherever one field ends and the other begins:
// whole addresses are typed into one field, some encoders put the key into the app's path, and some the
// app before the key. A stream key has no character that is taken away here.
func publishTarget(app, name string) (target, key string) {
	path := append(segments(app), segments(name)...)
	if len(path) == 0 {
		return "", ""
	}
	if last := len(path) - 1; last > 0 {
		key = path[last]
	}
	return strings.ToLower(path[0]), key
}

// segments are the parts of a path as it was typed or pasted: without the scheme and host of a whole
// address, without a query (OBS adds ?clientConfigId=), percent-encoding, the type that Flash servers know
// files by (flv:NAME, mp4:NAME.mp4), quotation marks, and white space, line breaks among it.
func segments(path string) []string {
	path = visible(path)
	path, _, _ = strings.Cut(path, "?")
	if plain, err := url.PathUnescape(path); err == nil {
		path, _, _ = strings.Cut(visible(plain), "?")
	}
	path = strings.Trim(path, "\"'`<>“”‘’")
	if _, rest, ok := strings.Cut(path, "://"); ok {
		_, path, _ = strings.Cut(rest, "/")
	}
	for _, kind := range []string{"flv", "f4v", "mp4"} {
		path = strings.TrimSuffix(strings.TrimPrefix(path, kind+":"), "."+kind)
	}
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == instance })
}

// visible is s without white space, and without what is of no width (a byte order mark, a joiner).
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, s)
}
