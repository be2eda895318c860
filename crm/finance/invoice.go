package finance

import (
	"slices"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/money"
)

// InvoiceKind says which way an invoice goes.
type InvoiceKind string

// The kinds of an invoice. A credit note has positive figures that count against the invoice that it credits.
const (
	KindInvoice    InvoiceKind = "invoice"
	KindCreditNote InvoiceKind = "credit_note"
)

// InvoiceState says whether an invoice was issued.
type InvoiceState string

// The states of an invoice.
const (
	InvoiceDraft     InvoiceState = "draft"
	InvoiceIssued    InvoiceState = "issued"    // final: a credit note corrects it
	InvoiceDiscarded InvoiceState = "discarded" // final: never issued
)

// InvoiceLifecycle returns the transition table of invoices.
func InvoiceLifecycle() crm.Lifecycle[InvoiceState] {
	return crm.NewLifecycle(crm.TypeInvoice, []InvoiceState{InvoiceDraft, InvoiceIssued, InvoiceDiscarded},
		map[InvoiceState][]InvoiceState{InvoiceDraft: {InvoiceIssued, InvoiceDiscarded}})
}

// Invoice asks a customer for money, or as a credit note gives some back. Issued, it does not change.
type Invoice struct {
	crm.Meta[Invoice]
	Kind     InvoiceKind          `protect:"internal,indexed" json:"kind"`
	Number   string               `protect:"internal,indexed" json:"number"` // of a crm.Series; drawn when it is issued
	Customer crm.ID[crm.Customer] `protect:"internal,indexed" json:"customer"`
	Contract crm.ID[crm.Contract] `protect:"internal,indexed" json:"contract"` // none is allowed
	Credits  crm.ID[Invoice]      `protect:"internal,indexed" json:"credits"`  // of a credit note
	Buyer    crm.Text             `protect:"personal,mask=name,retention=tax" json:"buyer"`
	TaxID    crm.Text             `protect:"financial,mask=uscc,retention=tax" json:"tax_id"`      // of the buyer
	Account  crm.Text             `protect:"financial,mask=bankcard,retention=tax" json:"account"` // of the buyer
	Lines    []crm.Line           `protect:"internal" json:"lines"`
	Discount int64                `protect:"internal" json:"discount"`      // on the whole, basis points
	Net      int64                `protect:"internal" json:"net"`           // minor units, set by Compute
	Tax      int64                `protect:"internal" json:"tax"`           // minor units, set by Compute
	Total    int64                `protect:"internal,indexed" json:"total"` // minor units, set by Compute
	Currency string               `protect:"internal" json:"currency"`      // ISO 4217
	DueAt    time.Time            `protect:"internal,indexed" json:"due_at"`
	IssuedAt time.Time            `protect:"internal,indexed" json:"issued_at"`
	State    InvoiceState         `protect:"internal,indexed" json:"state"`
}

// Compute sets Net, Tax and Total from lines and discount, or returns what Validate says of them.
func (i *Invoice) Compute() error {
	v := crm.Checks{Type: crm.TypeInvoice}
	sum, ok := v.Lines(i.Lines, i.Discount)
	if !ok {
		return v.Err()
	}
	i.Net, i.Tax, i.Total = sum.Net, sum.Tax, sum.Total()
	return nil
}

// sums tells whether the figures are those of the lines. Those of a credit note are those that its lines had among the others of the invoice, where each was
// rounded so that all of them fit the whole: by themselves the lines may come to a few minor units more or less.
func (i *Invoice) sums(sum money.Amounts) bool {
	near := int64(0)
	if i.Kind == KindCreditNote {
		near = 2 * int64(len(i.Lines)+1)
	}
	within := func(a, b int64) bool { return a-b <= near && b-a <= near }
	total, err := money.Sum(i.Net, i.Tax)
	return err == nil && i.Total == total && i.Net >= 0 && i.Tax >= 0 && within(i.Net, sum.Net) && within(i.Tax, sum.Tax)
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (i *Invoice) Validate() error {
	v := crm.Checks{Type: crm.TypeInvoice}
	v.Team(i.Team)
	v.OneOf("kind", string(i.Kind), string(KindInvoice), string(KindCreditNote))
	v.Str("number", i.Number, i.State == InvoiceIssued, 60)
	v.Required("customer", i.Customer.IsZero())
	if (i.Kind == KindCreditNote) == i.Credits.IsZero() {
		v.Add("credits", "mismatch")
	} else if !i.Credits.IsZero() && i.Credits == i.ID {
		v.Add("credits", "bad_reference")
	}
	v.Text("buyer", i.Buyer, i.State == InvoiceIssued, crm.MaxName)
	v.Text("tax_id", i.TaxID, false, 60)
	v.Text("account", i.Account, false, 60)
	v.Required("lines", len(i.Lines) == 0 && i.State == InvoiceIssued)
	if sum, ok := v.Lines(i.Lines, i.Discount); ok && !i.sums(sum) {
		v.Add("total", "mismatch")
	}
	v.Currency("currency", i.Currency, true)
	v.Time("due_at", i.DueAt)
	InvoiceLifecycle().State(&v, "state", i.State)
	if (i.State == InvoiceIssued) == i.IssuedAt.IsZero() {
		v.Add("issued_at", "mismatch")
	}
	if i.State == InvoiceIssued && i.Kind == KindInvoice {
		v.Required("due_at", i.DueAt.IsZero())
		v.Order("due_at", i.IssuedAt, i.DueAt)
	}
	return v.Err()
}

// Reserved names the fields that nobody sets who makes or updates an invoice: Issue does, with the next number of a series.
func (i *Invoice) Reserved(bool) []string { return []string{"number", "issued_at"} }

// CheckNew refuses an invoice that does not begin as a draft: a *crm.TransitionError.
func (i *Invoice) CheckNew() error {
	if i.State != InvoiceDraft {
		return &crm.TransitionError{Type: crm.TypeInvoice, From: "new", To: known(InvoiceLifecycle(), i.State)}
	}
	return nil
}

// known keeps what is no state out of errors.
func known[S ~string](l crm.Lifecycle[S], s S) string {
	if l.Has(s) {
		return string(s)
	}
	return "unknown"
}

// CheckUpdate tells whether the stored record prev may become i: a *crm.TransitionError for a step that the table does not have, a
// *crm.InvalidError with the rule fixed for any change of what was issued.
func (i *Invoice) CheckUpdate(prev *Invoice) error {
	if err := InvoiceLifecycle().CheckUpdate(prev.State, i.State); err != nil {
		return err
	}
	v := crm.Checks{Type: crm.TypeInvoice}
	v.Unchanged("kind", i.Kind == prev.Kind && i.Credits == prev.Credits)
	if prev.State == InvoiceDraft {
		return v.Err()
	}
	v.Unchanged("number", i.Number == prev.Number)
	v.Unchanged("customer", i.Customer == prev.Customer && i.Contract == prev.Contract)
	v.SameText("buyer", i.Buyer, prev.Buyer)
	v.SameText("tax_id", i.TaxID, prev.TaxID)
	v.SameText("account", i.Account, prev.Account)
	v.Unchanged("lines", slices.Equal(i.Lines, prev.Lines) && i.Discount == prev.Discount)
	v.Unchanged("total", i.Net == prev.Net && i.Tax == prev.Tax && i.Total == prev.Total && i.Currency == prev.Currency)
	v.SameTime("due_at", i.DueAt, prev.DueAt)
	v.SameTime("issued_at", i.IssuedAt, prev.IssuedAt)
	return v.Err()
}

// Issue gives a draft its number and its time. A *crm.TransitionError when it is no draft, a *ClosedError when no open period of the books takes
// the time, a *crm.InvalidError for what it lacks.
func (i *Invoice) Issue(number string, books Books, at time.Time) error {
	if err := InvoiceLifecycle().Check(i.State, InvoiceIssued); err != nil {
		return err
	}
	if err := books.Post(at); err != nil {
		return err
	}
	next := *i
	next.State, next.Number, next.IssuedAt, next.UpdatedAt = InvoiceIssued, number, at, at
	if err := next.Validate(); err != nil {
		return err
	}
	*i = next
	return nil
}

// Discard ends a draft that is not issued, or returns a *crm.TransitionError.
func (i *Invoice) Discard(at time.Time) error {
	if err := InvoiceLifecycle().Check(i.State, InvoiceDiscarded); err != nil {
		return err
	}
	i.State, i.UpdatedAt = InvoiceDiscarded, at
	return nil
}

// Credit makes the draft of a credit note over lines of an issued invoice; nil lines credit all of them. earlier are the credit notes of
// this invoice so far, of which those that are not discarded count. A line that is one of the invoice's is credited with what it came to there, so that notes
// over all of its lines come to the invoice exactly; what is a part of one is computed anew, and when it is the last and a few minor units more than is left, it
// is what is left.
//
// A *crm.TransitionError when the invoice is not issued. A *crm.InvalidError has the rule bad_reference for a credit note of a credit note or an
// earlier one of another invoice, not_open when buyer, tax number or account were not opened, and out_of_range when more would be credited than was asked for.
func (i *Invoice) Credit(id crm.ID[Invoice], lines []crm.Line, earlier []*Invoice, at time.Time) (*Invoice, error) {
	if i.State != InvoiceIssued {
		from := "unknown"
		if InvoiceLifecycle().Has(i.State) {
			from = string(i.State)
		}
		return nil, &crm.TransitionError{Type: crm.TypeInvoice, From: from, To: "credited"}
	}
	v := crm.Checks{Type: crm.TypeInvoice}
	v.Required("id", id.IsZero())
	if i.Kind != KindInvoice {
		v.Add("credits", "bad_reference")
	}
	v.Open("buyer", i.Buyer)
	v.Open("tax_id", i.TaxID)
	v.Open("account", i.Account)
	note := &Invoice{
		Meta: crm.Meta[Invoice]{ID: id, Person: i.Person, Owner: i.Owner, Team: i.Team, CreatedAt: at, UpdatedAt: at},
		Kind: KindCreditNote, Customer: i.Customer, Contract: i.Contract, Credits: i.ID, Buyer: i.Buyer, TaxID: i.TaxID, Account: i.Account,
		Lines: slices.Clone(lines), Discount: i.Discount, Currency: i.Currency, State: InvoiceDraft,
	}
	if lines == nil {
		note.Lines = slices.Clone(i.Lines)
	}
	if err := note.Compute(); err != nil {
		return nil, err
	}
	var net, tax int64 // credited so far
	for _, e := range earlier {
		switch {
		case e.Credits != i.ID || e.Currency != i.Currency:
			v.Add("earlier", "bad_reference")
		case e.counts():
			var err1, err2 error
			net, err1 = money.Sum(net, e.Net)
			tax, err2 = money.Sum(tax, e.Tax)
			if err1 != nil || err2 != nil {
				v.Add("lines", "out_of_range")
				return nil, v.Err()
			}
		}
	}
	if err := i.share(note, earlier); err != nil {
		return nil, err
	}
	near := int64(len(note.Lines) + 1)
	left, leftTax := max(0, i.Net-net), max(0, i.Tax-tax)
	if note.Net-left > near || note.Tax-leftTax > near {
		v.Add("lines", "out_of_range")
	}
	note.Net, note.Tax = min(note.Net, left), min(note.Tax, leftTax)
	note.Total = note.Net + note.Tax
	if err := v.Err(); err != nil {
		return nil, err
	}
	return note, nil
}

// counts tells whether a credit note takes something of its invoice.
func (i *Invoice) counts() bool { return i.State != InvoiceDiscarded && !i.Deleted }

// share gives a note the figures that its lines have in the invoice, where they are lines of it that no earlier note has; other lines have those of
// their own.
func (i *Invoice) share(note *Invoice, earlier []*Invoice) error {
	mine, err := each(i.Lines, i.Discount)
	if err != nil {
		return err
	}
	own, err := each(note.Lines, note.Discount)
	if err != nil {
		return err
	}
	taken := make([]bool, len(i.Lines))
	take := func(l crm.Line) (int, bool) {
		for n := range i.Lines {
			if !taken[n] && i.Lines[n] == l {
				taken[n] = true
				return n, true
			}
		}
		return 0, false
	}
	for _, e := range earlier {
		if e.counts() {
			for _, l := range e.Lines {
				take(l)
			}
		}
	}
	note.Net, note.Tax = 0, 0
	for n, l := range note.Lines {
		a := own[n]
		if at, ok := take(l); ok {
			a = mine[at]
		}
		note.Net, note.Tax = note.Net+a.Net, note.Tax+a.Tax // lines that have a sum
	}
	return nil
}

// each returns the figures of each line.
func each(lines []crm.Line, discount int64) ([]money.Amounts, error) {
	list := make([]money.Line, len(lines))
	for n, l := range lines {
		list[n] = money.Line{Quantity: l.Quantity*money.Unit + l.Milli, UnitPrice: l.UnitPrice, Discount: l.Discount, Tax: l.Tax}
	}
	out, _, err := money.Add(list, discount)
	return out, err
}
