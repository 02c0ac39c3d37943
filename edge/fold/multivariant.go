package fold

import (
	"cmp"
	"slices"
	"strings"

	"millrace/edge/playlist"
	"millrace/internal/media"
)

// Place is where players find the media playlists of a broadcast.
type Place struct {
	// Base is put before "{rendition}/index.m3u8".
	Base string
	// Pathway is the place's PATHWAY-ID, empty where there is one place only.
	Pathway string
}

// Multivariant returns what the broadcast offers at each of the places: all
// renditions that are ready. What every player can play stands first.
func (s *Snapshot) Multivariant(places ...Place) playlist.Multivariant {
	pictures, sound := s.offers()
	scores := scores(pictures)
	var m playlist.Multivariant
	for i, p := range places {
		group := ""
		if len(sound) > 0 {
			group = "audio"
			if i > 0 {
				group = "audio-" + p.Pathway
			}
		}
		for _, r := range sound {
			m.Audio = append(m.Audio, playlist.Audio{Group: group, Name: r.Info.Name, URI: p.uri(r), Channels: r.Info.Channels})
		}
		for j, r := range pictures {
			v := variant(r, loudest(sound))
			v.URI, v.Pathway, v.Audio, v.Score = p.uri(r), p.Pathway, group, scores[j]
			m.Variants = append(m.Variants, v)
		}
	}
	return m
}

func (p *Place) uri(r *Rendition) string { return p.Base + r.Info.Name + "/index.m3u8" }

// offers returns the renditions that are ready: those that make a variant each,
// and the sound that goes with them. Where there are no pictures, the sound is
// what makes variants.
func (s *Snapshot) offers() (variants, sound []*Rendition) {
	for _, info := range s.Settings.Renditions {
		r := s.Find(info.Name)
		switch {
		case r == nil || !r.Ready():
		case info.Kind == media.Audio:
			sound = append(sound, r)
		default:
			variants = append(variants, r)
		}
	}
	if len(variants) == 0 {
		variants, sound = sound, nil
	}
	// The first variant is what a player takes that looks no further, and what
	// others begin with: one that it can decode.
	slices.SortStableFunc(variants, func(a, b *Rendition) int {
		return cmp.Compare(rank(a), rank(b))
	})
	return variants, sound
}

// rank is 0 for what every player can play, 1 for the rest.
func rank(r *Rendition) int {
	if universal(r.Info.Codec) {
		return 0
	}
	return 1
}

// loudest returns the rendition of sound with the highest bitrate: BANDWIDTH is
// that of any combination that can be played (RFC 8216bis, 4.4.6.2).
func loudest(sound []*Rendition) *Rendition {
	best := &Rendition{}
	for _, r := range sound {
		if r.Peak > best.Peak {
			best = r
		}
	}
	return best
}

// variant returns what is offered of a rendition, with sound unless that is empty.
func variant(r, sound *Rendition) playlist.Variant {
	v := playlist.Variant{
		Codecs: r.Info.Codec, Bandwidth: r.Peak + sound.Peak,
		Width: r.Info.Width, Height: r.Info.Height, FrameRate: r.Info.FrameRate, Range: string(r.Info.Range),
	}
	if r.Average > 0 && (sound.Info.Name == "" || sound.Average > 0) {
		v.AverageBandwidth = r.Average + sound.Average
	}
	if sound.Info.Codec != "" {
		v.Codecs += "," + sound.Info.Codec
	}
	return v
}

// scores returns the SCORE of each variant. Where all are of one format there is
// none, and the bandwidth tells which is better. A source in a newer one needs
// less of it than an H.264 rung of its size, and yet is better: there the scores
// follow the size, the frame rate, and that the source is the original.
func scores(variants []*Rendition) []int {
	scores := make([]int, len(variants))
	if !slices.ContainsFunc(variants, func(r *Rendition) bool { return format(r.Info.Codec) != format(variants[0].Info.Codec) }) {
		return scores
	}
	better := func(a, b *Rendition) int {
		return cmp.Or(
			cmp.Compare(a.Info.Width*a.Info.Height, b.Info.Width*b.Info.Height),
			cmp.Compare(a.Info.FrameRate, b.Info.FrameRate),
			compareBool(a.Info.Source, b.Info.Source),
			cmp.Compare(a.Peak, b.Peak),
		)
	}
	for i, r := range variants {
		scores[i] = 1
		for _, other := range variants {
			if better(r, other) > 0 {
				scores[i]++
			}
		}
	}
	return scores
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// format returns the sample entry that an RFC 6381 name begins with.
func format(codec string) string {
	format, _, _ := strings.Cut(codec, ".")
	return format
}

// universal reports whether every player can play a codec, by its RFC 6381 name:
// H.264 up to the High profile, and AAC-LC.
func universal(codec string) bool {
	switch format(codec) {
	case "avc1":
		for _, profile := range []string{"avc1.42", "avc1.4d", "avc1.64"} {
			if len(codec) >= len(profile) && strings.EqualFold(codec[:len(profile)], profile) {
				return true
			}
		}
		return false
	case "mp4a":
		return codec == "mp4a.40.2"
	}
	return false
}
