//go:build chaos

package chaos

import (
	"context"
	"fmt"
	"testing"
	"time"

	"millrace/e2e/ertmp"
	"millrace/e2e/harness"
)

// publisher is an encoder that publishes: an ffmpeg, or one that speaks Enhanced RTMP.
type publisher interface {
	Running() bool
	// Wait waits for the end; how long, at most.
	Wait(limit time.Duration) error
	// End stops cleanly.
	End()
	// Kill breaks the connection.
	Kill()
}

// What Debian's ffmpeg can encode, and can't publish. It begins again every ten seconds.
var (
	hevcClip = harness.Clip{
		Name: "chaos-hevc", Seconds: "10", Size: "640x360", Rate: "30", Audio: harness.Stereo, MP4: true,
		Encoder: []string{"-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params", "log-level=error:keyint=60:min-keyint=60:scenecut=0:open-gop=0:bframes=3"},
	}
	av1Clip = harness.Clip{
		Name: "chaos-av1", Seconds: "10", Size: "640x360", Rate: "30", Audio: harness.Stereo, MP4: true,
		Encoder: []string{"-c:v", "libsvtav1", "-preset", "12", "-g", "60"},
	}
)

// enhancedLength outlasts a row.
const enhancedLength = 10 * time.Minute

// enhanced is a publisher of this process.
type enhanced struct {
	encoder *harness.Encoder
	stop    context.CancelFunc
	done    chan struct{}
	err     error // set before done is closed
}

// publishEnhanced publishes a clip over and over, by Enhanced RTMP.
func publishEnhanced(t testing.TB, address, key string, clip harness.Clip) publisher {
	t.Helper()
	source, err := ertmp.Read(clip.File(t))
	if err != nil {
		t.Fatal(err)
	}
	encoder, err := harness.DialEncoder(address)
	if err != nil {
		t.Fatal(err)
	}
	if err := encoder.Publish(key); err != nil {
		encoder.Close()
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &enhanced{encoder: encoder, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = source.Publish(ctx, encoder, ertmp.Options{Form: ertmp.Form{Metadata: true}, Length: enhancedLength})
	}()
	t.Cleanup(p.Kill)
	return p
}

func (p *enhanced) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *enhanced) Wait(limit time.Duration) error {
	select {
	case <-p.done:
		return p.err
	case <-time.After(limit):
		return fmt.Errorf("the encoder hasn't ended after %s", limit)
	}
}

func (p *enhanced) End() {
	p.stop()
	<-p.done
	_ = p.encoder.End() // it may have hung up
}

func (p *enhanced) Kill() {
	p.stop()
	p.encoder.Close()
	<-p.done
}
