package moderation

import (
	"strings"
	"testing"

	"millrace/chat/event"
)

func TestMayActOn(t *testing.T) {
	roles := []Role{Nobody, VIP, Moderator, Broadcaster}
	for i, want := range [][]bool{{false, false, false, false}, {false, false, false, false}, {true, true, false, false}, {true, true, true, false}} {
		for j, may := range want {
			if roles[i].MayActOn(roles[j]) != may {
				t.Errorf("%q on %q: %v", roles[i], roles[j], !may)
			}
		}
	}
}

func TestTerms(t *testing.T) {
	terms := NewTerms([]string{"badword", "spam*", "*slur*", "buy followers", "", "*", "  Ёлка "})
	for text, want := range map[string]bool{
		"a nice day": false, "bad word": false, "badwords": false, "a BADWORD!": true, "bаdwоrd": true, // two letters are Cyrillic
		"b4dw0rd": true, "baaaadwooord": true, "b\u0336a\u0336dword": true, "ｂａｄｗｏｒｄ": true, "bad\u200bword": true,
		"spammer": true, "antispam": false, "xxslurxx": true, "s l u r": true, "s.l.u.r": true,
		"do you want to Buy  Followers now": true, "buy my followers": false, "елка": true, "": false,
		strings.Repeat("a ", 5000): false,
	} {
		if terms.Match(text) != want {
			t.Errorf("%.40q: %v, want %v", text, !want, want)
		}
	}
	if (*Terms)(nil).Match("anything") {
		t.Error("no terms block something")
	}
}

func TestHasLink(t *testing.T) {
	for text, want := range map[string]bool{
		"see https://x.y/z": true, "HTTP://a": true, "www.example": true, "go to example.com now": true, "sub.example.co.uk": true,
		"3.5 of 10": false, "hello...there": false, "e.g. this": false, "file.txt": false, "wait.what": false, "": false,
	} {
		if HasLink(text) != want {
			t.Errorf("%q: %v, want %v", text, !want, want)
		}
	}
}

func TestCheck(t *testing.T) {
	terms := NewTerms([]string{"badword"})
	emote := func(word string) bool { return word == "mill" }
	for _, c := range []struct {
		text     string
		role     Role
		settings event.Settings
		want     Code
	}{
		{"hello", Nobody, event.Settings{}, ""},
		{"badword", Nobody, event.Settings{}, Term},
		{"badword", VIP, event.Settings{}, Term},
		{"badword", Moderator, event.Settings{}, ""},
		{"mill mill", Nobody, event.Settings{EmoteOnly: true}, ""},
		{"mill go", Nobody, event.Settings{EmoteOnly: true}, EmoteOnly},
		{"mill go", VIP, event.Settings{EmoteOnly: true}, ""},
		{"example.com", Nobody, event.Settings{HoldLinks: true}, Link},
		{"example.com", Broadcaster, event.Settings{HoldLinks: true}, ""},
	} {
		var got Code
		if r := Check(c.text, c.role, c.settings, terms, emote); r != nil {
			got = r.Code
		}
		if got != c.want {
			t.Errorf("%q of %q under %+v: %q, want %q", c.text, c.role, c.settings, got, c.want)
		}
	}
}

// Whatever a text is, it holds itself.
func FuzzTerms(f *testing.F) {
	f.Add("badword", "a badword here")
	f.Fuzz(func(t *testing.T, term, text string) {
		NewTerms([]string{term}).Match(text)
		if words := foldedWords(text); len(words) > 0 && len([]rune(text)) <= MaxTerm && !strings.Contains(text, "*") && !NewTerms([]string{text}).Match("x "+text+" y") {
			t.Fatalf("%q doesn't match itself", text)
		}
	})
}
