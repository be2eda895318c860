package backuptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"crypto/ed25519"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/policy"
)

// TestBucket checks that open makes a bucket as backup.Bucket promises, empty at first.
func TestBucket(t *testing.T, open func(testing.TB) backup.Bucket) {
	names := func(t *testing.T, b backup.Bucket, prefix string) (all []string) {
		t.Helper()
		for o, err := range b.List(t.Context(), prefix) {
			if err != nil {
				t.Fatal(err)
			}
			if o.Modified.IsZero() {
				t.Errorf("%s has no time", o.Name)
			}
			all = append(all, fmt.Sprintf("%s %d", o.Name, o.Size))
		}
		return all
	}
	t.Run("put, get, list, delete", func(t *testing.T) {
		b, ctx := open(t), t.Context()
		if got := names(t, b, ""); len(got) != 0 {
			t.Fatalf("not empty at first: %v", got)
		}
		if got := names(t, b, "segments/"); len(got) != 0 {
			t.Fatalf("not empty at first: %v", got)
		}
		for name, data := range map[string]string{"segments/b1": "hello", "segments/a-2": "", "head": "x", "segments2/z": "zz"} {
			mine := []byte(data)
			if err := b.Put(ctx, name, mine); err != nil {
				t.Fatal(err)
			}
			clear(mine) // it is the caller's again
		}
		if got := names(t, b, "segments/"); !reflect.DeepEqual(got, []string{"segments/a-2 0", "segments/b1 5"}) {
			t.Fatalf("list: %v", got)
		}
		if got := names(t, b, "seg"); len(got) != 3 {
			t.Fatalf("list by part of a word: %v", got)
		}
		if got := names(t, b, ""); len(got) != 4 {
			t.Fatalf("list of all: %v", got)
		}
		for _, c := range []struct {
			offset, length int64
			want           string
		}{{0, 100, "hello"}, {0, 2, "he"}, {3, 2, "lo"}, {3, 100, "lo"}, {0, 0, ""}} {
			got, err := b.Get(ctx, "segments/b1", c.offset, c.length)
			if err != nil || string(got) != c.want {
				t.Fatalf("get %d+%d: %q, %v", c.offset, c.length, got, err)
			}
		}
		for range 2 {
			if err := b.Delete(ctx, "segments/b1"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Get(ctx, "segments/b1", 0, 1); !errors.Is(err, backup.ErrNotFound) {
			t.Fatalf("get what was deleted: %v", err)
		}
		if _, err := b.Get(ctx, "never/was", 0, 1); !errors.Is(err, backup.ErrNotFound) {
			t.Fatalf("get what never was: %v", err)
		}
	})
	t.Run("write once", func(t *testing.T) {
		b, ctx := open(t), t.Context()
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() { errs[i] = b.Put(ctx, "snapshots/1", bytes.Repeat([]byte{byte(i)}, 100_000)) })
		}
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case !errors.Is(err, backup.ErrExists):
				t.Fatalf("put %d of a taken name: %v", i, err)
			}
		}
		if winner < 0 {
			t.Fatal("nobody wrote")
		}
		got, err := b.Get(ctx, "snapshots/1", 0, 1<<20)
		if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{byte(winner)}, 100_000)) {
			t.Fatalf("the object is not the winner's: %d bytes, %v", len(got), err)
		}
		if all := names(t, b, ""); len(all) != 1 {
			t.Fatalf("left behind: %v", all)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		b := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.Put(ctx, "a", []byte("x")); err == nil {
			t.Fatal("a cancelled put succeeded")
		}
		if _, err := b.Get(t.Context(), "a", 0, 1); !errors.Is(err, backup.ErrNotFound) {
			t.Fatalf("a cancelled put left an object: %v", err)
		}
	})
}

// TestLocker checks that open makes a bucket whose locks are as backup.Locker promises, empty at first. It runs TestBucket too, and
// waits some seconds until a lock is over.
func TestLocker(t *testing.T, open func(testing.TB) backup.Locker) {
	TestBucket(t, func(t testing.TB) backup.Bucket { return open(t) })
	// locked makes an object that is locked for an hour.
	locked := func(t *testing.T) (b backup.Locker, until time.Time) {
		t.Helper()
		b, until = open(t), time.Now().Add(time.Hour)
		if err := b.Put(t.Context(), "segments/a", []byte("good")); err != nil {
			t.Fatal(err)
		}
		if err := b.Lock(t.Context(), "segments/a", until); err != nil {
			t.Fatal(err)
		}
		return b, until
	}
	// is fails unless the object is whole and locked until then, at least and to a second and a bit.
	is := func(t *testing.T, b backup.Locker, until time.Time) {
		t.Helper()
		if d, err := b.Get(t.Context(), "segments/a", 0, 100); err != nil || string(d) != "good" {
			t.Fatalf("get: %q, %v", d, err)
		}
		got, err := b.LockedUntil(t.Context(), "segments/a")
		if err != nil || got.Before(until.Truncate(time.Second)) || got.After(until.Add(2*time.Second)) {
			t.Fatalf("locked until %v, %v; want %v", got, err, until)
		}
	}
	t.Run("lock", func(t *testing.T) {
		b, until := locked(t)
		is(t, b, until)
		if err := b.Delete(t.Context(), "segments/a"); !errors.Is(err, backup.ErrLocked) {
			t.Fatalf("delete: %v", err)
		}
		if err := b.Put(t.Context(), "segments/a", []byte("other")); !errors.Is(err, backup.ErrExists) {
			t.Fatalf("put: %v", err)
		}
		is(t, b, until)
		found := 0
		for o, err := range b.List(t.Context(), "") {
			if err != nil || o.Name != "segments/a" || o.Size != 4 {
				t.Fatalf("list: %v, %v", o, err)
			}
			found++
		}
		if found != 1 {
			t.Fatalf("%d objects are listed", found)
		}
	})
	t.Run("never shorter", func(t *testing.T) {
		b, until := locked(t)
		for _, earlier := range []time.Time{until, until.Add(-time.Minute), time.Now().Add(-time.Hour), {}} {
			if err := b.Lock(t.Context(), "segments/a", earlier); err != nil {
				t.Fatalf("lock until %v: %v", earlier, err)
			}
			is(t, b, until)
		}
	})
	t.Run("longer", func(t *testing.T) {
		b, until := locked(t)
		for range 2 {
			until = until.Add(24 * time.Hour)
			if err := b.Lock(t.Context(), "segments/a", until); err != nil {
				t.Fatal(err)
			}
			is(t, b, until)
		}
	})
	t.Run("not locked", func(t *testing.T) {
		b := open(t)
		if err := b.Put(t.Context(), "segments/a", []byte("good")); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := b.LockedUntil(t.Context(), "segments/a"); err != nil || !got.IsZero() {
				t.Fatalf("locked until %v, %v", got, err)
			}
			if err := b.Lock(t.Context(), "segments/a", time.Now().Add(-time.Hour)); err != nil {
				t.Fatalf("a lock that is over: %v", err)
			}
		}
		if err := b.Delete(t.Context(), "segments/a"); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		b, _ := locked(t)
		for _, name := range []string{"segments/b", "segments", "segments/a-b"} {
			if err := b.Lock(t.Context(), name, time.Now().Add(time.Hour)); !errors.Is(err, backup.ErrNotFound) {
				t.Errorf("lock %s: %v", name, err)
			}
			if err := b.Lock(t.Context(), name, time.Now().Add(-time.Hour)); !errors.Is(err, backup.ErrNotFound) {
				t.Errorf("lock %s in the past: %v", name, err)
			}
			if _, err := b.LockedUntil(t.Context(), name); !errors.Is(err, backup.ErrNotFound) {
				t.Errorf("until when %s is locked: %v", name, err)
			}
			if err := b.Delete(t.Context(), name); err != nil {
				t.Errorf("delete %s: %v", name, err)
			}
		}
	})
	t.Run("others", func(t *testing.T) { // a name that begins with the locked one's is not locked
		b, until := locked(t)
		for _, name := range []string{"segments/a2", "segments/a-b"} {
			if err := b.Put(t.Context(), name, []byte("x")); err != nil {
				t.Fatal(err)
			}
			if got, err := b.LockedUntil(t.Context(), name); err != nil || !got.IsZero() {
				t.Fatalf("%s is locked until %v, %v", name, got, err)
			}
			if err := b.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		is(t, b, until)
	})
	t.Run("at once", func(t *testing.T) {
		b, until := locked(t)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if err := b.Lock(t.Context(), "segments/a", until.Add(time.Duration(i)*time.Hour)); err != nil {
					t.Errorf("lock %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		is(t, b, until.Add(7*time.Hour))
	})
	t.Run("over", func(t *testing.T) {
		b := open(t)
		if err := b.Put(t.Context(), "segments/a", []byte("good")); err != nil {
			t.Fatal(err)
		}
		until := time.Now().Add(2 * time.Second)
		if err := b.Lock(t.Context(), "segments/a", until); err != nil {
			t.Fatal(err)
		}
		for {
			err := b.Delete(t.Context(), "segments/a")
			now := time.Now()
			switch {
			case err == nil && now.Before(until):
				t.Fatalf("deleted %v before the lock was over", until.Sub(now))
			case err == nil:
				if _, err := b.Get(t.Context(), "segments/a", 0, 1); !errors.Is(err, backup.ErrNotFound) {
					t.Fatalf("get what was deleted: %v", err)
				}
				return
			case !errors.Is(err, backup.ErrLocked):
				t.Fatal(err)
			case now.After(until.Add(30 * time.Second)):
				t.Fatal("locked still, long after its time")
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

// Store is what can be backed up and restored into.
type Store interface {
	backup.Source
	backup.Sink
}

// TestStore checks a source and sink: filled makes a store with some rows, empty one without, of the same kind.
func TestStore(t *testing.T, filled, empty func(testing.TB) Store) {
	t.Run("round trip", func(t *testing.T) {
		from, to := filled(t), empty(t)
		want := dump(t, from)
		if rows(want) == 0 {
			t.Fatal("the filled store has no rows")
		}
		if err := restoreInto(t, want, to); err != nil {
			t.Fatal(err)
		}
		same(t, want, dump(t, to))
		if err := restoreInto(t, want, to); !errors.Is(err, backup.ErrNotEmpty) {
			t.Fatalf("a second restore: got %v, want ErrNotEmpty", err)
		}
		same(t, want, dump(t, to))
	})
	t.Run("unchanged", func(t *testing.T) {
		from := filled(t)
		_, repo, key := repository(t)
		for i := range 2 {
			snap, err := repo.Backup(t.Context(), from, &backup.BackupOptions{Chain: &policy.Chain{}})
			if err != nil {
				t.Fatal(err)
			}
			if snap.Depth != i || i == 1 && snap.Bytes != 0 {
				t.Fatalf("snapshot %d has depth %d and %d bytes of rows", i, snap.Depth, snap.Bytes)
			}
		}
		var got Memory
		if _, err := repo.Restore(t.Context(), "", &got, key, nil); err != nil {
			t.Fatal(err)
		}
		Alike(t, dump(t, from), &got)
	})
	t.Run("not empty", func(t *testing.T) {
		to := filled(t)
		want := dump(t, to)
		if err := restoreInto(t, want, to); !errors.Is(err, backup.ErrNotEmpty) {
			t.Fatalf("got %v, want ErrNotEmpty", err)
		}
		same(t, want, dump(t, to))
	})
	t.Run("interrupted", func(t *testing.T) {
		from, to := filled(t), empty(t)
		want := dump(t, from)
		bucket, repo, key := repository(t)
		if _, err := repo.Backup(t.Context(), want, nil); err != nil {
			t.Fatal(err)
		}
		broken := bucket.Clone()
		for o := range broken.List(t.Context(), "segments/") {
			b, _ := broken.Get(t.Context(), o.Name, 0, o.Size)
			b[len(b)-30] ^= 1 // the footer, behind all rows: the digest of the object does not fit
			broken.Set(o.Name, b)
		}
		bad := reopen(t, broken)
		if _, err := bad.Restore(t.Context(), "", to, key, nil); !errors.Is(err, backup.ErrTampered) {
			t.Fatalf("got %v, want ErrTampered", err)
		}
		// The sink takes rows until the reader fails late.
		late := &lateFailure{want}
		if _, err := repo.Backup(t.Context(), late, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := repo.Restore(t.Context(), "", to, key, nil); err == nil {
			t.Fatal("a table of no schema was taken")
		}
		if err := restoreInto(t, want, to); err != nil {
			t.Fatalf("restore after ones that failed: %v", err)
		}
		same(t, want, dump(t, to))
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, repo, _ := repository(t)
		if _, err := repo.Backup(ctx, filled(t), nil); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want context.Canceled", err)
		}
	})
}

// lateFailure dumps a store and then a table that its schema does not know.
type lateFailure struct{ *Memory }

func (l *lateFailure) Dump(ctx context.Context, w *backup.Writer) error {
	if err := l.Memory.Dump(ctx, w); err != nil {
		return err
	}
	if err := w.Table(backup.Table{Name: "no_such_table_anywhere", Columns: []string{"a"}}); err != nil {
		return err
	}
	return w.Row(int64(1))
}

func rows(m *Memory) (n int) {
	for _, t := range m.Tables {
		n += len(t.Rows)
	}
	return n
}

func same(t *testing.T, want, got *Memory) {
	t.Helper()
	if !bytes.Equal(want.Schema.Data, got.Schema.Data) {
		t.Errorf("schema: got %s\nwant %s", got.Schema.Data, want.Schema.Data)
	}
	if !reflect.DeepEqual(want.Schema.Versions, got.Schema.Versions) {
		t.Errorf("versions: got %v, want %v", got.Schema.Versions, want.Schema.Versions)
	}
	if len(want.Tables) != len(got.Tables) {
		t.Fatalf("%d tables, want %d", len(got.Tables), len(want.Tables))
	}
	for i, w := range want.Tables {
		g := got.Tables[i]
		if w.Name != g.Name || !reflect.DeepEqual(w.Columns, g.Columns) || len(w.Rows) != len(g.Rows) {
			t.Fatalf("table %v with %d rows, want %v with %d", g.Table, len(g.Rows), w.Table, len(w.Rows))
		}
		for k := range w.Rows {
			if spell(w.Rows[k]) != spell(g.Rows[k]) { // not DeepEqual, to which NaN is never equal
				t.Fatalf("table %s, row %d: got %#v\nwant %#v", w.Name, k, g.Rows[k], w.Rows[k])
			}
		}
	}
}

// dump reads a store through a repository.
func dump(t testing.TB, from backup.Source) *Memory {
	t.Helper()
	_, repo, key := repository(t)
	if _, err := repo.Backup(t.Context(), from, nil); err != nil {
		t.Fatal(err)
	}
	var m Memory
	if _, err := repo.Restore(t.Context(), "", &m, key, nil); err != nil {
		t.Fatal(err)
	}
	return &m
}

func restoreInto(t testing.TB, from backup.Source, to backup.Sink) error {
	t.Helper()
	_, repo, key := repository(t)
	if _, err := repo.Backup(t.Context(), from, nil); err != nil {
		t.Fatal(err)
	}
	_, err := repo.Restore(t.Context(), "", to, key, nil)
	return err
}

// Signer is a signing key that is the same on each call. Never use it outside tests.
func Signer() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte("test"), 8))
}

var privateKey = sync.OnceValues(backupkey.Generate)

// Key is one private key for the whole test binary.
func Key(t testing.TB) *backupkey.Private {
	t.Helper()
	k, err := privateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func repository(t testing.TB) (*Bucket, *backup.Repository, *backupkey.Private) {
	t.Helper()
	b := &Bucket{}
	return b, reopen(t, b), Key(t)
}

func reopen(t testing.TB, b backup.Bucket) *backup.Repository {
	t.Helper()
	s := Signer()
	r, err := backup.Open(t.Context(), b, s.Public().(ed25519.PublicKey), &backup.Options{Signer: s, Recipient: Key(t).Public()})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Alike fails when two stores differ in more than the order of rows.
func Alike(t testing.TB, want, got *Memory) {
	t.Helper()
	if !reflect.DeepEqual(want.Schema, got.Schema) || len(want.Tables) != len(got.Tables) {
		t.Fatalf("%d tables, want %d, or another schema", len(got.Tables), len(want.Tables))
	}
	for i, w := range want.Tables {
		g := got.Tables[i]
		if g.Name != w.Name || fmt.Sprint(g.Columns, g.Key, g.Parents) != fmt.Sprint(w.Columns, w.Key, w.Parents) || len(g.Rows) != len(w.Rows) {
			t.Fatalf("table %s with %d rows is not %s with %d, or has other columns", g.Name, len(g.Rows), w.Name, len(w.Rows))
		}
		count := map[string]int{}
		for _, r := range w.Rows {
			count[spell(r)]++
		}
		for _, r := range g.Rows {
			if k := spell(r); count[k] == 0 {
				t.Fatalf("table %s has a row that is not wanted", w.Name)
			} else {
				count[k]--
			}
		}
	}
}

// spell makes a text of a row that tells types and values apart, NaN and the signs of zero too.
func spell(row []any) string {
	var b []byte
	for _, v := range row {
		if raw, ok := v.([]byte); ok {
			b = fmt.Appendf(b, "%d bytes ", len(raw))
			b = append(b, raw...)
			continue
		}
		b = fmt.Appendf(b, "%#v ", v)
	}
	return string(b)
}
