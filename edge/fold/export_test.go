package fold

// What tests look at.
const (
	MaxRenditions  = maxRenditions
	MaxDrafts      = maxDrafts
	OrphanPatience = orphanPatience
	LagPatience    = lagPatience
)

// Drafts returns how many unfinished segments are known of a rendition.
func (f *Fold) Drafts(name string) int {
	if r := f.find(name); r != nil {
		return len(r.drafts)
	}
	return 0
}

// EndKnown reports whether a worker has told where the broadcast ends.
func (f *Fold) EndKnown() bool { return f.end != noEnd }
