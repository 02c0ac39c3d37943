// Package e2e holds the tests of the whole, a file for each user's story: they
// run the real binary with a real Redis and S3, publish to it with ffmpeg, and
// play what comes out with the strict reader of e2e/hls, with gohlslib, with ffmpeg
// and in a headless Chromium. What stories share is in e2e/harness; e2e/chaos injects
// faults.
package e2e
