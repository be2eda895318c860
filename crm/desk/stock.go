package desk

import (
	"context"
	"errors"
	"slices"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/stock"
)

// PostStock adds movements to the ledger, all of them or none: never more out of a warehouse than was there, at any moment, only into an open
// period, only in warehouses that are open, and both halves of a transfer. Movements of the same product and warehouse that others post meanwhile are counted.
// Errors are those of stock.Post, and a *crm.InvalidError with the rule bad_reference for a warehouse that is none, mismatch for one that is closed, and for
// what moves for an order: that is for FulfilOrder, which counts it there.
func (d *Desk) PostStock(ctx context.Context, c guard.Caller, add ...*stock.Movement) error {
	if d.r.Movements == nil || d.r.Periods == nil || d.r.Warehouses == nil {
		return ErrNoDoor
	}
	if len(add) == 0 || slices.Contains(add, nil) {
		return badMovement("movements", "required")
	}
	for _, m := range add {
		if !m.Order.IsZero() {
			return badMovement("order", "mismatch")
		}
	}
	return persist(ctx, func() (*guard.Tx, error) {
		tx := d.g.Begin(c, "stock.post")
		return tx, d.post(ctx, tx, c, add)
	})
}

func badMovement(field, rule string) error {
	return &crm.InvalidError{Type: crm.TypeMovement, Fields: []crm.FieldError{{Field: field, Rule: rule}}}
}

// post adds movements to a Tx.
func (d *Desk) post(ctx context.Context, tx *guard.Tx, c guard.Caller, add []*stock.Movement) error {
	books, err := d.books(ctx, c)
	if err != nil {
		return err
	}
	added := map[stock.Key]int64{}
	places := map[crm.ID[stock.Warehouse]]bool{}
	for _, m := range add {
		added[stock.Key{Warehouse: m.Warehouse, Product: m.Product}]++
		if !places[m.Warehouse] {
			places[m.Warehouse] = true
			if err := d.place(ctx, tx, c, m.Warehouse); err != nil {
				return err
			}
		}
	}
	var ledger []*stock.Movement
	for k, n := range added {
		clauses := []crm.Clause{is("warehouse", k.Warehouse.UUID()), is("product", k.Product.UUID())}
		some, err := all(ctx, d.r.Movements, d.program(c, "stock"), clauses...)
		if err != nil {
			return err
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
		return err
	}
	asked := map[string]bool{}
	for _, m := range add {
		if p := periodOf(books, m.At); !asked[p] { // once for each period
			asked[p] = true
			open(tx, books, m.At)
		}
		if err := d.r.Movements.CreateIn(ctx, tx, m); err != nil {
			return err
		}
	}
	return nil
}

// place checks that a warehouse is there and open, also when the act is stored. Its code and its time of creation say which it is: neither changes.
func (d *Desk) place(ctx context.Context, tx *guard.Tx, c guard.Caller, id crm.ID[stock.Warehouse]) error {
	if id.IsZero() {
		return badMovement("warehouse", "required")
	}
	v, err := d.r.Warehouses.Get(ctx, d.program(c, "stock"), id.UUID())
	if errors.Is(err, crm.ErrNotFound) {
		return badMovement("warehouse", "bad_reference")
	}
	if err != nil {
		return err
	}
	w, closed := v.Value, badMovement("warehouse", "mismatch")
	if w.State != stock.WarehouseOpen {
		return closed
	}
	tx.Require(crm.Limit{Of: []crm.Measure{{Type: crm.TypeWarehouse, Clauses: []crm.Clause{
		word("code", w.Code), word("state", string(stock.WarehouseOpen)),
		{Column: "created_at", Op: crm.Equal, Values: []crm.Value{crm.TimeValue(w.CreatedAt)}},
	}}}, Least: true, Value: 1}, closed)
	return nil
}

// FulfilOrder receives or delivers a part of an order, quantities in thousandths, one for each item: the order counts them and the ledger has the movements, in
// one transaction. Errors are those of stock.Order.Fulfil and PostStock.
func (d *Desk) FulfilOrder(ctx context.Context, c guard.Caller, id crm.ID[stock.Order], version int64, quantities []int64) error {
	if d.r.Orders == nil || d.r.Movements == nil || d.r.Periods == nil || d.r.Warehouses == nil {
		return ErrNoDoor
	}
	return persist(ctx, func() (*guard.Tx, error) {
		tx := d.g.Begin(c, "order.fulfil")
		var moved []*stock.Movement
		if err := act(ctx, tx, d.r.Orders, "update", id.UUID(), version, func(o *stock.Order) (err error) {
			moved, err = o.Fulfil(quantities, func() crm.ID[stock.Movement] { return crm.ID[stock.Movement](crm.NewUUID()) }, d.now())
			return err
		}); err != nil {
			return nil, err
		}
		return tx, d.post(ctx, tx, c, moved)
	})
}

// MoveOrder confirms an order, cancels one of which nothing moved, or ends one that stays short. Errors are those of stock.Order.Move.
func (d *Desk) MoveOrder(ctx context.Context, c guard.Caller, id crm.ID[stock.Order], version int64, to stock.OrderState) error {
	if d.r.Orders == nil {
		return ErrNoDoor
	}
	return d.r.Orders.Act(ctx, c, "update", id.UUID(), version, func(o *stock.Order) error { return o.Move(to, d.now()) })
}

// CloseWarehouse closes a warehouse in which nothing is left, else it is a *crm.InvalidError with the rule not_empty. Nothing is posted into it from then on.
func (d *Desk) CloseWarehouse(ctx context.Context, c guard.Caller, id crm.ID[stock.Warehouse], version int64) error {
	if d.r.Warehouses == nil || d.r.Movements == nil {
		return ErrNoDoor
	}
	return persist(ctx, func() (*guard.Tx, error) {
		clauses := []crm.Clause{is("warehouse", id.UUID())}
		ledger, err := all(ctx, d.r.Movements, d.program(c, "stock"), clauses...)
		if err != nil {
			return nil, err
		}
		last := d.now()
		for _, m := range ledger {
			if m.At.After(last) {
				last = m.At // entered before it moves
			}
		}
		levels, err := stock.Levels(ledger, last)
		if err != nil {
			return nil, err
		}
		tx := d.g.Begin(c, "warehouse.close")
		tx.Require(crm.Limit{Of: []crm.Measure{{Type: crm.TypeMovement, Clauses: clauses}}, Value: int64(len(ledger))}, crm.ErrConflict)
		return tx, act(ctx, tx, d.r.Warehouses, "update", id.UUID(), version, func(w *stock.Warehouse) error { return w.Close(levels, d.now()) })
	})
}

// OpenWarehouse opens a warehouse that was closed.
func (d *Desk) OpenWarehouse(ctx context.Context, c guard.Caller, id crm.ID[stock.Warehouse], version int64) error {
	if d.r.Warehouses == nil {
		return ErrNoDoor
	}
	return d.r.Warehouses.Act(ctx, c, "update", id.UUID(), version, func(w *stock.Warehouse) error { return w.Open(d.now()) })
}
