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
	// Disabled: nobody may publish to it.
	Disabled bool
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
	// In any order: none of these migrations needs another one, and databases of a build between
	// two of them have the later one.
	opts := []goose.ProviderOption{goose.WithAllowOutofOrder(true)}
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

const selectChannel = `
	SELECT name, created_at, key_reset_at, COALESCE(disabled_at, 0), COALESCE(grace, 0), COALESCE(redundancy, 0), COALESCE(quota, 0) FROM channels`

// row is what *sql.Row and *sql.Rows have in common.
type row interface{ Scan(dest ...any) error }

func scan(r row) (Channel, error) {
	var c Channel
	var created, reset, disabled, grace int64
	if err := r.Scan(&c.Name, &created, &reset, &disabled, &grace, &c.Redundancy, &c.Quota); err != nil {
		return Channel{}, err
	}
	c.Created, c.KeyReset = time.UnixMilli(created).UTC(), time.UnixMilli(reset).UTC()
	c.Disabled, c.Grace = disabled != 0, time.Duration(grace)*time.Millisecond
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
