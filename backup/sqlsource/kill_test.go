package sqlsource_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/blobstore"
	"github.com/crmguard/crmguard/backup/sqlsource"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

// TestKillRestore ends a program that restores, at any moment, again and again: the database is empty or whole, one that is not whole cannot be backed up, and
// the next restore gets done.
func TestKillRestore(t *testing.T) {
	const ddl, rows = `CREATE TABLE numbers (id BIGINT PRIMARY KEY, text TEXT NOT NULL)`, 60_000
	options := &sqlsource.Options{Prepare: func(ctx context.Context, db *sql.DB) error {
		if _, err := db.ExecContext(ctx, "SELECT count(*) FROM numbers"); err == nil {
			return nil
		}
		_, err := db.ExecContext(ctx, ddl)
		return err
	}}
	connect := func(t testing.TB, where string) (*sql.DB, *sqlsource.Database) {
		if filepath.IsAbs(where) {
			w, r, err := dialect.OpenSQLite(t.Context(), where)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = errors.Join(w.Close(), r.Close()) })
			return w, sqlsource.SQLite(w, options)
		}
		db, err := sql.Open("pgx", where)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db, sqlsource.Postgres(db, options)
	}
	signer := backuptest.Signer()
	open := func(t testing.TB, dir string, key *backupkey.Private) *backup.Repository {
		b, err := blobstore.Open(t.Context(), "file://"+filepath.ToSlash(dir))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		r, err := backup.Open(t.Context(), b, signer.Public().(ed25519.PublicKey), &backup.Options{Signer: signer, Recipient: key.Public()})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if dir := os.Getenv("CRMGUARD_KILL_DIR"); dir != "" {
		key, err := backupkey.Read(filepath.Join(dir, "key"))
		if err != nil {
			t.Fatal(err)
		}
		_, to := connect(t, os.Getenv("CRMGUARD_KILL_INTO"))
		r := open(t, filepath.Join(dir, "bucket"), key)
		fmt.Println("ready")
		if _, err := r.Restore(t.Context(), "", to, key, nil); err != nil {
			t.Fatal(err)
		}
		fmt.Println("restored")
		return
	}
	dir := t.TempDir()
	key := backuptest.Key(t)
	if err := key.WriteFile(filepath.Join(dir, "key")); err != nil {
		t.Fatal(err)
	}
	repo := open(t, filepath.Join(dir, "bucket"), key)
	kills := 4
	if os.Getenv("CRMGUARD_SOAK") != "" {
		kills = 20
	} else if testing.Short() {
		kills = 2
	}
	run := func(t *testing.T, from, into string) {
		db, source := connect(t, from)
		exec(t, db, ddl)
		fill := `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO numbers SELECT i, 'number ' || i FROM n`
		exec(t, db, fmt.Sprintf(fill, rows))
		if _, err := repo.Backup(t.Context(), source, nil); err != nil {
			t.Fatal(err)
		}
		whole := 0
		for i := range kills {
			cmd := restorer(t, dir, into)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if lines.Text() == "ready" {
					time.AfterFunc(time.Duration(i*37%101)*3*time.Millisecond, func() { _ = cmd.Process.Kill() })
				}
			}
			_ = cmd.Wait()
			db, restored := connect(t, into)
			n := 0
			if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM numbers").Scan(&n); err == nil && n != 0 && n != rows {
				t.Fatalf("after kill %d there are %d rows", i, n)
			}
			marked, err := restored.Incomplete(t.Context())
			if err != nil || marked && n > 0 {
				t.Fatalf("after kill %d: %d rows, marked %t, %v", i, n, marked, err)
			}
			if marked {
				if _, err := repo.Backup(t.Context(), restored, &backup.BackupOptions{Name: "half"}); err == nil {
					t.Fatal("a database that is not whole was backed up")
				}
			}
			if n == rows {
				whole++
				exec(t, db, "DROP TABLE numbers")
			}
		}
		_, restored := connect(t, into)
		if _, err := repo.Restore(t.Context(), "", restored, key, nil); err != nil {
			t.Fatal(err)
		}
		if d, err := repo.Differs(t.Context(), "", restored, key); err != nil || len(d) > 0 {
			t.Fatal(d, err)
		}
		t.Logf("%d kills, %d times it was whole already", kills, whole)
	}
	t.Run("sqlite", func(t *testing.T) {
		run(t, filepath.Join(t.TempDir(), "from.db"), filepath.Join(t.TempDir(), "into.db"))
	})
	t.Run("postgres", func(t *testing.T) { run(t, realtest.Postgres(t).DSN, realtest.Postgres(t).DSN) })
}

// restorer is the program that restores: this test in another process.
func restorer(t testing.TB, dir, into string) *osexec.Cmd {
	t.Helper()
	cmd := osexec.Command(os.Args[0], "-test.run=^TestKillRestore$")
	cmd.Env = append(os.Environ(), "CRMGUARD_KILL_DIR="+dir, "CRMGUARD_KILL_INTO="+into)
	return cmd
}
