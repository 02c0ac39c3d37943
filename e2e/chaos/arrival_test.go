//go:build chaos

package chaos

import (
	"fmt"
	"math"
	"slices"
	"time"

	"millrace/e2e/hls"
)

// arrival is the first sight of a part.
type arrival struct {
	sequence uint64
	part     int
	at       time.Time
	// begins and due are the wall-clock times of its start and end, by EXT-X-PROGRAM-DATE-TIME.
	begins, due   time.Time
	discontinuity uint64
}

// behind is how far each rendition's newest part's end lies in the past, the worst.
func (o *observer) behind() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	worst := time.Duration(0)
	for _, x := range o.r.Renditions {
		if list := o.arrivals[x.Name]; len(list) > 0 {
			worst = max(worst, time.Since(list[len(list)-1].due))
		} else {
			worst = time.Hour
		}
	}
	return worst
}

// recovery is what one fault did to the arrival of parts.
type recovery struct {
	// source and rung are from the fault to the first new part, of the slowest rung;
	// negative: none came, of some rung.
	source, rung time.Duration
	// lateSource and lateRung are by how much the latest part came later than
	// parts did before the fault.
	lateSource, lateRung time.Duration
}

// recovered measures what lies between a fault and the time until.
func (o *observer) recovered(fault, until time.Time) recovery {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := recovery{source: -1, rung: -1}
	var rungs []time.Duration
	for _, x := range o.r.Renditions {
		if x.Name == "audio" {
			continue
		}
		first, late := time.Duration(-1), time.Duration(0)
		var usual []time.Duration
		for _, a := range o.arrivals[x.Name] {
			switch lag := a.at.Sub(a.due); {
			case a.at.Before(fault):
				usual = append(usual, lag)
			case a.at.After(until):
			default:
				// What was on its way when it happened isn't a sign of life.
				if since := a.at.Sub(fault); since > 40*time.Millisecond && first < 0 {
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
			r.source, r.lateSource = first, max(late, 0)
		} else {
			rungs = append(rungs, first)
			r.lateRung = max(r.lateRung, late)
		}
	}
	if len(rungs) > 0 && slices.Min(rungs) >= 0 {
		r.rung = slices.Max(rungs)
	}
	return r
}

// between is how many seconds of the source there are from one program
// date-time to another: while the publisher is away, none.
func (o *observer) between(from, to time.Time) float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	total := 0.0
	for _, a := range o.arrivals["source"] {
		begins, due := a.begins, a.due
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

// firstAfterBreak is the arrival of the first part after the n-th discontinuity
// of the source since the start, nil if there is none.
func (o *observer) firstAfterBreak(n uint64) *arrival {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range o.arrivals["source"] {
		if a.discontinuity >= o.firsts["source"]+n {
			return &a
		}
	}
	return nil
}

// discontinuities is the largest number of any rendition.
func (o *observer) discontinuities() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := uint64(0)
	for _, b := range o.breaks {
		n = max(n, b)
	}
	return int(n)
}

// drift is the largest change of the distance between the start of the sound
// and that of the picture over all segments, in milliseconds; NaN without any.
func (o *observer) drift() float64 {
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

func (o *observer) find(name string) *hls.Rendition {
	for _, x := range o.r.Renditions {
		if x.Name == name {
			return x
		}
	}
	return nil
}

// holes are the sequence numbers between a rendition's first and last segment
// that were never listed as a whole segment.
func (o *observer) holes() []string {
	var list []string
	for _, x := range o.r.Renditions {
		var numbers []uint64
		for n := range x.Segments {
			numbers = append(numbers, n)
		}
		if len(numbers) == 0 {
			list = append(list, x.Name+" has no segments")
			continue
		}
		for n := slices.Min(numbers); n < slices.Max(numbers); n++ {
			if x.Segments[n] == nil && !o.gaps[fmt.Sprintf("%s/%d", x.Name, n)] {
				list = append(list, fmt.Sprintf("%s/%d", x.Name, n))
			}
		}
	}
	return list
}

// seams checks that segments begin where those before them end.
func (o *observer) seams() []string {
	var list []string
	for _, x := range o.r.Renditions {
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
