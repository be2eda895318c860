//go:build unix

package filestore

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/crmguard/crmguard/audit/driver"
)

// flock belongs to the open file, not to the process as fcntl locks do, so it
// holds between two stores of one process as well.

func lockExclusive(f *os.File) error { return flock(f, syscall.LOCK_EX) }
func lockShared(f *os.File) error    { return flock(f, syscall.LOCK_SH) }

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return driver.ErrLocked
		default:
			return fmt.Errorf("filestore: lock: %w", err)
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
