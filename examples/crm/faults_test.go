package main_test

import (
	"bytes"
	"context"
	"database/sql"
	bin "encoding/binary"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/internal/realtest"
)

// filled makes a data folder with an administrator and n customers.
func filled(t testing.TB, n int, env []string, args ...string) (data string, rows []somebody) {
	t.Helper()
	data = small(t, env, args...)
	rows = people(worlds.Add(1), n)
	mustRun(t, env, append([]string{"import", csvOf(t, rows), "--data", data, "--duplicates", "off"}, args...)...)
	return data, rows
}

var snapshotLine = regexp.MustCompile(`snapshot (\S+): (\d+) rows`)

// objects lists the files of a folder with more than min bytes.
func objects(t testing.TB, dir string, min int64) (out []string) {
	t.Helper()
	require.NoError(t, filepath.Walk(dir, func(path string, i os.FileInfo, err error) error {
		if err == nil && i.Mode().IsRegular() && i.Size() > min {
			out = append(out, path)
		}
		return err
	}))
	require.NotEmpty(t, out)
	return out
}

// flip changes one bit of a file and returns what undoes it.
func flip(t testing.TB, path string, at int64) func() {
	t.Helper()
	old, err := os.ReadFile(path)
	require.NoError(t, err)
	b := bytes.Clone(old)
	b[at] ^= 1 << (at % 8)
	require.NoError(t, os.WriteFile(path, b, 0o600))
	return func() { require.NoError(t, os.WriteFile(path, old, 0o600)) }
}

// TestBackupRestore: what a restore brings back is byte for byte what was there, keys included; what is
// not whole is refused and leaves nothing behind.
func TestBackupRestore(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		dataOf := func(t testing.TB) (string, []string, []string) { return filepath.Join(t.TempDir(), "data"), nil, nil }
		backupRestore(t, dataOf, func(t testing.TB, data string) {
			for _, name := range []string{"crm.db", "crm.db-wal", "crm.db-shm"} {
				if err := os.Remove(filepath.Join(data, name)); err != nil {
					require.ErrorIs(t, err, os.ErrNotExist)
				}
			}
		})
	})
	t.Run("PostgreSQL and Vault", func(t *testing.T) {
		long(t)
		env, flags := servers(t)
		db := realtest.Postgres(t)
		flags[len(flags)-1] = db.DSN
		backupRestore(t, func(t testing.TB) (string, []string, []string) { return filepath.Join(t.TempDir(), "data"), env, flags },
			func(t testing.TB, _ string) {
				_, err := db.DB.Exec("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
				require.NoError(t, err)
			})
	})
}

func backupRestore(t *testing.T, where func(testing.TB) (data string, env, flags []string), drop func(t testing.TB, data string)) {
	_, env, flags := where(t)
	data, rows := filled(t, 1500, env, flags...)
	with := func(args ...string) []string { return append(append(args, "--data", data), flags...) }
	snapshot := func() string {
		m := snapshotLine.FindStringSubmatch(mustRun(t, env, with("backup")...))
		require.NotNil(t, m)
		return m[1]
	}
	refused := func(says string, args ...string) {
		t.Helper()
		out, code := run(t, env, with(args...)...)
		assert.Equal(t, 1, code, out)
		assert.Contains(t, out, says)
		for i := range 20 {
			for _, v := range rows[i].values() {
				assert.NotContains(t, out, v)
			}
		}
	}
	before := green(t, env, with()...)
	first := snapshot()
	refused("not empty", "restore")
	assert.Equal(t, before.Rows.Digest, green(t, env, with()...).Rows.Digest, "a refused restore changed something")

	drop(t, data)
	mustRun(t, env, with("restore")...)
	restored := green(t, env, with()...)
	assert.Equal(t, before.Rows.Digest, restored.Rows.Digest)
	assert.Equal(t, before.Rows.Rows, restored.Rows.Rows)

	// Keys came back: sign-in, clear and masked values, search, writing.
	p := serve(t, data, env, flags...)
	c := p.signIn(t, "admin")
	for _, i := range []int{0, 749, 1499} {
		found := items(t, c.postJSON(t, "/api/v1/customers/search", `{"term":"`+rows[i].email+`"}`))
		require.Len(t, found, 1)
		assert.Equal(t, "masked", found[0].Fields["phone"].State)
		assert.Equal(t, rows[i].phone, one(t, c.get(t, "/api/v1/customers/"+found[0].ID)).Fields["phone"].Value)
		r := c.postJSON(t, "/api/v1/customers/"+found[0].ID+"/reveal", `{"field":"phone","reason":"after a restore"}`)
		assert.Equal(t, http.StatusOK, r.status, r.body)
	}
	assert.Equal(t, http.StatusOK, c.post(t, "/customers", url.Values{"name": {"After the restore"}, "kind": {"company"}}).status)
	p.stop(t)
	changed := green(t, env, with()...)
	assert.NotEqual(t, before.Rows.Digest, changed.Rows.Digest)
	assert.Equal(t, before.Rows.Rows+1, changed.Rows.Rows)

	// A second snapshot; the first comes back by its id.
	second := snapshot()
	require.NotEqual(t, first, second)
	drop(t, data)
	mustRun(t, env, with("restore", first)...)
	assert.Equal(t, before.Rows.Digest, green(t, env, with()...).Rows.Digest)

	// What is refused leaves a running CRM as it was,
	digest := before.Rows.Digest
	refused("not empty", "restore", "nosuch")
	assert.Equal(t, digest, green(t, env, with()...).Rows.Digest)
	serve(t, data, env, flags...).stop(t)
	// and an empty database empty: a snapshot that is not there, a wrong key, a damaged object.
	drop(t, data)
	nothing := func() {
		t.Helper()
		v, code := verify(t, env, with()...)
		assert.NotZero(t, code, "half a restore is called good")
		assert.Zero(t, v.Rows.Rows, "half a restore is there")
		refused("there is no database here", "verify")
		refused("there is no database here", "backup")
	}
	refused("no such snapshot", "restore", "nosuch")
	nothing()
	other, err := backupkey.Generate()
	require.NoError(t, err)
	wrong := filepath.Join(t.TempDir(), "recovery.key")
	require.NoError(t, other.WriteFile(wrong))
	refused("the key does not fit", "restore", "--recovery-key", wrong)
	refused("key", "restore", "--recovery-key", wrong+".none")
	nothing()
	for _, object := range objects(t, filepath.Join(data, "backup"), 0) {
		undo := flip(t, object, int64(rand.IntN(100)))
		out, code := run(t, env, with("restore", first)...)
		if code == 0 { // an object of the other snapshot
			require.NotContains(t, object, "repository")
			drop(t, data)
		} else {
			nothing()
		}
		undo()
		_ = out
	}
	// A restore that failed is the one thing that must be done again before the CRM starts.
	refused("no such snapshot", "restore", "nosuch")
	refused("crm restore brings it back", "account", "reset", "admin@demo.example")
	mustRun(t, env, with("restore", first)...)
	assert.Equal(t, digest, green(t, env, with()...).Rows.Digest)

	// verify --backups names what is damaged.
	assert.Contains(t, mustRun(t, env, with("verify", "--backups")...), "2 snapshots")
	for _, dir := range []string{"backup", "backup-keys"} {
		for _, object := range objects(t, filepath.Join(data, dir), 0) {
			i, err := os.Stat(object)
			require.NoError(t, err)
			undo := flip(t, object, rand.Int64N(i.Size()))
			name := filepath.Base(object)
			refused(name, "verify", "--backups")
			undo()
		}
	}
	mustRun(t, env, with("verify", "--backups")...)
}

// TestFlippedLog: wherever one bit of the log changes, verify does not call it good, and says where.
//
//crm:item 32
func TestFlippedLog(t *testing.T) {
	data, _ := filled(t, 1200, nil)
	p := serve(t, data, nil)
	c := p.signIn(t, "admin")
	for _, r := range walk(t, c, "/api/v1/customers?limit=200")[:30] {
		require.Equal(t, http.StatusOK, c.postJSON(t, "/api/v1/customers/"+r.ID+"/reveal", `{"field":"phone","reason":"to flip bits"}`).status)
	}
	p.stop(t)
	n := 200
	if soak {
		n = 1000
	}
	ctx, conf := context.Background(), app.Config{Data: data}
	whole, err := app.Verify(ctx, conf)
	require.NoError(t, err)
	require.True(t, whole.OK(), whole.Summary())

	var files []string
	var sizes []int64
	total := int64(0)
	names := map[string]func(int64) int64{}
	for _, f := range objects(t, filepath.Join(data, "log"), 0) {
		i, err := os.Stat(f)
		require.NoError(t, err)
		files, sizes, total = append(files, f), append(sizes, i.Size()), total+i.Size()
		if strings.HasSuffix(f, ".seg") {
			names[f] = namedBy(t, f)
		}
	}
	rnd := rand.New(rand.NewPCG(7, 7))
	named, states := 0, map[string]int{}
	for i := range n {
		at := total*int64(i)/int64(n) + rnd.Int64N(max(1, total/int64(n)))
		k := 0
		for at >= sizes[k] {
			at -= sizes[k]
			k++
		}
		undo := flip(t, files[k], at)
		v, err := app.Verify(ctx, conf)
		name := filepath.Base(files[k])
		require.NoError(t, err, "%s at %d", name, at)
		require.False(t, v.OK(), "%s at %d: a changed bit is called good", name, at)
		require.NotEmpty(t, v.Log.Reason, "%s at %d", name, at)
		states[v.Log.State.String()]++
		if want := names[files[k]]; want != nil {
			assert.Equal(t, want(at), v.Log.At, "%s at %d: %s", name, at, v.Log)
			named++
		}
		undo()
	}
	t.Logf("%d bits in %d bytes: %v; %d name an event", n, total, states, named)
	whole, err = app.Verify(ctx, conf)
	require.NoError(t, err)
	require.True(t, whole.OK(), whole.Summary())
}

// namedBy reads a segment as docs/formats/audit.md lays it out, and returns which event a changed byte is to name: that of its frame, or the
// first of its batch for the batch's header and checkpoint; the first of all for the segment's header.
func namedBy(t *testing.T, file string) func(at int64) int64 {
	const segment, header, frame = 24, 28, 8
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "CGLOGSEG", string(b[:8]))
	type part struct{ end, event int64 }
	parts := []part{{segment, int64(bin.BigEndian.Uint64(b[12:]))}}
	for pos := segment; pos < len(b); {
		require.Equal(t, "CGBA", string(b[pos:pos+4]))
		end := pos + header + int(bin.BigEndian.Uint32(b[pos+4:]))
		first := int64(bin.BigEndian.Uint64(b[pos+8:]))
		next := first
		pos += header
		parts = append(parts, part{int64(pos), first})
		for pos < end {
			kind := b[pos+frame]
			pos += frame + int(bin.BigEndian.Uint32(b[pos:]))
			if kind == 1 {
				parts = append(parts, part{int64(pos), next})
				next++
			} else {
				parts = append(parts, part{int64(pos), first})
			}
		}
		require.Equal(t, end, pos)
	}
	return func(at int64) int64 {
		i := slices.IndexFunc(parts, func(p part) bool { return at < p.end })
		return parts[i].event
	}
}

// faultKit is a data folder that nothing has open, and what must be in no message about it.
type faultKit struct {
	data string
	rows []somebody
}

// quiet runs a command that must fail within a minute, saying why and nothing else.
func (k faultKit) quiet(t testing.TB, says string, env []string, args ...string) string {
	t.Helper()
	start := time.Now()
	out, code := run(t, env, args...)
	assert.Equal(t, 1, code, out)
	assert.Contains(t, out, says)
	assert.Less(t, time.Since(start), time.Minute)
	k.secretless(t, out)
	return out
}

// secretless fails when a message holds values of customers, keys or passwords.
func (k faultKit) secretless(t testing.TB, out string) {
	t.Helper()
	for i := range k.rows {
		for _, v := range k.rows[i].values() {
			if strings.Contains(out, v) {
				t.Fatal("a message holds a customer's data")
			}
		}
	}
	assert.NotContains(t, out, dsnPassword)
	for _, name := range []string{"kek.local", "signing.key", "recovery.key", "backup-signing.key"} {
		b, err := os.ReadFile(filepath.Join(k.data, name))
		if err != nil {
			continue
		}
		for _, word := range strings.FieldsFunc(string(b), func(r rune) bool { return strings.ContainsRune(" \n\":,{}", r) }) {
			if len(word) >= 40 {
				assert.NotContains(t, out, word, "a message holds a part of %s", name)
			}
		}
	}
}

const dsnPassword = "correct-horse-dsn"

// sqlite opens the database of a data folder as an attacker with a file would.
func sqlite(t testing.TB, data string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(data, "crm.db"))
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

// TestFaults: what is broken is said by name, with an exit status that is not zero, and repaired nothing
// is lost.
func TestFaults(t *testing.T) {
	data, rows := filled(t, 300, nil)
	base := faultKit{data, rows}
	foreign := small(t, nil)
	start := []string{"account", "reset", "admin@demo.example"}
	with := func(data string, args ...string) []string { return append(args, "--data", data) }

	t.Run("files", func(t *testing.T) {
		file := func(name string) func(k faultKit) string {
			return func(k faultKit) string { return filepath.Join(k.data, name) }
		}
		kek, signing := file("kek.local"), file("signing.key")
		write := func(path string, b []byte) { require.NoError(t, os.WriteFile(path, b, 0o600)) }
		read := func(path string) []byte {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			return b
		}
		for _, tc := range []struct {
			name, says string
			do         func(k faultKit)
		}{
			{"another key", "KEK does not open", func(k faultKit) { write(kek(k), read(filepath.Join(foreign, "kek.local"))) }},
			{"a key that others may read", "mode 0600", func(k faultKit) { require.NoError(t, os.Chmod(kek(k), 0o644)) }},
			{"a cut key", "localkek", func(k faultKit) { write(kek(k), read(kek(k))[:80]) }},
			{"an empty key", "localkek", func(k faultKit) { write(kek(k), nil) }},
			{"another signing key", "not signed by signing.key", func(k faultKit) { write(signing(k), read(filepath.Join(foreign, "signing.key"))) }},
			{"a signing key that others may read", "0600", func(k faultKit) { require.NoError(t, os.Chmod(signing(k), 0o644)) }},
			{"a cut log", "log", func(k faultKit) {
				seg := objects(t, filepath.Join(k.data, "log"), 1000)[0]
				b := read(seg)
				write(seg, b[:len(b)*2/3])
			}},
			{"no log", "log", func(k faultKit) { require.NoError(t, os.RemoveAll(filepath.Join(k.data, "log"))) }},
			{"no database file but a text", "SQLite", func(k faultKit) { write(filepath.Join(k.data, "crm.db"), bytes.Repeat([]byte("no database "), 1000)) }},
		} {
			t.Run(tc.name, func(t *testing.T) {
				k := faultKit{copied(t, data), rows}
				tc.do(k)
				k.quiet(t, "", nil, with(k.data, "verify")...)
				k.quiet(t, tc.says, nil, with(k.data, start...)...)
				k.quiet(t, tc.says, nil, with(k.data, "serve", "--addr", "localhost:0")...)
				for _, path := range []string{kek(k), signing(k)} {
					require.NoError(t, os.Remove(path))
					write(path, read(filepath.Join(data, filepath.Base(path))))
				}
				if strings.Contains(tc.name, "key") {
					green(t, nil, with(k.data)...)
					mustRun(t, nil, with(k.data, start...)...)
				}
			})
		}
	})

	t.Run("rows", func(t *testing.T) {
		type row struct {
			body         []byte
			version, seq int64
			owner, city  sql.NullString
			updated      int64
		}
		read := func(t *testing.T, db *sql.DB, id []byte) (r row) {
			require.NoError(t, db.QueryRow(`SELECT body, version, change_seq, c_owner, c_city, c_updated_at FROM crm_rows_customer WHERE id = ?`, id).
				Scan(&r.body, &r.version, &r.seq, &r.owner, &r.city, &r.updated))
			return r
		}
		for _, tc := range []struct {
			name, finds string
			status      int // of the page of the record
			do          func(t *testing.T, db *sql.DB, id, other []byte, old row)
		}{
			{"another owner", "forged", 500, func(t *testing.T, db *sql.DB, id, _ []byte, _ row) {
				exec1(t, db, `UPDATE crm_rows_customer SET c_owner = '00000000-0000-7000-8000-000000000000' WHERE id = ?`, id)
			}},
			{"another amount", "forged", 500, func(t *testing.T, db *sql.DB, id, _ []byte, _ row) {
				exec1(t, db, `UPDATE crm_rows_customer SET c_open_value = 1 WHERE id = ?`, id)
			}},
			{"a higher version", "forged", 500, func(t *testing.T, db *sql.DB, id, _ []byte, _ row) {
				exec1(t, db, `UPDATE crm_rows_customer SET version = version + 1 WHERE id = ?`, id)
			}},
			{"another's ciphertexts", "forged", 500, func(t *testing.T, db *sql.DB, id, other []byte, _ row) {
				exec1(t, db, `UPDATE crm_rows_customer SET body = (SELECT body FROM crm_rows_customer WHERE id = ?) WHERE id = ?`, other, id)
			}},
			{"one bit of a ciphertext", "forged", 500, func(t *testing.T, db *sql.DB, id, _ []byte, _ row) {
				b := read(t, db, id).body
				b[len(b)/2] ^= 1
				exec1(t, db, `UPDATE crm_rows_customer SET body = ? WHERE id = ?`, b, id)
			}},
			{"an empty body", "forged", 500, func(t *testing.T, db *sql.DB, id, _ []byte, _ row) {
				exec1(t, db, `UPDATE crm_rows_customer SET body = x'' WHERE id = ?`, id)
			}},
			{"deleted", "missing", 404, func(t *testing.T, db *sql.DB, id, _ []byte, _ row) {
				exec1(t, db, `DELETE FROM crm_rows_customer WHERE id = ?`, id)
			}},
			{"put back to an older state", "rolled_back", 200, func(t *testing.T, db *sql.DB, id, _ []byte, old row) {
				exec1(t, db, `UPDATE crm_rows_customer SET body = ?, version = ?, change_seq = ?, c_owner = ?, c_city = ?, c_updated_at = ? WHERE id = ?`,
					old.body, old.version, old.seq, old.owner, old.city, old.updated, id)
			}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				k := faultKit{copied(t, data), rows}
				p := serve(t, k.data, nil)
				c := p.signIn(t, "admin")
				all := walk(t, c, "/api/v1/customers?limit=200")
				db := sqlite(t, k.data)
				id, err := crm.ParseUUID(all[3].ID)
				require.NoError(t, err)
				other, err := crm.ParseUUID(all[4].ID)
				require.NoError(t, err)
				old := read(t, db, id[:])
				path := "/customers/" + all[3].ID
				require.Equal(t, http.StatusOK, c.post(t, path, url.Values{"version": {"1"}, "city": {"Bonn"}}).status)
				shown := one(t, c.get(t, "/api/v1"+path))
				tc.do(t, db, id[:], other[:], old)
				for _, path := range []string{path, "/api/v1" + path} {
					r := c.get(t, path)
					assert.Equal(t, tc.status, r.status, path)
					if tc.status != http.StatusOK {
						for _, name := range []string{"name", "contact", "phone", "email"} {
							assert.NotContains(t, r.body, shown.Fields[name].Value, path)
						}
					}
				}
				if tc.finds == "forged" {
					assert.NotEqual(t, http.StatusSeeOther, c.post(t, path+"/delete", url.Values{"version": {"2"}}).status)
				}
				p.stop(t)
				k.secretless(t, p.output.String())
				v, code := verify(t, nil, "--data", k.data)
				assert.Equal(t, 1, code)
				if strings.Contains(v.text, "stored data is damaged") {
					return // a body that cannot even be read ends the check
				}
				if assert.Len(t, v.Rows.Findings, 1, v.text) {
					assert.Equal(t, tc.finds, v.Rows.Findings[0].Problem)
					assert.Equal(t, all[3].ID, v.Rows.Findings[0].ID)
				}
				k.secretless(t, v.text)
			})
		}
	})

	t.Run("a locked database", func(t *testing.T) {
		long(t)
		k := faultKit{copied(t, data), rows}
		db := sqlite(t, k.data)
		_, err := db.Exec(`BEGIN EXCLUSIVE`)
		require.NoError(t, err)
		began := time.Now()
		k.quiet(t, "", nil, with(k.data, "import", csvOf(t, people(worlds.Add(1), 10)))...)
		assert.Less(t, time.Since(began), 30*time.Second)
		_, err = db.Exec(`ROLLBACK`)
		require.NoError(t, err)
		require.NoError(t, db.Close())
		mustRun(t, nil, with(k.data, start...)...)
		green(t, nil, with(k.data)...)
	})

	t.Run("a full disk", func(t *testing.T) {
		long(t)
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
			t.Skip("mounting a small file system needs root")
		}
		t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
		k := faultKit{filepath.Join(dir, "data"), people(worlds.Add(1), 20_000)}
		require.NoError(t, os.CopyFS(k.data, os.DirFS(copied(t, data))))
		require.NoError(t, os.Chmod(k.data, 0o700))
		for _, name := range []string{"kek.local", "signing.key"} {
			require.NoError(t, os.Chmod(filepath.Join(k.data, name), 0o600))
		}
		file := csvOf(t, k.rows)
		out := k.quiet(t, "crm: ", nil, with(k.data, "import", file)...)
		acknowledged := 0
		for _, line := range strings.Split(out, "\n") {
			if m := storedLine.FindStringSubmatch(line); m != nil {
				acknowledged, _ = strconv.Atoi(m[1])
			}
		}
		require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"))
		said := mustRun(t, nil, with(k.data, start...)...)
		v := green(t, nil, with(k.data)...)
		assert.GreaterOrEqual(t, v.Rows.Rows, int64(acknowledged+len(rows)))
		t.Logf("%d rows acknowledged before the disk was full, %d stored; %s; %s", acknowledged, v.Rows.Rows-int64(len(rows)+3),
			out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:], announced(said))
	})

	t.Run("beside a running process", func(t *testing.T) {
		k := faultKit{copied(t, data), rows}
		p := serve(t, k.data, nil)
		for _, args := range [][]string{{"import", csvOf(t, people(worlds.Add(1), 10))}, {"rotate"}, {"restore"}, {"serve", "--addr", "localhost:0"}, start} {
			k.quiet(t, "in use by another crm process", nil, with(k.data, args...)...)
		}
		green(t, nil, with(k.data)...)
		mustRun(t, nil, with(k.data, "backup")...)
		p.stop(t)
		mustRun(t, nil, with(k.data, "rotate")...)
		green(t, nil, with(k.data)...)
	})

	t.Run("flags", func(t *testing.T) {
		k := base
		k.quiet(t, "not served beyond loopback", nil, with(k.data, "serve", "--addr", "0.0.0.0:0")...)
		k.quiet(t, "plain text", nil, with(k.data, "serve", "--addr", "0.0.0.0:0", "--http", "--allow-local-kek")...)
		dsn := "postgres://crm:" + dsnPassword + "@127.0.0.1:1/none?connect_timeout=2"
		k.quiet(t, "PostgreSQL cannot be reached", nil, with(k.data, "serve", "--addr", "localhost:0", "--db", dsn)...)
		k.quiet(t, "", nil, with(k.data, "verify", "--db", dsn)...)
		k.quiet(t, "PostgreSQL", nil, with(k.data, "verify", "--db", "postgres://crm:"+dsnPassword+"@[::1/none")...)
		k.quiet(t, "", []string{"VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=" + dsnPassword}, with(k.data, "serve", "--addr", "localhost:0", "--kek", "vault:crm")...)
		k.quiet(t, "--kek", nil, with(k.data, "serve", "--kek", "none")...)
		k.quiet(t, "instance", nil, with(k.data, "serve", "--instance", "../x")...)
	})
	green(t, nil, with(data)...)
}

func exec1(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	r, err := db.Exec(query, args...)
	require.NoError(t, err)
	n, err := r.RowsAffected()
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}

// TestServersGone: while Vault is sealed cached keys serve on, while PostgreSQL is away pages say 503,
// and both come back without a restart.
//
//crm:item 42
func TestServersGone(t *testing.T) {
	long(t)
	v := realtest.Vault(t)
	v.Key("crm")
	pg := realtest.Postgres(t)
	env := []string{"VAULT_ADDR=" + v.Addr, "VAULT_TOKEN=" + v.Root}
	flags := []string{"--kek", "vault:crm", "--db", pg.DSN}
	data, _ := filled(t, 50, env, flags...)
	p := serve(t, data, env, flags...)
	c := p.signIn(t, "admin")
	path := "/customers/" + walk(t, c, "/api/v1/customers?limit=200")[0].ID
	v.Seal()
	assert.Equal(t, http.StatusOK, c.get(t, path).status, "cached keys serve while Vault is sealed")
	out, code := run(t, env, append([]string{"verify", "--data", data}, flags...)...)
	assert.Equal(t, 1, code)
	assert.Contains(t, out, "key service unavailable")
	assert.NotContains(t, out, v.Root)
	v.Unseal()
	assert.Equal(t, http.StatusOK, c.post(t, "/customers", url.Values{"name": {"After the seal"}, "kind": {"company"}}).status)
	pg.Stop(t)
	assert.Equal(t, http.StatusServiceUnavailable, c.get(t, path).status)
	pg.Start(t)
	assert.Eventually(t, func() bool { return c.get(t, path).status == http.StatusOK }, 30*time.Second, 50*time.Millisecond)
	p.stop(t)
	assert.NotContains(t, p.output.String(), v.Root)
	green(t, env, append([]string{"--data", data}, flags...)...)
}
