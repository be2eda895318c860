package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/privacy"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/crm/transfer/csvfile"
	"github.com/crmguard/crmguard/crm/transfer/xlsx"
	"github.com/crmguard/crmguard/encrypt/normalize"
)

// ImportTypes are the types that files can be imported into.
var ImportTypes = []string{crm.TypeCustomer, crm.TypeLead, crm.TypeContact, crm.TypeProduct, crm.TypeOpportunity, crm.TypeEmployee}

// ImportOptions of [App.Importer].
type ImportOptions struct {
	Owner    *crm.Employee         // in whose name a program imports; nil: the caller is an employee
	Progress func(transfer.Counts) // nil: nobody hears it
	AsTyped  *atomic.Int64         // counts customers with a phone that is no phone number; nil: nobody counts
	// Duplicates says what becomes of a row whose record is there already, by the rules for its type and as far as the caller may read such records: refuse (certain ones; likely ones are
	// listed), warn (both are listed) or off. "": off.
	Duplicates string
	Beside     string // kept sealed with each import that begins; "": nothing
}

// The words of ImportOptions.Duplicates and, but for the last, of Config.Duplicates: what is certain is refused, or stored when its maker says so a second time.
const (
	RefuseDuplicates = "refuse"
	WarnDuplicates   = "warn"
	KeepDuplicates   = "off"
)

// DuplicateWords are those.
var DuplicateWords = []string{WarnDuplicates, RefuseDuplicates, KeepDuplicates}

// Importing imports files into one type; it is a *transfer.Importer.
type Importing interface {
	Fields() []transfer.Field
	Keys() []string
	Rehearse(ctx context.Context, c guard.Caller, src transfer.Source, m transfer.Mapping, mode transfer.Mode) (transfer.Report, error)
	Begin(ctx context.Context, c guard.Caller, name string, header []string, m transfer.Mapping, mode transfer.Mode) (*transfer.Import, error)
	Run(ctx context.Context, c guard.Caller, name string, src transfer.Source, m transfer.Mapping, mode transfer.Mode) (*transfer.Import, error)
	Resume(ctx context.Context, c guard.Caller, id crm.ID[transfer.Import], src transfer.Source) (*transfer.Import, error)
	Undo(ctx context.Context, c guard.Caller, id crm.ID[transfer.Import]) (*transfer.Import, error)
	Erased(ctx context.Context, c guard.Caller, id crm.ID[transfer.Import], each func(transfer.Erased) error) error
	Rejected(ctx context.Context, c guard.Caller, id crm.ID[transfer.Import], each func(transfer.Rejected) error) error
	Matched(ctx context.Context, c guard.Caller, id crm.ID[transfer.Import], each func(transfer.Matched) error) error
}

// Importer returns the importer of a type, which refers to what the caller may list. crm.ErrNotFound says that there is none.
func (a *App) Importer(ctx context.Context, c guard.Caller, typ string, o ImportOptions) (Importing, error) {
	others, err := a.others(ctx, c, typ)
	if err != nil {
		return nil, err
	}
	doors := transfer.Doors{Guard: a.Guard, Imports: a.Imports, Kept: a.Kept}
	switch typ {
	case crm.TypeCustomer:
		layout := transfer.Customers(others)
		if o.AsTyped != nil {
			finish := layout.Finish
			layout.Finish = func(v *crm.Customer, get func(string) string) []transfer.Reason {
				for _, p := range []crm.Text{v.Phone, v.Phone2} {
					if s := p.Expose(); s != "" && !strings.HasPrefix(normalize.Phone(s, "CN"), "+") {
						o.AsTyped.Add(1)
						break
					}
				}
				return finish(v, get)
			}
		}
		return checked(a, doors, a.Customers, layout, o)
	case crm.TypeLead:
		return checked(a, doors, a.Leads, transfer.Leads(others), o)
	case crm.TypeContact:
		return checked(a, doors, a.Contacts, transfer.Contacts(others), o)
	case crm.TypeProduct:
		return importer(a, doors, a.Products, transfer.Products(), o, nil), nil
	case crm.TypeOpportunity:
		return importer(a, doors, a.Opportunities, transfer.Opportunities(others), o, nil), nil
	case crm.TypeEmployee:
		return importer(a, doors, a.Employees, transfer.Employees(others), o, nil), nil
	}
	return nil, crm.ErrNotFound
}

// ErrDuplicates says that there is no such word for what becomes of duplicates.
var ErrDuplicates = errors.New("crm: duplicates are refuse, warn or off")

// checked is importer with the check for duplicates.
func checked[P guard.Record](a *App, d transfer.Doors, records *guard.Records[P], layout transfer.Layout[P], o ImportOptions) (Importing, error) {
	switch o.Duplicates {
	case "", KeepDuplicates:
		return importer[P](a, d, records, layout, o, nil), nil
	case RefuseDuplicates, WarnDuplicates:
	default:
		return nil, ErrDuplicates
	}
	rules, ok := dedupe.Default(records.Type())
	if !ok {
		return nil, crm.ErrNotFound
	}
	rules.Tell = "nothing" // of records that the caller may not read: an import is a thousand questions
	c, err := dedupe.New(records, rules, nil)
	if err != nil {
		return nil, err
	}
	return importer[P](a, d, records, layout, o, c.ForFile()), nil
}

func importer[P guard.Record](a *App, d transfer.Doors, records *guard.Records[P], layout transfer.Layout[P], o ImportOptions, check transfer.Checker[P]) *transfer.Importer[P] {
	opts := &transfer.Options[P]{Progress: o.Progress, Beside: o.Beside, Checker: check, OnMatch: transfer.ReportMatches,
		Eraser: privacy.NewChecker(records, a.Suppressions), OnErased: transfer.OnErased(a.Config.Erased)}
	if o.Duplicates == RefuseDuplicates {
		opts.OnMatch = transfer.SkipMatches
	}
	if o.Owner != nil {
		opts.Owner, opts.Team = o.Owner.ID, o.Owner.Team
	}
	return transfer.NewImporter[P](d, records, layout, opts)
}

// others reads what rows of a type refer to.
func (a *App) others(ctx context.Context, c guard.Caller, typ string) (o transfer.Others, err error) {
	if typ == crm.TypeProduct {
		return o, nil
	}
	if o.Employees, err = transfer.NamesOf(ctx, c, a.Employees, func(e *crm.Employee) string { return transfer.Open(e.Name) },
		func(e *crm.Employee) (crm.UUID, string) { return e.ID.UUID(), e.Team }); err != nil {
		return o, err
	}
	if typ != crm.TypeContact && typ != crm.TypeOpportunity {
		return o, nil
	}
	if o.Customers, err = transfer.NamesOf(ctx, c, a.Customers, func(v *crm.Customer) string { return transfer.Open(v.Name) },
		func(v *crm.Customer) (crm.UUID, string) { return v.ID.UUID(), "" }); err != nil || typ != crm.TypeOpportunity {
		return o, err
	}
	if o.Products, err = transfer.NamesOf(ctx, c, a.Products, func(p *sales.Product) string { return p.Name },
		func(p *sales.Product) (crm.UUID, string) { return p.ID.UUID(), "" }); err != nil {
		return o, err
	}
	page, err := a.Pipelines.List(ctx, c, guard.Query{Limit: 1})
	if err == nil && len(page.Items) > 0 {
		o.Pipeline = page.Items[0].Value
	}
	return o, err
}

// ImportSamples is how many rows are looked at before a mapping is suggested.
const ImportSamples = 10_000

// OpenImport opens a file by its first bytes: a workbook or separated values. The answer is to be closed when it is an io.Closer.
func OpenImport(r io.Reader, o FileOptions) (src transfer.Source, told string, err error) {
	buf := bufio.NewReaderSize(r, 1<<16)
	if head, _ := buf.Peek(4); string(head) == "PK\x03\x04" {
		x, err := xlsx.Open(buf, &xlsx.Options{Sheet: o.Sheet})
		return x, "XLSX", err
	}
	c, err := transfer.CSV(buf, &csvfile.Options{Encoding: o.Encoding, Comma: o.Comma})
	if err != nil {
		return nil, "", err
	}
	if e, ok := c.(interface{ Encoding() string }); ok {
		told = e.Encoding()
	}
	return c, told, nil
}

// SuggestImport suggests a mapping from the header and the first rows of a file, which is read for it.
func SuggestImport(src transfer.Source, m Importing) transfer.Mapping {
	var samples [][]string
	for row, err := range src.Rows() {
		if err == nil {
			samples = append(samples, row.Cells)
		}
		if len(samples) == ImportSamples {
			break
		}
	}
	return transfer.Suggest(m.Fields(), src.Header(), samples)
}

// ImportReport is what became of a file, for a terminal. It names fields and rules, never values.
type ImportReport struct {
	Encoding string
	Counts   transfer.Counts
	Reasons  map[string]int64
	Typed    int64 // customers with a phone that is no phone number, kept as typed
	Ignored  int   // columns that mean nothing here
	Rows     []RejectedRow
	Same     []int64 // the first lines that were stored although there was such a record
	Gone     []int64 // the first lines that were stored although somebody with such a number was erased
	Took     time.Duration
}

// RejectedRow is one row that was not stored.
type RejectedRow struct {
	Line   int64
	Reason string
}

// Add notes a rejected row, one of the first 50.
func (r *ImportReport) Add(x transfer.Rejected) {
	if len(r.Rows) < 50 {
		r.Rows = append(r.Rows, RejectedRow{x.Line, ReasonsText(x.Reasons)})
	}
}

// AddSame notes a row that was stored although there was such a record, one of the first 20.
func (r *ImportReport) AddSame(x transfer.Matched) {
	if len(r.Same) < 20 {
		r.Same = append(r.Same, x.Line)
	}
}

// AddErased notes a row that was stored although somebody with such a number was erased, one of the first 20.
func (r *ImportReport) AddErased(x transfer.Erased) {
	if len(r.Gone) < 20 {
		r.Gone = append(r.Gone, x.Line)
	}
}

// Separators are the words for what stands between the values of a file.
var Separators = map[string]rune{"comma": ',', "semicolon": ';', "tab": '\t', "bar": '|'}

// ReasonsText writes reasons without the names that are near: those are data.
func ReasonsText(reasons []transfer.Reason) string {
	parts := make([]string, len(reasons))
	for i, r := range reasons {
		parts[i] = strings.TrimSpace(r.Field + " " + r.Rule)
	}
	return strings.Join(parts, ", ")
}

// ErrNoName says that a file of customers has no column that is a name.
var ErrNoName = errors.New("crm: no column of the file is a name; expected one of company, name, first name, 公司名称, 姓名")

// Named tells whether a mapping for customers has a name: ErrNoName.
func Named(typ string, m transfer.Mapping) error {
	fields := m.Fields()
	if typ != crm.TypeCustomer || slices.ContainsFunc([]string{"company", "contact", "first", "last"}, func(f string) bool { return slices.Contains(fields, f) }) {
		return nil
	}
	return ErrNoName
}

// As is the caller that an employee is on the command line of the machine that holds the keys.
func (a *App) As(ctx context.Context, e *crm.Employee, purpose string) (guard.Caller, error) {
	s, err := a.Subject(ctx, e.ID.UUID())
	return guard.Caller{Subject: s, Environment: authz.Environment{Purpose: purpose, Time: a.now()}}, err
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
		return p.Items[0].Value, nil
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
			out = append(out, p.Items[i].Value)
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
