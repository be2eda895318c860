package finance

import (
	"slices"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/money"
)

// Debt is what a customer still owes of one instalment or invoice, in minor units.
type Debt struct {
	Customer    crm.ID[crm.Customer]
	Currency    string
	DueAt       time.Time
	Outstanding int64
}

// Bucket is what is as late as this. Days 0 is what is not due yet; the others reach from the day after the bucket before to Days, and the
// last has no end.
type Bucket struct {
	Days   int // the longest delay in whole days; -1 in the last
	Count  int
	Amount int64 // minor units
}

// Ageing sorts debts of one currency by how many whole days they are late at a time: not due, up to each of the limits, and more. Limits are
// ascending, such as 30, 60, 90; less than a day late counts as one day. Debts of other currencies or with nothing outstanding are
// left out. A *crm.InvalidError has the rule out_of_range for limits that do not rise, negative for a debt; a sum that
// does not fit is money.ErrOverflow.
func Ageing(debts []Debt, currency string, at time.Time, limits ...int) ([]Bucket, error) {
	v := crm.Checks{Type: crm.TypeInvoice}
	buckets := make([]Bucket, 1, len(limits)+2)
	for _, l := range limits {
		if l <= buckets[len(buckets)-1].Days {
			v.Add("limits", "out_of_range")
		}
		buckets = append(buckets, Bucket{Days: l})
	}
	if slices.ContainsFunc(debts, func(d Debt) bool { return d.Outstanding < 0 }) {
		v.Add("outstanding", "negative")
	}
	if err := v.Err(); err != nil {
		return nil, err
	}
	buckets = append(buckets, Bucket{Days: -1})
	for _, d := range debts {
		if d.Currency != currency || d.Outstanding == 0 {
			continue
		}
		late := 0
		if at.After(d.DueAt) {
			const day = 24 * time.Hour
			late = int((at.Sub(d.DueAt) + day - 1) / day)
		}
		i := slices.IndexFunc(buckets, func(b Bucket) bool { return late <= b.Days || b.Days < 0 })
		sum, err := money.Sum(buckets[i].Amount, d.Outstanding)
		if err != nil {
			return nil, err
		}
		buckets[i].Amount = sum
		buckets[i].Count++
	}
	return buckets, nil
}

// Debts lists what statements leave outstanding, for Ageing.
func Debts(statements ...Statement) []Debt {
	var list []Debt
	for _, s := range statements {
		for _, p := range s.Instalments {
			if p.Outstanding > 0 {
				list = append(list, Debt{p.Instalment.Customer, s.Currency, p.Instalment.DueAt, p.Outstanding})
			}
		}
	}
	return list
}
