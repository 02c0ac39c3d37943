package rtmp

import (
	"bytes"
	"slices"
	"testing"
)

// connect is answered with what Enhanced RTMP asks for, whatever its timestamp, and all that
// go-rtmp writes after it is understood.
func TestConnectAnswer(t *testing.T) {
	f := serveRTMP(t, &stage{}, Config{}, nil)
	for _, timestamp := range []uint32{0, 7, extendedTimestamp, 0xfffffff0} {
		e := dialRaw(t, f.address)
		connect := rtmpMessage{kind: typeCommandAMF0, timestamp: timestamp, payload: appendAMF(nil, "connect", 1.0, amfProperties{{"app", "live"}})}
		e.send(appendChunks(nil, chunksCommand, connect, 128))
		var kinds []byte
		for len(kinds) < 4 {
			m, err := e.in.next()
			if err != nil {
				t.Fatalf("at %d: %v", timestamp, err)
			}
			kinds = append(kinds, m.kind)
			if m.kind == typeCommandAMF0 {
				checkAnswer(t, m.payload)
			}
		}
		if want := []byte{typeWindowAckSize, typePeerBandwidth, typeUserControl, typeCommandAMF0}; !slices.Equal(kinds, want) {
			t.Errorf("at %d messages of the types %d came, want %d", timestamp, kinds, want)
		}
		e.send(command("createStream", 2.0, nil))
		e.expect(typeCommandAMF0, string(appendAMF(nil, "_result", 2.0)))
		e.send(command("publish", 3.0, nil, "s3cret", "live"))
		e.expect(typeCommandAMF0, "NetStream.Publish.Start")
		e.send(chunk(0, 2, 0, 6, typeUserControl, "\x00\x06abcd"))
		e.expect(typeUserControl, "\x00\x07abcd")
	}
}

func checkAnswer(t *testing.T, payload []byte) {
	t.Helper()
	values, err := readAMF(payload)
	if err != nil || len(values) != 4 || values[0] != "_result" || values[1] != 1.0 {
		t.Fatalf("the answer is %v, %v", values, err)
	}
	properties, _ := values[2].(map[string]any)
	list, _ := properties["fourCcList"].([]any)
	video, _ := properties["videoFourCcInfoMap"].(map[string]any)
	audio, _ := properties["audioFourCcInfoMap"].(map[string]any)
	if len(list) != 5 || video["hvc1"] != 5.0 || video["av01"] != 5.0 || audio["Opus"] != 1.0 || properties["capsEx"] != 12.0 {
		t.Errorf("the properties are %v", properties)
	}
	information, _ := values[3].(map[string]any)
	if information["code"] != "NetConnection.Connect.Success" || information["level"] != "status" {
		t.Errorf("the information is %v", information)
	}
}

// Whatever way go-rtmp's answer is cut, the same comes out once it is whole.
func TestAnswerInPieces(t *testing.T) {
	control := appendChunks(nil, chunksControl, rtmpMessage{kind: typeWindowAckSize, payload: []byte{0, 1, 0, 0}}, outgoingChunkSize)
	own := rtmpMessage{kind: typeCommandAMF0, timestamp: 9, payload: append(appendAMF(nil, "_result", 1.0), bytes.Repeat([]byte{amfNull}, 300)...)}
	next := appendChunks(nil, chunksCommand, rtmpMessage{kind: typeCommandAMF0, payload: appendAMF(nil, "onStatus")}, outgoingChunkSize)
	written := slices.Concat(control, appendChunks(nil, chunksCommand, own, outgoingChunkSize), next)
	replaced := own
	replaced.payload = connectAnswer
	want := slices.Concat(control, appendChunks(nil, chunksCommand, replaced, outgoingChunkSize), next)
	for cut := range len(written) {
		var f filter
		f.answerConnect()
		got := slices.Concat(f.answered(written[:cut]), f.answered(written[cut:]))
		if !bytes.Equal(got, want) {
			t.Fatalf("cut at %d it became\n%q, want\n%q", cut, got, want)
		}
	}
}
