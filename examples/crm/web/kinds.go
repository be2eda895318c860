package web

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// resourceOf begins the kind of a type.
func resourceOf[P guard.Record](records *guard.Records[P], plural, title string) *resource[P] {
	k := &resource[P]{
		typ: records.Type(), plural: plural, records: records, title: title, sort: "updated_at",
		byName: map[string]encrypt.Field{},
		refs:   map[string]string{},
	}
	for _, f := range records.Fields() {
		k.byName[f.Name] = f
		if f.Name == "customer" {
			k.refs["customer"] = crm.TypeCustomer
		}
		for _, i := range f.Indexes {
			if i.Kind == "exact" {
				k.searchable = append(k.searchable, f.Name)
			}
		}
	}
	return k
}

// lifecycle gives a kind the steps of a transition table.
func lifecycle[P guard.Record, S ~string](k *resource[P], l crm.Lifecycle[S], state func(P) S, move func(P, S, time.Time) error) {
	k.moves = func(v P) []string {
		var out []string
		for _, s := range l.Next(state(v)) {
			if !slices.Contains(byDesk[k.typ], string(s)) {
				out = append(out, string(s))
			}
		}
		return out
	}
	k.move = func(v P, to string, at time.Time) error { return move(v, S(to), at) }
}

func strs[S ~string](in ...S) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = string(s)
	}
	return out
}

// allKinds describes every type: its columns, its page and its form.
func (s *Server) allKinds() []kind {
	a := s.app
	text := func(name string) field { return field{name: name} }
	view := func(name string) field { return field{name: name, kind: noInput} }
	currency := field{name: "currency", kind: page.FieldSelect, options: moneys}
	customerRef := field{name: "customer", kind: page.FieldHidden, create: true, formOnly: true}

	customers := resourceOf(a.Customers, "customers", "name")
	customers.list = []string{"name", "contact", "phone", "stage", "open_value", "last_follow_up"}
	customers.badge = "stage"
	customers.money = []string{"open_value", "credit_limit"}
	customers.tabs = []string{crm.TypeFollowUp, crm.TypeContact, crm.TypeOpportunity, crm.TypeQuote, crm.TypeContract, crm.TypeTicket}
	customers.sections = []section{
		{"main", []field{
			{name: "name", required: true, wide: true}, text("contact"),
			{name: "kind", kind: page.FieldSelect, options: strs(crm.CompanyCustomer, crm.PersonCustomer), labels: "kind"},
			{name: "phone", kind: page.FieldTel}, {name: "phone2", kind: page.FieldTel}, {name: "email", kind: page.FieldEmail},
			{name: "website", kind: page.FieldURL},
		}},
		{"identity", []field{text("id_number")}},
		{"money", []field{{name: "open_value", kind: page.FieldMoney}, {name: "credit_limit", kind: page.FieldMoney}, currency}},
		{"address", []field{{name: "address", wide: true}, text("city"), text("country"), text("industry"), text("source"), view("external_id"), view("last_follow_up")}},
		{"note", []field{{name: "note", kind: page.FieldTextarea, wide: true}}},
	}
	customers.prepare = func(v *crm.Customer, _ *http.Request) []error {
		v.Stage, v.Kind, v.Currency = crm.CustomerNew, crm.CompanyCustomer, "CNY"
		return nil
	}
	lifecycle(customers, crm.CustomerLifecycle(), func(v *crm.Customer) crm.CustomerStage { return v.Stage }, (*crm.Customer).Move)

	contacts := resourceOf(a.Contacts, "contacts", "name")
	contacts.ofCustomer = true
	contacts.list = []string{"name", "customer", "title", "phone", "email"}
	contacts.sections = []section{
		{"main", []field{{name: "name", required: true}, text("title"), {name: "phone", kind: page.FieldTel}, {name: "email", kind: page.FieldEmail}, {name: "primary", kind: page.FieldCheckbox}, view("customer"), customerRef}},
		{"note", []field{{name: "note", kind: page.FieldTextarea, wide: true}}},
	}
	contacts.prepare = func(v *crm.Contact, r *http.Request) []error { return setCustomer(&v.Customer, r) }

	leads := resourceOf(a.Leads, "leads", "name")
	leads.list = []string{"name", "company", "phone", "state", "source", "updated_at"}
	leads.badge = "state"
	leads.refs["customer"] = crm.TypeCustomer
	leads.tabs, leads.belongs = []string{crm.TypeFollowUp}, "subject"
	leads.acts = s.leadActs
	leads.sections = []section{
		{"main", []field{{name: "name", required: true}, text("company"), text("title"), {name: "phone", kind: page.FieldTel}, {name: "email", kind: page.FieldEmail}, text("source"), view("customer")}},
		{"address", []field{text("city"), text("country")}},
		{"note", []field{{name: "note", kind: page.FieldTextarea, wide: true}}},
	}
	leads.prepare = func(v *crm.Lead, _ *http.Request) []error { v.State = crm.LeadNew; return nil }
	lifecycle(leads, crm.LeadLifecycle(), func(v *crm.Lead) crm.LeadState { return v.State }, (*crm.Lead).Move)

	followUps := resourceOf(a.FollowUps, "follow-ups", "text")
	followUps.ofCustomer = true
	followUps.list = []string{"text", "customer", "channel", "at", "next_at"}
	followUps.sort = "at"
	followUps.sections = []section{
		{"main", []field{
			{name: "subject_type", kind: page.FieldHidden, create: true}, {name: "subject", kind: page.FieldHidden, create: true},
			{name: "channel", kind: page.FieldSelect, options: strs(crm.ChannelCall, crm.ChannelVisit, crm.ChannelWeChat, crm.ChannelEmail, crm.ChannelOther), labels: "channel"},
			{name: "at", kind: page.FieldTime, required: true}, {name: "next_at", kind: page.FieldTime}, view("customer"), customerRef,
			{name: "text", kind: page.FieldTextarea, wide: true, required: true},
		}},
	}
	followUps.prepare = func(v *crm.FollowUp, r *http.Request) []error {
		v.Channel, v.At, v.SubjectType = crm.ChannelCall, time.Now().UTC().Truncate(time.Minute), crm.TypeCustomer
		errs := setCustomer(&v.Customer, r)
		v.Subject = v.Customer.UUID()
		if u, err := crm.ParseUUID(r.FormValue("lead")); err == nil {
			v.SubjectType, v.Subject, v.Customer = crm.TypeLead, u, crm.ID[crm.Customer]{}
		}
		return errs
	}
	followUps.store = func(r *request, v *crm.FollowUp) error { return a.Desk.FollowUp(r.Context(), r.caller(), v) }

	quotes := resourceOf(a.Quotes, "quotes", "number")
	quotes.ofCustomer = true
	quotes.list = []string{"number", "customer", "state", "total", "valid_until"}
	quotes.badge, quotes.lines = "state", true
	quotes.money = []string{"net", "tax", "total"}
	quotes.sections = []section{
		{"main", []field{{name: "number", required: true}, view("customer"), customerRef, currency, {name: "valid_until", kind: page.FieldDate, required: true}, view("revision"), view("approver"), view("approved_at"), view("sent_at"), view("decided_at")}},
		{"money", []field{view("net"), view("tax"), view("total")}},
		{"note", []field{{name: "note", kind: page.FieldTextarea, wide: true}}},
	}
	quotes.prepare = func(v *crm.Quote, r *http.Request) []error {
		v.State, v.Currency = crm.QuoteDraft, "CNY"
		v.Number = number("Q")
		v.ValidUntil = time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 1, 0)
		return setCustomer(&v.Customer, r)
	}
	quotes.acts = s.quoteActs
	quotes.detail = func(_ *request, d *page.Detail, v *guard.View[*crm.Quote], _ string) error {
		if d.Notice.IsZero() {
			d.Notice = quoteNotice(v.Value)
		}
		return nil
	}
	lifecycle(quotes, crm.QuoteLifecycle(), func(v *crm.Quote) crm.QuoteState { return v.State }, (*crm.Quote).Move)

	contracts := resourceOf(a.Contracts, "contracts", "number")
	contracts.ofCustomer = true
	contracts.list = []string{"number", "customer", "state", "amount", "paid", "ends"}
	contracts.badge = "state"
	contracts.money = []string{"amount", "paid"}
	contracts.refs["quote"] = crm.TypeQuote
	contracts.sections = []section{
		{"main", []field{{name: "number", required: true}, view("customer"), customerRef, view("quote"), {name: "starts", kind: page.FieldDate, required: true}, {name: "ends", kind: page.FieldDate, required: true}, text("signatory"), view("approver"), view("approved_at"), view("closed_at")}},
		{"money", []field{{name: "amount", kind: page.FieldMoney}, {name: "paid", kind: page.FieldMoney}, currency}},
		{"note", []field{{name: "note", kind: page.FieldTextarea, wide: true}}},
	}
	contracts.prepare = func(v *crm.Contract, r *http.Request) []error {
		v.State, v.Currency = crm.ContractDraft, "CNY"
		v.Number = number("C")
		v.Starts = time.Now().UTC().Truncate(24 * time.Hour)
		v.Ends = v.Starts.AddDate(1, 0, 0)
		return setCustomer(&v.Customer, r)
	}
	contracts.acts = s.contractActs
	contracts.tabs, contracts.belongs = []string{crm.TypeInstalment, crm.TypeReceipt}, "contract"
	contracts.detail = func(r *request, d *page.Detail, v *guard.View[*crm.Contract], _ string) error {
		return s.standing(r, d, v.Value)
	}
	lifecycle(contracts, crm.ContractLifecycle(), func(v *crm.Contract) crm.ContractState { return v.State }, (*crm.Contract).Move)

	tickets := resourceOf(a.Tickets, "tickets", "subject")
	tickets.ofCustomer = true
	tickets.list = []string{"number", "subject", "customer", "priority", "state", "due_at"}
	tickets.badge = "state"
	tickets.sections = []section{
		{"main", []field{view("number"), {name: "subject", required: true, wide: true}, view("customer"), customerRef,
			{name: "priority", kind: page.FieldSelect, options: strs(crm.PriorityLow, crm.PriorityNormal, crm.PriorityHigh, crm.PriorityUrgent), labels: "priority"},
			{name: "due_at", kind: page.FieldTime}, {name: "body", kind: page.FieldTextarea, wide: true}, view("resolved_at"), view("closed_at")}},
	}
	tickets.prepare = func(v *crm.Ticket, r *http.Request) []error {
		v.State, v.Priority = crm.TicketOpen, crm.PriorityNormal
		v.Number = number("T")
		return setCustomer(&v.Customer, r)
	}
	lifecycle(tickets, crm.TicketLifecycle(), func(v *crm.Ticket) crm.TicketState { return v.State }, (*crm.Ticket).Move)

	employees := resourceOf(a.Employees, "employees", "name")
	employees.list = []string{"name", "roles", "team", "state", "joined"}
	employees.badge = "state"
	employees.sections = []section{
		{"main", []field{{name: "name", required: true}, {name: "email", kind: page.FieldEmail, required: true}, {name: "phone", kind: page.FieldTel}, {name: "team"},
			{name: "roles", kind: page.FieldChecks, options: []string{"admin", "manager", "sales", "marketing", "support", "finance", "analyst", "auditor"}, labels: "role", wide: true},
			{name: "joined", kind: page.FieldDate}}},
	}
	employees.prepare = func(v *crm.Employee, _ *http.Request) []error {
		v.State, v.Team, v.Joined = crm.EmployeeInvited, "/office/", time.Now().UTC().Truncate(24*time.Hour)
		return nil
	}
	employees.detail = func(r *request, d *page.Detail, v *guard.View[*crm.Employee], base string) error {
		if s.may(r, authz.Update, crm.TypeEmployee) {
			d.Secondary = append(d.Secondary, page.Action{Label: page.T("token.title"), Href: base + "/tokens"})
		}
		if err := s.leavingPanel(r, d, v.Value, base); err != nil {
			return err
		}
		if s.may(r, authz.Update, "account") {
			_, err := a.AccountOf(r.Context(), v.Value.ID.UUID())
			if errors.Is(err, crm.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			d.Secondary = append(d.Secondary, page.Action{Label: page.T("access.open"), Href: base + "/sign-in"})
		}
		return nil
	}
	lifecycle(employees, crm.EmployeeLifecycle(), func(v *crm.Employee) crm.EmployeeState { return v.State }, (*crm.Employee).Move)

	customers.hands, leads.hands = true, true
	customers.dups, leads.dups, contacts.dups = a.Duplicates.Customers, a.Duplicates.Leads, a.Duplicates.Contacts
	customers.bin, contacts.bin, leads.bin, followUps.bin = true, true, true, true
	quotes.bin, contracts.bin, tickets.bin = true, true, true

	kinds := append([]kind{customers, contacts, leads, followUps}, s.salesKinds()...)
	kinds = append(append(kinds, quotes, contracts), s.paymentKinds()...)
	kinds = append(append(kinds, tickets, employees), s.governKinds()...)
	kinds = append(append(kinds, s.erasureKinds()...), s.webhookKinds()...)
	return append(kinds, s.importKind(), s.mergeKind())
}

// setCustomer takes the customer that a new record is for from the address or the form.
func setCustomer(id *crm.ID[crm.Customer], r *http.Request) []error {
	u, err := crm.ParseUUID(r.FormValue("customer"))
	if err == nil {
		*id = crm.ID[crm.Customer](u)
	}
	return nil
}

// number makes a number of a series that two clerks do not draw at once: the day and the time of it.
func number(series string) string {
	return fmt.Sprintf("%s-%s", series, time.Now().UTC().Format("20060102-150405.000"))
}

// inherit gives a new record the person and the team of its customer, whom the caller must be able to
// read: personal data in it is the customer's.
func (s *Server) inherit(r *request, v any) error {
	var id crm.ID[crm.Customer]
	switch x := v.(type) {
	case *crm.FollowUp:
		if x.SubjectType == crm.TypeLead {
			l, err := s.app.Leads.Get(r.Context(), r.caller(), x.Subject)
			if err != nil {
				return err
			}
			x.Person, x.Customer = l.Value.Person, crm.ID[crm.Customer]{}
			return nil
		}
		x.SubjectType, id = crm.TypeCustomer, x.Customer
	case *crm.Quote:
		id = x.Customer
		_ = x.Compute() // a total that does not fit is told by Validate
	case *crm.Contract:
		id = x.Customer
	case *crm.Ticket:
		id = x.Customer
	case *crm.Contact:
		id = x.Customer
	case *sales.Opportunity:
		id = x.Customer
	case *finance.Receipt:
		if x.Contract.IsZero() {
			return nil // Validate says so
		}
		k, err := s.app.Contracts.Get(r.Context(), r.caller(), x.Contract.UUID())
		if err != nil {
			return err
		}
		x.Customer, x.Currency, x.Person, x.Team = k.Value.Customer, k.Value.Currency, k.Value.Person, k.Value.Team
		return nil
	default:
		return nil
	}
	if id.IsZero() {
		return nil // Validate says so
	}
	c, err := s.app.Customers.Get(r.Context(), r.caller(), id.UUID())
	if err != nil {
		return err
	}
	switch x := v.(type) {
	case *crm.FollowUp:
		x.Person, x.Subject = c.Value.Person, id.UUID()
	case *crm.Quote:
		x.Person = c.Value.Person
	case *crm.Contract:
		x.Person = c.Value.Person
		if !x.Signatory.IsEmpty() && x.SignatoryPerson.IsZero() {
			x.SignatoryPerson = c.Value.Person // who signs for the customer
		}
	case *crm.Ticket:
		x.Person = c.Value.Person
	case *sales.Opportunity:
		x.Person = crm.ID[crm.Person](c.Value.Person)
	}
	return nil
}

// adminStays refuses that an employee stops being an administrator, by their roles, their state or the recycle bin, when nobody else is one; and that somebody
// takes that role from themselves. next is nil for somebody who goes altogether.
func (s *Server) adminStays(r *request, was crm.UUID, next *crm.Employee) error {
	e, err := s.app.Employees.Get(r.Context(), r.caller(), was)
	if err != nil || !slices.Contains(e.Value.Roles, "admin") || !e.Value.Active() || next != nil && next.Active() && slices.Contains(next.Roles, "admin") {
		return err
	}
	if was == r.self.ID.UUID() {
		return &crm.InvalidError{Type: crm.TypeEmployee, Fields: []crm.FieldError{{Field: "roles", Rule: "fixed"}}}
	}
	return s.app.AdminStays(r.Context(), was)
}

// quoteLines shows the lines of a quote.
func quoteLines(q *crm.Quote) page.List {
	l := page.List{ID: "lines", Title: page.T("lines.title"), Count: -1, Columns: []page.Column{
		{Label: page.T("field.product")}, {Label: page.T("field.quantity"), Kind: page.KindNumber},
		{Label: page.T("field.unit_price"), Kind: page.KindMoney}, {Label: page.T("field.discount"), Kind: page.KindNumber},
		{Label: page.T("field.tax_rate"), Kind: page.KindNumber}, {Label: page.T("field.total"), Kind: page.KindMoney},
	}}
	for _, line := range q.Lines {
		net, tax, _ := line.Amounts()
		l.Rows = append(l.Rows, page.Row{Cells: []page.Cell{
			{Text: line.Product}, {Text: quantityText(line)},
			{Kind: page.KindMoney, Amount: line.UnitPrice, Currency: q.Currency},
			{Text: percent(line.Discount) + " %"}, {Text: percent(line.Tax) + " %"},
			{Kind: page.KindMoney, Amount: net + tax, Currency: q.Currency},
		}})
	}
	return l
}

// percent writes basis points as percent, without needless zeros.
func percent(points int64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%d.%02d", points/100, points%100), "0"), ".")
}

// lineRows shows the lines of a quote as inputs.
func lineRows(q *crm.Quote) *page.Lines {
	l := &page.Lines{Currency: q.Currency}
	for _, line := range q.Lines {
		l.Rows = append(l.Rows, page.LineRow{
			Product: line.Product, Quantity: quantityText(line),
			UnitPrice: fmt.Sprintf("%d.%02d", line.UnitPrice/100, line.UnitPrice%100),
			Discount:  percent(line.Discount), Tax: percent(line.Tax),
		})
	}
	return l
}

// mostLines is how many lines of an offer a form has.
const mostLines = 500

// readLines reads them back. A row of nothing is not meant; a line that stays keeps the product of the list that it names.
func readLines(r *http.Request, q *crm.Quote) error {
	was := q.Lines
	var lines []crm.Line
	for i := range mostLines {
		get := func(name string) string {
			return strings.TrimSpace(r.PostForm.Get(fmt.Sprintf("lines.%d.%s", i, name)))
		}
		l := crm.Line{Product: get("product")}
		if l.Product == "" && get("quantity") == "" && get("unit_price") == "" && get("discount") == "" && get("tax") == "" {
			continue
		}
		var err error
		if l.Quantity, l.Milli, err = quantity(get("quantity")); err != nil {
			return err
		}
		if l.UnitPrice, err = minor(get("unit_price")); err != nil {
			return err
		}
		if l.Discount, err = points(get("discount")); err != nil {
			return err
		}
		if l.Tax, err = points(get("tax")); err != nil {
			return err
		}
		if i < len(was) && was[i].Product == l.Product {
			l.Item = was[i].Item
		}
		lines = append(lines, l)
	}
	q.Lines = lines
	return nil
}

// quantity reads a number of units such as 3 or 2.5 as whole ones and thousandths.
func quantity(text string) (whole, milli int64, err error) {
	units, frac, _ := strings.Cut(text, ".")
	if len(frac) > 3 {
		return 0, 0, errBadRequest
	}
	n, err := strconv.ParseUint(units, 10, 62)
	if err != nil {
		return 0, 0, errBadRequest
	}
	m, err := strconv.ParseUint((frac + "000")[:3], 10, 10)
	if err != nil {
		return 0, 0, errBadRequest
	}
	return int64(n), int64(m), nil //nolint:gosec // both fit
}

// quantityText writes what quantity reads.
func quantityText(l crm.Line) string {
	if l.Milli == 0 {
		return strconv.FormatInt(l.Quantity, 10)
	}
	return strings.TrimRight(fmt.Sprintf("%d.%03d", l.Quantity, l.Milli), "0")
}

// points reads percent such as 13 or 2.5 as basis points.
func points(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	whole, frac, _ := strings.Cut(text, ".")
	if len(whole) > 4 || len(frac) > 2 {
		return 0, errBadRequest
	}
	n, err := strconv.ParseUint(whole+(frac + "00")[:2], 10, 32)
	if err != nil {
		return 0, errBadRequest
	}
	return int64(n), nil
}

// nav lists what the caller may open.
func (s *Server) nav(r *request) []page.NavGroup {
	visible := func(k kind) []page.NavItem {
		if !k.visible(r) {
			return nil
		}
		href := "/" + k.path()
		return []page.NavItem{{
			Label: page.T("nav." + strings.ReplaceAll(k.path(), "-", "_")), Href: href,
			Active: r.URL.Path == href || strings.HasPrefix(r.URL.Path, href+"/"),
		}}
	}
	groups := map[string][]page.NavItem{}
	for _, k := range s.kinds {
		group := map[string]string{
			"customer": "work", "lead": "work", "contact": "work", "follow_up": "work",
			"opportunity": "deals", "quote": "deals", "contract": "deals", "instalment": "deals", "receipt": "deals", "product": "data", "ticket": "service", "employee": "data", "import": "data", "merge": "data",
			"emergency": "trust", "delegation": "trust", "sharing": "trust", "export": "trust", "certification": "trust", "campaign": "trust",
			"endpoint": "trust", "delivery": "trust", "erasure": "trust", "hold": "trust",
		}[k.name()]
		groups[group] = append(groups[group], visible(k)...)
	}
	groups["work"] = append([]page.NavItem{{Label: page.T("nav.home"), Href: "/", Active: r.URL.Path == "/"}}, groups["work"]...)
	active := func(href string) bool { return r.URL.Path == href || strings.HasPrefix(r.URL.Path, href+"/") }
	if s.mayListPools(r) {
		groups["work"] = append(groups["work"], page.NavItem{Label: page.T("nav.pools"), Href: "/pools", Active: active("/pools")})
	}
	if len(s.numbered(r)) > 0 {
		groups["data"] = append([]page.NavItem{{Label: page.T("nav.numbers"), Href: "/numbers", Active: active("/numbers")}}, groups["data"]...)
	}
	if s.kind(crm.TypeCustomer).visible(r) {
		groups["data"] = append(groups["data"], page.NavItem{Label: page.T("nav.recycle_bin"), Href: "/customers?show=bin"})
	}
	if s.mayReadLog(r) {
		groups["trust"] = append(groups["trust"], page.NavItem{Label: page.T("nav.log"), Href: "/log", Active: strings.HasPrefix(r.URL.Path, "/log")})
	}
	if s.may(r, authz.Read, "backup") {
		groups["trust"] = append(groups["trust"], page.NavItem{Label: page.T("nav.backups"), Href: "/backups", Active: r.URL.Path == "/backups"})
	}
	var out []page.NavGroup
	for _, g := range []string{"work", "deals", "service", "data", "trust"} {
		if len(groups[g]) > 0 {
			out = append(out, page.NavGroup{Label: page.T("nav." + g), Items: groups[g]})
		}
	}
	return out
}

// may asks the policy about a function without using it.
func (s *Server) may(r *request, a authz.Action, function string) bool {
	ok, err := s.app.Guard.May(r.Context(), r.caller(), a, function)
	return ok && err == nil
}

func (s *Server) mayReadLog(r *request) bool { return s.may(r, authz.Read, "log") }

// home is the first page after signing in.
func (s *Server) home(w http.ResponseWriter, r *request) error {
	h := &page.Home{Name: r.self.Name.Expose()}
	if acc, err := s.app.AccountOf(r.Context(), r.self.ID.UUID()); err != nil && !errors.Is(err, crm.ErrNotFound) {
		return err
	} else if err == nil {
		news, err := s.app.News(r.Context(), acc, r.session)
		if err != nil {
			return err
		}
		if len(news) > 0 {
			h.News, h.NewsHref = page.T("notice.news", len(news)), "/sessions/history"
		}
	}
	month := guard.Query{Clauses: []crm.Clause{{Column: "last_follow_up", Op: crm.Less, Values: []crm.Value{crm.TimeValue(time.Now().AddDate(0, 0, -30))}}}}
	open := guard.Query{Clauses: []crm.Clause{{Column: "state", Op: crm.Equal, Values: []crm.Value{crm.StringValue(string(crm.TicketOpen))}}}}
	for _, c := range []struct {
		typ   string
		label string
		href  string
		q     guard.Query
		tone  page.Tone
	}{
		{crm.TypeCustomer, "type.customer.many", "/customers", guard.Query{}, page.Neutral},
		{crm.TypeCustomer, "home.overdue", "/customers?show=overdue", month, page.Warning},
		{crm.TypeLead, "type.lead.many", "/leads", guard.Query{}, page.Neutral},
		{crm.TypeContract, "type.contract.many", "/contracts", guard.Query{}, page.Neutral},
		{crm.TypeTicket, "home.open_tickets", "/tickets", open, page.Neutral},
	} {
		k := s.kind(c.typ)
		if !k.visible(r) {
			continue
		}
		n, err := k.count(r, c.q)
		if err != nil {
			return err
		}
		h.Counts = append(h.Counts, page.Count{Label: page.T(c.label), Value: n, Href: c.href, Tone: c.tone})
	}
	for _, typ := range []string{crm.TypeCustomer, crm.TypeLead} {
		l, err := s.kind(typ).(interface {
			goingBack(s *Server, r *request) (*page.List, error)
		}).goingBack(s, r)
		if err != nil {
			return err
		}
		if l != nil {
			h.Lists = append(h.Lists, *l)
		}
	}
	if k := s.kind(crm.TypeCustomer).(*resource[*crm.Customer]); k.visible(r) {
		p, err := k.records.List(r.Context(), r.caller(), guard.Query{Sort: "updated_at", Desc: true, Limit: 6})
		if err != nil {
			return err
		}
		l, err := k.table(s, r, p.Items, k.list)
		if err != nil {
			return err
		}
		l.Title, l.Policy = page.T("home.recent"), nil
		h.Lists = append(h.Lists, *l)
	}
	return s.show(w, r, http.StatusOK, page.T("nav.home"), h)
}

// search looks a complete name, phone or e-mail up in every type. The term is posted, so that it is in
// no address and no history.
func (s *Server) search(w http.ResponseWriter, r *request) error {
	p := &page.Search{Note: page.T("search.note")}
	if r.Method == http.MethodPost {
		p.Query = strings.TrimSpace(r.FormValue("q"))
		if len(p.Query) > 200 {
			return errBadRequest
		}
		if p.Query != "" {
			for _, k := range s.kinds {
				l, err := k.search(r, s, p.Query)
				if errors.Is(err, guard.ErrBroad) {
					p.Note = page.T("search.broad")
					continue
				}
				if err != nil {
					return err
				}
				if l != nil {
					l.ID = "found-" + k.path()
					p.Lists = append(p.Lists, *l)
				}
			}
		}
	}
	return s.show(w, r, http.StatusOK, page.T("search.title"), p)
}
