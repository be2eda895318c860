//go:build unix

package sqlstore

import (
	"errors"
	"os"
	"syscall"

	"github.com/crmguard/crmguard/audit/driver"
)

// lockExclusive belongs to the open file, not to the process as fcntl locks do,
// so it holds between two stores of one process as well.
func lockExclusive(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return driver.ErrLocked
		default:
			return os.NewSyscallError("flock", err)
		}
	}
}
