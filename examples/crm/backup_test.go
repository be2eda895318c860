package main_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/examples/crm/app"
)

// TestBackupIncremental: a backup that holds only what changed brings everything back, and what is not kept is said.
func TestBackupIncremental(t *testing.T) {
	data, _ := filled(t, 200, nil)
	with := func(args ...string) []string { return append(args, "--data", data) }
	assert.Contains(t, mustRun(t, nil, with("backup", "--incremental")...), "it is full")
	mustRun(t, nil, with("import", csvOf(t, people(worlds.Add(1), 10)))...)
	out := mustRun(t, nil, with("backup", "--incremental", "--keep", "last=1,daily=7")...)
	assert.Contains(t, out, "it is on 1 before")
	assert.Contains(t, out, "2 snapshots are kept, 0 more will be deleted")
	before := green(t, nil, with()...)
	mustRun(t, nil, with("backup")...)
	assert.Contains(t, mustRun(t, nil, with("backup", "--keep", "last=1")...), "1 snapshots are kept, 3 more will be deleted, 0 were deleted")
	mustRun(t, nil, with("verify", "--backups")...)

	id := snapshotLine.FindStringSubmatch(out)[1]
	for _, name := range []string{"crm.db", "crm.db-wal", "crm.db-shm"} {
		if err := os.Remove(filepath.Join(data, name)); err != nil {
			require.ErrorIs(t, err, os.ErrNotExist)
		}
	}
	mustRun(t, nil, with("restore", id)...)
	after := green(t, nil, with()...)
	assert.Equal(t, before.Rows.Digest, after.Rows.Digest)
	assert.Equal(t, before.Rows.Rows, after.Rows.Rows)
	for _, keep := range []string{"last", "last=0", "last=1,last=2", "sometimes=1", "daily=-1", "last=1,"} {
		out, code := run(t, nil, with("backup", "--keep", keep)...)
		assert.Equal(t, 1, code, out)
	}
}

func TestParseRetention(t *testing.T) {
	r, err := app.ParseRetention("last=3,hourly=24,daily=7,weekly=4,monthly=12,yearly=3,minimum=2")
	require.NoError(t, err)
	assert.Equal(t, 3+24+7+4+12+3+2, r.Last+r.Hourly+r.Daily+r.Weekly+r.Monthly+r.Yearly+r.Minimum)
	_, err = app.ParseRetention("")
	assert.Error(t, err)
}
