package fold

import (
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
// renditions that are ready.
func (s *Snapshot) Multivariant(places ...Place) playlist.Multivariant {
	var m playlist.Multivariant
	for i, p := range places {
		group := "audio"
		if i > 0 {
			group = "audio-" + p.Pathway
		}
		s.appendVariants(&m, p, group)
	}
	return m
}

func (s *Snapshot) appendVariants(m *playlist.Multivariant, place Place, group string) {
	var audio, video []*Rendition
	for _, info := range s.Settings.Renditions {
		r := s.Find(info.Name)
		switch {
		case r == nil || !r.Ready():
		case info.Kind == media.Audio:
			audio = append(audio, r)
		default:
			video = append(video, r)
		}
	}
	uri := func(r *Rendition) string { return place.Base + r.Info.Name + "/index.m3u8" }
	if len(video) == 0 {
		video, audio = audio, nil
	}
	if len(audio) == 0 {
		group = ""
	}
	sound := &Rendition{}
	for _, a := range audio {
		m.Audio = append(m.Audio, playlist.Audio{Group: group, Name: a.Info.Name, URI: uri(a), Channels: a.Info.Channels})
		if a.Peak > sound.Peak {
			sound = a
		}
	}
	for _, v := range video {
		out := playlist.Variant{
			URI: uri(v), Audio: group, Pathway: place.Pathway, Codecs: v.Info.Codec, Bandwidth: v.Peak + sound.Peak,
			Width: v.Info.Width, Height: v.Info.Height, FrameRate: v.Info.FrameRate,
		}
		if v.Average > 0 && (len(audio) == 0 || sound.Average > 0) {
			out.AverageBandwidth = v.Average + sound.Average
		}
		if sound.Info.Codec != "" {
			out.Codecs += "," + sound.Info.Codec
		}
		m.Variants = append(m.Variants, out)
	}
}
