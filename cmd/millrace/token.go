package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"millrace/api/store"
	"millrace/internal/session"
)

// createToken makes a token for chat; it is alone on the last line of stdout.
func createToken(ctx context.Context, s settings, login string, stdout, stderr io.Writer) error {
	return withStore(ctx, s, func(st *store.Store) error {
		token := session.NewToken()
		if err := st.CreateToken(ctx, login, token); err != nil {
			return err
		}
		if err := publishKeys(ctx, s, st); err != nil {
			fmt.Fprintf(stderr, "Redis can't be reached now (%v); the token works within 30 s of its return.\n", err)
		}
		_, err := fmt.Fprintf(stdout, "A token with which %s writes in chat, shown only this once:\n%s\n", login, token.Reveal())
		return err
	})
}

// revokeTokens takes all tokens of somebody back.
func revokeTokens(ctx context.Context, s settings, login string, stdout, stderr io.Writer) error {
	return withStore(ctx, s, func(st *store.Store) error {
		n, err := st.RevokeTokens(ctx, login)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%q has no tokens; \"millrace token list\" shows who has", login)
		}
		if err := publishKeys(ctx, s, st); err != nil {
			fmt.Fprintf(stderr, "Redis can't be reached now (%v); this holds within 30 s of its return.\n", err)
		}
		_, err = fmt.Fprintf(stdout, "%d tokens of %s stop working.\n", n, login)
		return err
	})
}

// listTokens prints a table.
func listTokens(ctx context.Context, s settings, stdout io.Writer) error {
	return withStore(ctx, s, func(st *store.Store) error {
		all, err := st.TokenHolders(ctx)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(stdout, 0, 0, 3, ' ', 0)
		fmt.Fprintln(w, "USER\tTOKENS\tNEWEST FROM")
		for _, h := range all {
			fmt.Fprintf(w, "%s\t%d\t%s\n", h.Login, h.Tokens, h.Newest.Local().Format(time.DateTime))
		}
		return w.Flush()
	})
}
