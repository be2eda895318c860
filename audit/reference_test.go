package audit_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
)

// This file implements docs/formats/audit.md a second time, from the document:
// it shares no code with the package and no tree with x/mod.

type reference struct {
	origin string
	leaves [][]byte
	chain  []byte
}

func newReference(origin string) *reference { return &reference{origin: origin} }

func hash(parts ...[]byte) []byte {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// mth is the Merkle tree hash of RFC 6962, section 2.1, word for word.
func mth(leaves [][]byte) []byte {
	switch len(leaves) {
	case 0:
		return hash()
	case 1:
		return leaves[0]
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	return hash([]byte{1}, mth(leaves[:k]), mth(leaves[k:]))
}

func (r *reference) frame(kind byte, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(body)))
	rest := append([]byte{kind}, body...)
	crc := crc32.Checksum(append(append([]byte(nil), b...), rest...), crc32.MakeTable(crc32.Castagnoli))
	return append(binary.BigEndian.AppendUint32(b, crc), rest...)
}

// add takes one event and returns the head of the chain after it.
func (r *reference) add(id [16]byte, event []byte) []byte {
	if r.chain == nil {
		r.chain = hash([]byte{2}, id[:], []byte(r.origin))
	}
	leaf := hash([]byte{0}, event)
	r.leaves = append(r.leaves, leaf)
	r.chain = hash([]byte{3}, r.chain, leaf)
	return r.chain
}

func (r *reference) text(id [16]byte, at time.Time) string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s\n%d\n%s\nid %s\nchain %s\ntime %d\n", r.origin, len(r.leaves), b64(mth(r.leaves)),
		hex.EncodeToString(id[:]), b64(r.chain), at.UnixMilli())
}

// unsigned makes the frames of a batch and the text of its checkpoint.
func (r *reference) unsigned(t testing.TB, id [16]byte, events [][]byte) (text string, frames []byte) {
	t.Helper()
	for _, ev := range events {
		body := append([]byte(nil), r.add(id, ev)...)
		body = binary.BigEndian.AppendUint16(body, uint16(len(ev)))
		frames = append(frames, r.frame(1, append(body, ev...))...)
	}
	return r.text(id, clock()), frames
}

// batch makes a whole batch, signed with the key of the tests.
func (r *reference) batch(t testing.TB, id [16]byte, events [][]byte) []byte {
	t.Helper()
	text, frames := r.unsigned(t, id, events)
	raw, err := audittest.Signer(t, r.origin).Sign(ctx, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	pub := publicKey(t, audittest.Signer(t, r.origin).VerifierKey())
	keyHash := hash([]byte(r.origin), []byte("\n\x01"), pub)[:4]
	note := fmt.Sprintf("%s\n— %s %s\n", text, r.origin, base64.StdEncoding.EncodeToString(append(keyHash, raw...)))
	return append(frames, r.frame(2, []byte(note))...)
}

func publicKey(t testing.TB, vkey string) ed25519.PublicKey {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(strings.SplitN(vkey, "+", 3)[2])
	if err != nil || len(raw) != 33 || raw[0] != 1 {
		t.Fatal("verifier key", err)
	}
	return raw[1:]
}

var update = flag.Bool("update", false, "write testdata/v1 anew: only for a new version of the format")

const goldenDir = "testdata/v1"

// golden is what the document says must be found in testdata/v1.
type golden struct {
	VerifierKey string        `json:"verifier_key"`
	Size        int           `json:"size"`
	Root        string        `json:"root"`
	Events      []goldenEvent `json:"events"`
}

type goldenEvent struct {
	Index    uint64   `json:"index"`
	Time     string   `json:"time"`
	Action   string   `json:"action"`
	Actor    string   `json:"actor"`
	Targets  []string `json:"targets,omitempty"`
	Leaf     string   `json:"leaf"`
	Openings []string `json:"openings,omitempty"`
}

// clearSealer "seals" openings by a prefix, for the golden log only.
type clearSealer struct{ audit.Sealer }

// TestGolden reads the committed log of format version 1 with the second
// implementation, then with the package.
func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	var want golden
	b, err := os.ReadFile(filepath.Join(goldenDir, "expect.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	got := readReference(t, goldenDir, want.VerifierKey)
	gotJSON, _ := json.MarshalIndent(got, "", "\t")
	wantJSON, _ := json.MarshalIndent(want, "", "\t")
	if string(gotJSON) != string(wantJSON) {
		t.Fatalf("second implementation:\n%s\nwant\n%s", gotJSON, wantJSON)
	}
	note, err := os.ReadFile(filepath.Join(goldenDir, "log", "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := audit.Verify(ctx, fileStore(t, filepath.Join(goldenDir, "log")), []string{want.VerifierKey},
		&audit.VerifyOptions{Pins: [][]byte{note}, EverySignature: true, Clock: clock})
	if err != nil || v.State != audit.Pinned || int(v.Size) != want.Size || v.Root.String() != want.Root {
		t.Fatal(v, err)
	}
}

// readReference reads a log of one segment by the document alone.
func readReference(t *testing.T, dir, vkey string) golden {
	t.Helper()
	file, err := os.ReadFile(filepath.Join(dir, "log", "00000000000000000000.seg"))
	if err != nil {
		t.Fatal(err)
	}
	name := strings.SplitN(vkey, "+", 2)[0]
	pub := publicKey(t, vkey)
	r := newReference(name)
	out := golden{VerifierKey: vkey}
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	be32, be64 := binary.BigEndian.Uint32, binary.BigEndian.Uint64
	if string(file[:8]) != "CGLOGSEG" || be32(file[8:]) != 1 || be64(file[12:]) != 0 || be32(file[20:]) != crc32.Checksum(file[:20], castagnoli) {
		t.Fatal("segment header")
	}
	var id [16]byte
	for p := file[24:]; len(p) > 0; {
		if string(p[:4]) != "CGBA" || be32(p[24:]) != crc32.Checksum(p[:24], castagnoli) || int(be64(p[8:])) != len(out.Events) {
			t.Fatal("batch header")
		}
		n, count := be32(p[4:]), be32(p[16:])
		data := p[28 : 28+n]
		if be32(p[20:]) != crc32.Checksum(data, castagnoli) {
			t.Fatal("batch data")
		}
		p = p[28+n:]
		for i := uint32(0); i <= count; i++ {
			size := be32(data)
			body := data[8 : 8+size]
			if be32(data[4:]) != crc32.Checksum(append(append([]byte(nil), data[:4]...), body...), castagnoli) {
				t.Fatal("frame")
			}
			data = data[8+size:]
			if i == count {
				if body[0] != 2 {
					t.Fatal("no checkpoint at the end of a batch")
				}
				checkNote(t, r, id, pub, string(body[1:]))
				break
			}
			if body[0] != 1 {
				t.Fatal("no event")
			}
			size = uint32(binary.BigEndian.Uint16(body[33:]))
			ev, openings := body[35:35+size], body[35+size:]
			if len(out.Events) == 0 {
				copy(id[:], ev[1:])
			}
			if string(r.add(id, ev)) != string(body[1:33]) {
				t.Fatal("chain")
			}
			e := referenceEvent(t, id, ev, openings)
			e.Leaf = hex.EncodeToString(r.leaves[len(r.leaves)-1])
			if int(e.Index) != len(out.Events) {
				t.Fatal("index")
			}
			out.Events = append(out.Events, e)
		}
		if len(data) != 0 {
			t.Fatal("bytes behind the checkpoint")
		}
	}
	out.Size, out.Root = len(r.leaves), base64.StdEncoding.EncodeToString(mth(r.leaves))
	return out
}

func checkNote(t *testing.T, r *reference, id [16]byte, pub ed25519.PublicKey, note string) {
	t.Helper()
	text, sigs, ok := strings.Cut(note, "\n\n")
	text += "\n"
	var ms int64
	if _, err := fmt.Sscanf(text[strings.LastIndex(text, "time "):], "time %d\n", &ms); err != nil || !ok {
		t.Fatal("note", err)
	}
	if text != r.text(id, time.UnixMilli(ms)) {
		t.Fatalf("checkpoint\n%s\nwant\n%s", text, r.text(id, time.UnixMilli(ms)))
	}
	sig, ok := strings.CutPrefix(strings.TrimSuffix(sigs, "\n"), "— "+r.origin+" ")
	raw, err := base64.StdEncoding.DecodeString(sig)
	if err != nil || !ok || len(raw) != 68 {
		t.Fatal("signature line", err)
	}
	if string(raw[:4]) != string(hash([]byte(r.origin), []byte("\n\x01"), pub)[:4]) || !ed25519.Verify(pub, []byte(text), raw[4:]) {
		t.Fatal("signature")
	}
}

func referenceEvent(t *testing.T, id [16]byte, ev, openings []byte) goldenEvent {
	t.Helper()
	be64 := binary.BigEndian.Uint64
	if ev[0] != 1 || string(ev[1:17]) != string(id[:]) {
		t.Fatal("event head")
	}
	e := goldenEvent{Index: be64(ev[17:]), Time: time.Unix(0, int64(be64(ev[25:]))).UTC().Format(time.RFC3339Nano)}
	p := ev[35:]
	num := func() uint64 {
		v, n := binary.Uvarint(p)
		p = p[n:]
		return v
	}
	raw := func(n uint64) []byte {
		v := p[:n]
		p = p[n:]
		return v
	}
	text := func() string { return string(raw(num())) }
	for range num() {
		name := text()
		person, commitment := raw(16), raw(32)
		size, n := binary.Uvarint(openings)
		sealed := string(openings[n : n+int(size)])
		openings = openings[n+int(size):]
		opening, ok := strings.CutPrefix(sealed, "sealed:")
		if !ok {
			t.Fatal("opening")
		}
		m := hmac.New(sha256.New, []byte(opening[:32]))
		for _, part := range []string{"crmguard audit commitment v1", name, string(person), opening[32:]} {
			m.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
			m.Write([]byte(part))
		}
		if string(m.Sum(nil)) != string(commitment) {
			t.Fatal("commitment")
		}
		e.Openings = append(e.Openings, name+"="+opening[32:])
	}
	e.Action, e.Actor = text(), text()
	text()
	text()
	var types []string
	for range num() {
		types = append(types, text())
	}
	for range num() {
		target := types[num()]
		if raw(1)[0] == 1 {
			u := raw(16)
			target += fmt.Sprintf("/%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
		} else {
			target += "/" + text()
		}
		target += fmt.Sprintf("@%d:%x", num(), raw(num()))
		e.Targets = append(e.Targets, target)
	}
	for range num() {
		text()
	}
	text()
	text()
	text()
	for range num() {
		text()
	}
	if raw(1)[0] == 1 {
		raw(8)
	}
	num() // zigzag
	text()
	if len(p) != 0 || len(openings) != 0 {
		t.Fatal("bytes behind the event")
	}
	return e
}
