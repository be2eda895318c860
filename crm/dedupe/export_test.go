package dedupe

import "github.com/crmguard/crmguard/crm/guard"

// Both compares two values as a Checker does, and by all comparisons.
func Both[P any](rules *Rules, access map[string]guard.Access) (func(a, b P) (quick, whole guard.Verdict), error) {
	m, err := newMatcher[P](rules, jsonPlaces[P](), nil)
	if err != nil {
		return nil, err
	}
	known := m.remembering()
	return func(a, b P) (quick, whole guard.Verdict) {
		return known.Compare(a, b, access), m.verdict(&pair{a: m.record(a), b: m.record(b), access: access})
	}, nil
}
