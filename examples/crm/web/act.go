package web

import (
	"context"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/trash"
	"github.com/crmguard/crmguard/encrypt/normalize"
	"github.com/crmguard/crmguard/examples/crm/page"
)

func (k *resource[P]) create(s *Server, w http.ResponseWriter, r *request) error {
	v := k.records.New()
	if k.prepare != nil {
		k.prepare(v, r.Request)
	}
	err := k.read(r, v, true)
	if err == nil {
		if err = s.inherit(r, any(v)); err != nil {
			return err
		}
		if err = k.exists(r.Context(), s, r.caller(), v, r.PostFormValue("anyway") != ""); err != nil {
			// told below
		} else if k.store != nil {
			err = k.store(r, v)
		} else {
			_, err = k.records.Create(r.Context(), r.caller(), v)
		}
		if err == nil {
			return s.done(w, r, "created", "/"+k.plural+"/"+v.Header().ID.String(), k.typ)
		}
	}
	_, fields, mayErr := k.records.MayOwn(r.Context(), r.caller(), authz.Create)
	if mayErr != nil {
		return mayErr
	}
	return k.form(s, w, r, statusOf(err), v, nil, fields, "/"+k.plural, err)
}

// done sends the browser to the record. Employees' rights may have changed, so the directory is read anew.
func (s *Server) done(w http.ResponseWriter, r *request, flash, to, typ string) error {
	if typ == crm.TypeEmployee {
		if u, err := crm.ParseUUID(path.Base(to)); err == nil {
			if err := s.app.RolesChanged(context.WithoutCancel(r.Context()), u, r.self.ID.String()); err != nil {
				return err
			}
		}
		if err := s.reloadNames(context.WithoutCancel(r.Context())); err != nil {
			return err
		}
	}
	s.setFlash(w, flash)
	http.Redirect(w, r.Request, to, http.StatusSeeOther)
	return nil
}

func (k *resource[P]) update(s *Server, w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	v, err := k.records.Get(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	version, err := strconv.ParseInt(r.FormValue("version"), 10, 64)
	if err != nil {
		return errBadRequest
	}
	if version != v.Value.Header().Version {
		return crm.ErrConflict
	}
	next := k.records.Copy(v.Value)
	if err = k.read(r, next, false); err == nil {
		if e, ok := any(next).(*crm.Employee); ok {
			err = s.adminStays(r, u, e)
		}
	}
	if err == nil && k.dups != nil && k.known(v.Value, next) {
		err = k.exists(r.Context(), s, r.caller(), next, r.PostFormValue("anyway") != "")
	}
	if err == nil {
		if q, ok := any(next).(*crm.Quote); ok {
			_ = q.Compute() // a total that does not fit is told by Validate
			q.DropApproval(any(v.Value).(*crm.Quote))
		}
		if c, ok := any(next).(*crm.Contract); ok && !c.Signatory.IsEmpty() && c.SignatoryPerson.IsZero() {
			c.SignatoryPerson = c.Person // who signs for the customer
		}
		if _, err = k.records.Update(r.Context(), r.caller(), next); err == nil {
			return s.done(w, r, "saved", "/"+k.plural+"/"+u.String(), k.typ)
		}
	}
	_, fields, mayErr := k.records.May(r.Context(), r.caller(), authz.Update, v.Value)
	if mayErr != nil {
		return mayErr
	}
	return k.form(s, w, r, statusOf(err), next, v.Fields, fields, "/"+k.plural+"/"+u.String(), err)
}

// posted reads id and version of an action on one record.
func posted(r *request) (crm.UUID, int64, error) {
	u, err := id(r)
	if err != nil {
		return u, 0, err
	}
	version, err := strconv.ParseInt(r.FormValue("version"), 10, 64)
	if err != nil {
		return u, 0, errBadRequest
	}
	return u, version, nil
}

func (k *resource[P]) remove(s *Server, w http.ResponseWriter, r *request) error {
	u, version, err := posted(r)
	if err != nil {
		return err
	}
	if k.typ == crm.TypeEmployee {
		if err := s.adminStays(r, u, nil); err != nil {
			return err
		}
	}
	if !k.bin {
		if err := k.records.Delete(r.Context(), r.caller(), u, version); err != nil {
			return err
		}
		if k.typ == crm.TypeEmployee { // whose sessions end
			if err := s.app.RolesChanged(context.WithoutCancel(r.Context()), u, r.self.ID.String()); err != nil {
				return err
			}
		}
		return s.done(w, r, "deleted", "/"+k.plural, k.typ)
	}
	gone, err := s.app.Desk.Delete(r.Context(), r.caller(), trash.Ref{Type: k.typ, ID: u}, version)
	if err != nil {
		return err
	}
	return s.done(w, r, with("deleted", len(gone)-1), "/"+k.plural, k.typ)
}

func (k *resource[P]) restore(s *Server, w http.ResponseWriter, r *request) error {
	u, version, err := posted(r)
	if err != nil {
		return err
	}
	to := "/" + k.plural + "/" + u.String()
	if !k.bin {
		if err := k.records.Restore(r.Context(), r.caller(), u, version); err != nil {
			return err
		}
		return s.done(w, r, "restored", to, k.typ)
	}
	back, err := s.app.Desk.Restore(r.Context(), r.caller(), trash.Ref{Type: k.typ, ID: u}, version)
	if err != nil {
		return err
	}
	return s.done(w, r, with("restored", len(back)-1), to, k.typ)
}

// with is what the next page says when something else was deleted or restored with a record.
func with(flash string, others int) string {
	if others == 0 {
		return flash
	}
	return flash + "_with." + strconv.Itoa(others)
}

func (k *resource[P]) changeState(s *Server, w http.ResponseWriter, r *request) error {
	u, version, err := posted(r)
	if err != nil {
		return err
	}
	if k.move == nil {
		return crm.ErrNotFound
	}
	v, err := k.records.Get(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	if version != v.Value.Header().Version {
		return crm.ErrConflict
	}
	to := r.FormValue("to")
	switch {
	case k.typ == crm.TypeLead && to == string(crm.LeadConverted):
		return s.convert(w, r, u, version)
	case k.typ == crm.TypeQuote && to == string(crm.QuoteSent):
		return s.sendQuote(w, r, u, version)
	case k.typ == crm.TypeContract && to == string(crm.ContractApproved):
		return s.approveContract(w, r, u, version)
	case k.typ == crm.TypeContract && to == string(crm.ContractTerminated):
		return s.terminateContract(w, r, u, version)
	case slices.Contains(byDesk[k.typ], to):
		return errBadRequest // it takes more than a state
	}
	if e, ok := any(v.Value).(*crm.Employee); ok {
		next := *e
		if err := next.Move(crm.EmployeeState(to), time.Now()); err != nil {
			return err
		}
		if err := s.adminStays(r, u, &next); err != nil {
			return err
		}
	}
	// An act: the times of a state are for nobody to set.
	if err := k.records.Act(r.Context(), r.caller(), authz.Update, u, version, func(v P) error { return k.move(v, to, time.Now()) }); err != nil {
		return err
	}
	return s.done(w, r, "saved", "/"+k.plural+"/"+u.String(), k.typ)
}

// revealPage is what a reveal shows before and after.
func (k *resource[P]) revealPage(r *request, u crm.UUID, name string) *page.Reveal {
	base := "/" + k.plural + "/" + u.String()
	return &page.Reveal{Label: k.label(name), Action: base + "/reveal/" + name, Back: base}
}

func (k *resource[P]) showReveal(s *Server, w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	name := r.PathValue("field")
	if f, ok := k.byName[name]; !ok || f.Clear {
		return crm.ErrNotFound
	}
	v, err := k.records.Get(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	p := k.revealPage(r, u, name)
	p.Record = k.titleCell(&v).Text
	p.Mask = k.cell(&v, name, nil, &s.names).Text
	return s.revealAnswer(w, r, http.StatusOK, p)
}

func (k *resource[P]) reveal(s *Server, w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	name := r.PathValue("field")
	if f, ok := k.byName[name]; !ok || f.Clear {
		return crm.ErrNotFound
	}
	p := k.revealPage(r, u, name)
	c := r.caller()
	c.Reason = strings.TrimSpace(r.FormValue("reason"))
	if c.Reason == "" || len(c.Reason) > 500 {
		p.Error = page.T("reveal.reason.required")
		return s.revealAnswer(w, r, http.StatusUnprocessableEntity, p)
	}
	v, err := k.records.Reveal(r.Context(), c, u, name)
	if err != nil {
		return err
	}
	plain := v.Value
	text, _ := k.value(plain, name).Interface().(crm.Text)
	p.Value = &page.Value{Text: text.Expose(), Again: p.Action, Event: v.Event}
	if mask := normalize.Masks()[k.byName[name].Mask]; mask != nil {
		p.Value.Mask = mask(text.Expose())
	}
	if ok := s.mayReadLog(r); ok {
		p.Value.LogHref = "/log/" + strconv.FormatUint(v.Event, 10)
	}
	return s.revealAnswer(w, r, http.StatusOK, p)
}

func (s *Server) revealAnswer(w http.ResponseWriter, r *request, status int, p *page.Reveal) error {
	if r.Header.Get("HX-Request") != "" {
		return s.fragmentStatus(w, r, status, p)
	}
	return s.show(w, r, status, page.T("reveal.title", p.Label), p)
}

func (s *Server) fragment(w http.ResponseWriter, r *request, content any) error {
	return s.fragmentStatus(w, r, http.StatusOK, content)
}

func (s *Server) fragmentStatus(w http.ResponseWriter, r *request, status int, content any) error {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Add("Vary", "HX-Request")
	if status != http.StatusOK {
		w.WriteHeader(status)
	}
	return s.pages.Fragment(w, r.lang, content)
}
