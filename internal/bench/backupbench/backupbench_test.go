package backupbench_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/internal/bench/backupbench"
)

func TestMain(m *testing.M) {
	backupbench.Step()
	os.Exit(m.Run())
}

// TestRuns runs everything once, quickly: the figures mean nothing, that there are figures does.
func TestRuns(t *testing.T) {
	var out bytes.Buffer
	err := backupbench.Run(t.Context(), &out, backupbench.Options{Rows: 20_000, Attachments: 8 << 20, Rounds: 1, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"full", "peak memory", "incremental by change numbers", "restore to NDJSON", "restore into SQLite", "restore into PostgreSQL",
		"one record", "peak memory of a full at 2000 and 20000 rows",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
	t.Log("\n" + out.String())
}
