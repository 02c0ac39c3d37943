// Package viewer watches a broadcast while something is done to the services, and
// measures what a viewer has of it: the witness is our watch page in Chromium,
// the observer a strict reader of all renditions.
package viewer
