package rowformat_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/internal/rowformat"
)

// example is the row of docs/formats/row.md.
func example() crm.Row {
	var person crm.UUID
	for i := range person {
		person[i] = 1
	}
	return crm.Row{
		Persons: []crm.UUID{person},
		Sealed: []crm.SealedField{{
			Name: "phone", Data: []byte{0xaa, 0xbb}, Tokens: []crm.Token{{Value: -2, Unique: true}},
		}},
		MAC: []byte{0xcc},
	}
}

const exampleHex = "01 01 01010101010101010101010101010101 01 05 70686f6e65 02 aabb 01 fffffffffffffffe 01 01 cc"

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestExample(t *testing.T) {
	row := example()
	b := rowformat.Append(nil, &row)
	if !bytes.Equal(b, unhex(t, exampleHex)) {
		t.Fatalf("got %x", b)
	}
	var back crm.Row
	if err := rowformat.Parse(b, &back); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rowformat.Append(nil, &back), b) {
		t.Fatal("another body after a round trip")
	}
	clear(b)
	if back.Sealed[0].Data[0] != 0xaa {
		t.Fatal("the row shares memory with the body")
	}
}

func TestRefused(t *testing.T) {
	person := strings.Repeat("01", 16)
	for name, body := range map[string]string{
		"empty":                 "",
		"format 0":              "00 00 00 00",
		"format 2":              "02 00 00 00",
		"no MAC":                "01 00 00",
		"something behind":      "01 00 00 00 00",
		"longer uvarint":        "01 8000 00 00",
		"endless uvarint":       "01 ffffffffffffffffffffff",
		"huge number":           "01 ffffffffffffffffff01 00 00",
		"more persons than fit": "01 02" + person + "00 00",
		"person twice":          "01 02" + person + person + "00 00",
		"person thrice":         "01 03" + strings.Repeat("02", 16) + person + person + "00 00",
		"first person again":    "01 03" + person + strings.Repeat("02", 16) + person + "00 00",
		"persons descending":    "01 03" + strings.Repeat("03", 16) + strings.Repeat("02", 16) + person + "00 00",
		"field twice":           "01 00 02 0161 00 00 0161 00 00 00",
		"fields descending":     "01 00 02 0162 00 00 0161 00 00 00",
		"flag 2":                "01 00 01 0161 00 01 0000000000000001 02 00",
		"token cut":             "01 00 01 0161 00 01 00000000000000",
		"data cut":              "01 00 01 0161 05 aa",
		"MAC cut":               "01 00 00 05 aa",
	} {
		var row crm.Row
		if err := rowformat.Parse(unhex(t, body), &row); !errors.Is(err, crm.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	full := unhex(t, exampleHex)
	for n := range full {
		var row crm.Row
		if err := rowformat.Parse(full[:n], &row); err == nil {
			t.Errorf("the first %d bytes are taken for a body", n)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(unhex(f, exampleHex))
	f.Add([]byte{1, 0, 0, 0})
	for i := range 3 {
		row := crmtest.Row("default", i)
		f.Add(rowformat.Append(nil, &row))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var row crm.Row
		if err := rowformat.Parse(b, &row); err != nil {
			return
		}
		if again := rowformat.Append(nil, &row); !bytes.Equal(again, b) {
			t.Fatalf("two bodies of one row: %x and %x", b, again)
		}
	})
}
