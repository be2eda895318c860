package pool_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
)

var (
	admin  = crmtest.EmployeeID(0)
	ana    = crmtest.EmployeeID(1)
	bo     = crmtest.EmployeeID(2)
	other  = crmtest.EmployeeID(7) // no member
	nobody crm.ID[crm.Employee]
	works  = pool.Facts{Active: true}
)

func march(day int) time.Time { return time.Date(2026, 3, day, 10, 30, 0, 0, time.UTC) }

func east() *pool.Pool {
	return &pool.Pool{
		Meta: crm.Meta[pool.Pool]{ID: crm.ID[pool.Pool]{1}}, Name: "east", RecordType: crm.TypeCustomer, Mode: pool.MembersClaim,
		Members: []crm.ID[crm.Employee]{ana, bo}, Admins: []crm.ID[crm.Employee]{admin}, HoldCap: 3, DailyCap: 2, LockCap: 1, Cooldown: 72,
		Clocks: pool.Clocks{Protect: 10, Extend: 3, Max: 20}, RemindDays: 3, Hide: []string{"phone"}, Zone: "Asia/Shanghai",
	}
}

// free is a record of the pool east without an owner, held one with ana.
func free() pool.Record {
	return pool.Record{Type: crm.TypeCustomer, ID: crm.UUID{9}, Version: 4, Pooled: crm.Pooled{Pool: east().ID.UUID()}}
}

func held() pool.Record {
	r := free()
	r.Owner, r.ClaimedAt = ana, march(1)
	return r
}

func refused(t *testing.T, what string, err error, want pool.Reason) {
	t.Helper()
	var no *pool.Refusal
	if !errors.As(err, &no) || no.Reason != want {
		t.Errorf("%s: got %v, want %s", what, err, want)
	}
}

func TestStored(t *testing.T) {
	if s, err := guard.Schema[*pool.Pool](nil); err != nil || s.Type != crm.TypePool {
		t.Errorf("%q, %v", s.Type, err)
	}
	for what, schema := range map[string]func(*guard.TypeOptions) (crm.Schema, error){"customer": guard.Schema[*crm.Customer], "lead": guard.Schema[*crm.Lead]} {
		s, err := schema(nil)
		if err != nil || !slices.ContainsFunc(s.Columns, func(c crm.Column) bool { return c.Name == "recycle_at" && c.Indexed }) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestRules(t *testing.T) {
	type p = pool.Pool
	crmtest.Edits(t, east, (*p).Validate,
		crmtest.Breaks(func(*p) {}),
		crmtest.Breaks(func(r *p) { r.Name, r.Admins = "", nil }, "name required", "admins required"),
		crmtest.Breaks(func(r *p) { r.RecordType = crm.TypeQuote }, "record_type unknown_value"),
		crmtest.Breaks(func(r *p) { r.Mode = crmtest.Secret }, "mode unknown_value"),
		crmtest.Breaks(func(r *p) { r.Members = append(r.Members, ana) }, "members repeated"),
		crmtest.Breaks(func(r *p) { r.Admins = append(r.Admins, nobody) }, "admins repeated"),
		crmtest.Breaks(func(r *p) { r.HoldCap, r.DailyCap, r.LockCap = -1, -1, -1 }, "hold_cap negative", "daily_cap negative", "lock_cap negative"),
		crmtest.Breaks(func(r *p) { r.Clocks.Max = 9 }, "clocks.max before_start"),
		crmtest.Breaks(func(r *p) { r.Clocks.Extend = -1 }, "clocks.extend out_of_range"),
		crmtest.Breaks(func(r *p) { r.Zone = crmtest.Secret }, "zone unknown_value"),
		crmtest.Breaks(func(r *p) { r.Zone = "Local" }, "zone unknown_value"),
	)
	crmtest.Fixed(t, east(), (*p).CheckUpdate, map[string]func(*p){"record_type fixed": func(r *p) { r.RecordType = crm.TypeLead }})
	type c = crm.Customer
	crmtest.Edits(t, func() *c {
		x := crmtest.Customer(2)
		x.Pooled = crm.Pooled{Pool: east().ID.UUID(), ClaimedAt: march(1), RecycleAt: march(11)}
		return x
	}, (*c).Validate,
		crmtest.Breaks(func(*c) {}),
		crmtest.Breaks(func(r *c) { r.Pool = crm.UUID{} }, "pool required"),
		crmtest.Breaks(func(r *c) { r.Owner = nobody }, "free_in mismatch", "owner required"),
		crmtest.Breaks(func(r *c) { r.FreeIn = r.Pool }, "free_in mismatch"),
		crmtest.Breaks(func(r *c) { r.ClaimedAt = time.Time{} }, "claimed_at required"),
		crmtest.Breaks(func(r *c) { r.ReturnedAt = march(1) }, "returned_at mismatch"),
	)
}

// TestVectors reads testdata/clocks.json, which is for implementations in any language: the clocks of a pool in days, when a record was claimed
// and followed up, and when it goes back; a case without back never does. The first four are the worked example of the documentation.
func TestVectors(t *testing.T) {
	b, err := os.ReadFile("testdata/clocks.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []struct {
		Note                 string
		Protect, Extend, Max int64
		Zone                 string
		Claimed, Back        time.Time
		FollowUps            []time.Time `json:"follow_ups"`
	}
	if err := json.Unmarshal(b, &list); err != nil || len(list) < 9 {
		t.Fatalf("%d vectors, %v", len(list), err)
	}
	for _, v := range list {
		p, r := east(), free()
		p.Zone, p.Clocks = v.Zone, pool.Clocks{Protect: v.Protect, Extend: v.Extend, Max: v.Max}
		r.Owner, r.ClaimedAt = ana, v.Claimed
		for _, f := range v.FollowUps {
			r.Pooled = p.FollowedUp(r, f)
			r.LastFollowUp = f
		}
		at, ok := p.RecycleAt(r)
		if ok == v.Back.IsZero() || !at.Equal(v.Back) {
			t.Errorf("%s: %v, %v", v.Note, at, ok)
		}
		if len(v.FollowUps) > 0 && !r.RecycleAt.Equal(at) {
			t.Errorf("%s: stored %v, derived %v", v.Note, r.RecycleAt, at)
		}
	}
}

func TestClocks(t *testing.T) {
	for _, c := range []struct {
		clocks   pool.Clocks
		followUp time.Time
		edit     func(*pool.Record)
		want     string
	}{
		{pool.FollowUpOrDeal(7, 3), time.Time{}, nil, "03-04"},
		{pool.FollowUpOrDeal(7, 30), time.Time{}, nil, "03-08"},
		{pool.FollowUpOrDeal(7, 30), march(6), nil, "03-13"},
		{pool.FollowUpOrDeal(7, 30), march(30), nil, "03-31"},
		{pool.Clocks{Extend: 5}, time.Time{}, nil, ""}, // nothing was begun
		{pool.Clocks{Extend: 5}, march(2), nil, "03-07"},
		{pool.Clocks{Extend: 5, Max: 9}, time.Time{}, nil, "03-10"},
		{pool.Clocks{}, march(2), nil, ""},
		{pool.Clocks{Protect: 5, Extend: 9}, march(1).Add(-time.Hour), nil, "03-06"}, // by the owner before
		{pool.Clocks{Protect: 5}, time.Time{}, func(r *pool.Record) { r.Locked = true }, ""},
		{pool.Clocks{Protect: 5}, time.Time{}, func(r *pool.Record) { r.Won = true }, ""},
		{pool.Clocks{Protect: 5}, time.Time{}, func(r *pool.Record) { r.Deleted = true }, ""},
		{pool.Clocks{Protect: 5}, time.Time{}, func(r *pool.Record) { r.Owner = nobody }, ""},
		{pool.Clocks{Protect: 5}, time.Time{}, func(r *pool.Record) { r.Pool = crm.UUID{5} }, ""},
	} {
		p, r := east(), held()
		p.Clocks, r.LastFollowUp = c.clocks, c.followUp
		if c.edit != nil {
			c.edit(&r)
		}
		at, ok := p.RecycleAt(r)
		if got := at.Format("01-02"); ok != (c.want != "") || ok && got != c.want {
			t.Errorf("%+v: %s, %v", c, got, ok)
		}
		if when, told := p.RemindAt(r); told != ok || ok && !when.Equal(at.AddDate(0, 0, -3)) {
			t.Errorf("%+v: told at %v, %v", c, when, told)
		}
	}
	// A day is the same wall time of the next date, also when the clock changes in between.
	p, r := east(), held()
	p.Zone, p.Clocks = "America/New_York", pool.Clocks{Protect: 10} // 8 March has 23 hours
	if at, _ := p.RecycleAt(r); !at.Equal(march(11).Add(-time.Hour)) {
		t.Errorf("over the change: %v", at)
	}
	if got := east().Today(time.Date(2026, 3, 1, 17, 0, 0, 0, time.UTC)); !got.Equal(time.Date(2026, 3, 1, 16, 0, 0, 0, time.UTC)) {
		t.Errorf("the day in Shanghai began at %v", got)
	}
}

// TestItem01Pools: who may claim, assign, transfer, return and hand over a customer of a public pool, with caps, cooldowns, locks and the clock that
// takes it back.
func TestItem01Pools(t *testing.T) {
	for _, c := range []struct {
		name string
		want pool.Reason // "": allowed
		r    func() pool.Record
		q    pool.Request
		f    pool.Facts
		edit func(*pool.Pool, *pool.Record)
	}{
		{"a member claims", "", free, pool.Request{Act: pool.Claim, By: ana}, works, nil},
		{"a stranger claims", pool.NotMember, free, pool.Request{Act: pool.Claim, By: other}, works, nil},
		{"nobody claims", pool.NotMember, free, pool.Request{Act: pool.Claim}, works, nil},
		{"claimed although it is assigned only", pool.AssignOnly, free, pool.Request{Act: pool.Claim, By: ana}, works, func(p *pool.Pool, _ *pool.Record) { p.Mode = pool.AdminsAssign }},
		{"what another has", pool.Owned, held, pool.Request{Act: pool.Claim, By: bo}, works, nil},
		{"what they have", pool.Owned, held, pool.Request{Act: pool.Claim, By: ana}, works, nil},
		{"of another pool", pool.OtherPool, free, pool.Request{Act: pool.Claim, By: ana}, works, func(_ *pool.Pool, r *pool.Record) { r.Pool = crm.UUID{8} }},
		{"of another type", pool.OtherPool, free, pool.Request{Act: pool.Claim, By: ana}, works, func(_ *pool.Pool, r *pool.Record) { r.Type = crm.TypeLead }},
		{"in the bin", pool.InBin, free, pool.Request{Act: pool.Claim, By: ana}, works, func(_ *pool.Pool, r *pool.Record) { r.Deleted = true }},
		{"in a pool in the bin", pool.PoolInactive, free, pool.Request{Act: pool.Claim, By: ana}, works, func(p *pool.Pool, _ *pool.Record) { p.Deleted = true }},
		{"who has left", pool.Inactive, free, pool.Request{Act: pool.Claim, By: ana}, pool.Facts{}, nil},
		{"one below the caps", "", free, pool.Request{Act: pool.Claim, By: ana}, pool.Facts{Active: true, Held: 2, ClaimedToday: 1}, nil},
		{"holds enough", pool.HoldCap, free, pool.Request{Act: pool.Claim, By: ana}, pool.Facts{Active: true, Held: 3}, nil},
		{"holds enough of all pools", pool.TotalCap, free, pool.Request{Act: pool.Claim, By: ana}, pool.Facts{Active: true, HeldInAll: 8}, func(p *pool.Pool, _ *pool.Record) { p.TotalCap = 8 }},
		{"one less of all pools", "", free, pool.Request{Act: pool.Claim, By: ana}, pool.Facts{Active: true, HeldInAll: 7}, func(p *pool.Pool, _ *pool.Record) { p.TotalCap = 8 }},
		{"claimed enough", pool.DailyCap, free, pool.Request{Act: pool.Claim, By: ana}, pool.Facts{Active: true, ClaimedToday: 2}, nil},
		{"no caps", "", free, pool.Request{Act: pool.Claim, By: ana}, pool.Facts{Active: true, Held: 300, ClaimedToday: 200}, func(p *pool.Pool, _ *pool.Record) { p.HoldCap, p.DailyCap = 0, 0 }},
		{"had it yesterday", pool.CoolingDown, free, pool.Request{Act: pool.Claim, By: ana}, works, func(_ *pool.Pool, r *pool.Record) { r.Former, r.ReturnedAt = ana, march(1) }},
		{"another had it", "", free, pool.Request{Act: pool.Claim, By: bo}, works, func(_ *pool.Pool, r *pool.Record) { r.Former, r.ReturnedAt = ana, march(1) }},
		{"had it three days ago", "", free, pool.Request{Act: pool.Claim, By: ana}, works, func(_ *pool.Pool, r *pool.Record) {
			r.Former, r.ReturnedAt = ana, march(2).Add(-72*time.Hour)
		}},

		{"an admin assigns", "", free, pool.Request{Act: pool.Assign, By: admin, To: ana}, works, nil},
		{"in spite of the cooldown", "", free, pool.Request{Act: pool.Assign, By: admin, To: ana}, works, func(_ *pool.Pool, r *pool.Record) { r.Former, r.ReturnedAt = ana, march(1) }},
		{"a member assigns", pool.NotAdmin, free, pool.Request{Act: pool.Assign, By: ana, To: bo}, works, nil},
		{"to a stranger", pool.NotMember, free, pool.Request{Act: pool.Assign, By: admin, To: other}, works, nil},
		{"to nobody", pool.NotMember, free, pool.Request{Act: pool.Assign, By: admin}, works, nil},
		{"beyond the cap", pool.HoldCap, free, pool.Request{Act: pool.Assign, By: admin, To: ana}, pool.Facts{Active: true, Held: 3}, nil},
		{"what is owned", pool.Owned, held, pool.Request{Act: pool.Assign, By: admin, To: bo}, works, nil},

		{"the owner transfers", "", held, pool.Request{Act: pool.Transfer, By: ana, To: bo}, works, nil},
		{"an admin transfers", "", held, pool.Request{Act: pool.Transfer, By: admin, To: bo}, works, nil},
		{"another transfers", pool.NotAdmin, held, pool.Request{Act: pool.Transfer, By: bo, To: bo}, works, nil},
		{"to whom it belongs", pool.SameOwner, held, pool.Request{Act: pool.Transfer, By: ana, To: ana}, works, nil},
		{"what is free", pool.Free, free, pool.Request{Act: pool.Transfer, By: admin, To: bo}, works, nil},
		{"beyond the cap of the other", pool.HoldCap, held, pool.Request{Act: pool.Transfer, By: ana, To: bo}, pool.Facts{Active: true, Held: 3}, nil},
		{"to one who left", pool.Inactive, held, pool.Request{Act: pool.Transfer, By: ana, To: bo}, pool.Facts{}, nil},

		{"the owner gives it back", "", held, pool.Request{Act: pool.Release, By: ana}, pool.Facts{}, nil},
		{"another gives it back", pool.NotAdmin, held, pool.Request{Act: pool.Release, By: bo}, pool.Facts{}, nil},
		{"a locked one", pool.IsLocked, held, pool.Request{Act: pool.Release, By: ana}, pool.Facts{}, func(_ *pool.Pool, r *pool.Record) { r.Locked = true }},
		{"a locked one, by an admin", "", held, pool.Request{Act: pool.Release, By: admin}, pool.Facts{}, func(_ *pool.Pool, r *pool.Record) { r.Locked = true }},
		{"a free one", pool.Free, free, pool.Request{Act: pool.Release, By: admin}, pool.Facts{}, nil},

		{"the clock ran out", "", held, pool.Request{Act: pool.Recycle, At: march(11)}, pool.Facts{}, nil},
		{"the clock runs", pool.NotYet, held, pool.Request{Act: pool.Recycle, At: march(11).Add(-1)}, pool.Facts{}, nil},
		{"a locked one stays", pool.NotYet, held, pool.Request{Act: pool.Recycle, At: march(31)}, pool.Facts{}, func(_ *pool.Pool, r *pool.Record) { r.Locked = true }},

		{"who leaves hands over, caps or not", "", held, pool.Request{Act: pool.Handover, By: admin, To: bo}, pool.Facts{Active: true, Held: 30}, nil},
		{"handed over by a member", pool.NotAdmin, held, pool.Request{Act: pool.Handover, By: ana, To: bo}, works, nil},
		{"handed over to one who left", pool.Inactive, held, pool.Request{Act: pool.Handover, By: admin, To: bo}, pool.Facts{}, nil},
		{"no act", pool.UnknownAct, held, pool.Request{Act: crmtest.Secret, By: admin}, works, nil},
	} {
		p, r := east(), c.r()
		if c.edit != nil {
			c.edit(p, &r)
		}
		if c.q.At.IsZero() {
			c.q.At = march(2)
		}
		change, err := p.Change(r, c.q, c.f)
		if c.want != "" {
			refused(t, c.name, err, c.want)
			if change != (pool.Change{}) || err != nil && strings.Contains(err.Error(), crmtest.Secret) {
				t.Errorf("%s: %+v beside %v", c.name, change, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		// What is decided keeps the record whole, for the version and the owner that were looked at.
		if change.Version != r.Version || change.From != r.Owner || change.Set.Pool != r.Pool || !change.At.Equal(c.q.At) ||
			change.To.IsZero() != change.Set.ClaimedAt.IsZero() || change.To.IsZero() && (change.Set.Former != r.Owner || !change.Set.ReturnedAt.Equal(c.q.At)) {
			t.Errorf("%s: %+v", c.name, change)
		}
		if !change.To.IsZero() && p.Clocks.Protect > 0 && !change.Set.RecycleAt.Equal(c.q.At.AddDate(0, 0, 10)) {
			t.Errorf("%s leaves no date of return: %+v", c.name, change)
		}
	}

	// Until when.
	p, r := east(), free()
	r.Former, r.ReturnedAt = ana, march(1)
	var no *pool.Refusal
	if _, err := p.Change(r, pool.Request{Act: pool.Claim, By: ana, At: march(2)}, works); !errors.As(err, &no) || !no.Until.Equal(march(4)) {
		t.Errorf("cooldown: %v", err)
	}
	if _, err := p.Change(free(), pool.Request{Act: pool.Claim, By: ana, At: march(2)}, pool.Facts{Active: true, ClaimedToday: 9}); !errors.As(err, &no) ||
		!no.Until.Equal(time.Date(2026, 3, 2, 16, 0, 0, 0, time.UTC)) { // midnight in Shanghai
		t.Errorf("daily cap: %v", err)
	}

	// Before the claim some fields are hidden.
	if p := east(); !p.Hides(free(), "phone") || p.Hides(free(), "name") || p.Hides(held(), "phone") {
		t.Error("what is hidden")
	}
}

// TestNoOtherDoor: an owner or a clock of a pooled record that is changed by hand is refused by the record itself.
func TestNoOtherDoor(t *testing.T) {
	type c = crm.Customer
	x := crmtest.Customer(2)
	x.Owner, x.Pooled = ana, crm.Pooled{Pool: east().ID.UUID(), ClaimedAt: march(1), RecycleAt: march(11)}
	crmtest.Fixed(t, x, (*c).CheckUpdate, map[string]func(*c){
		"claimed_at mismatch": func(r *c) { r.Owner = bo },
		"former mismatch":     func(r *c) { r.Owner, r.Pooled = nobody, crm.Pooled{Pool: r.Pool} },
		"claimed_at fixed":    func(r *c) { r.ClaimedAt = march(9) },
		"pool fixed":          func(r *c) { r.Pool = crm.UUID{8} },
		"former fixed":        func(r *c) { r.Former = bo },
	})
	followed := *x
	followed.Pooled = east().FollowedUp(pool.OfCustomer(x), march(10))
	if err := followed.CheckUpdate(x); err != nil || !followed.RecycleAt.Equal(march(13)) {
		t.Errorf("a follow-up: %v", err)
	}
	west := east()
	west.ID = crm.ID[pool.Pool]{2}
	freed := *x
	freed.Owner, freed.Pooled = nobody, crm.Pooled{Pool: x.Pool, Former: ana, ReturnedAt: march(5)}
	moved := freed
	change, err := west.Enter(pool.OfCustomer(&freed), east(), admin, march(6))
	if err != nil || change.Apply(moved.Version, &moved.Owner, &moved.Pooled) != nil {
		t.Fatal(err)
	}
	if err := errors.Join(freed.CheckUpdate(x), moved.CheckUpdate(&freed)); err != nil || moved.Former != ana {
		t.Errorf("given back and moved: %v", err)
	}
}

func TestLocks(t *testing.T) {
	p := east()
	set, err := p.Lock(held(), ana, pool.Facts{})
	if err != nil || !set.Locked || !set.RecycleAt.IsZero() {
		t.Fatalf("%+v, %v", set, err)
	}
	r := held()
	r.Pooled = set
	if set, err = p.Unlock(r, ana); err != nil || set.Locked || !set.RecycleAt.Equal(march(11)) {
		t.Errorf("%+v, %v", set, err)
	}
	if _, err := p.Lock(held(), admin, pool.Facts{Locked: 9}); err != nil {
		t.Errorf("an admin: %v", err)
	}
	_, err = p.Lock(held(), ana, pool.Facts{Locked: 1})
	refused(t, "more than LockCap", err, pool.LockCap)
	_, err = p.Lock(held(), bo, pool.Facts{})
	refused(t, "what another has", err, pool.NotAdmin)
	_, err = p.Lock(free(), admin, pool.Facts{})
	refused(t, "what nobody has", err, pool.Free)
	_, err = p.Unlock(r, bo)
	refused(t, "unlocked by another", err, pool.NotAdmin)
}

func TestSeveralPools(t *testing.T) {
	west := east()
	west.ID, west.Name = crm.ID[pool.Pool]{2}, "west"
	c, err := west.Enter(free(), east(), admin, march(5))
	if err != nil || c.Set.Pool != west.ID.UUID() || !c.To.IsZero() {
		t.Errorf("%+v, %v", c, err)
	}
	_, err = west.Enter(free(), east(), ana, march(5))
	refused(t, "by a member", err, pool.NotAdmin)
	_, err = west.Enter(held(), east(), admin, march(5))
	refused(t, "what is owned", err, pool.Owned)
	_, err = east().Enter(free(), east(), admin, march(5))
	refused(t, "where it is", err, pool.OtherPool)
	_, err = west.Enter(free(), nil, admin, march(5))
	refused(t, "without a word of the pool it is in", err, pool.OtherPool)
	own := pool.Record{Type: crm.TypeCustomer, Owner: ana}
	if c, err := west.Enter(own, nil, ana, march(5)); err != nil || c.Set.Former != ana || c.From != ana {
		t.Errorf("%+v, %v", c, err)
	}
	_, err = west.Enter(own, nil, bo, march(5))
	refused(t, "of another", err, pool.NotAdmin)
}

func TestSweep(t *testing.T) {
	late, soon, fine, locked := held(), held(), held(), held()
	late.ClaimedAt, soon.ClaimedAt, fine.ClaimedAt, locked.ClaimedAt = march(1), march(4), march(9), march(1)
	locked.Locked = true
	back, remind := east().Sweep([]pool.Record{late, soon, fine, locked, free()}, march(11))
	if len(back) != 1 || back[0].From != ana || back[0].Set.Former != ana || len(remind) != 1 || !remind[0].ClaimedAt.Equal(march(4)) {
		t.Errorf("%+v, %+v", back, remind)
	}
}

// TestRace: of several who claim one record at once, one gets it, and what was created stays as it was.
func TestRace(t *testing.T) {
	p := east()
	c := crmtest.Customer(2)
	c.Owner, c.Pooled, c.Version = nobody, crm.Pooled{Pool: p.ID.UUID()}, 4
	created := c.CreatedAt
	var changes []pool.Change
	for _, who := range p.Members {
		change, err := p.Change(pool.OfCustomer(c), pool.Request{Act: pool.Claim, By: who, At: march(2)}, works)
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, change)
	}
	won := 0
	for _, change := range changes {
		err := change.Apply(c.Version, &c.Owner, &c.Pooled)
		if err == nil {
			won++
			c.Version++
		} else if !errors.Is(err, crm.ErrConflict) {
			t.Error(err)
		}
	}
	if won != 1 || c.Owner != ana || !c.CreatedAt.Equal(created) || c.Validate() != nil {
		t.Errorf("%d got it, %+v", won, c.Pooled)
	}
}

// TestItem02LeadPools walks leads through random acts: what is allowed always leaves a record that is valid, with an owner who is a member and a
// date of return, or free without either.
func TestItem02LeadPools(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	p := east()
	who := []crm.ID[crm.Employee]{admin, ana, bo, other, nobody}
	allowed := 0
	for range 200 {
		l := crmtest.Lead(1)
		p.RecordType = crm.TypeLead
		l.Owner, l.Pooled = nobody, crm.Pooled{Pool: p.ID.UUID()}
		at := march(1)
		for range 60 {
			at = at.Add(time.Duration(1+random.IntN(72)) * time.Hour)
			act := []pool.Act{pool.Claim, pool.Assign, pool.Transfer, pool.Release, pool.Recycle, pool.Handover}[random.IntN(6)]
			r := pool.OfLead(l)
			c, err := p.Change(r, pool.Request{Act: act, By: who[random.IntN(5)], To: who[random.IntN(5)], At: at},
				pool.Facts{Active: random.IntN(5) > 0, Held: random.Int64N(4), ClaimedToday: random.Int64N(3)})
			if err != nil {
				continue
			}
			allowed++
			prev := *l
			if err := c.Apply(l.Version, &l.Owner, &l.Pooled); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(l.Validate(), l.CheckUpdate(&prev)); err != nil {
				t.Fatalf("%s: %v", act, err)
			}
			if l.Owner.IsZero() != l.RecycleAt.IsZero() || !l.Owner.IsZero() && !p.Member(l.Owner) || act == pool.Recycle && at.Before(r.RecycleAt) {
				t.Fatalf("%s: %+v", act, l.Pooled)
			}
			l.Version++
		}
	}
	if allowed < 500 {
		t.Errorf("%d were allowed only", allowed)
	}
}

func ExamplePool_Change() {
	p := east()
	at := time.Date(2026, 3, 25, 9, 0, 0, 0, time.UTC)
	c, err := p.Change(free(), pool.Request{Act: pool.Claim, By: ana, At: at}, pool.Facts{Active: true})
	fmt.Println(c.To == ana, c.Set.RecycleAt.Format(time.DateOnly), err)
	_, err = p.Change(free(), pool.Request{Act: pool.Claim, By: ana, At: at}, pool.Facts{Active: true, Held: 3})
	fmt.Println(err)
	// Output:
	// true 2026-04-04 <nil>
	// pool: claim is refused: hold_cap
}
