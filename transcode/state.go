package transcode

import (
	"time"

	"millrace/internal/jobs"
	"millrace/internal/lease"
)

// phase is where an assignment stands.
type phase int

const (
	// phaseWorking: the claim is open, and the log is read.
	phaseWorking phase = iota
	// phaseDoubting: the log broke off. With a live ingest the claim stays open, and
	// the assignment ends; with a dead one the claim is about to break, too.
	phaseDoubting
	// phaseRelieved: the claim is open, and somebody else goes on where this worker
	// stops: another worker, or another ingest with any.
	phaseRelieved
	// phaseStoring: relieved, and all is made; what is made isn't all in S3 yet.
	phaseStoring
	// phaseMade: all is made to the broadcast's end; ingest ends the claim.
	phaseMade
	// phaseEnding: ingest ended the claim; the log's last marks are waited for.
	phaseEnding
	// phaseDetached: the claim broke off. The ingest may be dead, or only out of reach:
	// nothing is given up that another ingest, or this one, may ask for.
	phaseDetached
	// phaseFinishing: there is no claim and nothing to decide; what is whole is still made.
	phaseFinishing
	// phaseOver: the assignment ends with the state's result.
	phaseOver
)

// state is what an assignment knows of its claim, its log and its worker. The
// zero value is that of a new assignment, once reading is set.
type state struct {
	phase phase
	// reading is set while the log is read.
	reading bool
	// result is what the assignment ends with; in doubting, why the log broke off.
	result error
	// due is when something is done unless something happens before: in doubting
	// and ending the phase ends, in detached Redis is looked at.
	due time.Time
	// since is when the claim broke off, taken when another ingest was first seen
	// to hold the lease. Zero: not so far.
	since, taken time.Time
	// own is the grant's epoch, broadcast what it is for.
	own       jobs.Epoch
	broadcast string
}

// eventKind tells what happened.
type eventKind int

const (
	// eventTick: time has passed.
	eventTick eventKind = iota
	// eventWorkerDone: the worker has returned, with err.
	eventWorkerDone
	// eventTakenOver: ingest says that another worker makes segment until and what follows.
	eventTakenOver
	// eventClaimEnded: ingest ended the claim, and says why.
	eventClaimEnded
	// eventClaimBroke: the claim's connection ended without a word.
	eventClaimBroke
	// eventLogLost: the log can't be read any more, because of err.
	eventLogLost
	// eventLogMoved: the log ended at a pause: another ingest goes on with the broadcast.
	eventLogMoved
	// eventClosedShort: another ingest has asked for the open segment's end, and has it.
	eventClosedShort
	// eventLooked: Redis was looked at, as found says.
	eventLooked
)

// event is something that happened to an assignment.
type event struct {
	kind eventKind
	at   time.Time
	// stored is set when all that is made is in S3.
	stored bool
	// ended is set with workerDone when the worker has published the broadcast's end.
	ended bool
	err   error
	until uint64
	why   string
	found found
}

// found is what Redis says of a channel: its newest broadcast, and, while that
// and its lease are the assignment's, the epoch of who has the slot.
type found struct {
	record lease.Record
	slot   jobs.Epoch
	err    error
}

// actionKind tells what to do.
type actionKind int

const (
	// actStopAt: the worker makes no more than what comes before segment until.
	actStopAt actionKind = iota
	// actEndAtPause: the worker ends where the log ended, if that is at a pause; what
	// follows is logMoved.
	actEndAtPause
	// actDrop: the worker gives up the open segment.
	actDrop
	// actTellDetached: it is told, and counted, that the claim broke off.
	actTellDetached
	// actAnnouncePause: viewers are told that nothing comes for now.
	actAnnouncePause
	// actLook: look at Redis; what follows is looked.
	actLook
	// actEndBroadcast: the open segment and the broadcast end after the last frame.
	actEndBroadcast
)

// action is something that an assignment is to do.
type action struct {
	kind  actionKind
	until uint64
	// why is what to tell the operator, if anything, and err goes with it.
	why string
	err error
}
