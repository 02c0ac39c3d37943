package main

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"millrace/internal/private"
	"millrace/internal/seal"
)

// meetPeers makes the process one of the peers, and reads what it needs for that.
func (p *process) meetPeers() (err error) {
	s := &p.settings
	if p.role == roleAll && s.PrivateSecret == "" {
		if s.PrivateSecret, err = keptSecret(s.Data); err != nil {
			return err
		}
	}
	c := private.Config{Secret: s.PrivateSecret, Log: p.log, Registerer: p.registry}
	if p.role.private() {
		c.Advertise = s.advertise()
	}
	if c.Authorities, err = s.authorities(); err != nil {
		return err
	}
	if p.role.private() && s.PrivateTLSCert != "" {
		if p.privateCertificate, err = newCertificate("--private-tls-cert and --private-tls-key", s.PrivateTLSCert, s.PrivateTLSKey, p.log); err != nil {
			return err
		}
		p.layers.start(levelPrivate, "private certificate", p.privateCertificate.Run)
	}
	p.peers, err = private.New(c)
	return err
}

// authorities reads --private-tls-ca; without it they are nil.
func (s *settings) authorities() (*x509.CertPool, error) {
	if s.PrivateTLSCA == "" {
		return nil, nil
	}
	text, err := os.ReadFile(s.PrivateTLSCA)
	if err != nil {
		return nil, fmt.Errorf("--private-tls-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--private-tls-ca: %s has no certificate in PEM", s.PrivateTLSCA)
	}
	return pool, nil
}

// secretFile is where `millrace all` keeps the secret of its own, for its next start.
func secretFile(data string) string { return filepath.Join(data, "private-secret") }

// keptSecret reads the secret that `millrace all` made at its first start, or makes it. An
// empty file is what a power cut leaves of it: nobody else has that secret, so another one does.
func keptSecret(data string) (seal.Secret, error) {
	path := secretFile(data)
	text, err := os.ReadFile(path)
	if kept := strings.TrimSpace(string(text)); err == nil && kept != "" {
		return seal.Secret(kept), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("secret of the services: %w", err)
	}
	made := rand.Text() + rand.Text()
	err = os.WriteFile(path+".new", []byte(made+"\n"), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path) // it is there whole, or not at all
	}
	if err != nil {
		return "", fmt.Errorf("keep the secret of the services: %w", err)
	}
	return seal.Secret(made), nil
}
