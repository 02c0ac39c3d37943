package ingest

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"millrace/ingest/front"
	"millrace/ingest/timeline"
	"millrace/internal/lease"
	"millrace/internal/media"
	"millrace/internal/rate"
	"millrace/internal/relay"
)

const (
	// publisherSilence ends a publisher that sends nothing.
	publisherSilence = 30 * time.Second
	// picturesLate is how long pictures that were announced may take to come.
	picturesLate = 10 * time.Second
	// keyframeLimit ends a publisher that sends no keyframe.
	keyframeLimit = 30 * time.Second
	// setsLate is how long parameter sets are waited for before the streamer hears of it.
	setsLate = 5 * time.Second
	// keyframeEvery is how far apart keyframes are at most of an encoder that can be
	// asked for them: a segment's length.
	keyframeEvery = 2 * time.Second
	// longestWait is how long one unit of a publisher that is ahead of its time waits.
	longestWait = time.Second
)

// flowLimit bounds the bytes that a broadcast's publishers send.
var flowLimit = rate.Limit{PerSecond: front.MaxBitrate / 8, Size: front.BitrateSpan * front.MaxBitrate / 8}

// publisher is one ingest connection of a broadcast, which its front writes to.
type publisher struct {
	broadcast *broadcast
	end       func(front.Refusal) // ends its connection
	request   func()              // asks the encoder for a keyframe; may be nil
	logger    *slog.Logger

	// guarded by the source's lock
	last     time.Time // of the newest audio or video
	health   health
	asked    time.Time          // for a keyframe
	keyframe time.Time          // of the newest one, by our clock; before it, of the connection
	began    time.Time          // when the first frame came
	from     media.Ticks        // where it lies on the timeline
	lead     time.Duration      // how far the newest frame is ahead of the clock
	fault    front.Fault        // the newest by which a picture was lost,
	faulted  time.Time          // and when that was
	has      map[problem]string // the problems there are, in words
	without  *front.Refusal     // why there is no sound; nil while there may be
	told     map[problem]time.Time
	turned   media.Orientation // that the newest keyframe asks for
}

// newPublisher makes the publisher of a request.
func newPublisher(b *broadcast, r front.Request, now time.Time) *publisher {
	return &publisher{broadcast: b, end: r.End, request: r.RequestKeyframe, last: now, keyframe: now, logger: b.logger.With("remote", r.Remote)}
}

// heldNotice is for how long pictures are missing before the streamer is told.
const heldNotice = 3 * time.Second

// adviceInterval is how often the log repeats a problem that stays.
const adviceInterval = time.Minute

// FrameRate takes the frame rate that the encoder claims.
func (p *publisher) FrameRate(claimed float64) {
	s := &p.broadcast.source
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.publisher == p && claimed >= 1 && claimed <= 240 {
		s.seq.Claim(claimed)
		p.health.nominal = claimed
	}
}

// FurtherTracks tells the streamer that only the first track is shown.
func (p *publisher) FurtherTracks() {
	p.tell(advice{problemTracks, "the encoder sends several tracks of pictures or of sound: viewers get the first one, further tracks are left out"})
}

// Fault tells the streamer what is wrong with how pictures or sound are packed.
func (p *publisher) Fault(f front.Fault) {
	now := time.Now()
	s := &p.broadcast.source
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.publisher != p {
		return
	}
	if p.last = now; f.OfPictures() {
		s.seq.ExpectPictures()
	}
	if f.LosesPicture() {
		p.fault, p.faulted = f, now
	}
	if f == front.FaultParameterSets && s.seq.Codec(media.Video) == nil && now.Sub(p.keyframe) < setsLate {
		return // it began between two keyframes, with which they come
	}
	p.note([]advice{{problem(f), f.Advice()}})
	if f == front.FaultBounds {
		s.left = p.advice() // its front refuses it
	}
}

// LeaveOut tells the streamer why there is no sound.
func (p *publisher) LeaveOut(why *front.Refusal) {
	s := &p.broadcast.source
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.publisher == p {
		p.without = why
		p.note([]advice{{problemSound, why.Text + " Until then viewers hear silence."}})
	}
}

// tell tells the streamer what its front found.
func (p *publisher) tell(a advice) {
	s := &p.broadcast.source
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.publisher == p {
		p.note([]advice{a})
	}
}

// take counts what was received. An error ends the publisher: it sends more than
// any broadcast needs, however often it connects. The caller holds the source's lock.
func (p *publisher) take(bytes int, now time.Time) error {
	p.last = now
	if p.broadcast.source.flow.Add(float64(bytes), flowLimit, now) {
		return front.TooMuch(front.MaxBitrate)
	}
	return nil
}

// refuse returns why the publisher ends, which the streamer can still read in the channel's
// health when it is gone. The caller holds the source's lock.
func (p *publisher) refuse(what problem, why *front.Refusal) error {
	p.note([]advice{{what, why.Text}})
	p.broadcast.source.left = p.advice()
	return why
}

// breaks counts a discontinuity that the publisher makes. An error ends it: each
// begins a segment. The caller holds the source's lock.
func (p *publisher) breaks(now time.Time) error {
	if !p.broadcast.service.breaks.take(p.broadcast.channel, now) {
		return p.refuse(problemBreaks, refusalBreaks)
	}
	return nil
}

// pace notes how far the newest frame is ahead of the clock. Timestamps' jumps are
// closed up before. The caller holds the source's lock.
func (p *publisher) pace(now time.Time) {
	newest := p.broadcast.source.seq.Newest()
	if p.began.IsZero() {
		p.began, p.from = now, newest
	}
	if p.lead = (newest - p.from).Duration() - now.Sub(p.began); p.lead > p.broadcast.service.cfg.MaxAhead {
		p.note([]advice{{problemFast, "the encoder sends faster than real time and is slowed down (with ffmpeg: add -re before -i)"}})
	}
}

// timed looks at the time of the newest frame, before which timestamps may have
// jumped. An error ends the publisher. The caller holds the source's lock.
func (p *publisher) timed(jumped bool, now time.Time) error {
	p.pace(now)
	if !jumped {
		return nil
	}
	p.jumped()
	return p.breaks(now)
}

// Pace is how long the front should wait before it reads on.
func (p *publisher) Pace() time.Duration {
	p.broadcast.source.mu.Lock()
	defer p.broadcast.source.mu.Unlock()
	return min(max(0, p.lead-p.broadcast.service.cfg.MaxAhead), longestWait)
}

// overdue returns why the publisher must end: it sends nothing, or nothing that
// can be shown. The caller holds the source's lock.
func (p *publisher) overdue(now time.Time) *front.Refusal {
	switch {
	case now.Sub(p.last) >= publisherSilence && p.without != nil:
		return p.without // all that it sends can't be used
	case now.Sub(p.last) >= publisherSilence:
		return &front.Refusal{Kind: front.Failed, Reason: front.Silent, Text: "Nothing was received for 30 s."}
	case p.broadcast.source.seq.Held() > 0: // sound comes, and that is enough
	case !p.broadcast.source.seq.PicturesDue() || now.Sub(p.keyframe) < keyframeLimit:
	case p.unreadable(now):
		return &front.Refusal{Kind: front.Failed, Reason: front.Unreadable, Text: "No picture that could be shown for 30 s: " + p.fault.Advice() + "."}
	default:
		return p.health.keyframes.refusal()
	}
	return nil
}

// unreadable reports whether pictures come that can't be put together. The caller
// holds the source's lock.
func (p *publisher) unreadable(now time.Time) bool {
	return p.fault != "" && now.Sub(p.faulted) < keyframeLimit/2
}

// Config takes the codec of a track.
func (p *publisher) Config(c *media.Codec) error {
	now := time.Now()
	s := &p.broadcast.source
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.publisher != p {
		return nil
	}
	if err := p.take(len(c.Record), now); err != nil {
		return err
	}
	if !s.seq.Has(c.Kind()) {
		p.tooLate(c.Kind())
		return nil
	}
	text := changed(c)
	if c.Kind() == media.Audio && s.seq.Mute() {
		text = "the sound began after the pictures: players see a short break"
	}
	if !s.settings.add(c) {
		return p.refuse(problemSettings, refusalSettings)
	}
	if s.seq.SetCodec(c) {
		if _, open := s.seq.Mark(); open { // else nobody watches what was before
			p.note([]advice{{problemChanged, text}})
		}
		if err := p.breaks(now); err != nil {
			return err
		}
	}
	if c.Kind() == media.Video {
		p.pictures(c)
	} else {
		p.without = nil
		p.note(soundAdvice(c))
	}
	return nil
}

// changed tells the streamer of a track's new codec.
func changed(c *media.Codec) string {
	if c.Kind() == media.Video {
		return fmt.Sprintf("the picture changed to %dx%d: players see a short break", c.Width, c.Height)
	}
	return fmt.Sprintf("the sound changed to %d Hz, %d channels: players see a short break", c.Rate, c.Channels)
}

// tooLate tells the streamer of a track that the broadcast has gone without. The
// caller holds the source's lock.
func (p *publisher) tooLate(track media.Kind) {
	if track == media.Video {
		p.note([]advice{{problemChanged, "pictures began in a broadcast without pictures: stop, wait for the broadcast to end, and start again to show them"}})
		return
	}
	p.note([]advice{{problemChanged, "sound began in a broadcast without sound: stop, wait for the broadcast to end, and start again to have it heard"}})
}

// pictures looks at the codec of the pictures. The caller holds the source's lock.
func (p *publisher) pictures(c *media.Codec) {
	s := &p.broadcast.source
	if s.width != c.Width || s.height != c.Height {
		p.logger.Info("video", "codec", c.Name, "width", c.Width, "height", c.Height)
	}
	p.note(pictureAdvice(c, p.turned))
	p.health.keyframes.format = c.Format
	s.format, s.width, s.height, s.universal, s.picture = c.Format, c.Width, c.Height, c.Universal, c.Picture
}

// Write takes a unit.
func (p *publisher) Write(u media.Unit) error {
	now := time.Now()
	s := &p.broadcast.source
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.publisher != p {
		return nil
	}
	if err := p.take(len(u.Payload), now); err != nil {
		return err
	}
	if !s.seq.Has(u.Track) {
		p.tooLate(u.Track)
		return nil
	}
	if len(u.Payload) == 0 || s.seq.Codec(u.Track) == nil {
		return nil
	}
	composition := u.PTS - u.DTS
	if composition > timeline.MaxComposition+media.TicksOf(s.seq.Held()) || composition < -timeline.MaxComposition || len(u.Payload) > relay.MaxPayload {
		p.broadcast.service.metrics.dropped.WithLabelValues("malformed").Inc()
		return nil
	}
	if u.Track == media.Video && s.seq.Start(&u, now) > media.NoStart {
		if o := s.seq.Codec(media.Video).Orientation(u.Payload); o != p.turned {
			p.turned = o
			p.note(pictureAdvice(s.seq.Codec(media.Video), o))
		}
		p.keyframe = now
	}
	at, jumped := s.seq.Push(u, now)
	if err := p.timed(jumped, now); err != nil {
		return err
	}
	if u.Track == media.Audio {
		p.health.audio(s.seq.Newest())
		p.held(s.seq.Held())
		if since := now.Sub(p.keyframe); since > picturesLate && s.seq.PicturesDue() && !p.health.keyframes.came && !p.unreadable(now) {
			p.note([]advice{p.health.missing(since)})
		}
		return nil
	}
	if s.seq.Waiting() {
		p.note(p.health.dropped(&u, now))
		return nil
	}
	u.DTS, u.PTS = at, at+u.PTS-u.DTS
	found, sum := p.health.video(&u, now)
	if p.unreadable(now) { // they aren't what is missing
		found = slices.DeleteFunc(found, func(a advice) bool { return a.Problem == problemNoKeyframe })
	}
	p.judge(found, sum)
	return nil
}

// askForKeyframe asks the encoder for a keyframe where the next segment should
// begin, if that can be done. The caller holds the source's lock.
func (p *publisher) askForKeyframe(now time.Time) {
	if p.request == nil || !p.broadcast.source.seq.PicturesDue() {
		return
	}
	if now.Sub(p.keyframe) >= keyframeEvery && now.Sub(p.asked) >= keyframeEvery/2 {
		p.asked = now
		p.request()
	}
}

// End comes once, when the connection is over.
func (p *publisher) End(clean bool) {
	b := p.broadcast
	b.source.mu.Lock()
	defer b.source.mu.Unlock()
	if b.source.publisher != p {
		return
	}
	b.detach()
	b.logger.Info("publisher gone, waiting for it", "stopped", clean, "grace", b.source.grace)
}

// held tells the streamer that pictures are missing, for how long. The caller holds
// the source's lock.
func (p *publisher) held(missing time.Duration) {
	if missing == 0 {
		return
	}
	p.health.held()
	p.keyframe = time.Now() // one is due only once pictures come
	if missing >= heldNotice {
		p.note([]advice{{problemHeld, fmt.Sprintf("no picture for %.0f s: viewers see the last one and go on hearing the sound; look whether the camera or the shared screen still runs", missing.Seconds())}})
	}
}

func (p *publisher) jumped() {
	p.health.jumped()
	p.note([]advice{{problemJump, "the timestamps jumped: players see a short break; if it happens often, restart the encoder"}})
}

// judge publishes what health found in a window.
func (p *publisher) judge(found []advice, sum *summary) {
	if sum != nil {
		m := &p.broadcast.service.metrics
		m.bitrate.Observe(sum.Bitrate)
		m.frameRate.Observe(sum.FrameRate)
		m.interval.Observe(sum.KeyframeInterval.Seconds())
		m.lag.Observe(sum.Late.Seconds())
		p.logger.Debug("stream health", "bitrate", int(sum.Bitrate), "frame_rate", sum.FrameRate,
			"keyframe_interval", sum.KeyframeInterval, "b_frames", sum.BFrames, "late", sum.Late)
		p.clearProblems()
		if c := p.broadcast.source.seq.Codec(media.Video); c != nil { // what it says stays true
			found = append(found, pictureAdvice(c, p.turned)...)
		}
		if c := p.broadcast.source.seq.Codec(media.Audio); c != nil {
			found = append(found, soundAdvice(c)...)
		}
		if p.broadcast.failing() {
			found = append(found, advice{problemFailing, "the server's encoder fails at these pictures again and again: viewers get nothing but the original, and it is tried again each minute; restart the encoder, with H.264, the profile high and the colour format NV12"})
		} else if n := p.broadcast.shed(); n > 0 {
			found = append(found, advice{problemShed, fmt.Sprintf("the server is short of room: who watches the highest %d of its own qualities sees a lower one or the original; what you send is fine and goes on", n)})
		}
		if n := p.broadcast.window(); n > 0 {
			found = append(found, advice{problemWindow, fmt.Sprintf("the server has no room to store more of this channel: viewers can go back %d s and no further; a lower bitrate makes that longer", n)})
		}
	}
	p.note(found)
}

// note counts advice and logs it, each problem at most once a minute.
func (p *publisher) note(found []advice) {
	m := &p.broadcast.service.metrics
	for _, a := range found {
		if p.has == nil {
			p.has, p.told = map[problem]string{}, map[problem]time.Time{}
		}
		_, had := p.has[a.Problem]
		if p.has[a.Problem] = a.Text; !had {
			m.problems.WithLabelValues(string(a.Problem)).Inc()
		}
		if time.Since(p.told[a.Problem]) < adviceInterval {
			continue
		}
		p.told[a.Problem] = time.Now()
		m.found.WithLabelValues(string(a.Problem)).Inc()
		p.logger.Warn("stream health: "+a.Text, "problem", string(a.Problem))
	}
}

// advice is what the streamer can read: the problems there are, as [lease.Record]
// has them. The caller holds the source's lock.
func (p *publisher) advice() string {
	var list []advice
	for _, name := range problems {
		if text, ok := p.has[name]; ok {
			list = append(list, advice{name, text})
		}
	}
	return written(list)
}

// written is advice as [lease.Record] has it.
func written(list []advice) string {
	if len(list) == 0 {
		return ""
	}
	var out []lease.Problem
	for _, a := range list {
		out = append(out, lease.Problem{Code: string(a.Problem), Text: a.Text})
	}
	doc, _ := json.Marshal(out) // strings always can
	return string(doc)
}

func (p *publisher) clearProblems() {
	for name := range p.has {
		p.broadcast.service.metrics.problems.WithLabelValues(string(name)).Dec()
	}
	clear(p.has)
}
