package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"

	"millrace/transcode"
)

// findFFmpeg returns the path of an ffmpeg that has what transcode needs.
func findFFmpeg(ctx context.Context, name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("ffmpeg isn't installed (looked for %q): run \"apt-get install ffmpeg\" (or your system's like), or name the program with --ffmpeg", name)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return path, transcode.CheckFFmpeg(ctx, path)
}
