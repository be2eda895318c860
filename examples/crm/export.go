package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
)

func exportCommand(c *app.Config) *cobra.Command {
	var o exporting
	cmd := &cobra.Command{
		Use: "export [TYPE]", Short: "Write the records of a type to a file, or find whose export a file is", Args: cobra.MaximumNArgs(1),
		Long: "Writes what an employee may export, through the same policy, masks, limits and approvals as the pages. Where somebody else has to approve, the request is stored and its\n" +
			"id printed; they approve it on the page of exports, and --request ID writes the file. Where the policy wants the password again, it is asked for, or read from standard input.\n" +
			"TYPE is one of: " + strings.Join(app.ExportTypes, ", ") + ".",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.in = cmd.InOrStdin()
			if len(args) == 1 {
				o.ask.Type = args[0]
			}
			if !cmd.Flags().Changed("format") && strings.HasSuffix(o.out, ".xlsx") {
				o.ask.Format = "xlsx"
			}
			if err := o.check(); err != nil {
				return err
			}
			return once(cmd, c, func(a *app.App, out io.Writer) error { return o.run(cmd.Context(), a, out) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.as, "as", "", "e-mail of the employee who exports")
	f.StringVar(&o.ask.Format, "format", "csv", "csv or xlsx")
	f.StringVar(&o.ask.Filter, "filter", "", "which records, such as show=mine or stage=new&city=Ulm")
	f.StringSliceVar(&o.ask.Columns, "columns", nil, "names of fields (default: all that they may have)")
	f.StringVar(&o.ask.Reason, "reason", "", "why; it is kept with the request")
	f.StringVar(&o.out, "out", "", "file that is made; one that exists is not touched")
	f.StringVar(&o.request, "request", "", "id of a request that was approved, in the place of TYPE")
	f.StringVar(&o.trace, "trace", "", "a row, an id or an address of a file that turned up; - reads it from standard input")
	return cmd
}

// exporting are the options of an export.
type exporting struct {
	ask                     app.ExportAsk
	as, out, request, trace string
	in                      io.Reader
}

func (o *exporting) check() error {
	switch {
	case o.as == "":
		return errors.New("--as says who exports")
	case o.trace != "":
		return nil
	case o.out == "":
		return errors.New("--out names the file")
	case (o.ask.Type == "") == (o.request == ""):
		return errors.New("either a TYPE or --request says what is exported")
	case o.request == "" && strings.TrimSpace(o.ask.Reason) == "":
		return errors.New("--reason says why")
	case o.ask.Format != "csv" && o.ask.Format != "xlsx":
		return errors.New("--format is csv or xlsx")
	}
	for _, name := range []string{o.out, o.part()} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			if err == nil && name == o.part() {
				return errors.New("beside --out there is what an export that was cut off has left, with the ending .part: remove it first")
			}
			return errors.New("--out is there already, or cannot be looked at")
		}
	}
	return nil
}

// part is where the file is written until it is whole.
func (o *exporting) part() string { return o.out + ".part" }

func (o *exporting) run(ctx context.Context, a *app.App, out io.Writer) error {
	who, err := a.Owner(ctx, o.as)
	if err != nil {
		return err
	}
	c, err := a.As(ctx, who, "crm")
	if err != nil {
		return err
	}
	if o.trace != "" {
		return o.find(ctx, a, c, out)
	}
	id, err := o.requested(ctx, a, &c)
	if err != nil {
		return err
	}
	v, err := a.Exports.Get(ctx, c, id)
	if err != nil {
		return err
	}
	if v.Value.State == crm.ExportRequested {
		fmt.Fprintf(out, "%d records; somebody else has to approve export %s on the page of exports.\nThen: crm export --request %s --as ADDRESS --out FILE\n", v.Value.Rows, id, id)
		return errors.New("nothing is written before the approval")
	}
	rows, err := o.write(ctx, a, &c, id, liner(out))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d records as %s, export %s\n", rows, v.Value.Format, id)
	return nil
}

// requested is the export to write. The password is asked for when the policy wants it.
func (o *exporting) requested(ctx context.Context, a *app.App, c *guard.Caller) (crm.UUID, error) {
	if o.request != "" {
		return crm.ParseUUID(o.request)
	}
	c.Met = append(c.Met, authz.NeedWatermark)
	e, err := a.AskExport(ctx, *c, o.ask)
	if needsPassword(err) {
		if err := o.prove(ctx, a, c); err != nil {
			return crm.UUID{}, err
		}
		e, err = a.AskExport(ctx, *c, o.ask)
	}
	if err != nil {
		return crm.UUID{}, err
	}
	return e.ID.UUID(), nil
}

func needsPassword(err error) bool {
	var denied *authz.DeniedError
	if !errors.As(err, &denied) {
		return false
	}
	for _, o := range denied.Unmet {
		if o == authz.NeedStepUp {
			return true
		}
	}
	return false
}

// prove asks for the password of the one who exports.
func (o *exporting) prove(ctx context.Context, a *app.App, c *guard.Caller) error {
	var password string
	if f, ok := o.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(os.Stderr, "password: ")
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(os.Stderr)
		if err != nil {
			return errors.New("the password cannot be read")
		}
		password = string(b)
	} else {
		line, err := bufio.NewReader(io.LimitReader(o.in, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) || line == "" {
			return errors.New("the policy wants the password for so many records: standard input has none")
		}
		password = strings.TrimRight(line, "\r\n")
	}
	if err := a.Prove(ctx, *c, o.as, password); err != nil {
		return err
	}
	c.Met = append(c.Met, authz.NeedStepUp)
	return nil
}

// partial is a file beside its name, which it gets when it is closed.
type partial struct {
	*os.File
	name string
}

// Close makes the file durable and names it. Unlike a renaming, that replaces nothing.
func (p *partial) Close() error {
	err := errors.Join(p.Sync(), p.File.Close())
	if err == nil {
		err = os.Link(p.File.Name(), p.name)
	}
	if err != nil {
		return errors.New("the file cannot be written, or has come there meanwhile")
	}
	return nil
}

// write writes the file. What is not whole is removed.
func (o *exporting) write(ctx context.Context, a *app.App, c *guard.Caller, id crm.UUID, show func(string)) (rows int64, err error) {
	var file *partial
	defer func() {
		if file != nil {
			file.File.Close()
			os.Remove(o.part())
		}
	}()
	var total int64
	said := time.Now()
	open := func(f app.ExportFile) (io.WriteCloser, error) {
		made, err := os.OpenFile(o.part(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, fmt.Errorf("the file cannot be made: %w", errors.Unwrap(err))
		}
		file, total = &partial{made, o.out}, f.Rows
		return file, nil
	}
	done := func(n int64) {
		if time.Since(said) > 200*time.Millisecond {
			said = time.Now()
			show(fmt.Sprintf("%d of %d records", n, total))
		}
	}
	if rows, err = a.WriteExport(ctx, *c, id, open, done); needsPassword(err) {
		if err = o.prove(ctx, a, c); err == nil {
			rows, err = a.WriteExport(ctx, *c, id, open, done)
		}
	}
	return rows, err
}

// find says whose export a text comes from.
func (o *exporting) find(ctx context.Context, a *app.App, c guard.Caller, out io.Writer) error {
	text := o.trace
	if text == "-" {
		b, err := io.ReadAll(io.LimitReader(o.in, app.MaxTrace))
		if err != nil {
			return errors.New("standard input cannot be read")
		}
		text = string(b)
	}
	found, err := a.TraceExport(ctx, c, text)
	if err != nil {
		return err
	}
	for _, e := range found {
		taken := "never taken"
		if !e.TakenAt.IsZero() {
			taken = "taken " + e.TakenAt.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(out, "export %s: %d records of type %s, by employee %s, %s\n", e.ID, e.Rows, e.RecordType, e.Owner, taken)
	}
	if len(found) == 0 {
		return errors.New("no export has this in its file")
	}
	return nil
}
