package audit

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/crmguard/crmguard/audit/driver"
)

// Limits of one event. They are part of the format.
const (
	maxEvent    = 65535   // canonical bytes
	maxOpenings = 1 << 20 // sealed openings of one event
	maxDigest   = 64
)

// Offsets of the fixed head of the canonical bytes.
const (
	eventVersion = 1
	offID        = 1
	offIndex     = offID + 16
	offTime      = offIndex + 8
	offActivity  = offTime + 8
	offOutcome   = offActivity + 1
	offDetails   = offOutcome + 1
)

// reserved refuses an event that only the log itself may write: a pruning, for one, is believed.
func (e *Event) reserved() error {
	if e.Actor == logActor && strings.HasPrefix(e.Action, logActor+".") {
		return fmt.Errorf("%w: the actor %q is the log itself", ErrInvalid, logActor)
	}
	return nil
}

func (e *Event) validate() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrInvalid, what) }
	switch {
	case e.Action == "":
		return bad("no action")
	case e.Activity > Approve:
		return bad("unknown activity")
	case e.Outcome < Allowed || e.Outcome > Aborted:
		return bad("no outcome, or an unknown one")
	case !e.Time.IsZero() && !time.Unix(0, e.Time.UnixNano()).Equal(e.Time):
		return bad("time out of range")
	case e.Ref != 0 && !e.HasRef:
		return bad("reference without HasRef")
	}
	for _, s := range [...]string{e.Action, e.Actor, e.Session, e.Tenant, e.Purpose, e.Decision, e.Policy, e.Note} {
		if !cleanText(s) {
			return bad("a text is not UTF-8 or has control characters")
		}
	}
	for _, list := range [...][]string{e.Fields, e.Controls} {
		for _, s := range list {
			if s == "" || !cleanText(s) {
				return bad("a field or control name is empty or not clean text")
			}
		}
	}
	for i := range e.Targets {
		t := &e.Targets[i]
		if t.Type == "" || !cleanText(t.Type) || !cleanText(t.ID) {
			return bad("a target has no type, or its type or id is not clean text")
		}
		if len(t.Digest) > maxDigest {
			return bad("the digest of a target is too long")
		}
	}
	for i := range e.Details {
		d := &e.Details[i]
		if d.Name == "" || !cleanText(d.Name) {
			return bad("a detail has no name, or its name is not clean text")
		}
		if !d.known {
			return bad("a detail was not made by Personal")
		}
	}
	return nil
}

// cleanText reports whether s is UTF-8 without control characters.
func cleanText[T string | []byte](s T) bool {
	ascii := true
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c < 0x20 || c == 0x7f {
			return false
		}
		if c >= 0x80 {
			ascii = false
		}
	}
	return ascii || utf8.ValidString(string(s))
}

// cleanBytes is cleanText, eight bytes at a time.
func cleanBytes(b []byte) bool {
	const ones = 0x0101010101010101
	for rest := b; ; {
		if len(rest) < 8 {
			for _, c := range rest {
				if c < 0x20 || c >= 0x7f {
					return cleanText(b)
				}
			}
			return true
		}
		// Some top bit is set when a byte is 0x80 or more, less than 0x20, or
		// 0x7f; nothing is borrowed or carried before the first such byte.
		w := binary.LittleEndian.Uint64(rest)
		if (w|(w-0x20*ones)|(w+ones))&(0x80*ones) != 0 {
			return cleanText(b)
		}
		rest = rest[8:]
	}
}

// appendEvent appends the canonical bytes of e.
func appendEvent(b []byte, id [16]byte, index uint64, e *Event) []byte {
	b = append(b, eventVersion)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint64(b, index)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time.UnixNano()))
	b = append(b, byte(e.Activity), byte(e.Outcome))
	b = binary.AppendUvarint(b, uint64(len(e.Details)))
	for i := range e.Details {
		d := &e.Details[i]
		b = appendText(b, d.Name)
		b = append(b, d.Person[:]...)
		b = append(b, d.Commitment[:]...)
	}
	for _, s := range [...]string{e.Action, e.Actor, e.Session, e.Tenant} {
		b = appendText(b, s)
	}
	b = appendTargets(b, e.Targets)
	b = appendTexts(b, e.Fields)
	for _, s := range [...]string{e.Purpose, e.Decision, e.Policy} {
		b = appendText(b, s)
	}
	b = appendTexts(b, e.Controls)
	if e.HasRef {
		b = append(b, 1)
		b = binary.BigEndian.AppendUint64(b, e.Ref)
	} else {
		b = append(b, 0)
	}
	b = binary.AppendVarint(b, e.Count)
	return appendText(b, e.Note)
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendTexts(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendText(b, s)
	}
	return b
}

func appendTargets(b []byte, list []Target) []byte {
	types := make([]string, 0, 4)
	at := func(t string) int {
		for i, s := range types {
			if s == t {
				return i
			}
		}
		return -1
	}
	for i := range list {
		if at(list[i].Type) < 0 {
			types = append(types, list[i].Type)
		}
	}
	b = appendTexts(b, types)
	b = binary.AppendUvarint(b, uint64(len(list)))
	for i := range list {
		t := &list[i]
		b = binary.AppendUvarint(b, uint64(at(t.Type)))
		if raw, ok := parseUUID(t.ID); ok {
			b = append(b, 1)
			b = append(b, raw[:]...)
		} else {
			b = append(b, 0)
			b = appendText(b, t.ID)
		}
		b = binary.AppendUvarint(b, t.Version)
		b = binary.AppendUvarint(b, uint64(len(t.Digest)))
		b = append(b, t.Digest...)
	}
	return b
}

// parseUUID takes only the lower-case form with four hyphens.
func parseUUID[T string | []byte](s T) (raw [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return raw, false
	}
	j := 0
	for i := 0; i < 36; i++ {
		c := s[i]
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			continue
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return raw, false
		}
		raw[j/2] = raw[j/2]<<4 | c
		j++
	}
	return raw, true
}

func formatUUID(raw []byte) string { return string(appendUUID(nil, raw)) }

func appendUUID(b, raw []byte) []byte {
	for i, n := range [...]int{4, 6, 8, 10, 16} {
		from := [...]int{0, 4, 6, 8, 10}[i]
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, raw[from:n])
	}
	return b
}

var errEvent = errors.New("audit: bytes are not a canonical event")

// parseEvent is the strict inverse of appendEvent: it takes no other bytes
// than appendEvent makes.
func parseEvent(b []byte) (id [16]byte, index uint64, e Event, err error) {
	if len(b) < offDetails || len(b) > maxEvent {
		return id, 0, e, errEvent
	}
	if b[0] != eventVersion {
		return id, 0, e, fmt.Errorf("%w: event version %d", driver.ErrFormat, b[0])
	}
	copy(id[:], b[offID:])
	index = binary.BigEndian.Uint64(b[offIndex:])
	e.Time = time.Unix(0, int64(binary.BigEndian.Uint64(b[offTime:]))).UTC()
	e.Activity, e.Outcome = Activity(b[offActivity]), Outcome(b[offOutcome])
	r := reader{b: b[offDetails:]}
	if n := r.count(1 + 16 + 32); n > 0 {
		e.Details = make([]Detail, n)
		for i := range e.Details {
			d := &e.Details[i]
			d.Name = r.name()
			copy(d.Person[:], r.take(16))
			copy(d.Commitment[:], r.take(32))
		}
	}
	e.Action = r.name()
	e.Actor, e.Session, e.Tenant = r.text(), r.text(), r.text()
	e.Targets = r.targets()
	e.Fields = r.names()
	e.Purpose, e.Decision, e.Policy = r.text(), r.text(), r.text()
	e.Controls = r.names()
	switch r.byte() {
	case 0:
	case 1:
		e.HasRef = true
		if raw := r.take(8); raw != nil {
			e.Ref = binary.BigEndian.Uint64(raw)
		}
	default:
		r.bad = true
	}
	u := r.uvarint()
	e.Count = int64(u >> 1)
	if u&1 != 0 {
		e.Count = ^e.Count
	}
	e.Note = r.text()
	if r.bad || len(r.b) != 0 || e.Outcome == 0 {
		return id, index, e, errEvent
	}
	return id, index, e, nil
}

// spelled reports whether parseEvent takes b, a version 1 event of at least
// offDetails bytes. It makes nothing.
func spelled(b []byte) bool {
	if len(b) > maxEvent || b[offOutcome] == 0 {
		return false
	}
	r := reader{b: b[offDetails:]}
	for range r.count(1 + 16 + 32) {
		r.skipName()
		r.take(16 + 32)
	}
	r.skipName()
	r.skipTexts(3)
	r.skipTargets()
	r.skipNames()
	r.skipTexts(3)
	r.skipNames()
	switch r.byte() {
	case 0:
	case 1:
		r.take(8)
	default:
		return false
	}
	r.uvarint()
	r.skipTexts(1)
	return !r.bad && len(r.b) == 0
}

// reader takes values from the front of b. After the first failure bad stays
// set and each method returns a zero value.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

// raw takes a text as it lies there.
func (r *reader) raw() []byte {
	var v []byte
	if len(r.b) > 0 && r.b[0] < 0x80 && int(r.b[0]) < len(r.b) && !r.bad {
		n := 1 + int(r.b[0])
		v, r.b = r.b[1:n], r.b[n:]
	} else {
		v = r.take(r.count(1))
	}
	r.bad = r.bad || !cleanBytes(v)
	return v
}

func (r *reader) skipTexts(n int) {
	for range n {
		r.raw()
	}
}

func (r *reader) skipName() { r.bad = len(r.raw()) == 0 || r.bad }

func (r *reader) skipNames() {
	for range r.count(2) {
		r.skipName()
	}
}

func (r *reader) byte() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

// uvarint takes the shortest form only.
func (r *reader) uvarint() uint64 {
	if !r.bad && len(r.b) > 0 && r.b[0] < 0x80 { // nearly all are so
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 || (n > 1 && r.b[n-1] == 0) {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count takes the length of a list whose elements need at least size bytes.
func (r *reader) count(size int) int {
	v := r.uvarint()
	if r.bad || v > uint64(len(r.b)/size) {
		r.bad = true
		return 0
	}
	return int(v)
}

func (r *reader) text() string {
	v := r.take(r.count(1))
	if !cleanText(v) {
		r.bad = true
		return ""
	}
	return string(v)
}

func (r *reader) name() string {
	s := r.text()
	r.bad = r.bad || s == ""
	return s
}

func (r *reader) names() []string {
	n := r.count(2)
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.name()
	}
	return list
}

func (r *reader) targets() []Target {
	types := r.names()
	for i, t := range types {
		for _, u := range types[:i] {
			r.bad = r.bad || t == u
		}
		if r.bad {
			return nil
		}
	}
	n := r.count(5)
	if n == 0 {
		r.bad = r.bad || len(types) > 0
		return nil
	}
	list := make([]Target, n)
	seen := 0 // types met so far: they stand in the order of first use
	for i := range list {
		t := &list[i]
		k := r.uvarint()
		if k > uint64(seen) || k >= uint64(len(types)) {
			r.bad = true
			return nil
		}
		if int(k) == seen {
			seen++
		}
		t.Type = types[k]
		switch r.byte() {
		case 0:
			t.ID = r.text()
			if _, ok := parseUUID(t.ID); ok {
				r.bad = true
			}
		case 1:
			if raw := r.take(16); raw != nil {
				t.ID = formatUUID(raw)
			}
		default:
			r.bad = true
		}
		t.Version = r.uvarint()
		if d := r.take(r.count(1)); len(d) > maxDigest {
			r.bad = true
		} else if len(d) > 0 {
			t.Digest = append([]byte(nil), d...)
		}
		if r.bad {
			return nil
		}
	}
	r.bad = r.bad || seen != len(types)
	return list
}

// skipTargets is targets for who wants to know only whether they are well
// spelled.
func (r *reader) skipTargets() {
	var space [16][]byte
	types := space[:0]
	for range r.count(2) {
		t := r.raw()
		r.bad = r.bad || len(t) == 0
		for _, u := range types {
			r.bad = r.bad || string(t) == string(u)
		}
		if r.bad {
			return
		}
		types = append(types, t)
	}
	seen := uint64(0)
	for range r.count(5) {
		k := r.uvarint()
		if r.bad || k > seen || k >= uint64(len(types)) {
			r.bad = true
			return
		}
		seen = max(seen, k+1)
		switch r.byte() {
		case 0:
			_, ok := parseUUID(r.raw())
			r.bad = r.bad || ok
		case 1:
			r.take(16)
		default:
			r.bad = true
		}
		r.uvarint()
		r.bad = len(r.take(r.count(1))) > maxDigest || r.bad
	}
	r.bad = r.bad || seen != uint64(len(types))
}
