package app

import (
	"context"
	"errors"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// otherAdmin finds somebody who is an administrator besides these; ErrLastAdmin: nobody is.
func (r *rights) otherAdmin(now time.Time, besides map[crm.UUID]bool) (*crm.Certification, error) {
	for id, e := range r.employees {
		if !e.Active() || !hasRole(e, "admin") || besides[id] {
			continue
		}
		for _, x := range r.certified[id] {
			if x.Role == "admin" && x.Live(now) {
				return x, nil
			}
		}
	}
	return nil, ErrLastAdmin
}

// errOtherGone: who was to stay an administrator is none any more.
var errOtherGone = errors.New("crm: the other administrator is gone")

// takeAdmin stores an employee without the role of an administrator, and ends its certification, in one transaction that somebody else's role must
// outlast: of two who lose it at the same time, in whatever processes, one keeps it. Errors: ErrLastAdmin, crm.ErrConflict; then nothing is stored.
func (a *App) takeAdmin(ctx context.Context, by guard.Caller, e *crm.Employee) error {
	for range 5 {
		a.wrote(crm.TypeCertification) // what another process wrote is to be seen now, not soon
		r, err := a.rights(ctx)
		if err != nil {
			return err
		}
		now := time.Now().UTC()
		other, err := r.otherAdmin(now, map[crm.UUID]bool{e.ID.UUID(): true})
		if err != nil {
			return err
		}
		tx := a.Guard.Begin(by, "employee.admin_taken")
		if err := a.Employees.UpdateIn(ctx, tx, e); err != nil {
			return err
		}
		own, err := a.Certifications.Get(ctx, by, certificationID(e.ID.UUID(), "admin"))
		switch {
		case err == nil:
			own.Value.Until, own.Value.By, own.Value.Outcome = now, crm.ID[crm.Employee]{}, ended
			if err := a.Certifications.UpdateIn(ctx, tx, own.Value); err != nil {
				return err
			}
		case !errors.Is(err, crm.ErrNotFound):
			return err
		}
		// Their record gets a new version, so that whoever changes it at this moment, as by suspending them, conflicts with this or this with them.
		who, err := a.Employees.Get(ctx, by, other.Owner.UUID())
		if err != nil {
			return err
		}
		if !who.Value.Active() || !hasRole(who.Value, "admin") {
			continue
		}
		if err := a.Employees.UpdateIn(ctx, tx, who.Value); err != nil {
			return err
		}
		tx.Require(crm.Limit{Of: []crm.Measure{{Type: crm.TypeCertification, Clauses: []crm.Clause{
			equal("owner", other.Owner.String()), equal("role", "admin"), {Column: "until", Op: crm.Greater, Values: []crm.Value{crm.TimeValue(now)}},
		}}}, Least: true, Value: 1}, errOtherGone)
		if _, err = tx.Commit(ctx); !errors.Is(err, errOtherGone) && !errors.Is(err, crm.ErrConflict) {
			return err
		}
	}
	return crm.ErrConflict
}

func equal(column, text string) crm.Clause {
	return crm.Clause{Column: column, Op: crm.Equal, Values: []crm.Value{crm.StringValue(text)}}
}
