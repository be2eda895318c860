package main_test

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/privacy"
	"github.com/crmguard/crmguard/encrypt/keys"
	keystore "github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

// doomed is somebody with a customer and a contact, who has two numbers and an address.
type doomed struct {
	customer, contact, person crm.UUID
}

// crowd makes a neighbour and n people to be erased.
func crowd(t *testing.T, c app.Config, n int) []doomed {
	t.Helper()
	a, err := app.Open(t.Context(), c)
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Close()) }()
	out := make([]doomed, n+1)
	for i := range out {
		v := &crm.Customer{
			Name: crm.NewText(fmt.Sprintf("Ann Lee %d", i)), Phone: crm.NewText(fmt.Sprintf("1380013%04d", i)), Email: crm.NewText(fmt.Sprintf("ann%d@example.org", i)),
			Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Currency: "CNY", Meta: crm.Meta[crm.Customer]{Team: "/east/"},
		}
		_, err := a.Customers.Create(t.Context(), app.System("test"), v)
		require.NoError(t, err)
		k := &crm.Contact{Name: v.Name, Phone: crm.NewText(fmt.Sprintf("1390013%04d", i)), Customer: v.ID, Meta: crm.Meta[crm.Contact]{Person: v.Person, Team: "/east/"}}
		_, err = a.Contacts.Create(t.Context(), app.System("test"), k)
		require.NoError(t, err)
		out[i] = doomed{v.ID.UUID(), k.ID.UUID(), v.Person.UUID()}
	}
	return out
}

// what a crash left of somebody.
type left struct {
	states map[crm.State]int // of their sealed fields
	known  int               // of their three terms on the list
	asked  []*privacy.Erasure
	events []audit.Entry // that announced their erasure
}

func (d doomed) look(t *testing.T, c app.Config, i int) left {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	a, err := app.Open(ctx, c)
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Close()) }()
	out := left{states: map[crm.State]int{}}
	v := customerOf(t, a, d.customer)
	k, err := a.Contacts.Get(ctx, app.System("test"), d.contact)
	require.NoError(t, err)
	for _, f := range []crm.Text{v.Name, v.Phone, v.Email, k.Value.Name, k.Value.Phone} {
		out.states[f.State()]++
	}
	hits, err := a.Leads.Erased(ctx, app.System("test"), "import", []*crm.Lead{
		{Phone: crm.NewText(fmt.Sprintf("1380013%04d", i))}, {Phone: crm.NewText(fmt.Sprintf("1390013%04d", i))}, {Email: crm.NewText(fmt.Sprintf("ann%d@example.org", i))},
	}, a.Suppressions)
	require.NoError(t, err)
	for _, hit := range hits {
		if hit {
			out.known++
		}
	}
	all, err := a.Erasures.List(ctx, app.System("test"), guard.Query{Limit: 200, Sort: "created_at", Clauses: []crm.Clause{{Column: "subject", Op: crm.Equal, Values: []crm.Value{crm.StringValue(d.person.String())}}}})
	require.NoError(t, err)
	for _, v := range all.Items {
		out.asked = append(out.asked, v.Value)
	}
	found, err := a.Log.Query(ctx, audit.Filter{Action: "person.erase"}, math.MaxUint64, 10_000)
	require.NoError(t, err)
	for _, e := range found {
		for _, target := range e.Event.Targets {
			if target.ID == d.person.String() && len(e.Event.Fields) > 0 {
				out.events = append(out.events, e)
			}
		}
	}
	return out
}

// suppressions counts the marks on the list.
func suppressions(t *testing.T, c app.Config) int64 {
	t.Helper()
	a, err := app.Open(t.Context(), c)
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Close()) }()
	n, err := a.Store().Count(t.Context(), crm.Query{Tenant: app.Tenant, Type: crm.TypeSuppression, Where: crm.Everything{}, Limit: 200})
	require.NoError(t, err)
	return n
}

// graceOver puts the blocking of somebody's keys back by so much that the grace is over.
func (d doomed) graceOver(t *testing.T, c app.Config) {
	t.Helper()
	ctx := t.Context()
	var db *sql.DB
	var err error
	if c.Dialect() == dialect.SQLite {
		db, _, err = dialect.OpenSQLite(ctx, c.Data+"/crm.db")
	} else {
		db, err = sql.Open("pgx", c.DB)
	}
	require.NoError(t, err)
	defer db.Close()
	st, err := keystore.Open(ctx, db, string(c.Dialect()), nil)
	require.NoError(t, err)
	found, err := st.Find(ctx, app.Tenant, keys.Query{Persons: [][16]byte{d.person}})
	require.NoError(t, err)
	var ids []keys.ID
	for _, r := range found {
		ids = append(ids, r.ID)
	}
	require.NotEmpty(t, ids)
	require.NoError(t, st.Block(ctx, app.Tenant, ids, time.Time{}))
	require.NoError(t, st.Block(ctx, app.Tenant, ids, time.Now().UTC().Add(-100*time.Hour).Truncate(time.Second)))
}

// grows calls f each time the log of a data folder has grown, until that returns false or gone is closed.
func grows(data string, gone <-chan struct{}, f func() bool) {
	size := func() (sum int64) {
		_ = filepath.WalkDir(filepath.Join(data, "log"), func(_ string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				if info, err := d.Info(); err == nil {
					sum += info.Size()
				}
			}
			return nil
		})
		return sum
	}
	for last := size(); ; time.Sleep(100 * time.Microsecond) {
		select {
		case <-gone:
			return
		default:
		}
		if now := size(); now != last {
			if last = now; !f() {
				return
			}
		}
	}
}

// TestKillErase: kill -9 in the middle of crm erase, while it blocks the keys and while it destroys them after the grace. After each the person is whole or shut as a whole, what is on
// the list by which they are known again was announced in the log, and crm erase ends it: one request, one approval, each mark once, and the neighbour opens.
//
//crm:item 13 partly
func TestKillErase(t *testing.T) {
	long(t)
	t.Run("SQLite", func(t *testing.T) { killErase(t, nil) })
	t.Run("PostgreSQL", func(t *testing.T) {
		killErase(t, []string{"--db", realtest.Postgres(t).DSN, "--kek", "local:" + t.TempDir() + "/kek"})
	})
}

func killErase(t *testing.T, flags []string) {
	rounds := 3
	if soak {
		rounds = 20
	}
	path, err := binary()
	require.NoError(t, err)
	data := filepath.Join(t.TempDir(), "data")
	p := serve(t, data, nil, flags...) // with the employees of the demo
	p.signIn(t, "admin")
	p.stop(t)
	c := app.Config{Data: data}
	for i := 0; i < len(flags); i += 2 {
		if flags[i] == "--db" {
			c.DB = flags[i+1]
		} else {
			c.KEK = flags[i+1]
		}
	}
	all := crowd(t, c, rounds+1)
	args := func(d doomed) []string {
		return append([]string{"erase", d.customer.String(), "--data", data, "--reason", "a letter", "--approved-by", "manager@demo.example"}, flags...)
	}
	// How often the log grows while one goes on that nobody kills: the moments at which others are killed.
	growths := 0
	erasing := exec.Command(path, args(all[rounds])...)
	require.NoError(t, erasing.Start())
	gone := make(chan struct{})
	go func() { _ = erasing.Wait(); close(gone) }()
	grows(data, gone, func() bool { growths++; return true })
	require.Zero(t, erasing.ProcessState.ExitCode())
	require.Positive(t, growths)
	base := suppressions(t, c)
	require.EqualValues(t, 3, base)
	inside, asked, announced, unnoted, done, ended := 0, 0, 0, 0, 0, 0
	for i := range rounds {
		d := all[i]
		kill := func() bool {
			cmd := exec.Command(path, args(d)...)
			cmd.Env = os.Environ()
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			require.NoError(t, cmd.Start())
			gone := make(chan struct{})
			var failed error
			go func() { failed = cmd.Wait(); close(gone) }()
			at := 1 + i*growths/rounds // spread over the work
			grows(data, gone, func() bool {
				if at--; at > 0 {
					return true
				}
				time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
				_ = cmd.Process.Kill()
				return false
			})
			<-gone
			return failed != nil
		}
		before := suppressions(t, c)
		if kill() {
			inside++
		}
		after := d.look(t, c, i)
		assert.Len(t, after.states, 1, "half of them opens: %v", after.states)
		shut := after.states[crm.Clear] == 0
		switch {
		case shut && after.asked[0].State != privacy.ErasureBlocked:
			unnoted++
		case shut:
			done++
		case len(after.events) > 0:
			announced++
		case len(after.asked) > 0:
			asked++
		}
		if shut || after.known > 0 {
			assert.NotEmpty(t, after.events, "what was done was announced")
		}
		if shut {
			assert.Equal(t, 3, after.known, "who is shut is known again")
		}
		assert.LessOrEqual(t, len(after.asked), 1)
		green(t, nil, append([]string{"--data", data}, flags...)...)
		out := mustRun(t, nil, args(d)...)
		assert.Contains(t, out, "blocked: nothing of them opens from now on")
		whole := d.look(t, c, i)
		assert.Zero(t, whole.states[crm.Clear])
		assert.Equal(t, 3, whole.known)
		assert.EqualValues(t, before+3, suppressions(t, c), "a mark is there twice")
		require.Len(t, whole.asked, 1)
		e := whole.asked[0]
		assert.Equal(t, privacy.ErasureBlocked, e.State)
		assert.False(t, e.Approver.IsZero())
		require.NotEmpty(t, whole.events)
		for _, event := range whole.events {
			assert.Equal(t, e.ID.String(), event.Event.Note, "under the one request")
		}
		assert.EqualValues(t, whole.events[0].Index, e.LastEvent)

		// And the destruction.
		d.graceOver(t, c)
		if kill() {
			inside++
		}
		after = d.look(t, c, i)
		assert.Zero(t, after.states[crm.Clear], "nothing comes back")
		assert.Len(t, after.states, 1, "%v", after.states)
		if after.states[crm.Erased] > 0 {
			ended++
		}
		if out, code := run(t, nil, args(d)...); assert.Zero(t, code, out) {
			assert.True(t, strings.Contains(out, "destroyed: ") || strings.Contains(out, "there was no key of theirs left"), out)
		}
		whole = d.look(t, c, i)
		assert.Equal(t, map[crm.State]int{crm.Erased: 5}, whole.states)
		for _, e := range whole.asked {
			assert.Equal(t, privacy.ErasureDestroyed, e.State)
		}
		assert.EqualValues(t, before+3, suppressions(t, c))
	}
	neighbour := all[rounds+1].look(t, c, rounds+1)
	assert.Equal(t, map[crm.State]int{crm.Clear: 5}, neighbour.states)
	assert.Zero(t, neighbour.known)
	green(t, nil, append([]string{"--data", data}, flags...)...)
	t.Logf("%d erasures in two steps, %d processes killed before their end, at one of %d growths of the log: %d were asked for, %d announced, %d blocked and not noted, %d blocked and noted; %d were destroyed before the second was killed; "+
		"all ended by crm erase", rounds, inside, growths, asked, announced, unnoted, done, ended)
	assert.Positive(t, inside)
}
