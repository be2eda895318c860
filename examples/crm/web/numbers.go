package web

import (
	"context"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

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

// numbersAge is how old the numbers of the page may be: to count millions of records takes seconds.
const numbersAge = 5 * time.Minute

// grouping asks for one field, by currency where amounts are summed: sums of different currencies are none, and counts come with the
// same question, so that nothing follows from the difference of two.
func (n numbered) grouping(by string) guard.Grouping {
	q := guard.Grouping{By: []string{by}, Stale: numbersAge}
	if n.sum != "" {
		q.By, q.Sums = append(q.By, "currency"), []string{n.sum}
	}
	return q
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
	// Each is a scan of its own where nobody asked before.
	lists := make([]*page.List, len(chosen.by))
	ages := make([]time.Time, len(chosen.by))
	at, ctx := errgroup.WithContext(r.Context())
	for i, by := range chosen.by {
		at.Go(func() (err error) {
			lists[i], ages[i], err = s.numberList(ctx, r, chosen, by)
			return err
		})
	}
	if err := at.Wait(); err != nil {
		return err
	}
	for _, l := range lists {
		p.Lists = append(p.Lists, *l)
	}
	p.At = page.T("numbers.at", slices.MinFunc(ages, time.Time.Compare))
	return s.show(w, r, http.StatusOK, p.Title, p)
}

// numberList is one table of numbers, and when they were counted.
func (s *Server) numberList(ctx context.Context, r *request, n numbered, by string) (*page.List, time.Time, error) {
	found, err := n.group(ctx, r.caller(), n.grouping(by))
	if err != nil {
		return nil, time.Time{}, err
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
	return l, found.At, nil
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
