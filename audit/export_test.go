package audit

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
)

// What the tests outside the package need of the parsers.

type Frame struct {
	Kind            byte
	Chain           [sha256.Size]byte
	Event, Openings []byte
	Note            []byte
}

func NextFrame(b []byte) (Frame, []byte, error) {
	f, rest, err := nextFrame(b)
	return Frame{f.kind, f.chain, f.event, f.openings, f.note}, rest, err
}

func ParseEvent(b []byte) ([16]byte, uint64, Event, error) { return parseEvent(b) }

func AppendEvent(id [16]byte, index uint64, e Event) []byte { return appendEvent(nil, id, index, &e) }

func ParseCheckpoint(b []byte) (Checkpoint, error) { return parseCheckpoint(b) }

func CheckpointText(c Checkpoint) string { return c.text() }

func SealFrame(b []byte) { sealFrame(b) }

func SplitOpenings(b []byte) ([][]byte, bool) { return splitOpenings(b) }

func Commit(salt []byte, name string, person [16]byte, value []byte) [32]byte {
	return commit(salt, name, person, value)
}

// TestIndex is the index alone.
type TestIndex struct{ x *index }

func NewTestIndex() TestIndex { return TestIndex{newIndex()} }

func (x TestIndex) Add(n uint64, keys []uint64)             { x.x.add(n, int64(n), keys) }
func (x TestIndex) Floor() uint64                           { return x.x.floor() }
func (x TestIndex) Bytes() int                              { return x.x.bytes }
func (x TestIndex) Before(key, n uint64) (from, end uint64) { return x.x.before(key, n) }

// ReceiptText parses a receipt and spells it again.
func ReceiptText(b []byte) (string, error) {
	r, err := parseReceipt(b)
	if err != nil {
		return "", err
	}
	s := proofHeader + "extra " + base64.StdEncoding.EncodeToString(r.extra) + "\nindex " + strconv.FormatUint(r.index, 10) + "\n"
	for _, h := range r.proof {
		s += h.String() + "\n"
	}
	return s + "\n" + string(r.note), nil
}

// StartText parses a checked head and spells it again.
func StartText(b []byte) (string, error) {
	c, t, err := parseStart(b)
	if err != nil {
		return "", err
	}
	s := scan{tree: t, last: c}
	return string(s.checkedHead()), nil
}

func AppendPruned(b []byte, id [16]byte, leaves []byte) []byte { return appendPruned(b, id, leaves) }

// Spelled is for bytes with the head of an event.
func Spelled(b []byte) bool { return spelled(b) }
