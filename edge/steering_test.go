package edge

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// neighbour starts another edge beside that of st, which serves the same channel.
func (st *stage) neighbour(publicURL string) (*stage, context.CancelFunc) {
	st.t.Helper()
	other := *st
	other.registry = prometheus.NewRegistry()
	var err error
	other.service, err = New(Config{
		ID: publicURL, Redis: st.redis.Client(), Bucket: st.bucket, Peers: peers(st.t, other.registry), Registerer: other.registry, PublicURL: publicURL,
	})
	if err != nil {
		st.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	announced, leave := context.WithCancel(ctx)
	done := make(chan error, 2)
	go func() { done <- other.service.Run(ctx) }()
	go func() { done <- other.service.Announce(announced) }()
	other.server = httptest.NewServer(other.service.Handler())
	st.t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				st.t.Error(err)
			}
		}
		other.server.Close()
	})
	return &other, leave
}

type manifest struct {
	Version  int      `json:"VERSION"`
	TTL      int      `json:"TTL"`
	Reload   string   `json:"RELOAD-URI"`
	Priority []string `json:"PATHWAY-PRIORITY"`
}

func (st *stage) steering(query string) manifest {
	st.t.Helper()
	var m manifest
	if err := json.Unmarshal([]byte(st.want(200, "/hls/demo/steering.json"+query).body), &m); err != nil {
		st.t.Fatal(err)
	}
	return m
}

func TestSteering(t *testing.T) {
	t.Parallel() // it waits more than it computes
	st := newStage(t)
	plain := st.want(200, "/hls/demo/index.m3u8").body
	st.want(404, "/hls/demo/steering.json")
	a, _ := st.neighbour("http://a.example")
	one, two := newPathway("http://a.example").id, newPathway("http://b.example:8080").id
	a.eventually("the edge is announced", func() bool { return a.metric("edges") == 1 })
	if got := a.want(200, "/hls/demo/index.m3u8").body; got != plain {
		t.Errorf("alone an edge steers nobody:\n%s", got)
	}
	b, leave := st.neighbour("http://b.example:8080/")
	st.eventually("both are known", func() bool { return a.metric("edges") == 2 && b.metric("edges") == 2 })

	got := a.want(200, "/hls/demo/index.m3u8").body
	for _, line := range []string{
		`#EXT-X-CONTENT-STEERING:SERVER-URI="steering.json",PATHWAY-ID="` + one + `"`,
		`GROUP-ID="audio",NAME="audio",AUTOSELECT=YES,DEFAULT=YES,CHANNELS="2",URI="http://a.example/hls/demo/b1/audio/index.m3u8"`,
		`GROUP-ID="audio-` + two + `",NAME="audio",AUTOSELECT=YES,DEFAULT=YES,CHANNELS="2",URI="http://b.example:8080/hls/demo/b1/audio/index.m3u8"`,
		`AUDIO="audio",PATHWAY-ID="` + one + "\"\nhttp://a.example/hls/demo/b1/source/index.m3u8\n",
		`AUDIO="audio-` + two + `",PATHWAY-ID="` + two + "\"\nhttp://b.example:8080/hls/demo/b1/source/index.m3u8\n",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("%s is missing in\n%s", line, got)
		}
	}
	if first := b.want(200, "/hls/demo/index.m3u8").body; !strings.Contains(first, `PATHWAY-ID="`+two+"\"\n#EXT-X-MEDIA") {
		t.Errorf("each edge names itself first:\n%s", first)
	}
	want := manifest{1, 10, "steering.json", []string{one, two}}
	if m := a.steering(""); m.Version != 1 || m.TTL != 10 || m.Reload != want.Reload || !slices.Equal(m.Priority, want.Priority) {
		t.Errorf("%+v", m)
	}
	if m := b.steering(""); !slices.Equal(m.Priority, []string{two, one}) {
		t.Errorf("%+v", m)
	}
	// Behind a load balancer any edge may be asked: nobody is sent to and fro.
	if m := b.steering(`?_HLS_pathway="` + one + `"&_HLS_throughput=5000000`); !slices.Equal(m.Priority, []string{one, two}) {
		t.Errorf("%+v", m)
	}

	// One that is leaving sends its viewers away while it still serves.
	leave()
	st.eventually("it has left", func() bool { return slices.Equal(b.steering("").Priority, []string{one}) })
	st.eventually("the other knows", func() bool { return slices.Equal(a.steering("").Priority, []string{one}) })
	// Players that come now are sent on, too.
	got = b.want(200, "/hls/demo/index.m3u8").body
	for _, line := range []string{
		`#EXT-X-CONTENT-STEERING:SERVER-URI="http://a.example/hls/demo/steering.json",PATHWAY-ID="` + one + `"`,
		`AUDIO="audio",PATHWAY-ID="` + one + "\"\nhttp://a.example/hls/demo/b1/source/index.m3u8\n",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("%s is missing in\n%s", line, got)
		}
	}
	if strings.Contains(got, "b.example") || strings.Contains(got, "\nb1/") {
		t.Errorf("it still lists itself:\n%s", got)
	}
}

// An edge that is leaving names the two after it.
func TestLeavingEdgeNamesOthers(t *testing.T) {
	urls := []string{"http://a.example", "http://b.example", "http://c.example"}
	for _, self := range urls {
		e := &edges{self: newPathway(self)}
		e.set(urls)
		before := e.priority("")
		e.leave()
		after := e.priority("")
		var named []string
		for _, p := range e.pathways() {
			named = append(named, p.id)
		}
		if !slices.Equal(named, before[1:]) || !slices.Equal(after, before[1:]) {
			t.Errorf("%s: it names %v and steers to %v, before it to %v", self, named, after, before)
		}
	}
	// The last one serves for as long as it can.
	e := &edges{self: newPathway(urls[0])}
	e.set(urls[:1])
	e.leave()
	if paths := e.pathways(); paths != nil {
		t.Errorf("it names %v", paths)
	}
	// One that isn't announced yet isn't leaving.
	e = &edges{self: newPathway(urls[0])}
	e.set(urls[1:])
	if paths := e.pathways(); paths != nil {
		t.Errorf("it names %v", paths)
	}
}

// TestEdgesAreInterchangeable: an edge that comes later shows what one that was
// there from the start does.
func TestEdgesAreInterchangeable(t *testing.T) {
	st := newStage(t)
	st.want(200, "/hls/demo/index.m3u8")
	for sequence := uint64(2); sequence < 6; sequence++ {
		for part := range partsEach {
			if sequence != 2 || part != 0 {
				st.worker.part(st.epoch, sequence, part)
			}
		}
	}
	warm := map[string]string{}
	for _, name := range []string{"source/index.m3u8", "audio/index.m3u8"} {
		warm[name] = st.until(st.media(name), func(a answer) bool { return strings.Contains(a.body, "7.5.p1.m4s") }).body
	}
	cold, _ := st.neighbour("http://cold.example")
	// How far the other renditions are depends on the moment of rendering.
	reports := regexp.MustCompile("#EXT-X-RENDITION-REPORT:.*\n")
	for name := range warm {
		got := cold.until(cold.media(name), func(a answer) bool { return strings.Contains(a.body, "7.5.p1.m4s") }).body
		if reports.ReplaceAllString(got, "") != reports.ReplaceAllString(warm[name], "") {
			t.Errorf("%s: a cold edge shows\n%s\na warm one\n%s", name, got, warm[name])
		}
	}
	if a, b := st.want(200, st.media("source/7.5.p1.m4s")).body, cold.want(200, cold.media("source/7.5.p1.m4s")).body; a != b {
		t.Error("media differs")
	}
}

func TestDeadEdgeIsForgotten(t *testing.T) {
	st := newEdge(t)
	ctx := t.Context()
	dead := time.Now().Add(-edgeFor - time.Second).UnixMilli()
	if err := st.db.HSet(ctx, edgesKey, "http://dead.example", dead, `http://bad.example/"`, time.Now().UnixMilli()).Err(); err != nil {
		t.Fatal(err)
	}
	a, _ := st.neighbour("http://a.example")
	a.eventually("it is announced", func() bool { return a.metric("edges") == 1 })
	if n := st.db.HExists(ctx, edgesKey, "http://dead.example").Val(); n {
		t.Error("the dead edge is still in Redis")
	}
}
