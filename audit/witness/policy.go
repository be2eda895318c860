package witness

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// ErrQuorum says that too few witnesses have signed.
var ErrQuorum = errors.New("witness: too few witnesses have signed")

const maxPolicy = 64 // lines of each kind

// Policy says which logs are known and which witnesses have to sign.
type Policy struct {
	Logs      []PolicyLog     // in the order of the file; may be empty
	Witnesses []PolicyWitness // in the order of the file
	groups    map[string]group
	quorum    string // of a witness or a group; "none"
}

// PolicyLog is a log of a policy.
type PolicyLog struct {
	Origin string // name of the log and of its key
	Key    string // verifier key in the encoding of a signed note
	URL    string // "" when none is given
}

// PolicyWitness is a witness of a policy.
type PolicyWitness struct {
	Name string // in the file alone
	Key  Key
	URL  string // submission prefix; "" when none is given
}

type group struct {
	need    int
	members []string
}

// ParsePolicy reads a C2SP tlog-policy file:
//
//	log <vkey> [<url>]
//	witness <name> <vkey> [<url>]
//	group <name> all|any|<k> <name>...
//	quorum <name>|none
//
// Logs have Ed25519 keys (type 0x01) and witnesses Ed25519 cosigner keys (type
// 0x04). An error names the line.
func ParsePolicy(text []byte) (*Policy, error) {
	p := &Policy{groups: map[string]group{}}
	known := map[string]bool{"none": true} // true: taken as a name
	member := map[string]bool{}
	var keys [2]map[[32]byte]bool
	keys[0], keys[1] = map[[32]byte]bool{}, map[[32]byte]bool{}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		return nil, errors.New("witness: policy: the last line has no end")
	}
	n := 0
	for raw := range bytes.Lines(text) {
		n++
		fail := func(why string) (*Policy, error) { return nil, fmt.Errorf("witness: policy: line %d: %s", n, why) }
		raw = raw[:len(raw)-1]
		for _, c := range raw {
			if c != '\t' && (c < 0x20 || c == 0x7f) {
				return fail("a control character")
			}
		}
		f := strings.FieldsFunc(string(raw), func(r rune) bool { return r == ' ' || r == '\t' })
		if len(f) == 0 || f[0][0] == '#' {
			continue
		}
		switch {
		case f[0] == "log" && (len(f) == 2 || len(f) == 3):
			v, err := note.NewVerifier(f[1])
			if err != nil {
				return fail("not the key of a log")
			}
			id := keyID(f[1])
			if keys[0][id] || len(p.Logs) == maxPolicy {
				return fail("a log twice, or too many")
			}
			keys[0][id] = true
			p.Logs = append(p.Logs, PolicyLog{Origin: v.Name(), Key: f[1], URL: optional(f, 2)})
		case f[0] == "witness" && (len(f) == 3 || len(f) == 4):
			k, err := ParseKey(f[2])
			if err != nil {
				return fail("not the key of an Ed25519 witness")
			}
			if known[f[1]] {
				return fail("a name twice")
			}
			id := keyID(f[2])
			if keys[1][id] || len(p.Witnesses) == maxPolicy {
				return fail("a witness twice, or too many")
			}
			keys[1][id] = true
			known[f[1]] = true
			p.Witnesses = append(p.Witnesses, PolicyWitness{Name: f[1], Key: k, URL: optional(f, 3)})
		case f[0] == "group" && len(f) >= 4:
			g := group{members: f[3:]}
			switch f[2] {
			case "all":
				g.need = len(g.members)
			case "any":
				g.need = 1
			default:
				k, ok := parseSize(f[2])
				if !ok || k < 1 || k > uint64(len(g.members)) {
					return fail("the threshold is not between 1 and the number of members")
				}
				g.need = int(k)
			}
			if known[f[1]] {
				return fail("a name twice")
			}
			for _, m := range g.members {
				if m == "none" || !known[m] {
					return fail("a member that is not defined before")
				}
				if member[m] {
					return fail("a member twice")
				}
				member[m] = true
			}
			if len(p.groups) == maxPolicy {
				return fail("too many groups")
			}
			known[f[1]] = true
			p.groups[f[1]] = g
		case f[0] == "quorum" && len(f) == 2:
			if p.quorum != "" {
				return fail("a second quorum")
			}
			if !known[f[1]] {
				return fail("a quorum that is not defined before")
			}
			p.quorum = f[1]
		default:
			return fail("not a line of a policy")
		}
	}
	if p.quorum == "" {
		return nil, errors.New("witness: policy: no quorum")
	}
	return p, nil
}

func optional(f []string, i int) string {
	if i < len(f) {
		return f[i]
	}
	return ""
}

// keyID names the public key in a well-formed verifier key, whatever its name.
func keyID(vkey string) [32]byte {
	part := strings.SplitN(vkey, "+", 3)
	raw, _ := base64.StdEncoding.DecodeString(part[2])
	return sha256.Sum256(raw[1:])
}

// Check checks a note: it is signed by a log of the policy, when the policy
// lists any, under the origin of that log; no signature by a known key is
// wrong; and the witnesses are a quorum. It returns the cosignatures also with
// ErrQuorum.
func (p *Policy) Check(msg []byte) ([]Cosignature, error) {
	if err := p.checkLog(msg); err != nil {
		return nil, err
	}
	list, err := Cosignatures(msg, p.keys()...)
	if err != nil {
		return nil, err
	}
	if !p.met(list) {
		return list, ErrQuorum
	}
	return list, nil
}

func (p *Policy) keys() (keys []Key) {
	for _, w := range p.Witnesses {
		keys = append(keys, w.Key)
	}
	return keys
}

// met reports whether the witnesses in list are a quorum.
func (p *Policy) met(list []Cosignature) bool {
	var count func(name string) bool
	count = func(name string) bool {
		if g, ok := p.groups[name]; ok {
			n := 0
			for _, m := range g.members {
				if count(m) {
					n++
				}
			}
			return n >= g.need
		}
		i := slices.IndexFunc(p.Witnesses, func(w PolicyWitness) bool { return w.Name == name })
		return i >= 0 && slices.ContainsFunc(list, func(c Cosignature) bool { return bytes.Equal(c.Key.pub, p.Witnesses[i].Key.pub) })
	}
	return p.quorum == "none" || count(p.quorum)
}

// ErrLog says that a checkpoint is not signed by a known log.
var ErrLog = errors.New("witness: the checkpoint is not signed by a known log")

// checkLog checks the signature of the log when the policy lists logs.
func (p *Policy) checkLog(msg []byte) error {
	h, err := ParseHead(msg)
	if err != nil {
		return err
	}
	if len(p.Logs) == 0 {
		return nil
	}
	var list []note.Verifier
	for _, l := range p.Logs {
		if l.Origin == h.Origin {
			v, err := note.NewVerifier(l.Key)
			if err != nil {
				return ErrLog // cannot be: it was parsed
			}
			list = append(list, v)
		}
	}
	return signedBy(msg, list)
}

// signedBy checks that msg has a good signature by one of the keys, and no
// wrong one.
func signedBy(msg []byte, list []note.Verifier) error {
	n, err := openNote(msg, logKeys(list))
	if err != nil {
		return err
	}
	if len(n.Sigs) == 0 {
		return ErrLog
	}
	return nil
}

// logKeys are verifiers of which two may have the same hash: the first counts.
type logKeys []note.Verifier

func (l logKeys) Verifier(name string, hash uint32) (note.Verifier, error) {
	for _, v := range l {
		if v.Name() == name && v.KeyHash() == hash {
			return v, nil
		}
	}
	return nil, &note.UnknownVerifierError{Name: name, KeyHash: hash}
}
