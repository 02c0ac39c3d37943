package transcode

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"millrace/internal/lease"
	"millrace/internal/relay"
)

// look looks at what Redis says of the channel of a detached assignment.
func (a *assignment) look(ctx context.Context) (f found) {
	ctx, cancel := context.WithTimeout(ctx, lookInterval)
	defer cancel()
	db := a.service.cfg.Redis
	if f.record, f.err = lease.Read(ctx, db, a.job.Channel); f.err != nil {
		return f
	}
	if f.record.Broadcast == a.job.Broadcast && f.record.Epoch == a.grant.Epoch.Lease {
		if slots, err := lease.Slots(ctx, db, a.job.Broadcast); err == nil { // else the next look tells
			f.slot = slots[a.job.Slot].Epoch
		}
	}
	return f
}

// closeShort ends the open segment after its last frame. It answers the same
// when it is asked again. ok is false when the worker has read nothing, or is done.
func (a *assignment) closeShort(ctx context.Context, end bool) (h relay.Handoff, ok bool) {
	a.closing.Lock()
	defer a.closing.Unlock()
	if a.handoff != nil {
		return *a.handoff, true
	}
	h, ok = a.live.CloseShort(ctx, end)
	if ok {
		a.handoff, a.closed, a.final = &h, time.Now(), end
	}
	return h, ok
}

// isFinal reports whether this worker has published the broadcast's end.
func (a *assignment) isFinal() bool {
	a.closing.Lock()
	defer a.closing.Unlock()
	return a.final
}

// serveClose answers POST /close/{broadcast}?epoch={lease epoch}.
func (s *Service) serveClose(w http.ResponseWriter, r *http.Request) {
	epoch, err := strconv.ParseUint(r.URL.Query().Get("epoch"), 10, 64)
	if err != nil {
		http.Error(w, "epoch must be the lease epoch that asks", http.StatusBadRequest)
		return
	}
	a := s.newest(r.PathValue("broadcast"))
	switch {
	case a == nil:
		http.Error(w, "this worker has nothing of that broadcast", http.StatusNotFound)
		return
	case a.grant.Epoch.Lease >= epoch:
		http.Error(w, fmt.Sprintf("this worker works under the lease epoch %d", a.grant.Epoch.Lease), http.StatusConflict)
		return
	}
	handoff, ok := a.closeShort(r.Context(), false)
	if !ok {
		http.Error(w, "this worker has nothing of that broadcast", http.StatusNotFound)
		return
	}
	a.tell(r.Context(), event{kind: eventClosedShort})
	if a.isFinal() {
		http.Error(w, "the broadcast has ended", http.StatusGone)
		return
	}
	a.log.Info("the open segment was closed for another ingest", "epoch", epoch, "next", handoff.Mark.Sequence)
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(handoff); err != nil {
		a.log.Warn("the answer to another ingest was not taken", "err", err)
	}
}
