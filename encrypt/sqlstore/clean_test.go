package sqlstore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

// needles are person keys whose wrapped bytes are looked for in files.
type needles struct {
	store   *sqlstore.Store
	wrapped map[uint64][]byte
}

func keyID(n uint64) (id keys.ID) {
	binary.BigEndian.PutUint64(id[:], n)
	return id
}

// addNeedles adds an epoch key and n person keys of 77 random bytes, ids 1000 and up.
func addNeedles(t testing.TB, s *sqlstore.Store, n int) *needles {
	t.Helper()
	out := &needles{s, make(map[uint64][]byte)}
	records := []keys.Record{{ID: keyID(1), Kind: keys.EpochKey, Version: 1, Wrapped: []byte("epoch")}}
	for i := range uint64(n) {
		w := make([]byte, 77)
		rand.Read(w)
		out.wrapped[1000+i] = w
		r := keys.Record{ID: keyID(1000 + i), Kind: keys.PersonKey, Retention: keys.Ordinary, Epoch: keyID(1), Wrapped: w, Commitment: make([]byte, 32)}
		binary.BigEndian.PutUint64(r.Person[:], i+1)
		records = append(records, r)
	}
	if err := s.Add(t.Context(), "acme", records); err != nil {
		t.Fatal(err)
	}
	return out
}

func tombs(ids ...uint64) (out []keys.Record) {
	for _, id := range ids {
		out = append(out, keys.Record{ID: keyID(id), Kind: keys.Tombstone, Retention: keys.Ordinary, Wrapped: make([]byte, 32), Commitment: make([]byte, 32)})
	}
	return out
}

// in counts which of the keys lie in the files.
func (n *needles) in(t testing.TB, paths []string, ids ...uint64) (found int) {
	t.Helper()
	heads := make(map[uint64]uint64, len(ids)) // the first bytes of a wrapped key, random enough to name it
	for _, id := range ids {
		heads[binary.BigEndian.Uint64(n.wrapped[id])] = id
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for i := 0; i+8 <= len(b); i++ {
			head := binary.BigEndian.Uint64(b[i:])
			if id, ok := heads[head]; ok && bytes.HasPrefix(b[i:], n.wrapped[id]) {
				delete(heads, head)
				found++
			}
		}
	}
	return found
}

// rawSQLite opens a database with its own settings in a fresh folder.
func rawSQLite(t testing.TB, settings string) (db *sql.DB, files []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.db")
	db, err := sql.Open("sqlite", "file:"+path+"?"+settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db, []string{path, path + "-wal", path + "-journal"}
}

func TestOpenRefusesForgetfulSettings(t *testing.T) {
	for settings, want := range map[string]string{
		"": "secure_delete",
		"_pragma=secure_delete(0)&_pragma=journal_mode(WAL)":     "secure_delete",
		"_pragma=secure_delete(fast)&_pragma=journal_mode(WAL)":  "secure_delete",
		"_pragma=secure_delete(1)&_pragma=journal_mode(PERSIST)": "persist",
	} {
		db, _ := rawSQLite(t, settings)
		if _, err := sqlstore.Open(t.Context(), db, "sqlite", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", settings, err)
		}
		if _, err := db.Exec("SELECT * FROM encrypt_key"); err == nil {
			t.Errorf("%q: a refused database got tables", settings)
		}
	}
	db, _ := rawSQLite(t, "_pragma=secure_delete(1)")
	if _, err := sqlstore.Open(t.Context(), db, "sqlite", &sqlstore.Options{Patience: -1}); err == nil {
		t.Error("negative patience")
	}
}

// A destroyed key leaves neither the file nor the write-ahead log with its bytes; nor the journal of the
// older mode.
func TestErasureLeavesNoTrace(t *testing.T) {
	for _, settings := range []string{
		"_pragma=secure_delete(1)&_pragma=journal_mode(WAL)",
		"_pragma=secure_delete(1)&_pragma=journal_mode(DELETE)",
		"_pragma=secure_delete(1)&_pragma=journal_mode(TRUNCATE)",
	} {
		db, files := rawSQLite(t, settings)
		s, err := sqlstore.Open(t.Context(), db, "sqlite", nil)
		if err != nil {
			t.Fatal(err)
		}
		n := addNeedles(t, s, 50)
		gone := []uint64{1000, 1001, 1025, 1049}
		if n.in(t, files, gone...) != len(gone) {
			t.Fatal("the search finds nothing even before the erasure")
		}
		if _, err := s.Erase(t.Context(), "acme", tombs(gone...)); err != nil {
			t.Fatal(err)
		}
		if found := n.in(t, files, gone...); found != 0 {
			t.Fatalf("%s: %d destroyed keys are in the files", settings, found)
		}
		if n.in(t, files, 1002) != 1 {
			t.Fatal("a living key is gone")
		}
	}
}

// Rows come, change and go: copies that a balanced page left behind must not outlive their key either. In a
// table clustered by id this test finds some.
func TestErasureAfterChurn(t *testing.T) {
	db, files := rawSQLite(t, "_pragma=secure_delete(1)&_pragma=journal_mode(WAL)&_txlock=immediate")
	s, err := sqlstore.Open(t.Context(), db, "sqlite", nil)
	if err != nil {
		t.Fatal(err)
	}
	rounds, each := 8, 500
	if os.Getenv("CRMGUARD_SOAK") == "1" {
		rounds = 40
	}
	rnd := mathrand.New(mathrand.NewPCG(1, 2))
	all := &needles{s, make(map[uint64][]byte)}
	living := make(map[uint64]bool)
	var gone []uint64 // destroyed keys, in all the wrappings they ever had
	before, stale := make(map[uint64][]uint64), uint64(0)
	epoch := keys.Record{ID: keyID(1), Kind: keys.EpochKey, Version: 1, Wrapped: []byte("epoch")}
	for round := range rounds {
		batch := []keys.Record{epoch}
		for range each {
			id := rnd.Uint64() // anywhere in the tree
			w := make([]byte, 77)
			rand.Read(w)
			all.wrapped[id], living[id] = w, true
			r := keys.Record{ID: keyID(id), Kind: keys.PersonKey, Retention: keys.Ordinary, Epoch: keyID(1), Wrapped: w, Commitment: make([]byte, 32)}
			binary.BigEndian.PutUint64(r.Person[:], id)
			batch = append(batch, r)
		}
		if err := s.Add(t.Context(), "acme", batch); err != nil {
			t.Fatal(err)
		}
		// Half of them are rewrapped, as in a rotation.
		var again []keys.Record
		for id := range living {
			if rnd.IntN(2) == 0 {
				w := make([]byte, 77)
				rand.Read(w)
				stale++
				all.wrapped[id], all.wrapped[stale] = w, all.wrapped[id]
				before[id] = append(before[id], stale)
				again = append(again, keys.Record{ID: keyID(id), Kind: keys.PersonKey, Epoch: keyID(1), Wrapped: w})
			}
		}
		if err := s.Rewrap(t.Context(), "acme", again); err != nil {
			t.Fatal(err)
		}
		var now []uint64
		for id := range living {
			if rnd.IntN(5) == 0 {
				now = append(now, id)
				gone = append(append(gone, id), before[id]...)
				delete(living, id)
			}
		}
		var block []keys.ID
		for _, id := range now {
			block = append(block, keyID(id))
		}
		if err := s.Block(t.Context(), "acme", block, time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
		if found := all.in(t, files, now...); found != len(now) {
			t.Fatalf("only %d of %d keys are found before the erasure", found, len(now))
		}
		if _, err := s.Erase(t.Context(), "acme", tombs(now...)); err != nil {
			t.Fatal(err)
		}
		if found := all.in(t, files, gone...); found != 0 {
			t.Fatalf("round %d: %d of %d wrappings of destroyed keys are in the files", round, found, len(gone))
		}
	}
	t.Logf("%d wrappings of destroyed keys among %d, none found", len(gone), len(all.wrapped))
}

// reader holds a snapshot of the database until end.
func reader(t testing.TB, path string) (end func()) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.BeginTx(context.Background(), &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := tx.QueryRow("SELECT count(*) FROM encrypt_key").Scan(&n); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			tx.Rollback()
			db.Close()
		}
	}
	t.Cleanup(end)
	return end
}

func TestReaderThatEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := openSQLite(t, path)
	n := addNeedles(t, s, 20)
	end := reader(t, path)
	time.AfterFunc(100*time.Millisecond, end)
	if number, err := s.Erase(t.Context(), "acme", tombs(1003)); err != nil || number != 2 {
		t.Fatalf("erase: %d, %v", number, err)
	}
	if n.in(t, []string{path, path + "-wal"}, 1003) != 0 {
		t.Fatal("the destroyed key is still in a file")
	}
}

func TestReaderThatStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	files := []string{path, path + "-wal"}
	open := func(patience time.Duration) *sqlstore.Store {
		w, r, err := dialect.OpenSQLite(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close(); r.Close() })
		s, err := sqlstore.Open(t.Context(), w, "sqlite", &sqlstore.Options{Reads: r, Patience: patience})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open(50 * time.Millisecond)
	n := addNeedles(t, s, 20)
	// stays erases a key while a reader holds a snapshot from before.
	stays := func(want, id uint64) (end func()) {
		t.Helper()
		end = reader(t, path)
		number, err := s.Erase(t.Context(), "acme", tombs(id))
		if !errors.Is(err, keys.ErrTraces) || number != want {
			t.Fatalf("erase: %d, %v; want %d and ErrTraces", number, err, want)
		}
		got, err := s.Find(t.Context(), "acme", keys.Query{IDs: []keys.ID{keyID(id)}})
		if err != nil || len(got) != 1 || got[0].Kind != keys.Tombstone {
			t.Fatalf("the key is not erased: %v, %v", got, err)
		}
		if n.in(t, files, id) != 1 {
			t.Fatal("ErrTraces, and no trace is found")
		}
		return end
	}
	clean := func(how string, ids ...uint64) {
		t.Helper()
		if n.in(t, files, ids...) != 0 {
			t.Fatalf("%s left the old bytes", how)
		}
	}

	end := stays(2, 1001)
	if err := s.Clean(t.Context()); !errors.Is(err, keys.ErrTraces) {
		t.Fatalf("clean with a reader: %v", err)
	}
	end()
	if err := s.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	clean("Clean", 1001)

	stays(3, 1002)()
	if _, err := s.Erase(t.Context(), "acme", tombs(1002)); err != nil {
		t.Fatal(err)
	}
	clean("erasing again", 1001, 1002)

	stays(4, 1003)()
	if err := s.Block(t.Context(), "acme", []keys.ID{keyID(1010)}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	clean("the next change", 1001, 1002, 1003)

	stays(6, 1004)()
	open(0)
	clean("the next Open", 1001, 1002, 1003, 1004)

	// The caller's context ends the wait before the patience does, and the erasure stands.
	s = open(time.Hour)
	end = reader(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if number, err := s.Erase(ctx, "acme", tombs(1005)); !errors.Is(err, keys.ErrTraces) || number != 7 {
		t.Fatalf("erase: %d, %v", number, err)
	}
	// Others write meanwhile, and none of them waits for the reader.
	start := time.Now()
	done := make(chan error)
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		_, err := s.Erase(ctx, "acme", tombs(1006))
		done <- err
	}()
	for i := range int64(20) {
		if err := s.Block(t.Context(), "acme", []keys.ID{keyID(1010)}, time.Unix(10+i, 0)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("20 writes beside a waiting erasure: %v", time.Since(start))
	cancel()
	if err := <-done; err != nil && !errors.Is(err, keys.ErrTraces) && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	end()
	if err := s.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	clean("Clean", 1005)
}

// The wait for readers is the caller's setting, and it is as it was afterwards.
func TestBusyTimeoutStays(t *testing.T) {
	db, _ := rawSQLite(t, "_pragma=secure_delete(1)&_pragma=journal_mode(WAL)&_pragma=busy_timeout(1234)")
	db.SetMaxOpenConns(1)
	s, err := sqlstore.Open(t.Context(), db, "sqlite", nil)
	if err != nil {
		t.Fatal(err)
	}
	addNeedles(t, s, 3)
	if _, err := s.Erase(t.Context(), "acme", tombs(1000)); err != nil {
		t.Fatal(err)
	}
	var ms int
	if err := db.QueryRow("PRAGMA busy_timeout").Scan(&ms); err != nil || ms != 1234 {
		t.Fatalf("busy_timeout is %d, %v", ms, err)
	}
}

// PostgreSQL's heap holds a deleted row until VACUUM.
func TestPostgresHeap(t *testing.T) {
	p := realtest.Postgres(t)
	if p.Dir == "" {
		t.Skip("postgres: the data folder of a server that CRMGUARD_TEST_POSTGRES names is not here")
	}
	s, err := sqlstore.Open(t.Context(), p.DB, "postgres", nil)
	if err != nil {
		t.Fatal(err)
	}
	n := addNeedles(t, s, 500)
	var gone []uint64
	for id := uint64(1003); id < 1450; id += 17 { // never the last row of a page: see the package's comment
		gone = append(gone, id)
	}
	heap := func() []string {
		t.Helper()
		var path string
		if _, err := p.DB.Exec("CHECKPOINT"); err != nil {
			t.Fatal(err)
		}
		if err := p.DB.QueryRow("SELECT pg_relation_filepath('encrypt_key')").Scan(&path); err != nil {
			t.Fatal(err)
		}
		return []string{filepath.Join(p.Dir, path)}
	}
	if found := n.in(t, heap(), gone...); found != len(gone) {
		t.Fatalf("the search finds %d of %d keys before the erasure", found, len(gone))
	}
	if _, err := s.Erase(t.Context(), "acme", tombs(gone...)); err != nil {
		t.Fatal(err)
	}
	found := n.in(t, heap(), gone...)
	t.Logf("%d of %d destroyed keys are in the heap after VACUUM", found, len(gone))
	if found > len(gone)/3 {
		t.Fatal("VACUUM did not run")
	}
	if err := s.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	// An old transaction still sees the rows: Erase says nothing, as it promises nothing here.
	tx, err := p.DB.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	var rows int
	if err := tx.QueryRow("SELECT count(*) FROM encrypt_key").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Erase(t.Context(), "acme", tombs(1004)); err != nil {
		t.Fatal(err)
	}
}
