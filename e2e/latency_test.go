//go:build latency

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"millrace/e2e/harness"
)

// The clock in the picture: bits of the wall clock in milliseconds as black and
// white blocks, most significant first, with a block's width free at each end.
const (
	clockBits                            = 44
	clockWidth, clockHeight, clockFrames = 1280, 720, 30
)

// readClock is a script that plays for ten seconds and reads the clock from
// each new frame; it leaves the differences to the wall clock in window.ages.
const readClock = `(() => {
	const v = window.millrace.video, c = document.createElement('canvas'), g = c.getContext('2d', {willReadFrequently: true})
	window.ages = []
	const read = () => {
		const w = c.width = v.videoWidth, bits = 44, block = w / (bits + 2)
		c.height = v.videoHeight
		g.drawImage(v, 0, 0)
		const row = g.getImageData(0, Math.round(block), w, 1).data
		let ms = 0
		for (let i = 0; i < bits; i++) ms = ms * 2 + (row[4 * Math.round((i + 1.5) * block)] > 125 ? 1 : 0)
		window.ages.push(Date.now() - ms)
		v.requestVideoFrameCallback(read)
	}
	v.requestVideoFrameCallback(read)
})()`

// TestLatency measures glass to glass, with a clock burned into the picture and
// read back from the video element, and prints what it finds. It decides nothing.
func TestLatency(t *testing.T) {
	s := harness.StartAll(t)
	fifo := filepath.Join(t.TempDir(), "clock.yuv")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	drawn := make(chan struct{})
	go func() {
		defer close(drawn)
		drawClock(ctx, fifo)
	}()
	began := time.Now()
	p := s.Publish(t, s.Key, []string{
		"-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", "1280x720", "-framerate", "30", "-i", fifo,
		"-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000",
		"-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "60", "-b:v", "3000k", "-maxrate", "3000k", "-bufsize", "3000k",
		"-c:a", "aac", "-b:a", "128k",
	})
	b := harness.OpenBrowser(t)
	b.Open(s.HTTP + "/demo")
	b.WaitPlaying(30 * time.Second)
	t.Logf("published to first second played: %v", time.Since(began).Round(10*time.Millisecond))
	for _, level := range []struct{ name, choose string }{
		{"source", "window.millrace.hls.nextLevel = window.millrace.hls.levels.length - 1"},
		{"rung", "window.millrace.hls.nextLevel = 0"},
	} {
		harness.Eval[int](b, level.choose)
		b.Open(s.HTTP + "/demo") // a join of its own, as viewers have it
		b.WaitPlaying(30 * time.Second)
		harness.Eval[int](b, level.choose)
		settle(8 * time.Second)
		harness.Eval[any](b, readClock)
		settle(20 * time.Second)
		ages := harness.Eval[[]float64](b, "window.ages")
		now := b.Stats()
		if len(ages) < 100 {
			t.Fatalf("%s: only %d frames were read", level.name, len(ages))
		}
		slices.Sort(ages)
		at := func(q float64) float64 { return ages[int(q*float64(len(ages)-1))] }
		t.Logf("%-6s %4dp  glass to glass p50 %4.0f ms  p95 %4.0f ms  p99 %4.0f ms  max %4.0f ms  first picture %4.0f ms  stalls %d  frames %d",
			level.name, now.Height, at(0.5), at(0.95), at(0.99), at(1),
			harness.Eval[float64](b, "window.millrace.stats().firstPictureMs"), now.Stalls, len(ages))
	}
	p.End()
	cancel()
	<-drawn
}

// settle lets the player run; nothing is waited for but time.
func settle(d time.Duration) { time.Sleep(d) }

// drawClock writes frames in real time until ctx ends or nobody reads them.
func drawClock(ctx context.Context, path string) {
	out, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer out.Close()
	picture := make([]byte, clockWidth*clockHeight*3/2)
	luma := picture[:clockWidth*clockHeight]
	for i := range picture[len(luma):] {
		picture[len(luma)+i] = 128
	}
	block := float64(clockWidth) / (clockBits + 2)
	start := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		settle(time.Until(start.Add(time.Duration(n) * time.Second / clockFrames)))
		ms := time.Now().UnixMilli()
		for y := range clockHeight {
			for x := range clockWidth {
				luma[y*clockWidth+x] = byte(40 + ((x+4*n)^(y+n))&127) // something that moves
			}
		}
		for bit := range clockBits {
			shade := byte(16 + 219*(ms>>(clockBits-1-bit)&1))
			for y := range int(2 * block) {
				row := luma[y*clockWidth:]
				for x := int(float64(bit+1) * block); x < int(float64(bit+2)*block); x++ {
					row[x] = shade
				}
			}
		}
		if _, err := out.Write(picture); err != nil {
			return
		}
	}
}
