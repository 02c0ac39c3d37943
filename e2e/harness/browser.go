package harness

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"millrace/internal/testenv"
)

// Browser is a tab of a headless Chromium. Its methods are for the test's goroutine.
type Browser struct {
	T   testing.TB
	ctx context.Context

	// mu guards what the tab said.
	mu         sync.Mutex
	hosts      []string
	complaints []string
}

// OpenBrowser starts a Chromium with an empty profile. It ends with the test.
func OpenBrowser(t testing.TB) *Browser {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(testenv.Program(t, "chromium")),
		chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.WindowSize(1280, 900),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("autoplay-policy", "no-user-gesture-required"),
		chromedp.WSURLReadTimeout(30*time.Second),
	)
	allocated, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocated)
	b := &Browser{T: t, ctx: ctx}
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // ends the browser
		cancel()
		stop()
	})
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	// The console's own domain is on from the start.
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, cdplog.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// hear notes requests, errors on the console and exceptions.
func (b *Browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err == nil && u.Host != "" && !slices.Contains(b.hosts, u.Host) {
			b.hosts = append(b.hosts, u.Host)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			text := ""
			for _, a := range e.Args {
				text += fmt.Sprintf(" %s%s", a.Value, a.Description)
			}
			b.complaints = append(b.complaints, fmt.Sprintf("console.%s:%s", e.Type, text))
		}
	case *runtime.EventExceptionThrown:
		b.complaints = append(b.complaints, fmt.Sprintf("exception: %+v", *e.ExceptionDetails))
	case *cdplog.EventEntryAdded:
		if e.Entry.Level == cdplog.EntryLevelError || e.Entry.Level == cdplog.EntryLevelWarning {
			b.complaints = append(b.complaints, fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	}
}

// TakeComplaints returns what the tab complained about, and forgets it.
func (b *Browser) TakeComplaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.complaints
	b.complaints = nil
	return list
}

// OnlyHost fails the test if the tab asked another host than that of address.
func (b *Browser) OnlyHost(address string) {
	b.T.Helper()
	u, err := url.Parse(address)
	if err != nil {
		b.T.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.hosts, []string{u.Host}) {
		b.T.Errorf("the page asked the hosts %q, want only %s", b.hosts, u.Host)
	}
}

// Open loads a page.
func (b *Browser) Open(address string) {
	b.T.Helper()
	b.Do(chromedp.Navigate(address))
}

// Do does something in the tab; a failure ends the test.
func (b *Browser) Do(action chromedp.Action[chromedp.Void]) {
	b.T.Helper()
	perform(b, action)
}

func perform[T any](b *Browser, action chromedp.Action[T]) T {
	b.T.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		b.T.Fatal(err)
	}
	return value
}

// Eval evaluates an expression in the page.
func Eval[T any](b *Browser, expression string) T {
	b.T.Helper()
	return perform(b, chromedp.Evaluate[T](expression))
}

// Text returns the text that the page shows.
func (b *Browser) Text() string {
	b.T.Helper()
	return Eval[string](b, "document.body.innerText")
}

// Stats is what the watch page's player says of itself.
type Stats struct {
	Engine        string  `json:"engine"`
	Phase         string  `json:"phase"`
	Latency       float64 `json:"latency"`
	Level         int     `json:"level"`
	Width         int     `json:"width"`
	Height        int     `json:"height"`
	Stalls        int     `json:"stalls"`
	Waits         int     `json:"waits"`
	Recoveries    int     `json:"recoveries"`
	DroppedFrames int     `json:"droppedFrames"`
	TotalFrames   int     `json:"totalFrames"`
	LastError     string  `json:"lastError"`
	CurrentTime   float64 `json:"currentTime"`
}

// Stats asks the page's player.
func (b *Browser) Stats() Stats {
	b.T.Helper()
	return Eval[Stats](b, "window.millrace ? window.millrace.stats() : {}")
}

// WaitPlaying waits until the page shows moving pictures, for at least a second.
func (b *Browser) WaitPlaying(limit time.Duration) Stats {
	b.T.Helper()
	var first, now Stats
	Eventually(b.T, limit, func() error {
		now = b.Stats()
		if now.Phase != "playing" || now.TotalFrames == 0 {
			first = Stats{}
			return fmt.Errorf("it doesn't play: %+v\nThe page says: %s", now, b.Text())
		}
		if first.Phase == "" || now.CurrentTime < first.CurrentTime {
			first = now
		}
		if now.CurrentTime < first.CurrentTime+1 {
			return fmt.Errorf("it doesn't move: %+v", now)
		}
		return nil
	})
	return now
}
