package desk_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/stock"
	"github.com/crmguard/crmguard/crm/trash"
)

// TestNoOtherDoor: what an act gives cannot be had by a plain creation or update.
func TestNoOtherDoor(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	k := o.customer(t, o.sales, "Buyer")
	var step *crm.TransitionError

	// Contracts and quotes begin as drafts.
	active := &crm.Contract{Number: "C-9", Customer: k.ID, Amount: 1, Currency: "CNY", State: crm.ContractActive, Starts: o.clock(), Ends: o.clock().AddDate(1, 0, 0)}
	active.SignatoryPerson, active.Signatory, active.ApprovedAt = k.Person, crm.NewText("Ann"), o.clock()
	_, err := o.Contracts.Create(ctx, o.sales, active)
	require.ErrorAs(t, err, &step)
	sent := *o.quote(t, k, 9000)
	sent.Meta, sent.Actors, sent.State, sent.SentAt = crm.Meta[crm.Quote]{}, "", crm.QuoteSent, o.clock()
	_, err = o.Quotes.Create(ctx, o.sales, &sent)
	require.ErrorAs(t, err, &step)
	draft := *o.quote(t, k, 9000)
	require.NoError(t, draft.Move(crm.QuoteSent, o.clock()))
	_, err = o.Quotes.Update(ctx, o.sales, &draft)
	denied(t, err)

	// The limit of who approves is one of the total, and an approval is for one customer.
	dear := &crm.Quote{Number: "Q-2", Customer: k.ID, Currency: "CNY", State: crm.QuoteDraft, ValidUntil: o.clock().AddDate(0, 1, 0),
		Lines: []crm.Line{{Product: "Plant", Quantity: 1, UnitPrice: 1_000_000_000, Discount: 5000}}}
	require.NoError(t, dear.Compute())
	_, err = o.Quotes.Create(ctx, o.sales, dear)
	require.NoError(t, err)
	denied(t, o.ApproveQuote(ctx, o.manager, dear.ID, 1))
	require.ErrorIs(t, o.ApproveQuote(ctx, o.manager, dear.ID, 0), crm.ErrConflict, "what they have not seen")
	cheap := o.quote(t, k, 9000)
	require.NoError(t, o.ApproveQuote(ctx, o.manager, cheap.ID, 1))
	v, err := o.Quotes.Get(ctx, o.sales, cheap.ID.UUID())
	require.NoError(t, err)
	moved := *v.Value
	moved.Customer = o.customer(t, o.sales, "Another").ID
	_, err = o.Quotes.Update(ctx, o.sales, &moved)
	invalid(t, err, "approved_at", "mismatch")

	// Who changed an offer does not approve the contract over it.
	series, err := o.Series.Create(ctx, o.admin, &crm.Series{Name: "contract", Prefix: "C-", Digits: 4})
	require.NoError(t, err)
	q := o.quote(t, k, 0)
	edited := *q
	edited.Lines = []crm.Line{{Product: "Pump", Quantity: 9, UnitPrice: 10_000}}
	require.NoError(t, edited.Compute())
	_, err = o.Quotes.Update(ctx, o.manager, &edited)
	require.NoError(t, err)
	require.NoError(t, o.SendQuote(ctx, o.sales, q.ID, 2))
	c, err := o.AcceptQuote(ctx, o.sales, q.ID, 3, desk.Draft{Series: series.Value.ID, Starts: o.clock(), Ends: o.clock().AddDate(1, 0, 0)})
	require.NoError(t, err)
	denied(t, o.ApproveContract(ctx, o.manager, c.ID, 1))

	// Numbers count upwards, periods are closed by the act, and ledgers and histories are written by acts.
	s, err := o.Series.Get(ctx, o.sales, series.Value.ID.UUID())
	require.NoError(t, err)
	for _, edit := range []func(*crm.Series){func(s *crm.Series) { s.Last = 9999 }, func(s *crm.Series) { s.Year, s.Last = 2027, 0 }, func(s *crm.Series) { s.Prefix = "X-" }} {
		next := *s.Value
		edit(&next)
		_, err = o.Series.Update(ctx, o.sales, &next)
		require.Error(t, err)
	}
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := &finance.Period{Name: "2026-01", Starts: begin, Ends: begin.AddDate(0, 1, 0), State: finance.PeriodOpen}
	require.NoError(t, o.OpenPeriod(ctx, o.finance, p))
	closed := *p
	closed.State, closed.ClosedBy, closed.ClosedAt = finance.PeriodClosed, self(o.manager), o.clock()
	_, err = o.Periods.Update(ctx, o.finance, &closed)
	denied(t, err)
	_, err = o.Movements.Create(ctx, o.manager, &stock.Movement{Warehouse: crm.ID[stock.Warehouse](crm.NewUUID()), Product: crm.ID[sales.Product](crm.NewUUID()), Kind: stock.KindCount, Quantity: -5, At: o.clock()})
	denied(t, err)
	_, err = o.Ownerships.Create(ctx, o.sales, &pool.Ownership{RecordType: crm.TypeCustomer, Record: k.ID.UUID(), Act: pool.Claim, To: self(o.other), At: o.clock()})
	denied(t, err)
	invalid(t, o.PostStock(ctx, o.manager), "movements", "required")
	late := &crm.FollowUp{SubjectType: crm.TypeCustomer, Subject: k.ID.UUID(), Customer: k.ID, Channel: crm.ChannelCall, Text: crm.NewText("x"), At: o.clock().AddDate(50, 0, 0)}
	invalid(t, o.FollowUp(ctx, o.sales, late), "at", "too_late")

	// The history of a record tells nothing of others.
	_, err = o.Customers.List(ctx, o.admin, guard.Query{})
	require.NoError(t, err)
	events, err := o.Customers.History(ctx, o.sales, k.ID.UUID(), 0, 100)
	require.NoError(t, err)
	for _, e := range events {
		assert.Empty(t, e.Event.Session)
		for _, target := range e.Event.Targets {
			assert.Equal(t, k.ID.String(), target.ID)
		}
	}
}

// TestItem01CapsOfTheBin: what comes back from the bin counts for its owner's quotas.
func TestItem01CapsOfTheBin(t *testing.T) {
	each(t, func(t *testing.T, o *office) {
		ctx := t.Context()
		p := o.pool(t, func(p *pool.Pool) { p.HoldCap = 2 })
		var mine []desk.Target
		for i := range 4 {
			mine = append(mine, o.free(t, p, name(i)))
		}
		for _, target := range mine[:2] {
			require.NoError(t, o.Claim(ctx, in(o.sales, p), target))
			v, err := o.Customers.Get(ctx, o.sales, target.ID)
			require.NoError(t, err)
			_, err = o.Desk.Delete(ctx, o.sales, trash.Ref{Type: crm.TypeCustomer, ID: target.ID}, v.Value.Version)
			require.NoError(t, err)
		}
		for _, target := range mine[2:] {
			require.NoError(t, o.Claim(ctx, in(o.sales, p), target))
		}
		v, err := o.Customers.Get(ctx, o.sales, mine[0].ID)
		require.NoError(t, err)
		_, err = o.Desk.Restore(ctx, o.sales, trash.Ref{Type: crm.TypeCustomer, ID: mine[0].ID}, v.Value.Version)
		refused(t, err, pool.HoldCap)
		require.NoError(t, o.Release(ctx, o.sales, mine[3]))
		_, err = o.Desk.Restore(ctx, o.sales, trash.Ref{Type: crm.TypeCustomer, ID: mine[0].ID}, v.Value.Version)
		require.NoError(t, err)
	})
}
