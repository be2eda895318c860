package backup_test

import (
	"bytes"
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

// chained is a repository of a full snapshot and two that build on it, a prune list, tombstones and shards.
func chained(t testing.TB) (data, shards *backuptest.Bucket) {
	t.Helper()
	data, shards = &backuptest.Bucket{}, &backuptest.Bucket{}
	r := open(t, data, func(o *backup.Options) { o.Shards = shards })
	m := backuptest.Rows(40)
	o := &backup.BackupOptions{Chain: &policy.Chain{Length: 2}, Keys: &backuptest.Keys{Records: [][]byte{noise(1, 100)}},
		Tombstones: backup.Tombstones{Number: 1, Records: [][]byte{{1}}}}
	for i := range 4 {
		m.Tables[0].Rows[i][3] = fmt.Sprint("step ", i)
		mustBackup(t, r, m, o)
	}
	if _, err := r.Prune(t.Context(), policy.Retention{Last: 1}); err != nil {
		t.Fatal(err)
	}
	return data, shards
}

func heal(t testing.TB, bucket, from backup.Bucket) *backup.Healed {
	t.Helper()
	h, err := backup.Heal(t.Context(), bucket, from, pin)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestHeal changes every object of a repository in every way: Verify finds each, and after healing from a second bucket
// all is as it was.
func TestHeal(t *testing.T) {
	data, shards := chained(t)
	cases := 0
	snaps, err := open(t, data, nil).Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	head := snaps[len(snaps)-1].Head
	for prefix, pair := range map[string][2]*backuptest.Bucket{"": {data, shards}, "shards:": {shards, data}} {
		b := pair[0]
		all := list(t, b)
		for i, name := range all {
			if name == "prunes/0000000000000001" && prefix != "" {
				continue
			}
			whole := read(t, b, name)
			flip := func(at int) func(*backuptest.Bucket) {
				return func(b *backuptest.Bucket) {
					c := bytes.Clone(whole)
					c[at] ^= 1
					b.Set(name, c)
				}
			}
			for what, change := range map[string]func(*backuptest.Bucket){
				"flipped at its head": flip(3), "flipped": flip(len(whole) / 2), "flipped at its end": flip(len(whole) - 1),
				"cut": func(b *backuptest.Bucket) { b.Set(name, whole[:len(whole)/3]) },
				"deleted": func(b *backuptest.Bucket) {
					if err := b.Delete(t.Context(), name); err != nil {
						t.Fatal(err)
					}
				},
				"swapped": func(b *backuptest.Bucket) {
					other := all[(i+1)%len(all)]
					d := read(t, b, other)
					b.Set(name, d)
					b.Set(other, whole)
				},
			} {
				cases++
				d := b.Clone()
				change(d)
				rest := pair[1].Clone()
				look := func() (*backup.Report, error) {
					data, shards := d, rest
					if prefix != "" {
						data, shards = rest, d
					}
					r, err := backup.Open(t.Context(), data, pin, &backup.Options{Shards: shards, Head: head})
					if err != nil {
						return nil, err
					}
					return verify(t, r, full(t)), nil
				}
				// What nothing needs any more is no fault: objects of condemned snapshots, the oldest set of shards.
				rep, err := look()
				lost := what == "deleted" && (strings.HasPrefix(name, "prunes/") || prefix != "" && name == "snapshots/0000000000000001")
				condemned := prefix == "" && condemnedObject(t, data, name)
				if err == nil && rep.Err() == nil && !lost && !condemned {
					t.Errorf("%s%s %s: verify finds nothing", prefix, name, what)
				}
				h := heal(t, d, b)
				if len(h.Faults) > 0 {
					t.Errorf("%s%s %s: %v", prefix, name, what, h.Faults)
				}
				if rep, err = look(); err != nil || rep.Err() != nil || !rep.Opened {
					t.Errorf("%s%s %s: after healing: %v, %v", prefix, name, what, err, rep)
				}
				if again := heal(t, d, b); len(again.Objects) > 0 {
					t.Errorf("%s%s %s: the second run writes %v", prefix, name, what, again.Objects)
				}
			}
		}
	}
	t.Logf("%d damages of %d objects", cases, len(list(t, data))+len(list(t, shards)))
}

// condemnedObject says whether an object belongs to snapshots that are being pruned only.
func condemnedObject(t testing.TB, b backup.Bucket, name string) bool {
	r, err := backup.Open(t.Context(), b, pin, nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := r.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(name, "snapshots/") || strings.HasPrefix(name, "tombstones/") || strings.HasPrefix(name, "prunes/") || name == "repository" {
		return false
	}
	for _, s := range all {
		if s.Condemned.IsZero() && slices.Contains(backup.ObjectsOf(t.Context(), r, s.ID), name) {
			return false
		}
	}
	return true
}

func TestHealMakesACopy(t *testing.T) {
	data, shards := chained(t)
	for _, from := range []*backuptest.Bucket{data, shards} {
		var to backuptest.Bucket
		h := heal(t, &to, from)
		if len(h.Faults) > 0 || h.Bytes == 0 {
			t.Fatalf("%+v", h)
		}
		last := h.Objects[len(h.Objects)-1]
		if !strings.HasPrefix(last, "snapshots/") {
			t.Errorf("the last object is %s", last)
		}
		r := open(t, map[bool]*backuptest.Bucket{true: &to, false: data}[from == data], func(o *backup.Options) {
			o.Shards = map[bool]*backuptest.Bucket{true: &to, false: shards}[from == shards]
		})
		if rep := verify(t, r, full(t)); rep.Err() != nil {
			t.Fatal(rep.Err())
		}
	}
}

// What heals is not trusted: nothing of another repository, another key or another history is taken.
func TestHealRefuses(t *testing.T) {
	data, _ := chained(t)
	other, _ := chained(t)
	if _, err := backup.Heal(t.Context(), data.Clone(), other, pin); !errors.Is(err, backup.ErrExists) {
		t.Errorf("another repository: %v", err)
	}
	if _, err := backup.Heal(t.Context(), data.Clone(), &backuptest.Bucket{}, pin); !errors.Is(err, backup.ErrNotFound) {
		t.Errorf("no repository: %v", err)
	}
	// Also when the object that says which repository it is, is damaged or gone; the key shards are another one.
	_, shards := chained(t)
	for _, from := range []backup.Bucket{other, shards} {
		for _, gone := range []bool{false, true} {
			d := data.Clone()
			if gone {
				if err := d.Delete(t.Context(), "repository"); err != nil {
					t.Fatal(err)
				}
			} else {
				d.Set("repository", []byte("x"))
			}
			before := read(t, d, "snapshots/0000000000000001")
			if _, err := backup.Heal(t.Context(), d, from, pin); !errors.Is(err, backup.ErrExists) || !bytes.Equal(before, read(t, d, "snapshots/0000000000000001")) {
				t.Errorf("another repository over one whose head is bad: %v", err)
			}
		}
	}
	wrong := bytes.Clone(pin)
	wrong[0] ^= 1
	if _, err := backup.Heal(t.Context(), data.Clone(), data, wrong); !errors.Is(err, backup.ErrKey) {
		t.Errorf("another key: %v", err)
	}
	// Two histories of one repository.
	fork := data.Clone()
	mustBackup(t, open(t, fork, nil), backuptest.Rows(3), nil)
	mine := data.Clone()
	mustBackup(t, open(t, mine, nil), backuptest.Rows(4), nil)
	before := len(list(t, mine))
	if _, err := backup.Heal(t.Context(), mine, fork, pin); !errors.Is(err, backup.ErrExists) || len(list(t, mine)) != before {
		t.Errorf("two histories: %v", err)
	}
	// Damaged in both: said, and the rest is healed.
	a, b := data.Clone(), data.Clone()
	var segments []string
	r := open(t, data, nil)
	all, err := r.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range backup.ObjectsOf(t.Context(), r, all[len(all)-1].ID) {
		if strings.HasPrefix(n, "segments/") {
			segments = append(segments, n)
		}
	}
	for _, n := range segments[:2] {
		a.Set(n, []byte("x"))
	}
	b.Set(segments[0], []byte("y"))
	h := heal(t, a, b)
	if len(h.Faults) != 1 || h.Faults[0].Object != segments[0] || !errors.Is(h.Faults[0], backup.ErrTampered) || !slices.Equal(h.Objects, segments[1:2]) {
		t.Errorf("damaged in both: %+v", h)
	}
	// A locked object that is damaged stays, and is said.
	locked := data.Clone()
	locked.Set(segments[0], []byte("x"))
	locked.BeforeDelete = func(string) error { return backup.ErrLocked }
	if h := heal(t, locked, data); len(h.Objects) != 0 || len(h.Faults) != 1 || !errors.Is(h.Faults[0], backup.ErrLocked) {
		t.Errorf("locked: %+v", h)
	}
	// A bucket that fails half-way, and the next run.
	var to backuptest.Bucket
	n := 0
	to.BeforePut = func(string, []byte) error {
		if n++; n > 5 {
			return context.DeadlineExceeded
		}
		return nil
	}
	if _, err := backup.Heal(t.Context(), &to, data, pin); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("fails half-way: %v", err)
	}
	to.BeforePut = nil
	heal(t, &to, data)
	if rep := verify(t, open(t, &to, nil), &backup.VerifyOptions{Level: backup.Full}); len(rep.Faults) != 1 { // the shards were not given
		t.Error(rep.Faults)
	}
}

// A damaged manifest does not end the backups, and can be healed after them.
func TestHealBelowABackup(t *testing.T) {
	for _, snapshots := range []int{1, 2} {
		var bucket backuptest.Bucket
		r := open(t, &bucket, nil)
		for range snapshots {
			mustBackup(t, r, backuptest.Rows(5), nil)
		}
		good := bucket.Clone()
		name := fmt.Sprintf("snapshots/%016d", snapshots)
		b := read(t, &bucket, name)
		b[len(b)-3] ^= 1
		bucket.Set(name, b)
		r = open(t, &bucket, nil)
		snap := mustBackup(t, r, backuptest.Rows(7), &backup.BackupOptions{Chain: &policy.Chain{}})
		if rep := verify(t, r, full(t)); len(rep.Faults) != 1 || rep.Faults[0].Object != name || !errors.Is(rep.Faults[0], backup.ErrTampered) {
			t.Fatal(rep.Err())
		}
		if _, err := r.Prune(t.Context(), policy.Retention{Last: 1}); !errors.Is(err, backup.ErrTampered) {
			t.Fatal(err)
		}
		if h := heal(t, &bucket, good); len(h.Faults) > 0 || !slices.Equal(h.Objects, []string{name}) {
			t.Fatalf("%+v", h)
		}
		if rep := verify(t, r, full(t)); rep.Err() != nil || rep.Snapshots != snapshots+1 {
			t.Fatal(rep.Err())
		}
		if _, err := r.Prune(t.Context(), policy.Retention{Last: 1}); err != nil {
			t.Fatal(err)
		}
		alike(t, backuptest.Rows(7), restore(t, r, snap.ID))
		// Another history below it is refused still: of two snapshots, the second is not the first's successor any more.
		if snapshots > 1 {
			fork := good.Clone()
			if err := fork.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			mustBackup(t, open(t, fork, nil), backuptest.Rows(2), nil)
			if _, err := backup.Heal(t.Context(), bucket.Clone(), fork, pin); !errors.Is(err, backup.ErrExists) {
				t.Errorf("another history: %v", err)
			}
		}
	}
}

// Key shards that expired do not come back, whatever lies at a low number; a damaged set that did not is healed.
func TestHealExpiredShards(t *testing.T) {
	now := epoch
	var data, shards backuptest.Bucket
	r := open(t, &data, func(o *backup.Options) {
		o.Shards, o.KeepShards, o.Now = &shards, 48*time.Hour, func() time.Time { return now }
	})
	var old *backuptest.Bucket
	for i := range 8 {
		now = now.Add(24 * time.Hour)
		mustBackup(t, r, backuptest.Rows(3), &backup.BackupOptions{Keys: &backuptest.Keys{Records: [][]byte{{byte(i)}}}})
		if i == 1 {
			old = shards.Clone()
		}
	}
	copied := shards.Clone()
	for _, name := range list(t, old) {
		if b := read(t, old, name); !slices.Contains(list(t, copied), name) {
			copied.Set(name, b)
		}
	}
	var left []string
	for _, n := range list(t, &shards) {
		if strings.HasPrefix(n, "snapshots/") {
			left = append(left, n)
		}
	}
	for _, garbage := range []string{"snapshots/0000000000000001", "snapshots/0000000000000002"} {
		b := shards.Clone()
		b.Set(garbage, []byte("x"))
		before := len(list(t, b))
		if h := heal(t, b, copied); len(h.Objects) > 0 || len(list(t, b)) != before {
			t.Errorf("%s brings back %v", garbage, h.Objects)
		}
	}
	b := shards.Clone()
	b.Set(left[0], []byte("x"))
	if h := heal(t, b, copied); !slices.Equal(h.Objects, []string{left[0]}) {
		t.Errorf("%+v", h)
	}
}
