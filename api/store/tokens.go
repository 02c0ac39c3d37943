package store

import (
	"context"
	"fmt"
	"time"

	"millrace/internal/channelname"
	"millrace/internal/session"
)

// TokenHolder is somebody who has tokens for chat.
type TokenHolder struct {
	Login string
	// Tokens is how many; Newest is when the newest was made, to the millisecond, in UTC.
	Tokens int
	Newest time.Time
}

// CreateToken keeps a token of whoever has this name.
func (s *Store) CreateToken(ctx context.Context, login string, token session.Token) error {
	if err := channelname.Check(login); err != nil {
		return err
	}
	_, err := s.db.ExecContext(ctx, `INSERT INTO tokens (hash, login, created_at) VALUES ($1, $2, $3)`, token.Hash(), login, time.Now().UnixMilli())
	if err != nil {
		return fmt.Errorf("keep a token of %s: %w", login, err)
	}
	return nil
}

// RevokeTokens deletes all tokens of whoever has this name, and returns how many those were.
func (s *Store) RevokeTokens(ctx context.Context, login string) (int, error) {
	r, err := s.db.ExecContext(ctx, `DELETE FROM tokens WHERE login = $1`, login)
	if err != nil {
		return 0, fmt.Errorf("take back the tokens of %s: %w", login, err)
	}
	n, err := r.RowsAffected()
	return int(n), err
}

// TokenHolders lists who has tokens, by name.
func (s *Store) TokenHolders(ctx context.Context) (list []TokenHolder, err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT login, COUNT(*), MAX(created_at) FROM tokens GROUP BY login ORDER BY login`)
	if err != nil {
		return nil, fmt.Errorf("list who has tokens: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var h TokenHolder
		var newest int64
		if err := rows.Scan(&h.Login, &h.Tokens, &newest); err != nil {
			return nil, fmt.Errorf("list who has tokens: %w", err)
		}
		h.Newest = time.UnixMilli(newest).UTC()
		list = append(list, h)
	}
	return list, rows.Err()
}

// Tokens returns whom each token stands for, by its hash.
func (s *Store) Tokens(ctx context.Context) (map[string]session.Identity, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT hash, login, created_at FROM tokens`)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	defer rows.Close()
	tokens := make(map[string]session.Identity)
	for rows.Next() {
		var hash, login string
		var created int64
		if err := rows.Scan(&hash, &login, &created); err != nil {
			return nil, fmt.Errorf("read tokens: %w", err)
		}
		tokens[hash] = session.Identity{ID: session.IDOf(login), Login: login, Name: login, Created: time.UnixMilli(created).UTC()}
	}
	return tokens, rows.Err()
}
