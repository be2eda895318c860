// Package authztest holds the conformance suite for an authz.Authorizer that implements the shipped
// rights: a small corpus of requests and answers, denials outnumbering permissions.
package authztest

import (
	"slices"
	"testing"

	"github.com/crmguard/crmguard/authz"
)

// Case is one request with its answer.
type Case struct {
	Name    string
	Request authz.Request
	Allowed bool
	Control string       // one of the controls that the decision names
	Phone   authz.Access // what is seen of a field of class personal named phone

	Obligations []authz.Obligation // all of them, in order; nil: what they are does not matter
}

// Corpus returns the cases of rights, which hold at any time and from anywhere. See also Controls.
func Corpus() []Case {
	sales := authz.Subject{ID: "e1", Tenant: "t", Roles: []string{"sales"}, Team: "/east/1/", Active: true}
	manager := authz.Subject{ID: "e2", Tenant: "t", Roles: []string{"manager"}, Team: "/east/", Active: true}
	admin := authz.Subject{ID: "e3", Tenant: "t", Roles: []string{"admin"}, Active: true}
	auditor := authz.Subject{ID: "e4", Tenant: "t", Roles: []string{"auditor"}, Active: true}
	left := sales
	left.Active = false
	stranger := sales
	stranger.Tenant = "u"
	none := sales
	none.Roles = nil
	own := authz.Resource{Tenant: "t", Type: "customer", ID: "c1", Owner: "e1", Team: "/east/1/", State: "new"}
	other := own
	other.Owner = "e9"
	west := other
	west.Team = "/west/"
	free := authz.Resource{Tenant: "t", Type: "customer", ID: "c2", Team: "/west/", State: "new", Pool: "p1"}
	member := sales
	member.Pools = []string{"p0", "p1"}
	ask := func(s authz.Subject, a authz.Action, r authz.Resource) authz.Request {
		return authz.Request{Subject: s, Action: a, Resource: r}
	}
	accepted := authz.Resource{Tenant: "t", Type: "quote", ID: "q1", Owner: "e1", Team: "/east/1/", State: "accepted"}
	return []Case{
		{"own record, list", ask(sales, authz.List, own), true, "rbac.own", authz.Masked, []authz.Obligation{}},
		{"own record, reveal", ask(sales, authz.Reveal, own), true, "rbac.own", authz.Open, []authz.Obligation{authz.NeedReason}},
		{"the team's record", ask(manager, authz.Read, other), true, "rbac.team", authz.Open, nil},
		{"any record, as administrator", ask(admin, authz.Read, west), true, "rbac.all", authz.Open, nil},
		{"any record, as auditor", ask(auditor, authz.Read, west), true, "rbac.all", authz.Hidden, nil},
		{"a free record of one's pool", ask(member, authz.Claim, free), true, "rbac.pool", authz.Masked, []authz.Obligation{}},
		{"a free record of another pool", ask(sales, authz.Claim, free), false, "access.granted", authz.Hidden, nil},
		{"a free record before the claim", ask(member, authz.Read, free), false, "access.granted", authz.Hidden, nil},
		{"another's record", ask(sales, authz.Read, other), false, "access.granted", authz.Hidden, nil},
		{"another team's record", ask(manager, authz.Read, west), false, "access.granted", authz.Hidden, nil},
		{"an export by sales", ask(sales, authz.Export, own), false, "access.granted", authz.Hidden, nil},
		{"a change by an auditor", ask(auditor, authz.Update, own), false, "access.granted", authz.Hidden, nil},
		{"a reveal by an auditor", ask(auditor, authz.Reveal, own), false, "access.granted", authz.Hidden, nil},
		{"who has left", ask(left, authz.Read, own), false, "active.subject", authz.Hidden, nil},
		{"another tenant", ask(stranger, authz.Read, own), false, "tenant.same", authz.Hidden, nil},
		{"no role", ask(none, authz.Read, own), false, "access.granted", authz.Hidden, nil},
		{"a frozen record", ask(sales, authz.Update, accepted), false, "frozen.state", authz.Hidden, nil},
		{"a frozen record, as administrator", ask(admin, authz.Update, accepted), false, "frozen.state", authz.Hidden, nil},
		{"an unknown action", ask(admin, "shred", own), false, "access.granted", authz.Hidden, nil},
		{"an unknown type", ask(admin, authz.Read, authz.Resource{Tenant: "t", Type: "payroll"}), false, "access.granted", authz.Hidden, nil},
		{"nothing at all", authz.Request{}, false, "active.subject", authz.Hidden, nil},
	}
}

// TestAuthorizer runs Corpus and Controls.
func TestAuthorizer(t *testing.T, a authz.Authorizer) { Run(t, a, slices.Concat(Corpus(), Controls())) }

// Run asks for each case, by Decide and by Filter.
func Run(t *testing.T, a authz.Authorizer, cases []Case) {
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			d, err := a.Decide(t.Context(), c.Request)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed != c.Allowed {
				t.Fatalf("allowed is %v", d.Allowed)
			}
			if !slices.Contains(d.Controls, c.Control) {
				t.Errorf("controls are %v, want %s among them", d.Controls, c.Control)
			}
			if got := d.Fields.Access("phone", "personal"); got != c.Phone {
				t.Errorf("phone is %v, want %v", got, c.Phone)
			}
			if d.Fields.Access("phone", "no such class") != authz.Hidden {
				t.Error("a field of an unknown class is not hidden")
			}
			if !c.Allowed && d.Proceed() == nil {
				t.Error("a denial proceeds")
			}
			if c.Obligations != nil && !slices.Equal(d.Obligations, c.Obligations) {
				t.Errorf("obligations are %v, want %v", d.Obligations, c.Obligations)
			}
			f, err := a.Filter(t.Context(), c.Request)
			if err != nil {
				t.Fatal(err)
			}
			if f.Admit()(&c.Request.Resource) != c.Allowed {
				t.Errorf("a list answers otherwise: it shows %v", f)
			}
		})
	}
}
