package session_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/session"
)

var update = flag.Bool("update", false, "write the golden file anew")

func goldenRow(t testing.TB) session.Record {
	at := time.Date(2026, 11, 27, 9, 0, 0, 123e6, time.UTC)
	r, err := session.RowOf(key, strings.Repeat("A", 43), "https://id.example.com 08a5", session.Record{
		Tenant: "acme", Person: "ann", ID: "00112233445566778899aabbccddeeff", Epoch: 3, Version: 7, Seen: at.Add(time.Minute),
	}, at, at.Add(12*time.Hour), at.Add(30*time.Second), 30*time.Minute, []string{"admin", "sales"},
		[]session.Proof{{Method: authn.Password, At: at}, {Method: authn.TOTP, At: at.Add(time.Second)}}, []byte("sealed"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestFormat1: rows of format version 1 are as they were when the version was fixed.
func TestFormat1(t *testing.T) {
	r := goldenRow(t)
	var out strings.Builder
	fmt.Fprintf(&out, "key: %x\ntoken: %s\nprovider's session: https://id.example.com 08a5\ntenant: %s\nperson: %s\nid: %s\nhash: %x\nexternal: %x\nepoch: %d\nversion: %d\nseen: %d\nexpires: %d\nbody: %x\n",
		key, strings.Repeat("A", 43), r.Tenant, r.Person, r.ID, r.Hash, r.External, r.Epoch, r.Version, r.Seen.UnixMilli(), r.Expires.UnixMilli(), r.Body)
	const name = "testdata/session-v1.txt"
	if *update {
		if err := os.WriteFile(name, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || string(want) != out.String() {
		t.Errorf("%v; got\n%s", err, out.String())
	}
}

// FuzzBody: what is read is written back the same, and nothing panics.
func FuzzBody(f *testing.F) {
	r := goldenRow(f)
	plain := r.Body[:len(r.Body)-session.MACSize]
	f.Add(plain)
	for i := range plain {
		f.Add(plain[:i])
	}
	f.Add(append([]byte{2}, plain[1:]...))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := session.Reread(in)
		if err == nil && !bytes.Equal(in, out) {
			t.Errorf("%x became %x", in, out)
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add(strings.Repeat("A", 43))
	f.Add(strings.Repeat("A", 42) + "B")
	f.Fuzz(func(t *testing.T, in string) {
		if token, err := session.ParseToken(in); err == nil && token.Reveal() != in {
			t.Errorf("%q", in)
		}
	})
}
