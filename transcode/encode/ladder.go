package encode

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"millrace/internal/index"
	"millrace/internal/media"
)

// RungSpec is one line of a configured ladder: what to make at most.
type RungSpec struct {
	Height  int // of the picture's shorter side, in pixels
	Rate    int // frames a second: 30 or 60
	Bitrate int // cap in bits a second
}

// Rung is one encoding to make of a source.
type Rung struct {
	// Name is the rendition's, such as "480p30".
	Name string
	// Lines is the shorter side that the ladder names; the picture's own may be
	// less after the source has changed.
	Lines         int
	Width, Height int
	FrameRate     float64
	// Step is how many source frames make one of the rung's at the frame rate that was
	// settled. Which ones it has is chosen by their times (picker).
	Step int
	// Bitrate is the cap in bits a second.
	Bitrate int
}

// Source is what the rungs of a broadcast depend on.
type Source struct {
	// Format is what its pictures are coded in.
	Format media.Format
	// Rare is set where not every player can play the source itself.
	Rare bool
	// Width and Height are those that it is shown at.
	Width, Height int
	Look          Look
	Picture       media.Picture
	FrameRate     float64
	// Step is how many of its frames make one of a 30 fps rung.
	Step int
}

// lines is the shorter side of its pictures.
func (s Source) lines() int { return min(s.Width, s.Height) }

// defaultLadder is made for sources above 360 lines, smallLadder for the rest.
var (
	defaultLadder = []RungSpec{{720, 60, 3_000_000}, {480, 30, 1_400_000}, {360, 30, 700_000}, {160, 30, 230_000}}
	smallLadder   = []RungSpec{{240, 30, 400_000}, {160, 30, 230_000}}
)

// maxRungs bounds a configured ladder.
const maxRungs = 8

var rungPattern = regexp.MustCompile(`^(\d{2,4})p(\d{1,3})=(\d{2,6})k$`)

// ParseLadder reads a ladder such as "720p60=3000k,480p30=1400k". Empty means
// the default one (nil); "none" means no rungs (empty).
func ParseLadder(text string) ([]RungSpec, error) {
	switch text {
	case "":
		return nil, nil
	case "none":
		return []RungSpec{}, nil
	}
	var specs []RungSpec
	for _, field := range strings.Split(text, ",") {
		m := rungPattern.FindStringSubmatch(strings.TrimSpace(field))
		if m == nil {
			return nil, fmt.Errorf("ladder: %q isn't of the form 480p30=1400k (lines, frames a second, kilobits a second)", field)
		}
		height, _ := strconv.Atoi(m[1]) // the pattern admits numbers only
		rate, _ := strconv.Atoi(m[2])
		kilobits, _ := strconv.Atoi(m[3])
		if height < 64 || height > 4320 || height%2 != 0 || rate != 30 && rate != 60 {
			return nil, fmt.Errorf("ladder: %q is out of range: 64 to 4320 lines (even), 30 or 60 frames a second", field)
		}
		specs = append(specs, RungSpec{height, rate, kilobits * 1000})
	}
	if len(specs) > maxRungs {
		return nil, fmt.Errorf("ladder: %d rungs are more than the %d that can be made", len(specs), maxRungs)
	}
	return specs, nil
}

// BuildLadder returns the rungs to make of a source, highest first: never
// larger than the source, never more frames, and of its shape. They are H.264.
// Of a source that not every player can play the first one is as large as the
// source, whatever the specs say: so every player has its picture, at its best.
func BuildLadder(specs []RungSpec, src Source) []Rung {
	if specs == nil {
		specs = defaultLadder
		if src.lines() <= 360 {
			specs = smallLadder
		}
	}
	var rungs []Rung
	if src.Rare {
		rungs = append(rungs, fullRung(src))
	}
	for _, s := range specs {
		if s.Height >= src.lines() {
			continue
		}
		r := Rung{Lines: s.Height, Step: 1, Bitrate: s.Bitrate}
		// A rung of 30 takes 25 and 29.97 as they are, and each second frame of
		// 60; one of 60 takes what comes.
		if s.Rate == 30 || src.FrameRate > 80 {
			r.Step = src.Step
		}
		r.FrameRate = src.FrameRate / float64(r.Step)
		if r.FrameRate < float64(s.Rate)*0.67 {
			// Half the frames need about two thirds of the bits.
			r.Bitrate = s.Bitrate * 2 / 3
		}
		r.Width, r.Height = fit(src.Width, src.Height, s.Height)
		r.Name = rungName(r)
		rungs = append(rungs, r)
	}
	return rungs
}

func rungName(r Rung) string { return fmt.Sprintf("%dp%.0f", r.Lines, r.FrameRate) }

// fullRung is the rung of a source's own size and frame rate.
func fullRung(src Source) Rung {
	r := Rung{Lines: src.lines(), Step: 1, FrameRate: src.FrameRate, Bitrate: fullBitrates[0].bitrate}
	for _, b := range fullBitrates {
		if r.Lines >= b.lines {
			r.Bitrate = b.bitrate
		}
	}
	if r.FrameRate > 40 {
		r.Bitrate = r.Bitrate * 3 / 2 // twice the frames need about half as much again
	}
	r.Width, r.Height = fit(src.Width, src.Height, r.Lines)
	r.Name = rungName(r)
	return r
}

// fullBitrates are the caps, in bits a second at 30 fps, of rungs of the source's
// own size, from so many lines on.
var fullBitrates = []struct{ lines, bitrate int }{
	{0, 230_000}, {200, 400_000}, {300, 700_000}, {400, 1_400_000}, {600, 2_000_000}, {900, 4_000_000}, {1200, 8_000_000}, {1800, 16_000_000},
}

// announcedRungs returns the rungs of a broadcast that was announced, without
// their sizes. frameRate is the source's.
func announcedRungs(renditions []index.Rendition, frameRate float64) []Rung {
	rungs := []Rung{}
	for _, r := range renditions {
		var lines, rate int
		if _, err := fmt.Sscanf(r.Name, "%dp%d", &lines, &rate); err != nil || r.Kind != media.Video || r.Source {
			continue
		}
		rungs = append(rungs, Rung{
			Name: r.Name, Lines: lines, FrameRate: r.FrameRate, Bitrate: r.MaxBitrate,
			Step: max(1, int(math.Round(frameRate/max(1, r.FrameRate)))),
		})
	}
	return rungs
}

// fit scales a picture so that its shorter side is short, to even numbers.
func fit(width, height, short int) (w, h int) {
	even := func(n float64) int { return max(2, int(math.Round(n/2))*2) }
	if width >= height {
		return even(float64(width) * float64(short) / float64(height)), even(float64(short))
	}
	return even(float64(short)), even(float64(height) * float64(short) / float64(width))
}

// refit adapts the rungs of a broadcast to a source that changed: the same
// names, since players know them, at the new shape and never above it.
func refit(rungs []Rung, width, height int) []Rung {
	out := make([]Rung, len(rungs))
	for i, r := range rungs {
		r.Width, r.Height = fit(width, height, min(r.Lines, width, height))
		out[i] = r
	}
	return out
}

// What a broadcast's rungs cost, in cores at real time for each million pixels
// a second, until it is measured. On the slow side: a guess that is too low
// would promise rungs that can't be made.
const (
	decodeCost     = 0.003
	decodeCostHEVC = 0.0055
	decodeCostAV1  = 0.0045
	encodeCost     = 0.016
	fieldsCost     = 0.001 // of the source's pixels, where fields are joined
	toneMapCost    = 0.02
	// startCost is that of a process for each segment of two seconds, in cores.
	startCost = 0.025
)

// EstimateCost returns the cores that a source's rungs need at real time.
func EstimateCost(src Source, rungs []Rung) float64 {
	if len(rungs) == 0 {
		return 0
	}
	decode := decodeCost
	switch src.Format {
	case media.HEVC:
		decode = decodeCostHEVC
	case media.AV1:
		decode = decodeCostAV1
	}
	if src.Look.Fields {
		decode += fieldsCost
	}
	encode := encodeCost
	if src.Look.tonesMapped() {
		encode += toneMapCost
	}
	cost := startCost + decode*float64(src.Width*src.Height)*src.FrameRate/1e6
	for _, r := range rungs {
		cost += encode * float64(r.Width*r.Height) * r.FrameRate / 1e6
	}
	return cost
}
