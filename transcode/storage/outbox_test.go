package storage

import (
	"testing"
	"time"
)

// An object goes through its stages in order, whatever is said of it.
func TestOutboxStages(t *testing.T) {
	const key = "broadcasts/b/7/v/1.p.m4s"
	type outboxFunc func(o *outbox, it *item)
	add := func(o *outbox, _ *item) { o.add(object{key: key, data: [][]byte{[]byte("12345")}}) }
	spool := func(o *outbox, _ *item) { o.written(o.take(&o.toSpool), 8) }
	failSpool := func(o *outbox, _ *item) { o.retry(o.take(&o.toSpool)) }
	upload := func(o *outbox, _ *item) { o.putInS3(o.take(&o.toUpload)) }
	failUpload := func(o *outbox, _ *item) { o.retry(o.take(&o.toUpload)) }
	record := func(o *outbox, _ *item) { o.noteRecorded(key) }
	remove := func(o *outbox, it *item) { o.remove(it) }
	room := func(o *outbox, _ *item) { o.makeRoom(1, 0) }
	adopt := func(o *outbox, _ *item) { o.adopt(spoolFile{key, 8, time.Time{}}) }
	type want struct {
		there             bool
		stage             stage
		busy              bool
		memory, disk      int64
		toSpool, toUpload int
	}
	gone := want{}
	for _, c := range []struct {
		name string
		do   []outboxFunc
		want want
	}{
		{"added", []outboxFunc{add}, want{true, incoming, false, 5, 0, 1, 0}},
		{"added twice", []outboxFunc{add, add}, want{true, incoming, false, 5, 0, 1, 0}},
		{"spooled", []outboxFunc{add, spool}, want{true, spooled, false, 0, 8, 0, 1}},
		{"left by an earlier run", []outboxFunc{adopt}, want{true, spooled, false, 0, 8, 0, 1}},
		{"left, and added again", []outboxFunc{adopt, add}, want{true, spooled, false, 0, 8, 0, 1}},
		{"added, and left", []outboxFunc{add, adopt}, want{true, incoming, false, 5, 0, 1, 0}},
		{"the spool refused it", []outboxFunc{add, failSpool}, want{true, incoming, false, 5, 0, 0, 1}},
		{"uploaded from memory", []outboxFunc{add, failSpool, upload}, gone},
		{"stored", []outboxFunc{add, spool, upload}, want{true, stored, false, 0, 8, 0, 0}},
		{"stored after a failure", []outboxFunc{add, spool, failUpload, failUpload, upload}, want{true, stored, false, 0, 8, 0, 0}},
		{"stored, and made again", []outboxFunc{add, spool, upload, add}, want{true, incoming, false, 5, 0, 1, 0}},
		{"recorded", []outboxFunc{add, spool, upload, record}, want{true, recorded, true, 0, 8, 0, 0}},
		{"recorded, and made again before its file is gone", []outboxFunc{add, spool, upload, record, add}, want{true, recorded, true, 0, 8, 0, 0}},
		{"its file is gone", []outboxFunc{add, spool, upload, record, remove}, gone},
		{"recorded too early", []outboxFunc{add, spool, record}, want{true, spooled, false, 0, 8, 0, 1}},
		{"room for others, incoming", []outboxFunc{add, room}, want{true, incoming, false, 5, 0, 1, 0}},
		{"room for others, spooled", []outboxFunc{add, spool, room}, gone},
		{"room for others, stored", []outboxFunc{add, spool, upload, room}, gone},
		{"room for others, recorded", []outboxFunc{add, spool, upload, record, room}, want{true, recorded, true, 0, 8, 0, 0}},
		{"removed twice", []outboxFunc{add, spool, remove, remove}, gone},
	} {
		o := newOutbox(100)
		var it *item
		for _, do := range c.do {
			do(&o, it)
			if now := o.keys[key]; now != nil {
				it = now
			}
		}
		got := want{memory: o.memory, disk: o.disk, toSpool: len(o.toSpool), toUpload: len(o.toUpload)}
		if now := o.keys[key]; now != nil {
			got.there, got.stage, got.busy = true, now.stage, now.busy
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if onDisk := got.there && got.stage != incoming; (o.files() == 1) != onDisk || o.empty() != (!got.there || got.stage >= stored) {
			t.Errorf("%s: %d files, empty is %v", c.name, o.files(), o.empty())
		}
	}
}

// What is worked on is given up by nobody else, nor are init sections.
func TestOutboxDropsTheOldest(t *testing.T) {
	o := newOutbox(10)
	put := func(key string) []*item { return o.add(object{key: key, data: [][]byte{[]byte("12345")}}) }
	put("init.mp4")
	put("1.m4s")
	busy := o.take(&o.toSpool)
	if busy.key != "init.mp4" {
		t.Fatalf("the first is %s", busy.key)
	}
	if dropped := put("2.m4s"); len(dropped) != 1 || dropped[0].key != "1.m4s" {
		t.Errorf("dropped are %v", dropped)
	}
	o.take(&o.toSpool)
	if dropped := put("3.m4s"); len(dropped) != 1 || dropped[0].key != "3.m4s" {
		t.Errorf("dropped are %v: all else is worked on, or an init section", dropped)
	}
	if len(o.dropped) != 2 || o.memory != 10 || o.empty() {
		t.Errorf("%d drops to tell of, %d bytes", len(o.dropped), o.memory)
	}
	// Stored files go first: they cost nothing.
	o = newOutbox(100)
	for _, key := range []string{"1.m4s", "2.m4s", "3.mp4", "4.m4s"} {
		put(key)
		o.written(o.take(&o.toSpool), 10)
	}
	o.retry(o.take(&o.toUpload))
	o.putInS3(o.take(&o.toUpload)) // 2
	var victims []string
	for _, it := range o.makeRoom(0, 10) {
		victims = append(victims, it.key)
	}
	if len(victims) != 3 || victims[0] != "2.m4s" || victims[1] != "1.m4s" || victims[2] != "4.m4s" {
		t.Errorf("given up are %v", victims)
	}
}
