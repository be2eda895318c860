package dedupe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// Refusal says why a merge is not undone: erased (a person of it was erased), undone (it is already), gone (a record is no longer there, or the dropped one
// is not in the recycle bin any more).
type Refusal struct{ Why string }

// Error names the reason.
func (r *Refusal) Error() string { return "dedupe: the merge cannot be undone: " + r.Why }

// Undone is what an undoing brought back.
type Undone struct {
	Fields  []string // of the kept record, as they were before
	Changed []string // fields that stay, because they were changed since the merge
	Moved   int      // records that refer to the dropped one again
	Shared  int      // shares of the dropped one that count again
	Stayed  []Ref    // those that do not, because they were moved or purged since
}

// Ref names a record.
type Ref struct {
	Type string
	ID   crm.UUID
}

// Undo takes a merge back, in one transaction: the dropped record leaves the recycle bin, what was moved refers to it again, its shares last as long as they were meant to, and the fields that the kept record took
// become what they were, where they are still as the merge made them; the others are reported and stay. Then the persons are parted. The caller must be
// allowed to merge the kept record, to update it and to restore the dropped one.
//
// Nothing of an erased person comes back: its values no longer open, so the whole is a *Refusal. Other errors: crm.ErrNotFound, crm.ErrConflict, crm.ErrDuplicate,
// *authz.DeniedError, *crm.InvalidError.
func (m *Merger[P]) Undo(ctx context.Context, c guard.Caller, id crm.UUID) (*Undone, error) {
	view, err := m.merges.Get(ctx, c, id)
	if err != nil {
		return nil, err
	}
	rec := view.Value
	if rec.RecordType != m.r.Type() {
		return nil, crm.ErrNotFound
	}
	if rec.State == crm.MergeUndone || rec.State == crm.MergeParting {
		return nil, &Refusal{"undone"}
	}
	if _, err := m.r.Authorize(ctx, c, "merge", rec.Kept); errors.Is(err, crm.ErrNotFound) {
		return nil, &Refusal{"gone"}
	} else if err != nil {
		return nil, err
	}
	if rec.State == crm.MergeJoining {
		if err := m.settle(ctx, c, rec); err != nil {
			return nil, err
		}
	}
	p := m.program(c, "merge")
	full, err := m.merges.Get(ctx, p, id)
	if err != nil {
		return nil, err
	}
	now, err := m.r.Get(ctx, p, rec.Kept)
	if err != nil {
		return nil, gone(err)
	}
	into, err := m.r.Get(ctx, c, rec.Kept)
	if err != nil {
		return nil, gone(err)
	}
	from, err := m.r.Get(ctx, p, rec.Dropped)
	if err != nil {
		return nil, gone(err)
	}
	if erased(now.Value) || erased(from.Value) || full.Value.Before.State() != crm.Clear {
		return nil, &Refusal{"erased"}
	}
	if !headerOf(from.Value).Deleted || headerOf(now.Value).Deleted {
		return nil, &Refusal{"gone"}
	}
	var before map[string]json.RawMessage
	if err := json.Unmarshal([]byte(full.Value.Before.Expose()), &before); err != nil {
		return nil, errors.New("dedupe: what a merge kept cannot be read")
	}
	out := &Undone{}
	for _, name := range rec.TakenFields() {
		if _, ok := m.places[name]; !ok || before[name] == nil || !sameField(m.field(now.Value, name), m.field(from.Value, name)) {
			out.Changed = append(out.Changed, name)
			continue
		}
		if err := read(before[name], m.field(into.Value, name)); err != nil {
			return nil, err
		}
		out.Fields = append(out.Fields, name)
	}
	tx := m.g.Begin(c, m.r.Type()+".unmerge")
	if len(out.Fields) > 0 {
		if err := m.r.UpdateIn(ctx, tx, into.Value); err != nil {
			return nil, err
		}
	}
	if err := m.r.RestoreIn(ctx, tx, rec.Dropped, headerOf(from.Value).Version); err != nil {
		return nil, err
	}
	if err := m.pointBack(ctx, tx, rec, out); err != nil {
		return nil, err
	}
	at := m.o.Clock().UTC()
	if err := m.merges.ActIn(ctx, tx, "merge", id, 0, func(v *crm.Merge) error {
		if v.State != crm.MergeDone {
			return crm.ErrConflict
		}
		v.State, v.UndoneAt = crm.MergeParting, at
		return nil
	}); err != nil {
		return nil, err
	}
	if _, err := tx.Commit(ctx); err != nil {
		return nil, err
	}
	rec.State = crm.MergeParting
	return out, m.settle(ctx, c, rec)
}

// pointBack lets what was moved refer to the dropped record again.
func (m *Merger[P]) pointBack(ctx context.Context, tx *guard.Tx, rec *crm.Merge, out *Undone) error {
	var refs []moved
	if err := json.Unmarshal([]byte(rec.Moved), &refs); err != nil {
		return errors.New("dedupe: what a merge moved cannot be read")
	}
	for _, r := range refs {
		id, err := crm.ParseUUID(r.ID)
		if err != nil {
			return errors.New("dedupe: what a merge moved cannot be read")
		}
		if r.Type == crm.TypeSharing {
			if err := m.share(ctx, tx, rec, id, r.Until, out); err != nil {
				return err
			}
			continue
		}
		stayed := true
		for _, ref := range m.o.References {
			if ref.typ != r.Type {
				continue
			}
			_, err := ref.point(ctx, tx, id, rec.Kept, rec.Dropped, r.Columns)
			if err != nil && !errors.Is(err, crm.ErrConflict) && !errors.Is(err, crm.ErrNotFound) {
				return fmt.Errorf("dedupe: %s: %w", r.Type, err)
			}
			stayed = err != nil
		}
		if stayed {
			out.Stayed = append(out.Stayed, Ref{r.Type, id})
		} else {
			out.Moved++
		}
	}
	return nil
}

// gone is what a record that is not found means to an undoing.
func gone(err error) error {
	if errors.Is(err, crm.ErrNotFound) {
		return &Refusal{"gone"}
	}
	return err
}

// erased tells whether something of a record was erased or cannot be opened.
func erased(v any) bool {
	val := reflect.ValueOf(v).Elem()
	for i := range val.NumField() {
		if !val.Type().Field(i).IsExported() { // the mark of a compound index
			continue
		}
		if t, ok := val.Field(i).Interface().(crm.Text); ok && (t.State() == crm.Erased || t.State() == crm.Sealed) {
			return true
		}
	}
	return false
}

// sameField compares two values of a field.
func sameField(a, b reflect.Value) bool {
	x, ok := a.Interface().(crm.Text)
	if y, isText := b.Interface().(crm.Text); ok && isText {
		return x.State() == crm.Clear && y.State() == crm.Clear && x.Expose() == y.Expose()
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
