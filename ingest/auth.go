package ingest

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"strconv"
	"strings"
	"time"

	"millrace/ingest/front"
	"millrace/internal/credentials"
	"millrace/internal/lease"
	"millrace/internal/relay"
)

const (
	// takeoverSilence is how long a publisher must have sent nothing before
	// another one with the right key takes its place.
	takeoverSilence = 2 * time.Second
	// lookupTimeout bounds all that is asked of Redis, of other ingests and of
	// workers while an encoder waits.
	lookupTimeout = 12 * time.Second
	// redisPatience is how long an encoder waits for Redis to come back; looked at
	// each redisPoll.
	redisPatience = 5 * time.Second
	redisPoll     = 100 * time.Millisecond
)

var (
	refusalKey = &front.Refusal{
		Kind: front.Denied, Reason: front.WrongKey,
		Text: "The stream key is wrong. Copy it again, or make a new one with: millrace channel reset-key NAME",
	}
	refusalBusy = &front.Refusal{
		Kind: front.Busy, Reason: front.KeyInUse,
		Text: "Somebody is publishing with this stream key already. Stop the other encoder first.",
	}
	refusalStopping = &front.Refusal{
		Kind: front.Failed, Reason: front.ShuttingDown,
		Text: "This server is being stopped. Connect again: the broadcast goes on.",
	}
)

// admit makes an encoder the publisher of its channel's broadcast.
func (s *Service) admit(ctx context.Context, p front.Request) (*publisher, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	rights, err := s.lookUp(ctx, credentials.Typed(p.Key))
	if errors.Is(err, credentials.ErrUnknownKey) {
		return nil, refusalKey
	}
	if err != nil {
		return nil, err
	}
	arrived := time.Now()
	for {
		b := s.broadcastOf(rights.Name)
		if b == nil {
			if b, err = s.begin(ctx, rights); err != nil {
				return nil, err
			}
		}
		pub, err := b.attach(p, rights, arrived, time.Now())
		switch {
		case err == nil:
			return pub, nil
		case errors.Is(err, errEnded):
			s.forgetChannel(b) // it ended just now: begin another
		case errors.Is(err, errBusy):
			select {
			case <-time.After(busyPoll):
			case <-ctx.Done():
				return nil, refusalBusy
			}
		default:
			return nil, err
		}
	}
}

// lookUp returns the channel of a stream key, if one may publish to it. Where Redis can't be asked, it is
// asked again for a while: a refused encoder may not try again by itself.
func (s *Service) lookUp(ctx context.Context, key credentials.StreamKey) (credentials.Channel, error) {
	for began := time.Now(); ; {
		c, err := credentials.Lookup(ctx, s.cfg.Redis, key)
		if err == nil {
			err = s.barred(ctx, c)
		}
		var refused *front.Refusal
		if err == nil || errors.Is(err, credentials.ErrUnknownKey) || errors.As(err, &refused) || time.Since(began) >= redisPatience {
			return c, err
		}
		select {
		case <-time.After(redisPoll):
		case <-ctx.Done():
			return c, err
		}
	}
}

func (s *Service) grace(c credentials.Channel) time.Duration {
	return cmp.Or(c.Grace, s.cfg.Grace)
}

func (s *Service) redundancy(c credentials.Channel) int {
	return min(cmp.Or(c.Redundancy, s.cfg.Redundancy), maxRedundancy)
}

func (s *Service) broadcastOf(channel string) *broadcast {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.channels[channel]
}

// begin starts a broadcast, or returns the one that another publisher of the
// channel began at the same time: two leases would end one another.
func (s *Service) begin(ctx context.Context, rights credentials.Channel) (*broadcast, error) {
	for {
		b, err, _ := s.begins.Do(rights.Name, func() (any, error) {
			if b := s.broadcastOf(rights.Name); b != nil {
				return b, nil
			}
			return s.beginAlone(ctx, rights)
		})
		if err == nil {
			return b.(*broadcast), nil
		}
		if ctx.Err() != nil || !errors.Is(err, context.Canceled) {
			return nil, err
		} // the encoder whose turn it was has gone
	}
}

// beginAlone takes the lease first, so that no other ingest has the channel,
// and goes on with the broadcast that another one had.
func (s *Service) beginAlone(ctx context.Context, rights credentials.Channel) (*broadcast, error) {
	s.mu.Lock()
	stopping := s.ctx == nil
	s.mu.Unlock()
	if stopping {
		return nil, refusalStopping
	}
	grace := s.grace(rights)
	now, before, err := s.acquire(ctx, rights, grace)
	if err != nil {
		return nil, err
	}
	var from *relay.Handoff
	if before.Broadcast != "" {
		c, err := s.handoff(ctx, rights.Name, before, now.Epoch)
		switch {
		case err == nil:
			from = &c
		case errors.Is(err, errEnded): // Redis didn't know yet
			now.State = lease.Ended
			if err := lease.Renew(ctx, s.cfg.Redis, rights.Name, now); err != nil {
				return nil, err
			}
			if now, _, err = s.acquire(ctx, rights, grace); err != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		return nil, refusalStopping
	}
	b := newBroadcast(s, rights, now, from)
	s.broadcasts[b.id], s.channels[rights.Name] = b, b
	s.metrics.broadcasts.Inc()
	s.running.Add(1)
	go func(ctx context.Context) {
		defer s.running.Done()
		b.run(ctx)
	}(s.ctx)
	return b, nil
}

// newBroadcastID returns an id that sorts by time and can't be guessed.
func newBroadcastID(now time.Time) string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails
	return strconv.FormatInt(now.UnixMilli(), 36) + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}
