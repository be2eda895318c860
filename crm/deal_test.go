package crm_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
)

// broken fails unless err is an *crm.InvalidError with exactly these fields and rules.
func broken(t *testing.T, what string, err error, want ...string) {
	t.Helper()
	if got := rules(t, err); !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// stays fails unless err is a *crm.TransitionError between two states.
func stays(t *testing.T, what string, err error, from, to string) {
	t.Helper()
	var wrong *crm.TransitionError
	if !errors.As(err, &wrong) || wrong.From != from || wrong.To != to {
		t.Errorf("%s: %v", what, err)
	}
}

// TestItem04Quotes: quotes add up with discounts and parts of units, large discounts need another's approval, versions follow each other, and an
// accepted one becomes a contract.
func TestItem04Quotes(t *testing.T) {
	draft := crmtest.Quote(1)
	at := draft.CreatedAt.Add(time.Hour)
	boss := crmtest.EmployeeID(9)

	// Lines of parts of a unit, and a discount on the whole.
	draft.Lines = []crm.Line{
		{Product: "consulting", Quantity: 1, Milli: 500, UnitPrice: 80000, Tax: 600},
		{Product: "licence", Quantity: 2, UnitPrice: 10000, Discount: 1000, Tax: 1300},
	}
	draft.Discount = 500
	if err := draft.Compute(); err != nil || draft.Net != 131100 || draft.Tax != 6840+2223 || draft.Total != draft.Net+draft.Tax {
		t.Fatalf("%d, %d, %d, %v", draft.Net, draft.Tax, draft.Total, err)
	}
	for _, c := range []struct {
		want []string
		edit func(*crm.Quote)
	}{
		{[]string{"lines.0 out_of_range"}, func(q *crm.Quote) { q.Lines[0].Milli = 1000 }},
		{[]string{"lines.0 out_of_range"}, func(q *crm.Quote) { q.Lines[0].Milli = -1 }},
		{[]string{"discount out_of_range"}, func(q *crm.Quote) { q.Discount = 10001 }},
		{[]string{"total mismatch"}, func(q *crm.Quote) { q.Discount = 0 }},
		{[]string{"revises mismatch"}, func(q *crm.Quote) { q.Revision = 2 }},
		{[]string{"revises mismatch"}, func(q *crm.Quote) { q.Revises = crm.NewID[crm.Quote]() }},
		{[]string{"approver mismatch"}, func(q *crm.Quote) { q.Approver = boss }},
		{[]string{"approver four_eyes"}, func(q *crm.Quote) { q.Approver, q.ApprovedAt = q.Owner, at }},
	} {
		q := *draft
		q.Lines = slices.Clone(q.Lines)
		c.edit(&q)
		broken(t, c.want[0], q.Validate(), c.want...)
	}

	// Approval of discounts.
	if !draft.NeedsApproval(1449) || draft.NeedsApproval(1450) { // 10 % and 5 % of the rest are 14.5 %
		t.Error("who needs an approval")
	}
	broken(t, "nobody approves", draft.Approve(crm.ID[crm.Employee]{}, at), "approver required")
	broken(t, "the owner approves", draft.Approve(draft.Owner, at), "approver four_eyes")
	if err := draft.Approve(boss, at); err != nil || draft.NeedsApproval(0) {
		t.Fatal(err)
	}
	other := *draft
	other.Discount = 400
	broken(t, "other terms", other.CheckUpdate(draft), "approved_at mismatch")
	other.Approver, other.ApprovedAt = crm.ID[crm.Employee]{}, time.Time{}
	broken(t, "other terms without the approval", other.CheckUpdate(draft))

	// Sent, it stays as it is.
	sent := *draft
	if err := sent.Move(crm.QuoteSent, at); err != nil {
		t.Fatal(err)
	}
	stays(t, "approved when sent", sent.Approve(boss, at), "sent", "approved")
	for want, edit := range map[string]func(*crm.Quote){
		"discount fixed": func(q *crm.Quote) { q.Discount, q.Approver, q.ApprovedAt = 0, sent.Approver, sent.ApprovedAt.Add(1000) },
		"revision fixed": func(q *crm.Quote) { q.Revision = 3 },
		"deal fixed":     func(q *crm.Quote) { q.Deal = crm.NewUUID() },
		"approver fixed": func(q *crm.Quote) { q.Approver = crmtest.EmployeeID(8) },
	} {
		q := sent
		edit(&q)
		got := rules(t, q.CheckUpdate(&sent))
		if !slices.Contains(got, want) {
			t.Errorf("%s: %q", want, got)
		}
	}

	// Versions.
	second := crm.NewID[crm.Quote]()
	_, err := draft.Revise(second, at)
	stays(t, "a draft is revised", err, "draft", "draft")
	_, err = sent.Revise(crm.ID[crm.Quote]{}, at)
	broken(t, "no id", err, "id required")
	_, err = sent.Revise(sent.ID, at)
	broken(t, "its own id", err, "id bad_reference")
	sealed := sent
	sealed.Note = masked("x")
	_, err = sealed.Revise(second, at)
	broken(t, "a note that was not opened", err, "note not_open")
	old := sent
	next, err := old.Revise(second, at)
	if err != nil || old.State != crm.QuoteWithdrawn || next.State != crm.QuoteDraft || next.Revision != 2 || next.Revises != sent.ID ||
		next.Number != sent.Number || next.Person != sent.Person || !next.ApprovedAt.IsZero() || next.Total != sent.Total || next.Version != 0 {
		t.Fatalf("%+v, %v", next, err)
	}
	if err := errors.Join(next.Validate(), old.Validate(), old.CheckUpdate(&sent)); err != nil {
		t.Error(err)
	}
	stays(t, "withdrawn and accepted", old.Move(crm.QuoteAccepted, at), "withdrawn", "accepted")

	// Acceptance gives a contract.
	id := crm.NewID[crm.Contract]()
	_, err = sent.Contract(id, "C-1", at, at.AddDate(1, 0, 0), at)
	stays(t, "not accepted", err, "sent", "contract")
	if err := sent.Move(crm.QuoteAccepted, at); err != nil {
		t.Fatal(err)
	}
	_, err = sent.Revise(second, at)
	stays(t, "accepted and revised", err, "accepted", "draft")
	_, err = sent.Contract(crm.ID[crm.Contract]{}, "C-1", at, at.AddDate(1, 0, 0), at)
	broken(t, "no id", err, "id required")
	_, err = sent.Contract(id, "", at, at.Add(-1), at)
	broken(t, "no number, wrong end", err, "number required", "ends before_start")
	c, err := sent.Contract(id, "C-1", at, at.AddDate(1, 0, 0), at)
	if err != nil || c.Amount != sent.Total || c.Quote != sent.ID || c.Person != sent.Person || len(c.Lines) != 2 || c.State != crm.ContractDraft {
		t.Fatalf("%+v, %v", c, err)
	}
}

// TestItem05Contracts: a contract is approved by somebody else, signed by its parties, active only then, renewed, reminded of and terminated for a
// reason.
func TestItem05Contracts(t *testing.T) {
	at := crmtest.Start()
	boss := crmtest.EmployeeID(9)
	base := func() *crm.Contract {
		c := crmtest.Contract(1)
		c.Parties = []crm.Party{
			{Role: crm.PartyBuyer, Contact: crm.ID[crm.Contact](crmtest.PersonID(3))},
			{Role: crm.PartySeller, Employee: boss},
		}
		c.RemindDays = 30
		return c
	}
	type c = crm.Contract
	invalid(t, base, (*c).Validate, []invalidCase[c]{
		{nil, func(*c) {}},
		{[]string{"parties.0.role unknown_value"}, func(r *c) { r.Parties[0].Role = "SECRET" }},
		{[]string{"parties.1 required"}, func(r *c) { r.Parties[1] = crm.Party{Role: crm.PartySeller} }},
		{[]string{"parties.1 too_early", "parties.1 repeated"}, func(r *c) { r.Parties[1] = r.Parties[0]; r.Parties[1].SignedAt = at }},
		{[]string{"renews bad_reference"}, func(r *c) { r.Renews = r.ID }},
		{[]string{"amount mismatch"}, func(r *c) { r.Lines = []crm.Line{{Product: "a", Quantity: 1, UnitPrice: r.Amount + 1}} }},
		{nil, func(r *c) { r.Lines = []crm.Line{{Product: "a", Quantity: 1, UnitPrice: r.Amount}} }},
		{[]string{"remind_days out_of_range"}, func(r *c) { r.RemindDays = -1 }},
		{[]string{"end_reason mismatch"}, func(r *c) { r.EndReason = crm.EndBreach }},
		{[]string{"end_reason unknown_value", "end_reason mismatch"}, func(r *c) { r.EndReason = "SECRET" }},
		{[]string{"approver mismatch"}, func(r *c) { r.Approver = boss }},
	})

	k := base()
	broken(t, "the owner approves", k.Approve(k.Owner, at), "approver four_eyes")
	broken(t, "nobody approves", k.Approve(crm.ID[crm.Employee]{}, at), "approver required")
	stays(t, "a draft is signed", k.Sign(0, at), "draft", "signed")
	if err := k.Approve(boss, at); err != nil || k.Approver != boss || k.State != crm.ContractApproved {
		t.Fatal(err)
	}
	stays(t, "approved twice", k.Approve(boss, at), "approved", "approved")

	approved := *k
	for want, edit := range map[string]func(*crm.Contract){
		"parties fixed":  func(r *c) { r.Parties = r.Parties[:1] },
		"lines fixed":    func(r *c) { r.Lines = []crm.Line{{Product: "a"}} },
		"renews fixed":   func(r *c) { r.Renews = crm.NewID[crm.Contract]() },
		"approver fixed": func(r *c) { r.Approver = crmtest.EmployeeID(5) },
	} {
		r := approved
		edit(&r)
		broken(t, want, r.CheckUpdate(&approved), want)
	}

	broken(t, "active before it is signed", k.Move(crm.ContractActive, at), "parties not_signed")
	broken(t, "no such party", k.Sign(2, at), "parties bad_reference")
	broken(t, "signed before the approval", k.Sign(0, at.Add(-time.Hour)), "parties.0 too_early")
	for i := range 2 {
		if err := k.Sign(i, at.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	broken(t, "signed twice", k.Sign(0, at.Add(2*time.Hour)), "parties.0 fixed")
	if approved.Signed() {
		t.Error("a copy signed with the contract")
	}
	if err := k.CheckUpdate(&approved); err != nil {
		t.Errorf("signing changes what was approved: %v", err)
	}
	unsigned := *k
	unsigned.Parties = slices.Clone(k.Parties)
	unsigned.Parties[0].SignedAt = at.Add(5 * time.Hour)
	broken(t, "another time of signing", unsigned.CheckUpdate(k), "parties fixed")

	if _, ok := k.Reminder(); ok {
		t.Error("reminds of what is not active")
	}
	if err := k.Move(crm.ContractActive, at.Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if when, ok := k.Reminder(); !ok || !when.Equal(k.Ends.AddDate(0, 0, -30)) {
		t.Errorf("reminds at %v, %v", when, ok)
	}

	// Renewal.
	id := crm.NewID[crm.Contract]()
	_, err := approved.Renew(id, "C-2", k.Ends.AddDate(1, 0, 0), at)
	stays(t, "renewed before it is active", err, "approved", "renewed")
	_, err = k.Renew(id, "C-2", k.Ends, at)
	broken(t, "no longer than before", err, "ends before_start")
	hidden := *k
	hidden.Signatory = masked("王*")
	_, err = hidden.Renew(id, "C-2", k.Ends.AddDate(1, 0, 0), at)
	broken(t, "a signatory that was not opened", err, "signatory not_open")
	n, err := k.Renew(id, "C-2", k.Ends.AddDate(1, 0, 0), at)
	if err != nil || n.Renews != k.ID || !n.Starts.Equal(k.Ends) || n.State != crm.ContractDraft || n.Signed() || !k.Signed() || n.Paid != 0 {
		t.Fatalf("%+v, %v", n, err)
	}

	// Termination.
	broken(t, "without a reason", k.Terminate("", at.Add(3*time.Hour)), "end_reason required")
	broken(t, "for no known reason", k.Terminate("SECRET", at.Add(3*time.Hour)), "end_reason unknown_value")
	if err := k.Terminate(crm.EndBreach, at.Add(3*time.Hour)); err != nil || k.State != crm.ContractTerminated {
		t.Fatal(err)
	}
	stays(t, "terminated twice", k.Terminate(crm.EndMutual, at), "terminated", "terminated")
	changed := *k
	changed.EndReason = crm.EndMutual
	broken(t, "another reason", changed.CheckUpdate(k), "end_reason fixed")
}

// TestItem03FollowUps: a follow-up stays as it was noted; what was planned next is due at its time, listed for its owner and done once.
func TestItem03FollowUps(t *testing.T) {
	type f = crm.FollowUp
	at := crmtest.FollowUp(1).At
	invalid(t, func() *f { return crmtest.FollowUp(1) }, (*f).Validate, []invalidCase[f]{
		{nil, func(r *f) { r.Attachments = []crm.UUID{crm.NewUUID()} }},
		{nil, func(r *f) { r.SubjectType, r.Subject = crm.TypeOpportunity, crm.NewUUID() }},
		{[]string{"attachments bad_reference"}, func(r *f) { r.Attachments = []crm.UUID{{}} }},
		{[]string{"attachments too_long"}, func(r *f) { r.Attachments = slices.Repeat([]crm.UUID{crm.NewUUID()}, 101) }},
		{[]string{"done_at mismatch"}, func(r *f) { r.NextAt, r.DoneAt = time.Time{}, at }},
		{[]string{"done_at before_start"}, func(r *f) { r.DoneAt = at.Add(-1) }},
	})
	x := crmtest.FollowUp(1)
	crmtest.Fixed(t, x, (*f).CheckUpdate, map[string]func(*f){
		"text fixed": func(r *f) { r.Text = text("SECRET") }, "at fixed": func(r *f) { r.At = at.Add(time.Hour) },
		"channel fixed": func(r *f) { r.Channel = crm.ChannelVisit }, "subject fixed": func(r *f) { r.Subject = crm.NewUUID() },
		"customer fixed": func(r *f) { r.Customer = crmtest.CustomerID(9) }, "attachments fixed": func(r *f) { r.Attachments = []crm.UUID{crm.NewUUID()} },
	})
	later := *x
	later.NextAt = x.NextAt.Add(time.Hour)
	broken(t, "planned for later", later.CheckUpdate(x))

	if x.Due(x.NextAt.Add(-1)) || !x.Due(x.NextAt) {
		t.Error("when it is due")
	}
	other, soon := crmtest.FollowUp(2), crmtest.FollowUp(11) // 11 is of the same owner as 1
	soon.NextAt = x.NextAt.Add(-time.Hour)
	if todo := crm.Todo([]*f{x, other, soon}, x.Owner, x.NextAt); len(todo) != 2 || todo[0] != soon || todo[1] != x {
		t.Errorf("%d to do", len(todo))
	}
	broken(t, "done before it was noted", x.Done(at.Add(-1)), "done_at too_early")
	if err := x.Done(x.NextAt); err != nil || x.Due(x.NextAt) {
		t.Error(err)
	}
	broken(t, "done twice", x.Done(x.NextAt), "done_at fixed")
	moved := *x
	moved.NextAt = x.NextAt.Add(time.Hour)
	broken(t, "planned anew after it was done", moved.CheckUpdate(x), "next_at fixed")
	never := crmtest.FollowUp(1)
	never.NextAt = time.Time{}
	broken(t, "nothing was planned", never.Done(at), "next_at required")
}

func TestSeries(t *testing.T) {
	s := &crm.Series{Name: "contract", Prefix: "C-", Digits: 3, Yearly: true}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	zone := time.FixedZone("+8", 8*3600)
	newYear := time.Date(2026, 12, 31, 17, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		at   time.Time
		want string
	}{
		{newYear, "C-2026-001"}, {newYear, "C-2026-002"}, {newYear.In(zone), "C-2027-001"},
		{newYear, "C-2027-002"}, // no number is given twice when a clock is behind
	} {
		prev := *s
		if got, err := s.Draw(c.at); err != nil || got != c.want {
			t.Errorf("%q, %v", got, err)
		}
		if err := s.CheckUpdate(&prev); err != nil {
			t.Error(err)
		}
	}
	full := *s
	full.Last = 999
	_, err := full.Draw(newYear)
	broken(t, "no number left", err, "last out_of_range")
	if full.Last != 999 {
		t.Error("a refused draw counted")
	}
	back := *s
	back.Last--
	broken(t, "goes back", back.CheckUpdate(s), "last fixed")
	other := *s
	other.Prefix = "D-"
	broken(t, "another prefix", other.CheckUpdate(s), "prefix fixed")
	for want, edit := range map[string]func(*crm.Series){
		"name required":        func(s *crm.Series) { s.Name = "" },
		"prefix unknown_value": func(s *crm.Series) { s.Prefix = "a/b" },
		"digits out_of_range":  func(s *crm.Series) { s.Digits = 13 },
		"last negative":        func(s *crm.Series) { s.Last = -1 },
	} {
		r := *s
		edit(&r)
		broken(t, want, r.Validate(), want)
	}
}

func TestConvertInto(t *testing.T) {
	at := crmtest.Start()
	customer := crmtest.Customer(5)
	id := crm.NewID[crm.Contact]()
	l := crmtest.Lead(2)
	k, err := l.ConvertInto(customer, nil, id, at)
	if err != nil || k.ID != id || k.Person != l.Person || k.Customer != customer.ID || k.Primary || l.State != crm.LeadConverted || l.Customer != customer.ID {
		t.Fatalf("%+v, %v", k, err)
	}
	if err := errors.Join(k.Validate(), l.Validate()); err != nil {
		t.Error(err)
	}
	_, err = l.ConvertInto(customer, nil, id, at)
	stays(t, "twice", err, "converted", "converted")
	known := crmtest.Contact(5)
	l = crmtest.Lead(2)
	if same, err := l.ConvertInto(customer, known, crm.ID[crm.Contact]{}, at); err != nil || same != known || l.Contact != known.ID {
		t.Errorf("a known contact: %v", err)
	}
	for want, edit := range map[string]func(*crm.Customer, *crm.Contact){
		"customer bad_reference": func(c *crm.Customer, _ *crm.Contact) { c.Deleted = true },
		"contact bad_reference":  func(_ *crm.Customer, k *crm.Contact) { k.Deleted = true },
		"contact mismatch":       func(_ *crm.Customer, k *crm.Contact) { k.Customer = crmtest.CustomerID(6) },
	} {
		c, k, l := crmtest.Customer(5), crmtest.Contact(5), crmtest.Lead(2)
		edit(c, k)
		_, err := l.ConvertInto(c, k, id, at)
		broken(t, want, err, want)
		if l.State != crm.LeadQualified {
			t.Error("a refused conversion changed the lead")
		}
	}
	hidden := crmtest.Lead(2)
	hidden.Name = masked("王*")
	_, err = hidden.ConvertInto(customer, nil, id, at)
	broken(t, "a lead that was not opened", err, "name not_open")
}

func ExampleQuote_Revise() {
	q := crmtest.Quote(0)
	if err := q.Move(crm.QuoteSent, crmtest.Start()); err != nil {
		panic(err)
	}
	next, err := q.Revise(crm.NewID[crm.Quote](), crmtest.Start().Add(time.Hour))
	fmt.Println(next.Number == q.Number, next.Revision, next.State, q.State, err)
	// Output: true 2 draft withdrawn <nil>
}

func ExampleSeries_Draw() {
	s := crm.Series{Name: "invoice", Prefix: "INV-", Digits: 5, Yearly: true}
	number, err := s.Draw(crmtest.Start())
	fmt.Println(number, err)
	// Output: INV-2026-00001 <nil>
}
