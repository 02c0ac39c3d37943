package rtmp

import (
	"bufio"
	"bytes"
	"io"
)

// What Enhanced RTMP's masks say (v2, "Enhancing NetConnection connect Command").
const (
	canDecode  = 0x01
	canForward = 0x04

	capsModEx      = 0x04
	capsNanoOffset = 0x08
)

// connectAnswer is what connect is answered with. "The server SHOULD state its support via
// attributes such as videoFourCcInfoMap, capsEx, and similar properties." Multitrack isn't
// announced though it is understood: all tracks but the first are left out, so an encoder that
// minds the answer had better not send them.
var connectAnswer = appendAMF(nil, "_result", 1.0,
	amfProperties{
		{"fmsVer", "Millrace/1,0,0,0"},
		{"capabilities", 31.0},
		{"mode", 1.0},
		{"fourCcList", []string{"avc1", "hvc1", "av01", "mp4a", "Opus"}},
		{"videoFourCcInfoMap", amfProperties{
			{"avc1", float64(canDecode | canForward)},
			{"hvc1", float64(canDecode | canForward)},
			{"av01", float64(canDecode | canForward)},
		}},
		{"audioFourCcInfoMap", amfProperties{
			{"mp4a", float64(canDecode | canForward)},
			{"Opus", float64(canDecode)},
		}},
		{"capsEx", float64(capsModEx | capsNanoOffset)},
	},
	amfProperties{
		{"level", "status"},
		{"code", "NetConnection.Connect.Success"},
		{"description", "Connection succeeded."},
	})

// answer puts connectAnswer in the place of what go-rtmp answers to connect, whose properties have
// no room for it.
type answer struct {
	written []byte // what go-rtmp wrote since connect came
}

// answerConnect has go-rtmp's next answer replaced.
func (f *filter) answerConnect() {
	f.writing.Lock()
	defer f.writing.Unlock()
	f.answer = &answer{}
}

// answered returns what to write to the encoder for p, which go-rtmp writes. The caller holds
// writing.
func (f *filter) answered(p []byte) []byte {
	if f.answer == nil {
		return p
	}
	p, done := f.answer.replace(p)
	if done {
		f.answer = nil
	}
	return p
}

// replace holds back what go-rtmp writes until its answer is whole, and returns all of it then, with
// the answer replaced. Messages get type 0 chunks: go-rtmp's next chunks build on the same
// timestamps, and say themselves how long their messages are, since none is as long as that answer.
func (a *answer) replace(p []byte) (out []byte, done bool) {
	a.written = append(a.written, p...)
	in := newAssembler(bufio.NewReader(bytes.NewReader(a.written)), FilterConfig{}.withDefaults(), func(byte) int { return len(a.written) })
	for !done {
		m, err := in.next()
		if err != nil {
			return nil, false // more is to come
		}
		chunks := byte(chunksControl)
		if m.kind == typeCommandAMF0 {
			chunks, m.payload, done = chunksCommand, connectAnswer, true
		}
		out = appendChunks(out, chunks, m, outgoingChunkSize)
	}
	rest, _ := io.ReadAll(in.r) // it reads from memory
	return append(out, rest...), true
}
