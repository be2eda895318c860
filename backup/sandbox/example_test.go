package sandbox_test

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/sandbox"
	"github.com/crmguard/crmguard/backup/sqlsource"
)

func ExampleSink() {
	ctx := context.Background()
	folder, err := os.MkdirTemp("", "sandbox-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	live, repo, key := backedUp(ctx, folder)
	defer live.Close()

	scratch, err := sql.Open("sqlite", filepath.Join(folder, "sandbox.db"))
	if err != nil {
		log.Fatal(err)
	}
	defer scratch.Close()
	v := sandbox.NewInventor()
	defer v.Forget()
	rules := map[string]sandbox.Table{
		"people": {Columns: map[string]sandbox.Rule{"id": sandbox.Remap, "name": sandbox.Name, "city": sandbox.Keep}},
		"orders": {Columns: map[string]sandbox.Rule{"id": sandbox.Remap, "person": sandbox.Remap, "at": sandbox.Shift}},
	}
	restore := func() {
		to, err := sandbox.Sink(sqlsource.SQLite(scratch, nil), v, &sandbox.Options{Tables: rules})
		if err != nil {
			log.Fatal(err)
		}
		if _, err := repo.Restore(ctx, "", to, key, nil); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("restored")
	}
	restore()
	rules["orders"].Columns["note"] = sandbox.Text
	restore()
	var real, of int
	if err := scratch.QueryRow(`SELECT count(*) FILTER (WHERE name LIKE '%Lovelace'), count(DISTINCT person) FROM people JOIN orders ON person = people.id`).Scan(&real, &of); err != nil {
		log.Fatal(err)
	}
	fmt.Println(real, "real names,", of, "persons with orders")
	// Output:
	// sandbox: no rule names column note of table orders
	// restored
	// 0 real names, 1 persons with orders
}

// backedUp is a database and its backup.
func backedUp(ctx context.Context, folder string) (*sql.DB, *backup.Repository, *backupkey.Private) {
	live, err := sql.Open("sqlite", filepath.Join(folder, "live.db"))
	if err != nil {
		log.Fatal(err)
	}
	_, err = live.Exec(`CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
		CREATE TABLE orders (id INTEGER PRIMARY KEY, person INTEGER REFERENCES people (id), at TEXT, note TEXT);
		INSERT INTO people VALUES (7, 'Ada Lovelace', 'London'); INSERT INTO orders VALUES (1, 7, '1843-09-01', 'to Ada'), (2, 7, '1843-10-01', '')`)
	if err != nil {
		log.Fatal(err)
	}
	key, err := backupkey.Generate()
	if err != nil {
		log.Fatal(err)
	}
	signer, err := backupkey.CreateSigner(filepath.Join(folder, "signing.key"))
	if err != nil {
		log.Fatal(err)
	}
	repo, err := backup.Open(ctx, &backuptest.Bucket{}, signer.Public().(ed25519.PublicKey), &backup.Options{Signer: signer, Recipient: key.Public()})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := repo.Backup(ctx, sqlsource.SQLite(live, nil), nil); err != nil {
		log.Fatal(err)
	}
	return live, repo, key
}
