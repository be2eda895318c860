// Package authnbench measures whether the time of a sign-in tells a known name from an unknown one.
package authnbench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/crmguard/crmguard/authz/authn/keyring"
	"github.com/crmguard/crmguard/authz/authn/lockout"
	"github.com/crmguard/crmguard/authz/authn/password"
)

// Result compares the times of two kinds of sign-in that fail.
type Result struct {
	What  string
	Pairs int
	A, B  time.Duration // means
	// T is Welch's t over all pairs, Cropped that without the slowest tenth of each kind, which other programs on the
	// machine delayed. Below 4.5 either way is no difference that the number of pairs could show.
	T, Cropped float64
}

// String is a line for a report.
func (r Result) String() string {
	return fmt.Sprintf("%-45s %6d pairs  %10v %10v  t = %6.2f, without the slowest tenth %6.2f", r.What, r.Pairs, r.A.Round(time.Microsecond), r.B.Round(time.Microsecond), r.T, r.Cropped)
}

// Options of Run.
type Options struct {
	Params   password.Params // zero = password.Floor
	Old      password.Params // of records that were made before; zero = half the memory of Params, which only a test allows
	Insecure bool            // Params may be below the floor
}

// Run measures sign-ins through lockout and password with a wrong password: a known name beside an unknown one, and a
// record with current parameters beside one with old ones. The kinds take turns, first and second in a pair
// alternately.
func Run(ctx context.Context, pairs int, opts Options) ([]Result, error) {
	if pairs < 2 {
		return nil, errors.New("authnbench: two pairs or more")
	}
	if opts.Params == (password.Params{}) {
		opts.Params = password.Floor()
	}
	if opts.Old == (password.Params{}) {
		opts.Old = opts.Params
		opts.Old.Memory /= 2
	}
	keys, err := keyring.New(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		return nil, err
	}
	before, err := password.New(ctx, keys, &password.Options{Params: opts.Old, InsecureParams: true})
	if err != nil {
		return nil, err
	}
	now, err := password.New(ctx, keys, &password.Options{Params: opts.Params, Old: []password.Params{opts.Old}, InsecureParams: opts.Insecure})
	if err != nil {
		return nil, err
	}
	records := map[string][]byte{}
	if records["old"], err = before.Hash(ctx, "old", "correct horse battery staple"); err != nil {
		return nil, err
	}
	if records["known"], err = now.Hash(ctx, "known", "correct horse battery staple"); err != nil {
		return nil, err
	}
	guard, err := lockout.New(&lockout.Memory{}, bytes.Repeat([]byte{2}, 32), nil)
	if err != nil {
		return nil, err
	}
	n := uint32(0)
	signIn := func(name string) (time.Duration, error) {
		n++ // a new counter each time, and taken back: the store is of the same size for each
		device := fmt.Sprint(n)
		source := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
		start := time.Now()
		pass, err := guard.Begin(ctx, lockout.Attempt{Account: name, Source: source, Device: device})
		if err != nil {
			return 0, err
		}
		_, err = now.Verify(ctx, name, records[name], "incorrect horse battery staple")
		took := time.Since(start)
		if !errors.Is(err, password.ErrWrong) {
			return 0, fmt.Errorf("authnbench: %w", err)
		}
		return took, pass.Undo(ctx)
	}
	var results []Result
	for _, c := range []struct{ what, a, b string }{
		{"known name, unknown name", "known", "nobody"},
		{"new parameters, old parameters", "known", "old"},
		{"known name with itself", "known", "known"},
	} {
		times := [2][]float64{}
		for i := range pairs + pairs/50 + 1 {
			order := []int{0, 1}
			if i%2 == 1 {
				order = []int{1, 0}
			}
			for _, which := range order {
				took, err := signIn([]string{c.a, c.b}[which])
				if err != nil {
					return nil, err
				}
				if i > pairs/50 { // the first warm up
					times[which] = append(times[which], float64(took))
				}
			}
		}
		results = append(results, compare(c.what, times[0], times[1]))
	}
	return results, nil
}

func compare(what string, a, b []float64) Result {
	r := Result{What: what, Pairs: len(a), T: Welch(a, b)}
	ma, _ := moments(a)
	mb, _ := moments(b)
	r.A, r.B = time.Duration(ma), time.Duration(mb)
	limit := slices.Sorted(slices.Values(slices.Concat(a, b)))[len(a)*2*9/10]
	r.Cropped = Welch(below(a, limit), below(b, limit))
	return r
}

func below(x []float64, limit float64) (out []float64) {
	for _, v := range x {
		if v <= limit {
			out = append(out, v)
		}
	}
	return out
}

// Welch returns Welch's t of two samples; 0 when both do not vary and are equal.
func Welch(a, b []float64) float64 {
	ma, va := moments(a)
	mb, vb := moments(b)
	if ma == mb {
		return 0
	}
	return (ma - mb) / math.Sqrt(va/float64(len(a))+vb/float64(len(b)))
}

// moments returns the mean and the unbiased variance.
func moments(x []float64) (mean, variance float64) {
	for _, v := range x {
		mean += v
	}
	mean /= float64(len(x))
	for _, v := range x {
		variance += (v - mean) * (v - mean)
	}
	return mean, variance / float64(len(x)-1)
}
