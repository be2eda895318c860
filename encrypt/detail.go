package encrypt

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
)

func checkLabel(label string) error {
	if label == "" || len(label) > 32 || label == "field" {
		return errors.New("encrypt: a label has 1 to 32 characters and is not \"field\"")
	}
	for _, c := range []byte(label) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return errors.New("encrypt: a label has letters a-z, digits, - and _")
		}
	}
	return nil
}

// Token returns the blind-index token of a normalised term: HMAC-SHA-256 under the tenant's index
// key for this type, field, kind and normaliser ("phone/1"), cut to 8 bytes.
// Errors: ErrKMSUnavailable, ErrAuth, ErrKeyMissing, ErrTampered of the key records.
func (k *Keeper) Token(ctx context.Context, tenant, typ, field, kind, normalizer, term string) (int64, error) {
	t, err := k.tenant(tenant)
	if err != nil {
		return 0, err
	}
	tk, err := k.tenantKeys(ctx, t, false)
	if err != nil {
		return 0, err
	}
	return tk.indexKey(indexRef{typ, field, kind, normalizer}).token(term), nil
}

// MAC returns 32 bytes of HMAC-SHA-256 over data under a key of the tenant's for rows and the like.
// label separates uses. Errors as for Token.
func (k *Keeper) MAC(ctx context.Context, tenant, label string, data []byte) ([]byte, error) {
	t, err := k.tenant(tenant)
	if err != nil {
		return nil, err
	}
	tk, err := k.tenantKeys(ctx, t, false)
	if err != nil {
		return nil, err
	}
	return macOf(tk.mac, labelMAC, label, string(data)), nil
}

// VerifyMAC returns ErrTampered when mac is not what MAC gives, in constant time.
func (k *Keeper) VerifyMAC(ctx context.Context, tenant, label string, data, mac []byte) error {
	want, err := k.MAC(ctx, tenant, label, data)
	if err != nil {
		return err
	}
	if !hmac.Equal(want, mac) {
		return ErrTampered
	}
	return nil
}

// detailAD is the associated data of SealFor.
func detailAD(tenant string, person [16]byte, label string, ad, head []byte) []byte {
	out := appendPart(make([]byte, 0, 128+len(ad)), labelDetail)
	out = appendPart(out, tenant)
	out = appendBytesPart(out, person[:])
	out = appendPart(out, label)
	out = appendBytesPart(out, ad)
	return appendBytesPart(out, head)
}

// SealFor seals personal details that are no field of a record (openings of the log, outbox, files)
// under the person's ordinary key, in a subkey for label: "log", "file", "outbox". ad is
// authenticated and must be given to OpenFor again. It makes the person's key when there is none.
func (k *Keeper) SealFor(ctx context.Context, tenant string, person [16]byte, label string, ad, plaintext []byte) ([]byte, error) {
	if err := checkLabel(label); err != nil {
		return nil, err
	}
	if person == ([16]byte{}) {
		return nil, errors.New("encrypt: no person")
	}
	t, err := k.tenant(tenant)
	if err != nil {
		return nil, err
	}
	number, err := k.observe(ctx, t, 0)
	if err != nil {
		return nil, err
	}
	s := slot{person: person, retention: keys.Ordinary}
	if err := k.keysFor(ctx, t, number, []*slot{&s}); err != nil {
		return nil, err
	}
	a, err := s.key.label(label)
	if err != nil {
		return nil, err
	}
	s.key.sealed.Add(1)
	out := appendHeader(make([]byte, 0, overhead+len(plaintext)), kindDetail, s.key.id)
	out = out[:headerSize+nonceSize]
	rand.Read(out[headerSize:])
	return a.Seal(out, out[headerSize:], plaintext, detailAD(tenant, person, label, ad, out[:headerSize])), nil
}

// OpenFor opens what SealFor sealed with the same tenant, person, label and ad. Errors:
// ErrTampered, ErrErased, ErrKeyMissing, ErrKMSUnavailable, ErrAuth.
func (k *Keeper) OpenFor(ctx context.Context, tenant string, person [16]byte, label string, ad, sealed []byte) ([]byte, error) {
	if err := checkLabel(label); err != nil {
		return nil, err
	}
	h, err := parseHeader(sealed)
	if err != nil || h.kind != kindDetail {
		return nil, ErrTampered
	}
	t, err := k.tenant(tenant)
	if err != nil {
		return nil, err
	}
	number, err := k.observe(ctx, t, 0)
	if err != nil {
		return nil, err
	}
	got := make(map[keys.ID]found, 1)
	if err := k.find(ctx, t, number, []keys.ID{h.key}, got); err != nil {
		return nil, err
	}
	key, err := k.keyOf(ctx, t, got, h.key, person)
	if err != nil {
		return nil, err
	}
	a, err := key.label(label)
	if err != nil {
		return nil, err
	}
	body := sealed[headerSize:]
	out, err := a.Open(nil, body[:nonceSize], body[nonceSize:], detailAD(tenant, person, label, ad, sealed[:headerSize]))
	if err != nil {
		return nil, ErrTampered
	}
	return out, nil
}

// keyOf picks a key out of what find found and checks that it is the person's.
func (k *Keeper) keyOf(ctx context.Context, t *tenant, got map[keys.ID]found, id keys.ID, person [16]byte) (*personKey, error) {
	f := got[id]
	switch {
	case f.err != nil:
		return nil, f.err
	case f.key != nil && f.key.person == person:
		return f.key, nil
	case f.key != nil:
		return nil, ErrTampered // another person's key
	case f.erased != nil:
		tk, err := k.tenantKeys(ctx, t, false)
		if err != nil {
			return nil, err
		}
		if !tk.authentic(f.erased) || !hmac.Equal(f.erased.Commitment, tk.tombOwner(t.name, id, person)) {
			return nil, fmt.Errorf("%w: tombstone", ErrTampered)
		}
		return nil, ErrErased
	}
	return nil, ErrKeyMissing
}

// secretAD is the associated data of SealTenant.
func secretAD(tenant, label string, ad, head []byte) []byte {
	out := appendPart(make([]byte, 0, 96+len(ad)), labelSecret)
	out = appendPart(out, tenant)
	out = appendPart(out, label)
	out = appendBytesPart(out, ad)
	return appendBytesPart(out, head)
}

// SealTenant seals a secret that is nobody's personal data (a password hash, a signing seed) under
// the tenant's secret key, in a subkey for label. ad is authenticated.
func (k *Keeper) SealTenant(ctx context.Context, tenant, label string, ad, plaintext []byte) ([]byte, error) {
	if err := checkLabel(label); err != nil {
		return nil, err
	}
	t, err := k.tenant(tenant)
	if err != nil {
		return nil, err
	}
	tk, err := k.tenantKeys(ctx, t, true)
	if err != nil {
		return nil, err
	}
	a, err := tk.secretAEAD(label)
	if err != nil {
		return nil, err
	}
	head := appendHeader(nil, kindSecret, tk.secretID)
	body, err := a.Encrypt(plaintext, secretAD(tenant, label, ad, head))
	if err != nil {
		return nil, errors.New("encrypt: cannot seal")
	}
	return append(head, body...), nil
}

// OpenTenant opens what SealTenant sealed with the same tenant, label and ad. Errors: ErrTampered,
// ErrKeyMissing, ErrKMSUnavailable, ErrAuth.
func (k *Keeper) OpenTenant(ctx context.Context, tenant, label string, ad, sealed []byte) ([]byte, error) {
	if err := checkLabel(label); err != nil {
		return nil, err
	}
	h, err := parseHeader(sealed)
	if err != nil || h.kind != kindSecret {
		return nil, ErrTampered
	}
	t, err := k.tenant(tenant)
	if err != nil {
		return nil, err
	}
	tk, err := k.tenantKeys(ctx, t, false)
	if err != nil {
		return nil, err
	}
	if h.key != tk.secretID {
		return nil, ErrTampered
	}
	a, err := tk.secretAEAD(label)
	if err != nil {
		return nil, err
	}
	out, err := a.Decrypt(sealed[headerSize:], secretAD(tenant, label, ad, sealed[:headerSize]))
	if err != nil {
		return nil, ErrTampered
	}
	return out, nil
}

// tombOwner is the keyed hash of the person in a tombstone.
func (tk *tenantKeys) tombOwner(tenant string, id keys.ID, person [16]byte) []byte {
	return macOf(tk.tomb, labelTombOwner, tenant, string(id[:]), string(person[:]))
}

// tombMAC authenticates a tombstone.
func (tk *tenantKeys) tombMAC(r *keys.Record) []byte {
	at := r.Created.UTC().Format(time.RFC3339)
	return macOf(tk.tomb, labelTomb, r.Tenant, string(r.ID[:]), string(r.Retention), at, string(r.Commitment))
}

func (tk *tenantKeys) authentic(r *keys.Record) bool { return hmac.Equal(r.Wrapped, tk.tombMAC(r)) }
