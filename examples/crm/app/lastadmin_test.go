package app

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// administrators makes employees who are administrators, and takes the role from all others.
func administrators(t *testing.T, a *App, n int) []*Account {
	t.Helper()
	ctx := t.Context()
	var out []*Account
	for i := range n {
		mail := string(rune('a'+i)) + ".admin@demo.example"
		e := made(t, a.Employees, System("test"), &crm.Employee{
			Name: crm.NewText("An Administrator"), Email: crm.NewText(mail), Roles: []string{"admin"},
			Meta: crm.Meta[crm.Employee]{Team: "/office/"}, State: crm.EmployeeActive, Joined: time.Now().UTC().Add(-time.Hour),
		})
		require.NoError(t, a.rolesChanged(ctx, e.ID.UUID(), crm.ID[crm.Employee]{}))
		acc, err := a.accountFor(ctx, mail, e)
		require.NoError(t, err)
		out = append(out, acc)
	}
	var others []*crm.Employee
	require.NoError(t, each(ctx, a.Employees, guard.Query{}, func(e *crm.Employee) {
		if slices.Contains(e.Roles, "admin") && !slices.ContainsFunc(out, func(acc *Account) bool { return acc.Employee == e.ID.UUID() }) {
			others = append(others, e)
		}
	}))
	for _, e := range others {
		e.Roles = []string{"sales"}
		_, err := a.Employees.Update(ctx, System("test"), e)
		require.NoError(t, err)
		require.NoError(t, a.rolesChanged(ctx, e.ID.UUID(), crm.ID[crm.Employee]{}))
	}
	return out
}

// TestAdministratorsAtOnce: of administrators who all lose the role at the provider at the same moment one stays, and their roles are certified as they are.
func TestAdministratorsAtOnce(t *testing.T) {
	onStores(t, func(t *testing.T, a *App, _ guard.Caller) {
		ctx := t.Context()
		rules := &signOnRules{Roles: map[string][]string{"sales": {"sales"}, "admins": {"admin"}}}
		a.Config.SignOn.rules = *rules
		accounts := administrators(t, a, 3)
		for round := range 6 {
			some := accounts[:2+round%2]
			for _, acc := range accounts { // a third administrator who is none
				groups := []string{"sales", "admins"}
				if !slices.Contains(some, acc) {
					groups = groups[:1]
				}
				_, err := a.giveRoles(ctx, acc, rules, groups)
				require.NoError(t, err)
			}
			begin := make(chan struct{})
			var all sync.WaitGroup
			for _, acc := range some {
				all.Go(func() {
					<-begin
					for try := 0; ; try++ {
						why, err := a.giveRoles(ctx, acc, rules, []string{"sales"})
						if errors.Is(err, crm.ErrConflict) && try < 10 {
							continue
						}
						assert.NoError(t, err)
						assert.Empty(t, why)
						return
					}
				})
			}
			close(begin)
			all.Wait()
			left := 0
			for _, acc := range accounts {
				s, err := a.Subject(ctx, acc.Employee)
				require.NoError(t, err)
				want := []string{"sales"}
				if slices.Contains(s.Roles, "admin") {
					left++
					want = []string{"admin", "sales"}
				}
				assert.Equal(t, want, s.Roles)
				e, err := a.Employees.Get(ctx, System("test"), acc.Employee)
				require.NoError(t, err)
				assert.ElementsMatch(t, want, e.Value.Roles, "what is stored is what counts")
			}
			require.Equal(t, 1, left, "administrators after round %d", round)
		}
	})
}

// TestAdminTaken: nothing is stored where the other administrator is suspended, or their certification is over, though this process has not seen it yet.
func TestAdminTaken(t *testing.T) {
	onStores(t, func(t *testing.T, a *App, _ guard.Caller) {
		ctx := t.Context()
		accounts := administrators(t, a, 2)
		get := func(acc *Account) *crm.Employee {
			t.Helper()
			v, err := a.Employees.Get(ctx, System("test"), acc.Employee)
			require.NoError(t, err)
			return v.Value
		}
		refused := func(what string) {
			t.Helper()
			e := get(accounts[0])
			e.Roles = []string{"sales"}
			require.ErrorIs(t, a.takeAdmin(ctx, System("test"), e), ErrLastAdmin, what)
			assert.Equal(t, []string{"admin"}, get(accounts[0]).Roles, what)
			s, err := a.Subject(ctx, accounts[0].Employee)
			require.NoError(t, err)
			assert.Equal(t, []string{"admin"}, s.Roles, what)
		}
		state := func(to crm.EmployeeState) {
			t.Helper()
			e := get(accounts[1])
			require.NoError(t, a.Employees.Act(ctx, System("test"), "update", e.ID.UUID(), e.Version, func(v *crm.Employee) error { return v.Move(to, time.Now()) }))
		}
		state(crm.EmployeeSuspended)
		refused("the other is suspended")
		state(crm.EmployeeActive)
		require.NoError(t, a.certify(ctx, get(accounts[1]), "admin", crm.ID[crm.Employee]{}, time.Now(), ""))
		refused("the other's role has lapsed")
		require.NoError(t, a.certify(ctx, get(accounts[1]), "admin", crm.ID[crm.Employee]{}, time.Now().Add(time.Hour), ""))

		stale := get(accounts[0])
		_, err := a.Employees.Update(ctx, System("test"), get(accounts[0]))
		require.NoError(t, err)
		stale.Roles = []string{"sales"}
		require.ErrorIs(t, a.takeAdmin(ctx, System("test"), stale), crm.ErrConflict, "it was changed meanwhile")
		e := get(accounts[0])
		e.Roles = []string{"sales"}
		ended, stop := context.WithCancel(ctx)
		stop()
		require.Error(t, a.takeAdmin(ended, System("test"), e))
		assert.Equal(t, []string{"admin"}, get(accounts[0]).Roles)

		require.NoError(t, a.takeAdmin(ctx, System("test"), e))
		assert.Equal(t, []string{"sales"}, get(accounts[0]).Roles)
		s, err := a.Subject(ctx, accounts[0].Employee)
		require.NoError(t, err)
		assert.Empty(t, s.Roles, "that of sales is not certified yet")
	})
}
