package export

import (
	"encoding/hex"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit"
)

// Source says where events come from. Fields that are empty are left out or
// have a name of their own.
type Source struct {
	Origin   string   // name of the log
	Vendor   string   // of the program that logs; "": crmguard
	Product  string   // the program; "": crmguard
	Version  string   // of the program; "": 1
	Accounts []string // target types that are accounts of people who log on; nil: account, user, employee
}

func (s Source) fill() Source {
	if s.Vendor == "" {
		s.Vendor = "crmguard"
	}
	if s.Product == "" {
		s.Product = "crmguard"
	}
	if s.Version == "" {
		s.Version = "1"
	}
	if s.Accounts == nil {
		s.Accounts = []string{"account", "user", "employee"}
	}
	return s
}

// Format renders an event as one line, without its end: valid UTF-8 without
// control characters.
type Format func(audit.Entry) []byte

// Record is an event on its way to a sink.
type Record struct {
	Index    uint64    // in the log
	Leaf     tlog.Hash // leaf hash of the event
	Time     time.Time // of the event
	Severity int       // severity_id of OCSF: 1 informational to 4 high
	Body     []byte    // what the Format made
}

// Severities of OCSF that are used.
const (
	informational = iota + 1
	low
	medium
	high
)

var severityNames = [...]string{"Unknown", "Informational", "Low", "Medium", "High"}

// severity is what an event weighs before anybody has looked at it.
func severity(e *audit.Event) int {
	switch e.Action {
	case "audit.recovered", "audit.key", actionGap:
		return high
	}
	switch e.Outcome {
	case audit.Failed:
		return medium
	case audit.Denied, audit.Aborted:
		return low
	}
	return informational
}

var activityNames = [...]string{"Other", "Create", "Read", "Update", "Delete", "List", "Search", "Export", "Import",
	"Encrypt", "Decrypt", "Logon", "Logoff", "Grant", "Revoke", "Erase", "Backup", "Restore", "Configure", "Approve"}

func activityName(a audit.Activity) string {
	if int(a) < len(activityNames) {
		return activityNames[a]
	}
	return "Other"
}

var outcomeNames = [...]string{"unknown", "allowed", "denied", "failed", "intended", "aborted"}

func outcomeName(o audit.Outcome) string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return "unknown"
}

// account returns the first target that is an account.
func (s *Source) account(e *audit.Event) (audit.Target, bool) {
	i := slices.IndexFunc(e.Targets, func(t audit.Target) bool { return slices.Contains(s.Accounts, t.Type) })
	if i < 0 {
		return audit.Target{}, false
	}
	return e.Targets[i], true
}

// receipt is what binds a record to the log and what no schema has a place for.
type receipt struct {
	Origin   string   `json:"origin,omitempty"`
	Index    uint64   `json:"index"`
	Leaf     string   `json:"leaf"`
	Chain    string   `json:"chain"`
	Action   string   `json:"action"`
	Activity string   `json:"activity"`
	Outcome  string   `json:"outcome"`
	Actor    string   `json:"actor,omitempty"`
	Session  string   `json:"session,omitempty"`
	Tenant   string   `json:"tenant,omitempty"`
	Targets  []target `json:"targets,omitempty"`
	Fields   []string `json:"fields,omitempty"`
	Purpose  string   `json:"purpose,omitempty"`
	Decision string   `json:"decision,omitempty"`
	Policy   string   `json:"policy,omitempty"`
	Controls []string `json:"controls,omitempty"`
	Ref      *uint64  `json:"ref,omitempty"`
	Count    int64    `json:"count,omitempty"`
	Details  []detail `json:"details,omitempty"`
	Note     string   `json:"note,omitempty"`
}

type target struct {
	Type    string `json:"type"`
	ID      string `json:"id"`
	Version uint64 `json:"version,omitempty"`
	Digest  string `json:"digest,omitempty"`
}

type detail struct {
	Name       string `json:"name"`
	Commitment string `json:"commitment"`
}

func newReceipt(s *Source, e *audit.Entry) receipt {
	ev := &e.Event
	r := receipt{Origin: clean(s.Origin), Index: e.Index, Leaf: hex.EncodeToString(e.Leaf[:]), Chain: hex.EncodeToString(e.Chain[:]),
		Action: clean(ev.Action), Activity: activityName(ev.Activity), Outcome: outcomeName(ev.Outcome),
		Actor: clean(ev.Actor), Session: clean(ev.Session), Tenant: clean(ev.Tenant), Fields: cleanAll(ev.Fields),
		Purpose: clean(ev.Purpose), Decision: clean(ev.Decision), Policy: clean(ev.Policy), Controls: cleanAll(ev.Controls),
		Count: ev.Count, Note: clean(ev.Note)}
	if ev.HasRef {
		r.Ref = &ev.Ref
	}
	for _, t := range ev.Targets {
		r.Targets = append(r.Targets, target{clean(t.Type), clean(t.ID), t.Version, hex.EncodeToString(t.Digest)})
	}
	for _, d := range ev.Details {
		r.Details = append(r.Details, detail{clean(d.Name), hex.EncodeToString(d.Commitment[:])})
	}
	return r
}

// clean replaces what could break a line or a terminal: invalid UTF-8, control
// and format characters, and the separators of lines and paragraphs.
func clean(s string) string {
	if strings.IndexFunc(s, hazard) < 0 && utf8.ValidString(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if hazard(r) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
}

func hazard(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co)
}

func cleanAll(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, clean(s))
	}
	return out
}
