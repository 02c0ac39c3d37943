package encode

import (
	"testing"
	"time"

	"millrace/internal/media"
	"millrace/internal/media/mediatest"
)

// madeOf runs a process over a clip and returns what it made of each rung.
func madeOf(t *testing.T, clip string, rungs []Rung) (configs []*media.Codec, frames [][]*media.Unit, jpeg int) {
	t.Helper()
	f, _ := ownFFmpeg(t)
	video, _ := mediatest.Clip(t, clip)
	out := make(chan output, 256)
	e, err := f.startEncoder(t.Context(), Job{Rungs: rungs, Preset: "veryfast", Thumbnail: true}, out)
	if err != nil {
		t.Fatal(err)
	}
	e.config(video.Codec)
	for i := range video.Units {
		u := video.Units[i]
		u.DTS, u.PTS = u.DTS+1<<33, u.PTS+1<<33
		e.picture(&u)
	}
	e.finish()
	configs, frames = make([]*media.Codec, len(rungs)), make([][]*media.Unit, len(rungs))
	for o := range out {
		switch {
		case o.config != nil:
			configs[o.rung] = o.config
		case o.frame != nil:
			frames[o.rung] = append(frames[o.rung], o.frame)
		case o.thumbnail != nil:
			jpeg = len(o.thumbnail)
		case o.exit != nil:
			if o.exit.err != nil {
				t.Error(o.exit.err)
			}
			e.running.Wait()
			return configs, frames, jpeg
		}
	}
	return configs, frames, jpeg
}

// Every format comes out as H.264, each picture at its time, of a level that fits
// its size and rate, whether or not the source says its rate (AV1 doesn't).
func TestEveryFormatIsEncoded(t *testing.T) {
	rungs := []Rung{
		{Name: "72p30", Width: 128, Height: 72, FrameRate: 30, Bitrate: 200000},
		{Name: "36p30", Width: 64, Height: 36, FrameRate: 30, Bitrate: 100000},
	}
	for _, clip := range []string{"h264-opus", "hevc-opus", "av1-aac"} {
		t.Run(clip, func(t *testing.T) {
			t.Parallel()
			video, _ := mediatest.Clip(t, clip)
			configs, frames, jpeg := madeOf(t, clip, rungs)
			for i, c := range configs {
				if c == nil || c.Name != []string{"avc1.64000b", "avc1.640009"}[i] || c.Width != rungs[i].Width {
					t.Errorf("%s: %+v", rungs[i].Name, c)
				}
			}
			if jpeg == 0 {
				t.Error("no picture for listings")
			}
			first := video.Units[0].PTS
			for i, list := range frames {
				if want := len(video.Units); len(list) != want {
					t.Fatalf("%s: %d pictures, want %d", rungs[i].Name, len(list), want)
				}
				for k, u := range list {
					if off := u.PTS - first - media.Ticks(k)*3000; off < -media.TicksPerMillisecond || off > media.TicksPerMillisecond || u.RandomAccess != (k == 0) {
						t.Errorf("%s: picture %d is %d off, random access %t", rungs[i].Name, k, off, u.RandomAccess)
					}
				}
			}
		})
	}
}

// Sound of any format comes out as AAC on its own grid.
func TestOpusIsEncoded(t *testing.T) {
	f, _ := ownFFmpeg(t)
	_, audio := mediatest.Clip(t, "hevc-opus")
	out := make(chan soundFrame, 256)
	e, err := f.startSound(t.Context(), audio.Codec, out)
	if err != nil {
		t.Fatal(err)
	}
	for i := range audio.Units {
		e.frame(&audio.Units[i])
	}
	e.finish()
	var list []soundFrame
	for s := range out {
		if s.exit != nil {
			if s.exit.err != nil {
				t.Error(s.exit.err)
			}
			break
		}
		list = append(list, s)
	}
	e.running.Wait()
	want := int(audio.Length.Duration() / (time.Second * 1024 / soundRate))
	if len(list) < want {
		t.Fatalf("%d frames of AAC, want %d or more", len(list), want)
	}
	for i, s := range list[1:] {
		if d := s.at - list[i].at; d < 21*media.TicksPerMillisecond || d > 22*media.TicksPerMillisecond {
			t.Errorf("frame %d comes %d ticks after the one before it", i+1, d)
		}
	}
}
