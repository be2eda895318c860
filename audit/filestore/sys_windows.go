package filestore

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"github.com/crmguard/crmguard/audit/driver"
)

var lockFileEx = syscall.NewLazyDLL("kernel32.dll").NewProc("LockFileEx")

const (
	failImmediately = 1
	exclusive       = 2
	lockViolation   = syscall.Errno(33)
)

func lockExclusive(f *os.File) error { return lock(f, failImmediately|exclusive) }
func lockShared(f *os.File) error    { return lock(f, failImmediately) }

func lock(f *os.File, flags uintptr) error {
	var o syscall.Overlapped
	ok, _, err := lockFileEx.Call(f.Fd(), flags, 0, 1, 0, uintptr(unsafe.Pointer(&o)))
	switch {
	case ok != 0:
		return nil
	case errors.Is(err, lockViolation), errors.Is(err, syscall.ERROR_IO_PENDING):
		return driver.ErrLocked
	}
	return fmt.Errorf("filestore: lock: %w", err)
}

// syncDir has nothing to do: the file system logs changes of folders.
func syncDir(string) error { return nil }
