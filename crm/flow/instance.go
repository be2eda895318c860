package flow

import (
	"slices"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// What says what happened.
type What string

// What happens to an instance.
const (
	Started   What = "started"
	Asked     What = "asked" // for a step that needs approvals
	Agreed    What = "agreed"
	Disagreed What = "disagreed"
	Refused   What = "refused" // the step is not taken
	Escalated What = "escalated"
	Withdrawn What = "withdrawn" // by who asked
	Moved     What = "moved"
)

// Event is one entry of an instance's history.
type Event struct {
	At   time.Time `json:"at"`
	What What      `json:"what"`
	By   ID        `json:"by,omitzero"` // none: the clock
	Step string    `json:"step,omitempty"`
	From string    `json:"from,omitempty"`
	To   string    `json:"to,omitempty"` // of moved
}

// Pending is an approval that is waited for.
type Pending struct {
	Step      string    `json:"step"`
	By        ID        `json:"by"`    // who asked
	Stage     int       `json:"stage"` // which of the step's approvals
	Approvers []ID      `json:"approvers"`
	Need      int       `json:"need"` // how many of them
	Agreed    []ID      `json:"agreed,omitempty"`
	Disagreed []ID      `json:"disagreed,omitempty"`
	Height    int64     `json:"height,omitempty"` // how far above the asker it is
	DueAt     time.Time `json:"due_at,omitzero"`
}

// Instance is one record on its way through a flow.
type Instance struct {
	crm.Meta[Instance]
	Flow        crm.ID[Flow] `protect:"internal,indexed" json:"flow"`
	SubjectType string       `protect:"internal,indexed" json:"subject_type"`
	Subject     crm.UUID     `protect:"internal,indexed" json:"subject"`
	Actors      string       `protect:"internal" json:"actors"` // who began or changed it, each in angle brackets
	State       string       `protect:"internal,indexed" json:"state"`
	Since       time.Time    `protect:"internal,indexed" json:"since"`
	EndedAt     time.Time    `protect:"internal,indexed" json:"ended_at"` // zero: it is on its way
	DueAt       time.Time    `protect:"internal,indexed" json:"due_at"`   // when the approval that is waited for is late; zero: never
	Pending     *Pending     `protect:"internal" json:"pending"`
	History     []Event      `protect:"internal" json:"history"`
}

// maxHistory bounds what one instance remembers; a flow that goes round so often is broken.
const maxHistory = 2000

// MadeByActs says that an instance is put at the start of a published flow by Begin, and never made by itself.
func (i *Instance) MadeByActs() {}

// CheckNew refuses an instance that does not begin: its history is that it was started, and nothing is waited for. A *crm.InvalidError has the rule mismatch.
func (i *Instance) CheckNew() error {
	v := crm.Checks{Type: crm.TypeInstance}
	if len(i.History) != 1 || i.History[0].What != Started || !i.History[0].At.Equal(i.Since) {
		v.Add("history", "mismatch")
	}
	if i.Pending != nil || !i.DueAt.IsZero() {
		v.Add("pending", "mismatch")
	}
	if !i.EndedAt.IsZero() {
		v.Add("ended_at", "mismatch")
	}
	return v.Err()
}

// Reserved names the fields that no update sets: a step of the flow does.
func (i *Instance) Reserved(isNew bool) []string {
	if isNew { // CheckNew
		return nil
	}
	return []string{"state", "since", "ended_at", "due_at", "pending", "history"}
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (i *Instance) Validate() error {
	v := crm.Checks{Type: crm.TypeInstance}
	v.Team(i.Team)
	v.Required("flow", i.Flow.IsZero())
	v.Str("subject_type", i.SubjectType, true, 40)
	v.Required("subject", i.Subject.IsZero())
	v.Str("state", i.State, true, 40)
	v.Required("history", len(i.History) == 0)
	if len(i.History) > maxHistory {
		v.Add("history", "too_long")
	}
	for n := 1; n < len(i.History); n++ {
		if i.History[n].At.Before(i.History[n-1].At) {
			v.Add("history", "before_start")
			break
		}
	}
	if !i.EndedAt.IsZero() && i.Pending != nil {
		v.Add("pending", "mismatch")
	}
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become i: its history only grows. A *crm.InvalidError has the rule fixed.
func (i *Instance) CheckUpdate(prev *Instance) error {
	v := crm.Checks{Type: crm.TypeInstance}
	v.Unchanged("flow", i.Flow == prev.Flow)
	v.Unchanged("subject", i.SubjectType == prev.SubjectType && i.Subject == prev.Subject)
	v.Unchanged("history", len(i.History) >= len(prev.History) && slices.EqualFunc(i.History[:len(prev.History)], prev.History, func(a, b Event) bool {
		same := a.At.UnixMicro() == b.At.UnixMicro()
		a.At, b.At = time.Time{}, time.Time{}
		return same && a == b
	}))
	if !prev.EndedAt.IsZero() {
		v.Unchanged("state", i.State == prev.State)
	}
	return v.Err()
}

// People finds superiors; a tree of package org does.
type People interface {
	// Approver returns the n-th superior of an employee who works here, from 1 on, or none.
	Approver(of ID, n int) ID
}

// Begin puts a record at the start of a published flow. A *crm.TransitionError when the flow is not published; a *crm.InvalidError has the rules
// required without an id or a subject, and mismatch for a subject of another type than the flow's.
func (f *Flow) Begin(id crm.ID[Instance], subjectType string, subject crm.UUID, by ID, at time.Time) (*Instance, error) {
	if f.Status != Published {
		from := "unknown"
		if Lifecycle().Has(f.Status) {
			from = string(f.Status)
		}
		return nil, &crm.TransitionError{Type: crm.TypeFlow, From: from, To: string(Started)}
	}
	v := crm.Checks{Type: crm.TypeInstance}
	v.Required("id", id.IsZero())
	v.Required("subject", subject.IsZero())
	if subjectType != f.For {
		v.Add("subject_type", "mismatch")
	}
	if err := v.Err(); err != nil {
		return nil, err
	}
	return &Instance{
		Meta: crm.Meta[Instance]{ID: id, Owner: by, CreatedAt: at, UpdatedAt: at},
		Flow: f.ID, SubjectType: subjectType, Subject: subject, State: f.start(), Since: at,
		History: []Event{{At: at, What: Started, By: by}},
	}, nil
}

// Next returns the steps that may be asked for now: those that leave the state and whose conditions hold for the values. None while an approval is waited
// for, or at an end.
func (f *Flow) Next(i *Instance, value func(field string) string) []Step {
	if i.Flow != f.ID || i.Pending != nil || !i.EndedAt.IsZero() {
		return nil
	}
	var list []Step
	for _, s := range f.Steps {
		if s.From == i.State && s.When.Holds(value) {
			list = append(list, s)
		}
	}
	return list
}

// refuse is a *crm.InvalidError of an instance.
func refuse(field, rule string) error {
	return &crm.InvalidError{Type: crm.TypeInstance, Fields: []crm.FieldError{{Field: field, Rule: rule}}}
}

// ready tells why nothing can happen to an instance, or nil.
func (f *Flow) ready(i *Instance, by ID, at time.Time) error {
	switch {
	case i.Flow != f.ID:
		return refuse("flow", "mismatch")
	case by.IsZero():
		return refuse("by", "required")
	case len(i.History) >= maxHistory-1:
		return refuse("history", "too_long")
	case len(i.History) > 0 && at.Before(i.History[len(i.History)-1].At):
		return refuse("at", "before_start")
	}
	return nil
}

// copy returns an instance that shares nothing with i that is changed.
func (i *Instance) copy() *Instance {
	next := *i
	next.History = slices.Clone(i.History)
	if i.Pending != nil {
		p := *i.Pending
		p.Agreed, p.Disagreed, p.Approvers = slices.Clone(p.Agreed), slices.Clone(p.Disagreed), slices.Clone(p.Approvers)
		next.Pending = &p
	}
	return &next
}

// Ask takes a step in the name of by, or asks for its approvals. value gives the values of the record by name.
//
// A *crm.TransitionError when the state has no such step, something is waited for already, or it is ended. A *crm.InvalidError has the rules unmet for the
// condition, no_approver when nobody could approve, and those of [Flow.Begin] for what does not fit.
func (f *Flow) Ask(i *Instance, step string, by ID, value func(field string) string, people People, at time.Time) error {
	if err := f.ready(i, by, at); err != nil {
		return err
	}
	s, ok := f.Step(i.State, step)
	if !ok || i.Pending != nil || !i.EndedAt.IsZero() {
		from, to := "unknown", "unknown"
		if _, known := f.State(i.State); known {
			from = i.State
		}
		if ok {
			to = s.To
		}
		return &crm.TransitionError{Type: crm.TypeInstance, From: from, To: to}
	}
	if !s.When.Holds(value) {
		return refuse("when", "unmet")
	}
	next := i.copy()
	next.UpdatedAt = at
	if len(s.Approvals) == 0 {
		f.move(next, s, by, at)
		*i = *next
		return nil
	}
	next.Pending = &Pending{Step: s.Name, By: by, Stage: -1}
	next.History = append(next.History, Event{At: at, What: Asked, By: by, Step: s.Name, From: i.State})
	if err := f.stage(next, s, people, at); err != nil {
		return err
	}
	*i = *next
	return nil
}

// move takes a step.
func (f *Flow) move(i *Instance, s Step, by ID, at time.Time) {
	i.History = append(i.History, Event{At: at, What: Moved, By: by, Step: s.Name, From: i.State, To: s.To})
	i.State, i.Since, i.Pending, i.DueAt = s.To, at, nil, time.Time{}
	if to, _ := f.State(s.To); to.Place == End {
		i.EndedAt = at
	}
}

// stage begins the next approval of a step, or takes the step after the last.
func (f *Flow) stage(i *Instance, s Step, people People, at time.Time) error {
	p := *i.Pending
	if p.Stage++; p.Stage >= len(s.Approvals) {
		f.move(i, s, p.By, at)
		return nil
	}
	a := s.Approvals[p.Stage]
	p.Agreed, p.Disagreed, p.Approvers, p.Height = nil, nil, nil, 0
	switch a.Who {
	case Superior:
		up := ID{}
		if people != nil {
			up = people.Approver(p.By, int(a.Height))
		}
		if !up.IsZero() && up != p.By {
			p.Approvers, p.Need, p.Height = []ID{up}, 1, a.Height
		}
	case AnyOf:
		p.Approvers, p.Need = others(a.People, p.By), int(a.Need)
	case AllOf:
		p.Approvers = others(a.People, p.By)
		p.Need = len(p.Approvers)
	}
	if len(p.Approvers) == 0 || p.Need < 1 || p.Need > len(p.Approvers) {
		return refuse("approvals", "no_approver")
	}
	p.DueAt = time.Time{}
	if a.Hours > 0 {
		p.DueAt = at.Add(time.Duration(a.Hours) * time.Hour)
	}
	i.Pending, i.DueAt = &p, p.DueAt
	return nil
}

// others returns people without one.
func others(people []ID, one ID) []ID {
	return slices.DeleteFunc(slices.Clone(people), func(p ID) bool { return p == one })
}

// Decide notes what an approver says, Agreed or Disagreed, and goes on when it is decided: to the next approval, or over the step, or nowhere when it is refused.
//
// A *crm.TransitionError when nothing is waited for. A *crm.InvalidError has the rules not_approver for somebody who is not asked, repeated for
// somebody who has said it, and no_approver when nobody could give the next approval: then nothing is noted.
func (f *Flow) Decide(i *Instance, by ID, said What, people People, at time.Time) error {
	if err := f.ready(i, by, at); err != nil {
		return err
	}
	if said != Agreed && said != Disagreed {
		return refuse("said", "unknown_value")
	}
	p := i.Pending
	if p == nil {
		return &crm.TransitionError{Type: crm.TypeInstance, From: "free", To: "decided"}
	}
	switch {
	case !slices.Contains(p.Approvers, by) || by == p.By:
		return refuse("by", "not_approver")
	case slices.Contains(p.Agreed, by) || slices.Contains(p.Disagreed, by):
		return refuse("by", "repeated")
	}
	s, ok := f.Step(i.State, p.Step)
	if !ok || p.Stage < 0 || p.Stage >= len(s.Approvals) {
		return refuse("pending", "bad_reference")
	}
	next := i.copy()
	next.UpdatedAt = at
	if said == Agreed {
		next.Pending.Agreed = append(next.Pending.Agreed, by)
	} else {
		next.Pending.Disagreed = append(next.Pending.Disagreed, by)
	}
	next.History = append(next.History, Event{At: at, What: said, By: by, Step: p.Step, From: i.State})
	switch {
	case len(next.Pending.Agreed) >= p.Need:
		if err := f.stage(next, s, people, at); err != nil {
			return err
		}
	case len(p.Approvers)-len(next.Pending.Disagreed) < p.Need:
		next.drop(Refused, by, at)
	}
	*i = *next
	return nil
}

// drop ends what is waited for; the record stays in its state.
func (i *Instance) drop(what What, by ID, at time.Time) {
	i.History = append(i.History, Event{At: at, What: what, By: by, Step: i.Pending.Step, From: i.State})
	i.Pending, i.DueAt = nil, time.Time{}
}

// Withdraw takes a question back in the name of who asked it. A *crm.TransitionError when nothing is waited for, a *crm.InvalidError with the rule mismatch for
// somebody else.
func (f *Flow) Withdraw(i *Instance, by ID, at time.Time) error {
	if err := f.ready(i, by, at); err != nil {
		return err
	}
	if i.Pending == nil {
		return &crm.TransitionError{Type: crm.TypeInstance, From: "free", To: string(Withdrawn)}
	}
	if i.Pending.By != by {
		return refuse("by", "mismatch")
	}
	next := i.copy()
	next.UpdatedAt = at
	next.drop(Withdrawn, by, at)
	*i = *next
	return nil
}

// Expire does what is due at a time: an approval that is late is refused, or goes to the next superior with as much time again. It tells whether
// anything happened.
func (f *Flow) Expire(i *Instance, people People, at time.Time) bool {
	p := i.Pending
	if p == nil || i.Flow != f.ID || p.DueAt.IsZero() || at.Before(p.DueAt) || len(i.History) >= maxHistory-1 {
		return false
	}
	s, ok := f.Step(i.State, p.Step)
	next := i.copy()
	next.UpdatedAt = at
	if ok && p.Stage >= 0 && p.Stage < len(s.Approvals) && people != nil {
		if a := s.Approvals[p.Stage]; a.Late == LateEscalate {
			if up := people.Approver(p.By, int(p.Height)+1); !up.IsZero() && up != p.By {
				n := next.Pending
				n.Approvers, n.Need, n.Agreed, n.Disagreed, n.Height = []ID{up}, 1, nil, nil, p.Height+1
				n.DueAt = at.Add(time.Duration(a.Hours) * time.Hour)
				next.DueAt = n.DueAt
				next.History = append(next.History, Event{At: at, What: Escalated, Step: p.Step, From: i.State})
				*i = *next
				return true
			}
		}
	}
	next.drop(Refused, ID{}, at)
	*i = *next
	return true
}
