//go:build chaos

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"millrace/e2e/harness"
	"millrace/internal/jobs"
)

// broadcast is the channel's, from Redis.
func (c *cluster) broadcast() string {
	c.t.Helper()
	id, err := c.redis.HGet(context.Background(), "millrace:channel:{demo}", "broadcast").Result()
	if err != nil {
		c.t.Fatalf("the channel's broadcast: %v", err)
	}
	return id
}

// slotsKey names the hash of who works on a broadcast.
func slotsKey(broadcast string) string { return "millrace:broadcast:{" + broadcast + "}:slots" }

// holder is the worker that has a slot, or nil.
func (c *cluster) holder(broadcast string, slot int) *harness.Server {
	text, err := c.redis.HGet(context.Background(), slotsKey(broadcast), strconv.Itoa(slot)).Result()
	var s jobs.Slot
	if err != nil || json.Unmarshal([]byte(text), &s) != nil {
		return nil
	}
	for n, w := range c.workers {
		if a := s.Address.String(); a == "http://"+w.Private || n < len(c.edgeWires) && a == "http://"+c.edgeWires[n].address {
			return w
		}
	}
	return nil
}

// busy is the worker in a slot; it waits for one that runs.
func (c *cluster) busy(slot int) *harness.Server {
	c.t.Helper()
	var w *harness.Server
	harness.Eventually(c.t, 20*time.Second, func() error {
		w = c.holder(c.broadcast(), slot)
		if w == nil || !w.Running() {
			return fmt.Errorf("no running worker in slot %d", slot)
		}
		return nil
	})
	return w
}

// number is a worker's place in the list.
func (c *cluster) number(w *harness.Server) int {
	for n, x := range c.workers {
		if x == w {
			return n
		}
	}
	return -1
}
