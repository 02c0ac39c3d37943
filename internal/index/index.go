// Package index is the contract that describes what exists of a broadcast:
// renditions, init sections, parts, segments, gaps and the end.
//
// A worker tells all of it on its follow stream:
//
//	GET /follow/{broadcast}
//
// The answer is one JSON array of entries a line. The first lines repeat what
// exists, then they come as it is made. The entries of one line belong
// together: a reader applies them all before it shows any (a segment's last
// part and its EXTINF appear in one step). An empty array is a sign of life,
// sent each [Heartbeat]. 404: this worker doesn't work on that broadcast.
//
// All but parts also go, one entry each, into the Redis stream [StreamKey],
// segments only after their PUT: the memory from which a new worker and a cold
// edge start.
package index

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"millrace/internal/jobs"
	"millrace/internal/media"
)

// Heartbeat is how often a follow stream says something at least.
const Heartbeat = 500 * time.Millisecond

// MaxLine bounds one line of a follow stream, in bytes.
const MaxLine = 1 << 20

// Field is the Redis stream entry's only field: the Entry as JSON.
const Field = "entry"

// StreamKey names a broadcast's Redis stream.
func StreamKey(broadcast string) string { return "millrace:broadcast:{" + broadcast + "}:index" }

// FollowPath is the path of a broadcast's follow stream.
func FollowPath(broadcast string) string { return "/follow/" + url.PathEscape(broadcast) }

// Type tells what an Entry says.
type Type string

// The types of entry.
const (
	// TypeBroadcast announces the settings and all renditions; it comes first.
	TypeBroadcast Type = "broadcast"
	// TypeInit announces an init section of a rendition.
	TypeInit Type = "init"
	// TypePart announces a part.
	TypePart Type = "part"
	// TypeSegment announces a complete segment.
	TypeSegment Type = "segment"
	// TypeGap announces that a segment is missing for good.
	TypeGap Type = "gap"
	// TypePause says that the publisher is away; segment Sequence, when it
	// comes, resumes.
	TypePause Type = "pause"
	// TypeEnd announces the end: Sequence is one past the last segment's.
	TypeEnd Type = "end"
)

// Rendition is one encoding of one track.
type Rendition struct {
	// Name is what stands in addresses: "source", "480p30", "audio".
	Name string     `json:"name"`
	Kind media.Kind `json:"kind"`
	// Source is set for the passthrough rendition.
	Source bool `json:"source,omitempty"`
	// Codec is the RFC 6381 name.
	Codec     string  `json:"codec"`
	Width     int     `json:"width,omitempty"`
	Height    int     `json:"height,omitempty"`
	FrameRate float64 `json:"frame_rate,omitempty"`
	// Range is how bright the pictures can be; empty: SDR.
	Range media.Range `json:"range,omitempty"`
	// MaxBitrate is the cap in bits a second; peaks over it are bounded by a factor of 1.2.
	MaxBitrate int `json:"max_bitrate"`
	// Channels is the number of audio channels.
	Channels int `json:"channels,omitempty"`
}

// Broadcast is what playlists need to know of the whole.
type Broadcast struct {
	// TargetDuration is in seconds.
	TargetDuration int         `json:"target_duration"`
	PartTarget     media.Ticks `json:"part_target"`
	PartHoldBack   media.Ticks `json:"part_hold_back"`
	// Window, above 0, is how far playlists reach back where there is no room to
	// keep as much as --dvr-window says; edges list less at once.
	Window  media.Ticks `json:"window,omitempty"`
	Started time.Time   `json:"started"`
	// Renditions stand in the order of the multivariant playlist, source first; those
	// that not every player can play go behind the others there.
	Renditions []Rendition `json:"renditions"`
}

// Entry is one event. Which fields are set follows from Type.
type Entry struct {
	Type Type `json:"type"`
	// Writer is the epoch of the worker that says so. A reader refuses what a lower
	// lease says of the same thing; under one lease it prefers the higher grant.
	Writer jobs.Epoch `json:"writer"`
	// Broadcast is set on TypeBroadcast.
	Broadcast *Broadcast `json:"broadcast,omitempty"`
	// Rendition names the rendition of an init, part, segment or gap.
	Rendition string `json:"rendition,omitempty"`
	// Init is the hash of the init section that a part or segment needs, or
	// that TypeInit announces.
	Init string `json:"init,omitempty"`
	// Codec, Width, Height go with TypeInit.
	Codec  string `json:"codec,omitempty"`
	Width  int    `json:"width,omitempty"`
	Height int    `json:"height,omitempty"`
	// Epoch is the ingest's, part of the object's name.
	Epoch    uint64 `json:"epoch,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`
	// Part is the part's number within its segment, from 0.
	Part int `json:"part,omitempty"`
	// Parts is how many parts a segment has.
	Parts int `json:"parts,omitempty"`
	// Frames is how many pictures a segment has.
	Frames int `json:"frames,omitempty"`
	// Profile is part of the object's name.
	Profile string `json:"profile,omitempty"`
	// Duration is the part's or the segment's.
	Duration media.Ticks `json:"duration,omitempty"`
	// Independent is set when decoding can start at the part's or segment's first frame.
	Independent bool `json:"independent,omitempty"`
	// Size is in bytes.
	Size int `json:"size,omitempty"`
	// Discontinuity is the segment's discontinuity sequence number.
	Discontinuity uint64 `json:"discontinuity,omitempty"`
	// Time is the segment's program date-time.
	Time time.Time `json:"time,omitzero"`
	// Reason says in plain words why there is a gap, a pause or an end.
	Reason string `json:"reason,omitempty"`
}

// AppendLine appends entries to b as one line of a follow stream.
func AppendLine(b []byte, entries []Entry) ([]byte, error) {
	if entries == nil {
		entries = []Entry{}
	}
	doc, err := json.Marshal(entries)
	if err != nil {
		return b, fmt.Errorf("encode index entries: %w", err)
	}
	return append(append(b, doc...), '\n'), nil
}

// ParseLine decodes one line of a follow stream.
func ParseLine(line []byte) ([]Entry, error) {
	var entries []Entry
	if err := json.Unmarshal(line, &entries); err != nil {
		return nil, fmt.Errorf("decode index line: %w", err)
	}
	for i := range entries {
		if err := entries[i].validate(); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// Parse decodes one entry as it stands in Redis.
func Parse(doc []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(doc, &e); err != nil {
		return Entry{}, fmt.Errorf("decode index entry: %w", err)
	}
	return e, e.validate()
}

// MaxParts bounds the parts of one segment.
const MaxParts = 1000

func (e *Entry) validate() error {
	switch e.Type {
	case TypeBroadcast:
		if b := e.Broadcast; b == nil || b.TargetDuration <= 0 || b.PartTarget <= 0 || b.Window < 0 {
			return errors.New("decode index entry: a broadcast entry without its settings")
		}
	case TypeInit, TypePart, TypeSegment, TypeGap:
		if e.Rendition == "" {
			return fmt.Errorf("decode index entry: a %s entry without a rendition", e.Type)
		}
		if e.Part < 0 || e.Part >= MaxParts || e.Parts < 0 || e.Parts > MaxParts || e.Frames < 0 || e.Size < 0 || e.Duration < 0 {
			return fmt.Errorf("decode index entry: a %s entry of %s with a number out of range", e.Type, e.Rendition)
		}
	case TypePause, TypeEnd:
	default:
		return fmt.Errorf("decode index entry: unknown type %s", strconv.Quote(string(e.Type)))
	}
	return nil
}
