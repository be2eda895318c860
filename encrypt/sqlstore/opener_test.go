package sqlstore_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/encrypt/vault"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

// The opener is the attacker of the erasure's promise. It is given the live KEK, every sealed value, every
// copy that was ever made of the database, its log, its archive and its exported keys, and the names (never the
// keys) of all records that ever were. It knows the format from docs/formats/encrypt.md only: it finds wrapped
// keys by their pattern in raw bytes and tries each with everything that still unwraps.
type opener struct {
	t      testing.TB
	tenant string
	kek    keys.KEK
	files  []string      // all copies
	known  []keys.Record // ids, persons, versions
}

// secretValue is one sealed value.
type secretValue struct {
	name          string
	person        [16]byte
	plain, sealed []byte
}

const openerLabel = "file"

func parts(list ...[]byte) (out []byte) {
	for _, p := range list {
		out = binary.BigEndian.AppendUint32(out, uint32(len(p)))
		out = append(out, p...)
	}
	return out
}

func expand(key []byte, list ...string) []byte {
	var info []byte
	for _, s := range list {
		info = append(info, parts([]byte(s))...)
	}
	out, err := hkdf.Expand(sha256.New, key, string(info), 32)
	if err != nil {
		panic(err)
	}
	return out
}

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// find lists the files, of those with the same bytes one.
func (o *opener) find(dirs []string) {
	o.t.Helper()
	o.files = nil
	seen, seed := make(map[uint64]bool), maphash.MakeSeed()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a running server removes files
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if sum := maphash.Bytes(seed, b); err == nil && !seen[sum] {
				seen[sum] = true
				o.files = append(o.files, path)
			}
			return err
		})
		if err != nil {
			o.t.Fatal(err)
		}
	}
}

// each hands over every file, those of a write-ahead log also without the page headers that cut through its
// records.
func (o *opener) each(f func(b []byte)) {
	o.t.Helper()
	for _, path := range o.files {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			o.t.Fatal(err)
		}
		f(b)
		if walSegment.MatchString(filepath.Base(path)) {
			f(withoutPageHeaders(b))
		}
	}
}

var walSegment = regexp.MustCompile(`^[0-9A-F]{24}`)

func withoutPageHeaders(b []byte) (out []byte) {
	out = make([]byte, 0, len(b))
	for n := 0; n < len(b); n += 8192 {
		head := 24
		if n == 0 {
			head = 40
		}
		page := b[n:min(n+8192, len(b))]
		out = append(out, page[min(head, len(page)):]...)
	}
	return out
}

// epoch is an epoch key that still unwraps.
type epoch struct {
	id     keys.ID
	prefix []byte
	aead   tink.AEAD
}

// epochs finds wrapped keysets and tries each with the live KEK.
func (o *opener) epochs() (out []epoch, tried int) {
	wrapped := make(map[string]bool)
	o.each(func(b []byte) {
		for i := 0; i < len(b); i++ {
			n := bytes.IndexByte(b[i:], 0x12) // field 2 of an EncryptedKeyset: bytes
			if n < 0 {
				break
			}
			i += n
			size, used := binary.Uvarint(b[i+1 : min(i+4, len(b))])
			at := i + 1 + used
			if used <= 0 || size < 40 || size > 1024 || at+int(size) > len(b) {
				continue
			}
			blob := b[at : at+int(size)]
			if bytes.HasPrefix(blob, []byte{1, 0, 0, 0}) || bytes.HasPrefix(blob, []byte("vault:v")) {
				wrapped[string(b[i:at+int(size)])] = true
			}
		}
	})
	type name struct {
		id      keys.ID
		version uint32
	}
	names := make(map[name]bool)
	for _, r := range o.known {
		if r.Kind == keys.EpochKey {
			names[name{r.ID, r.Version}] = true
		}
	}
	seen := make(map[string]bool)
	for w := range wrapped {
		for n := range names {
			through := &throughKEK{o.kek}
			ad := parts([]byte("crmguard/epoch"), []byte(o.tenant), n.id[:], u32(n.version))
			h, err := keyset.ReadWithContext(o.t.Context(), keyset.NewBinaryReader(strings.NewReader(w)), through, ad)
			if err != nil {
				continue
			}
			a, err := aead.New(h)
			if err != nil {
				o.t.Fatal(err)
			}
			prefix := append([]byte{1}, u32(insecurecleartextkeyset.KeysetMaterial(h).PrimaryKeyId)...)
			if !seen[string(prefix)] {
				seen[string(prefix)] = true
				out = append(out, epoch{n.id, prefix, a})
			}
		}
	}
	return out, len(wrapped)
}

type throughKEK struct{ kek keys.KEK }

func (a *throughKEK) EncryptWithContext(context.Context, []byte, []byte) ([]byte, error) {
	return nil, errors.New("only opens")
}

func (a *throughKEK) DecryptWithContext(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	return a.kek.Unwrap(ctx, wrapped, ad)
}

const wrappedSize = 5 + 24 + 32 + 16 // Tink's prefix, XAES-256-GCM's nonce, a key, the tag

// keys finds wrapped person keys under epoch keys that unwrapped, and opens them.
func (o *opener) keys(epochs []epoch) (out [][]byte, tried int) {
	found := make([]map[string]bool, len(epochs))
	for i := range found {
		found[i] = make(map[string]bool)
	}
	o.each(func(b []byte) {
		for e := range epochs {
			for i := 0; ; i++ {
				n := bytes.Index(b[i:], epochs[e].prefix)
				if n < 0 {
					break
				}
				i += n
				if i+wrappedSize <= len(b) {
					found[e][string(b[i:i+wrappedSize])] = true
				}
			}
		}
	})
	ads := make(map[string]bool) // everything but the epoch's id, which comes last
	for _, r := range o.known {
		if r.Kind == keys.PersonKey {
			ads[string(parts([]byte("crmguard/key"), []byte(o.tenant), r.ID[:], []byte(r.Kind), u32(r.Version), []byte(r.Purpose), r.Person[:], []byte(r.Retention)))] = true
		}
	}
	opened := make(map[string]bool)
	for e := range epochs {
		for w := range found[e] {
			tried++
			for ad := range ads {
				if key, err := epochs[e].aead.Decrypt([]byte(w), append([]byte(ad), parts(epochs[e].id[:])...)); err == nil {
					opened[string(key)] = true
					break
				}
			}
		}
	}
	for key := range opened {
		out = append(out, []byte(key))
	}
	return out, tried
}

// open returns the names of the values that any key opens.
func (o *opener) open(values []secretValue) (names []string) {
	o.t.Helper()
	epochs, sets := o.epochs()
	all, wraps := o.keys(epochs)
	for _, v := range values {
		for _, key := range all {
			block, err := aes.NewCipher(expand(key, "crmguard/subkey", openerLabel))
			if err != nil {
				o.t.Fatal(err)
			}
			gcm, err := cipher.NewGCM(block)
			if err != nil {
				o.t.Fatal(err)
			}
			head, body := v.sealed[:10], v.sealed[10:]
			ad := parts([]byte("crmguard/detail"), []byte(o.tenant), v.person[:], []byte(openerLabel), nil, head)
			if plain, err := gcm.Open(nil, body[:12], body[12:], ad); err == nil && hmac.Equal(plain, v.plain) {
				names = append(names, v.name)
				break
			}
		}
	}
	o.t.Logf("the opener found %d wrapped keysets, of which %d unwrap; %d wrapped keys under those, %d opened; values: %d of %d",
		sets, len(epochs), wraps, len(all), len(names), len(values))
	return names
}

// world is a store whose every copy can be taken.
type world struct {
	store *sqlstore.Store
	// copy saves all that exists in a folder of that name.
	copy func(name string)
	// dirs returns the folders of everything: the live files and all copies, some brought back to life.
	dirs func() []string
	// live returns the folders of the files as they are now.
	live func() []string
}

func personOf(n uint64) (p [16]byte) {
	binary.BigEndian.PutUint64(p[8:], n)
	return p
}

// testOpener erases a person and shows what every copy is worth before and after the epoch's end.
func testOpener(t *testing.T, kek keys.KEK, w world) {
	const tenant = "acme"
	ctx := t.Context()
	keeper, err := encrypt.NewKeeper(kek, w.store, &encrypt.Options{Grace: -1, EraseLimit: -1})
	if err != nil {
		t.Fatal(err)
	}
	var values []secretValue
	seal := func(name string, person [16]byte) {
		t.Helper()
		v := secretValue{name: name, person: person, plain: []byte("secret of " + name)}
		if v.sealed, err = keeper.SealFor(ctx, tenant, person, openerLabel, nil, v.plain); err != nil {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	o := &opener{t: t, tenant: tenant, kek: kek}
	exports := t.TempDir()
	exported := make(map[string][][]byte)
	save := func(name string) {
		t.Helper()
		var all []byte
		if err := keeper.ExportKeys(ctx, tenant, func(_ [8]byte, b []byte) error {
			var r keys.Record
			if err := r.UnmarshalBinary(b); err != nil {
				return err
			}
			all, exported[name] = append(all, b...), append(exported[name], b)
			r.Wrapped, r.Commitment = nil, nil
			o.known = append(o.known, r)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(exports, name), all, 0o600); err != nil {
			t.Fatal(err)
		}
		w.copy(name)
	}
	open := func(dirs []string, want ...string) {
		t.Helper()
		o.find(dirs)
		got := o.open(values)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("the opener opens %q, want %q", got, want)
		}
	}
	everything := func() []string { return append(w.dirs(), exports) }
	rotate := func() {
		t.Helper()
		if err := keeper.Rotate(ctx, tenant, nil); err != nil {
			t.Fatal(err)
		}
	}
	churn := func(from uint64) {
		t.Helper()
		var gone [][16]byte
		for i := from; i < from+30; i++ {
			p := personOf(i)
			if _, err := keeper.SealFor(ctx, tenant, p, openerLabel, nil, []byte("churn")); err != nil {
				t.Fatal(err)
			}
			if i%3 == 0 {
				gone = append(gone, p)
			}
		}
		for _, p := range gone {
			if _, err := keeper.Erase(ctx, tenant, p, nil); err != nil {
				t.Fatal(err)
			}
		}
	}

	a, alias, b := personOf(1), personOf(2), personOf(3)
	churn(100)
	seal("A", a)
	seal("A under another id", alias)
	seal("B", b)
	if err := keeper.Join(ctx, tenant, a, alias); err != nil {
		t.Fatal(err)
	}
	save("first")
	rotate() // so that the person has lived in two epochs
	seal("A again", a)
	seal("B again", b)
	churn(200)
	save("before")
	all := []string{"A", "A again", "A under another id", "B", "B again"}
	open(everything(), all...) // the control: the opener works

	if r, err := keeper.Erase(ctx, tenant, a, nil); err != nil || len(r.Keys) != 2 {
		t.Fatalf("erased %d keys, %v", len(r.Keys), err)
	}
	if _, err := keeper.OpenFor(ctx, tenant, a, openerLabel, nil, values[0].sealed); !errors.Is(err, encrypt.ErrErased) {
		t.Fatalf("the keeper opens an erased person: %v", err)
	}
	churn(300)
	save("erased")
	open(everything(), all...) // until the epoch ends, stray copies are worth something: that is why it has to
	open(w.live(), "B", "B again")

	rotate()
	save("rotated")
	churn(400)
	save("after")
	open(everything(), "B", "B again")

	// Nor does a careless restore of an old export bring the person back.
	if err := keeper.ImportKeys(ctx, tenant, exported["before"]); err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		got, err := keeper.OpenFor(ctx, tenant, v.person, openerLabel, nil, v.sealed)
		if strings.HasPrefix(v.name, "B") {
			if err != nil || !bytes.Equal(got, v.plain) {
				t.Fatalf("%s no longer opens: %v", v.name, err)
			}
		} else if !errors.Is(err, encrypt.ErrErased) {
			t.Fatalf("%s: %v", v.name, err)
		}
	}
	if os.Getenv("CRMGUARD_SOAK") != "1" {
		return
	}
	for round := range uint64(10) { // more persons, each through its own erasure and epoch
		p := personOf(1000 + round)
		name := fmt.Sprintf("person %d", round)
		seal(name, p)
		save(name)
		open(everything(), "B", "B again", name)
		if _, err := keeper.Erase(ctx, tenant, p, nil); err != nil {
			t.Fatal(err)
		}
		churn(2000 + 100*round)
		rotate()
		save(name + " erased")
		open(everything(), "B", "B again")
	}
}

func fileKEK(t testing.TB) keys.KEK {
	t.Helper()
	kek, err := localkek.Open(filepath.Join(t.TempDir(), "kek"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

func TestOpenerSQLite(t *testing.T) {
	testOpener(t, fileKEK(t), sqliteWorld(t))
}

// With a real Vault, whose root even tries to take the trim back.
func TestOpenerVault(t *testing.T) {
	s := realtest.Vault(t)
	s.Key("crm")
	kek, err := vault.Open(t.Context(), vault.Config{Key: "crm", Address: s.Addr, Token: s.Root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kek.Close() })
	testOpener(t, &rootKEK{KEK: kek, server: s}, sqliteWorld(t))
}

// rootKEK is what somebody with Vault's root token has: it lowers the oldest allowed version before each try.
type rootKEK struct {
	*vault.KEK
	server *realtest.VaultServer
}

func (k *rootKEK) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	out, err := k.KEK.Unwrap(ctx, wrapped, ad)
	if err != nil {
		_, _ = k.server.Client().Logical().Write("transit/keys/crm/config", map[string]any{"min_decryption_version": 1})
		return k.KEK.Unwrap(ctx, wrapped, ad)
	}
	return out, nil
}

func sqliteWorld(t testing.TB) world {
	dir, copies := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "keys.db")
	w, r, err := dialect.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(); r.Close() })
	s, err := sqlstore.Open(t.Context(), w, "sqlite", &sqlstore.Options{Reads: r})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	return world{
		store: s,
		live:  func() []string { return []string{dir} },
		copy: func(name string) {
			names = append(names, name)
			if err := os.CopyFS(filepath.Join(copies, name), os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
		},
		dirs: func() []string {
			// Each copy is also opened as a database, which applies its write-ahead log.
			alive := t.TempDir()
			for _, name := range names {
				at := filepath.Join(alive, name)
				if err := os.CopyFS(at, os.DirFS(filepath.Join(copies, name))); err != nil {
					t.Fatal(err)
				}
				db, err := sql.Open("sqlite", "file:"+filepath.Join(at, "keys.db"))
				if err != nil {
					t.Fatal(err)
				}
				dump(t, db, filepath.Join(at, "rows"))
				db.Close()
			}
			return []string{dir, copies, alive}
		},
	}
}

// dump writes what a database answers when it is asked for its wrapped keys.
func dump(t testing.TB, db *sql.DB, path string) {
	t.Helper()
	rows, err := db.Query("SELECT wrapped FROM encrypt_key")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all, one []byte
	for rows.Next() {
		if err := rows.Scan(&one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one...)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
}

// On PostgreSQL with a WAL archive: base backups, the archive, servers brought up from the first backup to
// every later moment, and the files of all of them.
func TestOpenerPostgres(t *testing.T) {
	if testing.Short() {
		t.Skip("several servers are brought up")
	}
	p := realtest.PostgresWith(t, realtest.PostgresOptions{Settings: []string{
		"archive_mode=on", "archive_command=mkdir -p ../archive && cp %p ../archive/%f", "autovacuum=off", "fsync=off",
	}})
	s, err := sqlstore.Open(t.Context(), p.DB, "postgres", nil)
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Dir(p.Dir)
	archive, backups := filepath.Join(home, "archive"), filepath.Join(home, "backups")
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := p.DB.Exec(query, args...); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	rows := t.TempDir()
	alive := make(map[string]string)
	testOpener(t, fileKEK(t), world{
		store: s,
		live: func() []string {
			// PostgreSQL promises nothing about its files before the epoch's end: ask the server alone.
			dir := t.TempDir()
			dump(t, p.DB, filepath.Join(dir, "rows"))
			return []string{dir}
		},
		copy: func(name string) {
			point := strings.ReplaceAll(name, " ", "_")
			exec("SELECT pg_create_restore_point($1)", point)
			exec("CHECKPOINT")
			if out, err := p.Command("pg_basebackup", "-D", filepath.Join(backups, point), "--checkpoint=fast", "-X", "none", "--no-sync").CombinedOutput(); err != nil {
				t.Fatalf("pg_basebackup: %v: %s", err, out)
			}
			names = append(names, point)
		},
		dirs: func() []string {
			archiveAll(t, p.DB)
			for _, name := range names {
				if alive[name] != "" || name != "before" && name != names[len(names)-1] {
					continue // two moments are enough: the server's files of the others are in the backups
				}
				from := names[0]
				settings := []string{
					"restore_command=cp " + archive + "/%f %p", "recovery_target_action=promote", "archive_mode=off", "autovacuum=off", "fsync=off",
					"recovery_target_name=" + name,
				}
				alive[name] = revive(t, filepath.Join(backups, from), settings, filepath.Join(rows, name))
			}
			return append(slices.Collect(maps.Values(alive)), home, rows)
		},
	})
}

// archiveAll waits until the write-ahead log is in the archive.
func archiveAll(t testing.TB, db *sql.DB) {
	t.Helper()
	var name string
	if err := db.QueryRow("SELECT pg_walfile_name(pg_switch_wal())").Scan(&name); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var done bool
		if err := db.QueryRow("SELECT coalesce(left(last_archived_wal, 24), '') >= $1 FROM pg_stat_archiver", name).Scan(&done); err != nil {
			t.Fatal(err)
		}
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the write-ahead log was not archived")
		}
	}
}

// revive starts a server on a base backup, lets it replay the archive, and returns its folder.
func revive(t testing.TB, backup string, settings []string, rows string) string {
	t.Helper()
	signal := filepath.Join(backup, "recovery.signal")
	if err := os.WriteFile(signal, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p := realtest.PostgresWith(t, realtest.PostgresOptions{Settings: settings, Backup: backup, Database: "crmguard"})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var recovering bool
		if err := p.DB.QueryRow("SELECT pg_is_in_recovery()").Scan(&recovering); err != nil {
			t.Fatal(err)
		}
		if !recovering {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the server did not finish its recovery")
		}
	}
	dump(t, p.DB, rows)
	p.Stop(t)
	return p.Dir
}
