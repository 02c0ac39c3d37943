package ingest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"millrace/internal/jobs"
	"millrace/internal/lease"
)

// maxProgressLine bounds one line of progress.
const maxProgressLine = 4 << 10

// What workers are told when a broadcast is over.
const (
	overEnded = "the broadcast is over"
	overMoved = "the broadcast goes on at another ingest"
)

// serveClaim answers POST /claim/{broadcast}/{slot} and holds the claim for as
// long as the request lasts.
func (s *Service) serveClaim(w http.ResponseWriter, r *http.Request) {
	b := s.broadcastByID(r.PathValue("broadcast"))
	n, err := strconv.Atoi(r.PathValue("slot"))
	if b == nil || err != nil {
		http.Error(w, "this ingest has no such broadcast", http.StatusNotFound)
		return
	}
	address := r.Header.Get(jobs.AddressHeader)
	if u, err := url.Parse(address); err != nil || u.Host == "" {
		http.Error(w, jobs.AddressHeader+" must be the worker's base URL", http.StatusBadRequest)
		return
	}
	c, grant, err := b.grant(n, address, time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	defer func() {
		if b.release(n, c) {
			s.metrics.claimsLost.WithLabelValues("closed").Inc()
		}
	}()
	b.logger.Info("worker has the broadcast", "slot", n, "worker", address, "grant", c.epoch.Grant, "live", grant.Live, "backfill", grant.Backfill)

	control := http.NewResponseController(w)
	// HTTP/2 is full duplex anyway; this is for HTTP/1.1.
	_ = control.EnableFullDuplex()
	say := func(v any) error {
		line, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
		return control.Flush()
	}
	if say(grant) != nil {
		return
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(r.Body)
		lines.Buffer(nil, maxProgressLine)
		for lines.Scan() {
			var p jobs.Progress
			if json.Unmarshal(lines.Bytes(), &p) != nil {
				return
			}
			b.report(n, c, p, time.Now())
		}
	}()
	for over := false; !over; {
		select {
		case o := <-c.orders:
			over = say(o) != nil || o.End != ""
		case <-read:
			b.logger.Info("worker let go", "slot", n, "worker", address)
			over = true
		case <-b.done:
			// Without a last word when the ingest stops: the worker keeps what
			// it has for whoever goes on with the broadcast.
			for len(c.orders) > 0 {
				_ = say(<-c.orders)
			}
			over = true
		}
	}
	// End the reader. Closing the body would wait for it, over HTTP/1.1.
	_ = control.SetReadDeadline(time.Unix(1, 0))
	<-read
}

// slotsInterval is how often slots are noted again: a Redis that lost them has
// them back by then.
const slotsInterval = 5 * time.Second

// noteSlots has edges told of the slots.
func (b *broadcast) noteSlots() {
	select {
	case b.notes <- struct{}{}:
	default:
	}
}

// holders says which worker edges should follow in each slot: who takes over
// next, so that they know it by then.
func (b *broadcast) holders() map[int]jobs.Slot {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := map[int]jobs.Slot{}
	for i := range b.slots {
		c := b.slots[i].next
		if c == nil {
			c = b.slots[i].claim
		}
		if c != nil && b.moved.IsZero() {
			list[i] = jobs.Slot{Address: c.address, Epoch: c.epoch}
		}
	}
	return list
}

// noter tells edges who holds the slots, until ctx ends.
func (b *broadcast) noter(ctx context.Context) {
	told := map[int]jobs.Slot{}
	again := time.NewTimer(slotsInterval)
	defer again.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.notes:
		case <-again.C:
			clear(told)
		}
		failed := false
		for n, s := range b.holders() {
			if told[n] == s {
				continue
			}
			rctx, cancel := context.WithTimeout(ctx, redisTimeout)
			err := lease.SetSlot(rctx, b.service.cfg.Redis, b.id, n, s)
			cancel()
			if err == nil || errors.Is(err, lease.ErrLost) { // the renewal says what to do
				told[n] = s
				continue
			}
			if failed = true; !failing && ctx.Err() == nil {
				b.logger.Warn("edges can't be told of the worker yet", "slot", n, "err", err)
			}
		}
		failing = failed
		if failing {
			again.Reset(renewInterval)
		} else {
			again.Reset(slotsInterval)
		}
	}
}
