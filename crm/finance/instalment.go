package finance

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/money"
)

// Instalment is one part of what a contract is to be paid in.
type Instalment struct {
	crm.Meta[Instalment]
	Contract   crm.ID[crm.Contract] `protect:"internal,indexed" json:"contract"`
	Customer   crm.ID[crm.Customer] `protect:"internal,indexed" json:"customer"`
	Number     int64                `protect:"internal" json:"number"`         // from 1
	Amount     int64                `protect:"internal,indexed" json:"amount"` // minor units
	Currency   string               `protect:"internal" json:"currency"`       // ISO 4217
	DueAt      time.Time            `protect:"internal,indexed" json:"due_at"` // the last moment at which it is not late
	RemindDays int64                `protect:"internal" json:"remind_days"`    // days before DueAt at which somebody is told; 0: nobody
}

// MadeByActs says that an instalment is made with the others of its contract, by Plan, and never by itself.
func (i *Instalment) MadeByActs() {}

// Reserved names the fields that nobody sets who updates an instalment: the amounts of a plan are the contract's.
func (i *Instalment) Reserved(isNew bool) []string {
	if isNew { // MadeByActs
		return nil
	}
	return []string{"number", "amount"}
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (i *Instalment) Validate() error {
	v := crm.Checks{Type: crm.TypeInstalment}
	v.Team(i.Team)
	v.Required("contract", i.Contract.IsZero())
	v.Required("customer", i.Customer.IsZero())
	v.Range("number", i.Number, 1, maxInstalments)
	v.Range("amount", i.Amount, 1, money.Most)
	v.Currency("currency", i.Currency, true)
	v.Required("due_at", i.DueAt.IsZero())
	v.Time("due_at", i.DueAt)
	v.Range("remind_days", i.RemindDays, 0, 366)
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become i: a *crm.InvalidError with the rule fixed for what contract or
// currency it is of.
func (i *Instalment) CheckUpdate(prev *Instalment) error {
	v := crm.Checks{Type: crm.TypeInstalment}
	v.Unchanged("contract", i.Contract == prev.Contract && i.Customer == prev.Customer)
	v.Unchanged("currency", i.Currency == prev.Currency)
	return v.Err()
}

const maxInstalments = 500

// Part says when a part of a contract is due and how large it is beside the others.
type Part struct {
	DueAt  time.Time
	Weight int64 // such as 30, 30 and 40
}

// Plan divides the amount of a contract into instalments that add up to it exactly, numbered in the order of parts, which is that of
// their times. newID gives the ids, as crm.NewID does. A *crm.InvalidError has the rules required without parts, too_long, before_start for
// a time before the one before it, out_of_range for weights that give a part nothing, and mismatch for a contract in draft.
func Plan(c *crm.Contract, parts []Part, newID func() crm.ID[Instalment], at time.Time) ([]*Instalment, error) {
	v := crm.Checks{Type: crm.TypeInstalment}
	if c.State == crm.ContractDraft {
		v.Add("contract", "mismatch")
	}
	v.Required("parts", len(parts) == 0)
	if len(parts) > maxInstalments {
		v.Add("parts", "too_long")
	}
	weights := make([]int64, len(parts))
	for i, p := range parts {
		weights[i] = p.Weight
		v.Required("parts."+strconv.Itoa(i), p.DueAt.IsZero())
		if i > 0 {
			v.Order("parts."+strconv.Itoa(i), parts[i-1].DueAt, p.DueAt)
		}
	}
	if err := v.Err(); err != nil {
		return nil, err
	}
	amounts, err := money.Split(c.Amount, weights...)
	if err != nil || slices.ContainsFunc(amounts, func(n int64) bool { return n < 1 }) {
		v.Add("parts", "out_of_range")
		return nil, v.Err()
	}
	list := make([]*Instalment, len(parts))
	for i, p := range parts {
		list[i] = &Instalment{
			Meta:     crm.Meta[Instalment]{ID: newID(), Person: c.Person, Owner: c.Owner, Team: c.Team, CreatedAt: at, UpdatedAt: at},
			Contract: c.ID, Customer: c.Customer, Number: int64(i + 1), Amount: amounts[i], Currency: c.Currency, DueAt: p.DueAt,
		}
	}
	return list, nil
}

// Standing is how one instalment stands at a time. Amounts are minor units.
type Standing struct {
	Instalment  *Instalment
	Paid        int64
	Outstanding int64
	Overdue     bool // something is outstanding after DueAt
	Remind      bool // something is outstanding, and it is time to say so
}

// Statement is how a contract's payments stand at a time. Amounts are minor units of Currency.
type Statement struct {
	Currency    string
	Instalments []Standing // by DueAt, then by number
	Total       int64      // of all instalments
	Paid        int64      // that instalments took
	Outstanding int64      // Total - Paid
	Overdue     int64      // the part of Outstanding that is late
	Credit      int64      // received beyond Total: to be paid back or kept for the next contract
}

// Balance derives how instalments and receipts of one contract stand at a time. Only approved receipts of that time or before count.
// A receipt pays the instalment that it is matched to; what is matched to none, or is more than its instalment asks, pays the oldest that are
// not paid; what is left then is Credit.
//
// A *crm.InvalidError names what does not fit, by its place: mismatch for another contract or currency, repeated for an instalment's number or
// a receipt that is reversed twice, bad_reference for a receipt matched to an instalment or reversing a receipt that is not among the given, and
// out_of_range for sums that do not fit.
func Balance(instalments []*Instalment, receipts []*Receipt, at time.Time) (Statement, error) {
	v := crm.Checks{Type: crm.TypeReceipt}
	var s Statement
	if len(instalments) == 0 {
		v.Required("instalments", true)
		return s, v.Err()
	}
	contract := instalments[0].Contract
	s.Currency = instalments[0].Currency
	place := map[crm.ID[Instalment]]int{}
	numbers := map[int64]bool{}
	for i, p := range instalments {
		field := "instalments." + strconv.Itoa(i)
		if p.Contract != contract || p.Currency != s.Currency {
			v.Add(field, "mismatch")
		}
		if _, twice := place[p.ID]; twice || numbers[p.Number] {
			v.Add(field, "repeated")
		}
		place[p.ID], numbers[p.Number] = i, true
		s.Instalments = append(s.Instalments, Standing{Instalment: p})
	}
	matched := make([]int64, len(instalments))
	var free int64
	sum := func(n *int64, add int64) {
		total, err := money.Sum(*n, add)
		if err != nil {
			v.Add("amount", "out_of_range")
			return
		}
		*n = total
	}
	known := map[crm.ID[Receipt]]*Receipt{}
	for _, r := range receipts {
		known[r.ID] = r
	}
	reversed := map[crm.ID[Receipt]]bool{}
	for i, r := range receipts {
		field := "receipts." + strconv.Itoa(i)
		if r.Contract != contract || r.Currency != s.Currency {
			v.Add(field, "mismatch")
			continue
		}
		target := r.Instalment
		if !r.Reverses.IsZero() && r.counts(at) {
			first := known[r.Reverses]
			switch {
			case first == nil || !first.Reverses.IsZero() || !first.counts(at):
				v.Add(field, "bad_reference")
				continue
			case reversed[r.Reverses]:
				v.Add(field, "repeated")
				continue
			case first.Amount != -r.Amount:
				v.Add(field, "mismatch")
				continue
			}
			reversed[r.Reverses], target = true, first.Instalment // it may have been matched anew
		}
		j, ok := place[target]
		if !target.IsZero() && !ok {
			v.Add(field, "bad_reference")
			continue
		}
		if !r.counts(at) {
			continue
		}
		if ok {
			sum(&matched[j], r.Amount)
		} else {
			sum(&free, r.Amount)
		}
	}
	for i := range s.Instalments {
		p := &s.Instalments[i]
		sum(&s.Total, p.Instalment.Amount)
		p.Paid = min(matched[i], p.Instalment.Amount)
		sum(&free, matched[i]-p.Paid)
	}
	if err := v.Err(); err != nil {
		return Statement{}, err
	}
	slices.SortStableFunc(s.Instalments, func(a, b Standing) int {
		return cmp.Or(a.Instalment.DueAt.Compare(b.Instalment.DueAt), cmp.Compare(a.Instalment.Number, b.Instalment.Number))
	})
	for i := range s.Instalments {
		p := &s.Instalments[i]
		more := min(free, p.Instalment.Amount-p.Paid)
		p.Paid, free = p.Paid+more, free-more
		p.Outstanding = p.Instalment.Amount - p.Paid
		p.Overdue = p.Outstanding > 0 && at.After(p.Instalment.DueAt)
		p.Remind = p.Outstanding > 0 && p.Instalment.RemindDays > 0 && !at.Before(p.Instalment.DueAt.AddDate(0, 0, -int(p.Instalment.RemindDays)))
		s.Paid += p.Paid
		s.Outstanding += p.Outstanding
		if p.Overdue {
			s.Overdue += p.Outstanding
		}
	}
	s.Credit = free
	return s, nil
}
