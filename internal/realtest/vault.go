package realtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// VaultServer is a real Vault with the Transit engine and AppRole login, in a folder and on a
// loopback port of its own. It dies with the test.
type VaultServer struct {
	Addr string // URL
	Root string // root token

	t      testing.TB
	binary string
	dir    string
	listen string // host:port, the same after a restart
	keys   []string

	mu  sync.Mutex
	cmd *exec.Cmd
}

// Vault starts a Vault, unsealed. The test ends as Require says when it is not built: that takes six
// minutes, so it happens only by "make vaultd" or where CRMGUARD_REQUIRE names vault.
func Vault(t testing.TB) *VaultServer {
	t.Helper()
	binary, err := Build("vaultd", Required("vault"), "run make vaultd (six minutes, once)")
	Require(t, "vault", err)
	s := &VaultServer{t: t, binary: binary, dir: t.TempDir(), listen: "127.0.0.1:0"}
	if err := s.start(); err != nil {
		t.Fatalf("vaultd: %v", err)
	}
	t.Cleanup(s.Kill)
	init, err := s.Client().Sys().Init(&api.InitRequest{SecretShares: 3, SecretThreshold: 2})
	if err != nil {
		t.Fatalf("vaultd: init: %v", err)
	}
	s.keys, s.Root = init.KeysB64[:2], init.RootToken
	s.Unseal()
	root := s.Client()
	if err := root.Sys().Mount("transit", &api.MountInput{Type: "transit"}); err != nil {
		t.Fatalf("vaultd: transit: %v", err)
	}
	if err := root.Sys().EnableAuthWithOptions("approle", &api.EnableAuthOptions{Type: "approle"}); err != nil {
		t.Fatalf("vaultd: approle: %v", err)
	}
	return s
}

func (s *VaultServer) start() error {
	cmd := exec.Command(s.binary, "-addr", s.listen, "-dir", s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = io.Discard
	if testing.Verbose() {
		cmd.Stderr = os.Stderr
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return fmt.Errorf("it ended before it listened: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd = cmd
	s.Addr = strings.TrimSpace(line)
	s.listen = strings.TrimPrefix(s.Addr, "http://")
	return nil
}

// Client returns a client with the root token, without retries, untouched by VAULT_ variables.
func (s *VaultServer) Client() *api.Client {
	s.t.Helper()
	cfg := &api.Config{Address: s.Addr, HttpClient: &http.Client{Timeout: 10 * time.Second}}
	c, err := api.NewClient(cfg)
	if err != nil {
		s.t.Fatalf("vaultd: client: %v", err)
	}
	_ = c.SetAddress(s.Addr)
	c.ClearNamespace()
	c.SetToken(s.Root)
	return c
}

// Seal seals the server: calls get 503.
func (s *VaultServer) Seal() {
	s.t.Helper()
	if err := s.Client().Sys().Seal(); err != nil {
		s.t.Fatalf("vaultd: seal: %v", err)
	}
}

// Unseal unseals it, also after Restart, and waits until it is active. Tokens from before work again.
func (s *VaultServer) Unseal() {
	s.t.Helper()
	c := s.Client()
	for _, k := range s.keys {
		if _, err := c.Sys().Unseal(k); err != nil {
			s.t.Fatalf("vaultd: unseal: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		h, err := c.Sys().HealthWithContext(ctx)
		if err == nil && h.Initialized && !h.Sealed && !h.Standby {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatal("vaultd: not active after a minute")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the process at once, as kill -9 does. Its folder stays.
func (s *VaultServer) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Restart starts it again on the same address and folder, after ending it if need be. It is sealed.
func (s *VaultServer) Restart() {
	s.t.Helper()
	s.Kill()
	err := errors.New("not started")
	for range 50 { // the port may take a moment to become free
		if err = s.start(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.t.Fatalf("vaultd: restart: %v", err)
}

// Pause stops the process as it is: connections stay open and nothing answers.
func (s *VaultServer) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends Pause.
func (s *VaultServer) Resume() { s.signal(syscall.SIGCONT) }

func (s *VaultServer) signal(sig syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		s.t.Fatal("vaultd: not running")
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("vaultd: %v", err)
	}
}

// Key makes a Transit key.
func (s *VaultServer) Key(name string) {
	s.t.Helper()
	if _, err := s.Client().Logical().Write("transit/keys/"+name, map[string]any{"type": "aes256-gcm96"}); err != nil {
		s.t.Fatalf("vaultd: key: %v", err)
	}
}

// AppRole makes a role with a policy in Vault's language and returns what it logs in with. Its
// tokens live for ttl, such as "10m".
func (s *VaultServer) AppRole(name, policy, ttl string) (roleID, secretID string) {
	s.t.Helper()
	c := s.Client()
	if err := c.Sys().PutPolicy(name, policy); err != nil {
		s.t.Fatalf("vaultd: policy: %v", err)
	}
	role := "auth/approle/role/" + name
	if _, err := c.Logical().Write(role, map[string]any{"token_policies": name, "token_ttl": ttl}); err != nil {
		s.t.Fatalf("vaultd: role: %v", err)
	}
	rid, err := c.Logical().Read(role + "/role-id")
	if err != nil {
		s.t.Fatalf("vaultd: role id: %v", err)
	}
	sid, err := c.Logical().Write(role+"/secret-id", nil)
	if err != nil {
		s.t.Fatalf("vaultd: secret id: %v", err)
	}
	return rid.Data["role_id"].(string), sid.Data["secret_id"].(string)
}
