package room

import "slices"

// writeSize is how much is written to a connection at once, about.
const writeSize = 64 << 10

// worker serves sections, one after the other.
type worker struct {
	hub     *Hub
	batches []*batch // of the section being served

	// Counted in a turn.
	delivered, writes, bytes, skipped [maxFormats]int
}

func (w *worker) run() {
	for {
		s := w.hub.turns.take()
		if s == nil {
			return
		}
		wrote, more := w.serve(s)
		w.count()
		w.hub.turns.done(s, wrote, more)
	}
}

// serve brings the connections of a section to the log's end. It returns to how many something was written, and
// whether there is more for one of them than is written at once.
func (w *worker) serve(s *section) (wrote int, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	head := s.room.log.head.Load()
	for i := range s.places {
		if p := &s.places[i]; p.next != head && w.advance(s.room, p) {
			wrote++
			more = more || p.next < head
		}
	}
	clear(w.batches)
	w.batches = w.batches[:0]
	return wrote, more
}

// advance writes what is new to one connection. It reports whether it did.
func (w *worker) advance(r *Room, p *place) bool {
	c := p.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == open {
		c.flush() // what was sent to it before, while its front was at work
	}
	switch c.state {
	case blocked:
		c.behind = true
		return false
	case closing, closed:
		return false
	}
	f := c.Format()
	b := w.batch(r, c, p.next)
	if b == nil {
		w.skip(r, p)
		return false
	}
	n, err := c.wire.tryWrite(b.bytes)
	if err != nil {
		c.broken()
		return false
	}
	if !c.wire.waits() {
		b = b.until(n)
	}
	p.next = b.to
	w.delivered[f.index] += b.count
	w.bytes[f.index] += n
	if n > 0 {
		w.writes[f.index]++
		c.written = c.hub.now.Load()
	}
	if n == len(b.bytes) {
		if c.late != 0 && b.to == r.log.head.Load() {
			c.late = 0
		}
		return true
	}
	c.behind = b.to != r.log.head.Load()
	rest := b.bytes[n:]
	if !c.wire.waits() {
		rest = slices.Clone(rest) // so that it alone is held, not the batch
	}
	c.block(rest)
	return c.wire.waits() // then a goroutine writes it at once, most likely
}

// skip lets a connection whose place has fallen out of the log go on at the end.
func (w *worker) skip(r *Room, p *place) {
	c := p.conn
	newest, head := r.log.end()
	missed := head - p.next
	p.next = head
	w.skipped[c.Format().index] += int(missed)
	c.write(c.handler.Gap(r, missed, newest))
}

// batch returns what a connection at this place gets: what the last one there got, if it may be shared. It is nil if
// the log no longer holds it.
func (w *worker) batch(r *Room, c *Conn, from uint64) *batch {
	f := c.Format()
	var b *batch
	i := slices.IndexFunc(w.batches, func(b *batch) bool { return b.from == from && b.format == f })
	if i >= 0 {
		b = w.batches[i]
	} else {
		var ok bool
		b, ok = r.log.take(f, from, writeSize)
		if !ok {
			return nil
		}
		w.batches = append(w.batches, b)
	}
	if f.Each == nil && !slices.Contains(b.origins, c.id) {
		return b
	}
	return r.log.own(c, b)
}

// count tells the metrics what a turn did.
func (w *worker) count() {
	for i, f := range w.hub.Formats {
		if w.delivered[i] > 0 || w.skipped[i] > 0 || w.writes[i] > 0 {
			f.metrics.delivered.Add(float64(w.delivered[i]))
			f.metrics.skipped.Add(float64(w.skipped[i]))
			w.hub.metrics.writes.Add(float64(w.writes[i]))
			w.hub.metrics.bytes.Add(float64(w.bytes[i]))
		}
	}
	w.delivered, w.writes, w.bytes, w.skipped = [maxFormats]int{}, [maxFormats]int{}, [maxFormats]int{}, [maxFormats]int{}
}
