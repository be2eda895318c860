package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/crmguard/crmguard/backup"
)

// Rule says what becomes of a column. Nulls and empty texts stay what they are under every rule but Seal.
type Rule string

// The rules.
const (
	Keep  Rule = "keep"  // the value itself
	Null  Rule = "null"  // nothing
	Remap Rule = "remap" // an id, or several in one text: equal ids stay equal, in all tables; a key that is no UUID becomes another text or number
	Shift Rule = "shift" // a time: moved by some days, by as many for everything of a person
	Seal  Rule = "seal"  // what Options.Seal makes, after all other columns of the row

	Name     Rule = "name" // the others invent: a text for a text, equal for equal ones
	Company  Rule = "company"
	Phone    Rule = "phone"
	Email    Rule = "email"
	Address  Rule = "address"
	IDNumber Rule = "id_number"
	Text     Rule = "text"
)

var known = []Rule{Keep, Null, Remap, Shift, Seal, Name, Company, Phone, Email, Address, IDNumber, Text}

// Table says what becomes of a table.
type Table struct {
	Columns map[string]Rule // by name; one that is in the snapshot must be here
	Empty   bool            // no row is restored; Columns is then not looked at
}

// Row is one row of a table, as far as it has been changed.
type Row struct {
	Table   string
	Columns []string
	Values  []any // as of [backup.Reader.Rows]
}

// Get returns a value, nil for a column that is not there.
func (r Row) Get(column string) any {
	if i := slices.Index(r.Columns, column); i >= 0 {
		return r.Values[i]
	}
	return nil
}

// Options of [Sink].
type Options struct {
	// Tables are the rules, by table. Needed.
	Tables map[string]Table
	// Person tells whose row it is, from the row as it was; nothing = nobody's. Nil = no row is anybody's: all times move alike.
	Person func(r Row) ([]byte, error)
	// Seal makes the value of a column of rule Seal. r has the other columns as they will be, old is what stood there. Needed
	// where a rule says so.
	Seal func(ctx context.Context, r Row, column string, old any) (any, error)
	// Unit is that of times that are numbers, since 1970. 0 = microseconds.
	Unit time.Duration
}

// RefusedError says that a restore was refused. It never holds a value.
type RefusedError struct {
	Table  string
	Column string // "" = all of the table
	Rule   Rule   // "" = there is none; else the value in this column is none that the rule could change
}

// Error names table and column.
func (e *RefusedError) Error() string {
	what := "table " + e.Table
	if e.Column != "" {
		what = "column " + e.Column + " of " + what
	}
	if e.Rule == "" {
		return "sandbox: no rule names " + what
	}
	return fmt.Sprintf("sandbox: a value in %s is none that the rule %s could change", what, e.Rule)
}

type sink struct {
	inner backup.Sink
	v     *Inventor
	o     Options
}

// Sink returns a sink that gives inner each row as the rules change it, with the inventions of v. Nil for inner = nothing is kept:
// it only tells whether the rules name everything, and can change it. Load returns what inner does, and a *[RefusedError].
func Sink(inner backup.Sink, v *Inventor, o *Options) (backup.Sink, error) {
	if o == nil || v == nil || len(o.Tables) == 0 {
		return nil, errors.New("sandbox: an inventor and Options.Tables are needed")
	}
	s := &sink{inner, v, *o}
	if s.o.Unit == 0 {
		s.o.Unit = time.Microsecond
	}
	for _, name := range slices.Sorted(maps.Keys(o.Tables)) {
		t := o.Tables[name]
		for column, rule := range t.Columns {
			switch {
			case !slices.Contains(known, rule):
				return nil, fmt.Errorf("sandbox: column %s of table %s: there is no such rule", column, name)
			case rule == Seal && o.Seal == nil:
				return nil, fmt.Errorf("sandbox: column %s of table %s: Options.Seal is needed", column, name)
			}
		}
	}
	return s, nil
}

// Load implements [backup.Sink].
func (s *sink) Load(ctx context.Context, r *backup.Reader) error {
	for _, t := range r.Snapshot().Tables {
		if _, ok := s.o.Tables[t.Name]; !ok {
			return &RefusedError{Table: t.Name}
		}
	}
	r.Rewrite(func(t backup.Table) (func([]any) error, error) { return s.table(ctx, t) })
	if s.inner != nil {
		return s.inner.Load(ctx, r)
	}
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// table looks whether all columns have a rule and returns what changes the rows, nil for none.
func (s *sink) table(ctx context.Context, t backup.Table) (func([]any) error, error) {
	is, ok := s.o.Tables[t.Name]
	if !ok {
		return nil, &RefusedError{Table: t.Name}
	}
	if is.Empty {
		return nil, nil
	}
	rules := make([]Rule, len(t.Columns))
	for i, c := range t.Columns {
		if rules[i], ok = is.Columns[c]; !ok {
			return nil, &RefusedError{Table: t.Name, Column: c}
		}
	}
	if s.inner == nil {
		return nil, nil
	}
	return func(values []any) error {
		r := Row{t.Name, t.Columns, values}
		var person []byte
		if s.o.Person != nil {
			var err error
			if person, err = s.o.Person(r); err != nil {
				return err
			}
		}
		for i, rule := range rules {
			if rule == Seal {
				continue
			}
			v, ok := s.change(rule, person, values[i])
			if !ok {
				return &RefusedError{t.Name, t.Columns[i], rule}
			}
			values[i] = v
		}
		for i, rule := range rules {
			if rule != Seal {
				continue
			}
			v, err := s.o.Seal(ctx, r, t.Columns[i], values[i])
			if err != nil {
				return err
			}
			values[i] = v
		}
		return nil
	}, nil
}

// change returns what stands for a value; ok is false for one that the rule does not know.
func (s *sink) change(rule Rule, person []byte, v any) (out any, ok bool) {
	switch {
	case v == nil || rule == Keep:
		return v, true
	case rule == Null:
		return nil, true
	case rule == Remap:
		return s.v.remap(v)
	case rule == Shift:
		return shift(v, s.v.offset(person), s.o.Unit)
	}
	text, ok := v.(string)
	if !ok || text == "" {
		return v, ok
	}
	return s.v.Value(rule, text), true
}
