package web

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// leaving registers the act that hands over everything of who leaves.
func (s *Server) leaving(mux *http.ServeMux) {
	s.handle(mux, "POST /employees/{id}/hand-over", func(w http.ResponseWriter, r *request) error {
		from, err := id(r)
		if err != nil {
			return err
		}
		out, err := s.handAll(r.Context(), r.caller(), from, r.PostFormValue("to"))
		if err != nil {
			return err
		}
		d := &page.Detail{Title: page.Cell{Key: "leave.handed", Strong: true}, Version: 1}
		for title, counts := range map[string]map[string]int{"leave.done": out.Done, "leave.left": out.Left} {
			l := page.List{ID: title[len("leave."):], Title: page.T(title), Count: -1, Empty: page.Empty{Text: page.T("leave.nothing")},
				Columns: []page.Column{{Label: page.T("field.record_type")}, {Label: page.T("erase.records"), Kind: page.KindNumber}}}
			for _, typ := range slices.Sorted(maps.Keys(counts)) {
				l.Rows = append(l.Rows, page.Row{Cells: []page.Cell{{Key: "type." + typ + ".many", Strong: true}, {Kind: page.KindNumber, Amount: int64(counts[typ])}}})
			}
			d.Lists = append(d.Lists, l)
		}
		slices.SortFunc(d.Lists, func(a, b page.List) int { return len(a.ID) - len(b.ID) })
		if len(out.Left) == 0 {
			d.Lists = slices.DeleteFunc(d.Lists, func(l page.List) bool { return l.ID == "left" })
		} else {
			d.Notice = page.T("leave.left.why")
		}
		d.Secondary = append(d.Secondary, page.Action{Label: page.T("leave.back"), Href: "/employees/" + from.String()})
		return s.show(w, r, http.StatusOK, page.T("leave.handed"), d)
	})
}

// handAll hands over what an employee owns, whom the caller must be able to read.
func (s *Server) handAll(ctx context.Context, c guard.Caller, from crm.UUID, to string) (desk.Handed, error) {
	if _, err := s.app.Employees.Get(ctx, c, from); err != nil {
		return desk.Handed{}, err
	}
	heir, err := crm.ParseUUID(to)
	if err != nil {
		return desk.Handed{}, &crm.InvalidError{Type: crm.TypeEmployee, Fields: []crm.FieldError{{Field: "to", Rule: "required"}}}
	}
	return s.app.Desk.HandAll(ctx, c, crm.ID[crm.Employee](from), crm.ID[crm.Employee](heir))
}

// leavingPanel offers it on the page of an employee.
func (s *Server) leavingPanel(r *request, d *page.Detail, e *crm.Employee, base string) error {
	ok, _, err := s.app.Customers.MayOwn(r.Context(), r.caller(), authz.Handover)
	people := s.staff(nil, e.ID)
	if err != nil || !ok || len(people) == 0 || e.State == crm.EmployeeInvited {
		return err
	}
	d.Panels = append(d.Panels, page.Panel{Title: page.T("leave.title"), Note: page.T("leave.note"), Actions: []page.Action{{
		Label: page.T("leave.hand_over"), Href: base + "/hand-over", Post: true,
		Fields: []page.Field{{Name: "to", ID: "f-hand-over", Kind: page.FieldSelect, Label: page.T("hand.to"), Required: true, Options: people}},
	}}})
	return nil
}

// apiHanded counts records by type.
type apiHanded struct {
	Body struct {
		Done map[string]int `json:"done" doc:"by type: have another owner now"`
		Left map[string]int `json:"left" doc:"by type: stay, as a rule of theirs forbids the new owner or you may not give them away"`
	}
}

// leavingAPI registers the act.
func (s *Server) leavingAPI(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "hand-over-employees", Method: http.MethodPost, Path: "/api/v1/employees/{id}/hand-over", Summary: "Hand over everything of who leaves", Tags: []string{"employees"}, MaxBodyBytes: 16 << 10,
	}, func(ctx context.Context, in *struct {
		ID   string `path:"id" maxLength:"36"`
		Body struct {
			To string `json:"to" maxLength:"36" doc:"the employee who gets it"`
		}
	}) (*apiHanded, error) {
		u, err := crm.ParseUUID(in.ID)
		if err != nil {
			return nil, apiFault(crm.ErrNotFound)
		}
		done, err := s.handAll(ctx, ctx.Value(apiKey{}).(*request).caller(), u, in.Body.To)
		if err != nil {
			return nil, apiFault(err)
		}
		out := &apiHanded{}
		out.Body.Done, out.Body.Left = done.Done, done.Left
		return out, nil
	})
}

// leftOver says what somebody who would leave still owns: for programs, and for people. Nothing for another error.
func leftOver(err error) (places []string, what page.Text) {
	var left *crm.LeftOverError
	if !errors.As(err, &left) {
		return nil, page.Text{}
	}
	for i, typ := range slices.Sorted(maps.Keys(left.Records)) {
		n := left.Records[typ]
		places = append(places, typ+" "+strconv.Itoa(n))
		if name := page.T("type." + typ + ".many"); i == 0 {
			what = page.T("leave.first", name, int64(n))
		} else {
			what = page.T("leave.next", what, name, int64(n))
		}
	}
	return places, page.T("leave.owns", what)
}
