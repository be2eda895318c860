package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
)

func dedupeCommand(c *app.Config) *cobra.Command {
	var o deduping
	cmd := &cobra.Command{
		Use: "dedupe [KEEP DROP]", Short: "Find records that are one thing, merge two of them, or take a merge back", Args: cobra.MaximumNArgs(2),
		Long: "Find records that are one thing: each pair is printed as two ids, likely or certain, a score and the fields that agree, never their values.\n" +
			"With --merge KEEP DROP makes one record of two: KEEP stays, with the fields that --keep names taken from DROP.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(args); err != nil {
				return err
			}
			return once(cmd, c, func(a *app.App, out io.Writer) error {
				return o.run(cmd.Context(), a, args, out, liner(cmd.ErrOrStderr()))
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.typ, "type", crm.TypeCustomer, "whose duplicates: "+strings.Join(app.DuplicateTypes, ", "))
	f.BoolVar(&o.merge, "merge", false, "merge the records KEEP and DROP")
	f.StringArrayVar(&o.keep, "keep", nil, "FIELD=DROP, a field that KEEP takes of DROP, by its id; FIELD=KEEP, which it does anyway, is allowed")
	f.StringVar(&o.undo, "undo", "", "id of a merge to take back")
	f.BoolVar(&o.resume, "resume", false, "end merges and undoings that were cut off; every start of the program does")
	f.StringVar(&o.as, "as", "", "e-mail address of the employee in whose name and with whose rights (default the first administrator)")
	return cmd
}

// deduping are the options of dedupe.
type deduping struct {
	typ, undo, as string
	keep          []string
	merge, resume bool
}

// check refuses what cannot be meant.
func (o *deduping) check(args []string) error {
	acts := 0
	for _, set := range []bool{o.merge, o.undo != "", o.resume} {
		if set {
			acts++
		}
	}
	switch {
	case !slices.Contains(app.DuplicateTypes, o.typ):
		return errors.New("--type takes " + strings.Join(app.DuplicateTypes, ", "))
	case acts > 1:
		return errors.New("--merge, --undo and --resume do not go together")
	case o.merge != (len(args) == 2) || len(args) == 1:
		return errors.New("--merge takes the ids of two records, and nothing else does")
	case !o.merge && len(o.keep) > 0:
		return errors.New("--keep goes with --merge")
	}
	return nil
}

func (o *deduping) run(ctx context.Context, a *app.App, args []string, out io.Writer, show func(string)) error {
	if o.resume {
		n, err := a.ResumeMerges(ctx)
		fmt.Fprintf(out, "%d merges and undoings were ended\n", a.Resumed+n)
		return err
	}
	who, err := a.Owner(ctx, o.as)
	if err != nil {
		return err
	}
	caller, err := a.As(ctx, who, "dedupe")
	if err != nil {
		return err
	}
	d := a.Duplicates.Deduping(o.typ)
	switch {
	case o.merge:
		return o.mergeTwo(ctx, a, d, caller, args, out)
	case o.undo != "":
		return undoMerge(ctx, a, caller, o.undo, out)
	}
	rep, err := d.All(ctx, caller, &guard.AlikeOptions{Progress: func(done, total int64) {
		if done%10_000 == 0 || done == total {
			show(fmt.Sprintf("%d of %d", done, total))
		}
	}}, func(p guard.Pair) error {
		_, err := fmt.Fprintf(out, "%s %s %s %.2f %s\n", p.A, p.B, p.Band, p.Score, strings.Join(p.Why, ", "))
		return err
	})
	fmt.Fprintf(out, "%d records, %d pairs compared: %d certain, %d likely; %d blocks left out as too large\n", rep.Rows, rep.Compared, rep.Certain, rep.Likely, rep.Large)
	return err
}

// choice reads which fields are taken of the record that goes.
func (o *deduping) choice(keep, drop crm.UUID) (dedupe.Choice, error) {
	var out dedupe.Choice
	for _, k := range o.keep {
		field, of, _ := strings.Cut(k, "=")
		id, err := crm.ParseUUID(of)
		switch {
		case field == "" || err != nil || id != keep && id != drop:
			return nil, errors.New("--keep takes FIELD=ID, with one of the two ids")
		case id == drop:
			out = append(out, field)
		}
	}
	return out, nil
}

func (o *deduping) mergeTwo(ctx context.Context, a *app.App, d app.Deduping, c guard.Caller, args []string, out io.Writer) error {
	var targets [2]dedupe.Target
	for i, arg := range args {
		id, err := crm.ParseUUID(arg)
		if err != nil {
			return errors.New("KEEP and DROP are the identifiers in the addresses of the records' pages")
		}
		version, err := a.VersionOf(ctx, c, o.typ, id)
		if err != nil {
			return err
		}
		targets[i] = dedupe.Target{ID: id, Version: version}
	}
	choice, err := o.choice(targets[0].ID, targets[1].ID)
	if err != nil {
		return err
	}
	m, err := d.Merge(ctx, c, targets[0], targets[1], choice)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is part of %s; merge %s\n", m.Dropped, m.Kept, m.ID)
	if n := m.SharesEnded(); n > 0 {
		fmt.Fprintf(out, "%d shares of %s ended; nobody sees %s by them\n", n, m.Dropped, m.Kept)
	}
	return nil
}

func undoMerge(ctx context.Context, a *app.App, c guard.Caller, text string, out io.Writer) error {
	id, err := crm.ParseUUID(text)
	if err != nil {
		return errors.New("--undo takes the id of a merge")
	}
	v, err := a.Merges.Get(ctx, c, id)
	if err != nil {
		return err
	}
	done, err := a.Duplicates.Deduping(v.Value.RecordType).Undo(ctx, c, id)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "undone: fields as before: %s; changed since and left: %s; %d records refer to %s again\n", named(done.Fields), named(done.Changed), done.Moved, v.Value.Dropped)
	if done.Shared > 0 {
		fmt.Fprintf(out, "%d shares of it count again\n", done.Shared)
	}
	for _, r := range done.Stayed {
		fmt.Fprintf(out, "  stays where it is: %s %s\n", r.Type, r.ID)
	}
	return nil
}

// named lists names of fields.
func named(fields []string) string {
	if len(fields) == 0 {
		return "none"
	}
	return strings.Join(fields, ", ")
}
