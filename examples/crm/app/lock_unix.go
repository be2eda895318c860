//go:build unix

package app

import (
	"os"
	"syscall"
)

// tryLock takes an exclusive lock that the system drops with the process.
func tryLock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
