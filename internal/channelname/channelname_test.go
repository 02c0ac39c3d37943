package channelname

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for name, want := range map[string]string{ // what the error says; "": none
		"demo": "", "a": "", "0": "", "7_up": "", "a__": "", "live2": "", "apis": "",
		strings.Repeat("a", MaxLength):   "",
		strings.Repeat("a", MaxLength+1): "use 1 to 25 of a-z, 0-9 and _",
		"":                               "use 1 to 25",
		"_a":                             "not beginning with _",
		"Demo":                           "use 1 to 25",
		"a-b":                            "use 1 to 25",
		"a b":                            "use 1 to 25",
		"a/b":                            "use 1 to 25",
		"a.b":                            "use 1 to 25",
		"demo\n":                         "use 1 to 25",
		"café":                           "use 1 to 25",
		"..":                             "use 1 to 25",
		// Each first path segment of the public surface.
		"hls": "reserved", "whip": "reserved", "whep": "reserved", "chat": "reserved", "irc": "reserved",
		"helix": "reserved", "eventsub": "reserved", "oauth2": "reserved", "api": "reserved", "embed": "reserved",
		"assets": "reserved", "live": "reserved", "healthz": "reserved", "readyz": "reserved", "metrics": "reserved",
		"debug": "reserved",
	} {
		err := Check(name)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Check(%q) = %v, want %q in it", name, err, want)
		}
		if Valid(name) != (err == nil) {
			t.Errorf("Valid(%q) = %v, but Check says %v", name, Valid(name), err)
		}
	}
}

func TestLower(t *testing.T) {
	for text, want := range map[string]string{ // "": no other spelling of a name
		"S21": "s21", "Demo_2": "demo_2", strings.Repeat("A", MaxLength): strings.Repeat("a", MaxLength),
		"demo": "", "": "", "API": "", "_Demo": "", "De/mo": "", "Café": "", "..": "", strings.Repeat("A", MaxLength+1): "",
	} {
		if got, ok := Lower(text); ok != (want != "") || ok && got != want {
			t.Errorf("Lower(%q) = %q, %v, want %q", text, got, ok, want)
		}
	}
}
