package filelock

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

var lockFileEx = syscall.NewLazyDLL("kernel32.dll").NewProc("LockFileEx")

func exclusive(f *os.File) error {
	const failImmediately, whole, lockViolation = 1, 2, syscall.Errno(33)
	var o syscall.Overlapped
	ok, _, err := lockFileEx.Call(f.Fd(), failImmediately|whole, 0, 1, 0, uintptr(unsafe.Pointer(&o)))
	switch {
	case ok != 0:
		return nil
	case errors.Is(err, lockViolation), errors.Is(err, syscall.ERROR_IO_PENDING):
		return ErrHeld
	}
	return os.NewSyscallError("LockFileEx", err)
}
