package rego

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"

	"github.com/crmguard/crmguard/authz"
)

// Change is a request that two policies answer differently.
type Change struct {
	Request  authz.Request
	Old, New authz.Decision
}

// Diff yields each request of corpus that to answers otherwise than from, but for the revision. An error ends it.
func Diff(ctx context.Context, from, to *Engine, corpus iter.Seq[authz.Request]) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for r := range corpus {
			a, err := from.Decide(ctx, r)
			if err != nil {
				yield(Change{}, err)
				return
			}
			b, err := to.Decide(ctx, r)
			if err != nil {
				yield(Change{}, err)
				return
			}
			if !same(a, b) && !yield(Change{r, a, b}, nil) {
				return
			}
		}
	}
}

// Corpus yields a request for each role, type and action that some role of the policy has with the type, in each lifecycle state that it names, by the owner, by somebody of the owner's
// team and by a stranger, and where a grant reaches pools, by a member of the one in which the record is free: enough to see what a change of the
// policy changes.
func (e *Engine) Corpus() iter.Seq[authz.Request] {
	s := &e.current.Load().src.settings.Settings
	var roles []string
	for role := range s.Inherits {
		roles = append(roles, role)
	}
	sort.Strings(roles)
	return func(yield func(authz.Request) bool) {
		for _, role := range roles {
			id := "subject"
			if only, ok := s.Reserved[role]; ok {
				id = only
			}
			for _, typ := range s.types() {
				states := append([]string{"open"}, s.FrozenStates[typ]...)
				places := [][3]string{{id, "/east/1/"}, {"other", "/east/1/"}, {"other", "/west/"}}
				if s.pooled(typ) {
					places = append(places, [3]string{"", "", "pool"})
				}
				for _, action := range s.Actions {
					if !s.granted(typ, action) {
						continue // denied to all alike
					}
					for _, state := range states {
						for _, where := range places {
							r := authz.Request{
								Subject: authz.Subject{ID: id, Tenant: "t", Roles: []string{role}, Team: "/east/", Active: true, Pools: []string{"pool"}},
								Action:  authz.Action(action),
								Resource: authz.Resource{Tenant: "t", Type: typ, ID: "record", Owner: where[0], Team: where[1],
									State: state, Actors: []string{"other"}, Pool: where[2]},
							}
							if !yield(r) {
								return
							}
						}
					}
				}
			}
		}
	}
}

// granted tells whether some role has an action with a type.
func (s *settingsData) granted(typ, action string) bool {
	for _, types := range s.Grants {
		if types[typ][action] != "" {
			return true
		}
	}
	return false
}

// pooled tells whether a grant reaches the free records of a type.
func (s *settingsData) pooled(typ string) bool {
	for _, types := range s.Grants {
		for _, depth := range types[typ] {
			if depth == "pool" {
				return true
			}
		}
	}
	return false
}

// Entry is a decision as it is kept: enough to make it again, and to prove that it was made so. Subjects are opaque ids; the
// address is the only personal value, which belongs under the subject's key.
type Entry struct {
	Revision string          `json:"revision"`
	Input    json.RawMessage `json:"input"`  // the request, as policies see it
	Answer   string          `json:"answer"` // digest of the decision, hex
	Allowed  bool            `json:"allowed"`
	Controls []string        `json:"controls"`
}

// Record returns the entry of a decision that was made about r.
func Record(r authz.Request, d authz.Decision) Entry {
	text, err := inputText(&r)
	if err != nil {
		panic("rego: a request has only words and numbers") // cannot fail
	}
	return Entry{Revision: d.Revision, Input: text, Answer: digestOf(d), Allowed: d.Allowed, Controls: d.Controls}
}

func digestOf(d authz.Decision) string {
	b, err := json.Marshal(d)
	if err != nil {
		panic("rego: a decision has only words and numbers") // cannot fail
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// What Replay finds.
var (
	// ErrRevision says that the decision was made by another policy than the one that is loaded.
	ErrRevision = errors.New("authz/rego: the decision was made by another policy")
	// ErrReplay says that the policy answers otherwise than the entry says.
	ErrReplay = errors.New("authz/rego: the policy answers otherwise")
)

// Replay makes a decision again, by OPA's evaluator. It returns nil when the answer is the same, ErrRevision when another policy must be loaded
// for that, ErrReplay when it is not the same.
func (e *Engine) Replay(ctx context.Context, entry Entry) error {
	p := e.current.Load()
	if entry.Revision != p.src.revision {
		return ErrRevision
	}
	r, err := parseInput(entry.Input)
	if err != nil {
		return fmt.Errorf("authz/rego: the entry's input: %w", err)
	}
	d, err := p.evaluate(ctx, &r)
	if err != nil {
		return err
	}
	if digestOf(d) != entry.Answer || d.Allowed != entry.Allowed || !slices.Equal(d.Controls, entry.Controls) {
		return ErrReplay
	}
	return nil
}
