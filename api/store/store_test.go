package store

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/internal/credentials"
	"millrace/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// TestStore runs one suite on both databases.
func TestStore(t *testing.T) {
	databases := map[string]func(t *testing.T) string{
		"sqlite":     func(t *testing.T) string { return SQLiteURL(filepath.Join(t.TempDir(), "mill race?.db")) },
		"postgresql": func(t *testing.T) string { return testenv.Postgres(t) },
	}
	for name, url := range databases {
		t.Run(name, func(t *testing.T) {
			u := url(t)
			t.Run("first starts at once", func(t *testing.T) { testConcurrentOpen(t, u) })
			t.Run("channels", func(t *testing.T) { testChannels(t, open(t, u)) })
			t.Run("survival", func(t *testing.T) { testSurvival(t, open(t, u)) })
			t.Run("quota", func(t *testing.T) { testQuota(t, open(t, u)) })
			t.Run("changes", func(t *testing.T) { testChanges(t, open(t, u)) })
			t.Run("made once", func(t *testing.T) { testMadeOnce(t, open(t, u)) })
			t.Run("one winner", func(t *testing.T) { testOneWinner(t, open(t, u), open(t, u)) })
			t.Run("an earlier migration that lacks", func(t *testing.T) { testMigrationLacks(t, u) })
			t.Run("it is kept", func(t *testing.T) {
				if _, err := open(t, u).Channel(t.Context(), "alice"); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func open(t *testing.T, url string) *Store {
	t.Helper()
	s, err := Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// testMigrationLacks opens a database of a build that had the tokens and not yet the rights.
func testMigrationLacks(t *testing.T, url string) {
	s := open(t, url)
	for _, sql := range []string{
		`DROP TABLE made_once`, `DROP TABLE catalogue`, `ALTER TABLE channels DROP COLUMN kicked`, `ALTER TABLE channels DROP COLUMN disabled_at`,
		`DELETE FROM goose_db_version WHERE version_id = 4`,
	} {
		if _, err := s.db.ExecContext(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	if err := open(t, url).Disable(t.Context(), "alice"); err != nil {
		t.Error(err)
	}
	if err := s.Enable(t.Context(), "alice"); err != nil {
		t.Error(err)
	}
}

func testConcurrentOpen(t *testing.T, url string) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := Open(t.Context(), url)
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func testChannels(t *testing.T, s *Store) {
	ctx := t.Context()
	if err := s.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Channels(ctx); err != nil || len(all) != 0 {
		t.Fatalf("Channels of an empty database = %v, %v", all, err)
	}
	first, second := credentials.NewStreamKey(), credentials.NewStreamKey()
	start := time.Now().Truncate(time.Millisecond)
	for _, name := range []string{"bob", "alice"} {
		key := credentials.NewStreamKey()
		if name == "alice" {
			key = first
		}
		if err := s.CreateChannel(ctx, name, key); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CreateChannel(ctx, "alice", second); !errors.Is(err, ErrExists) {
		t.Errorf("create an existing channel: %v, want ErrExists", err)
	}
	if err := s.CreateChannel(ctx, "Not A Name", second); err == nil {
		t.Error("a bad name was accepted")
	}
	if err := s.ResetKey(ctx, "carol", second); !errors.Is(err, ErrNotFound) {
		t.Errorf("reset the key of a missing channel: %v, want ErrNotFound", err)
	}
	if _, err := s.Channel(ctx, "carol"); !errors.Is(err, ErrNotFound) {
		t.Errorf("read a missing channel: %v, want ErrNotFound", err)
	}
	if got := hashes(t, s)["alice"]; got != first.Hash() {
		t.Errorf("hash of alice's key = %q, want that of the first key", got)
	}
	if err := s.ResetKey(ctx, "alice", second); err != nil {
		t.Fatal(err)
	}
	if got := hashes(t, s); got["alice"] != second.Hash() || len(got) != 2 {
		t.Errorf("hashes = %v, want 2 with that of the second key", got)
	}
	all, err := s.Channels(ctx)
	if err != nil || len(all) != 2 || all[0].Name != "alice" || all[1].Name != "bob" {
		t.Fatalf("Channels = %v, %v; want alice, bob", all, err)
	}
	alice, err := s.Channel(ctx, "alice")
	if err != nil || alice != all[0] {
		t.Errorf("Channel = %v, %v; want %v", alice, err, all[0])
	}
	if alice.Created.Before(start) || alice.Created.After(time.Now()) || alice.KeyReset.Before(alice.Created) {
		t.Errorf("times of alice are wrong: %v", alice)
	}
}

func testSurvival(t *testing.T, s *Store) {
	ctx := t.Context()
	grace, two, zero, none := 90*time.Second, 2, 0, time.Duration(0)
	for _, step := range []struct {
		grace      *time.Duration
		redundancy *int
		want       Survival
	}{
		{nil, nil, Survival{}},
		{&grace, nil, Survival{Grace: grace}},
		{nil, &two, Survival{Grace: grace, Redundancy: 2}},
		{&none, nil, Survival{Redundancy: 2}},
		{&grace, &zero, Survival{Grace: grace}},
	} {
		if err := s.SetSurvival(ctx, "alice", step.grace, step.redundancy); err != nil {
			t.Fatal(err)
		}
		alice, err := s.Channel(ctx, "alice")
		if err != nil || alice.Survival != step.want {
			t.Errorf("after %v, %v: %+v, %v; want %+v", step.grace, step.redundancy, alice.Survival, err, step.want)
		}
		known, err := s.Catalogue(ctx)
		if err != nil {
			t.Fatal(err)
		}
		all := known.Channels
		if c := all[0]; c.Name != "alice" || c.Grace != step.want.Grace || c.Redundancy != step.want.Redundancy {
			t.Errorf("what ingest is told is %+v, want %+v", c, step.want)
		}
		if all[1].Grace != 0 || all[1].Redundancy != 0 {
			t.Errorf("another channel has it too: %+v", all[1])
		}
	}
	if err := s.SetSurvival(ctx, "carol", &grace, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("set a missing channel: %v, want ErrNotFound", err)
	}
}

func testQuota(t *testing.T, s *Store) {
	for _, want := range []int64{20e9, -1, 0} {
		if err := s.SetQuota(t.Context(), "alice", want); err != nil {
			t.Fatal(err)
		}
		alice, err := s.Channel(t.Context(), "alice")
		if err != nil || alice.Quota != want {
			t.Errorf("the quota is %d, %v; want %d", alice.Quota, err, want)
		}
		known, err := s.Catalogue(t.Context())
		all := known.Channels
		if err != nil || all[0].Quota != want || all[1].Quota != 0 {
			t.Errorf("others are told %+v, %v; want %d of the first", all, err, want)
		}
	}
	if err := s.SetQuota(t.Context(), "carol", 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("set a missing channel: %v, want ErrNotFound", err)
	}
}

func hashes(t *testing.T, s *Store) map[string]string {
	t.Helper()
	all, err := s.Catalogue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]string)
	for _, c := range all.Channels {
		m[c.Name] = c.KeyHash
	}
	return m
}

// testOneWinner creates the same channels through two stores at once.
func testOneWinner(t *testing.T, stores ...*Store) {
	const names = 10
	var mu sync.Mutex
	won := make(map[string]int)
	var wg sync.WaitGroup
	for _, s := range stores {
		for i := range names {
			wg.Go(func() {
				name := "race" + string(rune('a'+i))
				err := s.CreateChannel(t.Context(), name, credentials.NewStreamKey())
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won[name]++
				} else if !errors.Is(err, ErrExists) {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for name, n := range won {
		if n != 1 {
			t.Errorf("%s was created %d times", name, n)
		}
	}
	if len(won) != names {
		t.Errorf("%d of %d channels were created", len(won), names)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	for url, want := range map[string]string{
		"mysql://h/db": "--database must begin with postgres:// or sqlite://",
		"postgres://u:secret@127.0.0.1:1/db?connect_timeout=1": "open database postgres://u:xxxxx@127.0.0.1:1/db",
		"sqlite:///nonexistent/dir/x.db":                       "open database sqlite:///nonexistent/dir/x.db",
	} {
		_, err := Open(t.Context(), url)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q) = %v, want %q in it", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}
