package app

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/crm/trash"
)

// TestTimeAsks: what the clock of a pool lets go goes back once, and not before; what has been in the recycle bin long enough is gone for good, with the
// keys asked for.
func TestTimeAsks(t *testing.T) {
	ctx := t.Context()
	a, err := Open(ctx, Config{Data: t.TempDir(), Addr: "localhost:0", Plain: true})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, a.Close()) })
	_, err = a.Populate(ctx)
	require.NoError(t, err)
	admin, err := a.Owner(ctx, "admin@demo.example")
	require.NoError(t, err)
	e := &crm.Employee{
		Name: crm.NewText("Sal Es"), Email: crm.NewText("sales@demo.example"), Roles: []string{"sales"}, State: crm.EmployeeActive, Joined: time.Now().Add(-time.Hour),
		Meta: crm.Meta[crm.Employee]{Team: "/east/1/"},
	}
	_, err = a.Employees.Create(ctx, System("test"), e)
	require.NoError(t, err)
	require.NoError(t, a.RolesChanged(ctx, e.ID.UUID(), admin.ID.String()))
	caller := func() guard.Caller {
		t.Helper()
		s, err := a.Subject(ctx, e.ID.UUID())
		require.NoError(t, err)
		return guard.Caller{Subject: s, Environment: authz.Environment{Time: time.Now(), Purpose: "crm"}}
	}
	assert.Empty(t, caller().Subject.Pools)
	p := &pool.Pool{
		Name: "East", RecordType: crm.TypeCustomer, Mode: pool.MembersClaim, Members: []crm.ID[crm.Employee]{e.ID}, Admins: []crm.ID[crm.Employee]{admin.ID},
		Clocks: pool.Clocks{Protect: 10}, RemindDays: 3, Meta: crm.Meta[pool.Pool]{Team: "/office/"},
	}
	_, err = a.Pools.Create(ctx, setter(), p)
	require.NoError(t, err)
	assert.Equal(t, []string{p.ID.String()}, caller().Subject.Pools, "a written pool is known at once")

	var made []*crm.Customer
	for range 2 {
		c := &crm.Customer{Name: crm.NewText("Ann Lee"), Kind: crm.PersonCustomer, Stage: crm.CustomerNew}
		_, err = a.Customers.Create(ctx, caller(), c)
		require.NoError(t, err)
		made = append(made, c)
	}
	target := desk.Target{Type: crm.TypeCustomer, ID: made[0].ID.UUID()}
	require.NoError(t, a.Desk.Enter(ctx, caller(), target, p.ID))
	require.NoError(t, a.Desk.Claim(ctx, caller(), target))
	_, err = a.Desk.Delete(ctx, caller(), trash.Ref{Type: crm.TypeCustomer, ID: made[1].ID.UUID()}, 1)
	require.NoError(t, err)

	later := func(days int) { a.now = func() time.Time { return time.Now().AddDate(0, 0, days) } }
	later(9)
	s, err := a.SweepPools(ctx)
	require.NoError(t, err)
	assert.Equal(t, Swept{}, s)
	later(11)
	s, err = a.SweepPools(ctx)
	require.NoError(t, err)
	assert.Equal(t, Swept{Pools: 1, Back: 1}, s)
	t.Logf("after 11 days: %+v", s)
	v, err := a.Customers.Get(ctx, System("test"), target.ID)
	require.NoError(t, err)
	assert.True(t, v.Value.Owner.IsZero())
	assert.Equal(t, e.ID, v.Value.Former)
	s, err = a.SweepPools(ctx)
	require.NoError(t, err)
	assert.Equal(t, Swept{}, s, "once")

	gone, err := a.PurgeBin(ctx, PurgeLimit)
	require.NoError(t, err)
	assert.Empty(t, gone.Records)
	later(31)
	gone, err = a.PurgeBin(ctx, PurgeLimit)
	require.NoError(t, err)
	assert.Equal(t, []trash.Ref{{Type: crm.TypeCustomer, ID: made[1].ID.UUID()}}, gone.Records)
	assert.Equal(t, []crm.UUID{made[1].Person.UUID()}, gone.Blocked)
	t.Logf("after 31 days: %d record purged, the keys of %d person blocked", len(gone.Records), len(gone.Blocked))
	_, err = a.Customers.Get(ctx, System("test"), made[1].ID.UUID())
	require.ErrorIs(t, err, crm.ErrNotFound)

	// The loop ends with its context, also in the middle of nothing.
	end, stop := context.WithCancel(ctx)
	a.Config.SweepEvery = time.Millisecond
	done := make(chan struct{})
	go func() { defer close(done); a.KeepTime(end) }()
	stop()
	<-done
	check, err := guard.Schema[*pool.Ownership](nil)
	require.NoError(t, err)
	all, err := schemas()
	require.NoError(t, err)
	assert.Contains(t, all, check)
}
