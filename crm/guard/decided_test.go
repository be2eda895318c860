package guard_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// stabled is a rig's horses under the shipped policy with more settings, and another guard over the same store.
func stabled(t *testing.T, r *rig, settings string) (*guard.Guard, *guard.Records[*horse]) {
	t.Helper()
	policy, err := rego.Extend(rego.Embedded(), `{"settings": `+settings+`}`)
	require.NoError(t, err)
	engine, err := rego.New(t.Context(), &rego.Options{Policy: policy})
	require.NoError(t, err)
	g, _, err := guard.New(t.Context(), r.store, r.keeper, engine, r.log, nil)
	require.NoError(t, err)
	horses, err := guard.For[*horse](t.Context(), g, &guard.TypeOptions{Type: "horse"})
	require.NoError(t, err)
	return g, horses
}

// TestEarlierIsDecided: whoever has a record now need not see what it was while others had it, and the other way round.
func TestEarlierIsDecided(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	id := r.add(t, sales, "A", "13800135678", "a@example.com").Value.ID.UUID()
	before, early := r.kept(t, crm.TypeCustomer, id)
	owner, err := crm.ParseUUID(other.Subject.ID)
	require.NoError(t, err)
	require.NoError(t, r.customers.Act(ctx, admin, authz.Transfer, id, 1, func(c *crm.Customer) error {
		c.Owner, c.Team = crm.ID[crm.Employee](owner), other.Subject.Team
		return nil
	}))
	_, err = r.customers.Get(ctx, other, id)
	require.NoError(t, err, "it is theirs now")
	_, err = r.customers.Compare(ctx, other, before, early)
	require.ErrorIs(t, err, crm.ErrNotFound, "and was not")
	_, err = r.customers.Compare(ctx, sales, before, early)
	require.ErrorIs(t, err, crm.ErrNotFound, "it was theirs, and is not")
	_, err = r.customers.Compare(ctx, admin, before, early)
	require.NoError(t, err)
}

// TestEarlierShowsNoMask: a field that is masked or hidden is not said to differ, and does not come back as its mask.
func TestEarlierShowsNoMask(t *testing.T) {
	if raced && testing.Short() {
		t.Skip("nothing runs side by side, and a policy is compiled")
	}
	r, ctx := newRig(t), t.Context()
	_, horses := stabled(t, r, `{"grants": {"admin": {"horse": {"create": "all", "read": "all", "update": "all"}}, "marketing": {"horse": {"read": "all"}}},
		"field_overrides": {"marketing": {"horse": {"code": {"read": "masked"}, "price": {"read": "hidden"}}}}}`)
	v, err := horses.Create(ctx, admin, &horse{Name: crm.NewText("Ann Lee"), Code: "ABCD-12345678", Price: 4242, Stall: "3"})
	require.NoError(t, err)
	row, body := r.kept(t, "horse", v.Value.ID.UUID())
	n := v.Value
	n.Code, n.Price, n.Stall = "ABCD-87654321", 4300, "4"
	_, err = horses.Update(ctx, admin, n)
	require.NoError(t, err)
	e, err := horses.Compare(ctx, admin, row, body)
	require.NoError(t, err)
	assert.Equal(t, []string{"code", "price", "stall"}, e.Fields)
	e, err = horses.Compare(ctx, as("marketing", crm.NewUUID().String(), ""), row, body)
	require.NoError(t, err)
	assert.Equal(t, []string{"stall"}, e.Fields)
	denied(t, horses.Revert(&e, "code"), "fields.reserved")
	denied(t, horses.Revert(&e, "price"), "fields.reserved")
}

// TestExportIsCounted: what an export obliges to follows from how many records there are, whatever number the caller gives.
func TestExportIsCounted(t *testing.T) {
	if raced && testing.Short() {
		t.Skip("nothing runs side by side, and a policy is compiled")
	}
	r, ctx := newRig(t), t.Context()
	_, horses := stabled(t, r, `{"grants": {"admin": {"horse": {"create": "all", "export": "all"}}}, "export": {"step_up_rows": 1, "approval_rows": 3}}`)
	for range 3 {
		_, err := horses.Create(ctx, admin, &horse{Name: crm.NewText("Ann Lee"), Price: 1})
		require.NoError(t, err)
	}
	ask := func(own int) []authz.Obligation {
		c := admin
		c.Environment.Rows = own
		n, needs, err := horses.Exportable(ctx, c, guard.Query{})
		require.NoError(t, err)
		require.EqualValues(t, 1, n/3)
		return needs
	}
	few := ask(1_000_000)
	assert.NotContains(t, few, authz.Obligation("second_person"), "three are not a million")
	_, err := horses.Create(ctx, admin, &horse{Name: crm.NewText("Bob Ray"), Price: 1})
	require.NoError(t, err)
	many := ask(1)
	assert.Contains(t, many, authz.Obligation("second_person"), "four are not one")
}

// TestGroupByHidden: a field that the caller does not see whole is neither grouped nor summed by.
func TestGroupByHidden(t *testing.T) {
	if raced && testing.Short() {
		t.Skip("nothing runs side by side, and a policy is compiled")
	}
	r, ctx := newRig(t), t.Context()
	_, horses := stabled(t, r, `{"grants": {"admin": {"horse": {"create": "all"}}, "marketing": {"horse": {"aggregate": "all"}}},
		"field_overrides": {"marketing": {"horse": {"code": {"list": "masked", "aggregate": "masked"}, "price": {"list": "hidden", "aggregate": "hidden"}}}}}`)
	for range 20 {
		_, err := horses.Create(ctx, admin, &horse{Name: crm.NewText("Ann Lee"), Code: "A", Price: 1, Stall: "1"})
		require.NoError(t, err)
	}
	c := as("marketing", crm.NewUUID().String(), "")
	got, err := horses.Group(ctx, c, guard.Grouping{By: []string{"stall"}})
	require.NoError(t, err)
	require.Len(t, got.Groups, 1)
	for _, q := range []guard.Grouping{{By: []string{"price"}}, {By: []string{"code"}}, {Sums: []string{"price"}}, {By: []string{"stall"}, Sums: []string{"price"}}} {
		_, err := horses.Group(ctx, c, q)
		denied(t, err, "fields.internal")
	}
}

// TestActOnTheVersionSeen: an act on a version that is not stored any more is a conflict, and one on whichever is stored is not.
func TestActOnTheVersionSeen(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	v := r.add(t, sales, "A", "13800135678", "a@example.com").Value
	again := *v
	again.City = "Bern"
	_, err := r.customers.Update(ctx, sales, &again)
	require.NoError(t, err)
	move := func(version int64) error {
		return r.customers.Act(ctx, admin, authz.Transfer, v.ID.UUID(), version, func(c *crm.Customer) error {
			c.Team = "/west/"
			return nil
		})
	}
	require.ErrorIs(t, move(1), crm.ErrConflict)
	require.ErrorIs(t, move(3), crm.ErrConflict)
	require.NoError(t, move(2))
	require.NoError(t, move(0))
}

// TestBeginsAtItsBeginning: a record that only an act makes what it is does not begin so.
//
//crm:item 5
func TestBeginsAtItsBeginning(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	contracts, err := guard.For[*crm.Contract](ctx, r.guard, &guard.TypeOptions{Type: crm.TypeContract})
	require.NoError(t, err)
	begin := func(state crm.ContractState) error {
		k := &crm.Contract{
			Number: "C-1", Customer: crm.ID[crm.Customer](crm.NewUUID()), Signatory: crm.NewText("Ann Lee"), SignatoryPerson: crm.ID[crm.Person](crm.NewUUID()),
			Starts: fixed, Ends: fixed.AddDate(1, 0, 0), State: state, Amount: 1000, Currency: "CNY",
		}
		_, err := contracts.Create(ctx, admin, k)
		return err
	}
	var refused *crm.TransitionError
	for _, state := range []crm.ContractState{crm.ContractActive, crm.ContractApproved} {
		require.ErrorAs(t, begin(state), &refused, state)
	}
	require.NoError(t, begin(crm.ContractDraft))
}

// TestActWritesWhatIsOpen: an act changes no field that is hidden from who acts.
func TestActWritesWhatIsOpen(t *testing.T) {
	if raced && testing.Short() {
		t.Skip("nothing runs side by side, and a policy is compiled")
	}
	r, ctx := newRig(t), t.Context()
	_, horses := stabled(t, r, `{"grants": {"admin": {"horse": {"create": "all", "read": "all"}}, "marketing": {"horse": {"read": "all", "transfer": "all"}}},
		"field_overrides": {"marketing": {"horse": {"price": {"read": "hidden", "write": "hidden"}}}}}`)
	v, err := horses.Create(ctx, admin, &horse{Name: crm.NewText("Ann Lee"), Price: 4242, Stall: "3"})
	require.NoError(t, err)
	c := as("marketing", crm.NewUUID().String(), "")
	act := func(change func(h *horse)) error {
		return horses.Act(ctx, c, authz.Transfer, v.Value.ID.UUID(), 0, func(h *horse) error { change(h); return nil })
	}
	denied(t, act(func(h *horse) { h.Price = 1 }), "fields.internal")
	denied(t, act(func(h *horse) { h.Price, h.Team = 2, "/west/" }), "fields.internal")
	require.NoError(t, act(func(h *horse) { h.Team = "/west/" }))
	got, err := horses.Get(ctx, admin, v.Value.ID.UUID())
	require.NoError(t, err)
	assert.EqualValues(t, 4242, got.Value.Price)
}
