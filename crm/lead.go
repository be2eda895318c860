package crm

import "time"

// LeadState says how far a lead was worked.
type LeadState string

// The states of a lead.
const (
	LeadNew       LeadState = "new"
	LeadContacted LeadState = "contacted"
	LeadQualified LeadState = "qualified"
	LeadConverted LeadState = "converted" // final
	LeadJunk      LeadState = "junk"
)

// LeadLifecycle returns the transition table of leads.
func LeadLifecycle() Lifecycle[LeadState] {
	return Lifecycle[LeadState]{
		typ:    TypeLead,
		states: []LeadState{LeadNew, LeadContacted, LeadQualified, LeadConverted, LeadJunk},
		next: map[LeadState][]LeadState{
			LeadNew:       {LeadContacted, LeadQualified, LeadJunk},
			LeadContacted: {LeadQualified, LeadJunk},
			LeadQualified: {LeadContacted, LeadConverted, LeadJunk},
			LeadJunk:      {LeadNew},
		},
	}
}

// Lead is a person who may become a customer.
type Lead struct {
	Meta[Lead]
	Pooled
	Name         Text         `protect:"personal,index=exact:name,index=ngram:person,index=exact:pinyin,leaks=fragments,mask=name" json:"name"`
	Company      Text         `protect:"personal,index=exact:name,leaks=equality,distinct=1000000,mask=name" json:"company"`
	Title        string       `protect:"internal" json:"title"`
	Phone        Text         `protect:"personal,index=exact:phone,index=suffix4:digits:12,leaks=equality,mask=phone" json:"phone"`
	Email        Text         `protect:"personal,index=exact:email,leaks=equality,mask=email" json:"email"`
	Note         Text         `protect:"personal" json:"note"`
	City         string       `protect:"internal" json:"city"`
	Country      string       `protect:"internal" json:"country"`
	Source       string       `protect:"internal" json:"source"`
	State        LeadState    `protect:"internal,indexed" json:"state"`
	LastFollowUp time.Time    `protect:"internal,indexed" json:"last_follow_up"`
	Customer     ID[Customer] `protect:"internal,indexed" json:"customer"` // what it became
	Contact      ID[Contact]  `protect:"internal" json:"contact"`          // what it became
	Deal         UUID         `protect:"internal" json:"deal"`             // the opportunity that came of it; none is allowed
	ConvertedAt  time.Time    `protect:"internal,indexed" json:"converted_at"`

	_ struct{} `protect:"index=exact:sound+company,of=name+company"` // one name in one company, however both are written
}

// Validate returns an *InvalidError that lists every broken rule, or nil.
func (l *Lead) Validate() error {
	v := Checks{Type: TypeLead}
	v.Team(l.Team)
	v.Text("name", l.Name, true, MaxName)
	v.Text("company", l.Company, false, MaxName)
	v.Str("title", l.Title, false, MaxName)
	v.Text("phone", l.Phone, false, MaxName)
	v.Email("email", l.Email, false)
	v.Text("note", l.Note, false, MaxText)
	v.Str("city", l.City, false, MaxName)
	v.Str("country", l.Country, false, MaxName)
	v.Str("source", l.Source, false, MaxName)
	oneOf(&v, "state", l.State, LeadLifecycle().states...)
	v.Time("last_follow_up", l.LastFollowUp)
	v.pooled(l.Pooled, l.Owner)
	if (l.State == LeadConverted) != !l.Customer.IsZero() {
		v.Add("customer", "mismatch")
	}
	if l.State != LeadConverted {
		for _, f := range []struct {
			name string
			set  bool
		}{{"contact", !l.Contact.IsZero()}, {"deal", !l.Deal.IsZero()}, {"converted_at", !l.ConvertedAt.IsZero()}} {
			if f.set {
				v.Add(f.name, "mismatch")
			}
		}
	}
	return v.Err()
}

// CheckNew refuses a lead that begins converted: a *TransitionError. Convert makes one of a lead that is there.
func (l *Lead) CheckNew() error {
	if l.State == LeadConverted {
		return &TransitionError{Type: TypeLead, From: "new", To: string(LeadConverted)}
	}
	return nil
}

// CheckUpdate tells whether the stored record prev may become l: a *TransitionError for a step that
// the table does not have, an *InvalidError for a converted lead that would point elsewhere, or when its owner or pool would
// change past package crm/pool.
func (l *Lead) CheckUpdate(prev *Lead) error {
	if err := LeadLifecycle().CheckUpdate(prev.State, l.State); err != nil {
		return err
	}
	v := Checks{Type: TypeLead}
	v.samePooled(l.Pooled, prev.Pooled, l.Owner, prev.Owner)
	if prev.State == LeadConverted {
		v.Unchanged("customer", l.Customer == prev.Customer)
		v.Unchanged("contact", l.Contact == prev.Contact)
		v.Unchanged("deal", l.Deal == prev.Deal)
	}
	return v.Err()
}

// Move takes the lead to another state, or returns a *TransitionError. The step to converted is made
// by Convert.
func (l *Lead) Move(to LeadState, at time.Time) error {
	if err := LeadLifecycle().Check(l.State, to); err != nil {
		return err
	}
	if to == LeadConverted {
		return &InvalidError{Type: TypeLead, Fields: []FieldError{{"customer", "required"}}}
	}
	l.State, l.UpdatedAt = to, at
	return nil
}

// Convert turns a qualified lead into a customer and its contact, and marks it converted. Both carry
// the person id, owner and team of the lead, so that one human keeps one id and one set of keys. A
// lead with a company becomes a company. The three records are to be stored in one batch.
//
// Every personal field must have been opened: an *InvalidError with the rule not_open names those
// that were not, because a mask must not become data.
func (l *Lead) Convert(customer ID[Customer], contact ID[Contact], at time.Time) (*Customer, *Contact, error) {
	if err := LeadLifecycle().Check(l.State, LeadConverted); err != nil {
		return nil, nil, err
	}
	v := Checks{Type: TypeLead}
	v.Required("customer", customer.IsZero())
	v.Required("contact", contact.IsZero())
	l.opened(&v)
	if err := v.Err(); err != nil {
		return nil, nil, err
	}
	c := &Customer{
		Meta: Meta[Customer]{
			ID: customer, Person: l.Person, Owner: l.Owner, Team: l.Team, CreatedAt: at, UpdatedAt: at,
		},
		Kind: PersonCustomer, Name: l.Name, Phone: l.Phone, Email: l.Email, Note: l.Note,
		City: l.City, Country: l.Country, Source: l.Source, Stage: CustomerNew,
	}
	if !l.Company.IsEmpty() {
		c.Kind, c.Name, c.Contact = CompanyCustomer, l.Company, l.Name
	}
	k := l.contact(contact, customer, at)
	k.Primary = true
	l.State, l.Customer, l.Contact, l.ConvertedAt, l.UpdatedAt = LeadConverted, customer, contact, at, at
	return c, k, nil
}

// opened notes the personal fields that were not opened.
func (l *Lead) opened(v *Checks) {
	v.Open("name", l.Name)
	v.Open("company", l.Company)
	v.Open("phone", l.Phone)
	v.Open("email", l.Email)
	v.Open("note", l.Note)
}

// contact makes the contact that a lead becomes.
func (l *Lead) contact(id ID[Contact], customer ID[Customer], at time.Time) *Contact {
	return &Contact{
		Meta: Meta[Contact]{
			ID: id, Person: l.Person, Owner: l.Owner, Team: l.Team, CreatedAt: at, UpdatedAt: at,
		},
		Customer: customer, Name: l.Name, Title: l.Title, Phone: l.Phone, Email: l.Email,
	}
}

// ConvertInto turns a qualified lead into a contact of a customer that exists, and marks it converted. When known is not nil it
// is that human already: no second contact is made, and known is returned as it is. Its person may then be another than the lead's: two
// ids of one human, which the caller joins. Else the new contact has the id contact and the lead's person. Lead and contact
// are to be stored in one batch.
//
// Errors are a *TransitionError when the lead is not qualified, and an *InvalidError: not_open as for Convert, bad_reference for a
// customer or a contact in the recycle bin, mismatch for a contact of another customer.
func (l *Lead) ConvertInto(customer *Customer, known *Contact, contact ID[Contact], at time.Time) (*Contact, error) {
	if err := LeadLifecycle().Check(l.State, LeadConverted); err != nil {
		return nil, err
	}
	v := Checks{Type: TypeLead}
	v.Required("customer", customer.ID.IsZero())
	if customer.Deleted {
		v.Add("customer", "bad_reference")
	}
	if known == nil {
		v.Required("contact", contact.IsZero())
		l.opened(&v)
	} else {
		if known.ID.IsZero() || known.Deleted {
			v.Add("contact", "bad_reference")
		}
		if known.Customer != customer.ID {
			v.Add("contact", "mismatch")
		}
	}
	if err := v.Err(); err != nil {
		return nil, err
	}
	if known == nil {
		known = l.contact(contact, customer.ID, at)
	}
	l.State, l.Customer, l.Contact, l.ConvertedAt, l.UpdatedAt = LeadConverted, customer.ID, known.ID, at, at
	return known, nil
}
