package edge

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace/edge/fold"
	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/sparselog"
)

const (
	// quietAfter is how long a follow stream may say nothing.
	quietAfter = 2 * time.Second
	// lingerFor is how long a worker without a slot is listened to.
	lingerFor = 10 * time.Second
)

var (
	errQuiet   = errors.New("the follow stream went quiet")
	errNotHere = errors.New("the worker doesn't know the broadcast")
)

// followStream is the follow stream of one worker (see internal/index).
type followStream struct {
	address string
	stop    context.CancelFunc
	// leaving is set when the worker has no slot any more: its stream is read
	// until it ends.
	leaving atomic.Bool
	// wake has room for one: try again at once.
	wake chan struct{}
	// done is closed when nothing is read any more.
	done chan struct{}

	// Owned by the broadcast's run: the epoch of the worker's newest slot, and
	// until when it may go on without one.
	epoch jobs.Epoch
	until time.Time
}

// follow keeps a follow stream open to each worker in a slot. One that lost its
// slot is listened to for a while: it may still tell of segments that it completes.
func (b *broadcast) follow(ctx context.Context, group *errgroup.Group, streams map[string]*followStream, now time.Time) {
	wanted := b.workers.slotted()
	for address, f := range streams {
		epoch, ok := wanted[address]
		switch {
		case ok:
			f.leaving.Store(false)
			f.until = time.Time{}
			if f.epoch != epoch {
				f.epoch = epoch
				f.again()
			}
		case f.until.IsZero():
			f.until = now.Add(lingerFor)
			f.leaving.Store(true)
			f.again()
		case now.After(f.until):
			f.stop()
		}
		select {
		case <-f.done:
			delete(streams, address)
			b.workers.left(address)
		default:
		}
	}
	for address, epoch := range wanted {
		if streams[address] != nil {
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		f := &followStream{address: address, stop: stop, epoch: epoch, wake: make(chan struct{}, 1), done: make(chan struct{})}
		streams[address] = f
		group.Go(func() error {
			defer close(f.done)
			defer stop()
			b.followWorker(ctx, f)
			return nil
		})
	}
}

// again ends the wait before the next attempt.
func (f *followStream) again() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// followWorker reads a worker's follow stream again and again until ctx ends or
// the worker has lost its slot.
func (b *broadcast) followWorker(ctx context.Context, f *followStream) {
	const shortest, longest = 50 * time.Millisecond, time.Second
	backoff := shortest
	var faults sparselog.Limiter
	for {
		heard, err := b.followOnce(ctx, f.address)
		if ctx.Err() != nil || f.leaving.Load() {
			return
		}
		b.service.metrics.follows.WithLabelValues(breakReason(err)).Inc()
		if !b.view.now.Load().Ended {
			faults.Warn(b.log.With("worker", f.address), "follow stream broke; connecting again", err)
		}
		if heard {
			backoff = shortest
		}
		// Another worker may have the slot already.
		select {
		case b.channel.kick <- struct{}{}:
		default:
		}
		timer := time.NewTimer(backoff)
		select {
		case <-timer.C:
		case <-f.wake:
			timer.Stop()
			backoff = shortest
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if f.leaving.Load() {
			return
		}
		backoff = min(2*backoff, longest)
	}
}

func breakReason(err error) string {
	switch {
	case errors.Is(err, errQuiet):
		return "quiet"
	case errors.Is(err, errNotHere):
		return "not_here"
	case errors.Is(err, bufio.ErrTooLong):
		return "line_too_long"
	case err == nil:
		return "closed"
	}
	return "error"
}

// followOnce reads a follow stream until it breaks or goes quiet. heard tells
// whether it said anything.
func (b *broadcast) followOnce(ctx context.Context, address string) (heard bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(quietAfter, func() { cancel(errQuiet) })
	defer quiet.Stop()
	defer func() {
		if cause := context.Cause(ctx); cause != nil && err != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
	}()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(address, "/")+index.FollowPath(b.id), nil)
	if err != nil {
		return false, fmt.Errorf("follow: %w", err)
	}
	resp, err := b.service.client.Do(req)
	if err != nil {
		return false, fmt.Errorf("follow: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return false, errNotHere
	}
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("follow: status %d", resp.StatusCode)
	}
	b.opened()
	defer b.closed()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 16<<10), index.MaxLine)
	for lines.Scan() {
		quiet.Reset(quietAfter)
		b.upstream.spoke.Store(time.Now().UnixNano())
		entries, err := index.ParseLine(lines.Bytes())
		if err != nil {
			return heard, fmt.Errorf("follow: %w", err)
		}
		if len(entries) > 0 {
			// Who tells of it can serve it, even before it is shown.
			b.workers.note(entries, address)
			b.apply(entries)
			b.arrived(ctx, entries)
		}
		heard = true
	}
	if err := lines.Err(); err != nil {
		return heard, fmt.Errorf("follow: %w", err)
	}
	return heard, nil
}

// apply folds entries in.
func (b *broadcast) apply(entries []index.Entry) {
	b.update(func(f *fold.Fold) {
		before := f.News()
		f.Apply(entries)
		if f.News() != before {
			b.upstream.told.Store(time.Now().UnixNano())
		}
	})
}

// arrived begins the playlists with the first media that a worker told of, and
// fetches new parts that viewers are about to ask for.
func (b *broadcast) arrived(ctx context.Context, entries []index.Entry) {
	for i := range entries {
		e := &entries[i]
		if e.Type == index.TypePart || e.Type == index.TypeSegment {
			b.upstream.noteMedia()
		}
		if e.Type == index.TypePart {
			b.prefetch(ctx, e)
		}
	}
}

func (b *broadcast) opened() {
	b.upstream.opened()
	b.service.metrics.streams.Inc()
}

func (b *broadcast) closed() {
	b.upstream.closed(time.Now())
	b.service.metrics.streams.Dec()
}
