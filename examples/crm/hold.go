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
	"github.com/crmguard/crmguard/crm/privacy"
	"github.com/crmguard/crmguard/examples/crm/app"
)

func holdCommand(c *app.Config) *cobra.Command {
	cmd := &cobra.Command{
		Use: "hold", Short: "Keep people from being erased while a lawsuit or an authority wants them kept",
		Long: "While a legal hold is on, the person is not erased and their records are not purged, whoever asks. One employee puts it on; two lift it.",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(holdPut(c), holdLift(c), holdList(c))
	return cmd
}

func holdPut(c *app.Config) *cobra.Command {
	var typ, by, reason string
	cmd := &cobra.Command{
		Use: "put ID", Short: "Put a hold on the person of a record, and everybody whose record was merged with it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := crm.ParseUUID(args[0])
			switch {
			case err != nil:
				return err
			case !slices.Contains(app.EraseTypes, typ):
				return errors.New("--type is one of " + strings.Join(app.EraseTypes, ", "))
			case strings.TrimSpace(reason) == "":
				return errors.New("--reason says why, such as the file number of the lawsuit; it is kept sealed")
			}
			return once(cmd, c, func(a *app.App, out io.Writer) error {
				owner, err := a.Owner(cmd.Context(), by)
				if err != nil {
					return err
				}
				caller, err := a.As(cmd.Context(), owner, "hold")
				if err != nil {
					return err
				}
				h := &privacy.Hold{RecordType: typ, Record: id, Reason: crm.NewText(reason)}
				if err := a.PutHold(cmd.Context(), caller, h); err != nil {
					return err
				}
				fmt.Fprintf(out, "hold %s\nperson %s\n", h.ID, h.Subject)
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&typ, "type", crm.TypeCustomer, "of the record: "+strings.Join(app.EraseTypes, ", "))
	f.StringVar(&by, "by", "", "e-mail of the employee who puts it on (default: the administrator)")
	f.StringVar(&reason, "reason", "", "why they are held")
	return cmd
}

func holdLift(c *app.Config) *cobra.Command {
	var by, second, reason string
	cmd := &cobra.Command{
		Use: "lift HOLD", Short: "Lift a hold, as two employees agreed", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := crm.ParseUUID(args[0])
			switch {
			case err != nil:
				return err
			case strings.TrimSpace(reason) == "":
				return errors.New("--reason says why it ends; it is kept sealed")
			case second == "":
				return app.ErrSecond
			}
			return once(cmd, c, func(a *app.App, out io.Writer) error {
				asker, err := a.Owner(cmd.Context(), by)
				if err != nil {
					return err
				}
				other, err := a.Owner(cmd.Context(), second)
				if err != nil {
					return err
				}
				if err := a.LiftHold(cmd.Context(), asker, other, id, reason); err != nil {
					return err
				}
				fmt.Fprintf(out, "hold %s lifted\n", id)
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&by, "by", "", "e-mail of the employee who asks for its end (default: the administrator)")
	f.StringVar(&second, "approved-by", "", "e-mail of the second employee, who agreed: neither who asks nor who put it on")
	f.StringVar(&reason, "reason", "", "why it ends")
	return cmd
}

func holdList(c *app.Config) *cobra.Command {
	var as string
	var all bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the holds: whom they are about, who put them on, when and why", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return once(cmd, c, func(a *app.App, out io.Writer) error {
				who, err := a.Owner(cmd.Context(), as)
				if err != nil {
					return err
				}
				caller, err := a.As(cmd.Context(), who, "hold")
				if err != nil {
					return err
				}
				n := 0
				for q := (guard.Query{Sort: "created_at", Desc: true, Limit: 200}); ; {
					p, err := a.Holds.Records().List(cmd.Context(), caller, q)
					if err != nil {
						return err
					}
					for _, v := range p.Items {
						if v.Value.State == privacy.HoldLifted && !all {
							continue
						}
						full, err := a.Holds.Records().Get(cmd.Context(), caller, v.Value.ID.UUID())
						if err != nil {
							return err
						}
						printHold(out, full.Value)
						n++
					}
					if q.After = p.Next; p.Next == "" {
						break
					}
				}
				fmt.Fprintf(out, "%d holds\n", n)
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&as, "as", "", "e-mail of the employee who looks (default: the administrator)")
	f.BoolVar(&all, "all", false, "also those that were lifted")
	return cmd
}

// printHold says what is to know of a hold, on one line and with its reasons, as far as the reader may see them, on lines of their own.
func printHold(out io.Writer, h *privacy.Hold) {
	fmt.Fprintf(out, "%s %s person %s, %s %s, put on by %s at %s\n", h.ID, h.State, h.Subject, h.RecordType, h.Record, h.Owner, h.CreatedAt.Format(time.RFC3339))
	oneLine := strings.NewReplacer("\r", " ", "\n", " ", "\x1b", " ")
	if h.Reason.Expose() != "" {
		fmt.Fprintf(out, "  because: %s\n", oneLine.Replace(h.Reason.Expose()))
	}
	if !h.AskedAt.IsZero() && h.State != privacy.HoldActive {
		fmt.Fprintf(out, "  its end was asked for by %s at %s: %s\n", h.AskedBy, h.AskedAt.Format(time.RFC3339), oneLine.Replace(h.LiftReason.Expose()))
	}
	if h.State == privacy.HoldLifted {
		fmt.Fprintf(out, "  lifted by %s at %s\n", h.LiftedBy, h.LiftedAt.Format(time.RFC3339))
	}
}
