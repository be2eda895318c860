package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/examples/crm/app"
)

// TestBackupIncremental: a backup that holds only what changed brings everything back, and what is not kept is said.
//
//crm:item 36
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

const backupPlan = `{"schedule": {"every": "1h"}, "chain": {}, "gate": {"changed": 0.9, "removed": 0.9}, "retention": {"last": 3, "daily": 7},
	"objectives": {"rpo": "2h", "rto": "10m", "drill": "1d", "lag": "1h", "copies": 3}}`

// TestBackupPlaces: backups in two places, damaged in one and healed from the other; a drill that passes and one on broken backups that fails, each with a report that
// verifies; shares of the recovery key that bring everything back as of a moment.
//
//crm:item 38
func TestBackupPlaces(t *testing.T) {
	data, _ := filled(t, 200, nil)
	away := t.TempDir()
	plan := filepath.Join(away, "plan.json")
	require.NoError(t, os.WriteFile(plan, []byte(backupPlan), 0o600))
	with := func(args ...string) []string {
		return append(args, "--data", data, "--backup-plan", plan, "--backup-copy", "file://"+away+"/rows", "--backup-keys-copy", "file://"+away+"/keys")
	}
	mustFail := func(says string, args ...string) {
		t.Helper()
		out, code := run(t, nil, with(args...)...)
		assert.Equal(t, 1, code, out)
		assert.Contains(t, out, says)
	}
	first := snapshotLine.FindStringSubmatch(mustRun(t, nil, with("backup")...))[1]
	before := green(t, nil, "--data", data)
	moment := time.Now().UTC().Add(time.Second).Truncate(time.Second)
	time.Sleep(time.Until(moment))
	mustRun(t, nil, with("import", csvOf(t, people(worlds.Add(1), 10)))...)
	assert.Contains(t, mustRun(t, nil, with("backup")...), "it is on 1 before")
	mustFail("MISSED drill", "backup", "status")
	out := mustRun(t, nil, with("drill")...)
	assert.Contains(t, out, "PASSED")
	report := regexp.MustCompile(`report: (\S+)`).FindStringSubmatch(out)[1]
	assert.Contains(t, mustRun(t, nil, with("drill", "check", report)...), "the report is authentic")
	assert.NotContains(t, mustRun(t, nil, with("backup", "status")...), "MISSED")

	// Drills that go on until they are stopped; the last one was just now.
	count := func() int {
		all, err := filepath.Glob(filepath.Join(data, "drills", "*.txt"))
		require.NoError(t, err)
		return len(all)
	}
	program, err := binary()
	require.NoError(t, err)
	for every, more := range map[string]int{"2s": 2, "24h": 0} {
		had := count()
		var said strings.Builder
		loop := exec.Command(program, with("drill", "--every", every)...)
		loop.Stdout, loop.Stderr = &said, &said
		require.NoError(t, loop.Start())
		end := time.Now().Add(30 * time.Second)
		if more == 0 {
			end = time.Now().Add(2 * time.Second)
		}
		for time.Now().Before(end) && (more == 0 || count() < had+more) {
			time.Sleep(50 * time.Millisecond)
		}
		require.NoError(t, loop.Process.Signal(os.Interrupt))
		require.NoError(t, loop.Wait(), said.String())
		assert.GreaterOrEqual(t, count(), had+more, said.String())
		if more == 0 {
			assert.Equal(t, had, count(), said.String())
		}
	}

	// A report that somebody changed.
	b, err := os.ReadFile(report)
	require.NoError(t, err)
	forged := filepath.Join(away, "forged.txt")
	require.NoError(t, os.WriteFile(forged, []byte(strings.Replace(string(b), `"rows": `, `"rows": 1`, 1)), 0o600))
	mustFail("not a report that this key signed", "drill", "check", forged)

	// Each segment of the rows in the first place is damaged: a drill there is red, and says so under its signature; the other place heals it.
	segments, err := filepath.Glob(filepath.Join(data, "backup", "segments", "*"))
	require.NoError(t, err)
	require.NotEmpty(t, segments)
	for _, name := range segments {
		spoil(t, name)
	}
	out, code := run(t, nil, with("drill")...)
	assert.Equal(t, 1, code, out)
	assert.Contains(t, out, "FAILED")
	red := regexp.MustCompile(`report: (\S+)`).FindStringSubmatch(out)[1]
	mustFail("the report is authentic, and the drill failed", "drill", "check", red)
	mustFail("it failed", "backup", "status")
	mustFail("damaged, forged or missing", "verify", "--backups")
	mustRun(t, nil, with("backup", "heal")...)
	mustRun(t, nil, with("verify", "--backups")...)
	// And so is one in the second place, which the first never shows.
	copies, err := filepath.Glob(filepath.Join(away, "rows", "segments", "*"))
	require.NoError(t, err)
	spoil(t, copies[0])
	mustFail("damaged, forged or missing", "verify", "--backups")
	mustRun(t, nil, with("backup", "heal")...)
	assert.Equal(t, 2, strings.Count(mustRun(t, nil, with("verify", "--backups")...), " opened\n"))

	// The disk burns: shares of the recovery key and the other place are enough, with the keys of the log and of backups.
	shares := mustRun(t, nil, "backup", "key", "split", "--data", data, "--needed", "2", "--shares", "3")
	var lines []string
	for line := range strings.Lines(shares) {
		if strings.HasPrefix(line, "crmguard-backup-share-1:") {
			lines = append(lines, line)
		}
	}
	require.Len(t, lines, 3)
	for _, name := range []string{"crm.db", "crm.db-wal", "crm.db-shm", "recovery.key", "backup", "backup-keys"} {
		require.NoError(t, os.RemoveAll(filepath.Join(data, name)))
	}
	key := filepath.Join(away, "joined.key")
	path, err := binary()
	require.NoError(t, err)
	join := exec.Command(path, "backup", "key", "join", key, "--data", data)
	join.Stdin = strings.NewReader(lines[2] + lines[0])
	said, err := join.CombinedOutput()
	require.NoError(t, err, string(said))
	from := []string{"--data", data, "--backup", "file://" + away + "/rows", "--backup-keys", "file://" + away + "/keys"}
	out, code = run(t, nil, append([]string{"restore", "--at", "2001-01-01T00:00:00Z", "--recovery-key", key}, from...)...)
	assert.Equal(t, 1, code, out)
	assert.Contains(t, mustRun(t, nil, append([]string{"restore", "--at", moment.Format(time.RFC3339), "--recovery-key", key}, from...)...), first)
	after := green(t, nil, from...)
	assert.Equal(t, before.Rows.Digest, after.Rows.Digest)
}

// spoil flips a bit in the middle of a file.
func spoil(t testing.TB, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	b[len(b)/2] ^= 1
	require.NoError(t, os.WriteFile(name, b, 0o600))
}
