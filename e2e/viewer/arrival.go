package viewer

import (
	"fmt"
	"math"
	"slices"
	"time"

	"millrace/e2e/hls"
)

// Arrival is the first sight of a part.
type Arrival struct {
	Sequence uint64
	Part     int
	At       time.Time
	// Begins and Due are the wall-clock times of its start and end, by EXT-X-PROGRAM-DATE-TIME.
	Begins, Due   time.Time
	Discontinuity uint64
}

// Behind is how far each rendition's newest part's end lies in the past, the worst.
func (o *Observer) Behind() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	worst := time.Duration(0)
	for _, x := range o.Reader.Renditions {
		if list := o.arrivals[x.Name]; len(list) > 0 {
			worst = max(worst, time.Since(list[len(list)-1].Due))
		} else {
			worst = time.Hour
		}
	}
	return worst
}

// Recovery is what one fault did to the arrival of parts.
type Recovery struct {
	// Source and Rung are from the fault to the first new part, of the slowest rung;
	// negative: none came, of some rung.
	Source, Rung time.Duration
	// LateSource and LateRung are by how much the latest part came later than
	// parts did before the fault.
	LateSource, LateRung time.Duration
}

// Recovered measures what lies between a fault and the time until.
func (o *Observer) Recovered(fault, until time.Time) Recovery {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := Recovery{Source: -1, Rung: -1}
	var rungs []time.Duration
	for _, x := range o.Reader.Renditions {
		if x.Name == "audio" {
			continue
		}
		first, late := time.Duration(-1), time.Duration(0)
		var usual []time.Duration
		for _, a := range o.arrivals[x.Name] {
			switch lag := a.At.Sub(a.Due); {
			case a.At.Before(fault):
				usual = append(usual, lag)
			case a.At.After(until):
			default:
				// What was on its way when it happened isn't a sign of life.
				if since := a.At.Sub(fault); since > 40*time.Millisecond && first < 0 {
					first = since
				}
				late = max(late, lag)
			}
		}
		if len(usual) > 60 {
			usual = usual[len(usual)-60:]
		}
		if len(usual) > 0 {
			slices.Sort(usual)
			late -= usual[len(usual)/2]
		}
		if x.Name == "source" {
			r.Source, r.LateSource = first, max(late, 0)
		} else {
			rungs = append(rungs, first)
			r.LateRung = max(r.LateRung, late)
		}
	}
	if len(rungs) > 0 && slices.Min(rungs) >= 0 {
		r.Rung = slices.Max(rungs)
	}
	return r
}

// Between is how many seconds of the source there are from one program
// date-time to another: while the publisher is away, none.
func (o *Observer) Between(from, to time.Time) float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	total := 0.0
	for _, a := range o.arrivals["source"] {
		begins, due := a.Begins, a.Due
		if begins.Before(from) {
			begins = from
		}
		if due.After(to) {
			due = to
		}
		total += max(0, due.Sub(begins).Seconds())
	}
	return total
}

// FirstAfterBreak is the arrival of the first part after the n-th discontinuity
// of the source since the start, nil if there is none.
func (o *Observer) FirstAfterBreak(n uint64) *Arrival {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range o.arrivals["source"] {
		if a.Discontinuity >= o.firsts["source"]+n {
			return &a
		}
	}
	return nil
}

// Discontinuities is the largest number of any rendition.
func (o *Observer) Discontinuities() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := uint64(0)
	for _, b := range o.Breaks {
		n = max(n, b)
	}
	return int(n)
}

// Drift is the largest change of the distance between the start of the sound
// and that of the picture over all segments, in milliseconds; NaN without any.
func (o *Observer) Drift() float64 {
	audio, video := o.find("audio"), o.find("source")
	if audio == nil || video == nil {
		return math.NaN()
	}
	var numbers []uint64
	for n, s := range video.Segments {
		if other := audio.Segments[n]; other != nil && len(s.Samples) > 0 && len(other.Samples) > 0 {
			numbers = append(numbers, n)
		}
	}
	if len(numbers) == 0 {
		return math.NaN()
	}
	slices.Sort(numbers)
	base, worst := math.NaN(), 0.0
	for _, n := range numbers {
		v, a := video.Segments[n], audio.Segments[n]
		off := 1000 * (float64(v.Start())/float64(video.Inits[v.Map].Timescale) - float64(a.Start())/float64(audio.Inits[a.Map].Timescale))
		if math.IsNaN(base) {
			base = off
		}
		worst = max(worst, math.Abs(off-base))
	}
	return worst
}

func (o *Observer) find(name string) *hls.Rendition {
	for _, x := range o.Reader.Renditions {
		if x.Name == name {
			return x
		}
	}
	return nil
}

// Holes are the sequence numbers between a rendition's first and last segment
// that were never listed as a whole segment.
func (o *Observer) Holes() []string {
	var list []string
	for _, x := range o.Reader.Renditions {
		var numbers []uint64
		for n := range x.Segments {
			numbers = append(numbers, n)
		}
		if len(numbers) == 0 {
			list = append(list, x.Name+" has no segments")
			continue
		}
		for n := slices.Min(numbers); n < slices.Max(numbers); n++ {
			if x.Segments[n] == nil && !o.Gaps[fmt.Sprintf("%s/%d", x.Name, n)] {
				list = append(list, fmt.Sprintf("%s/%d", x.Name, n))
			}
		}
	}
	return list
}

// Seams checks that segments begin where those before them end.
func (o *Observer) Seams() []string {
	var list []string
	for _, x := range o.Reader.Renditions {
		for n, s := range x.Segments {
			if before := x.Segments[n-1]; n > 0 && before != nil && len(before.Samples) > 0 && len(s.Samples) > 0 {
				if err := x.CheckSeam(before, s); err != nil {
					list = append(list, fmt.Sprintf("%s, from segment %d to %d: %v", x.Name, n-1, n, err))
				}
			}
		}
	}
	return list
}
