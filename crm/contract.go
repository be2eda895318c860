package crm

import "time"

// ContractState says where a contract stands.
type ContractState string

// The states of a contract.
const (
	ContractDraft      ContractState = "draft"
	ContractApproved   ContractState = "approved"
	ContractActive     ContractState = "active"
	ContractEnded      ContractState = "ended"      // final
	ContractTerminated ContractState = "terminated" // final
)

// ContractLifecycle returns the transition table of contracts.
func ContractLifecycle() Lifecycle[ContractState] {
	return Lifecycle[ContractState]{
		typ:    TypeContract,
		states: []ContractState{ContractDraft, ContractApproved, ContractActive, ContractEnded, ContractTerminated},
		next: map[ContractState][]ContractState{
			ContractDraft:    {ContractApproved},
			ContractApproved: {ContractActive, ContractTerminated},
			ContractActive:   {ContractEnded, ContractTerminated},
		},
	}
}

// Contract binds a customer. Who signed for it is kept under the signatory's own key and the
// retention of contracts, so that it outlives an erasure only as long as the law asks.
type Contract struct {
	Meta[Contract]
	Number          string        `protect:"internal,indexed" json:"number"`
	Customer        ID[Customer]  `protect:"internal,indexed" json:"customer"`
	Quote           ID[Quote]     `protect:"internal,indexed" json:"quote"`    // the accepted offer; none is allowed
	SignatoryPerson ID[Person]    `protect:"internal" json:"signatory_person"` // required beside a signatory
	Signatory       Text          `protect:"personal,mask=name,person=SignatoryPerson,retention=contract" json:"signatory"`
	Amount          int64         `protect:"internal,indexed" json:"amount"` // minor units, tax included
	Paid            int64         `protect:"internal" json:"paid"`           // minor units
	Currency        string        `protect:"internal" json:"currency"`       // ISO 4217
	Starts          time.Time     `protect:"internal,indexed" json:"starts"`
	Ends            time.Time     `protect:"internal,indexed" json:"ends"`
	State           ContractState `protect:"internal,indexed" json:"state"`
	ApprovedAt      time.Time     `protect:"internal" json:"approved_at"`
	ClosedAt        time.Time     `protect:"internal" json:"closed_at"` // ended or terminated
	Note            Text          `protect:"personal" json:"note"`
}

// Validate returns an *InvalidError that lists every broken rule, or nil.
func (c *Contract) Validate() error {
	v := Checks{Type: TypeContract}
	v.Team(c.Team)
	v.Str("number", c.Number, true, 60)
	v.Required("customer", c.Customer.IsZero())
	v.Text("signatory", c.Signatory, c.State != ContractDraft, MaxName)
	if !c.Signatory.IsEmpty() && c.SignatoryPerson.IsZero() {
		v.Add("signatory_person", "required")
	}
	v.NotNegative("amount", c.Amount)
	v.NotNegative("paid", c.Paid)
	v.Currency("currency", c.Currency, true)
	if c.State != ContractDraft {
		v.Required("starts", c.Starts.IsZero())
		v.Required("ends", c.Ends.IsZero())
	}
	v.Time("starts", c.Starts)
	v.Time("ends", c.Ends)
	v.Order("ends", c.Starts, c.Ends)
	v.Order("closed_at", c.ApprovedAt, c.ClosedAt)
	oneOf(&v, "state", c.State, ContractLifecycle().states...)
	v.Text("note", c.Note, false, MaxText)
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become c: a *TransitionError for a step that
// the table does not have, an *InvalidError with the rule fixed for a change of approved terms.
func (c *Contract) CheckUpdate(prev *Contract) error {
	if err := ContractLifecycle().CheckUpdate(prev.State, c.State); err != nil {
		return err
	}
	if prev.State == ContractDraft {
		return nil
	}
	v := Checks{Type: TypeContract}
	v.Unchanged("number", c.Number == prev.Number)
	v.Unchanged("customer", c.Customer == prev.Customer)
	v.Unchanged("quote", c.Quote == prev.Quote)
	v.Unchanged("signatory_person", c.SignatoryPerson == prev.SignatoryPerson)
	v.SameText("signatory", c.Signatory, prev.Signatory)
	v.Unchanged("amount", c.Amount == prev.Amount)
	v.Unchanged("currency", c.Currency == prev.Currency)
	v.SameTime("starts", c.Starts, prev.Starts)
	v.SameTime("ends", c.Ends, prev.Ends)
	v.SameTime("approved_at", c.ApprovedAt, prev.ApprovedAt)
	return v.Err()
}

// Move takes the contract to another state at a time. Errors are a *TransitionError, or an
// *InvalidError when the contract is not complete enough for the state.
func (c *Contract) Move(to ContractState, at time.Time) error {
	if err := ContractLifecycle().Check(c.State, to); err != nil {
		return err
	}
	next := *c
	next.State, next.UpdatedAt = to, at
	switch to {
	case ContractApproved:
		next.ApprovedAt = at
	case ContractEnded, ContractTerminated:
		next.ClosedAt = at
	}
	if err := next.Validate(); err != nil {
		return err
	}
	*c = next
	return nil
}

// Outstanding returns what is still to be paid, in minor units.
func (c *Contract) Outstanding() int64 { return max(0, c.Amount-c.Paid) }
