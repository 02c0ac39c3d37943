// Package web holds the built front end: the home page, which lists who is
// live, and the watch page with the player. `npm ci && npm run build` in this
// folder writes dist; the api service serves it.
package web

import (
	"embed"
	"io/fs"
)

//go:embed all:dist
var dist embed.FS

// Files returns the built front end: index.html, to be served under "/" and
// "/{channel}", and assets/ with content-hashed names, which may be cached
// forever. In a tree where the front end wasn't built it has no index.html.
// It is safe for concurrent use.
func Files() fs.FS {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // "dist" is a valid path: the compiler embedded it
	}
	return files
}
