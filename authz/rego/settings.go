package rego

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// settings is the form of data.json. It exists to refuse what no rule would ever read.
type settings struct {
	Settings settingsData `json:"settings"`
}

type settingsData struct {
	Actions        []string                                           `json:"actions"`
	Classes        []string                                           `json:"classes"`
	Levels         map[string]int                                     `json:"levels"`
	Views          map[string]string                                  `json:"views"`
	Inherits       map[string][]string                                `json:"inherits"`
	Grants         map[string]map[string]map[string]string            `json:"grants"`          // role, type, action -> depth: own, team, pool or all
	Fields         map[string]map[string]map[string]string            `json:"fields"`          // role, view, class -> level
	FieldOverrides map[string]map[string]map[string]map[string]string `json:"field_overrides"` // role, type, field, view -> level
	Reserved       map[string]string                                  `json:"reserved"`        // role -> the one subject it is for
	ObligationsOf  map[string][]string                                `json:"obligations_of"`
	FrozenStates   map[string][]string                                `json:"frozen_states"`

	CertifiedRoles      []string   `json:"certified_roles"`       // count only with a live certification
	ExclusiveRoles      [][]string `json:"exclusive_roles"`       // of each group nobody has more than one
	SecondPersonActions []string   `json:"second_person_actions"` // never by who has a part in the record
	MAC                 struct {
		Blind   []string `json:"blind"`   // show nothing of what exists
		Reading []string `json:"reading"` // write nothing
		Trusted []string `json:"trusted"` // may write down
	} `json:"mac"`
	ShareableActions []string `json:"shareable_actions"`
	ShareableTypes   []string `json:"shareable_types"`
	DelegableActions []string `json:"delegable_actions"`
	DelegableTypes   []string `json:"delegable_types"`
	Emergency        struct {
		Types     []string `json:"types"`
		Actions   []string `json:"actions"`
		Approvers int      `json:"approvers"`
	} `json:"emergency"`
	Context struct {
		Hours struct {
			demand
			Days []string `json:"days"`
			From string   `json:"from"` // HH:MM in the subject's zone
			To   string   `json:"to"`
		} `json:"hours"`
		Network struct {
			demand
			Trusted []string `json:"trusted"` // CIDR
		} `json:"network"`
		Device  demand              `json:"device"`
		Regions map[string][]string `json:"regions"` // action -> where it may be done from
	} `json:"context"`
	Purposes        map[string][]string `json:"purposes"` // action -> allowed purposes
	ConsentPurposes []string            `json:"consent_purposes"`
	Export          struct {
		Rows         map[string]int `json:"rows"` // role -> records at once
		StepUpRows   int            `json:"step_up_rows"`
		ApprovalRows int            `json:"approval_rows"`
	} `json:"export"`
	Aggregate struct {
		Smallest int `json:"smallest"` // smaller groups are left out
	} `json:"aggregate"`
	Limits map[string]map[string]int64 `json:"limits"` // type -> role -> amount that it may approve
}

// demand is of what a circumstance is demanded.
type demand struct {
	Actions []string `json:"actions"`
	Types   []string `json:"types"`
	Roles   []string `json:"roles"`
}

// readSettings refuses data whose words do not fit together: a misspelt one would silently grant or
// hide something else than its author meant.
func readSettings(text []byte) (*settings, error) {
	var file settings
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, refuse("data.json: %v", err)
	}
	// A decoder takes Actions for actions, policies do not, and they would take a missing list of obligations
	// for none.
	var is, want any
	canonical, err := json.Marshal(&file)
	if err != nil {
		return nil, refuse("data.json: %v", err)
	}
	if err := decode(text, &is); err != nil {
		return nil, refuse("data.json: %v", err)
	}
	if err := decode(canonical, &want); err != nil {
		return nil, refuse("data.json: %v", err)
	}
	if err := exact("", is, want); err != nil {
		return nil, err
	}
	return &file, file.Settings.check()
}

// exact says where what is written differs from what was read.
func exact(where string, is, want any) error {
	at := strings.TrimPrefix(where, ".settings.")
	if is == nil {
		return refuse("data.json: %s: null", at)
	}
	a, ok1 := is.(map[string]any)
	b, ok2 := want.(map[string]any)
	if !ok1 || !ok2 {
		list, ok := is.([]any)
		if !ok || len(list) == 0 && want == nil {
			return nil // as read
		}
		for i, item := range list {
			if err := exact(fmt.Sprintf("%s[%d]", where, i), item, want.([]any)[i]); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range keysOf(b) {
		if _, ok := a[name]; !ok {
			return refuse("data.json: %s.%s is missing", at, name)
		}
		if err := exact(where+"."+name, a[name], b[name]); err != nil {
			return err
		}
	}
	for _, name := range keysOf(a) {
		if _, ok := b[name]; !ok {
			return refuse("data.json: %s.%s is written otherwise than the settings have it", at, name)
		}
	}
	return nil
}

func (s *settingsData) check() error {
	if s.Levels["hidden"] != 0 || s.Levels["masked"] != 1 || s.Levels["open"] != 2 || len(s.Levels) != 3 {
		return refuse("data.json: levels must be hidden 0, masked 1, open 2")
	}
	views := map[string]bool{}
	for action, view := range s.Views {
		if !slices.Contains(s.Actions, action) {
			return refuse("data.json: views: unknown action %q", action)
		}
		views[view] = true
	}
	role := func(r string) bool { _, ok := s.Inherits[r]; return ok }
	for r, up := range s.Inherits {
		for _, u := range up {
			if !role(u) {
				return refuse("data.json: inherits: %q inherits the unknown role %q", r, u)
			}
		}
		if reaches(s.Inherits, r, r, map[string]bool{}) {
			return refuse("data.json: inherits: role %q inherits itself", r)
		}
	}
	for r := range s.Reserved {
		if !role(r) {
			return refuse("data.json: reserved: unknown role %q", r)
		}
	}
	for r, types := range s.Grants {
		if !role(r) {
			return refuse("data.json: grants: unknown role %q", r)
		}
		for t, actions := range types {
			for a, depth := range actions {
				if !slices.Contains(s.Actions, a) {
					return refuse("data.json: grants: %s %s: unknown action %q", r, t, a)
				}
				if depth != "own" && depth != "team" && depth != "pool" && depth != "all" {
					return refuse("data.json: grants: %s %s %s: unknown depth %q", r, t, a, depth)
				}
			}
		}
	}
	for r, byView := range s.Fields {
		if !role(r) {
			return refuse("data.json: fields: unknown role %q", r)
		}
		for view, classes := range byView {
			if !views[view] {
				return refuse("data.json: fields: %s: unknown view %q", r, view)
			}
			for class, level := range classes {
				if !slices.Contains(s.Classes, class) {
					return refuse("data.json: fields: %s %s: unknown class %q", r, view, class)
				}
				if _, ok := s.Levels[level]; !ok {
					return refuse("data.json: fields: %s %s %s: unknown level %q", r, view, class, level)
				}
			}
		}
	}
	for r, types := range s.FieldOverrides {
		if !role(r) {
			return refuse("data.json: field_overrides: unknown role %q", r)
		}
		for t, fields := range types {
			if !slices.Contains(s.types(), t) {
				return refuse("data.json: field_overrides: %s: unknown type %q", r, t)
			}
			for f, byView := range fields {
				for view, level := range byView {
					if _, ok := s.Levels[level]; !ok || !views[view] {
						return refuse("data.json: field_overrides: %s %s %s: unknown view or level", r, t, f)
					}
				}
			}
		}
	}
	for a := range s.ObligationsOf {
		if !slices.Contains(s.Actions, a) {
			return refuse("data.json: obligations_of: unknown action %q", a)
		}
	}
	return s.checkControls(role)
}

// checkControls looks at the settings of the single controls.
func (s *settingsData) checkControls(role func(string) bool) error {
	types := s.types()
	for _, x := range []struct {
		where string
		words []string
		known func(string) bool
		what  string
	}{
		{"certified_roles", s.CertifiedRoles, role, "role"},
		{"second_person_actions", s.SecondPersonActions, s.action, "action"},
		{"mac", slices.Concat(s.MAC.Blind, s.MAC.Reading, s.MAC.Trusted), s.action, "action"},
		{"shareable_actions", s.ShareableActions, s.action, "action"},
		{"delegable_actions", s.DelegableActions, s.action, "action"},
		{"emergency", s.Emergency.Actions, s.action, "action"},
		{"context", slices.Concat(s.Context.Hours.Actions, s.Context.Network.Actions, s.Context.Device.Actions), s.action, "action"},
		{"context.regions", keysOf(s.Context.Regions), s.action, "action"},
		{"purposes", keysOf(s.Purposes), s.action, "action"},
		{"context", slices.Concat(s.Context.Hours.Roles, s.Context.Network.Roles, s.Context.Device.Roles), role, "role"},
		{"export.rows", keysOf(s.Export.Rows), role, "role"},
		{"types", slices.Concat(s.ShareableTypes, s.DelegableTypes, s.Emergency.Types, s.Context.Hours.Types,
			s.Context.Network.Types, s.Context.Device.Types, keysOf(s.Limits), keysOf(s.FrozenStates)),
			func(t string) bool { return slices.Contains(types, t) }, "type"},
	} {
		for _, w := range x.words {
			if !x.known(w) {
				return refuse("data.json: %s: unknown %s %q", x.where, x.what, w)
			}
		}
	}
	for i, group := range s.ExclusiveRoles {
		for _, r := range group {
			if !role(r) {
				return refuse("data.json: exclusive_roles: unknown role %q", r)
			}
			for _, other := range group {
				if other != r && reaches(s.Inherits, r, other, map[string]bool{}) {
					return refuse("data.json: exclusive_roles: group %d has %q, which inherits %q", i, r, other)
				}
			}
		}
	}
	for _, network := range s.Context.Network.Trusted {
		if _, err := netip.ParsePrefix(network); err != nil {
			return refuse("data.json: context.network: %q is no network", network)
		}
	}
	for _, day := range s.Context.Hours.Days {
		if !slices.Contains(weekdays, day) {
			return refuse("data.json: context.hours: unknown day %q", day)
		}
	}
	from, err1 := time.Parse("15:04", s.Context.Hours.From)
	to, err2 := time.Parse("15:04", s.Context.Hours.To)
	if err1 != nil || err2 != nil || !from.Before(to) {
		return refuse("data.json: context.hours: from and to are HH:MM, from before to")
	}
	for t, roles := range s.Limits {
		for r, limit := range roles {
			if !role(r) || limit < 0 {
				return refuse("data.json: limits: %s: %q is no role, or its limit is below 0", t, r)
			}
		}
	}
	if s.Emergency.Approvers < 1 || s.Export.StepUpRows < 0 || s.Export.ApprovalRows < 0 || s.Aggregate.Smallest < 1 {
		return refuse("data.json: emergency.approvers and aggregate.smallest are at least 1, rows of exports at least 0")
	}
	return nil
}

var weekdays = []string{"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}

func (s *settingsData) action(a string) bool { return slices.Contains(s.Actions, a) }

func keysOf[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// reaches tells whether goal is inherited, directly or not, by from.
func reaches(inherits map[string][]string, from, goal string, seen map[string]bool) bool {
	for _, up := range inherits[from] {
		if up == goal {
			return true
		}
		if !seen[up] {
			seen[up] = true
			if reaches(inherits, up, goal, seen) {
				return true
			}
		}
	}
	return false
}
