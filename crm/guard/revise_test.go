package guard_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
)

// horse has a clear field that a policy may hide or mask.
type horse struct {
	crm.Meta[horse]
	Name  crm.Text `protect:"personal,index=exact:name,leaks=equality,distinct=100000,mask=name" json:"name"`
	Code  string   `protect:"internal,mask=last4" json:"code"`
	Price int64    `protect:"internal" json:"price"`
	Stall string   `protect:"internal,indexed" json:"stall"`
}

func (h *horse) Validate() error {
	v := crm.Checks{Type: "horse"}
	v.Range("price", h.Price, 1, 10_000)
	return v.Err()
}

// TestUpdateUnseen: who does not see a clear field changes the others and leaves it as it was; what they put there is denied alike, whether it is what is stored
// or not, and no rule of the type looks at it.
func TestUpdateUnseen(t *testing.T) {
	if raced && testing.Short() {
		t.Skip("nothing runs side by side, and a policy is compiled")
	}
	cases := []struct{ role, reads, writes string }{
		{"support", "hidden", "hidden"}, {"sales", "hidden", "open"}, {"marketing", "masked", "open"}, {"finance", "open", "hidden"},
	}
	grants, overrides := `"admin": {"horse": {"create": "all", "read": "all"}}`, ""
	for _, tc := range cases {
		override := fmt.Sprintf(`{"list": %[1]q, "read": %[1]q, "write": %[2]q}`, tc.reads, tc.writes)
		grants += fmt.Sprintf(`, %q: {"horse": {"list": "own", "read": "own", "update": "own"}}`, tc.role)
		overrides += fmt.Sprintf(`%[1]q: {"horse": {"price": %[2]s, "code": %[2]s}},`, tc.role, override)
	}
	policy, err := rego.Extend(rego.Embedded(), `{"settings": {"grants": {`+grants+`}, "field_overrides": {`+strings.TrimSuffix(overrides, ",")+`}}}`)
	require.NoError(t, err)
	engine, err := rego.New(t.Context(), &rego.Options{Policy: policy})
	require.NoError(t, err)
	for _, tc := range cases {
		t.Run(tc.reads+" "+tc.writes, func(t *testing.T) {
			r := newRig(t)
			g, _, err := guard.New(t.Context(), r.store, r.keeper, engine, r.log, nil)
			require.NoError(t, err)
			horses, err := guard.For[*horse](t.Context(), g, &guard.TypeOptions{Type: "horse"})
			require.NoError(t, err)
			groom := as(tc.role, crm.NewUUID().String(), "/a/")
			h := &horse{Name: crm.NewText("Ann Lee"), Code: "ABCD-12345678", Price: 4242, Stall: "3"}
			id, err := crm.ParseUUID(groom.Subject.ID)
			require.NoError(t, err)
			h.Owner = crm.ID[crm.Employee](id)
			_, err = horses.Create(t.Context(), admin, h)
			require.NoError(t, err)
			stored := func() *horse {
				v, err := horses.Get(t.Context(), admin, h.ID.UUID())
				require.NoError(t, err)
				return v.Value
			}
			change := func(edit func(h *horse)) error {
				v, err := horses.Get(t.Context(), groom, h.ID.UUID())
				require.NoError(t, err)
				n := horses.Copy(v.Value)
				edit(n)
				_, err = horses.Update(t.Context(), groom, n)
				return err
			}
			err = change(func(h *horse) { h.Stall = "4" })
			require.NoError(t, err, "the others may be changed")
			require.EqualValues(t, 4242, stored().Price)
			require.Equal(t, "ABCD-12345678", stored().Code)
			require.Equal(t, "4", stored().Stall)

			var answers []string
			for _, guess := range []int64{4241, 4242, 7, -1, math.MaxInt64} {
				err := change(func(h *horse) { h.Price, h.Stall = guess, "5" })
				answers = append(answers, fmt.Sprint(err))
			}
			if tc.reads == "open" { // seen, and not to be set: what is there may stay
				require.Equal(t, "<nil>", answers[1])
				answers[1] = answers[0]
			}
			for _, a := range answers {
				require.Equal(t, answers[0], a)
			}
			require.Contains(t, answers[0], "fields.internal")
			require.EqualValues(t, 4242, stored().Price)
			require.Error(t, change(func(h *horse) { h.Code = "ABCD-12345679" }))
			require.Equal(t, "ABCD-12345678", stored().Code)
		})
	}
}

// TestUpdateBesideUnseen: a compound index of two fields stays right when one of them is changed by somebody who does not see the other one. That one is opened for
// the index, is in the log before, and is shown to nobody.
//
//crm:item 12
func TestUpdateBesideUnseen(t *testing.T) {
	if raced && testing.Short() {
		t.Skip("nothing runs side by side, and a policy is compiled")
	}
	policy, err := rego.Extend(rego.Embedded(), `{"settings": {"grants": {"admin": {"pony": {"create": "all", "read": "all", "check": "all"}},
		"support": {"pony": {"list": "own", "read": "own", "update": "own"}}, "finance": {"pony": {"list": "own", "read": "own", "update": "own"}}},
		"field_overrides": {"support": {"pony": {"name": {"list": "open", "read": "open", "write": "open"}, "stable": {"list": "hidden", "read": "hidden", "write": "hidden"}}},
			"finance": {"pony": {"name": {"list": "masked", "read": "masked", "write": "hidden"}, "stable": {"list": "open", "read": "open", "write": "open"}}}}}}`)
	require.NoError(t, err)
	engine, err := rego.New(t.Context(), &rego.Options{Policy: policy})
	require.NoError(t, err)
	r := newRig(t)
	g, _, err := guard.New(t.Context(), r.store, r.keeper, engine, r.log, nil)
	require.NoError(t, err)
	ponies, err := guard.For[*pony](t.Context(), g, &guard.TypeOptions{Type: "pony"})
	require.NoError(t, err)
	groom := as("support", crm.NewUUID().String(), "/a/")
	clerk := groom
	clerk.Subject.Roles = []string{"finance"}
	p := &pony{Name: crm.NewText("Bella"), Stable: crm.NewText("Mill Lane 12")}
	id, err := crm.ParseUUID(groom.Subject.ID)
	require.NoError(t, err)
	p.Owner = crm.ID[crm.Employee](id)
	_, err = ponies.Create(t.Context(), admin, p)
	require.NoError(t, err)
	found := func(name, stable string) bool {
		m := ponyMatcher{name, stable}
		bands, err := ponies.AlikeBands(t.Context(), admin, []*pony{{Name: crm.NewText(name), Stable: crm.NewText(stable)}}, m)
		require.NoError(t, err)
		return bands[0] == guard.Certain
	}
	change := func(c guard.Caller, edit func(p *pony)) (guard.View[*pony], error) {
		v, err := ponies.Get(t.Context(), c, p.ID.UUID())
		require.NoError(t, err)
		n := ponies.Copy(v.Value)
		edit(n)
		return ponies.Update(t.Context(), c, n)
	}
	require.True(t, found("Bella", "Mill Lane 12"))
	v, err := change(groom, func(p *pony) { p.Name = crm.NewText("Beauty") })
	require.NoError(t, err)
	require.Equal(t, crm.Hidden, v.Value.Stable.State(), "what was opened for the index is not shown")
	require.Empty(t, v.Value.Stable.Expose())
	require.True(t, found("Beauty", "Mill Lane 12"), "the token is of the new name and the address that was not seen")
	require.False(t, found("Bella", "Mill Lane 12"))

	v, err = change(clerk, func(p *pony) { p.Stable = crm.NewText("Church Road 3") })
	require.NoError(t, err)
	require.Equal(t, crm.Masked, v.Value.Name.State())
	require.True(t, found("Beauty", "Church Road 3"))
	require.False(t, found("Beauty", "Mill Lane 12"))

	var n *pony // what the caller gave is set to what was stored, and not to what was opened for the index
	_, err = change(groom, func(p *pony) { n, p.Name = p, crm.NewText("Betty") })
	require.NoError(t, err)
	require.NotEqual(t, crm.Clear, n.Stable.State())
	require.Empty(t, n.Stable.Expose())
	_, err = change(groom, func(p *pony) { p.Name = crm.NewText("Beauty") })
	require.NoError(t, err)

	whole, err := ponies.Get(t.Context(), admin, p.ID.UUID())
	require.NoError(t, err)
	require.Equal(t, "Beauty", whole.Value.Name.Expose())
	require.Equal(t, "Church Road 3", whole.Value.Stable.Expose())

	var opened [][]string
	for e, err := range r.log.Events(t.Context(), 0) {
		require.NoError(t, err)
		if e.Event.Action == "pony.index" {
			opened = append(opened, e.Event.Fields)
		}
	}
	require.Equal(t, [][]string{{"stable"}, {"name"}, {"stable"}, {"stable"}}, opened)

	// No log, no opening, and nothing is changed.
	g, _, err = guard.New(t.Context(), r.store, r.keeper, engine, refusing{r.log, "pony.index"}, nil)
	require.NoError(t, err)
	ponies, err = guard.For[*pony](t.Context(), g, &guard.TypeOptions{Type: "pony"})
	require.NoError(t, err)
	_, err = change(groom, func(p *pony) { p.Name = crm.NewText("Ben") })
	require.ErrorContains(t, err, "no log, no data")
	require.True(t, found("Beauty", "Church Road 3"))
}

// pony has an index of two personal fields together.
type pony struct {
	crm.Meta[pony]
	Name   crm.Text `protect:"personal,mask=name" json:"name"`
	Stable crm.Text `protect:"personal" json:"stable"`
	_      struct{} `protect:"index=exact:sound+numbers,of=name+stable"`
}

// ponyMatcher asks the compound index and takes whatever it finds.
type ponyMatcher struct{ name, stable string }

func (ponyMatcher) Fields() []string { return []string{"name"} }
func (m ponyMatcher) Keys(*pony) []guard.Key {
	return []guard.Key{{Field: "name+stable", Index: "exact:sound+numbers", Texts: []string{m.name, m.stable}}}
}

func (ponyMatcher) Compare(*pony, *pony, map[string]guard.Access) guard.Verdict {
	return guard.Verdict{Band: guard.Certain, Score: 1}
}
func (ponyMatcher) Tell() guard.Tell { return guard.TellNothing }

// refusing is a log that does not take one action.
type refusing struct {
	*flakyLog
	action string
}

func (l refusing) Append(ctx context.Context, e audit.Event) (audit.Receipt, error) {
	if e.Action == l.action {
		return audit.Receipt{}, audit.ErrClosed
	}
	return l.flakyLog.Append(ctx, e)
}

// TestUpdateFixedText: a personal field that may no longer change is compared with what is stored for who sees it, which is in the log, and is left by who does
// not; nobody else learns from it what is stored.
//
//crm:item 5
func TestUpdateFixedText(t *testing.T) {
	r := newRig(t)
	contracts, err := guard.For[*crm.Contract](t.Context(), r.guard, &guard.TypeOptions{Type: crm.TypeContract})
	require.NoError(t, err)
	k := &crm.Contract{
		Number: "C-1", Customer: crm.ID[crm.Customer](crm.NewUUID()), Signatory: crm.NewText("Ann Lee"), SignatoryPerson: crm.ID[crm.Person](crm.NewUUID()),
		Starts: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Ends: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), State: crm.ContractDraft, Amount: 1000, Currency: "CNY",
	}
	_, err = contracts.Create(t.Context(), sales, k)
	require.NoError(t, err)
	id := k.ID.UUID()
	require.NoError(t, contracts.Act(t.Context(), admin, authz.Approve, id, 1, func(k *crm.Contract) error { return k.Approve(crm.ID[crm.Employee](crm.NewUUID()), time.Now()) }))
	change := func(c guard.Caller, edit func(k *crm.Contract)) error {
		v, err := contracts.Get(t.Context(), c, id)
		require.NoError(t, err)
		edit(v.Value)
		_, err = contracts.Update(t.Context(), c, v.Value)
		return err
	}
	compared := func() int {
		found, err := r.log.Query(t.Context(), audit.Filter{Action: "contract.compare"}, math.MaxUint64, 100)
		require.NoError(t, err)
		for _, e := range found {
			require.Equal(t, []string{"signatory"}, e.Event.Fields)
		}
		return len(found)
	}
	fixed := &crm.InvalidError{}

	// Who sees it.
	require.NoError(t, change(admin, func(k *crm.Contract) { k.EndReason = "" }))
	require.Equal(t, 1, compared())
	for _, text := range []string{"Ann Leé", "Bob"} {
		require.ErrorAs(t, change(admin, func(k *crm.Contract) { k.Signatory = crm.NewText(text) }), &fixed)
		require.Equal(t, []crm.FieldError{{Field: "signatory", Rule: "fixed"}}, fixed.Fields)
	}
	require.Equal(t, 3, compared())
	// Who sees a mask.
	require.NoError(t, change(sales, func(*crm.Contract) {}))
	for _, text := range []string{"Ann Lee", "Bob"} { // the right guess looks like a wrong one
		require.ErrorAs(t, change(sales, func(k *crm.Contract) { k.Signatory = crm.NewText(text) }), &fixed)
		require.Equal(t, []crm.FieldError{{Field: "signatory", Rule: "fixed"}}, fixed.Fields)
	}
	require.Equal(t, 3, compared(), "and nothing was opened for it")
	v, err := contracts.Get(t.Context(), admin, id)
	require.NoError(t, err)
	require.Equal(t, "Ann Lee", v.Value.Signatory.Expose())

	// Without the event of the comparison nothing is compared, whatever else the log takes.
	g, _, err := guard.New(t.Context(), r.store, r.keeper, r.policy, refusing{r.log, "contract.compare"}, nil)
	require.NoError(t, err)
	contracts, err = guard.For[*crm.Contract](t.Context(), g, &guard.TypeOptions{Type: crm.TypeContract})
	require.NoError(t, err)
	require.ErrorContains(t, change(admin, func(*crm.Contract) {}), "no log, no data")
}

// hides is the shipped policy, but that it hides phones of what is not the asker's own from some roles.
type hides struct {
	authz.Authorizer
	roles []string
}

func (h hides) Decide(ctx context.Context, r authz.Request) (authz.Decision, error) {
	d, err := h.Authorizer.Decide(ctx, r)
	own := r.Resource.Owner == r.Subject.ID
	if slices.ContainsFunc(r.Subject.Roles, func(role string) bool { return slices.Contains(h.roles, role) }) && (!own || len(r.Subject.Roles) == 1) {
		d.Fields.ByName = maps.Clone(d.Fields.ByName)
		if d.Fields.ByName == nil {
			d.Fields.ByName = map[string]authz.Access{}
		}
		d.Fields.ByName["phone"] = authz.Hidden
	}
	return d, err
}

// TestHiddenIsNotSearched: an index of a field that is hidden is not asked, and where it is hidden of some records only, those are not found by it.
func TestHiddenIsNotSearched(t *testing.T) {
	r := newRig(t)
	g, _, err := guard.New(t.Context(), r.store, r.keeper, hides{r.policy, []string{"support"}}, r.log, nil)
	require.NoError(t, err)
	customers, err := guard.For[*crm.Customer](t.Context(), g, &guard.TypeOptions{Type: crm.TypeCustomer})
	require.NoError(t, err)
	const phone = "13800135678"
	mine, theirs := r.add(t, sales, "A", phone, "a@example.com").Value, r.add(t, other, "B", phone, "b@example.com").Value
	asked := 0
	r.store.bend = func([]crm.Row) { asked++ }
	find := func(c guard.Caller, term, field string) (ids []string) {
		p, err := customers.Search(t.Context(), c, term, 10, field)
		require.NoError(t, err)
		for _, v := range p.Items {
			ids = append(ids, v.Value.ID.String())
		}
		return ids
	}
	require.Empty(t, find(support, phone, "phone"))
	require.Zero(t, asked, "the store is not asked for what is hidden")
	require.Len(t, find(support, "b@example.com", "email"), 1)
	require.Positive(t, asked)
	both := sales // who sells, and supports whoever else sells
	both.Subject.Roles = []string{"sales", "support"}
	require.Equal(t, []string{mine.ID.String()}, find(both, phone, "phone"))
	require.Equal(t, []string{theirs.ID.String()}, find(both, "b@example.com", "email"))
}

// TestUpdateFixedEmpty: a fixed text without a value is left without one by an update of who sees a mask, and gets none.
func TestUpdateFixedEmpty(t *testing.T) {
	r := newRig(t)
	expenses, err := guard.For[*finance.Expense](t.Context(), r.guard, &guard.TypeOptions{Type: crm.TypeExpense})
	require.NoError(t, err)
	e := &finance.Expense{Category: "travel", Amount: 900, Currency: "CNY", SpentAt: time.Now().Add(-time.Hour), State: finance.ExpenseDraft}
	_, err = expenses.Create(t.Context(), sales, e)
	require.NoError(t, err)
	id := e.ID.UUID()
	require.NoError(t, expenses.Act(t.Context(), sales, authz.Update, id, 1, func(e *finance.Expense) error {
		return e.Move(finance.ExpenseSubmitted, crm.ID[crm.Employee](lin), nil, time.Now())
	}))
	v, err := expenses.Get(t.Context(), sales, id)
	require.NoError(t, err)
	v, err = expenses.Update(t.Context(), sales, v.Value)
	require.NoError(t, err)
	for _, edit := range []func(e *finance.Expense){
		func(e *finance.Expense) { e.Note = crm.NewText("a word more") },
		func(e *finance.Expense) { e.Amount = 1 },
	} {
		n := expenses.Copy(v.Value)
		edit(n)
		_, err = expenses.Update(t.Context(), sales, n)
		var invalid *crm.InvalidError
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, "fixed", invalid.Fields[0].Rule)
	}
}
