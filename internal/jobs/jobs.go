// Package jobs is the contract by which ingest finds a worker for a broadcast
// and says who works on it.
//
// Ingest offers a [Job] in the Redis stream [Stream]; a worker with room takes
// it from the consumer group [Group] and opens a claim at the ingest named in it:
//
//	POST /claim/{broadcast}/{slot}        (HTTP/2, a connection of its own)
//
// Its headers name the worker ([AddressHeader], [ProfileHeader]). Progress goes
// up as one JSON document a line ([Progress]); the answer's first line is the
// [Grant], later ones are [Order]s. Statuses: 404 no such broadcast here, 409
// the slot has a living worker, or this worker has another slot of the
// broadcast. The claim lasts as long as the connection, and no longer than
// progress goes on while there is work.
//
// A worker that wants to leave says so in its progress. Ingest then offers the
// slot, and the next claim's grant begins at the next mark: the worker that
// leaves is ordered to make the segments before that one, and no more.
//
// A worker whose ingest died keeps what it has of the open segment. The ingest
// that goes on with the broadcast asks it to close that segment short:
//
//	POST /close/{broadcast}?epoch={lease epoch}
//
// The answer is a [relay.Handoff] as JSON. Statuses: 404 this worker has nothing
// of the broadcast, 409 it works under that lease or a higher one, 410 it has
// published the broadcast's end.
package jobs

import (
	"net/url"
	"strconv"
	"time"

	"millrace/internal/seal"
)

// Names in Redis.
const (
	Stream = "millrace:jobs"
	Group  = "workers"
	// Field is the stream entry's only field: the Job as JSON.
	Field = "job"
	// MaxOffers bounds the stream's length; older offers are made again by ingest.
	MaxOffers = 1000
)

// Headers of a claim.
const (
	// AddressHeader is the worker's [seal.Address] in the scope of the broadcast.
	AddressHeader = "X-Millrace-Address"
	ProfileHeader = "X-Millrace-Profile"
)

// ProgressInterval is how often a worker reports at least.
const ProgressInterval = 250 * time.Millisecond

// Job is a broadcast that needs a worker in a slot.
type Job struct {
	Broadcast string `json:"broadcast"`
	Channel   string `json:"channel"`
	Slot      int    `json:"slot"`
	// Ingest is where claim and relay are served, in the scope of the channel.
	Ingest seal.Address `json:"ingest"`
}

// ClaimPath returns the path of the claim for a slot.
func ClaimPath(broadcast string, slot int) string {
	return "/claim/" + url.PathEscape(broadcast) + "/" + strconv.Itoa(slot)
}

// ClosePath returns the path and query by which an ingest under a lease epoch
// has a worker close a broadcast's open segment.
func ClosePath(broadcast string, epoch uint64) string {
	return "/close/" + url.PathEscape(broadcast) + "?epoch=" + strconv.FormatUint(epoch, 10)
}

// Epoch is a fencing number: it rises with each worker that is granted a slot.
type Epoch struct {
	// Lease is the ingest's epoch on the channel.
	Lease uint64 `json:"lease"`
	// Grant counts the grants under that lease, over all slots.
	Grant uint64 `json:"grant"`
}

// Less reports whether e was granted before f.
func (e Epoch) Less(f Epoch) bool {
	return e.Lease < f.Lease || e.Lease == f.Lease && e.Grant < f.Grant
}

// Grant is ingest's word that a worker holds a slot.
type Grant struct {
	Epoch Epoch `json:"epoch"`
	// Live is the first unfinished segment.
	Live uint64 `json:"live"`
	// Backfill is the first segment that is not safe in S3 yet; at most Live.
	Backfill uint64 `json:"backfill"`
	// Index is set when an earlier worker has written index entries that this
	// one should read before it goes on.
	Index bool `json:"index"`
	// Standby is set when a worker in another slot makes the same: then there
	// is no hurry to catch up with it.
	Standby bool `json:"standby,omitempty"`
}

// Progress is what a worker has reached.
type Progress struct {
	// Consumed is how many access units it has read, counted from the grant.
	Consumed uint64 `json:"consumed"`
	// Finished is the first segment that is not complete in every rendition.
	Finished uint64 `json:"finished"`
	// Safe is the first segment that is not in S3 in every rendition.
	Safe uint64 `json:"safe"`
	// Leaving is set when the worker wants another one to take over.
	Leaving bool `json:"leaving,omitempty"`
	// Shed is how many rungs it doesn't make now for want of room.
	Shed int `json:"shed,omitempty"`
	// Window is how far viewers can seek back, in seconds, where there is no room to
	// keep as much as the DVR window; 0: there is.
	Window int `json:"window,omitempty"`
	// Failing is set while it makes none, since what is sent had their processes die.
	Failing bool `json:"failing,omitempty"`
}

// Order is what ingest tells the holder of a claim after the grant.
type Order struct {
	// Until, above 0, is the first segment that the worker doesn't make any
	// more: another one begins there. It finishes those before it, waits until
	// they are safe, and closes the claim. It may come to a worker that doesn't
	// leave.
	Until uint64 `json:"until,omitempty"`
	// End, when not empty, says in plain words why the claim is over at once.
	End string `json:"end,omitempty"`
}

// Slot says which worker holds a slot; ingest writes it to Redis for edges.
type Slot struct {
	// Address is where the worker serves follow and window, in the scope of the
	// broadcast, as the worker itself has signed it.
	Address seal.Address `json:"address"`
	Epoch   Epoch        `json:"epoch"`
}
