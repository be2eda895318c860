package oldtink

import (
	"context"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// templates are the key types of a data key; its size stands in the key itself.
var templates = map[string]func() *tinkpb.KeyTemplate{
	"AES-GCM":            aead.AES256GCMKeyTemplate,
	"AES-GCM-SIV":        aead.AES256GCMSIVKeyTemplate,
	"AES-CTR-HMAC":       aead.AES256CTRHMACSHA256KeyTemplate,
	"ChaCha20-Poly1305":  aead.ChaCha20Poly1305KeyTemplate,
	"XChaCha20-Poly1305": aead.XChaCha20Poly1305KeyTemplate,
}

// OpenEnvelope opens a value of Tink's KMSEnvelopeAEAD: a data key wrapped by kek, once for each value, and the text under it.
// dek is the algorithm of the template that the old code named, which the value does not tell: "AES-GCM" (of any
// size), "AES-GCM-SIV", "AES-CTR-HMAC", "ChaCha20-Poly1305" or "XChaCha20-Poly1305". Errors: keys.ErrTampered, keys.ErrAlgorithm for
// another dek, those of kek.
func OpenEnvelope(ctx context.Context, kek KEK, dek string, ciphertext, ad []byte) ([]byte, error) {
	template, ok := templates[dek]
	if !ok {
		return nil, fmt.Errorf("%w: no data key of a KMS envelope; use AES-GCM, AES-GCM-SIV, AES-CTR-HMAC, ChaCha20-Poly1305 or XChaCha20-Poly1305", keys.ErrAlgorithm)
	}
	if kek == nil {
		return nil, fmt.Errorf("oldtink: no KEK")
	}
	service := &remote{kek: kek}
	e, err := aead.NewKMSEnvelopeAEADWithContext(template(), service)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", keys.ErrAlgorithm, dek)
	}
	out, err := e.DecryptWithContext(ctx, ciphertext, ad)
	if service.err != nil {
		return nil, service.err
	}
	if err != nil {
		return nil, keys.ErrTampered
	}
	return out, nil
}
