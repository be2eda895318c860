package realtest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// SSHServer is a real OpenSSH server that speaks SFTP, on a loopback port of its own. It dies with the test.
type SSHServer struct {
	Addr    string // host:port
	User    string
	KeyFile string // of the user's private key
	HostKey string // as in an authorized_keys file
	Dir     string // an empty folder for the test

	t      testing.TB
	config string
	disk   int64
	host   ssh.PublicKey
	cmd    *exec.Cmd
	ended  <-chan struct{}
}

// SSHOptions of SSHD.
type SSHOptions struct {
	Deny string // comma-separated SFTP requests and extensions that the server does not know, such as "hardlink,fsync"
	Disk int64  // Dir is on a disk of that many bytes, seen by the server only; 0 = a usual folder
}

// SSHD starts a server. The test ends as Require says when OpenSSH is not installed, and is skipped where the machine lets it
// mount no small disk.
func SSHD(t testing.TB, opts SSHOptions) *SSHServer {
	t.Helper()
	const server = "/usr/sbin/sshd"
	_, err := os.Stat(server)
	if err != nil {
		err = errors.New("OpenSSH is not installed: apt-get install openssh-server")
	}
	Require(t, "sshd", err)
	if opts.Disk > 0 {
		needMount(t)
	}
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // it wants its empty folder
			t.Fatal(err)
		}
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &SSHServer{t: t, User: me.Username, KeyFile: filepath.Join(dir, "user"), Dir: filepath.Join(dir, "disk"), config: filepath.Join(dir, "sshd_config"), disk: opts.Disk}
	s.host = NewSSHKey(t, filepath.Join(dir, "host"))
	s.HostKey = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.host)))
	allowed := ssh.MarshalAuthorizedKey(NewSSHKey(t, s.KeyFile))
	if err := errors.Join(os.Mkdir(s.Dir, 0o700), os.WriteFile(filepath.Join(dir, "allowed"), allowed, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 5 { // somebody else may take the port first
		if s.Addr, err = freePort(); err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(s.Addr)
		subsystem := "internal-sftp"
		if opts.Deny != "" {
			subsystem += " -P " + opts.Deny
		}
		config := fmt.Sprintf(`Port %s
ListenAddress 127.0.0.1
HostKey %s
AuthorizedKeysFile %s
PidFile none
UsePAM no
StrictModes no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
ForceCommand %s
Subsystem sftp %[4]s
`, port, filepath.Join(dir, "host"), filepath.Join(dir, "allowed"), subsystem)
		if err := os.WriteFile(s.config, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		if err = s.start(); err == nil {
			t.Cleanup(s.Kill)
			return s
		}
	}
	t.Fatalf("sshd: %v", err)
	return nil
}

// NewSSHKey writes a private key to a file and returns its public key.
func NewSSHKey(t testing.TB, path string) ssh.PublicKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// KnownHosts writes a known_hosts file with the server's key for addresses and returns its path.
func (s *SSHServer) KnownHosts(addrs ...string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "known_hosts")
	if err := os.WriteFile(path, []byte(knownhosts.Line(addrs, s.host)+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *SSHServer) start() error {
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", s.config)
	cmd.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	onSmallDisk(cmd, s.Dir, s.disk)
	ended, err := launch(cmd)
	if err != nil {
		return err
	}
	err = until(ended, func() error {
		c, err := net.DialTimeout("tcp", s.Addr, time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Second))
		b := make([]byte, 4)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "SSH-" {
			return fmt.Errorf("no SSH server: %q, %v", b, err)
		}
		return nil
	})
	s.cmd, s.ended = cmd, ended
	if err != nil {
		s.Kill()
	}
	return err
}

// Kill ends the server and its sessions at once.
func (s *SSHServer) Kill() {
	if s.cmd == nil {
		return
	}
	all := descendants(s.cmd.Process.Pid)
	_ = s.cmd.Process.Kill()
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-s.ended
	s.cmd = nil
}

// Restart starts it again on the same address, after ending it if need be.
func (s *SSHServer) Restart() {
	s.t.Helper()
	s.Kill()
	var err error
	for range 50 { // the port may take a moment to become free
		if err = s.start(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.t.Fatalf("sshd: restart: %v", err)
}

// descendants are the processes below one.
func descendants(pid int) (all []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range files {
		b, _ := os.ReadFile(f) // gone already
		for _, word := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}
