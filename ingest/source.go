package ingest

import (
	"sync"
	"time"

	"millrace/ingest/front"
	"millrace/ingest/timeline"
	"millrace/internal/credentials"
	"millrace/internal/media"
	"millrace/internal/rate"
	"millrace/internal/relay"
)

// source is the side of a broadcast on which media comes in: who publishes, how
// far the broadcast is, and the sequencer that makes the log of it.
type source struct {
	mu            sync.Mutex // guards what follows
	life          life
	seq           *timeline.Sequencer
	publisher     *publisher  // nil while none is connected
	left          string      // what the publisher before was ended for, as it is told, while there is none
	flow          rate.Bucket // of bytes that publishers send
	settings      settings
	rights        credentials.Channel // with which the newest publisher was admitted
	grace         time.Duration
	format        media.Format // of the pictures, as what follows is
	width, height int
	universal     bool
	picture       media.Picture
}

// attach makes the caller, who asked at arrived, the broadcast's publisher,
// unless the present one has sent something since. errBusy means that the
// present one may have fallen silent: ask again.
func (b *broadcast) attach(req front.Request, rights credentials.Channel, arrived, now time.Time) (*publisher, error) {
	s := &b.source
	s.mu.Lock()
	defer s.mu.Unlock()
	switch phase := s.life.phase; {
	case phase.hasEnded() || phase.hasMoved():
		return nil, errEnded
	case phase.stops():
		return nil, refusalStopping
	case rights.Version < s.rights.Version && (rights.KeyHash != s.rights.KeyHash || rights.Created != s.rights.Created):
		return nil, refusalKey // that was long ago
	}
	if b.enforce(rights.Version, &rights); s.life.phase.hasEnded() {
		return nil, errEnded
	}
	if old := s.publisher; old != nil {
		switch {
		case old.last.After(arrived):
			return nil, refusalBusy
		case now.Sub(old.last) < takeoverSilence:
			return nil, errBusy
		}
	}
	// The owner of a new key isn't held to what the old one's publishers did.
	if rights.KeyHash == s.rights.KeyHash && !b.service.breaks.take(b.channel, now) {
		b.service.metrics.found.WithLabelValues(string(problemBreaks)).Inc()
		s.left = written([]advice{{problemBreaks, refusalReconnects.Text}})
		return nil, refusalReconnects
	}
	if s.left = ""; s.publisher != nil {
		b.logger.Info("the publisher is silent and another one takes over", "remote", req.Remote)
		b.dismiss(front.Refusal{Kind: front.Busy, Reason: front.TakenOver, Text: "Another encoder took over, since this one had sent nothing for 2 s."})
	}
	again := s.life.phase == reconnecting
	s.grace, s.rights = b.service.grace(rights), rights
	s.publisher = newPublisher(b, req, now)
	b.service.metrics.publishers.Inc()
	s.seq.Attach(again)
	b.enter(attached, now, 0)
	s.publisher.logger.Info("publisher connected", "encoder", req.Encoder, "reconnect", again)
	return s.publisher, nil
}

// detach notes that the publisher is gone, which closes the open segment. The
// caller holds the source's lock.
func (b *broadcast) detach() {
	s := &b.source
	lost := time.Now()
	if last := s.publisher.last; lost.Sub(last) >= takeoverSilence {
		lost = last
	}
	s.publisher.clearProblems()
	s.publisher = nil
	b.service.metrics.publishers.Dec()
	s.seq.Pause()
	b.enter(detached, lost, 0)
}

// dismiss ends the publisher's connection, if there is one. The caller holds the
// source's lock.
func (b *broadcast) dismiss(why front.Refusal) {
	if b.source.publisher == nil {
		return
	}
	b.source.publisher.end(why)
	b.detach()
}

// lostSince is when the publisher went, or fell silent: its connection may
// stand for long after the network is gone. The caller holds the lock.
func (s *source) lostSince(now time.Time) time.Time {
	switch p := s.publisher; {
	case p == nil:
		return s.life.lost
	case now.Sub(p.last) >= takeoverSilence:
		return p.last
	}
	return time.Time{}
}

// sending reports whether a publisher is there, and not silent.
func (b *broadcast) sending() bool {
	s := &b.source
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.life.phase.over() && s.lostSince(time.Now()).IsZero()
}

// reconnecting reports whether the broadcast waits for its publisher.
func (b *broadcast) reconnecting() bool {
	s := &b.source
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.life.phase.over() && !s.lostSince(time.Now()).IsZero()
}

// publishing reports whether a publisher is connected.
func (b *broadcast) publishing() bool {
	b.source.mu.Lock()
	defer b.source.mu.Unlock()
	return b.source.publisher != nil
}

// end closes the broadcast: nobody may go on with it.
func (b *broadcast) end(reason string) {
	b.source.mu.Lock()
	defer b.source.mu.Unlock()
	b.dismiss(front.Refusal{Kind: front.Failed, Reason: front.Ended, Text: "The broadcast has ended: " + reason + "."})
	b.endLocked(reason)
}

// endLocked ends a broadcast without a publisher. The caller holds the source's lock.
func (b *broadcast) endLocked(reason string) {
	s := &b.source
	if _, ok := next(s.life.phase, ends); !ok {
		return
	}
	s.seq.Finish()
	b.enter(ends, time.Now(), drainTime)
	b.logger.Info("broadcast ended", "reason", reason, "duration", time.Since(b.started).Round(time.Second), "segments", s.segments())
}

// stop closes the open segment, since this ingest goes; another one may go on.
func (b *broadcast) stop() {
	b.source.mu.Lock()
	defer b.source.mu.Unlock()
	b.dismiss(*refusalStopping)
	b.enter(stops, time.Now(), b.service.cfg.Finish)
}

// giveUp leaves the broadcast to another ingest, and says from where that goes on.
func (b *broadcast) giveUp(to string) (relay.Handoff, error) {
	s := &b.source
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.phase.hasEnded() {
		return relay.Handoff{}, errEnded
	}
	b.move(to)
	return s.seq.Handoff(), nil
}

// move ends the log with a pause: another ingest goes on with the broadcast.
// Log and claims stay until the workers have stored what is in it. The caller
// holds the source's lock.
func (b *broadcast) move(to string) {
	b.dismiss(front.Refusal{Kind: front.Busy, Reason: front.TakenOver, Text: "Another encoder publishes to this channel through another server."})
	if !b.enter(moves, time.Now(), drainTime) {
		return
	}
	b.log.Close()
	b.logger.Info("another ingest has taken the broadcast over", "by", to, "segments", b.source.segments())
}

// segments is how many segments there are, but for one that is open. The caller
// holds the lock.
func (s *source) segments() uint64 {
	m, _ := s.seq.Mark()
	return m.Sequence
}
