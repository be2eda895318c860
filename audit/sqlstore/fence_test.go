package sqlstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

func batch(first uint64) driver.Batch {
	return driver.Batch{First: first, Count: 1, Data: []byte(fmt.Sprint("event ", first))}
}

func writer(t testing.TB, s *sqlstore.Store, batches uint64) driver.Writer {
	t.Helper()
	w, err := s.Writer(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	for n := range batches {
		if err := w.Append(context.Background(), batch(n)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func count(t testing.TB, s driver.Store) (n int) {
	t.Helper()
	for b, err := range s.Batches(context.Background(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		n += int(b.Count)
	}
	return n
}

// A writer that is not the newest one writes nothing.
func TestToken(t *testing.T) {
	ctx := context.Background()
	places(t, func(t *testing.T, at place) {
		store := at.store(t, nil)
		w := writer(t, store, 2)
		db, _ := at.db(t)
		if _, err := db.Exec("UPDATE audit_writer SET token = token + 1"); err != nil {
			t.Fatal(err)
		}
		if err := w.SetHead(ctx, []byte("head")); !errors.Is(err, driver.ErrLocked) {
			t.Errorf("head: %v", err)
		}
		if err := w.(driver.Pruner).Prune(ctx, 0, 2, same); !errors.Is(err, driver.ErrLocked) {
			t.Errorf("prune: %v", err)
		}
		for range 2 {
			if err := w.Append(ctx, batch(2)); !errors.Is(err, driver.ErrLocked) {
				t.Errorf("append: %v", err)
			}
		}
		if h, err := store.Head(ctx); h != nil || err != nil || count(t, store) != 2 {
			t.Error("something was written", h, err)
		}
		w.Close()
		w = writer(t, store, 0)
		// Somebody else has written at the end, or taken the end away.
		tb := table{t, db, dialect.Dialect(at.Dialect)}
		tb.set([]row{{first: 0, events: 1, data: []byte("x")}, {first: 1, events: 2, data: []byte("x")}})
		if err := w.Append(ctx, batch(2)); err == nil || errors.Is(err, driver.ErrLocked) {
			t.Errorf("append to another end: %v", err)
		}
		tb.set([]row{{first: 0, events: 1, data: []byte("x")}, {first: 1, events: 1, data: []byte("x")}})
		if err := w.Append(ctx, batch(2)); err == nil {
			t.Error("a failed writer goes on")
		}
	})
}

func TestLockFileRemoved(t *testing.T) {
	ctx := context.Background()
	at := place{"sqlite", filepath.Join(t.TempDir(), "log.db")}
	old := writer(t, at.store(t, nil), 3)
	locks, err := filepath.Glob(at.Database + "-audit-*.lock")
	if err != nil || len(locks) != 1 {
		t.Fatal(locks, err)
	}
	if info, err := os.Stat(locks[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	os.Remove(locks[0])
	store := at.store(t, nil)
	w := writer(t, store, 0)
	if err := w.Append(ctx, batch(3)); err != nil {
		t.Fatal(err)
	}
	if err := old.Append(ctx, batch(3)); !errors.Is(err, driver.ErrLocked) {
		t.Fatalf("the old writer: %v", err)
	}
	if err := w.Append(ctx, batch(4)); err != nil || count(t, store) != 5 {
		t.Fatal(err)
	}
}

// A writer whose session the server ends is out at once; another may follow.
func TestSessionEnds(t *testing.T) {
	ctx := context.Background()
	at := place{"postgres", realtest.Postgres(t).DSN}
	store := at.store(t, nil)
	w := writer(t, store, 3)
	db, _ := at.db(t)
	var ended int
	if err := db.QueryRow(`SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory'
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&ended); err != nil || ended != 1 {
		t.Fatal(ended, err)
	}
	for range 2 {
		if err := w.Append(ctx, batch(3)); err == nil {
			t.Fatal("it appends without its session")
		}
	}
	next := writer(t, at.store(t, nil), 0)
	if err := next.Append(ctx, batch(3)); err != nil {
		t.Fatal(err)
	}
	if err := w.SetHead(ctx, []byte("head")); err == nil {
		t.Error("it sets a head")
	}
	w.Close()
	if err := next.Append(ctx, batch(4)); err != nil || count(t, store) != 5 {
		t.Fatal(err)
	}
}

// A database that does not answer makes appends fail in time. A lock that is held
// for a moment does not.
func TestBusy(t *testing.T) {
	ctx := context.Background()
	places(t, func(t *testing.T, at place) {
		store := at.store(t, &sqlstore.Options{Timeout: time.Second})
		w := writer(t, store, 2)
		db, _ := at.db(t)
		hold := func() (free func()) {
			conn, err := db.Conn(ctx)
			if err != nil {
				t.Fatal(err)
			}
			statements := []string{"BEGIN IMMEDIATE"}
			if at.Dialect == "postgres" {
				statements = []string{"BEGIN", "LOCK TABLE audit_batches IN EXCLUSIVE MODE"}
			}
			for _, text := range statements {
				if _, err := conn.ExecContext(ctx, text); err != nil {
					t.Fatal(err)
				}
			}
			return func() {
				conn.ExecContext(ctx, "ROLLBACK")
				conn.Close()
			}
		}
		free := hold()
		time.AfterFunc(200*time.Millisecond, free)
		if err := w.Append(ctx, batch(2)); err != nil {
			t.Fatalf("held for a moment: %v", err)
		}
		free = hold()
		start := time.Now()
		err := w.Append(ctx, batch(3))
		if took := time.Since(start); err == nil || took > 10*time.Second || took < 900*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
		free()
		if err := w.Append(ctx, batch(3)); err == nil {
			t.Error("a failed writer goes on")
		}
		if err := w.Close(); err != nil && at.Dialect == "sqlite" {
			t.Error(err)
		}
		if n := count(t, store); n != 3 && n != 4 { // whether it came through is not known
			t.Error(n)
		}
		w = writer(t, store, 0)
		if err := w.Append(ctx, batch(uint64(count(t, store)))); err != nil {
			t.Error(err)
		}
	})
}

// Without busy_timeout, and with a handle of many connections, appends still wait
// for their turn, and are durable.
func TestPlainSQLite(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "log.db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	store, err := sqlstore.Open(ctx, db, "sqlite", nil)
	if err != nil {
		t.Fatal(err)
	}
	w := writer(t, store, 1)
	var level int
	if err := db.QueryRow("PRAGMA synchronous").Scan(&level); err != nil || level != 3 {
		t.Errorf("synchronous is %d, %v", level, err)
	}
	db.SetMaxOpenConns(8)
	if _, err := db.Exec("CREATE TABLE other (x INTEGER)"); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 { // the program's own writes
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					db.Exec("INSERT INTO other VALUES (1)")
					time.Sleep(time.Millisecond) // the writer under test wants the database too
				}
			}
		})
	}
	for n := uint64(1); n < 60; n++ {
		if err := w.Append(ctx, batch(n)); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	if n := count(t, store); n != 60 {
		t.Fatal(n)
	}
	for _, mode := range []string{"off", "memory"} {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "log.db")+"?_pragma=journal_mode("+mode+")")
		if err != nil {
			t.Fatal(err)
		}
		s, err := sqlstore.Open(ctx, db, "sqlite", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Writer(ctx); err == nil || !strings.Contains(err.Error(), "journal_mode "+mode) {
			t.Errorf("journal_mode %s: %v", mode, err)
		}
		db.Close()
	}
}

// What was acknowledged is there after a crash of a server that forgets by
// default what it committed last.
func TestServerCrash(t *testing.T) {
	ctx := context.Background()
	server := realtest.PostgresWith(t, realtest.PostgresOptions{Settings: []string{"synchronous_commit=off", "wal_writer_delay=10s", "checkpoint_timeout=1h"}})
	at := place{"postgres", server.DSN}
	store := at.store(t, &sqlstore.Options{Timeout: 5 * time.Second})
	db, _ := at.db(t)
	if _, err := db.Exec("CREATE TABLE other (x INTEGER)"); err != nil {
		t.Fatal(err)
	}
	forgotten := 0
	signer := audittest.Signer(t, origin)
	var pin []byte
	acked := map[uint64]string{}
	for round := range 2 {
		l, err := audit.Open(ctx, store, signer, &audit.Options{PinnedHead: pin, CheckpointEvery: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		var n atomic.Int64
		enough := make(chan struct{})
		for w := range 8 {
			wg.Go(func() {
				for i := 0; ; i++ {
					e := event(i)
					e.Note = fmt.Sprintf("r%d-w%d-%d", round, w, i)
					r, err := l.Append(ctx, e)
					if err != nil {
						return
					}
					mu.Lock()
					acked[r.Index] = e.Note
					mu.Unlock()
					if n.Add(1) == 200 {
						close(enough)
					}
				}
			})
		}
		<-enough
		if round == 1 {
			server.Stop(t)
		} else {
			server.Kill(t)
		}
		start := time.Now()
		wg.Wait()
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("the appends failed after %v", took)
		}
		if l.Err() == nil {
			t.Error("the log takes events without its database")
		}
		l.Close()
		server.Start(t)
		db.Exec("SELECT 1") // its connections are gone
		found := 0
		s := at.store(t, nil)
		v, err := audit.Verify(ctx, s, keys(t), &audit.VerifyOptions{OnEvent: func(e audit.Entry) {
			if want, ok := acked[e.Index]; ok && e.Event.Note == want {
				found++
			}
		}})
		if err != nil || v.State != audit.Unanchored || found != len(acked) {
			t.Fatalf("%d of %d: %v, %v", found, len(acked), v, err)
		}
		// The same without what the store does about it.
		if _, err := db.Exec("INSERT INTO other VALUES (1)"); err != nil {
			t.Fatal(err)
		}
		server.Kill(t)
		server.Start(t)
		db.Exec("SELECT 1")
		var rows int
		if err := db.QueryRow("SELECT count(*) FROM other").Scan(&rows); err != nil {
			t.Fatal(err)
		}
		if rows == 0 {
			forgotten++
		}
		db.Exec("DELETE FROM other")
	}
	t.Logf("%d acknowledged events, none lost; a plain insert was lost in %d of 2 crashes", len(acked), forgotten)
	if forgotten == 0 {
		t.Error("the server forgets nothing: the test shows nothing")
	}
}

func TestServerWithoutFsync(t *testing.T) {
	server := realtest.PostgresWith(t, realtest.PostgresOptions{Settings: []string{"fsync=off"}})
	s := place{"postgres", server.DSN}.store(t, nil)
	if _, err := s.Writer(context.Background()); err == nil || !strings.Contains(err.Error(), "fsync") {
		t.Fatal(err)
	}
}

func same(bs iter.Seq2[driver.Batch, error]) iter.Seq2[driver.Batch, error] { return bs }

func TestBadInput(t *testing.T) {
	ctx := context.Background()
	if _, err := sqlstore.Open(ctx, nil, "sqlite", nil); err == nil {
		t.Error("no database")
	}
	if _, err := sqlstore.Open(ctx, nil, "oracle", nil); err == nil {
		t.Error("an unknown dialect")
	}
	places(t, func(t *testing.T, at place) {
		db, r := at.db(t)
		for _, o := range []sqlstore.Options{{Timeout: -1}, {Log: strings.Repeat("x", 201)}, {Log: "a\x00b"}, {Log: "\xff"}} {
			if _, err := sqlstore.Open(ctx, db, at.Dialect, &o); err == nil {
				t.Errorf("%+v", o)
			}
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := sqlstore.Open(gone, db, at.Dialect, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that ended: %v", err)
		}
		s, err := sqlstore.Open(ctx, db, at.Dialect, &sqlstore.Options{Reads: r, Log: strings.Repeat("界/", 50)})
		if err != nil {
			t.Fatal(err)
		}
		w := writer(t, s, 2)
		if err := w.Append(ctx, driver.Batch{First: 2, Count: 1, Data: make([]byte, 64<<20+1)}); err == nil {
			t.Error("too large a batch")
		}
		if err := w.Append(gone, batch(2)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := w.SetHead(gone, nil); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := w.Append(ctx, driver.Batch{First: 2, Count: 1}); err != nil || count(t, s) != 3 {
			t.Errorf("a batch without data: %v", err)
		}
		for range s.Batches(ctx, 1<<63+5) {
			t.Error("an event beyond all")
		}
		if at.Dialect == "postgres" {
			one, err := sql.Open("pgx", at.Database)
			if err != nil {
				t.Fatal(err)
			}
			defer one.Close()
			one.SetMaxOpenConns(1)
			s, err := sqlstore.Open(ctx, one, at.Dialect, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Writer(ctx); err == nil || !strings.Contains(err.Error(), "two connections") {
				t.Error(err)
			}
		}
		db.Close()
		r.Close()
		if err := w.Append(ctx, batch(3)); (err == nil) != (at.Dialect == "postgres") { // there the session lives on
			t.Errorf("append to a closed handle: %v", err)
		}
		if _, err := s.Head(ctx); err == nil {
			t.Error("a closed database has a head")
		}
		if _, err := s.Writer(ctx); err == nil {
			t.Error("a closed database has a writer")
		}
		n := 0
		for _, err := range s.Batches(ctx, 0) {
			if err == nil {
				t.Error("a closed database has batches")
			} else if strings.Contains(err.Error(), filepath.Base(at.Database)) {
				t.Errorf("the error names the database: %v", err)
			}
			n++
		}
		if n != 1 {
			t.Error(n)
		}
		w.Close()
	})
}

// Batches of all sizes come whole and in order from anywhere, and the connection
// is free between them.
func TestPages(t *testing.T) {
	ctx := context.Background()
	places(t, func(t *testing.T, at place) {
		db, r := at.db(t)
		if at.Dialect == "sqlite" {
			r.SetMaxOpenConns(1)
		} else {
			db.SetMaxOpenConns(2)
		}
		store, err := sqlstore.Open(ctx, db, at.Dialect, &sqlstore.Options{Reads: r})
		if err != nil {
			t.Fatal(err)
		}
		w := writer(t, store, 0)
		var begins []uint64
		next := uint64(0)
		size := func(i int) int {
			switch {
			case i == 20, i == 41:
				return 9 << 20
			case i%10 == 3:
				return 1 << 20
			}
			return 100 * i
		}
		fill := func(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8), 7}, 1+size(i)/3) }
		const batches = 60
		for i := range batches {
			n := uint32(1 + i%5)
			if err := w.Append(ctx, driver.Batch{First: next, Count: n, Data: fill(i)}); err != nil {
				t.Fatal(err)
			}
			begins = append(begins, next)
			next += uint64(n)
		}
		for from := uint64(0); from < next; from += 29 {
			i := 0
			for i+1 < batches && begins[i+1] <= from {
				i++
			}
			for b, err := range store.Batches(ctx, from) {
				if err != nil {
					t.Fatal(err)
				}
				if b.First != begins[i] || !bytes.Equal(b.Data, fill(i)) {
					t.Fatalf("from %d: batch %d begins at %d, want %d, %d bytes", from, i, b.First, begins[i], len(b.Data))
				}
				if i++; i%20 == 0 {
					if _, err := store.Head(ctx); err != nil { // in need of a connection
						t.Fatal(err)
					}
				}
			}
			if i != batches {
				t.Fatalf("from %d: ended at batch %d", from, i)
			}
		}
		gone, cancel := context.WithCancel(ctx)
		n := 0
		var last error
		for _, err := range store.Batches(gone, 0) {
			if last = err; err == nil {
				n++
			}
			if n == 30 {
				cancel()
			}
		}
		cancel()
		if n != 30 || !errors.Is(last, context.Canceled) {
			t.Fatal(n, last)
		}
	})
}

// Readers that are at work during a pruning see a whole log each time.
func TestPruneBesideReaders(t *testing.T) {
	ctx := context.Background()
	places(t, func(t *testing.T, at place) {
		store := at.store(t, nil)
		var now atomic.Int64
		now.Store(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC).UnixNano())
		clock := func() time.Time { return time.Unix(0, now.Load()).UTC() }
		l, err := audit.Open(ctx, store, audittest.Signer(t, origin), &audit.Options{Clock: clock})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for i := range 150 {
			e := event(i)
			e.Time = clock()
			if _, err := l.Append(ctx, e); err != nil {
				t.Fatal(err)
			}
		}
		now.Add(int64(200 * 24 * time.Hour))
		stop := make(chan struct{})
		var wg sync.WaitGroup
		read := func(s driver.Store, from uint64) {
			for {
				next := uint64(0)
				for b, err := range s.Batches(ctx, from) {
					if err != nil || next != 0 && b.First != next || next == 0 && b.First > from {
						t.Errorf("from %d: batch at %d, expected %d: %v", from, b.First, next, err)
						return
					}
					next = b.First + uint64(b.Count)
				}
				if next < 151 {
					t.Errorf("from %d: ended at %d", from, next)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		}
		other := at.store(t, nil)
		wg.Go(func() { read(store, 0) })
		wg.Go(func() { read(other, 77) })
		for n := uint64(10); n <= 140; n += 13 {
			if got, err := l.Prune(ctx, n); err != nil || got != n {
				t.Error(got, err)
			}
			if _, err := l.Append(ctx, event(1)); err != nil {
				t.Error(err)
			}
		}
		close(stop)
		wg.Wait()
		v, err := audit.Verify(ctx, store, keys(t), &audit.VerifyOptions{Clock: clock})
		if err != nil || v.State != audit.Unanchored || v.Pruned != 140 {
			t.Fatal(v, err)
		}
	})
}

// statements are the SQL of the document on the tables.
func statements(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("../../docs/formats/audit-sql.md")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, part := range strings.Split(string(b), "```sql\n")[1:] {
		text, _, _ := strings.Cut(part, "```")
		list = append(list, text)
	}
	if len(list) != 3 {
		t.Fatalf("%d parts of SQL", len(list))
	}
	return list
}

// The rights of the document are enough for each role, and no more.
func TestRoles(t *testing.T) {
	ctx := context.Background()
	server := realtest.PostgresWith(t, realtest.PostgresOptions{})
	owner := place{"postgres", server.DSN}
	owner.store(t, nil)
	db, _ := owner.db(t)
	text := statements(t)
	for _, s := range append([]string{"CREATE ROLE crm_audit_writer LOGIN", "CREATE ROLE crm_audit_verifier LOGIN", "CREATE ROLE crm_audit_pruner LOGIN"}, text[:2]...) {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	role := func(name string) *sql.DB {
		db, err := sql.Open("pgx", strings.Replace(server.DSN, "user=postgres", "user="+name, 1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	}
	writes, verifies, prunes := role("crm_audit_writer"), role("crm_audit_verifier"), role("crm_audit_pruner")
	store, err := sqlstore.Open(ctx, writes, "postgres", &sqlstore.Options{Prunes: prunes})
	if err != nil {
		t.Fatal(err)
	}
	history(t, store, 5)
	w := writer(t, store, 0)
	other, err := sqlstore.Open(ctx, verifies, "postgres", nil)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := audit.Verify(ctx, other, keys(t), nil); err != nil || v.State != audit.Unanchored {
		t.Fatal(v, err)
	}
	if _, err := other.Writer(ctx); err == nil || errors.Is(err, driver.ErrLocked) {
		w.Close()
		if _, err := other.Writer(ctx); err == nil || errors.Is(err, driver.ErrLocked) {
			t.Errorf("the verifier writes: %v", err)
		}
		w = writer(t, store, 0)
	}
	if err := w.(driver.Pruner).Prune(ctx, 0, 3, same); err != nil {
		t.Error(err)
	}
	alone, err := sqlstore.Open(ctx, writes, "postgres", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := writer(t, alone, 0).(driver.Pruner).Prune(ctx, 0, 3, same); err == nil || !strings.Contains(err.Error(), "42501") {
		t.Errorf("the writer prunes: %v", err)
	}
	for name, c := range map[string]*sql.DB{"writer": writes, "verifier": verifies, "pruner": prunes, "owner": db} {
		for _, s := range []string{
			"DELETE FROM audit_batches", "TRUNCATE audit_batches", "UPDATE audit_batches SET first = first + 1",
			"UPDATE audit_batches SET data = data",
		} {
			if name == "pruner" && s == "UPDATE audit_batches SET data = data" {
				continue
			}
			if _, err := c.Exec(s); dialect.Code(err) != "42501" {
				t.Errorf("%s: %s: %v", name, s, err)
			}
		}
	}
	if _, err := verifies.Exec("UPDATE audit_head SET note = note"); dialect.Code(err) != "42501" {
		t.Error(err)
	}

	lite := place{"sqlite", filepath.Join(t.TempDir(), "log.db")}
	s := lite.store(t, nil)
	file, _ := lite.db(t)
	if _, err := file.Exec(text[2]); err != nil {
		t.Fatal(err)
	}
	history(t, s, 5)
	for _, s := range []string{"DELETE FROM audit_batches", "UPDATE audit_batches SET data = data"} {
		if _, err := file.Exec(s); err == nil {
			t.Errorf("SQLite: %s", s)
		}
	}
}
