package vault

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// session is a login and its upkeep, shared by the keys that are used under it.
type session struct {
	client  *api.Client
	timeout time.Duration
	method  method

	turn chan struct{} // holds one token: who has it may log in
	stop context.CancelFunc
	done chan struct{} // closed when the upkeep has ended

	mu    sync.Mutex
	since time.Time     // of the login or renewal
	ttl   time.Duration // of the token; 0 = does not expire
}

// method is a way to get a token. Without a path and a file the token is given, for good.
type method struct {
	name string
	file string                         // holds a token that somebody else keeps up
	path string                         // of a login
	body func() (map[string]any, error) // of a login
}

func (m *method) repeats() bool { return m.file != "" || m.path != "" }

const (
	attempts      = 3       // of one call when Vault does not answer
	maxToken      = 1 << 16 // bytes of a token or JWT in a file
	kubernetesJWT = "/var/run/secrets/kubernetes.io/serviceaccount/token"
)

// errRefused says that Vault answered 400. What that means depends on the call.
var errRefused = errors.New("vault: refused")

// connect makes a client, logs in and begins the upkeep of the login.
func connect(ctx context.Context, cfg *Config) (*session, error) {
	m, token, err := methodOf(cfg)
	if err != nil {
		return nil, err
	}
	client, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	s := &session{client: client, timeout: cfg.Timeout, method: m, turn: make(chan struct{}, 1), done: make(chan struct{})}
	if s.timeout <= 0 {
		s.timeout = 6 * time.Second
	}
	if m.repeats() {
		err = s.again(ctx, "")
	} else {
		client.SetToken(token)
		err = s.lookAt(ctx)
	}
	if err != nil {
		return nil, err
	}
	upkeep, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	go s.keepUp(upkeep)
	return s, nil
}

func (s *session) close() {
	s.stop()
	<-s.done
}

// methodOf returns the way to log in, and the token when it is given.
func methodOf(cfg *Config) (m method, token string, err error) {
	named := 0
	for _, v := range []string{cfg.Token, cfg.TokenFile, cfg.RoleID, cfg.KubernetesRole} {
		if v != "" {
			named++
		}
	}
	if named > 1 {
		return m, "", errors.New("vault: more than one way to log in: give Token, TokenFile, RoleID or KubernetesRole")
	}
	role := cfg.RoleID
	if named == 0 {
		if role = os.Getenv("VAULT_ROLE_ID"); role == "" {
			cfg.Token = os.Getenv(api.EnvVaultToken)
		}
	}
	switch {
	case cfg.KubernetesRole != "":
		file := or(cfg.KubernetesJWT, kubernetesJWT)
		return method{
			name: "Kubernetes login", path: "auth/" + or(strings.Trim(cfg.KubernetesMount, "/"), "kubernetes") + "/login",
			body: func() (map[string]any, error) {
				jwt, err := readToken(file)
				return map[string]any{"role": cfg.KubernetesRole, "jwt": jwt}, err
			},
		}, "", nil
	case cfg.TokenFile != "":
		return method{name: "token file", file: cfg.TokenFile}, "", nil
	case role != "":
		secret := or(cfg.SecretID, os.Getenv("VAULT_SECRET_ID"))
		return method{
			name: "AppRole login", path: "auth/" + or(strings.Trim(cfg.RoleMount, "/"), "approle") + "/login",
			body: func() (map[string]any, error) {
				return map[string]any{"role_id": role, "secret_id": secret}, nil
			},
		}, "", nil
	case !printable(cfg.Token):
		return m, "", fmt.Errorf("%w: no token, token file, AppRole or Kubernetes role is given", keys.ErrAuth)
	}
	return method{name: "token"}, cfg.Token, nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// printable tells whether a token can be sent in a header.
func printable(token string) bool {
	return token != "" && !strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' })
}

// readToken reads a file that holds a token or JWT and nothing else.
func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%w: %v", keys.ErrAuth, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("%w: %v", keys.ErrAuth, err)
	}
	token := strings.TrimSpace(string(b))
	if len(b) > maxToken || !printable(token) {
		return "", fmt.Errorf("%w: %s does not hold a token", keys.ErrAuth, path)
	}
	return token, nil
}

func newClient(cfg *Config) (*api.Client, error) {
	if skip, _ := strconv.ParseBool(os.Getenv(api.EnvVaultSkipVerify)); skip {
		return nil, errors.New("vault: VAULT_SKIP_VERIFY is set; name the authority of Vault's certificate instead")
	}
	conf := api.DefaultConfig()
	if conf.Error != nil {
		return nil, errors.New("vault: the VAULT_ variables for address or TLS are wrong")
	}
	if cfg.Address != "" {
		conf.Address, conf.AgentAddress = cfg.Address, ""
	}
	conf.MaxRetries = 0 // retries are ours: the client's own take seconds on a sealed server
	conf.Timeout = 0    // deadlines are ours, too
	cert := or(cfg.ClientCert, os.Getenv(api.EnvVaultClientCert))
	key := or(cfg.ClientKey, os.Getenv(api.EnvVaultClientKey))
	if err := conf.ConfigureTLS(&api.TLSConfig{CACert: cfg.CACert, ClientCert: cert, ClientKey: key, TLSServerName: cfg.ServerName}); err != nil {
		return nil, fmt.Errorf("vault: TLS: %v", err)
	}
	transport, ok := conf.HttpClient.Transport.(*http.Transport)
	if !ok {
		return nil, errors.New("vault: the client's transport is not known")
	}
	// HTTP/1.1 ends a connection with the call that timed out on it. HTTP/2 would keep one that a
	// paused server or a firewall holds open, and every later call would time out on it, too.
	transport.ForceAttemptHTTP2 = false
	transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	transport.TLSClientConfig.NextProtos = []string{"http/1.1"}
	if cert != "" { // they live for hours or days and are replaced under us
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cert, key)
			return &pair, err
		}
	}
	client, err := api.NewClient(conf)
	if err != nil {
		return nil, errors.New("vault: the address is not a URL, or VAULT_HEADERS is wrong")
	}
	client.ClearToken() // VAULT_TOKEN was for methodOf to read
	if cfg.Namespace != "" {
		client.SetNamespace(cfg.Namespace)
	}
	return client, nil
}

// call runs f within the timeout, again with jitter when Vault is away, and once more after a new
// login when Vault refuses the token.
func (s *session) call(ctx context.Context, f func(context.Context, *api.Client) (*api.Secret, error)) (*api.Secret, error) {
	bound, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	away := func(last error) error {
		if ctx.Err() != nil { // the caller's own end
			return fmt.Errorf("%w: %w", keys.ErrKMSUnavailable, ctx.Err())
		}
		return last
	}
	loggedIn := false
	for attempt := 1; ; attempt++ {
		token := s.client.Token()
		once, cancel := context.WithTimeout(bound, s.timeout/2)
		out, err := f(once, s.client)
		cancel()
		if err == nil {
			return out, nil
		}
		err = translate(err)
		switch {
		case ctx.Err() != nil:
			return nil, away(err)
		case errors.Is(err, keys.ErrAuth) && s.method.repeats() && !loggedIn && !s.alive(bound, token):
			loggedIn = true
			if err := s.again(bound, token); err != nil {
				return nil, away(err)
			}
		case errors.Is(err, keys.ErrKMSUnavailable) && attempt < attempts && bound.Err() == nil:
			pause := time.NewTimer(time.Duration(attempt) * (50*time.Millisecond + rand.N(100*time.Millisecond)))
			select {
			case <-pause.C:
			case <-bound.Done():
				pause.Stop()
				return nil, away(err)
			}
		default:
			return nil, err
		}
	}
}

// alive tells whether used is still our token and Vault knows it, so that it was the policy that refused
// a call. Another login would change nothing then, and would use up the secret of an AppRole that counts.
func (s *session) alive(ctx context.Context, used string) bool {
	once, cancel := context.WithTimeout(ctx, s.timeout/2)
	defer cancel()
	_, err := s.client.Auth().Token().LookupSelfWithContext(once)
	return err == nil && s.client.Token() == used
}

// translate turns an error of Vault's client into one of package keys, or errRefused. Vault's own
// words stay behind: they may quote what was sent.
func translate(err error) error {
	var answer *api.ResponseError
	if !errors.As(err, &answer) {
		var untrusted *tls.CertificateVerificationError
		var broken *net.OpError
		switch {
		case errors.As(err, &untrusted):
			return fmt.Errorf("%w: vault's certificate is not trusted", keys.ErrKMSUnavailable)
		case errors.As(err, &broken) && broken.Op == "remote error": // an alert of TLS
			return fmt.Errorf("%w: vault refuses our certificate", keys.ErrAuth)
		}
		return fmt.Errorf("%w: vault does not answer", keys.ErrKMSUnavailable)
	}
	text := strings.Join(answer.Errors, "\n")
	switch code := answer.StatusCode; {
	case code == http.StatusForbidden || code == http.StatusUnauthorized:
		return fmt.Errorf("%w: vault %d", keys.ErrAuth, code)
	case code == http.StatusServiceUnavailable && strings.Contains(text, "sealed"):
		return fmt.Errorf("%w: vault is sealed", keys.ErrKMSUnavailable)
	case strings.Contains(text, "does not allow rotation"): // Vault answers 500
		return fmt.Errorf("vault: an imported key is rotated by importing its next version: %w", errors.ErrUnsupported)
	case strings.Contains(text, "less than the minimum encryption key version"): // Vault answers 500
		return fmt.Errorf("%w: its version of the transit key was ended", keys.ErrRetired)
	case code == http.StatusTooManyRequests || code >= 500 || code == http.StatusPreconditionFailed || code == 472 || code == 473:
		return fmt.Errorf("%w: vault %d", keys.ErrKMSUnavailable, code)
	case strings.Contains(text, "key not found"):
		return fmt.Errorf("%w: vault has no such transit key", keys.ErrKeyMissing)
	case strings.Contains(text, "disallowed by policy"), strings.Contains(text, "has been trimmed"):
		return fmt.Errorf("%w: its version of the transit key was ended", keys.ErrRetired)
	case code == http.StatusNotFound:
		return fmt.Errorf("%w: vault has no transit engine at this path", keys.ErrKeyMissing)
	case code == http.StatusBadRequest:
		return errRefused
	}
	return fmt.Errorf("vault: unexpected answer %d", answer.StatusCode)
}

// lookAt learns how long a given token lives.
func (s *session) lookAt(ctx context.Context) error {
	out, err := s.call(ctx, func(ctx context.Context, c *api.Client) (*api.Secret, error) {
		return c.Auth().Token().LookupSelfWithContext(ctx)
	})
	if errors.Is(err, keys.ErrAuth) {
		return nil // a policy may forbid looking; the first use of the key will tell
	}
	if err != nil {
		return err
	}
	var ttl time.Duration
	if n, ok := data(out, "ttl").(json.Number); ok {
		seconds, _ := n.Int64()
		ttl = time.Duration(seconds) * time.Second
	}
	s.renewed(ttl)
	return nil
}

// again logs in or reads the token file, unless somebody has since the token was used.
func (s *session) again(ctx context.Context, used string) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: the %s takes too long", keys.ErrKMSUnavailable, s.method.name)
	}
	defer func() { <-s.turn }()
	if s.client.Token() != used {
		return nil
	}
	if s.method.file != "" {
		token, err := readToken(s.method.file)
		if err != nil {
			return err
		}
		if token == used {
			return fmt.Errorf("%w: the token in the file", keys.ErrAuth)
		}
		s.client.SetToken(token)
		return nil
	}
	body, err := s.method.body()
	if err != nil {
		return err
	}
	anon, err := s.client.CloneWithHeaders()
	if err != nil {
		return errors.New("vault: cannot prepare a login")
	}
	anon.ClearToken()
	once, cancel := context.WithTimeout(ctx, s.timeout/2)
	defer cancel()
	out, err := anon.Logical().WriteWithContext(once, s.method.path, body)
	if err != nil {
		if err = translate(err); errors.Is(err, errRefused) || errors.Is(err, keys.ErrKeyMissing) || errors.Is(err, keys.ErrAuth) {
			err = fmt.Errorf("%w: the %s", keys.ErrAuth, s.method.name) // Vault answers 400 to a wrong role or secret
		}
		return err
	}
	if out == nil || out.Auth == nil || !printable(out.Auth.ClientToken) {
		return fmt.Errorf("%w: the %s gave no token", keys.ErrAuth, s.method.name)
	}
	s.client.SetToken(out.Auth.ClientToken)
	s.renewed(time.Duration(out.Auth.LeaseDuration) * time.Second)
	return nil
}

func (s *session) renewed(ttl time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since, s.ttl = time.Now(), ttl
}

// due says how long it is until the token should be renewed.
func (s *session) due() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ttl <= 0 {
		return time.Minute // look again then: a login may change that
	}
	return time.Until(s.since.Add(s.ttl * 2 / 3))
}

// keepUp renews the token after two thirds of its life; when that fails or gives little, it logs in
// again.
func (s *session) keepUp(ctx context.Context) {
	defer close(s.done)
	backoff := time.Second
	wait := s.due()
	for {
		pause := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		if wait = s.due(); wait > 0 {
			continue
		}
		if s.renew(ctx) {
			backoff, wait = time.Second, max(s.due(), 100*time.Millisecond)
		} else {
			wait, backoff = backoff, min(2*backoff, 30*time.Second)
		}
	}
}

func (s *session) renew(ctx context.Context) bool {
	token := s.client.Token()
	once, cancel := context.WithTimeout(ctx, s.timeout/2)
	out, err := s.client.Auth().Token().RenewSelfWithContext(once, 0)
	cancel()
	if err == nil && out != nil && out.Auth != nil {
		s.mu.Lock()
		before := s.ttl
		s.mu.Unlock()
		ttl := time.Duration(out.Auth.LeaseDuration) * time.Second
		// Near its maximum life a token is renewed for less and less.
		if !s.method.repeats() || ttl >= before/2 {
			s.renewed(ttl)
			return ttl > 0
		}
	}
	bound, cancel := context.WithTimeout(ctx, s.timeout/2)
	defer cancel()
	return s.method.repeats() && s.again(bound, token) == nil
}
