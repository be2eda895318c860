package backup_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

// killed runs a test of this binary in another process, ends it at any moment, again and again, and returns the snapshots that it
// reported. Each is ended within most after it is ready.
func killed(t *testing.T, test, dir string, most time.Duration) (reported []string, rounds int) {
	rounds = 5
	if os.Getenv("CRMGUARD_SOAK") != "" {
		rounds = 50
	} else if testing.Short() {
		rounds = 2
	}
	for i := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
		cmd.Env = append(os.Environ(), "CRMGUARD_KILL_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() == "ready" {
				time.AfterFunc(time.Duration(i*37%190)*most/190, func() { cmd.Process.Kill() })
			}
			if id, ok := strings.CutPrefix(lines.Text(), "committed "); ok && len(id) == 32 {
				reported = append(reported, id)
			}
		}
		cmd.Wait()
	}
	return reported, rounds
}

// TestKillPrune ends a program that makes chains and prunes them, at any moment.
func TestKillPrune(t *testing.T) {
	keep := policy.Retention{Last: 2}
	var key *backupkey.Private // of both processes
	soon := func(o *backup.Options) { o.Grace, o.Recipient = time.Nanosecond, key.Public() }
	if dir := os.Getenv("CRMGUARD_KILL_DIR"); dir != "" {
		var err error
		if key, err = backupkey.Read(filepath.Join(dir, "..", "key")); err != nil {
			t.Fatal(err)
		}
		r := open(t, folder(t, dir), soon)
		m := backuptest.Rows(300)
		fmt.Println("ready")
		for i := 0; ; i++ {
			m.Tables[0].Rows[i%300][3] = fmt.Sprint("step ", i)
			snap := mustBackup(t, r, m, &backup.BackupOptions{Chain: &policy.Chain{Length: 2}})
			fmt.Println("committed", snap.ID)
			if _, err := r.Prune(t.Context(), keep); err != nil {
				t.Fatal(err)
			}
		}
	}
	key = backuptest.Key(t)
	dir := filepath.Join(t.TempDir(), "bucket")
	if err := key.WriteFile(filepath.Join(dir, "..", "key")); err != nil {
		t.Fatal(err)
	}
	r := open(t, folder(t, dir), soon)
	reported, _ := killed(t, "TestKillPrune", dir, 190*time.Millisecond)
	for _, id := range reported[max(0, len(reported)-2):] {
		if len(restore(t, r, id).Tables) == 0 {
			t.Fatal("a snapshot that was reported and is kept does not restore")
		}
	}
	for range 2 {
		if _, err := r.Prune(t.Context(), keep); err != nil {
			t.Fatal(err)
		}
	}
	rep := verify(t, r, full(t))
	all, err := r.Snapshots(t.Context())
	if err != nil || rep.Err() != nil || len(all) < min(2, len(reported)) || len(all) > 5 {
		t.Fatalf("%d snapshots, %v, %v", len(all), rep.Err(), err)
	}
	t.Logf("%d snapshots of %d are left", len(all), len(reported))
}

// TestKill ends a program that makes backups in a folder, at any moment: no snapshot that it reported is lost, and
// what it left is neither a fault nor in the way of the next run.
func TestKill(t *testing.T) {
	if dir := os.Getenv("CRMGUARD_KILL_DIR"); dir != "" {
		r := open(t, folder(t, dir), nil)
		m := backuptest.Rows(30)
		for i := range m.Tables[0].Rows {
			m.Tables[0].Rows[i][4] = noise(i, 450_000)
		}
		fmt.Println("ready")
		for {
			fmt.Println("committed", mustBackup(t, r, m, nil).ID)
		}
	}
	dir := t.TempDir()
	r := open(t, folder(t, dir), nil)
	reported, rounds := killed(t, "TestKill", dir, 190*time.Millisecond)
	reported = append(reported, mustBackup(t, r, backuptest.Rows(5), nil).ID)
	rep := verify(t, r, &backup.VerifyOptions{Level: backup.Full})
	if rep.Err() != nil {
		t.Fatal(rep.Err())
	}
	all, err := r.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, s := range all {
		have[s.ID] = true
	}
	for _, id := range reported {
		if !have[id] {
			t.Errorf("a snapshot that was reported is lost")
		}
	}
	if rep := verify(t, r, &backup.VerifyOptions{Level: backup.Full, Key: backuptest.Key(t), Snapshot: reported[len(reported)-1]}); rep.Err() != nil {
		t.Fatal(rep.Err())
	}
	t.Logf("%d kills, %d snapshots, %d loose objects", rounds, len(all), rep.Loose)
}

// TestKillResume ends a program that makes one large backup, again and again, while what it sent is taken up by the next: it gets done, and at most a segment is
// sent twice for each end.
func TestKillResume(t *testing.T) {
	rows := func() *backuptest.Memory {
		m := backuptest.Rows(300)
		for i := range m.Tables[0].Rows {
			m.Tables[0].Rows[i][4] = noise(i, 450_000)
		}
		return m
	}
	var key *backupkey.Private // of both processes
	seal := func(o *backup.Options) { o.Recipient = key.Public() }
	if dir := os.Getenv("CRMGUARD_KILL_DIR"); dir != "" {
		var err error
		if key, err = backupkey.Read(filepath.Join(dir, "..", "key")); err != nil {
			t.Fatal(err)
		}
		r := open(t, folder(t, dir), seal)
		m := rows()
		fmt.Println("ready")
		fmt.Println("committed", mustBackup(t, r, m, &backup.BackupOptions{Journal: filepath.Join(dir, "..", "journal")}).ID)
		return
	}
	key = backuptest.Key(t)
	dir := filepath.Join(t.TempDir(), "bucket")
	if err := key.WriteFile(filepath.Join(dir, "..", "key")); err != nil {
		t.Fatal(err)
	}
	b := folder(t, dir)
	r := open(t, b, seal)
	reported, rounds := killed(t, "TestKillResume", dir, 1500*time.Millisecond)
	m := rows()
	snap := mustBackup(t, r, m, &backup.BackupOptions{Journal: filepath.Join(dir, "..", "journal")})
	alike(t, m, restore(t, r, snap.ID))
	if rep := verify(t, r, full(t)); rep.Err() != nil || rep.Snapshots != len(reported)+1 {
		t.Fatalf("%d snapshots, %d were reported: %v", rep.Snapshots, len(reported), rep.Err())
	}
	needed := map[string]bool{}
	for _, id := range append(reported, snap.ID) {
		for _, n := range backup.ObjectsOf(t.Context(), r, id) {
			needed[n] = true
		}
	}
	sent, twice := int64(0), int64(0)
	for o, err := range b.List(t.Context(), "segments/") {
		if err != nil {
			t.Fatal(err)
		}
		sent += o.Size
		if !needed[o.Name] {
			twice += o.Size
		}
	}
	if twice > int64(rounds)*9<<20 {
		t.Errorf("%d bytes were sent twice", twice)
	}
	t.Logf("%d kills, %d snapshots, depth %d: %.1f MiB sent, %.1f MiB of it twice", rounds, len(reported)+1, snap.Depth, float64(sent)/(1<<20), float64(twice)/(1<<20))
}
