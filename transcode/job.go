package transcode

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/private"
	"millrace/internal/relay"
)

const (
	// jobBlock is how long one read of the queue waits: it is deaf to the
	// context, and holds up a stop for so long.
	jobBlock = 500 * time.Millisecond
	// jobPause is the pause after a read that failed.
	jobPause = 500 * time.Millisecond
	// busyPause lets a worker with more room take a job first.
	busyPause = 150 * time.Millisecond
	// maxBroadcasts bounds what one worker takes: passthrough nearly always has room.
	maxBroadcasts = 200
	// maxClaimLine bounds one line of a claim's answer.
	maxClaimLine = 4 << 10
)

// takeJobs reads the queue and works on what it takes, until ctx ends.
func (s *Service) takeJobs(ctx context.Context) error {
	var working sync.WaitGroup
	defer working.Wait()
	places := make(chan struct{}, maxBroadcasts)
	host, _ := os.Hostname() // a name for people to read; it may be empty
	consumer := host + "-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	failing := false
	for ctx.Err() == nil {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		if s.budget.room() < 0.5 {
			pause(ctx, busyPause)
		}
		job, err := s.nextJob(ctx, consumer)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if !failing {
				s.cfg.Log.Warn("jobs can't be read; running broadcasts go on", "err", err)
			}
			failing = true
			pause(ctx, jobPause)
		case failing:
			failing = false
			s.cfg.Log.Info("jobs are read again")
		}
		if job == nil {
			<-places
			continue
		}
		working.Go(func() {
			defer func() { <-places }()
			log := s.cfg.Log.With("broadcast", job.Broadcast, "channel", job.Channel)
			err := s.work(ctx, *job, log)
			switch {
			case err == nil:
				s.metrics.claims.WithLabelValues("complete").Inc()
			case errors.Is(err, errNotGranted):
				s.metrics.claims.WithLabelValues("not_granted").Inc()
				log.Debug("job was not granted", "err", err)
			case ctx.Err() != nil:
				s.metrics.claims.WithLabelValues("stopped").Inc()
				log.Info("stopped working on a broadcast")
			default:
				s.metrics.claims.WithLabelValues("failed").Inc()
				log.Warn("work on a broadcast ended early", "err", err)
			}
		})
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// nextJob waits for a job; nil without an error means that there was none.
func (s *Service) nextJob(ctx context.Context, consumer string) (*jobs.Job, error) {
	rctx, cancel := context.WithTimeout(ctx, jobBlock+10*time.Second)
	defer cancel()
	reply, err := s.cfg.Redis.XReadGroup(rctx, &redis.XReadGroupArgs{
		Group: jobs.Group, Consumer: consumer, Streams: []string{jobs.Stream, ">"},
		Count: 1, Block: jobBlock, NoAck: true,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if redis.HasErrorPrefix(err, "NOGROUP") {
		// Redis is new, or lost it. Offers are made again, so that none is missed.
		err = s.cfg.Redis.XGroupCreateMkStream(rctx, jobs.Stream, jobs.Group, "0").Err()
		if redis.HasErrorPrefix(err, "BUSYGROUP") {
			err = nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	if len(reply) == 0 || len(reply[0].Messages) == 0 {
		return nil, nil
	}
	m := reply[0].Messages[0]
	var job jobs.Job
	doc, _ := m.Values[jobs.Field].(string)
	if err := json.Unmarshal([]byte(doc), &job); err != nil || job.Broadcast == "" || job.Ingest == "" {
		return nil, fmt.Errorf("job %s is malformed", m.ID)
	}
	return &job, nil
}

// errNotGranted means that somebody else has the slot, or the broadcast is over.
var errNotGranted = errors.New("not granted")

// work claims a broadcast's slot and works on it until the claim ends. It
// returns nil when the broadcast was done.
func (s *Service) work(ctx context.Context, job jobs.Job, log *slog.Logger) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c, err := s.claim(ctx, job)
	if err != nil {
		return err
	}
	defer c.close()
	s.metrics.broadcasts.Inc()
	defer s.metrics.broadcasts.Dec()
	log.Info("working on the broadcast", "slot", job.Slot, "live", c.grant.Live, "backfill", c.grant.Backfill)

	pub := s.storage.open(job.Broadcast, c.grant)
	defer pub.close()
	if c.grant.Index {
		s.restore(ctx, job.Broadcast, pub, log)
	}
	w := newWorker(workerConfig{
		Grant: c.grant, FFmpeg: s.ffmpeg, Preset: s.cfg.Preset, Ladder: s.ladder,
		Budget: s.budget, Publish: pub, Metrics: s.metrics, Log: log,
	})
	defer s.budget.release(w)

	var claiming sync.WaitGroup
	claiming.Go(func() { cancel(c.await()) })
	claiming.Go(func() {
		c.report(ctx, func() jobs.Progress {
			return jobs.Progress{Consumed: w.consumed.Load(), Finished: w.finished.Load(), Safe: pub.safe()}
		})
	})
	err = w.run(ctx, func(ctx context.Context, out chan<- logEvent) error {
		return s.readLog(ctx, job, c.grant.Backfill, out)
	})
	if err == nil {
		// All is made. The claim goes on until ingest knows that all is safe.
		<-ctx.Done()
		err = nil
	}
	cancel(nil)
	c.close()
	claiming.Wait()
	return err
}

func (s *Service) readLog(ctx context.Context, job jobs.Job, from uint64, out chan<- logEvent) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, job.Ingest+relay.Path(job.Broadcast, from), nil)
	if err != nil {
		return fmt.Errorf("read relay: %w", err)
	}
	s.cfg.Secret.Authorize(req)
	l, err := openLog(s.client, req)
	if err != nil {
		return err
	}
	return l.run(ctx, out)
}

// maxRestore bounds what is read of an earlier worker's index, in entries.
const maxRestore = 20000

// restore tells the publication what earlier workers made. Without Redis it
// goes on without: edges remember.
func (s *Service) restore(ctx context.Context, broadcast string, pub *publication, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	messages, err := s.cfg.Redis.XRevRangeN(ctx, index.StreamKey(broadcast), "+", "-", maxRestore).Result()
	if err != nil {
		log.Warn("the index of earlier workers can't be read", "err", err)
		return
	}
	entries := make([]index.Entry, 0, len(messages))
	for i := len(messages) - 1; i >= 0; i-- {
		doc, _ := messages[i].Values[index.Field].(string)
		e, err := index.Parse([]byte(doc))
		if err != nil {
			log.Warn("an index entry can't be read", "id", messages[i].ID, "err", err)
			continue
		}
		entries = append(entries, e)
	}
	pub.restore(entries)
}

// claim is an open claim at an ingest.
type claim struct {
	grant     jobs.Grant
	transport *http.Transport
	up        *io.PipeWriter
	body      io.ReadCloser
	lines     *bufio.Scanner
	once      sync.Once
}

// claim asks for a slot. The claim has a connection of its own: its end is
// seen at once on both sides.
func (s *Service) claim(ctx context.Context, job jobs.Job) (*claim, error) {
	r, up := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, job.Ingest+jobs.ClaimPath(job.Broadcast, job.Slot), r)
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", job.Broadcast, err)
	}
	req.Header.Set(jobs.AddressHeader, s.cfg.Advertise)
	req.Header.Set(jobs.ProfileHeader, sourceProfile())
	s.cfg.Secret.Authorize(req)
	c := &claim{transport: private.NewTransport(true), up: up}
	resp, err := (&http.Client{Transport: c.transport}).Do(req)
	if err != nil {
		c.close()
		return nil, fmt.Errorf("claim %s at %s: %w", job.Broadcast, job.Ingest, err)
	}
	c.body = resp.Body
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		c.close()
		err := fmt.Errorf("claim %s: %s: %s", job.Broadcast, resp.Status, strings.TrimSpace(string(text)))
		if resp.StatusCode == http.StatusConflict || resp.StatusCode == http.StatusNotFound {
			err = fmt.Errorf("%w: %w", errNotGranted, err)
		}
		return nil, err
	}
	c.lines = bufio.NewScanner(resp.Body)
	c.lines.Buffer(nil, maxClaimLine)
	if !c.lines.Scan() {
		c.close()
		return nil, fmt.Errorf("claim %s: no grant came: %w", job.Broadcast, c.lines.Err())
	}
	if err := json.Unmarshal(c.lines.Bytes(), &c.grant); err != nil {
		c.close()
		return nil, fmt.Errorf("claim %s: decode grant: %w", job.Broadcast, err)
	}
	return c, nil
}

// await returns why the claim ended.
func (c *claim) await() error {
	for c.lines.Scan() {
		var order jobs.Order
		if json.Unmarshal(c.lines.Bytes(), &order) == nil && order.End != "" {
			return fmt.Errorf("ingest ended the claim: %s", order.End)
		}
	}
	return errors.New("the connection of the claim broke")
}

// report sends progress until ctx ends.
func (c *claim) report(ctx context.Context, progress func() jobs.Progress) {
	tick := time.NewTicker(jobs.ProgressInterval)
	defer tick.Stop()
	for {
		line, err := json.Marshal(progress())
		if err != nil {
			return
		}
		if _, err := c.up.Write(append(line, '\n')); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// close ends the claim. It may be called more than once.
func (c *claim) close() {
	c.once.Do(func() {
		_ = c.up.CloseWithError(io.EOF)
		if c.body != nil {
			_ = c.body.Close()
		}
		c.transport.CloseIdleConnections()
	})
}
