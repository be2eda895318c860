package demo

import (
	"fmt"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// Twin says that a customer is another one again.
type Twin struct {
	Of     int      // the number of the other, which is smaller and no twin itself
	Errors []string // what was done to it: "name: two letters swapped"
}

// Twin returns of whom the i-th customer is a duplicate; ok is false for the 98 of 100 that are their own.
func (g *Generator) Twin(i int) (t Twin, ok bool) {
	if !g.isTwin(i) {
		return Twin{}, false
	}
	d := g.draw(kindTwin, i)
	of := d.n(i)
	for g.isTwin(of) {
		of-- // the first one is none
	}
	_, t = g.typos(d, of)
	t.Of = of
	return t, true
}

// isTwin tells whether the i-th is one.
func (g *Generator) isTwin(i int) bool {
	return i > 0 && (&draw{state: g.draw(kindTwin, i).state ^ 0x5851f42d4c957f2d}).n(50) == 0
}

// twin makes a duplicate with its own id, owner and time.
func (g *Generator) twin(i int, t Twin) *crm.Customer {
	d := g.draw(kindTwin, i)
	d.n(i)
	c, _ := g.typos(d, t.Of)
	later := c.CreatedAt.Add(time.Duration(d.next() % uint64(Base.Sub(c.CreatedAt)+1)).Truncate(time.Minute))
	c.Meta = meta[crm.Customer](d, g.staff(d), later)
	c.Stage, c.OpenValue, c.CreditLimit, c.LastFollowUp, c.ExternalID = crm.CustomerNew, 0, 0, time.Time{}, fmt.Sprintf("D%08d", i)
	c.Source = pick(d, sources)
	return c
}

// typos returns a customer with one to three errors of typing.
func (g *Generator) typos(d *draw, of int) (*crm.Customer, Twin) {
	c, h := g.customer(of)
	var t Twin
	note := func(what string) { t.Errors = append(t.Errors, what) }
	if h.chinese {
		name := []rune(h.name)
		switch d.n(4) {
		case 0:
			name[len(name)-1] = []rune(pick(d, given))[0]
			note("name: another character")
		case 1:
			if len(name) == 3 {
				name[1], name[2] = name[2], name[1]
				note("name: two characters swapped")
			}
		case 2:
			name = []rune(h.name[:len(string(name[:1]))] + " " + string(name[1:]))
			note("name: a space")
		}
		h.name = string(name)
	} else {
		h.name = latinTypo(d, h.name, note)
	}
	if c.Kind == crm.CompanyCustomer {
		c.Contact = crm.NewText(h.name)
		if d.one(2) {
			full := c.Name.Expose()
			short := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(full, "有限公司"), "股份"), "集团")
			if !h.chinese {
				short = full[:strings.LastIndexByte(full, ' ')]
			}
			c.Name = crm.NewText(short)
			note("name: without its legal form")
		}
	} else {
		c.Name = crm.NewText(h.name)
	}
	switch phone := []byte(h.phone); d.n(4) {
	case 0:
		c.Phone = crm.NewText(strings.NewReplacer(" ", "", "-", "", "+86", "").Replace(h.phone))
		note("phone: another spelling")
	case 1:
		phone[len(phone)-1] = '0' + (phone[len(phone)-1]-'0'+1)%10
		c.Phone = crm.NewText(string(phone))
		note("phone: the last digit")
	case 2:
		c.Phone, c.Phone2 = c.Phone2, c.Phone
		note("phone: in the other field")
	}
	switch d.n(3) {
	case 0:
		c.Email = crm.Text{}
		note("email: missing")
	case 1:
		c.Email = crm.NewText(strings.ToUpper(h.email[:1]) + h.email[1:])
		note("email: a capital")
	}
	if d.one(2) {
		c.Address, c.Website, c.IDNumber = crm.Text{}, crm.Text{}, crm.Text{}
		note("address: missing")
	}
	if len(t.Errors) == 0 {
		note("none")
	}
	return c, t
}

// latinTypo misspells a name.
func latinTypo(d *draw, name string, note func(string)) string {
	b := []byte(name)
	at := 1 + d.n(len(b)-2)
	switch d.n(5) {
	case 0:
		if b[at] != ' ' && b[at+1] != ' ' {
			b[at], b[at+1] = b[at+1], b[at]
			note("name: two letters swapped")
		}
	case 1:
		if b[at] != ' ' {
			b = append(b[:at], b[at+1:]...)
			note("name: a letter missing")
		}
	case 2:
		b = append(b[:at], append([]byte{b[at]}, b[at:]...)...)
		note("name: a letter twice")
	case 3:
		first, last, _ := strings.Cut(name, " ")
		note("name: the other way round")
		return last + ", " + first
	}
	return string(b)
}
