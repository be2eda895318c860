package rego

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/dependencies"

	"github.com/crmguard/crmguard/authz"
)

// question is what a decision depends on, when the policy reads nothing else.
type question struct {
	id, tenant, team, roles string
	active                  bool
	action                  authz.Action
	resource                authz.Resource // of a filter: tenant and type only
}

// ask leaves out what the policy does not read: time, address, purpose, session and the record's id.
func ask(r authz.Request, record bool) question {
	q := question{
		id: r.Subject.ID, tenant: r.Subject.Tenant, team: r.Subject.Team, active: r.Subject.Active,
		action: r.Action, resource: r.Resource,
	}
	for _, role := range r.Subject.Roles {
		q.roles += strconv.Itoa(len(role)) + ":" + role // no two lists read the same
	}
	q.resource.ID = ""
	if !record {
		q.resource = authz.Resource{Tenant: r.Resource.Tenant, Type: r.Resource.Type}
	}
	return q
}

// memoSize bounds each memo; a full one begins anew.
const memoSize = 8192

// memo keeps answers. A policy never changes once it is loaded and has no access to anything outside
// its input, so an answer holds for ever.
type memo[T any] struct {
	mu  sync.RWMutex
	all map[question]T
}

func (m *memo[T]) get(q question) (T, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	v, ok := m.all[q]
	return v, ok
}

func (m *memo[T]) put(q question, v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil || len(m.all) >= memoSize {
		m.all = map[question]T{}
	}
	m.all[q] = v
}

// memorable tells whether the policy reads only what a question holds. An input that is read as a whole
// counts as read in every part.
func memorable(c *ast.Compiler) bool {
	refs, err := dependencies.Base(c, ast.MustParseBody("data.crm.authz.decision; data.crm.authz.permitted"))
	if err != nil {
		return false
	}
	read := []string{
		"input.action", "input.subject.id", "input.subject.tenant", "input.subject.team", "input.subject.roles",
		"input.subject.active", "input.resource.tenant", "input.resource.type", "input.resource.owner",
		"input.resource.team", "input.resource.state",
	}
	for _, ref := range refs {
		if s := ref.String(); strings.HasPrefix(s, "input") && !slices.ContainsFunc(read, func(known string) bool {
			return s == known || strings.HasPrefix(s, known+"[")
		}) {
			return false
		}
	}
	return true
}
