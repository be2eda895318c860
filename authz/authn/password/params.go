package password

import (
	"errors"
	"math"
	"time"

	"golang.org/x/crypto/argon2"
)

// Params are the costs of one Argon2id hash.
type Params struct {
	Memory  uint32 // KiB
	Time    uint32 // passes over the memory
	Threads uint8  // lanes, computed side by side
}

// Floor returns the least parameters that are taken: 19 MiB, two passes, one lane.
func Floor() Params { return Params{Memory: 19 << 10, Time: 2, Threads: 1} }

// The most that is taken. A record is authenticated, so these guard against a slip only.
const (
	maxMemory  = 4 << 20 // KiB
	maxTime    = 64
	maxThreads = 64
)

// valid tells whether Argon2 knows the parameters and this machine can be expected to.
func (p Params) valid() bool {
	return p.Time >= 1 && p.Time <= maxTime && p.Threads >= 1 && p.Threads <= maxThreads && p.Memory >= 8*uint32(p.Threads) && p.Memory <= maxMemory
}

// strong tells whether the parameters are at or above the floor.
func (p Params) strong() bool {
	f := Floor()
	return p.valid() && p.Memory >= f.Memory && p.Time >= f.Time
}

func (p Params) hash(password, salt []byte) []byte {
	return argon2.IDKey(password, salt, p.Time, p.Memory, p.Threads, hashSize)
}

// Calibrate measures this machine and returns parameters with one lane whose hash takes about target here: more memory
// first, up to memory KiB (0 = 64 MiB), then more passes, never less than [Floor] even where that takes longer. Half a
// second is the most that people at a sign-in page bear. Run it once when the program is set up and keep the result:
// parameters that change with the load of the moment would make every record stale.
func Calibrate(target time.Duration, memory uint32) (Params, error) {
	return calibrate(target, memory, func(p Params) time.Duration {
		best := time.Duration(math.MaxInt64)
		for range 3 { // the least disturbed
			start := time.Now()
			p.hash([]byte("calibration"), make([]byte, saltSize))
			best = min(best, time.Since(start))
		}
		return best
	})
}

func calibrate(target time.Duration, memory uint32, measure func(Params) time.Duration) (Params, error) {
	if target <= 0 || target > 10*time.Second {
		return Params{}, errors.New("password: a target is above 0 and at most 10 s")
	}
	p := Floor()
	if memory == 0 {
		memory = 64 << 10
	}
	if memory < p.Memory || memory > maxMemory {
		return Params{}, errors.New("password: memory is at least 19 MiB and at most 4 GiB")
	}
	// More memory slows each pass by more than its share once caches are full: measure after each step.
	for {
		took := measure(p)
		if took >= target {
			return p, nil
		}
		ratio := float64(target) / float64(max(took, 1))
		switch next := float64(p.Memory) * ratio; {
		case p.Memory < memory && ratio > 1.05:
			p.Memory = uint32(min(next, float64(memory)))
		case p.Memory < memory:
			return p, nil
		default:
			p.Time = uint32(min(math.Round(float64(p.Time)*ratio), maxTime))
			return p, nil
		}
	}
}
