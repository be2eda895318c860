package sla_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sla"
	"github.com/crmguard/crmguard/crm/worktime"
)

// agreement works 09:00 to 17:00 from Monday to Friday in UTC, but for 1 and 2 October 2026.
func agreement() *sla.Agreement {
	a := &sla.Agreement{
		Name: "standard", AtRisk: 75, Levels: []sla.Level{{After: 50, Tell: "support"}, {After: 100, Tell: "manager"}, {After: 150, Tell: "admin"}},
		Hours:   worktime.Definition{Week: map[string]string{}, Days: map[string]string{"2026-10-01": "", "2026-10-02": ""}},
		Targets: []sla.Target{{Priority: crm.PriorityUrgent, Response: 60, Resolution: 480}, {Priority: crm.PriorityNormal, Resolution: 960}},
	}
	for _, d := range []string{"mon", "tue", "wed", "thu", "fri"} {
		a.Hours.Week[d] = "09:00-17:00"
	}
	return a
}

func at(day, hour, minute int) time.Time {
	return time.Date(2026, 9, day, hour, minute, 0, 0, time.UTC) // 28 September is a Monday; 31 is 1 October
}

func ticket() *crm.Ticket {
	t := crmtest.Ticket(1)
	t.CreatedAt, t.Priority = at(28, 9, 0), crm.PriorityUrgent
	return t
}

func TestStored(t *testing.T) {
	if s, err := guard.Schema[*sla.Agreement](nil); err != nil || s.Type != crm.TypeAgreement {
		t.Errorf("%q, %v", s.Type, err)
	}
}

func TestAgreements(t *testing.T) {
	type a = sla.Agreement
	crmtest.Edits(t, agreement, (*a).Validate,
		crmtest.Breaks(func(*a) {}),
		crmtest.Breaks(func(r *a) { r.Name, r.Targets = "", nil }, "name required", "targets required"),
		crmtest.Breaks(func(r *a) { r.Hours.Zone = crmtest.Secret }, "hours not_hours"),
		crmtest.Breaks(func(r *a) { r.Targets[1].Priority = crm.PriorityUrgent }, "targets.1.priority repeated"),
		crmtest.Breaks(func(r *a) { r.Targets[0].Priority = crmtest.Secret }, "targets.0.priority unknown_value"),
		crmtest.Breaks(func(r *a) { r.Targets[0].Response = -1 }, "targets.0.response out_of_range"),
		crmtest.Breaks(func(r *a) { r.AtRisk = 100 }, "at_risk out_of_range"),
		crmtest.Breaks(func(r *a) { r.Levels[1].After = 50 }, "levels.1.after out_of_range"),
		crmtest.Breaks(func(r *a) { r.Levels[2].Tell = "" }, "levels.2.tell required"),
	)
}

// TestItem08Tickets: deadlines of tickets for answer and solution in business hours, with pauses, reopening, and who is told when they are at risk or
// missed.
func TestItem08Tickets(t *testing.T) {
	a := agreement()
	check := func(what string, k *crm.Ticket, now time.Time, response, resolution sla.State, level int, due time.Time) {
		t.Helper()
		if err := k.Validate(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		s, err := a.Status(k, now)
		if err != nil || s.Response.State != response || s.Resolution.State != resolution || s.Level != level || !s.Resolution.DueAt.Equal(due) {
			t.Errorf("%s: %+v, %v", what, s, err)
		}
	}
	k := ticket()
	evening := at(28, 17, 0)
	check("new", k, at(28, 9, 0), sla.Running, sla.Running, 0, evening)
	check("half of the response", k, at(28, 9, 30), sla.Running, sla.Running, 1, evening)
	check("at risk", k, at(28, 9, 45), sla.AtRisk, sla.Running, 1, evening)
	check("to the minute", k, at(28, 10, 0), sla.AtRisk, sla.Running, 2, evening)
	check("not answered", k, at(28, 10, 1), sla.Breached, sla.Running, 2, evening)
	check("long not answered", k, at(28, 10, 30), sla.Breached, sla.Running, 3, evening)

	crmtest.Broken(t, "answered before it came", k.Respond(at(27, 9, 0)), "responded_at too_early")
	late := *k
	if err := late.Respond(at(28, 10, 30)); err != nil {
		t.Fatal(err)
	}
	check("answered late", &late, at(28, 10, 30), sla.Missed, sla.Running, 0, evening)
	if err := errors.Join(k.Respond(at(28, 9, 20)), k.Respond(at(28, 12, 0))); err != nil || !k.RespondedAt.Equal(at(28, 9, 20)) {
		t.Fatal(err)
	}
	check("before the answer", k, at(28, 9, 10), sla.Running, sla.Running, 0, evening)
	check("answered", k, at(28, 12, 0), sla.Met, sla.Running, 0, evening)

	// A solution without an answer before it is the answer, however long it is ago.
	quick := ticket()
	if err := errors.Join(quick.Move(crm.TicketResolved, at(28, 9, 10)), quick.Move(crm.TicketClosed, at(28, 9, 20))); err != nil {
		t.Fatal(err)
	}
	check("solved at once", quick, at(30, 12, 0), sla.Met, sla.Met, 0, evening)
	old := *quick // as it was stored before a solution noted an answer
	old.RespondedAt = time.Time{}
	check("solved at once, long ago", &old, at(30, 12, 0), sla.Met, sla.Met, 0, evening)
	slow := ticket()
	if err := slow.Move(crm.TicketResolved, at(28, 11, 0)); err != nil {
		t.Fatal(err)
	}
	check("solved, but the answer was late", slow, at(30, 12, 0), sla.Missed, sla.Met, 0, evening)

	// Waiting over the holiday of Thursday and Friday costs the business hours that it took only.
	if err := k.Move(crm.TicketWaiting, at(30, 9, 0)); err != nil {
		t.Fatal(err)
	}
	check("late already", k, at(30, 12, 0), sla.Met, sla.Breached, 3, evening)
	k = ticket()
	k.RespondedAt = at(28, 9, 5)
	if err := k.Move(crm.TicketWaiting, at(28, 16, 0)); err != nil {
		t.Fatal(err)
	}
	check("waits, nobody knows until when", k, at(30, 12, 0), sla.Met, sla.Paused, 1, time.Time{})
	prev := *k
	if err := errors.Join(k.Move(crm.TicketOpen, at(35, 10, 0)), k.CheckUpdate(&prev)); err != nil { // Monday, 5 October
		t.Fatal(err)
	}
	check("goes on", k, at(35, 10, 30), sla.Met, sla.AtRisk, 1, at(35, 11, 0))
	check("in the pause, asked later", k, at(30, 12, 0), sla.Met, sla.Paused, 1, at(35, 11, 0))
	if k.Reopened != 0 {
		t.Error("waiting counts as a reopening")
	}
	if err := k.Move(crm.TicketResolved, at(35, 10, 45)); err != nil {
		t.Fatal(err)
	}
	check("resolved", k, at(36, 9, 0), sla.Met, sla.Met, 0, at(35, 11, 0))
	if err := errors.Join(k.Move(crm.TicketClosed, at(35, 12, 0)), k.Move(crm.TicketOpen, at(36, 9, 0))); err != nil {
		t.Fatal(err)
	}
	check("reopened, with the quarter of an hour that was left", k, at(36, 9, 10), sla.Met, sla.AtRisk, 1, at(36, 9, 15))
	check("and late", k, at(36, 9, 16), sla.Met, sla.Breached, 2, at(36, 9, 15))

	// Who is told.
	s, err := a.Status(k, at(36, 9, 16))
	if err != nil || !slices.Equal(s.Tell(a, k), []string{"support", "manager"}) {
		t.Errorf("%v, %v", s.Tell(a, k), err)
	}
	k.Escalated = 1
	if got := s.Tell(a, k); !slices.Equal(got, []string{"manager"}) {
		t.Errorf("%v", got)
	}
	k.Escalated = 2
	if got := s.Tell(a, k); got != nil {
		t.Errorf("%v", got)
	}

	normal, low := ticket(), ticket()
	normal.Priority, low.Priority = crm.PriorityNormal, crm.PriorityLow
	check("no response promised", normal, at(28, 17, 0), sla.None, sla.Running, 1, at(29, 17, 0))
	check("nothing promised", low, at(28, 17, 0), sla.None, sla.None, 0, time.Time{})

	// Refusals.
	crmtest.Stays(t, "answered when closed", func() error { c := ticket(); c.State = crm.TicketClosed; return c.Respond(at(28, 10, 0)) }(), "closed", "responded")
	waiting := ticket()
	_ = waiting.Move(crm.TicketWaiting, at(28, 12, 0))
	crmtest.Stays(t, "waits twice", waiting.Move(crm.TicketWaiting, at(28, 13, 0)), "waiting", "waiting")
	crmtest.Stays(t, "closed while it waits", waiting.Move(crm.TicketClosed, at(28, 13, 0)), "waiting", "closed")
	crmtest.Broken(t, "back before it began", waiting.Move(crm.TicketOpen, at(28, 11, 0)), "pauses before_start")
	type w = crm.Ticket
	crmtest.Edits(t, func() *w { c := *waiting; return &c }, (*w).Validate,
		crmtest.Breaks(func(*w) {}),
		crmtest.Breaks(func(r *w) { r.State = crm.TicketOpen }, "pauses mismatch"),
		crmtest.Breaks(func(r *w) { r.Pauses = nil }, "pauses mismatch"),
		crmtest.Breaks(func(r *w) { r.Pauses = []worktime.Pause{{From: at(28, 9, 0)}, {From: at(28, 12, 0)}} }, "pauses.0 required"),
		crmtest.Breaks(func(r *w) { r.Escalated = -1 }, "escalated negative"),
	)
	answered := *waiting
	answered.RespondedAt = at(28, 10, 0)
	crmtest.Fixed(t, &answered, (*w).CheckUpdate, map[string]func(*w){
		"responded_at fixed": func(r *w) { r.RespondedAt = at(28, 9, 1) },
		"pauses fixed":       func(r *w) { r.Pauses = []worktime.Pause{{From: at(28, 9, 0)}} },
	})
	broken := agreement()
	broken.Hours.Zone = "Nowhere/Town"
	if _, err := broken.Status(ticket(), at(28, 9, 0)); !errors.Is(err, worktime.ErrDefinition) {
		t.Error(err)
	}
	never := agreement()
	never.Hours.Week = nil
	if _, err := never.Status(ticket(), at(28, 9, 0)); !errors.Is(err, worktime.ErrNever) {
		t.Error(err)
	}
}

func ExampleAgreement_Status() {
	a := agreement()
	k := ticket() // urgent, Monday 09:00
	s, err := a.Status(k, at(28, 9, 50))
	fmt.Println(s.Response.State, s.Response.Left, s.Resolution.DueAt.Format("15:04"), s.Tell(a, k), err)
	// Output: at_risk 10m0s 17:00 [support] <nil>
}
