package ingest

import (
	"testing"

	"millrace/ingest/front"
	"millrace/internal/media"
	"millrace/internal/media/mediatest"
)

// Pictures that begin in a broadcast of sound alone begin another broadcast, on the same
// connection: players of the first one know no rendition of pictures.
func TestPicturesAfterSound(t *testing.T) {
	t.Parallel()
	video, audio := mediatest.Clip(t, "av1-aac")
	s := newStation(t, Config{})
	pub, err := s.service.Publish(t.Context(), front.Request{
		Key: "s3cret", End: func(r front.Refusal) { t.Errorf("it was ended: %v", r.Text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { pub.End(true) }()
	var at media.Ticks
	play := func(c *media.Codec, units ...media.Unit) {
		t.Helper()
		if c != nil {
			if err := pub.Config(c); err != nil {
				t.Fatal(err)
			}
		}
		for _, u := range units {
			u.DTS, u.PTS = u.DTS+at, u.PTS+at
			if err := pub.Write(u); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 5 { // 2 s
		play(audio.Codec, audio.Units...)
		at += audio.Length
	}
	first := s.service.broadcastOf("demo")
	play(video.Codec, video.Units[1]) // no keyframe yet
	if s.service.broadcastOf("demo") != first {
		t.Fatal("another broadcast began before there was a picture to show")
	}
	for range 8 {
		play(nil, merge(video.Units, audio.Units)...)
		at += video.Length
	}
	second := s.service.broadcastOf("demo")
	if second == first {
		t.Fatal("the broadcast went on without pictures")
	}
	second.source.mu.Lock()
	defer second.source.mu.Unlock()
	st, ok := second.source.seq.Settings()
	if m, open := second.source.seq.Mark(); !ok || !st.Video || !st.Audio || !open || m.Sequence == 0 {
		t.Errorf("the other one has settings %+v, and its newest mark is %+v", st, m)
	}
	first.source.mu.Lock()
	defer first.source.mu.Unlock()
	if !first.source.life.phase.hasEnded() {
		t.Errorf("the first one is in phase %v", first.source.life.phase)
	}
}
