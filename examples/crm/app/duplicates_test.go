package app

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/internal/realtest"
)

// onStores runs a test in a CRM with an administrator, on SQLite and on PostgreSQL.
func onStores(t *testing.T, test func(t *testing.T, a *App, admin guard.Caller)) {
	on := func(t *testing.T, c Config) {
		a, err := Open(t.Context(), c)
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, a.Close()) })
		_, err = a.Populate(t.Context())
		require.NoError(t, err)
		e, err := a.Owner(t.Context(), "")
		require.NoError(t, err)
		admin, err := a.As(t.Context(), e, "test")
		require.NoError(t, err)
		test(t, a, admin)
	}
	t.Run("SQLite", func(t *testing.T) { on(t, Config{Data: t.TempDir()}) })
	t.Run("PostgreSQL", func(t *testing.T) { on(t, Config{Data: t.TempDir(), DB: realtest.Postgres(t).DSN}) })
}

// known makes a customer.
func known(t *testing.T, a *App, c guard.Caller, name, phone string) *crm.Customer {
	t.Helper()
	v := &crm.Customer{Name: crm.NewText(name), Phone: crm.NewText(phone), Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Currency: "CNY"}
	_, err := a.Customers.Create(t.Context(), c, v)
	require.NoError(t, err)
	return v
}

func made[P guard.Record](t *testing.T, r *guard.Records[P], c guard.Caller, v P) P {
	t.Helper()
	_, err := r.Create(t.Context(), c, v)
	require.NoError(t, err, r.Type())
	return v
}

// surround makes one record of every type that refers to a customer, and returns their types. The program makes what nobody makes by hand.
func surround(t *testing.T, a *App, c guard.Caller, v *crm.Customer) (*crm.Contact, *crm.Lead) {
	t.Helper()
	ctx, now := t.Context(), time.Now().UTC().Truncate(time.Second)
	contact := made(t, a.Contacts, c, &crm.Contact{Customer: v.ID, Name: crm.NewText("Ann")})
	made(t, a.FollowUps, c, &crm.FollowUp{SubjectType: crm.TypeCustomer, Subject: v.ID.UUID(), Customer: v.ID, Channel: crm.ChannelCall, Text: crm.NewText("called"), At: now})
	made(t, a.FollowUps, c, &crm.FollowUp{SubjectType: crm.TypeContact, Subject: contact.ID.UUID(), Customer: v.ID, Channel: crm.ChannelCall, Text: crm.NewText("called"), At: now})
	made(t, a.Tickets, c, &crm.Ticket{Number: "T-" + v.ID.String(), Customer: v.ID, Subject: crm.NewText("late"), State: crm.TicketOpen, Priority: crm.PriorityNormal})
	q := &crm.Quote{Number: "Q-" + v.ID.String(), Customer: v.ID, State: crm.QuoteDraft, Currency: "CNY", ValidUntil: now.AddDate(0, 1, 0), Lines: []crm.Line{{Product: "lathe", Quantity: 1, UnitPrice: 100}}}
	require.NoError(t, q.Compute())
	made(t, a.Quotes, c, q)
	k := made(t, a.Contracts, c, &crm.Contract{Number: "C-" + v.ID.String(), Customer: v.ID, State: crm.ContractDraft, Currency: "CNY", Amount: 100, Starts: now, Ends: now.AddDate(1, 0, 0)})
	p, err := a.Pipelines.List(ctx, System("test"), guard.Query{Limit: 1})
	require.NoError(t, err)
	line := p.Items[0].Value
	lead := made(t, a.Leads, c, &crm.Lead{Name: crm.NewText("Ann of a fair"), State: crm.LeadNew})
	made(t, a.FollowUps, c, &crm.FollowUp{SubjectType: crm.TypeLead, Subject: lead.ID.UUID(), Channel: crm.ChannelCall, Text: crm.NewText("called"), At: now})
	made(t, a.Opportunities, c, &sales.Opportunity{
		Name: crm.NewText("lathes"), Customer: v.ID, Contact: contact.ID, Lead: lead.ID, Pipeline: line.ID, Stage: line.Stages[0].Name, StageSince: now, State: sales.OpportunityOpen,
	})
	plan := a.Guard.Begin(c, "contract.plan")
	require.NoError(t, a.Instalments.CreateIn(ctx, plan, &finance.Instalment{Contract: k.ID, Customer: v.ID, Number: 1, Amount: 100, Currency: "CNY", DueAt: now.AddDate(0, 1, 0)}))
	_, err = plan.Commit(ctx)
	require.NoError(t, err)
	made(t, a.Receipts, c, &finance.Receipt{Contract: k.ID, Customer: v.ID, Amount: 100, Currency: "CNY", At: now, Method: finance.MethodBank, State: finance.ReceiptReported})
	became := made(t, a.Leads, c, &crm.Lead{Name: crm.NewText("Ann who bought"), State: crm.LeadQualified})
	_, err = a.Desk.Convert(ctx, c, became.ID, 1, desk.Conversion{Customer: v.ID, Contact: contact.ID})
	require.NoError(t, err)
	return contact, lead
}

// naming counts, by type and column, what refers to a record.
func naming(t *testing.T, a *App, id crm.UUID) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	types, err := a.store.Types(t.Context())
	require.NoError(t, err)
	all, err := schemas()
	require.NoError(t, err)
	for _, s := range all {
		if !slices.Contains(types, s.Type) || s.Type == crm.TypeMerge || s.Type == "ownership" {
			continue
		}
		for _, c := range s.Columns {
			if c.Kind != crm.KindString {
				continue
			}
			n, err := a.store.Count(t.Context(), crm.Query{Tenant: Tenant, Type: s.Type, Where: crm.Everything{}, Deletion: crm.LivingAndBin, Clauses: []crm.Clause{
				{Column: c.Name, Op: crm.Equal, Values: []crm.Value{crm.StringValue(id.String())}},
			}})
			require.NoError(t, err)
			if n > 0 {
				out[s.Type+"."+c.Name] = n
			}
		}
	}
	return out
}

func seen(v *crm.Customer) dedupe.Target { return dedupe.Target{ID: v.ID.UUID(), Version: v.Version} }

// TestMergeInWhole merges and takes back customers, leads and contacts in the whole program: every column of every type that named the dropped record names the kept
// one, whatever the type, and the other way round after the undoing; erasing one person erases both.
//
//crm:item 12 partly
func TestMergeInWhole(t *testing.T) {
	onStores(t, func(t *testing.T, a *App, admin guard.Caller) {
		ctx := t.Context()
		keep, drop := known(t, a, admin, "Ann Lee", "13800135678"), known(t, a, admin, "Anna Lee", "13900001111")
		contact, lead := surround(t, a, admin, drop)
		was := naming(t, a, drop.ID.UUID())
		assert.Equal(t, map[string]int64{
			"contact.customer": 1, "follow_up.customer": 2, "follow_up.subject": 1, "ticket.customer": 1, "quote.customer": 1, "contract.customer": 1,
			"opportunity.customer": 1, "instalment.customer": 1, "receipt.customer": 1, "lead.customer": 1,
		}, was)
		at := func(typ string, id crm.UUID) dedupe.Target {
			version, err := a.VersionOf(ctx, System("test"), typ, id)
			require.NoError(t, err)
			return dedupe.Target{ID: id, Version: version}
		}
		again := func(v *crm.Customer) dedupe.Target { return at(crm.TypeCustomer, v.ID.UUID()) }
		m, err := a.Duplicates.Customers.Merge(ctx, admin, again(keep), again(drop), dedupe.Choice{"phone"})
		require.NoError(t, err)
		assert.Equal(t, crm.MergeDone, m.State)
		assert.Empty(t, naming(t, a, drop.ID.UUID()), "nothing names the dropped one")
		assert.Equal(t, was, naming(t, a, keep.ID.UUID()))

		other := made(t, a.Leads, admin, &crm.Lead{Name: crm.NewText("Ann of two fairs"), State: crm.LeadNew})
		ofLead := naming(t, a, lead.ID.UUID())
		assert.Equal(t, map[string]int64{"follow_up.subject": 1, "opportunity.lead": 1}, ofLead)
		_, err = a.Duplicates.Leads.Merge(ctx, admin, at(crm.TypeLead, other.ID.UUID()), at(crm.TypeLead, lead.ID.UUID()), nil)
		require.NoError(t, err)
		assert.Equal(t, ofLead, naming(t, a, other.ID.UUID()))
		assert.Empty(t, naming(t, a, lead.ID.UUID()))
		second := made(t, a.Contacts, admin, &crm.Contact{Customer: keep.ID, Name: crm.NewText("Ann again")})
		ofContact := naming(t, a, contact.ID.UUID())
		assert.Equal(t, map[string]int64{"follow_up.subject": 1, "opportunity.contact": 1, "lead.contact": 1}, ofContact)
		mc, err := a.Duplicates.Contacts.Merge(ctx, admin, at(crm.TypeContact, second.ID.UUID()), at(crm.TypeContact, contact.ID.UUID()), nil)
		require.NoError(t, err)
		assert.Equal(t, ofContact, naming(t, a, second.ID.UUID()))
		assert.Empty(t, naming(t, a, contact.ID.UUID()))
		outc, err := a.Duplicates.Contacts.Undo(ctx, admin, mc.ID.UUID())
		require.NoError(t, err)
		assert.Equal(t, &dedupe.Undone{Moved: 3}, outc)
		assert.Equal(t, ofContact, naming(t, a, contact.ID.UUID()))

		out, err := a.Duplicates.Customers.Undo(ctx, admin, m.ID.UUID())
		require.NoError(t, err)
		assert.Equal(t, &dedupe.Undone{Fields: []string{"phone"}, Moved: 10}, out)
		assert.Equal(t, was, naming(t, a, drop.ID.UUID()))
		assert.Equal(t, map[string]int64{"contact.customer": 1}, naming(t, a, keep.ID.UUID()), "what was made since stays")

		// Merged once more, and one of the persons is erased.
		m, err = a.Duplicates.Customers.Merge(ctx, admin, again(keep), again(drop), dedupe.Choice{"phone"})
		require.NoError(t, err)
		r, err := a.Keeper.Erase(ctx, Tenant, drop.Person, nil)
		require.NoError(t, err)
		assert.Contains(t, r.Persons, [16]byte(keep.Person))
		for _, v := range []*crm.Customer{keep, drop} {
			got, err := a.Customers.Get(ctx, System("test"), v.ID.UUID())
			require.NoError(t, err)
			assert.NotEqual(t, crm.Clear, got.Value.Name.State())
			assert.NotEqual(t, crm.Clear, got.Value.Phone.State())
		}
		_, err = a.Duplicates.Customers.Undo(ctx, admin, m.ID.UUID())
		var refusal *dedupe.Refusal
		require.ErrorAs(t, err, &refusal)
		assert.Equal(t, "erased", refusal.Why)
		assert.Empty(t, naming(t, a, drop.ID.UUID()))
	})
}

// TestMergesAtOnce: of merges of overlapping pairs at the same time as many win as can be true together, no record is kept and dropped, and all that was
// there is there still and named by a living customer.
func TestMergesAtOnce(t *testing.T) {
	onStores(t, func(t *testing.T, a *App, admin guard.Caller) {
		ctx := t.Context()
		rounds := 10
		if testing.Short() {
			rounds = 3
		}
		won, lost := 0, 0
		for range rounds {
			var all []*crm.Customer
			for range 3 {
				v := known(t, a, admin, "Ann Lee", "13800135678")
				made(t, a.Contacts, admin, &crm.Contact{Customer: v.ID, Name: crm.NewText("Contact")})
				all = append(all, v)
			}
			pairs := [][2]int{{0, 1}, {1, 0}, {1, 2}, {2, 1}, {0, 2}, {2, 0}}
			errs := make([]error, len(pairs))
			var wg sync.WaitGroup
			for i, p := range pairs {
				wg.Go(func() {
					_, errs[i] = a.Duplicates.Customers.Merge(context.WithoutCancel(ctx), admin, seen(all[p[0]]), seen(all[p[1]]), nil)
				})
			}
			wg.Wait()
			winners := 0
			for _, err := range errs {
				switch {
				case err == nil:
					winners++
				case errors.Is(err, crm.ErrConflict), errors.Is(err, crm.ErrNotFound):
					lost++
				default:
					t.Errorf("another error: %v", err)
				}
			}
			assert.Equal(t, 1, winners, "each pair shares a record with each other pair, or is the same")
			won += winners
			living, contacts := 0, int64(0)
			for _, v := range all {
				got, err := a.Customers.Get(ctx, System("test"), v.ID.UUID())
				require.NoError(t, err)
				n := naming(t, a, v.ID.UUID())["contact.customer"]
				if got.Value.Deleted {
					assert.Zero(t, n, "a dropped customer is named by nothing")
					continue
				}
				living++
				contacts += n
			}
			assert.Equal(t, 2, living)
			assert.EqualValues(t, 3, contacts)
		}
		t.Logf("%d rounds of 6 merges: %d won, %d were too late", rounds, won, lost)
	})
}
