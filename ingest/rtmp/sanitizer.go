package rtmp

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"millrace/internal/rate"
)

// Chunk streams on which messages are handed to go-rtmp.
const (
	chunksControl = 2
	chunksCommand = 3
	chunksAudio   = 4
	chunksData    = 5
	chunksVideo   = 6
)

// Message streams. go-rtmp is set up to know these two only.
const (
	controlStream = 0
	mediaStream   = 1 // its answer to createStream
)

// A Window Acknowledgement Size below this would have go-rtmp answer nearly each chunk.
const minAckWindow = 64 << 10

const eventPingRequest = 6 // of User Control messages (7.1.7)

// commandRate bounds commands: a whole conversation at once, and then what encoders repeat for as long as
// they send (_checkbw, getStreamLength).
var commandRate = rate.Limit{PerSecond: 1, Size: 64}

// maxFourCCs bounds how many codecs the log names of those that a connect announces.
const maxFourCCs = 16

// sanitizer decides for each message of an encoder whether it reaches go-rtmp, and in which form.
//
// Commands are not passed on but written anew, with just those arguments that go-rtmp reads:
// its AMF0 decoder loses its place in input that is legal but unexpected (an object for a name,
// an ECMA array with two objects), and what it then takes for a value may be an array of two
// thousand million elements, which ends the process. So no byte that it decodes comes from the
// encoder, save for the inside of strings.
type sanitizer struct {
	limits  FilterConfig
	dropped func(reason string) // told of each message that is left out

	now        func() time.Time
	commands   rate.Bucket
	publishing bool // a publish was passed on
	streamOpen bool // a createStream was, and no deleteStream since

	asked string // the command that was passed on as a question

	// fourCCs are the codecs that connect announced (Enhanced RTMP's fourCcList, or its maps), for
	// the log only: encoders that announce none send them all the same.
	fourCCs []string
}

// limit is the most bytes that a message of the given type may have.
func (s *sanitizer) limit(kind byte) int {
	switch {
	case kind == typeVideo && s.publishing:
		return s.limits.MaxVideo
	case kind == typeAudio && s.publishing:
		return s.limits.MaxAudio
	default:
		return s.limits.MaxOther
	}
}

// pass returns m as go-rtmp may have it, and the chunk stream for it; 0 if it may not have it.
// The error is a *filterError, and ends the connection.
func (s *sanitizer) pass(m rtmpMessage) (rtmpMessage, byte, error) {
	if len(m.payload) == 0 {
		return s.drop("empty")
	}
	switch m.kind {
	case typeAudio, typeVideo:
		if !s.publishing {
			return s.drop("media_before_publish")
		}
		if m.kind == typeAudio {
			return m, chunksAudio, nil
		}
		return m, chunksVideo, nil

	case typeUserControl:
		if len(m.payload) < 6 || binary.BigEndian.Uint16(m.payload) != eventPingRequest {
			return s.drop("user_control")
		}
		m.payload, m.stream = m.payload[:6], controlStream
		return m, chunksControl, nil

	case typeWindowAckSize:
		if len(m.payload) < 4 {
			return s.drop("window")
		}
		if w := binary.BigEndian.Uint32(m.payload); w < minAckWindow || w > math.MaxInt32 {
			return s.drop("window")
		}
		m.payload, m.stream = m.payload[:4], controlStream
		return m, chunksControl, nil

	case typeAck, typePeerBandwidth:
		return rtmpMessage{}, 0, nil // nothing depends on them

	case typeCommandAMF3, typeCommandAMF0:
		return s.command(amf0(m, typeCommandAMF0))

	case typeDataAMF3, typeDataAMF0:
		return s.data(amf0(m, typeDataAMF0))

	case typeAggregate:
		return s.drop("aggregate")

	default:
		return s.drop("unknown_type")
	}
}

// amf0 turns an AMF3 message into the AMF0 one that it wraps: encoders that announce AMF3 still
// write AMF0, behind a byte 0.
func amf0(m rtmpMessage, kind byte) rtmpMessage {
	if m.kind != kind && m.payload[0] == 0 {
		m.payload = m.payload[1:]
	}
	m.kind = kind
	return m
}

// command writes a command anew if it is one that matters here; any other becomes a question.
func (s *sanitizer) command(m rtmpMessage) (rtmpMessage, byte, error) {
	if s.commands.Add(1, commandRate, s.now()) {
		return rtmpMessage{}, 0, rejected("too_many_commands", "more than %.0f commands were sent, and more than one a second", commandRate.Size)
	}
	head := amfReader{b: m.payload}
	first, err := head.value(1)
	if err != nil {
		return rtmpMessage{}, 0, rejected("bad_amf", "a command can't be read: %v", err)
	}
	name, _ := first.(string)
	switch name {
	case "connect", "createStream", "publish", "play", "deleteStream":
		args, err := readAMF(head.b)
		if err != nil {
			return rtmpMessage{}, 0, rejected("bad_amf", "the command %s can't be read: %v", name, err)
		}
		return s.rewrite(name, args)
	case "", "_result", "_error":
		return s.drop("command") // answers aren't answered
	}
	transaction, err := head.value(1)
	if err != nil {
		return s.drop("command")
	}
	return s.question(name, transactionID(transaction))
}

// question passes on a command that go-rtmp doesn't answer, as one that it leaves to the connection
// (OnUnknownCommandMessage); its name is kept here. Without a transaction id nobody waits for an answer: then
// only those pass that mean something here.
func (s *sanitizer) question(name string, transaction float64) (rtmpMessage, byte, error) {
	switch name {
	case "FCPublish", "FCUnpublish", "closeStream":
	default:
		if transaction == 0 {
			return s.drop("command")
		}
	}
	s.asked = name
	payload := appendAMF(nil, questionCommand, transaction, nil, "")
	return rtmpMessage{kind: typeCommandAMF0, stream: controlStream, payload: payload}, chunksCommand, nil
}

// transactionID is a command's, as a whole number; 0 where it has none.
func transactionID(v any) float64 {
	id, _ := v.(float64)
	if !(math.Abs(id) < 1<<53) { // NaN included
		return 0
	}
	return math.Trunc(id)
}

// rewrite writes a known command. args are its transaction id, its command object, and the rest.
func (s *sanitizer) rewrite(name string, args []any) (rtmpMessage, byte, error) {
	stream := uint32(controlStream)
	var rest []any
	switch name {
	case "connect":
		object, _ := argument(args, 1).(map[string]any)
		s.noteFourCCs(object)
		var p amfProperties
		for _, key := range []string{"app", "type", "flashVer", "tcUrl"} {
			if v, ok := object[key].(string); ok {
				p = append(p, amfProperty{key, v})
			}
		}
		rest = []any{p}

	case "createStream":
		s.streamOpen = true
		rest = []any{nil}

	case "publish", "play":
		// On whichever stream they come: there is only one.
		key, ok := argument(args, 2).(string)
		if !ok && argument(args, 2) != nil {
			return rtmpMessage{}, 0, rejected("bad_amf", "%s names no stream", name)
		}
		s.publishing = s.publishing || name == "publish"
		stream, rest = mediaStream, []any{nil, key}

	case "deleteStream":
		// Whatever it names (GStreamer gives a string), it means the one stream that there is.
		if !s.streamOpen {
			return s.drop("command")
		}
		s.streamOpen = false
		rest = []any{nil, float64(mediaStream)}
	}
	payload := appendAMF(nil, name, transactionID(argument(args, 0)))
	payload = appendAMF(payload, rest...)
	return rtmpMessage{kind: typeCommandAMF0, stream: stream, payload: payload}, chunksCommand, nil
}

// data passes metadata on as "@setDataFrame", "onMetaData", values, which go-rtmp doesn't decode.
// Metadata that can't be read is dropped: a broadcast goes on without.
func (s *sanitizer) data(m rtmpMessage) (rtmpMessage, byte, error) {
	r := amfReader{b: m.payload}
	name, err := r.value(1)
	if err == nil && name == "@setDataFrame" {
		m.payload = r.b
		name, err = r.value(1)
	}
	if err == nil && name != "onMetaData" {
		return s.drop("data")
	}
	if err == nil {
		_, err = readAMF(r.b)
	}
	if err != nil {
		return s.drop("bad_metadata")
	}
	m.payload = append(appendAMF(nil, "@setDataFrame"), m.payload...)
	m.stream = mediaStream
	return m, chunksData, nil
}

// noteFourCCs keeps a bounded, sorted copy of the codecs that connect's object announces.
func (s *sanitizer) noteFourCCs(object map[string]any) {
	var names []string
	list, _ := object["fourCcList"].([]any)
	for _, v := range list {
		name, _ := v.(string)
		names = append(names, name)
	}
	for _, property := range []string{"videoFourCcInfoMap", "audioFourCcInfoMap"} {
		m, _ := object[property].(map[string]any)
		names = slices.AppendSeq(names, maps.Keys(m))
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" || len(name) > 4 })
	slices.Sort(names)
	names = slices.Compact(names)
	s.fourCCs = names[:min(len(names), maxFourCCs)]
}

func (s *sanitizer) drop(reason string) (rtmpMessage, byte, error) {
	if s.dropped != nil {
		s.dropped(reason)
	}
	return rtmpMessage{}, 0, nil
}

// argument is the i-th of args, nil if there are fewer.
func argument(args []any, i int) any {
	if i < len(args) {
		return args[i]
	}
	return nil
}

// filterError is why the filter refused what an encoder sent.
type filterError struct {
	reason  string // a metric's label
	message string // in plain words
}

func (e *filterError) Error() string { return e.message }

func rejected(reason, format string, args ...any) *filterError {
	return &filterError{reason: reason, message: fmt.Sprintf(format, args...)}
}
