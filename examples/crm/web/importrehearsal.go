package web

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/examples/crm/page"
)

func (s *Server) startRehearsal(r *request, d *draft) error {
	d.rehearse.running, d.rehearse.over, d.rehearse.err, d.rehearse.counts, d.rehearse.began = true, false, nil, transfer.Counts{}, time.Now()
	c := r.caller()
	start := d.start
	start.Mapping.Columns = slices.Clone(start.Mapping.Columns)
	err := s.app.RehearseImport(c, d.upload, start, func(n transfer.Counts) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.rehearse.counts = n
	}, func(rep transfer.Report, err error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.rehearse.running, d.rehearse.over, d.rehearse.report, d.rehearse.err = false, true, rep, err
	})
	if err != nil {
		d.rehearse.running = false
	}
	return err
}

// working shows how far work is; the browser asks again by itself.
func working(w http.ResponseWriter, label page.Text, done, total int64, since time.Time) *page.Progress {
	w.Header().Set("Refresh", "2")
	p := &page.Progress{Label: label, Done: done, Total: total}
	if took := time.Since(since); took > time.Second {
		p.Rate = int64(float64(done) / took.Seconds())
		if p.Rate > 0 && total > done {
			p.Left = (time.Duration((total-done)/p.Rate) * time.Second).Round(time.Second)
		}
	}
	return p
}

func countFacts(n transfer.Counts) []page.Fact {
	var out []page.Fact
	for _, x := range []struct {
		name string
		n    int64
		must bool
	}{
		{"rows", n.Rows, true}, {"created", n.Created, true}, {"updated", n.Updated, false}, {"unchanged", n.Unchanged, false},
		{"rejected", n.Rejected, true}, {"matched", n.Matched, false}, {"erased", n.Erased, false}, {"unchecked", n.Unchecked, false},
	} {
		if x.must || x.n > 0 {
			out = append(out, page.Fact{Label: page.T("imports.count." + x.name), Cell: page.Cell{Kind: page.KindNumber, Amount: x.n}})
		}
	}
	return out
}

// reasonText says one reason without what stands in the row.
func reasonText(typ string, r transfer.Reason) page.Text {
	rule := page.T("rule." + r.Rule)
	if r.Field == "" {
		return rule
	}
	return page.T("format.pair", fieldLabel(typ, r.Field), rule)
}

// reasonFacts lists how many rows were rejected for what, the most first.
func reasonFacts(typ string, by map[string]int64) []page.Fact {
	keys := make([]string, 0, len(by))
	for k := range by {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if by[a] != by[b] {
			return int(by[b] - by[a])
		}
		return strings.Compare(a, b)
	})
	var out []page.Fact
	for _, k := range keys {
		field, rule, _ := strings.Cut(k, ":")
		label := reasonText(typ, transfer.Reason{Field: field, Rule: rule})
		if k == "other" {
			label = page.T("imports.other_reasons")
		}
		out = append(out, page.Fact{Label: label, Cell: page.Cell{Kind: page.KindNumber, Amount: by[k]}})
	}
	return out
}

// shownRows is how many rejected rows, and how many duplicates, a page lists.
const shownRows = 20

func rejectedList(typ string, rows []transfer.Rejected, all int64) page.List {
	l := page.List{ID: "rejected", Title: page.T("imports.rejected"), Count: all, Empty: page.Empty{Text: page.T("imports.rejected.none")},
		Columns: []page.Column{{Label: page.T("imports.line"), Kind: page.KindNumber}, {Label: page.T("imports.reasons"), Kind: page.KindList}}}
	for _, x := range rows[:min(len(rows), shownRows)] {
		c := page.Cell{Kind: page.KindList}
		for _, why := range x.Reasons {
			c.Items = append(c.Items, reasonText(typ, why))
		}
		l.Rows = append(l.Rows, page.Row{Cells: []page.Cell{{Kind: page.KindNumber, Amount: x.Line}, c}})
	}
	return l
}

// matchedList lists rows that are there already.
func matchedList(rows []transfer.Matched, all int64) page.List {
	l := page.List{ID: "matched", Title: page.T("imports.matched"), Count: all, Empty: page.Empty{Text: page.T("imports.matched.none")},
		Columns: []page.Column{{Label: page.T("imports.line"), Kind: page.KindNumber}, {Label: page.T("imports.matched.band"), Kind: page.KindBadge}}}
	for _, x := range rows[:min(len(rows), shownRows)] {
		tone := page.Neutral
		if x.Band == guard.Certain.String() {
			tone = page.Warning
		}
		l.Rows = append(l.Rows, page.Row{Cells: []page.Cell{{Kind: page.KindNumber, Amount: x.Line}, {Kind: page.KindBadge, Key: "imports.band." + x.Band, Tone: tone}}})
	}
	return l
}

// erasedList lists rows with a number of somebody who was erased. Which number it is stays untold.
func erasedList(rows []transfer.Erased, all int64) page.List {
	l := page.List{ID: "erased", Title: page.T("imports.erased"), Count: all, Empty: page.Empty{Text: page.T("imports.erased.none")},
		Columns: []page.Column{{Label: page.T("imports.line"), Kind: page.KindNumber}}}
	for _, x := range rows[:min(len(rows), shownRows)] {
		l.Rows = append(l.Rows, page.Row{Cells: []page.Cell{{Kind: page.KindNumber, Amount: x.Line}}})
	}
	return l
}

// showRehearsal says what the import would do.
func (s *Server) showRehearsal(w http.ResponseWriter, r *request) error {
	d, err := s.draft(r)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	base := "/uploads/" + d.upload.ID
	re := &d.rehearse
	p := &page.Detail{
		Title: page.Cell{Key: "imports.rehearsal", Strong: true}, Subtitle: []page.Text{page.T("type." + d.upload.Type + ".many"), page.Plain(d.upload.Name)},
		Secondary: []page.Action{{Label: page.T("imports.mapping.change"), Href: base}},
	}
	forget := page.Action{Label: page.T("imports.forget"), Href: base + "/forget", Post: true, Tone: page.Danger}
	switch {
	case re.running:
		p.Secondary = nil
		p.Progress = working(w, page.T("imports.rehearsing"), re.counts.Rows, d.start.Rows, re.began)
	case !re.over:
		http.Redirect(w, r.Request, base, http.StatusSeeOther)
		return nil
	case re.err != nil:
		_, word := importFault(re.err)
		p.Notice = page.T("imports.fault." + cmpOr(word, faultWord(re.err)))
		p.Moves = []page.Action{forget}
	default:
		n := re.report.Counts
		p.Notice = page.T("imports.rehearsal.note")
		p.Moves = append(p.Moves, page.Action{Label: page.T("imports.start", n.Created+n.Updated), Href: base + "/start", Post: true, Tone: page.Accent}, forget)
	}
	p.Sections = []page.Section{{Title: page.T("imports.counts"), Rows: countFacts(re.report.Counts)}}
	if re.running {
		p.Sections[0].Rows = countFacts(re.counts)
	}
	if len(re.report.Reasons) > 0 && !re.running {
		p.Sections = append(p.Sections, page.Section{Title: page.T("imports.why"), Rows: reasonFacts(d.upload.Type, re.report.Reasons)})
		p.Lists = append(p.Lists, rejectedList(d.upload.Type, re.report.Rejected, re.report.Counts.Rejected))
	}
	if len(re.report.Matched) > 0 && !re.running {
		p.Lists = append(p.Lists, matchedList(re.report.Matched, re.report.Counts.Matched))
	}
	if len(re.report.Erased) > 0 && !re.running {
		p.Lists = append(p.Lists, erasedList(re.report.Erased, re.report.Counts.Erased))
	}
	return s.show(w, r, http.StatusOK, page.T("imports.rehearsal"), p)
}

// faultWord says why work ended, where importFault has no word for it.
func faultWord(err error) string {
	switch {
	case guard.Denied(err), errors.Is(err, crm.ErrNotFound):
		return "denied"
	case errors.Is(err, guard.ErrQuota):
		return "quota"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "ended"
	}
	return "unknown"
}

func (s *Server) startImport(w http.ResponseWriter, r *request) error {
	d, err := s.draft(r)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rehearse.running || !d.rehearse.over || d.rehearse.err != nil {
		return crm.ErrConflict
	}
	u, err := s.app.BeginImport(r.Context(), r.caller(), d.upload, d.start)
	if err != nil {
		return err
	}
	s.drafts.drop(d)
	http.Redirect(w, r.Request, "/imports/"+u.String(), http.StatusSeeOther)
	return nil
}
