package privacy_test

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard/audit"
	auditmem "github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/crm/privacy"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

func as(role, id string) guard.Caller {
	return guard.Caller{Subject: authz.Subject{ID: id, Tenant: "default", Roles: []string{role}, Active: true}}
}

// sealer seals the openings of the log under person keys.
type sealer struct{ k *encrypt.Keeper }

func (s sealer) SealOpening(ctx context.Context, tenant string, person [16]byte, ad, plain []byte) ([]byte, error) {
	return s.k.SealFor(ctx, tenant, person, "log", ad, plain)
}

func (s sealer) OpenOpening(ctx context.Context, tenant string, person [16]byte, ad, sealed []byte) ([]byte, error) {
	return s.k.OpenFor(ctx, tenant, person, "log", ad, sealed)
}

func program(string) guard.Caller { return as("system", "system") }

// world is a CRM with a list, at a time of its own.
type world struct {
	now    time.Time
	store  crm.Store
	keeper *encrypt.Keeper
	guard  *guard.Guard
	list   *privacy.List
}

func newWorld(t testing.TB, store crm.Store) *world {
	t.Helper()
	ctx := t.Context()
	w := &world{now: time.Date(2026, 3, 2, 9, 30, 5, 7000, time.UTC), store: store}
	kek, err := localkek.Open(filepath.Join(t.TempDir(), "kek"), nil)
	require.NoError(t, err)
	w.keeper, err = encrypt.NewKeeper(kek, keys.NewMemory(), nil)
	require.NoError(t, err)
	signer, err := audit.NewEd25519Signer("test/log", ed25519.NewKeyFromSeed(make([]byte, 32)))
	require.NoError(t, err)
	trail, err := audit.Open(ctx, auditmem.New(), signer, &audit.Options{Sealer: sealer{w.keeper}})
	require.NoError(t, err)
	t.Cleanup(func() { trail.Close() })
	policy, err := rego.New(ctx, nil)
	require.NoError(t, err)
	clock := func() time.Time { return w.now }
	w.guard, _, err = guard.New(ctx, store, w.keeper, policy, trail, &guard.Options{Clock: clock})
	require.NoError(t, err)
	w.list, err = privacy.Open(ctx, w.guard, program, &privacy.Options{Clock: clock, Keep: 400 * 24 * time.Hour})
	require.NoError(t, err)
	return w
}

func each(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("memory", func(t *testing.T) { test(t, newWorld(t, memstore.New())) })
	t.Run("SQLite", func(t *testing.T) {
		if testing.Short() {
			t.Skip("the race detector makes SQLite very slow")
		}
		w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "crm.db"))
		require.NoError(t, err)
		t.Cleanup(func() { _ = errors.Join(w.Close(), r.Close()) })
		s, err := sqlstore.Open(t.Context(), w, r, dialect.SQLite)
		require.NoError(t, err)
		test(t, newWorld(t, s))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		p := realtest.Postgres(t)
		s, err := sqlstore.Open(t.Context(), p.DB, p.DB, dialect.Postgres)
		require.NoError(t, err)
		test(t, newWorld(t, s))
	})
}

func (w *world) rows(t testing.TB, tenant string) []crm.Row {
	t.Helper()
	p, err := w.store.List(t.Context(), crm.Query{Tenant: tenant, Type: crm.TypeSuppression, Where: crm.Everything{}, Limit: 1000})
	require.NoError(t, err)
	return p.Rows
}

func marks(n int) []guard.Mark {
	out := make([]guard.Mark, n)
	for i := range out {
		out[i] = guard.Mark{byte(i >> 8), byte(i), 31: 1}
	}
	return out
}

// TestList: a mark is there once, for its time, in its tenant; an end that is near is put off by a second one; what is over is swept away.
func TestList(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		all := marks(2000) // more than a transaction, and than a question
		require.NoError(t, w.list.Suppress(ctx, "default", append(all[:950:950], all[0])))
		got, err := w.list.Suppressed(ctx, "default", all)
		require.NoError(t, err)
		for i, has := range got {
			require.Equal(t, i < 950, has, i)
		}
		got, err = w.list.Suppressed(ctx, "other", all[:1])
		require.NoError(t, err)
		assert.Equal(t, []bool{false}, got, "another tenant")
		require.NoError(t, w.list.Suppress(ctx, "other", all[:1]))
		require.Len(t, w.rows(t, "default"), 950)
		require.Len(t, w.rows(t, "other"), 1)

		w.now = w.now.Add(30 * 24 * time.Hour)
		require.NoError(t, w.list.Suppress(ctx, "default", all[:10]))
		require.Len(t, w.rows(t, "default"), 950, "asked again")
		w.now = w.now.Add(200 * 24 * time.Hour)
		require.NoError(t, w.list.Suppress(ctx, "default", all[:10]))
		require.Len(t, w.rows(t, "default"), 960, "erased once more, much later")

		w.now = w.now.Add(172 * 24 * time.Hour) // 402 days after the first
		got, err = w.list.Suppressed(ctx, "default", all[:12])
		require.NoError(t, err)
		assert.Equal(t, []bool{true, true, true, true, true, true, true, true, true, true, false, false}, got)
		n, err := w.list.Sweep(ctx, "default", 300)
		require.NoError(t, err)
		assert.Equal(t, 300, n)
		n, err = w.list.Sweep(ctx, "default", 10_000)
		require.NoError(t, err)
		assert.Equal(t, 650, n)
		require.Len(t, w.rows(t, "default"), 10)
		require.Len(t, w.rows(t, "other"), 1, "of another tenant")
		n, err = w.list.Sweep(ctx, "default", 10)
		require.NoError(t, err)
		assert.Zero(t, n)
	})
}

// TestNobodyElseWrites: no employee makes, changes or deletes a suppression, and nobody makes one by itself.
func TestNobodyElseWrites(t *testing.T) {
	w := newWorld(t, memstore.New())
	ctx := t.Context()
	r, err := guard.For[*privacy.Suppression](ctx, w.guard, nil)
	require.NoError(t, err)
	require.NoError(t, w.list.Suppress(ctx, "default", marks(1)))
	row := w.rows(t, "default")[0]
	one := func() *privacy.Suppression {
		return &privacy.Suppression{Token: strings.Repeat("ab", 32), Until: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	}
	for _, c := range []guard.Caller{program(""), as("admin", crm.NewUUID().String()), as("sales", crm.NewUUID().String())} {
		_, err := r.Create(ctx, c, one())
		require.True(t, guard.Denied(err), "%v: %v", c.Subject.Roles, err)
		_, err = r.CreateAll(ctx, c, []*privacy.Suppression{one()})
		require.True(t, guard.Denied(err), "%v: %v", c.Subject.Roles, err)
	}
	admin := as("admin", crm.NewUUID().String())
	err = r.CreateIn(ctx, w.guard.Begin(admin, "x"), one())
	require.Error(t, err, "it would have an owner")
	hidden := as("sales", "no id of an employee")
	err = r.CreateIn(ctx, w.guard.Begin(hidden, "x"), one())
	require.True(t, guard.Denied(err), "%v", err)
	err = r.Delete(ctx, admin, row.ID, 1)
	require.True(t, guard.Denied(err), "%v", err)
	v, err := r.Get(ctx, admin, row.ID)
	require.NoError(t, err)
	_, err = r.Update(ctx, program(""), v.Value)
	require.Error(t, err)
	_, err = r.Get(ctx, as("manager", crm.NewUUID().String()), row.ID)
	require.ErrorIs(t, err, crm.ErrNotFound)
}

// TestFormat: what docs/formats/suppression.md says is what is stored: the HMAC of the normaliser and the term, days, and random ids.
func TestFormat(t *testing.T) {
	w := newWorld(t, memstore.New())
	ctx := t.Context()
	leads, err := guard.For[*crm.Lead](ctx, w.guard, nil)
	require.NoError(t, err)
	admin := as("admin", crm.NewUUID().String())
	v := &crm.Lead{Name: crm.NewText("Ann Lee"), Phone: crm.NewText("138 0013 5678"), State: crm.LeadNew}
	_, err = leads.Create(ctx, admin, v)
	require.NoError(t, err)
	admin.Reason, admin.Met = "they asked", []authz.Obligation{authz.NeedSecond}
	_, err = w.guard.Erase(ctx, admin, v.Person.UUID(), &guard.EraseOptions{List: w.list})
	require.NoError(t, err)
	rows := w.rows(t, "default")
	require.Len(t, rows, 1)
	row := rows[0]
	mac, err := w.keeper.MAC(ctx, "default", "suppress", []byte("phone/1\x00+8613800135678"))
	require.NoError(t, err)
	s, err := guard.Schema[*privacy.Suppression](nil)
	require.NoError(t, err)
	got := map[string]any{}
	for i, c := range s.Columns {
		got[c.Name] = row.Clear[i].Any()
	}
	today := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	assert.Equal(t, hex.EncodeToString(mac), got["token"])
	assert.Equal(t, today.AddDate(0, 0, 401), got["until"])
	assert.Equal(t, today, got["created_at"])
	assert.Equal(t, today, got["updated_at"])
	assert.Equal(t, "", fmt.Sprint(got["team"]))
	assert.NotContains(t, fmt.Sprint(got), admin.Subject.ID)
	assert.Empty(t, row.Sealed)
	assert.EqualValues(t, 0x40, row.ID[6]&0xf0)
	require.Len(t, row.Persons, 1)
	assert.EqualValues(t, 0x40, row.Persons[0][6]&0xf0)
	assert.NotEqual(t, v.Person.UUID(), row.Persons[0])
}

// FuzzSuppression: whatever a token is, it is valid or refused by name, and what is valid has the form of a mark.
func FuzzSuppression(f *testing.F) {
	f.Add(strings.Repeat("0f", 32), int64(1_893_456_000))
	f.Add(strings.Repeat("0F", 32), int64(1_893_456_000))
	f.Add("", int64(0))
	f.Add(strings.Repeat("zz", 32), int64(1))
	f.Fuzz(func(t *testing.T, token string, until int64) {
		s := &privacy.Suppression{Token: token, Until: time.Unix(until, 0).UTC()}
		err := s.Validate()
		var invalid *crm.InvalidError
		if err != nil {
			require.ErrorAs(t, err, &invalid)
			if len(token) > 8 {
				require.NotContains(t, err.Error(), token)
			}
			return
		}
		require.Len(t, token, 64)
		require.Equal(t, strings.ToLower(token), token)
		require.Zero(t, until%86400)
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// A customer is erased, and known again when somebody brings them back as a lead, with the number written in another way.
func Example() {
	ctx := context.Background()
	kek := must(localkek.Open(must(os.MkdirTemp("", ""))+"/kek", nil))
	keeper := must(encrypt.NewKeeper(kek, keys.NewMemory(), nil))
	signer := must(audit.NewEd25519Signer("example.com/log", ed25519.NewKeyFromSeed(make([]byte, 32))))
	trail := must(audit.Open(ctx, auditmem.New(), signer, &audit.Options{Sealer: sealer{keeper}}))
	g, _, err := guard.New(ctx, memstore.New(), keeper, must(rego.New(ctx, nil)), trail, nil)
	if err != nil {
		log.Fatal(err)
	}
	customers, leads := must(guard.For[*crm.Customer](ctx, g, nil)), must(guard.For[*crm.Lead](ctx, g, nil))
	list := must(privacy.Open(ctx, g, program, nil))

	admin := as("admin", crm.NewUUID().String())
	v := must(customers.Create(ctx, admin, &crm.Customer{
		Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Name: crm.NewText("Ann Lee"), Phone: crm.NewText("138 0013 5678"),
	}))
	admin.Reason, admin.Met = "they asked us to", []authz.Obligation{authz.NeedSecond}
	erasure := must(g.Erase(ctx, admin, v.Value.Person.UUID(), &guard.EraseOptions{List: list}))
	fmt.Println(erasure.Records, erasure.Marks, erasure.Due.Sub(erasure.At))
	fmt.Println(must(customers.Get(ctx, admin, v.Value.ID.UUID())).Value.Phone.State())

	check := privacy.NewChecker(leads, list)
	fmt.Println(check.Erased(ctx, admin, authz.Import, []*crm.Lead{
		{Name: crm.NewText("A. Lee"), Phone: crm.NewText("+86 138-0013-5678")},
		{Name: crm.NewText("Ann Lee"), Phone: crm.NewText("139 0013 5678")},
	}))
	// Output:
	// 1 1 72h0m0s
	// sealed
	// [true false] <nil>
}
