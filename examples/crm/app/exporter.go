package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/crm/transfer/xlsx"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/normalize"
)

// ExportTypes are the types that are exported.
var ExportTypes = []string{
	crm.TypeCustomer, crm.TypeContact, crm.TypeLead, crm.TypeFollowUp, crm.TypeQuote, crm.TypeContract, crm.TypeTicket, crm.TypeEmployee,
}

// ExportFormats are those of a file.
var ExportFormats = []string{"csv", "xlsx"}

// ExportPlan is what an export would take for a caller at this moment.
type ExportPlan struct {
	Rows    int64
	Needs   []authz.Obligation // what the policy obliges to for so many
	Columns []string
}

// Exporting is the export of one type.
type Exporting interface {
	// Filter returns a filter as it is kept. It is written like the query of a URL: show=mine, show=overdue, and clear fields with their values. Error: an
	// *crm.InvalidError for anything else.
	Filter(text string) (string, error)
	// Plan counts what a filter admits, without exporting any. Errors: *authz.DeniedError, and an *crm.InvalidError for a column that the caller may not have.
	Plan(ctx context.Context, c guard.Caller, filter string, columns []string) (ExportPlan, error)
	// Write exports what a filter admits into a sink.
	Write(ctx context.Context, c guard.Caller, filter string, to transfer.Sink, o ExportWrite) (int64, error)
}

// ExportWrite says how Exporting.Write writes.
type ExportWrite struct {
	Columns []string
	Mark    []string
	Canary  *transfer.Canary
	Done    func(rows int64) // after each page; nil: nobody hears it
}

// Exporter returns the export of a type. crm.ErrNotFound says that there is none.
func (a *App) Exporter(typ string) (Exporting, error) {
	switch typ {
	case crm.TypeCustomer:
		return exporterOf(a, a.Customers, "open_value", "credit_limit"), nil
	case crm.TypeContact:
		return exporterOf(a, a.Contacts), nil
	case crm.TypeLead:
		return exporterOf(a, a.Leads), nil
	case crm.TypeFollowUp:
		return exporterOf(a, a.FollowUps), nil
	case crm.TypeQuote:
		return exporterOf(a, a.Quotes, "net", "tax", "total"), nil
	case crm.TypeContract:
		return exporterOf(a, a.Contracts, "amount", "paid"), nil
	case crm.TypeTicket:
		return exporterOf(a, a.Tickets), nil
	case crm.TypeEmployee:
		return exporterOf(a, a.Employees), nil
	}
	return nil, crm.ErrNotFound
}

// exporter is the Exporting of T.
type exporter[P guard.Record] struct {
	a       *App
	records *guard.Records[P]
	fields  map[string]exportField
}

// exportField is how a field of T becomes a cell.
type exportField struct {
	encrypt.Field
	index []int
	money bool // minor units
}

func exporterOf[P guard.Record](a *App, records *guard.Records[P], money ...string) *exporter[P] {
	x := &exporter[P]{a: a, records: records, fields: map[string]exportField{}}
	typ := reflect.TypeFor[P]().Elem()
	for _, f := range records.Fields() {
		g, _ := typ.FieldByName(f.GoName)
		x.fields[f.Name] = exportField{f, g.Index, slices.Contains(money, f.Name)}
	}
	return x
}

// internalFields are what the program keeps for its decisions.
var internalFields = []string{"actors", "free_in"}

// badExport is a request for an export that is not right.
func badExport(field, rule string) error {
	return &crm.InvalidError{Type: crm.TypeExport, Fields: []crm.FieldError{{Field: field, Rule: rule}}}
}

// overdueAfter is how long a customer may hear of nobody.
const overdueAfter = 30 * 24 * time.Hour

func (x *exporter[P]) Filter(text string) (string, error) {
	v, err := url.ParseQuery(text)
	if err != nil {
		return "", badExport("filter", "unknown_value")
	}
	if _, err := x.clauses(crm.UUID{}.String(), v); err != nil {
		return "", err
	}
	if out := v.Encode(); len(out) <= crm.MaxLine {
		return out, nil
	}
	return "", badExport("filter", "too_long")
}

// clauses are those of a filter, for who asks.
func (x *exporter[P]) clauses(self string, v url.Values) ([]crm.Clause, error) {
	var out []crm.Clause
	for name, values := range v {
		if len(values) != 1 {
			return nil, badExport("filter", "unknown_value")
		}
		c := crm.Clause{Column: name, Op: crm.Equal}
		f, ok := x.fields[name]
		switch {
		case name == "show" && values[0] == "mine":
			c.Column, c.Values = "owner", []crm.Value{crm.StringValue(self)}
		case name == "show" && values[0] == "overdue" && x.records.Type() == crm.TypeCustomer:
			c = crm.Clause{Column: "last_follow_up", Op: crm.Less, Values: []crm.Value{crm.TimeValue(x.a.now().Add(-overdueAfter))}}
		case !ok || !f.Clear || slices.Contains(internalFields, name):
			return nil, badExport("filter", "unknown_value")
		case f.Kind == encrypt.KindText, f.Kind == encrypt.KindID:
			c.Values = []crm.Value{crm.StringValue(values[0])}
		case f.Kind == encrypt.KindInt:
			n, err := strconv.ParseInt(values[0], 10, 64)
			if err != nil {
				return nil, badExport("filter", "unknown_value")
			}
			c.Values = []crm.Value{crm.IntValue(n)}
		default:
			return nil, badExport("filter", "unknown_value")
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b crm.Clause) int { return strings.Compare(a.Column, b.Column) })
	return out, nil
}

// query reads a filter. What is changed meanwhile stays in its place, for it goes by creation.
func (x *exporter[P]) query(c guard.Caller, filter string) (guard.Query, error) {
	v, err := url.ParseQuery(filter)
	if err != nil {
		return guard.Query{}, badExport("filter", "unknown_value")
	}
	clauses, err := x.clauses(c.Subject.ID, v)
	return guard.Query{Clauses: clauses}, err
}

func (x *exporter[P]) Plan(ctx context.Context, c guard.Caller, filter string, columns []string) (p ExportPlan, err error) {
	q, err := x.query(c, filter)
	if err != nil {
		return p, err
	}
	if p.Rows, p.Needs, err = x.records.Exportable(ctx, c, q); err != nil {
		return p, err
	}
	_, access, err := x.records.MayOwn(ctx, c, authz.Export)
	if err != nil {
		return p, err
	}
	for _, f := range x.records.Fields() {
		if access[f.Name] != authz.Hidden && !slices.Contains(internalFields, f.Name) {
			p.Columns = append(p.Columns, f.Name)
		}
	}
	if len(columns) == 0 {
		return p, nil
	}
	for i, name := range columns {
		if !slices.Contains(p.Columns, name) || slices.Contains(columns[:i], name) {
			return p, badExport("chosen", "unknown_value")
		}
	}
	p.Columns = columns
	return p, nil
}

func (x *exporter[P]) Write(ctx context.Context, c guard.Caller, filter string, to transfer.Sink, o ExportWrite) (int64, error) {
	q, err := x.query(c, filter)
	if err != nil {
		return 0, err
	}
	people, err := x.a.rights(ctx)
	if err != nil {
		return 0, err
	}
	masks := normalize.Masks()
	return transfer.Export(ctx, c, x.records, q, to, transfer.ExportOptions[P]{
		Columns: o.Columns, Mark: o.Mark, Canary: o.Canary, Done: o.Done,
		Cell: func(v *guard.View[P], column string) string { return x.cell(v.Value, column, people.employees) },
		Mask: func(column, value string) string {
			if mask, ok := masks[x.fields[column].Mask]; ok {
				return mask(value)
			}
			return "***"
		},
	})
}

// cell is a field for a file, as the view has it.
func (x *exporter[P]) cell(v P, column string, people map[crm.UUID]*crm.Employee) string {
	f := x.fields[column]
	val := reflect.ValueOf(v).Elem().FieldByIndex(f.index)
	switch p := val.Addr().Interface().(type) {
	case *crm.Text:
		return p.Expose()
	case *time.Time:
		if p.IsZero() {
			return ""
		}
		return p.UTC().Format(time.RFC3339)
	case *[]string:
		return strings.Join(*p, " ")
	case *crm.ID[crm.Employee]:
		if e := people[p.UUID()]; e != nil {
			return e.Name.Expose()
		}
		return p.String()
	case *string:
		return *p
	case *bool:
		return strconv.FormatBool(*p)
	case *int64:
		if f.money {
			return string(appendMoney(nil, *p))
		}
		return strconv.FormatInt(*p, 10)
	case fmt.Stringer:
		return p.String()
	}
	switch val.Kind() {
	case reflect.String:
		return val.String()
	case reflect.Int, reflect.Int64, reflect.Int32:
		return strconv.FormatInt(val.Int(), 10)
	}
	return fmt.Sprint(val.Interface())
}

// appendMoney writes minor units: 12.50.
func appendMoney(b []byte, n int64) []byte {
	if n < 0 {
		b, n = append(b, '-'), -n
	}
	b = append(strconv.AppendInt(b, n/100, 10), '.')
	return append(b, byte('0'+n%100/10), byte('0'+n%10))
}

// ExportAsk is what somebody asks for.
type ExportAsk struct {
	Type    string
	Filter  string   // see Exporting; "": all that they may export
	Columns []string // none: all that they may have
	Format  string   // one of ExportFormats; "": csv
	Reason  string
}

// AskExport stores a request for an export. What nobody else has to approve is open, and can be taken by WriteExport at once. An *authz.DeniedError whose Unmet has step_up
// says that the password must be asked for first.
func (a *App) AskExport(ctx context.Context, c guard.Caller, ask ExportAsk) (*crm.Export, error) {
	x, err := a.Exporter(ask.Type)
	if err != nil {
		return nil, err
	}
	filter, err := x.Filter(ask.Filter)
	if err != nil {
		return nil, err
	}
	reason := strings.TrimSpace(ask.Reason)
	if reason == "" {
		return nil, badExport("reason", "required")
	}
	p, err := x.Plan(ctx, c, filter, ask.Columns)
	if err != nil {
		return nil, err
	}
	if unmet(c, p.Needs, authz.NeedStepUp) {
		return nil, &authz.DeniedError{Controls: []string{"access.granted"}, Unmet: []authz.Obligation{authz.NeedStepUp}}
	}
	e := &crm.Export{
		RecordType: ask.Type, Filter: filter, Columns: int64(len(p.Columns)), Rows: p.Rows, Digest: ExportDigest(ask.Type, filter, p.Columns),
		Chosen: strings.Join(ask.Columns, ","), Format: ask.Format, Reason: crm.NewText(reason),
	}
	if e.Format == "" {
		e.Format = "csv"
	}
	return e, a.RequestExport(ctx, c, e, p.Needs)
}

// unmet tells whether an obligation is owed that the caller has not met.
func unmet(c guard.Caller, needs []authz.Obligation, o authz.Obligation) bool {
	return slices.Contains(needs, o) && !slices.Contains(c.Met, o)
}

// ExportFile is a file that is about to be written.
type ExportFile struct {
	Name        string
	ContentType string
	Rows        int64 // as counted a moment ago
}

// WriteExport uses an export up and writes its file to what open returns, which is asked for just before the first byte, so that an error before that leaves nothing behind, and closed only when it is whole. done hears after each page
// how many rows were written. With an error after that the file is not whole, and cannot be taken for it: a CSV has no last row "# end", a workbook does not open.
// The log has an event export.written or export.broken with the number of rows, beside those that name each record. Errors: *authz.DeniedError, those of
// crm.Export.Take, and those of the writer.
func (a *App) WriteExport(ctx context.Context, c guard.Caller, id crm.UUID, open func(ExportFile) (io.WriteCloser, error), done func(rows int64)) (rows int64, err error) {
	v, err := a.Exports.Get(ctx, c, id)
	if err != nil {
		return 0, err
	}
	e := v.Value
	x, err := a.Exporter(e.RecordType)
	if err != nil {
		return 0, err
	}
	var columns []string
	if e.Chosen != "" {
		columns = strings.Split(e.Chosen, ",")
	}
	p, err := x.Plan(ctx, c, e.Filter, columns)
	if err != nil {
		return 0, err
	}
	var owed []authz.Obligation
	if unmet(c, p.Needs, authz.NeedStepUp) {
		owed = append(owed, authz.NeedStepUp)
	}
	if unmet(c, p.Needs, authz.NeedSecond) && e.State == crm.ExportOpen {
		owed = append(owed, authz.NeedSecond)
	}
	if len(owed) > 0 {
		return 0, &authz.DeniedError{Controls: []string{"access.granted"}, Unmet: owed}
	}
	c, canary, err := a.TakeExport(ctx, c, id, ExportDigest(e.RecordType, e.Filter, p.Columns), p.Rows)
	if err != nil {
		return 0, err
	}
	at := a.now().UTC()
	self, _ := crm.ParseUUID(c.Subject.ID)
	name := ""
	if who, err := a.Employee(ctx, self); err == nil && who != nil {
		name = who.Name.Expose()
	}
	sink := exportSink(e, open, ExportFile{Rows: p.Rows, Name: fmt.Sprintf("%s-%s-%s-%s", e.RecordType, at.Format("20060102T150405Z"), id.String()[24:], c.Subject.ID[24:])})
	written := int64(0)
	event := audit.Event{
		Action: "export.written", Activity: audit.Export, Outcome: audit.Allowed, Tenant: Tenant, Actor: c.Subject.ID, Session: c.Subject.Session,
		Targets: []audit.Target{{Type: crm.TypeExport, ID: id.String()}}, Note: e.RecordType,
	}
	defer func() {
		// Also when the one who reads is gone.
		if event.Count = rows; err != nil {
			event.Action, event.Outcome = "export.broken", audit.Failed
		}
		_, lost := a.Log.Append(context.WithoutCancel(ctx), event)
		err = errors.Join(err, lost)
	}()
	return x.Write(ctx, c, e.Filter, sink, ExportWrite{
		Columns: p.Columns, Canary: canary,
		Mark: []string{"# exported by", name, c.Subject.ID, "at", at.Format(time.RFC3339), "request", id.String(), "records", strconv.FormatInt(p.Rows, 10)},
		Done: func(n int64) {
			if written += n; done != nil {
				done(written)
			}
		},
	})
}

// lateSink is a sink that begins with its first row, and closes the file when it is whole.
type lateSink struct {
	begin func() (transfer.Sink, error)
	file  io.Closer
	transfer.Sink
}

func (s *lateSink) Write(cells []string) (err error) {
	if s.Sink == nil {
		if s.Sink, err = s.begin(); err != nil {
			return err
		}
	}
	return s.Sink.Write(cells)
}

func (s *lateSink) Close() error {
	if err := s.Sink.Close(); err != nil {
		return err
	}
	return s.file.Close()
}

func exportSink(e *crm.Export, open func(ExportFile) (io.WriteCloser, error), f ExportFile) *lateSink {
	f.Name, f.ContentType = f.Name+".csv", "text/csv; charset=utf-8"
	if e.Format == "xlsx" {
		f.Name, f.ContentType = strings.TrimSuffix(f.Name, "csv")+"xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	}
	s := &lateSink{}
	s.begin = func() (transfer.Sink, error) {
		w, err := open(f)
		if err != nil {
			return nil, err
		}
		s.file = w
		if e.Format == "xlsx" {
			return xlsx.NewSink(w)
		}
		return transfer.CSVSink(w), nil
	}
	return s
}

// MaxTrace is how long the text is that TraceExport looks into.
const MaxTrace = 1 << 20

// traces are what names an export in a file: ids, of records and requests, and addresses.
var traces = regexp.MustCompile(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[A-Za-z0-9.]+@[A-Za-z0-9.-]+`)

// TraceExport finds the exports that a text comes from, such as a row of a file that turned up somewhere: by the request's id in its first row, or by its made-up record. Who may
// read the log may ask; the answer is in the log. What is looked for is not: it may be anybody's.
func (a *App) TraceExport(ctx context.Context, c guard.Caller, text string) ([]*crm.Export, error) {
	if len(text) > MaxTrace {
		return nil, badExport("filter", "too_long")
	}
	if err := a.Guard.Authorize(ctx, c, authz.Read, "log"); err != nil {
		return nil, err
	}
	asked := map[string]bool{}
	for _, s := range traces.FindAllString(text, -1) {
		asked[strings.ToLower(s)] = true
	}
	var found []*crm.Export
	event := audit.Event{Action: "export.trace", Activity: audit.Search, Outcome: audit.Allowed, Tenant: Tenant, Actor: c.Subject.ID, Session: c.Subject.Session}
	if len(asked) > 0 {
		err := each(ctx, a.Exports, guard.Query{Sort: "created_at", Desc: true}, func(e *crm.Export) {
			hit := asked[e.ID.String()]
			if seed := e.Canary; !hit && seed.State() == crm.Clear && !seed.IsEmpty() {
				n := transfer.Canary{Seed: seed.Expose()}
				hit = asked[n.ID().String()] || asked[n.Value("email")]
			}
			if hit {
				x := *e
				found = append(found, &x)
				event.Targets = append(event.Targets, audit.Target{Type: crm.TypeExport, ID: e.ID.String()})
			}
		})
		if err != nil {
			return nil, err
		}
	}
	event.Count = int64(len(found))
	if _, err := a.Log.Append(ctx, event); err != nil {
		return nil, err
	}
	return found, nil
}
