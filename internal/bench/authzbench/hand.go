package authzbench

import (
	"slices"
	"strings"

	"github.com/crmguard/crmguard/authz"
)

// hand is the policy as a Go programmer would write it out, with what can be prepared prepared.
type hand struct {
	grants      map[grant]depths
	obligations map[authz.Action][]authz.Obligation
	fields      map[view]authz.Fields
	views       map[string]string
	strong      map[authz.Action]bool
	frozen      map[string][]string
	shareable   map[string]bool // types
	shared      map[authz.Action]bool
	revision    string
}

type grant struct {
	typ    string
	action authz.Action
}

// depths are how deep a grant reaches, by the bit of a role.
type depths struct{ own, team, all roleSet }

type roleSet uint8

type view struct {
	roles roleSet
	typ   string
	view  string
}

func newHand(s *settings, revision string) *hand {
	h := &hand{
		grants: map[grant]depths{}, obligations: map[authz.Action][]authz.Obligation{}, fields: map[view]authz.Fields{},
		views: s.Views, strong: map[authz.Action]bool{}, frozen: s.FrozenStates, shareable: map[string]bool{},
		shared: map[authz.Action]bool{}, revision: revision,
	}
	for role, byType := range s.Grants {
		for typ, byAction := range byType {
			for action, depth := range byAction {
				g := h.grants[grant{typ, authz.Action(action)}]
				switch bit := roleBit(role); depth {
				case "own":
					g.own |= bit
				case "team":
					g.team |= bit
				case "all":
					g.all |= bit
				}
				h.grants[grant{typ, authz.Action(action)}] = g
			}
		}
	}
	for action, list := range s.ObligationsOf {
		h.obligations[authz.Action(action)] = slices.Sorted(slices.Values(list))
	}
	for _, a := range s.Context.Device.Actions {
		h.strong[authz.Action(a)] = true
	}
	for _, a := range s.ShareableActions {
		h.shared[authz.Action(a)] = true
	}
	for _, t := range s.ShareableTypes {
		h.shareable[t] = true
	}
	words := map[string]authz.Access{"hidden": authz.Hidden, "masked": authz.Masked, "open": authz.Open}
	for set := range roleSet(1 << len(roles)) {
		for _, typ := range types {
			for _, v := range []string{"list", "read", "write", "export"} {
				f := authz.Fields{ByClass: map[string]authz.Access{}, ByName: map[string]authz.Access{}}
				for _, role := range roles {
					if set&roleBit(role) == 0 {
						continue
					}
					for class, word := range s.Fields[role][v] {
						f.ByClass[class] = max(f.ByClass[class], words[word])
					}
					for field, byView := range s.FieldOverrides[role][typ] {
						if word, ok := byView[v]; ok {
							f.ByName[field] = max(f.ByName[field], words[word])
						}
					}
				}
				h.fields[view{set, typ, v}] = f
			}
		}
	}
	return h
}

func roleBit(role string) roleSet {
	switch role {
	case "sales":
		return 1
	case "manager":
		return 2
	case "support":
		return 4
	case "finance":
		return 8
	case "auditor":
		return 16
	case "admin":
		return 32
	}
	return 0
}

func rolesOf(s *authz.Subject) roleSet {
	var set roleSet
	for _, role := range s.Roles {
		set |= roleBit(role)
		if role == "manager" {
			set |= roleBit("sales")
		}
	}
	return set
}

// grounds are why access is given.
type grounds struct{ all, team, own, share bool }

func (h *hand) grounds(r *authz.Request, set roleSet) (g grounds) {
	s, res := &r.Subject, &r.Resource
	d := h.grants[grant{res.Type, r.Action}]
	g.all = d.all&set != 0
	g.team = d.team&set != 0 && strings.HasPrefix(s.Team, "/") && strings.HasPrefix(res.Team, s.Team)
	g.own = d.own&set != 0 && s.ID != "" && res.Owner == s.ID
	if len(s.Shares) > 0 && h.shared[r.Action] && h.shareable[res.Type] {
		for i := range s.Shares {
			if s.Shares[i].Record == res.ID && slices.Contains(s.Shares[i].Actions, r.Action) {
				g.share = true
			}
		}
	}
	return g
}

func (g grounds) any() bool { return g.all || g.team || g.own || g.share }

func (h *hand) mutable(r *authz.Request) bool {
	return r.Action != authz.Update && r.Action != authz.Delete || !slices.Contains(h.frozen[r.Resource.Type], r.Resource.State)
}

func (h *hand) cleared(r *authz.Request) bool {
	return r.Resource.Level >= 0 && r.Resource.Level <= r.Subject.Level
}

func (h *hand) stepped(r *authz.Request) bool {
	return !h.strong[r.Action] || r.Subject.Device == "key"
}

// allowed only says yes or no.
func (h *hand) allowed(r *authz.Request) bool {
	s := &r.Subject
	return s.Active && s.ID != "" && s.Tenant != "" && s.Tenant == r.Resource.Tenant && h.cleared(r) && h.stepped(r) && h.mutable(r) &&
		h.grounds(r, rolesOf(s)).any()
}

// decide gives the whole answer.
func (h *hand) decide(r *authz.Request) authz.Decision {
	s := &r.Subject
	set := rolesOf(s)
	g := h.grounds(r, set)
	d := authz.Decision{Revision: h.revision}
	active, same := s.Active && s.ID != "", s.Tenant != "" && s.Tenant == r.Resource.Tenant
	cleared, stepped, mutable := h.cleared(r), h.stepped(r), h.mutable(r)
	controls := make([]string, 0, 10)
	d.Allowed = g.any() && active && same && cleared && stepped && mutable
	put := func(name string, holds bool) {
		if holds == d.Allowed {
			controls = append(controls, name)
		}
	}
	put("access.granted", g.any())
	put("active.subject", active)
	put("frozen.state", mutable)
	put("mac.read", cleared)
	put("mfa.done", stepped)
	if d.Allowed {
		put("rbac.all", g.all)
		put("rbac.own", g.own)
		put("rbac.team", g.team)
		put("share", g.share)
		d.Fields = h.fields[view{set, r.Resource.Type, h.views[string(r.Action)]}]
		d.Obligations = h.obligations[r.Action]
	}
	put("tenant.same", same)
	d.Controls = controls
	return d
}
