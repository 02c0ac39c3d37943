package main

import (
	"testing"
)

// Whatever the limit on open files, all shares together leave a quarter of it (or
// 4,096), and each is something.
func TestDivide(t *testing.T) {
	for limit := 256; limit <= 1<<20; limit += limit / 5 {
		s := divide(limit)
		kept := limit - s.public - s.rtmp - s.private - s.ops
		if kept < min(limit/4, 4096) {
			t.Errorf("of %d files %d are kept: %+v", limit, kept, s)
		}
		if s.public < limit/2 && s.public < 65_536 {
			t.Errorf("of %d files viewers get %d", limit, s.public)
		}
		for _, n := range []int{s.publicSource, s.rtmp, s.rtmpSource, s.private, s.ops} {
			if n < 8 {
				t.Errorf("of %d files a share is %d: %+v", limit, n, s)
			}
		}
		if s.publicSource > s.public/4 || s.rtmpSource > s.rtmp/4 {
			t.Errorf("of %d files one address gets more than a quarter: %+v", limit, s)
		}
	}
	if got, want := divide(1024), (shares{public: 544, publicSource: 136, rtmp: 128, rtmpSource: 32, private: 64, ops: 32}); got != want {
		t.Errorf("1,024 files are divided as %+v, want %+v", got, want)
	}
}
