package authz

import (
	"context"
	"fmt"

	"github.com/crmguard/crmguard/authz/cond"
)

// Filter is which records a subject may act on: none, all, or those that meet a condition. The zero
// Filter admits none.
type Filter struct {
	all  bool
	cond *cond.Cond
}

// All admits every record.
func All() Filter { return Filter{all: true} }

// When admits the records that meet c.
func When(c cond.Cond) Filter {
	if met, ok := c.Constant(); ok {
		return Filter{all: met}
	}
	return Filter{cond: &c}
}

// IsNone tells whether f admits nothing at all; then no query is needed.
func (f Filter) IsNone() bool { return !f.all && f.cond == nil }

// IsAll tells whether f admits everything.
func (f Filter) IsAll() bool { return f.all }

// Cond returns f as a condition over the attributes of a record: owner, team, state, id, pool, level, amount (numbers),
// held (bool), compartments, actors, consents (sets of words).
func (f Filter) Cond() cond.Cond {
	switch {
	case f.cond != nil:
		return *f.cond
	case f.all:
		return cond.And()
	}
	return cond.Or()
}

// Match evaluates f against one record. attr returns nil for an attribute that is null or unknown;
// that meets no comparison.
func (f Filter) Match(attr func(name string) any) bool { return f.Cond().Match(attr) }

// SQL writes f as a condition with bound arguments. column returns the quoted SQL name of an attribute.
func (f Filter) SQL(d cond.Dialect, column func(name string) (string, error)) (string, []any, error) {
	return f.Cond().SQL(d, column)
}

// String writes the filter for people, with attribute values.
func (f Filter) String() string {
	if f.cond == nil {
		if f.all {
			return "all"
		}
		return "none"
	}
	return f.cond.String()
}

// Admit returns f as a function over resources, for many of them. It answers for their attributes; their
// tenant and type are those that the filter was asked for.
func (f Filter) Admit() func(*Resource) bool {
	return cond.Compile(f.Cond(), attribute)
}

// attribute reads an attribute of a resource by the name that conditions and policies have for it.
func attribute(name string) cond.Getter[Resource] {
	switch name {
	case "id":
		return cond.Getter[Resource]{String: func(r *Resource) string { return r.ID }}
	case "owner":
		return cond.Getter[Resource]{String: func(r *Resource) string { return r.Owner }}
	case "team":
		return cond.Getter[Resource]{String: func(r *Resource) string { return r.Team }}
	case "state":
		return cond.Getter[Resource]{String: func(r *Resource) string { return r.State }}
	case "pool":
		return cond.Getter[Resource]{String: func(r *Resource) string { return r.Pool }}
	case "level":
		return cond.Getter[Resource]{Int: func(r *Resource) int64 { return int64(r.Level) }}
	case "amount":
		return cond.Getter[Resource]{Int: func(r *Resource) int64 { return r.Amount }}
	case "held":
		return cond.Getter[Resource]{Bool: func(r *Resource) bool { return r.Held }}
	case "compartments":
		return cond.Getter[Resource]{Words: func(r *Resource) []string { return r.Compartments }}
	case "actors":
		return cond.Getter[Resource]{Words: func(r *Resource) []string { return r.Actors }}
	case "consents":
		return cond.Getter[Resource]{Words: func(r *Resource) []string { return r.Consents }}
	}
	return cond.Getter[Resource]{}
}

// FilterSlice returns those of items on which the subject may act, in their order. resource fills in the
// attributes of an item; it must set every attribute that the policy reads. Items of another tenant or type than r.Resource
// are left out. An error means that nothing was decided.
func FilterSlice[T any](ctx context.Context, a Authorizer, r Request, items []T, resource func(item *T, into *Resource)) ([]T, error) {
	f, err := a.Filter(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("authz: no filter: %w", err)
	}
	if f.IsNone() {
		return nil, nil
	}
	admit := f.Admit()
	var out []T
	var res Resource
	for i := range items {
		res = Resource{}
		resource(&items[i], &res)
		if res.Tenant == r.Resource.Tenant && res.Type == r.Resource.Type && admit(&res) {
			out = append(out, items[i])
		}
	}
	return out, nil
}
