package xlsx

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strconv"

	"github.com/crmguard/crmguard/crm/transfer"
)

// Sink writes one sheet of texts, row by row; nothing is held back but a buffer.
type Sink struct {
	zip   *zip.Writer
	sheet *bufio.Writer
	row   int
	cell  []byte
}

var _ transfer.Sink = (*Sink)(nil)

// maxRows is how many rows a sheet has.
const maxRows = 1 << 20

// ErrFull: a sheet takes 1,048,576 rows.
var ErrFull = errors.New("xlsx: the sheet is full")

// The parts of a workbook beside its sheet.
var frame = []struct{ name, text string }{
	{"[Content_Types].xml", `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>`},
	{"_rels/.rels", `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>`},
	{"xl/workbook.xml", `<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>`},
	{"xl/_rels/workbook.xml.rels", `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>`},
}

// NewSink begins a workbook.
func NewSink(w io.Writer) (*Sink, error) {
	s := &Sink{zip: zip.NewWriter(w)}
	for _, part := range frame {
		f, err := s.zip.Create(part.name)
		if err != nil {
			return nil, err
		}
		if _, err := io.WriteString(f, xml.Header+part.text); err != nil {
			return nil, err
		}
	}
	f, err := s.zip.Create("xl/worksheets/sheet1.xml")
	if err != nil {
		return nil, err
	}
	s.sheet = bufio.NewWriterSize(f, 1<<16)
	_, err = s.sheet.WriteString(xml.Header + `<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>`)
	return s, err
}

// Write writes a row. Error: ErrFull, and those of the writer below.
func (s *Sink) Write(cells []string) error {
	if s.row == maxRows {
		return ErrFull
	}
	s.row++
	b := append(s.cell[:0], `<row r="`...)
	b = strconv.AppendInt(b, int64(s.row), 10)
	b = append(b, `">`...)
	for i, c := range cells {
		if c == "" {
			continue
		}
		b = append(b, `<c r="`...)
		b = appendColumn(b, i)
		b = strconv.AppendInt(b, int64(s.row), 10)
		b = append(b, `" t="inlineStr"><is><t xml:space="preserve">`...)
		b = appendText(b, c)
		b = append(b, `</t></is></c>`...)
	}
	s.cell = append(b, `</row>`...)
	_, err := s.sheet.Write(s.cell)
	return err
}

// appendText writes a text as XML has it. What XML cannot hold becomes U+FFFD.
func appendText(b []byte, text string) []byte {
	plain := 0
	for plain < len(text) && text[plain] >= ' ' && text[plain] < 0x7f && text[plain] != '<' && text[plain] != '>' && text[plain] != '&' {
		plain++
	}
	b = append(b, text[:plain]...)
	if plain == len(text) {
		return b
	}
	w := bytes.NewBuffer(b)
	_ = xml.EscapeText(w, []byte(text[plain:])) // a buffer takes everything
	return w.Bytes()
}

// appendColumn writes the letters of a column: A, B, …, Z, AA.
func appendColumn(b []byte, i int) []byte {
	if i >= 26 {
		b = appendColumn(b, i/26-1)
	}
	return append(b, byte('A'+i%26))
}

// Flush sends what is buffered; a row may still wait in the compression.
func (s *Sink) Flush() error {
	if err := s.sheet.Flush(); err != nil {
		return err
	}
	return s.zip.Flush()
}

// Close ends the workbook. What was not closed does not open.
func (s *Sink) Close() error {
	if _, err := s.sheet.WriteString(`</sheetData></worksheet>`); err != nil {
		return err
	}
	if err := s.sheet.Flush(); err != nil {
		return err
	}
	return s.zip.Close()
}
