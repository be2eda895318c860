package s3store_test

import (
	"testing"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
)

// A whole repository with locks by retention.
func TestLocks(t *testing.T) {
	s := server(t)
	backuptest.TestLocks(t, func(t testing.TB) (data, shards backup.Locker) {
		data, _ = create(t, s)
		shards, _ = create(t, s)
		return data, shards
	})
}
