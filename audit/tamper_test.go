package audit_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/memstore"
)

// history writes a log with batches of several sizes, details among them.
func history(t testing.TB, store driver.Store, sealer audit.Sealer, batches int) (pin []byte) {
	t.Helper()
	l := openLog(t, store, &audit.Options{Sealer: sealer})
	for i := range batches {
		var es []audit.Event
		for j := range 1 + i%4 {
			e := full(10*i + j)
			if j == 1 {
				e.Details = []audit.Detail{audit.Personal("reason", [16]byte{1}, "asked by phone"), audit.Personal("address", [16]byte{2}, "192.0.2.7")}
			}
			es = append(es, e)
		}
		if _, err := l.AppendAll(ctx, es); err != nil {
			t.Fatal(err)
		}
	}
	pin = head(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return pin
}

// owners says for each byte of a segment file which event a change of it must
// be blamed on.
func owners(t testing.TB, file []byte) []int64 {
	t.Helper()
	at := make([]int64, 0, len(file))
	blame := func(n int, index uint64) {
		for range n {
			at = append(at, int64(index))
		}
	}
	blame(24, 0)
	for len(at) < len(file) {
		h := file[len(at):]
		first := binary.BigEndian.Uint64(h[8:])
		end := len(at) + 28 + int(binary.BigEndian.Uint32(h[4:]))
		blame(28, first)
		for index := first; len(at) < end; index++ {
			f, rest, err := audit.NextFrame(file[len(at):end])
			if err != nil {
				t.Fatal(err)
			}
			n := end - len(at) - len(rest)
			if f.Kind == 2 {
				index = first
			}
			blame(n, index)
		}
	}
	return at
}

// A flip of any byte is found, and the first bad event is named.
//
//crm:item 32
func TestFlip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	sealer := audittest.NewSealer()
	pin := history(t, fileStore(t, dir), sealer, 16)
	path := filepath.Join(dir, "00000000000000000000.seg")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	blame := owners(t, file)
	opts := &audit.VerifyOptions{Pins: [][]byte{pin}, Sealer: sealer}
	if v := verify(t, fileStore(t, dir), opts); !v.OK() || v.Opened == 0 {
		t.Fatal(v)
	}
	step := max(1, len(file)/1200) // some more than 1,000 places
	soak := os.Getenv("CRMGUARD_SOAK") != ""
	if soak {
		step = 1
	}
	places := 0
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := 0; off < len(file); off += step {
		bit := byte(1) << (off / step % 8)
		f.WriteAt([]byte{file[off] ^ bit}, int64(off))
		for _, pins := range [][][]byte{nil, opts.Pins} {
			v := verify(t, fileStore(t, dir), &audit.VerifyOptions{Pins: pins})
			if v.State != audit.Altered || v.At != blame[off] || v.OK() {
				t.Fatalf("byte %d bit %#x: %v, want event %d", off, bit, v, blame[off])
			}
		}
		f.WriteAt(file[off:off+1], int64(off))
		places++
	}
	if places < 1000 {
		t.Fatalf("only %d places", places)
	}
	side := filepath.Join(dir, "checkpoint")
	note, err := os.ReadFile(side)
	if err != nil {
		t.Fatal(err)
	}
	for off := range note {
		bits := []int{off % 8}
		if soak {
			bits = []int{0, 1, 2, 3, 4, 5, 6, 7}
		}
		for _, bit := range bits {
			b := bytes.Clone(note)
			b[off] ^= 1 << bit
			if err := os.WriteFile(side, b, 0o600); err != nil {
				t.Fatal(err)
			}
			v := verify(t, fileStore(t, dir), opts)
			if v.OK() || (v.State != audit.Altered && v.State != audit.Truncated) {
				t.Fatalf("checkpoint file, byte %d bit %d: %v", off, bit, v)
			}
		}
	}
	t.Logf("%d places of the log and %d bytes of the checkpoint file: all found and named", places, len(note))
	os.WriteFile(side, note, 0o600)
	if v := verify(t, fileStore(t, dir), opts); !v.OK() {
		t.Fatal(v)
	}
	// A flip in a pin is never green and never taken for a log.
	for off := range pin {
		b := bytes.Clone(pin)
		b[off] ^= 0x04
		v, err := audit.Verify(ctx, fileStore(t, dir), keys(t), &audit.VerifyOptions{Pins: [][]byte{b}})
		if err == nil && v.OK() && !bytes.Equal(canonicalNote(b), canonicalNote(pin)) {
			t.Fatalf("pin, byte %d: %v", off, v)
		}
	}
}

// canonicalNote drops the signature line, whose base64 has spare bits.
func canonicalNote(b []byte) []byte { return b[:bytes.Index(b, []byte("\n\n"))+1] }

// A cut at any offset is found against a pin; at the end of a batch it is
// Unanchored without one (and without the copy of the checkpoint), elsewhere
// Truncated.
func TestCut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	pin := history(t, fileStore(t, dir), audittest.NewSealer(), 3)
	path := filepath.Join(dir, "00000000000000000000.seg")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, "checkpoint"))
	ends := map[int]bool{}
	for off := 24; off < len(file); {
		off += 28 + int(binary.BigEndian.Uint32(file[off+4:]))
		ends[off] = true
	}
	if len(ends) != 4 {
		t.Fatal(len(ends))
	}
	for n := len(file) - 1; n >= 0; n-- {
		if err := os.Truncate(path, int64(n)); err != nil {
			t.Fatal(err)
		}
		v := verify(t, fileStore(t, dir), nil)
		want := audit.Truncated
		switch {
		case ends[n]:
			want = audit.Unanchored
		case n == 0 || n == 24:
			want = audit.Missing
		}
		if v.State != want {
			t.Fatalf("cut at %d: %v, want %v", n, v, want)
		}
		v = verify(t, fileStore(t, dir), &audit.VerifyOptions{Pins: [][]byte{pin}})
		if v.State != audit.Truncated && (n != 0 && n != 24 || v.State != audit.Missing) || v.OK() {
			t.Fatalf("cut at %d with a pin: %v", n, v)
		}
	}
	os.Remove(path)
	if v := verify(t, fileStore(t, dir), nil); v.State != audit.Missing {
		t.Fatal(v)
	}
}

// forged is a store that an attacker has written: any batches at all.
type forged struct {
	driver.Store
	batches []driver.Batch
}

func (s forged) Batches(ctx context.Context, from uint64) iter.Seq2[driver.Batch, error] {
	return func(yield func(driver.Batch, error) bool) {
		for _, b := range s.batches {
			if b.First+uint64(b.Count) > from && !yield(b, nil) {
				return
			}
		}
	}
}

func batchesOf(t testing.TB, s driver.Store) (list []driver.Batch) {
	t.Helper()
	for b, err := range s.Batches(ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		b.Data = bytes.Clone(b.Data)
		list = append(list, b)
	}
	return list
}

// framesOf splits a batch into its frames, bytes and all.
func framesOf(t testing.TB, b driver.Batch) (list [][]byte) {
	t.Helper()
	for d := b.Data; len(d) > 0; {
		_, rest, err := audit.NextFrame(d)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, bytes.Clone(d[:len(d)-len(rest)]))
		d = rest
	}
	return list
}

// An attacker who can write the store and repairs every CRC.
func TestForged(t *testing.T) {
	sealer := audittest.NewSealer()
	store := memstore.New()
	pin := history(t, store, sealer, 12)
	other := memstore.New()
	otherPin := history(t, other, sealer, 12)
	whole := batchesOf(t, store)
	renumber := func(list []driver.Batch) []driver.Batch {
		n := uint64(0)
		for i := range list {
			list[i].First = n
			n += uint64(list[i].Count)
		}
		return list
	}
	edit := func(i, frame int, change func(f []byte) []byte) []driver.Batch {
		list := append([]driver.Batch(nil), whole...)
		fs := framesOf(t, list[i])
		fs[frame] = change(fs[frame])
		audit.SealFrame(fs[frame])
		list[i].Data = bytes.Join(fs, nil)
		return list
	}
	swap := func(i, j, k int) []driver.Batch { // frames j and k of batch i
		list := append([]driver.Batch(nil), whole...)
		fs := framesOf(t, list[i])
		fs[j], fs[k] = fs[k], fs[j]
		list[i].Data = bytes.Join(fs, nil)
		return list
	}
	cut := func(list ...[]driver.Batch) (out []driver.Batch) {
		for _, l := range list {
			out = append(out, l...)
		}
		return out
	}
	foreign := batchesOf(t, other)
	const b4 = 4 // a batch of 4 events, 1+1+2+3 = 7 to 10
	if whole[b4].First != 7 || whole[b4].Count != 4 {
		t.Fatal(whole[b4].First, whole[b4].Count)
	}
	for name, c := range map[string]struct {
		list  []driver.Batch
		state audit.State
		at    int64
	}{
		"event changed":              {edit(b4, 2, func(f []byte) []byte { f[120] ^= 1; return f }), audit.Altered, 9},
		"chain changed":              {edit(b4, 2, func(f []byte) []byte { f[12] ^= 1; return f }), audit.Altered, 9},
		"index changed":              {edit(b4, 2, func(f []byte) []byte { f[43+17+7] ^= 1; return f }), audit.Reordered, 9},
		"id changed":                 {edit(b4, 2, func(f []byte) []byte { f[43+1] ^= 1; return f }), audit.Foreign, 9},
		"opening dropped":            {edit(b4, 1, func(f []byte) []byte { return f[:43+int(binary.BigEndian.Uint16(f[41:]))] }), audit.Withheld, 8},
		"opening changed":            {edit(b4, 1, func(f []byte) []byte { f[len(f)-1] ^= 1; return f }), audit.Withheld, 8},
		"opening too many":           {edit(b4, 0, func(f []byte) []byte { return append(f, 1, 7) }), audit.Altered, 7},
		"opening empty":              {edit(b4, 1, func(f []byte) []byte { return append(f[:43+int(binary.BigEndian.Uint16(f[41:]))], 0, 0) }), audit.Withheld, 8},
		"openings malformed":         {edit(b4, 1, func(f []byte) []byte { return append(f, 99) }), audit.Altered, 8},
		"checkpoint size":            {edit(b4, 4, func(f []byte) []byte { return bytes.Replace(f, []byte("\n11\n"), []byte("\n12\n"), 1) }), audit.Altered, 7},
		"checkpoint time":            {edit(len(whole)-1, 4, func(f []byte) []byte { return bytes.Replace(f, []byte("\ntime 1"), []byte("\ntime 2"), 1) }), audit.Altered, int64(whole[len(whole)-1].First)},
		"checkpoint origin":          {edit(b4, 4, func(f []byte) []byte { return bytes.Replace(f, []byte("crm.ex"), []byte("erp.ex"), 1) }), audit.Foreign, 7},
		"checkpoint of another":      {edit(b4, 4, func([]byte) []byte { return framesOf(t, whole[8])[4] }), audit.Altered, 7},
		"checkpoint foreign":         {edit(b4, 4, func([]byte) []byte { return framesOf(t, foreign[b4])[4] }), audit.Foreign, 7},
		"checkpoint unsigned":        {edit(b4, 4, func(f []byte) []byte { return f[:bytes.Index(f, []byte("\n\n"))+2] }), audit.KeyUnknown, 7},
		"events swapped":             {swap(b4, 1, 2), audit.Reordered, 8},
		"checkpoint first":           {swap(b4, 0, 4), audit.Altered, 7},
		"batch dropped":              {cut(whole[:5], whole[6:]), audit.Reordered, 11},
		"batch dropped, renumbered":  {renumber(cut(whole[:5], whole[6:])), audit.Reordered, 11},
		"first batch dropped":        {whole[1:], audit.Reordered, 0},
		"batch doubled":              {cut(whole[:5], whole[4:]), audit.Reordered, 11},
		"batch doubled, renumbered":  {renumber(cut(whole[:5], whole[4:])), audit.Reordered, 11},
		"batches swapped":            {renumber(cut(whole[:4], whole[5:6], whole[4:5], whole[6:])), audit.Reordered, 7},
		"splice from another log":    {cut(whole[:5], foreign[5:6], whole[6:]), audit.Foreign, 11},
		"end from another log":       {cut(whole[:5], foreign[5:]), audit.Foreign, 11},
		"another log":                {foreign, audit.Foreign, -1},
		"last batch dropped":         {whole[:len(whole)-1], audit.Truncated, int64(whole[len(whole)-1].First)},
		"nothing left":               {nil, audit.Missing, -1},
		"count too small":            {append(append([]driver.Batch(nil), whole[:4]...), driver.Batch{First: 7, Count: 3, Data: whole[4].Data}), audit.Altered, 7},
		"count too large":            {append(append([]driver.Batch(nil), whole[:4]...), driver.Batch{First: 7, Count: 5, Data: whole[4].Data}), audit.Altered, 11},
		"garbage behind checkpoint":  {append(append([]driver.Batch(nil), whole[:4]...), driver.Batch{First: 7, Count: 4, Data: append(bytes.Clone(whole[4].Data), 0)}), audit.Altered, 7},
		"batch without a checkpoint": {append(append([]driver.Batch(nil), whole[:4]...), driver.Batch{First: 7, Count: 4, Data: bytes.Join(framesOf(t, whole[4])[:4], nil)}), audit.Altered, 7},
	} {
		t.Run(name, func(t *testing.T) {
			for _, every := range []bool{false, true} {
				v := verify(t, forged{memstore.New(), c.list}, &audit.VerifyOptions{Pins: [][]byte{pin}, Sealer: sealer, EverySignature: every})
				if v.State != c.state || v.At != c.at || v.OK() || v.Reason == "" {
					t.Fatalf("%v, want %v at %d", v, c.state, c.at)
				}
			}
			if len(c.list) == 0 {
				return
			}
			if strings.HasPrefix(name, "opening") {
				return // Open does not look at openings
			}
			_, err := audit.Open(ctx, forged{memstore.New(), c.list}, audittest.Signer(t, origin), &audit.Options{PinnedHead: pin, Sealer: sealer})
			if !errors.Is(err, audit.ErrTampered) && !errors.Is(err, audit.ErrTruncated) {
				t.Fatalf("open: %v", err)
			}
		})
	}
	// A whole history written anew by a thief of the key, with the same id,
	// is Forked against a pin; a later version is an error, never green.
	if v := verify(t, other, &audit.VerifyOptions{Pins: [][]byte{otherPin}, Sealer: sealer}); !v.OK() {
		t.Fatal(v)
	}
	var id [16]byte
	f, _, _ := audit.NextFrame(whole[0].Data)
	copy(id[:], f.Event[1:])
	thief := rewrite(t, id, 12)
	if v := verify(t, thief, nil); v.State != audit.Unanchored {
		t.Fatal(v)
	}
	if v := verify(t, thief, &audit.VerifyOptions{Pins: [][]byte{batchNote(t, whole[b4])}}); v.State != audit.Forked || v.At != -1 {
		t.Fatal(v)
	}
	list := edit(b4, 4, func(f []byte) []byte { f[8] = 9; return f })
	if v, err := audit.Verify(ctx, forged{memstore.New(), list}, keys(t), nil); !errors.Is(err, driver.ErrFormat) || v.OK() {
		t.Fatal(v, err)
	}
}

func batchNote(t testing.TB, b driver.Batch) []byte {
	fs := framesOf(t, b)
	f, _, err := audit.NextFrame(fs[len(fs)-1])
	if err != nil || f.Kind != 2 {
		t.Fatal(err)
	}
	return f.Note
}

// rewrite makes a consistent, signed log of n events with a given id.
func rewrite(t testing.TB, id [16]byte, n int) driver.Store {
	t.Helper()
	r := newReference(origin)
	var events [][]byte
	for i := range n {
		e := full(i)
		events = append(events, audit.AppendEvent(id, uint64(i), e))
	}
	return forged{memstore.New(), []driver.Batch{{First: 0, Count: uint32(n), Data: r.batch(t, id, events)}}}
}

// An attacker without the key who rewrites everything from one event on,
// hashes, roots and all, is found at the batch he began with.
func TestRewrittenWithoutKey(t *testing.T) {
	store := memstore.New()
	l := openLog(t, store, nil)
	for i := range 12 {
		if _, err := l.AppendAll(ctx, []audit.Event{full(i), full(i), full(i)}); err != nil {
			t.Fatal(err)
		}
	}
	list := batchesOf(t, store)
	r := newReference(origin)
	for i, b := range list {
		fs := framesOf(t, b)
		var id [16]byte
		var events [][]byte
		for _, raw := range fs[:len(fs)-1] {
			f, _, err := audit.NextFrame(raw)
			if err != nil {
				t.Fatal(err)
			}
			ev := bytes.Clone(f.Event)
			copy(id[:], ev[1:])
			if i == 5 {
				ev[len(ev)-1] ^= 1 // the last letter of the note
			}
			events = append(events, ev)
		}
		text, frames := r.unsigned(t, id, events)
		note := batchNote(t, b)
		sig := note[bytes.Index(note, []byte("\n\n"))+1:]
		if i < 5 {
			continue
		}
		list[i].Data = append(frames, r.frame(2, append([]byte(text), sig...))...)
	}
	for _, every := range []bool{false, true} {
		v := verify(t, forged{memstore.New(), list}, &audit.VerifyOptions{EverySignature: every})
		if v.State != audit.Altered || v.At != int64(list[5].First) {
			t.Fatal(v)
		}
	}
}

func TestVerdictText(t *testing.T) {
	v := audit.Verdict{State: audit.Altered, At: 17, Reason: "the frame of the event is damaged", Origin: origin, Size: 12}
	if s := v.String(); !strings.HasPrefix(s, "Altered at event 17: ") {
		t.Fatal(s)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil || m["state"] != "Altered" || m["ok"] != false || m["at"] != 17.0 {
		t.Fatalf("%s", b)
	}
	v = audit.Verdict{State: audit.Pinned, At: -1}
	if b, _ = json.Marshal(v); bytes.Contains(b, []byte(`"at"`)) || !bytes.Contains(b, []byte(`"ok":true`)) {
		t.Fatalf("%s", b)
	}
	for s := audit.Unanchored; s <= audit.KeyUnknown; s++ {
		if (audit.Verdict{State: s}).OK() != (s == audit.Pinned || s == audit.Anchored) {
			t.Error(s)
		}
	}
	if audit.State(99).String() != "State(99)" {
		t.Error(audit.State(99))
	}
}
