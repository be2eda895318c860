package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/crm/transfer/csvfile"
	"github.com/crmguard/crmguard/examples/crm/app"
)

func importCommand(c *app.Config) *cobra.Command {
	var o importing
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Store the records of a CSV file or a workbook", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			out := cmd.OutOrStdout()
			a, err := openApp(cmd.Context(), *c, out)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.Close()) }()
			if err := populate(cmd.Context(), a, out); err != nil {
				return err
			}
			return o.run(cmd.Context(), a, args[0], out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.owner, "owner", "", "e-mail of the employee in whose name it is done (default: the administrator)")
	f.StringVar(&o.typ, "type", crm.TypeCustomer, "what the rows are: "+strings.Join(app.ImportTypes, ", "))
	f.StringVar(&o.mapping, "mapping", "", "JSON file that says what the columns mean (default: what is suggested)")
	f.StringVar(&o.mode, "mode", string(transfer.Create), "create, update or both")
	f.StringVar(&o.key, "key", "", "field by which records are found, such as external_id")
	f.StringVar(&o.currency, "currency", "", "ISO 4217, of amounts without one")
	f.StringVar(&o.duplicates, "duplicates", app.WarnDuplicates, "what becomes of a row that is there already: refuse (when it is certain), warn or off")
	f.StringVar(&o.separator, "separator", "", "of CSV: comma, semicolon, tab or bar (default: found out)")
	f.StringVar(&o.encoding, "encoding", "", "of CSV, such as windows-1252 (default: found out)")
	f.StringVar(&o.sheet, "sheet", "", "of a workbook, by its name (default: the first)")
	f.StringArrayVar(&o.defaults, "default", nil, "FIELD=VALUE for cells that are empty")
	f.StringArrayVar(&o.replace, "replace", nil, "FIELD:WRONG=RIGHT, a value to be read as another")
	f.BoolVar(&o.dry, "dry-run", false, "do all of it and take it back")
	f.StringVar(&o.resume, "resume", "", "id of an import that was cut off, to go on with")
	f.StringVar(&o.undo, "undo", "", "id of an import to undo, of whatever type; FILE is not read (-)")
	return cmd
}

// importing are the options of an import.
type importing struct {
	owner, typ, mapping, mode, key, currency, encoding, separator, sheet, duplicates, resume, undo string
	defaults, replace                                                                              []string
	dry                                                                                            bool
}

func (o *importing) open(path string) (transfer.Source, string, func(), error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, "", nil, fmt.Errorf("the file cannot be opened: %w", errors.Unwrap(err))
	}
	comma, ok := app.Separators[o.separator]
	if !ok && o.separator != "" {
		file.Close()
		return nil, "", nil, csvfile.ErrOptions
	}
	src, encoding, err := app.OpenImport(file, app.FileOptions{Encoding: o.encoding, Comma: comma, Sheet: o.sheet})
	if err != nil {
		file.Close()
		return nil, "", nil, err
	}
	return src, encoding, func() {
		if x, ok := src.(io.Closer); ok {
			x.Close()
		}
		file.Close()
	}, nil
}

// suggest reads or suggests the mapping, and changes it as the flags say.
func (o *importing) suggest(path string, m app.Importing) (transfer.Mapping, error) {
	var mapping transfer.Mapping
	if o.mapping != "" {
		b, err := os.ReadFile(o.mapping)
		if err != nil {
			return mapping, fmt.Errorf("the mapping cannot be read: %w", errors.Unwrap(err))
		}
		if json.Unmarshal(b, &mapping) != nil {
			return mapping, errors.New("the mapping is no JSON of a mapping")
		}
	} else {
		src, _, done, err := o.open(path)
		if err != nil {
			return mapping, err
		}
		defer done()
		mapping = app.SuggestImport(src, m)
	}
	if o.key != "" {
		mapping.Key = o.key
	}
	if o.currency != "" {
		mapping.Currency = o.currency
		if slices.ContainsFunc(m.Fields(), func(f transfer.Field) bool { return f.Name == "currency" }) {
			o.defaults = append(o.defaults, "currency="+o.currency)
		}
	}
	for _, d := range o.defaults {
		field, value, ok := strings.Cut(d, "=")
		if !ok {
			return mapping, errors.New("a default is FIELD=VALUE")
		}
		if mapping.Default == nil {
			mapping.Default = map[string]string{}
		}
		mapping.Default[field] = value
	}
	for _, r := range o.replace {
		field, pair, _ := strings.Cut(r, ":")
		wrong, right, ok := strings.Cut(pair, "=")
		i := slices.IndexFunc(mapping.Columns, func(c transfer.Column) bool { return c.Field == field })
		if !ok || i < 0 {
			return mapping, errors.New("a replacement is FIELD:WRONG=RIGHT of a field that has a column")
		}
		if mapping.Columns[i].Replace == nil {
			mapping.Columns[i].Replace = map[string]string{}
		}
		mapping.Columns[i].Replace[wrong] = right
	}
	return mapping, app.Named(o.typ, mapping)
}

func (o *importing) run(ctx context.Context, a *app.App, path string, out io.Writer) error {
	owner, err := a.Owner(ctx, o.owner)
	if err != nil {
		return err
	}
	caller := app.System("import")
	if o.typ != crm.TypeCustomer && o.typ != crm.TypeEmployee || o.undo != "" || o.mode != string(transfer.Create) { // the program itself makes customers and employees only
		if caller, err = a.As(ctx, owner, "import"); err != nil {
			return err
		}
	}
	show := liner(out)
	var typed atomic.Int64
	start, already := time.Now(), int64(0)
	var undo crm.ID[transfer.Import]
	if o.undo != "" {
		if undo, err = crm.ParseID[transfer.Import](o.undo); err != nil {
			return err
		}
		job, err := a.Imports.Get(ctx, caller, undo.UUID())
		if err != nil {
			return err
		}
		o.typ = job.Value.RecordType // the import knows what its rows were
	}
	m, err := a.Importer(ctx, caller, o.typ, app.ImportOptions{Owner: owner, Duplicates: o.duplicates, AsTyped: &typed, Progress: func(n transfer.Counts) {
		show(fmt.Sprintf("stored %d of %d rows, %.0f rows/s", n.Created+n.Updated, n.Rows, rate(n.Rows-already, time.Since(start))))
	}})
	if err != nil {
		return err
	}
	if o.undo != "" {
		job, err := m.Undo(ctx, caller, undo)
		if err == nil {
			fmt.Fprintf(out, "%d records undone, %d left as somebody changed them\n", job.Undone, job.Left)
		}
		return err
	}
	rep := app.ImportReport{}
	job, rehearsed, err := o.file(ctx, caller, m, path, &rep, &already, out)
	rep.Took, rep.Typed = time.Since(start), typed.Load()
	switch {
	case job != nil:
		rep.Counts, rep.Reasons = job.Counts(), job.ByReason()
		if shown := m.Rejected(context.WithoutCancel(ctx), caller, job.ID, func(r transfer.Rejected) error {
			rep.Add(r)
			return nil
		}); shown != nil {
			err = errors.Join(err, shown)
		}
		if shown := m.Matched(context.WithoutCancel(ctx), caller, job.ID, func(x transfer.Matched) error {
			rep.AddSame(x)
			return nil
		}); shown != nil {
			err = errors.Join(err, shown)
		}
		if shown := m.Erased(context.WithoutCancel(ctx), caller, job.ID, func(x transfer.Erased) error {
			rep.AddErased(x)
			return nil
		}); shown != nil {
			err = errors.Join(err, shown)
		}
	case rehearsed != nil:
		for _, x := range rehearsed.Erased {
			rep.AddErased(x)
		}
		for _, x := range rehearsed.Matched {
			rep.AddSame(x)
		}
		rep.Counts, rep.Reasons = rehearsed.Counts, rehearsed.Reasons
		for _, r := range rehearsed.Rejected {
			rep.Add(r)
		}
	}
	printImport(out, rep, already)
	if err != nil {
		return err
	}
	if rep.Counts.Rejected > 0 {
		return fmt.Errorf("%d rows were not stored", rep.Counts.Rejected)
	}
	return nil
}

// file does what the options say with a file. already is how many rows an import that is gone on with had done.
func (o *importing) file(ctx context.Context, c guard.Caller, m app.Importing, path string, rep *app.ImportReport, already *int64, out io.Writer) (*transfer.Import, *transfer.Report, error) {
	var mapping transfer.Mapping
	if o.resume == "" {
		var err error
		if mapping, err = o.suggest(path, m); err != nil {
			return nil, nil, err
		}
		rep.Ignored = len(mapping.Ignored())
	}
	src, encoding, done, err := o.open(path)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	rep.Encoding = encoding
	switch {
	case o.resume != "":
		id, err := crm.ParseID[transfer.Import](o.resume)
		if err != nil {
			return nil, nil, err
		}
		job, err := m.Resume(ctx, c, id, src)
		return job, nil, err
	case o.dry:
		r, err := m.Rehearse(ctx, c, src, mapping, transfer.Mode(o.mode))
		return nil, &r, err
	}
	job, err := m.Begin(ctx, c, filepath.Base(path), src.Header(), mapping, transfer.Mode(o.mode))
	if err != nil {
		return nil, nil, err
	}
	fmt.Fprintf(out, "import %s\n", job.ID) // whoever is cut off goes on with it
	after, err := m.Resume(ctx, c, job.ID, src)
	if after != nil {
		job = after
	}
	return job, nil, err
}

func rate(n int64, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return float64(n) / took.Seconds()
}

func printImport(out io.Writer, r app.ImportReport, already int64) {
	fmt.Fprintf(out, "%d rows in (%s), %d stored, %d rejected, %d with a phone kept as typed, %.0f rows/s\n",
		r.Counts.Rows, r.Encoding, r.Counts.Created+r.Counts.Updated, r.Counts.Rejected, r.Typed, rate(r.Counts.Rows-already, r.Took))
	if r.Counts.Unchanged > 0 {
		fmt.Fprintf(out, "%d records had these values already\n", r.Counts.Unchanged)
	}
	if r.Counts.Matched > 0 {
		fmt.Fprintf(out, "%d rows were stored although there is such a record: line%s\n", r.Counts.Matched, listed(r.Same, r.Counts.Matched))
	}
	if r.Counts.Erased > 0 {
		fmt.Fprintf(out, "%d rows were stored although somebody with such a number was erased: line%s\n", r.Counts.Erased, listed(r.Gone, r.Counts.Erased))
	}
	if r.Counts.Unchecked > 0 {
		fmt.Fprintf(out, "%d rows were not checked for duplicates, or for people who were erased: enough was asked for this hour\n", r.Counts.Unchecked)
	}
	if r.Ignored > 0 {
		fmt.Fprintf(out, "columns not imported: %d\n", r.Ignored)
	}
	for _, row := range r.Rows {
		fmt.Fprintf(out, "  line %d: %s\n", row.Line, row.Reason)
	}
	if more := r.Counts.Rejected - int64(len(r.Rows)); more > 0 {
		fmt.Fprintf(out, "  and %d more\n", more)
	}
}

// listed writes the first lines of several.
func listed(lines []int64, all int64) string {
	s := ""
	if all > 1 {
		s = "s"
	}
	for i, n := range lines {
		if i > 0 {
			s += ","
		}
		s += fmt.Sprintf(" %d", n)
	}
	if more := all - int64(len(lines)); more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}
