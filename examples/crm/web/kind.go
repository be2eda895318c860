package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/normalize"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// kind is one type of record as the pages see it, whatever the type.
type kind interface {
	name() string // customer
	path() string // customers
	routes(s *Server, mux *http.ServeMux)
	// visible tells whether the caller may list the type at all.
	visible(r *request) bool
	// related lists the newest records that belong to a customer, nil when the caller sees none.
	related(r *request, s *Server, customer crm.UUID, limit int) (*page.List, error)
	// search returns the matches of a term in the indexed fields.
	search(r *request, s *Server, term string) (*page.List, error)
	// titles names records that others refer to, as the caller may see them.
	titles(r *request, ids []crm.UUID) (map[crm.UUID]page.Cell, error)
	count(r *request, q guard.Query) (int64, error)
}

// field is one input of a form.
type field struct {
	name     string
	kind     page.FieldKind
	required bool
	options  []string // of a select; their labels are in the catalogues
	labels   string   // prefix of the labels: state, kind, priority, channel; "" shows the value
	wide     bool
	create   bool // only when the record is made
}

// section is a card of fields.
type section struct {
	title  string // key below "section."
	fields []field
}

// resource is the kind of T.
type resource[T any] struct {
	typ, plural string
	records     *guard.Records[T]
	title       string   // the field that names a record
	list        []string // columns of the list
	sections    []section
	badge       string   // the field that says where a record stands
	searchable  []string // indexed fields
	sort        string
	moves       func(v *T) []string
	move        func(v *T, to string, at time.Time) error
	prepare     func(v *T, r *http.Request) []error // sets what a form cannot say, before a record is stored
	lines       bool                                // a quote has lines
	money       []string                            // fields in minor units of the field currency
	tabs        []string                            // types that belong to it
	ofCustomer  bool                                // made from a customer's page only
	refs        map[string]string                   // field -> type it refers to
	header      func(v *T) crm.Header
	byName      map[string]encrypt.Field
}

func (k *resource[T]) name() string { return k.typ }
func (k *resource[T]) path() string { return k.plural }

func (k *resource[T]) routes(s *Server, mux *http.ServeMux) {
	p := "/" + k.plural
	with := func(h func(*Server, http.ResponseWriter, *request) error) func(http.ResponseWriter, *request) error {
		return func(w http.ResponseWriter, r *request) error { return h(s, w, r) }
	}
	s.handle(mux, "GET "+p, with(k.showList))
	s.handle(mux, "GET "+p+"/new", with(k.showNew))
	s.handle(mux, "POST "+p, with(k.create))
	s.handle(mux, "GET "+p+"/{id}", with(k.showDetail))
	s.handle(mux, "GET "+p+"/{id}/edit", with(k.showEdit))
	s.handle(mux, "POST "+p+"/{id}", with(k.update))
	s.handle(mux, "POST "+p+"/{id}/delete", with(k.remove))
	s.handle(mux, "POST "+p+"/{id}/restore", with(k.restore))
	s.handle(mux, "POST "+p+"/{id}/move", with(k.changeState))
	s.handle(mux, "GET "+p+"/{id}/reveal/{field}", with(k.showReveal))
	s.handle(mux, "POST "+p+"/{id}/reveal/{field}", with(k.reveal))
}

// id reads the record's id from the path.
func id(r *request) (crm.UUID, error) {
	u, err := crm.ParseUUID(r.PathValue("id"))
	if err != nil {
		return u, crm.ErrNotFound
	}
	return u, nil
}

func (k *resource[T]) visible(r *request) bool {
	ok, _, err := k.records.May(r.Context(), r.caller(), authz.List, nil)
	return ok && err == nil
}

// value returns a field of v by its stored name.
func (k *resource[T]) value(v *T, name string) reflect.Value {
	return reflect.ValueOf(v).Elem().FieldByName(k.byName[name].GoName)
}

// seers names a role that sees a hidden field, for who wonders.
var seers = map[encrypt.Class]string{encrypt.Sensitive: "finance", encrypt.Financial: "finance", encrypt.Personal: "manager"}

// cell shows one field of a view.
func (k *resource[T]) cell(v *guard.View[T], name string, refs map[crm.UUID]page.Cell, names *directory) page.Cell {
	f := k.byName[name]
	val := k.value(&v.Value, name)
	href := "/" + k.plural + "/" + k.header(&v.Value).ID.String()
	if v.Fields[name] == authz.Hidden {
		return page.Cell{State: page.Hidden, Role: page.T("role." + seers[f.Class])}
	}
	switch x := val.Interface().(type) {
	case crm.Text:
		c := page.Cell{Text: x.Expose(), State: page.State(x.State()), Strong: name == k.title}
		if x.State() == crm.Masked {
			c.RevealURL = href + "/reveal/" + name
		}
		if name == "note" || name == "body" || name == "text" {
			c.Kind = page.KindLong
		}
		return c
	case time.Time:
		if name == "starts" || name == "ends" || name == "valid_until" || name == "joined" || name == "left" {
			return page.Cell{Kind: page.KindDate, Time: x}
		}
		return page.Cell{Kind: page.KindTime, Time: x}
	case bool:
		if x {
			return page.Cell{Text: "✓"}
		}
		return page.Cell{}
	case []string:
		c := page.Cell{Kind: page.KindList}
		for _, s := range x {
			c.Items = append(c.Items, page.T("role."+s))
		}
		return c
	case crm.ID[crm.Employee]:
		if e := names.get(x.UUID()); e != nil {
			return page.Cell{Text: e.Name.Expose()}
		}
		return page.Cell{}
	}
	if u, ok := asUUID(val); ok {
		if u.IsZero() {
			return page.Cell{}
		}
		if c, ok := refs[u]; ok {
			return c
		}
		return page.Cell{Kind: page.KindMono, Text: u.String()[:8]}
	}
	switch val.Kind() {
	case reflect.Int64, reflect.Int:
		if slices.Contains(k.money, name) {
			c := page.Cell{Kind: page.KindMoney, Amount: val.Int()}
			if _, ok := k.byName["currency"]; ok {
				c.Currency = k.value(&v.Value, "currency").String()
			}
			if c.Amount == 0 {
				return page.Cell{Kind: page.KindMoney}
			}
			return c
		}
		return page.Cell{Kind: page.KindNumber, Amount: val.Int()}
	case reflect.String:
		s := val.String()
		if s == "" {
			return page.Cell{}
		}
		switch name {
		case "state", "stage":
			return page.Cell{Kind: page.KindBadge, Key: "state." + k.typ + "." + s, Tone: tone(s)}
		case "kind", "priority", "channel":
			return page.Cell{Key: name + "." + s}
		case "subject_type":
			return page.Cell{Key: "type." + s}
		}
		return page.Cell{Text: s, Strong: name == k.title}
	}
	return page.Cell{}
}

// asUUID reads an id of any type.
func asUUID(v reflect.Value) (crm.UUID, bool) {
	if v.Kind() != reflect.Array || v.Len() != 16 || v.Type().Elem().Kind() != reflect.Uint8 {
		return crm.UUID{}, false
	}
	return v.Convert(reflect.TypeFor[crm.UUID]()).Interface().(crm.UUID), true
}

// tone colours states: what goes well, what waits, what is wrong.
func tone(state string) page.Tone {
	switch state {
	case "contracting", "won", "accepted", "active", "approved", "resolved", "qualified", "converted":
		return page.Accent
	case "at_risk", "dormant", "sent", "suspended", "expired":
		return page.Warning
	case "payment_overdue", "lost", "declined", "terminated", "junk":
		return page.Danger
	}
	return page.Neutral
}

// references names the records that the views refer to, one reading for each type.
func (k *resource[T]) references(s *Server, r *request, views []guard.View[T], fields []string) (map[crm.UUID]page.Cell, error) {
	wanted := map[string][]crm.UUID{}
	for _, name := range fields {
		typ, ok := k.refs[name]
		if !ok {
			continue
		}
		for i := range views {
			if u, ok := asUUID(k.value(&views[i].Value, name)); ok && !u.IsZero() && !slices.Contains(wanted[typ], u) {
				wanted[typ] = append(wanted[typ], u)
			}
		}
	}
	out := map[crm.UUID]page.Cell{}
	for typ, ids := range wanted {
		other := s.kind(typ)
		if other == nil {
			continue
		}
		cells, err := other.titles(r, ids)
		if err != nil {
			return nil, err
		}
		for u, c := range cells {
			out[u] = c
		}
	}
	return out, nil
}

func (s *Server) kind(name string) kind {
	for _, k := range s.kinds {
		if k.name() == name {
			return k
		}
	}
	return nil
}

func (k *resource[T]) titles(r *request, ids []crm.UUID) (map[crm.UUID]page.Cell, error) {
	out := map[crm.UUID]page.Cell{}
	if !k.visible(r) {
		return out, nil
	}
	views, err := k.records.GetAll(r.Context(), r.caller(), ids)
	if err != nil {
		return nil, err
	}
	for i := range views {
		u := k.header(&views[i].Value).ID
		c := k.titleCell(&views[i])
		c.Href, c.RevealURL = "/"+k.plural+"/"+u.String(), ""
		out[u] = c
	}
	return out, nil
}

// titleCell names a record.
func (k *resource[T]) titleCell(v *guard.View[T]) page.Cell {
	c := k.cell(v, k.title, nil, &directory{})
	c.Strong, c.Kind = true, page.KindText
	return c
}

// query reads a list's filters, order and place from the address.
func (k *resource[T]) query(r *request) guard.Query {
	q := guard.Query{After: r.FormValue("after"), Sort: k.sort, Desc: true, Limit: 25}
	switch r.FormValue("show") {
	case "mine":
		q.Clauses = append(q.Clauses, crm.Clause{Column: "owner", Op: crm.Equal, Values: []crm.Value{crm.StringValue(r.self.ID.String())}})
	case "overdue":
		q.Clauses = append(q.Clauses, crm.Clause{Column: "last_follow_up", Op: crm.Less, Values: []crm.Value{crm.TimeValue(time.Now().AddDate(0, 0, -30))}})
	case "bin":
		q.Bin = true
	}
	if customer, err := crm.ParseUUID(r.FormValue("customer")); err == nil {
		if _, ok := k.byName["customer"]; ok {
			q.Clauses = append(q.Clauses, crm.Clause{Column: "customer", Op: crm.Equal, Values: []crm.Value{crm.StringValue(customer.String())}})
		}
	}
	return q
}

func (k *resource[T]) showList(s *Server, w http.ResponseWriter, r *request) error {
	q := k.query(r)
	p, err := k.records.List(r.Context(), r.caller(), q)
	if err != nil {
		return err
	}
	l, err := k.table(s, r, p.Items, k.list)
	if err != nil {
		return err
	}
	if l.Count, err = k.records.Count(r.Context(), r.caller(), q); err != nil {
		return err
	}
	show := r.FormValue("show")
	base := "/" + k.plural
	params := ""
	if show != "" {
		params = "&show=" + show
	}
	if c, err := crm.ParseUUID(r.FormValue("customer")); err == nil {
		params += "&customer=" + c.String()
	}
	if p.Next != "" {
		l.NextHref = base + "?after=" + p.Next + params
	}
	if q.After != "" {
		l.PrevHref = base + strings.Replace(params, "&", "?", 1)
	}
	l.Chips = []page.Chip{
		{Label: page.T("list.all"), Href: base, Active: show == ""},
		{Label: page.T("list.mine"), Href: base + "?show=mine", Active: show == "mine"},
	}
	if k.typ == crm.TypeCustomer {
		l.Chips = append(l.Chips, page.Chip{Label: page.T("list.overdue"), Href: base + "?show=overdue", Active: show == "overdue"})
	}
	l.Chips = append(l.Chips, page.Chip{Label: page.T("list.bin"), Href: base + "?show=bin", Active: show == "bin"})
	if ok, _, err := k.records.May(r.Context(), r.caller(), authz.Create, nil); err == nil && ok && !k.ofCustomer {
		l.Primary = &page.Action{Label: page.T("act.new." + k.typ), Href: base + "/new"}
		l.Empty.Action = l.Primary
	}
	if r.Header.Get("HX-Request") != "" && r.Header.Get("HX-Boosted") == "" {
		return s.fragment(w, r, l)
	}
	return s.show(w, r, http.StatusOK, page.T("type."+k.typ+".many"), l)
}

// table shows views as a list.
func (k *resource[T]) table(s *Server, r *request, views []guard.View[T], columns []string) (*page.List, error) {
	refs, err := k.references(s, r, views, columns)
	if err != nil {
		return nil, err
	}
	l := &page.List{ID: k.plural, Title: page.T("type." + k.typ + ".many"), Count: -1, Empty: page.Empty{Text: page.T("empty." + k.typ)}}
	for _, name := range columns {
		kind := page.KindText
		if slices.Contains(k.money, name) {
			kind = page.KindMoney
		}
		l.Columns = append(l.Columns, page.Column{Label: k.label(name), Kind: kind})
	}
	masked := map[string]bool{}
	for i := range views {
		row := page.Row{Href: "/" + k.plural + "/" + k.header(&views[i].Value).ID.String()}
		for _, name := range columns {
			c := k.cell(&views[i], name, refs, &s.names)
			row.Cells = append(row.Cells, c)
			if c.State == page.Masked && !masked[name] {
				masked[name] = true
				l.Policy = append(l.Policy, page.T("policy.masked", k.label(name), "field."+string(k.byName[name].Class)))
			}
			if c.State == page.Hidden && !masked[name] {
				masked[name] = true
				l.Policy = append(l.Policy, page.T("policy.hidden", k.label(name), "field."+string(k.byName[name].Class)))
			}
		}
		l.Rows = append(l.Rows, row)
	}
	return l, nil
}

func (k *resource[T]) label(name string) page.Text { return page.T("field." + k.typ + "." + name) }

func (k *resource[T]) related(r *request, s *Server, customer crm.UUID, limit int) (*page.List, error) {
	if _, ok := k.byName["customer"]; !ok || !k.visible(r) {
		return nil, nil
	}
	q := guard.Query{Limit: limit, Sort: k.sort, Desc: true, Clauses: []crm.Clause{
		{Column: "customer", Op: crm.Equal, Values: []crm.Value{crm.StringValue(customer.String())}},
	}}
	p, err := k.records.List(r.Context(), r.caller(), q)
	if err != nil {
		return nil, err
	}
	columns := slices.DeleteFunc(slices.Clone(k.list), func(n string) bool { return n == "customer" })
	l, err := k.table(s, r, p.Items, columns)
	if err != nil {
		return nil, err
	}
	if p.Next != "" {
		l.NextHref = "/" + k.plural + "?customer=" + customer.String()
	}
	return l, nil
}

func (k *resource[T]) search(r *request, s *Server, term string) (*page.List, error) {
	if len(k.searchable) == 0 {
		return nil, nil
	}
	if ok, _, err := k.records.May(r.Context(), r.caller(), authz.Search, nil); !ok || err != nil {
		return nil, err
	}
	p, err := k.records.Search(r.Context(), r.caller(), term, 50, k.searchable...)
	if err != nil || len(p.Items) == 0 {
		return nil, err
	}
	return k.table(s, r, p.Items, k.list)
}

func (k *resource[T]) count(r *request, q guard.Query) (int64, error) {
	if !k.visible(r) {
		return 0, nil
	}
	return k.records.Count(r.Context(), r.caller(), q)
}

func (k *resource[T]) showDetail(s *Server, w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	v, err := k.records.Get(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	var all []string
	for _, sec := range k.sections {
		for _, f := range sec.fields {
			all = append(all, f.name)
		}
	}
	refs, err := k.references(s, r, []guard.View[T]{v}, all)
	if err != nil {
		return err
	}
	h := k.header(&v.Value)
	base := "/" + k.plural + "/" + u.String()
	d := &page.Detail{Title: k.titleCell(&v), Version: h.Version}
	if k.badge != "" {
		c := k.cell(&v, k.badge, refs, &s.names)
		d.Badge = &c
	}
	if e := s.names.get(h.Owner); e != nil {
		d.Subtitle = append(d.Subtitle, page.T("detail.owner", page.Plain(e.Name.Expose())))
	}
	if h.Team != "" {
		d.Subtitle = append(d.Subtitle, page.T("detail.team", page.Plain(strings.Trim(h.Team, "/"))))
	}
	for i, sec := range k.sections {
		out := page.Section{Title: page.T("section." + sec.title)}
		if i == 0 {
			out.Note = page.T("detail.edited", h.UpdatedAt)
		}
		for _, f := range sec.fields {
			out.Rows = append(out.Rows, page.Fact{Label: k.label(f.name), Cell: k.cell(&v, f.name, refs, &s.names)})
		}
		d.Sections = append(d.Sections, out)
	}
	if q, ok := any(&v.Value).(*crm.Quote); ok {
		d.Lists = append(d.Lists, quoteLines(q))
	}
	if err := k.actions(r, d, &v, base); err != nil {
		return err
	}
	if err := k.parts(s, r, d, &v, base); err != nil {
		return err
	}
	k.why(d, &v)
	if d.Timeline, err = k.timeline(s, r, u); err != nil {
		return err
	}
	person := h.Person.String()
	if person != "" {
		person = person[:8]
	}
	d.Protection = []page.Fact{
		{Label: page.T("protection.row"), Cell: page.Cell{Key: "protection.verified"}},
		{Label: page.T("protection.person"), Cell: page.Cell{Kind: page.KindMono, Text: person}},
		{Label: page.T("protection.log"), Cell: page.Cell{Key: "", Text: "#" + strconv.FormatUint(v.Event, 10)}},
		{Label: page.T("field.version"), Cell: page.Cell{Kind: page.KindNumber, Amount: h.Version}},
	}
	return s.show(w, r, http.StatusOK, page.T("type."+k.typ), d)
}

// actions offers what the caller may do with the record.
func (k *resource[T]) actions(r *request, d *page.Detail, v *guard.View[T], base string) error {
	may := func(a authz.Action) (bool, error) {
		ok, _, err := k.records.May(r.Context(), r.caller(), a, &v.Value)
		return ok, err
	}
	h := k.header(&v.Value)
	if h.Deleted {
		d.Notice = page.T("detail.deleted")
		ok, err := may(authz.Restore)
		if ok {
			d.Moves = append(d.Moves, page.Action{Label: page.T("act.restore"), Href: base + "/restore", Post: true})
		}
		return err
	}
	update, err := may(authz.Update)
	if err != nil {
		return err
	}
	if update {
		d.Edit = base + "/edit"
		if k.moves != nil {
			for _, to := range k.moves(&v.Value) {
				d.Moves = append(d.Moves, page.Action{
					Label: page.T("move." + to), Href: base + "/move", Post: true, Inputs: []page.Input{{Name: "to", Value: to}},
				})
			}
		}
	}
	remove, err := may(authz.Delete)
	if remove {
		d.Moves = append(d.Moves, page.Action{Label: page.T("act.delete"), Href: base + "/delete", Post: true, Tone: page.Danger})
	}
	return err
}

// parts adds what belongs to a customer.
func (k *resource[T]) parts(s *Server, r *request, d *page.Detail, v *guard.View[T], base string) error {
	if len(k.tabs) == 0 {
		return nil
	}
	u := k.header(&v.Value).ID
	for _, typ := range k.tabs {
		other := s.kind(typ)
		l, err := other.related(r, s, u, 5)
		if err != nil {
			return err
		}
		if l == nil {
			continue
		}
		l.ID = "part-" + strings.ReplaceAll(typ, "_", "-")
		if len(l.Rows) > 0 {
			d.Lists = append(d.Lists, *l)
		}
		if typ == crm.TypeQuote || typ == crm.TypeFollowUp || typ == crm.TypeTicket || typ == crm.TypeContact {
			d.Secondary = append(d.Secondary, page.Action{
				Label: page.T("act.new." + typ), Href: "/" + other.path() + "/new?customer=" + u.String(),
			})
		}
	}
	return nil
}

// why says which controls opened the record and which fields are masked or hidden.
func (k *resource[T]) why(d *page.Detail, v *guard.View[T]) {
	typ := page.T("type." + k.typ)
	for _, c := range v.Controls {
		if strings.HasPrefix(c, "rbac.") && c != "rbac.grant" {
			d.Why = append(d.Why, page.Reason{Text: page.T("why."+c, typ), Control: c, Tone: page.Accent})
		}
	}
	for _, f := range k.records.Fields() {
		if f.Clear || !k.shown(f.Name) {
			continue
		}
		switch v.Fields[f.Name] {
		case authz.Masked:
			d.Why = append(d.Why, page.Reason{Text: page.T("why.masked", k.label(f.Name)), Control: "field." + string(f.Class)})
		case authz.Hidden:
			d.Why = append(d.Why, page.Reason{Text: page.T("why.hidden", k.label(f.Name)), Control: "field." + string(f.Class)})
		}
	}
}

func (k *resource[T]) shown(name string) bool {
	for _, sec := range k.sections {
		if slices.ContainsFunc(sec.fields, func(f field) bool { return f.name == name }) {
			return true
		}
	}
	return false
}

// timeline shows the newest events of a record.
func (k *resource[T]) timeline(s *Server, r *request, u crm.UUID) ([]page.Entry, error) {
	entries, err := k.records.History(r.Context(), r.caller(), u, 0, 40)
	if err != nil {
		return nil, err
	}
	out := []page.Entry{}
	for _, e := range entries {
		t := page.Entry{Time: e.Event.Time}
		who := page.Plain(s.actor(e.Event.Actor))
		t.Detail = []page.Text{who, page.T("timeline.event", int64(e.Index))}
		_, action, _ := strings.Cut(e.Event.Action, ".")
		switch {
		case e.Event.Outcome == audit.Denied:
			t.Title, t.Tone = page.T("action.denied"), page.Warning
		case action == "create" || action == "import":
			t.Title, t.Tone = page.T("timeline.created"), page.Accent
		case action == "update":
			t.Title, t.Tone = page.T("timeline.updated", page.T("type."+k.typ)), page.Accent
		case action == "delete":
			t.Title, t.Tone = page.T("timeline.deleted"), page.Danger
		case action == "restore":
			t.Title, t.Tone = page.T("timeline.restored"), page.Accent
		case action == "reveal":
			name := page.Text{}
			if len(e.Event.Fields) == 1 {
				name = k.label(e.Event.Fields[0])
			}
			t.Title = page.T("timeline.revealed", name)
			for _, d := range e.Event.Details {
				if reason, known := d.Value(); known && d.Name == "reason" {
					t.Title = page.T("reveal.timeline", name, page.Plain(reason))
				}
			}
		case action == "read" && e.Event.Actor != r.self.ID.String():
			t.Title = page.T("timeline.read")
		default:
			continue // lists, counts and one's own looking would bury the rest
		}
		if out = append(out, t); len(out) == 12 {
			break
		}
	}
	return out, nil
}

// actor names who acted.
func (s *Server) actor(id string) string {
	if u, err := crm.ParseUUID(id); err == nil {
		if e := s.names.get(u); e != nil {
			return e.Name.Expose()
		}
	}
	return id
}

func (k *resource[T]) showNew(s *Server, w http.ResponseWriter, r *request) error {
	ok, fields, err := k.records.May(r.Context(), r.caller(), authz.Create, nil)
	if err != nil {
		return err
	}
	if !ok {
		return &authz.DeniedError{Controls: []string{"rbac.grant"}}
	}
	var v T
	if k.prepare != nil {
		k.prepare(&v, r.Request)
	}
	return k.form(s, w, r, http.StatusOK, &v, nil, fields, "/"+k.plural, nil)
}

func (k *resource[T]) showEdit(s *Server, w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	v, err := k.records.Get(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	ok, fields, err := k.records.May(r.Context(), r.caller(), authz.Update, &v.Value)
	if err != nil {
		return err
	}
	if !ok {
		return &authz.DeniedError{Controls: []string{"rbac.grant"}}
	}
	return k.form(s, w, r, http.StatusOK, &v.Value, v.Fields, fields, "/"+k.plural+"/"+u.String(), nil)
}

// form shows the record as inputs. seen is what the reader sees of each field, nil for a new record;
// writable is what they may set.
func (k *resource[T]) form(s *Server, w http.ResponseWriter, r *request, status int, v *T, seen, writable map[string]authz.Access, action string, problem error) error {
	f := &page.Form{Action: action, Submit: page.T("act.save"), Cancel: action}
	title := page.T("form.edit." + k.typ)
	if seen == nil {
		title = page.T("act.new." + k.typ)
	} else {
		f.Version = k.header(v).Version
	}
	f.Title = title
	rules := map[string][]page.Text{}
	var invalid *crm.InvalidError
	var transition *crm.TransitionError
	switch {
	case problem == nil:
	case errors.As(problem, &invalid):
		f.Errors = []page.Text{page.T("form.invalid")}
		for _, e := range invalid.Fields {
			name, _, _ := strings.Cut(e.Field, ".")
			rules[name] = append(rules[name], page.T("rule."+e.Rule))
		}
	case errors.As(problem, &transition):
		f.Errors = []page.Text{page.T("form.transition", page.T("state."+k.typ+"."+transition.From), page.T("state."+k.typ+"."+transition.To))}
	case errors.Is(problem, crm.ErrConflict):
		f.Errors = []page.Text{page.T("form.conflict")}
	case errors.Is(problem, crm.ErrDuplicate):
		f.Errors = []page.Text{page.T("form.duplicate")}
	default:
		return problem
	}
	anyMask := false
	for _, sec := range k.sections {
		out := page.FormSection{Title: page.T("section." + sec.title)}
		for _, in := range sec.fields {
			if in.kind == page.FieldHidden && in.name == "" || in.create && seen != nil {
				continue
			}
			pf, ok := k.input(v, in, seen, writable)
			if !ok {
				continue
			}
			pf.Errors = rules[in.name]
			delete(rules, in.name)
			anyMask = anyMask || pf.Mask != ""
			out.Fields = append(out.Fields, pf)
		}
		if len(out.Fields) > 0 {
			f.Sections = append(f.Sections, out)
		}
	}
	if anyMask {
		f.Note = page.T("form.masked.note")
	}
	if q, ok := any(v).(*crm.Quote); ok && k.lines {
		f.Lines = lineRows(q)
		f.Lines.Errors = rules["lines"]
		delete(rules, "lines")
	}
	for name, texts := range rules { // rules of fields that the form does not have
		for _, t := range texts {
			f.Errors = append(f.Errors, page.Text{Key: "format.pair", Args: []any{k.label(name), t}})
		}
	}
	return s.show(w, r, status, title, f)
}

// input shows one field; ok is false for one that a form never has.
func (k *resource[T]) input(v *T, in field, seen, writable map[string]authz.Access) (page.Field, bool) {
	if in.kind == noInput {
		return page.Field{}, false
	}
	pf := page.Field{Name: in.name, Kind: in.kind, Label: k.label(in.name), Required: in.required, Wide: in.wide}
	f := k.byName[in.name]
	if writable[in.name] == authz.Hidden || seen != nil && seen[in.name] == authz.Hidden {
		pf.Locked, pf.Role = true, page.T("role."+seers[f.Class])
		return pf, true
	}
	val := k.value(v, in.name)
	switch x := val.Interface().(type) {
	case crm.Text:
		switch x.State() {
		case crm.Masked:
			pf.Mask, pf.Required = x.Expose(), false
			if pf.Mask == "" {
				pf.Mask = "•••"
			}
		case crm.Clear:
			pf.Value = x.Expose()
		default:
			pf.Locked = true
		}
	case time.Time:
		if !x.IsZero() {
			layout := time.DateOnly
			if in.kind == page.FieldTime {
				layout = "2006-01-02T15:04"
			}
			pf.Value = x.Local().Format(layout)
		}
	case bool:
		if x {
			pf.Value = "on"
		}
	case []string:
		pf.Values = x
	default:
		if u, ok := asUUID(val); ok {
			pf.Value = u.String()
			break
		}
		switch {
		case in.kind == page.FieldMoney && val.Int() != 0:
			pf.Value = fmt.Sprintf("%d.%02d", val.Int()/100, val.Int()%100)
		case in.kind == page.FieldMoney:
		case val.CanInt():
			pf.Value = strconv.FormatInt(val.Int(), 10)
		default:
			pf.Value = val.String()
		}
	}
	for _, o := range in.options {
		label := page.Plain(o)
		if in.labels != "" {
			label = page.T(in.labels + "." + o)
		}
		pf.Options = append(pf.Options, page.Option{Value: o, Label: label})
	}
	return pf, true
}

// noInput is the kind of a field that a page shows and a form does not have.
const noInput = page.FieldKind(255)

// read sets the fields of v from a posted form. What cannot be read is an *crm.InvalidError.
func (k *resource[T]) read(r *request, v *T, isNew bool) error {
	if err := r.ParseForm(); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return err
		}
		return errBadRequest
	}
	invalid := &crm.InvalidError{Type: k.typ}
	bad := func(name, rule string) {
		invalid.Fields = append(invalid.Fields, crm.FieldError{Field: name, Rule: rule})
	}
	for _, sec := range k.sections {
		for _, in := range sec.fields {
			if in.kind == noInput || in.create && !isNew {
				continue
			}
			values, posted := r.PostForm[in.name]
			if in.kind == page.FieldCheckbox || in.kind == page.FieldChecks {
				posted = true // a browser leaves out what is not ticked
			}
			if !posted {
				continue
			}
			text := ""
			if len(values) > 0 {
				text = strings.TrimSpace(strings.ReplaceAll(values[0], "\r\n", "\n"))
			}
			val := k.value(v, in.name)
			switch x := val.Addr().Interface().(type) {
			case *crm.Text:
				if text == "" && x.State() != crm.Clear {
					continue // a mask that was left alone
				}
				*x = crm.NewText(text)
			case *time.Time:
				layout := time.DateOnly
				if in.kind == page.FieldTime {
					layout = "2006-01-02T15:04"
				}
				t := time.Time{}
				if text != "" {
					var err error
					if t, err = time.ParseInLocation(layout, text, time.Local); err != nil {
						bad(in.name, "not_a_date")
						continue
					}
				}
				*x = t.UTC()
			case *bool:
				*x = text == "on"
			case *[]string:
				*x = slices.DeleteFunc(slices.Clone(values), func(s string) bool { return !slices.Contains(in.options, s) })
			default:
				switch {
				case val.Kind() == reflect.Array:
					var u crm.UUID
					if err := u.UnmarshalText([]byte(text)); err != nil {
						bad(in.name, "bad_reference")
						continue
					}
					val.Set(reflect.ValueOf(u).Convert(val.Type()))
				case in.kind == page.FieldMoney:
					n, err := minor(text)
					if err != nil {
						bad(in.name, "not_a_number")
						continue
					}
					val.SetInt(n)
				case val.CanInt():
					n, err := strconv.ParseInt(text, 10, 64)
					if err != nil {
						bad(in.name, "not_a_number")
						continue
					}
					val.SetInt(n)
				default:
					val.SetString(text)
				}
			}
		}
	}
	if q, ok := any(v).(*crm.Quote); ok && k.lines {
		if err := readLines(r.Request, q); err != nil {
			bad("lines", "not_a_number")
		}
	}
	if len(invalid.Fields) > 0 {
		return invalid
	}
	return nil
}

// minor reads an amount such as 1234.50 as minor units.
func minor(text string) (int64, error) {
	text = strings.NewReplacer(",", "", " ", "").Replace(text)
	if text == "" {
		return 0, nil
	}
	whole, frac, _ := strings.Cut(text, ".")
	if len(frac) > 2 {
		return 0, errBadRequest
	}
	n, err := strconv.ParseInt(whole+(frac + "00")[:2], 10, 64)
	if err != nil || n < 0 {
		return 0, errBadRequest
	}
	return n, nil
}

func (k *resource[T]) create(s *Server, w http.ResponseWriter, r *request) error {
	var v T
	if k.prepare != nil {
		k.prepare(&v, r.Request)
	}
	err := k.read(r, &v, true)
	if err == nil {
		if err = s.inherit(r, any(&v)); err != nil {
			return err
		}
		var view guard.View[T]
		view, err = k.records.Create(r.Context(), r.caller(), &v)
		if err == nil {
			if f, ok := any(&v).(*crm.FollowUp); ok {
				if err := s.followed(r, f); err != nil {
					return err
				}
			}
			return s.done(w, r, "created", "/"+k.plural+"/"+k.header(&view.Value).ID.String(), k.typ)
		}
	}
	_, fields, mayErr := k.records.May(r.Context(), r.caller(), authz.Create, nil)
	if mayErr != nil {
		return mayErr
	}
	return k.form(s, w, r, statusOf(err), &v, nil, fields, "/"+k.plural, err)
}

// done sends the browser to the record. Employees' rights may have changed, so the directory is read anew.
func (s *Server) done(w http.ResponseWriter, r *request, flash, to, typ string) error {
	if typ == crm.TypeEmployee {
		if err := s.reloadNames(context.WithoutCancel(r.Context())); err != nil {
			return err
		}
	}
	s.setFlash(w, flash)
	http.Redirect(w, r.Request, to, http.StatusSeeOther)
	return nil
}

func (k *resource[T]) update(s *Server, w http.ResponseWriter, r *request) error {
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
	if version != k.header(&v.Value).Version {
		return crm.ErrConflict
	}
	next := v.Value
	if err = k.read(r, &next, false); err == nil {
		err = s.keepsOwnRole(r, &next)
	}
	if err == nil {
		if q, ok := any(&next).(*crm.Quote); ok {
			_ = q.Compute() // a total that does not fit is told by Validate
		}
		if _, err = k.records.Update(r.Context(), r.caller(), &next); err == nil {
			return s.done(w, r, "saved", "/"+k.plural+"/"+u.String(), k.typ)
		}
	}
	_, fields, mayErr := k.records.May(r.Context(), r.caller(), authz.Update, &v.Value)
	if mayErr != nil {
		return mayErr
	}
	return k.form(s, w, r, statusOf(err), &next, v.Fields, fields, "/"+k.plural+"/"+u.String(), err)
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

func (k *resource[T]) remove(s *Server, w http.ResponseWriter, r *request) error {
	u, version, err := posted(r)
	if err != nil {
		return err
	}
	if err := k.records.Delete(r.Context(), r.caller(), u, version); err != nil {
		return err
	}
	return s.done(w, r, "deleted", "/"+k.plural, k.typ)
}

func (k *resource[T]) restore(s *Server, w http.ResponseWriter, r *request) error {
	u, version, err := posted(r)
	if err != nil {
		return err
	}
	if err := k.records.Restore(r.Context(), r.caller(), u, version); err != nil {
		return err
	}
	return s.done(w, r, "restored", "/"+k.plural+"/"+u.String(), k.typ)
}

func (k *resource[T]) changeState(s *Server, w http.ResponseWriter, r *request) error {
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
	if version != k.header(&v.Value).Version {
		return crm.ErrConflict
	}
	to := r.FormValue("to")
	if k.typ == crm.TypeLead && to == string(crm.LeadConverted) {
		return s.convert(w, r, u)
	}
	if err := k.move(&v.Value, to, time.Now()); err != nil {
		return err
	}
	if _, err := k.records.Update(r.Context(), r.caller(), &v.Value); err != nil {
		return err
	}
	return s.done(w, r, "saved", "/"+k.plural+"/"+u.String(), k.typ)
}

// revealPage is what a reveal shows before and after.
func (k *resource[T]) revealPage(r *request, u crm.UUID, name string) *page.Reveal {
	base := "/" + k.plural + "/" + u.String()
	return &page.Reveal{Label: k.label(name), Action: base + "/reveal/" + name, Back: base}
}

func (k *resource[T]) showReveal(s *Server, w http.ResponseWriter, r *request) error {
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

func (k *resource[T]) reveal(s *Server, w http.ResponseWriter, r *request) error {
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
	text, _ := k.value(&plain, name).Interface().(crm.Text)
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
