package desk_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/memstore"
)

func step(t testing.TB, err error) {
	t.Helper()
	var s *crm.TransitionError
	require.ErrorAs(t, err, &s)
}

// TestWallQuote: what was sent is decided by an act at its time, and by no update.
func TestWallQuote(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	k := o.customer(t, o.sales, "Buyer")
	q := o.quote(t, k, 0)
	require.NoError(t, o.SendQuote(ctx, o.sales, q.ID, 1))
	v, err := o.Quotes.Get(ctx, o.sales, q.ID.UUID())
	require.NoError(t, err)

	o.pass(365 * 24 * time.Hour)
	late := *v.Value
	late.State = crm.QuoteAccepted
	_, err = o.Quotes.Update(ctx, o.sales, &late)
	invalid(t, err, "decided_at", "required")
	late.DecidedAt = late.ValidUntil // as if it had been in time
	_, err = o.Quotes.Update(ctx, o.sales, &late)
	denied(t, err)
	early := *v.Value
	early.State = crm.QuoteExpired
	_, err = o.Quotes.Update(ctx, o.sales, &early)
	invalid(t, err, "decided_at", "required")
	born := *o.quote(t, k, 0)
	born.Meta, born.Actors, born.SentAt = crm.Meta[crm.Quote]{}, "", o.clock() // so that an update need only name the state
	_, err = o.Quotes.Create(ctx, o.sales, &born)
	invalid(t, err, "sent_at", "mismatch")
	series, err := o.Series.Create(ctx, o.admin, &crm.Series{Name: "contract", Prefix: "C-", Digits: 4})
	require.NoError(t, err)
	_, err = o.AcceptQuote(ctx, o.sales, q.ID, 2, desk.Draft{Series: series.Value.ID, Starts: o.clock(), Ends: o.clock().AddDate(1, 0, 0)})
	invalid(t, err, "valid_until", "too_late")

	require.NoError(t, o.Quotes.Act(ctx, o.sales, "update", q.ID.UUID(), 2, func(q *crm.Quote) error { return q.Move(crm.QuoteExpired, o.clock()) }))
	v, err = o.Quotes.Get(ctx, o.sales, q.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, o.clock(), v.Value.DecidedAt)
}
