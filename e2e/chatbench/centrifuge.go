package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge"
)

// newCentrifuge is the peer: with its defaults, or tuned as its documentation advises for many connections that are mostly
// idle; delay is its WriteDelay.
func newCentrifuge(tuned bool, delay time.Duration) (http.Handler, error) {
	var config centrifuge.Config
	if tuned {
		config.ClientTimerScheduler = newWheel()
	}
	node, err := centrifuge.New(config)
	if err != nil {
		return nil, err
	}
	c := centrifuge.WebsocketConfig{CheckOrigin: func(*http.Request) bool { return true }}
	if tuned {
		c.UseWriteBufferPool = true
		c.ReadBufferSize = 1024
		c.ProcessCommandsOffReadLoop = true
	}
	node.OnConnecting(func(ctx context.Context, _ centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		room, _ := ctx.Value(roomKey{}).(string)
		return centrifuge.ConnectReply{
			Subscriptions: map[string]centrifuge.SubscribeOptions{room: {}},
			WriteDelay:    delay, WriteWithTimer: delay > 0,
		}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnPublish(func(_ centrifuge.PublishEvent, done centrifuge.PublishCallback) {
			done(centrifuge.PublishReply{}, nil)
		})
	})
	if err := node.Run(); err != nil {
		return nil, err
	}
	h := centrifuge.NewWebsocketHandler(node, c)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := context.WithValue(r.Context(), roomKey{}, r.URL.Query().Get("room"))
		ctx = centrifuge.SetCredentials(ctx, &centrifuge.Credentials{UserID: "somebody"})
		h.ServeHTTP(w, r.WithContext(ctx))
	}), nil
}

type roomKey struct{}

// wheel is one timer for all connections: the "shared timers" of the tuned peer.
type wheel struct {
	mu    sync.Mutex
	slots [64]map[*slot]struct{}
	now   int
}

type slot struct {
	wheel  *wheel
	at     int
	rounds int
	fn     func()
}

func newWheel() *wheel {
	w := &wheel{}
	for i := range w.slots {
		w.slots[i] = map[*slot]struct{}{}
	}
	go func() {
		for range time.Tick(time.Second) {
			w.turn()
		}
	}()
	return w
}

func (w *wheel) turn() {
	w.mu.Lock()
	w.now++
	var due []func()
	for s := range w.slots[w.now%len(w.slots)] {
		if s.rounds--; s.rounds < 0 {
			due = append(due, s.fn)
			delete(w.slots[s.at], s)
		}
	}
	w.mu.Unlock()
	for _, fn := range due {
		fn()
	}
}

// ScheduleTimer calls fn after d, to a second.
func (w *wheel) ScheduleTimer(d time.Duration, fn func()) centrifuge.TimerCanceler {
	w.mu.Lock()
	defer w.mu.Unlock()
	ticks := max(1, int((d+time.Second-1)/time.Second))
	s := &slot{wheel: w, at: (w.now + ticks) % len(w.slots), rounds: (ticks - 1) / len(w.slots), fn: fn}
	w.slots[s.at][s] = struct{}{}
	return s
}

// Cancel forgets the call.
func (s *slot) Cancel() {
	s.wheel.mu.Lock()
	defer s.wheel.mu.Unlock()
	delete(s.wheel.slots[s.at], s)
}
