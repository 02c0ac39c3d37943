// Package window is the contract by which edges read a worker's newest media:
//
//	GET /window/{broadcast}/{rendition}/{sequence}.m4s?v={epoch}.{profile}
//	GET /window/{broadcast}/{rendition}/{sequence}.{part}.m4s?v={epoch}.{profile}
//	GET /window/{broadcast}/{rendition}/init-{hash}.mp4
//	GET /window/{broadcast}/thumbnail.jpg
//
// A segment is the concatenation of its parts, byte for byte. 404: the window
// doesn't hold it (any more, or under that version); an edge then asks S3.
package window

import (
	"net/url"
	"strconv"
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
	return "/window/" + url.PathEscape(m.Broadcast) + "/" + url.PathEscape(m.Rendition) + "/" + name + ".m4s?v=" + m.Version()
}

// InitPath returns the path of an init section.
func InitPath(broadcast, rendition, hash string) string {
	return "/window/" + url.PathEscape(broadcast) + "/" + url.PathEscape(rendition) + "/init-" + hash + ".mp4"
}

// ThumbnailPath returns the path of the newest picture.
func ThumbnailPath(broadcast string) string {
	return "/window/" + url.PathEscape(broadcast) + "/thumbnail.jpg"
}
