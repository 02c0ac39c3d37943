// Package access makes access units of what encoders send. Of pictures it finds
// out how their parts are packed, and puts together what belongs to one, whatever
// messages it came in; sound it frees of headers. It is pure: times come in with
// each call.
package access

import (
	"errors"
	"slices"

	"millrace/ingest/front"
	"millrace/internal/media"
)

const (
	// learning is how many pictures are held back at the start, each until the next
	// one comes, to find out whether this encoder sends pictures in one piece and
	// with a time of their own. A broadcast begins after more of them.
	learning = 8
	// patience is how long a picture that may be incomplete is held while the sound
	// goes on, and how far the times of a picture's parts may be apart.
	patience = media.VideoTimescale / 10
	// maxParts and maxBytes bound a picture; no log takes a larger one.
	maxParts = 2048
	maxBytes = 4 << 20
	// maxHeldBytes bounds the messages in which the parts of a picture lie, and those
	// of the pictures that are held back.
	maxHeldBytes = 2 * maxBytes
)

// Sink takes what an [Assembler] makes.
type Sink interface {
	// Config comes before the first unit that is coded with another configuration.
	Config(c *media.Codec) error
	// Write takes an access unit.
	Write(u media.Unit) error
	// Fault tells that something was wrong with how a picture was packed.
	Fault(f front.Fault)
}

// Assembler puts the access units of one track of pictures together. Its errors
// are those of its sink, and a *[front.Refusal] where a configuration can't be
// used: each ends the publisher. Not safe for concurrent use.
type Assembler struct {
	sink    Sink
	format  media.Format
	grammar grammar
	record  []byte // the configuration that was received last
	codec   *media.Codec

	message int      // counts those that were taken
	faulty  int      // the newest of which a part was dropped
	seen    int      // pictures that were finished
	pieces  bool     // this encoder sends a picture in several messages
	sound   soundSpy // how far the sound has come
	times   spreader

	pending []part     // what belongs to the next picture,
	waiting int        // and the bytes of the messages that it lies in
	open    *picture   // further parts may come
	held    []*picture // finished, with one time, which isn't believed yet
	sent    *picture   // the newest one that was written
}

// New returns an assembler for a format of pictures.
func New(format media.Format, sink Sink) *Assembler {
	return &Assembler{sink: sink, format: format, grammar: newGrammar(format)}
}

// Format is what the pictures are coded in.
func (a *Assembler) Format() media.Format { return a.format }

// Config takes a decoder configuration record, or what an encoder sends in its
// place: parameter sets with start codes, or nothing.
func (a *Assembler) Config(record []byte) error {
	if a.record != nil && string(a.record) == string(record) {
		return nil // some encoders repeat it
	}
	a.record = record
	if err := a.flush(); err != nil {
		return err
	}
	if len(record) > media.MaxRecord {
		a.record = nil // nor is it kept
	}
	codec, err := a.grammar.configure(record)
	if err != nil {
		return a.refuse(err)
	}
	if codec == nil || codec.Equal(a.codec) {
		return nil
	}
	a.codec = codec
	return a.sink.Config(codec)
}

// Take takes the payload of one message, which it keeps, and the times of the
// picture in it; claimed where the encoder calls that a keyframe.
func (a *Assembler) Take(dts, composition media.Ticks, claimed bool, payload []byte) error {
	a.message++
	parts, exact, fault := a.grammar.split(payload)
	if fault != "" {
		a.sink.Fault(fault)
		return nil
	}
	whole := exact && a.open == nil && len(a.pending) == 0
	begun := 0
	for _, p := range parts {
		p, fault, err := a.grammar.look(p)
		if err != nil {
			return a.refuse(err)
		}
		if fault != "" {
			a.fault(fault)
		}
		switch {
		case p.role == slice:
			began, err := a.slice(p, dts, composition)
			if err != nil {
				return err
			}
			if began {
				begun++
			}
		case p.role == prefix && len(a.pending) < maxParts:
			a.pending = append(a.pending, p)
		case p.role == suffix && a.open != nil:
			a.open.add(p)
		default:
			whole = false
		}
	}
	if a.open != nil && a.open.message == a.message {
		a.open.access.Claimed = claimed
	}
	if begun > 1 {
		a.sink.Fault(front.FaultSeveral)
		a.times.several = true
	}
	if whole && begun == 1 && len(a.pending) == 0 && len(a.open.parts) == len(parts) {
		a.open.payload = payload
	}
	a.bound(len(payload))
	return a.settle()
}

// refuse returns the refusal of a configuration.
func (a *Assembler) refuse(err error) error {
	why := front.BadConfig(media.Video, err)
	if why.Reason == front.PictureBounds {
		a.sink.Fault(front.FaultBounds)
	}
	return why
}

// beyond returns err if it is a [media.BoundError], else nil.
func beyond(err error) error {
	var bound *media.BoundError
	if errors.As(err, &bound) {
		return err
	}
	return nil
}

// fault tells that a part of this message is dropped.
func (a *Assembler) fault(f front.Fault) {
	a.faulty = a.message
	a.sink.Fault(f)
}

// bound is called when a message of size bytes was taken: it drops what grows too large.
func (a *Assembler) bound(size int) {
	if a.waiting += size; len(a.pending) == 0 {
		a.waiting = 0
	} else if a.waiting > maxHeldBytes {
		a.pending, a.waiting = a.pending[:0:0], 0
	}
	p := a.open
	if p == nil || p.dropped {
		return
	}
	if p.held += size; p.held > maxHeldBytes || p.bytes > maxBytes || len(p.parts) > maxParts {
		p.dropped, p.parts, p.payload = true, nil, nil
		a.sink.Fault(front.FaultTooLarge)
	}
}

// slice takes what a picture is made of. began reports that it is the first part
// of one.
func (a *Assembler) slice(p part, dts, composition media.Ticks) (began bool, err error) {
	if a.open != nil && a.open.takes(&p, a.message, dts) {
		a.pieces = a.pieces || a.open.message != a.message && !a.open.half()
		a.open.add(a.pending...)
		a.open.add(p)
		a.pending = a.pending[:0]
		return false, nil
	}
	if a.open == nil && p.follows && a.faulty == a.message {
		return false, nil // it goes with the slice before it
	}
	if a.open == nil && (p.follows || a.sent != nil && a.sent.takes(&p, a.message, dts)) {
		// Where pictures are waited for already, the sound said too early that one was over.
		a.pieces, a.sound.off = true, a.sound.off || a.pieces
		a.sink.Fault(front.FaultApart)
		return false, nil
	}
	err = a.begin(p, dts, composition)
	return a.open != nil, err
}

// begin begins a picture: the one before is finished by it.
func (a *Assembler) begin(p part, dts, composition media.Ticks) error {
	if err := a.finish(dts); err != nil {
		return err
	}
	recovery := slices.ContainsFunc(a.pending, func(p part) bool { return p.recovery })
	codec, inBand, err := a.grammar.activate(&p, p.idr || recovery && p.intra)
	if beyond(err) != nil {
		return a.refuse(err)
	}
	if err != nil {
		a.fault(front.FaultParameterSets)
		a.pending = a.pending[:0]
		return nil
	}
	a.open = &picture{message: a.message, dts: dts, composition: composition, codec: codec}
	a.open.access.Intra, a.open.access.Disposable = true, true
	for _, set := range inBand {
		a.open.add(part{role: prefix, data: set})
	}
	a.open.add(a.pending...)
	a.open.add(p)
	a.pending = a.pending[:0]
	a.sound.mark()
	return nil
}

// finish closes the open picture, since one with the time next begins.
func (a *Assembler) finish(next media.Ticks) error {
	a.close()
	if len(a.held) == 0 || a.held[0].dts == next && a.learning() {
		return nil
	}
	a.times.expect(a.held[0].dts, len(a.held), next)
	return a.release()
}

// settle is called when a message is over: where this encoder sends pictures in
// one piece, the picture in it is whole, and goes on at once.
func (a *Assembler) settle() error {
	if a.open == nil || a.learning() || a.pieces || a.open.half() {
		return nil
	}
	return a.flush()
}

func (a *Assembler) learning() bool {
	if a.seen >= learning {
		return false
	}
	bytes := 0
	for _, p := range a.held {
		bytes += p.held
	}
	return bytes < maxHeldBytes
}

// close moves the open picture to those that are finished.
func (a *Assembler) close() {
	if a.open == nil {
		return
	}
	if !a.open.dropped {
		a.held = append(a.held, a.open)
	}
	a.open = nil
	a.seen++
}

// Sound tells how far the sound has come. A picture isn't held much longer for
// what may follow.
func (a *Assembler) Sound(at media.Ticks) error {
	if !a.sound.passed(at) || a.open == nil && len(a.held) == 0 {
		return nil
	}
	return a.flush()
}

// Flush writes what is held: nothing follows.
func (a *Assembler) Flush() error { return a.flush() }

func (a *Assembler) flush() error {
	a.close()
	return a.release()
}

// release writes the pictures that are finished.
func (a *Assembler) release() error {
	held := a.held
	a.held = a.held[:0:0]
	for _, p := range held {
		if err := a.write(p); err != nil {
			return err
		}
	}
	return nil
}

func (a *Assembler) write(p *picture) error {
	if p.codec != nil && !p.codec.Equal(a.codec) {
		a.codec = p.codec
		if err := a.sink.Config(p.codec); err != nil {
			return err
		}
	}
	payload := p.payload
	if payload == nil {
		payload = a.grammar.pack(p.parts, p.bytes)
	}
	a.sent, p.parts, p.payload = p, nil, nil
	if a.codec == nil {
		a.sink.Fault(front.FaultParameterSets)
		return nil
	}
	start, err := a.codec.RandomAccess(payload)
	if err != nil {
		a.sink.Fault(front.FaultUnits)
		return nil
	}
	at, shared := a.times.at(p.dts)
	if shared {
		a.sink.Fault(front.FaultTimes)
	}
	return a.sink.Write(media.Unit{Track: media.Video, DTS: at, PTS: at + p.composition, RandomAccess: start, Access: p.access, Payload: payload})
}

// soundSpy watches how far the sound has come since a picture began.
type soundSpy struct {
	off           bool // sound and pictures come in pieces too: it says nothing
	known, marked bool
	now, from     media.Ticks
}

func (s *soundSpy) mark() { s.from, s.marked = s.now, s.known }

func (s *soundSpy) passed(at media.Ticks) bool {
	s.now, s.known = at, true
	if !s.marked {
		s.mark()
	}
	return !s.off && (at-s.from > patience || at < s.from)
}
