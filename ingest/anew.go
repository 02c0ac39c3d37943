package ingest

import (
	"context"

	"millrace/ingest/front"
	"millrace/internal/media"
)

// Publish admits a publisher: it makes the service the fronts' publishers.
func (s *Service) Publish(ctx context.Context, r front.Request) (front.Publication, error) {
	p, err := s.admit(ctx, r)
	if err != nil {
		return nil, err
	}
	return &publication{publisher: p, admit: func() (*publisher, error) { return s.admit(ctx, r) }}, nil
}

// publication is what a front writes to: a publisher of a broadcast. Where pictures begin in
// a broadcast of sound alone, whose players know no rendition of pictures, it ends that
// broadcast and goes on as the publisher of another one. Its calls come from one goroutine.
type publication struct {
	*publisher
	admit func() (*publisher, error) // of the same encoder, again

	video, audio *media.Codec // the newest ones
	claimed      float64      // frames a second
}

// FrameRate takes the frame rate that the encoder claims.
func (p *publication) FrameRate(claimed float64) {
	p.claimed = claimed
	p.publisher.FrameRate(claimed)
}

// Config takes the codec of a track.
func (p *publication) Config(c *media.Codec) error {
	if c.Kind() == media.Audio {
		p.audio = c
		return p.publisher.Config(c)
	}
	if p.video = c; p.blind() {
		return nil // until there is a picture
	}
	return p.publisher.Config(c)
}

// Write takes a unit.
func (p *publication) Write(u media.Unit) error {
	if u.Track == media.Video && u.RandomAccess && p.video != nil && p.blind() {
		if err := p.anew(); err != nil {
			return err
		}
	}
	return p.publisher.Write(u)
}

// anew begins another broadcast.
func (p *publication) anew() error {
	if !p.outgrow() {
		return nil // another encoder has the channel
	}
	next, err := p.admit()
	if err != nil {
		return err
	}
	p.publisher = next
	if p.claimed > 0 {
		next.FrameRate(p.claimed)
	}
	for _, c := range []*media.Codec{p.audio, p.video} {
		if c == nil {
			continue
		}
		if err := next.Config(c); err != nil {
			return err
		}
	}
	next.tell(advice{problemChanged, "pictures began in a broadcast of sound alone: another broadcast was begun, and players have to load it; begin with pictures and sound together"})
	return nil
}

// blind reports whether the publisher's broadcast is of sound alone.
func (p *publisher) blind() bool {
	s := &p.broadcast.source
	s.mu.Lock()
	defer s.mu.Unlock()
	st, settled := s.seq.Settings()
	return s.publisher == p && settled && !st.Video
}

// outgrow ends the publisher's broadcast, but not its connection. It reports whether it
// still was the publisher.
func (p *publisher) outgrow() bool {
	b := p.broadcast
	b.source.mu.Lock()
	defer b.source.mu.Unlock()
	if b.source.publisher != p {
		return false
	}
	b.detach()
	b.endLocked("pictures began in a broadcast of sound alone")
	return true
}
