package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const maxNote = 1 << 20

var errCheckpoint = errors.New("audit: bytes are not a checkpoint")

// appendHead appends the signed part of the note up to the time.
func (c *Checkpoint) appendHead(b []byte) []byte {
	b = append(append(b, c.Origin...), '\n')
	b = append(strconv.AppendUint(b, c.Size, 10), '\n')
	b = append(base64.StdEncoding.AppendEncode(b, c.Root[:]), "\nid "...)
	b = append(hex.AppendEncode(b, c.ID[:]), "\nchain "...)
	b = base64.StdEncoding.AppendEncode(b, c.Chain[:])
	return append(b, "\ntime "...)
}

// text is the signed part of the note.
func (c *Checkpoint) text() string {
	return string(append(strconv.AppendInt(c.appendHead(nil), c.Time.UnixMilli(), 10), '\n'))
}

// timeAfter reads the time of a note that begins with head and has no line
// after the time; ok is false for any other, which need not be wrong.
func timeAfter(msg, head []byte) (ms int64, ok bool) {
	rest, ok := bytes.CutPrefix(msg, head)
	if !ok || len(msg) > maxNote {
		return 0, false
	}
	n := 0
	for ; n < len(rest) && n < 18 && '0' <= rest[n] && rest[n] <= '9'; n++ {
		ms = 10*ms + int64(rest[n]-'0')
	}
	return ms, n > 0 && (rest[0] != '0' || n == 1) && bytes.HasPrefix(rest[n:], []byte("\n\n"))
}

// cosigned reports whether head is msg, with or without further signatures
// behind it.
func cosigned(head, msg []byte) bool {
	more, ok := bytes.CutPrefix(head, msg)
	for line := range bytes.Lines(more) {
		ok = ok && bytes.HasPrefix(line, []byte("— ")) && bytes.HasSuffix(line, []byte("\n"))
	}
	return ok
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
	hashes []uint32 // their key hashes
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
		k.hashes = append(k.hashes, v.KeyHash())
	}
	if len(k.list) == 0 {
		return nil, errors.New("audit: no verifier key")
	}
	return k, nil
}

// signedBy reports whether msg has a signature line by a key of the ring,
// without checking the signature.
func (k *keyring) signedBy(msg []byte) bool {
	rest := msg[bytes.LastIndex(msg, []byte("\n\n"))+2:]
	for len(rest) > 0 {
		line := rest
		if n := bytes.IndexByte(rest, '\n'); n >= 0 {
			line, rest = rest[:n], rest[n+1:]
		} else {
			rest = nil
		}
		line, ok := bytes.CutPrefix(line, []byte("— "))
		if !ok || len(line) < len(k.origin)+9 || string(line[:len(k.origin)]) != k.origin || line[len(k.origin)] != ' ' {
			continue
		}
		line = line[len(k.origin)+1:]
		var sig [8]byte
		if n, err := base64.StdEncoding.Decode(sig[:], line[:8]); err != nil || n < 4 { // line breaks are passed over
			continue
		}
		for _, h := range k.hashes {
			if h == binary.BigEndian.Uint32(sig[:]) {
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
