package rtmp

import (
	"errors"
	"strings"
	"testing"

	"millrace/ingest/front"
	"millrace/internal/media"
)

// Codecs that can't be taken end the publisher with words that help.
func TestRefusedCodecs(t *testing.T) {
	for _, c := range []struct {
		track   media.Kind
		payload string
		text    string
		reason  front.Reason
	}{
		{media.Video, "\x1c\x00\x00\x00\x00", "Video in HEVC can't be taken: set the video encoder to H.264", front.VideoCodec},
		{media.Video, "\x90hvc1", "Video in HEVC can't be taken: set the video encoder to H.264", front.VideoCodec},
		{media.Video, "\x90av01", "Video in AV1 can't be taken: set the video encoder to H.264", front.VideoCodec},
		{media.Audio, "\x2f\x00", "Audio in MP3 can't be taken: set the audio encoder to AAC", front.AudioCodec},
		{media.Audio, "\x90Opus", "Audio in \"Opus\" can't be taken: set the audio encoder to AAC", front.AudioCodec},
		{media.Video, "\x17\x00\x00\x00\x00\x01", "The video can't be used: parse H.264 configuration", front.VideoConfig},
	} {
		write := (&tags{}).Video
		if c.track == media.Audio {
			write = (&tags{}).Audio
		}
		var r *front.Refusal
		if err := write(0, []byte(c.payload)); !errors.As(err, &r) || !strings.Contains(r.Text, c.text) || r.Reason != c.reason {
			t.Errorf("%v, want %s: %q", err, c.reason, c.text)
		}
	}
}

// Timestamps that wrap go on, on both tracks.
func TestUnwrapping(t *testing.T) {
	var c clock
	for i, m := range []struct {
		track media.Kind
		raw   uint32
		ms    int64
	}{
		{media.Audio, 1<<32 - 10, 1<<32 - 10}, {media.Video, 10, 1<<32 + 10}, {media.Audio, 20, 1<<32 + 20},
		{media.Video, 1<<32 - 5, 1<<32 - 5}, {media.Video, 40, 1<<32 + 40},
	} {
		if at := c.at(m.track, m.raw); at != media.Ticks(m.ms)*media.TicksPerMillisecond {
			t.Errorf("%d: %d ms, want %d", i, at.Milliseconds(), m.ms)
		}
	}
}
