package backuptest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/backup/backuptest"
)

// A lock in memory ends when the test's clock says so.
func ExampleBucket_Lock() {
	ctx := context.Background()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	b := &backuptest.Bucket{Now: func() time.Time { return now }}
	_ = b.Put(ctx, "segments/a", []byte("sealed"))
	_ = b.Lock(ctx, "segments/a", now.Add(time.Hour))
	fmt.Println(b.Delete(ctx, "segments/a"))
	now = now.Add(2 * time.Hour)
	fmt.Println(b.Delete(ctx, "segments/a"))
	// Output:
	// backup: locked against deletion
	// <nil>
}
