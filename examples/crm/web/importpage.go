package web

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// importOf reads an import and the importer of its type, as the caller.
func (s *Server) importOf(ctx context.Context, c guard.Caller, u crm.UUID) (*guard.View[*transfer.Import], app.Importing, error) {
	v, err := s.app.Imports.Get(ctx, c, u)
	if err != nil {
		return nil, nil, err
	}
	m, err := s.app.Importer(ctx, c, v.Value.RecordType, app.ImportOptions{})
	return &v, m, err
}

// own tells whether the caller may go on with an import or undo it.
func (s *Server) own(r *request, j *transfer.Import) (bool, error) {
	ok, _, err := s.app.Imports.May(r.Context(), r.caller(), authz.Update, j)
	return ok, err
}

var errEnough = errors.New("enough")

// firstRows takes the first rows of what an import keeps.
func firstRows[R any](of func(func(R) error) error) ([]R, error) {
	var out []R
	err := of(func(x R) error {
		if len(out) == shownRows {
			return errEnough
		}
		out = append(out, x)
		return nil
	})
	if errors.Is(err, errEnough) || guard.Denied(err) { // of somebody else's import there are the counts
		err = nil
	}
	return out, err
}

func (k *importKind) showImport(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	ctx, c, s := r.Context(), r.caller(), k.s
	v, err := s.app.Imports.Get(ctx, c, u)
	if err != nil {
		return err
	}
	j := v.Value
	base := "/imports/" + u.String()
	state := s.importState(j)
	d := &page.Detail{Title: importName(&v), Badge: &state, Version: j.Version, Subtitle: []page.Text{page.T("type." + j.RecordType + ".many")}}
	if e := s.names.get(j.Owner.UUID()); e != nil {
		d.Subtitle = append(d.Subtitle, page.T("detail.owner", page.Plain(e.Name.Expose())))
	}
	work, here := s.app.ImportWork(u)
	mine, err := s.own(r, j)
	if err != nil {
		return err
	}
	busy := work.Running || work.Waiting
	switch {
	case busy && j.State == transfer.Running:
		d.Progress = working(w, page.T("imports.running"), j.Position, work.Total, work.Started)
	case busy:
		d.Progress = working(w, page.T("imports.undoing"), j.UndoneTo, j.Position, work.Started)
	case j.State == transfer.Running || j.State == transfer.Undoing:
		word := "ended"
		if here && work.Err != nil {
			_, word = importFault(work.Err)
			word = cmpOr(word, faultWord(work.Err))
		}
		d.Notice = page.T("imports.fault." + word)
		if j.State == transfer.Running && !s.app.HasImportFile(u) {
			d.Notice = page.T("imports.fault.elsewhere", j.ID.String())
		} else if mine {
			d.Moves = append(d.Moves, page.Action{Label: page.T("imports.continue"), Href: base + "/continue", Post: true})
		}
	}
	if mine && !busy && j.State != transfer.Undone && j.State != transfer.Undoing {
		d.Moves = append(d.Moves, page.Action{Label: page.T("imports.undo"), Href: base + "/undo", Tone: page.Danger})
	}
	counts := page.Section{Title: page.T("imports.counts"), Note: page.T("detail.edited", j.UpdatedAt), Rows: countFacts(j.Counts())}
	if j.State == transfer.Undoing || j.State == transfer.Undone {
		for name, n := range map[string]int64{"undone": j.Undone, "left": j.Left} {
			counts.Rows = append(counts.Rows, page.Fact{Label: page.T("imports.count." + name), Cell: page.Cell{Kind: page.KindNumber, Amount: n}})
		}
		slices.SortFunc(counts.Rows[len(counts.Rows)-2:], func(a, b page.Fact) int { return strings.Compare(b.Label.Key, a.Label.Key) })
		if j.Left > 0 && j.State == transfer.Undone {
			d.Notice = page.T("imports.left", j.Left)
		}
	}
	how := page.Section{Title: page.T("imports.how"), Rows: []page.Fact{{Label: page.T("imports.of.mode"), Cell: page.Cell{Key: "imports.mode." + string(j.Mode)}}}}
	if m, ok := j.Means(); ok {
		if m.Key != "" {
			how.Rows = append(how.Rows, page.Fact{Label: page.T("imports.of.key"), Cell: page.Cell{Key: fieldLabel(j.RecordType, m.Key).Key}})
		}
		columns := page.Cell{Kind: page.KindList}
		for _, f := range m.Fields() {
			columns.Items = append(columns.Items, fieldLabel(j.RecordType, f))
		}
		how.Rows = append(how.Rows, page.Fact{Label: page.T("imports.columns"), Cell: columns}, page.Fact{Label: page.T("imports.ignored_columns"), Cell: page.Cell{Kind: page.KindNumber, Amount: int64(len(m.Ignored()))}})
	}
	d.Sections = []page.Section{counts, how}
	if reasons := reasonFacts(j.RecordType, j.ByReason()); len(reasons) > 0 {
		d.Sections = append(d.Sections, page.Section{Title: page.T("imports.why"), Rows: reasons})
	}
	if j.Rejected+j.Matched+j.Erased > 0 {
		if err := s.importRows(r, d, &v, base); err != nil {
			return err
		}
	}
	return s.show(w, r, http.StatusOK, page.T("imports.title"), d)
}

// importRows lists the rows that an import keeps.
func (s *Server) importRows(r *request, d *page.Detail, v *guard.View[*transfer.Import], base string) error {
	ctx, c, j := r.Context(), r.caller(), v.Value
	m, err := s.app.Importer(ctx, c, j.RecordType, app.ImportOptions{})
	if err != nil {
		return err
	}
	rejected, err := firstRows(func(each func(transfer.Rejected) error) error { return m.Rejected(ctx, c, j.ID, each) })
	if err != nil {
		return err
	}
	if len(rejected) > 0 {
		d.Secondary = append(d.Secondary, page.Action{Label: page.T("imports.download"), Href: base + "/rejected.csv"})
		d.Lists = append(d.Lists, rejectedList(j.RecordType, rejected, j.Rejected))
	}
	matched, err := firstRows(func(each func(transfer.Matched) error) error { return m.Matched(ctx, c, j.ID, each) })
	if err != nil {
		return err
	}
	if len(matched) > 0 {
		d.Lists = append(d.Lists, matchedList(matched, j.Matched))
	}
	erased, err := firstRows(func(each func(transfer.Erased) error) error { return m.Erased(ctx, c, j.ID, each) })
	if err != nil {
		return err
	}
	if len(erased) > 0 {
		d.Lists = append(d.Lists, erasedList(erased, j.Erased))
	}
	return nil
}

func (s *Server) continueImport(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	if err := s.app.ContinueImport(r.Context(), r.caller(), u); err != nil {
		return err
	}
	http.Redirect(w, r.Request, "/imports/"+u.String(), http.StatusSeeOther)
	return nil
}

// askUndo says what an undo does before it is done.
func (k *importKind) askUndo(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	v, err := k.records.Get(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	j := v.Value
	if ok, err := k.s.own(r, j); err != nil || !ok {
		return errors.Join(err, &authz.DeniedError{Controls: []string{"rbac.permit"}})
	}
	f := &page.Form{
		Title: page.T("imports.undo.title"), Action: "/imports/" + u.String() + "/undo", Submit: page.T("imports.undo.do"), Cancel: "/imports/" + u.String(),
		Note:     page.T("imports.undo.note", j.Created, j.Updated),
		Sections: []page.FormSection{{Fields: []page.Field{{Name: "sure", Kind: page.FieldCheckbox, Label: page.T("imports.undo.sure"), Required: true}}}},
	}
	status := http.StatusOK
	if r.FormValue("again") != "" {
		status, f.Errors = http.StatusUnprocessableEntity, []page.Text{page.T("imports.undo.unsure")}
	}
	return k.s.show(w, r, status, f.Title, f)
}

func (s *Server) undoImport(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	if r.PostFormValue("sure") != "on" {
		http.Redirect(w, r.Request, "/imports/"+u.String()+"/undo?again=1", http.StatusSeeOther)
		return nil
	}
	if err := s.app.UndoImport(r.Context(), r.caller(), u); err != nil {
		return err
	}
	http.Redirect(w, r.Request, "/imports/"+u.String(), http.StatusSeeOther)
	return nil
}

// rejectedRows is the file of the rows that were not stored: the line, the reasons, and the cells as they were, so that it can be put right and imported.
func (s *Server) rejectedRows(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	ctx, c := r.Context(), r.caller()
	v, m, err := s.importOf(ctx, c, u)
	if err != nil {
		return err
	}
	mapping, ok := v.Value.Means()
	if !ok {
		return crm.ErrNotFound
	}
	head := []string{s.pages.Say(r.lang, page.T("imports.line")), s.pages.Say(r.lang, page.T("imports.reasons"))}
	for _, col := range mapping.Columns {
		head = append(head, col.Header)
	}
	out := csv.NewWriter(w)
	out.UseCRLF = true
	begun := false
	control := http.NewResponseController(w)
	write := func(cells []string) error {
		if !begun {
			begun = true
			h := w.Header()
			h.Set("Content-Type", "text/csv; charset=utf-8")
			h.Set("Content-Disposition", `attachment; filename="rejected-`+u.String()[24:]+`.csv"`)
			if _, err := io.WriteString(w, "\ufeff"); err != nil { // spreadsheets take it for UTF-8 then
				return err
			}
		}
		_ = control.SetWriteDeadline(time.Now().Add(time.Minute))
		for i := range cells {
			cells[i] = transfer.Harmless(cells[i])
		}
		return out.Write(cells)
	}
	err = m.Rejected(ctx, c, crm.ID[transfer.Import](u), func(x transfer.Rejected) error {
		if !begun {
			if err := write(head); err != nil {
				return err
			}
		}
		var why []string
		for _, reason := range x.Reasons {
			text := s.pages.Say(r.lang, reasonText(v.Value.RecordType, reason))
			if len(reason.Near) > 0 {
				text += " (" + strings.Join(reason.Near, ", ") + "?)"
			}
			why = append(why, text)
		}
		return write(append([]string{fmt.Sprint(x.Line), strings.Join(why, "; ")}, x.Cells...))
	})
	if err == nil && !begun {
		err = write(head)
	}
	if err == nil {
		out.Flush()
		err = out.Error()
	}
	if err != nil && begun {
		panic(http.ErrAbortHandler) // the file must not look complete
	}
	return err
}
