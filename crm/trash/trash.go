package trash

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// Ref names a record.
type Ref struct {
	Type string
	ID   crm.UUID
}

// Item is what the rules need to know of a record.
type Item struct {
	Ref
	Parents   []Ref     // that it belongs to and cannot be without
	DeletedAt time.Time // zero: it lives
	Group     crm.UUID  // the act that deleted it
	Held      bool      // a legal hold, or a retention that has not ended
}

func (i *Item) deleted() bool { return !i.DeletedAt.IsZero() }

// GoneError is a record that cannot come back because one above it is purged or not known.
type GoneError struct {
	Missing Ref
}

// Error names the type of what is missing.
func (e *GoneError) Error() string {
	return fmt.Sprintf("trash: a %s that it belongs to is gone", e.Missing.Type)
}

// tree finds items and what belongs to them.
type tree struct {
	items    map[Ref]*Item
	children map[Ref][]Ref
}

func grow(items []Item) tree {
	t := tree{map[Ref]*Item{}, map[Ref][]Ref{}}
	for i := range items {
		t.items[items[i].Ref] = &items[i]
		for _, p := range items[i].Parents {
			t.children[p] = append(t.children[p], items[i].Ref)
		}
	}
	return t
}

// Delete returns what one act that deletes a record takes along: what lives and belongs to it, each after what belongs to it, the record itself last.
// items are the record and everything below it. crm.ErrNotFound when it is not among them or is deleted.
func Delete(root Ref, items []Item) ([]Ref, error) {
	t := grow(items)
	if i := t.items[root]; i == nil || i.deleted() {
		return nil, crm.ErrNotFound
	}
	var list []Ref
	seen := map[Ref]bool{}
	var visit func(Ref)
	visit = func(r Ref) {
		if i := t.items[r]; seen[r] || i == nil || i.deleted() {
			return
		}
		seen[r] = true
		for _, c := range t.children[r] {
			visit(c)
		}
		list = append(list, r)
	}
	visit(root)
	return list, nil
}

// Restore returns what comes back when a record is taken out of the bin, each after what it belongs to: the deleted records above it, itself, and of
// what belongs to any of these what the same act deleted as it. items are all of these. Unique values are for the store to check again: a living
// record may hold one by now (crm.ErrDuplicate).
//
// crm.ErrNotFound when the record is not among items or lives, a *GoneError when one above it is not among them.
func Restore(root Ref, items []Item) ([]Ref, error) {
	t := grow(items)
	first := t.items[root]
	if first == nil || !first.deleted() {
		return nil, crm.ErrNotFound
	}
	var list []Ref
	seen := map[Ref]bool{}
	var up func(Ref) error
	up = func(r Ref) error {
		i := t.items[r]
		if i == nil {
			return &GoneError{r}
		}
		if seen[r] || !i.deleted() {
			return nil
		}
		seen[r] = true
		for _, p := range i.Parents {
			if err := up(p); err != nil {
				return err
			}
		}
		list = append(list, r)
		return nil
	}
	if err := up(root); err != nil {
		return nil, err
	}
	for n := 0; n < len(list); n++ {
		group := t.items[list[n]].Group
		if list[n] != root && group != first.Group {
			continue // it was deleted by an act of its own, and comes back for the sake of root only
		}
		for _, c := range t.children[list[n]] {
			if i := t.items[c]; i.deleted() && i.Group == first.Group {
				if err := up(c); err != nil {
					return nil, err
				}
			}
		}
	}
	return list, nil
}

// PurgeDue returns what is to be purged at a time, at most limit records, each after what belongs to it, the oldest deletions first: what has
// been in the bin for so many days and neither is held nor has anything that belongs to it and stays. Days below 1 and a limit below 1
// purge nothing.
func PurgeDue(items []Item, days, limit int, at time.Time) []Ref {
	if days < 1 || limit < 1 {
		return nil
	}
	t := grow(items)
	const unknown, goes, stays, visiting = 0, 1, 2, 3
	verdict := map[Ref]int{}
	var list []Ref
	var visit func(Ref) int
	visit = func(r Ref) int {
		if v := verdict[r]; v == visiting {
			return stays // a cycle: nobody knows what is below what
		} else if v != unknown {
			return v
		}
		verdict[r] = visiting
		i := t.items[r]
		v := goes
		if !i.deleted() || i.Held || at.Before(i.DeletedAt.AddDate(0, 0, days)) {
			v = stays
		}
		for _, c := range t.children[r] {
			if visit(c) == stays {
				v = stays
			}
		}
		verdict[r] = v
		if v == goes {
			list = append(list, r)
		}
		return v
	}
	order := make([]*Item, 0, len(items))
	for i := range items {
		order = append(order, &items[i])
	}
	slices.SortStableFunc(order, func(a, b *Item) int {
		return cmp.Or(a.DeletedAt.Compare(b.DeletedAt), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	for _, i := range order {
		visit(i.Ref)
	}
	return list[:min(limit, len(list))]
}

// PurgeAt returns when a record in the bin is due to be purged; ok is false for one that lives or is held, or when nothing ever is.
func PurgeAt(i Item, days int) (at time.Time, ok bool) {
	if !i.deleted() || i.Held || days < 1 {
		return time.Time{}, false
	}
	return i.DeletedAt.AddDate(0, 0, days), true
}
