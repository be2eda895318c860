package transfer_test

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/driver"
	auditmem "github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

// rig is a CRM that files are imported into.
type rig struct {
	store  crm.Store
	guard  *guard.Guard
	keeper *encrypt.Keeper
	log    *audit.Log
	doors  transfer.Doors
	mu     sync.Mutex
	now    time.Time

	aborted int

	customers     *guard.Records[*crm.Customer]
	leads         *guard.Records[*crm.Lead]
	contacts      *guard.Records[*crm.Contact]
	employees     *guard.Records[*crm.Employee]
	products      *guard.Records[*sales.Product]
	pipelines     *guard.Records[*sales.Pipeline]
	opportunities *guard.Records[*sales.Opportunity]

	admin, manager, sales, system guard.Caller
}

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

func newRig(t testing.TB) *rig {
	return newRigOn(t, memstore.New(), keys.NewMemory(), auditmem.New(), t.TempDir())
}

// each runs a test on every store.
func each(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Run("memory", func(t *testing.T) { test(t, newRig(t)) })
	t.Run("SQLite", func(t *testing.T) {
		if testing.Short() {
			t.Skip("the race detector makes SQLite very slow")
		}
		w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "crm.db"))
		require.NoError(t, err)
		t.Cleanup(func() { r.Close(); w.Close() })
		test(t, newRigOn(t, sqlStore(t, w, r, dialect.SQLite), keys.NewMemory(), auditmem.New(), t.TempDir()))
	})
	t.Run("Postgres", func(t *testing.T) {
		p := realtest.Postgres(t)
		test(t, newRigOn(t, sqlStore(t, p.DB, p.DB, dialect.Postgres), keys.NewMemory(), auditmem.New(), t.TempDir()))
	})
}

func sqlStore(t testing.TB, w, r *sql.DB, d dialect.Dialect) crm.Store {
	t.Helper()
	st, err := sqlstore.Open(t.Context(), w, r, d)
	require.NoError(t, err)
	return st
}

func door[P guard.Record](t testing.TB, r *rig) *guard.Records[P] {
	t.Helper()
	d, err := guard.For[P](t.Context(), r.guard, nil)
	require.NoError(t, err)
	return d
}

func newRigOn(t testing.TB, store crm.Store, keyStore keys.Store, events driver.Store, dir string) *rig {
	t.Helper()
	ctx := t.Context()
	kek, err := localkek.Open(filepath.Join(dir, "kek"), nil)
	require.NoError(t, err)
	r := &rig{store: store, now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)}
	r.keeper, err = encrypt.NewKeeper(kek, keyStore, &encrypt.Options{Grace: -1})
	require.NoError(t, err)
	signer, err := audit.NewEd25519Signer("test/log", ed25519.NewKeyFromSeed(make([]byte, 32)))
	require.NoError(t, err)
	r.log, err = audit.Open(ctx, events, signer, &audit.Options{Sealer: sealer{r.keeper}})
	require.NoError(t, err)
	t.Cleanup(func() { r.log.Close() })
	policy, err := rego.New(ctx, nil)
	require.NoError(t, err)
	r.guard, r.aborted, err = guard.New(ctx, store, r.keeper, policy, r.log, &guard.Options{Clock: r.clock})
	require.NoError(t, err)
	r.customers, r.leads, r.contacts, r.employees = door[*crm.Customer](t, r), door[*crm.Lead](t, r), door[*crm.Contact](t, r), door[*crm.Employee](t, r)
	r.products, r.pipelines, r.opportunities = door[*sales.Product](t, r), door[*sales.Pipeline](t, r), door[*sales.Opportunity](t, r)
	r.doors, err = transfer.OpenDoors(ctx, r.guard)
	require.NoError(t, err)
	r.admin, r.manager, r.sales = r.person(1, "admin", "/hq/"), r.person(2, "manager", "/east/"), r.person(3, "sales", "/east/1/")
	r.system = r.person(0, "system", "")
	r.system.Subject.ID = "system"
	return r
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func (r *rig) person(n byte, role, team string) guard.Caller {
	id := crm.UUID{6: 0x70, 8: 0x80, 15: n}
	return guard.Caller{
		Subject:     authz.Subject{ID: id.String(), Tenant: "default", Roles: []string{role}, Team: team, Active: true},
		Environment: authz.Environment{Time: r.now},
	}
}

func (r *rig) importer(o *transfer.Options[*crm.Customer]) *transfer.Importer[*crm.Customer] {
	if o == nil {
		o = &transfer.Options[*crm.Customer]{}
	}
	o.Clock = r.clock
	return transfer.NewImporter(r.doors, r.customers, transfer.Customers(transfer.Others{}), o)
}

func csv(t testing.TB, text string) transfer.Source {
	t.Helper()
	src, err := transfer.CSV(strings.NewReader(text), nil)
	require.NoError(t, err)
	return src
}

// suggested is the mapping that is proposed for the header of a text.
func suggested(t testing.TB, text string) transfer.Mapping {
	src := csv(t, text)
	var samples [][]string
	for row, err := range src.Rows() {
		if err == nil {
			samples = append(samples, row.Cells)
		}
	}
	return transfer.Suggest(transfer.Customers(transfer.Others{}).Fields, src.Header(), samples)
}

func (r *rig) count(t testing.TB, c guard.Caller) int64 {
	t.Helper()
	n, err := r.customers.Count(t.Context(), c, guard.Query{})
	require.NoError(t, err)
	return n
}

// all returns the customers that the administrator lists, by external id.
func (r *rig) all(t testing.TB) map[string]crm.Customer {
	t.Helper()
	out := map[string]crm.Customer{}
	q := guard.Query{Limit: 200}
	for {
		p, err := r.customers.List(t.Context(), r.system, q)
		require.NoError(t, err)
		for _, v := range p.Items {
			out[v.Value.ExternalID] = *v.Value
		}
		if q.After = p.Next; p.Next == "" {
			return out
		}
	}
}
