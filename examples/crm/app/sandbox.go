package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/sandbox"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/stock"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	keystore "github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/examples/crm/seed"
)

const (
	sandboxMark    = "sandbox"        // a file of the data folder of a sandbox
	actionSandbox  = "backup.sandbox" // a sandbox was made of a backup
	sandboxesNotes = "sandboxes"      // folder of notes of them that are to be logged
	rowsPrefix     = "crm_rows_"      // of the tables of records
)

// SandboxOptions of [Sandbox].
type SandboxOptions struct {
	Into     string // the data folder that is made. Needed; it is empty or not there
	DB       string // an empty PostgreSQL database; "" = an SQLite file in Into. It is of the kind that the backup is of
	Snapshot string // "": the newest
	Recovery string // path of the key that opens backups; "": the data folder's
	Older    bool   // as of Restore
}

// Sandbox restores a backup into a CRM of its own that has no real person in it: other names, phones, texts and ids, its own keys, log and accounts. It
// needs the recovery key and no KEK, for nothing sealed is opened. Each of seed's roles that somebody has gets an account; the one-time passwords are returned and kept nowhere.
// The living database is not touched; its log says that there is a sandbox.
func Sandbox(ctx context.Context, c Config, o SandboxOptions, observer func(backup.Progress)) (snap backup.Snapshot, logins []OneTime, err error) {
	if err := c.complete(); err != nil {
		return snap, nil, err
	}
	if o.Into, err = newFolder(o.Into); err != nil {
		return snap, nil, err
	}
	if o.Recovery == "" {
		o.Recovery = c.path(recoveryKey)
	}
	key, err := backupkey.Read(o.Recovery)
	if err != nil {
		return snap, nil, err
	}
	repo, err := c.repositoryAt(ctx, false, o.Older, observer)
	if err != nil {
		return snap, nil, err
	}
	defer repo.close()
	// What is not whole lies beside the place and never in it.
	if err := os.MkdirAll(filepath.Dir(o.Into), 0o700); err != nil {
		return snap, nil, fmt.Errorf("crm: sandbox folder: %w", err)
	}
	half, err := os.MkdirTemp(filepath.Dir(o.Into), filepath.Base(o.Into)+".half-")
	if err != nil {
		return snap, nil, fmt.Errorf("crm: sandbox folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(half)) }()
	t := Config{Data: half, DB: o.DB, Instance: "main"}
	if err := t.complete(); err != nil {
		return snap, nil, err
	}
	if err := os.WriteFile(t.path(sandboxMark), nil, 0o600); err != nil {
		return snap, nil, fmt.Errorf("crm: sandbox folder: %w", err)
	}
	if snap, err = t.imitate(ctx, repo, key, o.Snapshot); err != nil {
		return snap, nil, err
	}
	if logins, err = t.inhabit(ctx); err != nil {
		return snap, nil, err
	}
	if err := c.noteSandbox(ctx, snap.ID); err != nil {
		return snap, nil, err
	}
	if err := os.Rename(half, o.Into); err != nil {
		return snap, nil, fmt.Errorf("crm: sandbox folder: %w", err)
	}
	return snap, logins, nil
}

// newFolder refuses a folder that holds something.
func newFolder(path string) (string, error) {
	if path == "" {
		return "", errors.New("crm: a sandbox needs a folder")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("crm: sandbox folder: %w", err)
	}
	switch list, err := os.ReadDir(path); {
	case err == nil && len(list) > 0:
		return "", fmt.Errorf("%w: the folder of the sandbox", backup.ErrNotEmpty)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("crm: sandbox folder: %w", err)
	}
	return path, nil
}

// imitate fills the database, the keys and the log of a sandbox.
func (c *Config) imitate(ctx context.Context, repo *repository, key *backupkey.Private, id string) (snap backup.Snapshot, err error) {
	a := &App{Config: *c}
	if a.lock, err = acquire(c); err != nil {
		return snap, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	kek, closeKEK, err := openKEK(ctx, c)
	if err != nil {
		return snap, err
	}
	a.close = append(a.close, closeKEK)
	// The database is being filled by one transaction: keys wait beside it.
	held := keys.NewMemory()
	sealer, err := encrypt.NewKeeper(kek, held, nil)
	if err != nil {
		return snap, err
	}
	m := &imitation{inventor: sandbox.NewInventor(), dead: keys.NewMemory()}
	defer m.inventor.Forget()
	if m.erased, err = encrypt.NewKeeper(kek, m.dead, nil); err != nil {
		return snap, err
	}
	if m.doubles, err = doubles(sealer); err != nil {
		return snap, err
	}
	opts := &sandbox.Options{Tables: sandboxRules(m.doubles), Person: m.person, Seal: m.seal}
	with := &backup.RestoreOptions{Tombstones: m.bury} // and no keys
	look, err := sandbox.Sink(nil, m.inventor, opts)
	if err != nil {
		return snap, err
	}
	if snap, err = repo.Restore(ctx, id, look, key, with); err != nil {
		return snap, err
	}
	if a.db, err = openDatabase(ctx, c); err != nil {
		return snap, err
	}
	a.close = append(a.close, a.db.close)
	to, err := sandbox.Sink(dumper(a.db), m.inventor, opts)
	if err != nil {
		return snap, err
	}
	if snap, err = repo.Restore(ctx, snap.ID, to, key, with); err != nil {
		return snap, err
	}
	stored, err := keystore.Open(ctx, a.db.w, string(a.db.dialect), &keystore.Options{Reads: a.db.r})
	if err != nil {
		return snap, err
	}
	if a.Keeper, err = encrypt.NewKeeper(kek, stored, nil); err != nil {
		return snap, err
	}
	if err := (probed{keyShards{a.Keeper}}).ImportKeys(ctx, keyShards{sealer}.ExportKeys(ctx)); err != nil {
		return snap, err
	}
	if err := reindex(ctx, a.db); err != nil {
		return snap, err
	}
	if err := a.openLog(ctx); err != nil {
		return snap, err
	}
	if err := guard.MarkRestored(ctx, a.Log, Tenant, "system", snap.ID, 0); err != nil {
		return snap, err
	}
	return snap, a.note(ctx, actionPopulated)
}

// inhabit makes accounts in a sandbox: one for each role that an active employee has, an administrator in any case.
func (c *Config) inhabit(ctx context.Context) (logins []OneTime, err error) {
	a, err := Open(ctx, *c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	var all []*crm.Employee
	if err := each(ctx, a.Employees, guard.Query{}, func(e *crm.Employee) { all = append(all, e) }); err != nil {
		return nil, err
	}
	has := map[crm.UUID]bool{}
	for _, l := range seed.Logins {
		i := slices.IndexFunc(all, func(e *crm.Employee) bool {
			return e.Active() && slices.Contains(e.Roles, l.Role) && !e.Email.IsEmpty() && !has[e.ID.UUID()]
		})
		var e *crm.Employee
		switch {
		case i >= 0:
			e = all[i]
		case l.Role != "admin":
			continue
		default:
			if e, err = a.stranger(ctx); err != nil {
				return nil, err
			}
		}
		has[e.ID.UUID()] = true
		login := e.Email.Expose()
		p, err := a.AddAccount(ctx, login, e.ID.UUID())
		if err != nil {
			return nil, err
		}
		logins = append(logins, OneTime{l.Role, login, p})
	}
	return logins, nil
}

// stranger makes an administrator of nobody.
func (a *App) stranger(ctx context.Context) (*crm.Employee, error) {
	e := seed.Admin()
	e.ID, e.Person, e.Email = crm.NewID[crm.Employee](), crm.NewID[crm.Person](), crm.NewText("admin@sandbox.invalid")
	if err := fill(ctx, a.Employees, []*crm.Employee{e}); err != nil {
		return nil, err
	}
	return e, a.certify(ctx, e, "admin", crm.ID[crm.Employee]{}, time.Now().Add(certifiedFor), "")
}

// IsSandbox tells whether nobody in this installation is real.
func (c *Config) IsSandbox() bool {
	_, err := os.Stat(c.path(sandboxMark))
	return err == nil
}

// doubles lists the types that a sandbox holds, by table.
func doubles(keeper *encrypt.Keeper) (map[string]*guard.Doubles, error) {
	out := map[string]*guard.Doubles{}
	var errs []error
	add := func(d *guard.Doubles, err error) {
		if err == nil {
			out[rowsPrefix+d.Schema().Type] = d
		}
		errs = append(errs, err)
	}
	add(guard.DoublesOf[*crm.Customer](keeper, nil))
	add(guard.DoublesOf[*crm.Contact](keeper, nil))
	add(guard.DoublesOf[*crm.Lead](keeper, nil))
	add(guard.DoublesOf[*crm.FollowUp](keeper, nil))
	add(guard.DoublesOf[*crm.Quote](keeper, nil))
	add(guard.DoublesOf[*crm.Contract](keeper, nil))
	add(guard.DoublesOf[*crm.Ticket](keeper, nil))
	add(guard.DoublesOf[*crm.Employee](keeper, nil))
	add(guard.DoublesOf[*pool.Pool](keeper, nil))
	add(guard.DoublesOf[*pool.Ownership](keeper, nil))
	add(guard.DoublesOf[*crm.Series](keeper, nil))
	add(guard.DoublesOf[*sales.Pipeline](keeper, nil))
	add(guard.DoublesOf[*sales.Opportunity](keeper, nil))
	add(guard.DoublesOf[*sales.Product](keeper, nil))
	add(guard.DoublesOf[*finance.Period](keeper, nil))
	add(guard.DoublesOf[*finance.Receipt](keeper, nil))
	add(guard.DoublesOf[*finance.Instalment](keeper, nil))
	add(guard.DoublesOf[*stock.Warehouse](keeper, nil))
	add(guard.DoublesOf[*stock.Movement](keeper, nil))
	return out, errors.Join(errs...)
}

// left are the tables of which a sandbox takes no row: how people signed in, who may do what, which begins anew, and the place in
// a log that is another one's. What would take a merge back in a sandbox is not there: the dropped record is in the bin like any other.
var left = []string{
	rowsPrefix + "account", rowsPrefix + crm.TypeEmergency, rowsPrefix + crm.TypeDelegation, rowsPrefix + crm.TypeSharing,
	rowsPrefix + crm.TypeCertification, rowsPrefix + crm.TypeCampaign, rowsPrefix + crm.TypeExport, "crm_applied",
	rowsPrefix + crm.TypeEndpoint, rowsPrefix + crm.TypeDelivery, rowsPrefix + crm.TypeCursor, // nobody hears of a sandbox
	rowsPrefix + crm.TypeImport, rowsPrefix + crm.TypeKept, rowsPrefix + crm.TypeMerge,
	rowsPrefix + crm.TypeSuppression, rowsPrefix + crm.TypeErasure, rowsPrefix + crm.TypeHold, // there is nobody in a sandbox who was erased, or whom a court wants kept
}

// numbered are clear fields that name a record outside of this CRM, on paper or in another system.
var numbered = []string{"number", "external_id"}

// composed are clear fields of several parts that name nobody. All others of that kind stay empty, as the parties of a contract, which refer to records.
var composed = []string{"lines", "pauses", "roles", "stages", "clocks", "hide"}

// named are clear texts that list people by their ids. They stay empty: nobody had a part in what a sandbox holds.
var named = []string{"actors"}

// sandboxRules says what becomes of each column: what the protect tags say of the records, and what the tables around them hold.
// Tables of PostgreSQL are named with their schema.
func sandboxRules(all map[string]*guard.Doubles) map[string]sandbox.Table {
	keep := func(columns ...string) map[string]sandbox.Rule {
		out := map[string]sandbox.Rule{}
		for _, c := range columns {
			out[c] = sandbox.Keep
		}
		return out
	}
	rules := map[string]sandbox.Table{
		"crm_counter": {Columns: keep("id", "seq")},
		"crm_types":   {Columns: keep("type_id", "type", "columns")},
		"crm_spaces":  {Columns: keep("space", "tenant", "type")},
		"crm_schema":  {Columns: keep("id", "version_id", "is_applied", "tstamp")},
	}
	for _, name := range left {
		rules[name] = sandbox.Table{Empty: true}
	}
	for name, d := range all {
		columns := keep("row_id", "space", "version", "change_seq", "deleted")
		columns["id"], columns["body"] = sandbox.Remap, sandbox.Seal
		for _, f := range d.Fields() {
			if f.Clear {
				columns["c_"+f.Name] = clearRule(f)
			}
		}
		rules[name] = sandbox.Table{Columns: columns}
	}
	for name, t := range maps.Clone(rules) {
		rules["public."+name] = t
	}
	return rules
}

// clearRule says what becomes of a clear field; the codec lets none through that is personal.
func clearRule(f encrypt.Field) sandbox.Rule {
	switch {
	case f.Class != encrypt.Public && f.Class != encrypt.Internal, slices.Contains(named, f.Name):
		return sandbox.Null
	case f.Kind == encrypt.KindID, f.Kind == encrypt.KindText && slices.Contains(numbered, f.Name):
		return sandbox.Remap
	case f.Kind == encrypt.KindTime:
		return sandbox.Shift
	case f.Kind == encrypt.KindJSON && !slices.Contains(composed, f.Name):
		return sandbox.Null
	}
	return sandbox.Keep
}

// sealedRule says what is invented for a sealed field, as its tag says what it is.
func sealedRule(f encrypt.Field) sandbox.Rule {
	is := f.Mask
	if is == "" && len(f.Indexes) > 0 {
		is = f.Indexes[0].Normalizer
	}
	switch is {
	case "name", "person":
		return sandbox.Name
	case "phone":
		return sandbox.Phone
	case "email":
		return sandbox.Email
	case "address":
		return sandbox.Address
	case "idnumber":
		return sandbox.IDNumber
	}
	return sandbox.Text
}

// imitation invents what is sealed.
type imitation struct {
	inventor *sandbox.Inventor
	doubles  map[string]*guard.Doubles
	dead     *keys.Memory // tombstones
	buried   bool
	erased   *encrypt.Keeper // knows them, and no key
}

func (m *imitation) of(table string) *guard.Doubles {
	return m.doubles[strings.TrimPrefix(table, "public.")]
}

// bury takes the tombstones: what was sealed under a destroyed key is not invented either.
func (m *imitation) bury(ctx context.Context, list backup.Tombstones) error {
	records := make([]keys.Record, len(list.Records))
	for i, b := range list.Records {
		if err := records[i].UnmarshalBinary(b); err != nil {
			return err
		}
		if records[i].Kind != keys.Tombstone || records[i].Tenant != Tenant {
			return keys.ErrRecord
		}
	}
	if len(records) == 0 {
		return nil
	}
	m.buried = true
	_, err := m.dead.Erase(ctx, Tenant, records)
	return err
}

func (m *imitation) person(r sandbox.Row) ([]byte, error) {
	d := m.of(r.Table)
	if d == nil {
		return nil, nil
	}
	body, ok := r.Get("body").([]byte)
	if !ok {
		return nil, crm.ErrDamaged
	}
	p, err := d.Person(body)
	return p[:], err
}

// seal makes the body of a row.
func (m *imitation) seal(ctx context.Context, r sandbox.Row, _ string, old any) (any, error) {
	d := m.of(r.Table)
	body, isBody := old.([]byte)
	id, isID := r.Get("id").([]byte)
	version, isVersion := r.Get("version").(int64)
	if d == nil || !isBody || !isID || len(id) != len(crm.UUID{}) || !isVersion {
		return nil, crm.ErrDamaged
	}
	row := crm.Row{
		Tenant: Tenant, Type: d.Schema().Type, ID: crm.UUID(id), Version: version, Deleted: r.Get("deleted") == int64(1),
	}
	for _, c := range d.Schema().Columns {
		v, err := valueOf(c.Kind, r.Get("c_"+c.Name))
		if err != nil {
			return nil, err
		}
		row.Clear = append(row.Clear, v)
	}
	company := row.Type == crm.TypeCustomer && r.Get("c_kind") == string(crm.CompanyCustomer)
	return d.Body(ctx, row, body, guard.Invention{
		Person: func(u crm.UUID) crm.UUID { return m.inventor.ID(u) },
		Value: func(f encrypt.Field, person crm.UUID, sealed []byte) (string, error) {
			if m.buried {
				missing, err := m.erased.MissingKeys(ctx, Tenant, [][]byte{sealed})
				if err != nil || len(missing) == 0 {
					return "", err
				}
			}
			rule := sealedRule(f)
			// What is said of a person under another's record is what that person's own says.
			field := f.Name
			if f.Person != "" {
				field = string(rule)
			}
			if rule == sandbox.Name && (field == "company" || company && field == "name") {
				rule = sandbox.Company
			}
			return m.inventor.Value(rule, string(person[:]), field), nil
		},
	})
}

// valueOf reads a clear column of either database.
func valueOf(kind crm.Kind, v any) (crm.Value, error) {
	switch x := v.(type) {
	case nil:
		return crm.Value{}, nil
	case string:
		if kind == crm.KindString {
			return crm.StringValue(x), nil
		}
	case bool:
		if kind == crm.KindBool {
			return crm.BoolValue(x), nil
		}
	case int64:
		switch kind {
		case crm.KindInt:
			return crm.IntValue(x), nil
		case crm.KindBool:
			return crm.BoolValue(x != 0), nil
		case crm.KindTime:
			return crm.TimeValue(time.UnixMicro(x)), nil
		}
	}
	return crm.Value{}, crm.ErrDamaged
}

// sandboxNote is what the log is to say of a sandbox.
type sandboxNote struct {
	Snapshot string    `json:"snapshot"`
	At       time.Time `json:"at"`
}

// noteSandbox sees to it that the log of the installation says that a sandbox was made, by a serving process when there is
// one. On a host that has no log nothing is noted.
func (c *Config) noteSandbox(ctx context.Context, snapshot string) error {
	if c.MustExist() != nil {
		return nil
	}
	if err := os.MkdirAll(c.path(sandboxesNotes), 0o700); err != nil {
		return fmt.Errorf("crm: data folder: %w", err)
	}
	now := time.Now().UTC()
	b, err := json.Marshal(sandboxNote{snapshot, now})
	if err != nil {
		return err
	}
	if err := writeWhole(filepath.Join(c.path(sandboxesNotes), now.Format("20060102T150405.000000000Z")+".json"), b); err != nil {
		return fmt.Errorf("crm: data folder: %w", err)
	}
	// Where the installation does not stand, the next that does says it.
	_, closeKEK, err := openOldKEK(ctx, c)
	if err != nil {
		return nil
	}
	_ = closeKEK()
	db, err := openExisting(ctx, c)
	if err != nil {
		return nil
	}
	defer db.close()
	return alone(ctx, c, db, func(a *App) error { return a.NoteSandboxes(ctx) })
}

// NoteSandboxes puts sandboxes into the log that are not there yet: other processes make them.
func (a *App) NoteSandboxes(ctx context.Context) error {
	a.backups.Lock()
	defer a.backups.Unlock()
	list, err := os.ReadDir(a.Config.path(sandboxesNotes))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("crm: data folder: %w", err)
	}
	for _, f := range list {
		if !strings.HasSuffix(f.Name(), ".json") {
			continue // one that is just being written
		}
		path := filepath.Join(a.Config.path(sandboxesNotes), f.Name())
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("crm: data folder: %w", err)
		}
		var n sandboxNote
		if json.Unmarshal(b, &n) != nil || len(n.Snapshot) > 64 {
			continue // not one of ours
		}
		if _, err := a.Log.Append(ctx, audit.Event{
			Action: actionSandbox, Activity: audit.Restore, Outcome: audit.Allowed, Tenant: Tenant, Actor: "system",
			Note: n.Snapshot + " " + n.At.Format(time.RFC3339),
		}); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("crm: data folder: %w", err)
		}
	}
	return nil
}
