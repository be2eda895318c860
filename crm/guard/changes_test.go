package guard_test

import (
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// follow reads what changed behind a number, a few at a time.
func (r *rig) follow(t testing.TB, c guard.Caller, since int64) (items []guard.Changed[*crm.Customer], next int64) {
	t.Helper()
	for {
		page, err := r.customers.Changes(t.Context(), c, since, 3)
		require.NoError(t, err)
		items = append(items, page.Items...)
		require.GreaterOrEqual(t, page.Next, since)
		if since = page.Next; !page.More {
			return items, since
		}
	}
}

// TestChanges: each record once in the order of its newest version, with the fields of a list and under the policy of a list, and a log of it.
func TestChanges(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	sales, other, admin := as("sales", lin.String(), "/east/1/"), as("sales", wu.String(), "/east/2/"), as("admin", crm.NewUUID().String(), "/hq/")
	var mine []*crm.Customer
	for i := range 8 {
		c := sales
		if i%2 == 1 {
			c = other
		}
		v := &crm.Customer{Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Name: crm.NewText("Ann Lee"), Phone: crm.NewText("13800135678"), Note: crm.NewText("x")}
		_, err := r.customers.Create(ctx, c, v)
		require.NoError(t, err)
		if i%2 == 0 {
			mine = append(mine, v)
		}
	}
	items, next := r.follow(t, sales, 0)
	require.Len(t, items, 4)
	for i, it := range items {
		assert.Equal(t, mine[i].ID, it.Value.ID)
		assert.False(t, it.Deleted)
		assert.Equal(t, authz.Masked, it.Fields["phone"], "as a list shows it")
		assert.NotContains(t, it.Value.Phone.Expose(), "0013")
	}
	all, end := r.follow(t, admin, 0)
	assert.Len(t, all, 8)
	assert.Equal(t, end, next, "what one does not see is passed over")

	// Nothing new, and nothing in the log of it.
	size := r.log.Size()
	again, same := r.follow(t, sales, next)
	assert.Empty(t, again)
	assert.Equal(t, next, same)
	assert.Equal(t, size, r.log.Size())

	// A change of another's is not seen, one of one's own moves behind.
	v, err := r.customers.Get(ctx, sales, mine[1].ID.UUID())
	require.NoError(t, err)
	v.Value.City = "York"
	_, err = r.customers.Update(ctx, sales, v.Value)
	require.NoError(t, err)
	require.NoError(t, r.customers.Delete(ctx, admin, mine[0].ID.UUID(), 1))
	items, after := r.follow(t, sales, next)
	require.Len(t, items, 2)
	assert.Equal(t, "York", items[0].Value.City)
	assert.True(t, items[1].Deleted)
	assert.Equal(t, mine[0].ID, items[1].Value.ID)
	assert.EqualValues(t, 2, items[1].Value.Version)
	assert.Empty(t, items[1].Value.City+items[1].Value.Team, "nothing of a deleted record")
	assert.NotEqual(t, crm.Clear, items[1].Value.Name.State())
	for _, access := range items[1].Fields {
		assert.Equal(t, authz.Hidden, access)
	}
	found, _ := r.follow(t, other, next)
	assert.Empty(t, found, "it was never theirs")

	// Of what was purged only those hear who may list everybody's.
	require.NoError(t, r.customers.Purge(ctx, admin, mine[0].ID.UUID(), 2))
	items, _ = r.follow(t, admin, after)
	require.Len(t, items, 1)
	assert.True(t, items[0].Deleted)
	assert.Equal(t, mine[0].ID, items[0].Value.ID)
	items, last := r.follow(t, sales, after)
	assert.Empty(t, items)
	head, err := r.customers.Head(ctx, sales)
	require.NoError(t, err)
	assert.Equal(t, last, head)

	events, err := r.log.Query(ctx, audit.Filter{Action: "customer.changes"}, math.MaxUint64, 100)
	require.NoError(t, err)
	named := map[string]int{}
	for _, e := range events {
		for _, target := range e.Event.Targets {
			named[e.Event.Actor+target.ID]++
		}
	}
	assert.Equal(t, 2, named[lin.String()+mine[1].ID.String()])
	assert.Equal(t, 2, named[lin.String()+mine[0].ID.String()])
}

// TestChangesRefused: who may not list follows nothing, no log is no data, and a row that somebody wrote past the guard stops everything.
func TestChangesRefused(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	admin := as("admin", crm.NewUUID().String(), "/hq/")
	v := &crm.Customer{Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Name: crm.NewText("Ann Lee")}
	_, err := r.customers.Create(ctx, admin, v)
	require.NoError(t, err)
	for what, c := range map[string]guard.Caller{"no role": as("visitor", lin.String(), "/hq/"), "gone": {Subject: authz.Subject{ID: lin.String(), Tenant: "default", Roles: []string{"admin"}}}} {
		_, err := r.customers.Changes(ctx, c, 0, 10)
		require.True(t, guard.Denied(err), "%s: %v", what, err)
		_, err = r.customers.Head(ctx, c)
		require.True(t, guard.Denied(err), "%s: %v", what, err)
	}
	for _, limit := range []int{0, -1, 201} {
		_, err := r.customers.Changes(ctx, admin, 0, limit)
		require.Error(t, err)
	}
	var bad *crm.RequestError
	_, err = r.customers.Changes(ctx, admin, -1, 10)
	require.ErrorAs(t, err, &bad)
	r.log.fail = errors.New("full")
	page, err := r.customers.Changes(ctx, admin, 0, 10)
	require.ErrorContains(t, err, "no log, no data")
	require.Empty(t, page.Items)
	require.Zero(t, page.Next, "it is read again")
	r.log.fail = nil
	r.store.bend = func(rows []crm.Row) {
		for i := range rows {
			rows[i].Clear = append([]crm.Value(nil), rows[i].Clear...)
			rows[i].Clear[0] = crm.StringValue(wu.String())
		}
	}
	_, err = r.customers.Changes(ctx, admin, 0, 10)
	require.ErrorIs(t, err, guard.ErrForged)
}
