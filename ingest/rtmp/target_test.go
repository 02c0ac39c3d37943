package rtmp

import "testing"

func TestPublishTarget(t *testing.T) {
	for _, c := range []struct{ app, name, target, key string }{
		{"live", "key", "live", "key"},
		{"live/", "key?clientConfigId=1", "live", "key"},
		{"/live?x=1", "key", "live", "key"},
		{"//live//", "//key//", "live", "key"},
		{"LIVE", "key", "live", "key"},
		{"rtmp://example.org:1935/live", "key", "live", "key"},
		{"live/_definst_", "key", "live", "key"},
		{"other", "key", "other", "key"},

		// The key where it doesn't belong.
		{"live/key", "", "live", "key"},
		{"live/key/", "", "live", "key"},
		{"live/key?x=1", "?y=2", "live", "key"},
		{"live/_definst_/key", "", "live", "key"},
		{"live", "live/key", "live", "key"},
		{"", "live/key", "live", "key"},
		{"", "/live/key?x=1", "live", "key"},
		{"live", "rtmp://example.org/live/key", "live", "key"},
		{"", "rtmp://example.org/live/key", "live", "key"},

		// As it is typed, pasted and sent by Flash's heirs.
		{"live", "/key", "live", "key"},
		{"live ", " key\t", "live", "key"},
		{"live", "key\r\n", "live", "key"},
		{"live", "ke\r\n  y", "live", "key"},
		{"live", "\ufeffkey\u200b\u00a0", "live", "key"},
		{"live", `"key"`, "live", "key"},
		{"live", "“key”", "live", "key"},
		{"live", "key%0D%0A", "live", "key"},
		{"live", "%20%2Fkey%3Fuser=x", "live", "key"},
		{"live", "key?user=x&pass=100%", "live", "key"},
		{"live%2F", "%6bey", "live", "key"},
		{"live", "flv:key", "live", "key"},
		{"live", "mp4:key.mp4", "live", "key"},
		{"live", "key.flv", "live", "key"},

		// No key.
		{"", "", "", ""},
		{"live", "", "live", ""},
		{"live", " / ", "live", ""},
		{"live/_definst_", "?x=key", "live", ""},
		{"", "key", "key", ""},
		{"key", "", "key", ""},
		{"live", "key%zz", "live", "key%zz"},
	} {
		if target, key := publishTarget(c.app, c.name); target != c.target || key != c.key {
			t.Errorf("%q, %q gave %q, %q, want %q, %q", c.app, c.name, target, key, c.target, c.key)
		}
	}
}

// FuzzPublishTarget: whatever is typed, what is found has no white space, and is found again.
func FuzzPublishTarget(f *testing.F) {
	f.Add("live", " %6bey%0d%0a?x")
	f.Add("rtmp://h/live", "mp4:key.mp4")
	f.Fuzz(func(t *testing.T, app, name string) {
		target, key := publishTarget(app, name)
		if visible(key) != key {
			t.Errorf("%q, %q gave the key %q", app, name, key)
		}
		if key == "" && target == "" && len(segments(app))+len(segments(name)) > 0 {
			t.Errorf("%q, %q gave nothing", app, name)
		}
	})
}
