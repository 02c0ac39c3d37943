package edge

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/internal/jobs"
	"millrace/internal/lease"
	"millrace/internal/seal"
	"millrace/internal/testenv"
)

// trap counts connections. Nobody of ours may come.
type trap struct {
	net.Listener
	came atomic.Int64
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &trap{Listener: l}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.came.Add(1)
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		group.Wait()
	})
	return p
}

func (p *trap) url() string { return "http://" + p.Addr().String() }

// TestForgedSlot: who can write to Redis makes no edge ask a host of their choice,
// for neither the follow stream nor media, and the broadcast's own workers are
// asked on.
func TestForgedSlot(t *testing.T) {
	t.Parallel() // it waits more than it computes
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	trap := newTrap(t)
	newer := jobs.Epoch{Lease: st.epoch.Lease, Grant: st.epoch.Grant + 1}
	for n, address := range map[int]seal.Address{
		1: seal.Address(trap.url()), // as it stood there once
		2: testenv.Sealed(t, seal.Worker, "another", trap.url()),
		3: testenv.Sealed(t, seal.Ingest, st.broadcast, trap.url()),
		// The signature of a worker of ours before another address.
		4: seal.Address(strings.Replace(string(testenv.Sealed(t, seal.Worker, st.broadcast, st.worker.URL)), st.worker.URL, trap.url(), 1)),
	} {
		if err := lease.SetSlot(t.Context(), st.db, st.broadcast, n, jobs.Slot{Address: address, Epoch: newer}); err != nil {
			t.Fatal(err)
		}
	}
	looks := "millrace_private_addresses_refused_total"
	st.eventually("the forged slots are seen", func() bool { return st.counter(looks, "forged", "worker") >= 8 })
	for part := 1; part < partsEach; part++ {
		st.worker.part(st.epoch, 2, part)
		st.want(200, st.media("source/index.m3u8?_HLS_msn=2&_HLS_part="+strconv.Itoa(part)))
		st.want(200, st.media("source/7.2."+strconv.Itoa(part)+".p1.m4s"))
	}
	if n := trap.came.Load(); n != 0 {
		t.Errorf("%d connections were made to the forged addresses", n)
	}
}

// TestStrangerAtAWorkersAddress: what answers at a worker's address without the
// secret is believed nothing.
func TestStrangerAtAWorkersAddress(t *testing.T) {
	t.Parallel() // it waits more than it computes
	st := newEdge(t)
	st.goLive()
	stranger := newFakeWorker(t, st.broadcast)
	stranger.Config.Handler = stranger.routes // as one that doesn't know the secret: no proof
	stranger.begin(st.epoch)
	stranger.segment(st.epoch, 0)
	st.slot(0, stranger)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var viewer sync.WaitGroup
	defer viewer.Wait()
	viewer.Go(func() {
		if a, err := st.fetch(ctx, "/hls/demo/index.m3u8"); err == nil && a.status == http.StatusOK {
			t.Errorf("its playlist is shown:\n%s", a.body)
		}
	})
	st.eventually("it is asked again and again", func() bool { return st.counter("millrace_private_strangers_total") >= 3 })
	cancel()
}

// TestForgedEdge: players are sent to edges of ours only, and to none that has
// been gone for long.
func TestForgedEdge(t *testing.T) {
	t.Parallel() // it waits more than it computes
	st := newStage(t)
	a, _ := st.neighbour("http://a.example")
	b, _ := st.neighbour("http://b.example")
	a.eventually("both are known", func() bool { return a.metric("edges") == 2 && b.metric("edges") == 2 })
	now := time.Now()
	old := now.Add(-time.Hour)
	for url, said := range map[string]string{
		"http://plain.example":  "",
		"http://time.example":   strconv.FormatInt(now.UnixMilli(), 10) + " http://time.example",
		"http://old.example":    testenv.Peers(t, "").SealAt(seal.Edge, old, "http://old.example"),
		"http://worker.example": testenv.Peers(t, "").SealAt(seal.Worker, now, "http://worker.example"),
		"http://moved.example":  strings.Replace(testenv.Peers(t, "").SealAt(seal.Edge, now, "http://a.example"), "a.example", "moved.example", 1),
	} {
		at := strconv.FormatInt(now.Add(time.Minute).UnixMilli(), 10) // for long
		if err := st.db.HSet(t.Context(), edgesKey, url, at+" "+said).Err(); err != nil {
			t.Fatal(err)
		}
	}
	looks := "millrace_private_addresses_refused_total"
	a.eventually("they are seen", func() bool { return a.counter(looks, "forged", "edge") >= 4 && a.counter(looks, "old", "edge") >= 1 })
	if n := a.metric("edges"); n != 2 {
		t.Errorf("%v edges are known, want 2", n)
	}
	list := a.want(200, "/hls/demo/index.m3u8").body
	manifest, _ := json.Marshal(a.steering(""))
	for _, name := range []string{"plain", "time", "old", "worker", "moved"} {
		if strings.Contains(list, name+".example") || strings.Contains(string(manifest), newPathway("http://"+name+".example").id) {
			t.Errorf("players are sent to %s.example:\n%s\n%s", name, list, manifest)
		}
	}
}
