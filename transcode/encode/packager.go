package encode

import (
	"math"
	"slices"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/internal/relay"
)

// timeline is the frame times of one segment and where its parts begin. It
// follows from the segment's mark and the log's times alone, and all
// renditions are cut by it. Not safe for concurrent use.
//
// Frames come in groups, each of which begins with a picture that a 30 fps rung
// takes; parts begin with a group. The settings fit the frame rate that was
// settled: where another one comes, parts are cut by time, and the picture after
// such a cut is decoded earlier or later than usual. When it is shown changes only
// if it were shown before that.
type timeline struct {
	mark relay.Mark
	// least and limit are the shortest and the longest part, nominal the usual
	// distance of two groups.
	least, limit, nominal media.Ticks

	groups picker
	times  []media.Ticks // of the frames, rising
	shown  []media.Ticks // when pictures are shown, in decode order
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
	t := &timeline{mark: m, limit: s.PartDuration, cuts: []cut{{at: m.Start}}}
	// "at least 85% of the Part Target Duration" (RFC 8216bis, 4.4.4.9), and what
	// rounding takes. Parts of sound are all independent, so they may be shorter.
	t.least = min(t.limit, (85*s.PartTarget+99)/100+1)
	switch {
	case m.Held: // each repetition is a part
		t.nominal = t.limit
	case s.FrameRate > 0:
		step := max(1, s.FrameStep)
		t.groups.gap = rungGap(s.FrameRate/float64(step), step)
		t.nominal = media.Ticks(float64(step) / s.FrameRate * media.VideoTimescale)
	}
	return t
}

func (t *timeline) last() cut { return t.cuts[len(t.cuts)-1] }

// add takes the next frame's time and cuts a part before the frame that would
// cross its limit: before this one, if it would cross by the usual distance, or
// earlier, since how long a group lasts is known only now.
func (t *timeline) add(at media.Ticks) {
	n := len(t.times)
	t.times = append(t.times, at)
	if !t.groups.take(at) || n == 0 {
		return
	}
	t.divide(at)
	t.divideByTime(at, n)
	t.group = n
	if last := t.last(); n > last.frame && at-last.at >= t.least && at+t.nominal-last.at > t.limit {
		t.cuts = append(t.cuts, cut{at, n})
	}
}

// divide cuts before the last group if the part would else last too long until
// end, and is long enough until that group.
func (t *timeline) divide(end media.Ticks) {
	if last := t.last(); end-last.at > t.limit && t.group > last.frame && t.times[t.group]-last.at >= t.least {
		t.cuts = append(t.cuts, cut{t.times[t.group], t.group})
	}
}

// divideByTime cuts where no group begins at which the part can end: frame n is
// decoded early, or where that were by much, the group before it late.
func (t *timeline) divideByTime(at media.Ticks, n int) {
	last := t.last()
	early, late := at-last.at-t.limit, last.at+t.least-t.times[t.group]
	if t.group > last.frame && early > t.limit/3 && early > late {
		last = cut{last.at + t.least, t.group}
		t.cuts = append(t.cuts, last)
	}
	if at-last.at > t.limit {
		t.cuts = append(t.cuts, cut{last.at + t.limit, n})
	}
}

// close ends the segment.
func (t *timeline) close(end media.Ticks) {
	t.closed = true
	t.end = max(end, t.last().at+1)
	n := len(t.times)
	if n == 0 {
		return
	}
	t.end = max(t.end, t.times[n-1]+1)
	t.divide(t.end)
	if last := t.last(); t.end-last.at > t.limit && t.group > last.frame {
		// The last group comes too early for a cut: it is decoded later than usual.
		t.cuts = append(t.cuts, cut{last.at + t.least, t.group})
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

// before is the time that the frames before a cut are earlier than.
func (t *timeline) before(c cut) media.Ticks {
	if c.frame < len(t.times) {
		return t.times[c.frame]
	}
	return math.MaxInt64
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
	// picks are the source's frames that it has, by decode times; looked is how many
	// picks was asked for, due how many of those it has.
	picks       picker
	looked, due int
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
	samples  int
	done     bool
}

// newRendering prepares a segment of pictures, which are at least gap apart.
func newRendering(tl *timeline, writer jobs.Epoch, name, init, profile string, gap media.Ticks) *rendering {
	return &rendering{
		tl: tl, picks: picker{gap: gap},
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

// expected is how many frames the part between two cuts, which is waited for, has
// in this rendition.
func (r *rendering) expected(from, to cut) int {
	if r.audio() {
		return r.grid.Count(to.at) - r.grid.Count(from.at)
	}
	for ; r.looked < to.frame; r.looked++ {
		if r.picks.take(r.tl.times[r.looked]) {
			r.due++
		}
	}
	if r.tl.closed && to.frame == len(r.tl.times) && len(r.tl.shown) == to.frame {
		// Where the frame rate changes, an encoder with B-frames has other distances
		// between decode times than between pictures, and a rung is made of these.
		r.due = r.picks.of(r.tl.shown)
	}
	return r.due - r.samples
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
		before := to.at
		if !r.audio() {
			before = r.tl.before(to)
		}
		n := 0
		for n < len(r.frames) && r.frames[n].at < before {
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
	f := media.Fragment{Number: uint32(r.tl.mark.Sequence*index.MaxParts) + uint32(r.parts) + 1, DecodeTime: uint64(r.scaled(from.at))}
	if r.audio() {
		f.DecodeTime = uint64(r.grid.Origin) + uint64(r.grid.Count(from.at))*uint64(r.grid.Frame)
		part.Duration = (media.Samples(n) * r.grid.Frame).Ticks(r.grid.Rate)
		part.Independent = true
		f.Samples = r.sound(n)
	} else {
		f.Samples = r.pictures(from, to, n)
		for i := range f.Samples {
			part.Independent = part.Independent || i == 0 && f.Samples[i].Sync
		}
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
		r.samples += n
		r.duration += part.Duration
	}
	r.frames = r.frames[n:]
	r.next++
	var segment index.Entry
	if last {
		segment = r.entry
		r.done = true
		segment.Type, segment.Parts, segment.Size, segment.Duration = index.TypeSegment, r.parts, r.size, r.duration
		if !r.audio() {
			segment.Frames = r.samples
		}
	}
	if n > 0 || last {
		r.publish(part, data, segment)
	}
}

// sound gives the samples of the next n frames of sound.
func (r *rendering) sound(n int) []media.Sample {
	samples := make([]media.Sample, n)
	for i := range samples {
		samples[i] = media.Sample{Duration: uint32(r.grid.Frame), Sync: true, Payload: r.frames[i].payload}
	}
	return samples
}

// pictures gives the samples of the next n frames, which last from one cut to
// another. The first one is decoded at the cut even if its own time is another
// one, as in a timeline that is cut by time, or where the picture at the cut is
// missing since the encoder's stream broke off among B-frames. When it is shown
// doesn't change, but that nothing is decoded after that.
func (r *rendering) pictures(from, to cut, n int) []media.Sample {
	samples := make([]media.Sample, n)
	start := from.at
	for i := range samples {
		fr := &r.frames[i]
		until := to.at
		if i+1 < n {
			until = max(start+1, min(r.frames[i+1].at, to.at-media.Ticks(n-1-i)))
		}
		shown := fr.at + media.Ticks(fr.offset)
		offset := max(shown-start, min(0, media.Ticks(fr.offset)))
		samples[i] = media.Sample{Duration: uint32(max(1, until-start)), CompositionOffset: int32(offset), Sync: fr.key, Payload: fr.payload}
		start = until
	}
	return samples
}

func (r *rendering) scaled(t media.Ticks) int64 {
	if r.audio() {
		return int64(media.SamplesOf(t, r.grid.Rate))
	}
	return int64(t)
}
