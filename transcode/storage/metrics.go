package storage

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics counts what storage does.
type metrics struct {
	spoolBytes, spoolFiles, spoolMemory prometheus.Gauge
	spoolErrors                         prometheus.Counter
	spoolDropped                        *prometheus.CounterVec // reason
	uploads                             *prometheus.CounterVec // result: ok, error, conflict
	uploadSeconds                       prometheus.Histogram
	uploadBytes                         prometheus.Counter
	indexErrors, indexLost              prometheus.Counter
	indexDropped                        *prometheus.CounterVec // reason
	conflicts                           *prometheus.CounterVec // of: part, object
	refused                             *prometheus.CounterVec // reason
	gaps                                *prometheus.CounterVec // reason
	evicted                             prometheus.Counter
	readers                             prometheus.Gauge
	disconnects                         *prometheus.CounterVec // reason
	sweptBroadcasts, sweptObjects       prometheus.Counter
	sweepErrors                         prometheus.Counter
	keepMetrics
}

// keepMetrics count what bounds the stored media.
type keepMetrics struct {
	free, floor, short, shortened prometheus.Gauge
	stored                        *prometheus.GaugeVec   // kind: running, ended
	deletedObjects, deletedBytes  *prometheus.CounterVec // reason
	keepErrors                    prometheus.Counter
}

func newKeepMetrics(f promauto.Factory) keepMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "millrace_storage_" + name, Help: help})
	}
	vec := func(name, help string) *prometheus.CounterVec {
		v := f.NewCounterVec(prometheus.CounterOpts{Name: "millrace_storage_" + name, Help: help}, []string{"reason"})
		for _, why := range []string{deleteWindow, deleteFloor, deleteQuota, deleteRetention} {
			v.WithLabelValues(why)
		}
		return v
	}
	return keepMetrics{
		free:      gauge("free_bytes", "Bytes that are free on the disk that holds the media, or the spool where S3 is elsewhere."),
		floor:     gauge("floor_bytes", "Bytes that are to stay free on that disk."),
		short:     gauge("short", "1 while new media isn't written to that disk, since too little is free."),
		shortened: gauge("windows_shortened", "Broadcasts of this worker whose DVR window is shorter for want of room."),
		stored: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "millrace_storage_bytes", Help: "Bytes in S3: of the broadcasts that this worker has, and of those that have ended.",
		}, []string{"kind"}),
		deletedObjects: vec("deleted_objects_total", "Objects deleted from S3, by reason."),
		deletedBytes:   vec("deleted_bytes_total", "Bytes deleted from S3, by reason."),
		keepErrors: f.NewCounter(prometheus.CounterOpts{
			Name: "millrace_storage_errors_total", Help: "Attempts at bounding what is stored that failed.",
		}),
	}
}

// deleted counts what was deleted from S3.
func (m *keepMetrics) deleted(why string, objects int, bytes int64) {
	m.deletedObjects.WithLabelValues(why).Add(float64(objects))
	m.deletedBytes.WithLabelValues(why).Add(float64(bytes))
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "millrace_transcode_" + name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "millrace_transcode_" + name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "millrace_transcode_" + name, Help: help})
	}
	m := &metrics{
		spoolBytes:   gauge("spool_bytes", "Bytes in the spool, on their way to S3."),
		spoolFiles:   gauge("spool_files", "Files in the spool."),
		spoolMemory:  gauge("spool_memory_bytes", "Bytes that wait for the spool, or for S3 without it."),
		spoolErrors:  counter("spool_errors_total", "Writes to the spool that failed."),
		spoolDropped: vec("spool_dropped_total", "Objects that were dropped on their way to S3.", "reason"),
		uploads:      vec("uploads_total", "PUT requests to S3 by result.", "result"),
		uploadSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "millrace_transcode_upload_seconds", Help: "Duration of PUT requests to S3.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 25},
		}),
		uploadBytes:     counter("upload_bytes_total", "Bytes put to S3."),
		indexErrors:     counter("index_errors_total", "Writes of index entries to Redis that failed."),
		indexLost:       counter("index_lost_total", "Index entries that Redis lost after it had acknowledged them; they were written again."),
		indexDropped:    vec("index_dropped_total", "Index entries that didn't reach Redis.", "reason"),
		conflicts:       vec("conflicts_total", "Media that was made twice with different bytes. It must stay 0.", "of"),
		refused:         vec("publish_refused_total", "Parts, segments and other entries that were not published.", "reason"),
		gaps:            vec("gaps_total", "Segments that were declared missing.", "reason"),
		evicted:         counter("window_evicted_unsafe_total", "Segments that left the window for want of memory before they were in S3."),
		readers:         gauge("follow_readers", "Readers of follow streams."),
		disconnects:     vec("follow_disconnects_total", "Readers of follow streams that were disconnected.", "reason"),
		sweptBroadcasts: counter("swept_broadcasts_total", "Broadcasts deleted after their retention."),
		sweptObjects:    counter("swept_objects_total", "Objects deleted from S3."),
		sweepErrors:     counter("sweep_errors_total", "Sweeps that failed."),
	}
	m.keepMetrics = newKeepMetrics(f)
	// From 0 on: an alert on an increase doesn't see a counter that appears with 1.
	drops := []string{dropFull, dropDisk, dropMemory, dropDamaged, dropExpired, dropShutdown}
	for vec, values := range map[*prometheus.CounterVec][]string{
		m.spoolDropped: drops, m.gaps: append([]string{"not made", "late"}, drops...), m.conflicts: {"part", "object"},
		m.uploads: {"ok", "conflict", "error"}, m.indexDropped: {"not encodable", "queue full", dropShutdown},
	} {
		for _, v := range values {
			vec.WithLabelValues(v)
		}
	}
	return m
}
