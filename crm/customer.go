package crm

import "time"

// CustomerKind says what a customer is.
type CustomerKind string

// The kinds of a customer.
const (
	PersonCustomer  CustomerKind = "person"
	CompanyCustomer CustomerKind = "company"
)

// CustomerStage says where the relationship stands.
type CustomerStage string

// The stages of a customer.
const (
	CustomerNew         CustomerStage = "new"
	CustomerNegotiation CustomerStage = "negotiation"
	CustomerContracting CustomerStage = "contracting"
	CustomerAtRisk      CustomerStage = "at_risk"
	CustomerOverdue     CustomerStage = "payment_overdue"
	CustomerDormant     CustomerStage = "dormant"
	CustomerWon         CustomerStage = "won"
	CustomerLost        CustomerStage = "lost"
)

// CustomerLifecycle returns the transition table of customers.
func CustomerLifecycle() Lifecycle[CustomerStage] {
	return Lifecycle[CustomerStage]{
		typ: TypeCustomer,
		states: []CustomerStage{
			CustomerNew, CustomerNegotiation, CustomerContracting, CustomerWon,
			CustomerOverdue, CustomerAtRisk, CustomerDormant, CustomerLost,
		},
		next: map[CustomerStage][]CustomerStage{
			CustomerNew:         {CustomerNegotiation, CustomerDormant, CustomerLost},
			CustomerNegotiation: {CustomerContracting, CustomerAtRisk, CustomerDormant, CustomerLost},
			CustomerContracting: {CustomerWon, CustomerNegotiation, CustomerAtRisk, CustomerLost},
			CustomerWon:         {CustomerNegotiation, CustomerOverdue, CustomerAtRisk, CustomerDormant},
			CustomerOverdue:     {CustomerWon, CustomerAtRisk, CustomerLost},
			CustomerAtRisk:      {CustomerNegotiation, CustomerContracting, CustomerWon, CustomerOverdue, CustomerDormant, CustomerLost},
			CustomerDormant:     {CustomerNegotiation, CustomerLost},
			CustomerLost:        {CustomerNegotiation},
		},
	}
}

// Customer is a person or a company that buys or may buy. For a company the personal fields are those
// of its contact person.
type Customer struct {
	Meta[Customer]
	Pooled
	Kind         CustomerKind  `protect:"internal" json:"kind"`
	Name         Text          `protect:"personal,index=exact:name,index=ngram:person,index=exact:pinyin,index=exact:sound,leaks=fragments,mask=name" json:"name"`
	Contact      Text          `protect:"personal,index=exact:name,leaks=equality,distinct=1000000,mask=name" json:"contact"`        // who speaks for a company
	Phone        Text          `protect:"personal,index=exact:phone,index=suffix4:digits:12,leaks=equality,mask=phone" json:"phone"` // kept as typed
	Phone2       Text          `protect:"personal,index=exact:phone,index=suffix4:digits:12,leaks=equality,mask=phone" json:"phone2"`
	Email        Text          `protect:"personal,index=exact:email,leaks=equality,mask=email" json:"email"`
	Address      Text          `protect:"personal,index=exact:address,leaks=equality,distinct=1000000,mask=address" json:"address"`
	Website      Text          `protect:"personal" json:"website"`
	IDNumber     Text          `protect:"sensitive,index=exact:idnumber,leaks=equality,mask=idnumber" json:"id_number"` // of an identity document
	Note         Text          `protect:"personal" json:"note"`
	City         string        `protect:"internal" json:"city"`
	Country      string        `protect:"internal" json:"country"`
	Industry     string        `protect:"internal" json:"industry"`
	Source       string        `protect:"internal" json:"source"` // how the customer came
	Stage        CustomerStage `protect:"internal,indexed" json:"stage"`
	OpenValue    int64         `protect:"internal,indexed" json:"open_value"` // minor units: what is being negotiated
	CreditLimit  int64         `protect:"internal" json:"credit_limit"`       // minor units
	Currency     string        `protect:"internal" json:"currency"`           // ISO 4217; required beside an amount
	LastFollowUp time.Time     `protect:"internal,indexed" json:"last_follow_up"`
	ExternalID   string        `protect:"internal,indexed" json:"external_id"` // in the system it came from

	_ struct{} `protect:"index=exact:sound+numbers,of=name+address"` // one name at one address, however both are written
}

// Validate returns an *InvalidError that lists every broken rule, or nil.
func (c *Customer) Validate() error {
	v := Checks{Type: TypeCustomer}
	v.Team(c.Team)
	oneOf(&v, "kind", c.Kind, PersonCustomer, CompanyCustomer)
	v.Text("name", c.Name, true, MaxName)
	v.Text("contact", c.Contact, false, MaxName)
	v.Text("phone", c.Phone, false, MaxName)
	v.Text("phone2", c.Phone2, false, MaxName)
	v.Email("email", c.Email, false)
	v.Text("address", c.Address, false, MaxLine)
	v.Text("website", c.Website, false, MaxLine)
	v.Text("id_number", c.IDNumber, false, MaxName)
	v.Text("note", c.Note, false, MaxText)
	v.Str("city", c.City, false, MaxName)
	v.Str("country", c.Country, false, MaxName)
	v.Str("industry", c.Industry, false, MaxName)
	v.Str("source", c.Source, false, MaxName)
	oneOf(&v, "stage", c.Stage, CustomerLifecycle().states...)
	v.NotNegative("open_value", c.OpenValue)
	v.NotNegative("credit_limit", c.CreditLimit)
	v.Currency("currency", c.Currency, c.OpenValue != 0 || c.CreditLimit != 0)
	v.Time("last_follow_up", c.LastFollowUp)
	v.Str("external_id", c.ExternalID, false, MaxName)
	v.pooled(c.Pooled, c.Owner)
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become c: a *TransitionError when the stage
// would make a step that the table does not have, a *InvalidError when its owner or pool would change past package crm/pool.
func (c *Customer) CheckUpdate(prev *Customer) error {
	if err := CustomerLifecycle().CheckUpdate(prev.Stage, c.Stage); err != nil {
		return err
	}
	v := Checks{Type: TypeCustomer}
	v.samePooled(c.Pooled, prev.Pooled, c.Owner, prev.Owner)
	return v.Err()
}

// Move takes the customer to another stage, or returns a *TransitionError.
func (c *Customer) Move(to CustomerStage, at time.Time) error {
	if err := CustomerLifecycle().Check(c.Stage, to); err != nil {
		return err
	}
	c.Stage, c.UpdatedAt = to, at
	return nil
}
