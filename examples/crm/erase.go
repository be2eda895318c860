package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
)

func eraseCommand(c *app.Config) *cobra.Command {
	var typ, by, second, reason string
	cmd := &cobra.Command{
		Use: "erase ID", Short: "Erase the person of a record: nothing of them opens any more, wherever a copy lies", Args: cobra.ExactArgs(1),
		Long: "Erase the person of a record, and everybody whose record was merged with it. Their keys are blocked at once and destroyed after the grace: by crm purge, by the serving\n" +
			"process once a day, or when this is called again. A second employee, who may approve it, is named, and the log notes both.",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := crm.ParseUUID(args[0])
			switch {
			case err != nil:
				return err
			case !slices.Contains(app.EraseTypes, typ):
				return errors.New("--type is one of " + strings.Join(app.EraseTypes, ", "))
			case strings.TrimSpace(reason) == "":
				return errors.New("--reason says why, such as the request that it answers; the log keeps it sealed")
			case second == "":
				return app.ErrSecond
			}
			return once(cmd, c, func(a *app.App, out io.Writer) error {
				asker, err := a.Owner(cmd.Context(), by)
				if err != nil {
					return err
				}
				approver, err := a.Owner(cmd.Context(), second)
				if err != nil {
					return err
				}
				e, err := a.Erase(cmd.Context(), asker, approver, typ, id, reason)
				if err != nil {
					return err
				}
				printErasure(out, e)
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&typ, "type", crm.TypeCustomer, "of the record: "+strings.Join(app.EraseTypes, ", "))
	f.StringVar(&by, "by", "", "e-mail of the employee who erases (default: the administrator)")
	f.StringVar(&second, "approved-by", "", "e-mail of the second employee, who agreed")
	f.StringVar(&reason, "reason", "", "why they are erased")
	return cmd
}

// printErasure says what was done, by ids and times.
func printErasure(out io.Writer, e guard.Erasure) {
	for _, p := range e.Persons {
		fmt.Fprintf(out, "person %s\n", crm.UUID(p))
	}
	defer fmt.Fprintf(out, "event %d of the log announced it\n", e.Event)
	fmt.Fprintf(out, "%d records name them; %d numbers and addresses are on the list by which they are known again\n", e.Records, e.Marks)
	switch {
	case !e.Due.IsZero():
		fmt.Fprintf(out, "blocked: nothing of them opens from now on. The keys are destroyed after %s\n", e.Due.Format(time.RFC3339))
	case len(e.Keys) == 0:
		fmt.Fprintln(out, "there was no key of theirs left")
	default:
		fmt.Fprintf(out, "destroyed: %d keys, erasure number %d\n", len(e.Keys), e.Number)
	}
	if !e.GoneBy.IsZero() {
		fmt.Fprintf(out, "no copy of the keys opens any more by %s\n", e.GoneBy.Format(time.RFC3339))
	}
}
