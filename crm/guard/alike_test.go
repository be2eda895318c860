package guard_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/encrypt"
)

// byPhone takes customers with one phone for one, and says how many other fields are equal.
type byPhone struct {
	tell  guard.Tell
	index string
}

func (byPhone) Fields() []string { return []string{"name", "phone", "id_number", "website"} }

func (m byPhone) Keys(v *crm.Customer) []guard.Key {
	if m.index == "" {
		m.index = "exact:phone"
	}
	return []guard.Key{{Field: "phone", Index: m.index, Texts: []string{v.Phone.Expose()}}, {Field: "name", Index: "exact:sound", Texts: []string{v.Name.Expose()}}}
}

func (byPhone) Blocks(v *crm.Customer) []string { return []string{v.Phone.Expose()} }

func (m byPhone) Tell() guard.Tell { return m.tell }

func (byPhone) Compare(v, stored *crm.Customer, access map[string]guard.Access) guard.Verdict {
	var out guard.Verdict
	for name, texts := range map[string][2]crm.Text{
		"name": {v.Name, stored.Name}, "phone": {v.Phone, stored.Phone}, "id_number": {v.IDNumber, stored.IDNumber}, "website": {v.Website, stored.Website},
	} {
		if texts[1].State() == crm.Clear && !texts[1].IsEmpty() && access[name] != authz.Hidden && texts[0].Expose() == texts[1].Expose() {
			out.Why = append(out.Why, name)
			out.Score += 0.25
		}
	}
	slices.Sort(out.Why)
	switch {
	case slices.Contains(out.Why, "phone") && len(out.Why) > 1:
		out.Band = guard.Certain
	case slices.Contains(out.Why, "phone"):
		out.Band = guard.Likely
	}
	return out
}

// TestAlike tells of a duplicate that the asker may not read only that it exists and whom to ask, and logs each candidate first.
//
//crm:item 12 partly
func TestAlike(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	mine := r.add(t, sales, "Ann", "13800135678", "a@example.com")
	r.add(t, other, "Ann", "13800135678", "b@example.com")
	r.add(t, other, "Bob", "13800135678", "c@example.com")
	r.add(t, other, "Eve", "13900000000", "d@example.com")

	ask := func(c guard.Caller, tell guard.Tell, v *crm.Customer) []guard.Alike[*crm.Customer] {
		got, err := r.customers.Alike(ctx, c, v, byPhone{tell: tell})
		require.NoError(t, err)
		return got
	}
	v := customer("Ann", "138 0013 5678", "")
	v.Phone = crm.NewText("13800135678")
	got := ask(sales, guard.TellOwner, v)
	require.Len(t, got, 2, "one's own, and all of the other's as one line")
	require.NotNil(t, got[0].View)
	assert.Equal(t, mine.Value.ID, got[0].View.Value.ID)
	assert.Equal(t, crm.Masked, got[0].View.Value.Phone.State(), "as reading shows it")
	assert.Equal(t, []string{"name", "phone"}, got[0].Why)
	assert.Equal(t, guard.Alike[*crm.Customer]{Band: guard.Certain, Owner: wu}, got[1], "nothing else of it")

	// One event, before anything is opened, that names every candidate.
	e := r.last(t)
	assert.Equal(t, "customer.check", e.Action)
	assert.Equal(t, audit.Search, e.Activity)
	assert.Len(t, e.Targets, 3)
	assert.Contains(t, e.Fields, "phone:compared")
	assert.NotContains(t, e.Fields, "id_number:compared", "the policy hides it")
	r.log.fail = errors.New("the disk is full")
	_, err := r.customers.Alike(ctx, sales, v, byPhone{})
	require.ErrorIs(t, err, r.log.fail)
	r.log.fail = nil

	assert.Equal(t, guard.Alike[*crm.Customer]{Band: guard.Certain}, ask(sales, guard.TellExists, v)[1])
	assert.Len(t, ask(sales, guard.TellNothing, v), 1)
	assert.Len(t, ask(admin, guard.TellNothing, v), 3, "who may read them sees them")
	assert.Empty(t, ask(sales, guard.TellOwner, customer("Zoe", "13711111111", "")))
	assert.Empty(t, r.last(t).Targets)
	itself := *v
	itself.ID = mine.Value.ID
	assert.Len(t, ask(sales, guard.TellOwner, &itself), 1, "a record is no duplicate of itself")

	// What is in the bin is no duplicate.
	require.NoError(t, r.customers.Delete(ctx, sales, mine.Value.ID.UUID(), 1))
	assert.Len(t, ask(sales, guard.TellOwner, v), 1)

	// Refused: who has no right to check, an index by parts, one that there is not, a forged row, too many at once.
	_, err = r.customers.Alike(ctx, auditor, v, byPhone{})
	require.True(t, guard.Denied(err))
	assert.Equal(t, audit.Denied, r.last(t).Outcome)
	for _, index := range []string{"suffix4:digits", "exact:digits", "phone"} {
		_, err = r.customers.Alike(ctx, sales, v, byPhone{index: index})
		require.ErrorIs(t, err, encrypt.ErrUnsupported)
	}
	_, err = r.customers.AlikeEach(ctx, admin, make([]*crm.Customer, guard.MostChecks+1), byPhone{})
	require.Error(t, err)
	r.store.bend = func(rows []crm.Row) {
		for i := range rows {
			rows[i].Version++
		}
	}
	_, err = r.customers.Alike(ctx, sales, v, byPhone{})
	require.ErrorIs(t, err, guard.ErrForged)
}

// TestAlikeBands: how sure it is, and nothing more, as AlikeEach tells it to the same caller by the same rules; nothing is opened for a view.
func TestAlikeBands(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.add(t, sales, "Ann", "13800135678", "a@example.com")
	r.add(t, other, "Bob", "13800135678", "c@example.com")
	var vs []*crm.Customer
	for _, name := range []string{"Ann", "Bob", "Eve"} {
		v := customer(name, "13800135678", "")
		v.Phone = crm.NewText("13800135678")
		vs = append(vs, v)
	}
	vs = append(vs, customer("Zoe", "13711111111", ""))
	for _, c := range []guard.Caller{sales, other, admin} {
		for _, tell := range []guard.Tell{guard.TellOwner, guard.TellExists, guard.TellNothing} {
			each, err := r.customers.AlikeEach(ctx, c, vs, byPhone{tell: tell})
			require.NoError(t, err)
			want := make([]guard.Band, len(vs))
			for i, found := range each {
				for _, a := range found {
					want[i] = max(want[i], a.Band)
				}
			}
			got, err := r.customers.AlikeBands(ctx, c, vs, byPhone{tell: tell})
			require.NoError(t, err)
			assert.Equal(t, want, got)
			for _, f := range r.last(t).Fields {
				assert.True(t, strings.HasSuffix(f, ":compared"), f)
			}
			assert.Len(t, r.last(t).Targets, 2)
		}
	}
	got, err := r.customers.AlikeBands(ctx, sales, vs, byPhone{tell: guard.TellNothing})
	require.NoError(t, err)
	assert.Equal(t, []guard.Band{guard.Certain, guard.Likely, guard.Likely, guard.Unlike}, got, "Bob is another's, of whom nothing is told")

	none, err := r.customers.AlikeBands(ctx, sales, nil, byPhone{})
	require.NoError(t, err)
	assert.Empty(t, none)
	_, err = r.customers.AlikeBands(ctx, auditor, vs, byPhone{})
	require.True(t, guard.Denied(err))
	_, err = r.customers.AlikeBands(ctx, admin, make([]*crm.Customer, guard.MostChecks+1), byPhone{})
	require.Error(t, err)
	r.log.fail = errors.New("the disk is full")
	_, err = r.customers.AlikeBands(ctx, sales, vs, byPhone{})
	require.ErrorIs(t, err, r.log.fail)
}

// A key that too many records share says nothing, and the others still do.
func TestAlikeBroadKey(t *testing.T) {
	r := newRig(t)
	for i := range 51 {
		r.add(t, other, "Ann", fmt.Sprintf("139%08d", i), "")
	}
	v := customer("Ann", "13900000007", "")
	v.Phone = crm.NewText("13900000007")
	got, err := r.customers.Alike(t.Context(), sales, v, byPhone{})
	require.NoError(t, err)
	assert.Len(t, got, 1)
	assert.Len(t, r.last(t).Targets, 1, "only what the phone finds is opened")
}

func TestAlikeQuota(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	v := customer("Ann", "13800135678", "")
	for range 120 {
		_, err := r.customers.Alike(ctx, sales, v, byPhone{})
		require.NoError(t, err)
	}
	_, err := r.customers.Alike(ctx, sales, v, byPhone{})
	require.ErrorIs(t, err, guard.ErrQuota)
	assert.Equal(t, audit.Denied, r.last(t).Outcome)
	_, err = r.customers.Alike(ctx, other, v, byPhone{})
	require.NoError(t, err, "another's own")
	for range 130 { // who may import has more, who may read all is told nothing new
		_, err = r.customers.Alike(ctx, manager, v, byPhone{})
		require.NoError(t, err)
		_, err = r.customers.Alike(ctx, admin, v, byPhone{})
		require.NoError(t, err)
	}
	many := slices.Repeat([]*crm.Customer{v}, guard.MostChecks)
	for range 70 {
		if _, err = r.customers.AlikeEach(ctx, manager, many, byPhone{}); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, guard.ErrQuota)
}

func TestAlikeAll(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	var same [][2]string
	for i := range 30 {
		a := r.add(t, sales, "Ann", fmt.Sprintf("138%08d", i), "")
		b := r.add(t, other, "Bob", fmt.Sprintf("138%08d", i), "")
		same = append(same, [2]string{a.Value.ID.UUID().String(), b.Value.ID.UUID().String()})
		r.add(t, other, "Eve", fmt.Sprintf("139%08d", i), "")
	}
	for range 6 {
		r.add(t, sales, "Switchboard", "01088888888", "")
	}
	dir := t.TempDir()
	var got [][2]string
	rep, err := r.customers.AlikeAll(ctx, program, byPhone{}, &guard.AlikeOptions{Dir: dir, Memory: 1, Block: 5}, func(p guard.Pair) error {
		got = append(got, [2]string{p.A.String(), p.B.String()})
		assert.Equal(t, guard.Likely, p.Band)
		return nil
	})
	require.NoError(t, err)
	for i := range same {
		slices.Sort(same[i][:])
	}
	slices.SortFunc(same, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	slices.SortFunc(got, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	assert.Equal(t, same, got)
	assert.Equal(t, guard.AlikeReport{Rows: 96, Blocks: 31, Large: 1, LargeRows: 6, Largest: 6, Compared: 30, Likely: 30}, rep)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left, "nothing stays in the folder")
	e := r.last(t)
	assert.Equal(t, "customer.check_all", e.Action)
	assert.Len(t, e.Targets, 60)

	stop := errors.New("enough")
	_, err = r.customers.AlikeAll(ctx, program, byPhone{}, nil, func(guard.Pair) error { return stop })
	require.ErrorIs(t, err, stop)
	for _, c := range []guard.Caller{sales, manager, auditor} {
		_, err = r.customers.AlikeAll(ctx, c, byPhone{}, nil, func(guard.Pair) error { return nil })
		require.True(t, guard.Denied(err), c.Subject.Roles)
	}
	_, err = r.customers.AlikeAll(ctx, program, byPhone{}, &guard.AlikeOptions{Dir: filepath.Join(dir, "nowhere"), Memory: 1}, func(guard.Pair) error { return nil })
	require.Error(t, err)
	r.log.fail = errors.New("the disk is full")
	_, err = r.customers.AlikeAll(ctx, program, byPhone{}, nil, func(guard.Pair) error { return nil })
	require.ErrorIs(t, err, r.log.fail)
}
