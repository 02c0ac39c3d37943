package testenv

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// echo listens, and sends back what it gets.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestProxy(t *testing.T) {
	p := Proxy(t, echo(t))
	say := func() (time.Duration, error) {
		c, err := net.Dial("tcp", p.Address)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		begin := time.Now()
		_ = c.SetDeadline(begin.Add(500 * time.Millisecond))
		if _, err := c.Write([]byte("x")); err != nil {
			return 0, err
		}
		_, err = c.Read(make([]byte, 1))
		return time.Since(begin), err
	}
	works := func(when string) {
		t.Helper()
		if _, err := say(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	works("at the start")
	p.Cut()
	if _, err := say(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("cut: %v", err)
	}
	p.Restore()
	works("after a cut")
	p.Hang()
	if _, err := say(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("hanging: %v", err)
	}
	p.Slow(200 * time.Millisecond)
	if took, err := say(); err != nil || took < 200*time.Millisecond {
		t.Errorf("slow: an answer after %s, %v", took, err)
	}
	p.Restore()
	works("at the end")
}

func TestRedisKeepsWhatItHas(t *testing.T) {
	s := StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	if err := s.Client().Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	s.Start()
	if v, err := s.Client().Get(t.Context(), "k").Result(); err != nil || v != "v" {
		t.Errorf("after a restart k is %q, %v", v, err)
	}
}

func TestSentinel(t *testing.T) {
	s := Sentinel(t)
	first := s.Master()
	write := func(address string) error {
		c := redis.NewClient(&redis.Options{Addr: address, MaxRetries: -1, DialerRetries: 1})
		defer c.Close()
		return c.Set(t.Context(), "k", fmt.Sprint(address), 0).Err()
	}
	if err := write(first); err != nil {
		t.Fatal(err)
	}
	s.Failover()
	second := s.Master()
	if err := write(second); err != nil {
		t.Errorf("the new master: %v", err)
	}
}
