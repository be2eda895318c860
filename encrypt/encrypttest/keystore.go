package encrypttest

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

func tenantRecord(id uint64, purpose string, version uint32, epoch uint64) keys.Record {
	return keys.Record{
		ID: keyID(id), Kind: keys.TenantKey, Version: version, Purpose: purpose, Epoch: keyID(epoch),
		Wrapped: fmt.Appendf(nil, "wrapped %d", id), Commitment: []byte("commitment"), Created: created,
	}
}

func joinRecord(id, person, other uint64) keys.Record {
	p := personID(other)
	return keys.Record{
		ID: keyID(id), Kind: keys.Join, Person: personID(person), Purpose: hex.EncodeToString(p[:]),
		Wrapped: []byte("mac"), Created: created,
	}
}

func tombRecord(id uint64) keys.Record {
	return keys.Record{ID: keyID(id), Kind: keys.Tombstone, Retention: keys.Ordinary, Wrapped: []byte("mac"), Commitment: []byte("owner"), Created: created}
}

// storeTest is one store under test.
type storeTest struct {
	*testing.T
	store keys.Store
}

const tenant, neighbour = "acme", "other"

func (t storeTest) add(records ...keys.Record) {
	t.Helper()
	if err := t.store.Add(t.Context(), tenant, records); err != nil {
		t.Fatalf("add: %v", err)
	}
}

func (t storeTest) find(q keys.Query) []keys.Record {
	t.Helper()
	got, err := t.store.Find(t.Context(), tenant, q)
	if err != nil {
		t.Fatalf("find: %v", err)
	}
	return got
}

// one returns the record with this id.
func (t storeTest) one(id uint64) keys.Record {
	t.Helper()
	got := t.find(keys.Query{IDs: []keys.ID{keyID(id)}})
	if len(got) != 1 {
		t.Fatalf("%d records with id %d", len(got), id)
	}
	return got[0]
}

// want finds exactly these ids, in this order.
func (t storeTest) want(q keys.Query, want ...uint64) {
	t.Helper()
	var got []uint64
	for _, r := range t.find(q) {
		got = append(got, binary.BigEndian.Uint64(r.ID[:]))
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got keys %v, want %v", got, want)
	}
}

// number checks the erasure number.
func (t storeTest) number(want uint64) {
	t.Helper()
	if n, err := t.store.Erasures(t.Context(), tenant); err != nil || n != want {
		t.Fatalf("erasure number %d, %v; want %d", n, err, want)
	}
}

func (t storeTest) retire(ids ...uint64) int {
	t.Helper()
	var all []keys.ID
	for _, id := range ids {
		all = append(all, keyID(id))
	}
	n, err := t.store.Retire(t.Context(), tenant, all...)
	if err != nil {
		t.Fatalf("retire: %v", err)
	}
	return n
}

func (t storeTest) block(at time.Time, ids ...uint64) {
	t.Helper()
	var all []keys.ID
	for _, id := range ids {
		all = append(all, keyID(id))
	}
	if err := t.store.Block(t.Context(), tenant, all, at); err != nil {
		t.Fatalf("block: %v", err)
	}
}

func (t storeTest) erase(want uint64, tombs ...keys.Record) {
	t.Helper()
	if n, err := t.store.Erase(t.Context(), tenant, tombs); err != nil || n != want {
		t.Fatalf("erase: %d, %v; want %d", n, err, want)
	}
}

func (t storeTest) rewrap(records ...keys.Record) {
	t.Helper()
	if err := t.store.Rewrap(t.Context(), tenant, records); err != nil {
		t.Fatalf("rewrap: %v", err)
	}
}

func persons(ns ...uint64) (out [][16]byte) {
	for _, n := range ns {
		out = append(out, personID(n))
	}
	return out
}

func keyIDs(ns ...uint64) (out []keys.ID) {
	for _, n := range ns {
		out = append(out, keyID(n))
	}
	return out
}

// TestKeyStore checks a keys.Store, sentence by sentence. open returns an empty store each time.
func TestKeyStore(t *testing.T, open func(testing.TB) keys.Store) {
	for _, group := range []struct {
		name  string
		tests []storeCase
	}{
		{"Find", findTests}, {"Add", addTests}, {"Rewrap", rewrapTests}, {"Retire", retireTests},
		{"Block", blockTests}, {"Erase", eraseTests}, {"Erasures", numberTests}, {"Epochs", epochTests}, {"Store", storeTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.tests {
				t.Run(c.name, func(t *testing.T) { c.run(storeTest{t, open(t)}) })
			}
		})
	}
}

type storeCase struct {
	name string
	run  func(storeTest)
}

var findTests = []storeCase{
	{"keeps every field", func(t storeTest) {
		r := personRecord(0xfedcba9876543210, 5, 1)
		r.Retention, r.Version, r.Blocked = keys.Tax, 3, created.Add(time.Hour)
		r.Wrapped = []byte{0, 1, 0xff, 0}
		t.add(epochRecord(1, 1), r)
		r.Tenant = tenant
		got := t.find(keys.Query{IDs: []keys.ID{r.ID}})
		if len(got) != 1 || !reflect.DeepEqual(got[0], r) {
			t.Fatalf("got %+v, want %+v", got, r)
		}
		j := joinRecord(7, 5, 6)
		j.Commitment = []byte("c")
		t.add(j)
		j.Tenant = tenant
		if got := t.one(7); !reflect.DeepEqual(got, j) {
			t.Fatalf("got %+v, want %+v", got, j)
		}
	}},
	{"how many were added, where the store says it", func(t storeTest) {
		store, ok := t.store.(keys.Counting)
		if !ok {
			t.Skip("it does not")
		}
		want := func(n int, wanted error, records ...keys.Record) {
			t.Helper()
			if got, err := store.AddCounted(t.Context(), tenant, records); got != n || !errors.Is(err, wanted) {
				t.Fatalf("%d, %v; want %d, %v", got, err, n, wanted)
			}
		}
		want(0, nil)
		want(3, nil, epochRecord(1, 1), personRecord(11, 100, 1), tenantRecord(2, "index", 1, 1))
		want(0, nil, epochRecord(1, 1), personRecord(11, 100, 1), tenantRecord(2, "index", 1, 1))
		want(0, nil, personRecord(12, 100, 1)) // another key for the same slot
		want(0, nil, personRecord(11, 300, 1)) // another slot under the same id
		want(2, nil, personRecord(13, 200, 1), personRecord(12, 100, 1), tenantRecord(3, "index", 2, 1), personRecord(14, 200, 1))
		want(1, nil, joinRecord(15, 100, 200))
		want(0, keys.ErrRetired, personRecord(16, 400, 1), personRecord(17, 500, 99))
		t.want(keys.Query{Persons: persons(100, 200, 300, 400, 500)}, 11, 13)
	}},
	{"what does not exist is absent", func(t storeTest) {
		t.add(epochRecord(1, 1))
		t.want(keys.Query{IDs: keyIDs(99, 1, 1)}, 1)
		t.want(keys.Query{Persons: persons(7)})
		t.want(keys.Query{Joins: persons(7)})
		t.want(keys.Query{Blocked: true})
		t.want(keys.Query{Since: 1})
	}},
	{"an empty list selects nothing", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(11, 100, 1), joinRecord(12, 100, 200))
		t.want(keys.Query{IDs: []keys.ID{}})
		t.want(keys.Query{Persons: [][16]byte{}})
		t.want(keys.Query{Joins: [][16]byte{}})
	}},
	{"by id, of any kind", func(t storeTest) {
		t.add(epochRecord(1, 1), tenantRecord(2, "index", 1, 1), personRecord(11, 100, 1), joinRecord(12, 100, 200))
		t.erase(2, tombRecord(13))
		t.want(keys.Query{IDs: keyIDs(13, 12, 11, 2, 1, 11)}, 1, 2, 11, 12, 13)
	}},
	{"by person, every retention class and generation", func(t storeTest) {
		contract, second := personRecord(13, 100, 1), personRecord(10, 100, 1)
		contract.Retention, second.Version = keys.Contract, 7
		t.add(epochRecord(1, 1), personRecord(11, 100, 1), personRecord(12, 200, 1), contract, second, joinRecord(14, 100, 200))
		t.want(keys.Query{Persons: persons(100, 100, 7)}, 10, 11, 13)
	}},
	{"joins, from either person", func(t storeTest) {
		t.add(epochRecord(1, 1), joinRecord(14, 100, 200), joinRecord(13, 300, 100), joinRecord(15, 400, 500), personRecord(11, 100, 1))
		t.want(keys.Query{Joins: persons(100)}, 13, 14)
		t.want(keys.Query{Joins: persons(200)}, 14)
		t.want(keys.Query{Joins: persons(300, 100, 300)}, 13, 14)
		t.want(keys.Query{Joins: persons(500)}, 15)
	}},
	{"epoch and tenant keys", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(11, 100, 1), tenantRecord(12, "index", 1, 1), joinRecord(14, 100, 200), epochRecord(3, 2))
		t.erase(2, tombRecord(13))
		t.retire(1)
		t.want(keys.Query{Tenant: true}, 1, 3, 12)
	}},
	{"blocked person keys", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(11, 100, 1), personRecord(12, 200, 1), personRecord(13, 300, 1))
		t.block(created, 13, 11)
		t.want(keys.Query{Blocked: true}, 11, 13)
	}},
	{"tombstones above a number", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(11, 100, 1))
		t.erase(2, tombRecord(11), tombRecord(9))
		t.erase(3, tombRecord(5))
		t.want(keys.Query{Since: 1}, 5, 9, 11)
		t.want(keys.Query{}, 5, 9, 11)
		t.want(keys.Query{Since: 2}, 5)
		t.want(keys.Query{Since: 3})
		t.want(keys.Query{Since: 1 << 40})
	}},
	{"all, by epoch, page by page", func(t storeTest) {
		t.add(epochRecord(1, 1), epochRecord(3, 2), tenantRecord(2, "index", 1, 1), personRecord(11, 100, 1), personRecord(12, 200, 3),
			personRecord(13, 300, 1), joinRecord(14, 100, 200))
		t.erase(2, tombRecord(15))
		t.want(keys.Query{All: true}, 1, 2, 3, 11, 12, 13, 14, 15)
		t.want(keys.Query{All: true, Limit: 3}, 1, 2, 3)
		t.want(keys.Query{All: true, After: keyID(3), Limit: 2}, 11, 12)
		t.want(keys.Query{All: true, After: keyID(4), Limit: 2}, 11, 12)
		t.want(keys.Query{All: true, After: keyID(15)})
		t.want(keys.Query{All: true, Under: keyID(1)}, 2, 11, 13)
		t.want(keys.Query{All: true, Under: keyID(1), After: keyID(2), Limit: 1}, 11)
		t.want(keys.Query{All: true, Under: keyID(3)}, 12)
		t.want(keys.Query{All: true, Under: keyID(99)})
	}},
	{"ids are ordered as bytes", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(1<<63, 100, 1), personRecord(255, 200, 1), personRecord(256, 300, 1))
		t.want(keys.Query{All: true}, 1, 255, 256, 1<<63)
		t.want(keys.Query{Persons: persons(100, 200, 300)}, 255, 256, 1<<63)
	}},
	{"many at once", func(t storeTest) {
		batch := []keys.Record{epochRecord(1, 1)}
		var all [][16]byte
		var ids []keys.ID
		for i := range uint64(1200) {
			batch = append(batch, personRecord(10+i, i, 1), joinRecord(5000+i, i, i+1))
			all, ids = append(all, personID(i)), append(ids, keyID(10+i))
		}
		t.add(batch...)
		for _, q := range []keys.Query{{Persons: all}, {IDs: ids}, {Joins: all}} {
			if n := len(t.find(q)); n != 1200 {
				t.Fatalf("found %d of 1200", n)
			}
		}
	}},
	{"what was found is the caller's", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(11, 100, 1))
		clear(t.one(11).Wrapped)
		if string(t.one(11).Wrapped) != "wrapped 11" {
			t.Fatal("a caller changed the store")
		}
	}},
}

var addTests = []storeCase{
	{"a taken id or slot is skipped", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(11, 100, 1), tenantRecord(2, "index", 1, 1), joinRecord(3, 100, 200))
		t.add(personRecord(11, 300, 1), personRecord(12, 100, 1), epochRecord(9, 1), tenantRecord(8, "index", 1, 1), joinRecord(7, 100, 200))
		t.want(keys.Query{All: true}, 1, 2, 3, 11)
		if t.one(11).Person != personID(100) {
			t.Fatal("a record was replaced")
		}
	}},
	{"of two in one call the first one stays", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(11, 100, 1), personRecord(11, 200, 1))
		t.add(personRecord(13, 300, 1), personRecord(13, 300, 1))
		t.want(keys.Query{All: true}, 1, 11, 13)
	}},
	{"generations and retention classes have slots of their own", func(t storeTest) {
		second, contract := personRecord(12, 100, 1), personRecord(13, 100, 1)
		second.Version, contract.Retention = 1, keys.Contract
		t.add(epochRecord(1, 1), personRecord(11, 100, 1), second, contract)
		t.want(keys.Query{Persons: persons(100)}, 11, 12, 13)
	}},
	{"two writers agree", func(t storeTest) {
		t.add(epochRecord(1, 1))
		var wg sync.WaitGroup
		for w := range uint64(4) {
			wg.Go(func() {
				var batch []keys.Record
				for p := range uint64(50) {
					batch = append(batch, personRecord(1000*(w+1)+p, (p*7+w)%50, 1))
				}
				if err := t.store.Add(t.Context(), tenant, batch); err != nil {
					t.Errorf("add: %v", err)
				}
			})
		}
		wg.Wait()
		t.want(keys.Query{Persons: persons(7)}, binary.BigEndian.Uint64(t.find(keys.Query{Persons: persons(7)})[0].ID[:]))
		if n := len(t.find(keys.Query{All: true, Under: keyID(1)})); n != 50 {
			t.Fatalf("%d keys for 50 persons", n)
		}
	}},
	{"under a retired or unknown epoch nothing is added", func(t storeTest) {
		t.add(epochRecord(1, 1), epochRecord(2, 2), personRecord(11, 100, 2))
		t.retire(1)
		for name, r := range map[string]keys.Record{
			"retired": personRecord(12, 200, 1), "unknown": personRecord(12, 200, 55), "a person key": personRecord(12, 200, 11),
			"none": personRecord(12, 200, 0), "tenant key": tenantRecord(12, "index", 2, 1),
		} {
			if err := t.store.Add(t.Context(), tenant, []keys.Record{personRecord(13, 300, 2), r}); !errors.Is(err, keys.ErrRetired) {
				t.Fatalf("%s: %v", name, err)
			}
		}
		t.want(keys.Query{All: true}, 1, 2, 11)
		t.number(1)
	}},
	{"what is here already is no matter of its epoch", func(t storeTest) {
		t.add(epochRecord(1, 1), epochRecord(2, 2), personRecord(11, 100, 2))
		t.retire(1)
		t.add(personRecord(11, 100, 1), personRecord(77, 100, 55)) // an import of an older copy
		t.want(keys.Query{All: true}, 1, 2, 11)
	}},
	{"an epoch key in the same call is one", func(t storeTest) {
		t.add(personRecord(11, 100, 1), epochRecord(1, 1))
		t.want(keys.Query{All: true}, 1, 11)
	}},
	{"joins have no epoch key", func(t storeTest) {
		t.add(joinRecord(11, 100, 200))
		t.want(keys.Query{All: true}, 11)
	}},
	{"retired keys have no epoch key either", func(t storeTest) {
		p, k, e := personRecord(11, 100, 0), tenantRecord(12, "index", 1, 0), epochRecord(1, 1)
		p.Wrapped, k.Wrapped, e.Wrapped = nil, nil, nil
		t.add(p, k, e)
		t.want(keys.Query{All: true}, 1, 11, 12)
		if err := t.store.Add(t.Context(), tenant, []keys.Record{personRecord(13, 300, 1)}); !errors.Is(err, keys.ErrRetired) {
			t.Fatalf("an epoch key that came retired: %v", err)
		}
	}},
	{"tombstones go to Erase", func(t storeTest) {
		if err := t.store.Add(t.Context(), tenant, []keys.Record{epochRecord(1, 1), tombRecord(90)}); err == nil {
			t.Fatal("Add took a tombstone")
		}
		t.want(keys.Query{All: true})
	}},
	{"a blocked time is kept", func(t storeTest) {
		r := personRecord(11, 100, 1)
		r.Blocked = created
		t.add(epochRecord(1, 1), r, personRecord(12, 200, 1))
		t.want(keys.Query{Blocked: true}, 11)
		if got := t.one(11).Blocked; !got.Equal(created) {
			t.Fatalf("blocked at %v", got)
		}
		if !t.one(12).Blocked.IsZero() {
			t.Fatal("blocked by itself")
		}
	}},
	{"the records stay the caller's", func(t storeTest) {
		r := personRecord(11, 100, 1)
		t.add(epochRecord(1, 1), r)
		clear(r.Wrapped)
		if string(t.one(11).Wrapped) != "wrapped 11" {
			t.Fatal("a caller changed the store")
		}
	}},
}

var rewrapTests = []storeCase{
	{"replaces epoch and wrapped alone", func(t storeTest) {
		was := personRecord(11, 100, 1)
		was.Blocked = created
		t.add(epochRecord(1, 1), epochRecord(2, 2), was, tenantRecord(12, "index", 1, 1))
		moved := personRecord(11, 999, 2)
		moved.Wrapped, moved.Commitment, moved.Created, moved.Retention = []byte("rewrapped"), []byte("x"), created.Add(time.Hour), keys.Tax
		root := tenantRecord(12, "index", 1, 2)
		root.Wrapped = []byte("rewrapped too")
		t.rewrap(root, moved)
		was.Tenant, was.Epoch, was.Wrapped = tenant, keyID(2), []byte("rewrapped")
		if got := t.one(11); !reflect.DeepEqual(got, was) {
			t.Fatalf("got %+v, want %+v", got, was)
		}
		t.want(keys.Query{All: true, Under: keyID(2)}, 11, 12)
	}},
	{"what is gone or of another kind is skipped", func(t storeTest) {
		t.add(epochRecord(1, 1), epochRecord(2, 2), personRecord(11, 100, 1), joinRecord(13, 100, 200))
		other := tenantRecord(11, "index", 1, 2)
		join := joinRecord(13, 100, 200)
		join.Epoch = keyID(2)
		t.rewrap(personRecord(77, 700, 2), other, join)
		t.want(keys.Query{All: true}, 1, 2, 11, 13)
		t.want(keys.Query{All: true, Under: keyID(2)})
	}},
	{"a destroyed key does not come back", func(t storeTest) {
		t.add(epochRecord(1, 1), epochRecord(2, 2), personRecord(11, 100, 1))
		t.erase(2, tombRecord(11))
		t.rewrap(personRecord(11, 100, 2))
		if got := t.one(11); got.Kind != keys.Tombstone || string(got.Wrapped) != "mac" {
			t.Fatalf("got %+v", got)
		}
	}},
	{"a retired key does not come back", func(t storeTest) {
		t.add(epochRecord(1, 1), epochRecord(2, 2), personRecord(11, 100, 1))
		t.retire(11)
		t.rewrap(personRecord(11, 100, 2))
		if got := t.one(11); len(got.Wrapped) != 0 || got.Epoch != (keys.ID{}) {
			t.Fatalf("got %+v", got)
		}
	}},
	{"under a retired or unknown epoch nothing is replaced", func(t storeTest) {
		t.add(epochRecord(1, 1), epochRecord(2, 2), personRecord(11, 100, 2), personRecord(12, 200, 2))
		t.retire(1)
		for _, epoch := range []uint64{1, 55, 12} {
			moved := personRecord(11, 100, 2)
			moved.Wrapped = []byte("rewrapped")
			if err := t.store.Rewrap(t.Context(), tenant, []keys.Record{moved, personRecord(12, 200, epoch)}); !errors.Is(err, keys.ErrRetired) {
				t.Fatalf("under epoch %d: %v", epoch, err)
			}
		}
		if string(t.one(11).Wrapped) != "wrapped 11" {
			t.Fatal("a refused call replaced a key")
		}
	}},
	{"the number stays", func(t storeTest) {
		t.add(epochRecord(1, 1), epochRecord(2, 2), personRecord(11, 100, 1))
		t.rewrap(personRecord(11, 100, 2))
		t.number(1)
	}},
}

var retireTests = []storeCase{
	{"empties person and tenant keys", func(t storeTest) {
		second := personRecord(12, 100, 1)
		second.Version = 1
		t.add(epochRecord(1, 1), personRecord(11, 100, 1), second, tenantRecord(13, "index", 1, 1), tenantRecord(14, "mac", 1, 1))
		if n := t.retire(11, 13, 99); n != 0 {
			t.Fatalf("in use: %d", n)
		}
		want := personRecord(11, 100, 0)
		want.Tenant, want.Wrapped = tenant, nil
		got := t.one(11)
		if len(got.Wrapped) == 0 {
			got.Wrapped = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		if got := t.one(13); len(got.Wrapped) != 0 || got.Epoch != (keys.ID{}) {
			t.Fatalf("got %+v", got)
		}
		t.want(keys.Query{All: true, Under: keyID(1)}, 12, 14)
		t.want(keys.Query{Persons: persons(100)}, 11, 12)
		t.add(personRecord(15, 100, 1)) // the slot stays taken
		t.want(keys.Query{Persons: persons(100)}, 11, 12)
	}},
	{"empties an epoch key that wraps nothing", func(t storeTest) {
		t.add(epochRecord(1, 1), epochRecord(2, 2), personRecord(11, 100, 2))
		if n := t.retire(1); n != 0 {
			t.Fatalf("in use: %d", n)
		}
		if r := t.one(1); len(r.Wrapped) != 0 || r.Kind != keys.EpochKey || r.Version != 1 {
			t.Fatalf("got %+v", r)
		}
		if len(t.one(2).Wrapped) == 0 {
			t.Fatal("another epoch key was retired")
		}
	}},
	{"counts what the others still wrap", func(t storeTest) {
		t.add(epochRecord(1, 1), epochRecord(2, 2), epochRecord(3, 3), personRecord(11, 100, 1), tenantRecord(12, "index", 1, 1), personRecord(13, 300, 2))
		if n := t.retire(1, 2, 3, 1); n != 3 {
			t.Fatalf("in use: %d, want 3", n)
		}
		if len(t.one(1).Wrapped) == 0 || len(t.one(2).Wrapped) == 0 || len(t.one(3).Wrapped) != 0 {
			t.Fatal("the wrong epoch keys were retired")
		}
		t.rewrapTo(4, 4, 11, 100)
		if n := t.retire(1, 2); n != 2 {
			t.Fatalf("in use: %d, want 2", n)
		}
	}},
	{"keys of the same call count no longer", func(t storeTest) {
		t.add(epochRecord(1, 1), epochRecord(2, 2), personRecord(11, 100, 1), tenantRecord(12, "index", 1, 1))
		if n := t.retire(1, 11, 12); n != 0 {
			t.Fatalf("in use: %d", n)
		}
		if len(t.one(1).Wrapped) != 0 {
			t.Fatal("the epoch key still lives")
		}
	}},
	{"tombstones and joins do not count", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(11, 100, 1), joinRecord(12, 100, 200))
		t.erase(2, tombRecord(11))
		if n := t.retire(1, 11, 12); n != 0 {
			t.Fatalf("in use: %d", n)
		}
		if string(t.one(11).Wrapped) != "mac" || string(t.one(12).Wrapped) != "mac" {
			t.Fatal("a tombstone or join was emptied")
		}
	}},
	{"nothing to do", func(t storeTest) {
		if n := t.retire(); n != 0 {
			t.Fatalf("in use: %d", n)
		}
		if n := t.retire(1, 2); n != 0 {
			t.Fatalf("in use: %d", n)
		}
		t.number(1)
	}},
	{"raises the number for all but epoch keys", func(t storeTest) {
		t.add(epochRecord(1, 1), epochRecord(2, 2), personRecord(11, 100, 2), tenantRecord(12, "index", 1, 2), personRecord(13, 200, 2))
		t.retire(1)
		t.number(1)
		t.retire(11, 13)
		t.number(2)
		t.retire(12)
		t.number(3)
		t.retire(11, 12, 99) // retired already
		t.number(3)
	}},
	{"many at once", func(t storeTest) {
		batch, ids := []keys.Record{epochRecord(1, 1)}, []keys.ID{keyID(1)}
		for i := range uint64(1200) {
			batch = append(batch, personRecord(10+i, i, 1))
			ids = append(ids, keyID(10+i))
		}
		t.add(batch...)
		if n, err := t.store.Retire(t.Context(), tenant, ids...); err != nil || n != 0 {
			t.Fatalf("retire: %d, %v", n, err)
		}
		t.number(2)
	}},
	{"an adder and a retirer do not pass each other", func(t storeTest) {
		// Whatever the order: a living key never has a retired epoch key above it.
		for round := range uint64(10) {
			epoch := 1000 * (round + 1)
			t.add(epochRecord(epoch, uint32(round+1)))
			var wg sync.WaitGroup
			var added atomic.Bool
			wg.Go(func() {
				err := t.store.Add(t.Context(), tenant, []keys.Record{personRecord(epoch+1, epoch, epoch)})
				added.Store(err == nil)
				if err != nil && !errors.Is(err, keys.ErrRetired) {
					t.Errorf("add: %v", err)
				}
			})
			wg.Go(func() {
				if _, err := t.store.Retire(t.Context(), tenant, keyID(epoch)); err != nil {
					t.Errorf("retire: %v", err)
				}
			})
			wg.Wait()
			if alive := len(t.one(epoch).Wrapped) > 0; alive != added.Load() {
				t.Fatalf("epoch key alive: %v, key added: %v", alive, added.Load())
			}
		}
	}},
}

// rewrapTo adds an epoch key and moves a person key under it.
func (t storeTest) rewrapTo(epoch uint64, version uint32, id, person uint64) {
	t.Helper()
	t.add(epochRecord(epoch, version))
	t.rewrap(personRecord(id, person, epoch))
}

var blockTests = []storeCase{
	{"sets and takes back", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(11, 100, 1), personRecord(12, 200, 1))
		t.block(created.Add(time.Minute), 11, 99)
		was := personRecord(11, 100, 1)
		was.Tenant, was.Blocked = tenant, created.Add(time.Minute)
		if got := t.one(11); !reflect.DeepEqual(got, was) {
			t.Fatalf("got %+v, want %+v", got, was)
		}
		t.block(created.Add(time.Hour), 11, 12)
		t.want(keys.Query{Blocked: true}, 11, 12)
		if got := t.one(11).Blocked; !got.Equal(created.Add(time.Hour)) {
			t.Fatalf("blocked since %v", got)
		}
		t.block(time.Time{}, 11)
		t.want(keys.Query{Blocked: true}, 12)
		if !t.one(11).Blocked.IsZero() {
			t.Fatal("still blocked")
		}
	}},
	{"whole seconds, UTC", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(11, 100, 1))
		t.block(created.Add(900*time.Millisecond).In(time.FixedZone("CST", 8*3600)), 11)
		if got := t.one(11).Blocked; !reflect.DeepEqual(got, created) {
			t.Fatalf("blocked since %v", got)
		}
	}},
	{"person keys only", func(t storeTest) {
		t.add(epochRecord(1, 1), tenantRecord(12, "index", 1, 1), joinRecord(13, 100, 200))
		t.erase(2, tombRecord(14))
		t.block(created, 1, 12, 13, 14)
		for _, id := range []uint64{1, 12, 13, 14} {
			if !t.one(id).Blocked.IsZero() {
				t.Fatalf("record %d was blocked", id)
			}
		}
		t.number(2)
	}},
	{"raises the number by one", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(11, 100, 1), personRecord(12, 200, 1))
		t.block(created, 11, 12)
		t.number(2)
		t.block(created, 11, 12) // as it is already
		t.number(2)
		t.block(time.Time{}, 12)
		t.number(3)
		t.block(created, 99)
		t.block(created)
		t.number(3)
	}},
}

var eraseTests = []storeCase{
	{"puts tombstones in their places", func(t storeTest) {
		blocked, retired := personRecord(12, 200, 1), personRecord(13, 100, 1)
		blocked.Blocked, retired.Version = created, 1
		t.add(epochRecord(1, 1), personRecord(11, 100, 1), blocked, retired, personRecord(14, 300, 1))
		t.retire(13)
		t.erase(3, tombRecord(11), tombRecord(12), tombRecord(13))
		for _, id := range []uint64{11, 12, 13} {
			want := tombRecord(id)
			want.Tenant, want.Number = tenant, 3
			if got := t.one(id); !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
		}
		t.want(keys.Query{Persons: persons(100, 200, 300)}, 14)
		t.want(keys.Query{Blocked: true})
		t.want(keys.Query{All: true, Under: keyID(1)}, 14)
	}},
	{"a tombstone names nobody", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(11, 100, 1))
		loud := tombRecord(11)
		loud.Person, loud.Epoch, loud.Version, loud.Purpose, loud.Blocked = personID(100), keyID(1), 4, "x", created
		t.erase(2, loud)
		want := tombRecord(11)
		want.Tenant, want.Number = tenant, 2
		if got := t.one(11); !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}},
	{"a tombstone without a key is kept", func(t storeTest) {
		t.add(epochRecord(1, 1))
		t.erase(2, tombRecord(55))
		t.want(keys.Query{Since: 1}, 55)
		t.add(personRecord(55, 500, 1)) // an import of an older copy
		if t.one(55).Kind != keys.Tombstone {
			t.Fatal("a destroyed key came back")
		}
	}},
	{"one that is here is skipped, and then the number stays", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(11, 100, 1), personRecord(12, 200, 1))
		t.erase(2, tombRecord(11))
		again := tombRecord(11)
		again.Wrapped = []byte("another")
		t.erase(2, again)
		if got := t.one(11); string(got.Wrapped) != "mac" || got.Number != 2 {
			t.Fatalf("got %+v", got)
		}
		t.erase(3, again, tombRecord(12), tombRecord(12))
		t.want(keys.Query{Since: 2}, 12)
		t.erase(3)
	}},
	{"takes no other key's place", func(t storeTest) {
		t.add(epochRecord(1, 1), tenantRecord(2, "index", 1, 1), joinRecord(3, 100, 200))
		t.erase(1, tombRecord(1), tombRecord(2), tombRecord(3))
		t.want(keys.Query{Since: 0})
		t.want(keys.Query{Tenant: true}, 1, 2)
	}},
	{"the person may come back, with a new key", func(t storeTest) {
		t.add(epochRecord(1, 1), personRecord(11, 100, 1))
		t.erase(2, tombRecord(11))
		t.add(personRecord(11, 100, 1), personRecord(21, 100, 1))
		t.want(keys.Query{Persons: persons(100)}, 21)
	}},
	{"all at once", func(t storeTest) {
		// Whoever reads a number finds the tombstones that belong to it.
		var batch []keys.Record
		for i := range uint64(20) {
			batch = append(batch, personRecord(100+i, i, 1), personRecord(200+i, 1000+i, 1))
		}
		t.add(append(batch, epochRecord(1, 1))...)
		var wg sync.WaitGroup
		stop := make(chan struct{})
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				n, err := t.store.Erasures(t.Context(), tenant)
				if err != nil {
					t.Errorf("erasures: %v", err)
					return
				}
				got, err := t.store.Find(t.Context(), tenant, keys.Query{Since: 1})
				if err != nil || uint64(len(got)) < 2*(n-1) || len(got)%2 != 0 {
					t.Errorf("number %d, %d tombstones, %v", n, len(got), err)
					return
				}
			}
		})
		for i := range uint64(20) {
			t.erase(2+i, tombRecord(100+i), tombRecord(200+i))
		}
		close(stop)
		wg.Wait()
	}},
	{"two erasers raise the number twice", func(t storeTest) {
		t.add(epochRecord(1, 1))
		var wg sync.WaitGroup
		for w := range uint64(4) {
			wg.Go(func() {
				for i := range uint64(5) {
					if _, err := t.store.Erase(t.Context(), tenant, []keys.Record{tombRecord(100*w + i + 10), tombRecord(7000 + i)}); err != nil {
						t.Errorf("erase: %v", err)
					}
				}
			})
		}
		wg.Wait()
		t.number(21)
		if n := len(t.find(keys.Query{Since: 1})); n != 25 {
			t.Fatalf("%d tombstones", n)
		}
	}},
}

var numberTests = []storeCase{
	{"begins at one", func(t storeTest) { t.number(1) }},
	{"a new version of a tenant key raises it", func(t storeTest) {
		t.add(epochRecord(1, 1), tenantRecord(2, "index", 1, 1), personRecord(3, 100, 1))
		t.number(1)
		t.add(tenantRecord(4, "index", 2, 1), tenantRecord(5, "mac", 2, 1), personRecord(6, 200, 1))
		t.number(2)
		t.add(tenantRecord(4, "index", 2, 1), tenantRecord(7, "mac", 2, 1)) // taken
		t.number(2)
		t.add(epochRecord(8, 2))
		second := personRecord(9, 100, 1)
		second.Version = 2
		t.add(second, joinRecord(10, 100, 200))
		t.number(2)
	}},
	{"what is refused does not raise it", func(t storeTest) {
		t.add(epochRecord(1, 1))
		if err := t.store.Add(t.Context(), tenant, []keys.Record{tenantRecord(4, "index", 2, 1), personRecord(5, 100, 77)}); !errors.Is(err, keys.ErrRetired) {
			t.Fatal(err)
		}
		t.number(1)
		t.want(keys.Query{All: true}, 1)
	}},
}

var epochTests = []storeCase{
	{"of all tenants, those that are not retired, in order", func(t storeTest) {
		ctx := t.Context()
		for _, name := range []string{"a", "B", "ä", "a b", "ab"} {
			if err := t.store.Add(ctx, name, []keys.Record{epochRecord(9, 3), epochRecord(5, 2), epochRecord(2, 1), personRecord(11, 100, 9)}); err != nil {
				t.Fatal(err)
			}
			if _, err := t.store.Retire(ctx, name, keyID(2)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := t.store.Epochs(ctx, "kek")
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, r := range got {
			if string(r.Wrapped) != "epoch" || r.Kind != keys.EpochKey {
				t.Fatalf("got %+v", r)
			}
			have = append(have, fmt.Sprint(r.Tenant, "/", binary.BigEndian.Uint64(r.ID[:])))
		}
		if want := []string{"B/5", "B/9", "a/5", "a/9", "a b/5", "a b/9", "ab/5", "ab/9", "ä/5", "ä/9"}; !reflect.DeepEqual(have, want) {
			t.Fatalf("got %v, want %v", have, want)
		}
	}},
	{"of this KEK only", func(t storeTest) {
		other := epochRecord(5, 2)
		other.Purpose = "another"
		t.add(epochRecord(4, 1), other)
		if got, err := t.store.Epochs(t.Context(), "another"); err != nil || len(got) != 1 || got[0].ID != keyID(5) {
			t.Fatalf("got %v, %v", got, err)
		}
	}},
	{"a fence between wrapping and adding", func(t storeTest) {
		ctx := t.Context()
		fence := func(kek string, want uint64) {
			t.Helper()
			if n, err := t.store.Fence(ctx, kek); err != nil || n != want {
				t.Fatalf("fence of %s: %d, %v; want %d", kek, n, err, want)
			}
		}
		fence("kek", 0)
		t.add(epochRecord(1, 1))
		if _, err := t.store.Epochs(ctx, "kek"); err != nil {
			t.Fatal(err)
		}
		fence("kek", 1)
		fence("another", 0)
		late := epochRecord(2, 2) // wrapped before the fence was raised
		if err := t.store.Add(ctx, tenant, []keys.Record{late, personRecord(11, 100, 2)}); !errors.Is(err, keys.ErrRetired) {
			t.Fatalf("an epoch key from before the fence: %v", err)
		}
		if err := t.store.Add(ctx, neighbour, []keys.Record{late}); !errors.Is(err, keys.ErrRetired) {
			t.Fatalf("the same of another tenant: %v", err)
		}
		late.Fence = 2
		if err := t.store.Add(ctx, tenant, []keys.Record{late}); !errors.Is(err, keys.ErrRetired) {
			t.Fatalf("an epoch key with a fence that is not: %v", err)
		}
		t.want(keys.Query{All: true}, 1)
		late.Fence = 1
		t.add(late)
		if got := t.find(keys.Query{IDs: keyIDs(2)}); len(got) != 1 || got[0].Fence != 0 {
			t.Fatalf("got %+v", got)
		}
		t.add(epochRecord(2, 2)) // there already: skipped, whatever its fence
		elsewhere := epochRecord(3, 3)
		elsewhere.Purpose = "another"
		t.add(elsewhere)
		t.want(keys.Query{All: true}, 1, 2, 3)
	}},
	{"none", func(t storeTest) {
		if got, err := t.store.Epochs(t.Context(), "kek"); err != nil || len(got) != 0 {
			t.Fatalf("got %v, %v", got, err)
		}
	}},
}

var storeTests = []storeCase{
	{"tenants do not meet", func(t storeTest) {
		ctx := t.Context()
		t.add(epochRecord(1, 1), personRecord(11, 100, 1), joinRecord(12, 100, 200), personRecord(13, 300, 1))
		t.block(created, 13)
		for _, q := range []keys.Query{
			{IDs: keyIDs(11)}, {Persons: persons(100)}, {Joins: persons(100)}, {Tenant: true}, {Blocked: true}, {All: true}, {Since: 0},
		} {
			if got, err := t.store.Find(ctx, neighbour, q); err != nil || len(got) != 0 {
				t.Fatalf("another tenant found %v, %v", got, err)
			}
		}
		if err := t.store.Add(ctx, neighbour, []keys.Record{personRecord(11, 100, 1)}); !errors.Is(err, keys.ErrRetired) {
			t.Fatalf("a key under another tenant's epoch: %v", err)
		}
		if err := t.store.Add(ctx, neighbour, []keys.Record{epochRecord(1, 1), epochRecord(2, 2), personRecord(11, 100, 1)}); err != nil {
			t.Fatal(err)
		}
		if err := t.store.Rewrap(ctx, neighbour, []keys.Record{personRecord(11, 100, 2)}); err != nil {
			t.Fatal(err)
		}
		if err := t.store.Block(ctx, neighbour, keyIDs(11), created); err != nil {
			t.Fatal(err)
		}
		if _, err := t.store.Erase(ctx, neighbour, []keys.Record{tombRecord(11)}); err != nil {
			t.Fatal(err)
		}
		if n, err := t.store.Retire(ctx, neighbour, keyIDs(1)...); err != nil || n != 0 {
			t.Fatalf("retire: %d, %v", n, err)
		}
		want := personRecord(11, 100, 1)
		want.Tenant = tenant
		if got := t.one(11); !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		if len(t.one(1).Wrapped) == 0 {
			t.Fatal("another tenant's epoch key was retired")
		}
		t.number(2) // of the block above
	}},
	{"a cancelled call changes nothing", func(t storeTest) {
		t.add(epochRecord(1, 1), epochRecord(2, 2), personRecord(11, 100, 1))
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		s := t.store
		for name, call := range map[string]func() error{
			"find":     func() error { _, err := s.Find(gone, tenant, keys.Query{All: true}); return err },
			"add":      func() error { return s.Add(gone, tenant, []keys.Record{personRecord(12, 200, 1)}) },
			"rewrap":   func() error { return s.Rewrap(gone, tenant, []keys.Record{personRecord(11, 100, 2)}) },
			"retire":   func() error { _, err := s.Retire(gone, tenant, keyID(11)); return err },
			"block":    func() error { return s.Block(gone, tenant, keyIDs(11), created) },
			"erase":    func() error { _, err := s.Erase(gone, tenant, []keys.Record{tombRecord(11)}); return err },
			"erasures": func() error { _, err := s.Erasures(gone, tenant); return err },
			"fence":    func() error { _, err := s.Fence(gone, "kek"); return err },
			"epochs":   func() error { _, err := s.Epochs(gone, "kek"); return err },
		} {
			if err := call(); !errors.Is(err, context.Canceled) {
				t.Fatalf("%s: %v", name, err)
			}
		}
		want := personRecord(11, 100, 1)
		want.Tenant = tenant
		if got := t.one(11); !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		t.number(1)
	}},
}
