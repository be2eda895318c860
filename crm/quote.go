package crm

import (
	"math/bits"
	"slices"
	"strconv"
	"time"
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
)

// QuoteLifecycle returns the transition table of quotes.
func QuoteLifecycle() Lifecycle[QuoteState] {
	return Lifecycle[QuoteState]{
		typ:    TypeQuote,
		states: []QuoteState{QuoteDraft, QuoteSent, QuoteAccepted, QuoteDeclined, QuoteExpired},
		next: map[QuoteState][]QuoteState{
			QuoteDraft: {QuoteSent},
			QuoteSent:  {QuoteAccepted, QuoteDeclined, QuoteExpired},
		},
	}
}

// Line is one line of a quote. A basis point is a hundredth of a percent.
type Line struct {
	Product   string `json:"product"`
	Quantity  int64  `json:"quantity"`   // whole units
	UnitPrice int64  `json:"unit_price"` // minor units, without tax
	Discount  int64  `json:"discount"`   // basis points, 0 to 10,000
	Tax       int64  `json:"tax"`        // basis points, 0 to 10,000
}

// Amounts returns the line's price after discount and the tax on it, in minor units, each rounded
// half up; ok is false when a figure is negative, out of range or overflows.
func (l Line) Amounts() (net, tax int64, ok bool) {
	if l.Quantity < 0 || l.UnitPrice < 0 || l.Discount < 0 || l.Discount > basis || l.Tax < 0 || l.Tax > basis {
		return 0, 0, false
	}
	hi, gross := bits.Mul64(uint64(l.Quantity), uint64(l.UnitPrice))
	if hi != 0 {
		return 0, 0, false
	}
	n, ok1 := share(gross, uint64(basis-l.Discount))
	t, ok2 := share(uint64(n), uint64(l.Tax))
	return n, t, ok1 && ok2
}

const basis = 10000

// share returns amount * points / 10,000, rounded half up.
func share(amount, points uint64) (int64, bool) {
	hi, lo := bits.Mul64(amount, points)
	lo, carry := bits.Add64(lo, basis/2, 0)
	hi += carry
	if hi >= basis {
		return 0, false
	}
	q, _ := bits.Div64(hi, lo, basis)
	return int64(q), q <= 1<<63-1
}

// Quote is an offer to a customer. Its lines and terms cannot change once it was sent.
type Quote struct {
	Meta[Quote]
	Number     string       `protect:"internal,indexed" json:"number"`
	Customer   ID[Customer] `protect:"internal,indexed" json:"customer"`
	Lines      []Line       `protect:"internal" json:"lines"`
	Currency   string       `protect:"internal" json:"currency"`      // ISO 4217
	Net        int64        `protect:"internal" json:"net"`           // minor units, set by Compute
	Tax        int64        `protect:"internal" json:"tax"`           // minor units, set by Compute
	Total      int64        `protect:"internal,indexed" json:"total"` // minor units, set by Compute
	ValidUntil time.Time    `protect:"internal,indexed" json:"valid_until"`
	State      QuoteState   `protect:"internal,indexed" json:"state"`
	SentAt     time.Time    `protect:"internal" json:"sent_at"`
	DecidedAt  time.Time    `protect:"internal" json:"decided_at"` // accepted, declined or expired
	Note       Text         `protect:"personal" json:"note"`
}

// totals adds up the lines.
func (q *Quote) totals() (net, tax int64, ok bool) {
	for _, l := range q.Lines {
		n, t, fits := l.Amounts()
		if net += n; !fits || net < 0 {
			return 0, 0, false
		}
		if tax += t; tax < 0 {
			return 0, 0, false
		}
	}
	return net, tax, net+tax >= 0
}

// Compute sets Net, Tax and Total from the lines; an *InvalidError when a line's figures are out of
// range or the sum overflows.
func (q *Quote) Compute() error {
	net, tax, ok := q.totals()
	if !ok {
		return &InvalidError{Type: TypeQuote, Fields: []FieldError{{"lines", "out_of_range"}}}
	}
	q.Net, q.Tax, q.Total = net, tax, net+tax
	return nil
}

// Validate returns an *InvalidError that lists every broken rule, or nil.
func (q *Quote) Validate() error {
	v := Checks{Type: TypeQuote}
	v.Team(q.Team)
	v.Str("number", q.Number, true, 60)
	v.Required("customer", q.Customer.IsZero())
	if len(q.Lines) == 0 && q.State != QuoteDraft {
		v.Add("lines", "required")
	}
	if len(q.Lines) > 500 {
		v.Add("lines", "too_long")
	}
	for i, l := range q.Lines {
		at := "lines." + strconv.Itoa(i)
		v.Str(at+".product", l.Product, true, MaxName)
		if l.Quantity < 0 || l.UnitPrice < 0 {
			v.Add(at, "negative")
		} else if _, _, ok := l.Amounts(); !ok {
			v.Add(at, "out_of_range")
		}
	}
	v.Currency("currency", q.Currency, true)
	if net, tax, ok := q.totals(); ok && (q.Net != net || q.Tax != tax || q.Total != net+tax) {
		v.Add("total", "mismatch")
	} else if !ok && len(v.fields) == 0 {
		v.Add("lines", "out_of_range")
	}
	v.Time("valid_until", q.ValidUntil)
	if q.State != QuoteDraft {
		v.Required("valid_until", q.ValidUntil.IsZero())
		v.Required("sent_at", q.SentAt.IsZero())
	}
	oneOf(&v, "state", q.State, QuoteLifecycle().states...)
	v.Order("decided_at", q.SentAt, q.DecidedAt)
	v.Text("note", q.Note, false, MaxText)
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become q: a *TransitionError for a step that
// the table does not have, an *InvalidError with the rule fixed for a change of what was sent.
func (q *Quote) CheckUpdate(prev *Quote) error {
	if err := QuoteLifecycle().CheckUpdate(prev.State, q.State); err != nil {
		return err
	}
	if prev.State == QuoteDraft {
		return nil
	}
	v := Checks{Type: TypeQuote}
	v.Unchanged("number", q.Number == prev.Number)
	v.Unchanged("customer", q.Customer == prev.Customer)
	v.Unchanged("lines", slices.Equal(q.Lines, prev.Lines))
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
