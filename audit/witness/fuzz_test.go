package witness_test

import (
	"bytes"
	"testing"

	"github.com/crmguard/crmguard/audit/witness"
)

// What parses as a request is made of exactly these bytes.
func FuzzRequest(f *testing.F) {
	l := newTree(f, origin)
	l.grow(f, 9, "a")
	f.Add([]byte(body(0, nil, l.checkpoint(f, 4))))
	f.Add([]byte(body(4, l.proof(f, 4, 9), l.checkpoint(f, 9))))
	f.Add([]byte("old 01\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		old, proof, msg, err := witness.ParseRequest(b)
		if err == nil && body(old, proof, msg) != string(b) {
			t.Fatalf("two spellings of one request: %q", b)
		}
	})
}

// A checkpoint begins with the text that its head has.
func FuzzHead(f *testing.F) {
	l := newTree(f, origin)
	l.grow(f, 9, "a")
	f.Add(l.checkpoint(f, 4))
	f.Add([]byte("x\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\nextension\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := witness.ParseHead(b)
		if err == nil && !bytes.HasPrefix(b, []byte(witness.HeadText(h))) {
			t.Fatalf("two spellings of one checkpoint: %q", b)
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add(witness.FormatState(nil))
	f.Add(witness.FormatState([]witness.Head{{Origin: "a", Size: 1}, {Origin: "b c", Size: 1 << 40}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := witness.ParseState(b)
		if err == nil && !bytes.Equal(witness.FormatState(list), b) {
			t.Fatalf("two spellings of one state: %q", b)
		}
	})
}

// No policy is taken that its own quorum does not stand in.
func FuzzPolicy(f *testing.F) {
	l := newTree(f, origin)
	l.grow(f, 1, "a")
	w := cosigner(f, "w1").Key().String()
	f.Add([]byte("log " + l.vkey + "\nwitness a " + w + " http://localhost\ngroup g 1 a\nquorum g\n"))
	f.Add([]byte("# nothing\nquorum none\n"))
	msg := l.checkpoint(f, 1)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := witness.ParsePolicy(b)
		if err != nil {
			return
		}
		if _, err := p.Check(msg); err == nil && !bytes.Contains(b, []byte("none")) {
			t.Fatalf("an unsigned checkpoint meets %q", b)
		}
	})
}

// A key has one spelling.
func FuzzKey(f *testing.F) {
	f.Add(cosigner(f, "w1").Key().String())
	f.Add("a+00000000+BAAA")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := witness.ParseKey(s)
		if err != nil {
			return
		}
		if again, err := witness.ParseKey(k.String()); err != nil || again.String() != k.String() {
			t.Fatalf("%q: %v", s, err)
		}
	})
}

// No note has a cosignature that its key did not make.
func FuzzCosignatures(f *testing.F) {
	l := newTree(f, origin)
	l.grow(f, 2, "a")
	msg := l.checkpoint(f, 2)
	_, line, _ := post(f, server(f, "w1", witness.NewMemStore(), l.vkey), body(0, nil, msg))
	text := msg[:bytes.Index(msg, []byte("\n\n"))]
	f.Add(append(bytes.Clone(msg), line...))
	f.Add(msg)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := witness.Cosignatures(b, cosigner(t, "w1").Key())
		if err == nil && len(got) > 0 && !bytes.HasPrefix(b, text) {
			t.Fatalf("signed: %q", b)
		}
	})
}
