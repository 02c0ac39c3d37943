package hls

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// decode decodes a file with ffmpeg, which leaves the CPU to encoders that work
// in real time; the least warning fails the test.
func decode(t testing.TB, what, path string) {
	t.Helper()
	out, err := exec.Command("nice", "-n", "10", "ffmpeg", "-hide_banner", "-nostdin", "-v", "warning", "-xerror", "-i", path, "-fps_mode", "passthrough", "-f", "null", "-").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%s: decoding it: %v\n%s", what, err, out[max(0, len(out)-600):])
	}
}

// KeepFile writes media into a file of the test.
func KeepFile(t testing.TB, name string, pieces ...[]byte) string {
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
	cmd := exec.Command("nice", slices.Concat([]string{"-n", "10", "ffmpeg"}, args, []string{"-f", "framemd5", "-"})...)
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
