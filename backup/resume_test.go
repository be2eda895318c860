package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

// large is a store of about 8 segments.
func large() *backuptest.Memory {
	m := backuptest.Rows(150)
	for i := range m.Tables[0].Rows {
		m.Tables[0].Rows[i][4] = noise(i, 450_000)
	}
	return m
}

// TestResume interrupts a backup at each of its writes, and the one that takes it up again, while the store changes: the last one sends only what was not
// there, and is what the store is then.
func TestResume(t *testing.T) {
	down := errors.New("down")
	step := 3
	if testing.Short() {
		step = 9
	}
	for first := 1; ; first += step {
		bucket := &backuptest.Bucket{}
		r := open(t, bucket, nil)
		m := large()
		o := &backup.BackupOptions{Journal: filepath.Join(t.TempDir(), "journal"), Chain: &policy.Chain{}}
		sent := int64(0)
		fail := func(at int) {
			writes := 0
			bucket.BeforePut = func(name string, b []byte) error {
				if writes++; writes == at {
					return down
				}
				if strings.HasPrefix(name, "segments/") {
					sent += int64(len(b))
				}
				return nil
			}
		}
		fail(first)
		_, err := r.Backup(t.Context(), m, o)
		if err == nil {
			if first < 8 {
				t.Fatalf("only %d writes", first)
			}
			if _, err := os.Stat(o.Journal); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the journal is left: %v", err)
			}
			return
		}
		if !errors.Is(err, down) {
			t.Fatal(err)
		}
		if info, err := os.Stat(o.Journal); err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("the journal has mode %v", info.Mode())
		}
		if all, err := r.Snapshots(t.Context()); err != nil || len(all) > 0 {
			t.Fatalf("write %d: a snapshot shows: %v, %v", first, all, err)
		}
		m.Tables[0].Rows[3][3] = "changed meanwhile"
		m.Tables[0].Rows = append(m.Tables[0].Rows[:7:7], m.Tables[0].Rows[8:]...)
		fail(4)
		_, _ = r.Backup(t.Context(), m, o)
		fail(0)
		m.Tables[0].Rows[5][3] = "changed again"
		snap := mustBackup(t, r, m, o)
		alike(t, m, restore(t, r, snap.ID))
		if rep := verify(t, r, full(t)); rep.Err() != nil || rep.Snapshots != 1 || !rep.Opened {
			t.Fatal(rep)
		}
		all, err := r.Snapshots(t.Context())
		if err != nil || len(all) != 1 || all[0].ID != snap.ID {
			t.Fatalf("%+v, %v", all, err)
		}
		// 150 rows of 450 kB, two changed, and at most a segment for each interruption.
		if most := int64(150*450_000 + 2*450_000 + 2*9<<20); sent > most {
			t.Errorf("write %d: %d bytes were sent, want at most %d", first, sent, most)
		}
		if _, err := os.Stat(o.Journal); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the journal is left: %v", err)
		}
		// What follows builds on it, and pruning keeps what it needs.
		m.Tables[0].Rows[9][3] = "later"
		next := mustBackup(t, r, m, o)
		if _, err := r.Prune(t.Context(), policy.Retention{Last: 1}); err != nil {
			t.Fatal(err)
		}
		alike(t, m, restore(t, r, next.ID))
		if next.Depth < 1 || next.Stored > 2<<20 {
			t.Errorf("%+v", next)
		}
		if got, err := r.Record(t.Context(), "", m.Tables[0].Name, []any{m.Tables[0].Rows[20][0]}, backuptest.Key(t), nil); err != nil || len(got) != 1 {
			t.Error(err)
		}
	}
}

// A journal that is torn, foreign, of another name or of a repository that was replaced is of no use and no harm.
func TestJournals(t *testing.T) {
	bucket := &backuptest.Bucket{}
	r := open(t, bucket, nil)
	m := large()
	path := filepath.Join(t.TempDir(), "journal")
	n := 0
	bucket.BeforePut = func(string, []byte) error {
		if n++; n > 5 {
			return context.DeadlineExceeded
		}
		return nil
	}
	if _, err := r.Backup(t.Context(), m, &backup.BackupOptions{Journal: path}); err == nil {
		t.Fatal("not interrupted")
	}
	bucket.BeforePut = nil
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	for name, c := range map[string]string{
		"empty": "", "torn in its head": string(whole[:50]), "torn": string(whole[:len(whole)-20]), "only a head": lines[0], "noise": "x\n" + string(whole),
		"a later form":         strings.Replace(string(whole), `"version":1`, `"version":2`, 1),
		"another key":          strings.Replace(string(whole), `"key":"`, `"key":"AAAA`, 1),
		"objects that are not": lines[0] + strings.ReplaceAll(strings.Join(lines[1:], ""), `"name":"segments/`, `"name":"segments/0`),
		"out of order":         lines[0] + lines[1] + lines[3] + lines[2],
	} {
		b := bucket.Clone()
		if err := os.WriteFile(path, []byte(c), 0o600); err != nil {
			t.Fatal(err)
		}
		r := open(t, b, nil)
		snap := mustBackup(t, r, m, &backup.BackupOptions{Journal: path})
		alike(t, m, restore(t, r, snap.ID))
		if rep := verify(t, r, full(t)); rep.Err() != nil {
			t.Errorf("%s: %v", name, rep.Err())
		}
	}
	for name, o := range map[string]*backup.BackupOptions{"another name": {Journal: path, Name: "other"}, "whole": {Journal: path, Gate: &policy.Gate{}}} {
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		b := bucket.Clone()
		r := open(t, b, nil)
		snap := mustBackup(t, r, m, o)
		alike(t, m, restore(t, r, snap.ID))
		if (snap.Depth == 1) != (name == "whole") {
			t.Errorf("%s: depth %d", name, snap.Depth)
		}
	}
	other := open(t, &backuptest.Bucket{}, nil)
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if snap := mustBackup(t, other, m, &backup.BackupOptions{Journal: path}); snap.Depth != 0 {
		t.Error("a journal of another repository was used")
	}
	if _, err := r.Backup(t.Context(), m, &backup.BackupOptions{Journal: t.TempDir()}); err == nil {
		t.Error("a folder as a journal")
	}
	// Two at once.
	once := &backup.BackupOptions{Journal: path}
	_, err = r.Backup(t.Context(), sourceFunc(func(w *backup.Writer) error {
		_, err := r.Backup(t.Context(), m, once)
		return err
	}), once)
	if !errors.Is(err, backup.ErrExists) {
		t.Errorf("two backups with one journal: %v", err)
	}
}

// The gate compares a backup that was taken up again with the snapshot before, not with its own first part.
func TestResumeGate(t *testing.T) {
	bucket := &backuptest.Bucket{}
	r := open(t, bucket, nil)
	m := large()
	o := &backup.BackupOptions{Journal: filepath.Join(t.TempDir(), "journal"), Gate: &policy.Gate{Rows: 10}}
	mustBackup(t, r, m, o)
	for i := range m.Tables[0].Rows {
		m.Tables[0].Rows[i][3] = fmt.Sprint("encrypted ", i)
		m.Tables[0].Rows[i][4] = noise(i+1000, 450_000)
	}
	n := 0
	bucket.BeforePut = func(string, []byte) error {
		if n++; n > 5 {
			return context.DeadlineExceeded
		}
		return nil
	}
	if _, err := r.Backup(t.Context(), m, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	bucket.BeforePut = nil
	snap, err := r.Backup(t.Context(), m, o)
	if !errors.Is(err, backup.ErrAnomaly) || snap.Depth != 1 || len(snap.Anomalies) == 0 || snap.Anomalies[0].Kind != "changed" || snap.Anomalies[0].Share != 1 {
		t.Fatalf("%+v, %v", snap, err)
	}
}

// TestResumeRefused: what was sent is not built on when the key is another by now, when it is old, when a full snapshot is wanted and it lies on others,
// or when it is damaged; the backup is made all the same, and opens.
func TestResumeRefused(t *testing.T) {
	fresh, err := backupkey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	stop := func(b *backuptest.Bucket, n int) {
		b.BeforePut = func(string, []byte) error {
			if n--; n < 0 {
				return context.DeadlineExceeded
			}
			return nil
		}
	}
	for name, c := range map[string]struct {
		key    *backupkey.Private
		later  time.Duration
		before bool // a snapshot that the interrupted one builds on
		harm   func(b *backuptest.Bucket)
	}{
		"another key": {key: fresh}, "old": {later: 25 * time.Hour}, "on others": {before: true},
		"damaged": {harm: func(b *backuptest.Bucket) {
			for _, n := range list(t, b) {
				if strings.HasPrefix(n, "segments/") {
					b.Set(n, []byte("x"))
				}
			}
		}},
	} {
		bucket, now, m := &backuptest.Bucket{}, epoch, large()
		key := backuptest.Key(t)
		clock := func(o *backup.Options) { o.Now, o.Recipient = func() time.Time { return now }, key.Public() }
		o := &backup.BackupOptions{Journal: filepath.Join(t.TempDir(), "journal"), Chain: &policy.Chain{}}
		r := open(t, bucket, clock)
		if c.before {
			mustBackup(t, r, m, o)
			for i := range m.Tables[0].Rows {
				m.Tables[0].Rows[i][4] = noise(i+1000, 450_000)
			}
		}
		for range 2 { // the second time there is a part
			stop(bucket, 4)
			if _, err := r.Backup(t.Context(), m, o); err == nil {
				t.Fatal("not interrupted")
			}
		}
		bucket.BeforePut = nil
		if c.key != nil {
			key = c.key
		}
		now = now.Add(c.later)
		if c.harm != nil {
			c.harm(bucket)
		}
		r = open(t, bucket, clock)
		if c.before {
			o.Chain = nil
		}
		snap := mustBackup(t, r, m, o)
		if snap.Depth != 0 {
			t.Errorf("%s: depth %d", name, snap.Depth)
		}
		var got backuptest.Memory
		if _, err := r.Restore(t.Context(), snap.ID, &got, key, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What was sent before an interruption counts for the entropy of the whole.
func TestResumeEntropy(t *testing.T) {
	bucket := &backuptest.Bucket{}
	r := open(t, bucket, nil)
	m := backuptest.Rows(150)
	for i := range m.Tables[0].Rows {
		m.Tables[0].Rows[i][4] = bytes.Repeat([]byte(fmt.Sprint("plain ", i)), 50_000)
	}
	o := &backup.BackupOptions{Journal: filepath.Join(t.TempDir(), "journal"), Gate: &policy.Gate{Rows: 10}}
	mustBackup(t, r, m, o)
	for i := range 60 {
		m.Tables[0].Rows[i][4] = noise(i, 450_000)
	}
	n := 0
	bucket.BeforePut = func(string, []byte) error {
		if n++; n > 4 {
			return context.DeadlineExceeded
		}
		return nil
	}
	if _, err := r.Backup(t.Context(), m, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	bucket.BeforePut = nil
	snap, err := r.Backup(t.Context(), m, o)
	if !errors.Is(err, backup.ErrAnomaly) || snap.Depth != 1 || len(snap.Anomalies) != 1 || snap.Anomalies[0].Kind != "entropy" {
		t.Fatalf("depth %d, %+v, %v", snap.Depth, snap.Anomalies, err)
	}
	// And what is as it was stays unsuspected.
	n = 0
	bucket.BeforePut = func(string, []byte) error {
		if n++; n > 4 {
			return context.DeadlineExceeded
		}
		return nil
	}
	if _, err := r.Backup(t.Context(), m, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	bucket.BeforePut = nil
	if snap, err = r.Backup(t.Context(), m, o); err != nil || snap.Depth != 1 {
		t.Fatalf("depth %d, %+v, %v", snap.Depth, snap.Anomalies, err)
	}
}

// A link in the journal's place is replaced, and what it points to stays as it was.
func TestJournalLink(t *testing.T) {
	dir := t.TempDir()
	victim, path := filepath.Join(dir, "victim"), filepath.Join(dir, "journal")
	if err := os.WriteFile(victim, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path); err != nil {
		t.Skip("no links here: ", err)
	}
	r := open(t, &backuptest.Bucket{}, nil)
	looked := false
	mustBackup(t, r, sourceFunc(func(w *backup.Writer) error {
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		looked = true
		return backuptest.Rows(3).Dump(t.Context(), w)
	}), &backup.BackupOptions{Journal: path})
	if b, err := os.ReadFile(victim); err != nil || string(b) != "precious" || !looked {
		t.Errorf("%q, %v", b, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 { // and the lock
		t.Errorf("%v, %v", left, err)
	}
}

// Parts are in no report of a prune, and go with what was built on them.
func TestPruneParts(t *testing.T) {
	now := epoch
	bucket := &backuptest.Bucket{Now: func() time.Time { return now }}
	r := open(t, bucket, func(o *backup.Options) { o.Now = func() time.Time { return now } })
	m := large()
	o := &backup.BackupOptions{Journal: filepath.Join(t.TempDir(), "journal")}
	n := 0
	bucket.BeforePut = func(string, []byte) error {
		if n++; n > 4 {
			return context.DeadlineExceeded
		}
		return nil
	}
	if _, err := r.Backup(t.Context(), m, o); err == nil {
		t.Fatal("not interrupted")
	}
	bucket.BeforePut = nil
	whole := mustBackup(t, r, m, o)
	if whole.Depth != 1 {
		t.Fatalf("depth %d", whole.Depth)
	}
	now = now.Add(time.Hour)
	last := mustBackup(t, r, backuptest.Rows(3), nil)
	one := []string{whole.ID}
	rep, err := r.Prune(t.Context(), policy.Retention{Last: 1})
	if err != nil || !slices.Equal(rep.Condemned, one) || !slices.Equal(rep.Kept, []string{last.ID}) {
		t.Fatalf("%+v, %v", rep, err)
	}
	if rep, err = r.Prune(t.Context(), policy.Retention{Last: 2}); err != nil || !slices.Equal(rep.Spared, one) || len(rep.Kept) != 2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if rep, err = r.Prune(t.Context(), policy.Retention{Last: 1}); err != nil || !slices.Equal(rep.Condemned, one) {
		t.Fatalf("%+v, %v", rep, err)
	}
	now = now.Add(25 * time.Hour)
	if rep, err = r.Prune(t.Context(), policy.Retention{Last: 1}); err != nil || !slices.Equal(rep.Removed, one) || rep.Bytes < 60<<20 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if rep := verify(t, r, full(t)); rep.Err() != nil || rep.Snapshots != 1 {
		t.Fatal(rep.Err())
	}
}
