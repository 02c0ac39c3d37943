package harness

import (
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"millrace/internal/testenv"
)

// Clip is a video that is encoded once and published many times: real time then
// costs hardly any CPU.
type Clip struct {
	Name    string
	Seconds string
	// Size is that of the picture, rate its frames a second; no size, no picture.
	Size, Rate string
	// Encoder chooses and sets the encoder of the pictures; none: libx264.
	Encoder []string
	// Video are arguments for the encoder, after the common ones.
	Video []string
	// Audio are those of the audio encoder; none, no sound.
	Audio []string
	// MP4 has the file be fragmented MP4, for package ertmp, not FLV.
	MP4 bool
}

// x264 is the encoder where a clip names none.
var x264 = []string{"-c:v", "libx264", "-preset", "ultrafast", "-maxrate", "700k", "-bufsize", "1400k", "-sc_threshold", "0"}

var Stereo = []string{"-c:a", "aac", "-b:a", "96k", "-ac", "2", "-ar", "48000"}

// File encodes the clip unless that is done, and returns its path.
func (c Clip) File(t testing.TB) string {
	t.Helper()
	path := filepath.Join(shared.dir, c.Name+".flv")
	if c.MP4 {
		path = filepath.Join(shared.dir, c.Name+".mp4")
	}
	shared.mu.Lock()
	once := shared.made[path]
	if once == nil {
		once = new(sync.Once)
		shared.made[path] = once
	}
	shared.mu.Unlock()
	once.Do(func() {
		args := []string{"-hide_banner", "-loglevel", "error", "-nostdin", "-y"}
		if c.Size != "" {
			args = append(args, "-f", "lavfi", "-i", "testsrc2=size="+c.Size+":rate="+c.Rate+",format=yuv420p")
		}
		if c.Audio != nil {
			args = append(args, "-f", "lavfi", "-i", "aevalsrc=0.2*sin(2*PI*(300+40*t)*t):s=48000")
		}
		args = append(args, "-t", c.Seconds)
		if c.Size != "" {
			if c.Encoder == nil {
				args = append(args, x264...)
			}
			args = append(append(args, c.Encoder...), "-b:v", "700k")
			args = append(args, c.Video...)
		}
		args = append(args, c.Audio...)
		if c.MP4 {
			args = append(args, "-video_track_timescale", "90000", "-movflags", "+frag_keyframe+delay_moov+default_base_moof")
		}
		out, err := exec.Command("nice", slices.Concat([]string{"-n", "10", testenv.FFmpeg(t)}, args, []string{path})...).CombinedOutput()
		if err != nil {
			t.Fatalf("encode the clip %s: %v\n%s", c.Name, err, out)
		}
	})
	return path
}
