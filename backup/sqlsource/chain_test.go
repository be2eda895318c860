package sqlsource_test

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"fmt"
	mrand "math/rand/v2"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
	"github.com/crmguard/crmguard/backup/sqlsource"
	"github.com/crmguard/crmguard/internal/realtest"
)

var chainTables = []string{
	`CREATE TABLE companies (id INTEGER PRIMARY KEY, name TEXT, seq BIGINT NOT NULL)`,
	`CREATE TABLE contacts (id TEXT PRIMARY KEY, company INTEGER REFERENCES companies (id), name TEXT, seq BIGINT NOT NULL)`,
	`CREATE TABLE members (b INTEGER, a INTEGER, v TEXT, PRIMARY KEY (a, b))`,
	`CREATE TABLE lines (v INTEGER, w TEXT)`,
}

func TestSQLiteChain(t *testing.T) {
	testChain(t, openSQLite, sqlsource.SQLite, nil)
}

func TestPostgresChain(t *testing.T) {
	testChain(t, func(t testing.TB) *sql.DB { return realtest.Postgres(t).DB }, sqlsource.Postgres,
		func(ctx context.Context, db *sql.DB) error {
			var n int
			if db.QueryRowContext(ctx, "SELECT count(*) FROM companies").Scan(&n) == nil {
				return nil
			}
			for _, s := range chainTables {
				if _, err := db.ExecContext(ctx, s); err != nil {
					return err
				}
			}
			return nil
		})
}

// testChain lets a database wander, and restores each moment from a chain that was made by reading every row and from one
// that was made by change numbers.
func testChain(t *testing.T, open func(testing.TB) *sql.DB, database func(*sql.DB, *sqlsource.Options) *sqlsource.Database,
	prepare func(context.Context, *sql.DB) error) {
	db := open(t)
	exec(t, db, chainTables...)
	rnd := mrand.New(mrand.NewPCG(1, 2))
	seq := 300
	numbers := `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 299) `
	exec(t, db, `INSERT INTO companies `+numbers+`SELECT i, 'company', i + 1 FROM n`,
		`INSERT INTO contacts `+numbers+`SELECT 'c' || i, i / 3, '客户', i + 1 FROM n`,
		`INSERT INTO members `+numbers+`SELECT i % 7, i, NULL FROM n`, `INSERT INTO lines `+numbers+`SELECT i % 20, 'line' FROM n`)
	signer := backuptest.Signer()
	repo, err := backup.Open(t.Context(), &backuptest.Bucket{}, signer.Public().(ed25519.PublicKey),
		&backup.Options{Signer: signer, Recipient: backuptest.Key(t).Public()})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"[id] map[]", "[id] map[company:companies]", "[a b] map[]"} {
		got := contents(t, database(db, nil)).Tables[[]int{0, 1, 3}[i]]
		for column, parent := range got.Parents {
			got.Parents[column] = strings.TrimPrefix(parent, "public.")
		}
		if s := fmt.Sprint(got.Key, got.Parents); s != want {
			t.Fatalf("table %s has the keys %s, want %s", got.Name, s, want)
		}
	}
	names := map[string]*sqlsource.Options{"scan": nil, "numbers": {Changes: "seq"}}
	for step := range 6 {
		for name, opts := range names {
			source := database(db, opts)
			snap, err := repo.Backup(t.Context(), source, &backup.BackupOptions{Name: name, Chain: &policy.Chain{}})
			if err != nil {
				t.Fatal(err)
			}
			if snap.Depth != step || step > 0 && snap.Bytes > 4000 {
				t.Fatalf("step %d %s: depth %d, %d bytes of rows", step, name, snap.Depth, snap.Bytes)
			}
			want := contents(t, source)
			var got backuptest.Memory
			if _, err := repo.Restore(t.Context(), snap.ID, &got, backuptest.Key(t), nil); err != nil {
				t.Fatal(err)
			}
			backuptest.Alike(t, want, &got)
			if step < 5 {
				continue
			}
			into := database(open(t), &sqlsource.Options{Prepare: prepare})
			if _, err := repo.Restore(t.Context(), snap.ID, into, backuptest.Key(t), nil); err != nil {
				t.Fatal(err)
			}
			backuptest.Alike(t, want, contents(t, into))
		}
		var changes []string
		for range 4 {
			seq++
			i := rnd.IntN(300)
			changes = append(changes, fmt.Sprintf(`UPDATE companies SET name = 'changed %d', seq = %d WHERE id = %d`, step, seq, i),
				fmt.Sprintf(`UPDATE members SET v = 'changed %d' WHERE a = %d`, step, i),
				fmt.Sprintf(`INSERT INTO contacts VALUES ('new %d %d', NULL, 'new', %d)`, step, seq, seq),
				fmt.Sprintf(`UPDATE lines SET w = 'changed %d' WHERE v = %d`, step, i%20))
			if step%2 == 1 {
				changes = append(changes, fmt.Sprintf(`DELETE FROM contacts WHERE id = 'c%d'`, i), fmt.Sprintf(`DELETE FROM members WHERE a = %d`, rnd.IntN(300)),
					fmt.Sprintf(`DELETE FROM lines WHERE v = %d`, i%20))
			}
		}
		exec(t, db, strings.Join(changes, "; "))
	}
	rep, err := repo.Verify(t.Context(), &backup.VerifyOptions{Level: backup.Full, Key: backuptest.Key(t)})
	if err != nil || rep.Err() != nil {
		t.Fatal(err, rep.Err())
	}
}

// contents reads a database.
func contents(t *testing.T, from backup.Source) *backuptest.Memory {
	t.Helper()
	var m backuptest.Memory
	if err := tryCopy(t, from, &m); err != nil {
		t.Fatal(err)
	}
	return &m
}
