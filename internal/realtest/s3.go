package realtest

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// S3Server is a real S3 server with versions, object lock and bucket policies, in a folder and on a loopback port of its
// own. It dies with the test.
type S3Server struct {
	URL               string
	Key, Secret       string // of the account that may do everything
	User, UserSecret  string // of one that may do what bucket policies allow
	t                 testing.TB
	binary, dir, addr string
	disk              int64

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended <-chan struct{}
}

// S3 starts an S3 server. The test ends as Require says when it is not built: that takes a minute or two, so it happens
// only by "make s3d" or where CRMGUARD_REQUIRE names s3.
func S3(t testing.TB) *S3Server {
	t.Helper()
	return newS3(t, 0)
}

// S3Small starts an S3 server on a disk of that many bytes, which is empty after each start. The test is skipped where
// the machine lets it mount none.
func S3Small(t testing.TB, size int64) *S3Server {
	t.Helper()
	return newS3(t, size)
}

func newS3(t testing.TB, disk int64) *S3Server {
	t.Helper()
	binary, err := Build("s3d", Required("s3"), "run make s3d (two minutes, once)")
	Require(t, "s3", err)
	s := &S3Server{
		Key: "rootkey", Secret: "root-secret-0", User: "userkey", UserSecret: "user-secret-0",
		t: t, binary: binary, dir: t.TempDir(), disk: disk,
	}
	if disk > 0 {
		needMount(t)
	}
	for range 5 { // somebody else may take the port first
		if s.addr, err = freePort(); err != nil {
			t.Fatal(err)
		}
		if err = s.start(); err == nil {
			t.Cleanup(s.Kill)
			return s
		}
	}
	t.Fatalf("s3d: %v", err)
	return nil
}

// freePort returns a loopback address that nobody listens on at the moment.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

func (s *S3Server) start() error {
	cmd := exec.Command(s.binary, "-addr", s.addr, "-dir", s.dir, "-root", s.Key+":"+s.Secret, "-user", s.User+":"+s.UserSecret)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + s.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	onSmallDisk(cmd, s.dir, s.disk)
	ended, err := launch(cmd)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	err = until(ended, func() error {
		resp, err := client.Get("http://" + s.addr + "/healthz")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the health page answers %s", resp.Status)
		}
		return nil
	})
	if err != nil {
		_ = cmd.Process.Kill()
		<-ended
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd, s.ended, s.URL = cmd, ended, "http://"+s.addr
	return nil
}

// launch starts cmd, whose output is shown with -v, and returns what is closed when it has ended.
func launch(cmd *exec.Cmd) (<-chan struct{}, error) {
	if testing.Verbose() {
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	return ended, nil
}

// until asks ready until it is, for a minute at most.
func until(ended <-chan struct{}, ready func() error) error {
	limit := time.After(time.Minute)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("it ended before it was ready: %w", err)
		case <-limit:
			return fmt.Errorf("it is not ready: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Environ gives the test credentials in the variables that clients of S3 read, and hides those of the machine.
func (s *S3Server) Environ(key, secret string) {
	s.t.Helper()
	none := filepath.Join(s.t.TempDir(), "none")
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_REGION": "",
		"AWS_DEFAULT_REGION": "", "AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": "",
	} {
		s.t.Setenv(name, value)
	}
}

// Kill ends the process at once, as kill -9 does. Its folder stays.
func (s *S3Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.ended
	s.cmd = nil
}

// Restart starts it again on the same address and folder, after ending it if need be.
func (s *S3Server) Restart() {
	s.t.Helper()
	s.Kill()
	var err error
	for range 50 { // the port may take a moment to become free
		if err = s.start(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.t.Fatalf("s3d: restart: %v", err)
}
