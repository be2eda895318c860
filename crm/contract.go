package crm

import (
	"slices"
	"strconv"
	"time"
)

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

// PartyRole says what a party of a contract is.
type PartyRole string

// The roles of a party.
const (
	PartySeller    PartyRole = "seller"
	PartyBuyer     PartyRole = "buyer"
	PartyGuarantor PartyRole = "guarantor"
	PartyWitness   PartyRole = "witness"
)

// Party is one who signs a contract. It refers to records by their ids only: the names lie with the contact, the customer or the
// employee, under the key of that human.
type Party struct {
	Role     PartyRole    `json:"role"`
	Contact  ID[Contact]  `json:"contact,omitzero"`
	Customer ID[Customer] `json:"customer,omitzero"`
	Employee ID[Employee] `json:"employee,omitzero"` // who signs for us
	SignedAt time.Time    `json:"signed_at,omitzero"`
}

// who tells whether two parties are the same one.
func (p Party) who(o Party) bool {
	return p.Role == o.Role && p.Contact == o.Contact && p.Customer == o.Customer && p.Employee == o.Employee
}

// EndReason says why a contract was terminated.
type EndReason string

// The reasons of a termination.
const (
	EndMutual     EndReason = "mutual"
	EndNotice     EndReason = "notice"
	EndBreach     EndReason = "breach"
	EndInsolvency EndReason = "insolvency"
	EndOther      EndReason = "other"
)

// Contract binds a customer. Who signed for it is kept under the signatory's own key and the
// retention of contracts, so that it outlives an erasure only as long as the law asks.
type Contract struct {
	Meta[Contract]
	Number          string        `protect:"internal,indexed" json:"number"`
	Customer        ID[Customer]  `protect:"internal,indexed" json:"customer"`
	Quote           ID[Quote]     `protect:"internal,indexed" json:"quote"`    // the accepted offer; none is allowed
	SignatoryPerson ID[Person]    `protect:"internal" json:"signatory_person"` // required beside a signatory
	Parties         []Party       `protect:"internal" json:"parties"`
	Renews          ID[Contract]  `protect:"internal,indexed" json:"renews"` // the contract before; none for the first
	Lines           []Line        `protect:"internal" json:"lines"`          // may be empty; their sum is the amount
	Discount        int64         `protect:"internal" json:"discount"`       // on all lines, basis points
	Signatory       Text          `protect:"personal,mask=name,person=SignatoryPerson,retention=contract" json:"signatory"`
	Amount          int64         `protect:"internal,indexed" json:"amount"` // minor units, tax included
	Paid            int64         `protect:"internal" json:"paid"`           // minor units
	Currency        string        `protect:"internal" json:"currency"`       // ISO 4217
	Starts          time.Time     `protect:"internal,indexed" json:"starts"`
	Ends            time.Time     `protect:"internal,indexed" json:"ends"`
	State           ContractState `protect:"internal,indexed" json:"state"`
	RemindDays      int64         `protect:"internal" json:"remind_days"` // days before the end at which somebody is told; 0: nobody
	Actors          string        `protect:"internal" json:"actors"`      // who made or changed it, each in angle brackets; none of them approves it
	Approver        ID[Employee]  `protect:"internal" json:"approver"`    // beside ApprovedAt, when it is known
	ApprovedAt      time.Time     `protect:"internal" json:"approved_at"`
	ClosedAt        time.Time     `protect:"internal" json:"closed_at"` // ended or terminated
	EndReason       EndReason     `protect:"internal" json:"end_reason"`
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
	seen := map[Party]bool{}
	for i, p := range c.Parties {
		at := "parties." + strconv.Itoa(i)
		oneOf(&v, at+".role", p.Role, PartySeller, PartyBuyer, PartyGuarantor, PartyWitness)
		v.Required(at, p.Contact.IsZero() && p.Customer.IsZero() && p.Employee.IsZero())
		if c.State == ContractDraft && !p.SignedAt.IsZero() {
			v.Add(at, "too_early") // nobody has approved it
		}
		p.SignedAt = time.Time{}
		if seen[p] {
			v.Add(at, "repeated")
		}
		seen[p] = true
	}
	if len(c.Parties) > 20 {
		v.Add("parties", "too_long")
	}
	if !c.Renews.IsZero() && c.Renews == c.ID {
		v.Add("renews", "bad_reference")
	}
	if sum, ok := v.Lines(c.Lines, c.Discount); ok && len(c.Lines) > 0 && sum.Total() != c.Amount {
		v.Add("amount", "mismatch")
	}
	v.NotNegative("amount", c.Amount)
	v.NotNegative("paid", c.Paid)
	if c.Paid > c.Amount && c.Amount >= 0 { // more is a receipt's credit
		v.Add("paid", "out_of_range")
	}
	v.Currency("currency", c.Currency, true)
	if c.State != ContractDraft {
		v.Required("starts", c.Starts.IsZero())
		v.Required("ends", c.Ends.IsZero())
	}
	v.Time("starts", c.Starts)
	v.Time("ends", c.Ends)
	v.Order("ends", c.Starts, c.Ends)
	v.Range("remind_days", c.RemindDays, 0, 3660)
	if !c.Approver.IsZero() {
		v.Approval(c.Approver, c.Owner, c.ApprovedAt)
	}
	v.Order("closed_at", c.ApprovedAt, c.ClosedAt)
	if c.State != ContractEnded && c.State != ContractTerminated && !c.ClosedAt.IsZero() {
		v.Add("closed_at", "mismatch")
	}
	if c.EndReason != "" {
		oneOf(&v, "end_reason", c.EndReason, EndMutual, EndNotice, EndBreach, EndInsolvency, EndOther)
		if c.State != ContractTerminated {
			v.Add("end_reason", "mismatch")
		}
	}
	oneOf(&v, "state", c.State, ContractLifecycle().states...)
	v.Text("note", c.Note, false, MaxText)
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become c: a *TransitionError for a step that
// the table does not have, an *InvalidError with the rule fixed for a change of approved terms, required for an approval by nobody, an end at no time or a termination without a reason,
// and too_early for a party that signed before the approval.
func (c *Contract) CheckUpdate(prev *Contract) error {
	if err := ContractLifecycle().CheckUpdate(prev.State, c.State); err != nil {
		return err
	}
	v := Checks{Type: TypeContract}
	if prev.State == ContractApproved && c.State == ContractActive && !c.Signed() {
		v.Add("parties", "not_signed")
	}
	for i, p := range c.Parties {
		signed := i >= len(prev.Parties) || !sameTime(p.SignedAt, prev.Parties[i].SignedAt)
		if signed && !p.SignedAt.IsZero() && p.SignedAt.Before(c.ApprovedAt) {
			v.Add("parties."+strconv.Itoa(i), "too_early")
		}
	}
	closed := c.State == ContractEnded || c.State == ContractTerminated
	v.Required("closed_at", closed && c.State != prev.State && c.ClosedAt.IsZero())
	v.Required("end_reason", c.State == ContractTerminated && c.State != prev.State && c.EndReason == "")
	if prev.State == ContractDraft {
		v.Required("approver", c.State == ContractApproved && c.Approver.IsZero())
		return v.Err()
	}
	v.Unchanged("number", c.Number == prev.Number)
	v.Unchanged("customer", c.Customer == prev.Customer)
	v.Unchanged("quote", c.Quote == prev.Quote)
	v.Unchanged("signatory_person", c.SignatoryPerson == prev.SignatoryPerson)
	v.SameText("signatory", c.Signatory, prev.Signatory)
	v.Unchanged("parties", sameParties(c.Parties, prev.Parties))
	v.Unchanged("renews", c.Renews == prev.Renews)
	v.Unchanged("lines", slices.Equal(c.Lines, prev.Lines) && c.Discount == prev.Discount)
	v.Unchanged("amount", c.Amount == prev.Amount)
	v.Unchanged("currency", c.Currency == prev.Currency)
	v.SameTime("starts", c.Starts, prev.Starts)
	v.SameTime("ends", c.Ends, prev.Ends)
	v.SameTime("approved_at", c.ApprovedAt, prev.ApprovedAt)
	v.Unchanged("approver", c.Approver == prev.Approver)
	if ContractLifecycle().Next(prev.State) == nil {
		v.SameTime("closed_at", c.ClosedAt, prev.ClosedAt)
		v.Unchanged("end_reason", c.EndReason == prev.EndReason)
	}
	return v.Err()
}

// sameParties tells whether the parties of an approved contract are those that were approved; who had not signed may sign.
func sameParties(now, prev []Party) bool {
	return slices.EqualFunc(now, prev, func(a, b Party) bool {
		return a.who(b) && (b.SignedAt.IsZero() || sameTime(a.SignedAt, b.SignedAt))
	})
}

// Approve takes a draft to approved in the name of by, who is not the owner: else the rule is four_eyes. Other errors are
// those of Move.
func (c *Contract) Approve(by ID[Employee], at time.Time) error {
	v := Checks{Type: TypeContract}
	v.Required("approver", by.IsZero())
	if !by.IsZero() && by == c.Owner {
		v.Add("approver", "four_eyes")
	}
	if err := v.Err(); err != nil {
		return err
	}
	next := *c
	next.Approver, next.ApprovedAt = by, at
	if err := next.Move(ContractApproved, at); err != nil {
		return err
	}
	*c = next
	return nil
}

// Reserved names the fields that no update sets: an approval is given by Approve, an approved contract is signed by Sign, and ends by an act at its time.
func (c *Contract) Reserved(isNew bool) []string {
	if isNew { // an import brings when it was approved, not by whom here
		return []string{"approver"}
	}
	names := []string{"approver", "approved_at", "closed_at"}
	if c.State != ContractDraft {
		names = append(names, "parties")
	}
	return names
}

// CheckNew refuses a contract that does not begin as a draft: a *TransitionError.
func (c *Contract) CheckNew() error {
	if c.State != ContractDraft {
		return &TransitionError{Type: TypeContract, From: "new", To: ContractLifecycle().name(c.State)}
	}
	return nil
}

// Sign notes when the i-th party signed an approved contract, once. In another state it is a *TransitionError; an
// *InvalidError has the rule bad_reference for no such party, fixed for one that has signed, too_early before the approval.
func (c *Contract) Sign(i int, at time.Time) error {
	if c.State != ContractApproved {
		return &TransitionError{Type: TypeContract, From: ContractLifecycle().name(c.State), To: "signed"}
	}
	v := Checks{Type: TypeContract}
	switch {
	case i < 0 || i >= len(c.Parties):
		v.Add("parties", "bad_reference")
	case !c.Parties[i].SignedAt.IsZero():
		v.Add("parties."+strconv.Itoa(i), "fixed")
	case at.Before(c.ApprovedAt):
		v.Add("parties."+strconv.Itoa(i), "too_early")
	}
	if err := v.Err(); err != nil {
		return err
	}
	c.Parties = slices.Clone(c.Parties) // another copy of the record does not sign with it
	c.Parties[i].SignedAt, c.UpdatedAt = at, at
	return nil
}

// Signed tells whether every party has signed; a contract that lists none needs nobody else.
func (c *Contract) Signed() bool {
	return !slices.ContainsFunc(c.Parties, func(p Party) bool { return p.SignedAt.IsZero() })
}

// Terminate ends an approved or active contract before its time, or returns the errors of Move.
func (c *Contract) Terminate(why EndReason, at time.Time) error {
	next := *c
	next.EndReason = why
	if why == "" {
		return &InvalidError{Type: TypeContract, Fields: []FieldError{{"end_reason", "required"}}}
	}
	if err := next.Move(ContractTerminated, at); err != nil {
		return err
	}
	*c = next
	return nil
}

// Renew makes the contract that follows on an active or ended one: a draft over the same lines and parties, none of whom has
// signed, from the end of this one on. Errors are a *TransitionError for any other state, and an *InvalidError without id or number, when
// the new end is not later (before_start), or when signatory or note were not opened (not_open).
func (c *Contract) Renew(id ID[Contract], number string, ends, at time.Time) (*Contract, error) {
	if c.State != ContractActive && c.State != ContractEnded {
		return nil, &TransitionError{Type: TypeContract, From: ContractLifecycle().name(c.State), To: "renewed"}
	}
	v := Checks{Type: TypeContract}
	v.Required("id", id.IsZero())
	v.Open("signatory", c.Signatory)
	v.Open("note", c.Note)
	if !ends.After(c.Ends) {
		v.Add("ends", "before_start")
	}
	if err := v.Err(); err != nil {
		return nil, err
	}
	next := *c
	next.Meta = Meta[Contract]{ID: id, Person: c.Person, Owner: c.Owner, Team: c.Team, CreatedAt: at, UpdatedAt: at}
	next.Number, next.Renews, next.Quote, next.State = number, c.ID, ID[Quote]{}, ContractDraft
	next.Starts, next.Ends, next.Paid = c.Ends, ends, 0
	next.Approver, next.ApprovedAt, next.ClosedAt, next.EndReason = ID[Employee]{}, time.Time{}, time.Time{}, ""
	next.Lines, next.Parties = slices.Clone(c.Lines), slices.Clone(c.Parties)
	for i := range next.Parties {
		next.Parties[i].SignedAt = time.Time{}
	}
	if err := next.Validate(); err != nil {
		return nil, err
	}
	return &next, nil
}

// Reminder returns when somebody is to be told that an active contract ends; ok is false when nobody is.
func (c *Contract) Reminder() (at time.Time, ok bool) {
	if c.State != ContractActive || c.RemindDays <= 0 || c.Ends.IsZero() {
		return time.Time{}, false
	}
	return c.Ends.AddDate(0, 0, -int(c.RemindDays)), true
}

// Move takes the contract to another state at a time. Errors are a *TransitionError, or an
// *InvalidError when the contract is not complete enough for the state: one that lists parties becomes active when all of them have
// signed (not_signed).
func (c *Contract) Move(to ContractState, at time.Time) error {
	if err := ContractLifecycle().Check(c.State, to); err != nil {
		return err
	}
	next := *c
	next.State, next.UpdatedAt = to, at
	switch to {
	case ContractApproved:
		next.ApprovedAt = at
	case ContractActive:
		if !c.Signed() {
			return &InvalidError{Type: TypeContract, Fields: []FieldError{{"parties", "not_signed"}}}
		}
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
