// Package e2e holds the tests of the whole: they run the real binary with a
// real Redis and S3, publish to it with ffmpeg, and play what comes out with an
// LL-HLS reader of their own that takes the specification at its word, with
// gohlslib, with ffmpeg and in a headless Chromium. A file is a user's story.
package e2e
