// Package app wires the houses into one CRM: it opens keys, stores, log and policy as the configuration
// says, and gives the protected records to whoever serves them.
package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/authz/authn/password"
	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/internal/dialect"
)

// Tenant is the tenant of all records of this program; every layer below can hold many.
const Tenant = "default"

// Config is what flags and environment say. The zero value with Data set runs on embedded defaults.
type Config struct {
	Data       string // folder of keys, log, certificates and the embedded database
	Addr       string // to listen on
	DB         string // path of an SQLite file or postgres:// URL; "": Data/crm.db
	KEK        string // local:PATH or vault:TRANSIT-KEY; "": local:Data/kek.local
	Backup     string // bucket URL of backups; "": Data/backup
	BackupKeys string // bucket URL of the key shards; "": Data/backup-keys
	BackupPlan string // JSON file of a policy.Plan: when, how, and what is kept; "": backups when somebody asks, full, all kept
	// BackupCopies and BackupKeysCopies are bucket URLs that get everything too.
	BackupCopies     []string
	BackupKeysCopies []string

	head          func(context.Context) backup.Head // the newest backup that the open log knows; nil: the log's folder says
	Instance      string                            // names this process's log where several share a database; "": "main"
	Plain         bool                              // plain HTTP: no TLS, no __Host- cookie
	ClientCA      string                            // PEM file of the authorities of client certificates; "": none are asked for
	TLSCert       string                            // PEM files of a certificate and its key; "": a self-signed one for localhost
	TLSKey        string
	AllowLocalKEK bool   // serve beyond loopback although the KEK is a local file
	Seed          bool   // demo data on the first start
	Copies        string // folder of write-once copies of the log's heads, on another disk or host; "": none
	Witnesses     string // file of a C2SP tlog-policy: who has to cosign the log's heads; "": nobody
	SIEM          string // where events go: file:PATH, tls://HOST:PORT (syslog) or https://HOST/PATH; "": nowhere
	SIEMFormat    string // ocsf, cef or ecs; "": cef for syslog, else ocsf
	SIEMCA        string // PEM file of the authorities that a receiver's certificate must be of; "": the system's
	// SweepEvery is how often a serving process looks for records that go back to their pool; 0: every minute; below 0: it does nothing of what
	// time asks for, as where cron calls crm sweep and crm purge.
	SweepEvery time.Duration
	Duplicates string // what becomes of a new record that exists for certain: WarnDuplicates or RefuseDuplicates; "": the first
	Erased     string // what becomes of a new record of somebody who was erased, by hand and in imports: WarnErased, RefuseErased or AllowErased; "": the first
	PolicyKey  string // PEM file of the public key that signs policy bundles; "": the shipped policy only

	// PasswordCost of new hashes; zero = the floor of authn/password. Below it only with WeakPasswordCost, for tests that sign in hundreds of times.
	PasswordCost     password.Params
	WeakPasswordCost bool
	PasswordWords    []string                  // that nobody should build a password of, such as the company's name
	SecondFactor     []string                  // roles whose sessions need a second factor: who has none enrols one before anything else
	AllowFrom        map[string][]netip.Prefix // networks that a role may be used from; nil or not named: any
	Origin           string                    // of the pages, as browsers see it, for passkeys; "" = what is listened on
	SignOn           SignOn                    // at a provider of OpenID Connect
	Now              func() time.Time          // of sign-in and sessions; nil = time.Now

	WebhookCA    string // PEM file of the authorities of receivers of webhooks; "": the system's
	WebhookLocal bool   // webhooks go to loopback addresses too: for trials
}

var instanceName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

// complete fills in the defaults and refuses what cannot be meant.
func (c *Config) complete() error {
	if c.Data == "" {
		return errors.New("crm: no data folder")
	}
	abs, err := filepath.Abs(c.Data)
	if err != nil {
		return fmt.Errorf("crm: data folder: %w", err)
	}
	c.Data = abs
	if c.Instance == "" {
		c.Instance = "main"
	}
	if !instanceName.MatchString(c.Instance) {
		return errors.New("crm: --instance takes lower-case letters, digits and -, at most 40")
	}
	if c.DB == "" {
		c.DB = c.path("crm.db")
	}
	if c.Dialect() == dialect.SQLite && strings.Contains(c.DB, "://") {
		return errors.New("crm: --db takes a path or a postgres:// URL") // the URL may hold a password
	}
	if c.KEK == "" {
		c.KEK = "local:" + c.path("kek.local")
	}
	kind, name, ok := strings.Cut(c.KEK, ":")
	if !ok || name == "" || kind != "local" && kind != "vault" {
		return errors.New("crm: --kek takes local:PATH or vault:TRANSIT-KEY")
	}
	if c.Backup == "" {
		c.Backup = "file://" + filepath.ToSlash(c.path("backup"))
	}
	if c.BackupKeys == "" {
		c.BackupKeys = "file://" + filepath.ToSlash(c.path("backup-keys"))
	}
	if c.Duplicates != "" && c.Duplicates != WarnDuplicates && c.Duplicates != RefuseDuplicates {
		return errors.New("crm: --duplicates takes warn or refuse")
	}
	if !slices.Contains(append(ErasedWords, ""), c.Erased) {
		return ErrErased
	}
	for _, r := range c.SecondFactor {
		if !roleName.MatchString(r) {
			return errors.New("crm: --require-second-factor takes ROLE,ROLE")
		}
	}
	if c.Origin != "" {
		u, err := url.Parse(c.Origin)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Path != "" || u.User != nil || u.RawQuery != "" {
			return errors.New("crm: --origin takes https://NAME or https://NAME:PORT")
		}
	}
	if err := c.SignOn.complete(); err != nil {
		return err
	}
	if c.SIEM, err = fileURL(c.SIEM, filepath.Abs); err != nil {
		return err
	}
	return nil
}

// roleName is how roles are named.
var roleName = regexp.MustCompile(`^[a-z][a-z_-]{0,39}$`)

// ParseAllowFrom reads ROLE=CIDR,CIDR, as often as there are. A role that is named twice has the networks of both.
func ParseAllowFrom(words []string) (map[string][]netip.Prefix, error) {
	var out map[string][]netip.Prefix
	for _, w := range words {
		role, nets, ok := strings.Cut(w, "=")
		if !ok || !roleName.MatchString(role) || nets == "" {
			return nil, errors.New("crm: --allow-from takes ROLE=CIDR,CIDR")
		}
		for n := range strings.SplitSeq(nets, ",") {
			p, err := netip.ParsePrefix(n)
			if err != nil || p.Addr().Is4In6() {
				return nil, errors.New("crm: --allow-from takes networks such as 192.0.2.0/24 and 2001:db8::/32")
			}
			if out == nil {
				out = map[string][]netip.Prefix{}
			}
			out[role] = append(out[role], p)
		}
	}
	return out, nil
}

// MustExist refuses a data folder that no installation is in, for commands that would make little sense in
// a new one.
func (c *Config) MustExist() error {
	if _, err := os.Stat(filepath.Join(c.Data, "signing.key")); err != nil {
		return errors.New("crm: there is no installation in this data folder")
	}
	return nil
}

// path names a file of the data folder.
func (c *Config) path(name string) string { return filepath.Join(c.Data, name) }

// Dialect tells which database DB names.
func (c *Config) Dialect() dialect.Dialect {
	if strings.HasPrefix(c.DB, "postgres://") || strings.HasPrefix(c.DB, "postgresql://") {
		return dialect.Postgres
	}
	return dialect.SQLite
}

// LocalKEK tells whether the KEK is a file on this host, as it is when nothing is said.
func (c *Config) LocalKEK() bool { return !strings.HasPrefix(c.KEK, "vault:") }

// CheckAddr refuses to serve a development key to other hosts.
func (c *Config) CheckAddr() error {
	if err := c.complete(); err != nil {
		return err
	}
	if c.ClientCA != "" && c.Plain {
		return errors.New("crm: --client-ca needs TLS")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("crm: --tls-cert and --tls-key go together")
	}
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return errors.New("crm: --addr takes HOST:PORT")
	}
	loopback := host == "localhost"
	if ip := net.ParseIP(host); ip != nil {
		loopback = ip.IsLoopback()
	}
	if c.LocalKEK() && !loopback && !c.AllowLocalKEK {
		return errors.New("crm: the key is a development key in a file: it is not served beyond loopback; " +
			"use --kek vault:KEY, or --allow-local-kek if you know why")
	}
	if c.Plain && !loopback {
		return errors.New("crm: --http serves plain text and only on loopback")
	}
	return nil
}

// prepare makes the data folder, readable by its owner only.
func (c *Config) prepare() error {
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return fmt.Errorf("crm: data folder: %w", err)
	}
	return nil
}
