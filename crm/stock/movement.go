package stock

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/money"
	"github.com/crmguard/crmguard/crm/sales"
)

// WarehouseState says whether a warehouse takes movements.
type WarehouseState string

// The states of a warehouse.
const (
	WarehouseOpen   WarehouseState = "open"
	WarehouseClosed WarehouseState = "closed" // may be opened again
)

// Warehouse is a place that products are in.
type Warehouse struct {
	crm.Meta[Warehouse]
	Code    string         `protect:"internal,indexed" json:"code"`
	Name    string         `protect:"internal" json:"name"`
	Address crm.Text       `protect:"personal,mask=address" json:"address"`
	State   WarehouseState `protect:"internal,indexed" json:"state"`
}

// WarehouseLifecycle returns the transition table of warehouses.
func WarehouseLifecycle() crm.Lifecycle[WarehouseState] {
	return crm.NewLifecycle(crm.TypeWarehouse, []WarehouseState{WarehouseOpen, WarehouseClosed},
		map[WarehouseState][]WarehouseState{WarehouseOpen: {WarehouseClosed}, WarehouseClosed: {WarehouseOpen}})
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (w *Warehouse) Validate() error {
	v := crm.Checks{Type: crm.TypeWarehouse}
	v.Team(w.Team)
	v.Str("code", w.Code, true, 40)
	v.Str("name", w.Name, true, crm.MaxName)
	v.Text("address", w.Address, false, crm.MaxLine)
	WarehouseLifecycle().State(&v, "state", w.State)
	return v.Err()
}

// CheckNew refuses a warehouse that does not begin open: a *crm.TransitionError.
func (w *Warehouse) CheckNew() error {
	if w.State == WarehouseOpen {
		return nil
	}
	to := "unknown"
	if WarehouseLifecycle().Has(w.State) {
		to = string(w.State)
	}
	return &crm.TransitionError{Type: crm.TypeWarehouse, From: "new", To: to}
}

// Reserved names the fields that no update sets: Close looks at what is in the warehouse.
func (w *Warehouse) Reserved(isNew bool) []string {
	if isNew { // CheckNew
		return nil
	}
	return []string{"state"}
}

// Open opens a warehouse again. One that is open is a *crm.TransitionError.
func (w *Warehouse) Open(at time.Time) error {
	if err := WarehouseLifecycle().Check(w.State, WarehouseOpen); err != nil {
		return err
	}
	w.State, w.UpdatedAt = WarehouseOpen, at
	return nil
}

// CheckUpdate tells whether the stored record prev may become w: a *crm.InvalidError with the rule fixed for the code by which others know it.
func (w *Warehouse) CheckUpdate(prev *Warehouse) error {
	v := crm.Checks{Type: crm.TypeWarehouse}
	v.Unchanged("code", w.Code == prev.Code)
	return v.Err()
}

// Close closes a warehouse in which nothing is left by the levels, else it is a *crm.InvalidError with the rule not_empty. One that is closed is
// a *crm.TransitionError.
func (w *Warehouse) Close(levels map[Key]int64, at time.Time) error {
	if err := WarehouseLifecycle().Check(w.State, WarehouseClosed); err != nil {
		return err
	}
	for k, n := range levels {
		if k.Warehouse == w.ID && n != 0 {
			v := crm.Checks{Type: crm.TypeWarehouse}
			v.Add("state", "not_empty")
			return v.Err()
		}
	}
	w.State, w.UpdatedAt = WarehouseClosed, at
	return nil
}

// Kind says why something moved.
type Kind string

// The kinds of a movement.
const (
	KindReceipt  Kind = "receipt"  // a purchase came in
	KindDelivery Kind = "delivery" // a sale went out
	KindReturn   Kind = "return"   // of either: it goes the other way
	KindTransfer Kind = "transfer" // from one warehouse to another: two movements
	KindCount    Kind = "count"    // what a stocktaking found
	KindReversal Kind = "reversal" // undoes another
)

// Movement is one entry of the ledger.
type Movement struct {
	crm.Meta[Movement]
	Warehouse crm.ID[Warehouse]     `protect:"internal,indexed" json:"warehouse"`
	Product   crm.ID[sales.Product] `protect:"internal,indexed" json:"product"`
	Kind      Kind                  `protect:"internal,indexed" json:"kind"`
	Quantity  int64                 `protect:"internal" json:"quantity"`         // thousandths; negative out of the warehouse
	At        time.Time             `protect:"internal,indexed" json:"at"`       // when it moved
	Order     crm.ID[Order]         `protect:"internal,indexed" json:"order"`    // of a receipt, delivery or return
	Line      int64                 `protect:"internal" json:"line"`             // of the order, from 0
	Other     crm.ID[Movement]      `protect:"internal" json:"other"`            // of a transfer: the other half
	Reverses  crm.ID[Movement]      `protect:"internal,indexed" json:"reverses"` // of a reversal
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (m *Movement) Validate() error {
	v := crm.Checks{Type: crm.TypeMovement}
	v.Team(m.Team)
	v.Required("warehouse", m.Warehouse.IsZero())
	v.Required("product", m.Product.IsZero())
	v.OneOf("kind", string(m.Kind), string(KindReceipt), string(KindDelivery), string(KindReturn), string(KindTransfer), string(KindCount), string(KindReversal))
	v.Required("quantity", m.Quantity == 0)
	v.Range("quantity", m.Quantity, -money.Most, money.Most)
	if m.Kind == KindReceipt && m.Quantity < 0 || m.Kind == KindDelivery && m.Quantity > 0 {
		v.Add("quantity", "mismatch")
	}
	v.Required("at", m.At.IsZero())
	v.Time("at", m.At)
	v.NotNegative("line", m.Line)
	if (m.Kind == KindReceipt || m.Kind == KindDelivery || m.Kind == KindReturn) && m.Order.IsZero() {
		v.Add("order", "required")
	}
	if (m.Kind == KindTransfer) == m.Other.IsZero() {
		v.Add("other", "mismatch")
	}
	if (m.Kind == KindReversal) == m.Reverses.IsZero() {
		v.Add("reverses", "mismatch")
	} else if !m.Reverses.IsZero() && m.Reverses == m.ID {
		v.Add("reverses", "bad_reference")
	}
	if m.Deleted {
		v.Add("deleted", "fixed")
	}
	return v.Err()
}

// MadeByActs says that a movement is posted with what it belongs to, by Post, and never by itself.
func (m *Movement) MadeByActs() {}

// CheckUpdate refuses every change of what moved: a *crm.InvalidError with the rule fixed.
func (m *Movement) CheckUpdate(prev *Movement) error {
	v := crm.Checks{Type: crm.TypeMovement}
	now, then := *m, *prev
	now.Meta, then.Meta = crm.Meta[Movement]{}, crm.Meta[Movement]{}
	v.SameTime("at", now.At, then.At)
	now.At, then.At = time.Time{}, time.Time{}
	v.Unchanged("movement", now == then)
	return v.Err()
}

// Reverse makes the counter movement of m, at a time of its own; the other half of a transfer is reversed by itself. ledger are the movements so far. A
// *crm.InvalidError has the rule required without an id, bad_reference for a reversal, repeated for what was reversed, and too_early
// before the movement.
func (m *Movement) Reverse(id crm.ID[Movement], ledger []*Movement, at time.Time) (*Movement, error) {
	v := crm.Checks{Type: crm.TypeMovement}
	v.Required("id", id.IsZero())
	if m.Kind == KindReversal {
		v.Add("reverses", "bad_reference")
	}
	if slices.ContainsFunc(ledger, func(o *Movement) bool { return o.Reverses == m.ID }) {
		v.Add("reverses", "repeated")
	}
	if at.Before(m.At) {
		v.Add("at", "too_early")
	}
	if err := v.Err(); err != nil {
		return nil, err
	}
	return &Movement{
		Meta:      crm.Meta[Movement]{ID: id, Owner: m.Owner, Team: m.Team, CreatedAt: at, UpdatedAt: at},
		Warehouse: m.Warehouse, Product: m.Product, Kind: KindReversal, Quantity: -m.Quantity, At: at, Order: m.Order, Line: m.Line, Reverses: m.ID,
	}, nil
}

// Move makes the two movements of a transfer of a quantity in thousandths from one warehouse to another. A *crm.InvalidError has the rule
// out_of_range for a quantity that is not positive and bad_reference for one and the same warehouse.
func Move(product crm.ID[sales.Product], quantity int64, from, to crm.ID[Warehouse], newID func() crm.ID[Movement], at time.Time) ([]*Movement, error) {
	v := crm.Checks{Type: crm.TypeMovement}
	if quantity < 1 {
		v.Add("quantity", "out_of_range")
	}
	if from == to {
		v.Add("warehouse", "bad_reference")
	}
	if err := v.Err(); err != nil {
		return nil, err
	}
	out, in := newID(), newID()
	half := func(id, other crm.ID[Movement], w crm.ID[Warehouse], n int64) *Movement {
		return &Movement{
			Meta:      crm.Meta[Movement]{ID: id, CreatedAt: at, UpdatedAt: at},
			Warehouse: w, Product: product, Kind: KindTransfer, Quantity: n, At: at, Other: other,
		}
	}
	return []*Movement{half(out, in, from, -quantity), half(in, out, to, quantity)}, nil
}

// Key is a product in a warehouse.
type Key struct {
	Warehouse crm.ID[Warehouse]
	Product   crm.ID[sales.Product]
}

// Levels returns how much of each product is in each warehouse at a time, in thousandths. A sum that does not fit is money.ErrOverflow.
func Levels(ledger []*Movement, at time.Time) (map[Key]int64, error) {
	levels := map[Key]int64{}
	for _, m := range ledger {
		if m.At.After(at) {
			continue
		}
		k := Key{m.Warehouse, m.Product}
		sum, err := money.Sum(levels[k], m.Quantity)
		if err != nil {
			return nil, err
		}
		levels[k] = sum
	}
	return levels, nil
}

// Reorder returns the products that are kept in stock and of which all warehouses together have less than MinStock, in the order in
// which they were given.
func Reorder(levels map[Key]int64, products []*sales.Product) []*sales.Product {
	sums := map[crm.ID[sales.Product]]int64{}
	for k, n := range levels {
		if sum, err := money.Sum(sums[k.Product], n); err == nil {
			sums[k.Product] = sum
		} else {
			sums[k.Product] = math.MaxInt64 // more than any minimum
		}
	}
	var list []*sales.Product
	for _, p := range products {
		if p.Stocked && !p.Deleted && p.State == sales.ProductActive && sums[p.ID] < p.MinStock {
			list = append(list, p)
		}
	}
	return list
}

// ShortError is a movement of more than there is.
type ShortError struct {
	Key
	At   time.Time // when there would be less than nothing
	Lack int64     // how much is lacking, in thousandths
}

// Error says how much is lacking.
func (e *ShortError) Error() string { return fmt.Sprintf("stock: %d thousandths are lacking", e.Lack) }

// Post decides whether movements may be added to a ledger: all of them or none. ledger has at least the movements of the products and
// warehouses that are touched. Within one moment what comes in counts first.
//
// Errors are those of Validate, a *finance.ClosedError for a time that the books do not take, a *ShortError, and a *crm.InvalidError with the rule
// repeated for a movement that is in the ledger or reversed a second time, bad_reference for the reversal of one that is not, and mismatch for
// one that does not undo it, and for half a transfer.
func Post(ledger, add []*Movement, books finance.Books) error {
	v := crm.Checks{Type: crm.TypeMovement}
	byID := map[crm.ID[Movement]]*Movement{}
	reversed := map[crm.ID[Movement]]bool{}
	for _, m := range ledger {
		byID[m.ID] = m
		if !m.Reverses.IsZero() {
			reversed[m.Reverses] = true
		}
	}
	touched := map[Key]bool{}
	halves := map[crm.ID[Movement]]*Movement{}
	for _, m := range add {
		halves[m.ID] = m
	}
	for _, m := range add {
		if m.Kind == KindTransfer {
			o := halves[m.Other]
			if o == nil || o == m || o.Kind != KindTransfer || o.Other != m.ID || o.Product != m.Product || o.Warehouse == m.Warehouse || o.Quantity != -m.Quantity || !o.At.Equal(m.At) {
				v.Add("other", "mismatch")
			}
		}
		if err := m.Validate(); err != nil {
			return err
		}
		if err := books.Post(m.At); err != nil {
			return err
		}
		if m.ID.IsZero() || byID[m.ID] != nil {
			v.Add("id", "repeated")
		}
		byID[m.ID] = m
		if !m.Reverses.IsZero() {
			switch first := byID[m.Reverses]; {
			case first == nil || first.Kind == KindReversal:
				v.Add("reverses", "bad_reference")
			case reversed[m.Reverses]:
				v.Add("reverses", "repeated")
			case first.Quantity != -m.Quantity || first.Product != m.Product || first.Warehouse != m.Warehouse || first.Order != m.Order || m.At.Before(first.At):
				v.Add("reverses", "mismatch")
			}
			reversed[m.Reverses] = true
		}
		touched[Key{m.Warehouse, m.Product}] = true
	}
	if err := v.Err(); err != nil {
		return err
	}
	all := slices.Concat(ledger, add)
	slices.SortStableFunc(all, func(a, b *Movement) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		switch {
		case a.Quantity > 0 && b.Quantity < 0:
			return -1
		case a.Quantity < 0 && b.Quantity > 0:
			return 1
		}
		return 0
	})
	levels := map[Key]int64{}
	for _, m := range all {
		k := Key{m.Warehouse, m.Product}
		if !touched[k] {
			continue
		}
		sum, err := money.Sum(levels[k], m.Quantity)
		if err != nil {
			return err
		}
		if levels[k] = sum; sum < 0 {
			return &ShortError{k, m.At, -sum}
		}
	}
	return nil
}
