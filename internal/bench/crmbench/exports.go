package crmbench

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing/fstest"
	"time"

	"github.com/xuri/excelize/v2"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/crm/transfer/xlsx"
)

// mostExported is how many customers an export is measured with.
const mostExported = 100_000

// exportColumns are those of the files, the id aside.
var exportColumns = []string{"owner", "team", "created_at", "name", "contact", "phone", "email", "stage", "open_value", "currency", "city", "country", "industry", "source", "external_id"}

// exports measures an export of customers through the policy, with masks, a canary and the log synced, beside the same rows by hand.
func (rep *Report) exports(ctx context.Context, g *rig, o Options) error {
	n := min(g.gen.rows, mostExported)
	policy, err := generous(ctx)
	if err != nil {
		return err
	}
	shipped := g.policy
	g.policy = policy
	defer func() { g.policy = shipped }()
	caller := g.admin()
	caller.Reason, caller.Met = "bench", []authz.Obligation{authz.NeedWatermark, authz.NeedStepUp, authz.NeedSecond}
	var q guard.Query
	if n < g.gen.rows { // of the sales person
		q.Clauses = []crm.Clause{{Column: "owner", Op: crm.Equal, Values: []crm.Value{crm.StringValue(employee(ours).String())}}}
	}
	statements, err := g.learn(ctx, func(r *guard.Records[*crm.Customer]) error {
		_, err := r.Export(ctx, caller, q, func(guard.Page[*crm.Customer]) error { return nil })
		return err
	})
	if err != nil {
		return err
	}
	customers, err := g.door(ctx, g.store, nil, g.files, "file")
	if err != nil {
		return err
	}
	for _, f := range []struct {
		work string
		bar  float64
		sink func(io.Writer) (transfer.Sink, error)
		hand func(io.Writer) (handFile, error)
	}{
		{"export as CSV", 20_000, func(w io.Writer) (transfer.Sink, error) { return transfer.CSVSink(w), nil }, handCSV},
		{"export as XLSX", 5_000, func(w io.Writer) (transfer.Sink, error) { return xlsx.NewSink(w) }, handXLSX},
	} {
		var ours, theirs []float64
		var ratios []float64
		heap := flat{pages: n / exportedPage}
		rows := int64(0)
		var synced time.Duration
		for range 3 {
			begin := time.Now()
			peer, err := g.byHand(ctx, statements, f.hand)
			if err != nil {
				return err
			}
			theirs = append(theirs, float64(peer)/time.Since(begin).Seconds())
			before := g.synced.Load()
			begin = time.Now()
			sink, err := f.sink(io.Discard)
			if err != nil {
				return err
			}
			canary := transfer.NewCanary("")
			heap.begin()
			rows, err = transfer.Export(ctx, caller, customers, q, sink, transfer.ExportOptions[*crm.Customer]{
				Columns: exportColumns, Cell: exportCell, Mark: []string{"# exported by", caller.Subject.ID}, Canary: &canary,
				Done: heap.look,
			})
			if err != nil {
				return err
			}
			ours = append(ours, float64(rows)/time.Since(begin).Seconds())
			synced = time.Duration(g.synced.Load() - before)
			ratios = append(ratios, ours[len(ours)-1]/theirs[len(theirs)-1])
			if peer != rows {
				return fmt.Errorf("%d rows by hand, %d by the export", peer, rows)
			}
		}
		slices.Sort(ours)
		slices.Sort(theirs)
		slices.Sort(ratios)
		rep.Figures = append(rep.Figures,
			Figure{Engine: g.engine, Work: f.work, Variant: "the same rows by hand", Peer: true, PerSecond: theirs[1]},
			Figure{Engine: g.engine, Work: f.work, Variant: fmt.Sprintf("guard, %d rows, log synced to file", rows), PerSecond: ours[1], Ratio: ratios[1],
				Note: fmt.Sprintf("of which log write and sync %s in all; heap in use %d MiB after a quarter, %d at the end", synced.Round(time.Millisecond), heap.first>>20, heap.second>>20)})
		rep.Bars = append(rep.Bars, Bar{Engine: g.engine, Name: f.work + ", rows a second", Have: ours[1], Want: f.bar, AtLeast: true})
		if rows >= 20_000 {
			rep.bar(g, f.work+", heap at the end beside that after a quarter", float64(heap.second)/float64(heap.first), 1.25, "")
		}
	}
	return nil
}

// flat looks whether memory grows with what has been written: what is in use after a quarter of the pages and after the last but one.
type flat struct {
	pages, seen   int
	first, second uint64
}

func (f *flat) begin() { f.seen = 0 }

func (f *flat) look(int64) {
	f.seen++
	early := f.seen == max(1, f.pages/4)
	if !early && f.seen != max(1, f.pages-1) {
		return
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if f.second = m.HeapAlloc; early {
		f.first = m.HeapAlloc
	}
}

// generous is the shipped policy with room for a hundred thousand rows.
func generous(ctx context.Context) (*rego.Engine, error) {
	files := fstest.MapFS{}
	err := fs.WalkDir(rego.Embedded(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, "_test.rego") && !strings.Contains(name, "tenant") { // some know the shipped numbers
			return err
		}
		b, err := fs.ReadFile(rego.Embedded(), name)
		if err == nil && name == "data.json" {
			var data map[string]map[string]any
			if err := json.Unmarshal(b, &data); err != nil {
				return err
			}
			data["settings"]["export"] = map[string]any{"rows": map[string]any{"admin": mostExported}, "step_up_rows": 500, "approval_rows": 1000}
			b, err = json.Marshal(data)
		}
		files[name] = &fstest.MapFile{Data: b}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rego.New(ctx, &rego.Options{Policy: files})
}

// exportCell is a cell of the file.
func exportCell(v *guard.View[*crm.Customer], column string) string {
	c := v.Value
	switch column {
	case "owner":
		return c.Owner.String()
	case "team":
		return c.Team
	case "created_at":
		return c.CreatedAt.UTC().Format(time.RFC3339)
	case "name":
		return c.Name.Expose()
	case "contact":
		return c.Contact.Expose()
	case "phone":
		return c.Phone.Expose()
	case "email":
		return c.Email.Expose()
	case "stage":
		return string(c.Stage)
	case "open_value":
		return strconv.FormatInt(c.OpenValue, 10)
	case "currency":
		return c.Currency
	case "city":
		return c.City
	case "country":
		return c.Country
	case "industry":
		return c.Industry
	case "source":
		return c.Source
	}
	return c.ExternalID
}

// handFile is a file as a program without protection writes it.
type handFile struct {
	write func(row []string) error
	end   func() error
}

func handCSV(w io.Writer) (handFile, error) {
	c := csv.NewWriter(w)
	return handFile{c.Write, func() error { c.Flush(); return c.Error() }}, nil
}

func handXLSX(w io.Writer) (handFile, error) {
	f := excelize.NewFile()
	s, err := f.NewStreamWriter("Sheet1")
	if err != nil {
		return handFile{}, err
	}
	row := 0
	var cells []any
	return handFile{func(in []string) error {
		row++
		cells = cells[:0]
		for _, c := range in {
			cells = append(cells, c)
		}
		return s.SetRow("A"+strconv.Itoa(row), cells)
	}, func() error {
		if err := s.Flush(); err != nil {
			return err
		}
		defer f.Close()
		return f.Write(w)
	}}, nil
}

// byHand makes the queries of an export on the bare tables and writes as many cells: what is sealed is there as a text of a usual length, as if it had been in the clear.
func (g *rig) byHand(ctx context.Context, statements []statement, begin func(io.Writer) (handFile, error)) (int64, error) {
	file, err := begin(io.Discard)
	if err != nil {
		return 0, err
	}
	n := int64(0)
	var cells []string
	for _, s := range statements {
		if !strings.Contains(s.text, "body") { // the count
			var count int64
			if err := g.r.QueryRowContext(ctx, s.text, s.args...).Scan(&count); err != nil {
				return n, err
			}
			continue
		}
		rows, err := bare(ctx, g.r, g.schema, s)
		if err != nil {
			return n, err
		}
		for i := range rows[:min(len(rows), exportedPage)] { // one more says that there are more
			cells = append(cells[:0], crm.UUID(rows[i].id).String())
			for k := 0; len(cells) < len(exportColumns)-3; k++ {
				text := ""
				if k < len(rows[i].texts) {
					text = rows[i].texts[k].String
				} else if k-len(rows[i].texts) < len(rows[i].numbers) {
					text = strconv.FormatInt(rows[i].numbers[k-len(rows[i].texts)].Int64, 10)
				}
				cells = append(cells, text)
			}
			for len(cells) <= len(exportColumns) {
				cells = append(cells, "+86 138 0013 8000")
			}
			if err := file.write(cells); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, file.end()
}

// exportedPage is how many rows guard reads at once in an export.
const exportedPage = 500
