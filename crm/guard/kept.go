package guard

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// Bounds of kept answers.
const (
	mostKept   = 256  // answers
	mostGroups = 1000 // in one that is kept
)

// keptNumbers are answers of Group for who is content with one of a while ago. An answer is kept under all that the store was asked, the condition of the policy
// included: whoever may see other rows, or sees them otherwise, asks something else.
type keptNumbers struct {
	mu  sync.Mutex
	all map[string]*kept
}

// kept is one answer. turn is held by who looks at it or makes it, so that many who ask at once are one scan.
type kept struct {
	turn   chan struct{}
	at     time.Time // zero: not made yet
	answer Groups
	users  int // that have or wait for the turn
}

// keyOf writes down what is asked: no two questions are written alike.
func keyOf(sq crm.Query, q Grouping, small bool) (string, error) {
	var b strings.Builder
	write := func(what any) { fmt.Fprintf(&b, "%T %q\n", what, fmt.Sprint(what)) }
	write(sq.Tenant)
	write(sq.Type)
	write(small)
	text, args, err := sq.Where.SQL(func(name string) (string, error) { return fmt.Sprintf("%q", name), nil })
	if err != nil {
		return "", fmt.Errorf("guard: %w", err)
	}
	write(text)
	for _, a := range args {
		write(a)
	}
	for _, c := range sq.Clauses {
		write(c.Column)
		write(c.Op)
		for _, v := range c.Values {
			write(v.Kind())
			write(v.Str())
			if v.Kind() != crm.KindString {
				write(v.Int())
			}
		}
	}
	for _, names := range [][]string{q.By, q.Sums} {
		write(len(names))
		for _, n := range names {
			write(n)
		}
	}
	return b.String(), nil
}

// take returns the answer of a key in the caller's turn; its time is zero where it is not made yet. Whoever takes one gives it back.
func (k *keptNumbers) take(ctx context.Context, key string) (*kept, error) {
	k.mu.Lock()
	e := k.all[key]
	if e == nil {
		if len(k.all) >= mostKept {
			k.forget()
		}
		e = &kept{turn: make(chan struct{}, 1)}
		k.all[key] = e
	}
	e.users++
	k.mu.Unlock()
	select {
	case e.turn <- struct{}{}:
		return e, nil
	case <-ctx.Done():
		k.mu.Lock()
		defer k.mu.Unlock()
		e.users--
		return nil, ctx.Err()
	}
}

// give ends a turn. An answer that failed or is large is not kept.
func (k *keptNumbers) give(key string, e *kept) {
	k.mu.Lock()
	defer k.mu.Unlock()
	<-e.turn
	if e.users--; e.users == 0 && (e.at.IsZero() || len(e.answer.Groups) > mostGroups) {
		delete(k.all, key)
	}
}

// forget drops the oldest half of what nobody waits for.
func (k *keptNumbers) forget() {
	var old []string
	for key, e := range k.all {
		if e.users == 0 {
			old = append(old, key)
		}
	}
	slices.SortFunc(old, func(a, b string) int { return k.all[a].at.Compare(k.all[b].at) })
	for _, key := range old[:(len(old)+1)/2] {
		delete(k.all, key)
	}
}

// copyGroups copies what callers may change.
func copyGroups(in []crm.Group) []crm.Group {
	out := slices.Clone(in)
	for i := range out {
		out[i].Keys, out[i].Sums = slices.Clone(out[i].Keys), slices.Clone(out[i].Sums)
	}
	return out
}
