package org_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/org"
)

var id = crmtest.EmployeeID

// people are eight employees: 0 above 1 and 2, 1 above 3 and 4, 4 above 5; 6 and 7 above nobody else's. 2 is suspended.
func people() []*crm.Employee {
	var list []*crm.Employee
	for i, superior := range []int{-1, 0, 0, 1, 1, 4, 2, -1} {
		e := crmtest.Employee(i)
		e.Owner = org.ID{}
		if superior >= 0 {
			e.Owner = id(superior)
		}
		list = append(list, e)
	}
	list[2].State = crm.EmployeeSuspended
	return list
}

func tree(t testing.TB) *org.Tree {
	t.Helper()
	x, err := org.New(people())
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func ids(n ...int) []org.ID {
	var list []org.ID
	for _, i := range n {
		list = append(list, id(i))
	}
	return list
}

func TestTree(t *testing.T) {
	x := tree(t)
	for _, c := range []struct{ got, want []org.ID }{
		{x.Chain(id(5)), ids(4, 1, 0)}, {x.Chain(id(0)), nil}, {x.Chain(id(50)), nil},
		{x.Reports(id(1)), ids(3, 4)}, {x.Reports(org.ID{}), ids(0, 7)}, {x.Below(id(1)), ids(3, 4, 5)}, {x.Below(id(7)), nil},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%v, want %v", c.got, c.want)
		}
	}
	if x.Superior(id(4)) != id(1) || !x.Superior(id(0)).IsZero() {
		t.Error("superior")
	}
	if e, ok := x.Employee(id(2)); !ok || e.Active() {
		t.Error("an employee")
	}
	if _, ok := x.Employee(id(50)); ok {
		t.Error("a stranger")
	}
	if !x.Above(id(0), id(5)) || x.Above(id(5), id(0)) || x.Above(id(5), id(5)) || x.Above(org.ID{}, id(5)) {
		t.Error("above")
	}
	// Who is suspended approves nothing.
	if x.Approver(id(6), 1) != id(0) || !x.Approver(id(6), 2).IsZero() || x.Approver(id(5), 2) != id(1) {
		t.Error("approver")
	}

	list := people()
	list[0].Owner = id(5)
	// A cycle that is stored keeps the others from nothing: it is told, and who is in it has nobody above until somebody moves one of them.
	round, err := org.New(list)
	if err != nil {
		t.Fatalf("a cycle: %v", err)
	}
	if c := round.Cycles(); len(c) != 1 || !slices.Equal(c[0].Employees, ids(0, 5, 4, 1)) {
		t.Errorf("a cycle: %v", c)
	}
	for _, n := range []int{0, 1, 4, 5} {
		if !round.Superior(id(n)).IsZero() || round.Chain(id(n)) != nil || !round.Approver(id(n), 1).IsZero() {
			t.Errorf("%d is below somebody of their cycle", n)
		}
	}
	if !slices.Equal(round.Chain(id(3)), ids(1)) || !slices.Equal(round.Reports(id(1)), ids(3)) || !slices.Equal(round.Below(id(1)), ids(3)) || round.Above(id(0), id(5)) {
		t.Errorf("beside a cycle: %v, %v", round.Chain(id(3)), round.Below(id(1)))
	}
	mended := *list[0]
	if err := round.Move(&mended, org.Position{Superior: id(7), Team: list[0].Team, Roles: list[0].Roles}, crmtest.Start()); err != nil {
		t.Errorf("moved out of a cycle: %v", err)
	}
	list[0] = &mended
	if round, err = org.New(list); err != nil || len(round.Cycles()) != 0 || !slices.Equal(round.Chain(id(5)), ids(4, 1, 0, 7)) {
		t.Errorf("mended: %v", err)
	}
	list = people()
	list[7].Owner = id(7)
	if round, err = org.New(list); err != nil || len(round.Cycles()) != 1 || len(round.Cycles()[0].Employees) != 1 || !round.Superior(id(7)).IsZero() {
		t.Errorf("above oneself: %v", err)
	}
	list = people()
	list[3].Owner = id(40)
	_, err = org.New(list)
	crmtest.Broken(t, "a superior who is not there", err, "owner bad_reference")
	_, err = org.New(append(people(), crmtest.Employee(1)))
	crmtest.Broken(t, "twice", err, "id repeated")
	list = people()
	list[6].Owner, list[6].Deleted = id(40), true
	if _, err := org.New(list); err != nil {
		t.Errorf("in the bin: %v", err)
	}
}

// TestItem09Employees: employees move under superiors and between teams without cycles, and who leaves hands over every record and report first.
func TestItem09Employees(t *testing.T) {
	at := crmtest.Start()
	x := tree(t)

	// Moving: team, superior and roles at once.
	e := crmtest.Employee(3)
	e.Roles = []string{"admin", "sales"}
	if err := x.Move(e, org.Position{Superior: id(7), Team: "/west/", Roles: []string{"support"}}, at); err != nil ||
		e.Owner != id(7) || e.Team != "/west/" || !slices.Equal(e.Roles, []string{"support"}) {
		t.Errorf("%+v, %v", e, err)
	}
	for what, c := range map[string]struct {
		to   org.Position
		want string
	}{
		"under themselves":         {org.Position{Superior: id(3)}, "owner bad_reference"},
		"under a stranger":         {org.Position{Superior: id(70)}, "owner bad_reference"},
		"under one who is away":    {org.Position{Superior: id(2)}, "owner bad_reference"},
		"to a team that is none":   {org.Position{Team: crmtest.Secret}, "team unknown_value"},
		"to a role that is none":   {org.Position{Roles: []string{crmtest.Secret}}, "roles unknown_value"},
		"to a role that is theirs": {org.Position{Roles: []string{"sales", "sales"}}, "roles unknown_value"},
	} {
		e := crmtest.Employee(3)
		crmtest.Broken(t, what, x.Move(e, c.to, at), c.want)
		if e.Owner != crmtest.Employee(3).Owner {
			t.Errorf("%s: moved", what)
		}
	}
	var cycle *org.CycleError
	if err := x.Move(people()[1], org.Position{Superior: id(5)}, at); !errors.As(err, &cycle) || !slices.Equal(cycle.Employees, ids(5, 4, 1)) {
		t.Errorf("under a report: %v", err)
	}

	// Leaving: everything that 1 owns gets an owner, and 3 and 4 get a superior.
	owned := []org.Owned{{crm.TypeCustomer, crm.UUID{1}, 3}, {crm.TypeCustomer, crm.UUID{2}, 1}, {crm.TypeLead, crm.UUID{3}, 1}, {crm.TypeTicket, crm.UUID{4}, 1}}
	heirs := org.Heirs{Default: id(0), Types: map[string]org.ID{crm.TypeLead: id(3)}, Records: map[crm.UUID]org.ID{{2}: id(4)}}
	p, err := x.Handover(id(1), owned, heirs)
	if err != nil {
		t.Fatal(err)
	}
	var to []org.ID
	for _, r := range p.Records {
		to = append(to, r.To)
	}
	if !slices.Equal(to, ids(0, 4, 3, 0)) || p.Records[0].Version != 3 || len(p.Reports) != 2 || p.Reports[0].To != id(0) || p.Reports[1].To != id(0) {
		t.Errorf("%+v", p)
	}
	var left *org.LeftOverError
	if _, err := x.Handover(id(1), owned, org.Heirs{Types: heirs.Types}); !errors.As(err, &left) ||
		!maps.Equal(left.Records, map[string]int{crm.TypeCustomer: 2, crm.TypeTicket: 1}) {
		t.Errorf("no heir: %v", err)
	}
	// Above 7 is nobody: its reports would have no superior, unless they are the heirs.
	list := people()
	list[3].Owner, list[5].Owner = id(7), id(3)
	y, err := org.New(list)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := y.Handover(id(7), nil, org.Heirs{}); !errors.As(err, &left) || left.Records[crm.TypeEmployee] != 1 {
		t.Errorf("a report without a superior: %v", err)
	}
	if _, err := y.Handover(id(7), nil, org.Heirs{Default: id(5)}); !errors.As(err, &left) {
		t.Errorf("a report under their own report: %v", err)
	}
	if p, err := y.Handover(id(7), nil, org.Heirs{Default: id(3)}); err != nil || !p.Reports[0].To.IsZero() {
		t.Errorf("the heir is at the top: %+v, %v", p, err)
	}
	for want, edit := range map[string]func(h *org.Heirs, o *[]org.Owned){
		"heirs.default bad_reference": func(h *org.Heirs, _ *[]org.Owned) { h.Default = id(1) },
		"heirs.types bad_reference":   func(h *org.Heirs, _ *[]org.Owned) { h.Types = map[string]org.ID{crm.TypeLead: id(2)} },
		"heirs.records bad_reference": func(h *org.Heirs, _ *[]org.Owned) { h.Records = map[crm.UUID]org.ID{{1}: id(80)} },
		"records repeated":            func(_ *org.Heirs, o *[]org.Owned) { *o = append(*o, org.Owned{Type: crm.TypeLead, ID: crm.UUID{3}}) },
	} {
		h, o := org.Heirs{Default: id(0)}, slices.Clone(owned)
		edit(&h, &o)
		_, err := x.Handover(id(1), o, h)
		crmtest.Broken(t, want, err, want)
	}
	_, err = x.Handover(id(80), nil, heirs)
	crmtest.Broken(t, "a stranger leaves", err, "id bad_reference")

	// The last step.
	leaver := crmtest.Employee(1)
	if err := p.Leave(leaver, owned[:1], at); !errors.As(err, &left) || leaver.State != crm.EmployeeActive {
		t.Errorf("something came meanwhile: %v", err)
	}
	crmtest.Broken(t, "another leaves", p.Leave(crmtest.Employee(2), nil, at), "id mismatch")
	if err := p.Leave(leaver, nil, at.Add(time.Hour)); err != nil || leaver.Active() || leaver.Roles != nil || leaver.Validate() != nil {
		t.Errorf("left: %v", err)
	}
	crmtest.Stays(t, "left twice", p.Leave(leaver, nil, at), "left", "left")
	again := *leaver
	if err := errors.Join(again.Move(crm.EmployeeInvited, at), again.Move(crm.EmployeeActive, at)); err != nil || !again.Left.IsZero() {
		t.Errorf("joins again: %v", err)
	}
}

// TestItem24Scopes: who sees a record in the scopes own, reports, team, team and below, and everything.
func TestItem24Scopes(t *testing.T) {
	list := people()
	for i, team := range []string{"/", "/east/", "/east/", "/east/1/", "/east/1/", "/east/1/a/", "/west/", "/west/"} {
		list[i].Team = team
	}
	list[0].Team = ""
	x, err := org.New(list)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		viewer int
		scope  org.Scope
		owner  int // -1: nobody
		team   string
		want   bool
	}{
		{1, org.Own, 1, "/east/", true}, {1, org.Own, 3, "/east/1/", false}, {1, org.Own, -1, "/east/", false},
		{1, org.Reports, 1, "/east/", true}, {1, org.Reports, 5, "/east/1/a/", true}, {1, org.Reports, 6, "/west/", false}, {3, org.Reports, 1, "/east/", false},
		{1, org.Team, 7, "/east/", true}, {1, org.Team, 3, "/east/1/", false}, {0, org.Team, 7, "", false},
		{1, org.TeamBelow, -1, "/east/1/", true}, {3, org.TeamBelow, 1, "/east/", false}, {1, org.TeamBelow, 6, "/west/", false}, {0, org.TeamBelow, 6, "/west/", false},
		{7, org.Everything, 1, "/east/", true}, {2, org.Everything, 2, "/east/", false}, {70, org.Everything, 1, "/east/", false},
		{1, "SECRET", 1, "/east/", false}, {1, "", 1, "/east/", false},
	} {
		owner := org.ID{}
		if c.owner >= 0 {
			owner = id(c.owner)
		}
		if got := x.Sees(id(c.viewer), c.scope, owner, c.team); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func ExampleTree_Handover() {
	x, err := org.New([]*crm.Employee{crmtest.Employee(0), crmtest.Employee(1), crmtest.Employee(2)})
	if err != nil {
		panic(err)
	}
	owned := []org.Owned{{Type: crm.TypeCustomer, ID: crmtest.CustomerID(1).UUID(), Version: 2}}
	_, err = x.Handover(crmtest.EmployeeID(1), owned, org.Heirs{})
	fmt.Println(err)
	p, err := x.Handover(crmtest.EmployeeID(1), owned, org.Heirs{Default: crmtest.EmployeeID(2)})
	fmt.Println(len(p.Records), p.Records[0].To == crmtest.EmployeeID(2), err)
	// Output:
	// crm: records would have no owner: 1 customer
	// 1 true <nil>
}
