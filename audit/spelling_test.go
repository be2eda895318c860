package audit_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/memstore"
)

// Events that whoever has the key has spelled otherwise than the format says
// are found, though every hash and signature holds.
func TestSpelling(t *testing.T) {
	id := [16]byte{7}
	good := func(index uint64) []byte { return audit.AppendEvent(id, index, full(int(index))) }
	log := func(last []byte) forged {
		r := newReference(origin)
		var list []driver.Batch
		for i, ev := range [][]byte{good(0), good(1), last} {
			list = append(list, driver.Batch{First: uint64(i), Count: 1, Data: r.batch(t, id, [][]byte{ev})})
		}
		return forged{memstore.New(), list}
	}
	at := func(b []byte, what string) int {
		n := bytes.Index(b, []byte(what))
		if n < 0 {
			t.Fatal(what)
		}
		return n
	}
	for name, edit := range map[string]func(b []byte) []byte{
		"outcome 0":        func(b []byte) []byte { b[34] = 0; return b },
		"a byte behind":    func(b []byte) []byte { return append(b, 0) },
		"a byte missing":   func(b []byte) []byte { return b[:len(b)-1] },
		"a control":        func(b []byte) []byte { b[at(b, "emp-")] = 0x1f; return b },
		"a delete":         func(b []byte) []byte { b[at(b, "emp-")+1] = 0x7f; return b },
		"no UTF-8":         func(b []byte) []byte { b[at(b, "support")+6] = 0xc3; return b },
		"a control at 9":   func(b []byte) []byte { b[at(b, "customer.update")+8] = 0; return b },
		"a longer number":  func(b []byte) []byte { return slices.Insert(b, 35, byte(0x80)) },
		"an empty field":   func(b []byte) []byte { n := at(b, "\x04name"); b[n] = 0; return slices.Delete(b, n+1, n+5) },
		"types not in use": func(b []byte) []byte { n := at(b, "\x07contact"); b[n-10]++; return slices.Insert(b, n, 1, 'x') },
		"a type twice": func(b []byte) []byte {
			copy(b[at(b, "\x07contact"):], "\x07custome")
			b[at(b, "\x08customer")-1]++
			return slices.Insert(b, at(b, "\x07custome"), []byte("\x07custome")...)
		},
		"a UUID as text": func(b []byte) []byte {
			n := at(b, "\x0anot-a-uuid")
			b[n] = 36
			return slices.Replace(b, n+1, n+11, []byte("0190b2a0-0000-7000-8000-000000000000")...)
		},
		"a long digest": func(b []byte) []byte {
			n := at(b, "\x03\x01\x02\x03")
			b[n] = 65
			return slices.Insert(b, n+1, make([]byte, 62)...)
		},
		"reference of 2": func(b []byte) []byte { b[at(b, "owner\x01")+5] = 2; return b },
	} {
		s := log(edit(good(2)))
		v := verify(t, s, &audit.VerifyOptions{Pins: [][]byte{batchNote(t, s.batches[1])}, OnEvent: func(audit.Entry) {}})
		if v.State != audit.Altered || v.At != 2 || v.Size != 2 || v.OK() {
			t.Errorf("%s: %v", name, v)
		}
		if _, err := audit.Open(ctx, s, audittest.Signer(t, origin), nil); !errors.Is(err, audit.ErrTampered) {
			t.Errorf("%s: open: %v", name, err)
		}
	}
	s := log(good(2))
	if v := verify(t, s, &audit.VerifyOptions{Pins: [][]byte{batchNote(t, s.batches[1])}}); !v.OK() || v.Size != 3 {
		t.Fatal(v)
	}
}

// With keys and without, openings are judged alike.
func TestOpeningsShape(t *testing.T) {
	sealer := audittest.NewSealer()
	store := memstore.New()
	history(t, store, sealer, 4)
	whole := batchesOf(t, store)
	frames := framesOf(t, whole[2])
	f, _, _ := audit.NextFrame(frames[1])
	list, _ := audit.SplitOpenings(f.Openings)
	if len(list) != 2 {
		t.Fatal(len(list))
	}
	one := append([]byte{byte(len(list[0]))}, list[0]...)
	for name, c := range map[string]struct {
		openings []byte
		state    audit.State
	}{
		"empty, then malformed": {[]byte{0, 99}, audit.Altered},
		"empty, then too many":  {[]byte{0, 0, 1, 1}, audit.Altered},
		"one, then empty":       {append(bytes.Clone(one), 0), audit.Withheld},
		"one":                   {one, audit.Withheld},
		"none":                  {nil, audit.Withheld},
		"another spelling":      {append([]byte{0x80}, f.Openings...), audit.Altered},
	} {
		frame := append(bytes.Clone(frames[1][:len(frames[1])-len(f.Openings)]), c.openings...)
		audit.SealFrame(frame)
		changed := slices.Clone(whole)
		changed[2].Data = bytes.Join([][]byte{frames[0], frame, bytes.Join(frames[2:], nil)}, nil)
		for _, o := range []audit.VerifyOptions{{}, {Sealer: sealer}} {
			v := verify(t, forged{memstore.New(), changed}, &o)
			if v.State != c.state || v.At != int64(whole[2].First)+1 || v.Opened != 0 || v.Unchecked != 0 {
				t.Errorf("%s: %v", name, v)
			}
		}
	}
}

// OnOpening gets what the sealer said of each detail, and can end the check.
func TestOnOpening(t *testing.T) {
	sealer := audittest.NewSealer()
	store := memstore.New()
	history(t, store, sealer, 4)
	sealer.Erase([16]byte{2})
	var got []string
	stop := errors.New("enough")
	o := audit.VerifyOptions{Sealer: sealer, OnOpening: func(e audit.Entry, detail int, opening []byte, err error) error {
		d := e.Event.Details[detail]
		switch {
		case err == nil && audit.Commit(opening[:32], d.Name, d.Person, opening[32:]) == d.Commitment:
			got = append(got, string(opening[32:]))
		case errors.Is(err, audit.ErrErased) && opening == nil:
			got = append(got, "erased")
		default:
			t.Error(detail, err)
		}
		if len(got) == 8 {
			return stop
		}
		return nil
	}}
	v := verify(t, store, &o)
	if v.Opened != 3 || v.Erased != 3 || len(got) != 6 { // three batches have an event with details
		t.Fatal(v, got)
	}
	if !slices.Equal(got[:2], []string{"asked by phone", "erased"}) {
		t.Fatal(got)
	}
	if _, err := audit.Verify(ctx, store, keys(t), &o); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if _, err := audit.Verify(ctx, store, keys(t), &audit.VerifyOptions{OnOpening: func(audit.Entry, int, []byte, error) error { return context.Canceled }}); err != nil {
		t.Fatal(err) // nothing is opened without a sealer
	}
}

// A receipt has no line breaks inside its base64.
func TestLineBreaks(t *testing.T) {
	l := openLog(t, memstore.New(), nil)
	if _, err := l.Append(ctx, full(1)); err != nil {
		t.Fatal(err)
	}
	r, err := l.Tree().Receipt(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := audit.VerifyReceipt(r, keys(t)); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(r, []byte("c2sp.org/tlog-proof@v1\nextra A")) {
		t.Fatalf("%s", r)
	}
	b := bytes.Replace(r, []byte("extra A"), []byte("extra A\r"), 1)
	if _, _, err := audit.VerifyReceipt(b, keys(t)); err == nil {
		t.Fatal("a receipt has two spellings")
	}
}
