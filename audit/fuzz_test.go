package audit_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/memstore"
)

// seeds are the frames of a small log.
func seeds(f *testing.F) (list [][]byte) {
	store := memstore.New()
	history(f, store, clearSealer{}, 3)
	for _, b := range batchesOf(f, store) {
		list = append(list, b.Data)
	}
	return list
}

// What parses as an event is made of exactly these bytes.
func FuzzEvent(f *testing.F) {
	for _, b := range seeds(f) {
		for len(b) > 0 {
			var fr audit.Frame
			fr, b, _ = audit.NextFrame(b)
			if fr.Kind == 1 {
				f.Add(fr.Event)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		id, index, e, err := audit.ParseEvent(b)
		if err == nil && !bytes.Equal(audit.AppendEvent(id, index, e), b) {
			t.Fatalf("two spellings of one event: %x", b)
		}
		if len(b) >= 35 && b[0] == 1 && audit.Spelled(b) != (err == nil) {
			t.Fatalf("spelled: %v, %v: %x", audit.Spelled(b), err, b)
		}
	})
}

// A frame takes what it says and no more, and its openings come apart.
func FuzzFrame(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Add(audit.AppendPruned(nil, [16]byte{1}, make([]byte, 96)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			fr, rest, err := audit.NextFrame(b)
			if err != nil {
				return
			}
			again := bytes.Clone(b[:len(b)-len(rest)])
			audit.SealFrame(again)
			if !bytes.Equal(again, b[:len(again)]) {
				t.Fatal("two spellings of one frame")
			}
			audit.SplitOpenings(fr.Openings)
			b = rest
		}
	})
}

// A checkpoint has one text.
func FuzzCheckpoint(f *testing.F) {
	store := memstore.New()
	note := history(f, store, clearSealer{}, 2)
	f.Add(note)
	f.Add(bytes.Replace(note, []byte("\n\n"), []byte("\nlater 1\n\n"), 1))
	f.Add([]byte("x\n1\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := audit.ParseCheckpoint(b)
		if err == nil && (!bytes.HasPrefix(b, []byte(audit.CheckpointText(c))) || c.Size == 0 || c.Origin == "") {
			t.Fatalf("two spellings of one checkpoint: %q", b)
		}
	})
}

// What parses as a receipt has one spelling, and none but a signed one proves.
func FuzzReceipt(f *testing.F) {
	b, err := os.ReadFile("testdata/v1/event-3.tlog-proof")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra \nindex 0\n\n"))
	vkey := keys(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		text, err := audit.ReceiptText(b)
		if err == nil && text != string(b) {
			t.Fatalf("two spellings of one receipt: %q", b)
		}
		if e, c, err := audit.VerifyReceipt(b, vkey); err == nil && (e.Index >= c.Size || text != string(b)) {
			t.Fatalf("proven: %+v", e)
		}
	})
}

// A checked head leads to the root that its checkpoint has.
func FuzzStart(f *testing.F) {
	b, err := os.ReadFile("testdata/v1/head")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("crmguard audit head v1\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if text, err := audit.StartText(b); err == nil && text != string(b) {
			t.Fatalf("two spellings of one head: %q", b)
		}
	})
}
