package backup_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // a Thursday

// shop is a repository with a clock and a store that changes a little before each backup.
type shop struct {
	t      testing.TB
	now    time.Time
	bucket *backuptest.Bucket
	r      *backup.Repository
	m      *backuptest.Memory
	step   int
	was    map[string]*backuptest.Memory
	chain  policy.Chain
}

func newShop(t testing.TB) *shop {
	s := &shop{t: t, now: epoch, m: backuptest.Rows(20), was: map[string]*backuptest.Memory{}, chain: policy.Chain{Length: 3}}
	s.bucket = &backuptest.Bucket{Now: s.clock}
	s.reopen()
	return s
}

func (s *shop) clock() time.Time { return s.now }

func (s *shop) reopen() {
	s.r = open(s.t, s.bucket, func(o *backup.Options) { o.Now = s.clock })
}

func (s *shop) backup() backup.Snapshot {
	s.t.Helper()
	s.step++
	s.m.Tables[0].Rows[s.step%20][3] = fmt.Sprint("step ", s.step)
	snap := mustBackup(s.t, s.r, s.m, &backup.BackupOptions{Chain: &s.chain})
	s.was[snap.ID] = clone(s.m)
	return snap
}

func (s *shop) prune(p policy.Retention) *backup.Pruned {
	s.t.Helper()
	rep, err := s.r.Prune(s.t.Context(), p)
	if err != nil {
		s.t.Fatal(err)
	}
	return rep
}

// whole checks that all snapshots that are listed restore as they were, and that nothing is found wrong.
func (s *shop) whole() (ids []string) {
	s.t.Helper()
	all, err := s.r.Snapshots(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, snap := range all {
		alike(s.t, s.was[snap.ID], restore(s.t, s.r, snap.ID))
		ids = append(ids, snap.ID)
	}
	if rep := verify(s.t, s.r, full(s.t)); rep.Err() != nil || !rep.Opened {
		s.t.Fatal(rep.Err())
	}
	return ids
}

func TestPrune(t *testing.T) {
	s := newShop(t)
	keep := policy.Retention{Last: 2, Weekly: 2}
	var newest backup.Snapshot
	for range 40 {
		s.now = s.now.Add(24 * time.Hour)
		newest = s.backup()
		rep := s.prune(keep)
		if !slices.Contains(rep.Kept, newest.ID) {
			t.Fatalf("the newest is not kept: %+v", rep)
		}
	}
	ids := s.whole()
	if len(ids) < 4 || len(ids) > 16 {
		t.Fatalf("%d snapshots are left", len(ids))
	}
	var gone string
	for id := range s.was {
		if !slices.Contains(ids, id) {
			gone = id
		}
	}
	if _, err := s.r.Restore(t.Context(), gone, &backuptest.Memory{}, backuptest.Key(t), nil); !errors.Is(err, backup.ErrNotFound) {
		t.Fatalf("restore of a pruned one: %v", err)
	}
	manifests := 0
	for _, n := range list(t, s.bucket) {
		if strings.HasPrefix(n, "snapshots/") {
			manifests++
		}
	}
	s.now = s.now.Add(48 * time.Hour)
	if _, err := s.r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	prunes := 0
	for _, n := range list(t, s.bucket) {
		if strings.HasPrefix(n, "prunes/") {
			prunes++
		}
	}
	if manifests != 40 || prunes != 1 {
		t.Fatalf("%d manifests, %d lists", manifests, prunes)
	}
	s.whole()
}

func TestPruneHasTwoSteps(t *testing.T) {
	s := newShop(t)
	s.chain.Length = 1
	var all []string
	for range 6 { // three chains of two
		s.now = s.now.Add(time.Hour)
		all = append(all, s.backup().ID)
	}
	before := len(list(t, s.bucket))
	rep := s.prune(policy.Retention{Last: 1})
	if !slices.Equal(rep.Condemned, all[:4]) || !slices.Equal(rep.Kept, all[4:]) || len(rep.Removed) > 0 || len(list(t, s.bucket)) != before+1 {
		t.Fatalf("first step: %+v", rep)
	}
	if rep = s.prune(policy.Retention{Last: 1}); len(rep.Condemned)+len(rep.Removed) > 0 || len(list(t, s.bucket)) != before+1 {
		t.Fatalf("at once again: %+v", rep)
	}
	if ids := s.whole(); len(ids) != 6 {
		t.Fatalf("%d snapshots", len(ids))
	}
	snaps, _ := s.r.Snapshots(t.Context())
	if snaps[0].Condemned.IsZero() || !snaps[5].Condemned.IsZero() {
		t.Fatal("what is condemned does not say so")
	}
	// A hold spares a chain within the grace, and its grace begins anew when the hold is taken away.
	s.now = s.now.Add(23 * time.Hour)
	if rep = s.prune(policy.Retention{Last: 1, Hold: all[1:2]}); !slices.Equal(rep.Spared, all[:2]) || len(rep.Removed) > 0 {
		t.Fatalf("spared: %+v", rep)
	}
	s.now = s.now.Add(2 * time.Hour)
	if rep = s.prune(policy.Retention{Last: 1}); !slices.Equal(rep.Removed, []string{all[3], all[2]}) || !slices.Equal(rep.Condemned, all[:2]) || rep.Bytes <= 0 {
		t.Fatalf("second step: %+v", rep)
	}
	if ids := s.whole(); !slices.Equal(ids, []string{all[0], all[1], all[4], all[5]}) {
		t.Fatalf("left: %v", ids)
	}
	// What is condemned is no parent: the newest is, and a name of its own has none.
	if snap := s.backup(); snap.Parent != 0 {
		t.Fatalf("built on %d", snap.Parent)
	}
	s.now = s.now.Add(25 * time.Hour)
	s.prune(policy.Retention{Last: 2})
	s.whole()
}

// TestPruneCrashes ends a prune before each object that it writes or deletes: what is kept stays whole, and the next run ends it.
func TestPruneCrashes(t *testing.T) {
	base := newShop(t)
	for range 9 {
		base.now = base.now.Add(time.Hour)
		base.backup()
	}
	keep := policy.Retention{Last: 1}
	base.prune(keep)
	base.now = base.now.Add(25 * time.Hour)
	base.backup()
	killed := errors.New("killed")
	for fail := 0; ; fail++ {
		s := &shop{t: t, now: base.now, bucket: base.bucket.Clone(), m: base.m, was: base.was, step: base.step}
		s.bucket.Now = s.clock
		s.reopen()
		n := 0
		stop := func() error {
			if n++; n > fail {
				return killed
			}
			return nil
		}
		s.bucket.BeforePut = func(string, []byte) error { return stop() }
		s.bucket.BeforeDelete = func(string) error { return stop() }
		_, err := s.r.Prune(t.Context(), keep)
		s.bucket.BeforePut, s.bucket.BeforeDelete = nil, nil
		if err != nil && !errors.Is(err, killed) {
			t.Fatal(err)
		}
		ended := err == nil
		kept := s.whole()
		s.reopen()
		rep := s.prune(keep)
		for _, id := range rep.Kept {
			if !slices.Contains(kept, id) {
				t.Fatalf("crash %d: a kept snapshot was lost", fail)
			}
		}
		s.now = s.now.Add(25 * time.Hour)
		s.prune(keep)
		if ids := s.whole(); !slices.Equal(ids, rep.Kept) {
			t.Fatalf("crash %d: %d snapshots are left, want %d", fail, len(ids), len(rep.Kept))
		}
		if ended {
			if fail < 8 {
				t.Fatalf("only %d steps", fail)
			}
			return
		}
	}
}

func TestPruneLocked(t *testing.T) {
	s := newShop(t)
	s.chain.Length = 1
	for range 4 {
		s.now = s.now.Add(time.Hour)
		s.backup()
	}
	keep := policy.Retention{Last: 1}
	s.prune(keep)
	s.now = s.now.Add(25 * time.Hour)
	locked := ""
	s.bucket.BeforeDelete = func(name string) error {
		if locked == "" {
			locked = name
		}
		if name == locked {
			return backup.ErrLocked
		}
		return nil
	}
	rep := s.prune(keep)
	if len(rep.Locked) != 1 || rep.Locked[0].Object != locked || !errors.Is(rep.Locked[0], backup.ErrLocked) || rep.Locked[0].Snapshot == "" || len(rep.Removed) != 1 {
		t.Fatalf("%+v", rep)
	}
	s.whole()
	s.bucket.BeforeDelete = nil
	if rep = s.prune(keep); len(rep.Locked) != 0 || len(rep.Removed) != 1 || rep.Objects != 1 {
		t.Fatalf("after the lock: %+v", rep)
	}
	s.whole()
}

func TestPruneRefuses(t *testing.T) {
	ctx := t.Context()
	s := newShop(t)
	for range 6 {
		s.now = s.now.Add(time.Hour)
		s.backup()
	}
	s.prune(policy.Retention{Last: 1})
	s.now = s.now.Add(25 * time.Hour)
	whole := s.bucket.Clone()
	newest, err := s.r.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var key string // of the newest
	for _, n := range list(t, whole) {
		if strings.HasPrefix(n, "keys/"+newest[len(newest)-1].ID) {
			key = n
		}
	}
	for name, c := range map[string]struct {
		change func(*backuptest.Bucket)
		keep   policy.Retention
		now    time.Duration
		want   error
	}{
		"a missing manifest":         {change: func(b *backuptest.Bucket) { b.Delete(ctx, "snapshots/0000000000000002") }, want: backup.ErrTampered},
		"a damaged manifest":         {change: func(b *backuptest.Bucket) { b.Set("snapshots/0000000000000003", []byte("x")) }, want: backup.ErrTampered},
		"a damaged list":             {change: func(b *backuptest.Bucket) { b.Set("prunes/0000000000000001", []byte("x")) }, want: backup.ErrTampered},
		"a list of another place":    {change: func(b *backuptest.Bucket) { b.Set("prunes/0000000000000002", read(t, b, "prunes/0000000000000001")) }, want: backup.ErrTampered},
		"a kept one that is damaged": {change: func(b *backuptest.Bucket) { b.Delete(ctx, key) }, want: backup.ErrTampered},
		"a clock that went back":     {now: -72 * time.Hour, want: backup.ErrClock},
		"a hold of nothing":          {keep: policy.Retention{Last: 1, Hold: []string{"nothing"}}, want: backup.ErrNotFound},
		"a policy of nothing":        {keep: policy.Retention{Hold: []string{newest[0].ID}}},
		"a negative policy":          {keep: policy.Retention{Last: 1, Daily: -1}},
	} {
		b := whole.Clone()
		if c.change != nil {
			c.change(b)
		}
		if c.keep.Hold == nil && c.keep.Daily == 0 {
			c.keep.Last = 1
		}
		before := list(t, b)
		r := open(t, b, func(o *backup.Options) { o.Now = func() time.Time { return s.now.Add(c.now) } })
		_, err := r.Prune(ctx, c.keep)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		if after := list(t, b); !slices.Equal(before, after) {
			t.Errorf("%s: %d objects of %d are left", name, len(after), len(before))
		}
	}
	reader, err := backup.Open(ctx, whole, pin, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Prune(ctx, policy.Retention{Last: 1}); !errors.Is(err, backup.ErrKey) {
		t.Errorf("a reader: %v", err)
	}
	if err := reader.Accept(ctx, newest[0].ID); !errors.Is(err, backup.ErrKey) {
		t.Errorf("a reader: %v", err)
	}
	// A damaged list is found, and does not end the backups.
	b := whole.Clone()
	b.Set("prunes/0000000000000001", []byte("x"))
	r := open(t, b, func(o *backup.Options) { o.Now = s.clock })
	if rep := verify(t, r, nil); !errors.Is(rep.Err(), backup.ErrTampered) {
		t.Errorf("verify: %v", rep.Err())
	}
	if snap, err := r.Backup(ctx, s.m, &backup.BackupOptions{Chain: &policy.Chain{}}); err != nil || snap.Depth != 0 {
		t.Errorf("the next backup: depth %d, %v", snap.Depth, err)
	}
}

// TestPruneBesideABackup condemns the parent of a snapshot that is being written.
func TestPruneBesideABackup(t *testing.T) {
	s := newShop(t)
	s.chain = policy.Chain{Length: 5, Age: 1000 * time.Hour}
	s.now = s.now.Add(time.Hour)
	s.backup()
	s.now = s.now.Add(time.Hour)
	s.backup()
	done := false
	s.bucket.BeforePut = func(name string, _ []byte) error {
		if strings.HasPrefix(name, "segments/") && !done {
			done = true
			s.now = s.now.Add(time.Hour)
			mustBackup(t, s.r, s.m, nil) // full, so that the chain is not needed
			s.prune(policy.Retention{Last: 1})
		}
		return nil
	}
	snap := s.backup()
	s.bucket.BeforePut = nil
	if snap.Depth != 2 {
		t.Fatalf("depth %d", snap.Depth)
	}
	s.now = s.now.Add(25 * time.Hour)
	rep := s.prune(policy.Retention{Last: 1})
	if len(rep.Removed) > 0 || len(rep.Spared) != 2 {
		t.Fatalf("%+v", rep)
	}
	alike(t, s.was[snap.ID], restore(t, s.r, snap.ID))
}

func TestPruneCancelled(t *testing.T) {
	s := newShop(t)
	s.backup()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.r.Prune(ctx, policy.Retention{Last: 1}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

// A snapshot that is dated years ahead, or long before, stops pruning and shows as an anomaly, until somebody accepts it; then it counts as made
// when the one before was.
func TestPruneWrongDate(t *testing.T) {
	for name, wrong := range map[string]time.Duration{"ahead": 5 * 365 * 24 * time.Hour, "behind": -30 * 24 * time.Hour} {
		for _, first := range []bool{false, true} {
			if first && name == "behind" {
				continue // nothing was before
			}
			s := newShop(t)
			s.chain = policy.Chain{Length: 1}
			var before backup.Snapshot
			for range 3 {
				if first {
					break
				}
				s.now = s.now.Add(24 * time.Hour)
				before = s.backup()
			}
			right := s.now
			s.now = right.Add(wrong)
			bad := s.backup()
			s.now = right
			for range 2 {
				s.now = s.now.Add(24 * time.Hour)
				s.backup()
			}
			s.reopen()
			keep := policy.Retention{Within: 36 * time.Hour}
			for range 2 {
				if _, err := s.r.Prune(t.Context(), keep); !errors.Is(err, backup.ErrClock) {
					t.Fatalf("%s: %v", name, err)
				}
				s.now = s.now.Add(time.Minute)
			}
			find := func() backup.Snapshot {
				all, err := s.r.Snapshots(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return all[slices.IndexFunc(all, func(b backup.Snapshot) bool { return b.ID == bad.ID })]
			}
			if got := find(); len(got.Anomalies) != 1 || got.Anomalies[0].Kind != "clock" || !got.Created.Equal(bad.Created) {
				t.Errorf("%s: %+v", name, got)
			}
			all, err := s.r.Snapshots(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.r.Accept(t.Context(), all[len(all)-1].ID); err != nil { // another one
				t.Fatal(err)
			}
			if _, err := s.r.Prune(t.Context(), keep); !errors.Is(err, backup.ErrClock) {
				t.Fatalf("%s: %v", name, err)
			}
			if err := s.r.Accept(t.Context(), bad.ID); err != nil {
				t.Fatal(err)
			}
			if got := find(); len(got.Anomalies) != 0 || !first && !got.Created.Equal(before.Created) || got.Created.After(s.now) {
				t.Errorf("%s: %+v", name, got)
			}
			rep := s.prune(keep)
			if len(rep.Kept) < 2 || !first && !slices.Contains(rep.Condemned, before.ID) || slices.Contains(rep.Condemned, all[len(all)-1].ID) {
				t.Errorf("%s: %+v", name, rep)
			}
		}
	}
}

// What a prune condemned while a snapshot was being written on it is looked at, and healed, like that which is kept.
func TestCondemnedBelow(t *testing.T) {
	s := newShop(t)
	s.chain = policy.Chain{Length: 5, Age: 1000 * time.Hour}
	s.now = s.now.Add(time.Hour)
	first := s.backup()
	done := false
	s.bucket.BeforePut = func(name string, _ []byte) error {
		if strings.HasPrefix(name, "segments/") && !done {
			done = true
			s.now = s.now.Add(time.Hour)
			mustBackup(t, s.r, s.m, nil)
			s.prune(policy.Retention{Last: 1})
		}
		return nil
	}
	snap := s.backup()
	s.bucket.BeforePut = nil
	if all, err := s.r.Snapshots(t.Context()); err != nil || snap.Depth != 1 || all[0].ID != first.ID || all[0].Condemned.IsZero() {
		t.Fatalf("%+v, %v", all, err)
	}
	good := s.bucket.Clone()
	for _, name := range backup.ObjectsOf(t.Context(), s.r, first.ID) {
		b := read(t, s.bucket, name)
		b[len(b)/2] ^= 1
		s.bucket.Set(name, b)
		rep := verify(t, s.r, full(t))
		if !errors.Is(rep.Err(), backup.ErrTampered) || rep.Faults[0].Object != name {
			t.Errorf("%s: %v", name, rep.Err())
		}
		if h := heal(t, s.bucket, good); len(h.Objects) != 1 || h.Objects[0] != name {
			t.Errorf("%+v", h)
		}
		if rep = verify(t, s.r, full(t)); rep.Err() != nil || rep.Snapshots != 2 {
			t.Errorf("%+v", rep)
		}
	}
}

// A prune that is held up in the middle of its deletions goes no further when another one spared something meanwhile.
func TestPruneFenced(t *testing.T) {
	s := newShop(t)
	s.chain = policy.Chain{Length: 1} // each is full
	for range 4 {
		s.now = s.now.Add(time.Hour)
		s.backup()
	}
	s.prune(policy.Retention{Last: 1})
	s.now = s.now.Add(25 * time.Hour)
	var spared *backup.Pruned
	deletes := 0
	s.bucket.BeforeDelete = func(string) error {
		if deletes++; deletes == 2 { // the first object of the first snapshot is gone
			other := open(t, s.bucket, func(o *backup.Options) { o.Now = s.clock })
			var err error
			if spared, err = other.Prune(t.Context(), policy.Retention{Last: 3}); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	_, err := s.r.Prune(t.Context(), policy.Retention{Last: 1})
	if !errors.Is(err, backup.ErrExists) {
		t.Fatalf("got %v", err)
	}
	if spared == nil || len(spared.Spared) == 0 {
		t.Fatalf("%+v", spared)
	}
	s.bucket.BeforeDelete = nil
	if left := s.whole(); len(spared.Kept) != 3 || !slices.Equal(left, spared.Kept) {
		t.Errorf("%v of %v are left", left, spared.Kept)
	}
}
