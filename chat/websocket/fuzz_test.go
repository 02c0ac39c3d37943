package websocket

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzReader: whatever arrives, in whatever pieces, gives the same messages, holds no more than a message's size, and
// every error has a code.
func FuzzReader(f *testing.F) {
	for _, e := range autobahn() {
		if all := bytes.Join(e.send, nil); len(all) < 1000 {
			f.Add(all, 3)
		}
	}
	f.Fuzz(func(t *testing.T, p []byte, step int) {
		const limit = 2000
		read := func(step int) (got []byte, err error) {
			r := Reader{Max: limit}
			rest := bytes.Clone(p)
			for len(rest) > 0 && err == nil {
				n := min(step, len(rest))
				err = r.Read(rest[:n], func(binary bool, payload []byte) error {
					got = append(append(got, 'm'), payload...)
					return nil
				}, func(ping bool, payload []byte) error {
					got = append(append(got, 'c'), payload...)
					return nil
				})
				rest = rest[n:]
				if r.Held() > 2*limit+4*maxControl {
					t.Fatalf("it holds %d bytes", r.Held())
				}
			}
			return got, err
		}
		whole, err := read(max(1, len(p)))
		pieces, errPieces := read(1 + step&0xff)
		var a, b *Error
		if errors.As(err, &a) != (err != nil) || errors.As(errPieces, &b) != (errPieces != nil) {
			t.Fatalf("errors without a code: %v, %v", err, errPieces)
		}
		if !bytes.Equal(whole, pieces) || (a == nil) != (b == nil) || a != nil && a.Code != b.Code {
			t.Fatalf("in one piece %q %v, in several %q %v", whole, err, pieces, errPieces)
		}
	})
}
