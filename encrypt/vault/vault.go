// Package vault keeps key encryption keys, and keys that sign, in HashiCorp Vault's Transit engine (or OpenBao's), which
// they never leave. It is the only importer of Vault's client.
//
// One Transit key serves one key store, and its copies. A staging system, or a restored copy that goes on by itself, needs a key of
// its own: a rotation in one ends the versions that the other needs, for good.
//
// Keys are wrapped by transit/encrypt and transit/decrypt with associated data; rewrap and datakey
// ignore associated data, so they are not used. The smallest policy is
//
//	path "transit/encrypt/crm" { capabilities = ["update"] }
//	path "transit/decrypt/crm" { capabilities = ["update"] }
//
// and [KEK.Rotate] and [KEK.Trim] need, best under a login of their own that only the rotation has,
//
//	path "transit/keys/crm"        { capabilities = ["read"] }
//	path "transit/keys/crm/rotate" { capabilities = ["update"] }
//	path "transit/keys/crm/trim"   { capabilities = ["update"] }
//	path "transit/keys/crm/config" {
//	  capabilities       = ["update"]
//	  allowed_parameters = { "min_decryption_version" = [], "min_encryption_version" = [] }
//	}
//
// Never grant create on transit/encrypt: with it, a misspelt name makes a new key. A key that is
// exportable or may be backed up in plain text can leave Vault, and then trimming ends nothing.
//
// # Logging in
//
// By a token, by a file that Vault Agent keeps a token in, by AppRole or as a Kubernetes service account.
// Tokens are renewed after two thirds of their life. When one ends or is revoked, AppRole and
// Kubernetes log in again and the file is read again; a token that was given is keys.ErrAuth then.
//
// # Keys of customers
//
// [KEK.ForKey] uses another Transit key under the same login, so that each tenant can have its own. A
// customer who brings one makes an AES-256 key in their own HSM, fetches transit/wrapping_key (an
// RSA-4096 public key), encrypts a fresh AES-256 key for it by OAEP with SHA-256, wraps their key under
// that one by AES-KWP (RFC 5649), and hands base64 of the two, one behind the other, to the operator:
//
//	vault write transit/keys/acme/import type=aes256-gcm96 ciphertext=@acme.b64
//
// Vault does not rotate an imported key unless allow_rotation was set: its next version comes by
// transit/keys/acme/import_version, and [KEK.Rotate] is errors.ErrUnsupported. Deleting the key in Vault
// ends everything that the tenant has sealed.
package vault

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Config says where the key is and who we are. Address, TLS and namespace follow Vault's usual
// environment where a field is empty (VAULT_ADDR, VAULT_CACERT, VAULT_CAPATH, VAULT_CLIENT_CERT,
// VAULT_CLIENT_KEY, VAULT_TLS_SERVER_NAME, VAULT_NAMESPACE). VAULT_SKIP_VERIFY is refused.
type Config struct {
	Key       string        // name of the Transit key; required
	Mount     string        // of the Transit engine; "" = "transit"
	Address   string        // URL of the server; "" = VAULT_ADDR
	Namespace string        // sent as X-Vault-Namespace, which Vault Enterprise and OpenBao know; "" = VAULT_NAMESPACE
	Timeout   time.Duration // of one call with its retries and logins; one attempt takes at most half; 0 = 6 seconds

	// One way to log in. When all are empty: AppRole if VAULT_ROLE_ID is set, else VAULT_TOKEN.
	Token          string
	TokenFile      string // path of a file that holds a token and nothing else, such as a sink of Vault Agent
	RoleID         string // of AppRole
	KubernetesRole string // of the Kubernetes method

	SecretID        string // of AppRole; "" = VAULT_SECRET_ID
	RoleMount       string // of AppRole; "" = "approle"
	KubernetesJWT   string // path of the service account's token, read anew at each login; "" = where Kubernetes puts it
	KubernetesMount string // of the Kubernetes method; "" = "kubernetes"

	CACert     string // path of the authorities (PEM) that Vault's certificate must be of; "" = VAULT_CACERT, else the system's
	ClientCert string // path of our certificate for mutual TLS, read anew at each connection; "" = VAULT_CLIENT_CERT
	ClientKey  string // path of its key; "" = VAULT_CLIENT_KEY
	ServerName string // that Vault's certificate must have; "" = VAULT_TLS_SERVER_NAME, else the host of the address
}

// KEK is a Transit key. It implements keys.KEK, keys.Rotator and keys.Trimmer and is safe for
// concurrent use.
type KEK struct {
	key       string
	mount     string
	namespace string // "" for the root
	login     *session
	owner     bool        // Close ends the login
	exists    atomic.Bool // the key is known to be there, or we may not ask
}

var keyName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)

var errKeyName = errors.New("vault: a key's name has 1 to 128 letters, digits, _, . and -")

// Open connects, logs in and checks that the key wraps and unwraps. A missing key is made here when
// the policy allows it, and by no later call. The login is kept up until Close.
// Errors: keys.ErrKMSUnavailable, keys.ErrAuth, and a wrong Config.
func Open(ctx context.Context, cfg Config) (*KEK, error) {
	k, err := dial(ctx, &cfg)
	if err != nil {
		return nil, err
	}
	if err := k.check(ctx); err != nil {
		k.login.close()
		return nil, err
	}
	return k, nil
}

// dial connects and logs in.
func dial(ctx context.Context, cfg *Config) (*KEK, error) {
	if !keyName.MatchString(cfg.Key) {
		return nil, errKeyName
	}
	login, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	k := &KEK{key: cfg.Key, mount: strings.Trim(cfg.Mount, "/"), namespace: namespaceOf(cfg), login: login, owner: true}
	if k.mount == "" {
		k.mount = "transit"
	}
	return k, nil
}

// namespaceOf returns the namespace that calls go to.
func namespaceOf(cfg *Config) string {
	return strings.Trim(or(cfg.Namespace, os.Getenv(api.EnvVaultNamespace)), "/")
}

// ForKey returns the Transit key of that name under the same login and mount; see "Keys of customers".
// It asks nobody: a key that is missing is keys.ErrKeyMissing at its first use and is never made. The
// result works until k is closed.
func (k *KEK) ForKey(name string) (*KEK, error) {
	if !keyName.MatchString(name) {
		return nil, errKeyName
	}
	return &KEK{key: name, mount: k.mount, namespace: k.namespace, login: k.login}, nil
}

// Close ends the upkeep of the login and leaves its token to expire. For a KEK that ForKey returned
// it does nothing.
func (k *KEK) Close() error {
	if k.owner {
		k.login.close()
	}
	return nil
}

// ID returns "vault:" and the key's name; of another mount than "transit" or of a namespace "vault:MOUNT/KEY" or
// "vault:NAMESPACE/MOUNT/KEY", so that keys of one name in two places are told apart. The address is not part of it: a Vault may move.
func (k *KEK) ID() string {
	switch {
	case k.namespace != "":
		return "vault:" + k.namespace + "/" + k.mount + "/" + k.key
	case k.mount != "transit":
		return "vault:" + k.mount + "/" + k.key
	}
	return "vault:" + k.key
}

// check makes sure that the key exists and does what we need.
func (k *KEK) check(ctx context.Context) error {
	err := k.known(ctx)
	if errors.Is(err, keys.ErrKeyMissing) {
		_, err = k.write(ctx, "keys/"+k.key, map[string]any{"type": "aes256-gcm96"})
		if err == nil {
			k.exists.Store(true)
		}
	}
	if err != nil {
		return err
	}
	// A policy may not allow reading the key: then only using it tells.
	probe := []byte("crmguard probe")
	wrapped, err := k.Wrap(ctx, probe, probe)
	if err != nil {
		return err
	}
	_, err = k.Unwrap(ctx, wrapped, probe)
	return err
}

// known makes sure, once, that the key exists, where the policy allows us to ask. Where it does not,
// it is not one that could make a key either.
func (k *KEK) known(ctx context.Context) error {
	if k.exists.Load() {
		return nil
	}
	s, err := k.read(ctx, "keys/"+k.key)
	switch {
	case err == nil && s == nil:
		return fmt.Errorf("%w: vault has no such transit key", keys.ErrKeyMissing)
	case err != nil && !errors.Is(err, keys.ErrAuth):
		return err
	}
	k.exists.Store(true)
	return nil
}

// Wrap implements keys.KEK.
func (k *KEK) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	if len(plaintext) > 1<<16 {
		return nil, errors.New("vault: more than 64 KiB")
	}
	if err := k.known(ctx); err != nil { // encrypting may make a key
		return nil, err
	}
	s, err := k.write(ctx, "encrypt/"+k.key, map[string]any{
		"plaintext": base64.StdEncoding.EncodeToString(plaintext), "associated_data": base64.StdEncoding.EncodeToString(ad),
	})
	if errors.Is(err, errRefused) {
		return nil, errors.New("vault: the transit key does not encrypt with associated data: its type must be aes256-gcm96, not derived")
	}
	if err != nil {
		return nil, err
	}
	text, _ := data(s, "ciphertext").(string)
	if _, ok := parseVersion([]byte(text)); !ok {
		return nil, errors.New("vault: the answer has no ciphertext")
	}
	return []byte(text), nil
}

// Unwrap implements keys.KEK.
func (k *KEK) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	if _, ok := parseVersion(wrapped); !ok {
		return nil, keys.ErrTampered
	}
	s, err := k.write(ctx, "decrypt/"+k.key, map[string]any{
		"ciphertext": string(wrapped), "associated_data": base64.StdEncoding.EncodeToString(ad),
	})
	if errors.Is(err, errRefused) {
		return nil, keys.ErrTampered
	}
	if err != nil {
		return nil, err
	}
	text, ok := data(s, "plaintext").(string)
	if !ok {
		return nil, errors.New("vault: the answer has no plaintext")
	}
	out, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("vault: the answer is not base64")
	}
	return out, nil
}

// Rotate implements keys.Rotator. For a key that was imported without allow_rotation it is
// errors.ErrUnsupported.
func (k *KEK) Rotate(ctx context.Context) error {
	if err := k.known(ctx); err != nil {
		return err
	}
	_, err := k.write(ctx, "keys/"+k.key+"/rotate", nil)
	return refusedAs(err, "vault: the transit key was not rotated")
}

// Trim implements keys.Trimmer: it raises min_decryption_version and min_encryption_version to the
// oldest version in living, where they are lower, and then deletes the versions before it for good.
// It may be repeated after any failure. Something in living that is no ciphertext of Vault, or of a
// version that does not exist yet, is keys.ErrTampered; one of a version that has ended is
// keys.ErrRetired. Then nothing is ended.
func (k *KEK) Trim(ctx context.Context, living [][]byte) error {
	if len(living) == 0 {
		return ctx.Err()
	}
	oldest, newest := 0, 0
	for i, wrapped := range living {
		v, ok := parseVersion(wrapped)
		if !ok {
			return fmt.Errorf("%w: living key %d is no ciphertext of vault", keys.ErrTampered, i)
		}
		if i == 0 {
			oldest = v
		}
		oldest, newest = min(oldest, v), max(newest, v)
	}
	s, err := k.read(ctx, "keys/"+k.key)
	if err != nil {
		return err
	}
	if s == nil {
		return fmt.Errorf("%w: vault has no such transit key", keys.ErrKeyMissing)
	}
	var n [4]int
	for i, name := range []string{"latest_version", "min_decryption_version", "min_encryption_version", "min_available_version"} {
		number, _ := data(s, name).(json.Number)
		v, err := strconv.Atoi(number.String())
		if err != nil || v < 0 {
			return errors.New("vault: the answer has no versions")
		}
		n[i] = v
	}
	latest, decrypts, encrypts, available := n[0], n[1], n[2], n[3]
	switch {
	case newest > latest:
		return fmt.Errorf("%w: a living key is of version %d, vault has %d", keys.ErrTampered, newest, latest)
	case oldest < max(decrypts, available):
		return fmt.Errorf("%w: a living key is of version %d, vault opens from %d", keys.ErrRetired, oldest, max(decrypts, available))
	case oldest <= max(1, available):
		return nil
	}
	raise := map[string]any{}
	if decrypts < oldest {
		raise["min_decryption_version"] = oldest
	}
	if encrypts < oldest { // 0 stands for the latest, but is refused by trim
		raise["min_encryption_version"] = oldest
	}
	if len(raise) > 0 {
		if _, err := k.write(ctx, "keys/"+k.key+"/config", raise); err != nil {
			return refusedAs(err, "vault: the versions of the transit key were not raised")
		}
	}
	_, err = k.write(ctx, "keys/"+k.key+"/trim", map[string]any{"min_available_version": oldest})
	return refusedAs(err, "vault: the transit key was not trimmed")
}

func refusedAs(err error, text string) error {
	if errors.Is(err, errRefused) {
		return errors.New(text)
	}
	return err
}

// parseVersion reads the key version of a ciphertext, which looks like vault:v1:BASE64.
func parseVersion(wrapped []byte) (version int, ok bool) {
	rest, ok := strings.CutPrefix(string(wrapped), "vault:v")
	if !ok {
		return 0, false
	}
	digits, body, ok := strings.Cut(rest, ":")
	if !ok || digits == "" || digits[0] < '1' || digits[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		return 0, false
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(body)
	return int(n), err == nil && len(raw) > 0 && !strings.ContainsAny(body, "\r\n")
}

func data(s *api.Secret, name string) any {
	if s == nil {
		return nil
	}
	return s.Data[name]
}

func (k *KEK) read(ctx context.Context, path string) (*api.Secret, error) {
	return k.login.call(ctx, func(ctx context.Context, c *api.Client) (*api.Secret, error) {
		return c.Logical().ReadWithContext(ctx, k.mount+"/"+path)
	})
}

func (k *KEK) write(ctx context.Context, path string, body map[string]any) (*api.Secret, error) {
	return k.login.call(ctx, func(ctx context.Context, c *api.Client) (*api.Secret, error) {
		return c.Logical().WriteWithContext(ctx, k.mount+"/"+path, body)
	})
}
