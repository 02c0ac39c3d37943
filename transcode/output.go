package transcode

import (
	"errors"

	"millrace/internal/index"
	"millrace/transcode/storage"
)

// liveOutput is where a worker of live segments publishes: what this grant has
// of storage. That a later grant has taken over is no error to the worker:
// storage counts it.
type liveOutput struct{ *storage.Writer }

// Part publishes a part.
func (o liveOutput) Part(e index.Entry, data []byte) error {
	return unlessFenced(o.Writer.Part(e, data))
}

// Finish publishes the last part of a segment, and the segment.
func (o liveOutput) Finish(last index.Entry, data []byte, segment index.Entry) error {
	return unlessFenced(o.Writer.Finish(last, data, segment))
}

func unlessFenced(err error) error {
	if errors.Is(err, storage.ErrFenced) {
		return nil
	}
	return err
}

// backfillOutput is where the second pass over the log publishes: what there is
// to say of the broadcast as a whole is the live worker's to say.
type backfillOutput struct{ liveOutput }

// What the live worker says of the broadcast isn't said again.

func (backfillOutput) Broadcast(index.Broadcast) {}
func (backfillOutput) Pause(uint64, string)      {}
func (backfillOutput) End(uint64, string)        {}
func (backfillOutput) Thumbnail([]byte)          {}
