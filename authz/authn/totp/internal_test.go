package totp

import (
	"bytes"
	"testing"
)

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
			if err != ErrRecord || r != (record{}) {
				t.Fatalf("%v, %v", r, err)
			}
			return
		}
		if !bytes.Equal(r.marshal(), b) {
			t.Fatalf("%x became %x", b, r.marshal())
		}
	})
}
