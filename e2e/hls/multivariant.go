package hls

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Multivariant is a parsed multivariant playlist.
type Multivariant struct {
	Variants []Variant
	// Audio is the URI of the audio rendition, empty without one.
	Audio string
}

// Variant is an EXT-X-STREAM-INF.
type Variant struct {
	URI, Codecs                 string
	Bandwidth, AverageBandwidth int
	Width, Height               int
	FrameRate                   float64
}

// Renditions returns the URIs of all media playlists.
func (m *Multivariant) Renditions() []string {
	var list []string
	for _, v := range m.Variants {
		list = append(list, v.URI)
	}
	if m.Audio != "" {
		list = append(list, m.Audio)
	}
	return list
}

// ParseMultivariant parses a multivariant playlist as strictly as [ParseMedia].
func ParseMultivariant(text string) (*Multivariant, error) {
	p := &multivariantParser{m: new(Multivariant)}
	if err := eachLine(text, p.line); err != nil {
		return nil, err
	}
	return p.m, p.check()
}

// multivariantParser holds what is known at a line.
type multivariantParser struct {
	m    *Multivariant
	next *Variant // waits for its URI
	// groups are the audio groups that there are, wanted those that variants name.
	groups, wanted []string
}

func (p *multivariantParser) line(line string) error {
	if !strings.HasPrefix(line, "#") {
		if p.next == nil {
			return errors.New("a URI without EXT-X-STREAM-INF")
		}
		p.next.URI = line
		p.m.Variants = append(p.m.Variants, *p.next)
		p.next = nil
		return nil
	}
	if p.next != nil {
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
		return p.audio(a)
	case "#EXT-X-STREAM-INF":
		p.next = new(Variant)
		if group, err := a.text("AUDIO"); err == nil {
			p.wanted = append(p.wanted, group)
		}
		return p.next.parse(a)
	}
	return errors.New("unknown tag")
}

// audio takes the one EXT-X-MEDIA that there may be.
func (p *multivariantParser) audio(a attributes) error {
	if a["TYPE"] != "AUDIO" || p.m.Audio != "" {
		return errors.New("another media type, or a second audio rendition")
	}
	if _, err := a.text("NAME"); err != nil {
		return err
	}
	group, err := a.text("GROUP-ID")
	if err != nil {
		return err
	}
	p.groups = append(p.groups, group)
	p.m.Audio, err = a.text("URI")
	return err
}

// check looks at what needs the whole playlist.
func (p *multivariantParser) check() error {
	if p.next != nil || len(p.m.Variants) == 0 {
		return errors.New("no variant, or one without a URI")
	}
	for _, group := range p.wanted {
		if len(p.groups) != 1 || p.groups[0] != group {
			return fmt.Errorf("a variant names the group %q, there are %q", group, p.groups)
		}
	}
	if len(p.groups) > 0 && len(p.wanted) != len(p.m.Variants) {
		return errors.New("a variant without AUDIO beside an audio group")
	}
	seen := make(map[string]bool)
	for _, uri := range p.m.Renditions() {
		if seen[uri] {
			return fmt.Errorf("%s is listed twice", uri)
		}
		seen[uri] = true
	}
	return nil
}

func (v *Variant) parse(a attributes) (err error) {
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
	if strings.HasPrefix(v.Codecs, "mp4a") { // sound alone
		return nil
	}
	if n, err := fmt.Sscanf(a["RESOLUTION"], "%dx%d", &v.Width, &v.Height); n != 2 || err != nil {
		return errors.New("RESOLUTION must be there for video")
	}
	v.FrameRate, err = strconv.ParseFloat(a["FRAME-RATE"], 64)
	return err
}
