// Package verify_test holds audit.py, the verifier of the audit log that is
// written from docs/formats/audit.md alone, against package audit.
package verify_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/internal/realtest"
)

var ctx = context.Background()

// result is what a verifier says, without what is for people and the age.
type result map[string]any

// ours is package audit with the command line of audit.py.
func ours(dir string, args []string) (exit int, r result) {
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	var pins, keyFiles, receipts, witnesses []string
	list := func(name string, to *[]string) {
		f.Func(name, "", func(s string) error { *to = append(*to, s); return nil })
	}
	list("pin", &pins)
	list("keys", &keyFiles)
	list("receipt", &receipts)
	list("witness", &witnesses)
	openings := f.String("openings", "", "")
	o := audit.VerifyOptions{}
	f.IntVar(&o.Quorum, "quorum", 0, "")
	f.BoolVar(&o.EverySignature, "every", false, "")
	if err := f.Parse(args); err != nil {
		return 2, nil
	}
	o.Witnesses = witnesses
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			panic(err)
		}
		return b
	}
	var keys []string
	for _, name := range keyFiles {
		keys = append(keys, strings.Fields(string(read(name)))...)
	}
	for _, name := range pins {
		o.Pins = append(o.Pins, read(name))
	}
	if *openings != "" {
		o.Sealer = sealer{erased: bytes.Contains(read(*openings), []byte(`"state":"erased"`))}
	}
	r = result{}
	if f.NArg() == 1 {
		store, err := filestore.Open(filepath.Join(dir, f.Arg(0)), nil)
		if err != nil {
			return 2, nil
		}
		v, err := audit.Verify(ctx, store, keys, &o)
		if err != nil {
			return 2, nil
		}
		b, err := json.Marshal(v)
		if err != nil {
			return 2, nil
		}
		if err := json.Unmarshal(b, &r); err != nil {
			panic(err)
		}
		if !v.OK() {
			exit = 1
		}
	}
	if len(receipts) > 0 {
		var all []any
		for _, name := range receipts {
			e, c, err := audit.VerifyReceipt(read(name), keys)
			switch {
			case errors.Is(err, audit.ErrTampered) || err != nil && strings.HasPrefix(err.Error(), "audit: bytes are not a receipt"):
				all, exit = append(all, map[string]any{"ok": false}), 1
			case err != nil:
				return 2, nil
			default:
				one := map[string]any{"ok": true, "index": float64(e.Index), "size": float64(c.Size), "leaf": base64.StdEncoding.EncodeToString(e.Leaf[:])}
				if e.Event.Action == "" {
					one["pruned"] = true
				}
				all = append(all, one)
			}
		}
		r["receipts"] = all
	}
	return exit, clean(r)
}

// clean takes out what is for people, and the age.
func clean(r result) result {
	delete(r, "reason")
	delete(r, "age_seconds")
	if list, ok := r["receipts"].([]any); ok {
		for _, one := range list {
			delete(one.(map[string]any), "reason")
		}
	}
	return r
}

func (r result) String() string {
	b, _ := json.Marshal(r)
	return string(b)
}

// script is a running audit.py --many.
type script struct {
	t   testing.TB
	in  io.WriteCloser
	out *bufio.Reader
	dir string
}

func python(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("python3")
	if err != nil {
		err = errors.New("Python is not installed: apt-get install python3")
	}
	realtest.Require(t, "python", err)
	return path
}

// start runs audit.py in the folder that the arguments are relative to.
func start(t testing.TB, dir string) *script {
	t.Helper()
	py, err := filepath.Abs("audit.py")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python(t), py, "--many")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	return &script{t, in, bufio.NewReader(out), dir}
}

func (s *script) ask(args []string) {
	s.t.Helper()
	b, err := json.Marshal(args)
	if err == nil {
		_, err = s.in.Write(append(b, '\n'))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *script) answer() (exit int, r result) {
	s.t.Helper()
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(line, &r); err != nil {
		s.t.Fatal(err)
	}
	exit = int(r["exit"].(float64))
	delete(r, "exit")
	if e, ok := r["error"].(string); ok {
		if strings.HasPrefix(e, "the check failed") || len(r) != 1 {
			s.t.Fatalf("the script failed: %v", r)
		}
		r = nil
	}
	return exit, clean(r)
}

// agree requires both to say the same, and returns it.
func (s *script) agree(what string, args []string) (int, result) {
	s.t.Helper()
	s.ask(args)
	exit, r := ours(s.dir, args)
	pyExit, pyR := s.answer()
	if exit != pyExit || r.String() != pyR.String() {
		s.t.Errorf("%s: ours %d %v\naudit.py %d %v", what, exit, r, pyExit, pyR)
	}
	return exit, r
}

// expected is the file expect.json of a vector.
type expected struct {
	About     string   `json:"about"`
	Arguments []string `json:"arguments"`
	Exit      int      `json:"exit"`
	Result    result   `json:"result,omitempty"`
}

func vectorNames(t testing.TB) []string {
	t.Helper()
	list, err := os.ReadDir("vectors")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func readExpected(t testing.TB, name string) (e expected) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("vectors", name, "expect.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestVectors runs every committed vector through both.
func TestVectors(t *testing.T) {
	states := map[any]int{}
	s := start(t, "vectors")
	for _, name := range vectorNames(t) {
		want := readExpected(t, name)
		args := slices.Clone(want.Arguments)
		for i, a := range args {
			if _, err := os.Stat(filepath.Join("vectors", name, a)); err == nil {
				args[i] = name + "/" + a
			}
		}
		exit, got := s.agree(name, args)
		if exit != want.Exit || got.String() != want.Result.String() {
			t.Errorf("%s: %d %v\nwant %d %v", name, exit, got, want.Exit, want.Result)
		}
		states[got["state"]]++
	}
	delete(states, nil)
	if len(states) != 11 {
		t.Errorf("not every state is there: %v", states)
	}
	t.Logf("%d vectors, states %v", len(vectorNames(t)), states)
}

// TestCommand runs the script as people do: one object, and the exit code.
func TestCommand(t *testing.T) {
	py := python(t)
	for _, name := range []string{"pinned", "unpinned", "later-format"} {
		want := readExpected(t, name)
		cmd := exec.Command(py, append([]string{"../../audit.py"}, want.Arguments...)...)
		cmd.Dir = filepath.Join("vectors", name)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, _ := cmd.Output()
		var r result
		if err := json.Unmarshal(out, &r); err != nil || cmd.ProcessState.ExitCode() != want.Exit || stderr.Len() > 0 {
			t.Errorf("%s: exit %d, %s%s", name, cmd.ProcessState.ExitCode(), out, stderr.String())
		}
		if want.Exit < 2 && clean(r).String() != want.Result.String() {
			t.Errorf("%s: %v", name, r)
		}
	}
	s := start(t, ".")
	for i, args := range [][]string{{"--nonsense"}, {"--key", "\xff+00000000+AA", "log"}, {}, {"--quorum", "x", "log"}, {"log"}, {"--key", "x", "log"}, {"--keys", "vectors/pinned/keys.txt", "audit.py"},
		{"--keys", "vectors/pinned/keys.txt", "--quorum", "1", "vectors/pinned/log"}, {"--keys", "audit.py", "log"}, {"--keys", "no such file", "log"}, {"--keys", "vectors", "log"},
		{"--keys", "vectors/pinned/keys.txt", "--pin", "audit.py", "log"}, {"--keys", "vectors/pinned/keys.txt", "--openings", "audit.py", "log"}, {"--many", "log"}} {
		if s.ask(args); i < 2 {
			cmd := exec.Command(py, append([]string{"audit.py"}, args...)...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, _ := cmd.Output()
			var r map[string]string
			if err := json.Unmarshal(out, &r); err != nil || len(r) != 1 || r["error"] == "" || cmd.ProcessState.ExitCode() != 2 || stderr.Len() > 0 {
				t.Errorf("%q: exit %d, %s%s", args, cmd.ProcessState.ExitCode(), out, stderr.String())
			}
		}
		if exit, r := s.answer(); exit != 2 || r != nil {
			t.Errorf("%q: exit %d, %v", args, exit, r)
		}
	}
	for _, line := range []string{"", "{}", "[1]", strings.Repeat("[", 100_000), "\xff"} {
		if _, err := io.WriteString(s.in, line+"\n"); err != nil {
			t.Fatal(err)
		}
		if exit, r := s.answer(); exit != 2 || r != nil {
			t.Errorf("%.9q: exit %d, %v", line, exit, r)
		}
	}
}

// count tells how often each state was met.
type count map[string]int

func (c count) add(r result) {
	if s, ok := r["state"].(string); ok {
		c[s]++
	} else if r == nil {
		c["could not be checked"]++
	} else {
		c["receipts"]++
	}
}

func (c count) String() string {
	var list []string
	n := 0
	for _, k := range slices.Sorted(maps.Keys(c)) {
		list = append(list, fmt.Sprintf("%s %d", k, c[k]))
		n += c[k]
	}
	return fmt.Sprintf("%d: %s", n, strings.Join(list, ", "))
}

// copied returns a copy of a vector to change, and its arguments.
func copied(t testing.TB, name string) (dir string, e expected) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("vectors", name))); err != nil {
		t.Fatal(err)
	}
	return dir, readExpected(t, name)
}

const segmentZero = "log/00000000000000000000.seg"

// every is 1 for each place in a soak; else a stride that keeps the test short.
func every(stride int) int {
	if os.Getenv("CRMGUARD_SOAK") != "" {
		return 1
	}
	if testing.Short() {
		return 8 * stride
	}
	return stride
}

// TestSweep changes logs, heads and receipts in many ways; both say the same.
func TestSweep(t *testing.T) {
	for name, sparse := range map[string]int{"openings": 1, "pruned": 4, "pruned-head": 4} {
		dir, e := copied(t, name)
		s := start(t, dir)
		sweepFile := func(what, file string, args []string, stride int, change func(b []byte, off int) []byte) {
			t.Helper()
			path := filepath.Join(dir, file)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c := count{}
			for off := 0; off < len(b); off += every(stride * sparse) {
				changed := change(bytes.Clone(b), off)
				if changed == nil {
					continue
				}
				if err := os.WriteFile(path, changed, 0o600); err != nil {
					t.Fatal(err)
				}
				_, r := s.agree(fmt.Sprintf("%s: %s at %d", name, what, off), args)
				c.add(r)
				if t.Failed() {
					t.FailNow()
				}
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s, %s: %v", name, what, c)
		}
		flip := func(b []byte, off int) []byte { b[off] ^= 1 << (off % 8); return b }
		cut := func(b []byte, off int) []byte { return b[:off] }
		sweepFile("bits of the checkpoint file flipped", "log/checkpoint", e.Arguments, 1, flip)
		sweepFile("checkpoint file cut", "log/checkpoint", e.Arguments, 3, cut)
		sweepFile("bits of a head flipped", "pins/0", e.Arguments, 1, flip)
		if name == "pruned-head" {
			continue
		}
		sweepFile("bits of the log flipped", segmentZero, e.Arguments, 1, flip)
		// Whether sealed bytes were changed is seen by who has the keys only.
		sweepFile("bits of the log flipped and each CRC repaired", segmentZero, withoutOpenings(e.Arguments), 1, func(b []byte, off int) []byte { return repaired(t, flip(b, off), off) })
		sweepFile("log cut", segmentZero, e.Arguments, 1, cut)
		sweepFile("end of the log zeros", segmentZero, e.Arguments, 7, func(b []byte, off int) []byte { clear(b[off:]); return b })
		sweepFile("bits of a receipt flipped", "receipt", []string{"--keys", "keys.txt", "--receipt", "receipt"}, 2, flip)
		sweepFile("receipt cut", "receipt", []string{"--keys", "keys.txt", "--receipt", "receipt"}, 5, cut)
		sweepFile("bits of a key flipped", "keys.txt", e.Arguments, 1, flip)
		sweepBatches(t, s, name, e.Arguments)
	}
}

func withoutOpenings(args []string) []string {
	i := slices.Index(args, "--openings")
	if i < 0 {
		return args
	}
	return slices.Delete(slices.Clone(args), i, i+2)
}

// sweepBatches drops, doubles and swaps batches, as they are and renumbered.
func sweepBatches(t *testing.T, s *script, name string, args []string) {
	t.Helper()
	path := filepath.Join(s.dir, segmentZero)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list := split(t, whole)
	var variants [][]batch
	for i := range list {
		variants = append(variants, slices.Concat(list[:i], list[i+1:]), slices.Concat(list[:i+1], list[i:]))
		for j := range i {
			swapped := slices.Clone(list)
			swapped[i], swapped[j] = list[j], list[i]
			variants = append(variants, swapped)
		}
		// The frames of a batch, likewise.
		fs := frames(t, list[i].data)
		for k := range fs {
			for _, changed := range [][][]byte{slices.Concat(fs[:k], fs[k+1:]), slices.Concat(fs[:k+1], fs[k:]), slices.Concat(fs[:k], fs[min(k+1, len(fs)-1):min(k+2, len(fs))], fs[k:k+1], fs[min(k+2, len(fs)):])} {
				for _, count := range []int{len(fs) - 1, len(changed) - 1} {
					v := slices.Clone(list)
					v[i] = batch{list[i].first, uint32(max(count, 1)), bytes.Join(changed, nil)}
					variants = append(variants, v)
				}
			}
		}
	}
	c := count{}
	for i, v := range variants {
		for _, again := range []bool{false, true} {
			if again {
				v = renumbered(v)
			}
			if err := os.WriteFile(path, join(v), 0o600); err != nil {
				t.Fatal(err)
			}
			_, r := s.agree(fmt.Sprintf("%s: variant %d", name, i), args)
			c.add(r)
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s, batches and frames dropped, doubled and swapped: %v", name, c)
}

// TestSweepSigned changes events with the signing key at hand: every hash, root
// and signature is made anew, so that only the spelling can be wrong.
func TestSweepSigned(t *testing.T) {
	dir, _ := copied(t, "fields")
	s := start(t, dir)
	path := filepath.Join(dir, segmentZero)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, "log", "checkpoint"))
	args := []string{"--keys", "keys.txt", "log"}
	list := split(t, whole)
	size := 0
	for i := range list {
		for _, f := range frames(t, list[i].data) {
			if f[8] == 1 {
				size = max(size, len(eventOf(f)))
			}
		}
	}
	c := count{}
	try := func(what string, change func(ev []byte) []byte) {
		t.Helper()
		done := false
		forged := resigned(t, list, func(index uint64, ev []byte) []byte {
			if index != 1 {
				return ev
			}
			done = true
			return change(bytes.Clone(ev))
		})
		if !done {
			t.Fatal("no event was changed")
		}
		if err := os.WriteFile(path, join(forged), 0o600); err != nil {
			t.Fatal(err)
		}
		_, r := s.agree(what, args)
		c.add(r)
	}
	for off := 0; off < size; off += every(2) {
		for _, bit := range []int{0, off % 7, 7} {
			try(fmt.Sprintf("bit %d of byte %d", bit, off), func(ev []byte) []byte {
				if off < len(ev) {
					ev[off] ^= 1 << bit
				}
				return ev
			})
		}
		try(fmt.Sprintf("a zero at %d", off), func(ev []byte) []byte { return slices.Insert(ev, min(off, len(ev)), 0) })
		try(fmt.Sprintf("0x80 at %d", off), func(ev []byte) []byte { return slices.Insert(ev, min(off, len(ev)), 0x80) })
		try(fmt.Sprintf("byte %d gone", off), func(ev []byte) []byte { n := min(off, len(ev)-1); return slices.Delete(ev, n, n+1) })
		try(fmt.Sprintf("byte %d is 1", off), func(ev []byte) []byte { ev[min(off, len(ev)-1)] = 1; return ev })
	}
	if c["Unanchored"] == 0 || c["Altered"] == 0 {
		t.Error("nothing was tried")
	}
	t.Logf("events changed and signed: %v", c)
}

// TestOpeningsFile changes exported openings: the script never fails, never
// counts more as opened, and never prints a value.
func TestOpeningsFile(t *testing.T) {
	dir, e := copied(t, "openings")
	s := start(t, dir)
	path := filepath.Join(dir, "openings.jsonl")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	opened := e.Result["opened"].(float64)
	c := count{}
	try := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s.ask(e.Arguments)
		exit, r := s.answer()
		if exit < 2 && (r["opened"].(float64) > opened || r["state"] != "Withheld" && r["opened"].(float64)+r["unchecked"].(float64)+r["erased"].(float64) < opened) {
			t.Fatalf("%v\n%s", r, b)
		}
		c.add(r)
	}
	for off := 0; off < len(whole); off += every(4) {
		b := bytes.Clone(whole)
		b[off] ^= 1 << (off % 8)
		try(b)
		try(whole[:off])
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	for i := range lines {
		try(bytes.Join(slices.Concat(lines[:i], lines[i+1:]), nil))
		try(bytes.Join(slices.Concat(lines[:i+1], lines[i:]), nil))
		try(bytes.Join(slices.Concat(lines[:i], [][]byte{bytes.Repeat([]byte("["), 300_000), []byte("\n")}, lines[i:]), nil))
		try(bytes.Join(slices.Concat(lines[:i], [][]byte{bytes.Repeat([]byte("1"), 300_000), []byte("\n")}, lines[i:]), nil))
		try(bytes.Join(slices.Concat(lines[:i], [][]byte{[]byte(`{"index":1,"detail":0,"person":7,"name":null,"state":[]}` + "\n")}, lines[i:]), nil))
	}
	t.Logf("openings changed: %v", c)
	cmd := exec.Command(python(t), append([]string{"audit.py"}, "--keys", "vectors/openings/keys.txt", "--pin", "vectors/openings/pins/0", "--openings", "vectors/openings/openings.jsonl", "vectors/openings/log")...)
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("13800000000")) || !bytes.Contains(whole, []byte("13800000000")) {
		t.Fatalf("%v: %s", err, out)
	}
}
