package audit

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit/driver"
)

// A checked head is a checkpoint and the hashes of the subtrees that make up
// its tree, so that a later run adds to it without reading what came before.
const checkedHeader = "crmguard audit head v1\n"

func (s *scan) checkedHead() []byte {
	b := []byte(checkedHeader)
	for _, h := range s.tree.subtrees() {
		b = append(append(b, h.String()...), '\n')
	}
	return append(append(b, '\n'), s.last.Note...)
}

var errStart = errors.New("audit: the given start is not a head that an earlier run has checked")

// startNote returns the checkpoint of a checked head.
func startNote(b []byte) []byte {
	_, note, _ := bytes.Cut(b, []byte("\n\n"))
	return note
}

// parseStart reads a checked head. The hashes must lead to the root that the
// checkpoint signs, so that nothing but the signature is trusted.
func parseStart(b []byte) (c Checkpoint, t edge, err error) {
	head, note, ok := bytes.Cut(b, []byte("\n\n"))
	text, ok2 := strings.CutPrefix(string(head), checkedHeader)
	if !ok || !ok2 {
		return c, t, errStart
	}
	if c, err = parseCheckpoint(note); err != nil {
		return c, t, errStart
	}
	var list []tlog.Hash
	for _, line := range strings.Split(text, "\n") {
		h, err := tlog.ParseHash(line)
		if err != nil || h.String() != line || len(list) == 64 {
			return c, t, errStart
		}
		list = append(list, h)
	}
	if !t.setSubtrees(int64(c.Size), list) {
		return c, t, errStart
	}
	if root, err := t.root(); err != nil || root != c.Root {
		return c, t, errStart
	}
	return c, t, nil
}

// resume makes the scan begin behind a checked head.
func (s *scan) resume(start []byte) error {
	c, t, err := parseStart(start)
	if err != nil {
		return err
	}
	if c.Origin != s.keys.origin || !s.keys.check(c.Note) {
		return errStart
	}
	s.id, s.chain, s.tree, s.last = c.ID, c.Chain, t, c
	s.from, s.size, s.met = c.Size, c.Size, c.Size
	for len(s.pins) > 0 && s.pins[0].Size < c.Size {
		s.pins = s.pins[1:]
	}
	return nil
}

var errPrunedStart = errors.New("audit: the log is pruned beyond the given start; it must be read from its beginning")

// junction checks that the log has the checkpoint where an earlier run ended.
func (s *scan) junction(b driver.Batch) (*fault, error) {
	if f, _, err := nextFrame(b.Data); err == nil && f.kind == kindPruned {
		return nil, errPrunedStart
	}
	if b.First+uint64(b.Count) != s.from {
		return faultAt(Reordered, s.from, "no batch ends where the earlier run ended"), nil
	}
	for data := b.Data; len(data) > 0; {
		f, rest, err := nextFrame(data)
		if errors.Is(err, errFrame) {
			break
		}
		if err != nil {
			return nil, err
		}
		if data = rest; f.kind == kindCheckpoint && len(rest) == 0 {
			c, err := parseCheckpoint(f.note)
			switch {
			case err != nil:
			case c.ID != s.id:
				return faultAt(Foreign, b.First, "the checkpoint where the earlier run ended is of another log"), nil
			case c.text() != s.last.text():
				return &fault{Forked, -1, "the log has another history than when the earlier run ended"}, nil
			default:
				if s.headAt == s.from {
					s.headOK = cosigned(s.head, f.note)
				}
				return s.pinnedUpTo(s.from), nil
			}
		}
	}
	return faultAt(Altered, b.First, "the batch where the earlier run ended is damaged"), nil
}

// batches yields what the scan has to read. When it resumes, the batch before
// its start is looked at first.
func (s *scan) batches(ctx context.Context, store driver.Store, flt **fault) iter.Seq2[driver.Batch, error] {
	if s.from == 0 {
		return store.Batches(ctx, 0)
	}
	return func(yield func(driver.Batch, error) bool) {
		first := true
		for b, err := range store.Batches(ctx, s.from-1) {
			if err == nil && first {
				first = false
				var f *fault
				if f, err = s.junction(b); f != nil {
					*flt = f
					return
				}
				if err == nil {
					continue
				}
			}
			first = false
			if !yield(b, err) {
				return
			}
		}
		if first {
			*flt = &fault{Truncated, -1, "the log is shorter than when the earlier run ended"}
		}
		if s.headAt < s.from { // it lies in what is not read
			s.headOK = s.head == nil || s.keys.check(s.head)
		}
	}
}
