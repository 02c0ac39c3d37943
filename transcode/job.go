package transcode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/jobs"
)

const (
	// jobBlock is how long one read of the queue waits: it is deaf to the
	// context, and holds up a stop for so long.
	jobBlock = 500 * time.Millisecond
	// jobPause is the pause after a read that failed.
	jobPause = 500 * time.Millisecond
	// busyPause is how often a worker without room looks for a job. It doesn't
	// wait for one, as those with room do: they get it first.
	busyPause = 150 * time.Millisecond
	// maxBroadcasts bounds what one worker takes: passthrough nearly always has room.
	maxBroadcasts = 200
)

// takeJobs reads the queue until ctx ends, works on what it takes until working
// ends, and returns when that work is done.
func (s *Service) takeJobs(ctx, working context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	places := make(chan struct{}, maxBroadcasts)
	host, _ := os.Hostname() // a name for people to read; it may be empty
	consumer := host + "-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	failing := false
	s.working.Add(1)
	defer s.working.Add(-1)
	for ctx.Err() == nil {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		job, err := s.nextJob(ctx, consumer)
		switch {
		case ctx.Err() != nil && job != nil:
			s.giveBack(working, job)
			return nil
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
		s.working.Add(1)
		work.Go(func() {
			defer s.working.Add(-1)
			defer func() { <-places }()
			log := s.cfg.Log.With("broadcast", job.Broadcast, "channel", job.Channel)
			err := s.work(working, *job, log)
			switch {
			case err == nil:
				s.metrics.claims.WithLabelValues("complete").Inc()
			case errors.Is(err, errNotGranted):
				s.metrics.claims.WithLabelValues("not_granted").Inc()
				log.Debug("job was not granted", "err", err)
			case working.Err() != nil:
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

// giveBack offers a job again that came too late for this worker.
func (s *Service) giveBack(ctx context.Context, job *jobs.Job) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	doc, err := json.Marshal(job)
	if err == nil {
		err = s.cfg.Redis.XAdd(ctx, &redis.XAddArgs{
			Stream: jobs.Stream, MaxLen: jobs.MaxOffers, Approx: true, Values: map[string]any{jobs.Field: doc},
		}).Err()
	}
	if err != nil {
		s.cfg.Log.Debug("a job could not be given back; ingest offers it again", "err", err)
	}
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
	var block time.Duration = jobBlock
	if s.budget.Room() < 0.5 {
		pause(ctx, busyPause)
		block = -1 // not at all
	}
	rctx, cancel := context.WithTimeout(ctx, jobBlock+2*time.Second)
	defer cancel()
	reply, err := s.cfg.Redis.XReadGroup(rctx, &redis.XReadGroupArgs{
		Group: jobs.Group, Consumer: consumer, Streams: []string{jobs.Stream, ">"},
		Count: 1, Block: block, NoAck: true,
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
