package audit_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
)

const prunedDir = "testdata/v1-pruned"

// writeParts makes what TestGoldenParts reads out of the golden log.
func writeParts(t *testing.T) {
	dir := filepath.Join(goldenDir, "log")
	v := verify(t, fileStore(t, dir), nil)
	receipt, err := v.Tree.Receipt(ctx, 3)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"event-3.tlog-proof": receipt, "head": v.Resume} {
		if err := os.WriteFile(filepath.Join(goldenDir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(prunedDir, "log")
	if err := os.RemoveAll(log); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(log, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(log, 0o700); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, fileStore(t, log), &audit.Options{Clock: func() time.Time { return clock().Add(365 * day) }})
	if n, err := l.Prune(ctx, 4); err != nil || n != 4 {
		t.Fatal(n, err)
	}
	l.Close()
	os.Remove(filepath.Join(log, "lock"))
}

// included is the verification of an inclusion proof of RFC 9162, section
// 2.1.3.2, word for word.
func included(leaf []byte, index, size uint64, path [][]byte) []byte {
	fn, sn, r := index, size-1, leaf
	for _, p := range path {
		if sn == 0 {
			return nil
		}
		if fn&1 == 1 || fn == sn {
			r = hash([]byte{1}, p, r)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			r = hash([]byte{1}, r, p)
		}
		fn, sn = fn>>1, sn>>1
	}
	if sn != 0 {
		return nil
	}
	return r
}

// TestGoldenParts reads a committed receipt, checked head and pruned log by the
// document alone, then with the package.
func TestGoldenParts(t *testing.T) {
	if *update {
		writeParts(t)
	}
	var want golden
	b, err := os.ReadFile(filepath.Join(goldenDir, "expect.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	pub := publicKey(t, want.VerifierKey)
	unbase := func(s string) []byte {
		t.Helper()
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	signed := func(note string) (size uint64, root []byte) {
		t.Helper()
		text, sigs, _ := strings.Cut(note, "\n\n")
		lines := strings.Split(text, "\n")
		sig := unbase(strings.Fields(sigs)[2])
		size, err := strconv.ParseUint(lines[1], 10, 64)
		if err != nil || !ed25519.Verify(pub, []byte(text+"\n"), sig[4:]) {
			t.Fatal("signature")
		}
		return size, unbase(lines[2])
	}

	receipt, err := os.ReadFile(filepath.Join(goldenDir, "event-3.tlog-proof"))
	if err != nil {
		t.Fatal(err)
	}
	head, note, _ := strings.Cut(string(receipt), "\n\n")
	lines := strings.Split(head, "\n")
	if lines[0] != "c2sp.org/tlog-proof@v1" || lines[2] != "index 3" {
		t.Fatal(lines)
	}
	event := unbase(strings.TrimPrefix(lines[1], "extra "))
	var path [][]byte
	for _, s := range lines[3:] {
		path = append(path, unbase(s))
	}
	size, root := signed(note)
	if !bytes.Equal(included(hash([]byte{0}, event), 3, size, path), root) || binary.BigEndian.Uint64(event[17:]) != 3 {
		t.Fatal("the receipt does not hold")
	}
	e, c, err := audit.VerifyReceipt(receipt, []string{want.VerifierKey})
	if err != nil || e.Index != 3 || e.Event.Action != want.Events[3].Action || c.Root.String() != want.Root {
		t.Fatal(e, c, err)
	}

	start, err := os.ReadFile(filepath.Join(goldenDir, "head"))
	if err != nil {
		t.Fatal(err)
	}
	head, note, _ = strings.Cut(string(start), "\n\n")
	lines = strings.Split(head, "\n")
	size, root = signed(note)
	at := unbase(lines[len(lines)-1])
	for i := len(lines) - 2; i >= 1; i-- {
		at = hash([]byte{1}, unbase(lines[i]), at)
	}
	if lines[0] != "crmguard audit head v1" || !bytes.Equal(at, root) || size != uint64(want.Size) {
		t.Fatal("the checked head")
	}
	v, err := audit.Verify(ctx, fileStore(t, filepath.Join(goldenDir, "log")), []string{want.VerifierKey}, &audit.VerifyOptions{Start: start})
	if err != nil || v.State != audit.Pinned || v.Unread != size || !bytes.Equal(v.Resume, start) {
		t.Fatal(v, err)
	}

	// The pruned log: hashes of the first four events, then the others.
	file, err := os.ReadFile(filepath.Join(prunedDir, "log", "00000000000000000000.seg"))
	if err != nil {
		t.Fatal(err)
	}
	batch := file[24:]
	n := binary.BigEndian.Uint32(batch[4:])
	data := batch[28 : 28+n]
	if binary.BigEndian.Uint64(batch[8:]) != 0 || binary.BigEndian.Uint32(batch[16:]) != 4 || data[8] != 3 || int(binary.BigEndian.Uint32(data)) != 1+16+4*32 {
		t.Fatal("the pruned batch")
	}
	for i := range 4 {
		leaf := data[8+1+16+32*i:][:32]
		if want.Events[i].Leaf != hex.EncodeToString(leaf) {
			t.Fatalf("leaf %d", i)
		}
	}
	if bytes.Contains(file, []byte("电话")) && bytes.Index(file, []byte("电话")) < 24+28+int(n) {
		t.Fatal("an opening is left")
	}
	pinned, err := os.ReadFile(filepath.Join(goldenDir, "log", "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	v, err = audit.Verify(ctx, fileStore(t, filepath.Join(prunedDir, "log")), []string{want.VerifierKey}, &audit.VerifyOptions{Pins: [][]byte{pinned}, EverySignature: true})
	if err != nil || v.State != audit.Pinned || v.Pruned != 4 || v.Size != uint64(want.Size)+1 {
		t.Fatal(v, err)
	}
}
