package guard

import (
	"sync"
	"time"
)

// quota is a token bucket for each actor. A masked field such as 138****5678 has ten thousand
// candidates; without a limit, searching each by its full value would unmask it.
type quota struct {
	perHour int
	mu      sync.Mutex
	used    map[string]*bucket
}

type bucket struct {
	left float64
	at   time.Time
}

// take uses one up, or reports false when there is none.
func (q *quota) take(actor string, now time.Time) bool { return q.takeN(actor, now, 1) }

// takeN uses n up, or none and reports false when there are fewer.
func (q *quota) takeN(actor string, now time.Time, n int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	b, ok := q.used[actor]
	if !ok {
		if len(q.used) > 10_000 {
			for a, b := range q.used { // forget who is back to a full bucket
				if now.Sub(b.at) > time.Hour {
					delete(q.used, a)
				}
			}
		}
		b = &bucket{left: float64(q.perHour), at: now}
		q.used[actor] = b
	}
	if since := now.Sub(b.at); since > 0 {
		b.left = min(float64(q.perHour), b.left+since.Hours()*float64(q.perHour))
		b.at = now
	}
	if b.left < float64(n) {
		return false
	}
	b.left -= float64(n)
	return true
}
