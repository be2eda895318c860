package rego

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/crmguard/crmguard/authz"
)

// attributes are what a list does not know of a record; each is a clear column of the store.
var attributes = []string{"owner", "team", "state", "id"}

func unknowns() []*ast.Term {
	var out []*ast.Term
	for _, a := range attributes {
		out = append(out, ast.MustParseTerm("input.resource."+a))
	}
	return out
}

// Filter returns which records of r.Resource.Type the subject may act on.
func (e *Engine) Filter(ctx context.Context, r authz.Request) (authz.Filter, error) {
	if !e.memorable {
		return e.partial(ctx, r)
	}
	q := ask(r, false)
	if f, ok := e.filters.get(q); ok {
		return f, nil
	}
	f, err := e.partial(ctx, r)
	if err == nil {
		e.filters.put(q, f)
	}
	return f, err
}

// partial evaluates the policy with the record unknown.
func (e *Engine) partial(ctx context.Context, r authz.Request) (authz.Filter, error) {
	pq, err := e.filter.Partial(ctx, rego.EvalParsedInput(input(r, false)))
	if err != nil {
		return authz.Filter{}, fmt.Errorf("authz/rego: no filter: %w", err)
	}
	if len(pq.Support) > 0 {
		return authz.Filter{}, notFilterable("the remainder needs further rules")
	}
	var any []authz.Cond
	for _, body := range pq.Queries {
		var all []authz.Cond
		for _, expr := range body {
			c, err := condition(expr)
			if err != nil {
				return authz.Filter{}, err
			}
			all = append(all, c)
		}
		any = append(any, authz.And(all...))
	}
	return authz.When(authz.Or(any...)), nil
}

func notFilterable(what string) error {
	return fmt.Errorf("authz/rego: no filter: the policy cannot become one: %s", what)
}

// signs are OPA's comparisons; mirrored has the sign that says the same with its sides exchanged.
var (
	signs    = map[string]string{"eq": "=", "equal": "=", "neq": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
	mirrored = map[string]string{"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
)

// condition turns one expression of a remainder into a condition.
func condition(expr *ast.Expr) (authz.Cond, error) {
	if expr.Negated || len(expr.With) > 0 {
		return authz.Cond{}, notFilterable("a negation or a with")
	}
	if !expr.IsCall() {
		if t, ok := expr.Terms.(*ast.Term); ok && t.Equal(ast.BooleanTerm(true)) {
			return authz.And(), nil
		}
		return authz.Cond{}, notFilterable("a term that is not a comparison")
	}
	args := expr.Operands()
	if len(args) != 2 {
		return authz.Cond{}, notFilterable("a call of " + expr.Operator().String())
	}
	left, right := args[0], args[1]
	switch op := expr.Operator().String(); op {
	case "eq", "equal", "neq", "lt", "lte", "gt", "gte":
		sign := signs[op]
		attr, ok := attribute(left)
		if !ok {
			if attr, ok = attribute(right); !ok {
				return authz.Cond{}, notFilterable("a comparison without an attribute of the record")
			}
			right = left
			sign = mirrored[sign]
		}
		v, ok := constant(right)
		if !ok {
			return authz.Cond{}, notFilterable("a comparison of two unknowns")
		}
		return authz.Compare(attr, sign, v)
	case "startswith":
		attr, ok := attribute(left)
		prefix, ok2 := right.Value.(ast.String)
		if !ok || !ok2 {
			return authz.Cond{}, notFilterable("startswith with an unknown prefix")
		}
		return authz.HasPrefix(attr, string(prefix)), nil
	case "internal.member_2":
		attr, ok := attribute(left)
		if !ok {
			return authz.Cond{}, notFilterable("membership of something known in something unknown")
		}
		var vs []any
		known := true
		each := func(t *ast.Term) {
			v, ok := constant(t)
			known = known && ok
			vs = append(vs, v)
		}
		switch set := right.Value.(type) {
		case ast.Set:
			set.Foreach(each)
		case *ast.Array:
			set.Foreach(each)
		default:
			known = false
		}
		if !known {
			return authz.Cond{}, notFilterable("membership in something unknown")
		}
		return authz.AnyOf(attr, vs...), nil
	default:
		return authz.Cond{}, notFilterable("a call of " + op)
	}
}

// attribute returns the name of an unknown attribute of the record.
func attribute(t *ast.Term) (string, bool) {
	ref, ok := t.Value.(ast.Ref)
	if !ok || len(ref) != 3 || !ref.HasPrefix(ast.MustParseRef("input.resource")) {
		return "", false
	}
	name, ok := ref[2].Value.(ast.String)
	if !ok {
		return "", false
	}
	for _, a := range attributes {
		if a == string(name) {
			return a, true
		}
	}
	return "", false
}

// constant returns a string, int64 or bool.
func constant(t *ast.Term) (any, bool) {
	switch v := t.Value.(type) {
	case ast.String:
		return string(v), true
	case ast.Boolean:
		return bool(v), true
	case ast.Number:
		n, err := json.Number(v).Int64()
		return n, err == nil
	}
	return nil, false
}
