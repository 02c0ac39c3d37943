package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLayersStopFromTheTop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLayers(slog.New(slog.DiscardHandler), stopLimits(roleAll, 0))
		ended := make(chan level, levels)
		for at := range levels {
			l.start(at, "part", func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(10 * time.Millisecond)
				ended <- at
				return nil
			})
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.run(ctx); err != nil {
			t.Errorf("run = %v", err)
		}
		l.stop()
		for want := levels - 1; want >= 0; want-- {
			if got := <-ended; got != want {
				t.Errorf("level %d ended, want %d", got, want)
			}
		}
	})
}

func TestLayersGiveUpOnWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		l := newLayers(slog.New(slog.NewTextHandler(&log, nil)), stopLimits(roleAll, 0))
		release := make(chan struct{})
		for at := range levels {
			l.start(at, "part", func(context.Context) error {
				<-release
				return nil
			})
		}
		begin := time.Now()
		l.stop()
		if took := time.Since(begin); took >= 5*time.Second {
			t.Errorf("stopping what hangs took %s, want less than 5 s", took)
		}
		if got := strings.Count(log.String(), "parts=part "); got != int(levels) {
			t.Errorf("%d levels name what hangs, want %d:\n%s", got, levels, log.String())
		}
		close(release)
		synctest.Wait()
	})
}

func TestLayersFailWithTheirPart(t *testing.T) {
	fault := errors.New("fault")
	for name, c := range map[string]struct {
		result error
		want   string
	}{"an error": {fault, "part: fault"}, "an end": {nil, "part: it ended by itself"}} {
		t.Run(name, func(t *testing.T) {
			l := newLayers(slog.New(slog.DiscardHandler), stopLimits(roleAll, 0))
			l.start(levelServices, "part", func(context.Context) error { return c.result })
			if err := l.run(t.Context()); err == nil || err.Error() != c.want {
				t.Errorf("run = %v, want %s", err, c.want)
			}
			l.stop()
		})
	}
}
