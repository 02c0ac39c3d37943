package e2e

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
)

// longStream is a broadcast that is published faster than real time. Each frame
// carries its number, so that its place is known without a clock.
type longStream struct {
	name string
	// start is the first RTMP timestamp, in milliseconds.
	start    uint32
	lasts    time.Duration
	rate     int // samples a second of the sound
	bFrames  bool
	absolute bool
}

const (
	longRate  = 30 // pictures a second
	longGOP   = 2 * longRate
	longAhead = 12 // seconds that the publisher is ahead of the readers at most
	aacFrame  = 1024
)

// longArgs leave nothing in memory for longer than the stream needs it: the
// edge's cache is full within the first hour.
var longArgs = []string{"--ladder", "none", "--dvr-window", "1m", "--retention", "1m", "--cache-max", "8MB", "--max-ahead", "2000h"}

// TestLong publishes for long across the limits of RTMP's timestamps: three
// bytes (4.66 h) and four (49.7 days), and follows picture and sound to the
// end. No frame is lost, none moves against the other track, numbers rise, wall
// clock and media agree, and memory stays flat.
//
// MILLRACE_LONG=30h makes one broadcast last as long as that (make long).
func TestLong(t *testing.T) {
	t.Parallel()
	if lasts := os.Getenv("MILLRACE_LONG"); lasts != "" {
		d, err := time.ParseDuration(lasts)
		if err != nil {
			t.Fatal(err)
		}
		s := harness.StartAll(t, longArgs...)
		// It wraps in the middle, and 4.66 h later has three full bytes.
		half := uint32(-int32(d.Milliseconds() / 2))
		longStream{name: "long", start: half, lasts: d, rate: 44100, bFrames: true}.run(t, s)
		return
	}
	s := harness.StartAll(t, longArgs...)
	for _, l := range []longStream{
		{name: "bytes24", start: 1<<24 - 1_800_000, lasts: time.Hour, rate: 44100, bFrames: true, absolute: true},
		{name: "bytes32", start: -300_000 & math.MaxUint32, lasts: 10 * time.Minute, rate: 48000},
		{name: "bytes31", start: 1<<31 - 60_000, lasts: 10 * time.Minute, rate: 48000, bFrames: true},
	} {
		t.Run(l.name, func(t *testing.T) {
			l.run(t, s.In(t))
		})
	}
}

// run publishes the stream, reads both its renditions and checks them.
func (l longStream) run(t *testing.T, s *harness.Server) {
	key := s.Channel(l.name)
	e, err := harness.DialEncoder(s.RTMP)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	e.Absolute = l.absolute
	if err := e.Publish(key); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read := &longReader{moved: make(chan struct{}, 1)}
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	failed := make(chan error, 3)
	began := time.Now()
	group.Go(func() {
		if err := l.publish(ctx, e, read); err != nil {
			failed <- fmt.Errorf("publish: %w: the server said %q", err, harness.LastLines(e.Said(), 3))
		}
	})
	pictures, sounds := l.frames()
	readers := [2]*longTrack{{of: read, rate: longRate, last: pictures - 1}, {of: read, sound: true, rate: l.rate, last: sounds - 1}}
	var reading sync.WaitGroup
	for i, name := range []string{"source", "audio"} {
		reading.Go(func() {
			if err := readers[i].follow(ctx, s, l.name, name); err != nil {
				failed <- fmt.Errorf("%s, segment %d: %w", name, readers[i].next, err)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		reading.Wait()
		close(done)
	}()
	m := newLongMemory(t, s, read)
	for waiting := true; waiting; {
		select {
		case err := <-failed:
			t.Fatalf("after %v of the stream: %v", read.seen().Round(time.Second), err)
		case <-done:
			waiting = false
		case <-time.After(time.Second):
			m.sample()
		}
	}
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	m.sample()
	l.judge(t, readers, time.Since(began))
	m.judge()
}

// numberSize is the size of a frame's number, longSlice that of a picture before it.
const (
	numberSize = 8
	longSlice  = 4 + 3 + numberSize
)

// longPair is how a pair of channels begins whose spectrum is empty.
var longPair = []byte{0x21, 0, 0}

// appendNumber appends a frame's number, without a byte that is zero: in a slice
// three of those mean something.
func appendNumber(b []byte, n int) []byte {
	for i := range numberSize {
		b = append(b, 0x80|byte(n>>(7*i)))
	}
	return b
}

// number is what appendNumber appended.
func number(b []byte) (n int) {
	for i, c := range b[:numberSize] {
		n |= int(c&0x7f) << (7 * i)
	}
	return n
}

// frames is how many pictures and frames of sound the stream has.
func (l longStream) frames() (pictures, sounds int) {
	return int(l.lasts.Seconds() * longRate), int(math.Ceil(l.lasts.Seconds() * float64(l.rate) / aacFrame))
}

// publish sends the frames in the order of their times, never further ahead of
// the readers than longAhead.
func (l longStream) publish(ctx context.Context, e *harness.Encoder, read *longReader) error {
	at := func(seconds float64) uint32 { return l.start + uint32(int64(math.Round(seconds*1000))) }
	asc := []byte{0x11, 0x90}
	if l.rate == 44100 {
		asc = []byte{0x12, 0x10}
	}
	err := errors.Join(e.Video(l.start, append([]byte{0x17, 0, 0, 0, 0}, harness.AVCRecord...)),
		e.Audio(l.start, append([]byte{0xaf, 0}, asc...)))
	pictures, sounds := l.frames()
	for v, a := 0, 0; err == nil && (v < pictures || a < sounds); {
		pictureAt, soundAt := float64(v)/longRate, float64(a)*aacFrame/float64(l.rate)
		if a < sounds && soundAt < pictureAt || v >= pictures {
			body := appendNumber(append([]byte{0xaf, 1}, longPair...), a)
			err = e.Audio(at(soundAt), body)
			a++
			continue
		}
		if v%longRate == 0 {
			if err = e.W.Flush(); err == nil {
				err = read.await(ctx, time.Duration(v/longRate-longAhead)*time.Second)
			}
		}
		if err == nil {
			shown := l.shown(v)
			lead := 0
			if l.bFrames {
				lead = 1 // PTS must not lie before DTS
			}
			composition := at(float64(shown+lead)/longRate) - at(pictureAt)
			// A slice's header begins as those of x264 do; its number stands for the rest.
			body := []byte{0x27, 1, byte(composition >> 16), byte(composition >> 8), byte(composition), 0, 0, 0, longSlice - 4, 0x41, 0x9a, 0x24}
			if v%longGOP == 0 {
				body[0] = 0x17
				copy(body[9:], []byte{0x65, 0x88, 0x84})
			}
			err = e.Video(at(pictureAt), appendNumber(body, v))
		}
		v++
	}
	if err == nil {
		err = e.End()
	}
	return err
}

// shown is the place in the order of showing of the picture that is decoded as
// number v: IDR, then P, b, b, P, b, b in each closed GOP.
func (l longStream) shown(v int) int {
	i := v % longGOP
	if !l.bFrames || i == 0 {
		return v
	}
	group := (i - 1) / 3 * 3 // its reference comes first, and is shown last
	reference := min(group+3, longGOP-1)
	if (i-1)%3 == 0 {
		return v - i + reference
	}
	return v - 1
}

// longReader is how far the readers are, for the publisher.
type longReader struct {
	mu    sync.Mutex
	at    [2]time.Duration // of pictures and of sound
	moved chan struct{}
}

// seen is the media that both readers have.
func (r *longReader) seen() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return min(r.at[0], r.at[1])
}

// await waits until both readers have the media up to a time.
func (r *longReader) await(ctx context.Context, at time.Duration) error {
	for r.seen() < at {
		select {
		case <-r.moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(30 * time.Second):
			return fmt.Errorf("the readers have %v, and nothing new for 30 s", r.seen())
		}
	}
	return nil
}

func (r *longReader) move(track int, by time.Duration) {
	r.mu.Lock()
	r.at[track] = by
	r.mu.Unlock()
	select {
	case r.moved <- struct{}{}:
	default:
	}
}

// longTrack is what a reader has seen of one rendition.
type longTrack struct {
	of    *longReader
	sound bool
	rate  int // frames a second of pictures, samples a second of sound
	last  int // the number of the last frame

	next   uint64 // the segment that is read next
	frames int    // read so far
	track  *hls.Track
	// first is where frame 0 would lie, in seconds; low and high are how far the
	// frames are off from that.
	first, low, high float64
	began            time.Time     // EXT-X-PROGRAM-DATE-TIME of the first segment
	start            float64       // and its start, in seconds
	clock            time.Duration // the worst difference of the two since
}

// follow reads a rendition segment by segment.
func (x *longTrack) follow(ctx context.Context, s *harness.Server, channel, name string) error {
	address := ""
	err := harness.Until(ctx, 30*time.Second, func() error {
		a, err := hls.Fetch(ctx, hls.Client, s.Playlist(channel))
		if err != nil || a.Status != 200 {
			return fmt.Errorf("the multivariant playlist: %d %v", a.Status, err)
		}
		m, err := hls.ParseMultivariant(string(a.Body))
		if err != nil {
			return err
		}
		for _, uri := range m.Renditions() {
			if strings.Contains(uri, "/"+name+"/") {
				address = strings.TrimSuffix(s.Playlist(channel), "index.m3u8") + uri
				return nil
			}
		}
		return fmt.Errorf("no rendition %s in %s", name, a.Body)
	})
	if err != nil {
		return err
	}
	base, err := url.Parse(address)
	if err != nil {
		return err
	}
	for {
		a, err := hls.Fetch(ctx, hls.Client, fmt.Sprintf("%s?_HLS_msn=%d", address, x.next))
		if err != nil || a.Status != 200 {
			return fmt.Errorf("reload: %d %s %w", a.Status, a.Body, err)
		}
		m, err := hls.ParseMedia(string(a.Body))
		if err != nil {
			return err
		}
		if m.MediaSequence > x.next {
			return fmt.Errorf("the playlist begins with %d: the reader is too late", m.MediaSequence)
		}
		for i := range m.Segments {
			l := &m.Segments[i]
			if l.Open() || l.Sequence < x.next {
				continue
			}
			if err := x.take(ctx, base, l); err != nil {
				return err
			}
		}
		if m.Ended {
			return nil
		}
	}
}

// take fetches a segment and checks its frames.
func (x *longTrack) take(ctx context.Context, base *url.URL, l *hls.ListedSegment) error {
	if l.Sequence != x.next || l.Discontinuity != 0 || l.Gap {
		return fmt.Errorf("segment %d comes, with discontinuity %d, gap %v", l.Sequence, l.Discontinuity, l.Gap)
	}
	get := func(uri string) ([]byte, error) {
		at, err := base.Parse(uri)
		if err != nil {
			return nil, err
		}
		a, err := hls.Fetch(ctx, hls.Client, at.String())
		if err == nil && a.Status != 200 {
			err = fmt.Errorf("GET %s: %d %s", uri, a.Status, a.Body)
		}
		return a.Body, err
	}
	if x.track == nil {
		data, err := get(l.Map)
		if err != nil {
			return err
		}
		if x.track, err = hls.ParseInit(data); err != nil {
			return err
		}
	}
	data, err := get(l.URI)
	if err != nil {
		return err
	}
	samples, err := x.track.ParseFragments(data)
	if err != nil {
		return err
	}
	for _, f := range samples {
		if err := x.frame(f); err != nil {
			return err
		}
	}
	start := float64(samples[0].PTS) / float64(x.track.Timescale)
	if x.next == 0 {
		x.began, x.start = l.Time, start
	}
	clock := l.Time.Sub(x.began) - time.Duration((start-x.start)*float64(time.Second))
	if clock.Abs() > x.clock.Abs() {
		x.clock = clock
	}
	x.next++
	track, per := 0, float64(x.rate)
	if x.sound {
		track, per = 1, float64(x.rate)/aacFrame
	}
	x.of.move(track, time.Duration(float64(x.frames)/per*float64(time.Second)))
	return nil
}

// frame checks one frame's number and place.
func (x *longTrack) frame(f hls.Sample) error {
	skip, per := longSlice-numberSize, float64(x.rate)
	if x.sound {
		skip, per = len(longPair), float64(x.rate)/aacFrame
	}
	if x.frames == x.last+1 && x.sound {
		return nil // silence to the end of the last picture
	}
	if len(f.Data) != skip+numberSize {
		return fmt.Errorf("a frame of %d bytes came, the last one was number %d", len(f.Data), x.frames-1)
	}
	n := number(f.Data[skip:])
	if x.frames == 0 && x.sound {
		x.frames = n // sound from before the first picture is left out
	}
	if n != x.frames {
		return fmt.Errorf("frame %d came where %d was due", n, x.frames)
	}
	x.frames++
	first := float64(f.DTS)/float64(x.track.Timescale) - float64(n)/per
	if n == 0 || x.first == 0 {
		x.first = first
	}
	x.low, x.high = min(x.low, first-x.first), max(x.high, first-x.first)
	return nil
}

// judge checks what the readers have seen.
func (l longStream) judge(t *testing.T, x [2]*longTrack, took time.Duration) {
	t.Helper()
	pictures, sounds := l.frames()
	video, audio := x[0], x[1]
	if video.frames != pictures || audio.frames != sounds {
		t.Errorf("%d pictures and %d frames of sound were read, want %d and %d", video.frames, audio.frames, pictures, sounds)
	}
	if video.next != audio.next || video.next != uint64(l.lasts.Seconds()/2) {
		t.Errorf("%d segments of pictures and %d of sound", video.next, audio.next)
	}
	// What moves: the pictures by a millisecond of rounding, the sound not at all.
	if video.high-video.low > 0.0021 || audio.high-audio.low > 0.00001 {
		t.Errorf("pictures moved by %g to %g s, sound by %g to %g s", video.low, video.high, audio.low, audio.high)
	}
	// Where picture 0 and frame 0 of the sound lie, at the beginning and the worst since.
	apart := video.first - audio.first
	if l.bFrames {
		apart -= 1. / longRate // pictures' times are decode times, that begin with the IDR's shown one
	}
	drift := max(math.Abs(apart+video.high-audio.low), math.Abs(apart+video.low-audio.high))
	if drift > float64(aacFrame)/float64(l.rate) {
		t.Errorf("pictures and sound are up to %.4f s apart", drift)
	}
	for _, x := range x {
		if x.clock.Abs() > 23*time.Millisecond || !x.sound && x.clock.Abs() > 2*time.Millisecond {
			t.Errorf("sound %v: wall clock and media differ by %v", x.sound, x.clock)
		}
	}
	t.Logf("%v of stream in %v: %d segments, %d pictures, %d frames of sound; apart by at most %.1f ms; pictures moved %.1f to %.1f ms, sound %.3f ms; wall clock off by %v",
		l.lasts, took.Round(time.Second), video.next, video.frames, audio.frames, 1000*drift, 1000*video.low, 1000*video.high, 1000*(audio.high-audio.low), video.clock)
}

// longMemory is the server's memory along the stream.
type longMemory struct {
	t      *testing.T
	s      *harness.Server
	read   *longReader
	points []memoryPoint
}

type memoryPoint struct {
	at             time.Duration // of the stream
	heap, resident float64       // MiB: in use after a collection; of the process
}

func newLongMemory(t *testing.T, s *harness.Server, read *longReader) *longMemory {
	return &longMemory{t: t, s: s, read: read}
}

// memoryEvery is the least distance of two points.
const memoryEvery = 30 * time.Minute

// sample notes a point when it is time for one.
func (m *longMemory) sample() {
	at := m.read.seen()
	if n := len(m.points); n > 0 && at < m.points[n-1].at+memoryEvery {
		return
	}
	hls.Get(m.t, "http://"+m.s.Ops+"/debug/pprof/heap?gc=1") // collects first
	m.points = append(m.points, memoryPoint{at, m.s.Metric("go_memstats_heap_alloc_bytes", "") / (1 << 20), m.s.Metric("process_resident_memory_bytes", "") / (1 << 20)})
}

// judge compares the end with the first hour.
func (m *longMemory) judge() {
	for _, p := range m.points {
		m.t.Logf("at %8v: heap %.1f MiB, resident %.1f MiB", p.at.Round(time.Second), p.heap, p.resident)
	}
	var first *memoryPoint
	for i := range m.points {
		if p := &m.points[i]; first == nil && p.at >= time.Hour {
			first = p
		}
	}
	if last := m.points[len(m.points)-1]; first != nil && last.heap > first.heap+8 {
		m.t.Errorf("the heap grew from %.1f MiB at %v to %.1f MiB at %v", first.heap, first.at, last.heap, last.at)
	}
}
