package access

import (
	"bytes"

	"millrace/ingest/front"
	"millrace/internal/media"
)

// Types of open bitstream units (AV1 specification, 6.2.2).
const (
	obuSequenceHeader    = 1
	obuTemporalDelimiter = 2
	obuFrameHeader       = 3
	obuTileGroup         = 4
	obuMetadata          = 5
	obuFrame             = 6
	obuRedundantHeader   = 7
)

// av1Grammar reads open bitstream units of AV1. An access unit is a temporal unit:
// frames that are hidden, and the one that is shown (7.5).
type av1Grammar struct {
	sequence  []byte // the body of the newest sequence header,
	active    []byte // and of the one that the codec has
	delimited bool   // a temporal unit begins
}

func (g *av1Grammar) configure(record []byte) (*media.Codec, error) {
	if len(record) == 0 {
		return nil, nil
	}
	codec, err := media.ParseCodec(media.AV1, record)
	if err != nil {
		return nil, err
	}
	for rest := record[4:]; len(rest) > 0; {
		var obu media.OBU
		if obu, rest, err = media.CutOBU(rest); err != nil {
			return nil, err
		}
		if obu.Type == obuSequenceHeader {
			g.sequence = obu.Body
		}
	}
	g.active = g.sequence
	return codec, nil
}

// split cuts the low-overhead format (5.2).
func (g *av1Grammar) split(payload []byte) (units [][]byte, exact bool, fault front.Fault) {
	size := 0
	for rest := payload; len(rest) > 0; {
		obu, after, err := media.CutOBU(rest)
		switch {
		case err != nil:
			return nil, false, front.FaultLengths
		case len(units) == maxParts:
			return nil, false, front.FaultTooLarge
		}
		size += len(obu.Coded)
		units, rest = append(units, obu.Coded), after
	}
	return units, size == len(payload), ""
}

func (g *av1Grammar) look(unit []byte) (part, front.Fault, error) {
	p := part{data: unit}
	obu, _, err := media.CutOBU(unit)
	if err != nil {
		return p, front.FaultLengths, nil
	}
	switch obu.Type {
	case obuTemporalDelimiter:
		g.delimited = true
	case obuSequenceHeader:
		p.role = prefix
		if bytes.Equal(g.sequence, obu.Body) {
			break
		}
		// A decoder goes by it at once, also where no keyframe follows that is shown.
		if err := media.CheckAV1Sequence(obu.Body); err != nil || len(unit) > media.MaxRecord/2 {
			return p, front.FaultParameterSets, beyond(err)
		}
		g.sequence = bytes.Clone(obu.Body)
	case obuMetadata:
		p.role = prefix
	case obuTileGroup, obuRedundantHeader:
		p.role, p.follows = slice, true
	case obuFrame, obuFrameHeader:
		switch {
		case g.sequence == nil:
			return p, front.FaultParameterSets, nil
		case len(obu.Body) == 0:
			return p, front.FaultUnits, nil
		}
		p.role, p.head = slice, frameHead(obu.Body[0])
		p.first, g.delimited = g.delimited, false
	}
	return p, "", nil
}

// frameHead reads the first byte of a frame's header (5.9.2). That of a still
// picture has other contents, but nobody publishes one.
func frameHead(b byte) head {
	existing, kind, shown := b&0x80 != 0, b>>5&3, b&0x10 != 0
	if existing {
		return head{}
	}
	key := kind == 0 && shown
	return head{hidden: !shown, key: key, idr: key, intra: key}
}

func (g *av1Grammar) activate(_ *part, keyframe bool) (*media.Codec, [][]byte, error) {
	if g.active != nil && (!keyframe || bytes.Equal(g.active, g.sequence)) {
		return nil, nil, nil
	}
	record, err := media.AV1Record(g.sequence)
	if err != nil {
		return nil, nil, err
	}
	codec, err := media.ParseCodec(media.AV1, record)
	if err == nil {
		g.active = g.sequence
	}
	return codec, nil, err
}

// pack puts units together, which have their sizes.
func (g *av1Grammar) pack(units [][]byte, size int) []byte {
	b := make([]byte, 0, size)
	for _, unit := range units {
		b = append(b, unit...)
	}
	return b
}
