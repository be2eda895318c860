package stock_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/money"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/stock"
)

var (
	start  = crmtest.Start()
	east   = crm.ID[stock.Warehouse]{1}
	west   = crm.ID[stock.Warehouse]{2}
	pen    = crm.ID[sales.Product]{3}
	pencil = crm.ID[sales.Product]{4}
)

func day(n int) time.Time { return start.AddDate(0, 0, n) }

func move(kind stock.Kind, w crm.ID[stock.Warehouse], p crm.ID[sales.Product], n int64, at time.Time) *stock.Movement {
	m := &stock.Movement{Warehouse: w, Product: p, Kind: kind, Quantity: n, At: at}
	m.ID = crm.NewID[stock.Movement]()
	if kind == stock.KindReceipt || kind == stock.KindDelivery {
		m.Order = crm.ID[stock.Order]{5}
	}
	return m
}

func TestStored(t *testing.T) {
	for want, schema := range map[string]func(*guard.TypeOptions) (crm.Schema, error){
		crm.TypeWarehouse: guard.Schema[*stock.Warehouse], crm.TypeMovement: guard.Schema[*stock.Movement], crm.TypeOrder: guard.Schema[*stock.Order],
	} {
		if s, err := schema(nil); err != nil || s.Type != want {
			t.Errorf("%s: %q, %v", want, s.Type, err)
		}
	}
}

func order() *stock.Order {
	o := &stock.Order{
		Kind: stock.Purchase, Number: "P-1", Customer: crmtest.CustomerID(1), Warehouse: east, Currency: "CNY", State: stock.OrderDraft,
		Items: []stock.Item{{Product: pen, Quantity: 10_000, UnitPrice: 150, Tax: 1300}, {Product: pencil, Quantity: 2_500, UnitPrice: 99, Discount: 1000, Tax: 1300}},
	}
	o.ID = crm.ID[stock.Order]{5}
	if err := o.Compute(); err != nil {
		panic(err)
	}
	return o
}

// TestItem10Stock: stock is a ledger: nothing goes out that is not there, not even entered late, mistakes are reversed by counter movements, and what
// runs low is to be ordered.
func TestItem10Stock(t *testing.T) {
	// The ledger.
	type m = stock.Movement
	crmtest.Edits(t, func() *m { return move(stock.KindReceipt, east, pen, 5, start) }, (*m).Validate,
		crmtest.Breaks(func(*m) {}),
		crmtest.Breaks(func(r *m) { r.Quantity = 0 }, "quantity required"),
		crmtest.Breaks(func(r *m) { r.Quantity = -1 }, "quantity mismatch"),
		crmtest.Breaks(func(r *m) { r.Kind = crmtest.Secret }, "kind unknown_value"),
		crmtest.Breaks(func(r *m) { r.Order = crm.ID[stock.Order]{} }, "order required"),
		crmtest.Breaks(func(r *m) { r.Other = crm.ID[m]{1} }, "other mismatch"),
		crmtest.Breaks(func(r *m) { r.Reverses = crm.ID[m]{1} }, "reverses mismatch"),
		crmtest.Breaks(func(r *m) { r.Deleted = true }, "deleted fixed"),
		crmtest.Breaks(func(r *m) {
			r.Warehouse, r.Product, r.At = crm.ID[stock.Warehouse]{}, crm.ID[sales.Product]{}, time.Time{}
		},
			"warehouse required", "product required", "at required"),
	)
	crmtest.Fixed(t, move(stock.KindReceipt, east, pen, 5, start), (*m).CheckUpdate, map[string]func(*m){
		"movement fixed": func(r *m) { r.Quantity++ }, "at fixed": func(r *m) { r.At = r.At.Add(time.Second) },
	})

	in := move(stock.KindReceipt, east, pen, 10_000, day(1))
	ledger := []*m{in, move(stock.KindDelivery, east, pen, -4_000, day(5)), move(stock.KindDelivery, east, pen, -3_000, day(9))}
	if err := stock.Post(nil, ledger, nil); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]int64{0: 0, 1: 10_000, 5: 6_000, 100: 3_000} {
		if levels, err := stock.Levels(ledger, day(n)); err != nil || levels[stock.Key{east, pen}] != want {
			t.Errorf("day %d: %v, %v", n, levels, err)
		}
	}
	for _, c := range []struct {
		name string
		add  []*m
		lack int64 // 0: allowed
	}{
		{"the last of it", []*m{move(stock.KindDelivery, east, pen, -3_000, day(20))}, 0},
		{"more than there is", []*m{move(stock.KindDelivery, east, pen, -3_001, day(20))}, 1},
		{"in another warehouse", []*m{move(stock.KindDelivery, west, pen, -1, day(20))}, 1},
		{"another product", []*m{move(stock.KindDelivery, east, pencil, -1, day(20))}, 1},
		{"before it came", []*m{move(stock.KindDelivery, east, pen, -1, day(0))}, 1},
		{"entered late, there now but promised since", []*m{move(stock.KindCount, east, pen, -3_500, day(3))}, 500},
		{"both at once, in before out", []*m{move(stock.KindDelivery, west, pen, -7, day(2)), move(stock.KindReceipt, west, pen, 7, day(2))}, 0},
		{"two that are too much together", []*m{move(stock.KindDelivery, east, pen, -2_000, day(20)), move(stock.KindDelivery, east, pen, -2_000, day(21))}, 1_000},
	} {
		err := stock.Post(ledger, c.add, nil)
		var short *stock.ShortError
		if c.lack == 0 && err != nil || c.lack > 0 && (!errors.As(err, &short) || short.Lack != c.lack) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	crmtest.Broken(t, "posted twice", stock.Post(ledger, ledger[:1], nil), "id repeated")
	crmtest.Broken(t, "no movement", stock.Post(ledger, []*m{move(stock.KindCount, east, pen, 0, day(1))}, nil), "quantity required")
	closed := finance.Books{{Name: "2026", Starts: start, Ends: day(30), State: finance.PeriodClosed}}
	var late *finance.ClosedError
	if err := stock.Post(ledger, []*m{move(stock.KindCount, east, pen, 1, day(3))}, closed); !errors.As(err, &late) {
		t.Errorf("a closed period: %v", err)
	}
	crmtest.Broken(t, "more than a movement has", stock.Post(ledger, []*m{move(stock.KindCount, east, pen, money.Most+1, day(1))}, nil), "quantity out_of_range")
	if err := stock.Post([]*m{move(stock.KindCount, east, pen, math.MaxInt64, day(1))}, []*m{move(stock.KindCount, east, pen, 1, day(2))}, nil); !errors.Is(err, money.ErrOverflow) {
		t.Errorf("a sum that does not fit: %v", err)
	}

	// Reversal by a counter movement.
	out := ledger[1]
	back, err := out.Reverse(crm.NewID[m](), ledger, day(10))
	if err != nil || back.Quantity != 4_000 || back.Validate() != nil {
		t.Fatalf("%+v, %v", back, err)
	}
	if err := stock.Post(ledger, []*m{back}, nil); err != nil {
		t.Error(err)
	}
	ledger = append(ledger, back)
	_, err = out.Reverse(crm.NewID[m](), ledger, day(11))
	crmtest.Broken(t, "reversed twice", err, "reverses repeated")
	_, err = back.Reverse(crm.NewID[m](), ledger, day(11))
	crmtest.Broken(t, "the reversal of a reversal", err, "reverses bad_reference")
	_, err = ledger[2].Reverse(crm.ID[m]{}, ledger, day(1))
	crmtest.Broken(t, "no id, too early", err, "id required", "at too_early")
	wrong := *back
	wrong.ID, wrong.Reverses = crm.NewID[m](), ledger[2].ID
	crmtest.Broken(t, "it does not undo it", stock.Post(ledger, []*m{&wrong}, nil), "reverses mismatch")
	undone, err := in.Reverse(crm.NewID[m](), ledger, day(12))
	if err != nil {
		t.Fatal(err)
	}
	var short *stock.ShortError
	if err := stock.Post(ledger, []*m{undone}, nil); !errors.As(err, &short) || short.Lack != 3_000 {
		t.Errorf("undone what is gone: %v", err)
	}

	// Transfers.
	halves, err := stock.Move(pen, 2_000, east, west, crm.NewID[m], day(15))
	if err != nil || halves[0].Other != halves[1].ID || halves[1].Other != halves[0].ID || stock.Post(ledger, halves, nil) != nil {
		t.Fatalf("%v, %v", halves, err)
	}
	_, err = stock.Move(pen, 0, east, east, crm.NewID[m], day(15))
	crmtest.Broken(t, "nothing, to where it is", err, "quantity out_of_range", "warehouse bad_reference")

	// What is to be ordered.
	need := func(p crm.ID[sales.Product], least int64) *sales.Product {
		return &sales.Product{Meta: crm.Meta[sales.Product]{ID: p}, Stocked: true, MinStock: least, State: sales.ProductActive}
	}
	service := need(pencil, 9)
	service.Stocked = false
	products := []*sales.Product{need(pen, 6_000), need(pen, 5_999), need(pencil, 1), service}
	two := map[stock.Key]int64{{east, pen}: 2_999, {west, pen}: 3_000}
	if got := stock.Reorder(two, products); len(got) != 2 || got[0] != products[0] || got[1] != products[2] {
		t.Errorf("%d to order", len(got))
	}

	// Warehouses.
	w := &stock.Warehouse{Code: "E", Name: "east", State: stock.WarehouseOpen}
	w.ID = east
	levels, err := stock.Levels(ledger, day(30))
	if err != nil {
		t.Fatal(err)
	}
	crmtest.Broken(t, "closed with something in it", w.Close(levels, day(30)), "state not_empty")
	if err := w.Close(map[stock.Key]int64{{east, pen}: 0, {west, pen}: 3}, day(30)); err != nil || w.State != stock.WarehouseClosed {
		t.Error(err)
	}
	crmtest.Stays(t, "closed twice", w.Close(nil, day(30)), "closed", "closed")
}

func TestOrders(t *testing.T) {
	type o = stock.Order
	crmtest.Edits(t, order, (*o).Validate,
		crmtest.Breaks(func(*o) {}),
		crmtest.Breaks(func(r *o) { r.Kind = crmtest.Secret }, "kind unknown_value"),
		crmtest.Breaks(func(r *o) { r.Number, r.Currency = "", "" }, "number required", "currency required"),
		crmtest.Breaks(func(r *o) { r.Total++ }, "total mismatch"),
		crmtest.Breaks(func(r *o) { r.Items[0].Quantity = 0; _ = r.Compute() }, "items.0.quantity out_of_range"),
		crmtest.Breaks(func(r *o) { r.Items[0].Moved = 1 }, "items.0.quantity out_of_range"),
		crmtest.Breaks(func(r *o) { r.Items[1].Tax = -1 }, "items out_of_range"),
		crmtest.Breaks(func(r *o) { r.State = stock.OrderConfirmed }, "confirmed_at required"),
	)
	x := order()
	_, err := x.Fulfil([]int64{1, 1}, crm.NewID[stock.Movement], start)
	crmtest.Stays(t, "a draft", err, "draft", "partial")
	if err := x.Move(stock.OrderConfirmed, start); err != nil {
		t.Fatal(err)
	}
	crmtest.Broken(t, "done by hand", x.Move(stock.OrderDone, start), "state mismatch")
	for want, q := range map[string][]int64{
		"quantities mismatch": {1}, "quantities required": {0, 0}, "quantities.0 out_of_range": {10_001, 0}, "quantities.1 out_of_range": {0, -1},
	} {
		_, err := x.Fulfil(q, crm.NewID[stock.Movement], start)
		crmtest.Broken(t, want, err, want)
	}
	var ledger []*stock.Movement
	step := func(want stock.OrderState, q ...int64) {
		t.Helper()
		prev := *x
		add, err := x.Fulfil(q, crm.NewID[stock.Movement], start)
		if err != nil || x.State != want || x.Validate() != nil || x.CheckUpdate(&prev) != nil {
			t.Fatalf("%v: %s, %v", q, x.State, errors.Join(err, x.Validate(), x.CheckUpdate(&prev)))
		}
		if err := stock.Post(ledger, add, nil); err != nil {
			t.Fatal(err)
		}
		ledger = append(ledger, add...)
	}
	step(stock.OrderPartial, 4_000, 0)
	crmtest.Stays(t, "cancelled although something came", x.Move(stock.OrderCancelled, start), "partial", "cancelled")
	step(stock.OrderPartial, 6_000, 1_000)
	step(stock.OrderDone, 0, 1_500)
	step(stock.OrderPartial, -500, 0)
	step(stock.OrderConfirmed, -9_500, -2_500)
	step(stock.OrderPartial, 0, 2_000)
	if levels, err := stock.Levels(ledger, start); err != nil || levels[stock.Key{east, pen}] != 0 || levels[stock.Key{east, pencil}] != 2_000 {
		t.Errorf("%v, %v", levels, err)
	}
	changed := *x
	changed.Items = []stock.Item{x.Items[0]}
	crmtest.Broken(t, "other items", changed.CheckUpdate(x), "items fixed")
	if err := x.Move(stock.OrderShort, start); err != nil {
		t.Fatal(err)
	}
	_, err = x.Fulfil([]int64{1, 0}, crm.NewID[stock.Movement], start)
	crmtest.Stays(t, "after it was ended", err, "short", "partial")

	sale := order()
	sale.Kind = stock.Sale
	if err := sale.Move(stock.OrderConfirmed, start); err != nil {
		t.Fatal(err)
	}
	add, err := sale.Fulfil([]int64{0, 2_000}, crm.NewID[stock.Movement], start)
	if err != nil || add[0].Quantity != -2_000 || add[0].Kind != stock.KindDelivery || stock.Post(ledger, add, nil) != nil {
		t.Errorf("%+v, %v", add, err)
	}
	var short *stock.ShortError
	if err := stock.Post(append(ledger, add...), []*stock.Movement{move(stock.KindDelivery, east, pencil, -1, start)}, nil); !errors.As(err, &short) {
		t.Errorf("sold twice: %v", err)
	}
}

// TestLedgerProperties: whatever is posted, accepted or not, no level is ever below zero at any time, and what was in stays in.
func TestLedgerProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	var accepted, refused int
	for range 100 {
		var ledger []*stock.Movement
		for range 60 {
			var add []*stock.Movement
			switch at := day(random.IntN(40)); random.IntN(4) {
			case 0:
				add = []*stock.Movement{move(stock.KindReceipt, []crm.ID[stock.Warehouse]{east, west}[random.IntN(2)], pen, 1+random.Int64N(50), at)}
			case 1:
				add = []*stock.Movement{move(stock.KindDelivery, []crm.ID[stock.Warehouse]{east, west}[random.IntN(2)], pen, -1-random.Int64N(50), at)}
			case 2:
				add, _ = stock.Move(pen, 1+random.Int64N(30), east, west, crm.NewID[stock.Movement], at)
			default:
				if len(ledger) == 0 {
					continue
				}
				back, err := ledger[random.IntN(len(ledger))].Reverse(crm.NewID[stock.Movement](), ledger, at)
				if err != nil {
					continue
				}
				add = []*stock.Movement{back}
			}
			if err := stock.Post(ledger, add, nil); err != nil {
				var short *stock.ShortError
				if !errors.As(err, &short) {
					t.Fatal(err)
				}
				refused++
				continue
			}
			accepted++
			ledger = append(ledger, add...)
			for n := range 41 {
				levels, err := stock.Levels(ledger, day(n))
				if err != nil {
					t.Fatal(err)
				}
				for k, level := range levels {
					if level < 0 {
						t.Fatalf("%v is %d on day %d", k, level, n)
					}
				}
			}
		}
	}
	if accepted < 500 || refused < 500 {
		t.Errorf("%d accepted, %d refused", accepted, refused)
	}
}

func ExamplePost() {
	in := move(stock.KindReceipt, east, pen, 10_000, day(1))
	out := move(stock.KindDelivery, east, pen, -12_000, day(2))
	fmt.Println(stock.Post([]*stock.Movement{in}, []*stock.Movement{out}, nil))
	// Output: stock: 2000 thousandths are lacking
}
