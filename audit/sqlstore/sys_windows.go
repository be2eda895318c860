package sqlstore

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"github.com/crmguard/crmguard/audit/driver"
)

var lockFileEx = syscall.NewLazyDLL("kernel32.dll").NewProc("LockFileEx")

// lockExclusive holds between two stores of one process as well.
func lockExclusive(f *os.File) error {
	const failImmediately, exclusive, lockViolation = 1, 2, syscall.Errno(33)
	var o syscall.Overlapped
	ok, _, err := lockFileEx.Call(f.Fd(), failImmediately|exclusive, 0, 1, 0, uintptr(unsafe.Pointer(&o)))
	switch {
	case ok != 0:
		return nil
	case errors.Is(err, lockViolation), errors.Is(err, syscall.ERROR_IO_PENDING):
		return driver.ErrLocked
	}
	return os.NewSyscallError("LockFileEx", err)
}
