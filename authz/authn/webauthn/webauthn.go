package webauthn

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/once"
)

// Site is who asks for the credentials.
type Site struct {
	ID      string   // the relying party id: a domain, whose subdomains may use the credentials too
	Name    string   // for people
	Origins []string // from where the pages come, https://host[:port]
}

// Sealer keeps personal data confidential under the person that it tells of. Open answers an error for data that it
// did not seal for this tenant, person and context.
type Sealer interface {
	Seal(ctx context.Context, tenant, person string, plaintext, context []byte) ([]byte, error)
	Open(ctx context.Context, tenant, person string, sealed, context []byte) ([]byte, error)
}

// Options of New.
type Options struct {
	// Models are the authenticators that are accepted, by AAGUID, and the authorities that attest each of them. nil =
	// any, without attestation.
	Models map[[16]byte]*x509.CertPool
	Most   int              // credentials of one person; 0 = 20
	Expiry time.Duration    // of a ceremony; 0 = 5 minutes
	Now    func() time.Time // nil = time.Now
}

// Passkeys enrols and verifies.
type Passkeys struct {
	rp     *webauthn.WebAuthn
	store  Store
	states once.Store
	sealer Sealer
	mac    []byte
	opts   Options
}

// Reasons of refusals.
var (
	ErrCeremony = errors.New("webauthn: the ceremony is unknown, over or of another kind")
	ErrInvalid  = errors.New("webauthn: the response is not valid")
	ErrModel    = errors.New("webauthn: the model of the authenticator is not attested or not allowed")
	ErrForged   = errors.New("webauthn: a stored credential is forged or damaged")
)

// ClonedError: the counter of a credential went back. The person has to be told; the credential never serves again.
type ClonedError struct {
	Tenant, Person string
	ID             string // of the credential
}

// Error says what happened and names nobody.
func (*ClonedError) Error() string {
	return "webauthn: the counter of a credential went back: it was cloned"
}

// maxResponse bounds what is parsed, in bytes.
const maxResponse = 64 << 10

// New returns a Passkeys. key is a secret of at least 32 bytes for the MACs of rows. An origin that is not https is
// an error, but for localhost.
func New(site Site, store Store, states once.Store, sealer Sealer, key []byte, opts *Options) (*Passkeys, error) {
	if store == nil || states == nil || sealer == nil || len(key) < 32 {
		return nil, errors.New("webauthn: no store or sealer, or a key of less than 32 bytes")
	}
	p := &Passkeys{store: store, states: states, sealer: sealer}
	if opts != nil {
		p.opts = *opts
	}
	if p.opts.Most == 0 {
		p.opts.Most = 20
	}
	if p.opts.Expiry == 0 {
		p.opts.Expiry = 5 * time.Minute
	}
	if p.opts.Now == nil {
		p.opts.Now = time.Now
	}
	if p.opts.Most < 0 || p.opts.Expiry < 0 || p.opts.Models != nil && len(p.opts.Models) == 0 {
		return nil, errors.New("webauthn: options out of range")
	}
	for _, pool := range p.opts.Models {
		if pool == nil {
			return nil, errors.New("webauthn: a model without authorities")
		}
	}
	if site.ID == "" || site.Name == "" || len(site.Origins) == 0 {
		return nil, errors.New("webauthn: a site has an id, a name and an origin")
	}
	for _, o := range site.Origins {
		u, err := url.Parse(o)
		if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && u.Hostname() == "localhost") || u.Path != "" ||
			u.RawQuery != "" || u.User != nil {
			return nil, errors.New("webauthn: an origin is https://host[:port]")
		}
	}
	required := true
	config := &webauthn.Config{
		RPID: site.ID, RPDisplayName: site.Name, RPOrigins: site.Origins, AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{RequireResidentKey: &required,
			ResidentKey: protocol.ResidentKeyRequirementRequired, UserVerification: protocol.VerificationRequired},
	}
	if p.opts.Models != nil {
		config.AttestationPreference = protocol.PreferDirectAttestation
	}
	var err error
	if p.rp, err = webauthn.New(config); err != nil {
		return nil, fmt.Errorf("webauthn: %v", err)
	}
	p.mac, err = hkdf.Key(sha256.New, key, nil, "crmguard webauthn 1 row", 32)
	return p, err
}

// Credential is an enrolled passkey.
type Credential struct {
	Tenant, Person string
	ID             string   // base64url
	Name           string   // that the person gave it
	Model          [16]byte // AAGUID; its own word unless models are attested
	Transports     []string // "internal", "usb", "hybrid" ...
	Synced         bool     // it is backed up to an account
	Created        time.Time
	LastUsed       time.Time // zero when never
	Cloned         time.Time // when a clone was noticed; zero when not
}

// Names are what an authenticator shows to its owner. They are not stored here.
type Names struct{ Account, Display string }

// ceremony is what is remembered between begin and finish.
type ceremony struct {
	Kind    string               `json:"kind"`
	Tenant  string               `json:"tenant,omitempty"`
	Person  string               `json:"person,omitempty"`
	Session webauthn.SessionData `json:"session"`
}

const (
	enrolment = "enrolment"
	signIn    = "sign-in"
	check     = "check"
)

// user is a person as the library wants it.
type user struct {
	handle      []byte
	names       Names
	credentials []webauthn.Credential
}

func (u *user) WebAuthnID() []byte                         { return u.handle }
func (u *user) WebAuthnName() string                       { return u.names.Account }
func (u *user) WebAuthnDisplayName() string                { return u.names.Display }
func (u *user) WebAuthnCredentials() []webauthn.Credential { return u.credentials }

func (p *Passkeys) rowMAC(r *Record) []byte {
	h := hmac.New(sha256.New, p.mac)
	eligible := []byte{0}
	if r.BackupEligible {
		eligible[0] = 1
	}
	created := binary.BigEndian.AppendUint64(nil, uint64(r.Created.UnixMilli()))
	for _, part := range [][]byte{r.ID, []byte(r.Tenant), []byte(r.Person), r.Handle, r.PublicKey, r.Model, []byte(r.Format), eligible, created} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)
}

// credentialOf checks a row's MAC.
func (p *Passkeys) credentialOf(r *Record) (webauthn.Credential, error) {
	if !hmac.Equal(p.rowMAC(r), r.MAC) {
		return webauthn.Credential{}, ErrForged
	}
	c := webauthn.Credential{
		ID: r.ID, PublicKey: r.PublicKey, AttestationFormat: r.Format,
		Flags:         webauthn.CredentialFlags{UserPresent: true, UserVerified: true, BackupEligible: r.BackupEligible, BackupState: r.BackedUp},
		Authenticator: webauthn.Authenticator{AAGUID: r.Model, SignCount: r.Count},
	}
	for _, t := range strings.FieldsFunc(r.Transports, func(c rune) bool { return c == ',' }) {
		c.Transport = append(c.Transport, protocol.AuthenticatorTransport(t))
	}
	return c, nil
}

// userOf returns a person with their credentials; all are theirs by MAC.
func (p *Passkeys) userOf(ctx context.Context, tenant, person string, handle []byte) (*user, error) {
	all, err := p.store.List(ctx, tenant, person)
	if err != nil {
		return nil, err
	}
	u := &user{handle: handle}
	for i := range all {
		c, err := p.credentialOf(&all[i])
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(all[i].Handle, handle) && handle != nil {
			return nil, ErrForged
		}
		u.handle = all[i].Handle
		u.credentials = append(u.credentials, c)
	}
	return u, nil
}

func (p *Passkeys) now() time.Time { return p.opts.Now().Truncate(time.Millisecond).UTC() }

func (p *Passkeys) remember(ctx context.Context, c ceremony, options any) (json.RawMessage, string, error) {
	out, err := json.Marshal(options)
	if err != nil {
		return nil, "", err
	}
	value, err := json.Marshal(c)
	if err != nil {
		return nil, "", err
	}
	secret, now := rand.Text()+rand.Text(), p.now()
	if err := p.states.Put(ctx, once.Key("webauthn", secret), value, now, now.Add(p.opts.Expiry)); err != nil {
		return nil, "", err
	}
	return out, secret, nil
}

// recall uses a ceremony up.
func (p *Passkeys) recall(ctx context.Context, kind, secret string) (*ceremony, error) {
	value, err := p.states.Take(ctx, once.Key("webauthn", secret), p.now())
	if errors.Is(err, once.ErrNone) {
		return nil, ErrCeremony
	}
	if err != nil {
		return nil, err
	}
	var c ceremony
	if json.Unmarshal(value, &c) != nil || c.Kind != kind {
		return nil, ErrCeremony
	}
	return &c, nil
}

// invalid wraps what the library says of a response: its details, which hold no values of it.
func invalid(err error) error {
	var e *protocol.Error
	if errors.As(err, &e) {
		return fmt.Errorf("%w: %s", ErrInvalid, e.Type)
	}
	return ErrInvalid
}

// BeginEnrolment returns the options for navigator.credentials.create (JSON, for
// PublicKeyCredential.parseCreationOptionsFromJSON) and the ceremony's secret. Ask for a fresh proof before: who
// enrols a passkey can come back.
func (p *Passkeys) BeginEnrolment(ctx context.Context, tenant, person string, names Names) (options json.RawMessage, secret string, err error) {
	if tenant == "" || person == "" || names.Account == "" {
		return nil, "", errors.New("webauthn: nobody enrols")
	}
	var fresh [32]byte
	_, _ = rand.Read(fresh[:]) // never fails
	handle, err := p.store.Handle(ctx, tenant, person, fresh[:])
	if err != nil {
		return nil, "", err
	}
	u, err := p.userOf(ctx, tenant, person, handle)
	if err != nil {
		return nil, "", err
	}
	if len(u.credentials) >= p.opts.Most {
		return nil, "", ErrTooMany
	}
	u.names = names
	var known []protocol.CredentialDescriptor
	for i := range u.credentials {
		known = append(known, u.credentials[i].Descriptor())
	}
	creation, session, err := p.rp.BeginRegistration(u, webauthn.WithExclusions(known),
		webauthn.WithCredentialParameters(webauthn.CredentialParametersRecommendedL3()))
	if err != nil {
		return nil, "", fmt.Errorf("webauthn: %v", err)
	}
	return p.remember(ctx, ceremony{enrolment, tenant, person, *session}, creation.Response)
}

// FinishEnrolment verifies the browser's answer (PublicKeyCredential.toJSON) and keeps the credential under a name of
// at most 60 characters; "" = "passkey".
func (p *Passkeys) FinishEnrolment(ctx context.Context, secret, name string, response []byte) (*Credential, error) {
	c, err := p.finishEnrolment(ctx, secret, name, response)
	if err != nil {
		return nil, authn.Refuse(err)
	}
	return c, nil
}

func (p *Passkeys) finishEnrolment(ctx context.Context, secret, name string, response []byte) (*Credential, error) {
	c, err := p.recall(ctx, enrolment, secret)
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = "passkey"
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if len(response) > maxResponse {
		return nil, ErrInvalid
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil {
		return nil, invalid(err)
	}
	made, err := p.rp.CreateCredential(&user{handle: c.Session.UserID}, c.Session, parsed)
	if err != nil {
		return nil, invalid(err)
	}
	if !made.Flags.UserVerified || len(made.ID) == 0 || len(made.ID) > 1023 || len(made.Authenticator.AAGUID) != 16 {
		return nil, ErrInvalid
	}
	if err := p.attested(made, parsed); err != nil {
		return nil, err
	}
	r := Record{
		ID: made.ID, Tenant: c.Tenant, Person: c.Person, Handle: c.Session.UserID, PublicKey: made.PublicKey, Model: made.Authenticator.AAGUID, Format: made.AttestationFormat,
		BackupEligible: made.Flags.BackupEligible, BackedUp: made.Flags.BackupState, Count: made.Authenticator.SignCount, Created: p.now(), Transports: transports(made.Transport),
	}
	if r.Name, err = p.sealer.Seal(ctx, r.Tenant, r.Person, []byte(name), nameContext(r.ID)); err != nil {
		return nil, err
	}
	r.MAC = p.rowMAC(&r)
	if err := p.store.Add(ctx, r, p.opts.Most); err != nil {
		return nil, err
	}
	return infoOf(&r, name), nil
}

// transports keeps those that the standard knows.
func transports(all []protocol.AuthenticatorTransport) string {
	var out []string
	for _, t := range all {
		switch t {
		case protocol.USB, protocol.NFC, protocol.BLE, protocol.SmartCard, protocol.Hybrid, protocol.Internal:
			if !slices.Contains(out, string(t)) {
				out = append(out, string(t))
			}
		}
	}
	return strings.Join(out, ",")
}

// attested holds a new credential against the models that are allowed.
func (p *Passkeys) attested(c *webauthn.Credential, parsed *protocol.ParsedCredentialCreationData) error {
	if p.opts.Models == nil {
		return nil
	}
	pool, ok := p.opts.Models[[16]byte(c.Authenticator.AAGUID)]
	if !ok {
		return ErrModel
	}
	// The library has checked the statement's signature and that its first certificate names this model; that the
	// certificates lead to an authority is checked here.
	chain, _ := parsed.Response.AttestationObject.AttStatement["x5c"].([]any)
	if len(chain) == 0 {
		return ErrModel
	}
	var certs []*x509.Certificate
	for _, item := range chain {
		der, _ := item.([]byte)
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return ErrModel
		}
		certs = append(certs, cert)
	}
	between := x509.NewCertPool()
	for _, cert := range certs[1:] {
		between.AddCert(cert)
	}
	_, err := certs[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: p.now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return ErrModel
	}
	return nil
}

// BeginSignIn returns the options for navigator.credentials.get with a discoverable credential: nobody is named, so
// nothing is told about anybody.
func (p *Passkeys) BeginSignIn(ctx context.Context) (options json.RawMessage, secret string, err error) {
	assertion, session, err := p.rp.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		return nil, "", fmt.Errorf("webauthn: %v", err)
	}
	return p.remember(ctx, ceremony{Kind: signIn, Session: *session}, assertion.Response)
}

// BeginCheck returns the options for a person who is known already: a second factor, or a step-up. Errors: ErrUnknown
// when they have no credential.
func (p *Passkeys) BeginCheck(ctx context.Context, tenant, person string) (options json.RawMessage, secret string, err error) {
	u, err := p.userOf(ctx, tenant, person, nil)
	if err != nil {
		return nil, "", err
	}
	if len(u.credentials) == 0 {
		return nil, "", ErrUnknown
	}
	assertion, session, err := p.rp.BeginLogin(u, webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		return nil, "", fmt.Errorf("webauthn: %v", err)
	}
	return p.remember(ctx, ceremony{check, tenant, person, *session}, assertion.Response)
}

// FinishSignIn verifies the answer to BeginSignIn and returns the credential, whose Tenant and Person have signed in.
func (p *Passkeys) FinishSignIn(ctx context.Context, secret string, response []byte) (*Credential, error) {
	c, err := p.finish(ctx, signIn, secret, response)
	if err != nil {
		return nil, authn.Refuse(err)
	}
	return c, nil
}

// FinishCheck verifies the answer to BeginCheck. The credential is one of the person that was named then.
func (p *Passkeys) FinishCheck(ctx context.Context, secret string, response []byte) (*Credential, error) {
	c, err := p.finish(ctx, check, secret, response)
	if err != nil {
		return nil, authn.Refuse(err)
	}
	return c, nil
}

func (p *Passkeys) finish(ctx context.Context, kind, secret string, response []byte) (*Credential, error) {
	c, err := p.recall(ctx, kind, secret)
	if err != nil {
		return nil, err
	}
	if len(response) > maxResponse {
		return nil, ErrInvalid
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return nil, invalid(err)
	}
	r, err := p.store.Find(ctx, parsed.RawID)
	if err != nil {
		return nil, err
	}
	stored, err := p.credentialOf(&r)
	if err != nil {
		return nil, err
	}
	if kind == check && (r.Tenant != c.Tenant || r.Person != c.Person) {
		return nil, ErrUnknown
	}
	var verified *webauthn.Credential
	if kind == signIn {
		_, verified, err = p.rp.ValidatePasskeyLogin(func(_, handle []byte) (webauthn.User, error) {
			if !bytes.Equal(handle, r.Handle) {
				return nil, ErrUnknown
			}
			return &user{handle: r.Handle, credentials: []webauthn.Credential{stored}}, nil
		}, c.Session, parsed)
	} else {
		var u *user
		if u, err = p.userOf(ctx, r.Tenant, r.Person, r.Handle); err != nil {
			return nil, err
		}
		// A credential that was removed since the ceremony began is no longer theirs, and no reason to refuse the
		// others.
		c.Session.AllowedCredentialIDs = slices.DeleteFunc(c.Session.AllowedCredentialIDs, func(id []byte) bool {
			return !slices.ContainsFunc(u.credentials, func(have webauthn.Credential) bool { return bytes.Equal(have.ID, id) })
		})
		if len(c.Session.AllowedCredentialIDs) == 0 {
			return nil, ErrUnknown
		}
		verified, err = p.rp.ValidateLogin(u, c.Session, parsed)
	}
	if err != nil {
		return nil, invalid(err)
	}
	now := p.now()
	err = p.store.Use(ctx, r.ID, parsed.Response.AuthenticatorData.Counter, verified.Flags.BackupState, now)
	if errors.Is(err, ErrCount) {
		return nil, &ClonedError{r.Tenant, r.Person, encode(r.ID)}
	}
	if err != nil {
		return nil, err
	}
	name, err := p.name(ctx, &r)
	if err != nil {
		return nil, err
	}
	r.Used, r.BackedUp = now, verified.Flags.BackupState
	return infoOf(&r, name), nil
}

func encode(id []byte) string { return base64.RawURLEncoding.EncodeToString(id) }

func nameContext(id []byte) []byte { return append([]byte("webauthn name "), id...) }

func (p *Passkeys) name(ctx context.Context, r *Record) (string, error) {
	plain, err := p.sealer.Open(ctx, r.Tenant, r.Person, r.Name, nameContext(r.ID))
	return string(plain), err
}

func checkName(name string) error {
	if name == "" || utf8.RuneCountInString(name) > 60 || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("webauthn: a name has 1 to 60 characters")
	}
	return nil
}

func infoOf(r *Record, name string) *Credential {
	return &Credential{
		Tenant: r.Tenant, Person: r.Person, ID: encode(r.ID), Name: name, Model: [16]byte(r.Model), Synced: r.BackedUp, Created: r.Created, LastUsed: r.Used, Cloned: r.Cloned,
		Transports: strings.FieldsFunc(r.Transports, func(c rune) bool { return c == ',' }),
	}
}

// List returns the credentials of a person, the oldest first.
func (p *Passkeys) List(ctx context.Context, tenant, person string) ([]Credential, error) {
	all, err := p.store.List(ctx, tenant, person)
	if err != nil {
		return nil, err
	}
	out := make([]Credential, 0, len(all))
	for i := range all {
		if _, err := p.credentialOf(&all[i]); err != nil {
			return nil, err
		}
		name, err := p.name(ctx, &all[i])
		if err != nil {
			return nil, err
		}
		out = append(out, *infoOf(&all[i], name))
	}
	return out, nil
}

// Rename gives a credential another name. Errors: ErrUnknown.
func (p *Passkeys) Rename(ctx context.Context, tenant, person, id, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	raw, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil {
		return ErrUnknown
	}
	sealed, err := p.sealer.Seal(ctx, tenant, person, []byte(name), nameContext(raw))
	if err != nil {
		return err
	}
	return p.store.Rename(ctx, tenant, person, raw, sealed)
}

// Remove removes a credential: it signs in no more. Errors: ErrUnknown.
func (p *Passkeys) Remove(ctx context.Context, tenant, person, id string) error {
	raw, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil {
		return ErrUnknown
	}
	return p.store.Remove(ctx, tenant, person, raw)
}
