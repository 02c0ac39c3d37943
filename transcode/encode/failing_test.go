package encode

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"millrace/internal/index"
	"millrace/internal/media"
	"millrace/internal/media/mediatest"
	"millrace/internal/relay"
	"millrace/transcode/transcodetest"
)

// Where every process dies, or makes nothing, of what is sent, the rungs end after some
// segments, and the source stands in for them; the next configuration is tried.
func TestRungsEndWhereNoneCanBeMade(t *testing.T) {
	t.Parallel()
	l := transcodetest.MakeLog(t, 0, "-f lavfi -i testsrc2=size=320x180:rate=30 -t 14 -pix_fmt yuv420p -c:v libx264 -preset ultrafast -g 60")
	for _, program := range []string{"false", "true"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			rec := transcodetest.NewRecord()
			w := testWorker(t, "90p30=150k,64p30=80k", rec, func(c *Config) {
				c.Grant, c.FFmpeg = transcodetest.FirstGrant, &FFmpeg{path: program}
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := w.Run(ctx, l.Unhurried(0, w.finished.Load)); err != nil {
				t.Fatal(err)
			}
			gaps := 0
			for _, e := range rec.Gaps {
				if e.Rendition == "90p30" {
					gaps++
				}
			}
			if gaps < maxLost || gaps > maxLost+1 || !w.Failing() || testutil.ToFloat64(w.Metrics.ended) != 1 {
				t.Errorf("%d gaps; failing: %v", gaps, w.Failing())
			}
			if e := rec.Entries["90p30/5"]; e.Type != index.TypeSegment {
				t.Errorf("nothing stands in for a rung: %+v", e)
			}
			if died := testutil.ToFloat64(w.Metrics.failures); died > (maxLost+1)*maxAttempts {
				t.Errorf("%g processes died", died)
			}
			other := *w.encoding.codec
			other.Record = append([]byte{}, other.Record...)
			other.Record[3]++
			if err := w.encoding.configure(&other, *w.log.settings); err != nil || w.Failing() || w.encoding.dying.ended(time.Now()) {
				t.Errorf("with other settings it isn't tried: %v", err)
			}
			w.encoding.discardSpares()
		})
	}
}

// After a pause rungs are tried again.
func TestRungsAreTriedAgain(t *testing.T) {
	t.Parallel()
	f, now := failures{lost: maxLost, since: time.Unix(1000, 0)}, time.Unix(1000, 0)
	if !f.ended(now) || f.ended(now.Add(lostPause)) {
		t.Errorf("they are made again after %s: %v", lostPause, f.ended(now.Add(lostPause)))
	}
	if (&failures{}).ended(now) {
		t.Error("at first there are no rungs")
	}
}

// A publisher who goes on with larger pictures, or more to keep, has room made for them
// anew: what doesn't fit into the machine's memory isn't made.
func TestMemoryFollowsTheSource(t *testing.T) {
	t.Parallel()
	w := testWorker(t, "720p30=3000k,96p30=60k", transcodetest.NewRecord(), func(c *Config) {
		c.FFmpeg, c.Budget = &FFmpeg{path: "false"}, NewBudget(64, 400<<20)
	})
	small := mediaOf(t, 40, 23, 2)
	configure := func(c *media.Codec) {
		t.Helper()
		if err := w.encoding.configure(c, relay.Settings{Video: true, FrameRate: 30, FrameStep: 1}); err != nil {
			t.Fatal(err)
		}
	}
	configure(small)
	before := w.Budget.MemoryRoom()
	if w.Shed() != 0 {
		t.Errorf("of a small source %d rungs are shed", w.Shed())
	}
	configure(mediaOf(t, 120, 68, 8))
	if now := w.Budget.MemoryRoom(); now >= before {
		t.Errorf("%.0f MB were free, and %.0f are", before/1e6, now/1e6)
	}
	configure(mediaOf(t, 240, 135, 16))
	if n := len(w.encoding.rungs); w.Shed() != n || w.Budget.MemoryRoom() != 400<<20 {
		t.Errorf("of a source that doesn't fit %d of %d rungs are shed, %.0f MB are free", w.Shed(), n, w.Budget.MemoryRoom()/1e6)
	}
	configure(small)
	w.Budget.Release(w)
	if w.Budget.MemoryRoom() != 400<<20 {
		t.Error("its memory isn't given back")
	}
}

func mediaOf(t *testing.T, width, height, refs int) *media.Codec {
	t.Helper()
	c, err := mediatest.Skipped{Width: width, Height: height, Refs: refs}.Codec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
