package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// An engine takes websocket connections. What one sends as text is published into the room that its request's query
// names (?room=), as data of a message that everybody in it gets.
type engine func() (http.Handler, error)

var engines = map[string]engine{
	"millrace":               newMillrace,
	"centrifuge":             func() (http.Handler, error) { return newCentrifuge(false, 0) },
	"centrifuge-tuned":       func() (http.Handler, error) { return newCentrifuge(true, 0) },
	"centrifuge-tuned-delay": func() (http.Handler, error) { return newCentrifuge(true, 200*time.Millisecond) },
	"gorilla":                newGorilla,
	"gws":                    newGWS,
}

// serve runs an engine until the process is killed.
func serve(name, address string, secure bool) error {
	if engines[name] == nil {
		return fmt.Errorf("no engine %q", name)
	}
	h, err := engines[name]()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/chat", h)
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	stats := http.NewServeMux()
	stats.HandleFunc("/stats", writeStats)
	stats.HandleFunc("/debug/pprof/profile", pprof.Profile)
	sl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(sl, stats) }()
	fmt.Println(sl.Addr()) // run waits for this line
	s := &http.Server{Handler: mux}
	if !secure {
		return s.Serve(l)
	}
	s.TLSConfig, err = selfSigned()
	if err != nil {
		return err
	}
	s.TLSConfig.NextProtos = []string{"http/1.1"}
	return s.ServeTLS(l, "", "")
}

func selfSigned() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	cert, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}, nil
}

// stats are what a server process has used.
type stats struct {
	CPU       time.Duration
	Heap      uint64 // in use after a collection
	Stacks    uint64
	Resident  uint64
	Goroutine int
}

// writeStats answers with the process's stats; ?gc=1 collects before.
func writeStats(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("gc") != "" {
		for range 3 { // sync.Pools are emptied by the second, stacks shrink a half each time
			runtime.GC()
		}
		debug.FreeOSMemory()
	}
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s := stats{
		CPU:  time.Duration(u.Utime.Nano() + u.Stime.Nano()),
		Heap: m.HeapAlloc, Stacks: m.StackInuse, Resident: resident(), Goroutine: runtime.NumGoroutine(),
	}
	_ = json.NewEncoder(w).Encode(s)
}

func resident() uint64 {
	text, _ := os.ReadFile("/proc/self/status")
	var kb uint64
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "VmRSS:") {
			_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &kb)
		}
	}
	return kb << 10
}
