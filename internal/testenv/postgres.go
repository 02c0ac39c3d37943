package testenv

import (
	"context"
	"database/sql"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"millrace/internal/child"
)

// Postgres starts a PostgreSQL server for this test and returns the URL of an
// empty database in it, in the form of --database.
func Postgres(t testing.TB) string {
	t.Helper()
	initdb, postgres := Program(t, "initdb"), Program(t, "postgres")
	dir := shortDir(t)
	data := filepath.Join(dir, "data")
	cred := unprivileged(t, dir)

	run := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		child.Prepare(cmd, syscall.SIGKILL)
		return cmd
	}
	out, err := run(initdb, "-D", data, "-U", "millrace", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput()
	if err != nil {
		t.Fatalf("initdb: %v: %s", err, out)
	}
	server := run(postgres, "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off")
	var tail child.Tail
	server.Stdout, server.Stderr = &tail, &tail
	if err := server.Start(); err != nil {
		t.Fatalf("start postgres: %v", err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGINT) // fast shutdown
		done := time.AfterFunc(10*time.Second, func() { child.Kill(server) })
		defer done.Stop()
		_ = server.Wait()
	})

	u := url.URL{Scheme: "postgres", Path: "/millrace", RawQuery: url.Values{"host": {dir}, "user": {"millrace"}}.Encode()}
	admin := u
	admin.Path = "/postgres"
	db, err := sql.Open("pgx", admin.String())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = Until(context.Background(), 20*time.Second, func() error { return db.PingContext(t.Context()) })
	if err != nil {
		t.Fatalf("postgres didn't start: %v: %s", err, tail.Last(3))
	}
	if _, err := db.ExecContext(t.Context(), "CREATE DATABASE millrace"); err != nil {
		t.Fatal(err)
	}
	return u.String()
}

// unprivileged returns the user PostgreSQL can run as, since it refuses root,
// and gives dir to it. nil means this process's own user.
func unprivileged(t testing.TB, dir string) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("run PostgreSQL without root's rights: %v", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}
