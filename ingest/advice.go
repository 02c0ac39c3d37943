package ingest

import (
	"fmt"

	"millrace/internal/media"
)

// pictureAdvice tells the streamer what viewers may see differently, by how the
// pictures are coded and by how a message in them says that they are to be turned.
func pictureAdvice(c *media.Codec, o media.Orientation) (found []advice) {
	say := func(p problem, format string, args ...any) {
		found = append(found, advice{p, fmt.Sprintf(format, args...)})
	}
	if c.Variety != "" {
		say(problemProfile, "the picture is coded as %s %s, which not every browser shows: for the others H.264 of its size is made, which takes much of the server; set the colour format to NV12 (in OBS: Settings, Advanced, Video) and the profile to high or main", c.Format, c.Variety)
	}
	if c.Picture.Interlaced {
		say(problemInterlaced, "the picture is coded as interlaced (two half pictures in each): who watches the original sees combs at the edges of what moves, in the smaller sizes they are taken out; set the camera and the encoder to progressive (1080p in place of 1080i), or deinterlace in the encoder")
	}
	if r := c.Picture.Colour.Range(); r != media.SDR {
		say(problemHDR, "the picture is HDR (%s): who watches the original on an ordinary screen may see it pale, the smaller sizes are turned into SDR; set the colour space to Rec. 709 (in OBS: Settings, Advanced, Video) where most viewers have no HDR", r)
	}
	if o.Turn != 0 || o.Mirrored {
		what := fmt.Sprintf("turned by %d degrees", o.Turn)
		switch {
		case o.Turn == 0:
			what = "mirrored"
		case o.Mirrored:
			what += " and mirrored"
		}
		say(problemTurned, "the encoder asks players to show the picture %s, which browsers don't do: turn it before it is encoded, such as by the app's orientation", what)
	}
	return found
}

// soundAdvice tells the streamer that what only some players can play is encoded anew.
func soundAdvice(c *media.Codec) []advice {
	switch {
	case c.Universal || c.Format == media.Opus && c.Channels <= 2: // as encoders' settings name it
		return nil
	case c.Variety != "":
		return []advice{{problemOddSound, fmt.Sprintf("the sound is %s, which not every player can play: viewers get it as AAC-LC in stereo, encoded anew; set the audio encoder to AAC-LC", c.Variety)}}
	}
	return []advice{{problemOddSound, fmt.Sprintf("the sound has %d channels, which not every player can play: viewers get stereo; set the audio channels to stereo", c.Channels)}}
}
