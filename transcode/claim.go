package transcode

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"millrace/internal/jobs"
	"millrace/internal/seal"
	"millrace/transcode/encode"
)

// maxClaimLine bounds one line of a claim's answer.
const maxClaimLine = 4 << 10

// errNotGranted means that somebody else has the slot, or the broadcast is over.
var errNotGranted = errors.New("not granted")

// claim is an open claim at an ingest.
type claim struct {
	grant  jobs.Grant
	client *http.Client
	up     *io.PipeWriter
	body   io.ReadCloser
	lines  *bufio.Scanner
	once   sync.Once
}

// ingestOf returns the base URL of the ingest that offers a job.
func (s *Service) ingestOf(job jobs.Job) (string, error) {
	return s.cfg.Peers.Open(seal.Ingest, job.Channel, job.Ingest)
}

// claim asks for a slot. The claim has a connection of its own: its end is
// seen at once on both sides.
func (s *Service) claim(ctx context.Context, job jobs.Job) (*claim, error) {
	ingest, err := s.ingestOf(job)
	if err != nil {
		return nil, fmt.Errorf("%w: claim %s: %w", errNotGranted, job.Broadcast, err)
	}
	r, up := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, ingest+jobs.ClaimPath(job.Broadcast, job.Slot), r)
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", job.Broadcast, err)
	}
	req.Header.Set(jobs.AddressHeader, string(s.cfg.Peers.Self(seal.Worker, job.Broadcast)))
	req.Header.Set(jobs.ProfileHeader, encode.SourceProfile())
	c := &claim{client: s.cfg.Peers.ClaimClient(), up: up}
	resp, err := c.client.Do(req)
	if err != nil {
		c.close()
		return nil, fmt.Errorf("claim %s at %s: %w", job.Broadcast, ingest, err)
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

// next waits for ingest's next order; ok is false when the claim's connection has ended.
func (c *claim) next() (order jobs.Order, ok bool) {
	for c.lines.Scan() {
		order = jobs.Order{}
		if json.Unmarshal(c.lines.Bytes(), &order) == nil {
			return order, true
		}
	}
	return jobs.Order{}, false
}

// report sends progress until ctx ends, and then once more.
func (c *claim) report(ctx context.Context, progress func() jobs.Progress) {
	tick := time.NewTicker(jobs.ProgressInterval)
	defer tick.Stop()
	for last := false; ; {
		line, err := json.Marshal(progress())
		if err != nil {
			return
		}
		if _, err := c.up.Write(append(line, '\n')); err != nil || last {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			last = true
		}
	}
}

// letGo says that nothing more is reported. Ingest then ends its answer.
func (c *claim) letGo() { _ = c.up.Close() }

// close ends the claim. It may be called more than once.
func (c *claim) close() {
	c.once.Do(func() {
		_ = c.up.CloseWithError(io.EOF)
		if c.body != nil {
			_ = c.body.Close()
		}
		c.client.CloseIdleConnections()
	})
}
