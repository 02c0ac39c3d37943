package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

// scenario is one load, which every engine gets in turn.
type scenario struct {
	name    string
	groups  []group
	idle    bool // only memory is measured
	secure  bool
	engines []string
}

func run(args []string) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	only := flags.String("only", ".", "regexp of scenarios")
	seconds := flags.Duration("for", 5*time.Second, "how long each is measured")
	times := flags.Int("times", 3, "how often each is measured, the engines in turn")
	with := flags.String("engines", "", "regexp of engines")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pick, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	engine, err := regexp.Compile(*with)
	if err != nil {
		return err
	}
	for _, s := range scenarios() {
		if !pick.MatchString(s.name) {
			continue
		}
		table := map[string][]sample{}
		s.engines = slices.DeleteFunc(s.engines, func(e string) bool { return !engine.MatchString(e) })
		for range *times {
			for _, e := range s.engines {
				one, err := s.measure(e, *seconds)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", s.name, e, err)
				}
				fmt.Fprintf(os.Stderr, "%s %s %+v\n", s.name, e, one)
				table[e] = append(table[e], one)
			}
		}
		s.print(table)
	}
	return nil
}

func scenarios() []scenario {
	peers := []string{"millrace", "centrifuge", "centrifuge-tuned", "centrifuge-tuned-delay"}
	all := append(slices.Clone(peers), "gorilla", "gws")
	var list []scenario
	for _, conns := range []int{1000, 5000, 10000} {
		for _, rate := range []float64{10, 100} {
			list = append(list, scenario{
				name:   fmt.Sprintf("one room, %d connections, %g messages/s", conns, rate),
				groups: []group{{"big", 1, conns, rate}}, engines: peers,
			})
		}
	}
	rooms := []group{{"small", 100, 100, 1000}}
	list = append(list,
		scenario{name: "library: one room, 1000 connections, 10 messages/s", groups: []group{{"big", 1, 1000, 10}}, engines: all},
		scenario{name: "library: idle, plain, 5000", groups: []group{{"big", 1, 5000, 0}}, idle: true, engines: all},
		scenario{name: "idle, plain, 10000", groups: []group{{"big", 1, 10000, 0}}, idle: true, engines: peers[:3]},
		scenario{name: "idle, TLS, 4000", groups: []group{{"big", 1, 4000, 0}}, idle: true, secure: true, engines: peers[:3]},
		scenario{name: "100 rooms of 100, 1000 messages/s in all", groups: rooms, engines: peers},
		scenario{name: "50 rooms of 20, 100 messages/s, alone", groups: []group{{"small", 50, 20, 100}, {"big", 1, 500, 0}}, engines: peers},
		scenario{name: "50 rooms of 20, 100 messages/s, beside a room of 500 flooded with 1000/s", groups: []group{{"small", 50, 20, 100}, {"big", 1, 500, 1000}}, engines: peers},
	)
	for _, conns := range []int{100, 1000, 4000, 16000, 19000} {
		list = append(list, scenario{
			name:   fmt.Sprintf("curve: rooms of 100, 1 message/s in each, %d connections", conns),
			groups: []group{{"small", conns / 100, 100, float64(conns / 100)}}, engines: peers[:1],
		}, scenario{
			name: fmt.Sprintf("curve: idle, %d connections", conns), groups: []group{{"small", conns / 100, 100, 0}}, idle: true, engines: peers[:1],
		})
	}
	return list
}

// sample is one engine's measurement.
type sample struct {
	PerCPU  float64 // deliveries per CPU-second of the server
	CPU     float64 // of a core
	Groups  []result
	Bytes   float64 // per idle connection: heap and stacks after a collection
	RSS     float64 // resident, per idle connection
	Kernel  float64 // sockets of both ends and what belongs to them, half of it, per idle connection
	Routine float64 // goroutines per connection
}

const address = "127.0.0.1"

func (s scenario) measure(engine string, seconds time.Duration) (out sample, err error) {
	port := 31100 + time.Now().Nanosecond()%800
	server, stats, err := startServer(engine, port, s.secure)
	if err != nil {
		return out, err
	}
	defer stop(server)
	kernel := kernelMemory()
	before, err := ask(stats + "?gc=1")
	if err != nil {
		return out, err
	}
	loads := make([]*loadProcess, len(s.groups))
	for i, g := range s.groups { // each in a process of its own, so that one's deliveries don't wait for another's in the load
		loads[i], err = startLoad(loadOptions{
			Host: fmt.Sprintf("%s:%d", address, port), Centrifuge: strings.HasPrefix(engine, "centrifuge"), Secure: s.secure,
			Groups: []group{g}, Warm: 2 * time.Second, For: seconds,
		})
		if err != nil {
			return out, err
		}
		defer stop(loads[i].cmd)
	}
	if s.idle {
		time.Sleep(2 * time.Second)
		after, err := ask(stats + "?gc=1")
		n := float64(s.groups[0].Rooms * s.groups[0].Conns)
		out.Bytes = float64(after.Heap+after.Stacks-before.Heap-before.Stacks) / n
		out.RSS = float64(after.Resident-before.Resident) / n
		out.Kernel = float64(kernelMemory()-kernel) / 2 / n
		out.Routine = float64(after.Goroutine-before.Goroutine) / n
		return out, err
	}
	return traffic(loads, stats, seconds)
}

// traffic lets the loads publish and reads what they and the server say.
func traffic(loads []*loadProcess, stats string, seconds time.Duration) (out sample, err error) {
	for _, l := range loads {
		_, _ = fmt.Fprintln(l.in, "go")
	}
	used := [2]time.Duration{}
	for i, line := range []string{"begin", "end"} {
		for _, l := range loads {
			if err := l.expect(line); err != nil {
				return out, err
			}
		}
		s, err := ask(stats)
		if err != nil {
			return out, err
		}
		used[i] = s.CPU
	}
	got := 0
	for _, l := range loads {
		if !l.out.Scan() {
			return out, errors.New("the load ended")
		}
		var r []result
		if err := json.Unmarshal(l.out.Bytes(), &r); err != nil {
			return out, err
		}
		out.Groups = append(out.Groups, r...)
		got += r[0].Deliveries
	}
	cpu := (used[1] - used[0]).Seconds()
	out.PerCPU, out.CPU = float64(got)/cpu, cpu/seconds.Seconds()
	return out, nil
}

// loadProcess is a running chatbench load.
type loadProcess struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

// startLoad starts one and waits until it is connected.
func startLoad(o loadOptions) (*loadProcess, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	c := exec.Command(os.Args[0], "load", string(text))
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	l := &loadProcess{c, in, bufio.NewScanner(out)}
	if err := l.expect("ready"); err != nil {
		stop(c)
		return nil, err
	}
	return l, nil
}

func (l *loadProcess) expect(want string) error {
	if !l.out.Scan() || l.out.Text() != want {
		return fmt.Errorf("the load said %q, not %q", l.out.Text(), want)
	}
	return nil
}

func startServer(engine string, port int, secure bool) (*exec.Cmd, string, error) {
	how := "plain"
	if secure {
		how = "tls"
	}
	c := exec.Command(os.Args[0], "server", engine, fmt.Sprintf(":%d", port), how)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := c.Start(); err != nil {
		return nil, "", err
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		return nil, "", errors.New("the server didn't start")
	}
	return c, "http://" + lines.Text() + "/stats", nil
}

func stop(c *exec.Cmd) {
	_ = c.Process.Kill()
	_ = c.Wait()
}

func ask(url string) (s stats, err error) {
	r, err := http.Get(url)
	if err != nil {
		return s, err
	}
	defer func() { _ = r.Body.Close() }()
	return s, json.NewDecoder(r.Body).Decode(&s)
}

// kernelMemory is what the kernel holds in slabs and for TCP.
func kernelMemory() int {
	text, _ := os.ReadFile("/proc/meminfo")
	sum := 0
	for line := range strings.Lines(string(text)) {
		var kb int
		if n, _ := fmt.Sscanf(line, "Slab: %d kB", &kb); n == 1 {
			sum += kb << 10
		}
	}
	text, _ = os.ReadFile("/proc/net/sockstat")
	for line := range strings.Lines(string(text)) {
		if _, mem, ok := strings.Cut(line, " mem "); ok && strings.HasPrefix(line, "TCP:") {
			var pages int
			_, _ = fmt.Sscan(mem, &pages)
			sum += pages * os.Getpagesize()
		}
	}
	return sum
}

// print writes a table of medians.
func (s scenario) print(table map[string][]sample) {
	fmt.Printf("\n### %s\n\n", s.name)
	of := func(e string, fn func(sample) float64) float64 { return median(table[e], fn) }
	ratio := func(e string, fn func(sample) float64) float64 {
		var list []float64
		for i := range table[e] {
			list = append(list, fn(table[s.engines[0]][i])/fn(table[e][i]))
		}
		slices.Sort(list)
		return list[len(list)/2]
	}
	if s.idle {
		fmt.Print("| engine | bytes per connection | of the first | resident | kernel | goroutines |\n| --- | --- | --- | --- | --- | --- |\n")
		for _, e := range s.engines {
			fmt.Printf("| %s | %.0f | %.2f | %.0f | %.0f | %.1f |\n", e, of(e, sample.bytes), 1/ratio(e, sample.bytes),
				of(e, func(s sample) float64 { return s.RSS }), of(e, func(s sample) float64 { return s.Kernel }), of(e, func(s sample) float64 { return s.Routine }))
		}
		return
	}
	fmt.Print("| engine | deliveries per CPU-second | first / this | of a core | delivered | p50 | p99 |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, e := range s.engines {
		n := s.groups[0].Conns
		fmt.Printf("| %s | %.0f | %.2f | %.2f | %.0f %% | %.1f ms | %.1f ms |\n", e, of(e, sample.perCPU), ratio(e, sample.perCPU), of(e, func(s sample) float64 { return s.CPU }),
			of(e, func(s sample) float64 {
				return 100 * float64(s.Groups[0].Deliveries) / float64(max(1, s.Groups[0].Sent*n))
			}),
			of(e, func(s sample) float64 { return milliseconds(s.Groups[0].P50) }), of(e, func(s sample) float64 { return milliseconds(s.Groups[0].P99) }))
	}
}

func (s sample) bytes() float64  { return s.Bytes }
func (s sample) perCPU() float64 { return s.PerCPU }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func median(list []sample, fn func(sample) float64) float64 {
	sorted := slices.SortedFunc(slices.Values(list), func(a, b sample) int { return cmp.Compare(fn(a), fn(b)) })
	if len(sorted) == 0 {
		return 0
	}
	return fn(sorted[len(sorted)/2])
}
