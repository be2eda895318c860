package realtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// OIDCServer is a real OpenID Connect provider on a loopback port of its own. It dies with the test.
type OIDCServer struct {
	Issuer string
	t      testing.TB
}

// OIDC starts a provider with one client; ID tokens hold the groups. The test ends as Require says when it is not
// built, which takes half a minute: by "make oidcd" or where CRMGUARD_REQUIRE names oidcd.
func OIDC(t testing.TB, clientID, secret, redirect string, groups ...string) *OIDCServer {
	t.Helper()
	binary, err := Build("oidcd", Required("oidcd"), "run make oidcd (half a minute, once)")
	Require(t, "oidcd", err)
	cmd := exec.Command(binary, "-client", clientID+":"+secret, "-redirect", redirect, "-groups", strings.Join(groups, ","))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if testing.Verbose() {
		cmd.Stderr = os.Stderr
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("oidcd: it ended before it listened: %v", err)
	}
	return &OIDCServer{Issuer: strings.TrimSpace(line), t: t}
}

// SignIn is SignInAs for test-user2, whose subject is id2.
func (s *OIDCServer) SignIn(authURL, redirect string) url.Values {
	s.t.Helper()
	return s.SignInAs("test-user2", authURL, redirect)
}

// SignInAs follows an authorization URL as a browser does, signs in as a user, and returns the parameters that the
// client's redirect URI would get. test-user@127.0.0.1 is the subject id1.
func (s *OIDCServer) SignInAs(user, authURL, redirect string) url.Values {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	var answer url.Values
	browser := &http.Client{Jar: jar, Timeout: 10 * time.Second, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), redirect) {
			answer = r.URL.Query()
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := browser.Get(authURL)
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
	if answer != nil {
		return answer // an error already
	}
	id := resp.Request.URL.Query().Get("authRequestID")
	resp, err = browser.PostForm(s.Issuer+"/login/username", url.Values{"id": {id}, "username": {user}, "password": {"verysecure"}})
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
	if answer == nil {
		s.t.Fatalf("oidcd: the sign-in ended at %s with %s", resp.Request.URL.Path, resp.Status)
	}
	return answer
}

// Claims has ID tokens hold these claims from now on, beside and instead of the usual ones.
func (s *OIDCServer) Claims(claims map[string]any) {
	s.t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.Post(s.Issuer+"/test/claims", "application/json", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("oidcd: claims: %s", resp.Status)
	}
}

// Sign returns a JWT of any claims under the provider's key.
func (s *OIDCServer) Sign(typ string, claims map[string]any) string {
	s.t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.Post(s.Issuer+"/test/sign?"+url.Values{"typ": {typ}}.Encode(), "application/json", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatal(fmt.Errorf("oidcd: sign: %s, %w", resp.Status, err))
	}
	return string(out)
}
