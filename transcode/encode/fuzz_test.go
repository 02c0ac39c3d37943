package encode

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/transcode/logread"
)

// relayBytes is a short relay: settings, configurations, two segments, the end.
func relayBytes(f *testing.F, broken bool) []byte {
	b := relay.Header()
	add := func(e relay.Entry) {
		var err error
		if b, err = e.Append(b); err != nil {
			f.Fatal(err)
		}
	}
	started := time.Unix(1_800_000_000, 0).UTC()
	record := []byte{1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 10, 0x67, 0x42, 0xc0, 0x1e, 0xda, 0x05, 0x82, 0x59, 0x10, 0x08, 1, 0, 4, 0x68, 0xce, 0x38, 0x80}
	config, err := media.ParseCodec(media.H264, record)
	if err != nil {
		f.Fatal(err)
	}
	add(relay.Entry{Settings: &relay.Settings{
		TargetDuration: 4, PartTarget: 40000, PartDuration: 30000, PartHoldBack: 120000,
		Video: true, Audio: true, FrameRate: 30, FrameStep: 1, Started: started,
	}})
	add(relay.Entry{Codec: config})
	add(relay.Entry{Codec: media.StereoAAC()})
	for i := range 60 {
		at := media.Ticks(900_000 + i*3000)
		if i%30 == 0 {
			m := relay.Mark{Kind: relay.Open, Epoch: 1, Sequence: uint64(i / 30), DecodeFrom: uint64(i / 30), Start: at, AudioStart: media.SamplesOf(at, 48000), Time: started}
			if broken {
				m.Discontinuity, m.Start = uint64(i/30), at+media.Ticks(i*5000)
			}
			add(relay.Entry{Mark: &m})
		}
		u := media.Unit{Track: media.Video, DTS: at, PTS: at, RandomAccess: i%30 == 0, Payload: []byte{0, 0, 0, 2, 0x65, byte(i)}}
		if !u.RandomAccess {
			u.Payload[4] = 0x41
		}
		add(relay.Entry{Unit: &u})
		add(relay.Entry{Unit: &media.Unit{Track: media.Audio, DTS: at, PTS: at, RandomAccess: true, Payload: []byte{0x21, byte(i)}}})
	}
	add(relay.Entry{Mark: &relay.Mark{Kind: relay.End, Epoch: 1, Sequence: 2, DecodeFrom: 2, Start: 900_000 + 180_000, Time: started}})
	return b
}

// FuzzRelay has a worker work on any relay, without FFmpeg: it ends with an error or in good
// order, and what it publishes is in order.
func FuzzRelay(f *testing.F) {
	whole := relayBytes(f, false)
	f.Add(whole, uint64(0))
	f.Add(whole[:len(whole)*2/3], uint64(1))
	f.Add(relayBytes(f, true), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, from uint64) {
		l, err := logread.NewReader(io.NopCloser(bytes.NewReader(b)))
		if err != nil {
			return
		}
		out := &orderly{t: t, next: map[string]place{}}
		spending := NewBudget(0, 0)
		w := New(Config{
			Grant:  jobs.Grant{Epoch: jobs.Epoch{Lease: 1, Grant: 1}, Live: from, Backfill: from},
			FFmpeg: &FFmpeg{}, Budget: spending, Publish: out,
			Metrics: NewMetrics(prometheus.NewRegistry(), spending), Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err = w.Run(ctx, l.Run)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Error("the worker hangs")
		}
	})
}

// place is where a rendition is: the next part of a segment.
type place struct {
	sequence uint64
	part     int
}

// orderly checks the order of what is published.
type orderly struct {
	t    *testing.T
	next map[string]place
}

func (o *orderly) Broadcast(index.Broadcast)             {}
func (o *orderly) Init(string, *media.Init, index.Entry) {}
func (o *orderly) Gap(index.Entry)                       {}
func (o *orderly) Pause(uint64, string)                  {}
func (o *orderly) End(uint64, string)                    {}
func (o *orderly) Thumbnail([]byte)                      {}
func (o *orderly) Part(e index.Entry, data []byte) error {
	if e.Size != len(data) || e.Duration < 0 || e.Part < 0 {
		o.t.Errorf("part %+v has %d bytes", e, len(data))
	}
	at := o.next[e.Rendition]
	if e.Sequence == at.sequence && e.Part != at.part && at.part != 0 {
		o.t.Errorf("%s: part %d.%d came where %d.%d was due", e.Rendition, e.Sequence, e.Part, at.sequence, at.part)
	}
	o.next[e.Rendition] = place{e.Sequence, e.Part + 1}
	return nil
}

func (o *orderly) Finish(last index.Entry, data []byte, segment index.Entry) error {
	if len(data) > 0 {
		return o.Part(last, data)
	}
	return nil
}
