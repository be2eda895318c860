package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crmguard/crmguard/examples/crm/app"
)

// tokenCommand makes, lists and revokes tokens of programs. Who holds the data folder makes them for anybody: that is the operating system's matter.
func tokenCommand(c *app.Config) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens by which programs use the REST interface"}
	var ask app.TokenAsk
	var from []string
	var file string
	create := &cobra.Command{
		Use: "create ADDRESS", Short: "Make a token of the employee with this address, and print it once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, n := range from {
				p, err := netip.ParsePrefix(n)
				if err != nil {
					return errors.New("--from takes networks such as 192.0.2.0/24 and 2001:db8::/32")
				}
				ask.Sources = append(ask.Sources, p)
			}
			if file != "" {
				var err error
				if ask.Certificate, err = certificateOf(file); err != nil {
					return err
				}
			}
			return once(cmd, c, func(a *app.App, out io.Writer) error {
				owner, err := a.TokenOwner(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				i, secret, err := a.MakeToken(cmd.Context(), "system", owner, ask)
				if err != nil {
					return err
				}
				if ask.Certificate != nil {
					fmt.Fprintf(out, "token %s, until %s, for who holds the key of the certificate\n", i.ID, i.Expires.Format(time.DateOnly))
					return nil
				}
				fmt.Fprintf(out, "token %s, until %s, printed now and kept nowhere:\n%s\n", i.ID, i.Expires.Format(time.DateOnly), secret.Reveal())
				return nil
			})
		},
	}
	create.Flags().StringVar(&ask.Name, "name", "", "what it is for")
	create.Flags().StringSliceVar(&ask.Scopes, "scope", nil, "*:read, TYPE:read or TYPE:ACTION, such as customer:claim; may be given again")
	create.Flags().StringSliceVar(&from, "from", nil, "networks that it may be used from; may be given again (default: any)")
	create.Flags().StringVar(&file, "certificate", "", "PEM file of a client certificate that is shown instead of a text; see --client-ca")
	create.Flags().IntVar(&ask.Days, "days", 90, "how long it lives, at most 366")
	list := &cobra.Command{
		Use: "list ADDRESS", Short: "List the tokens of the employee with this address", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return once(cmd, c, func(a *app.App, out io.Writer) error {
				owner, err := a.TokenOwner(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				all, err := a.Tokens(cmd.Context(), owner)
				for i := range all {
					t := &all[i]
					state, used := "until "+t.Expires.Format(time.DateOnly), "never used"
					switch {
					case !t.Revoked.IsZero():
						state = "revoked"
					case a.TokenExpired(t):
						state = "expired"
					}
					if !t.LastUsed.IsZero() {
						used = "used " + t.LastUsed.Format(time.DateOnly)
					}
					fmt.Fprintf(out, "%s  %s, %s  %s  %s\n", t.ID, state, used, strings.Join(t.Scopes, " "), t.Name)
				}
				return err
			})
		},
	}
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "End a token at once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return once(cmd, c, func(a *app.App, out io.Writer) error {
				if err := a.RevokeTokenByID(cmd.Context(), args[0]); err != nil {
					return err
				}
				fmt.Fprintln(out, "revoked")
				return nil
			})
		},
	}
	cmd.AddCommand(create, list, revoke)
	return cmd
}

// certificateOf reads the first certificate of a PEM file.
func certificateOf(file string) (*x509.Certificate, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, errors.New("the file of --certificate cannot be read")
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, errors.New("the file of --certificate has no certificate")
			}
			return cert, nil
		}
	}
	return nil, errors.New("the file of --certificate has no certificate")
}
