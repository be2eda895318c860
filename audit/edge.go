package audit

import (
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// edge is the right edge of the tree: for each level the last complete
// subtree. That is all it takes to add a leaf and to compute the root.
type edge struct {
	size  int64
	level [63]tlog.Hash
	done  int // the levels below done were completed by the last leaf
}

// add appends a leaf. It completes one subtree of each level up to the first
// that had none waiting; level l then holds the newest complete subtree.
func (t *edge) add(leaf tlog.Hash) {
	l := 0
	for ; t.size>>l&1 != 0; l++ {
		left := t.level[l]
		t.level[l] = leaf
		leaf = tlog.NodeHash(left, leaf)
	}
	t.level[l] = leaf
	t.done = l + 1
	t.size++
}

// completed returns the subtrees that the last leaf completed, by level from
// the leaf itself, valid until the next one.
func (t *edge) completed() []tlog.Hash { return t.level[:t.done] }

// root returns the hash of the tree. It is tlog.TreeHash over the subtrees
// that make up size, from right to left.
func (t *edge) root() (tlog.Hash, error) {
	if t.size == 0 {
		return tlog.TreeHash(0, nil)
	}
	n := uint64(t.size)
	l := bits.TrailingZeros64(n)
	h := t.level[l]
	for n &= n - 1; n != 0; n &= n - 1 {
		h = tlog.NodeHash(t.level[bits.TrailingZeros64(n)], h)
	}
	return h, nil
}

// subtrees returns the hashes of the subtrees that make up size, largest first.
func (t *edge) subtrees() (list []tlog.Hash) {
	for l := 62; l >= 0; l-- {
		if t.size>>l&1 != 0 {
			list = append(list, t.level[l])
		}
	}
	return list
}

// setSubtrees is the inverse of subtrees; it reports whether there are as many
// as size has.
func (t *edge) setSubtrees(size int64, list []tlog.Hash) bool {
	if size < 0 || bits.OnesCount64(uint64(size)) != len(list) {
		return false
	}
	*t = edge{size: size}
	for l := 62; l >= 0; l-- {
		if size>>l&1 != 0 {
			t.level[l], list = list[0], list[1:]
		}
	}
	return true
}
