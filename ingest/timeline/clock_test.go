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

// stamp is the time of one unit, by the publisher's own time line.
type stamp struct {
	kind media.Kind
	ms   int64
}

// stamps gives n frames of video, 40 ms apart, from a time on, each followed by
// sound of the same time.
func stamps(from int64, n int) (all []stamp) {
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
		{"sound before zero, pictures after it", append([]stamp{{audio, -10}}, stamps(10, 50)...), 0, 20 + 49*40},
		{"ahead, pictures first", slices.Concat(stamps(0, 50), stamps(hour, 50)), 1, 99 * 40},
		{"back, pictures first", slices.Concat(stamps(2*hour, 50), stamps(hour, 50)), 1, 99 * 40},
		{"ahead, sound first", slices.Concat(stamps(0, 50), []stamp{{audio, hour}}, stamps(hour+40, 50)), 1, 100 * 40},
		{"back, sound first", slices.Concat(stamps(hour, 50), []stamp{{audio, 0}}, stamps(40, 50)), 1, 100 * 40},
		{"ahead, sound a second first", slices.Concat(stamps(0, 50), []stamp{
			{audio, hour}, {video, 2000}, {audio, hour + 40}, {video, 2040}, {video, hour + 80}, {audio, hour + 80},
		}), 1, 49*40 + 40 + 80},
		{"to before zero", slices.Concat(stamps(20, 2), stamps(-hour, 50)), 1, 51 * 40},
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
				at, jumped := clock.at(s.kind, media.Ticks(s.ms)*ms, 0, step, 0)
				if jumped {
					jumps++
				}
				if at <= last[s.kind] || at < origin || at%ms != 0 {
					t.Fatalf("input %d, %v: %d comes after %d, origin %d", i, s, at, last[s.kind], int64(origin))
				}
				last[s.kind] = at
			}
			if got := (last[media.Video] - origin.CeilMillisecond()).Milliseconds(); got != c.end {
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
func soundOnly(from int64, n int) (all []stamp) {
	for range n {
		all = append(all, stamp{media.Audio, from})
		from += 40
	}
	return all
}
