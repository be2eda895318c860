package guard_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/internal/rowformat"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
)

// kept returns a row as a backup keeps it: clear columns, and the body.
func (r *rig) kept(t testing.TB, typ string, id crm.UUID) (crm.Row, []byte) {
	t.Helper()
	rows, err := r.store.Store.Load(t.Context(), "default", typ, []crm.UUID{id})
	require.NoError(t, err)
	row := rows[0]
	body := rowformat.Append(nil, &row)
	row.Sealed, row.Persons, row.MAC = nil, nil, nil
	row.Clear = slices.Clone(row.Clear)
	return row, body
}

// TestCompareAndRevert: fields come back from a row of an earlier time, through the policy and as a new version.
func TestCompareAndRevert(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	v := *r.add(t, sales, "A", "13800135678", "a@example.com").Value
	id := v.ID.UUID()
	row, body := r.kept(t, "customer", id)

	v.Name, v.City, v.Email = crm.NewText("B"), "Bern", crm.NewText("b@example.com")
	v.Phone = crm.NewText("13900139000")
	_, err := r.customers.Update(ctx, sales, &v)
	require.NoError(t, err)

	// Sales sees phone and e-mail masked: they are not compared, and do not come back by this way.
	e, err := r.customers.Compare(ctx, sales, row, body)
	require.NoError(t, err)
	assert.Equal(t, []string{"name", "city"}, e.Fields)
	assert.Equal(t, "A", e.Then.Value.Name.Expose())
	assert.Equal(t, "B", e.Now.Value.Name.Expose())
	assert.Equal(t, crm.Masked, e.Then.Value.Phone.State())
	event := r.last(t)
	require.Len(t, event.Targets, 2)
	assert.Equal(t, []uint64{2, 1}, []uint64{event.Targets[0].Version, event.Targets[1].Version})
	for _, field := range []string{"phone", "owner", "version", "pool", "id_number", "nonsense"} {
		denied(t, r.customers.Revert(&e, field), "fields.reserved")
	}
	m, err := r.customers.Compare(ctx, manager, row, body)
	require.NoError(t, err)
	assert.Equal(t, []string{"name", "phone", "email", "city"}, m.Fields)
	require.NoError(t, r.customers.Revert(&m, "phone", "name"))
	got, err := r.customers.Update(ctx, manager, m.Now.Value)
	require.NoError(t, err)
	assert.Equal(t, []string{"A", "13800135678", "b@example.com", "Bern"},
		[]string{got.Value.Name.Expose(), got.Value.Phone.Expose(), got.Value.Email.Expose(), got.Value.City})
	assert.Equal(t, int64(3), got.Value.Version)

	// What was shown before is an old version by now.
	require.NoError(t, r.customers.Revert(&e))
	_, err = r.customers.Update(ctx, sales, e.Now.Value)
	require.ErrorIs(t, err, crm.ErrConflict)

	// The present row differs in nothing.
	row2, body2 := r.kept(t, "customer", id)
	same, err := r.customers.Compare(ctx, manager, row2, body2)
	require.NoError(t, err)
	assert.Empty(t, same.Fields)
}

// TestCompareRefuses: others, forged rows, and what was purged or erased.
func TestCompareRefuses(t *testing.T) {
	r, ctx := newRigOn(t, memstore.New(), keys.NewMemory(), &encrypt.Options{Grace: -1}), t.Context()
	v := r.add(t, sales, "A", "13800135678", "a@example.com").Value
	w := r.add(t, sales, "W", "13800135679", "w@example.com").Value
	row, body := r.kept(t, "customer", v.ID.UUID())
	_, strange := r.kept(t, "customer", w.ID.UUID())

	for name, c := range map[string]guard.Caller{"another sales person": other, "another tenant": func() guard.Caller {
		c := admin
		c.Subject.Tenant = "elsewhere"
		return c
	}()} {
		_, err := r.customers.Compare(ctx, c, row, body)
		require.ErrorIs(t, err, crm.ErrNotFound, name)
	}
	forge := func(change func(row *crm.Row)) error {
		f := row
		f.Clear = slices.Clone(row.Clear)
		change(&f)
		_, err := r.customers.Compare(ctx, admin, f, body)
		return err
	}
	require.ErrorIs(t, forge(func(f *crm.Row) { f.Version = 7 }), guard.ErrForged)
	require.ErrorIs(t, forge(func(f *crm.Row) { f.ID = w.ID.UUID() }), guard.ErrForged)
	require.ErrorIs(t, forge(func(f *crm.Row) { f.ID = crm.NewUUID() }), crm.ErrNotFound)
	require.ErrorIs(t, forge(func(f *crm.Row) { f.Deleted = true }), guard.ErrForged)
	for i := range row.Clear {
		if row.Clear[i].Kind() != 0 {
			require.ErrorIs(t, forge(func(f *crm.Row) { f.Clear[i] = crm.Value{} }), guard.ErrForged)
		}
	}
	require.Error(t, forge(func(f *crm.Row) { f.Type = "lead" }))
	require.Error(t, forge(func(f *crm.Row) { f.Clear = append(f.Clear, crm.Value{}) }))
	_, err := r.customers.Compare(ctx, admin, row, strange)
	require.ErrorIs(t, err, guard.ErrForged)
	for i := range body {
		bad := slices.Clone(body)
		bad[i] ^= 1
		_, err := r.customers.Compare(ctx, admin, row, bad)
		require.Error(t, err, i)
	}
	_, err = r.customers.Compare(ctx, admin, row, body[:len(body)-1])
	require.ErrorIs(t, err, crm.ErrDamaged)

	// No log, no data.
	r.log.fail = errors.New("disk full")
	_, err = r.customers.Compare(ctx, admin, row, body)
	require.ErrorContains(t, err, "no log")
	r.log.fail = nil

	require.NoError(t, r.customers.Delete(ctx, sales, v.ID.UUID(), 1))
	require.NoError(t, r.customers.Purge(ctx, as("system", "system", ""), v.ID.UUID(), 2))
	_, err = r.customers.Compare(ctx, admin, row, body)
	require.ErrorIs(t, err, crm.ErrNotFound)

	// A person who was erased does not come back, though the backup has what was sealed for them.
	row, body = r.kept(t, "customer", w.ID.UUID())
	_, err = r.keeper.Erase(ctx, "default", w.Person.UUID(), nil)
	require.NoError(t, err)
	e, err := r.customers.Compare(ctx, manager, row, body)
	require.NoError(t, err)
	assert.Equal(t, crm.Erased, e.Then.Value.Name.State())
	assert.Empty(t, e.Fields)
}
