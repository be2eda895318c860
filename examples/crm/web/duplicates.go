package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// duplicateError says that what is to be stored exists, as far as the caller may know, or has a number of somebody who was erased.
type duplicateError struct {
	typ     string
	found   []dedupe.Match
	erased  bool
	refused bool // not even all the same
}

func (e *duplicateError) Error() string { return "crm: a " + e.typ + " exists already" }

// entry are the fields whose change is worth a check: those by which a person is known.
var entry = []string{"name", "phone", "phone2", "email"}

// exists returns a *duplicateError when v is likely or certain to be one with stored records, or has a number of somebody who was erased. anyway is the word of the caller
// that it is to be stored all the same; where the configuration refuses what is certain, it holds for the likely ones only, and where it refuses the erased, not for them. Who may
// not check is not asked.
func (k *resource[P]) exists(ctx context.Context, s *Server, c guard.Caller, v P, anyway bool) error {
	e := &duplicateError{typ: k.typ}
	if err := k.twins(ctx, s, c, v, anyway, e); err != nil {
		return err
	}
	if err := k.gone(ctx, s, c, v, anyway, e); err != nil {
		return err
	}
	if len(e.found) == 0 && !e.erased || anyway && !e.refused {
		return nil
	}
	return e
}

// gone notes in e whether v has a number of somebody who was erased.
func (k *resource[P]) gone(ctx context.Context, s *Server, c guard.Caller, v P, anyway bool, e *duplicateError) error {
	refuse := s.app.Config.Erased == app.RefuseErased
	if s.app.Config.Erased == app.AllowErased || anyway && !refuse {
		return nil
	}
	found, err := k.records.Erased(ctx, c, authz.Create, []P{v}, s.app.Suppressions)
	if guard.Denied(err) {
		return nil // told when it is stored, or an update of who may not create
	}
	if err != nil {
		return err
	}
	e.erased = found[0]
	e.refused = e.refused || e.erased && refuse
	return nil
}

// twins notes in e with which stored records v is likely or certain to be one.
func (k *resource[P]) twins(ctx context.Context, s *Server, c guard.Caller, v P, anyway bool, e *duplicateError) error {
	refuse := s.app.Config.Duplicates == app.RefuseDuplicates
	if k.dups == nil || anyway && !refuse {
		return nil
	}
	if ok, _, err := k.records.MayOwn(ctx, c, authz.Check); err != nil || !ok {
		return err
	}
	found, err := k.dups.Check(ctx, c, v)
	if err != nil || len(found) == 0 {
		return err
	}
	e.found = found
	e.refused = refuse && slices.ContainsFunc(found, func(m dedupe.Match) bool { return m.Band == guard.Certain })
	return nil
}

// known tells whether an update changes one of the fields by which somebody is known.
func (k *resource[P]) known(prev, next P) bool {
	return slices.ContainsFunc(entry, func(name string) bool {
		if _, ok := k.byName[name]; !ok {
			return false
		}
		a, _ := k.value(prev, name).Interface().(crm.Text)
		b, _ := k.value(next, name).Interface().(crm.Text)
		return a.State() != b.State() || a.Expose() != b.Expose()
	})
}

// bandCell shows how sure it is.
func bandCell(b guard.Band) page.Cell {
	tone := page.Warning
	if b == guard.Certain {
		tone = page.Danger
	}
	return page.Cell{Kind: page.KindBadge, Key: "dup.band." + b.String(), Tone: tone}
}

// whyCell shows which fields agree, and how.
func (k *resource[P]) whyCell(why []string) page.Cell {
	c := page.Cell{Kind: page.KindList}
	for _, w := range why {
		name, by, _ := strings.Cut(w, ": ")
		c.Items = append(c.Items, page.T("dup.why", k.label(name), page.T("dup.by."+by)))
	}
	return c
}

func scoreCell(score float64) page.Cell {
	return page.Cell{Text: strconv.FormatFloat(100*score, 'f', 0, 64) + " %"}
}

// matches lists duplicates. Of one that the reader may not read it says that it exists and whom to ask. with is the record that they are duplicates of, zero where it is not stored.
func (k *resource[P]) matches(s *Server, r *request, found []dedupe.Match, with crm.UUID) (*page.List, error) {
	var ids []crm.UUID
	for _, m := range found {
		if !m.ID.IsZero() {
			ids = append(ids, m.ID)
		}
	}
	titles, err := k.titles(r, ids)
	if err != nil {
		return nil, err
	}
	l := &page.List{ID: "duplicates", Title: page.T("dup.found"), Count: -1, Empty: page.Empty{Text: page.T("dup.none")}, Columns: []page.Column{
		{Label: page.T("type." + k.typ)}, {Label: page.T("dup.band")}, {Label: page.T("dup.score")}, {Label: page.T("dup.agree")}, {Label: page.T("dup.ask")},
	}}
	for _, m := range found {
		row := page.Row{}
		if m.ID.IsZero() {
			ask := page.Cell{Key: "dup.ask.nobody"}
			if e := s.names.get(m.Owner); e != nil {
				ask = page.Cell{Text: e.Name.Expose()}
			}
			row.Cells = []page.Cell{{Key: "dup.exists"}, bandCell(m.Band), {}, {}, ask}
		} else {
			title := titles[m.ID]
			last := page.Cell{}
			if !with.IsZero() {
				last = page.Cell{Kind: page.KindActions, Actions: []page.Action{{Label: page.T("dup.compare"), Href: k.pairHref(with, m.ID)}}}
			}
			row.Href = title.Href
			row.Cells = []page.Cell{title, bandCell(m.Band), scoreCell(m.Score), k.whyCell(m.Why), last}
		}
		l.Rows = append(l.Rows, row)
	}
	return l, nil
}

// warn adds to a form what exists already, and the button that stores the record all the same.
func (k *resource[P]) warn(s *Server, r *request, f *page.Form, e *duplicateError) (err error) {
	refuse := func(word string) page.Text {
		if e.refused {
			return page.T(word + ".refused")
		}
		return page.T(word + ".do")
	}
	if e.erased {
		f.Warnings = append(f.Warnings, page.T("erased.warn"), refuse("erased.warn"))
	}
	if !e.refused {
		f.Anyway = page.T("dup.anyway")
	}
	if len(e.found) == 0 {
		return nil
	}
	f.Warnings = append(f.Warnings, page.T("dup.warn"), refuse("dup.warn"))
	f.Found, err = k.matches(s, r, e.found, crm.UUID{})
	return err
}

func (k *resource[P]) pairHref(a, b crm.UUID) string {
	return "/" + k.plural + "/pair?keep=" + a.String() + "&drop=" + b.String()
}

// duplicateRoutes registers the pages of duplicates of a type.
func (k *resource[P]) duplicateRoutes(s *Server, mux *http.ServeMux) {
	with := func(h func(*Server, http.ResponseWriter, *request) error) func(http.ResponseWriter, *request) error {
		return func(w http.ResponseWriter, r *request) error { return h(s, w, r) }
	}
	p := "/" + k.plural
	s.handle(mux, "GET "+p+"/duplicates", with(k.showDuplicates))
	s.handle(mux, "POST "+p+"/duplicates", with(k.findDuplicates))
	s.handle(mux, "GET "+p+"/{id}/duplicates", with(k.showMatches))
	s.handle(mux, "GET "+p+"/pair", with(k.showPair))
	s.handle(mux, "POST "+p+"/merge", with(k.merge))
}

// mayFindAll tells whether the caller may compare all records of the type: check any, and read any, whoever has it.
func (k *resource[P]) mayFindAll(ctx context.Context, c guard.Caller) (bool, error) {
	if ok, _, err := k.records.MayOwn(ctx, c, authz.Check); err != nil || !ok {
		return false, err
	}
	ok, _, err := k.records.May(ctx, c, authz.Read, k.records.New())
	return ok, err
}

// mostPairs is how many pairs of a run are kept, the best first.
const mostPairs = 10_000

// runs are the searches for all duplicates of a type, at most one for each. What they found is ids, scores and names of fields, in memory only.
type runs struct {
	mu  sync.Mutex
	of  map[string]*dupRun
	end sync.WaitGroup
}

// dupRun is one of them; its fields are under runs.mu.
type dupRun struct {
	running     bool
	started, at time.Time // at: when it ended
	done, total int64
	report      guard.AlikeReport
	pairs       []guard.Pair // the best first
	left        int64        // pairs that are not kept
	failed      bool
	cancel      context.CancelFunc
}

// get returns what there is of a type.
func (d *runs) get(typ string) dupRun {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.of[typ]; x != nil {
		return *x
	}
	return dupRun{}
}

// stop ends what runs, and waits for it.
func (d *runs) stop() {
	d.mu.Lock()
	for _, x := range d.of {
		if x.running {
			x.cancel()
		}
	}
	d.mu.Unlock()
	d.end.Wait()
}

// start begins a search in the background; one that runs goes on.
func (d *runs) start(ctx context.Context, typ string, all func(ctx context.Context, opts *guard.AlikeOptions, found func(guard.Pair) error) (guard.AlikeReport, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.of[typ]; x != nil && x.running {
		return
	}
	if d.of == nil {
		d.of = map[string]*dupRun{}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	x := &dupRun{running: true, started: time.Now(), cancel: cancel}
	d.of[typ] = x
	d.end.Go(func() {
		defer cancel()
		var pairs []guard.Pair
		var left int64
		best := func(a, b guard.Pair) int {
			return cmp.Or(cmp.Compare(b.Score, a.Score), strings.Compare(a.A.String()+a.B.String(), b.A.String()+b.B.String()))
		}
		rep, err := all(ctx, &guard.AlikeOptions{Progress: func(done, total int64) {
			d.mu.Lock()
			defer d.mu.Unlock()
			x.done, x.total = done, total
		}}, func(p guard.Pair) error {
			if pairs = append(pairs, p); len(pairs) == 2*mostPairs {
				slices.SortFunc(pairs, best)
				left += int64(len(pairs) - mostPairs)
				pairs = pairs[:mostPairs]
			}
			return nil
		})
		slices.SortFunc(pairs, best)
		if n := len(pairs) - mostPairs; n > 0 {
			left, pairs = left+int64(n), pairs[:mostPairs]
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			slog.Error("the search for duplicates failed", "type", typ, "err", err) // names types, ids and rules, never values
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		x.running, x.at, x.report, x.pairs, x.left, x.failed = false, time.Now(), rep, pairs, left, err != nil
	})
}

// findDuplicates begins a search over all records.
func (k *resource[P]) findDuplicates(s *Server, w http.ResponseWriter, r *request) error {
	if err := k.findAll(r.Context(), s, r.caller()); err != nil {
		return err
	}
	http.Redirect(w, r.Request, "/"+k.plural+"/duplicates", http.StatusSeeOther)
	return nil
}

func (k *resource[P]) findAll(ctx context.Context, s *Server, c guard.Caller) error {
	if ok, err := k.mayFindAll(ctx, c); err != nil {
		return err
	} else if !ok {
		return guard.Deny("check.all")
	}
	s.dups.start(ctx, k.typ, func(ctx context.Context, opts *guard.AlikeOptions, found func(guard.Pair) error) (guard.AlikeReport, error) {
		return k.dups.All(ctx, c, opts, found)
	})
	return nil
}

// pairsPage is how many pairs a page has.
const pairsPage = 25

// showDuplicates lists the pairs that the last search found.
func (k *resource[P]) showDuplicates(s *Server, w http.ResponseWriter, r *request) error {
	if ok, err := k.mayFindAll(r.Context(), r.caller()); err != nil {
		return err
	} else if !ok {
		return guard.Deny("check.all")
	}
	base := "/" + k.plural + "/duplicates"
	run := s.dups.get(k.typ)
	l := &page.List{ID: "pairs", Title: page.T("dup.list", page.T("type."+k.typ+".many")), Count: int64(len(run.pairs)), Columns: []page.Column{
		{Label: page.T("dup.one")}, {Label: page.T("dup.other")}, {Label: page.T("dup.band")}, {Label: page.T("dup.score")}, {Label: page.T("dup.agree")},
		{Label: page.T("list.action"), Kind: page.KindActions},
	}, Empty: page.Empty{Text: page.T("dup.none_yet")}}
	search := page.Action{Label: page.T("dup.search"), Href: base, Post: true}
	switch {
	case run.running:
		l.Count, l.Empty = -1, page.Empty{Text: page.T("dup.running", run.done, run.total), Action: &page.Action{Label: page.T("dup.look"), Href: base}}
	case run.failed:
		l.Primary, l.Empty = &search, page.Empty{Text: page.T("dup.failed")}
	case run.at.IsZero():
		l.Count, l.Primary, l.Empty.Action = -1, &search, &search
	default:
		l.Primary, l.Empty = &search, page.Empty{Text: page.T("dup.none")}
		l.Policy = append(l.Policy, page.T("dup.report", run.at, run.report.Rows, run.report.Certain, run.report.Likely))
		if run.report.Large > 0 {
			l.Policy = append(l.Policy, page.T("dup.report.large", run.report.Large))
		}
	}
	from, _ := strconv.Atoi(r.FormValue("from"))
	if from < 0 || from >= len(run.pairs) {
		from = 0
	}
	part := run.pairs[from:min(from+pairsPage, len(run.pairs))]
	var ids []crm.UUID
	for _, p := range part {
		for _, u := range []crm.UUID{p.A, p.B} {
			if !slices.Contains(ids, u) {
				ids = append(ids, u)
			}
		}
	}
	titles, err := k.titles(r, ids)
	if err != nil {
		return err
	}
	for _, p := range part {
		a, okA := titles[p.A]
		b, okB := titles[p.B]
		row := page.Row{Href: a.Href, Cells: []page.Cell{a, b, bandCell(p.Band), scoreCell(p.Score), k.whyCell(p.Why), {}}}
		if okA && okB { // else one was merged or deleted since
			row.Cells[5] = page.Cell{Kind: page.KindActions, Actions: []page.Action{{Label: page.T("dup.compare"), Href: k.pairHref(p.A, p.B)}}}
		} else {
			row.Href = ""
			row.Cells[5] = page.Cell{Key: "dup.gone"}
		}
		l.Rows = append(l.Rows, row)
	}
	if len(l.Rows) > 0 {
		l.First = int64(from + 1)
	}
	if next := from + pairsPage; next < len(run.pairs) {
		l.NextHref = fmt.Sprintf("%s?from=%d", base, next)
	}
	if from > 0 {
		l.PrevHref = base
	}
	l.Secondary = []page.Action{{Label: page.T("nav.merges"), Href: "/merges"}}
	return s.show(w, r, http.StatusOK, l.Title, l)
}

// showMatches lists the duplicates of one record, by what its reader sees of it.
func (k *resource[P]) showMatches(s *Server, w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	v, err := k.records.Get(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	found, err := k.dups.Check(r.Context(), r.caller(), v.Value)
	if err != nil {
		return err
	}
	l, err := k.matches(s, r, found, u)
	if err != nil {
		return err
	}
	l.Secondary = []page.Action{{Label: page.T("act.back"), Href: "/" + k.plural + "/" + u.String()}}
	l.Policy = []page.Text{page.T("dup.seen")}
	return s.show(w, r, http.StatusOK, l.Title, l)
}

// two reads which records a page or a form is about.
func (k *resource[P]) two(r *request) (keep, drop guard.View[P], err error) {
	var u, v crm.UUID
	if u, err = crm.ParseUUID(r.FormValue("keep")); err == nil {
		v, err = crm.ParseUUID(r.FormValue("drop"))
	}
	if err != nil || u == v {
		return keep, drop, crm.ErrNotFound
	}
	if keep, err = k.records.Get(r.Context(), r.caller(), u); err != nil {
		return keep, drop, err
	}
	drop, err = k.records.Get(r.Context(), r.caller(), v)
	return keep, drop, err
}

// showPair shows two records side by side, for who may merge them.
func (k *resource[P]) showPair(s *Server, w http.ResponseWriter, r *request) error {
	keep, drop, err := k.two(r)
	if err != nil {
		return err
	}
	for _, v := range []*guard.View[P]{&keep, &drop} {
		if v.Value.Header().Deleted {
			return crm.ErrNotFound
		}
		if ok, _, err := k.records.May(r.Context(), r.caller(), authz.Merge, v.Value); err != nil {
			return err
		} else if !ok {
			return guard.Deny("access.granted")
		}
	}
	_, writable, err := k.records.May(r.Context(), r.caller(), authz.Update, keep.Value)
	if err != nil {
		return err
	}
	p := &page.Pair{Title: page.T("dup.pair"), Note: page.T("dup.pair.note"), Action: "/" + k.plural + "/merge", Submit: page.T("dup.merge"), Cancel: "/" + k.plural + "/" + keep.Value.Header().ID.String()}
	side := func(v *guard.View[P], name string, label page.Text) page.PairSide {
		h := v.Value.Header()
		title := k.titleCell(v)
		title.Href, title.RevealURL = "/"+k.plural+"/"+h.ID.String(), ""
		p.Hidden = append(p.Hidden, page.Input{Name: name, Value: h.ID.String()}, page.Input{Name: name + "_version", Value: strconv.FormatInt(h.Version, 10)})
		return page.PairSide{Title: title, Label: label, Note: page.T("detail.edited", h.UpdatedAt)}
	}
	p.Keep, p.Drop = side(&keep, "keep", page.T("dup.stays")), side(&drop, "drop", page.T("dup.goes"))
	p.Swap = k.pairHref(drop.Value.Header().ID, keep.Value.Header().ID)
	refs, err := k.references(s, r, []guard.View[P]{keep, drop}, []string{"customer"})
	if err != nil {
		return err
	}
	can := k.dups.Fields()
	for _, sec := range k.sections {
		for _, f := range sec.fields {
			if f.kind == noInput || f.kind == page.FieldHidden {
				continue
			}
			row := page.PairRow{Name: f.name, Label: k.label(f.name), Keep: k.cell(&keep, f.name, refs, &s.names), Drop: k.cell(&drop, f.name, refs, &s.names)}
			row.Keep.RevealURL, row.Drop.RevealURL, row.Keep.Strong, row.Drop.Strong = "", "", false, false
			if blank(row.Keep) && blank(row.Drop) {
				continue
			}
			row.Choice = slices.Contains(can, f.name) && writable[f.name] != authz.Hidden && choosable(row.Keep) && choosable(row.Drop) && (row.Keep.State == page.Masked || !same(row.Keep, row.Drop))
			row.FromDrop = row.Choice && blank(row.Keep)
			p.Rows = append(p.Rows, row)
		}
	}
	return s.show(w, r, http.StatusOK, p.Title, p)
}

// choosable tells whether a value is the reader's to choose: seen, masked or not.
func choosable(c page.Cell) bool { return c.State == page.Clear || c.State == page.Masked }

func blank(c page.Cell) bool {
	return c.State == page.Clear && c.Text == "" && c.Key == "" && c.Amount == 0 && c.Time.IsZero() && len(c.Items) == 0
}

func same(a, b page.Cell) bool {
	return a.State == b.State && a.Text == b.Text && a.Key == b.Key && a.Amount == b.Amount && a.Currency == b.Currency && a.Time.Equal(b.Time)
}

// taken reads which fields the record that stays takes of the other.
func (k *resource[P]) taken(get func(string) string) dedupe.Choice {
	var out dedupe.Choice
	for _, name := range k.dups.Fields() {
		if get("take."+name) == "drop" {
			out = append(out, name)
		}
	}
	return out
}

// merge makes one record of two.
func (k *resource[P]) merge(s *Server, w http.ResponseWriter, r *request) error {
	var targets [2]dedupe.Target
	for i, name := range []string{"keep", "drop"} {
		u, err := crm.ParseUUID(r.PostFormValue(name))
		if err != nil {
			return crm.ErrNotFound
		}
		version, err := strconv.ParseInt(r.PostFormValue(name+"_version"), 10, 64)
		if err != nil {
			return errBadRequest
		}
		targets[i] = dedupe.Target{ID: u, Version: version}
	}
	m, err := k.dups.Merge(r.Context(), r.caller(), targets[0], targets[1], k.taken(r.PostFormValue))
	if err != nil {
		return err
	}
	return s.done(w, r, "merged", "/merges/"+m.ID.String(), k.typ)
}

// duplicates registers what merges can do beyond being listed and read.
func (s *Server) duplicates(mux *http.ServeMux) {
	s.handle(mux, "POST /merges/{id}/undo", s.undoMerge)
}

// deduping returns what undoes a merge that the caller may read.
func (s *Server) deduping(ctx context.Context, c guard.Caller, u crm.UUID) (app.Deduping, *crm.Merge, error) {
	v, err := s.app.Merges.Get(ctx, c, u)
	if err != nil {
		return nil, nil, err
	}
	d := s.app.Duplicates.Deduping(v.Value.RecordType)
	if d == nil {
		return nil, nil, crm.ErrNotFound
	}
	return d, v.Value, nil
}

// undoMerge takes a merge back, and says what came back and what did not.
func (s *Server) undoMerge(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	d, m, err := s.deduping(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	out, err := d.Undo(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	label := func(name string) page.Text { return page.T("field." + m.RecordType + "." + name) }
	list := func(names []string) page.Cell {
		c := page.Cell{Kind: page.KindList}
		for _, n := range names {
			c.Items = append(c.Items, label(n))
		}
		return c
	}
	p := &page.Detail{Title: page.Cell{Key: "dup.undone", Strong: true}, Version: 1}
	p.Sections = []page.Section{{Title: page.T("dup.undone.report"), Rows: []page.Fact{
		{Label: page.T("dup.undone.fields"), Cell: list(out.Fields)},
		{Label: page.T("dup.undone.changed"), Cell: list(out.Changed)},
		{Label: page.T("dup.undone.moved"), Cell: page.Cell{Kind: page.KindNumber, Amount: int64(out.Moved)}},
		{Label: page.T("dup.undone.shared"), Cell: page.Cell{Kind: page.KindNumber, Amount: int64(out.Shared)}},
		{Label: page.T("dup.undone.stayed"), Cell: page.Cell{Kind: page.KindNumber, Amount: int64(len(out.Stayed))}},
	}}}
	if len(out.Stayed) > 0 {
		l := page.List{ID: "stayed", Title: page.T("dup.undone.stayed"), Count: int64(len(out.Stayed)), Columns: []page.Column{{Label: page.T("field.merge.record_type")}, {Label: page.T("dup.id")}}}
		for _, ref := range out.Stayed {
			l.Rows = append(l.Rows, page.Row{Cells: []page.Cell{{Key: "type." + ref.Type}, {Kind: page.KindMono, Text: ref.ID.String()}}})
		}
		p.Lists = append(p.Lists, l)
	}
	if k := s.kind(m.RecordType); k != nil {
		p.Secondary = append(p.Secondary,
			page.Action{Label: page.T("dup.kept"), Href: "/" + k.path() + "/" + m.Kept.String()},
			page.Action{Label: page.T("dup.back"), Href: "/" + k.path() + "/" + m.Dropped.String()})
	}
	p.Secondary = append(p.Secondary, page.Action{Label: page.T("nav.merges"), Href: "/merges"})
	return s.show(w, r, http.StatusOK, page.T("dup.undone"), p)
}

// mergeKind describes merges.
func (s *Server) mergeKind() kind {
	a := s.app
	view := func(name string) field { return field{name: name, kind: noInput} }
	merges := resourceOf(a.Merges, "merges", "record_type")
	merges.governs, merges.badge, merges.ofCustomer, merges.sort = true, "state", true, "at"
	merges.store = func(*request, *crm.Merge) error { return crm.ErrNotFound } // made by merging
	merges.list = []string{"record_type", "kept", "dropped", "by", "at", "state"}
	merges.sections = []section{{"main", []field{view("record_type"), view("kept"), view("dropped"), view("by"), view("at"), view("undone_at")}}}
	merges.acts = func(r *request, v *guard.View[*crm.Merge], base string) []page.Action {
		m := v.Value
		ok, _, err := a.Merges.May(r.Context(), r.caller(), authz.Merge, m)
		if err != nil || !ok || m.State != crm.MergeDone && m.State != crm.MergeJoining {
			return nil
		}
		return []page.Action{{Label: page.T("dup.undo"), Href: base + "/undo", Post: true, Tone: page.Danger}}
	}
	merges.detail = func(r *request, d *page.Detail, v *guard.View[*crm.Merge], _ string) error {
		d.Edit = ""
		m := v.Value
		var names page.Cell
		names.Kind = page.KindList
		for _, n := range m.TakenFields() {
			names.Items = append(names.Items, page.T("field."+m.RecordType+"."+n))
		}
		d.Sections[0].Rows = append(d.Sections[0].Rows, page.Fact{Label: page.T("field.merge.taken"), Cell: names},
			page.Fact{Label: page.T("dup.shares"), Cell: page.Cell{Kind: page.KindNumber, Amount: int64(m.SharesEnded())}})
		k := s.kind(m.RecordType)
		if k == nil {
			return nil
		}
		cells, err := k.titles(r, []crm.UUID{m.Kept, m.Dropped})
		if err != nil {
			return err
		}
		for i, u := range map[int]crm.UUID{1: m.Kept, 2: m.Dropped} { // rows of kept and dropped
			if c, ok := cells[u]; ok {
				d.Sections[0].Rows[i].Cell = c
			}
		}
		return nil
	}
	return merges
}
