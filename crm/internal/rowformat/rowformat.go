// Package rowformat writes and reads the body of a stored row: persons, sealed fields with their
// tokens, and the MAC. The format is docs/formats/row.md. One row has one encoding.
package rowformat

import (
	"bytes"
	"encoding/binary"

	"github.com/crmguard/crmguard/crm"
)

// version is the first byte of a body.
const version = 1

// unique is the flag of a unique token.
const unique = 1

// Append writes the body of row behind b. The row's persons behind the first and its field
// names must be in strictly ascending order.
func Append(b []byte, row *crm.Row) []byte {
	b = append(b, version)
	b = binary.AppendUvarint(b, uint64(len(row.Persons)))
	for i := range row.Persons {
		b = append(b, row.Persons[i][:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(row.Sealed)))
	for i := range row.Sealed {
		f := &row.Sealed[i]
		b = binary.AppendUvarint(b, uint64(len(f.Name)))
		b = append(b, f.Name...)
		b = binary.AppendUvarint(b, uint64(len(f.Data)))
		b = append(b, f.Data...)
		b = binary.AppendUvarint(b, uint64(len(f.Tokens)))
		for _, t := range f.Tokens {
			b = binary.BigEndian.AppendUint64(b, uint64(t.Value))
			if t.Unique {
				b = append(b, unique)
			} else {
				b = append(b, 0)
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(len(row.MAC)))
	return append(b, row.MAC...)
}

// Parse reads a body into the Persons, Sealed and MAC of row. What it sets shares no memory with b.
// Whatever Append does not write is crm.ErrDamaged, and the error says no more, for bodies come from a
// database that an attacker may write to.
func Parse(b []byte, row *crm.Row) error { return new(Parser).Parse(b, row) }

// Parser parses the bodies of many rows, which mostly have the same field names. The zero value is ready.
type Parser struct {
	names  []string // seen so far
	next   int      // the place of the name that is expected
	tokens int      // how many the last row had
}

// mostNames bounds the names that a Parser remembers.
const mostNames = 64

// name returns b as a string, the same memory for the same name.
func (ps *Parser) name(b []byte) string {
	for range ps.names {
		if ps.next >= len(ps.names) {
			ps.next = 0
		}
		n := ps.names[ps.next]
		ps.next++
		if n == string(b) {
			return n
		}
	}
	n := string(b)
	if len(ps.names) < mostNames {
		ps.names = append(ps.names, n)
	}
	return n
}

// Parse is the function Parse.
func (ps *Parser) Parse(b []byte, row *crm.Row) error {
	p := parser{b: bytes.Clone(b)}
	if len(p.b) == 0 || p.b[0] != version {
		return crm.ErrDamaged
	}
	p.b = p.b[1:]
	var persons []crm.UUID
	n := p.count(len(crm.UUID{}))
	if n > 0 {
		persons = make([]crm.UUID, 0, n)
	}
	for range n {
		id := crm.UUID(p.take(len(crm.UUID{})))
		if n := len(persons); n > 0 && id == persons[0] || n > 1 && bytes.Compare(persons[n-1][:], id[:]) >= 0 {
			return crm.ErrDamaged
		}
		persons = append(persons, id)
	}
	var sealed []crm.SealedField
	if n = p.count(3); n > 0 {
		sealed = make([]crm.SealedField, 0, n)
	}
	var tokens []crm.Token // of all fields, in few pieces
	total := 0
	for range n {
		f := crm.SealedField{Name: ps.name(p.take(p.count(1)))}
		f.Data = p.take(p.count(1))
		n := p.count(9)
		total += n
		if n > cap(tokens)-len(tokens) {
			tokens = make([]crm.Token, 0, max(n, ps.tokens))
		}
		if n > 0 {
			at := len(tokens)
			tokens = tokens[:at+n]
			f.Tokens = tokens[at : at+n : at+n]
		}
		for i := range f.Tokens {
			t := p.take(9)
			if t == nil || t[8] > unique {
				return crm.ErrDamaged
			}
			f.Tokens[i] = crm.Token{Value: int64(binary.BigEndian.Uint64(t)), Unique: t[8] == unique}
		}
		if n := len(sealed); p.bad || n > 0 && sealed[n-1].Name >= f.Name {
			return crm.ErrDamaged
		}
		sealed = append(sealed, f)
	}
	mac := p.take(p.count(1))
	if p.bad || len(p.b) != 0 {
		return crm.ErrDamaged
	}
	ps.tokens = total
	row.Persons, row.Sealed, row.MAC = persons, sealed, mac
	return nil
}

// parser takes pieces off the front of b until one is missing.
type parser struct {
	b   []byte
	bad bool
}

// count reads a number of things that take at least size bytes each, in its shortest form.
func (p *parser) count(size int) int {
	v, n := binary.Uvarint(p.b)
	if p.bad || n <= 0 || n > 1 && p.b[n-1] == 0 || v > uint64(len(p.b)-n)/uint64(size) {
		p.bad, p.b = true, nil
		return 0
	}
	p.b = p.b[n:]
	return int(v)
}

// take returns the next n bytes, nil for none.
func (p *parser) take(n int) []byte {
	if p.bad || n > len(p.b) {
		p.bad, p.b = true, nil
		return nil
	}
	if n == 0 {
		return nil
	}
	t := p.b[:n:n]
	p.b = p.b[n:]
	return t
}
