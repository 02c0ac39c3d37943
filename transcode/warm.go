package transcode

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"millrace/internal/lease"
)

const (
	// warmInterval is how often it is looked at which broadcasts there are.
	warmInterval = time.Second
	// warmLook bounds how many channels one look reads.
	warmLook = 32
	// warmKinds bounds the kinds of broadcast that processes are kept for.
	warmKinds = 3
)

// warmth keeps processes for broadcasts that other workers have, since this one
// may have to take one of them over at once. Safe for concurrent use.
type warmth struct {
	log *slog.Logger

	mu      sync.Mutex
	ffmpeg  *ffmpeg
	ctx     context.Context // ends the processes; os/exec needs it for as long
	waiting []*encoder
}

// begin says which program to keep, until ctx ends.
func (p *warmth) begin(ctx context.Context, f *ffmpeg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ctx, p.ffmpeg = ctx, f
}

// take returns a process that waits for this job, bound to out and gone, or nil.
func (p *warmth) take(job encodeJob, out chan<- output, gone <-chan struct{}) *encoder {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.waiting, func(e *encoder) bool { return e.job.same(job) && e.ready() })
	if i < 0 {
		return nil
	}
	e := p.waiting[i]
	p.waiting = slices.Delete(p.waiting, i, i+1)
	e.bind(out, gone)
	return e
}

// ready reports whether the process is still there.
func (e *encoder) ready() bool {
	select {
	case <-e.exited:
		return false
	default:
		return true
	}
}

// want keeps one process for each of these jobs, and no others.
func (p *warmth) want(jobs []encodeJob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var keep, drop []*encoder
	for _, e := range p.waiting {
		i := slices.IndexFunc(jobs, e.job.same)
		if i < 0 || !e.ready() {
			drop = append(drop, e)
			continue
		}
		keep = append(keep, e)
		jobs = slices.Delete(slices.Clone(jobs), i, i+1)
	}
	p.waiting = keep
	for _, e := range drop {
		e.discard()
		e.running.Wait()
	}
	for _, job := range jobs {
		e, err := p.ffmpeg.startUnbound(p.ctx, job)
		if err != nil {
			p.log.Error("no encoder can be kept ready", "err", err)
			return
		}
		p.waiting = append(p.waiting, e)
	}
}

// keepWarm has processes ready for the broadcasts that other workers have, for
// as long as this one has room, until ctx ends.
func (s *Service) keepWarm(ctx context.Context) error {
	tick := time.NewTicker(warmInterval)
	defer tick.Stop()
	defer s.warm.want(nil)
	for {
		jobs, err := s.likelyJobs(ctx)
		if err == nil { // else those that there are stay
			s.warm.want(jobs)
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
func (s *Service) likelyJobs(ctx context.Context) ([]encodeJob, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	channels, err := lease.Channels(ctx, s.cfg.Redis)
	if err != nil {
		return nil, err
	}
	type kind struct {
		rungs []rung
		count int
	}
	var kinds []kind
	for _, channel := range channels[:min(len(channels), warmLook)] {
		r, err := lease.Read(ctx, s.cfg.Redis, channel)
		if err != nil {
			continue // it may be gone by now
		}
		rungs := s.rungsOf(r)
		if len(rungs) == 0 || s.holds(r.Broadcast) || s.budget.scale()*estimateCost(r.Width, r.Height, r.FrameRate, rungs) > s.budget.room() {
			continue
		}
		i := slices.IndexFunc(kinds, func(k kind) bool { return slices.Equal(k.rungs, rungs) })
		if i < 0 {
			kinds = append(kinds, kind{rungs, 1})
		} else {
			kinds[i].count++
		}
	}
	slices.SortStableFunc(kinds, func(a, b kind) int { return b.count - a.count })
	var jobs []encodeJob
	for _, k := range kinds[:min(len(kinds), warmKinds)] {
		for _, group := range each(k.rungs) {
			jobs = append(jobs, encodeJob{Rungs: group, Preset: s.cfg.Preset})
		}
	}
	return jobs, nil
}

// rungsOf returns the rungs of the broadcast that a record tells of; none
// while that isn't known.
func (s *Service) rungsOf(r lease.Record) []rung {
	about := r.Carry.Settings
	if r.State != lease.Live || r.Width == 0 || !about.Video || about.PartTarget == 0 {
		return nil
	}
	return buildLadder(s.ladder, r.Width, r.Height, about.FrameRate, about.FrameStep)
}
