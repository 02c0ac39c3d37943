package encode

import (
	"context"
	"strings"
	"time"

	"millrace/internal/flv"
	"millrace/internal/matroska"
	"millrace/internal/media"
)

// What sound is encoded to: every player can play it.
const (
	soundRate    = 48000
	soundBitrate = "160k"
)

// soundCodec is that of what is encoded.
var soundCodec = media.StereoAAC()

// soundArgs are FFmpeg's arguments for sound of any format in as Matroska and
// AAC-LC out as FLV. Losses are filled with silence.
func soundArgs() []string {
	return strings.Fields("-hide_banner -nostats -loglevel error -nostdin -protocol_whitelist pipe" +
		" -probesize 32 -analyzeduration 0 -threads 1 -copyts -f matroska -i pipe:0" +
		" -filter_threads 1 -map 0:a -af aresample=async=1 -c:a aac -ar 48000 -ac 2 -b:a " + soundBitrate +
		" -map_metadata -1 -fflags +bitexact -f flv -flvflags no_duration_filesize+no_sequence_end+no_metadata" +
		" -avoid_negative_ts disabled -flush_packets 1 -muxdelay 0 -muxpreload 0 pipe:3")
}

// soundLead keeps the first timestamps that the encoder writes above 0: its
// first frame begins before the first sample.
const soundLead = media.VideoTimescale

// soundEncoder is the process that encodes a broadcast's sound. It runs for
// as long as the worker does: encoding that starts afresh would click. So this
// rendition, alone, has other bytes when another worker makes it.
type soundEncoder struct {
	*process
	base     media.Ticks // of the first frame fed, and soundLead before it
	newest   media.Ticks // of the frames fed
	fed      bool
	answered bool
	watchdog watchdog
}

// soundFrame is one encoded frame at its place on the grid of soundRate.
type soundFrame struct {
	encoder *soundEncoder
	at      media.Ticks // as the encoder says, to the millisecond
	payload []byte
	exit    *exit
}

// startSound starts an encoder for sound of configuration c.
func (f *FFmpeg) startSound(ctx context.Context, c *media.Codec, out chan<- soundFrame) (*soundEncoder, error) {
	p, readers, err := f.start(ctx, soundArgs(), 1, limited(soundMemory))
	if err != nil {
		return nil, err
	}
	e := &soundEncoder{process: p}
	e.put(matroska.Header(c))
	send := func(s soundFrame) bool {
		s.encoder = e
		select {
		case out <- s:
			return true
		case <-ctx.Done():
			return false
		}
	}
	e.running.Go(func() {
		if r := readers[0]; flv.ReadHeader(r) == nil {
			for {
				t, err := flv.ReadTag(r)
				if err != nil {
					break
				}
				a, err := flv.ParseAudio(t.Payload)
				if t.Type != flv.TagAudio || err != nil || a.Kind != flv.Frame {
					continue
				}
				if !send(soundFrame{at: media.Ticks(t.Timestamp) * media.TicksPerMillisecond, payload: a.Data}) {
					break
				}
			}
		}
		closeAll(readers)
		x := e.wait()
		send(soundFrame{exit: &x})
		e.stop(nil)
	})
	return e, nil
}

// frame gives one frame of the source to the encoder.
func (e *soundEncoder) frame(u *media.Unit) {
	if !e.fed {
		e.fed, e.base = true, u.DTS-soundLead
	}
	e.newest = u.DTS
	e.watchdog.fed(time.Now())
	e.put(matroska.AppendUnit(make([]byte, 0, len(u.Payload)+matroska.Overhead), max(0, u.DTS-e.base), true, u.Payload))
}

// soundGrid returns the first place that isn't before t.
func soundGrid(t media.Ticks) media.Samples {
	return soundCodec.Grid(0).AtOrAfter(t)
}
