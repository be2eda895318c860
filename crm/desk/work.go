package desk

import (
	"context"
	"errors"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/flow"
	"github.com/crmguard/crmguard/crm/form"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/project"
)

// RespondTicket notes that the customer was answered, now. Errors are those of crm.Ticket.Respond.
func (d *Desk) RespondTicket(ctx context.Context, c guard.Caller, id crm.ID[crm.Ticket], version int64) error {
	if d.r.Tickets == nil {
		return ErrNoDoor
	}
	return d.r.Tickets.Act(ctx, c, "update", id.UUID(), version, func(t *crm.Ticket) error { return t.Respond(d.now()) })
}

// MoveTicket takes a ticket to another state, now. Errors are those of crm.Ticket.Move.
func (d *Desk) MoveTicket(ctx context.Context, c guard.Caller, id crm.ID[crm.Ticket], version int64, to crm.TicketState) error {
	if d.r.Tickets == nil {
		return ErrNoDoor
	}
	return d.r.Tickets.Act(ctx, c, "update", id.UUID(), version, func(t *crm.Ticket) error { return t.Move(to, d.now()) })
}

// OrderTask makes a task wait for others of its project, and for no more. Errors are those of project.Order, a *project.CycleError for tasks that would wait
// for one another; of two who order the tasks of one project at once, one does it on what the other did.
func (d *Desk) OrderTask(ctx context.Context, c guard.Caller, id crm.ID[project.Task], version int64, after ...crm.ID[project.Task]) error {
	if d.r.Tasks == nil {
		return ErrNoDoor
	}
	if version == 0 {
		return crm.ErrConflict
	}
	return persist(ctx, func() (*guard.Tx, error) {
		t, err := d.r.Tasks.Get(ctx, c, id.UUID())
		if err != nil {
			return nil, err
		}
		of := is("project", t.Value.Project.UUID())
		tasks, err := all(ctx, d.r.Tasks, d.program(c, "tasks"), of)
		if err != nil {
			return nil, err
		}
		var orders int64
		for _, o := range tasks {
			orders += o.Orders
		}
		tx := d.g.Begin(c, "task.order")
		// Decided on these tasks: when somebody orders, adds or deletes one first, read them again.
		for _, least := range []bool{false, true} {
			tx.Require(crm.Limit{Of: []crm.Measure{{Type: crm.TypeTask, Clauses: []crm.Clause{of}, Sum: "orders"}}, Least: least, Value: orders + 1}, crm.ErrConflict)
			tx.Require(crm.Limit{Of: []crm.Measure{{Type: crm.TypeTask, Clauses: []crm.Clause{of}}}, Least: least, Value: int64(len(tasks))}, crm.ErrConflict)
		}
		return tx, act(ctx, tx, d.r.Tasks, "update", id.UUID(), version, func(t *project.Task) error { return t.Wait(after, tasks, d.now()) })
	})
}

// PublishForm makes a draft the form that is used and retires the version before, in one transaction. Errors are those of form.Form.Publish, and a
// *crm.InvalidError with the rule repeated for key when another form of it is published.
func (d *Desk) PublishForm(ctx context.Context, c guard.Caller, id crm.ID[form.Form], version int64) error {
	if d.r.Forms == nil {
		return ErrNoDoor
	}
	draft, err := d.r.Forms.Get(ctx, c, id.UUID())
	if err != nil {
		return err
	}
	var before *form.Form
	if of := draft.Value.Before; !of.IsZero() {
		v, err := d.r.Forms.Get(ctx, d.program(c, "form"), of.UUID())
		if errors.Is(err, crm.ErrNotFound) {
			return &crm.InvalidError{Type: crm.TypeForm, Fields: []crm.FieldError{{Field: "before", Rule: "bad_reference"}}}
		}
		if err != nil {
			return err
		}
		before = v.Value
	}
	tx := d.g.Begin(c, "form.publish")
	if err := act(ctx, tx, d.r.Forms, "update", id.UUID(), version, func(f *form.Form) error {
		one(tx, crm.TypeForm, "key", word("key", f.Key), word("for", f.For), word("state", string(form.Published)))
		return f.Publish(before, d.now())
	}); err != nil {
		return err
	}
	if before != nil {
		if err := act(ctx, tx, d.r.Forms, "update", before.ID.UUID(), before.Version, func(f *form.Form) error {
			f.State = form.Retired
			return nil
		}); err != nil {
			return err
		}
	}
	_, err = tx.Commit(ctx)
	return err
}

// RetireForm ends a form: entries stay, new ones are refused.
func (d *Desk) RetireForm(ctx context.Context, c guard.Caller, id crm.ID[form.Form], version int64) error {
	if d.r.Forms == nil {
		return ErrNoDoor
	}
	return d.r.Forms.Act(ctx, c, "update", id.UUID(), version, func(f *form.Form) error {
		if err := form.Lifecycle().Check(f.State, form.Retired); err != nil {
			return err
		}
		f.State = form.Retired
		return nil
	})
}

// BeginFlow puts a record at the start of a published flow in the name of the caller. Errors are those of flow.Flow.Begin.
func (d *Desk) BeginFlow(ctx context.Context, c guard.Caller, id crm.ID[flow.Flow], subjectType string, subject crm.UUID) (*flow.Instance, error) {
	if d.r.Flows == nil || d.r.Instances == nil {
		return nil, ErrNoDoor
	}
	f, err := d.r.Flows.Get(ctx, d.program(c, "flow"), id.UUID())
	if err != nil {
		return nil, err
	}
	i, err := f.Value.Begin(crm.ID[flow.Instance](crm.NewUUID()), subjectType, subject, by(c), d.now())
	if err != nil {
		return nil, err
	}
	tx := d.g.Begin(c, "instance.begin")
	if err := d.r.Instances.CreateIn(ctx, tx, i); err != nil {
		return nil, err
	}
	_, err = tx.Commit(ctx)
	return i, err
}
