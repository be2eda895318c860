package dedupe_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
)

func employee(c guard.Caller) crm.ID[crm.Employee] {
	id, _ := crm.ParseUUID(c.Subject.ID)
	return crm.ID[crm.Employee](id)
}

// share shares a customer as its owner.
func (o *office) share(t testing.TB, by guard.Caller, v *crm.Customer, with guard.Caller) *crm.Sharing {
	t.Helper()
	s := &crm.Sharing{RecordType: crm.TypeCustomer, Record: v.ID.UUID(), With: employee(with), Actions: []string{"list", "read", "update"}, Ends: time.Now().Add(time.Hour)}
	s.CreatedAt = time.Now()
	_, err := o.sharings.Create(t.Context(), by, s)
	require.NoError(t, err)
	return s
}

// with is a caller with the shares that they have as stored now.
func (o *office) with(t testing.TB, c guard.Caller) guard.Caller {
	t.Helper()
	page, err := o.sharings.List(t.Context(), program, guard.Query{Limit: 200})
	require.NoError(t, err)
	c.Subject.Shares, c.Environment.Time = nil, time.Now()
	for _, v := range page.Items {
		if s := v.Value; s.With == employee(c) && s.Live(time.Now()) {
			sh := authz.Sharing{Record: s.Record.String(), By: s.Owner.String(), Until: s.Ends}
			for _, a := range s.Actions {
				sh.Actions = append(sh.Actions, authz.Action(a))
			}
			c.Subject.Shares = append(c.Subject.Shares, sh)
		}
	}
	return c
}

func (o *office) reads(t testing.TB, c guard.Caller, v *crm.Customer) bool {
	t.Helper()
	_, err := o.customers.Get(t.Context(), o.with(t, c), v.ID.UUID())
	if err != nil {
		require.ErrorIs(t, err, crm.ErrNotFound)
	}
	return err == nil
}

// Whoever saw the record that goes by a share sees nothing of the one that stays, though one owner has both; what is shared of that one stays shared. An undoing brings the shares
// back as they were meant, and no other.
func TestSharesEndWithTheirRecord(t *testing.T) { onStores(t, testSharesEnd) }

func testSharesEnd(t *testing.T, o *office) {
	ctx := t.Context()
	a, b := o.customer(t, sales, "Ann Lee", "13800135678", "Paris"), o.customer(t, sales, "Anna Lee", "13900001111", "Lyon")
	third := as("sales", 7, "/west/")
	first, second := o.share(t, sales, b, other), o.share(t, sales, b, third)
	o.share(t, sales, a, third)
	require.True(t, o.reads(t, other, b))
	require.False(t, o.reads(t, other, a))

	rec, err := o.merger.Merge(ctx, sales, target(a), target(b), dedupe.Choice{"phone"})
	require.NoError(t, err)
	assert.Equal(t, 2, rec.SharesEnded())
	assert.False(t, o.reads(t, other, a), "a share of one record is none of the other")
	assert.False(t, o.reads(t, other, b), "in the recycle bin, either")
	assert.Empty(t, o.with(t, other).Subject.Shares)
	assert.True(t, o.reads(t, third, a), "its owner shared this one")
	seen := o.with(t, third)
	up := o.whole(t, b)
	require.Error(t, o.customers.Restore(ctx, seen, b.ID.UUID(), up.Version))

	// One of them is ended for good meanwhile: it does not come back.
	got, err := o.sharings.Get(ctx, sales, second.ID.UUID())
	require.NoError(t, err)
	require.NoError(t, o.sharings.Delete(ctx, sales, second.ID.UUID(), got.Value.Version))
	out, err := o.merger.Undo(ctx, sales, rec.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, 1, out.Shared)
	assert.Equal(t, []dedupe.Ref{{Type: crm.TypeSharing, ID: second.ID.UUID()}}, out.Stayed)
	assert.True(t, o.reads(t, other, b))
	assert.False(t, o.reads(t, other, a))
	assert.False(t, o.reads(t, third, b))
	got, err = o.sharings.Get(ctx, sales, first.ID.UUID())
	require.NoError(t, err)
	assert.WithinDuration(t, first.Ends, got.Value.Ends, time.Millisecond)
}

func TestSharesOfOthers(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	a, b := o.customer(t, sales, "Ann Lee", "1", ""), o.customer(t, sales, "Anna Lee", "2", "")

	// Nobody ends or lengthens a share by the act of a merge who may not merge what it is of.
	s := o.share(t, sales, b, other)
	for _, c := range []guard.Caller{other, as("manager", 8, "/west/"), as("auditor", 9, ""), as("support", 10, ""), as("marketing", 11, "")} {
		require.Error(t, o.sharings.Act(ctx, c, "merge", s.ID.UUID(), 0, func(v *crm.Sharing) error { v.Ends = v.Ends.Add(time.Hour); return nil }), c.Subject.Roles)
	}
	// A share by somebody who does not own the record counts for nothing, and stands in no way.
	o.share(t, other, b, as("sales", 7, "/west/"))
	rec, err := o.merger.Merge(ctx, manager, target(a), target(b), nil)
	require.NoError(t, err)
	assert.Equal(t, 1, rec.SharesEnded())
	out, err := o.merger.Undo(ctx, manager, rec.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, 1, out.Shared)
	assert.Empty(t, out.Stayed)

	// The owner shared it while in another team: who merges may not touch that, so nothing is merged.
	was := sales
	was.Subject.Team = "/west/"
	o.share(t, was, b, other)
	again := func(v *crm.Customer) dedupe.Target {
		return dedupe.Target{ID: v.ID.UUID(), Version: o.whole(t, v).Version}
	}
	_, err = o.merger.Merge(ctx, manager, again(a), again(b), nil)
	require.True(t, guard.Denied(err), "%v", err)
	assert.False(t, o.whole(t, b).Deleted)
	assert.Len(t, o.with(t, other).Subject.Shares, 2, "the one of before still counts too")
	rec, err = o.merger.Merge(ctx, sales, again(a), again(b), nil)
	require.NoError(t, err)
	assert.Equal(t, 2, rec.SharesEnded())
	assert.Empty(t, o.with(t, other).Subject.Shares)
}
