package session

import (
	"context"
	"crypto/hmac"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"time"

	"github.com/crmguard/crmguard/authz/authn"
)

// Proof is a method that the person has shown in this session, and when last.
type Proof struct {
	Method authn.Method
	At     time.Time
}

// body is what a record's Body holds, format version 1. Times are in milliseconds.
type body struct {
	created, ends, doubted time.Time // doubted is zero when it is not
	idle                   time.Duration
	roles                  []string
	proofs                 []Proof
	sealed                 []byte // details
}

const (
	bodyVersion = 1
	macSize     = 32
	maxText     = 255 // bytes of a role or a method
	maxRoles    = 255
	maxSealed   = 1 << 16
)

// ErrForged: a stored session is not as it was written.
var ErrForged = errors.New("session: a stored session is forged or damaged")

func millis(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixMilli())
}

func fromMillis(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(n)).UTC()
}

// appendTo writes the body without its MAC.
func (b *body) appendTo(out []byte) ([]byte, error) {
	if len(b.roles) > maxRoles || len(b.proofs) > maxRoles || len(b.sealed) > maxSealed {
		return nil, errors.New("session: too many roles")
	}
	u64 := func(n uint64) { out = binary.BigEndian.AppendUint64(out, n) }
	out = append(out, bodyVersion)
	u64(millis(b.created))
	u64(millis(b.ends))
	u64(millis(b.doubted))
	u64(uint64(b.idle.Milliseconds()))
	out = append(out, byte(len(b.roles)))
	for _, r := range b.roles {
		if r == "" || len(r) > maxText {
			return nil, errors.New("session: a role of no or too many characters")
		}
		out = append(append(out, byte(len(r))), r...)
	}
	out = append(out, byte(len(b.proofs)))
	for _, p := range b.proofs {
		out = append(append(out, byte(len(p.Method))), p.Method...)
		u64(millis(p.At))
	}
	out = binary.BigEndian.AppendUint32(out, uint32(len(b.sealed)))
	return append(out, b.sealed...), nil
}

// parseBody reads what appendTo wrote; nothing else.
func parseBody(in []byte) (b body, err error) {
	defer func() {
		if recover() != nil { // a slice out of range: cut short
			b, err = body{}, ErrForged
		}
	}()
	take := func(n int) []byte {
		part := in[:n:n]
		in = in[n:]
		return part
	}
	u64 := func() uint64 {
		n := binary.BigEndian.Uint64(take(8))
		if n > math.MaxInt64/2 {
			err = ErrForged
		}
		return n
	}
	if take(1)[0] != bodyVersion {
		return body{}, ErrForged
	}
	b.created, b.ends, b.doubted = fromMillis(u64()), fromMillis(u64()), fromMillis(u64())
	idle := u64()
	b.idle = time.Duration(idle) * time.Millisecond
	if idle > uint64(math.MaxInt64/time.Millisecond) {
		return body{}, ErrForged
	}
	for range take(1)[0] {
		role := string(take(int(take(1)[0])))
		if role == "" {
			return body{}, ErrForged
		}
		b.roles = append(b.roles, role)
	}
	for range take(1)[0] {
		m := authn.Method(take(int(take(1)[0])))
		at := u64()
		if !m.Valid() {
			return body{}, ErrForged
		}
		b.proofs = append(b.proofs, Proof{m, fromMillis(at)})
	}
	n := binary.BigEndian.Uint32(take(4))
	if err != nil || n > maxSealed || int(n) != len(in) {
		return body{}, ErrForged
	}
	b.sealed = in
	return b, nil
}

// rowMAC covers every column. Seen and Expires are covered too: who could move them would keep a session alive.
func rowMAC(k keyring, r *Record, plain []byte) []byte {
	var numbers [32]byte
	binary.BigEndian.PutUint64(numbers[0:], r.Epoch)
	binary.BigEndian.PutUint64(numbers[8:], r.Version)
	binary.BigEndian.PutUint64(numbers[16:], millis(r.Seen))
	binary.BigEndian.PutUint64(numbers[24:], millis(r.Expires))
	return mac(k.row, []byte(r.Tenant), []byte(r.Person), []byte(r.ID), r.Hash, r.External, numbers[:], plain)
}

// write fills r.Body, r.Expires and the times of r in.
func (b *body) write(k keyring, r *Record) error {
	r.Seen = fromMillis(millis(r.Seen))
	r.Expires = fromMillis(millis(earlier(b.ends, r.Seen.Add(b.idle))))
	plain, err := b.appendTo(nil)
	if err != nil {
		return err
	}
	r.Body = append(plain, rowMAC(k, r, plain)...)
	return nil
}

// read checks the MAC of r under one of the keys and returns its body.
func read(ks []keyring, r *Record) (body, error) {
	if len(r.Body) < macSize {
		return body{}, ErrForged
	}
	plain, sum := r.Body[:len(r.Body)-macSize], r.Body[len(r.Body)-macSize:]
	for _, k := range ks {
		if hmac.Equal(rowMAC(k, r, plain), sum) {
			return parseBody(plain)
		}
	}
	return body{}, ErrForged
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// details are what is personal in a session.
type details struct {
	Device Device   `json:"device"`
	Stays  []stay   `json:"stays"` // the networks it was used from, the last one at the end
	Risks  []Signal `json:"risks,omitempty"`
}

// stay is a network and when the session was last used from it.
type stay struct {
	Place Place `json:"place"`
	At    int64 `json:"at"` // milliseconds since 1970
}

// Sealer keeps personal data confidential under the person that it tells of. Open answers an error for data that it
// did not seal for this tenant, person and context.
type Sealer interface {
	Seal(ctx context.Context, tenant, person string, plaintext, context []byte) ([]byte, error)
	Open(ctx context.Context, tenant, person string, sealed, context []byte) ([]byte, error)
}

// seal puts details into the body of r's session.
func (m *Manager) seal(ctx context.Context, r *Record, b *body, d details) error {
	plain, err := json.Marshal(d)
	if err != nil {
		return err
	}
	b.sealed, err = m.sealer.Seal(ctx, r.Tenant, r.Person, plain, []byte("session "+r.ID))
	return err
}

func (m *Manager) open(ctx context.Context, r *Record, b *body) (d details, err error) {
	plain, err := m.sealer.Open(ctx, r.Tenant, r.Person, b.sealed, []byte("session "+r.ID))
	if err != nil {
		return details{}, err
	}
	if err := json.Unmarshal(plain, &d); err != nil || len(d.Stays) == 0 {
		return details{}, ErrForged
	}
	return d, nil
}
