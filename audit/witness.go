package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// algCosignature is the type of a C2SP tlog-cosignature by Ed25519, version 1.
const algCosignature = 0x04

// witness is one that signs heads of the log.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

// parseWitness reads a verifier key "name+hash+base64(0x04 || public key)".
func parseWitness(vkey string) (w witness, err error) {
	bad := errors.New("audit: the key of a witness is malformed")
	f := strings.SplitN(strings.TrimSpace(vkey), "+", 3)
	if len(f) != 3 || f[0] == "" || strings.ContainsAny(f[0], " \t\r\n") || len(f[1]) != 8 {
		return w, bad
	}
	hash, err := strconv.ParseUint(f[1], 16, 32)
	if err != nil {
		return w, bad
	}
	raw, err := base64.StdEncoding.DecodeString(f[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != algCosignature {
		return w, bad
	}
	sum := sha256.Sum256(append([]byte(f[0]+"\n"), raw...))
	if binary.BigEndian.Uint32(sum[:]) != uint32(hash) {
		return w, bad
	}
	return witness{f[0], uint32(hash), raw[1:]}, nil
}

// parseWitnesses reads the keys of witnesses and how many must sign.
func parseWitnesses(vkeys []string, quorum int) ([]witness, error) {
	if quorum < 0 || quorum > len(vkeys) {
		return nil, errors.New("audit: the quorum is larger than the number of witnesses")
	}
	var list []witness
	for _, k := range vkeys {
		w, err := parseWitness(k)
		if err != nil {
			return nil, err
		}
		for _, o := range list {
			if o.name == w.name || o.key.Equal(w.key) {
				return nil, errors.New("audit: a witness is given twice")
			}
		}
		list = append(list, w)
	}
	return list, nil
}

// signed reports whether a checkpoint has a good signature of the witness.
func (w *witness) signed(msg []byte) bool {
	end := bytes.LastIndex(msg, []byte("\n\n"))
	if end < 0 {
		return false
	}
	text := msg[:end+1]
	for line := range bytes.Lines(msg[end+2:]) {
		rest, ok := bytes.CutPrefix(line, []byte("— "+w.name+" "))
		if !ok {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(string(bytes.TrimSuffix(rest, []byte("\n"))))
		if err != nil || bytes.ContainsRune(rest, '\r') || len(raw) != 4+8+ed25519.SignatureSize || binary.BigEndian.Uint32(raw) != w.hash {
			continue
		}
		sec := binary.BigEndian.Uint64(raw[4:])
		if sec > math.MaxInt64 {
			continue
		}
		if ed25519.Verify(w.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", sec, text), raw[12:]) {
			return true
		}
	}
	return false
}

// countWitnesses returns how many of list have signed a checkpoint.
func countWitnesses(list []witness, msg []byte) (n int) {
	for i := range list {
		if list[i].signed(msg) {
			n++
		}
	}
	return n
}
