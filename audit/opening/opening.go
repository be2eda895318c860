// Package opening writes the openings of personal details in clear, for an
// auditor who checks a log without the keys of the persons. The format is
// section 14 of docs/formats/audit.md; docs/formats/verify/audit.py reads it.
package opening

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/driver"
)

// Format is in the first line of exported openings.
const Format = "crmguard audit openings v1"

// Options of Export. Nil means the zero value of each field.
type Options struct {
	Pins   [][]byte                                 // checkpoints kept elsewhere, as in audit.VerifyOptions; nil: none
	Select func(e audit.Entry, d audit.Detail) bool // which details are disclosed; nil: all
}

type header struct {
	Format string `json:"format"`
	Origin string `json:"origin"`
}

// line is one detail.
type line struct {
	Index       uint64  `json:"index"`
	Detail      int     `json:"detail"`
	Person      string  `json:"person"`
	Name        string  `json:"name"`
	State       string  `json:"state"`
	Salt        []byte  `json:"salt,omitempty"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 *[]byte `json:"value_base64,omitempty"`
}

// Export verifies the log of store with keys, as audit.Verify does, and writes
// the openings of the details that opts.Select chooses to w. Those of erased
// persons are told without a value.
//
// This is a disclosure of personal data. The caller decides whether it may be,
// and logs who asked for which persons and why, before he calls Export: an
// event of activity export. What is written holds the values in clear, and with
// the salts a person that is erased later stays proven and readable there: it
// belongs into a file of mode 0600, to whom it was made for, and is deleted
// when the check is done.
//
// The verdict is that of the log. When it is Withheld the openings end where the
// log is bad, as an auditor's check does. After an error what was written is
// not complete.
func Export(ctx context.Context, w io.Writer, store driver.Store, keys []string, sealer audit.Sealer, opts *Options) (audit.Verdict, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if sealer == nil {
		return audit.Verdict{At: -1}, errors.New("opening: no sealer")
	}
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if len(keys) > 0 {
		origin, _, _ := strings.Cut(strings.TrimSpace(keys[0]), "+")
		if err := enc.Encode(header{Format, origin}); err != nil {
			return audit.Verdict{At: -1}, err
		}
	}
	v, err := audit.Verify(ctx, store, keys, &audit.VerifyOptions{Pins: o.Pins, Sealer: sealer,
		OnOpening: func(e audit.Entry, detail int, opening []byte, err error) error {
			d := e.Event.Details[detail]
			if o.Select != nil && !o.Select(e, d) {
				return nil
			}
			return enc.Encode(lineOf(e.Index, detail, d, opening, err))
		}})
	if err != nil {
		return v, err
	}
	return v, out.Flush()
}

func lineOf(index uint64, detail int, d audit.Detail, opening []byte, err error) line {
	l := line{Index: index, Detail: detail, Person: hex.EncodeToString(d.Person[:]), Name: d.Name}
	switch {
	case errors.Is(err, audit.ErrErased):
		l.State = "erased"
	case errors.Is(err, audit.ErrUnavailable):
		l.State = "unavailable"
	case err != nil || len(opening) < 32:
		l.State = "withheld"
	default:
		value := opening[32:]
		l.State, l.Salt = "opened", opening[:32]
		if utf8.Valid(value) {
			s := string(value)
			l.Value = &s
		} else {
			l.ValueBase64 = &value
		}
	}
	return l
}
