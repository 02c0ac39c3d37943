package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/api"
	"millrace/api/store"
	"millrace/internal/channelname"
	"millrace/internal/credentials"
)

// createChannel makes a channel; its key is alone on the last line of stdout.
func createChannel(ctx context.Context, s settings, name string, stdout, stderr io.Writer) error {
	if err := channelname.Check(name); err != nil {
		return err
	}
	return withStore(ctx, s, func(st *store.Store) error {
		key := credentials.NewStreamKey()
		err := st.CreateChannel(ctx, name, key)
		if errors.Is(err, store.ErrExists) {
			return fmt.Errorf("there is a channel %q already; for another stream key run: millrace channel reset-key %s", name, name)
		}
		if err != nil {
			return err
		}
		return showKey(ctx, s, st, key, "Channel "+name+" is there.", stdout, stderr)
	})
}

// resetKey gives a channel another key, shown as createChannel does.
func resetKey(ctx context.Context, s settings, name string, stdout, stderr io.Writer) error {
	return withStore(ctx, s, func(st *store.Store) error {
		key := credentials.NewStreamKey()
		if err := changed(st.ResetKey(ctx, name, key), name); err != nil {
			return err
		}
		return showKey(ctx, s, st, key, "Channel "+name+" has another stream key; the earlier one works no longer.", stdout, stderr)
	})
}

// setChannel gives a channel those of --grace, --redundancy and --quota that are given.
func setChannel(ctx context.Context, s settings, name string, bound quota, given map[string]bool, stdout, stderr io.Writer) error {
	var grace *time.Duration
	if given["grace"] {
		grace = (*time.Duration)(&s.Grace)
	}
	var workers *int
	if given["redundancy"] {
		workers = (*int)(&s.Redundancy)
	}
	if grace == nil && workers == nil && !given["quota"] {
		return fmt.Errorf("say what to set: millrace channel set %s --grace 2m, --redundancy 2 or --quota 20GB, or default for each", name)
	}
	return withStore(ctx, s, func(st *store.Store) error {
		err := changed(st.SetSurvival(ctx, name, grace, workers), name)
		if err == nil && given["quota"] {
			err = st.SetQuota(ctx, name, int64(bound))
		}
		if err != nil {
			return err
		}
		if err := publishKeys(ctx, s, st); err != nil {
			sayLater(stderr, err)
		}
		c, err := st.Channel(ctx, name)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "Channel %s from its next broadcast on: grace %s, redundancy %s. Within a minute: quota %s.\n",
			name, showGrace(c), showRedundancy(c), quota(c.Quota))
		return err
	})
}

func noChannel(name string) error {
	return fmt.Errorf("there is no channel %q; \"millrace channel list\" shows those there are", name)
}

func showGrace(c store.Channel) string {
	if c.Grace == 0 {
		return "default"
	}
	return c.Grace.String()
}

func showRedundancy(c store.Channel) string {
	if c.Redundancy == 0 {
		return "default"
	}
	return strconv.Itoa(c.Redundancy)
}

func showState(c store.Channel) string {
	if c.Disabled {
		return "disabled"
	}
	return "enabled"
}

func showKey(ctx context.Context, s settings, st *store.Store, key credentials.StreamKey, done string, stdout, stderr io.Writer) error {
	if err := publishKeys(ctx, s, st); err != nil {
		fmt.Fprintf(stderr, "Redis can't be reached now (%v); the key works within 30 s of its return.\n", err)
	}
	_, err := fmt.Fprintf(stdout, "%s Its stream key, shown only this once:\n%s\n", done, key.Reveal())
	return err
}

// publishKeys tells Redis, if there is one that runs: api does it as well.
func publishKeys(ctx context.Context, s settings, st *store.Store) error {
	return withRedis(ctx, s, func(ctx context.Context, db redis.UniversalClient) error {
		return publish(ctx, st, db)
	})
}

// withRedis lets do use the Redis of the settings; without one, the redis-server of a
// `millrace all` on this data directory. When that doesn't run, nobody needs to be told:
// it is when it starts.
func withRedis(ctx context.Context, s settings, do func(context.Context, redis.UniversalClient) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, redisReach)
	defer cancel()
	var db redis.UniversalClient
	if s.Redis != "" {
		if db, err = openRedis(s.Redis); err != nil {
			return err
		}
	} else {
		socket := redisSocket(s.Data)
		if pingSocket(ctx, socket) != nil {
			return nil
		}
		db = openSocket(socket)
	}
	defer db.Close()
	return do(ctx, db)
}

// publish copies what other services need to know of SQL to Redis.
func publish(ctx context.Context, st *store.Store, db redis.UniversalClient) error {
	return errors.Join(api.PublishKeys(ctx, st, db), api.PublishTokens(ctx, st, db))
}

// listChannels prints a table.
func listChannels(ctx context.Context, s settings, stdout io.Writer) error {
	return withStore(ctx, s, func(st *store.Store) error {
		all, err := st.Channels(ctx)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(stdout, 0, 0, 3, ' ', 0)
		fmt.Fprintln(w, "CHANNEL\tCREATED\tKEY FROM\tGRACE\tREDUNDANCY\tQUOTA\tSTATE")
		for _, c := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Name, c.Created.Local().Format(time.DateTime),
				c.KeyReset.Local().Format(time.DateTime), showGrace(c), showRedundancy(c), quota(c.Quota), showState(c))
		}
		return w.Flush()
	})
}

// withStore opens the database for one command.
func withStore(ctx context.Context, s settings, do func(*store.Store) error) error {
	st, err := openStore(ctx, s)
	if err != nil {
		return err
	}
	return errors.Join(do(st), st.Close())
}

func openStore(ctx context.Context, s settings) (*store.Store, error) {
	if s.Database == "" {
		if err := makeDataDir(s.Data); err != nil {
			return nil, err
		}
	}
	return store.Open(ctx, s.databaseURL())
}
