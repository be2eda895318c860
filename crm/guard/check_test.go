package guard_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// check compares the rig's store with its log.
func (r *rig) check(t testing.TB, shared bool) guard.CheckReport {
	t.Helper()
	schema, err := guard.Schema[*crm.Customer](nil)
	require.NoError(t, err)
	c := guard.NewCheck("default", schema)
	c.Shared = shared
	for e, err := range r.log.Events(t.Context(), 0) {
		require.NoError(t, err)
		c.Event(e)
	}
	report, err := c.Rows(t.Context(), r.store, r.keeper)
	require.NoError(t, err)
	return report
}

// raw returns the stored row of a customer, as a database administrator has it.
func (r *rig) raw(t testing.TB, id crm.UUID) crm.Row {
	t.Helper()
	rows, err := r.store.Store.Load(t.Context(), "default", crm.TypeCustomer, []crm.UUID{id})
	require.NoError(t, err)
	return rows[0]
}

func TestCheckIsGreen(t *testing.T) {
	r := newRig(t)
	v := r.add(t, sales, "A", "13800135678", "a@example.com")
	w := *v.Value
	w.City = "x"
	_, err := r.customers.Update(t.Context(), sales, &w)
	require.NoError(t, err)
	require.NoError(t, r.customers.Delete(t.Context(), sales, v.Value.ID.UUID(), 2))
	r.store.apply = func(crm.Batch) error { return crm.ErrUnavailable }
	_, err = r.customers.Create(t.Context(), sales, customer("B", "", ""))
	require.Error(t, err)
	r.store.apply = nil
	report := r.check(t, false)
	assert.True(t, report.OK(), "%v", report.Findings)
	assert.Equal(t, int64(1), report.Rows)
	assert.Equal(t, report.Digest, r.check(t, false).Digest)
}

// bendList makes a store whose lists were changed by somebody who writes to the database.
func (r *rig) bendList(change func(rows []crm.Row) []crm.Row) {
	inner := r.store.Store
	r.store.Store = listStore{inner, change}
}

type listStore struct {
	crm.Store
	change func(rows []crm.Row) []crm.Row
}

func (s listStore) List(ctx context.Context, q crm.Query) (crm.Page, error) {
	p, err := s.Store.List(ctx, q)
	p.Rows = s.change(p.Rows)
	return p, err
}

func TestCheckFinds(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *rig, before crm.Row) func(rows []crm.Row) []crm.Row
		want   string
		shared string // what is found when other logs write too
	}{
		"a forged owner": {func(*rig, crm.Row) func([]crm.Row) []crm.Row {
			return func(rows []crm.Row) []crm.Row {
				rows[0].Clear[0] = crm.StringValue(wu.String())
				return rows
			}
		}, "forged", "forged"},
		"a row that is gone": {func(*rig, crm.Row) func([]crm.Row) []crm.Row {
			return func([]crm.Row) []crm.Row { return nil }
		}, "missing", "missing"},
		"an older state put back": {func(_ *rig, before crm.Row) func([]crm.Row) []crm.Row {
			return func([]crm.Row) []crm.Row { return []crm.Row{before} }
		}, "rolled_back", "rolled_back"},
		"a key that is gone": {func(*rig, crm.Row) func([]crm.Row) []crm.Row {
			return func(rows []crm.Row) []crm.Row {
				for i := range rows[0].Sealed { // another key's name: the MAC is wrong too
					rows[0].Sealed[i].Data[5] ^= 1
				}
				return rows
			}
		}, "keyless", "keyless"},
		"a row of another world": {func(r *rig, _ crm.Row) func([]crm.Row) []crm.Row {
			// It authenticates, because the thief of the keys made it, but no log announced it.
			row := crm.Row{Tenant: "default", Type: crm.TypeCustomer, ID: crm.NewUUID(), Version: 1}
			return func(rows []crm.Row) []crm.Row { return append(rows, row) }
		}, "forged", "forged"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			v := r.add(t, sales, "A", "13800135678", "a@example.com")
			before := r.raw(t, v.Value.ID.UUID())
			w := *v.Value
			w.City = "x"
			_, err := r.customers.Update(t.Context(), sales, &w)
			require.NoError(t, err)
			require.NoError(t, r.guard.Settle(t.Context()))
			r.bendList(c.change(r, before))
			for shared, want := range map[bool]string{false: c.want, true: c.shared} {
				report := r.check(t, shared)
				require.NotEmpty(t, report.Findings)
				assert.Equal(t, want, report.Findings[0].Problem)
				assert.False(t, report.OK())
			}
		})
	}
}

// TestCheckUnlogged: a row with a right MAC that this log never announced.
func TestCheckUnlogged(t *testing.T) {
	r := newRig(t)
	v := r.add(t, sales, "A", "", "")
	schema, err := guard.Schema[*crm.Customer](nil)
	require.NoError(t, err)
	for _, shared := range []bool{false, true} {
		c := guard.NewCheck("default", schema)
		c.Shared = shared
		report, err := c.Rows(t.Context(), r.store, r.keeper)
		require.NoError(t, err)
		if shared {
			assert.True(t, report.OK())
			continue
		}
		require.Len(t, report.Findings, 1)
		assert.Equal(t, guard.Finding{Type: "customer", ID: v.Value.ID.String(), Problem: "unlogged"}, report.Findings[0])
	}
}
