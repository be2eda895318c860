package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/review"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/outbox"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/crm/trash"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/normalize"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// Server answers requests for one opened CRM.
type Server struct {
	once     secretsOnce
	app      *app.App
	pages    *page.Renderer
	handler  http.Handler
	sessions *sessions
	attempts *attempts
	kinds    []kind // in the order of the navigation
	names    directory
	jobs     jobs
	drafts   drafts
	sending  sending
	dups     runs
	sandbox  bool
}

// directory is who works here: names beside records, and what a subject may be at each request.
type directory struct {
	mu  sync.RWMutex
	all map[crm.UUID]*crm.Employee
}

func (d *directory) get(id crm.UUID) *crm.Employee {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.all[id]
}

// New makes the handler of an opened CRM.
func New(ctx context.Context, a *app.App) (*Server, error) {
	pages, err := page.New(nil)
	if err != nil {
		return nil, err
	}
	s := &Server{app: a, pages: pages, sessions: newSessions(), attempts: newAttempts(), sandbox: a.Config.IsSandbox()}
	s.kinds = s.allKinds()
	if err := s.reloadNames(ctx); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /static/", page.Static())
	mux.HandleFunc("GET /sign-in", s.showSignIn)
	mux.HandleFunc("POST /sign-in", s.signIn)
	mux.HandleFunc("POST /sign-out", s.signOut)
	mux.HandleFunc("POST /language", s.language)
	s.handle(mux, "GET /password", s.showPassword)
	s.handle(mux, "POST /password", s.password)
	s.handle(mux, "GET /{$}", s.home)
	s.handle(mux, "GET /search", s.search)
	s.handle(mux, "POST /search", s.search)
	s.handle(mux, "GET /log", s.log)
	s.handle(mux, "GET /log/{index}", s.logEvent)
	s.handle(mux, "GET /backups", s.backups)
	s.handle(mux, "POST /backups", s.runBackup)
	s.handle(mux, "POST /backups/cancel", s.cancelBackup)
	s.governance(mux)
	s.webhooks(mux)
	s.exportPages(mux)
	s.deals(mux)
	s.pools(mux)
	s.duplicates(mux)
	s.handle(mux, "GET /numbers", s.numbers)
	for _, k := range s.kinds {
		k.routes(s, mux)
	}
	s.api(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, crm.ErrNotFound) })
	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.problem(w, r, http.StatusForbidden, &page.Error{Status: http.StatusForbidden})
	}))
	s.handler = s.protect(cross.Handler(mux))
	return s, nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// csp allows the program's own files and nothing else: no inline script or style, no frame, no foreign host.
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// protect sets the headers of every answer, bounds bodies, and turns a panic into an error page.
func (s *Server) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
		h.Set("X-Frame-Options", "DENY")
		if !s.app.Config.Plain {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		if !strings.HasPrefix(r.URL.Path, "/static/") {
			h.Set("Cache-Control", "no-store") // pages hold personal data
		}
		r.Body = http.MaxBytesReader(w, r.Body, bodyLimit(r))
		defer func() {
			if v := recover(); v != nil {
				if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(v)
				}
				// The value of a panic may hold data; the stack holds code places only.
				slog.Error("panic", "path", r.Pattern, "stack", string(debug.Stack()))
				s.problem(w, r, http.StatusInternalServerError, &page.Error{Status: http.StatusInternalServerError})
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// request is one request of somebody who is signed in.
type request struct {
	*http.Request
	session session
	self    *crm.Employee
	subject authz.Subject
	under   string // the break-glass access that is open for them
	lang    string
}

// caller is who asks, for the guard.
func (r *request) caller() guard.Caller {
	c := guard.Caller{
		Subject: r.subject, Environment: authz.Environment{Time: time.Now(), Addr: addr(r.Request), Purpose: "crm"},
	}
	c.Subject.Session = r.session.id
	if r.under != "" {
		// The reason lies in the record of the access, which somebody else has to review before the next one.
		c.Reason, c.Under, c.Met = "emergency "+r.under, r.under, []authz.Obligation{authz.NeedReview}
	}
	return c
}

func addr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// signedIn returns the request of a session whose employee may still act, with their rights of this moment.
func (s *Server) signedIn(r *http.Request) (req *request, ended bool, err error) {
	in, ok, ended := s.sessions.find(r, s.app.Config.Plain)
	if !ok {
		return nil, ended, nil
	}
	subject, err := s.app.Subject(r.Context(), in.employee)
	if errors.Is(err, app.ErrSignIn) {
		s.sessions.endOf(in.employee)
		return nil, true, nil
	}
	var self *crm.Employee
	if err == nil {
		self, err = s.app.Employee(r.Context(), in.employee)
	}
	if err != nil || self == nil {
		return nil, false, err // nobody, until their rights can be read
	}
	req = &request{Request: r, session: in, self: self, subject: subject, lang: lang(r)}
	if len(subject.Emergencies) > 0 {
		id, err := s.app.Emergency(r.Context(), in.employee)
		if err != nil {
			return nil, false, err
		}
		req.under = id.String()
	}
	return req, false, nil
}

// handle registers a page for who is signed in. Everybody else is sent to sign in and comes back.
func (s *Server) handle(mux *http.ServeMux, pattern string, h func(http.ResponseWriter, *request) error) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		req, ended, err := s.signedIn(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		if req == nil {
			to := "/sign-in"
			if r.Method == http.MethodGet && r.URL.Path != "/" {
				to += "?back=" + strings.NewReplacer("&", "%26", "?", "%3F", "#", "%23").Replace(r.URL.Path)
			}
			if ended {
				http.SetCookie(w, &http.Cookie{Name: "crm-ended", Value: "1", Path: "/sign-in", HttpOnly: true, MaxAge: 60, SameSite: http.SameSiteLaxMode, Secure: !s.app.Config.Plain})
			}
			http.Redirect(w, r, to, http.StatusSeeOther)
			return
		}
		if req.session.oneTime && r.URL.Path != "/password" {
			http.Redirect(w, r, "/password", http.StatusSeeOther)
			return
		}
		if err := r.ParseForm(); err != nil {
			s.fail(w, r, badForm(err))
			return
		}
		if err := h(w, req); err != nil {
			s.fail(w, r, err)
		}
	})
}

// badForm says why a posted form could not be read.
func badForm(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return err
	}
	return errBadRequest
}

// lang is the language of a request: the switch, else the browser's.
func lang(r *http.Request) string {
	chosen := ""
	if c, err := r.Cookie("crm-lang"); err == nil {
		chosen = c.Value
	}
	return page.Match(r.Header.Get("Accept-Language"), chosen)
}

// language is the switch.
func (s *Server) language(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{
		Name: "crm-lang", Value: page.Match("", r.FormValue("lang")), Path: "/", MaxAge: 365 * 24 * 3600,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: !s.app.Config.Plain,
	})
	http.Redirect(w, r, local(r.FormValue("back")), http.StatusSeeOther)
}

// local returns a path of this server, "/" for anything else.
func local(path string) string {
	// Browsers drop control characters and take a backslash for a slash.
	bad := strings.ContainsFunc(path, func(r rune) bool { return r < 0x21 || r == '\\' || r == 0x7f })
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || bad {
		return "/"
	}
	return path
}

// show writes a page.
func (s *Server) show(w http.ResponseWriter, r *request, status int, title page.Text, content any) error {
	f := page.Frame{
		Lang: r.lang, Title: title, Path: r.URL.Path, DevKey: s.app.Config.LocalKEK(), Plain: s.app.Config.Plain, Sandbox: s.sandbox,
		User: &page.User{Name: r.self.Name.Expose(), Href: "/password"},
	}
	for _, role := range r.subject.Roles {
		f.User.Roles = append(f.User.Roles, page.T("role."+role))
	}
	f.Flash = s.flash(w, r)
	if q, ok := content.(*page.Search); ok {
		f.Query = q.Query
	}
	if !r.session.oneTime {
		f.Nav = s.nav(r)
		f.Verdict = s.verdict(r.Context())
	}
	return s.write(w, status, f, content)
}

// write renders completely before the first byte goes out.
func (s *Server) write(w http.ResponseWriter, status int, f page.Frame, content any) error {
	var b bytes.Buffer
	if err := s.pages.Page(&b, f, content); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the client may be gone
	return nil
}

// verdict is that of the log, not older than a minute or on its way.
func (s *Server) verdict(ctx context.Context) *page.Verdict {
	v, err := s.app.Verdict(ctx, time.Minute, true)
	if err != nil {
		return &page.Verdict{State: "unchecked", Href: "/log"}
	}
	return verdictOf(v)
}

func verdictOf(v audit.Verdict) *page.Verdict {
	return &page.Verdict{State: strings.ToLower(v.State.String()), OK: v.OK(), Events: v.Size, At: v.Signed, Href: "/log"}
}

// setFlash leaves a line for the next page.
func (s *Server) setFlash(w http.ResponseWriter, key string) {
	http.SetCookie(w, &http.Cookie{
		Name: "crm-flash", Value: key, Path: "/", MaxAge: 60, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: !s.app.Config.Plain,
	})
}

// flash takes it. Only keys of the catalogue are shown.
func (s *Server) flash(w http.ResponseWriter, r *request) *page.Flash {
	c, err := r.Cookie("crm-flash")
	if err != nil {
		return nil
	}
	http.SetCookie(w, &http.Cookie{Name: "crm-flash", Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: !s.app.Config.Plain})
	key, number, _ := strings.Cut(c.Value, ".")
	switch key {
	case "deleted_with", "restored_with":
		if n, err := strconv.ParseUint(number, 10, 16); err == nil {
			return &page.Flash{Text: page.T("flash."+key, int64(n)), Tone: page.Accent}
		}
		return nil
	}
	switch c.Value {
	case "claimed", "assigned", "transferred", "released", "entered", "locked", "unlocked", "sent", "revised", "accepted", "converted", "queued", "merged",
		"created", "saved", "deleted", "restored", "shared", "approved", "refused", "reviewed", "closed":
		return &page.Flash{Text: page.T("flash." + c.Value), Tone: page.Accent}
	case "backup_cancelled":
		return &page.Flash{Text: page.T("flash.backup_cancelled")}
	case "backup":
		return &page.Flash{Text: page.T("backup.done"), Tone: page.Accent}
	}
	return nil
}

// statusOf says how an error looks from outside. What is not known to be harmless is a fault of ours.
func statusOf(err error) int {
	var denied *authz.DeniedError
	var invalid *crm.InvalidError
	var transition *crm.TransitionError
	var large *http.MaxBytesError
	var refusal *pool.Refusal
	var gone *trash.GoneError
	if status, _ := importFault(err); status != 0 {
		return status
	}
	if reason, _, _ := duplicateFault(err); reason != "" {
		return http.StatusConflict
	}
	switch {
	case errors.As(err, &refusal):
		switch refusal.Reason {
		case pool.NotMember, pool.NotAdmin, pool.AssignOnly:
			return http.StatusForbidden
		}
		return http.StatusConflict
	case errors.As(err, &gone):
		return http.StatusConflict
	case errors.Is(err, crm.ErrNotFound):
		return http.StatusNotFound
	case errors.As(err, &denied), errors.Is(err, review.ErrSelf), errors.Is(err, review.ErrReviewer):
		return http.StatusForbidden
	case errors.Is(err, app.ErrLastAdmin), errors.Is(err, review.ErrOpen), errors.Is(err, review.ErrClosed), errors.Is(err, review.ErrRevoked):
		return http.StatusConflict
	case errors.Is(err, review.ErrOutcome), errors.Is(err, review.ErrNoItem):
		return http.StatusBadRequest
	case errors.Is(err, crm.ErrConflict):
		return http.StatusConflict
	case errors.As(err, &invalid), errors.As(err, &transition), errors.Is(err, crm.ErrDuplicate):
		return http.StatusUnprocessableEntity
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, guard.ErrQuota):
		return http.StatusTooManyRequests
	case errors.Is(err, errBadRequest), errors.Is(err, encrypt.ErrUnsupported), errors.Is(err, guard.ErrBroad), errors.Is(err, outbox.ErrNoSource):
		return http.StatusBadRequest
	case errors.Is(err, crm.ErrUnavailable), errors.Is(err, encrypt.ErrKMSUnavailable), errors.Is(err, audit.ErrUnavailable),
		errors.Is(err, audit.ErrClosed), errors.Is(err, encrypt.ErrAuth), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable
	}
	var re *crm.RequestError
	if errors.As(err, &re) {
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

var errBadRequest = errors.New("crm: the request cannot be read")

// fail shows the page of an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	p := &page.Error{Status: status}
	var denied *authz.DeniedError
	if errors.As(err, &denied) && status == http.StatusForbidden {
		p.Controls = denied.Controls
		for _, o := range denied.Unmet {
			p.Controls = append(p.Controls, "obligation."+string(o))
		}
	}
	if _, _, what := duplicateFault(err); !what.IsZero() {
		p.What = what
	}
	var invalid *crm.InvalidError
	if errors.As(err, &invalid) && len(invalid.Fields) > 0 {
		f := invalid.Fields[0]
		p.What = page.T("format.pair", page.T("field."+invalid.Type+"."+f.Field), page.T("rule."+f.Rule))
	}
	var refusal *pool.Refusal
	var gone *trash.GoneError
	if _, word := importFault(err); word != "" {
		p.What = page.T("imports.fault." + word)
	}
	switch {
	case errors.As(err, &refusal):
		refused(refusal, p)
	case errors.As(err, &gone):
		p.Title, p.What = page.T("error.gone.title"), page.T("error.gone", page.T("type."+gone.Missing.Type))
		p.Kept, p.Do = page.T("error.404.kept"), page.T("error.gone.do")
	case errors.Is(err, crm.ErrDuplicate):
		p.What = page.T("form.duplicate")
	case discountRefused(err):
		p.What, p.Do = page.T("quote.needs_approval", int64(app.MostDiscount/100)), page.T("quote.needs_approval.do")
	case errors.Is(err, app.ErrLastAdmin):
		p.What = page.T("error.last_admin")
	case errors.Is(err, review.ErrOpen):
		p.What = page.T("error.review_open")
	}
	if status == http.StatusInternalServerError {
		p.Ref = newID()
		// Errors of this program name types, ids and rules, never values.
		slog.Error("request failed", "ref", p.Ref, "pattern", r.Pattern, "err", err)
	}
	s.problem(w, r, status, p)
}

// problem writes an error page, framed for who is signed in.
func (s *Server) problem(w http.ResponseWriter, r *http.Request, status int, p *page.Error) {
	p.Actions = []page.Action{{Label: page.T("act.home"), Href: "/"}}
	title := page.T(fmt.Sprintf("error.%d.title", status))
	var err error
	if req, _, _ := s.signedIn(r); req != nil {
		err = s.show(w, req, status, title, p)
	} else {
		err = s.write(w, status, page.Frame{Lang: lang(r), Title: title, Path: r.URL.Path, Plain: s.app.Config.Plain, Sandbox: s.sandbox}, p)
	}
	if err != nil {
		http.Error(w, http.StatusText(status), status)
	}
}

// reloadNames reads the directory anew.
func (s *Server) reloadNames(ctx context.Context) error {
	all, err := s.app.Directory(ctx)
	if err != nil {
		return err
	}
	m := make(map[crm.UUID]*crm.Employee, len(all))
	for _, e := range all {
		m[e.ID.UUID()] = e
	}
	s.names.mu.Lock()
	defer s.names.mu.Unlock()
	s.names.all = m
	return nil
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
	login, password := strings.TrimSpace(r.FormValue("email")), r.FormValue("password")
	back := local(r.FormValue("back"))
	source, _, _ := net.SplitHostPort(r.RemoteAddr)
	id := newID()
	// The account is found by its normalised login, so that is what attempts are counted by.
	account := normalize.Email(login)
	if !s.attempts.take(account, source) {
		s.signInPage(w, r, http.StatusTooManyRequests, &page.SignIn{Email: login, Back: back, Failed: true})
		return
	}
	subject, oneTime, err := s.app.SignIn(r.Context(), login, password, id)
	if err == nil {
		s.attempts.succeeded(account, source)
	}
	if errors.Is(err, app.ErrSignIn) {
		s.signInPage(w, r, http.StatusUnauthorized, &page.SignIn{Email: login, Back: back, Failed: true})
		return
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	employee, err := crm.ParseUUID(subject.ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.sessions.end(w, r, s.app.Config.Plain)
	s.sessions.start(w, s.app.Config.Plain, session{id: id, employee: employee, login: login, oneTime: oneTime})
	http.Redirect(w, r, back, http.StatusSeeOther)
}

func (s *Server) signOut(w http.ResponseWriter, r *http.Request) {
	if req, _, _ := s.signedIn(r); req != nil {
		_, err := s.app.Guard.Record(r.Context(), audit.Event{
			Action: "session.sign_out", Activity: audit.Logoff, Outcome: audit.Allowed, Tenant: app.Tenant,
			Actor: req.self.ID.String(), Session: req.session.id,
		})
		if err != nil {
			s.fail(w, r, err)
			return
		}
	}
	s.sessions.end(w, r, s.app.Config.Plain)
	w.Header().Set("Clear-Site-Data", `"cache", "storage"`)
	http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
}

// passwordForm asks for a new password, at the first sign-in and whenever somebody wants to.
func (s *Server) passwordForm(r *request, errs ...page.Text) *page.Form {
	f := &page.Form{
		Title: page.T("password.title"), Action: "/password", Submit: page.T("act.save"), Errors: errs, Note: page.T("password.note"), Username: r.session.login,
		Sections: []page.FormSection{{Fields: []page.Field{
			{Name: "old", Kind: page.FieldPassword, Label: page.T("password.old"), Required: true},
			{Name: "new", Kind: page.FieldPassword, Label: page.T("password.new"), Required: true, Help: page.T("password.help")},
			{Name: "again", Kind: page.FieldPassword, Label: page.T("password.again"), Required: true},
		}}},
	}
	if !r.session.oneTime {
		f.Cancel = "/"
	}
	return f
}

func (s *Server) showPassword(w http.ResponseWriter, r *request) error {
	return s.show(w, r, http.StatusOK, page.T("password.title"), s.passwordForm(r))
}

func (s *Server) password(w http.ResponseWriter, r *request) error {
	refuse := func(key string) error {
		return s.show(w, r, http.StatusUnprocessableEntity, page.T("password.title"), s.passwordForm(r, page.T(key)))
	}
	if r.FormValue("new") != r.FormValue("again") {
		return refuse("password.differ")
	}
	source, _, _ := net.SplitHostPort(r.RemoteAddr)
	account := normalize.Email(r.session.login)
	if !s.attempts.take(account, source) {
		return refuse("password.wrong")
	}
	err := s.app.ChangePassword(r.Context(), r.session.login, r.FormValue("old"), r.FormValue("new"))
	switch {
	case errors.Is(err, app.ErrPassword):
		return refuse("password.rule")
	case errors.Is(err, app.ErrSignIn):
		return refuse("password.wrong")
	case err != nil:
		return err
	}
	s.attempts.succeeded(account, source)
	// Every other session of the employee ends; this one goes on under a new cookie.
	s.sessions.endOf(r.session.employee)
	next := r.session
	next.oneTime = false
	s.sessions.start(w, s.app.Config.Plain, next)
	s.setFlash(w, "saved")
	http.Redirect(w, r.Request, "/", http.StatusSeeOther)
	return nil
}
