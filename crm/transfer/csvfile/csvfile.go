// Package csvfile reads CSV as people send it: UTF-8 with or without a mark, UTF-16, GB 18030; commas,
// semicolons, tabs or bars; and with faults, which cost the records that have them and no others.
package csvfile

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"
)

// Limits of one record.
const (
	MaxBytes = 1 << 20 // of one record, line breaks included
	maxLines = 200     // that one record may run over
)

// RowError says why a record was left out. It names the line, never what stands there.
type RowError struct {
	Line   int    // where the record begins, from 1
	Reason string // too_long, unclosed_quote, bare_quote, fields or encoding
}

// Error names line and reason.
func (e *RowError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Reason) }

// Record is one record with the line that it begins on.
type Record struct {
	Line   int
	Fields []string
}

// Reader reads one file.
type Reader struct {
	in     *bufio.Reader
	header []string
	comma  rune
	line   int      // physical lines read
	queue  []string // lines to be looked at again after an unclosed quote
	name   string   // of the encoding
}

// Options of Open. Nil means the zero value of each field.
type Options struct {
	Encoding string // UTF-8, UTF-16LE, UTF-16BE, GB18030, ISO-8859-1 or windows-1252; "": found out, where the last two never are
	Comma    rune   // comma, semicolon, tab or bar; 0: found out from the header
}

// encodings are those that can be told.
var encodings = map[string]encoding.Encoding{
	"UTF-8": nil, "GB18030": simplifiedchinese.GB18030, "ISO-8859-1": charmap.ISO8859_1, "windows-1252": charmap.Windows1252,
	"UTF-16LE": unicode.UTF16(unicode.LittleEndian, unicode.UseBOM), "UTF-16BE": unicode.UTF16(unicode.BigEndian, unicode.UseBOM),
}

// Errors of Open beside those of the reader below.
var (
	ErrOptions = errors.New("csv: unknown encoding or separator")
	ErrHeader  = errors.New("csv: the header cannot be read")
	ErrTwice   = errors.New("csv: two columns have the same header")
)

// New is Open without options.
func New(r io.Reader) (*Reader, error) { return Open(r, nil) }

// Open looks at the begin of r, finds encoding and separator unless they are told, and reads the header. Errors: ErrOptions, ErrHeader, ErrTwice, those of r.
func Open(r io.Reader, opts *Options) (*Reader, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	told, known := encodings[o.Encoding]
	if o.Encoding != "" && !known || o.Comma != 0 && !strings.ContainsRune(",;\t|", o.Comma) {
		return nil, ErrOptions
	}
	buf := bufio.NewReaderSize(r, 1<<16)
	head, err := buf.Peek(1 << 16)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	c := &Reader{name: "UTF-8"}
	var enc encoding.Encoding
	switch {
	case bytes.HasPrefix(head, []byte{0xff, 0xfe}), bytes.HasPrefix(head, []byte{0xfe, 0xff}):
		enc, c.name = unicode.UTF16(unicode.LittleEndian, unicode.ExpectBOM), "UTF-16"
	case bytes.HasPrefix(head, []byte{0xef, 0xbb, 0xbf}):
		if _, err := buf.Discard(3); err != nil {
			return nil, err
		}
	case o.Encoding != "":
		enc, c.name = told, o.Encoding
	case !validPrefix(head):
		enc, c.name = simplifiedchinese.GB18030, "GB18030"
	}
	var text io.Reader = buf
	if enc != nil {
		text = enc.NewDecoder().Reader(buf)
	}
	c.in = bufio.NewReaderSize(text, 1<<16)
	first, err := c.in.Peek(1 << 12)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	line, _, _ := bytes.Cut(first, []byte("\n"))
	c.comma = ','
	if o.Comma != 0 {
		c.comma = o.Comma
	}
	for _, sep := range []rune{';', '\t', '|'} {
		if o.Comma == 0 && bytes.Count(line, []byte(string(sep))) > bytes.Count(line, []byte(string(c.comma))) {
			c.comma = sep
		}
	}
	rec, err := c.next()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHeader, err)
	}
	seen := map[string]bool{}
	for _, h := range rec.Fields {
		h = strings.TrimSpace(h)
		if h != "" && seen[h] {
			return nil, ErrTwice
		}
		seen[h] = true
		c.header = append(c.header, h)
	}
	return c, nil
}

// validPrefix tells whether b, which may end inside a character, is UTF-8.
func validPrefix(b []byte) bool {
	for i := 0; i < utf8.UTFMax && len(b) > 0; i++ {
		if utf8.Valid(b) {
			return true
		}
		b = b[:len(b)-1]
	}
	return utf8.Valid(b)
}

// Header returns the names of the columns.
func (c *Reader) Header() []string { return c.header }

// Comma returns the separator.
func (c *Reader) Comma() rune { return c.comma }

// Encoding returns UTF-8, UTF-16 or GB18030, or what was told.
func (c *Reader) Encoding() string { return c.name }

// Records yields the records behind the header. A *RowError is followed by further records; any other
// error ends them.
func (c *Reader) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for {
			rec, err := c.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil && len(rec.Fields) != len(c.header) {
				err = &RowError{rec.Line, "fields"}
			}
			if !yield(rec, err) {
				return
			}
			var re *RowError
			if err != nil && !errors.As(err, &re) {
				return
			}
		}
	}
}

// physical returns the next line with its break; long says that it was cut, the rest being skipped.
func (c *Reader) physical() (text string, long bool, err error) {
	if len(c.queue) > 0 {
		text = c.queue[0]
		c.queue = c.queue[1:]
		c.line++
		return text, false, nil
	}
	var b []byte
	for {
		part, err := c.in.ReadSlice('\n')
		if len(b)+len(part) <= MaxBytes {
			b = append(b, part...)
		} else {
			long = true
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil && (!errors.Is(err, io.EOF) || len(b) == 0 && !long) {
			return "", false, err
		}
		break
	}
	c.line++
	return string(b), long, nil
}

// next reads one record, which may run over several lines inside quotes.
func (c *Reader) next() (Record, error) {
	var lines []string
	var size, quotes int
	start := c.line + 1
	for {
		text, long, err := c.physical()
		if errors.Is(err, io.EOF) && len(lines) > 0 {
			return c.giveUp(start, lines)
		}
		if err != nil {
			return Record{}, err
		}
		if long {
			if len(lines) > 0 {
				return c.giveUp(start, lines)
			}
			return Record{Line: start}, &RowError{start, "too_long"}
		}
		if len(lines) == 0 && strings.TrimSpace(text) == "" {
			start = c.line + 1
			continue
		}
		lines = append(lines, text)
		size += len(text)
		quotes += strings.Count(text, `"`)
		if quotes%2 == 0 {
			break
		}
		if len(lines) == maxLines || size > MaxBytes {
			return c.giveUp(start, lines)
		}
	}
	joined := strings.Join(lines, "")
	if !utf8.ValidString(joined) || strings.ContainsRune(joined, utf8.RuneError) || strings.ContainsRune(joined, 0) {
		return Record{Line: start}, &RowError{start, "encoding"}
	}
	if quotes == 0 { // nothing to be read but separators, as most rows are
		line := strings.TrimSuffix(strings.TrimSuffix(joined, "\n"), "\r")
		return Record{Line: start, Fields: strings.Split(line, string(c.comma))}, nil
	}
	r := csv.NewReader(strings.NewReader(joined))
	r.Comma = c.comma
	r.FieldsPerRecord = -1
	fields, err := r.Read()
	if err != nil {
		return Record{Line: start}, &RowError{start, "bare_quote"}
	}
	return Record{Line: start, Fields: fields}, nil
}

// giveUp leaves out the first line of a record whose quote is never closed and looks at the others again.
func (c *Reader) giveUp(start int, lines []string) (Record, error) {
	c.queue = append(append([]string{}, lines[1:]...), c.queue...)
	c.line -= len(lines) - 1
	return Record{Line: start}, &RowError{start, "unclosed_quote"}
}
