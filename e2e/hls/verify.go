package hls

import (
	"bytes"
	"fmt"
	"math"
	"slices"
)

// checkMedia checks a segment against what the playlist says of it.
func (x *Rendition) checkMedia(s *Segment) (err error) {
	tr := x.Inits[s.Map]
	if s.Samples, err = tr.ParseFragments(s.Data); err != nil {
		return err
	}
	if err := tr.checkSamples(s.Samples); err != nil {
		return err
	}
	seconds := float64(s.end()-s.Samples[0].DTS) / float64(tr.Timescale)
	if math.Abs(seconds-s.Duration) > rounding*float64(len(s.parts)+1) {
		return fmt.Errorf("its samples last %g s, EXTINF says %g", seconds, s.Duration)
	}
	var joined []byte
	for i, p := range s.parts {
		data := x.media[p.URI]
		joined = append(joined, data...)
		samples, err := tr.ParseFragments(data)
		if err != nil {
			return fmt.Errorf("part %d: %w", i, err)
		}
		if err := checkPart(tr, p, samples); err != nil {
			return fmt.Errorf("part %d: %w", i, err)
		}
	}
	if len(s.parts) > 0 && !bytes.Equal(joined, s.Data) {
		return fmt.Errorf("%d bytes, which aren't its %d parts (%d bytes)", len(s.Data), len(s.parts), len(joined))
	}
	return nil
}

func checkPart(tr *Track, p ListedPart, samples []Sample) error {
	ticks := int64(0)
	sync := false
	for _, x := range samples {
		ticks += x.duration
		sync = sync || x.sync
	}
	if seconds := float64(ticks) / float64(tr.Timescale); math.Abs(seconds-p.Duration) > rounding {
		return fmt.Errorf("its samples last %g s, DURATION says %g", seconds, p.Duration)
	}
	if p.Independent && !sync || samples[0].sync && !p.Independent {
		return fmt.Errorf("INDEPENDENT=%t, sync at the start %t, sync at all %t", p.Independent, samples[0].sync, sync)
	}
	return nil
}

// List returns the segments in order. A hole fails the test.
func (x *Rendition) List() []*Segment {
	x.r.t.Helper()
	var numbers []uint64
	for n := range x.Segments {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	list := make([]*Segment, 0, len(numbers))
	for i, n := range numbers {
		if n != numbers[0]+uint64(i) {
			x.r.t.Fatalf("%s: segment %d is missing", x.Name, numbers[0]+uint64(i))
		}
		list = append(list, x.Segments[n])
	}
	if len(list) == 0 {
		x.r.t.Fatalf("%s has no segments", x.Name)
	}
	return list
}

// Verify checks the whole broadcast once it has been read: continuous in each
// rendition, aligned across them, decoded without a warning. It returns the
// discontinuity sequence number of the last segment.
func (r *Reader) Verify() uint64 {
	r.t.Helper()
	first := r.Renditions[0]
	reference := first.List()
	for _, x := range r.Renditions {
		list := x.List()
		if len(list) != len(reference) || list[0].Sequence != reference[0].Sequence {
			r.t.Errorf("%s has segments %d to %d, %s %d to %d", x.Name, list[0].Sequence, list[len(list)-1].Sequence,
				first.Name, reference[0].Sequence, reference[len(reference)-1].Sequence)
			continue
		}
		if a, b := first.newest, x.newest; a.TargetDuration != b.TargetDuration || a.ServerControl != b.ServerControl || a.PartInf != b.PartInf {
			r.t.Errorf("%s and %s differ in their settings: %+v, %+v", first.Name, x.Name, a, b)
		}
		for i, s := range list {
			if err := x.checkPlace(s, reference[i], first); err != nil {
				r.t.Errorf("%s, segment %d: %v", x.Name, s.Sequence, err)
			}
			if i > 0 {
				if err := x.CheckSeam(list[i-1], s); err != nil {
					r.t.Errorf("%s, from segment %d to %d: %v", x.Name, list[i-1].Sequence, s.Sequence, err)
				}
			}
		}
		for i, file := range x.Files() {
			decode(r.t, fmt.Sprintf("%s, piece %d", x.Name, i), file)
		}
	}
	return reference[len(reference)-1].Discontinuity
}

// checkPlace compares a segment with the one of the same number in another rendition.
func (x *Rendition) checkPlace(s, other *Segment, of *Rendition) error {
	if s.Discontinuity != other.Discontinuity || !s.Time.Equal(other.Time) {
		return fmt.Errorf("discontinuity %d at %s, in %s %d at %s", s.Discontinuity, s.Time, of.Name, other.Discontinuity, other.Time)
	}
	a, b := x.Inits[s.Map], of.Inits[other.Map]
	off := float64(s.Start())/float64(a.Timescale) - float64(other.Start())/float64(b.Timescale)
	limit := 1.5 / 90000
	if a.video != b.video {
		limit = 1024.5 / math.Min(float64(a.Timescale), float64(b.Timescale))
	}
	if math.Abs(off) > limit {
		return fmt.Errorf("it starts %g s after %s's", off, of.Name)
	}
	return nil
}

// CheckSeam checks that a segment begins where the one before it ends.
func (x *Rendition) CheckSeam(before, s *Segment) error {
	step := s.Time.Sub(before.Time).Seconds() - before.Duration
	if s.Discontinuity != before.Discontinuity {
		if step < -0.1 {
			return fmt.Errorf("the program date-time is %g s before the end", -step)
		}
		return nil
	}
	if s.Samples[0].DTS != before.end() {
		return fmt.Errorf("it is decoded from %d, the one before it ends at %d", s.Samples[0].DTS, before.end())
	}
	if math.Abs(step) > 0.03 {
		return fmt.Errorf("program date-times %s and %s, between them %g s", before.Time, s.Time, before.Duration)
	}
	return nil
}

// Files joins what plays without a discontinuity into one file each.
func (x *Rendition) Files() []string {
	var files []string
	var pieces [][]byte
	list := x.List()
	for i, s := range list {
		if len(pieces) == 0 {
			pieces = append(pieces, x.Inits[s.Map].init)
		}
		pieces = append(pieces, s.Data)
		if i+1 == len(list) || list[i+1].Discontinuity != s.Discontinuity || list[i+1].Map != s.Map {
			files = append(files, KeepFile(x.r.t, fmt.Sprintf("%s-%d.mp4", x.Name, s.Sequence), pieces...))
			pieces = nil
		}
	}
	return files
}

// samples returns all samples of the rendition.
func (x *Rendition) samples() []Sample {
	var all []Sample
	for _, s := range x.List() {
		all = append(all, s.Samples...)
	}
	return all
}
