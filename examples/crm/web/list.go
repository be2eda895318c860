package web

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// query reads a list's filters, order and place from the address.
func (k *resource[P]) query(r *request) guard.Query {
	q := k.filtered(r, r.FormValue)
	q.After, q.Limit = r.FormValue("after"), 25
	return q
}

// filtered is the query of a filter, whose parameters get knows.
func (k *resource[P]) filtered(r *request, get func(string) string) guard.Query {
	q := guard.Query{Sort: k.sort, Desc: true}
	switch get("show") {
	case "mine":
		q.Clauses = append(q.Clauses, crm.Clause{Column: "owner", Op: crm.Equal, Values: []crm.Value{crm.StringValue(r.self.ID.String())}})
	case "overdue":
		q.Clauses = append(q.Clauses, crm.Clause{Column: "last_follow_up", Op: crm.Less, Values: []crm.Value{crm.TimeValue(time.Now().AddDate(0, 0, -30))}})
	case "review":
		if k.typ == crm.TypeEmergency {
			q.Clauses = append(q.Clauses, crm.Clause{Column: "state", Op: crm.Equal, Values: []crm.Value{crm.StringValue(string(crm.EmergencyActive))}},
				crm.Clause{Column: "ends", Op: crm.LessOrEqual, Values: []crm.Value{crm.TimeValue(time.Now())}})
		}
	case "waiting":
		if k.typ == crm.TypeEmergency || k.typ == crm.TypeExport || k.typ == crm.TypeErasure {
			q.Clauses = append(q.Clauses, crm.Clause{Column: "state", Op: crm.Equal, Values: []crm.Value{crm.StringValue("requested")}})
		}
		if k.typ == crm.TypeHold {
			q.Clauses = append(q.Clauses, crm.Clause{Column: "state", Op: crm.Equal, Values: []crm.Value{crm.StringValue("lifting")}})
		}
	case "bin":
		q.Bin = true
	}
	if customer, err := crm.ParseUUID(get("customer")); err == nil {
		if _, ok := k.byName["customer"]; ok {
			q.Clauses = append(q.Clauses, crm.Clause{Column: "customer", Op: crm.Equal, Values: []crm.Value{crm.StringValue(customer.String())}})
		}
	}
	return q
}

func (k *resource[P]) showList(s *Server, w http.ResponseWriter, r *request) error {
	q := k.query(r)
	p, err := k.records.List(r.Context(), r.caller(), q)
	if err != nil {
		return err
	}
	l, err := k.table(s, r, p.Items, k.list)
	if err != nil {
		return err
	}
	if q.Bin && k.bin {
		l.Columns = append(l.Columns, page.Column{Label: page.T("field.purge_at"), Kind: page.KindDate})
		for i := range p.Items {
			at, _ := s.app.Desk.PurgeAt(p.Items[i].Value.Header())
			l.Rows[i].Cells = append(l.Rows[i].Cells, page.Cell{Kind: page.KindDate, Time: at})
		}
	}
	if l.Count, err = k.counted(r.Context(), r.caller(), q); err != nil {
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
	switch k.typ {
	case crm.TypeEmergency, crm.TypeExport, crm.TypeErasure, crm.TypeHold:
		l.Chips = append(l.Chips, page.Chip{Label: page.T("list.waiting"), Href: base + "?show=waiting", Active: show == "waiting"})
	}
	if (k.typ == crm.TypeErasure || k.typ == crm.TypeHold) && s.may(r, authz.Read, "person") {
		l.Primary = &page.Action{Label: page.T("erase.find"), Href: "/erasures/find"}
		l.Empty.Action = l.Primary
	}
	if k.typ == crm.TypeExport && s.mayReadLog(r) {
		l.Secondary = append(l.Secondary, page.Action{Label: page.T("export.trace"), Href: base + "/trace"})
	}
	if k.typ == crm.TypeEmergency {
		l.Chips = append(l.Chips, page.Chip{Label: page.T("list.review"), Href: base + "?show=review", Active: show == "review"})
	}
	if !k.governs {
		l.Chips = append(l.Chips, page.Chip{Label: page.T("list.bin"), Href: base + "?show=bin", Active: show == "bin"})
		if ok, _, err := k.records.MayOwn(r.Context(), r.caller(), authz.Export); err == nil && ok && !q.Bin && slices.Contains(app.ExportTypes, k.typ) {
			href := base + "/export"
			if filter := k.filterText(r.FormValue); filter != "" {
				href += "?" + filter
			}
			l.Secondary = append(l.Secondary, page.Action{Label: page.T("act.export"), Href: href})
		}
	}
	if slices.Contains(s.importable(r.Context(), r.caller()), k.typ) && !q.Bin {
		l.Secondary = append(l.Secondary, page.Action{Label: page.T("act.import"), Href: "/imports/new?type=" + k.typ})
	}
	if k.dups != nil {
		if ok, err := k.mayFindAll(r.Context(), r.caller()); err == nil && ok {
			l.Secondary = append(l.Secondary, page.Action{Label: page.T("dup.nav"), Href: base + "/duplicates"})
		}
	}
	if ok, _, err := k.records.MayOwn(r.Context(), r.caller(), authz.Create); err == nil && ok && !k.ofCustomer {
		l.Primary = &page.Action{Label: page.T("act.new." + k.typ), Href: base + "/new"}
		l.Empty.Action = l.Primary
	}
	if r.Header.Get("HX-Request") != "" && r.Header.Get("HX-Boosted") == "" {
		return s.fragment(w, r, l)
	}
	return s.show(w, r, http.StatusOK, page.T("type."+k.typ+".many"), l)
}

// table shows views as a list.
func (k *resource[P]) table(s *Server, r *request, views []guard.View[P], columns []string) (*page.List, error) {
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
		row := page.Row{Href: "/" + k.plural + "/" + views[i].Value.Header().ID.String()}
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

func (k *resource[P]) label(name string) page.Text { return page.T("field." + k.typ + "." + name) }

func (k *resource[P]) related(r *request, s *Server, column string, to crm.UUID, limit int) (*page.List, error) {
	if _, ok := k.byName[column]; !ok || !k.visible(r) {
		return nil, nil
	}
	q := guard.Query{Limit: limit, Sort: k.sort, Desc: true, Clauses: []crm.Clause{
		{Column: column, Op: crm.Equal, Values: []crm.Value{crm.StringValue(to.String())}},
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
	if p.Next != "" && column == "customer" {
		l.NextHref = "/" + k.plural + "?customer=" + to.String()
	}
	return l, nil
}

func (k *resource[P]) search(r *request, s *Server, term string) (*page.List, error) {
	if len(k.searchable) == 0 {
		return nil, nil
	}
	if ok, _, err := k.records.MayOwn(r.Context(), r.caller(), authz.Search); !ok || err != nil {
		return nil, err
	}
	p, err := k.records.Search(r.Context(), r.caller(), term, 50, k.searchable...)
	if err != nil || len(p.Items) == 0 {
		return nil, err
	}
	return k.table(s, r, p.Items, k.list)
}

func (k *resource[P]) count(r *request, q guard.Query) (int64, error) {
	if !k.visible(r) {
		return 0, nil
	}
	return k.counted(r.Context(), r.caller(), q)
}

// counted counts as far as pages say it.
func (k *resource[P]) counted(ctx context.Context, c guard.Caller, q guard.Query) (int64, error) {
	q.Most = page.CountMost + 1
	return k.records.Count(ctx, c, q)
}
