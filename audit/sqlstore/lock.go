package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/crmguard/crmguard/audit/driver"
)

// lockPath locks a file, which is made when there is none and stays.
func lockPath(ctx context.Context, path string) (free func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for start := time.Now(); ; {
		if err = lockExclusive(f); err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, driver.ErrLocked) || time.Since(start) > leaving {
			break
		}
		if err = pause(ctx, 10*time.Millisecond); err != nil {
			break
		}
	}
	f.Close()
	return nil, err
}

// handles are the logs in memory that have a writer.
var handles sync.Map

type handle struct {
	db  *sql.DB
	log string
}

// lockHandle locks a log of a database that is in memory: nobody else has it.
func lockHandle(db *sql.DB, log string) (free func() error, err error) {
	h := handle{db, log}
	if _, taken := handles.LoadOrStore(h, true); taken {
		return nil, driver.ErrLocked
	}
	return func() error { handles.Delete(h); return nil }, nil
}
