package money

import (
	"errors"
	"math"
	"math/bits"
)

// Errors of this package.
var (
	ErrOverflow = errors.New("money: amount is too large")
	ErrRange    = errors.New("money: figure is out of range")
	ErrSyntax   = errors.New("money: not an amount")
)

const (
	// Basis is the whole in basis points.
	Basis = 10_000
	// Most is the largest amount of one record, in minor units: the sum of nine thousand of them fits.
	Most = 1_000_000_000_000_000
	// Unit is one piece, hour or kilogram as a quantity.
	Unit = 1000
)

// Sum adds amounts in minor units, or returns ErrOverflow.
func Sum(amounts ...int64) (int64, error) {
	var sum int64
	for _, a := range amounts {
		next := sum + a
		if (next > sum) != (a > 0) && a != 0 {
			return 0, ErrOverflow
		}
		sum = next
	}
	return sum, nil
}

// Share returns points basis points of an amount, rounded half away from zero. Points outside 0 to 10,000 are ErrRange.
func Share(amount, points int64) (int64, error) {
	if points < 0 || points > Basis {
		return 0, ErrRange
	}
	hi, lo := bits.Mul64(magnitude(amount), uint64(points))
	n, err := divide(hi, lo, Basis)
	return signed(n, amount < 0, err)
}

// magnitude returns |n|, also of the smallest int64.
func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// signed gives n its sign back.
func signed(n uint64, negative bool, err error) (int64, error) {
	if err != nil || n > math.MaxInt64 {
		return 0, ErrOverflow
	}
	if negative {
		return -int64(n), nil
	}
	return int64(n), nil
}

// divide returns the 128 bits hi and lo over d, rounded half up.
func divide(hi, lo, d uint64) (uint64, error) {
	lo, carry := bits.Add64(lo, d/2, 0)
	hi += carry
	if hi >= d {
		return 0, ErrOverflow
	}
	q, _ := bits.Div64(hi, lo, d)
	return q, nil
}

// Split distributes an amount over weights so that the parts add up to it exactly: each gets its share cut to minor
// units, and the units that are left go one each to the largest remainders, the first of equals first. The parts of a
// negative amount are those of the positive one, negative. No weight, a negative weight or a sum of zero is ErrRange.
func Split(amount int64, weights ...int64) ([]int64, error) {
	var total uint64
	for _, w := range weights {
		if w < 0 {
			return nil, ErrRange
		}
		if total += uint64(w); total > math.MaxInt64 {
			return nil, ErrOverflow
		}
	}
	if total == 0 {
		return nil, ErrRange
	}
	whole := magnitude(amount)
	parts := make([]int64, len(weights))
	rests := make([]uint64, len(weights))
	left := whole
	for i, w := range weights {
		hi, lo := bits.Mul64(whole, uint64(w))
		q, r := bits.Div64(hi, lo, total) // whole <= 2^63 and w <= total, so hi < total
		parts[i], rests[i] = int64(q), r
		left -= q
	}
	for ; left > 0; left-- {
		best := -1
		for i, r := range rests {
			if r > 0 && (best < 0 || r > rests[best]) {
				best = i
			}
		}
		parts[best]++
		rests[best] = 0
	}
	if amount < 0 {
		for i := range parts {
			parts[i] = -parts[i]
		}
	}
	return parts, nil
}
