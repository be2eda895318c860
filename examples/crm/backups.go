package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/drill"
	"github.com/crmguard/crmguard/backup/policy"
	"github.com/crmguard/crmguard/backup/schedule"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
)

func backupProgress(out io.Writer) func(backup.Progress) {
	show := liner(out)
	var last time.Time
	return func(p backup.Progress) {
		if time.Since(last) > 500*time.Millisecond {
			last = time.Now()
			line := fmt.Sprintf("%d rows, %s", p.Rows, size(p.Bytes))
			if took := time.Since(p.Began).Seconds(); took > 0 {
				line += fmt.Sprintf(", %s a second", size(int64(float64(p.Bytes)/took)))
			}
			if left, ok := p.Left(time.Now()); ok {
				line += fmt.Sprintf(", %d %%, about %s left", min(99, 100*p.Rows/p.Total), left.Round(time.Second))
			}
			show(line + ", now " + p.Table)
		}
	}
}

func backupCommand(c *app.Config) *cobra.Command {
	var incremental bool
	var keep string
	cmd := &cobra.Command{
		Use: "backup", Short: "Write a backup; may run beside serve. Its subcommands look after the backups", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			start := time.Now()
			var retention policy.Retention
			if keep != "" {
				var err error
				if retention, err = app.ParseRetention(keep); err != nil {
					return err
				}
			}
			var chain *policy.Chain
			if incremental {
				chain = &policy.Chain{}
			}
			s, err := app.Backup(cmd.Context(), *c, chain, backupProgress(out))
			if errors.Is(err, backup.ErrAnomaly) {
				return fmt.Errorf("snapshot %s is written, and unusual; look at it, then crm backup accept %s: %w", s.ID, s.ID, err)
			}
			if err != nil {
				return err
			}
			kind := "full"
			if s.Depth > 0 {
				kind = fmt.Sprintf("on %d before", s.Depth)
			}
			fmt.Fprintf(out, "snapshot %s: %d rows, %s of rows in %s of objects, written and read back in %.1f s\n",
				s.ID, s.Rows, size(s.Bytes), size(s.Stored), time.Since(start).Seconds())
			if incremental || s.Depth > 0 {
				fmt.Fprintln(out, "it is "+kind)
			}
			if !s.Locked.IsZero() {
				fmt.Fprintln(out, "it is locked until", s.Locked.Format(time.RFC3339))
			}
			fmt.Fprintln(out, "opens with recovery.key, which belongs somewhere else than this host")
			if st, err := app.Status(cmd.Context(), *c, nil); err == nil && len(c.BackupCopies) > 0 {
				for _, p := range st.Facts.Places {
					if p.Fault != "" || !p.Behind.IsZero() {
						fmt.Fprintf(out, "WARNING: %s lacks it: %s; the next backup tries again\n", p.Name, cmp.Or(p.Fault, "it is behind"))
					}
				}
			}
			if keep == "" {
				return nil
			}
			p, err := app.PruneBackups(cmd.Context(), *c, retention)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%d snapshots are kept, %d more will be deleted, %d were deleted (%s), %d objects are locked\n",
				len(p.Kept), len(p.Condemned), len(p.Removed), size(p.Bytes), len(p.Locked))
			return nil
		},
	}
	cmd.AddCommand(backupList(c), backupStatus(c), backupHeal(c), backupAccept(c), backupKey(c), backupRevert(c))
	cmd.Flags().BoolVar(&incremental, "incremental", false, "hold only what changed since the backup before; a full one each week")
	cmd.Flags().StringVar(&keep, "keep", "", "then give up what is not kept, such as last=3,daily=7,weekly=4,monthly=12; it is deleted a day later")
	return cmd
}

func restoreCommand(c *app.Config) *cobra.Command {
	var recovery, at, folder, database string
	var older, keysOnly bool
	cmd := &cobra.Command{
		Use: "restore [SNAPSHOT]", Short: "Restore a backup (the newest) into an empty database", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			id := ""
			if len(args) == 1 {
				id = args[0]
			}
			if at != "" {
				moment, err := time.Parse(time.RFC3339, at)
				if err != nil || id != "" {
					return errors.New("--at takes a time such as 2026-03-01T12:00:00Z, and no snapshot beside it")
				}
				if id, err = app.SnapshotAt(cmd.Context(), *c, moment, older); err != nil {
					return err
				}
			}
			if folder == "" && database != "" || folder != "" && keysOnly {
				return errors.New("--sandbox takes a folder, --sandbox-db goes with it and --keys does not")
			}
			if folder != "" {
				start := time.Now()
				s, logins, err := app.Sandbox(cmd.Context(), *c, app.SandboxOptions{
					Into: folder, DB: database, Snapshot: id, Recovery: recovery, Older: older,
				}, backupProgress(out))
				if err != nil {
					return err
				}
				fmt.Fprintf(out, "sandbox of snapshot %s of %s: %d rows read, %.1f s; persons and texts in it are invented\n", s.ID, s.Created.Format(time.RFC3339), s.Rows, time.Since(start).Seconds())
				printLogins(out, logins)
				return nil
			}
			if keysOnly {
				if id != "" || at != "" {
					return errors.New("--keys takes the newest key shards, and no snapshot beside it")
				}
				if err := app.RestoreKeys(cmd.Context(), *c, recovery, older); err != nil {
					return err
				}
				fmt.Fprintln(out, "the newest key shards are in the database; who was erased is erased here too")
				return nil
			}
			start := time.Now()
			s, err := app.Restore(cmd.Context(), *c, id, recovery, older, backupProgress(out))
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "restored snapshot %s of %s: %d rows, %.1f s\n", s.ID, s.Created.Format(time.RFC3339), s.Rows, time.Since(start).Seconds())
			return nil
		},
	}
	cmd.Flags().StringVar(&recovery, "recovery-key", "", "file of the key that opens backups (default DATA/recovery.key)")
	cmd.Flags().BoolVar(&older, "older", false, "take what is there although the log knows a newer backup")
	cmd.Flags().BoolVar(&keysOnly, "keys", false, "put only the newest key shards into a database that has its rows")
	cmd.Flags().StringVar(&folder, "sandbox", "", "make a new data folder with a CRM that has no real person in it instead; the one here is left alone")
	cmd.Flags().StringVar(&database, "sandbox-db", "", "postgres:// URL of an empty database for it, where the backup is of PostgreSQL")
	cmd.Flags().StringVar(&at, "at", "", "the newest backup that was made at this time or before, such as 2026-03-01T12:00:00Z")
	return cmd
}

func backupRevert(c *app.Config) *cobra.Command {
	var o app.RevertOptions
	var at, as string
	var apply bool
	cmd := &cobra.Command{
		Use: "revert TYPE ID", Short: "Show in which fields a record differs from a backup and, with --apply, give it those of then", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			o.Type = args[0]
			if o.ID, err = crm.ParseUUID(args[1]); err != nil {
				return errors.New("ID is the identifier in the address of the record's page")
			}
			if at != "" {
				moment, err := time.Parse(time.RFC3339, at)
				if err != nil || o.Snapshot != "" {
					return errors.New("--at takes a time such as 2026-03-01T12:00:00Z, and no --snapshot beside it")
				}
				if o.Snapshot, err = app.SnapshotAt(cmd.Context(), *c, moment, o.Older); err != nil {
					return err
				}
			}
			return once(cmd, c, func(a *app.App, out io.Writer) error {
				who, err := a.Owner(cmd.Context(), as)
				if err != nil {
					return err
				}
				subject, err := a.Subject(cmd.Context(), who.ID.UUID())
				if err != nil {
					return err
				}
				caller := guard.Caller{Subject: subject, Environment: authz.Environment{Time: time.Now(), Purpose: "crm"}}
				plan, do, err := a.Revert(cmd.Context(), caller, o)
				if err != nil {
					return err
				}
				for _, s := range plan {
					fmt.Fprintf(out, "%s %s: version %d, then %d: ", s.Type, s.ID, s.Now, s.Then)
					switch {
					case len(s.Fields) == 0:
						fmt.Fprint(out, "nothing to write")
					default:
						fmt.Fprint(out, strings.Join(s.Fields, ", "))
					}
					if s.InBin {
						fmt.Fprint(out, "; comes out of the recycle bin")
					}
					fmt.Fprintln(out)
				}
				if !apply {
					fmt.Fprintln(out, "nothing is written; --apply does it")
					return nil
				}
				event, err := do(cmd.Context())
				if err != nil {
					return err
				}
				fmt.Fprintf(out, "written, event %d\n", event)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&o.Snapshot, "snapshot", "", "the backup (default the newest)")
	cmd.Flags().StringVar(&at, "at", "", "the newest backup that was made at this time or before, such as 2026-03-01T12:00:00Z")
	cmd.Flags().StringSliceVar(&o.Fields, "field", nil, "only these fields of the record")
	cmd.Flags().BoolVar(&o.Related, "related", false, "also what belongs to it: contacts, quotes, contracts, tickets")
	cmd.Flags().BoolVar(&apply, "apply", false, "write it, in one transaction")
	cmd.Flags().StringVar(&as, "as", "", "e-mail address of the employee in whose name and with whose rights (default the first administrator)")
	cmd.Flags().StringVar(&o.Recovery, "recovery-key", "", "file of the key that opens backups (default DATA/recovery.key)")
	cmd.Flags().BoolVar(&o.Older, "older", false, "take what is there although the log knows a newer backup")
	return cmd
}

// verifyBackups reads every place of the backups by itself.
func verifyBackups(ctx context.Context, c *app.Config, recovery string, out io.Writer) error {
	places, err := c.BackupPlaces()
	if err != nil {
		return err
	}
	var failed error
	for _, p := range places {
		what := "backups"
		if len(places) > 1 {
			what += " in " + p.Name
		}
		if err := verifyPlace(ctx, &p.Config, recovery, what, out); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

func verifyPlace(ctx context.Context, c *app.Config, recovery, what string, out io.Writer) error {
	rep, err := app.VerifyBackups(ctx, *c, recovery)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	word := "compared with their digests"
	switch {
	case len(rep.Faults) > 0:
		word = fmt.Sprintf("read, %d FAULTS", len(rep.Faults))
	case rep.Opened:
		word = "opened"
	}
	fmt.Fprintf(out, "%s: %d snapshots, %d objects, %s %s\n", what, rep.Snapshots, rep.Objects, size(rep.Bytes), word)
	if rep.Overdue > 0 {
		fmt.Fprintf(out, "%d sets of key shards should be deleted by now; the next backup tries\n", rep.Overdue)
	}
	return rep.Err()
}

func backupList(c *app.Config) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the backups, oldest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := app.Snapshots(cmd.Context(), *c)
			for _, s := range all {
				var notes []string
				if s.Depth > 0 {
					notes = append(notes, fmt.Sprintf("on %d before", s.Depth))
				}
				if !s.Locked.IsZero() {
					notes = append(notes, "locked until "+s.Locked.Format(time.RFC3339))
				}
				if len(s.Anomalies) > 0 {
					notes = append(notes, fmt.Sprintf("%d anomalies", len(s.Anomalies)))
				}
				if !s.Condemned.IsZero() {
					notes = append(notes, "will be deleted")
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  number %d  %d rows  %s  %s\n", s.ID, s.Created.Format(time.RFC3339), s.Head.Number, s.Rows,
					size(s.Stored), strings.Join(notes, ", "))
			}
			return err
		},
	}
}

var errDrill = errors.New("the drill failed")

func drillCommand(c *app.Config) *cobra.Command {
	var o app.DrillOptions
	var every time.Duration
	cmd := &cobra.Command{
		Use: "drill", Short: "Restore a backup into a scratch database, check it, throw it away and keep a signed report", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			once := func(ctx context.Context) error {
				rep, path, err := app.Drill(ctx, *c, o)
				if err != nil {
					return err
				}
				printDrill(out, rep)
				fmt.Fprintln(out, "report:", path)
				fmt.Fprintln(out, "check it anywhere with: crm drill check", path)
				if !rep.Passed {
					return errDrill
				}
				return nil
			}
			if every == 0 {
				return once(cmd.Context())
			}
			job := &schedule.Job{
				Name: "drill", Schedule: policy.Schedule{Every: every},
				Last: func(context.Context) (time.Time, error) { return app.LastDrill(*c) },
				Run: func(ctx context.Context) error {
					if err := once(ctx); !errors.Is(err, errDrill) {
						return err
					}
					fmt.Fprintln(out, "crm:", errDrill) // its report says so, and so does crm backup status; the next one comes in its time
					return nil
				},
				Told: func(missed int, err error) {
					if missed > 0 {
						fmt.Fprintf(out, "%d drills were missed\n", missed)
					}
					if err != nil {
						fmt.Fprintln(out, "crm:", err)
					}
				},
			}
			if err := job.Loop(cmd.Context()); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&every, "every", 0, "go on until stopped, one as often as this, such as 168h (default: one, now)")
	cmd.Flags().StringVar(&o.Recovery, "recovery-key", "", "file of the key that opens backups (default DATA/recovery.key)")
	cmd.Flags().StringVar(&o.Snapshot, "snapshot", "", "the one to restore (default the newest)")
	cmd.Flags().BoolVar(&o.Random, "random", false, "any that is kept")
	cmd.Flags().DurationVar(&o.Limit, "limit", 0, "longest time that the restore may take (default: the plan's recovery time objective)")
	var pin string
	check := &cobra.Command{
		Use: "check REPORT", Short: "Verify the report of a drill with the public key of the backups", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			rep, err := app.CheckDrill(*c, args[0], pin)
			if err != nil {
				return err
			}
			printDrill(cmd.OutOrStdout(), rep)
			if !rep.Passed {
				return errors.New("the report is authentic, and the drill failed")
			}
			fmt.Fprintln(cmd.OutOrStdout(), "the report is authentic")
			return nil
		},
	}
	check.Flags().StringVar(&pin, "public-key", "", "file of that key (default DATA/backup-signing.pub)")
	cmd.AddCommand(check)
	return cmd
}

func printDrill(out io.Writer, r *drill.Report) {
	word := "PASSED"
	if !r.Passed {
		word = "FAILED"
	}
	if r.Snapshot == "" {
		fmt.Fprintf(out, "drill of %s: %s: there was nothing to restore\n", r.Started.Format(time.RFC3339), word)
	} else {
		fmt.Fprintf(out, "drill of %s: %s: snapshot %s of %s, %d rows, restored in %.1f s\n", r.Started.Format(time.RFC3339), word, r.Snapshot,
			r.Created.Format(time.RFC3339), r.Rows, r.Restored)
	}
	for _, s := range r.Steps {
		state := "ok"
		if !s.Passed {
			state = "FAILED: " + s.Fault
		}
		fmt.Fprintf(out, "  %-10s %6.1f s  %s\n", s.Name, s.Seconds, state)
	}
}

func backupStatus(c *app.Config) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Hold the backups against the plan: age, copies, drills", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := app.Status(cmd.Context(), *c, nil)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if s.Facts.Newest.IsZero() {
				fmt.Fprintln(out, "there is no backup")
			} else {
				fmt.Fprintln(out, "newest:", s.Facts.Newest.Format(time.RFC3339))
			}
			for _, p := range s.Facts.Places {
				state := "has everything"
				switch {
				case p.Fault != "":
					state = p.Fault
				case !p.Behind.IsZero():
					state = "lacks what is newer than " + p.Behind.Format(time.RFC3339)
				}
				fmt.Fprintf(out, "  %s: %s\n", p.Name, state)
			}
			for _, f := range s.Findings {
				word := "met   "
				if !f.Met {
					word = "MISSED"
				}
				fmt.Fprintf(out, "%s %-9s want %s, have %s\n", word, f.Rule, f.Want, f.Have)
			}
			if !s.OK() {
				return errors.New("the backups are not as they should be")
			}
			return nil
		},
	}
}

func backupHeal(c *app.Config) *cobra.Command {
	return &cobra.Command{
		Use: "heal", Short: "Write anew what is damaged or missing in one place of the backups, from the others", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := app.Heal(cmd.Context(), *c)
			left := 0
			for _, name := range slices.Sorted(maps.Keys(done)) {
				h := done[name]
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %d objects written anew (%s)\n", name, len(h.Objects), size(h.Bytes))
				for _, f := range h.Faults {
					left++
					fmt.Fprintln(cmd.OutOrStdout(), " ", f)
				}
			}
			if err != nil {
				return err
			}
			if len(done) == 0 {
				return errors.New("there is one place only; give others with --backup-copy and --backup-keys-copy")
			}
			if left > 0 {
				return fmt.Errorf("%d objects could not be healed", left)
			}
			return nil
		},
	}
}

func backupAccept(c *app.Config) *cobra.Command {
	return &cobra.Command{
		Use: "accept SNAPSHOT", Short: "Say that the unusual changes of a backup are right, so that pruning goes on", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := app.AcceptBackup(cmd.Context(), *c, args[0]); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "accepted:", args[0])
			return nil
		},
	}
}

func backupKey(c *app.Config) *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "The key that opens backups"}
	var recovery string
	var needed, shares int
	split := &cobra.Command{
		Use: "split", Short: "Print shares of the key, for several persons to keep on paper", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := app.SplitKey(*c, recovery, needed, shares)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "Any %d of these %d shares give the key back. They are printed now and kept nowhere.\n", needed, shares)
			for i, s := range all {
				fmt.Fprintf(out, "\nshare %d\n%s\n", i+1, s)
			}
			return nil
		},
	}
	split.Flags().StringVar(&recovery, "recovery-key", "", "file of the key (default DATA/recovery.key)")
	split.Flags().IntVar(&needed, "needed", 3, "how many shares give it back")
	split.Flags().IntVar(&shares, "shares", 5, "how many there are")
	join := &cobra.Command{
		Use: "join FILE", Short: "Read shares from standard input, one a line, and write the key to a new file", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var all []string
			for lines := bufio.NewScanner(cmd.InOrStdin()); lines.Scan(); {
				if line := strings.TrimSpace(lines.Text()); strings.HasPrefix(line, "crmguard-") {
					all = append(all, line)
				}
			}
			key, err := backupkey.Join(all)
			if err != nil {
				return err
			}
			if err := key.WriteFile(args[0]); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "key", key.Public().ID(), "written to", args[0])
			return nil
		},
	}
	var old string
	add := &cobra.Command{
		Use: "replace", Short: "Make a new key; it opens all backups, and later ones are sealed to it only", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := app.ReplaceKey(cmd.Context(), *c, old)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "new key %s in %s: it opens %d snapshots and key sets\nthe old key %s goes on opening %d snapshots until they are pruned\n",
				r.Key, r.File, r.Added, r.Old, r.Opens)
			return nil
		},
	}
	add.Flags().StringVar(&old, "recovery-key", "", "file of the old key (default DATA/recovery.key)")
	cmd.AddCommand(split, join, add)
	return cmd
}
