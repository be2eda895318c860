package finance

import (
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/money"
)

// ReceiptState says whether a receipt counts.
type ReceiptState string

// The states of a receipt.
const (
	ReceiptReported ReceiptState = "reported" // somebody says that the money came
	ReceiptApproved ReceiptState = "approved" // it came; final
	ReceiptRefused  ReceiptState = "refused"  // it did not; final
)

// ReceiptLifecycle returns the transition table of receipts.
func ReceiptLifecycle() crm.Lifecycle[ReceiptState] {
	return crm.NewLifecycle(crm.TypeReceipt, []ReceiptState{ReceiptReported, ReceiptApproved, ReceiptRefused},
		map[ReceiptState][]ReceiptState{ReceiptReported: {ReceiptApproved, ReceiptRefused}})
}

// Method says how money moved.
type Method string

// The methods of a payment.
const (
	MethodBank   Method = "bank"
	MethodCard   Method = "card"
	MethodWeChat Method = "wechat"
	MethodAlipay Method = "alipay"
	MethodCheque Method = "cheque"
	MethodCash   Method = "cash"
	MethodOther  Method = "other"
)

// Receipt is money that came for a contract, or, with a negative amount, the reversal of one that did not stay.
type Receipt struct {
	crm.Meta[Receipt]
	Contract   crm.ID[crm.Contract] `protect:"internal,indexed" json:"contract"`
	Customer   crm.ID[crm.Customer] `protect:"internal,indexed" json:"customer"`
	Instalment crm.ID[Instalment]   `protect:"internal,indexed" json:"instalment"` // that it is matched to; none: not matched
	Reverses   crm.ID[Receipt]      `protect:"internal,indexed" json:"reverses"`   // of a reversal
	Amount     int64                `protect:"internal,indexed" json:"amount"`     // minor units; negative for a reversal
	Currency   string               `protect:"internal" json:"currency"`           // ISO 4217
	At         time.Time            `protect:"internal,indexed" json:"at"`         // when it came
	Method     Method               `protect:"internal" json:"method"`
	Payer      crm.Text             `protect:"personal,mask=name,retention=tax" json:"payer"`
	Account    crm.Text             `protect:"financial,mask=bankcard,retention=tax" json:"account"` // of the payer
	Reference  crm.Text             `protect:"financial,mask=last4,retention=tax" json:"reference"`  // of the transaction, at the bank
	State      ReceiptState         `protect:"internal,indexed" json:"state"`
	Actors     string               `protect:"internal" json:"actors"`   // who made or changed it, each in angle brackets; none of them approves it
	Approver   crm.ID[crm.Employee] `protect:"internal" json:"approver"` // who approved or refused
	DecidedAt  time.Time            `protect:"internal" json:"decided_at"`
}

// counts tells whether a receipt is money at a time.
func (r *Receipt) counts(at time.Time) bool {
	return !r.Deleted && r.State == ReceiptApproved && !r.At.After(at)
}

// Reserved names the fields that no update sets: Decide does.
func (r *Receipt) Reserved(bool) []string { return []string{"approver", "decided_at"} }

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (r *Receipt) Validate() error {
	v := crm.Checks{Type: crm.TypeReceipt}
	v.Team(r.Team)
	v.Required("contract", r.Contract.IsZero())
	v.Required("customer", r.Customer.IsZero())
	switch {
	case r.Amount == 0:
		v.Add("amount", "required")
	case r.Amount < -money.Most:
		v.Add("amount", "out_of_range")
	case r.Reverses.IsZero():
		v.NotNegative("amount", r.Amount)
	case r.Amount > 0:
		v.Add("amount", "mismatch")
	}
	if !r.Reverses.IsZero() && r.Reverses == r.ID {
		v.Add("reverses", "bad_reference")
	}
	v.Currency("currency", r.Currency, true)
	v.Required("at", r.At.IsZero())
	v.Time("at", r.At)
	v.OneOf("method", string(r.Method), string(MethodBank), string(MethodCard), string(MethodWeChat), string(MethodAlipay),
		string(MethodCheque), string(MethodCash), string(MethodOther))
	v.Text("payer", r.Payer, false, crm.MaxName)
	v.Text("account", r.Account, false, 60)
	v.Text("reference", r.Reference, false, 100)
	ReceiptLifecycle().State(&v, "state", r.State)
	if (r.State == ReceiptReported) == !r.Approver.IsZero() {
		v.Add("state", "mismatch")
	}
	v.Approval(r.Approver, r.Owner, r.DecidedAt)
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become r: a *crm.TransitionError for a step that the table does not have, a
// *crm.InvalidError with the rule fixed for a change of what was decided. What was approved may still be matched to another instalment.
func (r *Receipt) CheckUpdate(prev *Receipt) error {
	if err := ReceiptLifecycle().CheckUpdate(prev.State, r.State); err != nil {
		return err
	}
	v := crm.Checks{Type: crm.TypeReceipt}
	v.Unchanged("contract", r.Contract == prev.Contract && r.Customer == prev.Customer)
	v.Unchanged("reverses", r.Reverses == prev.Reverses)
	if prev.State != ReceiptReported {
		v.Unchanged("amount", r.Amount == prev.Amount && r.Currency == prev.Currency)
		v.SameTime("at", r.At, prev.At)
		v.Unchanged("method", r.Method == prev.Method)
		v.SameText("payer", r.Payer, prev.Payer)
		v.SameText("account", r.Account, prev.Account)
		v.SameText("reference", r.Reference, prev.Reference)
		v.Unchanged("approver", r.Approver == prev.Approver)
		v.SameTime("decided_at", r.DecidedAt, prev.DecidedAt)
	}
	return v.Err()
}

// Decide approves or refuses a reported receipt in the name of by, who is not its owner: else the rule is four_eyes. A step that the table
// does not have is a *crm.TransitionError; books that are closed at the time of the receipt are a *ClosedError.
func (r *Receipt) Decide(by crm.ID[crm.Employee], to ReceiptState, books Books, at time.Time) error {
	if err := ReceiptLifecycle().Check(r.State, to); err != nil {
		return err
	}
	if to == ReceiptApproved {
		if err := books.Post(r.At); err != nil {
			return err
		}
	}
	next := *r
	next.State, next.Approver, next.DecidedAt, next.UpdatedAt = to, by, at, at
	if err := next.Validate(); err != nil {
		return err
	}
	*r = next
	return nil
}

// Fits tells whether a reversal undoes the receipt first, as [Balance] wants it: a *crm.InvalidError has the rule bad_reference when that is another, is not approved
// or is a reversal itself, mismatch for other money or another contract, and too_early before it came.
func (r *Receipt) Fits(first *Receipt) error {
	v := crm.Checks{Type: crm.TypeReceipt}
	if first.ID != r.Reverses || first.State != ReceiptApproved || first.Deleted || !first.Reverses.IsZero() {
		v.Add("reverses", "bad_reference")
		return v.Err()
	}
	if first.Contract != r.Contract || first.Customer != r.Customer {
		v.Add("contract", "mismatch")
	}
	if first.Amount != -r.Amount || first.Currency != r.Currency {
		v.Add("amount", "mismatch")
	}
	if r.At.Before(first.At) {
		v.Add("at", "too_early")
	}
	return v.Err()
}

// Reverse makes the reversal of an approved receipt: the same money, negative, at a time of its own, to be approved like any other.
// A receipt that is not approved is a *crm.TransitionError; a *crm.InvalidError has the rule bad_reference for the reversal of a reversal,
// too_early before the receipt, and required without an id.
func (r *Receipt) Reverse(id crm.ID[Receipt], at time.Time) (*Receipt, error) {
	if r.State != ReceiptApproved {
		from := "unknown"
		if ReceiptLifecycle().Has(r.State) {
			from = string(r.State)
		}
		return nil, &crm.TransitionError{Type: crm.TypeReceipt, From: from, To: "reversed"}
	}
	v := crm.Checks{Type: crm.TypeReceipt}
	v.Required("id", id.IsZero())
	if !r.Reverses.IsZero() {
		v.Add("reverses", "bad_reference")
	}
	if at.Before(r.At) {
		v.Add("at", "too_early")
	}
	if err := v.Err(); err != nil {
		return nil, err
	}
	return &Receipt{
		Meta:     crm.Meta[Receipt]{ID: id, Person: r.Person, Owner: r.Owner, Team: r.Team, CreatedAt: at, UpdatedAt: at},
		Contract: r.Contract, Customer: r.Customer, Instalment: r.Instalment, Reverses: r.ID, Amount: -r.Amount, Currency: r.Currency,
		At: at, Method: r.Method, State: ReceiptReported,
	}, nil
}
