package page

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"time"
)

// group puts a comma before every third digit, as both languages do.
func group(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "−", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

func (l *language) number(n int64) string { return group(strconv.FormatInt(n, 10)) }

// CountMost is how far pages count: who has more than that many records is helped by filters, not by their number, and a million take seconds to count.
const CountMost = 10_000

// count writes how many there are; a number above CountMost stands for all that is more.
func (l *language) count(n int64) string {
	if n > CountMost {
		return l.number(CountMost) + "+"
	}
	return l.number(n)
}

// decimals is how many digits the minor unit of a currency has (ISO 4217).
func decimals(currency string) int {
	switch currency {
	case "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF":
		return 0
	case "BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND":
		return 3
	}
	return 2
}

// money writes an amount. A compact one has no decimals when they are all zero. A symbol stands only
// where it is not mistaken for that of another currency.
func (l *language) money(amount int64, currency string, compact bool) string {
	n := decimals(currency)
	s := strconv.FormatInt(amount, 10)
	sign := ""
	if s[0] == '-' {
		sign, s = "−", s[1:]
	}
	if len(s) <= n {
		s = strings.Repeat("0", n+1-len(s)) + s
	}
	whole, part := group(s[:len(s)-n]), s[len(s)-n:]
	if part != "" && (!compact || strings.Trim(part, "0") != "") {
		whole += "." + part
	}
	unit := currency
	switch currency {
	case "CNY":
		unit = "¥"
	case "EUR":
		unit = "€"
	case "GBP":
		unit = "£"
	case "USD":
		unit = "$"
		if l.tag == "zh-CN" {
			unit = "US$"
		}
	case "":
		return sign + whole
	}
	return sign + unit + "\u00a0" + whole
}

func (l *language) bytes(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, i := float64(n)/1000, 0
	for f >= 999.5 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	if f < 10 {
		return fmt.Sprintf("%.1f %cB", f, units[i])
	}
	return fmt.Sprintf("%.0f %cB", f, units[i])
}

func (l *language) duration(d time.Duration) string {
	switch {
	case d < 0:
		return l.duration(-d)
	case d < 10*time.Second:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()), ".0") + "\u00a0" + l.say("format.seconds")
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "\u00a0" + l.say("format.seconds")
	case d < 2*time.Hour:
		return l.say("format.minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return l.say("format.hours", int(d.Hours()))
	}
	return l.say("format.days", int(d.Hours()/24))
}

// days returns how many midnights lie between now and t: -1 for yesterday.
func (l *language) days(t time.Time) int {
	day := func(t time.Time) int64 {
		y, m, d := t.In(l.zone).Date()
		return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400
	}
	return int(day(t) - day(l.now()))
}

// ago says roughly how far t lies from now; a date when that is more than four weeks.
func (l *language) ago(t time.Time) string {
	since := l.now().Sub(t)
	days := l.days(t)
	switch {
	case since >= 0 && since < time.Minute:
		return l.say("time.now")
	case since >= 0 && since < time.Hour:
		return l.say("time.minutes_ago", int(since.Minutes()))
	case since >= 0 && since < 6*time.Hour:
		return l.say("time.hours_ago", int(since.Hours()))
	case days == 0:
		return l.say("time.today")
	case days == -1:
		return l.say("time.yesterday")
	case days == 1:
		return l.say("time.tomorrow")
	case days < 0 && days > -7:
		return l.say("time.days_ago", -days)
	case days < 0 && days > -28:
		return l.say("time.weeks_ago", -days/7)
	case days > 0 && days < 28:
		return l.say("time.in_days", days)
	}
	return l.date(t)
}

// when names the day, and the hour of a near one.
func (l *language) when(t time.Time) string {
	if t.IsZero() {
		return "—"
	}
	clock := t.In(l.zone).Format("15:04")
	switch l.days(t) {
	case 0:
		return l.say("time.today") + " " + clock
	case -1:
		return l.say("time.yesterday") + " " + clock
	case 1:
		return l.say("time.tomorrow") + " " + clock
	}
	return l.date(t)
}

// date names the day, and the year when it is not this one.
func (l *language) date(t time.Time) string {
	if t.IsZero() {
		return "—"
	}
	t = t.In(l.zone)
	this := t.Year() == l.now().In(l.zone).Year()
	switch {
	case l.tag == "zh-CN" && this:
		return t.Format("1月2日")
	case l.tag == "zh-CN":
		return t.Format("2006年1月2日")
	case this:
		return t.Format("2 Jan")
	}
	return t.Format("2 Jan 2006")
}

// clock is exact, for the log.
func (l *language) clock(t time.Time) string {
	if t.IsZero() {
		return "—"
	}
	return t.In(l.zone).Format("2006-01-02 15:04:05")
}

// timeTag wraps a time so that programs can read it and a pointer shows it in full.
func (l *language) timeTag(t time.Time, shown string) template.HTML {
	if t.IsZero() {
		return "—"
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s">%s</time>`, //nolint:gosec // no part is data
		t.UTC().Format(time.RFC3339), t.In(l.zone).Format("2006-01-02 15:04:05 MST"), template.HTMLEscapeString(shown)))
}
