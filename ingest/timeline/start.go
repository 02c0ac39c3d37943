package timeline

import (
	"slices"
	"time"

	"millrace/internal/media"
)

// intraAfter is how long a publisher sends no picture that decoding is known to
// start at before those that just refer to no other one are taken for it.
const intraAfter = longTarget * time.Second

// starts is what a [Sequencer] knows of where decoding can start. Its zero value
// is that of a publisher that comes.
type starts struct {
	newest time.Time // when one came; before it, when the first picture did
	intra  bool      // pictures that refer to no other one are taken for them
	points []point   // of the segments since the last clean start, oldest first
}

// point is a segment that begins where decoding can start.
type point struct {
	sequence uint64
	// left is how many pictures are to come until all is right.
	left int
}

// Start says how well decoding can start at a picture, which may be noted in it:
// where nothing better came for long, a picture that refers to no other one is
// as good as a recovery point.
func (s *Sequencer) Start(u *media.Unit, now time.Time) media.Start {
	st := &s.starts
	start := u.Start()
	if st.newest.IsZero() || start > media.IntraStart {
		st.newest = now
	}
	st.intra = st.intra || now.Sub(st.newest) > intraAfter
	if start == media.IntraStart && st.intra {
		u.Access.Recovery, u.Access.RecoveryFrames, st.newest = true, 0, now
	}
	if start = u.Start(); start == media.IntraStart {
		return media.NoStart
	}
	return start
}

// begin notes that a segment begins at a picture where decoding can start.
func (st *starts) begin(sequence uint64, u *media.Unit) {
	if n := len(st.points); n > 0 && st.points[n-1].sequence == sequence {
		st.points = st.points[:n-1]
	}
	st.points = append(st.points, point{sequence, u.Access.RecoveryFrames + 1}) // itself, too
}

// pass counts a picture. HEVC counts all of them, H.264 those that others refer to.
func (st *starts) pass(u *media.Unit, f media.Format) {
	if u.Access.Disposable && f != media.HEVC {
		return
	}
	for i := range st.points {
		st.points[i].left = max(0, st.points[i].left-1)
	}
}

// decodeFrom returns the newest segment that decoding can start at so that all is
// right from now on; where there is none, the oldest one known. Older ones are
// forgotten.
func (st *starts) decodeFrom() uint64 {
	i := len(st.points) - 1
	for i > 0 && st.points[i].left > 0 {
		i--
	}
	st.points = st.points[i:]
	return st.points[0].sequence
}

// dropLeading takes away, of what was gathered, the leading pictures of the first
// one, which refer past it: that is decoded in place of the last of them.
func dropLeading(held []heldUnit) []heldUnit {
	first := slices.IndexFunc(held, func(h heldUnit) bool { return h.unit.Track == media.Video })
	if first < 0 || held[first].unit.Start() != media.OpenStart {
		return held
	}
	kept := held[:first+1]
	trailing := false
	for _, h := range held[first+1:] {
		if h.unit.Track == media.Video && !trailing {
			if trailing = h.unit.PTS > held[first].unit.PTS; !trailing {
				held[first].unit.DTS = h.unit.DTS
				continue
			}
		}
		kept = append(kept, h)
	}
	return kept
}
