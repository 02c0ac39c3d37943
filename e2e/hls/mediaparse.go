package hls

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ParseMedia parses a media playlist, strictly: a tag that we don't know, one
// that stands in the wrong place and a value out of bounds are errors.
func ParseMedia(text string) (*MediaPlaylist, error) {
	p := &mediaParser{m: new(MediaPlaylist), seen: make(map[string]bool)}
	if err := eachLine(text, p.line); err != nil {
		return nil, err
	}
	if err := p.finish(); err != nil {
		return nil, err
	}
	return p.m, p.m.check()
}

// eachLine calls do for each line after #EXTM3U.
func eachLine(text string, do func(string) error) error {
	rest, ok := strings.CutPrefix(text, "#EXTM3U\n")
	if !ok {
		return errors.New("the first line isn't #EXTM3U")
	}
	if !strings.HasSuffix(text, "\n") {
		return errors.New("the last line has no end")
	}
	n := 1
	for line := range strings.Lines(rest) {
		n++
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			continue
		}
		if err := do(line); err != nil {
			return fmt.Errorf("line %d, %q: %w", n, line, err)
		}
	}
	return nil
}

// mediaParser holds what is known at a line.
type mediaParser struct {
	m    *MediaPlaylist
	seen map[string]bool // tags that may stand once

	current       ListedSegment
	begun         bool // a tag of the current segment was seen
	inf, timed    bool
	breaks        uint64 // EXT-X-DISCONTINUITY tags so far
	mapURI        string
	tail          bool // a hint or report was seen: no media may follow
	discontinuity bool // EXT-X-DISCONTINUITY was seen
}

func (p *mediaParser) line(line string) error {
	if !strings.HasPrefix(line, "#") {
		return p.uri(line)
	}
	name, value, _ := strings.Cut(line, ":")
	switch name {
	case "#EXTINF", "#EXT-X-PART", "#EXT-X-MAP", "#EXT-X-DISCONTINUITY", "#EXT-X-PROGRAM-DATE-TIME", "#EXT-X-GAP":
		if p.tail || p.seen["#EXT-X-ENDLIST"] {
			return errors.New("media after a hint, report or the end")
		}
		for _, tag := range []string{"#EXT-X-TARGETDURATION", "#EXT-X-SERVER-CONTROL", "#EXT-X-PART-INF", "#EXT-X-MEDIA-SEQUENCE"} {
			if !p.seen[tag] {
				return fmt.Errorf("%s must come before the first segment", tag)
			}
		}
		p.begun = true
		return p.segmentTag(name, value)
	case "#EXT-X-PRELOAD-HINT", "#EXT-X-RENDITION-REPORT":
		p.tail = true
	case "#EXT-X-ENDLIST":
	case "#EXT-X-VERSION", "#EXT-X-TARGETDURATION", "#EXT-X-SERVER-CONTROL", "#EXT-X-PART-INF",
		"#EXT-X-MEDIA-SEQUENCE", "#EXT-X-DISCONTINUITY-SEQUENCE", "#EXT-X-SKIP":
		if p.begun || len(p.m.Segments) > 0 {
			return errors.New("it must come before the first segment")
		}
	default:
		return errors.New("unknown tag")
	}
	if p.seen[name] && name != "#EXT-X-RENDITION-REPORT" {
		return errors.New("a second time")
	}
	p.seen[name] = true
	return p.playlistTag(name, value)
}

// playlistTag takes a tag that is about the whole playlist.
func (p *mediaParser) playlistTag(name, value string) (err error) {
	m := p.m
	switch name {
	case "#EXT-X-VERSION":
		m.Version, err = strconv.Atoi(value)
	case "#EXT-X-TARGETDURATION":
		m.TargetDuration, err = strconv.Atoi(value)
	case "#EXT-X-MEDIA-SEQUENCE":
		m.MediaSequence, err = strconv.ParseUint(value, 10, 63)
	case "#EXT-X-DISCONTINUITY-SEQUENCE":
		m.DiscontinuitySequence, err = strconv.ParseUint(value, 10, 63)
	case "#EXT-X-ENDLIST":
		m.Ended = true
	default:
		a, err := parseAttributes(value)
		if err != nil {
			return err
		}
		return p.listTag(name, value, a)
	}
	return err
}

// listTag takes a tag with an attribute list.
func (p *mediaParser) listTag(name, value string, a attributes) (err error) {
	m := p.m
	switch name {
	case "#EXT-X-SERVER-CONTROL":
		m.ServerControl = value
		if a["CAN-BLOCK-RELOAD"] != "YES" {
			return errors.New("no CAN-BLOCK-RELOAD=YES")
		}
		holdBack, err := a.seconds("HOLD-BACK")
		if err == nil {
			m.PartHoldBack, err = a.seconds("PART-HOLD-BACK")
		}
		if err == nil {
			m.CanSkipUntil, err = a.seconds("CAN-SKIP-UNTIL")
		}
		if err != nil {
			return err
		}
		if holdBack < 3*float64(m.TargetDuration) {
			return errors.New("HOLD-BACK must be at least three target durations")
		}
		if m.CanSkipUntil < 6*float64(m.TargetDuration) {
			return errors.New("CAN-SKIP-UNTIL must be at least six target durations")
		}
	case "#EXT-X-PART-INF":
		m.PartInf = value
		m.PartTarget, err = a.seconds("PART-TARGET")
		return err
	case "#EXT-X-SKIP":
		m.Skipped, err = strconv.Atoi(a["SKIPPED-SEGMENTS"])
		if err != nil || m.Skipped < 1 {
			return errors.New("SKIPPED-SEGMENTS is no number above 0")
		}
	case "#EXT-X-PRELOAD-HINT":
		if a["TYPE"] != "PART" {
			return errors.New("a hint of another type")
		}
		m.Hint, err = a.text("URI")
		return err
	case "#EXT-X-RENDITION-REPORT":
		r := RenditionReport{Part: -1}
		if r.URI, err = a.text("URI"); err != nil {
			return err
		}
		if r.Sequence, err = strconv.ParseUint(a["LAST-MSN"], 10, 63); err != nil {
			return err
		}
		if last, ok := a["LAST-PART"]; ok {
			if r.Part, err = strconv.Atoi(last); err != nil {
				return err
			}
		}
		m.Reports = append(m.Reports, r)
	}
	return nil
}

// segmentTag takes a tag that is about the current segment.
func (p *mediaParser) segmentTag(name, value string) (err error) {
	s := &p.current
	if name != "#EXT-X-PART" && name != "#EXTINF" && name != "#EXT-X-GAP" && (len(s.Parts) > 0 || p.inf) {
		return errors.New("it must come before the segment's first EXT-X-PART and its EXTINF")
	}
	switch name {
	case "#EXT-X-DISCONTINUITY":
		if p.timed {
			return errors.New("after the segment's EXT-X-PROGRAM-DATE-TIME")
		}
		s.Breaks++
		p.breaks++
		p.discontinuity = true
		return nil
	case "#EXT-X-PROGRAM-DATE-TIME":
		if p.timed {
			return errors.New("a second time in one segment")
		}
		p.timed = true
		s.Time, err = time.Parse("2006-01-02T15:04:05.000Z07:00", value)
		return err
	case "#EXT-X-GAP":
		s.Gap = true
		return nil
	case "#EXTINF":
		if p.inf {
			return errors.New("a second time in one segment")
		}
		p.inf = true
		number, _, ok := strings.Cut(value, ",")
		if !ok {
			return errors.New("no comma after the duration")
		}
		s.Duration, err = parseSeconds(number)
		return err
	}
	a, err := parseAttributes(value)
	if err != nil {
		return err
	}
	if name == "#EXT-X-MAP" {
		p.mapURI, err = a.text("URI")
		return err
	}
	if p.inf {
		return errors.New("EXT-X-PART after EXTINF")
	}
	part := ListedPart{Independent: a["INDEPENDENT"] == "YES", Gap: a["GAP"] == "YES"}
	if part.URI, err = a.text("URI"); err != nil {
		return err
	}
	if part.Duration, err = a.seconds("DURATION"); err != nil {
		return err
	}
	s.Parts = append(s.Parts, part)
	return nil
}

// uri ends the current segment.
func (p *mediaParser) uri(line string) error {
	if !p.inf {
		return errors.New("a URI without EXTINF")
	}
	p.current.URI = line
	return p.close()
}

func (p *mediaParser) close() error {
	if !p.timed {
		return errors.New("a segment without EXT-X-PROGRAM-DATE-TIME")
	}
	if p.mapURI == "" && p.m.Skipped == 0 {
		return errors.New("a segment without EXT-X-MAP")
	}
	p.current.Map = p.mapURI
	p.current.Sequence = p.m.MediaSequence + uint64(p.m.Skipped+len(p.m.Segments))
	p.current.Discontinuity = p.m.DiscontinuitySequence + p.breaks
	p.m.Segments = append(p.m.Segments, p.current)
	p.current, p.begun, p.inf, p.timed = ListedSegment{}, false, false, false
	return nil
}

// finish takes an open segment.
func (p *mediaParser) finish() error {
	if !p.begun {
		return nil
	}
	if p.inf {
		return errors.New("an EXTINF without a URI at the end")
	}
	if len(p.current.Parts) == 0 {
		return errors.New("tags of a segment at the end, without a part")
	}
	if p.m.Ended {
		return errors.New("an open segment in a playlist that has ended")
	}
	return p.close()
}
