package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"

	"millrace/transcode"
)

// ffmpegStart is how long an ffmpeg may take to say what it is: on a machine that has
// much else to do its libraries alone take seconds.
const ffmpegStart = 30 * time.Second

// findFFmpeg returns the path of an ffmpeg that has what transcode needs.
func findFFmpeg(ctx context.Context, name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("ffmpeg isn't installed (looked for %q): run \"apt-get install ffmpeg\" (or your system's like), or name the program with --ffmpeg", name)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, ffmpegStart, fmt.Errorf("it doesn't answer within %s", ffmpegStart))
	defer cancel()
	return path, transcode.CheckFFmpeg(ctx, path)
}
