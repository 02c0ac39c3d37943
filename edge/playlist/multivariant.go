package playlist

import "strconv"

// Audio is an audio rendition that is shared by all variants.
type Audio struct {
	// Group is its GROUP-ID.
	Group string
	// Name is shown to viewers.
	Name string
	// URI is that of its media playlist.
	URI string
	// Channels is the number of audio channels, 0 where unknown.
	Channels int
}

// Variant is one EXT-X-STREAM-INF.
type Variant struct {
	// URI is that of its media playlist.
	URI string
	// Audio is the Group that plays with it; empty for none.
	Audio string
	// Pathway is its PATHWAY-ID; empty for none.
	Pathway string
	// Codecs are the RFC 6381 names of all that it plays, audio included,
	// separated by commas.
	Codecs string
	// Bandwidth is the peak and AverageBandwidth the average in bits a second,
	// audio included; the average is 0 until it is measured.
	Bandwidth, AverageBandwidth int
	// Width and Height are 0 without video.
	Width, Height int
	// FrameRate is 0 where unknown.
	FrameRate float64
	// Range is its VIDEO-RANGE; empty for no word on that, which means SDR.
	Range string
	// Score is how much a player should prefer it to those with less, whatever
	// their bandwidth; 0 for no word on that. All variants have one, or none.
	Score int
}

// Multivariant is what a multivariant playlist shows.
type Multivariant struct {
	// SteeringURI is that of the steering manifest, empty for none, Pathway the
	// one to begin with.
	SteeringURI string
	Pathway     string
	// Audio are the audio groups; empty for a broadcast without sound and for
	// one that is audio only.
	Audio    []Audio
	Variants []Variant
}

// Append appends the rendered playlist to b.
func (m *Multivariant) Append(b []byte) []byte {
	b = append(b, "#EXTM3U\n#EXT-X-VERSION:9\n"...)
	if m.SteeringURI != "" {
		b = append(b, `#EXT-X-CONTENT-STEERING:SERVER-URI="`...)
		b = append(b, m.SteeringURI...)
		b = append(b, `",PATHWAY-ID="`...)
		b = append(b, m.Pathway...)
		b = append(b, "\"\n"...)
	}
	for i := range m.Audio {
		b = m.Audio[i].append(b, i == 0 || m.Audio[i].Group != m.Audio[i-1].Group)
	}
	for i := range m.Variants {
		b = m.Variants[i].append(b)
	}
	return b
}

// append appends the EXT-X-MEDIA tag; first is set for its group's first one.
func (a *Audio) append(b []byte, first bool) []byte {
	b = append(b, `#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="`...)
	b = append(b, a.Group...)
	b = append(b, `",NAME="`...)
	b = append(b, a.Name...)
	b = append(b, `",AUTOSELECT=YES,DEFAULT=`...)
	if first {
		b = append(b, "YES"...)
	} else {
		b = append(b, "NO"...)
	}
	if a.Channels > 0 {
		b = append(b, `,CHANNELS="`...)
		b = strconv.AppendInt(b, int64(a.Channels), 10)
		b = append(b, '"')
	}
	b = append(b, `,URI="`...)
	b = append(b, a.URI...)
	return append(b, "\"\n"...)
}

// append appends the EXT-X-STREAM-INF tag and the URI.
func (v *Variant) append(b []byte) []byte {
	b = append(b, "#EXT-X-STREAM-INF:BANDWIDTH="...)
	b = strconv.AppendInt(b, int64(v.Bandwidth), 10)
	if v.AverageBandwidth > 0 {
		b = append(b, ",AVERAGE-BANDWIDTH="...)
		b = strconv.AppendInt(b, int64(v.AverageBandwidth), 10)
	}
	if v.Score > 0 {
		b = append(b, ",SCORE="...)
		b = strconv.AppendInt(b, int64(v.Score), 10)
	}
	b = append(b, `,CODECS="`...)
	b = append(b, v.Codecs...)
	b = append(b, '"')
	if v.Width > 0 && v.Height > 0 {
		b = append(b, ",RESOLUTION="...)
		b = strconv.AppendInt(b, int64(v.Width), 10)
		b = append(b, 'x')
		b = strconv.AppendInt(b, int64(v.Height), 10)
	}
	if v.FrameRate > 0 {
		b = append(b, ",FRAME-RATE="...)
		b = strconv.AppendFloat(b, v.FrameRate, 'f', 3, 64)
	}
	if v.Range != "" {
		b = append(b, ",VIDEO-RANGE="...)
		b = append(b, v.Range...)
	}
	if v.Audio != "" {
		b = append(b, `,AUDIO="`...)
		b = append(b, v.Audio...)
		b = append(b, '"')
	}
	if v.Pathway != "" {
		b = append(b, `,PATHWAY-ID="`...)
		b = append(b, v.Pathway...)
		b = append(b, '"')
	}
	b = append(b, '\n')
	b = append(b, v.URI...)
	return append(b, '\n')
}
