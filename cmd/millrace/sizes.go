package main

import (
	"fmt"
	"strconv"
	"strings"

	"millrace/transcode"
)

// byteSize is a number of bytes, written 500MB or 2GB (powers of 1,000).
type byteSize int64

// sizeUnits are the units of a byteSize, largest first; "B" ends all of them.
var sizeUnits = []struct {
	suffix string
	size   int64
}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1}}

// UnmarshalText reads a number with an optional unit.
func (b *byteSize) UnmarshalText(text []byte) error {
	s := strings.ToUpper(strings.TrimSpace(string(text)))
	unit := int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			s, unit = strings.TrimSpace(rest), u.size
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return fmt.Errorf("%q is no size; write 500MB or 2GB", text)
	}
	*b = byteSize(n * unit)
	return nil
}

// String writes the size in the largest unit that leaves no rest.
func (b byteSize) String() string {
	for _, u := range sizeUnits {
		if n := int64(b); n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// freeSpace is what is to stay free of a disk; the zero value stands for what
// transcode takes by itself.
type freeSpace struct {
	given bool
	bytes int64
	// percent is of the whole disk.
	percent float64
}

// UnmarshalText reads a size or a number of per cent.
func (f *freeSpace) UnmarshalText(text []byte) error {
	*f = freeSpace{given: len(text) > 0}
	if number, ok := strings.CutSuffix(string(text), "%"); ok {
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(n >= 0 && n < 100) { // nor is it NaN
			return fmt.Errorf("%q is no part of a disk; write 5%% or 2GB", text)
		}
		f.percent = n
		return nil
	}
	if !f.given {
		return nil
	}
	var size byteSize
	if err := size.UnmarshalText(text); err != nil {
		return fmt.Errorf("%q is no part of a disk; write 5%% or 2GB", text)
	}
	f.bytes = int64(size)
	return nil
}

// of is how many bytes of a disk are to stay free.
func (f freeSpace) of(total int64) int64 {
	if !f.given {
		return transcode.DefaultFloor(total)
	}
	return f.bytes + int64(float64(total)*f.percent/100)
}

// quota bounds what is stored of a channel, in bytes; 0 is "default", noQuota "none".
type quota int64

const noQuota quota = -1

// UnmarshalText reads a size, "none" or "default".
func (q *quota) UnmarshalText(text []byte) error {
	switch string(text) {
	case "default", "":
		*q = 0
		return nil
	case "none":
		*q = noQuota
		return nil
	}
	var size byteSize
	if err := size.UnmarshalText(text); err != nil || size == 0 {
		return fmt.Errorf("%q is no quota; write 20GB, none or default", text)
	}
	*q = quota(size)
	return nil
}

func (q quota) String() string {
	switch {
	case q == 0:
		return "default"
	case q < 0:
		return "none"
	}
	return byteSize(q).String()
}
