package backup_test

import (
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

// What is left is told from the rows of the snapshot before, and of a restore from its own.
func TestProgress(t *testing.T) {
	var last backup.Progress
	r := open(t, &backuptest.Bucket{}, func(o *backup.Options) { o.Observer = func(p backup.Progress) { last = p } })
	m := backuptest.Rows(500)
	for i, c := range []struct {
		o     *backup.BackupOptions
		total int64
	}{{nil, 0}, {nil, 501}, {&backup.BackupOptions{Chain: &policy.Chain{}}, 501}, {&backup.BackupOptions{Name: "other"}, 0}} {
		mustBackup(t, r, m, c.o)
		if last.Total != c.total || last.Rows != 501 {
			t.Errorf("%d: %+v", i, last)
		}
		if left, ok := last.Left(time.Now()); ok != (c.total > 0) || left != 0 {
			t.Errorf("%d: %v, %v", i, left, ok)
		}
	}
	restore(t, r, "")
	if last.Total != 501 || last.Rows != 501 {
		t.Errorf("restore: %+v", last)
	}
}

func TestProgressLeft(t *testing.T) {
	for _, c := range []struct {
		rows, total int64
		took        time.Duration
		left        time.Duration
		ok          bool
	}{
		{rows: 25, total: 100, took: time.Minute, left: 3 * time.Minute, ok: true},
		{rows: 120, total: 100, took: time.Minute, ok: true},
		{rows: 0, total: 100, took: time.Minute},
		{rows: 5, took: time.Minute},
		{rows: 5, total: 100, took: -time.Minute},
	} {
		p := backup.Progress{Began: epoch, Rows: c.rows, Total: c.total}
		if left, ok := p.Left(epoch.Add(c.took)); left != c.left || ok != c.ok {
			t.Errorf("%+v: %v, %v", c, left, ok)
		}
	}
	if _, ok := (backup.Progress{Rows: 5, Total: 10}).Left(epoch); ok {
		t.Error("without a beginning")
	}
}
