package guard_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/flow"
	"github.com/crmguard/crmguard/crm/form"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/crm/project"
	salesdomain "github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/stock"
	"github.com/crmguard/crmguard/crm/worktime"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/normalize"
)

// stays checks that a record that was stored and read, of which a check of an update sees the clear columns, may be written back as it is.
func stays[P interface{ CheckUpdate(prev P) error }](t *testing.T, v P) {
	t.Helper()
	codec, err := encrypt.NewCodec[P](&encrypt.CodecOptions{Normalizers: normalize.Normalizers("CN"), Masks: normalize.Masks()})
	require.NoError(t, err)
	values, err := codec.ClearValues(v)
	require.NoError(t, err)
	back, empty := codec.New(), codec.New()
	require.NoError(t, codec.SetClear(back, values))
	masked := codec.Copy(v)
	for _, f := range codec.Fields() {
		if !f.Clear {
			require.NoError(t, codec.Conceal(back, f.Name, encrypt.StateHidden))
			require.NoError(t, codec.Conceal(masked, f.Name, encrypt.StateHidden))
		}
	}
	require.NoError(t, masked.CheckUpdate(back), "%T", v)
	again, err := codec.ClearValues(back)
	require.NoError(t, err)
	require.Equal(t, values, again, "%T", v)
	none, err := codec.ClearValues(empty) // what was stored before a column was added
	require.NoError(t, err)
	require.NoError(t, codec.SetClear(empty, none))
}

// TestDomainTypesComeBack: lines, parties, pauses, maps and pointers survive the columns that they are stored in.
func TestDomainTypesComeBack(t *testing.T) {
	at := crmtest.Start().Add(123456 * time.Microsecond)
	q := crmtest.Quote(1)
	q.Lines[0].Item, q.Lines[1].Milli = crm.NewUUID(), 500
	require.NoError(t, q.Compute())
	require.NoError(t, q.Move(crm.QuoteSent, at))
	stays(t, q)

	c := crmtest.Contract(1)
	c.Parties = []crm.Party{{Role: crm.PartyBuyer, Customer: c.Customer, SignedAt: at}, {Role: crm.PartySeller, Employee: crmtest.EmployeeID(3)}}
	require.NoError(t, c.Approve(crmtest.EmployeeID(9), at))
	stays(t, c)

	k := crmtest.Ticket(1)
	k.Pauses = []worktime.Pause{{From: at, To: at.Add(time.Hour)}}
	require.NoError(t, k.Move(crm.TicketWaiting, at.Add(2*time.Hour)))
	stays(t, k)

	f := crmtest.FollowUp(1)
	f.Attachments = []crm.UUID{crm.NewUUID()}
	stays(t, f)

	x := crmtest.Customer(2)
	x.Pooled = crm.Pooled{Pool: crm.NewUUID(), ClaimedAt: at, Former: crmtest.EmployeeID(4), ReturnedAt: at}
	stays(t, x)
	l := crmtest.Lead(1)
	l.Pooled = x.Pooled
	stays(t, l)

	stays(t, &pool.Pool{RecordType: crm.TypeLead, Members: []crm.ID[crm.Employee]{crmtest.EmployeeID(1)}, Clocks: pool.Clocks{Protect: 3}, Hide: []string{"phone"}})
	stays(t, &salesdomain.Product{SKU: "a", State: salesdomain.ProductActive, Stocked: true})
	stays(t, &salesdomain.Opportunity{State: salesdomain.OpportunityWon, ClosedAt: at, Stage: "x"})
	stays(t, &finance.Receipt{State: finance.ReceiptApproved, At: at, Amount: -3, Account: crm.NewText("1"), Approver: crmtest.EmployeeID(1), DecidedAt: at})
	stays(t, &finance.Invoice{State: finance.InvoiceIssued, Lines: q.Lines, IssuedAt: at, Buyer: crm.NewText("x")})
	stays(t, &finance.Expense{State: finance.ExpensePaid, PaidAt: at, Approver: crmtest.EmployeeID(1), DecidedAt: at})
	stays(t, &finance.Period{State: finance.PeriodClosed, Starts: at, Ends: at.Add(1), ClosedAt: at})
	stays(t, &finance.Instalment{DueAt: at, Amount: 5})
	stays(t, &stock.Movement{Kind: stock.KindCount, Quantity: -4, At: at})
	stays(t, &stock.Order{State: stock.OrderPartial, Items: []stock.Item{{Quantity: 5, Moved: 2}}, ConfirmedAt: at})
	stays(t, &stock.Warehouse{Code: "E", State: stock.WarehouseOpen})
	stays(t, &project.Project{State: project.Done, Members: []project.Member{{Employee: crmtest.EmployeeID(1), Role: project.Lead}}, ClosedAt: at})
	stays(t, &project.Task{State: project.TaskOpen, After: []crm.ID[project.Task]{crm.NewID[project.Task]()}})
	stays(t, &form.Form{
		State: form.Published, Revision: 1, Titles: map[string]string{"en": "a", "zh-CN": "b"},
		Fields: []form.Field{{Name: "a", Kind: form.Choice, Class: form.Personal, Options: []string{"x"}, Labels: map[string]string{"en": "a"}}},
	})
	stays(t, &form.Entry{Revision: 1, Open: map[string]string{"a": "1"}, Personal: map[string]crm.Text{"b": crm.NewText("2")}})
	no := flow.Condition{Not: &flow.Condition{Field: "a", Op: flow.Empty}}
	stays(t, &flow.Flow{
		Status: flow.Published, States: []flow.State{{Name: "a", Place: flow.Start}},
		Steps: []flow.Step{{Name: "s", When: no, Approvals: []flow.Approval{{Who: flow.AllOf, People: []flow.ID{crmtest.EmployeeID(1)}}}}},
	})
	stays(t, &flow.Instance{
		State: "a", Since: at, Pending: &flow.Pending{Step: "s", By: crmtest.EmployeeID(1), Approvers: []flow.ID{crmtest.EmployeeID(2)}, Need: 1, DueAt: at},
		History: []flow.Event{{At: at, What: flow.Started, By: crmtest.EmployeeID(1)}, {At: at, What: flow.Refused}},
	})
	stays(t, &flow.Instance{State: "a", EndedAt: at, History: []flow.Event{{At: at, What: flow.Started}}})
}
