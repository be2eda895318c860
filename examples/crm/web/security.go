package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"rsc.io/qr"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/authn/webauthn"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// security registers what people do with their own factors and sessions, and administrators with those of others.
func (s *Server) security(mux *http.ServeMux) {
	mux.HandleFunc("POST /sign-in/passkey/begin", s.beginPasskey)
	mux.HandleFunc("POST /sign-in/passkey", s.passkeySignIn)
	s.handle(mux, "POST /step-up/passkey/begin", s.beginCheck)
	s.handle(mux, "POST /step-up/passkey", s.passkeyStepUp)
	s.handle(mux, "GET /security", s.showSecurity)
	s.handle(mux, "GET /security/", func(w http.ResponseWriter, r *request) error { // a page that answered a form, asked for again
		http.Redirect(w, r.Request, "/security", http.StatusSeeOther)
		return nil
	})
	own := func(pattern string, do func(w http.ResponseWriter, r *request, acc *app.Account) error) {
		s.handle(mux, "POST /security/"+pattern, func(w http.ResponseWriter, r *request) error {
			if r.fresh(session.Factors) != nil {
				return s.toStepUp(w, r, "/security")
			}
			acc, err := s.app.AccountOf(r.Context(), r.self.ID.UUID())
			if err != nil {
				return err
			}
			return do(w, r, acc)
		})
	}
	own("totp", s.enrolTOTP)
	own("totp/confirm", s.confirmTOTP)
	own("totp/remove", func(w http.ResponseWriter, r *request, acc *app.Account) error {
		if err := s.app.RemoveTOTP(r.Context(), acc, s.visitorOf(r)); err != nil {
			return err
		}
		return s.done(w, r, "removed", "/security", "")
	})
	own("codes", s.makeCodes)
	own("passkeys/begin", s.beginEnrolment)
	own("passkeys", s.enrolPasskey)
	own("passkeys/rename", func(w http.ResponseWriter, r *request, acc *app.Account) error {
		if err := s.app.RenamePasskey(r.Context(), acc, r.PostFormValue("id"), strings.TrimSpace(r.PostFormValue("name"))); err != nil {
			return err
		}
		return s.done(w, r, "saved", "/security", "")
	})
	own("passkeys/remove", func(w http.ResponseWriter, r *request, acc *app.Account) error {
		if err := s.app.RemovePasskey(r.Context(), acc, r.PostFormValue("id"), s.visitorOf(r)); err != nil {
			return err
		}
		return s.done(w, r, "removed", "/security", "")
	})
	s.handle(mux, "GET /sessions", s.showSessions)
	s.handle(mux, "GET /sessions/history", s.showNotices)
	// Who has found somebody's browser open does not throw the person out of all others.
	s.handle(mux, "POST /sessions/end", s.wants(session.Factors, func(w http.ResponseWriter, r *request) error {
		if err := s.app.EndSession(r.Context(), r.session.Person, r.session.Person, r.PostFormValue("id")); err != nil {
			return err
		}
		return s.done(w, r, "ended", "/sessions", "")
	}))
	s.handle(mux, "POST /sessions/end-others", s.wants(session.Factors, func(w http.ResponseWriter, r *request) error {
		if err := s.app.EndSessions(r.Context(), r.session.Person, r.session.Person, r.session.ID); err != nil {
			return err
		}
		return s.done(w, r, "ended", "/sessions", "")
	}))
	s.managed(mux)
}

// wants serves h to who has shown a factor within the time that the act asks for; all others do so first. A page comes back by itself, a form by the page of
// its record.
func (s *Server) wants(act session.Act, h func(http.ResponseWriter, *request) error) func(http.ResponseWriter, *request) error {
	return func(w http.ResponseWriter, r *request) error {
		if r.fresh(act) == nil {
			return h(w, r)
		}
		back := r.URL.Path
		if part := strings.SplitN(back, "/", 4); act == session.Reveal || r.Method != http.MethodGet {
			back = strings.Join(part[:min(3, len(part))], "/")
		}
		return s.toStepUp(w, r, back)
	}
}

// fresh refuses an act that wants a fresh proof, where none was given within its time. Programs give one at /step-up.
func (r *request) fresh(act session.Act) error {
	if r.sessions.Fresh(r.session, act) == nil {
		return nil
	}
	return &authz.DeniedError{Controls: []string{"access.granted"}, Unmet: []authz.Obligation{authz.NeedStepUp}}
}

// toStepUp sends a browser to show a factor once more, and then to back.
func (s *Server) toStepUp(w http.ResponseWriter, r *request, back string) error {
	if strings.HasSuffix(r.URL.Path, "/begin") { // asked for by the script
		w.WriteHeader(http.StatusForbidden)
		return nil
	}
	to := "/step-up?back=" + strings.NewReplacer("%", "%25", "&", "%26", "?", "%3F", "#", "%23").Replace(back)
	if r.Header.Get("HX-Request") != "" {
		w.Header().Set("HX-Redirect", to)
		return nil
	}
	http.Redirect(w, r.Request, to, http.StatusSeeOther)
	return nil
}

// ceremony answers the script with what the browser is to do.
func ceremony(w http.ResponseWriter, options json.RawMessage, secret string) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(map[string]any{"options": options, "ceremony": secret})
}

// signInPasskey is the form of a sign-in without a password.
func signInPasskey(back string) *page.Passkey {
	return &page.Passkey{Action: "/sign-in/passkey", Begin: "/sign-in/passkey/begin", Back: back, Label: page.T("security.passkey.use")}
}

func (s *Server) beginPasskey(w http.ResponseWriter, r *http.Request) {
	options, secret, err := s.app.Passkeys().BeginSignIn(r.Context())
	if err == nil {
		err = ceremony(w, options, secret)
	}
	if err != nil {
		s.fail(w, r, fmt.Errorf("%w: %w", crm.ErrUnavailable, err))
	}
}

func (s *Server) passkeySignIn(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, badForm(err))
		return
	}
	back := local(r.PostFormValue("back"))
	out, err := s.app.PasskeySignIn(r.Context(), r.PostFormValue("ceremony"), []byte(r.PostFormValue("response")), s.visitor(r))
	switch {
	case errors.Is(err, app.ErrSignIn):
		s.signInPage(w, r, refusedStatus(err), &page.SignIn{Back: back, Failed: true})
	case err != nil:
		s.fail(w, r, err)
	default:
		s.enter(w, r, out, back)
	}
}

func (s *Server) beginCheck(w http.ResponseWriter, r *request) error {
	options, secret, err := s.app.Passkeys().BeginCheck(r.Context(), app.Tenant, r.session.Person)
	if errors.Is(err, webauthn.ErrUnknown) {
		return crm.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("%w: %w", crm.ErrUnavailable, err)
	}
	return ceremony(w, options, secret)
}

func (s *Server) passkeyStepUp(w http.ResponseWriter, r *request) error {
	in, token, err := s.app.PasskeyStepUp(r.Context(), r.caller(), r.PostFormValue("ceremony"), []byte(r.PostFormValue("response")), s.visitorOf(r))
	if errors.Is(err, app.ErrSignIn) {
		return s.stepUpPage(w, r, page.T("security.passkey.refused"))
	}
	if err != nil {
		return err
	}
	if err := s.goOn(r, in, token); err != nil {
		return err
	}
	http.Redirect(w, r.Request, local(r.PostFormValue("back")), http.StatusSeeOther)
	return nil
}

// checkPasskey is the form of a step-up by a passkey, nil for who has none.
func (s *Server) checkPasskey(r *request, back string) *page.Passkey {
	all, err := s.app.Passkeys().List(r.Context(), app.Tenant, r.session.Person)
	if err != nil || len(all) == 0 {
		return nil
	}
	return &page.Passkey{Action: "/step-up/passkey", Begin: "/step-up/passkey/begin", Back: back, Label: page.T("security.passkey.use")}
}

func (s *Server) showSecurity(w http.ResponseWriter, r *request) error {
	acc, err := s.app.AccountOf(r.Context(), r.self.ID.UUID())
	if err != nil {
		return err
	}
	return s.securityPage(w, r, http.StatusOK, acc, &page.Security{})
}

func (s *Server) securityPage(w http.ResponseWriter, r *request, status int, acc *app.Account, p *page.Security) error {
	f, err := s.app.FactorsOf(r.Context(), acc)
	if err != nil {
		return err
	}
	p.TOTP, p.Codes = f.TOTP, int64(f.Codes)
	for _, c := range f.Passkeys {
		p.Passkeys = append(p.Passkeys, page.EnrolledPasskey{ID: c.ID, Name: c.Name, Created: c.Created, Used: c.LastUsed, Synced: c.Synced, Cloned: !c.Cloned.IsZero()})
	}
	if s.first(r) != "" {
		p.Must = page.T("security.must")
	}
	p.Enrol = &page.Passkey{Action: "/security/passkeys", Begin: "/security/passkeys/begin", Make: true, Name: true, Label: page.T("security.passkey.enrol")}
	return s.show(w, r, status, page.T("security.title"), p)
}

func (s *Server) enrolTOTP(w http.ResponseWriter, r *request, acc *app.Account) error {
	key, uri, err := s.app.EnrolTOTP(r.Context(), acc)
	if err != nil {
		return err
	}
	code, err := qr.Encode(uri, qr.M)
	if err != nil {
		return err
	}
	return s.securityPage(w, r, http.StatusOK, acc, &page.Security{Scan: scanOf(code, key)})
}

// scanOf draws a QR code as the path of an SVG, with the quiet zone of four squares that readers want.
func scanOf(code *qr.Code, key string) *page.Scan {
	const quiet = 4
	var b strings.Builder
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			n := 0
			for x+n < code.Size && code.Black(x+n, y) {
				n++
			}
			if n > 0 {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", x+quiet, y+quiet, n, n)
				x += n
			}
		}
	}
	var grouped []string
	for rest := key; rest != ""; {
		n := min(4, len(rest))
		grouped, rest = append(grouped, rest[:n]), rest[n:]
	}
	return &page.Scan{Key: strings.Join(grouped, " "), Size: code.Size + 2*quiet, Path: b.String()}
}

func (s *Server) confirmTOTP(w http.ResponseWriter, r *request, acc *app.Account) error {
	had := acc.Second
	err := s.app.ConfirmTOTP(r.Context(), acc, r.PostFormValue("code"), s.visitorOf(r))
	if errors.Is(err, app.ErrCode) || errors.Is(err, app.ErrWait) {
		return s.securityPage(w, r, http.StatusUnprocessableEntity, acc, &page.Security{Error: page.T("security.totp.wrong"), Scan: &page.Scan{}})
	}
	if err != nil {
		return err
	}
	in, token, err := s.app.Enrolled(r.Context(), "totp", s.visitorOf(r))
	if err != nil {
		return err
	}
	if err := s.goOn(r, in, token); err != nil {
		return err
	}
	return s.enrolled(w, r, acc, had)
}

// enrolled shows codes for paper with the first factor, else goes back to the page.
func (s *Server) enrolled(w http.ResponseWriter, r *request, acc *app.Account, had bool) error {
	if had {
		return s.done(w, r, "saved", "/security", "")
	}
	return s.makeCodes(w, r, acc)
}

func (s *Server) makeCodes(w http.ResponseWriter, r *request, acc *app.Account) error {
	if !acc.Second { // codes are the way back to a factor, and none by themselves
		return crm.ErrConflict
	}
	codes, err := s.app.NewCodes(r.Context(), acc)
	if err != nil {
		return err
	}
	return s.securityPage(w, r, http.StatusOK, acc, &page.Security{NewCodes: codes})
}

func (s *Server) beginEnrolment(w http.ResponseWriter, r *request, acc *app.Account) error {
	options, secret, err := s.app.Passkeys().BeginEnrolment(r.Context(), app.Tenant, r.session.Person, webauthn.Names{Account: acc.Login.Expose(), Display: r.self.Name.Expose()})
	if err != nil {
		return err
	}
	return ceremony(w, options, secret)
}

func (s *Server) enrolPasskey(w http.ResponseWriter, r *request, acc *app.Account) error {
	had := acc.Second
	err := s.app.EnrolPasskey(r.Context(), acc, r.PostFormValue("ceremony"), strings.TrimSpace(r.PostFormValue("name")), []byte(r.PostFormValue("response")), s.visitorOf(r))
	if errors.Is(err, app.ErrSignIn) {
		return s.securityPage(w, r, http.StatusUnprocessableEntity, acc, &page.Security{Error: page.T("security.passkey.refused")})
	}
	if err != nil {
		return err
	}
	in, token, err := s.app.Enrolled(r.Context(), "passkey", s.visitorOf(r))
	if err != nil {
		return err
	}
	if err := s.goOn(r, in, token); err != nil {
		return err
	}
	return s.enrolled(w, r, acc, had)
}

// sessionRows are the sessions of somebody. own marks that of the reader; end posts the id of one.
func sessionRows(all []session.Session, own, end string) *page.List {
	l := &page.List{
		ID: "sessions", Title: page.T("sessions.title"), Count: -1, Empty: page.Empty{Text: page.T("sessions.none")},
		Columns: []page.Column{
			{Label: page.T("sessions.device")}, {Label: page.T("sessions.place")}, {Label: page.T("sessions.proofs")}, {Label: page.T("sessions.seen"), Kind: page.KindTime},
			{Label: page.T("sessions.created"), Kind: page.KindTime}, {Kind: page.KindActions},
		},
	}
	for _, x := range all {
		place := x.Place.Network
		if x.Place.Name != "" {
			place = x.Place.Name
		}
		var shown []page.Text
		for _, p := range x.Proofs {
			shown = append(shown, page.T("method."+string(p.Method)))
		}
		last := page.Cell{Kind: page.KindActions, Actions: []page.Action{{Label: page.T("sessions.end"), Href: end, Post: true, Inputs: []page.Input{{Name: "id", Value: x.ID}}, Tone: page.Danger}}}
		if x.ID == own {
			last = page.Cell{Kind: page.KindBadge, Key: "sessions.this", Tone: page.Accent}
		}
		l.Rows = append(l.Rows, page.Row{Cells: []page.Cell{
			deviceCell(x.Device), {Kind: page.KindMono, Text: place}, {Kind: page.KindList, Items: shown},
			{Kind: page.KindTime, Time: x.Seen}, {Kind: page.KindTime, Time: x.Created}, last,
		}})
	}
	return l
}

func deviceCell(d session.Device) page.Cell {
	const other = "other"
	switch {
	case d.Browser == other && d.System == other && d.Kind == "program":
		return page.Cell{Key: "device.other", Strong: true}
	case d.Browser == other && d.System == other:
		return page.Cell{Key: "device.unknown", Strong: true}
	case d.Browser == other:
		return page.Cell{Text: d.System, Strong: true}
	case d.System == other:
		return page.Cell{Text: d.Browser, Strong: true}
	}
	return page.Cell{Text: d.Browser + ", " + d.System, Strong: true}
}

func (s *Server) showSessions(w http.ResponseWriter, r *request) error {
	all, err := s.app.Sessions.List(r.Context(), app.Tenant, r.session.Person)
	if err != nil {
		return err
	}
	l := sessionRows(all, r.session.ID, "/sessions/end")
	l.Secondary = []page.Action{{Label: page.T("notice.title"), Href: "/sessions/history"}}
	if len(all) > 1 {
		l.Secondary = append(l.Secondary, page.Action{Label: page.T("sessions.end_others"), Href: "/sessions/end-others", Post: true, Tone: page.Danger})
	}
	return s.show(w, r, http.StatusOK, page.T("sessions.title"), l)
}

// showNotices shows somebody what happened to their sign-in in the last 90 days.
func (s *Server) showNotices(w http.ResponseWriter, r *request) error {
	acc, err := s.app.AccountOf(r.Context(), r.self.ID.UUID())
	if err != nil {
		return err
	}
	all, err := s.app.Notices(r.Context(), acc, time.Now().AddDate(0, 0, -90))
	if err != nil {
		return err
	}
	l := noticeRows(all, r.session.ID)
	l.Secondary = []page.Action{{Label: page.T("sessions.title"), Href: "/sessions"}}
	return s.show(w, r, http.StatusOK, page.T("notice.title"), l)
}

// noticeRows shows what happened to somebody's sign-in.
func noticeRows(all []app.Notice, own string) *page.List {
	l := &page.List{
		ID: "notices", Title: page.T("notice.title"), Count: -1, Empty: page.Empty{Text: page.T("notice.none")},
		Columns: []page.Column{
			{Label: page.T("notice.at"), Kind: page.KindTime}, {Label: page.T("notice.what")}, {Label: page.T("notice.how")}, {Label: page.T("notice.by")},
		},
	}
	for _, n := range all {
		what := page.Cell{Kind: page.KindBadge, Key: "notice." + n.What, Tone: page.Neutral}
		if n.What == "failed" || n.What == "signal" {
			what.Tone = page.Warning
		}
		var how []page.Text
		for _, w := range n.Words {
			switch n.What {
			case "sign_in":
				how = append(how, page.T("method."+w))
			case "signal":
				how = append(how, page.T("signal."+w))
			default:
				how = append(how, page.T("notice."+n.What+"."+w))
			}
		}
		by := page.Cell{Key: "notice.other"}
		switch {
		case n.Session == own && n.Own:
			by = page.Cell{Kind: page.KindBadge, Key: "sessions.this", Tone: page.Accent}
		case n.What == "failed":
			by = page.Cell{Key: "notice.somebody"}
		case n.Own:
			by = page.Cell{Key: "notice.own"}
		}
		l.Rows = append(l.Rows, page.Row{Cells: []page.Cell{{Kind: page.KindTime, Time: n.At}, what, {Kind: page.KindList, Items: how}, by}})
	}
	return l
}

// managed registers what administrators do with the sign-in of others. Who may is the policy's answer for accounts; what changes something wants a fresh proof.
func (s *Server) managed(mux *http.ServeMux) {
	of := func(r *request, act authz.Action) (*app.Account, error) {
		u, err := id(r)
		if err != nil {
			return nil, err
		}
		return s.app.Managed(r.Context(), r.caller(), u, act)
	}
	s.handle(mux, "GET /employees/{id}/sign-in", func(w http.ResponseWriter, r *request) error {
		acc, err := of(r, authz.Read)
		if err != nil {
			return err
		}
		return s.accessPage(w, r, http.StatusOK, acc, page.Text{})
	})
	act := func(name string, do func(w http.ResponseWriter, r *request, acc *app.Account, back string) error) {
		s.handle(mux, "POST /employees/{id}/sign-in/"+name, func(w http.ResponseWriter, r *request) error {
			acc, err := of(r, authz.Update)
			if err != nil {
				return err
			}
			back := "/employees/" + acc.Employee.String() + "/sign-in"
			if acc.Employee == r.self.ID.UUID() && slices.Contains([]string{"password", "factors", "link", "unlink"}, name) {
				// Their own have pages that ask for the old password, and keep the factors apart from it.
				return &authz.DeniedError{Controls: []string{"account.self"}}
			}
			if r.fresh(session.Roles) != nil {
				return s.toStepUp(w, r, back)
			}
			return do(w, r, acc, back)
		})
	}
	by := func(r *request) string { return r.self.ID.String() }
	act("release", func(w http.ResponseWriter, r *request, acc *app.Account, back string) error {
		if err := s.app.Release(r.Context(), by(r), acc); err != nil {
			return err
		}
		return s.done(w, r, "saved", back, "")
	})
	act("end", func(w http.ResponseWriter, r *request, acc *app.Account, back string) error {
		if err := s.app.EndSession(r.Context(), by(r), acc.Employee.String(), r.PostFormValue("id")); err != nil {
			return err
		}
		return s.done(w, r, "ended", back, "")
	})
	act("end-all", func(w http.ResponseWriter, r *request, acc *app.Account, back string) error {
		keep := ""
		if acc.Employee.String() == r.session.Person {
			keep = r.session.ID
		}
		if err := s.app.EndSessions(r.Context(), by(r), acc.Employee.String(), keep); err != nil {
			return err
		}
		return s.done(w, r, "ended", back, "")
	})
	act("password", func(w http.ResponseWriter, r *request, acc *app.Account, _ string) error {
		once, err := s.app.ResetAccount(r.Context(), by(r), acc)
		if err != nil {
			return err
		}
		return s.accessPage(w, r, http.StatusOK, acc, page.T("access.password.once", once))
	})
	if s.app.SignOnName() != "" {
		act("link", func(w http.ResponseWriter, r *request, acc *app.Account, back string) error {
			err := s.app.LinkAccount(r.Context(), by(r), acc, subjectOf(r))
			if what := linkFault(err); !what.IsZero() {
				acc, err := s.app.AccountOf(r.Context(), acc.Employee)
				if err != nil {
					return err
				}
				return s.accessPage(w, r, http.StatusUnprocessableEntity, acc, what)
			}
			if err != nil {
				return err
			}
			return s.done(w, r, "saved", back, "")
		})
		act("unlink", func(w http.ResponseWriter, r *request, acc *app.Account, back string) error {
			if err := s.app.UnlinkAccount(r.Context(), by(r), acc); err != nil {
				return err
			}
			return s.done(w, r, "removed", back, "")
		})
	}
	act("factors", func(w http.ResponseWriter, r *request, acc *app.Account, back string) error {
		if err := s.app.ResetFactors(r.Context(), by(r), acc); err != nil {
			return err
		}
		return s.done(w, r, "removed", back, "")
	})
}

// accessPage is the page of somebody's sign-in. notice is said above it, such as a one-time password, this time only.
func (s *Server) accessPage(w http.ResponseWriter, r *request, status int, acc *app.Account, notice page.Text) error {
	ctx, person := r.Context(), acc.Employee.String()
	e := s.names.get(acc.Employee)
	if e == nil {
		return crm.ErrNotFound
	}
	base := "/employees/" + person + "/sign-in"
	all, err := s.app.Sessions.List(ctx, app.Tenant, person)
	if err != nil {
		return err
	}
	list := sessionRows(all, r.session.ID, base+"/end")
	if len(all) > 0 {
		list.Secondary = []page.Action{{Label: page.T("sessions.end_all"), Href: base + "/end-all", Post: true, Tone: page.Danger}}
	}
	locks, err := s.app.Locks(ctx, acc)
	if err != nil {
		return err
	}
	lock := page.Panel{Title: page.T("access.lock")}
	for _, x := range locks {
		lock.Facts = append(lock.Facts, page.Fact{Label: page.T("access.lock.until"), Cell: page.Cell{Kind: page.KindTime, Time: x.Until}},
			page.Fact{Label: page.T("access.lock.failures"), Cell: page.Cell{Kind: page.KindNumber, Amount: int64(x.Failures)}})
	}
	if len(locks) == 0 {
		lock.Note = page.T("access.lock.none")
	} else {
		lock.Actions = []page.Action{{Label: page.T("access.release"), Href: base + "/release", Post: true}}
	}
	f, err := s.app.FactorsOf(ctx, acc)
	if err != nil {
		return err
	}
	totp := "access.no"
	if f.TOTP {
		totp = "access.yes"
	}
	factors := page.Panel{Title: page.T("access.factors"), Note: page.T("access.factors.note"), Facts: []page.Fact{
		{Label: page.T("access.factors.passkeys"), Cell: page.Cell{Kind: page.KindNumber, Amount: int64(len(f.Passkeys))}},
		{Label: page.T("access.factors.totp"), Cell: page.Cell{Key: totp}},
		{Label: page.T("access.factors.codes"), Cell: page.Cell{Kind: page.KindNumber, Amount: int64(f.Codes)}},
	}}
	password := page.Panel{Title: page.T("access.password"), Note: page.T("access.password.note")}
	d := &page.Detail{Title: page.Cell{Text: e.Name.Expose()}, Subtitle: []page.Text{page.T("access.open")}, Lists: []page.List{*list},
		Secondary: []page.Action{{Label: page.T("act.back"), Href: "/employees/" + person}}}
	if acc.Employee == r.self.ID.UUID() {
		factors.Note, password.Note = page.T("access.self"), page.T("access.self")
	} else {
		password.Actions = []page.Action{{Label: page.T("access.password.reset"), Href: base + "/password", Post: true}}
		if acc.Second {
			factors.Actions = []page.Action{{Label: page.T("access.factors.reset"), Href: base + "/factors", Post: true, Tone: page.Danger}}
		}
	}
	d.Panels = []page.Panel{lock, password, factors}
	if link, ok := s.linkPanel(r, acc, base); ok {
		d.Panels = append(d.Panels, link)
	}
	d.Notice = notice
	return s.show(w, r, status, page.T("access.title", e.Name.Expose()), d)
}
