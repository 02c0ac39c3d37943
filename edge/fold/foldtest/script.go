// Package foldtest tells a fold what workers would, in a short notation, for tests.
package foldtest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/edge/fold"
	"millrace/internal/index"
	"millrace/internal/jobs"
	"millrace/internal/media"
)

// The media that scripts tell of.
const (
	Profile   = "p1"
	PartTicks = media.Ticks(30000) // 1/3 s
	PartsEach = 6
)

// Settings are those of the broadcast that scripts tell of: a source and sound.
func Settings() *index.Broadcast {
	return &index.Broadcast{
		TargetDuration: 4, PartTarget: PartTicks, PartHoldBack: 108000,
		Started: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC),
		Renditions: []index.Rendition{
			{Name: "source", Kind: media.Video, Source: true, Codec: "avc1.64001f", Width: 1280, Height: 720, FrameRate: 30, MaxBitrate: 5_000_000},
			{Name: "audio", Kind: media.Audio, Codec: "mp4a.40.2", MaxBitrate: 128_000, Channels: 2},
		},
	}
}

// Script tells a fold entries in a short notation, one follow line a line,
// entries of one line separated by " + ":
//
//	broadcast [audio-only] [source=CODEC] [range=PQ] [720p] [ladder]
//	init R HASH [codec=] [size=WxH]
//	part R SEQUENCE PART [ticks=] [independent] [init=] [disc=] [profile=] [writer=L.G] [time=seconds]
//	segment R SEQUENCE [ticks=] [parts=] [bytes=] ...
//	whole R FROM TO ...      segments with 6 parts each; the last part shares a line with its segment
//	gap R SEQUENCE, pause [SEQUENCE], end SEQUENCE
//	begin, wait SECONDS, endnow
//	window SECONDS           of the playlists; before anything else
//
// What the fold asks is answered with yes.
type Script struct {
	T    testing.TB
	Fold *fold.Fold
	// Now is the time of the next wait.
	Now time.Time
}

// Play returns a fold that has been told what text says, with playlists of 20 s.
func Play(t testing.TB, text string) *Script {
	t.Helper()
	s := &Script{T: t, Fold: fold.New(20 * time.Second), Now: Settings().Started}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		if line != "" {
			s.Line(strings.TrimSpace(line))
		}
	}
	return s
}

// Line tells one line of the script.
func (s *Script) Line(line string) {
	s.T.Helper()
	defer func() { Answer(s.Fold) }()
	words := strings.Fields(line)
	switch words[0] {
	case "window":
		s.Fold = fold.New(time.Duration(s.number(words[1])) * time.Second)
		return
	case "begin":
		s.Fold.Begin()
		return
	case "endnow":
		s.Fold.EndNow()
		return
	case "wait":
		s.GiveUp(s.Now)
		s.Now = s.Now.Add(time.Duration(s.number(words[1])) * time.Second)
		s.GiveUp(s.Now)
		return
	case "whole":
		s.tellWhole(words[1], s.number(words[2]), s.number(words[3]), strings.Join(words[4:], " "))
		return
	}
	var entries []index.Entry
	for text := range strings.SplitSeq(line, " + ") {
		entries = append(entries, s.Entry(strings.Fields(text)))
	}
	// Through the wire form, as a worker would send it.
	doc, err := index.AppendLine(nil, entries)
	if err != nil {
		s.T.Fatal(err)
	}
	if entries, err = index.ParseLine(doc); err != nil {
		s.T.Fatalf("%s: %v", line, err)
	}
	s.Fold.Apply(entries)
}

// tellWhole tells whole segments, part by part.
func (s *Script) tellWhole(rendition string, from, to int, options string) {
	s.T.Helper()
	for n := from; n <= to; n++ {
		for part := range PartsEach {
			entry := fmt.Sprintf("part %s %d %d %s", rendition, n, part, options)
			if part == 0 {
				entry += " independent"
			}
			if part == PartsEach-1 {
				entry += fmt.Sprintf(" + segment %s %d parts=6 %s", rendition, n, options)
			}
			s.Line(entry)
		}
	}
}

// GiveUp has the fold give up what it has waited for long enough.
func (s *Script) GiveUp(now time.Time) {
	s.Fold.GiveUp(now)
	Answer(s.Fold)
}

// Answer answers all that a fold asks with yes.
func Answer(f *fold.Fold) {
	for {
		q, ok := f.Question()
		if !ok {
			return
		}
		f.Answer(q, true)
	}
}

func (s *Script) number(word string) int {
	s.T.Helper()
	n, err := strconv.Atoi(word)
	if err != nil {
		s.T.Fatal(err)
	}
	return n
}

// Entry returns the entry that words, a part of a line, are about.
func (s *Script) Entry(words []string) index.Entry {
	s.T.Helper()
	e := index.Entry{Type: index.Type(words[0]), Writer: jobs.Epoch{Lease: 1, Grant: 1}, Epoch: 7, Profile: Profile}
	words = words[1:]
	take := func() string {
		word := words[0]
		words = words[1:]
		return word
	}
	switch e.Type {
	case index.TypeBroadcast:
		e.Broadcast = Settings()
	case index.TypeInit:
		e.Rendition, e.Init = take(), take()
	case index.TypePart, index.TypeSegment, index.TypeGap:
		e.Rendition = take()
		e.Sequence = uint64(s.number(take()))
		e.Time = Settings().Started.Add(time.Duration(e.Sequence) * 2 * time.Second)
		e.Init = "i" + e.Rendition
		e.Duration = PartsEach * PartTicks
		if e.Type == index.TypePart {
			e.Part, e.Duration, e.Size = s.number(take()), PartTicks, 1000
		} else if e.Type == index.TypeSegment {
			e.Size = 6000
		}
	case index.TypePause, index.TypeEnd:
		if len(words) > 0 {
			e.Sequence = uint64(s.number(take()))
		}
	}
	for _, word := range words {
		s.setOption(&e, word)
	}
	return e
}

func (s *Script) setOption(e *index.Entry, word string) {
	s.T.Helper()
	name, value, _ := strings.Cut(word, "=")
	switch name {
	case "audio-only":
		e.Broadcast.Renditions = e.Broadcast.Renditions[1:]
	case "source":
		e.Broadcast.Renditions[0].Codec = value
	case "range":
		e.Broadcast.Renditions[0].Range = media.Range(value)
	case "720p":
		e.Broadcast.Renditions = append(e.Broadcast.Renditions, index.Rendition{
			Name: "720p30", Kind: media.Video, Codec: "avc1.64001f", Width: 1280, Height: 720, FrameRate: 30, MaxBitrate: 3_000_000,
		})
	case "ladder":
		e.Broadcast.Renditions = append(e.Broadcast.Renditions, index.Rendition{
			Name: "360p30", Kind: media.Video, Codec: "avc1.4d401e", Width: 640, Height: 360, FrameRate: 30, MaxBitrate: 800_000,
		})
	case "ticks":
		e.Duration = media.Ticks(s.number(value))
	case "independent":
		e.Independent = true
	case "init":
		e.Init = value
	case "disc":
		e.Discontinuity = uint64(s.number(value))
	case "profile":
		e.Profile = value
	case "parts":
		e.Parts = s.number(value)
	case "bytes":
		e.Size = s.number(value)
	case "epoch":
		e.Epoch = uint64(s.number(value))
	case "codec":
		e.Codec = value
	case "size":
		if _, err := fmt.Sscanf(value, "%dx%d", &e.Width, &e.Height); err != nil {
			s.T.Fatal(err)
		}
	case "time":
		e.Time = Settings().Started.Add(time.Duration(s.number(value)) * time.Second)
	case "notime":
		e.Time = time.Time{}
	case "writer":
		if _, err := fmt.Sscanf(value, "%d.%d", &e.Writer.Lease, &e.Writer.Grant); err != nil {
			s.T.Fatal(err)
		}
	default:
		s.T.Fatalf("unknown option %s", word)
	}
}
