package desk_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
)

// employed makes the record of an employee who calls, and returns how to have them leave: by an update, and by an act.
func (o *office) employed(t testing.TB, c guard.Caller) (door *guard.Records[*crm.Employee], leave func(by guard.Caller) error) {
	t.Helper()
	door, err := guard.For[*crm.Employee](t.Context(), o.guard, nil)
	require.NoError(t, err)
	e := &crm.Employee{Meta: crm.Meta[crm.Employee]{ID: self(c), Team: c.Subject.Team}, Name: crm.NewText("Lee Leaver"), Email: crm.NewText("lee@example.com"), State: crm.EmployeeActive}
	_, err = door.Create(t.Context(), o.admin, e)
	require.NoError(t, err)
	return door, func(by guard.Caller) error {
		v, err := door.Get(t.Context(), by, e.ID.UUID())
		require.NoError(t, err)
		require.NoError(t, v.Value.Move(crm.EmployeeLeft, o.clock()))
		_, err = door.Update(t.Context(), by, v.Value)
		return err
	}
}

func leaves(t testing.TB, err error, want map[string]int) {
	t.Helper()
	var left *crm.LeftOverError
	require.ErrorAs(t, err, &left)
	assert.Equal(t, want, left.Records)
	for _, word := range []string{"Lee", "Buyer", "138"} {
		assert.NotContains(t, err.Error(), word)
	}
}

// TestWallLeaving: nobody leaves who still owns records, by an update, an act or with other writes; what they have is handed over, all of it, by who may.
func TestWallLeaving(t *testing.T) { each(t, testLeaving) }

func testLeaving(t *testing.T, o *office) {
	ctx := t.Context()
	door, leave := o.employed(t, o.sales)
	k := o.customer(t, o.sales, "Buyer")
	inPool := o.pool(t, nil)
	pooled := o.customer(t, in(o.manager, inPool), "Buyer of a pool")
	owned := o.customer(t, o.sales, "Second buyer")
	require.NoError(t, o.Customers.Delete(ctx, o.sales, owned.ID.UUID(), 1))
	_, err := o.Contacts.Create(ctx, o.sales, &crm.Contact{Customer: k.ID, Name: crm.NewText("Contact of Buyer")})
	require.NoError(t, err)
	q := o.quote(t, k, 0)

	leaves(t, leave(o.admin), map[string]int{crm.TypeCustomer: 1, crm.TypeContact: 1, crm.TypeQuote: 1})
	leaves(t, door.Act(ctx, o.admin, authz.Update, k.Owner.UUID(), 0, func(e *crm.Employee) error { return e.Move(crm.EmployeeLeft, o.clock()) }),
		map[string]int{crm.TypeCustomer: 1, crm.TypeContact: 1, crm.TypeQuote: 1})
	v, err := door.Get(ctx, o.admin, k.Owner.UUID())
	require.NoError(t, err)
	assert.Equal(t, crm.EmployeeActive, v.Value.State)
	require.NoError(t, v.Value.Move(crm.EmployeeLeft, o.clock()))
	tx := o.guard.Begin(o.admin, "employee.leave")
	require.NoError(t, door.UpdateIn(ctx, tx, v.Value))
	_, err = tx.Copy().Rehearse(ctx)
	leaves(t, err, map[string]int{crm.TypeCustomer: 1, crm.TypeContact: 1, crm.TypeQuote: 1})
	_, err = tx.Commit(ctx)
	leaves(t, err, map[string]int{crm.TypeCustomer: 1, crm.TypeContact: 1, crm.TypeQuote: 1})

	// Not by just anybody, and not to just anybody.
	to := self(o.other)
	for _, c := range []guard.Caller{o.sales, o.other, o.finance, o.person("support", "/east/"), o.person("auditor", "/")} {
		_, err = o.HandAll(ctx, c, k.Owner, to)
		denied(t, err)
	}
	for _, heir := range []crm.ID[crm.Employee]{k.Owner, {}, crm.ID[crm.Employee](crm.NewUUID())} {
		_, err = o.HandAll(ctx, o.admin, k.Owner, heir)
		invalid(t, err, "to", "bad_reference")
	}
	out, err := o.HandAll(ctx, o.person("manager", "/west/"), k.Owner, to)
	require.NoError(t, err)
	assert.Empty(t, out.Done, "of another team: as if there were nothing")

	out, err = o.HandAll(ctx, o.manager, k.Owner, to)
	require.NoError(t, err)
	assert.Equal(t, map[string]int{crm.TypeCustomer: 1, crm.TypeContact: 1, crm.TypeQuote: 1}, out.Done)
	assert.Empty(t, out.Left)
	got, err := o.Customers.Get(ctx, o.other, k.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, to, got.Value.Owner)
	assert.Equal(t, o.other.Subject.Team, got.Value.Team)
	_, err = o.Quotes.Get(ctx, o.sales, q.ID.UUID())
	require.ErrorIs(t, err, crm.ErrNotFound, "who leaves has them no more")
	history, err := o.Ownerships.List(ctx, o.system, guard.Query{Clauses: []crm.Clause{{Column: "record", Op: crm.Equal, Values: []crm.Value{crm.StringValue(k.ID.String())}}}})
	require.NoError(t, err)
	require.Len(t, history.Items, 1)
	assert.EqualValues(t, "handover", history.Items[0].Value.Act)
	still, err := o.Customers.Get(ctx, o.system, pooled.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, self(o.manager), still.Value.Owner, "another's")

	require.NoError(t, leave(o.admin))
	again, err := o.HandAll(ctx, o.manager, k.Owner, to)
	require.NoError(t, err)
	assert.Empty(t, again.Done)
}

// What may not have its heir as its owner stays, and is told: a quote is not its approver's.
func TestHandAllLeavesWhatMayNotBe(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	_, leave := o.employed(t, o.sales)
	k := o.customer(t, o.sales, "Buyer")
	q := o.quote(t, k, 3000)
	require.NoError(t, o.ApproveQuote(ctx, o.manager, q.ID, 1))
	out, err := o.HandAll(ctx, o.admin, k.Owner, self(o.manager))
	require.NoError(t, err)
	assert.Equal(t, map[string]int{crm.TypeCustomer: 1}, out.Done)
	assert.Equal(t, map[string]int{crm.TypeQuote: 1}, out.Left)
	leaves(t, leave(o.admin), map[string]int{crm.TypeQuote: 1})
	out, err = o.HandAll(ctx, o.admin, k.Owner, self(o.other))
	require.NoError(t, err)
	assert.Equal(t, map[string]int{crm.TypeQuote: 1}, out.Done)
	require.NoError(t, leave(o.admin))
}

// TestWallSuperiors: nobody is above themselves, whoever sets it and by whatever door, and however many set it at once.
func TestWallSuperiors(t *testing.T) { each(t, testSuperiors) }

func testSuperiors(t *testing.T, o *office) {
	ctx := t.Context()
	door, err := guard.For[*crm.Employee](ctx, o.guard, nil)
	require.NoError(t, err)
	hire := func(name string) crm.ID[crm.Employee] {
		e := &crm.Employee{Meta: crm.Meta[crm.Employee]{Team: "/hq/"}, Name: crm.NewText(name), Email: crm.NewText(name + "@example.com"), State: crm.EmployeeActive}
		_, err := door.Create(ctx, o.admin, e)
		require.NoError(t, err)
		return e.ID
	}
	under := func(id, superior crm.ID[crm.Employee]) error {
		v, err := door.Get(ctx, o.admin, id.UUID())
		require.NoError(t, err)
		v.Value.Owner = superior
		_, err = door.Update(ctx, o.admin, v.Value)
		return err
	}
	a, b, c := hire("ann"), hire("bob"), hire("cy")
	require.NoError(t, under(a, b))
	require.NoError(t, under(b, c))
	invalid(t, under(c, a), "owner", "cycle")
	invalid(t, under(b, a), "owner", "cycle")
	denied(t, door.Act(ctx, o.admin, authz.Handover, c.UUID(), 0, func(e *crm.Employee) error { e.Owner = a; return nil }))

	// In one transaction, neither of which is one by itself, and by way of the recycle bin.
	d, e := hire("dee"), hire("eve")
	tx := o.guard.Begin(o.admin, "employee.move")
	for id, up := range map[crm.ID[crm.Employee]]crm.ID[crm.Employee]{d: e, e: d} {
		v, err := door.Get(ctx, o.admin, id.UUID())
		require.NoError(t, err)
		v.Value.Owner = up
		require.NoError(t, door.UpdateIn(ctx, tx, v.Value))
	}
	_, err = tx.Copy().Rehearse(ctx)
	invalid(t, err, "owner", "cycle")
	_, err = tx.Commit(ctx)
	invalid(t, err, "owner", "cycle")
	require.NoError(t, under(d, e))
	v, err := door.Get(ctx, o.admin, d.UUID())
	require.NoError(t, err)
	require.NoError(t, door.Delete(ctx, o.admin, d.UUID(), v.Value.Version))
	invalid(t, under(e, d), "owner", "cycle")

	// Many at once around a ring: not all of them.
	for range 5 {
		ring := []crm.ID[crm.Employee]{hire(crm.NewUUID().String()), hire(crm.NewUUID().String()), hire(crm.NewUUID().String())}
		var group sync.WaitGroup
		errs := make([]error, len(ring))
		for i := range ring {
			v, err := door.Get(ctx, o.admin, ring[i].UUID())
			require.NoError(t, err)
			v.Value.Owner = ring[(i+1)%len(ring)]
			group.Go(func() { _, errs[i] = door.Update(ctx, o.admin, v.Value) })
		}
		group.Wait()
		refused := 0
		for _, err := range errs {
			var cycle *crm.InvalidError
			if err != nil {
				assert.True(t, errors.Is(err, crm.ErrConflict) || errors.As(err, &cycle), "%v", err)
				refused++
			}
		}
		assert.Positive(t, refused)
	}
}
