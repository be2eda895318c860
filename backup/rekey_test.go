package backup_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

// A key that is added opens everything with the old one; the old one goes on opening what it did, and nothing newer.
func TestAddKey(t *testing.T) {
	data, shards := &backuptest.Bucket{}, &backuptest.Bucket{}
	old := backuptest.Key(t)
	fresh, err := backupkey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	m := backuptest.Rows(20)
	o := &backup.BackupOptions{Chain: &policy.Chain{}, Keys: &backuptest.Keys{Records: [][]byte{{1}}}}
	r := open(t, data, func(o *backup.Options) { o.Shards = shards })
	var ids []string
	for i := range 3 {
		m.Tables[0].Rows[i][3] = fmt.Sprint("step ", i)
		ids = append(ids, mustBackup(t, r, m, o).ID)
	}
	before := data.Clone()
	if _, err := r.AddKey(t.Context(), fresh, fresh.Public()); !errors.Is(err, backup.ErrKey) {
		t.Errorf("with a key that opens nothing: %v", err)
	}
	if _, err := r.AddKey(t.Context(), old, nil); !errors.Is(err, backup.ErrKey) {
		t.Errorf("without a key: %v", err)
	}
	for i, want := range []int{6, 0} {
		if n, err := r.AddKey(t.Context(), old, fresh.Public()); err != nil || n != want {
			t.Fatalf("run %d: %d headers, %v", i, n, err)
		}
	}
	for _, name := range list(t, before) {
		if !bytes.Equal(read(t, before, name), read(t, data, name)) {
			t.Errorf("%s was written anew", name)
		}
	}
	r = open(t, data, func(o *backup.Options) { o.Shards, o.Recipient = shards, fresh.Public() })
	m.Tables[0].Rows[7][3] = "later"
	newest := mustBackup(t, r, m, o)
	if newest.Depth == 0 {
		t.Error("it is not built on what the added key opens")
	}
	lost, err := backupkey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	other := open(t, data.Clone(), func(o *backup.Options) { o.Shards, o.Recipient = shards.Clone(), lost.Public() })
	if snap := mustBackup(t, other, m, o); snap.Depth != 0 {
		t.Error("a snapshot is built on what its key does not open")
	}
	for _, c := range []struct {
		key  *backupkey.Private
		want []string
	}{{old, ids}, {fresh, append(ids, newest.ID)}} {
		if got, err := r.Opens(t.Context(), c.key.Public().ID()); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("opens %v, %v", got, err)
		}
	}
	for _, id := range []string{ids[1], newest.ID} {
		var keys backuptest.Keys
		if _, err := r.Restore(t.Context(), id, &backuptest.Memory{}, fresh, &backup.RestoreOptions{Keys: &keys}); err != nil || len(keys.Records) != 1 {
			t.Errorf("the added key: %v", err)
		}
	}
	if _, err := r.Restore(t.Context(), newest.ID, &backuptest.Memory{}, old, nil); !errors.Is(err, backup.ErrKey) {
		t.Errorf("the old key opens the newest: %v", err)
	}
	if rep := verify(t, r, &backup.VerifyOptions{Level: backup.Full, Key: fresh}); rep.Err() != nil || rep.Loose > 0 {
		t.Error(rep.Err(), rep.Loose)
	}
}
