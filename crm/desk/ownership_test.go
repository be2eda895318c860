package desk_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
)

// few is n, or a fifth of it where time is short.
func few(n int) int {
	if testing.Short() {
		return n / 5
	}
	return n
}

// TestItem01OneWinner has 200 members claim one record at once: one gets it, on every store.
func TestItem01OneWinner(t *testing.T) {
	each(t, func(t *testing.T, o *office) {
		var members []guard.Caller
		p := o.pool(t, func(p *pool.Pool) {
			for range few(200) {
				c := o.person("sales", "/east/3/")
				members = append(members, c)
				p.Members = append(p.Members, self(c))
			}
		})
		target := o.free(t, p, "Wanted")
		var wg sync.WaitGroup
		var won atomic.Int64
		for _, c := range members {
			wg.Go(func() {
				var r *pool.Refusal
				switch err := o.Claim(t.Context(), in(c, p), target); {
				case err == nil:
					won.Add(1)
				case errors.As(err, &r) && r.Reason == pool.Owned, errors.Is(err, crm.ErrConflict), errors.Is(err, crm.ErrNotFound):
				default:
					t.Errorf("claim: %v", err)
				}
			})
		}
		wg.Wait()
		assert.EqualValues(t, 1, won.Load())
		v, err := o.Customers.Get(t.Context(), o.system, target.ID)
		require.NoError(t, err)
		history, err := o.Ownerships.List(t.Context(), o.system, guard.Query{Clauses: []crm.Clause{
			{Column: "record", Op: crm.Equal, Values: []crm.Value{crm.StringValue(target.ID.String())}},
			{Column: "act", Op: crm.Equal, Values: []crm.Value{crm.StringValue("claim")}},
		}})
		require.NoError(t, err)
		require.Len(t, history.Items, 1)
		assert.Equal(t, v.Value.Owner, history.Items[0].Value.To)
	})
}

// TestItem01Quotas has one member claim 40 records at once under each cap: exactly as many are theirs as the cap says.
func TestItem01Quotas(t *testing.T) {
	for what, set := range map[string]func(*pool.Pool){
		"hold_cap":  func(p *pool.Pool) { p.HoldCap = 5 },
		"total_cap": func(p *pool.Pool) { p.TotalCap = 5 },
		"daily_cap": func(p *pool.Pool) { p.DailyCap = 5 },
	} {
		t.Run(what, func(t *testing.T) {
			each(t, func(t *testing.T, o *office) {
				p := o.pool(t, set)
				var free []desk.Target
				for i := range few(40) {
					free = append(free, o.free(t, p, name(i)))
				}
				var wg sync.WaitGroup
				var got atomic.Int64
				for _, target := range free {
					wg.Go(func() {
						err := o.Claim(t.Context(), in(o.sales, p), target)
						if err == nil {
							got.Add(1)
							return
						}
						refused(t, err, pool.Reason(what))
					})
				}
				wg.Wait()
				assert.EqualValues(t, 5, got.Load())
				n, err := o.Customers.Count(t.Context(), o.sales, guard.Query{})
				require.NoError(t, err)
				assert.EqualValues(t, 5, n)
				if what == "daily_cap" { // giving back does not make room on the same day
					var mine desk.Target
					for _, target := range free {
						if o.owner(t, target) == self(o.sales) {
							mine = target
						}
					}
					require.NoError(t, o.Release(t.Context(), o.sales, mine))
					refused(t, o.Claim(t.Context(), in(o.sales, p), mine), pool.DailyCap)
					o.pass(24 * time.Hour)
					require.NoError(t, o.Claim(t.Context(), in(o.sales, p), mine))
				}
			})
		})
	}
}

// TestItem01OneDoor: owner and pool of a record change in no other way, and who may not see a record does not learn of it.
func TestItem01OneDoor(t *testing.T) {
	each(t, func(t *testing.T, o *office) {
		ctx := t.Context()
		p := o.pool(t, func(p *pool.Pool) { p.Hide = []string{"city"} })
		target := o.free(t, p, "Somebody")

		for what, edit := range map[string]func(*crm.Customer){
			"owner":          func(c *crm.Customer) { c.Owner = self(o.manager) },
			"pool":           func(c *crm.Customer) { c.Pool, c.FreeIn = crm.UUID{}, crm.UUID{} },
			"former":         func(c *crm.Customer) { c.Former = self(o.sales) },
			"last_follow_up": func(c *crm.Customer) { c.LastFollowUp = o.clock().AddDate(1, 0, 0) },
		} {
			v, err := o.Customers.Get(ctx, o.admin, target.ID)
			require.NoError(t, err)
			next := *v.Value
			edit(&next)
			_, err = o.Customers.Update(ctx, o.admin, &next)
			require.Error(t, err, what)
		}
		made := &crm.Customer{Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Name: crm.NewText("Made")}
		made.Pool, made.ClaimedAt = p.ID.UUID(), o.clock()
		_, err := o.Customers.Create(ctx, o.sales, made)
		denied(t, err)

		// Before the claim: masked, listed to members only, and no page of its own.
		page, err := o.Customers.List(ctx, in(o.sales, p), o.Browse(guard.Query{}, p))
		require.NoError(t, err)
		require.Len(t, page.Items, 1)
		assert.Equal(t, crm.Masked, page.Items[0].Value.Phone.State())
		assert.Equal(t, crm.Hidden, page.Items[0].Value.IDNumber.State())
		assert.NotContains(t, page.Items[0].Value.Phone.Expose(), "0013")
		_, err = o.Customers.List(ctx, in(o.sales, p), o.Browse(guard.Query{Clauses: []crm.Clause{{Column: "city", Op: crm.NotNull}}}, p))
		denied(t, err)
		_, err = o.Customers.List(ctx, o.sales, o.Browse(guard.Query{}, p))
		denied(t, err)
		_, err = o.Customers.Get(ctx, in(o.sales, p), target.ID)
		assert.ErrorIs(t, err, crm.ErrNotFound)
		stranger := o.person("sales", "/west/")
		assert.ErrorIs(t, o.Claim(ctx, stranger, target), crm.ErrNotFound)
		assert.ErrorIs(t, o.Release(ctx, stranger, target), crm.ErrNotFound)
		refused(t, o.Claim(ctx, in(stranger, p), target), pool.NotMember) // whose session says otherwise than the pool

		require.NoError(t, o.Claim(ctx, in(o.sales, p), target))
		v, err := o.Customers.Get(ctx, o.sales, target.ID)
		require.NoError(t, err)
		assert.Equal(t, "/east/1/", v.Value.Team)
		assert.Equal(t, o.clock(), v.Value.ClaimedAt)
		assert.Equal(t, o.clock().AddDate(0, 0, 10), v.Value.RecycleAt)
		assert.ErrorIs(t, o.Claim(ctx, in(o.other, p), target), crm.ErrNotFound)
		assert.ErrorIs(t, o.Transfer(ctx, o.other, target, self(o.other)), crm.ErrNotFound)
		refused(t, o.Transfer(ctx, o.sales, target, self(stranger)), pool.NotMember)
		refused(t, o.Transfer(ctx, o.sales, target, crm.ID[crm.Employee](crm.NewUUID())), pool.NotMember)
		o.pass(time.Minute)
		require.NoError(t, o.Transfer(ctx, o.sales, target, self(o.other)))
		_, err = o.Customers.Get(ctx, o.sales, target.ID)
		require.ErrorIs(t, err, crm.ErrNotFound, "it is theirs no more")
		assert.ErrorIs(t, o.Release(ctx, o.sales, target), crm.ErrNotFound)
		require.NoError(t, o.Release(ctx, o.other, target))
		denied(t, o.Assign(ctx, in(o.sales, p), target, self(o.sales)))
		o.pass(time.Minute)
		require.NoError(t, o.Assign(ctx, in(o.manager, p), target, self(o.sales)))
		assert.Equal(t, self(o.sales), o.owner(t, target))
		assert.Equal(t, 1, o.count(t, "customer.claim", audit.Intended))

		// An old version is a conflict.
		old := target
		old.Version = 1
		assert.ErrorIs(t, o.Release(ctx, o.sales, old), crm.ErrConflict)

		// Records of no pool are given by who may, and not by others.
		mine := o.customer(t, o.sales, "Mine")
		plain := desk.Target{Type: crm.TypeCustomer, ID: mine.ID.UUID()}
		assert.ErrorIs(t, o.Handover(ctx, o.other, plain, self(o.other)), crm.ErrNotFound)
		denied(t, o.Handover(ctx, o.sales, plain, self(o.other)))
		refused(t, o.Transfer(ctx, o.sales, plain, crm.ID[crm.Employee](crm.NewUUID())), pool.Inactive)
		require.NoError(t, o.Handover(ctx, o.manager, plain, self(o.other)))
		assert.Equal(t, self(o.other), o.owner(t, plain))
	})
}

// TestItem01Clocks: what nobody follows up goes back, what is locked stays, and owners are told before.
func TestItem01Clocks(t *testing.T) {
	each(t, func(t *testing.T, o *office) {
		ctx := t.Context()
		p := o.pool(t, func(p *pool.Pool) { p.RemindDays, p.LockCap, p.Cooldown = 3, 1, 48 })
		followed, left, locked := o.free(t, p, "Followed"), o.free(t, p, "Left"), o.free(t, p, "Locked")
		for _, target := range []desk.Target{followed, left, locked} {
			require.NoError(t, o.Claim(ctx, in(o.sales, p), target))
		}
		require.NoError(t, o.Lock(ctx, o.sales, locked, false))
		refused(t, o.Lock(ctx, o.sales, left, false), pool.LockCap)

		o.pass(8 * 24 * time.Hour)
		f := &crm.FollowUp{SubjectType: crm.TypeCustomer, Subject: followed.ID, Customer: crm.ID[crm.Customer](followed.ID), Channel: crm.ChannelCall, Text: crm.NewText("called"), At: o.clock()}
		require.NoError(t, o.FollowUp(ctx, o.sales, f))
		swept, err := o.Sweep(ctx, o.system, p)
		require.NoError(t, err)
		assert.Empty(t, swept.Back)
		require.Len(t, swept.Remind, 2)
		assert.Equal(t, left.ID, swept.Remind[0].ID)
		assert.Equal(t, self(o.sales), swept.Remind[0].Owner)

		o.pass(2 * 24 * time.Hour)
		swept, err = o.Sweep(ctx, o.system, p)
		require.NoError(t, err)
		require.Len(t, swept.Back, 1)
		assert.Equal(t, left.ID, swept.Back[0].ID)
		assert.True(t, o.owner(t, left).IsZero())
		assert.Equal(t, self(o.sales), o.owner(t, followed))
		refused(t, o.Claim(ctx, in(o.sales, p), left), pool.CoolingDown)
		require.NoError(t, o.Claim(ctx, in(o.other, p), left))

		// Whoever may not is not the clock.
		denied(t, o.Customers.Act(ctx, o.sales, "recycle", followed.ID, 0, func(*crm.Customer) error { return nil }))
		o.pass(24 * time.Hour)
		swept, err = o.Sweep(ctx, o.system, p)
		require.NoError(t, err)
		require.Len(t, swept.Back, 1)
		assert.Equal(t, followed.ID, swept.Back[0].ID)
		assert.Equal(t, self(o.sales), o.owner(t, locked))
		require.NoError(t, o.Lock(ctx, o.sales, locked, true))
		swept, err = o.Sweep(ctx, o.system, p)
		require.NoError(t, err)
		require.Len(t, swept.Back, 1)

		// Other clocks are those of all its records.
		p.Clocks = pool.Clocks{Protect: 1}
		v, err := o.Pools.Update(ctx, o.admin, p)
		require.NoError(t, err)
		n, err := o.Reclock(ctx, o.system, v.Value)
		require.NoError(t, err)
		assert.Equal(t, 1, n)
		swept, err = o.Sweep(ctx, o.system, v.Value)
		require.NoError(t, err)
		require.Len(t, swept.Back, 1)
	})
}
