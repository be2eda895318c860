package recovery_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
	"github.com/crmguard/crmguard/backup/recovery"
)

var (
	signer = backuptest.Signer()
	pin    = signer.Public().(ed25519.PublicKey)
	start  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// shop is a repository in two places, of which the second one lacks the newest of three snapshots.
type shop struct {
	now              time.Time
	data, shards     *backuptest.Bucket
	away, awayShards *backuptest.Bucket
	snaps            []backup.Snapshot
	rows             *backuptest.Memory
}

func newShop(t testing.TB) *shop {
	t.Helper()
	s := &shop{now: start, data: &backuptest.Bucket{}, shards: &backuptest.Bucket{}, rows: backuptest.Rows(30)}
	r, err := backup.Open(t.Context(), s.data, pin, &backup.Options{Signer: signer, Recipient: backuptest.Key(t).Public(), Shards: s.shards, Now: s.clock})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if i == 2 {
			s.away, s.awayShards = s.data.Clone(), s.shards.Clone()
		}
		s.rows.Tables[0].Rows[i][3] = fmt.Sprint("step ", i)
		snap, err := r.Backup(t.Context(), s.rows, &backup.BackupOptions{Chain: &policy.Chain{}, Keys: &backuptest.Keys{Records: [][]byte{{1}}}})
		if err != nil {
			t.Fatal(err)
		}
		s.snaps = append(s.snaps, snap)
		s.now = s.now.Add(time.Hour)
	}
	return s
}

func (s *shop) clock() time.Time { return s.now }

func (s *shop) places() []recovery.Place {
	return []recovery.Place{{Name: "here", Data: s.data, Shards: s.shards}, {Name: "away", Data: s.away, Shards: s.awayShards}}
}

func (s *shop) assess(t testing.TB, places []recovery.Place, change func(*recovery.Options)) *recovery.Assessment {
	t.Helper()
	o := &recovery.Options{Pin: pin, Key: backuptest.Key(t), Head: s.snaps[2].Head, Now: s.clock}
	if change != nil {
		change(o)
	}
	a, err := recovery.Assess(t.Context(), places, o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func damage(t testing.TB, b *backuptest.Bucket, prefix string, last bool) {
	t.Helper()
	var names []string
	for o, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, o.Name)
	}
	for i, n := range names {
		if !last || i == len(names)-1 {
			if err := b.Delete(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestRecovery: places are assessed, the snapshot of a moment is chosen with what is lost by it, another place when one is of no use, and the plan is
// carried out.
//
//crm:item 40
func TestRecovery(t *testing.T) {
	s := newShop(t)
	a := s.assess(t, s.places(), nil)
	if x, y := a.States[0], a.States[1]; x.Err != nil || y.Err != nil || !x.Opens || !x.KeysOpen || x.Behind || !y.Behind || len(x.Snapshots) != 3 || len(y.Snapshots) != 2 {
		t.Fatalf("%+v", a.States)
	}
	p, err := a.Plan(time.Time{})
	if err != nil || p.Place != "here" || p.Snapshot.ID != s.snaps[2].ID || p.Lost != time.Hour || len(p.Warnings) > 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	var into backuptest.Memory
	var keys backuptest.Keys
	if _, err := p.Restore(t.Context(), &into, &backup.RestoreOptions{Keys: &keys}); err != nil || len(into.Tables) != len(s.rows.Tables) || len(keys.Records) != 1 {
		t.Fatal(err)
	}
	// A moment.
	if p, err = a.Plan(start.Add(90 * time.Minute)); err != nil || p.Snapshot.ID != s.snaps[1].ID || p.Lost != 30*time.Minute {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err = a.Plan(start.Add(-time.Minute)); !errors.Is(err, backup.ErrNotFound) {
		t.Fatal(err)
	}
	// The first place burns: the second one, with what it has.
	damage(t, s.data, "", false)
	p, err = s.assess(t, s.places(), nil).Plan(time.Time{})
	if err != nil || p.Place != "away" || p.Snapshot.ID != s.snaps[1].ID || p.Lost != 2*time.Hour || !strings.Contains(fmt.Sprint(p.Warnings), "number 3") ||
		!strings.Contains(fmt.Sprint(p.Warnings), "here is of no use") {
		t.Fatalf("%+v, %v", p, err)
	}
	into = backuptest.Memory{}
	if _, err := p.Restore(t.Context(), &into, nil); err != nil {
		t.Fatal(err)
	}
}

func TestRecoveryFromDamage(t *testing.T) {
	s := newShop(t)
	// The newest lost a part: the one before it.
	damage(t, s.data, "keys/"+s.snaps[2].ID, true)
	p, err := s.assess(t, s.places(), nil).Plan(time.Time{})
	if err != nil || p.Snapshot.ID != s.snaps[1].ID || p.Place != "here" || len(p.Warnings) == 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	// The shards are gone here.
	s = newShop(t)
	damage(t, s.shards, "", false)
	a := s.assess(t, s.places(), nil)
	if a.States[0].Err == nil || a.States[1].Err != nil || !a.States[1].KeysOpen {
		t.Fatalf("%+v", a.States)
	}
	// Another key opens nothing.
	other, err := backupkey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.assess(t, s.places(), func(o *recovery.Options) { o.Key = other }).Plan(time.Time{}); !errors.Is(err, backup.ErrNotFound) {
		t.Fatal(err)
	}
	// Without a key there is a plan and no restore.
	p, err = s.assess(t, s.places(), func(o *recovery.Options) { o.Key = nil }).Plan(time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Restore(t.Context(), &backuptest.Memory{}, nil); !errors.Is(err, backup.ErrKey) {
		t.Fatal(err)
	}
	for _, o := range []*recovery.Options{nil, {}} {
		if _, err := recovery.Assess(t.Context(), s.places(), o); err == nil {
			t.Error("accepted")
		}
	}
	if _, err := recovery.Assess(t.Context(), nil, &recovery.Options{Pin: pin}); err == nil {
		t.Error("no place is accepted")
	}
}

// lingering is a shard bucket whose deleted objects are in a replica.
type lingering struct {
	*backuptest.Bucket
	after time.Duration
}

func (l lingering) Linger(context.Context) (time.Duration, string, error) {
	return l.after, "replication", nil
}

func TestAssessRefusesWhatLingers(t *testing.T) {
	s := newShop(t)
	for after, want := range map[time.Duration]error{backup.Forever: backup.ErrLingers, 8 * 24 * time.Hour: backup.ErrLingers, 24 * time.Hour: nil} {
		places := s.places()
		places[0].Shards = lingering{s.shards, after}
		a := s.assess(t, places, nil)
		if !errors.Is(a.States[0].Err, want) || a.States[0].Cause != "replication" {
			t.Errorf("%v: %v", after, a.States[0].Err)
		}
		if p, err := a.Plan(time.Time{}); err != nil || (p.Place == "here") != (want == nil) {
			t.Errorf("%v: %+v, %v", after, p, err)
		}
	}
}

func ExampleAssess() {
	ctx := context.Background()
	a, err := recovery.Assess(ctx, []recovery.Place{{Name: "office", Data: &backuptest.Bucket{}}}, &recovery.Options{Pin: pin})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(a.States[0].Name, errors.Is(a.States[0].Err, backup.ErrNotFound))
	_, err = a.Plan(time.Time{})
	fmt.Println(err)
	// Output:
	// office true
	// recovery: backup: not found: no place has a whole snapshot of then that this key opens
}
