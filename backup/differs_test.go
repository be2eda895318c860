package backup_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

func TestDiffers(t *testing.T) {
	bucket := &backuptest.Bucket{}
	r := open(t, bucket, nil)
	m := backuptest.Rows(200)
	var last backup.Snapshot
	for i := range 3 {
		m.Tables[0].Rows[i][3] = fmt.Sprint("step ", i)
		last = mustBackup(t, r, m, &backup.BackupOptions{Chain: &policy.Chain{}})
	}
	before := list(t, bucket)
	differs := func(r *backup.Repository, id string, s backup.Source, key *backupkey.Private) []backup.Change {
		t.Helper()
		c, err := r.Differs(t.Context(), id, s, key)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	reader, err := backup.Open(t.Context(), bucket, pin, nil)
	if err != nil {
		t.Fatal(err)
	}
	restored := restore(t, r, last.ID)
	for _, c := range []struct {
		r   *backup.Repository
		key *backupkey.Private
	}{{r, nil}, {r, backuptest.Key(t)}, {reader, backuptest.Key(t)}} {
		if d := differs(c.r, last.ID, restored, c.key); len(d) != 0 {
			t.Errorf("a restored store differs: %+v", d)
		}
	}
	x := clone(m)
	name := x.Tables[0].Name
	x.Tables[0].Rows[5][3] = "other"
	x.Tables[0].Rows = append(x.Tables[0].Rows[:9:9], x.Tables[0].Rows[10:]...)
	if d := differs(r, "", x, nil); len(d) != 1 || d[0].Table != name || d[0].Changed != 1 || d[0].Removed != 1 || d[0].Added != 0 {
		t.Errorf("one changed and one removed: %+v", d)
	}
	x = clone(m)
	x.Tables = x.Tables[1:]
	if d := differs(r, "", x, nil); len(d) != 1 || d[0].Table != name || d[0].Removed != 200 {
		t.Errorf("without a table: %+v", d)
	}
	if d := differs(r, "", backuptest.Rows(400), nil); len(d) == 0 {
		t.Error("other rows are the same")
	}
	if _, err := reader.Differs(t.Context(), "", m, nil); !errors.Is(err, backup.ErrKey) {
		t.Errorf("without a key: %v", err)
	}
	if !slices.Equal(before, list(t, bucket)) {
		t.Error("something was written")
	}
}
