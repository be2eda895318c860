package backup_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
)

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
	rounds := 5
	if os.Getenv("CRMGUARD_SOAK") != "" {
		rounds = 50
	} else if testing.Short() {
		rounds = 2
	}
	dir := t.TempDir()
	r := open(t, folder(t, dir), nil)
	var reported []string
	for i := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
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
				time.AfterFunc(time.Duration(i*37%190)*time.Millisecond, func() { cmd.Process.Kill() })
			}
			if id, ok := strings.CutPrefix(lines.Text(), "committed "); ok && len(id) == 32 {
				reported = append(reported, id)
			}
		}
		cmd.Wait()
	}
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
