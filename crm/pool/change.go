package pool

import (
	"fmt"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// Act is a way in which a record changes its owner.
type Act string

// The acts.
const (
	Claim    Act = "claim"    // a member takes a free record
	Assign   Act = "assign"   // an admin gives a free record to a member
	Transfer Act = "transfer" // the owner or an admin gives an owned record to a member
	Release  Act = "release"  // the owner or an admin gives it back
	Recycle  Act = "recycle"  // the clock ran out; nobody does it
	Handover Act = "handover" // an admin gives it to a member because the owner leaves; no cap counts
	Enter    Act = "enter"    // it is put into a pool, and is free there
)

// Reason says why something is refused.
type Reason string

// The reasons.
const (
	NotMember    Reason = "not_member"
	NotAdmin     Reason = "not_admin" // neither admin nor, where that would do, owner
	AssignOnly   Reason = "assign_only"
	OtherPool    Reason = "other_pool" // the record is not one of this pool
	InBin        Reason = "in_bin"
	Owned        Reason = "owned"      // somebody has it
	Free         Reason = "free"       // nobody has it
	SameOwner    Reason = "same_owner" // who would get it has it
	Inactive     Reason = "inactive"   // who would get it does not work here
	IsLocked     Reason = "locked"
	HoldCap      Reason = "hold_cap"
	TotalCap     Reason = "total_cap"
	DailyCap     Reason = "daily_cap"
	LockCap      Reason = "lock_cap"
	CoolingDown  Reason = "cooldown"
	NotYet       Reason = "not_yet" // the clock has not run out
	UnknownAct   Reason = "unknown_act"
	PoolInactive Reason = "no_pool" // the pool is in the bin
)

// Refusal says why an act is refused.
type Refusal struct {
	Act    Act
	Reason Reason
	Until  time.Time // when it may be tried again; zero: not known
}

// Error names act and reason.
func (e *Refusal) Error() string { return fmt.Sprintf("pool: %s is refused: %s", e.Act, e.Reason) }

// Request is an act that somebody asks for.
type Request struct {
	Act Act
	By  crm.ID[crm.Employee] // none for Recycle
	To  crm.ID[crm.Employee] // who gets it; By for Claim, none for Release and Recycle
	At  time.Time
}

// Facts are what a store knows of who would get the record. They are read in the transaction that applies the change, or again in it:
// Change carries the caps.
type Facts struct {
	Active       bool  // works here
	Held         int64 // records of the pool that they have; without those whose deal is won unless CountWon
	HeldInAll    int64 // records of all pools that they have
	ClaimedToday int64 // claims since Pool.Today
	Locked       int64 // of the records that they have, for Lock
}

// Change is a decision: what to set in a record. A store applies it in one transaction, only while the record has this Version and this owner
// From, and while who gets it has fewer than HoldCap records of the pool, TotalCap of all and DailyCap claims
// since Since, where these are above 0.
type Change struct {
	Act      Act
	Type     string
	Record   crm.UUID
	Version  int64
	From     crm.ID[crm.Employee] // none: it was free
	To       crm.ID[crm.Employee] // none: it is free now
	By       crm.ID[crm.Employee] // none: the clock
	At       time.Time
	Set      crm.Pooled
	HoldCap  int64
	TotalCap int64
	DailyCap int64
	Since    time.Time // when the day of the claim began
}

// Apply sets owner and pool of a record that has still the version and owner that were decided on, else it is crm.ErrConflict. It
// suits a store that writes whole records under their version.
func (c Change) Apply(version int64, owner *crm.ID[crm.Employee], pooled *crm.Pooled) error {
	if version != c.Version || *owner != c.From {
		return crm.ErrConflict
	}
	*owner, *pooled = c.To, c.Set
	return nil
}

// Change decides on a request about a record. It returns the change that is to be applied, or a *Refusal.
func (p *Pool) Change(r Record, q Request, f Facts) (Change, error) {
	no := func(why Reason) (Change, error) { return Change{}, &Refusal{Act: known(q.Act), Reason: why} }
	byAdmin, gets := p.Admin(q.By), q.To
	switch q.Act {
	case Claim:
		gets = q.By
	case Release, Recycle:
		gets = crm.ID[crm.Employee]{}
	case Assign, Transfer, Handover:
	default:
		return no(UnknownAct)
	}
	// Who may.
	switch {
	case p.Deleted:
		return no(PoolInactive)
	case q.Act == Claim && !p.Member(q.By):
		return no(NotMember)
	case q.Act == Claim && p.Mode != MembersClaim && !byAdmin:
		return no(AssignOnly)
	case (q.Act == Assign || q.Act == Handover) && !byAdmin:
		return no(NotAdmin)
	case (q.Act == Transfer || q.Act == Release) && !byAdmin && (q.By.IsZero() || q.By != r.Owner):
		return no(NotAdmin)
	}
	// What of the record.
	switch {
	case r.Pool != p.ID.UUID() || r.Type != p.RecordType:
		return no(OtherPool)
	case r.Deleted:
		return no(InBin)
	case (q.Act == Claim || q.Act == Assign) && !r.Owner.IsZero():
		return no(Owned)
	case q.Act != Claim && q.Act != Assign && r.Owner.IsZero():
		return no(Free)
	case !gets.IsZero() && gets == r.Owner:
		return no(SameOwner)
	case q.Act == Release && r.Locked && !byAdmin:
		return no(IsLocked)
	}
	c := Change{Act: q.Act, Type: r.Type, Record: r.ID, Version: r.Version, From: r.Owner, To: gets, By: q.By, At: q.At, Set: r.Pooled}
	if q.Act == Recycle {
		c.By = crm.ID[crm.Employee]{}
		due, ok := p.RecycleAt(r)
		if !ok {
			return no(NotYet)
		}
		if q.At.Before(due) {
			return Change{}, &Refusal{Act: q.Act, Reason: NotYet, Until: due}
		}
	}
	if q.Act == Release || q.Act == Recycle {
		c.Set = crm.Pooled{Pool: r.Pool, FreeIn: r.Pool, Former: r.Owner, ReturnedAt: q.At}
		return c, nil
	}
	// What of who gets it.
	switch {
	case !p.Member(gets):
		return no(NotMember)
	case !f.Active:
		return no(Inactive)
	}
	if q.Act == Claim && gets == r.Former && p.Cooldown > 0 {
		if until := r.ReturnedAt.Add(time.Duration(p.Cooldown) * time.Hour); q.At.Before(until) {
			return Change{}, &Refusal{Act: q.Act, Reason: CoolingDown, Until: until}
		}
	}
	if q.Act != Handover {
		c.HoldCap, c.TotalCap = p.HoldCap, p.TotalCap
		if p.HoldCap > 0 && f.Held >= p.HoldCap {
			return no(HoldCap)
		}
		if p.TotalCap > 0 && f.HeldInAll >= p.TotalCap {
			return no(TotalCap)
		}
	}
	if q.Act == Claim {
		c.DailyCap, c.Since = p.DailyCap, p.Today(q.At)
		if p.DailyCap > 0 && f.ClaimedToday >= p.DailyCap {
			return Change{}, &Refusal{Act: q.Act, Reason: DailyCap, Until: p.Tomorrow(q.At)}
		}
	}
	r.Owner = gets
	r.Pooled = crm.Pooled{Pool: r.Pool, ClaimedAt: q.At, Former: r.Former, ReturnedAt: r.ReturnedAt}
	r.RecycleAt, _ = p.RecycleAt(r) // an owner's follow-ups before the claim do not count
	c.Set = r.Pooled
	return c, nil
}

// Reassign decides on giving a record that is in no pool to somebody: Transfer or Handover; who may is for the policy to say. A
// *Refusal has the reasons unknown_act, other_pool, in_bin, same_owner and inactive.
func Reassign(r Record, q Request, f Facts) (Change, error) {
	why := Reason("")
	switch {
	case q.Act != Transfer && q.Act != Handover || q.To.IsZero():
		why = UnknownAct
	case !r.Pool.IsZero():
		why = OtherPool
	case r.Deleted:
		why = InBin
	case q.To == r.Owner:
		why = SameOwner
	case !f.Active:
		why = Inactive
	}
	if why != "" {
		return Change{}, &Refusal{Act: known(q.Act), Reason: why}
	}
	return Change{Act: q.Act, Type: r.Type, Record: r.ID, Version: r.Version, From: r.Owner, To: q.To, By: q.By, At: q.At, Set: r.Pooled}, nil
}

// known keeps an act that is none, and so may be anything, out of errors.
func known(a Act) Act {
	switch a {
	case Claim, Assign, Transfer, Release, Recycle, Handover, Enter:
		return a
	}
	return "unknown"
}

// FollowedUp returns what a follow-up at a time sets in an owned record: when it goes back now. The record's LastFollowUp is that of the
// record before.
func (p *Pool) FollowedUp(r Record, at time.Time) crm.Pooled {
	if at.After(r.LastFollowUp) {
		r.LastFollowUp = at
	}
	r.RecycleAt, _ = p.RecycleAt(r)
	return r.Pooled
}

// Lock locks an owned record, so that it does not go back by itself: its owner within LockCap, an admin always. A *Refusal has the act
// "lock".
func (p *Pool) Lock(r Record, by crm.ID[crm.Employee], f Facts) (crm.Pooled, error) {
	why := p.mayLock(r, by)
	if why == "" && !r.Locked && !p.Admin(by) && f.Locked >= p.LockCap {
		why = LockCap
	}
	if why != "" {
		return crm.Pooled{}, &Refusal{Act: "lock", Reason: why}
	}
	r.Locked, r.RecycleAt = true, time.Time{}
	return r.Pooled, nil
}

// Unlock lets a locked record go back by itself again: its owner or an admin. A *Refusal has the act "unlock".
func (p *Pool) Unlock(r Record, by crm.ID[crm.Employee]) (crm.Pooled, error) {
	if why := p.mayLock(r, by); why != "" {
		return crm.Pooled{}, &Refusal{Act: "unlock", Reason: why}
	}
	r.Locked = false
	r.RecycleAt, _ = p.RecycleAt(r)
	return r.Pooled, nil
}

// mayLock says why somebody may not lock or unlock a record, or "".
func (p *Pool) mayLock(r Record, by crm.ID[crm.Employee]) Reason {
	switch {
	case r.Pool != p.ID.UUID() || r.Type != p.RecordType:
		return OtherPool
	case r.Deleted:
		return InBin
	case r.Owner.IsZero():
		return Free
	case by != r.Owner && !p.Admin(by):
		return NotAdmin
	}
	return ""
}

// Enter puts a record that is in no pool, or free in the pool from, into the pool p, without an owner: by an admin of both, or by the owner
// of a record of no pool that becomes free so. from is nil for a record of no pool.
func (p *Pool) Enter(r Record, from *Pool, by crm.ID[crm.Employee], at time.Time) (Change, error) {
	no := func(why Reason) (Change, error) { return Change{}, &Refusal{Act: Enter, Reason: why} }
	switch {
	case p.Deleted:
		return no(PoolInactive)
	case r.Type != p.RecordType, from == nil && !r.Pool.IsZero(), from != nil && r.Pool != from.ID.UUID(), r.Pool == p.ID.UUID():
		return no(OtherPool)
	case r.Deleted:
		return no(InBin)
	case from != nil && !r.Owner.IsZero():
		return no(Owned)
	case from != nil && !(p.Admin(by) && from.Admin(by)), from == nil && !p.Admin(by) && (by.IsZero() || by != r.Owner):
		return no(NotAdmin)
	}
	set := crm.Pooled{Pool: p.ID.UUID(), FreeIn: p.ID.UUID(), Former: r.Former, ReturnedAt: r.ReturnedAt}
	if !r.Owner.IsZero() {
		set.Former, set.ReturnedAt = r.Owner, at
	}
	return Change{Act: Enter, Type: r.Type, Record: r.ID, Version: r.Version, From: r.Owner, By: by, At: at, Set: set}, nil
}

// Sweep returns the changes that the clocks of the pool ask for at a time, and the records whose owners are to be told that they go back
// soon.
func (p *Pool) Sweep(records []Record, at time.Time) (back []Change, remind []Record) {
	for _, r := range records {
		if c, err := p.Change(r, Request{Act: Recycle, At: at}, Facts{}); err == nil {
			back = append(back, c)
			continue
		}
		if when, ok := p.RemindAt(r); ok && !p.Deleted && r.Type == p.RecordType && !at.Before(when) {
			remind = append(remind, r)
		}
	}
	return back, remind
}
