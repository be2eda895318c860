package crm

import "time"

// Pooled is what a record of a public pool has beside its owner; customers and leads embed it. Only package crm/pool changes it.
type Pooled struct {
	Pool       UUID         `protect:"internal,indexed" json:"pool"`        // the pool it belongs to, with an owner or without; none: no pool's
	FreeIn     UUID         `protect:"internal,indexed" json:"free_in"`     // the pool, while nobody owns the record; none: it is not to be claimed
	ClaimedAt  time.Time    `protect:"internal,indexed" json:"claimed_at"`  // when the owner got it
	RecycleAt  time.Time    `protect:"internal,indexed" json:"recycle_at"`  // when it goes back unless something happens; zero: it does not
	Former     ID[Employee] `protect:"internal" json:"former"`              // who had it before it went back
	ReturnedAt time.Time    `protect:"internal,indexed" json:"returned_at"` // when it went back
	Locked     bool         `protect:"internal" json:"locked"`              // does not go back by itself
}

// pooled checks that what has no pool has nothing of one, and what has no owner no clock of one.
func (c *Checks) pooled(p Pooled, owner ID[Employee]) {
	if p.Pool.IsZero() {
		if p != (Pooled{}) {
			c.Add("pool", "required")
		}
		return
	}
	if free := owner.IsZero(); free && p.FreeIn != p.Pool || !free && !p.FreeIn.IsZero() {
		c.Add("free_in", "mismatch")
	}
	if owner.IsZero() && (!p.ClaimedAt.IsZero() || !p.RecycleAt.IsZero() || p.Locked) {
		c.Add("owner", "required")
	}
	if !owner.IsZero() {
		c.Required("claimed_at", p.ClaimedAt.IsZero())
	}
	if p.Former.IsZero() != p.ReturnedAt.IsZero() {
		c.Add("returned_at", "mismatch")
	}
	c.Time("recycle_at", p.RecycleAt)
}

// samePooled checks a change of a record that is in a pool: whoever gets it has it since then, whoever gives it back is remembered, and
// who keeps it cannot begin anew. So an owner that is changed past package crm/pool is refused.
func (c *Checks) samePooled(now, prev Pooled, owner, before ID[Employee]) {
	if prev.Pool.IsZero() {
		return
	}
	switch {
	case owner == before:
		c.Unchanged("pool", now.Pool == prev.Pool || owner.IsZero() && !now.Pool.IsZero())
		c.SameTime("claimed_at", now.ClaimedAt, prev.ClaimedAt)
		c.Unchanged("former", now.Former == prev.Former)
		c.SameTime("returned_at", now.ReturnedAt, prev.ReturnedAt)
	case owner.IsZero():
		c.Unchanged("pool", now.Pool == prev.Pool)
		if now.Former != before {
			c.Add("former", "mismatch")
		}
	default:
		c.Unchanged("pool", now.Pool == prev.Pool)
		if sameTime(now.ClaimedAt, prev.ClaimedAt) {
			c.Add("claimed_at", "mismatch")
		}
	}
}

// reservedPooled are the fields of a customer and a lead that nobody sets who makes or updates one. Who makes it may make it somebody's, and say when it was
// last followed up elsewhere.
func reservedPooled(isNew bool) []string {
	names := []string{"pool", "free_in", "claimed_at", "recycle_at", "former", "returned_at", "locked"}
	if !isNew {
		names = append(names, "owner", "last_follow_up")
	}
	return names
}

// Reserved names the fields that nobody sets who makes or updates a customer: who has it, and since when, is changed by what packages crm/pool and
// crm/desk do.
func (c *Customer) Reserved(isNew bool) []string { return reservedPooled(isNew) }

// Reserved names the fields that nobody sets who makes or updates a lead, as for a customer, and what it became: Convert sets that.
func (l *Lead) Reserved(isNew bool) []string {
	if isNew { // an import brings what was converted elsewhere
		return reservedPooled(isNew)
	}
	return append(reservedPooled(isNew), "customer", "contact", "deal", "converted_at")
}
