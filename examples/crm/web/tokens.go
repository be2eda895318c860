package web

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/authn/token"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// tokens registers the tokens of programs: those of oneself, and those of others to who may change employees.
func (s *Server) tokens(mux *http.ServeMux) {
	s.handle(mux, "GET /security/tokens", func(w http.ResponseWriter, r *request) error {
		return s.tokenPage(w, r, http.StatusOK, r.self, page.Text{}, page.Text{})
	})
	own := func(pattern string, do func(w http.ResponseWriter, r *request, owner *crm.Employee) error) {
		s.handle(mux, "POST /security/tokens"+pattern, func(w http.ResponseWriter, r *request) error {
			if r.fresh(session.Factors) != nil {
				return s.toStepUp(w, r, "/security/tokens")
			}
			return do(w, r, r.self)
		})
	}
	own("", s.makeToken)
	own("/revoke", s.revokeToken)

	of := func(r *request, act authz.Action) (*crm.Employee, error) {
		u, err := id(r)
		if err != nil {
			return nil, err
		}
		if _, err := s.app.Employees.Authorize(r.Context(), r.caller(), act, u); err != nil {
			return nil, err
		}
		e := s.names.get(u)
		if e == nil {
			return nil, crm.ErrNotFound
		}
		return e, nil
	}
	s.handle(mux, "GET /employees/{id}/tokens", func(w http.ResponseWriter, r *request) error {
		e, err := of(r, authz.Update)
		if err != nil {
			return err
		}
		return s.tokenPage(w, r, http.StatusOK, e, page.Text{}, page.Text{})
	})
	others := func(pattern string, do func(w http.ResponseWriter, r *request, owner *crm.Employee) error) {
		s.handle(mux, "POST /employees/{id}/tokens"+pattern, func(w http.ResponseWriter, r *request) error {
			e, err := of(r, authz.Update)
			if err != nil {
				return err
			}
			if r.fresh(session.Roles) != nil {
				return s.toStepUp(w, r, "/employees/"+e.ID.String()+"/tokens")
			}
			return do(w, r, e)
		})
	}
	others("", func(w http.ResponseWriter, r *request, e *crm.Employee) error {
		if ok, err := s.app.ServiceAccount(r.Context(), e.ID.UUID()); err != nil {
			return err
		} else if !ok { // it would act as somebody else
			return &authz.DeniedError{Controls: []string{"token.owner"}}
		}
		return s.makeToken(w, r, e)
	})
	others("/revoke", s.revokeToken)
}

// tokensAt is the page of an owner's tokens.
func tokensAt(r *request, owner *crm.Employee) string {
	if owner.ID == r.self.ID {
		return "/security/tokens"
	}
	return "/employees/" + owner.ID.String() + "/tokens"
}

func (s *Server) revokeToken(w http.ResponseWriter, r *request, owner *crm.Employee) error {
	if err := s.app.RevokeToken(r.Context(), r.self.ID.String(), owner.ID.UUID(), r.PostFormValue("id")); err != nil {
		return err
	}
	return s.done(w, r, "ended", tokensAt(r, owner), "")
}

func (s *Server) makeToken(w http.ResponseWriter, r *request, owner *crm.Employee) error {
	ask := app.TokenAsk{Name: strings.TrimSpace(r.PostFormValue("name"))}
	refuse := func(key string) error {
		return s.tokenPage(w, r, http.StatusUnprocessableEntity, owner, page.Text{}, page.T(key))
	}
	for _, t := range r.PostForm["reads"] {
		ask.Scopes = append(ask.Scopes, t+":"+app.TokenRead)
	}
	ask.Scopes = append(ask.Scopes, r.PostForm["acts"]...)
	for _, n := range strings.FieldsFunc(r.PostFormValue("sources"), func(c rune) bool { return c == ',' || c == ' ' }) {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			return refuse("token.wrong.sources")
		}
		ask.Sources = append(ask.Sources, p)
	}
	days, err := strconv.Atoi(r.PostFormValue("days"))
	if err != nil || !slices.Contains(app.TokenDays, days) {
		return errBadRequest
	}
	ask.Days = days
	_, secret, err := s.app.MakeToken(r.Context(), r.self.ID.String(), owner.ID.UUID(), ask)
	var invalid *token.InvalidError
	switch {
	case errors.As(err, &invalid) && slices.Contains([]string{"name", "scopes", "sources"}, invalid.Field):
		return refuse("token.wrong." + invalid.Field)
	case errors.Is(err, app.ErrScope):
		return errBadRequest
	case errors.Is(err, app.ErrTokenOwner):
		return refuse("token.wrong.owner")
	case errors.Is(err, app.ErrTokens):
		return refuse("token.wrong.many")
	case err != nil:
		return err
	}
	return s.tokenPage(w, r, http.StatusOK, owner, page.T("token.made", secret.Reveal()), page.Text{})
}

// tokenPage lists the tokens of an owner, and offers another one to who may make it. made has a new one, shown this time only.
func (s *Server) tokenPage(w http.ResponseWriter, r *request, status int, owner *crm.Employee, made, problem page.Text) error {
	all, err := s.app.Tokens(r.Context(), owner.ID.UUID())
	if err != nil {
		return err
	}
	at := tokensAt(r, owner)
	l := page.List{
		ID: "tokens", Title: page.T("token.title"), Count: -1, Empty: page.Empty{Text: page.T("token.none")},
		Columns: []page.Column{
			{Label: page.T("field.name")}, {Label: page.T("token.id")}, {Label: page.T("token.scope")}, {Label: page.T("token.sources")}, {Label: page.T("token.used"), Kind: page.KindTime},
			{Label: page.T("token.expires"), Kind: page.KindTime}, {Kind: page.KindActions},
		},
	}
	for i := range all {
		t := &all[i]
		var sources []string
		for _, p := range t.Sources {
			sources = append(sources, p.String())
		}
		last := page.Cell{Kind: page.KindActions, Actions: []page.Action{{Label: page.T("token.revoke"), Href: at + "/revoke", Post: true, Inputs: []page.Input{{Name: "id", Value: t.ID}}, Tone: page.Danger}}}
		switch {
		case !t.Revoked.IsZero():
			last = page.Cell{Kind: page.KindBadge, Key: "token.revoked", Tone: page.Neutral}
		case s.app.TokenExpired(t):
			last = page.Cell{Kind: page.KindBadge, Key: "token.expired", Tone: page.Neutral}
		}
		l.Rows = append(l.Rows, page.Row{Cells: []page.Cell{
			{Text: t.Name, Strong: true}, {Kind: page.KindMono, Text: t.ID}, {Kind: page.KindMono, Text: strings.Join(t.Scopes, " ")}, {Kind: page.KindMono, Text: strings.Join(sources, " ")},
			{Kind: page.KindTime, Time: t.LastUsed}, {Kind: page.KindTime, Time: t.Expires}, last,
		}})
	}
	d := &page.Detail{Title: page.Cell{Text: owner.Name.Expose()}, Subtitle: []page.Text{page.T("token.title")}, Lists: []page.List{l}, Notice: made}
	if !problem.IsZero() {
		d.Notice = problem
	}
	back := "/security"
	may := owner.ID == r.self.ID
	if !may {
		back = "/employees/" + owner.ID.String()
		if may, err = s.app.ServiceAccount(r.Context(), owner.ID.UUID()); err != nil {
			return err
		}
	}
	d.Secondary = []page.Action{{Label: page.T("act.back"), Href: back}}
	panel := page.Panel{Title: page.T("token.new"), Note: page.T("token.note")}
	if may {
		panel.Actions = []page.Action{{Label: page.T("token.make"), Href: at, Post: true, Fields: tokenFields()}}
	} else {
		panel.Note = page.T("token.theirs")
	}
	d.Panels = []page.Panel{panel}
	return s.show(w, r, status, page.T("token.title"), d)
}

// tokenFields ask what a token is to be.
func tokenFields() []page.Field {
	reads := []page.Option{{Value: "*", Label: page.T("token.everything")}}
	var acts, days []page.Option
	for _, t := range app.TokenTypes {
		reads = append(reads, page.Option{Value: t, Label: page.T("type." + t + ".many")})
		for _, a := range app.TokenActs(t) {
			acts = append(acts, page.Option{Value: t + ":" + string(a), Label: page.T("format.pair", page.T("type."+t), page.T("token.act."+string(a)))})
		}
	}
	for _, n := range app.TokenDays {
		days = append(days, page.Option{Value: strconv.Itoa(n), Label: page.T("token.days", int64(n))})
	}
	return []page.Field{
		{Name: "name", ID: "token-name", Label: page.T("token.for"), Required: true},
		{Name: "reads", ID: "token-reads", Kind: page.FieldChecks, Label: page.T("token.reads"), Options: reads, Wide: true},
		{Name: "acts", ID: "token-acts", Kind: page.FieldChecks, Label: page.T("token.acts"), Options: acts, Wide: true},
		{Name: "sources", ID: "token-sources", Label: page.T("token.sources"), Help: page.T("token.sources.help")},
		{Name: "days", ID: "token-days", Kind: page.FieldSelect, Label: page.T("token.life"), Options: days, Value: strconv.Itoa(app.TokenDays[1])},
	}
}
