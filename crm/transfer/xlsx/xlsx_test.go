package xlsx_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"

	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/crm/transfer/xlsx"
)

// Example writes a workbook and reads it back.
func Example() {
	var file bytes.Buffer
	sink, err := xlsx.NewSink(&file)
	if err != nil {
		panic(err)
	}
	for _, row := range [][]string{{"name", "phone"}, {"Acme", "+44 7700 900123"}} {
		if err := sink.Write(row); err != nil {
			panic(err)
		}
	}
	if err := sink.Close(); err != nil {
		panic(err)
	}
	book, err := xlsx.Open(&file, nil)
	if err != nil {
		panic(err)
	}
	defer book.Close()
	fmt.Println(book.Header())
	for row, err := range book.Rows() {
		fmt.Println(row.Line, row.Cells, err)
	}
	// Output:
	// [name phone]
	// 2 [Acme +44 7700 900123] <nil>
}

// TestRoundTrip: what is written is read by another program's library too, as texts.
func TestRoundTrip(t *testing.T) {
	rows := [][]string{{"a", "b", "c"}, {"<&>\"'", " spaces ", "=1+1"}, {"", "华星", "x\ny"}}
	var file bytes.Buffer
	sink, err := xlsx.NewSink(&file)
	require.NoError(t, err)
	for _, r := range rows {
		require.NoError(t, sink.Write(r))
	}
	require.NoError(t, sink.Flush())
	require.NoError(t, sink.Close())
	f, err := excelize.OpenReader(bytes.NewReader(file.Bytes()))
	require.NoError(t, err)
	got, err := f.GetRows("Sheet1")
	require.NoError(t, err)
	assert.Equal(t, rows, got)
	formula, err := f.GetCellFormula("Sheet1", "C2")
	require.NoError(t, err)
	assert.Empty(t, formula)
	_, err = xlsx.Open(bytes.NewReader(file.Bytes()[:file.Len()-30]), nil)
	require.ErrorIs(t, err, transfer.ErrFile, "what was cut off does not open")
}

// TestRead: numbers, dates, gaps and rows that are too wide.
func TestRead(t *testing.T) {
	f := excelize.NewFile()
	set := func(cell string, v any) { require.NoError(t, f.SetCellValue("Sheet1", cell, v)) }
	for i, h := range []string{"name", "phone", "date", "amount"} {
		set(string(rune('A'+i))+"2", h)
	}
	set("A3", "Acme")
	set("B3", 13800138000)
	set("C3", time.Date(2024, 5, 1, 0, 0, 0, 0, time.UTC))
	style, err := f.NewStyle(&excelize.Style{NumFmt: 14})
	require.NoError(t, err)
	require.NoError(t, f.SetCellStyle("Sheet1", "C3", "C3", style))
	set("D3", 1234.5)
	set("A6", "Gap")
	set("F7", "too far")
	var b bytes.Buffer
	require.NoError(t, f.Write(&b))
	x, err := xlsx.Open(&b, nil)
	require.NoError(t, err)
	defer x.Close()
	assert.Equal(t, []string{"name", "phone", "date", "amount"}, x.Header())
	var lines []int64
	for row, err := range x.Rows() {
		var re *transfer.RowError
		switch row.Line {
		case 3:
			require.NoError(t, err)
			assert.Equal(t, "13800138000", row.Cells[1])
			assert.Equal(t, "2024-05-01", row.Cells[2])
			assert.Equal(t, "1234.5", row.Cells[3])
		case 7:
			require.ErrorAs(t, err, &re)
			assert.Equal(t, "fields", re.Reasons[0].Rule)
		default:
			require.NoError(t, err)
		}
		lines = append(lines, row.Line)
	}
	assert.Equal(t, []int64{3, 6, 7}, lines)
}

// zipped makes an archive.
func zipped(t testing.TB, parts map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range parts {
		f, err := z.Create(name)
		require.NoError(t, err)
		_, err = io.Copy(f, strings.NewReader(text))
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	return b.Bytes()
}

// TestHostile: files that are made to use up the machine, or are none, are refused as a whole.
func TestHostile(t *testing.T) {
	many := map[string]string{}
	for i := range 5001 {
		many[fmt.Sprint(i)] = ""
	}
	var wide bytes.Buffer
	sink, err := xlsx.NewSink(&wide)
	require.NoError(t, err)
	cells := make([]string, 1000)
	for i := range cells {
		cells[i] = fmt.Sprint("h", i)
	}
	require.NoError(t, sink.Write(cells))
	require.NoError(t, sink.Close())
	twice := bytes.Buffer{}
	sink, err = xlsx.NewSink(&twice)
	require.NoError(t, err)
	require.NoError(t, sink.Write([]string{"a", "a"}))
	require.NoError(t, sink.Close())
	for name, file := range map[string][]byte{
		"nothing":           nil,
		"no archive":        []byte("PK\x03\x04 and no more"),
		"no workbook":       zipped(t, map[string]string{"a.txt": "x"}),
		"a bomb":            zipped(t, map[string]string{"xl/worksheets/sheet1.xml": strings.Repeat("0", 9<<20)}),
		"many parts":        zipped(t, many),
		"too large":         bytes.Repeat([]byte("x"), 3<<20),
		"a thousand wide":   wide.Bytes(),
		"two equal headers": twice.Bytes(),
	} {
		_, err := xlsx.Open(bytes.NewReader(file), &xlsx.Options{Size: 2 << 20, Unpack: 8 << 20})
		require.ErrorIs(t, err, transfer.ErrFile, name)
	}
	_, err = xlsx.Open(bytes.NewReader(wide.Bytes()), &xlsx.Options{Sheet: "Other"})
	require.ErrorIs(t, err, transfer.ErrFile)
}

// FuzzOpen: whatever a file is, it is rows or an error.
func FuzzOpen(f *testing.F) {
	var file bytes.Buffer
	sink, _ := xlsx.NewSink(&file)
	_ = sink.Write([]string{"a", "b"})
	_ = sink.Write([]string{"1", "2"})
	_ = sink.Close()
	f.Add(file.Bytes())
	f.Add([]byte("PK\x03\x04"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := xlsx.Open(bytes.NewReader(b), &xlsx.Options{Size: 1 << 20, Unpack: 4 << 20})
		if err != nil {
			if !errors.Is(err, transfer.ErrFile) {
				t.Fatal("an error of another kind")
			}
			return
		}
		defer x.Close()
		for row, err := range x.Rows() {
			if err == nil && len(row.Cells) != len(x.Header()) {
				t.Fatal("another number of cells")
			}
		}
	})
}

// ExampleOpen: a file that is no workbook says so, and nothing that stands in it.
func ExampleOpen() {
	_, err := xlsx.Open(strings.NewReader("name,phone\n"), nil)
	fmt.Println(err, errors.Is(err, transfer.ErrFile))
	// Output: transfer: the file cannot be read: xlsx: it is no workbook true
}

// ExampleNewSink writes a workbook whose cells are texts: nothing in it is calculated.
func ExampleNewSink() {
	var file bytes.Buffer
	sink, err := xlsx.NewSink(&file)
	if err != nil {
		panic(err)
	}
	if err := errors.Join(sink.Write([]string{"name"}), sink.Write([]string{"=1+1"}), sink.Flush(), sink.Close()); err != nil {
		panic(err)
	}
	book, err := xlsx.Open(&file, nil)
	if err != nil {
		panic(err)
	}
	defer book.Close()
	for row := range book.Rows() {
		fmt.Println(row.Cells)
	}
	// Output: [=1+1]
}
