package flow

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/form"
)

// ID is that of an employee.
type ID = crm.ID[crm.Employee]

// Place says what a state is in a flow.
type Place string

// The places of a state.
const (
	Start  Place = "start" // exactly one
	Middle Place = "middle"
	End    Place = "end" // at least one; nothing follows
)

// State is one state of a flow.
type State struct {
	Name   string            `json:"name"` // lower-case letters, digits and _, at most 40, a letter first
	Labels map[string]string `json:"labels,omitempty"`
	Place  Place             `json:"place"`
}

// Who says who approves.
type Who string

// Who may approve.
const (
	Superior Who = "superior" // of the asker, Height above: 1 is their manager, 2 the manager's
	AnyOf    Who = "any"      // Need of People; it fails when too many say no
	AllOf    Who = "all"      // all of People; one no is enough
)

// Late says what happens when an approval is not given in time.
type Late string

// What happens to a late approval.
const (
	LateRefuse   Late = "refuse"
	LateEscalate Late = "escalate" // to the next superior of the asker, who decides alone; refused above the last
)

// Approval is one approval of a step.
type Approval struct {
	Who    Who   `json:"who"`
	Height int64 `json:"height,omitempty"` // of superior, 1 to 20
	People []ID  `json:"people,omitempty"` // of any and all
	Need   int64 `json:"need,omitempty"`   // of any: how many; at least 1
	Hours  int64 `json:"hours,omitempty"`  // until it is late; 0: never
	Late   Late  `json:"late,omitempty"`   // required beside Hours
}

// Step leads from one state to another.
type Step struct {
	Name      string            `json:"name"` // as a state's; unique among those that leave one state
	Labels    map[string]string `json:"labels,omitempty"`
	From      string            `json:"from"`
	To        string            `json:"to"`
	When      Condition         `json:"when,omitzero"`
	Approvals []Approval        `json:"approvals,omitempty"` // one after the other; none: who asks takes the step
}

// Status says whether a flow is used.
type Status string

// The states of a flow as a record.
const (
	Draft     Status = "draft"
	Published Status = "published"
	Retired   Status = "retired" // final: instances go on, new ones are refused
)

// Lifecycle returns the transition table of flows as records.
func Lifecycle() crm.Lifecycle[Status] {
	return crm.NewLifecycle(crm.TypeFlow, []Status{Draft, Published, Retired}, map[Status][]Status{Draft: {Published, Retired}, Published: {Retired}})
}

// Flow is one version of a workflow.
type Flow struct {
	crm.Meta[Flow]
	Key      string            `protect:"internal,indexed" json:"key"` // the same for all versions
	Titles   map[string]string `protect:"internal" json:"titles"`      // by language
	For      string            `protect:"internal,indexed" json:"for"` // the type whose records it drives
	Revision int64             `protect:"internal,indexed" json:"revision"`
	States   []State           `protect:"internal" json:"states"`
	Steps    []Step            `protect:"internal" json:"steps"`
	Status   Status            `protect:"internal,indexed" json:"status"`
}

const (
	maxStates    = 100
	maxSteps     = 500
	maxApprovals = 10
	maxPeople    = 100
)

func word(s string) bool {
	return s != "" && len(s) <= 40 && s[0] >= 'a' && s[0] <= 'z' &&
		!strings.ContainsFunc(s, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil: required for a start, an end or an approver that lacks, repeated for a
// second start or name, bad_reference for a state that is none, fixed for a step out of an end, unreachable and endless for states as the package's
// documentation says.
func (f *Flow) Validate() error {
	v := crm.Checks{Type: crm.TypeFlow}
	v.Team(f.Team)
	if !word(f.Key) {
		v.Add("key", "unknown_value")
	}
	if !word(f.For) {
		v.Add("for", "unknown_value")
	}
	v.Required("titles", len(f.Titles) == 0)
	v.Range("revision", f.Revision, 1, 1_000_000)
	Lifecycle().State(&v, "status", f.Status)
	if len(f.States) > maxStates || len(f.Steps) > maxSteps {
		v.Add("states", "too_long")
		return v.Err()
	}
	starts, ends := 0, 0
	for i, s := range f.States {
		at := "states." + strconv.Itoa(i)
		if !word(s.Name) {
			v.Add(at+".name", "unknown_value")
		}
		if slices.ContainsFunc(f.States[:i], func(o State) bool { return o.Name == s.Name }) {
			v.Add(at+".name", "repeated")
		}
		v.OneOf(at+".place", string(s.Place), string(Start), string(Middle), string(End))
		switch s.Place {
		case Start:
			if starts++; starts > 1 {
				v.Add(at+".place", "repeated")
			}
		case End:
			ends++
		}
	}
	v.Required("states", starts == 0 || ends == 0)
	for i := range f.Steps {
		f.step(&v, i)
	}
	if err := v.Err(); err != nil {
		return err // without a graph there are no paths
	}
	for i, s := range f.States {
		at := "states." + strconv.Itoa(i)
		if !f.reach(f.start(), func(x Step) (string, string) { return x.From, x.To })[s.Name] {
			v.Add(at, "unreachable")
		} else if !f.leads(s.Name) {
			v.Add(at, "endless")
		}
	}
	return v.Err()
}

func (f *Flow) step(v *crm.Checks, i int) {
	s := f.Steps[i]
	at := "steps." + strconv.Itoa(i)
	if !word(s.Name) {
		v.Add(at+".name", "unknown_value")
	}
	if slices.ContainsFunc(f.Steps[:i], func(o Step) bool { return o.From == s.From && o.Name == s.Name }) {
		v.Add(at+".name", "repeated")
	}
	from, ok := f.State(s.From)
	if !ok {
		v.Add(at+".from", "bad_reference")
	}
	if from.Place == End {
		v.Add(at+".from", "fixed")
	}
	if _, ok := f.State(s.To); !ok {
		v.Add(at+".to", "bad_reference")
	}
	nodes := 0
	if !s.When.zero() {
		if rule := s.When.check(&nodes, 1, nil); rule != "" {
			v.Add(at+".when", rule)
		}
	}
	if len(s.Approvals) > maxApprovals {
		v.Add(at+".approvals", "too_long")
	}
	for j, a := range s.Approvals {
		a.check(v, at+".approvals."+strconv.Itoa(j))
	}
}

func (a *Approval) check(v *crm.Checks, at string) {
	v.OneOf(at+".who", string(a.Who), string(Superior), string(AnyOf), string(AllOf))
	v.Range(at+".hours", a.Hours, 0, 24*366)
	if a.Hours > 0 {
		v.OneOf(at+".late", string(a.Late), string(LateRefuse), string(LateEscalate))
	} else if a.Late != "" {
		v.Add(at+".late", "mismatch")
	}
	if a.Who == Superior {
		v.Range(at+".height", a.Height, 1, 20)
		if len(a.People) > 0 || a.Need != 0 {
			v.Add(at+".people", "mismatch")
		}
		return
	}
	if a.Height != 0 {
		v.Add(at+".height", "mismatch")
	}
	v.Required(at+".people", len(a.People) == 0)
	if len(a.People) > maxPeople {
		v.Add(at+".people", "too_long")
	}
	for i, p := range a.People {
		if p.IsZero() || slices.Contains(a.People[:i], p) {
			v.Add(at+".people", "repeated")
			break
		}
	}
	if a.Who == AnyOf && len(a.People) > 0 {
		v.Range(at+".need", a.Need, 1, int64(len(a.People)))
	} else if a.Who == AllOf && a.Need != 0 {
		v.Add(at+".need", "mismatch")
	}
}

// reach returns the states that can be reached from one along the steps.
func (f *Flow) reach(from string, ends func(Step) (string, string)) map[string]bool {
	seen := map[string]bool{from: true}
	for todo := []string{from}; len(todo) > 0; todo = todo[1:] {
		for _, s := range f.Steps {
			if a, b := ends(s); a == todo[0] && !seen[b] {
				seen[b] = true
				todo = append(todo, b)
			}
		}
	}
	return seen
}

// leads tells whether an end can be reached from a state.
func (f *Flow) leads(from string) bool {
	seen := f.reach(from, func(x Step) (string, string) { return x.From, x.To })
	return slices.ContainsFunc(f.States, func(s State) bool { return s.Place == End && seen[s.Name] })
}

// State returns a state by its name.
func (f *Flow) State(name string) (State, bool) {
	i := slices.IndexFunc(f.States, func(s State) bool { return s.Name == name })
	if i < 0 {
		return State{}, false
	}
	return f.States[i], true
}

func (f *Flow) start() string {
	i := slices.IndexFunc(f.States, func(s State) bool { return s.Place == Start })
	if i < 0 {
		return ""
	}
	return f.States[i].Name
}

// Step returns a step that leaves a state, by its name.
func (f *Flow) Step(from, name string) (Step, bool) {
	i := slices.IndexFunc(f.Steps, func(s Step) bool { return s.From == from && s.Name == name })
	if i < 0 {
		return Step{}, false
	}
	return f.Steps[i], true
}

// CheckForm checks that every condition of the flow reads fields of a form that are stored in the clear, or of known, which are columns of
// the record: else a *crm.InvalidError has the rule bad_reference.
func (f *Flow) CheckForm(fields []form.Field, known ...string) error {
	clear := map[string]bool{}
	for _, k := range known {
		clear[k] = true
	}
	for _, x := range fields {
		clear[x.Name] = x.Class.Clear()
	}
	v := crm.Checks{Type: crm.TypeFlow}
	for i, s := range f.Steps {
		nodes := 0
		if s.When.zero() {
			continue
		}
		if rule := s.When.check(&nodes, 1, clear); rule != "" {
			v.Add("steps."+strconv.Itoa(i)+".when", rule)
		}
	}
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become f: a *crm.TransitionError for a step that the table does not have, a
// *crm.InvalidError with the rule fixed for a change of what is published.
func (f *Flow) CheckUpdate(prev *Flow) error {
	if err := Lifecycle().CheckUpdate(prev.Status, f.Status); err != nil {
		return err
	}
	v := crm.Checks{Type: crm.TypeFlow}
	v.Unchanged("key", f.Key == prev.Key && f.For == prev.For && f.Revision == prev.Revision)
	if prev.Status != Draft {
		v.Unchanged("states", slices.EqualFunc(f.States, prev.States, func(a, b State) bool { return a.Name == b.Name && a.Place == b.Place }))
		v.Unchanged("steps", slices.EqualFunc(f.Steps, prev.Steps, sameStep))
	}
	return v.Err()
}

// sameStep compares all but what a step is called in a language.
func sameStep(a, b Step) bool {
	return a.Name == b.Name && a.From == b.From && a.To == b.To && sameCondition(a.When, b.When) &&
		slices.EqualFunc(a.Approvals, b.Approvals, func(x, y Approval) bool {
			return x.Who == y.Who && x.Height == y.Height && x.Need == y.Need && x.Hours == y.Hours && x.Late == y.Late && slices.Equal(x.People, y.People)
		})
}

func sameCondition(a, b Condition) bool {
	return a.Field == b.Field && a.Op == b.Op && slices.Equal(a.Values, b.Values) && slices.EqualFunc(a.All, b.All, sameCondition) &&
		slices.EqualFunc(a.Any, b.Any, sameCondition) && (a.Not == nil) == (b.Not == nil) && (a.Not == nil || sameCondition(*a.Not, *b.Not))
}

// Move publishes or retires the flow at a time. Errors are a *crm.TransitionError, and those of Validate.
func (f *Flow) Move(to Status, at time.Time) error {
	if err := Lifecycle().Check(f.Status, to); err != nil {
		return err
	}
	next := *f
	next.Status, next.UpdatedAt = to, at
	if err := next.Validate(); err != nil {
		return err
	}
	*f = next
	return nil
}
