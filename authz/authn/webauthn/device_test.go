package webauthn_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math/big"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

const (
	origin = "https://crm.example.com"
	rpID   = "crm.example.com"
)

// device is an authenticator in software, with the browser around it. Its fields are what an attacker turns.
type device struct {
	t      testing.TB
	id     []byte
	handle []byte
	signer crypto.Signer
	count  uint32
	model  [16]byte

	origin, rpID, kind string // of client data; kind "" = what the ceremony is
	challenge          string // "" = that of the options
	flags              byte   // besides AT
	crossOrigin        bool
	format             string // of the attestation
	attest             *attester
	noHandle           bool
	step               uint32 // that the counter goes up
	spoil              func(authData, clientData, signature []byte) (a, c, s []byte)
}

const (
	present, verified, eligible, backedUp = 0x01, 0x04, 0x08, 0x10
)

func newDevice(t testing.TB, eddsa bool) *device {
	t.Helper()
	d := &device{t: t, id: make([]byte, 32), origin: origin, rpID: rpID, flags: present | verified, format: "none", step: 1}
	rand.Read(d.id)
	var err error
	if eddsa {
		_, d.signer, err = ed25519.GenerateKey(rand.Reader)
	} else {
		d.signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *device) cbor(v any) []byte {
	d.t.Helper()
	mode, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := mode.Marshal(v)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d *device) alg() int {
	if _, ok := d.signer.(ed25519.PrivateKey); ok {
		return -8
	}
	return -7
}

func (d *device) cose() []byte {
	switch k := d.signer.Public().(type) {
	case ed25519.PublicKey:
		return d.cbor(map[int]any{1: 1, 3: -8, -1: 6, -2: []byte(k)})
	case *ecdsa.PublicKey:
		raw, err := k.Bytes()
		if err != nil {
			d.t.Fatal(err)
		}
		return d.cbor(map[int]any{1: 2, 3: -7, -1: 1, -2: raw[1:33], -3: raw[33:]})
	}
	d.t.Fatal("no such key")
	return nil
}

func sign(t testing.TB, s crypto.Signer, message []byte) []byte {
	t.Helper()
	var out []byte
	var err error
	if _, ok := s.(ed25519.PrivateKey); ok {
		out, err = s.Sign(rand.Reader, message, crypto.Hash(0))
	} else {
		sum := sha256.Sum256(message)
		out, err = s.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (d *device) authData(attested bool) []byte {
	hash := sha256.Sum256([]byte(d.rpID))
	flags := d.flags
	if attested {
		flags |= 0x40
	}
	out := append(hash[:], flags)
	out = binary.BigEndian.AppendUint32(out, d.count)
	if attested {
		out = append(out, d.model[:]...)
		out = binary.BigEndian.AppendUint16(out, uint16(len(d.id)))
		out = append(append(out, d.id...), d.cose()...)
	}
	return out
}

func (d *device) clientData(kind, challenge string) []byte {
	if d.kind != "" {
		kind = d.kind
	}
	if d.challenge != "" {
		challenge = d.challenge
	}
	out, err := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": d.origin, "crossOrigin": d.crossOrigin})
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// options is what both kinds of options have.
type options struct {
	Challenge string `json:"challenge"`
	RPID      string `json:"rpId"`
	RP        struct {
		ID string `json:"id"`
	} `json:"rp"`
	User struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"user"`
	AllowCredentials []struct {
		ID string `json:"id"`
	} `json:"allowCredentials"`
	ExcludeCredentials []struct {
		ID string `json:"id"`
	} `json:"excludeCredentials"`
	UserVerification       string `json:"userVerification"`
	Attestation            string `json:"attestation"`
	AuthenticatorSelection struct {
		UserVerification string `json:"userVerification"`
		ResidentKey      string `json:"residentKey"`
	} `json:"authenticatorSelection"`
}

func parse(t testing.TB, raw json.RawMessage) (o options) {
	t.Helper()
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// create answers navigator.credentials.create.
func (d *device) create(raw json.RawMessage) []byte {
	d.t.Helper()
	o := parse(d.t, raw)
	handle, err := base64.RawURLEncoding.DecodeString(o.User.ID)
	if err != nil {
		d.t.Fatal(err)
	}
	d.handle = handle
	auth, client := d.authData(true), d.clientData("webauthn.create", o.Challenge)
	hash := sha256.Sum256(client)
	statement := map[string]any{}
	if d.format == "packed" {
		message := append(append([]byte{}, auth...), hash[:]...)
		if d.attest != nil {
			statement = map[string]any{"alg": -7, "sig": sign(d.t, d.attest.key, message), "x5c": d.attest.chain}
		} else {
			statement = map[string]any{"alg": d.alg(), "sig": sign(d.t, d.signer, message)}
		}
	}
	if d.spoil != nil {
		auth, client, _ = d.spoil(auth, client, nil)
	}
	object := d.cbor(map[string]any{"fmt": d.format, "attStmt": statement, "authData": auth})
	out, err := json.Marshal(map[string]any{
		"id": b64(d.id), "rawId": b64(d.id), "type": "public-key", "authenticatorAttachment": "platform", "clientExtensionResults": map[string]any{},
		"response": map[string]any{"clientDataJSON": b64(client), "attestationObject": b64(object), "transports": []string{"internal", "teleport", "internal"}},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// get answers navigator.credentials.get.
func (d *device) get(raw json.RawMessage) []byte {
	d.t.Helper()
	o := parse(d.t, raw)
	d.count += d.step
	auth, client := d.authData(false), d.clientData("webauthn.get", o.Challenge)
	hash := sha256.Sum256(client)
	signature := sign(d.t, d.signer, append(append([]byte{}, auth...), hash[:]...))
	if d.spoil != nil {
		auth, client, signature = d.spoil(auth, client, signature)
	}
	response := map[string]any{"clientDataJSON": b64(client), "authenticatorData": b64(auth), "signature": b64(signature)}
	if !d.noHandle {
		response["userHandle"] = b64(d.handle)
	}
	out, err := json.Marshal(map[string]any{"id": b64(d.id), "rawId": b64(d.id), "type": "public-key", "clientExtensionResults": map[string]any{}, "response": response})
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// attester attests devices of one model.
type attester struct {
	key   *ecdsa.PrivateKey
	chain [][]byte
	root  *x509.Certificate
}

// newAttester makes an authority and a certificate of it that names a model.
func newAttester(t testing.TB, model [16]byte) *attester {
	t.Helper()
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "attestation root"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &rootKey.PublicKey, rootKey)
	if err != nil {
		t.Fatal(err)
	}
	root, _ := x509.ParseCertificate(der)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	value, err := asn1.Marshal(model[:])
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), BasicConstraintsValid: true,
		Subject:         pkix.Name{Country: []string{"GB"}, Organization: []string{"Test"}, OrganizationalUnit: []string{"Authenticator Attestation"}, CommonName: "model"},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 45724, 1, 1, 4}, Value: value}},
	}
	der, err = x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, rootKey)
	if err != nil {
		t.Fatal(err)
	}
	return &attester{key, [][]byte{der}, root}
}
