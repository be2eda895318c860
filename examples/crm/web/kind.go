package web

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// kind is one type of record as the pages see it, whatever the type.
type kind interface {
	name() string // customer
	path() string // customers
	routes(s *Server, mux *http.ServeMux)
	// visible tells whether the caller may list the type at all.
	visible(r *request) bool
	// makes tells whether the caller may make one.
	makes(r *request) bool
	// related lists the newest records that belong to another by a column, nil when the caller sees none.
	related(r *request, s *Server, column string, to crm.UUID, limit int) (*page.List, error)
	// search returns the matches of a term in the indexed fields.
	search(r *request, s *Server, term string) (*page.List, error)
	// titles names records that others refer to, as the caller may see them.
	titles(r *request, ids []crm.UUID) (map[crm.UUID]page.Cell, error)
	count(r *request, q guard.Query) (int64, error)
	// authorize decides on an action on one record; label names one.
	authorize(ctx context.Context, c guard.Caller, a authz.Action, id crm.UUID) (crm.Header, error)
}

// field is one input of a form.
type field struct {
	name     string
	kind     page.FieldKind
	required bool
	options  []string // of a select; their labels are in the catalogues
	labels   string   // prefix of the labels: state, kind, priority, channel; "" shows the value
	wide     bool
	create   bool                           // only when the record is made
	people   bool                           // a select of those who work here
	formOnly bool                           // not on the page of a record
	from     func(r *request) []page.Option // of a select, for this caller
}

// section is a card of fields.
type section struct {
	title  string // key below "section."
	fields []field
}

// resource is a kind of record.
type resource[P guard.Record] struct {
	typ, plural string
	records     *guard.Records[P]
	title       string   // the field that names a record
	list        []string // columns of the list
	sections    []section
	badge       string   // the field that says where a record stands
	searchable  []string // indexed fields
	sort        string
	moves       func(v P) []string
	move        func(v P, to string, at time.Time) error
	prepare     func(v P, r *http.Request) []error // sets what a form cannot say, before a record is stored
	lines       bool                               // a quote has lines
	money       []string                           // fields in minor units of the field currency
	percents    []string                           // fields in basis points
	tabs        []string                           // types that belong to it
	belongs     string                             // by which column of theirs; "": customer
	hands       bool                               // it changes hands: owner and pool are set by acts
	bin         bool                               // it goes to the recycle bin with what belongs to it
	ofCustomer  bool                               // made from a customer's page only
	refs        map[string]string                  // field -> type it refers to
	store       func(r *request, v P) error        // stores a new record, instead of Create alone
	acts        func(r *request, v *guard.View[P], base string) []page.Action
	detail      func(r *request, d *page.Detail, v *guard.View[P], base string) error // adds to the page of a record
	ends        string                                                                // what removal is called; "": moving to the recycle bin
	dups        *app.Deduper[P]                                                       // finds and merges duplicates; nil: they are not looked for
	fixed       bool                                                                  // it is never edited: acts change it
	governs     bool                                                                  // a record about rights: it is not shared or exported
	proof       session.Act                                                           // who makes one shows a factor just before; "": need not
	byName      map[string]encrypt.Field
}

func (k *resource[P]) name() string { return k.typ }

func (k *resource[P]) path() string { return k.plural }

func (k *resource[P]) routes(s *Server, mux *http.ServeMux) {
	p := "/" + k.plural
	with := func(h func(*Server, http.ResponseWriter, *request) error) func(http.ResponseWriter, *request) error {
		return func(w http.ResponseWriter, r *request) error { return h(s, w, r) }
	}
	change := with
	if k.typ == crm.TypeEmployee { // who may do what
		change = func(h func(*Server, http.ResponseWriter, *request) error) func(http.ResponseWriter, *request) error {
			return s.wants(session.Roles, with(h))
		}
	}
	if k.proof != "" {
		change = func(h func(*Server, http.ResponseWriter, *request) error) func(http.ResponseWriter, *request) error {
			return s.wants(k.proof, with(h))
		}
	}
	s.handle(mux, "GET "+p, with(k.showList))
	s.handle(mux, "GET "+p+"/new", change(k.showNew))
	s.handle(mux, "POST "+p, change(k.create))
	s.handle(mux, "GET "+p+"/{id}", with(k.showDetail))
	if !k.fixed {
		s.handle(mux, "GET "+p+"/{id}/edit", change(k.showEdit))
		s.handle(mux, "POST "+p+"/{id}", change(k.update))
	}
	s.handle(mux, "POST "+p+"/{id}/delete", change(k.remove))
	s.handle(mux, "POST "+p+"/{id}/restore", change(k.restore))
	s.handle(mux, "POST "+p+"/{id}/move", change(k.changeState))
	s.handle(mux, "GET "+p+"/{id}/reveal/{field}", s.wants(session.Reveal, with(k.showReveal)))
	s.handle(mux, "POST "+p+"/{id}/reveal/{field}", s.wants(session.Reveal, with(k.reveal)))
	if k.hands {
		k.handRoutes(s, mux)
	}
	if k.dups != nil {
		k.duplicateRoutes(s, mux)
	}
	if slices.Contains(app.ExportTypes, k.typ) {
		s.handle(mux, "GET "+p+"/export", with(k.showExport))
		s.handle(mux, "POST "+p+"/export", with(k.requestExport))
	}
}

// id reads the record's id from the path.
func id(r *request) (crm.UUID, error) {
	u, err := crm.ParseUUID(r.PathValue("id"))
	if err != nil {
		return u, crm.ErrNotFound
	}
	return u, nil
}

func (k *resource[P]) visible(r *request) bool {
	ok, _, err := k.records.MayOwn(r.Context(), r.caller(), authz.List)
	return ok && err == nil
}

func (k *resource[P]) makes(r *request) bool {
	ok, _, err := k.records.MayOwn(r.Context(), r.caller(), authz.Create)
	return ok && err == nil
}

// value returns a field of v by its stored name.
func (k *resource[P]) value(v P, name string) reflect.Value {
	return reflect.ValueOf(v).Elem().FieldByName(k.byName[name].GoName)
}

// inner are fields that the program keeps for its decisions; they are in no list, file or answer.
var inner = []string{"actors", "free_in", "moved", "dropped_person"}

// seers names a role that sees a hidden field, for who wonders.
var seers = map[encrypt.Class]string{encrypt.Sensitive: "finance", encrypt.Financial: "finance", encrypt.Personal: "manager"}

// cell shows one field of a view.
func (k *resource[P]) cell(v *guard.View[P], name string, refs map[crm.UUID]page.Cell, names *directory) page.Cell {
	f := k.byName[name]
	val := k.value(v.Value, name)
	href := "/" + k.plural + "/" + v.Value.Header().ID.String()
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
		if k.typ != crm.TypeEmergency && (name == "starts" || name == "ends") || name == "due" || name == "valid_until" || name == "joined" || name == "left" {
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
		labels := "role."
		switch name {
		case "actions":
			labels = "do."
		case "types":
			labels = "type."
		case "acts":
			labels = "webhook."
		}
		for _, s := range x {
			c.Items = append(c.Items, page.T(labels+s))
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
				c.Currency = k.value(v.Value, "currency").String()
			}
			if c.Amount == 0 {
				return page.Cell{Kind: page.KindMoney}
			}
			return c
		}
		if slices.Contains(k.percents, name) {
			return page.Cell{Text: percent(val.Int()) + " %"}
		}
		return page.Cell{Kind: page.KindNumber, Amount: val.Int()}
	case reflect.String:
		s := val.String()
		if s == "" {
			return page.Cell{}
		}
		switch name {
		case "state", "stage":
			if name == "stage" && k.typ == crm.TypeOpportunity { // a word of its pipeline
				return page.Cell{Text: s}
			}
			return page.Cell{Kind: page.KindBadge, Key: "state." + k.typ + "." + s, Tone: tone(s)}
		case "kind", "priority", "channel", "method":
			return page.Cell{Key: name + "." + s}
		case "subject_type", "record_type":
			return page.Cell{Key: "type." + s}
		case "role":
			return page.Cell{Key: "role." + s}
		case "lost_reason":
			return page.Cell{Key: "lost_reason." + s}
		case "act", "reason":
			return page.Cell{Key: "webhook." + s}
		case "outcome":
			return page.Cell{Key: "outcome." + s}
		case "approvers":
			return page.Cell{Text: names.list(s)}
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
	case "contracting", "won", "accepted", "active", "approved", "resolved", "qualified", "converted", "reviewed", "open":
		return page.Accent
	case "at_risk", "dormant", "sent", "suspended", "expired", "requested", "waiting", "withdrawn":
		return page.Warning
	case "payment_overdue", "lost", "declined", "terminated", "junk", "refused":
		return page.Danger
	}
	return page.Neutral
}

// references names the records that the views refer to, one reading for each type.
func (k *resource[P]) references(s *Server, r *request, views []guard.View[P], fields []string) (map[crm.UUID]page.Cell, error) {
	wanted := map[string][]crm.UUID{}
	for _, name := range fields {
		typ, ok := k.refs[name]
		if !ok {
			continue
		}
		for i := range views {
			if u, ok := asUUID(k.value(views[i].Value, name)); ok && !u.IsZero() && !slices.Contains(wanted[typ], u) {
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

func (k *resource[P]) titles(r *request, ids []crm.UUID) (map[crm.UUID]page.Cell, error) {
	out := map[crm.UUID]page.Cell{}
	if !k.visible(r) {
		return out, nil
	}
	views, err := k.records.GetAll(r.Context(), r.caller(), ids)
	if err != nil {
		return nil, err
	}
	for i := range views {
		u := views[i].Value.Header().ID
		c := k.titleCell(&views[i])
		c.Href, c.RevealURL = "/"+k.plural+"/"+u.String(), ""
		out[u] = c
	}
	return out, nil
}

// titleCell names a record.
func (k *resource[P]) titleCell(v *guard.View[P]) page.Cell {
	if k.title == "" {
		return page.Cell{Key: "type." + k.typ, Strong: true}
	}
	c := k.cell(v, k.title, nil, &directory{})
	c.Strong, c.Kind = true, page.KindText
	return c
}
