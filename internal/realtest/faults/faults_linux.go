// Package faults makes chosen system calls of a child process fail, write half, or be its last: what a broken or full
// disk and a crash do, at a place that the test chooses. The kernel hands each such call to the parent (seccomp user
// notification, Linux 5.19 or later), in the order in which the process makes them, whatever thread does.
package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is one system call of the child.
type Call struct {
	Name string // as "pwrite64"
	Path string // the file it changes; of a rename, the new name
	Size int    // bytes to be written
}

// Fate is what becomes of a call. The zero value lets it through.
type Fate struct {
	Err  syscall.Errno // it fails so
	Half bool          // a write has written half of its bytes when it fails
	Kill bool          // the process is killed instead
}

// calls are those that change files or make them durable.
var calls = map[int32]string{
	unix.SYS_OPENAT: "openat", unix.SYS_WRITE: "write", unix.SYS_PWRITE64: "pwrite64", unix.SYS_FSYNC: "fsync",
	unix.SYS_FDATASYNC: "fdatasync", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2",
	unix.SYS_UNLINKAT: "unlinkat", unix.SYS_MKDIRAT: "mkdirat",
}

const socketEnv = "CRMGUARD_FAULTS" // set for a child; its socket to the parent is file 3

// Enter puts the process under the control of the parent that started it with Run. It returns at once in any other.
func Enter() error {
	if os.Getenv(socketEnv) == "" {
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // the number of the call
	for nr := range calls {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(nr)},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH |
		unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV // signals of the runtime must not repeat a call
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("faults: seccomp: %w", errno)
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(fd)), nil, 0); err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	return nil
}

// notification is struct seccomp_notif.
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// Run starts cmd, which calls Enter first, and asks decide for each call on a file in dir or below. It returns when the
// process has ended, with the error of cmd.Wait, or with ErrStuck after it has killed it at the deadline.
func Run(cmd *exec.Cmd, dir string, deadline time.Duration, decide func(Call) Fate) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = append(cmd.Environ(), socketEnv+"=3")
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	stuck := time.AfterFunc(deadline, func() { cmd.Process.Kill() })
	err = serve(int(ours.Fd()), dir, cmd.Process, decide)
	if err != nil {
		cmd.Process.Kill()
	}
	werr := cmd.Wait()
	switch {
	case err != nil:
		return err
	case !stuck.Stop():
		return ErrStuck
	}
	return werr
}

// ErrStuck says that the process did not end by itself.
var ErrStuck = errors.New("faults: the process did not end")

// serve answers the calls until no process makes any more.
func serve(socket int, dir string, process *os.Process, decide func(Call) Fate) error {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), oob, 0)
	if err != nil || n == 0 {
		return fmt.Errorf("faults: the child did not call Enter, or could not: %v", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	listener := fds[0]
	defer unix.Close(listener)
	for {
		poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return fmt.Errorf("faults: %w", err)
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return nil // everybody has ended
		}
		var asked notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&asked))); errno != 0 {
			if errno == unix.ENOENT || errno == unix.EINTR { // a signal came first: the call is made again
				continue
			}
			return fmt.Errorf("faults: %w", errno)
		}
		answer := response{id: asked.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if call, ok := read(&asked); ok && (call.Path == dir || strings.HasPrefix(call.Path, dir+string(filepath.Separator))) {
			switch fate := decide(call); {
			case fate.Kill:
				process.Kill()
				continue
			case fate.Err != 0:
				if fate.Half {
					if err := half(process.Pid, &asked); err != nil {
						return err
					}
				}
				answer.flags, answer.err = 0, -int32(fate.Err)
			}
		}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&answer))); errno != 0 && errno != unix.ENOENT {
			return fmt.Errorf("faults: %w", errno)
		}
	}
}

// read describes a call that changes something.
func read(n *notification) (Call, bool) {
	c := Call{Name: calls[n.nr]}
	switch n.nr {
	case unix.SYS_OPENAT:
		if n.args[2]&(unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY|unix.O_RDWR) == 0 {
			return c, false
		}
		c.Path = text(n.pid, n.args[1])
	case unix.SYS_UNLINKAT, unix.SYS_MKDIRAT:
		c.Path = text(n.pid, n.args[1])
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		c.Path = text(n.pid, n.args[3])
	default:
		c.Path, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.pid, int32(n.args[0])))
		if n.nr == unix.SYS_WRITE || n.nr == unix.SYS_PWRITE64 {
			c.Size = int(n.args[2])
		}
	}
	return c, true
}

// text reads a string of the child; "" when it cannot.
func text(pid uint32, at uint64) string {
	b := make([]byte, unix.PathMax)
	n := memory(pid, at, b)
	if i := strings.IndexByte(string(b[:n]), 0); i >= 0 {
		return string(b[:i])
	}
	return ""
}

func memory(pid uint32, at uint64, b []byte) int {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	n, _ := f.ReadAt(b, int64(at)) // it ends where the memory does
	return n
}

// half writes half of what a call would write, through the child's own file.
func half(pid int, n *notification) error {
	if n.nr != unix.SYS_WRITE && n.nr != unix.SYS_PWRITE64 {
		return nil
	}
	b := make([]byte, n.args[2]/2)
	if memory(n.pid, n.args[1], b) != len(b) {
		return errors.New("faults: the bytes of a write cannot be read")
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, int(n.args[0]), 0)
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	defer unix.Close(fd)
	if n.nr == unix.SYS_WRITE {
		_, err = unix.Write(fd, b)
	} else {
		_, err = unix.Pwrite(fd, b, int64(n.args[3]))
	}
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	return nil
}
