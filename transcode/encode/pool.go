package encode

import (
	"context"
	"log/slog"
	"slices"
	"sync"
)

// Pool keeps processes for broadcasts that other workers have, since this one
// may have to take one of them over at once. Safe for concurrent use.
type Pool struct {
	log *slog.Logger

	mu      sync.Mutex
	ffmpeg  *FFmpeg
	ctx     context.Context // ends the processes; os/exec needs it for as long
	waiting []*encoder
}

// NewPool returns an empty pool. Begin comes before anything else.
func NewPool(log *slog.Logger) *Pool { return &Pool{log: log} }

// Kept is how many processes wait.
func (p *Pool) Kept() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)
}

// Begin says which program to keep, until ctx ends.
func (p *Pool) Begin(ctx context.Context, f *FFmpeg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ctx, p.ffmpeg = ctx, f
}

// take returns a process that waits for this job, bound to out and gone, or nil.
func (p *Pool) take(job Job, out chan<- output, gone <-chan struct{}) *encoder {
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

// Want keeps one process for each of these jobs, and no others.
func (p *Pool) Want(jobs []Job) {
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

// TakeoverJobs are the processes that the first segment after a takeover needs.
func TakeoverJobs(src Source, rungs []Rung, preset string) (jobs []Job) {
	for _, group := range each(rungs) {
		jobs = append(jobs, Job{Rungs: group, Preset: preset, Look: src.Look, Picture: src.Picture})
	}
	return jobs
}
