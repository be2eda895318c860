package vault_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/vault"
	"github.com/crmguard/crmguard/internal/realtest"
)

// recorder is a proxy in front of a real Vault that remembers the requests and how they were answered.
type recorder struct {
	*httptest.Server

	mu   sync.Mutex
	seen []recorded
}

type recorded struct {
	method, path string
	header       http.Header
	status       int
}

func record(t testing.TB, s *realtest.VaultServer) *recorder {
	t.Helper()
	u, err := url.Parse(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	proxy := httputil.NewSingleHostReverseProxy(u)
	proxy.ModifyResponse = func(a *http.Response) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen = append(r.seen, recorded{a.Request.Method, a.Request.URL.Path, a.Request.Header.Clone(), a.StatusCode})
		return nil
	}
	r.Server = httptest.NewServer(proxy)
	t.Cleanup(r.Close)
	return r
}

// count returns how many requests for a path Vault has granted.
func (r *recorder) count(path string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.seen {
		if q.path == path && q.status < 300 {
			n++
		}
	}
	return n
}

// revokeOthers revokes every token but the root's.
func revokeOthers(t testing.TB, s *realtest.VaultServer) {
	t.Helper()
	c := s.Client()
	own, err := c.Auth().Token().LookupSelf()
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.Logical().List("auth/token/accessors")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, a := range all.Data["keys"].([]any) {
		if a != own.Data["accessor"] {
			_ = c.Auth().Token().RevokeAccessor(a.(string)) // it may have expired
			n++
		}
	}
	if n == 0 {
		t.Fatal("there was nothing to revoke")
	}
}

// token makes a token under a policy.
func token(t testing.TB, s *realtest.VaultServer, policy, ttl string) string {
	t.Helper()
	name := fmt.Sprintf("token-%x", sha256.Sum256([]byte(policy)))
	if err := s.Client().Sys().PutPolicy(name, policy); err != nil {
		t.Fatal(err)
	}
	a, err := s.Client().Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{name}, TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return a.Auth.ClientToken
}

// expires asks Vault for the end of a token.
func expires(t testing.TB, s *realtest.VaultServer, token string) time.Time {
	t.Helper()
	a, err := s.Client().Auth().Token().Lookup(token)
	if err != nil {
		t.Fatal(err)
	}
	end, err := time.Parse(time.RFC3339Nano, a.Data["expire_time"].(string))
	if err != nil {
		t.Fatal(err)
	}
	return end
}

func wrap(t testing.TB, k *vault.KEK) []byte {
	t.Helper()
	w, err := k.Wrap(ctx, []byte("key"), nil)
	if err != nil {
		t.Fatalf("wrap: %v", err)
	}
	return w
}

func unwraps(t testing.TB, k *vault.KEK, wrapped []byte) {
	t.Helper()
	if got, err := k.Unwrap(ctx, wrapped, nil); err != nil || string(got) != "key" {
		t.Fatalf("unwrap: %v", err)
	}
}

// until polls f; each turn uses the key, so that nothing may fail meanwhile.
func until(t testing.TB, k *vault.KEK, wrapped []byte, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(50 * time.Millisecond) {
		unwraps(t, k, wrapped)
		if time.Now().After(end) {
			t.Fatal("not within a minute")
		}
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	s.Key("crm")
	const self, login = "/v1/auth/token/renew-self", "/v1/auth/approle/login"
	t.Run("approle", func(t *testing.T) {
		t.Parallel()
		role, secret := s.AppRole("app", policy, "2s")
		if _, err := s.Client().Logical().Write("auth/approle/role/app", map[string]any{"token_max_ttl": "4s"}); err != nil {
			t.Fatal(err)
		}
		r := record(t, s)
		k := open(t, vault.Config{Key: "crm", Address: r.URL, RoleID: role, SecretID: secret})
		w := wrap(t, k)
		until(t, k, w, func() bool { return r.count(self) >= 1 && r.count(login) >= 3 })
	})
	t.Run("token", func(t *testing.T) {
		t.Parallel()
		r := record(t, s)
		given := token(t, s, policy, "9s")
		k := open(t, vault.Config{Key: "crm", Address: r.URL, Token: given})
		w := wrap(t, k)
		ends := expires(t, s, given)
		until(t, k, w, func() bool { return r.count(self) >= 1 })
		if !expires(t, s, given).After(ends) {
			t.Error("the token was renewed and lives no longer")
		}
	})
}

func TestRevoked(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	s.Key("crm")
	role, secret := s.AppRole("app", policy, "10m")
	r := record(t, s)
	app := open(t, vault.Config{Key: "crm", Address: r.URL, RoleID: role, SecretID: secret})
	given := open(t, vault.Config{Key: "crm", Address: s.Addr, Token: token(t, s, policy, "10m")})
	w := wrap(t, app)
	revokeOthers(t, s)

	var wg sync.WaitGroup
	for range 20 { // who meet the refusal at once log in once
		wg.Go(func() {
			if _, err := app.Unwrap(ctx, w, nil); err != nil {
				t.Errorf("AppRole: %v", err)
			}
		})
	}
	wg.Wait()
	if n := r.count("/v1/auth/approle/login"); n != 2 {
		t.Errorf("AppRole: %d logins, want 2", n)
	}
	for range 2 {
		if _, err := given.Unwrap(ctx, w, nil); !errors.Is(err, keys.ErrAuth) {
			t.Errorf("a given token: got %v, want ErrAuth", err)
		}
	}
	// The role is gone as well: no new login.
	if _, err := s.Client().Logical().Delete("auth/approle/role/app"); err != nil {
		t.Fatal(err)
	}
	revokeOthers(t, s)
	if _, err := app.Unwrap(ctx, w, nil); !errors.Is(err, keys.ErrAuth) {
		t.Errorf("without a role: got %v, want ErrAuth", err)
	}
}

// A secret that may be used once is used once, although the policy refuses calls.
func TestSecretOfOneUse(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	s.Key("crm")
	role, _ := s.AppRole("app", policy, "10m")
	if _, err := s.Client().Logical().Write("auth/approle/role/app", map[string]any{"secret_id_num_uses": 1}); err != nil {
		t.Fatal(err)
	}
	sid, err := s.Client().Logical().Write("auth/approle/role/app/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	k := open(t, vault.Config{Key: "crm", Address: s.Addr, RoleID: role, SecretID: sid.Data["secret_id"].(string)})
	w := wrap(t, k)
	if err := k.Rotate(ctx); !errors.Is(err, keys.ErrAuth) {
		t.Errorf("rotate: got %v, want ErrAuth", err)
	}
	unwraps(t, k, w)
}

func TestTokenFile(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	s.Key("crm")
	path := filepath.Join(t.TempDir(), "token")
	cfg := vault.Config{Key: "crm", Address: s.Addr, TokenFile: path}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := vault.Open(ctx, cfg); !errors.Is(err, keys.ErrAuth) {
		t.Errorf("no file: got %v, want ErrAuth", err)
	}
	for _, bad := range []string{"", "\n", "two words", "hvs.x\x00", strings.Repeat("x", 1<<17), "hvs.unknown"} {
		write(bad)
		if _, err := vault.Open(ctx, cfg); !errors.Is(err, keys.ErrAuth) {
			t.Errorf("%.20q: got %v, want ErrAuth", bad, err)
		} else if strings.Contains(err.Error(), "hvs.") {
			t.Error("the error shows the token")
		}
	}
	write(token(t, s, policy, "10m") + "\n")
	k := open(t, cfg)
	w := wrap(t, k)
	revokeOthers(t, s)
	if _, err := k.Unwrap(ctx, w, nil); !errors.Is(err, keys.ErrAuth) {
		t.Errorf("the same token in the file: got %v, want ErrAuth", err)
	}
	write(token(t, s, policy, "10m"))
	unwraps(t, k, w)
}

func TestNamespace(t *testing.T) {
	s := realtest.Vault(t) // which ignores namespaces: what it is sent is all there is to see
	s.Key("crm")
	role, secret := s.AppRole("app", policy, "10m")
	for name, tc := range map[string]struct{ config, env, want string }{
		"none":        {"", "", ""},
		"config":      {"eu/crm", "", "eu/crm"},
		"environment": {"", "us/crm", "us/crm"},
		"both":        {"eu/crm", "us/crm", "eu/crm"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("VAULT_NAMESPACE", tc.env)
			r := record(t, s)
			k := open(t, vault.Config{Key: "crm", Address: r.URL, Namespace: tc.config, RoleID: role, SecretID: secret})
			unwraps(t, k, wrap(t, k))
			if r.count("/v1/auth/approle/login") != 1 || r.count("/v1/transit/encrypt/crm") != 2 {
				t.Error("calls are missing")
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, q := range r.seen {
				if got := q.header.Get("X-Vault-Namespace"); got != tc.want {
					t.Errorf("%s %s: namespace %q, want %q", q.method, q.path, got, tc.want)
				}
			}
		})
	}
}

// What Config names comes before what the environment names, and no credential is sent that was not meant.
func TestEnvironment(t *testing.T) {
	s := realtest.Vault(t)
	s.Key("crm")
	role, secret := s.AppRole("app", policy, "10m")
	t.Setenv("VAULT_TOKEN", "hvs.environment")
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1")
	t.Setenv("VAULT_AGENT_ADDR", "http://127.0.0.1:1")
	r := record(t, s)
	open(t, vault.Config{Key: "crm", Address: r.URL, RoleID: role, SecretID: secret})
	r.mu.Lock()
	for _, q := range r.seen {
		if q.header.Get("X-Vault-Token") == "hvs.environment" {
			t.Errorf("%s: VAULT_TOKEN was sent", q.path)
		}
	}
	r.mu.Unlock()
	t.Setenv("VAULT_ROLE_ID", "nobody")
	open(t, vault.Config{Key: "crm", Address: s.Addr, Token: s.Root})
	t.Setenv("VAULT_SKIP_VERIFY", "true")
	if _, err := vault.Open(ctx, vault.Config{Key: "crm", Address: s.Addr, Token: s.Root}); err == nil {
		t.Error("VAULT_SKIP_VERIFY accepted")
	}
}

// cluster plays the two parts of Kubernetes that the login touches: it issues tokens of service
// accounts and reviews them when Vault asks. The Vault and its Kubernetes method are real.
type cluster struct {
	*httptest.Server
	key *ecdsa.PrivateKey

	mu      sync.Mutex
	reviews int
	valid   map[string]bool
}

func newCluster(t testing.TB, s *realtest.VaultServer) *cluster {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{key: key, valid: make(map[string]bool)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", c.review)
	c.Server = httptest.NewTLSServer(mux)
	t.Cleanup(c.Close)
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	admin := s.Client().Logical()
	if _, err := admin.Write("auth/kubernetes/config", map[string]any{
		"kubernetes_host":      c.URL,
		"kubernetes_ca_cert":   string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw})),
		"token_reviewer_jwt":   "reviewer",
		"pem_keys":             string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"disable_local_ca_jwt": true,
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Client().Sys().PutPolicy("crm", policy); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Write("auth/kubernetes/role/crm", map[string]any{
		"bound_service_account_names": "app", "bound_service_account_namespaces": "crm",
		"token_policies": "crm", "token_ttl": "10m",
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

// issue returns a token of a service account, as Kubernetes projects it into a pod.
func (c *cluster) issue(t testing.TB, namespace, name string) string {
	t.Helper()
	var id [8]byte
	rand.Read(id[:])
	claims, err := json.Marshal(map[string]any{
		"iss": "https://kubernetes.default.svc", "jti": hex.EncodeToString(id[:]), "sub": "system:serviceaccount:" + namespace + ":" + name,
		"iat": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": namespace, "serviceaccount": map[string]any{"name": name, "uid": "uid-of-" + name}},
	})
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(`{"alg":"ES256"}`)) + "." + b64(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, c.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	jwt := signed + "." + b64(sig)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.valid[jwt] = true
	return jwt
}

// end makes a token invalid, as the end of its pod does.
func (c *cluster) end(jwt string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.valid, jwt)
}

func (c *cluster) review(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Spec struct{ Token string }
	}
	if r.Header.Get("Authorization") != "Bearer reviewer" || json.NewDecoder(r.Body).Decode(&body) != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reviews++
	status := map[string]any{"authenticated": false}
	if c.valid[body.Spec.Token] {
		claims, _ := base64.RawURLEncoding.DecodeString(strings.Split(body.Spec.Token, ".")[1])
		var who struct{ Sub string }
		_ = json.Unmarshal(claims, &who)
		name := who.Sub[strings.LastIndex(who.Sub, ":")+1:]
		status = map[string]any{"authenticated": true, "user": map[string]any{"username": who.Sub, "uid": "uid-of-" + name}}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status})
}

func TestKubernetes(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	s.Key("crm")
	c := newCluster(t, s)
	path := filepath.Join(t.TempDir(), "token")
	write := func(jwt string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(jwt), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := vault.Config{Key: "crm", Address: s.Addr, KubernetesRole: "crm", KubernetesJWT: path}
	good := c.issue(t, "crm", "app")
	write(good)
	k := open(t, cfg)
	w := wrap(t, k)

	// Kubernetes writes a new token into the file, the old one ends, and Vault forgets our login.
	fresh := c.issue(t, "crm", "app")
	write(fresh)
	c.end(good)
	revokeOthers(t, s)
	unwraps(t, k, w)
	if c.reviews != 2 {
		t.Errorf("%d tokens reviewed, want 2", c.reviews)
	}

	forged := fresh[:len(fresh)-8] + "AAAAAAAA"
	for name, tc := range map[string]struct{ role, mount, jwt string }{
		"an ended token":            {"crm", "", good},
		"a forged token":            {"crm", "", forged},
		"no token":                  {"crm", "", ""},
		"no JWT":                    {"crm", "", "hvs.token"},
		"another service account":   {"crm", "", c.issue(t, "crm", "other")},
		"another namespace":         {"crm", "", c.issue(t, "default", "app")},
		"another role":              {"nobody", "", fresh},
		"a method that is not here": {"crm", "kubernetes-eu", fresh},
	} {
		write(tc.jwt)
		bad := cfg
		bad.KubernetesRole, bad.KubernetesMount = tc.role, tc.mount
		_, err := vault.Open(ctx, bad)
		if !errors.Is(err, keys.ErrAuth) {
			t.Errorf("%s: got %v, want ErrAuth", name, err)
		} else if tc.jwt != "" && strings.Contains(err.Error(), tc.jwt) {
			t.Errorf("%s: the error shows the token", name)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.Open(ctx, cfg); !errors.Is(err, keys.ErrAuth) {
		t.Errorf("no file: got %v, want ErrAuth", err)
	}
	write(fresh)
	c.CloseClientConnections()
	c.Close() // Kubernetes does not answer
	if _, err := vault.Open(ctx, cfg); err == nil {
		t.Error("logged in without a review")
	}
	unwraps(t, k, w) // who is logged in needs no Kubernetes
}
