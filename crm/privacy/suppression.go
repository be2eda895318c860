package privacy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// Suppression is one term of somebody who was erased. Its id and its person are random, its times are days.
type Suppression struct {
	crm.Meta[Suppression]
	Token string    `protect:"internal,indexed" json:"token"` // a guard.Mark, 64 hex digits
	Until time.Time `protect:"internal,indexed" json:"until"` // the day (UTC) from which on it says nothing
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (s *Suppression) Validate() error {
	v := crm.Checks{Type: crm.TypeSuppression}
	if b, err := hex.DecodeString(s.Token); err != nil || len(b) != len(guard.Mark{}) || hex.EncodeToString(b) != s.Token {
		v.Add("token", "unknown_value")
	}
	v.Required("until", s.Until.IsZero())
	v.Time("until", s.Until)
	if !s.Until.Equal(day(s.Until)) || !s.Owner.IsZero() || s.Team != "" {
		v.Add("until", "mismatch")
	}
	return v.Err()
}

// CheckUpdate returns a *crm.InvalidError: a suppression does not change.
func (s *Suppression) CheckUpdate(*Suppression) error {
	v := crm.Checks{Type: crm.TypeSuppression}
	v.Unchanged("token", false)
	return v.Err()
}

// MadeByActs says that it is made by an erasure and never by itself.
func (s *Suppression) MadeByActs() {}

// ByDay says that its times are kept by the day.
func (s *Suppression) ByDay() {}

// day is the day (UTC) of a time.
func day(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// Program is the caller that reads and writes the list; its tenant is set where it is used. The policy lets it list, create, delete and purge suppressions.
type Program func(act string) guard.Caller

// Options of Open. Nil means the zero value of each field.
type Options struct {
	Clock func() time.Time // nil: time.Now
	Keep  time.Duration    // how long a term is known again; 0: 5 years of 365 days
}

// again is how much less than Keep a suppression may have left for its term not to be stored anew when it is suppressed again: what an erasure that is asked again would store twice.
const again = 92 * 24 * time.Hour

// atOnce is how many marks one question or one transaction has.
const atOnce = 900

// List is the list of those who were erased: a guard.Suppressor. It is safe for concurrent use.
type List struct {
	g       *guard.Guard
	records *guard.Records[*Suppression]
	program Program
	o       Options
	mu      sync.Mutex // one erasure of this process stores at a time, so that two do not store one term twice
}

// Open makes the door of suppressions. opts may be nil.
func Open(ctx context.Context, g *guard.Guard, program Program, opts *Options) (*List, error) {
	l := &List{g: g, program: program}
	if opts != nil {
		l.o = *opts
	}
	if l.o.Clock == nil {
		l.o.Clock = time.Now
	}
	if l.o.Keep <= 0 {
		l.o.Keep = 5 * 365 * 24 * time.Hour
	}
	var err error
	l.records, err = guard.For[*Suppression](ctx, g, nil)
	return l, err
}

// caller is the program for a tenant.
func (l *List) caller(tenant, act string) guard.Caller {
	c := l.program(act)
	c.Subject.Tenant = tenant
	return c
}

// Suppress puts marks on the list, those that are on it for about as long already left out.
func (l *List) Suppress(ctx context.Context, tenant string, marks []guard.Mark) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	until := day(l.o.Clock().Add(l.o.Keep)).Add(24 * time.Hour)
	has, err := l.suppressed(ctx, tenant, marks, until.Add(-min(again, l.o.Keep/2)))
	if err != nil {
		return err
	}
	c := l.caller(tenant, "suppress")
	tx := l.g.Begin(c, crm.TypeSuppression+".add")
	seen := map[guard.Mark]bool{}
	for i, m := range marks {
		if has[i] || seen[m] {
			continue
		}
		seen[m] = true
		s := &Suppression{Token: hex.EncodeToString(m[:]), Until: until}
		s.ID, s.Person = crm.ID[Suppression](random()), crm.ID[crm.Person](random())
		if err := l.records.CreateIn(ctx, tx, s); err != nil {
			return fmt.Errorf("privacy: %w", err)
		}
		if tx.Len() == atOnce {
			if _, err := tx.Commit(ctx); err != nil {
				return fmt.Errorf("privacy: %w", err)
			}
			tx = l.g.Begin(c, crm.TypeSuppression+".add")
		}
	}
	if tx.Len() == 0 {
		return nil
	}
	if _, err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("privacy: %w", err)
	}
	return nil
}

// random is a UUID of version 4: unlike others it has no time in it.
func random() crm.UUID {
	var u crm.UUID
	_, _ = rand.Read(u[:]) // it never fails
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return u
}

// Suppressed tells of each of the marks whether it is on the list of a tenant and its time is not over.
func (l *List) Suppressed(ctx context.Context, tenant string, marks []guard.Mark) ([]bool, error) {
	return l.suppressed(ctx, tenant, marks, l.o.Clock())
}

// suppressed is Suppressed for those that last beyond a time.
func (l *List) suppressed(ctx context.Context, tenant string, marks []guard.Mark, beyond time.Time) ([]bool, error) {
	out := make([]bool, len(marks))
	places := map[string][]int{}
	tokens := make([]crm.Value, 0, len(marks))
	for i, m := range marks {
		token := hex.EncodeToString(m[:])
		if places[token] == nil {
			tokens = append(tokens, crm.StringValue(token))
		}
		places[token] = append(places[token], i)
	}
	c := l.caller(tenant, "suppressed")
	for len(tokens) > 0 {
		some := tokens[:min(len(tokens), atOnce)]
		tokens = tokens[len(some):]
		q := guard.Query{Limit: 200, Clauses: []crm.Clause{
			{Column: "token", Op: crm.In, Values: some}, {Column: "until", Op: crm.Greater, Values: []crm.Value{crm.TimeValue(beyond)}},
		}}
		for {
			page, err := l.records.List(ctx, c, q)
			if err != nil {
				return nil, fmt.Errorf("privacy: %w", err)
			}
			for _, v := range page.Items {
				for _, i := range places[v.Value.Token] {
					out[i] = true
				}
			}
			if q.After = page.Next; page.Next == "" {
				break
			}
		}
	}
	return out, nil
}

// Sweep deletes for good what is on the list of a tenant longer than its time, at most limit suppressions, and returns how many went.
func (l *List) Sweep(ctx context.Context, tenant string, limit int) (int, error) {
	c := l.caller(tenant, "purge")
	old := crm.Clause{Column: "until", Op: crm.LessOrEqual, Values: []crm.Value{crm.TimeValue(l.o.Clock())}}
	gone := 0
	for _, bin := range []bool{true, false} { // what a sweep that was cut off left in the bin goes first
		for gone < limit {
			page, err := l.records.List(ctx, c, guard.Query{Clauses: []crm.Clause{old}, Bin: bin, Limit: min(200, limit-gone)})
			if err != nil {
				return gone, fmt.Errorf("privacy: %w", err)
			}
			if len(page.Items) == 0 {
				break
			}
			if !bin {
				tx := l.g.Begin(c, crm.TypeSuppression+".sweep")
				for i := range page.Items {
					if err := l.records.DeleteIn(ctx, tx, page.Items[i].Value.ID.UUID(), page.Items[i].Value.Version); err != nil {
						return gone, fmt.Errorf("privacy: %w", err)
					}
					page.Items[i].Value.Version++
				}
				if _, err := tx.Commit(ctx); err != nil {
					return gone, fmt.Errorf("privacy: %w", err)
				}
			}
			tx := l.g.Begin(c, crm.TypeSuppression+".purge")
			for i := range page.Items {
				if err := l.records.PurgeIn(ctx, tx, page.Items[i].Value.ID.UUID(), page.Items[i].Value.Version); err != nil {
					return gone, fmt.Errorf("privacy: %w", err)
				}
			}
			if _, err := tx.Commit(ctx); err != nil {
				return gone, fmt.Errorf("privacy: %w", err)
			}
			gone += len(page.Items)
		}
	}
	return gone, nil
}

// Checker asks a list about records of one type. It is safe for concurrent use.
type Checker[P guard.Record] struct {
	records *guard.Records[P]
	list    guard.Suppressor
}

// NewChecker makes one.
func NewChecker[P guard.Record](records *guard.Records[P], list guard.Suppressor) *Checker[P] {
	return &Checker[P]{records, list}
}

// Erased tells of each of vs whether it has a term of somebody who was erased; a is what the caller is about to do with them, "create" or "import". See
// guard.Records.Erased, also for errors.
func (k *Checker[P]) Erased(ctx context.Context, c guard.Caller, a guard.Action, vs []P) ([]bool, error) {
	return k.records.Erased(ctx, c, a, vs, k.list)
}
