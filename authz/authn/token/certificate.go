package token

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net/netip"

	"github.com/crmguard/crmguard/authz/authn"
)

// certificateID names the public key of a certificate: of its SHA-256 80 bits, which find the row; the row's hash
// covers all of it.
func certificateID(spki [32]byte) string { return "spki-" + hex.EncodeToString(spki[:10]) }

// Bind ties the public key (SubjectPublicKeyInfo) of a client certificate to a grant. Errors: *InvalidError,
// ErrExists when that key is or was bound: a key that was revoked never comes back.
func (m *Manager) Bind(ctx context.Context, g Grant, cert *x509.Certificate) (*Info, error) {
	if err := g.check(m.now()); err != nil {
		return nil, err
	}
	if cert == nil || len(cert.RawSubjectPublicKeyInfo) == 0 {
		return nil, &InvalidError{"certificate"}
	}
	spki := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	r := m.record(g, certificateID(spki))
	if err := m.add(ctx, r, string(spki[:])); err != nil {
		return nil, err
	}
	return infoOf(&r), nil
}

// VerifyCertificate returns what the client certificate of a TLS connection opens. The server must have verified it
// against its own authorities (tls.Config.ClientAuth VerifyClientCertIfGiven or RequireAndVerifyClientCert); one that
// was only sent is refused. The certificate has to be valid now, not only when the connection began.
func (m *Manager) VerifyCertificate(ctx context.Context, state *tls.ConnectionState, addr netip.Addr) (*Info, error) {
	if state == nil || !state.HandshakeComplete || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return nil, authn.Refuse(ErrUnverified)
	}
	leaf := state.VerifiedChains[0][0]
	if now := m.now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return nil, authn.Refuse(ErrExpired)
	}
	spki := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	i, err := m.verify(ctx, certificateID(spki), string(spki[:]), addr)
	if err != nil {
		return nil, authn.Refuse(err)
	}
	return i, nil
}
