package intake_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt/intake"
	"github.com/crmguard/crmguard/encrypt/intake/intaketest"
	"github.com/crmguard/crmguard/encrypt/keys"
)

// is tells whether err is want itself, with nothing wrapped around it that could be an oracle.
func is(err, want error) bool { return any(err) == any(want) }

// vaultless is a Keeper with one key in memory.
type vaultless struct {
	gcm  cipher.AEAD
	fail error
}

func newKeeper(t testing.TB) *vaultless {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return &vaultless{gcm: gcm}
}

func bind(tenant, label string, ad []byte) []byte {
	return fmt.Appendf(nil, "%q %q %x", tenant, label, ad)
}

func (k *vaultless) SealTenant(_ context.Context, tenant, label string, ad, b []byte) ([]byte, error) {
	if k.fail != nil {
		return nil, k.fail
	}
	return k.gcm.Seal(nil, nil, b, bind(tenant, label, ad)), nil
}

func (k *vaultless) OpenTenant(_ context.Context, tenant, label string, ad, b []byte) ([]byte, error) {
	if k.fail != nil {
		return nil, k.fail
	}
	out, err := k.gcm.Open(nil, nil, b, bind(tenant, label, ad))
	if err != nil {
		return nil, keys.ErrTampered
	}
	return out, nil
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	c.t = c.t.Add(d)
	c.mu.Unlock()
}

const day = 24 * time.Hour

type world struct {
	keeper *vaultless
	store  *intake.Memory
	clock  *clock
}

func newWorld(t testing.TB) *world {
	return &world{newKeeper(t), &intake.Memory{}, &clock{t: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)}}
}

func (w *world) box(t testing.TB, tenant string) *intake.Box {
	t.Helper()
	b, err := intake.NewBox(tenant, w.keeper, w.store, &intake.Options{Now: w.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func public(t testing.TB, b *intake.Box) *intake.Public {
	t.Helper()
	p, err := b.Public(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var (
	ctx  = context.Background()
	form = []byte("form/contact/3")
	text = []byte(`{"name":"张伟","phone":"13800138000"}`)
)

func seal(t testing.TB, p *intake.Public, now time.Time) []byte {
	t.Helper()
	sealed, err := p.Seal(now, form, text)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestStore(t *testing.T) {
	intaketest.TestStore(t, func(testing.TB) intake.Store { return &intake.Memory{} })
}

func TestRoundTrip(t *testing.T) {
	w := newWorld(t)
	box := w.box(t, "acme")
	onHost, err := intake.ParsePublic(public(t, box).Marshal())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 1000, intake.MaxPlaintext} {
		plain := bytes.Repeat([]byte{5}, n)
		sealed, err := onHost.Seal(w.clock.now(), form, plain)
		if err != nil {
			t.Fatal(err)
		}
		if len(sealed) != n+intake.Overhead {
			t.Fatalf("%d bytes became %d", n, len(sealed))
		}
		// Another process with the same store opens it too.
		for _, b := range []*intake.Box{box, w.box(t, "acme")} {
			if got, err := b.Open(ctx, form, sealed); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
	}
	if _, err := onHost.Seal(w.clock.now(), form, make([]byte, intake.MaxPlaintext+1)); err == nil {
		t.Fatal("a text over the bound was sealed")
	}
	a, b := seal(t, onHost, w.clock.now()), seal(t, onHost, w.clock.now())
	if bytes.Equal(a[25:], b[25:]) || bytes.Contains(a, []byte("13800138000")) {
		t.Fatal("sealing is not random, or no sealing")
	}
}

// TestWeeks walks through five weeks: at any time there is a key with a day left, everything that arrives
// within a day opens, and nothing does a day after its key's end.
func TestWeeks(t *testing.T) {
	w := newWorld(t)
	box := w.box(t, "acme")
	type entry struct {
		sealed []byte
		ends   time.Time
	}
	var entries []entry
	seen := map[intake.ID]bool{}
	for range 35 * 2 {
		p := public(t, box)
		if p.NotAfter().Sub(w.clock.now()) < day || p.NotAfter().Sub(w.clock.now()) > 7*day {
			t.Fatalf("a key with %v left", p.NotAfter().Sub(w.clock.now()))
		}
		seen[p.ID()] = true
		entries = append(entries, entry{seal(t, p, w.clock.now()), p.NotAfter()})
		for _, e := range entries {
			_, err := box.Open(ctx, form, e.sealed)
			if w.clock.now().After(e.ends.Add(day)) {
				if !errors.Is(err, keys.ErrRetired) {
					t.Fatalf("a destroyed key: %v", err)
				}
			} else if err != nil {
				t.Fatalf("a living key: %v", err)
			}
		}
		if _, err := box.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if records, _ := w.store.List(ctx, "acme"); len(records) > 2 {
			t.Fatalf("%d keys are alive", len(records))
		}
		w.clock.add(12 * time.Hour)
	}
	if len(seen) < 5 || len(seen) > 6 {
		t.Fatalf("%d keys in five weeks", len(seen))
	}
}

// TestDestroyed: with everything that is left, and with the record that somebody kept, nothing opens any more.
func TestDestroyed(t *testing.T) {
	w := newWorld(t)
	box := w.box(t, "acme")
	p := public(t, box)
	sealed := seal(t, p, w.clock.now())
	kept, _ := w.store.List(ctx, "acme")

	w.clock.t = p.NotAfter().Add(day)
	if n, err := box.Sweep(ctx); n != 0 || err != nil {
		t.Fatalf("swept %d too early: %v", n, err)
	}
	if _, err := box.Open(ctx, form, sealed); err != nil {
		t.Fatalf("the last second: %v", err)
	}
	w.clock.add(time.Second)
	if _, err := box.Open(ctx, form, sealed); !errors.Is(err, keys.ErrRetired) {
		t.Fatalf("not yet swept, but over: %v", err)
	}
	if n, err := box.Sweep(ctx); n != 1 || err != nil {
		t.Fatalf("swept %d: %v", n, err)
	}
	if records, _ := w.store.List(ctx, "acme"); len(records) != 0 {
		t.Fatal("the key is still there")
	}
	if _, err := box.Open(ctx, form, sealed); !errors.Is(err, keys.ErrRetired) {
		t.Fatalf("after the sweep: %v", err)
	}
	// Somebody puts the old record back.
	if err := w.store.Add(ctx, "acme", kept[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := box.Open(ctx, form, sealed); !errors.Is(err, keys.ErrRetired) {
		t.Fatalf("with the old record: %v", err)
	}
	// And writes another date into the sealed text.
	late := bytes.Clone(sealed)
	binary.BigEndian.PutUint64(late[17:], uint64(w.clock.now().Add(day).Unix()))
	if _, err := box.Open(ctx, form, late); !is(err, keys.ErrTampered) {
		t.Fatalf("with another date: %v", err)
	}
	// And into the record.
	forged := kept[0]
	forged.Public = bytes.Clone(forged.Public)
	binary.BigEndian.PutUint64(forged.Public[6:], uint64(w.clock.now().Unix()))
	binary.BigEndian.PutUint64(forged.Public[14:], uint64(w.clock.now().Add(2*day).Unix()))
	fp, err := intake.ParsePublic(forged.Public)
	if err != nil {
		t.Fatal(err)
	}
	forged.ID = fp.ID()
	if err := w.store.Add(ctx, "acme", forged); err != nil {
		t.Fatal(err)
	}
	copy(late[1:], forged.ID[:])
	binary.BigEndian.PutUint64(late[17:], uint64(fp.NotAfter().Unix()))
	if _, err := box.Open(ctx, form, late); !is(err, keys.ErrTampered) {
		t.Fatalf("with a forged record: %v", err)
	}
	if _, err := box.Public(ctx); !is(err, keys.ErrTampered) {
		t.Fatalf("a forged record became the public key: %v", err)
	}
}

func TestSealTimes(t *testing.T) {
	w := newWorld(t)
	p := public(t, w.box(t, "acme"))
	for _, c := range []struct {
		at   time.Time
		want string
	}{
		{p.NotBefore().Add(-time.Second), "not yet"},
		{p.NotBefore(), ""},
		{p.NotAfter(), ""},
		{p.NotAfter().Add(time.Second), "retired"},
		{p.NotAfter().Add(1000 * day), "retired"},
		{time.Time{}, "not yet"},
	} {
		_, err := p.Seal(c.at, form, text)
		switch {
		case c.want == "" && err != nil,
			c.want == "retired" && !errors.Is(err, keys.ErrRetired),
			c.want == "not yet" && (err == nil || errors.Is(err, keys.ErrRetired)):
			t.Errorf("at %v: %v", c.at, err)
		}
	}
	if got := p.NotAfter().Sub(w.clock.now()); got != 7*day {
		t.Errorf("a key lives %v", got)
	}
}

func TestEveryFlipAndTruncation(t *testing.T) {
	w := newWorld(t)
	box := w.box(t, "acme")
	sealed := seal(t, public(t, box), w.clock.now())
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		_, err := box.Open(ctx, form, bad)
		switch {
		case i >= 1 && i < 17: // another key's name
			if !errors.Is(err, keys.ErrKeyMissing) {
				t.Fatalf("byte %d: %v", i, err)
			}
		case !is(err, keys.ErrTampered):
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	for n := range sealed {
		if _, err := box.Open(ctx, form, sealed[:n]); !is(err, keys.ErrTampered) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	for name, bad := range map[string][]byte{
		"byte appended":  append(bytes.Clone(sealed), 0),
		"twice":          append(bytes.Clone(sealed), sealed...),
		"other version":  append([]byte{2}, sealed[1:]...),
		"too long":       append(bytes.Clone(sealed), make([]byte, intake.MaxPlaintext)...),
		"zeros":          make([]byte, intake.Overhead),
		"zeros, version": append([]byte{1}, make([]byte, intake.Overhead)...),
	} {
		if _, err := box.Open(ctx, form, bad); !errors.Is(err, keys.ErrTampered) && name != "zeros, version" {
			t.Errorf("%s: %v", name, err)
		} else if err == nil {
			t.Errorf("%s opened", name)
		}
	}
	for _, ad := range [][]byte{nil, {}, []byte("form/contact/4"), append(bytes.Clone(form), 0)} {
		if _, err := box.Open(ctx, ad, sealed); !is(err, keys.ErrTampered) {
			t.Errorf("ad %q: %v", ad, err)
		}
	}
}

// TestSpliced: parts of two entries make no third one.
func TestSpliced(t *testing.T) {
	w := newWorld(t)
	box := w.box(t, "acme")
	p := public(t, box)
	a, b := seal(t, p, w.clock.now()), seal(t, p, w.clock.now())
	w.clock.add(6*day + time.Hour)
	other := seal(t, public(t, box), w.clock.now())
	for name, bad := range map[string][]byte{
		"key of one, text of the other": append(bytes.Clone(a[:25+1120]), b[25+1120:]...),
		"head of another week":          append(bytes.Clone(other[:25]), a[25:]...),
		"text under another week":       append(bytes.Clone(a[:25]), other[25:]...),
	} {
		if _, err := box.Open(ctx, form, bad); !is(err, keys.ErrTampered) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTenants(t *testing.T) {
	w := newWorld(t)
	acme, other := w.box(t, "acme"), w.box(t, "other")
	p := public(t, acme)
	public(t, other)
	sealed := seal(t, p, w.clock.now())
	if _, err := other.Open(ctx, form, sealed); !errors.Is(err, keys.ErrKeyMissing) {
		t.Fatalf("another tenant: %v", err)
	}
	// Somebody copies acme's record to the other tenant.
	records, _ := w.store.List(ctx, "acme")
	if err := w.store.Add(ctx, "other", records[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(ctx, form, sealed); !is(err, keys.ErrTampered) {
		t.Fatalf("another tenant with the record: %v", err)
	}
	if n, err := other.Sweep(ctx); n != 0 || !is(err, keys.ErrTampered) {
		t.Fatalf("a foreign record was swept: %d, %v", n, err)
	}
	// And gives it the other's name.
	raw := p.Marshal()
	renamed := append([]byte{1, 5}, "other"...)
	renamed = append(renamed, raw[6:]...)
	q, err := intake.ParsePublic(renamed)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.Add(ctx, "other", intake.Record{ID: q.ID(), Public: renamed, Sealed: records[0].Sealed}); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(ctx, form, seal(t, q, w.clock.now())); !is(err, keys.ErrTampered) {
		t.Fatalf("a renamed record: %v", err)
	}
	for _, tenant := range []string{"", strings.Repeat("x", 201)} {
		if _, err := intake.NewBox(tenant, w.keeper, w.store, nil); err == nil {
			t.Errorf("a tenant of %d bytes", len(tenant))
		}
	}
	if _, err := w.box(t, strings.Repeat("x", 200)).Public(ctx); err != nil {
		t.Errorf("a tenant of 200 bytes: %v", err)
	}
}

// TestSwappedPrivate: the private half of another week under a record opens nothing.
func TestSwappedPrivate(t *testing.T) {
	w := newWorld(t)
	box := w.box(t, "acme")
	p := public(t, box)
	sealed := seal(t, p, w.clock.now())
	w.clock.add(6*day + time.Hour)
	public(t, box)
	records, _ := w.store.List(ctx, "acme")
	a, b := records[0], records[1]
	a.Sealed, b.Sealed = b.Sealed, a.Sealed
	for _, r := range []intake.Record{a, b} {
		w.store.Delete(ctx, "acme", r.ID)
		if err := w.store.Add(ctx, "acme", r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := box.Open(ctx, form, sealed); !is(err, keys.ErrTampered) {
		t.Fatal(err)
	}
}

func TestLostKey(t *testing.T) {
	w := newWorld(t)
	box := w.box(t, "acme")
	p := public(t, box)
	sealed := seal(t, p, w.clock.now())
	w.store.Delete(ctx, "acme", p.ID())
	if _, err := box.Open(ctx, form, sealed); !errors.Is(err, keys.ErrKeyMissing) || errors.Is(err, keys.ErrRetired) {
		t.Fatalf("a lost key is taken for a destroyed one: %v", err)
	}
}

func TestOutage(t *testing.T) {
	w := newWorld(t)
	box := w.box(t, "acme")
	w.keeper.fail = keys.ErrKMSUnavailable
	if _, err := box.Public(ctx); !errors.Is(err, keys.ErrKMSUnavailable) {
		t.Fatal(err)
	}
	if records, _ := w.store.List(ctx, "acme"); len(records) != 0 {
		t.Fatal("a key without a private half was kept")
	}
	w.keeper.fail = nil
	p := public(t, box)
	sealed := seal(t, p, w.clock.now())
	w.keeper.fail = keys.ErrKMSUnavailable
	if _, err := box.Open(ctx, form, sealed); !errors.Is(err, keys.ErrKMSUnavailable) {
		t.Fatal(err)
	}
	w.keeper.fail = nil
	if _, err := box.Open(ctx, form, sealed); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := box.Open(cancelled, form, sealed); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := box.Public(cancelled); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := box.Sweep(cancelled); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestConcurrent: many processes at the first moment make one key each at most, and all of them open.
func TestConcurrent(t *testing.T) {
	w := newWorld(t)
	boxes := []*intake.Box{w.box(t, "acme"), w.box(t, "acme")}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			p, err := boxes[i%2].Public(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			sealed, err := p.Seal(w.clock.now(), form, text)
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := boxes[(i+1)%2].Open(ctx, form, sealed); err != nil || !bytes.Equal(got, text) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if records, _ := w.store.List(ctx, "acme"); len(records) > 2 {
		t.Fatalf("%d keys", len(records))
	}
}

func TestParsePublic(t *testing.T) {
	w := newWorld(t)
	p := public(t, w.box(t, "acme"))
	raw := p.Marshal()
	if q, err := intake.ParsePublic(raw); err != nil || q.ID() != p.ID() || q.Tenant() != "acme" || !bytes.Equal(q.Marshal(), raw) {
		t.Fatal("it does not come back")
	}
	for n := range raw {
		if _, err := intake.ParsePublic(raw[:n]); err == nil {
			t.Fatalf("%d bytes are a key", n)
		}
	}
	change := func(f func(b []byte)) []byte {
		b := bytes.Clone(raw)
		f(b)
		return b
	}
	for name, bad := range map[string][]byte{
		"byte more":         append(bytes.Clone(raw), 0),
		"version":           change(func(b []byte) { b[0] = 2 }),
		"no tenant":         change(func(b []byte) { b[1] = 0 }),
		"long tenant":       change(func(b []byte) { b[1] = 255 }),
		"ends before":       change(func(b []byte) { copy(b[14:], b[6:14]) }),
		"two weeks":         change(func(b []byte) { binary.BigEndian.PutUint64(b[14:], uint64(p.NotBefore().Unix())+14*86400) }),
		"far future":        change(func(b []byte) { b[6], b[14] = 1, 1 }),
		"negative":          change(func(b []byte) { b[6], b[14] = 0xff, 0xff }),
		"not an ML-KEM key": change(func(b []byte) { copy(b[22:], bytes.Repeat([]byte{0xff}, 1184)) }),
	} {
		if _, err := intake.ParsePublic(bad); err == nil {
			t.Errorf("%s: a key", name)
		}
	}
	if other := change(func(b []byte) { b[13]++ }); func() bool { q, err := intake.ParsePublic(other); return err == nil && q.ID() == p.ID() }() {
		t.Error("the ID does not cover the dates")
	}
}

func BenchmarkIntake(b *testing.B) {
	w := newWorld(b)
	box := w.box(b, "acme")
	p := public(b, box)
	sealed := seal(b, p, w.clock.now())
	b.Run("seal", func(b *testing.B) {
		for b.Loop() {
			seal(b, p, w.clock.now())
		}
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			if _, err := box.Open(ctx, form, sealed); err != nil {
				b.Fatal(err)
			}
		}
	})
}
