package auditbench_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/internal/bench/auditbench"
)

// TestRuns runs everything once, quickly: the figures mean nothing, that there are figures does.
func TestRuns(t *testing.T) {
	var out bytes.Buffer
	if err := auditbench.Append(t.Context(), &out, filepath.Join(t.TempDir(), "append"), 1, 30*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if testing.Short() {
		t.Skip("the large log takes some seconds")
	}
	if err := auditbench.Large(t.Context(), &out, filepath.Join(t.TempDir(), "large"), 5000); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"bare hash chain", "audit, with an opening", "Tessera POSIX", "events verified", "inclusion proofs made"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the tables lack %q:\n%s", want, out.String())
		}
	}
}
