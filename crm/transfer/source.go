package transfer

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/crm/transfer/csvfile"
)

// Errors of a whole file.
var (
	// ErrFile: the file cannot be read as what it should be, or is made to use up the machine.
	ErrFile = errors.New("transfer: the file cannot be read")
	// ErrOther: the file, or its mapping, is not the one that the import began with.
	ErrOther = errors.New("transfer: another file than the import began with")
	// ErrMapping: the mapping names a column or a field that there is not, or one twice.
	ErrMapping = errors.New("transfer: the mapping does not fit")
)

// Reasons of a FileError.
const (
	FileHeader   = "header"          // the header cannot be read
	FileRepeated = "repeated_header" // two columns have the same header
	FileLarge    = "too_large"       // it is larger, or unpacks to more, than is read
	FileForm     = "not_a_workbook"  // it is no workbook, or has no sheet
	FileEmpty    = "empty"
	FileBroken   = "broken" // from some row on nothing can be read
)

// FileError says why a whole file cannot be read. It is an ErrFile, and names nothing that stands in the file.
type FileError struct {
	Reason string
	Err    error // what a reader says; nil: nothing more
}

// Error names the reason.
func (e *FileError) Error() string {
	if e.Err != nil {
		return ErrFile.Error() + ": " + e.Err.Error()
	}
	return ErrFile.Error() + ": " + e.Reason
}

// Unwrap returns ErrFile and what the reader says.
func (e *FileError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrFile}
	}
	return []error{ErrFile, e.Err}
}

// RowError says why a row of a file was refused. It names fields and rules, never values.
type RowError struct {
	Line    int64 // where the row begins in the file, as people count: from 1, with the header
	Reasons []Reason
}

// Reason is one broken rule of one field. Rules are those of crm.FieldError and, of files: fields (the row has more or fewer than the
// header), bare_quote, unclosed_quote, encoding, moved (the columns are in another order from some row on), ambiguous (a date that may be two), denied (the policy
// refuses), changed (somebody changed the record meanwhile).
type Reason struct {
	Field string   `json:"field,omitempty"` // "" for the row as a whole
	Rule  string   `json:"rule"`
	Near  []string `json:"near,omitempty"` // known names like the one that is unknown; they are data, and for the download only
}

// Error names line, fields and rules.
func (e *RowError) Error() string {
	parts := make([]string, len(e.Reasons))
	for i, r := range e.Reasons {
		parts[i] = strings.TrimSpace(r.Field + " " + r.Rule)
	}
	return fmt.Sprintf("line %d: %s", e.Line, strings.Join(parts, ", "))
}

// Row is one row of a file behind the header.
type Row struct {
	Line  int64
	Cells []string // as many as the header has
}

// Source gives the rows of a file once, in order. A *RowError is followed by further rows; any other error ends them.
type Source interface {
	Header() []string
	Rows() iter.Seq2[Row, error]
}

// CSV reads a file of separated values; opts may be nil. Errors: a *FileError, csvfile.ErrOptions. What it finds out about encoding and separator is in the csvfile.Reader.
func CSV(r io.Reader, opts *csvfile.Options) (Source, error) {
	file, err := csvfile.Open(r, opts)
	if errors.Is(err, csvfile.ErrOptions) {
		return nil, err
	}
	if err != nil {
		reason := FileHeader
		if errors.Is(err, csvfile.ErrTwice) {
			reason = FileRepeated
		}
		return nil, &FileError{Reason: reason, Err: err}
	}
	return &csvSource{file}, nil
}

// OfCSV makes a Source of a file of separated values that is open.
func OfCSV(r *csvfile.Reader) Source { return &csvSource{r} }

type csvSource struct{ *csvfile.Reader }

// Rows turns records into rows.
func (s *csvSource) Rows() iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for rec, err := range s.Records() {
			var re *csvfile.RowError
			if errors.As(err, &re) {
				err = &RowError{Line: int64(re.Line), Reasons: []Reason{{Rule: re.Reason}}}
			} else if err != nil {
				err = &FileError{Reason: FileBroken, Err: err}
			}
			if !yield(Row{Line: int64(rec.Line), Cells: rec.Fields}, err) {
				return
			}
		}
	}
}

// steady yields the rows of a source until its columns move: from a row on that names the columns in another order, each row is refused as
// moved. A row that is the header again is refused by itself.
func steady(s Source) iter.Seq2[Row, error] {
	header := s.Header()
	sorted := slices.Sorted(slices.Values(header))
	return func(yield func(Row, error) bool) {
		moved := false
		for row, err := range s.Rows() {
			if err == nil && !moved && len(header) > 1 && slices.Contains(header, strings.TrimSpace(row.Cells[0])) {
				again := make([]string, len(row.Cells))
				for i, c := range row.Cells {
					again[i] = strings.TrimSpace(c)
				}
				if slices.Equal(slices.Sorted(slices.Values(again)), sorted) {
					moved = !slices.Equal(again, header)
					err = &RowError{Line: row.Line, Reasons: []Reason{{Rule: "repeated"}}}
				}
			}
			if err == nil && moved {
				err = &RowError{Line: row.Line, Reasons: []Reason{{Rule: "moved"}}}
			}
			if !yield(row, err) {
				return
			}
		}
	}
}
