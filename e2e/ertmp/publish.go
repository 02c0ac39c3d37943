package ertmp

import (
	"context"
	"fmt"
	"time"
)

// Sink takes the bodies of video and audio messages. Timestamps are milliseconds
// and wrap at 2^32.
type Sink interface {
	Video(timestamp uint32, body []byte) error
	Audio(timestamp uint32, body []byte) error
	// Flush sends what was written since the last one.
	Flush() error
}

// Options is how a source is published.
type Options struct {
	Form
	// Length is how much is published; the tracks begin again, each by itself,
	// where they end before. Zero: each track once.
	Length time.Duration
	// Fast publishes as fast as the sink takes it, not at real time.
	Fast bool
	// Start is the first timestamp.
	Start time.Duration
}

// Publish publishes a source at real time until all is sent or ctx ends, which is
// no error. Tracks then end as an encoder ends them.
func (s *Source) Publish(ctx context.Context, sink Sink, o Options) error {
	var tracks []*playhead
	for _, p := range []*playhead{
		{Track: s.Video, video: true, write: sink.Video},
		{Track: s.Audio, write: sink.Audio},
	} {
		if p.Track != nil {
			tracks = append(tracks, p)
		}
	}
	if len(tracks) == 2 { // sound begins when the first picture is shown
		tracks[1].delay = s.Video.units[0].offset
	}
	for _, p := range tracks {
		if err := p.writeAll(o.Start, o.configs(p.Track, p.video)); err != nil {
			return err
		}
	}
	began := time.Now()
	var at time.Duration
	for {
		var next *playhead
		for _, p := range tracks {
			if !p.over(o.Length) && (next == nil || p.at() < next.at()) {
				next = p
			}
		}
		if next == nil {
			break
		}
		if at != next.at() || o.Fast {
			at = next.at()
			if err := sink.Flush(); err != nil {
				return fmt.Errorf("publish at %s: %w", at, err)
			}
		}
		if !o.Fast && !sleep(ctx, time.Until(began.Add(at))) || ctx.Err() != nil {
			break
		}
		timestamp, body := o.frame(next.Track, next.video, next.unit(), o.Start+at)
		if err := next.write(timestamp, body); err != nil {
			return fmt.Errorf("publish at %s: %w", at, err)
		}
		next.advance()
	}
	for _, p := range tracks {
		if err := p.writeAll(o.Start+at, o.ends(p.Track, p.video)); err != nil {
			return err
		}
	}
	return sink.Flush()
}

// playhead is where a track is.
type playhead struct {
	*Track
	video bool
	write func(timestamp uint32, body []byte) error
	next  int
	round time.Duration // when the present round began
	delay time.Duration // of all
}

func (p *playhead) unit() *unit { return &p.units[p.next] }

// media is how much of the track was published, at is when its next unit is due.
func (p *playhead) media() time.Duration { return p.round + p.unit().dts }
func (p *playhead) at() time.Duration    { return p.delay + p.media() }

func (p *playhead) over(length time.Duration) bool {
	if length == 0 {
		return p.round > 0
	}
	return p.media() >= length
}

func (p *playhead) advance() {
	if p.next++; p.next == len(p.units) {
		p.next = 0
		p.round += p.length
	}
}

func (p *playhead) writeAll(at time.Duration, bodies [][]byte) error {
	for _, b := range bodies {
		if err := p.write(uint32(at.Milliseconds()), b); err != nil {
			return err
		}
	}
	return nil
}

// sleep sleeps unless ctx ends first.
func sleep(ctx context.Context, length time.Duration) bool {
	if length <= 0 {
		return true
	}
	select {
	case <-time.After(length):
		return true
	case <-ctx.Done():
		return false
	}
}
