package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"millrace/api/store"
	"millrace/internal/channelname"
	"millrace/internal/credentials"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 64 << 10

// Paths of the HTTP API.
const (
	pathSpec     = "/api/v1/openapi" // .json and .yaml
	pathChannels = "/api/v1/channels"
	pathChannel  = "/api/v1/channels/{name}"
	pathHealth   = "/api/v1/channels/{name}/health"
)

// routes returns the HTTP API with its specification.
func (s *Service) routes(c *channels) http.Handler {
	mux := http.NewServeMux()
	cfg := huma.DefaultConfig("Millrace", "1")
	cfg.Info.Description = "Who is live on this Millrace. Every answer that isn't a success is {code, message}."
	cfg.OpenAPIPath = pathSpec
	cfg.DocsPath, cfg.SchemasPath = "", ""
	cfg.CreateHooks = nil // no "$schema" fields and Link headers
	cfg.Transformers = []huma.Transformer{toError}
	h := humago.New(mux, cfg)
	s.registerChannels(h, c)
	s.registerHealth(h, c)

	// huma's own error is never sent: toError replaces it.
	delete(h.OpenAPI().Components.Schemas.Map(), "ErrorModel")
	delete(h.OpenAPI().Components.Schemas.Map(), "ErrorDetail")

	// huma registers methods; what is left of a path is another method's.
	for _, path := range []string{pathChannels, pathChannel, pathHealth, pathSpec + ".json"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", "GET, HEAD")
			errMethod.write(w)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { errNoSuchRoute.write(w) })

	limited := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if lower, ok := lowerPath(r.URL.Path); ok && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			redirect(w, r, lower)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
	return s.metrics.count("api", limited)
}

// lowerPath returns the path that is meant where a channel's name is written with
// capital letters.
func lowerPath(path string) (lower string, ok bool) {
	rest, ok := strings.CutPrefix(path, pathChannels+"/")
	if !ok {
		return "", false
	}
	name, rest, more := strings.Cut(rest, "/")
	if name, ok = channelname.Lower(name); !ok || more && rest != "health" {
		return "", false
	}
	if more {
		name += "/" + rest
	}
	return pathChannels + "/" + name, true
}

// registerChannels adds who is live, which anybody may ask.
func (s *Service) registerChannels(h huma.API, c *channels) {
	huma.Register(h, operation(h, "list-channels", pathChannels, "The channels",
		"Those that have a broadcast, most viewers first. Where the server is run with --list-channels all: with live=true those, otherwise all of them, by name. Up to a second old."),
		func(ctx context.Context, in *struct {
			Live bool `query:"live" doc:"Only channels that are live"`
		}) (*listOutput, error) {
			list, err := c.list(ctx, in.Live)
			if err != nil {
				return nil, s.answerable(ctx, err, "")
			}
			out := new(listOutput)
			out.Body.Channels = list
			return out, nil
		})
	huma.Register(h, operation(h, "get-channel", pathChannel, "One channel", "Up to a second old."),
		func(ctx context.Context, in *struct {
			Name string `path:"name" maxLength:"100" doc:"The channel's name"`
		}) (*channelOutput, error) {
			ch, err := c.get(ctx, in.Name)
			if err != nil {
				return nil, s.answerable(ctx, err, in.Name)
			}
			return &channelOutput{Body: ch}, nil
		})
}

// registerHealth adds the health of a stream, for a caller with its stream key.
func (s *Service) registerHealth(h huma.API, c *channels) {
	health := operation(h, "get-health", pathHealth, "The health of a channel's stream, for its streamer",
		"What is wrong with what the encoder sends, or with how it is processed, in plain words. Needs the channel's stream key: Authorization: Bearer KEY.")
	health.Security = []map[string][]string{{"streamKey": {}}}
	health.Responses["401"] = health.Responses["default"]
	h.OpenAPI().Components.SecuritySchemes = map[string]*huma.SecurityScheme{"streamKey": {Type: "http", Scheme: "bearer"}}
	huma.Register(h, health, func(ctx context.Context, in *struct {
		Name          string `path:"name" maxLength:"100" doc:"The channel's name"`
		Authorization string `header:"Authorization" maxLength:"300" hidden:"true"`
	}) (*healthOutput, error) {
		body, err := c.health(ctx, in.Name, in.Authorization)
		switch {
		case errors.Is(err, credentials.ErrUnknownKey):
			return nil, errKey
		case err != nil:
			return nil, s.answerable(ctx, err, in.Name)
		}
		return &healthOutput{Body: body}, nil
	})
}

type listOutput struct {
	Body struct {
		Channels []Channel `json:"channels" nullable:"false"`
	}
}

type channelOutput struct{ Body Channel }

type healthOutput struct{ Body Health }

// operation describes a GET whose errors all look like Error.
func operation(h huma.API, id, path, summary, description string) huma.Operation {
	schema := h.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Error](), true, "Error")
	failed := func(what string) *huma.Response {
		return &huma.Response{Description: what, Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
	}
	return huma.Operation{
		OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Description: description,
		Responses: map[string]*huma.Response{
			"404":     failed("There is no such channel"),
			"503":     failed("A database is away"),
			"default": failed("Any other fault"),
		},
	}
}

// answerable turns an error into what the client is told; what the client can't
// change is logged.
func (s *Service) answerable(ctx context.Context, err error, channel string) error {
	if errors.Is(err, store.ErrNotFound) {
		return errChannelNotFound(channel)
	}
	if ctx.Err() == nil {
		s.faults.Log(s.log, slog.LevelError, "answer a request", "err", err)
	}
	return errUnavailable
}
