package transfer_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
)

const people = "客户编号,公司名称,姓名,手机,电子邮箱,城市,日期\n" +
	"1,华星贸易公司,张伟,13800138000,zhang@example.com,北京,2024-05-01\n" +
	"2,,李娜,13900139000,li@example.com,上海,2024-05-02\n" +
	"3,明远科技公司,王芳,13700137000,not an address,广州,2024-05-03\n" +
	"4,,,13600136000,nobody@example.com,深圳,2024-05-04\n"

// TestRehearsal: a dry run says exactly what the import then does, and leaves nothing but its line in the log.
//
//crm:item 13 partly
func TestRehearsal(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		m := r.importer(nil)
		mapping := suggested(t, people)
		assert.Empty(t, mapping.Ignored())
		rep, err := m.Rehearse(ctx, r.admin, csv(t, people), mapping, transfer.Create)
		require.NoError(t, err)
		assert.Equal(t, transfer.Counts{Rows: 4, Created: 2, Rejected: 2}, rep.Counts)
		assert.Equal(t, map[string]int64{"email:not_an_email": 1, "name:required": 1}, rep.Reasons)
		assert.Zero(t, r.count(t, r.admin))
		events, err := r.log.Query(ctx, audit.Filter{Action: "customer.import.rehearsed"}, 1<<40, 10)
		require.NoError(t, err)
		require.Len(t, events, 1)
		assert.EqualValues(t, 2, events[0].Event.Count)
		assert.Empty(t, events[0].Event.Targets, "nothing was announced")

		job, err := m.Run(ctx, r.admin, "people.csv", csv(t, people), mapping, transfer.Create)
		require.NoError(t, err)
		assert.Equal(t, rep.Counts, job.Counts())
		assert.Equal(t, rep.Reasons, job.ByReason())
		assert.Equal(t, transfer.Done, job.State)
		assert.EqualValues(t, 2, r.count(t, r.admin))
		all := r.all(t)
		assert.Equal(t, "华星贸易公司", all["1"].Name.Expose())
		assert.Equal(t, crm.PersonCustomer, all["2"].Kind)
		assert.Equal(t, 2024, all["1"].CreatedAt.Year())
		r.verify(t)
	})
}

// verify holds the rows against the log.
func (r *rig) verify(t testing.TB) {
	t.Helper()
	require.NoError(t, r.guard.Settle(t.Context()))
	var schemas []crm.Schema
	for _, schema := range []func(*guard.TypeOptions) (crm.Schema, error){guard.Schema[*crm.Customer], guard.Schema[*transfer.Import], guard.Schema[*transfer.Kept]} {
		s, err := schema(nil)
		require.NoError(t, err)
		schemas = append(schemas, s)
	}
	check := guard.NewCheck("default", schemas...)
	var all []audit.Entry
	for before := uint64(1 << 40); ; {
		page, err := r.log.Query(t.Context(), audit.Filter{}, before, 1000)
		require.NoError(t, err)
		if len(page) == 0 {
			break
		}
		all, before = append(all, page...), page[len(page)-1].Index
	}
	for i := len(all) - 1; i >= 0; i-- {
		check.Event(all[i])
	}
	report, err := check.Rows(t.Context(), r.store, r.keeper)
	require.NoError(t, err)
	assert.Empty(t, report.Findings)
}

// TestRejectedRows: rows that were refused come back with their cells and reasons, to who imported them and to nobody else, and they are gone after two weeks.
func TestRejectedRows(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	m := r.importer(nil)
	text := people + "5,\"broken,x\n6,a,b\n"
	job, err := m.Run(ctx, r.admin, "people.csv", csv(t, text), suggested(t, people), transfer.Create)
	require.NoError(t, err)
	read := func(c guard.Caller) (out []transfer.Rejected, err error) {
		err = m.Rejected(ctx, c, job.ID, func(x transfer.Rejected) error {
			out = append(out, x)
			return nil
		})
		return out, err
	}
	rows, err := read(r.admin)
	require.NoError(t, err)
	require.Len(t, rows, 4)
	assert.EqualValues(t, 3, rows[0].Row)
	assert.EqualValues(t, 4, rows[0].Line)
	assert.Equal(t, []transfer.Reason{{Field: "email", Rule: "not_an_email"}}, rows[0].Reasons)
	assert.Equal(t, "王芳", rows[0].Cells[2])
	assert.Equal(t, "unclosed_quote", rows[2].Reasons[0].Rule)
	assert.Equal(t, "fields", rows[3].Reasons[0].Rule)
	for _, c := range []guard.Caller{r.manager, r.sales} {
		rows, err := read(c)
		assert.Empty(t, rows)
		assert.True(t, err == nil || guard.Denied(err), "%v", err)
	}
	n, err := transfer.Sweep(ctx, r.doors, r.system, r.clock(), 100)
	require.NoError(t, err)
	assert.Zero(t, n, "not yet")
	r.pass(transfer.KeepRejected + time.Hour)
	n, err = transfer.Sweep(ctx, r.doors, r.system, r.clock(), 100)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	rows, err = read(r.admin)
	require.NoError(t, err)
	assert.Empty(t, rows)
	r.verify(t)
}

// TestWhoMayImport: an import is as far as the policy lets its caller go.
func TestWhoMayImport(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	m := r.importer(nil)
	mapping := suggested(t, people)
	_, err := m.Run(ctx, r.sales, "", csv(t, people), mapping, transfer.Create)
	require.True(t, guard.Denied(err), "sales import nothing: %v", err)
	rep, err := m.Rehearse(ctx, r.sales, csv(t, people), mapping, transfer.Create)
	require.NoError(t, err)
	assert.EqualValues(t, 2, rep.Reasons[":denied"], "each row that is one: %v", rep.Reasons)
	assert.Zero(t, rep.Created)
	job, err := m.Run(ctx, r.manager, "", csv(t, people), mapping, transfer.Create)
	require.NoError(t, err)
	assert.EqualValues(t, 2, job.Created)
	_, err = m.Undo(ctx, r.sales, job.ID)
	require.Error(t, err)
	_, err = m.Resume(ctx, r.manager, job.ID, csv(t, people))
	var step *crm.TransitionError
	require.ErrorAs(t, err, &step, "it is over")
	assert.Zero(t, r.count(t, r.sales))
}

// lines makes a file of n customers; each seventh is no customer.
func lines(n int, city string) string {
	var b strings.Builder
	b.WriteString("external id,company,phone,city\n")
	for i := range n {
		name := fmt.Sprintf("Company %d", i)
		if i%7 == 3 {
			name = ""
		}
		fmt.Fprintf(&b, "x%d,%s,+8613%09d,%s\n", i, name, i, city)
	}
	return b.String()
}

// TestResume: an import that is cut off goes on where it was, with the same file only, and stores nothing twice.
func TestResume(t *testing.T) {
	r := newRig(t)
	text := lines(2500, "Ulm")
	mapping := suggested(t, text)
	ctx, cancel := context.WithCancel(t.Context())
	m := r.importer(&transfer.Options[*crm.Customer]{Progress: func(n transfer.Counts) {
		if n.Rows >= 900 {
			cancel()
		}
	}})
	job, err := m.Run(ctx, r.admin, "", csv(t, text), mapping, transfer.Create)
	require.ErrorIs(t, err, context.Canceled)
	require.NotNil(t, job)
	m = r.importer(nil)
	_, err = m.Resume(t.Context(), r.admin, job.ID, csv(t, strings.Replace(text, "Company 2,", "Company 4,", 1)))
	require.ErrorIs(t, err, transfer.ErrOther, "a row that is done with is another")
	_, err = m.Resume(t.Context(), r.admin, job.ID, csv(t, strings.Replace(text, "city", "town", 1)))
	require.ErrorIs(t, err, transfer.ErrOther)
	_, err = m.Resume(t.Context(), r.admin, job.ID, csv(t, text[:2000]))
	require.ErrorIs(t, err, transfer.ErrOther, "it ends too early")
	job, err = m.Resume(t.Context(), r.admin, job.ID, csv(t, text))
	require.NoError(t, err)
	bad := int64(357)
	assert.Equal(t, transfer.Counts{Rows: 2500, Created: 2500 - bad, Rejected: bad}, job.Counts())
	assert.EqualValues(t, 2500-bad, r.count(t, r.admin))
	r.verify(t)
}

// TestUndo: what an import made goes to the bin and what it changed gets its former values back, but for what somebody changed since.
//
//crm:item 13 partly
func TestUndo(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		m := r.importer(nil)
		text := lines(20, "Ulm")
		mapping := suggested(t, text)
		mapping.Key = "external_id"
		first, err := m.Run(ctx, r.manager, "", csv(t, text), mapping, transfer.Create)
		require.NoError(t, err)
		assert.EqualValues(t, 17, first.Created)
		again, err := m.Run(ctx, r.manager, "", csv(t, text), mapping, transfer.Create)
		require.NoError(t, err)
		assert.Equal(t, map[string]int64{"external_id:repeated": 17, "name:required": 3}, again.ByReason())

		// Rows 0 to 29 in another city with other phones: the first ones are updated, the others made.
		second := strings.ReplaceAll(lines(30, "Bonn"), "+86130", "+86131")
		update, err := m.Run(ctx, r.manager, "", csv(t, second), mapping, transfer.Both)
		require.NoError(t, err)
		assert.EqualValues(t, 17, update.Updated)
		assert.EqualValues(t, 9, update.Created)
		same, err := m.Run(ctx, r.manager, "", csv(t, second), mapping, transfer.Update)
		require.NoError(t, err)
		assert.EqualValues(t, 26, same.Unchanged)
		assert.Equal(t, "Bonn", r.all(t)["x1"].City)

		// Somebody changes one that was updated and one that was made.
		for _, id := range []string{"x1", "x29"} {
			v := r.all(t)[id]
			whole, err := r.customers.Get(ctx, r.manager, v.ID.UUID())
			require.NoError(t, err)
			whole.Value.City = "Köln"
			_, err = r.customers.Update(ctx, r.manager, whole.Value)
			require.NoError(t, err)
		}
		undone, err := m.Undo(ctx, r.manager, update.ID)
		require.NoError(t, err)
		assert.Equal(t, transfer.Undone, undone.State)
		assert.EqualValues(t, 24, undone.Undone)
		assert.EqualValues(t, 2, undone.Left)
		all := r.all(t)
		assert.Len(t, all, 18)
		assert.Equal(t, "Ulm", all["x2"].City)
		assert.Equal(t, "+8613000000002", all["x2"].Phone.Expose())
		assert.Equal(t, "Köln", all["x1"].City)
		assert.Equal(t, "+8613100000001", all["x1"].Phone.Expose())
		_, err = m.Undo(ctx, r.manager, update.ID)
		var step *crm.TransitionError
		require.ErrorAs(t, err, &step)
		r.verify(t)
	})
}

// TestUndoOfTheFirstVersion: an import that a program began which derived ids in the first way goes on with the others, and is undone wholly.
func TestUndoOfTheFirstVersion(t *testing.T) {
	r := newRig(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	text := lines(2000, "Ulm")
	o := &transfer.Options[*crm.Customer]{Beside: "what is needed to go on", Progress: func(transfer.Counts) { stop() }}
	back := transfer.DeriveFirst()
	job, err := r.importer(o).Run(ctx, r.manager, "", csv(t, text), suggested(t, text), transfer.Create)
	back()
	require.ErrorIs(t, err, context.Canceled)
	first := job.Created
	require.Positive(t, first)
	beside, err := transfer.Beside(t.Context(), r.doors, r.manager, job.ID)
	require.NoError(t, err)
	assert.Equal(t, o.Beside, beside)
	job, err = r.importer(nil).Resume(t.Context(), r.manager, job.ID, csv(t, text))
	require.NoError(t, err)
	assert.EqualValues(t, 2000, job.Position)
	require.Greater(t, job.Created, first)
	undone, err := r.importer(nil).Undo(t.Context(), r.manager, job.ID)
	require.NoError(t, err)
	assert.Equal(t, job.Created, undone.Undone)
	assert.Zero(t, undone.Left)
	assert.Empty(t, r.all(t))
}

// TestUndoOfTheErased: the former values of an erased person do not come back, neither into the record nor anywhere.
func TestUndoOfTheErased(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	m := r.importer(nil)
	text := lines(3, "Ulm")
	mapping := suggested(t, text)
	mapping.Key = "external_id"
	_, err := m.Run(ctx, r.manager, "", csv(t, text), mapping, transfer.Create)
	require.NoError(t, err)
	update, err := m.Run(ctx, r.manager, "", csv(t, strings.ReplaceAll(text, "+86130", "+86131")), mapping, transfer.Update)
	require.NoError(t, err)
	require.EqualValues(t, 3, update.Updated)
	erased := r.all(t)["x1"]
	_, err = r.keeper.Erase(ctx, "default", erased.Person.UUID(), nil)
	require.NoError(t, err)
	undone, err := m.Undo(ctx, r.manager, update.ID)
	require.NoError(t, err)
	assert.EqualValues(t, 2, undone.Undone)
	assert.EqualValues(t, 1, undone.Left)
	all := r.all(t)
	assert.Equal(t, crm.Erased, all["x1"].Phone.State())
	assert.Equal(t, "+8613000000002", all["x2"].Phone.Expose())
}

// TestMaskedIsNotOverwritten: an update changes no value that its caller cannot see.
func TestMaskedIsNotOverwritten(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	m := r.importer(nil)
	text := "external id,company,id number\na,Acme,110101199003070070\n"
	mapping := suggested(t, text)
	mapping.Key = "external_id"
	_, err := m.Run(ctx, r.system, "", csv(t, text), mapping, transfer.Create)
	require.Error(t, err, "an import belongs to somebody")
	owned := r.importer(&transfer.Options[*crm.Customer]{Owner: crm.ID[crm.Employee]{15: 9}, Team: "/east/1/"})
	job, err := owned.Run(ctx, r.system, "", csv(t, text), mapping, transfer.Create)
	require.NoError(t, err)
	require.EqualValues(t, 1, job.Created, "%v", job.ByReason())
	job, err = m.Run(ctx, r.admin, "", csv(t, strings.Replace(text, "0070", "0089", 1)), mapping, transfer.Update)
	require.NoError(t, err)
	assert.Equal(t, map[string]int64{":not_open": 1}, job.ByReason())
}

// twins takes for certain what is called Company 1, and for likely what one before it in the file is called. It answers a few times only when most is not 0.
type twins struct{ most, asked int }

func (x *twins) Bands(_ context.Context, _ guard.Caller, before, vs []*crm.Customer) ([]guard.Band, error) {
	if x.asked++; x.most > 0 && x.asked > x.most {
		return nil, guard.ErrQuota
	}
	out := make([]guard.Band, len(vs))
	for i, v := range vs {
		like := func(w *crm.Customer) bool { return w.City == "Bonn" && w.Name.Expose() == v.Name.Expose() }
		switch {
		case v.Name.Expose() == "Company 1":
			out[i] = guard.Certain
		case slices.ContainsFunc(before, like) || slices.ContainsFunc(vs[:i], like):
			out[i] = guard.Likely
		}
	}
	return out, nil
}

// deaf answers for too few.
type deaf struct{}

func (deaf) Bands(context.Context, guard.Caller, []*crm.Customer, []*crm.Customer) ([]guard.Band, error) {
	return nil, nil
}

// TestChecker: rows that a checker knows are skipped, or made, counted and listed; a rehearsal says the same.
func TestChecker(t *testing.T) {
	r := newRig(t)
	text := lines(3, "Ulm")
	same := []transfer.Matched{{Row: 2, Line: 3, Band: "certain"}}
	for policy, want := range map[transfer.OnMatch]transfer.Counts{
		"":                     {Rows: 3, Created: 2, Rejected: 1},
		transfer.SkipMatches:   {Rows: 3, Created: 2, Rejected: 1},
		transfer.ReportMatches: {Rows: 3, Created: 3, Matched: 1},
	} {
		m := r.importer(&transfer.Options[*crm.Customer]{Checker: &twins{}, OnMatch: policy})
		rep, err := m.Rehearse(t.Context(), r.admin, csv(t, text), suggested(t, text), transfer.Create)
		require.NoError(t, err)
		job, err := m.Run(t.Context(), r.admin, "", csv(t, text), suggested(t, text), transfer.Create)
		require.NoError(t, err)
		assert.Equal(t, want, job.Counts(), policy)
		assert.Equal(t, want, rep.Counts, policy)
		var listed []transfer.Matched
		require.NoError(t, m.Matched(t.Context(), r.admin, job.ID, func(x transfer.Matched) error {
			listed = append(listed, x)
			return nil
		}))
		if policy == transfer.ReportMatches {
			assert.Equal(t, same, listed)
			assert.Equal(t, same, rep.Matched)
		} else {
			assert.Empty(t, listed)
			assert.Empty(t, rep.Matched)
		}
	}
	_, err := r.importer(&transfer.Options[*crm.Customer]{Checker: deaf{}}).Run(t.Context(), r.admin, "", csv(t, text), suggested(t, text), transfer.Create)
	require.Error(t, err)
}

// TestCheckerSeesTheFile: what is like a row before it is seen in the same batch, in the next one and in the one after that, also while none of them is stored.
func TestCheckerSeesTheFile(t *testing.T) {
	r := newRig(t)
	text := strings.Replace(lines(2400, "Bonn"), "Company 1,", "Company 0,", 1)
	for _, n := range []string{"5", "950", "1850"} { // of three batches
		text = strings.Replace(text, "Company "+n+",", "Company 4,", 1)
	}
	m := r.importer(&transfer.Options[*crm.Customer]{Checker: &twins{}, OnMatch: transfer.ReportMatches})
	rep, err := m.Rehearse(t.Context(), r.admin, csv(t, text), suggested(t, text), transfer.Create)
	require.NoError(t, err)
	job, err := m.Run(t.Context(), r.admin, "", csv(t, text), suggested(t, text), transfer.Create)
	require.NoError(t, err)
	assert.Equal(t, rep.Counts, job.Counts())
	assert.EqualValues(t, 4, job.Matched) // three, and Company 0
}

// TestCheckerQuota: who may ask no more imports unchecked rows where duplicates are only reported, and none where they are refused.
func TestCheckerQuota(t *testing.T) {
	r := newRig(t)
	text := lines(2000, "Ulm") // three batches
	m := r.importer(&transfer.Options[*crm.Customer]{Checker: &twins{most: 2}, OnMatch: transfer.ReportMatches})
	job, err := m.Run(t.Context(), r.admin, "", csv(t, text), suggested(t, text), transfer.Create)
	require.NoError(t, err)
	assert.Equal(t, transfer.Counts{Rows: 2000, Created: 1714, Rejected: 286, Matched: 1, Unchecked: 171}, job.Counts())
	m = r.importer(&transfer.Options[*crm.Customer]{Checker: &twins{most: 2}})
	job, err = m.Run(t.Context(), r.admin, "", csv(t, text), suggested(t, text), transfer.Create)
	require.ErrorIs(t, err, guard.ErrQuota)
	assert.Equal(t, transfer.Running, job.State, "it can be gone on with later")
	assert.EqualValues(t, 1800, job.Position)
}

// TestBeside: what the program keeps with an import comes back to who began it, to nobody else, and is not in the import.
func TestBeside(t *testing.T) {
	r := newRig(t)
	text := lines(2, "Ulm")
	src := csv(t, text)
	m := r.importer(&transfer.Options[*crm.Customer]{Beside: "the key of the file"})
	job, err := m.Begin(t.Context(), r.manager, "in.csv", src.Header(), suggested(t, text), transfer.Create)
	require.NoError(t, err)
	got, err := transfer.Beside(t.Context(), r.doors, r.manager, job.ID)
	require.NoError(t, err)
	assert.Equal(t, "the key of the file", got)
	for _, c := range []guard.Caller{r.admin, r.sales} {
		_, err := transfer.Beside(t.Context(), r.doors, c, job.ID)
		assert.ErrorIs(t, err, crm.ErrNotFound)
	}
	job, err = m.Resume(t.Context(), r.manager, job.ID, src)
	require.NoError(t, err)
	assert.Equal(t, transfer.Counts{Rows: 2, Created: 2}, job.Counts())
	other, err := r.importer(nil).Run(t.Context(), r.manager, "", csv(t, text), suggested(t, text), transfer.Create)
	require.NoError(t, err)
	_, err = transfer.Beside(t.Context(), r.doors, r.manager, other.ID)
	assert.ErrorIs(t, err, crm.ErrNotFound)
}

// TestUniqueInTheStore: a record that only the store can refuse costs its row.
func TestUniqueInTheStore(t *testing.T) {
	r := newRig(t)
	text := "name,email,role,team\nAnn,ann@example.com,sales,East\nBob,bob@example.com,sales,East\nAnna,ann@example.com,sales,East\n"
	src := csv(t, text)
	layout := transfer.Employees(transfer.Others{})
	m := transfer.NewImporter(r.doors, r.employees, layout, &transfer.Options[*crm.Employee]{Owner: crm.ID[crm.Employee]{15: 9}, Team: "/hq/"})
	mapping := transfer.Suggest(layout.Fields, src.Header(), nil)
	rep, err := m.Rehearse(t.Context(), r.system, csv(t, text), mapping, transfer.Create)
	require.NoError(t, err)
	job, err := m.Run(t.Context(), r.system, "", src, mapping, transfer.Create)
	require.NoError(t, err)
	assert.Equal(t, rep.Counts, job.Counts())
	assert.Equal(t, map[string]int64{":repeated": 1}, job.ByReason())
	assert.EqualValues(t, 2, job.Created)
}
