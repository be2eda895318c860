package app

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/privacy"
	"github.com/crmguard/crmguard/encrypt"
)

// lives checks that a customer is not erased.
func lives(t *testing.T, a *App, v *crm.Customer, why string) {
	t.Helper()
	got, err := a.Customers.Get(t.Context(), System("test"), v.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, crm.Clear, got.Value.Phone.State(), why)
}

// TestHold: who is under a legal hold is not erased, by no way to ask for it, and neither by the daily run when the hold came in the grace; their records are not purged. Two
// people lift it, and then the erasure that was approved is carried out.
//
//crm:item 13 partly
func TestHold(t *testing.T) {
	onStores(t, func(t *testing.T, a *App, admin guard.Caller) {
		ctx := t.Context()
		by, second := pair(t, a)
		as := func(e *crm.Employee) guard.Caller {
			c, err := a.As(ctx, e, "test")
			require.NoError(t, err)
			return c
		}
		manager := as(second)
		v, twin := known(t, a, admin, "Ann Lee", "13800135678"), known(t, a, admin, "Anne Lee", "13800135679")
		put := func(id crm.UUID, reason string, c guard.Caller) (*privacy.Hold, error) {
			h := &privacy.Hold{RecordType: crm.TypeCustomer, Record: id, Reason: crm.NewText(reason)}
			return h, a.PutHold(ctx, c, h)
		}
		for name, c := range map[string]guard.Caller{"manager": manager, "sales": as(roleOf(t, a, "sales")), "auditor": as(roleOf(t, a, "auditor"))} {
			_, err := put(v.ID.UUID(), "a lawsuit", c)
			require.Error(t, err, name)
		}
		_, err := put(v.ID.UUID(), "", admin)
		require.Error(t, err, "no reason")
		_, err = put(crm.NewUUID(), "a lawsuit", admin)
		require.ErrorIs(t, err, crm.ErrNotFound)

		h, err := put(v.ID.UUID(), "a lawsuit", admin)
		require.NoError(t, err)
		p, holds, err := a.WouldErase(ctx, admin, crm.TypeCustomer, v.ID.UUID())
		require.NoError(t, err)
		require.ErrorIs(t, p.Refusal, encrypt.ErrHeld)
		assert.Equal(t, map[string]int{crm.TypeCustomer: 1}, p.Records)
		require.Len(t, holds, 1)
		_, err = a.Erase(ctx, by, second, crm.TypeCustomer, v.ID.UUID(), "a letter")
		require.ErrorIs(t, err, encrypt.ErrHeld)
		lives(t, a, v, "held")
		n, err := a.store.Count(ctx, crm.Query{Tenant: Tenant, Type: crm.TypeSuppression, Where: crm.Everything{}, Limit: 10})
		require.NoError(t, err)
		assert.Zero(t, n, "nobody is on the list who was not erased")
		_, err = a.PurgeBin(ctx, 100)
		require.NoError(t, err, "a hold is no fault of the daily run")
		lives(t, a, v, "held, and the daily run")

		// Who is merged with them is held too.
		require.NoError(t, func() error {
			_, err := a.Duplicates.Customers.Merge(ctx, admin, seen(twin), seen(v), dedupe.Choice{})
			return err
		}())
		_, err = a.Erase(ctx, by, second, crm.TypeCustomer, twin.ID.UUID(), "a letter")
		require.ErrorIs(t, err, encrypt.ErrHeld, "who is joined to one who is held")

		// Their records go to the bin and stay there.
		bin, err := a.Customers.Get(ctx, System("test"), v.ID.UUID())
		require.NoError(t, err)
		require.True(t, bin.Value.Deleted, "the merge dropped it")
		err = a.Customers.Purge(ctx, System("purge"), v.ID.UUID(), bin.Value.Version)
		require.True(t, guard.Denied(err), "%v", err)

		// Who asks for the end, or put it on, does not agree to it.
		for name, two := range map[string][2]*crm.Employee{"nobody": {by, nil}, "the same": {by, by}, "sales": {by, roleOf(t, a, "sales")}, "who may not ask": {second, by}} {
			require.Error(t, a.LiftHold(ctx, two[0], two[1], h.ID.UUID(), "settled"), name)
		}
		stored := func() *privacy.Hold {
			got, err := a.Holds.Records().Get(ctx, admin, h.ID.UUID())
			require.NoError(t, err)
			return got.Value
		}
		assert.Equal(t, privacy.HoldActive, stored().State)
		require.Error(t, a.Holds.AskLift(ctx, admin, h.ID.UUID(), stored().Version, crm.Text{}), "no reason")
		require.ErrorIs(t, a.Holds.AskLift(ctx, admin, h.ID.UUID(), 99, crm.NewText("settled")), crm.ErrConflict)
		require.Error(t, a.Holds.DecideLift(ctx, manager, h.ID.UUID(), stored().Version, privacy.HoldLifted), "nobody asked")
		require.NoError(t, a.Holds.AskLift(ctx, admin, h.ID.UUID(), stored().Version, crm.NewText("settled")))
		require.True(t, guard.Denied(a.Holds.DecideLift(ctx, admin, h.ID.UUID(), stored().Version, privacy.HoldLifted)))
		require.NoError(t, a.Holds.DecideLift(ctx, manager, h.ID.UUID(), stored().Version, privacy.HoldActive), "not agreed")
		_, err = a.Erase(ctx, by, second, crm.TypeCustomer, twin.ID.UUID(), "a letter")
		require.ErrorIs(t, err, encrypt.ErrHeld)
		require.NoError(t, a.LiftHold(ctx, by, second, h.ID.UUID(), "settled again"))
		lifted := stored()
		assert.Equal(t, privacy.HoldLifted, lifted.State)
		assert.Equal(t, second.ID, lifted.LiftedBy)
		assert.Equal(t, "settled again", lifted.LiftReason.Expose())
		require.Error(t, a.Holds.AskLift(ctx, admin, h.ID.UUID(), lifted.Version, crm.NewText("x")), "it is over")

		// What was approved meanwhile is carried out by the daily run.
		_, err = a.PurgeBin(ctx, 100)
		require.NoError(t, err)
		got, err := a.Customers.Get(ctx, System("test"), twin.ID.UUID())
		require.NoError(t, err)
		shut(t, got.Value, "lifted")

		// A hold that comes in the grace stops the destruction.
		again, err := put(twin.ID.UUID(), "another lawsuit", admin)
		require.NoError(t, err)
		graceOver(t, a)
		done, err := a.eraseDue(ctx)
		require.NoError(t, err)
		assert.Empty(t, done)
		due, err := a.Keeper.Due(ctx, Tenant)
		require.NoError(t, err)
		assert.NotEmpty(t, due)
		require.NoError(t, a.LiftHold(ctx, by, second, again.ID.UUID(), "settled"))
		done, err = a.eraseDue(ctx)
		require.NoError(t, err)
		assert.NotEmpty(t, done)
		var states []privacy.ErasureState
		require.NoError(t, each(ctx, a.Erasures, guard.Query{}, func(e *privacy.Erasure) { states = append(states, e.State) }))
		assert.Equal(t, []privacy.ErasureState{privacy.ErasureDestroyed}, states, "one request, asked three times")
		for action, want := range map[string]int{"hold.create": 2, "hold.approve": 3, "erasure.create": 1, "erasure.approve": 1} {
			found, err := a.Log.Query(ctx, audit.Filter{Action: action}, a.Log.Size(), 200)
			require.NoError(t, err)
			n := 0
			for _, e := range found {
				if e.Event.Outcome == audit.Intended || e.Event.Outcome == audit.Allowed {
					n++
				}
			}
			assert.Equal(t, want, n, action)
		}
	})
}

// TestErasureRegister: an erasure that waits is approved by another one, once and in time; what is refused erases nobody, and who has left carries nothing out.
//
//crm:item 13 partly
func TestErasureRegister(t *testing.T) {
	onStores(t, func(t *testing.T, a *App, admin guard.Caller) {
		ctx := t.Context()
		by, second := pair(t, a)
		manager, err := a.As(ctx, second, "test")
		require.NoError(t, err)
		v := known(t, a, admin, "Ann Lee", "13800135678")
		ask := func() (*privacy.Erasure, error) {
			e := &privacy.Erasure{RecordType: crm.TypeCustomer, Record: v.ID.UUID(), Reason: crm.NewText("a letter")}
			return e, a.RequestErasure(ctx, admin, e)
		}
		e, err := ask()
		require.NoError(t, err)
		_, err = ask()
		require.ErrorIs(t, err, ErrErasing)
		require.Error(t, a.RequestErasure(ctx, manager, &privacy.Erasure{RecordType: crm.TypeCustomer, Record: v.ID.UUID(), Reason: crm.NewText("x")}))
		_, err = a.DecideErasure(ctx, admin, e.ID.UUID(), 1, privacy.ErasureApproved)
		require.True(t, guard.Denied(err), "who asks does not agree: %v", err)
		_, err = a.CarryErasure(ctx, admin, e.ID.UUID())
		require.Error(t, err, "nobody agreed")
		_, err = a.DecideErasure(ctx, manager, e.ID.UUID(), 7, privacy.ErasureApproved)
		require.ErrorIs(t, err, crm.ErrConflict)
		_, err = a.DecideErasure(ctx, manager, e.ID.UUID(), 1, privacy.ErasureRefused)
		require.NoError(t, err)
		lives(t, a, v, "refused")
		_, err = a.DecideErasure(ctx, manager, e.ID.UUID(), 2, privacy.ErasureApproved)
		require.Error(t, err, "it was refused")

		// A month later it is asked for anew.
		e, err = ask()
		require.NoError(t, err)
		a.now = func() time.Time { return time.Now().Add(privacy.MaxErasure + time.Hour) }
		_, err = a.DecideErasure(ctx, manager, e.ID.UUID(), 1, privacy.ErasureApproved)
		require.Error(t, err, "too late")
		lives(t, a, v, "too late")
		a.now = time.Now

		_, err = a.DecideErasure(ctx, manager, e.ID.UUID(), 1, privacy.ErasureApproved)
		require.NoError(t, err)
		got, err := a.Erasures.Get(ctx, manager, e.ID.UUID())
		require.NoError(t, err)
		r := got.Value
		assert.Equal(t, privacy.ErasureBlocked, r.State)
		assert.Equal(t, second.ID, r.Approver)
		assert.Equal(t, []int64{1, 1, 1}, []int64{r.Persons, r.Records, r.Marks})
		assert.False(t, r.DueAt.IsZero())
		es, err := a.Log.Query(ctx, audit.Filter{Action: "person.erase"}, uint64(r.Event)+1, 1)
		require.NoError(t, err)
		require.Len(t, es, 1)
		assert.EqualValues(t, r.Event, es[0].Index)
		assert.Equal(t, r.ID.String(), es[0].Event.Note)
		after, err := a.Customers.Get(ctx, System("test"), v.ID.UUID())
		require.NoError(t, err)
		shut(t, after.Value, "approved")

		// Who asked has left: what was approved is not carried out in their name.
		w := known(t, a, admin, "Bob Kay", "13900135678")
		h := &privacy.Hold{RecordType: crm.TypeCustomer, Record: w.ID.UUID(), Reason: crm.NewText("a lawsuit")}
		require.NoError(t, a.PutHold(ctx, admin, h))
		other := &crm.Employee{Name: crm.NewText("Ida Roe"), Email: crm.NewText("ida@test.example"), Roles: []string{"admin"}, State: crm.EmployeeActive, Joined: time.Now().Add(-time.Hour), Meta: crm.Meta[crm.Employee]{Team: "/east/"}}
		_, err = a.Employees.Create(ctx, System("test"), other)
		require.NoError(t, err)
		require.NoError(t, a.RolesChanged(ctx, other.ID.UUID(), by.ID.String()))
		_, err = a.Erase(ctx, other, second, crm.TypeCustomer, w.ID.UUID(), "a letter")
		require.ErrorIs(t, err, encrypt.ErrHeld)
		require.NoError(t, a.LiftHold(ctx, by, second, h.ID.UUID(), "settled"))
		o, err := a.Employees.Get(ctx, System("test"), other.ID.UUID())
		require.NoError(t, err)
		require.NoError(t, o.Value.Move(crm.EmployeeLeft, time.Now()))
		_, err = a.Employees.Update(ctx, System("test"), o.Value)
		require.NoError(t, err)
		require.NoError(t, a.RolesChanged(ctx, other.ID.UUID(), by.ID.String()))
		_, err = a.Erase(ctx, by, second, crm.TypeCustomer, w.ID.UUID(), "a letter")
		require.ErrorIs(t, err, ErrSecond)
		lives(t, a, w, "who asked has left")
	})
}
