package rego

import (
	"bytes"
	"encoding/json"
	"slices"
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
	Grants         map[string]map[string]map[string]string            `json:"grants"`          // role, type, action -> depth
	Fields         map[string]map[string]map[string]string            `json:"fields"`          // role, view, class -> level
	FieldOverrides map[string]map[string]map[string]map[string]string `json:"field_overrides"` // role, type, field, view -> level
	Reserved       map[string]string                                  `json:"reserved"`        // role -> the one subject it is for
	ObligationsOf  map[string][]string                                `json:"obligations_of"`
	FrozenStates   map[string][]string                                `json:"frozen_states"`
}

// readSettings refuses data whose words do not fit together: a misspelt one would silently grant or
// hide something else than its author meant.
func readSettings(text []byte) (*settings, error) {
	var file settings
	dec := json.NewDecoder(bytes.NewReader(text))
	// dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, refuse("data.json: %v", err)
	}
	return &file, file.Settings.check()
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
				if depth != "own" && depth != "team" && depth != "all" {
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
	return nil
}

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
