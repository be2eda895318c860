package main_test

import (
	"bufio"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/realtest"
)

var openedDetails = regexp.MustCompile(`"opened": (\d+)`)

// drop removes the database of a data folder.
func drop(t testing.TB, data string) {
	t.Helper()
	for _, name := range []string{"crm.db", "crm.db-wal", "crm.db-shm"} {
		if err := os.Remove(filepath.Join(data, name)); err != nil {
			require.ErrorIs(t, err, os.ErrNotExist)
		}
	}
}

// readable reads every customer, and finds some, as an administrator.
func readable(t testing.TB, data string, rows []somebody, binned int) (ids map[string]string) {
	t.Helper()
	p := serve(t, data, nil)
	defer p.stop(t)
	c := p.signIn(t, "admin")
	all := walk(t, c, "/api/v1/customers?limit=200")
	require.Len(t, all, len(rows)-binned)
	ids = map[string]string{}
	for _, r := range all {
		require.Equal(t, "clear", r.Fields["name"].State)
		ids[r.Fields["name"].Value.(string)] = r.ID
	}
	for i := 7; i < len(rows); i += len(rows) / 10 {
		id := ids[rows[i].company]
		require.NotEmpty(t, id, "row %d", i)
		f := one(t, c.get(t, "/api/v1/customers/"+id)).Fields
		for name, want := range map[string]string{"name": rows[i].company, "contact": rows[i].contact(), "phone": rows[i].phone, "email": rows[i].email} {
			assert.Equal(t, want, f[name].Value, "row %d, %s", i, name)
		}
		found := items(t, c.postJSON(t, "/api/v1/customers/search", `{"term":`+strconv.Quote(rows[i].email)+`}`))
		require.Len(t, found, 1, "row %d", i)
		assert.Equal(t, id, found[0].ID)
		require.Equal(t, http.StatusOK, c.get(t, "/customers/"+id).status, "its page, with the log of it")
	}
	assert.Contains(t, c.get(t, "/backups").body, "Generation of the keys")
	return ids
}

// TestRotateAll replaces all keys of a filled CRM: everything opens, and nothing of it by old keys.
//
//crm:item 20
func TestRotateAll(t *testing.T) {
	data, rows := filled(t, 2000, nil)
	ids := readable(t, data, rows, 0)
	p := serve(t, data, nil)
	c := p.signIn(t, "admin")
	r := c.postJSON(t, "/api/v1/customers/"+ids[rows[7].company]+"/reveal", `{"field":"phone","reason":"before the rotation"}`)
	require.Equal(t, http.StatusOK, r.status, r.body)
	require.Equal(t, http.StatusOK, c.post(t, "/customers/"+ids[rows[0].company]+"/delete", url.Values{"version": {"1"}}).status)
	p.stop(t)
	before := green(t, nil, "--data", data)
	require.Equal(t, "1", openedDetails.FindStringSubmatch(before.text)[1])
	snapshot := snapshotLine.FindStringSubmatch(mustRun(t, nil, "backup", "--data", data))[1]
	old := copied(t, data)

	began := time.Now()
	out := mustRun(t, nil, "rotate", "--all", "--data", data)
	t.Logf("%d customers in %.1f s", len(rows), time.Since(began).Seconds())
	for _, line := range []string{"customer 500 of 2,000", "customer 2,000 of 2,000", "account 1 of 1", "reason in the log 1", "old key ended", "every record is sealed under new keys"} {
		assert.Contains(t, out, line)
	}
	after := green(t, nil, "--data", data)
	assert.Equal(t, before.Rows.Rows, after.Rows.Rows)
	assert.NotEqual(t, before.Rows.Digest, after.Rows.Digest)
	assert.Equal(t, "1", openedDetails.FindStringSubmatch(after.text)[1], "the reason in the log opens")
	readable(t, data, rows, 1)

	t.Run("the old keys", func(t *testing.T) {
		stolen := copied(t, data)
		db := sqlite(t, stolen)
		_, err := db.Exec(`ATTACH ? AS old`, filepath.Join(old, "crm.db"))
		require.NoError(t, err)
		_, err = db.Exec(`DELETE FROM encrypt_key; INSERT INTO encrypt_key SELECT * FROM old.encrypt_key`)
		require.NoError(t, err)
		require.NoError(t, db.Close())
		said, code := run(t, nil, "verify", "--data", stolen)
		assert.Equal(t, 1, code)
		assert.Contains(t, said, "key retired", "the KEK has ended the version above them")
		// Even beside an old copy of the KEK.
		b, err := os.ReadFile(filepath.Join(old, "kek.local"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(stolen, "kek.local"), b, 0o600))
		v, code := verify(t, nil, "--data", stolen)
		assert.Equal(t, 1, code)
		if v.Log.OK { // else the openings of the log did not open either
			assert.Len(t, v.Rows.Findings, len(rows)+3, "the customers, the import that brought them, the employee and the account")
		}
		for _, f := range v.Rows.Findings {
			assert.Equal(t, "keyless", f.Problem)
		}
	})
	t.Run("the backup that it wrote", func(t *testing.T) {
		drop(t, data)
		mustRun(t, nil, "restore", "--data", data)
		restored := green(t, nil, "--data", data)
		assert.Equal(t, after.Rows.Digest, restored.Rows.Digest)
		readable(t, data, rows, 1)
		drop(t, data)
		said, code := run(t, nil, "restore", snapshot, "--data", data)
		assert.Equal(t, 1, code)
		assert.Contains(t, said, "from before rotate --all")
		mustRun(t, nil, "restore", "--data", data)
		assert.Equal(t, after.Rows.Digest, green(t, nil, "--data", data).Rows.Digest, "a refused restore has left nothing")
	})
}

// TestRotateBackups: after a rotation older snapshots open, because the keys beside them were written anew.
func TestRotateBackups(t *testing.T) {
	data, rows := filled(t, 100, nil)
	snapshot := snapshotLine.FindStringSubmatch(mustRun(t, nil, "backup", "--data", data))[1]
	before := green(t, nil, "--data", data)
	mustRun(t, nil, "rotate", "--data", data)
	drop(t, data)
	mustRun(t, nil, "restore", snapshot, "--data", data)
	assert.Equal(t, before.Rows.Digest, green(t, nil, "--data", data).Rows.Digest)
	readable(t, data, rows, 0)
}

// TestKillRotateAll: kill -9 at any moment of a rotation costs nothing; the next one goes on.
func TestKillRotateAll(t *testing.T) {
	long(t)
	path, err := binary()
	require.NoError(t, err)
	base, rows := filled(t, 1000, nil)
	before := green(t, nil, "--data", base).Rows.Rows
	for i := range kills() {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			data := copied(t, base)
			killed := 0
			for range 4 {
				cmd := exec.Command(path, "rotate", "--all", "--data", data)
				cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
				progress, err := cmd.StderrPipe()
				require.NoError(t, err)
				require.NoError(t, cmd.Start())
				after, wait := rand.IntN(20), time.Duration(rand.IntN(100))*time.Millisecond
				lines := bufio.NewScanner(progress)
				for n := 0; lines.Scan(); n++ {
					if n == after {
						time.AfterFunc(wait, func() { _ = cmd.Process.Kill() })
					}
				}
				if cmd.Wait() != nil {
					killed++
				}
			}
			said := mustRun(t, nil, "rotate", "--all", "--data", data)
			assert.Equal(t, before, green(t, nil, "--data", data).Rows.Rows)
			readable(t, data, rows, 0)
			t.Logf("killed %d times; %s", killed, announced(said))
		})
	}
}

// TestRotateForged: a forged record is named, all others are resealed, and no old key ends.
func TestRotateForged(t *testing.T) {
	data, _ := filled(t, 30, nil)
	db := sqlite(t, data)
	var city string
	require.NoError(t, db.QueryRow(`SELECT c_city FROM crm_rows_customer WHERE row_id = (SELECT max(row_id) FROM crm_rows_customer)`).Scan(&city))
	forge := func(city string) {
		exec1(t, db, `UPDATE crm_rows_customer SET c_city = ? WHERE row_id = (SELECT max(row_id) FROM crm_rows_customer)`, city)
	}
	forge("Bonn")
	out, code := run(t, nil, "rotate", "--all", "--data", data)
	assert.Equal(t, 1, code, out)
	assert.Contains(t, out, "the old ones are not ended")
	assert.Regexp(t, `row does not authenticate: customer [0-9a-f-]{36}`, out)
	v, _ := verify(t, nil, "--data", data)
	assert.Len(t, v.Rows.Findings, 1, v.text)
	forge(city)
	mustRun(t, nil, "rotate", "--all", "--data", data)
	green(t, nil, "--data", data)
}

// TestRotateRefusedByVault: a policy that does not let the old versions end is said by name.
func TestRotateRefusedByVault(t *testing.T) {
	v := realtest.Vault(t)
	v.Key("crm")
	login := func(name string, paths ...string) []string {
		policy := `path "transit/encrypt/crm" { capabilities = ["update"] }
path "transit/decrypt/crm" { capabilities = ["update"] }
path "transit/keys/crm" { capabilities = ["read"] }
`
		for _, path := range paths {
			policy += `path "transit/keys/crm/` + path + `" { capabilities = ["update"] }` + "\n"
		}
		role, secret := v.AppRole(name, policy, "10m")
		return []string{"VAULT_ADDR=" + v.Addr, "VAULT_TOKEN=", "VAULT_ROLE_ID=" + role, "VAULT_SECRET_ID=" + secret}
	}
	serving, rotating := login("serving"), login("rotating", "rotate", "config", "trim")
	data, _ := filled(t, 20, serving, "--kek", "vault:crm")
	with := func(args ...string) []string { return append(args, "--data", data, "--kek", "vault:crm") }
	for name, c := range map[string]struct {
		env  []string
		says string
	}{
		"no rotation": {serving, "new version of the KEK"},
		"no config":   {login("config", "rotate"), "rewrapped, but the old versions of the KEK are not ended"},
		"no trim":     {login("trim", "rotate", "config"), "rewrapped, but the old versions of the KEK are not ended"},
	} {
		out, code := run(t, c.env, with("rotate")...)
		assert.Equal(t, 1, code, name)
		assert.Contains(t, out, c.says, name)
		assert.Contains(t, out, "does the policy of the login allow", name)
		green(t, serving, with()...)
	}
	mustRun(t, rotating, with("rotate")...)
	mustRun(t, rotating, with("rotate", "--all")...)
	green(t, serving, with()...)
}

// TestRotateAllInstances: two instances share a database. The first one may not end the keys that the log of
// the other needs; meanwhile the other one serves.
func TestRotateAllInstances(t *testing.T) {
	flags := []string{"--db", realtest.Postgres(t).DSN, "--kek", "local:" + filepath.Join(t.TempDir(), "kek")}
	first, rows := filled(t, 200, nil, flags...)
	second := filepath.Join(t.TempDir(), "second")
	with := func(data, instance string, args ...string) []string {
		return append(append(args, "--data", data, "--instance", instance), flags...)
	}
	p := serve(t, second, nil, append(flags, "--instance", "second")...)
	c := p.signIn(t, "admin")
	found := items(t, c.postJSON(t, "/api/v1/customers/search", `{"term":`+strconv.Quote(rows[7].email)+`}`))
	require.Len(t, found, 1)
	r := c.postJSON(t, "/api/v1/customers/"+found[0].ID+"/reveal", `{"field":"phone","reason":"before the rotation"}`)
	require.Equal(t, http.StatusOK, r.status, r.body)
	stop := make(chan struct{})
	failed := make(chan string, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.base+"/api/v1/customers?limit=50", nil)
			if err != nil {
				failed <- err.Error()
				return
			}
			r, err := c.Do(req)
			if err != nil || r.StatusCode != http.StatusOK {
				failed <- "a page of customers was not served"
				return
			}
			r.Body.Close()
		}
	}()
	out, code := run(t, nil, with(first, "main", "rotate", "--all")...)
	assert.Equal(t, 1, code)
	assert.Contains(t, out, "the logs of other instances (second) need them")
	close(stop)
	assert.Empty(t, <-failed)
	p.stop(t)
	for _, i := range []string{first + " main", second + " second"} {
		data, instance, _ := strings.Cut(i, " ")
		green(t, nil, with(data, instance)...)
	}
	mustRun(t, nil, with(second, "second", "rotate", "--all")...)
	mustRun(t, nil, with(first, "main", "rotate", "--all")...)
	v := green(t, nil, with(second, "second")...)
	assert.Equal(t, "1", openedDetails.FindStringSubmatch(v.text)[1], "the reason in the log of the second opens")
	green(t, nil, with(first, "main")...)
	p = serve(t, second, nil, append(flags, "--instance", "second")...)
	assert.Len(t, walk(t, p.signIn(t, "admin"), "/api/v1/customers?limit=200"), len(rows))
	p.stop(t)
}
