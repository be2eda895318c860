package web

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/password"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// newID returns an opaque id, such as that of an error.
func newID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Cookies of sign-in beside the session's.
const (
	deviceCookie  = "crm-device" // who signed in completely on this device before; opens nothing
	pendingCookie = "crm-second" // the password was right, and another factor is wanted
	deviceAge     = 180 * 24 * time.Hour
	pendingAge    = 10 * time.Minute
)

// named has the __Host- prefix where TLS allows it: bound to this host, this path, and TLS.
func (s *Server) named(cookie string) string {
	if s.app.Config.Plain {
		return cookie
	}
	return "__Host-" + cookie
}

// keep sets a cookie; age 0 takes it away. Those that a provider's answer needs are Lax, for it comes by a link from another site.
func (s *Server) keep(w http.ResponseWriter, cookie, value string, age time.Duration) {
	c := &http.Cookie{
		Name: s.named(cookie), Value: value, Path: "/", Secure: !s.app.Config.Plain, HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: int(age.Seconds()),
	}
	if cookie == deviceCookie || cookie == providerCookie {
		c.SameSite = http.SameSiteLaxMode
	}
	if age == 0 {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// kept reads a cookie; "" when there is none, or more than one.
func (s *Server) kept(r *http.Request, cookie string) string {
	if all := r.CookiesNamed(s.named(cookie)); len(all) == 1 && len(all[0].Value) <= 512 {
		return all[0].Value
	}
	return ""
}

// visitor is from where a request comes.
func (s *Server) visitor(r *http.Request) app.Visitor {
	return app.Visitor{Visit: session.VisitOf(r), Device: s.kept(r, deviceCookie), Before: s.cookie.Read(r)}
}

// visitorOf is visitor with the session as it is now.
func (s *Server) visitorOf(r *request) app.Visitor {
	v := s.visitor(r.Request)
	v.Before = r.token
	return v
}

// login is the login of who is signed in, for password managers; "" when it cannot be read.
func (s *Server) login(r *request) string {
	acc, err := s.app.AccountOf(r.Context(), r.self.ID.UUID())
	if err != nil {
		return ""
	}
	return acc.Login.Expose()
}

// goOn lets a session go on under the token that a step-up gave it.
func (s *Server) goOn(r *request, in *session.Session, token session.Token) error {
	r.session, r.token, r.doubted = in, token, in.Doubted
	return s.cookie.Write(r.w, token)
}

// showSignIn is the page before all others.
func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request) {
	p := &page.SignIn{Back: local(r.FormValue("back"))}
	if _, err := r.Cookie("crm-ended"); err == nil {
		p.Notice = page.T("signin.ended")
		http.SetCookie(w, &http.Cookie{Name: "crm-ended", Path: "/sign-in", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: !s.app.Config.Plain})
	}
	s.signInPage(w, r, http.StatusOK, p)
}

func (s *Server) signInPage(w http.ResponseWriter, r *http.Request, status int, p *page.SignIn) {
	p.With = signInPasskey(p.Back)
	p.Provider = s.signOnForm("/sign-in/provider", "signin.provider", p.Back)
	err := s.write(w, status, page.Frame{
		Lang: lang(r), Title: page.T("signin.title"), Path: "/sign-in", DevKey: s.app.Config.LocalKEK(), Plain: s.app.Config.Plain, Sandbox: s.sandbox,
	}, p)
	if err != nil {
		s.fail(w, r, err)
	}
}

func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, badForm(err))
		return
	}
	login, back := strings.TrimSpace(r.PostFormValue("email")), local(r.FormValue("back"))
	out, err := s.app.SignIn(r.Context(), login, r.PostFormValue("password"), s.visitor(r))
	switch {
	case errors.Is(err, app.ErrSignIn):
		s.signInPage(w, r, refusedStatus(err), &page.SignIn{Email: login, Back: back, Failed: true})
	case err != nil:
		s.fail(w, r, err)
	default:
		s.enter(w, r, out, back)
	}
}

func refusedStatus(err error) int {
	if errors.Is(err, app.ErrWait) {
		return http.StatusTooManyRequests
	}
	return http.StatusUnauthorized
}

// enter goes on with what a step of signing in has led to.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, out app.Outcome, back string) {
	if out.Session == nil {
		s.keep(w, pendingCookie, out.Pending, pendingAge)
		s.secondPage(w, r, http.StatusOK, &page.Second{Back: back})
		return
	}
	if err := s.cookie.Write(w, out.Token); err != nil {
		s.fail(w, r, err)
		return
	}
	s.keep(w, deviceCookie, out.Device, deviceAge)
	s.keep(w, pendingCookie, "", 0)
	http.Redirect(w, r, back, http.StatusSeeOther)
}

// secondPage asks for the second factor.
func (s *Server) secondPage(w http.ResponseWriter, r *http.Request, status int, p *page.Second) {
	p.With = signInPasskey(p.Back)
	err := s.write(w, status, page.Frame{
		Lang: lang(r), Title: page.T("second.title"), Path: "/sign-in/second", DevKey: s.app.Config.LocalKEK(), Plain: s.app.Config.Plain, Sandbox: s.sandbox,
	}, p)
	if err != nil {
		s.fail(w, r, err)
	}
}

// showSecond is the page of the second factor for who comes back to it.
func (s *Server) showSecond(w http.ResponseWriter, r *http.Request) {
	if s.kept(r, pendingCookie) == "" {
		http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
		return
	}
	s.secondPage(w, r, http.StatusOK, &page.Second{Back: "/"})
}

// second takes a code after the password.
func (s *Server) second(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, badForm(err))
		return
	}
	back := local(r.FormValue("back"))
	out, err := s.app.SecondFactor(r.Context(), s.kept(r, pendingCookie), r.PostFormValue("code"), s.visitor(r))
	switch {
	case errors.Is(err, app.ErrSignIn) && out.Pending != "":
		s.keep(w, pendingCookie, out.Pending, pendingAge)
		s.secondPage(w, r, refusedStatus(err), &page.Second{Back: back, Failed: true})
	case errors.Is(err, app.ErrSignIn):
		s.keep(w, pendingCookie, "", 0)
		s.signInPage(w, r, refusedStatus(err), &page.SignIn{Back: back, Failed: true})
	case err != nil:
		s.fail(w, r, err)
	default:
		s.enter(w, r, out, back)
	}
}

func (s *Server) signOut(w http.ResponseWriter, r *http.Request) {
	if req, _, _ := s.signedIn(w, r); req != nil {
		_, err := s.app.Guard.Record(r.Context(), audit.Event{
			Action: "session.sign_out", Activity: audit.Logoff, Outcome: audit.Allowed, Tenant: app.Tenant,
			Actor: req.self.ID.String(), Session: req.session.ID,
		})
		if err != nil {
			s.fail(w, r, err)
			return
		}
	}
	if err := s.app.Sessions.SignOut(r.Context(), s.cookie.Read(r)); err != nil {
		s.fail(w, r, err)
		return
	}
	s.cookie.Clear(w)
	// Not the cookies: the one of known devices keeps strangers from locking the owner out.
	w.Header().Set("Clear-Site-Data", `"cache", "storage"`)
	http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
}

// showStepUp asks for a factor once more, before what wants it or where a session is doubted.
func (s *Server) showStepUp(w http.ResponseWriter, r *request) error {
	return s.stepUpPage(w, r, page.Text{})
}

func (s *Server) stepUpPage(w http.ResponseWriter, r *request, problem page.Text) error {
	back := local(r.FormValue("back"))
	f := &page.Form{
		Title: page.T("stepup.title"), Action: "/step-up", Submit: page.T("act.continue"), Username: s.login(r), Note: page.T("stepup.note"),
		Sections: []page.FormSection{{Fields: []page.Field{
			{Name: "back", Kind: page.FieldHidden, Value: back},
			{Name: "current", Kind: page.FieldPassword, Label: page.T("stepup.factor"), Required: true},
		}}},
	}
	f.With, f.Provider = s.checkPasskey(r, back), s.signOnAgain(r, back)
	if r.doubted {
		f.Note = page.T("stepup.doubted")
	} else {
		f.Cancel = back
	}
	status := http.StatusOK
	if !problem.IsZero() {
		f.Errors, status = []page.Text{problem}, http.StatusUnprocessableEntity
	}
	return s.show(w, r, status, f.Title, f)
}

func (s *Server) stepUpAgain(w http.ResponseWriter, r *request) error {
	ok, err := s.proved(r, r.PostFormValue("current"))
	if err != nil {
		return err
	}
	if !ok {
		return s.stepUpPage(w, r, page.T("password.wrong"))
	}
	http.Redirect(w, r.Request, local(r.FormValue("back")), http.StatusSeeOther)
	return nil
}

// passwordForm asks for a new password, at the first sign-in and whenever somebody wants to.
func (s *Server) passwordForm(r *request, errs ...page.Text) *page.Form {
	f := &page.Form{
		Title: page.T("password.title"), Action: "/password", Submit: page.T("act.save"), Errors: errs, Note: page.T("password.note"), Username: s.login(r),
		Sections: []page.FormSection{{Fields: []page.Field{
			{Name: "old", Kind: page.FieldPassword, Label: page.T("password.old"), Required: true},
			{Name: "new", Kind: page.FieldPassword, Label: page.T("password.new"), Required: true, Help: page.T("password.help")},
			{Name: "again", Kind: page.FieldPassword, Label: page.T("password.again"), Required: true},
		}}},
	}
	if s.first(r) == "" {
		f.Cancel = "/security"
	}
	return f
}

func (s *Server) showPassword(w http.ResponseWriter, r *request) error {
	return s.show(w, r, http.StatusOK, page.T("password.title"), s.passwordForm(r))
}

func (s *Server) password(w http.ResponseWriter, r *request) error {
	refuse := func(t page.Text) error {
		return s.show(w, r, http.StatusUnprocessableEntity, page.T("password.title"), s.passwordForm(r, t))
	}
	if r.PostFormValue("new") != r.PostFormValue("again") {
		return refuse(page.T("password.differ"))
	}
	acc, err := s.app.AccountOf(r.Context(), r.self.ID.UUID())
	if err != nil {
		return err
	}
	err = s.app.ChangePassword(r.Context(), acc.Login.Expose(), r.PostFormValue("old"), r.PostFormValue("new"), s.visitorOf(r))
	var weak *password.WeakError
	switch {
	case errors.As(err, &weak) && weak.Reason == password.Short:
		return refuse(page.T("password.short", int64(weak.Min)))
	case errors.As(err, &weak):
		return refuse(page.T("password." + string(weak.Reason)))
	case errors.Is(err, app.ErrSamePassword):
		return refuse(page.T("password.same"))
	case errors.Is(err, app.ErrSignIn):
		return refuse(page.T("password.wrong"))
	case err != nil:
		return err
	}
	// Every other session of the employee ends; this one goes on under a new cookie.
	if err := s.app.EndSessions(r.Context(), r.self.ID.String(), r.self.ID.String(), r.session.ID); err != nil {
		return err
	}
	in, token, err := s.app.Sessions.StepUp(r.Context(), r.token, []authn.Method{authn.Password}, session.VisitOf(r.Request))
	if err != nil {
		return err
	}
	if err := s.goOn(r, in, token); err != nil {
		return err
	}
	s.setFlash(w, "saved")
	http.Redirect(w, r.Request, "/", http.StatusSeeOther)
	return nil
}
