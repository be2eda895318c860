package request

import (
	"math"

	"github.com/crmguard/crmguard/crm"
)

// Sum adds numbers without overflow, so that only the result, not the order of what is added, decides whether
// it fits. A database makes one of the sums of both halves of a column.
type Sum struct {
	high int64 // times 1<<32
	low  int64 // 0 to 1<<32 - 1
}

// Add adds n.
func (s *Sum) Add(n int64) { s.AddHalves(n>>32, n&math.MaxUint32) }

// AddHalves adds high times 1<<32, and low.
func (s *Sum) AddHalves(high, low int64) {
	s.low += low & math.MaxUint32
	s.high += high + low>>32 + s.low>>32
	s.low &= math.MaxUint32
}

// Int64 returns the sum, or an error when it does not fit.
func (s *Sum) Int64() (int64, error) {
	if s.high < math.MinInt32 || s.high > math.MaxInt32 {
		return 0, bad("sum", "does not fit in 64 bits")
	}
	return s.high<<32 | s.low, nil
}

// Holds tells whether a limit allows the sum of its measures.
func (s *Sum) Holds(l *crm.Limit) (bool, error) {
	n, err := s.Int64()
	if err != nil {
		return false, err
	}
	if l.Least {
		return n >= l.Value, nil
	}
	return n <= l.Value, nil
}
