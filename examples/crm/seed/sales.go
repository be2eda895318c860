package seed

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/sales"
)

// Sales makes what is sold, and the sales that may come of every eighth customer in the stages of a pipeline, from a stream of its own.
func (w *World) Sales(p *sales.Pipeline) (sold []*sales.Product, open []*sales.Opportunity) {
	g := &generator{rnd: rand.New(rand.NewPCG(2026, 13))}
	manager := w.Employees[1]
	for i, name := range products {
		stocked := i != 2 && i != 3 && i != 5
		v := &sales.Product{
			Meta: meta[sales.Product](g, manager, 400*24*time.Hour), SKU: fmt.Sprintf("GX-%03d", i+1), Name: name, Unit: "piece", Category: "gauges",
			Price: int64(1+g.rnd.IntN(400)) * 10_000, Currency: "CNY", Tax: 1300, Stocked: stocked, State: sales.ProductActive,
		}
		if stocked {
			v.MinStock = 5
		} else {
			v.Unit, v.Category, v.Tax = "day", "services", 600
		}
		sold = append(sold, v)
	}
	for i, c := range w.Customers {
		if i%8 != 0 {
			continue
		}
		at := Base.Add(-g.days(90))
		o := &sales.Opportunity{
			Meta: meta[sales.Opportunity](g, &crm.Employee{Meta: crm.Meta[crm.Employee]{ID: c.Owner, Team: c.Team}}, Base.Sub(at)),
			Name: crm.NewText(fmt.Sprintf("%s × %d", pick(g, products), 1+g.rnd.IntN(40))), Customer: c.ID, Pipeline: p.ID, State: sales.OpportunityOpen,
			Amount: int64(1+g.rnd.IntN(900)) * 100_000, Currency: c.Currency, CloseBy: Base.AddDate(0, 0, 7+g.rnd.IntN(120)).Truncate(24 * time.Hour),
		}
		o.Person = c.Person
		must(o.Advance(p, pick(g, p.Stages).Name, at))
		switch done := at.Add(g.days(20)); g.rnd.IntN(6) {
		case 0:
			must(o.Move(sales.OpportunityWon, "", done))
		case 1:
			must(o.Move(sales.OpportunityLost, pick(g, []sales.LostReason{sales.LostPrice, sales.LostCompetitor, sales.LostSilence}), done))
		}
		open = append(open, o)
	}
	return sold, open
}
