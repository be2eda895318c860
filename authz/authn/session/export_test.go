package session

import "time"

// RowOf makes a stored row of fixed values, for the golden file.
func RowOf(key []byte, token, external string, r Record, created, ends, doubted time.Time, idle time.Duration, roles []string, proofs []Proof, sealed []byte) (Record, error) {
	k, err := newKeyring(key)
	if err != nil {
		return Record{}, err
	}
	r.Hash, r.External = mac(k.token, []byte(token)), mac(k.external, []byte(external))
	b := body{created, ends, doubted, idle, roles, proofs, sealed}
	err = b.write(k, &r)
	return r, err
}

// Reread parses a body without its MAC and writes it again.
func Reread(in []byte) ([]byte, error) {
	b, err := parseBody(in)
	if err != nil {
		return nil, err
	}
	return b.appendTo(nil)
}

// MACSize is how many bytes of a row's body are its MAC.
const MACSize = macSize
