package edge

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/edge/fold"
	"millrace/edge/fold/foldtest"
	"millrace/edge/playlist"
	"millrace/internal/index"
)

func benchView(b *testing.B, segments int) (*foldtest.Script, *view) {
	b.Helper()
	return viewOf(b, fmt.Sprintf("window 600\nbegin\nbroadcast\nwhole source 0 %d\nwhole audio 0 %d\npart source %d 0 independent", segments-1, segments-1, segments))
}

// BenchmarkRender renders a playlist of 10 minutes.
func BenchmarkRender(b *testing.B) {
	_, v := benchView(b, 300)
	r := v.rendition("source")
	for name, skip := range map[string]playlist.Skip{"whole": playlist.SkipNone, "delta": playlist.SkipYes} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var text []byte
			for b.Loop() {
				text = r.Append(text[:0], skip, nil)
			}
			b.ReportMetric(float64(len(text)), "bytes")
		})
		b.Run(name+"_gzip", func(b *testing.B) {
			text := r.Append(nil, skip, nil)
			var zipped []byte
			for b.Loop() {
				zipped = compress(text)
			}
			b.ReportMetric(float64(len(zipped)), "bytes")
		})
	}
}

// BenchmarkApply folds one part into a broadcast of 10 minutes and publishes it.
func BenchmarkApply(b *testing.B) {
	s, v := benchView(b, 300)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++ // the open segment has part 0
		e := s.Entry(strings.Fields(fmt.Sprintf("part source %d %d", 300+n/partsEach, n%partsEach)))
		line := []index.Entry{e}
		if n%partsEach == partsEach-1 {
			line = append(line, s.Entry(strings.Fields(fmt.Sprintf("segment source %d parts=%d", e.Sequence, partsEach))))
		}
		v.update(func(f *fold.Fold) { f.Apply(line) })
	}
}

// discardWriter is a ResponseWriter that keeps nothing.
type discardWriter struct{ header http.Header }

func (w *discardWriter) Header() http.Header         { return w.header }
func (w *discardWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *discardWriter) WriteHeader(int)             {}

// benchServe asks for a path below the broadcast, or for the multivariant playlist.
// Each run has a stage of its own: one on which nothing new comes is paused after 3 s.
func benchServe(b *testing.B, name string) {
	st := newStage(b)
	path := "/hls/demo/index.m3u8"
	st.want(200, path)
	if name != "" {
		path = st.media(name)
	}
	h := st.service.Handler()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Accept-Encoding", "gzip")
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			h.ServeHTTP(&discardWriter{http.Header{}}, r)
		}
	})
}

// BenchmarkServe answers from memory, without a network.
func BenchmarkServe(b *testing.B) {
	b.Run("multivariant", func(b *testing.B) { benchServe(b, "") })
	b.Run("playlist", func(b *testing.B) { benchServe(b, "source/index.m3u8") })
	b.Run("part", func(b *testing.B) { benchServe(b, "source/7.1.0.p1.m4s") })
}

// BenchmarkWake wakes 10,000 requests that wait for one part, and measures the
// time until the last has its answer.
func BenchmarkWake(b *testing.B) {
	const viewersWaiting = 10_000
	st := newStage(b)
	st.want(200, "/hls/demo/index.m3u8")
	h := st.service.Handler()
	sequence, part := uint64(2), 1
	var total time.Duration
	for b.Loop() {
		var group sync.WaitGroup
		path := st.media(fmt.Sprintf("source/index.m3u8?_HLS_msn=%d&_HLS_part=%d", sequence, part))
		for i := range viewersWaiting {
			group.Go(func() {
				r := httptest.NewRequest(http.MethodGet, path, nil).WithContext(context.Background())
				r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1234", i%100)
				r.Header.Set("Accept-Encoding", "gzip")
				h.ServeHTTP(&discardWriter{http.Header{}}, r)
			})
		}
		st.waiting(viewersWaiting)
		start := time.Now()
		st.worker.part(st.epoch, sequence, part)
		group.Wait()
		total += time.Since(start)
		if part++; part == partsEach {
			sequence, part = sequence+1, 0
		}
	}
	b.ReportMetric(float64(total.Milliseconds())/float64(b.N), "ms/wake")
}
