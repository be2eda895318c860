package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// undoRows is how many rows of the file one transaction of an undo sees to.
const undoRows = 200

// Undo takes an import back: what it created goes to the recycle bin, what it updated gets its former values. What somebody changed or deleted since is left and counted in Left, and so
// is what the caller may not delete or change any more, and what belongs to a person who was erased. It is carried out in batches of rows with its place stored beside them, so
// that one that was cut off is called again. Errors are a *crm.TransitionError for an import that is undone already, and those of guard.
func (m *Importer[P]) Undo(ctx context.Context, c guard.Caller, id crm.ID[Import]) (*Import, error) {
	v, err := m.doors.Imports.Get(ctx, c, id.UUID())
	if err != nil {
		return nil, err
	}
	job := v.Value
	if job.RecordType != m.records.Type() || job.State == Undone {
		return nil, &crm.TransitionError{Type: crm.TypeImport, From: string(job.State), To: string(Undoing)}
	}
	p := &plan[P]{m: m, c: c, job: job, id: job.ID}
	if job.State != Undoing {
		tx := m.doors.Guard.Begin(c, crm.TypeImport+".undo")
		if err := p.store(ctx, tx, func(i *Import) { i.State = Undoing }); err != nil {
			return job, err
		}
		if _, err := tx.Commit(ctx); err != nil {
			return job, err
		}
	}
	for job.UndoneTo < job.Position {
		if err := p.back(ctx, job.UndoneTo, min(job.UndoneTo+undoRows, job.Position)); err != nil {
			return job, err
		}
		if m.o.Progress != nil {
			m.o.Progress(job.Counts())
		}
	}
	tx := m.doors.Guard.Begin(c, crm.TypeImport+".undone")
	if err := p.store(ctx, tx, func(i *Import) { i.State, i.FinishedAt = Undone, m.o.Clock().UTC() }); err != nil {
		return job, err
	}
	_, err = tx.Commit(ctx)
	return job, err
}

// back undoes the rows from+1 to to. When somebody changes a record meanwhile, it looks again.
func (p *plan[P]) back(ctx context.Context, from, to int64) error {
	for try := 0; ; try++ {
		err := p.backOnce(ctx, from, to)
		if !errors.Is(err, crm.ErrConflict) || try == 4 {
			return err
		}
	}
}

func (p *plan[P]) backOnce(ctx context.Context, from, to int64) error {
	m := p.m
	tx := m.doors.Guard.Begin(p.c, m.records.Type()+".import.undo")
	var undone, left int64
	made, err := p.made(ctx, from, to)
	if err != nil {
		return err
	}
	for i := range made {
		h := made[i].Value.Header()
		if h.Deleted {
			continue
		}
		if h.Version != 1 {
			left++
			continue
		}
		switch err := m.records.DeleteIn(ctx, tx, h.ID, h.Version); {
		case err == nil:
			undone++
		case rowFault(err) && !errors.Is(err, crm.ErrConflict):
			left++
		default:
			return err
		}
	}
	kept, err := m.former(ctx, p.c, p.id, from, to)
	if err != nil {
		return err
	}
	for i := range kept {
		switch ok, err := p.restore(ctx, tx, &kept[i]); {
		case err != nil:
			return err
		case ok:
			undone++
		default:
			left++
		}
	}
	if err := p.store(ctx, tx, func(i *Import) {
		i.Undone += undone
		i.Left += left
		i.UndoneTo = to
	}); err != nil {
		return err
	}
	_, err = tx.Commit(ctx)
	return err
}

// made returns the records that rows made, those of a program that derived their ids in the first way, too.
func (p *plan[P]) made(ctx context.Context, from, to int64) ([]guard.View[P], error) {
	ids := make([]crm.UUID, 0, to-from)
	for n := from + 1; n <= to; n++ {
		ids = append(ids, derived(p.id.UUID(), "record", n))
	}
	made, err := p.m.records.GetAll(ctx, p.c, ids)
	if err != nil || len(made) == len(ids) {
		return made, err
	}
	found := make(map[crm.UUID]bool, len(made))
	for i := range made {
		found[made[i].Value.Header().ID] = true
	}
	var first []crm.UUID
	for i, id := range ids {
		if !found[id] {
			first = append(first, derivedFirst(p.id.UUID(), "record", from+int64(i)+1))
		}
	}
	older, err := p.m.records.GetAll(ctx, p.c, first)
	return append(made, older...), err
}

// former lists the former values of rows.
func (m *Importer[P]) former(ctx context.Context, c guard.Caller, id crm.ID[Import], from, to int64) ([]Kept, error) {
	var all []Kept
	err := m.each(ctx, c, id, keptFormer, func(k *Kept) error {
		all = append(all, *k)
		return nil
	}, crm.Clause{Column: "row", Op: crm.Greater, Values: []crm.Value{crm.IntValue(from)}},
		crm.Clause{Column: "row", Op: crm.LessOrEqual, Values: []crm.Value{crm.IntValue(to)}})
	return all, err
}

// each hands on what an import keeps of one kind.
func (m *Importer[P]) each(ctx context.Context, c guard.Caller, id crm.ID[Import], kind string, f func(*Kept) error, more ...crm.Clause) error {
	q := guard.Query{Limit: 50, Sort: "row", Clauses: append([]crm.Clause{
		{Column: "import", Op: crm.Equal, Values: []crm.Value{crm.StringValue(id.String())}},
		{Column: "kind", Op: crm.Equal, Values: []crm.Value{crm.StringValue(kind)}},
	}, more...)}
	for {
		page, err := m.doors.Kept.List(ctx, c, q)
		if err != nil {
			return err
		}
		for i := range page.Items {
			if err := f(page.Items[i].Value); err != nil {
				return err
			}
		}
		if q.After = page.Next; page.Next == "" {
			return nil
		}
	}
}

// restore gives a record its former values; ok is false when it is to be left.
func (p *plan[P]) restore(ctx context.Context, tx *guard.Tx, k *Kept) (ok bool, err error) {
	if k.Values.State() != crm.Clear {
		return false, nil // of an erased person, or not the caller's to see
	}
	view, err := p.m.records.Get(ctx, p.c, k.Record)
	if errors.Is(err, crm.ErrNotFound) || guard.Denied(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	v := view.Value
	if h := v.Header(); h.Version != k.After || h.Deleted {
		return false, nil
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal([]byte(k.Values.Expose()), &values); err != nil {
		return false, nil
	}
	fields := indexes[P]()
	val := reflect.ValueOf(v).Elem()
	for name, raw := range values {
		index, known := fields[name]
		if !known {
			return false, nil
		}
		field := val.FieldByIndex(index)
		if t, ok := field.Interface().(crm.Text); ok {
			if t.State() == crm.Erased {
				return false, nil
			}
			var s string
			if err := json.Unmarshal(raw, &s); err != nil {
				return false, nil
			}
			field.Set(reflect.ValueOf(crm.NewText(s)))
			continue
		}
		field.SetZero()
		if err := json.Unmarshal(raw, field.Addr().Interface()); err != nil {
			return false, nil
		}
	}
	err = p.m.records.UpdateIn(ctx, tx, v)
	if err != nil && rowFault(err) && !errors.Is(err, crm.ErrConflict) {
		return false, nil
	}
	return err == nil, err
}

// Rejected hands on the rows of an import that were rejected, in the order of the file, to who may see them. They are there for KeepRejected.
func (m *Importer[P]) Rejected(ctx context.Context, c guard.Caller, id crm.ID[Import], each func(Rejected) error) error {
	return keptRowsOf(ctx, m, c, id, keptRejected, each)
}

// Matched hands on the rows that were made although there was a record that is the same, likewise. Whether the caller may read such a record is not known here.
func (m *Importer[P]) Matched(ctx context.Context, c guard.Caller, id crm.ID[Import], each func(Matched) error) error {
	return keptRowsOf(ctx, m, c, id, keptMatched, each)
}

// Erased hands on the rows that were made although they have a term of somebody who was erased, likewise.
func (m *Importer[P]) Erased(ctx context.Context, c guard.Caller, id crm.ID[Import], each func(Erased) error) error {
	return keptRowsOf(ctx, m, c, id, keptErased, each)
}

func keptRowsOf[P guard.Record, R any](ctx context.Context, m *Importer[P], c guard.Caller, id crm.ID[Import], kind string, each func(R) error) error {
	return m.each(ctx, c, id, kind, func(k *Kept) error {
		if k.Values.State() != crm.Clear {
			return nil
		}
		var rows []R
		if err := json.Unmarshal([]byte(k.Values.Expose()), &rows); err != nil {
			return fmt.Errorf("transfer: %w", crm.ErrDamaged)
		}
		for _, r := range rows {
			if err := each(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// Sweep purges what imports of any type kept longer than KeepRejected, at most limit records, and returns how many went. guard.Guard.Forget, later, destroys the keys under which they
// lay. After it an import can still be undone, but for what it updated.
func Sweep(ctx context.Context, d Doors, c guard.Caller, now time.Time, limit int) (int, error) {
	old := crm.Clause{Column: "created_at", Op: crm.Less, Values: []crm.Value{crm.TimeValue(now.Add(-KeepRejected))}}
	gone := 0
	for _, bin := range []bool{true, false} { // what a sweep that was cut off left in the bin goes first
		for gone < limit {
			page, err := d.Kept.List(ctx, c, guard.Query{Clauses: []crm.Clause{old}, Bin: bin, Hide: []string{"values"}, Limit: min(200, limit-gone)})
			if err != nil {
				return gone, err
			}
			if len(page.Items) == 0 {
				break
			}
			if !bin {
				tx := d.Guard.Begin(c, crm.TypeKept+".sweep")
				for i := range page.Items {
					if err := d.Kept.DeleteIn(ctx, tx, page.Items[i].Value.ID.UUID(), page.Items[i].Value.Version); err != nil {
						return gone, err
					}
					page.Items[i].Value.Version++
				}
				if _, err := tx.Commit(ctx); err != nil {
					return gone, err
				}
			}
			tx := d.Guard.Begin(c, crm.TypeKept+".purge")
			for i := range page.Items {
				if err := d.Kept.PurgeIn(ctx, tx, page.Items[i].Value.ID.UUID(), page.Items[i].Value.Version); err != nil {
					return gone, err
				}
			}
			if _, err := tx.Commit(ctx); err != nil {
				return gone, err
			}
			gone += len(page.Items)
		}
	}
	return gone, nil
}
