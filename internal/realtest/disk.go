package realtest

import (
	"fmt"
	"os/exec"
	"syscall"
	"testing"
)

// needMount skips the test where nothing can be mounted.
func needMount(t testing.TB) {
	t.Helper()
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	onSmallDisk(cmd, t.TempDir(), 1<<20)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v %s", err, out)
	}
}

// onSmallDisk makes cmd see a disk of its own, of size bytes, at dir. It goes with the process. 0 = none.
func onSmallDisk(cmd *exec.Cmd, dir string, size int64) {
	if size == 0 {
		return
	}
	script := fmt.Sprintf(`mount -t tmpfs -o size=%d,mode=0755 tmpfs "$1" && shift && exec "$@"`, size)
	cmd.Args = append([]string{"sh", "-c", script, "sh", dir, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	cmd.SysProcAttr.Unshareflags |= syscall.CLONE_NEWNS
}
