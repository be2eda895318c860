package backuptest_test

import (
	"testing"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
)

func TestMemory(t *testing.T) {
	backuptest.TestLocker(t, func(testing.TB) backup.Locker { return &backuptest.Bucket{} })
}
