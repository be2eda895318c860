package opening_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/audit/opening"
)

const origin = "crm.example.com/log"

var ctx = context.Background()

type detailLine struct {
	Index       uint64
	Detail      int
	Person      string
	Name, State string
	Salt        []byte
	Value       *string
	ValueBase64 []byte `json:"value_base64"`
}

// written makes a log with details of three persons; Commitments are by index
// and detail.
func written(t *testing.T, sealer audit.Sealer) (driver.Store, []string, map[[2]int][32]byte) {
	t.Helper()
	store := memstore.New()
	signer := audittest.Signer(t, origin)
	l, err := audit.Open(ctx, store, signer, &audit.Options{Sealer: sealer})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, ds := range [][]audit.Detail{
		{audit.Personal("search.term", [16]byte{1}, "张三 <zhang@example.com>"), audit.Personal("reason", [16]byte{2}, "")},
		nil,
		{audit.Personal("reason", [16]byte{3}, "\xff\x00 no text"), audit.Personal("address", [16]byte{1}, "192.0.2.7")},
	} {
		if _, err := l.Append(ctx, audit.Event{Action: "customer.search", Activity: audit.Search, Outcome: audit.Allowed, Details: ds}); err != nil {
			t.Fatal(err)
		}
	}
	commitments := map[[2]int][32]byte{}
	for e, err := range l.Events(ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		for i, d := range e.Event.Details {
			commitments[[2]int{int(e.Index), i}] = d.Commitment
		}
	}
	return store, []string{signer.VerifierKey()}, commitments
}

func lines(t *testing.T, b []byte) (list []detailLine) {
	t.Helper()
	head, rest, _ := strings.Cut(string(b), "\n")
	if head != `{"format":"crmguard audit openings v1","origin":"crm.example.com/log"}` {
		t.Fatal(head)
	}
	for s := range strings.Lines(rest) {
		var l detailLine
		if err := json.Unmarshal([]byte(s), &l); err != nil {
			t.Fatal(err)
		}
		list = append(list, l)
	}
	return list
}

func TestExport(t *testing.T) {
	sealer := audittest.NewSealer()
	store, keys, commitments := written(t, sealer)
	sealer.Erase([16]byte{2})
	var b bytes.Buffer
	v, err := opening.Export(ctx, &b, store, keys, sealer, nil)
	if err != nil || v.State != audit.Unanchored || v.Opened != 3 || v.Erased != 1 {
		t.Fatal(v, err)
	}
	list := lines(t, b.Bytes())
	if len(list) != 4 || !strings.Contains(b.String(), "<zhang@example.com>") {
		t.Fatalf("%s", b.String())
	}
	for i, want := range []struct {
		at    [2]int
		value string
		text  bool
	}{{[2]int{1, 0}, "张三 <zhang@example.com>", true}, {[2]int{1, 1}, "", false}, {[2]int{3, 0}, "\xff\x00 no text", false}, {[2]int{3, 1}, "192.0.2.7", true}} {
		l := list[i]
		if int(l.Index) != want.at[0] || l.Detail != want.at[1] {
			t.Fatal(l)
		}
		if i == 1 {
			if l.State != "erased" || l.Salt != nil || l.Value != nil || l.ValueBase64 != nil {
				t.Fatal(l)
			}
			continue
		}
		value := l.ValueBase64
		if want.text {
			value = []byte(*l.Value)
		}
		m := hmac.New(sha256.New, l.Salt)
		person := make([]byte, 16)
		fmt.Sscanf(l.Person, "%x", &person)
		for _, p := range [][]byte{[]byte("crmguard audit commitment v1"), []byte(l.Name), person, value} {
			m.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
			m.Write(p)
		}
		if l.State != "opened" || string(value) != want.value || [32]byte(m.Sum(nil)) != commitments[want.at] {
			t.Fatalf("%+v", l)
		}
	}

	b.Reset()
	only := func(_ audit.Entry, d audit.Detail) bool { return d.Person == [16]byte{1} }
	if v, err = opening.Export(ctx, &b, store, keys, sealer, &opening.Options{Select: only}); err != nil || v.Opened != 3 {
		t.Fatal(v, err)
	}
	if list = lines(t, b.Bytes()); len(list) != 2 || bytes.Contains(b.Bytes(), []byte(base64.StdEncoding.EncodeToString([]byte("\xff\x00 no text")))) {
		t.Fatalf("%s", b.String())
	}

	sealer.SetDown(true)
	b.Reset()
	if v, err = opening.Export(ctx, &b, store, keys, sealer, nil); err != nil || v.Unchecked != 4 || lines(t, b.Bytes())[3].State != "unavailable" {
		t.Fatal(v, err)
	}
}

type failing struct{ audit.Sealer }

func (failing) OpenOpening(context.Context, string, [16]byte, []byte, []byte) ([]byte, error) {
	return make([]byte, 40), nil // not what was committed to
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestExportBad(t *testing.T) {
	sealer := audittest.NewSealer()
	store, keys, _ := written(t, sealer)
	var b bytes.Buffer
	v, err := opening.Export(ctx, &b, store, keys, failing{sealer}, nil)
	if err != nil || v.State != audit.Withheld || v.At != 1 {
		t.Fatal(v, err)
	}
	if list := lines(t, b.Bytes()); len(list) != 1 || list[0].State != "withheld" || list[0].Value != nil {
		t.Fatalf("%s", b.String())
	}
	if _, err := opening.Export(ctx, full{}, store, keys, sealer, nil); err == nil {
		t.Fatal("a failed write is no error")
	}
	for _, k := range [][]string{nil, {"x"}} {
		if _, err := opening.Export(ctx, &b, store, k, sealer, nil); err == nil {
			t.Fatal("a malformed key is taken")
		}
	}
	if _, err := opening.Export(ctx, &b, store, keys, nil, nil); err == nil {
		t.Fatal("no sealer is taken")
	}
}

func ExampleExport() {
	dir, err := os.MkdirTemp("", "openings")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	signer, err := audit.NewEd25519Signer(origin, key)
	if err != nil {
		panic(err)
	}
	sealer := audittest.NewSealer()
	store := memstore.New()
	l, err := audit.Open(ctx, store, signer, &audit.Options{Sealer: sealer})
	if err != nil {
		panic(err)
	}
	event := audit.Event{Action: "customer.search", Activity: audit.Search, Outcome: audit.Allowed, Actor: "emp-7",
		Details: []audit.Detail{audit.Personal("search.term", [16]byte{1}, "Zhang")}}
	// The disclosure itself is logged first.
	if _, err := l.AppendAll(ctx, []audit.Event{event, {Action: "audit.disclose", Activity: audit.Export, Outcome: audit.Allowed, Actor: "dpo-1", Purpose: "audit 2026"}}); err != nil {
		panic(err)
	}
	l.Close()
	f, err := os.OpenFile(filepath.Join(dir, "openings.jsonl"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	v, err := opening.Export(ctx, f, store, []string{signer.VerifierKey()}, sealer, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(v.State, v.Opened)
	// Output: Unanchored 1
}

func TestLinesAreInOrder(t *testing.T) {
	sealer := audittest.NewSealer()
	store, keys, _ := written(t, sealer)
	var b bytes.Buffer
	if _, err := opening.Export(ctx, &b, store, keys, sealer, nil); err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(lines(t, b.Bytes()), func(a, b detailLine) int { return int(a.Index)*10 + a.Detail - int(b.Index)*10 - b.Detail }) {
		t.Fatalf("%s", b.String())
	}
}
