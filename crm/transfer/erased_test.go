package transfer_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/privacy"
	"github.com/crmguard/crmguard/crm/transfer"
)

// erasing is a rig with a list of the erased.
func erasing(t testing.TB, r *rig) *privacy.List {
	t.Helper()
	list, err := privacy.Open(t.Context(), r.guard, func(string) guard.Caller { return r.system }, &privacy.Options{Clock: r.clock})
	require.NoError(t, err)
	return list
}

func (r *rig) erase(t testing.TB, list *privacy.List, person crm.ID[crm.Person]) {
	t.Helper()
	c := r.admin
	c.Reason, c.Met = "they asked", []authz.Obligation{authz.NeedSecond}
	_, err := r.guard.Erase(t.Context(), c, person.UUID(), &guard.EraseOptions{List: list})
	require.NoError(t, err)
}

// dull is an Eraser that gives no answers.
type dull struct{}

func (dull) Erased(context.Context, guard.Caller, guard.Action, []*crm.Customer) ([]bool, error) {
	return nil, nil
}

// tired is an Eraser that may be asked about most records only.
type tired struct {
	transfer.Eraser[*crm.Customer]
	most int
}

func (e *tired) Erased(ctx context.Context, c guard.Caller, a guard.Action, vs []*crm.Customer) ([]bool, error) {
	if e.most -= len(vs); e.most < 0 {
		return nil, guard.ErrQuota
	}
	return e.Eraser.Erased(ctx, c, a, vs)
}

// TestErased: rows of somebody who was erased are made, counted and listed, or rejected without a word of what it was, or not looked for; a rehearsal says the same. An update, which names its
// record, is not asked about.
func TestErased(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		list := erasing(t, r)
		text := lines(3, "Ulm")
		mapping := suggested(t, text)
		first, err := r.importer(nil).Run(ctx, r.admin, "", csv(t, text), mapping, transfer.Create)
		require.NoError(t, err)
		r.erase(t, list, r.all(t)["x1"].Person)
		_, err = r.importer(nil).Undo(ctx, r.admin, first.ID)
		require.NoError(t, err)

		eraser := privacy.NewChecker(r.customers, list)
		same := []transfer.Erased{{Row: 2, Line: 3}}
		for on, want := range map[transfer.OnErased]transfer.Counts{
			"":                    {Rows: 3, Created: 3, Erased: 1},
			transfer.WarnErased:   {Rows: 3, Created: 3, Erased: 1},
			transfer.RefuseErased: {Rows: 3, Created: 2, Rejected: 1},
			transfer.IgnoreErased: {Rows: 3, Created: 3},
		} {
			m := r.importer(&transfer.Options[*crm.Customer]{Eraser: eraser, OnErased: on})
			rep, err := m.Rehearse(ctx, r.manager, csv(t, text), mapping, transfer.Create)
			require.NoError(t, err)
			job, err := m.Run(ctx, r.manager, "", csv(t, text), mapping, transfer.Create)
			require.NoError(t, err)
			assert.Equal(t, want, job.Counts(), on)
			assert.Equal(t, want, rep.Counts, on)
			var listed []transfer.Erased
			require.NoError(t, m.Erased(ctx, r.manager, job.ID, func(x transfer.Erased) error {
				listed = append(listed, x)
				return nil
			}))
			if want.Erased > 0 {
				assert.Equal(t, same, listed, on)
				assert.Equal(t, same, rep.Erased, on)
			} else {
				assert.Empty(t, listed, on)
				assert.Empty(t, rep.Erased, on)
			}
			if on == transfer.RefuseErased {
				assert.Equal(t, map[string]int64{":erased": 1}, job.ByReason())
				require.Len(t, rep.Rejected, 1)
				assert.Equal(t, []transfer.Reason{{Rule: "erased"}}, rep.Rejected[0].Reasons)
			}
			undone, err := m.Undo(ctx, r.manager, job.ID)
			require.NoError(t, err)
			assert.Equal(t, want.Created, undone.Undone)
		}
		r.verify(t)
	})
}

// TestErasedResumed: an import that is cut off counts the erased once, and who may not import is told what they would be told of anybody.
func TestErasedResumed(t *testing.T) {
	r := newRig(t)
	list := erasing(t, r)
	text := lines(2500, "Ulm")
	mapping := suggested(t, text)
	first, err := r.importer(nil).Run(t.Context(), r.admin, "", csv(t, lines(3, "Ulm")), mapping, transfer.Create)
	require.NoError(t, err)
	require.EqualValues(t, 3, first.Created)
	r.erase(t, list, r.all(t)["x1"].Person)
	eraser := privacy.NewChecker(r.customers, list)
	ctx, cancel := context.WithCancel(t.Context())
	m := r.importer(&transfer.Options[*crm.Customer]{Eraser: eraser, Progress: func(n transfer.Counts) {
		if n.Rows >= 900 {
			cancel()
		}
	}})
	job, err := m.Run(ctx, r.admin, "", csv(t, text), mapping, transfer.Create)
	require.ErrorIs(t, err, context.Canceled)
	assert.EqualValues(t, 1, job.Erased)
	job, err = r.importer(&transfer.Options[*crm.Customer]{Eraser: eraser}).Resume(t.Context(), r.admin, job.ID, csv(t, text))
	require.NoError(t, err)
	assert.EqualValues(t, 1, job.Erased)
	assert.EqualValues(t, 2500, job.Position)

	nobody := r.person(9, "support", "/east/")
	for _, row := range []string{"x1", "x2"} { // one who was erased, one who was not
		one := strings.SplitAfter(text, "\n")[0]
		for _, l := range strings.SplitAfter(text, "\n") {
			if strings.Contains(l, row+",") {
				one += l
				break
			}
		}
		rep, err := r.importer(&transfer.Options[*crm.Customer]{Eraser: eraser, OnErased: transfer.RefuseErased}).Rehearse(t.Context(), nobody, csv(t, one), mapping, transfer.Create)
		require.NoError(t, err)
		assert.Equal(t, map[string]int64{":denied": 1}, rep.Reasons, row)
	}
}

// TestErasedQuota: who may ask no more imports unchecked rows where the erased are only told, and none where they are refused. An answer that is none ends an import.
func TestErasedQuota(t *testing.T) {
	r := newRig(t)
	list := erasing(t, r)
	text := lines(1000, "Ulm") // two batches
	mapping := suggested(t, text)
	eraser := privacy.NewChecker(r.customers, list)
	m := r.importer(&transfer.Options[*crm.Customer]{Eraser: &tired{eraser, 900}})
	job, err := m.Run(t.Context(), r.admin, "", csv(t, text), mapping, transfer.Create)
	require.NoError(t, err)
	assert.Positive(t, job.Unchecked)
	assert.LessOrEqual(t, job.Unchecked, int64(100))
	m = r.importer(&transfer.Options[*crm.Customer]{Eraser: &tired{eraser, 900}, OnErased: transfer.RefuseErased})
	job, err = m.Run(t.Context(), r.admin, "", csv(t, text), mapping, transfer.Create)
	require.ErrorIs(t, err, guard.ErrQuota)
	assert.Equal(t, transfer.Running, job.State, "it can be gone on with later")
	_, err = r.importer(&transfer.Options[*crm.Customer]{Eraser: dull{}}).Run(t.Context(), r.admin, "", csv(t, text), mapping, transfer.Create)
	require.Error(t, err)
}
