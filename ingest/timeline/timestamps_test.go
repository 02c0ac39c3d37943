package timeline

import (
	"slices"
	"testing"

	"millrace/internal/media"
)

const (
	ms   = media.TicksPerMillisecond
	hour = 3_600_000 // in milliseconds
)

// stamp is one timestamp that a publisher sends.
type stamp struct {
	kind media.Kind
	raw  uint32
}

// stamps gives n frames of video, 40 ms apart, from a time on, each followed by
// sound of the same time.
func stamps(from uint32, n int) (all []stamp) {
	for range n {
		all = append(all, stamp{media.Video, from}, stamp{media.Audio, from})
		from += 40
	}
	return all
}

func TestClock(t *testing.T) {
	const step = 40 * ms
	video, audio := media.Video, media.Audio
	for _, c := range []struct {
		name  string
		input []stamp
		jumps int
		end   int64 // the newest time of the pictures in milliseconds after the origin
	}{
		{"from zero", stamps(0, 50), 0, 49 * 40},
		{"from 30 hours", stamps(30*hour, 50), 0, 49 * 40},
		{"across the wrap", stamps(1<<32-1000, 50), 0, 49 * 40},
		{"sound before the wrap, pictures after it", append([]stamp{{audio, 1<<32 - 10}}, stamps(10, 50)...), 0, 20 + 49*40},
		{"ahead, pictures first", slices.Concat(stamps(0, 50), stamps(hour, 50)), 1, 99 * 40},
		{"back, pictures first", slices.Concat(stamps(2*hour, 50), stamps(hour, 50)), 1, 99 * 40},
		{"ahead, sound first", slices.Concat(stamps(0, 50), []stamp{{audio, hour}}, stamps(hour+40, 50)), 1, 100 * 40},
		{"back, sound first", slices.Concat(stamps(hour, 50), []stamp{{audio, 0}}, stamps(40, 50)), 1, 100 * 40},
		{"ahead, sound a second first", slices.Concat(stamps(0, 50), []stamp{
			{audio, hour}, {video, 2000}, {audio, hour + 40}, {video, 2040}, {video, hour + 80}, {audio, hour + 80},
		}), 1, 49*40 + 40 + 80},
		{"across the wrap backwards", slices.Concat(stamps(20, 2), stamps(1<<32-hour, 50)), 1, 51 * 40},
		{"ahead and back again", slices.Concat(stamps(0, 10), stamps(hour, 1), stamps(440, 10)), 2, 20 * 40},
		{"a second's gap is none", slices.Concat(stamps(0, 10), stamps(1400, 1)), 0, 1400},
		{"two seconds' gap is closed up", slices.Concat(stamps(0, 10), stamps(2400, 1)), 1, 400},
		{"half a second back is jitter", []stamp{{video, 1000}, {video, 1040}, {video, 600}, {video, 1080}}, 0, 80},
		{"pictures stop for a minute", slices.Concat(stamps(0, 1), soundOnly(40, 1500), stamps(60_040, 1)), 0, 60_040},
		{"sound an hour away from pictures", []stamp{{video, hour}, {audio, 0}, {video, hour + 40}, {audio, 40}}, 0, 40},
	} {
		t.Run(c.name, func(t *testing.T) {
			const origin = timelineStart + 7 // not a whole millisecond
			clock := newClock(origin)
			var last [3]media.Ticks
			var jumps int
			for i, s := range c.input {
				at, jumped := clock.at(s.kind, s.raw, step)
				if jumped {
					jumps++
				}
				if at <= last[s.kind] || at < origin || at%ms != 0 {
					t.Fatalf("input %d, %v: %d comes after %d, origin %d", i, s, at, last[s.kind], int64(origin))
				}
				last[s.kind] = at
			}
			if got := (last[media.Video] - wholeMilliseconds(origin)).Milliseconds(); got != c.end {
				t.Errorf("the pictures end at %d ms, want %d", got, c.end)
			}
			if jumps != c.jumps {
				t.Errorf("%d jumps, want %d", jumps, c.jumps)
			}
			if skew := last[video] - last[audio]; last[audio] != 0 && (skew < -100*ms || skew > 100*ms) {
				t.Errorf("pictures are %d ms ahead of the sound", skew.Milliseconds())
			}
		})
	}
}

// soundOnly gives n frames of sound, 40 ms apart.
func soundOnly(from uint32, n int) (all []stamp) {
	for range n {
		all = append(all, stamp{media.Audio, from})
		from += 40
	}
	return all
}

// played is what came of frames of sound that were put on a grid.
type played struct {
	silent, dropped int
	skew            media.Ticks // of the newest frame: its place minus its time
}

// play puts frames on the grid as the Sequencer does.
func play(g *audioGrid, times []media.Ticks) (p played) {
	for _, at := range times {
		fill, drop := g.place(at)
		if drop {
			p.dropped++
			continue
		}
		for range fill {
			g.advance()
		}
		p.silent += fill
		p.skew = g.advance().Ticks(g.rate) - at
	}
	return p
}

// sounds gives the times of n frames from a time on, rounded to milliseconds as
// RTMP does, by a clock that is off by so many parts in a million.
func sounds(from media.Ticks, n, ppm int) (times []media.Ticks) {
	for i := range n {
		exact := float64(i) * 1024 / 48000 * (1 + float64(ppm)/1e6) * media.VideoTimescale
		times = append(times, (from+media.Ticks(exact))/ms*ms)
	}
	return times
}

func TestAudioGrid(t *testing.T) {
	const start = timelineStart
	frames := func(n int) media.Ticks { return media.Samples(n * media.AACFrameSamples).Ticks(48000) }
	jitter := sounds(start, 500, 0)
	for i := 7; i < len(jitter); i++ {
		jitter[i] += media.Ticks(i%7-3) * 25 * ms
	}
	for _, c := range []struct {
		name            string
		times           []media.Ticks
		silent, dropped int
	}{
		{"even", sounds(start, 5000, 0), 0, 0},
		{"jitter", jitter, 0, 0},
		{"ten frames are missing", slices.Concat(sounds(start, 100, 0), sounds(start+frames(110), 100, 0)), 10, 0},
		{"two frames are missing", slices.Concat(sounds(start, 100, 0), sounds(start+frames(102), 100, 0)), 2, 0},
		{"ten frames come twice", slices.Concat(sounds(start, 100, 0), sounds(start+frames(90), 500, 0)), 0, 9},
		{"the first frames come before the start", sounds(start-frames(4), 100, 0), 0, 4},
		{"the first frame comes late", sounds(start+frames(3), 100, 0), 3, 0},
		{"an hour with a clock 100 ppm slow", sounds(start, 168_750, 100), 16, 0},
		{"an hour with a clock 100 ppm fast", sounds(start, 168_750, -100), 0, 16},
		{"more than can be filled", slices.Concat(sounds(start, 1, 0), sounds(start+1000*media.VideoTimescale, 1, 0)), maxFill, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newAudioGrid(start, 48000)
			p := play(g, c.times)
			if p.silent != c.silent || p.dropped != c.dropped {
				t.Errorf("%d silent, %d dropped, want %d, %d", p.silent, p.dropped, c.silent, c.dropped)
			}
			if c.silent != maxFill && (p.skew > 80*ms || p.skew < -80*ms) {
				t.Errorf("the newest frame is %d ms off", p.skew.Milliseconds())
			}
			if (g.next-sampleFrom(start, 48000))%media.AACFrameSamples != 0 {
				t.Error("the grid moved")
			}
		})
	}
}

func TestAudioGridAtOrAfter(t *testing.T) {
	for _, rate := range []int{8000, 22050, 44100, 48000, 96000} {
		g := newAudioGrid(timelineStart, rate)
		for at := timelineStart - 10_000; at < timelineStart+10_000; at += 7 {
			s := g.atOrAfter(at)
			before := s - media.AACFrameSamples
			if s.Ticks(rate) < at || before.Ticks(rate) >= at || (s-g.next)%media.AACFrameSamples != 0 {
				t.Fatalf("at %d Hz, %d gave sample %d at %d", rate, at, s, s.Ticks(rate))
			}
		}
	}
}
