package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"millrace/internal/credentials"
	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/internal/seal"
)

const (
	// busyFor is how long a lease that says live keeps others away.
	busyFor = takeoverSilence + renewInterval
	// busyWait bounds how long an encoder waits for an ingest that seems to have
	// its channel: twice as long as the record of one that is gone does, since a
	// machine may be busy. busyPoll is how often that is looked at.
	busyWait = 2 * busyFor
	busyPoll = 150 * time.Millisecond
	// releaseTimeout bounds what the ingest before is waited for, and
	// closeTimeout what the workers of two slots are, together.
	releaseTimeout = time.Second
	closeTimeout   = 1500 * time.Millisecond
	// unrenewed is how much media may have been published after the last
	// renewal of an ingest that is gone.
	unrenewed media.Ticks = 3 * media.VideoTimescale / 2
)

// acquire takes the channel's lease. It waits while another ingest's record
// says that a publisher is sending, until that one has sent again
// ([refusalBusy]) or has been silent for long enough: an ingest that was killed
// leaves such a record.
func (s *Service) acquire(ctx context.Context, rights credentials.Channel, grace time.Duration) (now, before lease.Record, err error) {
	var arrived time.Time // by Redis' clock
	channel, began := rights.Name, time.Now()
	for first := true; ; first = false {
		busy, free := s.elsewhere(ctx, rights, first)
		if busy {
			return now, before, refusalBusy
		}
		keeps := busyFor
		if free {
			keeps = 0
		}
		now, before, err = lease.Acquire(ctx, s.cfg.Redis, channel, newBroadcastID(time.Now()), s.self(channel), keeps, grace)
		if !errors.Is(err, lease.ErrBusy) {
			return now, before, err
		}
		r, err := lease.Read(ctx, s.cfg.Redis, channel)
		if err != nil && !errors.Is(err, lease.ErrNone) {
			return now, before, err
		}
		if arrived.IsZero() {
			arrived = r.Seen.Add(r.Age)
		}
		if r.State == lease.Live && r.Seen.Add(-r.Silent).After(arrived) || time.Since(began) > busyWait {
			return now, before, refusalBusy
		}
		select {
		case <-time.After(busyPoll):
		case <-ctx.Done():
			return now, before, ctx.Err()
		}
	}
}

// elsewhere asks the ingest that holds the channel whether its publisher is sending,
// where the record says nothing new: after a time without Redis, who asks first would
// else have the channel. busy: it says yes. free: it says no, whatever its record does.
// With tell it is asked in any case, since it hears of the rights with which one wants
// to publish here: it may not know yet that a stream key was reset.
func (s *Service) elsewhere(ctx context.Context, rights credentials.Channel, tell bool) (busy, free bool) {
	r, err := lease.Read(ctx, s.cfg.Redis, rights.Name)
	stale := r.Age >= busyFor
	if err != nil || r.State != lease.Live || !stale && !tell || r.Ingest == s.self(rights.Name) {
		return false, false // the lease decides
	}
	ingest, err := s.cfg.Peers.Open(seal.Ingest, rights.Name, r.Ingest)
	if err != nil {
		return false, false // nobody of ours wrote that
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ingest+relay.SendingPath(r.Broadcast)+"?"+rights.Query(), nil)
	if err != nil {
		return false, false
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return false, false // it is gone
	}
	_ = resp.Body.Close()
	return stale && resp.StatusCode == http.StatusNoContent, resp.StatusCode == http.StatusNotFound
}

// serveSending answers GET /sending/{broadcast}. A publisher whose key isn't the
// channel's any more, as whoever asks knows, is ended first.
func (s *Service) serveSending(w http.ResponseWriter, r *http.Request) {
	b := s.broadcastByID(r.PathValue("broadcast"))
	if b != nil {
		asks := credentials.FromQuery(r.URL.Query())
		b.check(asks.Version, &asks)
	}
	if b == nil || !b.sending() {
		http.Error(w, "this ingest has no publisher of the broadcast that is sending", http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// handoff finds out from where a broadcast goes on, under the lease epoch: from
// the ingest before, else from its workers, else from what Redis remembers.
// [errEnded] means that it has ended meanwhile.
func (s *Service) handoff(ctx context.Context, channel string, before lease.Record, epoch uint64) (relay.Handoff, error) {
	began := time.Now()
	floor := before.Handoff
	source := "ingest"
	from, err := s.askIngest(ctx, channel, before, epoch)
	if err != nil && !errors.Is(err, errEnded) {
		s.cfg.Log.Info("the ingest before can't be asked", "broadcast", before.Broadcast, "ingest", before.Ingest, "err", err)
		source = "worker"
		from, err = s.askWorkers(ctx, before.Broadcast, epoch)
	}
	if errors.Is(err, errEnded) {
		return relay.Handoff{}, err
	}
	if err != nil {
		s.cfg.Log.Info("no worker can be asked", "broadcast", before.Broadcast, "err", err)
		source, from = "redis", floor
		if before.State == lease.Live && !from.Mark.Time.IsZero() {
			from.Mark.Start += unrenewed
			from.Mark.Time = from.Mark.Time.Add(unrenewed.Duration())
		}
	}
	from = notBelow(from, floor)
	s.metrics.takeovers.WithLabelValues(source).Inc()
	s.cfg.Log.Info("going on with a broadcast", "broadcast", before.Broadcast, "ingest_before", before.Ingest,
		"source", source, "took", time.Since(began).Round(time.Millisecond), "segment", from.Mark.Sequence, "settled", from.Settings.PartTarget != 0)
	return from, nil
}

// notBelow makes c go back behind nothing that Redis knows of.
func notBelow(c, floor relay.Handoff) relay.Handoff {
	if c.Settings.PartTarget == 0 {
		c.Settings = floor.Settings
	}
	if c.Settings.TargetDuration == 0 {
		c.Settings.TargetDuration = floor.Settings.TargetDuration
	}
	c.Mark.Sequence = max(c.Mark.Sequence, floor.Mark.Sequence)
	c.Mark.Discontinuity = max(c.Mark.Discontinuity, floor.Mark.Discontinuity)
	c.Mark.Start = max(c.Mark.Start, floor.Mark.Start)
	if c.Mark.Time.Before(floor.Mark.Time) {
		c.Mark.Time = floor.Mark.Time
	}
	return c
}

// self is this ingest's address as others read it of a channel.
func (s *Service) self(channel string) seal.Address { return s.cfg.Peers.Self(seal.Ingest, channel) }

func (s *Service) askIngest(ctx context.Context, channel string, before lease.Record, epoch uint64) (relay.Handoff, error) {
	if before.Ingest == s.self(channel) && s.broadcastByID(before.Broadcast) == nil {
		return relay.Handoff{}, errors.New("that was this ingest before it was started again")
	}
	ingest, err := s.cfg.Peers.Open(seal.Ingest, channel, before.Ingest)
	if err != nil {
		return relay.Handoff{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	return s.askHandoff(ctx, ingest+relay.ReleasePath(before.Broadcast, epoch))
}

// askWorkers asks one worker after the other until one answers: two that close
// a segment may have read one frame apart, and would make two contents of one name.
func (s *Service) askWorkers(ctx context.Context, broadcast string, epoch uint64) (relay.Handoff, error) {
	slots, err := lease.Slots(ctx, s.cfg.Redis, broadcast)
	if err != nil {
		return relay.Handoff{}, err
	}
	err = errors.New("there is none")
	for _, n := range slices.Sorted(maps.Keys(slots)) {
		var c relay.Handoff
		var worker string
		if worker, err = s.cfg.Peers.Open(seal.Worker, broadcast, slots[n].Address); err != nil {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, closeTimeout/2)
		c, err = s.askHandoff(asking, worker+jobs.ClosePath(broadcast, epoch))
		cancel()
		if err == nil || errors.Is(err, errEnded) {
			return c, err
		}
	}
	return relay.Handoff{}, err
}

// maxHandoff bounds the answer of a request for a Handoff.
const maxHandoff = 16 << 10

func (s *Service) askHandoff(ctx context.Context, url string) (c relay.Handoff, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return c, fmt.Errorf("ask %s: %w", url, err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return c, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxHandoff))
	switch {
	case err != nil:
		return c, fmt.Errorf("ask %s: %w", url, err)
	case resp.StatusCode == http.StatusGone:
		return c, fmt.Errorf("ask %s: %w", url, errEnded)
	case resp.StatusCode != http.StatusOK:
		return c, fmt.Errorf("ask %s: %s: %.200s", url, resp.Status, body)
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return c, fmt.Errorf("ask %s: %w", url, err)
	}
	return c, nil
}

// serveRelease answers POST /release/{broadcast}?epoch={lease epoch}.
func (s *Service) serveRelease(w http.ResponseWriter, r *http.Request) {
	b := s.broadcastByID(r.PathValue("broadcast"))
	if b == nil {
		http.Error(w, "this ingest has no such broadcast", http.StatusNotFound)
		return
	}
	epoch, err := strconv.ParseUint(r.URL.Query().Get("epoch"), 10, 64)
	if err != nil {
		http.Error(w, "epoch must be a lease epoch", http.StatusBadRequest)
		return
	}
	if epoch <= b.epoch {
		http.Error(w, "this ingest has that lease epoch or a higher one", http.StatusConflict)
		return
	}
	c, err := b.giveUp(r.RemoteAddr)
	if err != nil {
		http.Error(w, err.Error(), http.StatusGone)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(c) // who asked sees when it breaks
}
