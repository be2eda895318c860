package web

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

func (k *resource[P]) showDetail(s *Server, w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	v, err := k.records.Get(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	var all []string
	for _, sec := range k.sections {
		for _, f := range sec.fields {
			all = append(all, f.name)
		}
	}
	refs, err := k.references(s, r, []guard.View[P]{v}, all)
	if err != nil {
		return err
	}
	h := v.Value.Header()
	base := "/" + k.plural + "/" + u.String()
	d := &page.Detail{Title: k.titleCell(&v), Version: h.Version}
	if k.badge != "" {
		c := k.cell(&v, k.badge, refs, &s.names)
		d.Badge = &c
	}
	if e := s.names.get(h.Owner); e != nil {
		d.Subtitle = append(d.Subtitle, page.T("detail.owner", page.Plain(e.Name.Expose())))
	}
	if h.Team != "" {
		d.Subtitle = append(d.Subtitle, page.T("detail.team", page.Plain(strings.Trim(h.Team, "/"))))
	}
	for i, sec := range k.sections {
		out := page.Section{Title: page.T("section." + sec.title)}
		if i == 0 {
			out.Note = page.T("detail.edited", h.UpdatedAt)
		}
		for _, f := range sec.fields {
			if f.formOnly {
				continue
			}
			out.Rows = append(out.Rows, page.Fact{Label: k.label(f.name), Cell: k.cell(&v, f.name, refs, &s.names)})
		}
		d.Sections = append(d.Sections, out)
	}
	if q, ok := any(v.Value).(*crm.Quote); ok {
		d.Lists = append(d.Lists, quoteLines(q))
	}
	if err := k.actions(s, r, d, &v, base); err != nil {
		return err
	}
	if err := k.parts(s, r, d, &v, base); err != nil {
		return err
	}
	k.why(d, &v)
	if d.Timeline, err = k.timeline(s, r, u); err != nil {
		return err
	}
	if k.detail != nil {
		if err := k.detail(r, d, &v, base); err != nil {
			return err
		}
	}
	if err := k.held(s, r, d, &v, base); err != nil {
		return err
	}
	person := h.Person.String()
	if person != "" {
		person = person[:8]
	}
	d.Protection = []page.Fact{
		{Label: page.T("protection.row"), Cell: page.Cell{Key: "protection.verified"}},
		{Label: page.T("protection.person"), Cell: page.Cell{Kind: page.KindMono, Text: person}},
		{Label: page.T("protection.log"), Cell: page.Cell{Key: "", Text: "#" + strconv.FormatUint(v.Event, 10)}},
		{Label: page.T("field.version"), Cell: page.Cell{Kind: page.KindNumber, Amount: h.Version}},
	}
	return s.show(w, r, http.StatusOK, page.T("type."+k.typ), d)
}

// actions offers what the caller may do with the record.
func (k *resource[P]) actions(s *Server, r *request, d *page.Detail, v *guard.View[P], base string) error {
	may := func(a authz.Action) (bool, error) {
		ok, _, err := k.records.May(r.Context(), r.caller(), a, v.Value)
		return ok, err
	}
	h := v.Value.Header()
	if h.Deleted {
		d.Notice = page.T("detail.deleted")
		if at, ok := s.app.Desk.PurgeAt(h); ok && k.bin {
			d.Notice = page.T("detail.deleted_until", at)
		}
		ok, err := may(authz.Restore)
		if ok {
			d.Moves = append(d.Moves, page.Action{Label: page.T("act.restore"), Href: base + "/restore", Post: true})
		}
		return err
	}
	if k.acts != nil {
		d.Moves = append(d.Moves, k.acts(r, v, base)...)
	}
	if !k.governs {
		ok, err := may(authz.Share)
		if err != nil {
			return err
		}
		if ok {
			d.Secondary = append(d.Secondary, page.Action{Label: page.T("act.share"), Href: "/sharings/new?type=" + k.typ + "&record=" + h.ID.String()})
		}
	}
	if slices.Contains(app.EraseTypes, k.typ) && s.may(r, authz.Read, "person") {
		d.Secondary = append(d.Secondary, page.Action{Label: page.T("erase.prospect"), Href: personHref(k.typ, h.ID)})
	}
	if k.dups != nil {
		ok, err := may(authz.Merge)
		if err != nil {
			return err
		}
		if ok {
			d.Secondary = append(d.Secondary, page.Action{Label: page.T("dup.nav"), Href: base + "/duplicates"})
		}
	}
	update, err := may(authz.Update)
	if err != nil {
		return err
	}
	if update {
		if !k.fixed {
			d.Edit = base + "/edit"
		}
		if k.moves != nil {
			for _, to := range k.moves(v.Value) {
				d.Moves = append(d.Moves, page.Action{
					Label: page.T("move." + to), Href: base + "/move", Post: true, Inputs: []page.Input{{Name: "to", Value: to}},
				})
			}
		}
	}
	remove, err := may(authz.Delete)
	if remove {
		d.Moves = append(d.Moves, page.Action{Label: page.T("act." + cmp.Or(k.ends, "delete")), Href: base + "/delete", Post: true, Tone: page.Danger})
	}
	return err
}

// madeHere are the types of which one is made from the page of the record that it belongs to.
var madeHere = []string{crm.TypeOpportunity, crm.TypeQuote, crm.TypeFollowUp, crm.TypeTicket, crm.TypeContact, crm.TypeReceipt}

// parts adds what belongs to a record.
func (k *resource[P]) parts(s *Server, r *request, d *page.Detail, v *guard.View[P], base string) error {
	if len(k.tabs) == 0 {
		return nil
	}
	u := v.Value.Header().ID
	for _, typ := range k.tabs {
		other := s.kind(typ)
		l, err := other.related(r, s, cmp.Or(k.belongs, "customer"), u, 5)
		if err != nil {
			return err
		}
		if l == nil {
			continue
		}
		l.ID = "part-" + strings.ReplaceAll(typ, "_", "-")
		if len(l.Rows) > 0 {
			d.Lists = append(d.Lists, *l)
		}
		if slices.Contains(madeHere, typ) && other.makes(r) {
			d.Secondary = append(d.Secondary, page.Action{
				Label: page.T("act.new." + typ), Href: "/" + other.path() + "/new?" + k.typ + "=" + u.String(),
			})
		}
	}
	return nil
}

// why says which controls opened the record and which fields are masked or hidden.
func (k *resource[P]) why(d *page.Detail, v *guard.View[P]) {
	typ := page.T("type." + k.typ)
	for _, c := range v.Controls {
		if strings.HasPrefix(c, "rbac.") || c == "share" || c == "delegation" || c == "emergency" {
			d.Why = append(d.Why, page.Reason{Text: page.T("why."+c, typ), Control: c, Tone: page.Accent})
		}
	}
	for _, f := range k.records.Fields() {
		if f.Clear || !k.shown(f.Name) {
			continue
		}
		switch v.Fields[f.Name] {
		case authz.Masked:
			d.Why = append(d.Why, page.Reason{Text: page.T("why.masked", k.label(f.Name)), Control: "field." + string(f.Class)})
		case authz.Hidden:
			d.Why = append(d.Why, page.Reason{Text: page.T("why.hidden", k.label(f.Name)), Control: "field." + string(f.Class)})
		}
	}
}

func (k *resource[P]) shown(name string) bool {
	for _, sec := range k.sections {
		if slices.ContainsFunc(sec.fields, func(f field) bool { return f.name == name }) {
			return true
		}
	}
	return false
}

// timeline shows the newest events of a record.
func (k *resource[P]) timeline(s *Server, r *request, u crm.UUID) ([]page.Entry, error) {
	entries, err := k.records.History(r.Context(), r.caller(), u, 0, 40)
	if err != nil {
		return nil, err
	}
	out := []page.Entry{}
	for _, e := range entries {
		t := page.Entry{Time: e.Event.Time}
		who := page.Plain(s.actor(e.Event.Actor))
		t.Detail = []page.Text{who, page.T("timeline.event", int64(e.Index))}
		typ, action, _ := strings.Cut(e.Event.Action, ".")
		switch {
		case e.Event.Outcome == audit.Denied:
			t.Title, t.Tone = page.T("action.denied"), page.Warning
		case action == "approve" || action == "certify" || action == "share":
			t.Title, t.Tone = page.T("timeline."+action), page.Accent
		case typ == crm.TypeFollowUp && k.typ != crm.TypeFollowUp:
			t.Title, t.Tone = page.T("timeline.followed"), page.Accent
		case action == "create" || action == "import":
			t.Title, t.Tone = page.T("timeline.created"), page.Accent
		case action == "update":
			t.Title, t.Tone = page.T("timeline.updated", page.T("type."+k.typ)), page.Accent
		case handing[action] != "" || action == "recycle" || action == "handover":
			t.Title, t.Tone = page.T("timeline."+action), page.Accent
		case action == "convert" || action == "send" || action == "revise" || action == "accept":
			t.Title, t.Tone = page.T("timeline."+action), page.Accent
		case action == "merge" || action == "unmerge":
			t.Title, t.Tone = page.T("timeline."+action), page.Accent
		case action == "delete":
			t.Title, t.Tone = page.T("timeline.deleted"), page.Danger
		case action == "restore":
			t.Title, t.Tone = page.T("timeline.restored"), page.Accent
		case action == "reveal":
			name := page.Text{}
			if len(e.Event.Fields) == 1 {
				name = k.label(e.Event.Fields[0])
			}
			t.Title = page.T("timeline.revealed", name)
			for _, d := range e.Event.Details {
				if reason, known := d.Value(); known && d.Name == "reason" {
					t.Title = page.T("reveal.timeline", name, page.Plain(reason))
				}
			}
		case action == "read" && e.Event.Actor != r.self.ID.String():
			t.Title = page.T("timeline.read")
		default:
			continue // lists, counts and one's own looking would bury the rest
		}
		if out = append(out, t); len(out) == 12 {
			break
		}
	}
	return out, nil
}

// actor names who acted.
func (s *Server) actor(id string) string {
	if u, err := crm.ParseUUID(id); err == nil {
		if e := s.names.get(u); e != nil {
			return e.Name.Expose()
		}
	}
	return id
}
