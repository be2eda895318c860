package app

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/mirror"
	"github.com/crmguard/crmguard/backup/policy"
	"github.com/crmguard/crmguard/backup/sqlsource"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	keystore "github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
)

// excluded are the tables that no backup holds: sessions and what else lives no longer than a sign-in, passkeys (who has only these comes back by a code from paper), wrapped keys, which lie in the shard bucket, the
// heads of the log, which belong to the running installation, and the indexes of tokens and persons, which follow from the rows.
var excluded = []string{"encrypt_", "authn_", "app_", "crm_tokens", "crm_recent", "crm_uniques", "crm_persons", "crm_reindex"}

// Files of the data folder that backups need.
const (
	recoveryKey   = "recovery.key"       // opens backups; belongs elsewhere
	recoveryPub   = "recovery.pub"       // seals them
	manifestKey   = "backup-signing.key" // signs manifests
	manifestPin   = "backup-signing.pub" // checks them
	restoringMark = "restoring"          // there while a restore runs
)

// backupKeys makes the keys of backups on first use. A public key is there whole or not at all, and one whose making was cut off is made
// from its private key.
func (c *Config) backupKeys() error {
	return errors.Join(
		c.publish(recoveryPub, func() (string, error) {
			key, err := backupkey.Read(c.path(recoveryKey))
			if errors.Is(err, fs.ErrNotExist) {
				if key, err = backupkey.Generate(); err == nil {
					err = key.WriteFile(c.path(recoveryKey))
				}
			}
			if err != nil {
				return "", err
			}
			return key.Public().String(), nil
		}),
		c.publish(manifestPin, func() (string, error) {
			key, err := backupkey.ReadSigner(c.path(manifestKey))
			if errors.Is(err, fs.ErrNotExist) {
				key, err = backupkey.CreateSigner(c.path(manifestKey))
			}
			if err != nil {
				return "", err
			}
			return hex.EncodeToString(key.Public().(ed25519.PublicKey)), nil
		}),
	)
}

// publish writes the line that make returns to a file that is not there yet.
func (c *Config) publish(name string, make func() (string, error)) error {
	if _, err := os.Stat(c.path(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	line, err := make()
	if err != nil {
		return err
	}
	return writeWhole(c.path(name), []byte(line+"\n"))
}

// writeWhole writes a file so that a reader, and a machine that comes back, finds the old one or the new one.
func writeWhole(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// repository is the backups, opened.
type repository struct {
	*backup.Repository
	data, shards *mirror.Bucket   // nil where there is one place
	places       []place          // of the data
	missing      map[string]error // copies that do not answer
	close        func()
}

// pin reads the public key that manifests are checked with.
func (c *Config) pin() (ed25519.PublicKey, error) {
	if _, err := os.Stat(c.path(manifestPin)); err != nil {
		return nil, fmt.Errorf("crm: there is no %s: no backup was made from this folder", manifestPin)
	}
	return readPin(c.path(manifestPin))
}

func readPin(path string) (ed25519.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, errors.New("crm: the file of the public key cannot be read")
	}
	pin, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(pin) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("crm: %s is damaged", filepath.Base(path))
	}
	return pin, nil
}

// repository opens the backups; sign says that one is to be written. With copies, those that lag behind are brought up first.
func (c *Config) repository(ctx context.Context, sign bool, observer func(backup.Progress)) (r *repository, err error) {
	return c.repositoryAt(ctx, sign, false, observer)
}

// repositoryAt does so; older passes over that the log knows a newer snapshot.
func (c *Config) repositoryAt(ctx context.Context, sign, older bool, observer func(backup.Progress)) (r *repository, err error) {
	pin, err := c.pin()
	if err != nil {
		return nil, err
	}
	data, missing, err := openPlaces(ctx, c.Backup, c.BackupCopies)
	if err != nil {
		return nil, err
	}
	r = &repository{places: data, missing: missing, close: func() { _ = closePlaces(data) }}
	keys, gone, err := openPlaces(ctx, c.BackupKeys, c.BackupKeysCopies)
	if err != nil {
		r.close()
		return nil, err
	}
	maps.Copy(missing, gone)
	r.close = func() { _ = errors.Join(closePlaces(data), closePlaces(keys)) }
	opened := r
	defer func() {
		if err != nil {
			opened.close()
		}
	}()
	opts := &backup.Options{Observer: observer}
	if !older {
		opts.Head = c.knownHead(ctx)
	}
	var bucket backup.Bucket
	if bucket, r.data, err = joined(data); err != nil {
		return nil, err
	}
	if opts.Shards, r.shards, err = joined(keys); err != nil {
		return nil, err
	}
	if _, ok := opts.Shards.(backup.Locker); ok && c.lockShards(keys) {
		opts.LockShards = true
	}
	if sign {
		if opts.Signer, err = backupkey.ReadSigner(c.path(manifestKey)); err != nil {
			return nil, err
		}
		text, err := os.ReadFile(c.path(recoveryPub))
		if err != nil {
			return nil, fmt.Errorf("crm: reading %s: %w", recoveryPub, err)
		}
		if opts.Recipient, err = backupkey.ParsePublic(string(text)); err != nil {
			return nil, err
		}
		for _, m := range []*mirror.Bucket{r.data, r.shards} {
			if m != nil {
				_, _ = m.Sync(ctx) // what stays behind is in its Status
			}
		}
	}
	if r.Repository, err = backup.Open(ctx, bucket, pin, opts); err != nil {
		return nil, err
	}
	return r, nil
}

// lockShards says whether the plan wants locks and some place of the key shards can set them.
func (c *Config) lockShards(all []place) bool {
	p, err := c.plan()
	if err != nil || p == nil || !p.Lock {
		return false
	}
	return slices.ContainsFunc(all, func(p place) bool { _, ok := p.bucket.(backup.Locker); return ok })
}

// headNote writes which snapshot of which bucket an event is about; knownHead reads it back.
func (c *Config) headNote(s backup.Snapshot) string {
	return fmt.Sprintf("%s %d %x %d %s", s.ID, s.Head.Number, s.Head.Digest, s.Head.Tombstones, c.targetID())
}

// logged hands over the events of an action in the log, which is read from its folder, for a backup may run beside the process that writes it. False: there is no
// log that could be believed.
func (c *Config) logged(ctx context.Context, action string, each func(audit.Event)) bool {
	store, err := filestore.Open(c.logFolder(), nil)
	if err != nil {
		return false
	}
	signer, err := audit.OpenSigningKey(c.path("signing.key"), c.logName())
	if err != nil {
		return false
	}
	_, err = audit.Verify(ctx, store, []string{signer.VerifierKey()}, &audit.VerifyOptions{OnEvent: func(e audit.Entry) {
		if e.Event.Action == action {
			each(e.Event)
		}
	}})
	return err == nil
}

// knownHead returns the newest snapshot that the log knows, so that a bucket that was rolled back is found out.
func (c *Config) knownHead(ctx context.Context) (h backup.Head) {
	if c.head != nil {
		return c.head(ctx)
	}
	if !c.logged(ctx, actionBackup, func(e audit.Event) { c.newer(&h, e) }) {
		return backup.Head{}
	}
	return h
}

// newer takes the snapshot of an event when it is newer.
func (c *Config) newer(h *backup.Head, e audit.Event) {
	var id, target string
	var digest []byte
	var n backup.Head
	if _, err := fmt.Sscanf(e.Note, "%s %d %x %d %s", &id, &n.Number, &digest, &n.Tombstones, &target); err != nil ||
		len(digest) != len(n.Digest) || target != c.targetID() {
		return
	}
	copy(n.Digest[:], digest)
	if n.Number > h.Number {
		*h = n
	}
}

// knownHead does so by the open log.
func (a *App) knownHead(ctx context.Context) (h backup.Head) {
	found, err := a.Log.Query(ctx, audit.Filter{Action: actionBackup}, a.Log.Size(), 10_000)
	if err != nil {
		return h
	}
	for _, e := range found {
		a.Config.newer(&h, e.Event)
	}
	return h
}

// Events of a snapshot: that there is one, and that it was read back.
const (
	actionBackup   = "backup.created"
	actionVerified = "backup.verified"
)

// keyShards gives the wrapped keys of a tenant to backups and takes them back.
type keyShards struct{ keeper *encrypt.Keeper }

// ExportKeys yields every key record.
func (k keyShards) ExportKeys(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		stop := errors.New("enough")
		err := k.keeper.ExportKeys(ctx, Tenant, func(_ [8]byte, record []byte) error {
			if !yield(record, nil) {
				return stop
			}
			return nil
		})
		if err != nil && !errors.Is(err, stop) {
			yield(nil, err)
		}
	}
}

// ImportKeys takes key records back, all or none of what is malformed.
func (k keyShards) ImportKeys(ctx context.Context, records iter.Seq2[[]byte, error]) error {
	var all [][]byte
	for r, err := range records {
		if err != nil {
			return err
		}
		all = append(all, r)
	}
	return k.keeper.ImportKeys(ctx, Tenant, all)
}

// probed takes key records and looks whether the KEK opens them, before any row comes.
type probed struct{ keyShards }

// ImportKeys takes key records back.
func (p probed) ImportKeys(ctx context.Context, records iter.Seq2[[]byte, error]) error {
	if err := p.keyShards.ImportKeys(ctx, records); err != nil {
		return err
	}
	return probe(ctx, p.keeper)
}

// tombstones lists the erasures so far. Their number in a backup is their count: the store's erasure
// number starts anew after a restore.
func tombstones(ctx context.Context, store keys.Store) (backup.Tombstones, error) {
	records, err := store.Find(ctx, Tenant, keys.Query{Since: 1})
	if err != nil {
		return backup.Tombstones{}, err
	}
	out := backup.Tombstones{Number: uint64(len(records))}
	for i := range records {
		records[i].Number = 0
		b, err := records[i].MarshalBinary()
		if err != nil {
			return out, err
		}
		out.Records = append(out.Records, b)
	}
	return out, nil
}

// dumper is the part of the database that backups hold.
func dumper(db databases) *sqlsource.Database {
	opts := &sqlsource.Options{Exclude: excluded}
	if db.dialect == dialect.Postgres {
		opts.Prepare = prepareStore
		return sqlsource.Postgres(db.w, opts)
	}
	return sqlsource.SQLite(db.w, opts)
}

// source reads the database; on SQLite it leaves the one connection that writes alone.
func source(db databases) *sqlsource.Database {
	opts := &sqlsource.Options{Exclude: excluded}
	if db.dialect == dialect.Postgres {
		return sqlsource.Postgres(db.r, opts)
	}
	return sqlsource.SQLite(db.r, opts)
}

// Backup writes a snapshot, as the plan says; without one it is full when chain is nil. It reads the database in one consistent moment and may run beside a
// serving process, which puts the snapshot into its log when it next looks. An error that is backup.ErrAnomaly comes with the snapshot.
func Backup(ctx context.Context, c Config, chain *policy.Chain, observer func(backup.Progress)) (backup.Snapshot, error) {
	if err := c.complete(); err != nil {
		return backup.Snapshot{}, err
	}
	if _, err := os.Stat(c.path("signing.key")); err != nil {
		return backup.Snapshot{}, errors.New("crm: there is nothing to back up in this data folder")
	}
	db, err := openExisting(ctx, &c)
	if err != nil {
		return backup.Snapshot{}, err
	}
	defer db.close()
	kek, closeKEK, err := openKEK(ctx, &c)
	if err != nil {
		return backup.Snapshot{}, err
	}
	defer func() { _ = closeKEK() }()
	snap, err := writeBackup(ctx, &c, db, kek, chain, observer)
	if err == nil || errors.Is(err, backup.ErrAnomaly) {
		err = errors.Join(err, noteAlone(ctx, &c, db, snap, err == nil))
	}
	return snap, err
}

// noteAlone puts a snapshot into the log, where no process is at work that does.
func noteAlone(ctx context.Context, c *Config, db databases, s backup.Snapshot, verified bool) error {
	return alone(ctx, c, db, func(a *App) error {
		if err := a.NoteBackups(ctx, []backup.Snapshot{s}); err != nil || !verified {
			return err
		}
		return a.noteVerified(ctx, s.ID)
	})
}

// alone opens the log for do, where no process is at work that would do it.
func alone(ctx context.Context, c *Config, db databases, do func(*App) error) (err error) {
	lock, err := acquire(c)
	if errors.Is(err, ErrInUse) {
		return nil // a serving process looks every minute
	}
	if err != nil {
		return err
	}
	a := &App{Config: *c, db: db, lock: lock}
	defer func() { err = errors.Join(err, a.Close()) }()
	kek, closeKEK, err := openKEK(ctx, c)
	if err != nil {
		return err
	}
	a.close = append(a.close, closeKEK)
	keys, err := keystore.Open(ctx, db.w, string(db.dialect), &keystore.Options{Reads: db.r})
	if err != nil {
		return err
	}
	if a.Keeper, err = encrypt.NewKeeper(kek, keys, nil); err != nil {
		return err
	}
	if err := a.openLog(ctx); err != nil {
		return err
	}
	return do(a)
}

func (a *App) noteVerified(ctx context.Context, id string) error {
	_, err := a.Log.Append(ctx, audit.Event{
		Action: actionVerified, Activity: audit.Backup, Outcome: audit.Allowed, Tenant: Tenant, Actor: "system", Note: id,
	})
	return err
}

// Backup writes a full snapshot of the opened CRM.
func (a *App) Backup(ctx context.Context, observer func(backup.Progress)) (backup.Snapshot, error) {
	s, err := writeBackup(ctx, &a.Config, a.db, a.kek, nil, observer)
	if err != nil && !errors.Is(err, backup.ErrAnomaly) {
		return s, err
	}
	if nerr := a.NoteBackups(ctx, []backup.Snapshot{s}); nerr != nil || err != nil {
		return s, errors.Join(err, nerr)
	}
	return s, a.noteVerified(ctx, s.ID)
}

// VerifiedBackups returns when this installation's processes verified each snapshot, by id.
func (a *App) VerifiedBackups(ctx context.Context) (map[string]time.Time, error) {
	found, err := a.Log.Query(ctx, audit.Filter{Action: actionVerified}, a.Log.Size(), 10_000)
	if err != nil {
		return nil, err
	}
	out := map[string]time.Time{}
	for _, e := range found {
		if _, ok := out[e.Event.Note]; !ok {
			out[e.Event.Note] = e.Event.Time
		}
	}
	return out, nil
}

func writeBackup(ctx context.Context, c *Config, db databases, kek keys.KEK, chain *policy.Chain, observer func(backup.Progress)) (backup.Snapshot, error) {
	if err := c.backupKeys(); err != nil {
		return backup.Snapshot{}, err
	}
	keys, err := keystore.Open(ctx, db.w, string(db.dialect), &keystore.Options{Reads: db.r})
	if err != nil {
		return backup.Snapshot{}, err
	}
	keeper, err := encrypt.NewKeeper(kek, keys, nil)
	if err != nil {
		return backup.Snapshot{}, err
	}
	dead, err := tombstones(ctx, keys)
	if err != nil {
		return backup.Snapshot{}, err
	}
	logStore, err := filestore.Open(c.logFolder(), nil)
	if err != nil {
		return backup.Snapshot{}, err
	}
	anchor, err := logStore.Head(ctx)
	if err != nil {
		return backup.Snapshot{}, err
	}
	plan, err := c.plan()
	if err != nil {
		return backup.Snapshot{}, err
	}
	repo, err := c.repository(ctx, true, observer)
	if err != nil {
		return backup.Snapshot{}, err
	}
	defer repo.close()
	o := &backup.BackupOptions{
		Name: Tenant, Anchor: anchor, Keys: keyShards{keeper}, Tombstones: dead, Chain: chain, Journal: c.path("backup.journal"),
	}
	if plan != nil {
		if chain == nil {
			o.Chain = plan.Chain
		}
		o.Gate = plan.Gate
		if plan.Lock {
			o.Lock = &plan.Retention
		}
	}
	snap, unusual := repo.Backup(ctx, source(db), o)
	if errors.Is(unusual, backup.ErrUnlocked) && len(repo.missing) > 0 {
		unusual = fmt.Errorf("%w; %d copies do not answer, which may be those that can", unusual, len(repo.missing))
	}
	if unusual != nil && !errors.Is(unusual, backup.ErrAnomaly) {
		return snap, unusual
	}
	// What was written is read back: opened where the recovery key lies here, else compared with its digests.
	opts := &backup.VerifyOptions{Level: backup.Full, Snapshot: snap.ID}
	if key, err := backupkey.Read(c.path(recoveryKey)); err == nil && repo.TryKey(ctx, snap.ID, key) == nil {
		opts.Key = key
	}
	report, err := repo.Verify(ctx, opts)
	if err != nil {
		return snap, err
	}
	return snap, errors.Join(unusual, report.Err())
}

// PruneBackups condemns the backups that retention does not keep, and deletes those that it condemned a day ago or earlier.
func PruneBackups(ctx context.Context, c Config, retention policy.Retention) (*backup.Pruned, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	repo, err := c.repository(ctx, true, nil)
	if err != nil {
		return nil, err
	}
	defer repo.close()
	return repo.Prune(ctx, retention)
}

// ParseRetention reads a retention such as "last=3,daily=7,weekly=4,monthly=12".
func ParseRetention(text string) (r policy.Retention, err error) {
	fields := map[string]*int{"last": &r.Last, "hourly": &r.Hourly, "daily": &r.Daily, "weekly": &r.Weekly,
		"monthly": &r.Monthly, "yearly": &r.Yearly, "minimum": &r.Minimum}
	for part := range strings.SplitSeq(text, ",") {
		name, number, _ := strings.Cut(part, "=")
		field := fields[name]
		if field == nil {
			return r, errors.New("crm: a retention is like last=3,daily=7,weekly=4,monthly=12,yearly=3,minimum=2, each at most once")
		}
		delete(fields, name)
		if *field, err = strconv.Atoi(number); err != nil || *field < 1 {
			return r, fmt.Errorf("crm: the retention %s is not a number above 0", name)
		}
	}
	return r, r.Valid()
}

// Snapshots lists the backups, oldest first. There are none before the first backup.
func Snapshots(ctx context.Context, c Config) ([]backup.Snapshot, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(c.path(manifestPin)); err != nil {
		return nil, nil
	}
	repo, err := c.repository(ctx, false, nil)
	if errors.Is(err, backup.ErrNotFound) && c.knownHead(ctx).Number == 0 {
		return nil, nil // the first backup is just being made
	}
	if err != nil {
		return nil, err
	}
	defer repo.close()
	return repo.Snapshots(ctx)
}

// VerifyBackups checks every object of the backups and, where the recovery key lies here, opens them.
func VerifyBackups(ctx context.Context, c Config, recovery string) (*backup.Report, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	repo, err := c.repository(ctx, false, nil)
	if err != nil {
		return nil, err
	}
	defer repo.close()
	opts := &backup.VerifyOptions{Level: backup.Full}
	if recovery == "" {
		recovery = c.path(recoveryKey)
	}
	key, err := backupkey.Read(recovery)
	switch {
	case err == nil:
		opts.Key = key
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return repo.Verify(ctx, opts)
}

// RecoveryKeyHere tells whether the key that opens backups lies in the data folder.
func (c *Config) RecoveryKeyHere() bool {
	_, err := os.Stat(c.path(recoveryKey))
	return err == nil
}

// Restore puts a snapshot, the newest when id is "", into an empty database, with the newest key
// shards. older takes what is there although the log knows a newer snapshot. recovery is the path of the key that opens backups; "" is the data folder's. The log goes on
// and says that it happened.
func Restore(ctx context.Context, c Config, id, recovery string, older bool, observer func(backup.Progress)) (snap backup.Snapshot, err error) {
	if err := c.complete(); err != nil {
		return snap, err
	}
	if _, err := os.Stat(c.Data); err != nil {
		return snap, errors.New("crm: there is no data folder")
	}
	a := &App{Config: c}
	if a.lock, err = acquire(&c); err != nil {
		return snap, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if recovery == "" {
		recovery = c.path(recoveryKey)
	}
	key, err := backupkey.Read(recovery)
	if err != nil {
		return snap, err
	}
	repo, err := c.repositoryAt(ctx, false, older, observer)
	if err != nil {
		return snap, err
	}
	defer repo.close()
	if a.db, err = openDatabase(ctx, &c); err != nil {
		return snap, err
	}
	a.close = append(a.close, a.db.close)
	kek, closeKEK, err := openOldKEK(ctx, &c)
	if err != nil {
		return snap, err
	}
	a.close = append(a.close, closeKEK)
	keys, err := keystore.Open(ctx, a.db.w, string(a.db.dialect), &keystore.Options{Reads: a.db.r})
	if err != nil {
		return snap, err
	}
	if a.Keeper, err = encrypt.NewKeeper(kek, keys, nil); err != nil {
		return snap, err
	}
	if err := a.openLog(ctx); err != nil {
		return snap, err
	}
	if restoring(&c) == nil && a.db.holdsRows(ctx) {
		return snap, backup.ErrNotEmpty // said before the mark, which would keep a healthy CRM from starting
	}
	if a.db.holdsRows(ctx) { // an earlier restore got as far as its rows
		return a.finishRestore(ctx, repo, id)
	}
	if all, err := repo.Snapshots(ctx); err == nil && len(all) > 0 { // else Restore says what is wrong
		wanted := all[len(all)-1]
		for _, s := range all {
			if s.ID == id {
				wanted = s
			}
		}
		if err := a.opens(ctx, wanted); err != nil {
			return snap, err
		}
	}
	if !a.db.holdsRows(ctx) {
		// Keys that a start on the empty database made seal nothing and would stand in the way of the backup's.
		if _, err := a.db.w.ExecContext(ctx, `DELETE FROM encrypt_key WHERE kind <> 'tombstone'`); err != nil {
			return snap, fmt.Errorf("crm: clearing keys that seal nothing (%s)", code(err))
		}
	}
	before := restoring(&c) != nil // an earlier restore was interrupted
	if id == "" {                  // the mark names it, and a later run goes on with that one
		if all, err := repo.Snapshots(ctx); err == nil && len(all) > 0 {
			id = all[len(all)-1].ID
		}
	}
	if err := os.WriteFile(c.path(restoringMark), []byte(id), 0o600); err != nil {
		return snap, fmt.Errorf("crm: data folder: %w", err)
	}
	snap, err = repo.Restore(ctx, id, dumper(a.db), key, &backup.RestoreOptions{
		Keys: probed{keyShards{a.Keeper}},
		Tombstones: func(ctx context.Context, list backup.Tombstones) error {
			return a.Keeper.ImportKeys(ctx, Tenant, list.Records)
		},
	})
	if err != nil {
		// Rows come back in one transaction, so that a restore that failed has left the database as it was.
		if !a.db.holdsRows(ctx) && !before {
			err = errors.Join(err, os.Remove(c.path(restoringMark)))
		}
		return snap, err
	}
	return snap, a.endRestore(ctx, snap)
}

// finishRestore ends a restore that was interrupted behind its rows. The mark says which snapshot they are of.
func (a *App) finishRestore(ctx context.Context, repo *repository, id string) (snap backup.Snapshot, err error) {
	mark, err := os.ReadFile(a.Config.path(restoringMark))
	if err != nil {
		return snap, fmt.Errorf("crm: data folder: %w", err)
	}
	was := strings.TrimSpace(string(mark))
	if id != "" && id != was {
		return snap, fmt.Errorf("%w: the database has the rows of another snapshot, %s", backup.ErrNotEmpty, was)
	}
	all, err := repo.Snapshots(ctx)
	if err != nil {
		return snap, err
	}
	for _, s := range all {
		if s.ID == was {
			return s, a.endRestore(ctx, s)
		}
	}
	return snap, fmt.Errorf("%w: the snapshot that the rows are of", backup.ErrNotFound)
}

// endRestore makes the index tokens of restored rows, notes the restore in the log and takes the mark away.
func (a *App) endRestore(ctx context.Context, snap backup.Snapshot) error {
	if err := os.WriteFile(a.Config.path(restoringMark), []byte(snap.ID), 0o600); err != nil {
		return fmt.Errorf("crm: data folder: %w", err)
	}
	if err := reindex(ctx, a.db); err != nil {
		return err
	}
	if err := guard.MarkRestored(ctx, a.Log, Tenant, "system", snap.ID, anchorSize(snap.Anchor)); err != nil {
		return err
	}
	return os.Remove(a.Config.path(restoringMark))
}

// reindex makes the index tokens of all rows.
func reindex(ctx context.Context, db databases) error {
	store, err := sqlstore.Open(ctx, db.w, db.r, db.dialect)
	if err != nil {
		return err
	}
	return store.Reindex(ctx, nil)
}

// holdsRows tells whether records were ever written to the database.
func (d databases) holdsRows(ctx context.Context) bool {
	var seq int64
	return d.r.QueryRowContext(ctx, `SELECT seq FROM crm_counter WHERE seq > 0`).Scan(&seq) == nil
}

// anchorSize reads how many events the log had from the checkpoint that a snapshot holds.
func anchorSize(note []byte) uint64 {
	lines := strings.SplitN(string(note), "\n", 3)
	if len(lines) < 2 {
		return 0
	}
	n, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// restoring refuses a database whose restore did not end.
func restoring(c *Config) error {
	if _, err := os.Stat(c.path(restoringMark)); err == nil {
		return errors.New("crm: a restore was interrupted; run restore again before anything else")
	}
	return nil
}

// KeyTarget names where the key shards go, without credentials.
func (c *Config) KeyTarget() string { return redact(c.BackupKeys) }

// NoteBackups puts snapshots into the log that are not there yet: those that another process wrote
// beside this one.
func (a *App) NoteBackups(ctx context.Context, snapshots []backup.Snapshot) error {
	a.backups.Lock()
	defer a.backups.Unlock()
	known := map[string]bool{}
	seen, err := a.Log.Query(ctx, audit.Filter{Action: actionBackup}, a.Log.Size(), 10_000)
	if err != nil {
		return err
	}
	for _, e := range seen {
		id, _, _ := strings.Cut(e.Event.Note, " ")
		known[id] = true
	}
	for _, s := range snapshots {
		if known[s.ID] {
			continue
		}
		if _, err := a.Log.Append(ctx, audit.Event{
			Action: actionBackup, Activity: audit.Backup, Outcome: audit.Allowed, Tenant: Tenant, Actor: "system",
			Count: s.Rows, Note: a.Config.headNote(s),
		}); err != nil {
			return err
		}
	}
	return nil
}

// RestoreKeys puts the newest key shards into a database that has its rows: one that lost its keys, or an older physical copy, in which persons
// who were erased since become erased again. recovery is as of Restore.
func RestoreKeys(ctx context.Context, c Config, recovery string, older bool) (err error) {
	if err := c.complete(); err != nil {
		return err
	}
	lock, err := acquire(&c)
	if err != nil {
		return err
	}
	a := &App{Config: c, lock: lock}
	defer func() { err = errors.Join(err, a.Close()) }()
	if recovery == "" {
		recovery = c.path(recoveryKey)
	}
	key, err := backupkey.Read(recovery)
	if err != nil {
		return err
	}
	repo, err := c.repositoryAt(ctx, false, older, nil)
	if err != nil {
		return err
	}
	defer repo.close()
	if a.db, err = openExisting(ctx, &c); err != nil {
		return err
	}
	a.close = append(a.close, a.db.close)
	kek, closeKEK, err := openOldKEK(ctx, &c)
	if err != nil {
		return err
	}
	a.close = append(a.close, closeKEK)
	keys, err := keystore.Open(ctx, a.db.w, string(a.db.dialect), &keystore.Options{Reads: a.db.r})
	if err != nil {
		return err
	}
	if a.Keeper, err = encrypt.NewKeeper(kek, keys, nil); err != nil {
		return err
	}
	return repo.RestoreKeys(ctx, probed{keyShards{a.Keeper}}, key)
}
