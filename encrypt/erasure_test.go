package encrypt_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
)

type contact struct {
	Name     encrypt.Text `protect:"personal"`
	Terms    encrypt.Text `protect:"personal,retention=contract"`
	Income   encrypt.Text `protect:"financial,retention=tax"`
	Incident encrypt.Text `protect:"sensitive,retention=evidence"`
}

func contactCodec(t testing.TB) *encrypt.Codec[*contact] {
	t.Helper()
	c, err := encrypt.NewCodec[*contact](nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func contactOf() *contact {
	return &contact{encrypt.NewText("a"), encrypt.NewText("b"), encrypt.NewText("c"), encrypt.NewText("d")}
}

// state opens one field and returns its state.
func state(t testing.TB, c *encrypt.Codec[*contact], k *encrypt.Keeper, r encrypt.Record, s encrypt.Sealed, field string) encrypt.State {
	t.Helper()
	var v contact
	states, err := c.Open(ctx, k, r, s.Fields, &v, field)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]encrypt.Text{"name": v.Name, "terms": v.Terms, "income": v.Income, "incident": v.Incident} {
		st := encrypt.StateSealed
		if name == field {
			st = c.State(states, field)
		}
		if encrypt.State(text.ExposedState()) != st || (text.Expose() != "") != (st == encrypt.StateClear) {
			t.Fatalf("%s: state %d shows %q", name, text.ExposedState(), text.Expose())
		}
	}
	return c.State(states, field)
}

func TestGrace(t *testing.T) {
	c, kek, store := contactCodec(t), newKEK(t), keys.NewMemory()
	var now clock
	now.Advance(1000 * time.Hour)
	opts := &encrypt.Options{Now: now.Now, Grace: 10 * time.Hour, Refresh: 1000 * time.Hour, CacheAge: 1000 * time.Hour}
	a, b := newKeeper(t, kek, store, opts), newKeeper(t, kek, store, opts)
	s, err := c.Seal(ctx, a, rec, contactOf(), nil)
	if err != nil {
		t.Fatal(err)
	}
	detail, err := a.SealFor(ctx, "acme", rec.Person, "log", nil, []byte("10.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	everywhere := func(what string, check func(k *encrypt.Keeper) error) {
		t.Helper()
		for name, k := range map[string]*encrypt.Keeper{"here": a, "in another process": b, "in a new process": newKeeper(t, kek, store, opts)} {
			if err := check(k); err != nil {
				t.Errorf("%s, %s: %v", what, name, err)
			}
		}
	}
	serves := func(k *encrypt.Keeper) error {
		if st := state(t, c, k, rec, s, "name"); st != encrypt.StateClear {
			return fmt.Errorf("the state is %s", st)
		}
		if _, err := k.OpenFor(ctx, "acme", rec.Person, "log", nil, detail); err != nil {
			return err
		}
		if _, err := c.OpenTo(ctx, k, &rec, nil, "name", s.Fields[2].Data); err != nil {
			return err
		}
		_, err := c.Seal(ctx, k, rec, contactOf(), s.Fields)
		return err
	}
	want := func(what string, err, is error) error {
		if !errors.Is(err, is) {
			return fmt.Errorf("%s: got %v, want %v", what, err, is)
		}
		return nil
	}
	blocked := func(k *encrypt.Keeper) error {
		if st := state(t, c, k, rec, s, "name"); st != encrypt.StateSealed {
			return fmt.Errorf("the state is %s", st)
		}
		if st := state(t, c, k, rec, s, "terms"); st != encrypt.StateClear {
			return fmt.Errorf("another class's state is %s", st)
		}
		_, err1 := k.OpenFor(ctx, "acme", rec.Person, "log", nil, detail)
		_, err2 := k.SealFor(ctx, "acme", rec.Person, "log", nil, nil)
		_, err3 := c.Seal(ctx, k, rec, contactOf(), s.Fields)
		_, err4 := c.SealAll(ctx, k, []encrypt.Record{rec}, []*contact{contactOf()})
		_, err5 := c.SealTo(ctx, k, &rec, nil, "name", []byte("x"))
		_, err6 := c.OpenTo(ctx, k, &rec, nil, "name", s.Fields[2].Data)
		return errors.Join(
			want("OpenFor", err1, encrypt.ErrBlocked), want("SealFor", err2, encrypt.ErrBlocked), want("Seal", err3, encrypt.ErrBlocked),
			want("SealAll", err4, encrypt.ErrBlocked), want("SealTo", err5, encrypt.ErrBlocked), want("OpenTo", err6, encrypt.ErrBlocked),
		)
	}
	everywhere("before", serves)
	start := now.Now()
	receipt, err := a.Erase(ctx, "acme", rec.Person, nil)
	if err != nil || len(receipt.Keys) != 0 || !receipt.Due.Equal(start.Add(10*time.Hour)) || !receipt.GoneBy.IsZero() || receipt.Number != 2 || !slices.Equal(receipt.Persons, [][16]byte{rec.Person}) {
		t.Fatalf("receipt %+v, %v", receipt, err)
	}
	everywhere("blocked", blocked)
	// A write that leaves the blocked fields alone goes on: what is not shown is kept.
	var v contact
	if _, err := c.Open(ctx, b, rec, s.Fields, &v, c.SealedNames()...); err != nil {
		t.Fatal(err)
	}
	v.Terms = encrypt.NewText("new")
	kept, err := c.Seal(ctx, b, rec, &v, s.Fields)
	if err != nil || len(kept.Fields) != 4 {
		t.Errorf("a write beside a blocked field: %v", err)
	}
	// Taken back.
	if err := b.Spare(ctx, "acme", rec.Person); err != nil {
		t.Fatal(err)
	}
	everywhere("spared", serves)
	if err := b.Spare(ctx, "acme", rec.Person); err != nil {
		t.Errorf("spared twice: %v", err)
	}
	if st := state(t, c, a, rec, kept, "name"); st != encrypt.StateClear {
		t.Errorf("what was kept while blocked is %s", st)
	}
	// Asked for anew: the grace begins anew.
	now.Advance(9 * time.Hour)
	start = now.Now()
	if _, err := b.Erase(ctx, "acme", rec.Person, nil); err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Duration{0, time.Hour, 8*time.Hour + 59*time.Minute + 59*time.Second} {
		now.now.Store(start.Add(time.Hour + at).UnixNano())
		if due, err := a.Due(ctx, "acme"); err != nil || len(due) != 0 {
			t.Errorf("due after %s: %v, %v", at+time.Hour, due, err)
		}
		receipt, err := a.Erase(ctx, "acme", rec.Person, nil)
		if err != nil || len(receipt.Keys) != 0 || !receipt.Due.Equal(start.Add(10*time.Hour)) {
			t.Errorf("after %s: %+v, %v", at+time.Hour, receipt, err)
		}
		everywhere("still blocked", blocked)
	}
	now.now.Store(start.Add(10 * time.Hour).UnixNano())
	if due, err := b.Due(ctx, "acme"); err != nil || !slices.Equal(due, [][16]byte{rec.Person}) {
		t.Errorf("due: %v, %v", due, err)
	}
	everywhere("due, not erased", blocked)
	receipt, err = b.Erase(ctx, "acme", rec.Person, nil)
	if err != nil || len(receipt.Keys) != 1 || !receipt.Due.IsZero() || receipt.GoneBy.IsZero() || !receipt.At.Equal(now.Now()) {
		t.Fatalf("receipt %+v, %v", receipt, err)
	}
	erased := func(k *encrypt.Keeper) error {
		if st := state(t, c, k, rec, s, "name"); st != encrypt.StateErased {
			return fmt.Errorf("the state is %s", st)
		}
		_, err1 := k.OpenFor(ctx, "acme", rec.Person, "log", nil, detail)
		_, err2 := c.OpenTo(ctx, k, &rec, nil, "name", s.Fields[2].Data)
		return errors.Join(want("OpenFor", err1, encrypt.ErrErased), want("OpenTo", err2, encrypt.ErrErased))
	}
	everywhere("erased", erased)
	if err := a.Spare(ctx, "acme", rec.Person); err != nil {
		t.Errorf("spared too late: %v", err)
	}
	everywhere("spared too late", erased)
	if due, err := a.Due(ctx, "acme"); err != nil || len(due) != 0 {
		t.Errorf("due afterwards: %v, %v", due, err)
	}
	again, err := a.Erase(ctx, "acme", rec.Person, nil)
	if err != nil || len(again.Keys) != 0 || again.Number != receipt.Number || !again.GoneBy.IsZero() {
		t.Errorf("erased twice: %+v, %v", again, err)
	}
	if _, err := a.Due(ctx, ""); err == nil {
		t.Error("no tenant")
	}
}

func TestEraseHeld(t *testing.T) {
	c, kek, store := contactCodec(t), newKEK(t), keys.NewMemory()
	var now clock
	now.Advance(time.Hour)
	held := map[[16]byte]bool{}
	var asked []keys.Retention
	away := error(nil)
	k := newKeeper(t, kek, store, &encrypt.Options{Now: now.Now, Grace: time.Hour, Refresh: 1000 * time.Hour,
		Held: func(_ context.Context, tenant string, p [16]byte, classes []keys.Retention) (bool, error) {
			if tenant != "acme" {
				t.Errorf("asked for tenant %q", tenant)
			}
			asked = classes
			return held[p], away
		}})
	s, err := c.Seal(ctx, k, rec, contactOf(), nil)
	if err != nil {
		t.Fatal(err)
	}
	brother := [16]byte{88}
	if err := k.Join(ctx, "acme", rec.Person, brother); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, is error) {
		t.Helper()
		r, err := k.Erase(ctx, "acme", rec.Person, nil)
		if !errors.Is(err, is) || r.Persons != nil || r.Keys != nil {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
		if err := k.MayErase(ctx, "acme", rec.Person, nil); !errors.Is(err, is) {
			t.Errorf("%s: asked before: %v", what, err)
		}
	}
	if err := k.MayErase(ctx, "acme", rec.Person, nil); err != nil || state(t, c, k, rec, s, "name") != encrypt.StateClear {
		t.Errorf("asked before: %v", err)
	}
	held[brother] = true
	refused("a joined person is held", encrypt.ErrHeld)
	held[brother], held[rec.Person] = false, true
	refused("the person is held", encrypt.ErrHeld)
	away = errors.New("the register is away")
	refused("the register is away", away)
	away = nil
	if st := state(t, c, k, rec, s, "name"); st != encrypt.StateClear {
		t.Errorf("a refused erasure has left the state %s", st)
	}
	held[rec.Person] = false
	if _, err := k.Erase(ctx, "acme", rec.Person, nil); err != nil || !slices.Equal(asked, []keys.Retention{keys.Ordinary}) {
		t.Fatalf("asked for %v, %v", asked, err)
	}
	now.Advance(2 * time.Hour)
	held[rec.Person] = true // a hold that came during the grace
	refused("held in the grace", encrypt.ErrHeld)
	if st := state(t, c, k, rec, s, "name"); st != encrypt.StateSealed {
		t.Errorf("held in the grace: %s", st)
	}
	held[rec.Person] = false
	if r, err := k.Erase(ctx, "acme", rec.Person, nil); err != nil || len(r.Keys) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestEraseLimit(t *testing.T) {
	kek := newKEK(t)
	var now clock
	now.Advance(100 * time.Hour)
	make5 := func(k *encrypt.Keeper) {
		t.Helper()
		for i := range 5 {
			if _, err := k.SealFor(ctx, "acme", [16]byte{byte(i + 1)}, "log", nil, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	store := keys.NewMemory()
	opts := encrypt.Options{Now: now.Now, Grace: -1, EraseLimit: 2, Refresh: 1000 * time.Hour}
	a, b := newKeeper(t, kek, store, &opts), newKeeper(t, kek, store, &opts)
	make5(a)
	erase := func(k *encrypt.Keeper, i byte, approved bool, is error) {
		t.Helper()
		r, err := k.Erase(ctx, "acme", [16]byte{i}, &encrypt.EraseOptions{Approved: approved})
		if !errors.Is(err, is) || err == nil && len(r.Keys) == 0 || err != nil && r.Keys != nil {
			t.Errorf("person %d: %+v, %v; want %v", i, r, err, is)
		}
	}
	erase(a, 1, false, nil)
	erase(b, 2, false, nil)
	erase(a, 3, false, encrypt.ErrLimit)
	erase(b, 3, false, encrypt.ErrLimit) // the limit is the tenant's, not the process's
	now.Advance(24 * time.Hour)
	erase(a, 3, false, encrypt.ErrLimit) // the last second of the day
	now.Advance(time.Second)
	erase(a, 3, false, nil)
	erase(a, 4, false, nil)
	erase(b, 5, false, encrypt.ErrLimit)
	if _, err := b.OpenFor(ctx, "acme", [16]byte{5}, "log", nil, make([]byte, 60)); !errors.Is(err, encrypt.ErrTampered) {
		t.Error(err)
	}
	erase(b, 5, true, nil)
	// What is not there needs no approval.
	if r, err := a.Erase(ctx, "acme", [16]byte{77}, nil); err != nil || len(r.Keys) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	free := keys.NewMemory()
	k := newKeeper(t, kek, free, &encrypt.Options{Grace: -1, EraseLimit: -1})
	make5(k)
	for i := range 5 {
		erase(k, byte(i+1), false, nil)
	}
}

// TestEraseLimitCountsPersons: joined ids are persons, each counts; so does a block, which makes a person unreadable at
// once.
func TestEraseLimitCountsPersons(t *testing.T) {
	for _, grace := range []time.Duration{-1, time.Hour} {
		k := newKeeper(t, newKEK(t), keys.NewMemory(), &encrypt.Options{Grace: grace, EraseLimit: 3})
		for i := byte(1); i <= 9; i++ {
			if _, err := k.SealFor(ctx, "acme", [16]byte{i}, "log", nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		for i := byte(2); i <= 5; i++ {
			if err := k.Join(ctx, "acme", [16]byte{1}, [16]byte{i}); err != nil {
				t.Fatal(err)
			}
		}
		erase := func(i byte, approved bool, is error) {
			t.Helper()
			if _, err := k.Erase(ctx, "acme", [16]byte{i}, &encrypt.EraseOptions{Approved: approved}); !errors.Is(err, is) {
				t.Errorf("grace %s, person %d: %v, want %v", grace, i, err, is)
			}
		}
		erase(1, false, encrypt.ErrLimit) // five persons at once
		erase(6, false, nil)
		erase(7, false, nil)
		erase(8, false, nil)
		erase(9, false, encrypt.ErrLimit)
		erase(8, false, nil) // asked again
		erase(1, true, nil)
		erase(9, false, encrypt.ErrLimit)
	}
}

func TestEraseClasses(t *testing.T) {
	c := contactCodec(t)
	names := map[keys.Retention]string{keys.Ordinary: "name", keys.Contract: "terms", keys.Tax: "income", keys.Evidence: "incident"}
	for _, classes := range [][]keys.Retention{
		nil, {}, {keys.Ordinary}, {keys.Contract}, {keys.Tax, keys.Evidence}, {keys.Ordinary, keys.Contract, keys.Tax, keys.Evidence}, {"other"},
	} {
		k := newKeeper(t, newKEK(t), keys.NewMemory(), &encrypt.Options{Grace: -1})
		s, err := c.Seal(ctx, k, rec, contactOf(), nil)
		if err != nil {
			t.Fatal(err)
		}
		want := classes
		if len(want) == 0 {
			want = []keys.Retention{keys.Ordinary}
		}
		r, err := k.Erase(ctx, "acme", rec.Person, &encrypt.EraseOptions{Classes: classes})
		if err != nil || len(r.Keys) != len(want) && !slices.Contains(want, "other") {
			t.Errorf("%q: %+v, %v", classes, r, err)
		}
		for class, name := range names {
			st := encrypt.StateClear
			if slices.Contains(want, class) {
				st = encrypt.StateErased
			}
			if got := state(t, c, k, rec, s, name); got != st {
				t.Errorf("%q: %s is %s", classes, name, got)
			}
		}
	}
}

func TestJoined(t *testing.T) {
	kek, store := newKEK(t), keys.NewMemory()
	k := newKeeper(t, kek, store, &encrypt.Options{Grace: -1})
	p := func(i byte) [16]byte { return [16]byte{i} }
	sealed := map[byte][]byte{}
	for i := byte(1); i <= 6; i++ {
		b, err := k.SealFor(ctx, "acme", p(i), "log", nil, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		sealed[i] = b
	}
	for _, j := range [][2]byte{{1, 2}, {3, 2}, {3, 4}, {1, 2}, {4, 1}} { // a ring, one of them twice
		if err := k.Join(ctx, "acme", p(j[0]), p(j[1])); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range [][2][16]byte{{p(1), p(1)}, {p(0), p(1)}, {p(1), p(0)}, {p(0), p(0)}} {
		if err := k.Join(ctx, "acme", bad[0], bad[1]); err == nil {
			t.Errorf("joined %v", bad)
		}
	}
	members := func(k *encrypt.Keeper, of byte) (string, error) {
		all, err := k.Joined(ctx, "acme", p(of))
		var s []string
		for i, q := range all {
			if i == 0 && q != p(of) {
				t.Errorf("the first of %d is %d", of, q[0])
			}
			s = append(s, fmt.Sprint(q[0]))
		}
		slices.Sort(s)
		return strings.Join(s, ""), err
	}
	for i, want := range map[byte]string{1: "1234", 2: "1234", 3: "1234", 4: "1234", 5: "5", 9: "9"} {
		if got, err := members(newKeeper(t, kek, store, nil), i); err != nil || got != want {
			t.Errorf("joined to %d: %s, %v", i, got, err)
		}
	}
	if _, err := k.Joined(ctx, "other", p(1)); !errors.Is(err, encrypt.ErrKeyMissing) {
		t.Errorf("a tenant without keys: %v", err)
	}
	// Half of each join is enough, whichever it is.
	for _, half := range []bool{true, false} {
		part := copyStore(t, store, func(r *keys.Record) bool {
			return r.Kind != keys.Join || (fmt.Sprintf("%x", r.Person[:]) < r.Purpose) == half
		})
		for i := byte(1); i <= 4; i++ {
			if got, err := members(newKeeper(t, kek, part, nil), i); err != nil || got != "1234" {
				t.Errorf("half of the joins, %d: %s, %v", i, got, err)
			}
		}
	}
	// Forged joins: each is an alarm, and nobody is erased by it.
	joins, err := store.Find(ctx, "acme", keys.Query{Joins: [][16]byte{p(1)}})
	if err != nil || len(joins) == 0 {
		t.Fatal(err)
	}
	forge := func(what string, change func(r *keys.Record)) {
		t.Helper()
		done := false
		forged := copyStore(t, store, func(r *keys.Record) bool {
			if !done && r.Kind == keys.Join && r.ID == joins[0].ID {
				r.Wrapped = slices.Clone(r.Wrapped)
				change(r)
				done = true
			}
			return true
		})
		k := newKeeper(t, kek, forged, &encrypt.Options{Grace: -1})
		whose := joins[0].Person
		if what == "another person" {
			whose = p(6)
		}
		_, err1 := k.Joined(ctx, "acme", whose)
		_, err2 := k.Erase(ctx, "acme", whose, nil)
		err3 := k.Spare(ctx, "acme", whose)
		for _, err := range []error{err1, err2, err3} {
			if !errors.Is(err, encrypt.ErrTampered) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := k.OpenFor(ctx, "acme", p(6), "log", nil, sealed[6]); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	forge("a flipped bit", func(r *keys.Record) { r.Wrapped[0] ^= 1 })
	forge("no HMAC", func(r *keys.Record) { r.Wrapped = nil })
	forge("a short HMAC", func(r *keys.Record) { r.Wrapped = r.Wrapped[:16] })
	forge("another person", func(r *keys.Record) { r.Person = p(6) })
	forge("another other", func(r *keys.Record) { r.Purpose = fmt.Sprintf("%x", p(6)) })
	forge("a longer other", func(r *keys.Record) { r.Purpose += "00" })
	forge("no other", func(r *keys.Record) { r.Purpose = "" })
	forge("no hexadecimal", func(r *keys.Record) { r.Purpose = strings.Repeat("x", 32) })
	// The erasure of one is the erasure of all.
	r, err := k.Erase(ctx, "acme", p(3), nil)
	if err != nil || len(r.Keys) != 4 || len(r.Persons) != 4 || r.Persons[0] != p(3) {
		t.Fatalf("%+v, %v", r, err)
	}
	for i, b := range sealed {
		_, err := k.OpenFor(ctx, "acme", p(i), "log", nil, b)
		if want := i <= 4; want != errors.Is(err, encrypt.ErrErased) || !want && err != nil {
			t.Errorf("person %d: %v", i, err)
		}
	}
	// Who joins later is erased by the next one, with its own grace.
	if err := k.Join(ctx, "acme", p(5), p(2)); err != nil {
		t.Fatal(err)
	}
	if r, err := k.Erase(ctx, "acme", p(1), nil); err != nil || len(r.Keys) != 1 || len(r.Persons) != 5 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestForgedErasures(t *testing.T) {
	c, kek, store := contactCodec(t), newKEK(t), keys.NewMemory()
	now := &encrypt.Options{Grace: -1}
	k := newKeeper(t, kek, store, now)
	s, err := c.Seal(ctx, k, rec, contactOf(), nil)
	if err != nil {
		t.Fatal(err)
	}
	neighbour := rec
	neighbour.ID, neighbour.Person = [16]byte{5}, [16]byte{6}
	theirs, err := c.Seal(ctx, k, neighbour, contactOf(), nil)
	if err != nil {
		t.Fatal(err)
	}
	living, err := store.Find(ctx, "acme", keys.Query{Persons: [][16]byte{rec.Person}})
	if err != nil {
		t.Fatal(err)
	}
	before := copyStore(t, store, nil)
	backup := exported(t, k)
	if _, err := k.Erase(ctx, "acme", rec.Person, nil); err != nil {
		t.Fatal(err)
	}
	read := func(store keys.Store, r encrypt.Record, s encrypt.Sealed) (encrypt.State, error) {
		var v contact
		states, err := c.Open(ctx, newKeeper(t, kek, store, nil), r, s.Fields, &v, "name")
		return c.State(states, "name"), err
	}
	if st, err := read(store, rec, s); err != nil || st != encrypt.StateErased {
		t.Fatalf("%s, %v", st, err)
	}
	// What is altered in the database is never an erasure.
	for what, change := range map[string]func(r *keys.Record) bool{
		"no tombstone":   func(r *keys.Record) bool { return false },
		"a flipped HMAC": func(r *keys.Record) bool { r.Wrapped = slices.Clone(r.Wrapped); r.Wrapped[3] ^= 1; return true },
		"no HMAC":        func(r *keys.Record) bool { r.Wrapped = nil; return true },
		"another owner": func(r *keys.Record) bool {
			r.Commitment = slices.Clone(r.Commitment)
			r.Commitment[0] ^= 1
			return true
		},
		"another time":           func(r *keys.Record) bool { r.Created = r.Created.Add(time.Second); return true },
		"another class":          func(r *keys.Record) bool { r.Retention = keys.Tax; return true },
		"HMAC and owner swapped": func(r *keys.Record) bool { r.Wrapped, r.Commitment = r.Commitment, r.Wrapped; return true },
	} {
		forged := copyStore(t, store, func(r *keys.Record) bool { return r.Kind != keys.Tombstone || change(r) })
		want := encrypt.ErrTampered
		if what == "no tombstone" {
			want = encrypt.ErrKeyMissing
		}
		if st, err := read(forged, rec, s); !errors.Is(err, want) {
			t.Errorf("%s: %s, %v", what, st, err)
		}
	}
	// A tombstone in the place of another person's key is none.
	var tomb keys.Record
	tombs, err := store.Find(ctx, "acme", keys.Query{Since: 1})
	if err != nil || len(tombs) != 1 {
		t.Fatal(err)
	}
	tomb = tombs[0]
	moved := copyStore(t, store, func(r *keys.Record) bool {
		if r.Person == neighbour.Person && r.Retention == keys.Ordinary {
			id := r.ID
			*r = tomb
			r.ID = id
		}
		return true
	})
	if st, err := read(moved, neighbour, theirs); !errors.Is(err, encrypt.ErrTampered) {
		t.Errorf("a moved tombstone: %s, %v", st, err)
	}
	// The tombstone does not say whose it was: with another person the answer is not "erased".
	r := rec
	r.Person = [16]byte{99}
	if st, err := read(store, r, s); !errors.Is(err, encrypt.ErrTampered) {
		t.Errorf("another person's tombstone: %s, %v", st, err)
	}
	// The key record put back: the store and an import refuse it for its tombstone.
	if err := store.Add(ctx, "acme", living); err != nil {
		t.Fatal(err)
	}
	if err := k.ImportKeys(ctx, "acme", backup); err != nil {
		t.Fatal(err)
	}
	if st, err := read(store, rec, s); err != nil || st != encrypt.StateErased {
		t.Errorf("a key that was put back: %s, %v", st, err)
	}
	// Whoever writes over the tombstone itself brings the value back until the epoch ends, not longer.
	if err := k.Rotate(ctx, "acme", nil); err != nil {
		t.Fatal(err)
	}
	over := func(r *keys.Record) bool {
		for i := range living {
			if r.ID == living[i].ID && r.Kind == keys.Tombstone {
				*r = living[i]
			}
		}
		return true
	}
	all, err := store.Find(ctx, "acme", keys.Query{All: true})
	if err != nil {
		t.Fatal(err)
	}
	overwritten := &overwrittenStore{Store: store, records: map[keys.ID]keys.Record{}}
	for _, r := range all {
		if over(&r) && r.Kind == keys.PersonKey {
			overwritten.records[r.ID] = r
		}
	}
	if st, err := read(overwritten, rec, s); !errors.Is(err, encrypt.ErrRetired) && !errors.Is(err, encrypt.ErrTampered) {
		t.Errorf("an old key record after the epoch: %s, %v", st, err)
	}
	// Nor does a whole old copy of the key store open: Rotate has ended that version of the KEK.
	if st, err := read(before, rec, s); !errors.Is(err, encrypt.ErrRetired) {
		t.Errorf("an old copy of the key store after the epoch: %s, %v", st, err)
	}
}

// overwrittenStore answers with other records than the store has.
type overwrittenStore struct {
	keys.Store
	records map[keys.ID]keys.Record
}

func (o *overwrittenStore) Find(ctx context.Context, tenant string, q keys.Query) ([]keys.Record, error) {
	out, err := o.Store.Find(ctx, tenant, q)
	for i := range out {
		if r, ok := o.records[out[i].ID]; ok {
			out[i] = r
		}
	}
	return out, err
}

func TestReceiptDates(t *testing.T) {
	const day = 24 * time.Hour
	for _, tc := range []struct {
		epoch, copies, after time.Duration
		want                 time.Duration // from the beginning of the epoch
	}{
		// A tenant that is founded right before the first rotation has an epoch of its own to go.
		{30 * day, 7 * day, 0, 60 * day},
		{30 * day, 7 * day, 10 * day, 60 * day},
		{30 * day, 40 * day, 25 * day, 65 * day}, // the copies live longer
		{30 * day, 7 * day, 30 * day, 90 * day},  // a rotation that is overdue comes within an epoch
		{30 * day, 7 * day, 50 * day, 110 * day},
		{30 * day, 7 * day, 60 * day, 0}, // one was missed: not known
		{10 * day, 90 * day, 1 * day, 91 * day},
		{0, 0, 0, 60 * day}, // the defaults
		{0, 0, 29 * day, 60 * day},
	} {
		var now clock
		start := time.Date(2026, 1, 1, 0, 0, 0, 500, time.UTC)
		now.now.Store(start.UnixNano())
		k := newKeeper(t, newKEK(t), keys.NewMemory(), &encrypt.Options{Now: now.Now, Grace: -1, Epoch: tc.epoch, Copies: tc.copies, Refresh: 1000 * day})
		if _, err := k.SealFor(ctx, "acme", rec.Person, "log", nil, nil); err != nil {
			t.Fatal(err)
		}
		now.Advance(tc.after)
		r, err := k.Erase(ctx, "acme", rec.Person, nil)
		want := start.Truncate(time.Second).Add(tc.want)
		if tc.want == 0 {
			want = time.Time{}
		}
		if err != nil || !r.GoneBy.Equal(want) || r.GoneBy.Location() != time.UTC {
			t.Errorf("%+v: gone by %s, %v", tc, r.GoneBy, err)
		}
		if !r.At.Equal(start.Add(tc.after).Truncate(time.Second)) {
			t.Errorf("%+v: at %s", tc, r.At)
		}
	}
}

// eraser fails in Erase, before or after it is done.
type eraser struct {
	keys.Store
	before, after error
}

func (e *eraser) Erase(ctx context.Context, tenant string, tombs []keys.Record) (uint64, error) {
	if e.before != nil {
		return 0, e.before
	}
	n, err := e.Store.Erase(ctx, tenant, tombs)
	if err == nil {
		err = e.after
	}
	return n, err
}

func TestEraseStoreFails(t *testing.T) {
	store := &eraser{Store: keys.NewMemory()}
	k := newKeeper(t, newKEK(t), store, &encrypt.Options{Grace: -1})
	sealed, err := k.SealFor(ctx, "acme", rec.Person, "log", nil, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	store.before = errors.New("away")
	if r, err := k.Erase(ctx, "acme", rec.Person, nil); !errors.Is(err, store.before) || r.Keys != nil {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := k.OpenFor(ctx, "acme", rec.Person, "log", nil, sealed); err != nil {
		t.Errorf("after an erasure that failed: %v", err)
	}
	store.before, store.after = nil, keys.ErrTraces
	r, err := k.Erase(ctx, "acme", rec.Person, nil)
	if !errors.Is(err, keys.ErrTraces) || len(r.Keys) != 1 || r.Number != 2 || r.GoneBy.IsZero() {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := k.OpenFor(ctx, "acme", rec.Person, "log", nil, sealed); !errors.Is(err, encrypt.ErrErased) {
		t.Errorf("after an erasure that left traces: %v", err)
	}
}

// TestErasedWhileDropping: from the moment an erasure returns no read that begins shows the value, however
// many keys another process has to look through.
func TestErasedWhileDropping(t *testing.T) {
	const persons = 20_000
	kek, store := newKEK(t), keys.NewMemory()
	a, b := newKeeper(t, kek, store, &encrypt.Options{Grace: -1, EraseLimit: -1}), newKeeper(t, kek, store, nil)
	c := contactCodec(t)
	var recs []encrypt.Record
	var vs []*contact
	for i := range persons {
		recs = append(recs, encrypt.Record{Tenant: "acme", ID: [16]byte{1}, Person: [16]byte{byte(i), byte(i >> 8), byte(i >> 16), 1}})
		vs = append(vs, &contact{Name: encrypt.NewText("x")})
	}
	all, err := c.SealAll(ctx, b, recs, vs) // b has them all in its cache
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		at := i * (persons / 20)
		if _, err := a.Erase(ctx, "acme", recs[at].Person, nil); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 50 {
					var v contact
					states, err := c.Open(ctx, b, recs[at], all[at].Fields, &v, "name")
					if err != nil || c.State(states, "name") != encrypt.StateErased {
						t.Errorf("erasure %d: %s, %v", i, c.State(states, "name"), err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

// TestToldTooHigh: a number that no store ever had hides no erasure.
func TestToldTooHigh(t *testing.T) {
	c, store, kek := newCodec(t), keys.NewMemory(), newKEK(t)
	opts := &encrypt.Options{Grace: -1}
	a, b := newKeeper(t, kek, store, opts), newKeeper(t, kek, store, opts)
	sealed, err := c.Seal(ctx, a, rec, sample(), nil)
	if err != nil {
		t.Fatal(err)
	}
	lied := rec
	lied.Erasure = 1 << 40
	var v customer
	if _, err := c.Open(ctx, b, lied, sealed.Fields, &v, "phone"); err != nil || v.Phone.s == "" {
		t.Fatalf("%q, %v", v.Phone.s, err)
	}
	if _, err := a.Erase(ctx, "acme", rec.Person, nil); err != nil {
		t.Fatal(err)
	}
	for _, number := range []uint64{0, 2, 1 << 40} {
		told := rec
		told.Erasure = number
		st, err := c.Open(ctx, b, told, sealed.Fields, &v, "phone")
		if err != nil || c.State(st, "phone") != encrypt.StateErased {
			t.Fatalf("told %d: %v, %v", number, st, err)
		}
	}
}
