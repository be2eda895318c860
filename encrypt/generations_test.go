package encrypt_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/encrypt/keys"
)

// watched passes calls on to a store, after a hook has seen them. A hook's error is the call's.
type watched struct {
	keys.Store
	mu    sync.Mutex
	hook  func(method string, q keys.Query) error
	after func(method string, q keys.Query)
	finds int // by id
}

func (w *watched) set(hook func(method string, q keys.Query) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hook = hook
}

// found returns how many queries by id there were since the last call.
func (w *watched) found() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.finds
	w.finds = 0
	return n
}

func (w *watched) call(method string, q keys.Query) error {
	w.mu.Lock()
	hook := w.hook
	if q.IDs != nil {
		w.finds++
	}
	w.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(method, q)
}

func (w *watched) Find(ctx context.Context, tenant string, q keys.Query) ([]keys.Record, error) {
	if err := w.call("Find", q); err != nil {
		return nil, err
	}
	out, err := w.Store.Find(ctx, tenant, q)
	if w.after != nil {
		w.after("Find", q)
	}
	return out, err
}

func (w *watched) Add(ctx context.Context, tenant string, records []keys.Record) error {
	if err := w.call("Add", keys.Query{}); err != nil {
		return err
	}
	return w.Store.Add(ctx, tenant, records)
}

func (w *watched) Retire(ctx context.Context, tenant string, ids ...keys.ID) (int, error) {
	if err := w.call("Retire", keys.Query{}); err != nil {
		return 0, err
	}
	return w.Store.Retire(ctx, tenant, ids...)
}

func (w *watched) Erasures(ctx context.Context, tenant string) (uint64, error) {
	if err := w.call("Erasures", keys.Query{}); err != nil {
		return 0, err
	}
	return w.Store.Erasures(ctx, tenant)
}

// copyStore copies the records of acme into a new store, as somebody may who can write to its database.
// change may alter a record, or leave it out.
func copyStore(t testing.TB, from keys.Store, change func(r *keys.Record) bool) *keys.Memory {
	t.Helper()
	all, err := from.Find(ctx, "acme", keys.Query{All: true})
	if err != nil {
		t.Fatal(err)
	}
	to := keys.NewMemory()
	var records, tombs []keys.Record
	for _, r := range all {
		if change != nil && !change(&r) {
			continue
		}
		if r.Kind == keys.Tombstone {
			tombs = append(tombs, r)
		} else {
			records = append(records, r)
		}
	}
	if err := to.Add(ctx, "acme", records); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Erase(ctx, "acme", tombs); err != nil {
		t.Fatal(err)
	}
	return to
}

func exported(t testing.TB, k *encrypt.Keeper) (all [][]byte) {
	t.Helper()
	if err := k.ExportKeys(ctx, "acme", func(_ [8]byte, r []byte) error { all = append(all, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// table is a small database of customers.
type table struct {
	inserts sync.RWMutex // held for reading from before an insert seals until its row is there
	mu      sync.RWMutex
	rows    []*tableRow
}

type tableRow struct {
	mu     sync.Mutex
	rec    encrypt.Record
	phone  string
	fields []encrypt.SealedField
}

// reseal passes over all rows and tells how many changed.
func (b *table) reseal(c *encrypt.Codec[*customer], k *encrypt.Keeper) (changed int, err error) {
	b.inserts.Lock() // wait for those that have begun
	rows := slices.Clone(b.rows)
	b.inserts.Unlock()
	for _, r := range rows {
		r.mu.Lock()
		out, did, err := c.Reseal(ctx, k, r.rec, &customer{}, r.fields)
		if err == nil && did {
			r.fields = out.Fields
			changed++
		}
		r.mu.Unlock()
		if err != nil {
			return changed, err
		}
	}
	return changed, nil
}

func TestRenewWhileInUse(t *testing.T) {
	c, kek, store := newCodec(t), newKEK(t), keys.NewMemory()
	job := newKeeper(t, kek, store, nil)
	processes := []*encrypt.Keeper{newKeeper(t, kek, store, nil), newKeeper(t, kek, store, &encrypt.Options{CacheEntries: 7})}
	var db table
	insert := func(k *encrypt.Keeper, n int) error {
		db.inserts.RLock()
		defer db.inserts.RUnlock()
		r := &tableRow{
			rec:   encrypt.Record{Tenant: "acme", ID: [16]byte{byte(n), byte(n >> 8), byte(n >> 16), 1}, Person: [16]byte{byte(n), byte(n >> 8), byte(n >> 16), 2}},
			phone: fmt.Sprint(13800000000 + n),
		}
		s, err := c.Seal(ctx, k, r.rec, &customer{Phone: text{s: r.phone}}, nil)
		r.fields = s.Fields
		if err != nil {
			return err
		}
		db.mu.Lock()
		db.rows = append(db.rows, r)
		db.mu.Unlock()
		return nil
	}
	for n := range 60 {
		if err := insert(job, n); err != nil {
			t.Fatal(err)
		}
	}
	row := func(n int) *tableRow {
		db.mu.RLock()
		defer db.mu.RUnlock()
		return db.rows[n%len(db.rows)]
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var next, done atomic.Int64
	next.Store(1000)
	for w, k := range processes {
		for range 2 {
			wg.Go(func() {
				for n := w * 31; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					r := row(n)
					r.mu.Lock()
					var v customer
					_, err := c.Open(ctx, k, r.rec, r.fields, &v, c.SealedNames()...)
					if err == nil && v.Phone.s != r.phone {
						err = errors.New("another value")
					}
					if err == nil && n%3 == 0 {
						r.phone = fmt.Sprint(13900000000 + n)
						v.Phone = text{s: r.phone}
						var s encrypt.Sealed
						if s, err = c.Seal(ctx, k, r.rec, &v, r.fields, "income", "vip"); err == nil {
							r.fields = s.Fields
						}
					}
					if err == nil {
						var q encrypt.Query
						if q, err = c.Query(ctx, k, "acme", "phone", "exact", r.phone); err == nil && !carries(encrypt.Sealed{Fields: r.fields}, q) {
							err = errors.New("not found by its phone")
						}
					}
					r.mu.Unlock()
					if err == nil && n%50 == 0 {
						err = insert(k, int(next.Add(1)))
					}
					if err != nil {
						t.Errorf("while renewing: %v", err)
						return
					}
					done.Add(1)
				}
			})
		}
	}
	for want := uint32(2); want <= 4; want++ {
		if g, err := job.Renew(ctx, "acme"); err != nil || g != want {
			t.Errorf("generation %d, %v", g, err)
		}
		for {
			n, err := db.reseal(c, job)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
		}
		if err := job.Retire(ctx, "acme", nil); err != nil {
			t.Errorf("retire: %v", err)
		}
	}
	close(stop)
	wg.Wait()
	if _, err := db.reseal(c, job); err != nil { // takes the tokens of the last generation away
		t.Fatal(err)
	}
	if n, err := db.reseal(c, job); err != nil || n != 0 {
		t.Errorf("a pass after the last one changed %d records: %v", n, err)
	}
	fresh := newKeeper(t, kek, store, nil)
	for _, r := range db.rows {
		var v customer
		if _, err := c.Open(ctx, fresh, r.rec, r.fields, &v, "phone"); err != nil || v.Phone.s != r.phone {
			t.Fatalf("afterwards: %v", err)
		}
		if n := len(tokensOf(encrypt.Sealed{Fields: r.fields}, "phone")); n != 1 {
			t.Fatalf("%d tokens", n)
		}
	}
	if h := fresh.Health("acme"); h.Generation != 4 || h.Renewing {
		t.Errorf("health %+v", h)
	}
	t.Logf("%d operations and %d records beside three renewals", done.Load(), len(db.rows))
}

func TestRetired(t *testing.T) {
	c, kek, store := newCodec(t), newKEK(t), keys.NewMemory()
	a, b := newKeeper(t, kek, store, nil), newKeeper(t, kek, store, nil)
	v := &customer{Name: text{s: "张伟"}, Phone: text{s: "13800138000"}}
	old, err := c.Seal(ctx, a, rec, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	detail, err := a.SealFor(ctx, "acme", rec.Person, "log", nil, []byte("10.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	read := func(k *encrypt.Keeper, s encrypt.Sealed) error {
		var got customer
		_, err := c.Open(ctx, k, rec, s.Fields, &got, "phone", "name")
		if err == nil && got.Phone.s != v.Phone.s {
			t.Error("another value")
		}
		return err
	}
	one := func(k *encrypt.Keeper) error {
		_, err := k.OpenFor(ctx, "acme", rec.Person, "log", nil, detail)
		return err
	}
	if err := errors.Join(read(b, old), one(b)); err != nil { // b has the key
		t.Fatal(err)
	}
	before := exported(t, a)
	beforeStore := copyStore(t, store, nil)
	// Without a renewal there is nothing to retire.
	if err := a.Retire(ctx, "acme", func(int) { t.Error("something was retired") }); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for _, k := range []*encrypt.Keeper{a, b} {
			if g, err := k.Renew(ctx, "acme"); err != nil || g != 2 {
				t.Fatalf("generation %d, %v", g, err)
			}
		}
	}
	if h := b.Health("acme"); h.Generation != 2 || !h.Renewing {
		t.Errorf("health %+v", h)
	}
	if err := errors.Join(read(a, old), read(b, old), one(a), one(b)); err != nil {
		t.Fatalf("both generations are read: %v", err)
	}
	during, changed, err := c.Reseal(ctx, a, rec, &customer{}, old.Fields)
	if err != nil || !changed {
		t.Fatal(err)
	}
	if again, changed, err := c.Reseal(ctx, b, rec, &customer{}, during.Fields); err != nil || changed {
		t.Fatalf("%+v, %v", again, err)
	}
	other := rec
	other.ID, other.Person = [16]byte{7}, [16]byte{8}
	written, err := c.Seal(ctx, b, other, v, nil) // by the other process, during the renewal
	if err != nil {
		t.Fatal(err)
	}
	shares := func(a, b encrypt.Sealed) bool {
		return slices.ContainsFunc(tokensOf(a, "phone"), func(x encrypt.Token) bool { return x.Unique && slices.Contains(tokensOf(b, "phone"), x) })
	}
	if !shares(old, during) || !shares(old, written) || !shares(during, written) {
		t.Error("one phone number twice would not be noticed during a renewal")
	}
	ended := 0
	if err := a.Retire(ctx, "acme", func(n int) { ended = n }); err != nil || ended != 2 { // ordinary and tax
		t.Fatalf("%d keys ended, %v", ended, err)
	}
	after, err := c.Seal(ctx, b, encrypt.Record{Tenant: "acme", ID: [16]byte{11}, Person: [16]byte{12}}, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !shares(during, after) || !shares(written, after) || shares(old, after) {
		t.Error("the tokens after the renewal are not those written during it")
	}
	for name, k := range map[string]*encrypt.Keeper{"here": a, "in another process": b, "in a new process": newKeeper(t, kek, store, nil)} {
		if err := read(k, old); !errors.Is(err, encrypt.ErrRetired) {
			t.Errorf("%s: an old value: %v", name, err)
		}
		if err := one(k); !errors.Is(err, encrypt.ErrRetired) {
			t.Errorf("%s: an old detail: %v", name, err)
		}
		if _, err := c.Seal(ctx, k, rec, &customer{}, old.Fields, "phone", "name"); !errors.Is(err, encrypt.ErrRetired) {
			t.Errorf("%s: an old value is kept: %v", name, err)
		}
		if _, _, err := c.Reseal(ctx, k, rec, &customer{}, old.Fields); !errors.Is(err, encrypt.ErrRetired) {
			t.Errorf("%s: an old value is resealed: %v", name, err)
		}
		if err := read(k, during); err != nil {
			t.Errorf("%s: a resealed value: %v", name, err)
		}
		if q, err := c.Query(ctx, k, "acme", "phone", "exact", "13800138000"); err != nil || len(q.Groups[0]) != 1 || carries(old, q) || !carries(during, q) || !carries(after, q) {
			t.Errorf("%s: search: %+v, %v", name, q, err)
		}
	}
	if err := a.Retire(ctx, "acme", func(int) { t.Error("something was retired twice") }); err != nil {
		t.Fatal(err)
	}
	// An old backup brings nothing back.
	if err := a.ImportKeys(ctx, "acme", before); err != nil {
		t.Fatal(err)
	}
	if err := read(newKeeper(t, kek, store, nil), old); !errors.Is(err, encrypt.ErrRetired) {
		t.Errorf("after an import: %v", err)
	}
	// Nor does a key record that somebody puts back into the database, under its own or another generation.
	olds, err := beforeStore.Find(ctx, "acme", keys.Query{Persons: [][16]byte{rec.Person}})
	olds = slices.DeleteFunc(olds, func(r keys.Record) bool { return r.Retention != keys.Ordinary })
	if err != nil || len(olds) != 1 {
		t.Fatal(err)
	}
	for _, version := range []uint32{0, 1, 2, 3} {
		put := copyStore(t, store, func(r *keys.Record) bool {
			if r.ID == olds[0].ID {
				*r = olds[0]
				r.Version = version
			} else if r.Person == rec.Person {
				return false // the slot of the living one
			}
			return true
		})
		want := encrypt.ErrRetired
		if version > 1 {
			want = encrypt.ErrTampered
		}
		if err := read(newKeeper(t, kek, put, nil), old); !errors.Is(err, want) {
			t.Errorf("an old key put back as generation %d: %v", version, err)
		}
	}
	// A second round ends what the first one wrote.
	if g, err := b.Renew(ctx, "acme"); err != nil || g != 3 {
		t.Fatalf("generation %d, %v", g, err)
	}
	if err := b.Retire(ctx, "acme", nil); err != nil {
		t.Fatal(err)
	}
	for _, s := range []encrypt.Sealed{old, during} {
		if err := read(a, s); !errors.Is(err, encrypt.ErrRetired) {
			t.Errorf("after a second round: %v", err)
		}
	}
}

func TestRenewRefused(t *testing.T) {
	kek := newKEK(t)
	k := newKeeper(t, kek, keys.NewMemory(), nil)
	if _, err := k.Renew(ctx, "acme"); !errors.Is(err, encrypt.ErrKeyMissing) {
		t.Errorf("a tenant without keys: %v", err)
	}
	if err := k.Retire(ctx, "acme", nil); !errors.Is(err, encrypt.ErrKeyMissing) {
		t.Errorf("a tenant without keys: %v", err)
	}
	if _, err := k.Renew(ctx, ""); err == nil {
		t.Error("no tenant")
	}
	if err := k.Retire(ctx, string(make([]byte, 129)), nil); err == nil {
		t.Error("a tenant of 129 bytes")
	}
	store := keys.NewMemory()
	if _, err := newKeeper(t, kek, store, nil).MAC(ctx, "acme", "row", nil); err != nil {
		t.Fatal(err)
	}
	for fault, want := range map[encrypttest.Fault]error{
		encrypttest.Away: encrypt.ErrKMSUnavailable, encrypttest.Refused: encrypt.ErrAuth, encrypttest.WrongKey: encrypt.ErrTampered,
	} {
		kek.Set(fault)
		k := newKeeper(t, kek, store, nil)
		if _, err := k.Renew(ctx, "acme"); !errors.Is(err, want) {
			t.Errorf("fault %d: %v", fault, err)
		}
		if err := k.Retire(ctx, "acme", nil); !errors.Is(err, want) {
			t.Errorf("fault %d: %v", fault, err)
		}
	}
}

// TestRenewAtOnce: many processes that begin a generation begin the same one.
func TestRenewAtOnce(t *testing.T) {
	kek, store := newKEK(t), keys.NewMemory()
	if _, err := newKeeper(t, kek, store, nil).MAC(ctx, "acme", "row", nil); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		k := newKeeper(t, kek, store, nil)
		wg.Go(func() {
			if g, err := k.Renew(ctx, "acme"); err != nil || g != 2 {
				t.Errorf("generation %d, %v", g, err)
			}
		})
	}
	wg.Wait()
	records, err := store.Find(ctx, "acme", keys.Query{Tenant: true})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(slices.DeleteFunc(records, func(r keys.Record) bool { return r.Purpose != "index" })); n != 2 {
		t.Errorf("%d index keys", n)
	}
}

// TestRenewInterrupted: wherever a renewal stops, nothing is lost and the next one goes on.
func TestRenewInterrupted(t *testing.T) {
	c, kek := newCodec(t), newKEK(t)
	broken := errors.New("the store went away")
	for stop, through := 1, false; !through; stop++ {
		if stop > 60 {
			t.Fatal("it never gets through")
		}
		store := &watched{Store: keys.NewMemory()}
		k := newKeeper(t, kek, store, nil)
		var recs []encrypt.Record
		var vs []*customer
		for i := range 3 {
			recs = append(recs, encrypt.Record{Tenant: "acme", ID: [16]byte{byte(i)}, Person: [16]byte{1, byte(i)}})
			vs = append(vs, &customer{Phone: text{s: fmt.Sprint(i)}})
		}
		all, err := c.SealAll(ctx, k, recs, vs)
		if err != nil {
			t.Fatal(err)
		}
		run := func() (err error) {
			if _, err = k.Renew(ctx, "acme"); err != nil {
				return err
			}
			for i := range all {
				out, changed, err := c.Reseal(ctx, k, recs[i], &customer{}, all[i].Fields)
				if err != nil {
					return err
				}
				if changed {
					all[i] = out
				}
			}
			return k.Retire(ctx, "acme", nil)
		}
		calls := 0
		store.set(func(string, keys.Query) error {
			if calls++; calls == stop {
				return broken
			}
			return nil
		})
		err = run()
		store.set(nil)
		if through = err == nil; !through && !errors.Is(err, broken) {
			t.Fatalf("stopped at call %d: %v", stop, err)
		}
		check := func(when string) {
			t.Helper()
			for _, k := range []*encrypt.Keeper{k, newKeeper(t, kek, store, nil)} {
				for i := range all {
					var v customer
					if _, err := c.Open(ctx, k, recs[i], all[i].Fields, &v, "phone"); err != nil || v.Phone.s != vs[i].Phone.s {
						t.Fatalf("stopped at call %d, %s: record %d: %v", stop, when, i, err)
					}
					q, err := c.Query(ctx, k, "acme", "phone", "exact", vs[i].Phone.s)
					if err != nil || !carries(all[i], q) {
						t.Fatalf("stopped at call %d, %s: record %d is not found: %v", stop, when, i, err)
					}
				}
			}
		}
		check("then")
		k = newKeeper(t, kek, store, nil) // another process goes on
		if err := run(); err != nil {
			t.Fatalf("resumed after call %d: %v", stop, err)
		}
		check("resumed")
		records, err := store.Find(ctx, "acme", keys.Query{All: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if r.Kind == keys.PersonKey && r.Version == 0 && len(r.Wrapped) > 0 {
				t.Fatalf("resumed after call %d: an old key lives", stop)
			}
		}
	}
}

// TestResealStates: what is erased stays as it is, and who is blocked is neither resealed nor lost.
func TestResealStates(t *testing.T) {
	c, kek, store := newCodec(t), newKEK(t), keys.NewMemory()
	k := newKeeper(t, kek, store, nil)
	now := newKeeper(t, kek, store, &encrypt.Options{Grace: -1})
	v := sample()
	s, err := c.Seal(ctx, k, rec, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The record's clear columns name the signatory; without them his fields are another person's.
	if _, _, err := c.Reseal(ctx, k, rec, &customer{}, s.Fields); !errors.Is(err, encrypt.ErrTampered) {
		t.Errorf("without the clear columns: %v", err)
	}
	clear := &customer{SignerID: id{9}, Stage: "lead"}
	if _, changed, err := c.Reseal(ctx, k, rec, clear, s.Fields); err != nil || changed {
		t.Errorf("without a renewal: changed %v, %v", changed, err)
	}
	if clear.Name.s != "" || clear.Note != "" || clear.Photo != nil || clear.Extra != nil || clear.Stage != "lead" {
		t.Errorf("Reseal opened into the caller's value: %+v", clear)
	}
	if _, err := now.Erase(ctx, "acme", id{9}, &encrypt.EraseOptions{Classes: []keys.Retention{keys.Contract}}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Renew(ctx, "acme"); err != nil {
		t.Fatal(err)
	}
	fresh, changed, err := c.Reseal(ctx, k, rec, clear, s.Fields)
	if err != nil || !changed {
		t.Fatalf("beside an erased signatory: %v, %v", changed, err)
	}
	got := customer{SignerID: id{9}}
	states, err := c.Open(ctx, k, rec, fresh.Fields, &got, c.SealedNames()...)
	if err != nil || c.State(states, "signer") != encrypt.StateErased || got.Note != v.Note || got.Income != v.Income || !got.Born.Equal(v.Born) || got.Phone.s != v.Phone.s {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, changed, err := c.Reseal(ctx, k, rec, clear, fresh.Fields); err != nil || changed {
		t.Errorf("a second time: changed %v, %v", changed, err)
	}
	// A blocked person.
	other := rec
	other.ID, other.Person = [16]byte{3}, [16]byte{4}
	old, err := c.Seal(ctx, k, other, &customer{Phone: text{s: "1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Erase(ctx, "acme", other.Person, nil); err != nil {
		t.Fatal(err)
	}
	if _, changed, err := c.Reseal(ctx, k, other, &customer{}, old.Fields); err != nil || changed {
		t.Errorf("blocked: changed %v, %v", changed, err)
	}
	if err := k.Retire(ctx, "acme", nil); err != nil { // sealed under the newest generation
		t.Fatal(err)
	}
	if _, err := k.Renew(ctx, "acme"); err != nil {
		t.Fatal(err)
	}
	if fresh, _, err = c.Reseal(ctx, k, rec, clear, fresh.Fields); err != nil {
		t.Fatal(err)
	}
	if out, changed, err := c.Reseal(ctx, k, other, &customer{}, old.Fields); err != nil || changed || len(out.Fields) != len(old.Fields) {
		t.Errorf("blocked: changed %v, %v", changed, err)
	}
	if err := k.Retire(ctx, "acme", nil); !errors.Is(err, encrypt.ErrBlocked) {
		t.Errorf("retired what a blocked person may get back: %v", err)
	}
	if err := k.Spare(ctx, "acme", other.Person); err != nil {
		t.Fatal(err)
	}
	back, changed, err := c.Reseal(ctx, k, other, &customer{}, old.Fields)
	if err != nil || !changed {
		t.Fatalf("spared: changed %v, %v", changed, err)
	}
	if err := k.Retire(ctx, "acme", nil); err != nil {
		t.Fatal(err)
	}
	got = customer{}
	if _, err := c.Open(ctx, now, other, back.Fields, &got, "phone"); err != nil || got.Phone.s != "1" {
		t.Errorf("spared: %+v, %v", got.Phone, err)
	}
	// A retired key is erased as well: afterwards it is erased and no longer only retired.
	if _, err := now.Erase(ctx, "acme", other.Person, nil); err != nil {
		t.Fatal(err)
	}
	states, err = c.Open(ctx, k, other, old.Fields, &got, "phone")
	if err != nil || c.State(states, "phone") != encrypt.StateErased {
		t.Errorf("a value of a retired key after the erasure: %v", err)
	}
}
