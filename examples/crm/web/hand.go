package web

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// handing are the acts by which a customer or a lead changes hands, or is kept, with what the page says afterwards.
var handing = map[string]string{
	"claim": "claimed", "assign": "assigned", "transfer": "transferred", "release": "released", "enter": "entered", "lock": "locked", "unlock": "unlocked",
}

// hand does one of them; to is who gets the record, or the pool that it is put into.
func (s *Server) hand(ctx context.Context, c guard.Caller, act string, t desk.Target, to string) error {
	d := s.app.Desk
	switch act {
	case "claim":
		return d.Claim(ctx, c, t)
	case "release":
		return d.Release(ctx, c, t)
	case "lock", "unlock":
		return d.Lock(ctx, c, t, act == "unlock")
	}
	id, err := crm.ParseUUID(to)
	if err != nil {
		field := "owner"
		if act == "enter" {
			field = "pool"
		}
		return &crm.InvalidError{Type: t.Type, Fields: []crm.FieldError{{Field: field, Rule: "required"}}}
	}
	switch act {
	case "assign":
		return d.Assign(ctx, c, t, crm.ID[crm.Employee](id))
	case "transfer":
		return d.Transfer(ctx, c, t, crm.ID[crm.Employee](id))
	case "enter":
		return d.Enter(ctx, c, t, crm.ID[pool.Pool](id))
	}
	return crm.ErrNotFound
}

// handRoutes registers the acts for a type of records that change hands.
func (k *resource[P]) handRoutes(s *Server, mux *http.ServeMux) {
	for act, flash := range handing {
		s.handle(mux, "POST /"+k.plural+"/{id}/"+act, func(w http.ResponseWriter, r *request) error {
			u, version, err := posted(r)
			if err != nil {
				return err
			}
			if err := s.hand(r.Context(), r.caller(), act, desk.Target{Type: k.typ, ID: u, Version: version}, r.PostFormValue("to")); err != nil {
				return err
			}
			// Who gave a record away may see it no more.
			to := "/" + k.plural
			if seen, err := k.titles(r, []crm.UUID{u}); err == nil && len(seen) > 0 {
				to += "/" + u.String()
			}
			return s.done(w, r, flash, to, k.typ)
		})
	}
}

// pooled reads what the rules of pools need to know of a record, for the types that change hands.
func pooled(v any) (pool.Record, bool) {
	switch x := v.(type) {
	case *crm.Customer:
		return pool.OfCustomer(x), true
	case *crm.Lead:
		return pool.OfLead(x), true
	}
	return pool.Record{}, false
}

// poolOf finds a living pool, nil when there is none of the id.
func (s *Server) poolOf(ctx context.Context, id crm.UUID) (*pool.Pool, error) {
	all, err := s.app.LivingPools(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if p.ID.UUID() == id {
			return p, nil
		}
	}
	return nil, nil
}

// held shows who has a record and since when, and offers what the caller may do about it: what the policy allows and, besides, the pool.
func (k *resource[P]) held(s *Server, r *request, d *page.Detail, v *guard.View[P], base string) error {
	rec, ok := pooled(any(v.Value))
	if !ok || v.Fields["pool"] != authz.Open {
		return nil
	}
	all, err := s.app.LivingPools(r.Context())
	if err != nil {
		return err
	}
	var in *pool.Pool
	var others []*pool.Pool
	for _, p := range all {
		switch {
		case p.ID.UUID() == rec.Pool:
			in = p
		case p.RecordType == k.typ:
			others = append(others, p)
		}
	}
	panel := page.Panel{Title: page.T("hand.title")}
	owner := page.Cell{Key: "hand.free"}
	if e := s.names.get(rec.Owner.UUID()); e != nil {
		owner = page.Cell{Text: e.Name.Expose()}
	}
	panel.Facts = append(panel.Facts, page.Fact{Label: page.T("field.owner"), Cell: owner})
	if !rec.Pool.IsZero() {
		panel.Facts = append(panel.Facts, s.poolFacts(rec, in)...)
	}
	if !rec.Deleted {
		if panel.Actions, err = k.handActions(s, r, v, rec, in, others, base); err != nil {
			return err
		}
	}
	d.Panels = append(d.Panels, panel)
	list, err := s.owners(r, k.typ, rec.ID)
	if err != nil {
		return err
	}
	if list != nil {
		d.Lists = append(d.Lists, *list)
	}
	return nil
}

// poolFacts is what a record has of its pool.
func (s *Server) poolFacts(rec pool.Record, in *pool.Pool) []page.Fact {
	name := page.Cell{Key: "hand.pool_gone"}
	if in != nil {
		name = page.Cell{Text: in.Name, Href: "/pools/" + in.ID.String()}
	}
	out := []page.Fact{{Label: page.T("field.pool"), Cell: name}}
	at := func(label string, t time.Time) {
		if !t.IsZero() {
			out = append(out, page.Fact{Label: page.T(label), Cell: page.Cell{Kind: page.KindTime, Time: t}})
		}
	}
	at("field.claimed_at", rec.ClaimedAt)
	if in != nil {
		back, _ := in.RecycleAt(rec)
		at("field.recycle_at", back)
	}
	if rec.Locked {
		out = append(out, page.Fact{Label: page.T("field.locked"), Cell: page.Cell{Kind: page.KindBadge, Key: "hand.locked", Tone: page.Accent}})
	}
	if e := s.names.get(rec.Former.UUID()); e != nil {
		out = append(out, page.Fact{Label: page.T("field.former"), Cell: page.Cell{Text: e.Name.Expose()}})
	}
	at("field.returned_at", rec.ReturnedAt)
	return out
}

// handActions are the buttons and small forms of the panel.
func (k *resource[P]) handActions(s *Server, r *request, v *guard.View[P], rec pool.Record, in *pool.Pool, others []*pool.Pool, base string) ([]page.Action, error) {
	var out []page.Action
	var failed error
	may := func(a authz.Action) bool {
		ok, _, err := k.records.May(r.Context(), r.caller(), a, v.Value)
		failed = errors.Join(failed, err)
		return ok && err == nil
	}
	add := func(act string, people []page.Option) {
		a := page.Action{Label: page.T("act." + act), Href: base + "/" + act, Post: true}
		if people != nil {
			label := "hand.to"
			if act == "enter" {
				label = "field.pool"
			}
			a.Fields = []page.Field{{Name: "to", ID: "f-" + act, Kind: page.FieldSelect, Label: page.T(label), Required: true, Options: people}}
		}
		out = append(out, a)
	}
	self := r.self.ID
	admin := in != nil && in.Admin(self)
	mine := rec.Owner == self
	var targets []page.Option // pools that it may be put into
	for _, p := range others {
		if p.Admin(self) && (in == nil || admin) || in == nil && mine {
			targets = append(targets, page.Option{Value: p.ID.String(), Label: page.Plain(p.Name)})
		}
	}
	switch {
	case !rec.Pool.IsZero() && in == nil: // nothing goes out of a pool that is in the recycle bin
	case rec.Owner.IsZero() && in != nil:
		if in.Member(self) && (in.Mode == pool.MembersClaim || admin) && may(authz.Claim) {
			add("claim", nil)
		}
		if people := s.staff(in, rec.Owner); admin && len(people) > 0 && may(authz.Assign) {
			add("assign", people)
		}
		if len(targets) > 0 && may(authz.Enter) {
			add("enter", targets)
		}
	case !rec.Owner.IsZero():
		if people := s.staff(in, rec.Owner); len(people) > 0 && (in == nil || admin || mine) && may(authz.Transfer) {
			add("transfer", people)
		}
		if in == nil {
			if len(targets) > 0 && may(authz.Enter) {
				add("enter", targets)
			}
			break
		}
		if (admin || mine && !rec.Locked) && may(authz.Release) {
			add("release", nil)
		}
		switch {
		case !admin && !mine, !rec.Locked && !admin && in.LockCap == 0, !may(authz.Lock):
		case rec.Locked:
			add("unlock", nil)
		default:
			add("lock", nil)
		}
	}
	return out, failed
}

// staff are those who may get a record: who works here and, where it is in a pool, is a member, but for who has it.
func (s *Server) staff(in *pool.Pool, owner crm.ID[crm.Employee]) []page.Option {
	s.names.mu.RLock()
	defer s.names.mu.RUnlock()
	var out []page.Option
	for u, e := range s.names.all {
		if e.Active() && e.ID != owner && (in == nil || in.Member(e.ID)) {
			out = append(out, page.Option{Value: u.String(), Label: page.Plain(e.Name.Expose())})
		}
	}
	slices.SortFunc(out, func(a, b page.Option) int { return strings.Compare(a.Label.Plain, b.Label.Plain) })
	return out
}

// owners is the history of who has had a record, for who may list it.
func (s *Server) owners(r *request, typ string, record crm.UUID) (*page.List, error) {
	if ok, _, err := s.app.Ownerships.MayOwn(r.Context(), r.caller(), authz.List); err != nil || !ok {
		return nil, err
	}
	p, err := s.app.Ownerships.List(r.Context(), r.caller(), guard.Query{Sort: "at", Desc: true, Limit: 20, Clauses: []crm.Clause{
		{Column: "record_type", Op: crm.Equal, Values: []crm.Value{crm.StringValue(typ)}},
		{Column: "record", Op: crm.Equal, Values: []crm.Value{crm.StringValue(record.String())}},
	}})
	if err != nil || len(p.Items) == 0 {
		return nil, err
	}
	l := &page.List{ID: "owners", Title: page.T("owners.title"), Count: -1, Columns: []page.Column{
		{Label: page.T("field.act")}, {Label: page.T("owners.change")}, {Label: page.T("field.done_by")}, {Label: page.T("field.at"), Kind: page.KindTime},
	}}
	for i := range p.Items {
		o := p.Items[i].Value
		l.Rows = append(l.Rows, page.Row{Cells: []page.Cell{
			{Key: "hand.act." + string(o.Act)}, {Key: "owners.from_to", Args: []any{s.whom(o.From, "hand.nobody"), s.whom(o.To, "hand.pool")}},
			{Key: "owners.by", Args: []any{s.whom(o.By, "hand.clock")}}, {Kind: page.KindTime, Time: o.At},
		}})
	}
	return l, nil
}

// whom names an employee; none is what the key says.
func (s *Server) whom(id crm.ID[crm.Employee], none string) page.Text {
	if id.IsZero() {
		return page.T(none)
	}
	return page.Plain(s.actor(id.String()))
}

// refused says in words why a pool refuses something.
func refused(e *pool.Refusal, p *page.Error) {
	p.Title, p.What = page.T("pool.refused"), page.T("pool.reason."+string(e.Reason))
	p.Kept, p.Do = page.T("error.404.kept"), page.T("pool.refused.do")
	if !e.Until.IsZero() {
		p.Do = page.T("pool.until", e.Until)
	}
}
