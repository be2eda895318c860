package stock

import (
	"slices"
	"strconv"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/money"
	"github.com/crmguard/crmguard/crm/sales"
)

// OrderKind says which way an order goes.
type OrderKind string

// The kinds of an order.
const (
	Purchase OrderKind = "purchase"
	Sale     OrderKind = "sale"
)

// OrderState says how far an order has come.
type OrderState string

// The states of an order.
const (
	OrderDraft     OrderState = "draft"
	OrderConfirmed OrderState = "confirmed"
	OrderPartial   OrderState = "partial"   // something was received or delivered
	OrderDone      OrderState = "done"      // all of it; partial again when something goes back
	OrderShort     OrderState = "short"     // final: the rest will not come
	OrderCancelled OrderState = "cancelled" // final: nothing moved
)

// OrderLifecycle returns the transition table of orders.
func OrderLifecycle() crm.Lifecycle[OrderState] {
	return crm.NewLifecycle(crm.TypeOrder,
		[]OrderState{OrderDraft, OrderConfirmed, OrderPartial, OrderDone, OrderShort, OrderCancelled},
		map[OrderState][]OrderState{
			OrderDraft:     {OrderConfirmed, OrderCancelled},
			OrderConfirmed: {OrderPartial, OrderDone, OrderCancelled},
			OrderPartial:   {OrderDone, OrderShort, OrderConfirmed},
			OrderDone:      {OrderPartial, OrderConfirmed},
		})
}

// Item is one line of an order.
type Item struct {
	Product   crm.ID[sales.Product] `json:"product"`
	Quantity  int64                 `json:"quantity"`   // thousandths
	Moved     int64                 `json:"moved"`      // thousandths received or delivered
	UnitPrice int64                 `json:"unit_price"` // minor units, without tax
	Discount  int64                 `json:"discount"`   // basis points
	Tax       int64                 `json:"tax"`        // basis points
}

// Order is a purchase from a supplier or a sale to a customer.
type Order struct {
	crm.Meta[Order]
	Kind        OrderKind            `protect:"internal,indexed" json:"kind"`
	Number      string               `protect:"internal,indexed" json:"number"`
	Customer    crm.ID[crm.Customer] `protect:"internal,indexed" json:"customer"` // or the supplier, which is kept as a customer
	Contract    crm.ID[crm.Contract] `protect:"internal,indexed" json:"contract"` // none is allowed
	Warehouse   crm.ID[Warehouse]    `protect:"internal,indexed" json:"warehouse"`
	Items       []Item               `protect:"internal" json:"items"`
	Currency    string               `protect:"internal" json:"currency"`      // ISO 4217
	Net         int64                `protect:"internal" json:"net"`           // minor units, set by Compute
	Tax         int64                `protect:"internal" json:"tax"`           // minor units, set by Compute
	Total       int64                `protect:"internal,indexed" json:"total"` // minor units, set by Compute
	DueAt       time.Time            `protect:"internal,indexed" json:"due_at"`
	ConfirmedAt time.Time            `protect:"internal" json:"confirmed_at"`
	State       OrderState           `protect:"internal,indexed" json:"state"`
}

// sum adds up the items.
func (o *Order) sum() (money.Amounts, error) {
	lines := make([]money.Line, len(o.Items))
	for i, it := range o.Items {
		lines[i] = money.Line{Quantity: it.Quantity, UnitPrice: it.UnitPrice, Discount: it.Discount, Tax: it.Tax}
	}
	_, sum, err := money.Add(lines, 0)
	if err == nil && sum.Total() > money.Most {
		err = money.ErrOverflow
	}
	return sum, err
}

// Compute sets Net, Tax and Total from the items; a *crm.InvalidError has the rule out_of_range for figures that have no sum.
func (o *Order) Compute() error {
	sum, err := o.sum()
	if err != nil {
		v := crm.Checks{Type: crm.TypeOrder}
		v.Add("items", "out_of_range")
		return v.Err()
	}
	o.Net, o.Tax, o.Total = sum.Net, sum.Tax, sum.Total()
	return nil
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (o *Order) Validate() error {
	v := crm.Checks{Type: crm.TypeOrder}
	v.Team(o.Team)
	v.OneOf("kind", string(o.Kind), string(Purchase), string(Sale))
	v.Str("number", o.Number, true, 60)
	v.Required("customer", o.Customer.IsZero())
	v.Required("warehouse", o.Warehouse.IsZero())
	v.Required("items", len(o.Items) == 0 && o.State != OrderDraft)
	if len(o.Items) > 500 {
		v.Add("items", "too_long")
	}
	good := true
	for i, it := range o.Items {
		at := "items." + strconv.Itoa(i)
		v.Required(at+".product", it.Product.IsZero())
		if it.Quantity < 1 || it.Moved < 0 || it.Moved > it.Quantity || it.Moved > 0 && (o.State == OrderDraft || o.State == OrderConfirmed) {
			v.Add(at+".quantity", "out_of_range")
			good = false
		}
	}
	if sum, err := o.sum(); err != nil && good {
		v.Add("items", "out_of_range")
	} else if err == nil && (o.Net != sum.Net || o.Tax != sum.Tax || o.Total != sum.Total()) {
		v.Add("total", "mismatch")
	}
	v.Currency("currency", o.Currency, true)
	v.Time("due_at", o.DueAt)
	OrderLifecycle().State(&v, "state", o.State)
	some := slices.ContainsFunc(o.Items, func(it Item) bool { return it.Moved > 0 })
	rest := slices.ContainsFunc(o.Items, func(it Item) bool { return it.Moved < it.Quantity })
	if (o.State == OrderPartial || o.State == OrderShort) && (!some || !rest) || o.State == OrderDone && rest || o.State == OrderCancelled && some {
		v.Add("state", "mismatch") // with what moved
	}
	if o.State != OrderDraft && o.State != OrderCancelled {
		v.Required("confirmed_at", o.ConfirmedAt.IsZero())
	}
	return v.Err()
}

// CheckNew refuses an order that does not begin as a draft: a *crm.TransitionError.
func (o *Order) CheckNew() error {
	if o.State == OrderDraft {
		return nil
	}
	to := "unknown"
	if OrderLifecycle().Has(o.State) {
		to = string(o.State)
	}
	return &crm.TransitionError{Type: crm.TypeOrder, From: "new", To: to}
}

// Reserved names the fields that no update sets: an order is confirmed by Move, and what moved of it is counted by Fulfil.
func (o *Order) Reserved(isNew bool) []string {
	if isNew { // CheckNew; an import brings what was confirmed elsewhere
		return nil
	}
	names := []string{"confirmed_at"}
	if o.State != OrderDraft {
		names = append(names, "items")
	}
	return names
}

// CheckUpdate tells whether the stored record prev may become o: a *crm.TransitionError for a step that the table does not have, a
// *crm.InvalidError with the rule fixed for a change of what was confirmed.
func (o *Order) CheckUpdate(prev *Order) error {
	if err := OrderLifecycle().CheckUpdate(prev.State, o.State); err != nil {
		return err
	}
	v := crm.Checks{Type: crm.TypeOrder}
	v.Unchanged("kind", o.Kind == prev.Kind)
	if prev.State == OrderDraft {
		return v.Err()
	}
	v.Unchanged("number", o.Number == prev.Number)
	v.Unchanged("customer", o.Customer == prev.Customer)
	v.Unchanged("warehouse", o.Warehouse == prev.Warehouse)
	v.Unchanged("items", slices.EqualFunc(o.Items, prev.Items, func(a, b Item) bool { a.Moved, b.Moved = 0, 0; return a == b }))
	v.Unchanged("currency", o.Currency == prev.Currency)
	v.SameTime("confirmed_at", o.ConfirmedAt, prev.ConfirmedAt)
	return v.Err()
}

// Move confirms an order, cancels one of which nothing moved, or ends one that will stay short. Partial and done are what Fulfil makes: asked for
// here they are a *crm.InvalidError with the rule mismatch. A step that the table does not have is a *crm.TransitionError.
func (o *Order) Move(to OrderState, at time.Time) error {
	if err := OrderLifecycle().Check(o.State, to); err != nil {
		return err
	}
	next := *o
	next.State, next.UpdatedAt = to, at
	switch {
	case to == OrderConfirmed && o.State == OrderDraft:
		next.ConfirmedAt = at
	case to == OrderConfirmed, to == OrderPartial, to == OrderDone:
		v := crm.Checks{Type: crm.TypeOrder}
		v.Add("state", "mismatch")
		return v.Err()
	}
	if err := next.Validate(); err != nil {
		return err
	}
	*o = next
	return nil
}

// Fulfil receives or delivers a part of an order: quantities in thousandths, one for each item. It counts them and returns the movements, which
// are to be posted ([Post]) and stored with the order in one batch. Negative quantities are returns.
//
// A *crm.TransitionError when nothing may move in the order's state. A *crm.InvalidError has the rule mismatch for another number of quantities, required when
// all are zero, and out_of_range for more than was ordered, or less than nothing.
func (o *Order) Fulfil(quantities []int64, newID func() crm.ID[Movement], at time.Time) ([]*Movement, error) {
	if o.State != OrderConfirmed && o.State != OrderPartial && o.State != OrderDone {
		from := "unknown"
		if OrderLifecycle().Has(o.State) {
			from = string(o.State)
		}
		return nil, &crm.TransitionError{Type: crm.TypeOrder, From: from, To: string(OrderPartial)}
	}
	v := crm.Checks{Type: crm.TypeOrder}
	if len(quantities) != len(o.Items) {
		v.Add("quantities", "mismatch")
		return nil, v.Err()
	}
	items := slices.Clone(o.Items)
	var moved []*Movement
	none, all := true, true
	for i, n := range quantities {
		sum, err := money.Sum(items[i].Moved, n)
		if err != nil || sum < 0 || sum > items[i].Quantity {
			v.Add("quantities."+strconv.Itoa(i), "out_of_range")
			continue
		}
		items[i].Moved = sum
		none, all = none && sum == 0, all && sum == items[i].Quantity
		if n == 0 {
			continue
		}
		m := &Movement{
			Meta:      crm.Meta[Movement]{ID: newID(), Owner: o.Owner, Team: o.Team, CreatedAt: at, UpdatedAt: at},
			Warehouse: o.Warehouse, Product: items[i].Product, Quantity: n, At: at, Order: o.ID, Line: int64(i), Kind: KindReceipt,
		}
		if o.Kind == Sale {
			m.Kind, m.Quantity = KindDelivery, -n
		}
		if n < 0 {
			m.Kind = KindReturn
		}
		moved = append(moved, m)
	}
	v.Required("quantities", len(moved) == 0 && v.Err() == nil)
	if err := v.Err(); err != nil {
		return nil, err
	}
	o.Items, o.UpdatedAt = items, at
	switch {
	case none:
		o.State = OrderConfirmed
	case all:
		o.State = OrderDone
	default:
		o.State = OrderPartial
	}
	return moved, nil
}
