package access

import (
	"bytes"
	"encoding/binary"
	"errors"

	"millrace/ingest/front"
	"millrace/internal/media"
)

// h264Grammar reads NAL units of H.264 (ITU-T H.264, 7.4.1).
type h264Grammar struct {
	framing
	sets   media.ParameterSets
	sps    [32][]byte // as they came, by number
	pps    [256][]byte
	fresh  [][]byte // PPS that came since the last picture
	record []byte   // what activate made of the sets last
}

func h264Plausible(nalu []byte) bool {
	kind := nalu[0] & 0x1f
	return nalu[0]&0x80 == 0 && kind > 0 && kind < media.H264Unspecified
}

func (g *h264Grammar) look(nalu []byte) (part, front.Fault, error) {
	p := part{data: nalu}
	if !h264Plausible(nalu) {
		return p, front.FaultUnits, nil
	}
	switch kind := nalu[0] & 0x1f; kind {
	case media.H264Slice, media.H264PartitionA, media.H264IDR:
		s, err := media.ParseSlice(nalu, &g.sets)
		if errors.Is(err, media.ErrNoParameterSet) {
			return p, front.FaultParameterSets, nil
		}
		if err != nil {
			return p, front.FaultUnits, nil
		}
		p.role = slice
		p.head = head{slice: s, idr: s.IDR, intra: s.Intra, disposable: !s.Reference}
	case media.H264PartitionB, media.H264PartitionC, media.H264Auxiliary, media.H264Layer, media.H264Depth:
		p.role, p.follows = slice, true
	case media.H264SEI:
		p.role = prefix
		p.frames, p.recovery = media.RecoveryPoint(nalu)
	case media.H264Prefix:
		p.role = prefix
	case media.H264SPS, media.H264PPS:
		if err := g.add(nalu); err != nil {
			return p, front.FaultParameterSets, beyond(err)
		}
	}
	return p, "", nil
}

// add keeps a parameter set; another one with its number goes.
func (g *h264Grammar) add(nalu []byte) error {
	nalu = bytes.TrimRight(nalu, "\x00")
	if len(nalu) > media.MaxRecord/4 {
		return errors.New("a parameter set is too long")
	}
	if nalu[0]&0x1f == media.H264SPS {
		sps, err := media.ParseSPS(nalu)
		if err != nil {
			return err
		}
		if !bytes.Equal(g.sps[sps.ID], nalu) {
			g.sps[sps.ID], g.sets.SPS[sps.ID] = bytes.Clone(nalu), sps
		}
		return nil
	}
	pps, err := media.ParsePPS(nalu)
	if err != nil {
		return err
	}
	if !bytes.Equal(g.pps[pps.ID], nalu) {
		g.pps[pps.ID], g.sets.PPS[pps.ID] = bytes.Clone(nalu), pps
		g.fresh = append(g.fresh[:min(len(g.fresh), 16)], g.pps[pps.ID])
	}
	return nil
}

func (g *h264Grammar) configure(record []byte) (*media.Codec, error) {
	if len(record) == 0 {
		return nil, nil
	}
	nalus, size, exact := splitAVCC(record)
	if hasStartCode(record) {
		nalus, size, exact = splitStartCodes(record), 4, false
	}
	if size == 0 {
		return media.ParseCodec(media.H264, record)
	}
	*g = h264Grammar{framing: framing{size: size, plausible: h264Plausible}}
	first := -1
	for _, nalu := range nalus {
		if kind := nalu[0] & 0x1f; kind != media.H264SPS && kind != media.H264PPS {
			continue
		}
		if err := g.add(nalu); err != nil {
			return nil, err
		}
	}
	g.fresh = nil
	for _, nalu := range nalus { // the first SPS that has a PPS
		if nalu[0]&0x1f != media.H264SPS || first >= 0 {
			continue
		}
		sps, _ := media.ParseSPS(nalu) // add has
		for _, pps := range g.sets.PPS {
			if pps != nil && pps.SPS == sps.ID {
				first = sps.ID
			}
		}
	}
	if first < 0 {
		return nil, nil
	}
	g.record = g.makeRecord(first)
	return configured(media.H264, record, exact, g.record)
}

func (g *h264Grammar) activate(first *part, keyframe bool) (codec *media.Codec, inBand [][]byte, err error) {
	inBand, g.fresh = g.fresh, nil
	if g.record != nil && !keyframe {
		return nil, inBand, nil
	}
	record := g.makeRecord(first.slice.SPS)
	if bytes.Equal(record, g.record) {
		return nil, nil, nil
	}
	if codec, err = media.ParseCodec(media.H264, record); err == nil {
		g.record = record
	}
	return codec, nil, err
}

// splitAVCC reads the parameter sets of an AVCDecoderConfigurationRecord (ISO/IEC
// 14496-15, 5.3.3.1) as far as they come, and the size of lengths; 0 where it is
// none. exact: it is as it should be.
func splitAVCC(b []byte) (nalus [][]byte, size int, exact bool) {
	if len(b) < 6 || b[0] != 1 {
		return nil, 0, false
	}
	size, exact = int(b[4]&3)+1, b[4]&3 == 3
	count, b := int(b[5]&0x1f), b[6:]
	for _, kind := range []byte{media.H264SPS, media.H264PPS} {
		for ; count > 0; count-- {
			if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
				return nalus, size, false
			}
			n := int(binary.BigEndian.Uint16(b))
			set := b[2 : 2+n]
			b = b[2+n:]
			if len(set) > 0 && set[0]&0x1f == kind {
				nalus = append(nalus, set)
				continue
			}
			exact = false
			nalus = append(nalus, splitStartCodes(set)...)
		}
		if kind == media.H264SPS {
			if len(b) == 0 {
				return nalus, size, false
			}
			count, b = int(b[0]), b[1:]
		}
	}
	return nalus, size, exact
}

// makeRecord makes an AVCDecoderConfigurationRecord of the sets there are, the
// SPS in use first.
func (g *h264Grammar) makeRecord(active int) []byte {
	sps := g.sps[active]
	list := [][]byte{sps}
	for id, nalu := range g.sps {
		if nalu != nil && id != active && len(list) < 31 {
			list = append(list, nalu)
		}
	}
	b := append([]byte{1}, sps[1], sps[2], sps[3], 0xff, 0xe0|byte(len(list)))
	b = appendSets(b, list)
	list = list[:0]
	for _, nalu := range g.pps {
		if nalu != nil && len(list) < 255 {
			list = append(list, nalu)
		}
	}
	b = appendSets(append(b, byte(len(list))), list)
	switch sps[1] {
	case 100, 110, 122, 144: // "if( AVCProfileIndication == 100 || ...": the profiles with further formats
		p := g.sets.SPS[active].Picture
		b = append(b, 0xfc|byte(p.Chroma), 0xf8|byte(p.Depth-8), 0xf8|byte(p.Depth-8), 0)
	}
	return b
}

func appendSets(b []byte, list [][]byte) []byte {
	for _, nalu := range list {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(nalu))), nalu...)
	}
	return b
}
