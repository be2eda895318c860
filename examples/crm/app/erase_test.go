package app

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/encrypt/keys"
	keystore "github.com/crmguard/crmguard/encrypt/sqlstore"
)

// pair returns the administrator and a manager who may agree.
func pair(t *testing.T, a *App) (by, second *crm.Employee) {
	t.Helper()
	by, err := a.Owner(t.Context(), "")
	require.NoError(t, err)
	return by, roleOf(t, a, "manager")
}

func roleOf(t *testing.T, a *App, role string) *crm.Employee {
	t.Helper()
	all, err := a.Directory(t.Context())
	require.NoError(t, err)
	for _, e := range all {
		if e.Active() && len(e.Roles) == 1 && e.Roles[0] == role {
			return e
		}
	}
	e := &crm.Employee{
		Name: crm.NewText("Person of " + role), Email: crm.NewText(role + "@test.example"), Roles: []string{role}, State: crm.EmployeeActive, Joined: time.Now().Add(-time.Hour),
		Meta: crm.Meta[crm.Employee]{Team: "/east/"},
	}
	_, err = a.Employees.Create(t.Context(), System("test"), e)
	require.NoError(t, err)
	admin, err := a.Owner(t.Context(), "")
	require.NoError(t, err)
	require.NoError(t, a.RolesChanged(t.Context(), e.ID.UUID(), admin.ID.String()))
	return e
}

// forget erases the person of a record and expects that to be done.
func forget(t *testing.T, a *App, typ string, id crm.UUID) guard.Erasure {
	t.Helper()
	by, second := pair(t, a)
	e, err := a.Erase(t.Context(), by, second, typ, id, "a request by letter")
	require.NoError(t, err)
	return e
}

// imported runs an import of a text as an employee.
func imported(t *testing.T, a *App, c guard.Caller, typ, text, key string, mode transfer.Mode, o ImportOptions) (Importing, *transfer.Import, transfer.Report) {
	t.Helper()
	ctx := t.Context()
	m, err := a.Importer(ctx, c, typ, o)
	require.NoError(t, err)
	open := func() transfer.Source {
		src, _, err := OpenImport(strings.NewReader(text), FileOptions{})
		require.NoError(t, err)
		return src
	}
	mapping := SuggestImport(open(), m)
	mapping.Key = key
	rep, err := m.Rehearse(ctx, c, open(), mapping, mode)
	require.NoError(t, err)
	job, err := m.Run(ctx, c, "people.csv", open(), mapping, mode)
	require.NoError(t, err)
	assert.Equal(t, job.Counts(), rep.Counts, "a rehearsal says the same")
	assert.Equal(t, job.ByReason(), rep.Reasons)
	return m, job, rep
}

// customersOf finds the customers with an external id, in the bin too.
func customersOf(t *testing.T, a *App, external string) []*crm.Customer {
	t.Helper()
	var out []*crm.Customer
	for _, bin := range []bool{false, true} {
		p, err := a.Customers.List(t.Context(), System("test"), guard.Query{Bin: bin, Clauses: []crm.Clause{{Column: "external_id", Op: crm.Equal, Values: []crm.Value{crm.StringValue(external)}}}})
		require.NoError(t, err)
		for _, v := range p.Items {
			out = append(out, v.Value)
		}
	}
	return out
}

// shut checks that no field of a person opens in a record.
func shut(t *testing.T, v *crm.Customer, why string) {
	t.Helper()
	for _, f := range []crm.Text{v.Name, v.Phone} {
		assert.Contains(t, []crm.State{crm.Sealed, crm.Erased}, f.State(), why)
		assert.Empty(t, f.Expose(), why)
	}
	assert.Empty(t, v.Email.Expose(), why)
}

// graceOver puts what is blocked back by so much that the grace is over.
func graceOver(t *testing.T, a *App) {
	t.Helper()
	ctx := t.Context()
	st, err := keystore.Open(ctx, a.db.w, string(a.db.dialect), &keystore.Options{Reads: a.db.r})
	require.NoError(t, err)
	found, err := st.Find(ctx, Tenant, keys.Query{Blocked: true})
	require.NoError(t, err)
	var ids []keys.ID
	for _, r := range found {
		ids = append(ids, r.ID)
	}
	require.NotEmpty(t, ids)
	require.NoError(t, st.Block(ctx, Tenant, ids, time.Time{}))
	require.NoError(t, st.Block(ctx, Tenant, ids, time.Now().UTC().Add(-100*time.Hour).Truncate(time.Second)))
}

const oneCustomer = "external id,name,phone,email\nz1,Ann Lee,138 0013 5678,Ann.Lee@Example.org\nz2,Bob Kay,13900135678,bob@example.org\n"

// TestErasedStaysGone: an erased person does not come back by the undoing of an import that made them, or changed them, nor of a merge; not in the grace and not after it.
//
//crm:item 13 partly
func TestErasedStaysGone(t *testing.T) {
	onStores(t, func(t *testing.T, a *App, admin guard.Caller) {
		ctx := t.Context()
		m, made, _ := imported(t, a, admin, crm.TypeCustomer, oneCustomer, "external_id", transfer.Create, ImportOptions{})
		require.EqualValues(t, 2, made.Created)
		changed := strings.Join(strings.SplitAfter(strings.ReplaceAll(oneCustomer, "138 0013 5678", "13700135678"), "\n")[:2], "")
		u, update, _ := imported(t, a, admin, crm.TypeCustomer, changed, "external_id", transfer.Update, ImportOptions{})
		require.EqualValues(t, 1, update.Updated)
		ann := customersOf(t, a, "z1")[0]
		e := forget(t, a, crm.TypeCustomer, ann.ID.UUID())
		assert.False(t, e.Due.IsZero(), "the grace")
		assert.Equal(t, 2, e.Marks)
		shut(t, customersOf(t, a, "z1")[0], "blocked")

		undone, err := u.Undo(ctx, admin, update.ID)
		require.NoError(t, err)
		assert.EqualValues(t, 1, undone.Left)
		shut(t, customersOf(t, a, "z1")[0], "the update is undone")
		undone, err = m.Undo(ctx, admin, made.ID)
		require.NoError(t, err)
		assert.EqualValues(t, 1, undone.Undone, "the neighbour")
		shut(t, customersOf(t, a, "z1")[0], "the import is undone")
		bob := customersOf(t, a, "z2")
		require.Len(t, bob, 1)
		assert.Equal(t, "bob@example.org", bob[0].Email.Expose(), "the neighbour opens")

		// A merge.
		keep, drop := known(t, a, admin, "Cara May", "13600135678"), known(t, a, admin, "Carla May", "13500135678")
		g, err := a.Duplicates.Customers.Merge(ctx, admin, seen(keep), seen(drop), dedupe.Choice{"phone"})
		require.NoError(t, err)
		e = forget(t, a, crm.TypeCustomer, drop.ID.UUID())
		assert.Len(t, e.Persons, 2)
		again := func(why string) {
			t.Helper()
			_, err := a.Duplicates.Customers.Undo(ctx, admin, g.ID.UUID())
			var refusal *dedupe.Refusal
			require.ErrorAs(t, err, &refusal, why)
			for _, id := range []crm.UUID{keep.ID.UUID(), drop.ID.UUID()} {
				v, err := a.Customers.Get(ctx, System("test"), id)
				require.NoError(t, err)
				shut(t, v.Value, why)
			}
		}
		again("in the grace")

		// After the grace the daily purge destroys the keys.
		graceOver(t, a)
		p, err := a.PurgeBin(ctx, PurgeLimit)
		require.NoError(t, err)
		assert.Subset(t, p.Destroyed, []crm.UUID{ann.Person.UUID(), keep.Person.UUID(), drop.Person.UUID()})
		again("destroyed")
		v, err := a.Customers.Get(ctx, System("test"), ann.ID.UUID())
		require.NoError(t, err)
		assert.Equal(t, crm.Erased, v.Value.Phone.State())
		by, second := pair(t, a)
		e, err = a.Erase(ctx, by, second, crm.TypeCustomer, ann.ID.UUID(), "asked again")
		require.NoError(t, err)
		assert.Empty(t, e.Keys)
		assert.Zero(t, e.Marks)
	})
}

// TestErasedComesBack: who was erased is known again in an import, as customer and as lead and in another spelling, and is refused, told or let in as configured.
//
//crm:item 13 partly
func TestErasedComesBack(t *testing.T) {
	onStores(t, func(t *testing.T, a *App, admin guard.Caller) {
		ctx := t.Context()
		_, made, _ := imported(t, a, admin, crm.TypeCustomer, oneCustomer, "", transfer.Create, ImportOptions{})
		ann := customersOf(t, a, "z1")[0]
		forget(t, a, crm.TypeCustomer, ann.ID.UUID())
		files := map[string]string{
			crm.TypeCustomer: "name,phone\nA. Lee,+86 (138) 0013-5678\nCara May,13300135678\n",
			crm.TypeLead:     "name,email\nA. Lee,ANN.LEE@example.org\nCara May,cara@example.org\n",
		}
		for typ, text := range files {
			a.Config.Erased = RefuseErased
			m, job, _ := imported(t, a, admin, typ, text, "", transfer.Create, ImportOptions{})
			assert.Equal(t, transfer.Counts{Rows: 2, Created: 1, Rejected: 1}, job.Counts(), typ)
			assert.Equal(t, map[string]int64{":erased": 1}, job.ByReason(), typ)
			require.NoError(t, m.Rejected(ctx, admin, job.ID, func(r transfer.Rejected) error {
				assert.Equal(t, []transfer.Reason{{Rule: "erased"}}, r.Reasons)
				assert.EqualValues(t, 2, r.Line)
				return nil
			}))
			for _, word := range []string{"", WarnErased} {
				a.Config.Erased = word
				m, job, rep := imported(t, a, admin, typ, text, "", transfer.Create, ImportOptions{})
				assert.Equal(t, transfer.Counts{Rows: 2, Created: 2, Erased: 1}, job.Counts(), typ)
				want := []transfer.Erased{{Row: 1, Line: 2}}
				var listed []transfer.Erased
				require.NoError(t, m.Erased(ctx, admin, job.ID, func(x transfer.Erased) error {
					listed = append(listed, x)
					return nil
				}))
				assert.Equal(t, want, listed)
				assert.Equal(t, want, rep.Erased)
				undone, err := m.Undo(ctx, admin, job.ID)
				require.NoError(t, err)
				assert.EqualValues(t, 2, undone.Undone)
			}
			a.Config.Erased = AllowErased
			_, job, _ = imported(t, a, admin, typ, text, "", transfer.Create, ImportOptions{})
			assert.Equal(t, transfer.Counts{Rows: 2, Created: 2}, job.Counts(), typ)
		}
		a.Config.Erased = RefuseErased

		// Who may not import learns nothing of it: the answer is the same for everybody's number.
		who, err := a.As(ctx, roleOf(t, a, "support"), "test")
		require.NoError(t, err)
		for _, row := range []string{"A. Lee,13800135678", "Cara May,13300130000"} {
			m, err := a.Importer(ctx, who, crm.TypeCustomer, ImportOptions{})
			require.NoError(t, err)
			src, _, err := OpenImport(strings.NewReader("name,phone\n"+row+"\n"), FileOptions{})
			require.NoError(t, err)
			rep, err := m.Rehearse(ctx, who, src, transfer.Mapping{Columns: []transfer.Column{{Header: "name", Field: "company"}, {Header: "phone", Field: "phone"}}}, transfer.Create)
			if err == nil {
				assert.Equal(t, map[string]int64{":denied": 1}, rep.Reasons, row)
			} else {
				assert.True(t, guard.Denied(err), "%v", err)
			}
		}

		// The list has marks and days, and the files have nothing of the erased.
		rows, err := a.store.List(ctx, crm.Query{Tenant: Tenant, Type: crm.TypeSuppression, Where: crm.Everything{}, Limit: 100})
		require.NoError(t, err)
		require.Len(t, rows.Rows, 2)
		for _, row := range rows.Rows {
			assert.Empty(t, row.Sealed)
			require.Len(t, row.Persons, 1)
			assert.NotEqual(t, ann.Person.UUID(), row.Persons[0])
			assert.EqualValues(t, 4, row.ID[6]>>4, "random, and no time in it")
			for _, v := range row.Clear {
				switch v.Kind() {
				case crm.KindTime:
					assert.Zero(t, v.Any().(time.Time).UTC().Sub(v.Any().(time.Time).UTC().Truncate(24*time.Hour)), "a day")
				case crm.KindString:
					assert.NotContains(t, v.Str(), "138")
					assert.NotEqual(t, admin.Subject.ID, v.Str())
				}
			}
		}
		var text bytes.Buffer
		fmt.Fprintf(&text, "%v", rows)
		require.NoError(t, filepath.WalkDir(a.Config.Data, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			text.Write(b)
			return err
		}))
		for _, secret := range []string{"13800135678", "138 0013 5678", "Ann Lee", "Ann.Lee@", "ann.lee@", "a request by letter"} {
			assert.NotContains(t, text.String(), secret)
		}
		assert.NotNil(t, made)
	})
}

// TestEraseIsRefused: an erasure needs somebody who may, a second person who may agree, and a record that they may read.
func TestEraseIsRefused(t *testing.T) {
	onStores(t, func(t *testing.T, a *App, admin guard.Caller) {
		ctx := t.Context()
		v := known(t, a, admin, "Ann Lee", "13800135678")
		by, second := pair(t, a)
		untouched := func(why string) {
			t.Helper()
			got, err := a.Customers.Get(ctx, System("test"), v.ID.UUID())
			require.NoError(t, err)
			assert.Equal(t, crm.Clear, got.Value.Phone.State(), why)
			n, err := a.store.Count(ctx, crm.Query{Tenant: Tenant, Type: crm.TypeSuppression, Where: crm.Everything{}, Limit: 10})
			require.NoError(t, err)
			assert.Zero(t, n, why)
		}
		for name, other := range map[string]*crm.Employee{"nobody": nil, "the same": by, "sales": roleOf(t, a, "sales"), "auditor": roleOf(t, a, "auditor")} {
			_, err := a.Erase(ctx, by, other, crm.TypeCustomer, v.ID.UUID(), "x")
			require.ErrorIs(t, err, ErrSecond, name)
			untouched(name)
		}
		for _, role := range []string{"manager", "sales", "auditor"} {
			_, err := a.Erase(ctx, roleOf(t, a, role), by, crm.TypeCustomer, v.ID.UUID(), "x")
			require.Error(t, err, role)
			untouched(role)
		}
		_, err := a.Erase(ctx, by, second, crm.TypeCustomer, v.ID.UUID(), "")
		require.True(t, guard.Denied(err), "no reason: %v", err)
		_, err = a.Erase(ctx, by, second, crm.TypeQuote, v.ID.UUID(), "x")
		require.ErrorIs(t, err, crm.ErrNotFound)
		_, err = a.Erase(ctx, by, second, crm.TypeLead, v.ID.UUID(), "x")
		require.ErrorIs(t, err, crm.ErrNotFound, "another type")
		untouched("in the end")
		_, err = a.Erase(ctx, by, second, crm.TypeCustomer, v.ID.UUID(), "x")
		require.NoError(t, err)
		es, err := a.Log.Query(ctx, audit.Filter{Action: "person.erase"}, a.Log.Size(), 1)
		require.NoError(t, err)
		asked, err := crm.ParseUUID(es[0].Event.Note)
		require.NoError(t, err)
		request, err := a.Erasures.Get(ctx, System("test"), asked)
		require.NoError(t, err)
		assert.Equal(t, second.ID, request.Value.Approver, "the event leads to who agreed")
		assert.Equal(t, by.ID, request.Value.Owner)
		assert.EqualValues(t, es[0].Index, request.Value.Event)

		// What is over its time goes from the list.
		a.now = func() time.Time { return time.Now().AddDate(6, 0, 0) }
		n, err := a.Suppressions.Sweep(ctx, Tenant, 10)
		require.NoError(t, err)
		assert.Equal(t, 1, n)
		found, err := a.Leads.Erased(ctx, admin, authz.Import, []*crm.Lead{{Phone: crm.NewText("13800135678")}}, a.Suppressions)
		require.NoError(t, err)
		assert.Equal(t, []bool{false}, found)
	})
}

// TestErasedWord: a word that there is not is refused when the program starts.
func TestErasedWord(t *testing.T) {
	for _, word := range []string{"maybe", "Refuse"} {
		_, err := Open(context.Background(), Config{Data: t.TempDir(), Erased: word})
		require.ErrorIs(t, err, ErrErased, word)
	}
}
