// Command crm is a complete CRM on protected records: web pages, a REST API and this command line.
//
//	go run ./examples/crm
//
// makes ./crm-data with keys, log, database and demo data, prints where it serves and one-time
// passwords for an account of each role. crm help lists the commands.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/web"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := command()
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "crm:", strings.TrimPrefix(err.Error(), "crm: "))
		os.Exit(1)
	}
}

// env returns the environment's answer for a flag that was not given.
func env(name, fallback string) string {
	if v := os.Getenv("CRM_" + name); v != "" {
		return v
	}
	return fallback
}

// list is env for a flag that may be given again: words with spaces between.
func list(name string) []string { return strings.Fields(env(name, "")) }

// command builds the command line; flags may stand before or after arguments.
func command() *cobra.Command {
	var c app.Config
	var allow []string
	var firstUse string
	root := &cobra.Command{
		Use:           "crm",
		Short:         "A CRM on protected records",
		Long:          "A CRM on protected records. Without a command it serves. Every flag may be given as an environment variable CRM_NAME.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	f := root.PersistentFlags()
	f.StringVar(&c.Data, "data", env("DATA", "crm-data"), "folder of keys, log and the embedded database")
	f.StringVar(&c.Addr, "addr", env("ADDR", "localhost:8443"), "address to listen on")
	f.StringVar(&c.DB, "db", env("DB", ""), "SQLite file or postgres:// URL (default DATA/crm.db)")
	f.StringVar(&c.KEK, "kek", env("KEK", ""), "local:PATH, or vault:TRANSIT-KEY with the usual VAULT_ variables (default local:DATA/kek.local)")
	f.StringVar(&c.Backup, "backup", env("BACKUP", ""), "bucket URL of backups: file:///FOLDER, s3://BUCKET?..., sftp://USER@HOST/FOLDER (default DATA/backup)")
	f.StringVar(&c.BackupKeys, "backup-keys", env("BACKUP_KEYS", ""), "bucket URL of the key shards, which must allow deletion (default DATA/backup-keys)")
	f.StringArrayVar(&c.BackupCopies, "backup-copy", list("BACKUP_COPIES"), "bucket URL of a further place of backups; may be given again")
	f.StringArrayVar(&c.BackupKeysCopies, "backup-keys-copy", list("BACKUP_KEYS_COPIES"), "likewise of the key shards")
	f.StringVar(&c.BackupPlan, "backup-plan", env("BACKUP_PLAN", ""), "JSON file that says when and how backups are made, what is kept, and what they must live up to")
	f.StringVar(&c.Instance, "instance", env("INSTANCE", "main"), "name of this process's log where several share a database")
	f.StringVar(&c.ClientCA, "client-ca", env("CLIENT_CA", ""), "PEM file of the authorities whose certificates programs may show instead of a token")
	f.StringVar(&c.TLSCert, "tls-cert", env("TLS_CERT", ""), "PEM file of the certificate (default: a self-signed one for localhost)")
	f.StringVar(&c.TLSKey, "tls-key", env("TLS_KEY", ""), "PEM file of its key")
	f.StringVar(&c.Origin, "origin", env("ORIGIN", ""), "address of the pages as browsers see it, for passkeys (default: what is listened on)")
	f.StringSliceVar(&c.SecondFactor, "require-second-factor", list("REQUIRE_SECOND_FACTOR"), "roles that need a second factor: ROLE,ROLE")
	f.StringSliceVar(&c.PasswordWords, "password-words", list("PASSWORD_WORDS"), "words that no password is made of, such as the names of the company and its products: WORD,WORD")
	f.StringArrayVar(&allow, "allow-from", list("ALLOW_FROM"), "networks that a role may be used from: ROLE=CIDR,CIDR; may be given again")
	f.StringVar(&c.SignOn.Issuer, "oidc-issuer", env("OIDC_ISSUER", ""), "address of the OpenID Connect provider where people sign in, as it writes it into its tokens (default: nowhere)")
	f.StringVar(&c.SignOn.Client, "oidc-client", env("OIDC_CLIENT", ""), "id of this installation at the provider")
	f.StringVar(&c.SignOn.SecretFile, "oidc-secret-file", env("OIDC_SECRET_FILE", ""), "file with its secret there (default: the variable CRM_OIDC_SECRET; neither: a public client)")
	f.StringVar(&c.SignOn.Name, "oidc-name", env("OIDC_NAME", ""), "what the provider is called on the pages (default: its host)")
	f.StringVar(&c.SignOn.Rules, "oidc-rules", env("OIDC_RULES", ""), "JSON file: which groups give which roles, and what the provider is trusted to vouch for")
	f.StringVar(&firstUse, "oidc-first-use", env("OIDC_FIRST_USE", "none"), "how who is not linked yet is known: none, or email for an address that the provider has verified")
	c.SignOn.Secret = os.Getenv("CRM_OIDC_SECRET")
	f.StringVar(&c.PolicyKey, "policy-key", env("POLICY_KEY", ""), "PEM file of the public key of policy bundles; DATA/policy.tar.gz is then loaded, also while serving")
	f.StringVar(&c.Duplicates, "duplicates", env("DUPLICATES", "warn"), "what becomes of a record that certainly exists: warn its maker, or refuse it")
	f.StringVar(&c.Erased, "erased", env("ERASED", "warn"), "what becomes of a new record, made by hand or imported, with a number of somebody who was erased: refuse, warn or off")
	f.StringVar(&c.Copies, "head-copies", env("HEAD_COPIES", ""), "folder of write-once copies of the log's heads, best on another host")
	f.StringVar(&c.Witnesses, "witnesses", env("WITNESSES", ""), "file of a C2SP tlog-policy: who cosigns the log's heads")
	f.StringVar(&c.SIEM, "siem", env("SIEM", ""), "where the log's events go: file:PATH, tls://HOST:PORT (syslog) or https://HOST/PATH")
	f.StringVar(&c.SIEMFormat, "siem-format", env("SIEM_FORMAT", ""), "ocsf, cef or ecs (default: cef for syslog, else ocsf)")
	f.StringVar(&c.SIEMCA, "siem-ca", env("SIEM_CA", ""), "PEM file of the authorities of the receiver (default: the system's)")
	f.StringVar(&c.WebhookCA, "webhook-ca", env("WEBHOOK_CA", ""), "PEM file of the authorities of receivers of webhooks (default: the system's)")
	f.BoolVar(&c.WebhookLocal, "webhook-local", false, "send webhooks to loopback addresses too: for trials with a receiver on the same machine")
	f.DurationVar(&c.SweepEvery, "sweep-every", time.Minute, "how often to look for records that go back to their pool while serving; below 0: never, as where cron calls crm sweep and crm purge")
	f.BoolVar(&c.Plain, "http", false, "serve plain HTTP, on loopback only")
	f.BoolVar(&c.AllowLocalKEK, "allow-local-kek", false, "serve beyond loopback with a development key")
	f.BoolVar(&c.Seed, "seed", true, "demo data on the first start")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) (err error) {
		if c.AllowFrom, err = app.ParseAllowFrom(allow); err != nil {
			return err
		}
		switch firstUse {
		case "none", "email":
			c.SignOn.FirstUse = firstUse == "email"
		default:
			return errors.New("--oidc-first-use takes none or email")
		}
		for name, v := range map[string]*bool{"http": &c.Plain, "allow-local-kek": &c.AllowLocalKEK, "seed": &c.Seed} {
			variable := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
			text := env(variable, "")
			if text == "" || cmd.Flags().Changed(name) {
				continue
			}
			b, err := strconv.ParseBool(text)
			if err != nil {
				return fmt.Errorf("CRM_%s is neither true nor false", variable)
			}
			*v = b
		}
		if text := env("SWEEP_EVERY", ""); text != "" && !cmd.Flags().Changed("sweep-every") {
			d, err := time.ParseDuration(text)
			if err != nil {
				return errors.New("CRM_SWEEP_EVERY is no duration such as 1m30s")
			}
			c.SweepEvery = d
		}
		return nil
	}

	serve := &cobra.Command{
		Use: "serve", Short: "Serve pages and API (the default)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runServe(cmd.Context(), c, cmd.OutOrStdout()) },
	}
	root.RunE = serve.RunE
	root.AddCommand(serve, importCommand(&c), exportCommand(&c), verifyCommand(&c), backupCommand(&c), restoreCommand(&c), drillCommand(&c),
		rotateCommand(&c), accountCommand(&c), tokenCommand(&c), policyCommand(&c), sweepCommand(&c), purgeCommand(&c), demoCommand(&c), dedupeCommand(&c), eraseCommand(&c), holdCommand(&c))
	return root
}

// openApp opens the CRM and reports what a crash left behind.
func openApp(ctx context.Context, c app.Config, out io.Writer) (*app.App, error) {
	a, err := app.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	if a.Aborted > 0 {
		fmt.Fprintf(out, "%d announced writes had not been made when the last process ended; the log says so now\n", a.Aborted)
	}
	if a.Resumed > 0 {
		fmt.Fprintf(out, "%d merges that were cut off are ended now\n", a.Resumed)
	}
	return a, nil
}

// populate fills an empty CRM and prints the passwords, once.
func populate(ctx context.Context, a *app.App, out io.Writer) error {
	if !a.First {
		return nil
	}
	logins, err := a.Populate(ctx)
	if err != nil {
		return err
	}
	printLogins(out, logins)
	return nil
}

func printLogins(out io.Writer, logins []app.OneTime) {
	fmt.Fprintln(out, "One-time passwords, printed now and kept nowhere:")
	for _, l := range logins {
		fmt.Fprintf(out, "  %-10s %-24s %s\n", l.Role, l.Login, l.Password)
	}
}

func runServe(ctx context.Context, c app.Config, out io.Writer) (err error) {
	if err := c.CheckAddr(); err != nil {
		return err
	}
	a, err := openApp(ctx, c, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if err := populate(ctx, a, out); err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	watch, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { a.WatchPolicy(watch, hup) })
	watching.Go(func() { a.KeepTime(watch) })
	watching.Go(func() { a.Outbox.Run(watch) })
	watching.Go(func() { a.RunImports(watch) })
	watching.Go(func() { a.WatchBackups(watch, func(line string) { fmt.Fprintln(os.Stderr, line) }) })
	watching.Go(func() {
		if err := a.ScheduleBackups(watch, func(line string) { fmt.Fprintln(os.Stderr, line) }); err != nil {
			fmt.Fprintln(os.Stderr, "backup:", err)
		}
	})
	defer func() { stop(); watching.Wait() }()
	return web.Serve(ctx, a, out)
}

// liner shows progress: in place on a terminal, one line each otherwise.
func liner(out io.Writer) func(string) {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func(s string) { fmt.Fprintln(out, s) }
	}
	return func(s string) { fmt.Fprintf(out, "\r\x1b[K%s", s) }
}

func verifyCommand(c *app.Config) *cobra.Command {
	var asJSON, backups bool
	var recovery string
	cmd := &cobra.Command{
		Use: "verify", Short: "Check the log, every row against it and, with --backups, every backup", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			v, err := app.Verify(cmd.Context(), *c)
			if err != nil {
				if backups { // on the bad day they are all there is
					err = errors.Join(err, verifyBackups(cmd.Context(), c, recovery, out))
				}
				return err
			}
			if asJSON {
				enc := json.NewEncoder(out)
				enc.SetIndent("", "  ")
				if err := enc.Encode(v); err != nil {
					return err
				}
			} else {
				fmt.Fprintln(out, v.Summary())
			}
			var failed error
			if !v.OK() {
				failed = errors.New("the verification failed")
			}
			if !backups {
				return failed
			}
			return errors.Join(failed, verifyBackups(cmd.Context(), c, recovery, out))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for machines")
	cmd.Flags().BoolVar(&backups, "backups", false, "read every backup too")
	cmd.Flags().StringVar(&recovery, "recovery-key", "", "file of the key that opens backups (default DATA/recovery.key)")
	return cmd
}

// size writes bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}

func rotateCommand(c *app.Config) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "rotate", Short: "Begin a new key epoch: living keys are wrapped anew, the old versions of the key above them end", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			out := cmd.OutOrStdout()
			if err := c.MustExist(); err != nil {
				return err
			}
			a, err := openApp(cmd.Context(), *c, out)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.Close()) }()
			show := liner(out)
			n := 0
			if all {
				show = liner(cmd.ErrOrStderr())
				began := time.Now()
				err = a.RotateAll(cmd.Context(), func(what string, done, total int) {
					line := what + " " + thousands(done)
					if total > 0 {
						line += " of " + thousands(total)
					}
					show(line)
				})
				if err != nil {
					return err
				}
				fmt.Fprintf(out, "\nevery record is sealed under new keys, the old ones are ended, %.1f s\n", time.Since(began).Seconds())
				return nil
			}
			if err := a.Rotate(cmd.Context(), func(done, total int) {
				n = total
				show(fmt.Sprintf("%d of %d keys", done, total))
			}); err != nil {
				return err
			}
			fmt.Fprintf(out, "\n%d keys are under the new epoch key; the old one is retired\n", n)
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "replace the keys of all persons and indexes too, and seal every record under the new ones")
	return cmd
}

func sweepCommand(c *app.Config) *cobra.Command {
	return &cobra.Command{
		Use: "sweep", Short: "Give back to the pools what their clocks let go, once", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return once(cmd, c, func(a *app.App, out io.Writer) error {
				s, err := a.SweepPools(cmd.Context())
				fmt.Fprintf(out, "%d records went back to their pool, %d go back soon\n", s.Back, s.Soon)
				return err
			})
		},
	}
}

func purgeCommand(c *app.Config) *cobra.Command {
	limit := app.PurgeLimit
	cmd := &cobra.Command{
		Use: "purge", Short: "Take out of the recycle bin for good what has been in it long enough, once", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return errors.New("--limit takes a number above 0")
			}
			return once(cmd, c, func(a *app.App, out io.Writer) error {
				p, err := a.PurgeBin(cmd.Context(), limit)
				fmt.Fprintf(out, "%d records are gone for good; the keys of %d persons are destroyed, those of %d are blocked until the grace is over\n", len(p.Records), len(p.Destroyed), len(p.Blocked))
				return err
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "the most records of one run; more persons than the keeper's limit of a day are not erased at once")
	return cmd
}

// once opens an installation for one act.
func once(cmd *cobra.Command, c *app.Config, do func(a *app.App, out io.Writer) error) (err error) {
	if err := c.MustExist(); err != nil {
		return err
	}
	a, err := openApp(cmd.Context(), *c, cmd.OutOrStdout())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return do(a, cmd.OutOrStdout())
}

// thousands writes a number for people: 4,500.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func accountCommand(c *app.Config) *cobra.Command {
	cmd := &cobra.Command{Use: "account", Short: "Accounts"}
	cmd.AddCommand(&cobra.Command{
		Use: "reset LOGIN", Short: "Give an account, or an employee without one, a one-time password", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := c.MustExist(); err != nil {
				return err
			}
			a, err := openApp(cmd.Context(), *c, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.Close()) }()
			p, err := a.ResetPassword(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "one-time password:", p)
			return nil
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use: "factors LOGIN", Short: "Remove all second factors of an account whose owner has lost them", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return once(cmd, c, func(a *app.App, out io.Writer) error {
				if err := a.ResetFactorsOf(cmd.Context(), args[0]); err != nil {
					return err
				}
				fmt.Fprintln(out, "all second factors are removed, and the sessions ended; the password stays")
				return nil
			})
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use: "link LOGIN SUBJECT", Short: "Let an account, or an employee without one, sign in at the provider of --oidc-issuer as this subject", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return once(cmd, c, func(a *app.App, out io.Writer) error {
				if args[1] == "" {
					return errors.New("no subject")
				}
				if err := a.LinkLogin(cmd.Context(), args[0], args[1]); err != nil {
					return err
				}
				fmt.Fprintln(out, "linked; the sessions are ended")
				return nil
			})
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use: "unlink LOGIN", Short: "End the link of an account with the provider, and its sessions", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return once(cmd, c, func(a *app.App, out io.Writer) error {
				if err := a.LinkLogin(cmd.Context(), args[0], ""); err != nil {
					return err
				}
				fmt.Fprintln(out, "no longer linked; the sessions are ended")
				return nil
			})
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use: "certify LOGIN", Short: "Certify the roles of an employee again, where nobody is left who could", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := c.MustExist(); err != nil {
				return err
			}
			a, err := openApp(cmd.Context(), *c, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.Close()) }()
			roles, err := a.CertifyAccount(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "certified:", strings.Join(roles, " "))
			return nil
		},
	})
	return cmd
}
