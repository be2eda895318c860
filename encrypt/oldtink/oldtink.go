package oldtink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/aesctrhmac"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcmsiv"
	"github.com/tink-crypto/tink-go/v2/aead/chacha20poly1305"
	"github.com/tink-crypto/tink-go/v2/aead/xchacha20poly1305"
	"github.com/tink-crypto/tink-go/v2/daead"
	"github.com/tink-crypto/tink-go/v2/daead/aessiv"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
	"github.com/tink-crypto/tink-go/v2/mac/aescmac"
	"github.com/tink-crypto/tink-go/v2/mac/hmac"
	"github.com/tink-crypto/tink-go/v2/streamingaead"
	streamctr "github.com/tink-crypto/tink-go/v2/streamingaead/aesctrhmac"
	streamgcm "github.com/tink-crypto/tink-go/v2/streamingaead/aesgcmhkdf"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// KEK opens what the old system's key service wrapped: every keys.KEK does, encrypt/vault among them
// when it is given the old transit key. It returns keys.ErrTampered for what it did not wrap.
type KEK interface {
	Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error)
}

// Keyset opens values of one purpose.
type Keyset struct {
	purpose       string
	aead          tink.AEAD
	deterministic tink.DeterministicAEAD
	mac           tink.MAC
	streaming     tink.StreamingAEAD
}

const maxKeyset = 1 << 20

var (
	errForm  = errors.New("oldtink: not a keyset of Tink")
	errClear = errors.New("oldtink: the keyset is not encrypted; treat its keys as known to others")
)

// Import reads an encrypted keyset, binary or JSON, and opens it with kek. ad is the associated data that it was written with, nil
// for most; nil too when Tink's old Vault client wrote it, which passed them to no cipher. A keyset in the clear is refused before kek is
// asked: see InsecureImportCleartext. Errors: keys.ErrTampered, keys.ErrAlgorithm, those of kek, a wrong form.
func Import(ctx context.Context, encrypted []byte, kek KEK, ad []byte) (*Keyset, error) {
	if kek == nil {
		return nil, errors.New("oldtink: no KEK")
	}
	if len(encrypted) > maxKeyset {
		return nil, errForm
	}
	if isClear(encrypted) {
		return nil, errClear
	}
	service := &remote{kek: kek}
	h, err := keyset.ReadWithContext(ctx, reader(encrypted), service, ad)
	switch {
	case service.err != nil:
		return nil, service.err
	case err != nil && service.asked:
		return nil, keys.ErrTampered
	case err != nil:
		return nil, errForm
	}
	return newKeyset(h)
}

// InsecureImportCleartext reads a keyset that nothing protects, binary or JSON. Use it for test data, or to save what
// was sealed under a key that lay open; seal that again under new keys. Errors: keys.ErrAlgorithm, a wrong form.
func InsecureImportCleartext(clear []byte) (*Keyset, error) {
	if len(clear) > maxKeyset || !isClear(clear) {
		return nil, errForm
	}
	h, err := insecurecleartextkeyset.Read(reader(clear))
	if err != nil {
		return nil, errForm
	}
	return newKeyset(h)
}

// reader reads either form. A binary keyset never begins with a brace.
func reader(b []byte) keyset.Reader {
	if t := bytes.TrimSpace(b); len(t) > 0 && t[0] == '{' {
		return keyset.NewJSONReader(bytes.NewReader(b))
	}
	return keyset.NewBinaryReader(bytes.NewReader(b))
}

// isClear tells whether b holds keys in the clear: it parses as a keyset, with a key that names its type.
func isClear(b []byte) bool {
	ks, err := reader(b).Read()
	if err != nil {
		return false
	}
	for _, k := range ks.GetKey() {
		if k.GetKeyData().GetTypeUrl() != "" {
			return true
		}
	}
	return false
}

// remote asks the KEK and keeps its error, which Tink would hide.
type remote struct {
	kek   KEK
	asked bool
	err   error
}

func (r *remote) DecryptWithContext(ctx context.Context, ciphertext, ad []byte) ([]byte, error) {
	r.asked = true
	out, err := r.kek.Unwrap(ctx, ciphertext, ad)
	switch {
	case errors.Is(err, keys.ErrTampered):
		r.err = keys.ErrTampered
	case err != nil:
		r.err = fmt.Errorf("oldtink: the KEK does not answer: %w", err)
	}
	return out, err
}

func (r *remote) EncryptWithContext(context.Context, []byte, []byte) ([]byte, error) {
	return nil, errors.New("oldtink: nothing is sealed here")
}

// The purposes of keysets.
const (
	forAEAD          = "AEAD"
	forDeterministic = "deterministic AEAD"
	forMAC           = "MAC"
	forStreaming     = "streaming AEAD"
)

// purposeOf says what a key is for and whether it stands on SHA-1.
func purposeOf(key any) (purpose string, sha1 bool) {
	switch k := key.(type) {
	case *aesgcm.Key, *aesgcmsiv.Key, *chacha20poly1305.Key, *xchacha20poly1305.Key:
		return forAEAD, false
	case *aesctrhmac.Key:
		p, ok := k.Parameters().(*aesctrhmac.Parameters)
		return forAEAD, !ok || p.HashType() == aesctrhmac.SHA1
	case *aessiv.Key:
		return forDeterministic, false
	case *aescmac.Key:
		return forMAC, false
	case *hmac.Key:
		p, ok := k.Parameters().(*hmac.Parameters)
		return forMAC, !ok || p.HashType() == hmac.SHA1
	case *streamgcm.Key:
		p, ok := k.Parameters().(*streamgcm.Parameters)
		return forStreaming, !ok || p.HKDFHashType() == streamgcm.SHA1
	case *streamctr.Key:
		p, ok := k.Parameters().(*streamctr.Parameters)
		return forStreaming, !ok || p.HkdfHashType() == streamctr.SHA1 || p.HmacHashType() == streamctr.SHA1
	}
	return "", false
}

func newKeyset(h *keyset.Handle) (*Keyset, error) {
	ks := &Keyset{}
	for i := range h.Len() {
		e, err := h.Entry(i)
		if err != nil {
			return nil, errForm
		}
		if e.KeyStatus() != keyset.Enabled {
			continue
		}
		purpose, sha1 := purposeOf(e.Key())
		switch {
		case sha1:
			return nil, fmt.Errorf("%w: a key stands on SHA-1, whose collisions have been made; open it with the old system and seal anew", keys.ErrAlgorithm)
		case purpose == "":
			return nil, fmt.Errorf("%w: the keyset has a key of a kind that is not opened here (KMS envelope, signature, hybrid and others); for values of a KMS envelope use OpenEnvelope", keys.ErrAlgorithm)
		case ks.purpose != "" && ks.purpose != purpose:
			return nil, errForm
		}
		ks.purpose = purpose
	}
	var err error
	switch ks.purpose {
	case forAEAD:
		ks.aead, err = aead.New(h)
	case forDeterministic:
		ks.deterministic, err = daead.New(h)
	case forMAC:
		ks.mac, err = mac.New(h)
	case forStreaming:
		ks.streaming, err = streamingaead.New(h)
	default:
		return nil, errForm
	}
	if err != nil {
		return nil, errForm
	}
	return ks, nil
}

// Purpose says what the keyset is for: "AEAD", "deterministic AEAD", "MAC" or "streaming AEAD".
func (ks *Keyset) Purpose() string { return ks.purpose }

func (ks *Keyset) other(purpose string) error {
	return fmt.Errorf("%w: the keyset is for %s, not for %s", keys.ErrAlgorithm, ks.purpose, purpose)
}

// Open opens a ciphertext of an AEAD keyset. Errors: keys.ErrTampered, keys.ErrAlgorithm for another purpose.
func (ks *Keyset) Open(ciphertext, ad []byte) ([]byte, error) {
	if ks.aead == nil {
		return nil, ks.other(forAEAD)
	}
	out, err := ks.aead.Decrypt(ciphertext, ad)
	if err != nil {
		return nil, keys.ErrTampered
	}
	return out, nil
}

// OpenDeterministic opens a ciphertext of a deterministic keyset. Errors: keys.ErrTampered, keys.ErrAlgorithm for another
// purpose.
func (ks *Keyset) OpenDeterministic(ciphertext, ad []byte) ([]byte, error) {
	if ks.deterministic == nil {
		return nil, ks.other(forDeterministic)
	}
	out, err := ks.deterministic.DecryptDeterministically(ciphertext, ad)
	if err != nil {
		return nil, keys.ErrTampered
	}
	return out, nil
}

// SealDeterministic gives the ciphertext that the primary key of a deterministic keyset makes, to find a row whose column has not
// been moved yet; blind indexes take its place. Values that an older key sealed are not found by it. Error:
// keys.ErrAlgorithm for another purpose.
func (ks *Keyset) SealDeterministic(plaintext, ad []byte) ([]byte, error) {
	if ks.deterministic == nil {
		return nil, ks.other(forDeterministic)
	}
	out, err := ks.deterministic.EncryptDeterministically(plaintext, ad)
	if err != nil {
		return nil, errors.New("oldtink: cannot seal")
	}
	return out, nil
}

// VerifyMAC returns nil when tag is the MAC of data under a key of a MAC keyset. Errors: keys.ErrTampered,
// keys.ErrAlgorithm for another purpose.
func (ks *Keyset) VerifyMAC(tag, data []byte) error {
	if ks.mac == nil {
		return ks.other(forMAC)
	}
	if err := ks.mac.VerifyMAC(tag, data); err != nil {
		return keys.ErrTampered
	}
	return nil
}

// OpenStream returns a reader of what a streaming keyset sealed into r. What it hands out is authentic, but complete only at
// io.EOF: a truncated stream fails at its end. Errors of the reader: keys.ErrTampered, those of r. Error:
// keys.ErrAlgorithm for another purpose.
func (ks *Keyset) OpenStream(r io.Reader, ad []byte) (io.Reader, error) {
	if ks.streaming == nil {
		return nil, ks.other(forStreaming)
	}
	src := &source{r: r}
	inner, err := ks.streaming.NewDecryptingReader(src, ad)
	if err != nil {
		return nil, keys.ErrTampered
	}
	return &opener{src: src, r: inner}, nil
}

// source keeps an error of the underlying reader, which Tink would hide.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// opener has one answer to every failure, and keeps to it.
type opener struct {
	src *source
	r   io.Reader
	err error
}

func (o *opener) Read(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := o.r.Read(p)
	switch {
	case err == nil:
	case err == io.EOF && o.src.err == nil:
		o.err = io.EOF
	case o.src.err != nil:
		o.err = o.src.err
	default:
		o.err = keys.ErrTampered
	}
	return n, o.err
}
