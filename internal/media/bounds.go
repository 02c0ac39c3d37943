package media

import "fmt"

// What a source's pictures may take. Decoders believe what a configuration says: a few
// bytes make them reserve memory for the largest picture, and for as many of them as it
// asks for. What is taken is what level 5.2 of H.264 and its like are for, 4K.
const (
	// MaxPictureArea bounds a picture before cropping, in luma samples: 4096x2304, which
	// is MaxFS of H.264's levels 5.1 and 5.2 (ITU-T H.264, table A-1). HEVC's level 5.x
	// (H.265, table A.8) and AV1's (A.3) end a little below.
	MaxPictureArea = 4096 * 2304
	// MaxPictureSide bounds its width and height.
	MaxPictureSide = 8192
	// MaxKeptPictures bounds the pictures that a decoder is asked to keep: all formats have that.
	MaxKeptPictures = 16
	// MaxKeptBytes bounds what these take: as much as AV1's decoders always keep, eight
	// pictures, of the largest ones with 10 bits and 4:2:0. Level 5.2 of H.264 asks for 5
	// of the largest, HEVC's for 6.
	MaxKeptBytes = 8 * MaxPictureArea * 3
)

// A BoundError is that a configuration asks for more than is taken. It is in words that a
// streamer can read.
type BoundError struct{ text string }

// Error returns the words.
func (e *BoundError) Error() string { return e.text }

func beyond(format string, args ...any) error { return &BoundError{fmt.Sprintf(format, args...)} }

// Area is how many luma samples a picture has before it is cropped, as decoders keep it.
func (p Picture) Area() int { return p.Decoded.Width * p.Decoded.Height }

// Bytes is what a decoded picture takes in memory.
func (p Picture) Bytes() int {
	perSample := 2 // in halves of a byte, or of two
	switch p.Chroma {
	case Chroma420:
		perSample = 3
	case Chroma422:
		perSample = 4
	case Chroma444:
		perSample = 6
	}
	if p.Depth > 8 {
		perSample *= 2
	}
	return p.Area() * perSample / 2
}

// check fails on what makes no sense, and, with a [BoundError], on what is beyond the bounds.
func (p Picture) check() error {
	w, h, kept := p.Decoded.Width, p.Decoded.Height, p.Decoded.Pictures
	switch {
	case p.Width <= 0 || p.Height <= 0 || w < p.Width || h < p.Height:
		return fmt.Errorf("a picture of %dx%d is out of range", p.Width, p.Height)
	case w > MaxPictureSide || h > MaxPictureSide || w*h > MaxPictureArea:
		return beyond("A picture of %dx%d is larger than what is taken, which is 4096x2304 in all, and %d in width and in height: lower the output resolution (in OBS: Settings, Video).",
			p.Width, p.Height, MaxPictureSide)
	case kept > MaxKeptPictures || p.Decoded.Delayed > MaxKeptPictures:
		return fmt.Errorf("%d pictures to refer to are out of range", kept)
	case kept*p.Bytes() > MaxKeptBytes:
		return beyond("Pictures of %dx%d (%d bits, %s) with %d to refer to are more than what is taken: set the reference frames to %d or less, or lower the output resolution.",
			p.Width, p.Height, p.Depth, p.Chroma, kept, max(1, MaxKeptBytes/p.Bytes()))
	}
	return nil
}
