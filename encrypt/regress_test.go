package encrypt_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
)

// TestPageOfSeveralNumbers: the records of a page were read at different times; the newest number counts.
func TestPageOfSeveralNumbers(t *testing.T) {
	x := newCached(t, 2, encrypt.Options{CacheAge: time.Hour})
	other := newKeeper(t, x.kek, x.store, &encrypt.Options{Grace: -1})
	fields := func(i int) []encrypt.SealedField { return []encrypt.SealedField{{Name: "name", Data: x.data[i]}} }
	var a, b single
	open := func() ([][]encrypt.State, error) {
		return x.c.OpenAll(ctx, x.k, x.recs, [][]encrypt.SealedField{fields(0), fields(1)}, []*single{&a, &b}, "name")
	}
	if _, err := open(); err != nil || b.Name.Expose() == "" {
		t.Fatal(err)
	}
	receipt, err := other.Erase(ctx, "acme", x.recs[1].Person, nil)
	if err != nil {
		t.Fatal(err)
	}
	x.recs[0].Erasure, x.recs[1].Erasure = 1, receipt.Number
	if st, err := open(); err != nil || st[1][0] != encrypt.StateErased || b.Name.Expose() != "" || a.Name.Expose() == "" {
		t.Fatalf("%v, %v", st, err)
	}
}

// gate stops one Unwrap until it is told to go on.
type gate struct {
	keys.KEK
	on       atomic.Bool
	at, goOn chan struct{}
}

func (g *gate) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	if g.on.CompareAndSwap(true, false) {
		close(g.at)
		<-g.goOn
	}
	return g.KEK.Unwrap(ctx, wrapped, ad)
}

// TestRefreshBesideRetire: a refresh that has read the keys from before a Retire does not stand for those after it.
func TestRefreshBesideRetire(t *testing.T) {
	kek, store, now, c := newKEK(t), keys.NewMemory(), new(clock), singleCodec(t)
	now.Advance(time.Hour)
	g := &gate{KEK: kek, at: make(chan struct{}), goOn: make(chan struct{})}
	a := newKeeper(t, kek, store, nil)
	b := newKeeper(t, g, store, &encrypt.Options{Now: now.Now, CacheAge: 100 * time.Hour, Refresh: time.Hour})
	r := encrypt.Record{Tenant: "acme", ID: [16]byte{1}, Person: [16]byte{2}}
	old, err := c.SealTo(ctx, b, &r, nil, "name", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	now.Advance(time.Hour) // a refresh is due
	g.on.Store(true)
	done := make(chan struct{})
	read := func(r encrypt.Record) {
		c.OpenTo(ctx, b, &r, nil, "name", old) // either answer is right while it happens
		done <- struct{}{}
	}
	go read(r)
	<-g.at // it has read the records and asks the KEK
	if _, err := a.Renew(ctx, "acme"); err != nil {
		t.Fatal(err)
	}
	if err := a.Retire(ctx, "acme", nil); err != nil {
		t.Fatal(err)
	}
	told := r
	if told.Erasure, err = a.Erasures(ctx, "acme"); err != nil {
		t.Fatal(err)
	}
	go read(told)
	time.Sleep(20 * time.Millisecond) // it waits for the refresh
	close(g.goOn)
	<-done
	<-done
	if _, err := c.OpenTo(ctx, b, &r, nil, "name", old); !errors.Is(err, encrypt.ErrRetired) {
		t.Fatalf("a retired key: %v", err)
	}
	fresh, err := c.SealTo(ctx, b, &r, nil, "name", []byte("written afterwards"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.OpenTo(ctx, a, &r, nil, "name", fresh); err != nil || string(got) != "written afterwards" {
		t.Fatalf("%q, %v", got, err)
	}
}

// TestWriteInTheGrace: a key that is made after an erasure was asked for does not put it off.
func TestWriteInTheGrace(t *testing.T) {
	type two struct {
		Name encrypt.Text `protect:"personal"`
		IBAN encrypt.Text `protect:"financial,retention=contract"`
	}
	c, err := encrypt.NewCodec[*two](nil)
	if err != nil {
		t.Fatal(err)
	}
	now := new(clock)
	now.Advance(time.Hour)
	k := newKeeper(t, newKEK(t), keys.NewMemory(), &encrypt.Options{Now: now.Now})
	r := encrypt.Record{Tenant: "acme", ID: [16]byte{1}, Person: [16]byte{2}}
	if _, err := c.Seal(ctx, k, r, &two{Name: encrypt.NewText("n")}, nil); err != nil {
		t.Fatal(err)
	}
	opts := &encrypt.EraseOptions{Classes: []keys.Retention{keys.Ordinary, keys.Contract}}
	asked, err := k.Erase(ctx, "acme", r.Person, opts)
	if err != nil || asked.Due.IsZero() {
		t.Fatalf("%+v, %v", asked, err)
	}
	now.Advance(71 * time.Hour)
	if _, err := c.Seal(ctx, k, r, &two{IBAN: encrypt.NewText("x")}, nil); err != nil {
		t.Fatal(err)
	}
	if again, err := k.Erase(ctx, "acme", r.Person, opts); err != nil || !again.Due.Equal(asked.Due) {
		t.Fatalf("due %v, then %v, %v", asked.Due, again.Due, err)
	}
	now.Advance(2 * time.Hour)
	if got, err := k.Erase(ctx, "acme", r.Person, opts); err != nil || len(got.Keys) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
}

// TestErasedWhileTheKEKIsAway: a process that cannot read the new epoch opens no erased person with the key that it
// used last.
func TestErasedWhileTheKEKIsAway(t *testing.T) {
	kek, store, c := newKEK(t), keys.NewMemory(), singleCodec(t)
	far := newKEKOver(kek)
	a := newKeeper(t, kek, store, &encrypt.Options{Grace: -1})
	b := newKeeper(t, far, store, nil)
	r := encrypt.Record{Tenant: "acme", ID: [16]byte{1}, Person: [16]byte{2}}
	data, err := c.SealTo(ctx, a, &r, nil, "name", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.OpenTo(ctx, b, &r, nil, "name", data); err != nil {
		t.Fatal(err)
	}
	far.away.Store(true)
	if err := a.Rotate(ctx, "acme", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Erase(ctx, "acme", r.Person, nil); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, err := c.OpenTo(ctx, b, &r, nil, "name", data); err == nil {
			t.Fatalf("opened %q", got)
		}
	}
}

// farKEK can go away for one process only.
type farKEK struct {
	keys.KEK
	away atomic.Bool
}

func newKEKOver(kek keys.KEK) *farKEK { return &farKEK{KEK: kek} }

func (k *farKEK) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	if k.away.Load() {
		return nil, encrypt.ErrKMSUnavailable
	}
	return k.KEK.Wrap(ctx, plaintext, ad)
}

func (k *farKEK) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	if k.away.Load() {
		return nil, encrypt.ErrKMSUnavailable
	}
	return k.KEK.Unwrap(ctx, wrapped, ad)
}

// TestQueryShowsNothing: what was typed into a search prints nowhere.
func TestQueryShowsNothing(t *testing.T) {
	c, k := newCodec(t), newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	if _, err := c.Seal(ctx, k, rec, sample(), nil); err != nil {
		t.Fatal(err)
	}
	q, err := c.Query(ctx, k, "acme", "phone", "exact", "13800138000")
	if err != nil {
		t.Fatal(err)
	}
	assertHides(t, q, "13800138000")
	if c.Match(encrypt.Query{}, sample()) {
		t.Fatal("a Query of nobody matches")
	}
}

func assertHides(t *testing.T, v any, secret string) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if strings.Contains(fmt.Sprintf(verb, v), secret) {
			t.Fatalf("%s shows it", verb)
		}
	}
}
