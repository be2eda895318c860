package sqlstore_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/internal/realtest"
)

// event is one of about the size that a program logs.
func event(i int) audit.Event {
	return audit.Event{Action: "customer.read", Activity: audit.Read, Outcome: audit.Allowed, Actor: fmt.Sprint("emp-", i%7), Tenant: "default",
		Targets: []audit.Target{{Type: "customer", ID: fmt.Sprintf("0190b2a0-0000-7000-8000-%012x", i), Version: 3}},
		Fields:  []string{"name", "phone"}, Purpose: "support", Decision: "d-9", Policy: "p-1"}
}

func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 64} {
		run := func(name string, at place) {
			b.Run(fmt.Sprintf("%s/%d", name, writers), func(b *testing.B) {
				l, err := audit.Open(context.Background(), at.store(b, nil), audittest.Signer(b, origin), nil)
				if err != nil {
					b.Fatal(err)
				}
				defer l.Close()
				var wg sync.WaitGroup
				work := make(chan int, 4*writers)
				for range writers {
					wg.Go(func() {
						for i := range work {
							if _, err := l.Append(context.Background(), event(i)); err != nil {
								b.Error(err)
							}
						}
					})
				}
				b.ResetTimer()
				for i := range b.N {
					work <- i
				}
				close(work)
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			})
		}
		run("SQLite", place{"sqlite", filepath.Join(b.TempDir(), "log.db")})
		run("PostgreSQL", place{"postgres", realtest.Postgres(b).DSN})
	}
}
