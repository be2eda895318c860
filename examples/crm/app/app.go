package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/audit/witness"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/outbox"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/crm/privacy"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/crm/stock"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	keystore "github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/encrypt/vault"
	"github.com/crmguard/crmguard/internal/dialect"
)

// ErrInUse says that another process writes in the data folder.
var ErrInUse = errors.New("crm: the data folder is in use by another crm process (a running serve?); stop it first")

// App is the opened CRM.
type App struct {
	Config Config
	Guard  *guard.Guard
	Log    *audit.Log
	Keeper *encrypt.Keeper
	First  bool // the database held nothing before
	// Aborted is how many writes a crash had announced and not made; each is marked so in the log.
	Aborted int

	Customers *guard.Records[*crm.Customer]
	Contacts  *guard.Records[*crm.Contact]
	Leads     *guard.Records[*crm.Lead]
	FollowUps *guard.Records[*crm.FollowUp]
	Quotes    *guard.Records[*crm.Quote]
	Contracts *guard.Records[*crm.Contract]
	Tickets   *guard.Records[*crm.Ticket]
	Employees *guard.Records[*crm.Employee]
	Accounts  *guard.Records[*Account]

	Pools         *guard.Records[*pool.Pool]
	Ownerships    *guard.Records[*pool.Ownership]
	Series        *guard.Records[*crm.Series]
	Pipelines     *guard.Records[*sales.Pipeline]
	Opportunities *guard.Records[*sales.Opportunity]
	Products      *guard.Records[*sales.Product]
	Periods       *guard.Records[*finance.Period]
	Receipts      *guard.Records[*finance.Receipt]
	Instalments   *guard.Records[*finance.Instalment]
	Warehouses    *guard.Records[*stock.Warehouse]
	Movements     *guard.Records[*stock.Movement]
	Desk          *desk.Desk // the acts that touch several of these
	Duplicates    Duplicates
	Resumed       int // merges and undoings that a crash had cut off before their persons were joined or parted, and that the start ended

	Outbox     *outbox.Outbox // sends changes to the endpoints
	Endpoints  *guard.Records[*outbox.Endpoint]
	Deliveries *guard.Records[*outbox.Delivery]
	Cursors    *guard.Records[*outbox.Cursor]

	Emergencies    *guard.Records[*crm.Emergency]
	Delegations    *guard.Records[*crm.Delegation]
	Sharings       *guard.Records[*crm.Sharing]
	Certifications *guard.Records[*crm.Certification]
	Campaigns      *guard.Records[*crm.Campaign]
	Exports        *guard.Records[*crm.Export]
	Imports        *guard.Records[*transfer.Import]
	Kept           *guard.Records[*transfer.Kept] // of imports: rejected rows and former values
	Merges         *guard.Records[*crm.Merge]
	Suppressions   *privacy.List // knows again who was erased
	Erasures       *guard.Records[*privacy.Erasure]
	Holds          *privacy.Holds
	Policy         *rego.Engine

	Sessions *session.Manager
	signing  signing

	access    access
	policy    policyWatch
	emergency sync.Mutex // one request or approval at a time
	erasing   sync.Mutex // one request for an erasure at a time
	due       sync.Mutex // one run at a time of what time asks for
	now       func() time.Time
	db        databases
	store     crm.Store
	openings  *openings
	outside   *outside
	kek       keys.KEK
	lock      *os.File
	close     []func() error
	once      sync.Once
	imports   *importJobs
	backups   sync.Mutex
	verdict   verdictCache
}

// databases are the handles of one database: on SQLite one that writes and a pool that reads.
type databases struct {
	w, r    *sql.DB
	dialect dialect.Dialect
}

func openDatabase(ctx context.Context, c *Config) (databases, error) {
	d := databases{dialect: c.Dialect()}
	var err error
	if d.dialect == dialect.SQLite {
		d.w, d.r, err = dialect.OpenSQLite(ctx, c.DB)
		return d, err
	}
	if d.w, err = sql.Open("pgx", c.DB); err != nil {
		return d, errors.New("crm: --db is not a PostgreSQL URL") // the driver's error repeats the URL
	}
	d.w.SetMaxOpenConns(16)
	d.r = d.w
	if err := d.w.PingContext(ctx); err != nil {
		d.close()
		return d, fmt.Errorf("crm: PostgreSQL cannot be reached (%s)", code(err))
	}
	return d, nil
}

func code(err error) string {
	if c := dialect.Code(err); c != "" {
		return c
	}
	return "no answer"
}

// close ends the readers first: SQLite empties its WAL into the database when the last connection ends,
// which must be one that can write.
func (d databases) close() error {
	var err error
	if d.r != d.w {
		err = d.r.Close()
	}
	return errors.Join(err, d.w.Close())
}

// openExisting is openDatabase for commands that must not make a database, nor keys in an empty one.
func openExisting(ctx context.Context, c *Config) (databases, error) {
	none := errors.New("crm: there is no database here; crm restore brings one back from a backup")
	if c.Dialect() == dialect.SQLite {
		if _, err := os.Stat(c.DB); err != nil {
			return databases{}, none
		}
	}
	db, err := openDatabase(ctx, c)
	if err == nil && !db.holdsRows(ctx) {
		return databases{}, errors.Join(none, db.close())
	}
	return db, err
}

// openKEK opens the key encryption key that the configuration names.
func openKEK(ctx context.Context, c *Config) (keys.KEK, func() error, error) {
	kind, name, _ := strings.Cut(c.KEK, ":")
	if kind == "vault" {
		k, err := vault.Open(ctx, vault.Config{Key: name})
		if err != nil {
			return nil, nil, err
		}
		return k, k.Close, nil
	}
	k, err := localkek.Open(name, nil)
	return k, func() error { return nil }, err
}

// openOldKEK is openKEK where keys exist already, which a new one would not open.
func openOldKEK(ctx context.Context, c *Config) (keys.KEK, func() error, error) {
	if kind, name, _ := strings.Cut(c.KEK, ":"); kind == "local" {
		if _, err := os.Stat(name); err != nil {
			return nil, nil, errors.New("crm: there is no KEK here: bring the file of --kek back first, for without it no key of a person opens")
		}
	}
	return openKEK(ctx, c)
}

// probe asks for the tenant's keys once: a KEK that does not open them is told apart from rows that do
// not authenticate, before any row is looked at.
func probe(ctx context.Context, keeper *encrypt.Keeper) error {
	_, err := keeper.MAC(ctx, Tenant, "probe", nil)
	if errors.Is(err, encrypt.ErrTampered) {
		return errors.New("crm: the KEK does not open the keys in the database: it is another one, or they were changed")
	}
	return err
}

// acquire takes the data folder for writing. The lock dies with the process.
func acquire(c *Config) (*os.File, error) {
	f, err := os.OpenFile(c.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("crm: data folder: %w", err)
	}
	if err := tryLock(f); err != nil {
		f.Close()
		return nil, ErrInUse
	}
	return f, nil
}

// Open opens everything for reading and writing. Only one process at a time has a data folder open;
// ErrInUse says that another has. The caller closes what is returned.
func Open(ctx context.Context, c Config) (a *App, err error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	if err := c.prepare(); err != nil {
		return nil, err
	}
	a = &App{Config: c, now: time.Now, imports: newImportJobs()}
	defer func() {
		if err != nil {
			_ = a.Close() // err says what went wrong first
			a = nil
		}
	}()
	if a.lock, err = acquire(&a.Config); err != nil {
		return a, err
	}
	if err := restoring(&a.Config); err != nil {
		return a, err
	}
	if a.db, err = openDatabase(ctx, &a.Config); err != nil {
		return a, err
	}
	a.close = append(a.close, a.db.close)
	kek, closeKEK, err := openKEK(ctx, &a.Config)
	if err != nil {
		return a, err
	}
	a.kek = kek
	a.close = append(a.close, closeKEK)
	keys, err := keystore.Open(ctx, a.db.w, string(a.db.dialect), &keystore.Options{Reads: a.db.r})
	if err != nil {
		return a, err
	}
	if a.Keeper, err = encrypt.NewKeeper(kek, keys, &encrypt.Options{Held: a.held}); err != nil {
		return a, err
	}
	if err = a.openLog(ctx); err != nil {
		return a, err
	}
	a.Config.head = a.knownHead
	if err = a.checkNotLost(ctx); err != nil {
		return a, err
	}
	if err = probe(ctx, a.Keeper); err != nil {
		return a, err
	}
	if err = a.openPolicy(ctx); err != nil {
		return a, err
	}
	if err = finishReindex(ctx, a.db); err != nil {
		return a, err
	}
	if a.store, err = openStore(ctx, a.db); err != nil {
		return a, err
	}
	if a.Guard, a.Aborted, err = guard.New(ctx, a.store, a.Keeper, a.Policy, a.Log, &guard.Options{
		LogName: a.Config.Instance, SearchPerHour: 3 * 120, // a search of the pages asks three types
		Written: a.wrote,
	}); err != nil {
		return a, err
	}
	a.close = append(a.close, func() error { return a.Guard.Settle(context.WithoutCancel(ctx)) })
	if err = a.openRecords(ctx); err != nil {
		return a, err
	}
	a.close = append(a.close, a.imports.end)
	if err = a.openSigning(ctx); err != nil {
		return a, err
	}
	return a, a.firstStart(ctx)
}

// Store returns the rows, for tools and tests that look at them from outside the guard.
func (a *App) Store() crm.Store { return a.store }

// openStore opens the rows.
func openStore(ctx context.Context, db databases) (crm.Store, error) {
	return sqlstore.Open(ctx, db.w, db.r, db.dialect)
}

// finishReindex makes the index tokens where that was begun and not ended, or their tables are missing.
func finishReindex(ctx context.Context, db databases) error {
	store, err := sqlstore.Open(ctx, db.w, db.r, db.dialect)
	if err != nil {
		return err
	}
	unfinished, err := store.Reindexing(ctx)
	if err != nil || !unfinished {
		return err
	}
	return store.Reindex(ctx, nil)
}

func (a *App) openRecords(ctx context.Context) error {
	var errs []error
	a.Customers = open[*crm.Customer](ctx, a, &errs)
	a.Contacts = open[*crm.Contact](ctx, a, &errs)
	a.Leads = open[*crm.Lead](ctx, a, &errs)
	a.FollowUps = open[*crm.FollowUp](ctx, a, &errs)
	a.Quotes = open[*crm.Quote](ctx, a, &errs)
	a.Contracts = open[*crm.Contract](ctx, a, &errs)
	a.Tickets = open[*crm.Ticket](ctx, a, &errs)
	a.Employees = open[*crm.Employee](ctx, a, &errs)
	a.Accounts = open[*Account](ctx, a, &errs)
	a.Emergencies = open[*crm.Emergency](ctx, a, &errs)
	a.Delegations = open[*crm.Delegation](ctx, a, &errs)
	a.Sharings = open[*crm.Sharing](ctx, a, &errs)
	a.Certifications = open[*crm.Certification](ctx, a, &errs)
	a.Campaigns = open[*crm.Campaign](ctx, a, &errs)
	a.Exports = open[*crm.Export](ctx, a, &errs)
	a.Imports = open[*transfer.Import](ctx, a, &errs)
	a.Kept = open[*transfer.Kept](ctx, a, &errs)
	a.Merges = open[*crm.Merge](ctx, a, &errs)
	a.Pools = open[*pool.Pool](ctx, a, &errs)
	a.Ownerships = open[*pool.Ownership](ctx, a, &errs)
	a.Series = open[*crm.Series](ctx, a, &errs)
	a.Pipelines = open[*sales.Pipeline](ctx, a, &errs)
	a.Opportunities = open[*sales.Opportunity](ctx, a, &errs)
	a.Products = open[*sales.Product](ctx, a, &errs)
	a.Periods = open[*finance.Period](ctx, a, &errs)
	a.Receipts = open[*finance.Receipt](ctx, a, &errs)
	a.Instalments = open[*finance.Instalment](ctx, a, &errs)
	a.Warehouses = open[*stock.Warehouse](ctx, a, &errs)
	a.Movements = open[*stock.Movement](ctx, a, &errs)
	a.Endpoints = open[*outbox.Endpoint](ctx, a, &errs)
	a.Deliveries = open[*outbox.Delivery](ctx, a, &errs)
	a.Cursors = open[*outbox.Cursor](ctx, a, &errs)
	var err error
	a.Suppressions, err = privacy.Open(ctx, a.Guard, System, &privacy.Options{Clock: func() time.Time { return a.now() }})
	errs = append(errs, err)
	a.Erasures = open[*privacy.Erasure](ctx, a, &errs)
	a.Holds, err = privacy.OpenHolds(ctx, a.Guard, System, func() time.Time { return a.now() })
	errs = append(errs, err)
	a.openDesk()
	errs = append(errs, a.openOutbox())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return a.openDuplicates(ctx)
}

// open makes the door of one type; For's constraint wants the pointer type spelled out.
func open[P guard.Record](ctx context.Context, a *App, errs *[]error) *guard.Records[P] {
	r, err := guard.For[P](ctx, a.Guard, nil)
	if err != nil {
		*errs = append(*errs, err)
	}
	return r
}

// logName is the origin of this instance's log.
func (c *Config) logName() string { return "crmguard.example/" + Tenant + "/" + c.Instance }

func (c *Config) logFolder() string {
	if c.Instance == "main" {
		return c.path("log")
	}
	return c.path("log-" + c.Instance)
}

// openLog opens the log for writing, against the newest head that was kept outside of it.
func (a *App) openLog(ctx context.Context) error {
	if _, err := os.Stat(a.Config.path("signing.key")); err != nil {
		if _, err := os.Stat(a.Config.logFolder()); err == nil {
			return errors.New("crm: there is a log, but signing.key is gone; put it back, for another key would not continue this log")
		}
	}
	signer, err := audit.OpenSigningKey(a.Config.path("signing.key"), a.Config.logName())
	if err != nil {
		return err
	}
	pins, err := openPins(ctx, a.db, a.Config.Instance)
	if err != nil {
		return err
	}
	if err := pins.register(ctx); err != nil {
		return err
	}
	head, err := pins.newest(ctx, signer.VerifierKey())
	if err != nil {
		return err
	}
	store, err := filestore.Open(a.Config.logFolder(), nil)
	if err != nil {
		return err
	}
	if a.outside, err = openOutside(&a.Config); err != nil {
		return err
	}
	copies, err := a.outside.heads(ctx, &a.Config)
	if err != nil {
		return err
	}
	a.openings = a.Config.openings()
	opened := make(chan struct{}) // a head that comes before all of this is set up waits
	defer close(opened)
	a.Log, err = audit.Open(ctx, store, signer, &audit.Options{
		Sealer:     sealer{a.Keeper, a.openings},
		PinnedHead: largest(append(copies, head)),
		OnCheckpoint: func(cp audit.Checkpoint) {
			<-opened
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			pins.keep(ctx, a.outside.give(ctx, cp))
		},
	})
	if err != nil {
		return err
	}
	a.close = append(a.close, a.openings.close, a.Log.Close, func() error {
		return a.outside.last(context.WithoutCancel(ctx), a.Log, pins.keep)
	})
	if err := a.outside.witnessedBy(ctx, a.Log); err != nil {
		return err
	}
	return a.openSIEM()
}

// largest returns the head of the most events, nil when there is none.
func largest(heads [][]byte) (best []byte) {
	size := uint64(0)
	for _, h := range heads {
		if head, err := witness.ParseHead(h); err == nil && (best == nil || head.Size > size) {
			best, size = h, head.Size
		}
	}
	return best
}

// Close ends everything in the reverse order of its opening. It may be called twice.
func (a *App) Close() error {
	var errs []error
	a.once.Do(func() {
		for i := len(a.close) - 1; i >= 0; i-- {
			errs = append(errs, a.close[i]())
		}
		if a.lock != nil {
			errs = append(errs, a.lock.Close())
		}
	})
	return errors.Join(errs...)
}
