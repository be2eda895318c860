package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// binary is the program as users build it, built once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "crm-test-")
	if err != nil {
		return "", err
	}
	return build(filepath.Join(dir, "crm"))
})

func build(path string, flags ...string) (string, error) {
	cmd := exec.Command("go", append(append([]string{"build", "-p", "2"}, flags...), "-o", path, ".")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
}

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// run runs a command to its end.
func run(t testing.TB, env []string, args ...string) (out string, code int) {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	return runBinary(t, path, env, args...)
}

func runBinary(t testing.TB, path string, env []string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	b, err := cmd.CombinedOutput()
	if err != nil {
		var ee *exec.ExitError
		require.ErrorAs(t, err, &ee, "%s", b)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// mustRun is run for commands that must succeed.
func mustRun(t testing.TB, env []string, args ...string) string {
	t.Helper()
	out, code := run(t, env, args...)
	require.Zero(t, code, "crm %s: %s", strings.Join(args, " "), out)
	return out
}

// process is a serving CRM.
type process struct {
	cmd       *exec.Cmd
	url       string
	passwords map[string]string // role -> one-time password
	output    *safeBuffer
	data      string
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

var passwordLine = regexp.MustCompile(`^  (\w+) +\S+@\S+ +(\S+)$`)

// serve starts the program and waits until it serves. It ends with the test.
func serve(t testing.TB, data string, env []string, args ...string) *process {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	p := &process{passwords: map[string]string{}, output: &safeBuffer{}, data: data}
	p.cmd = exec.Command(path, append([]string{"serve", "--data", data, "--addr", "localhost:0"}, args...)...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r, w := io.Pipe()
	p.cmd.Stdout = io.MultiWriter(w, p.output)
	p.cmd.Stderr = p.output
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { p.kill() })
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			if m := passwordLine.FindStringSubmatch(lines.Text()); m != nil {
				p.passwords[m[1]] = m[2]
			}
			if u, ok := strings.CutPrefix(lines.Text(), "Serving on "); ok {
				ready <- u
			}
		}
	}()
	done := make(chan error, 1)
	go func() {
		done <- p.cmd.Wait()
		w.Close()
	}()
	select {
	case p.url = <-ready:
	case err := <-done:
		t.Fatalf("crm ended: %v: %s", err, p.output)
	case <-time.After(2 * time.Minute):
		t.Fatalf("crm does not serve: %s", p.output)
	}
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	p.wait()
}

// stop ends it as Ctrl-C does.
func (p *process) stop(t testing.TB) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(os.Interrupt))
	p.wait()
}

func (p *process) wait() {
	for range 600 {
		if p.cmd.Process.Signal(syscall.Signal(0)) != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// spki is the public key of its certificate as a browser is told to trust it.
func (p *process) spki(t testing.TB) string {
	t.Helper()
	cert := p.certificate(t)
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func (p *process) certificate(t testing.TB) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.data, "tls.pem"))
	require.NoError(t, err)
	block, _ := pem.Decode(b)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return cert
}

// client is a program that is signed in.
type client struct {
	*http.Client
	base string
}

// newPassword is what the tests choose instead of the one-time passwords.
const newPassword = "correct horse battery staple"

// client returns a client that trusts the certificate and is not signed in.
func (p *process) client(t testing.TB) *client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	tr := http.DefaultTransport.(*http.Transport).Clone()
	if strings.HasPrefix(p.url, "https") {
		pool := x509.NewCertPool()
		pool.AddCert(p.certificate(t))
		tr.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &client{&http.Client{Jar: jar, Transport: tr, Timeout: time.Minute}, p.url}
}

// signIn signs in with the one-time password of a role and chooses a new one, or signs in with that.
func (p *process) signIn(t testing.TB, role string) *client {
	t.Helper()
	c := p.client(t)
	login := url.Values{"email": {role + "@demo.example"}, "password": {newPassword}}
	if once, ok := p.passwords[role]; ok {
		login.Set("password", once)
		require.Equal(t, http.StatusOK, c.post(t, "/sign-in", login).status)
		r := c.post(t, "/password", url.Values{"old": {once}, "new": {newPassword}, "again": {newPassword}})
		require.Equal(t, http.StatusOK, r.status, r.body)
		delete(p.passwords, role)
		return c
	}
	require.Equal(t, http.StatusOK, c.post(t, "/sign-in", login).status)
	return c
}

// response is a read answer.
type response struct {
	status int
	body   string
	header http.Header
}

func (c *client) do(t testing.TB, req *http.Request) response {
	t.Helper()
	r, err := c.Do(req)
	require.NoError(t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return response{r.StatusCode, string(b), r.Header}
}

func (c *client) get(t testing.TB, path string) response {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, c.base+path, nil)
	require.NoError(t, err)
	return c.do(t, req)
}

func (c *client) post(t testing.TB, path string, form url.Values) response {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, c.base+path, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return c.do(t, req)
}

func (c *client) postJSON(t testing.TB, path, body string) response {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, c.base+path, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	return c.do(t, req)
}

// TestProcessTime runs by hand what a serving process does by itself, which keeps others out.
func TestProcessTime(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	for _, command := range []string{"sweep", "purge"} {
		out, code := run(t, nil, command, "--data", data)
		assert.NotZero(t, code)
		assert.Contains(t, out, "there is no installation")
	}
	p := serve(t, data, nil, "--seed=false", "--sweep-every", "50ms")
	for _, command := range []string{"sweep", "purge"} {
		out, code := run(t, nil, command, "--data", data)
		assert.NotZero(t, code)
		assert.Contains(t, out, "in use by another crm process")
	}
	p.stop(t)
	assert.NotContains(t, p.output.String(), "background job failed")
	assert.Contains(t, mustRun(t, nil, "sweep", "--data", data), "0 records went back to their pool")
	assert.Contains(t, mustRun(t, nil, "purge", "--data", data), "0 records are gone for good")
	out, code := run(t, nil, "purge", "--limit", "0", "--data", data)
	assert.NotZero(t, code)
	assert.Contains(t, out, "above 0")
	out, code = run(t, []string{"CRM_SWEEP_EVERY=often"}, "sweep", "--data", data)
	assert.NotZero(t, code)
	assert.Contains(t, out, "CRM_SWEEP_EVERY")
	assert.Contains(t, mustRun(t, nil, "verify", "--data", data), "0 findings")
}
