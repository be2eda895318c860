package tally_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/crmguard/crmguard/crm/tally"
)

// TestItem24NumbersOnly: numbers over groups show no group that is small, nor one that follows from the others.
func TestItem24NumbersOnly(t *testing.T) {
	g := func(key string, n int) tally.Group { return tally.Group{Key: key, Count: n, Sum: int64(n) * 10} }
	for _, c := range []struct {
		name   string
		in     []tally.Group
		want   []string
		hidden int
	}{
		{"all are large", []tally.Group{g("a", 5), g("b", 9)}, []string{"a", "b"}, 0},
		{"one is small: the smallest other goes with it", []tally.Group{g("a", 1), g("b", 9), g("c", 7)}, []string{"b"}, 2},
		{"two are small", []tally.Group{g("a", 1), g("b", 9), g("c", 4)}, []string{"b"}, 2},
		{"an empty one shows nobody", []tally.Group{g("a", 0), g("b", 9)}, []string{"a", "b"}, 0},
		{"all are small", []tally.Group{g("a", 1), g("b", 4)}, nil, 2},
		{"one alone", []tally.Group{g("a", 4)}, nil, 1},
		{"none", nil, nil, 0},
	} {
		r := tally.Safe(c.in, 5)
		var keys []string
		total := 0
		for _, x := range r.Groups {
			keys = append(keys, x.Key)
			total += x.Count
		}
		if !slices.Equal(keys, c.want) || r.Hidden != c.hidden || r.Total.Count != total || r.Total.Sum != int64(total)*10 {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
	if r := tally.Safe([]tally.Group{g("a", 1)}, 1); len(r.Groups) != 1 {
		t.Errorf("nothing is small: %+v", r)
	}
}

// TestProperties: who knows the true total and sees the report never learns the count of a small group.
func TestProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(19, 20))
	for range 3000 {
		var in []tally.Group
		records := 0
		for i := range 1 + random.IntN(6) {
			n := random.IntN(12)
			in = append(in, tally.Group{Key: fmt.Sprint(i), Count: n})
			records += n
		}
		r := tally.Safe(in, 5)
		for _, g := range r.Groups {
			if g.Count > 0 && g.Count < 5 {
				t.Fatalf("%v shows %v", in, g)
			}
		}
		if full := slices.IndexFunc(in, func(g tally.Group) bool { return g.Count >= 5 }) >= 0; r.Hidden == 1 && full {
			t.Fatalf("%v: %d less %d is the group that was left out", in, records, r.Total.Count)
		}
	}
}

func ExampleSafe() {
	r := tally.Safe([]tally.Group{{Key: "Lyon", Count: 40}, {Key: "Porto", Count: 12}, {Key: "Lagos", Count: 2}}, 5)
	fmt.Println(r.Groups, r.Hidden, r.Total.Count)
	// Output: [{Lyon 40 0}] 2 40
}
