package edge

import (
	"fmt"
	"strings"
	"testing"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/lease"
)

func TestEnd(t *testing.T) {
	t.Parallel() // it waits more than it computes
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	for part := 1; part < partsEach; part++ {
		st.worker.part(st.epoch, 2, part)
	}
	done := make(chan answer, 1)
	go func() {
		a, err := st.fetch(t.Context(), st.media("source/index.m3u8?_HLS_msn=3&_HLS_part=0"))
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	st.waiting(1)
	st.worker.say(index.Entry{Type: index.TypeEnd, Writer: st.epoch, Sequence: 3})
	if a := <-done; a.status != 200 || !strings.Contains(a.body, "#EXT-X-ENDLIST") || strings.Contains(a.body, "PRELOAD-HINT") {
		t.Errorf("%d\n%s", a.status, a.body)
	}
	st.setState(lease.Ended)
	a := st.until("/hls/demo/index.m3u8", func(a answer) bool { return a.status == 404 })
	if code(t, a) != "not_live" {
		t.Errorf("%s", a.body)
	}
	st.want(200, st.media("source/index.m3u8?_HLS_msn=9&_HLS_part=4&_HLS_skip=YES"))
	st.want(200, st.media("source/7.2.p1.m4s"))

	// The next broadcast has the channel; the old one stays where it is.
	st.broadcast, st.epoch = "b2", jobs.Epoch{Lease: 2, Grant: 1}
	st.goLive()
	next := newFakeWorker(t, "b2")
	next.begin(st.epoch)
	next.part(st.epoch, 0, 0)
	st.slot(0, next)
	st.until("/hls/demo/index.m3u8", func(a answer) bool { return a.status == 200 && strings.Contains(a.body, "b2/source") })
	st.want(200, "/hls/demo/b1/source/index.m3u8")
}

func TestEndWithoutWord(t *testing.T) {
	t.Parallel() // it waits more than it computes
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	st.worker.kill()
	st.setState(lease.Ended)
	a := st.until(st.media("source/index.m3u8"), func(a answer) bool { return strings.Contains(a.body, "#EXT-X-ENDLIST") })
	if !strings.Contains(a.body, "7.2.p1.m4s") {
		t.Errorf("what was open is gone\n%s", a.body)
	}
}

func TestPauseReleasesWaiters(t *testing.T) {
	t.Parallel() // it waits more than it computes
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	for part := 1; part < partsEach; part++ {
		st.worker.part(st.epoch, 2, part)
	}
	st.worker.say(index.Entry{Type: index.TypePause, Writer: st.epoch})
	st.until(st.media("source/index.m3u8"), func(a answer) bool { return !strings.Contains(a.body, "PRELOAD-HINT") })
	a := st.want(200, st.media("source/index.m3u8?_HLS_msn=3&_HLS_part=0"))
	if a.header.Get("Cache-Control") != "no-store" || strings.Contains(a.body, "7.3.") {
		t.Errorf("%v\n%s", a.header, a.body)
	}
	done := make(chan answer, 1)
	go func() {
		a, err := st.fetch(t.Context(), st.media("source/index.m3u8?_HLS_msn=3&_HLS_part=0"))
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	st.waiting(1)
	st.worker.part(st.epoch, 3, 0)
	if a := <-done; !strings.Contains(a.body, "7.3.0.") {
		t.Errorf("%s", a.body)
	}
}

// A player that asks without directives in a pause is told of the first new
// media of its own rendition: another one's, which ends the pause, is no news to it.
func TestPauseHoldsPlainReloads(t *testing.T) {
	t.Parallel() // it waits more than it computes
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	for part := 1; part < partsEach; part++ {
		st.worker.part(st.epoch, 2, part)
	}
	st.worker.say(index.Entry{Type: index.TypePause, Writer: st.epoch})
	st.until(st.media("audio/index.m3u8"), func(a answer) bool { return !strings.Contains(a.body, "PRELOAD-HINT") })
	done := make(chan answer, 1)
	go func() {
		a, err := st.fetch(t.Context(), st.media("audio/index.m3u8"))
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	st.waiting(1)
	st.worker.partOf("source", st.epoch, 3, 0)
	has := func(a answer) bool { // not only as a hint
		return strings.Contains(a.body, `#EXT-X-PRELOAD-HINT:TYPE=PART,URI="7.3.1.`)
	}
	st.until(st.media("source/index.m3u8"), has)
	st.worker.partOf("audio", st.epoch, 3, 0)
	if a := <-done; !has(a) {
		t.Errorf("%s", a.body)
	}
}

// A part that was hinted before a pause is still waited for in it: the publisher
// may be back at once.
func TestPauseKeepsHintedParts(t *testing.T) {
	t.Parallel() // it waits more than it computes
	for name, c := range map[string]struct {
		before         int // parts of segment 2 that come before the pause
		sequence, part uint64
	}{"of the open segment": {1, 2, 1}, "of the next segment": {partsEach, 3, 0}} {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			st.want(200, "/hls/demo/index.m3u8")
			for part := 1; part < c.before; part++ {
				st.worker.part(st.epoch, 2, part)
			}
			hinted := fmt.Sprintf("7.%d.%d.p1.m4s", c.sequence, c.part)
			st.until(st.media("source/index.m3u8"), func(a answer) bool {
				return strings.Contains(a.body, `#EXT-X-PRELOAD-HINT:TYPE=PART,URI="`+hinted)
			})
			st.worker.say(index.Entry{Type: index.TypePause, Writer: st.epoch})
			st.until(st.media("source/index.m3u8"), func(a answer) bool { return !strings.Contains(a.body, "PRELOAD-HINT") })
			done := make(chan answer, 1)
			go func() {
				a, err := st.fetch(t.Context(), st.media("source/"+hinted))
				if err != nil {
					t.Error(err)
				}
				done <- a
			}()
			st.waiting(1)
			st.worker.part(st.epoch, c.sequence, int(c.part))
			if a := <-done; a.status != 200 || a.body != string(partData("source", c.sequence, int(c.part))) {
				t.Errorf("%d %q", a.status, a.body)
			}
		})
	}
}
