package sqlstore_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
)

// TestKilledMigration is the process that TestKillMigration kills: it takes a database back to the first version and forward again, over and over.
func TestKilledMigration(t *testing.T) {
	path := os.Getenv("CRMGUARD_MIGRATE")
	if path == "" {
		t.Skip("it is run by TestKillMigration")
	}
	w, r, err := dialect.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("ready")
	for {
		st := openStore(t, w, r, dialect.SQLite)
		if err := st.Reindex(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if err := sqlstore.Rollback(t.Context(), w, dialect.SQLite, 1); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKillMigration kills a process with -9 in the middle of migrations back and forth: each time the next start has every row, and makes every index.
func TestKillMigration(t *testing.T) {
	kills := 4
	if os.Getenv("CRMGUARD_SOAK") != "" {
		kills = 50
	}
	if testing.Short() {
		kills = 2
	}
	path := filepath.Join(t.TempDir(), "crm.db")
	w, r, err := dialect.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	st := openStore(t, w, r, dialect.SQLite)
	declare(t, st)
	create(t, st, 0, 900)
	want := keysIn(t, r)
	r.Close()
	w.Close()
	left := 0
	for range kills {
		cmd := osexec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledMigration$", "-test.timeout=5m")
		cmd.Env = append(os.Environ(), "CRMGUARD_MIGRATE="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		_ = cmd.Process.Kill()
		if cmd.Wait() == nil {
			t.Fatal("it ended before it was killed")
		}
		w, r, err := dialect.OpenSQLite(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		st := openStore(t, w, r, dialect.SQLite)
		declare(t, st)
		unfinished, err := st.Reindexing(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if unfinished {
			left++
			if err := st.Reindex(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		}
		if n := count(t, st); n != 900 {
			t.Fatalf("%d rows", n)
		}
		wantKeys(t, r, want)
		n, err := st.Count(t.Context(), crm.Query{Tenant: "default", Type: "thing", Where: crm.Everything{}, Persons: []crm.UUID{crmtest.PersonID(4).UUID()}})
		if err != nil || n != 1 {
			t.Fatalf("%d rows of a person, %v", n, err)
		}
		r.Close()
		w.Close()
	}
	t.Logf("%d kills, %d left the index unfinished", kills, left)
}
