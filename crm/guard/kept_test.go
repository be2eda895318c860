package guard_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/encrypt"
)

// tallyStore counts how often the store has counted, and fails when told to.
type tallyStore struct {
	crm.Store
	mu    sync.Mutex
	times int
	fail  error
}

func (s *tallyStore) Group(ctx context.Context, q crm.Query, g crm.Grouping) ([]crm.Group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.times++; s.fail != nil {
		return nil, s.fail
	}
	return s.Store.Group(ctx, q, g)
}

// TestStaleNumbers: numbers that may be old are counted once in that time, for who may see the same rows; every reading is decided on and logged.
func TestStaleNumbers(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	var err error
	r.guard, _, err = guard.New(t.Context(), r.store, r.keeper, r.policy, r.log, &guard.Options{Clock: func() time.Time { return now }})
	require.NoError(t, err)
	r.customers, err = guard.For[*crm.Customer](t.Context(), r.guard, &guard.TypeOptions{Type: crm.TypeCustomer})
	require.NoError(t, err)
	ctx := t.Context()
	counted := &tallyStore{Store: r.store.Store}
	r.store.Store = counted
	add := func(n int) {
		for i := range n {
			v := customer(fmt.Sprintf("N%d", i), fmt.Sprintf("1380000%04d", i), "")
			v.City, v.OpenValue, v.Currency = "Shanghai", 10, "CNY"
			_, err := r.customers.Create(ctx, sales, v)
			require.NoError(t, err)
		}
	}
	add(6)
	q := guard.Grouping{By: []string{"city"}, Sums: []string{"open_value"}, Stale: time.Minute}
	ask := func(c guard.Caller, q guard.Grouping, records int64, scans int) guard.Groups {
		t.Helper()
		got, err := r.customers.Group(ctx, c, q)
		require.NoError(t, err)
		var n int64
		for _, g := range got.Groups {
			n += g.Count
		}
		assert.Equal(t, records, n)
		assert.Equal(t, scans, counted.times)
		e := r.last(t)
		assert.Equal(t, "customer.aggregate", e.Action)
		assert.Equal(t, c.Subject.ID, e.Actor)
		return got
	}
	first := ask(manager, q, 6, 1)
	add(2)
	now = now.Add(59 * time.Second)
	again := ask(manager, q, 6, 1)
	assert.Equal(t, first.At, again.At, "it says of when it is")
	assert.Greater(t, again.Event, first.Event, "and it is a reading of its own")
	again.Groups[0].Sums[0], again.Groups[0].Keys[0] = -1, crm.StringValue("elsewhere") // what the caller does to it is theirs
	assert.Equal(t, first.Groups, ask(manager, q, 6, 1).Groups)

	// Whoever sees other rows, asks something else, or wants it new, gets what is theirs.
	west := as("manager", crm.NewUUID().String(), "/west/")
	ask(west, q, 0, 2)
	other := q
	other.Sums = nil
	ask(manager, other, 8, 3)
	other = q
	other.Clauses = []crm.Clause{{Column: "city", Op: crm.NotEqual, Values: []crm.Value{crm.StringValue("Paris")}}}
	ask(manager, other, 8, 4)
	other.Clauses = []crm.Clause{{Column: "city", Op: crm.Equal, Values: []crm.Value{crm.StringValue("Paris")}}}
	ask(manager, other, 0, 5)
	other = q
	other.Stale = 0
	ask(manager, other, 8, 6)
	now = now.Add(2 * time.Second)
	ask(manager, q, 8, 7)

	// A kept answer is no way past the policy and the log.
	_, err = r.customers.Group(ctx, sales, q)
	denied(t, err, "access.granted")
	for _, bad := range []guard.Grouping{{By: []string{"phone"}, Stale: time.Hour}, {Sums: []string{"id_number"}, Stale: time.Hour}} {
		_, err := r.customers.Group(ctx, manager, bad)
		require.ErrorIs(t, err, encrypt.ErrUnsupported)
	}
	r.log.fail = errors.New("the disk is full")
	_, err = r.customers.Group(ctx, manager, q)
	require.ErrorIs(t, err, r.log.fail)
	r.log.fail = nil

	// A failure is kept for nobody.
	now = now.Add(2 * time.Minute)
	counted.fail = errors.New("the database is away")
	for range 2 {
		_, err = r.customers.Group(ctx, manager, q)
		require.ErrorIs(t, err, counted.fail)
	}
	counted.fail = nil
	ask(manager, q, 8, 10)
}

// TestStaleNumbersAtOnce: many who ask for the same at once are one scan, and who gives up does not hold the others.
func TestStaleNumbersAtOnce(t *testing.T) {
	r := newRig(t)
	counted := &tallyStore{Store: r.store.Store}
	r.store.Store = counted
	for i := range 5 {
		r.add(t, sales, "N", fmt.Sprintf("1380000%04d", i), "")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			ctx := t.Context()
			if i%4 == 3 {
				ctx = gone
			}
			got, err := r.customers.Group(ctx, manager, guard.Grouping{Stale: time.Hour})
			if err == nil && (len(got.Groups) != 1 || got.Groups[0].Count != 5) {
				t.Errorf("%+v", got.Groups)
			}
			if err != nil && i%4 != 3 {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	counted.mu.Lock()
	defer counted.mu.Unlock()
	if counted.times > 4 { // one, and those that were begun for who had gone
		t.Errorf("counted %d times", counted.times)
	}
}
