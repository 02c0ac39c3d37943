package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"millrace/internal/channelname"
	"millrace/internal/credentials"
)

// CreateChannel makes a channel with this stream key, of which only the hash is
// kept. A name that is taken is [ErrExists].
func (s *Store) CreateChannel(ctx context.Context, name string, key credentials.StreamKey) error {
	if err := channelname.Check(name); err != nil {
		return err
	}
	return s.change(ctx, "create", name, ErrExists, func(int64) (string, []any) {
		return `INSERT INTO channels (name, key_hash, created_at, key_reset_at) VALUES ($1, $2, $3, $3)
			ON CONFLICT (name) DO NOTHING`, []any{name, key.Hash(), time.Now().UnixMilli()}
	})
}

// ResetKey gives a channel another stream key; the earlier one stops working.
func (s *Store) ResetKey(ctx context.Context, name string, key credentials.StreamKey) error {
	return s.change(ctx, "reset key of", name, ErrNotFound, func(int64) (string, []any) {
		return `UPDATE channels SET key_hash = $1, key_reset_at = $2 WHERE name = $3`,
			[]any{key.Hash(), time.Now().UnixMilli(), name}
	})
}

// SetSurvival writes those settings of a channel that aren't nil.
func (s *Store) SetSurvival(ctx context.Context, name string, grace *time.Duration, redundancy *int) error {
	var ms *int64
	if grace != nil {
		ms = new(int64)
		*ms = grace.Milliseconds()
	}
	return s.change(ctx, "set", name, ErrNotFound, func(int64) (string, []any) {
		return `UPDATE channels SET
			grace = NULLIF(COALESCE($1, grace), 0),
			redundancy = NULLIF(COALESCE($2, redundancy), 0)
			WHERE name = $3`, []any{ms, redundancy, name}
	})
}

// SetQuota bounds what is stored of a channel, in bytes; 0 takes the bound back,
// -1 stands for none.
func (s *Store) SetQuota(ctx context.Context, name string, bytes int64) error {
	return s.change(ctx, "set quota of", name, ErrNotFound, func(int64) (string, []any) {
		return `UPDATE channels SET quota = NULLIF(CAST($1 AS BIGINT), 0) WHERE name = $2`, []any{bytes, name}
	})
}

// Disable lets nobody publish to a channel, with whatever key.
func (s *Store) Disable(ctx context.Context, name string) error {
	return s.change(ctx, "disable", name, ErrNotFound, func(int64) (string, []any) {
		return `UPDATE channels SET disabled_at = COALESCE(disabled_at, $1) WHERE name = $2`,
			[]any{time.Now().UnixMilli(), name}
	})
}

// Enable takes Disable back.
func (s *Store) Enable(ctx context.Context, name string) error {
	return s.change(ctx, "enable", name, ErrNotFound, func(int64) (string, []any) {
		return `UPDATE channels SET disabled_at = NULL WHERE name = $1`, []any{name}
	})
}

// Kick means everybody who was admitted to publish to a channel so far.
func (s *Store) Kick(ctx context.Context, name string) error {
	return s.change(ctx, "kick the publisher of", name, ErrNotFound, func(version int64) (string, []any) {
		return `UPDATE channels SET kicked = $1 WHERE name = $2`, []any{version, name}
	})
}

// DeleteChannel deletes a channel with its stream key. Its name is free then.
func (s *Store) DeleteChannel(ctx context.Context, name string) error {
	return s.change(ctx, "delete", name, ErrNotFound, func(int64) (string, []any) {
		return `DELETE FROM channels WHERE name = $1`, []any{name}
	})
}

// change makes one change to one channel, under a new version of the catalogue.
// Changes wait for each other: each version is one of them. It returns none when the
// statement changed no row; then the version stays as well.
func (s *Store) change(ctx context.Context, what, channel string, none error, statement func(version int64) (string, []any)) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s channel %s: %w", what, channel, err)
		}
	}()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if e := tx.Rollback(); err == nil && !errors.Is(e, sql.ErrTxDone) {
			err = e
		}
	}()
	var version int64
	// A database that was put back to an older state goes on with higher versions.
	if err := tx.QueryRowContext(ctx, `
		UPDATE catalogue SET version = CASE WHEN version < $1 THEN $1 ELSE version + 1 END
		RETURNING version`, time.Now().UnixMilli()).Scan(&version); err != nil {
		return err
	}
	text, args := statement(version)
	r, err := tx.ExecContext(ctx, text, args...)
	if err != nil {
		return err
	}
	n, err := r.RowsAffected()
	if err != nil {
		return err
	}
	if n == 0 {
		return none
	}
	return tx.Commit()
}

// Catalogue returns what ingest must know of every channel.
func (s *Store) Catalogue(ctx context.Context) (credentials.Catalogue, error) {
	var all credentials.Catalogue
	// One statement sees one moment. Without channels there is one row all the same.
	_, err := list(ctx, s.db, `
		SELECT v.version, c.name, c.key_hash, c.created_at, c.disabled_at, c.kicked, c.grace, c.redundancy, c.quota
		FROM catalogue v LEFT JOIN channels c ON 1 = 1 ORDER BY c.name`,
		func(r row) (struct{}, error) {
			var name, key sql.NullString
			var created, disabled, kicked, grace, redundancy, quota sql.NullInt64
			err := r.Scan(&all.Version, &name, &key, &created, &disabled, &kicked, &grace, &redundancy, &quota)
			if err == nil && name.Valid {
				all.Channels = append(all.Channels, credentials.Channel{
					Name: name.String, KeyHash: key.String, Created: created.Int64,
					Disabled: disabled.Valid, Kicked: kicked.Int64,
					Grace: time.Duration(grace.Int64) * time.Millisecond, Redundancy: int(redundancy.Int64),
					Quota: quota.Int64,
				})
			}
			return struct{}{}, err
		})
	return all, err
}

// MakeOnce makes a channel with this stream key unless that was done before, also
// where the channel was deleted since. It reports whether it is made now.
func (s *Store) MakeOnce(ctx context.Context, name string, key credentials.StreamKey) (bool, error) {
	var done int
	err := s.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM made_once WHERE name = $1`, name).Scan(&done)
	if err != nil || done > 0 {
		return false, wrapOnce(name, err)
	}
	err = s.CreateChannel(ctx, name, key)
	if err != nil && !errors.Is(err, ErrExists) {
		return false, err
	}
	made := err == nil
	_, err = s.db.ExecContext(ctx, `INSERT INTO made_once (name) VALUES ($1) ON CONFLICT (name) DO NOTHING`, name)
	return made, wrapOnce(name, err)
}

func wrapOnce(name string, err error) error {
	if err != nil {
		return fmt.Errorf("make channel %s once: %w", name, err)
	}
	return nil
}
