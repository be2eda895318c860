package web

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// salesKinds are what is sold and the sales that may come.
func (s *Server) salesKinds() []kind {
	a := s.app
	currency := field{name: "currency", kind: page.FieldSelect, options: moneys}

	opportunities := resourceOf(a.Opportunities, "opportunities", "name")
	opportunities.ofCustomer, opportunities.bin = true, true
	opportunities.list = []string{"name", "customer", "stage", "amount", "close_by", "state"}
	opportunities.badge = "state"
	opportunities.money, opportunities.percents = []string{"amount"}, []string{"probability"}
	opportunities.refs["lead"], opportunities.refs["contact"] = crm.TypeLead, crm.TypeContact
	opportunities.sections = []section{
		{"main", []field{
			{name: "name", required: true, wide: true}, {name: "customer", kind: noInput}, {name: "customer", kind: page.FieldHidden, create: true, formOnly: true},
			{name: "pipeline", kind: page.FieldSelect, create: true, formOnly: true, from: func(r *request) []page.Option { return s.pipelines(r) }},
			{name: "stage", kind: noInput}, {name: "probability", kind: noInput}, {name: "close_by", kind: page.FieldDate},
			{name: "contact", kind: noInput}, {name: "lead", kind: noInput}, {name: "closed_at", kind: noInput}, {name: "lost_reason", kind: noInput},
		}},
		{"money", []field{{name: "amount", kind: page.FieldMoney}, currency}},
	}
	opportunities.prepare = func(v *sales.Opportunity, r *http.Request) []error {
		v.State, v.Currency = sales.OpportunityOpen, moneys[0]
		return setCustomer(&v.Customer, r)
	}
	opportunities.store = s.openOpportunity
	opportunities.acts = s.opportunityActs
	lifecycle(opportunities, sales.OpportunityLifecycle(), func(v *sales.Opportunity) sales.OpportunityState { return v.State },
		func(v *sales.Opportunity, to sales.OpportunityState, at time.Time) error { return v.Move(to, "", at) })

	fixed := currency // with the first price
	fixed.create = true
	products := resourceOf(a.Products, "products", "name")
	products.list = []string{"sku", "name", "category", "unit", "price", "tax", "state"}
	products.sort = ""
	products.badge = "state"
	products.money, products.percents = []string{"price"}, []string{"tax"}
	products.sections = []section{
		{"main", []field{
			{name: "name", required: true}, {name: "sku", required: true, create: true}, {name: "unit", required: true}, {name: "category"},
		}},
		{"money", []field{{name: "price", kind: page.FieldMoney}, fixed, {name: "tax"}}},
		{"stock", []field{{name: "stocked", kind: page.FieldCheckbox}, {name: "min_stock", kind: page.FieldNumber}}},
	}
	products.prepare = func(v *sales.Product, _ *http.Request) []error {
		v.State, v.Currency = sales.ProductActive, moneys[0]
		return nil
	}
	lifecycle(products, sales.ProductLifecycle(), func(v *sales.Product) sales.ProductState { return v.State },
		func(v *sales.Product, to sales.ProductState, at time.Time) error {
			if err := sales.ProductLifecycle().Check(v.State, to); err != nil {
				return err
			}
			v.State, v.UpdatedAt = to, at
			return nil
		})
	return []kind{opportunities, products}
}

// moneys are the currencies that forms offer.
var moneys = []string{"CNY", "USD", "EUR", "GBP"}

// openOpportunity puts a new opportunity at the beginning of its pipeline.
func (s *Server) openOpportunity(r *request, v *sales.Opportunity) error {
	bad := func(rule string) error {
		return &crm.InvalidError{Type: crm.TypeOpportunity, Fields: []crm.FieldError{{Field: "pipeline", Rule: rule}}}
	}
	if v.Pipeline.IsZero() {
		return bad("required")
	}
	p, err := s.app.Pipelines.Get(r.Context(), r.caller(), v.Pipeline.UUID())
	if errors.Is(err, crm.ErrNotFound) {
		return bad("bad_reference")
	}
	if err != nil {
		return err
	}
	if err := v.Advance(p.Value, p.Value.Stages[0].Name, time.Now()); err != nil {
		return err
	}
	_, err = s.app.Opportunities.Create(r.Context(), r.caller(), v)
	return err
}

// lostReasons are why an opportunity may be lost.
var lostReasons = []sales.LostReason{sales.LostPrice, sales.LostCompetitor, sales.LostBudget, sales.LostSilence, sales.LostOther}

// opportunityActs offers the stages of the pipeline, and to say why an opportunity was lost.
func (s *Server) opportunityActs(r *request, v *guard.View[*sales.Opportunity], base string) []page.Action {
	o := v.Value
	update, _, err := s.app.Opportunities.May(r.Context(), r.caller(), authz.Update, o)
	if err != nil || !update || o.State != sales.OpportunityOpen {
		return nil
	}
	var out []page.Action
	if p, err := s.app.Pipelines.Get(r.Context(), r.caller(), o.Pipeline.UUID()); err == nil {
		f := page.Field{Name: "stage", ID: "f-stage", Kind: page.FieldSelect, Label: page.T("field.stage"), Value: o.Stage}
		for _, st := range p.Value.Stages {
			f.Options = append(f.Options, page.Option{Value: st.Name, Label: page.Plain(st.Name)})
		}
		out = append(out, page.Action{Label: page.T("act.advance"), Href: base + "/stage", Post: true, Fields: []page.Field{f}})
	}
	why := page.Field{Name: "lost_reason", ID: "f-lost-reason", Kind: page.FieldSelect, Label: page.T("field.opportunity.lost_reason"), Required: true}
	for _, reason := range lostReasons {
		why.Options = append(why.Options, page.Option{Value: string(reason), Label: page.T("lost_reason." + string(reason))})
	}
	return append(out, page.Action{Label: page.T("act.lose"), Href: base + "/lose", Post: true, Fields: []page.Field{why}})
}

// sales registers what is done with opportunities beyond their generic moves.
func (s *Server) sales(mux *http.ServeMux) {
	change := func(do func(r *request, o *sales.Opportunity) error) func(http.ResponseWriter, *request) error {
		return func(w http.ResponseWriter, r *request) error {
			u, version, err := posted(r)
			if err != nil {
				return err
			}
			v, err := s.app.Opportunities.Get(r.Context(), r.caller(), u)
			if err != nil {
				return err
			}
			if v.Value.Version != version {
				return crm.ErrConflict
			}
			if err := s.app.Opportunities.Act(r.Context(), r.caller(), authz.Update, u, version, func(o *sales.Opportunity) error { return do(r, o) }); err != nil {
				return err
			}
			return s.done(w, r, "saved", "/opportunities/"+u.String(), crm.TypeOpportunity)
		}
	}
	s.handle(mux, "POST /opportunities/{id}/stage", change(func(r *request, o *sales.Opportunity) error {
		p, err := s.app.Pipelines.Get(r.Context(), r.caller(), o.Pipeline.UUID())
		if err != nil {
			return err
		}
		return o.Advance(p.Value, r.PostFormValue("stage"), time.Now())
	}))
	s.handle(mux, "POST /opportunities/{id}/lose", change(func(r *request, o *sales.Opportunity) error {
		return o.Move(sales.OpportunityLost, sales.LostReason(r.PostFormValue("lost_reason")), time.Now())
	}))
}

// productNames are the products that the caller may list, for the lines of an offer.
func (s *Server) productNames(r *request) []string {
	if ok, _, err := s.app.Products.MayOwn(r.Context(), r.caller(), authz.List); err != nil || !ok {
		return nil
	}
	p, err := s.app.Products.List(r.Context(), r.caller(), guard.Query{Sort: "name", Limit: 200, Clauses: []crm.Clause{
		{Column: "state", Op: crm.Equal, Values: []crm.Value{crm.StringValue(string(sales.ProductActive))}},
	}})
	if err != nil {
		return nil // the line is typed without
	}
	var out []string
	for i := range p.Items {
		out = append(out, p.Items[i].Value.Name)
	}
	return slices.Compact(out)
}
