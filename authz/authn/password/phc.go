package password

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// ErrPHC refuses a text that is no Argon2id hash which a record can hold.
var ErrPHC = errors.New("password: not a PHC string of Argon2id, version 19, with a salt of 16 and a hash of 32 bytes")

// Import returns a record of a hash that another program made, for the account. phc is its PHC string:
//
//	$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH
//
// with salt and hash in base64 without padding. [Hasher.Verify] takes the record and renews it where its parameters are
// others than new ones get. A program that normalised passwords differently has to be imitated before Verify. Errors:
// [ErrPHC], the sealer's.
func (h *Hasher) Import(ctx context.Context, account, phc string) (record []byte, err error) {
	if account == "" || len(account) > maxAccount {
		return nil, errors.New("password: an account's id has 1 to 1,024 bytes")
	}
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return nil, ErrPHC
	}
	var rec hashed
	p := &rec.params
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.Memory, &p.Time, &p.Threads); err != nil ||
		parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", p.Memory, p.Time, p.Threads) || !p.valid() {
		return nil, ErrPHC
	}
	b64 := base64.RawStdEncoding.Strict()
	salt, err1 := b64.DecodeString(parts[4])
	sum, err2 := b64.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(salt) != saltSize || len(sum) != hashSize {
		return nil, ErrPHC
	}
	copy(rec.salt[:], salt)
	copy(rec.sum[:], sum)
	return h.seal(ctx, account, rec)
}
