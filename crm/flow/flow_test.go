package flow_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/flow"
	"github.com/crmguard/crmguard/crm/form"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/org"
)

var (
	start   = crmtest.Start()
	top     = crmtest.EmployeeID(0)
	manager = crmtest.EmployeeID(1)
	asker   = crmtest.EmployeeID(2)
	fin1    = crmtest.EmployeeID(3)
	fin2    = crmtest.EmployeeID(4)
	fin3    = crmtest.EmployeeID(5)
	nobody  flow.ID
)

// people: top is above manager, who is above asker and the three of finance.
func people(t testing.TB) *org.Tree {
	t.Helper()
	var list []*crm.Employee
	for i := range 6 {
		e := crmtest.Employee(i)
		switch i {
		case 0:
			e.Owner = nobody
		case 1:
			e.Owner = top
		default:
			e.Owner = manager
		}
		list = append(list, e)
	}
	x, err := org.New(list)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func at(hour int) time.Time { return start.Add(time.Duration(hour) * time.Hour) }

// discount is a flow of tickets: draft, then review with approvals for large amounts, then done or dropped.
func discount() *flow.Flow {
	return &flow.Flow{
		Meta: crm.Meta[flow.Flow]{ID: crm.ID[flow.Flow]{1}}, Key: "discount", Titles: map[string]string{"en": "Discount"}, For: crm.TypeTicket, Revision: 1, Status: flow.Draft,
		States: []flow.State{{Name: "open", Place: flow.Start}, {Name: "review", Place: flow.Middle}, {Name: "done", Place: flow.End}, {Name: "dropped", Place: flow.End}},
		Steps: []flow.Step{
			{Name: "submit", From: "open", To: "review", When: flow.Condition{Field: "amount", Op: flow.Greater, Values: []string{"0"}}},
			{Name: "back", From: "review", To: "open"},
			{Name: "drop", From: "open", To: "dropped"},
			{Name: "grant", From: "review", To: "done", When: flow.Condition{Field: "amount", Op: flow.AtMost, Values: []string{"1000"}},
				Approvals: []flow.Approval{{Who: flow.Superior, Height: 1, Hours: 24, Late: flow.LateEscalate}}},
			{Name: "grant_large", From: "review", To: "done",
				Approvals: []flow.Approval{
					{Who: flow.Superior, Height: 2},
					{Who: flow.AnyOf, People: []flow.ID{fin1, fin2, fin3, asker}, Need: 2, Hours: 48, Late: flow.LateRefuse},
					{Who: flow.AllOf, People: []flow.ID{manager, top}},
				}},
		},
	}
}

func running(t testing.TB) (*flow.Flow, *flow.Instance) {
	t.Helper()
	f := discount()
	if err := f.Move(flow.Published, start); err != nil {
		t.Fatal(err)
	}
	i, err := f.Begin(crm.ID[flow.Instance]{2}, crm.TypeTicket, crm.UUID{3}, asker, at(0))
	if err != nil {
		t.Fatal(err)
	}
	return f, i
}

func amount(s string) func(string) string {
	return func(field string) string {
		if field == "amount" {
			return s
		}
		return ""
	}
}

func TestStored(t *testing.T) {
	for want, schema := range map[string]func(*guard.TypeOptions) (crm.Schema, error){
		crm.TypeFlow: guard.Schema[*flow.Flow], crm.TypeInstance: guard.Schema[*flow.Instance],
	} {
		if s, err := schema(nil); err != nil || s.Type != want {
			t.Errorf("%s: %q, %v", want, s.Type, err)
		}
	}
}

// TestItem08FlowsThatAreRefused: a flow without a way in or out, with states nobody reaches, steps that end nowhere or approvals that nobody can give
// is refused by name.
func TestItem08FlowsThatAreRefused(t *testing.T) {
	type f = flow.Flow
	crmtest.Edits(t, discount, (*f).Validate,
		crmtest.Breaks(func(*f) {}),
		crmtest.Breaks(func(r *f) { r.Key, r.For, r.Titles = "", "", nil }, "key unknown_value", "for unknown_value", "titles required"),
		crmtest.Breaks(func(r *f) { r.States[0].Place = flow.Middle }, "states required"),
		crmtest.Breaks(func(r *f) { r.States[1].Place = flow.Start }, "states.1.place repeated"),
		crmtest.Breaks(func(r *f) { r.States[2].Place, r.States[3].Place = flow.Middle, flow.Middle }, "states required"),
		crmtest.Breaks(func(r *f) { r.States[2].Place = flow.Start; r.Steps = r.Steps[:3] }, "states.2.place repeated"),
		crmtest.Breaks(func(r *f) { r.States[1].Name = "open" }, "states.1.name repeated", "steps.0.to bad_reference", "steps.1.from bad_reference",
			"steps.3.from bad_reference", "steps.4.from bad_reference"),
		crmtest.Breaks(func(r *f) { r.States[1].Place = crmtest.Secret }, "states.1.place unknown_value"),
		// A state that nothing leads to, and cycles without a way out.
		crmtest.Breaks(func(r *f) { r.States = append(r.States, flow.State{Name: "island", Place: flow.End}) }, "states.4 unreachable"),
		crmtest.Breaks(func(r *f) { r.Steps = r.Steps[:3] }, "states.2 unreachable"),
		crmtest.Breaks(func(r *f) {
			r.States = append(r.States, flow.State{Name: "a", Place: flow.Middle}, flow.State{Name: "b", Place: flow.Middle})
			r.Steps = append(r.Steps, flow.Step{Name: "in", From: "open", To: "a"}, flow.Step{Name: "on", From: "a", To: "b"}, flow.Step{Name: "round", From: "b", To: "a"})
		}, "states.4 endless", "states.5 endless"),
		crmtest.Breaks(func(r *f) {
			r.States = append(r.States, flow.State{Name: "trap", Place: flow.Middle})
			r.Steps = append(r.Steps, flow.Step{Name: "fall", From: "open", To: "trap"})
		}, "states.4 endless"),
		crmtest.Breaks(func(r *f) { r.Steps = append(r.Steps, flow.Step{Name: "again", From: "done", To: "open"}) }, "steps.5.from fixed"),
		crmtest.Breaks(func(r *f) { r.Steps[1].Name = "grant" }, "steps.3.name repeated"),
		crmtest.Breaks(func(r *f) { r.Steps[2].To = crmtest.Secret }, "steps.2.to bad_reference"),
		// Approvers that lack.
		crmtest.Breaks(func(r *f) { r.Steps[4].Approvals[1].People = nil }, "steps.4.approvals.1.people required"),
		crmtest.Breaks(func(r *f) { r.Steps[4].Approvals[1].Need = 0 }, "steps.4.approvals.1.need out_of_range"),
		crmtest.Breaks(func(r *f) { r.Steps[4].Approvals[1].Need = 5 }, "steps.4.approvals.1.need out_of_range"),
		crmtest.Breaks(func(r *f) { r.Steps[4].Approvals[2].People = []flow.ID{top, top} }, "steps.4.approvals.2.people repeated"),
		crmtest.Breaks(func(r *f) { r.Steps[4].Approvals[2].Who = "" }, "steps.4.approvals.2.who required"),
		crmtest.Breaks(func(r *f) { r.Steps[3].Approvals[0].Height = 0 }, "steps.3.approvals.0.height out_of_range"),
		crmtest.Breaks(func(r *f) { r.Steps[3].Approvals[0].Late = "" }, "steps.3.approvals.0.late required"),
		crmtest.Breaks(func(r *f) { r.Steps[4].Approvals[0].Late = flow.LateRefuse }, "steps.4.approvals.0.late mismatch"),
		// Conditions that are none.
		crmtest.Breaks(func(r *f) { r.Steps[0].When.Op = "exec" }, "steps.0.when unknown_value"),
		crmtest.Breaks(func(r *f) { r.Steps[0].When.Values = nil }, "steps.0.when mismatch"),
		crmtest.Breaks(func(r *f) { r.Steps[0].When.All = []flow.Condition{{}} }, "steps.0.when unknown_value"),
		crmtest.Breaks(func(r *f) {
			for range flow.MaxDepth {
				inner := r.Steps[0].When
				r.Steps[0].When = flow.Condition{Not: &inner}
			}
		}, "steps.0.when too_long"),
	)
	// A condition reads neither what does not exist nor what is personal.
	fields := []form.Field{{Name: "amount", Class: form.Internal}}
	if err := discount().CheckForm(fields); err != nil {
		t.Error(err)
	}
	fields[0].Class = form.Personal
	crmtest.Broken(t, "a condition on personal data", discount().CheckForm(fields), "steps.0.when bad_reference", "steps.3.when bad_reference")
	crmtest.Broken(t, "a condition on nothing", discount().CheckForm(nil), "steps.0.when bad_reference", "steps.3.when bad_reference")
	if err := discount().CheckForm(nil, "amount"); err != nil {
		t.Error(err)
	}

	g := discount()
	if err := g.Move(flow.Published, start); err != nil {
		t.Fatal(err)
	}
	crmtest.Stays(t, "a draft again", discount().CheckUpdate(g), "published", "draft")
	crmtest.Fixed(t, g, (*f).CheckUpdate, map[string]func(*f){
		"steps fixed": func(r *f) {
			r.Steps = slices.Clone(r.Steps)
			r.Steps[0].When.Values = []string{"5"}
		},
		"states fixed": func(r *f) { r.States = r.States[1:] },
		"key fixed":    func(r *f) { r.Revision = 2 },
	})
}

// TestItem08Flows: a flow goes from step to step where conditions hold and approvers say so: the superior, several people of whom enough agree, or
// all, in stages, with deadlines that refuse or move on.
func TestItem08Flows(t *testing.T) {
	who := people(t)
	f, i := running(t)
	names := func(list []flow.Step) (out []string) {
		for _, s := range list {
			out = append(out, s.Name)
		}
		return out
	}
	if got := names(f.Next(i, amount("500"))); !slices.Equal(got, []string{"submit", "drop"}) {
		t.Errorf("%v", got)
	}
	if got := names(f.Next(i, amount("0"))); !slices.Equal(got, []string{"drop"}) {
		t.Errorf("%v", got)
	}
	crmtest.Broken(t, "the condition does not hold", f.Ask(i, "submit", asker, amount("0"), who, at(1)), "when unmet")
	crmtest.Stays(t, "no such step", f.Ask(i, crmtest.Secret, asker, amount("1"), who, at(1)), "open", "unknown")
	crmtest.Stays(t, "a step of another state", f.Ask(i, "grant", asker, amount("1"), who, at(1)), "open", "unknown")
	crmtest.Broken(t, "by nobody", f.Ask(i, "submit", nobody, amount("1"), who, at(1)), "by required")
	crmtest.Broken(t, "before it began", f.Ask(i, "submit", asker, amount("1"), who, at(-1)), "at before_start")
	if err := f.Ask(i, "submit", asker, amount("500"), who, at(1)); err != nil || i.State != "review" {
		t.Fatal(err)
	}

	// The manager of the asker.
	ask := func(step string, hour int) {
		t.Helper()
		prev := *i
		if err := errors.Join(f.Ask(i, step, asker, amount("500"), who, at(hour)), i.Validate(), i.CheckUpdate(&prev)); err != nil || i.Pending == nil {
			t.Fatal(err)
		}
	}
	ask("grant", 2)
	if !slices.Equal(i.Pending.Approvers, []flow.ID{manager}) || !i.DueAt.Equal(at(26)) || f.Next(i, amount("500")) != nil {
		t.Errorf("%+v", i.Pending)
	}
	crmtest.Stays(t, "asked while something is waited for", f.Ask(i, "back", asker, amount("1"), who, at(3)), "review", "open")
	crmtest.Broken(t, "by who asked", f.Decide(i, asker, flow.Agreed, who, at(3)), "by not_approver")
	crmtest.Broken(t, "by who is above", f.Decide(i, top, flow.Agreed, who, at(3)), "by not_approver")
	crmtest.Broken(t, "neither yes nor no", f.Decide(i, manager, flow.Moved, who, at(3)), "said unknown_value")
	crmtest.Broken(t, "withdrawn by another", f.Withdraw(i, manager, at(3)), "by mismatch")
	if err := f.Withdraw(i, asker, at(3)); err != nil || i.Pending != nil || i.State != "review" {
		t.Fatal(err)
	}
	crmtest.Stays(t, "withdrawn twice", f.Withdraw(i, asker, at(3)), "free", "withdrawn")
	ask("grant", 4)
	if err := f.Decide(i, manager, flow.Disagreed, who, at(5)); err != nil || i.Pending != nil || i.State != "review" || !i.DueAt.IsZero() {
		t.Fatal(err)
	}
	crmtest.Stays(t, "decided when nothing is asked", f.Decide(i, manager, flow.Agreed, who, at(5)), "free", "decided")

	// Late: to the next superior, and above the last it is refused.
	ask("grant", 6)
	if f.Expire(i, who, at(29)) {
		t.Error("late too early")
	}
	if !f.Expire(i, who, at(30)) || !slices.Equal(i.Pending.Approvers, []flow.ID{top}) || !i.DueAt.Equal(at(54)) {
		t.Fatalf("%+v", i.Pending)
	}
	crmtest.Broken(t, "by who was too late", f.Decide(i, manager, flow.Agreed, who, at(31)), "by not_approver")
	if !f.Expire(i, who, at(54)) || i.Pending != nil || i.State != "review" || i.History[len(i.History)-1].What != flow.Refused {
		t.Fatalf("%+v", i.Pending)
	}

	// Three approvals: two above, two of three without the asker, all of two.
	ask("grant_large", 60)
	if !slices.Equal(i.Pending.Approvers, []flow.ID{top}) {
		t.Fatalf("%+v", i.Pending)
	}
	say := func(by flow.ID, said flow.What, hour int) {
		t.Helper()
		prev := *i
		if err := errors.Join(f.Decide(i, by, said, who, at(hour)), i.Validate(), i.CheckUpdate(&prev)); err != nil {
			t.Fatal(err)
		}
	}
	say(top, flow.Agreed, 61)
	if !slices.Equal(i.Pending.Approvers, []flow.ID{fin1, fin2, fin3}) || i.Pending.Need != 2 {
		t.Fatalf("%+v", i.Pending)
	}
	say(fin1, flow.Disagreed, 62)
	crmtest.Broken(t, "twice", f.Decide(i, fin1, flow.Agreed, who, at(62)), "by repeated")
	say(fin2, flow.Agreed, 63)
	say(fin3, flow.Agreed, 64)
	if i.Pending.Stage != 2 || i.Pending.Need != 2 || !i.DueAt.IsZero() {
		t.Fatalf("%+v", i.Pending)
	}
	say(manager, flow.Agreed, 65)
	say(top, flow.Agreed, 66)
	if i.State != "done" || !i.EndedAt.Equal(at(66)) || i.Pending != nil {
		t.Fatalf("%+v", i)
	}
	crmtest.Stays(t, "after the end", f.Ask(i, "drop", asker, amount("1"), who, at(67)), "done", "unknown")
	crmtest.Fixed(t, i, (*flow.Instance).CheckUpdate, map[string]func(*flow.Instance){
		"state fixed": func(i *flow.Instance) { i.State = "open" },
		"history fixed": func(i *flow.Instance) {
			i.History = slices.Clone(i.History)
			i.History[3].By = top
		},
		"subject fixed": func(i *flow.Instance) { i.Subject = crm.UUID{9} },
	})

	// One no is enough where all are asked, two where two of three are.
	for _, c := range []struct {
		name string
		said []flow.What // of top, fin1, fin2, manager
		end  string
	}{
		{"all", []flow.What{flow.Agreed, flow.Agreed, flow.Agreed, flow.Disagreed}, "review"},
		{"any", []flow.What{flow.Agreed, flow.Disagreed, flow.Disagreed}, "review"},
		{"superior", []flow.What{flow.Disagreed}, "review"},
	} {
		f, i = running(t)
		if err := f.Ask(i, "submit", asker, amount("500"), who, at(1)); err != nil {
			t.Fatal(err)
		}
		ask("grant_large", 2)
		for n, said := range c.said {
			say([]flow.ID{top, fin1, fin2, manager}[n], said, 3+n)
		}
		if i.State != c.end || i.Pending != nil || i.History[len(i.History)-1].What != flow.Refused {
			t.Errorf("%s: %s, %+v", c.name, i.State, i.Pending)
		}
	}

	// Nobody who could approve.
	f, i = running(t)
	if err := f.Ask(i, "submit", asker, amount("500"), who, at(1)); err != nil {
		t.Fatal(err)
	}
	crmtest.Broken(t, "nobody is above the top", f.Ask(i, "grant", top, amount("500"), who, at(2)), "approvals no_approver")
	crmtest.Broken(t, "nobody knows who is above", f.Ask(i, "grant", asker, amount("500"), nil, at(2)), "approvals no_approver")
	if i.Pending != nil || len(i.History) != 2 {
		t.Error("a refused question was noted")
	}

	// Beginnings.
	_, err := discount().Begin(crm.ID[flow.Instance]{2}, crm.TypeTicket, crm.UUID{3}, asker, start)
	crmtest.Stays(t, "a draft", err, "draft", "started")
	_, err = f.Begin(crm.ID[flow.Instance]{}, crm.TypeLead, crm.UUID{}, asker, start)
	crmtest.Broken(t, "no id, nothing, of another type", err, "id required", "subject required", "subject_type mismatch")
	other := discount()
	other.ID = crm.ID[flow.Flow]{7}
	crmtest.Broken(t, "another flow", other.Ask(i, "back", asker, amount("1"), who, at(3)), "flow mismatch")
}

func TestConditions(t *testing.T) {
	values := map[string]string{"n": "10", "s": "b", "d": "2026-03-31", "list": "a,c", "neg": "-2.5"}
	for text, want := range map[string]bool{
		`{}`: true,
		`{"field":"n","op":"eq","values":["10.0"]}`: true, `{"field":"n","op":"eq","values":["1e1"]}`: false, `{"field":"n","op":"gt","values":["9"]}`: true,
		`{"field":"n","op":"lt","values":["9"]}`: false, `{"field":"n","op":"ge","values":["10"]}`: true, `{"field":"n","op":"le","values":["9.99"]}`: false,
		`{"field":"neg","op":"lt","values":["-2"]}`: true, `{"field":"s","op":"gt","values":["a"]}`: true, `{"field":"s","op":"ne","values":["b"]}`: false,
		`{"field":"d","op":"lt","values":["2026-04-01"]}`: true, `{"field":"s","op":"in","values":["a","b"]}`: true, `{"field":"s","op":"in","values":["c"]}`: false,
		`{"field":"list","op":"contains","values":["c"]}`: true, `{"field":"list","op":"contains","values":["b"]}`: false,
		`{"field":"none","op":"empty"}`: true, `{"field":"n","op":"empty"}`: false, `{"field":"n","op":"not_empty"}`: true,
		`{"field":"none","op":"lt","values":["5"]}`: false, `{"field":"none","op":"gt","values":["5"]}`: false, `{"field":"none","op":"ne","values":["5"]}`: true,
		`{"all":[{"field":"n","op":"not_empty"},{"field":"s","op":"eq","values":["b"]}]}`: true,
		`{"all":[{"field":"n","op":"not_empty"},{"field":"s","op":"eq","values":["c"]}]}`: false,
		`{"any":[{"field":"n","op":"empty"},{"field":"s","op":"eq","values":["b"]}]}`:     true,
		`{"not":{"field":"n","op":"empty"}}`:                                              true, `{"not":{"not":{"field":"n","op":"empty"}}}`: false,
		// What is none never holds, not even within a not.
		`{"field":"n"}`: false, `{"field":"n","op":"exec","values":["10"]}`: false, `{"field":"n","op":"eq"}`: false, `{"all":[]}`: true, `{"not":{"field":"n","op":"exec"}}`: false,
		`{"field":"n","op":"eq","values":["10"],"not":{"field":"n","op":"empty"}}`: false, `{"not":{}}`: false,
	} {
		var c flow.Condition
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		if got := c.Holds(func(f string) string { return values[f] }); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// FuzzCondition: whatever is read, asking it neither panics nor takes long, and a valid condition and its negation never both hold.
func FuzzCondition(f *testing.F) {
	f.Add(`{"field":"n","op":"eq","values":["10.0"]}`, "10")
	f.Add(`{"all":[{"not":{"field":"n","op":"in","values":["1","2"]}},{"any":[{"field":"n","op":"gt","values":["-1"]}]}]}`, "1e999999999")
	f.Add(`{"not":{"not":{"field":"n","op":"empty"}}}`, "")
	f.Fuzz(func(t *testing.T, text, value string) {
		var c flow.Condition
		if json.Unmarshal([]byte(text), &c) != nil {
			return
		}
		ask := func(string) string { return value }
		not := flow.Condition{Not: &c}
		if a, b := c.Holds(ask), not.Holds(ask); a && b {
			t.Fatalf("%s holds and does not", text)
		}
		g := discount()
		g.Steps[0].When = c
		if err := g.Validate(); err == nil && strings.Contains(text, `"exec"`) && c.Op == "exec" {
			t.Fatalf("%s is accepted", text)
		}
	})
}

// TestEveryFlowEnds: from whatever state a valid random flow is in, its steps lead to an end.
func TestEveryFlowEnds(t *testing.T) {
	random := rand.New(rand.NewPCG(15, 16))
	var valid, refused int
	for range 3000 {
		f := discount()
		n := 3 + random.IntN(4)
		f.States, f.Steps = nil, nil
		for i := range n {
			place := flow.Middle
			switch {
			case i == 0:
				place = flow.Start
			case i == n-1:
				place = flow.End
			}
			f.States = append(f.States, flow.State{Name: fmt.Sprintf("s%d", i), Place: place})
		}
		for i := range 2 + random.IntN(8) {
			f.Steps = append(f.Steps, flow.Step{Name: fmt.Sprintf("t%d", i), From: fmt.Sprintf("s%d", random.IntN(n-1)), To: fmt.Sprintf("s%d", random.IntN(n))})
		}
		if err := f.Move(flow.Published, start); err != nil {
			refused++
			continue
		}
		valid++
		i, err := f.Begin(crm.ID[flow.Instance]{2}, crm.TypeTicket, crm.UUID{3}, asker, start)
		if err != nil {
			t.Fatal(err)
		}
		for range 500 {
			next := f.Next(i, amount(""))
			if len(next) == 0 {
				break
			}
			if err := f.Ask(i, next[random.IntN(len(next))].Name, asker, amount(""), nil, start); err != nil {
				t.Fatal(err)
			}
		}
		if i.EndedAt.IsZero() {
			t.Fatalf("%+v does not end", f.Steps)
		}
	}
	if valid < 100 || refused < 100 {
		t.Errorf("%d valid, %d refused", valid, refused)
	}
}

func ExampleFlow_Validate() {
	f := discount()
	f.Steps = f.Steps[:3] // nothing grants any more
	fmt.Println(f.Validate())
	// Output: crm: invalid flow: states.2 unreachable
}

func ExampleFlow_Ask() {
	f := discount()
	if err := f.Move(flow.Published, start); err != nil {
		panic(err)
	}
	i, err := f.Begin(crm.NewID[flow.Instance](), crm.TypeTicket, crm.NewUUID(), asker, start)
	if err != nil {
		panic(err)
	}
	fmt.Println(f.Ask(i, "submit", asker, amount("0"), nil, start))
	fmt.Println(f.Ask(i, "submit", asker, amount("500"), nil, start), i.State, len(i.History))
	// Output:
	// crm: invalid instance: when unmet
	// <nil> review 2
}
