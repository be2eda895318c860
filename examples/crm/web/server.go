package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/review"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/outbox"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/crm/trash"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// Server answers requests for one opened CRM.
type Server struct {
	once    secretsOnce
	app     *app.App
	pages   *page.Renderer
	handler http.Handler
	cookie  session.Cookie
	kinds   []kind // in the order of the navigation
	names   directory
	jobs    jobs
	drafts  drafts
	sending sending
	dups    runs
	sandbox bool
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
	s := &Server{app: a, pages: pages, cookie: session.Cookie{Name: "crm-session", InsecureHTTP: a.Config.Plain}, sandbox: a.Config.IsSandbox()}
	s.kinds = s.allKinds()
	if err := s.reloadNames(ctx); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /static/", page.Static())
	mux.HandleFunc("GET /sign-in", s.showSignIn)
	mux.HandleFunc("POST /sign-in", s.signIn)
	mux.HandleFunc("GET /sign-in/second", s.showSecond)
	mux.HandleFunc("POST /sign-in/second", s.second)
	mux.HandleFunc("POST /sign-out", s.signOut)
	mux.HandleFunc("POST /language", s.language)
	s.handle(mux, "GET /password", s.showPassword)
	s.handle(mux, "POST /password", s.password)
	s.handle(mux, "GET /step-up", s.showStepUp)
	s.handle(mux, "POST /step-up", s.stepUpAgain)
	s.handle(mux, "GET /{$}", s.home)
	s.handle(mux, "GET /search", s.search)
	s.handle(mux, "POST /search", s.search)
	s.handle(mux, "GET /log", s.log)
	s.handle(mux, "GET /log/{index}", s.logEvent)
	s.handle(mux, "GET /backups", s.backups)
	s.handle(mux, "POST /backups", s.runBackup)
	s.handle(mux, "POST /backups/cancel", s.cancelBackup)
	s.security(mux)
	s.signOn(mux)
	s.tokens(mux)
	s.governance(mux)
	s.webhooks(mux)
	s.exportPages(mux)
	s.deals(mux)
	s.sales(mux)
	s.payments(mux)
	s.pools(mux)
	s.duplicates(mux)
	s.erasure(mux)
	s.leaving(mux)
	s.handle(mux, "GET /numbers", s.numbers)
	for _, k := range s.kinds {
		k.routes(s, mux)
	}
	s.api(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, crm.ErrNotFound) })
	cross := http.NewCrossOriginProtection()
	cross.AddInsecureBypassPattern("POST " + app.LogoutPath) // the provider's own, signed, and of no session
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.problem(w, r, http.StatusForbidden, &page.Error{Status: http.StatusForbidden})
	}))
	byCookie := cross.Handler(mux)
	s.handler = s.protect(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := bearer(r); ok && strings.HasPrefix(r.URL.Path, "/api/") { // no cookie is looked at, so nothing is forged with one
			mux.ServeHTTP(w, r)
			return
		}
		byCookie.ServeHTTP(w, r)
	}))
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
	w        http.ResponseWriter // of the answer, for a new cookie
	sessions *session.Manager
	session  *session.Session
	token    session.Token // of the session, as it is now
	doubted  bool          // nothing but a step-up is served
	self     *crm.Employee
	subject  authz.Subject
	under    string // the break-glass access that is open for them
	lang     string

	program bool                      // it came with a token: there is no cookie, and nothing is stepped up
	scope   map[string][]authz.Action // of that token
}

// caller is who asks, for the guard.
func (r *request) caller() guard.Caller {
	c := guard.Caller{
		Subject: r.subject, Environment: authz.Environment{Time: time.Now(), Addr: addr(r.Request), Purpose: "crm"},
	}
	c.Subject.Session, c.Scope = r.session.ID, r.scope
	if r.under != "" {
		// The reason lies in the record of the access, which somebody else has to review before the next one.
		c.Reason, c.Under, c.Met = "emergency "+r.under, r.under, []authz.Obligation{authz.NeedReview}
	}
	return c
}

func addr(r *http.Request) netip.Addr { return session.VisitOf(r).Addr.Unmap() }

// signedIn returns the request of a session whose employee may still act, with their rights of this moment.
func (s *Server) signedIn(w http.ResponseWriter, r *http.Request) (req *request, ended bool, err error) {
	token := s.cookie.Read(r)
	if token == (session.Token{}) {
		return nil, false, nil
	}
	in, err := s.app.CheckSession(r.Context(), token, session.VisitOf(r))
	doubted := errors.Is(err, session.ErrStepUp)
	if errors.Is(err, app.ErrSignIn) {
		return nil, true, nil
	}
	if err != nil && !doubted {
		return nil, false, err
	}
	employee, err := crm.ParseUUID(in.Person)
	if err != nil {
		return nil, false, err
	}
	subject, err := s.app.Subject(r.Context(), employee)
	if errors.Is(err, app.ErrSignIn) {
		return nil, true, s.app.EndSessions(r.Context(), "system", in.Person, "")
	}
	var self *crm.Employee
	if err == nil {
		self, err = s.app.Employee(r.Context(), employee)
	}
	if err != nil || self == nil {
		return nil, false, err // nobody, until their rights can be read
	}
	if !s.app.Config.Admits(subject.Roles, addr(r)) {
		return nil, true, s.app.RefuseAddress(r.Context(), in)
	}
	req = &request{Request: r, w: w, sessions: s.app.Sessions, session: in, token: token, doubted: doubted, self: self, subject: subject, lang: lang(r)}
	if len(subject.Emergencies) > 0 {
		id, err := s.app.Emergency(r.Context(), employee)
		if err != nil {
			return nil, false, err
		}
		req.under = id.String()
	}
	return req, false, nil
}

// first is the page that has to be dealt with before any other, "" for none.
func (s *Server) first(r *request) string {
	switch {
	case r.doubted:
		return "/step-up"
	case slices.Contains(r.session.Roles, app.OneTimeRole):
		return "/password"
	case s.app.LacksSecond(r.session, r.subject.Roles):
		return "/security"
	}
	return ""
}

// handle registers a page for who is signed in. Everybody else is sent to sign in and comes back.
func (s *Server) handle(mux *http.ServeMux, pattern string, h func(http.ResponseWriter, *request) error) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		req, ended, err := s.signedIn(w, r)
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
		if first := s.first(req); first != "" && r.URL.Path != first && !strings.HasPrefix(r.URL.Path, first+"/") &&
			r.URL.Path != "/step-up" && !strings.HasPrefix(r.URL.Path, "/step-up/") {
			http.Redirect(w, r, first, http.StatusSeeOther)
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
		User: &page.User{Name: r.self.Name.Expose(), Href: "/security"},
	}
	for _, role := range r.subject.Roles {
		f.User.Roles = append(f.User.Roles, page.T("role."+role))
	}
	f.Flash = s.flash(w, r)
	if q, ok := content.(*page.Search); ok {
		f.Query = q.Query
	}
	if s.first(r) == "" {
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
		"created", "saved", "deleted", "restored", "shared", "approved", "refused", "reviewed", "closed", "ended", "removed":
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
	if reason, _ := erasureFault(err); reason != "" {
		return http.StatusConflict
	}
	if places, _ := leftOver(err); places != nil {
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
	if reason, what := erasureFault(err); reason != "" {
		p.Title, p.What, p.Kept, p.Do = page.T("erase.refused"), what, page.T("erase.refused.kept"), page.T("erase.refused.do")
	}
	if places, what := leftOver(err); places != nil {
		p.Title, p.What, p.Kept, p.Do = page.T("leave.refused"), what, page.T("error.404.kept"), page.T("leave.refused.do")
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
	if req, _, _ := s.signedIn(w, r); req != nil {
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
