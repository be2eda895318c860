package guard_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
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
	"github.com/crmguard/crmguard/crm/privacy"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

// Visit is a record with an identifying field of somebody else.
type Visit struct {
	crm.Meta[Visit]
	Phone      crm.Text           `protect:"personal,index=exact:phone,leaks=equality" json:"phone"`
	Guest      crm.ID[crm.Person] `protect:"internal" json:"guest"`
	GuestPhone crm.Text           `protect:"personal,person=Guest,index=exact:phone,index=exact:text,leaks=equality,distinct=1000000" json:"guest_phone"`
}

// lists is a rig with a list of the erased.
type lists struct {
	*rig
	list   *privacy.List
	leads  *guard.Records[*crm.Lead]
	visits *guard.Records[*Visit]
}

func programOf(string) guard.Caller { return as("system", "system", "") }

func newLists(t testing.TB, keyStore keys.Store, opts *encrypt.Options, gopts *guard.Options) *lists {
	t.Helper()
	l := &lists{rig: newRigOn(t, memstore.New(), keyStore, opts)}
	var err error
	l.policy, err = rego.New(t.Context(), &rego.Options{Policy: extended(t)})
	require.NoError(t, err)
	l.guard, _, err = guard.New(t.Context(), l.store, l.keeper, l.policy, l.log, gopts)
	require.NoError(t, err)
	l.open(t, l.guard)
	return l
}

func extended(t testing.TB) fs.FS {
	t.Helper()
	p, err := rego.Extend(rego.Embedded(), `{"settings": {"grants": {"admin": {"visit": {"create": "all", "list": "all", "read": "all"}}}}}`)
	require.NoError(t, err)
	return p
}

func (l *lists) open(t testing.TB, g *guard.Guard) {
	t.Helper()
	ctx := t.Context()
	var errs [3]error
	l.customers, errs[0] = guard.For[*crm.Customer](ctx, g, nil)
	l.leads, errs[1] = guard.For[*crm.Lead](ctx, g, nil)
	l.visits, errs[2] = guard.For[*Visit](ctx, g, nil)
	require.NoError(t, errors.Join(errs[:]...))
	var err error
	l.list, err = privacy.Open(ctx, g, programOf, nil)
	require.NoError(t, err)
}

// listed returns how many marks are stored, and how many different ones.
func (l *lists) listed(t testing.TB) (all, different int) {
	t.Helper()
	p, err := l.store.Store.List(t.Context(), crm.Query{Tenant: "default", Type: crm.TypeSuppression, Where: crm.Everything{}, Limit: 1000})
	require.NoError(t, err)
	s, err := guard.Schema[*privacy.Suppression](nil)
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, row := range p.Rows {
		for i, c := range s.Columns {
			if c.Name == "token" {
				seen[row.Clear[i].Str()] = true
			}
		}
	}
	return len(p.Rows), len(seen)
}

// known tells which phones and addresses are of the erased, by a lead.
func (l *lists) known(t testing.TB, terms ...string) []bool {
	t.Helper()
	var vs []*crm.Lead
	for _, s := range terms {
		v := &crm.Lead{Name: crm.NewText("Ann Lee")}
		if strings.Contains(s, "@") {
			v.Email = crm.NewText(s)
		} else {
			v.Phone = crm.NewText(s)
		}
		vs = append(vs, v)
	}
	out, err := l.leads.Erased(t.Context(), admin, authz.Import, vs, l.list)
	require.NoError(t, err)
	return out
}

// eraser is the administrator with a reason and somebody else's approval.
func eraser() guard.Caller {
	c := because(admin, "they asked us to")
	c.Met = []authz.Obligation{authz.NeedSecond}
	return c
}

func opens(t testing.TB, l *lists, id crm.UUID) crm.State {
	t.Helper()
	v, err := l.customers.Get(t.Context(), programOf(""), id)
	require.NoError(t, err)
	return v.Value.Phone.State()
}

// TestErase: all terms of a person are on the list, of every type and of those who were joined to them, of nobody else, and the
// list tells them whatever type they come in and however they are written.
func TestErase(t *testing.T) {
	l := newLists(t, keys.NewMemory(), &encrypt.Options{Grace: -1}, nil)
	ctx := t.Context()
	v := customer("张伟", "138 0013 5678", "Ann@Example.org")
	v.Phone2, v.IDNumber, v.Kind = crm.NewText("0"), crm.NewText("11010519491231002X"), crm.PersonCustomer
	_, err := l.customers.Create(ctx, admin, v)
	require.NoError(t, err)
	twin := customer("Zhang Wei", "+86 139 0013 5678", "")
	_, err = l.customers.Create(ctx, admin, twin)
	require.NoError(t, err)
	require.NoError(t, l.keeper.Join(ctx, "default", v.Person.UUID(), twin.Person.UUID()))
	binned := &crm.Lead{Name: crm.NewText("A. Lee"), Phone: crm.NewText("13700135678"), State: crm.LeadNew}
	binned.Person = v.Person
	_, err = l.leads.Create(ctx, admin, binned)
	require.NoError(t, err)
	require.NoError(t, l.leads.Delete(ctx, admin, binned.ID.UUID(), 1))
	visit := &Visit{Phone: crm.NewText("13600135678"), Guest: v.Person, GuestPhone: crm.NewText("13500135678")}
	_, err = l.visits.Create(ctx, admin, visit)
	require.NoError(t, err)
	neighbour := l.add(t, admin, "Bob", "13400135678", "bob@example.org").Value

	before := l.log.Size()
	out, err := l.guard.Erase(ctx, eraser(), v.Person.UUID(), &guard.EraseOptions{List: l.list})
	require.NoError(t, err)
	assert.NotEmpty(t, out.Keys)
	assert.Equal(t, 4, out.Records)
	assert.Equal(t, 6, out.Marks, "four phones, an address, a number of a document")
	all, different := l.listed(t)
	assert.Equal(t, [2]int{6, 6}, [2]int{all, different})
	assert.Equal(t, crm.Erased, opens(t, l, v.ID.UUID()))
	assert.Equal(t, crm.Erased, opens(t, l, twin.ID.UUID()), "who was joined to them")
	assert.Equal(t, crm.Clear, opens(t, l, neighbour.ID.UUID()))

	assert.Equal(t, []bool{true, true, true, true, true}, l.known(t, "+8613800135678", "ANN@example.org", "(86)13900135678", "137-0013-5678", "13500135678"))
	assert.Equal(t, []bool{false, false, false, false}, l.known(t, "13600135678", "13400135678", "bob@example.org", "0"), "of others, and too short")
	named, err := l.customers.Erased(ctx, admin, authz.Create, []*crm.Customer{customer("张伟", "", "")}, l.list)
	require.NoError(t, err)
	assert.Equal(t, []bool{false}, named, "a name alone")

	// The log said it before, and keeps the reason where the erasure does not reach.
	entries, err := l.log.Query(ctx, audit.Filter{Action: "person.erase"}, l.log.Size(), 10)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	announced := entries[0]
	assert.Greater(t, announced.Index, before)
	assert.Len(t, announced.Event.Targets, 2+4)
	assert.Equal(t, []string{"email:marked", "guest_phone:marked", "id_number:marked", "phone2:marked", "phone:marked"}, announced.Event.Fields)
	details, err := l.log.Reveal(ctx, announced)
	require.NoError(t, err)
	require.Len(t, details, 1)
	reason, known := details[0].Value()
	assert.True(t, known)
	assert.Equal(t, "they asked us to", reason)

	// Once more there is nothing to do, and nothing is stored twice.
	out, err = l.guard.Erase(ctx, eraser(), v.Person.UUID(), &guard.EraseOptions{List: l.list})
	require.NoError(t, err)
	assert.Empty(t, out.Keys)
	assert.Zero(t, out.Marks)
	all, _ = l.listed(t)
	assert.Equal(t, 6, all)

	// Without a list nothing is known again.
	_, err = l.guard.Erase(ctx, eraser(), neighbour.Person.UUID(), nil)
	require.NoError(t, err)
	assert.Equal(t, crm.Erased, opens(t, l, neighbour.ID.UUID()))
	assert.Equal(t, []bool{false}, l.known(t, "13400135678"))
}

// TestEraseRefused: who may not erase, a hold and the daily limit leave no mark and block nobody.
func TestEraseRefused(t *testing.T) {
	held := map[[16]byte]bool{}
	l := newLists(t, keys.NewMemory(), &encrypt.Options{EraseLimit: 1, Held: func(_ context.Context, _ string, p [16]byte, _ []keys.Retention) (bool, error) {
		return held[p], nil
	}}, nil)
	ctx := t.Context()
	a, b := l.add(t, admin, "A", "13800135678", "").Value, l.add(t, admin, "B", "13900135678", "").Value
	how := &guard.EraseOptions{List: l.list}
	untouched := func(id crm.UUID, marks int, why string) {
		t.Helper()
		all, _ := l.listed(t)
		assert.Equal(t, marks, all, why)
		assert.Equal(t, crm.Clear, opens(t, l, id), why)
	}
	for name, c := range map[string]guard.Caller{
		"sales": because(sales, "x"), "manager": because(manager, "x"), "auditor": because(auditor, "x"), "no reason": {Subject: admin.Subject, Met: []authz.Obligation{authz.NeedSecond}},
		"nobody agreed": because(admin, "x"),
	} {
		if name != "nobody agreed" && name != "no reason" {
			c.Met = []authz.Obligation{authz.NeedSecond}
		}
		_, err := l.guard.Erase(ctx, c, a.Person.UUID(), how)
		require.True(t, guard.Denied(err), "%s: %v", name, err)
		untouched(a.ID.UUID(), 0, name)
	}
	held[a.Person.UUID()] = true
	_, err := l.guard.Erase(ctx, eraser(), a.Person.UUID(), how)
	require.ErrorIs(t, err, encrypt.ErrHeld)
	assert.Equal(t, audit.Failed, l.last(t).Outcome)
	untouched(a.ID.UUID(), 0, "held")
	require.NoError(t, l.keeper.Join(ctx, "default", b.Person.UUID(), a.Person.UUID()))
	_, err = l.guard.Erase(ctx, eraser(), b.Person.UUID(), how)
	require.ErrorIs(t, err, encrypt.ErrHeld, "who is joined to one who is held")
	untouched(b.ID.UUID(), 0, "held by another id")
	require.NoError(t, l.keeper.Part(ctx, "default", b.Person.UUID(), a.Person.UUID()))
	clear(held)

	out, err := l.guard.Erase(ctx, eraser(), a.Person.UUID(), how)
	require.NoError(t, err)
	assert.False(t, out.Due.IsZero(), "blocked until the grace is over")
	assert.Equal(t, crm.Sealed, opens(t, l, a.ID.UUID()))
	_, err = l.guard.Erase(ctx, eraser(), b.Person.UUID(), how)
	require.ErrorIs(t, err, encrypt.ErrLimit)
	untouched(b.ID.UUID(), 1, "the limit")
	_, err = l.guard.Erase(ctx, eraser(), b.Person.UUID(), &guard.EraseOptions{List: l.list, Approved: true})
	require.NoError(t, err)
	all, _ := l.listed(t)
	assert.Equal(t, 2, all)

	// A type that another program made has no door here.
	require.NoError(t, l.store.Store.Declare(ctx, crm.Schema{Type: "stranger"}))
	_, err = l.guard.Erase(ctx, eraser(), crm.NewUUID(), how)
	require.ErrorContains(t, err, "stranger")
}

// TestErasedAnswers: who may not make or import records learns nothing, others at the pace of their quota; another tenant is another list.
func TestErasedAnswers(t *testing.T) {
	l := newLists(t, keys.NewMemory(), &encrypt.Options{Grace: -1}, &guard.Options{ChecksPerHour: 3})
	ctx := t.Context()
	v := l.add(t, admin, "A", "13800135678", "").Value
	_, err := l.guard.Erase(ctx, eraser(), v.Person.UUID(), &guard.EraseOptions{List: l.list})
	require.NoError(t, err)
	ask := func(c guard.Caller, a guard.Action, n int) ([]bool, error) {
		vs := make([]*crm.Customer, n)
		for i := range vs {
			vs[i] = customer("B", "13800135678", "")
		}
		return l.customers.Erased(ctx, c, a, vs, l.list)
	}
	for _, c := range []guard.Caller{auditor, as("nobody", crm.NewUUID().String(), "/"), as("analyst", crm.NewUUID().String(), "/")} {
		for _, a := range []guard.Action{authz.Create, authz.Import} {
			_, err := ask(c, a, 1)
			require.True(t, guard.Denied(err), "%s %s: %v", c.Subject.Roles, a, err)
		}
	}
	_, err = ask(support, authz.Import, 1)
	require.True(t, guard.Denied(err), "%v", err)
	_, err = ask(admin, authz.Read, 1)
	require.Error(t, err)

	got, err := ask(sales, authz.Create, 2)
	require.NoError(t, err)
	assert.Equal(t, []bool{true, true}, got)
	e := l.last(t)
	assert.Equal(t, "suppression.list", e.Action)
	es, err := l.log.Query(ctx, audit.Filter{Action: "customer.check"}, l.log.Size(), 1)
	require.NoError(t, err)
	assert.EqualValues(t, 2, es[0].Event.Count)
	assert.Contains(t, es[0].Event.Fields, "phone:erased")
	assert.Empty(t, es[0].Event.Targets)
	for n := 0; err == nil && n < 1000; n++ {
		_, err = ask(sales, authz.Create, 1)
	}
	require.ErrorIs(t, err, guard.ErrQuota)
	got, err = ask(admin, authz.Import, 500)
	require.NoError(t, err, "who may read all is not counted")
	assert.True(t, got[499])

	foreign := admin
	foreign.Subject.Tenant = "other"
	got, err = ask(foreign, authz.Import, 1)
	require.NoError(t, err)
	assert.Equal(t, []bool{false}, got, "another tenant")

	// A program that may not read the list is an error, and not a caller who may not import.
	l.list, err = privacy.Open(ctx, l.guard, func(string) guard.Caller { return sales }, nil)
	require.NoError(t, err)
	_, err = ask(admin, authz.Import, 1)
	require.Error(t, err)
	require.False(t, guard.Denied(err))
}

// end cuts everything off at its nth call that changes something, before the change or behind it.
type end struct {
	left  int
	after bool
	dead  bool
}

var errCut = errors.New("cut off")

// cut does a change unless it is all over.
func cut[T any](c *end, do func() (T, error)) (T, error) {
	var none T
	if c.dead {
		return none, errCut
	}
	if c.left--; c.left > 0 {
		return do()
	}
	c.dead = true
	if c.after {
		_, _ = do()
	}
	return none, errCut
}

type cutLog struct {
	guard.Log
	c *end
}

func (l cutLog) Append(ctx context.Context, e audit.Event) (audit.Receipt, error) {
	return cut(l.c, func() (audit.Receipt, error) { return l.Log.Append(ctx, e) })
}

type cutStore struct {
	crm.Store
	c *end
}

func (s cutStore) Apply(ctx context.Context, b crm.Batch) (int64, error) {
	return cut(s.c, func() (int64, error) { return s.Store.Apply(ctx, b) })
}

type cutKeys struct {
	keys.Store
	c *end
}

func (s cutKeys) Block(ctx context.Context, tenant string, ids []keys.ID, at time.Time) error {
	_, err := cut(s.c, func() (bool, error) { return true, s.Store.Block(ctx, tenant, ids, at) })
	return err
}

func (s cutKeys) Erase(ctx context.Context, tenant string, tombs []keys.Record) (uint64, error) {
	return cut(s.c, func() (uint64, error) { return s.Store.Erase(ctx, tenant, tombs) })
}

// TestEraseCutOff: an erasure that ends at any of its steps, before it or behind it, is whole when it is asked again: each mark is there once, the keys are gone, and a
// neighbour's are not. Before the marks are stored the person is there still.
func TestEraseCutOff(t *testing.T) {
	base := newRig(t)
	for _, grace := range []time.Duration{-1, time.Hour} {
		steps := 0
		for _, after := range []bool{false, true} {
			for n := 1; ; n++ {
				name := fmt.Sprintf("grace %v, step %d, after %v", grace, n, after)
				dir := t.TempDir()
				kek, err := localkek.Open(filepath.Join(dir, "kek"), nil)
				require.NoError(t, err)
				keyStore := keys.NewMemory()
				l := newListsOn(t, base, kek, keyStore, grace)
				ctx := t.Context()
				v := customer("A", "13800135678", "a@example.org")
				v.Phone2 = crm.NewText("13900135678")
				_, err = l.customers.Create(ctx, admin, v)
				require.NoError(t, err)
				neighbour := l.add(t, admin, "B", "13700135678", "").Value

				c := &end{left: math.MaxInt, after: after}
				keeper, err := encrypt.NewKeeper(kek, cutKeys{keyStore, c}, &encrypt.Options{Grace: grace})
				require.NoError(t, err)
				g, _, err := guard.New(ctx, cutStore{l.store, c}, keeper, l.policy, cutLog{l.log, c}, nil)
				require.NoError(t, err)
				cutting := &lists{rig: l.rig}
				cutting.open(t, g)
				c.left = n
				_, err = g.Erase(ctx, eraser(), v.Person.UUID(), &guard.EraseOptions{List: cutting.list})
				if !c.dead {
					require.NoError(t, err, name)
					steps += n - 1
					break
				}
				require.Error(t, err, name)

				// The next start.
				l.restart(t, kek, keyStore, grace)
				all, different := l.listed(t)
				assert.Equal(t, all, different, name)
				if all == 0 {
					assert.Equal(t, crm.Clear, opens(t, l, v.ID.UUID()), "%s: who is not on the list was not erased", name)
				}
				_, err = l.guard.Erase(ctx, eraser(), v.Person.UUID(), &guard.EraseOptions{List: l.list})
				require.NoError(t, err, name)
				all, different = l.listed(t)
				assert.Equal(t, [2]int{3, 3}, [2]int{all, different}, name)
				want := crm.Erased
				if grace > 0 {
					want = crm.Sealed
				}
				assert.Equal(t, want, opens(t, l, v.ID.UUID()), name)
				assert.Equal(t, crm.Clear, opens(t, l, neighbour.ID.UUID()), name)
				assert.Equal(t, []bool{true, true, true, false}, l.known(t, "13800135678", "13900135678", "a@example.org", "13700135678"), name)
				check := l.check(t, false)
				assert.Empty(t, check.Findings, name)
			}
		}
		assert.Greater(t, steps, 2*3, "decision, announcement, list, keys")
	}
}

// newListsOn is newLists over these keys, with the policy of base, and a log that seals by the keeper of base.
func newListsOn(t testing.TB, base *rig, kek keys.KEK, keyStore keys.Store, grace time.Duration) *lists {
	t.Helper()
	signer, err := audit.NewEd25519Signer("test/log", ed25519.NewKeyFromSeed(make([]byte, 32)))
	require.NoError(t, err)
	log, err := audit.Open(t.Context(), auditmem.New(), signer, &audit.Options{Sealer: sealer{base.keeper}})
	require.NoError(t, err)
	t.Cleanup(func() { log.Close() })
	l := &lists{rig: &rig{store: &store{Store: memstore.New()}, log: &flakyLog{Log: log}, policy: base.policy}}
	l.restart(t, kek, keyStore, grace)
	return l
}

// restart makes keeper and guard anew.
func (l *lists) restart(t testing.TB, kek keys.KEK, keyStore keys.Store, grace time.Duration) {
	t.Helper()
	var err error
	l.keeper, err = encrypt.NewKeeper(kek, keyStore, &encrypt.Options{Grace: grace})
	require.NoError(t, err)
	l.guard, _, err = guard.New(t.Context(), l.store, l.keeper, l.policy, l.log, nil)
	require.NoError(t, err)
	l.open(t, l.guard)
}

// TestWouldErase: who may look is told how many records of which types name a person and those who were joined to them, and what would refuse; nothing changes. Others are refused, and the
// log has both.
func TestWouldErase(t *testing.T) {
	held := map[[16]byte]bool{}
	l := newLists(t, keys.NewMemory(), &encrypt.Options{EraseLimit: 1, Held: func(_ context.Context, _ string, p [16]byte, _ []keys.Retention) (bool, error) {
		return held[p], nil
	}}, nil)
	ctx := t.Context()
	a, b := l.add(t, admin, "A", "13800135678", "").Value, l.add(t, admin, "B", "13900135678", "").Value
	for _, c := range []guard.Caller{sales, auditor} {
		_, err := l.guard.WouldErase(ctx, c, a.Person.UUID())
		require.True(t, guard.Denied(err), "%v", err)
		assert.Equal(t, audit.Denied, l.last(t).Outcome)
	}
	p, err := l.guard.WouldErase(ctx, admin, a.Person.UUID())
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"customer": 1}, p.Records)
	assert.Equal(t, []crm.UUID{a.Person.UUID()}, p.Persons)
	require.NoError(t, p.Refusal)
	assert.Equal(t, "person.read", l.last(t).Action)
	assert.Equal(t, a.Person.String(), l.last(t).Targets[0].ID)

	require.NoError(t, l.keeper.Join(ctx, "default", b.Person.UUID(), a.Person.UUID()))
	held[b.Person.UUID()] = true
	p, err = l.guard.WouldErase(ctx, admin, a.Person.UUID())
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"customer": 2}, p.Records)
	assert.Equal(t, []string{"customer"}, p.Types())
	assert.Len(t, p.Persons, 2)
	require.ErrorIs(t, p.Refusal, encrypt.ErrHeld)
	clear(held)
	p, err = l.guard.WouldErase(ctx, admin, a.Person.UUID())
	require.NoError(t, err)
	require.ErrorIs(t, p.Refusal, encrypt.ErrLimit, "two people, and one a day")
	p, err = l.guard.WouldErase(ctx, admin, crm.NewUUID())
	require.NoError(t, err)
	assert.Empty(t, p.Records)
	marks, _ := l.listed(t)
	assert.Zero(t, marks)
	for _, v := range []crm.UUID{a.ID.UUID(), b.ID.UUID()} {
		assert.Equal(t, crm.Clear, opens(t, l, v))
	}
}
