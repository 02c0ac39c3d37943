package encode

import (
	"slices"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/internal/relay"
)

// timeline is the frame times of one segment and where its parts begin. It
// follows from the segment's mark and the log's times alone, and all
// renditions are cut by it. Not safe for concurrent use.
type timeline struct {
	mark relay.Mark
	// limit is the longest part; nominal the usual distance of two groups of
	// frames; step how many frames a group has.
	limit, nominal media.Ticks
	step           int

	times  []media.Ticks // of the frames, rising
	cuts   []cut
	group  int // index of the last group's first frame
	closed bool
	end    media.Ticks
}

// cut is where a part begins.
type cut struct {
	at    media.Ticks
	frame int // how many frames of the segment come before
}

func newTimeline(m relay.Mark, s relay.Settings) *timeline {
	t := &timeline{mark: m, limit: s.PartDuration, step: max(1, s.FrameStep), cuts: []cut{{at: m.Start}}}
	switch {
	case m.Held: // each repetition is a part
		t.step, t.nominal = 1, t.limit
	case s.FrameRate > 0:
		t.nominal = media.Ticks(float64(t.step) / s.FrameRate * media.VideoTimescale)
	}
	return t
}

// add takes the next frame's time and cuts a part before the frame that would
// cross its limit: either before this one, if it would cross by the usual
// distance, or before the one before it, whose end is known only now.
func (t *timeline) add(at media.Ticks) {
	n := len(t.times)
	t.times = append(t.times, at)
	if n == 0 || n%t.step != 0 {
		return
	}
	if last := t.cuts[len(t.cuts)-1]; at-last.at > t.limit && t.group > last.frame {
		t.cuts = append(t.cuts, cut{t.times[t.group], t.group})
	}
	t.group = n
	if last := t.cuts[len(t.cuts)-1]; at+t.nominal-last.at > t.limit {
		t.cuts = append(t.cuts, cut{at, n})
	}
}

// close ends the segment.
func (t *timeline) close(end media.Ticks) {
	t.closed = true
	t.end = max(end, t.cuts[len(t.cuts)-1].at+1)
	if n := len(t.times); n > 0 {
		t.end = max(t.end, t.times[n-1]+1)
		last := t.cuts[len(t.cuts)-1]
		if t.end-last.at > t.limit && t.group > last.frame {
			t.cuts = append(t.cuts, cut{t.times[t.group], t.group})
		}
	}
}

// part returns the bounds of part n, if they are settled.
func (t *timeline) part(n int) (from, to cut, last, ok bool) {
	switch {
	case n+1 < len(t.cuts):
		return t.cuts[n], t.cuts[n+1], false, true
	case t.closed && n+1 == len(t.cuts):
		return t.cuts[n], cut{t.end, len(t.times)}, true, true
	}
	return cut{}, cut{}, false, false
}

// nearest returns the time of a source frame within two milliseconds of at, or
// at itself: encoders round decode and presentation times differently.
func (t *timeline) nearest(at media.Ticks) media.Ticks {
	const tolerance = 2 * media.TicksPerMillisecond
	for i := len(t.times) - 1; i >= 0 && t.times[i] >= at-tolerance; i-- {
		if t.times[i] <= at+tolerance {
			return t.times[i]
		}
	}
	return at
}

// frame is one access unit of a rendition.
type frame struct {
	// time is when to decode it, in the rendition's timescale; at the same in Ticks.
	time int64
	at   media.Ticks
	// offset is PTS minus time.
	offset  int32
	key     bool // decoding can start here
	payload []byte
}

// rendering makes the parts of one segment in one rendition from its frames.
// It writes the same bytes whenever it is given the same frames and timeline.
// Not safe for concurrent use.
type rendering struct {
	tl    *timeline
	entry index.Entry // what all entries of this segment share
	step  int         // source frames per frame; 0 for audio
	// grid is where the frames of sound lie; its zero value is of pictures.
	grid media.Grid
	// publish gets each part, and with the last one, whose data may be empty,
	// the segment (else its Type is empty).
	publish func(part index.Entry, data []byte, segment index.Entry)

	frames   []frame
	next     int // the cut whose part is waited for
	parts    int // written so far: a part without frames is left out
	complete bool
	duration media.Ticks // of the parts written
	size     int
	done     bool
}

// newRendering prepares a segment of pictures, of which step of the source make one.
func newRendering(tl *timeline, writer jobs.Epoch, name, init, profile string, step int) *rendering {
	return &rendering{
		tl: tl, step: step,
		entry: index.Entry{
			Writer: writer, Rendition: name, Init: init, Profile: profile,
			Epoch: tl.mark.Epoch, Sequence: tl.mark.Sequence,
			Discontinuity: tl.mark.Discontinuity, Time: tl.mark.Time,
		},
	}
}

// newSoundRendering prepares a segment of sound in codec c.
func newSoundRendering(tl *timeline, writer jobs.Epoch, name, init, profile string, c *media.Codec) *rendering {
	r := newRendering(tl, writer, name, init, profile, 0)
	r.grid = c.Grid(tl.mark.AudioStart)
	return r
}

// audio reports whether it is of sound.
func (r *rendering) audio() bool { return r.grid.Frame > 0 }

// reached is up to where the parts are written.
func (r *rendering) reached() media.Ticks {
	if r.next < len(r.tl.cuts) {
		return r.tl.cuts[r.next].at
	}
	return r.tl.end
}

// takeFrom removes and returns the frames from time on: sound that came before
// the mark of the segment that it belongs to.
func (r *rendering) takeFrom(time int64) []frame {
	n := len(r.frames)
	for n > 0 && r.frames[n-1].time >= time {
		n--
	}
	taken := slices.Clone(r.frames[n:])
	r.frames = r.frames[:n]
	return taken
}

func (r *rendering) add(f frame) { r.frames = append(r.frames, f) }

// expected is how many frames the part between two cuts has in this rendition.
func (r *rendering) expected(from, to cut) int {
	if r.audio() {
		return r.grid.Count(to.at) - r.grid.Count(from.at)
	}
	return (to.frame+r.step-1)/r.step - (from.frame+r.step-1)/r.step
}

// advance writes the parts that are settled and whose frames are here.
// complete says that no more frames will come for this segment.
func (r *rendering) advance(complete bool) {
	r.complete = r.complete || complete
	for !r.done {
		from, to, last, ok := r.tl.part(r.next)
		if !ok {
			return
		}
		n := 0
		for n < len(r.frames) && r.frames[n].at < to.at {
			n++
		}
		switch want := r.expected(from, to); {
		case n < want && n == len(r.frames) && !r.complete:
			return // some are on their way
		case n > want && r.tl.mark.Held && !r.audio():
			n = want // more are made ahead of time than the log may ask for
		}
		r.write(from, to, n, last)
	}
}

func (r *rendering) write(from, to cut, n int, last bool) {
	part := r.entry
	part.Type, part.Part, part.Independent = index.TypePart, r.parts, false
	part.Duration = to.at - from.at
	f := media.Fragment{Number: uint32(r.tl.mark.Sequence*index.MaxParts) + uint32(r.parts) + 1, DecodeTime: uint64(r.scaled(from.at)), Samples: make([]media.Sample, n)}
	end := r.scaled(to.at)
	if r.audio() {
		f.DecodeTime = uint64(r.grid.Origin) + uint64(r.grid.Count(from.at))*uint64(r.grid.Frame)
		part.Duration = (media.Samples(n) * r.grid.Frame).Ticks(r.grid.Rate)
		part.Independent = true
	}
	for i := range n {
		fr := &r.frames[i]
		start, until := fr.time, end
		if i == 0 {
			if !r.audio() {
				// Where the picture at the cut is missing, since the encoder's
				// stream broke off among B-frames, the next one is shown earlier.
				start = min(start, r.scaled(from.at))
			}
			f.DecodeTime = uint64(start)
			part.Independent = part.Independent || fr.key
		}
		if i+1 < n {
			until = r.frames[i+1].time
		}
		d := max(1, until-start)
		if r.audio() {
			d = int64(r.grid.Frame)
		}
		f.Samples[i] = media.Sample{Duration: uint32(d), CompositionOffset: fr.offset, Sync: r.audio() || fr.key, Payload: fr.payload}
	}
	size := 0
	for i := range f.Samples {
		size += len(f.Samples[i].Payload)
	}
	var data []byte
	if n > 0 {
		data = f.Append(make([]byte, 0, size+128+16*n))
		part.Size = len(data)
		if r.parts == 0 {
			r.entry.Independent = part.Independent
		}
		r.parts++
		r.size += part.Size
		r.duration += part.Duration
	}
	r.frames = r.frames[n:]
	r.next++
	var segment index.Entry
	if last {
		segment = r.entry
		r.done = true
		segment.Type, segment.Parts, segment.Size, segment.Duration = index.TypeSegment, r.parts, r.size, r.duration
	}
	if n > 0 || last {
		r.publish(part, data, segment)
	}
}

func (r *rendering) scaled(t media.Ticks) int64 {
	if r.audio() {
		return int64(media.SamplesOf(t, r.grid.Rate))
	}
	return int64(t)
}
