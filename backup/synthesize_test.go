package backup_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

// A full snapshot that is made of a chain has its content, the next one builds on it, and the chain can go.
func TestSynthesize(t *testing.T) {
	s := newShop(t)
	s.chain.Length = 9
	for range 4 {
		s.now = s.now.Add(time.Hour)
		s.backup()
	}
	all, err := s.r.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.r.Synthesize(t.Context(), "", nil, nil); !errors.Is(err, backup.ErrKey) {
		t.Fatalf("without the private key: %v", err)
	}
	if _, err := s.r.Synthesize(t.Context(), "nope", backuptest.Key(t), nil); !errors.Is(err, backup.ErrNotFound) {
		t.Fatalf("of nothing: %v", err)
	}
	snap, err := s.r.Synthesize(t.Context(), "", backuptest.Key(t), nil)
	if err != nil || snap.Depth != 0 || snap.Repeats != all[3].Head.Number || snap.Rows != all[3].Rows || snap.Name != all[3].Name {
		t.Fatalf("%+v, %v", snap, err)
	}
	s.was[snap.ID] = s.was[all[3].ID]
	before := s.bucket.Clone()
	s.now = s.now.Add(time.Hour)
	next := s.backup()
	if next.Parent != snap.Head.Number || next.Depth != 1 {
		t.Fatalf("%+v", next)
	}
	if grown := len(list(t, s.bucket)) - len(list(t, before)); grown > 5 || next.Stored >= snap.Stored {
		t.Errorf("the next one wrote %d objects, %d bytes", grown, next.Stored)
	}
	for range 2 {
		s.now = s.now.Add(25 * time.Hour)
		s.prune(policy.Retention{Last: 1})
	}
	if ids := s.whole(); fmt.Sprint(ids) != fmt.Sprint([]string{snap.ID, next.ID}) {
		t.Errorf("%v are left", ids)
	}
}
