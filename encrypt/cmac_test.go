package encrypt

import (
	"encoding/binary"
	"encoding/hex"
	"testing"
)

// TestCMAC checks the tokens' function against NIST SP 800-38B, examples D.3 (AES-256), and its subkeys.
func TestCMAC(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const all = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
	x := newIndexKey(unhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"), 64)
	if got := hex.EncodeToString(x.k1[:]); got != "cad1ed03299eedac2e9a99808621502f" {
		t.Errorf("K1 is %s", got)
	}
	if got := hex.EncodeToString(x.k2[:]); got != "95a3da06533ddb585d3533010c42a0d9" {
		t.Errorf("K2 is %s", got)
	}
	for _, tc := range []struct {
		size int
		want string
	}{
		{0, "028962f61b7bf89efc6b551f4667d983"},
		{16, "28a7023f452e8f82bd4bf28d8c37c35c"},
		{40, "aaf3d8f1de5640c232f5b169b9c911e6"},
		{64, "e1992190549f6ed5696a2c056c315410"},
	} {
		sc := scratches.Get().(*scratch)
		var got [8]byte
		binary.BigEndian.PutUint64(got[:], x.mac(sc, unhex(all)[:tc.size]))
		if hex.EncodeToString(got[:]) != tc.want[:16] {
			t.Errorf("%d bytes: %x, want %s", tc.size, got, tc.want[:16])
		}
		if token := x.token(sc, string(unhex(all)[:tc.size])); uint64(token) != binary.BigEndian.Uint64(unhex(tc.want)) {
			t.Errorf("%d bytes: token %x", tc.size, token)
		}
		sc.free()
	}
}
