package sla

import (
	"slices"
	"strconv"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/worktime"
)

// Target is what tickets of one priority are promised, in minutes of business time.
type Target struct {
	Priority   crm.Priority `json:"priority"`
	Response   int64        `json:"response"`   // to the first answer; 0: none is promised
	Resolution int64        `json:"resolution"` // 0: none is promised
}

// Level is one level of escalation: who is told when a part of a target is used up.
type Level struct {
	After int64  `json:"after"` // percent of the target: 80 is before it is missed, 150 long after
	Tell  string `json:"tell"`  // a role, such as manager
}

// Agreement is a service level agreement.
type Agreement struct {
	crm.Meta[Agreement]
	Name    string              `protect:"internal,indexed" json:"name"`
	Hours   worktime.Definition `protect:"internal" json:"hours"`
	Targets []Target            `protect:"internal" json:"targets"`
	AtRisk  int64               `protect:"internal" json:"at_risk"` // percent of a target from which a ticket is at risk, 1 to 99
	Levels  []Level             `protect:"internal" json:"levels"`  // After rises
}

// The longest target, in minutes: a year without a pause.
const maxTarget = 366 * 24 * 60

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (a *Agreement) Validate() error {
	v := crm.Checks{Type: crm.TypeAgreement}
	v.Team(a.Team)
	v.Str("name", a.Name, true, crm.MaxName)
	if _, err := a.Hours.Compile(); err != nil {
		v.Add("hours", "not_hours")
	}
	v.Required("targets", len(a.Targets) == 0)
	for i, t := range a.Targets {
		at := "targets." + strconv.Itoa(i)
		v.OneOf(at+".priority", string(t.Priority), string(crm.PriorityLow), string(crm.PriorityNormal), string(crm.PriorityHigh), string(crm.PriorityUrgent))
		v.Range(at+".response", t.Response, 0, maxTarget)
		v.Range(at+".resolution", t.Resolution, 0, maxTarget)
		if slices.ContainsFunc(a.Targets[:i], func(o Target) bool { return o.Priority == t.Priority }) {
			v.Add(at+".priority", "repeated")
		}
	}
	v.Range("at_risk", a.AtRisk, 1, 99)
	last := int64(0)
	for i, l := range a.Levels {
		at := "levels." + strconv.Itoa(i)
		v.Range(at+".after", l.After, last+1, 1000)
		last = l.After
		v.Str(at+".tell", l.Tell, true, 40)
	}
	return v.Err()
}

// State is how one promise stands.
type State string

// The states of a promise.
const (
	None     State = "none"     // nothing is promised
	Running  State = "running"  // there is time
	AtRisk   State = "at_risk"  // little is left
	Paused   State = "paused"   // no time counts
	Breached State = "breached" // it is late and still not done
	Met      State = "met"      // done in time
	Missed   State = "missed"   // done too late
)

// Promise is one promise of a ticket at a time.
type Promise struct {
	State State
	Used  time.Duration // business time that counts so far, or did until it was done
	Left  time.Duration // target less Used; negative when it is late
	DueAt time.Time     // zero when nothing is promised, or while a pause makes it unknown
}

// Status is how a ticket stands at a time.
type Status struct {
	Response   Promise
	Resolution Promise
	Level      int // how many levels of escalation its open promises have reached
}

// Tell returns the roles of the levels that are reached and were not told, the lowest first.
func (s Status) Tell(a *Agreement, t *crm.Ticket) []string {
	var roles []string
	for i := int(max(t.Escalated, 0)); i < s.Level && i < len(a.Levels); i++ {
		roles = append(roles, a.Levels[i].Tell)
	}
	return roles
}

// Status derives how a ticket stands at a time, from its creation, its pauses, its first answer and its resolution. A priority without a
// target promises nothing; a resolution without an answer before it is one. Errors are worktime.ErrDefinition and worktime.ErrNever.
func (a *Agreement) Status(t *crm.Ticket, now time.Time) (Status, error) {
	calendar, err := a.Hours.Compile()
	if err != nil {
		return Status{}, err
	}
	i := slices.IndexFunc(a.Targets, func(x Target) bool { return x.Priority == t.Priority })
	if i < 0 {
		return Status{Response: Promise{State: None}, Resolution: Promise{State: None}}, nil
	}
	var s Status
	responded := t.RespondedAt
	if responded.IsZero() {
		responded = t.ResolvedAt // a solution is an answer
	}
	if s.Response, err = a.promise(calendar, t, a.Targets[i].Response, responded, now); err != nil {
		return Status{}, err
	}
	if s.Resolution, err = a.promise(calendar, t, a.Targets[i].Resolution, t.ResolvedAt, now); err != nil {
		return Status{}, err
	}
	for _, p := range []struct {
		Promise
		minutes int64
	}{{s.Response, a.Targets[i].Response}, {s.Resolution, a.Targets[i].Resolution}} {
		if p.State == None || p.State == Met || p.State == Missed {
			continue
		}
		for n, l := range a.Levels {
			if p.Used >= part(p.minutes, l.After) {
				s.Level = max(s.Level, n+1)
			}
		}
	}
	return s, nil
}

// part returns percent of so many minutes.
func part(minutes, percent int64) time.Duration {
	return time.Duration(minutes) * time.Minute / 100 * time.Duration(percent)
}

// promise derives one promise; done is zero while it is open.
func (a *Agreement) promise(c *worktime.Calendar, t *crm.Ticket, minutes int64, done, now time.Time) (Promise, error) {
	if minutes == 0 {
		return Promise{State: None}, nil
	}
	target := time.Duration(minutes) * time.Minute
	end := now
	if !done.IsZero() && !done.After(now) {
		end = done
	} else {
		done = time.Time{}
	}
	p := Promise{Used: c.Worked(t.CreatedAt, end, t.Pauses...)}
	p.Left = target - p.Used
	due, known, err := c.Due(t.CreatedAt, target, t.Pauses...)
	if err != nil {
		return Promise{}, err
	}
	if known {
		p.DueAt = due
	}
	waits := slices.ContainsFunc(t.Pauses, func(x worktime.Pause) bool {
		return !now.Before(x.From) && (x.To.IsZero() || now.Before(x.To))
	})
	switch {
	case !done.IsZero() && p.Left >= 0:
		p.State = Met
	case !done.IsZero():
		p.State = Missed
	case p.Left < 0:
		p.State = Breached
	case waits:
		p.State = Paused
	case p.Used >= part(minutes, a.AtRisk):
		p.State = AtRisk
	default:
		p.State = Running
	}
	return p, nil
}
