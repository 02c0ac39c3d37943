package rtmp

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"slices"
	"strings"
)

var handshakeBytes = append([]byte{rtmpVersion}, make([]byte, handshakeSize-1)...)

// chunk makes the chunk of the given format, with what of the header that format has.
func chunk(format, id byte, timestamp uint32, length int, kind byte, body string) []byte {
	b := []byte{format<<6 | id}
	if format < 3 {
		b = appendUint24(b, min(timestamp, extendedTimestamp))
	}
	if format < 2 {
		b = append(appendUint24(b, uint32(length)), kind)
	}
	if format < 1 {
		b = append(b, mediaStream, 0, 0, 0)
	}
	if format < 3 && timestamp >= extendedTimestamp {
		b = binary.BigEndian.AppendUint32(b, timestamp)
	}
	return append(b, body...)
}

// control makes a protocol control message.
func control(kind byte, value uint32) []byte {
	return append(chunk(0, 2, 0, 4, kind, ""), binary.BigEndian.AppendUint32(nil, value)...)
}

// command makes a command.
func command(values ...any) []byte {
	return commandOf(appendAMF(nil, values...))
}

func commandOf(payload []byte) []byte {
	return appendChunks(nil, 3, rtmpMessage{kind: typeCommandAMF0, payload: payload}, 128)
}

// data makes a data message.
func data(payload []byte) []byte {
	return appendChunks(nil, 5, rtmpMessage{kind: typeDataAMF0, stream: mediaStream, payload: payload}, 128)
}

var (
	pattern = strings.Repeat("0123456789abcdef", 20) // 320 bytes: three chunks

	// A connect whose strict array announces 2,147,483,647 values, and one of nested objects: each
	// alone ends a process that gives it to go-rtmp.
	hugeArray = append(appendAMF(nil, "connect", 1.0), amfObject, 0, 1, 'a', amfStrictArray, 0x7f, 0xff, 0xff, 0xff)
	deepNest  = append(appendAMF(nil, "connect", 1.0), bytes.Repeat([]byte{amfObject, 0, 1, 'a'}, 15_000)...)

	// Legal AMF0 in which go-amf0 loses its place, to find the huge array inside a string: the
	// second object of an ECMA array, and an object for a name.
	hiddenArray = slices.Concat(
		appendAMF(nil, "connect", 1.0), []byte{amfObject, 0, 1, 'a', amfECMAArray, 0, 0, 0, 2},
		[]byte{0, 1, 'x', amfObject}, objectEnd,
		[]byte{0, 1, 'y', amfObject, 0, 1, 'k'}, hiding(slices.Concat(objectEnd, objectEnd, []byte{0, 1, 'z'})),
		objectEnd, objectEnd, objectEnd)
	objectForName = slices.Concat(
		[]byte{amfObject, 0, 1, 'k'}, hiding(append(slices.Clone(objectEnd), make([]byte, 9)...)), objectEnd)

	objectEnd = []byte{0, 0, amfObjectEnd}
)

// hiding is a string that holds what is given and an array. go-amf0, being astray, takes its
// beginning for a key of 0x0202 bytes.
func hiding(b []byte) []byte {
	const length = 0x0240
	text := append(bytes.Repeat([]byte{'.'}, 0x0202-1), b...)
	text = append(text, amfStrictArray, 0x7f, 0xff, 0xff, 0xff)
	text = append(text, bytes.Repeat([]byte{'.'}, length-len(text))...)
	return append([]byte{amfString, length >> 8, length & 0xff}, text...)
}

// filterCases are inputs after the handshake, and what becomes of them: they are the fuzzer's
// seeds as well.
var filterCases = []struct {
	name   string
	input  []byte
	want   []string // kind@timestamp:bytes
	reason string   // of the rejection
	err    error
}{
	{
		name:  "one chunk",
		input: chunk(0, 4, 5, 3, typeAudio, "abc"),
		want:  []string{"8@5:abc"},
	},
	{
		name:  "deltas, and a type 3 that repeats one",
		input: slices.Concat(chunk(0, 4, 1000, 1, typeAudio, "a"), chunk(1, 4, 20, 2, typeAudio, "bb"), chunk(2, 4, 30, 0, 0, "cc"), chunk(3, 4, 0, 0, 0, "dd")),
		want:  []string{"8@1000:a", "8@1020:bb", "8@1050:cc", "8@1080:dd"},
	},
	{
		name:  "a type 3 after a type 0 repeats its timestamp",
		input: slices.Concat(chunk(0, 4, 23, 1, typeAudio, "a"), chunk(3, 4, 0, 0, 0, "b"), chunk(3, 4, 0, 0, 0, "c")),
		want:  []string{"8@23:a", "8@46:b", "8@69:c"},
	},
	{
		name:  "a type 3 after a type 0 whose timestamp is no delta",
		input: slices.Concat(chunk(0, 4, 1_000_000, 1, typeAudio, "a"), chunk(3, 4, 0, 0, 0, "b")),
		want:  []string{"8@1000000:a", "8@1000000:b"},
	},
	{
		name:  "type 1 first",
		input: chunk(1, 4, 7, 1, typeAudio, "a"),
		want:  []string{"8@7:a"},
	},
	{
		name:   "type 3 first",
		input:  chunk(3, 4, 0, 0, 0, "a"),
		reason: "no_header",
	},
	{
		name:  "interleaved chunk streams",
		input: slices.Concat(chunk(0, 6, 40, 320, typeVideo, pattern[:128]), chunk(0, 4, 41, 130, typeAudio, pattern[:128]), chunk(3, 6, 0, 0, 0, pattern[128:256]), chunk(3, 4, 0, 0, 0, "yz"), chunk(3, 6, 0, 0, 0, pattern[256:])),
		want:  []string{"8@41:" + pattern[:128] + "yz", "9@40:" + pattern},
	},
	{
		name:  "extended timestamp of one chunk",
		input: chunk(0, 6, 16_777_215, 1, typeVideo, "a"),
		want:  []string{"9@16777215:a"},
	},
	{
		name:  "extended timestamp repeated in each chunk",
		input: appendChunks(nil, 6, rtmpMessage{kind: typeVideo, stream: 1, timestamp: 20_000_000, payload: []byte(pattern)}, 128),
		want:  []string{"9@20000000:" + pattern},
	},
	{
		name:  "extended timestamp left out in type 3",
		input: slices.Concat(chunk(0, 6, 20_000_000, 320, typeVideo, pattern[:128]), chunk(3, 6, 0, 0, 0, pattern[128:256]), chunk(3, 6, 0, 0, 0, pattern[256:])),
		want:  []string{"9@20000000:" + pattern},
	},
	{
		name:  "extended timestamp left out before the last two bytes",
		input: slices.Concat(chunk(0, 6, 20_000_000, 130, typeVideo, pattern[:128]), chunk(3, 6, 0, 0, 0, "yz")),
		want:  []string{"9@20000000:" + pattern[:128] + "yz"},
	},
	{
		name:  "extended timestamp in a type 3 that starts a message",
		input: slices.Concat(chunk(0, 6, 20_000_000, 1, typeVideo, "a"), chunk(3, 6, 0, 0, 0, "\x01\x31\x2d\x00b")),
		want:  []string{"9@20000000:a", "9@20000000:b"},
	},
	{
		name:  "deltas after an extended timestamp",
		input: slices.Concat(chunk(0, 6, 20_000_000, 1, typeVideo, "a"), chunk(2, 6, 40, 0, 0, "b"), chunk(3, 6, 0, 0, 0, "c")),
		want:  []string{"9@20000000:a", "9@20000040:b", "9@20000080:c"},
	},
	{
		name:  "extended delta",
		input: slices.Concat(chunk(0, 6, 0, 1, typeVideo, "a"), chunk(1, 6, 17_000_000, 130, typeVideo, pattern[:128]), chunk(3, 6, 0, 0, 0, "\x01\x03\x66\x40yz")),
		want:  []string{"9@0:a", "9@17000000:" + pattern[:128] + "yz"},
	},
	{
		name:  "timestamps wrap",
		input: slices.Concat(chunk(0, 6, math.MaxUint32-9, 1, typeVideo, "a"), chunk(2, 6, 20, 0, 0, "b")),
		want:  []string{"9@4294967286:a", "9@10:b"},
	},
	{
		name:  "Set Chunk Size",
		input: slices.Concat(control(typeSetChunkSize, 1), chunk(0, 4, 0, 2, typeAudio, "a"), chunk(3, 4, 0, 0, 0, "b"), []byte{2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0xc2, 0, 0xc2, 1, 0xc2, 0}, chunk(0, 6, 0, 200, typeVideo, pattern[:200])),
		want:  []string{"8@0:ab", "9@0:" + pattern[:200]},
	},
	{
		name:   "Set Chunk Size 0",
		input:  control(typeSetChunkSize, 0),
		reason: "bad_control",
	},
	{
		name:   "Set Chunk Size with the highest bit",
		input:  control(typeSetChunkSize, 1<<31),
		reason: "bad_control",
	},
	{
		name:  "the highest chunk size",
		input: slices.Concat(control(typeSetChunkSize, math.MaxInt32), chunk(0, 6, 0, 320, typeVideo, pattern)),
		want:  []string{"9@0:" + pattern},
	},
	{
		name:  "Abort",
		input: slices.Concat(chunk(0, 6, 1, 320, typeVideo, pattern[:128]), control(typeAbort, 6), control(typeAbort, 9), chunk(1, 6, 2, 3, typeVideo, "abc")),
		want:  []string{"9@3:abc"},
	},
	{
		name:   "a header inside a message",
		input:  slices.Concat(chunk(0, 6, 1, 320, typeVideo, pattern[:128]), chunk(1, 6, 2, 3, typeVideo, "abc")),
		reason: "header_inside_message",
	},
	{
		name:  "messages without a byte",
		input: slices.Concat(chunk(0, 6, 10, 0, typeVideo, ""), chunk(3, 6, 0, 0, 0, ""), chunk(1, 6, 1, 1, typeVideo, "a")),
		want:  []string{"9@21:a"},
	},
	{
		name:  "chunk stream ids of two and three bytes",
		input: slices.Concat([]byte{0, 0}, chunk(0, 4, 5, 1, typeAudio, "a")[1:], []byte{1, 255, 255}, chunk(0, 4, 6, 1, typeAudio, "b")[1:], []byte{1 | 3<<6, 255, 255, 'c'}, []byte{0xc0, 0, 'd'}),
		want:  []string{"8@5:a", "8@6:b", "8@12:c", "8@10:d"},
	},
	{
		name: "17 chunk streams",
		input: func() (b []byte) {
			for id := range byte(17) {
				b = append(b, chunk(0, 3+id, 0, 0, typeAudio, "")...)
			}
			return b
		}(),
		reason: "too_many_chunk_streams",
	},
	{
		name:   "a video of 16 MB announced",
		input:  chunk(0, 6, 0, 0xffffff, typeVideo, "abc"),
		reason: "message_too_large",
	},
	{
		name:   "an audio of 2 MB announced",
		input:  chunk(0, 4, 0, 2<<20, typeAudio, "abc"),
		reason: "message_too_large",
	},
	{
		name:   "a message of an unknown type of 2 MB announced",
		input:  chunk(0, 4, 0, 2<<20, 99, "abc"),
		reason: "message_too_large",
	},
	{
		name: "unfinished messages of 8 MB",
		input: func() (b []byte) {
			b = control(typeSetChunkSize, 4<<20-1)
			for id := range byte(2) {
				b = append(b, chunk(0, 6+id, 0, 4<<20, typeVideo, strings.Repeat("x", 4<<20-1))...)
			}
			return b
		}(),
		reason: "too_many_partials",
	},
	{
		name:  "a message that is cut off",
		input: chunk(0, 6, 0, 100, typeVideo, "abc"),
		err:   io.ErrUnexpectedEOF,
	},
	{
		name:   "garbage",
		input:  []byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
		reason: "message_too_large",
	},
	{
		name:   "connect with an array of 2,147,483,647",
		input:  commandOf(hugeArray),
		reason: "bad_amf",
	},
	{
		name:   "connect with deep objects",
		input:  commandOf(deepNest),
		reason: "bad_amf",
	},
	{
		name:  "connect that hides an array of 2,147,483,647",
		input: commandOf(hiddenArray),
		want:  []string{"20@0:" + string(appendAMF(nil, "connect", 1.0, amfProperties{}))},
	},
	{
		name:  "a command with an object for a name",
		input: commandOf(objectForName),
	},
	{
		name:   "a connect of 16 MB",
		input:  chunk(0, 3, 0, 16<<20-1, typeCommandAMF0, ""),
		reason: "message_too_large",
	},
	{
		name:   "more than 1,024 values",
		input:  commandOf(append(append(appendAMF(nil, "connect", 1.0), amfStrictArray, 0, 0, 8, 0), bytes.Repeat([]byte{amfNull}, 2048)...)),
		reason: "bad_amf",
	},
	{
		name:   "66 commands at once",
		input:  bytes.Repeat(command("getStreamLength"), 66),
		reason: "too_many_commands",
	},
	{
		name:  "commands that wait for an answer",
		input: slices.Concat(command("releaseStream", 2.0, nil, "key"), command("_checkbw", 3.5, nil), commandOf(append(appendAMF(nil, "FCSubscribe", 4.0), hugeArray...))),
		want: []string{
			"20@0:" + string(appendAMF(nil, "getStreamLength", 2.0, nil, "")),
			"20@0:" + string(appendAMF(nil, "getStreamLength", 3.0, nil, "")),
			"20@0:" + string(appendAMF(nil, "getStreamLength", 4.0, nil, "")),
		},
	},
	{
		name: "commands that don't, and answers",
		input: slices.Concat(command("releaseStream", 0.0, nil, "key"), command("_checkbw"), command("getStreamLength", "two"), command("foo", math.Inf(1)),
			command("_result", 2.0, nil, nil), command("_error", 2.0, nil, nil)),
	},
	{
		name: "connect keeps what matters",
		input: commandOf(append(append(appendAMF(nil, "connect", 1.0),
			amfObject, 0, 3, 'a', 'p', 'p', amfString, 0, 1, 'x', 0, 4, 'f', 'p', 'a', 'd', amfUndefined),
			0, 0, amfObjectEnd)),
		want: []string{"20@0:" + string(appendAMF(nil, "connect", 1.0, amfProperties{{"app", "x"}}))},
	},
	{
		name:  "a command in AMF3's wrapping",
		input: chunk(0, 3, 0, 26, typeCommandAMF3, "\x00"+string(appendAMF(nil, "createStream", 2.0, nil))),
		want:  []string{"20@0:" + string(appendAMF(nil, "createStream", 2.0, nil))},
	},
	{
		name:  "deleteStream of a string",
		input: slices.Concat(command("createStream", 2.0, nil), command("deleteStream", 3.0, nil, "key"), command("deleteStream", 4.0, nil, 1.0)),
		want:  []string{"20@0:" + string(appendAMF(nil, "createStream", 2.0, nil)), "20@0:" + string(appendAMF(nil, "deleteStream", 3.0, nil, 1.0))},
	},
	{
		name:  "closeStream",
		input: command("closeStream", 0.0, nil),
		want:  []string{"20@0:" + string(appendAMF(nil, "getStreamLength", 0.0, nil, ""))},
	},
	{
		name:  "publish without a name",
		input: command("publish", math.NaN()),
		want:  []string{"20@0:" + string(appendAMF(nil, "publish", 0.0, nil, ""))},
	},
	{
		name:   "publish of a number",
		input:  command("publish", 5.0, nil, 7.0),
		reason: "bad_amf",
	},
	{
		name: "metadata with and without @setDataFrame, and other data",
		input: slices.Concat(
			data(appendAMF(nil, "@setDataFrame", "onMetaData", nil)),
			data(appendAMF(nil, "onMetaData", nil)),
			data(appendAMF(nil, "onTextData", nil)),
			data(append(appendAMF(nil, "onMetaData"), amfStrictArray, 0x7f, 0xff, 0xff, 0xff))),
		want: slices.Repeat([]string{"18@0:" + string(appendAMF(nil, "@setDataFrame", "onMetaData", nil))}, 2),
	},
	{
		name: "control messages",
		input: slices.Concat(
			control(typeAck, 1), control(typeWindowAckSize, 1), control(typeWindowAckSize, 0), control(typeWindowAckSize, 1<<31), control(typeWindowAckSize, 65536),
			chunk(0, 2, 0, 5, typePeerBandwidth, "abcde"), chunk(0, 2, 0, 6, typeUserControl, "\x00\x06abcd"), chunk(0, 2, 0, 10, typeUserControl, "\x00\x03abcdefgh"),
			chunk(0, 2, 0, 1, typeUserControl, "a"), chunk(0, 5, 0, 3, typeAggregate, "abc"), chunk(0, 5, 0, 3, 77, "abc")),
		want: []string{"5@0:\x00\x01\x00\x00", "4@0:\x00\x06abcd"},
	},
}
