package flv

import (
	"strings"
	"testing"

	"millrace/internal/media"
)

// Bodies written by hand from the specifications: Adobe FLV 10.1, annex E.4, and Enhanced RTMP v2,
// "ExVideoTagHeader" and "ExAudioTagHeader".

var videoCases = []struct {
	name string
	body string
	want Video
	err  string
}{
	// Legacy.
	{"AVC configuration", "\x17\x00\x00\x00\x00record", Video{Kind: Config, Format: media.H264, Keyframe: true, Data: []byte("record")}, ""},
	{"AVC keyframe", "\x17\x01\x00\x00\x50nal", Video{Kind: Frame, Format: media.H264, Keyframe: true, Composition: 80 * ms, Data: []byte("nal")}, ""},
	{"AVC frame, shown before it is decoded", "\x27\x01\xff\xff\xffnal", Video{Kind: Frame, Format: media.H264, Composition: -ms, Data: []byte("nal")}, ""},
	{"AVC frame of the widest composition", "\x27\x01\x80\x00\x00nal", Video{Kind: Frame, Format: media.H264, Composition: -1 << 23 * ms, Data: []byte("nal")}, ""},
	{"AVC end", "\x17\x02\x00\x00\x00", Video{Kind: End, Format: media.H264, Keyframe: true}, ""},
	{"AVC without data", "\x27\x01\x00\x00\x00", Video{Kind: Nothing, Format: media.H264}, ""},
	{"generated keyframe", "\x47\x01\x00\x00\x00nal", Video{Kind: Frame, Format: media.H264, Keyframe: true, Data: []byte("nal")}, ""},
	{"command", "\x57\x00", Video{}, ""},
	{"HEVC by number, configuration", "\x1c\x00\x00\x00\x00record", Video{Kind: Config, Format: media.HEVC, Keyframe: true, Data: []byte("record")}, ""},
	{"HEVC by number, frame", "\x2c\x01\x00\x00\x21nal", Video{Kind: Frame, Format: media.HEVC, Composition: 33 * ms, Data: []byte("nal")}, ""},
	{"empty", "", Video{}, "empty"},
	{"AVC cut short", "\x17\x01\x00\x00", Video{}, "cut short"},
	{"AVC of an unknown packet type", "\x17\x03\x00\x00\x00", Video{}, "packet type 3"},

	// Enhanced.
	{"SequenceStart of HEVC", "\x90hvc1record", Video{Kind: Config, Format: media.HEVC, Keyframe: true, Data: []byte("record")}, ""},
	{"SequenceStart of AV1", "\x90av01record", Video{Kind: Config, Format: media.AV1, Keyframe: true, Data: []byte("record")}, ""},
	{"SequenceStart of AVC", "\x90avc1record", Video{Kind: Config, Format: media.H264, Keyframe: true, Data: []byte("record")}, ""},
	{"CodedFrames of HEVC", "\x91hvc1\x00\x00\x2anal", Video{Kind: Frame, Format: media.HEVC, Keyframe: true, Composition: 42 * ms, Data: []byte("nal")}, ""},
	{"CodedFrames of AVC, shown before it is decoded", "\xa1avc1\xff\xff\xfenal", Video{Kind: Frame, Format: media.H264, Composition: -2 * ms, Data: []byte("nal")}, ""},
	{"CodedFrames of AV1", "\xa1av01obu", Video{Kind: Frame, Format: media.AV1, Data: []byte("obu")}, ""},
	{"CodedFramesX of HEVC", "\xa3hvc1nal", Video{Kind: Frame, Format: media.HEVC, Data: []byte("nal")}, ""},
	{"CodedFramesX of AV1, as some encoders send it", "\x93av01obu", Video{Kind: Frame, Format: media.AV1, Keyframe: true, Data: []byte("obu")}, ""},
	{"CodedFrames without data", "\xa1hvc1\x00\x00\x00", Video{Kind: Nothing, Format: media.HEVC}, ""},
	{"SequenceEnd", "\x92hvc1", Video{Kind: End, Format: media.HEVC, Keyframe: true}, ""},
	{"Metadata", "\x94hvc1\x02\x00\x09colorInfo\x05", Video{}, ""},
	{"Metadata of a codec that isn't taken", "\x94vp09\x02\x00\x09colorInfo\x05", Video{}, ""},
	{"Metadata with the frame type of a command", "\xd4av01", Video{}, ""},
	{"command, enhanced", "\xd1\x00", Video{}, ""},
	{"disposable frame", "\xb1av01obu", Video{Kind: Frame, Format: media.AV1, Data: []byte("obu")}, ""},

	// ModEx.
	{"nanoseconds", "\xa7\x02\x0f\x42\x3f\x01av01obu", Video{Kind: Frame, Format: media.AV1, Offset: 999_999, Data: []byte("obu")}, ""},
	{"nanoseconds in longer data", "\xa7\x03\x00\x00\x07\xff\x03hvc1nal", Video{Kind: Frame, Format: media.HEVC, Offset: 7, Data: []byte("nal")}, ""},
	{"nanoseconds beyond a millisecond", "\xa7\x02\xff\xff\xff\x01av01obu", Video{Kind: Frame, Format: media.AV1, Offset: 999_999, Data: []byte("obu")}, ""},
	{"unknown modifier, then nanoseconds", "\xa7\x00x\x17\x02\x00\x00\x08\x01av01obu", Video{Kind: Frame, Format: media.AV1, Offset: 8, Data: []byte("obu")}, ""},
	{"modifier of 256 bytes", "\xa7\xff\x00\xff" + strings.Repeat("x", 256) + "\x11av01obu", Video{Kind: Frame, Format: media.AV1, Data: []byte("obu")}, ""},
	{"nanoseconds before a command", "\xd7\x02\x00\x00\x08\x01\x00", Video{}, ""},
	{"nanoseconds before tracks", "\xa7\x02\x00\x00\x08\x06\x01av01\x01obu", Video{Kind: Frame, Format: media.AV1, Track: 1, Offset: 8, Data: []byte("obu")}, ""},
	{"nanoseconds of two bytes", "\xa7\x01\x00\x07\x01av01obu", Video{}, "cut short"},
	{"modifier without a size", "\xa7", Video{}, "cut short"},
	{"modifier with half a long size", "\xa7\xff\x00", Video{}, "cut short"},
	{"modifier that is cut short", "\xa7\x09abc", Video{}, "cut short"},
	{"modifiers for ever", "\xa7" + strings.Repeat("\x00x\x17", 1000), Video{}, "more than 16 modifiers"},

	// Multitrack.
	{"OneTrack", "\x96\x00hvc1\x05record", Video{Kind: Config, Format: media.HEVC, Keyframe: true, Track: 5, Data: []byte("record")}, ""},
	{"OneTrack, frame", "\xa6\x01hvc1\x01\x00\x00\x21nal", Video{Kind: Frame, Format: media.HEVC, Track: 1, Composition: 33 * ms, Data: []byte("nal")}, ""},
	{
		"ManyTracks", "\xa6\x13hvc1\x01\x00\x00\x03one\x00\x00\x00\x04zero\x02\x00\x00\x00",
		Video{Kind: Frame, Format: media.HEVC, Further: 2, Data: []byte("zero")}, "",
	},
	{
		"ManyTracks with composition times", "\xa6\x11hvc1\x00\x00\x00\x07\x00\x00\x21zero\x01\x00\x00\x06\x00\x00\x21one",
		Video{Kind: Frame, Format: media.HEVC, Composition: 33 * ms, Further: 1, Data: []byte("zero")}, "",
	},
	{
		"ManyTracksManyCodecs", "\x96\x20av01\x00\x00\x00\x04zerohvc1\x01\x00\x00\x03one",
		Video{Kind: Config, Format: media.AV1, Keyframe: true, Further: 1, Data: []byte("zero")}, "",
	},
	{
		"ManyTracksManyCodecs, the second in a codec that isn't taken", "\x96\x20avc1\x00\x00\x00\x04zerovp09\x01\x00\x00\x03one",
		Video{Kind: Config, Format: media.H264, Keyframe: true, Further: 1, Data: []byte("zero")}, "",
	},
	{"Metadata of tracks", "\x96\x14hvc1\x00\x00\x00\x01a\x01\x00\x00\x01b", Video{Further: 1}, ""},
	{"multitrack in multitrack", "\x96\x06hvc1\x00", Video{}, "nests"},
	{"multitrack of an unknown type", "\x96\x30hvc1\x00", Video{}, "multitrack type 3"},
	{"multitrack without a type", "\x96", Video{}, "cut short"},
	{"OneTrack without a number", "\x96\x00hvc1", Video{}, "cut short"},
	{"ManyTracks without a track", "\x96\x10hvc1", Video{}, "no track"},
	{"ManyTracks with half a size", "\x96\x10hvc1\x00\x00\x00", Video{}, "cut short"},
	{"ManyTracks that are cut short", "\x96\x10hvc1\x00\x00\x00\x04abc", Video{}, "cut short"},
	{"ManyTracks of a size that can't be", "\x96\x10hvc1\x00\xff\xff\xffabc", Video{}, "cut short"},
	{"ManyTracksManyCodecs with half a codec", "\x96\x20hvc", Video{}, "cut short"},

	{"no FourCC", "\x90hvc", Video{}, "cut short"},
	{"no composition time", "\x91hvc1\x00\x00", Video{}, "cut short"},
	{"reserved packet type", "\x98hvc1", Video{}, "packet type 8"},
}

func TestParseVideo(t *testing.T) {
	for _, c := range videoCases {
		t.Run(c.name, func(t *testing.T) {
			v, err := ParseVideo([]byte(c.body))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !strings.HasPrefix(err.Error(), "parse video tag: ") {
					t.Errorf("gave %+v, %v, want %q", v, err, c.err)
				}
				return
			}
			if err != nil || !sameVideo(v, c.want) {
				t.Errorf("gave %+v, %v, want %+v", v, err, c.want)
			}
		})
	}
}

var audioCases = []struct {
	name string
	body string
	want Audio
	err  string
}{
	// Legacy.
	{"AAC configuration", "\xaf\x00\x11\x90", Audio{Kind: Config, Format: media.AAC, Data: []byte{0x11, 0x90}}, ""},
	{"AAC frame", "\xaf\x01aac", Audio{Kind: Frame, Format: media.AAC, Data: []byte("aac")}, ""},
	{"AAC frame, called mono", "\xae\x01aac", Audio{Kind: Frame, Format: media.AAC, Data: []byte("aac")}, ""},
	{"AAC without data", "\xaf\x01", Audio{Kind: Nothing, Format: media.AAC}, ""},
	{"empty", "", Audio{}, "empty"},
	{"AAC cut short", "\xaf", Audio{}, "cut short"},
	{"AAC of an unknown packet type", "\xaf\x02", Audio{}, "packet type 2"},

	// Enhanced.
	{"SequenceStart of AAC", "\x90mp4a\x11\x90", Audio{Kind: Config, Format: media.AAC, Data: []byte{0x11, 0x90}}, ""},
	{"SequenceStart of Opus", "\x90OpusOpusHead...", Audio{Kind: Config, Format: media.Opus, Data: []byte("OpusHead...")}, ""},
	{"SequenceStart of Opus without a header", "\x90Opus", Audio{Kind: Config, Format: media.Opus, Data: defaultOpusHead}, ""},
	{"CodedFrames of AAC", "\x91mp4aaac", Audio{Kind: Frame, Format: media.AAC, Data: []byte("aac")}, ""},
	{"CodedFrames of Opus", "\x91Opus\xfcopus", Audio{Kind: Frame, Format: media.Opus, Data: []byte("\xfcopus")}, ""},
	{"CodedFrames without data", "\x91Opus", Audio{Kind: Nothing, Format: media.Opus}, ""},
	{"SequenceEnd", "\x92Opus", Audio{Kind: End, Format: media.Opus}, ""},
	{"MultichannelConfig", "\x94mp4a\x01\x06\x00\x00\x00\x3f", Audio{}, ""},
	{"nanoseconds", "\x97\x02\x00\x00\x09\x01Opus\xfcopus", Audio{Kind: Frame, Format: media.Opus, Offset: 9, Data: []byte("\xfcopus")}, ""},
	{"OneTrack", "\x95\x01mp4a\x01aac", Audio{Kind: Frame, Format: media.AAC, Track: 1, Data: []byte("aac")}, ""},
	{"ManyTracks", "\x95\x11Opus\x03\x00\x00\x05three\x01\x00\x00\x03one\x02\x00\x00\x03two", Audio{Kind: Frame, Format: media.Opus, Track: 1, Further: 2, Data: []byte("one")}, ""},
	{
		"ManyTracksManyCodecs, the second in a codec that isn't taken", "\x95\x21mp4a\x00\x00\x00\x03aacac-3\x01\x00\x00\x03ac3",
		Audio{Kind: Frame, Format: media.AAC, Further: 1, Data: []byte("aac")}, "",
	},
	{"MultichannelConfig of a track", "\x95\x04Opus\x01\x01\x06\x00\x00\x00\x3f", Audio{Track: 1}, ""},
	{"multitrack in multitrack", "\x95\x05mp4a\x00", Audio{}, "nests"},
	{"no FourCC", "\x90mp4", Audio{}, "cut short"},
	{"reserved packet type", "\x93mp4a", Audio{}, "packet type 3"},
	{"modifier inside a track", "\x95\x07mp4a\x00", Audio{}, "packet type 7"},
}

func TestParseAudio(t *testing.T) {
	for _, c := range audioCases {
		t.Run(c.name, func(t *testing.T) {
			a, err := ParseAudio([]byte(c.body))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !strings.HasPrefix(err.Error(), "parse audio tag: ") {
					t.Errorf("gave %+v, %v, want %q", a, err, c.err)
				}
				return
			}
			if err != nil || !sameAudio(a, c.want) {
				t.Errorf("gave %+v, %v, want %+v", a, err, c.want)
			}
		})
	}
}
