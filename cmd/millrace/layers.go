package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// level orders the parts of the process. The highest is stopped first: ingest
// pauses its broadcasts, then transcode finishes and stores what was cut, then
// viewers have read it.
type level int

// The levels.
const (
	levelBacking   level = iota // Redis and S3
	levelPrivate                // private and ops listeners, by which the services above talk
	levelServices               // edge, api
	levelPublic                 // public listeners
	levelTranscode              // transcode
	levelIngest                 // ingest
	levels
)

// limits say how long each level may take to stop.
type limits [levels]time.Duration

// stopLimits returns the limits of a role. Those of `millrace all` stay
// together below the 5 s in which Ctrl-C must have ended everything; a single
// service drains first.
func stopLimits(r role, drain time.Duration) limits {
	l := limits{
		levelBacking:   time.Second,
		levelPrivate:   300 * time.Millisecond,
		levelServices:  300 * time.Millisecond,
		levelPublic:    300 * time.Millisecond,
		levelTranscode: 1500 * time.Millisecond,
		levelIngest:    1500 * time.Millisecond,
	}
	if r != roleAll {
		l[levelServices] = 2 * time.Second
		for _, at := range []level{levelPublic, levelTranscode, levelIngest} {
			l[at] = drain + afterDrain
		}
	}
	return l
}

// afterDrain is how long a service on its own may take, after its drain time, to
// end what is left.
const afterDrain = 11 * time.Second

// stopMargin is by how much a service must be done before its level's limit.
const stopMargin = 300 * time.Millisecond

// errStopping is the cause of the contexts of parts that are asked to end.
var errStopping = errors.New("millrace is stopping")

// layers runs the parts of the process. start and stop are called by one
// goroutine.
type layers struct {
	log    *slog.Logger
	limits limits
	ctx    [levels]context.Context
	cancel [levels]context.CancelCauseFunc
	wait   [levels]sync.WaitGroup
	// failed gets the first part that ended without being asked to.
	failed chan error

	mu      sync.Mutex // guards what follows
	running [levels]map[string]bool
}

func newLayers(log *slog.Logger, limits limits) *layers {
	l := &layers{log: log, limits: limits, failed: make(chan error, 1)}
	for i := range levels {
		l.ctx[i], l.cancel[i] = context.WithCancelCause(context.Background())
		l.running[i] = map[string]bool{}
	}
	return l
}

// start runs a part until stop.
func (l *layers) start(at level, name string, run func(context.Context) error) {
	l.note(at, name, true)
	l.wait[at].Go(func() {
		ctx := l.ctx[at]
		err := run(ctx)
		l.note(at, name, false)
		if ctx.Err() != nil {
			if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errStopping) {
				l.log.Warn("stopped with an error", "part", name, "err", err)
			}
			return
		}
		err = cmp.Or(err, errors.New("it ended by itself"))
		select {
		case l.failed <- fmt.Errorf("%s: %w", name, err):
		default: // another part failed before
		}
	})
}

// run waits until ctx ends or a part fails.
func (l *layers) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-l.failed:
		return err
	}
}

// stopping returns errStopping once the parts are being stopped.
func (l *layers) stopping() error { return context.Cause(l.ctx[levels-1]) }

// stop ends all parts, level by level from the top. A level that doesn't end
// in time is left behind.
func (l *layers) stop() {
	for at := levels - 1; at >= 0; at-- {
		start := time.Now()
		l.cancel[at](errStopping)
		done := make(chan struct{})
		go func() {
			l.wait[at].Wait()
			close(done)
		}()
		limit := time.NewTimer(l.limits[at])
		select {
		case <-done:
		case <-limit.C:
			l.log.Error("didn't stop in time", "parts", l.left(at), "limit", l.limits[at])
		}
		limit.Stop()
		l.log.Debug("level stopped", "level", int(at), "after", time.Since(start))
	}
}

// note remembers that a part runs, or that it has ended.
func (l *layers) note(at level, name string, runs bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if runs {
		l.running[at][name] = true
	} else {
		delete(l.running[at], name)
	}
}

// left names the parts of a level that still run.
func (l *layers) left(at level) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(l.running[at])), ", ")
}
