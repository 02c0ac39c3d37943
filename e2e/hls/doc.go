// Package hls is a reader of Low-Latency HLS that takes RFC 8216bis at its word:
// it follows all renditions of a broadcast as a player does, and what a playlist,
// a segment or an answer says that it must not say is an error. It shares no code
// with Millrace, so that a mistake isn't made on both sides.
package hls
