//go:build hostile

package hostile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"millrace/e2e/harness"
)

// encoder connects from a stranger's address and shakes hands.
func (a *attack) encoder(from string) (*harness.Encoder, error) {
	conn, err := a.dial(a.t.Context(), from, a.server.RTMP)
	if err != nil {
		return nil, err
	}
	return harness.ShakeHands(conn)
}

// publisher is an encoder that publishes with a key.
func (a *attack) publisher(from, key string) (*harness.Encoder, error) {
	e, err := a.encoder(from)
	if err != nil {
		return nil, err
	}
	if err := e.Publish(key); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// tag is one of an FLV file.
type tag struct {
	kind byte
	at   uint32
	body []byte
}

// tags reads a clip's tags, all but metadata.
func tags(t testing.TB, clip harness.Clip) []tag {
	t.Helper()
	data, err := os.ReadFile(clip.File(t))
	if err != nil {
		t.Fatal(err)
	}
	var list []tag
	for data = data[9+4:]; len(data) > 11; {
		size := int(data[1])<<16 | int(data[2])<<8 | int(data[3])
		at := uint32(data[7])<<24 | uint32(data[4])<<16 | uint32(data[5])<<8 | uint32(data[6])
		if data[0] != 18 {
			list = append(list, tag{data[0], at, bytes.Clone(data[11 : 11+size])})
		}
		data = data[min(11+size+4, len(data)):]
	}
	return list
}

// send sends tags, with times from a start on, as fast as their times say; speed
// divides these.
func send(e *harness.Encoder, list []tag, from uint32, speed float64, stop <-chan struct{}) error {
	began := time.Now()
	for _, x := range list {
		at := time.Duration(float64(x.at) / speed * float64(time.Millisecond))
		if wait := time.Until(began.Add(at)); wait > time.Millisecond {
			if err := e.Flush(); err != nil {
				return err
			}
			select {
			case <-stop:
				return nil
			case <-e.Gone:
				return errors.New("the server hung up")
			case <-time.After(wait):
			}
		}
		put := e.Video
		if x.kind == 8 {
			put = e.Audio
		}
		if err := put(from+uint32(at.Milliseconds()), x.body); err != nil {
			return err
		}
	}
	return e.Flush()
}

// command runs millrace channel.
func (a *attack) command(args ...string) (string, error) {
	out, err := exec.CommandContext(a.t.Context(), harness.Binary(), append(append([]string{"channel"}, args...), "--data", a.server.Data)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("channel %s: %w: %s", args[0], err, out)
	}
	return harness.LastLines(string(out), 1), nil
}

// loudChannel has a publisher that sends pictures of no sense.
type loudChannel struct {
	name string
	e    *harness.Encoder
	quit chan struct{}
	done sync.WaitGroup
}

// The loud channel's pictures: 60 Mb/s, below the limit of a connection.
const (
	loudRate = 60_000_000
	loudFPS  = 30
)

// publishLoud publishes on a channel of its own until it is stopped.
func publishLoud(t testing.TB, s *harness.Server, name string) *loudChannel {
	t.Helper()
	e, err := harness.DialEncoder(s.RTMP)
	if err == nil {
		err = e.Publish(s.Channel(name))
	}
	if err != nil {
		t.Fatal(err)
	}
	x := &loudChannel{name: name, e: e, quit: make(chan struct{})}
	x.done.Go(func() {
		picture := bytes.Repeat([]byte{0x5a, 0xc3, 0x97}, loudRate/8/loudFPS/3)
		_ = e.Video(0, append([]byte{0x17, 0, 0, 0, 0}, harness.AVCRecord...))
		began := time.Now()
		for n := 0; ; n++ {
			if err := e.Video(uint32(n*1000/loudFPS), slice(n%(2*loudFPS) == 0, picture)); err != nil {
				return
			}
			_ = e.Flush() // the next write says it
			select {
			case <-x.quit:
				return
			case <-time.After(time.Until(began.Add(time.Duration(n) * time.Second / loudFPS))):
			}
		}
	})
	return x
}

// slice is the body of a video tag with one picture: a slice header, and then data.
func slice(keyframe bool, data []byte) []byte {
	head := []byte{0x27, 1, 0, 0, 0, 0, 0, 0, 0, 0x41, 0x9a, 0x24}
	if keyframe {
		head = []byte{0x17, 1, 0, 0, 0, 0, 0, 0, 0, 0x65, 0x88, 0x84}
	}
	binary.BigEndian.PutUint32(head[5:], uint32(len(data)+3))
	return append(head, data...)
}

// stop ends it.
func (x *loudChannel) stop() {
	close(x.quit)
	x.e.Close()
	x.done.Wait()
}
