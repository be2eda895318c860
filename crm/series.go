package crm

import (
	"fmt"
	"strings"
	"time"
)

// Series gives numbers to quotes, contracts, invoices and the like. Whoever draws a number stores the series and the record that gets
// it in one batch: the version of the series makes sure that two clerks do not draw one number, and none is lost.
type Series struct {
	Meta[Series]
	Name   string `protect:"internal,indexed" json:"name"` // what it counts, such as "contract"
	Prefix string `protect:"internal" json:"prefix"`       // letters, digits and -, such as "C-"
	Digits int64  `protect:"internal" json:"digits"`       // 1 to 12: how many digits the counter has
	Yearly bool   `protect:"internal" json:"yearly"`       // the year is in the number, and each begins with 1
	Year   int64  `protect:"internal" json:"year"`         // of the last number of a yearly series
	Last   int64  `protect:"internal" json:"last"`         // the last counter that was given; 0: none
}

// Validate returns an *InvalidError that lists every broken rule, or nil.
func (s *Series) Validate() error {
	v := Checks{Type: TypeSeries}
	v.Team(s.Team)
	v.Str("name", s.Name, true, 40)
	if len(s.Prefix) > 20 || strings.ContainsFunc(s.Prefix, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		v.Add("prefix", "unknown_value")
	}
	v.Range("digits", s.Digits, 1, 12)
	v.Range("year", s.Year, 0, 9999)
	v.NotNegative("last", s.Last)
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become s: a counter never goes back, and the form of the numbers stays
// once one was given, so that no number is given twice. An *InvalidError has the rule fixed.
func (s *Series) CheckUpdate(prev *Series) error {
	v := Checks{Type: TypeSeries}
	if prev.Last > 0 {
		v.Unchanged("prefix", s.Prefix == prev.Prefix)
		v.Unchanged("digits", s.Digits == prev.Digits)
		v.Unchanged("yearly", s.Yearly == prev.Yearly)
	}
	v.Unchanged("last", s.Year > prev.Year || s.Year == prev.Year && s.Last >= prev.Last)
	return v.Err()
}

// Reserved names the fields that no update sets: what was given is not given again, and Draw counts.
func (s *Series) Reserved(isNew bool) []string {
	if isNew {
		return []string{"year", "last"}
	}
	return []string{"prefix", "digits", "yearly", "year", "last"}
}

// Draw gives the next number at a time, whose year counts in its own location: "C-2026-00042". A yearly series that has given numbers
// of a later year goes on in that year. An *InvalidError has the rule out_of_range when the digits do not hold the counter.
func (s *Series) Draw(at time.Time) (string, error) {
	next := *s
	if year := int64(at.Year()); s.Yearly && year > s.Year {
		next.Year, next.Last = year, 0
	}
	next.Last++
	v := Checks{Type: TypeSeries}
	counter := fmt.Sprintf("%0*d", max(1, min(s.Digits, 12)), next.Last)
	if int64(len(counter)) > s.Digits {
		v.Add("last", "out_of_range")
		return "", v.Err()
	}
	next.UpdatedAt = at
	*s = next
	if s.Yearly {
		return fmt.Sprintf("%s%04d-%s", s.Prefix, s.Year, counter), nil
	}
	return s.Prefix + counter, nil
}
