package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"millrace/internal/private"
	"millrace/internal/seal"
)

// maxPeekError bounds what is shown of an answer that isn't what was asked for, in bytes.
const maxPeekError = 512

// peek asks for a URL on a service's private listener, as a peer, and writes the
// answer to out until it ends or ctx does. It makes no secret, and keeps nothing.
func peek(ctx context.Context, s settings, address string, out io.Writer) error {
	secret := s.PrivateSecret
	if secret == "" {
		text, err := os.ReadFile(secretFile(s.Data))
		if errors.Is(err, fs.ErrNotExist) {
			return errors.New("millrace peek needs --private-secret, or the --data of a \"millrace all\"")
		}
		if err != nil {
			return fmt.Errorf("secret of the services: %w", err)
		}
		secret = seal.Secret(strings.TrimSpace(string(text)))
	}
	authorities, err := s.authorities()
	if err != nil {
		return err
	}
	peers, err := private.New(private.Config{Secret: secret, Authorities: authorities})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("peek: %w", err)
	}
	client := peers.Client()
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxPeekError)) // what came is shown
		return fmt.Errorf("%s: %s: %s", address, resp.Status, strings.TrimSpace(string(text)))
	}
	if _, err := io.Copy(out, resp.Body); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	return nil
}
