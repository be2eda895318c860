package audit

import (
	"encoding/binary"
	"hash/maphash"
	"math"
)

// index finds the events of an actor, an action, a target or a person without reading
// the log. It is built when the log is opened and grows with it, within a bound
// of memory whatever the size of the log:
//
// The newest events are found exactly, by postings in generations; when these
// hold more than postBytes the oldest generation goes. For all events there is
// a summary, a Bloom filter of the keys of some 16,384 events; a query that
// reaches behind the postings reads only the stretches whose summary may hold
// its key. When there are more than maxSummaries, neighbours among the older
// half are joined, so that the oldest ones grow vague, and never wrong. Keys
// are 64-bit hashes, so each hit is checked against its event.
const (
	postBytes     = 16 << 20       // estimated, of all generations
	genBytes      = postBytes / 16 // of one
	keyBytes      = 90             // estimated cost of a new key
	postingBytes  = 4              // estimated cost of a posting
	blockEvents   = 1024           // events whose time range is kept together
	summaryBits   = 1 << 18        // of one summary, 32 KiB
	summaryEvents = 16 * blockEvents
	summaryKeys   = summaryBits / 10
	maxSummaries  = 512 // 16 MiB
	maxBlocks     = 1 << 17
)

type index struct {
	seed      maphash.Seed
	scratch   []byte
	gens      []*generation // in order; never empty
	bytes     int
	summaries []*summary  // in order
	blocks    []timeRange // one for each perBlock events
	perBlock  uint64      // a multiple of blockEvents
	first     uint64      // the first event it was given
}

type generation struct {
	from  uint64 // first event
	bytes int
	posts map[uint64][]byte // key -> uvarints of (event - from), rising
}

// summary says which keys a stretch of events may hold. It ends where the next
// begins.
type summary struct {
	from uint64
	keys int // about how many it holds
	bits [summaryBits / 64]uint64
}

type timeRange struct{ min, max int64 }

func newIndex() *index {
	return &index{seed: maphash.MakeSeed(), perBlock: blockEvents, gens: []*generation{{posts: map[uint64][]byte{}}}}
}

// The kinds of key.
const (
	byActor = iota
	byAction
	byTarget
	byPerson
)

// appendKey writes what is hashed for a kind and two texts.
func appendKey[T string | []byte](buf []byte, kind byte, a, b T) []byte {
	buf = append(append(buf, kind), a...)
	return append(append(buf, 0), b...) // no text holds a zero; a person is alone and has 16 bytes
}

func (x *index) key(kind byte, a, b string) uint64 {
	return maphash.Bytes(x.seed, appendKey(nil, kind, a, b))
}

// keysOf appends the keys of an event.
func (x *index) keysOf(keys []uint64, e *Event) []uint64 {
	var space [128]byte
	if e.Actor != "" {
		keys = append(keys, maphash.Bytes(x.seed, appendKey(space[:0], byActor, e.Actor, "")))
	}
	keys = append(keys, maphash.Bytes(x.seed, appendKey(space[:0], byAction, e.Action, "")))
	for i := range e.Targets {
		keys = append(keys, maphash.Bytes(x.seed, appendKey(space[:0], byTarget, e.Targets[i].Type, e.Targets[i].ID)))
	}
	for i := range e.Details {
		keys = append(keys, maphash.Bytes(x.seed, appendKey(space[:0], byPerson, e.Details[i].Person[:], nil)))
	}
	return keys
}

// addRaw notes event n from its canonical bytes, without making an Event; it
// reports whether they could be read so far.
func (x *index) addRaw(n uint64, event []byte, keys []uint64) ([]uint64, bool) {
	keys = keys[:0]
	at := int64(binary.BigEndian.Uint64(event[offTime:]))
	r := reader{b: event[offDetails:]}
	for range r.count(1 + 16 + 32) {
		r.take(r.count(1))
		if person := r.take(16 + 32); person != nil {
			x.scratch = appendKey(x.scratch[:0], byPerson, person[:16], nil)
			keys = append(keys, maphash.Bytes(x.seed, x.scratch))
		}
	}
	action, actor := r.take(r.count(1)), r.take(r.count(1))
	r.take(r.count(1))
	r.take(r.count(1))
	if len(actor) > 0 {
		x.scratch = appendKey(x.scratch[:0], byActor, actor, nil)
		keys = append(keys, maphash.Bytes(x.seed, x.scratch))
	}
	x.scratch = appendKey(x.scratch[:0], byAction, action, nil)
	keys = append(keys, maphash.Bytes(x.seed, x.scratch))
	var space [8][]byte
	types := space[:0]
	for range r.count(2) {
		types = append(types, r.take(r.count(1)))
	}
	for range r.count(5) {
		k := r.uvarint()
		if k >= uint64(len(types)) {
			return keys, false
		}
		x.scratch = append(append(append(x.scratch[:0], byTarget), types[k]...), 0)
		switch r.byte() {
		case 0:
			x.scratch = append(x.scratch, r.take(r.count(1))...)
		case 1:
			if raw := r.take(16); raw != nil {
				x.scratch = appendUUID(x.scratch, raw)
			}
		default:
			return keys, false
		}
		r.uvarint()
		r.take(r.count(1))
		keys = append(keys, maphash.Bytes(x.seed, x.scratch))
	}
	if r.bad {
		return keys, false
	}
	x.add(n, at, keys)
	return keys, true
}

// add notes event n. Events come in order.
func (x *index) add(n uint64, at int64, keys []uint64) {
	if len(x.summaries) == 0 {
		x.first = n
		x.gens[0].from = n
	}
	for n/x.perBlock >= uint64(len(x.blocks)) { // all that came before a pruned beginning is empty
		x.blocks = append(x.blocks, timeRange{math.MaxInt64, math.MinInt64})
	}
	b := &x.blocks[len(x.blocks)-1]
	b.min, b.max = min(b.min, at), max(b.max, at)
	if len(x.blocks) > maxBlocks {
		x.widen()
	}
	g := x.gens[len(x.gens)-1]
	if g.bytes > genBytes {
		g = &generation{from: n, posts: map[uint64][]byte{}}
		x.gens = append(x.gens, g)
		for x.bytes > postBytes-genBytes {
			x.bytes -= x.gens[0].bytes
			x.gens[0] = nil
			x.gens = x.gens[1:]
		}
	}
	if k := len(x.summaries); k == 0 || n-x.summaries[k-1].from >= summaryEvents || x.summaries[k-1].keys >= summaryKeys {
		if k >= maxSummaries {
			x.join()
		}
		x.summaries = append(x.summaries, &summary{from: n})
	}
	s := x.summaries[len(x.summaries)-1]
	for _, k := range keys {
		p, old := g.posts[k]
		cost := postingBytes
		if !old {
			cost += keyBytes
		}
		g.posts[k] = binary.AppendUvarint(p, n-g.from)
		g.bytes += cost
		x.bytes += cost
		s.add(k)
	}
}

// widen joins the time ranges two by two.
func (x *index) widen() {
	half := x.blocks[:0]
	for i := 0; i < len(x.blocks); i += 2 {
		b := x.blocks[i]
		if i+1 < len(x.blocks) {
			b.min, b.max = min(b.min, x.blocks[i+1].min), max(b.max, x.blocks[i+1].max)
		}
		half = append(half, b)
	}
	x.blocks, x.perBlock = half, 2*x.perBlock
}

// join joins the older half of the summaries two by two.
func (x *index) join() {
	half := len(x.summaries) / 2
	list := x.summaries[:0]
	for i, s := range x.summaries {
		if i < half && i%2 == 1 {
			last := list[len(list)-1]
			last.keys += s.keys
			for j := range s.bits {
				last.bits[j] |= s.bits[j]
			}
			continue
		}
		list = append(list, s)
	}
	clear(x.summaries[len(list):])
	x.summaries = list
}

func (s *summary) add(key uint64) {
	fresh := false
	for range 4 {
		bit := key % summaryBits
		if s.bits[bit/64]&(1<<(bit%64)) == 0 {
			s.bits[bit/64] |= 1 << (bit % 64)
			fresh = true
		}
		key = key>>16 | key<<48
	}
	if fresh {
		s.keys++
	}
}

func (s *summary) mayHold(key uint64) bool {
	for range 4 {
		bit := key % summaryBits
		if s.bits[bit/64]&(1<<(bit%64)) == 0 {
			return false
		}
		key = key>>16 | key<<48
	}
	return true
}

// before returns the end of the newest stretch of events below n that may hold
// key, and its beginning; 0 and 0 when there is none.
func (x *index) before(key, n uint64) (from, end uint64) {
	end = n
	for i := len(x.summaries) - 1; i >= 0; i-- {
		s := x.summaries[i]
		if s.from >= n {
			continue
		}
		if s.mayHold(key) {
			return s.from, end
		}
		end = s.from
	}
	return 0, 0
}

// floor is the first event that the postings cover.
func (x *index) floor() uint64 { return x.gens[0].from }

// lookup returns at most limit events of key below before, newest first, and
// whether there may be more that the postings cover.
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
	b := x.blocks[n/x.perBlock]
	return b.max >= from && b.min < to
}
