package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/redis/go-redis/v9"

	"millrace/api"
	"millrace/api/store"
	"millrace/internal/credentials"
)

// kickPublisher ends a channel's publisher and its broadcast. For a while nobody can
// begin another one.
func kickPublisher(ctx context.Context, s settings, name string, stdout, stderr io.Writer) error {
	bar := func(ctx context.Context, db redis.UniversalClient) error { return credentials.Bar(ctx, db, name) }
	return endBroadcast(ctx, s, name, (*store.Store).Kick, bar, stderr, func(heard, was bool) error {
		text := fmt.Sprintf("Channel %s has no broadcast; nobody can begin one for %s.", name, credentials.BarredFor)
		switch {
		case !heard:
			text = fmt.Sprintf("No millrace that runs has heard of it: whoever publishes to channel %s by now is ended when one does.", name)
		case was:
			text = fmt.Sprintf("The publisher of channel %s and its broadcast are ended; nobody can begin another one for %s.", name, credentials.BarredFor)
		}
		_, err := fmt.Fprintf(stdout, "%s To keep everybody out: millrace channel disable %s\n", text, name)
		return err
	})
}

// disableChannel lets nobody publish to a channel any more.
func disableChannel(ctx context.Context, s settings, name string, stdout, stderr io.Writer) error {
	return endBroadcast(ctx, s, name, (*store.Store).Disable, nil, stderr, func(_, was bool) error {
		_, err := fmt.Fprintf(stdout, "Channel %s is disabled: nobody can publish to it.%s To take that back: millrace channel enable %[1]s\n", name, itIsOver(was))
		return err
	})
}

// deleteChannel deletes a channel and its stream key.
func deleteChannel(ctx context.Context, s settings, name string, stdout, stderr io.Writer) error {
	return endBroadcast(ctx, s, name, (*store.Store).DeleteChannel, nil, stderr, func(_, was bool) error {
		_, err := fmt.Fprintf(stdout, "Channel %s is deleted, with its stream key.%s What is stored of its broadcasts is deleted when their retention is over.\n", name, itIsOver(was))
		return err
	})
}

func itIsOver(was bool) string {
	if was {
		return " Its broadcast is ended."
	}
	return ""
}

// enableChannel takes disableChannel back.
func enableChannel(ctx context.Context, s settings, name string, stdout, stderr io.Writer) error {
	return withStore(ctx, s, func(st *store.Store) error {
		if err := changed(st.Enable(ctx, name), name); err != nil {
			return err
		}
		if err := publishKeys(ctx, s, st); err != nil {
			sayLater(stderr, err)
		}
		_, err := fmt.Fprintf(stdout, "Channel %s is enabled: its stream key works.\n", name)
		return err
	})
}

// endBroadcast makes a change by which a channel's broadcast must end, and waits until
// it has; first comes before whoever has it is told, nil is nothing. done is told whether
// a running millrace has heard of it, and whether there was a broadcast.
func endBroadcast(ctx context.Context, s settings, name string, change func(*store.Store, context.Context, string) error,
	first func(context.Context, redis.UniversalClient) error, stderr io.Writer, done func(heard, was bool) error,
) error {
	return withStore(ctx, s, func(st *store.Store) error {
		if err := changed(change(st, ctx, name), name); err != nil {
			return err
		}
		var was, heard bool
		err := withRedis(ctx, s, func(ctx context.Context, db redis.UniversalClient) (err error) {
			if first != nil {
				if err := first(ctx, db); err != nil {
					return err
				}
			}
			if err := api.PublishKeys(ctx, st, db); err != nil {
				return err
			}
			heard = true
			was, err = api.AwaitEnd(ctx, db, name)
			return err
		})
		switch {
		case err != nil && heard:
			return fmt.Errorf("the change to channel %s is made, but %w", name, err)
		case err != nil:
			sayLater(stderr, err)
		}
		return done(heard, was)
	})
}

// changed says plainly that there is no channel to change.
func changed(err error, name string) error {
	if errors.Is(err, store.ErrNotFound) {
		return noChannel(name)
	}
	return err
}

func sayLater(stderr io.Writer, err error) {
	fmt.Fprintf(stderr, "Redis can't be reached now (%v); this holds within 30 s of its return.\n", err)
}
