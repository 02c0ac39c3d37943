//go:build chaos

package chaos

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"millrace/e2e/harness"
	"millrace/e2e/viewer"
)

// startFront joins pages and video under one address, as a site's own proxy does.
// A request for video goes to the first edge that can be reached.
func (c *cluster) startFront() {
	page, _ := url.Parse(c.api.HTTP)
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetXForwarded()
			if strings.HasPrefix(r.In.URL.Path, "/hls/") {
				r.SetURL(c.edgeForPages())
			} else {
				r.SetURL(page)
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		Transport:    &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second},
	}
	front := httptest.NewServer(proxy)
	c.t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
		proxy.Transport.(*http.Transport).CloseIdleConnections()
	})
	c.front = front.URL
}

// edgeForPages is the first edge that runs, as a load balancer would choose.
func (c *cluster) edgeForPages() *url.URL {
	at := c.edges[0]
	for _, e := range c.edges {
		if c.isUp(e) {
			at = e
			break
		}
	}
	u, _ := url.Parse(at.HTTP)
	return u
}

// isUp reports whether somebody listens on a service's public port; restarts
// are the test's goroutine's business, so the process itself isn't looked at.
func (c *cluster) isUp(s *harness.Server) bool {
	conn, err := net.DialTimeout("tcp", hostOf(s.HTTP), 200*time.Millisecond)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// watch opens the page and waits until it plays.
func (c *cluster) watch() *viewer.Witness {
	c.t.Helper()
	return viewer.Watch(c.t, c.front+"/demo", c.shape.level)
}

// edgeInUse is the edge that the page fetched from last.
func (c *trial) edgeInUse() *harness.Server {
	c.t.Helper()
	last := harness.Eval[string](c.witness.Browser, `performance.getEntriesByType('resource').map(e => e.name).filter(n => n.includes('/hls/')).at(-1) ?? ''`)
	host := hostOf(last)
	if host == hostOf(c.front) {
		host = c.edgeForPages().Host
	}
	for n, e := range c.edges {
		if host == hostOf(e.HTTP) || n < len(c.pageWires) && host == c.pageWires[n].address {
			return e
		}
	}
	c.t.Fatalf("the page fetched %q last: that is no edge's", last)
	return nil
}
