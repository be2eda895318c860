package export

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/crmguard/crmguard/audit"
)

// Bounds of one value in a CEF record, in bytes after escaping. All of them
// together keep a record below 8 KiB, which is what receivers of syslog take
// unless told otherwise.
const (
	cefText = 200
	cefList = 900
)

// CEF returns the ArcSight Common Event Format, version 0. A record is below 8
// KiB: long texts and lists end in "...", the numbers of targets and details
// are given, and the whole event is in the log.
func CEF(src Source) Format {
	src = src.fill()
	head := "CEF:0|" + cefHeader(src.Vendor) + "|" + cefHeader(src.Product) + "|" + cefHeader(src.Version) + "|"
	return func(e audit.Entry) []byte { return src.cef(head, &e) }
}

// cefSeverity is the number from 0 to 10 for a severity of OCSF.
func cefSeverity(s int) int { return [...]int{0, 2, 4, 6, 8}[s] }

func (s *Source) cef(head string, e *audit.Entry) []byte {
	ev := &e.Event
	rec := newReceipt(s, e)
	var b strings.Builder
	b.WriteString(head)
	fmt.Fprintf(&b, "%s|%s|%d|", cefHeader(rec.Action), cefHeader(rec.Activity+" "+rec.Outcome), cefSeverity(severity(ev)))
	outcome := "unknown"
	switch ev.Outcome {
	case audit.Allowed:
		outcome = "success"
	case audit.Denied, audit.Failed, audit.Aborted:
		outcome = "failure"
	}
	first := true
	put := func(key, value string, limit int) {
		if value == "" {
			return
		}
		if !first {
			b.WriteByte(' ')
		}
		first = false
		b.WriteString(key)
		b.WriteByte('=')
		b.WriteString(cefValue(value, limit))
	}
	labelled := func(key, label, value string, limit int) {
		if value != "" {
			put(key+"Label", label, limit)
			put(key, value, limit)
		}
	}
	put("rt", strconv.FormatInt(ev.Time.UnixMilli(), 10), cefText)
	put("externalId", strconv.FormatUint(e.Index, 10), cefText)
	put("act", rec.Action, cefText)
	put("cat", rec.Activity, cefText)
	put("outcome", outcome, cefText)
	put("suid", rec.Actor, cefText)
	if t, ok := s.account(ev); ok {
		put("duid", clean(t.ID), cefText)
	}
	put("reason", rec.Note, cefText)
	labelled("cs1", "leaf", rec.Leaf, cefText)
	labelled("cs2", "chain", rec.Chain, cefText)
	labelled("cs3", "tenant", rec.Tenant, cefText)
	labelled("cs4", "session", rec.Session, cefText)
	var targets, details []string
	for _, t := range rec.Targets {
		targets = append(targets, t.Type+"/"+t.ID)
	}
	for _, d := range rec.Details {
		details = append(details, d.Name+"/"+d.Commitment)
	}
	labelled("cs5", "targets", strings.Join(targets, " "), cefList)
	labelled("cs6", "commitments", strings.Join(details, " "), cefList)
	if ev.Count != 0 {
		labelled("cn1", "count", strconv.FormatInt(ev.Count, 10), cefText)
	}
	if len(targets) > 0 {
		labelled("cn2", "targets", strconv.Itoa(len(targets)), cefText)
	}
	if len(details) > 0 {
		labelled("cn3", "commitments", strconv.Itoa(len(details)), cefText)
	}
	labelled("flexString1", "origin", rec.Origin, cefText)
	labelled("flexString2", "fields", strings.Join(rec.Fields, " "), cefList)
	put("crmguardOutcome", rec.Outcome, cefText)
	put("crmguardPurpose", rec.Purpose, cefText)
	put("crmguardDecision", rec.Decision, cefText)
	put("crmguardPolicy", rec.Policy, cefText)
	put("crmguardControls", strings.Join(rec.Controls, " "), cefList)
	if rec.Ref != nil {
		put("crmguardRef", strconv.FormatUint(*rec.Ref, 10), cefText)
	}
	return []byte(b.String())
}

var (
	headerEscapes = strings.NewReplacer(`\`, `\\`, `|`, `\|`)
	valueEscapes  = strings.NewReplacer(`\`, `\\`, `=`, `\=`)
)

// cefHeader makes s fit between two bars.
func cefHeader(s string) string { return shorten(clean(s), headerEscapes, cefText) }

// cefValue makes s fit behind an equals sign. Line feeds cannot be in it any
// more, so the two escapes for them are not needed.
func cefValue(s string, limit int) string { return shorten(clean(s), valueEscapes, limit) }

// shorten escapes s and cuts it between two characters when it is too long.
func shorten(s string, r *strings.Replacer, limit int) string {
	escaped := r.Replace(s)
	if len(escaped) <= limit {
		return escaped
	}
	n := 0
	var b strings.Builder
	for i, c := range s {
		e := r.Replace(s[i : i+utf8.RuneLen(c)])
		if n += len(e); n > limit-3 {
			break
		}
		b.WriteString(e)
	}
	return b.String() + "..."
}
