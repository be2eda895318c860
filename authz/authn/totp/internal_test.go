package totp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"
)

// TestSameCodeTwice: a code that happens to be that of two steps in the window is accepted once.
func TestSameCodeTwice(t *testing.T) {
	secret := binary.BigEndian.AppendUint64(nil, 981_966) // found by trying
	key, err := ImportKey(append(secret, make([]byte, 12)...), SHA1, 6)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_795_750_000, 0)
	step := stepOf(now)
	if key.code(step) != key.code(step+1) {
		t.Fatal("they differ")
	}
	v := &Verifier{drift: 1, now: func() time.Time { return now }}
	e := &enrolled{key: key}
	for _, want := range []error{nil, ErrReplayed, ErrReplayed} {
		if err := v.accept(e, key.code(step)); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
		now = now.Add(Period)
	}
}

// FuzzRecord: what parses is written back as the same bytes; nothing panics.
func FuzzRecord(f *testing.F) {
	key, err := ImportKey(bytes.Repeat([]byte{7}, 20), SHA1, 6)
	if err != nil {
		f.Fatal(err)
	}
	e := &enrolled{key: key, last: 59_858_333, made: 1_795_750_000}
	f.Add(record{}.marshal())
	f.Add(record{active: e}.marshal())
	f.Add(record{pending: e}.marshal())
	f.Add(record{active: e, pending: e}.marshal())
	f.Add([]byte{4})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := unmarshal(b)
		if err != nil {
			if !errors.Is(err, ErrRecord) || r != (record{}) {
				t.Fatalf("%v, %v", r, err)
			}
			return
		}
		if !bytes.Equal(r.marshal(), b) {
			t.Fatalf("%x became %x", b, r.marshal())
		}
	})
}
