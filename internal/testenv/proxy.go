package testenv

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// FaultProxy is a TCP proxy that disturbs what passes when it is told to. Its
// methods are for the test's goroutine.
type FaultProxy struct {
	// Address is where it listens; it stays the same.
	Address string

	t     testing.TB
	proxy *toxiproxy.Proxy
	toxic bool
}

// Proxy starts a proxy before upstream ("host:port"). It ends after the test.
func Proxy(t testing.TB, upstream string) *FaultProxy {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	f := &FaultProxy{t: t, Address: FreeAddress(t)}
	f.proxy = toxiproxy.NewProxy(server, upstream, f.Address, upstream)
	if err := f.proxy.Start(); err != nil {
		t.Fatalf("proxy before %s: %v", upstream, err)
	}
	t.Cleanup(f.Cut)
	return f
}

// Cut breaks all connections and refuses new ones.
func (f *FaultProxy) Cut() {
	f.calm()
	f.proxy.Stop()
}

// Hang takes connections and requests, and holds all answers back: what is asked
// for takes effect, and nobody hears of it. Restore breaks the connections; their
// answers are lost.
func (f *FaultProxy) Hang() { f.add("timeout", `{"timeout":0}`) }

// Slow holds back each answer by a latency.
func (f *FaultProxy) Slow(latency time.Duration) {
	f.add("latency", fmt.Sprintf(`{"latency":%d}`, latency.Milliseconds()))
}

// Restore ends all disturbance.
func (f *FaultProxy) Restore() {
	f.t.Helper()
	f.calm()
	if f.proxy.Enabled {
		return
	}
	if err := f.proxy.Start(); err != nil {
		f.t.Fatalf("proxy before %s: %v", f.proxy.Upstream, err)
	}
}

// toxicName names the one toxic that there is at a time.
const toxicName = "fault"

func (f *FaultProxy) add(kind, attributes string) {
	f.t.Helper()
	f.Restore()
	doc := fmt.Sprintf(`{"name":%q,"type":%q,"stream":"downstream","attributes":%s}`, toxicName, kind, attributes)
	if _, err := f.proxy.Toxics.AddToxicJson(strings.NewReader(doc)); err != nil {
		f.t.Fatalf("proxy before %s: %v", f.proxy.Upstream, err)
	}
	f.toxic = true
}

func (f *FaultProxy) calm() {
	if !f.toxic {
		return
	}
	f.toxic = false
	if err := f.proxy.Toxics.RemoveToxic(context.Background(), toxicName); err != nil {
		f.t.Errorf("proxy before %s: %v", f.proxy.Upstream, err)
	}
}
