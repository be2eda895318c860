package web

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// deals registers what is done with quotes and contracts beyond their generic moves.
func (s *Server) deals(mux *http.ServeMux) {
	d := s.app.Desk
	s.handle(mux, "POST /quotes/{id}/approve", func(w http.ResponseWriter, r *request) error {
		u, version, err := posted(r)
		if err != nil {
			return err
		}
		if err := d.ApproveQuote(r.Context(), r.caller(), crm.ID[crm.Quote](u), version); err != nil {
			return err
		}
		return s.done(w, r, "approved", "/quotes/"+u.String(), crm.TypeQuote)
	})
	s.handle(mux, "POST /quotes/{id}/send", func(w http.ResponseWriter, r *request) error {
		u, version, err := posted(r)
		if err != nil {
			return err
		}
		return s.sendQuote(w, r, u, version)
	})
	s.handle(mux, "POST /quotes/{id}/revise", func(w http.ResponseWriter, r *request) error {
		u, version, err := posted(r)
		if err != nil {
			return err
		}
		next, err := d.ReviseQuote(r.Context(), r.caller(), crm.ID[crm.Quote](u), version)
		if err != nil {
			return err
		}
		return s.done(w, r, "revised", "/quotes/"+next.String(), crm.TypeQuote)
	})
	s.handle(mux, "POST /quotes/{id}/accept", s.acceptQuote)
	s.handle(mux, "POST /contracts/{id}/approve", func(w http.ResponseWriter, r *request) error {
		u, version, err := posted(r)
		if err != nil {
			return err
		}
		return s.approveContract(w, r, u, version)
	})
}

func (s *Server) sendQuote(w http.ResponseWriter, r *request, u crm.UUID, version int64) error {
	if err := s.app.Desk.SendQuote(r.Context(), r.caller(), crm.ID[crm.Quote](u), version); err != nil {
		return err
	}
	return s.done(w, r, "sent", "/quotes/"+u.String(), crm.TypeQuote)
}

func (s *Server) approveContract(w http.ResponseWriter, r *request, u crm.UUID, version int64) error {
	if err := s.app.Desk.ApproveContract(r.Context(), r.caller(), crm.ID[crm.Contract](u), version); err != nil {
		return err
	}
	return s.done(w, r, "approved", "/contracts/"+u.String(), crm.TypeContract)
}

// acceptQuote makes the contract over an offer, with the next number.
func (s *Server) acceptQuote(w http.ResponseWriter, r *request) error {
	u, version, err := posted(r)
	if err != nil {
		return err
	}
	draft := desk.Draft{}
	for name, at := range map[string]*time.Time{"starts": &draft.Starts, "ends": &draft.Ends} {
		t, err := time.ParseInLocation(time.DateOnly, r.PostFormValue(name), time.Local)
		if err != nil {
			return &crm.InvalidError{Type: crm.TypeContract, Fields: []crm.FieldError{{Field: name, Rule: "not_a_date"}}}
		}
		*at = t.UTC()
	}
	// Decided before anything is made for it.
	if _, err := s.app.Quotes.Authorize(r.Context(), r.caller(), authz.Update, u); err != nil {
		return err
	}
	if draft.Series, err = s.app.ContractSeries(r.Context()); err != nil {
		return err
	}
	k, err := s.app.Desk.AcceptQuote(r.Context(), r.caller(), crm.ID[crm.Quote](u), version, draft)
	if err != nil {
		return err
	}
	return s.done(w, r, "accepted", "/contracts/"+k.ID.String(), crm.TypeContract)
}

// byDesk are the states that a record reaches by an act of the desk and by no move.
var byDesk = map[string][]string{
	crm.TypeLead: {string(crm.LeadConverted)}, crm.TypeQuote: {string(crm.QuoteSent), string(crm.QuoteAccepted)}, crm.TypeContract: {string(crm.ContractApproved), string(crm.ContractTerminated)},
	crm.TypeOpportunity: {string(sales.OpportunityLost)},
}

// quoteActs offers what may be done with an offer.
func (s *Server) quoteActs(r *request, v *guard.View[*crm.Quote], base string) []page.Action {
	var out []page.Action
	q := v.Value
	may := func(a authz.Action) bool {
		ok, _, err := s.app.Quotes.May(r.Context(), r.caller(), a, q)
		return ok && err == nil
	}
	needs := q.NeedsApproval(app.MostDiscount)
	if q.State == crm.QuoteDraft && needs && may(authz.Approve) {
		out = append(out, page.Action{Label: page.T("act.approve_discount"), Href: base + "/approve", Post: true})
	}
	if q.State == crm.QuoteDraft && !needs && len(q.Lines) > 0 && may(authz.Update) {
		out = append(out, page.Action{Label: page.T("move.sent"), Href: base + "/send", Post: true})
	}
	if create, _, err := s.app.Contracts.MayOwn(r.Context(), r.caller(), authz.Create); q.State == crm.QuoteSent && err == nil && create && may(authz.Update) {
		today := time.Now()
		out = append(out, page.Action{Label: page.T("move.accepted"), Href: base + "/accept", Post: true, Fields: []page.Field{
			{Name: "starts", ID: "f-accept-starts", Kind: page.FieldDate, Label: page.T("field.contract.starts"), Required: true, Value: today.Format(time.DateOnly)},
			{Name: "ends", ID: "f-accept-ends", Kind: page.FieldDate, Label: page.T("field.contract.ends"), Required: true, Value: today.AddDate(1, 0, 0).Format(time.DateOnly)},
		}})
	}
	create, _, err := s.app.Quotes.May(r.Context(), r.caller(), authz.Create, q)
	if q.State != crm.QuoteDraft && q.State != crm.QuoteAccepted && err == nil && create && (q.State != crm.QuoteSent || may(authz.Update)) {
		out = append(out, page.Action{Label: page.T("act.revise"), Href: base + "/revise", Post: true})
	}
	return out
}

// quoteNotice says what an offer waits for.
func quoteNotice(q *crm.Quote) page.Text {
	if q.State == crm.QuoteDraft && q.NeedsApproval(app.MostDiscount) {
		return page.T("quote.needs_approval", int64(app.MostDiscount/100))
	}
	return page.Text{}
}

// contractActs offers the approval of a draft, and the plan of the payments for what is none.
func (s *Server) contractActs(r *request, v *guard.View[*crm.Contract], base string) []page.Action {
	ok, _, err := s.app.Contracts.May(r.Context(), r.caller(), authz.Approve, v.Value)
	if v.Value.State != crm.ContractDraft || err != nil || !ok {
		return append(s.planAct(r, v.Value, base), s.terminateAct(r, v.Value, base)...)
	}
	return []page.Action{{Label: page.T("act.approve"), Href: base + "/approve", Post: true}}
}

// terminateAct offers the end of a contract before its time, which takes a reason.
func (s *Server) terminateAct(r *request, k *crm.Contract, base string) []page.Action {
	ok, _, err := s.app.Contracts.May(r.Context(), r.caller(), authz.Update, k)
	if err != nil || !ok || !slices.Contains(crm.ContractLifecycle().Next(k.State), crm.ContractTerminated) {
		return nil
	}
	var why []page.Option
	for _, reason := range []crm.EndReason{crm.EndMutual, crm.EndNotice, crm.EndBreach, crm.EndInsolvency, crm.EndOther} {
		why = append(why, page.Option{Value: string(reason), Label: page.T("end_reason." + string(reason))})
	}
	return []page.Action{{
		Label: page.T("move.terminated"), Href: base + "/move", Post: true, Tone: page.Danger, Inputs: []page.Input{{Name: "to", Value: string(crm.ContractTerminated)}},
		Fields: []page.Field{{Name: "why", ID: "f-why", Kind: page.FieldSelect, Label: page.T("field.end_reason"), Required: true, Options: why}},
	}}
}

// terminateContract ends a contract before its time.
func (s *Server) terminateContract(w http.ResponseWriter, r *request, u crm.UUID, version int64) error {
	if err := s.app.Contracts.Act(r.Context(), r.caller(), authz.Update, u, version, func(k *crm.Contract) error {
		return k.Terminate(crm.EndReason(r.PostFormValue("why")), time.Now())
	}); err != nil {
		return err
	}
	return s.done(w, r, "saved", "/contracts/"+u.String(), crm.TypeContract)
}

// leadActs offers the conversion.
func (s *Server) leadActs(r *request, v *guard.View[*crm.Lead], base string) []page.Action {
	l := v.Value
	update, _, err := s.app.Leads.May(r.Context(), r.caller(), authz.Update, l)
	if err != nil || !update || !slices.Contains(crm.LeadLifecycle().Next(l.State), crm.LeadConverted) {
		return nil
	}
	for _, may := range []func() (bool, map[string]authz.Access, error){
		func() (bool, map[string]authz.Access, error) {
			return s.app.Customers.MayOwn(r.Context(), r.caller(), authz.Create)
		},
		func() (bool, map[string]authz.Access, error) {
			return s.app.Contacts.MayOwn(r.Context(), r.caller(), authz.Create)
		},
	} {
		if ok, _, err := may(); err != nil || !ok {
			return nil
		}
	}
	a := page.Action{Label: page.T("move.converted"), Href: base + "/move", Post: true, Inputs: []page.Input{{Name: "to", Value: string(crm.LeadConverted)}}}
	if pipelines := s.pipelines(r); len(pipelines) > 0 {
		a.Fields = []page.Field{
			{Name: "pipeline", ID: "f-pipeline", Kind: page.FieldSelect, Label: page.T("convert.opportunity"), Options: append([]page.Option{{Label: page.T("convert.none")}}, pipelines...)},
			{Name: "amount", ID: "f-convert-amount", Kind: page.FieldMoney, Label: page.T("field.amount")},
			{Name: "currency", ID: "f-convert-currency", Kind: page.FieldSelect, Label: page.T("field.currency"), Options: currencies()},
		}
	}
	return []page.Action{a}
}

func currencies() []page.Option {
	var out []page.Option
	for _, c := range moneys {
		out = append(out, page.Option{Value: c, Label: page.Plain(c)})
	}
	return out
}

// pipelines are those in which the caller may begin an opportunity.
func (s *Server) pipelines(r *request) []page.Option {
	if ok, _, err := s.app.Opportunities.MayOwn(r.Context(), r.caller(), authz.Create); err != nil || !ok {
		return nil
	}
	if ok, _, err := s.app.Pipelines.MayOwn(r.Context(), r.caller(), authz.List); err != nil || !ok {
		return nil
	}
	p, err := s.app.Pipelines.List(r.Context(), r.caller(), guard.Query{Sort: "name"})
	if err != nil {
		return nil // the conversion does without
	}
	var out []page.Option
	for i := range p.Items {
		out = append(out, page.Option{Value: p.Items[i].Value.ID.String(), Label: page.Plain(p.Items[i].Value.Name)})
	}
	return out
}

// convert makes a customer, a contact and, if wanted, an opportunity of a lead.
func (s *Server) convert(w http.ResponseWriter, r *request, u crm.UUID, version int64) error {
	q := desk.Conversion{}
	if text := r.PostFormValue("pipeline"); text != "" {
		id, err := crm.ParseUUID(text)
		if err != nil {
			return errBadRequest
		}
		q.Pipeline = crm.ID[sales.Pipeline](id)
		if q.Amount, err = minor(r.PostFormValue("amount")); err != nil {
			return &crm.InvalidError{Type: crm.TypeOpportunity, Fields: []crm.FieldError{{Field: "amount", Rule: "not_a_number"}}}
		}
		if q.Currency = r.PostFormValue("currency"); q.Currency == "" {
			q.Currency = "CNY"
		}
	}
	out, err := s.app.Desk.Convert(r.Context(), r.caller(), crm.ID[crm.Lead](u), version, q)
	if err != nil {
		return err
	}
	return s.done(w, r, "converted", "/customers/"+out.Customer.String(), crm.TypeCustomer)
}

// discountRefused tells whether an error says that a discount wants an approval first.
func discountRefused(err error) bool {
	var invalid *crm.InvalidError
	return errors.As(err, &invalid) && invalid.Type == crm.TypeQuote &&
		slices.ContainsFunc(invalid.Fields, func(f crm.FieldError) bool { return f.Field == "approver" && f.Rule == "required" })
}
