package token

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/crmguard/crmguard/authz/authn"
)

// MaxLife is how long a token or a binding lasts at most.
const MaxLife = 366 * 24 * time.Hour

// useEvery is how coarse Used is.
const useEvery = time.Hour

// Reasons of refusals, besides ErrNone.
var (
	ErrMalformed  = errors.New("token: no token, or its checksum is wrong")
	ErrExpired    = errors.New("token: expired")
	ErrRevoked    = errors.New("token: revoked")
	ErrSource     = errors.New("token: not from this network")
	ErrForged     = errors.New("token: a stored token is forged or damaged")
	ErrUnverified = errors.New("token: no client certificate that was verified")
)

// Options of New.
type Options struct {
	Now func() time.Time // nil = time.Now
}

// Manager issues, verifies and revokes.
type Manager struct {
	store Store
	keys  [][2][]byte // of hashes, of MACs
	now   func() time.Time
}

// New returns a Manager. keys are secrets of at least 32 bytes: the first one makes hashes and MACs, the others are
// still accepted.
func New(store Store, keys [][]byte, opts *Options) (*Manager, error) {
	if store == nil || len(keys) == 0 {
		return nil, errors.New("token: no store or key")
	}
	m := &Manager{store: store, now: time.Now}
	if opts != nil && opts.Now != nil {
		m.now = opts.Now
	}
	for _, key := range keys {
		if len(key) < 32 {
			return nil, errors.New("token: a key has at least 32 bytes")
		}
		var pair [2][]byte
		for i, label := range []string{"hash", "row"} {
			sub, err := hkdf.Key(sha256.New, key, nil, "crmguard token 1 "+label, 32)
			if err != nil {
				return nil, err
			}
			pair[i] = sub
		}
		m.keys = append(m.keys, pair)
	}
	return m, nil
}

// Grant says what a token or a certificate opens.
type Grant struct {
	Tenant, Account string         // the service account, an opaque id
	Name            string         // what it is for, 1 to 100 characters; not secret, and no personal data
	By              string         // id of who makes it
	Scopes          []string       // what it may be used for; at least one
	Sources         []netip.Prefix // from where; nil = from anywhere
	Expires         time.Time      // required, within MaxLife
}

// InvalidError is a Grant that is not accepted.
type InvalidError struct{ Field string }

// Error names the field.
func (e *InvalidError) Error() string { return "token: invalid " + e.Field }

func (g *Grant) check(now time.Time) error {
	text := func(s string, least, most int) bool {
		return len(s) >= least && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError })
	}
	switch {
	case !text(g.Tenant, 1, 200):
		return &InvalidError{"tenant"}
	case !text(g.Account, 1, 200):
		return &InvalidError{"account"}
	case !text(g.Name, 1, 100):
		return &InvalidError{"name"}
	case !text(g.By, 0, 200):
		return &InvalidError{"by"}
	case len(g.Scopes) == 0 || len(g.Scopes) > 50:
		return &InvalidError{"scopes"}
	case len(g.Sources) > 50:
		return &InvalidError{"sources"}
	case !g.Expires.After(now) || g.Expires.Sub(now) > MaxLife:
		return &InvalidError{"expiry"}
	}
	for _, s := range g.Scopes {
		if !text(s, 1, 100) || strings.ContainsAny(s, " ,") {
			return &InvalidError{"scopes"}
		}
	}
	for _, p := range g.Sources {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return &InvalidError{"sources"}
		}
	}
	return nil
}

// Info is what is known of a token or a bound certificate; no secret.
type Info struct {
	ID       string // the ten characters in its text, or "spki-" and 20 hexadecimal digits of a certificate's key
	Grant           // as it was made, scopes sorted
	Created  time.Time
	LastUsed time.Time // to the hour; zero when never
	Revoked  time.Time // zero when not
}

// Has tells whether a scope was granted.
func (i *Info) Has(scope string) bool { return slices.Contains(i.Scopes, scope) }

func infoOf(r *Record) *Info {
	return &Info{
		ID: r.ID, Created: r.Created, LastUsed: r.Used, Revoked: r.Revoked,
		Grant: Grant{Tenant: r.Tenant, Account: r.Account, Name: r.Name, By: r.By, Scopes: r.Scopes, Sources: r.Sources, Expires: r.Expires},
	}
}

func millis(t time.Time) time.Time { return t.Truncate(time.Millisecond).UTC() }

func (m *Manager) record(g Grant, id string) Record {
	scopes := slices.Clone(g.Scopes)
	slices.Sort(scopes)
	return Record{
		ID: id, Tenant: g.Tenant, Account: g.Account, Name: g.Name, By: g.By, Scopes: slices.Compact(scopes), Sources: slices.Clone(g.Sources),
		Created: millis(m.now()), Expires: millis(g.Expires),
	}
}

func mac(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

// rowMAC covers what a grant is. hash is that of the row, or of the text that was presented.
func rowMAC(key []byte, r *Record, hash []byte) []byte {
	number := func(t time.Time) string { return string(binary.BigEndian.AppendUint64(nil, uint64(t.UnixMilli()))) }
	count := func(n int) string { return string(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	parts := []string{r.ID, r.Tenant, r.Account, r.Name, r.By, number(r.Created), number(r.Expires), string(hash), count(len(r.Scopes))}
	parts = append(parts, r.Scopes...)
	parts = append(parts, count(len(r.Sources)))
	for _, p := range r.Sources {
		parts = append(parts, p.String())
	}
	return mac(key, parts...)
}

func (m *Manager) add(ctx context.Context, r Record, secret string) error {
	r.Hash = mac(m.keys[0][0], r.ID, secret)
	r.MAC = rowMAC(m.keys[0][1], &r, r.Hash)
	return m.store.Add(ctx, r)
}

// Issue makes a token. Its text is returned here and never again. Errors: *InvalidError, those of the store.
func (m *Manager) Issue(ctx context.Context, g Grant) (*Info, Secret, error) {
	if err := g.check(m.now()); err != nil {
		return nil, Secret{}, err
	}
	id, secret := newSecret()
	r := m.record(g, id)
	if err := m.add(ctx, r, secret.text); err != nil {
		return nil, Secret{}, err
	}
	return infoOf(&r), secret, nil
}

// Verify returns what a token opens. addr is where the request comes from.
func (m *Manager) Verify(ctx context.Context, text string, addr netip.Addr) (*Info, error) {
	id, ok := parse(text)
	if !ok {
		return nil, authn.Refuse(ErrMalformed)
	}
	i, err := m.verify(ctx, id, text, addr)
	if err != nil {
		return nil, authn.Refuse(err)
	}
	return i, nil
}

func (m *Manager) verify(ctx context.Context, id, secret string, addr netip.Addr) (*Info, error) {
	r, err := m.store.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	if !r.Revoked.IsZero() || len(r.Hash) == 0 {
		return nil, ErrRevoked
	}
	match := -1
	for i, k := range m.keys {
		if hmac.Equal(mac(k[0], id, secret), r.Hash) {
			match = i
		}
	}
	if match < 0 {
		return nil, ErrNone
	}
	if r.ID != id || !hmac.Equal(rowMAC(m.keys[match][1], &r, r.Hash), r.MAC) {
		return nil, ErrForged
	}
	now := m.now()
	if !now.Before(r.Expires) {
		return nil, ErrExpired
	}
	addr = addr.Unmap().WithZone("")
	if len(r.Sources) > 0 && !slices.ContainsFunc(r.Sources, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return nil, ErrSource
	}
	if used := now.Truncate(useEvery).UTC(); used.After(r.Used) {
		if err := m.store.Use(ctx, id, used); err != nil {
			return nil, err
		}
		r.Used = used
	}
	return infoOf(&r), nil
}

// List returns the tokens and bindings of a query, revoked and expired ones too.
func (m *Manager) List(ctx context.Context, q Query) ([]Info, error) {
	all, err := m.store.List(ctx, q)
	if err != nil {
		return nil, err
	}
	out := make([]Info, len(all))
	for i := range all {
		out[i] = *infoOf(&all[i])
	}
	return out, nil
}

// Revoke ends a token or a binding at once. Errors: ErrNone when the tenant has none of that id that is not revoked
// yet.
func (m *Manager) Revoke(ctx context.Context, tenant, id string) error {
	if id == "" {
		return ErrNone
	}
	ids, err := m.store.Revoke(ctx, Query{Tenant: tenant, Prefix: id}, millis(m.now()))
	if err == nil && len(ids) == 0 {
		return ErrNone
	}
	return err
}

// RevokeAll ends all tokens and bindings of a service account at once, and returns their ids.
func (m *Manager) RevokeAll(ctx context.Context, tenant, account string) ([]string, error) {
	if account == "" {
		return nil, ErrNone
	}
	return m.store.Revoke(ctx, Query{Tenant: tenant, Account: account}, millis(m.now()))
}
