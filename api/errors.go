package api

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// Error is the body of every answer that isn't a success.
type Error struct {
	status  int
	Code    string `json:"code" doc:"What went wrong, for programs" example:"channel_not_found"`
	Message string `json:"message" doc:"What went wrong and what to do, for people"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// GetStatus returns the HTTP status, for huma.
func (e *Error) GetStatus() int { return e.status }

func errChannelNotFound(name string) *Error {
	return &Error{http.StatusNotFound, "channel_not_found",
		"There is no channel \"" + name + "\". Check the spelling, or make it with: millrace channel create " + name}
}

var (
	errNoSuchRoute = &Error{http.StatusNotFound, "not_found",
		"There is nothing here. /api/v1/openapi.json lists what there is."}
	errMethod = &Error{http.StatusMethodNotAllowed, "method_not_allowed",
		"Only GET and HEAD are possible here."}
	errKey = &Error{http.StatusUnauthorized, "wrong_key",
		"Send the channel's stream key: Authorization: Bearer STREAM_KEY."}
	errUnavailable = &Error{http.StatusServiceUnavailable, "unavailable",
		"Millrace can't reach one of its databases at the moment. Live video goes on; try again in a few seconds."}
)

// write sends e outside of huma.
func (e *Error) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(e) // the client is gone: nobody to tell
}

// toError turns huma's own errors (a parameter that can't be read and the
// like) into Error.
func toError(ctx huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	ctx.SetHeader("Content-Type", "application/json")
	e := &Error{status: m.Status, Message: m.Detail}
	for _, d := range m.Errors {
		e.Message += "; " + d.Error()
	}
	e.Code = strings.ReplaceAll(strings.ToLower(http.StatusText(m.Status)), " ", "_")
	if m.Status == http.StatusUnprocessableEntity {
		e.Code = "invalid_request"
	}
	return e, nil
}
