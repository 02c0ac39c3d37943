package hls

import (
	"fmt"
	"strconv"
	"strings"
)

// attributes is an attribute list; quoted strings keep their quotes.
type attributes map[string]string

func parseAttributes(value string) (attributes, error) {
	a := make(attributes)
	for rest := value; ; {
		name, after, ok := strings.Cut(rest, "=")
		if !ok || name == "" || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
			return nil, fmt.Errorf("%q is no attribute list", value)
		}
		if _, twice := a[name]; twice {
			return nil, fmt.Errorf("attribute %s twice", name)
		}
		end := strings.IndexByte(after, ',')
		if strings.HasPrefix(after, `"`) {
			closing := strings.IndexByte(after[1:], '"')
			if closing < 0 {
				return nil, fmt.Errorf("attribute %s: no closing quote", name)
			}
			end = closing + 2
			if end < len(after) && after[end] != ',' {
				return nil, fmt.Errorf("attribute %s: text after the closing quote", name)
			}
		}
		if end < 0 || end == len(after) {
			a[name] = after
			return a, nil
		}
		a[name], rest = after[:end], after[end+1:]
	}
}

// text returns a quoted string that isn't empty.
func (a attributes) text(name string) (string, error) {
	v := a[name]
	if len(v) < 3 || v[0] != '"' || v[len(v)-1] != '"' {
		return "", fmt.Errorf("no %s in quotes", name)
	}
	return v[1 : len(v)-1], nil
}

func (a attributes) seconds(name string) (float64, error) {
	v, err := parseSeconds(a[name])
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// parseSeconds reads a decimal-floating-point.
func parseSeconds(s string) (float64, error) {
	if s == "" || strings.Trim(s, "0123456789.") != "" {
		return 0, fmt.Errorf("%q is no decimal number", s)
	}
	return strconv.ParseFloat(s, 64)
}
