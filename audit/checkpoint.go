package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const maxNote = 1 << 20

var errCheckpoint = errors.New("audit: bytes are not a checkpoint")

// text is the signed part of the note.
func (c *Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\nid %x\nchain %s\ntime %d\n",
		c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]), c.ID,
		base64.StdEncoding.EncodeToString(c.Chain[:]), c.Time.UnixMilli())
}

// parseCheckpoint reads a checkpoint without checking its signatures. Lines
// after the sixth belong to later versions and are kept unread.
func parseCheckpoint(msg []byte) (Checkpoint, error) {
	var c Checkpoint
	if len(msg) > maxNote {
		return c, errCheckpoint
	}
	end := bytes.Index(msg, []byte("\n\n"))
	if end < 0 {
		return c, errCheckpoint
	}
	text := string(msg[:end+1])
	lines := strings.SplitN(text, "\n", 7)
	if len(lines) < 7 || lines[0] == "" {
		return c, errCheckpoint
	}
	c.Origin = lines[0]
	size, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil || size == 0 {
		return c, errCheckpoint
	}
	c.Size = size
	if c.Root, err = tlog.ParseHash(lines[2]); err != nil {
		return c, errCheckpoint
	}
	id, ok := strings.CutPrefix(lines[3], "id ")
	raw, err := hex.DecodeString(id)
	if !ok || err != nil || len(raw) != len(c.ID) {
		return c, errCheckpoint
	}
	copy(c.ID[:], raw)
	chain, ok := strings.CutPrefix(lines[4], "chain ")
	if c.Chain, err = tlog.ParseHash(chain); !ok || err != nil {
		return c, errCheckpoint
	}
	at, ok := strings.CutPrefix(lines[5], "time ")
	ms, err := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil {
		return c, errCheckpoint
	}
	c.Time = time.UnixMilli(ms).UTC()
	if c.text()+lines[6] != text { // one spelling only
		return c, errCheckpoint
	}
	c.Note = bytes.Clone(msg)
	return c, nil
}

// keyring holds the verifier keys of one origin.
type keyring struct {
	origin string
	list   []note.Verifier
}

func newKeyring(keys []string) (*keyring, error) {
	k := &keyring{}
	for _, s := range keys {
		v, err := note.NewVerifier(strings.TrimSpace(s))
		if err != nil {
			return nil, errors.New("audit: verifier key is malformed")
		}
		if k.origin == "" {
			k.origin = v.Name()
		}
		if v.Name() != k.origin {
			return nil, errors.New("audit: verifier keys of different origins")
		}
		k.list = append(k.list, v)
	}
	if len(k.list) == 0 {
		return nil, errors.New("audit: no verifier key")
	}
	return k, nil
}

// signedBy reports whether msg has a signature line by a key of the ring,
// without checking the signature.
func (k *keyring) signedBy(msg []byte) bool {
	for line := range bytes.Lines(msg[bytes.LastIndex(msg, []byte("\n\n"))+2:]) {
		f := bytes.Fields(line)
		if len(f) != 3 || string(f[1]) != k.origin {
			continue
		}
		var sig [8]byte
		if len(f[2]) < 8 {
			continue
		}
		if _, err := base64.StdEncoding.Decode(sig[:], f[2][:8]); err != nil {
			continue
		}
		for _, v := range k.list {
			h := v.KeyHash()
			if sig[0] == byte(h>>24) && sig[1] == byte(h>>16) && sig[2] == byte(h>>8) && sig[3] == byte(h) {
				return true
			}
		}
	}
	return false
}

// check reports whether msg has a good signature by a key of the ring and no
// bad one.
func (k *keyring) check(msg []byte) bool {
	_, err := note.Open(msg, ring{k})
	return err == nil
}

// ring adapts a keyring to note.Verifiers. Keys that have the same hash are
// told apart by nothing, so the later one is lost; 32 bits make that rare, and
// it can only fail a verification.
type ring struct{ *keyring }

func (k ring) Verifier(name string, hash uint32) (note.Verifier, error) {
	for _, v := range k.list {
		if v.Name() == name && v.KeyHash() == hash {
			return v, nil
		}
	}
	return nil, &note.UnknownVerifierError{Name: name, KeyHash: hash}
}

// noteSigner adapts a Signer to note.Signer for one signature.
type noteSigner struct {
	ctx    context.Context
	key    note.Verifier
	signer Signer
}

func (s noteSigner) Name() string                    { return s.key.Name() }
func (s noteSigner) KeyHash() uint32                 { return s.key.KeyHash() }
func (s noteSigner) Sign(msg []byte) ([]byte, error) { return s.signer.Sign(s.ctx, msg) }

func signCheckpoint(ctx context.Context, c *Checkpoint, key note.Verifier, signer Signer) error {
	msg, err := note.Sign(&note.Note{Text: c.text()}, noteSigner{ctx, key, signer})
	if err != nil {
		return err
	}
	c.Note = msg
	return nil
}
