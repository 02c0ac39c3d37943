package main

// role is the command that a process was started with.
type role string

// The roles.
const (
	roleAll       role = "all"
	roleIngest    role = "ingest"
	roleTranscode role = "transcode"
	roleEdge      role = "edge"
	roleAPI       role = "api"
	roleChat      role = "chat"
)

// runs reports whether a process of this role runs a service.
func (r role) runs(service role) bool { return r == roleAll || r == service }

// public reports whether a process of this role serves HTTP to the world.
func (r role) public() bool { return r.runs(roleEdge) || r.runs(roleAPI) || r.runs(roleChat) }

// private reports whether a process of this role serves other services.
func (r role) private() bool { return r.runs(roleIngest) || r.runs(roleTranscode) }

// peer reports whether a process of this role talks with other services in private.
func (r role) peer() bool { return r.private() || r.runs(roleEdge) }

// bucket reports whether a process of this role needs S3.
func (r role) bucket() bool { return r.runs(roleTranscode) || r.runs(roleEdge) }

// ownsData reports whether a process of this role needs the data directory for
// itself alone.
func (r role) ownsData() bool { return r.runs(roleTranscode) }
