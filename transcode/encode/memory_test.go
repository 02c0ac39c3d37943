package encode

import (
	"bytes"
	"fmt"
	imagejpeg "image/jpeg"
	"os"
	"strings"
	"testing"
	"time"

	"millrace/internal/media"
	"millrace/internal/media/mediatest"
)

// peak returns what a process takes of memory at most until it ends, in bytes: resident, and
// mapped to be written to.
func peak(t *testing.T, e *encoder) (resident, mapped func() int) {
	t.Helper()
	status := func(name string) (most int) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.cmd.Process.Pid))
		if err != nil {
			return 0
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, name+":"); ok {
				_, _ = fmt.Sscanf(rest, "%d kB", &most)
			}
		}
		return most << 10
	}
	rss, data, done := 0, 0, make(chan struct{})
	go func() {
		defer close(done)
		for {
			rss, data = max(rss, status("VmHWM")), max(data, status("VmData"))
			select {
			case <-e.exited:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return func() int { <-done; return rss }, func() int { <-done; return data }
}

// feed gives a process pictures, and returns how it ended and how many frames it made.
func feed(t *testing.T, job Job, c *media.Codec, pictures ...[]byte) (x *exit, frames, resident, mapped int) {
	t.Helper()
	f, err := testFFmpeg()
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan output, 256)
	e, err := f.startEncoder(t.Context(), job, out)
	if err != nil {
		t.Fatal(err)
	}
	rss, data := peak(t, e)
	e.config(c)
	for i, p := range pictures {
		e.picture(&media.Unit{Track: media.Video, DTS: media.Ticks(i) * 3000, PTS: media.Ticks(i) * 3000, RandomAccess: i == 0, Payload: p})
	}
	e.finish()
	for o := range out {
		if o.frame != nil {
			frames++
		}
		if o.exit != nil {
			e.running.Wait()
			return o.exit, frames, rss(), data()
		}
	}
	return nil, 0, 0, 0
}

// jobFor is the process of a source of H.264 and its smallest rung.
func jobFor(t *testing.T, s mediatest.Skipped) (Job, *media.Codec) {
	t.Helper()
	c, err := s.Codec()
	if err != nil {
		t.Fatal(err)
	}
	return Job{Rungs: []Rung{{Name: "90p30", Width: 160, Height: 90, Step: 1, FrameRate: 30, Bitrate: 150000}}, Preset: "ultrafast", Thumbnail: true, Look: LookOf(c.Picture), Picture: c.Picture}, c
}

// hidden are the pictures of s with another parameter set behind them, and a picture of
// that, all in one NAL unit whose length covers them: FFmpeg looks for start codes in it.
func hidden(s, in mediatest.Skipped) (pictures [][]byte) {
	start := []byte{0, 0, 1}
	nalu := append([]byte{6, 5, 1, 0, 0x80}, start...) // a message that says nothing
	nalu = append(append(append(nalu, in.SPS()...), start...), in.PPS()...)
	for n := range 40 {
		nalu = append(append(nalu, start...), in.Picture(n)[4:]...)
	}
	unit := append([]byte{byte(len(nalu) >> 24), byte(len(nalu) >> 16), byte(len(nalu) >> 8), byte(len(nalu))}, nalu...)
	return [][]byte{s.Picture(0), append(s.Picture(1), unit...), s.Picture(2)}
}

// What a process takes is what is estimated for its picture and its references, or less.
func TestProcessesTakeWhatIsEstimated(t *testing.T) {
	t.Parallel()
	for _, s := range []mediatest.Skipped{{Width: 40, Height: 23, Refs: 4}, {Width: 40, Height: 23, Refs: 16}, {Width: 120, Height: 68, Refs: 16}} {
		job, c := jobFor(t, s)
		var pictures [][]byte
		for n := range 30 {
			pictures = append(pictures, s.Picture(n))
		}
		x, frames, resident, mapped := feed(t, job, c, pictures...)
		t.Logf("%+v: %d frames, %d MB resident, %d MB mapped, %d MB estimated, limit %d MB", s, frames, resident>>20, mapped>>20, job.memory()>>20, job.limit()>>20)
		if x.err != nil || frames != len(pictures) || int64(mapped) > job.memory() {
			t.Errorf("%+v: %d frames, %v", s, frames, x.err)
		}
	}
}

// A parameter set that only FFmpeg finds makes its decoder take no larger pictures than the
// source's, and a process never has more memory than its limit.
func TestHiddenParameterSets(t *testing.T) {
	t.Parallel()
	source := mediatest.Skipped{Width: 40, Height: 23, Refs: 4}
	job, c := jobFor(t, source)
	_, _, resident, _ := feed(t, job, c, hidden(source, mediatest.Skipped{Width: 512, Height: 512, Refs: 16})...)
	t.Logf("%d MB resident, limit %d MB", resident>>20, job.limit()>>20)
	if int64(resident) > 2*processMemory {
		t.Errorf("%d MB were taken", resident>>20)
	}
}

// Where the decoder itself doesn't refuse it, the limit on memory does.
func TestProcessesAreLimited(t *testing.T) {
	t.Parallel()
	large := mediatest.Skipped{Width: 256, Height: 144, Refs: 16}
	job, c := jobFor(t, large)
	job.Picture.Decoded.Pictures, job.Picture.Decoded.Delayed = 1, 0 // as if it had said so
	var pictures [][]byte
	for n := range 30 {
		pictures = append(pictures, large.Picture(n))
	}
	x, _, resident, mapped := feed(t, job, c, pictures...)
	t.Logf("%d MB resident, %d MB mapped, limit %d MB: %v", resident>>20, mapped>>20, job.limit()>>20, x.err)
	if int64(mapped) > job.limit() {
		t.Errorf("%d MB were taken", mapped>>20)
	}
}

// A source that is far higher than wide makes no picture for listings of its shape.
func TestThumbnailsOfAColumn(t *testing.T) {
	t.Parallel()
	c, units := drawn(t, "testsrc2=s=16x2048:r=25:d=0.1", "null", "")
	_, _, jpeg := rungOf(t, c, units, Rung{Name: "16p25", Width: 16, Height: 64, FrameRate: 25, Step: 1, Bitrate: 100_000})
	shape, err := imagejpeg.DecodeConfig(bytes.NewReader(jpeg))
	if err != nil || shape.Width != thumbnailWidth || shape.Height != thumbnailHeight {
		t.Errorf("%+v, %v", shape, err)
	}
}
