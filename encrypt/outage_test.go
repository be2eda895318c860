package encrypt_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

// station is a keeper with a record, a KEK that fails on demand and a clock that is moved.
type station struct {
	t      *testing.T
	c      *encrypt.Codec[*single]
	k      *encrypt.Keeper
	kek    *encrypttest.FaultKEK
	store  keys.Store
	opts   encrypt.Options
	now    clock
	sealed encrypt.Sealed
}

func newStation(t *testing.T) *station {
	x := &station{t: t, c: singleCodec(t), kek: newKEK(t), store: keys.NewMemory()}
	x.now.Advance(time.Hour)
	x.opts = encrypt.Options{Refresh: time.Minute, StaleReads: 10 * time.Minute, StaleWrites: 2 * time.Minute, Now: x.now.Now}
	x.k = newKeeper(t, x.kek, x.store, &x.opts)
	var err error
	if x.sealed, err = x.c.Seal(ctx, x.k, rec, &single{encrypt.NewText("x")}, nil); err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *station) read() error { return x.readIn(ctx) }

func (x *station) readIn(ctx context.Context) error {
	var v single
	_, err := x.c.Open(ctx, x.k, rec, x.sealed.Fields, &v, "name")
	if err == nil && v.Name.Expose() != "x" {
		x.t.Error("another value")
	}
	return err
}

func (x *station) write() error {
	_, err := x.c.Seal(ctx, x.k, rec, &single{encrypt.NewText("x")}, x.sealed.Fields)
	return err
}

// TestOutageWindows: for how long reads and writes go on while the key service is away.
//
//crm:item 42
func TestOutageWindows(t *testing.T) {
	// Each moment in an outage that began right after the KEK had answered.
	for _, tc := range []struct {
		after         time.Duration
		reads, writes bool
	}{
		{0, true, true},
		{time.Minute - 1, true, true},
		{time.Minute, true, true}, // the KEK is asked, in vain
		{3*time.Minute - 1, true, true},
		{3 * time.Minute, true, false}, // Refresh + StaleWrites
		{11*time.Minute - 1, true, false},
		{11 * time.Minute, false, false}, // Refresh + StaleReads
		{1000 * time.Hour, false, false},
	} {
		for _, fault := range []encrypttest.Fault{encrypttest.Away, encrypttest.Sealed} {
			x := newStation(t)
			x.kek.Set(fault)
			x.now.Advance(tc.after)
			for range 3 { // asking again in the same moment changes nothing
				for what, got := range map[string]struct {
					err error
					ok  bool
				}{"read": {x.read(), tc.reads}, "write": {x.write(), tc.writes}} {
					if got.ok != (got.err == nil) || got.err != nil && !errors.Is(got.err, encrypt.ErrKMSUnavailable) {
						t.Errorf("%s after %s: %v", what, tc.after, got.err)
					}
				}
			}
			h := x.k.Health("acme")
			if (h.ReadsFor > 0) != tc.reads || (h.WritesFor > 0) != tc.writes || h.Age != tc.after || !h.Loaded {
				t.Errorf("after %s: %+v", tc.after, h)
			}
			if asked := tc.after >= time.Minute; asked != errors.Is(h.Failure, encrypt.ErrKMSUnavailable) || !asked && h.Failure != nil {
				t.Errorf("after %s: the failure is %v", tc.after, h.Failure)
			}
			// It comes back, and nothing is restarted.
			x.kek.Set(encrypttest.None)
			x.now.Advance(time.Second)
			if err := errors.Join(x.read(), x.write()); err != nil {
				t.Errorf("recovered after %s: %v", tc.after, err)
			}
			if h := x.k.Health("acme"); h.Failure != nil || tc.after >= time.Minute && h.Age != 0 {
				t.Errorf("recovered after %s: %+v", tc.after, h)
			}
		}
	}
	// After a failure the KEK is left alone for a second.
	x := newStation(t)
	x.kek.Set(encrypttest.Away)
	x.now.Advance(2 * time.Minute)
	calls := x.kek.Calls()
	for range 50 {
		if err := x.read(); err != nil {
			t.Fatal(err)
		}
	}
	if n := x.kek.Calls() - calls; n != 1 {
		t.Errorf("%d calls of a KEK that is away", n)
	}
	x.now.Advance(time.Second)
	if err := x.read(); err != nil || x.kek.Calls()-calls != 2 {
		t.Errorf("%d calls, %v", x.kek.Calls()-calls, err)
	}
}

func TestHealth(t *testing.T) {
	x := newStation(t)
	if h := newKeeper(t, x.kek, x.store, nil).Health("acme"); h != (encrypt.Health{KEK: x.kek.ID()}) {
		t.Errorf("before anything: %+v", h)
	}
	if h := x.k.Health(""); h != (encrypt.Health{KEK: x.kek.ID()}) {
		t.Errorf("no tenant: %+v", h)
	}
	calls := x.kek.Calls()
	x.now.Advance(20 * time.Second)
	h := x.k.Health("acme")
	want := encrypt.Health{
		KEK: x.k.KEKID(), Loaded: true, Age: 20 * time.Second, ReadsFor: 11*time.Minute - 20*time.Second, WritesFor: 3*time.Minute - 20*time.Second,
		Persons: 1, Erasures: 1, Generation: 1, Epoch: time.Unix(3600, 0).UTC(),
	}
	if h != want {
		t.Errorf("got %+v\nwant %+v", h, want)
	}
	if x.kek.Calls() != calls {
		t.Error("a page of health asks the KEK")
	}
	if err := x.k.Rotate(ctx, "acme", nil); err != nil {
		t.Fatal(err)
	}
	if h := x.k.Health("acme"); !h.Epoch.Equal(time.Unix(3620, 0)) || h.Age != 0 {
		t.Errorf("after a rotation: %+v", h)
	}
}

// TestAuthIsNoOutage: when the key service refuses us, that is said, every time, and nothing goes on.
func TestAuthIsNoOutage(t *testing.T) {
	x := newStation(t)
	x.kek.Set(encrypttest.Refused)
	if err := errors.Join(x.read(), x.write()); err != nil {
		t.Errorf("before the KEK is asked: %v", err)
	}
	x.now.Advance(time.Minute)
	for range 3 {
		if err := x.read(); !errors.Is(err, encrypt.ErrAuth) {
			t.Errorf("read: %v", err)
		}
		if err := x.write(); !errors.Is(err, encrypt.ErrAuth) {
			t.Errorf("write: %v", err)
		}
		x.now.Advance(400 * time.Millisecond)
	}
	if h := x.k.Health("acme"); !errors.Is(h.Failure, encrypt.ErrAuth) {
		t.Errorf("%+v", h)
	}
	fresh := newKeeper(t, x.kek, x.store, &x.opts)
	for range 3 {
		if _, err := x.c.Open(ctx, fresh, rec, x.sealed.Fields, &single{}, "name"); !errors.Is(err, encrypt.ErrAuth) || errors.Is(err, encrypt.ErrKMSUnavailable) {
			t.Errorf("a new process: %v", err)
		}
	}
	x.kek.Set(encrypttest.None)
	x.now.Advance(time.Second)
	if err := errors.Join(x.read(), x.write()); err != nil {
		t.Errorf("after a new login: %v", err)
	}
}

func TestWrongKey(t *testing.T) {
	x := newStation(t)
	x.now.Advance(time.Minute)
	x.kek.Set(encrypttest.WrongKey)
	for range 3 {
		if err := x.read(); !errors.Is(err, encrypt.ErrTampered) {
			t.Errorf("read: %v", err)
		}
		if err := x.write(); !errors.Is(err, encrypt.ErrTampered) {
			t.Errorf("write: %v", err)
		}
	}
	x.kek.Set(encrypttest.None)
	if err := errors.Join(x.read(), x.write()); err != nil {
		t.Errorf("with the right key again: %v", err)
	}
	other, err := localkek.Open(filepath.Join(t.TempDir(), "other"), nil)
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, other, x.store, nil)
	if _, err := x.c.Open(ctx, k, rec, x.sealed.Fields, &single{}, "name"); err == nil || errors.Is(err, encrypt.ErrKMSUnavailable) {
		t.Errorf("another KEK: %v", err)
	}
}

func TestFlapping(t *testing.T) {
	for _, every := range []int{2, 3, 5} {
		x := newStation(t)
		x.kek.Flap(every)
		for i := range 300 {
			x.now.Advance(17 * time.Second)
			if err := errors.Join(x.read(), x.write()); err != nil {
				t.Fatalf("every %d. call fails, round %d: %v", every, i, err)
			}
		}
		if x.kek.Calls() < 50 {
			t.Errorf("%d calls", x.kek.Calls())
		}
	}
}

func TestHangingKEK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, kek, store := singleCodec(t), newKEK(t), keys.NewMemory()
		opts := &encrypt.Options{Refresh: time.Minute, StaleReads: 10 * time.Minute, StaleWrites: 2 * time.Minute}
		k := newKeeper(t, kek, store, opts)
		s, err := c.Seal(ctx, k, rec, &single{encrypt.NewText("x")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		read := func(ctx context.Context, k *encrypt.Keeper) (time.Duration, error) {
			start := time.Now()
			_, err := c.Open(ctx, k, rec, s.Fields, &single{}, "name")
			return time.Since(start), err
		}
		kek.Set(encrypttest.Hanging)
		// Without keys: the caller's own time, or 15 seconds since the KEK was asked, and those who waited behind do
		// not wait again. That a caller had less time is not noted as a failure of the KEK.
		fresh := newKeeper(t, kek, store, opts)
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		if took, err := read(short, fresh); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, encrypt.ErrKMSUnavailable) || took != 3*time.Second {
			t.Errorf("a caller with 3 seconds: %v after %s", err, took)
		}
		cancel()
		if h := fresh.Health(rec.Tenant); h.Failure != nil {
			t.Errorf("the caller's own deadline counts as an outage: %v", h.Failure)
		}
		if took, err := read(ctx, fresh); !errors.Is(err, encrypt.ErrKMSUnavailable) || took != 12*time.Second {
			t.Errorf("behind: %v after %s", err, took)
		}
		if took, err := read(ctx, fresh); !errors.Is(err, encrypt.ErrKMSUnavailable) || took != 0 {
			t.Errorf("right after: %v after %s", err, took)
		}
		time.Sleep(time.Second)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if took, err := read(ctx, fresh); !errors.Is(err, encrypt.ErrKMSUnavailable) || took != 15*time.Second {
					t.Errorf("a caller with all time: %v after %s", err, took)
				}
			})
		}
		wg.Wait()
		gone, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Second, cancel)
		time.Sleep(time.Second)
		if took, err := read(gone, newKeeper(t, kek, store, opts)); !errors.Is(err, context.Canceled) || took > time.Second {
			t.Errorf("a caller who goes: %v after %s", err, took)
		}
		// With keys: one caller waits for the KEK, the others are served at once.
		time.Sleep(time.Minute)
		asked := make(chan struct{})
		go func() {
			close(asked)
			if took, err := read(ctx, k); err != nil || took != 15*time.Second {
				t.Errorf("the one who asks: %v after %s", err, took)
			}
		}()
		<-asked
		synctest.Wait()
		for range 5 {
			if took, err := read(ctx, k); err != nil || took != 0 {
				t.Errorf("beside the one who asks: %v after %s", err, took)
			}
		}
		time.Sleep(16 * time.Second)
		kek.Set(encrypttest.None)
		if took, err := read(ctx, k); err != nil || took != 0 {
			t.Errorf("recovered: %v after %s", err, took)
		}
	})
}

// TestImpatientCallers: callers with less time than a healthy KEK takes keep nobody from reading and writing, and what
// they began serves the others.
func TestImpatientCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, kek, store := singleCodec(t), newKEK(t), keys.NewMemory()
		opts := &encrypt.Options{Refresh: 2 * time.Second, StaleReads: time.Second, StaleWrites: time.Second}
		s, err := c.Seal(ctx, newKeeper(t, kek, store, opts), rec, &single{encrypt.NewText("x")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		kek.Slow(50 * time.Millisecond)
		k := newKeeper(t, kek, store, opts)
		for _, tenant := range []string{"acme", "fresh"} { // one is opened, one is founded
			before := kek.Calls()
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
						if _, err := k.MAC(short, tenant, "row", nil); err != nil && (!errors.Is(err, context.DeadlineExceeded) || errors.Is(err, encrypt.ErrKMSUnavailable)) {
							t.Errorf("an impatient caller: %v", err)
						}
						cancel()
						time.Sleep(time.Millisecond)
					}
				})
			}
			time.Sleep(20 * time.Millisecond)
			for range 500 {
				if tenant == "acme" {
					if _, err := c.Open(ctx, k, rec, s.Fields, &single{}, "name"); err != nil {
						t.Errorf("a patient reader: %v", err)
					}
				} else if _, err := k.MAC(ctx, tenant, "row", nil); err != nil {
					t.Errorf("a patient writer: %v", err)
				}
				time.Sleep(10 * time.Millisecond)
			}
			close(stop)
			wg.Wait()
			if n := kek.Calls() - before; n > 5 {
				t.Errorf("%s: the KEK was asked %d times in 5 seconds", tenant, n)
			}
			if h := k.Health(tenant); h.Failure != nil {
				t.Error(h.Failure)
			}
		}
	})
}

// TestRotatedInAnOutage: keys that another process rotated while this one's KEK hangs cost one wait, not one
// for each read, and an erasure is still seen.
func TestRotatedInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, store := singleCodec(t), keys.NewMemory()
		path := filepath.Join(t.TempDir(), "kek")
		local, err := localkek.Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		kek := encrypttest.NewFaultKEK(local)
		a, b := newKeeper(t, local, store, &encrypt.Options{Grace: -1}), newKeeper(t, kek, store, nil)
		victim := rec
		victim.ID, victim.Person = [16]byte{8}, [16]byte{8}
		s, err := c.Seal(ctx, b, rec, &single{encrypt.NewText("x")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := c.Seal(ctx, b, victim, &single{encrypt.NewText("y")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		at := field(t, theirs, "name").Data
		if _, err := c.OpenTo(ctx, b, &victim, nil, "name", at); err != nil { // its key is at hand
			t.Fatal(err)
		}
		kek.Set(encrypttest.Hanging)
		if err := a.Rotate(ctx, "acme", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Erase(ctx, "acme", victim.Person, nil); err != nil {
			t.Fatal(err)
		}
		for i, most := range []time.Duration{15 * time.Second, 0, 0} {
			if i > 0 {
				if _, err := c.OpenTo(ctx, b, &victim, nil, "name", at); !errors.Is(err, encrypt.ErrErased) {
					t.Errorf("an erased person alone, read %d: %v", i, err)
				}
			}
			start := time.Now()
			states, err := c.Open(ctx, b, rec, s.Fields, &single{}, "name")
			if err != nil || c.State(states, "name") != encrypt.StateClear || time.Since(start) > most {
				t.Errorf("read %d: %v after %s", i, err, time.Since(start))
			}
			start = time.Now()
			states, err = c.Open(ctx, b, victim, theirs.Fields, &single{}, "name")
			if err != nil || c.State(states, "name") != encrypt.StateErased || time.Since(start) > 0 {
				t.Errorf("an erased person, read %d: %v after %s", i, err, time.Since(start))
			}
			start = time.Now()
			if _, err := c.Seal(ctx, b, rec, &single{encrypt.NewText("z")}, s.Fields); !errors.Is(err, encrypt.ErrKMSUnavailable) || time.Since(start) > 0 {
				t.Errorf("write %d: %v after %s", i, err, time.Since(start))
			}
		}
		kek.Set(encrypttest.None)
		time.Sleep(time.Second)
		if _, err := c.Seal(ctx, b, rec, &single{encrypt.NewText("z")}, s.Fields); err != nil {
			t.Errorf("recovered: %v", err)
		}
	})
}

func TestKEKFor(t *testing.T) {
	own, shared, store := newKEK(t), newKEK(t), keys.NewMemory()
	var now clock
	now.Advance(time.Hour)
	var lookup error
	asked := map[string]bool{}
	opts := &encrypt.Options{
		Refresh: time.Minute, StaleReads: 10 * time.Minute, StaleWrites: 2 * time.Minute, Now: now.Now,
		KEKFor: func(_ context.Context, tenant string) (keys.KEK, error) {
			asked[tenant] = true
			if tenant == "globex" {
				return own, lookup
			}
			return nil, nil
		},
	}
	k := newKeeper(t, shared, store, opts)
	sealed := map[string][]byte{}
	read := func(k *encrypt.Keeper, tenant string) error {
		_, err := k.OpenFor(ctx, tenant, rec.Person, "log", nil, sealed[tenant])
		return err
	}
	write := func(tenant string) error {
		_, err := k.SealFor(ctx, tenant, rec.Person, "log", nil, nil)
		return err
	}
	for _, tenant := range []string{"acme", "globex"} {
		b, err := k.SealFor(ctx, tenant, rec.Person, "log", nil, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		sealed[tenant] = b
	}
	if own.Calls() != 1 || shared.Calls() != 1 || !asked["acme"] || !asked["globex"] {
		t.Errorf("%d and %d calls", own.Calls(), shared.Calls())
	}
	// The customer takes the key away.
	own.Set(encrypttest.Refused)
	now.Advance(time.Minute)
	if err := read(k, "globex"); !errors.Is(err, encrypt.ErrAuth) {
		t.Errorf("a key that was taken away: %v", err)
	}
	if err := errors.Join(read(k, "acme"), write("acme")); err != nil {
		t.Errorf("another tenant: %v", err)
	}
	own.Set(encrypttest.Away)
	now.Advance(3 * time.Minute)
	for range 2 {
		if err := errors.Join(read(k, "globex"), read(k, "acme"), write("acme")); err != nil {
			t.Errorf("a key that is away: %v", err)
		}
		if err := write("globex"); !errors.Is(err, encrypt.ErrKMSUnavailable) {
			t.Errorf("a write with a key that is away: %v", err)
		}
	}
	// It cannot be found out which key it is: an outage like any other.
	own.Set(encrypttest.None)
	now.Advance(time.Second)
	if err := errors.Join(read(k, "globex"), write("globex")); err != nil {
		t.Fatal(err)
	}
	lookup = errors.New("the register of keys is away")
	now.Advance(time.Minute)
	if err := errors.Join(read(k, "globex"), write("globex"), read(k, "acme")); err != nil {
		t.Errorf("within the windows: %v", err)
	}
	now.Advance(3 * time.Minute)
	if err := write("globex"); !errors.Is(err, encrypt.ErrKMSUnavailable) {
		t.Errorf("a write past its window: %v", err)
	}
	if err := read(newKeeper(t, shared, store, opts), "globex"); !errors.Is(err, encrypt.ErrKMSUnavailable) || !errors.Is(err, lookup) {
		t.Errorf("a new process: %v", err)
	}
	lookup = encrypt.ErrAuth
	if err := read(newKeeper(t, shared, store, opts), "globex"); !errors.Is(err, encrypt.ErrAuth) || errors.Is(err, encrypt.ErrKMSUnavailable) {
		t.Errorf("refused: %v", err)
	}
	lookup = nil
	now.Advance(time.Hour)
	if err := errors.Join(read(k, "globex"), write("globex")); err != nil {
		t.Errorf("recovered: %v", err)
	}
	// One tenant's KEK does not open another's epoch key.
	if err := read(newKeeper(t, shared, store, nil), "globex"); err == nil || errors.Is(err, encrypt.ErrKMSUnavailable) {
		t.Errorf("the shared KEK: %v", err)
	}
}

// TestEmptyTenant: reading where nothing was ever written is an alarm, asks no KEK and makes nothing.
func TestEmptyTenant(t *testing.T) {
	x := newStation(t)
	kek, store := newKEK(t), keys.NewMemory()
	k := newKeeper(t, kek, store, nil)
	detail, err := x.k.SealFor(ctx, "acme", rec.Person, "log", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x.k.SealTenant(ctx, "acme", "password", nil, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	indexed := indexedCodec(t, onlyFolded)
	for what, f := range map[string]func() error{
		"Open": func() error { _, err := x.c.Open(ctx, k, rec, x.sealed.Fields, &single{}, "name"); return err },
		"OpenAll": func() error {
			_, err := x.c.OpenAll(ctx, k, []encrypt.Record{rec, rec}, [][]encrypt.SealedField{x.sealed.Fields, x.sealed.Fields}, []*single{{}, {}}, "name")
			return err
		},
		"OpenTo":     func() error { _, err := x.c.OpenTo(ctx, k, &rec, nil, "name", x.sealed.Fields[0].Data); return err },
		"Query":      func() error { _, err := indexed.Query(ctx, k, "acme", "phone", "exact", "1"); return err },
		"OpenFor":    func() error { _, err := k.OpenFor(ctx, "acme", rec.Person, "log", nil, detail); return err },
		"OpenTenant": func() error { _, err := k.OpenTenant(ctx, "acme", "password", nil, secret); return err },
		"VerifyMAC":  func() error { return k.VerifyMAC(ctx, "acme", "row", nil, nil) },
		"Joined":     func() error { _, err := k.Joined(ctx, "acme", rec.Person); return err },
		"Rotate":     func() error { return k.Rotate(ctx, "acme", nil) },
		"Renew":      func() error { _, err := k.Renew(ctx, "acme"); return err },
		"Retire":     func() error { return k.Retire(ctx, "acme", nil) },
	} {
		for range 2 {
			if err := f(); !errors.Is(err, encrypt.ErrKeyMissing) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if got, err := store.Find(ctx, "acme", keys.Query{All: true}); err != nil || len(got) != 0 || kek.Calls() != 0 {
		t.Errorf("%d records and %d calls of the KEK, %v", len(got), kek.Calls(), err)
	}
	// Nothing to open is nothing to ask for.
	if _, err := x.c.Open(ctx, k, rec, nil, &single{}, "name"); err != nil {
		t.Error(err)
	}
	if due, err := k.Due(ctx, "acme"); err != nil || due != nil {
		t.Errorf("%v, %v", due, err)
	}
}
