package encode

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"millrace/internal/media"
)

// packagerVersion is part of every profile: raise it whenever the packager
// writes other bytes for the same log.
const packagerVersion = 5

// slowRate is below what a frame rate is no camera's usual one.
const slowRate = 20

// thumbnailWidth is that of the pictures for listings, in pixels.
const thumbnailWidth = 480

// thumbnailHeight bounds them: a source 16 samples wide would make them a quarter of a million lines high.
const thumbnailHeight = 4 * thumbnailWidth

// Job is what one FFmpeg process does: one segment's pictures in as Matroska
// on standard input, one FLV per rung out on the pipes from 3 on, and then, if
// asked for, one JPEG.
type Job struct {
	Rungs     []Rung
	Preset    string
	Thumbnail bool
	// Preroll says that pictures of earlier segments are fed first, since the
	// segment's own refer to them. What is shown before [prerollTime] is left out.
	Preroll bool
	// Hold shows the last picture alone, again and again.
	Hold Hold
	Look Look
	// Picture is what the source's configuration says: what decoding may take follows
	// from it. Its zero value stands for the largest.
	Picture media.Picture
}

// Hold is how a held picture is shown: from After on, counted from the first one
// fed, there is just that one; it comes Count times, each Every.
type Hold struct {
	After, Every media.Ticks
	Count        int
}

// prerollTime is when the first picture of a segment with a preroll is shown, by
// the times that its process is fed: a preroll is never as long.
const prerollTime media.Ticks = 100 * media.VideoTimescale

// same reports whether a process for j can do k.
func (j Job) same(k Job) bool {
	return j.Preset == k.Preset && j.Thumbnail == k.Thumbnail && j.Preroll == k.Preroll && j.Hold == k.Hold && j.Look == k.Look && j.Picture == k.Picture && slices.Equal(j.Rungs, k.Rungs)
}

// firstPipe is the file descriptor of the first output.
const firstPipe = 3

// args returns FFmpeg's arguments. Each is there for a reason that was
// measured: one thread per stage and bit-exact scaling make the output a
// function of the input alone; the tiny probe and FLV (not MP4) on the way out
// keep a frame's way through the process at a few milliseconds; a GOP without
// end, scene cuts off and forced keyframes copy the source's keyframes, and no
// others.
func (j Job) args() []string {
	a := strings.Fields("-hide_banner -nostats -loglevel error -nostdin -protocol_whitelist pipe" +
		" -probesize 32 -analyzeduration 0 -threads 1 -copyts -max_pixels " + strconv.Itoa(j.maxPixels()) +
		" -f matroska -i pipe:0 -filter_threads 1 -filter_complex_threads 1")
	a = append(a, "-filter_complex", j.filter())
	for i, r := range j.Rungs {
		a = append(a, "-map", fmt.Sprintf("[v%d]", i))
		a = append(a, j.encoder(r)...)
		a = append(a, strings.Fields("-map_metadata -1 -fflags +bitexact -f flv"+
			" -flvflags no_duration_filesize+no_sequence_end+no_metadata"+
			" -avoid_negative_ts disabled -flush_packets 1 -muxdelay 0 -muxpreload 0")...)
		a = append(a, "pipe:"+strconv.Itoa(firstPipe+i))
	}
	if j.Thumbnail {
		a = append(a, strings.Fields("-map [t] -frames:v 1 -fps_mode passthrough -c:v mjpeg -threads 1 -q:v 5 -f mjpeg -flush_packets 1")...)
		a = append(a, "pipe:"+strconv.Itoa(firstPipe+len(j.Rungs)))
	}
	return a
}

// filter returns the graph: one decoded picture goes to all rungs.
func (j Job) filter() string {
	outputs := len(j.Rungs)
	if j.Thumbnail {
		outputs++
	}
	var b strings.Builder
	b.WriteString("[0:v]" + j.Look.decoded())
	if j.Preroll {
		// A little less: decode and presentation times are rounded differently.
		fmt.Fprintf(&b, "select='gte(t,%.4f)',", prerollTime.Seconds()-0.003)
	}
	b.WriteString(j.Hold.filter())
	fmt.Fprintf(&b, "split=%d", outputs)
	for i := range outputs {
		fmt.Fprintf(&b, "[s%d]", i)
	}
	for i, r := range j.Rungs {
		fmt.Fprintf(&b, ";[s%d]%s[v%d]", i, j.scale(r), i)
	}
	if j.Thumbnail {
		fmt.Fprintf(&b, ";[s%d]select='eq(n,0)',%s[t]", len(j.Rungs), j.Look.listed())
	}
	return b.String()
}

// scale is the part of the graph that makes one rung's pictures.
func (j Job) scale(r Rung) string {
	return fmt.Sprintf("select='%s',", r.expression()) + j.Look.scaled(r)
}

// encoder returns the arguments of one rung's encoder. x264 is told the frame
// rate, since it derives the level from it and FFmpeg's own guess may be off by
// far; by a parameter of its own, since FFmpeg 6 and later refuse -r beside
// -fps_mode passthrough.
func (j Job) encoder(r Rung) []string {
	params := "vbv-init=0.3"
	if r.FrameRate > 0 {
		rate := r.FrameRate
		if rate < slowRate {
			rate = 30 // what begins slowly may go on faster
		}
		params += ":fps=" + strconv.FormatFloat(rate, 'f', -1, 64)
	}
	keyframes := " -force_key_frames source -forced-idr 1"
	if j.Preroll { // the source's own may be shown after pictures that follow them
		keyframes = ""
	}
	return strings.Fields(fmt.Sprintf("-c:v libx264 -preset %s -tune zerolatency -bf 0 -threads 1"+
		keyframes+" -g 1000000 -keyint_min 1 -sc_threshold 0 -flags +cgop"+
		" -fps_mode passthrough -enc_time_base 1:90000 -crf 26 -maxrate %d -bufsize %d -x264-params %s",
		j.Preset, r.Bitrate, r.Bitrate, params))
}

// SourceProfile names all that the bytes of repackaged media depend on besides the log.
func SourceProfile() string { return profileOf("source") }

// profile is the audio rendition's: of sound that is encoded no two workers make
// the same bytes, so theirs have different names.
func (s *sound) profile() string {
	if s.transcode == nil {
		return SourceProfile()
	}
	e := s.Grant.Epoch
	return profileOf("sound", strconv.FormatUint(e.Lease, 10), strconv.Itoa(s.Slot), strconv.FormatUint(e.Grant, 10))
}

// rungProfile names all that a rung's bytes depend on besides the log: this
// packager, FFmpeg's build, the architecture and the arguments.
func (j Job) rungProfile(build string, r Rung) string {
	return profileOf(build, runtime.GOARCH, "exact times", j.Look.decoded(), j.scale(r), strings.Join(j.encoder(r), " "))
}

func profileOf(parts ...string) string {
	sum := sha256.Sum256([]byte(strconv.Itoa(packagerVersion) + "\x00" + strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:4])
}
