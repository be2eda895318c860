package witness

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

var lockFileEx = syscall.NewLazyDLL("kernel32.dll").NewProc("LockFileEx")

func lockFile(f *os.File) error {
	const failImmediately, exclusive, violation = 1, 2, syscall.Errno(33)
	var o syscall.Overlapped
	ok, _, err := lockFileEx.Call(f.Fd(), failImmediately|exclusive, 0, 1, 0, uintptr(unsafe.Pointer(&o)))
	switch {
	case ok != 0:
		return nil
	case errors.Is(err, violation), errors.Is(err, syscall.ERROR_IO_PENDING):
		return ErrLocked
	}
	return fmt.Errorf("witness: lock: %w", err)
}

// syncDir has nothing to do: the file system logs changes of folders.
func syncDir(string) error { return nil }
