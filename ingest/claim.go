package ingest

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"millrace/internal/jobs"
	"millrace/internal/seal"
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
	address := seal.Address(r.Header.Get(jobs.AddressHeader))
	if _, err := s.cfg.Peers.Open(seal.Worker, b.id, address); err != nil {
		http.Error(w, jobs.AddressHeader+" must be the worker's address for this broadcast, signed", http.StatusBadRequest)
		return
	}
	c, orders, grant, err := b.grant(n, address, time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	defer func() {
		if b.release(n, c, time.Now()) {
			s.metrics.claimsLost.WithLabelValues("closed").Inc()
		}
	}()
	b.logger.Info("worker has the broadcast", "slot", n, "worker", address, "grant", c.epoch.Grant, "live", grant.Live, "backfill", grant.Backfill)

	line := newClaimLine(w)
	if line.say(grant) != nil {
		return
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b.readProgress(n, c, r.Body)
	}()
	for over := false; !over; {
		select {
		case o := <-orders:
			over = line.say(o) != nil || o.End != ""
		case <-read:
			b.logger.Info("worker let go", "slot", n, "worker", address)
			over = true
		case <-b.done:
			// Without a last word when the ingest stops: the worker keeps what
			// it has for whoever goes on with the broadcast.
			for len(orders) > 0 {
				_ = line.say(<-orders)
			}
			over = true
		}
	}
	// End the reader. Closing the body would wait for it, over HTTP/1.1.
	_ = line.control.SetReadDeadline(time.Unix(1, 0))
	<-read
}

// readProgress notes a worker's progress until its connection is over, or says
// what makes no sense.
func (b *broadcast) readProgress(n int, c *claim, body io.Reader) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxProgressLine)
	for lines.Scan() {
		var p jobs.Progress
		if json.Unmarshal(lines.Bytes(), &p) != nil {
			return
		}
		b.report(n, c, p, time.Now())
	}
}

// claimLine is what a worker is told on: one JSON document a line.
type claimLine struct {
	w       io.Writer
	control *http.ResponseController
}

func newClaimLine(w http.ResponseWriter) claimLine {
	l := claimLine{w, http.NewResponseController(w)}
	// HTTP/2 is full duplex anyway; this is for HTTP/1.1.
	_ = l.control.EnableFullDuplex()
	return l
}

func (l claimLine) say(v any) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := l.w.Write(append(doc, '\n')); err != nil {
		return err
	}
	return l.control.Flush()
}
