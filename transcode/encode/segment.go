package encode

import (
	"slices"

	"millrace/internal/media"
)

// segment is one that is being made.
type segment struct {
	tl     *timeline
	video  bool       // it has pictures
	source *rendering // the source as it is; nil without pictures, or where standIn takes its place
	// standIn makes, under the source's name, what the source doesn't have: held
	// pictures, and those that only who saw the pictures before them could decode.
	standIn *rungWork
	audio   *rendering // nil without sound
	// transcode makes its sound; nil if that is repackaged.
	transcode *soundTranscode
	rungs     []*rungWork
	runs      []*encodingRun
	made      int  // how many of the rungs are encoded, from the lowest on
	burst     bool // it came from the log faster than real time
	// partial is set when sound was given up of which not all came.
	partial bool
	// pictures are those that the rungs are made of, from the random access point on.
	pictures []*media.Unit
	codec    *media.Codec // of the pictures
}

// segments are a worker's that aren't done. The worker adds and takes away;
// encoding and sound look at them.
type segments struct {
	list    []*segment // oldest first
	current *segment   // the one that the log is in, or nil
}

// open adds the segment that the log has come to.
func (l *segments) open(s *segment) {
	l.list = append(l.list, s)
	l.current = s
}

// drop takes the open segment away, and returns it; nil when none is open.
func (l *segments) drop() *segment {
	s := l.current
	if s != nil {
		l.current = nil
		l.list = l.list[:len(l.list)-1]
	}
	return s
}

// newest is the segment that was opened last, or nil.
func (l *segments) newest() *segment {
	if len(l.list) == 0 {
		return nil
	}
	return l.list[len(l.list)-1]
}

// unmade is how many were cut and aren't done.
func (l *segments) unmade() int {
	n := len(l.list)
	if l.current != nil {
		n--
	}
	return n
}

// advance writes what is settled of all renditions.
func (s *segment) advance() {
	if s.source != nil {
		s.source.advance(s.tl.closed)
	}
	if s.audio != nil {
		s.audio.advance(false)
	}
	for _, r := range s.works() {
		r.advance(false)
	}
}

// works are all the renditions that are encoded of the segment.
func (s *segment) works() []*rungWork {
	if s.standIn == nil {
		return s.rungs
	}
	return append(slices.Clip(s.rungs), s.standIn)
}

func (s *segment) done() bool {
	if !s.tl.closed || s.source != nil && !s.source.done || s.audio != nil && !s.audio.done {
		return false
	}
	for _, r := range s.works() {
		if !r.done {
			return false
		}
	}
	return true
}

// shedFor returns the segment's rungs that a rendition stands in for.
func (s *segment) shedFor(rendition string) (shed []*rungWork) {
	for _, r := range s.rungs {
		if r.standIn == rendition {
			shed = append(shed, r)
		}
	}
	return shed
}
