package storage

import (
	"slices"
	"strings"

	"millrace/internal/index"
)

// stage is how far an object has come on its way out.
type stage int

// The stages, in order. An object whose entry is recorded leaves the outbox once
// its file is gone.
const (
	// incoming: it is in memory. It waits for the spool, or, when the spool
	// couldn't take it, for S3.
	incoming stage = iota
	// spooled: it is a file of the spool and waits for S3.
	spooled
	// stored: it is in S3. Its file stays until Redis has its entry: a process
	// that dies before tells the next one of it by the file.
	stored
	// recorded: Redis has its entry, and its file is being removed.
	recorded
)

// outbox is what is on its way to S3 and to the index, with its bounds. It is
// pure: who does the work takes an item from a queue and says what became of
// it. Not safe for concurrent use.
type outbox struct {
	// maxMemory bounds the bytes outside of the spool.
	maxMemory int64

	// items are all, oldest first; by key.
	items []*item
	keys  map[string]*item
	// toSpool and toUpload are the queues: nobody works on what is in them.
	toSpool, toUpload []*item
	// dropped are those that won't get to S3 and that nobody has been told of.
	dropped []drop
	// disk and memory are the bytes held in the spool and outside of it.
	disk, memory int64
}

// item is an object on its way.
type item struct {
	object
	stage stage
	// size is the file's on disk, the data's otherwise.
	size int64
	// busy is set while somebody works on it.
	busy bool
}

// onDisk reports whether it has a file in the spool.
func (it *item) onDisk() bool { return it.stage != incoming }

// drop is an object that won't get to S3.
type drop struct {
	key    string
	entry  index.Entry
	reason string
}

func newOutbox(maxMemory int64) outbox {
	return outbox{maxMemory: maxMemory, keys: map[string]*item{}}
}

// add takes an object. One on its way under the same key is the same one, and
// stays; one that is stored is made anew. When too much waits in memory, the
// oldest of it is dropped; those are returned.
func (o *outbox) add(ob object) (dropped []*item) {
	if before := o.keys[ob.key]; before != nil {
		if before.stage != stored {
			return nil
		}
		o.remove(before) // writing it replaces the file
	}
	it := &item{object: ob}
	for _, d := range ob.data {
		it.size += int64(len(d))
	}
	o.put(it)
	o.toSpool = append(o.toSpool, it)
	for o.memory > o.maxMemory {
		victim := o.oldest(func(it *item) bool { return !it.onDisk() && !it.busy && droppable(it) })
		if victim == nil {
			break
		}
		o.remove(victim)
		o.drop(victim, dropMemory)
		dropped = append(dropped, victim)
	}
	return dropped
}

// adopt takes a file that an earlier run left in the spool; its entry isn't
// known. It reports whether it did: one that was added since is written anew.
func (o *outbox) adopt(f spoolFile) bool {
	if o.keys[f.key] != nil {
		return false
	}
	it := &item{object: object{key: f.key}, stage: spooled, size: f.size}
	o.put(it)
	o.toUpload = append(o.toUpload, it)
	// Files in the spool stand before what was added before the start.
	slices.SortStableFunc(o.items, func(a, b *item) int { return oneIf(b.onDisk()) - oneIf(a.onDisk()) })
	return true
}

// oneIf is 1 for true.
func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (o *outbox) put(it *item) {
	o.items = append(o.items, it)
	o.keys[it.key] = it
	*o.bytes(it) += it.size
}

// bytes is the sum that an item's size counts in.
func (o *outbox) bytes(it *item) *int64 {
	if it.onDisk() {
		return &o.disk
	}
	return &o.memory
}

// take takes the first item of a queue, for the caller to work on; nil when
// there is none.
func (o *outbox) take(queue *[]*item) *item {
	if len(*queue) == 0 {
		return nil
	}
	it := (*queue)[0]
	*queue = slices.Delete(*queue, 0, 1)
	it.busy = true
	return it
}

// written says that an item is in the spool now, in a file of a size.
func (o *outbox) written(it *item, size int64) {
	o.memory -= it.size
	it.stage, it.size, it.data = spooled, size, nil
	o.disk += size
	o.retry(it)
}

// retry puts an item at the end of the queue for S3: so that one object can't
// hold up the others.
func (o *outbox) retry(it *item) {
	it.busy = false
	o.toUpload = append(o.toUpload, it)
}

// putInS3 says that an item is in S3: with a file it waits for its
// entry to be recorded, without one it is done.
func (o *outbox) putInS3(it *item) {
	it.busy = false
	if it.stage != spooled {
		o.remove(it)
		return
	}
	it.stage = stored
}

// noteRecorded says that the index has an object's entry. It returns the item
// whose file is to be removed, for the caller to work on; nil when there is none.
func (o *outbox) noteRecorded(key string) *item {
	it := o.keys[key]
	if it == nil || it.stage != stored {
		return nil
	}
	it.stage, it.busy = recorded, true
	return it
}

// makeRoom removes the oldest files until size more bytes fit into bound:
// first those that are stored, which cost nothing unless this process dies
// before Redis has their entries. It returns them; the caller removes the files.
func (o *outbox) makeRoom(size, bound int64) (victims []*item) {
	for o.disk+size > bound {
		v := o.oldest(func(it *item) bool { return it.stage == stored })
		if v == nil {
			v = o.oldest(func(it *item) bool { return it.stage == spooled && !it.busy && droppable(it) })
		}
		if v == nil {
			break
		}
		o.remove(v)
		victims = append(victims, v)
	}
	return victims
}

// droppable reports whether an object may be given up. Init sections never are:
// they are small, and a whole rendition is lost without one.
func droppable(it *item) bool { return !strings.HasSuffix(it.key, ".mp4") }

func (o *outbox) oldest(is func(*item) bool) *item {
	if at := slices.IndexFunc(o.items, is); at >= 0 {
		return o.items[at]
	}
	return nil
}

// remove takes an item out.
func (o *outbox) remove(it *item) {
	same := func(other *item) bool { return other == it }
	if !slices.ContainsFunc(o.items, same) {
		return
	}
	o.items = slices.DeleteFunc(o.items, same)
	if o.keys[it.key] == it {
		delete(o.keys, it.key)
	}
	o.toSpool = slices.DeleteFunc(o.toSpool, same)
	o.toUpload = slices.DeleteFunc(o.toUpload, same)
	*o.bytes(it) -= it.size
}

// drop notes that an object, which was removed, won't get to S3.
func (o *outbox) drop(it *item, reason string) {
	o.dropped = append(o.dropped, drop{it.key, it.entry, reason})
}

// empty reports whether nothing waits for S3, and all drops were told of.
func (o *outbox) empty() bool {
	return len(o.dropped) == 0 && !slices.ContainsFunc(o.items, func(it *item) bool { return it.stage < stored })
}

// files counts those in the spool.
func (o *outbox) files() (n int) {
	for _, it := range o.items {
		n += oneIf(it.onDisk())
	}
	return n
}
