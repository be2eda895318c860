package guard_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	keystore "github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
)

// world is a rig with records of three types.
type world struct {
	*rig
	employees *guard.Records[*crm.Employee]
	contracts *guard.Records[*crm.Contract]
}

func newWorld(t testing.TB, r *rig) *world {
	t.Helper()
	w := &world{rig: r}
	var err error
	r.guard, _, err = guard.New(t.Context(), r.store, r.keeper, r.policy, r.log, &guard.Options{SearchPerHour: 1 << 30})
	require.NoError(t, err)
	r.customers, err = guard.For[*crm.Customer](t.Context(), r.guard, nil)
	require.NoError(t, err)
	w.employees, err = guard.For[*crm.Employee](t.Context(), r.guard, nil)
	require.NoError(t, err)
	w.contracts, err = guard.For[*crm.Contract](t.Context(), r.guard, nil)
	require.NoError(t, err)
	return w
}

// onStores runs a test in memory and on SQLite. There is no grace before an erasure.
func onStores(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("memory", func(t *testing.T) {
		test(t, newWorld(t, newRigOn(t, memstore.New(), keys.NewMemory(), &encrypt.Options{Grace: -1})))
	})
	t.Run("SQLite", func(t *testing.T) { test(t, onSQLite(t)) })
}

func onSQLite(t testing.TB) *world {
	t.Helper()
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "crm.db"))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, errors.Join(r.Close(), w.Close())) })
	rows, err := sqlstore.Open(t.Context(), w, r, dialect.SQLite)
	require.NoError(t, err)
	keyStore, err := keystore.Open(t.Context(), w, "sqlite", &keystore.Options{Reads: r})
	require.NoError(t, err)
	return newWorld(t, newRigOn(t, rows, keyStore, &encrypt.Options{Grace: -1}))
}

// BenchmarkReseal is a pass over 2,000 customers on SQLite, each with a person of its own.
func BenchmarkReseal(b *testing.B) {
	w := onSQLite(b)
	w.fill(b, 2000)
	for b.Loop() {
		b.StopTimer()
		_, err := w.keeper.Renew(b.Context(), "default")
		require.NoError(b, err)
		b.StartTimer()
		n, err := w.customers.Reseal(b.Context(), admin, nil)
		require.NoError(b, err)
		require.Equal(b, 2000, n)
		b.StopTimer()
		w.reseal(b)
		require.NoError(b, w.keeper.Retire(b.Context(), "default", nil))
		b.StartTimer()
	}
	b.ReportMetric(2000*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// system is the caller of the program's own acts.
var system = as("system", "system", "")

// fill makes n customers and half as many employees.
func (w *world) fill(t testing.TB, n int) (customers, employees []crm.UUID) {
	t.Helper()
	var cs []*crm.Customer
	var es []*crm.Employee
	for i := range n {
		cs = append(cs, customer(fmt.Sprintf("华东精密 %04d", i), fmt.Sprintf("138%08d", i), fmt.Sprintf("c%d@example.com", i)))
		if i%2 == 0 {
			es = append(es, employee(i))
		}
	}
	for from := 0; from < n; from += guard.MaxBatch {
		errs, err := w.customers.CreateAll(t.Context(), admin, cs[from:min(n, from+guard.MaxBatch)])
		require.NoError(t, errors.Join(append(errs, err)...))
	}
	errs, err := w.employees.CreateAll(t.Context(), system, es)
	require.NoError(t, errors.Join(append(errs, err)...))
	for _, c := range cs {
		customers = append(customers, c.ID.UUID())
	}
	for _, e := range es {
		employees = append(employees, e.ID.UUID())
	}
	return customers, employees
}

func employee(i int) *crm.Employee {
	return &crm.Employee{
		Name: crm.NewText("Lin Mei"), Email: crm.NewText(fmt.Sprintf("e%d@example.com", i)), State: crm.EmployeeActive,
		Meta: crm.Meta[crm.Employee]{Team: "/east/"},
	}
}

// pass reseals all three types once.
func (w *world) pass(ctx context.Context) (changed int, err error) {
	var errs []error
	for _, reseal := range []func(context.Context, guard.Caller, func(int)) (int, error){
		w.customers.Reseal, w.employees.Reseal, w.contracts.Reseal,
	} {
		n, err := reseal(ctx, admin, nil)
		changed += n
		errs = append(errs, err)
	}
	return changed, errors.Join(errs...)
}

// reseal makes passes until one changes nothing.
func (w *world) reseal(t testing.TB) (changed int) {
	t.Helper()
	for range 100 {
		n, err := w.pass(t.Context())
		require.NoError(t, err)
		if changed += n; n == 0 {
			return changed
		}
	}
	t.Fatal("a hundred passes have changed something")
	return 0
}

// verify compares rows and log.
func (w *world) verify(t testing.TB) guard.CheckReport {
	t.Helper()
	var schemas []crm.Schema
	for _, schema := range []func(*guard.TypeOptions) (crm.Schema, error){
		guard.Schema[*crm.Customer], guard.Schema[*crm.Employee], guard.Schema[*crm.Contract],
	} {
		s, err := schema(nil)
		require.NoError(t, err)
		schemas = append(schemas, s)
	}
	c := guard.NewCheck("default", schemas...)
	for e, err := range w.log.Events(t.Context(), 0) {
		require.NoError(t, err)
		c.Event(e)
	}
	report, err := c.Rows(t.Context(), w.store.Store, w.keeper)
	require.NoError(t, err)
	return report
}

// rows returns all stored rows of a type.
func (w *world) rows(t testing.TB, typ string) map[crm.UUID]crm.Row {
	t.Helper()
	out := map[crm.UUID]crm.Row{}
	q := crm.Query{Tenant: "default", Type: typ, Where: crm.Everything{}, Deletion: crm.LivingAndBin, Limit: 1000}
	for {
		p, err := w.store.Store.List(t.Context(), q)
		require.NoError(t, err)
		for _, row := range p.Rows {
			out[row.ID] = row
		}
		if q.After = p.Next; q.After == "" {
			return out
		}
	}
}

func TestReseal(t *testing.T) {
	onStores(t, func(t *testing.T, w *world) {
		customers, employees := w.fill(t, 1020)
		signatory := crm.NewID[crm.Person]()
		contract, err := w.contracts.Create(t.Context(), system, &crm.Contract{
			Number: "C-1", Customer: crm.ID[crm.Customer](customers[0]), SignatoryPerson: signatory, Signatory: crm.NewText("王芳"),
			Currency: "CNY", State: crm.ContractDraft, Note: crm.NewText("by mail"),
		})
		require.NoError(t, err)
		require.NoError(t, w.customers.Delete(t.Context(), admin, customers[1], 1))
		erased := w.raw(t, customers[2]).Persons[0]
		_, err = w.keeper.Erase(t.Context(), "default", erased, nil)
		require.NoError(t, err)
		before := w.rows(t, crm.TypeCustomer)
		log := w.log.Size()

		n, err := w.pass(t.Context())
		require.NoError(t, err)
		assert.Zero(t, n, "everything is as it should be")
		assert.Equal(t, before, w.rows(t, crm.TypeCustomer), "nothing is written then")
		assert.Equal(t, log+3, w.log.Size(), "nor announced")

		generation, err := w.keeper.Renew(t.Context(), "default")
		require.NoError(t, err)
		assert.EqualValues(t, 2, generation)
		last := 0
		n, err = w.customers.Reseal(t.Context(), admin, func(done int) {
			assert.Greater(t, done, last)
			last = done
		})
		require.NoError(t, err)
		assert.Equal(t, 1020, last)
		assert.Equal(t, 1019, n, "all but the erased one, the bin too")
		assert.Equal(t, len(employees)+1, w.reseal(t))
		assert.True(t, w.verify(t).OK())
		for id, row := range w.rows(t, crm.TypeCustomer) {
			old := before[id]
			if id == customers[2] {
				assert.Equal(t, old, row, "an erased person's record stays as it is")
				continue
			}
			require.Equal(t, old.Version+1, row.Version)
			require.Equal(t, old.Clear, row.Clear)
			require.Equal(t, old.Persons, row.Persons)
			require.Equal(t, old.Deleted, row.Deleted)
			require.Len(t, row.Sealed, len(old.Sealed))
			for i := range row.Sealed {
				require.NotEqual(t, old.Sealed[i].Data, row.Sealed[i].Data)
				require.Subset(t, row.Sealed[i].Tokens, old.Sealed[i].Tokens, "found by the tokens of both generations")
			}
		}

		require.NoError(t, w.keeper.Retire(t.Context(), "default", nil))
		assert.Equal(t, 1019+len(employees), w.reseal(t), "the tokens of the old generation go; the contract has none")
		for id, row := range w.rows(t, crm.TypeCustomer) {
			for i := range row.Sealed {
				if id != customers[2] {
					require.Len(t, row.Sealed[i].Tokens, len(before[id].Sealed[i].Tokens))
				}
			}
		}
		v, err := w.customers.Get(t.Context(), admin, customers[7])
		require.NoError(t, err)
		assert.Equal(t, "华东精密 0007", v.Value.Name.Expose())
		assert.EqualValues(t, 3, v.Value.Version)
		p, err := w.customers.Search(t.Context(), manager, "13800000008", 5, "phone")
		require.NoError(t, err)
		assert.Empty(t, p.Items, "another team's")
		p, err = w.customers.Search(t.Context(), admin, "13800000008", 5, "phone")
		require.NoError(t, err)
		assert.Len(t, p.Items, 1)
		require.NoError(t, w.customers.Restore(t.Context(), admin, customers[1], 4))
		v, err = w.customers.Get(t.Context(), admin, customers[2])
		require.NoError(t, err)
		assert.Equal(t, crm.Erased, v.Value.Name.State())
		c, err := w.contracts.Get(t.Context(), system, contract.Value.ID.UUID())
		require.NoError(t, err)
		assert.Equal(t, "by mail", c.Value.Note.Expose())
		_, err = w.employees.Create(t.Context(), system, employee(4))
		require.ErrorIs(t, err, crm.ErrDuplicate)
		assert.True(t, w.verify(t).OK())
		// An old state that is put back is under a key that has ended.
		old := before[customers[9]]
		w.store.bend = func(rows []crm.Row) {
			for i := range rows {
				if rows[i].ID == old.ID {
					rows[i] = old
				}
			}
		}
		_, err = w.customers.Get(t.Context(), admin, old.ID)
		require.ErrorIs(t, err, encrypt.ErrRetired)
	})
}

// TestResealBesideReadersAndWriters: a whole renewal while others read, search, write and create.
func TestResealBesideReadersAndWriters(t *testing.T) {
	onStores(t, func(t *testing.T, w *world) {
		customers, employees := w.fill(t, 120)
		ctx := t.Context()
		var over atomic.Bool
		defer over.Store(true)
		var wg sync.WaitGroup
		var reads, writes, created atomic.Int64
		cities := make([]string, 30) // of the customers that a writer has, the last that was acknowledged
		loop := func(step func(i int) error) {
			wg.Go(func() {
				for i := 0; !over.Load(); i++ {
					if err := step(i); err != nil {
						t.Errorf("step %d: %v", i, err)
						return
					}
				}
			})
		}
		loop(func(i int) error {
			v, err := w.customers.Get(ctx, admin, customers[i%len(customers)])
			if err == nil && v.Value.Name.Expose() != fmt.Sprintf("华东精密 %04d", i%len(customers)) {
				return errors.New("another name")
			}
			reads.Add(1)
			return err
		})
		loop(func(i int) error {
			i = i * 7 % len(customers)
			p, err := w.customers.Search(ctx, admin, fmt.Sprintf("138%08d", i), 5, "phone")
			if err == nil && len(p.Items) != 1 {
				return fmt.Errorf("%d found", len(p.Items))
			}
			if err == nil {
				p, err = w.customers.List(ctx, admin, guard.Query{Limit: 50})
			}
			if err == nil && len(p.Items) != 50 {
				return fmt.Errorf("%d listed", len(p.Items))
			}
			reads.Add(2)
			return err
		})
		loop(func(i int) error {
			at := i % len(cities)
			for {
				v, err := w.customers.Get(ctx, admin, customers[at])
				if err != nil {
					return err
				}
				v.Value.City = fmt.Sprint("city ", i)
				_, err = w.customers.Update(ctx, admin, v.Value)
				switch {
				case err == nil:
					cities[at] = v.Value.City
					writes.Add(1)
					return nil
				case !errors.Is(err, crm.ErrConflict): // the reseal was quicker
					return err
				}
			}
		})
		loop(func(i int) error {
			_, err := w.employees.Create(ctx, system, employee(i%120/2*2)) // one that exists
			if !errors.Is(err, crm.ErrDuplicate) {
				return fmt.Errorf("an e-mail that is taken: %w", err)
			}
			if i%10 == 0 {
				_, err = w.employees.Create(ctx, system, employee(10_001+2*i))
				created.Add(1)
				return err
			}
			return nil
		})
		for range 2 { // generations
			_, err := w.keeper.Renew(ctx, "default")
			require.NoError(t, err)
			w.reseal(t)
			require.NoError(t, w.keeper.Retire(ctx, "default", nil))
			w.reseal(t)
		}
		over.Store(true)
		wg.Wait()
		t.Logf("%d reads, %d writes, %d employees beside it", reads.Load(), writes.Load(), created.Load())
		w.reseal(t)
		assert.True(t, w.verify(t).OK())
		for i, id := range customers {
			v, err := w.customers.Get(t.Context(), admin, id)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("c%d@example.com", i), v.Value.Email.Expose())
			if i < len(cities) && cities[i] != "" {
				require.Equal(t, cities[i], v.Value.City, "a newer write was lost")
			}
		}
		seen := map[string]bool{}
		for id := range w.rows(t, crm.TypeEmployee) {
			v, err := w.employees.Get(t.Context(), system, id)
			require.NoError(t, err)
			require.False(t, seen[v.Value.Email.Expose()], "an e-mail twice")
			seen[v.Value.Email.Expose()] = true
		}
		assert.GreaterOrEqual(t, len(seen), len(employees))
	})
}

// TestResealForged: a forged row is named and left; all others are resealed.
func TestResealForged(t *testing.T) {
	onStores(t, func(t *testing.T, w *world) {
		customers, _ := w.fill(t, 30)
		_, err := w.keeper.Renew(t.Context(), "default")
		require.NoError(t, err)
		w.store.bend = func(rows []crm.Row) {
			for i := range rows {
				if rows[i].ID == customers[3] {
					rows[i].Deleted = !rows[i].Deleted
				}
			}
		}
		for i, want := range []int{29, 0} {
			n, err := w.customers.Reseal(t.Context(), admin, nil)
			require.ErrorIs(t, err, guard.ErrForged)
			assert.ErrorContains(t, err, customers[3].String())
			assert.Equal(t, want, n, "pass %d", i)
		}
		w.store.bend = nil
		n, err := w.customers.Reseal(t.Context(), admin, nil)
		require.NoError(t, err)
		assert.Equal(t, 1, n)
		assert.True(t, w.verify(t).OK())

		// The error names some rows, however many there are.
		w.store.bend = func(rows []crm.Row) {
			for i := range rows {
				rows[i].MAC = nil
			}
		}
		_, err = w.customers.Reseal(t.Context(), admin, nil)
		require.ErrorIs(t, err, guard.ErrForged)
		assert.ErrorContains(t, err, "and 10 more")
	})
}

// TestResealBlocked: what is blocked waits, and keeps the old generation from ending.
func TestResealBlocked(t *testing.T) {
	r := newRig(t) // its erasures have a grace
	v := r.add(t, admin, "A", "13800135678", "a@example.com")
	r.add(t, admin, "B", "13800135679", "b@example.com")
	person := [16]byte(r.raw(t, v.Value.ID.UUID()).Persons[0])
	_, err := r.keeper.Erase(t.Context(), "default", person, nil)
	require.NoError(t, err)
	_, err = r.keeper.Renew(t.Context(), "default")
	require.NoError(t, err)
	for _, want := range []int{1, 0} {
		n, err := r.customers.Reseal(t.Context(), admin, nil)
		require.NoError(t, err)
		assert.Equal(t, want, n)
	}
	require.ErrorIs(t, r.keeper.Retire(t.Context(), "default", nil), encrypt.ErrBlocked)
	require.NoError(t, r.keeper.Spare(t.Context(), "default", person))
	n, err := r.customers.Reseal(t.Context(), admin, nil)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	require.NoError(t, r.keeper.Retire(t.Context(), "default", nil))
	got, err := r.customers.Get(t.Context(), admin, v.Value.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, "A", got.Value.Name.Expose())
	assert.True(t, r.check(t, false).OK())
}

func TestResealRefused(t *testing.T) {
	r := newRig(t)
	r.add(t, admin, "A", "13800135678", "")
	_, err := r.keeper.Renew(t.Context(), "default")
	require.NoError(t, err)
	var de *authz.DeniedError
	for _, c := range []guard.Caller{sales, manager, auditor, support} {
		_, err := r.customers.Reseal(t.Context(), c, nil)
		require.ErrorAs(t, err, &de)
		assert.Equal(t, audit.Denied, r.last(t).Outcome)
	}
	stranger := admin
	stranger.Subject.Tenant = "elsewhere"
	if n, err := r.customers.Reseal(t.Context(), stranger, nil); err == nil {
		assert.Zero(t, n, "another tenant's records")
	}
	down := errors.New("down")
	r.log.fail = down
	_, err = r.customers.Reseal(t.Context(), admin, nil)
	require.ErrorIs(t, err, down, "no log, no write")
	r.log.fail = nil
	r.store.apply = func(crm.Batch) error { return crm.ErrUnavailable }
	n, err := r.customers.Reseal(t.Context(), admin, nil)
	require.ErrorIs(t, err, crm.ErrUnavailable)
	assert.Zero(t, n)
	assert.Equal(t, audit.Aborted, r.last(t).Outcome)
	r.store.apply = nil
	n, err = r.customers.Reseal(t.Context(), admin, nil)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	assert.True(t, r.check(t, false).OK())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.customers.Reseal(ctx, admin, nil)
	require.ErrorIs(t, err, context.Canceled)
}

// TestResealConflicts: rows that others write between reading and writing are read again, in ever smaller
// batches.
func TestResealConflicts(t *testing.T) {
	r := newRig(t)
	var ids []crm.UUID
	for i := range 20 {
		ids = append(ids, r.add(t, admin, fmt.Sprint("A", i), "", "").Value.ID.UUID())
	}
	_, err := r.keeper.Renew(t.Context(), "default")
	require.NoError(t, err)
	batches, hot := 0, 0
	r.store.apply = func(b crm.Batch) error {
		if batches++; hot < 40 {
			hot++ // somebody else is quicker, whatever the batch
			return &crm.WriteError{Index: len(b.Writes) - 1, Err: crm.ErrConflict}
		}
		return nil
	}
	n, err := r.customers.Reseal(t.Context(), admin, nil)
	require.NoError(t, err)
	assert.Equal(t, 20, n)
	assert.Greater(t, batches, 40)
	r.store.apply = func(b crm.Batch) error {
		for i := range b.Writes {
			if b.Writes[i].Row.ID == ids[4] {
				return &crm.WriteError{Index: i, Err: crm.ErrDuplicate}
			}
		}
		return nil
	}
	require.NoError(t, r.keeper.Retire(t.Context(), "default", nil))
	n, err = r.customers.Reseal(t.Context(), admin, nil)
	require.ErrorIs(t, err, crm.ErrDuplicate)
	assert.ErrorContains(t, err, ids[4].String())
	assert.Equal(t, 19, n)
	r.store.apply = nil
	assert.True(t, r.check(t, false).OK())
}
