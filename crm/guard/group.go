package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/tally"
	"github.com/crmguard/crmguard/encrypt"
)

// Grouping asks for numbers over groups of records.
type Grouping struct {
	Clauses []crm.Clause // over fields that are clear columns and that the policy opens for the action aggregate
	By      []string     // such fields, at most 3; none: one group
	Sums    []string     // such fields that are whole numbers, at most 10
	// Stale is how old the numbers may be, for pages that are looked at again and again: to count all records takes seconds where there are millions. 0: they are
	// counted now. Who asks is decided on, and logged, each time.
	Stale time.Duration
}

// Groups are the answer.
type Groups struct {
	Groups []crm.Group // in ascending order of their keys
	Hidden int         // groups that are left out because they are so small that they show a person
	Event  uint64      // the log's event of this reading
	At     time.Time   // when they were counted
}

// Group counts records by the values of fields, and sums fields, over those that the caller may aggregate. Where the policy obliges to leave
// out small groups, groups of fewer than Options.SmallestGroup are left out, with the smallest of the others where one alone would
// follow from the rest; so is everything when the clauses let through fewer, or leave out fewer. Two
// questions that differ little can still be compared: each is in the log. Row MACs are not checked: the numbers are those
// of the database. Errors: encrypt.ErrUnsupported for a field that cannot be grouped or summed, *authz.DeniedError.
func (r *kind) Group(ctx context.Context, c Caller, q Grouping) (Groups, error) {
	d := r.g.decider(c, authz.Aggregate)
	sample, err := r.sample(ctx, c, d)
	if err != nil {
		return Groups{}, err
	}
	small := slices.Contains(sample.Obligations, authz.NeedGroups)
	denial := sample.Proceed(append(c.met(), authz.NeedGroups)...)
	if denial == nil {
		denial, err = r.openFields(sample, slices.Concat(q.By, q.Sums))
		if err != nil {
			return Groups{}, err
		}
	}
	sq, err := r.prepared(ctx, c, authz.Aggregate, Query{Clauses: q.Clauses}, sample, denial)
	if err != nil {
		return Groups{}, err
	}
	e := c.event(r.typ, authz.Aggregate, sample)
	for _, name := range slices.Concat(q.By, q.Sums) {
		if !slices.Contains(e.Fields, name) {
			e.Fields = append(e.Fields, name)
		}
	}
	receipt, err := r.g.log.Append(ctx, e)
	if err != nil {
		return Groups{}, fmt.Errorf("guard: no log, no data: %w", err)
	}
	out, err := r.numbers(ctx, sq, q, small)
	if err != nil {
		return Groups{}, err
	}
	out.Event = receipt.Index
	return out, nil
}

// numbers returns a kept answer that is new enough, or makes one.
func (r *kind) numbers(ctx context.Context, sq crm.Query, q Grouping, small bool) (Groups, error) {
	if q.Stale <= 0 {
		return r.tally(ctx, sq, q, small)
	}
	key, err := keyOf(sq, q, small)
	if err != nil {
		return Groups{}, err
	}
	e, err := r.g.numbers.take(ctx, key)
	if err != nil {
		return Groups{}, fmt.Errorf("guard: %w", err)
	}
	defer r.g.numbers.give(key, e)
	if age := r.g.now().Sub(e.at); e.at.IsZero() || age < 0 || age > q.Stale {
		made, err := r.tally(ctx, sq, q, small)
		if err != nil {
			return Groups{}, err
		}
		e.answer, e.at = made, made.At
	}
	out := e.answer
	out.Groups = copyGroups(out.Groups)
	return out, nil
}

// tally counts, and leaves out small groups.
func (r *kind) tally(ctx context.Context, sq crm.Query, q Grouping, small bool) (Groups, error) {
	out := Groups{At: r.g.now()}
	var err error
	if out.Groups, err = r.g.store.Group(ctx, sq, crm.Grouping{By: q.By, Sums: q.Sums}); err != nil {
		return Groups{}, fmt.Errorf("guard: %w", err)
	}
	if small {
		err = r.blur(ctx, sq, &out)
	}
	return out, err
}

// openFields denies a field that the decision does not open; one that is no clear column is an error.
func (r *kind) openFields(d authz.Decision, names []string) (denial, err error) {
	for _, name := range names {
		f, ok := r.field(name)
		if !ok || !f.Clear {
			return nil, fmt.Errorf("%w: %s is not grouped or summed by", encrypt.ErrUnsupported, r.typ)
		}
		if d.Fields.Access(f.Name, string(f.Class)) != authz.Open {
			denial = &authz.DeniedError{Controls: []string{"fields." + string(f.Class)}}
		}
	}
	return denial, nil
}

// blur leaves out what shows a person.
func (r *kind) blur(ctx context.Context, sq crm.Query, out *Groups) error {
	in := make([]tally.Group, len(out.Groups))
	total := int64(0)
	for i, g := range out.Groups {
		in[i] = tally.Group{Key: strconv.Itoa(i), Count: int(g.Count)}
		total += g.Count
	}
	left := int64(0) // what the clauses leave out
	if len(sq.Clauses) > 0 {
		sq.Clauses = nil
		all, err := r.g.store.Count(ctx, sq)
		if err != nil {
			return fmt.Errorf("guard: %w", err)
		}
		left = all - total
	}
	few := int64(r.g.smallest)
	if 0 < total && total < few || 0 < left && left < few {
		out.Hidden, out.Groups = len(out.Groups), nil
		return nil
	}
	safe := tally.Safe(in, r.g.smallest)
	shown := make([]crm.Group, 0, len(safe.Groups))
	for _, g := range safe.Groups {
		i, err := strconv.Atoi(g.Key)
		if err != nil {
			return errors.New("guard: a group without its place")
		}
		shown = append(shown, out.Groups[i])
	}
	out.Groups, out.Hidden = shown, safe.Hidden
	return nil
}
