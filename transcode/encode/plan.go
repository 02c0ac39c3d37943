package encode

import (
	"context"
	"slices"
	"time"

	"millrace/internal/index"
	"millrace/internal/media"
)

const (
	// lonePicture is how often, in segments, a process is started for nothing but
	// the picture for listings: that costs a fifth of what two small rungs do.
	lonePicture = 8
	// maxGroupCost is the cores that one process may need at real time.
	maxGroupCost = 0.7
)

// plan settles the ladder at the first configuration, and fits it to a later
// one: players know the renditions by name.
func (e *encoding) plan() {
	if e.rungs != nil {
		e.replace(false)
		e.rungs = refit(e.rungs, e.source.Width, e.source.Height)
		e.shed = min(e.shed, e.mayShed()) // its format may be another one, too
	} else {
		e.rungs = e.ladder()
		e.patience = calmSegments
	}
	e.fitIn()
	e.group()
}

// fitIn reserves what the rungs need, and sheds the highest of them until there is room.
// Of those that browsers can't do without only want of memory keeps one from being made.
func (e *encoding) fitIn() {
	for !e.Backfill && !e.Budget.reserve(e, e.need(e.rungs[e.shed:])) {
		need := e.need(e.rungs[e.shed:])
		if e.shed >= e.mayShed() && e.Budget.forceCores(e, need) {
			return
		}
		if e.shed == len(e.rungs) {
			e.Budget.force(e, need)
			return
		}
		e.Log.Warn("there is no room to encode a rung", "rung", e.rungs[e.shed].Name, "cost", need.Cores, "memory", need.Memory)
		e.shed++
		e.calm = calmSegments // made again as soon as there is room
	}
}

// replace has the source's place taken by a rung of its size, or, without
// recode, no longer so. It is shed before all others. A source that players don't
// decode anyway has such a rung beside it.
func (e *encoding) replace(recode bool) {
	if recode = recode && !e.source.Rare; recode == e.recoded {
		return
	}
	e.recoded = recode
	if !recode {
		e.rungs = e.rungs[1:]
		e.shed = max(0, e.shed-1)
	} else {
		e.rungs = append([]Rung{e.sourceRung()}, e.rungs...)
		if e.shed > 0 || !e.Backfill && !e.Budget.reserve(e, e.need(e.rungs)) && e.mayShed() > 0 {
			e.Log.Warn("there is no room to encode the source anew, which not every player can start with", "cost", e.cost(e.rungs))
			e.shed++
		}
	}
	e.shed = min(e.shed, e.mayShed()) // browsers can't do without
	e.fitIn()
	e.group()
}

// ladder returns the rungs to make: those that players know from an earlier
// worker, else the configured ones.
func (e *encoding) ladder() []Rung {
	if e.Earlier != nil {
		if list := e.Earlier(); len(list) > 0 {
			return refit(announcedRungs(list, e.source.FrameRate), e.source.Width, e.source.Height)
		}
	}
	return append([]Rung{}, BuildLadder(e.Ladder, e.source)...) // never nil: it is settled
}

// group divides the rungs that are made among processes that each keep up with
// real time, as far as that can be known.
func (e *encoding) group() {
	e.groups = e.divide(e.rungs[e.shed:])
	e.Metrics.rungsShed.Add(float64(e.shed - e.counted))
	e.counted = e.shed
	e.unmade.Store(int64(e.shed))
	e.discardSpares()
	e.spares = make([]*encoder, len(e.groups))
	if !e.Backfill {
		e.spareAt = time.After(0)
	}
}

// divide returns the groups of rungs that share a process; at least one, which may be empty.
func (e *encoding) divide(rungs []Rung) [][]Rung {
	groups := [][]Rung{nil}
	for _, r := range rungs {
		last := len(groups) - 1
		if group := append(slices.Clone(groups[last]), r); len(groups[last]) == 0 || e.cost(group) <= maxGroupCost {
			groups[last] = group
		} else {
			groups = append(groups, []Rung{r})
		}
	}
	return groups
}

// need is what rungs take at real time.
func (e *encoding) need(rungs []Rung) Need {
	n := Need{Cores: e.cost(rungs)}
	for i, group := range e.divide(rungs) {
		if len(group) > 0 {
			n.Memory += int64(overlap * float64(e.jobOf(group, i).memory()))
		}
	}
	return n
}

// jobOf is what the i-th process of a live segment does.
func (e *encoding) jobOf(group []Rung, i int) Job {
	return Job{Rungs: group, Preset: e.Preset, Thumbnail: i == 0 && !e.Backfill, Preroll: e.prerolled, Look: e.source.Look, Picture: e.source.Picture}
}

// groupsOf returns the rungs of a segment that share a process.
func (e *encoding) groupsOf(s *segment) [][]Rung {
	if !e.taking(s) {
		return e.groups
	}
	return each(e.rungs[len(e.rungs)-s.made:])
}

// each puts every rung into a group of its own.
func each(rungs []Rung) (groups [][]Rung) {
	for i := range rungs {
		groups = append(groups, rungs[i:i+1])
	}
	return groups
}

// taking reports whether s is the segment in which this worker took over from
// another one: then nothing but its rungs matters, and they are made by as many
// processes as there are rungs.
func (e *encoding) taking(s *segment) bool {
	return e.Grant.Index && !e.Backfill && s.tl.mark.Sequence == e.From
}

// midway reports whether s is a segment of which an earlier worker may have
// published parts. Then all rungs are made of it, whatever room there is: parts
// of a rung and of what stands in for it don't go together.
func (e *encoding) midway(s *segment) bool { return e.taking(s) && e.Grant.Epoch.Grant > 1 }

// cost is the cores that rungs need at real time in one process.
func (e *encoding) cost(rungs []Rung) float64 {
	return e.Budget.Scale() * EstimateCost(e.source, rungs)
}

// pictureDue reports whether a picture for listings is made of a segment: of each,
// where a process decodes it anyhow for a group of rungs.
func (e *encoding) pictureDue(group []Rung) bool {
	if len(group) > 0 {
		return true
	}
	due := e.pictureIn == 0
	if due {
		e.pictureIn = lonePicture
	}
	e.pictureIn--
	return due
}

// renditions are those of pictures; span is for how many seconds the source has come.
func (e *encoding) renditions(span float64) []index.Rendition {
	list := []index.Rendition{{
		Name: sourceName, Kind: media.Video, Source: true, Codec: e.codec.Name,
		Width: e.codec.Width, Height: e.codec.Height, FrameRate: e.source.FrameRate, Range: e.codec.Picture.Colour.Range(),
		MaxBitrate: int(float64(e.size) * 8 / span * bitrateHeadroom),
	}}
	rungRange := media.SDR
	if e.FFmpeg.keepsHDR {
		rungRange = list[0].Range
	}
	for _, r := range e.rungs {
		if r.Name == sourceName {
			continue
		}
		list = append(list, index.Rendition{
			Name: r.Name, Kind: media.Video, Codec: "avc1.64001f", // until its init says better
			Width: r.Width, Height: r.Height, FrameRate: r.FrameRate, MaxBitrate: r.Bitrate, Range: rungRange,
		})
	}
	return list
}

// startSpares starts the processes that the next segment will use.
func (e *encoding) startSpares(ctx context.Context) {
	e.spareAt = nil
	for i := range e.spares {
		job := e.jobOf(e.groups[i], i)
		if old := e.spares[i]; old != nil && !old.job.same(job) {
			e.spares[i] = nil
			old.discard()
		}
		if e.spares[i] != nil || len(e.groups[i]) == 0 {
			continue
		}
		spare, err := e.FFmpeg.startEncoder(ctx, job, e.outputs)
		if err != nil {
			e.Log.Error("no spare encoder", "err", err)
			continue
		}
		e.spares[i] = spare
		e.using[spare] = nil
	}
}

// ready returns a process that waits for just this job, or nil.
func (e *encoding) ready(run *encodingRun) *encoder {
	if run.attempt == 1 {
		for i, spare := range e.spares {
			if spare != nil && spare.job.same(run.job) {
				e.spares[i] = nil
				return spare
			}
		}
	}
	if e.Pool == nil {
		return nil
	}
	return e.Pool.take(run.job, e.outputs, e.gone)
}

// spareExited handles the end of a process that waited, or was discarded.
func (e *encoding) spareExited(enc *encoder, x *exit) {
	if i := slices.Index(e.spares, enc); i >= 0 {
		e.spares[i] = nil
		e.Log.Warn("a spare encoder ended", "err", x.err)
		if e.spareAt == nil {
			e.spareAt = time.After(spareDelay)
		}
	}
}

func (e *encoding) discardSpares() {
	for i, enc := range e.spares {
		if enc != nil {
			enc.discard()
			e.spares[i] = nil
		}
	}
}
