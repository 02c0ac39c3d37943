// Package store keeps the channels in SQL: in an SQLite file for one machine,
// in PostgreSQL for a cluster. There is one set of SQL text for both.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"millrace/internal/channelname"
	"millrace/internal/credentials"
)

//go:embed migrations/*.sql
var migrations embed.FS

// The errors that callers branch on.
var (
	// ErrExists means that there is a channel of this name.
	ErrExists = errors.New("the channel exists already")
	// ErrNotFound means that there is no channel of this name.
	ErrNotFound = errors.New("no such channel")
)

// Channel is a streamer's permanent page.
type Channel struct {
	Name string
	// Created and KeyReset are to the millisecond, in UTC.
	Created, KeyReset time.Time
	Survival
	// Quota bounds what is stored of the channel, in bytes; 0: what transcode is
	// configured with, below 0: nothing bounds it.
	Quota int64
}

// Survival is how a channel's broadcasts outlive what fails. A zero value stands
// for what ingest is configured with.
type Survival struct {
	// Grace is how long a broadcast waits for its publisher, to the millisecond.
	Grace time.Duration
	// Redundancy is how many workers make each broadcast at a time, 1 or 2.
	Redundancy int
}

// Store reads and writes the database. It is safe for concurrent use, also by
// several processes.
type Store struct {
	db *sql.DB
}

// SQLiteURL returns the URL of an SQLite file, which is made when it is missing.
func SQLiteURL(path string) string { return "sqlite://" + path }

// Open opens the database that the URL names, sqlite:///path/to/file or
// postgres://user:password@host/name, and brings its tables up to date.
func Open(ctx context.Context, rawURL string) (*Store, error) {
	dialect, db, err := connect(rawURL)
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, dialect, db); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", redacted(rawURL), err), db.Close())
	}
	return &Store{db: db}, nil
}

func connect(rawURL string) (goose.Dialect, *sql.DB, error) {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	switch scheme {
	case "sqlite":
		// A writer waits for another one up to 5 s; immediate transactions, so
		// that it waits at their start and never fails in their middle.
		db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: rest}).EscapedPath()+
			"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=foreign_keys(1)&_txlock=immediate")
		if err != nil {
			return "", nil, fmt.Errorf("open database %s: %w", rest, err)
		}
		return goose.DialectSQLite3, db, nil
	case "postgres", "postgresql":
		db, err := sql.Open("pgx", rawURL)
		if err != nil {
			return "", nil, fmt.Errorf("open database %s: %w", redacted(rawURL), err)
		}
		db.SetMaxOpenConns(20)
		db.SetMaxIdleConns(5)
		db.SetConnMaxIdleTime(5 * time.Minute)
		return goose.DialectPostgres, db, nil
	}
	return "", nil, fmt.Errorf("--database must begin with postgres:// or sqlite://, not %q", scheme)
}

// migrate may run in several processes at once.
func migrate(ctx context.Context, dialect goose.Dialect, db *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	var opts []goose.ProviderOption
	if dialect == goose.DialectPostgres {
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return err
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(dialect, db, dir, opts...)
	if err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		_, err = p.Up(ctx)
		// SQLite has no such lock: two first starts at once may both make the
		// version table. The one that loses finds the tables there.
		if err == nil || dialect != goose.DialectSQLite3 || attempt == 2 || ctx.Err() != nil {
			return err
		}
	}
}

// Close ends all connections.
func (s *Store) Close() error { return s.db.Close() }

// Ping tells whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.db.PingContext(ctx); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	return nil
}

// CreateChannel makes a channel with this stream key, of which only the hash is
// kept. A name that is taken is [ErrExists].
func (s *Store) CreateChannel(ctx context.Context, name string, key credentials.StreamKey) error {
	if err := channelname.Check(name); err != nil {
		return err
	}
	r, err := s.db.ExecContext(ctx, `
		INSERT INTO channels (name, key_hash, created_at, key_reset_at) VALUES ($1, $2, $3, $3)
		ON CONFLICT (name) DO NOTHING`, name, key.Hash(), time.Now().UnixMilli())
	return changedOne(r, err, "create", name, ErrExists)
}

// ResetKey gives a channel another stream key; the earlier one stops working.
func (s *Store) ResetKey(ctx context.Context, name string, key credentials.StreamKey) error {
	r, err := s.db.ExecContext(ctx, `
		UPDATE channels SET key_hash = $1, key_reset_at = $2 WHERE name = $3`,
		key.Hash(), time.Now().UnixMilli(), name)
	return changedOne(r, err, "reset key of", name, ErrNotFound)
}

// SetSurvival writes those settings of a channel that aren't nil.
func (s *Store) SetSurvival(ctx context.Context, name string, grace *time.Duration, redundancy *int) error {
	var ms *int64
	if grace != nil {
		ms = new(int64)
		*ms = grace.Milliseconds()
	}
	r, err := s.db.ExecContext(ctx, `
		UPDATE channels SET
			grace = NULLIF(COALESCE($1, grace), 0),
			redundancy = NULLIF(COALESCE($2, redundancy), 0)
		WHERE name = $3`, ms, redundancy, name)
	return changedOne(r, err, "set", name, ErrNotFound)
}

// SetQuota bounds what is stored of a channel, in bytes; 0 takes the bound back,
// -1 stands for none.
func (s *Store) SetQuota(ctx context.Context, name string, bytes int64) error {
	r, err := s.db.ExecContext(ctx, `UPDATE channels SET quota = NULLIF(CAST($1 AS BIGINT), 0) WHERE name = $2`, bytes, name)
	return changedOne(r, err, "set quota of", name, ErrNotFound)
}

// changedOne returns none when the statement changed no row.
func changedOne(r sql.Result, err error, what, channel string, none error) error {
	if err != nil {
		return fmt.Errorf("%s channel %s: %w", what, channel, err)
	}
	n, err := r.RowsAffected()
	if err != nil {
		return fmt.Errorf("%s channel %s: %w", what, channel, err)
	}
	if n == 0 {
		return fmt.Errorf("%s channel %s: %w", what, channel, none)
	}
	return nil
}

// Channel returns one channel, or [ErrNotFound].
func (s *Store) Channel(ctx context.Context, name string) (Channel, error) {
	c, err := scan(s.db.QueryRowContext(ctx, selectChannel+` WHERE name = $1`, name))
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return Channel{}, fmt.Errorf("read channel %s: %w", name, err)
	}
	return c, nil
}

// Channels returns all channels by name.
func (s *Store) Channels(ctx context.Context) ([]Channel, error) {
	return list(ctx, s.db, selectChannel+` ORDER BY name`, scan)
}

// Credentials returns what ingest must know of every channel.
func (s *Store) Credentials(ctx context.Context) ([]credentials.Channel, error) {
	return list(ctx, s.db, `
		SELECT name, key_hash, COALESCE(grace, 0), COALESCE(redundancy, 0), COALESCE(quota, 0) FROM channels ORDER BY name`,
		func(r row) (c credentials.Channel, err error) {
			var grace int64
			err = r.Scan(&c.Name, &c.KeyHash, &grace, &c.Redundancy, &c.Quota)
			c.Grace = time.Duration(grace) * time.Millisecond
			return c, err
		})
}

const selectChannel = `
	SELECT name, created_at, key_reset_at, COALESCE(grace, 0), COALESCE(redundancy, 0), COALESCE(quota, 0) FROM channels`

// row is what *sql.Row and *sql.Rows have in common.
type row interface{ Scan(dest ...any) error }

func scan(r row) (Channel, error) {
	var c Channel
	var created, reset, grace int64
	if err := r.Scan(&c.Name, &created, &reset, &grace, &c.Redundancy, &c.Quota); err != nil {
		return Channel{}, err
	}
	c.Created, c.KeyReset = time.UnixMilli(created).UTC(), time.UnixMilli(reset).UTC()
	c.Grace = time.Duration(grace) * time.Millisecond
	return c, nil
}

func list[T any](ctx context.Context, db *sql.DB, query string, scan func(row) (T, error)) ([]T, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("list channels: %w", err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("list channels: %w", err)
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list channels: %w", err)
	}
	return all, nil
}

// redacted returns a database's URL without its password.
func redacted(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "(not a URL)"
	}
	q := u.Query()
	if q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}
