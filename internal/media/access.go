package media

// Start is how well decoding can start at a picture; better ones are larger.
type Start uint8

// The kinds of start.
const (
	// NoStart: the picture can't be decoded without earlier ones.
	NoStart Start = iota
	// IntraStart: the picture refers to no other one, but nothing promises that
	// those after it don't refer past it.
	IntraStart
	// GradualStart: pictures become right bit by bit, as with periodic intra refresh.
	GradualStart
	// OpenStart: pictures shown after it are right. Those that follow it and are
	// shown before it, its leading pictures, may refer past it: an open GOP.
	OpenStart
	// CleanStart: nothing that follows refers past it.
	CleanStart
)

// Start tells how well decoding can start at a picture. Where nothing is known of
// it but RandomAccess, that is clean. A picture that refers to no other one, and
// that the encoder calls a keyframe, is taken for one.
func (u *Unit) Start() Start {
	a := &u.Access
	switch {
	case a.IDR, u.RandomAccess && !a.Intra:
		return CleanStart
	case u.RandomAccess, a.Recovery && a.RecoveryFrames == 0, a.Intra && a.Claimed:
		return OpenStart
	case a.Recovery:
		return GradualStart
	case a.Intra:
		return IntraStart
	}
	return NoStart
}
