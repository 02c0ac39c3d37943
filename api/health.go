package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"millrace/internal/credentials"
	"millrace/internal/lease"
)

// Health is what a streamer may know of the stream that they send.
type Health struct {
	State    string          `json:"state" enum:"live,reconnecting,offline" doc:"As the channel's"`
	Problems []lease.Problem `json:"problems" nullable:"false" doc:"Empty: all is well"`
}

// health returns the health of a channel's stream to a caller with its stream key;
// to others [credentials.ErrUnknownKey].
func (c *channels) health(ctx context.Context, name, authorization string) (Health, error) {
	h := Health{State: stateOffline, Problems: []lease.Problem{}}
	key, ok := strings.CutPrefix(authorization, "Bearer ")
	if !ok {
		return h, credentials.ErrUnknownKey
	}
	owner, err := credentials.Lookup(ctx, c.redis, credentials.Typed(key))
	if err != nil {
		return h, err
	}
	if owner.Name != name {
		return h, credentials.ErrUnknownKey
	}
	r, err := lease.Read(ctx, c.redis, name)
	if errors.Is(err, lease.ErrNone) {
		return h, nil
	}
	if err != nil {
		return h, err
	}
	if h.State = stateOf(r, false); h.State == stateLive && r.Health != "" {
		if err := json.Unmarshal([]byte(r.Health), &h.Problems); err != nil {
			return h, fmt.Errorf("health of channel %s: %w", name, err)
		}
	}
	return h, nil
}
