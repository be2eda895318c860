// Package records writes records of a snapshot back into a living store: one customer as of last
// Tuesday, with the contacts and contracts that it had, while everybody works on.
//
// backup.Repository.Record gives the records. [Make] compares them with the store and says, record by record and field by field,
// what would be done: that is the [Plan], and nothing was written. [Plan.Apply] does it in one transaction, in which it looks
// again, so that what changed since the plan was shown is not overwritten. Ids stay as they were.
//
// Nothing runs beside it: what a program does when its records change (mail, webhooks, approvals) hangs on the program's own writes and
// is not called. Change numbers, index tokens and the like are the [Store]'s to bring up to date.
//
// Rows hold what is stored: values of a person whose key was destroyed stay closed. Options.Refuse keeps such rows out as a whole.
package records

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crmguard/crmguard/backup"
)

// Store is the living store. Package sqlsource has one for SQLite and PostgreSQL.
type Store interface {
	// Change runs do in one transaction that nobody else's writes come into, and keeps it when do returns nil.
	Change(ctx context.Context, do func(Tx) error) error
}

// Tx is one transaction. Values are those of backup.Writer.Row.
type Tx interface {
	// Read returns a row by its key, a value for each of columns; nil when there is none. Without columns the row is empty and not
	// nil; without the names of the key's columns they are those of the table's primary key. Error: ErrForm when the store has no such
	// table or columns.
	Read(ctx context.Context, table string, columns, key []string, values []any) ([]any, error)
	// Insert writes a new row.
	Insert(ctx context.Context, table string, columns []string, row []any) error
	// Update sets columns of the row with this key.
	Update(ctx context.Context, table string, columns []string, row []any, key []string, values []any) error
}

// Errors that callers branch on.
var (
	ErrChanged = errors.New("records: changed since the plan was made") // nothing was written; make the plan again
	ErrParent  = errors.New("records: what it refers to is missing")    // neither in the store nor in the plan
	ErrGone    = errors.New("records: the snapshot says that it was deleted")
	ErrForm    = errors.New("records: the store has other columns than the snapshot")
)

// Conflict says what is done with a record that the store has, and otherwise.
type Conflict int

// The ways to treat a conflict.
const (
	Skip      Conflict = iota // leave the living record
	Overwrite                 // write the snapshot's values over it
	KeepBoth                  // write the snapshot's record beside it, under a new key
)

// Options of [Make]. A nil *Options is the zero value: what is missing is created, what is there is left.
type Options struct {
	Conflict Conflict
	// Fields are the columns of the first record that are written over; those of the others are written whole. Nil = all.
	Fields []string
	// Ignore are columns that the store keeps itself, such as change numbers: of living records they are neither compared nor written.
	Ignore []string
	// Refuse says why a record must not come back, such as the erasure of its person; its error stands in the step. Nil = none is refused.
	Refuse func(ctx context.Context, r backup.Record) error
	// NewKey gives the key of a copy, for KeepBoth. Records of the plan that refer to the copied one then refer to the copy,
	// when they are created or copied themselves.
	NewKey func(ctx context.Context, r backup.Record) ([]any, error)
}

// Action is what is done with one record.
type Action string

// The actions.
const (
	Create  Action = "create"  // the store has none
	Update  Action = "update"  // some fields are written over
	Copy    Action = "copy"    // written beside the living one
	Same    Action = "same"    // nothing differs
	Skipped Action = "skipped" // differs, and is left
	Refused Action = "refused" // see Step.Err
)

// Field is one column in which the store and the snapshot differ.
type Field struct {
	Column   string
	Live     any // in the store; nil also when there is no row
	Snapshot any
	Write    bool // whether Apply writes the snapshot's value
}

// Step is what is done with one record, in the order in which it is done: what is referred to comes first.
type Step struct {
	Table  string
	Key    []any
	Action Action
	Fields []Field
	Err    error // why it is refused

	record backup.Record
	live   []any
	newKey []any // of a copy
}

// Plan is what would be done. It holds values of records, and is for those eyes only that may see them.
type Plan struct {
	Steps []Step
}

// Make compares records, of one snapshot, with the store and plans. It writes nothing. Errors: those of the store, and a wrong option; what is
// wrong with one record stands in its step.
func Make(ctx context.Context, store Store, all []backup.Record, opts *Options) (*Plan, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Conflict == KeepBoth && o.NewKey == nil {
		return nil, errors.New("records: KeepBoth needs Options.NewKey")
	}
	if len(all) == 0 {
		return nil, errors.New("records: no record")
	}
	for _, f := range o.Fields {
		if !slices.Contains(all[0].Columns, f) || slices.Contains(all[0].Key, f) {
			return nil, errors.New("records: Options.Fields names a column that is not there, or of the key")
		}
	}
	p := &planner{ctx: ctx, opts: o, all: all, plan: &Plan{}, at: map[string]int{}}
	for i, r := range all {
		p.at[name(r.Table, keyOf(r))] = i
	}
	err := store.Change(ctx, func(tx Tx) error {
		*p.plan = Plan{}
		p.done = make([]state, len(all))
		for i := range all {
			if err := p.step(tx, i); err != nil {
				return err
			}
		}
		return errLook
	})
	if !errors.Is(err, errLook) {
		return nil, err
	}
	p.copies()
	return p.plan, nil
}

// errLook ends a transaction that only looked.
var errLook = errors.New("records: only looked")

type state struct {
	begun, ended bool
	there        bool // after the plan the store has it
}

type planner struct {
	ctx  context.Context
	opts Options
	all  []backup.Record
	at   map[string]int
	done []state
	plan *Plan
}

func keyOf(r backup.Record) []any {
	if r.Row == nil {
		return nil
	}
	out := make([]any, len(r.Key))
	for i, k := range r.Key {
		if c := slices.Index(r.Columns, k); c >= 0 && c < len(r.Row) {
			out[i] = r.Row[c]
		}
	}
	return out
}

func name(table string, key []any) string {
	s := fmt.Sprintf("%q", table)
	for _, v := range key {
		s += fmt.Sprintf(" %T %q", v, fmt.Sprint(v))
	}
	return s
}

// step plans a record, after those that it refers to.
func (p *planner) step(tx Tx, i int) error {
	if p.done[i].begun {
		return nil // also a circle: the store's own checks decide
	}
	p.done[i].begun = true
	r := p.all[i]
	s := Step{Table: r.Table, Key: keyOf(r), record: r}
	end := func(action Action, err error) error {
		s.Action, s.Err = action, err
		p.done[i].ended, p.done[i].there = true, s.live != nil || action == Create
		p.plan.Steps = append(p.plan.Steps, s)
		return nil
	}
	if r.Row == nil {
		return end(Refused, ErrGone)
	}
	if len(r.Row) != len(r.Columns) || len(r.Key) == 0 || slices.Contains(s.Key, nil) {
		return end(Refused, ErrForm)
	}
	for column, parent := range r.Parents {
		if c := slices.Index(r.Columns, column); c >= 0 && r.Row[c] != nil {
			if k, ok := p.at[name(parent, r.Row[c:c+1])]; ok && k != i {
				if err := p.step(tx, k); err != nil {
					return err
				}
			}
		}
	}
	live, err := tx.Read(p.ctx, r.Table, r.Columns, r.Key, s.Key)
	if errors.Is(err, ErrForm) {
		return end(Refused, ErrForm)
	}
	if err != nil {
		return err
	}
	s.live = live
	if p.opts.Refuse != nil {
		if err := p.opts.Refuse(p.ctx, r); err != nil {
			return end(Refused, err)
		}
	}
	writes := 0
	for c, column := range r.Columns {
		f := Field{Column: column, Snapshot: r.Row[c]}
		if live != nil {
			if f.Live = live[c]; Equal(f.Live, f.Snapshot) || slices.Contains(p.opts.Ignore, column) {
				continue
			}
		}
		f.Write = live == nil || p.opts.Conflict == KeepBoth ||
			p.opts.Conflict == Overwrite && (i > 0 || p.opts.Fields == nil || slices.Contains(p.opts.Fields, column))
		if f.Write {
			writes++
		}
		s.Fields = append(s.Fields, f)
	}
	if len(s.Fields) > 0 && writes > 0 {
		for column, parent := range r.Parents {
			c := slices.Index(r.Columns, column)
			wanted := slices.ContainsFunc(s.Fields, func(f Field) bool { return f.Column == column && f.Write })
			if c < 0 || r.Row[c] == nil || !wanted {
				continue
			}
			ok, err := p.exists(tx, parent, r.Row[c:c+1])
			if err != nil {
				return err
			}
			if !ok {
				return end(Refused, fmt.Errorf("%w: table %s", ErrParent, parent))
			}
		}
	}
	switch {
	case live == nil:
		return end(Create, nil)
	case len(s.Fields) == 0:
		return end(Same, nil)
	case p.opts.Conflict == KeepBoth:
		if s.newKey, err = p.opts.NewKey(p.ctx, r); err != nil {
			return end(Refused, err)
		}
		if len(s.newKey) != len(r.Key) {
			return errors.New("records: Options.NewKey gives a value for each column of the key")
		}
		return end(Copy, nil)
	case writes == 0:
		return end(Skipped, nil)
	}
	return end(Update, nil)
}

// exists tells whether the store has a row, or will have it.
func (p *planner) exists(tx Tx, table string, key []any) (bool, error) {
	if k, ok := p.at[name(table, key)]; ok && (p.done[k].there || !p.done[k].ended) {
		return true, nil
	}
	row, err := tx.Read(p.ctx, table, nil, nil, key)
	return row != nil, err
}

// copies lets what is created or copied refer to copies.
func (p *planner) copies() {
	moved := map[string][]any{}
	for _, s := range p.plan.Steps {
		if s.Action == Copy {
			moved[name(s.Table, s.Key)] = s.newKey
		}
	}
	for i := range p.plan.Steps {
		s := &p.plan.Steps[i]
		if s.Action != Copy && s.Action != Create {
			continue
		}
		row := slices.Clone(s.record.Row)
		for column, parent := range s.record.Parents {
			c := slices.Index(s.record.Columns, column)
			if c < 0 {
				continue
			}
			if key := moved[name(parent, row[c:c+1])]; len(key) == 1 {
				row[c] = key[0]
			}
		}
		if s.Action == Copy {
			for k, column := range s.record.Key {
				row[slices.Index(s.record.Columns, column)] = s.newKey[k]
			}
		}
		s.record.Row = row
	}
}

// Apply does what the plan says, in one transaction: all of it or, with an error, nothing. What is skipped or refused in the plan stays so. Errors:
// ErrChanged, and those of the store.
func (p *Plan) Apply(ctx context.Context, store Store) error {
	return store.Change(ctx, func(tx Tx) error {
		for _, s := range p.Steps {
			if err := s.apply(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Step) apply(ctx context.Context, tx Tx) error {
	if s.Action != Create && s.Action != Update && s.Action != Copy {
		return nil
	}
	r := s.record
	live, err := tx.Read(ctx, r.Table, r.Columns, r.Key, s.Key)
	if err != nil {
		return err
	}
	if (live == nil) != (s.live == nil) || !slices.EqualFunc(live, s.live, Equal) {
		return fmt.Errorf("%w: table %s", ErrChanged, s.Table)
	}
	if s.Action == Update {
		var columns []string
		var values []any
		for _, f := range s.Fields {
			if f.Write {
				columns, values = append(columns, f.Column), append(values, f.Snapshot)
			}
		}
		return tx.Update(ctx, r.Table, columns, values, r.Key, s.Key)
	}
	if s.Action == Copy {
		there, err := tx.Read(ctx, r.Table, r.Key, r.Key, s.newKey)
		if err != nil {
			return err
		}
		if there != nil {
			return fmt.Errorf("%w: table %s has the new key", ErrChanged, s.Table)
		}
	}
	return tx.Insert(ctx, r.Table, r.Columns, r.Row)
}

// Equal tells whether two values are the same, of the types that backup.Writer.Row takes.
func Equal(a, b any) bool {
	if x, ok := a.([]byte); ok {
		y, ok := b.([]byte)
		return ok && string(x) == string(y) && (x == nil) == (y == nil)
	}
	if x, ok := a.(time.Time); ok {
		y, ok := b.(time.Time)
		return ok && x.Equal(y)
	}
	if _, ok := b.([]byte); ok {
		return false
	}
	if x, ok := a.(float64); ok {
		y, ok := b.(float64)
		return ok && (x == y || x != x && y != y) // a NaN is what it was
	}
	return a == b
}
