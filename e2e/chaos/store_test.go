//go:build chaos

package chaos

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/e2e/harness"
	"millrace/internal/index"
	"millrace/internal/objects"
)

// stored compares the bucket with what viewers got. missing are segments that
// aren't there and, where gaps are allowed, aren't listed as such; differing are
// those that have other bytes.
func (c *trial) stored(limit time.Duration) (missing, differing []string) {
	type want struct {
		key, name string
		data      []byte
	}
	var wants []want
	for _, x := range c.observer.Reader.Renditions {
		for n, s := range x.Segments {
			name := fmt.Sprintf("%s/%d", x.Name, n)
			if s.Data == nil {
				missing = append(missing, name+" (never to be had)")
				continue
			}
			epoch, rest, _ := strings.Cut(path.Base(s.URI), ".")
			wants = append(wants, want{objects.Prefix(c.broadcastID) + epoch + "/" + x.Name + "/" + rest, name, s.Data})
		}
	}
	deadline := time.Now().Add(limit)
	for {
		var gaps map[string]bool // those can't be there
		if c.row.gaps {
			gaps = c.gaps()
		}
		var left []want
		for _, w := range wants {
			data, err := c.bucket.Get(context.Background(), w.key)
			if err != nil && gaps[w.name] {
				continue
			}
			if err != nil {
				left = append(left, w)
			} else if sha256.Sum256(data) != sha256.Sum256(w.data) {
				differing = append(differing, w.name)
				c.keepFile(strings.ReplaceAll(w.name, "/", "-")+".seen.m4s", w.data)
				c.keepFile(strings.ReplaceAll(w.name, "/", "-")+".stored.m4s", data)
			}
		}
		wants = left
		if len(wants) == 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	for _, w := range wants {
		missing = append(missing, w.name)
	}
	return missing, differing
}

// indexed is what the index says of one segment.
type indexed struct {
	gap bool
	// profiles are those that it was made with, by the ingest's epoch.
	profiles map[uint64][]string
}

// index reads what the broadcast's index lists, by rendition/sequence: that is
// for whoever plays it after the live window.
func (c *trial) index() (map[string]*indexed, error) {
	list, err := c.redis.XRange(context.Background(), index.StreamKey(c.broadcastID), "-", "+").Result()
	if err != nil {
		return nil, fmt.Errorf("the index can't be read: %w", err)
	}
	all := make(map[string]*indexed)
	for _, message := range list {
		text, _ := message.Values[index.Field].(string)
		e, err := index.Parse([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("the index's entry %s: %w", message.ID, err)
		}
		if e.Type != index.TypeSegment && e.Type != index.TypeGap {
			continue
		}
		name := fmt.Sprintf("%s/%d", e.Rendition, e.Sequence)
		x := all[name]
		if x == nil {
			x = &indexed{profiles: make(map[uint64][]string)}
			all[name] = x
		}
		if e.Type == index.TypeGap {
			x.gap = true
		} else if !slices.Contains(x.profiles[e.Epoch], e.Profile) {
			x.profiles[e.Epoch] = append(x.profiles[e.Epoch], e.Profile)
		}
	}
	return all, nil
}

// gaps are the segments that the index lists as such.
func (c *trial) gaps() map[string]bool {
	list, err := c.index()
	if err != nil {
		c.problem("%v", err)
	}
	gaps := make(map[string]bool)
	for name, x := range list {
		if x.gap {
			gaps[name] = true
		}
	}
	return gaps
}

// checkIndex compares the index with the segments that the reader has: each
// stands in it, of one profile, but for those that are lost. Rows are too short
// for the index to be trimmed.
func (c *trial) checkIndex(lost []string) {
	var lacks, twice []string
	err := harness.Until(context.Background(), 10*time.Second, func() error {
		list, err := c.index()
		if err != nil {
			return err
		}
		lacks, twice = nil, nil
		for _, x := range c.observer.Reader.Renditions {
			for n := range x.Segments {
				name := fmt.Sprintf("%s/%d", x.Name, n)
				e := list[name]
				if e == nil || len(e.profiles) == 0 && !(e.gap && c.row.gaps) {
					if !slices.Contains(lost, name) {
						lacks = append(lacks, name)
					}
					continue
				}
				for epoch, profiles := range e.profiles {
					if len(profiles) > 1 {
						twice = append(twice, fmt.Sprintf("%s of epoch %d: %s", name, epoch, strings.Join(profiles, " ")))
					}
				}
			}
		}
		if len(lacks) > 0 {
			return fmt.Errorf("%d segments aren't in the index", len(lacks))
		}
		return nil
	})
	if err != nil {
		slices.Sort(lacks)
		c.problem("%v: %.200s", err, strings.Join(lacks, " "))
	}
	if len(twice) > 0 && !c.row.gaps { // two builds may both have told of it
		slices.Sort(twice)
		c.problem("%d segments are in the index with several profiles: %.200s", len(twice), strings.Join(twice, "; "))
	}
}

// checkSlots checks that every slot of the broadcast is a running worker's.
func (c *trial) checkSlots() {
	err := harness.Until(context.Background(), 5*time.Second, func() error {
		slots, err := c.redis.HKeys(context.Background(), slotsKey(c.broadcastID)).Result()
		if err == nil && len(slots) == 0 {
			err = errors.New("nobody has a slot")
		}
		for _, slot := range slots {
			n, _ := strconv.Atoi(slot)
			if w := c.holder(c.broadcastID, n); w == nil || !w.Running() {
				err = fmt.Errorf("slot %s isn't a running worker's", slot)
			}
		}
		return err
	})
	if err != nil {
		c.problem("at the end: %v", err)
	}
}

// checkProfiles checks that the renditions' segments were made with several profiles.
func (c *trial) checkProfiles(renditions ...string) {
	list, err := c.index()
	if err != nil {
		c.problem("%v", err)
	}
	for _, rendition := range renditions {
		found := make(map[string]bool)
		for name, x := range list {
			for _, profiles := range x.profiles {
				for _, p := range profiles {
					found[p] = found[p] || strings.HasPrefix(name, rendition+"/")
				}
			}
		}
		maps.DeleteFunc(found, func(_ string, has bool) bool { return !has })
		if len(found) < 2 {
			c.problem("%s was made with %d profile: nothing was handed over between two", rendition, len(found))
		}
	}
}
