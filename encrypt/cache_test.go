package encrypt_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
)

type single struct {
	Name encrypt.Text `protect:"personal"`
}

func singleCodec(t testing.TB) *encrypt.Codec[*single] {
	t.Helper()
	c, err := encrypt.NewCodec[*single](nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// cached is a keeper over a watched store with the sealed names of some persons.
type cached struct {
	t     *testing.T
	c     *encrypt.Codec[*single]
	k     *encrypt.Keeper
	store *watched
	now   *clock
	kek   keys.KEK
	recs  []encrypt.Record
	data  [][]byte
}

func newCached(t *testing.T, persons int, opts encrypt.Options) *cached {
	x := &cached{t: t, c: singleCodec(t), store: &watched{Store: keys.NewMemory()}, now: new(clock), kek: newKEK(t)}
	x.now.Advance(time.Hour)
	opts.Now, opts.Grace, opts.EraseLimit = x.now.Now, -1, -1
	if opts.Refresh == 0 {
		opts.Refresh = 1 << 60
	}
	writer := newKeeper(t, x.kek, x.store, nil)
	for i := range persons {
		r := encrypt.Record{Tenant: "acme", ID: [16]byte{1}, Person: [16]byte{byte(i), byte(i >> 8), 1}, Erasure: 1}
		b, err := x.c.SealTo(ctx, writer, &r, nil, "name", []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		x.recs, x.data = append(x.recs, r), append(x.data, b)
	}
	x.k = newKeeper(t, x.kek, x.store, &opts)
	x.store.found()
	return x
}

// read opens the name of a person and returns how many keys were read from the store for it.
func (x *cached) read(i int) int {
	x.t.Helper()
	if b, err := x.c.OpenTo(ctx, x.k, &x.recs[i], nil, "name", x.data[i]); err != nil || string(b) != "x" {
		x.t.Fatalf("person %d: %q, %v", i, b, err)
	}
	return x.store.found()
}

func (x *cached) write(i int) {
	x.t.Helper()
	if _, err := x.c.SealTo(ctx, x.k, &x.recs[i], nil, "name", []byte("y")); err != nil {
		x.t.Fatal(err)
	}
}

func TestCacheAge(t *testing.T) {
	x := newCached(t, 1, encrypt.Options{CacheAge: time.Minute})
	if x.read(0) != 1 || x.read(0) != 0 {
		t.Error("a key is read from the store once")
	}
	x.now.Advance(time.Minute - 1)
	if x.read(0) != 0 {
		t.Error("read anew before its age")
	}
	x.now.Advance(1)
	if x.read(0) != 1 || x.read(0) != 0 {
		t.Error("not read anew at its age")
	}
	// Use does not make a key younger.
	for range 6 {
		x.now.Advance(10*time.Second - 1)
		if x.read(0) != 0 {
			t.Error("read anew before its age")
		}
	}
	x.now.Advance(10 * time.Second)
	if x.read(0) != 1 {
		t.Error("a key that is used lives longer")
	}
}

func TestCacheMessages(t *testing.T) {
	x := newCached(t, 2, encrypt.Options{CacheMessages: 3})
	x.read(0)
	x.read(1)
	for range 2 {
		x.write(0)
	}
	if x.read(0) != 0 {
		t.Error("read anew before its last message")
	}
	x.write(0)
	if x.read(0) != 1 || x.read(1) != 0 {
		t.Error("not read anew after its last message, or another one too")
	}
	for range 100 {
		if x.read(0) != 0 {
			t.Fatal("reads count as messages")
		}
	}
	// SealFor counts as well.
	for range 3 {
		if _, err := x.k.SealFor(ctx, "acme", x.recs[0].Person, "log", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if x.read(0) != 1 {
		t.Error("details are not counted")
	}
}

func TestCacheEntries(t *testing.T) {
	for name, opts := range map[string]encrypt.Options{
		"entries": {CacheEntries: 3}, "bytes": {CacheBytes: 3*1536 + 1535}, "both": {CacheEntries: 3, CacheBytes: 1 << 30},
	} {
		x := newCached(t, 5, opts)
		for i := range 3 {
			x.read(i)
		}
		if x.read(0) != 0 || x.read(1) != 0 || x.read(2) != 0 {
			t.Errorf("%s: three do not fit", name)
		}
		x.read(0) // so that 1 was used longest ago
		if x.read(3) != 1 || x.k.Health("acme").Persons != 3 {
			t.Errorf("%s: %d keys", name, x.k.Health("acme").Persons)
		}
		if x.read(0) != 0 || x.read(2) != 0 || x.read(3) != 0 {
			t.Errorf("%s: one of those used last was evicted", name)
		}
		if x.read(1) != 1 { // evicts 0
			t.Errorf("%s: the one used longest ago is still there", name)
		}
		x.write(2) // a write is a use
		x.read(4)  // evicts 3
		if x.read(2) != 0 || x.read(1) != 0 || x.read(4) != 0 || x.read(3) != 1 {
			t.Errorf("%s: the order is wrong", name)
		}
	}
	one := newCached(t, 2, encrypt.Options{CacheBytes: 1}) // never less than one key
	if one.read(0) != 1 || one.read(0) != 0 || one.read(1) != 1 || one.read(0) != 1 {
		t.Error("a cache of one key")
	}
	for _, bad := range []encrypt.Options{
		{CacheEntries: -1}, {CacheBytes: -1}, {CacheAge: -1}, {Refresh: -1}, {StaleReads: -1}, {StaleWrites: -1}, {Epoch: -1}, {Copies: -1},
	} {
		if _, err := encrypt.NewKeeper(newKEK(t), keys.NewMemory(), &bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if _, err := encrypt.NewKeeper(nil, keys.NewMemory(), nil); err == nil {
		t.Error("no KEK")
	}
	if _, err := encrypt.NewKeeper(newKEK(t), nil, nil); err == nil {
		t.Error("no store")
	}
}

// TestCacheClasses: a person's keys of several classes are bounded and evicted one by one.
func TestCacheClasses(t *testing.T) {
	c, kek, store := contactCodec(t), newKEK(t), &watched{Store: keys.NewMemory()}
	s, err := c.Seal(ctx, newKeeper(t, kek, store, nil), rec, contactOf(), nil)
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, kek, store, &encrypt.Options{CacheEntries: 2})
	for range 3 {
		var v contact
		if _, err := c.Open(ctx, k, rec, s.Fields, &v, c.SealedNames()...); err != nil || v.Incident.Expose() != "d" || v.Name.Expose() != "a" {
			t.Fatalf("%v", err)
		}
		if n := k.Health("acme").Persons; n > 2 {
			t.Errorf("%d keys", n)
		}
	}
}

func TestSingleFlight(t *testing.T) {
	x := newCached(t, 1, encrypt.Options{})
	x.read(0) // opens the tenant's keys
	x.now.Advance(time.Hour)
	var started atomic.Int64
	first, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	x.store.set(func(_ string, q keys.Query) error {
		if q.IDs != nil {
			once.Do(func() { close(first) })
			<-release
		}
		return nil
	})
	x.store.found()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			started.Add(1)
			if b, err := x.c.OpenTo(ctx, x.k, &x.recs[0], nil, "name", x.data[0]); err != nil || string(b) != "x" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	<-first
	for started.Load() < 100 {
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
	if n := x.store.found(); n != 1 {
		t.Errorf("100 readers asked the store %d times", n)
	}
}

// TestSingleFlightFails: the failure of the one who asks is not the failure of those who wait.
func TestSingleFlightFails(t *testing.T) {
	x := newCached(t, 1, encrypt.Options{})
	x.read(0)
	x.now.Advance(time.Hour)
	away := errors.New("the store went away")
	asked, release := make(chan struct{}), make(chan struct{})
	var calls atomic.Int64
	x.store.set(func(_ string, q keys.Query) error {
		if q.IDs != nil && calls.Add(1) == 1 {
			close(asked)
			<-release
			return away
		}
		return nil
	})
	open := func(ctx context.Context) error {
		_, err := x.c.OpenTo(ctx, x.k, &x.recs[0], nil, "name", x.data[0])
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- open(ctx) }()
	<-asked
	short, cancel := context.WithCancel(ctx)
	gone := make(chan error, 1)
	go func() { gone <- open(short) }()
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who no longer waits: %v", err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := open(ctx); err != nil {
				t.Errorf("who waited: %v", err)
			}
		})
	}
	close(release)
	if err := <-failed; !errors.Is(err, away) {
		t.Errorf("who asked: %v", err)
	}
	wg.Wait()
	// A page asks once for all its persons.
	page := newCached(t, 50, encrypt.Options{})
	var fields [][]encrypt.SealedField
	var vs []*single
	for _, d := range page.data {
		fields, vs = append(fields, []encrypt.SealedField{{Name: "name", Data: d}}), append(vs, new(single))
	}
	for want := 1; want >= 0; want-- {
		if _, err := page.c.OpenAll(ctx, page.k, page.recs, fields, vs, "name"); err != nil {
			t.Fatal(err)
		}
		if n := page.store.found(); n != want {
			t.Errorf("a page of 50 persons: %d queries, want %d", n, want)
		}
	}
}

func TestErasureNumberTold(t *testing.T) {
	x := newCached(t, 2, encrypt.Options{})
	other := newKeeper(t, x.kek, x.store.Store, &encrypt.Options{Grace: -1})
	numbers := 0
	x.store.set(func(method string, _ keys.Query) error {
		if method == "Erasures" {
			numbers++
		}
		return nil
	})
	x.read(0)
	x.read(1)
	numbers = 0
	for range 10 {
		x.read(0)
	}
	if numbers != 0 {
		t.Errorf("the number was told and asked for %d times", numbers)
	}
	if _, err := other.Erase(ctx, "acme", x.recs[0].Person, nil); err != nil {
		t.Fatal(err)
	}
	open := func(i int, told uint64) error {
		r := x.recs[i]
		r.Erasure = told
		_, err := x.c.OpenTo(ctx, x.k, &r, nil, "name", x.data[i])
		return err
	}
	if err := open(0, 2); !errors.Is(err, encrypt.ErrErased) {
		t.Errorf("the number moved: %v", err)
	}
	if err := open(0, 1); !errors.Is(err, encrypt.ErrErased) {
		t.Errorf("a number that is old: %v", err)
	}
	if err := open(0, 0); !errors.Is(err, encrypt.ErrErased) {
		t.Errorf("no number: %v", err)
	}
	if h := x.k.Health("acme"); h.Erasures != 2 || h.Persons != 1 {
		t.Errorf("only the erased person is dropped: %+v", h)
	}
	// A wrong number from nowhere hides nothing.
	if err := open(1, 1<<63); err != nil {
		t.Errorf("a number that is too high: %v", err)
	}
	if h := x.k.Health("acme"); h.Erasures != 2 {
		t.Errorf("the number was taken on trust: %+v", h)
	}
	if _, err := other.Erase(ctx, "acme", x.recs[1].Person, nil); err != nil {
		t.Fatal(err)
	}
	for _, told := range []uint64{3, 0, 1 << 63} {
		if err := open(1, told); !errors.Is(err, encrypt.ErrErased) {
			t.Errorf("after a number that was too high, told %d: %v", told, err)
		}
	}
	if n, err := x.k.Erasures(ctx, "acme"); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := x.k.Erasures(ctx, "other"); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := x.k.Erasures(ctx, ""); err == nil {
		t.Error("no tenant")
	}
}

// TestErasedWhileLoading: a key that is destroyed while it is being read is not cached.
func TestErasedWhileLoading(t *testing.T) {
	x := newCached(t, 2, encrypt.Options{})
	other := newKeeper(t, x.kek, x.store.Store, &encrypt.Options{Grace: -1})
	x.read(1) // opens the tenant's keys
	told := x.recs[1]
	told.Erasure = 2
	erased := false
	x.store.after = func(_ string, q keys.Query) {
		if len(q.IDs) != 1 || erased {
			return
		}
		erased = true // the reader holds the record; now it goes, and the process learns of it by another read
		if _, err := other.Erase(ctx, "acme", x.recs[0].Person, nil); err != nil {
			t.Error(err)
		}
		if _, err := x.c.OpenTo(ctx, x.k, &told, nil, "name", x.data[1]); err != nil {
			t.Error(err)
		}
	}
	x.read(0) // it began before the erasure and may show the value
	if !erased {
		t.Fatal("the store was not asked")
	}
	if n := x.k.Health("acme").Persons; n != 1 {
		t.Errorf("%d keys in the cache", n)
	}
	for _, number := range []uint64{1, 2, 0} {
		r := x.recs[0]
		r.Erasure = number
		if _, err := x.c.OpenTo(ctx, x.k, &r, nil, "name", x.data[0]); !errors.Is(err, encrypt.ErrErased) {
			t.Errorf("told %d: %v", number, err)
		}
	}
}

// TestErasureOvertakesALoad: who comes after an erasure does not share the load of one who came before it.
func TestErasureOvertakesALoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newCached(t, 2, encrypt.Options{})
		other := newKeeper(t, x.kek, x.store.Store, &encrypt.Options{Grace: -1})
		x.read(1) // opens the tenant's keys
		release := make(chan struct{})
		var once sync.Once
		x.store.after = func(_ string, q keys.Query) {
			if len(q.IDs) == 1 {
				once.Do(func() { <-release }) // it holds the record
			}
		}
		early := make(chan error, 1)
		go func() {
			_, err := x.c.OpenTo(ctx, x.k, &x.recs[0], nil, "name", x.data[0])
			early <- err
		}()
		synctest.Wait()
		if _, err := other.Erase(ctx, "acme", x.recs[0].Person, nil); err != nil {
			t.Fatal(err)
		}
		late := make(chan error, 1)
		go func() {
			r := x.recs[0]
			r.Erasure = 2
			_, err := x.c.OpenTo(ctx, x.k, &r, nil, "name", x.data[0])
			late <- err
		}()
		synctest.Wait()
		close(release)
		if err := <-early; err != nil {
			t.Errorf("before the erasure: %v", err)
		}
		if err := <-late; !errors.Is(err, encrypt.ErrErased) {
			t.Errorf("after the erasure: %v", err)
		}
		for _, told := range []uint64{0, 1, 2} {
			r := x.recs[0]
			r.Erasure = told
			if _, err := x.c.OpenTo(ctx, x.k, &r, nil, "name", x.data[0]); !errors.Is(err, encrypt.ErrErased) {
				t.Errorf("later, told %d: %v", told, err)
			}
		}
	})
}

// TestCacheMemory: the memory of many persons is that of the cache.
func TestCacheMemory(t *testing.T) {
	persons, entries := 100_000, 1000
	if testing.Short() {
		persons = 10_000
	}
	c, kek, store := singleCodec(t), newKEK(t), keys.NewMemory()
	writer := newKeeper(t, kek, store, &encrypt.Options{CacheEntries: 1})
	const batch = 1000
	recs := make([]encrypt.Record, batch)
	vs := make([]*single, batch)
	values := make([][]byte, 0, persons)
	person := func(i int) [16]byte { return [16]byte{byte(i), byte(i >> 8), byte(i >> 16), 1} }
	for from := 0; from < persons; from += batch {
		for i := range recs {
			recs[i] = encrypt.Record{Tenant: "acme", Person: person(from + i), Erasure: 1}
			vs[i] = &single{encrypt.NewText("x")}
		}
		all, err := c.SealAll(ctx, writer, recs, vs)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			values = append(values, s.Fields[0].Data)
		}
	}
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	k := newKeeper(t, kek, store, &encrypt.Options{CacheEntries: entries})
	if _, err := k.MAC(ctx, "acme", "row", nil); err != nil {
		t.Fatal(err)
	}
	before := heap()
	for i, data := range values {
		r := encrypt.Record{Tenant: "acme", Person: person(i), Erasure: 1}
		if _, err := c.OpenTo(ctx, k, &r, nil, "name", data); err != nil {
			t.Fatal(err)
		}
	}
	grown := heap() - before
	if n := k.Health("acme").Persons; n != entries {
		t.Errorf("%d keys in the cache", n)
	}
	if most := int64(entries) * 1536 * 2; grown > most {
		t.Errorf("%d persons through a cache of %d: the heap grew by %d bytes", persons, entries, grown)
	}
	t.Logf("%d persons: %d bytes for each of %d keys", persons, grown/int64(entries), entries)
	runtime.KeepAlive(k)
	runtime.KeepAlive(values)
}

// TestNoRecord: a nil pointer where a record should be, and a codec of what is no pointer to a struct, are errors.
func TestNoRecord(t *testing.T) {
	c, k := singleCodec(t), newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	rec := encrypt.Record{Tenant: "acme", ID: [16]byte{1}, Person: [16]byte{1}, Erasure: 1}
	for what, do := range map[string]func() error{
		"Seal":    func() error { _, err := c.Seal(ctx, k, rec, nil, nil); return err },
		"SealAll": func() error { _, err := c.SealAll(ctx, k, []encrypt.Record{rec}, []*single{nil}); return err },
		"Open":    func() error { _, err := c.Open(ctx, k, rec, nil, nil, "name"); return err },
		"OpenAll": func() error {
			_, err := c.OpenAll(ctx, k, []encrypt.Record{rec}, make([][]encrypt.SealedField, 1), []*single{nil})
			return err
		},
		"Reseal":   func() error { _, _, err := c.Reseal(ctx, k, rec, nil, nil); return err },
		"Clear":    func() error { _, err := c.ClearValues(nil); return err },
		"SetClear": func() error { return c.SetClear(nil, nil) },
		"Conceal":  func() error { return c.Conceal(nil, "name", encrypt.StateHidden) },
	} {
		if do() == nil {
			t.Errorf("%s of nothing is done", what)
		}
	}
	if _, err := encrypt.NewCodec[single](nil); err == nil {
		t.Error("a codec of a struct by value")
	}
	if _, err := encrypt.NewCodec[*int](nil); err == nil {
		t.Error("a codec of a number")
	}
}
