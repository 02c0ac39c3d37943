package transcode

import (
	"context"
	"slices"
	"time"

	"millrace/internal/lease"
	"millrace/transcode/encode"
)

const (
	// warmInterval is how often it is looked at which broadcasts there are.
	warmInterval = time.Second
	// warmLook bounds how many channels one look reads.
	warmLook = 32
	// warmKinds bounds the kinds of broadcast that processes are kept for.
	warmKinds = 3
)

// keepWarm has processes ready for the broadcasts that other workers have, for
// as long as this one has room, until ctx ends.
func (s *Service) keepWarm(ctx context.Context) error {
	tick := time.NewTicker(warmInterval)
	defer tick.Stop()
	defer s.warm.Want(nil)
	for {
		jobs, err := s.likelyJobs(ctx)
		if err == nil { // else those that there are stay
			s.warm.Want(jobs)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// likelyJobs returns what the first segment after a takeover would need, for
// the commonest kinds of the broadcasts that this worker doesn't have.
func (s *Service) likelyJobs(ctx context.Context) ([]encode.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	channels, err := lease.Channels(ctx, s.cfg.Redis)
	if err != nil {
		return nil, err
	}
	type kind struct {
		src   encode.Source
		rungs []encode.Rung
		count int
	}
	var kinds []kind
	for _, channel := range channels[:min(len(channels), warmLook)] {
		r, err := lease.Read(ctx, s.cfg.Redis, channel)
		if err != nil {
			continue // it may be gone by now
		}
		rungs := s.rungsOf(r)
		if len(rungs) == 0 || s.newest(r.Broadcast) != nil || s.budget.Scale()*encode.EstimateCost(sourceOf(r), rungs) > s.budget.Room() {
			continue
		}
		src := sourceOf(r)
		i := slices.IndexFunc(kinds, func(k kind) bool { return k.src.Picture == src.Picture && slices.Equal(k.rungs, rungs) })
		if i < 0 {
			kinds = append(kinds, kind{src, rungs, 1})
		} else {
			kinds[i].count++
		}
	}
	slices.SortStableFunc(kinds, func(a, b kind) int { return b.count - a.count })
	var jobs []encode.Job
	for _, k := range kinds[:min(len(kinds), warmKinds)] {
		jobs = append(jobs, encode.TakeoverJobs(k.src, k.rungs, s.cfg.Preset)...)
	}
	return jobs, nil
}

// rungsOf returns the rungs of the broadcast that a record tells of; none
// while that isn't known.
func (s *Service) rungsOf(r lease.Record) []encode.Rung {
	about := r.Handoff.Settings
	if r.State != lease.Live || r.Width == 0 || !about.Video || about.PartTarget == 0 {
		return nil
	}
	return encode.BuildLadder(s.ladder, sourceOf(r))
}

func sourceOf(r lease.Record) encode.Source {
	about := r.Handoff.Settings
	return encode.Source{
		Format: r.Format, Rare: !r.Universal, Width: r.Width, Height: r.Height, Look: encode.LookOf(r.Picture), Picture: r.Picture,
		FrameRate: about.FrameRate, Step: about.FrameStep,
	}
}
