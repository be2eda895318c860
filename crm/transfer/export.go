package transfer

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// Sink takes the rows of an export. What was not closed must not look whole.
type Sink interface {
	Write(cells []string) error
	Flush() error // after each page of records
	Close() error
}

// csvSink writes CSV that spreadsheets take for UTF-8.
type csvSink struct {
	w     io.Writer
	csv   *csv.Writer
	begun bool
}

// CSVSink writes CSV: UTF-8 with a mark, commas, CRLF, and a last row "# end" that says that nothing is missing.
func CSVSink(w io.Writer) Sink {
	s := &csvSink{w: w, csv: csv.NewWriter(w)}
	s.csv.UseCRLF = true
	return s
}

func (s *csvSink) Write(cells []string) error {
	if !s.begun {
		s.begun = true
		if _, err := io.WriteString(s.w, "\ufeff"); err != nil {
			return err
		}
	}
	return s.csv.Write(cells)
}

func (s *csvSink) Flush() error {
	s.csv.Flush()
	return s.csv.Error()
}

func (s *csvSink) Close() error {
	if err := s.Write([]string{"# end"}); err != nil {
		return err
	}
	return s.Flush()
}

// Harmless is a cell that no spreadsheet calculates: one that begins like a formula, in ASCII or full-width, behind spaces or a mark too, gets an apostrophe in
// front. A plain number, -12.50, stays one.
func Harmless(cell string) string {
	if cell == "" || cell[0] >= '0' && cell[0] <= '9' || cell[0] >= 'A' && cell[0] <= 'Z' || cell[0] >= 'a' && cell[0] <= 'z' {
		return cell // most of them
	}
	begin := strings.TrimLeft(cell, " \u00a0\u3000\ufeff\u200b")
	if begin == "" {
		return cell
	}
	first, _ := utf8.DecodeRuneInString(begin)
	if strings.ContainsRune("=+-@\t\r\n|%＝＋－＠", first) && !plainNumber(begin) {
		return "'" + cell
	}
	return cell
}

// plainNumber tells whether a cell is a number and nothing more, such as -12.50.
func plainNumber(s string) bool {
	s = strings.TrimPrefix(s, "-")
	return s != "" && strings.Trim(s, "0123456789.") == ""
}

// Canary is a made-up record in one export, by which a copy of the file names the export that it comes from. It is never stored among the records: whoever asks for the export keeps
// Seed with it, sealed.
type Canary struct {
	Seed   string // 128 random bits, hex
	Domain string // of its address; "": "example.com"
}

// NewCanary makes one.
func NewCanary(domain string) Canary {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return Canary{Seed: hex.EncodeToString(b[:]), Domain: domain}
}

var given, family = []string{"Marta", "Jonas", "Elin", "Pavel", "Ines", "Tomas", "Greta", "Niko", "Clara", "Hugo", "Vera", "Emil", "Alma", "Oskar", "Nora", "Felix"},
	[]string{"Lindqvist", "Baranek", "Oliveto", "Haverkamp", "Sorensen", "Kowalik", "Ferrante", "Mertens", "Novotny", "Halloran", "Castellan", "Ekholm", "Rasmus", "Tavares", "Weidner", "Aldana"}

func (n Canary) mac(use string) []byte {
	h := hmac.New(sha256.New, []byte(n.Seed))
	h.Write([]byte("crmguard canary\x00" + use))
	return h.Sum(nil)
}

// ID is the id of the made-up record.
func (n Canary) ID() crm.UUID {
	var u crm.UUID
	copy(u[:], n.mac("id"))
	binary.BigEndian.PutUint16(u[:], 0x019c) // as old as the others
	u[6], u[8] = u[6]&0x0f|0x70, u[8]&0x3f|0x80
	return u
}

// Value is what the made-up record has in a column of personal data.
func (n Canary) Value(column string) string {
	b := n.mac("name")
	first, last := given[b[0]%16], family[b[1]%16]
	domain := n.Domain
	if domain == "" {
		domain = "example.com"
	}
	switch column {
	case "name", "contact":
		return first + " " + last
	case "company", "buyer":
		return last + " & Co"
	case "email":
		return strings.ToLower(first+"."+last) + "." + hex.EncodeToString(b[2:7]) + "@" + domain
	case "phone":
		return fmt.Sprintf("+44 7700 900%03d", binary.BigEndian.Uint16(b[8:])%1000) // numbers that belong to nobody
	}
	return ""
}

// In tells whether a text, such as a leaked file, holds the canary: its id or its address.
func (n Canary) In(text string) bool {
	return strings.Contains(text, n.ID().String()) || strings.Contains(strings.ToLower(text), n.Value("email"))
}

// ExportOptions of Export.
type ExportOptions[P guard.Record] struct {
	Columns []string                                     // fields, in their order; the id is in front of them
	Cell    func(v *guard.View[P], column string) string // what a cell says of an open or masked field; required
	Mark    []string                                     // the first row: who took it, when, under which request; nil: none
	Canary  *Canary                                      // nil: none
	Mask    func(column, value string) string            // masks the canary's values where the others' are masked; nil: "***"
	Done    func(rows int64)                             // called after each page; nil: nobody hears it
}

// ErrExport: an export lacks what is required.
var ErrExport = errors.New("transfer: an export needs columns, cells and headers")

// Export writes the records that guard.Records.Export gives: through the policy, with its masks, its limits and its obligations, each page in the log before it is written. It
// neutralises cells, and returns how many records were written, without the canary. The sink is closed only after the last one: with an error the file is not
// whole. Errors are those of guard and of the sink.
func Export[P guard.Record](ctx context.Context, c guard.Caller, records *guard.Records[P], q guard.Query, to Sink, o ExportOptions[P]) (rows int64, err error) {
	if o.Cell == nil || len(o.Columns) == 0 {
		return 0, ErrExport
	}
	personal := map[string]bool{}
	for _, f := range records.Fields() {
		personal[f.Name] = !f.Clear
	}
	write := func(cells []string) error {
		for i := range cells {
			cells[i] = Harmless(cells[i])
		}
		return to.Write(cells)
	}
	begun, hidden := false, o.Canary == nil
	begin := func() error {
		begun = true
		if o.Mark != nil {
			if err := write(slices.Clone(o.Mark)); err != nil {
				return err
			}
		}
		return write(append([]string{"id"}, o.Columns...))
	}
	cells := make([]string, 1+len(o.Columns))
	rows, err = records.Export(ctx, c, q, func(p guard.Page[P]) error {
		if !begun {
			if err := begin(); err != nil {
				return err
			}
		}
		place := -1
		if !hidden && len(p.Items) > 0 {
			place, hidden = int(binary.BigEndian.Uint16(o.Canary.mac("place")))%len(p.Items), true
		}
		for i := range p.Items {
			v := &p.Items[i]
			cells[0] = v.Value.Header().ID.String()
			for k, name := range o.Columns {
				cells[1+k] = ""
				if v.Fields[name] != hiddenField {
					cells[1+k] = o.Cell(v, name)
				}
			}
			var canary []string
			if i == place {
				canary = o.canary(v, cells, personal)
			}
			if err := write(cells); err != nil {
				return err
			}
			if canary != nil {
				if err := write(canary); err != nil {
					return err
				}
			}
		}
		if err := to.Flush(); err != nil {
			return err
		}
		if o.Done != nil {
			o.Done(int64(len(p.Items)))
		}
		return nil
	})
	if err != nil {
		return rows, err
	}
	if !begun {
		if err := begin(); err != nil {
			return rows, err
		}
	}
	return rows, to.Close()
}

// How much a policy shows of a field, in the words of guard.
const (
	hiddenField guard.Access = iota
	maskedField
)

// canary makes a row like one of the others, with nothing of its person.
func (o *ExportOptions[P]) canary(like *guard.View[P], cells []string, personal map[string]bool) []string {
	row := slices.Clone(cells)
	row[0] = o.Canary.ID().String()
	for k, name := range o.Columns {
		if !personal[name] && name != "external_id" {
			continue
		}
		value := o.Canary.Value(name)
		if like.Fields[name] == maskedField && value != "" {
			if o.Mask != nil {
				value = o.Mask(name, value)
			} else {
				value = "***"
			}
		}
		row[1+k] = value
	}
	return row
}
