package desk

import (
	"context"
	"errors"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/crm/trash"
)

// binned is one type of records in the recycle bin.
type binned interface {
	// get returns a record, in the bin or not, or crm.ErrNotFound.
	get(ctx context.Context, c guard.Caller, id crm.UUID) (entry, error)
	// list returns a page of records.
	list(ctx context.Context, c guard.Caller, q guard.Query) (list []entry, next string, err error)
	delete(ctx context.Context, tx *guard.Tx, id crm.UUID, version int64) error
	restore(ctx context.Context, tx *guard.Tx, id crm.UUID, version int64) error
	purge(ctx context.Context, tx *guard.Tx, id crm.UUID, version int64) error
}

// entry is what the bin needs to know of a record.
type entry struct {
	h       crm.Header
	parents []trash.Ref
	pooled  *pool.Record // of a record that changes hands
}

// bin is a type whose records belong to others by the columns that parents reads.
type bin[P guard.Record] struct {
	r       *guard.Records[P]
	parents func(P) []trash.Ref
	pooled  func(P) pool.Record // nil: the type does not change hands
}

func (b bin[P]) entry(v P) entry {
	e := entry{h: v.Header(), parents: b.parents(v)}
	if b.pooled != nil {
		r := b.pooled(v)
		e.pooled = &r
	}
	return e
}

func (b bin[P]) get(ctx context.Context, c guard.Caller, id crm.UUID) (entry, error) {
	v, err := b.r.Get(ctx, c, id)
	if err != nil {
		return entry{}, err
	}
	return b.entry(v.Value), nil
}

func (b bin[P]) list(ctx context.Context, c guard.Caller, q guard.Query) ([]entry, string, error) {
	page, err := b.r.List(ctx, c, q)
	var list []entry
	for i := range page.Items {
		list = append(list, b.entry(page.Items[i].Value))
	}
	return list, page.Next, err
}

func (b bin[P]) delete(ctx context.Context, tx *guard.Tx, id crm.UUID, version int64) error {
	return b.r.DeleteIn(ctx, tx, id, version)
}

func (b bin[P]) restore(ctx context.Context, tx *guard.Tx, id crm.UUID, version int64) error {
	return b.r.RestoreIn(ctx, tx, id, version)
}

func (b bin[P]) purge(ctx context.Context, tx *guard.Tx, id crm.UUID, version int64) error {
	return b.r.PurgeIn(ctx, tx, id, version)
}

// child is a type whose records belong to those of another by a column.
type child struct{ typ, column string }

// children are what belongs to a record of a type and is deleted, restored and purged with it.
var children = map[string][]child{
	crm.TypeCustomer: {
		{crm.TypeContact, "customer"}, {crm.TypeFollowUp, "customer"}, {crm.TypeQuote, "customer"}, {crm.TypeContract, "customer"},
		{crm.TypeTicket, "customer"}, {crm.TypeOpportunity, "customer"},
	},
	crm.TypeLead: {{crm.TypeFollowUp, "subject"}},
}

func parent(typ string, id crm.UUID) []trash.Ref {
	if id.IsZero() {
		return nil
	}
	return []trash.Ref{{Type: typ, ID: id}}
}

// bins returns the types that the bin knows, those of records first that belong to others.
func (d *Desk) bins() (order []string, of map[string]binned) {
	of = map[string]binned{}
	add := func(typ string, b binned) {
		order, of[typ] = append(order, typ), b
	}
	if d.r.FollowUps != nil {
		add(crm.TypeFollowUp, bin[*crm.FollowUp]{d.r.FollowUps, func(v *crm.FollowUp) []trash.Ref {
			if v.SubjectType == crm.TypeLead {
				return parent(crm.TypeLead, v.Subject)
			}
			return parent(crm.TypeCustomer, v.Customer.UUID())
		}, nil})
	}
	if d.r.Contacts != nil {
		add(crm.TypeContact, bin[*crm.Contact]{d.r.Contacts, func(v *crm.Contact) []trash.Ref { return parent(crm.TypeCustomer, v.Customer.UUID()) }, nil})
	}
	if d.r.Tickets != nil {
		add(crm.TypeTicket, bin[*crm.Ticket]{d.r.Tickets, func(v *crm.Ticket) []trash.Ref { return parent(crm.TypeCustomer, v.Customer.UUID()) }, nil})
	}
	if d.r.Contracts != nil {
		add(crm.TypeContract, bin[*crm.Contract]{d.r.Contracts, func(v *crm.Contract) []trash.Ref { return parent(crm.TypeCustomer, v.Customer.UUID()) }, nil})
	}
	if d.r.Quotes != nil {
		add(crm.TypeQuote, bin[*crm.Quote]{d.r.Quotes, func(v *crm.Quote) []trash.Ref { return parent(crm.TypeCustomer, v.Customer.UUID()) }, nil})
	}
	if d.r.Opportunities != nil {
		add(crm.TypeOpportunity, opportunities(d))
	}
	if d.r.Leads != nil {
		add(crm.TypeLead, bin[*crm.Lead]{d.r.Leads, func(*crm.Lead) []trash.Ref { return nil }, pool.OfLead})
	}
	if d.r.Customers != nil {
		add(crm.TypeCustomer, bin[*crm.Customer]{d.r.Customers, func(*crm.Customer) []trash.Ref { return nil }, pool.OfCustomer})
	}
	return order, of
}

// item is an entry for the rules. What one act put into the bin has the same time.
func item(typ string, e entry) trash.Item {
	i := trash.Item{Ref: trash.Ref{Type: typ, ID: e.h.ID}, Parents: e.parents}
	if e.h.Deleted {
		i.DeletedAt = e.h.UpdatedAt
		n := e.h.UpdatedAt.UnixMicro()
		for k := range 8 {
			i.Group[k] = byte(n >> (8 * k))
		}
	}
	return i
}

// below reads what belongs to records, in the bin or not, as far as the caller sees it.
func below(ctx context.Context, of map[string]binned, c guard.Caller, roots []trash.Ref, inBin ...bool) (items []trash.Item, versions map[trash.Ref]int64, err error) {
	versions = map[trash.Ref]int64{}
	for n := 0; n < len(roots); n++ {
		for _, k := range children[roots[n].Type] {
			b := of[k.typ]
			if b == nil {
				continue
			}
			for _, bin := range inBin {
				q := guard.Query{Bin: bin, Limit: 200, Clauses: []crm.Clause{is(k.column, roots[n].ID)}}
				for {
					list, next, err := b.list(ctx, c, q)
					if err != nil {
						return nil, nil, err
					}
					for _, e := range list {
						ref := trash.Ref{Type: k.typ, ID: e.h.ID}
						if _, seen := versions[ref]; seen {
							continue
						}
						versions[ref] = e.h.Version
						items = append(items, item(k.typ, e))
						roots = append(roots, ref)
					}
					if q.After = next; next == "" {
						break
					}
				}
			}
		}
	}
	return items, versions, nil
}

// Related lists what belongs to a record and is deleted, restored and purged with it, in the bin or not, as far as the caller may list it.
func (d *Desk) Related(ctx context.Context, c guard.Caller, root trash.Ref) ([]trash.Ref, error) {
	_, of := d.bins()
	items, _, err := below(ctx, of, c, []trash.Ref{root}, false, true)
	if err != nil {
		return nil, err
	}
	refs := make([]trash.Ref, len(items))
	for i := range items {
		refs[i] = items[i].Ref
	}
	return refs, nil
}

// Delete puts a record and what belongs to it into the recycle bin, in one transaction: all of it or nothing. A record that belongs to it
// and that the caller may not delete is a refusal of the whole.
func (d *Desk) Delete(ctx context.Context, c guard.Caller, root trash.Ref, version int64) (deleted []trash.Ref, err error) {
	_, of := d.bins()
	b := of[root.Type]
	if b == nil {
		return nil, ErrNoDoor
	}
	e, err := b.get(ctx, c, root.ID)
	if err != nil {
		return nil, err
	}
	if e.h.Version != version {
		return nil, crm.ErrConflict
	}
	// What belongs to it is read as the program, so that nothing is left behind because the caller does not see it; each deletion is decided for the caller.
	items, versions, err := below(ctx, of, d.program(c, "bin"), []trash.Ref{root}, false)
	if err != nil {
		return nil, err
	}
	versions[root] = version
	if deleted, err = trash.Delete(root, append(items, item(root.Type, e))); err != nil {
		return nil, err
	}
	tx := d.g.Begin(c, root.Type+".delete")
	for _, r := range deleted {
		if err := of[r.Type].delete(ctx, tx, r.ID, versions[r]); err != nil {
			return nil, hideBelow(err, r == root)
		}
	}
	alone(tx, of, root)
	_, err = tx.Commit(ctx)
	return deleted, err
}

// alone requires that nothing lives that belongs to a record, also what was made since it was looked for.
func alone(tx *guard.Tx, of map[string]binned, r trash.Ref) {
	var l crm.Limit
	for _, k := range children[r.Type] {
		if of[k.typ] != nil {
			l.Of = append(l.Of, crm.Measure{Type: k.typ, Clauses: []crm.Clause{is(k.column, r.ID)}})
		}
	}
	if len(l.Of) > 0 {
		tx.Require(l, crm.ErrConflict)
	}
}

// hideBelow makes what is wrong with a record that belongs to another one a denial: the caller may not even know of it.
func hideBelow(err error, root bool) error {
	if root || !errors.Is(err, crm.ErrNotFound) {
		return err
	}
	return guard.Deny("bin.relations")
}

// Restore takes a record out of the recycle bin, with what it belongs to, and with what one act deleted together with it, in one transaction. A
// *trash.GoneError says that something it belongs to is purged; crm.ErrDuplicate that a living record has taken a unique value meanwhile.
func (d *Desk) Restore(ctx context.Context, c guard.Caller, root trash.Ref, version int64) (restored []trash.Ref, err error) {
	_, of := d.bins()
	if of[root.Type] == nil {
		return nil, ErrNoDoor
	}
	e, err := of[root.Type].get(ctx, c, root.ID)
	if err != nil {
		return nil, err
	}
	if e.h.Version != version {
		return nil, crm.ErrConflict
	}
	p := d.program(c, "bin")
	versions := map[trash.Ref]int64{root: version}
	hands := map[trash.Ref]*pool.Record{root: e.pooled}
	items := []trash.Item{item(root.Type, e)}
	roots := []trash.Ref{root}
	for n := 0; n < len(items); n++ { // what it belongs to
		for _, r := range items[n].Parents {
			if _, seen := versions[r]; seen || of[r.Type] == nil {
				continue
			}
			up, err := of[r.Type].get(ctx, p, r.ID)
			if errors.Is(err, crm.ErrNotFound) {
				continue // gone: the rules say so
			}
			if err != nil {
				return nil, err
			}
			versions[r], hands[r] = up.h.Version, up.pooled
			items = append(items, item(r.Type, up))
			roots = append(roots, r)
		}
	}
	more, below, err := below(ctx, of, p, roots, true)
	if err != nil {
		return nil, err
	}
	for _, i := range more {
		if _, seen := versions[i.Ref]; !seen {
			versions[i.Ref] = below[i.Ref]
			items = append(items, i)
		}
	}
	if restored, err = trash.Restore(root, items); err != nil {
		return nil, err
	}
	tx := d.g.Begin(c, root.Type+".restore")
	for _, r := range restored {
		if err := of[r.Type].restore(ctx, tx, r.ID, versions[r]); err != nil {
			return nil, hideBelow(err, r == root)
		}
		if rec := hands[r]; rec != nil && !rec.Owner.IsZero() && !rec.Pool.IsZero() { // it counts for its owner's quotas again
			in, err := d.pool(ctx, p, rec.Pool)
			if err != nil {
				return nil, err
			}
			limit(tx, pool.Change{Act: pool.Claim, Type: r.Type, To: rec.Owner, Set: rec.Pooled, HoldCap: in.HoldCap, TotalCap: in.TotalCap}, in)
		}
	}
	_, err = tx.Commit(ctx)
	return restored, err
}

// Purged is what Purge did.
type Purged struct {
	Records []trash.Ref
	guard.Forgotten
}

// Purge takes out of the recycle bin for good what has been in it for Options.BinDays, at most limit records: what is held or has something that
// belongs to it and stays, stays. Then it forgets the persons whom no record names any more (guard.Guard.Forget), also those of a purge that was cut off.
// c is the program itself, or who may purge.
func (d *Desk) Purge(ctx context.Context, c guard.Caller, limit int) (out Purged, err error) {
	order, of := d.bins()
	now := d.now()
	before := now.AddDate(0, 0, -d.o.BinDays)
	versions := map[trash.Ref]int64{}
	var items []trash.Item
	var due []trash.Ref
	for _, typ := range order {
		q := guard.Query{Bin: true, Limit: 200, Sort: "updated_at", Clauses: []crm.Clause{
			{Column: "updated_at", Op: crm.LessOrEqual, Values: []crm.Value{crm.TimeValue(before)}},
		}}
		for len(due) < 1000+10*limit {
			list, next, err := of[typ].list(ctx, c, q)
			if err != nil {
				return out, err
			}
			for _, e := range list {
				ref := trash.Ref{Type: typ, ID: e.h.ID}
				versions[ref] = e.h.Version
				items = append(items, item(typ, e))
				due = append(due, ref)
			}
			if q.After = next; next == "" {
				break
			}
		}
	}
	more, _, err := below(ctx, of, c, due, false, true)
	if err != nil {
		return out, err
	}
	for _, i := range more {
		if _, known := versions[i.Ref]; !known {
			items = append(items, i)
		}
	}
	parents := map[trash.Ref][]trash.Ref{}
	for _, i := range items {
		parents[i.Ref] = i.Parents
	}
	stays := map[trash.Ref]bool{} // something that belongs to it was not purged
	var failed error
	for _, r := range trash.PurgeDue(items, d.o.BinDays, limit, now) {
		err := error(crm.ErrConflict)
		if !stays[r] {
			tx := d.g.Begin(c, r.Type+".purge")
			if err = of[r.Type].purge(ctx, tx, r.ID, versions[r]); err == nil {
				alone(tx, of, r)
				_, err = tx.Commit(ctx)
			}
		}
		if err == nil {
			out.Records = append(out.Records, r)
			continue
		}
		for _, p := range parents[r] {
			stays[p] = true
		}
		if !errors.Is(err, crm.ErrConflict) && !errors.Is(err, crm.ErrNotFound) && !guard.Denied(err) { // restored meanwhile, or held
			failed = err
			break
		}
	}
	out.Forgotten, err = d.g.Forget(ctx, c)
	return out, errors.Join(failed, err)
}

// PurgeAt returns when a record in the bin is purged; ok is false for one that lives.
func (d *Desk) PurgeAt(h crm.Header) (at time.Time, ok bool) {
	return trash.PurgeAt(item("", entry{h: h}), d.o.BinDays)
}
