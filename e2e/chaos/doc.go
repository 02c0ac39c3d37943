// Package chaos injects faults into the real processes while a browser watches,
// and measures what a viewer has of them: make chaos writes the table in
// docs/chaos.md. The tests are built with the tag chaos.
package chaos
