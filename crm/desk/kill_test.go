package desk_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/crm/trash"
	keystore "github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
)

const kitty = 24 // records that change hands

// onDisk opens an office whose records, keys and log lie in a folder.
func onDisk(t testing.TB, dir string) *office {
	t.Helper()
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(dir, "crm.db"))
	require.NoError(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	keyStore, err := keystore.Open(t.Context(), w, "sqlite", &keystore.Options{Reads: r})
	require.NoError(t, err)
	events, err := filestore.Open(filepath.Join(dir, "log"), nil)
	require.NoError(t, err)
	o := newOfficeOn(t, openStore(t, w, r, dialect.SQLite), keyStore, events, dir)
	t.Cleanup(func() { o.log.Close() })
	return o
}

func (o *office) theirPool(t testing.TB) *pool.Pool {
	t.Helper()
	page, err := o.Pools.List(t.Context(), o.system, guard.Query{})
	require.NoError(t, err)
	require.Len(t, page.Items, 1)
	return page.Items[0].Value
}

// everybody lists the customers of the pool and of the people.
func (o *office) everybody(t testing.TB, bin bool) (list []guard.View[*crm.Customer]) {
	t.Helper()
	page, err := o.Customers.List(t.Context(), o.system, guard.Query{Limit: 200, Bin: bin})
	require.NoError(t, err)
	return page.Items
}

// TestKilledWorker is the process that TestKill kills: it lets records change hands, deletes some and purges them, until it is dead.
func TestKilledWorker(t *testing.T) {
	dir := os.Getenv("CRMGUARD_DESK_DIR")
	if dir == "" {
		t.Skip("it is run by TestKill")
	}
	o := onDisk(t, dir)
	p := o.theirPool(t)
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	fmt.Println("ready")
	for {
		ctx := t.Context()
		o.pass(time.Minute)
		all := o.everybody(t, false)
		v := all[r.IntN(len(all))].Value
		target := desk.Target{Type: crm.TypeCustomer, ID: v.ID.UUID()}
		who := []guard.Caller{o.sales, o.other}[r.IntN(2)]
		var err error
		switch r.IntN(6) {
		case 0, 1:
			err = o.Claim(ctx, in(who, p), target)
		case 2:
			err = o.Release(ctx, who, target)
		case 3:
			err = o.Handover(ctx, in(o.manager, p), target, self(who))
		case 4:
			_, err = o.Desk.Delete(ctx, o.admin, trash.Ref{Type: crm.TypeCustomer, ID: target.ID}, v.Version)
		default:
			o.pass(40 * 24 * time.Hour)
			_, err = o.Purge(ctx, o.system, 3)
			if err == nil && len(all) < kitty { // fresh ones for those that went
				o.free(t, p, "Fresh")
			}
		}
		var refused *pool.Refusal
		if err != nil && !errors.As(err, &refused) && !guard.Denied(err) && !errors.Is(err, crm.ErrNotFound) {
			t.Fatal(err)
		}
	}
}

// TestKill kills a process with -9 in the middle of claims, handovers, deletions and purges: each time the rows are as the log says, every
// record belongs to whom its history says, and nothing is half purged.
func TestKill(t *testing.T) {
	kills := 4
	if os.Getenv("CRMGUARD_SOAK") != "" {
		kills = 60
	}
	if testing.Short() {
		kills = 2
	}
	dir := t.TempDir()
	t.Run("begin", func(t *testing.T) {
		o := onDisk(t, dir)
		p := o.pool(t, func(p *pool.Pool) { p.HoldCap = 4 })
		for i := range kitty {
			o.free(t, p, name(i))
		}
	})
	aborted, changes := 0, int64(0)
	for n := range kills {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledWorker$", "-test.timeout=5m")
		cmd.Env = append(os.Environ(), "CRMGUARD_DESK_DIR="+dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = out.Read(make([]byte, 5))
		require.NoError(t, err)
		time.Sleep(time.Duration(100+rand.IntN(900)) * time.Millisecond)
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		t.Run(name(n), func(t *testing.T) {
			o := onDisk(t, dir)
			aborted += o.aborted
			changes = o.sound(t)
		})
	}
	t.Logf("%d kills, %d changes of owner, %d writes announced and not made", kills, changes, aborted)
	require.NotZero(t, changes)
}

// sound checks everything after a kill.
func (o *office) sound(t testing.TB) (changes int64) {
	t.Helper()
	ctx := t.Context()
	// Each record is whose its newest change of owner says.
	last := map[crm.UUID]pool.Ownership{}
	q := guard.Query{Limit: 200} // in the order in which they were made
	for {
		page, err := o.Ownerships.List(ctx, o.system, q)
		require.NoError(t, err)
		for _, v := range page.Items {
			changes++
			if was, ok := last[v.Value.Record]; ok {
				require.Equal(t, was.To, v.Value.From, "the history is a chain")
			}
			last[v.Value.Record] = *v.Value
		}
		if q.After = page.Next; page.Next == "" {
			break
		}
	}
	for _, bin := range []bool{false, true} {
		for _, v := range o.everybody(t, bin) {
			if change, ok := last[v.Value.ID.UUID()]; ok { // one that was just made has none yet
				require.Equal(t, change.To, v.Value.Owner)
			}
			require.Equal(t, crm.Clear, v.Value.Name.State(), "its keys are there")
		}
	}
	a, err := guard.Schema[*crm.Customer](nil)
	require.NoError(t, err)
	b, err := guard.Schema[*pool.Ownership](nil)
	require.NoError(t, err)
	check := guard.NewCheck("default", a, b)
	for e, err := range o.log.Events(ctx, 0) {
		require.NoError(t, err)
		check.Event(e)
	}
	rep, err := check.Rows(ctx, o.store, o.keeper)
	require.NoError(t, err)
	assert.Empty(t, rep.Findings)
	return changes
}
