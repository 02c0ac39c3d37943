package room

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

// An answer gets what the room gets, over HTTP/1.1 and HTTP/2, and ends with a goodbye, or when the client goes.
func TestAnswer(t *testing.T) {
	for _, two := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", two), func(t *testing.T) {
			f := lines()
			s := start(t, Config{Formats: []*Format{f}})
			r := s.Open("r", "0-0")
			r.Publish(entry(1))
			conns, closed, returned := make(chan *Conn, 2), make(chan Reason, 2), make(chan error, 2)
			web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				returned <- s.AttachAnswer(w, req, Options{Format: f, Handler: &front{closed: closed}, Opened: func(c *Conn) {
					if err := r.Join(c, Last(1)); err != nil {
						t.Error(err)
					}
					conns <- c
				}})
			}))
			web.EnableHTTP2 = two
			web.StartTLS()
			defer web.Close()
			get := func() (*http.Response, *bufio.Scanner) {
				answer, err := web.Client().Get(web.URL)
				if err != nil {
					t.Fatal(err)
				}
				if answer.ProtoMajor != map[bool]int{false: 1, true: 2}[two] {
					t.Errorf("it is %s", answer.Proto)
				}
				return answer, bufio.NewScanner(answer.Body)
			}
			expect := func(s *bufio.Scanner, want string) {
				t.Helper()
				if !s.Scan() || s.Text() != want {
					t.Errorf("got %q, %v, want %q", s.Text(), s.Err(), want)
				}
			}
			answer, text := get()
			expect(text, "lines 1")
			r.Publish(entry(2))
			expect(text, "lines 2")
			(<-conns).Close(Reason{Name: "test"})
			expect(text, "bye test")
			if err := <-returned; err != nil || text.Scan() {
				t.Errorf("%v, then %q", err, text.Text())
			}
			_ = answer.Body.Close()
			if why := <-closed; why.Name != "test" {
				t.Errorf("closed because of %v", why)
			}

			answer, text = get()
			expect(text, "lines 2")
			_ = answer.Body.Close()
			if why := <-closed; why != Left {
				t.Errorf("closed because of %v", why)
			}
			<-returned
		})
	}
}
