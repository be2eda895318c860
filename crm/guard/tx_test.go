package guard_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
)

var program = as("system", "system", "")

func denied(t testing.TB, err error, control string) {
	t.Helper()
	var d *authz.DeniedError
	require.ErrorAs(t, err, &d)
	assert.Contains(t, d.Controls, control)
}

func TestTxIsAllOrNothing(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	contracts, err := guard.For[*crm.Contract](ctx, r.guard, nil)
	require.NoError(t, err)
	a := r.add(t, sales, "A", "13800135678", "a@example.com")
	count := func() int64 {
		n, err := r.customers.Count(ctx, sales, guard.Query{})
		require.NoError(t, err)
		return n
	}
	made := func(tx *guard.Tx) *crm.Customer {
		v := customer("B", "13900000000", "b@example.com")
		require.NoError(t, r.customers.CreateIn(ctx, tx, v))
		return v
	}

	// One event for writes of two types, and both are there.
	tx := r.guard.Begin(sales, "customer.win")
	b := made(tx)
	k := &crm.Contract{Number: "C-1", Customer: b.ID, Amount: 1, Currency: "CNY", State: crm.ContractDraft}
	require.NoError(t, contracts.CreateIn(ctx, tx, k))
	next := *a.Value
	next.City = "Paris"
	require.NoError(t, r.customers.UpdateIn(ctx, tx, &next))
	assert.EqualValues(t, 1, next.Version, "not before the commit")
	event, err := tx.Commit(ctx)
	require.NoError(t, err)
	assert.EqualValues(t, 2, next.Version)
	e := r.last(t)
	assert.Equal(t, "customer.win", e.Action)
	assert.Equal(t, audit.Intended, e.Outcome)
	require.Len(t, e.Targets, 3)
	assert.Equal(t, crm.TypeContract, e.Targets[1].Type)
	assert.NotEmpty(t, e.Controls)
	assert.NotZero(t, event)
	assert.EqualValues(t, 2, count())

	// A conflict, a limit, a refusal by the store: nothing of it.
	tx = r.guard.Begin(sales, "customer.win")
	made(tx)
	old := *a.Value
	err = r.customers.UpdateIn(ctx, tx, &old)
	require.ErrorIs(t, err, crm.ErrConflict)
	tx = r.guard.Begin(sales, "customer.win")
	made(tx)
	require.NoError(t, r.customers.DeleteIn(ctx, tx, next.ID.UUID(), 2))
	again := next
	again.City = "Lyon"
	_, err = r.customers.Update(ctx, sales, &again)
	require.NoError(t, err)
	_, err = tx.Commit(ctx)
	require.ErrorIs(t, err, crm.ErrConflict)
	assert.EqualValues(t, 2, count())
	own := errors.New("two are enough")
	tx = r.guard.Begin(sales, "customer.win")
	made(tx)
	tx.Require(crm.Limit{Of: []crm.Measure{{Type: crm.TypeCustomer}}, Value: 99}, errors.New("another"))
	tx.Require(crm.Limit{Of: []crm.Measure{{Type: crm.TypeCustomer}}, Value: 2}, own)
	_, err = tx.Commit(ctx)
	require.ErrorIs(t, err, own)
	assert.Equal(t, audit.Aborted, r.last(t).Outcome)
	assert.EqualValues(t, 2, count())

	// A refusal by the policy is in the log at once.
	tx = r.guard.Begin(other, "customer.win")
	require.ErrorIs(t, r.customers.DeleteIn(ctx, tx, next.ID.UUID(), 3), crm.ErrNotFound)
	tx = r.guard.Begin(as("support", crm.NewUUID().String(), "/east/1/"), "customer.win")
	require.Error(t, r.customers.CreateIn(ctx, tx, customer("C", "1", "")))
	assert.Equal(t, audit.Denied, r.last(t).Outcome)

	// How it is not used.
	_, err = tx.Commit(ctx)
	require.ErrorIs(t, err, guard.ErrTx, "nothing in it")
	tx = r.guard.Begin(sales, "customer.win")
	v := made(tx)
	require.ErrorIs(t, r.customers.DeleteIn(ctx, tx, v.ID.UUID(), 1), crm.ErrNotFound)
	require.NoError(t, r.customers.DeleteIn(ctx, tx, next.ID.UUID(), 3))
	require.ErrorIs(t, r.customers.DeleteIn(ctx, tx, next.ID.UUID(), 3), guard.ErrTx)
	_, err = tx.Commit(ctx)
	require.NoError(t, err)
	_, err = tx.Commit(ctx)
	require.ErrorIs(t, err, guard.ErrTx)
	tx = r.guard.Begin(sales, "customer.many")
	for range guard.MaxBatch {
		made(tx)
	}
	require.ErrorIs(t, r.customers.CreateIn(ctx, tx, customer("D", "1", "")), guard.ErrTx)
}

// The log is down: nothing is stored, of one type or of two.
func TestTxNeedsTheLog(t *testing.T) {
	r := newRig(t)
	tx := r.guard.Begin(sales, "customer.win")
	require.NoError(t, r.customers.CreateIn(t.Context(), tx, customer("B", "13900000000", "")))
	r.log.fail = errors.New("the disk is full")
	_, err := tx.Commit(t.Context())
	require.ErrorIs(t, err, r.log.fail)
	r.log.fail = nil
	n, err := r.customers.Count(t.Context(), sales, guard.Query{})
	require.NoError(t, err)
	assert.Zero(t, n)
}

func TestReservedFields(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	v := r.add(t, sales, "A", "13800135678", "a@example.com").Value
	for what, edit := range map[string]func(*crm.Customer){
		"pool": func(c *crm.Customer) { c.Pool, c.ClaimedAt = eastPool, c.CreatedAt },
		"former": func(c *crm.Customer) {
			c.Pool, c.ClaimedAt, c.Former, c.ReturnedAt = eastPool, c.CreatedAt, c.Owner, c.CreatedAt
		},
	} {
		next := *v
		edit(&next)
		_, err := r.customers.Update(ctx, admin, &next)
		denied(t, err, "fields.reserved")
		fresh := *customer("B", "1", "")
		fresh.Owner, fresh.CreatedAt = v.Owner, v.CreatedAt
		edit(&fresh)
		_, err = r.customers.Create(ctx, admin, &fresh)
		require.Error(t, err, what)
	}
	next := *v
	next.Owner = crm.ID[crm.Employee](wu)
	_, err := r.customers.Update(ctx, admin, &next)
	denied(t, err, "fields.reserved")

	// An act that hands nothing over leaves the owner as they are.
	require.NoError(t, r.customers.Act(ctx, admin, authz.Update, v.ID.UUID(), 1, func(c *crm.Customer) error {
		c.Owner, c.Team, c.City = crm.ID[crm.Employee](wu), "/west/", "Paris"
		return nil
	}))
	got, err := r.customers.Get(ctx, sales, v.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, v.Owner, got.Value.Owner)
	assert.Equal(t, "/east/1/", got.Value.Team)
	assert.Equal(t, "Paris", got.Value.City)
}

func TestWhoChangedItHasAPartInIt(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	contracts, err := guard.For[*crm.Contract](ctx, r.guard, nil)
	require.NoError(t, err)
	k := &crm.Contract{Number: "C-1", Customer: crm.ID[crm.Customer](crm.NewUUID()), Amount: 1, Currency: "CNY", State: crm.ContractDraft}
	k.SignatoryPerson, k.Signatory = crm.ID[crm.Person](crm.NewUUID()), crm.NewText("Ann")
	k.Starts, k.Ends = fixed, fixed.AddDate(1, 0, 0)
	v, err := contracts.Create(ctx, sales, k)
	require.NoError(t, err)
	assert.Equal(t, "<"+sales.Subject.ID+">", v.Value.Actors)
	approve := func(c guard.Caller) error {
		by, err := crm.ParseUUID(c.Subject.ID)
		require.NoError(t, err)
		return contracts.Act(ctx, c, authz.Approve, v.Value.ID.UUID(), 0, func(k *crm.Contract) error { return k.Approve(crm.ID[crm.Employee](by), fixed) })
	}
	edited := *v.Value
	edited.Amount = 2
	_, err = contracts.Update(ctx, manager, &edited)
	require.NoError(t, err)
	denied(t, approve(manager), "sod.dynamic")
	edited.Actors = ""
	_, err = contracts.Update(ctx, manager, &edited)
	denied(t, err, "update.attributes")
	require.NoError(t, approve(admin))
}

func TestPurge(t *testing.T) {
	held := map[crm.UUID]bool{}
	r := newRigOn(t, memstore.New(), keys.NewMemory(), &encrypt.Options{
		Grace: -1,
		Held: func(_ context.Context, _ string, person [16]byte, _ []keys.Retention) (bool, error) {
			return held[crm.UUID(person)], nil
		},
	})
	ctx := t.Context()
	v := r.add(t, sales, "A", "13800135678", "a@example.com").Value
	twin := customer("A again", "13800135678", "a@example.com")
	twin.Person = v.Person
	_, err := r.customers.Create(ctx, sales, twin)
	require.NoError(t, err)
	id := v.ID.UUID()

	require.ErrorIs(t, r.customers.Purge(ctx, admin, id, 1), crm.ErrNotFound, "it lives")
	require.NoError(t, r.customers.Delete(ctx, sales, id, 1))
	denied(t, r.customers.Purge(ctx, sales, id, 2), "access.granted")
	require.ErrorIs(t, r.customers.Purge(ctx, other, id, 2), crm.ErrNotFound)
	require.ErrorIs(t, r.customers.Purge(ctx, admin, id, 1), crm.ErrConflict)
	require.NoError(t, r.customers.Purge(ctx, program, id, 2))

	stored := func() crm.Row {
		rows, err := r.store.Store.Load(ctx, "default", crm.TypeCustomer, []crm.UUID{id})
		require.NoError(t, err)
		return rows[0]
	}
	assert.Empty(t, stored().Sealed)
	set := 0
	for _, value := range stored().Clear {
		if value.Kind() != 0 {
			set++
		}
	}
	assert.Equal(t, 1, set, "when it was purged, until its person is forgotten")
	for name, do := range map[string]func() error{
		"get":     func() error { _, err := r.customers.Get(ctx, program, id); return err },
		"restore": func() error { return r.customers.Restore(ctx, admin, id, 3) },
		"purge":   func() error { return r.customers.Purge(ctx, admin, id, 3) },
		"reveal":  func() error { _, err := r.customers.Reveal(ctx, because(admin, "why"), id, "phone"); return err },
	} {
		assert.ErrorIs(t, do(), crm.ErrNotFound, name)
	}
	page, err := r.customers.List(ctx, program, guard.Query{Bin: true})
	require.NoError(t, err)
	assert.Empty(t, page.Items)

	// Their other record still names them.
	_, err = r.guard.Forget(ctx, sales)
	denied(t, err, "access.granted")
	done, err := r.guard.Forget(ctx, program)
	require.NoError(t, err)
	assert.Empty(t, done.Destroyed)
	assert.Empty(t, stored().Persons, "the other record will see to them")
	got, err := r.customers.Get(ctx, program, twin.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, "A again", got.Value.Name.Expose())
	require.NoError(t, r.customers.Delete(ctx, sales, twin.ID.UUID(), 1))
	done, err = r.guard.Forget(ctx, program)
	require.NoError(t, err)
	assert.Empty(t, done.Destroyed, "what is in the bin may come back")

	// A hold keeps record and keys; the brake keeps keys, and a later call makes up for it.
	held[v.Person.UUID()] = true
	denied(t, r.customers.Purge(ctx, program, twin.ID.UUID(), 2), "hold.free")
	clear(held)
	require.NoError(t, r.customers.Purge(ctx, program, twin.ID.UUID(), 2))
	held[v.Person.UUID()] = true
	done, err = r.guard.Forget(ctx, program)
	require.ErrorIs(t, err, encrypt.ErrHeld)
	assert.Empty(t, done.Destroyed)
	clear(held)
	done, err = r.guard.Forget(ctx, program)
	require.NoError(t, err)
	assert.Equal(t, []crm.UUID{v.Person.UUID()}, done.Destroyed)
	done, err = r.guard.Forget(ctx, program)
	require.NoError(t, err)
	assert.Empty(t, done.Destroyed, "once")

	// A type that another program made has no door here.
	require.NoError(t, r.store.Store.Declare(ctx, crm.Schema{Type: "stranger"}))
	_, err = r.guard.Forget(ctx, program)
	require.ErrorContains(t, err, "stranger")
}

// TestForgetAfterGrace: during the grace the keys are blocked, and a record that is made meanwhile is refused.
func TestForgetAfterGrace(t *testing.T) {
	now := time.Now()
	r := newRigOn(t, memstore.New(), keys.NewMemory(), &encrypt.Options{Grace: time.Hour, Now: func() time.Time { return now }})
	ctx := t.Context()
	v := r.add(t, sales, "A", "13800135678", "").Value
	require.NoError(t, r.customers.Delete(ctx, sales, v.ID.UUID(), 1))
	require.NoError(t, r.customers.Purge(ctx, program, v.ID.UUID(), 2))
	done, err := r.guard.Forget(ctx, program)
	require.NoError(t, err)
	assert.Empty(t, done.Destroyed)
	assert.Equal(t, []crm.UUID{v.Person.UUID()}, done.Blocked)
	twin := customer("A again", "13800135678", "")
	twin.Person = v.Person
	_, err = r.customers.Create(ctx, sales, twin)
	require.ErrorIs(t, err, encrypt.ErrBlocked)
	now = now.Add(2 * time.Hour)
	done, err = r.guard.Forget(ctx, program)
	require.NoError(t, err)
	assert.Equal(t, []crm.UUID{v.Person.UUID()}, done.Destroyed)
}

// TestCancelledWriteIsSettled: who goes away while a write is announced keeps no later one from counting as settled.
func TestCancelledWriteIsSettled(t *testing.T) {
	r := newRig(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.customers.Create(gone, sales, customer("A", "1", ""))
	require.ErrorIs(t, err, context.Canceled)
	r.add(t, sales, "B", "13800135678", "")
	last := r.add(t, sales, "C", "13900135678", "")
	require.NoError(t, r.guard.Settle(t.Context()))
	e := r.last(t)
	assert.Equal(t, "guard.settled", e.Action)
	assert.Greater(t, e.Ref+3, last.Event, "up to the last announcement")
}

func TestGroup(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	for i := range 12 {
		v := customer(fmt.Sprintf("N%d", i), fmt.Sprintf("1380000%04d", i), "")
		v.City, v.OpenValue, v.Currency = "Shanghai", int64(i), "CNY"
		if i > 8 {
			v.City = "Paris"
		}
		_, err := r.customers.Create(ctx, sales, v)
		require.NoError(t, err)
	}
	q := guard.Grouping{By: []string{"city"}, Sums: []string{"open_value"}}
	for _, c := range []guard.Caller{sales, other, as("auditor", crm.NewUUID().String(), "")} {
		_, err := r.customers.Group(ctx, c, q)
		denied(t, err, "access.granted")
	}
	got, err := r.customers.Group(ctx, manager, guard.Grouping{Sums: []string{"open_value"}})
	require.NoError(t, err)
	require.Len(t, got.Groups, 1)
	assert.EqualValues(t, 12, got.Groups[0].Count)
	assert.EqualValues(t, 66, got.Groups[0].Sums[0])
	e := r.last(t)
	assert.Equal(t, "customer.aggregate", e.Action)
	assert.Equal(t, []string{"open_value"}, e.Fields)
	assert.Empty(t, e.Targets)

	// Three in Paris are few: they are left out, and Shanghai with them, from which they would follow.
	got, err = r.customers.Group(ctx, manager, q)
	require.NoError(t, err)
	assert.Empty(t, got.Groups)
	assert.Equal(t, 2, got.Hidden)
	paris := crm.Clause{Column: "city", Op: crm.Equal, Values: []crm.Value{crm.StringValue("Paris")}}
	for _, clause := range []crm.Clause{paris, {Column: "city", Op: crm.NotEqual, Values: paris.Values}} {
		got, err = r.customers.Group(ctx, manager, guard.Grouping{Clauses: []crm.Clause{clause}, Sums: []string{"open_value"}})
		require.NoError(t, err)
		assert.Empty(t, got.Groups, "neither the few nor all others")
		assert.Equal(t, 1, got.Hidden)
	}
	west := as("manager", crm.NewUUID().String(), "/west/")
	got, err = r.customers.Group(ctx, west, guard.Grouping{Sums: []string{"open_value"}})
	require.NoError(t, err)
	assert.Zero(t, got.Groups[0].Count, "of other teams")

	for _, bad := range []guard.Grouping{
		{By: []string{"phone"}}, {By: []string{"no_such"}}, {Sums: []string{"id_number"}}, {Clauses: []crm.Clause{{Column: "phone", Op: crm.NotNull}}},
	} {
		_, err := r.customers.Group(ctx, manager, bad)
		require.ErrorIs(t, err, encrypt.ErrUnsupported)
	}
	_, err = r.customers.Group(ctx, manager, guard.Grouping{Sums: []string{"city"}})
	require.Error(t, err)
	employees, err := guard.For[*crm.Employee](ctx, r.guard, nil)
	require.NoError(t, err)
	_, err = employees.Group(ctx, manager, guard.Grouping{})
	denied(t, err, "access.granted")
	r.log.fail = errors.New("the disk is full")
	_, err = r.customers.Group(ctx, manager, q)
	require.ErrorIs(t, err, r.log.fail)
}

func TestBrowseShowsAMask(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	v := r.add(t, admin, "Ann Lee", "13800135678", "a@example.com").Value
	require.NoError(t, r.customers.Act(ctx, admin, authz.Enter, v.ID.UUID(), 1, func(c *crm.Customer) error {
		c.Owner, c.Pool, c.FreeIn = crm.ID[crm.Employee]{}, eastPool, eastPool
		return nil
	}))
	member := sales
	member.Subject.Pools = []string{eastPool.String()}
	page, err := r.customers.List(ctx, member, guard.Query{Browse: true, Hide: []string{"name"}})
	require.NoError(t, err)
	require.Len(t, page.Items, 1)
	assert.Equal(t, crm.Masked, page.Items[0].Value.Phone.State())
	assert.Equal(t, crm.Hidden, page.Items[0].Value.Name.State())
	assert.Equal(t, crm.Hidden, page.Items[0].Value.IDNumber.State())
	n, err := r.customers.Count(ctx, member, guard.Query{Browse: true})
	require.NoError(t, err)
	assert.EqualValues(t, 1, n)
	for _, c := range []guard.Caller{sales, other, as("support", crm.NewUUID().String(), "")} {
		_, err := r.customers.List(ctx, c, guard.Query{Browse: true})
		denied(t, err, "access.granted")
	}
	page, err = r.customers.List(ctx, member, guard.Query{})
	require.NoError(t, err)
	assert.Empty(t, page.Items)
	_, err = r.customers.Get(ctx, member, v.ID.UUID())
	require.ErrorIs(t, err, crm.ErrNotFound)
	require.ErrorIs(t, r.customers.Delete(ctx, other, v.ID.UUID(), 2), crm.ErrNotFound)
	denied(t, r.customers.Delete(ctx, member, v.ID.UUID(), 2), "access.granted") // they know of it
}

// TestTxRehearse: a rehearsal answers what a commit would, and leaves no row and no announcement.
func TestTxRehearse(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	admin := as("admin", "a1", "/hq/")
	admin.Subject.ID = crm.NewUUID().String()
	begin := func(names ...string) (*guard.Tx, []*crm.Customer) {
		var all []*crm.Customer
		for _, n := range names {
			all = append(all, customer(n, "13900000000", "b@example.com"))
		}
		tx := r.guard.Begin(admin, "customer.import")
		errs, err := r.customers.ImportIn(ctx, tx, all)
		require.NoError(t, err)
		for i := range errs {
			require.NoError(t, errs[i])
		}
		return tx, all
	}
	count := func() int64 {
		n, err := r.customers.Count(ctx, admin, guard.Query{})
		require.NoError(t, err)
		return n
	}
	tx, _ := begin("A", "B")
	assert.Equal(t, 2, tx.Len())
	_, err := tx.Rehearse(ctx)
	require.NoError(t, err)
	e := r.last(t)
	assert.Equal(t, "customer.import.rehearsed", e.Action)
	assert.Equal(t, audit.Allowed, e.Outcome, "no announcement, which the store would lack")
	assert.EqualValues(t, 2, e.Count)
	assert.Empty(t, e.Targets)
	assert.Zero(t, count())
	_, err = tx.Commit(ctx)
	require.ErrorIs(t, err, guard.ErrTx, "it is over")

	// What the policy refuses is not in it, and what the store refuses is named and can be left out.
	errs, err := r.customers.ImportIn(ctx, r.guard.Begin(sales, "customer.import"), []*crm.Customer{customer("S", "13900000000", "s@example.com")})
	require.NoError(t, err)
	assert.True(t, guard.Denied(errs[0]), "sales import no customers")
	nameless := customer("", "13900000000", "n@example.com")
	errs, err = r.customers.ImportIn(ctx, r.guard.Begin(admin, "customer.import"), []*crm.Customer{nameless})
	require.NoError(t, err)
	var invalid *crm.InvalidError
	require.ErrorAs(t, errs[0], &invalid)
	tx, all := begin("C", "D")
	first := tx.Copy()
	require.True(t, first.Drop(crm.TypeCustomer, all[1].ID.UUID()))
	require.False(t, first.Drop(crm.TypeCustomer, all[1].ID.UUID()), "once")
	_, err = first.Commit(ctx)
	require.NoError(t, err)
	for _, do := range []func(*guard.Tx) error{
		func(tx *guard.Tx) error { _, err := tx.Rehearse(ctx); return err },
		func(tx *guard.Tx) error { _, err := tx.Commit(ctx); return err },
	} {
		try := tx.Copy()
		require.ErrorIs(t, do(try), crm.ErrConflict, "C is there")
		typ, id, ok := try.Refused()
		require.True(t, ok)
		assert.Equal(t, crm.TypeCustomer, typ)
		assert.Equal(t, all[0].ID.UUID(), id)
	}
	require.True(t, tx.Drop(crm.TypeCustomer, all[0].ID.UUID()))
	_, err = tx.Commit(ctx)
	require.NoError(t, err)
	assert.EqualValues(t, 2, count())

	// A value whose update was dropped stays as it was given.
	upd := r.guard.Begin(admin, "customer.update")
	var given []*crm.Customer
	for i := range 2 {
		v, err := r.customers.Get(ctx, admin, []crm.UUID{named(t, r, "C"), named(t, r, "D")}[i])
		require.NoError(t, err)
		v.Value.City = "Bern"
		require.NoError(t, r.customers.UpdateIn(ctx, upd, v.Value))
		given = append(given, v.Value)
	}
	require.True(t, upd.Drop(crm.TypeCustomer, given[0].ID.UUID()))
	_, err = upd.Commit(ctx)
	require.NoError(t, err)
	assert.EqualValues(t, []int64{1, 2}, []int64{given[0].Version, given[1].Version})
	errs, err = r.customers.ImportIn(ctx, tx, nil)
	require.ErrorIs(t, err, guard.ErrTx)
	assert.Nil(t, errs)
}

// named finds the customer of a name.
func named(t *testing.T, r *rig, name string) crm.UUID {
	t.Helper()
	p, err := r.customers.Search(t.Context(), admin, name, 1, "name")
	require.NoError(t, err)
	require.NotEmpty(t, p.Items)
	return p.Items[0].Value.ID.UUID()
}
