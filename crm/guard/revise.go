package guard

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
)

// stored makes a record of a row: its clear fields as they are, the others sealed, but for those that have no value where who asks may know that.
func (r *Records[P]) stored(ctx context.Context, row *crm.Row, seen authz.Fields) (P, error) {
	v := r.codec.New()
	if err := r.hydrate(row, v); err != nil {
		return v, err
	}
	if err := r.openInto(ctx, row, v); err != nil {
		return v, err
	}
	val := reflect.ValueOf(v).Elem()
	for _, f := range r.sealed {
		if seen.Access(f.Name, string(f.Class)) == authz.Hidden || slices.ContainsFunc(row.Sealed, func(s crm.SealedField) bool { return s.Name == f.Name }) {
			continue
		}
		if text, ok := val.FieldByName(f.GoName).Addr().Interface().(interface{ SetExposed(string, uint8) }); ok {
			text.SetExposed("", uint8(crm.Clear))
		}
	}
	return v, nil
}

// openInto opens the named sealed fields of a row into v; the others become sealed.
func (r *Records[P]) openInto(ctx context.Context, row *crm.Row, v P, names ...string) error {
	fields, _ := valuesOf(nil, row.Sealed)
	if _, err := r.codec.Open(ctx, r.g.keeper, recordOf(row), fields, v, names...); err != nil {
		return fmt.Errorf("guard: %s: %w", r.typ, err)
	}
	return nil
}

// seen is what the caller sees of each field of a row by reading it, or in a pool: nothing when neither is allowed.
func (r *kind) seen(ctx context.Context, c Caller, row *crm.Row) (authz.Fields, error) {
	res := r.resource(row)
	for _, a := range []authz.Action{authz.Read, authz.Browse} {
		d, err := r.g.decider(c, a).decide(ctx, res)
		if err != nil || d.Proceed(c.met()...) == nil {
			return d.Fields, err
		}
	}
	return authz.Fields{}, nil
}

// keepUnseen puts what is stored into the clear fields of next that its caller does not see open, or may not set. Such a field must have what the caller was
// shown, which is nothing or a mask, or is denied; whether it is what is stored makes no difference there, so that nobody finds that out by trying.
func (r *Records[P]) keepUnseen(next, prev P, seen authz.Fields, d authz.Decision) (denial, err error) {
	given, stored := reflect.ValueOf(next).Elem(), reflect.ValueOf(prev).Elem()
	for _, f := range r.fields {
		if !f.Clear {
			continue
		}
		reads, writes := seen.Access(f.Name, string(f.Class)), d.Fields.Access(f.Name, string(f.Class))
		if reads == authz.Open && writes == authz.Open {
			continue
		}
		is, was := given.FieldByName(f.GoName), stored.FieldByName(f.GoName)
		shown := prev
		if reads != authz.Open {
			shown = r.codec.Copy(prev)
			state := encrypt.StateHidden
			if reads == authz.Masked {
				state = encrypt.StateMasked
			}
			if err := r.codec.Conceal(shown, f.Name, state); err != nil {
				return nil, fmt.Errorf("guard: %w", err)
			}
		}
		if !reflect.DeepEqual(is.Interface(), reflect.ValueOf(shown).Elem().FieldByName(f.GoName).Interface()) {
			return &authz.DeniedError{Controls: []string{"fields." + string(f.Class)}}, nil
		}
		is.Set(was)
	}
	return nil, nil
}

// checkUpdate asks the type whether next may follow on prev. A personal field that it wants to compare is opened for a caller who sees and may set it, which is
// logged first; anybody else may only leave it as it was shown.
func (r *Records[P]) checkUpdate(ctx context.Context, c Caller, row *crm.Row, next, prev P, seen authz.Fields, d authz.Decision) error {
	w, ok := any(next).(updateChecker[P])
	if !ok {
		return nil
	}
	err := w.CheckUpdate(prev)
	var invalid *crm.InvalidError
	if !errors.As(err, &invalid) {
		return err
	}
	var names []string
	closed := &crm.InvalidError{Type: invalid.Type}
	for _, fe := range invalid.Fields {
		if fe.Rule != crm.RuleUnread {
			closed.Fields = append(closed.Fields, fe)
			continue
		}
		f, ok := r.field(fe.Field)
		if !ok || seen.Access(f.Name, string(f.Class)) != authz.Open || d.Fields.Access(f.Name, string(f.Class)) != authz.Open {
			fe.Rule = "fixed"
			closed.Fields = append(closed.Fields, fe)
			continue
		}
		names = append(names, f.Name)
	}
	if len(closed.Fields) > 0 {
		return closed
	}
	e := c.event(r.typ, authz.Read, d)
	e.Action = r.typ + ".compare"
	e.Targets = []audit.Target{{Type: r.typ, ID: row.ID.String(), Version: uint64(row.Version)}}
	e.Fields = slices.Clone(names)
	if _, err := r.g.log.Append(ctx, e); err != nil {
		return fmt.Errorf("guard: no log, no data: %w", err)
	}
	if err := r.openInto(ctx, row, prev, names...); err != nil {
		return err
	}
	return w.CheckUpdate(prev)
}

// reseal seals next in the place of a row; keep names sealed fields that keep what is stored. Where a compound index has a kept field together with one that is
// written, the kept one is opened for the index alone, which is logged first: nobody is shown it.
func (r *Records[P]) reseal(ctx context.Context, c Caller, row *crm.Row, next P, keep []string, d authz.Decision) (encrypt.Sealed, error) {
	rec, prev := r.recordOf(c, next), sealedOf(row.Sealed)
	names, err := r.codec.Beside(rec, next, prev, keep...)
	if err == nil && len(names) > 0 {
		e := c.event(r.typ, authz.Update, d)
		e.Action = r.typ + ".index"
		e.Targets = []audit.Target{{Type: r.typ, ID: row.ID.String(), Version: uint64(row.Version)}}
		e.Fields = slices.Clone(names)
		if _, err := r.g.log.Append(ctx, e); err != nil {
			return encrypt.Sealed{}, fmt.Errorf("guard: no log, no data: %w", err)
		}
		was := r.codec.New()
		if err := r.hydrate(row, was); err != nil { // whose person a field is, a clear one may say
			return encrypt.Sealed{}, err
		}
		if err := r.openInto(ctx, row, was, names...); err != nil {
			return encrypt.Sealed{}, err
		}
		next = r.codec.Copy(next) // the caller's keeps what it may show
		from, to := reflect.ValueOf(was).Elem(), reflect.ValueOf(next).Elem()
		for _, f := range r.sealed {
			if slices.Contains(names, f.Name) {
				to.FieldByName(f.GoName).Set(from.FieldByName(f.GoName))
			}
		}
		keep = slices.DeleteFunc(slices.Clone(keep), func(name string) bool { return slices.Contains(names, name) })
	}
	var sealed encrypt.Sealed
	if err == nil {
		sealed, err = r.codec.Seal(ctx, r.g.keeper, rec, next, prev, keep...)
	}
	if err != nil {
		return encrypt.Sealed{}, fmt.Errorf("guard: %s: %w", r.typ, err)
	}
	return sealed, nil
}
