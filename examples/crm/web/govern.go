package web

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/review"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// governance registers what the records about rights can do beyond being listed and read.
func (s *Server) governance(mux *http.ServeMux) {
	act := func(flash, back string, do func(r *request, u crm.UUID, version int64) error) func(http.ResponseWriter, *request) error {
		return func(w http.ResponseWriter, r *request) error {
			u, version, err := posted(r)
			if err != nil {
				return err
			}
			if err := do(r, u, version); err != nil {
				return err
			}
			return s.done(w, r, flash, back+u.String(), "")
		}
	}
	s.handle(mux, "POST /emergencies/{id}/approve", act("approved", "/emergencies/", func(r *request, u crm.UUID, version int64) error {
		return s.app.ApproveEmergency(r.Context(), r.caller(), u, version)
	}))
	s.handle(mux, "POST /emergencies/{id}/refuse", act("refused", "/emergencies/", func(r *request, u crm.UUID, version int64) error {
		return s.app.RefuseEmergency(r.Context(), r.caller(), u, version)
	}))
	s.handle(mux, "POST /emergencies/{id}/review", act("reviewed", "/emergencies/", func(r *request, u crm.UUID, version int64) error {
		found := r.PostFormValue("justified")
		if found != "yes" && found != "no" {
			return errBadRequest
		}
		return s.app.ReviewEmergency(r.Context(), r.caller(), u, version, found == "yes")
	}))
	s.handle(mux, "POST /exports/{id}/approve", act("approved", "/exports/", func(r *request, u crm.UUID, version int64) error {
		return s.app.DecideExport(r.Context(), r.caller(), u, version, crm.ExportApproved)
	}))
	s.handle(mux, "POST /exports/{id}/refuse", act("refused", "/exports/", func(r *request, u crm.UUID, version int64) error {
		return s.app.DecideExport(r.Context(), r.caller(), u, version, crm.ExportRefused)
	}))
	s.handle(mux, "POST /exports/{id}/download", s.download)
	s.handle(mux, "GET /campaigns/{id}/items/{employee}/{role}", s.campaignItem)
	s.handle(mux, "POST /campaigns/{id}/items/{employee}/{role}", s.wants(session.Roles, s.decideItem))
	s.handle(mux, "POST /campaigns/{id}/close", s.closeCampaign)
	s.handle(mux, "GET /campaigns/{id}/report.csv", s.campaignReport)
	s.handle(mux, "GET /campaigns/{id}/report.html", s.campaignReport)
}

// governed are the types that shares, deputies and emergencies are about.
var governed = []string{crm.TypeCustomer, crm.TypeContact, crm.TypeLead, crm.TypeFollowUp, crm.TypeQuote, crm.TypeContract, crm.TypeTicket}

// governKinds describes the records about rights.
func (s *Server) governKinds() []kind {
	a := s.app
	view := func(name string) field { return field{name: name, kind: noInput} }
	may := func(r *request, ok bool, err error) bool { return ok && err == nil }
	lasting := func(name string, options ...string) field {
		return field{name: name, kind: page.FieldChecks, options: options, labels: "do", wide: true}
	}

	emergencies := resourceOf(a.Emergencies, "emergencies", "record_type")
	emergencies.governs, emergencies.badge = true, "state"
	emergencies.list = []string{"record_type", "owner", "state", "starts", "ends", "created_at"}
	emergencies.sections = []section{{"main", []field{
		{name: "record_type", kind: page.FieldSelect, options: governed, labels: "type", required: true},
		{name: "hours", kind: page.FieldSelect, options: []string{"1", "2", "3", "4"}, required: true},
		{name: "reason", kind: page.FieldTextarea, wide: true, required: true},
		view("approvers"), view("starts"), view("ends"), view("reviewer"), view("reviewed_at"), view("justified"),
	}}}
	emergencies.prepare = func(v *crm.Emergency, _ *http.Request) []error {
		v.State, v.Hours = crm.EmergencyRequested, 1
		return nil
	}
	emergencies.store = func(r *request, v *crm.Emergency) error { return a.RequestEmergency(r.Context(), r.caller(), v) }
	emergencies.acts = func(r *request, v *guard.View[*crm.Emergency], base string) []page.Action {
		var out []page.Action
		e := v.Value
		approve, _, err := a.Emergencies.May(r.Context(), r.caller(), authz.Approve, e)
		if e.State == crm.EmergencyRequested && may(r, approve, err) {
			out = append(out,
				page.Action{Label: page.T("act.approve"), Href: base + "/approve", Post: true},
				page.Action{Label: page.T("act.refuse"), Href: base + "/refuse", Post: true, Tone: page.Danger})
		}
		look, _, err := a.Emergencies.May(r.Context(), r.caller(), authz.Certify, e)
		if e.Due(time.Now()) && may(r, look, err) {
			out = append(out,
				page.Action{Label: page.T("act.justified"), Href: base + "/review", Post: true, Inputs: []page.Input{{Name: "justified", Value: "yes"}}},
				page.Action{Label: page.T("act.unjustified"), Href: base + "/review", Post: true, Inputs: []page.Input{{Name: "justified", Value: "no"}}, Tone: page.Danger})
		}
		return out
	}

	delegations := resourceOf(a.Delegations, "delegations", "")
	delegations.governs, delegations.ends = true, "end"
	delegations.list = []string{"deputy", "owner", "actions", "starts", "ends"}
	delegations.sections = []section{{"main", []field{
		{name: "deputy", kind: page.FieldSelect, people: true, required: true},
		lasting("actions", "list", "read", "search", "create", "update", "reveal", "history"),
		{name: "starts", kind: page.FieldDate, required: true}, {name: "ends", kind: page.FieldDate, required: true},
	}}}
	delegations.prepare = func(v *crm.Delegation, _ *http.Request) []error {
		v.Starts = time.Now().UTC().Truncate(24 * time.Hour)
		v.Ends = v.Starts.AddDate(0, 0, 14)
		v.Actions = []string{"list", "read", "search"}
		return nil
	}
	delegations.store = func(r *request, v *crm.Delegation) error { return a.Delegate(r.Context(), r.caller(), v) }

	sharings := resourceOf(a.Sharings, "sharings", "")
	sharings.governs, sharings.ends, sharings.ofCustomer = true, "end", true // made from the page of a record
	sharings.list = []string{"record_type", "with", "owner", "actions", "ends"}
	sharings.sections = []section{{"main", []field{
		{name: "record_type", kind: page.FieldHidden, create: true}, {name: "record", kind: page.FieldHidden, create: true},
		{name: "with", kind: page.FieldSelect, people: true, required: true},
		lasting("actions", "list", "read", "search", "update"),
		{name: "ends", kind: page.FieldDate, required: true},
	}}}
	sharings.prepare = func(v *crm.Sharing, r *http.Request) []error {
		v.RecordType = r.FormValue("type")
		v.Record, _ = crm.ParseUUID(r.FormValue("record"))
		v.Actions = []string{"list", "read"}
		v.Ends = time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 1, 0)
		return nil
	}
	sharings.store = func(r *request, v *crm.Sharing) error {
		k := s.kind(v.RecordType)
		if k == nil || !slices.Contains(governed, v.RecordType) {
			return crm.ErrNotFound
		}
		return a.ShareRecord(r.Context(), r.caller(), v, k.authorize)
	}

	exports := resourceOf(a.Exports, "exports", "record_type")
	exports.governs, exports.badge, exports.ofCustomer = true, "state", true
	exports.store = func(*request, *crm.Export) error { return crm.ErrNotFound } // one is asked for from a list
	exports.list = []string{"record_type", "owner", "rows", "columns", "state", "created_at"}
	exports.sections = []section{{"main", []field{
		view("record_type"), view("filter"), view("rows"), view("columns"), view("chosen"), view("format"), view("reason"), view("approver"), view("decided_at"), view("taken_at"),
	}}}
	exports.detail = s.sendingNotice
	exports.acts = func(r *request, v *guard.View[*crm.Export], base string) []page.Action {
		var out []page.Action
		e := v.Value
		approve, _, err := a.Exports.May(r.Context(), r.caller(), authz.Approve, e)
		if e.State == crm.ExportRequested && may(r, approve, err) {
			out = append(out,
				page.Action{Label: page.T("act.approve"), Href: base + "/approve", Post: true},
				page.Action{Label: page.T("act.refuse"), Href: base + "/refuse", Post: true, Tone: page.Danger})
		}
		if e.Owner == r.self.ID && (e.State == crm.ExportApproved || e.State == crm.ExportOpen) {
			out = append(out, page.Action{Label: page.T("act.download"), Href: base + "/download", Post: true})
		}
		return out
	}

	certifications := resourceOf(a.Certifications, "certifications", "role")
	certifications.governs = true
	certifications.list = []string{"role", "owner", "until", "by"}
	certifications.sort = "until"
	certifications.sections = []section{{"main", []field{view("owner"), view("role"), view("until"), view("by"), view("outcome"), view("reviewer"), view("decided")}}}

	campaigns := resourceOf(a.Campaigns, "campaigns", "")
	campaigns.governs = true
	campaigns.list = []string{"opened", "due", "items", "closed"}
	campaigns.sort = "opened"
	campaigns.sections = []section{{"main", []field{
		view("opened"), {name: "due", kind: page.FieldDate, required: true},
		{name: "days", kind: page.FieldNumber, required: true}, view("items"), view("closed"),
	}}}
	campaigns.prepare = func(v *crm.Campaign, _ *http.Request) []error {
		v.Due, v.Days = time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, 14), 180
		return nil
	}
	campaigns.store = func(r *request, v *crm.Campaign) error {
		u, _, err := a.OpenCampaign(r.Context(), r.caller(), v.Due, v.Days)
		v.ID = crm.ID[crm.Campaign](u)
		return err
	}
	campaigns.detail = s.showCampaign

	return []kind{emergencies, delegations, sharings, exports, certifications, campaigns}
}

// people are those who work here, for a choice of somebody else.
func (s *Server) people(r *request) []page.Option {
	s.names.mu.RLock()
	defer s.names.mu.RUnlock()
	var out []page.Option
	for u, e := range s.names.all {
		if e.Active() && u != r.self.ID.UUID() {
			out = append(out, page.Option{Value: u.String(), Label: page.Plain(e.Name.Expose())})
		}
	}
	slices.SortFunc(out, func(a, b page.Option) int { return strings.Compare(a.Label.Plain, b.Label.Plain) })
	return out
}

// list names several people.
func (d *directory) list(words string) string {
	var out []string
	for _, w := range strings.FieldsFunc(words, func(r rune) bool { return r == '<' || r == '>' }) {
		name := w
		if u, err := crm.ParseUUID(w); err == nil {
			if e := d.get(u); e != nil {
				name = e.Name.Expose()
			}
		}
		out = append(out, name)
	}
	return strings.Join(out, ", ")
}

func (k *resource[P]) authorize(ctx context.Context, c guard.Caller, a authz.Action, u crm.UUID) (crm.Header, error) {
	return k.records.Authorize(ctx, c, a, u)
}

// showCampaign shows who is asked about whom, and what they said.
func (s *Server) showCampaign(r *request, d *page.Detail, v *guard.View[*crm.Campaign], base string) error {
	c, items, err := s.app.Campaign(r.Context(), r.caller(), v.Value.ID.UUID())
	if err != nil {
		return err
	}
	mine := &page.List{ID: "mine", Title: page.T("campaign.mine"), Count: -1, Empty: page.Empty{Text: page.T("campaign.none")}}
	all := &page.List{ID: "items", Title: page.T("campaign.items"), Count: int64(len(items.Items)), Empty: page.Empty{Text: page.T("campaign.none")}}
	for _, l := range []*page.List{mine, all} {
		l.Columns = []page.Column{{Label: page.T("type.employee")}, {Label: page.T("field.certification.role")}, {Label: page.T("field.certification.reviewer")}, {Label: page.T("field.certification.outcome")}}
	}
	for _, it := range items.Items {
		row := page.Row{Href: base + "/items/" + it.Subject + "/" + it.Role, Cells: []page.Cell{
			{Text: s.actor(it.Subject), Strong: true}, {Key: "role." + it.Role}, {Text: s.actor(it.Reviewer)}, {Key: outcomeKey(it.Outcome)},
		}}
		all.Rows = append(all.Rows, row)
		if it.Reviewer == r.self.ID.String() && it.Outcome == review.Open && c.Closed.IsZero() {
			mine.Rows = append(mine.Rows, row)
		}
	}
	if c.Closed.IsZero() {
		d.Lists = append(d.Lists, *mine)
		ok, _, err := s.app.Campaigns.May(r.Context(), r.caller(), authz.Update, c)
		if err != nil {
			return err
		}
		d.Edit = ""
		if ok {
			d.Moves = []page.Action{{Label: page.T("campaign.close"), Href: base + "/close", Post: true, Tone: page.Danger}}
		}
	} else {
		d.Edit, d.Moves = "", nil
		d.Notice = page.T("campaign.closed", c.Closed)
	}
	d.Lists = append(d.Lists, *all)
	d.Secondary = append(d.Secondary, page.Action{Label: page.T("campaign.csv"), Href: base + "/report.csv"}, page.Action{Label: page.T("campaign.html"), Href: base + "/report.html"})
	return nil
}

func outcomeKey(o review.Outcome) string {
	if o == review.Open {
		return "outcome.open"
	}
	return "outcome." + string(o)
}

// item reads which role of whom a page is about.
func (s *Server) item(r *request) (campaign, employee crm.UUID, role string, err error) {
	if campaign, err = id(r); err != nil {
		return
	}
	if employee, err = crm.ParseUUID(r.PathValue("employee")); err != nil {
		return campaign, employee, "", crm.ErrNotFound
	}
	return campaign, employee, r.PathValue("role"), nil
}

// campaignItem asks whether somebody still needs a role.
func (s *Server) campaignItem(w http.ResponseWriter, r *request) error {
	campaign, employee, role, err := s.item(r)
	if err != nil {
		return err
	}
	c, items, err := s.app.Campaign(r.Context(), r.caller(), campaign)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(items.Items, func(it review.Item) bool { return it.Subject == employee.String() && it.Role == role })
	if i < 0 {
		return crm.ErrNotFound
	}
	it := items.Items[i]
	d := &page.Detail{
		Title: page.Cell{Text: s.actor(it.Subject), Strong: true}, Version: 1,
		Subtitle: []page.Text{page.T("role." + role), page.T(outcomeKey(it.Outcome))},
		Sections: []page.Section{{Title: page.T("section.main"), Rows: []page.Fact{
			{Label: page.T("field.certification.role"), Cell: page.Cell{Key: "role." + role}},
			{Label: page.T("field.certification.reviewer"), Cell: page.Cell{Text: s.actor(it.Reviewer)}},
			{Label: page.T("field.certification.outcome"), Cell: page.Cell{Key: outcomeKey(it.Outcome)}},
			{Label: page.T("field.certification.decided"), Cell: page.Cell{Kind: page.KindTime, Time: it.At}},
		}}},
		Secondary: []page.Action{{Label: page.T("campaign.back"), Href: "/campaigns/" + campaign.String()}},
	}
	if it.Reviewer == r.self.ID.String() && c.Closed.IsZero() {
		for _, o := range []review.Outcome{review.Kept, review.Revoked} {
			tone := page.Neutral
			if o == review.Revoked {
				tone = page.Danger
			}
			d.Moves = append(d.Moves, page.Action{Label: page.T("act." + string(o)), Href: r.URL.Path, Post: true, Tone: tone, Inputs: []page.Input{{Name: "outcome", Value: string(o)}}})
		}
	}
	return s.show(w, r, http.StatusOK, page.T("type.certification"), d)
}

func (s *Server) decideItem(w http.ResponseWriter, r *request) error {
	campaign, employee, role, err := s.item(r)
	if err != nil {
		return err
	}
	if err := s.app.DecideCertification(r.Context(), r.caller(), campaign, employee, role, review.Outcome(r.PostFormValue("outcome"))); err != nil {
		return err
	}
	return s.done(w, r, "saved", "/campaigns/"+campaign.String(), "")
}

func (s *Server) closeCampaign(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	if err := s.app.CloseCampaign(r.Context(), r.caller(), u); err != nil {
		return err
	}
	return s.done(w, r, "closed", "/campaigns/"+u.String(), "")
}

// campaignReport writes a campaign for a spreadsheet or for print.
func (s *Server) campaignReport(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	c, items, err := s.app.Campaign(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	t := review.NewTable("Certification "+c.Opened.Format(time.DateOnly), items.Items)
	t.Note = "campaign " + u.String() + ", policy " + s.app.Policy.Revision() + ", written for " + r.self.ID.String() + " at " + time.Now().UTC().Format(time.RFC3339)
	var b bytes.Buffer
	if strings.HasSuffix(r.URL.Path, ".csv") {
		err = t.CSV(&b)
		w.Header().Set("Content-Type", "text/csv; charset=utf-8")
		w.Header().Set("Content-Disposition", `attachment; filename="certification-`+c.Opened.Format("20060102")+`.csv"`)
	} else {
		err = t.HTML(&b)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
	}
	if err != nil {
		return err
	}
	_, _ = w.Write(b.Bytes()) // the client may be gone
	return nil
}
