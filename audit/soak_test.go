package audit_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/crmguard/crmguard/audit"
)

// The memory of an open log and of a verification stays within its bound while
// the log grows: 300,000 events here, ten million in the long run.
func TestSoakMemory(t *testing.T) {
	n := 300_000
	if os.Getenv("CRMGUARD_SOAK") != "" {
		n = 10_000_000
	} else if testing.Short() {
		t.Skip("takes some seconds")
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc >> 10
	}
	store := fileStore(t, filepath.Join(t.TempDir(), "log"))
	before := heap()
	l := openLog(t, store, nil)
	es := make([]audit.Event, 500)
	most := uint64(0)
	for i := 0; i < n; i += len(es) {
		for j := range es {
			es[j] = read(i + j)
			es[j].Actor = fmt.Sprint("emp-", (i+j)%1000)
		}
		if _, err := l.AppendAll(ctx, es); err != nil {
			t.Fatal(err)
		}
		if i%(n/10) == 0 {
			most = max(most, heap()-before)
			t.Logf("%d events: %d KiB", i, heap()-before)
		}
	}
	pin := head(t, l)
	v := verify(t, store, &audit.VerifyOptions{Pins: [][]byte{pin}, Progress: func(done uint64) {
		if done%(1<<20) == 0 || n < 1<<20 {
			most = max(most, heap()-before)
		}
	}})
	if !v.OK() || v.Size != uint64(n)+1 {
		t.Fatal(v)
	}
	t.Logf("at most %d KiB with %d events, the log open and verified", most, n)
	if most > 64<<10 {
		t.Fatalf("%d KiB", most)
	}
	for _, i := range []int{n - 10, n / 2, 3} { // and everything is still found
		es, err := l.Query(ctx, audit.Filter{TargetType: "customer", TargetID: fmt.Sprint("c", i)}, l.Size(), 5)
		if err != nil || len(es) != 1 {
			t.Fatal(i, len(es), err)
		}
	}
}
