package web

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// paymentKinds are what customers are to pay and what came.
func (s *Server) paymentKinds() []kind {
	a := s.app
	instalments := resourceOf(a.Instalments, "instalments", "")
	instalments.ofCustomer = true // made with the plan of a contract
	instalments.list = []string{"contract", "customer", "number", "amount", "due_at"}
	instalments.sort = "due_at"
	instalments.money = []string{"amount"}
	instalments.refs["contract"] = crm.TypeContract
	instalments.sections = []section{{"main", []field{
		{name: "contract", kind: noInput}, {name: "customer", kind: noInput}, {name: "number", kind: noInput}, {name: "amount", kind: noInput}, {name: "currency", kind: noInput},
		{name: "due_at", kind: page.FieldTime, required: true}, {name: "remind_days", kind: page.FieldNumber},
	}}}

	receipts := resourceOf(a.Receipts, "receipts", "")
	receipts.ofCustomer = true
	receipts.list = []string{"contract", "customer", "amount", "at", "method", "state"}
	receipts.badge, receipts.sort = "state", "at"
	receipts.money = []string{"amount"}
	receipts.refs["contract"] = crm.TypeContract
	receipts.sections = []section{
		{"main", []field{
			{name: "contract", kind: noInput}, {name: "contract", kind: page.FieldHidden, create: true, formOnly: true}, {name: "customer", kind: noInput},
			{name: "amount", kind: page.FieldMoney}, {name: "currency", kind: noInput}, {name: "at", kind: page.FieldTime, required: true},
			{name: "method", kind: page.FieldSelect, options: strs(methods...), labels: "method"},
			{name: "approver", kind: noInput}, {name: "decided_at", kind: noInput},
		}},
		{"payer", []field{{name: "payer"}, {name: "account"}, {name: "reference"}}},
	}
	receipts.prepare = func(v *finance.Receipt, r *http.Request) []error {
		v.State, v.Method, v.At = finance.ReceiptReported, finance.MethodBank, time.Now().UTC().Truncate(time.Minute)
		if u, err := crm.ParseUUID(r.FormValue("contract")); err == nil {
			v.Contract = crm.ID[crm.Contract](u)
		}
		return nil
	}
	receipts.acts = func(r *request, v *guard.View[*finance.Receipt], base string) []page.Action {
		ok, _, err := a.Receipts.May(r.Context(), r.caller(), authz.Approve, v.Value)
		if v.Value.State != finance.ReceiptReported || err != nil || !ok {
			return nil
		}
		decide := func(label string, to finance.ReceiptState) page.Action {
			return page.Action{Label: page.T(label), Href: base + "/decide", Post: true, Inputs: []page.Input{{Name: "to", Value: string(to)}}}
		}
		return []page.Action{decide("act.money_came", finance.ReceiptApproved), decide("act.no_money", finance.ReceiptRefused)}
	}
	return []kind{instalments, receipts}
}

// methods are how money comes.
var methods = []finance.Method{
	finance.MethodBank, finance.MethodCard, finance.MethodWeChat, finance.MethodAlipay, finance.MethodCheque, finance.MethodCash, finance.MethodOther,
}

// payments registers the plan of a contract's payments and the decision on a receipt.
func (s *Server) payments(mux *http.ServeMux) {
	s.handle(mux, "POST /contracts/{id}/plan", s.planPayments)
	s.handle(mux, "POST /receipts/{id}/decide", func(w http.ResponseWriter, r *request) error {
		u, version, err := posted(r)
		if err != nil {
			return err
		}
		to := finance.ReceiptState(r.PostFormValue("to"))
		if to != finance.ReceiptApproved && to != finance.ReceiptRefused {
			return errBadRequest
		}
		if err := s.app.Desk.DecideReceipt(r.Context(), r.caller(), crm.ID[finance.Receipt](u), version, to); err != nil {
			return err
		}
		return s.done(w, r, "saved", "/receipts/"+u.String(), crm.TypeReceipt)
	})
}

// planAct offers to divide a contract's amount into instalments, once.
func (s *Server) planAct(r *request, k *crm.Contract, base string) []page.Action {
	ok, _, err := s.app.Instalments.MayOwn(r.Context(), r.caller(), authz.Create)
	if k.State == crm.ContractDraft || k.Amount == 0 || err != nil || !ok {
		return nil
	}
	if n, err := s.app.Instalments.Count(r.Context(), r.caller(), guard.Query{Clauses: ofContract(k.ID)}); err != nil || n > 0 {
		return nil
	}
	return []page.Action{{Label: page.T("act.plan"), Href: base + "/plan", Post: true, Fields: []page.Field{
		{Name: "shares", ID: "f-shares", Label: page.T("plan.shares"), Required: true, Value: "30 30 40"},
		{Name: "first", ID: "f-first", Kind: page.FieldDate, Label: page.T("plan.first"), Required: true, Value: time.Now().AddDate(0, 1, 0).Format(time.DateOnly)},
		{Name: "months", ID: "f-months", Kind: page.FieldNumber, Label: page.T("plan.months"), Required: true, Value: "1"},
	}}}
}

func ofContract(id crm.ID[crm.Contract]) []crm.Clause {
	return []crm.Clause{{Column: "contract", Op: crm.Equal, Values: []crm.Value{crm.StringValue(id.String())}}}
}

// planPayments makes the instalments of a contract, which add up to its amount.
func (s *Server) planPayments(w http.ResponseWriter, r *request) error {
	u, version, err := posted(r)
	if err != nil {
		return err
	}
	v, err := s.app.Contracts.Get(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	k := v.Value
	if k.Version != version {
		return crm.ErrConflict
	}
	bad := func(field, rule string) error {
		return &crm.InvalidError{Type: crm.TypeInstalment, Fields: []crm.FieldError{{Field: field, Rule: rule}}}
	}
	first, err := time.ParseInLocation(time.DateOnly, r.PostFormValue("first"), time.Local)
	if err != nil {
		return bad("first", "not_a_date")
	}
	months, err := strconv.Atoi(r.PostFormValue("months"))
	if err != nil || months < 1 || months > 120 {
		return bad("months", "out_of_range")
	}
	shares := strings.FieldsFunc(r.PostFormValue("shares"), func(c rune) bool { return c == ' ' || c == ',' || c == '，' || c == '/' })
	if len(shares) > 60 {
		return bad("shares", "too_long")
	}
	var parts []finance.Part
	for i, share := range shares {
		n, err := strconv.ParseInt(share, 10, 32)
		if err != nil || n < 1 {
			return bad("shares", "not_a_number")
		}
		parts = append(parts, finance.Part{DueAt: monthsOn(first, i*months).AddDate(0, 0, 1).Add(-time.Second).UTC(), Weight: n})
	}
	if _, err := s.app.Desk.PlanPayments(r.Context(), r.caller(), k.ID, version, parts); err != nil {
		return err
	}
	return s.done(w, r, "saved", "/contracts/"+u.String(), crm.TypeContract)
}

// monthsOn is the same day so many months later, or the last of a shorter month.
func monthsOn(day time.Time, months int) time.Time {
	t := day.AddDate(0, months, 0)
	if t.Day() != day.Day() {
		t = t.AddDate(0, 0, -t.Day())
	}
	return t
}

// standing adds to a contract's page how its payments stand, for who may list them.
func (s *Server) standing(r *request, d *page.Detail, k *crm.Contract) error {
	q := guard.Query{Clauses: ofContract(k.ID), Limit: 200}
	if !s.kind(crm.TypeInstalment).visible(r) || !s.kind(crm.TypeReceipt).visible(r) {
		return nil
	}
	plan, err := s.app.Instalments.List(r.Context(), r.caller(), q)
	if err != nil || len(plan.Items) == 0 || plan.Next != "" {
		return err
	}
	came, err := s.app.Receipts.List(r.Context(), r.caller(), q)
	if err != nil || came.Next != "" {
		return err
	}
	var instalments []*finance.Instalment
	for i := range plan.Items {
		instalments = append(instalments, plan.Items[i].Value)
	}
	var receipts []*finance.Receipt
	for i := range came.Items {
		receipts = append(receipts, came.Items[i].Value)
	}
	b, err := finance.Balance(instalments, receipts, time.Now())
	if err != nil {
		return nil //nolint:nilerr // some of it is not the caller's to see: no sum is better than a wrong one
	}
	money := func(label string, amount int64) page.Fact {
		return page.Fact{Label: page.T(label), Cell: page.Cell{Kind: page.KindMoney, Amount: amount, Currency: b.Currency}}
	}
	d.Sections = append(d.Sections, page.Section{Title: page.T("section.payments"), Rows: []page.Fact{
		money("field.total", b.Total), money("field.paid", b.Paid), money("field.outstanding", b.Outstanding), money("field.overdue", b.Overdue), money("field.credit", b.Credit),
	}})
	return nil
}
