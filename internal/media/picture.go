package media

import (
	"fmt"
	"slices"
	"strings"
)

// Picture is what a configuration says of the pictures that are coded with it.
type Picture struct {
	// Width and Height count the samples that are left after cropping.
	Width, Height int
	// Aspect is the shape of one sample.
	Aspect Aspect
	Colour Colour
	Chroma Chroma
	// Depth is how many bits a sample has.
	Depth int
	// Interlaced is set where a frame may consist of two fields. Its access units
	// say of each frame whether it does.
	Interlaced bool
	Decoded    Decoded
}

// Decoded is what decoders keep.
type Decoded struct {
	// Width and Height count all samples of a picture, before cropping: at most, where
	// pictures say themselves how large they are.
	Width, Height int
	// Pictures is how many are kept at most, since others refer to them, or since they
	// are shown later; Delayed is how many of the latter FFmpeg keeps apart, of H.264.
	Pictures, Delayed int
}

// Aspect is how wide a sample is for its height: the sample aspect ratio. Its
// zero value is that of square ones.
type Aspect struct{ Width, Height int }

// Square reports whether a sample is as wide as high.
func (a Aspect) Square() bool { return a.Width == a.Height }

// Chroma is how many colour samples there are, as chroma_format_idc counts it
// (ITU-T H.264, 6.2).
type Chroma int

// The chroma formats.
const (
	Monochrome Chroma = iota
	Chroma420
	Chroma422
	Chroma444
)

// String returns the format's usual name.
func (c Chroma) String() string {
	switch c {
	case Monochrome:
		return "monochrome"
	case Chroma420:
		return "4:2:0"
	case Chroma422:
		return "4:2:2"
	case Chroma444:
		return "4:4:4"
	}
	return fmt.Sprintf("chroma format %d", int(c))
}

// samples returns how many samples of a row and of a column share one colour.
func (c Chroma) samples() (x, y int) {
	switch c {
	case Chroma420:
		return 2, 2
	case Chroma422:
		return 2, 1
	}
	return 1, 1
}

// Code points of ITU-T H.273 that are asked for by name.
const (
	// Unspecified is of primaries, transfer and matrix, as BT709 is.
	Unspecified = 2
	BT709       = 1
	// RGB is the matrix of pictures that aren't split into light and colour.
	RGB = 0

	bt470BG     = 5
	bt601       = 6
	smpte240    = 7
	bt2020      = 9
	bt2020CL    = 10
	transferRGB = 13 // sRGB
	transfer10  = 14 // BT.2020 of 10 bits
	transferPQ  = 16
	transferHLG = 18
)

// Colour is what the values of a picture mean, in the code points of ITU-T
// H.273, which all formats share. Code points that H.273 reserves aren't kept.
type Colour struct {
	Primaries, Transfer, Matrix uint8
	// FullRange is set where black is 0, not 16.
	FullRange bool
}

// unspecified is the colour of what doesn't say: limited range, and the rest left
// to the player's guess.
var unspecified = Colour{Primaries: Unspecified, Transfer: Unspecified, Matrix: Unspecified}

// colourOf returns what code points say; those that mean nothing are left out.
func colourOf(primaries, transfer, matrix uint8, full bool) Colour {
	known := func(v uint8, reserved ...uint8) uint8 {
		if v > transferHLG || slices.Contains(reserved, v) {
			return Unspecified
		}
		return v
	}
	return Colour{known(primaries, 0, 3, 13, 14, 15, 16, 17, 18), known(transfer, 0, 3), known(matrix, 3, 15, 16, 17, 18), full}
}

// Complete fills in what c leaves out, where it says anything at all: players that
// are told half of it believe none of it. Full range alone is what JPEGs have, and
// is shown so.
func (c Colour) Complete() Colour {
	if c == unspecified {
		return c
	}
	if c.Matrix == Unspecified {
		switch {
		case c.Primaries != Unspecified:
			c.Matrix = matrixOf(c.Primaries)
		case c.Range() != SDR:
			c.Matrix = bt2020
		case c.Transfer == Unspecified:
			return Colour{BT709, transferRGB, bt601, c.FullRange}
		default:
			c.Matrix = BT709
		}
	}
	primaries, transfer := ofMatrix(c.Matrix)
	if c.Primaries == Unspecified {
		c.Primaries = primaries
	}
	if c.Transfer == Unspecified {
		c.Transfer = transfer
	}
	return c
}

// matrixOf returns the matrix that usually goes with primaries.
func matrixOf(primaries uint8) uint8 {
	switch primaries {
	case bt470BG, bt601, smpte240, bt2020:
		return primaries
	}
	return BT709
}

// ofMatrix returns the primaries and the transfer that usually go with a matrix.
func ofMatrix(matrix uint8) (primaries, transfer uint8) {
	switch matrix {
	case RGB:
		return BT709, transferRGB
	case bt470BG:
		return bt470BG, bt601
	case bt601, smpte240:
		return matrix, matrix
	case bt2020, bt2020CL:
		return bt2020, transfer10
	}
	return BT709, BT709
}

// Range is how bright a picture can be, by the names of VIDEO-RANGE (RFC
// 8216bis, 4.4.6.2), but for SDR, which is its zero value.
type Range string

// The ranges.
const (
	SDR Range = ""
	HLG Range = "HLG"
	PQ  Range = "PQ"
)

// Range tells how bright the picture can be.
func (c Colour) Range() Range {
	switch c.Transfer {
	case transferPQ:
		return PQ
	case transferHLG:
		return HLG
	}
	return SDR
}

// Shown returns the size that the picture is shown at, in square pixels: the
// larger side of samples that aren't square is drawn out, so that no sample is
// lost. An aspect that would make the picture too large isn't believed.
func (p Picture) Shown() (width, height int) {
	width, height = p.Width, p.Height
	a := p.Aspect
	switch {
	case a.Square() || a.Width <= 0 || a.Height <= 0:
	case a.Width > a.Height:
		width = (width*a.Width + a.Height/2) / a.Height
	default:
		height = (height*a.Height + a.Width/2) / a.Width
	}
	if width > MaxPictureSide || height > MaxPictureSide || width*height > MaxPictureArea {
		return p.Width, p.Height
	}
	return width, height
}

// variety names what is unusual about the pictures, for people; empty for 8 bits
// and 4:2:0, which is all that every browser shows.
func (p Picture) variety() string {
	var words []string
	if p.Depth > 8 {
		words = append(words, fmt.Sprintf("%d bits", p.Depth))
	}
	if p.Chroma != Chroma420 {
		words = append(words, p.Chroma.String())
	}
	return strings.Join(words, ", ")
}

// setPicture takes what the configuration says of the pictures.
func (c *Codec) setPicture(p Picture) error {
	if err := p.check(); err != nil {
		return err
	}
	c.Width, c.Height = p.Shown()
	if c.Width == p.Width && c.Height == p.Height {
		p.Aspect = Aspect{} // or players would believe what we don't
	}
	c.Picture = p
	return nil
}

// extendedAspect is the aspect_ratio_idc after which the ratio itself stands.
const extendedAspect = 255

// aspects are those that have a number (ITU-T H.264, table E-1; H.265 has the same).
var aspects = [...]Aspect{
	1: {1, 1}, {12, 11}, {10, 11}, {16, 11}, {40, 33}, {24, 11}, {20, 11}, {32, 11}, {80, 33},
	{18, 11}, {15, 11}, {64, 33}, {160, 99}, {4, 3}, {3, 2}, {2, 1},
}

// aspectOf returns a sample's shape from what the video usability information
// says. One that is unknown, or has a side of 0, is taken for square.
func aspectOf(idc uint8, width, height uint16) Aspect {
	a := Aspect{int(width), int(height)}
	if idc != extendedAspect {
		a = Aspect{}
		if int(idc) < len(aspects) {
			a = aspects[idc]
		}
	}
	if a.Width == 0 || a.Height == 0 || a.Width == a.Height {
		return Aspect{}
	}
	d := gcd(a.Width, a.Height)
	return Aspect{a.Width / d, a.Height / d}
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
