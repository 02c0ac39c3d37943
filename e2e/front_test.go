package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"millrace/e2e/harness"
	"millrace/e2e/hls"
	"millrace/edge"
	"millrace/ingest"
	"millrace/ingest/front"
	"millrace/internal/credentials"
	"millrace/internal/flv"
	"millrace/internal/media"
	"millrace/internal/private"
	"millrace/internal/testenv"
	"millrace/transcode"
)

// A front that knows nothing but ingest/front, and no protocol at all, publishes
// a broadcast that plays: what it wrote comes out, frame by frame.
func TestFrontWithoutAProtocol(t *testing.T) {
	t.Parallel()
	clip := harness.Clip{Name: "front", Seconds: "12", Size: "320x180", Rate: "30", Video: []string{"-g", "60", "-bf", "2"}, Audio: harness.Stereo}
	input := clip.File(t)
	key := credentials.NewStreamKey()
	publishers, address := startServices(t, key)
	var ended sync.WaitGroup
	defer ended.Wait()
	pub, err := publishers.Publish(t.Context(), front.Request{
		Key: key.Reveal(), Remote: "192.0.2.1:1", Encoder: "a test's",
		End: func(r front.Refusal) { t.Logf("ended: %s", r.Text) }, // when the broadcast is over
	})
	if err != nil {
		t.Fatal(err)
	}
	ended.Go(func() { publish(t, pub, input) })
	r := hls.Follow(t, address+"/hls/front/index.m3u8", false)
	r.Wait(time.Minute)
	if want := []string{"160p30", "audio", "source"}; !slices.Equal(r.Names(), want) {
		t.Fatalf("renditions %q, want %q", r.Names(), want)
	}
	r.Verify()
	hls.CheckCarried(t, r.Rendition("source"), input, "v")
	hls.CheckCarried(t, r.Rendition("audio"), input, "a")
	hls.CheckRung(t, r.Rendition("160p30"), r.Rendition("source"))
}

// startServices starts ingest, a worker and an edge in this process, with a
// channel "front" of a stream key. It returns what a front needs, and the edge's
// address.
func startServices(t *testing.T, key credentials.StreamKey) (front.Publishers, string) {
	t.Helper()
	db, bucket := testenv.Redis(t), testenv.Bucket(t)
	if err := credentials.Replace(t.Context(), db, credentials.Catalogue{Version: 1, Channels: []credentials.Channel{{Name: "front", KeyHash: key.Hash()}}}); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	run := func(name string, run func(context.Context) error) {
		running.Go(func() {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	serve := func(l net.Listener, routes func(*http.ServeMux)) {
		mux := http.NewServeMux()
		routes(mux)
		s := private.NewServer(testenv.Peers(t, "http://"+l.Addr().String()).Guard(mux))
		running.Go(func() { _ = s.Serve(l) }) // until it is closed
		t.Cleanup(func() { _ = s.Close() })
	}
	t.Cleanup(running.Wait)

	ingestAt, workerAt := listen(), listen()
	i, err := ingest.New(ingest.Config{
		Redis: db, RTMP: listen(), Peers: testenv.Peers(t, "http://"+ingestAt.Addr().String()), Grace: time.Second,
		Log: log, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	w, err := transcode.New(transcode.Config{
		Redis: db, Bucket: bucket, Peers: testenv.Peers(t, "http://"+workerAt.Addr().String()), SpoolDir: t.TempDir(),
		FFmpeg: testenv.FFmpeg(t), Preset: "ultrafast", Ladder: "160p30=230k", Log: log, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	e, err := edge.New(edge.Config{ID: "edge", Peers: testenv.Peers(t, ""), Redis: db, Bucket: bucket, Log: log, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	serve(ingestAt, i.Private)
	serve(workerAt, w.Private)
	viewers := httptest.NewServer(e.Handler())
	t.Cleanup(viewers.Close)
	run("ingest", i.Run)
	run("transcode", w.Run)
	run("edge", e.Run)
	t.Cleanup(stop)
	return i, viewers.URL
}

// publish writes the units of an FLV file at their times.
func publish(t *testing.T, pub front.Publication, path string) {
	defer pub.End(true)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	in := bytes.NewReader(file)
	if err := flv.ReadHeader(in); err != nil {
		t.Error(err)
		return
	}
	codecs := map[media.Kind]*media.Codec{}
	for began := time.Now(); ; {
		tag, err := flv.ReadTag(in)
		if errors.Is(err, io.EOF) {
			return
		}
		at := time.Duration(tag.Timestamp) * time.Millisecond
		var u media.Unit
		var config bool
		var format media.Format
		switch {
		case err != nil:
		case tag.Type == flv.TagVideo:
			var v flv.Video
			v, err = flv.ParseVideo(tag.Payload)
			u = media.Unit{Track: media.Video, DTS: media.TicksOf(at), Payload: v.Data}
			u.PTS = u.DTS + v.Composition
			config, format = v.Kind == flv.Config, v.Format
		case tag.Type == flv.TagAudio:
			var a flv.Audio
			a, err = flv.ParseAudio(tag.Payload)
			u = media.Unit{Track: media.Audio, DTS: media.TicksOf(at), PTS: media.TicksOf(at), Payload: a.Data}
			config, format = a.Kind == flv.Config, a.Format
		}
		switch {
		case err != nil || len(u.Payload) == 0:
		case config:
			if codecs[u.Track], err = media.ParseCodec(format, u.Payload); err == nil {
				err = pub.Config(codecs[u.Track])
			}
		default:
			time.Sleep(time.Until(began.Add(at)))
			if u.RandomAccess, err = codecs[u.Track].RandomAccess(u.Payload); err == nil {
				err = pub.Write(u)
			}
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}
