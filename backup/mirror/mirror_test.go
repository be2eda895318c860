package mirror_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/mirror"
	"github.com/crmguard/crmguard/backup/policy"
)

var (
	signer = backuptest.Signer()
	pin    = signer.Public().(ed25519.PublicKey)
)

func open(t testing.TB, b backup.Bucket, change func(*backup.Options)) *backup.Repository {
	t.Helper()
	o := &backup.Options{Signer: signer, Recipient: backuptest.Key(t).Public()}
	if change != nil {
		change(o)
	}
	r, err := backup.Open(t.Context(), b, pin, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func names(t testing.TB, b backup.Bucket) (all []string) {
	t.Helper()
	for o, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o.Name)
	}
	return all
}

func green(t testing.TB, b backup.Bucket) {
	t.Helper()
	rep, err := open(t, b, nil).Verify(t.Context(), &backup.VerifyOptions{Level: backup.Full, Key: backuptest.Key(t)})
	if err != nil || rep.Err() != nil || !rep.Opened {
		t.Fatal(err, rep)
	}
}

func newMirror(t testing.TB, buckets ...*backuptest.Bucket) *mirror.Bucket {
	t.Helper()
	var targets []mirror.Target
	for i, b := range buckets {
		targets = append(targets, mirror.Target{Name: fmt.Sprint("target", i), Bucket: b})
	}
	m, err := mirror.New(targets...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestBucket(t *testing.T) {
	backuptest.TestBucket(t, func(t testing.TB) backup.Bucket {
		return newMirror(t, &backuptest.Bucket{}, &backuptest.Bucket{}, &backuptest.Bucket{})
	})
}

func rows(n int) *backuptest.Memory {
	m := backuptest.Rows(30)
	m.Tables[0].Rows[n%30][3] = fmt.Sprint("step ", n)
	return m
}

// TestTargetFails lets the second target fail at each write of a backup: the backup is whole in the others, the second one shows
// no snapshot that it has not, and the next Sync gives it what it lacks, writing nothing twice.
//
//crm:item 38
func TestTargetFails(t *testing.T) {
	down := errors.New("down")
	for fail := 1; ; fail++ {
		a, b, c := &backuptest.Bucket{}, &backuptest.Bucket{}, &backuptest.Bucket{}
		writes, puts := 0, map[string]int{}
		b.BeforePut = func(name string, _ []byte) error {
			if writes++; writes == fail {
				return down
			}
			puts[name]++
			return nil
		}
		m := newMirror(t, a, b, c)
		r := open(t, m, nil)
		if _, err := r.Backup(t.Context(), rows(1), nil); err != nil {
			t.Fatalf("write %d: %v", fail, err)
		}
		green(t, a)
		green(t, c)
		if writes < fail {
			if fail < 5 {
				t.Fatalf("only %d writes", fail)
			}
			return
		}
		if slices.ContainsFunc(names(t, b), func(n string) bool { return strings.HasPrefix(n, "snapshots/") }) {
			t.Fatalf("write %d: a manifest without its objects", fail)
		}
		lag := m.Status(t.Context())
		if !errors.Is(lag[0].Err, down) || lag[0].Objects == 0 || lag[0].Bytes == 0 || lag[0].Oldest.IsZero() || lag[1].Objects > 0 || lag[1].Err != nil {
			t.Fatalf("write %d: %+v", fail, lag)
		}
		// The next backup goes on without it, and after Sync it takes part again.
		if _, err := r.Backup(t.Context(), rows(2), nil); err != nil {
			t.Fatal(err)
		}
		lag, err := m.Sync(t.Context())
		if err != nil || lag[0].Objects > 0 || lag[0].Err != nil {
			t.Fatalf("write %d: %+v, %v", fail, lag, err)
		}
		green(t, b)
		if _, err := r.Backup(t.Context(), rows(3), nil); err != nil {
			t.Fatal(err)
		}
		green(t, b)
		for name, n := range puts {
			if n > 1 {
				t.Errorf("%s was written %d times", name, n)
			}
		}
		if !slices.Equal(names(t, a), names(t, b)) {
			t.Error("the targets differ")
		}
	}
}

func TestFirstTargetFails(t *testing.T) {
	a, b := &backuptest.Bucket{}, &backuptest.Bucket{}
	r := open(t, newMirror(t, a, b), nil)
	a.BeforePut = func(string, []byte) error { return backup.ErrFull }
	_, err := r.Backup(t.Context(), rows(1), nil)
	if !errors.Is(err, backup.ErrFull) || !strings.Contains(err.Error(), "target0") {
		t.Fatal(err)
	}
	a.BeforePut = nil
	if len(names(t, b)) != 1 { // the repository itself
		t.Fatal(names(t, b))
	}
	// What the first lost is read from another.
	if _, err := r.Backup(t.Context(), rows(1), nil); err != nil {
		t.Fatal(err)
	}
	for _, n := range names(t, a) {
		if err := a.Delete(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	green(t, newMirror(t, a, b))
	if _, err := newMirror(t, a, b).Sync(t.Context()); err != nil || len(names(t, a)) != 0 || len(names(t, b)) < 4 {
		t.Fatalf("a first target that was emptied: %v, %v, %v", err, names(t, a), names(t, b))
	}
	h, err := backup.Heal(t.Context(), a, b, pin)
	if err != nil || len(h.Faults) > 0 {
		t.Fatal(h, err)
	}
	green(t, a)
}

// TestPrune deletes in all targets, later in one that did not answer; and Sync brings nothing back.
func TestPrune(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	a, b := &backuptest.Bucket{Now: clock}, &backuptest.Bucket{Now: clock}
	m := newMirror(t, a, b)
	shards := newMirror(t, &backuptest.Bucket{Now: clock}, &backuptest.Bucket{Now: clock})
	r := open(t, m, func(o *backup.Options) { o.Now, o.Grace, o.Shards = clock, time.Hour, shards })
	keys := &backuptest.Keys{Records: [][]byte{{1}}}
	for i := range 4 {
		if _, err := r.Backup(t.Context(), rows(i), &backup.BackupOptions{Keys: keys}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(24 * time.Hour)
	}
	keep := policy.Retention{Last: 1}
	if _, err := r.Prune(t.Context(), keep); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Hour)
	down := errors.New("down")
	b.BeforeDelete = func(string) error { return down }
	if _, err := r.Prune(t.Context(), keep); !errors.Is(err, down) || !strings.Contains(err.Error(), "target1") {
		t.Fatal(err)
	}
	if lag, err := m.Sync(t.Context()); err != nil || lag[0].Objects > 0 {
		t.Fatal(lag, err)
	}
	b.BeforeDelete = nil
	rep, err := r.Prune(t.Context(), keep)
	if err != nil || len(rep.Removed) != 3 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if got := names(t, a); !slices.Equal(got, names(t, b)) || len(got) > 12 {
		t.Fatal(got, names(t, b))
	}
}

// TestLate leaves out a target that cannot be asked, and one that has another object under a name.
func TestLate(t *testing.T) {
	a, b := &backuptest.Bucket{}, &backuptest.Bucket{}
	if _, err := open(t, newMirror(t, a), nil).Backup(t.Context(), rows(1), nil); err != nil {
		t.Fatal(err)
	}
	b.Set(names(t, a)[0], []byte("other"))
	m := newMirror(t, a, b)
	if _, err := open(t, m, nil).Backup(t.Context(), rows(2), nil); err != nil { // begun without Sync
		t.Fatal(err)
	}
	if _, err := m.Sync(t.Context()); err != nil { // it lacks nothing by name: Verify and Heal are for the rest
		t.Fatal(err)
	}
	if h, err := backup.Heal(t.Context(), b, a, pin); err != nil || len(h.Objects) != 1 {
		t.Fatal(h, err)
	}
	green(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Sync(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for _, targets := range [][]mirror.Target{{}, {{Name: "a"}}, {{Bucket: a}}, {{Name: "a", Bucket: a}, {Name: "a", Bucket: b}}} {
		if _, err := mirror.New(targets...); err == nil {
			t.Errorf("%v is accepted", targets)
		}
	}
}

func ExampleNew() {
	ctx := context.Background()
	here, there := &backuptest.Bucket{}, &backuptest.Bucket{}
	both, err := mirror.New(mirror.Target{Name: "disk", Bucket: here}, mirror.Target{Name: "off-site", Bucket: there})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := both.Sync(ctx); err != nil {
		fmt.Println(err)
	}
	if err := both.Put(ctx, "a", []byte("b")); err != nil {
		fmt.Println(err)
	}
	b, err := there.Get(ctx, "a", 0, 10)
	fmt.Printf("%s %v\n", b, err)
	fmt.Println(both.Status(ctx)[0].Objects)
	// Output:
	// b <nil>
	// 0
}
