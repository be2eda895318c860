package encrypttest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
)

func keyID(n uint64) (id keys.ID) {
	binary.BigEndian.PutUint64(id[:], n)
	return id
}

func personID(n uint64) (id [16]byte) {
	binary.BigEndian.PutUint64(id[8:], n)
	return id
}

var created = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func epochRecord(id uint64, version uint32) keys.Record {
	return keys.Record{ID: keyID(id), Kind: keys.EpochKey, Version: version, Purpose: "kek", Wrapped: []byte("epoch"), Created: created}
}

func personRecord(id, person, epoch uint64) keys.Record {
	return keys.Record{
		ID: keyID(id), Kind: keys.PersonKey, Person: personID(person), Retention: keys.Ordinary, Epoch: keyID(epoch),
		Wrapped: fmt.Appendf(nil, "wrapped %d", id), Commitment: []byte("commitment"), Created: created,
	}
}

func tombRecord(id uint64) keys.Record {
	return keys.Record{ID: keyID(id), Kind: keys.Tombstone, Retention: keys.Ordinary, Wrapped: []byte("mac"), Commitment: []byte("owner"), Created: created}
}

// TestKeyStore checks a KeyStore. open returns an empty store each time.
func TestKeyStore(t *testing.T, open func(testing.TB) keys.Store) {
	ctx := context.Background()
	const tenant = "acme"
	add := func(t *testing.T, s keys.Store, records ...keys.Record) {
		t.Helper()
		if err := s.Add(ctx, tenant, records); err != nil {
			t.Fatalf("add: %v", err)
		}
	}
	find := func(t *testing.T, s keys.Store, q keys.Query) []keys.Record {
		t.Helper()
		got, err := s.Find(ctx, tenant, q)
		if err != nil {
			t.Fatalf("find: %v", err)
		}
		return got
	}
	ids := func(records []keys.Record) (out []uint64) {
		for _, r := range records {
			out = append(out, binary.BigEndian.Uint64(r.ID[:]))
		}
		return out
	}
	want := func(t *testing.T, got []keys.Record, ns ...uint64) {
		t.Helper()
		if !reflect.DeepEqual(ids(got), ns) {
			t.Fatalf("got keys %v, want %v", ids(got), ns)
		}
	}
	t.Run("keeps every field", func(t *testing.T) {
		s := open(t)
		r := personRecord(0xfedcba9876543210, 5, 1)
		r.Retention = keys.Tax
		r.Wrapped = []byte{0, 1, 0xff, 0}
		add(t, s, epochRecord(1, 1), r)
		r.Tenant = tenant
		got := find(t, s, keys.Query{IDs: []keys.ID{r.ID, r.ID, keyID(99)}})
		if len(got) != 1 || !reflect.DeepEqual(got[0], r) {
			t.Fatalf("got %+v, want %+v", got, r)
		}
	})
	t.Run("queries", func(t *testing.T) {
		s := open(t)
		root := keys.Record{ID: keyID(2), Kind: keys.TenantKey, Version: 1, Purpose: "index", Epoch: keyID(1), Wrapped: []byte("w"), Created: created}
		contract := personRecord(13, 100, 1)
		contract.Retention = keys.Contract
		add(t, s, epochRecord(1, 1), root, personRecord(11, 100, 1), personRecord(12, 200, 1), contract)
		want(t, find(t, s, keys.Query{Tenant: true}), 1, 2)
		want(t, find(t, s, keys.Query{Persons: [][16]byte{personID(100), personID(100), personID(7)}}), 11, 13)
		want(t, find(t, s, keys.Query{All: true}), 1, 2, 11, 12, 13)
		want(t, find(t, s, keys.Query{All: true, Under: keyID(1), After: keyID(2), Limit: 2}), 11, 12)
		want(t, find(t, s, keys.Query{All: true, After: keyID(13)}))
		want(t, find(t, s, keys.Query{IDs: []keys.ID{}}))
		want(t, find(t, s, keys.Query{Persons: [][16]byte{}}))
	})
	t.Run("tenants do not meet", func(t *testing.T) {
		s := open(t)
		add(t, s, epochRecord(1, 1), personRecord(11, 100, 1))
		for _, q := range []keys.Query{{IDs: []keys.ID{keyID(11)}}, {Persons: [][16]byte{personID(100)}}, {Tenant: true}, {All: true}, {Since: 0}} {
			if got, err := s.Find(ctx, "other", q); err != nil || len(got) != 0 {
				t.Fatalf("another tenant found %v, %v", got, err)
			}
		}
		if err := s.Add(ctx, "other", []keys.Record{epochRecord(1, 1), personRecord(11, 100, 1)}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Erase(ctx, "other", []keys.Record{tombRecord(11)}); err != nil {
			t.Fatal(err)
		}
		if got := find(t, s, keys.Query{IDs: []keys.ID{keyID(11)}}); got[0].Kind != keys.PersonKey {
			t.Fatal("an erasure reached another tenant")
		}
		if n, _ := s.Erasures(ctx, tenant); n != 1 {
			t.Fatalf("erasure number %d", n)
		}
	})
	t.Run("the first one stays", func(t *testing.T) {
		s := open(t)
		add(t, s, epochRecord(1, 1), personRecord(11, 100, 1))
		sameID, sameSlot := personRecord(11, 300, 1), personRecord(12, 100, 1)
		add(t, s, sameID, sameSlot, epochRecord(9, 1))
		want(t, find(t, s, keys.Query{All: true}), 1, 11)
		if r := find(t, s, keys.Query{IDs: []keys.ID{keyID(11)}})[0]; r.Person != personID(100) {
			t.Fatal("a record was replaced")
		}
	})
	t.Run("retired epochs wrap nothing", func(t *testing.T) {
		s := open(t)
		add(t, s, epochRecord(1, 1), personRecord(11, 100, 1))
		add(t, s, epochRecord(2, 2))
		if n, err := s.Retire(ctx, tenant, keyID(1)); err != nil || n != 1 {
			t.Fatalf("retired an epoch in use: %d, %v", n, err)
		}
		moved := personRecord(11, 100, 2)
		moved.Wrapped = []byte("rewrapped")
		ghost := personRecord(77, 700, 2)
		if err := s.Rewrap(ctx, tenant, []keys.Record{moved, ghost}); err != nil {
			t.Fatal(err)
		}
		want(t, find(t, s, keys.Query{All: true, Under: keyID(2)}), 11)
		if n, err := s.Retire(ctx, tenant, keyID(1)); err != nil || n != 0 {
			t.Fatalf("retire: %d, %v", n, err)
		}
		if r := find(t, s, keys.Query{IDs: []keys.ID{keyID(1)}}); len(r) != 1 || len(r[0].Wrapped) != 0 {
			t.Fatal("a retired epoch key is still there")
		}
		if err := s.Add(ctx, tenant, []keys.Record{personRecord(13, 300, 2), personRecord(12, 200, 1)}); !errors.Is(err, encrypt.ErrRetired) {
			t.Fatalf("add under a retired epoch: %v", err)
		}
		if err := s.Add(ctx, tenant, []keys.Record{personRecord(12, 200, 55)}); !errors.Is(err, encrypt.ErrRetired) {
			t.Fatalf("add under an unknown epoch: %v", err)
		}
		if err := s.Rewrap(ctx, tenant, []keys.Record{personRecord(11, 100, 1)}); !errors.Is(err, encrypt.ErrRetired) {
			t.Fatalf("rewrap under a retired epoch: %v", err)
		}
		want(t, find(t, s, keys.Query{All: true}), 1, 2, 11)
	})
	t.Run("erasure", func(t *testing.T) {
		s := open(t)
		add(t, s, epochRecord(1, 1), personRecord(11, 100, 1), personRecord(12, 200, 1))
		if n, err := s.Erasures(ctx, tenant); err != nil || n != 1 {
			t.Fatalf("erasure number %d, %v; want 1", n, err)
		}
		n, err := s.Erase(ctx, tenant, []keys.Record{tombRecord(11), tombRecord(55)})
		if err != nil || n != 2 {
			t.Fatalf("erase: %d, %v", n, err)
		}
		got := find(t, s, keys.Query{IDs: []keys.ID{keyID(11)}})
		tomb := tombRecord(11)
		tomb.Tenant, tomb.Number = tenant, 2
		if len(got) != 1 || !reflect.DeepEqual(got[0], tomb) {
			t.Fatalf("got %+v, want %+v", got, tomb)
		}
		want(t, find(t, s, keys.Query{Persons: [][16]byte{personID(100)}}))
		want(t, find(t, s, keys.Query{Since: 1}), 11, 55)
		want(t, find(t, s, keys.Query{Since: 2}))
		// Neither an import nor a rotation brings a destroyed key back.
		add(t, s, personRecord(11, 100, 1), personRecord(55, 500, 1))
		if err := s.Rewrap(ctx, tenant, []keys.Record{personRecord(11, 100, 1)}); err != nil {
			t.Fatal(err)
		}
		for _, r := range find(t, s, keys.Query{IDs: []keys.ID{keyID(11), keyID(55)}}) {
			if r.Kind != keys.Tombstone {
				t.Fatal("a destroyed key came back")
			}
		}
		if n, err := s.Erase(ctx, tenant, []keys.Record{tombRecord(11)}); err != nil || n != 2 {
			t.Fatalf("erasing twice: %d, %v; want 2", n, err)
		}
		// An epoch key is nobody's: a tombstone does not take its place.
		if n, err := s.Erase(ctx, tenant, []keys.Record{tombRecord(1)}); err != nil || n != 2 {
			t.Fatalf("erasing an epoch key: %d, %v", n, err)
		}
		// The person may come back, with a new key.
		add(t, s, personRecord(21, 100, 1))
		want(t, find(t, s, keys.Query{Persons: [][16]byte{personID(100)}}), 21)
		if err := s.Add(ctx, tenant, []keys.Record{tombRecord(90)}); err == nil {
			t.Fatal("Add took a tombstone")
		}
	})
	t.Run("two writers agree", func(t *testing.T) {
		s := open(t)
		add(t, s, epochRecord(1, 1))
		var wg sync.WaitGroup
		for w := range uint64(4) {
			wg.Go(func() {
				var batch []keys.Record
				for p := range uint64(50) {
					batch = append(batch, personRecord(1000*(w+1)+p, (p*7+w)%50, 1))
				}
				if err := s.Add(ctx, tenant, batch); err != nil {
					t.Errorf("add: %v", err)
				}
			})
		}
		wg.Wait()
		if n := len(find(t, s, keys.Query{All: true, Under: keyID(1)})); n != 50 {
			t.Fatalf("%d keys for 50 persons", n)
		}
	})
	t.Run("many", func(t *testing.T) {
		s := open(t)
		batch := []keys.Record{epochRecord(1, 1)}
		var persons [][16]byte
		for i := range uint64(1200) {
			batch = append(batch, personRecord(10+i, i, 1))
			persons = append(persons, personID(i))
		}
		add(t, s, batch...)
		if n := len(find(t, s, keys.Query{Persons: persons})); n != 1200 {
			t.Fatalf("found %d of 1200", n)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		s := open(t)
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := s.Find(gone, tenant, keys.Query{All: true}); !errors.Is(err, context.Canceled) {
			t.Fatalf("find: %v", err)
		}
		if err := s.Add(gone, tenant, []keys.Record{epochRecord(1, 1)}); !errors.Is(err, context.Canceled) {
			t.Fatalf("add: %v", err)
		}
		if _, err := s.Erase(gone, tenant, []keys.Record{tombRecord(1)}); !errors.Is(err, context.Canceled) {
			t.Fatalf("erase: %v", err)
		}
	})
}
