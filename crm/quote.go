package crm

import (
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/crmguard/crmguard/crm/money"
)

// QuoteState says where an offer stands.
type QuoteState string

// The states of a quote.
const (
	QuoteDraft    QuoteState = "draft"
	QuoteSent     QuoteState = "sent"
	QuoteAccepted QuoteState = "accepted" // final
	QuoteDeclined QuoteState = "declined" // final
	QuoteExpired  QuoteState = "expired"  // final
	// QuoteWithdrawn is taken back by us, as a newer version does with the one before it; final.
	QuoteWithdrawn QuoteState = "withdrawn"
)

// QuoteLifecycle returns the transition table of quotes.
func QuoteLifecycle() Lifecycle[QuoteState] {
	return Lifecycle[QuoteState]{
		typ:    TypeQuote,
		states: []QuoteState{QuoteDraft, QuoteSent, QuoteAccepted, QuoteDeclined, QuoteExpired, QuoteWithdrawn},
		next: map[QuoteState][]QuoteState{
			QuoteDraft: {QuoteSent},
			QuoteSent:  {QuoteAccepted, QuoteDeclined, QuoteExpired, QuoteWithdrawn},
		},
	}
}

// Line is one line of a quote or a contract. A basis point is a hundredth of a percent.
type Line struct {
	Product   string `json:"product"`
	Item      UUID   `json:"item,omitzero"`   // of a list of products; none for a text
	Quantity  int64  `json:"quantity"`        // whole units
	Milli     int64  `json:"milli,omitempty"` // and thousandths of one, 0 to 999
	UnitPrice int64  `json:"unit_price"`      // minor units, without tax
	Discount  int64  `json:"discount"`        // basis points, 0 to 10,000
	Tax       int64  `json:"tax"`             // basis points, 0 to 10,000
}

// Amounts returns the line's price after discount and the tax on it, in minor units, each rounded
// half up; ok is false when a figure is negative, out of range or overflows.
func (l Line) Amounts() (net, tax int64, ok bool) {
	m, ok := l.money()
	if !ok {
		return 0, 0, false
	}
	a, err := m.Amounts()
	return a.Net, a.Tax, err == nil
}

// money returns the line as package money knows it.
func (l Line) money() (money.Line, bool) {
	if l.Milli < 0 || l.Milli >= money.Unit || l.Quantity < 0 || l.Quantity > (math.MaxInt64-l.Milli)/money.Unit {
		return money.Line{}, false
	}
	return money.Line{Quantity: l.Quantity*money.Unit + l.Milli, UnitPrice: l.UnitPrice, Discount: l.Discount, Tax: l.Tax}, true
}

// total adds up lines after a discount on the whole, in basis points. ok is false when they have no sum.
func total(lines []Line, discount int64) (a money.Amounts, ok bool) {
	list := make([]money.Line, len(lines))
	for i, l := range lines {
		if list[i], ok = l.money(); !ok {
			return money.Amounts{}, false
		}
	}
	_, a, err := money.Add(list, discount)
	return a, err == nil && a.Total() <= money.Most
}

// Lines checks lines and the discount on the whole, and returns their sum in minor units; ok is false when a rule that was noted
// says why there is none.
func (c *Checks) Lines(lines []Line, discount int64) (sum money.Amounts, ok bool) {
	n := len(c.fields)
	if len(lines) > 500 {
		c.Add("lines", "too_long")
	}
	for i, l := range lines {
		at := "lines." + strconv.Itoa(i)
		c.Str(at+".product", l.Product, true, MaxName)
		if l.Quantity < 0 || l.UnitPrice < 0 {
			c.Add(at, "negative")
		} else if _, _, fits := l.Amounts(); !fits {
			c.Add(at, "out_of_range")
		}
	}
	c.Range("discount", discount, 0, money.Basis)
	sum, ok = total(lines, discount)
	if !ok && len(c.fields) == n {
		c.Add("lines", "out_of_range")
	}
	return sum, ok
}

// Quote is an offer to a customer. Its lines and terms cannot change once it was sent: Revise makes a new version, with the
// same number.
type Quote struct {
	Meta[Quote]
	Number     string       `protect:"internal,indexed" json:"number"`
	Customer   ID[Customer] `protect:"internal,indexed" json:"customer"`
	Deal       UUID         `protect:"internal,indexed" json:"deal"`    // the opportunity; none is allowed
	Revision   int64        `protect:"internal" json:"revision"`        // counts versions from 1; 0 is the first too
	Revises    ID[Quote]    `protect:"internal,indexed" json:"revises"` // the version before; none for the first
	Lines      []Line       `protect:"internal" json:"lines"`
	Discount   int64        `protect:"internal" json:"discount"`      // on the whole, after the lines' own; basis points
	Currency   string       `protect:"internal" json:"currency"`      // ISO 4217
	Net        int64        `protect:"internal" json:"net"`           // minor units, set by Compute
	Tax        int64        `protect:"internal" json:"tax"`           // minor units, set by Compute
	Total      int64        `protect:"internal,indexed" json:"total"` // minor units, set by Compute
	ValidUntil time.Time    `protect:"internal,indexed" json:"valid_until"`
	State      QuoteState   `protect:"internal,indexed" json:"state"`
	Actors     string       `protect:"internal" json:"actors"`   // who made or changed it, each in angle brackets; none of them approves it
	Approver   ID[Employee] `protect:"internal" json:"approver"` // who agreed to the discounts
	ApprovedAt time.Time    `protect:"internal" json:"approved_at"`
	SentAt     time.Time    `protect:"internal" json:"sent_at"`
	DecidedAt  time.Time    `protect:"internal" json:"decided_at"` // accepted, declined, expired or withdrawn
	Note       Text         `protect:"personal" json:"note"`
}

// Compute sets Net, Tax and Total from the lines and the discount; an *InvalidError when a figure is out of
// range or the sum overflows.
func (q *Quote) Compute() error {
	sum, ok := total(q.Lines, q.Discount)
	if !ok {
		return &InvalidError{Type: TypeQuote, Fields: []FieldError{{"lines", "out_of_range"}}}
	}
	q.Net, q.Tax, q.Total = sum.Net, sum.Tax, sum.Total()
	return nil
}

// Validate returns an *InvalidError that lists every broken rule, or nil.
func (q *Quote) Validate() error {
	v := Checks{Type: TypeQuote}
	v.Team(q.Team)
	v.Str("number", q.Number, true, 60)
	v.Required("customer", q.Customer.IsZero())
	v.NotNegative("revision", q.Revision)
	if (q.Revision > 1) == q.Revises.IsZero() {
		v.Add("revises", "mismatch")
	}
	if len(q.Lines) == 0 && q.State != QuoteDraft {
		v.Add("lines", "required")
	}
	sum, ok := v.Lines(q.Lines, q.Discount)
	v.Currency("currency", q.Currency, true)
	if ok && (q.Net != sum.Net || q.Tax != sum.Tax || q.Total != sum.Total()) {
		v.Add("total", "mismatch")
	}
	v.Time("valid_until", q.ValidUntil)
	if q.State != QuoteDraft {
		v.Required("valid_until", q.ValidUntil.IsZero())
		v.Required("sent_at", q.SentAt.IsZero())
	}
	oneOf(&v, "state", q.State, QuoteLifecycle().states...)
	v.Approval(q.Approver, q.Owner, q.ApprovedAt)
	if q.State == QuoteDraft && !q.SentAt.IsZero() {
		v.Add("sent_at", "mismatch")
	}
	if (q.State == QuoteDraft || q.State == QuoteSent) && !q.DecidedAt.IsZero() {
		v.Add("decided_at", "mismatch")
	}
	v.Order("decided_at", q.SentAt, q.DecidedAt)
	v.Text("note", q.Note, false, MaxText)
	return v.Err()
}

// Approval wants approver and time both or neither, and another approver than the owner: else the rules are mismatch and
// four_eyes.
func (c *Checks) Approval(approver, owner ID[Employee], at time.Time) {
	if approver.IsZero() != at.IsZero() {
		c.Add("approver", "mismatch")
	} else if !approver.IsZero() && approver == owner {
		c.Add("approver", "four_eyes")
	}
}

// NeedsApproval tells whether a line's price is lowered by more than so many basis points, its own discount and that on the whole
// together, and nobody has agreed.
func (q *Quote) NeedsApproval(limit int64) bool {
	if !q.ApprovedAt.IsZero() {
		return false
	}
	return slices.ContainsFunc(q.Lines, func(l Line) bool {
		return l.Discount > money.Basis || q.Discount > money.Basis ||
			money.Basis*money.Basis-(money.Basis-l.Discount)*(money.Basis-q.Discount) > limit*money.Basis
	})
}

// Approve notes that by agrees to a draft. The owner cannot: the rule is four_eyes. What is not a draft is a *TransitionError.
// A change of terms takes the approval away.
func (q *Quote) Approve(by ID[Employee], at time.Time) error {
	if q.State != QuoteDraft {
		return &TransitionError{Type: TypeQuote, From: QuoteLifecycle().name(q.State), To: "approved"}
	}
	next := *q
	next.Approver, next.ApprovedAt, next.UpdatedAt = by, at, at
	v := Checks{Type: TypeQuote}
	v.Required("approver", by.IsZero())
	if err := v.Err(); err != nil {
		return err
	}
	if err := next.Validate(); err != nil {
		return err
	}
	*q = next
	return nil
}

// Reserved names the fields that no update sets: an approval is given by Approve, and a draft is sent by an act that looks for one, as what was sent is
// decided by an act at its time. An update may take an approval away.
func (q *Quote) Reserved(isNew bool) []string {
	var names []string
	if !isNew {
		names = append(names, "sent_at", "decided_at")
	}
	if !q.Approver.IsZero() || !q.ApprovedAt.IsZero() {
		names = append(names, "approver", "approved_at")
	}
	return names
}

// CheckNew refuses a quote that does not begin as a draft: a *TransitionError.
func (q *Quote) CheckNew() error {
	if q.State != QuoteDraft {
		return &TransitionError{Type: TypeQuote, From: "new", To: QuoteLifecycle().name(q.State)}
	}
	return nil
}

// DropApproval takes the approval of a draft away when it offers something else than prev.
func (q *Quote) DropApproval(prev *Quote) {
	if q.State == QuoteDraft && !q.terms(prev) {
		q.Approver, q.ApprovedAt = ID[Employee]{}, time.Time{}
	}
}

// terms tells whether two quotes offer the same to the same.
func (q *Quote) terms(p *Quote) bool {
	return q.Number == p.Number && q.Customer == p.Customer && q.Deal == p.Deal && sameTime(q.ValidUntil, p.ValidUntil) && slices.Equal(q.Lines, p.Lines) && q.Discount == p.Discount && q.Currency == p.Currency && q.Total == p.Total
}

// Revise makes the next version of an offer that was not accepted: a draft with the same number, lines and terms, which is
// nobody's approval and has no validity yet. An offer that is still open is withdrawn by it; both are to be stored in one batch.
// Errors are a *TransitionError from a draft or an accepted quote, and an *InvalidError without an id, or with the rule not_open when the
// note was not opened.
func (q *Quote) Revise(id ID[Quote], at time.Time) (*Quote, error) {
	if q.State == QuoteDraft || q.State == QuoteAccepted || !QuoteLifecycle().Has(q.State) {
		return nil, &TransitionError{Type: TypeQuote, From: QuoteLifecycle().name(q.State), To: string(QuoteDraft)}
	}
	v := Checks{Type: TypeQuote}
	v.Required("id", id.IsZero())
	if id == q.ID {
		v.Add("id", "bad_reference")
	}
	v.Open("note", q.Note)
	if err := v.Err(); err != nil {
		return nil, err
	}
	next := *q
	next.Meta = Meta[Quote]{ID: id, Person: q.Person, Owner: q.Owner, Team: q.Team, CreatedAt: at, UpdatedAt: at}
	next.Lines = slices.Clone(q.Lines)
	next.Revision, next.Revises, next.State = max(q.Revision, 1)+1, q.ID, QuoteDraft
	next.Approver, next.ApprovedAt, next.SentAt, next.DecidedAt, next.ValidUntil = ID[Employee]{}, time.Time{}, time.Time{}, time.Time{}, time.Time{}
	if q.State == QuoteSent {
		if err := q.Move(QuoteWithdrawn, at); err != nil {
			return nil, err
		}
	}
	return &next, nil
}

// Open notes not_open for a personal field that would be copied and was not opened.
func (c *Checks) Open(field string, t Text) {
	if t.State() != Clear {
		c.Add(field, "not_open")
	}
}

// Contract makes a contract of an accepted quote: a draft over the same lines, for the same customer, with the amount, currency,
// person, owner and team of the quote. Errors are a *TransitionError when the quote is not accepted, and an *InvalidError for what the
// contract lacks: id, number, or an end before the start.
func (q *Quote) Contract(id ID[Contract], number string, starts, ends, at time.Time) (*Contract, error) {
	if q.State != QuoteAccepted {
		return nil, &TransitionError{Type: TypeQuote, From: QuoteLifecycle().name(q.State), To: TypeContract}
	}
	c := &Contract{
		Meta:   Meta[Contract]{ID: id, Person: q.Person, Owner: q.Owner, Team: q.Team, CreatedAt: at, UpdatedAt: at},
		Number: number, Customer: q.Customer, Quote: q.ID, Lines: slices.Clone(q.Lines), Discount: q.Discount,
		Amount: q.Total, Currency: q.Currency, Starts: starts, Ends: ends, State: ContractDraft, Actors: q.Actors,
	}
	v := Checks{Type: TypeContract}
	v.Required("id", id.IsZero())
	if err := v.Err(); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// CheckUpdate tells whether the stored record prev may become q: a *TransitionError for a step that
// the table does not have, an *InvalidError with the rule fixed for a change of what was sent, and required for a decision without its time.
func (q *Quote) CheckUpdate(prev *Quote) error {
	if err := QuoteLifecycle().CheckUpdate(prev.State, q.State); err != nil {
		return err
	}
	v := Checks{Type: TypeQuote}
	v.Unchanged("revision", q.Revision == prev.Revision && q.Revises == prev.Revises)
	if !q.ApprovedAt.IsZero() && sameTime(q.ApprovedAt, prev.ApprovedAt) && !q.terms(prev) {
		v.Add("approved_at", "mismatch") // to something else
	}
	if prev.State == QuoteDraft {
		return v.Err()
	}
	v.Required("decided_at", q.State != prev.State && q.DecidedAt.IsZero())
	if q.State == QuoteAccepted && prev.State != QuoteAccepted && q.DecidedAt.After(q.ValidUntil) {
		v.Add("valid_until", "too_late")
	}
	v.Unchanged("number", q.Number == prev.Number)
	v.Unchanged("customer", q.Customer == prev.Customer)
	v.Unchanged("deal", q.Deal == prev.Deal)
	v.Unchanged("lines", slices.Equal(q.Lines, prev.Lines))
	v.Unchanged("discount", q.Discount == prev.Discount)
	v.Unchanged("approver", q.Approver == prev.Approver && sameTime(q.ApprovedAt, prev.ApprovedAt))
	v.Unchanged("currency", q.Currency == prev.Currency)
	v.Unchanged("total", q.Net == prev.Net && q.Tax == prev.Tax && q.Total == prev.Total)
	v.SameTime("valid_until", q.ValidUntil, prev.ValidUntil)
	v.SameTime("sent_at", q.SentAt, prev.SentAt)
	if !prev.DecidedAt.IsZero() {
		v.SameTime("decided_at", q.DecidedAt, prev.DecidedAt)
	}
	return v.Err()
}

// Move takes the quote to another state at a time. Errors are a *TransitionError, or an *InvalidError
// when the quote cannot be sent as it is or is accepted after its validity ended (rule too_late), or
// expires before it did (rule too_early).
func (q *Quote) Move(to QuoteState, at time.Time) error {
	if err := QuoteLifecycle().Check(q.State, to); err != nil {
		return err
	}
	next := *q
	next.State, next.UpdatedAt = to, at
	v := Checks{Type: TypeQuote}
	switch to {
	case QuoteSent:
		next.SentAt = at
		if !q.ValidUntil.IsZero() && at.After(q.ValidUntil) {
			v.Add("valid_until", "too_late")
		}
	case QuoteAccepted:
		next.DecidedAt = at
		if at.After(q.ValidUntil) {
			v.Add("valid_until", "too_late")
		}
	case QuoteExpired:
		next.DecidedAt = at
		if !at.After(q.ValidUntil) {
			v.Add("valid_until", "too_early")
		}
	default:
		next.DecidedAt = at
	}
	if err := v.Err(); err != nil {
		return err
	}
	if err := next.Validate(); err != nil {
		return err
	}
	*q = next
	return nil
}
