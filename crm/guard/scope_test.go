package guard_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// TestScopeNarrows: a caller with a scope may do what the policy allows and the scope names, through every door, and never more.
func TestScopeNarrows(t *testing.T) {
	ctx := t.Context()
	r := newRig(t)
	v := r.add(t, sales, "A", "13800135678", "a@example.com")
	id := v.Value.ID.UUID()
	within := func(c guard.Caller, actions ...authz.Action) guard.Caller {
		c.Scope = map[string][]authz.Action{crm.TypeCustomer: actions}
		return c
	}
	all := []authz.Action{authz.List, authz.Read, authz.Search, authz.Create, authz.Update, authz.Delete, authz.Reveal, authz.Export, authz.Aggregate, authz.Check, authz.History}
	doors := map[authz.Action]func(c guard.Caller) error{
		authz.Read: func(c guard.Caller) error { _, err := r.customers.Get(ctx, c, id); return err },
		authz.List: func(c guard.Caller) error {
			p, err := r.customers.List(ctx, c, guard.Query{})
			if err == nil && len(p.Items) == 0 {
				return crm.ErrNotFound
			}
			return err
		},
		authz.Search: func(c guard.Caller) error {
			_, err := r.customers.Search(ctx, c, "13800135678", 10, "phone")
			return err
		},
		authz.Create: func(c guard.Caller) error {
			_, err := r.customers.Create(ctx, c, customer("B", "13900135678", "b@example.com"))
			return err
		},
		authz.Update: func(c guard.Caller) error {
			now, err := r.customers.Get(ctx, sales, id)
			require.NoError(t, err)
			now.Value.City = "Suzhou"
			_, err = r.customers.Update(ctx, c, now.Value)
			return err
		},
		authz.Reveal: func(c guard.Caller) error {
			_, err := r.customers.Reveal(ctx, because(c, "why"), id, "phone")
			return err
		},
		authz.Export: func(c guard.Caller) error {
			c = because(c, "why")
			c.Met = append(c.Met, authz.NeedWatermark, authz.NeedStepUp)
			_, err := r.customers.Export(ctx, c, guard.Query{}, func(guard.Page[*crm.Customer]) error { return nil })
			return err
		},
	}
	gone := admin
	gone.Subject.Active = false
	for a, door := range doors {
		others := slices.DeleteFunc(slices.Clone(all), func(x authz.Action) bool { return x == a })
		assert.Error(t, door(within(admin, others...)), "%s is not named", a)
		assert.Error(t, door(within(admin)), "%s: a scope of nothing", a)
		wrong := admin
		wrong.Scope = map[string][]authz.Action{crm.TypeLead: all}
		assert.Error(t, door(wrong), "%s is named of another type", a)
		assert.Error(t, door(within(gone, all...)), "%s: a scope gives nothing that the policy does not", a)
		assert.NoError(t, door(within(admin, all...)), "%s is named", a)
	}
	require.Error(t, r.guard.Authorize(ctx, within(admin, all...), authz.Read, "log"))
	e := r.last(t)
	assert.Equal(t, audit.Denied, e.Outcome)
	assert.Equal(t, []string{"scope"}, e.Controls)
	may, err := r.guard.May(ctx, within(admin, all...), authz.Read, "log")
	require.NoError(t, err)
	assert.False(t, may)
	narrowed := admin
	narrowed.Scope = map[string][]authz.Action{"log": {authz.Read}}
	require.NoError(t, r.guard.Authorize(ctx, narrowed, authz.Read, "log"))
	_, err = r.customers.Get(ctx, narrowed, id)
	require.Equal(t, crm.ErrNotFound, err, "out of scope is as not there")
}
