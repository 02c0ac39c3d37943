package transcode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"millrace/internal/lease"
	"millrace/internal/relay"
)

const (
	// orphanInterval is how often an orphan looks at Redis.
	orphanInterval = time.Second
	// orphanPatience is how long another ingest, once it has the lease, may
	// take to ask for the open segment's end.
	orphanPatience = 2 * time.Second
	// orphanGrace is how much longer than the grace period an orphan waits.
	orphanGrace = 15 * time.Second
	// orphanLimit is how long it waits without Redis, or with one that lost the lease.
	orphanLimit = 5 * time.Minute
)

// orphan is what a holding without a claim knows of its ingest. The ingest may
// be dead, or only out of reach: so nothing is given up that another ingest, or
// this one, may ask for.
type orphan struct {
	since, next time.Time
	taken       time.Time // when a higher lease was seen first
}

var (
	errTaken     = errors.New("another worker has the slot")
	errLostLease = errors.New("redis knows an earlier lease only: it lost some of what it had")
)

// look looks at Redis, now and then, and carries out what follows. An error
// ends the holding.
func (o *orphan) look(ctx context.Context, h *holding, reading bool) error {
	now := time.Now()
	if now.Before(o.next) {
		return nil
	}
	o.next = now.Add(orphanInterval)
	if o.since.IsZero() {
		o.since = now
		h.service.metrics.orphans.Inc()
		h.log.Warn("the connection to the ingest broke; the open segment is kept for whoever goes on", "relay", reading)
		return nil // ingest has only just seen it too
	}
	if !reading {
		// A part that still comes ends the pause, so it is said again.
		h.live.Pause(ctx)
	}
	rctx, cancel := context.WithTimeout(ctx, orphanInterval)
	defer cancel()
	r, err := lease.Read(rctx, h.service.cfg.Redis, h.job.Channel)
	mine := h.grant.Epoch
	if err == nil && r.Broadcast == h.job.Broadcast && r.Epoch < mine.Lease {
		err = errLostLease
	}
	if err != nil {
		if now.Sub(o.since) > orphanLimit {
			h.log.Warn("nobody asked for the open segment; it is dropped", "err", err)
			h.live.Drop(ctx)
		}
		return nil
	}
	switch {
	case r.Broadcast != h.job.Broadcast, r.Epoch == mine.Lease && r.State == lease.Ended,
		r.Epoch == mine.Lease && r.Age > r.Grace+orphanGrace:
		h.log.Info("nobody went on with the broadcast: it ends")
		if _, ok := h.closeShort(ctx, true); !ok {
			h.live.Drop(ctx) // nothing was read
		}
	case r.Epoch > mine.Lease:
		if o.taken.IsZero() {
			o.taken = now
		}
		if now.Sub(o.taken) >= orphanPatience {
			// Its numbers begin where it believes this segment to begin or end.
			h.log.Warn("another ingest went on without this worker's open segment; it is dropped")
			h.live.Drop(ctx)
		}
	case r.Epoch == mine.Lease:
		slots, err := lease.Slots(rctx, h.service.cfg.Redis, h.job.Broadcast)
		if err == nil && mine.Less(slots[h.job.Slot].Epoch) {
			return errTaken
		}
	}
	return nil
}

func (o *orphan) end(h *holding) {
	if !o.since.IsZero() {
		h.service.metrics.orphans.Dec()
	}
}

// closeShort ends the open segment after its last frame. It answers the same
// when it is asked again. ok is false when the worker has read nothing, or is done.
func (h *holding) closeShort(ctx context.Context, end bool) (c relay.Handoff, ok bool) {
	h.closing.Lock()
	defer h.closing.Unlock()
	if h.carry != nil {
		return *h.carry, true
	}
	c, ok = h.live.CloseShort(ctx, end)
	if ok {
		h.carry, h.closed, h.final = &c, time.Now(), end
	}
	return c, ok
}

// isFinal reports whether this worker has published the broadcast's end.
func (h *holding) isFinal() bool {
	h.closing.Lock()
	defer h.closing.Unlock()
	return h.final
}

func (h *holding) isClosed() bool {
	h.closing.Lock()
	defer h.closing.Unlock()
	return h.carry != nil
}

// serveClose answers POST /close/{broadcast}?epoch={lease epoch}.
func (s *Service) serveClose(w http.ResponseWriter, r *http.Request) {
	epoch, err := strconv.ParseUint(r.URL.Query().Get("epoch"), 10, 64)
	if err != nil {
		http.Error(w, "epoch must be the lease epoch that asks", http.StatusBadRequest)
		return
	}
	var newest *holding
	s.mu.Lock()
	for _, h := range s.holdings[r.PathValue("broadcast")] {
		if newest == nil || newest.grant.Epoch.Less(h.grant.Epoch) {
			newest = h
		}
	}
	s.mu.Unlock()
	switch {
	case newest == nil:
		http.Error(w, "this worker has nothing of that broadcast", http.StatusNotFound)
		return
	case newest.grant.Epoch.Lease >= epoch:
		http.Error(w, fmt.Sprintf("this worker works under the lease epoch %d", newest.grant.Epoch.Lease), http.StatusConflict)
		return
	}
	carry, ok := newest.closeShort(r.Context(), false)
	if !ok {
		http.Error(w, "this worker has nothing of that broadcast", http.StatusNotFound)
		return
	}
	if newest.isFinal() {
		http.Error(w, "the broadcast has ended", http.StatusGone)
		return
	}
	newest.log.Info("the open segment was closed for another ingest", "epoch", epoch, "next", carry.Mark.Sequence)
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(carry); err != nil {
		newest.log.Warn("the answer to another ingest was not taken", "err", err)
	}
}
