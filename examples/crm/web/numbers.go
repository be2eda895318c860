package web

import (
	"context"
	"net/http"
	"slices"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// numbered is a type whose records are counted by a few of its fields.
type numbered struct {
	typ   string
	by    []string
	sum   string // an amount beside the field currency; "": only counts
	may   func(r *request) bool
	group func(ctx context.Context, c guard.Caller, q guard.Grouping) (guard.Groups, error)
}

// counted makes one of records.
func counted[P guard.Record](records *guard.Records[P], sum string, by ...string) numbered {
	return numbered{
		typ: records.Type(), by: by, sum: sum, group: records.Group,
		may: func(r *request) bool {
			ok, _, err := records.MayOwn(r.Context(), r.caller(), authz.Aggregate)
			return ok && err == nil
		},
	}
}

// allNumbered are the types that there are numbers of.
func (s *Server) allNumbered() []numbered {
	return []numbered{
		counted(s.app.Customers, "open_value", "stage", "source", "owner"),
		counted(s.app.Leads, "", "state", "source", "owner"),
		counted(s.app.Opportunities, "amount", "stage", "state", "owner"),
	}
}

// numbered are those that the caller may count.
func (s *Server) numbered(r *request) []numbered {
	return slices.DeleteFunc(s.allNumbered(), func(n numbered) bool { return !n.may(r) })
}

// grouping asks for one field, by currency where amounts are summed: sums of different currencies are none, and counts come with the
// same question, so that nothing follows from the difference of two.
func (n numbered) grouping(by string) guard.Grouping {
	if n.sum == "" {
		return guard.Grouping{By: []string{by}}
	}
	return guard.Grouping{By: []string{by, "currency"}, Sums: []string{n.sum}}
}

// numbers is the page of counts and sums.
func (s *Server) numbers(w http.ResponseWriter, r *request) error {
	all := s.numbered(r)
	if len(all) == 0 {
		return &authz.DeniedError{Controls: []string{"access.granted"}}
	}
	chosen := all[0]
	if of := r.FormValue("of"); of != "" {
		i := slices.IndexFunc(all, func(n numbered) bool { return n.typ == of })
		if i < 0 {
			return crm.ErrNotFound
		}
		chosen = all[i]
	}
	p := &page.Numbers{Title: page.T("nav.numbers"), Note: page.T("numbers.note")}
	for _, n := range all {
		p.Chips = append(p.Chips, page.Chip{Label: page.T("type." + n.typ + ".many"), Href: "/numbers?of=" + n.typ, Active: n.typ == chosen.typ})
	}
	for _, by := range chosen.by {
		l, err := s.numberList(r, chosen, by)
		if err != nil {
			return err
		}
		p.Lists = append(p.Lists, *l)
	}
	return s.show(w, r, http.StatusOK, p.Title, p)
}

// numberList is one table of numbers.
func (s *Server) numberList(r *request, n numbered, by string) (*page.List, error) {
	found, err := n.group(r.Context(), r.caller(), n.grouping(by))
	if err != nil {
		return nil, err
	}
	l := &page.List{
		ID: "by-" + by, Title: page.T("numbers.by." + by), Count: -1, Empty: page.Empty{Text: page.T("numbers.none")},
		Columns: []page.Column{{Label: page.T("field." + n.typ + "." + by)}, {Label: page.T("numbers.count"), Kind: page.KindNumber}},
	}
	if n.sum != "" {
		l.Columns = append(l.Columns, page.Column{Label: page.T("field." + n.typ + "." + n.sum), Kind: page.KindMoney})
	}
	if found.Hidden > 0 {
		hidden := page.T("numbers.hidden", int64(found.Hidden))
		l.Policy, l.Empty.Text = []page.Text{hidden}, hidden
	}
	for _, g := range found.Groups {
		row := page.Row{Cells: []page.Cell{s.groupCell(n.typ, by, g.Keys[0].Str()), {Kind: page.KindNumber, Amount: g.Count}}}
		if n.sum != "" {
			row.Cells = append(row.Cells, page.Cell{Kind: page.KindMoney, Amount: g.Sums[0], Currency: g.Keys[1].Str()})
		}
		l.Rows = append(l.Rows, row)
	}
	return l, nil
}

// groupCell names a group.
func (s *Server) groupCell(typ, by, key string) page.Cell {
	switch {
	case key == "" && by == "owner":
		return page.Cell{Key: "hand.free"}
	case key == "":
		return page.Cell{Key: "numbers.unknown"}
	case by == "owner":
		return page.Cell{Text: s.actor(key)}
	case by == "state" || by == "stage" && typ == crm.TypeCustomer:
		return page.Cell{Kind: page.KindBadge, Key: "state." + typ + "." + key, Tone: tone(key)}
	}
	return page.Cell{Text: key}
}
