package backuptest

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/policy"
)

// TestLocks checks that a repository in the two buckets that open makes, for rows and for key shards, keeps its snapshots locked as the retention promises:
// that of a month outlives that of a week, whatever is tried meanwhile. Lockers of real stores go by their own clock, so the test's begins
// next month.
func TestLocks(t *testing.T, open func(testing.TB) (data, shards backup.Locker)) {
	ctx := t.Context()
	data, shards := open(t)
	year, month, _ := time.Now().UTC().Date()
	start := time.Date(year, month+1, 1, 6, 0, 0, 0, time.UTC)
	now := start
	repo := func() *backup.Repository {
		r, err := backup.Open(ctx, data, Signer().Public().(ed25519.PublicKey), &backup.Options{Signer: Signer(), Recipient: Key(t).Public(),
			Shards: shards, LockShards: true, Now: func() time.Time { return now }, Grace: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := repo()
	retention := policy.Retention{Within: 24 * time.Hour, Weekly: 4, Monthly: 12}
	rows := Rows(50)
	o := &backup.BackupOptions{Lock: &retention, Chain: &policy.Chain{}, Keys: &Keys{Records: [][]byte{{1}}},
		Tombstones: backup.Tombstones{Number: 1, Records: [][]byte{{1}}}}
	make := func(at time.Time) backup.Snapshot {
		t.Helper()
		now = at
		rows.Tables[0].Rows[3][3] = fmt.Sprint("at ", at)
		s, err := r.Backup(ctx, rows, o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	monthly := make(start)
	weekly := make(start.AddDate(0, 0, 8))
	daily := make(start.AddDate(0, 0, 8).Add(time.Hour)) // the second of its week
	for _, c := range []struct {
		what string
		s    backup.Snapshot
		want time.Time
	}{
		{"that of a month", monthly, time.Date(year+1, month+1, 1, 0, 0, 0, 0, time.UTC)},
		{"that of a day", daily, daily.Created.Add(24 * time.Hour)},
	} {
		if d := c.s.Locked.Sub(c.want); d < 0 || d >= time.Second {
			t.Errorf("%s is locked until %v, want %v", c.what, c.s.Locked, c.want)
		}
	}
	if d := weekly.Locked.Sub(weekly.Created); d < 21*24*time.Hour || d > 28*24*time.Hour || !monthly.Locked.After(weekly.Locked) || !weekly.Locked.After(daily.Locked) {
		t.Errorf("locked until %v, %v and %v", monthly.Locked, weekly.Locked, daily.Locked)
	}
	// Each object of the bucket is locked at least as long as the snapshot that needs it, manifests, the list of tombstones and the repository's own
	// too; nobody deletes or shortens it.
	least := map[string]time.Time{"repository": monthly.Locked}
	n := 0
	for obj, err := range data.List(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
		want := daily.Locked
		if w, ok := least[obj.Name]; ok {
			want = w
		}
		if strings.HasSuffix(obj.Name, "snapshots/0000000000000001") {
			want = monthly.Locked
		}
		until, err := data.LockedUntil(ctx, obj.Name)
		if err != nil || until.Before(want) {
			t.Errorf("%s is locked until %v, want %v: %v", obj.Name, until, want, err)
		}
		if err := data.Delete(ctx, obj.Name); !errors.Is(err, backup.ErrLocked) {
			t.Errorf("%s was deleted: %v", obj.Name, err)
		}
		if err := data.Lock(ctx, obj.Name, time.Now().Add(time.Minute)); err != nil {
			t.Errorf("%s: a shorter lock: %v", obj.Name, err)
		}
		if again, err := data.LockedUntil(ctx, obj.Name); err != nil || !again.Equal(until) {
			t.Errorf("%s was shortened from %v to %v: %v", obj.Name, until, again, err)
		}
	}
	if n < 12 {
		t.Errorf("%d objects", n)
	}
	for obj, err := range shards.List(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		if err := shards.Delete(ctx, obj.Name); !errors.Is(err, backup.ErrLocked) {
			t.Errorf("of the shards %s was deleted: %v", obj.Name, err)
		}
	}
	// A prune by somebody who wants nothing kept, two years ahead of the clock, deletes nothing that is locked.
	for range 2 {
		now = now.AddDate(2, 0, 0)
		make(now)
		rep, err := r.Prune(ctx, policy.Retention{Last: 1})
		if err != nil {
			t.Fatal(err)
		}
		if rep.Objects > 0 {
			t.Errorf("%d locked objects were deleted", rep.Objects)
		}
		if len(rep.Condemned) == 0 && len(rep.Locked) == 0 {
			t.Errorf("%+v", rep)
		}
	}
	now = start.AddDate(0, 0, 9)
	check := repo()
	for _, s := range []backup.Snapshot{monthly, weekly, daily} {
		rep, err := check.Verify(ctx, &backup.VerifyOptions{Level: backup.Full, Key: Key(t), Snapshot: s.ID})
		if err != nil || rep.Err() != nil || rep.Overdue != 1 {
			t.Errorf("%v: %v", rep, err)
		}
	}
	// A copy that is not locked says so.
	var copied Bucket
	copied.Now = func() time.Time { return now }
	for obj, err := range data.List(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		b, err := data.Get(ctx, obj.Name, 0, obj.Size)
		if err != nil {
			t.Fatal(err)
		}
		copied.Set(obj.Name, b)
	}
	bare, err := backup.Open(ctx, &copied, Signer().Public().(ed25519.PublicKey), &backup.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	for _, level := range []backup.Level{backup.Quick, backup.Full} {
		rep, err := bare.Verify(ctx, &backup.VerifyOptions{Level: level, Snapshot: monthly.ID})
		if err != nil || !errors.Is(rep.Err(), backup.ErrUnlocked) {
			t.Errorf("a copy without locks: %v, %v", rep.Err(), err)
		}
	}
	if _, err := backup.Open(context.WithoutCancel(ctx), data, Signer().Public().(ed25519.PublicKey), nil); err != nil {
		t.Error(err)
	}
}
