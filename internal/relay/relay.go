// Package relay is the contract by which a broadcast's log leaves ingest:
// plain FLV over HTTP, in which cut marks and settings are script-data tags
// that ordinary FLV readers skip.
//
//	GET /relay/{broadcast}.flv?from={sequence}
//
// The body starts with the settings (once settled) and the codec
// configurations in force, then runs from the mark that decoding segment
// {sequence} must start at: as fast as the reader takes it until it is live,
// then live. Audio that belongs to that first segment but came before its mark
// comes before its mark here too. Without from it starts at the newest mark
// that is an IDR. 404: no such broadcast here. 410 Gone: the log no longer
// reaches back to {sequence}; the header X-Millrace-Oldest names the oldest
// mark that it holds.
//
// A body that ends in good order right after an End mark is all of the
// broadcast. One that ends in good order right after a Pause mark is all that
// this ingest has of it: another one goes on, or this one stops. A reader whose
// claim is ended by an Order then has nothing more to expect here; one whose
// claim just closes should keep what it has for the ingest that goes on. The
// log of an ingest that goes on with a broadcast begins with the settings and a
// Pause mark under its own epoch, and then opens that same sequence with the
// next discontinuity number. A body that ends anywhere else was cut.
package relay

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"millrace/internal/media"
)

// OldestHeader carries the oldest mark's sequence on a 410 answer.
const OldestHeader = "X-Millrace-Oldest"

// ContentType is the relay's media type.
const ContentType = "video/x-flv"

// Path returns the path and query that read a broadcast's log from a mark on.
func Path(broadcast string, from uint64) string {
	return "/relay/" + url.PathEscape(broadcast) + ".flv?from=" + strconv.FormatUint(from, 10)
}

// MarkKind tells what follows a [Mark].
type MarkKind string

const (
	// Open starts a segment.
	Open MarkKind = "open"
	// Pause ends the segment before it while the publisher is away: the same
	// sequence is opened when a publisher comes back.
	Pause MarkKind = "pause"
	// End ends the segment before it and the broadcast.
	End MarkKind = "end"
)

// Mark is a cut mark: "segment Sequence starts here, and the one before it is complete".
type Mark struct {
	Kind MarkKind `json:"kind"`
	// Epoch is ingest's: it rises with each ingest that takes the channel.
	Epoch uint64 `json:"epoch"`
	// Sequence is the media sequence number of the segment that starts here.
	Sequence uint64 `json:"sequence"`
	// Discontinuity is the segment's discontinuity sequence number.
	Discontinuity uint64 `json:"discontinuity"`
	// DecodeFrom is the sequence whose mark is the IDR that decoding must start
	// at; equal to Sequence when this mark is an IDR.
	DecodeFrom uint64 `json:"decode_from"`
	// Start is the first video frame's PTS, and the segment's start in every rendition.
	Start media.Ticks `json:"start"`
	// AudioStart is the first sample of the first audio frame of the segment,
	// at the audio track's rate. Audio frames lie on the grid
	// AudioStart + k x 1024 up to the next discontinuity.
	AudioStart media.Samples `json:"audio_start"`
	// Time is the wall-clock time of Start, to the millisecond (EXT-X-PROGRAM-DATE-TIME).
	Time time.Time `json:"time"`
}

// Independent reports whether the segment starts with an IDR.
func (m Mark) Independent() bool { return m.DecodeFrom == m.Sequence }

// Settings are what ingest settles once for a whole broadcast. The first two
// seconds of a log may come before them, and TargetDuration may come later
// than the rest (a second Settings, equal in all else).
type Settings struct {
	// TargetDuration is EXT-X-TARGETDURATION in seconds, 0 while unsettled.
	TargetDuration int `json:"target_duration"`
	// PartTarget is PART-TARGET: the longest part of any rendition.
	PartTarget media.Ticks `json:"part_target"`
	// PartDuration is the longest that the pictures' parts are cut to. Sound is
	// cut at the pictures' instants, to whole frames: up to one frame longer.
	PartDuration media.Ticks `json:"part_duration"`
	// PartHoldBack is PART-HOLD-BACK.
	PartHoldBack media.Ticks `json:"part_hold_back"`
	// Video and Audio tell which tracks the broadcast has.
	Video bool `json:"video"`
	Audio bool `json:"audio"`
	// FrameRate is the source's nominal rate, 0 without video.
	FrameRate float64 `json:"frame_rate,omitempty"`
	// FrameStep is how many source frames make one frame of a 30 fps rung (1
	// up to 40 fps). Parts are cut only at multiples of it within a segment.
	FrameStep int `json:"frame_step,omitempty"`
	// Started is the wall-clock time of the broadcast's first mark.
	Started time.Time `json:"started"`
}

// Carry is the earlier name of [Handoff].
type Carry = Handoff

// Handoff is what another ingest needs to go on with a broadcast: the same
// playlists, and numbers that were never used. An ingest that takes a channel
// over asks the one before it for this, which then closes its log:
//
//	POST /release/{broadcast}?epoch={lease epoch}
//
// Statuses: 404 no such broadcast here, 409 this ingest has that lease epoch or
// a higher one, 410 it has ended here, so that nobody may go on with it.
type Handoff struct {
	// Settings are the broadcast's; nothing is settled while PartTarget is 0.
	Settings Settings `json:"settings"`
	// Mark is a pause: its Sequence is the next segment's, Discontinuity the
	// last one used, Start where the media ends and Time the wall-clock time of that.
	Mark Mark `json:"mark"`
}

// SendingPath returns the path at which an ingest says whether its publisher of a
// broadcast is sending: 204, or 404 when it isn't, or isn't there.
func SendingPath(broadcast string) string { return "/sending/" + url.PathEscape(broadcast) }

// ReleasePath returns the path and query by which the ingest that has the lease
// epoch takes a broadcast over from another one.
func ReleasePath(broadcast string, epoch uint64) string {
	return "/release/" + url.PathEscape(broadcast) + "?epoch=" + strconv.FormatUint(epoch, 10)
}

// The names of the script-data tags.
const (
	markName     = "onCutMark"
	settingsName = "onBroadcastSettings"
)

// AppendMark appends m to b as an FLV script-data tag.
func AppendMark(b []byte, m Mark) ([]byte, error) {
	return appendScript(b, markName, m.Start, m)
}

// AppendSettings appends s to b as an FLV script-data tag at time at.
func AppendSettings(b []byte, at media.Ticks, s Settings) ([]byte, error) {
	return appendScript(b, settingsName, at, s)
}

// appendScript writes two AMF0 strings, the name and a JSON document: short,
// and every FLV reader knows how to skip it.
func appendScript(b []byte, name string, at media.Ticks, v any) ([]byte, error) {
	doc, err := json.Marshal(v)
	if err != nil {
		return b, fmt.Errorf("encode %s: %w", name, err)
	}
	var p []byte
	for _, s := range [][]byte{[]byte(name), doc} {
		p = append(p, 2)
		p = binary.BigEndian.AppendUint16(p, uint16(len(s)))
		p = append(p, s...)
	}
	return media.AppendTag(b, media.Tag{Type: media.TagScript, Timestamp: uint32(at.Milliseconds()), Payload: p}), nil
}

// ErrForeign is returned for script data that is not ours, which readers skip.
var ErrForeign = errors.New("script data of another kind")

// ParseScript decodes the payload of a script-data tag: exactly one of the
// results is set, or the error is [ErrForeign] or tells what is malformed.
func ParseScript(payload []byte) (*Mark, *Settings, error) {
	name, rest, ok := amfString(payload)
	if !ok || (name != markName && name != settingsName) {
		return nil, nil, ErrForeign
	}
	doc, _, ok := amfString(rest)
	if !ok {
		return nil, nil, fmt.Errorf("decode %s: its body is not a string", name)
	}
	if name == settingsName {
		var s Settings
		if err := json.Unmarshal([]byte(doc), &s); err != nil {
			return nil, nil, fmt.Errorf("decode %s: %w", name, err)
		}
		return nil, &s, nil
	}
	var m Mark
	if err := json.Unmarshal([]byte(doc), &m); err != nil {
		return nil, nil, fmt.Errorf("decode %s: %w", name, err)
	}
	if m.Kind != Open && m.Kind != Pause && m.Kind != End {
		return nil, nil, fmt.Errorf("decode %s: unknown kind %q", name, m.Kind)
	}
	return &m, nil, nil
}

func amfString(b []byte) (s string, rest []byte, ok bool) {
	if len(b) < 3 || b[0] != 2 {
		return "", nil, false
	}
	n := int(binary.BigEndian.Uint16(b[1:]))
	if len(b) < 3+n {
		return "", nil, false
	}
	return string(b[3 : 3+n]), b[3+n:], true
}
