package transcode

import (
	"time"

	"millrace/transcode/storage"
)

// enter notes what this worker has. Of the same lease it has one thing only:
// an earlier grant was given up by ingest.
func (s *Service) enter(a *assignment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, old := range s.assignments[a.job.Broadcast] {
		if old.grant.Epoch.Lease == a.grant.Epoch.Lease {
			old.cancel(errSuperseded)
		}
	}
	s.assignments[a.job.Broadcast] = append(s.assignments[a.job.Broadcast], a)
}

// leave notes that a is over. What it answered to /close can be asked for a
// while longer.
func (s *Service) leave(a *assignment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(a.gone)
	for id, all := range s.assignments {
		kept := all[:0]
		for _, old := range all {
			if !old.over() || old.closedWithin(storage.ForgetAfter) {
				kept = append(kept, old)
			}
		}
		if s.assignments[id] = kept; len(kept) == 0 {
			delete(s.assignments, id)
		}
	}
}

// current returns what this worker has now.
func (s *Service) current() (all []*assignment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, list := range s.assignments {
		for _, a := range list {
			if !a.over() {
				all = append(all, a)
			}
		}
	}
	return all
}

// newest returns the newest grant of a broadcast that this worker has, or had
// lately; nil when there is none.
func (s *Service) newest(broadcast string) *assignment {
	s.mu.Lock()
	defer s.mu.Unlock()
	var newest *assignment
	for _, a := range s.assignments[broadcast] {
		if newest == nil || newest.grant.Epoch.Less(a.grant.Epoch) {
			newest = a
		}
	}
	return newest
}

// closedWithin reports whether the open segment was closed short so lately.
func (a *assignment) closedWithin(d time.Duration) bool {
	a.closing.Lock()
	defer a.closing.Unlock()
	return a.handoff != nil && time.Since(a.closed) < d
}
