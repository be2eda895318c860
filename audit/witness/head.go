package witness

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Head is what a checkpoint says of a log.
type Head struct {
	Origin string    // name of the log
	Size   uint64    // number of leaves
	Root   tlog.Hash // RFC 6962 root hash of them
}

var (
	errHead    = errors.New("witness: bytes are not a checkpoint")
	errRequest = errors.New("witness: bytes are not a request")
)

// ParseHead reads a C2SP checkpoint without checking its signatures.
func ParseHead(msg []byte) (Head, error) {
	h, _, err := parseHead(msg)
	return h, err
}

// parseHead also returns the signed text. There is no empty line in it, so the
// first one ends it.
func parseHead(msg []byte) (h Head, text []byte, err error) {
	end := bytes.Index(msg, []byte("\n\n"))
	if end < 0 || len(msg) > maxNote || bytes.LastIndex(msg, []byte("\n\n")) != end {
		return h, nil, errHead
	}
	text = msg[:end+1]
	lines := strings.SplitN(string(text), "\n", 4)
	if len(lines) < 4 || lines[0] == "" {
		return h, nil, errHead
	}
	h.Origin = lines[0]
	var ok bool
	if h.Size, ok = parseSize(lines[1]); !ok {
		return h, nil, errHead
	}
	if h.Root, ok = parseHash(lines[2]); !ok {
		return h, nil, errHead
	}
	if h.Size == 0 && h.Root != emptyRoot {
		return h, nil, errHead
	}
	return h, text, nil
}

var emptyRoot = tlog.Hash(sha256.Sum256(nil))

// parseSize reads a decimal in its one spelling, of 63 bits.
func parseSize(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return n, err == nil && strconv.FormatUint(n, 10) == s
}

// parseHash reads base64 in its one spelling.
func parseHash(s string) (tlog.Hash, bool) {
	h, err := tlog.ParseHash(s)
	return h, err == nil && h.String() == s
}

const (
	maxProof   = 63
	maxRequest = 96 << 10 // bytes of a request; a note has up to 90 KiB of it
	sizeType   = "text/x.tlog.size"
)

// request is the body of add-checkpoint.
type request struct {
	old   uint64
	proof []tlog.Hash
	note  []byte
}

func (r *request) bytes() []byte {
	b := fmt.Appendf(nil, "old %d\n", r.old)
	for _, h := range r.proof {
		b = append(b, h.String()...)
		b = append(b, '\n')
	}
	b = append(b, '\n')
	return append(b, r.note...)
}

func parseRequest(body []byte) (r request, err error) {
	if len(body) > maxRequest {
		return r, errRequest
	}
	for first := true; ; first = false {
		raw, rest, found := bytes.Cut(body, []byte("\n"))
		if !found {
			return r, errRequest
		}
		body = rest
		line := string(raw)
		if first {
			old, ok := strings.CutPrefix(line, "old ")
			if r.old, found = parseSize(old); !ok || !found {
				return r, errRequest
			}
			continue
		}
		if line == "" {
			r.note = body
			return r, nil
		}
		h, ok := parseHash(line)
		if !ok || len(r.proof) == maxProof {
			return r, errRequest
		}
		r.proof = append(r.proof, h)
	}
}

// consistent reports whether proof shows that the tree of size n and root h
// begins with the one of size old and root oldRoot.
func consistent(proof []tlog.Hash, n uint64, h tlog.Hash, old uint64, oldRoot tlog.Hash) bool {
	switch {
	case old == 0:
		return len(proof) == 0
	case old == n:
		return len(proof) == 0 && h == oldRoot
	}
	return tlog.CheckTree(proof, int64(n), h, int64(old), oldRoot) == nil
}
