package main

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestByteSize(t *testing.T) {
	for text, want := range map[string]byteSize{
		"0": 0, "512": 512, "10B": 10, "3 kb": 3000, "500MB": 5e8, "2gb": 2e9, "1TB": 1e12,
		"": -1, "-1": -1, "GB": -1, "1.5GB": -1, "9999999999TB": -1,
	} {
		var got byteSize
		err := got.UnmarshalText([]byte(text))
		if (err != nil) != (want == -1) || err == nil && got != want {
			t.Errorf("%q = %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestSecretsDontPrint(t *testing.T) {
	s := settings{S3SecretKey: "hunter2", S3AccessKey: "hunter2"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if out := fmt.Sprintf(format, s); strings.Contains(out, "hunter2") {
			t.Errorf("%s shows a secret: %s", format, out)
		}
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s.S3SecretKey)
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log shows a secret: %s", log.String())
	}
}
