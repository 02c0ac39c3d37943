package edge

import (
	"bytes"
	"context"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluenviron/gohlslib/v2"
	"github.com/bluenviron/gohlslib/v2/pkg/codecs"

	"millrace/internal/index"
	"millrace/internal/media"
	"millrace/internal/media/mediatest"
	"millrace/internal/testenv"
	"millrace/internal/window"
)

const (
	realSeconds  = 12
	realSegments = realSeconds / 2
	realFrames   = 60   // of a segment
	soundSamples = 1024 // of a frame of sound
)

// recording is a real broadcast: H.264 at 30 fps with an IDR each 2 s, and AAC.
type recording struct {
	video      *media.Codec
	audio      *media.Codec
	frames     [][]byte
	soundUnits [][]byte
}

func record(t *testing.T) *recording {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), testenv.FFmpeg(t), "-v", "error",
		"-f", "lavfi", "-i", "testsrc=size=320x180:rate=30", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000",
		"-t", strconv.Itoa(realSeconds), "-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "60", "-keyint_min", "60",
		"-sc_threshold", "0", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "64k", "-ac", "2",
		"-f", "mp4", "-movflags", "+frag_keyframe+delay_moov+default_base_moof", "pipe:1").Output()
	if err != nil {
		t.Fatal(err)
	}
	video, audio, err := mediatest.Parse(out)
	if err != nil {
		t.Fatal(err)
	}
	r := &recording{video: video.Codec, audio: audio.Codec}
	for _, u := range video.Units {
		r.frames = append(r.frames, u.Payload)
	}
	for _, u := range audio.Units {
		r.soundUnits = append(r.soundUnits, u.Payload)
	}
	if len(r.frames) != realSeconds*30 {
		t.Fatalf("ffmpeg made %d frames", len(r.frames))
	}
	return r
}

// videoPart is 10 frames.
func (r *recording) videoPart(sequence, part int) []byte {
	first := sequence*realFrames + part*10
	f := media.Fragment{Number: uint32(sequence*partsEach + part + 1), DecodeTime: uint64(first) * 3000}
	for i := range 10 {
		f.Samples = append(f.Samples, media.Sample{Duration: 3000, Sync: part == 0 && i == 0, Payload: r.frames[first+i]})
	}
	return f.Append(nil)
}

// audioPart holds the AAC frames that begin within the video part.
func (r *recording) audioPart(sequence, part int) (data []byte, samples int) {
	ceil := func(n int) int { return (n*16000 + soundSamples - 1) / soundSamples }
	n := sequence*partsEach + part
	from, to := ceil(n), min(ceil(n+1), len(r.soundUnits))
	f := media.Fragment{Number: uint32(n + 1), DecodeTime: uint64(from) * soundSamples}
	for _, unit := range r.soundUnits[from:to] {
		f.Samples = append(f.Samples, media.Sample{Duration: soundSamples, Sync: true, Payload: unit})
	}
	return f.Append(nil), (to - from) * soundSamples
}

// play says one part of both renditions, with real media.
func (w *fakeWorker) play(t *testing.T, r *recording, inits [2]*media.Init, st *stage, sequence, part int) {
	t.Helper()
	for i, name := range []string{"source", "audio"} {
		data, ticks := r.videoPart(sequence, part), partTicks
		if i == 1 {
			var samples int
			data, samples = r.audioPart(sequence, part)
			ticks = media.Samples(samples).Ticks(r.audio.Rate)
		}
		file := window.Media{Broadcast: w.broadcast, Rendition: name, Epoch: 7, Sequence: uint64(sequence), Part: part, Profile: testProfile}
		w.put(file.Path(), data)
		e := index.Entry{
			Type: index.TypePart, Writer: st.epoch, Rendition: name, Init: inits[i].Hash, Epoch: 7, Sequence: uint64(sequence),
			Part: part, Profile: testProfile, Duration: ticks, Size: len(data), Independent: i == 1 || part == 0,
			Time: testSettings().Started.Add(time.Duration(sequence) * 2 * time.Second),
		}
		line := []index.Entry{e}
		if part == partsEach-1 {
			var whole []byte
			var total media.Ticks
			for p := range partsEach {
				if i == 0 {
					whole, total = append(whole, r.videoPart(sequence, p)...), total+partTicks
					continue
				}
				b, samples := r.audioPart(sequence, p)
				whole, total = append(whole, b...), total+media.Samples(samples).Ticks(r.audio.Rate)
			}
			file.Part = window.WholeSegment
			w.put(file.Path(), whole)
			e.Type, e.Part, e.Parts, e.Size, e.Duration = index.TypeSegment, 0, partsEach, len(whole), total
			line = append(line, e)
		}
		w.say(line...)
	}
}

// TestRealPlayers plays a real broadcast with gohlslib's client, live and in
// low latency, and afterwards with ffprobe as an ordinary recording.
func TestRealPlayers(t *testing.T) {
	r := record(t)
	inits := r.inits(t)
	st := newEdge(t)
	st.goLive()
	w := newFakeWorker(t, st.broadcast)
	w.announce(st, r, inits)
	const begun = 4 // segments there are before the player comes
	for sequence := range begun {
		for part := range partsEach {
			w.play(t, r, inits, st, sequence, part)
		}
	}
	st.slot(0, w)
	st.want(200, "/hls/demo/index.m3u8")

	p := st.startPlayer()
	defer p.Close()
	tick := time.NewTicker(partTicks.Duration())
	defer tick.Stop()
	for sequence := begun; sequence < realSegments; sequence++ {
		for part := range partsEach {
			<-tick.C
			w.play(t, r, inits, st, sequence, part)
		}
	}
	w.say(index.Entry{Type: index.TypeEnd, Writer: st.epoch, Sequence: realSegments})
	select {
	case err := <-p.ended:
		// That is how this client ends in low latency: nothing is hinted any
		// more, or the part that was hinted will never come.
		if err == nil || !strings.Contains(err.Error(), "preload hint disappeared") && !strings.Contains(err.Error(), "404") {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the player doesn't end")
	}
	if p.frames.Load() < 50 || p.sound.Load() < 45 || !p.lowLatency.Load() {
		t.Errorf("%d frames and %d AAC frames were played, low latency: %t", p.frames.Load(), p.sound.Load(), p.lowLatency.Load())
	}

	// The whole of it, by a player that knows nothing of parts.
	st.countPackets("source", len(r.frames))
	st.countPackets("audio", realSegments*partsEach*16000/soundSamples)
}

// inits returns the init sections of source and audio.
func (r *recording) inits(t *testing.T) [2]*media.Init {
	t.Helper()
	video, err := r.video.Init()
	if err != nil {
		t.Fatal(err)
	}
	audio, err := r.audio.Init()
	if err != nil {
		t.Fatal(err)
	}
	return [2]*media.Init{video, audio}
}

// announce tells of the broadcast that a recording makes, and of its init sections.
func (w *fakeWorker) announce(st *stage, r *recording, inits [2]*media.Init) {
	settings := testSettings()
	settings.PartTarget = 31680 // the longest audio part has 16 frames more than 1/3 s would hold
	settings.Renditions[0].Codec, settings.Renditions[0].Width, settings.Renditions[0].Height = r.video.Name, 320, 180
	w.say(index.Entry{Type: index.TypeBroadcast, Writer: st.epoch, Broadcast: settings})
	for i, name := range []string{"source", "audio"} {
		w.put(window.InitPath(w.broadcast, name, inits[i].Hash), inits[i].Data)
		w.say(index.Entry{Type: index.TypeInit, Writer: st.epoch, Rendition: name, Init: inits[i].Hash, Epoch: 7})
	}
}

// player is gohlslib's client, and what it has played.
type player struct {
	*gohlslib.Client
	frames, sound atomic.Int64
	lowLatency    atomic.Bool
	ended         chan error
}

// startPlayer returns a player that has found the tracks.
func (st *stage) startPlayer() *player {
	st.t.Helper()
	p := &player{ended: make(chan error, 1)}
	started := make(chan struct{})
	p.Client = &gohlslib.Client{
		URI:                       st.server.URL + "/hls/demo/index.m3u8",
		OnDecodeError:             func(err error) { st.t.Error(err) },
		OnDownloadPart:            func(string) { p.lowLatency.Store(true) },
		OnDownloadSegment:         func(string) {},
		OnDownloadPrimaryPlaylist: func(string) {},
		OnDownloadStreamPlaylist:  func(string) {},
	}
	p.OnTracks = func(tracks []*gohlslib.Track) error {
		for _, track := range tracks {
			switch track.Codec.(type) {
			case *codecs.H264:
				p.OnDataH26x(track, func(int64, int64, [][]byte) { p.frames.Add(1) })
			case *codecs.MPEG4Audio:
				p.OnDataMPEG4Audio(track, func(_ int64, units [][]byte) { p.sound.Add(int64(len(units))) })
			}
		}
		close(started)
		return nil
	}
	if err := p.Start(); err != nil {
		st.t.Fatal(err)
	}
	go func() { p.ended <- p.Wait2() }()
	select {
	case <-started:
	case err := <-p.ended:
		st.t.Fatal(err)
	case <-time.After(10 * time.Second):
		st.t.Fatal("the player doesn't start")
	}
	return p
}

// countPackets has ffprobe read a rendition from beginning to end.
func (st *stage) countPackets(name string, want int) {
	st.t.Helper()
	ctx, cancel := context.WithTimeout(st.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, testenv.FFprobe(st.t), "-v", "warning", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0",
		st.server.URL+st.media(name+"/index.m3u8"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		st.t.Errorf("ffprobe: %v: %s", err, stderr.String())
	}
	first, _, _ := strings.Cut(string(out), "\n")
	if n, err := strconv.Atoi(first); err != nil || n < want || n > want+1 {
		st.t.Errorf("%s: ffprobe counts %q packets, want %d", name, out, want)
	}
}
