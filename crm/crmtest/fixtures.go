// Package crmtest holds the conformance suite of crm.Store and fixtures: records and rows that are the
// same at every run.
package crmtest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// Start is when fixtures were created.
func Start() time.Time { return time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC) }

// Random returns the same bytes for the same seed, for crm.IDAt and its like.
func Random(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// id returns the i-th id of a kind.
func id[T any](kind uint64, i int) crm.ID[T] {
	return crm.IDAt[T](Start().Add(time.Duration(i)*time.Second), Random(kind<<32+uint64(i)))
}

func meta[T any](kind uint64, i int) crm.Meta[T] {
	at := Start().Add(time.Duration(i) * time.Minute)
	return crm.Meta[T]{
		ID: id[T](kind, i), Person: PersonID(i), Owner: EmployeeID(i % 10),
		Team: fmt.Sprintf("/%s/%d/", []string{"east", "west"}[i%2], i%3), CreatedAt: at, UpdatedAt: at,
	}
}

// PersonID is the id of the i-th person, the same in all fixtures with that number.
func PersonID(i int) crm.ID[crm.Person] { return id[crm.Person](1, i) }

// EmployeeID is the id of Employee(i).
func EmployeeID(i int) crm.ID[crm.Employee] { return id[crm.Employee](2, i) }

// CustomerID is the id of Customer(i).
func CustomerID(i int) crm.ID[crm.Customer] { return id[crm.Customer](3, i) }

var (
	given  = []string{"Ana", "Bo", "Chidi", "Dana", "Elif", "Femi", "Greta", "Hiro"}
	family = []string{"Moreau", "Okafor", "Silva", "Weber", "Tanaka"}
	cn     = []string{"王芳", "李娜", "张伟", "刘洋", "陈静", "欧阳明"}
	cities = []string{"Lyon", "Lagos", "Porto", "上海", "成都"}
)

// personName is the name of the i-th person.
func personName(i int) string {
	if i%3 == 0 {
		return cn[i/3%len(cn)]
	}
	return given[i%len(given)] + " " + family[i%len(family)]
}

func phone(i int) crm.Text { return crm.NewText(fmt.Sprintf("138 %04d %04d", i/10000%10000, i%10000)) }
func email(i int) crm.Text { return crm.NewText(fmt.Sprintf("person%d@example.com", i)) }

// Customer returns the i-th customer, a company when i is odd.
func Customer(i int) *crm.Customer {
	c := &crm.Customer{
		Meta: meta[crm.Customer](3, i), Kind: crm.PersonCustomer, Name: crm.NewText(personName(i)),
		Phone: phone(i), Email: email(i), Address: crm.NewText(fmt.Sprintf("%d High Street", i+1)),
		IDNumber: crm.NewText(fmt.Sprintf("ID%08d", i)), City: cities[i%len(cities)], Country: "CN", Industry: "software",
		Source: "fair", Stage: crm.CustomerLifecycle().States()[i%8],
		OpenValue: int64(i) * 10000, CreditLimit: 500000, Currency: "CNY",
	}
	if i%2 == 1 {
		c.Kind, c.Contact, c.Name = crm.CompanyCustomer, c.Name, crm.NewText(fmt.Sprintf("Company %d Ltd", i))
	}
	if i%4 != 0 {
		c.LastFollowUp = c.CreatedAt.Add(time.Hour)
	}
	return c
}

// Contact returns the i-th contact, of Customer(i).
func Contact(i int) *crm.Contact {
	return &crm.Contact{
		Meta: meta[crm.Contact](4, i), Customer: CustomerID(i), Name: crm.NewText(personName(i)),
		Title: "buyer", Phone: phone(i), Email: email(i), Primary: i%2 == 0,
	}
}

// Lead returns the i-th lead, qualified when i is even and else new.
func Lead(i int) *crm.Lead {
	l := &crm.Lead{
		Meta: meta[crm.Lead](5, i), Name: crm.NewText(personName(i)), Phone: phone(i), Email: email(i),
		City: cities[i%len(cities)], Country: "CN", Source: "web", State: crm.LeadNew,
	}
	if i%2 == 0 {
		l.State, l.Company = crm.LeadQualified, crm.NewText(fmt.Sprintf("Company %d Ltd", i))
	}
	return l
}

// FollowUp returns the i-th follow-up, of Customer(i).
func FollowUp(i int) *crm.FollowUp {
	m := meta[crm.FollowUp](6, i)
	return &crm.FollowUp{
		Meta: m, SubjectType: crm.TypeCustomer, Subject: CustomerID(i).UUID(), Customer: CustomerID(i),
		Channel: crm.ChannelCall, Text: crm.NewText("asked for a visit next week"), At: m.CreatedAt, NextAt: m.CreatedAt.Add(168 * time.Hour),
	}
}

// Quote returns the i-th quote, a draft with computed totals, to Customer(i).
func Quote(i int) *crm.Quote {
	m := meta[crm.Quote](7, i)
	q := &crm.Quote{
		Meta: m, Number: fmt.Sprintf("Q-%05d", i), Customer: CustomerID(i), Currency: "CNY", State: crm.QuoteDraft,
		Lines: []crm.Line{
			{Product: "licence", Quantity: int64(i%7 + 1), UnitPrice: 19900, Discount: 500, Tax: 1300},
			{Product: "training", Quantity: 1, UnitPrice: 80000, Tax: 600},
		},
		ValidUntil: m.CreatedAt.Add(30 * 24 * time.Hour),
	}
	if err := q.Compute(); err != nil {
		panic(err)
	}
	return q
}

// Contract returns the i-th contract, a draft with Customer(i).
func Contract(i int) *crm.Contract {
	m := meta[crm.Contract](8, i)
	return &crm.Contract{
		Meta: m, Number: fmt.Sprintf("C-%05d", i), Customer: CustomerID(i), SignatoryPerson: PersonID(i),
		Signatory: crm.NewText(personName(i)), Amount: int64(i+1) * 120000, Currency: "CNY",
		Starts: m.CreatedAt, Ends: m.CreatedAt.AddDate(1, 0, 0), State: crm.ContractDraft,
	}
}

// Ticket returns the i-th ticket, open, of Customer(i).
func Ticket(i int) *crm.Ticket {
	m := meta[crm.Ticket](9, i)
	return &crm.Ticket{
		Meta: m, Number: fmt.Sprintf("T-%05d", i), Customer: CustomerID(i), Subject: crm.NewText("cannot sign in"),
		Body: crm.NewText("since this morning\nplease call"), Priority: crm.PriorityNormal, State: crm.TicketOpen,
		DueAt: m.CreatedAt.Add(48 * time.Hour),
	}
}

// Employee returns the i-th employee, active. Owner(0) is nobody's report.
func Employee(i int) *crm.Employee {
	m := meta[crm.Employee](2, i)
	m.Person = id[crm.Person](10, i)
	if m.Owner = EmployeeID(0); i == 0 {
		m.Owner = crm.ID[crm.Employee]{}
	}
	return &crm.Employee{
		Meta: m, Name: crm.NewText(personName(i)), Email: crm.NewText(fmt.Sprintf("employee%d@example.com", i)),
		Roles: []string{"sales"}, State: crm.EmployeeActive, Joined: m.CreatedAt,
	}
}

// Schema is the type that Row makes rows of: a column of each kind, some with nulls and ties.
func Schema() crm.Schema {
	return crm.Schema{Type: "thing", Columns: []crm.Column{
		{Name: "owner", Kind: crm.KindString, Indexed: true},
		{Name: "stage", Kind: crm.KindString, Indexed: true},
		{Name: "amount", Kind: crm.KindInt, Indexed: true},
		{Name: "primary", Kind: crm.KindBool},
		{Name: "due", Kind: crm.KindTime, Indexed: true},
	}}
}

// Row returns the i-th row of Schema for a tenant, as it is created: with two sealed fields, six tokens,
// the last of them unique to i, and nulls in stage (every fifth), amount (every seventh) and due (every
// third).
func Row(tenant string, i int) crm.Row {
	r := crm.Row{
		Tenant: tenant, Type: "thing", ID: id[crm.Row](11, i).UUID(), Persons: []crm.UUID{PersonID(i).UUID()}, Version: 1,
		Clear: []crm.Value{
			crm.StringValue(EmployeeID(i % 10).String()), {}, {}, crm.BoolValue(i%2 == 0), {},
		},
		MAC: make([]byte, 32),
	}
	if i%5 != 0 {
		r.Clear[1] = crm.StringValue([]string{"new", "Won", "won", "负责", "été", "a_b%"}[i%6])
	}
	if i%7 != 0 {
		r.Clear[2] = crm.IntValue(int64(i%11-5) * 1000)
	}
	if i%3 != 0 {
		r.Clear[4] = crm.TimeValue(Start().Add(time.Duration(i%13) * time.Hour))
	}
	random := Random(12<<32 + uint64(i))
	random.Read(r.MAC)
	for _, name := range []string{"email", "phone"} {
		f := crm.SealedField{Name: name, Data: make([]byte, 60)}
		random.Read(f.Data)
		r.Sealed = append(r.Sealed, f)
	}
	for t := range 5 {
		r.Sealed[t%2].Tokens = append(r.Sealed[t%2].Tokens, crm.Token{Value: TokenOf(i/10, t)})
	}
	r.Sealed[0].Tokens = append(r.Sealed[0].Tokens, crm.Token{Value: TokenOf(i, 9), Unique: true})
	return r
}

// TokenOf returns the t-th token of a group: Row(tenant, i) carries tokens 0 to 4 of group i/10 and the
// unique token 9 of group i.
func TokenOf(group, t int) int64 {
	return int64(Random(13<<32 + uint64(group)<<4 + uint64(t)).Uint64())
}
