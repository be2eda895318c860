package sqlstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/encrypt/vault"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/openertest"
	"github.com/crmguard/crmguard/internal/realtest"
)

// world is a store whose every copy can be taken.
type world struct {
	store *sqlstore.Store
	// copy saves all that exists in a folder of that name.
	copy func(name string)
	// dirs returns the folders of everything: the live files and all copies, some brought back to life.
	dirs func() []string
	// live returns the folders of the files as they are now.
	live func() []string
}

func personOf(n uint64) (p [16]byte) {
	binary.BigEndian.PutUint64(p[8:], n)
	return p
}

// testOpener erases a person and shows what every copy is worth before and after the epoch's end.
func testOpener(t *testing.T, kek keys.KEK, w world) {
	const tenant = "acme"
	ctx := t.Context()
	keeper, err := encrypt.NewKeeper(kek, w.store, &encrypt.Options{Grace: -1, EraseLimit: -1})
	if err != nil {
		t.Fatal(err)
	}
	var values []openertest.Value
	seal := func(name string, person [16]byte) {
		t.Helper()
		v := openertest.Value{Name: name, Person: person, Plain: []byte("secret of " + name)}
		if v.Sealed, err = keeper.SealFor(ctx, tenant, person, openertest.Label, nil, v.Plain); err != nil {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	o := &openertest.Opener{T: t, Tenant: tenant, KEK: kek}
	exports := t.TempDir()
	exported := make(map[string][][]byte)
	save := func(name string) {
		t.Helper()
		var all []byte
		if err := keeper.ExportKeys(ctx, tenant, func(_ [8]byte, b []byte) error {
			var r keys.Record
			if err := r.UnmarshalBinary(b); err != nil {
				return err
			}
			all, exported[name] = append(all, b...), append(exported[name], b)
			r.Wrapped, r.Commitment = nil, nil
			o.Known = append(o.Known, r)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(exports, name), all, 0o600); err != nil {
			t.Fatal(err)
		}
		w.copy(name)
	}
	open := func(dirs []string, want ...string) {
		t.Helper()
		o.Find(dirs)
		got := o.Open(values)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("the opener opens %q, want %q", got, want)
		}
	}
	everything := func() []string { return append(w.dirs(), exports) }
	rotate := func() {
		t.Helper()
		if err := keeper.Rotate(ctx, tenant, nil); err != nil {
			t.Fatal(err)
		}
	}
	churn := func(from uint64) {
		t.Helper()
		var gone [][16]byte
		for i := from; i < from+30; i++ {
			p := personOf(i)
			if _, err := keeper.SealFor(ctx, tenant, p, openertest.Label, nil, []byte("churn")); err != nil {
				t.Fatal(err)
			}
			if i%3 == 0 {
				gone = append(gone, p)
			}
		}
		for _, p := range gone {
			if _, err := keeper.Erase(ctx, tenant, p, nil); err != nil {
				t.Fatal(err)
			}
		}
	}

	a, alias, b := personOf(1), personOf(2), personOf(3)
	churn(100)
	seal("A", a)
	seal("A under another id", alias)
	seal("B", b)
	if err := keeper.Join(ctx, tenant, a, alias); err != nil {
		t.Fatal(err)
	}
	save("first")
	rotate() // so that the person has lived in two epochs
	seal("A again", a)
	seal("B again", b)
	churn(200)
	save("before")
	all := []string{"A", "A again", "A under another id", "B", "B again"}
	open(everything(), all...) // the control: the opener works

	if r, err := keeper.Erase(ctx, tenant, a, nil); err != nil || len(r.Keys) != 2 {
		t.Fatalf("erased %d keys, %v", len(r.Keys), err)
	}
	if _, err := keeper.OpenFor(ctx, tenant, a, openertest.Label, nil, values[0].Sealed); !errors.Is(err, encrypt.ErrErased) {
		t.Fatalf("the keeper opens an erased person: %v", err)
	}
	churn(300)
	save("erased")
	open(everything(), all...) // until the epoch ends, stray copies are worth something: that is why it has to
	open(w.live(), "B", "B again")

	rotate()
	save("rotated")
	churn(400)
	save("after")
	open(everything(), "B", "B again")

	// Nor does a careless restore of an old export bring the person back.
	if err := keeper.ImportKeys(ctx, tenant, exported["before"]); err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		got, err := keeper.OpenFor(ctx, tenant, v.Person, openertest.Label, nil, v.Sealed)
		if strings.HasPrefix(v.Name, "B") {
			if err != nil || !bytes.Equal(got, v.Plain) {
				t.Fatalf("%s no longer opens: %v", v.Name, err)
			}
		} else if !errors.Is(err, encrypt.ErrErased) {
			t.Fatalf("%s: %v", v.Name, err)
		}
	}
	if os.Getenv("CRMGUARD_SOAK") != "1" {
		return
	}
	for round := range uint64(10) { // more persons, each through its own erasure and epoch
		p := personOf(1000 + round)
		name := fmt.Sprintf("person %d", round)
		seal(name, p)
		save(name)
		open(everything(), "B", "B again", name)
		if _, err := keeper.Erase(ctx, tenant, p, nil); err != nil {
			t.Fatal(err)
		}
		churn(2000 + 100*round)
		rotate()
		save(name + " erased")
		open(everything(), "B", "B again")
	}
}

func fileKEK(t testing.TB) keys.KEK {
	t.Helper()
	kek, err := localkek.Open(filepath.Join(t.TempDir(), "kek"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

func TestOpenerSQLite(t *testing.T) {
	testOpener(t, fileKEK(t), sqliteWorld(t))
}

// With a real Vault, whose root even tries to take the trim back.
func TestOpenerVault(t *testing.T) {
	s := realtest.Vault(t)
	s.Key("crm")
	kek, err := vault.Open(t.Context(), vault.Config{Key: "crm", Address: s.Addr, Token: s.Root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kek.Close() })
	testOpener(t, &rootKEK{KEK: kek, server: s}, sqliteWorld(t))
}

// rootKEK is what somebody with Vault's root token has: it lowers the oldest allowed version before each try.
type rootKEK struct {
	*vault.KEK
	server *realtest.VaultServer
}

func (k *rootKEK) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	out, err := k.KEK.Unwrap(ctx, wrapped, ad)
	if err != nil {
		_, _ = k.server.Client().Logical().Write("transit/keys/crm/config", map[string]any{"min_decryption_version": 1})
		return k.KEK.Unwrap(ctx, wrapped, ad)
	}
	return out, nil
}

func sqliteWorld(t testing.TB) world {
	dir, copies := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "keys.db")
	w, r, err := dialect.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(); r.Close() })
	s, err := sqlstore.Open(t.Context(), w, "sqlite", &sqlstore.Options{Reads: r})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	return world{
		store: s,
		live:  func() []string { return []string{dir} },
		copy: func(name string) {
			names = append(names, name)
			if err := os.CopyFS(filepath.Join(copies, name), os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
		},
		dirs: func() []string {
			// Each copy is also opened as a database, which applies its write-ahead log.
			alive := t.TempDir()
			for _, name := range names {
				at := filepath.Join(alive, name)
				if err := os.CopyFS(at, os.DirFS(filepath.Join(copies, name))); err != nil {
					t.Fatal(err)
				}
				db, err := sql.Open("sqlite", "file:"+filepath.Join(at, "keys.db"))
				if err != nil {
					t.Fatal(err)
				}
				dump(t, db, filepath.Join(at, "rows"))
				db.Close()
			}
			return []string{dir, copies, alive}
		},
	}
}

// dump writes what a database answers when it is asked for its wrapped keys.
func dump(t testing.TB, db *sql.DB, path string) {
	t.Helper()
	rows, err := db.Query("SELECT wrapped FROM encrypt_key")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all, one []byte
	for rows.Next() {
		if err := rows.Scan(&one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one...)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
}

// On PostgreSQL with a WAL archive: base backups, the archive, servers brought up from the first backup to
// every later moment, and the files of all of them.
func TestOpenerPostgres(t *testing.T) {
	if testing.Short() {
		t.Skip("several servers are brought up")
	}
	p := realtest.PostgresWith(t, realtest.PostgresOptions{Settings: []string{
		"archive_mode=on", "archive_command=mkdir -p ../archive && cp %p ../archive/%f", "autovacuum=off", "fsync=off",
	}})
	s, err := sqlstore.Open(t.Context(), p.DB, "postgres", nil)
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Dir(p.Dir)
	archive, backups := filepath.Join(home, "archive"), filepath.Join(home, "backups")
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := p.DB.Exec(query, args...); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	rows := t.TempDir()
	alive := make(map[string]string)
	testOpener(t, fileKEK(t), world{
		store: s,
		live: func() []string {
			// PostgreSQL promises nothing about its files before the epoch's end: ask the server alone.
			dir := t.TempDir()
			dump(t, p.DB, filepath.Join(dir, "rows"))
			return []string{dir}
		},
		copy: func(name string) {
			point := strings.ReplaceAll(name, " ", "_")
			exec("SELECT pg_create_restore_point($1)", point)
			exec("CHECKPOINT")
			if out, err := p.Command("pg_basebackup", "-D", filepath.Join(backups, point), "--checkpoint=fast", "-X", "none", "--no-sync").CombinedOutput(); err != nil {
				t.Fatalf("pg_basebackup: %v: %s", err, out)
			}
			names = append(names, point)
		},
		dirs: func() []string {
			archiveAll(t, p.DB)
			for _, name := range names {
				if alive[name] != "" || name != "before" && name != names[len(names)-1] {
					continue // two moments are enough: the server's files of the others are in the backups
				}
				from := names[0]
				settings := []string{
					"restore_command=cp " + archive + "/%f %p", "recovery_target_action=promote", "archive_mode=off", "autovacuum=off", "fsync=off",
					"recovery_target_name=" + name,
				}
				alive[name] = revive(t, filepath.Join(backups, from), settings, filepath.Join(rows, name))
			}
			return append(slices.Collect(maps.Values(alive)), home, rows)
		},
	})
}

// archiveAll waits until the write-ahead log is in the archive.
func archiveAll(t testing.TB, db *sql.DB) {
	t.Helper()
	var name string
	if err := db.QueryRow("SELECT pg_walfile_name(pg_switch_wal())").Scan(&name); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var done bool
		if err := db.QueryRow("SELECT coalesce(left(last_archived_wal, 24), '') >= $1 FROM pg_stat_archiver", name).Scan(&done); err != nil {
			t.Fatal(err)
		}
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the write-ahead log was not archived")
		}
	}
}

// revive starts a server on a base backup, lets it replay the archive, and returns its folder.
func revive(t testing.TB, backup string, settings []string, rows string) string {
	t.Helper()
	signal := filepath.Join(backup, "recovery.signal")
	if err := os.WriteFile(signal, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p := realtest.PostgresWith(t, realtest.PostgresOptions{Settings: settings, Backup: backup, Database: "crmguard"})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var recovering bool
		if err := p.DB.QueryRow("SELECT pg_is_in_recovery()").Scan(&recovering); err != nil {
			t.Fatal(err)
		}
		if !recovering {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the server did not finish its recovery")
		}
	}
	dump(t, p.DB, rows)
	p.Stop(t)
	return p.Dir
}
