package edge

import (
	"context"
	"errors"
	"sync"
	"time"

	"millrace/internal/objects"
)

// source is a place to fetch one object from.
type source struct {
	// name tells the source from others; worker is set when that is a worker's
	// address.
	name   string
	worker bool
	// hedge is how long the source may take to its first byte before another one
	// is asked too, again how long after one request it may be asked once more.
	hedge, again time.Duration
	// get fetches the object; it calls began at the first byte.
	get func(ctx context.Context, began func()) ([]byte, error)
}

// racer is one fetch under way.
type racer struct {
	source
	asked   time.Time
	running bool
	began   bool
	err     error
}

// news is what a source under way says: its first byte, or its end.
type news struct {
	*racer
	ended bool
	data  []byte
	err   error
}

// race returns the object from the source that is first to have it. It asks the
// sources in order, the next one when the one before fails or lets it wait. It
// calls list again and again, since workers come and go. For as long as patience,
// sources that failed are asked again. Without a result the error is
// objects.ErrNotFound only if every source said so.
func (b *broadcast) race(ctx context.Context, patience time.Duration, list func() []source) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()

	start := time.Now()
	racers := make(map[string]*racer)
	inbox := make(chan news)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case n := <-inbox:
			if !n.ended {
				n.began = true
				timer.Reset(workerTimeout)
				continue
			}
			n.running, n.racer.err = false, n.err
			b.service.metrics.fetched(n.worker, n.err)
			if n.err == nil {
				return n.data, nil
			}
		case <-timer.C:
			now := time.Now()
			for _, r := range racers {
				if r.running && !r.began && r.worker && now.Sub(r.asked) >= r.hedge {
					b.workers.stalled(r.name, now)
				}
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}

		now := time.Now()
		patient := now.Sub(start) < patience
		next, running := pick(racers, list(), now, patient)
		switch {
		case next != nil:
			if running {
				b.service.metrics.hedged.Inc()
			}
			r := &racer{source: *next, asked: now, running: true}
			racers[r.name] = r
			group.Go(func() { r.run(ctx, inbox) })
			timer.Reset(r.hedge)
		case running || patient:
			timer.Reset(hedgeAfter)
		default:
			return nil, verdict(racers)
		}
	}
}

func (r *racer) run(ctx context.Context, inbox chan<- news) {
	say := func(n news) {
		select {
		case inbox <- n:
		case <-ctx.Done():
		}
	}
	data, err := r.get(ctx, func() { say(news{racer: r}) })
	say(news{racer: r, ended: true, data: data, err: err})
}

// pick returns the source to ask next, nil for none now, and whether one is
// under way.
func pick(racers map[string]*racer, sources []source, now time.Time, patient bool) (next *source, running bool) {
	for _, r := range racers {
		running = running || r.running
	}
	for i := range sources {
		r := racers[sources[i].name]
		if r == nil {
			return &sources[i], running
		}
		if patient && next == nil && !r.running && now.Sub(r.asked) >= r.again {
			next = &sources[i]
		}
	}
	return next, running
}

func verdict(racers map[string]*racer) error {
	var errs []error
	for _, r := range racers {
		if !errors.Is(r.err, objects.ErrNotFound) {
			errs = append(errs, r.err)
		}
	}
	if len(errs) == 0 {
		return objects.ErrNotFound
	}
	return errors.Join(errs...)
}

// fetched counts a fetch that ended by itself.
func (m *metrics) fetched(worker bool, err error) {
	name := "bucket"
	if worker {
		name = "worker"
	}
	result := "error"
	switch {
	case err == nil:
		result = "ok"
	case errors.Is(err, objects.ErrNotFound):
		result = "missing"
	case errors.Is(err, context.DeadlineExceeded):
		result = "timeout"
	}
	m.fetches.WithLabelValues(name, result).Inc()
}
