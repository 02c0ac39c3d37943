package encode

import (
	"fmt"
	"strings"

	"millrace/internal/media"
)

// Look is what is done to the source's pictures before and while they are scaled,
// so that they look the same in every rung: as wide, of the same colours, and whole.
type Look struct {
	// Aspect is the shape of the source's samples; those of rungs are square.
	Aspect media.Aspect
	// Colour is the source's, as far as that is known.
	Colour media.Colour
	// Fields is set where a frame may consist of two fields, which are made one picture.
	Fields bool
	// keepHDR leaves HDR what it is.
	keepHDR bool
}

// tonesMapped reports whether SDR is made of HDR.
func (l Look) tonesMapped() bool { return l.Colour.Range() != media.SDR && !l.keepHDR }

// bigWidth and bigHeight are from where on a picture whose colours nobody states
// is taken for high definition, which has those of BT.709, by most players.
const (
	bigWidth  = 1280
	bigHeight = 577
)

// LookOf returns the look of a source's pictures.
func LookOf(p media.Picture) Look {
	l := Look{Aspect: p.Aspect, Colour: p.Colour.Complete(), Fields: p.Interlaced}
	if l.Colour.Matrix == media.Unspecified && (p.Width >= bigWidth || p.Height >= bigHeight) {
		// A player that sees no more than a small rung would guess otherwise. Small
		// sources don't say more than they do: each player guesses the same of all.
		l.Colour = media.Colour{Primaries: media.BT709, Transfer: media.BT709, Matrix: media.BT709}
	}
	return l
}

// decoded is the part of a filter graph that all outputs share: it says what the
// source's configuration does, and joins fields. Frames that aren't interlaced stay
// as they are.
func (l Look) decoded() string {
	c := l.Colour
	s := fmt.Sprintf("setparams=color_primaries=%d:color_trc=%d:colorspace=%d,", c.Primaries, c.Transfer, c.Matrix)
	if !l.Aspect.Square() {
		s += fmt.Sprintf("setsar=%d/%d,", l.Aspect.Width, l.Aspect.Height)
	}
	if l.Fields {
		s += "bwdif=mode=send_frame:deint=interlaced,"
	}
	return s
}

// toneMapping turns HDR into the ordinary range: light itself is mapped, of which
// 100 cd/m² are white on an ordinary screen, and what is brighter comes close to it.
const toneMapping = "format=yuv420p10le,zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709," +
	"tonemap=hable:desat=0:peak=10,zscale=t=bt709:m=bt709:r=tv,"

// scaled is the part of a filter graph that makes one rung's pictures: 8 bits,
// 4:2:0, black at 16, of square samples.
func (l Look) scaled(r Rung) string {
	var b strings.Builder
	fmt.Fprintf(&b, "scale=%d:%d:flags=bicubic+accurate_rnd+bitexact:out_range=tv", r.Width, r.Height)
	switch {
	case l.tonesMapped():
		b.WriteString("," + toneMapping)
	case l.Colour.Matrix == media.RGB:
		fmt.Fprintf(&b, ":out_color_matrix=bt709,format=yuv420p,setparams=colorspace=%d,", media.BT709)
	default:
		b.WriteString(",")
	}
	b.WriteString("setsar=1,format=yuv420p")
	return b.String()
}

// listed is the part that makes the picture for listings, whose colours are those
// of all JPEGs.
func (l Look) listed() string {
	s := fmt.Sprintf("scale=%d:'min(%d,max(2,trunc(ow/dar/2+0.5)*2))':flags=bilinear,setsar=1,", thumbnailWidth, thumbnailHeight)
	if l.tonesMapped() {
		s += toneMapping
	}
	return s + "scale=out_color_matrix=bt601:out_range=pc,format=yuvj420p"
}
