package keys_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// golden is one record of testdata/records.json with its exported forms.
type golden struct {
	Name       string `json:"name"`
	Tenant     string `json:"tenant"`
	ID         string `json:"id"` // hexadecimal, as all bytes here
	Kind       string `json:"kind"`
	Version    uint32 `json:"version"`
	Purpose    string `json:"purpose"`
	Person     string `json:"person"`
	Retention  string `json:"retention"`
	Epoch      string `json:"epoch"`
	Wrapped    string `json:"wrapped"`
	Commitment string `json:"commitment"`
	Created    int64  `json:"created"`
	Number     uint64 `json:"number"`
	Blocked    int64  `json:"blocked"`
	Form1      string `json:"form1"` // empty where version 1 cannot say it
	Form2      string `json:"form2"`
}

func readGolden(t testing.TB) (out []golden) {
	t.Helper()
	b, err := os.ReadFile("testdata/records.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if len(out) < 7 {
		t.Fatalf("%d records", len(out))
	}
	return out
}

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (g *golden) record(t testing.TB) keys.Record {
	t.Helper()
	r := keys.Record{
		Tenant: g.Tenant, Kind: keys.Kind(g.Kind), Version: g.Version, Purpose: g.Purpose, Retention: keys.Retention(g.Retention),
		Wrapped: fromHex(t, g.Wrapped), Commitment: fromHex(t, g.Commitment), Created: time.Unix(g.Created, 0).UTC(), Number: g.Number,
	}
	copy(r.ID[:], fromHex(t, g.ID))
	copy(r.Person[:], fromHex(t, g.Person))
	copy(r.Epoch[:], fromHex(t, g.Epoch))
	if g.Blocked != 0 {
		r.Blocked = time.Unix(g.Blocked, 0).UTC()
	}
	if len(r.Wrapped) == 0 {
		r.Wrapped = nil
	}
	if len(r.Commitment) == 0 {
		r.Commitment = nil
	}
	return r
}

// encode writes the exported form from section 7 of docs/formats/encrypt.md, not with the package's code.
func (g *golden) encode(t testing.TB, version byte) []byte {
	t.Helper()
	b := []byte{version}
	part := func(p []byte) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	part([]byte(g.Tenant))
	part(fromHex(t, g.ID))
	part([]byte(g.Kind))
	b = binary.BigEndian.AppendUint32(b, g.Version)
	part([]byte(g.Purpose))
	part(fromHex(t, g.Person))
	part([]byte(g.Retention))
	part(fromHex(t, g.Epoch))
	part(fromHex(t, g.Wrapped))
	part(fromHex(t, g.Commitment))
	b = binary.BigEndian.AppendUint64(b, uint64(g.Created))
	b = binary.BigEndian.AppendUint64(b, g.Number)
	if version == 2 {
		b = binary.BigEndian.AppendUint64(b, uint64(g.Blocked))
	}
	return b
}

// With CRMGUARD_WRITE_GOLDEN=1 the forms in the file are written anew.
func TestGoldenRecords(t *testing.T) {
	all := readGolden(t)
	if os.Getenv("CRMGUARD_WRITE_GOLDEN") == "1" {
		for i := range all {
			g := &all[i]
			g.Form1, g.Form2 = "", hex.EncodeToString(g.encode(t, 2))
			if g.Blocked == 0 {
				g.Form1 = hex.EncodeToString(g.encode(t, 1))
			}
		}
		b, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/records.json", append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range all {
		t.Run(g.Name, func(t *testing.T) {
			want := g.record(t)
			b, err := want.MarshalBinary()
			if err != nil || hex.EncodeToString(b) != g.Form2 {
				t.Fatalf("written as %x, %v", b, err)
			}
			for version, form := range map[byte]string{1: g.Form1, 2: g.Form2} {
				if form == "" {
					continue
				}
				if !bytes.Equal(g.encode(t, version), fromHex(t, form)) {
					t.Fatalf("version %d is not what the document says", version)
				}
				var got keys.Record
				if err := got.UnmarshalBinary(fromHex(t, form)); err != nil {
					t.Fatalf("version %d: %v", version, err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("version %d: got %+v, want %+v", version, got, want)
				}
			}
		})
	}
}

func TestRecordRefused(t *testing.T) {
	long := func(n int) string { return strings.Repeat("00", n) }
	for name, change := range map[string]func(*golden){
		"unknown kind":     func(g *golden) { g.Kind = "master" },
		"no kind":          func(g *golden) { g.Kind = "" },
		"short id":         func(g *golden) { g.ID = long(7) },
		"long id":          func(g *golden) { g.ID = long(9) },
		"short person":     func(g *golden) { g.Person = long(15) },
		"no person":        func(g *golden) { g.Person = "" },
		"short epoch":      func(g *golden) { g.Epoch = "" },
		"long tenant":      func(g *golden) { g.Tenant = strings.Repeat("a", 129) },
		"long purpose":     func(g *golden) { g.Purpose = strings.Repeat("a", 257) },
		"long retention":   func(g *golden) { g.Retention = strings.Repeat("a", 17) },
		"long wrapped":     func(g *golden) { g.Wrapped = long(1<<16 + 1) },
		"long commitment":  func(g *golden) { g.Commitment = long(65) },
		"blocked before 0": func(g *golden) { g.Blocked = -1 },
	} {
		g := readGolden(t)[0]
		change(&g)
		was := keys.Record{Tenant: "as it was"}
		got := was
		if err := got.UnmarshalBinary(g.encode(t, 2)); !errors.Is(err, keys.ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(got, was) {
			t.Errorf("%s: the record was changed", name)
		}
	}
	var r keys.Record
	for _, g := range readGolden(t) {
		for _, form := range []string{g.Form1, g.Form2} {
			b := fromHex(t, form)
			for n := range b {
				if err := r.UnmarshalBinary(b[:n]); !errors.Is(err, keys.ErrRecord) {
					t.Fatalf("%s cut to %d of %d bytes: %v", g.Name, n, len(b), err)
				}
			}
			for _, extra := range [][]byte{{0}, make([]byte, 8)} {
				if err := r.UnmarshalBinary(append(bytes.Clone(b), extra...)); err == nil && len(b) > 0 {
					t.Fatalf("%s with %d bytes behind it was read", g.Name, len(extra))
				}
			}
			for _, version := range []byte{0, 3, 255} {
				if len(b) > 0 {
					b[0] = version
					if err := r.UnmarshalBinary(b); !errors.Is(err, keys.ErrRecord) {
						t.Fatalf("version %d: %v", version, err)
					}
				}
			}
		}
	}
	// A length that says more than there is, up to the largest.
	for _, n := range []uint32{1 << 31, 1<<32 - 1, 200} {
		if err := r.UnmarshalBinary(binary.BigEndian.AppendUint32([]byte{2}, n)); !errors.Is(err, keys.ErrRecord) {
			t.Fatal(err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	for _, g := range readGolden(f) {
		f.Add(fromHex(f, g.Form1))
		f.Add(fromHex(f, g.Form2))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r keys.Record
		if err := r.UnmarshalBinary(b); err != nil {
			if !errors.Is(err, keys.ErrRecord) || !reflect.DeepEqual(r, keys.Record{}) {
				t.Fatalf("%v, %+v", err, r)
			}
			return
		}
		again, err := r.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Clone(b)
		if b[0] == 1 { // written anew in version 2
			want = append(want, make([]byte, 8)...)
			want[0] = 2
		}
		if !bytes.Equal(again, want) {
			t.Fatalf("%x reads and writes as %x", b, again)
		}
		_ = r.Slot()
	})
}
