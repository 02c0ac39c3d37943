package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

// configFile is a YAML file of flags; it resolves flags for kong.
type configFile struct {
	path   string
	values map[string]string
}

// loadConfig reads the file; an empty path is an empty file.
func loadConfig(path string) (*configFile, error) {
	f := &configFile{path: path, values: make(map[string]string)}
	if path == "" {
		return f, nil
	}
	in, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	defer in.Close()
	raw := make(map[string]any)
	if err := yaml.NewDecoder(in).Decode(&raw); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("configuration file %s: %w", path, oneLine(err))
	}
	for key, v := range raw {
		switch v := v.(type) {
		case nil: // "key:" leaves the default
		case []any:
			var parts []string
			for _, p := range v {
				parts = append(parts, fmt.Sprint(p))
			}
			f.values[key] = strings.Join(parts, ",")
		case map[string]any:
			return nil, fmt.Errorf("configuration file %s: %q has keys of its own; write one \"name: value\" a line", path, key)
		default:
			f.values[key] = fmt.Sprint(v)
		}
	}
	return f, nil
}

// oneLine joins the lines of YAML's errors.
func oneLine(err error) error {
	return errors.New(strings.Join(strings.Fields(err.Error()), " "))
}

// Validate refuses keys that are no flags.
func (f *configFile) Validate(app *kong.Application) error {
	var known []string
	for _, flag := range app.Flags {
		if flag.Name != "help" && flag.Name != "config" {
			known = append(known, flag.Name)
		}
	}
	for key := range f.values {
		if !slices.Contains(known, key) {
			slices.Sort(known)
			return fmt.Errorf("configuration file %s: unknown key %q; the keys are %s", f.path, key, strings.Join(known, ", "))
		}
	}
	return nil
}

// Resolve returns a flag's value in the file, unless the environment has one.
func (f *configFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, env := range flag.Envs {
		if _, ok := os.LookupEnv(env); ok {
			return nil, nil
		}
	}
	if v, ok := f.values[flag.Name]; ok {
		return v, nil
	}
	return nil, nil
}
