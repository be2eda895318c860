package realtest

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// VaultServer is a real Vault with the Transit engine, AppRole and Kubernetes login, in a folder and on
// a loopback port of its own. It dies with the test.
type VaultServer struct {
	Addr string // URL
	Root string // root token

	// Of VaultTLS: paths of PEM files, and the name that the server's certificate has.
	CACert, ClientCert, ClientKey string
	ServerName                    string

	t      testing.TB
	flags  []string
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
	s := newVault(t)
	s.begin()
	return s
}

// VaultTLS starts a Vault that speaks TLS only, under a certificate without an address in it, and asks
// for a client certificate of the same authority.
func VaultTLS(t testing.TB) *VaultServer {
	t.Helper()
	s := newVault(t)
	dir := t.TempDir()
	s.ServerName = "vault.test"
	s.CACert, s.ClientCert, s.ClientKey = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	cert, key := filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	ca := NewAuthority(t)
	ca.WriteCert(t, s.CACert)
	ca.Issue(t, cert, key, s.ServerName)
	ca.Issue(t, s.ClientCert, s.ClientKey, "client.test")
	s.flags = []string{"-tls-cert", cert, "-tls-key", key, "-tls-client-ca", s.CACert}
	s.begin()
	return s
}

func newVault(t testing.TB) *VaultServer {
	t.Helper()
	binary, err := Build("vaultd", Required("vault"), "run make vaultd (six minutes, once)")
	Require(t, "vault", err)
	return &VaultServer{t: t, binary: binary, dir: t.TempDir(), listen: "127.0.0.1:0"}
}

// begin starts the server for the first time.
func (s *VaultServer) begin() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatalf("vaultd: %v", err)
	}
	s.t.Cleanup(s.Kill)
	init, err := s.Client().Sys().Init(&api.InitRequest{SecretShares: 3, SecretThreshold: 2})
	if err != nil {
		s.t.Fatalf("vaultd: init: %v", err)
	}
	s.keys, s.Root = init.KeysB64[:2], init.RootToken
	s.Unseal()
	root := s.Client()
	if err := root.Sys().Mount("transit", &api.MountInput{Type: "transit"}); err != nil {
		s.t.Fatalf("vaultd: transit: %v", err)
	}
	for _, method := range []string{"approle", "kubernetes"} {
		if err := root.Sys().EnableAuthWithOptions(method, &api.EnableAuthOptions{Type: method}); err != nil {
			s.t.Fatalf("vaultd: %s: %v", method, err)
		}
	}
}

func (s *VaultServer) start() error {
	cmd := exec.Command(s.binary, append([]string{"-addr", s.listen, "-dir", s.dir}, s.flags...)...)
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
	u, err := url.Parse(s.Addr)
	if err != nil {
		return err
	}
	s.listen = u.Host
	return nil
}

// Client returns a client with the root token, without retries, untouched by VAULT_ variables.
func (s *VaultServer) Client() *api.Client {
	s.t.Helper()
	cfg := &api.Config{Address: s.Addr, HttpClient: &http.Client{Timeout: 10 * time.Second, Transport: s.transport()}}
	c, err := api.NewClient(cfg)
	if err != nil {
		s.t.Fatalf("vaultd: client: %v", err)
	}
	_ = c.SetAddress(s.Addr)
	c.ClearNamespace()
	c.SetToken(s.Root)
	return c
}

func (s *VaultServer) transport() *http.Transport {
	s.t.Helper()
	if s.CACert == "" {
		return &http.Transport{DisableKeepAlives: true}
	}
	pool := x509.NewCertPool()
	b, err := os.ReadFile(s.CACert)
	if err != nil || !pool.AppendCertsFromPEM(b) {
		s.t.Fatalf("vaultd: authority: %v", err)
	}
	pair, err := tls.LoadX509KeyPair(s.ClientCert, s.ClientKey)
	if err != nil {
		s.t.Fatalf("vaultd: client certificate: %v", err)
	}
	return &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		RootCAs: pool, Certificates: []tls.Certificate{pair}, ServerName: s.ServerName, MinVersion: tls.VersionTLS12,
	}}
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

// Pause stops the process as it is, and waits until it stands still: connections stay open and nothing
// answers.
func (s *VaultServer) Pause() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	for range 1000 {
		if s.stopped() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Fatal("vaultd: does not stop")
}

// stopped tells whether every thread of the process is stopped.
func (s *VaultServer) stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, name := range threads {
		b, err := os.ReadFile(name)
		if err != nil { // the thread has ended
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		if !strings.HasPrefix(rest, "T") {
			return false
		}
	}
	return true
}

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
