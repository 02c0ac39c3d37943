package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/Eyevinn/mp4ff/mp4"

	"millrace/internal/testenv"
)

// track is what an init section says.
type track struct {
	video     bool
	timescale int64
	trex      *mp4.TrexBox
	init      []byte
}

// sample is one access unit of a fragment, in its track's timescale.
type sample struct {
	dts, pts, duration int64
	sync, idr          bool
	data               []byte
}

// parseInit reads an init section with one track.
func parseInit(data []byte) (*track, error) {
	f, err := mp4.DecodeFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if f.Init == nil || f.Init.Moov == nil || len(f.Init.Moov.Traks) != 1 || f.Init.Moov.Mvex == nil {
		return nil, errors.New("not an init section with one track")
	}
	trak := f.Init.Moov.Trak
	if trak.Edts != nil {
		return nil, errors.New("an edit list")
	}
	return &track{
		video: trak.Mdia.Hdlr.HandlerType == "vide", timescale: int64(trak.Mdia.Mdhd.Timescale),
		trex: f.Init.Moov.Mvex.Trex, init: data,
	}, nil
}

// parseFragments reads the samples of a segment or part.
func (tr *track) parseFragments(data []byte) ([]sample, error) {
	f, err := mp4.DecodeFile(bytes.NewReader(append(bytes.Clone(tr.init), data...)))
	if err != nil {
		return nil, err
	}
	var list []sample
	for _, s := range f.Segments {
		for _, frag := range s.Fragments {
			if len(frag.Moof.Trafs) != 1 {
				return nil, fmt.Errorf("%d tracks in a fragment", len(frag.Moof.Trafs))
			}
			full, err := frag.GetFullSamples(tr.trex)
			if err != nil {
				return nil, err
			}
			for _, x := range full {
				dts := int64(x.DecodeTime)
				list = append(list, sample{
					dts: dts, pts: dts + int64(x.CompositionTimeOffset), duration: int64(x.Dur),
					sync: !mp4.DecodeSampleFlags(x.Flags).SampleIsNonSync, idr: tr.video && hasIDR(x.Data), data: x.Data,
				})
			}
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no samples")
	}
	return list, nil
}

// hasIDR looks through the NAL units of an access unit with 4-byte lengths.
func hasIDR(data []byte) bool {
	for len(data) > 4 {
		n := int(binary.BigEndian.Uint32(data))
		if data[4]&0x1f == 5 {
			return true
		}
		if n < 0 || n > len(data)-4 {
			return false
		}
		data = data[4+n:]
	}
	return false
}

// checkSamples checks one segment: times without a hole, sync flags that tell
// the truth.
func (tr *track) checkSamples(list []sample) error {
	for i, x := range list {
		if x.duration <= 0 {
			return fmt.Errorf("sample %d lasts %d", i, x.duration)
		}
		if i > 0 && x.dts != list[i-1].dts+list[i-1].duration {
			return fmt.Errorf("sample %d is decoded at %d, the one before it ends at %d", i, x.dts, list[i-1].dts+list[i-1].duration)
		}
		if tr.video && x.sync != x.idr {
			return fmt.Errorf("sample %d: sync flag %t, IDR %t", i, x.sync, x.idr)
		}
		if !tr.video && !x.sync {
			return fmt.Errorf("audio sample %d isn't a sync sample", i)
		}
	}
	return nil
}

// decode decodes a file with ffmpeg, which leaves the CPU to encoders that work
// in real time; the least warning fails the test.
func decode(t testing.TB, what, path string) {
	t.Helper()
	out, err := exec.Command("nice", "-n", "19", testenv.FFmpeg(t), "-hide_banner", "-nostdin", "-v", "warning", "-xerror", "-i", path, "-fps_mode", "passthrough", "-f", "null", "-").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%s: decoding it: %v\n%s", what, err, lastLines(string(out), 6))
	}
}

// keep writes media into a file of the test.
func keep(t testing.TB, name string, pieces ...[]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, bytes.Join(pieces, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// frame is a decoded frame, or a packet: its time in seconds and a hash of it.
type frame struct {
	at   float64
	hash string
}

// frames decodes the pictures (selector "v") or copies the packets of the sound
// ("a"), in order of presentation.
func frames(t testing.TB, path, selector string) []frame {
	t.Helper()
	args := []string{"-hide_banner", "-nostdin", "-v", "error", "-i", path, "-map", "0:" + selector, "-fps_mode", "passthrough", "-copyts"}
	if selector == "a" {
		args = append(args, "-c", "copy")
	}
	cmd := exec.Command("nice", slices.Concat([]string{"-n", "19", testenv.FFmpeg(t)}, args, []string{"-f", "framemd5", "-"})...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("frames of %s: %v\n%s", path, err, stderr.String())
	}
	var list []frame
	num, den := 1.0, 1.0
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if base, ok := strings.CutPrefix(line, "#tb 0: "); ok {
			if _, err := fmt.Sscanf(base, "%g/%g", &num, &den); err != nil {
				t.Fatalf("framemd5: %q: %v", line, err)
			}
		}
		fields := strings.Split(line, ",")
		if strings.HasPrefix(line, "#") || len(fields) < 6 {
			continue
		}
		pts, err := strconv.ParseInt(strings.TrimSpace(fields[2]), 10, 64)
		if err != nil {
			t.Fatalf("framemd5: %q: %v", line, err)
		}
		list = append(list, frame{float64(pts) * num / den, strings.TrimSpace(fields[5])})
	}
	return list
}
