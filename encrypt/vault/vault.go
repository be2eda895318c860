// Package vault keeps the key encryption key in HashiCorp Vault's Transit engine (or OpenBao's),
// which it never leaves. It is the only importer of Vault's client.
//
// Keys are wrapped by transit/encrypt and transit/decrypt with associated data; rewrap and datakey
// ignore associated data, so they are not used. The smallest policy is
//
//	path "transit/encrypt/crm" { capabilities = ["update"] }
//	path "transit/decrypt/crm" { capabilities = ["update"] }
//
// with read on transit/keys/crm to check the key at start, create and update on it to make it, and
// update on transit/keys/crm/rotate for rotation.
package vault

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Config says where the key is and who we are. Address, TLS and namespace follow the usual
// environment (VAULT_ADDR, VAULT_CACERT, VAULT_CAPATH, VAULT_CLIENT_CERT, VAULT_CLIENT_KEY,
// VAULT_TLS_SERVER_NAME, VAULT_NAMESPACE) where a field is empty.
type Config struct {
	Key       string        // name of the Transit key; required
	Mount     string        // of the Transit engine; "" = "transit"
	Address   string        // URL of the server; "" = VAULT_ADDR
	Namespace string        // "" = VAULT_NAMESPACE
	Token     string        // "" = VAULT_TOKEN, unless AppRole is used
	RoleID    string        // AppRole login; "" = VAULT_ROLE_ID
	SecretID  string        // "" = VAULT_SECRET_ID
	RoleMount string        // of the AppRole method; "" = "approle"
	Timeout   time.Duration // of one attempt of one call; 0 = 3 seconds
}

// KEK is a Transit key. It implements keys.KEK and keys.Rotator and is safe for concurrent
// use. Its token is renewed, or the AppRole login repeated, until Close.
type KEK struct {
	cfg    Config
	client *api.Client

	stop context.CancelFunc
	done chan struct{}

	login sync.Mutex // one login at a time
	mu    sync.Mutex
	since time.Time     // of the login or renewal
	ttl   time.Duration // of the token; 0 = does not expire
}

// attempts of one call when Vault does not answer.
const attempts = 3

var keyName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)

// Open connects, logs in and checks that the key wraps and unwraps. A missing key is made when the
// policy allows it; it is never made by accident of a misspelt name in a later call.
// Errors: keys.ErrKMSUnavailable, keys.ErrAuth, and a wrong Config.
func Open(ctx context.Context, cfg Config) (*KEK, error) {
	if !keyName.MatchString(cfg.Key) {
		return nil, errors.New("vault: the key's name has letters, digits, _, . and -")
	}
	for _, d := range []struct {
		field *string
		env   string
		value string
	}{
		{&cfg.Mount, "", "transit"}, {&cfg.RoleMount, "", "approle"}, {&cfg.RoleID, "VAULT_ROLE_ID", ""}, {&cfg.SecretID, "VAULT_SECRET_ID", ""},
	} {
		if *d.field == "" && d.env != "" {
			*d.field = os.Getenv(d.env)
		}
		if *d.field == "" {
			*d.field = d.value
		}
	}
	cfg.Mount, cfg.RoleMount = strings.Trim(cfg.Mount, "/"), strings.Trim(cfg.RoleMount, "/")
	if cfg.Timeout <= 0 {
		cfg.Timeout = 3 * time.Second
	}
	conf := api.DefaultConfig()
	if conf.Error != nil {
		return nil, errors.New("vault: the VAULT_ variables for address or TLS are wrong")
	}
	if cfg.Address != "" {
		conf.Address = cfg.Address
	}
	conf.MaxRetries = 0 // retries are ours: the client's own take seconds on a sealed server
	conf.Timeout = cfg.Timeout
	client, err := api.NewClient(conf)
	if err != nil {
		return nil, errors.New("vault: the address is not a URL")
	}
	if cfg.Namespace != "" {
		client.SetNamespace(cfg.Namespace)
	}
	if cfg.RoleID != "" {
		client.ClearToken()
	} else {
		if cfg.Token != "" {
			client.SetToken(cfg.Token)
		}
		if client.Token() == "" {
			return nil, fmt.Errorf("%w: neither a token nor an AppRole is given", keys.ErrAuth)
		}
	}
	k := &KEK{cfg: cfg, client: client, done: make(chan struct{})}
	if err := k.authenticate(ctx); err != nil {
		return nil, err
	}
	if err := k.check(ctx); err != nil {
		return nil, err
	}
	renew, stop := context.WithCancel(context.WithoutCancel(ctx))
	k.stop = stop
	go k.keepAlive(renew)
	return k, nil
}

// Close ends the renewal. The token is left to expire.
func (k *KEK) Close() error {
	k.stop()
	<-k.done
	return nil
}

// ID returns "vault:" and the key's name.
func (k *KEK) ID() string { return "vault:" + k.cfg.Key }

// check makes sure that the key exists and does what we need.
func (k *KEK) check(ctx context.Context) error {
	s, err := k.call(ctx, func(ctx context.Context) (*api.Secret, error) {
		return k.client.Logical().ReadWithContext(ctx, k.cfg.Mount+"/keys/"+k.cfg.Key)
	})
	if err == nil && s == nil {
		_, err = k.write(ctx, "keys/"+k.cfg.Key, map[string]any{"type": "aes256-gcm96"})
	}
	if err != nil && !errors.Is(err, keys.ErrAuth) {
		return err
	}
	// A policy may allow neither reading nor making the key: then only using it tells.
	probe := []byte("crmguard probe")
	wrapped, err := k.Wrap(ctx, probe, probe)
	if err != nil {
		return err
	}
	_, err = k.Unwrap(ctx, wrapped, probe)
	return err
}

// Wrap implements keys.KEK.
func (k *KEK) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	if len(plaintext) > 1<<16 {
		return nil, errors.New("vault: more than 64 KiB")
	}
	s, err := k.write(ctx, "encrypt/"+k.cfg.Key, map[string]any{
		"plaintext": base64.StdEncoding.EncodeToString(plaintext), "associated_data": base64.StdEncoding.EncodeToString(ad),
	})
	if err != nil {
		return nil, err
	}
	text, ok := data(s, "ciphertext")
	if !ok || !strings.HasPrefix(text, "vault:v") {
		return nil, errors.New("vault: the answer has no ciphertext")
	}
	return []byte(text), nil
}

// Unwrap implements keys.KEK.
func (k *KEK) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	if !strings.HasPrefix(string(wrapped), "vault:v") {
		return nil, keys.ErrTampered
	}
	s, err := k.write(ctx, "decrypt/"+k.cfg.Key, map[string]any{
		"ciphertext": string(wrapped), "associated_data": base64.StdEncoding.EncodeToString(ad),
	})
	if err != nil {
		return nil, err
	}
	text, ok := data(s, "plaintext")
	if !ok {
		return nil, errors.New("vault: the answer has no plaintext")
	}
	out, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("vault: the answer is not base64")
	}
	return out, nil
}

// Rotate implements keys.Rotator.
func (k *KEK) Rotate(ctx context.Context) error {
	_, err := k.write(ctx, "keys/"+k.cfg.Key+"/rotate", nil)
	return err
}

func data(s *api.Secret, name string) (string, bool) {
	if s == nil {
		return "", false
	}
	text, ok := s.Data[name].(string)
	return text, ok
}

func (k *KEK) write(ctx context.Context, path string, body map[string]any) (*api.Secret, error) {
	return k.call(ctx, func(ctx context.Context) (*api.Secret, error) {
		return k.client.Logical().WriteWithContext(ctx, k.cfg.Mount+"/"+path, body)
	})
}

// call runs f with a deadline, again with jitter when Vault is away, and once more after a new
// login when Vault refuses the token of an AppRole.
func (k *KEK) call(ctx context.Context, f func(context.Context) (*api.Secret, error)) (*api.Secret, error) {
	loggedIn := false
	for attempt := 1; ; attempt++ {
		token := k.client.Token()
		once, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
		s, err := f(once)
		cancel()
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", keys.ErrKMSUnavailable, ctx.Err())
		}
		err = translate(err)
		switch {
		case errors.Is(err, keys.ErrAuth) && k.cfg.RoleID != "" && !loggedIn:
			loggedIn = true
			if lerr := k.again(ctx, token); lerr != nil {
				return nil, lerr
			}
		case errors.Is(err, keys.ErrKMSUnavailable) && attempt < attempts:
			pause := time.NewTimer(time.Duration(attempt) * (50*time.Millisecond + rand.N(100*time.Millisecond)))
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return nil, fmt.Errorf("%w: %w", keys.ErrKMSUnavailable, ctx.Err())
			}
		default:
			return nil, err
		}
	}
}

// translate turns an error of Vault's client into one of encrypt. Vault's own words stay behind:
// they may quote what was sent.
func translate(err error) error {
	var answer *api.ResponseError
	if !errors.As(err, &answer) {
		return fmt.Errorf("%w: vault does not answer", keys.ErrKMSUnavailable)
	}
	text := strings.Join(answer.Errors, "\n")
	switch code := answer.StatusCode; {
	case code == http.StatusForbidden || code == http.StatusUnauthorized:
		return fmt.Errorf("%w: vault %d", keys.ErrAuth, code)
	case code == http.StatusServiceUnavailable && strings.Contains(text, "sealed"):
		return fmt.Errorf("%w: vault is sealed", keys.ErrKMSUnavailable)
	case code == http.StatusTooManyRequests || code >= 500 || code == http.StatusPreconditionFailed || code == 472 || code == 473:
		return fmt.Errorf("%w: vault %d", keys.ErrKMSUnavailable, code)
	case strings.Contains(text, "key not found"):
		return fmt.Errorf("%w: vault has no such transit key", keys.ErrKeyMissing)
	case strings.Contains(text, "disallowed by policy"), strings.Contains(text, "has been trimmed"):
		return fmt.Errorf("%w: its version of the transit key was ended", keys.ErrRetired)
	case code == http.StatusNotFound:
		return fmt.Errorf("%w: vault has no transit engine at this path", keys.ErrKeyMissing)
	case code == http.StatusBadRequest:
		return keys.ErrTampered
	}
	return fmt.Errorf("vault: unexpected answer %d", answer.StatusCode)
}

// authenticate logs in by AppRole, or looks at the given token.
func (k *KEK) authenticate(ctx context.Context) error {
	if k.cfg.RoleID != "" {
		return k.again(ctx, k.client.Token())
	}
	s, err := k.call(ctx, func(ctx context.Context) (*api.Secret, error) {
		return k.client.Auth().Token().LookupSelfWithContext(ctx)
	})
	if errors.Is(err, keys.ErrAuth) {
		return nil // a policy may forbid looking; the first use of the key will tell
	}
	if err != nil {
		return err
	}
	var ttl time.Duration
	if n, ok := s.Data["ttl"].(json.Number); ok {
		seconds, _ := n.Int64()
		ttl = time.Duration(seconds) * time.Second
	}
	k.renewed(ttl)
	return nil
}

// again logs in by AppRole, unless somebody has since the token was used.
func (k *KEK) again(ctx context.Context, used string) error {
	k.login.Lock()
	defer k.login.Unlock()
	if used != "" && k.client.Token() != used {
		return nil
	}
	anon, err := k.client.CloneWithHeaders()
	if err != nil {
		return errors.New("vault: cannot prepare a login")
	}
	anon.ClearToken()
	once, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
	defer cancel()
	s, err := anon.Logical().WriteWithContext(once, "auth/"+k.cfg.RoleMount+"/login",
		map[string]any{"role_id": k.cfg.RoleID, "secret_id": k.cfg.SecretID})
	if err != nil {
		err = translate(err)
		if errors.Is(err, keys.ErrTampered) || errors.Is(err, keys.ErrKeyMissing) { // Vault answers 400 to a wrong role or secret
			err = fmt.Errorf("%w: the AppRole login", keys.ErrAuth)
		}
		return err
	}
	if s == nil || s.Auth == nil || s.Auth.ClientToken == "" {
		return fmt.Errorf("%w: the AppRole login gave no token", keys.ErrAuth)
	}
	k.client.SetToken(s.Auth.ClientToken)
	k.renewed(time.Duration(s.Auth.LeaseDuration) * time.Second)
	return nil
}

func (k *KEK) renewed(ttl time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.since, k.ttl = time.Now(), ttl
}

// keepAlive renews the token after two thirds of its life; when that fails or gives little, it logs
// in again.
func (k *KEK) keepAlive(ctx context.Context) {
	defer close(k.done)
	backoff := time.Second
	for {
		k.mu.Lock()
		since, ttl := k.since, k.ttl
		k.mu.Unlock()
		wait := time.Minute // a token that does not expire: look again, a login may change that
		if ttl > 0 {
			wait = max(time.Until(since.Add(ttl*2/3)), backoff)
		}
		pause := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		k.mu.Lock()
		due := k.ttl > 0 && !time.Now().Before(k.since.Add(k.ttl*2/3))
		k.mu.Unlock()
		if !due {
			continue
		}
		if k.renew(ctx) {
			backoff = time.Second
		} else {
			backoff = min(2*backoff, 30*time.Second)
		}
	}
}

func (k *KEK) renew(ctx context.Context) bool {
	token := k.client.Token()
	once, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
	s, err := k.client.Auth().Token().RenewSelfWithContext(once, 0)
	cancel()
	if err == nil && s != nil && s.Auth != nil {
		k.mu.Lock()
		before := k.ttl
		k.mu.Unlock()
		ttl := time.Duration(s.Auth.LeaseDuration) * time.Second
		// Near its maximum life a token is renewed for less and less.
		if k.cfg.RoleID == "" || ttl >= before/2 {
			k.renewed(ttl)
			return ttl > 0
		}
	}
	return k.cfg.RoleID != "" && k.again(ctx, token) == nil
}
