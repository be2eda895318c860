package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/encrypt/normalize"
	"github.com/crmguard/crmguard/examples/crm/csvfile"
)

// headers says which columns mean which field of a customer; names are compared without case, spaces
// and punctuation.
var headers = map[string][]string{
	"external_id": {"customerid", "accountid", "id", "externalid", "客户编号", "编号"},
	"first":       {"firstname", "givenname", "名"},
	"last":        {"lastname", "surname", "familyname", "姓"},
	"contact":     {"name", "contact", "contactname", "姓名", "联系人", "客户姓名"},
	"company":     {"company", "companyname", "account", "公司", "公司名称", "客户名称", "单位"},
	"city":        {"city", "城市"},
	"country":     {"country", "国家"},
	"address":     {"address", "street", "地址"},
	"phone":       {"phone", "phone1", "mobile", "telephone", "tel", "手机", "手机号", "电话", "联系电话"},
	"phone2":      {"phone2", "otherphone", "电话2", "备用电话"},
	"email":       {"email", "email1", "mail", "邮箱", "电子邮件", "电子邮箱"},
	"website":     {"website", "url", "网站", "网址"},
	"created":     {"subscriptiondate", "created", "createdat", "date", "创建时间", "日期"},
	"industry":    {"industry", "sector", "行业"},
	"note":        {"note", "notes", "remark", "备注"},
	"source":      {"source", "来源"},
}

// ImportReport is what became of a file.
type ImportReport struct {
	Encoding string
	Rows     int // in the file
	Stored   int
	Warned   int // stored with a phone that is no phone number, as typed
	Rejected []RejectedRow
	Ignored  []string // columns that mean nothing here
	Took     time.Duration
}

// RejectedRow is one row that was not stored. Reasons name fields and rules, never values.
type RejectedRow struct {
	Line   int
	Reason string
}

// ImportCustomers stores the customers of a CSV file in batches of guard.MaxBatch. Each batch is one event
// and one transaction: progress is called when it is durable. The owner is the employee in whose name they
// are stored.
func (a *App) ImportCustomers(ctx context.Context, r io.Reader, owner *crm.Employee, progress func(ImportReport)) (ImportReport, error) {
	var rep ImportReport
	start := time.Now()
	file, err := csvfile.New(r)
	if err != nil {
		return rep, err
	}
	rep.Encoding = file.Encoding()
	column := map[string]int{}
	for i, h := range file.Header() {
		field := meaning(h)
		if field == "" {
			rep.Ignored = append(rep.Ignored, h)
			continue
		}
		if _, ok := column[field]; !ok {
			column[field] = i
		}
	}
	_, named := column["company"]
	for _, f := range []string{"contact", "last", "first"} {
		_, ok := column[f]
		named = named || ok
	}
	if !named {
		return rep, errors.New("crm: no column of the file is a name; expected one of company, name, first name, 公司名称, 姓名")
	}
	// One goroutine reads and prepares the next batch while another stores this one.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan importBatch, 1)
	go func() {
		defer close(batches)
		readBatches(ctx, file, column, owner, batches)
	}()
	for b := range batches {
		rep.Rows += b.rows
		rep.Rejected = append(rep.Rejected, b.rejected...)
		errs, err := a.Customers.CreateAll(ctx, System("import"), b.customers)
		if err != nil {
			return rep, err
		}
		for i, e := range errs {
			if e != nil {
				rep.Rejected = append(rep.Rejected, RejectedRow{b.lines[i], reason(e)})
				continue
			}
			rep.Stored++
			if b.typed[i] {
				rep.Warned++
			}
		}
		rep.Took = time.Since(start)
		if progress != nil {
			progress(rep)
		}
		if b.err != nil {
			return rep, b.err
		}
	}
	slices.SortFunc(rep.Rejected, func(a, b RejectedRow) int { return a.Line - b.Line })
	rep.Took = time.Since(start)
	return rep, ctx.Err()
}

// importBatch is what is stored in one transaction.
type importBatch struct {
	rows      int // read from the file for it
	customers []*crm.Customer
	lines     []int
	typed     []bool // a phone is no phone number and is kept as typed
	rejected  []RejectedRow
	err       error // that ended the reading
}

// readBatches reads the file until its end, an error, or the end of ctx.
func readBatches(ctx context.Context, file *csvfile.Reader, column map[string]int, owner *crm.Employee, out chan<- importBatch) {
	var b importBatch
	send := func() bool {
		select {
		case out <- b:
			b = importBatch{}
			return true
		case <-ctx.Done():
			return false
		}
	}
	for rec, err := range file.Records() {
		b.rows++
		var re *csvfile.RowError
		switch {
		case errors.As(err, &re):
			b.rejected = append(b.rejected, RejectedRow{re.Line, re.Reason})
		case err != nil:
			b.err = fmt.Errorf("crm: reading the file: %w", err)
			send()
			return
		default:
			c := customerOf(rec.Fields, column, owner)
			typed := false
			for _, p := range []crm.Text{c.Phone, c.Phone2} {
				s := p.Expose()
				typed = typed || s != "" && !strings.HasPrefix(normalize.Phone(s, "CN"), "+")
			}
			b.customers, b.lines, b.typed = append(b.customers, c), append(b.lines, rec.Line), append(b.typed, typed)
		}
		if len(b.customers) == guard.MaxBatch && !send() {
			return
		}
	}
	if b.rows > 0 {
		send()
	}
}

// meaning returns the field that a header names, "" for none.
func meaning(header string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(header) {
		if !strings.ContainsRune(" _-.:/()", r) {
			b.WriteRune(r)
		}
	}
	for field, names := range headers {
		if slices.Contains(names, b.String()) {
			return field
		}
	}
	return ""
}

// customerOf makes a customer of a record. It never fails: what cannot be read stays empty, and the
// rules of the type decide.
func customerOf(fields []string, column map[string]int, owner *crm.Employee) *crm.Customer {
	get := func(name string) string {
		if i, ok := column[name]; ok && i < len(fields) {
			return strings.TrimSpace(fields[i])
		}
		return ""
	}
	contact := get("contact")
	if contact == "" {
		contact = strings.TrimSpace(get("first") + " " + get("last"))
	}
	c := &crm.Customer{
		Meta: crm.Meta[crm.Customer]{Owner: owner.ID, Team: owner.Team},
		Kind: crm.CompanyCustomer, Name: crm.NewText(get("company")), Contact: crm.NewText(contact),
		Phone: crm.NewText(get("phone")), Phone2: crm.NewText(get("phone2")), Email: crm.NewText(get("email")),
		Address: crm.NewText(get("address")), Website: crm.NewText(get("website")), Note: crm.NewText(get("note")),
		City: get("city"), Country: get("country"), Industry: get("industry"), Source: get("source"),
		Stage: crm.CustomerNew, ExternalID: get("external_id"),
	}
	if c.Name.IsEmpty() {
		c.Kind, c.Name, c.Contact = crm.PersonCustomer, c.Contact, crm.Text{}
	}
	if c.Source == "" {
		c.Source = "import"
	}
	for _, layout := range []string{time.DateOnly, "2006/01/02", "2006/1/2", "02.01.2006", time.RFC3339} {
		if t, err := time.Parse(layout, get("created")); err == nil && !t.After(time.Now()) {
			c.CreatedAt = t.UTC()
			break
		}
	}
	return c
}

// reason says why a record was refused without saying what is in it.
func reason(err error) string {
	var invalid *crm.InvalidError
	switch {
	case errors.As(err, &invalid):
		parts := make([]string, len(invalid.Fields))
		for i, f := range invalid.Fields {
			parts[i] = f.Field + " " + f.Rule
		}
		return strings.Join(parts, ", ")
	case errors.Is(err, crm.ErrDuplicate):
		return "duplicate"
	case errors.Is(err, crm.ErrConflict):
		return "exists"
	}
	return "refused by policy"
}

// Owner finds the employee with this e-mail address; "" finds the first administrator.
func (a *App) Owner(ctx context.Context, email string) (*crm.Employee, error) {
	if email != "" {
		p, err := a.Employees.Search(ctx, System("import"), email, 2, "email")
		if err != nil {
			return nil, err
		}
		if len(p.Items) != 1 {
			return nil, fmt.Errorf("crm: there is no employee with this address: %w", crm.ErrNotFound)
		}
		return &p.Items[0].Value, nil
	}
	all, err := a.Directory(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		if e.Active() && slices.Contains(e.Roles, "admin") {
			return e, nil
		}
	}
	return nil, fmt.Errorf("crm: there is no administrator: %w", crm.ErrNotFound)
}

// Directory returns every employee: names that colleagues see beside records.
func (a *App) Directory(ctx context.Context) ([]*crm.Employee, error) {
	var out []*crm.Employee
	q := guard.Query{Limit: 200}
	for {
		p, err := a.Employees.List(ctx, System("directory"), q)
		if err != nil {
			return nil, err
		}
		for i := range p.Items {
			out = append(out, &p.Items[i].Value)
		}
		if q.After = p.Next; p.Next == "" {
			return out, nil
		}
	}
}

// redact takes credentials out of a bucket or database URL for messages and pages.
func redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(unreadable URL)"
	}
	u.User, u.RawQuery = nil, ""
	return u.String()
}

// BackupTarget names where backups go, without credentials.
func (c *Config) BackupTarget() string { return redact(c.Backup) }
