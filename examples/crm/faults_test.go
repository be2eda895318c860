package main_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/internal/realtest"
)

// filled makes a data folder with an administrator and n customers.
func filled(t testing.TB, n int, env []string, args ...string) (data string, rows []somebody) {
	t.Helper()
	data = small(t, env, args...)
	rows = people(worlds.Add(1), n)
	mustRun(t, env, append([]string{"import", csvOf(t, rows), "--data", data}, args...)...)
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
	other, err := backup.GenerateKey()
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
	refused("restore was interrupted", "account", "reset", "admin@demo.example")
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

	// Where each event lies: a cut log names its first events.
	var files []string
	var sizes []int64
	total := int64(0)
	for _, f := range objects(t, filepath.Join(data, "log"), 0) {
		i, err := os.Stat(f)
		require.NoError(t, err)
		files, sizes, total = append(files, f), append(sizes, i.Size()), total+i.Size()
	}
	rnd := rand.New(rand.NewPCG(7, 7))
	named, states, last, lastAt := 0, map[string]int{}, map[string]int64{}, map[string]int64{}
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
		if strings.HasSuffix(name, ".seg") {
			if v.Log.At >= 0 {
				named++
				if i > 0 && at > last[name] {
					assert.GreaterOrEqual(t, v.Log.At, lastAt[name], "a later bit names an earlier event")
				}
				last[name], lastAt[name] = at, v.Log.At
			}
			assert.True(t, v.Log.At >= 0 || v.Log.Reason != "", "%s at %d: nothing is named: %s", name, at, v.Log)
		}
		undo()
	}
	t.Logf("%d bits in %d bytes: %v; %d name an event", n, total, states, named)
	whole, err = app.Verify(ctx, conf)
	require.NoError(t, err)
	require.True(t, whole.OK(), whole.Summary())
}
