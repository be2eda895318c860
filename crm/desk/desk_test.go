package desk_test

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/driver"
	auditmem "github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/flow"
	"github.com/crmguard/crmguard/crm/form"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/crm/project"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/crm/stock"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

// office is a desk with people at it.
type office struct {
	*desk.Desk
	desk.Records
	store  crm.Store
	guard  *guard.Guard
	keeper *encrypt.Keeper
	log    *audit.Log
	now    time.Time
	mu     sync.Mutex
	teams  map[crm.ID[crm.Employee]]string

	aborted int // writes that a crash had announced and not made

	sales, other, manager, admin, finance, system guard.Caller
}

// sealer seals the openings of the log under person keys.
type sealer struct{ k *encrypt.Keeper }

func (s sealer) SealOpening(ctx context.Context, tenant string, person [16]byte, ad, plain []byte) ([]byte, error) {
	return s.k.SealFor(ctx, tenant, person, "log", ad, plain)
}

func (s sealer) OpenOpening(ctx context.Context, tenant string, person [16]byte, ad, sealed []byte) ([]byte, error) {
	b, err := s.k.OpenFor(ctx, tenant, person, "log", ad, sealed)
	if errors.Is(err, encrypt.ErrErased) {
		err = errors.Join(audit.ErrErased, err)
	}
	return b, err
}

// each runs a test on every store.
func each(t *testing.T, test func(t *testing.T, o *office)) {
	t.Run("memory", func(t *testing.T) { test(t, newOffice(t, memstore.New())) })
	t.Run("SQLite", func(t *testing.T) {
		if testing.Short() {
			t.Skip("the race detector makes SQLite very slow")
		}
		w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "crm.db"))
		require.NoError(t, err)
		t.Cleanup(func() { r.Close(); w.Close() })
		test(t, newOffice(t, openStore(t, w, r, dialect.SQLite)))
	})
	t.Run("Postgres", func(t *testing.T) {
		p := realtest.Postgres(t)
		test(t, newOffice(t, openStore(t, p.DB, p.DB, dialect.Postgres)))
	})
}

func openStore(t testing.TB, w, r *sql.DB, d dialect.Dialect) crm.Store {
	t.Helper()
	st, err := sqlstore.Open(t.Context(), w, r, d)
	require.NoError(t, err)
	return st
}

func door[P guard.Record](t testing.TB, o *office) *guard.Records[P] {
	t.Helper()
	r, err := guard.For[P](t.Context(), o.guard, nil)
	require.NoError(t, err)
	return r
}

func newOffice(t testing.TB, store crm.Store) *office {
	t.Helper()
	return newOfficeOn(t, store, keys.NewMemory(), auditmem.New(), t.TempDir())
}

// newOfficeOn is newOffice over other stores of keys and events; the KEK lies in dir.
func newOfficeOn(t testing.TB, store crm.Store, keyStore keys.Store, events driver.Store, dir string) *office {
	t.Helper()
	ctx := t.Context()
	kek, err := localkek.Open(filepath.Join(dir, "kek"), nil)
	require.NoError(t, err)
	o := &office{store: store, now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), teams: map[crm.ID[crm.Employee]]string{}}
	o.keeper, err = encrypt.NewKeeper(kek, keyStore, &encrypt.Options{Grace: -1})
	require.NoError(t, err)
	signer, err := audit.NewEd25519Signer("test/log", ed25519.NewKeyFromSeed(make([]byte, 32)))
	require.NoError(t, err)
	o.log, err = audit.Open(ctx, events, signer, &audit.Options{Sealer: sealer{o.keeper}})
	require.NoError(t, err)
	policy, err := rego.New(ctx, nil)
	require.NoError(t, err)
	o.guard, o.aborted, err = guard.New(ctx, store, o.keeper, policy, o.log, &guard.Options{Clock: o.clock})
	require.NoError(t, err)
	o.Records = desk.Records{
		Customers: door[*crm.Customer](t, o), Contacts: door[*crm.Contact](t, o), Leads: door[*crm.Lead](t, o), FollowUps: door[*crm.FollowUp](t, o),
		Quotes: door[*crm.Quote](t, o), Contracts: door[*crm.Contract](t, o), Tickets: door[*crm.Ticket](t, o), Series: door[*crm.Series](t, o),
		Pools: door[*pool.Pool](t, o), Ownerships: door[*pool.Ownership](t, o), Pipelines: door[*sales.Pipeline](t, o),
		Opportunities: door[*sales.Opportunity](t, o), Periods: door[*finance.Period](t, o), Receipts: door[*finance.Receipt](t, o),
		Movements: door[*stock.Movement](t, o), Instalments: door[*finance.Instalment](t, o), Invoices: door[*finance.Invoice](t, o),
		Expenses: door[*finance.Expense](t, o), Warehouses: door[*stock.Warehouse](t, o), Orders: door[*stock.Order](t, o), Forms: door[*form.Form](t, o),
		Flows: door[*flow.Flow](t, o), Instances: door[*flow.Instance](t, o), Tasks: door[*project.Task](t, o),
	}
	o.system = guard.Caller{Subject: authz.Subject{ID: "system", Tenant: "default", Roles: []string{"system"}, Active: true}, Environment: authz.Environment{Time: o.now}}
	o.Desk = desk.New(o.guard, o.Records, &desk.Options{
		Clock: o.clock,
		Employee: func(_ context.Context, id crm.ID[crm.Employee]) (string, bool, error) {
			team, ok := o.teams[id]
			return team, ok, nil
		},
		Program: func(string) guard.Caller { return o.system },
	})
	o.sales, o.other = o.person("sales", "/east/1/"), o.person("sales", "/east/2/")
	o.manager, o.admin, o.finance = o.person("manager", "/east/"), o.person("admin", "/hq/"), o.person("finance", "/money/")
	return o
}

func (o *office) clock() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now
}

func (o *office) pass(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now = o.now.Add(d)
}

// person makes a caller; the first ones are the same in every office.
func (o *office) person(role, team string) guard.Caller {
	id := crm.NewUUID()
	if n := len(o.teams); n < 5 {
		id = crm.UUID{6: 0x70, 8: 0x80, 15: byte(n + 1)}
	}
	o.teams[crm.ID[crm.Employee](id)] = team
	return guard.Caller{
		Subject:     authz.Subject{ID: id.String(), Tenant: "default", Roles: []string{role}, Team: team, Active: true},
		Environment: authz.Environment{Time: o.now},
	}
}

func self(c guard.Caller) crm.ID[crm.Employee] {
	id, err := crm.ParseUUID(c.Subject.ID)
	if err != nil {
		panic(err)
	}
	return crm.ID[crm.Employee](id)
}

// in is the caller as a member of a pool.
func in(c guard.Caller, p *pool.Pool) guard.Caller {
	c.Subject.Pools = []string{p.ID.String()}
	return c
}

// pool makes a pool of customers with sales and other as members and manager as admin.
func (o *office) pool(t testing.TB, change func(*pool.Pool)) *pool.Pool {
	t.Helper()
	p := &pool.Pool{
		Name: "East", RecordType: crm.TypeCustomer, Mode: pool.MembersClaim, Clocks: pool.Clocks{Protect: 10, Extend: 3, Max: 20},
		Members: []crm.ID[crm.Employee]{self(o.sales), self(o.other)}, Admins: []crm.ID[crm.Employee]{self(o.manager)},
	}
	if change != nil {
		change(p)
	}
	v, err := o.Pools.Create(t.Context(), o.admin, p)
	require.NoError(t, err)
	return v.Value
}

// customer makes one that c owns.
func (o *office) customer(t testing.TB, c guard.Caller, name string) *crm.Customer {
	t.Helper()
	v := &crm.Customer{Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Name: crm.NewText(name), Phone: crm.NewText("13800135678"), Note: crm.NewText("likes tea")}
	_, err := o.Customers.Create(t.Context(), c, v)
	require.NoError(t, err)
	return v
}

// free makes one that is free in a pool.
func (o *office) free(t testing.TB, p *pool.Pool, name string) desk.Target {
	t.Helper()
	v := o.customer(t, o.manager, name)
	target := desk.Target{Type: crm.TypeCustomer, ID: v.ID.UUID()}
	require.NoError(t, o.Enter(t.Context(), in(o.manager, p), target, p.ID))
	return target
}

func (o *office) owner(t testing.TB, target desk.Target) crm.ID[crm.Employee] {
	t.Helper()
	v, err := o.Customers.Get(t.Context(), o.system, target.ID)
	require.NoError(t, err)
	return v.Value.Owner
}

func refused(t testing.TB, err error, why pool.Reason) {
	t.Helper()
	var r *pool.Refusal
	require.ErrorAs(t, err, &r)
	assert.Equal(t, why, r.Reason)
}

func denied(t testing.TB, err error) {
	t.Helper()
	var d *authz.DeniedError
	require.ErrorAs(t, err, &d)
}

// count counts events of an action and outcome.
func (o *office) count(t testing.TB, action string, outcome audit.Outcome) (n int) {
	t.Helper()
	list, err := o.log.Query(t.Context(), audit.Filter{Action: action}, math.MaxUint64, 1000)
	require.NoError(t, err)
	for _, e := range list {
		if e.Event.Outcome == outcome {
			n++
		}
	}
	return n
}

func name(i int) string { return fmt.Sprintf("Customer %03d", i) }
