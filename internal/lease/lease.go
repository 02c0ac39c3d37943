// Package lease is ingest's hold on a channel, as it stands in Redis: which
// ingest has which broadcast of it, under which epoch, and which workers hold
// its slots. Edges and api find a broadcast by it.
//
// A lease only fences. A higher epoch ends it; silence never does.
package lease

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/internal/jobs"
	"millrace/internal/media"
	"millrace/internal/relay"
	"millrace/internal/seal"
)

// State of a channel's newest broadcast.
type State string

// The states.
const (
	// Live: a publisher is sending.
	Live State = "live"
	// Reconnecting: the publisher is gone, the broadcast waits for it.
	Reconnecting State = "reconnecting"
	// Ended: the broadcast is over.
	Ended State = "ended"
)

// Forget is how long after its last sign of life a record stays in Redis.
const Forget = 24 * time.Hour

// liveSet holds the names of channels whose broadcast hasn't ended.
const liveSet = "millrace:live"

func channelKey(channel string) string { return "millrace:channel:{" + channel + "}" }

func slotsKey(broadcast string) string { return "millrace:broadcast:{" + broadcast + "}:slots" }

// The errors that callers branch on.
var (
	// ErrLost means that a higher epoch holds the channel.
	ErrLost = errors.New("another ingest holds the channel")
	// ErrBusy means that the holder is alive and its publisher is sending.
	ErrBusy = errors.New("the channel has a publisher")
	// ErrNone means that the channel has had no broadcast lately.
	ErrNone = errors.New("no broadcast of the channel is known")
)

// Record is what Redis says of a channel.
type Record struct {
	Broadcast string
	Epoch     uint64
	// Ingest is where the holder serves other services, in the scope of the channel.
	Ingest seal.Address
	State  State
	// Started is the broadcast's start.
	Started time.Time
	// Seen is when the holder last renewed it, by Redis' clock, and Age how long
	// ago that was when it was read. Renew sets both.
	Seen time.Time
	Age  time.Duration
	// Silent is how long the publisher had sent nothing when it was renewed.
	Silent time.Duration
	// Lost is when the publisher went; zero while one is sending. Renew takes it by
	// its caller's clock, a record that was read has it by Redis'. A broadcast is
	// over when nobody came back within Grace of it.
	Lost  time.Time
	Grace time.Duration
	// Format, Width, Height (as shown) and FrameRate are the source's; 0 without
	// video. Universal is set where every player can play it.
	Format        media.Format
	Width, Height int
	FrameRate     float64
	Universal     bool
	Picture       media.Picture
	// Health is what is wrong with what the publisher sends, or with how it is
	// processed: a JSON list of Problem; empty when nothing is.
	Health string
	// Handoff is what another ingest goes on from if this one can't be asked any more.
	Handoff relay.Handoff
}

// picture is what stands in the field of that name.
type picture struct {
	Universal bool          `json:"universal"`
	Picture   media.Picture `json:"picture"`
}

// Problem is one thing that the streamer should know, and mostly can set right.
type Problem struct {
	Code string `json:"code" doc:"Which problem, for programs" example:"keyframe_interval"`
	Text string `json:"text" doc:"What is wrong and what to do, for the streamer"`
}

var (
	//go:embed acquire.lua
	acquireSource string
	//go:embed renew.lua
	renewSource string
	//go:embed read.lua
	readSource string
	//go:embed end.lua
	endSource string
	//go:embed setslot.lua
	setSlotSource string

	acquireScript = redis.NewScript(acquireSource)
	renewScript   = redis.NewScript(renewSource)
	readScript    = redis.NewScript(readSource)
	endScript     = redis.NewScript(endSource)
	setSlotScript = redis.NewScript(setSlotSource)
)

// Acquire takes the channel for ingest under a new epoch. It goes on with the
// broadcast that is there, if that hasn't ended and its grace period isn't
// over: before is then its record under the earlier epoch, and else empty. If
// not, it begins the broadcast fresh, a new id. While another ingest's record
// is live and younger than busyFor, it returns [ErrBusy].
func Acquire(ctx context.Context, db redis.UniversalClient, channel, fresh string, ingest seal.Address, busyFor, grace time.Duration) (now, before Record, err error) {
	reply, err := acquireScript.Run(ctx, db, []string{channelKey(channel)},
		fresh, string(ingest), busyFor.Milliseconds(), Forget.Milliseconds(), grace.Milliseconds()).Slice()
	if err != nil {
		return Record{}, Record{}, fmt.Errorf("acquire channel %s: %w", channel, err)
	}
	if len(reply) == 0 {
		return Record{}, Record{}, fmt.Errorf("acquire channel %s: %w", channel, ErrBusy)
	}
	if err := db.SAdd(ctx, liveSet, channel).Err(); err != nil {
		return Record{}, Record{}, fmt.Errorf("acquire channel %s: %w", channel, err)
	}
	if now, err = parse(reply[0]); err != nil || len(reply) == 1 {
		return now, Record{}, err
	}
	before, err = parse(reply[1])
	return now, before, err
}

// Renew writes r's state and picture for its epoch. [ErrLost] means
// that a higher epoch holds the channel.
func Renew(ctx context.Context, db redis.UniversalClient, channel string, r Record) error {
	carry, err := json.Marshal(r.Handoff)
	if err != nil {
		return fmt.Errorf("renew channel %s: %w", channel, err)
	}
	doc, err := json.Marshal(picture{r.Universal, r.Picture})
	if err != nil {
		return fmt.Errorf("renew channel %s: %w", channel, err)
	}
	ago := int64(-1) // the holder's clock may differ from Redis'
	if !r.Lost.IsZero() {
		ago = max(0, time.Since(r.Lost).Milliseconds())
	}
	ok, err := renewScript.Run(ctx, db, []string{channelKey(channel)},
		r.Epoch, string(r.State), r.Width, r.Height,
		strconv.FormatFloat(r.FrameRate, 'f', 3, 64), Forget.Milliseconds(),
		r.Broadcast, string(r.Ingest), r.Started.UnixMilli(), ago, r.Grace.Milliseconds(), carry, r.Silent.Milliseconds(), r.Health, string(r.Format), doc).Int()
	if err != nil {
		return fmt.Errorf("renew channel %s: %w", channel, err)
	}
	if ok == 0 {
		return fmt.Errorf("renew channel %s: %w", channel, ErrLost)
	}
	if r.State == Ended {
		err = db.SRem(ctx, liveSet, channel).Err()
	} else {
		err = db.SAdd(ctx, liveSet, channel).Err()
	}
	if err != nil {
		return fmt.Errorf("renew channel %s: %w", channel, err)
	}
	return nil
}

// End ends a broadcast in the place of a holder that has renewed nothing for
// silence, and reports whether it has ended, whoever did it.
func End(ctx context.Context, db redis.UniversalClient, channel, broadcast string, silence time.Duration) (bool, error) {
	ended, err := endScript.Run(ctx, db, []string{channelKey(channel)}, broadcast, silence.Milliseconds()).Int()
	if err == nil && ended == 2 {
		err = db.SRem(ctx, liveSet, channel).Err()
	}
	if err != nil {
		return false, fmt.Errorf("end the broadcast of channel %s: %w", channel, err)
	}
	return ended > 0, nil
}

// Read returns what Redis says of a channel, or [ErrNone].
func Read(ctx context.Context, db redis.UniversalClient, channel string) (Record, error) {
	reply, err := readScript.Run(ctx, db, []string{channelKey(channel)}).Slice()
	if err != nil {
		return Record{}, fmt.Errorf("read channel %s: %w", channel, err)
	}
	if len(reply) == 0 {
		return Record{}, fmt.Errorf("read channel %s: %w", channel, ErrNone)
	}
	return parse(reply)
}

// Channels returns the channels whose broadcast hasn't ended as far as is
// known; Read tells whether its holder is still alive.
func Channels(ctx context.Context, db redis.UniversalClient) ([]string, error) {
	names, err := db.SMembers(ctx, liveSet).Result()
	if err != nil {
		return nil, fmt.Errorf("list live channels: %w", err)
	}
	return names, nil
}

// parse reads what the scripts answer: name, value, name, value.
func parse(reply any) (Record, error) {
	list, ok := reply.([]any)
	f := map[string]string{}
	for i := 0; ok && i+1 < len(list); i += 2 {
		name, _ := list[i].(string)
		f[name], _ = list[i+1].(string)
	}
	var errs []error
	num := func(name string) int64 {
		if f[name] == "" {
			return 0
		}
		n, err := strconv.ParseInt(f[name], 10, 64)
		errs = append(errs, err)
		return n
	}
	r := Record{
		Broadcast: f["broadcast"], Epoch: uint64(num("epoch")), Ingest: seal.Address(f["ingest"]), State: State(f["state"]),
		Started: time.UnixMilli(num("started")).UTC(), Age: time.Duration(num("age")) * time.Millisecond,
		Silent: time.Duration(num("silent")) * time.Millisecond, Grace: time.Duration(num("grace")) * time.Millisecond,
		Format: media.Format(f["format"]), Width: int(num("width")), Height: int(num("height")), Health: f["health"],
	}
	if lost := num("lost"); lost != 0 {
		r.Lost = time.UnixMilli(lost).UTC()
	}
	if seen := num("seen"); seen != 0 {
		r.Seen = time.UnixMilli(seen).UTC()
	}
	if f["rate"] != "" {
		var err error
		r.FrameRate, err = strconv.ParseFloat(f["rate"], 64)
		errs = append(errs, err)
	}
	if f["carry"] != "" {
		errs = append(errs, json.Unmarshal([]byte(f["carry"]), &r.Handoff))
	}
	if f["picture"] != "" {
		var p picture
		errs = append(errs, json.Unmarshal([]byte(f["picture"]), &p))
		r.Universal, r.Picture = p.Universal, p.Picture
	}
	if err := errors.Join(errs...); err != nil {
		return Record{}, fmt.Errorf("channel record: %w", err)
	}
	return r, nil
}

// SetSlot notes the worker that holds a slot, for edges to find. What an ingest
// under a higher epoch noted stays: [ErrLost].
func SetSlot(ctx context.Context, db redis.UniversalClient, broadcast string, slot int, s jobs.Slot) error {
	doc, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("note slot %d of %s: %w", slot, broadcast, err)
	}
	ok, err := setSlotScript.Run(ctx, db, []string{slotsKey(broadcast)}, slot, doc, s.Epoch.Lease, Forget.Milliseconds()).Int()
	if err == nil && ok == 0 {
		err = ErrLost
	}
	if err != nil {
		return fmt.Errorf("note slot %d of %s: %w", slot, broadcast, err)
	}
	return nil
}

// Slots returns the workers of a broadcast by slot.
func Slots(ctx context.Context, db redis.UniversalClient, broadcast string) (map[int]jobs.Slot, error) {
	fields, err := db.HGetAll(ctx, slotsKey(broadcast)).Result()
	if err != nil {
		return nil, fmt.Errorf("read slots of %s: %w", broadcast, err)
	}
	slots := make(map[int]jobs.Slot, len(fields))
	for name, doc := range fields {
		n, err := strconv.Atoi(name)
		if err != nil {
			return nil, fmt.Errorf("read slots of %s: %w", broadcast, err)
		}
		var s jobs.Slot
		if err := json.Unmarshal([]byte(doc), &s); err != nil {
			return nil, fmt.Errorf("read slot %d of %s: %w", n, broadcast, err)
		}
		slots[n] = s
	}
	return slots, nil
}
