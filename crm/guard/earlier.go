package guard

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/internal/rowformat"
)

// Earlier is a record at an earlier time beside what it is now.
type Earlier[P Record] struct {
	Now, Then View[P]
	// Fields are those in which the two differ, that the caller sees whole in both, and that an update may set.
	Fields []string
}

// Compare shows a row of an earlier time, as a backup keeps it, beside the record that it became. row has id, version and clear columns as they were stored, and
// body is what was stored beside them. The caller must be allowed to read the record as it was and as it is; one event names both. Nothing that was
// erased since is shown: its keys are gone, and a record that was purged is crm.ErrNotFound. Other errors: crm.ErrDamaged, ErrForged.
func (r *Records[P]) Compare(ctx context.Context, c Caller, row crm.Row, body []byte) (Earlier[P], error) {
	return again(func() (Earlier[P], error) { return r.compare(ctx, c, row, body) })
}

func (r *Records[P]) compare(ctx context.Context, c Caller, row crm.Row, body []byte) (Earlier[P], error) {
	var out Earlier[P]
	if row.Type != r.typ || len(row.Clear) > len(r.columns) {
		return out, fmt.Errorf("guard: not a row of type %s", r.typ)
	}
	row.Tenant = c.Subject.Tenant
	if err := rowformat.Parse(body, &row); err != nil {
		return out, fmt.Errorf("guard: %w", err)
	}
	now, err := r.load(ctx, c, row.ID)
	if err != nil {
		return out, err
	}
	if err := r.authentic(ctx, c.Subject.Tenant, []crm.Row{row}); err != nil {
		return out, err
	}
	if r.purged(&row) {
		return out, crm.ErrNotFound
	}
	rows, ds := []crm.Row{*now, row}, make([]authz.Decision, 2)
	for i := range rows {
		if ds[i], err = r.readable(ctx, c, &rows[i]); err != nil {
			return out, err
		}
	}
	views, _, err := r.openAll(ctx, c, authz.Read, rows, ds)
	if err != nil {
		return out, err
	}
	out.Now, out.Then = views[0], views[1]
	kept := headers
	if t, ok := any(out.Now.Value).(reserver); ok {
		kept = append(slices.Clone(kept), t.Reserved(false)...)
	}
	a, b := reflect.ValueOf(out.Now.Value).Elem(), reflect.ValueOf(out.Then.Value).Elem()
	for _, f := range r.fields {
		if slices.Contains(kept, f.Name) || out.Now.Fields[f.Name] != authz.Open || out.Then.Fields[f.Name] != authz.Open {
			continue
		}
		x, y := a.FieldByName(f.GoName).Interface(), b.FieldByName(f.GoName).Interface()
		if whole(x) && whole(y) && !equal(x, y) {
			out.Fields = append(out.Fields, f.Name)
		}
	}
	return out, nil
}

// Revert gives e.Now.Value what e.Then has in these of e.Fields, all for none, so that an update can store it. Others are a denial.
func (r *Records[P]) Revert(e *Earlier[P], fields ...string) error {
	if len(fields) == 0 {
		fields = e.Fields
	}
	into, from := reflect.ValueOf(e.Now.Value).Elem(), reflect.ValueOf(e.Then.Value).Elem()
	for _, name := range fields {
		f, ok := r.field(name)
		if !ok || !slices.Contains(e.Fields, name) {
			return &authz.DeniedError{Controls: []string{"fields.reserved"}}
		}
		into.FieldByName(f.GoName).Set(from.FieldByName(f.GoName))
	}
	return nil
}

// headers are fields that say what a record is and whose, not what is in it: an update never takes them from an earlier time.
var headers = []string{
	"id", "person", "owner", "team", "version", "created_at", "updated_at", "deleted", "level", "held", "compartments", "actors",
}

// whole tells whether a value was opened and not masked.
func whole(v any) bool {
	t, ok := v.(interface{ State() crm.State })
	return !ok || t.State() == crm.Clear
}

// equal compares two values of a field; times by the moment.
func equal(a, b any) bool {
	if x, ok := a.(crm.Text); ok {
		y, ok := b.(crm.Text)
		return ok && x.Equal(y)
	}
	x, ok := crm.ValueOf(a)
	y, also := crm.ValueOf(b)
	if ok && also {
		return x == y
	}
	return reflect.DeepEqual(a, b)
}
