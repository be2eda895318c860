package web

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// providerCookie has the secret of a sign-in at the provider. It is Lax: the answer comes by a link from there.
const (
	providerCookie = "crm-provider"
	providerAge    = 10 * time.Minute
)

// signOn registers the sign-in at a provider.
func (s *Server) signOn(mux *http.ServeMux) {
	if s.app.SignOnName() == "" {
		return
	}
	mux.HandleFunc("POST /sign-in/provider", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			s.fail(w, r, badForm(err))
			return
		}
		to, secret, err := s.app.BeginSignOn(r.Context(), local(r.PostFormValue("back")))
		if err == nil {
			err = s.leave(w, r, to, secret)
		}
		if err != nil {
			s.fail(w, r, err)
		}
	})
	s.handle(mux, "POST /step-up/provider", func(w http.ResponseWriter, r *request) error {
		to, secret, err := s.app.BeginSignOnAgain(r.Context(), r.session, local(r.PostFormValue("back")))
		if err != nil {
			return err
		}
		return s.leave(w, r.Request, to, secret)
	})
	mux.HandleFunc("GET "+app.CallbackPath, s.signedOn)
	mux.HandleFunc("POST "+app.LogoutPath, s.app.SignOnLogout)
}

// leave sends the browser to the provider: by a page, because the content policy has forms end on this site, wherever a redirect would take them.
func (s *Server) leave(w http.ResponseWriter, r *http.Request, to, secret string) error {
	s.keep(w, providerCookie, secret, providerAge)
	w.Header().Set("Refresh", "0; url="+to)
	name := s.app.SignOnName()
	return s.write(w, http.StatusOK, page.Frame{
		Lang: lang(r), Title: page.T("signin.leaving", name), Path: "/sign-in", DevKey: s.app.Config.LocalKEK(), Plain: s.app.Config.Plain, Sandbox: s.sandbox,
	}, &page.Leave{To: to, Name: name})
}

// signedOn takes the provider's answer.
func (s *Server) signedOn(w http.ResponseWriter, r *http.Request) {
	secret := s.kept(r, providerCookie)
	s.keep(w, providerCookie, "", 0) // whatever becomes of it, it serves once
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		query = url.Values{}
	}
	out, err := s.app.FinishSignOn(r.Context(), secret, query, s.visitor(r))
	back := local(out.Back)
	switch {
	case errors.Is(err, app.ErrSignIn):
		s.signInPage(w, r, refusedStatus(err), &page.SignIn{Back: back, Failed: true})
	case err != nil:
		s.fail(w, r, err)
	case out.Again:
		if err := s.cookie.Write(w, out.Token); err != nil {
			s.fail(w, r, err)
			return
		}
		http.Redirect(w, r, back, http.StatusSeeOther)
	default:
		s.enter(w, r, out.Outcome, back)
	}
}

// signOnForm is the button of a sign-in at the provider; nil where there is none.
func (s *Server) signOnForm(action, label, back string) *page.Button {
	name := s.app.SignOnName()
	if name == "" {
		return nil
	}
	return &page.Button{Action: action, Back: back, Label: page.T(label, name)}
}

// signOnAgain is the button of a step-up at the provider, for who is linked with it.
func (s *Server) signOnAgain(r *request, back string) *page.Button {
	acc, err := s.app.AccountOf(r.Context(), r.self.ID.UUID())
	if err != nil || acc.Provider.IsEmpty() {
		return nil
	}
	return s.signOnForm("/step-up/provider", "stepup.provider", back)
}

// linkPanel is what administrators see and do of somebody's link with the provider.
func (s *Server) linkPanel(r *request, acc *app.Account, base string) (page.Panel, bool) {
	name := s.app.SignOnName()
	if name == "" {
		return page.Panel{}, false
	}
	p := page.Panel{Title: page.T("access.provider", name), Note: page.T("access.provider.note")}
	issuer, subject := acc.LinkedSubject()
	if subject != "" {
		p.Facts = []page.Fact{
			{Label: page.T("access.provider.subject"), Cell: page.Cell{Kind: page.KindMono, Text: subject}},
			{Label: page.T("access.provider.issuer"), Cell: page.Cell{Kind: page.KindMono, Text: issuer}},
		}
	}
	switch {
	case acc.Employee == r.self.ID.UUID():
		p.Note = page.T("access.provider.self")
	case subject != "":
		p.Actions = []page.Action{{Label: page.T("access.provider.unlink"), Href: base + "/unlink", Post: true, Tone: page.Danger}}
	default:
		p.Actions = []page.Action{{Label: page.T("access.provider.link"), Href: base + "/link", Post: true, Fields: []page.Field{
			{Name: "subject", ID: "link-subject", Kind: page.FieldText, Label: page.T("access.provider.subject"), Required: true},
		}}}
	}
	return p, true
}

// linkFault says in the page's words why a link was not made.
func linkFault(err error) page.Text {
	var invalid *crm.InvalidError
	switch {
	case errors.Is(err, app.ErrLinked):
		return page.T("access.provider.taken")
	case errors.As(err, &invalid):
		return page.T("access.provider.malformed")
	}
	return page.Text{}
}

// subjectOf is a subject as it was typed: spaces around it come from copying.
func subjectOf(r *request) string { return strings.TrimSpace(r.PostFormValue("subject")) }
