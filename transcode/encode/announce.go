package encode

import (
	"millrace/internal/index"
	"millrace/internal/media"
)

// announce tells what the broadcast consists of, as soon as it is settled.
func (w *Worker) announce() {
	if w.announced || w.settings == nil || w.settings.TargetDuration == 0 || !w.opened {
		return
	}
	w.announced = true
	b := index.Broadcast{
		TargetDuration: w.settings.TargetDuration, PartTarget: w.settings.PartTarget,
		PartHoldBack: w.settings.PartHoldBack, Started: w.settings.Started,
	}
	span := max(0.5, (w.tail.Last() - w.firstStart).Seconds())
	if w.settings.Video {
		b.Renditions = append(b.Renditions, index.Rendition{
			Name: sourceName, Kind: media.Video, Source: true, Codec: w.video.Name,
			Width: w.video.Width, Height: w.video.Height, FrameRate: w.settings.FrameRate,
			MaxBitrate: int(float64(w.sourceSize) * 8 / span * bitrateHeadroom),
		})
		for _, r := range w.encoding.rungs {
			b.Renditions = append(b.Renditions, index.Rendition{
				Name: r.Name, Kind: media.Video, Codec: "avc1.64001f", // until its init says better
				Width: r.Width, Height: r.Height, FrameRate: r.FrameRate, MaxBitrate: r.Bitrate,
			})
		}
	}
	if w.settings.Audio {
		if !w.settings.Video {
			span = float64(shortAnnounce)
		}
		b.Renditions = append(b.Renditions, index.Rendition{
			Name: audioName, Kind: media.Audio, Source: true, Codec: w.audio.Name,
			Channels: w.audio.Channels, MaxBitrate: max(64_000, int(float64(w.soundSize)*8/span*bitrateHeadroom)),
		})
	}
	w.Publish.Broadcast(b)
	for _, publish := range w.held {
		publish()
	}
	w.held = nil
}

// shortAnnounce stands for the seconds of sound behind the first guess of its bitrate.
const shortAnnounce = 1

// emit publishes now, or once the broadcast is announced.
func (w *Worker) emit(publish func()) {
	if w.announced {
		publish()
		return
	}
	w.held = append(w.held, publish)
}

func (w *Worker) announceInit(rendition string, init *media.Init, e index.Entry) {
	e.Type, e.Rendition, e.Init, e.Writer = index.TypeInit, rendition, init.Hash, w.Grant.Epoch
	w.emit(func() { w.Publish.Init(rendition, init, e) })
}

// put publishes a part and, with the last one, its segment.
func (w *Worker) put(part index.Entry, data []byte, segment index.Entry) {
	w.emit(func() {
		var err error
		if segment.Type == "" {
			err = w.Publish.Part(part, data)
		} else {
			err = w.Publish.Finish(part, data, segment)
		}
		if err != nil {
			w.Log.Error("a part was not published", "rendition", part.Rendition, "sequence", part.Sequence, "part", part.Part, "err", err)
		}
	})
}

// publisher returns what a rendition of the segment publishes by: it puts the
// same media under the names of the rungs that it stands in for.
func (w *Worker) publisher(s *segment, rendition string) func(index.Entry, []byte, index.Entry) {
	return func(part index.Entry, data []byte, segment index.Entry) {
		w.put(part, data, segment)
		for _, shed := range s.shedFor(rendition) {
			part.Rendition, segment.Rendition = shed.rung.Name, shed.rung.Name
			w.put(part, data, segment)
			shed.done = segment.Type != ""
		}
	}
}
