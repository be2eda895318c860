package desk

import (
	"context"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/trash"
)

// Conversion says into what a lead is converted: what is not named is made.
type Conversion struct {
	Customer crm.ID[crm.Customer]   // exists; none: one is made
	Contact  crm.ID[crm.Contact]    // of that customer, exists; none: one is made
	Pipeline crm.ID[sales.Pipeline] // of the opportunity that is made; none: none is made
	Amount   int64                  // what the opportunity is about, minor units
	Currency string                 // ISO 4217
}

// Converted is what a lead became. It has ids only: what its caller may see of the records is for guard to show.
type Converted struct {
	Customer    crm.ID[crm.Customer]
	Contact     crm.ID[crm.Contact]
	Opportunity crm.ID[sales.Opportunity] // none when none was asked for
	Join        crm.ID[crm.Person]        // see sales.Converted
}

// Convert turns a qualified lead into a customer, a contact and, if wanted, an opportunity, in one transaction. version is the one
// that the caller saw. What is made carries the lead's person, owner and team. Personal fields are copied as they are, though the caller may see
// them masked: see Options.Program. When a contact that exists is another person than the lead's, the two ids are one human
// from now on, for Converted.Join; joining their keys is for the caller.
func (d *Desk) Convert(ctx context.Context, c guard.Caller, id crm.ID[crm.Lead], version int64, q Conversion) (*Converted, error) {
	if d.r.Leads == nil || d.r.Customers == nil || d.r.Contacts == nil || !q.Pipeline.IsZero() && (d.r.Pipelines == nil || d.r.Opportunities == nil) {
		return nil, ErrNoDoor
	}
	now := d.now()
	tx := d.g.Begin(c, "lead.convert")
	into := sales.Conversion{
		CustomerID: crm.ID[crm.Customer](crm.NewUUID()), ContactID: crm.ID[crm.Contact](crm.NewUUID()), Amount: q.Amount, Currency: q.Currency,
	}
	if !q.Customer.IsZero() {
		v, err := d.r.Customers.Get(ctx, c, q.Customer.UUID())
		if err != nil {
			return nil, err
		}
		into.Customer = v.Value
	}
	if !q.Contact.IsZero() {
		v, err := d.r.Contacts.Get(ctx, c, q.Contact.UUID())
		if err != nil {
			return nil, err
		}
		into.Contact = v.Value
	}
	if !q.Pipeline.IsZero() {
		v, err := d.r.Pipelines.Get(ctx, c, q.Pipeline.UUID())
		if err != nil {
			return nil, err
		}
		into.Pipeline, into.Opportunity = v.Value, crm.ID[sales.Opportunity](crm.NewUUID())
	}
	// The caller may change this lead: decided before anything of it is read for them.
	if _, err := d.r.Leads.Authorize(ctx, c, "update", id.UUID()); err != nil {
		return nil, err
	}
	full, err := d.r.Leads.Get(ctx, d.program(c, "conversion"), id.UUID())
	if err != nil {
		return nil, err
	}
	if full.Value.Version != version {
		return nil, crm.ErrConflict
	}
	lead := full.Value
	if lead.Owner.IsZero() { // free in a pool: somebody claims it first
		return nil, &crm.InvalidError{Type: crm.TypeLead, Fields: []crm.FieldError{{Field: "owner", Rule: "required"}}}
	}
	out, err := sales.Convert(lead, into, now)
	if err != nil {
		return nil, err
	}
	if err := act(ctx, tx, d.r.Leads, "update", id.UUID(), version, func(l *crm.Lead) error {
		l.State, l.Customer, l.Contact, l.Deal, l.ConvertedAt = lead.State, lead.Customer, lead.Contact, lead.Deal, lead.ConvertedAt
		return nil
	}); err != nil {
		return nil, err
	}
	if out.NewCustomer {
		if err := d.r.Customers.CreateIn(ctx, tx, out.Customer); err != nil {
			return nil, err
		}
	}
	if out.NewContact {
		if err := d.r.Contacts.CreateIn(ctx, tx, out.Contact); err != nil {
			return nil, err
		}
	}
	if out.Opportunity != nil {
		if err := d.r.Opportunities.CreateIn(ctx, tx, out.Opportunity); err != nil {
			return nil, err
		}
	}
	if _, err := tx.Commit(ctx); err != nil {
		return nil, err
	}
	made := &Converted{Customer: out.Customer.ID, Contact: out.Contact.ID, Join: out.Join}
	if out.Opportunity != nil {
		made.Opportunity = out.Opportunity.ID
	}
	return made, nil
}

// opportunities are the opportunities for the bin.
func opportunities(d *Desk) binned {
	return bin[*sales.Opportunity]{d.r.Opportunities, func(v *sales.Opportunity) []trash.Ref {
		return parent(crm.TypeCustomer, v.Customer.UUID())
	}, nil}
}
