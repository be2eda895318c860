package encrypt

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"hash"
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

// MAC returns 32 bytes of HMAC-SHA-256 over data under a key of the tenant's for rows and the like.
// label separates uses. It makes the tenant's keys when there are none.
// Errors: ErrKMSUnavailable, ErrAuth, ErrKeyMissing, ErrTampered of the key records.
func (k *Keeper) MAC(ctx context.Context, tenant, label string, data []byte) ([]byte, error) {
	return k.mac(ctx, tenant, label, data, true)
}

// VerifyMAC returns ErrTampered when mac is not what MAC gives, in constant time.
func (k *Keeper) VerifyMAC(ctx context.Context, tenant, label string, data, mac []byte) error {
	want, err := k.mac(ctx, tenant, label, data, false)
	if err != nil {
		return err
	}
	if !hmac.Equal(want, mac) {
		return ErrTampered
	}
	return nil
}

func (k *Keeper) mac(ctx context.Context, tenant, label string, data []byte, write bool) ([]byte, error) {
	t, err := k.tenant(tenant)
	if err != nil {
		return nil, err
	}
	tk, err := k.tenantKeys(ctx, t, write)
	if err != nil {
		return nil, err
	}
	h, ok := tk.macs.Get().(hash.Hash)
	if !ok {
		h = hmac.New(sha256.New, tk.mac)
	}
	b := appendPart(make([]byte, 0, 128), labelMAC)
	b = appendBytesPart(appendPart(b, label), data)
	h.Write(b)
	sum := h.Sum(b[:0])
	h.Reset()
	tk.macs.Put(h)
	return sum, nil
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
	key, err := k.ordinaryKey(ctx, tenant, person, label)
	if err != nil {
		return nil, err
	}
	a, err := key.label(label)
	if err != nil {
		return nil, err
	}
	key.sealed.Add(1)
	out := appendHeader(make([]byte, 0, overhead+len(plaintext)), kindDetail, key.id)
	out = out[:headerSize+nonceSize]
	rand.Read(out[headerSize:])
	return a.Seal(out, out[headerSize:], plaintext, detailAD(tenant, person, label, ad, out[:headerSize])), nil
}

// ordinaryKey returns the person's ordinary key to write with, and makes it when there is none.
func (k *Keeper) ordinaryKey(ctx context.Context, tenant string, person [16]byte, label string) (*personKey, error) {
	if err := checkLabel(label); err != nil {
		return nil, err
	}
	if person == ([16]byte{}) {
		return nil, errors.New("encrypt: no person")
	}
	v, err := k.enter(ctx, tenant, 0, true)
	if err != nil {
		return nil, err
	}
	slots := []slot{{person: person, retention: keys.Ordinary}}
	if err := k.keysFor(ctx, &v, slots); err != nil {
		return nil, err
	}
	return slots[0].key, nil
}

// OpenFor opens what SealFor sealed with the same tenant, person, label and ad. Errors:
// ErrTampered, ErrErased, ErrBlocked, ErrRetired, ErrKeyMissing, ErrKMSUnavailable, ErrAuth.
func (k *Keeper) OpenFor(ctx context.Context, tenant string, person [16]byte, label string, ad, sealed []byte) ([]byte, error) {
	if err := checkLabel(label); err != nil {
		return nil, err
	}
	h, err := parseHeader(sealed)
	if err != nil || h.kind != kindDetail {
		return nil, ErrTampered
	}
	v, err := k.enter(ctx, tenant, 0, false)
	if err != nil {
		return nil, err
	}
	key := k.cache.byID(v.t, &person, h.key, v.now)
	if key == nil {
		if key, err = k.keyOf(ctx, &v, h.key, person, keys.Ordinary); err != nil {
			return nil, err
		}
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
