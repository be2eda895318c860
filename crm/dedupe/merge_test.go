package dedupe_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/driver"
	auditmem "github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"

	_ "modernc.org/sqlite"
)

// office is customers with contacts and follow-ups, and who merges them.
type office struct {
	store     crm.Store
	keeper    *encrypt.Keeper
	log       *audit.Log
	guard     *guard.Guard
	customers *guard.Records[*crm.Customer]
	contacts  *guard.Records[*crm.Contact]
	follow    *guard.Records[*crm.FollowUp]
	merges    *guard.Records[*crm.Merge]
	sharings  *guard.Records[*crm.Sharing]
	merger    *dedupe.Merger[*crm.Customer]
	persons   *cutOff
	aborted   int
}

// cutOff is a keeper that can be told to fail, as a process that ends between a merge and its persons.
type cutOff struct {
	*encrypt.Keeper
	fail error
}

func (c *cutOff) Part(ctx context.Context, tenant string, a, b [16]byte) error {
	if c.fail != nil {
		return c.fail
	}
	return c.Keeper.Part(ctx, tenant, a, b)
}

func (c *cutOff) Join(ctx context.Context, tenant string, a, b [16]byte) error {
	if c.fail != nil {
		return c.fail
	}
	return c.Keeper.Join(ctx, tenant, a, b)
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

func as(role string, n byte, team string) guard.Caller {
	return guard.Caller{Subject: authz.Subject{
		ID: crm.UUID{6: 0x70, 8: 0x80, 15: n}.String(), Tenant: "default", Roles: []string{role}, Team: team, Active: true,
	}}
}

var (
	sales   = as("sales", 1, "/east/1/")
	other   = as("sales", 2, "/east/2/")
	manager = as("manager", 3, "/east/")
	admin   = as("admin", 4, "/hq/")
	program = guard.Caller{Subject: authz.Subject{ID: "system", Tenant: "default", Roles: []string{"system"}, Active: true}}
)

func newOffice(t testing.TB) *office {
	return newOfficeOn(t, memstore.New(), keys.NewMemory(), auditmem.New(), t.TempDir())
}

// onStores runs a test in an office on each store.
func onStores(t *testing.T, test func(t *testing.T, o *office)) {
	on := func(t *testing.T, store crm.Store, err error) {
		t.Helper()
		require.NoError(t, err)
		test(t, newOfficeOn(t, store, keys.NewMemory(), auditmem.New(), t.TempDir()))
	}
	t.Run("memory", func(t *testing.T) { on(t, memstore.New(), nil) })
	t.Run("SQLite", func(t *testing.T) {
		w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "crm.db"))
		require.NoError(t, err)
		t.Cleanup(func() { r.Close(); w.Close() })
		store, err := sqlstore.Open(t.Context(), w, r, dialect.SQLite)
		on(t, store, err)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		p := realtest.Postgres(t)
		store, err := sqlstore.Open(t.Context(), p.DB, p.DB, dialect.Postgres)
		on(t, store, err)
	})
}

func newOfficeOn(t testing.TB, store crm.Store, keyStore keys.Store, events driver.Store, dir string) *office {
	t.Helper()
	ctx := t.Context()
	o := &office{store: store}
	kek, err := localkek.Open(filepath.Join(dir, "kek"), nil)
	require.NoError(t, err)
	o.keeper, err = encrypt.NewKeeper(kek, keyStore, &encrypt.Options{Grace: -1})
	require.NoError(t, err)
	signer, err := audit.NewEd25519Signer("test/log", ed25519.NewKeyFromSeed(make([]byte, 32)))
	require.NoError(t, err)
	o.log, err = audit.Open(ctx, events, signer, &audit.Options{Sealer: sealer{o.keeper}})
	require.NoError(t, err)
	policy, err := rego.New(ctx, nil)
	require.NoError(t, err)
	o.guard, o.aborted, err = guard.New(ctx, store, o.keeper, policy, o.log, nil)
	require.NoError(t, err)
	o.customers, err = guard.For[*crm.Customer](ctx, o.guard, nil)
	require.NoError(t, err)
	o.contacts, err = guard.For[*crm.Contact](ctx, o.guard, nil)
	require.NoError(t, err)
	o.follow, err = guard.For[*crm.FollowUp](ctx, o.guard, nil)
	require.NoError(t, err)
	o.merges, err = guard.For[*crm.Merge](ctx, o.guard, nil)
	require.NoError(t, err)
	o.sharings, err = guard.For[*crm.Sharing](ctx, o.guard, nil)
	require.NoError(t, err)
	o.persons = &cutOff{Keeper: o.keeper}
	o.merger = dedupe.NewMerger(o.guard, o.customers, o.merges, o.persons, &dedupe.MergeOptions{
		Program: func(string) guard.Caller { return program }, Shares: o.sharings,
		References: []dedupe.Reference{dedupe.Refers(o.contacts, "customer"), dedupe.Refers(o.follow, "customer", "subject")},
	})
	return o
}

// customer makes one with a contact and a follow-up, which c has.
func (o *office) customer(t testing.TB, c guard.Caller, name, phone, note string) *crm.Customer {
	t.Helper()
	ctx := t.Context()
	v := &crm.Customer{
		Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Name: crm.NewText(name), Phone: crm.NewText(phone), Note: crm.NewText(note), City: note,
	}
	_, err := o.customers.Create(ctx, c, v)
	require.NoError(t, err)
	_, err = o.contacts.Create(ctx, c, &crm.Contact{Customer: v.ID, Name: crm.NewText("Contact of " + name)})
	require.NoError(t, err)
	_, err = o.follow.Create(ctx, c, &crm.FollowUp{
		SubjectType: crm.TypeCustomer, Subject: v.ID.UUID(), Customer: v.ID, Channel: crm.ChannelCall, Text: crm.NewText("called"), At: time.Now(),
	})
	require.NoError(t, err)
	return v
}

func target(v *crm.Customer) dedupe.Target { return dedupe.Target{ID: v.ID.UUID(), Version: 1} }

// whole reads a customer as the program does.
func (o *office) whole(t testing.TB, v *crm.Customer) crm.Customer {
	t.Helper()
	got, err := o.customers.Get(t.Context(), program, v.ID.UUID())
	require.NoError(t, err)
	return *got.Value
}

// refers counts the contacts and follow-ups of a customer.
func (o *office) refers(t testing.TB, v *crm.Customer) int64 {
	t.Helper()
	q := guard.Query{Clauses: []crm.Clause{{Column: "customer", Op: crm.Equal, Values: []crm.Value{crm.StringValue(v.ID.String())}}}}
	n, err := o.contacts.Count(t.Context(), program, q)
	require.NoError(t, err)
	q.Clauses = append(q.Clauses, crm.Clause{Column: "subject", Op: crm.Equal, Values: q.Clauses[0].Values})
	m, err := o.follow.Count(t.Context(), program, q)
	require.NoError(t, err)
	return n + m
}

// TestMergeAndUndo merges two customers with field choice, references and persons, and takes it back but for what changed since.
//
//crm:item 12 partly
func TestMergeAndUndo(t *testing.T) { onStores(t, testMergeAndUndo) }

func testMergeAndUndo(t *testing.T, o *office) {
	ctx := t.Context()
	a, b := o.customer(t, sales, "Ann Lee", "13800135678", "Paris"), o.customer(t, sales, "Anna Lee", "13900001111", "Lyon")
	rec, err := o.merger.Merge(ctx, sales, target(a), target(b), dedupe.Choice{"phone", "city", "note"})
	require.NoError(t, err)
	assert.Equal(t, crm.MergeDone, rec.State)

	got := o.whole(t, a)
	assert.Equal(t, "Ann Lee", got.Name.Expose(), "what was not chosen stays")
	assert.Equal(t, "13900001111", got.Phone.Expose(), "though the caller sees it masked")
	assert.Equal(t, "Lyon", got.City)
	assert.EqualValues(t, 4, o.refers(t, a))
	assert.EqualValues(t, 0, o.refers(t, b))
	dropped := o.whole(t, b)
	assert.True(t, dropped.Deleted)
	kept, err := o.merger.ReplacedBy(ctx, sales, b.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, a.ID.UUID(), kept)
	joined, err := o.keeper.Joined(ctx, "default", a.Person)
	require.NoError(t, err)
	assert.Len(t, joined, 2)

	// The record shows nothing of what it keeps, is made by acts and never changed.
	view, err := o.merges.Get(ctx, admin, rec.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, crm.Hidden, view.Value.Before.State())
	assert.NotContains(t, view.Value.Moved+view.Value.Taken, "138001")
	forged := *rec
	forged.ID = crm.ID[crm.Merge]{}
	_, err = o.merges.Create(ctx, admin, &forged)
	require.True(t, guard.Denied(err))
	next := *view.Value
	next.Moved = "[]"
	_, err = o.merges.Update(ctx, admin, &next)
	require.Error(t, err)

	// A change since the merge stays, and is reported.
	later, err := o.customers.Get(ctx, manager, a.ID.UUID())
	require.NoError(t, err)
	later.Value.City = "Nice"
	_, err = o.customers.Update(ctx, manager, later.Value)
	require.NoError(t, err)
	out, err := o.merger.Undo(ctx, sales, rec.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, &dedupe.Undone{Fields: []string{"note", "phone"}, Changed: []string{"city"}, Moved: 2}, out)
	got = o.whole(t, a)
	assert.Equal(t, "13800135678", got.Phone.Expose())
	assert.Equal(t, "Nice", got.City)
	got = o.whole(t, b)
	assert.False(t, got.Deleted)
	assert.Equal(t, "13900001111", got.Phone.Expose())
	assert.EqualValues(t, 2, o.refers(t, a))
	assert.EqualValues(t, 2, o.refers(t, b))
	joined, err = o.keeper.Joined(ctx, "default", a.Person)
	require.NoError(t, err)
	assert.Len(t, joined, 1, "they are two humans again")
	_, err = o.merger.ReplacedBy(ctx, sales, b.ID.UUID())
	require.ErrorIs(t, err, crm.ErrNotFound)
	_, err = o.merger.Undo(ctx, sales, rec.ID.UUID())
	refused(t, err, "undone")

	// Merged again, joined again.
	_, err = o.merger.Merge(ctx, sales, dedupe.Target{ID: a.ID.UUID(), Version: o.whole(t, a).Version}, dedupe.Target{ID: b.ID.UUID(), Version: o.whole(t, b).Version}, nil)
	require.NoError(t, err)
	joined, err = o.keeper.Joined(ctx, "default", a.Person)
	require.NoError(t, err)
	assert.Len(t, joined, 2)
}

func refused(t testing.TB, err error, why string) {
	t.Helper()
	var r *dedupe.Refusal
	require.ErrorAs(t, err, &r)
	assert.Equal(t, why, r.Why)
}

func TestMergeRefused(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	a, b, theirs := o.customer(t, sales, "A", "1", ""), o.customer(t, sales, "B", "2", ""), o.customer(t, other, "C", "3", "")
	for what, do := range map[string]func() error{
		"itself": func() error { _, err := o.merger.Merge(ctx, sales, target(a), target(a), nil); return err },
		"no field": func() error {
			_, err := o.merger.Merge(ctx, sales, target(a), target(b), dedupe.Choice{"ssn"})
			return err
		},
		"the header": func() error {
			_, err := o.merger.Merge(ctx, sales, target(a), target(b), dedupe.Choice{"owner"})
			return err
		},
		"an old one": func() error {
			_, err := o.merger.Merge(ctx, sales, dedupe.Target{ID: a.ID.UUID(), Version: 9}, target(b), nil)
			return err
		},
		"another's":    func() error { _, err := o.merger.Merge(ctx, sales, target(a), target(theirs), nil); return err },
		"into another": func() error { _, err := o.merger.Merge(ctx, sales, target(theirs), target(a), nil); return err },
		"an auditor": func() error {
			_, err := o.merger.Merge(ctx, as("auditor", 9, ""), target(a), target(b), nil)
			return err
		},
	} {
		require.Error(t, do(), what)
	}
	// Something refers to it that the caller may not see: all of it is refused.
	_, err := o.contacts.Create(ctx, other, &crm.Contact{Customer: b.ID, Name: crm.NewText("D")})
	require.NoError(t, err)
	_, err = o.merger.Merge(ctx, sales, target(a), target(b), nil)
	require.True(t, guard.Denied(err))
	assert.Equal(t, int64(1), o.whole(t, a).Version)
	assert.False(t, o.whole(t, b).Deleted)
	_, err = o.merger.Merge(ctx, manager, target(a), target(b), nil)
	require.NoError(t, err)
}

// Erasing one side erases both, and an undoing brings nothing back.
func TestUndoNeverBringsTheErasedBack(t *testing.T) { onStores(t, testErased) }

func testErased(t *testing.T, o *office) {
	for _, first := range []bool{true, false} {
		ctx := t.Context()
		a, b := o.customer(t, sales, "Ann", "13800135678", "Paris"), o.customer(t, sales, "Anna", "13900001111", "Lyon")
		rec, err := o.merger.Merge(ctx, sales, target(a), target(b), dedupe.Choice{"phone"})
		require.NoError(t, err)
		person := a.Person
		if !first {
			person = b.Person
		}
		_, err = o.keeper.Erase(ctx, "default", person, nil)
		require.NoError(t, err)
		for _, v := range []*crm.Customer{a, b} {
			got := o.whole(t, v)
			assert.NotEqual(t, crm.Clear, got.Phone.State(), "of both")
		}
		_, err = o.merger.Undo(ctx, sales, rec.ID.UUID())
		refused(t, err, "erased")
		assert.True(t, o.whole(t, b).Deleted)
	}
}

func TestUndoAfterPurge(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	a, b := o.customer(t, sales, "Ann", "13800135678", "Paris"), o.customer(t, sales, "Anna", "13900001111", "Lyon")
	rec, err := o.merger.Merge(ctx, sales, target(a), target(b), nil)
	require.NoError(t, err)
	require.NoError(t, o.customers.Restore(ctx, sales, b.ID.UUID(), 2))
	_, err = o.merger.Undo(ctx, sales, rec.ID.UUID())
	refused(t, err, "gone")
	require.NoError(t, o.customers.Delete(ctx, sales, b.ID.UUID(), 3))
	require.NoError(t, o.customers.Purge(ctx, program, b.ID.UUID(), 4))
	_, err = o.merger.Undo(ctx, sales, rec.ID.UUID())
	refused(t, err, "gone")
	_, err = o.merger.Undo(ctx, other, rec.ID.UUID())
	require.ErrorIs(t, err, crm.ErrNotFound)
}

// A merge of which a record was purged goes too, with what it kept, so that nothing of it names a person any more; the others stay.
func TestSweep(t *testing.T) { onStores(t, testSweep) }

func testSweep(t *testing.T, o *office) {
	ctx := t.Context()
	var recs []*crm.Merge
	var dropped []*crm.Customer
	for range 3 {
		a, b := o.customer(t, sales, "Ann", "13800135678", "Paris"), o.customer(t, sales, "Anna", "13900001111", "Lyon")
		rec, err := o.merger.Merge(ctx, sales, target(a), target(b), dedupe.Choice{"phone"})
		require.NoError(t, err)
		recs, dropped = append(recs, rec), append(dropped, b)
	}
	_, err := o.merger.Undo(ctx, sales, recs[2].ID.UUID())
	require.NoError(t, err)
	n, err := o.merger.Sweep(ctx, program, time.Now().Add(time.Hour))
	require.NoError(t, err)
	assert.Zero(t, n, "one in the bin, one undone")
	require.NoError(t, o.customers.Purge(ctx, program, dropped[0].ID.UUID(), 2))
	n, err = o.merger.Sweep(ctx, program, time.Now().Add(-time.Hour))
	require.NoError(t, err)
	assert.Zero(t, n, "not yet")
	_, err = o.merger.Sweep(ctx, sales, time.Now().Add(time.Hour))
	require.True(t, guard.Denied(err), "not by just anybody")
	n, err = o.merger.Sweep(ctx, program, time.Now().Add(time.Hour))
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	_, err = o.merges.Get(ctx, program, recs[0].ID.UUID())
	require.ErrorIs(t, err, crm.ErrNotFound)
	for _, rec := range recs[1:] {
		_, err = o.merges.Get(ctx, program, rec.ID.UUID())
		require.NoError(t, err)
	}
}

// A merge that is cut off before its persons are joined is made up for.
func TestResume(t *testing.T) { onStores(t, testResume) }

func testResume(t *testing.T, o *office) {
	ctx := t.Context()
	a, b := o.customer(t, sales, "Ann", "13800135678", "Paris"), o.customer(t, sales, "Anna", "13900001111", "Lyon")
	o.persons.fail = errors.New("the power is out")
	_, err := o.merger.Merge(ctx, sales, target(a), target(b), nil)
	require.ErrorIs(t, err, o.persons.fail)
	n, err := o.merger.Resume(ctx, program)
	require.ErrorIs(t, err, o.persons.fail, "it says so while it cannot")
	assert.Zero(t, n)
	joined, err := o.keeper.Joined(ctx, "default", a.Person)
	require.NoError(t, err)
	assert.Len(t, joined, 1)
	o.persons.fail = nil
	n, err = o.merger.Resume(ctx, program)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	joined, err = o.keeper.Joined(ctx, "default", a.Person)
	require.NoError(t, err)
	assert.Len(t, joined, 2)
	n, err = o.merger.Resume(ctx, program)
	require.NoError(t, err)
	assert.Zero(t, n)

	// An undoing that is cut off before the persons are parted.
	page, err := o.merges.List(ctx, program, guard.Query{Limit: 2})
	require.NoError(t, err)
	require.Len(t, page.Items, 1)
	id := page.Items[0].Value.ID.UUID()
	o.persons.fail = errors.New("the power is out")
	_, err = o.merger.Undo(ctx, sales, id)
	require.ErrorIs(t, err, o.persons.fail)
	o.persons.fail = nil
	_, err = o.merger.Undo(ctx, sales, id)
	refused(t, err, "undone")
	n, err = o.merger.Resume(ctx, program)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	joined, err = o.keeper.Joined(ctx, "default", a.Person)
	require.NoError(t, err)
	assert.Len(t, joined, 1)
}

// TestCheck finds English and Chinese names in other spellings on sealed fields, and tells of another's record whom to ask.
//
//crm:item 12 partly
func TestCheck(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	checker, err := dedupe.New(o.customers, nil, nil)
	require.NoError(t, err)
	mine, theirs := o.customer(t, sales, "曾小明", "13800135678", ""), o.customer(t, other, "Stephen Wright", "+44 7400 123456", "")
	for _, tc := range []struct {
		name, phone string
		want        *crm.Customer
	}{
		{"Zeng Xiaoming", "138-0013-5678", mine}, {"曾曉明", "+86 13800135678", mine}, {"Steven Right", "+447400123456", theirs}, {"WRIGHT, Stephen", "0044 7400 123456", theirs},
		{"Bob Ray", "13800135678", nil}, {"曾小明", "13700000000", nil}, {"Nobody", "", nil},
	} {
		v := &crm.Customer{Kind: crm.PersonCustomer, Name: crm.NewText(tc.name), Phone: crm.NewText(tc.phone)}
		got, err := checker.Check(ctx, sales, v)
		require.NoError(t, err)
		if tc.want == nil {
			assert.Empty(t, got, tc.name)
			continue
		}
		require.Len(t, got, 1, tc.name)
		assert.Equal(t, guard.Certain, got[0].Band, tc.name)
		if tc.want == mine {
			assert.Equal(t, mine.ID.UUID(), got[0].ID)
			assert.Contains(t, got[0].Why, "phone: normalised")
		} else {
			assert.Equal(t, dedupe.Match{Band: guard.Certain, Owner: theirs.Owner.UUID()}, got[0])
		}
	}
	// Of a masked field only equality counts: a name that is merely near one is none, for who does not see it.
	near := &crm.Customer{Kind: crm.PersonCustomer, Name: crm.NewText("Stephenn Wrighton"), Phone: crm.NewText("+447400123456")}
	got, err := checker.Check(ctx, sales, near)
	require.NoError(t, err)
	assert.Empty(t, got)
	got, err = checker.Check(ctx, admin, near)
	require.NoError(t, err)
	assert.Len(t, got, 1)

	var pairs []guard.Pair
	o.customer(t, sales, "Steven Wright", "+447400123456", "")
	rep, err := checker.All(ctx, program, nil, func(p guard.Pair) error { pairs = append(pairs, p); return nil })
	require.NoError(t, err)
	assert.Len(t, pairs, 1)
	assert.EqualValues(t, 1, rep.Certain)
}
