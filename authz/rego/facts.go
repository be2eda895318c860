package rego

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/dependencies"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/crmguard/crmguard/authz"
)

// reads are the parts of a request that facts can depend on, as bits.
type reads uint16

const (
	readsID reads = 1 << iota
	readsTenant
	readsTeam
	readsRoles
	readsGrants
	readsLevel
	readsCompartments
	readsZone
	readsRegion
	readsDevice
	readsSession
	readsActive
	readsTime
	readsAddress
	readsPurpose
)

var readable = map[string]reads{
	"input.subject.id": readsID, "input.subject.tenant": readsTenant, "input.subject.team": readsTeam,
	"input.subject.roles": readsRoles, "input.subject.grants": readsGrants, "input.subject.level": readsLevel,
	"input.subject.compartments": readsCompartments, "input.subject.zone": readsZone, "input.subject.region": readsRegion,
	"input.subject.device": readsDevice, "input.subject.session": readsSession, "input.subject.active": readsActive,
	"input.environment.time": readsTime, "input.environment.address": readsAddress, "input.environment.purpose": readsPurpose,
}

// readsOf returns what a fact reads, an error that names what it may not read.
func readsOf(c *ast.Compiler, name string) (reads, error) {
	refs, err := dependencies.Base(c, ast.MustParseBody("data.crm.facts."+name))
	if err != nil {
		return 0, refuse("crm/facts: %v", err)
	}
	var all reads
	for _, ref := range refs {
		s := ref.String()
		if !strings.HasPrefix(s, "input") {
			continue
		}
		found := false
		for name, bit := range readable {
			if s == name || strings.HasPrefix(s, name+"[") || strings.HasPrefix(s, name+".") {
				all, found = all|bit, true
			}
		}
		if !found {
			return 0, refuse("crm/facts: facts may not read %s", s)
		}
	}
	return all, nil
}

// factRules returns the rules of the package of facts: those that are a yes or no with their bits, and the
// names of those that have a value. Functions are helpers.
func factRules(c *ast.Compiler) (bits map[string]uint8, valued []string, err error) {
	kinds := map[string]bool{} // name -> has a value
	for _, m := range c.Modules {
		if m.Package.Path.String() != "data.crm.facts" {
			continue
		}
		for _, r := range m.Rules {
			if len(r.Head.Args) > 0 {
				continue
			}
			name := string(r.Head.Name)
			if name == "" {
				name = strings.Trim(r.Head.Ref()[0].String(), `"`)
			}
			value := r.Head.Key != nil || r.Head.Value != nil && !r.Head.Value.Equal(ast.BooleanTerm(true))
			if r.Default {
				return nil, nil, refuse("%s: the fact %s has a default; what is not known must stay unknown", r.Location, name)
			}
			kinds[name] = kinds[name] || value
		}
	}
	var yes []string
	for name, value := range kinds {
		if value {
			valued = append(valued, name)
		} else {
			yes = append(yes, name)
		}
	}
	sort.Strings(yes)
	sort.Strings(valued)
	if len(yes) > 64 {
		return nil, nil, refuse("crm/facts: more than 64 facts without a value")
	}
	bits = map[string]uint8{}
	for i, name := range yes {
		bits[name] = uint8(i)
	}
	return bits, valued, nil
}

// asked is what an answer was made from, so that it is never taken for another's.
type asked struct {
	subject     authz.Subject
	addr        netip.Addr
	purpose     string
	timed       bool
	from, until int64 // it holds for times from and before until
}

// known is what the facts of a request are. It never changes.
type known struct {
	asked
	bits  uint64 // those without a value that hold
	group *group // the others: the same for equal facts
}

// fact is one rule of the package of facts. It is asked anew only when something changes that it reads: another
// address asks the facts about networks, and no others.
type fact struct {
	name  string
	query rego.PreparedPartialQuery
	reads reads

	mu   sync.Mutex
	done map[uint64]factValue
}

// factValue is what a fact was; nil for one that did not hold.
type factValue struct {
	asked
	value *ast.Term
}

// group is one set of valued facts, which never changes, with the plans that were asked for last, by place.
type group struct {
	value ast.Object
	near  [128]atomic.Pointer[named]
}

// minute bounds how long facts that read the time are kept. They change at whole minutes, or when a grant ends.
const minute = int64(60e9)

// factCache keeps facts of requests.
type factCache struct {
	list  []*fact
	reads reads // of all
	bits  map[string]uint8
	seed  maphash.Seed
	most  int
	pe    *sync.Mutex // see policy

	mu     sync.RWMutex
	all    map[uint64]*known
	groups map[string]*group
	near   [2048]atomic.Pointer[known] // those that were asked for last, by hash
}

func (f *factCache) of(ctx context.Context, c *call) (*known, error) {
	h := f.reads.hash(f.seed, &c.req)
	near := &f.near[h%uint64(len(f.near))]
	if k := near.Load(); k != nil && f.reads.same(&k.asked, c) {
		return k, nil
	}
	f.mu.RLock()
	k := f.all[h]
	f.mu.RUnlock()
	if k != nil && f.reads.same(&k.asked, c) {
		near.Store(k)
		return k, nil
	}
	f.pe.Lock()
	k, err := f.eval(ctx, c)
	f.pe.Unlock()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil || len(f.all) >= f.most {
		f.all = map[uint64]*known{}
		for i := range f.near {
			f.near[i].Store(nil)
		}
	}
	f.all[h] = k
	near.Store(k)
	return k, nil
}

// hash is a digest of what is read of a request.
func (f reads) hash(seed maphash.Seed, r *authz.Request) uint64 {
	var h uint64
	str := func(s string) { h = (h ^ maphash.String(seed, s)) * 0x9e3779b97f4a7c15 }
	s := &r.Subject
	if f&readsID != 0 {
		str(s.ID)
	}
	if f&readsTenant != 0 {
		str(s.Tenant)
	}
	if f&readsTeam != 0 {
		str(s.Team)
	}
	if f&readsRoles != 0 {
		for _, role := range s.Roles {
			str(role)
		}
	}
	if f&readsGrants != 0 {
		for i := range s.Grants {
			str(s.Grants[i].Role)
			h = (h ^ uint64(s.Grants[i].Until.Unix())) * 0x9e3779b97f4a7c15
		}
	}
	if f&readsLevel != 0 {
		h = (h ^ uint64(s.Level)) * 0x9e3779b97f4a7c15
	}
	if f&readsCompartments != 0 {
		for _, w := range s.Compartments {
			str(w)
		}
	}
	for _, x := range [...]struct {
		bit reads
		s   string
	}{
		{readsZone, s.Zone}, {readsRegion, s.Region}, {readsDevice, s.Device}, {readsSession, s.Session},
		{readsPurpose, r.Environment.Purpose},
	} {
		if f&x.bit != 0 {
			str(x.s)
		}
	}
	if f&readsAddress != 0 {
		b := r.Environment.Addr.As16()
		h = (h ^ maphash.Bytes(seed, b[:])) * 0x9e3779b97f4a7c15
	}
	return h
}

// same tells whether k was made from what c asks.
func (f reads) same(k *asked, c *call) bool {
	s, t := &k.subject, &c.req.Subject
	return (f&readsID == 0 || s.ID == t.ID) &&
		(f&readsTenant == 0 || s.Tenant == t.Tenant) &&
		(f&readsTeam == 0 || s.Team == t.Team) &&
		(f&readsRoles == 0 || slices.Equal(s.Roles, t.Roles)) &&
		(f&readsGrants == 0 || slices.EqualFunc(s.Grants, t.Grants, func(a, b authz.Grant) bool {
			return a.Role == b.Role && a.Until.Equal(b.Until)
		})) &&
		(f&readsLevel == 0 || s.Level == t.Level) &&
		(f&readsCompartments == 0 || slices.Equal(s.Compartments, t.Compartments)) &&
		(f&readsZone == 0 || s.Zone == t.Zone) &&
		(f&readsRegion == 0 || s.Region == t.Region) &&
		(f&readsDevice == 0 || s.Device == t.Device) &&
		(f&readsSession == 0 || s.Session == t.Session) &&
		(f&readsActive == 0 || s.Active == t.Active) &&
		(f&readsAddress == 0 || k.addr == c.req.Environment.Addr) &&
		(f&readsPurpose == 0 || k.purpose == c.req.Environment.Purpose) &&
		(f&readsTime == 0 || k.timed == c.timed && (!c.timed || k.from <= c.time && c.time < k.until))
}

// eval asks the policy for the facts of a request, those that are not known from another one.
func (f *factCache) eval(ctx context.Context, c *call) (*known, error) {
	k := &known{asked: askedOf(c)}
	value := ast.NewObject()
	var in ast.Value
	for _, x := range f.list {
		h := x.reads.hash(f.seed, &c.req)
		x.mu.Lock()
		v, ok := x.done[h]
		x.mu.Unlock()
		if !ok || !x.reads.same(&v.asked, c) {
			if in == nil {
				in = input(&c.req)
			}
			v.asked = k.asked
			var err error
			if v.value, err = x.eval(ctx, in); err != nil {
				return nil, err
			}
			x.mu.Lock()
			if x.done == nil || len(x.done) >= f.most {
				x.done = map[uint64]factValue{}
			}
			x.done[h] = v
			x.mu.Unlock()
		} else if x.reads&readsTime != 0 {
			k.until = min(k.until, v.until)
		}
		bit, yes := f.bits[x.name]
		switch {
		case v.value == nil:
		case !yes:
			value.Insert(ast.StringTerm(x.name), v.value)
		case v.value.Equal(ast.BooleanTerm(true)):
			k.bits |= 1 << bit
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	text := value.String() // an object prints its keys in order
	k.group = f.groups[text]
	if k.group == nil {
		if f.groups == nil || len(f.groups) >= f.most {
			f.groups = map[string]*group{}
		}
		k.group = &group{value: value}
		f.groups[text] = k.group
	}
	return k, nil
}

// askedOf notes what facts can read of a call.
func askedOf(c *call) asked {
	s := &c.req.Subject
	a := asked{
		addr: c.req.Environment.Addr, purpose: c.req.Environment.Purpose, timed: c.timed,
		subject: authz.Subject{
			ID: s.ID, Tenant: s.Tenant, Team: s.Team, Session: s.Session, Active: s.Active, Level: s.Level,
			Zone: s.Zone, Region: s.Region, Device: s.Device,
			Roles: slices.Clone(s.Roles), Compartments: slices.Clone(s.Compartments), Grants: slices.Clone(s.Grants),
		},
		from: c.time, until: c.time - c.time%minute + minute,
	}
	for i := range s.Grants {
		if end := nanos(s.Grants[i].Until); end > a.from && end < a.until {
			a.until = end
		}
	}
	return a
}

// eval asks the policy for one fact. Partial evaluation with nothing unknown gives it as a term, sets as sets.
func (x *fact) eval(ctx context.Context, in ast.Value) (*ast.Term, error) {
	pq, err := x.query.Partial(ctx, rego.EvalParsedInput(in))
	switch {
	case err != nil:
		return nil, fmt.Errorf("authz/rego: no facts: %w", err)
	case len(pq.Queries) == 0:
		return nil, nil
	case len(pq.Queries) == 1 && len(pq.Queries[0]) == 1 && len(pq.Support) == 0:
		if _, term, ok := assignment(pq.Queries[0][0]); ok {
			return term, nil
		}
	}
	return nil, errors.New("authz/rego: no facts: the policy's answer has another form")
}
