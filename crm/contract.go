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
	v := checks{typ: TypeContract}
	v.team(c.Team)
	v.str("number", c.Number, true, 60)
	v.reference("customer", c.Customer.IsZero())
	v.text("signatory", c.Signatory, c.State != ContractDraft, maxName)
	if !c.Signatory.IsEmpty() && c.SignatoryPerson.IsZero() {
		v.add("signatory_person", "required")
	}
	v.notNegative("amount", c.Amount)
	v.notNegative("paid", c.Paid)
	v.currency("currency", c.Currency, true)
	if c.State != ContractDraft {
		v.reference("starts", c.Starts.IsZero())
		v.reference("ends", c.Ends.IsZero())
	}
	v.times("starts", c.Starts)
	v.times("ends", c.Ends)
	v.order("ends", c.Starts, c.Ends)
	v.order("closed_at", c.ApprovedAt, c.ClosedAt)
	oneOf(&v, "state", c.State, ContractLifecycle().states...)
	v.text("note", c.Note, false, maxText)
	return v.err()
}

// CheckUpdate tells whether the stored record prev may become c: a *TransitionError for a step that
// the table does not have, an *InvalidError with the rule fixed for a change of approved terms.
func (c *Contract) CheckUpdate(prev *Contract) error {
	if err := ContractLifecycle().checkUpdate(prev.State, c.State); err != nil {
		return err
	}
	if prev.State == ContractDraft {
		return nil
	}
	v := checks{typ: TypeContract}
	v.unchanged("number", c.Number == prev.Number)
	v.unchanged("customer", c.Customer == prev.Customer)
	v.unchanged("quote", c.Quote == prev.Quote)
	v.unchanged("signatory_person", c.SignatoryPerson == prev.SignatoryPerson)
	v.unchanged("signatory", c.Signatory.State() != Clear || prev.Signatory.State() != Clear || c.Signatory.Equal(prev.Signatory))
	v.unchanged("amount", c.Amount == prev.Amount)
	v.unchanged("currency", c.Currency == prev.Currency)
	v.unchanged("starts", sameTime(c.Starts, prev.Starts))
	v.unchanged("ends", sameTime(c.Ends, prev.Ends))
	v.unchanged("approved_at", sameTime(c.ApprovedAt, prev.ApprovedAt))
	return v.err()
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
