package finance_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/money"
)

var (
	start = crmtest.Start()
	boss  = crmtest.EmployeeID(9)
)

func day(n int) time.Time { return start.AddDate(0, 0, n) }

func contract() *crm.Contract {
	c := crmtest.Contract(0)
	c.Amount, c.State = 100_000, crm.ContractActive
	return c
}

// plan is three instalments of 30,000, 30,000 and 40,000, due after 30, 60 and 90 days.
func plan(t testing.TB) []*finance.Instalment {
	t.Helper()
	list, err := finance.Plan(contract(), []finance.Part{{DueAt: day(30), Weight: 30}, {DueAt: day(60), Weight: 30}, {DueAt: day(90), Weight: 40}},
		crm.NewID[finance.Instalment], start)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func receipt(amount int64, at time.Time, on *finance.Instalment) *finance.Receipt {
	r := &finance.Receipt{
		Meta:     crm.Meta[finance.Receipt]{ID: crm.NewID[finance.Receipt](), Owner: crmtest.EmployeeID(1)},
		Contract: contract().ID, Customer: contract().Customer, Amount: amount, Currency: "CNY", At: at, Method: finance.MethodBank,
		State: finance.ReceiptApproved, Approver: boss, DecidedAt: at,
	}
	if on != nil {
		r.Instalment = on.ID
	}
	return r
}

// TestStored: the types can be protected, under the names that package crm lists.
func TestStored(t *testing.T) {
	for want, schema := range map[string]func(*guard.TypeOptions) (crm.Schema, error){
		crm.TypeInstalment: guard.Schema[*finance.Instalment], crm.TypeReceipt: guard.Schema[*finance.Receipt],
		crm.TypeInvoice: guard.Schema[*finance.Invoice], crm.TypeExpense: guard.Schema[*finance.Expense], crm.TypePeriod: guard.Schema[*finance.Period],
	} {
		if s, err := schema(nil); err != nil || s.Type != want {
			t.Errorf("%s: %q, %v", want, s.Type, err)
		}
	}
}

// TestItem06Payments: a contract's sum is split into instalments; receipts are matched to them, over-payments, reversals and what is overdue are
// counted at any moment.
func TestItem06Payments(t *testing.T) {
	list := plan(t)
	if len(list) != 3 || list[0].Amount != 30_000 || list[2].Amount != 40_000 || list[2].Number != 3 || list[0].Person != contract().Person {
		t.Fatalf("%+v", list)
	}
	for want, edit := range map[string]func(*crm.Contract, []finance.Part) []finance.Part{
		"contract mismatch":    func(c *crm.Contract, p []finance.Part) []finance.Part { c.State = crm.ContractDraft; return p },
		"parts required":       func(*crm.Contract, []finance.Part) []finance.Part { return nil },
		"parts out_of_range":   func(_ *crm.Contract, p []finance.Part) []finance.Part { p[0].Weight = -1; return p },
		"parts.1 before_start": func(_ *crm.Contract, p []finance.Part) []finance.Part { p[1].DueAt = day(1); return p },
		"parts.1 required":     func(_ *crm.Contract, p []finance.Part) []finance.Part { p[1].DueAt = time.Time{}; return p },
	} {
		c := contract()
		_, err := finance.Plan(c, edit(c, []finance.Part{{day(30), 1}, {day(60), 1}}), crm.NewID[finance.Instalment], start)
		crmtest.Broken(t, want, err, want)
	}
	_, err := finance.Plan(contract(), []finance.Part{{day(1), 1}, {day(2), 1_000_000}}, crm.NewID[finance.Instalment], start)
	crmtest.Broken(t, "a part of nothing", err, "parts out_of_range")

	type i = finance.Instalment
	crmtest.Edits(t, func() *i { return plan(t)[0] }, (*i).Validate,
		crmtest.Breaks(func(*i) {}),
		crmtest.Breaks(func(r *i) { r.Amount = 0 }, "amount out_of_range"),
		crmtest.Breaks(func(r *i) { r.Number = 0 }, "number out_of_range"),
		crmtest.Breaks(func(r *i) { r.DueAt, r.Currency = time.Time{}, "" }, "currency required", "due_at required"),
	)
	crmtest.Fixed(t, plan(t)[0], (*i).CheckUpdate, map[string]func(*i){
		"contract fixed": func(r *i) { r.Contract = crm.NewID[crm.Contract]() }, "currency fixed": func(r *i) { r.Currency = "EUR" },
	})

	type figures struct{ paid, outstanding, overdue, credit int64 }
	for _, c := range []struct {
		name     string
		receipts func(p []*i) []*finance.Receipt
		at       time.Time
		want     figures
		each     []int64 // outstanding of each
	}{
		{"nothing paid, nothing due", func([]*i) []*finance.Receipt { return nil }, day(30), figures{0, 100_000, 0, 0}, []int64{30_000, 30_000, 40_000}},
		{"one late by a moment", func([]*i) []*finance.Receipt { return nil }, day(30).Add(1), figures{0, 100_000, 30_000, 0}, []int64{30_000, 30_000, 40_000}},
		{"matched to the second", func(p []*i) []*finance.Receipt { return []*finance.Receipt{receipt(10_000, day(5), p[1])} },
			day(61), figures{10_000, 90_000, 50_000, 0}, []int64{30_000, 20_000, 40_000}},
		{"not matched pays the oldest", func([]*i) []*finance.Receipt { return []*finance.Receipt{receipt(35_000, day(5), nil)} },
			day(10), figures{35_000, 65_000, 0, 0}, []int64{0, 25_000, 40_000}},
		{"too much on one flows on", func(p []*i) []*finance.Receipt { return []*finance.Receipt{receipt(50_000, day(5), p[2])} },
			day(31), figures{50_000, 50_000, 20_000, 0}, []int64{20_000, 30_000, 0}},
		{"over-payment", func(p []*i) []*finance.Receipt {
			return []*finance.Receipt{receipt(100_000, day(5), nil), receipt(7, day(6), p[0])}
		}, day(100), figures{100_000, 0, 0, 7}, []int64{0, 0, 0}},
		{"later than asked", func([]*i) []*finance.Receipt { return []*finance.Receipt{receipt(100_000, day(40), nil)} },
			day(39), figures{0, 100_000, 30_000, 0}, []int64{30_000, 30_000, 40_000}},
		{"reported only", func([]*i) []*finance.Receipt {
			r := receipt(100_000, day(4), nil)
			r.State, r.Approver = finance.ReceiptReported, crm.ID[crm.Employee]{}
			return []*finance.Receipt{r}
		}, day(5), figures{0, 100_000, 0, 0}, []int64{30_000, 30_000, 40_000}},
		{"reversed", func(p []*i) []*finance.Receipt {
			r := receipt(30_000, day(4), p[0])
			back := receipt(-30_000, day(20), nil)
			back.Reverses = r.ID
			return []*finance.Receipt{r, back}
		}, day(35), figures{0, 100_000, 30_000, 0}, []int64{30_000, 30_000, 40_000}},
		{"before it was reversed", func(p []*i) []*finance.Receipt {
			r := receipt(30_000, day(4), p[0])
			back := receipt(-30_000, day(20), p[0])
			back.Reverses = r.ID
			return []*finance.Receipt{back, r}
		}, day(19), figures{30_000, 70_000, 0, 0}, []int64{0, 30_000, 40_000}},
	} {
		p := plan(t)
		s, err := finance.Balance(p, c.receipts(p), c.at)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var each []int64
		for _, x := range s.Instalments {
			each = append(each, x.Outstanding)
		}
		if got := (figures{s.Paid, s.Outstanding, s.Overdue, s.Credit}); got != c.want || !slices.Equal(each, c.each) || s.Total != 100_000 {
			t.Errorf("%s: %+v %v, want %+v %v", c.name, got, each, c.want, c.each)
		}
	}

	for _, c := range []struct {
		want string
		edit func(p []*i, r []*finance.Receipt)
	}{
		{"receipts.0 mismatch", func(_ []*i, r []*finance.Receipt) { r[0].Currency = "EUR" }},
		{"receipts.1 mismatch", func(_ []*i, r []*finance.Receipt) { r[1].Amount++ }},
		{"receipts.1 bad_reference", func(_ []*i, r []*finance.Receipt) { r[1].Reverses = crm.NewID[finance.Receipt]() }},
		{"receipts.2 repeated", func(_ []*i, r []*finance.Receipt) { r[2].Reverses, r[2].Amount = r[0].ID, -r[0].Amount }},
		{"receipts.2 bad_reference", func(_ []*i, r []*finance.Receipt) { r[2].Instalment = crm.NewID[i]() }},
		{"instalments.1 repeated", func(p []*i, _ []*finance.Receipt) { p[1].Number = 1 }},
		{"instalments.2 mismatch", func(p []*i, _ []*finance.Receipt) { p[2].Contract = crm.NewID[crm.Contract]() }},
		{"amount out_of_range", func(p []*i, _ []*finance.Receipt) { p[0].Amount, p[1].Amount = math.MaxInt64, 1; p[2].Amount = 0 }},
		{"receipts.1 bad_reference", func(_ []*i, r []*finance.Receipt) { r[0].State = finance.ReceiptRefused }},
	} {
		p := plan(t)
		r := []*finance.Receipt{receipt(5, day(1), p[0]), receipt(-5, day(2), p[0]), receipt(9, day(3), nil)}
		r[1].Reverses = r[0].ID
		c.edit(p, r)
		_, err := finance.Balance(p, r, day(4))
		crmtest.Broken(t, c.want, err, c.want)
	}
	_, err = finance.Balance(nil, nil, start)
	crmtest.Broken(t, "no instalments", err, "instalments required")

	reminded := plan(t)
	reminded[0].RemindDays = 3
	for at, want := range map[time.Time]bool{day(27): true, day(27).Add(-1): false, day(40): true} {
		if s, err := finance.Balance(reminded, nil, at); err != nil || s.Instalments[0].Remind != want {
			t.Errorf("reminds at %v: %v, %v", at, s.Instalments[0].Remind, err)
		}
	}
}

// TestBalanceProperties: whatever comes and goes back, what was paid, is outstanding and is credit adds up, at every time.
func TestBalanceProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		p := plan(t)
		var list []*finance.Receipt
		for range random.IntN(8) {
			var on *finance.Instalment
			if n := random.IntN(4); n < 3 {
				on = p[n]
			}
			r := receipt(1+random.Int64N(60_000), day(random.IntN(100)), on)
			list = append(list, r)
			if random.IntN(3) == 0 {
				back, err := r.Reverse(crm.NewID[finance.Receipt](), r.At.AddDate(0, 0, random.IntN(30)))
				if err != nil {
					t.Fatal(err)
				}
				back.State, back.Approver = finance.ReceiptApproved, boss
				list = append(list, back)
			}
		}
		random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		at := day(random.IntN(130))
		s, err := finance.Balance(p, list, at)
		if err != nil {
			t.Fatal(err)
		}
		var received int64
		for _, r := range list {
			if !r.At.After(at) {
				received += r.Amount
			}
		}
		if s.Paid+s.Credit != received || s.Paid+s.Outstanding != s.Total || s.Total != 100_000 || s.Credit < 0 || s.Overdue > s.Outstanding ||
			s.Credit > 0 && s.Outstanding > 0 {
			t.Fatalf("%+v of %d", s, received)
		}
	}
}

func TestReceipts(t *testing.T) {
	type r = finance.Receipt
	good := func() *r {
		x := receipt(100, start, nil)
		x.State, x.Approver, x.DecidedAt = finance.ReceiptReported, crm.ID[crm.Employee]{}, time.Time{}
		x.Account = crm.NewText("6222 0000 0000 0000")
		return x
	}
	crmtest.Edits(t, good, (*r).Validate,
		crmtest.Breaks(func(*r) {}),
		crmtest.Breaks(func(x *r) { x.Amount = 0 }, "amount required"),
		crmtest.Breaks(func(x *r) { x.Amount = -1 }, "amount negative"),
		crmtest.Breaks(func(x *r) { x.Reverses = crm.NewID[r]() }, "amount mismatch"),
		crmtest.Breaks(func(x *r) { x.Reverses, x.Amount = x.ID, -1 }, "reverses bad_reference"),
		crmtest.Breaks(func(x *r) { x.Reverses, x.Amount = crm.NewID[r](), math.MinInt64 }, "amount out_of_range"),
		crmtest.Breaks(func(x *r) { x.Method = crmtest.Secret }, "method unknown_value"),
		crmtest.Breaks(func(x *r) { x.State = finance.ReceiptApproved }, "state mismatch"),
		crmtest.Breaks(func(x *r) { x.State, x.Approver, x.DecidedAt = finance.ReceiptApproved, x.Owner, start }, "approver four_eyes"),
		crmtest.Breaks(func(x *r) { x.Account = crm.NewText(crmtest.Secret + "\n") }, "account not_text"),
	)
	x := good()
	crmtest.Broken(t, "the owner approves", x.Decide(x.Owner, finance.ReceiptApproved, nil, start), "approver four_eyes")
	_, err := x.Reverse(crm.NewID[r](), start)
	crmtest.Stays(t, "reversed before it counts", err, "reported", "reversed")
	if err := x.Decide(boss, finance.ReceiptApproved, nil, start); err != nil {
		t.Fatal(err)
	}
	crmtest.Stays(t, "refused after it was approved", x.Decide(boss, finance.ReceiptRefused, nil, start), "approved", "refused")
	crmtest.Fixed(t, x, (*r).CheckUpdate, map[string]func(*r){
		"amount fixed": func(x *r) { x.Amount++ }, "at fixed": func(x *r) { x.At = x.At.Add(time.Hour) }, "method fixed": func(x *r) { x.Method = finance.MethodCash },
		"contract fixed": func(x *r) { x.Contract = crm.NewID[crm.Contract]() }, "account fixed": func(x *r) { x.Account = crm.NewText("1") },
	})
	matched := *x
	matched.Instalment = crm.NewID[finance.Instalment]()
	if err := matched.CheckUpdate(x); err != nil {
		t.Errorf("matched later: %v", err)
	}
	_, err = x.Reverse(crm.NewID[r](), start.Add(-time.Hour))
	crmtest.Broken(t, "reversed before it came", err, "at too_early")
	back, err := x.Reverse(crm.NewID[r](), start)
	if err != nil || back.Amount != -100 || back.Reverses != x.ID || back.Validate() != nil {
		t.Fatalf("%+v, %v", back, err)
	}
	back.State, back.Approver, back.DecidedAt = finance.ReceiptApproved, boss, start
	_, err = back.Reverse(crm.NewID[r](), start)
	crmtest.Broken(t, "the reversal of a reversal", err, "reverses bad_reference")
}

func invoice() *finance.Invoice {
	i := &finance.Invoice{
		Meta: crm.Meta[finance.Invoice]{ID: crm.NewID[finance.Invoice](), Owner: crmtest.EmployeeID(1)}, Kind: finance.KindInvoice,
		Customer: crmtest.CustomerID(1), Buyer: crm.NewText("Company 1 Ltd"), TaxID: crm.NewText("91350100M000100Y43"), Currency: "CNY",
		Lines: []crm.Line{{Product: "licence", Quantity: 3, UnitPrice: 19900, Tax: 1300}, {Product: "training", Quantity: 1, UnitPrice: 80000, Tax: 600}},
		DueAt: day(30), State: finance.InvoiceDraft,
	}
	if err := i.Compute(); err != nil {
		panic(err)
	}
	return i
}

func months() finance.Books {
	var books finance.Books
	for m := range 3 {
		books = append(books, &finance.Period{
			Name: fmt.Sprintf("2026-%02d", m+2), State: finance.PeriodOpen,
			Starts: time.Date(2026, time.Month(m+2), 1, 0, 0, 0, 0, time.UTC), Ends: time.Date(2026, time.Month(m+3), 1, 0, 0, 0, 0, time.UTC),
		})
	}
	return books
}

// TestItem11Finance: invoices with credit notes, expenses approved by somebody else, closed periods that take nothing more, and debts by age.
func TestItem11Finance(t *testing.T) {
	type i = finance.Invoice
	crmtest.Edits(t, invoice, (*i).Validate,
		crmtest.Breaks(func(*i) {}),
		crmtest.Breaks(func(x *i) { x.Kind = crmtest.Secret }, "kind unknown_value"),
		crmtest.Breaks(func(x *i) { x.Kind = finance.KindCreditNote }, "credits mismatch"),
		crmtest.Breaks(func(x *i) { x.Credits = x.ID }, "credits mismatch"),
		crmtest.Breaks(func(x *i) { x.Kind, x.Credits = finance.KindCreditNote, x.ID }, "credits bad_reference"),
		crmtest.Breaks(func(x *i) { x.Total++ }, "total mismatch"),
		crmtest.Breaks(func(x *i) { x.Lines[0].Tax = 10001 }, "lines.0 out_of_range"),
		crmtest.Breaks(func(x *i) { x.State, x.Number, x.IssuedAt, x.Buyer = finance.InvoiceIssued, "1", start, crm.Text{} }, "buyer required"),
		crmtest.Breaks(func(x *i) { x.State, x.Number = finance.InvoiceIssued, "1" }, "issued_at mismatch"),
	)
	books := months()
	x := invoice()
	crmtest.Broken(t, "no number", x.Issue("", books, start), "number required")
	crmtest.Broken(t, "due before it is issued", x.Issue("INV-1", nil, day(31)), "due_at before_start")
	_, err := x.Credit(crm.NewID[i](), nil, nil, start)
	crmtest.Stays(t, "a draft is credited", err, "draft", "credited")
	if err := x.Issue("INV-1", books, start); err != nil {
		t.Fatal(err)
	}
	crmtest.Stays(t, "issued twice", x.Issue("INV-2", books, start), "issued", "issued")
	crmtest.Stays(t, "discarded after it was issued", x.Discard(start), "issued", "discarded")
	crmtest.Fixed(t, x, (*i).CheckUpdate, map[string]func(*i){
		"number fixed": func(x *i) { x.Number = "2" }, "lines fixed": func(x *i) { x.Lines = x.Lines[:1] }, "total fixed": func(x *i) { x.Total-- },
		"buyer fixed": func(x *i) { x.Buyer = crm.NewText("another") }, "due_at fixed": func(x *i) { x.DueAt = day(90) }, "customer fixed": func(x *i) { x.Customer = crmtest.CustomerID(2) },
		"kind fixed": func(x *i) { x.Credits = crm.NewID[i]() }, "issued_at fixed": func(x *i) { x.IssuedAt = day(1) },
	})

	// Credit notes.
	one, err := x.Credit(crm.NewID[i](), []crm.Line{{Product: "licence", Quantity: 1, UnitPrice: 19900, Tax: 1300}}, nil, day(1))
	if err != nil || one.Net != 19900 || one.Tax != 2587 || one.Credits != x.ID || one.Validate() != nil {
		t.Fatalf("%+v, %v", one, err)
	}
	_, err = x.Credit(crm.NewID[i](), nil, []*i{one}, day(1))
	crmtest.Broken(t, "more than was asked for", err, "lines out_of_range")
	if err := one.Discard(day(1)); err != nil {
		t.Fatal(err)
	}
	if all, err := x.Credit(crm.NewID[i](), nil, []*i{one}, day(1)); err != nil || all.Total != x.Total {
		t.Errorf("all of it: %v", err)
	}
	_, err = x.Credit(crm.NewID[i](), nil, []*i{invoice()}, day(1))
	crmtest.Broken(t, "a note of another invoice", err, "earlier bad_reference")
	hidden := *x
	hidden.TaxID.SetExposed("9135****", uint8(crm.Masked))
	_, err = hidden.Credit(crm.NewID[i](), nil, nil, day(1))
	crmtest.Broken(t, "a tax number that was not opened", err, "tax_id not_open")

	// Expenses.
	type e = finance.Expense
	expense := func() *e {
		return &e{
			Meta: crm.Meta[e]{ID: crm.NewID[e](), Owner: crmtest.EmployeeID(1)}, Category: "travel", Amount: 5000, Currency: "CNY", SpentAt: start,
			State: finance.ExpenseDraft,
		}
	}
	crmtest.Edits(t, expense, (*e).Validate,
		crmtest.Breaks(func(*e) {}),
		crmtest.Breaks(func(x *e) { x.Amount = 0 }, "amount out_of_range"),
		crmtest.Breaks(func(x *e) { x.Category = "" }, "category required"),
		crmtest.Breaks(func(x *e) { x.State = finance.ExpenseApproved }, "state mismatch"),
		crmtest.Breaks(func(x *e) { x.PaidAt = start }, "paid_at mismatch"),
		crmtest.Breaks(func(x *e) { x.Owner = crm.ID[crm.Employee]{} }, "owner required"),
	)
	spent := expense()
	owner := spent.Owner
	crmtest.Broken(t, "submitted by another", spent.Move(finance.ExpenseSubmitted, boss, books, start), "owner mismatch")
	crmtest.Stays(t, "approved before it is submitted", spent.Move(finance.ExpenseApproved, boss, books, start), "draft", "approved")
	if err := spent.Move(finance.ExpenseSubmitted, owner, books, start); err != nil {
		t.Fatal(err)
	}
	crmtest.Broken(t, "approved by its owner", spent.Move(finance.ExpenseApproved, owner, books, start), "approver four_eyes")
	crmtest.Fixed(t, spent, (*e).CheckUpdate, map[string]func(*e){"amount fixed": func(x *e) { x.Amount++ }, "category fixed": func(x *e) { x.Category = "x" }})
	if err := spent.Move(finance.ExpenseRefused, boss, books, start); err != nil {
		t.Fatal(err)
	}
	for _, to := range []struct {
		state finance.ExpenseState
		by    crm.ID[crm.Employee]
	}{{finance.ExpenseDraft, owner}, {finance.ExpenseSubmitted, owner}, {finance.ExpenseApproved, boss}} {
		prev := *spent
		if err := errors.Join(spent.Move(to.state, to.by, books, start), spent.CheckUpdate(&prev)); err != nil {
			t.Fatalf("%s: %v", to.state, err)
		}
	}
	crmtest.Broken(t, "paid out to oneself", spent.Move(finance.ExpensePaid, owner, books, start), "by four_eyes")

	// Closing a period.
	march := books[1]
	crmtest.Broken(t, "not in order", books.Close(march, 0, boss, march.Ends), "starts not_in_order")
	crmtest.Broken(t, "too early, by nobody, with something pending", books.Close(books[0], 1, crm.ID[crm.Employee]{}, books[0].Ends.Add(-1)),
		"closed_by required", "ends too_early", "pending mismatch")
	for _, p := range books[:2] {
		if err := errors.Join(books.Close(p, 0, boss, p.Ends), p.Validate()); err != nil {
			t.Fatal(err)
		}
	}
	crmtest.Stays(t, "closed twice", books.Close(march, 0, boss, march.Ends), "closed", "closed")
	opened := *march
	opened.State = finance.PeriodOpen
	crmtest.Stays(t, "opened again", opened.CheckUpdate(march), "closed", "open")
	report := receipt(1, start, nil)
	report.State, report.Approver, report.DecidedAt = finance.ReceiptReported, crm.ID[crm.Employee]{}, time.Time{}
	for what, post := range map[string]error{
		"an invoice": invoice().Issue("INV-3", books, start), "a receipt": report.Decide(boss, finance.ReceiptApproved, books, day(60)),
		"an expense": spent.Move(finance.ExpensePaid, boss, books, start),
	} {
		var closed *finance.ClosedError
		if !errors.As(post, &closed) || closed.Period != "2026-03" {
			t.Errorf("%s in a closed period: %v", what, post)
		}
	}
	var none *finance.ClosedError
	if err := books.Post(day(500)); !errors.As(err, &none) || none.Period != "" {
		t.Errorf("no period: %v", err)
	}
	if err := spent.Move(finance.ExpensePaid, boss, books, march.Ends); err != nil {
		t.Errorf("in the open period after it: %v", err)
	}
	if err := books.Validate(); err != nil {
		t.Error(err)
	}
	books[2].Starts = books[2].Starts.Add(-1)
	crmtest.Broken(t, "two periods at once", books.Validate(), "starts repeated")

	// Ageing.
	customer := crmtest.CustomerID(1)
	debts := []finance.Debt{
		{customer, "CNY", day(0), 1}, {customer, "CNY", day(-1), 10}, {customer, "CNY", day(-30), 100}, {customer, "CNY", day(-31), 1000},
		{customer, "CNY", day(-91), 10_000}, {customer, "EUR", day(-91), 5}, {customer, "CNY", day(-5), 0}, {customer, "CNY", day(0).Add(-1), 100_000},
	}
	got, err := finance.Ageing(debts, "CNY", start, 30, 60, 90)
	if want := []finance.Bucket{{0, 1, 1}, {30, 3, 100_110}, {60, 1, 1000}, {90, 0, 0}, {-1, 1, 10_000}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = finance.Ageing(debts, "CNY", start, 30, 30)
	crmtest.Broken(t, "limits that do not rise", err, "limits out_of_range")
	_, err = finance.Ageing([]finance.Debt{{customer, "CNY", start, -1}}, "CNY", start)
	crmtest.Broken(t, "a negative debt", err, "outstanding negative")
	if _, err = finance.Ageing([]finance.Debt{{customer, "CNY", start, math.MaxInt64}, {customer, "CNY", start, 1}}, "CNY", start); !errors.Is(err, money.ErrOverflow) {
		t.Errorf("a sum that does not fit: %v", err)
	}
}

// TestItem58FinancialFields: account and tax numbers are sealed as financial data under the retention of taxes.
func TestItem58FinancialFields(t *testing.T) {
	for what, schema := range map[string]func(*guard.TypeOptions) (crm.Schema, error){
		"receipt": guard.Schema[*finance.Receipt], "invoice": guard.Schema[*finance.Invoice], "expense": guard.Schema[*finance.Expense],
	} {
		s, err := schema(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range s.Columns {
			if slices.Contains([]string{"account", "tax_id", "reference", "payer", "buyer"}, c.Name) {
				t.Errorf("%s keeps %s in the clear", what, c.Name)
			}
		}
	}
	r := receipt(1, start, nil)
	r.Account = crm.NewText(crmtest.Secret)
	if s := fmt.Sprintf("%+v", r); strings.Contains(s, crmtest.Secret) || r.Account.String() != "***" {
		t.Errorf("printed: %s", s)
	}
}

func ExampleBalance() {
	c := crmtest.Contract(0)
	c.State = crm.ContractActive // over 1,200.00
	parts := []finance.Part{{DueAt: c.Starts.AddDate(0, 1, 0), Weight: 1}, {DueAt: c.Starts.AddDate(0, 2, 0), Weight: 1}}
	plan, err := finance.Plan(c, parts, crm.NewID[finance.Instalment], c.Starts)
	if err != nil {
		panic(err)
	}
	came := &finance.Receipt{
		Contract: c.ID, Customer: c.Customer, Amount: 700_00, Currency: "CNY", At: c.Starts.AddDate(0, 0, 20), State: finance.ReceiptApproved,
	}
	s, err := finance.Balance(plan, []*finance.Receipt{came}, c.Starts.AddDate(0, 3, 0))
	if err != nil {
		panic(err)
	}
	for _, p := range s.Instalments {
		fmt.Println(p.Instalment.Number, money.Format(p.Paid, s.Currency), money.Format(p.Outstanding, s.Currency), p.Overdue)
	}
	// Output:
	// 1 600.00 0.00 false
	// 2 100.00 500.00 true
}

// TestItem11Credits credits the lines of 3,000 invoices one by one, and in parts: none asks back more than was asked for, whole lines come to the
// invoice exactly, and nothing is left that cannot be credited.
func TestItem11Credits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	type i = finance.Invoice
	for n := range 3000 {
		x := invoice()
		x.Lines, x.Discount = nil, rnd.Int64N(4000)
		for range 1 + rnd.IntN(6) {
			x.Lines = append(x.Lines, crm.Line{
				Product: "pen", Quantity: 1 + rnd.Int64N(9), Milli: rnd.Int64N(1000), UnitPrice: 1 + rnd.Int64N(1000), Discount: rnd.Int64N(3000), Tax: []int64{0, 600, 1300}[rnd.IntN(3)],
			})
		}
		if n%5 == 0 && len(x.Lines) > 1 {
			x.Lines[1] = x.Lines[0]
		}
		if err := errors.Join(x.Compute(), x.Issue("INV-1", nil, start)); err != nil {
			t.Fatal(err)
		}
		var notes []*i
		var net, tax int64
		credit := func(l crm.Line) *i {
			t.Helper()
			note, err := x.Credit(crm.NewID[i](), []crm.Line{l}, notes, day(1))
			if err != nil {
				t.Fatalf("invoice %d: %v", n, err)
			}
			if err := note.Validate(); err != nil {
				t.Fatalf("invoice %d: %v", n, err)
			}
			notes = append(notes, note)
			net, tax = net+note.Net, tax+note.Tax
			return note
		}
		for _, k := range rnd.Perm(len(x.Lines)) {
			credit(x.Lines[k])
		}
		if net != x.Net || tax != x.Tax {
			t.Fatalf("invoice %d: %d and %d of %d and %d", n, net, tax, x.Net, x.Tax)
		}
		dear := crm.Line{Product: "pen", Quantity: 1, UnitPrice: 100}
		if _, err := x.Credit(crm.NewID[i](), []crm.Line{dear}, notes, day(1)); err == nil {
			t.Fatalf("invoice %d: more than was asked for", n)
		}

		// The first line in two parts, then the others.
		notes, net, tax = nil, 0, 0
		first, second := x.Lines[0], x.Lines[0]
		first.Quantity, second.Milli = first.Quantity/2, 0
		first.Milli = x.Lines[0].Milli
		second.Quantity -= first.Quantity
		if first.Quantity > 0 {
			credit(first)
			credit(second)
			for _, l := range x.Lines[1:] {
				credit(l)
			}
			if net > x.Net || tax > x.Tax || x.Net-net > int64(2*len(x.Lines)+4) {
				t.Fatalf("invoice %d in parts: %d and %d of %d and %d", n, net, tax, x.Net, x.Tax)
			}
		}
	}
}
