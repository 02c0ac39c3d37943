package transcode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"millrace/internal/media"
)

const (
	// encoderSilence ends a process that was given all of its pictures and
	// doesn't finish.
	encoderSilence = 10 * time.Second
	// maxStderr bounds what is kept of a process's complaints.
	maxStderr = 2 << 10
	// maxThumbnail bounds a JPEG, in bytes.
	maxThumbnail = 1 << 20
	// feedQueue bounds the pictures that wait for a process, in access units:
	// more than a segment at any sensible frame rate.
	feedQueue = 4096
)

// ffmpeg is the program and what is known of it.
type ffmpeg struct {
	path  string
	build string // version, configuration and library versions: part of every rung's profile
}

// findFFmpeg asks the program for its build, and that it has what is needed.
func findFFmpeg(ctx context.Context, path string) (*ffmpeg, error) {
	const install = "install it (apt-get install ffmpeg) or name another one with --ffmpeg"
	out, err := exec.CommandContext(ctx, path, "-hide_banner", "-version").Output()
	if err != nil {
		return nil, fmt.Errorf("ffmpeg can't be run at %q: %w; %s", path, err, install)
	}
	encoders, err := exec.CommandContext(ctx, path, "-hide_banner", "-loglevel", "error", "-encoders").Output()
	if err != nil {
		return nil, fmt.Errorf("ffmpeg at %q doesn't list its encoders: %w; %s", path, err, install)
	}
	for _, name := range []string{"libx264", "aac", "mjpeg"} {
		if !bytes.Contains(encoders, []byte(" "+name+" ")) {
			return nil, fmt.Errorf("ffmpeg at %q was built without %s; %s", path, name, install)
		}
	}
	return &ffmpeg{path: path, build: string(out)}, nil
}

// output is one thing that an encoder's process made.
type output struct {
	encoder *encoder
	rung    int // index into the job's rungs
	// Exactly one of the following is set.
	config    *media.AVCConfig
	frame     *media.AccessUnit // its time counted from the first picture fed
	thumbnail []byte
	exit      *exit
}

// exit is a process's end.
type exit struct {
	err error // nil after a clean end; names the tail of what it complained
	cpu time.Duration
}

// encoder is one FFmpeg process: started ahead of time, fed when its mark comes.
type encoder struct {
	job  encodeJob
	cmd  *exec.Cmd
	feed chan []byte // FLV; closed by finish
	out  chan<- output

	stop    context.CancelCauseFunc
	ctx     context.Context // of the process; ends with it
	running sync.WaitGroup
	fed     bool
	base    media.Ticks // of the first picture fed
}

// startEncoder starts a process. What it makes goes to out until its exit,
// which comes last; whoever reads out must do so until then, or end ctx.
func (f *ffmpeg) startEncoder(ctx context.Context, job encodeJob, out chan<- output) (*encoder, error) {
	e := &encoder{job: job, feed: make(chan []byte, feedQueue), out: out}
	e.ctx, e.stop = context.WithCancelCause(ctx)
	e.cmd = exec.CommandContext(e.ctx, f.path, job.args()...)
	e.cmd.Env = []string{"LC_ALL=C", "AV_LOG_FORCE_NOCOLOR=1"}
	e.cmd.Dir = os.TempDir()
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	e.cmd.WaitDelay = time.Second
	stderr := &tail{max: maxStderr}
	e.cmd.Stderr = stderr
	stdin, err := e.cmd.StdinPipe()
	if err != nil {
		e.stop(nil)
		return nil, fmt.Errorf("start ffmpeg: %w", err)
	}
	pipes := len(job.Rungs)
	if job.Thumbnail {
		pipes++
	}
	readers := make([]*os.File, 0, pipes)
	closeAll := func(files []*os.File) {
		for _, f := range files {
			_ = f.Close()
		}
	}
	for range pipes {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(readers)
			closeAll(e.cmd.ExtraFiles)
			e.stop(nil)
			return nil, fmt.Errorf("start ffmpeg: %w", err)
		}
		readers = append(readers, r)
		e.cmd.ExtraFiles = append(e.cmd.ExtraFiles, w)
	}
	err = e.cmd.Start()
	closeAll(e.cmd.ExtraFiles)
	if err != nil {
		closeAll(readers)
		e.stop(nil)
		return nil, fmt.Errorf("start ffmpeg: %w", err)
	}
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
	e.running.Go(func() { e.write(stdin) })
	e.running.Go(func() {
		reading.Wait()
		e.wait(stderr)
	})
	return e, nil
}

// write feeds the process. It ends with the feed or the process.
func (e *encoder) write(stdin io.WriteCloser) {
	defer stdin.Close()
	for {
		select {
		case b, ok := <-e.feed:
			if !ok {
				return
			}
			if _, err := stdin.Write(b); err != nil {
				return // the process is gone, and its exit says why
			}
		case <-e.ctx.Done():
			return
		}
	}
}

// wait reaps the process.
func (e *encoder) wait(stderr *tail) {
	err := e.cmd.Wait()
	x := exit{}
	if s := e.cmd.ProcessState; s != nil {
		x.cpu = s.UserTime() + s.SystemTime()
	}
	if cause := context.Cause(e.ctx); cause != nil {
		err = cause
	}
	if err != nil {
		x.err = fmt.Errorf("ffmpeg: %w: %s", err, stderr)
	}
	e.send(output{exit: &x})
	e.stop(nil)
}

func (e *encoder) send(o output) bool {
	o.encoder = e
	select {
	case e.out <- o:
		return true
	case <-e.ctx.Done():
		// A process that is ended still has its exit told, if there's room.
		if o.exit != nil {
			select {
			case e.out <- o:
			default:
			}
		}
		return false
	}
}

func (e *encoder) readRung(i int, r io.Reader) {
	if media.ReadFLVHeader(r) != nil {
		return
	}
	for {
		t, err := media.ReadTag(r)
		if err != nil {
			return
		}
		if t.Type != media.TagVideo {
			continue
		}
		v, err := media.ParseVideoTag(t.Payload)
		if err != nil {
			return
		}
		o := output{rung: i}
		if v.Config {
			if o.config, err = media.ParseAVCConfig(v.Data); err != nil {
				return
			}
		} else {
			idr, err := media.ScanAVC(v.Data)
			if err != nil {
				continue
			}
			at := media.Ticks(t.Timestamp) * media.TicksPerMillisecond
			o.frame = &media.AccessUnit{Kind: media.Video, DTS: at, PTS: at + media.Ticks(v.CompositionTime)*media.TicksPerMillisecond, IDR: idr, Payload: v.Data}
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

// config feeds the decoder's configuration; it comes before the first picture.
func (e *encoder) config(c *media.AVCConfig) {
	e.put(media.AppendVideoConfigTag(media.FLVHeader(false, true), 0, c.Record))
}

// picture feeds one access unit of the source. Times count from the first one,
// so that FLV's 31 bits of milliseconds never wrap.
func (e *encoder) picture(u *media.AccessUnit) {
	if !e.fed {
		e.fed, e.base = true, u.DTS
	}
	e.put(media.AppendVideoTag(make([]byte, 0, len(u.Payload)+20), uint32((u.DTS - e.base).Milliseconds()), u))
}

func (e *encoder) put(b []byte) {
	select {
	case e.feed <- b:
	default:
		e.stop(errors.New("it doesn't keep up with the pictures"))
	}
}

// finish says that all pictures are fed. The process then has encoderSilence to end.
func (e *encoder) finish() {
	close(e.feed)
	timer := time.AfterFunc(encoderSilence, func() {
		e.stop(fmt.Errorf("it didn't end within %s", encoderSilence))
	})
	context.AfterFunc(e.ctx, func() { timer.Stop() })
}

// discard ends the process at once and waits for it.
func (e *encoder) discard() {
	e.stop(errDiscarded)
	e.running.Wait()
}

var errDiscarded = errors.New("not needed any more")

// tail keeps the end of what is written to it, as one line.
type tail struct {
	max int
	mu  sync.Mutex
	b   []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > t.max {
		t.b = append(t.b[:0], t.b[len(t.b)-t.max:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.Fields(string(t.b)), " ")
}
