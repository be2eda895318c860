package money_test

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/crmguard/crmguard/crm/money"
)

func TestSum(t *testing.T) {
	for _, c := range []struct {
		in   []int64
		want int64
		err  error
	}{
		{nil, 0, nil},
		{[]int64{1, -2, 3}, 2, nil},
		{[]int64{math.MaxInt64, 0}, math.MaxInt64, nil},
		{[]int64{math.MinInt64, math.MaxInt64}, -1, nil},
		{[]int64{math.MaxInt64, 1}, 0, money.ErrOverflow},
		{[]int64{math.MinInt64, -1}, 0, money.ErrOverflow},
		{[]int64{math.MinInt64, math.MinInt64}, 0, money.ErrOverflow},
	} {
		if got, err := money.Sum(c.in...); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%v: %d, %v", c.in, got, err)
		}
	}
}

// TestRounding: half a unit goes away from zero, on both sides of it.
func TestRounding(t *testing.T) {
	for _, c := range []struct{ amount, points, want int64 }{
		{1, 5000, 1}, {3, 5000, 2}, {5, 5000, 3}, {1, 4999, 0}, {1, 5001, 1}, {-1, 5000, -1}, {-3, 5000, -2}, {-1, 4999, 0},
		{100, 1300, 13}, {150, 1300, 20}, {149, 1300, 19}, {0, 10000, 0},
		{math.MaxInt64, 10000, math.MaxInt64}, {math.MinInt64 + 1, 10000, math.MinInt64 + 1},
	} {
		if got, err := money.Share(c.amount, c.points); err != nil || got != c.want {
			t.Errorf("%d of %d: %d, %v", c.points, c.amount, got, err)
		}
	}
	for _, points := range []int64{-1, 10001, math.MaxInt64} {
		if _, err := money.Share(1, points); !errors.Is(err, money.ErrRange) {
			t.Errorf("%d: %v", points, err)
		}
	}
	if _, err := money.Share(math.MinInt64, 10000); !errors.Is(err, money.ErrOverflow) {
		t.Errorf("the smallest int64 has no counterpart: %v", err)
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		amount  int64
		weights []int64
		want    []int64
		err     error
	}{
		{100, []int64{1, 1, 1}, []int64{34, 33, 33}, nil},
		{-100, []int64{1, 1, 1}, []int64{-34, -33, -33}, nil},
		{100, []int64{3000, 3000, 4000}, []int64{30, 30, 40}, nil},
		{1, []int64{1, 2}, []int64{0, 1}, nil},
		{5, []int64{0, 7}, []int64{0, 5}, nil},
		{math.MaxInt64, []int64{math.MaxInt64 - 1, 1}, []int64{math.MaxInt64 - 1, 1}, nil},
		{1, nil, nil, money.ErrRange},
		{1, []int64{0, 0}, nil, money.ErrRange},
		{1, []int64{2, -1}, nil, money.ErrRange},
		{1, []int64{math.MaxInt64, 1}, nil, money.ErrOverflow},
	} {
		if got, err := money.Split(c.amount, c.weights...); !slices.Equal(got, c.want) || !errors.Is(err, c.err) {
			t.Errorf("%d over %v: %v, %v", c.amount, c.weights, got, err)
		}
	}
}

// TestSplitAddsUp: the parts add up and none is a unit or more away from its share.
func TestSplitAddsUp(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		amount := random.Int64() >> random.IntN(63)
		if random.IntN(2) == 0 {
			amount = -amount
		}
		weights := make([]int64, 1+random.IntN(8))
		var total int64
		for i := range weights {
			weights[i] = random.Int64N(1 << (1 + random.IntN(58)))
			total += weights[i]
		}
		if total == 0 {
			continue
		}
		parts, err := money.Split(amount, weights...)
		if err != nil {
			t.Fatal(err)
		}
		sum, err := money.Sum(parts...)
		if err != nil || sum != amount {
			t.Fatalf("%d over %v: %v", amount, weights, parts)
		}
		for i, p := range parts {
			exact := new(big.Rat).SetFrac(new(big.Int).Mul(big.NewInt(amount), big.NewInt(weights[i])), big.NewInt(total))
			off := exact.Sub(exact, new(big.Rat).SetInt64(p))
			if off.Abs(off).Cmp(big.NewRat(1, 1)) >= 0 {
				t.Fatalf("%d over %v: %v", amount, weights, parts)
			}
		}
	}
}

func TestLine(t *testing.T) {
	for _, c := range []struct {
		line money.Line
		want money.Amounts
		err  error
	}{
		{money.Line{Quantity: 3000, UnitPrice: 19900, Discount: 500, Tax: 1300}, money.Amounts{Gross: 59700, Discount: 2985, Net: 56715, Tax: 7373}, nil},
		{money.Line{Quantity: 1500, UnitPrice: 333}, money.Amounts{Gross: 500, Net: 500}, nil}, // 499.5
		{money.Line{Quantity: 1, UnitPrice: 499}, money.Amounts{}, nil},                        // 0.499
		{money.Line{Quantity: 1, UnitPrice: 500}, money.Amounts{Gross: 1, Net: 1}, nil},
		{money.Line{Quantity: 1500, UnitPrice: 333, Discount: 1}, money.Amounts{Gross: 500, Discount: 1, Net: 499}, nil}, // 499.45: rounded once
		{money.Line{Quantity: 1000, UnitPrice: 100, Discount: 10000, Tax: 10000}, money.Amounts{Gross: 100, Discount: 100}, nil},
		{money.Line{Quantity: 1000, UnitPrice: math.MaxInt64}, money.Amounts{Gross: math.MaxInt64, Net: math.MaxInt64}, nil},
		{money.Line{Quantity: 1000, UnitPrice: math.MaxInt64, Tax: 1}, money.Amounts{}, money.ErrOverflow},
		{money.Line{Quantity: 1001, UnitPrice: math.MaxInt64}, money.Amounts{}, money.ErrOverflow},
		{money.Line{Quantity: math.MaxInt64, UnitPrice: math.MaxInt64, Discount: 10000}, money.Amounts{}, money.ErrOverflow},
		{money.Line{Quantity: -1, UnitPrice: 1}, money.Amounts{}, money.ErrRange},
		{money.Line{Quantity: 1, UnitPrice: -1}, money.Amounts{}, money.ErrRange},
		{money.Line{Discount: 10001}, money.Amounts{}, money.ErrRange},
		{money.Line{Discount: -1}, money.Amounts{}, money.ErrRange},
		{money.Line{Tax: 10001}, money.Amounts{}, money.ErrRange},
		{money.Line{Tax: -1}, money.Amounts{}, money.ErrRange},
	} {
		if got, err := c.line.Amounts(); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%+v: %+v, %v", c.line, got, err)
		}
	}
}

func TestAdd(t *testing.T) {
	lines := []money.Line{{Quantity: 1000, UnitPrice: 10000, Tax: 1300}, {Quantity: 2000, UnitPrice: 5000, Tax: 600}, {Quantity: 1000, UnitPrice: 1}}
	each, sum, err := money.Add(lines, 1000)
	if err != nil || sum != (money.Amounts{Gross: 20001, Discount: 2000, Net: 18001, Tax: 1170 + 540}) || each[0].Net != 9000 || each[2].Net != 1 {
		t.Errorf("%+v, %+v, %v", each, sum, err)
	}
	var wrong *money.LineError
	if _, _, err := money.Add([]money.Line{{}, {Tax: -1}}, 0); !errors.As(err, &wrong) || wrong.Index != 1 || !errors.Is(err, money.ErrRange) {
		t.Errorf("a wrong line: %v", err)
	}
	if _, _, err := money.Add(lines, 10001); !errors.Is(err, money.ErrRange) {
		t.Errorf("a wrong discount: %v", err)
	}
	large := money.Line{Quantity: 1000, UnitPrice: math.MaxInt64}
	if _, _, err := money.Add([]money.Line{large, large}, 10000); !errors.Is(err, money.ErrOverflow) {
		t.Errorf("a sum that does not fit: %v", err)
	}
	taxed := money.Line{Quantity: 1000, UnitPrice: math.MaxInt64 / 3, Tax: 10000}
	if _, _, err := money.Add([]money.Line{taxed, taxed}, 0); !errors.Is(err, money.ErrOverflow) {
		t.Errorf("a total that does not fit: %v", err)
	}
	if each, sum, err := money.Add(nil, 500); err != nil || len(each) != 0 || sum != (money.Amounts{}) {
		t.Errorf("no lines: %v", err)
	}
}

// TestAddProperties compares with exact fractions: the lines add up to the document, and no line is more than half a unit
// from the exact figure plus the unit that a distributed discount moves.
func TestAddProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	half := big.NewRat(1, 2)
	for range 5000 {
		lines := make([]money.Line, 1+random.IntN(6))
		for i := range lines {
			lines[i] = money.Line{Quantity: random.Int64N(100_000), UnitPrice: random.Int64N(10_000_000), Discount: random.Int64N(10_001), Tax: random.Int64N(10_001)}
		}
		discount := int64(0)
		if random.IntN(2) == 0 {
			discount = random.Int64N(10_001)
		}
		each, sum, err := money.Add(lines, discount)
		if err != nil {
			t.Fatal(err)
		}
		var back money.Amounts
		for i, a := range each {
			if a.Gross != a.Discount+a.Net || a.Net < 0 || a.Discount < 0 {
				t.Fatalf("%+v", a)
			}
			back.Gross, back.Discount, back.Net, back.Tax = back.Gross+a.Gross, back.Discount+a.Discount, back.Net+a.Net, back.Tax+a.Tax
			if discount > 0 {
				continue
			}
			exact := big.NewRat(lines[i].Quantity*lines[i].UnitPrice, money.Unit)
			exact.Mul(exact, big.NewRat(money.Basis-lines[i].Discount, money.Basis))
			off := exact.Sub(exact, new(big.Rat).SetInt64(a.Net))
			if off.Abs(off).Cmp(half) > 0 {
				t.Fatalf("%+v gives %+v", lines[i], a)
			}
		}
		if back != sum || sum.Total() != sum.Net+sum.Tax {
			t.Fatalf("%+v does not add up to %+v", each, sum)
		}
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct {
		s, currency string
		want        int64
		err         error
	}{
		{"1234.5", "CNY", 123450, nil}, {"0.05", "EUR", 5, nil}, {"-0.05", "EUR", -5, nil}, {"7", "JPY", 7, nil}, {"1.234", "KWD", 1234, nil},
		{"-92233720368547758.08", "USD", math.MinInt64, nil},
		{"92233720368547758.08", "USD", 0, money.ErrOverflow}, {"99999999999999999999999", "USD", 0, money.ErrOverflow},
		{"1.5", "JPY", 0, money.ErrSyntax}, {"1.005", "EUR", 0, money.ErrSyntax}, {"", "EUR", 0, money.ErrSyntax}, {"-", "EUR", 0, money.ErrSyntax},
		{"+1", "EUR", 0, money.ErrSyntax}, {"1,000.00", "EUR", 0, money.ErrSyntax}, {"1e3", "EUR", 0, money.ErrSyntax}, {".5", "EUR", 0, money.ErrSyntax},
		{"5.", "EUR", 0, money.ErrSyntax}, {"1.2.3", "EUR", 0, money.ErrSyntax}, {"１", "EUR", 0, money.ErrSyntax}, {" 1", "EUR", 0, money.ErrSyntax},
	} {
		if got, err := money.Parse(c.s, c.currency); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%q: %d, %v", c.s, got, err)
		}
	}
	for _, c := range []struct {
		amount   int64
		currency string
		want     string
	}{{5, "CNY", "0.05"}, {-5, "CNY", "-0.05"}, {0, "JPY", "0"}, {1, "KWD", "0.001"}, {math.MinInt64, "EUR", "-92233720368547758.08"}, {100, "XXX", "1.00"}} {
		if got := money.Format(c.amount, c.currency); got != c.want {
			t.Errorf("%d %s: %q", c.amount, c.currency, got)
		}
	}
}

// FuzzParse: what is read is written back as the same amount.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"0", "-1.5", "1234.50", "92233720368547758.07", "-92233720368547758.08", "1e9", "..", "007"} {
		f.Add(s, "CNY")
		f.Add(s, "JPY")
	}
	f.Fuzz(func(t *testing.T, s, currency string) {
		n, err := money.Parse(s, currency)
		if err != nil {
			if n != 0 {
				t.Fatalf("%q: %d beside an error", s, n)
			}
			return
		}
		if back, err := money.Parse(money.Format(n, currency), currency); err != nil || back != n {
			t.Fatalf("%q: %d, written %q", s, n, money.Format(n, currency))
		}
	})
}

func ExampleAdd() {
	each, sum, err := money.Add([]money.Line{
		{Quantity: 3000, UnitPrice: 19900, Tax: 1300},               // three licences at 13 %
		{Quantity: 1500, UnitPrice: 80000, Discount: 500, Tax: 600}, // an hour and a half at 6 %, 5 % off
	}, 1000) // 10 % off the whole
	if err != nil {
		panic(err)
	}
	for _, a := range each {
		fmt.Println(money.Format(a.Net, "CNY"), money.Format(a.Tax, "CNY"))
	}
	fmt.Println(money.Format(sum.Discount, "CNY"), money.Format(sum.Total(), "CNY"))
	// Output:
	// 537.30 69.85
	// 1026.00 61.56
	// 233.70 1694.71
}

func ExampleSplit() {
	parts, err := money.Split(100_00, 1, 1, 1)
	fmt.Println(parts, err)
	// Output: [3334 3333 3333] <nil>
}
