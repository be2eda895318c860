package review

import (
	"context"
	"fmt"
	"strings"

	"github.com/crmguard/crmguard/authz"
)

// MatrixOptions adjust Matrix. The zero value asks for rights only, as an active person of a team without
// clearance, about records without a state.
type MatrixOptions struct {
	Subject      func(role string) authz.Subject // who holds the role; nil: id e1, tenant t, team /east/, pool p1
	Sample       func(typ string) authz.Resource // level, state and the like of a record; owner and team are set. nil: none
	Environment  authz.Environment               // under what circumstances
	Fields       []Field                         // whose access is shown in a second table; nil: no such table
	FieldActions []authz.Action                  // its columns; nil: all actions
}

// Field is a field of a record type whose access a matrix shows.
type Field struct {
	Type  string
	Name  string // "" for any field of the class
	Class string
}

// Matrix writes what each role may do with each type. The first table has a letter for each action: a for
// all records, t for the team's, o for one's own, p for those that are free in a pool of theirs, - for none. The second one says how much of each field is
// open, masked or hidden on one's own record. The text of the tables is the same as long as the rights are.
func Matrix(ctx context.Context, az authz.Authorizer, roles, types []string, actions []authz.Action, opts *MatrixOptions) ([]*Table, error) {
	o := MatrixOptions{}
	if opts != nil {
		o = *opts
	}
	if o.Subject == nil {
		o.Subject = func(role string) authz.Subject {
			return authz.Subject{ID: "e1", Tenant: "t", Roles: []string{role}, Team: "/east/", Active: true, Pools: []string{"p1"}}
		}
	}
	if o.Sample == nil {
		o.Sample = func(string) authz.Resource { return authz.Resource{} }
	}
	if o.FieldActions == nil {
		o.FieldActions = actions
	}
	rights := &Table{
		Title:   "Who may do what: a all, t the team's, o own, p free in a pool, - nothing",
		Columns: append([]string{"role", "type"}, words(actions)...),
	}
	for _, role := range roles {
		for _, typ := range types {
			row := []string{role, typ}
			for _, action := range actions {
				letter, err := depth(ctx, az, &o, role, typ, action)
				if err != nil {
					return nil, err
				}
				row = append(row, letter)
			}
			rights.Rows = append(rights.Rows, row)
		}
	}
	if len(o.Fields) == 0 {
		return []*Table{rights}, nil
	}
	fields := &Table{
		Title:   "How much of a field: open, masked or hidden",
		Columns: append([]string{"role", "field"}, words(o.FieldActions)...),
	}
	for _, role := range roles {
		for _, f := range o.Fields {
			row := []string{role, f.label()}
			for _, action := range o.FieldActions {
				word, err := access(ctx, az, &o, role, f, action)
				if err != nil {
					return nil, err
				}
				row = append(row, word)
			}
			fields.Rows = append(fields.Rows, row)
		}
	}
	return []*Table{rights, fields}, nil
}

// depth returns the letter of the furthest record on which the role permits the action.
func depth(ctx context.Context, az authz.Authorizer, o *MatrixOptions, role, typ string, action authz.Action) (string, error) {
	r := authz.Request{Subject: o.Subject(role), Action: action, Environment: o.Environment}
	like := o.Sample(typ)
	like.Type = typ
	for _, r.Resource = range samples(r.Subject, like) {
		d, err := az.Decide(ctx, r)
		if err != nil {
			return "", fmt.Errorf("review: no decision: %w", err)
		}
		if d.Allowed {
			return r.Resource.ID[:1], nil
		}
	}
	return "-", nil
}

// access returns how much of the field the role shows on one's own record.
func access(ctx context.Context, az authz.Authorizer, o *MatrixOptions, role string, f Field, action authz.Action) (string, error) {
	r := authz.Request{Subject: o.Subject(role), Action: action, Resource: o.Sample(f.Type), Environment: o.Environment}
	r.Resource.Type, r.Resource.ID = f.Type, "own"
	r.Resource.Tenant, r.Resource.Owner, r.Resource.Team = r.Subject.Tenant, r.Subject.ID, r.Subject.Team
	d, err := az.Decide(ctx, r)
	if err != nil {
		return "", fmt.Errorf("review: no decision: %w", err)
	}
	if !d.Allowed {
		return "denied", nil
	}
	return d.Fields.Access(f.Name, f.Class).String(), nil
}

func (f Field) label() string {
	return f.Type + "." + strings.TrimPrefix(f.Name+":"+f.Class, ":")
}

func words[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = string(w)
	}
	return out
}
