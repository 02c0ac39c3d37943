// Package window is the contract by which edges read a worker's newest media:
//
//	GET /window/{broadcast}/{rendition}/{sequence}.m4s?v={epoch}.{profile}
//	GET /window/{broadcast}/{rendition}/{sequence}.{part}.m4s?v={epoch}.{profile}
//	GET /window/{broadcast}/{rendition}/init-{hash}.mp4
//	GET /window/{broadcast}/thumbnail.jpg
//
// A segment is the concatenation of its parts, byte for byte. 404: the window
// doesn't hold it (any more, or under that version); an edge then asks S3.
//
// The package writes these addresses for edges and reads them for workers. It
// does no I/O.
package window

import (
	"net/url"
	"strconv"
	"strings"
)

// The patterns of [net/http.ServeMux] by which a worker serves its window.
const (
	// FilePattern is that of a rendition's files, for [ParseFile].
	FilePattern = "GET /window/{broadcast}/{rendition}/{file}"
	// ThumbnailPattern is that of the newest picture.
	ThumbnailPattern = "GET /window/{broadcast}/thumbnail.jpg"
	// VersionParameter is the query parameter that ParseFile takes as version.
	VersionParameter = "v"
)

const (
	initPrefix, initSuffix = "init-", ".mp4"
	mediaSuffix            = ".m4s"
)

// Media names one segment or part of a rendition.
type Media struct {
	Broadcast string
	Rendition string
	// Epoch is the ingest's.
	Epoch    uint64
	Sequence uint64
	// Part is the part's number, or WholeSegment.
	Part    int
	Profile string
}

// WholeSegment stands for all parts of a segment.
const WholeSegment = -1

// Version is the value of the query parameter v.
func (m Media) Version() string { return strconv.FormatUint(m.Epoch, 10) + "." + m.Profile }

// Path returns the path and query of a segment or part.
func (m Media) Path() string {
	name := strconv.FormatUint(m.Sequence, 10)
	if m.Part != WholeSegment {
		name += "." + strconv.Itoa(m.Part)
	}
	return directory(m.Broadcast, m.Rendition) + name + mediaSuffix + "?" + VersionParameter + "=" + url.QueryEscape(m.Version())
}

// InitPath returns the path of an init section.
func InitPath(broadcast, rendition, hash string) string {
	return directory(broadcast, rendition) + initPrefix + url.PathEscape(hash) + initSuffix
}

// ThumbnailPath returns the path of the newest picture.
func ThumbnailPath(broadcast string) string {
	return "/window/" + url.PathEscape(broadcast) + "/thumbnail.jpg"
}

func directory(broadcast, rendition string) string {
	return "/window/" + url.PathEscape(broadcast) + "/" + url.PathEscape(rendition) + "/"
}

// File is what one file of a rendition is asked for by.
type File struct {
	// Init is the hash of an init section. It is empty for a segment or part,
	// which the fields below name.
	Init     string
	Sequence uint64
	// Part is the part's number, or WholeSegment.
	Part    int
	Epoch   uint64
	Profile string
}

// ParseFile reads a file's name, the last element of its path, and the value of
// the query parameter v. ok is false where no file has that name.
func ParseFile(name, version string) (f File, ok bool) {
	if hash, isInit := strings.CutPrefix(name, initPrefix); isInit {
		hash, ok = strings.CutSuffix(hash, initSuffix)
		return File{Init: hash}, ok && hash != ""
	}
	name, ok = strings.CutSuffix(name, mediaSuffix)
	if !ok {
		return File{}, false
	}
	f.Part = WholeSegment
	sequence, part, hasPart := strings.Cut(name, ".")
	var err error
	if f.Sequence, err = strconv.ParseUint(sequence, 10, 64); err != nil {
		return File{}, false
	}
	if hasPart {
		n, err := strconv.ParseUint(part, 10, 16)
		if err != nil {
			return File{}, false
		}
		f.Part = int(n)
	}
	epoch, profile, ok := strings.Cut(version, ".")
	if !ok || profile == "" {
		return File{}, false
	}
	f.Profile = profile
	f.Epoch, err = strconv.ParseUint(epoch, 10, 64)
	return f, err == nil
}
