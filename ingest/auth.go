package ingest

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"strconv"
	"strings"
	"time"

	"millrace/internal/credentials"
	"millrace/internal/lease"
)

const (
	// takeoverSilence is how long a publisher must have sent nothing before
	// another one with the right key takes its place.
	takeoverSilence = 2 * time.Second
	// lookupTimeout bounds what is asked of Redis while an encoder waits.
	lookupTimeout = 5 * time.Second
)

var (
	refusalKey = &Refusal{
		Code: codePublishDenied, Reason: "wrong_key",
		Description: "The stream key is wrong. Copy it again, or make a new one with: millrace channel reset-key NAME",
	}
	refusalBusy = &Refusal{
		Code: codePublishBadName, Reason: "key_in_use",
		Description: "Somebody is publishing with this stream key already. Stop the other encoder first.",
	}
)

// publish admits a publisher (it makes Service the rtmp front's publishers).
func (s *Service) publish(ctx context.Context, p publishRequest) (publication, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	rights, err := credentials.Lookup(ctx, s.cfg.Redis, credentials.StreamKey(p.Key))
	if errors.Is(err, credentials.ErrUnknownKey) {
		return nil, refusalKey
	}
	if err != nil {
		return nil, err
	}
	channel := rights.Name
	for {
		b := s.broadcastOf(channel)
		if b == nil {
			if b, err = s.begin(ctx, channel); err != nil {
				return nil, err
			}
		}
		pub, err := b.attach(p, time.Now())
		if errors.Is(err, errEnded) {
			s.forgetChannel(b) // it ended just now: begin another
			continue
		}
		if err != nil {
			return nil, err
		}
		return pub, nil
	}
}

func (s *Service) broadcastOf(channel string) *broadcast {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.channels[channel]
}

// begin starts a broadcast, or returns the one that another publisher of the
// channel began at the same time: two leases would end one another.
func (s *Service) begin(ctx context.Context, channel string) (*broadcast, error) {
	b, err, _ := s.begins.Do(channel, func() (any, error) {
		if b := s.broadcastOf(channel); b != nil {
			return b, nil
		}
		return s.beginAlone(ctx, channel)
	})
	if err != nil {
		return nil, err
	}
	return b.(*broadcast), nil
}

// beginAlone takes the lease first, so that no other ingest has the channel.
func (s *Service) beginAlone(ctx context.Context, channel string) (*broadcast, error) {
	record, _, err := lease.Acquire(ctx, s.cfg.Redis, channel, newBroadcastID(time.Now()), s.cfg.Advertise, takeoverSilence+renewInterval, 0)
	if errors.Is(err, lease.ErrBusy) {
		return nil, refusalBusy
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		return nil, errors.New("the ingest shuts down")
	}
	b := newBroadcast(s, channel, record)
	s.broadcasts[b.id], s.channels[channel] = b, b
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
