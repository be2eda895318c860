package intake_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/crmguard/crmguard/encrypt/intake"
	"github.com/crmguard/crmguard/encrypt/keys"
)

// FuzzParsePublic: what parses comes back byte for byte, and can be sealed to or says why not.
func FuzzParsePublic(f *testing.F) {
	p := public(f, newWorld(f).box(f, "acme"))
	raw := p.Marshal()
	f.Add(raw)
	f.Add(raw[:100])
	f.Add([]byte{1, 4})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := intake.ParsePublic(b)
		if err != nil {
			return
		}
		if !bytes.Equal(q.Marshal(), b) {
			t.Fatal("two forms of one key")
		}
		if q.NotAfter().Before(q.NotBefore()) || q.Tenant() == "" {
			t.Fatalf("%v to %v for %q", q.NotBefore(), q.NotAfter(), q.Tenant())
		}
		if _, err := q.Seal(q.NotAfter(), nil, nil); err != nil && errors.Is(err, keys.ErrTampered) {
			t.Fatal(err)
		}
	})
}

// FuzzOpen: any bytes are refused with one of the named errors, unless they are what was sealed.
func FuzzOpen(f *testing.F) {
	w := newWorld(f)
	box := w.box(f, "acme")
	sealed := seal(f, public(f, box), w.clock.now())
	f.Add(sealed)
	f.Add(sealed[:25])
	f.Add(bytes.Repeat([]byte{1}, intake.Overhead))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := box.Open(ctx, form, b)
		switch {
		case err == nil && (!bytes.Equal(b, sealed) || !bytes.Equal(got, text)):
			t.Fatal("something opened")
		case err != nil && !errors.Is(err, keys.ErrTampered) && !errors.Is(err, keys.ErrRetired) && !errors.Is(err, keys.ErrKeyMissing):
			t.Fatal(err)
		}
	})
}
