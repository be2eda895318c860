package demo

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/sales"
)

// Base is when the demo world stands; every date counts from it.
var Base = time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC)

const (
	day     = 24 * time.Hour
	history = 1500 * day // before Base, in which everything happened
)

// Staff is an employee who has customers.
type Staff struct {
	ID   crm.ID[crm.Employee]
	Team string
}

// Options of New. Nil means the zero value of each field.
type Options struct {
	Seed     uint64
	Staff    []Staff         // who has the customers; nil: forty invented ones of six teams
	Support  []Staff         // who has the tickets; nil: Staff
	Pipeline *sales.Pipeline // of opportunities; nil: there are none
}

// Generator makes sets. It is safe for concurrent use.
type Generator struct{ o Options }

// New makes a generator.
func New(opts *Options) *Generator {
	g := &Generator{}
	if opts != nil {
		g.o = *opts
	}
	if g.o.Staff == nil {
		for i := range 40 {
			d := g.draw(kindStaff, i)
			g.o.Staff = append(g.o.Staff, Staff{
				ID: crm.IDAt[crm.Employee](Base.AddDate(-2, 0, i), d), Team: "/" + []string{"east", "west", "south"}[i%3] + "/" + fmt.Sprint(1+i/3%2) + "/",
			})
		}
	}
	if g.o.Support == nil {
		g.o.Support = g.o.Staff
	}
	return g
}

// Set is a customer and what belongs to it. What it has none of is nil.
type Set struct {
	Customer      *crm.Customer
	Contacts      []*crm.Contact
	Leads         []*crm.Lead // of others, who are no customers yet
	FollowUps     []*crm.FollowUp
	Opportunities []*sales.Opportunity
	Quotes        []*crm.Quote
	Contracts     []*crm.Contract
	Tickets       []*crm.Ticket
}

// What is drawn has a stream of its own, so that a change of one is no change of the others.
const (
	kindStaff = iota + 1
	kindPerson
	kindCustomer
	kindAround
	kindTwin
)

// draw is a stream of numbers: SplitMix64, which is the same everywhere and has no secret.
type draw struct {
	state uint64
	made  time.Time // which the ids of the set bear: sets follow each other, so that they lie in the indexes in the order in which they are stored
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// draw is the stream of the i-th thing of a kind.
func (g *Generator) draw(kind, i int) *draw {
	return &draw{mix(mix(mix(g.o.Seed+0x9e3779b97f4a7c15)+uint64(kind)) + uint64(i)), Base.Add(time.Duration(i)*time.Second - history)}
}

func (d *draw) next() uint64 {
	d.state += 0x9e3779b97f4a7c15
	return mix(d.state)
}

// n returns 0 to n-1. The lists are so short against 64 bits that the remainder is as good as even.
func (d *draw) n(n int) int { return int(d.next() % uint64(n)) }

// one tells true once in n times.
func (d *draw) one(n int) bool { return d.n(n) == 0 }

// Read makes the stream a source of ids.
func (d *draw) Read(b []byte) (int, error) {
	var word [8]byte
	for i := range b {
		if i%8 == 0 {
			binary.LittleEndian.PutUint64(word[:], d.next())
		}
		b[i] = word[i%8]
	}
	return len(b), nil
}

// pick prefers the front of a list, as names do.
func pick[T any](d *draw, list []T) T { return list[min(d.n(len(list)), d.n(len(list)))] }

// even does not.
func even[T any](d *draw, list []T) T { return list[d.n(len(list))] }

// days returns between 0 and n days, in minutes.
func (d *draw) days(n int) time.Duration { return time.Duration(d.n(n*24*60)) * time.Minute }

func meta[T any](d *draw, s Staff, at time.Time) crm.Meta[T] {
	return crm.Meta[T]{
		ID: crm.IDAt[T](d.made, d), Person: crm.IDAt[crm.Person](d.made, d), Owner: s.ID, Team: s.Team, CreatedAt: at, UpdatedAt: at,
	}
}

// human is one of the demo world.
type human struct {
	chinese                                  bool
	name, phone, phone2, email, city, street string
	country, currency                        string
}

// human draws one; i makes the mail address their own.
func (d *draw) human(i string) human {
	if d.n(100) < 65 {
		at := min(d.n(len(surnames)), d.n(len(surnames)))
		h := human{chinese: true, name: surnames[at] + pick(d, given), city: pick(d, places), country: "CN", currency: "CNY"}
		if !d.one(5) {
			h.name += pick(d, given)
		}
		h.phone = d.spaced(even(d, mobiles) + fmt.Sprintf("%08d", d.n(100_000_000)))
		if d.one(6) {
			h.phone2 = even(d, mobiles) + fmt.Sprintf("%08d", d.n(100_000_000))
		}
		h.street = fmt.Sprintf("%s市%s%d号%d室", h.city, pick(d, roads), 1+d.n(900), 101+d.n(2000))
		h.email = latin[at] + i + "@" + pick(d, domains)
		return h
	}
	f, l := pick(d, first), pick(d, family)
	h := human{name: f + " " + l, email: strings.ToLower(f+"."+l) + i + "@" + pick(d, domains)}
	if d.one(3) {
		c := pick(d, cities)
		h.city, h.country, h.currency = c.city, c.country, c.currency
		h.phone = fmt.Sprintf("+1 %s 555 01%02d", even(d, c.areas), d.n(100))
	} else {
		t := even(d, towns)
		h.city, h.country, h.currency = t.city, t.country, t.currency
		scale := 1000
		if t.digits == 4 {
			scale = 10_000
		}
		h.phone = fmt.Sprintf("%s%0*d", t.prefix, t.digits, d.n(scale))
	}
	h.street = fmt.Sprintf("%d %s, %s", 1+d.n(200), pick(d, streets), h.city)
	return h
}

// spaced writes a mobile number as one of several people would.
func (d *draw) spaced(n string) string {
	switch d.n(4) {
	case 0:
		return n[:3] + " " + n[3:7] + " " + n[7:]
	case 1:
		return n[:3] + "-" + n[3:7] + "-" + n[7:]
	case 2:
		return "+86 " + n
	}
	return n
}

// company is the name of one.
func (d *draw) company(h human) string {
	if h.chinese {
		return h.city + even(d, brands) + even(d, brands) + pick(d, trades) + even(d, forms)
	}
	if d.one(3) {
		return pick(d, family) + " & " + pick(d, family) + " " + pick(d, legal)
	}
	return even(d, coined) + " " + even(d, coined) + " " + pick(d, business) + " " + pick(d, legal)
}

// idNumber is a resident number of GB 11643 with a right check digit, in a region code that is not given out.
func (d *draw) idNumber() string {
	s := fmt.Sprintf("999901%d%02d%02d%03d", 1955+d.n(50), 1+d.n(12), 1+d.n(28), d.n(1000))
	sum := 0
	for i, w := range []int{7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2} {
		sum += int(s[i]-'0') * w
	}
	return s + string("10X98765432"[sum%11])
}

// text picks from the list of the human's language.
func text(d *draw, h human, cn, en []string) string {
	if h.chinese {
		return even(d, cn)
	}
	return even(d, en)
}

// stages as they are frequent.
var stages = []crm.CustomerStage{
	crm.CustomerWon, crm.CustomerNew, crm.CustomerNegotiation, crm.CustomerDormant, crm.CustomerContracting, crm.CustomerLost, crm.CustomerAtRisk, crm.CustomerOverdue,
}

// staff draws whose a customer is: some have many times as many as others.
func (g *Generator) staff(d *draw) Staff { return pick(d, g.o.Staff) }

// Customer makes the i-th customer, counted from 0, and is cheaper than Set.
func (g *Generator) Customer(i int) *crm.Customer {
	if t, ok := g.Twin(i); ok {
		return g.twin(i, t)
	}
	c, _ := g.customer(i)
	return c
}

func (g *Generator) customer(i int) (*crm.Customer, human) {
	d := g.draw(kindCustomer, i)
	h := g.draw(kindPerson, i).human(fmt.Sprint(i))
	owner := g.staff(d)
	at := Base.Add(-d.days(int(history / day)))
	c := &crm.Customer{
		Meta: meta[crm.Customer](d, owner, at), Kind: crm.PersonCustomer, Name: crm.NewText(h.name), Phone: crm.NewText(h.phone), Phone2: crm.NewText(h.phone2),
		Email: crm.NewText(h.email), Address: crm.NewText(h.street), City: h.city, Country: h.country, Industry: pick(d, industries), Source: pick(d, sources),
		Stage: pick(d, stages), Currency: h.currency, ExternalID: fmt.Sprintf("D%08d", i),
	}
	if d.n(10) < 7 {
		c.Kind, c.Contact, c.Name = crm.CompanyCustomer, c.Name, crm.NewText(d.company(h))
		c.Website = crm.NewText("https://k" + fmt.Sprint(i) + ".example.com")
		c.CreditLimit = int64(d.n(50)) * 1_000_000
	} else if h.chinese && d.one(3) {
		c.IDNumber = crm.NewText(d.idNumber())
	}
	if c.Stage == crm.CustomerNegotiation || c.Stage == crm.CustomerContracting || d.one(5) {
		c.OpenValue = amount(d)
	}
	if d.one(4) {
		c.Note = crm.NewText(text(d, h, notesCN, notesEN))
	}
	c.LastFollowUp = at.Add(time.Duration(d.next() % uint64(Base.Sub(at)+1)).Truncate(time.Minute))
	return c, h
}

// amount is in minor units: many small ones, few large ones.
func amount(d *draw) int64 { return int64(1+d.n(100)*d.n(100)*d.n(100)/100) * 10_000 }

// Set makes the i-th set, counted from 0.
func (g *Generator) Set(i int) Set {
	if t, ok := g.Twin(i); ok {
		return Set{Customer: g.twin(i, t)}
	}
	c, h := g.customer(i)
	d := g.draw(kindAround, i)
	owner := Staff{c.Owner, c.Team}
	s := Set{Customer: c}
	since := func() time.Time {
		return c.CreatedAt.Add(time.Duration(d.next() % uint64(Base.Sub(c.CreatedAt)+1)).Truncate(time.Minute))
	}

	if c.Kind == crm.CompanyCustomer {
		for n := range 1 + d.n(3)/2 + d.n(3)/2 {
			k := d.human(fmt.Sprintf("%d-%d", i, n))
			s.Contacts = append(s.Contacts, &crm.Contact{
				Meta: meta[crm.Contact](d, owner, since()), Customer: c.ID, Name: crm.NewText(k.name), Title: text(d, k, titlesCN, titlesEN),
				Phone: crm.NewText(k.phone), Email: crm.NewText(k.email), Primary: n == 0,
			})
		}
	}
	if d.one(5) {
		s.Leads = append(s.Leads, g.lead(d, i))
	}
	for range d.n(4) {
		s.FollowUps = append(s.FollowUps, followUp(d, c, h, owner, since()))
	}
	won := c.Stage == crm.CustomerWon || c.Stage == crm.CustomerOverdue
	if g.o.Pipeline != nil && (won || c.OpenValue > 0 || d.one(8)) {
		s.Opportunities = append(s.Opportunities, g.opportunity(d, c, h, owner, since(), won))
	}
	if won || d.one(6) {
		at := since()
		if latest := Base.AddDate(0, 0, -7); at.After(latest) { // what follows must have happened
			at = latest
		}
		g.deal(d, &s, i, owner, at, won)
	}
	if d.one(6) {
		s.Tickets = append(s.Tickets, ticket(d, c, h, pick(d, g.o.Support), fmt.Sprintf("T-%08d", i), since()))
	}
	return s
}

func (g *Generator) lead(d *draw, i int) *crm.Lead {
	h := d.human(fmt.Sprintf("%d-l", i))
	return &crm.Lead{
		Meta: meta[crm.Lead](d, g.staff(d), Base.Add(-d.days(90))), Name: crm.NewText(h.name), Company: crm.NewText(d.company(h)), Title: text(d, h, titlesCN, titlesEN),
		Phone: crm.NewText(h.phone), Email: crm.NewText(h.email), City: h.city, Country: h.country, Source: pick(d, sources),
		State: pick(d, []crm.LeadState{crm.LeadNew, crm.LeadContacted, crm.LeadQualified, crm.LeadJunk}),
	}
}

func followUp(d *draw, c *crm.Customer, h human, owner Staff, at time.Time) *crm.FollowUp {
	m := meta[crm.FollowUp](d, owner, at)
	m.Person = c.Person
	f := &crm.FollowUp{
		Meta: m, SubjectType: crm.TypeCustomer, Subject: c.ID.UUID(), Customer: c.ID, Channel: pick(d, []crm.Channel{crm.ChannelCall, crm.ChannelWeChat, crm.ChannelEmail, crm.ChannelVisit}),
		Text: crm.NewText(text(d, h, notesCN, notesEN)), At: at,
	}
	if d.one(3) {
		f.NextAt = at.Add(time.Hour + d.days(20))
		if f.NextAt.Before(Base) && !d.one(10) {
			f.DoneAt = f.NextAt
		}
	}
	return f
}

func (g *Generator) opportunity(d *draw, c *crm.Customer, h human, owner Staff, at time.Time, won bool) *sales.Opportunity {
	m := meta[sales.Opportunity](d, owner, at)
	m.Person = c.Person
	p := g.o.Pipeline
	stage := pick(d, p.Stages)
	o := &sales.Opportunity{
		Meta: m, Name: crm.NewText(c.Name.Expose() + ", " + even(d, deals)), Customer: c.ID, Pipeline: p.ID, Stage: stage.Name, StageSince: at, Probability: stage.Probability,
		Amount: max(c.OpenValue, amount(d)), Currency: c.Currency, CloseBy: at.Add(30*24*time.Hour + d.days(120)).Truncate(24 * time.Hour), State: sales.OpportunityOpen,
	}
	end := at.Add(d.days(60))
	switch {
	case won && !d.one(6):
		must(o.Move(sales.OpportunityWon, "", end))
	case c.Stage == crm.CustomerLost:
		must(o.Move(sales.OpportunityLost, even(d, []sales.LostReason{sales.LostPrice, sales.LostCompetitor, sales.LostBudget, sales.LostSilence}), end))
	}
	return o
}

// deal adds a quote, and a contract where it was accepted.
func (g *Generator) deal(d *draw, s *Set, i int, owner Staff, at time.Time, won bool) {
	c := s.Customer
	m := meta[crm.Quote](d, owner, at)
	m.Person = c.Person
	q := &crm.Quote{Meta: m, Number: fmt.Sprintf("Q-%08d", i), Customer: c.ID, Currency: c.Currency, State: crm.QuoteDraft, ValidUntil: at.AddDate(0, 2, 0)}
	for range 1 + d.n(3) {
		q.Lines = append(q.Lines, crm.Line{
			Product: pick(d, products), Quantity: int64(1 + d.n(20)), UnitPrice: int64(1+d.n(400)) * 10_000, Discount: int64(d.n(4)) * 500, Tax: 1300,
		})
	}
	must(q.Compute())
	s.Quotes = append(s.Quotes, q)
	if !won && d.one(3) {
		return
	}
	at = at.Add(24 * time.Hour)
	must(q.Move(crm.QuoteSent, at))
	if !won {
		return
	}
	at = at.Add(48 * time.Hour)
	must(q.Move(crm.QuoteAccepted, at))
	km := meta[crm.Contract](d, owner, at)
	km.Person = c.Person
	k := &crm.Contract{
		Meta: km, Number: fmt.Sprintf("C-%08d", i), Customer: c.ID, Quote: q.ID, SignatoryPerson: c.Person, Signatory: c.Name, Amount: q.Total, Currency: q.Currency,
		Starts: at.Truncate(24 * time.Hour), Ends: at.Truncate(24*time.Hour).AddDate(1, 0, 0), State: crm.ContractDraft,
	}
	if len(s.Contacts) > 0 {
		k.SignatoryPerson, k.Signatory = s.Contacts[0].Person, s.Contacts[0].Name
	}
	for _, to := range []crm.ContractState{crm.ContractApproved, crm.ContractActive} {
		if d.one(6) {
			break
		}
		at = at.Add(time.Hour)
		must(k.Move(to, at))
	}
	if k.State == crm.ContractActive {
		k.Paid = k.Amount / int64(1+d.n(4))
	}
	s.Contracts = append(s.Contracts, k)
}

func ticket(d *draw, c *crm.Customer, h human, owner Staff, number string, at time.Time) *crm.Ticket {
	m := meta[crm.Ticket](d, owner, at)
	m.Person = c.Person
	t := &crm.Ticket{
		Meta: m, Number: number, Customer: c.ID, Subject: crm.NewText(text(d, h, problemsCN, problemsEN)), Body: crm.NewText(text(d, h, notesCN, notesEN)),
		Priority: pick(d, []crm.Priority{crm.PriorityNormal, crm.PriorityLow, crm.PriorityHigh, crm.PriorityUrgent}), State: crm.TicketOpen, DueAt: at.Add(72 * time.Hour),
	}
	for _, to := range []crm.TicketState{crm.TicketResolved, crm.TicketClosed} {
		if d.one(4) {
			break
		}
		must(t.Move(to, at.Add(30*time.Hour)))
	}
	return t
}

// must holds where the generator's own tables are right by construction.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
