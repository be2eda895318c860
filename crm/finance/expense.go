package finance

import (
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/money"
)

// ExpenseState says how far an expense has come.
type ExpenseState string

// The states of an expense.
const (
	ExpenseDraft     ExpenseState = "draft"
	ExpenseSubmitted ExpenseState = "submitted"
	ExpenseApproved  ExpenseState = "approved"
	ExpenseRefused   ExpenseState = "refused" // may be corrected: a draft again
	ExpensePaid      ExpenseState = "paid"    // final
)

// ExpenseLifecycle returns the transition table of expenses.
func ExpenseLifecycle() crm.Lifecycle[ExpenseState] {
	return crm.NewLifecycle(crm.TypeExpense,
		[]ExpenseState{ExpenseDraft, ExpenseSubmitted, ExpenseApproved, ExpenseRefused, ExpensePaid},
		map[ExpenseState][]ExpenseState{
			ExpenseDraft: {ExpenseSubmitted}, ExpenseSubmitted: {ExpenseApproved, ExpenseRefused, ExpenseDraft},
			ExpenseApproved: {ExpensePaid}, ExpenseRefused: {ExpenseDraft},
		})
}

// Expense is money that its owner spent and gets back.
type Expense struct {
	crm.Meta[Expense]
	Category  string               `protect:"internal,indexed" json:"category"` // travel, meals, post
	Amount    int64                `protect:"internal,indexed" json:"amount"`   // minor units, tax included
	Currency  string               `protect:"internal" json:"currency"`         // ISO 4217
	SpentAt   time.Time            `protect:"internal,indexed" json:"spent_at"`
	Customer  crm.ID[crm.Customer] `protect:"internal,indexed" json:"customer"` // for whom; none is allowed
	Project   crm.UUID             `protect:"internal,indexed" json:"project"`  // none is allowed
	Note      crm.Text             `protect:"personal,retention=tax" json:"note"`
	Account   crm.Text             `protect:"financial,mask=bankcard,retention=tax" json:"account"` // to which it is paid
	State     ExpenseState         `protect:"internal,indexed" json:"state"`
	Actors    string               `protect:"internal" json:"actors"`   // who made or changed it, each in angle brackets; none of them approves it
	Approver  crm.ID[crm.Employee] `protect:"internal" json:"approver"` // who approved or refused last
	DecidedAt time.Time            `protect:"internal" json:"decided_at"`
	PaidAt    time.Time            `protect:"internal,indexed" json:"paid_at"`
}

// Reserved names the fields that no update sets: an approval, a refusal or a payment does, each an act of its own (Move).
func (e *Expense) Reserved(bool) []string { return []string{"approver", "decided_at", "paid_at"} }

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (e *Expense) Validate() error {
	v := crm.Checks{Type: crm.TypeExpense}
	v.Team(e.Team)
	v.Required("owner", e.Owner.IsZero())
	v.Str("category", e.Category, true, 60)
	v.Range("amount", e.Amount, 1, money.Most)
	v.Currency("currency", e.Currency, true)
	v.Required("spent_at", e.SpentAt.IsZero())
	v.Time("spent_at", e.SpentAt)
	v.Text("note", e.Note, false, crm.MaxText)
	v.Text("account", e.Account, false, 60)
	ExpenseLifecycle().State(&v, "state", e.State)
	v.Approval(e.Approver, e.Owner, e.DecidedAt)
	decided := e.State == ExpenseApproved || e.State == ExpenseRefused || e.State == ExpensePaid
	if decided == e.Approver.IsZero() {
		v.Add("state", "mismatch")
	}
	if (e.State == ExpensePaid) == e.PaidAt.IsZero() {
		v.Add("paid_at", "mismatch")
	}
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become e: a *crm.TransitionError for a step that the table does not have, a
// *crm.InvalidError with the rule fixed for a change of what is no draft.
func (e *Expense) CheckUpdate(prev *Expense) error {
	if err := ExpenseLifecycle().CheckUpdate(prev.State, e.State); err != nil {
		return err
	}
	v := crm.Checks{Type: crm.TypeExpense}
	v.Unchanged("owner", e.Owner == prev.Owner)
	if prev.State == ExpenseDraft {
		return v.Err()
	}
	v.Unchanged("amount", e.Amount == prev.Amount && e.Currency == prev.Currency)
	v.Unchanged("category", e.Category == prev.Category)
	v.SameTime("spent_at", e.SpentAt, prev.SpentAt)
	v.SameText("note", e.Note, prev.Note)
	v.SameText("account", e.Account, prev.Account)
	if prev.State != ExpenseSubmitted && e.State != ExpenseDraft {
		v.Unchanged("approver", e.Approver == prev.Approver && e.DecidedAt.Equal(prev.DecidedAt))
	}
	return v.Err()
}

// Move takes the expense to another state at a time in the name of by. Who approves or refuses is not the owner: else the rule is
// four_eyes. Who submits, takes back or corrects is: else it is mismatch. Money is paid when the books take the time: else a *ClosedError. A
// step that the table does not have is a *crm.TransitionError.
func (e *Expense) Move(to ExpenseState, by crm.ID[crm.Employee], books Books, at time.Time) error {
	if err := ExpenseLifecycle().Check(e.State, to); err != nil {
		return err
	}
	next := *e
	next.State, next.UpdatedAt = to, at
	v := crm.Checks{Type: crm.TypeExpense}
	v.Required("by", by.IsZero())
	switch to {
	case ExpenseSubmitted, ExpenseDraft:
		if by != e.Owner && !by.IsZero() {
			v.Add("owner", "mismatch")
		}
		next.Approver, next.DecidedAt = crm.ID[crm.Employee]{}, time.Time{}
	case ExpenseApproved, ExpenseRefused:
		next.Approver, next.DecidedAt = by, at
	case ExpensePaid:
		if by == e.Owner {
			v.Add("by", "four_eyes")
		}
		if err := books.Post(at); err != nil {
			return err
		}
		next.PaidAt = at
	}
	if err := v.Err(); err != nil {
		return err
	}
	if err := next.Validate(); err != nil {
		return err
	}
	*e = next
	return nil
}
