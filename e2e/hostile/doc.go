// Package hostile does to a running millrace what strangers, viewers, streamers and
// web pages could do to it, while a browser watches and a publisher publishes beside,
// and measures what they have of it: make hostile writes the table in
// docs/security.md. The tests are built with the tag hostile.
package hostile
