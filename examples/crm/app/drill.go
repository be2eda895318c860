package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/drill"
	"github.com/crmguard/crmguard/backup/sqlsource"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
	keystore "github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
)

// actionDrilled is the event of a drill.
const actionDrilled = "backup.drilled"

// drills is the folder of the signed reports of drills.
func (c *Config) drills() string { return c.path("drills") }

// DrillOptions of [Drill].
type DrillOptions struct {
	Recovery string // path of the key that opens backups; "": the data folder's
	Snapshot string // "": the newest
	Random   bool   // any snapshot
	Limit    time.Duration
}

// Drill restores a backup into a scratch database of the same kind, with its keys, checks it and keeps the signed report, whose path it returns. The
// living database is not touched.
func Drill(ctx context.Context, c Config, o DrillOptions) (rep *drill.Report, path string, err error) {
	if err := c.complete(); err != nil {
		return nil, "", err
	}
	if o.Recovery == "" {
		o.Recovery = c.path(recoveryKey)
	}
	key, err := backupkey.Read(o.Recovery)
	if err != nil {
		return nil, "", err
	}
	signer, err := backupkey.ReadSigner(c.path(manifestKey))
	if err != nil {
		return nil, "", err
	}
	repo, err := c.repository(ctx, false, nil)
	if err != nil {
		return nil, "", err
	}
	defer repo.close()
	kek, closeKEK, err := openOldKEK(ctx, &c)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, closeKEK()) }()
	if o.Limit == 0 {
		plan, err := c.plan()
		if err != nil {
			return nil, "", err
		}
		if plan != nil {
			o.Limit = plan.Objectives.RTO
		}
	}
	var shards keyShards // of the scratch database
	run := &drill.Options{
		Key: key, Signer: signer, Snapshot: o.Snapshot, Random: o.Random, Limit: o.Limit,
		Open: func(ctx context.Context) (drill.Scratch, error) {
			s, err := c.scratch(ctx)
			if err != nil {
				return nil, err
			}
			keys, err := keystore.Open(ctx, s.DB, string(c.Dialect()), nil)
			if err == nil {
				shards.keeper, err = encrypt.NewKeeper(kek, keys, nil)
			}
			if err != nil {
				return nil, errors.Join(err, s.Close())
			}
			return s, nil
		},
		Restore: &backup.RestoreOptions{
			Keys: late{&shards},
			Tombstones: func(ctx context.Context, list backup.Tombstones) error {
				return shards.keeper.ImportKeys(ctx, Tenant, list.Records)
			},
		},
		Check: func(ctx context.Context, s drill.Scratch) error {
			scratch, ok := s.(*sqlsource.Scratch)
			if !ok {
				return errors.New("crm: not a scratch database")
			}
			return checkRecords(ctx, databases{w: scratch.DB, r: scratch.DB, dialect: c.Dialect()}, shards.keeper)
		},
	}
	rep, file, err := drill.Run(ctx, repo.Repository, run)
	if err != nil {
		return nil, "", err
	}
	if err := os.MkdirAll(c.drills(), 0o700); err != nil {
		return rep, "", fmt.Errorf("crm: data folder: %w", err)
	}
	path = filepath.Join(c.drills(), rep.Started.Format("20060102T150405.000000000Z")+".txt")
	if err := writeWhole(path, file); err != nil {
		return rep, "", fmt.Errorf("crm: data folder: %w", err)
	}
	return rep, path, nil
}

// late takes key records into a keeper that is there only when they come.
type late struct{ shards *keyShards }

// ImportKeys takes key records.
func (l late) ImportKeys(ctx context.Context, records iter.Seq2[[]byte, error]) error {
	return probed{*l.shards}.ImportKeys(ctx, records)
}

// scratch makes the database of a drill: beside the living one on PostgreSQL, else a file of the data folder.
func (c *Config) scratch(ctx context.Context) (*sqlsource.Scratch, error) {
	opts := &sqlsource.Options{Exclude: excluded}
	if c.Dialect() == dialect.SQLite {
		return sqlsource.ScratchSQLite(ctx, c.Data, opts)
	}
	db, err := openDatabase(ctx, c)
	if err != nil {
		return nil, err
	}
	opts.Prepare = prepareStore
	s, err := sqlsource.ScratchPostgres(ctx, db.w, func(name string) (*sql.DB, error) {
		u, err := url.Parse(c.DB)
		if err != nil {
			return nil, errors.New("crm: --db is not a PostgreSQL URL")
		}
		u.Path = "/" + name
		return sql.Open("pgx", u.String())
	}, opts)
	if err != nil {
		return nil, errors.Join(err, db.close())
	}
	s.Also(db.close)
	return s, nil
}

// prepareStore makes the tables of records in an empty PostgreSQL database.
func prepareStore(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, "DROP TABLE IF EXISTS crm_reindex"); err != nil { // of a restore that was interrupted
		return fmt.Errorf("crm: preparing the database (%s)", code(err))
	}
	store, err := openStore(ctx, databases{w: db, r: db, dialect: dialect.Postgres})
	if err != nil {
		return err
	}
	ss, err := schemas()
	if err != nil {
		return err
	}
	return store.Declare(ctx, ss...)
}

// checkRecords looks whether there are employees, and whether the key of every sealed value is there or was destroyed.
func checkRecords(ctx context.Context, db databases, keeper *encrypt.Keeper) error {
	store, err := openStore(ctx, db)
	if err != nil {
		return err
	}
	ss, err := schemas()
	if err != nil {
		return err
	}
	if err := store.Declare(ctx, ss...); err != nil {
		return err
	}
	rows, employees := 0, 0
	for _, s := range ss {
		q := crm.Query{Tenant: Tenant, Type: s.Type, Where: crm.Everything{}, Deletion: crm.LivingAndBin, Limit: 1000}
		for {
			page, err := store.List(ctx, q)
			if err != nil {
				return err
			}
			var sealed [][]byte
			for _, r := range page.Rows {
				for _, f := range r.Sealed {
					sealed = append(sealed, f.Data)
				}
			}
			missing, err := keeper.MissingKeys(ctx, Tenant, sealed)
			if err != nil {
				return err
			}
			if len(missing) > 0 {
				return fmt.Errorf("crm: the keys of %d values of type %s are missing", len(missing), s.Type)
			}
			rows += len(page.Rows)
			if s.Type == crm.TypeEmployee {
				employees += len(page.Rows)
			}
			if q.After = page.Next; q.After == "" {
				break
			}
		}
	}
	if rows > 0 && employees == 0 {
		return errors.New("crm: there are records and no employee who could read them")
	}
	return nil
}

// CheckDrill verifies the file of a report with the public key of this installation, or of the file pinFile.
func CheckDrill(c Config, path, pinFile string) (*drill.Report, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, errors.New("crm: the report cannot be read")
	}
	pin, err := c.pin()
	if pinFile != "" {
		pin, err = readPin(pinFile)
	}
	if err != nil {
		return nil, err
	}
	return drill.Verify(b, pin)
}

// lastDrill returns the newest report that is authentic, nil when there is none.
// LastDrill is when the newest drill began whose report is here and authentic, passed or not; the zero time = there is none.
func LastDrill(c Config) (time.Time, error) {
	if err := c.complete(); err != nil {
		return time.Time{}, err
	}
	last, err := c.lastDrill()
	if err != nil || last == nil {
		return time.Time{}, err
	}
	return last.Started, nil
}

func (c *Config) lastDrill() (*drill.Report, error) {
	all, err := c.drillReports()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[len(all)-1], nil
}

// drillReports reads the reports, oldest first; those that are not authentic are left out.
func (c *Config) drillReports() ([]*drill.Report, error) {
	list, err := os.ReadDir(c.drills())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("crm: data folder: %w", err)
	}
	pin, err := c.pin()
	if err != nil {
		return nil, err
	}
	var all []*drill.Report
	for _, f := range list {
		if !strings.HasSuffix(f.Name(), ".txt") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(c.drills(), f.Name()))
		if err != nil {
			return nil, fmt.Errorf("crm: data folder: %w", err)
		}
		if rep, err := drill.Verify(b, pin); err == nil {
			all = append(all, rep)
		}
	}
	slices.SortFunc(all, func(a, b *drill.Report) int { return a.Started.Compare(b.Started) })
	return all, nil
}

// NoteDrills puts drills into the log that are not there yet: other processes hold them.
func (a *App) NoteDrills(ctx context.Context) error {
	a.backups.Lock()
	defer a.backups.Unlock()
	all, err := a.Config.drillReports()
	if err != nil || len(all) == 0 {
		return err
	}
	seen, err := a.Log.Query(ctx, audit.Filter{Action: actionDrilled}, a.Log.Size(), 10_000)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, e := range seen {
		known[e.Event.Note] = true
	}
	for _, rep := range all {
		note := rep.Started.Format(time.RFC3339Nano) + " " + rep.Snapshot
		if known[note] {
			continue
		}
		outcome := audit.Allowed
		if !rep.Passed {
			outcome = audit.Failed
		}
		if _, err := a.Log.Append(ctx, audit.Event{
			Action: actionDrilled, Activity: audit.Backup, Outcome: outcome, Tenant: Tenant, Actor: "system", Count: rep.Rows, Note: note,
		}); err != nil {
			return err
		}
	}
	return nil
}
