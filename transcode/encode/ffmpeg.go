package encode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"millrace/internal/child"
	"millrace/internal/flv"
	"millrace/internal/matroska"
	"millrace/internal/media"
)

const (
	// backgroundNice is the niceness of what isn't live.
	backgroundNice = 15
	// maxThumbnail bounds a JPEG, in bytes.
	maxThumbnail = 1 << 20
	// feedQueue bounds the pictures that wait for a process, in access units:
	// more than a segment at any sensible frame rate.
	feedQueue = 4096
)

// FFmpeg is the program and what is known of it.
type FFmpeg struct {
	path  string
	build string // version, configuration and library versions: part of every rung's profile
	// keepsHDR is set where the filters are missing that make SDR of HDR.
	keepsHDR bool
	cpu      string // what the processor can do
	// Unlimited is why its processes' memory can't be bounded here; nil where it can.
	Unlimited error
}

// FindFFmpeg asks the program for its build, and that it has what is needed.
func FindFFmpeg(ctx context.Context, path string) (*FFmpeg, error) {
	ask := func(what string) ([]byte, error) {
		out, err := exec.CommandContext(ctx, path, "-hide_banner", "-loglevel", "error", what).CombinedOutput()
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause // not "signal: killed"
		}
		if err != nil {
			return nil, fmt.Errorf("%s doesn't run: %w: %.200s", path, err, bytes.TrimSpace(out))
		}
		return out, nil
	}
	out, err := ask("-version")
	if err != nil {
		return nil, err
	}
	encoders, err := ask("-encoders")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"libx264", "aac", "mjpeg"} {
		if !bytes.Contains(encoders, []byte(" "+name+" ")) {
			return nil, fmt.Errorf("%s was built without the encoder %s: install your system's full ffmpeg package, or name another program with --ffmpeg", path, name)
		}
	}
	filters, err := ask("-filters")
	if err != nil {
		return nil, err
	}
	f := &FFmpeg{path: path, build: string(out), cpu: cpuFlags()}
	f.Unlimited = f.tryLimit(ctx)
	for _, name := range []string{"zscale", "tonemap"} {
		f.keepsHDR = f.keepsHDR || !bytes.Contains(filters, []byte(" "+name+" "))
	}
	return f, nil
}

// tryLimit tries whether a process can be limited.
func (f *FFmpeg) tryLimit(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, f.path, "-version")
	if err := cmd.Start(); err != nil {
		return err
	}
	err := child.Limit(cmd, limited(processMemory))
	if ended := cmd.Wait(); err == nil && ended != nil {
		err = fmt.Errorf("it ends under a limit: %w", ended)
	}
	return err
}

// buildFor names what decides, besides its arguments, which bytes a process makes:
// the build and, where tones are mapped, the processor, since the light of a picture
// is reckoned in floating point, in as large vectors as there are.
func (f *FFmpeg) buildFor(l Look) string {
	if !l.tonesMapped() || f.keepsHDR {
		return f.build
	}
	return f.build + f.cpu
}

// cpuFlags returns the processor's features as Linux lists them; empty where it doesn't.
func cpuFlags() string {
	info, _ := os.ReadFile("/proc/cpuinfo") // without it, workers take each other for alike
	for line := range strings.Lines(string(info)) {
		if name, flags, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "flags" || strings.TrimSpace(name) == "Features" {
			return strings.TrimSpace(flags)
		}
	}
	return ""
}

// output is one thing that an encoder's process made.
type output struct {
	encoder *encoder
	rung    int // index into the job's rungs
	// Exactly one of the following is set.
	config    *media.Codec
	frame     *media.Unit // its time counted from the first picture fed
	thumbnail []byte
	exit      *exit
}

// exit is a process's end.
type exit struct {
	err    error // nil after a clean end; names the tail of what it complained
	memory bool  // it wanted more memory than it gets
	cpu    time.Duration
}

// wantOfMemory is how FFmpeg and x264 say that they get no memory.
var wantOfMemory = []string{"Cannot allocate memory", "malloc of size"}

// process is one FFmpeg process that is fed Matroska on its standard input.
type process struct {
	cmd     *exec.Cmd
	feed    chan []byte // closed by finish
	stderr  child.Tail
	stop    context.CancelCauseFunc
	ctx     context.Context // ends with the process; os/exec needs it for as long
	running sync.WaitGroup
}

// start starts a process with pipes for its outputs, which the caller reads
// and closes, and with a limit on its memory. The caller must call wait.
func (f *FFmpeg) start(ctx context.Context, args []string, pipes int, memory int64) (*process, []*os.File, error) {
	p := &process{feed: make(chan []byte, feedQueue)}
	p.ctx, p.stop = context.WithCancelCause(ctx)
	p.cmd = exec.CommandContext(p.ctx, f.path, args...)
	p.cmd.Env = []string{"LC_ALL=C", "AV_LOG_FORCE_NOCOLOR=1"}
	p.cmd.Dir = os.TempDir()
	child.Prepare(p.cmd, syscall.SIGKILL)
	p.cmd.WaitDelay = time.Second
	p.cmd.Stderr = &p.stderr
	var readers []*os.File
	fail := func(err error) (*process, []*os.File, error) {
		closeAll(readers)
		closeAll(p.cmd.ExtraFiles)
		p.stop(nil)
		return nil, nil, fmt.Errorf("start ffmpeg: %w", err)
	}
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return fail(err)
	}
	for range pipes {
		r, w, err := os.Pipe()
		if err != nil {
			return fail(err)
		}
		readers = append(readers, r)
		p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, w)
	}
	if err := p.cmd.Start(); err != nil {
		return fail(err)
	}
	closeAll(p.cmd.ExtraFiles)
	_ = child.Limit(p.cmd, memory) // whether it can be limited was tried before
	p.running.Go(func() { p.write(stdin) })
	return p, readers, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// write feeds the process. It ends with the feed or the process.
func (p *process) write(stdin io.WriteCloser) {
	defer stdin.Close()
	for {
		select {
		case b, ok := <-p.feed:
			if !ok {
				return
			}
			if _, err := stdin.Write(b); err != nil {
				return // the process is gone, and its exit says why
			}
		case <-p.ctx.Done():
			return
		}
	}
}

// put queues Matroska for the process. One that doesn't keep up is ended.
func (p *process) put(b []byte) {
	select {
	case p.feed <- b:
	default:
		p.stop(errors.New("it doesn't keep up with what it is fed"))
	}
}

// finish says that all is fed: the process then ends.
func (p *process) finish() { close(p.feed) }

// background lets everything else go first.
func (p *process) background() {
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, p.cmd.Process.Pid, backgroundNice) // it may have ended
}

// wait reaps the process once its outputs are read.
func (p *process) wait() exit {
	err := p.cmd.Wait()
	x := exit{}
	if s := p.cmd.ProcessState; s != nil {
		x.cpu = s.UserTime() + s.SystemTime()
	}
	if cause := context.Cause(p.ctx); cause != nil {
		err = cause
	}
	said := p.stderr.Last(5)
	if err != nil {
		x.err = fmt.Errorf("ffmpeg: %w: %s", err, said)
	}
	if said != "" { // it may go on without what it couldn't decode
		x.memory = slices.ContainsFunc(wantOfMemory, func(words string) bool { return strings.Contains(said, words) })
	}
	return x
}

// discard ends the process at once; it doesn't wait for its end.
func (p *process) discard() { p.stop(errDiscarded) }

var errDiscarded = errors.New("not needed any more")

// encoder is one process that encodes a segment's rungs: started ahead of
// time, fed when its mark comes. But for the reading of its outputs, it belongs
// to the goroutine that feeds it.
type encoder struct {
	*process
	job      Job
	bound    chan struct{} // closed once out and gone are set
	out      chan<- output
	gone     <-chan struct{} // closed when nobody reads out any more
	exited   chan struct{}   // closed when the process has ended
	fed      bool
	base     media.Ticks // what the times that it is fed are counted from
	based    bool        // base is known
	watchdog watchdog
}

// startEncoder starts a process. What it makes goes to out until its exit,
// which comes last; whoever reads out must do so until then, or end ctx.
func (f *FFmpeg) startEncoder(ctx context.Context, job Job, out chan<- output) (*encoder, error) {
	e, err := f.startUnbound(ctx, job)
	if err == nil {
		e.bind(out, ctx.Done())
	}
	return e, err
}

// bind says where to put what the process makes. It is called once, before
// anything is fed.
func (e *encoder) bind(out chan<- output, gone <-chan struct{}) {
	e.out, e.gone = out, gone
	close(e.bound)
}

// startUnbound starts a process that waits until it is bound.
func (f *FFmpeg) startUnbound(ctx context.Context, job Job) (*encoder, error) {
	pipes := len(job.Rungs)
	if job.Thumbnail {
		pipes++
	}
	able := job
	able.Look.keepHDR = f.keepsHDR // the build, which tells, is part of the profile
	p, readers, err := f.start(ctx, able.args(), pipes, job.limit())
	if err != nil {
		return nil, err
	}
	e := &encoder{process: p, job: job, bound: make(chan struct{}), exited: make(chan struct{})}
	var reading sync.WaitGroup
	for i, r := range readers {
		reading.Go(func() {
			defer r.Close()
			if i == len(job.Rungs) {
				e.readThumbnail(r)
			} else {
				e.readRung(i, r)
			}
		})
	}
	e.running.Go(func() {
		reading.Wait()
		x := e.wait()
		close(e.exited)
		e.send(output{exit: &x})
		e.stop(nil)
	})
	return e, nil
}

// send hands something to the reader of out; false when there is none any more.
func (e *encoder) send(o output) bool {
	select {
	case <-e.bound:
	case <-e.ctx.Done():
		select {
		case <-e.bound: // an exit is told however the process ended
		default:
			return false
		}
	}
	o.encoder = e
	select {
	case e.out <- o:
		return true
	case <-e.gone:
		return false
	}
}

func (e *encoder) readRung(i int, r io.Reader) {
	if flv.ReadHeader(r) != nil {
		return
	}
	var codec *media.Codec
	for {
		t, err := flv.ReadTag(r)
		if err != nil {
			return
		}
		if t.Type != flv.TagVideo {
			continue
		}
		v, err := flv.ParseVideo(t.Payload)
		if err != nil {
			return
		}
		o := output{rung: i}
		switch v.Kind {
		case flv.Config:
			if codec, err = media.ParseCodec(v.Format, v.Data); err != nil {
				return
			}
			o.config = codec
		case flv.Frame:
			u := &media.Unit{Track: media.Video, DTS: media.Ticks(t.Timestamp) * media.TicksPerMillisecond, Payload: v.Data}
			u.PTS = u.DTS + v.Composition
			if codec == nil {
				continue
			}
			if u.RandomAccess, err = codec.RandomAccess(v.Data); err != nil {
				continue
			}
			o.frame = u
		default:
			continue
		}
		if !e.send(o) {
			return
		}
	}
}

func (e *encoder) readThumbnail(r io.Reader) {
	jpeg, err := io.ReadAll(io.LimitReader(r, maxThumbnail))
	if err == nil && len(jpeg) > 0 && len(jpeg) < maxThumbnail {
		e.send(output{thumbnail: jpeg})
	}
	_, _ = io.Copy(io.Discard, r)
}

// background lets everything else go first.
func (e *encoder) background() {
	e.process.background()
	e.watchdog.background = true
}

// config feeds the decoder's configuration; it comes before the first picture.
func (e *encoder) config(c *media.Codec) {
	e.put(matroska.Header(c))
}

// begin says where the segment starts that is fed. Times count from its first
// picture, or so that it starts at prerollTime: then the 31 bits of milliseconds of
// the FLV that comes back never wrap.
func (e *encoder) begin(start media.Ticks) {
	if e.job.Preroll {
		e.base, e.based = start-prerollTime, true
	}
}

// picture feeds one access unit of the source.
func (e *encoder) picture(u *media.Unit) {
	if !e.based {
		e.base, e.based = u.DTS, true
	}
	if e.fed = true; !e.job.Preroll || u.PTS >= e.base+prerollTime { // else nothing may be made of it
		e.watchdog.fed(time.Now())
	}
	at := max(0, u.PTS-e.base) // of a publisher that shows a picture before it is decoded
	e.put(matroska.AppendUnit(make([]byte, 0, len(u.Payload)+matroska.Overhead), at, u.RandomAccess, u.Payload))
}
