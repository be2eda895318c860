package authztest

import (
	"net/netip"
	"time"

	"github.com/crmguard/crmguard/authz"
)

// Now is the time at which Controls asks, a Monday noon.
var Now = time.Date(2026, time.March, 2, 12, 0, 0, 0, time.UTC)

// Controls returns cases of the single controls: for each permission at least two requests that differ from it in one
// thing, and are refused by the control that they name.
func Controls() []Case {
	soon := Now.Add(time.Hour)
	person := func(id, role, team string) authz.Subject {
		return authz.Subject{ID: id, Tenant: "t", Roles: []string{role}, Team: team, Active: true, Zone: "UTC"}
	}
	base := func(s authz.Subject, a authz.Action, typ, owner string) authz.Request {
		return authz.Request{
			Subject: s, Action: a,
			Resource:    authz.Resource{Tenant: "t", Type: typ, ID: "r1", Owner: owner, Team: "/east/1/", State: "new"},
			Environment: authz.Environment{Time: Now, Addr: netip.MustParseAddr("127.0.0.1")},
		}
	}
	var out []Case
	// allowed adds a permission, and returns how to add refusals that differ from it.
	allowed := func(name string, r authz.Request, control string, phone authz.Access, needs ...authz.Obligation) func(name, control string, change func(*authz.Request)) {
		if needs == nil {
			needs = []authz.Obligation{}
		}
		out = append(out, Case{name, r, true, control, phone, needs})
		return func(but, control string, change func(*authz.Request)) {
			r := r
			change(&r)
			out = append(out, Case{name + ", but " + but, r, false, control, authz.Hidden, nil})
		}
	}
	sales, manager, admin := person("e1", "sales", "/east/1/"), person("e2", "manager", "/east/"), person("e3", "admin", "")

	r := base(sales, authz.Read, "customer", "e1")
	r.Subject.Level, r.Resource.Level = 2, 1
	r.Subject.Compartments, r.Resource.Compartments = []string{"legal", "vip"}, []string{"vip"}
	but := allowed("mac: read down", r, "mac.read", authz.Masked)
	but("the record is above", "mac.read", func(r *authz.Request) { r.Resource.Level = 3 })
	but("the session is below", "mac.read", func(r *authz.Request) { r.Subject.Level = 0 })
	but("one group is not known", "mac.read", func(r *authz.Request) { r.Resource.Compartments = []string{"vip", "hr"} })
	but("written down", "mac.write", func(r *authz.Request) { r.Action = authz.Update })
	r.Action, r.Resource.Level = authz.Update, 2
	but = allowed("mac: write at the own level", r, "mac.write", authz.Open)
	but("below", "mac.write", func(r *authz.Request) { r.Resource.Level = 1 })
	but("above", "mac.read", func(r *authz.Request) { r.Resource.Level = 3 })

	r = base(sales, authz.Read, "customer", "e9")
	r.Subject.Shares = []authz.Sharing{{Record: "r1", By: "e9", Actions: []authz.Action{authz.List, authz.Read}, Until: soon}}
	share := func(change func(*authz.Sharing)) func(*authz.Request) {
		return func(r *authz.Request) {
			s := r.Subject.Shares[0]
			change(&s)
			r.Subject.Shares = []authz.Sharing{s}
		}
	}
	but = allowed("share: read", r, "share", authz.Masked)
	but("it has ended", "access.granted", share(func(s *authz.Sharing) { s.Until = Now }))
	but("another record", "access.granted", share(func(s *authz.Sharing) { s.Record = "r2" }))
	but("by somebody who does not own it", "access.granted", share(func(s *authz.Sharing) { s.By = "e8" }))
	but("not for changes", "access.granted", func(r *authz.Request) { r.Action = authz.Update })
	but("never passed on", "access.granted", func(r *authz.Request) {
		r.Action = authz.Share
		share(func(s *authz.Sharing) { s.Actions = []authz.Action{authz.Share} })(r)
	})
	but("no time", "access.granted", func(r *authz.Request) { r.Environment.Time = time.Time{} })

	r = base(sales, authz.Browse, "customer", "")
	r.Subject.Pools, r.Resource.Pool, r.Resource.Team = []string{"p0", "p1"}, "p1", ""
	but = allowed("pool: browse", r, "rbac.pool", authz.Masked)
	but("somebody has it", "access.granted", func(r *authz.Request) { r.Resource.Pool, r.Resource.Owner = "", "e9" })
	but("nobody has it, and it is in no pool", "access.granted", func(r *authz.Request) { r.Resource.Pool, r.Subject.Pools = "", []string{""} })
	but("another pool", "access.granted", func(r *authz.Request) { r.Resource.Pool = "p2" })
	but("no pools", "access.granted", func(r *authz.Request) { r.Subject.Pools = nil })
	but("by support", "access.granted", func(r *authz.Request) { r.Subject.Roles = []string{"support"} })
	but("what has no pools", "access.granted", func(r *authz.Request) { r.Resource.Type = "quote" })
	but("a list of all", "access.granted", func(r *authz.Request) { r.Action = authz.List })
	but("above the session", "mac.read", func(r *authz.Request) { r.Resource.Level = 1 })
	r.Action = authz.Claim
	but = allowed("pool: claim", r, "rbac.pool", authz.Masked)
	but("assigned by sales", "access.granted", func(r *authz.Request) { r.Action = authz.Assign })
	but("recycled by a person", "access.granted", func(r *authz.Request) { r.Action = authz.Recycle })
	but("written down", "mac.write", func(r *authz.Request) { r.Subject.Level = 1 })
	r.Action, r.Subject.Roles = authz.Assign, []string{"manager"}
	but = allowed("pool: assign", r, "rbac.pool", authz.Open)
	but("in another pool", "access.granted", func(r *authz.Request) { r.Resource.Pool = "p2" })
	but("recycled by a manager", "access.granted", func(r *authz.Request) { r.Action = authz.Recycle })

	r = base(sales, authz.Release, "customer", "e1")
	but = allowed("hands: release", r, "rbac.own", authz.Masked)
	but("another's", "access.granted", func(r *authz.Request) { r.Resource.Owner = "e9" })
	but("handed over", "access.granted", func(r *authz.Request) { r.Action = authz.Handover })
	but("a deputy gives it away", "access.granted", func(r *authz.Request) {
		r.Resource.Owner = "e9"
		r.Subject.Delegations = []authz.Delegation{{From: "e9", Actions: []authz.Action{authz.Release}, Until: soon}}
	})
	r = base(manager, authz.Handover, "contract", "e9")
	r.Resource.State, r.Resource.Held = "ended", true
	but = allowed("hands: handover of what is final and held", r, "rbac.team", authz.Open)
	but("changed", "frozen.state", func(r *authz.Request) { r.Action = authz.Update })
	but("of another team", "access.granted", func(r *authz.Request) { r.Resource.Team = "/west/" })
	r = base(person("system", "system", ""), authz.Recycle, "lead", "e9")
	but = allowed("hands: recycle", r, "rbac.all", authz.Open)
	but("released", "access.granted", func(r *authz.Request) { r.Action = authz.Release })
	but("by somebody with the role", "role.reserved", func(r *authz.Request) { r.Subject.ID = "e1" })

	r = base(sales, authz.Update, "customer", "e9")
	r.Subject.Delegations = []authz.Delegation{{From: "e9", Actions: []authz.Action{authz.Update, authz.Delete}, Until: soon}}
	deputy := func(change func(*authz.Delegation)) func(*authz.Request) {
		return func(r *authz.Request) {
			d := r.Subject.Delegations[0]
			change(&d)
			r.Subject.Delegations = []authz.Delegation{d}
		}
	}
	but = allowed("delegation: update", r, "delegation", authz.Open)
	but("it has ended", "access.granted", deputy(func(d *authz.Delegation) { d.Until = Now }))
	but("by another", "access.granted", deputy(func(d *authz.Delegation) { d.From = "e8" }))
	but("what is not delegable", "access.granted", func(r *authz.Request) { r.Action = authz.Delete })
	but("a type that the deputy has no role for", "access.granted", func(r *authz.Request) { r.Subject.Roles = []string{"analyst"} })

	r = base(sales, authz.Read, "customer", "e9")
	r.Subject.Emergencies = []authz.Emergency{{Type: "customer", Approvers: []string{"e7", "e8"}, Until: soon}}
	glass := func(change func(*authz.Emergency)) func(*authz.Request) {
		return func(r *authz.Request) {
			e := r.Subject.Emergencies[0]
			change(&e)
			r.Subject.Emergencies = []authz.Emergency{e}
		}
	}
	but = allowed("emergency: read", r, "emergency", authz.Masked, authz.NeedReason, authz.NeedReview)
	but("it has ended", "access.granted", glass(func(e *authz.Emergency) { e.Until = Now }))
	but("approved by one", "access.granted", glass(func(e *authz.Emergency) { e.Approvers = []string{"e7"} }))
	but("approved by oneself", "access.granted", glass(func(e *authz.Emergency) { e.Approvers = []string{"e1", "e7"} }))
	but("another type", "access.granted", glass(func(e *authz.Emergency) { e.Type = "ticket" }))
	but("a change", "access.granted", func(r *authz.Request) { r.Action = authz.Update })

	r = base(manager, authz.Approve, "quote", "e1")
	r.Resource.Actors, r.Resource.Amount = []string{"e1"}, 5_000_000
	but = allowed("sod and amount: approve", r, "rbac.team", authz.Open)
	but("one's own doing", "sod.dynamic", func(r *authz.Request) { r.Resource.Actors = []string{"e1", "e2"} })
	but("nobody asked for it", "sod.dynamic", func(r *authz.Request) { r.Resource.Actors = nil })
	but("roles that exclude each other", "sod.static", func(r *authz.Request) { r.Subject.Roles = []string{"manager", "finance"} })
	but("one more than the limit", "amount.limit", func(r *authz.Request) { r.Resource.Amount++ })
	but("less than nothing", "amount.limit", func(r *authz.Request) { r.Resource.Amount = -1 })

	r = base(admin, authz.Delete, "customer", "e1")
	but = allowed("hold: delete", r, "hold.free", authz.Open)
	but("under a hold", "hold.free", func(r *authz.Request) { r.Resource.Held = true })
	but("under a hold, by the owner", "hold.free", func(r *authz.Request) { r.Resource.Held, r.Subject = true, sales })
	but("erased under a hold", "hold.free", func(r *authz.Request) { r.Resource.Held, r.Action = true, authz.Erase })
	r.Action = authz.Purge
	but = allowed("hold: purge", r, "hold.free", authz.Open)
	but("under a hold", "hold.free", func(r *authz.Request) { r.Resource.Held = true })
	but("within its retention, by the program", "hold.free", func(r *authz.Request) {
		r.Resource.Held, r.Resource.Type, r.Resource.State, r.Subject = true, "contract", "ended", person("system", "system", "")
	})
	but("by a manager", "access.granted", func(r *authz.Request) { r.Subject = manager })
	but("by the owner", "access.granted", func(r *authz.Request) { r.Subject = sales })
	r.Action, r.Resource.Held = authz.Update, true
	allowed("hold: update", r, "hold.free", authz.Open)

	r = base(person("e4", "marketing", ""), authz.List, "customer", "e1")
	r.Environment.Purpose, r.Resource.Consents = "marketing", []string{"marketing"}
	but = allowed("consent: list for marketing", r, "consent.given", authz.Masked)
	but("no consent", "consent.given", func(r *authz.Request) { r.Resource.Consents = nil })
	but("consent to something else", "consent.given", func(r *authz.Request) { r.Resource.Consents = []string{"service"} })

	r = base(admin, authz.Export, "customer", "e1")
	r.Environment.Rows = 500
	but = allowed("export: few", r, "rbac.all", authz.Masked, authz.NeedReason, "rows:10000", authz.NeedWatermark)
	but("by sales", "access.granted", func(r *authz.Request) { r.Subject = sales })
	but("by an auditor", "access.granted", func(r *authz.Request) { r.Subject.Roles = []string{"auditor"} })
	r.Environment.Rows = 501
	allowed("export: many", r, "rbac.all", authz.Masked, authz.NeedReason, "rows:10000", authz.NeedStepUp, authz.NeedWatermark)
	r.Environment.Rows = 2001
	allowed("export: more", r, "rbac.all", authz.Masked, authz.NeedReason, "rows:10000", authz.NeedSecond, authz.NeedStepUp, authz.NeedWatermark)

	r = base(person("e5", "analyst", ""), authz.Aggregate, "customer", "e1")
	but = allowed("analyst: numbers", r, "rbac.all", authz.Hidden, authz.NeedGroups)
	but("a list", "access.granted", func(r *authz.Request) { r.Action = authz.List })
	but("a record", "access.granted", func(r *authz.Request) { r.Action = authz.Read })
	but("an export", "access.granted", func(r *authz.Request) { r.Action = authz.Export })

	r = base(admin, authz.Declassify, "customer", "e1")
	r.Subject.Level, r.Resource.Level = 2, 1
	but = allowed("declassify", r, "mac.write", authz.Open, authz.NeedReason, authz.NeedSecond)
	but("by a manager", "access.granted", func(r *authz.Request) { r.Subject = manager })
	but("above the session", "mac.read", func(r *authz.Request) { r.Subject.Level = 0 })

	r = base(person("system", "system", ""), authz.Read, "customer", "e1")
	but = allowed("reserved: the program", r, "role.reserved", authz.Open)
	but("somebody else with its role", "role.reserved", func(r *authz.Request) { r.Subject.ID = "e1" })
	but("with another role besides", "role.reserved", func(r *authz.Request) { r.Subject.ID, r.Subject.Roles = "e1", []string{"sales", "system"} })

	r = base(sales, authz.Update, "quote", "e1")
	r.Resource.State = "draft"
	but = allowed("frozen: a draft", r, "frozen.state", authz.Open)
	but("accepted", "frozen.state", func(r *authz.Request) { r.Resource.State = "accepted" })
	but("withdrawn", "frozen.state", func(r *authz.Request) { r.Resource.State = "withdrawn" })
	but("no state", "frozen.state", func(r *authz.Request) { r.Resource.State = "" })
	return out
}
