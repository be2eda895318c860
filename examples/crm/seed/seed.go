// Package seed makes the demo data: the same people, companies and deals on every machine, half of them
// Chinese and half international. Everything is drawn at random from word lists; e-mail addresses lie in
// domains that are reserved for examples.
package seed

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/pool"
)

// Base is when the demo world stands; every date counts from it.
var Base = time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC)

// World is everything that refers to each other.
type World struct {
	Employees []*crm.Employee
	Customers []*crm.Customer
	Contacts  []*crm.Contact
	Leads     []*crm.Lead
	FollowUps []*crm.FollowUp
	Quotes    []*crm.Quote
	Contracts []*crm.Contract
	Tickets   []*crm.Ticket

	Pool *pool.Pool      // of customers; the sales people are its members
	Free []*crm.Customer // that are to be put into it; the manager has them until then
}

// Logins of the demo accounts, one of each role.
var Logins = []struct{ Role, Login string }{
	{"admin", "admin@demo.example"},
	{"manager", "manager@demo.example"},
	{"sales", "sales@demo.example"},
	{"marketing", "marketing@demo.example"},
	{"support", "support@demo.example"},
	{"finance", "finance@demo.example"},
	{"auditor", "auditor@demo.example"},
}

// Admin returns the one employee of an installation without demo data.
func Admin() *crm.Employee {
	g := generator{rnd: rand.New(rand.NewPCG(7, 11))}
	e := g.employee("Administrator", "admin@demo.example", "admin", "/office/")
	return e
}

// generator draws ids and values from one stream.
type generator struct {
	rnd *rand.Rand
	n   int
}

// Read makes the generator a source of randomness for ids; the demo data has no secrets.
func (g *generator) Read(b []byte) (int, error) {
	var word [8]byte
	for i := range b {
		if i%8 == 0 {
			binary.LittleEndian.PutUint64(word[:], g.rnd.Uint64())
		}
		b[i] = word[i%8]
	}
	return len(b), nil
}

func id[T any](g *generator, at time.Time) crm.ID[T] {
	g.n++
	return crm.IDAt[T](at.Add(time.Duration(g.n)*time.Millisecond), g)
}

func meta[T any](g *generator, owner *crm.Employee, age time.Duration) crm.Meta[T] {
	at := Base.Add(-age)
	return crm.Meta[T]{
		ID: id[T](g, at), Person: id[crm.Person](g, at), Owner: owner.ID, Team: owner.Team,
		CreatedAt: at, UpdatedAt: at,
	}
}

func pick[T any](g *generator, from []T) T { return from[g.rnd.IntN(len(from))] }

// days returns between 0 and n days.
func (g *generator) days(n int) time.Duration {
	return time.Duration(g.rnd.IntN(n*24*60)) * time.Minute
}

func (g *generator) employee(name, email, role, team string) *crm.Employee {
	at := Base.AddDate(-1, 0, 0)
	return &crm.Employee{
		Meta: crm.Meta[crm.Employee]{
			ID: id[crm.Employee](g, at), Person: id[crm.Person](g, at), Team: team, CreatedAt: at, UpdatedAt: at,
		},
		Name: crm.NewText(name), Email: crm.NewText(email), Roles: []string{role},
		State: crm.EmployeeActive, Joined: at,
	}
}

// New makes a world with so many customers; everything else is in proportion.
func New(customers int) *World {
	g := &generator{rnd: rand.New(rand.NewPCG(2026, 11))}
	w := &World{}
	names := []string{"Ada Admin", "林梅", "李强", "Mara Market", "Sam Support", "方芳", "Audrey Auditor"}
	teams := []string{"/office/", "/east/", "/east/1/", "/market/", "/support/", "/finance/", "/audit/"}
	for i, l := range Logins {
		w.Employees = append(w.Employees, g.employee(names[i], l.Login, l.Role, teams[i]))
	}
	for i, name := range []string{"王磊", "Nina North", "赵敏", "Oscar West"} {
		team := []string{"/east/1/", "/east/2/", "/east/2/", "/west/1/"}[i]
		w.Employees = append(w.Employees, g.employee(name, fmt.Sprintf("sales%d@demo.example", i+2), "sales", team))
	}
	sellers := append([]*crm.Employee{w.Employees[2]}, w.Employees[7:]...)
	support := w.Employees[4]
	for i := range customers {
		w.customer(g, i, pick(g, sellers), support)
	}
	for range customers * 3 / 10 {
		w.lead(g, pick(g, sellers))
	}
	w.pool(sellers, w.Employees[1])
	return w
}

// FreeCustomers is how many customers of the demo world nobody has.
const FreeCustomers = 12

// pool makes the pool and what is free in it, from a stream of its own: the rest of the world is as it was without it.
func (w *World) pool(sellers []*crm.Employee, manager *crm.Employee) {
	g := &generator{rnd: rand.New(rand.NewPCG(2026, 12))}
	at := Base.AddDate(0, -6, 0)
	w.Pool = &pool.Pool{
		Meta: crm.Meta[pool.Pool]{ID: id[pool.Pool](g, at), Person: id[crm.Person](g, at), Owner: manager.ID, Team: manager.Team},
		Name: "East", RecordType: crm.TypeCustomer, Mode: pool.MembersClaim, Admins: []crm.ID[crm.Employee]{manager.ID},
		HoldCap: 20, DailyCap: 5, LockCap: 3, Cooldown: 72, Clocks: pool.Clocks{Protect: 10, Extend: 7, Max: 90}, RemindDays: 3,
		Hide: []string{"note"}, Zone: "Asia/Shanghai",
	}
	for _, s := range sellers {
		w.Pool.Members = append(w.Pool.Members, s.ID)
	}
	for range FreeCustomers {
		p := g.person()
		c := &crm.Customer{
			Meta: meta[crm.Customer](g, manager, g.days(300)), Kind: crm.PersonCustomer, Name: crm.NewText(p.name),
			Phone: crm.NewText(p.phone), Email: crm.NewText(p.email), Address: crm.NewText(p.address), City: p.city, Country: p.country,
			Industry: pick(g, industries), Source: pick(g, sources), Stage: crm.CustomerNew, Currency: "CNY", LastFollowUp: Base.Add(-30*24*time.Hour - g.days(90)),
		}
		if p.chinese {
			c.Kind, c.Name, c.Contact = crm.CompanyCustomer, crm.NewText(pick(g, citiesChina)+pick(g, companyWords)+pick(g, companyTrades)+pick(g, companyForms)), c.Name
		}
		w.Free = append(w.Free, c)
	}
}

// person is a human of the demo world.
type person struct {
	name, phone, email, city, country, address string
	chinese                                    bool
}

func (g *generator) person() person {
	if g.rnd.IntN(2) == 0 {
		surname := pick(g, surnames)
		given := pick(g, givenChinese)
		if g.rnd.IntN(3) > 0 {
			given += pick(g, givenChinese)
		}
		city := pick(g, citiesChina)
		return person{
			name: surname.han + given, phone: fmt.Sprintf("1%d%d %04d %04d", 3+g.rnd.IntN(7), g.rnd.IntN(10), g.rnd.IntN(10000), g.rnd.IntN(10000)),
			email: fmt.Sprintf("%s%d@example.cn", surname.latin, g.rnd.IntN(100000)),
			city:  city, country: "CN", address: city + pick(g, streetsChina) + fmt.Sprint(1+g.rnd.IntN(400)) + "号", chinese: true,
		}
	}
	first, last := pick(g, firstNames), pick(g, lastNames)
	city := pick(g, citiesWorld)
	return person{
		name: first + " " + last, phone: fmt.Sprintf("+1 %d 555 01%02d", 201+g.rnd.IntN(700), g.rnd.IntN(100)),
		email: strings.ToLower(first) + "." + strings.ToLower(last) + fmt.Sprint(g.rnd.IntN(10000)) + "@example.com",
		city:  city.name, country: city.country, address: fmt.Sprint(1+g.rnd.IntN(900)) + " " + pick(g, streetsWorld) + ", " + city.name,
	}
}

func (w *World) customer(g *generator, n int, owner, support *crm.Employee) {
	p := g.person()
	c := &crm.Customer{
		Meta: meta[crm.Customer](g, owner, g.days(400)), Kind: crm.CompanyCustomer,
		Contact: crm.NewText(p.name), Phone: crm.NewText(p.phone), Email: crm.NewText(p.email),
		Address: crm.NewText(p.address), City: p.city, Country: p.country, Industry: pick(g, industries),
		Source: pick(g, sources), Stage: pick(g, stages), Currency: "CNY",
		CreditLimit: int64(g.rnd.IntN(50)) * 1_000_000, LastFollowUp: Base.Add(-g.days(60)),
	}
	if !p.chinese {
		c.Currency = pick(g, []string{"USD", "EUR"})
	}
	if g.rnd.IntN(6) == 0 {
		c.Kind, c.Name, c.Contact = crm.PersonCustomer, crm.NewText(p.name), crm.Text{}
		if p.chinese {
			c.IDNumber = crm.NewText(g.idNumber())
		}
	} else if p.chinese {
		c.Name = crm.NewText(pick(g, citiesChina) + pick(g, companyWords) + pick(g, companyTrades) + pick(g, companyForms))
	} else {
		c.Name = crm.NewText(pick(g, lastNames) + pick(g, []string{"", ", " + pick(g, lastNames), "-" + pick(g, lastNames)}) + " " + pick(g, []string{"Ltd", "Inc", "GmbH", "Group", "Partners"}))
	}
	if c.Stage == crm.CustomerNegotiation || c.Stage == crm.CustomerContracting || g.rnd.IntN(4) == 0 {
		c.OpenValue = int64(1+g.rnd.IntN(1200)) * 100_000
	}
	w.Customers = append(w.Customers, c)

	k := g.person()
	w.Contacts = append(w.Contacts, &crm.Contact{
		Meta: meta[crm.Contact](g, owner, g.days(300)), Customer: c.ID, Name: crm.NewText(k.name),
		Title: pick(g, titles), Phone: crm.NewText(k.phone), Email: crm.NewText(k.email), Primary: true,
	})
	signer := w.Contacts[len(w.Contacts)-1]
	if n%2 == 0 {
		m := meta[crm.FollowUp](g, owner, g.days(60))
		m.Person = c.Person
		f := &crm.FollowUp{
			Meta: m, SubjectType: crm.TypeCustomer, Subject: c.ID.UUID(), Customer: c.ID,
			Channel: pick(g, channels), Text: crm.NewText(pick(g, notes)), At: m.CreatedAt,
		}
		if g.rnd.IntN(3) == 0 {
			f.NextAt = m.CreatedAt.Add(g.days(20) + time.Hour)
		}
		c.LastFollowUp = f.At
		w.FollowUps = append(w.FollowUps, f)
	}
	if n%5 == 0 {
		w.deal(g, n, c, signer, owner)
	}
	if n%6 == 0 {
		m := meta[crm.Ticket](g, support, g.days(90))
		m.Person = c.Person
		t := &crm.Ticket{
			Meta: m, Number: fmt.Sprintf("T-2026-%05d", n), Customer: c.ID, Subject: crm.NewText(pick(g, problems)),
			Body: crm.NewText(pick(g, notes)), Priority: pick(g, priorities), State: crm.TicketOpen,
			DueAt: m.CreatedAt.Add(72 * time.Hour),
		}
		for _, to := range []crm.TicketState{crm.TicketResolved, crm.TicketClosed} {
			if g.rnd.IntN(2) == 0 {
				break
			}
			must(t.Move(to, m.CreatedAt.Add(30*time.Hour)))
		}
		w.Tickets = append(w.Tickets, t)
	}
}

func (w *World) deal(g *generator, n int, c *crm.Customer, signer *crm.Contact, owner *crm.Employee) {
	m := meta[crm.Quote](g, owner, 30*24*time.Hour+g.days(90))
	m.Person = c.Person
	q := &crm.Quote{
		Meta: m, Number: fmt.Sprintf("Q-2026-%05d", n), Customer: c.ID, Currency: c.Currency, State: crm.QuoteDraft,
		ValidUntil: m.CreatedAt.AddDate(0, 2, 0),
	}
	for range 1 + g.rnd.IntN(3) {
		q.Lines = append(q.Lines, crm.Line{
			Product: pick(g, products), Quantity: int64(1 + g.rnd.IntN(20)), UnitPrice: int64(1+g.rnd.IntN(400)) * 10_000,
			Discount: int64(g.rnd.IntN(4)) * 500, Tax: 1300,
		})
	}
	must(q.Compute())
	w.Quotes = append(w.Quotes, q)
	at := m.CreatedAt.Add(24 * time.Hour)
	if g.rnd.IntN(4) == 0 {
		return
	}
	must(q.Move(crm.QuoteSent, at))
	if g.rnd.IntN(3) == 0 {
		return
	}
	at = at.Add(48 * time.Hour)
	must(q.Move(crm.QuoteAccepted, at))
	cm := meta[crm.Contract](g, owner, Base.Sub(at))
	cm.Person = c.Person
	k := &crm.Contract{
		Meta: cm, Number: fmt.Sprintf("C-2026-%05d", n), Customer: c.ID, Quote: q.ID,
		SignatoryPerson: signer.Person, Signatory: signer.Name, Amount: q.Total, Currency: q.Currency,
		Starts: at.Truncate(24 * time.Hour), Ends: at.Truncate(24*time.Hour).AddDate(1, 0, 0), State: crm.ContractDraft,
	}
	for _, to := range []crm.ContractState{crm.ContractApproved, crm.ContractActive} {
		if g.rnd.IntN(4) == 0 {
			break
		}
		at = at.Add(time.Hour)
		must(k.Move(to, at))
	}
	if k.State == crm.ContractActive {
		k.Paid = k.Amount / int64(1+g.rnd.IntN(4))
	}
	w.Contracts = append(w.Contracts, k)
}

func (w *World) lead(g *generator, owner *crm.Employee) {
	p := g.person()
	l := &crm.Lead{
		Meta: meta[crm.Lead](g, owner, g.days(60)), Name: crm.NewText(p.name), Company: crm.NewText(p.city + pick(g, companyTrades)),
		Title: pick(g, titles), Phone: crm.NewText(p.phone), Email: crm.NewText(p.email), City: p.city, Country: p.country,
		Source: pick(g, sources), State: pick(g, []crm.LeadState{crm.LeadNew, crm.LeadNew, crm.LeadContacted, crm.LeadQualified, crm.LeadJunk}),
	}
	if !p.chinese {
		l.Company = crm.NewText(pick(g, lastNames) + " & " + pick(g, lastNames))
	}
	w.Leads = append(w.Leads, l)
}

// idNumber returns a resident number of GB 11643 with a right check digit in a region code that is
// not given out.
func (g *generator) idNumber() string {
	s := fmt.Sprintf("999901%d%02d%02d%03d", 1960+g.rnd.IntN(45), 1+g.rnd.IntN(12), 1+g.rnd.IntN(28), g.rnd.IntN(1000))
	weights := []int{7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2}
	sum := 0
	for i, w := range weights {
		sum += int(s[i]-'0') * w
	}
	return s + string("10X98765432"[sum%11])
}

// must holds where the generator's own tables are right by construction.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
