package transfer_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/transfer"
)

// TestFormat: what docs/formats/import.md says is what is stored: the JSON of what is kept, byte for byte as the golden file has it, and ids that anybody can work out from the import's.
func TestFormat(t *testing.T) {
	got, err := json.MarshalIndent(map[string]any{
		"mapping": transfer.Mapping{
			Columns: []transfer.Column{{Header: "公司", Field: "company"}, {Header: "Colour"}, {Header: "Product", Field: "product", Replace: map[string]string{"GTXPro": "GTX Pro"}}},
			Key:     "external_id", Dates: transfer.DayMonthYear, Currency: "CNY", Default: map[string]string{"country": "CN"},
		},
		"rejected": []transfer.Rejected{
			{Row: 2, Line: 3, Reasons: []transfer.Reason{{Field: "product", Rule: "bad_reference", Near: []string{"GTX Pro"}}}, Cells: []string{"a", "", "=1"}},
			{Row: 4, Line: 9, Reasons: []transfer.Reason{{Rule: "encoding"}}},
		},
		"erased":  []transfer.Erased{{Row: 6, Line: 11}},
		"matched": []transfer.Matched{{Row: 5, Line: 10, Band: "certain"}},
	}, "", "  ")
	require.NoError(t, err)
	want, err := os.ReadFile("testdata/format.golden.json")
	require.NoError(t, err)
	assert.Equal(t, string(want), string(got)+"\n")

	for name, derive := range map[string]func(of crm.UUID, row uint64, sum [32]byte) crm.UUID{
		"version 1": func(of crm.UUID, _ uint64, sum [32]byte) (out crm.UUID) {
			copy(out[:], append(of[:6:6], sum[:10]...))
			out[6], out[8] = 0x80|out[6]&0x0f, 0x80|out[8]&0x3f
			return out
		},
		"version 2": func(of crm.UUID, row uint64, sum [32]byte) (out crm.UUID) {
			var bits strings.Builder // as the table has them
			for _, b := range of[:6] {
				fmt.Fprintf(&bits, "%08b", b)
			}
			number, hash := fmt.Sprintf("%032b", uint32(row)), fmt.Sprintf("%064b", binary.BigEndian.Uint64(sum[:]))
			bits.WriteString("1000" + number[:12] + "10" + number[12:] + hash[:42])
			for i := range out {
				b, err := strconv.ParseUint(bits.String()[8*i:8*i+8], 2, 8)
				require.NoError(t, err)
				out[i] = byte(b)
			}
			return out
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "version 1" {
				defer transfer.DeriveFirst()()
			}
			r := newRig(t)
			text := "external id,company,city\nx1,Acme,Ulm\nx2,Bolt,Bonn\n"
			job, err := r.importer(nil).Run(t.Context(), r.admin, "", csv(t, text), suggested(t, text), transfer.Create)
			require.NoError(t, err)
			id := func(use string, row uint64) crm.UUID {
				of := job.ID.UUID()
				b := append([]byte("crmguard import\x00"+use+"\x00"), of[:]...)
				return derive(of, row, sha256.Sum256(binary.BigEndian.AppendUint64(b, row)))
			}
			all := r.all(t)
			for row, key := range map[uint64]string{1: "x1", 2: "x2"} {
				c := all[key]
				assert.Equal(t, id("record", row), c.ID.UUID())
				assert.Equal(t, id("person", row), c.Person.UUID())
			}
		})
	}
}
