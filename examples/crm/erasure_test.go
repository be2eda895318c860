package main_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/policy"
	"github.com/crmguard/crmguard/backup/s3store"
	"github.com/crmguard/crmguard/backup/sqlsource"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	keystore "github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/encrypt/vault"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/openertest"
	"github.com/crmguard/crmguard/internal/realtest"
)

// personKeys gives the keys of one tenant to backups, and notes their names for the opener.
type personKeys struct {
	keeper *encrypt.Keeper
	known  *[]keys.Record
	dump   string // a file that gets what is imported; "" = the keeper does
}

const keyTenant = "acme"

func (k personKeys) ExportKeys(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		stop := errors.New("enough")
		err := k.keeper.ExportKeys(ctx, keyTenant, func(_ [8]byte, record []byte) error {
			var r keys.Record
			if err := r.UnmarshalBinary(record); err != nil {
				return err
			}
			r.Wrapped, r.Commitment = nil, nil
			*k.known = append(*k.known, r)
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

func (k personKeys) ImportKeys(ctx context.Context, records iter.Seq2[[]byte, error]) error {
	var all [][]byte
	var raw []byte
	for r, err := range records {
		if err != nil {
			return err
		}
		all, raw = append(all, r), append(raw, r...)
	}
	if k.dump != "" {
		return os.WriteFile(k.dump, raw, 0o600)
	}
	return k.keeper.ImportKeys(ctx, keyTenant, all)
}

// erasedList is the list of tombstones of a key store.
func erasedList(t testing.TB, store keys.Store) backup.Tombstones {
	t.Helper()
	found, err := store.Find(t.Context(), keyTenant, keys.Query{Since: 1})
	require.NoError(t, err)
	out := backup.Tombstones{Number: uint64(len(found))}
	for i := range found {
		found[i].Number = 0
		b, err := found[i].MarshalBinary()
		require.NoError(t, err)
		out.Records = append(out.Records, b)
	}
	return out
}

// TestErasedFromBackups erases a person and shows what every backup, copy and old version of key shards is worth afterwards: to an opener that is given every
// remaining key, the recovery key and the KEK included, nothing after the promised date, while a neighbour's values open; and a month-old backup comes back without
// the person. Then the living keys are lost, and shares of the recovery key bring everybody else back.
func TestErasedFromBackups(t *testing.T) {
	t.Run("file", func(t *testing.T) {
		kek, err := localkek.Open(filepath.Join(t.TempDir(), "kek"), nil)
		require.NoError(t, err)
		testErased(t, kek)
	})
	t.Run("vault", func(t *testing.T) {
		s := realtest.Vault(t)
		s.Key("crm")
		kek, err := vault.Open(t.Context(), vault.Config{Key: "crm", Address: s.Addr, Token: s.Root})
		require.NoError(t, err)
		t.Cleanup(func() { _ = kek.Close() })
		testErased(t, kek)
	})
}

func testErased(t *testing.T, kek keys.KEK) {
	const kept = 4 * time.Second // R, in the place of seven days
	ctx := t.Context()
	server := realtest.S3(t)
	server.Environ(server.Key, server.Secret)
	bucket := func(name string) *s3store.Bucket {
		b, err := s3store.New(ctx, name, &s3store.Options{Endpoint: server.URL, PathStyle: true, Create: true})
		require.NoError(t, err)
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	data, shards := bucket("rows"), bucket("key-shards")
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion("us-east-1"))
	require.NoError(t, err)
	client := s3.NewFromConfig(cfg, func(o *s3.Options) { o.BaseEndpoint, o.UsePathStyle = &server.URL, true })
	// versions lists every version of every object of the shard bucket.
	versions := func() (all []string) {
		name := "key-shards"
		out, err := client.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &name})
		require.NoError(t, err)
		for _, v := range out.Versions {
			all = append(all, *v.Key+" "+*v.VersionId)
		}
		require.Empty(t, out.DeleteMarkers)
		return all
	}

	// The living store: keys and rows in one database.
	open := func(dir string) (*sql.DB, *keystore.Store, *encrypt.Keeper) {
		require.NoError(t, os.MkdirAll(dir, 0o700))
		w, r, err := dialect.OpenSQLite(ctx, filepath.Join(dir, "crm.db"))
		require.NoError(t, err)
		t.Cleanup(func() { _ = errors.Join(w.Close(), r.Close()) })
		store, err := keystore.Open(ctx, w, "sqlite", nil)
		require.NoError(t, err)
		keeper, err := encrypt.NewKeeper(kek, store, &encrypt.Options{Grace: -1, EraseLimit: -1})
		require.NoError(t, err)
		return w, store, keeper
	}
	dir := filepath.Join(t.TempDir(), "live")
	db, store, keeper := open(dir)
	_, err = db.ExecContext(ctx, `CREATE TABLE customers (id INTEGER PRIMARY KEY, person BLOB, sealed BLOB)`)
	require.NoError(t, err)
	var values []openertest.Value
	add := func(name string, person byte) {
		v := openertest.Value{Name: name, Person: [16]byte{15: person}, Plain: []byte("the secret of " + name)}
		v.Sealed, err = keeper.SealFor(ctx, keyTenant, v.Person, openertest.Label, nil, v.Plain)
		require.NoError(t, err)
		_, err = db.ExecContext(ctx, `INSERT INTO customers (person, sealed) VALUES (?, ?)`, v.Person[:], v.Sealed)
		require.NoError(t, err)
		values = append(values, v)
	}

	// The repository: rows locked for months, key shards for R.
	_, signer, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	private, err := backupkey.Generate()
	require.NoError(t, err)
	pin := signer.Public().(ed25519.PublicKey)
	at := time.Duration(0) // how far the clock is off
	repository := func(lock bool) *backup.Repository {
		r, err := backup.Open(ctx, data, pin, &backup.Options{Signer: signer, Recipient: private.Public(), Shards: shards, KeepShards: kept, LockShards: lock,
			Now: func() time.Time { return time.Now().Add(at) }})
		require.NoError(t, err)
		return r
	}
	var known []keys.Record
	source := sqlsource.SQLite(db, &sqlsource.Options{Exclude: []string{"encrypt_"}})
	write := func(r *backup.Repository) backup.Snapshot {
		s, err := r.Backup(ctx, source, &backup.BackupOptions{Chain: &policy.Chain{Age: 1000 * time.Hour}, Keys: personKeys{keeper: keeper, known: &known},
			Tombstones: erasedList(t, store), Lock: &policy.Retention{Within: 90 * 24 * time.Hour}})
		require.NoError(t, err)
		return s
	}
	files := t.TempDir()
	steal := func(r *backup.Repository, name string) { // the newest key shards, opened with the recovery key
		require.NoError(t, r.RestoreKeys(ctx, personKeys{dump: filepath.Join(files, name)}, private))
	}
	copyLive := func(name string) { require.NoError(t, os.CopyFS(filepath.Join(files, name), os.DirFS(dir))) }
	o := &openertest.Opener{T: t, Tenant: keyTenant, KEK: kek}
	opens := func(want ...string) {
		t.Helper()
		o.Known = known
		o.Find([]string{files, dir})
		got := o.Open(values)
		slices.Sort(got)
		require.Equal(t, want, got)
	}

	add("erased", 1)
	add("neighbour", 2)
	at = -30 * 24 * time.Hour
	old := write(repository(false))
	at = 0
	r := repository(true)
	add("erased again", 1)
	write(r)
	steal(r, "stolen shards")
	copyLive("stolen database")
	before := versions()
	opens("erased", "erased again", "neighbour") // the control: the opener works

	receipt, err := keeper.Erase(ctx, keyTenant, values[0].Person, nil)
	require.NoError(t, err)
	require.NotEmpty(t, receipt.Keys)
	require.NoError(t, r.PutTombstones(ctx, erasedList(t, store)))
	write(r)
	steal(r, "shards after")
	locked := versions()
	for _, v := range before { // of the month-old set the time is over; the newer one is locked until R has passed
		if !slices.Contains(locked, v) {
			continue
		}
		name, _, _ := strings.Cut(v, " ")
		require.ErrorIs(t, shards.Delete(ctx, name), backup.ErrLocked)
	}
	require.NoError(t, keeper.Rotate(ctx, keyTenant, nil)) // the epoch ends
	write(r)
	copyLive("database after")
	time.Sleep(kept + 3*time.Second)
	write(r)
	after := versions()
	for _, v := range before {
		if name, _, _ := strings.Cut(v, " "); name != "repository" {
			require.NotContains(t, after, v, "an old version of the shards is left")
		}
	}
	steal(r, "shards of now")
	opens("neighbour") // after the "gone by" date

	// A month-old backup comes back; the erased person's rows are there and closed for good.
	into, rstore, rkeeper := open(filepath.Join(files, "restored"))
	_, err = r.Restore(ctx, old.ID, sqlsource.SQLite(into, &sqlsource.Options{Exclude: []string{"encrypt_"}}), private, nil)
	require.ErrorIs(t, err, backup.ErrReplay)
	_, err = r.Restore(ctx, old.ID, sqlsource.SQLite(into, &sqlsource.Options{Exclude: []string{"encrypt_"}}), private, &backup.RestoreOptions{
		Keys: personKeys{keeper: rkeeper},
		Tombstones: func(ctx context.Context, list backup.Tombstones) error {
			return rkeeper.ImportKeys(ctx, keyTenant, list.Records)
		},
	})
	require.NoError(t, err)
	var n int
	require.NoError(t, into.QueryRowContext(ctx, `SELECT count(*) FROM customers`).Scan(&n))
	require.Equal(t, 2, n)
	check := func(k *encrypt.Keeper) {
		t.Helper()
		for _, v := range values {
			got, err := k.OpenFor(ctx, keyTenant, v.Person, openertest.Label, nil, v.Sealed)
			if v.Name == "neighbour" {
				require.NoError(t, err)
				require.Equal(t, v.Plain, got)
			} else {
				require.ErrorIs(t, err, encrypt.ErrErased)
			}
		}
	}
	check(rkeeper)
	require.Equal(t, erasedList(t, store).Records, erasedList(t, rstore).Records)
	opens("neighbour")

	// Mass loss: the living keys are gone, which is no erasure; shares of the recovery key bring them back.
	_, err = db.ExecContext(ctx, `DELETE FROM encrypt_key`)
	require.NoError(t, err)
	fresh, err := encrypt.NewKeeper(kek, store, nil)
	require.NoError(t, err)
	_, err = fresh.OpenFor(ctx, keyTenant, values[1].Person, openertest.Label, nil, values[1].Sealed)
	require.Error(t, err)
	require.NotErrorIs(t, err, encrypt.ErrErased)
	shares, err := private.Split(3, 5)
	require.NoError(t, err)
	_, err = backupkey.Join(shares[:2])
	require.ErrorIs(t, err, backupkey.ErrKey)
	joined, err := backupkey.Join([]string{shares[4], shares[0], shares[2]})
	require.NoError(t, err)
	require.NoError(t, r.RestoreKeys(ctx, personKeys{keeper: fresh}, joined))
	again, err := encrypt.NewKeeper(kek, store, nil)
	require.NoError(t, err)
	check(again)
	t.Logf("%d versions of key shards before, %d after", len(before), len(after))
}
