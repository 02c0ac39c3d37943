package front

// Fault is what is wrong with how pictures or sound are packed. Its value labels
// metrics and names the problem in the streamer's health.
type Fault string

// The faults of sound.
const (
	FaultADTS        Fault = "audio_adts"
	FaultSoundFrames Fault = "audio_frames"
	FaultSoundConfig Fault = "audio_configuration"
)

// Faults lists all of them.
var Faults = []Fault{FaultADTS, FaultSoundFrames, FaultSoundConfig}

// faultAdvice tells the streamer what is the matter, and what to do.
var faultAdvice = map[Fault]string{
	FaultADTS:        "sound arrives with ADTS headers, which RTMP doesn't have: they are taken off, and viewers hear it; let the encoder send raw AAC",
	FaultSoundFrames: "sound arrives that no decoder could make sense of: it is left out, and viewers hear silence there; restart the encoder, and if it stays, send AAC-LC",
	FaultSoundConfig: "sound arrives without the configuration (AudioSpecificConfig) that it needs, or with that of other sound: restart the encoder, so that it sends its sequence header again",
}

// Advice is what the streamer is told.
func (f Fault) Advice() string { return faultAdvice[f] }
