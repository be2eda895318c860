package audit

import (
	"encoding/binary"
	"hash/maphash"
	"math"
)

// index finds the events of an actor, an action or a target without reading
// the log. It is built when the log is opened and grows with it, in
// generations; when it holds more than indexBytes the oldest generation goes,
// and queries that reach further back read the log. Keys are 64-bit hashes, so
// each hit is checked against its event.
const (
	indexBytes   = 64 << 20        // estimated, of all generations
	genBytes     = indexBytes / 16 // of one
	keyBytes     = 90              // estimated cost of a new key
	postingBytes = 4               // estimated cost of a posting
	blockEvents  = 1024            // events whose time range is kept together
)

type index struct {
	seed   maphash.Seed
	gens   []*generation // in order; never empty
	bytes  int
	blocks []timeRange // one for each blockEvents events
}

type generation struct {
	from  uint64 // first event
	bytes int
	posts map[uint64][]byte // key -> uvarints of (event - from), rising
}

type timeRange struct{ min, max int64 }

func newIndex() *index {
	return &index{seed: maphash.MakeSeed(), gens: []*generation{{posts: map[uint64][]byte{}}}}
}

// The kinds of key.
const (
	byActor = iota
	byAction
	byTarget
)

// key hashes a kind and two texts.
func (x *index) key(kind byte, a, b string) uint64 {
	var h maphash.Hash
	h.SetSeed(x.seed)
	h.WriteByte(kind)
	h.WriteString(a)
	h.WriteByte(0) // no text holds one
	h.WriteString(b)
	return h.Sum64()
}

// keysOf returns the keys of an event.
func (x *index) keysOf(e *Event) []uint64 {
	keys := make([]uint64, 0, 2+len(e.Targets))
	if e.Actor != "" {
		keys = append(keys, x.key(byActor, e.Actor, ""))
	}
	keys = append(keys, x.key(byAction, e.Action, ""))
	for i := range e.Targets {
		keys = append(keys, x.key(byTarget, e.Targets[i].Type, e.Targets[i].ID))
	}
	return keys
}

// add notes event n. Events come in order.
func (x *index) add(n uint64, at int64, keys []uint64) {
	if n%blockEvents == 0 {
		x.blocks = append(x.blocks, timeRange{math.MaxInt64, math.MinInt64})
	}
	b := &x.blocks[len(x.blocks)-1]
	b.min, b.max = min(b.min, at), max(b.max, at)
	g := x.gens[len(x.gens)-1]
	if g.bytes > genBytes {
		g = &generation{from: n, posts: map[uint64][]byte{}}
		x.gens = append(x.gens, g)
		for x.bytes > indexBytes-genBytes {
			x.bytes -= x.gens[0].bytes
			x.gens = x.gens[1:]
		}
	}
	for _, k := range keys {
		p, old := g.posts[k]
		cost := postingBytes
		if !old {
			cost += keyBytes
		}
		g.posts[k] = binary.AppendUvarint(p, n-g.from)
		g.bytes += cost
		x.bytes += cost
	}
}

// floor is the first event that the index covers.
func (x *index) floor() uint64 { return x.gens[0].from }

// lookup returns at most limit events of key below before, newest first, and
// whether there may be more that the index covers.
func (x *index) lookup(key, before uint64, limit int) (list []uint64, more bool) {
	for i := len(x.gens) - 1; i >= 0; i-- {
		g := x.gens[i]
		if g.from >= before {
			continue
		}
		var all []uint64
		for p := g.posts[key]; len(p) > 0; {
			v, n := binary.Uvarint(p)
			p = p[n:]
			if v += g.from; v < before && (len(all) == 0 || all[len(all)-1] != v) {
				all = append(all, v)
			}
		}
		for j := len(all) - 1; j >= 0; j-- {
			if len(list) == limit {
				return list, true
			}
			list = append(list, all[j])
		}
	}
	return list, false
}

// mayHold reports whether the block of event n may hold an event whose time is
// in [from, to).
func (x *index) mayHold(n uint64, from, to int64) bool {
	b := x.blocks[n/blockEvents]
	return b.max >= from && b.min < to
}
