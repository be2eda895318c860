package xlsx

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/xuri/excelize/v2"

	"github.com/crmguard/crmguard/crm/transfer"
)

// Options of Open. Nil means the zero value of each field.
type Options struct {
	Sheet  string // "": the first one
	Size   int64  // bytes that the file may have; 0: 64 MiB
	Unpack int64  // bytes that it may unpack to, all parts together; 0: 512 MiB
}

// Bounds of a sheet.
const (
	maxParts   = 5000
	maxColumns = 500
	maxCell    = 1 << 20 // bytes of a row, as in csvfile
)

// Reader reads one sheet. Close it.
type Reader struct {
	file   *excelize.File
	rows   *excelize.Rows
	sheet  string
	sheets []string
	header []string
	line   int64
}

var _ transfer.Source = (*Reader)(nil)

// Open reads a workbook and the header of a sheet: the first row that is not empty. Errors are *transfer.FileError, without what is in the file.
func Open(r io.Reader, opts *Options) (*Reader, error) {
	o := Options{}
	if opts != nil {
		o = *opts
	}
	if o.Size == 0 {
		o.Size = 64 << 20
	}
	if o.Unpack == 0 {
		o.Unpack = 512 << 20
	}
	bad := func(reason, what string) (*Reader, error) {
		return nil, &transfer.FileError{Reason: reason, Err: errors.New("xlsx: " + what)}
	}
	b, err := io.ReadAll(io.LimitReader(r, o.Size+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", transfer.ErrFile, err)
	}
	if int64(len(b)) > o.Size {
		return bad(transfer.FileLarge, "it is too large")
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return bad(transfer.FileForm, "it is no workbook")
	}
	if len(z.File) > maxParts {
		return bad(transfer.FileLarge, "it has too many parts")
	}
	left := uint64(o.Unpack)
	for _, f := range z.File { // the sizes that it declares are those at which unpacking ends
		if f.UncompressedSize64 > left {
			return bad(transfer.FileLarge, "it unpacks to too much")
		}
		left -= f.UncompressedSize64
	}
	file, err := open(b, o.Unpack)
	if err != nil {
		return bad(transfer.FileForm, "it is no workbook")
	}
	x := &Reader{file: file, sheets: file.GetSheetList(), sheet: o.Sheet}
	if x.sheet == "" && len(x.sheets) > 0 {
		x.sheet = x.sheets[0]
	}
	if x.rows, err = file.Rows(x.sheet); err != nil {
		_ = file.Close()
		return bad(transfer.FileForm, "it has no such sheet")
	}
	cells, err := x.next()
	for err == nil && len(cells) == 0 {
		cells, err = x.next()
	}
	seen := map[string]bool{}
	for _, c := range cells {
		c = strings.TrimSpace(c)
		if c != "" && seen[c] {
			err = errTwice
		}
		seen[c] = true
		x.header = append(x.header, c)
	}
	if err != nil {
		_ = x.Close()
		if errors.Is(err, io.EOF) {
			return bad(transfer.FileEmpty, "it is empty")
		}
		if errors.Is(err, errTwice) {
			return bad(transfer.FileRepeated, err.Error())
		}
		return bad(transfer.FileHeader, err.Error())
	}
	return x, nil
}

// open guards against what the library does not expect of a file.
func open(b []byte, unpack int64) (f *excelize.File, err error) {
	defer func() {
		if recover() != nil {
			f, err = nil, transfer.ErrFile
		}
	}()
	return excelize.OpenReader(bytes.NewReader(b), excelize.Options{
		UnzipSizeLimit: unpack, UnzipXMLSizeLimit: unpack, ShortDatePattern: "yyyy-mm-dd", LongDatePattern: "yyyy-mm-dd",
	})
}

// Close lets go of the workbook.
func (x *Reader) Close() error {
	_ = x.rows.Close()
	return x.file.Close()
}

// Sheets returns the names of all sheets, in their order.
func (x *Reader) Sheets() []string { return slices.Clone(x.sheets) }

// Sheet returns the name of the one that is read.
func (x *Reader) Sheet() string { return x.sheet }

// Header returns the names of the columns.
func (x *Reader) Header() []string { return x.header }

var (
	errWide  = errors.New("a row has too many columns")
	errTwice = errors.New("two columns have the same header")
)

// next returns the next row, empty ones too, and io.EOF behind the last.
func (x *Reader) next() (cells []string, err error) {
	defer func() {
		if recover() != nil {
			cells, err = nil, errors.New("a row cannot be read")
		}
	}()
	if !x.rows.Next() {
		if err := x.rows.Error(); err != nil {
			return nil, errors.New("the sheet is broken")
		}
		return nil, io.EOF
	}
	x.line++
	cells, err = x.rows.Columns()
	if err != nil {
		return nil, errors.New("the sheet is broken")
	}
	for len(cells) > 0 && strings.TrimSpace(cells[len(cells)-1]) == "" {
		cells = cells[:len(cells)-1]
	}
	if len(cells) > maxColumns {
		return nil, errWide
	}
	return cells, nil
}

// Rows yields the rows behind the header; empty ones are left out. A row with more cells than the header is a *transfer.RowError.
func (x *Reader) Rows() iter.Seq2[transfer.Row, error] {
	return func(yield func(transfer.Row, error) bool) {
		for {
			cells, err := x.next()
			if errors.Is(err, io.EOF) {
				return
			}
			row := transfer.Row{Line: x.line}
			refuse := func(rule string) error {
				return &transfer.RowError{Line: x.line, Reasons: []transfer.Reason{{Rule: rule}}}
			}
			size := 0
			for _, c := range cells {
				size += len(c)
			}
			switch {
			case errors.Is(err, errWide):
				err = refuse("fields")
			case err != nil:
				err = &transfer.FileError{Reason: transfer.FileBroken, Err: err}
			case len(cells) == 0:
				continue
			case size > maxCell:
				err = refuse("too_long")
			case len(cells) > len(x.header):
				row.Cells, err = cells, refuse("fields")
			default:
				row.Cells = append(cells, make([]string, len(x.header)-len(cells))...)
			}
			if !yield(row, err) {
				return
			}
			if errors.Is(err, transfer.ErrFile) {
				return
			}
		}
	}
}
