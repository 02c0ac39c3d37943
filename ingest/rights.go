package ingest

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"time"

	"millrace/ingest/front"
	"millrace/internal/credentials"
)

// rightsInterval is how often publishers' rights are looked at again: a key that was
// reset stops working within a second, with time for Redis to answer.
const rightsInterval = 400 * time.Millisecond

var (
	refusalReset = &front.Refusal{
		Kind: front.Denied, Reason: front.KeyReset,
		Text: "The channel has another stream key now: this one was reset. Put the new one into the encoder.",
	}
	refusalDisabled = &front.Refusal{
		Kind: front.Denied, Reason: front.ChannelDisabled,
		Text: "This channel is disabled: nobody can publish to it. Ask whoever runs this server.",
	}
	refusalDeleted = &front.Refusal{
		Kind: front.Denied, Reason: front.ChannelDeleted,
		Text: "This channel was deleted.",
	}
	refusalKicked = kicked(credentials.BarredFor)
)

// kicked is the refusal of a publisher that may come back after a time.
func kicked(after time.Duration) *front.Refusal {
	return &front.Refusal{
		Kind: front.Denied, Reason: front.Kicked,
		Text: fmt.Sprintf("Whoever runs this server has ended the broadcast. Another one can begin in %.0f s.", math.Ceil(after.Seconds())),
	}
}

// judge says what the publisher must hear who was admitted with the rights had, now
// that the channel is as it is; nil: it goes on. In version there is no such channel
// where now is nil. over says that the broadcast ends too: of it nobody has the rights
// to go on. Nothing is said by a version before that of the admission.
func judge(had credentials.Channel, version int64, now *credentials.Channel) (why *front.Refusal, over bool) {
	switch {
	case had.Version == 0 || version < had.Version:
		return nil, false
	case now == nil || now.Created != had.Created:
		return refusalDeleted, true
	case now.Disabled:
		return refusalDisabled, true
	case now.Kicked > had.Version:
		return refusalKicked, true
	case now.KeyHash != had.KeyHash:
		return refusalReset, false // the streamer did that, and may go on
	}
	return nil, false
}

// enforce ends the publisher, and the broadcast, if judge says so. The caller holds the
// source's lock.
func (b *broadcast) enforce(version int64, now *credentials.Channel) {
	s := &b.source
	why, over := judge(s.rights, version, now)
	if why == nil || s.life.phase.over() {
		return
	}
	if s.publisher != nil {
		s.publisher.logger.Warn("the publisher may publish no longer", "reason", string(why.Reason))
		b.dismiss(*why)
	}
	if over {
		b.endLocked(string(why.Reason))
	}
}

// watchRights looks again and again whether those who were admitted still may
// publish, until ctx ends.
func (s *Service) watchRights(ctx context.Context) {
	tick := time.NewTicker(rightsInterval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		version, err := s.checkRights(ctx)
		result := "ok"
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			result = "failed"
		case version == 0:
			result = "unknown"
		}
		s.metrics.rightsChecks.WithLabelValues(result).Inc()
		switch {
		case err != nil && !failing:
			s.cfg.Log.Warn("it can't be seen whether stream keys are still right; publishers go on", "err", err)
		case err == nil && failing:
			s.cfg.Log.Info("it can be seen again whether stream keys are still right")
		}
		failing = err != nil
	}
}

// checkRights has every broadcast here judged by what Redis says of its channel, and
// returns the version of that. Version 0, of a Redis that knows nothing, ends nothing.
func (s *Service) checkRights(ctx context.Context) (version int64, err error) {
	all := s.all()
	names := make([]string, len(all))
	for i, b := range all {
		names[i] = b.channel
	}
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	known, err := credentials.Read(ctx, s.cfg.Redis, names)
	if err != nil || known.Version == 0 {
		return 0, err
	}
	channels := make(map[string]*credentials.Channel, len(known.Channels))
	for i := range known.Channels {
		channels[known.Channels[i].Name] = &known.Channels[i]
	}
	var failed error
	for _, b := range all {
		now := channels[b.channel]
		if b.isKicked(known.Version, now) {
			// Else the encoder would be back before anybody has looked: whoever kicked
			// may have had no Redis to say so.
			failed = cmp.Or(credentials.Bar(ctx, s.cfg.Redis, b.channel), failed)
		}
		b.check(known.Version, now)
	}
	return known.Version, failed
}

func (b *broadcast) isKicked(version int64, now *credentials.Channel) bool {
	b.source.mu.Lock()
	defer b.source.mu.Unlock()
	why, _ := judge(b.source.rights, version, now)
	return why == refusalKicked && !b.source.life.phase.over()
}

// check has the broadcast judged by what its channel is in a version.
func (b *broadcast) check(version int64, now *credentials.Channel) {
	b.source.mu.Lock()
	defer b.source.mu.Unlock()
	b.enforce(version, now)
}

// barred refuses a publisher of a channel that nobody may publish to.
func (s *Service) barred(ctx context.Context, c credentials.Channel) error {
	if c.Disabled {
		return refusalDisabled
	}
	left, err := credentials.Barred(ctx, s.cfg.Redis, c.Name)
	if err != nil || left == 0 {
		return err
	}
	return kicked(left)
}
