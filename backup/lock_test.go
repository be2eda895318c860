package backup_test

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

func TestLocks(t *testing.T) {
	backuptest.TestLocks(t, func(testing.TB) (data, shards backup.Locker) { return &backuptest.Bucket{}, &backuptest.Bucket{} })
}

// plain is a bucket that cannot lock.
type plain struct{ b *backuptest.Bucket }

func (p plain) Put(ctx context.Context, name string, data []byte) error {
	return p.b.Put(ctx, name, data)
}
func (p plain) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	return p.b.Get(ctx, name, offset, length)
}
func (p plain) List(ctx context.Context, prefix string) iter.Seq2[backup.Object, error] {
	return p.b.List(ctx, prefix)
}
func (p plain) Delete(ctx context.Context, name string) error { return p.b.Delete(ctx, name) }

func TestLockRefused(t *testing.T) {
	bucket := plain{&backuptest.Bucket{}}
	r := open(t, bucket, func(o *backup.Options) { o.Shards = plain{&backuptest.Bucket{}} })
	before := len(list(t, bucket))
	for name, o := range map[string]*backup.BackupOptions{
		"a bucket that cannot": {Lock: &policy.Retention{Daily: 1}}, "a retention of nothing": {Lock: &policy.Retention{}},
	} {
		if _, err := r.Backup(t.Context(), backuptest.Rows(3), o); err == nil || len(list(t, bucket)) != before {
			t.Errorf("%s: %v", name, err)
		}
	}
	r = open(t, bucket, func(o *backup.Options) { o.Shards, o.LockShards = plain{&backuptest.Bucket{}}, true })
	if _, err := r.Backup(t.Context(), backuptest.Rows(3), nil); !errors.Is(err, backup.ErrUnlocked) {
		t.Errorf("shards that cannot be locked: %v", err)
	}
}

// lingering is a bucket of which what is deleted can be read for some time.
type lingering struct {
	plain
	after time.Duration
	err   error
}

func (l lingering) Linger(context.Context) (time.Duration, string, error) {
	return l.after, "a replica", l.err
}

func TestLinger(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		l    lingering
		want error
	}{
		{lingering{after: 7 * 24 * time.Hour}, nil}, {lingering{after: 7*24*time.Hour + 1}, backup.ErrLingers},
		{lingering{after: backup.Forever}, backup.ErrLingers}, {lingering{err: boom}, boom},
	} {
		c.l.plain = plain{&backuptest.Bucket{}}
		data := &backuptest.Bucket{}
		r := open(t, data, func(o *backup.Options) { o.Shards = c.l })
		_, err := r.Backup(t.Context(), backuptest.Rows(3), &backup.BackupOptions{Keys: &backuptest.Keys{Records: [][]byte{{1}}}})
		if !errors.Is(err, c.want) {
			t.Errorf("%v: %v", c.l.after, err)
		}
		if all, _ := r.Snapshots(t.Context()); (len(all) > 0) != (c.want == nil) {
			t.Errorf("%v: %d snapshots", c.l.after, len(all))
		}
	}
}

// The lock of a snapshot holds for what it builds on too: verify finds where it does not.
func TestLockBelow(t *testing.T) {
	now := epoch
	bucket := &backuptest.Bucket{Now: func() time.Time { return now }}
	r := open(t, bucket, func(o *backup.Options) { o.Now = func() time.Time { return now } })
	m := backuptest.Rows(20)
	lock := &policy.Retention{Daily: 5}
	first := mustBackup(t, r, m, &backup.BackupOptions{Lock: &policy.Retention{Last: 1, Within: time.Hour}})
	now = now.Add(24 * time.Hour)
	m.Tables[0].Rows[3][3] = "changed"
	second := mustBackup(t, r, m, &backup.BackupOptions{Lock: lock, Chain: &policy.Chain{}})
	if second.Depth != 1 || !second.Locked.After(first.Locked.Add(24*time.Hour)) {
		t.Fatalf("%+v, %+v", first, second)
	}
	if rep := verify(t, r, full(t)); rep.Err() != nil {
		t.Fatal(rep.Err())
	}
	for _, name := range backup.ObjectsOf(t.Context(), r, first.ID) {
		b := &backuptest.Bucket{Now: bucket.Now}
		for _, n := range list(t, bucket) {
			b.Set(n, read(t, bucket, n))
			until, err := bucket.LockedUntil(t.Context(), n)
			if err == nil && n != name && !until.IsZero() {
				err = b.Lock(t.Context(), n, until)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		r := open(t, b, func(o *backup.Options) { o.Now = func() time.Time { return now } })
		if rep := verify(t, r, full(t)); !errors.Is(rep.Err(), backup.ErrUnlocked) || rep.Faults[0].Object != name {
			t.Errorf("%s: %v", name, rep.Err())
		}
	}
}
