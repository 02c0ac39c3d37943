package front

// Fault is what is wrong with how pictures or sound are packed. Its value labels
// metrics and names the problem in the streamer's health.
type Fault string

// The faults of pictures. For the last two nothing is left out.
const (
	FaultLengths       Fault = "picture_lengths"
	FaultUnits         Fault = "picture_units"
	FaultParameterSets Fault = "picture_parameter_sets"
	FaultApart         Fault = "picture_apart"
	FaultTooLarge      Fault = "picture_too_large"
	FaultBounds        Fault = "picture_bounds"
	FaultSeveral       Fault = "pictures_together"
	FaultTimes         Fault = "picture_times"
)

// The faults of sound.
const (
	FaultADTS        Fault = "audio_adts"
	FaultSoundFrames Fault = "audio_frames"
	FaultSoundConfig Fault = "audio_configuration"
)

// Faults lists all of them.
var Faults = []Fault{
	FaultLengths, FaultUnits, FaultParameterSets, FaultApart, FaultTooLarge, FaultBounds, FaultSeveral, FaultTimes,
	FaultADTS, FaultSoundFrames, FaultSoundConfig,
}

// faultAdvice tells the streamer what is the matter, and what to do.
var faultAdvice = map[Fault]string{
	FaultLengths:       "pictures arrive damaged: the lengths of their parts (NAL units) don't add up, and they have no start codes either; restart the encoder, and if it stays, update it or send through OBS or ffmpeg",
	FaultUnits:         "pictures arrive in parts (NAL units) that the codec doesn't have: restart the encoder, and if it stays, update it or send through OBS or ffmpeg",
	FaultParameterSets: "pictures arrive without the parameter sets (SPS and PPS) that they need: restart the encoder, so that it sends its sequence header again, or have it repeat them at each keyframe (x264: repeat-headers=1)",
	FaultApart:         "parts of a picture arrive after the picture was over, and are left out: let the encoder send each picture in one message (a single slice a picture)",
	FaultTooLarge:      "pictures arrive that are too large, or in too many parts (over 4 MB, or 2,048 NAL units), and are left out: lower the bitrate, or the number of slices",
	FaultBounds:        "the pictures are larger than what is taken (4096x2304 in all), or have too many others to refer to for their size: lower the output resolution, or set the reference frames to 4",
	FaultSeveral:       "several pictures arrive in one message, with one time: they are shown spread evenly; let the encoder send each picture in a message of its own",
	FaultTimes:         "several pictures arrive with the same time: they are shown spread evenly; let the encoder give each picture a time of its own",

	FaultADTS:        "sound arrives with ADTS headers, which RTMP doesn't have: they are taken off, and viewers hear it; let the encoder send raw AAC",
	FaultSoundFrames: "sound arrives that no decoder could make sense of: it is left out, and viewers hear silence there; restart the encoder, and if it stays, send AAC-LC",
	FaultSoundConfig: "sound arrives without the configuration (AudioSpecificConfig) that it needs, or with that of other sound: restart the encoder, so that it sends its sequence header again",
}

// Advice is what the streamer is told.
func (f Fault) Advice() string { return faultAdvice[f] }

// OfPictures reports whether it is of pictures.
func (f Fault) OfPictures() bool { return f.LosesPicture() || f == FaultSeveral || f == FaultTimes }

// LosesPicture reports whether a picture is left out.
func (f Fault) LosesPicture() bool {
	switch f {
	case FaultLengths, FaultUnits, FaultParameterSets, FaultApart, FaultTooLarge, FaultBounds:
		return true
	}
	return false
}
