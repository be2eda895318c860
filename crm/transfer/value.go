package transfer

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/money"
)

// DateOrder says how a column writes days, months and years. Years first with four digits, as in 2026-11-30, are understood in any order.
type DateOrder string

// The orders of a date.
const (
	DayMonthYear DateOrder = "dmy"
	MonthDayYear DateOrder = "mdy"
	YearMonthDay DateOrder = "ymd"
)

var orders = []DateOrder{DayMonthYear, MonthDayYear, YearMonthDay}

// parts splits a date of three numbers. long is the place of a year with four digits, -1 for none.
func parts(s string) (n [3]int, long int, ok bool) {
	long = -1
	s = strings.NewReplacer("年", "-", "月", "-", "日", "").Replace(strings.TrimSpace(s))
	if day, _, more := strings.Cut(s, " "); more && strings.Contains(s, ":") {
		s = day
	}
	fields := strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune("-/. ", r) })
	if len(fields) == 1 && len(s) == 8 { // 20261130
		fields = []string{s[:4], s[4:6], s[6:]}
	}
	if len(fields) != 3 {
		return n, -1, false
	}
	for i, f := range fields {
		v, err := strconv.Atoi(f)
		if err != nil || v < 0 || len(f) > 4 || len(f) == 3 {
			return n, -1, false
		}
		n[i] = v
		if len(f) == 4 {
			if long >= 0 {
				return n, -1, false
			}
			long = i
		}
	}
	return n, long, long != 1
}

// ordered makes a date of three numbers in an order, or tells that there is none.
func ordered(n [3]int, long int, o DateOrder) (time.Time, bool) {
	var y, m, d int
	switch o {
	case DayMonthYear:
		d, m, y = n[0], n[1], n[2]
	case MonthDayYear:
		m, d, y = n[0], n[1], n[2]
	case YearMonthDay:
		y, m, d = n[0], n[1], n[2]
	default:
		return time.Time{}, false
	}
	if long == 0 && o != YearMonthDay || long == 2 && o == YearMonthDay {
		return time.Time{}, false
	}
	if long < 0 {
		if y > 99 {
			return time.Time{}, false
		}
		if y += 2000; y > 2069 { // as POSIX
			y -= 100
		}
	}
	t := time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC)
	return t, y > 0 && t.Day() == d && int(t.Month()) == m
}

// FindDateOrder finds out from many values of one column how it writes dates. It returns "" when they may be read in several ways that are as good, or in
// none. A way whose years lie closer together is better: who reads 25-10-16 and 01-03-17 from the year on is 24 years wide.
func FindDateOrder(values []string) DateOrder {
	type way struct {
		order      DateOrder
		low, high  int
		impossible bool
	}
	ways := make([]way, len(orders))
	for i, o := range orders {
		ways[i] = way{order: o, low: math.MaxInt, high: math.MinInt}
	}
	seen := 0
	for _, s := range values {
		n, long, ok := parts(s)
		if !ok || long == 0 {
			continue
		}
		seen++
		for i := range ways {
			t, ok := ordered(n, long, ways[i].order)
			ways[i].impossible = ways[i].impossible || !ok
			ways[i].low, ways[i].high = min(ways[i].low, t.Year()), max(ways[i].high, t.Year())
		}
	}
	ways = slices.DeleteFunc(ways, func(w way) bool { return w.impossible })
	if seen == 0 || len(ways) == 0 {
		return ""
	}
	slices.SortStableFunc(ways, func(a, b way) int { return (a.high - a.low) - (b.high - b.low) })
	if len(ways) > 1 && 2*(ways[0].high-ways[0].low+1) > ways[1].high-ways[1].low+1 {
		return ""
	}
	return ways[0].order
}

// Rules that values break.
const (
	ruleDate      = "not_a_date"
	ruleNumber    = "not_a_number"
	ruleUnknown   = "unknown_value"
	ruleAmbiguous = "ambiguous"
	ruleRange     = "out_of_range"
	ruleReference = "bad_reference"
)

// date reads a date; rule is "" when it is one.
func date(s string, order DateOrder) (t time.Time, rule string) {
	s = strings.TrimSpace(s)
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006/01/02 15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), ""
		}
	}
	n, long, ok := parts(s)
	if !ok {
		return t, ruleDate
	}
	if long == 0 {
		order = YearMonthDay
	}
	if order != "" {
		if t, ok = ordered(n, long, order); !ok {
			return t, ruleDate
		}
		return t, ""
	}
	// Not told: only what can be read in one way.
	found := 0
	for _, o := range orders {
		if x, ok := ordered(n, long, o); ok && (found == 0 || !x.Equal(t)) {
			t = x
			found++
		}
	}
	switch found {
	case 0:
		return t, ruleDate
	case 1:
		return t, ""
	}
	return time.Time{}, ruleAmbiguous
}

// amount reads an amount as minor units. A sign of a currency may stand before or behind it; points and commas group or divide: the last one divides when it is alone of
// its kind and not before three digits at the end of several groups.
func amount(s, currency string) (n int64, rule string) {
	s = decimal(s)
	n, err := money.Parse(s, currency)
	if err == nil {
		return n, ""
	}
	// 1100.040 of a currency with two digits is 1100.04.
	if whole, part, ok := strings.Cut(s, "."); ok && strings.TrimRight(part, "0") != part {
		if n, err := money.Parse(strings.TrimSuffix(whole+"."+strings.TrimRight(part, "0"), "."), currency); err == nil {
			return n, ""
		}
	}
	return 0, ruleNumber
}

// decimal rewrites a number as people write it into digits and at most one point.
func decimal(s string) string {
	s = strings.TrimFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Sc, r) || r == '元' })
	negative := false
	if strings.HasPrefix(s, "(") && strings.HasSuffix(s, ")") { // of accountants
		s, negative = s[1:len(s)-1], true
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= '０' && r <= '９':
			return r - '０' + '0'
		case r == '．':
			return '.'
		case r == '，':
			return ','
		case r == ' ' || r == '\u00a0' || r == '\u202f' || r == '\'' || r == '’' || unicode.Is(unicode.Sc, r):
			return -1
		}
		return r
	}, s)
	if rest, ok := strings.CutPrefix(s, "-"); ok {
		s, negative = rest, !negative
	}
	point, comma := strings.LastIndexByte(s, '.'), strings.LastIndexByte(s, ',')
	switch {
	case point >= 0 && comma >= 0: // the last one divides
		if point > comma {
			s = strings.ReplaceAll(s, ",", "")
		} else {
			s = strings.Replace(strings.ReplaceAll(s, ".", ""), ",", ".", 1)
		}
	case comma >= 0 && (strings.Count(s, ",") > 1 || len(s)-comma-1 == 3):
		s = strings.ReplaceAll(s, ",", "")
	case comma >= 0:
		s = strings.Replace(s, ",", ".", 1)
	case strings.Count(s, ".") > 1:
		s = strings.ReplaceAll(s, ".", "")
	}
	if negative {
		s = "-" + s
	}
	return s
}

// words of true and false.
var yes, no = []string{"true", "yes", "y", "1", "x", "是", "真", "有"}, []string{"false", "no", "n", "0", "否", "假", "无"}

// plain is a word without case, spaces and punctuation.
func plain(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Names finds records by their names, for columns that refer to others. It is filled with what the caller may list, and read only afterwards.
type Names struct {
	byName map[string]named
	all    []string
}

type named struct {
	id    crm.UUID
	team  string
	twice bool
}

// NewNames makes an empty one.
func NewNames() *Names { return &Names{byName: map[string]named{}} }

// sameName is a name without case and double spaces: what is the same to a reader. Others are near at best.
func sameName(s string) string { return strings.ToLower(strings.Join(strings.Fields(s), " ")) }

// Add notes a record. A name that two records have finds neither. team is what an owner's records get; "" for others.
func (n *Names) Add(name string, id crm.UUID, team string) {
	key := sameName(name)
	if key == "" {
		return
	}
	if old, known := n.byName[key]; known {
		old.twice = old.twice || old.id != id
		n.byName[key] = old
		return
	}
	n.byName[key] = named{id: id, team: team}
	n.all = append(n.all, name)
}

// Find returns the record of a name. rule is bad_reference when there is none and ambiguous when there are two.
func (n *Names) Find(name string) (id crm.UUID, team, rule string) {
	if n == nil {
		return id, "", ruleReference
	}
	x, ok := n.byName[sameName(name)]
	switch {
	case !ok:
		return id, "", ruleReference
	case x.twice:
		return id, "", ruleAmbiguous
	}
	return x.id, x.team, ""
}

// Near returns up to three known names that are like a name, the closest first.
func (n *Names) Near(name string) []string {
	if n == nil {
		return nil
	}
	type near struct {
		name string
		far  int
	}
	var found []near
	short := []rune(sameName(name))
	limit := max(1, len(short)/3)
	for _, s := range n.all {
		if d := distance(short, []rune(sameName(s)), limit); d <= limit {
			found = append(found, near{s, d})
		}
	}
	slices.SortStableFunc(found, func(a, b near) int { return a.far - b.far })
	var out []string
	for _, f := range found[:min(3, len(found))] {
		out = append(out, f.name)
	}
	return out
}

// distance is how many letters are put in, taken out, replaced or swapped with their neighbour between a and b; more than limit is limit+1.
func distance(a, b []rune, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit {
		return limit + 1
	}
	before, last, now := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		now[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
		before, last, now = last, now, before
	}
	return min(last[len(b)], limit+1)
}
