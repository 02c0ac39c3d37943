package ingest

import (
	"testing"

	"millrace/internal/media"
)

// The streamer is told of what viewers may see differently, and of nothing else.
func TestPictureAdvice(t *testing.T) {
	hlg := media.Colour{Primaries: 9, Transfer: 18, Matrix: 9}
	for _, c := range []struct {
		name   string
		codec  media.Codec
		turned media.Orientation
		want   []problem
	}{
		{"ordinary", media.Codec{Format: media.H264, Universal: true}, media.Orientation{}, nil},
		{"4:2:2", media.Codec{Format: media.H264, Variety: "High 4:2:2"}, media.Orientation{}, []problem{problemProfile}},
		{"interlaced", media.Codec{Format: media.H264, Picture: media.Picture{Interlaced: true}}, media.Orientation{}, []problem{problemInterlaced}},
		{"HLG", media.Codec{Format: media.HEVC, Variety: "10 bits", Picture: media.Picture{Colour: hlg}}, media.Orientation{}, []problem{problemProfile, problemHDR}},
		{"turned", media.Codec{Format: media.H264}, media.Orientation{Turn: 90}, []problem{problemTurned}},
		{"mirrored", media.Codec{Format: media.H264}, media.Orientation{Mirrored: true}, []problem{problemTurned}},
		{"not square", media.Codec{Format: media.H264, Picture: media.Picture{Aspect: media.Aspect{Width: 16, Height: 11}}}, media.Orientation{}, nil},
	} {
		var got []problem
		for _, a := range pictureAdvice(&c.codec, c.turned) {
			got = append(got, a.Problem)
		}
		if len(got) != len(c.want) || len(got) > 0 && got[0] != c.want[0] || len(got) > 1 && got[1] != c.want[1] {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Sound that is encoded anew is told of, unless the encoder's settings name it.
func TestSoundAdvice(t *testing.T) {
	for _, c := range []struct {
		codec media.Codec
		want  int
	}{
		{media.Codec{Format: media.AAC, Channels: 2, Universal: true}, 0},
		{media.Codec{Format: media.Opus, Channels: 2}, 0},
		{media.Codec{Format: media.AAC, Channels: 6}, 1},
		{media.Codec{Format: media.AAC, Channels: 2, Variety: "HE-AAC"}, 1},
		{media.Codec{Format: media.MP3, Channels: 2, Variety: "MP3"}, 1},
	} {
		if got := soundAdvice(&c.codec); len(got) != c.want {
			t.Errorf("%s %s in %d channels: %v", c.codec.Format, c.codec.Variety, c.codec.Channels, got)
		}
	}
}
