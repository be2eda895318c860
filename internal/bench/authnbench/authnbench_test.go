package authnbench

import (
	"math"
	"testing"

	"github.com/crmguard/crmguard/authz/authn/password"
)

// TestWelch: an example worked by hand, and a difference that is there.
func TestWelch(t *testing.T) {
	a, b := []float64{1, 2, 3, 4, 5}, []float64{2, 4, 6, 8, 10} // means 3 and 6, variances 2.5 and 10
	if got, want := Welch(a, b), -3/math.Sqrt(2.5); math.Abs(got-want) > 1e-12 {
		t.Errorf("%v, want %v", got, want)
	}
	if got := Welch(a, a); got != 0 {
		t.Error(got)
	}
	var x, y []float64
	for i := range 5000 {
		x, y = append(x, float64(100+i%10)), append(y, float64(101+i%10))
	}
	if r := compare("", x, y); math.Abs(r.T) < 4.5 || math.Abs(r.Cropped) < 4.5 {
		t.Errorf("a difference of a tenth of the spread is not seen: %v", r)
	}
}

// TestRun: there are figures; what they are depends on the machine.
func TestRun(t *testing.T) {
	results, err := Run(t.Context(), 20, Options{Params: password.Params{Memory: 256, Time: 1, Threads: 1}, Insecure: true})
	if err != nil || len(results) != 3 {
		t.Fatal(results, err)
	}
	for _, r := range results {
		if r.A <= 0 || r.B <= 0 || r.Pairs != 20 || math.IsNaN(r.T) || math.IsNaN(r.Cropped) {
			t.Error(r)
		}
	}
	if _, err := Run(t.Context(), 1, Options{}); err == nil {
		t.Error("one pair: no error")
	}
	if _, err := Run(t.Context(), 2, Options{Params: password.Params{Memory: 256, Time: 1, Threads: 1}}); err == nil {
		t.Error("below the floor: no error")
	}
}
