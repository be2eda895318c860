package oldtink_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"os"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/oldtink"
)

// oldKEK is the key that the old system wrapped its keysets with; encrypt/vault is one for a transit key.
type oldKEK struct{ gcm cipher.AEAD }

func (k oldKEK) Unwrap(_ context.Context, wrapped, ad []byte) ([]byte, error) {
	out, err := k.gcm.Open(nil, nil, wrapped, ad)
	if err != nil {
		return nil, keys.ErrTampered
	}
	return out, nil
}

func Example() {
	b, _ := os.ReadFile("testdata/v1.7.0.json") // written with github.com/google/tink/go v1.7.0
	var v vectors
	json.Unmarshal(b, &v)
	block, _ := aes.NewCipher(v.KEK)
	gcm, _ := cipher.NewGCMWithRandomNonce(block)
	old := v.Keysets[1]

	keyset, _ := oldtink.Import(context.Background(), old.Encrypted, oldKEK{gcm}, old.KeysetAD)
	fmt.Println(keyset.Purpose())
	text, err := keyset.Open(old.Values[3].Out, []byte("record 7"))
	fmt.Printf("%s %v\n", text, err) // now seal it under the person's key

	_, err = keyset.Open(old.Values[3].Out, []byte("record 8"))
	fmt.Println(err)
	_, err = oldtink.Import(context.Background(), old.Clear, oldKEK{gcm}, nil)
	fmt.Println(err)
	// Output:
	// AEAD
	// 张伟, 138 0013 8000 <nil>
	// encrypt: authentication failed
	// oldtink: the keyset is not encrypted; treat its keys as known to others
}
