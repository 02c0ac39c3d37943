package encode

import "millrace/internal/media"

// What a process takes of memory, in bytes: what FFmpeg 5.1 was measured to map, with
// H.264, HEVC and AV1 from 360p to 2160p, one thread each, and somewhat more.
const (
	processMemory = 48 << 20
	// sparePictures are those that decoder and filters have in hand beside the kept ones:
	// deinterlacing looks at three.
	sparePictures = 5
	// A rung takes so much for each of its pixels: scaled pictures and x264's own, of a
	// fast preset, and more where tones are mapped in floating point.
	rungMemory    = 32
	toneMapMemory = 32
	// thumbnailMemory is that of the picture for listings.
	thumbnailMemory = 8 << 20
	// soundMemory is that of a process that encodes sound.
	soundMemory = 64 << 20
	// overlap is how much of a broadcast's processes there are at most in a while: those of
	// one segment end while the next one's begin.
	overlap = 1.5
	// limitRoom and limitFactor are how far beyond that a process may go before it fails:
	// FFmpeg 7 has threads, whose stacks count whole, and queues between them, and another
	// preset keeps more.
	limitRoom   = 128 << 20
	limitFactor = 1.5
	// pixelMargin is how much larger than it says the decoder may find a picture to be, in
	// width and in height: it counts what it rounds up.
	pixelMargin = 128
)

// picture is the source's; where that isn't known, the largest.
func (j Job) picture() media.Picture {
	p := j.Picture
	if p.Area() == 0 {
		p.Decoded = media.Decoded{Width: 4096, Height: media.MaxPictureArea / 4096}
		p.Chroma, p.Depth = media.Chroma420, 10
	}
	if p.Decoded.Pictures == 0 {
		p.Decoded.Pictures = media.MaxKeptPictures / 2
	}
	return p
}

// memory is what a process needs for the job.
func (j Job) memory() int64 {
	p := j.picture()
	m := int64(processMemory) + int64(p.Decoded.Pictures+p.Decoded.Delayed+sparePictures)*int64(p.Bytes())
	for _, r := range j.Rungs {
		perPixel := int64(rungMemory)
		if j.Look.tonesMapped() {
			perPixel += toneMapMemory
		}
		m += perPixel * int64(r.Width) * int64(r.Height)
	}
	if j.Thumbnail {
		m += thumbnailMemory
	}
	return m
}

// limit is what the process gets at most.
func (j Job) limit() int64 { return limited(j.memory()) }

func limited(memory int64) int64 { return int64(limitFactor*float64(memory)) + limitRoom }

// maxPixels is the area of a picture above which the decoder refuses it: whatever its
// parameter sets or its own header say, and wherever they stand.
func (j Job) maxPixels() int {
	d := j.picture().Decoded
	return (d.Width + pixelMargin) * (d.Height + pixelMargin)
}
