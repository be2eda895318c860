package transfer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// prepare decides on the rows of a batch.
func (p *plan[P]) prepare(ctx context.Context, b *batch[P]) error {
	m := p.m
	b.tx = m.doors.Guard.Begin(p.c, m.records.Type()+".import")
	b.made, b.kept, b.changed = map[crm.UUID]int{}, map[crm.UUID]crm.UUID{}, map[crm.UUID]bool{}
	b.matched, b.erased, b.unasked = map[crm.UUID]guard.Band{}, map[crm.UUID]bool{}, map[crm.UUID]bool{}
	var good []int
	for i := range b.rows {
		if re := b.errs[i]; re != nil {
			b.reject(i, re.Reasons...)
			continue
		}
		if p.read.key >= 0 {
			if p.read.cells[p.read.key].text(&b.rows[i]) == "" {
				b.reject(i, Reason{Field: p.read.mapping.Key, Rule: "required"})
				continue
			}
			if p.repeated(&b.rows[i]) {
				b.reject(i, Reason{Field: p.read.mapping.Key, Rule: "repeated"})
				continue
			}
		}
		good = append(good, i)
	}
	found := map[string]crm.UUID{}
	if p.read.key >= 0 {
		var err error
		if found, err = p.find(ctx, b, good); err != nil {
			return err
		}
	}
	for _, i := range good {
		row := &b.rows[i]
		if p.read.key >= 0 {
			id, exists := found[p.read.cells[p.read.key].text(row)]
			switch {
			case exists && p.mode == Create:
				b.reject(i, Reason{Field: p.read.mapping.Key, Rule: "repeated"})
				continue
			case !exists && p.mode == Update:
				b.reject(i, Reason{Field: p.read.mapping.Key, Rule: ruleReference})
				continue
			case exists:
				b.old, b.ids = append(b.old, i), append(b.ids, id)
				continue
			}
		}
		v, reasons := p.read.read(row)
		if len(reasons) > 0 {
			b.reject(i, reasons...)
			continue
		}
		h := v.Header()
		h.ID = derive(p.id.UUID(), "record", b.from+int64(i)+1)
		if p.rehearse {
			h.Person = p.person.UUID() // one key, and not one for every row
		} else {
			h.Person = derive(p.id.UUID(), "person", b.from+int64(i)+1)
		}
		owner, team := crm.ID[crm.Employee](h.Owner), h.Team
		m.owned(p.c, &owner, &team)
		h.Owner, h.Team = owner.UUID(), team
		v.SetHeader(h)
		b.fresh, b.of = append(b.fresh, v), append(b.of, i)
	}
	if m.o.Eraser != nil && len(b.fresh) > 0 {
		var err error
		if b.fresh, b.of, err = p.known(ctx, b, b.fresh, b.of); err != nil {
			return err
		}
	}
	if m.o.Checker != nil && len(b.fresh) > 0 {
		var err error
		if b.fresh, b.of, err = p.check(ctx, b, b.fresh, b.of); err != nil {
			return err
		}
	}
	return nil
}

// seal adds to the batch's Tx what is to be written.
func (p *plan[P]) seal(ctx context.Context, b *batch[P]) error {
	errs, err := p.m.records.ImportIn(ctx, b.tx, b.fresh)
	if err != nil {
		return err
	}
	for k, err := range errs {
		if err != nil {
			b.reject(b.of[k], reasonsOf(err)...)
			continue
		}
		b.made[b.fresh[k].Header().ID] = b.of[k]
	}
	if err := p.update(ctx, b, b.old, b.ids); err != nil {
		return err
	}
	b.fresh = nil
	return nil
}

// same lists the rows of a batch that were made although there was a record that is the same.
func (b *batch[P]) same() []Matched {
	var out []Matched
	for id, band := range b.matched {
		if i, made := b.made[id]; made {
			out = append(out, Matched{Row: b.from + int64(i) + 1, Line: b.rows[i].Line, Band: band.String()})
		}
	}
	slices.SortFunc(out, func(x, y Matched) int { return cmp.Compare(x.Row, y.Row) })
	return out
}

// gone lists the rows of a batch that were made although they have a term of somebody who was erased.
func (b *batch[P]) gone() []Erased {
	var out []Erased
	for id := range b.erased {
		if i, made := b.made[id]; made {
			out = append(out, Erased{Row: b.from + int64(i) + 1, Line: b.rows[i].Line})
		}
	}
	slices.SortFunc(out, func(x, y Erased) int { return cmp.Compare(x.Row, y.Row) })
	return out
}

// find looks up which records have the keys of rows, among those that the caller may list.
func (p *plan[P]) find(ctx context.Context, b *batch[P], good []int) (map[string]crm.UUID, error) {
	found := map[string]crm.UUID{}
	index := p.read.cells[p.read.key].index
	for len(good) > 0 {
		some := good[:min(len(good), 200)]
		good = good[len(some):]
		clause := crm.Clause{Column: p.read.mapping.Key, Op: crm.In}
		for _, i := range some {
			clause.Values = append(clause.Values, crm.StringValue(p.read.cells[p.read.key].text(&b.rows[i])))
		}
		q := guard.Query{Clauses: []crm.Clause{clause}, Limit: 200}
		for {
			page, err := p.m.records.List(ctx, p.c, q)
			if err != nil {
				return nil, err
			}
			for i := range page.Items {
				v := page.Items[i].Value
				found[reflect.ValueOf(v).Elem().FieldByIndex(index).String()] = v.Header().ID
			}
			if q.After = page.Next; page.Next == "" {
				break
			}
		}
	}
	return found, nil
}

// atOnce is how many records are read at once before they are changed: each is an event, and the log takes many together.
const atOnce = 32

// known asks the Eraser about new records and returns those that are to be created.
func (p *plan[P]) known(ctx context.Context, b *batch[P], fresh []P, of []int) (kept []P, rows []int, err error) {
	erased, err := p.m.o.Eraser.Erased(ctx, p.c, guard.Action("import"), fresh)
	switch {
	case guard.Denied(err):
		return fresh, of, nil // each row is denied by itself
	case errors.Is(err, guard.ErrQuota) && p.m.o.OnErased != RefuseErased:
		for _, v := range fresh {
			b.unasked[v.Header().ID] = true
		}
		return fresh, of, nil
	case err != nil:
		return nil, nil, fmt.Errorf("transfer: %w", err)
	case len(erased) != len(fresh):
		return nil, nil, fmt.Errorf("transfer: %d answers for %d records", len(erased), len(fresh))
	}
	for k, v := range fresh {
		if erased[k] && p.m.o.OnErased == RefuseErased {
			b.reject(of[k], Reason{Rule: "erased"})
			continue
		}
		if erased[k] {
			b.erased[v.Header().ID] = true
		}
		kept, rows = append(kept, v), append(rows, of[k])
	}
	return kept, rows, nil
}

// check asks the Checker about new records and returns those that are to be created.
func (p *plan[P]) check(ctx context.Context, b *batch[P], fresh []P, of []int) (kept []P, rows []int, err error) {
	bands, err := p.m.o.Checker.Bands(ctx, p.c, slices.Concat(p.before[:]...), fresh)
	if errors.Is(err, guard.ErrQuota) && p.m.o.OnMatch == ReportMatches {
		p.checked(fresh)
		for _, v := range fresh {
			b.unasked[v.Header().ID] = true
		}
		return fresh, of, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("transfer: %w", err)
	}
	if len(bands) != len(fresh) {
		return nil, nil, fmt.Errorf("transfer: %d answers for %d records", len(bands), len(fresh))
	}
	for k, v := range fresh {
		if bands[k] == guard.Certain && p.m.o.OnMatch == SkipMatches {
			b.reject(of[k], Reason{Rule: "repeated"})
			continue
		}
		id := v.Header().ID
		if bands[k] != guard.Unlike {
			b.matched[id] = bands[k]
		}
		kept, rows = append(kept, v), append(rows, of[k])
	}
	p.checked(kept)
	return kept, rows, nil
}

// checked keeps the new records of a batch for the check of those behind it.
func (p *plan[P]) checked(fresh []P) {
	copy(p.before[:], p.before[1:])
	p.before[inFlight-1] = fresh
}

// update adds the changes of records that exist, with their former values.
func (p *plan[P]) update(ctx context.Context, b *batch[P], rows []int, ids []crm.UUID) error {
	views, errs := make([]guard.View[P], len(ids)), make([]error, len(ids))
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for k := range ids {
		slots <- struct{}{}
		all.Go(func() {
			views[k], errs[k] = p.m.records.Get(ctx, p.c, ids[k])
			<-slots
		})
	}
	all.Wait()
	for k, i := range rows {
		if errs[k] != nil {
			if !errors.Is(errs[k], crm.ErrNotFound) && !guard.Denied(errs[k]) {
				return errs[k]
			}
			b.reject(i, reasonsOf(errs[k])...)
			continue
		}
		old := views[k].Value
		next := p.m.records.Copy(old)
		if reasons := p.read.into(next, &b.rows[i], true); len(reasons) > 0 {
			b.reject(i, reasons...)
			continue
		}
		values, seen := former(old, next)
		if !seen {
			b.reject(i, Reason{Rule: "not_open"})
			continue
		}
		if len(values) == 0 {
			b.counts.Unchanged++
			continue
		}
		text, err := json.Marshal(values)
		if err != nil {
			return fmt.Errorf("transfer: %w", err)
		}
		h := old.Header()
		if err := p.m.records.UpdateIn(ctx, b.tx, next); err != nil {
			if rowFault(err) {
				b.reject(i, reasonsOf(err)...)
				continue
			}
			return err
		}
		b.made[h.ID], b.changed[h.ID] = i, true
		k := &Kept{
			Import: p.id, Kind: keptFormer, Row: b.from + int64(i) + 1, Record: h.ID, After: h.Version + 1, Values: crm.NewText(string(text)),
		}
		k.ID, k.Person = crm.ID[Kept](derive(p.id.UUID(), keptFormer, k.Row)), crm.ID[crm.Person](h.Person)
		p.m.owned(p.c, &k.Owner, &k.Team)
		if err := p.m.doors.Kept.CreateIn(ctx, b.tx, k); err != nil {
			return err
		}
		b.kept[h.ID] = k.ID.UUID()
	}
	return nil
}

// rowFault tells whether an error costs a row and not the import.
func rowFault(err error) bool {
	var invalid *crm.InvalidError
	var step *crm.TransitionError
	return errors.As(err, &invalid) || errors.As(err, &step) || guard.Denied(err) || errors.Is(err, crm.ErrConflict) ||
		errors.Is(err, crm.ErrDuplicate) || errors.Is(err, crm.ErrNotFound)
}

// reasonsOf says why a record was refused without saying what is in it.
func reasonsOf(err error) []Reason {
	var invalid *crm.InvalidError
	var step *crm.TransitionError
	switch {
	case errors.As(err, &invalid):
		out := make([]Reason, len(invalid.Fields))
		for i, f := range invalid.Fields {
			out[i] = Reason{Field: f.Field, Rule: f.Rule}
		}
		return out
	case errors.As(err, &step):
		return []Reason{{Field: "state", Rule: "not_in_order"}}
	case errors.Is(err, crm.ErrDuplicate):
		return []Reason{{Rule: "repeated"}}
	case errors.Is(err, crm.ErrConflict):
		return []Reason{{Rule: "changed"}}
	case errors.Is(err, crm.ErrNotFound):
		return []Reason{{Rule: ruleReference}}
	}
	return []Reason{{Rule: "denied"}}
}
