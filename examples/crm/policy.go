package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/authz/review"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// policyCommand looks at policies and signs them. None of its commands opens the database: they run beside serve.
func policyCommand(c *app.Config) *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Test, compare, explain and sign policies"}
	cmd.AddCommand(policyTest(), policyDiff(c), policyWhoCan(c), policyWhy(c), policySign(), policyKeygen())
	return cmd
}

func policyTest() *cobra.Command {
	return &cobra.Command{
		Use: "test DIR", Short: "Load a policy as serve would, with its own tests", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := rego.New(cmd.Context(), &rego.Options{Policy: os.DirFS(args[0])})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "ok, %d controls, revision %s\n", len(e.Controls()), e.Revision())
			return nil
		},
	}
}

// running loads the policy that a serving CRM has: the bundle that it loaded last, else the shipped one.
func running(ctx context.Context, c *app.Config) (*rego.Engine, error) {
	files, err := c.LoadedPolicy()
	if err != nil {
		return nil, err
	}
	return rego.New(ctx, &rego.Options{Policy: files})
}

// openPolicy reads a folder, or a bundle whose signature the key of c checks.
func openPolicy(c *app.Config, name string) (fs.FS, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, errors.New("there is no such folder or bundle")
	}
	if info.IsDir() {
		return os.DirFS(name), nil
	}
	return c.OpenPolicy(name)
}

func policyDiff(c *app.Config) *cobra.Command {
	return &cobra.Command{
		Use: "diff DIR|BUNDLE", Short: "Show which decisions another policy changes", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := running(cmd.Context(), c)
			if err != nil {
				return err
			}
			files, err := openPolicy(c, args[0])
			if err != nil {
				return err
			}
			to, err := rego.New(cmd.Context(), &rego.Options{Policy: files})
			if err != nil {
				return err
			}
			out, n := cmd.OutOrStdout(), 0
			seen := map[string]bool{}
			for _, corpus := range []*rego.Engine{from, to} { // what only one of them knows is asked too
				for change, err := range rego.Diff(cmd.Context(), from, to, corpus.Corpus()) {
					if err != nil {
						return err
					}
					line := changed(change)
					if !seen[line] {
						seen[line] = true
						n++
						fmt.Fprintln(out, line)
					}
				}
			}
			fmt.Fprintf(out, "%d decisions change, from revision %s to %s\n", n, from.Revision(), to.Revision())
			return nil
		},
	}
}

// changed writes one changed decision.
func changed(c rego.Change) string {
	whose := "a stranger's"
	switch {
	case c.Request.Resource.Pool != "":
		whose = "a free"
	case c.Request.Resource.Owner == c.Request.Subject.ID:
		whose = "their own"
	case strings.HasPrefix(c.Request.Resource.Team, c.Request.Subject.Team):
		whose = "their team's"
	}
	return fmt.Sprintf("%s %s %s %s in state %s: %s -> %s", strings.Join(c.Request.Subject.Roles, "+"), c.Request.Action, whose,
		c.Request.Resource.Type, c.Request.Resource.State, verdict(c.Old), verdict(c.New))
}

func verdict(d authz.Decision) string {
	if !d.Allowed {
		return "denied by " + strings.Join(d.Controls, ", ")
	}
	s := "allowed by " + strings.Join(d.Controls, ", ")
	if len(d.Obligations) > 0 {
		needs := make([]string, len(d.Obligations))
		for i, o := range d.Obligations {
			needs[i] = string(o)
		}
		s += ", needs " + strings.Join(needs, ", ")
	}
	return s
}

func policyWhoCan(c *app.Config) *cobra.Command {
	return &cobra.Command{
		Use: "who-can ACTION TYPE", Short: "List which roles may do something, with all records, their team's, their own or those of their pools", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := running(cmd.Context(), c)
			if err != nil {
				return err
			}
			var roles []string
			for r := range e.Corpus() {
				if !slices.Contains(roles, r.Subject.Roles[0]) {
					roles = append(roles, r.Subject.Roles[0])
				}
			}
			subject := func(role string) authz.Subject {
				id := "subject"
				if role == "system" {
					id = "system"
				}
				return authz.Subject{
					ID: id, Tenant: app.Tenant, Roles: []string{role}, Team: "/east/", Active: true, Pools: []string{"pool"},
					Grants: []authz.Grant{{Role: role, Until: time.Now().Add(time.Hour)}},
				}
			}
			tables, err := review.Matrix(cmd.Context(), e, roles, []string{args[1]}, []authz.Action{authz.Action(args[0])}, &review.MatrixOptions{
				Subject:     subject,
				Sample:      func(string) authz.Resource { return authz.Resource{Actors: []string{"somebody"}} }, // whom one may approve
				Environment: authz.Environment{Time: time.Now(), Purpose: "crm"},
			})
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), tables[0].String())
			return nil
		},
	}
}

func policyWhy(c *app.Config) *cobra.Command {
	var r authz.Request
	var action string
	cmd := &cobra.Command{
		Use: "why --subject ID --role ROLE --action ACTION --type TYPE", Short: "Explain one decision: controls met and failed, fields, obligations", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := running(cmd.Context(), c)
			if err != nil {
				return err
			}
			r.Subject.Tenant, r.Resource.Tenant, r.Action = app.Tenant, app.Tenant, authz.Action(action)
			r.Environment.Time, r.Environment.Purpose = time.Now(), "crm"
			for _, role := range r.Subject.Roles {
				r.Subject.Grants = append(r.Subject.Grants, authz.Grant{Role: role, Until: time.Now().Add(time.Hour)})
			}
			d, err := e.Decide(cmd.Context(), r)
			if err != nil {
				return err
			}
			explain(cmd.OutOrStdout(), e, d)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Subject.ID, "subject", "subject", "id of who acts")
	f.StringSliceVar(&r.Subject.Roles, "role", nil, "their roles")
	f.StringVar(&r.Subject.Team, "team", "/east/", "path of their team")
	f.BoolVar(&r.Subject.Active, "active", true, "whether they may work")
	f.IntVar(&r.Subject.Level, "level", 0, "their clearance")
	f.StringSliceVar(&r.Subject.Pools, "in-pool", nil, "ids of the pools whose member they are")
	f.StringVar(&action, "action", "read", "what they want to do")
	f.StringVar(&r.Resource.Type, "type", "customer", "type of the record")
	f.StringVar(&r.Resource.ID, "record", "record", "its id")
	f.StringVar(&r.Resource.Owner, "owner", "", "id of its owner")
	f.StringVar(&r.Resource.Team, "record-team", "/east/1/", "path of its team")
	f.StringVar(&r.Resource.State, "state", "", "its lifecycle state")
	f.IntVar(&r.Resource.Level, "record-level", 0, "its level")
	f.StringSliceVar(&r.Resource.Actors, "actor", nil, "ids of those who have asked for it or changed it")
	f.StringVar(&r.Resource.Pool, "pool", "", "id of the pool in which it is free")
	f.Int64Var(&r.Resource.Amount, "amount", 0, "in minor units")
	f.IntVar(&r.Environment.Rows, "rows", 0, "how many records it would touch")
	return cmd
}

// explain writes a decision with the titles of its controls.
func explain(out io.Writer, e *rego.Engine, d authz.Decision) {
	word := "denied"
	if d.Allowed {
		word = "allowed"
	}
	fmt.Fprintf(out, "%s by revision %s\n", word, d.Revision)
	for _, c := range e.Controls() {
		named := slices.Contains(d.Controls, c.ID)
		mark := "met"
		switch {
		case d.Allowed && !named, !d.Allowed && c.Kind != "required":
			continue
		case !d.Allowed && named:
			mark = "FAILED"
		}
		line := fmt.Sprintf("  %-6s %-17s %s", mark, c.ID, c.Title)
		if c.Standard != "" {
			line += " (" + c.Standard + ")"
		}
		fmt.Fprintln(out, line)
	}
	for _, o := range d.Obligations {
		fmt.Fprintf(out, "  needs  %s\n", o)
	}
	for _, m := range []struct {
		what string
		of   map[string]authz.Access
	}{{"class", d.Fields.ByClass}, {"field", d.Fields.ByName}} {
		var names []string
		for n := range m.of {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, n := range names {
			fmt.Fprintf(out, "  %-6s %-17s %s\n", m.what, n, m.of[n])
		}
	}
}

func policySign() *cobra.Command {
	var key, to string
	cmd := &cobra.Command{
		Use: "sign DIR --key KEY --out BUNDLE", Short: "Write a policy as a signed bundle, after its own tests", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			private, err := os.ReadFile(key)
			if err != nil {
				return errors.New("--key cannot be read")
			}
			var b bytes.Buffer
			if err := rego.SignBundle(cmd.Context(), &b, os.DirFS(args[0]), private); err != nil {
				return err
			}
			if err := os.WriteFile(to+".new", b.Bytes(), 0o600); err != nil {
				return errors.New("--out cannot be written")
			}
			if err := os.Rename(to+".new", to); err != nil { // a program that watches it never sees half of it
				return errors.New("--out cannot be written")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s, %d bytes\n", to, b.Len())
			return nil
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "PEM file of the private key, as policy keygen writes it")
	cmd.Flags().StringVar(&to, "out", "policy.tar.gz", "where the bundle goes")
	return cmd
}

func policyKeygen() *cobra.Command {
	return &cobra.Command{
		Use: "keygen FILE", Short: "Make a key for policy bundles: FILE, which stays with who writes policies, and FILE.pub for --policy-key", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return err
			}
			private, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				return err
			}
			public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
			if err != nil {
				return err
			}
			write := func(name, typ string, der []byte) error {
				f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if err != nil {
					return fmt.Errorf("%s exists or cannot be written", name)
				}
				return errors.Join(pem.Encode(f, &pem.Block{Type: typ, Bytes: der}), f.Close())
			}
			if err := write(args[0], "PRIVATE KEY", private); err != nil {
				return err
			}
			if err := write(args[0]+".pub", "PUBLIC KEY", public); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s and %s.pub\n", args[0], args[0])
			return nil
		},
	}
}
