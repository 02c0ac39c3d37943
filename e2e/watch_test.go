package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"image/jpeg"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluenviron/gohlslib/v2"
	"github.com/bluenviron/gohlslib/v2/pkg/codecs"
	"github.com/chromedp/chromedp"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
	"millrace/internal/testenv"
)

// TestWatchPage is a viewer's evening: the page is open before the streamer
// comes, plays, changes quality, is loaded again, sees the end and the next
// broadcast. The source's samples aren't square: it, too, is shown in its shape.
func TestWatchPage(t *testing.T) {
	t.Parallel()
	s := harness.StartAll(t)
	b := harness.OpenBrowser(t)
	b.Open(s.HTTP + "/demo")
	waitText(b, "demo is offline", 15*time.Second)
	for _, c := range b.TakeComplaints() {
		if !strings.Contains(c, "404") { // the browser itself notes it
			t.Errorf("the page of an offline channel complains: %s", c)
		}
	}

	p := s.PublishClip(t, s.Key, wideClip)
	began := b.WaitPlaying(30 * time.Second)
	for _, c := range b.TakeComplaints() {
		if !strings.Contains(c, "404") {
			t.Errorf("the page complains at the start: %s", c)
		}
	}
	if began.Engine != "hls.js" {
		t.Errorf("the engine is %q, want hls.js", began.Engine)
	}
	playsSmoothly(b, 20*time.Second)
	switchesQuality(b)

	b.Do(chromedp.Reload())
	b.WaitPlaying(20 * time.Second)
	playsSmoothly(b, 3*time.Second)
	if c := b.TakeComplaints(); len(c) > 0 {
		t.Errorf("the page complains: %q", c)
	}

	p.End()
	waitText(b, "The broadcast has ended", 30*time.Second)
	p = s.PublishClip(t, s.Key, shortClip)
	b.WaitPlaying(30 * time.Second)
	waitNoText(b, "The broadcast has ended")
	p.End()
	waitText(b, "The broadcast has ended", 30*time.Second)
	for _, c := range b.TakeComplaints() {
		if !strings.Contains(c, "404") {
			t.Errorf("the page complains around the end: %s", c)
		}
	}
	b.OnlyHost(s.HTTP)
}

func waitText(b *harness.Browser, want string, limit time.Duration) {
	b.T.Helper()
	harness.Eventually(b.T, limit, func() error {
		if text := b.Text(); !strings.Contains(text, want) {
			return fmt.Errorf("the page doesn't say %q: %s", want, text)
		}
		return nil
	})
}

func waitNoText(b *harness.Browser, text string) {
	b.T.Helper()
	harness.Eventually(b.T, 5*time.Second, func() error {
		if strings.Contains(b.Text(), text) {
			return fmt.Errorf("the page still says %q", text)
		}
		return nil
	})
}

// busy is the share of a machine's time that is left when it counts as busy: what
// draws pictures then waits for its turn.
const busy = 0.1

// playsSmoothly watches for a while: the playhead must move between any two
// looks, and nothing may stall. What was seen on a busy machine is looked at again.
func playsSmoothly(b *harness.Browser, length time.Duration) {
	b.T.Helper()
	for tries := 1; ; tries++ {
		idle := harness.IdleShare()
		fault := roughness(b, length)
		if fault == nil {
			return
		}
		if left := idle(); left > busy || tries == 4 {
			b.T.Errorf("%v (try %d, the machine had %.0f %% of its time left)", fault, tries, 100*left)
			return
		}
		b.T.Logf("looking again, the machine was busy: %v", fault)
	}
}

// roughness watches for a while, and returns the first that isn't smooth.
func roughness(b *harness.Browser, length time.Duration) error {
	b.T.Helper()
	before := b.Stats()
	start, last, at := time.Now(), before, time.Now()
	for time.Since(start) < length {
		time.Sleep(500 * time.Millisecond) // the length of a look: nothing can be waited for
		now := b.Stats()
		if now.CurrentTime <= last.CurrentTime {
			return fmt.Errorf("%s after the start the playhead stood at %g for %s: %+v", time.Since(start), now.CurrentTime, time.Since(at), now)
		}
		last, at = now, time.Now()
	}
	moved, took := last.CurrentTime-before.CurrentTime, at.Sub(start).Seconds()
	if moved < 0.9*took {
		return fmt.Errorf("the playhead moved %.1f s in %.1f s", moved, took)
	}
	if last.Stalls != before.Stalls || last.Waits != before.Waits || last.Recoveries != before.Recoveries {
		return fmt.Errorf("it stalled within %s: %+v, then %+v", length, before, last)
	}
	return nil
}

// switchesQuality chooses every quality and waits until it shows.
func switchesQuality(b *harness.Browser) {
	b.T.Helper()
	type level struct{ Width, Height int }
	levels := harness.Eval[[]level](b, "window.millrace.hls.levels.map(l => ({Width: l.width, Height: l.height}))")
	if len(levels) != 3 {
		b.T.Fatalf("levels %v, want 3", levels)
	}
	if top := slices.MaxFunc(levels, func(a, b level) int { return a.Height - b.Height }); top != (level{640, 360}) {
		b.T.Errorf("the source is listed as %v, want 640x360", top)
	}
	before := b.Stats()
	for i, want := range levels {
		b.Do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("window.millrace.hls.nextLevel = %d", i)))
		harness.Eventually(b.T, 40*time.Second, func() error {
			if now := b.Stats(); now.Height != want.Height || now.Width != want.Width || now.Phase != "playing" {
				return fmt.Errorf("level %d should show %v: %+v", i, want, now)
			}
			return nil
		})
	}
	if now := b.Stats(); now.Stalls != before.Stalls || now.Recoveries != before.Recoveries {
		b.T.Errorf("it stalled while the quality changed: %+v, then %+v", before, now)
	}
	b.Do(chromedp.Evaluate[chromedp.Void]("window.millrace.hls.nextLevel = -1"))
}

// TestHomePage looks at who is live.
func TestHomePage(t *testing.T) {
	t.Parallel()
	s := harness.StartAll(t)
	b := harness.OpenBrowser(t)
	b.Open(s.HTTP + "/")
	cards := `[...document.querySelectorAll('a[href="/demo"] img.picture')].filter(i => i.naturalWidth > 0).length`
	if n := harness.Eval[int](b, cards); n != 0 {
		t.Errorf("%d pictures of live channels, and nobody is live", n)
	}
	p := s.PublishClip(t, s.Key, longClip)
	harness.Eventually(t, 30*time.Second, func() error {
		if n := harness.Eval[int](b, cards); n != 1 {
			return fmt.Errorf("%d live channels with a picture, want 1: %s", n, b.Text())
		}
		return nil
	})
	if text := b.Text(); !strings.Contains(text, "demo") {
		t.Errorf("the page doesn't name the channel: %s", text)
	}

	// The picture is a JPEG of the stream's shape, and changes.
	source := harness.Eval[string](b, `document.querySelector('a[href="/demo"] img.picture').src`)
	first := hls.Get(t, source).Body
	harness.Eventually(t, 40*time.Second, func() error {
		a := hls.Get(t, source)
		if typ := a.Header.Get("Content-Type"); typ != "image/jpeg" {
			t.Fatalf("the picture is %q", typ)
		}
		size, err := jpeg.DecodeConfig(bytes.NewReader(a.Body))
		if err != nil {
			t.Fatalf("the picture: %v", err)
		}
		if size.Width*9 < size.Height*15 || size.Width*9 > size.Height*17 {
			t.Fatalf("the picture is %dx%d, want 16:9", size.Width, size.Height)
		}
		if _, err := jpeg.Decode(bytes.NewReader(a.Body)); err != nil {
			t.Fatalf("the picture: %v", err)
		}
		if bytes.Equal(first, a.Body) {
			return errors.New("the picture doesn't change")
		}
		return nil
	})
	if c := b.TakeComplaints(); len(c) > 0 {
		t.Errorf("the page complains: %q", c)
	}
	p.End()
	harness.Eventually(t, 30*time.Second, func() error {
		if n := harness.Eval[int](b, cards); n != 0 {
			return errors.New("the channel is still listed after the end")
		}
		return nil
	})
	for _, c := range b.TakeComplaints() {
		if !strings.Contains(c, "thumbnail.jpg") || !strings.Contains(c, "404") { // asked for before the list was
			t.Errorf("the page complains around the end: %s", c)
		}
	}
	b.OnlyHost(s.HTTP)
}

// TestOtherPlayers plays with gohlslib's client, which is a low-latency one,
// and with ffmpeg, which knows ordinary HLS only.
func TestOtherPlayers(t *testing.T) {
	t.Parallel()
	s := harness.StartAll(t)
	p := s.PublishClip(t, s.Key, longClip, "-t", "35")
	harness.WaitSegments(t, s.Playlist("demo"), 2) // neither can begin with parts alone
	ffmpeg := harness.Run(t, "player", testenv.FFmpeg(t), nil, "-hide_banner", "-nostdin", "-v", "warning", "-i", s.Playlist("demo"), "-map", "0", "-t", "8", "-c", "copy", "-f", "null", "-")
	playWithGohlslib(t, s.Playlist("demo"), 10*time.Second, &http.Transport{})
	if err := ffmpeg.Wait(40 * time.Second); err != nil {
		t.Errorf("ffmpeg: %v", err)
	}
	// A rung that there is no room for shows another one's picture, whose parameter sets
	// an ffmpeg that only copies doesn't see.
	shed := s.Metric("millrace_transcode_rung_segments_shed_total", "") > 0
	for line := range strings.Lines(ffmpeg.Log.String()) {
		// ffmpeg gives its demuxer the init section before each segment.
		duplicate := strings.Contains(line, "Found duplicated MOOV Atom")
		if copied := strings.Contains(line, "[NULL @") || strings.Contains(line, "Last message repeated"); !duplicate && !(shed && copied) {
			t.Errorf("ffmpeg warns of what it plays: %s", line)
		}
	}
	probe := exec.Command(testenv.FFprobe(t), "-v", "warning", "-show_entries", "stream=codec_name,width", "-of", "csv=p=0", s.Playlist("demo"))
	out, err := probe.CombinedOutput()
	if err != nil || strings.Count(string(out), "h264") < 3 || !strings.Contains(string(out), "aac") {
		t.Errorf("ffprobe: %v\n%s", err, out)
	}
	p.Finish(time.Minute)
}

// playWithGohlslib reads pictures and sound until there are so many of both.
func playWithGohlslib(t *testing.T, address string, length time.Duration, transport *http.Transport) {
	t.Helper()
	defer transport.CloseIdleConnections()
	var video, audio, backwards atomic.Int64
	var firstVideo, lastVideo atomic.Int64
	var faults atomic.Pointer[error]
	fault := func(err error) { faults.CompareAndSwap(nil, &err) }
	c := &gohlslib.Client{URI: address, HTTPClient: &http.Client{Transport: transport}, OnDecodeError: fault}
	parts := atomic.Int64{}
	c.OnDownloadPart = func(string) { parts.Add(1) }
	c.OnDownloadPrimaryPlaylist, c.OnDownloadStreamPlaylist, c.OnDownloadSegment = func(string) {}, func(string) {}, func(string) {}
	c.OnTracks = func(tracks []*gohlslib.Track) error {
		var kinds []string
		for _, track := range tracks {
			switch track.Codec.(type) {
			case *codecs.H264:
				kinds = append(kinds, "h264")
				previous := int64(-1)
				c.OnDataH26x(track, func(pts, dts int64, _ [][]byte) {
					if dts <= previous {
						backwards.Add(1)
					}
					previous = dts
					firstVideo.CompareAndSwap(0, pts+1)
					lastVideo.Store(pts)
					video.Add(1)
				})
			case *codecs.MPEG4Audio:
				kinds = append(kinds, "aac")
				c.OnDataMPEG4Audio(track, func(_ int64, units [][]byte) { audio.Add(int64(len(units))) })
			}
		}
		slices.Sort(kinds)
		if !slices.Equal(kinds, []string{"aac", "h264"}) {
			return fmt.Errorf("tracks %q", kinds)
		}
		return nil
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait2() }()
	defer func() {
		c.Close()
		<-ended
	}()
	seconds := int64(length / time.Second)
	harness.Eventually(t, length+20*time.Second, func() error {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("gohlslib ended: %v", err)
		default:
		}
		if v, a := video.Load(), audio.Load(); v < 28*seconds || a < 45*seconds {
			return fmt.Errorf("%d pictures and %d sounds came", v, a)
		}
		return nil
	})
	if err := faults.Load(); err != nil {
		t.Errorf("gohlslib: %v", *err)
	}
	if backwards.Load() > 0 {
		t.Errorf("decode times went back %d times", backwards.Load())
	}
	if parts.Load() == 0 {
		t.Log("gohlslib read whole segments")
	}
}
