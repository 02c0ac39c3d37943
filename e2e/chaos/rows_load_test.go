//go:build chaos

package chaos

import (
	"fmt"
	"maps"
	"time"

	"millrace/e2e/harness"
)

// overloadRow publishes more than twice of what a worker may encode.
func overloadRow() row {
	// Two rungs that cost twice what the usual ones do: the encoders' share carries
	// two or three broadcasts, and the rest of the machine all that it needs for six,
	// also while its host gives it just half of the usual.
	const broadcasts = 6
	rungs := []string{"320p30", "240p30"}
	return row{
		name: fmt.Sprintf("overload: %d broadcasts on half a core's worth of encoders", broadcasts), times: 1,
		shape:  shape{workers: 1, level: 1, args: map[string][]string{"transcode": {"--encode-cores", "0.5", "--ladder", "320p30=700k,240p30=400k"}}},
		target: "0 stalls; every source goes on; top rungs go first, and come back",
		fault: func(c *trial, _ int) {
			own, err := c.profiles("demo")
			if err != nil {
				c.problem("before the load: %v", err)
			}
			var names, keys []string
			for n := range broadcasts - 1 {
				names = append(names, fmt.Sprintf("load%d", n))
				keys = append(keys, c.newChannel(names[n]))
			}
			c.at()
			var pubs []publisher
			for _, key := range keys {
				pubs = append(pubs, c.publishAs(c.ingests[0], key, common))
				// Encoders have machines of their own: their start isn't to be the load.
				time.Sleep(time.Second)
			}
			for range 3 {
				time.Sleep(c.length(15 * time.Second))
				for _, name := range names {
					c.sourceGoesOn(name)
				}
			}
			shed := c.workers[0].Metric("millrace_transcode_rungs_shed", "")
			problems := c.ingests[0].Metric("millrace_ingest_health_problems", "")
			if least := float64(broadcasts*len(rungs)) / 2; shed < least {
				c.problem("%g rungs were shed, of %d at least %.0f: this is no overload", shed, broadcasts*len(rungs), least)
			}
			if problems == 0 {
				c.problem("no streamer is told of it")
			}
			c.note("%g of %d rungs shed under load, %s; %g health problems told", shed, broadcasts*len(rungs), c.whatIsShed(rungs, names, own), problems)
			c.endLoad(pubs)
		},
	}
}

// whatIsShed counts the channels by the rungs that they don't have of their own,
// and checks that a single one is the largest. own are the rungs' own profiles.
func (c *trial) whatIsShed(rungs, channels []string, own map[string]string) string {
	var whole, one, all int
	for _, channel := range channels {
		now, err := c.profiles(channel)
		if err != nil {
			c.problem("%v", err)
			continue
		}
		largest, smallest := now[rungs[0]] != own[rungs[0]], now[rungs[1]] != own[rungs[1]]
		switch {
		case largest && smallest:
			all++
		case largest:
			one++
		case smallest:
			c.problem("%s lacks %s and has %s", channel, rungs[1], rungs[0])
		default:
			whole++
		}
	}
	return fmt.Sprintf("both of %d channels, the larger one of %d, none of %d", all, one, whole)
}

// endLoad ends publishers, and waits until no worker lacks room.
func (c *trial) endLoad(pubs []publisher) {
	for _, p := range pubs {
		p.Kill()
	}
	err := harness.Until(c.t.Context(), 150*time.Second, func() error {
		if n := sum(c.workers, "millrace_transcode_rungs_shed", ""); n > 0 {
			return fmt.Errorf("%g rungs are still shed", n)
		}
		return nil
	})
	if err != nil {
		c.problem("after the load: %v", err)
	}
	c.note("all back %.0f s after the fault", time.Since(c.faults[0]).Seconds())
}

// fullRow has a broadcast taken over by a worker that is full.
func fullRow() row {
	var load []publisher
	return row{
		name: "worker kill -9, the other one is full", times: 1,
		shape: shape{workers: 1, level: 1, args: map[string][]string{"ingest": {"--grace", "10s"}, "transcode": {"--encode-cores", "1"}}},
		// Rungs aren't encoded at twice real time there: that is what 0 stalls need.
		stalls: 1, longest: time.Second,
		target: "at most one short stall; its rungs come back when there is room",
		before: func(c *trial) {
			full := c.workers[0]
			load = nil
			for room := 1.0; room > 0.1 && len(load) < 16; room = full.Metric("millrace_transcode_room_cores", "") {
				load = append(load, c.publishAs(c.ingests[0], c.newChannel(fmt.Sprintf("load%d", len(load))), common))
				time.Sleep(3500 * time.Millisecond) // its rungs are planned by then
			}
			harness.AwaitReady(c.t, c.launch("transcode"))
			time.Sleep(2 * time.Second) // it asks for jobs
		},
		fault: func(c *trial, _ int) {
			full, w := c.workers[0], c.busy(0)
			if w == full {
				c.t.Fatalf("the full worker took the broadcast with %.2f free cores, and the other one has %.2f",
					full.Metric("millrace_transcode_room_cores", ""), c.workers[1].Metric("millrace_transcode_room_cores", ""))
			}
			own, err := c.profiles("demo")
			if err != nil {
				c.problem("before the fault: %v", err)
			}
			c.note("%d broadcasts leave %.2f cores", len(load), full.Metric("millrace_transcode_room_cores", ""))
			before := full.Metric("millrace_transcode_rungs_shed", "")
			c.tally(w)
			c.at()
			w.Kill()
			err = harness.Until(c.t.Context(), 10*time.Second, func() error {
				if full.Metric("millrace_transcode_rungs_shed", "") <= before {
					return fmt.Errorf("the full worker sheds no rung: it has %.2f cores", full.Metric("millrace_transcode_room_cores", ""))
				}
				return nil
			})
			if err != nil {
				c.problem("%v", err)
			}
			time.Sleep(c.length(15 * time.Second))
			c.endLoad(load)
			err = harness.Until(c.t.Context(), 20*time.Second, func() error {
				now, err := c.profiles("demo")
				if err == nil && !maps.Equal(now, own) {
					err = fmt.Errorf("made with %v, before the fault with %v", now, own)
				}
				return err
			})
			if err != nil {
				c.problem("the rungs don't come back: %v", err)
			}
			c.restart(w)
		},
	}
}
