package app

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/review"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// certifiedFor is how long a role counts that somebody was given.
const certifiedFor = 180 * 24 * time.Hour

// ErrLastAdmin refuses to let the last administrator's role lapse: nobody could give it back.
var ErrLastAdmin = errors.New("crm: nobody would be an administrator any more")

const actionCertified = "crm.certified" // every role that somebody had was certified

// certificationID is that of an employee's role: there is one.
func certificationID(employee crm.UUID, role string) crm.UUID {
	sum := sha256.Sum256([]byte("certification\x00" + employee.String() + "\x00" + role))
	u := crm.UUID(sum[:16])
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return u
}

// ended is the outcome of a certification whose role was taken away: who gives the role back certifies it anew. One that
// has lapsed is not renewed by an edit of the employee.
const ended = "ended"

// certify makes a role of an employee count until a time; by is none for the program.
func (a *App) certify(ctx context.Context, e *crm.Employee, role string, by crm.ID[crm.Employee], until time.Time, outcome string) error {
	id := certificationID(e.ID.UUID(), role)
	v, err := a.Certifications.Get(ctx, System("certification"), id)
	if errors.Is(err, crm.ErrNotFound) {
		_, err = a.Certifications.Create(ctx, System("certification"), &crm.Certification{
			Meta: crm.Meta[crm.Certification]{ID: crm.ID[crm.Certification](id), Person: e.Person, Owner: e.ID, Team: e.Team},
			Role: role, Until: until, By: by, Outcome: outcome,
		})
		if err != nil {
			return err
		}
		return a.Sessions.RightsChanged(ctx, Tenant, e.ID.String())
	}
	if err != nil {
		return err
	}
	v.Value.Until, v.Value.By, v.Value.Team, v.Value.Outcome = until, by, e.Team, outcome
	if _, err = a.Certifications.Update(ctx, System("certification"), v.Value); err != nil {
		return err
	}
	return a.Sessions.RightsChanged(ctx, Tenant, e.ID.String())
}

// certifyAll certifies every role that employees have, where none of them ever was: when a CRM is set up, when it comes
// from a version that did not know of certifications, and after a restore from such a one.
func (a *App) certifyAll(ctx context.Context) error {
	last := func(action string) (int64, error) {
		found, err := a.Log.Query(ctx, audit.Filter{Action: action}, math.MaxUint64, 1)
		if err != nil || len(found) == 0 {
			return -1, err
		}
		return int64(found[0].Index), nil
	}
	done, err := last(actionCertified)
	if err != nil {
		return err
	}
	restored, err := last("backup.restored")
	if err != nil || done > restored {
		return err
	}
	n, err := a.Certifications.Count(ctx, System("certification"), guard.Query{})
	if err != nil {
		return err
	}
	if n == 0 {
		until := time.Now().Add(certifiedFor)
		var all []*crm.Certification
		err := each(ctx, a.Employees, guard.Query{}, func(e *crm.Employee) {
			for _, role := range e.Roles {
				all = append(all, &crm.Certification{
					Meta: crm.Meta[crm.Certification]{
						ID:     crm.ID[crm.Certification](certificationID(e.ID.UUID(), role)),
						Person: e.Person, Owner: e.ID, Team: e.Team,
					},
					Role: role, Until: until,
				})
			}
		})
		if err != nil {
			return err
		}
		if err := fill(ctx, a.Certifications, all); err != nil {
			return err
		}
		n = int64(len(all))
	}
	_, err = a.Log.Append(ctx, audit.Event{
		Action: actionCertified, Activity: audit.Configure, Outcome: audit.Allowed, Tenant: Tenant, Actor: "system", Count: n,
	})
	return err
}

// RolesChanged certifies the roles that an employee has been given by somebody else, and ends the certification of those that
// were taken. Nobody certifies their own.
func (a *App) RolesChanged(ctx context.Context, employee crm.UUID, by string) error {
	giver, err := crm.ParseID[crm.Employee](by)
	if err != nil {
		return err
	}
	return a.rolesChanged(ctx, employee, giver)
}

// rolesChanged is RolesChanged by an employee, or by the program, which is none.
func (a *App) rolesChanged(ctx context.Context, employee crm.UUID, giver crm.ID[crm.Employee]) error {
	e, err := a.Employees.Get(ctx, System("certification"), employee)
	if err != nil {
		return err
	}
	has := map[string]bool{}
	q := guard.Query{Clauses: []crm.Clause{{Column: "owner", Op: crm.Equal, Values: []crm.Value{crm.StringValue(employee.String())}}}}
	var taken []*crm.Certification
	now := time.Now()
	err = each(ctx, a.Certifications, q, func(c *crm.Certification) {
		switch {
		case !slices.Contains(e.Value.Roles, c.Role):
			if c.Outcome != ended {
				taken = append(taken, c)
			}
		default:
			has[c.Role] = c.Outcome != ended
		}
	})
	if err != nil {
		return err
	}
	for _, c := range taken {
		if err := a.certify(ctx, e.Value, c.Role, giverOf(giver, employee), now, ended); err != nil {
			return err
		}
	}
	for _, role := range e.Value.Roles {
		if has[role] || giver.UUID() == employee {
			continue
		}
		if err := a.certify(ctx, e.Value, role, giver, now.Add(certifiedFor), ""); err != nil {
			return err
		}
	}
	return a.rightsChanged(ctx, e.Value)
}

// rightsChanged lets the sessions of an employee have the rights of now with their next request, in every process; those of one who may not act any more end.
func (a *App) rightsChanged(ctx context.Context, e *crm.Employee) error {
	if e.Active() {
		return a.Sessions.RightsChanged(ctx, Tenant, e.ID.String())
	}
	if err := a.revokeTokens(ctx, "system", e.ID.String(), whyInactive); err != nil {
		return err
	}
	ended, err := a.Sessions.EndAll(ctx, Tenant, e.ID.String())
	if err != nil {
		return err
	}
	for _, id := range ended {
		if err := a.noteEnded(ctx, "system", e.ID.String(), id, whyInactive); err != nil {
			return err
		}
	}
	return nil
}

// giverOf is none for who ends their own role: a record never says that somebody certified themselves.
func giverOf(by crm.ID[crm.Employee], employee crm.UUID) crm.ID[crm.Employee] {
	if by.UUID() == employee {
		return crm.ID[crm.Employee]{}
	}
	return by
}

// CertifyAccount certifies all roles of the employee with this address, from the command line: the way back for an
// installation where nobody's role counts any more. It is in the log.
func (a *App) CertifyAccount(ctx context.Context, login string) ([]string, error) {
	e, err := a.Owner(ctx, login)
	if err != nil {
		return nil, err
	}
	for _, role := range e.Roles {
		if err := a.certify(ctx, e, role, crm.ID[crm.Employee]{}, time.Now().Add(certifiedFor), ""); err != nil {
			return nil, err
		}
	}
	_, err = a.Log.Append(ctx, audit.Event{
		Action: "account.certified", Activity: audit.Configure, Outcome: audit.Allowed, Tenant: Tenant, Actor: "system", Count: int64(len(e.Roles)),
		Targets: []audit.Target{{Type: crm.TypeEmployee, ID: e.ID.String()}},
	})
	return e.Roles, err
}

// OpenCampaign asks, for every role that counts, somebody who may: the superior, who leads the team, or an administrator.
// left counts the roles for which there is nobody but who has it; they run out on their day.
func (a *App) OpenCampaign(ctx context.Context, c guard.Caller, due time.Time, days int64) (id crm.UUID, left int, err error) {
	may, _, err := a.Campaigns.MayOwn(ctx, c, authz.Create)
	if err != nil {
		return id, 0, err
	}
	if !may { // the guard says so, and the log
		_, err := a.Campaigns.Create(ctx, c, &crm.Campaign{Opened: time.Now().UTC(), Due: due, Days: days})
		return id, 0, cmp.Or(err, error(crm.ErrConflict))
	}
	running, err := a.running(ctx)
	if err != nil {
		return id, 0, err
	}
	if running != nil {
		return id, 0, crm.ErrConflict
	}
	now := time.Now().UTC()
	var certs []*crm.Certification
	err = each(ctx, a.Certifications, guard.Query{}, func(x *crm.Certification) {
		if x.Live(now) {
			certs = append(certs, x)
		}
	})
	if err != nil {
		return id, 0, err
	}
	reviewers, err := a.reviewers(ctx)
	if err != nil {
		return id, 0, err
	}
	r, err := a.rights(ctx)
	if err != nil {
		return id, 0, err
	}
	camp := &crm.Campaign{Opened: now, Due: due.UTC(), Days: days}
	var items []review.Item
	kept := certs[:0]
	for _, x := range certs {
		e := r.employees[x.Owner.UUID()]
		if e == nil || !slices.Contains(e.Roles, x.Role) {
			continue
		}
		who, err := a.reviewer(ctx, c, reviewers, e, x)
		if err != nil {
			return id, 0, err
		}
		if who.IsZero() {
			left++
			continue
		}
		x.Reviewer, x.Outcome, x.Decider, x.Decided = who, "", crm.ID[crm.Employee]{}, time.Time{}
		items = append(items, review.Item{Subject: x.Owner.String(), Role: x.Role, Reviewer: who.String()})
		kept = append(kept, x)
	}
	if _, err := review.NewCampaign("new", camp.Opened, camp.Due, items); err != nil {
		return id, left, &crm.InvalidError{Type: crm.TypeCampaign, Fields: []crm.FieldError{{Field: "due", Rule: "out_of_range"}}}
	}
	camp.Items = int64(len(items))
	if _, err := a.Campaigns.Create(ctx, c, camp); err != nil {
		return id, left, err
	}
	for _, x := range kept {
		x.Campaign = camp.ID
		if _, err := a.Certifications.Update(ctx, System("campaign"), x); err != nil {
			return id, left, err
		}
	}
	return camp.ID.UUID(), left, nil
}

// running returns the campaign that is not closed, nil for none.
func (a *App) running(ctx context.Context) (*crm.Campaign, error) {
	var out *crm.Campaign
	err := each(ctx, a.Campaigns, guard.Query{}, func(c *crm.Campaign) {
		if c.Closed.IsZero() {
			out = c
		}
	})
	return out, err
}

// candidate is somebody who may be asked.
type candidate struct {
	subject authz.Subject
	e       *crm.Employee
}

// reviewers are all who work here, those deepest in the tree of teams first, administrators last.
func (a *App) reviewers(ctx context.Context) ([]candidate, error) {
	r, err := a.rights(ctx)
	if err != nil {
		return nil, err
	}
	var out []candidate
	for id, e := range r.employees {
		s, err := a.Subject(ctx, id)
		if err == nil && len(s.Roles) > 0 {
			out = append(out, candidate{s, e})
		}
	}
	rank := func(c candidate) int {
		if slices.Contains(c.subject.Roles, "admin") {
			return 0
		}
		return strings.Count(c.e.Team, "/")
	}
	slices.SortFunc(out, func(x, y candidate) int {
		return cmp.Or(rank(y)-rank(x), strings.Compare(x.subject.ID, y.subject.ID))
	})
	return out, nil
}

// reviewer finds who is asked about a role: whoever may certify it, the superior first.
func (a *App) reviewer(ctx context.Context, c guard.Caller, all []candidate, e *crm.Employee, x *crm.Certification) (crm.ID[crm.Employee], error) {
	var found crm.ID[crm.Employee]
	for _, who := range all {
		if who.e.ID == e.ID || !found.IsZero() && who.e.ID != e.Owner {
			continue
		}
		d, err := a.Policy.Decide(ctx, authz.Request{
			Subject: who.subject, Action: authz.Certify, Environment: c.Environment,
			Resource: authz.Resource{
				Tenant: Tenant, Type: crm.TypeCertification, ID: x.ID.String(), Owner: x.Owner.String(), Team: x.Team, Actors: []string{x.Owner.String()},
			},
		})
		if err != nil {
			return found, err
		}
		if d.Allowed {
			found = who.e.ID
		}
	}
	return found, nil
}

// campaign reads a campaign with what was decided so far.
func (a *App) campaign(ctx context.Context, c guard.Caller, id crm.UUID) (*crm.Campaign, *review.Campaign, []*crm.Certification, error) {
	v, err := a.Campaigns.Get(ctx, c, id)
	if err != nil {
		return nil, nil, nil, err
	}
	out := &review.Campaign{ID: id.String(), Opened: v.Value.Opened, Due: v.Value.Due, Closed: v.Value.Closed}
	var certs []*crm.Certification
	q := guard.Query{Clauses: []crm.Clause{{Column: "campaign", Op: crm.Equal, Values: []crm.Value{crm.StringValue(id.String())}}}}
	err = each(ctx, a.Certifications, q, func(x *crm.Certification) {
		certs = append(certs, x)
		out.Items = append(out.Items, review.Item{
			Subject: x.Owner.String(), Role: x.Role, Reviewer: x.Reviewer.String(), Outcome: review.Outcome(x.Outcome), By: x.Decider.String(), At: x.Decided,
		})
	})
	return v.Value, out, certs, err
}

// Campaign returns a campaign with its items, to who may read it.
func (a *App) Campaign(ctx context.Context, c guard.Caller, id crm.UUID) (*crm.Campaign, *review.Campaign, error) {
	v, r, _, err := a.campaign(ctx, c, id)
	return v, r, err
}

// DecideCertification keeps or revokes one role in a campaign. Errors are those of review.Campaign.Decide and
// *authz.DeniedError.
func (a *App) DecideCertification(ctx context.Context, c guard.Caller, campaign, employee crm.UUID, role string, outcome review.Outcome) error {
	_, r, certs, err := a.campaign(ctx, c, campaign)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	by, err := crm.ParseID[crm.Employee](c.Subject.ID)
	if err != nil {
		return err
	}
	refused := r.Decide(employee.String(), role, outcome, c.Subject.ID, now)
	i := slices.IndexFunc(certs, func(x *crm.Certification) bool { return x.Owner.UUID() == employee && x.Role == role })
	if i < 0 {
		return refused
	}
	// The policy is asked first, so that a refusal is in the log whoever refuses.
	return a.Certifications.Act(ctx, c, authz.Certify, certs[i].ID.UUID(), certs[i].Version, func(x *crm.Certification) error {
		if refused != nil {
			return refused
		}
		x.Outcome, x.Decider, x.Decided = string(outcome), by, now
		return nil
	})
}

// CloseCampaign ends a campaign: what was kept is certified anew, the rest lapses now. Errors: review.ErrOpen while something
// is undecided and it is not due, ErrLastAdmin.
func (a *App) CloseCampaign(ctx context.Context, c guard.Caller, id crm.UUID) error {
	camp, r, certs, err := a.campaign(ctx, c, id)
	if err != nil {
		return err
	}
	// Who may not close is told so before anything is looked at.
	if _, err := a.Campaigns.Authorize(ctx, c, authz.Update, id); err != nil {
		return err
	}
	now := time.Now().UTC()
	until := now.AddDate(0, 0, int(camp.Days))
	certified, _, err := r.Close(now, until)
	if err != nil {
		return err
	}
	keeps := func(x *crm.Certification) bool {
		return slices.ContainsFunc(certified[x.Owner.String()], func(g authz.Grant) bool { return g.Role == x.Role })
	}
	if err := a.adminStays(ctx, now, certs, keeps); err != nil {
		return err
	}
	for _, x := range certs {
		if keeps(x) {
			x.Until, x.By = until, x.Decider
		} else if x.Live(now) {
			x.Until = now
		}
		if _, err := a.Certifications.Update(ctx, System("campaign"), x); err != nil {
			return err
		}
	}
	camp.Closed = now
	_, err = a.Campaigns.Update(ctx, c, camp)
	return err
}

// AdminStays returns ErrLastAdmin when nobody but this employee is an administrator.
func (a *App) AdminStays(ctx context.Context, without crm.UUID) error {
	r, err := a.rights(ctx)
	if err != nil {
		return err
	}
	return r.adminStays(time.Now(), map[crm.UUID]bool{without: true})
}

// adminStays refuses to end the last administrator's role.
func (a *App) adminStays(ctx context.Context, now time.Time, certs []*crm.Certification, keeps func(*crm.Certification) bool) error {
	r, err := a.rights(ctx)
	if err != nil {
		return err
	}
	ends := map[crm.UUID]bool{}
	for _, x := range certs {
		if x.Role == "admin" && !keeps(x) {
			ends[x.Owner.UUID()] = true
		}
	}
	return r.adminStays(now, ends)
}

// adminStays tells whether somebody is an administrator besides these.
func (r *rights) adminStays(now time.Time, ends map[crm.UUID]bool) error {
	_, err := r.otherAdmin(now, ends)
	return err
}
