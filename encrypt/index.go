package encrypt

import (
	"context"
	"slices"
)

// tokens returns the index tokens of a plaintext, each value once.
func (p *fieldPlan) tokens(tk *tenantKeys, typ, plain string) []Token {
	var out []Token
	for _, x := range p.indexes {
		for _, v := range x.versions {
			key := tk.indexKey(indexRef{typ, p.Name, x.Kind, v.name})
			for _, term := range v.terms(plain) {
				if term == "" {
					continue
				}
				t := Token{Value: key.token(term), Unique: x.Unique}
				if !slices.Contains(out, t) {
					out = append(out, t)
				}
			}
		}
	}
	return out
}

// indexOf finds the index of a field; ErrUnsupported when it has none of that kind ("" = any).
func (c *Codec[T]) indexOf(field, kind string) (*fieldPlan, *indexPlan, error) {
	at, ok := c.byName[field]
	if ok {
		p := &c.plans[at]
		for i := range p.indexes {
			if kind == "" || p.indexes[i].Kind == kind {
				return p, &p.indexes[i], nil
			}
		}
	}
	return nil, nil, fieldError(ErrUnsupported, field)
}

// Terms returns the normalised terms under which a field's index of a kind finds what was typed, by
// the newest version of its normaliser. ErrUnsupported when there is no such index or nothing to
// search for.
func (c *Codec[T]) Terms(field, kind, typed string) ([]string, error) {
	_, x, err := c.indexOf(field, kind)
	if err != nil {
		return nil, err
	}
	terms := slices.DeleteFunc(slices.Clone(x.versions[len(x.versions)-1].terms(typed)), func(s string) bool { return s == "" })
	if len(terms) == 0 {
		return nil, fieldError(ErrUnsupported, field)
	}
	return terms, nil
}

// QueryTokens returns the tokens of which a record that matches carries at least one: those of
// every live version of the field's exact index. It never returns an empty list without an error:
// ErrUnsupported when the field has no index or nothing was typed that it could find.
func (c *Codec[T]) QueryTokens(ctx context.Context, k *Keeper, tenant, field, typed string) ([]int64, error) {
	p, x, err := c.indexOf(field, "exact")
	if err != nil {
		return nil, err
	}
	var out []int64
	for _, v := range x.versions {
		for _, term := range v.terms(typed) {
			if term == "" {
				continue
			}
			token, err := k.Token(ctx, tenant, c.typ, p.Name, x.Kind, v.name, term)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(out, token) {
				out = append(out, token)
			}
		}
	}
	if len(out) == 0 {
		return nil, fieldError(ErrUnsupported, field)
	}
	return out, nil
}
