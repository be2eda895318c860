package web

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// pools registers the pages of pools.
func (s *Server) pools(mux *http.ServeMux) {
	s.handle(mux, "GET /pools", s.showPools)
	s.handle(mux, "GET /pools/new", func(w http.ResponseWriter, r *request) error {
		if err := s.mayMakePools(r, authz.Create, nil); err != nil {
			return err
		}
		return s.poolForm(w, r, http.StatusOK, newPool(r), nil)
	})
	s.handle(mux, "POST /pools", s.createPool)
	s.handle(mux, "GET /pools/{id}", s.showPool)
	s.handle(mux, "GET /pools/{id}/edit", func(w http.ResponseWriter, r *request) error {
		u, err := id(r)
		if err != nil {
			return err
		}
		v, err := s.app.Pools.Get(r.Context(), r.caller(), u)
		if err != nil {
			return err
		}
		if err := s.mayMakePools(r, authz.Update, v.Value); err != nil {
			return err
		}
		return s.poolForm(w, r, http.StatusOK, v.Value, nil)
	})
	s.handle(mux, "POST /pools/{id}", s.updatePool)
	s.handle(mux, "POST /pools/{id}/claim", s.claimFrom)
}

func (s *Server) mayListPools(r *request) bool {
	ok, _, err := s.app.Pools.MayOwn(r.Context(), r.caller(), authz.List)
	return ok && err == nil
}

// mayMakePools refuses who may not change a pool, or make one where p is nil.
func (s *Server) mayMakePools(r *request, a authz.Action, p *pool.Pool) error {
	var ok bool
	var err error
	if p == nil {
		ok, _, err = s.app.Pools.MayOwn(r.Context(), r.caller(), a)
	} else {
		ok, _, err = s.app.Pools.May(r.Context(), r.caller(), a, p)
	}
	if err == nil && !ok {
		err = &authz.DeniedError{Controls: []string{"access.granted"}}
	}
	return err
}

// free is the door to the records of a pool, whatever their type.
type free interface {
	// browsable tells whether the caller may see what is free in a pool.
	browsable(ctx context.Context, c guard.Caller, p *pool.Pool) (bool, error)
	// freeCount and heldCount count as far as the caller sees the records.
	freeCount(ctx context.Context, c guard.Caller, d *desk.Desk, p *pool.Pool) (int64, error)
	heldCount(ctx context.Context, c guard.Caller, p *pool.Pool) (int64, error)
	// freeList is a page of what is free, each with a button to claim it.
	freeList(s *Server, r *request, p *pool.Pool, q guard.Query, claims bool) (*page.List, error)
	freeRecords(ctx context.Context, c guard.Caller, d *desk.Desk, p *pool.Pool, q guard.Query) ([]apiRecord, string, error)
}

// freeOf returns the door to the records of a pool.
func (s *Server) freeOf(p *pool.Pool) (free, error) {
	if k, ok := s.kind(p.RecordType).(free); ok {
		return k, nil
	}
	return nil, crm.ErrNotFound
}

// freeColumns are what a pool shows of its records, beside what they are sorted by.
var freeColumns = map[string][]string{
	crm.TypeCustomer: {"name", "phone", "city"},
	crm.TypeLead:     {"name", "company", "phone", "city"},
}

// freeSorts are what they may be sorted by, the usual order first.
var freeSorts = map[string][]string{
	crm.TypeCustomer: {"returned_at", "last_follow_up", "created_at"},
	crm.TypeLead:     {"returned_at", "updated_at", "created_at"},
}

// freeIn is a record that is free in a pool, to ask the policy about.
func (k *resource[P]) freeIn(p *pool.Pool) P {
	v := k.records.New()
	switch x := any(v).(type) {
	case *crm.Customer:
		x.Pool, x.FreeIn = p.ID.UUID(), p.ID.UUID()
	case *crm.Lead:
		x.Pool, x.FreeIn = p.ID.UUID(), p.ID.UUID()
	}
	return v
}

func (k *resource[P]) browsable(ctx context.Context, c guard.Caller, p *pool.Pool) (bool, error) {
	if p.Deleted {
		return false, nil
	}
	ok, _, err := k.records.May(ctx, c, authz.Browse, k.freeIn(p))
	return ok, err
}

func (k *resource[P]) freeCount(ctx context.Context, c guard.Caller, d *desk.Desk, p *pool.Pool) (int64, error) {
	return k.counted(ctx, c, d.Browse(guard.Query{}, p))
}

func (k *resource[P]) heldCount(ctx context.Context, c guard.Caller, p *pool.Pool) (int64, error) {
	return k.counted(ctx, c, guard.Query{Clauses: []crm.Clause{
		{Column: "pool", Op: crm.Equal, Values: []crm.Value{crm.StringValue(p.ID.String())}}, {Column: "owner", Op: crm.NotNull},
	}})
}

func (k *resource[P]) freeRecords(ctx context.Context, c guard.Caller, d *desk.Desk, p *pool.Pool, q guard.Query) ([]apiRecord, string, error) {
	found, err := k.records.List(ctx, c, d.Browse(q, p))
	if err != nil {
		return nil, "", err
	}
	out := []apiRecord{}
	for i := range found.Items {
		out = append(out, k.record(&found.Items[i]))
	}
	return out, found.Next, nil
}

func (k *resource[P]) freeList(s *Server, r *request, p *pool.Pool, q guard.Query, claims bool) (*page.List, error) {
	found, err := k.records.List(r.Context(), r.caller(), s.app.Desk.Browse(q, p))
	if err != nil {
		return nil, err
	}
	columns := slices.Clone(freeColumns[k.typ])
	if q.Sort != "" {
		columns = append(columns, q.Sort)
	}
	columns = slices.DeleteFunc(columns, func(name string) bool { return slices.Contains(p.Hide, name) })
	l, err := k.table(s, r, found.Items, columns)
	if err != nil {
		return nil, err
	}
	l.ID, l.Title = "free", page.T("pool.free")
	l.Empty.Text = page.T("pool.empty")
	if claims {
		l.Columns = append(l.Columns, page.Column{Label: page.T("list.action"), Kind: page.KindActions})
	}
	for i := range l.Rows {
		l.Rows[i].Href = "" // it has no page before it is somebody's
		for j := range l.Rows[i].Cells {
			l.Rows[i].Cells[j].Href, l.Rows[i].Cells[j].RevealURL = "", ""
		}
		if claims {
			l.Rows[i].Cells = append(l.Rows[i].Cells, page.Cell{Kind: page.KindActions, Actions: []page.Action{{
				Label: page.T("act.claim"), Href: "/pools/" + p.ID.String() + "/claim", Post: true,
				Inputs: []page.Input{{Name: "record", Value: found.Items[i].Value.Header().ID.String()}},
			}}})
		}
	}
	l.NextHref = found.Next
	return l, nil
}

// standing is what the caller is in a pool.
func standing(p *pool.Pool, r *request) page.Cell {
	switch {
	case p.Admin(r.self.ID):
		return page.Cell{Kind: page.KindBadge, Key: "pool.you.admin", Tone: page.Accent}
	case p.Member(r.self.ID):
		return page.Cell{Kind: page.KindBadge, Key: "pool.you.member", Tone: page.Accent}
	}
	return page.Cell{}
}

// showPools lists the pools.
func (s *Server) showPools(w http.ResponseWriter, r *request) error {
	found, err := s.app.Pools.List(r.Context(), r.caller(), guard.Query{Sort: "name", After: r.FormValue("after"), Limit: 50})
	if err != nil {
		return err
	}
	l := &page.List{
		Title: page.T("nav.pools"), Count: -1, Empty: page.Empty{Text: page.T("empty.pool")}, Columns: []page.Column{
			{Label: page.T("field.pool.name")}, {Label: page.T("field.record_type")}, {Label: page.T("pool.you")}, {Label: page.T("field.clocks")},
			{Label: page.T("pool.caps")}, {Label: page.T("pool.free_count")}, {Label: page.T("pool.held_count")},
		},
		Policy: []page.Text{page.T("pool.counts.note")},
	}
	for i := range found.Items {
		p := found.Items[i].Value
		k, err := s.freeOf(p)
		if err != nil {
			return err
		}
		var freeN, heldN page.Cell // not said
		if ok, err := k.browsable(r.Context(), r.caller(), p); err != nil {
			return err
		} else if ok {
			n, err := k.freeCount(r.Context(), r.caller(), s.app.Desk, p)
			if err != nil {
				return err
			}
			freeN = page.Cell{Key: "pool.free_n", Args: []any{n}}
		}
		if s.kind(p.RecordType).visible(r) {
			n, err := k.heldCount(r.Context(), r.caller(), p)
			if err != nil {
				return err
			}
			heldN = page.Cell{Key: "pool.held_n", Args: []any{n}}
		}
		l.Rows = append(l.Rows, page.Row{Href: "/pools/" + p.ID.String(), Cells: []page.Cell{
			{Text: p.Name, Strong: true}, {Key: "type." + p.RecordType + ".many"}, standing(p, r), {Kind: page.KindList, Items: clocks(p)}, {Kind: page.KindList, Items: caps(p)}, freeN, heldN,
		}})
	}
	if found.Next != "" {
		l.NextHref = "/pools?after=" + url.QueryEscape(found.Next)
	}
	if s.mayMakePools(r, authz.Create, nil) == nil {
		l.Primary = &page.Action{Label: page.T("act.new.pool"), Href: "/pools/new"}
		l.Empty.Action = l.Primary
	}
	return s.show(w, r, http.StatusOK, l.Title, l)
}

// clocks says when records of a pool go back.
func clocks(p *pool.Pool) []page.Text {
	var out []page.Text
	for key, n := range map[string]int64{"pool.clock.1protect": p.Clocks.Protect, "pool.clock.2extend": p.Clocks.Extend, "pool.clock.3max": p.Clocks.Max} {
		if n > 0 {
			out = append(out, page.T(key, n))
		}
	}
	slices.SortFunc(out, func(a, b page.Text) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// caps says how much one member may have or do.
func caps(p *pool.Pool) []page.Text {
	var out []page.Text
	for key, n := range map[string]int64{"pool.cap.1hold": p.HoldCap, "pool.cap.2total": p.TotalCap, "pool.cap.3daily": p.DailyCap, "pool.cap.4lock": p.LockCap} {
		if n > 0 {
			out = append(out, page.T(key, n))
		}
	}
	slices.SortFunc(out, func(a, b page.Text) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// showPool is a pool with what is free in it.
func (s *Server) showPool(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	v, err := s.app.Pools.Get(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	p := v.Value
	k, err := s.freeOf(p)
	if err != nil {
		return err
	}
	base := "/pools/" + u.String()
	d := &page.Detail{
		Title: page.Cell{Text: p.Name, Strong: true}, Badge: &page.Cell{Kind: page.KindBadge, Key: "type." + p.RecordType + ".many"}, Version: p.Version,
		Subtitle: []page.Text{page.T("pool.mode." + string(p.Mode))},
	}
	if you := standing(p, r); you.Key != "" {
		d.Subtitle = append(d.Subtitle, page.T(you.Key))
	}
	ok, err := k.browsable(r.Context(), r.caller(), p)
	if err != nil {
		return err
	}
	switch {
	case p.Deleted:
		d.Notice = page.T("pool.reason.no_pool")
	case !ok:
		d.Notice = page.T("pool.reason.not_member")
	default:
		l, err := s.freePage(r, k, p, base)
		if err != nil {
			return err
		}
		d.Lists = append(d.Lists, *l)
	}
	d.Panels = s.poolPanels(p)
	if !p.Deleted && s.mayMakePools(r, authz.Update, p) == nil {
		d.Edit = base + "/edit"
	}
	return s.show(w, r, http.StatusOK, page.T("type.pool"), d)
}

// freePage is the list of what is free, sorted and cut as the address says.
func (s *Server) freePage(r *request, k free, p *pool.Pool, base string) (*page.List, error) {
	sorts := slices.DeleteFunc(slices.Clone(freeSorts[p.RecordType]), func(name string) bool { return slices.Contains(p.Hide, name) })
	q := guard.Query{After: r.FormValue("after"), Limit: 25, Desc: true}
	if len(sorts) > 0 {
		q.Sort = sorts[0]
	}
	if by := r.FormValue("sort"); slices.Contains(sorts, by) {
		q.Sort = by
	}
	claims := p.Member(r.self.ID) && (p.Mode == pool.MembersClaim || p.Admin(r.self.ID))
	l, err := k.freeList(s, r, p, q, claims)
	if err != nil {
		return nil, err
	}
	if l.Count, err = k.freeCount(r.Context(), r.caller(), s.app.Desk, p); err != nil {
		return nil, err
	}
	for _, name := range sorts {
		l.Chips = append(l.Chips, page.Chip{Label: page.T("pool.sort." + name), Href: base + "?sort=" + name, Active: name == q.Sort})
	}
	if l.NextHref != "" {
		l.NextHref = base + "?sort=" + q.Sort + "&after=" + url.QueryEscape(l.NextHref)
	}
	if q.After != "" {
		l.PrevHref = base + "?sort=" + q.Sort
	}
	return l, nil
}

// poolPanels are the rules and the people of a pool.
func (s *Server) poolPanels(p *pool.Pool) []page.Panel {
	rules := page.Panel{Title: page.T("pool.rules")}
	days := func(label string, n int64) {
		if n > 0 {
			rules.Facts = append(rules.Facts, page.Fact{Label: page.T(label), Cell: page.Cell{Kind: page.KindNumber, Amount: n}})
		}
	}
	days("field.pool.protect", p.Clocks.Protect)
	days("field.pool.extend", p.Clocks.Extend)
	days("field.pool.max", p.Clocks.Max)
	days("field.pool.remind_days", p.RemindDays)
	days("field.pool.hold_cap", p.HoldCap)
	days("field.pool.total_cap", p.TotalCap)
	days("field.pool.daily_cap", p.DailyCap)
	days("field.pool.lock_cap", p.LockCap)
	days("field.pool.cooldown", p.Cooldown)
	rules.Facts = append(rules.Facts, page.Fact{Label: page.T("field.pool.zone"), Cell: page.Cell{Text: cmp.Or(p.Zone, "UTC")}})
	if len(p.Hide) > 0 {
		c := page.Cell{Kind: page.KindList}
		for _, name := range p.Hide {
			c.Items = append(c.Items, page.T("field."+p.RecordType+"."+name))
		}
		rules.Facts = append(rules.Facts, page.Fact{Label: page.T("field.pool.hide"), Cell: c})
	}
	people := page.Panel{Title: page.T("pool.people")}
	names := func(ids []crm.ID[crm.Employee]) page.Cell {
		c := page.Cell{Kind: page.KindList}
		for _, e := range ids {
			c.Items = append(c.Items, page.Plain(s.actor(e.String())))
		}
		return c
	}
	people.Facts = []page.Fact{{Label: page.T("field.pool.admins"), Cell: names(p.Admins)}, {Label: page.T("field.pool.members"), Cell: names(p.Members)}}
	return []page.Panel{rules, people}
}

// claimFrom claims a record from the page of its pool. Who was too late is told so.
func (s *Server) claimFrom(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	record, err := crm.ParseUUID(r.PostFormValue("record"))
	if err != nil {
		return errBadRequest
	}
	v, err := s.app.Pools.Get(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	p := v.Value
	if err := s.claim(r.Context(), r.caller(), p, r.self.ID, record); err != nil {
		return err
	}
	k := s.kind(p.RecordType)
	return s.done(w, r, "claimed", "/"+k.path()+"/"+record.String(), p.RecordType)
}

// claim claims a record of a pool. To a member a record that is free no longer is one that somebody has; who is none learns of nothing.
func (s *Server) claim(ctx context.Context, c guard.Caller, p *pool.Pool, self crm.ID[crm.Employee], record crm.UUID) error {
	err := s.app.Desk.Claim(ctx, c, desk.Target{Type: p.RecordType, ID: record})
	if (errors.Is(err, crm.ErrNotFound) || errors.Is(err, crm.ErrConflict)) && p.Member(self) && !p.Deleted {
		return &pool.Refusal{Act: pool.Claim, Reason: pool.Owned}
	}
	return err
}

// hideable are the fields that a pool may hide before the claim.
var hideable = map[string][]string{
	crm.TypeCustomer: {"name", "contact", "phone", "phone2", "email", "address", "website", "note", "city", "country", "industry", "source", "open_value", "last_follow_up"},
	crm.TypeLead:     {"name", "company", "title", "phone", "email", "note", "city", "country", "source", "last_follow_up"},
}

func newPool(r *request) *pool.Pool {
	return &pool.Pool{
		RecordType: crm.TypeCustomer, Mode: pool.MembersClaim, Clocks: pool.Clocks{Protect: 10, Extend: 7, Max: 90}, HoldCap: 50, DailyCap: 10,
		RemindDays: 3, Zone: "Asia/Shanghai", Admins: []crm.ID[crm.Employee]{r.self.ID},
	}
}

// poolForm shows a pool as inputs.
func (s *Server) poolForm(w http.ResponseWriter, r *request, status int, p *pool.Pool, problem error) error {
	action, title := "/pools", page.T("act.new.pool")
	if p.Version > 0 {
		action, title = "/pools/"+p.ID.String(), page.T("form.edit.pool")
	}
	f := &page.Form{Title: title, Action: action, Version: p.Version, Submit: page.T("act.save"), Cancel: action}
	rules := map[string][]page.Text{}
	var invalid *crm.InvalidError
	switch {
	case problem == nil:
	case errors.As(problem, &invalid):
		f.Errors = []page.Text{page.T("form.invalid")}
		for _, e := range invalid.Fields {
			name := strings.TrimPrefix(e.Field, "clocks.")
			rules[name] = append(rules[name], page.T("rule."+e.Rule))
		}
	default:
		return problem
	}
	label := func(name string) page.Text { return page.T("field.pool." + name) }
	number := func(name string, n int64) page.Field {
		return page.Field{Name: name, Kind: page.FieldNumber, Label: label(name), Value: strconv.FormatInt(n, 10), Help: page.T("pool.help." + name), Errors: rules[name]}
	}
	ids := func(list []crm.ID[crm.Employee]) []string {
		var out []string
		for _, e := range list {
			out = append(out, e.String())
		}
		return out
	}
	people := s.staff(nil, crm.ID[crm.Employee]{})
	kind := page.Field{
		Name: "record_type", Kind: page.FieldSelect, Label: page.T("field.record_type"), Value: p.RecordType, Fixed: p.Version > 0, Errors: rules["record_type"],
		Options: []page.Option{{Value: crm.TypeCustomer, Label: page.T("type.customer.many")}, {Value: crm.TypeLead, Label: page.T("type.lead.many")}},
	}
	hide := page.Field{Name: "hide", Kind: page.FieldChecks, Label: label("hide"), Values: p.Hide, Wide: true, Help: page.T("pool.help.hide"), Errors: rules["hide"]}
	for _, typ := range []string{crm.TypeCustomer, crm.TypeLead} {
		for _, name := range hideable[typ] {
			if (p.Version == 0 || typ == p.RecordType) && !slices.ContainsFunc(hide.Options, func(o page.Option) bool { return o.Value == name }) {
				hide.Options = append(hide.Options, page.Option{Value: name, Label: page.T("field." + typ + "." + name)})
			}
		}
	}
	won := ""
	if p.CountWon {
		won = "on"
	}
	f.Sections = []page.FormSection{
		{Title: page.T("section.main"), Fields: []page.Field{
			{Name: "name", Label: label("name"), Value: p.Name, Required: true, Errors: rules["name"]}, kind,
			{Name: "mode", Kind: page.FieldSelect, Label: label("mode"), Value: string(p.Mode), Errors: rules["mode"], Options: []page.Option{
				{Value: string(pool.MembersClaim), Label: page.T("pool.mode.claim")}, {Value: string(pool.AdminsAssign), Label: page.T("pool.mode.assign")},
			}},
			{Name: "zone", Label: label("zone"), Value: p.Zone, Help: page.T("pool.help.zone"), Errors: rules["zone"]},
		}},
		{Title: page.T("pool.people"), Fields: []page.Field{
			{Name: "admins", Kind: page.FieldChecks, Label: label("admins"), Values: ids(p.Admins), Options: people, Wide: true, Errors: rules["admins"]},
			{Name: "members", Kind: page.FieldChecks, Label: label("members"), Values: ids(p.Members), Options: people, Wide: true, Errors: rules["members"]},
		}},
		{Title: page.T("field.clocks"), Fields: []page.Field{
			number("protect", p.Clocks.Protect), number("extend", p.Clocks.Extend), number("max", p.Clocks.Max), number("remind_days", p.RemindDays),
		}},
		{Title: page.T("pool.caps"), Fields: []page.Field{
			number("hold_cap", p.HoldCap), number("total_cap", p.TotalCap), number("daily_cap", p.DailyCap), number("lock_cap", p.LockCap), number("cooldown", p.Cooldown),
			{Name: "count_won", Kind: page.FieldCheckbox, Label: label("count_won"), Value: won},
		}},
		{Fields: []page.Field{hide}},
	}
	return s.show(w, r, status, title, f)
}

// readPool sets a pool from a posted form.
func readPool(r *request, p *pool.Pool) error {
	invalid := &crm.InvalidError{Type: crm.TypePool}
	get := func(name string) string { return strings.TrimSpace(r.PostForm.Get(name)) }
	p.Name, p.Zone, p.Mode, p.CountWon = get("name"), get("zone"), pool.Mode(get("mode")), get("count_won") == "on"
	if p.Version == 0 {
		p.RecordType = get("record_type")
	}
	for name, n := range map[string]*int64{
		"protect": &p.Clocks.Protect, "extend": &p.Clocks.Extend, "max": &p.Clocks.Max, "remind_days": &p.RemindDays,
		"hold_cap": &p.HoldCap, "total_cap": &p.TotalCap, "daily_cap": &p.DailyCap, "lock_cap": &p.LockCap, "cooldown": &p.Cooldown,
	} {
		v, err := strconv.ParseInt(cmp.Or(get(name), "0"), 10, 64)
		if err != nil {
			invalid.Fields = append(invalid.Fields, crm.FieldError{Field: name, Rule: "not_a_number"})
			continue
		}
		*n = v
	}
	for name, list := range map[string]*[]crm.ID[crm.Employee]{"admins": &p.Admins, "members": &p.Members} {
		*list = nil
		for _, text := range r.PostForm[name] {
			u, err := crm.ParseUUID(text)
			if err != nil {
				invalid.Fields = append(invalid.Fields, crm.FieldError{Field: name, Rule: "bad_reference"})
				break
			}
			*list = append(*list, crm.ID[crm.Employee](u))
		}
	}
	p.Hide = slices.DeleteFunc(slices.Clone(r.PostForm["hide"]), func(name string) bool { return !slices.Contains(hideable[p.RecordType], name) })
	if len(invalid.Fields) > 0 {
		return invalid
	}
	return nil
}

func (s *Server) createPool(w http.ResponseWriter, r *request) error {
	p := &pool.Pool{}
	err := readPool(r, p)
	if err == nil {
		_, err = s.app.Pools.Create(r.Context(), r.caller(), p)
	}
	if err != nil {
		p.Version = 0
		return s.poolForm(w, r, statusOf(err), p, err)
	}
	return s.done(w, r, "created", "/pools/"+p.ID.String(), crm.TypePool)
}

func (s *Server) updatePool(w http.ResponseWriter, r *request) error {
	u, version, err := posted(r)
	if err != nil {
		return err
	}
	v, err := s.app.Pools.Get(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	if v.Value.Version != version {
		return crm.ErrConflict
	}
	next := *v.Value
	if err = readPool(r, &next); err == nil {
		// Who was a member and works here no more is in no form, and stays: what they have is theirs until it is handed over.
		s.keepLeft(&next, v.Value)
		_, err = s.app.Pools.Update(r.Context(), r.caller(), &next)
	}
	if err != nil {
		return s.poolForm(w, r, statusOf(err), &next, err)
	}
	if next.Clocks != v.Value.Clocks || next.Zone != v.Value.Zone {
		if err := s.reclock(context.WithoutCancel(r.Context()), &next); err != nil {
			return err
		}
	}
	return s.done(w, r, "saved", "/pools/"+u.String(), crm.TypePool)
}

// keepLeft keeps the members who work here no more.
func (s *Server) keepLeft(next, prev *pool.Pool) {
	for _, l := range []struct{ now, was *[]crm.ID[crm.Employee] }{{&next.Members, &prev.Members}, {&next.Admins, &prev.Admins}} {
		for _, e := range *l.was {
			if who := s.names.get(e.UUID()); (who == nil || !who.Active()) && !slices.Contains(*l.now, e) {
				*l.now = append(*l.now, e)
			}
		}
	}
}

// reclock brings the records of a pool to its new clocks. Who changes a record meanwhile makes it look again; what is left then is
// brought to them by the daily run.
func (s *Server) reclock(ctx context.Context, p *pool.Pool) error {
	var err error
	for range 5 {
		if _, err = s.app.Desk.Reclock(ctx, app.System("reclock"), p); !errors.Is(err, crm.ErrConflict) {
			return err
		}
	}
	return nil
}

// goingBack lists the caller's own records of a type that go back to their pool soon, as each pool says when its owner is told.
func (k *resource[P]) goingBack(s *Server, r *request) (*page.List, error) {
	all, err := s.app.LivingPools(r.Context())
	if err != nil || !k.hands || !k.visible(r) {
		return nil, err
	}
	var most int64
	for _, p := range all {
		if p.RecordType == k.typ && p.Member(r.self.ID) {
			most = max(most, p.RemindDays)
		}
	}
	if most == 0 {
		return nil, nil
	}
	found, err := k.records.List(r.Context(), r.caller(), guard.Query{Sort: "recycle_at", Limit: 25, Clauses: []crm.Clause{
		{Column: "owner", Op: crm.Equal, Values: []crm.Value{crm.StringValue(r.self.ID.String())}},
		{Column: "recycle_at", Op: crm.LessOrEqual, Values: []crm.Value{crm.TimeValue(time.Now().AddDate(0, 0, int(most)+1))}},
	}})
	if err != nil {
		return nil, err
	}
	l := &page.List{ID: "back-" + k.plural, Title: page.T("home.back", page.T("type."+k.typ+".many")), Count: -1, Columns: []page.Column{
		{Label: k.label(k.title)}, {Label: page.T("field.pool")}, {Label: page.T("field.recycle_at"), Kind: page.KindDate},
	}}
	now := time.Now()
	for i := range found.Items {
		v := &found.Items[i]
		rec, _ := pooled(any(v.Value))
		p, err := s.poolOf(r.Context(), rec.Pool)
		if err != nil {
			return nil, err
		}
		if p == nil {
			continue
		}
		told, ok := p.RemindAt(rec)
		at, _ := p.RecycleAt(rec)
		if !ok || now.Before(told) {
			continue
		}
		c := k.titleCell(v)
		c.RevealURL = ""
		l.Rows = append(l.Rows, page.Row{Href: "/" + k.plural + "/" + rec.ID.String(), Cells: []page.Cell{
			c, {Text: p.Name}, {Kind: page.KindDate, Time: at},
		}})
	}
	if len(l.Rows) == 0 {
		return nil, nil
	}
	return l, nil
}
