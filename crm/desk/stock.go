package desk

import (
	"context"
	"slices"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/stock"
)

// PostStock adds movements to the ledger, all of them or none: never more out of a warehouse than was there, at any moment, and only into an open
// period. Movements of the same product and warehouse that others post meanwhile are counted. Errors are those of stock.Post.
func (d *Desk) PostStock(ctx context.Context, c guard.Caller, add ...*stock.Movement) error {
	if d.r.Movements == nil || d.r.Periods == nil {
		return ErrNoDoor
	}
	if len(add) == 0 || slices.Contains(add, nil) {
		return &crm.InvalidError{Type: crm.TypeMovement, Fields: []crm.FieldError{{Field: "movements", Rule: "required"}}}
	}
	return persist(ctx, func() (*guard.Tx, error) {
		books, err := d.books(ctx, c)
		if err != nil {
			return nil, err
		}
		added := map[stock.Key]int64{}
		for _, m := range add {
			added[stock.Key{Warehouse: m.Warehouse, Product: m.Product}]++
		}
		tx := d.g.Begin(c, "stock.post")
		var ledger []*stock.Movement
		for k, n := range added {
			clauses := []crm.Clause{is("warehouse", k.Warehouse.UUID()), is("product", k.Product.UUID())}
			some, err := all(ctx, d.r.Movements, d.program(c, "stock"), clauses...)
			if err != nil {
				return nil, err
			}
			ledger = append(ledger, some...)
			// Decided on this ledger: when somebody adds to it first, read it again. The sum holds besides, whatever was read.
			tx.Require(crm.Limit{Of: []crm.Measure{{Type: crm.TypeMovement, Clauses: clauses}}, Value: int64(len(some)) + n}, crm.ErrConflict)
			tx.Require(crm.Limit{Of: []crm.Measure{{Type: crm.TypeMovement, Clauses: clauses, Sum: "quantity"}}, Least: true}, crm.ErrConflict)
		}
		for _, m := range add {
			if m.ID.IsZero() {
				m.ID = crm.ID[stock.Movement](crm.NewUUID())
			}
		}
		if err := stock.Post(ledger, add, books); err != nil {
			return nil, err
		}
		asked := map[string]bool{}
		for _, m := range add {
			if p := periodOf(books, m.At); !asked[p] { // once for each period
				asked[p] = true
				open(tx, books, m.At)
			}
			if err := d.r.Movements.CreateIn(ctx, tx, m); err != nil {
				return nil, err
			}
		}
		return tx, nil
	})
}
