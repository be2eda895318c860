package sales

import (
	"time"

	"github.com/crmguard/crmguard/crm"
)

// Conversion says into what a lead is converted. Ids are for what is made; a record that exists already is used instead. The zero
// Opportunity makes none.
type Conversion struct {
	CustomerID  crm.ID[crm.Customer]
	ContactID   crm.ID[crm.Contact]
	Customer    *crm.Customer // exists; nil: one is made
	Contact     *crm.Contact  // of that customer, exists; nil: one is made
	Opportunity crm.ID[Opportunity]
	Pipeline    *Pipeline // required beside Opportunity; it starts in the first stage
	Amount      int64     // what the opportunity is about, minor units
	Currency    string    // ISO 4217
}

// Converted is what a lead became. All that is New, and the lead, are to be stored in one batch.
type Converted struct {
	Customer    *crm.Customer
	Contact     *crm.Contact
	Opportunity *Opportunity // nil when none was asked for
	NewCustomer bool
	NewContact  bool
	// Join is the person of the contact, when it existed and is another than the lead's: two ids of one human, whose keys are
	// to be joined. Else it is none.
	Join crm.ID[crm.Person]
}

// Convert turns a qualified lead into a customer, a contact and an opportunity, each of them made or one that exists. What is made
// carries the person id, owner and team of the lead, so that one human keeps one id and one set of keys; beside a contact that exists the
// opportunity has that contact's person.
//
// The lead is changed only when there is no error: those of crm.Lead.Convert and ConvertInto, and a *crm.InvalidError with the rule
// required when a contact is given without its customer or an opportunity without a pipeline.
func Convert(l *crm.Lead, c Conversion, at time.Time) (*Converted, error) {
	v := crm.Checks{Type: crm.TypeLead}
	if c.Contact != nil {
		v.Required("customer", c.Customer == nil)
	}
	if !c.Opportunity.IsZero() {
		v.Required("pipeline", c.Pipeline == nil || len(c.Pipeline.Stages) == 0)
		if l.Name.State() != crm.Clear || l.Company.State() != crm.Clear {
			v.Add("name", "not_open")
		}
	}
	if err := v.Err(); err != nil {
		return nil, err
	}
	next := *l
	var out Converted
	var err error
	if c.Customer == nil {
		out.NewCustomer, out.NewContact = true, true
		out.Customer, out.Contact, err = next.Convert(c.CustomerID, c.ContactID, at)
	} else {
		out.Customer, out.NewContact = c.Customer, c.Contact == nil
		out.Contact, err = next.ConvertInto(c.Customer, c.Contact, c.ContactID, at)
	}
	if err != nil {
		return nil, err
	}
	if out.Contact.Person != l.Person {
		out.Join = out.Contact.Person
	}
	if !c.Opportunity.IsZero() {
		first := c.Pipeline.Stages[0]
		o := &Opportunity{
			Meta: crm.Meta[Opportunity]{ID: c.Opportunity, Person: out.Contact.Person, Owner: l.Owner, Team: l.Team, CreatedAt: at, UpdatedAt: at},
			Name: l.Company, Customer: out.Customer.ID, Contact: out.Contact.ID, Lead: l.ID,
			Pipeline: c.Pipeline.ID, Stage: first.Name, StageSince: at, Probability: first.Probability,
			Amount: c.Amount, Currency: c.Currency, State: OpportunityOpen,
		}
		if o.Name.IsEmpty() {
			o.Name = l.Name
		}
		if err := o.Validate(); err != nil {
			return nil, err
		}
		out.Opportunity, next.Deal = o, o.ID.UUID()
	}
	*l = next
	return &out, nil
}
