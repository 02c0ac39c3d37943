package timeline

import "millrace/internal/media"

// maxBurst is how far back the pictures of a burst may be spread: the timeline has
// room before its first unit.
const maxBurst = 2 * media.VideoTimescale

// spreadBurst gives pictures that came in a burst, before an encoder found its pace,
// times of their own: the last of them keeps its own, those before it lie a frame of
// step apart. A burst that would begin too early stays as it is.
func spreadBurst(held []heldUnit, step media.Ticks) {
	var pictures []*media.Unit
	for i := range held {
		if held[i].unit.Track == media.Video {
			pictures = append(pictures, &held[i].unit)
		}
	}
	moves := make([]media.Ticks, len(pictures)) // by how much earlier each is
	for i := len(pictures) - 2; i >= 0; i-- {
		d := pictures[i+1].DTS - pictures[i].DTS
		if moves[i] = moves[i+1]; d < step/2 {
			moves[i] += step - d
		}
	}
	if len(moves) == 0 || moves[0] > maxBurst {
		return
	}
	for i, u := range pictures {
		u.DTS, u.PTS = u.DTS-moves[i], u.PTS-moves[i]
	}
}
