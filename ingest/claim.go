package ingest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"millrace/internal/jobs"
)

const (
	// claimSilence is how long a claim outlives its last sign of progress.
	claimSilence = 1500 * time.Millisecond
	// offerInterval is how often a job that nobody took is offered again.
	offerInterval = time.Second
	// maxProgressLine bounds one line of progress.
	maxProgressLine = 4 << 10
)

// claim is a worker's hold on a slot.
type claim struct {
	address  string
	epoch    jobs.Epoch
	progress jobs.Progress
	since    time.Time
	seen     time.Time
	end      chan string // buffered: the reason why it is over
}

// slot is a place for a worker on a broadcast.
type slot struct {
	claim    *claim // nil: a worker is needed
	offered  time.Time
	progress jobs.Progress // of the claims before
	grants   uint64
}

var (
	errSlotTaken = errors.New("the slot has a living worker")
	errNoSlot    = errors.New("the broadcast has no such slot")
)

// grant gives the slot to a worker.
func (b *broadcast) grant(n int, address string, now time.Time) (*claim, jobs.Grant, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n < 0 || n >= len(b.slots) {
		return nil, jobs.Grant{}, errNoSlot
	}
	s := &b.slots[n]
	if s.claim != nil {
		return nil, jobs.Grant{}, errSlotTaken
	}
	s.grants++
	c := &claim{
		address: address, epoch: jobs.Epoch{Lease: b.epoch, Grant: s.grants},
		progress: s.progress, since: now, seen: now, end: make(chan string, 1),
	}
	s.claim = c
	oldest := b.log.oldest()
	g := jobs.Grant{
		Epoch:    c.epoch,
		Live:     max(s.progress.Finished, oldest),
		Backfill: max(s.progress.Safe, oldest),
		Index:    s.grants > 1,
	}
	g.Backfill = min(g.Backfill, g.Live)
	return c, g, nil
}

// report notes progress. Numbers that go back are a worker's fault and don't count.
func (b *broadcast) report(n int, c *claim, p jobs.Progress, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.slots[n]
	if s.claim != c {
		return
	}
	c.seen = now
	c.progress.Consumed = max(c.progress.Consumed, p.Consumed)
	next := b.seq.mark.Sequence + 1
	c.progress.Finished = min(max(c.progress.Finished, p.Finished), next)
	c.progress.Safe = min(max(c.progress.Safe, p.Safe), c.progress.Finished)
	s.progress = c.progress
	s.progress.Consumed = 0
}

// release frees the slot, unless another claim has it by now.
func (b *broadcast) release(n int, c *claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.slots[n].claim == c {
		b.slots[n].claim = nil
		if time.Since(c.since) >= offerInterval { // else it failed at once: no hurry
			b.slots[n].offered = time.Time{}
			b.wakeUp()
		}
	}
}

// endClaims ends every claim, telling the workers why.
func (b *broadcast) endClaims(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.slots {
		if c := b.slots[i].claim; c != nil {
			c.stop(reason)
		}
	}
}

func (c *claim) stop(reason string) {
	select {
	case c.end <- reason:
	default:
	}
}

// reapSilent ends claims without progress and returns the slots that need a worker.
func (b *broadcast) reapSilent(now time.Time) (offer []int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.slots {
		s := &b.slots[i]
		if c := s.claim; c != nil && now.Sub(c.seen) > claimSilence {
			b.service.metrics.claimsLost.WithLabelValues("silent").Inc()
			b.logger.Warn("worker is silent, its claim ends", "slot", i, "worker", c.address)
			c.stop("no progress for " + claimSilence.String())
			s.claim, s.offered = nil, time.Time{}
		}
		if s.claim == nil && !b.drained && now.Sub(s.offered) >= offerInterval {
			s.offered = now
			offer = append(offer, i)
		}
	}
	return offer
}

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
	defer b.release(n, c)
	ctx, cancel := context.WithCancel(r.Context())
	var noting sync.WaitGroup
	defer noting.Wait()
	defer cancel()
	noting.Go(func() { b.noteSlot(ctx, n, jobs.Slot{Address: address, Epoch: c.epoch}) })
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
	select {
	case reason := <-c.end:
		_ = say(jobs.Order{End: reason}) // the worker sees the end of the answer in any case
	case <-read:
		b.logger.Info("worker let go", "slot", n, "worker", address)
		s.metrics.claimsLost.WithLabelValues("closed").Inc()
	case <-b.done:
		_ = say(jobs.Order{End: "the broadcast is over"})
	}
	// End the reader. Closing the body would wait for it, over HTTP/1.1.
	_ = control.SetReadDeadline(time.Unix(1, 0))
	<-read
}
