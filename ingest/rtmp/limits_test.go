package rtmp

import (
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/gate"
)

// An encoder that sends more than is allowed is told so; one that catches up after a stall isn't.
func TestRTMPBitrate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		f := serveRTMP(t, &stage{}, Config{MaxBitrate: 800_000}, l)
		e := newRawEncoder(t, l.dial())
		e.publish()
		if err := e.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		frame := append([]byte{0x27, 1}, make([]byte, 88_000-2)...) // of H.264
		second := appendChunks(nil, 6, rtmpMessage{kind: typeVideo, stream: 1, payload: frame}, 128)
		for range 10 { // nearly at the limit
			e.send(second)
			time.Sleep(time.Second)
		}
		time.Sleep(9 * time.Second)
		for range 9 {
			e.send(second)
		}
		go func() { // it may be ended in the middle
			for range 9 {
				if _, err := e.Write(second); err != nil {
					return
				}
			}
		}()
		e.expect(typeCommandAMF0, "More than 0.8 Mb/s arrive: lower the bitrate")
		e.Close()
		if err := f.stop(); err != nil {
			t.Error(err)
		}
		if n := f.metric(t, "millrace_ingest_connections_refused_total", "bitrate"); n != 1 {
			t.Errorf("%v refused", n)
		}
	})
}

// Who connects too often finds the door shut for a moment.
func TestRTMPTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		f := serveRTMP(t, &stage{}, Config{}, l)
		refused := func(dials int) float64 {
			before := f.metric(t, "millrace_ingest_connections_refused_total", "too_often_from_address")
			for range dials {
				defer l.dial().Close()
			}
			synctest.Wait()
			return f.metric(t, "millrace_ingest_connections_refused_total", "too_often_from_address") - before
		}
		if n := refused(connectBurst + 50); n != 50 {
			t.Errorf("%v of %d are refused at once", n, connectBurst+50)
		}
		time.Sleep(time.Second)
		if n := refused(2 * connectRate); n != connectRate {
			t.Errorf("%v of %d are refused a second later", n, 2*connectRate)
		}
		if err := f.stop(); err != nil {
			t.Error(err)
		}
	})
}

// gated returns a TCP listener behind a gate.
func gated(t *testing.T, cfg gate.Config) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Spare, cfg.Metrics, cfg.Log = true, gate.NewMetrics(nil), slog.New(slog.DiscardHandler)
	return gate.New(cfg).Listen(l, "rtmp")
}

// Behind a gate connections that don't publish make room for new ones, the oldest first; those that
// publish stay, and when all do the new one goes.
func TestRTMPMakesRoom(t *testing.T) {
	for name, cfg := range map[string]gate.Config{"in all": {Total: 4}, "from an address": {Total: 100, PerSource: 4}} {
		t.Run(name, func(t *testing.T) {
			f := serveRTMP(t, &stage{}, Config{}, gated(t, cfg))
			publisher := dialRaw(t, f.address)
			publisher.publish()
			stays := func() {
				t.Helper()
				publisher.send(chunk(0, 2, 0, 6, typeUserControl, "\x00\x06abcd"))
				publisher.expect(typeUserControl, "\x00\x07abcd")
			}
			idle := []*rawEncoder{dialRaw(t, f.address), dialRaw(t, f.address), dialRaw(t, f.address)}
			dialRaw(t, f.address).publish()
			idle[0].gone()
			stays()
			for _, e := range idle[1:] {
				e.publish()
			}
			last, err := net.Dial("tcp", f.address)
			if err != nil {
				t.Fatal(err)
			}
			defer last.Close()
			if n, err := last.Read(make([]byte, 1)); err == nil {
				t.Errorf("read %d bytes of a connection too many", n)
			}
			stays()
			idle[1].send(command("FCUnpublish", 4.0, nil, "s3cret"), command("deleteStream", 5.0, nil, 1.0), command("createStream", 6.0, nil))
			idle[1].expect(typeCommandAMF0, "_result") // it publishes no more
			dialRaw(t, f.address).publish()
			idle[1].gone()
			stays()
		})
	}
}
