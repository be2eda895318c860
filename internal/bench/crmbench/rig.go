package crmbench

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/filestore"
	auditmem "github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/localkek"
	keystore "github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

// rig is one database of customers and what is measured of it.
type rig struct {
	engine  string
	dialect dialect.Dialect
	dir     string // keys, log, and on SQLite the database
	gen     generator
	schema  crm.Schema
	w, r    *sql.DB
	dsn     string // of a handle for reading

	kek    *localkek.KEK
	keys   *keystore.Store
	policy *rego.Engine
	store  *sqlstore.Store
	files  *audit.Log
	synced atomic.Int64 // nanoseconds that the log on disk has spent in writing and syncing
	close  []func() error
}

// Close releases everything, in order.
func (g *rig) Close() error {
	var errs []error
	for i := len(g.close) - 1; i >= 0; i-- {
		errs = append(errs, g.close[i]())
	}
	return errors.Join(errs...)
}

// seed says what a kept folder holds; it is written when that is whole.
type seed struct {
	Version int
	Rows    int
	Owned   int
	Took    time.Duration
}

// open makes the rig of an engine, from a kept folder when that holds what is asked for.
func open(ctx context.Context, tb testing.TB, engine, keep string, gen generator, progress io.Writer) (*rig, error) {
	g := &rig{engine: engine, gen: gen, dialect: dialect.Dialect(engine)}
	kept := keep != ""
	if kept {
		g.dir = filepath.Join(keep, fmt.Sprintf("%s-%d-%d", engine, gen.rows, gen.owned))
		if err := os.MkdirAll(g.dir, 0o755); err != nil {
			return nil, err
		}
	} else {
		g.dir = tb.TempDir()
	}
	if err := g.open(ctx, tb, kept, progress); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

func (g *rig) open(ctx context.Context, tb testing.TB, keep bool, progress io.Writer) error {
	var err error
	if g.schema, err = guard.Schema[*crm.Customer](nil); err != nil {
		return err
	}
	if g.policy, err = rego.New(ctx, nil); err != nil {
		return err
	}
	mark := filepath.Join(g.dir, "seed.json")
	var s seed
	if text, err := os.ReadFile(mark); err == nil && json.Unmarshal(text, &s) == nil &&
		s == (seed{version, g.gen.rows, g.gen.owned, s.Took}) {
		fmt.Fprintf(progress, "%s: %d customers are there, made in %s\n", g.engine, g.gen.rows, s.Took.Round(time.Second))
		return g.serve(ctx, tb, true)
	}
	if keep { // what is half made is made anew
		if err := os.RemoveAll(g.dir); err != nil {
			return err
		}
		if err := os.MkdirAll(g.dir, 0o755); err != nil {
			return err
		}
	}
	begin := time.Now()
	save, err := g.sow(ctx, tb, progress)
	if err != nil {
		return err
	}
	s = seed{version, g.gen.rows, g.gen.owned, time.Since(begin)}
	if keep && save != nil {
		if err := save(); err != nil {
			return err
		}
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(mark, text, 0o644); err != nil {
		return err
	}
	return g.serve(ctx, tb, keep)
}

// sow makes the database and fills it through the guard. save, when not nil, copies it into the folder.
func (g *rig) sow(ctx context.Context, tb testing.TB, progress io.Writer) (save func() error, err error) {
	if g.dialect == dialect.SQLite {
		// Nobody else looks at it yet, and what is torn by a crash is made anew: no journal and no sync.
		db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: g.file()}).String()+
			"?_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)&_pragma=secure_delete(1)&_pragma=cache_size(-1048576)&_txlock=immediate")
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(1)
		g.w, g.r = db, db
	} else {
		p := realtest.PostgresWith(tb, realtest.PostgresOptions{Settings: settings})
		g.w, g.r, g.dsn = p.DB, p.DB, p.DSN
		save = func() error {
			p.DB.SetMaxIdleConns(0) // what was connected to the server as it was is of no use after it
			p.Stop(tb)
			defer p.Start(tb)
			return exec.CommandContext(ctx, "cp", "-a", p.Dir, filepath.Join(g.dir, "data")).Run()
		}
	}
	if err := g.compose(ctx); err != nil {
		return nil, err
	}
	customers, err := g.door(ctx, g.store, nil, g.files, "file")
	if err != nil {
		return nil, err
	}
	system := guard.Caller{Subject: authz.Subject{ID: "system", Tenant: "default", Roles: []string{"system"}, Active: true}}
	begin, said := time.Now(), time.Now()
	for from := 0; from < g.gen.rows; from += guard.MaxBatch {
		batch := make([]*crm.Customer, min(guard.MaxBatch, g.gen.rows-from))
		for i := range batch {
			batch[i] = g.gen.customer(from + i)
		}
		errs, err := customers.CreateAll(ctx, system, batch)
		if err := errors.Join(append(errs, err)...); err != nil {
			return nil, err
		}
		if time.Since(said) > 15*time.Second {
			said = time.Now()
			n := from + len(batch)
			fmt.Fprintf(progress, "%s: %d customers, %.0f a second\n", g.engine, n, float64(n)/time.Since(begin).Seconds())
		}
	}
	if err := g.files.Close(); err != nil {
		return nil, err
	}
	g.close = nil
	if g.dialect == dialect.SQLite {
		return nil, g.w.Close()
	}
	_, err = g.w.ExecContext(ctx, "ANALYZE") // what autovacuum does in time; nobody does it on SQLite
	return save, err
}

// settings of a private PostgreSQL: memory as a server of that size would have, durability left on.
var settings = []string{"shared_buffers=1GB", "max_wal_size=8GB", "work_mem=32MB", "max_connections=100"}

func (g *rig) file() string { return filepath.Join(g.dir, "crm.db") }

// serve opens what was sown as the program would. On PostgreSQL a kept folder is copied; without one the server that was filled goes on.
func (g *rig) serve(ctx context.Context, tb testing.TB, kept bool) error {
	if g.dialect == dialect.SQLite {
		w, r, err := dialect.OpenSQLite(ctx, g.file())
		if err != nil {
			return err
		}
		g.w, g.r, g.dsn = w, r, (&url.URL{Scheme: "file", Path: g.file()}).String()+"?mode=ro"
		g.close = append(g.close, w.Close, r.Close)
	} else if g.w == nil && kept {
		p := realtest.PostgresWith(tb, realtest.PostgresOptions{Settings: settings, Backup: filepath.Join(g.dir, "data"), Database: "crmguard"})
		g.w, g.r, g.dsn = p.DB, p.DB, p.DSN
	}
	if g.dialect == dialect.Postgres { // as the application has it
		g.r.SetMaxOpenConns(16)
		g.r.SetMaxIdleConns(16)
	}
	return g.compose(ctx)
}

// compose opens store, keys and the log on disk.
func (g *rig) compose(ctx context.Context) (err error) {
	if g.store, err = sqlstore.Open(ctx, g.w, g.r, g.dialect); err != nil {
		return err
	}
	if g.keys, err = keystore.Open(ctx, g.w, string(g.dialect), &keystore.Options{Reads: g.r}); err != nil {
		return err
	}
	if g.kek, err = localkek.Open(filepath.Join(g.dir, "kek"), nil); err != nil {
		return err
	}
	files, err := filestore.Open(filepath.Join(g.dir, "log"), nil)
	if err != nil {
		return err
	}
	g.files, err = g.openLog(ctx, files, "file")
	return err
}

func (g *rig) openLog(ctx context.Context, s driver.Store, name string) (*audit.Log, error) {
	signer, err := audit.OpenSigningKey(filepath.Join(g.dir, name+".key"), "bench/"+name)
	if err != nil {
		return nil, err
	}
	var opts audit.Options
	if name == "file" {
		opts.OnCommit = func(_, _ int, took time.Duration, _ error) { g.synced.Add(int64(took)) }
	}
	log, err := audit.Open(ctx, s, signer, &opts)
	if err != nil {
		return nil, err
	}
	g.close = append(g.close, log.Close)
	return log, nil
}

// memoryLog opens a log in memory.
func (g *rig) memoryLog(ctx context.Context, name string) (*audit.Log, error) {
	return g.openLog(ctx, auditmem.New(), name)
}

// door composes a guard over the store.
func (g *rig) door(ctx context.Context, store crm.Store, opts *encrypt.Options, log *audit.Log, name string) (*guard.Records[*crm.Customer], error) {
	keeper, err := encrypt.NewKeeper(g.kek, g.keys, opts)
	if err != nil {
		return nil, err
	}
	composed, _, err := guard.New(ctx, store, keeper, g.policy, log, &guard.Options{LogName: name, SearchPerHour: 1 << 30, ChecksPerHour: 1 << 30})
	if err != nil {
		return nil, err
	}
	return guard.For[*crm.Customer](ctx, composed, nil)
}

// sales is the sales person whose customers are read.
func (g *rig) sales() guard.Caller {
	return guard.Caller{Subject: authz.Subject{
		ID: employee(ours).String(), Tenant: "default", Roles: []string{"sales"}, Team: "/east/0/", Active: true,
	}}
}

// admin reads every field of every customer; identity numbers are masked for them too.
func (g *rig) admin() guard.Caller {
	return guard.Caller{Subject: authz.Subject{ID: employee(employees + 1).String(), Tenant: "default", Roles: []string{"admin"}, Team: "/", Active: true}}
}

// learn returns the queries that the store makes for one act through a guard of its own.
func (g *rig) learn(ctx context.Context, act func(*guard.Records[*crm.Customer]) error) ([]statement, error) {
	s := &spy{driver: g.r.Driver(), dsn: g.dsn}
	db := sql.OpenDB(s)
	defer db.Close()
	store, err := sqlstore.Open(ctx, g.w, db, g.dialect)
	if err != nil {
		return nil, err
	}
	log, err := g.memoryLog(ctx, "learn")
	if err != nil {
		return nil, err
	}
	records, err := g.door(ctx, store, nil, log, "learn")
	if err != nil {
		return nil, err
	}
	if err := act(records); err != nil { // the first one also asks for what is remembered then
		return nil, err
	}
	s.take()
	if err := act(records); err != nil {
		return nil, err
	}
	return s.take(), nil
}
