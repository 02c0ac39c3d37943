// Package harness runs the real millrace for tests: whole or as single services,
// with publishers (ffmpeg, and an RTMP encoder that is written byte by byte) and
// a headless Chromium that watches.
package harness
