package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// findFFmpeg returns the path of an ffmpeg that can encode H.264 and AAC.
func findFFmpeg(ctx context.Context, name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("ffmpeg isn't installed (looked for %q): run \"apt-get install ffmpeg\" (or your system's like), or name the program with --ffmpeg", name)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "-hide_banner", "-loglevel", "error", "-encoders").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s doesn't run: %w: %s", path, err, strings.TrimSpace(string(out)))
	}
	for _, encoder := range []string{"libx264", "aac"} {
		if !strings.Contains(string(out), " "+encoder+" ") {
			return "", fmt.Errorf("%s was built without the encoder %s: install your system's full ffmpeg package, or name another program with --ffmpeg", path, encoder)
		}
	}
	return path, nil
}
