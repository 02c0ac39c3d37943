package e2e

import "millrace/e2e/harness"

// The clips of tests that ask for nothing special of them. Each is encoded once:
// longClip outlasts what any test does while it is published.
var (
	longClip = harness.Clip{Name: "long", Seconds: "180", Size: "640x360", Rate: "30", Video: []string{"-g", "60", "-bf", "2"}, Audio: harness.Stereo}
	// wideClip is shown as 640x360, of fewer samples that are a third wider than high.
	wideClip  = harness.Clip{Name: "wide", Seconds: "180", Size: "480x360", Rate: "30", Video: []string{"-g", "60", "-bf", "2", "-vf", "setsar=4/3"}, Audio: harness.Stereo}
	shortClip = harness.Clip{Name: "short", Seconds: "25", Size: "640x360", Rate: "30", Video: []string{"-g", "60"}, Audio: harness.Stereo}
)
