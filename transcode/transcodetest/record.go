package transcodetest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"sync/atomic"
	"testing"

	"millrace/internal/index"
	"millrace/internal/media"
)

// Record is what a worker published.
type Record struct {
	About    index.Broadcast
	Inits    map[string]*media.Init // by rendition and hash
	Parts    map[string][][]byte    // by rendition and sequence
	Entries  map[string]index.Entry // of segments, by the same
	Gaps     []index.Entry
	errs     []error
	Ended    bool
	Pictures atomic.Int64 // for listings
	OnPart   func(index.Entry)
}

// NewRecord returns an empty record.
func NewRecord() *Record {
	return &Record{Inits: map[string]*media.Init{}, Parts: map[string][][]byte{}, Entries: map[string]index.Entry{}}
}

// Key names a segment as Record does: by rendition and sequence.
func Key(e index.Entry) string { return fmt.Sprintf("%s/%d", e.Rendition, e.Sequence) }

// Broadcast notes the settings.
func (r *Record) Broadcast(b index.Broadcast) { r.About = b }

// Init notes an init section.
func (r *Record) Init(rendition string, init *media.Init, e index.Entry) {
	r.Inits[rendition+"/"+init.Hash] = init
}

// Part notes a part; one that was noted must have the same bytes.
func (r *Record) Part(e index.Entry, data []byte) error {
	k := Key(e)
	switch parts := r.Parts[k]; {
	case e.Part < len(parts):
		if !bytes.Equal(parts[e.Part], data) {
			r.errs = append(r.errs, fmt.Errorf("%s part %d was made again with other bytes", k, e.Part))
		}
	case e.Part == len(parts):
		r.Parts[k] = append(parts, data)
	default:
		r.errs = append(r.errs, fmt.Errorf("%s part %d came after part %d", k, e.Part, len(parts)-1))
	}
	if r.OnPart != nil {
		r.OnPart(e)
	}
	return nil
}

// Finish notes a segment and its last part.
func (r *Record) Finish(last index.Entry, data []byte, segment index.Entry) error {
	if len(data) > 0 {
		_ = r.Part(last, data)
	}
	r.Entries[Key(segment)] = segment
	return nil
}

// Gap notes a gap.
func (r *Record) Gap(e index.Entry) { r.Gaps = append(r.Gaps, e) }

// Pause is not noted.
func (r *Record) Pause(uint64, string) {}

// End notes that the broadcast ended.
func (r *Record) End(uint64, string) { r.Ended = true }

// Thumbnail counts the pictures for listings.
func (r *Record) Thumbnail(jpeg []byte) { r.Pictures.Add(1) }

// Sums are the hashes of all complete segments from a sequence on.
func (r *Record) Sums(from uint64) map[string]string {
	sums := map[string]string{}
	for k, e := range r.Entries {
		if e.Sequence >= from {
			sums[k] = fmt.Sprintf("%x %s %s", sha256.Sum256(bytes.Join(r.Parts[k], nil)), e.Profile, e.Init)
		}
	}
	return sums
}

// Check fails the test unless all was published in order, to the broadcast's end.
func (r *Record) Check(t *testing.T) {
	t.Helper()
	for _, err := range r.errs {
		t.Error(err)
	}
	if !r.Ended {
		t.Error("the end was not published")
	}
}
