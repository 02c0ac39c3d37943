package e2e

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// mediaPlaylist is a parsed media playlist that obeys RFC 8216bis as far as one
// playlist alone can show it.
type mediaPlaylist struct {
	Version        int
	TargetDuration int
	// ServerControl and PartInf are the tags' attributes as they stand.
	ServerControl, PartInf string
	CanSkipUntil           float64
	PartHoldBack           float64
	PartTarget             float64
	MediaSequence          uint64
	DiscontinuitySequence  uint64
	// Skipped is how many segments EXT-X-SKIP stands for.
	Skipped int
	// Segments follow the skipped ones; only the last may be open.
	Segments []listedSegment
	// Hint is the URI of the preload hint, empty without one.
	Hint    string
	Reports []renditionReport
	Ended   bool
}

// listedSegment is a segment of a playlist.
type listedSegment struct {
	Sequence uint64
	// Discontinuity is its discontinuity sequence number, Breaks the number of
	// EXT-X-DISCONTINUITY tags before it.
	Discontinuity uint64
	Breaks        int
	// Map is the URI of the init section in force.
	Map      string
	Time     time.Time
	Gap      bool
	Duration float64
	// URI is empty while the segment is open.
	URI   string
	Parts []listedPart
}

// open reports whether the segment isn't finished.
func (s *listedSegment) open() bool { return s.URI == "" }

// listedPart is an EXT-X-PART.
type listedPart struct {
	URI         string
	Duration    float64
	Independent bool
	Gap         bool
}

// renditionReport is an EXT-X-RENDITION-REPORT. Part is -1 without LAST-PART.
type renditionReport struct {
	URI      string
	Sequence uint64
	Part     int
}

// last is the position of the newest segment or, with its number, part; part is
// -1 for a segment without parts.
func (m *mediaPlaylist) last() (sequence uint64, part int) {
	if len(m.Segments) == 0 {
		return 0, -1
	}
	s := &m.Segments[len(m.Segments)-1]
	return s.Sequence, len(s.Parts) - 1
}

// next is the position that a low-latency player asks for next.
func (m *mediaPlaylist) next() (sequence uint64, part int) {
	if len(m.Segments) == 0 {
		return m.MediaSequence, 0
	}
	s := &m.Segments[len(m.Segments)-1]
	if s.open() {
		return s.Sequence, len(s.Parts)
	}
	return s.Sequence + 1, 0
}

// has reports whether a position is listed.
func (m *mediaPlaylist) has(sequence uint64, part int) bool {
	last, parts := m.last()
	if len(m.Segments) == 0 || sequence > last {
		return false
	}
	if sequence < last {
		return true
	}
	return part <= parts || !m.Segments[len(m.Segments)-1].open() && parts < 0
}

// find returns a listed segment, or nil.
func (m *mediaPlaylist) find(sequence uint64) *listedSegment {
	for i := range m.Segments {
		if m.Segments[i].Sequence == sequence {
			return &m.Segments[i]
		}
	}
	return nil
}

// parseMedia parses a media playlist, strictly: a tag that we don't know, one
// that stands in the wrong place and a value out of bounds are errors.
func parseMedia(text string) (*mediaPlaylist, error) {
	p := &mediaParser{m: new(mediaPlaylist), seen: make(map[string]bool)}
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
	m    *mediaPlaylist
	seen map[string]bool // tags that may stand once

	current       listedSegment
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
		r := renditionReport{Part: -1}
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
	part := listedPart{Independent: a["INDEPENDENT"] == "YES", Gap: a["GAP"] == "YES"}
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
	p.current, p.begun, p.inf, p.timed = listedSegment{}, false, false, false
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

// multivariant is a parsed multivariant playlist.
type multivariant struct {
	Variants []variant
	// Audio is the URI of the audio rendition, empty without one.
	Audio string
}

// variant is an EXT-X-STREAM-INF.
type variant struct {
	URI, Codecs                 string
	Bandwidth, AverageBandwidth int
	Width, Height               int
	FrameRate                   float64
}

// renditions returns the URIs of all media playlists.
func (m *multivariant) renditions() []string {
	var list []string
	for _, v := range m.Variants {
		list = append(list, v.URI)
	}
	if m.Audio != "" {
		list = append(list, m.Audio)
	}
	return list
}

// parseMultivariant parses a multivariant playlist as strictly as parseMedia.
func parseMultivariant(text string) (*multivariant, error) {
	m := new(multivariant)
	var next *variant
	var groups, wanted []string
	err := eachLine(text, func(line string) error {
		if !strings.HasPrefix(line, "#") {
			if next == nil {
				return errors.New("a URI without EXT-X-STREAM-INF")
			}
			next.URI = line
			m.Variants = append(m.Variants, *next)
			next = nil
			return nil
		}
		if next != nil {
			return errors.New("it stands between EXT-X-STREAM-INF and its URI")
		}
		name, value, _ := strings.Cut(line, ":")
		if name == "#EXT-X-VERSION" {
			return nil
		}
		a, err := parseAttributes(value)
		if err != nil {
			return err
		}
		switch name {
		case "#EXT-X-MEDIA":
			if a["TYPE"] != "AUDIO" || m.Audio != "" {
				return errors.New("another media type, or a second audio rendition")
			}
			if _, err := a.text("NAME"); err != nil {
				return err
			}
			group, err := a.text("GROUP-ID")
			if err != nil {
				return err
			}
			groups = append(groups, group)
			m.Audio, err = a.text("URI")
			return err
		case "#EXT-X-STREAM-INF":
			next = new(variant)
			if group, err := a.text("AUDIO"); err == nil {
				wanted = append(wanted, group)
			}
			return next.parse(a)
		}
		return errors.New("unknown tag")
	})
	if err != nil {
		return nil, err
	}
	if next != nil || len(m.Variants) == 0 {
		return nil, errors.New("no variant, or one without a URI")
	}
	for _, group := range wanted {
		if len(groups) != 1 || groups[0] != group {
			return nil, fmt.Errorf("a variant names the group %q, there are %q", group, groups)
		}
	}
	if len(groups) > 0 && len(wanted) != len(m.Variants) {
		return nil, errors.New("a variant without AUDIO beside an audio group")
	}
	seen := make(map[string]bool)
	for _, uri := range m.renditions() {
		if seen[uri] {
			return nil, fmt.Errorf("%s is listed twice", uri)
		}
		seen[uri] = true
	}
	return m, nil
}

func (v *variant) parse(a attributes) (err error) {
	if v.Codecs, err = a.text("CODECS"); err != nil {
		return err
	}
	if v.Bandwidth, err = strconv.Atoi(a["BANDWIDTH"]); err != nil || v.Bandwidth <= 0 {
		return errors.New("BANDWIDTH is no number above 0")
	}
	if average, ok := a["AVERAGE-BANDWIDTH"]; ok {
		v.AverageBandwidth, err = strconv.Atoi(average)
		if err != nil || v.AverageBandwidth <= 0 || v.AverageBandwidth > v.Bandwidth {
			return errors.New("AVERAGE-BANDWIDTH is no number from 1 to BANDWIDTH")
		}
	}
	if !strings.Contains(v.Codecs, "avc1") {
		return nil
	}
	if n, err := fmt.Sscanf(a["RESOLUTION"], "%dx%d", &v.Width, &v.Height); n != 2 || err != nil {
		return errors.New("RESOLUTION must be there for video")
	}
	v.FrameRate, err = strconv.ParseFloat(a["FRAME-RATE"], 64)
	return err
}

// attributes is an attribute list; quoted strings keep their quotes.
type attributes map[string]string

func parseAttributes(value string) (attributes, error) {
	a := make(attributes)
	for rest := value; ; {
		name, after, ok := strings.Cut(rest, "=")
		if !ok || name == "" || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
			return nil, fmt.Errorf("%q is no attribute list", value)
		}
		if _, twice := a[name]; twice {
			return nil, fmt.Errorf("attribute %s twice", name)
		}
		end := strings.IndexByte(after, ',')
		if strings.HasPrefix(after, `"`) {
			closing := strings.IndexByte(after[1:], '"')
			if closing < 0 {
				return nil, fmt.Errorf("attribute %s: no closing quote", name)
			}
			end = closing + 2
			if end < len(after) && after[end] != ',' {
				return nil, fmt.Errorf("attribute %s: text after the closing quote", name)
			}
		}
		if end < 0 || end == len(after) {
			a[name] = after
			return a, nil
		}
		a[name], rest = after[:end], after[end+1:]
	}
}

// text returns a quoted string that isn't empty.
func (a attributes) text(name string) (string, error) {
	v := a[name]
	if len(v) < 3 || v[0] != '"' || v[len(v)-1] != '"' {
		return "", fmt.Errorf("no %s in quotes", name)
	}
	return v[1 : len(v)-1], nil
}

func (a attributes) seconds(name string) (float64, error) {
	v, err := parseSeconds(a[name])
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// parseSeconds reads a decimal-floating-point.
func parseSeconds(s string) (float64, error) {
	if s == "" || strings.Trim(s, "0123456789.") != "" {
		return 0, fmt.Errorf("%q is no decimal number", s)
	}
	return strconv.ParseFloat(s, 64)
}
