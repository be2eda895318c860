package verify_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"hash/crc64"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/audit/opening"
)

var update = flag.Bool("update", false, "write the vectors anew: only for what is new in the format")

func clock() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC) }

// vector is a folder that is being written.
type vector struct {
	t   *testing.T
	dir string
}

func (v *vector) write(name string, b []byte) {
	v.t.Helper()
	path := filepath.Join(v.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		v.t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		v.t.Fatal(err)
	}
}

func (v *vector) read(name string) []byte {
	v.t.Helper()
	b, err := os.ReadFile(filepath.Join(v.dir, name))
	if err != nil {
		v.t.Fatal(err)
	}
	return b
}

func (v *vector) open(key byte, o audit.Options) *audit.Log {
	v.t.Helper()
	store, err := filestore.Open(filepath.Join(v.dir, "log"), &filestore.Options{SegmentBytes: 6000})
	if err != nil {
		v.t.Fatal(err)
	}
	if o.Clock == nil {
		o.Clock = clock
	}
	o.Sealer = sealer{}
	l, err := audit.Open(ctx, store, signer(v.t, key), &o)
	if err != nil {
		v.t.Fatal(err)
	}
	return l
}

func (v *vector) close(l *audit.Log) {
	v.t.Helper()
	if err := l.Close(); err != nil {
		v.t.Fatal(err)
	}
	os.Remove(filepath.Join(v.dir, "log", "lock"))
}

func (v *vector) append(l *audit.Log, es ...audit.Event) {
	v.t.Helper()
	if _, err := l.AppendAll(ctx, es); err != nil {
		v.t.Fatal(err)
	}
}

func (v *vector) head(l *audit.Log) []byte {
	v.t.Helper()
	c, err := l.Checkpoint(ctx)
	if err != nil {
		v.t.Fatal(err)
	}
	return c.Note
}

func (v *vector) receipt(l *audit.Log, index uint64) []byte {
	v.t.Helper()
	b, err := l.Tree().Receipt(ctx, index)
	if err != nil {
		v.t.Fatal(err)
	}
	return b
}

// edit rewrites the batches of the first segment.
func (v *vector) edit(change func(list []batch) []batch) {
	v.t.Helper()
	v.write(segmentZero, join(change(split(v.t, v.read(segmentZero)))))
}

// editFrame rewrites one frame and repairs each CRC.
func (v *vector) editFrame(i, k int, change func(f []byte) []byte) {
	v.t.Helper()
	v.edit(func(list []batch) []batch {
		fs := frames(v.t, list[i].data)
		fs[k] = sealed(change(fs[k]))
		list[i].data = bytes.Join(fs, nil)
		return list
	})
}

// event is a plain event, and full one with every field.
func event(i int) audit.Event {
	return audit.Event{Time: clock().Add(time.Duration(i) * time.Second), Action: "customer.read", Activity: audit.Read, Outcome: audit.Allowed,
		Actor: fmt.Sprintf("emp-%d", i), Tenant: "default", Targets: []audit.Target{{Type: "customer", ID: fmt.Sprintf("c-%d", i)}}}
}

func full(i int) audit.Event {
	return audit.Event{
		Time: clock().Add(time.Duration(i) * time.Nanosecond), Action: "kunde.ändern", Activity: audit.Update, Outcome: audit.Intended,
		Actor: "职员-7", Session: "сеанс-1", Tenant: "default",
		Targets: []audit.Target{
			{Type: "客户", ID: "0190b2a0-0000-7000-8000-00000000000a", Version: math.MaxUint64, Digest: bytes.Repeat([]byte{0xab}, 64)},
			{Type: "contact", ID: "0190B2A0-0000-7000-8000-00000000000A"}, {Type: "客户", ID: ""}},
		Fields: []string{"name", "電話", "📧"}, Purpose: "support", Decision: "d-9", Policy: "p-1", Controls: []string{"rbac", "owner"},
		Ref: 0, HasRef: true, Count: -5, Note: "wiederholt\u00a0– \u2028ok"}
}

// personal gives an event details, one of a person that can be erased.
func personal(e audit.Event) audit.Event {
	e.Details = []audit.Detail{audit.Personal("search.term", [16]byte{1}, "电话 13800000000 <&>\u2028"), audit.Personal("reason", [16]byte{0xee}, "asked by phone"),
		audit.Personal("file", [16]byte{2}, "\xff\x00 no text"), audit.Personal("reason", [16]byte{1}, "")}
	return e
}

// plain writes a log of five batches and keeps two of its heads.
func (v *vector) plain() {
	l := v.open(1, audit.Options{})
	v.append(l, event(1), event(2))
	v.append(l, event(3))
	v.write("pins/0", v.head(l))
	v.append(l, event(4), event(5), event(6))
	v.append(l, event(7))
	v.write("pins/1", v.head(l))
	v.close(l)
}

// disclosed exports the openings of the log.
func (v *vector) disclosed(erased bool) {
	v.t.Helper()
	store, err := filestore.Open(filepath.Join(v.dir, "log"), nil)
	if err != nil {
		v.t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := opening.Export(ctx, &b, store, []string{signer(v.t, 1).VerifierKey()}, sealer{erased}, nil); err != nil {
		v.t.Fatal(err)
	}
	v.write("openings.jsonl", b.Bytes())
}

// details writes a log with details and openings.
func (v *vector) details(erased bool) {
	l := v.open(1, audit.Options{})
	v.append(l, personal(event(1)), event(2))
	v.write("receipt", v.receipt(l, 1))
	v.append(l, event(3), personal(event(4)))
	v.write("pins/0", v.head(l))
	v.close(l)
	v.disclosed(erased)
}

// vectors are all of them: what they are for, the arguments besides --keys and
// log, and how they are made.
var vectors = []struct {
	name, about string
	args        []string
	make        func(v *vector)
}{
	{"unpinned", "A good log without a head kept elsewhere.", nil, func(v *vector) { v.plain(); os.RemoveAll(filepath.Join(v.dir, "pins")) }},
	{"pinned", "A good log with two heads kept elsewhere.", []string{"--pin", "pins/1", "--pin", "pins/0", "--every"}, (*vector).plain},
	{"rotation", "The signing key was replaced; keys.txt has both, and there is a head by each.", []string{"--pin", "pins/0", "--pin", "pins/1", "--every"}, func(v *vector) {
		l := v.open(2, audit.Options{})
		v.append(l, event(1))
		v.write("pins/0", v.head(l))
		v.close(l)
		l = v.open(1, audit.Options{OldKeys: []string{signer(v.t, 2).VerifierKey()}})
		v.append(l, event(2))
		v.write("pins/1", v.head(l))
		v.close(l)
		v.write("keys.txt", []byte(signer(v.t, 1).VerifierKey()+"\n"+signer(v.t, 2).VerifierKey()+"\n"))
	}},
	{"fields", "Every field of an event, in several scripts.", []string{"--pin", "pins/0"}, func(v *vector) {
		l := v.open(1, audit.Options{})
		old := full(2)
		old.Time, old.Count, old.Activity, old.Outcome = time.Date(1677, 9, 22, 0, 0, 0, 0, time.UTC), math.MinInt64, audit.Approve, audit.Aborted
		v.append(l, full(1), old)
		v.append(l, audit.Event{Action: "x", Outcome: audit.Denied, Count: math.MaxInt64, Time: clock()})
		v.write("pins/0", v.head(l))
		v.close(l)
	}},
	{"segments", "A log of several segments.", []string{"--pin", "pins/0", "--every"}, func(v *vector) {
		l := v.open(1, audit.Options{})
		for i := range 20 {
			v.append(l, full(i))
		}
		v.write("pins/0", v.head(l))
		v.close(l)
	}},
	{"openings", "Personal details, each with an exported opening.", []string{"--pin", "pins/0", "--openings", "openings.jsonl", "--receipt", "receipt"}, func(v *vector) { v.details(false) }},
	{"erased", "As openings, but one person is erased.", []string{"--pin", "pins/0", "--openings", "openings.jsonl"}, func(v *vector) { v.details(true) }},
	{"withheld", "An opening was taken out of the log, and nobody is erased.", []string{"--pin", "pins/0"}, func(v *vector) {
		v.details(false)
		v.editFrame(2, 1, func(f []byte) []byte { return append(f[:43+len(eventOf(f))], 0, 0, 0, 0) })
		os.Remove(filepath.Join(v.dir, "openings.jsonl"))
	}},
	{"withheld-opening", "A sealed opening was replaced by other bytes: nothing opens it.", []string{"--pin", "pins/0", "--openings", "openings.jsonl"}, func(v *vector) {
		v.details(false)
		v.editFrame(2, 1, func(f []byte) []byte { f[len(f)-1] ^= 1; return f })
		v.disclosed(false)
	}},
	{"pruned", "The contents of the first events are pruned. There are a head and receipts from before, one of a pruned event, and one that was made of it afterwards.",
		[]string{"--pin", "pins/0", "--receipt", "receipt", "--receipt", "receipt-pruned", "--receipt", "receipt-late"}, func(v *vector) {
			l := v.open(1, audit.Options{})
			v.append(l, personal(event(1)), event(2))
			v.append(l, event(3))
			v.append(l, personal(event(4)))
			v.write("pins/0", v.head(l))
			v.write("receipt", v.receipt(l, 4))
			v.write("receipt-pruned", v.receipt(l, 2))
			v.close(l)
			l = v.open(1, audit.Options{Clock: func() time.Time { return clock().AddDate(1, 0, 0) }})
			if n, err := l.Prune(ctx, 4); err != nil || n != 4 {
				v.t.Fatal(n, err)
			}
			v.append(l, event(5))
			v.write("receipt-late", v.receipt(l, 2))
			v.close(l)
		}},
	{"pruned-head", "As pruned, but the file checkpoint is of a batch that is gone.", []string{"--pin", "pins/0"}, func(v *vector) {
		l := v.open(1, audit.Options{})
		v.append(l, event(1), event(2))
		old := v.head(l)
		v.append(l, event(3))
		v.close(l)
		l = v.open(1, audit.Options{Clock: func() time.Time { return clock().AddDate(1, 0, 0) }})
		if n, err := l.Prune(ctx, 4); err != nil || n != 4 {
			v.t.Fatal(n, err)
		}
		v.write("pins/0", v.head(l))
		v.close(l)
		v.write("log/checkpoint", old)
	}},
	{"pruned-secretly", "Events were replaced by their hashes, and nothing in the log tells of it.", []string{"--pin", "pins/1"}, func(v *vector) {
		v.plain()
		v.edit(func(list []batch) []batch {
			var leaves []byte
			fs := frames(v.t, list[0].data)
			id := eventOf(fs[0])[1:17]
			for _, b := range list[:2] {
				for _, f := range frames(v.t, b.data) {
					if f[8] == 1 {
						h := leafHash(eventOf(f))
						leaves = append(leaves, h[:]...)
					}
				}
			}
			return append([]batch{{0, uint32(len(leaves) / 32), frame(3, id, leaves)}}, list[2:]...)
		})
	}},
	{"truncated", "The log was cut at the end of a batch; a head kept elsewhere shows it.", []string{"--pin", "pins/0", "--pin", "pins/1"}, func(v *vector) {
		v.plain()
		v.edit(func(list []batch) []batch { return list[:3] })
		os.Remove(filepath.Join(v.dir, "log", "checkpoint"))
	}},
	{"truncated-beside", "The log was cut at the end of a batch; the file checkpoint shows it.", []string{"--pin", "pins/0"}, func(v *vector) {
		v.plain()
		v.edit(func(list []batch) []batch { return list[:4] })
	}},
	{"torn", "The log ends inside a batch.", []string{"--pin", "pins/0"}, func(v *vector) {
		v.plain()
		b := v.read(segmentZero)
		v.write(segmentZero, b[:len(b)-100])
	}},
	{"altered-event", "A letter of an event was changed and each CRC repaired.", []string{"--pin", "pins/1"}, func(v *vector) {
		v.plain()
		v.editFrame(3, 1, func(f []byte) []byte { f[bytes.Index(f, []byte("emp-5"))+4] = '6'; return f })
	}},
	{"altered-checkpoint", "The time in the last checkpoint was changed and each CRC repaired.", []string{"--pin", "pins/0"}, func(v *vector) {
		v.plain()
		v.editFrame(4, 1, func(f []byte) []byte { return bytes.Replace(f, []byte("\ntime 1"), []byte("\ntime 2"), 1) })
	}},
	{"altered-file", "The file checkpoint is not a checkpoint of the log.", []string{"--pin", "pins/1"}, func(v *vector) {
		v.plain()
		v.write("log/checkpoint", bytes.Replace(v.read("log/checkpoint"), []byte("\ntime 1"), []byte("\ntime 2"), 1))
	}},
	{"altered-spelling", "The holder of the key has signed an event with an outcome that there is not.", []string{"--pin", "pins/0"}, func(v *vector) {
		v.plain()
		v.edit(func(list []batch) []batch {
			return resigned(v.t, list, func(index uint64, ev []byte) []byte {
				if index == 5 {
					ev = bytes.Clone(ev)
					ev[34] = 0
				}
				return ev
			})
		})
		os.Remove(filepath.Join(v.dir, "log", "checkpoint"))
	}},
	{"reordered", "Two batches change places; their headers are numbered anew.", []string{"--pin", "pins/1"}, func(v *vector) {
		v.plain()
		v.edit(func(list []batch) []batch { list[2], list[3] = list[3], list[2]; return renumbered(list) })
	}},
	{"dropped", "A batch is left out.", []string{"--pin", "pins/1"}, func(v *vector) {
		v.plain()
		v.edit(func(list []batch) []batch { return append(list[:2:2], list[3:]...) })
	}},
	{"duplicated", "A batch stands twice; the headers are numbered anew.", []string{"--pin", "pins/1"}, func(v *vector) {
		v.plain()
		v.edit(func(list []batch) []batch { return renumbered(append(list[:3:3], list[2:]...)) })
	}},
	{"foreign", "A batch comes from another log of the same name and key.", []string{"--pin", "pins/1"}, func(v *vector) {
		v.plain()
		other := &vector{v.t, v.t.TempDir()}
		other.plain()
		v.edit(func(list []batch) []batch { list[3] = split(v.t, other.read(segmentZero))[3]; return list })
	}},
	{"forked", "The holder of the key has written another history since the head was kept.", []string{"--pin", "pins/0"}, func(v *vector) {
		v.plain()
		v.edit(func(list []batch) []batch {
			return resigned(v.t, list, func(index uint64, ev []byte) []byte { return bytes.Replace(ev, []byte("emp-2"), []byte("emp-9"), 1) })
		})
		os.Remove(filepath.Join(v.dir, "log", "checkpoint"))
	}},
	{"key-unknown", "The log is signed by a key that is not in keys.txt.", nil, func(v *vector) {
		v.plain()
		os.RemoveAll(filepath.Join(v.dir, "pins"))
		v.write("keys.txt", []byte(signer(v.t, 3).VerifierKey()+"\n"))
	}},
	{"missing", "A segment that nothing was written to.", []string{"--pin", "pins/1"}, func(v *vector) {
		v.plain()
		v.write(segmentZero, v.read(segmentZero)[:24])
		os.Remove(filepath.Join(v.dir, "log", "checkpoint"))
	}},
	{"later-format", "A segment of a version that is not known: nothing is said of the log.", []string{"--pin", "pins/1"}, func(v *vector) {
		v.plain()
		v.write(segmentZero, append(segmentHead(0, 2), v.read(segmentZero)[24:]...))
	}},
	{"witnessed", "Two of three witnesses have signed a head that the log contains.", witnessArgs("pins/1"), func(v *vector) {
		v.plain()
		note := v.read("pins/1")
		for _, n := range []byte{1, 3} {
			_, cosign := witnessKey(n)
			note = cosign(note)
		}
		v.write("pins/1", note)
	}},
	{"witnessed-apart", "Two witnesses have signed, but not the same head.", append(witnessArgs("pins/0"), "--pin", "pins/1"), func(v *vector) {
		v.plain()
		for n := range byte(2) {
			_, cosign := witnessKey(n + 1)
			name := "pins/" + strconv.Itoa(int(n))
			v.write(name, cosign(v.read(name)))
		}
	}},
	{"receipt-altered", "A receipt whose event was changed, and one whose proof was.", []string{"--receipt", "receipt", "--receipt", "receipt-proof"}, func(v *vector) {
		v.details(false)
		os.Remove(filepath.Join(v.dir, "openings.jsonl"))
		lines := strings.Split(string(v.read("receipt")), "\n")
		proof := slices.Clone(lines)
		proof[3], proof[4] = proof[4], proof[3]
		event, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
		if err != nil {
			v.t.Fatal(err)
		}
		lines[1] = "extra " + base64.StdEncoding.EncodeToString(bytes.Replace(event, []byte("emp-1"), []byte("emp-2"), 1))
		v.write("receipt", []byte(strings.Join(lines, "\n")))
		v.write("receipt-proof", []byte(strings.Join(proof, "\n")))
	}},
}

func witnessArgs(pin string) []string {
	args := []string{"--pin", pin, "--quorum", "2"}
	for n := range byte(3) {
		vkey, _ := witnessKey(n + 1)
		args = append(args, "--witness", vkey)
	}
	return args
}

// TestWriteVectors writes the vectors when told so, and what is expected of
// each by package audit; TestVectors holds the script against that.
func TestWriteVectors(t *testing.T) {
	if !*update {
		t.Skip("writes the vectors with -update; TestVectors reads them")
	}
	if err := os.RemoveAll("vectors"); err != nil {
		t.Fatal(err)
	}
	for _, d := range vectors {
		t.Run(d.name, func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, crc64.Checksum([]byte(d.name), crc64.MakeTable(crc64.ISO))) // ids and salts
			v := &vector{t, filepath.Join("vectors", d.name)}
			v.write("keys.txt", []byte(signer(t, 1).VerifierKey()+"\n"))
			d.make(v)
			e := expected{About: d.about, Arguments: slices.Concat([]string{"--keys", "keys.txt"}, d.args, []string{"log"})}
			if d.name == "receipt-altered" {
				e.Arguments = slices.Concat([]string{"--keys", "keys.txt"}, d.args)
			}
			e.Exit, e.Result = ours(v.dir, e.Arguments)
			b, err := json.MarshalIndent(e, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			v.write("expect.json", append(b, '\n'))
		})
	}
}

// The vectors that are committed are those that are described here.
func TestVectorList(t *testing.T) {
	var names []string
	for _, d := range vectors {
		names = append(names, d.name)
		if got := readExpected(t, d.name); got.About != d.about {
			t.Errorf("%s: %s", d.name, got.About)
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, vectorNames(t)) {
		t.Errorf("%v\n%v", names, vectorNames(t))
	}
}
