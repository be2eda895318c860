package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/crmguard/crmguard/crm/demo"
	"github.com/crmguard/crmguard/examples/crm/app"
)

func demoCommand(c *app.Config) *cobra.Command {
	customers, seed := 10_000, uint64(1)
	cmd := &cobra.Command{
		Use: "demo", Short: "Add people who do not exist, as many as asked for", Args: cobra.NoArgs,
		Long: "Adds demo customers with contacts, leads, follow-ups, opportunities, quotes, contracts and tickets. The same seed and number make the same data; " +
			"called again it goes on where it was cut off.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if customers < 1 || customers > 10_000_000 {
				return errors.New("--customers takes a number from 1 to 10,000,000")
			}
			out := cmd.OutOrStdout()
			a, err := openApp(cmd.Context(), *c, out)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.Close()) }()
			if err := populate(cmd.Context(), a, out); err != nil {
				return err
			}
			told := time.Now()
			tell := func(p demo.Progress) {
				fmt.Fprintf(out, "%s of %s customers; %s records stored, %s were there; %.0f a second\n",
					thousands(p.Customers), thousands(customers), thousands(p.Records), thousands(p.There), p.Rate())
			}
			p, err := a.Demo(cmd.Context(), seed, customers, func(p demo.Progress) {
				if time.Since(told) > 5*time.Second {
					told = time.Now()
					tell(p)
				}
			})
			tell(p)
			if err == nil {
				fmt.Fprintf(out, "%s of the customers are another one again, with errors of typing\n", thousands(p.Twins))
			}
			return err
		},
	}
	cmd.Flags().IntVar(&customers, "customers", customers, "how many customers")
	cmd.Flags().Uint64Var(&seed, "seed", seed, "which world")
	return cmd
}
