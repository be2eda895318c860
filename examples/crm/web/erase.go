package web

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/privacy"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// erasure registers what is done about erasing people and holding them, beyond listing and reading.
func (s *Server) erasure(mux *http.ServeMux) {
	s.handle(mux, "GET /erasures/find", s.showFindPerson)
	s.handle(mux, "POST /erasures/find", s.findPerson)
	s.handle(mux, "GET /erasures/person", s.showPerson)
	act := func(do func(r *request, u crm.UUID, version int64) error, flash, back string) func(http.ResponseWriter, *request) error {
		return s.wants(session.Erasure, func(w http.ResponseWriter, r *request) error {
			u, version, err := posted(r)
			if err == nil {
				err = do(r, u, version)
			}
			if err != nil {
				return err
			}
			return s.done(w, r, flash, back+u.String(), "")
		})
	}
	s.handle(mux, "POST /erasures/{id}/approve", act(func(r *request, u crm.UUID, version int64) error {
		_, err := s.app.DecideErasure(r.Context(), r.caller(), u, version, privacy.ErasureApproved)
		return err
	}, "approved", "/erasures/"))
	s.handle(mux, "POST /erasures/{id}/refuse", act(func(r *request, u crm.UUID, version int64) error {
		_, err := s.app.DecideErasure(r.Context(), r.caller(), u, version, privacy.ErasureRefused)
		return err
	}, "refused", "/erasures/"))
	s.handle(mux, "POST /erasures/{id}/carry", act(func(r *request, u crm.UUID, _ int64) error {
		_, err := s.app.CarryErasure(r.Context(), r.caller(), u)
		return err
	}, "saved", "/erasures/"))
	s.handle(mux, "GET /holds/{id}/lift", s.showLift)
	s.handle(mux, "POST /holds/{id}/lift", s.wants(session.Erasure, s.lift))
	s.handle(mux, "POST /holds/{id}/approve", act(func(r *request, u crm.UUID, version int64) error {
		return s.app.Holds.DecideLift(r.Context(), r.caller(), u, version, privacy.HoldLifted)
	}, "approved", "/holds/"))
	s.handle(mux, "POST /holds/{id}/refuse", act(func(r *request, u crm.UUID, version int64) error {
		return s.app.Holds.DecideLift(r.Context(), r.caller(), u, version, privacy.HoldActive)
	}, "refused", "/holds/"))
}

// erasureKinds describes the registers of erasures and of legal holds.
func (s *Server) erasureKinds() []kind {
	a := s.app
	view := func(name string) field { return field{name: name, kind: noInput} }
	found := func(r *http.Request) (string, crm.UUID) {
		u, _ := crm.ParseUUID(r.FormValue("record"))
		return r.FormValue("type"), u
	}

	erasures := resourceOf(a.Erasures, "erasures", "")
	erasures.governs, erasures.badge, erasures.ofCustomer, erasures.proof, erasures.fixed = true, "state", true, session.Erasure, true
	erasures.list = []string{"record_type", "record", "owner", "state", "created_at", "due_at"}
	erasures.sections = []section{{"main", []field{
		{name: "record_type", kind: page.FieldHidden, create: true}, {name: "record", kind: page.FieldHidden, create: true},
		{name: "reason", kind: page.FieldTextarea, wide: true, required: true},
		view("owner"), view("approver"), view("decided_at"),
	}}, {"receipt", []field{
		view("persons"), view("records"), view("marks"), view("keys"), view("number"), view("event"), view("last_event"), view("carried_at"), view("due_at"), view("ended_at"), view("gone_by"),
	}}}
	erasures.prepare = func(v *privacy.Erasure, r *http.Request) []error {
		v.State = privacy.ErasureRequested
		v.RecordType, v.Record = found(r)
		return nil
	}
	erasures.store = func(r *request, v *privacy.Erasure) error { return a.RequestErasure(r.Context(), r.caller(), v) }
	erasures.acts = func(r *request, v *guard.View[*privacy.Erasure], base string) []page.Action {
		e := v.Value
		switch e.State {
		case privacy.ErasureRequested:
			if ok, _, err := a.Erasures.May(r.Context(), r.caller(), authz.Approve, e); err == nil && ok {
				return []page.Action{
					{Label: page.T("erase.approve"), Href: base + "/approve", Post: true, Tone: page.Danger},
					{Label: page.T("act.refuse"), Href: base + "/refuse", Post: true},
				}
			}
		case privacy.ErasureApproved, privacy.ErasureBlocked:
			waits := e.State == privacy.ErasureBlocked && time.Now().Before(e.DueAt) // the daily run ends it
			if ok, _, err := a.Erasures.MayOwn(r.Context(), r.caller(), authz.Create); err == nil && ok && !waits && e.Due(time.Now()) == nil {
				return []page.Action{{Label: page.T("erase.carry"), Href: base + "/carry", Post: true}}
			}
		}
		return nil
	}
	erasures.detail = func(r *request, d *page.Detail, v *guard.View[*privacy.Erasure], _ string) error {
		e := v.Value
		s.linkRecord(r, d, e.RecordType, e.Record)
		if e.CarriedAt.IsZero() {
			d.Sections = d.Sections[:1] // there is no receipt yet
		}
		switch e.State {
		case privacy.ErasureRequested:
			d.Notice = page.T("erase.requested")
		case privacy.ErasureApproved:
			d.Notice = page.T("erase.approved")
		case privacy.ErasureBlocked:
			d.Notice = page.T("erase.blocked", e.DueAt)
		case privacy.ErasureDestroyed:
			d.Notice = page.T("erase.destroyed")
		}
		if !e.Open() || !s.may(r, authz.Read, "person") {
			return nil
		}
		p, holds, err := a.ErasureProspect(r.Context(), r.caller(), e)
		if err != nil {
			return err
		}
		if e.State == privacy.ErasureBlocked && p.Refusal == nil {
			return nil // it is erased already, and nothing keeps the keys
		}
		return s.addProspect(r, d, p, holds)
	}

	holds := resourceOf(a.Holds.Records(), "holds", "")
	holds.governs, holds.badge, holds.ofCustomer, holds.proof, holds.fixed = true, "state", true, session.Erasure, true
	holds.list = []string{"record_type", "record", "owner", "state", "created_at", "lifted_at"}
	holds.sections = []section{{"main", []field{
		{name: "record_type", kind: page.FieldHidden, create: true}, {name: "record", kind: page.FieldHidden, create: true},
		{name: "reason", kind: page.FieldTextarea, wide: true, required: true, create: true},
		view("owner"), view("lift_reason"), view("asked_by"), view("asked_at"), view("lifted_by"), view("lifted_at"),
	}}}
	holds.prepare = func(v *privacy.Hold, r *http.Request) []error {
		v.State = privacy.HoldActive
		v.RecordType, v.Record = found(r)
		return nil
	}
	holds.store = func(r *request, v *privacy.Hold) error { return a.PutHold(r.Context(), r.caller(), v) }
	holds.acts = func(r *request, v *guard.View[*privacy.Hold], base string) []page.Action {
		h := v.Value
		switch h.State {
		case privacy.HoldActive:
			if ok, _, err := a.Holds.Records().May(r.Context(), r.caller(), authz.Update, h); err == nil && ok {
				return []page.Action{{Label: page.T("hold.lift"), Href: base + "/lift"}}
			}
		case privacy.HoldLifting:
			if ok, _, err := a.Holds.Records().May(r.Context(), r.caller(), authz.Approve, h); err == nil && ok {
				return []page.Action{
					{Label: page.T("hold.approve"), Href: base + "/approve", Post: true, Tone: page.Danger},
					{Label: page.T("hold.keep"), Href: base + "/refuse", Post: true},
				}
			}
		}
		return nil
	}
	holds.detail = func(r *request, d *page.Detail, v *guard.View[*privacy.Hold], _ string) error {
		s.linkRecord(r, d, v.Value.RecordType, v.Value.Record)
		d.Notice = page.T("hold.notice." + string(v.Value.State))
		return nil
	}
	return []kind{erasures, holds}
}

// linkRecord puts the name of the record by which somebody was found above the facts, as far as the reader may see it.
func (s *Server) linkRecord(r *request, d *page.Detail, typ string, u crm.UUID) {
	if len(d.Sections) == 0 || len(d.Sections[0].Rows) < 2 {
		return
	}
	rows := d.Sections[0].Rows
	if k := s.kind(typ); k != nil {
		if cells, err := k.titles(r, []crm.UUID{u}); err == nil {
			if c, ok := cells[u]; ok {
				rows[1].Cell = c
			}
		}
	}
}

// addProspect shows what an erasure is about and what stands in its way.
func (s *Server) addProspect(r *request, d *page.Detail, p guard.Prospect, holds []*privacy.Hold) error {
	l := page.List{ID: "prospect", Title: page.T("erase.prospect"), Count: -1, Empty: page.Empty{Text: page.T("erase.nothing")},
		Columns: []page.Column{{Label: page.T("field.record_type")}, {Label: page.T("erase.records"), Kind: page.KindNumber}}}
	for _, typ := range p.Types() {
		l.Rows = append(l.Rows, page.Row{Cells: []page.Cell{{Key: "type." + typ}, {Kind: page.KindNumber, Amount: int64(p.Records[typ])}}})
	}
	facts := page.Panel{Title: page.T("erase.state"), Facts: []page.Fact{{Label: page.T("field.erasure.persons"), Cell: page.Cell{Kind: page.KindNumber, Amount: int64(len(p.Persons))}}}}
	switch {
	case errors.Is(p.Refusal, encrypt.ErrHeld):
		facts.Note = page.T("erase.held")
	case errors.Is(p.Refusal, encrypt.ErrLimit):
		facts.Note = page.T("erase.limit")
	default:
		facts.Note = page.T("erase.free")
	}
	d.Panels = append(d.Panels, facts)
	d.Lists = append(d.Lists, l)
	if len(holds) == 0 {
		return nil
	}
	h := page.List{ID: "holds", Title: page.T("type.hold.many"), Count: int64(len(holds)), Columns: []page.Column{
		{Label: page.T("field.state")}, {Label: page.T("field.hold.owner")}, {Label: page.T("field.created_at")},
	}}
	visible := s.kind(crm.TypeHold).visible(r)
	for _, x := range holds {
		row := page.Row{Cells: []page.Cell{{Kind: page.KindBadge, Key: "state.hold." + string(x.State), Tone: tone(string(x.State))}, {Text: s.actor(x.Owner.String())}, {Kind: page.KindTime, Time: x.CreatedAt}}}
		if visible {
			row.Href = "/holds/" + x.ID.String()
		}
		h.Rows = append(h.Rows, row)
	}
	d.Lists = append(d.Lists, h)
	return nil
}

// mayErase refuses who may not even look what an erasure would be about.
func (s *Server) mayErase(r *request) error {
	if s.may(r, authz.Read, "person") {
		return nil
	}
	return s.app.Guard.Authorize(r.Context(), r.caller(), authz.Read, "person") // which logs the refusal
}

func (s *Server) showFindPerson(w http.ResponseWriter, r *request) error {
	if err := s.mayErase(r); err != nil {
		return err
	}
	return s.findPage(w, r, "", nil)
}

// findPage asks by what somebody is found, and shows the records that were. The term is posted, so that it is in no address and no history.
func (s *Server) findPage(w http.ResponseWriter, r *request, term string, found *page.List) error {
	f := &page.Form{
		Title: page.T("erase.find"), Action: "/erasures/find", Submit: page.T("nav.search"), Cancel: "/erasures", Note: page.T("erase.find.note"), Found: found,
		Sections: []page.FormSection{{Fields: []page.Field{{Name: "q", Kind: page.FieldText, Label: page.T("erase.term"), Value: term, Required: true}}}},
	}
	return s.show(w, r, http.StatusOK, f.Title, f)
}

// hits finds records by a complete phone number, e-mail address or name, or by the id of one.
func (k *resource[P]) hits(r *request, term string) ([]crm.UUID, error) {
	if u, err := crm.ParseUUID(term); err == nil {
		return []crm.UUID{u}, nil
	}
	if len(k.searchable) == 0 {
		return nil, nil
	}
	if ok, _, err := k.records.MayOwn(r.Context(), r.caller(), authz.Search); !ok || err != nil {
		return nil, err
	}
	p, err := k.records.Search(r.Context(), r.caller(), term, 50, k.searchable...)
	if errors.Is(err, guard.ErrBroad) {
		return nil, nil
	}
	var out []crm.UUID
	for _, v := range p.Items {
		out = append(out, v.Value.Header().ID)
	}
	return out, err
}

// person is a record by which somebody was found.
type person struct {
	typ   string
	id    crm.UUID
	title page.Cell
}

// persons finds people by what identifies them, through the door and as the caller may see them.
func (s *Server) persons(r *request, term string) ([]person, error) {
	var out []person
	for _, typ := range app.EraseTypes {
		k := s.kind(typ)
		ids, err := k.(interface {
			hits(*request, string) ([]crm.UUID, error)
		}).hits(r, term)
		if err != nil {
			return nil, err
		}
		cells, err := k.titles(r, ids)
		if err != nil {
			return nil, err
		}
		for _, u := range ids {
			if c, ok := cells[u]; ok {
				out = append(out, person{typ, u, c})
			}
		}
	}
	return out, nil
}

func (s *Server) findPerson(w http.ResponseWriter, r *request) error {
	if err := s.mayErase(r); err != nil {
		return err
	}
	term := strings.TrimSpace(r.PostFormValue("q"))
	if term == "" || len(term) > 200 {
		return errBadRequest
	}
	found, err := s.persons(r, term)
	if err != nil {
		return err
	}
	l := &page.List{ID: "found", Title: page.T("erase.found"), Count: int64(len(found)), Empty: page.Empty{Text: page.T("erase.nobody")},
		Columns: []page.Column{{Label: page.T("field.record_type")}, {Label: page.T("field.name")}}}
	for _, p := range found {
		l.Rows = append(l.Rows, page.Row{Href: personHref(p.typ, p.id), Cells: []page.Cell{{Key: "type." + p.typ, Strong: true}, p.title}})
	}
	return s.findPage(w, r, "", l)
}

func personHref(typ string, u crm.UUID) string {
	return "/erasures/person?type=" + typ + "&record=" + u.String()
}

// showPerson shows what erasing the person of a record would be about: the dry run.
func (s *Server) showPerson(w http.ResponseWriter, r *request) error {
	if err := s.mayErase(r); err != nil {
		return err
	}
	typ := r.FormValue("type")
	u, err := crm.ParseUUID(r.FormValue("record"))
	if err != nil || !slices.Contains(app.EraseTypes, typ) {
		return crm.ErrNotFound
	}
	p, holds, err := s.app.WouldErase(r.Context(), r.caller(), typ, u)
	if err != nil {
		return err
	}
	cells, err := s.kind(typ).titles(r, []crm.UUID{u})
	if err != nil {
		return err
	}
	title, ok := cells[u]
	if !ok {
		title = page.Cell{Key: "type." + typ, Strong: true}
	}
	d := &page.Detail{Title: title, Subtitle: []page.Text{page.T("type." + typ)}, Notice: page.T("erase.dry")}
	if err := s.addProspect(r, d, p, holds); err != nil {
		return err
	}
	suffix := "?type=" + typ + "&record=" + u.String()
	if ok, _, err := s.app.Erasures.MayOwn(r.Context(), r.caller(), authz.Create); err == nil && ok {
		d.Primary = &page.Action{Label: page.T("act.new.erasure"), Href: "/erasures/new" + suffix}
	}
	if ok, _, err := s.app.Holds.Records().MayOwn(r.Context(), r.caller(), authz.Create); err == nil && ok {
		d.Secondary = append(d.Secondary, page.Action{Label: page.T("act.new.hold"), Href: "/holds/new" + suffix})
	}
	d.Secondary = append(d.Secondary, page.Action{Label: page.T("erase.find"), Href: "/erasures/find"})
	return s.show(w, r, http.StatusOK, page.T("erase.prospect"), d)
}

// liftable reads a hold for which the caller may ask the end.
func (s *Server) liftable(ctx context.Context, c guard.Caller, u crm.UUID) (*privacy.Hold, error) {
	v, err := s.app.Holds.Records().Get(ctx, c, u)
	if err != nil {
		return nil, err
	}
	if ok, _, err := s.app.Holds.Records().May(ctx, c, authz.Update, v.Value); err != nil || !ok {
		return nil, errors.Join(&authz.DeniedError{Controls: []string{"access.granted"}}, err)
	}
	return v.Value, nil
}

func (s *Server) showLift(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	h, err := s.liftable(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	return s.liftPage(w, r, http.StatusOK, h)
}

func (s *Server) liftPage(w http.ResponseWriter, r *request, status int, h *privacy.Hold, errs ...page.Text) error {
	base := "/holds/" + h.ID.String()
	f := &page.Form{
		Title: page.T("hold.lift"), Action: base + "/lift", Submit: page.T("hold.lift"), Cancel: base, Note: page.T("hold.lift.note"), Version: h.Version,
		Sections: []page.FormSection{{Fields: []page.Field{{Name: "reason", Kind: page.FieldTextarea, Label: page.T("field.hold.lift_reason"), Required: true, Wide: true, Errors: errs}}}},
	}
	return s.show(w, r, status, f.Title, f)
}

func (s *Server) lift(w http.ResponseWriter, r *request) error {
	u, version, err := posted(r)
	if err != nil {
		return err
	}
	err = s.app.Holds.AskLift(r.Context(), r.caller(), u, version, crm.NewText(strings.TrimSpace(r.PostFormValue("reason"))))
	var invalid *crm.InvalidError
	if errors.As(err, &invalid) && len(invalid.Fields) > 0 {
		h, err := s.liftable(r.Context(), r.caller(), u)
		if err != nil {
			return err
		}
		return s.liftPage(w, r, http.StatusUnprocessableEntity, h, page.T("rule."+invalid.Fields[0].Rule))
	}
	if err != nil {
		return err
	}
	return s.done(w, r, "saved", "/holds/"+u.String(), "")
}

// erasureFault says why an erasure is refused: its word for programs and its text for people.
func erasureFault(err error) (reason string, what page.Text) {
	switch {
	case errors.Is(err, encrypt.ErrHeld):
		return "held", page.T("erase.held")
	case errors.Is(err, encrypt.ErrLimit):
		return "limit", page.T("erase.limit")
	case errors.Is(err, app.ErrErasing):
		return "asked", page.T("erase.asked")
	case errors.Is(err, app.ErrSecond):
		return "second", page.T("erase.second")
	}
	return "", page.Text{}
}
