package access

import (
	"bytes"
	"encoding/binary"
	"errors"

	"millrace/ingest/front"
	"millrace/internal/media"
)

// Types of HEVC NAL units (ITU-T H.265, table 7-1).
const (
	hevcLastSlice   = 9  // of pictures that aren't random access points
	hevcSubLayers   = 16 // below it, even types are of pictures that others don't refer to
	hevcBLA         = 16 // the first type of random access points,
	hevcIDR         = 19 // this and the next
	hevcCRA         = 21
	hevcVPS         = 32
	hevcSPS         = 33
	hevcPPS         = 34
	hevcPrefixSEI   = 39
	hevcSuffixSEI   = 40
	hevcUnspecified = 48 // the first; RTP gives some of them meanings
	hevcDolbyRPU    = 62 // how to show the picture: the last two
)

// hevcArrays are the types of parameter sets in the order of records.
var hevcArrays = []byte{hevcVPS, hevcSPS, hevcPPS}

// hevcGrammar reads NAL units of HEVC (ITU-T H.265, 7.4.2.4).
type hevcGrammar struct {
	framing
	sets   map[byte]map[uint32][]byte // by type and number, as they came
	sps    map[uint32]*media.HEVCSPS
	spsOf  map[uint32]uint32 // of each PPS
	fresh  [][]byte          // PPS that came since the last picture
	record []byte            // what activate made of the sets last
}

func newHEVCGrammar(size int) *hevcGrammar {
	return &hevcGrammar{
		framing: framing{size: size, plausible: hevcPlausible},
		sets:    map[byte]map[uint32][]byte{hevcVPS: {}, hevcSPS: {}, hevcPPS: {}},
		sps:     map[uint32]*media.HEVCSPS{}, spsOf: map[uint32]uint32{},
	}
}

func hevcKind(nalu []byte) byte { return nalu[0] >> 1 & 0x3f }

func hevcPlausible(nalu []byte) bool {
	if len(nalu) < 3 || nalu[0]&0x80 != 0 || nalu[1]&7 == 0 {
		return false
	}
	kind := hevcKind(nalu)
	return kind < hevcUnspecified || kind >= hevcDolbyRPU
}

func (g *hevcGrammar) look(nalu []byte) (part, front.Fault, error) {
	p := part{data: nalu}
	if len(nalu) < 3 {
		return p, "", nil // the end of a sequence, or a delimiter
	}
	if !hevcPlausible(nalu) {
		return p, front.FaultUnits, nil
	}
	kind := hevcKind(nalu)
	if layer := nalu[0]&1<<5 | nalu[1]>>3; layer > 0 { // another view, or one with more detail
		if kind < hevcVPS {
			p.role = suffix
		}
		return p, "", nil
	}
	switch {
	case kind <= hevcLastSlice || kind >= hevcBLA && kind <= hevcCRA:
		first, pps, err := media.ParseHEVCSlice(nalu)
		if err != nil {
			return p, front.FaultUnits, nil
		}
		sps, ok := g.spsOf[pps]
		if !ok || g.sps[sps] == nil {
			return p, front.FaultParameterSets, nil
		}
		p.role, p.first, p.follows, p.sps = slice, first, !first, sps
		p.key = kind >= hevcBLA
		p.intra, p.idr = p.key, p.key && kind < hevcCRA
		p.disposable = kind < hevcSubLayers && kind%2 == 0
	case kind == hevcPrefixSEI:
		p.role = prefix
		p.frames, p.recovery = media.HEVCRecoveryPoint(nalu)
	case kind == hevcSuffixSEI || kind >= hevcDolbyRPU:
		p.role = suffix
	case kind >= hevcVPS && kind <= hevcPPS:
		if err := g.add(nalu); err != nil {
			return p, front.FaultParameterSets, beyond(err)
		}
	}
	return p, "", nil
}

// add keeps a parameter set; another one with its number goes.
func (g *hevcGrammar) add(nalu []byte) (err error) {
	nalu = bytes.TrimRight(nalu, "\x00")
	if len(nalu) < 4 || len(nalu) > media.MaxRecord/4 {
		return errors.New("a parameter set is too short or too long")
	}
	var id uint32
	kind := hevcKind(nalu)
	switch kind {
	case hevcVPS:
		id, err = media.ParseHEVCVPS(nalu)
	case hevcSPS:
		var sps *media.HEVCSPS
		if sps, err = media.ParseHEVCSPS(nalu); err == nil {
			id, g.sps[sps.ID] = sps.ID, sps
		}
	case hevcPPS:
		var sps uint32
		if id, sps, err = media.ParseHEVCPPS(nalu); err == nil {
			g.spsOf[id] = sps
		}
	}
	if err != nil || bytes.Equal(g.sets[kind][id], nalu) {
		return err
	}
	g.sets[kind][id] = bytes.Clone(nalu)
	if kind == hevcPPS {
		g.fresh = append(g.fresh[:min(len(g.fresh), 16)], g.sets[kind][id])
	}
	return nil
}

func (g *hevcGrammar) configure(record []byte) (*media.Codec, error) {
	if len(record) == 0 {
		return nil, nil
	}
	nalus, size, exact := splitHVCC(record)
	if hasStartCode(record) {
		nalus, size, exact = splitStartCodes(record), 4, false
	}
	if size == 0 {
		return media.ParseCodec(media.HEVC, record)
	}
	*g = *newHEVCGrammar(size)
	for _, nalu := range nalus {
		if kind := hevcKind(nalu); kind < hevcVPS || kind > hevcPPS {
			continue
		}
		if err := g.add(nalu); err != nil {
			return nil, err
		}
	}
	g.fresh = nil
	first, ok := uint32(0), false
	for _, sps := range g.spsOf {
		if g.sps[sps] != nil && (!ok || sps < first) {
			first, ok = sps, true
		}
	}
	if !ok || len(g.sets[hevcVPS]) == 0 {
		return nil, nil
	}
	g.record = g.makeRecord(first)
	return configured(media.HEVC, record, exact, g.record)
}

func (g *hevcGrammar) activate(first *part, keyframe bool) (codec *media.Codec, inBand [][]byte, err error) {
	inBand, g.fresh = g.fresh, nil
	if g.record != nil && !keyframe && !first.key {
		return nil, inBand, nil
	}
	record := g.makeRecord(first.sps)
	if bytes.Equal(record, g.record) {
		return nil, nil, nil
	}
	if codec, err = media.ParseCodec(media.HEVC, record); err == nil {
		g.record = record
	}
	return codec, nil, err
}

// hevcRecordHead is the size of a record without parameter sets, in bytes.
const hevcRecordHead = 23

// splitHVCC reads the parameter sets of an HEVCDecoderConfigurationRecord (ISO/IEC
// 14496-15, 8.3.3.1) as far as they come, and the size of lengths; 0 where it is
// none. exact: it is as it should be.
func splitHVCC(b []byte) (nalus [][]byte, size int, exact bool) {
	if len(b) < hevcRecordHead || b[0] > 1 {
		return nil, 0, false
	}
	size, exact = int(b[21]&3)+1, b[21]&3 == 3 && b[0] == 1
	arrays, b := int(b[22]), b[hevcRecordHead:]
	for ; arrays > 0; arrays-- {
		if len(b) < 3 {
			return nalus, size, false
		}
		kind, count := b[0]&0x3f, int(binary.BigEndian.Uint16(b[1:]))
		b = b[3:]
		for ; count > 0; count-- {
			if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
				return nalus, size, false
			}
			n := int(binary.BigEndian.Uint16(b))
			set := b[2 : 2+n]
			b = b[2+n:]
			if len(set) > 2 && hevcKind(set) == kind {
				nalus = append(nalus, set)
				continue
			}
			exact = false
			nalus = append(nalus, splitStartCodes(set)...)
		}
	}
	return nalus, size, exact
}

// makeRecord makes an HEVCDecoderConfigurationRecord of the sets there are, the
// SPS in use first.
func (g *hevcGrammar) makeRecord(active uint32) []byte {
	p := g.sps[active]
	layers := p.Layers<<3 | 3 // and lengths of four bytes
	if p.Nested {
		layers |= 1 << 2
	}
	b := append([]byte{1}, p.Profile[:]...)
	b = append(b, 0xf0, 0, 0xfc, 0xfc|p.Chroma, 0xf8|p.LumaDepth, 0xf8|p.ChromaDepth, 0, 0, layers, byte(len(hevcArrays)))
	for _, kind := range hevcArrays {
		var list [][]byte
		if kind == hevcSPS {
			list = append(list, g.sets[kind][active])
		}
		for id := range uint32(64) {
			if nalu := g.sets[kind][id]; nalu != nil && (kind != hevcSPS || id != active) {
				list = append(list, nalu)
			}
		}
		b = append(b, 0x80|kind)
		b = appendSets(binary.BigEndian.AppendUint16(b, uint16(len(list))), list)
	}
	return b
}
