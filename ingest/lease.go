package ingest

import (
	"context"
	"errors"
	"time"

	"millrace/internal/lease"
)

// stateMoved is the state of a broadcast that another ingest has: Redis says
// what that one says.
const stateMoved lease.State = "moved"

// record is what Redis should say of the broadcast. The caller holds the
// source's lock.
func (b *broadcast) record(now time.Time) lease.Record {
	s := &b.source
	settings, _ := s.seq.Settings()
	r := lease.Record{
		Broadcast: b.id, Epoch: b.epoch, Ingest: b.service.self(b.channel), Started: b.started, Grace: s.grace,
		Lost: s.lostSince(now), Format: s.format, Width: s.width, Height: s.height, Universal: s.universal, Picture: s.picture, FrameRate: settings.FrameRate,
		Handoff: s.seq.Handoff(),
	}
	if r.Health = s.left; s.publisher != nil {
		r.FrameRate = s.publisher.health.frameRate(settings.FrameRate)
		r.Silent, r.Health = now.Sub(s.publisher.last), s.publisher.advice()
	}
	switch {
	case s.life.phase.hasMoved():
		r.State = stateMoved
	case s.life.phase.hasEnded():
		r.State = lease.Ended
	case !r.Lost.IsZero():
		r.State = lease.Reconnecting
	default:
		r.State = lease.Live
	}
	return r
}

// renewer writes the newest record to Redis. A higher epoch there takes the
// broadcast away.
func (b *broadcast) renewer(ctx context.Context, records <-chan lease.Record) {
	ctx = context.WithoutCancel(ctx) // the last record says that it has ended
	failing := false
	for r := range records {
		rctx, cancel := context.WithTimeout(ctx, redisTimeout)
		err := lease.Renew(rctx, b.service.cfg.Redis, b.channel, r)
		if errors.Is(err, lease.ErrLost) {
			b.lostLease(rctx)
			err = nil
		}
		cancel()
		switch {
		case err != nil && !failing:
			b.logger.Warn("the lease can't be renewed; the broadcast goes on", "err", err)
		case err == nil && failing:
			b.logger.Info("the lease is renewed again")
		}
		failing = err != nil
	}
}

// lostLease finds out what another ingest made of the channel.
func (b *broadcast) lostLease(ctx context.Context) {
	r, err := lease.Read(ctx, b.service.cfg.Redis, b.channel)
	switch {
	case err != nil: // the next renewal tells again
	case r.Broadcast == b.id:
		b.source.mu.Lock()
		defer b.source.mu.Unlock()
		b.move(r.Ingest.String())
	default:
		b.end("another ingest began another broadcast of the channel")
	}
}
