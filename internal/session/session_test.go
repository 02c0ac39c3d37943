package session

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestTokens(t *testing.T) {
	db := testenv.Redis(t)
	who := Identity{ID: "7", Login: "anna", Name: "Anna", Created: time.UnixMilli(1795797369266).UTC()}
	token, other := NewToken(), NewToken()
	if err := Replace(t.Context(), db, map[string]Identity{token.Hash(): who, other.Hash(): {ID: "8"}}); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{token.Reveal(), "oauth:" + token.Reveal(), " OAUTH:" + strings.ToUpper(token.Reveal()) + "\r\n"} {
		if got, err := Lookup(t.Context(), db, ParseToken(text)); err != nil || got != who {
			t.Errorf("it is %+v, %v", got, err)
		}
	}
	if err := Replace(t.Context(), db, map[string]Identity{other.Hash(): {ID: "8"}}); err != nil {
		t.Fatal(err)
	}
	for _, token := range []Token{token, "", "live_x"} {
		if got, err := Lookup(t.Context(), db, token); !errors.Is(err, ErrUnknownToken) || !got.Anonymous() {
			t.Errorf("it is %+v, %v", got, err)
		}
	}
	if text := fmt.Sprintf("%v %s %#v %+v", token, token, token, struct{ T Token }{token}); strings.Contains(text, token.Reveal()) {
		t.Errorf("it prints as %s", text)
	}
}
