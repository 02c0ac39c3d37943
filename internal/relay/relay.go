// Package relay is the contract by which a broadcast's log leaves ingest: a
// header and records over HTTP, which say what codecs are in force, where
// segments begin, and hold the access units. [Reader] reads it, [Entry.Append]
// writes it, and [Tail] says where its media ends.
//
//	GET /relay/{broadcast}?from={sequence}
//
// The body starts with the settings (once settled) and the codec
// configurations in force, then runs from the mark that decoding segment
// {sequence} must start at: as fast as the reader takes it until it is live,
// then live. Audio that belongs to that first segment but came before its mark
// comes before its mark here too. Without from it starts at the newest mark
// that is a keyframe. 404: no such broadcast here. 410 Gone: the log no longer
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
	"net/url"
	"strconv"
	"time"

	"millrace/internal/media"
)

// OldestHeader carries the oldest mark's sequence on a 410 answer.
const OldestHeader = "X-Millrace-Oldest"

// ContentType is the relay's media type.
const ContentType = "application/vnd.millrace.log"

// Path returns the path and query that read a broadcast's log from a mark on.
func Path(broadcast string, from uint64) string {
	return "/relay/" + url.PathEscape(broadcast) + "?from=" + strconv.FormatUint(from, 10)
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
	// DecodeFrom is the sequence whose mark is the keyframe that decoding must
	// start at; equal to Sequence when this mark is one.
	DecodeFrom uint64 `json:"decode_from"`
	// Held is set where the pictures have stopped and the sound goes on: the segment
	// shows the last picture again and again. The pictures that it is decoded from
	// stand behind the mark that DecodeFrom names.
	Held bool `json:"held,omitempty"`
	// Recode says that players which start with nothing but IDR pictures, as
	// browsers do, can't start here with the source: who makes renditions puts one
	// of its own, of the source's size, in its place.
	Recode bool `json:"recode,omitempty"`
	// Start is the first video frame's PTS, and the segment's start in every rendition.
	Start media.Ticks `json:"start"`
	// AudioStart is the first sample of the first audio frame of the segment,
	// at the audio track's rate. Audio frames lie on the codec's [media.Grid]
	// through it, up to the next discontinuity.
	AudioStart media.Samples `json:"audio_start"`
	// Time is the wall-clock time of Start, to the millisecond (EXT-X-PROGRAM-DATE-TIME).
	Time time.Time `json:"time"`
}

// Independent reports whether the segment starts with a keyframe.
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
	// up to 40 fps) at that rate. Parts begin with frames that such a rung takes.
	FrameStep int `json:"frame_step,omitempty"`
	// Started is the wall-clock time of the broadcast's first mark.
	Started time.Time `json:"started"`
}

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
