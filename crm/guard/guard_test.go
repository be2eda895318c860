package guard_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	auditmem "github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/encrypt/normalize"
)

// store is a memstore whose answers a test can bend, as somebody who writes past the guard would.
type store struct {
	crm.Store
	bend  func(rows []crm.Row)
	wide  bool // lists are not limited
	apply func(b crm.Batch) error
}

func (s *store) Load(ctx context.Context, tenant, typ string, ids []crm.UUID) ([]crm.Row, error) {
	rows, err := s.Store.Load(ctx, tenant, typ, ids)
	if s.bend != nil {
		s.bend(rows)
	}
	return rows, err
}

func (s *store) List(ctx context.Context, q crm.Query) (crm.Page, error) {
	if s.wide {
		q.Where = crm.Everything{}
	}
	p, err := s.Store.List(ctx, q)
	if s.bend != nil {
		s.bend(p.Rows)
	}
	return p, err
}

func (s *store) Apply(ctx context.Context, b crm.Batch) (int64, error) {
	if s.apply != nil {
		if err := s.apply(b); err != nil {
			return 0, err
		}
	}
	return s.Store.Apply(ctx, b)
}

// flakyLog is a Log that can be told to fail.
type flakyLog struct {
	*audit.Log
	fail error
}

func (l *flakyLog) Append(ctx context.Context, e audit.Event) (audit.Receipt, error) {
	if l.fail != nil {
		return audit.Receipt{}, l.fail
	}
	return l.Log.Append(ctx, e)
}

// rig is everything in memory but the KEK, which is a file.
type rig struct {
	store     *store
	log       *flakyLog
	keeper    *encrypt.Keeper
	policy    authz.Authorizer
	guard     *guard.Guard
	customers *guard.Records[*crm.Customer]
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

func newRig(t testing.TB) *rig {
	t.Helper()
	return newRigOn(t, memstore.New(), keys.NewMemory(), nil)
}

// newRigOn is newRig over these stores.
func newRigOn(t testing.TB, rows crm.Store, keyStore keys.Store, opts *encrypt.Options) *rig {
	t.Helper()
	ctx := t.Context()
	kek, err := localkek.Open(filepath.Join(t.TempDir(), "kek"), nil)
	require.NoError(t, err)
	r := &rig{store: &store{Store: rows}}
	r.keeper, err = encrypt.NewKeeper(kek, keyStore, opts)
	require.NoError(t, err)
	signer, err := audit.NewEd25519Signer("test/log", ed25519.NewKeyFromSeed(make([]byte, 32)))
	require.NoError(t, err)
	log, err := audit.Open(ctx, auditmem.New(), signer, &audit.Options{Sealer: sealer{r.keeper}})
	require.NoError(t, err)
	r.log = &flakyLog{Log: log}
	r.policy, err = rego.New(ctx, nil)
	require.NoError(t, err)
	r.guard, _, err = guard.New(ctx, r.store, r.keeper, r.policy, r.log, nil)
	require.NoError(t, err)
	r.customers, err = guard.For[*crm.Customer](ctx, r.guard, &guard.TypeOptions{Type: crm.TypeCustomer})
	require.NoError(t, err)
	return r
}

var (
	lin = crm.NewUUID()
	wu  = crm.NewUUID()
)

func as(role, id, team string) guard.Caller {
	return guard.Caller{Subject: authz.Subject{
		ID: id, Tenant: "default", Roles: []string{role}, Team: team, Session: "s1", Active: true,
	}}
}

var (
	sales   = as("sales", lin.String(), "/east/1/")
	other   = as("sales", wu.String(), "/west/")
	manager = as("manager", crm.NewUUID().String(), "/east/")
	admin   = as("admin", crm.NewUUID().String(), "")
	auditor = as("auditor", crm.NewUUID().String(), "")
	support = as("support", crm.NewUUID().String(), "")
)

func because(c guard.Caller, reason string) guard.Caller {
	c.Reason = reason
	return c
}

func customer(name, phone, email string) *crm.Customer {
	return &crm.Customer{
		Kind: crm.CompanyCustomer, Stage: crm.CustomerNew,
		Name: crm.NewText(name), Contact: crm.NewText("张伟"), Phone: crm.NewText(phone), Email: crm.NewText(email),
	}
}

func (r *rig) add(t testing.TB, c guard.Caller, name, phone, email string) guard.View[*crm.Customer] {
	t.Helper()
	v, err := r.customers.Create(t.Context(), c, customer(name, phone, email))
	require.NoError(t, err)
	return v
}

func (r *rig) last(t testing.TB) audit.Event {
	t.Helper()
	es, err := r.log.Query(t.Context(), audit.Filter{}, math.MaxUint64, 1)
	require.NoError(t, err)
	require.Len(t, es, 1)
	return es[0].Event
}

// TestFieldsFollowThePolicy: the same field of one record is open, masked or hidden by who asks.
//
//crm:item 23
func TestFieldsFollowThePolicy(t *testing.T) {
	r := newRig(t)
	v := r.add(t, sales, "华东精密仪器有限公司", "13800135678", "z@example.com")
	assert.Equal(t, "华东精密仪器有限公司", v.Value.Name.Expose())
	assert.Equal(t, crm.Masked, v.Value.Phone.State())
	assert.NotContains(t, v.Value.Phone.Expose(), "0013")
	assert.Equal(t, crm.Hidden, v.Value.IDNumber.State())
	assert.Equal(t, int64(1), v.Value.Version)
	assert.Contains(t, v.Controls, "rbac.own")

	m, err := r.customers.Get(t.Context(), manager, v.Value.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, "13800135678", m.Value.Phone.Expose())
	assert.Equal(t, crm.Clear, m.Value.Phone.State())

	a, err := r.customers.Get(t.Context(), auditor, v.Value.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, crm.Hidden, a.Value.Name.State())
	assert.Empty(t, a.Value.Name.Expose())
	assert.Equal(t, crm.CustomerNew, a.Value.Stage)

	e := r.last(t)
	assert.Equal(t, "customer.read", e.Action)
	assert.Equal(t, v.Value.ID.String(), e.Targets[0].ID)
}

func TestAnotherRecordDoesNotExist(t *testing.T) {
	r := newRig(t)
	v := r.add(t, sales, "A", "13800135678", "a@example.com")
	id := v.Value.ID.UUID()
	_, err := r.customers.Get(t.Context(), other, id)
	require.Equal(t, crm.ErrNotFound, err)
	assert.Equal(t, audit.Denied, r.last(t).Outcome)
	_, missing := r.customers.Get(t.Context(), other, crm.NewUUID())
	require.Equal(t, err, missing, "a forbidden and a missing record look the same")
	stranger := admin
	stranger.Subject.Tenant = "elsewhere"
	_, err = r.customers.Get(t.Context(), stranger, id)
	require.Equal(t, crm.ErrNotFound, err)
	gone := sales
	gone.Subject.Active = false
	_, err = r.customers.Get(t.Context(), gone, id)
	require.Equal(t, crm.ErrNotFound, err)
	w := *v.Value
	w.City = "x"
	_, err = r.customers.Update(t.Context(), other, &w)
	require.Equal(t, crm.ErrNotFound, err)
	require.Equal(t, crm.ErrNotFound, r.customers.Delete(t.Context(), other, id, 1))
	_, err = r.customers.Reveal(t.Context(), because(other, "why"), id, "phone")
	require.Equal(t, crm.ErrNotFound, err)
	_, err = r.customers.History(t.Context(), other, id, 0, 10)
	require.Equal(t, crm.ErrNotFound, err)
	page, err := r.customers.List(t.Context(), other, guard.Query{})
	require.NoError(t, err)
	assert.Empty(t, page.Items)
	for _, term := range []string{"13800135678", "+86 138 0013 5678"} {
		page, err = r.customers.Search(t.Context(), other, term, 10, "phone")
		require.NoError(t, err)
		assert.Empty(t, page.Items)
		page, err = r.customers.Search(t.Context(), sales, term, 10, "phone")
		require.NoError(t, err)
		assert.Len(t, page.Items, 1)
	}
	n, err := r.customers.Count(t.Context(), other, guard.Query{})
	require.NoError(t, err)
	assert.Zero(t, n)
}

// byRecord opens another field of each record.
type byRecord struct {
	authz.Authorizer
	phone map[string]authz.Access // by id
}

func (p byRecord) Decide(ctx context.Context, r authz.Request) (authz.Decision, error) {
	d, err := p.Authorizer.Decide(ctx, r)
	if access, ok := p.phone[r.Resource.ID]; ok {
		d.Fields.ByName = map[string]authz.Access{"phone": access}
	}
	return d, err
}

// TestFieldsOfEachRow: rows of one page have field policies of their own, in any order.
func TestFieldsOfEachRow(t *testing.T) {
	r := newRig(t)
	phone := map[string]authz.Access{}
	var ids []crm.UUID
	for i, access := range []authz.Access{authz.Open, authz.Masked, authz.Hidden, authz.Hidden, authz.Open, authz.Masked} {
		v := r.add(t, sales, fmt.Sprint("A", i), "13800135678", "")
		ids = append(ids, v.Value.ID.UUID())
		phone[v.Value.ID.String()] = access
	}
	g, _, err := guard.New(t.Context(), r.store, r.keeper, byRecord{r.policy, phone}, r.log, nil)
	require.NoError(t, err)
	customers, err := guard.For[*crm.Customer](t.Context(), g, &guard.TypeOptions{Type: crm.TypeCustomer})
	require.NoError(t, err)
	page, err := customers.List(t.Context(), sales, guard.Query{})
	require.NoError(t, err)
	all, err := customers.GetAll(t.Context(), sales, ids)
	require.NoError(t, err)
	require.Len(t, all, len(ids))
	for _, views := range [][]guard.View[*crm.Customer]{page.Items, all} {
		for i, v := range views {
			want := phone[v.Value.ID.String()]
			assert.Equal(t, want, v.Fields["phone"], i)
			switch got := v.Value.Phone; want {
			case authz.Open:
				assert.Equal(t, "13800135678", got.Expose())
			case authz.Masked:
				assert.Equal(t, "138****5678", got.Expose())
			default:
				assert.Equal(t, crm.Hidden, got.State())
			}
		}
	}
	assert.Subset(t, r.last(t).Fields, []string{"phone", "phone:masked"})
}

// TestReadersMayNotWrite: who may read a record may not change, delete, create, import or reveal by that.
//
//crm:item 23
func TestReadersMayNotWrite(t *testing.T) {
	r := newRig(t)
	v := r.add(t, sales, "A", "13800135678", "a@example.com")
	var de *authz.DeniedError
	w := *v.Value
	_, err := r.customers.Update(t.Context(), auditor, &w)
	require.ErrorAs(t, err, &de)
	require.ErrorAs(t, r.customers.Delete(t.Context(), support, v.Value.ID.UUID(), 1), &de)
	_, err = r.customers.Create(t.Context(), support, customer("B", "", ""))
	denied(t, err, "access.granted") // by the decision, not for its fields alone
	errs, err := r.customers.CreateAll(t.Context(), sales, []*crm.Customer{customer("B", "", "")})
	require.NoError(t, err)
	require.ErrorAs(t, errs[0], &de, "sales may create, not import")
	_, err = r.customers.Reveal(t.Context(), because(auditor, "why"), v.Value.ID.UUID(), "phone")
	require.ErrorAs(t, err, &de)
	page, err := r.customers.List(t.Context(), admin, guard.Query{})
	require.NoError(t, err)
	assert.Len(t, page.Items, 1)
}

func TestReveal(t *testing.T) {
	r := newRig(t)
	v := r.add(t, sales, "A", "13800135678", "a@example.com")
	id := v.Value.ID.UUID()
	var de *authz.DeniedError
	_, err := r.customers.Reveal(t.Context(), sales, id, "phone")
	require.ErrorAs(t, err, &de)
	assert.Equal(t, []authz.Obligation{authz.NeedReason}, de.Unmet)
	_, err = r.customers.Reveal(t.Context(), because(sales, "call back"), id, "id_number")
	require.ErrorAs(t, err, &de, "sensitive fields stay hidden from sales")
	_, err = r.customers.Reveal(t.Context(), because(sales, "call back"), id, "no_such_field")
	require.Error(t, err)
	got, err := r.customers.Reveal(t.Context(), because(sales, "call back"), id, "phone")
	require.NoError(t, err)
	assert.Equal(t, "13800135678", got.Value.Phone.Expose())
	assert.Equal(t, crm.Hidden, got.Value.Name.State(), "one field only")
	hist, err := r.customers.History(t.Context(), sales, id, 0, 20)
	require.NoError(t, err)
	i := slices.IndexFunc(hist, func(e audit.Entry) bool {
		return e.Event.Action == "customer.reveal" && e.Event.Outcome == audit.Allowed
	})
	require.GreaterOrEqual(t, i, 0)
	reason, known := hist[i].Event.Details[0].Value()
	assert.True(t, known)
	assert.Equal(t, "call back", reason)
	hist, err = r.customers.History(t.Context(), auditor, id, 0, 20)
	require.NoError(t, err)
	for _, e := range hist {
		for _, d := range e.Event.Details {
			_, known := d.Value()
			assert.False(t, known, "an auditor may not reveal")
		}
	}
}

func TestUpdateKeepsWhatWasNotShown(t *testing.T) {
	r := newRig(t)
	w := *customer("A", "13800135678", "a@example.com")
	w.Owner, w.Team = crm.ID[crm.Employee](lin), "/east/1/"
	w.IDNumber = crm.NewText("110101199003074514")
	v, err := r.customers.Create(t.Context(), admin, &w)
	require.NoError(t, err)

	s, err := r.customers.Get(t.Context(), sales, v.Value.ID.UUID())
	require.NoError(t, err)
	mine := *s.Value
	require.Equal(t, crm.Masked, mine.Phone.State())
	mine.City = "上海"
	_, err = r.customers.Update(t.Context(), sales, &mine)
	require.NoError(t, err)
	got, err := r.customers.Reveal(t.Context(), because(admin, "check"), v.Value.ID.UUID(), "id_number")
	require.NoError(t, err)
	assert.Equal(t, "110101199003074514", got.Value.IDNumber.Expose())
	m, err := r.customers.Get(t.Context(), manager, v.Value.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, "13800135678", m.Value.Phone.Expose())
	assert.Equal(t, "上海", m.Value.City)

	var de *authz.DeniedError
	s, err = r.customers.Get(t.Context(), sales, v.Value.ID.UUID())
	require.NoError(t, err)
	for _, text := range []crm.Text{crm.NewText("110101199003074514"), {}} {
		bad := *s.Value
		bad.IDNumber = text
		_, err = r.customers.Update(t.Context(), sales, &bad)
		require.ErrorAs(t, err, &de, "a hidden field can be neither set nor emptied")
	}
	away := *s.Value
	away.Owner = crm.ID[crm.Employee](wu)
	_, err = r.customers.Update(t.Context(), sales, &away)
	require.ErrorAs(t, err, &de, "own records cannot be given away")
	stale := *s.Value
	stale.Version--
	_, err = r.customers.Update(t.Context(), sales, &stale)
	require.ErrorIs(t, err, crm.ErrConflict)
	jump := *s.Value
	jump.Stage = crm.CustomerWon
	var te *crm.TransitionError
	_, err = r.customers.Update(t.Context(), sales, &jump)
	require.ErrorAs(t, err, &te)
}

// TestForgedRows: a row that was changed past the guard in any part is an error for whoever asks.
//
//crm:item 42
func TestForgedRows(t *testing.T) {
	for name, bend := range map[string]func(row *crm.Row){
		"owner":            func(row *crm.Row) { row.Clear[0] = crm.StringValue(wu.String()) },
		"team":             func(row *crm.Row) { row.Clear[1] = crm.StringValue("/west/") },
		"version":          func(row *crm.Row) { row.Version++ },
		"bin":              func(row *crm.Row) { row.Deleted = !row.Deleted },
		"person":           func(row *crm.Row) { row.Persons[0] = crm.NewUUID() },
		"id":               func(row *crm.Row) { row.ID = crm.NewUUID() },
		"tenant":           func(row *crm.Row) { row.Tenant = "other" },
		"sealed value":     func(row *crm.Row) { row.Sealed[0].Data[20] ^= 1 },
		"sealed name":      func(row *crm.Row) { row.Sealed[0].Name = "z" },
		"token":            func(row *crm.Row) { row.Sealed[0].Tokens = append(row.Sealed[0].Tokens, crm.Token{Value: 1}) },
		"field taken away": func(row *crm.Row) { row.Sealed = row.Sealed[1:] },
		"MAC":              func(row *crm.Row) { row.MAC[0] ^= 1 },
		"no MAC":           func(row *crm.Row) { row.MAC = nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			v := r.add(t, sales, "A", "13800135678", "a@example.com")
			r.store.bend = func(rows []crm.Row) {
				for i := range rows {
					bend(&rows[i])
				}
			}
			for _, c := range []guard.Caller{sales, other, admin} {
				_, err := r.customers.Get(t.Context(), c, v.Value.ID.UUID())
				require.ErrorIs(t, err, guard.ErrForged)
				w := *v.Value
				_, err = r.customers.Update(t.Context(), c, &w)
				require.ErrorIs(t, err, guard.ErrForged)
			}
			_, err := r.customers.List(t.Context(), admin, guard.Query{})
			require.ErrorIs(t, err, guard.ErrForged)
			_, err = r.customers.GetAll(t.Context(), admin, []crm.UUID{v.Value.ID.UUID()})
			if name != "bin" { // it is taken for one that is not there
				require.ErrorIs(t, err, guard.ErrForged)
			}
		})
	}
}

// TestStoreTooWide: a store that gives more than it was asked for shows nothing to who may not see it, in lists and in what is got together.
func TestStoreTooWide(t *testing.T) {
	r := newRig(t)
	mine, theirs := r.add(t, sales, "A", "13800135678", "a@example.com").Value, r.add(t, other, "B", "13800135679", "b@example.com").Value
	both := []crm.UUID{mine.ID.UUID(), theirs.ID.UUID()}
	got, err := r.customers.GetAll(t.Context(), sales, both)
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Equal(t, mine.ID, got[0].Value.ID)
	r.store.wide = true
	p, err := r.customers.List(t.Context(), sales, guard.Query{})
	require.ErrorContains(t, err, "list and decision disagree")
	require.Empty(t, p.Items)
	require.Equal(t, audit.Denied, r.last(t).Outcome)
	p, err = r.customers.List(t.Context(), admin, guard.Query{})
	require.NoError(t, err)
	require.Len(t, p.Items, 2)
}

// TestAnotherRow: a store that answers with the genuine row of another record, one that the caller may read, is not believed.
func TestAnotherRow(t *testing.T) {
	r := newRig(t)
	asked, given := r.add(t, sales, "A", "13800135678", "a@example.com").Value, r.add(t, sales, "B", "13800135679", "b@example.com").Value
	row := r.raw(t, given.ID.UUID())
	r.store.bend = func(rows []crm.Row) {
		for i := range rows {
			rows[i] = row
		}
	}
	_, err := r.customers.Get(t.Context(), sales, asked.ID.UUID())
	require.ErrorIs(t, err, guard.ErrForged)
	w := *asked
	w.City = "Ningbo"
	_, err = r.customers.Update(t.Context(), sales, &w)
	require.ErrorIs(t, err, guard.ErrForged)
	_, err = r.customers.Reveal(t.Context(), because(sales, "x"), asked.ID.UUID(), "phone")
	require.ErrorIs(t, err, guard.ErrForged)
	require.ErrorIs(t, r.customers.Delete(t.Context(), sales, asked.ID.UUID(), 1), guard.ErrForged)
	r.store.bend = nil
	v, err := r.customers.Get(t.Context(), sales, given.ID.UUID())
	require.NoError(t, err)
	require.EqualValues(t, 1, v.Value.Version)
}

// TestHistoryOfOne: the history of a record says nothing of the others that an event was about, nor in which session somebody acted.
func TestHistoryOfOne(t *testing.T) {
	r := newRig(t)
	mine, next := r.add(t, sales, "A", "13800135678", "a@example.com").Value, r.add(t, sales, "B", "13800135679", "b@example.com").Value
	theirs := r.add(t, other, "C", "13800135670", "c@example.com").Value
	_, err := r.customers.List(t.Context(), admin, guard.Query{}) // one event names all three
	require.NoError(t, err)
	entries, err := r.customers.History(t.Context(), sales, mine.ID.UUID(), 0, 50)
	require.NoError(t, err)
	listed := false
	for _, e := range entries {
		require.Empty(t, e.Event.Session)
		listed = listed || e.Event.Action == "customer.list" && e.Event.Actor == admin.Subject.ID
		for _, target := range e.Event.Targets {
			require.Equal(t, mine.ID.String(), target.ID)
		}
	}
	require.True(t, listed)
	all, err := r.log.Query(t.Context(), audit.Filter{Action: "customer.list", Actor: admin.Subject.ID}, math.MaxUint64, 1)
	require.NoError(t, err)
	require.Len(t, all[0].Event.Targets, 3, "the log itself names them: %s, %s", next.ID, theirs.ID)
	require.Equal(t, "s1", all[0].Event.Session)
}

// TestBinnedIsGone: what lies in the recycle bin is not among several that are got, and is not changed.
//
//crm:item 14
func TestBinnedIsGone(t *testing.T) {
	r := newRig(t)
	kept, gone := r.add(t, sales, "A", "13800135678", "a@example.com").Value, r.add(t, sales, "B", "13800135679", "b@example.com").Value
	require.NoError(t, r.customers.Delete(t.Context(), sales, gone.ID.UUID(), 1))
	for _, c := range []guard.Caller{sales, admin} {
		got, err := r.customers.GetAll(t.Context(), c, []crm.UUID{gone.ID.UUID(), kept.ID.UUID()})
		require.NoError(t, err)
		require.Len(t, got, 1)
		require.Equal(t, kept.ID, got[0].Value.ID)
		v, err := r.customers.Get(t.Context(), c, gone.ID.UUID()) // from the bin, to be looked at
		require.NoError(t, err)
		require.True(t, v.Value.Deleted)
		_, err = r.customers.Update(t.Context(), c, r.customers.Copy(v.Value))
		require.ErrorIs(t, err, crm.ErrNotFound)
		require.ErrorIs(t, r.customers.Act(t.Context(), c, authz.Update, gone.ID.UUID(), 2, func(*crm.Customer) error { return nil }), crm.ErrNotFound)
		_, err = r.customers.Authorize(t.Context(), c, authz.Update, gone.ID.UUID())
		require.ErrorIs(t, err, crm.ErrNotFound)
	}
	require.EqualValues(t, 2, r.raw(t, gone.ID.UUID()).Version)
}

// TestNoLogNoData: when the log does not take the event, nothing is read or written.
//
//crm:item 30 partly
//crm:item 32
func TestNoLogNoData(t *testing.T) {
	r := newRig(t)
	v := r.add(t, sales, "A", "13800135678", "a@example.com")
	id := v.Value.ID.UUID()
	down := errors.New("disk full")
	r.log.fail = down
	ctx := t.Context()
	w := *v.Value
	_, get := r.customers.Get(ctx, sales, id)
	page, list := r.customers.List(ctx, sales, guard.Query{})
	found, search := r.customers.Search(ctx, sales, "13800135678", 5, "phone")
	_, reveal := r.customers.Reveal(ctx, because(sales, "x"), id, "phone")
	_, count := r.customers.Count(ctx, sales, guard.Query{})
	_, history := r.customers.History(ctx, sales, id, 0, 5)
	_, create := r.customers.Create(ctx, sales, customer("B", "", ""))
	_, update := r.customers.Update(ctx, sales, &w)
	del := r.customers.Delete(ctx, sales, id, 1)
	_, denied := r.customers.Get(ctx, other, id)
	for i, err := range []error{get, list, search, reveal, count, history, create, update, del, denied} {
		require.ErrorIs(t, err, down, "operation %d", i)
	}
	assert.Empty(t, page.Items)
	assert.Empty(t, found.Items)
	r.log.fail = nil
	all, err := r.customers.List(ctx, admin, guard.Query{})
	require.NoError(t, err)
	require.Len(t, all.Items, 1)
	assert.Equal(t, int64(1), all.Items[0].Value.Version)
}

func TestAbortedWrites(t *testing.T) {
	r := newRig(t)
	full := fmt.Errorf("no room: %w", crm.ErrUnavailable)
	r.store.apply = func(crm.Batch) error { return full }
	_, err := r.customers.Create(t.Context(), sales, customer("A", "", ""))
	require.ErrorIs(t, err, crm.ErrUnavailable)
	e := r.last(t)
	assert.Equal(t, audit.Aborted, e.Outcome)
	assert.True(t, e.HasRef)

	// The store applied it, but the answer was lost: the guard looks and finds it.
	r.store.apply = func(b crm.Batch) error {
		_, err := r.store.Store.Apply(t.Context(), b)
		require.NoError(t, err)
		return crm.ErrUnknown
	}
	_, err = r.customers.Create(t.Context(), sales, customer("B", "", ""))
	require.NoError(t, err)
	// It did not apply it: the guard says so.
	r.store.apply = func(crm.Batch) error { return crm.ErrUnknown }
	_, err = r.customers.Create(t.Context(), sales, customer("C", "", ""))
	require.ErrorIs(t, err, crm.ErrUnknown)
	assert.Equal(t, audit.Aborted, r.last(t).Outcome)
}

// TestCrashBetweenLogAndStore: the process dies after the event and before the transaction.
func TestCrashBetweenLogAndStore(t *testing.T) {
	r := newRig(t)
	r.add(t, sales, "A", "", "")
	r.store.apply = func(crm.Batch) error { panic("power cut") }
	assert.Panics(t, func() { _, _ = r.customers.Create(t.Context(), sales, customer("B", "", "")) })
	r.store.apply = nil
	_, aborted, err := guard.New(t.Context(), r.store, r.keeper, r.policy, r.log, nil)
	require.NoError(t, err)
	assert.Equal(t, 1, aborted)
	_, aborted, err = guard.New(t.Context(), r.store, r.keeper, r.policy, r.log, nil)
	require.NoError(t, err)
	assert.Zero(t, aborted, "settled once")
}

// TestACrashUnmakesOnlyTheLastWrites: who removes applied events and puts older rows back cannot have a
// restart take them for writes that a crash prevented.
func TestACrashUnmakesOnlyTheLastWrites(t *testing.T) {
	r := newRig(t)
	v := r.add(t, sales, "A", "", "")
	before := r.raw(t, v.Value.ID.UUID())
	w := *v.Value
	w.City = "x"
	_, err := r.customers.Update(t.Context(), sales, &w)
	require.NoError(t, err)
	r.add(t, sales, "B", "", "")
	// The older row is put back and the list of applied events emptied.
	r.bendList(func(rows []crm.Row) []crm.Row {
		for i := range rows {
			if rows[i].ID == before.ID {
				rows[i] = before
			}
		}
		return rows
	})
	require.NoError(t, r.store.Store.Prune(t.Context(), "log", math.MaxInt64))
	_, aborted, err := guard.New(t.Context(), r.store, r.keeper, r.policy, r.log, nil)
	require.NoError(t, err)
	assert.LessOrEqual(t, aborted, 1, "only the very last write can be unmade")
	report := r.check(t, false)
	require.NotEmpty(t, report.Findings)
	assert.Equal(t, "rolled_back", report.Findings[0].Problem)

	// After an orderly end nothing can be.
	r = newRig(t)
	r.add(t, sales, "A", "", "")
	require.NoError(t, r.guard.Settle(t.Context()))
	require.NoError(t, r.store.Store.Prune(t.Context(), "log", math.MaxInt64))
	_, aborted, err = guard.New(t.Context(), r.store, r.keeper, r.policy, r.log, nil)
	require.NoError(t, err)
	assert.Zero(t, aborted)
	r.bendList(func([]crm.Row) []crm.Row { return nil })
	assert.Len(t, r.check(t, false).Findings, 1)
}

// TestCheckAfterCrash: what a crash may have prevented is open, not a finding.
func TestCheckAfterCrash(t *testing.T) {
	r := newRig(t)
	r.add(t, sales, "A", "", "")
	r.store.apply = func(crm.Batch) error { panic("power cut") }
	assert.Panics(t, func() { _, _ = r.customers.Create(t.Context(), sales, customer("B", "", "")) })
	report := r.check(t, false)
	assert.True(t, report.OK(), "%v", report.Findings)
	assert.Equal(t, int64(1), report.Open)
}

// TestCheckAfterRestore: what the log announced before the snapshot is still expected.
func TestCheckAfterRestore(t *testing.T) {
	r := newRig(t)
	r.add(t, sales, "A", "", "")
	r.add(t, sales, "B", "", "")
	size := r.log.Size()
	r.add(t, sales, "C", "", "")
	require.NoError(t, guard.MarkRestored(t.Context(), r.log, "default", "op", "snapshot-1", size))
	r.add(t, sales, "D", "", "")
	require.NoError(t, r.guard.Settle(t.Context()))
	assert.True(t, r.check(t, false).OK())
	r.bendList(func(rows []crm.Row) []crm.Row { return rows[1:] })
	report := r.check(t, false)
	require.Len(t, report.Findings, 1)
	assert.Equal(t, "missing", report.Findings[0].Problem)
}

func TestRestoredStoreIsNotAborted(t *testing.T) {
	r := newRig(t)
	r.add(t, sales, "A", "", "")
	require.NoError(t, guard.MarkRestored(t.Context(), r.log, "default", "op", "snapshot-1", 0))
	_, aborted, err := guard.New(t.Context(), memstore.New(), r.keeper, r.policy, r.log, nil)
	require.NoError(t, err)
	assert.Zero(t, aborted)
}

func TestImportKeepsTheGood(t *testing.T) {
	r := newRig(t)
	batch := []*crm.Customer{customer("A", "", "a@example.com"), customer("", "", ""), customer("C", "", "not an address"), customer("D", "1", "")}
	errs, err := r.customers.CreateAll(t.Context(), admin, batch)
	require.NoError(t, err)
	var ie *crm.InvalidError
	require.NoError(t, errs[0])
	require.ErrorAs(t, errs[1], &ie)
	require.ErrorAs(t, errs[2], &ie)
	require.NoError(t, errs[3])
	again := []*crm.Customer{customer("E", "", ""), batch[0], customer("F", "", "")}
	errs, err = r.customers.CreateAll(t.Context(), admin, again)
	require.NoError(t, err)
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], crm.ErrConflict)
	require.NoError(t, errs[2])
	n, err := r.customers.Count(t.Context(), admin, guard.Query{})
	require.NoError(t, err)
	assert.Equal(t, int64(4), n)
	_, err = r.customers.CreateAll(t.Context(), admin, make([]*crm.Customer, guard.MaxBatch+1))
	require.Error(t, err)
}

func TestListsAreBounded(t *testing.T) {
	r := newRig(t)
	for i := range 7 {
		r.add(t, sales, fmt.Sprint("customer ", i), "", "")
	}
	var names []string
	q := guard.Query{Limit: 3, Sort: "created_at", Desc: true}
	for {
		p, err := r.customers.List(t.Context(), sales, q)
		require.NoError(t, err)
		for _, v := range p.Items {
			names = append(names, v.Value.Name.Expose())
		}
		if q.After = p.Next; p.Next == "" {
			break
		}
	}
	assert.Len(t, names, 7)
	for _, q := range []guard.Query{{Limit: 201}, {Limit: -1}, {Sort: "phone"}, {Sort: "nothing"},
		{Clauses: []crm.Clause{{Column: "phone", Op: crm.Equal, Values: []crm.Value{crm.StringValue("x")}}}},
		{After: "garbage"}} {
		_, err := r.customers.List(t.Context(), sales, q)
		require.Error(t, err)
	}
	_, err := r.customers.Search(t.Context(), sales, "x", 5, "website")
	require.ErrorIs(t, err, encrypt.ErrUnsupported)
}

// TestHiddenIsNotAskedFor: a clear field that is hidden from a caller is neither sorted nor filtered nor counted by, which would tell it.
func TestHiddenIsNotAskedFor(t *testing.T) {
	r := newRig(t)
	r.add(t, sales, "customer", "", "")
	for _, q := range []guard.Query{
		{Sort: "city"}, {Clauses: []crm.Clause{{Column: "city", Op: crm.Equal, Values: []crm.Value{crm.StringValue("Bonn")}}}},
	} {
		_, err := r.customers.List(t.Context(), sales, q)
		require.NoError(t, err)
		q.Hide = []string{"city"}
		_, err = r.customers.List(t.Context(), sales, q)
		denied(t, err, "fields.internal")
		_, err = r.customers.Count(t.Context(), sales, q)
		denied(t, err, "fields.internal")
	}
}

// TestSearchByParts: what the indexes of the CRM's own types find, and what they must not.
func TestSearchByParts(t *testing.T) {
	r := newRig(t)
	r.add(t, sales, "曾小明", "13800135678", "zeng@example.com")
	r.add(t, sales, "Abernathy Ltd", "+44 20 7946 0958", "")
	fields := []string{"name", "contact", "phone", "phone2", "email"}
	for term, want := range map[string]int{
		"5678": 1, "0958": 1, "小明": 1, "曾小": 1, "zeng": 1, "zengxiao": 1, "zxm": 1, "berna": 1, "aBeRnAtHy": 1, // "contact" is 张伟 in both
		"678": 0, "1380": 0, "明小": 0, "ceng'": 1, "xiaoming": 0, "bernx": 0, "zeng@example": 0,
		"13800135678": 1, "+86 138-0013-5678": 1, "13900005678": 0, "020 7946 0958": 0, "+44 (0)20 7946 0958": 1,
	} {
		p, err := r.customers.Search(t.Context(), sales, term, 5, fields...)
		require.NoError(t, err, term)
		assert.Len(t, p.Items, want, term)
	}
	// The phone is masked for sales: it is found by its full value and by the digits that the mask shows.
	p, err := r.customers.Search(t.Context(), sales, "5678", 5, "phone")
	require.NoError(t, err)
	require.Equal(t, crm.Masked, p.Items[0].Value.Phone.State())
	require.Equal(t, "138****5678", p.Items[0].Value.Phone.Expose())
	// A short number shows its last two digits only, and so is not found by four.
	r.add(t, sales, "C", "62270958", "")
	p, err = r.customers.Search(t.Context(), sales, "0958", 5, "phone")
	require.NoError(t, err)
	require.Len(t, p.Items, 1)
	require.NotEqual(t, "C", p.Items[0].Value.Name.Expose())
}

// TestIndexesAdmitWhatTheyShow holds the CRM's own types to the plan of their leakage.
func TestIndexesAdmitWhatTheyShow(t *testing.T) {
	opts := &encrypt.CodecOptions{Normalizers: normalize.Normalizers("CN"), Masks: normalize.Masks()}
	for _, population := range []int{10_000, 100_000, 1_000_000} {
		for name, plan := range map[string]func(int) ([]encrypt.Index, error){
			"customer": planOf[*crm.Customer](t, opts), "contact": planOf[*crm.Contact](t, opts), "lead": planOf[*crm.Lead](t, opts),
			"employee": planOf[*crm.Employee](t, opts), "quote": planOf[*crm.Quote](t, opts), "contract": planOf[*crm.Contract](t, opts),
			"ticket": planOf[*crm.Ticket](t, opts), "follow-up": planOf[*crm.FollowUp](t, opts),
		} {
			leaks, err := plan(population)
			require.NoError(t, err, "%s of %d", name, population)
			for _, l := range leaks {
				t.Logf("%9d %s", population, fmt.Sprintf("%s.%s %s: %d values, %d bits, %.1f records to a token, shows %q", name, l.Field, l.Kind+":"+l.Normalizer, l.Values, l.Bits, l.Candidates, l.Shows))
			}
		}
	}
}

func planOf[P any](t *testing.T, opts *encrypt.CodecOptions) func(int) ([]encrypt.Index, error) {
	c, err := encrypt.NewCodec[P](opts)
	require.NoError(t, err)
	return c.Plan
}

// TestSearchOverFields: a term that is no phone and records without one do not get in the way.
func TestSearchOverFields(t *testing.T) {
	r := newRig(t)
	r.add(t, sales, "Söhne", "", "s@example.com")
	r.add(t, sales, "B", "13800135678", "")
	for term, want := range map[string]int{"söhne": 1, "138 0013 5678": 1, "S@EXAMPLE.com": 1, "nobody": 0, "张伟": 2} {
		p, err := r.customers.Search(t.Context(), sales, term, 5, "name", "contact", "phone", "phone2", "email")
		require.NoError(t, err, term)
		assert.Len(t, p.Items, want, term)
	}
	_, err := r.customers.Search(t.Context(), sales, "no digits", 5, "phone")
	require.ErrorIs(t, err, encrypt.ErrUnsupported)
}

func TestSearchQuota(t *testing.T) {
	r := newRig(t)
	g, _, err := guard.New(t.Context(), r.store, r.keeper, r.policy, r.log, &guard.Options{SearchPerHour: 3})
	require.NoError(t, err)
	c, err := guard.For[*crm.Customer](t.Context(), g, nil)
	require.NoError(t, err)
	for range 3 {
		_, err = c.Search(t.Context(), sales, "13800135678", 5, "phone")
		require.NoError(t, err)
	}
	_, err = c.Search(t.Context(), sales, "13800135678", 5, "phone")
	require.ErrorIs(t, err, guard.ErrQuota)
	_, err = c.Search(t.Context(), other, "13800135678", 5, "phone")
	require.NoError(t, err, "the quota is each actor's own")
}

func TestBin(t *testing.T) {
	r := newRig(t)
	v := r.add(t, sales, "A", "13800135678", "")
	id := v.Value.ID.UUID()
	require.ErrorIs(t, r.customers.Delete(t.Context(), sales, id, 9), crm.ErrConflict)
	require.NoError(t, r.customers.Delete(t.Context(), sales, id, 1))
	p, err := r.customers.List(t.Context(), sales, guard.Query{})
	require.NoError(t, err)
	assert.Empty(t, p.Items)
	p, err = r.customers.Search(t.Context(), sales, "13800135678", 5, "phone")
	require.NoError(t, err)
	assert.Empty(t, p.Items)
	p, err = r.customers.List(t.Context(), sales, guard.Query{Bin: true})
	require.NoError(t, err)
	require.Len(t, p.Items, 1)
	p, err = r.customers.List(t.Context(), other, guard.Query{Bin: true})
	require.NoError(t, err)
	assert.Empty(t, p.Items)
	require.NoError(t, r.customers.Restore(t.Context(), sales, id, 2))
	p, err = r.customers.List(t.Context(), sales, guard.Query{})
	require.NoError(t, err)
	assert.Len(t, p.Items, 1)
}

// TestNothingPersonalInErrors makes each kind of error and looks for the values.
func TestNothingPersonalInErrors(t *testing.T) {
	r := newRig(t)
	v := r.add(t, sales, "Secretname", "13800135678", "secret@example.com")
	w := *v.Value
	w.Email = crm.NewText("secret at example")
	_, invalid := r.customers.Update(t.Context(), sales, &w)
	require.Error(t, invalid)
	r.store.bend = func(rows []crm.Row) { rows[0].MAC = nil }
	_, forged := r.customers.Get(t.Context(), sales, v.Value.ID.UUID())
	for _, err := range []error{invalid, forged} {
		for _, s := range []string{"Secret", "secret", "138"} {
			assert.NotContains(t, strings.ReplaceAll(err.Error(), v.Value.ID.String(), ""), s)
		}
	}
	assert.NotContains(t, fmt.Sprintf("%v %+v %#v", v, v, v), "Secretname")
}

func TestAuthorize(t *testing.T) {
	r := newRig(t)
	var de *authz.DeniedError
	require.NoError(t, r.guard.Authorize(t.Context(), admin, authz.Manage, "backup"))
	require.ErrorAs(t, r.guard.Authorize(t.Context(), sales, authz.Manage, "backup"), &de)
	assert.Equal(t, audit.Denied, r.last(t).Outcome)
	_, err := r.guard.Events(t.Context(), sales, audit.Filter{}, math.MaxUint64, 5)
	require.ErrorAs(t, err, &de)
	es, err := r.guard.Events(t.Context(), auditor, audit.Filter{}, math.MaxUint64, 5)
	require.NoError(t, err)
	assert.NotEmpty(t, es)
	r.log.fail = errors.New("down")
	require.Error(t, r.guard.Authorize(t.Context(), admin, authz.Manage, "backup"))
}

func TestTypesThatAreRefused(t *testing.T) {
	r := newRig(t)
	type bare struct {
		crm.Meta[bare]
		Name string // no tag
	}
	_, err := guard.For[*bare](t.Context(), r.guard, nil)
	require.ErrorContains(t, err, "Name")
	type leaky struct {
		crm.Meta[leaky]
		Name string `protect:"personal,clear"`
	}
	_, err = guard.For[*leaky](t.Context(), r.guard, nil)
	require.ErrorContains(t, err, "Name")
	_, _, err = guard.New(t.Context(), nil, r.keeper, r.policy, r.log, nil)
	require.Error(t, err)
}

func TestClock(t *testing.T) {
	r := newRig(t)
	at := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	g, _, err := guard.New(t.Context(), r.store, r.keeper, r.policy, r.log, &guard.Options{Clock: func() time.Time { return at }})
	require.NoError(t, err)
	c, err := guard.For[*crm.Customer](t.Context(), g, nil)
	require.NoError(t, err)
	v, err := c.Create(t.Context(), sales, customer("A", "", ""))
	require.NoError(t, err)
	assert.Equal(t, at, v.Value.CreatedAt)
}

// obliging is a policy that obliges to one thing more before the reasons of others are shown.
type obliging struct{ authz.Authorizer }

func (o obliging) Decide(ctx context.Context, r authz.Request) (authz.Decision, error) {
	d, err := o.Authorizer.Decide(ctx, r)
	if r.Action == authz.History {
		d.Obligations = []authz.Obligation{authz.NeedReason}
	}
	return d, err
}

// TestHistoryMeetsNoObligationForTheCaller: reasons stay sealed until the caller gives one.
func TestHistoryMeetsNoObligationForTheCaller(t *testing.T) {
	r := newRig(t)
	v := r.add(t, sales, "A", "13800135678", "")
	id := v.Value.ID.UUID()
	_, err := r.customers.Reveal(t.Context(), because(sales, "call back"), id, "phone")
	require.NoError(t, err)
	g, _, err := guard.New(t.Context(), r.store, r.keeper, obliging{r.policy}, r.log, nil)
	require.NoError(t, err)
	c, err := guard.For[*crm.Customer](t.Context(), g, nil)
	require.NoError(t, err)
	for caller, want := range map[string]bool{"": false, "complaint": true} {
		hist, err := c.History(t.Context(), because(sales, caller), id, 0, 50)
		require.NoError(t, err)
		opened := false
		for _, e := range hist {
			for _, d := range e.Event.Details {
				_, known := d.Value()
				opened = opened || known
			}
		}
		assert.Equal(t, want, opened)
	}
}
