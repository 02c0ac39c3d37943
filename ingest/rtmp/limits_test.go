package rtmp

import (
	"testing"
	"testing/synctest"
	"time"
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
		f := serveRTMP(t, &stage{}, Config{MaxConnectionsPerAddress: 500}, l)
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

// Connections that don't publish make room for new ones, the oldest first; those that publish stay.
func TestRTMPMakesRoom(t *testing.T) {
	f := serveRTMP(t, &stage{}, Config{MaxConnections: 4}, nil)
	publisher := dialRaw(t, f.address)
	publisher.publish()
	idle := []*rawEncoder{dialRaw(t, f.address), dialRaw(t, f.address), dialRaw(t, f.address)}
	late := dialRaw(t, f.address)
	late.publish()
	idle[0].gone()
	publisher.send(chunk(0, 2, 0, 6, typeUserControl, "\x00\x06abcd"))
	publisher.expect(typeUserControl, "\x00\x07abcd")
	for _, e := range idle[1:] {
		e.send(command("connect", 1.0, amfProperties{{"app", "live"}}))
		e.expect(typeCommandAMF0, "NetConnection.Connect.Success")
	}
	if n := f.metric(t, "millrace_ingest_connections_refused_total", "made_room"); n != 1 {
		t.Errorf("%v made room", n)
	}
}
