package encode

import (
	"log/slog"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
)

// announcer hands what is made to the [Publisher]. Before the broadcast is
// announced it keeps everything else. It belongs to the worker's goroutine.
type announcer struct {
	publish   Publisher
	writer    jobs.Epoch
	log       *slog.Logger
	announced bool
	held      []message
}

// message is one thing to publish. Its kind is of the index's entries, or empty
// for a picture for listings, which is its data.
type message struct {
	kind  index.Type
	entry index.Entry // of an init section, part, gap; of a pause and the end its sequence and reason
	init  *media.Init
	data  []byte
	// segment is the one that a part ends; its Type is empty if it doesn't.
	segment index.Entry
}

// broadcast announces the broadcast, and publishes what was kept.
func (a *announcer) broadcast(b index.Broadcast) {
	a.announced = true
	a.publish.Broadcast(b)
	held := a.held
	a.held = nil
	for _, m := range held {
		a.hand(m)
	}
}

// send publishes now, or once the broadcast is announced.
func (a *announcer) send(m message) {
	if a.announced {
		a.hand(m)
		return
	}
	a.held = append(a.held, m)
}

func (a *announcer) hand(m message) {
	switch m.kind {
	case index.TypeInit:
		a.publish.Init(m.entry.Rendition, m.init, m.entry)
	case index.TypePart:
		a.handPart(m)
	case index.TypeGap:
		a.publish.Gap(m.entry)
	case index.TypePause:
		a.publish.Pause(m.entry.Sequence, m.entry.Reason)
	case index.TypeEnd:
		a.publish.End(m.entry.Sequence, m.entry.Reason)
	default:
		a.publish.Thumbnail(m.data)
	}
}

func (a *announcer) handPart(m message) {
	var err error
	if m.segment.Type == "" {
		err = a.publish.Part(m.entry, m.data)
	} else {
		err = a.publish.Finish(m.entry, m.data, m.segment)
	}
	if err != nil {
		a.log.Error("a part was not published", "rendition", m.entry.Rendition, "sequence", m.entry.Sequence, "part", m.entry.Part, "err", err)
	}
}

// init announces the header of a rendition.
func (a *announcer) init(rendition string, init *media.Init, e index.Entry) {
	e.Type, e.Rendition, e.Init, e.Writer = index.TypeInit, rendition, init.Hash, a.writer
	a.send(message{kind: index.TypeInit, entry: e, init: init})
}

// put publishes a part and, with the last one, its segment.
func (a *announcer) put(part index.Entry, data []byte, segment index.Entry) {
	a.send(message{kind: index.TypePart, entry: part, data: data, segment: segment})
}

// gap says that a segment is missing in a rendition.
func (a *announcer) gap(e index.Entry) { a.send(message{kind: index.TypeGap, entry: e}) }

// reasonLost is why there is a pause.
const reasonLost = "the publisher lost the connection"

// pause says that nothing comes for now, from a sequence on.
func (a *announcer) pause(sequence uint64) {
	a.send(message{kind: index.TypePause, entry: index.Entry{Sequence: sequence, Reason: reasonLost}})
}

// end says that the broadcast ended before a sequence.
func (a *announcer) end(sequence uint64) {
	a.send(message{kind: index.TypeEnd, entry: index.Entry{Sequence: sequence, Reason: "the broadcast ended"}})
}

// thumbnail publishes a picture for listings.
func (a *announcer) thumbnail(jpeg []byte) { a.send(message{data: jpeg}) }

// putter returns what a rendition of the segment publishes by: it puts the same
// media under the names of the rungs that it stands in for.
func (a *announcer) putter(s *segment, rendition string) func(index.Entry, []byte, index.Entry) {
	others := a.standInPutter(s, rendition)
	return func(part index.Entry, data []byte, segment index.Entry) {
		a.put(part, data, segment)
		others(part, data, segment)
	}
}

// standInPutter returns what puts a rendition of the segment under the names of
// the rungs that it stands in for, and not under its own.
func (a *announcer) standInPutter(s *segment, rendition string) func(index.Entry, []byte, index.Entry) {
	return func(part index.Entry, data []byte, segment index.Entry) {
		for _, shed := range s.shedFor(rendition) {
			part.Rendition, segment.Rendition = shed.rung.Name, shed.rung.Name
			a.put(part, data, segment)
			shed.done = segment.Type != ""
		}
	}
}
