package request_test

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/internal/request"
)

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{
		"a": "b", "az": "a{", "负": "\u8d20", "\ud7ff": "\ue000", "a\U0010ffff": "b", "\x7f": "\u0080",
	} {
		if got, ok := request.PrefixEnd(prefix); !ok || got != want {
			t.Errorf("%q: %q, want %q", prefix, got, want)
		}
	}
	for _, prefix := range []string{"", "\U0010ffff", "\U0010ffff\U0010ffff"} {
		if end, ok := request.PrefixEnd(prefix); ok {
			t.Errorf("%q: %q", prefix, end)
		}
	}
}

func TestSum(t *testing.T) {
	const least, most = math.MinInt64, math.MaxInt64
	for _, test := range []struct {
		add  []int64
		want int64
		fits bool
	}{
		{nil, 0, true}, {[]int64{-1}, -1, true}, {[]int64{1, -1}, 0, true}, {[]int64{most}, most, true}, {[]int64{least}, least, true},
		{[]int64{most, 1}, 0, false}, {[]int64{least, -1}, 0, false}, {[]int64{most, most, least, least}, -2, true},
		{[]int64{least, least, most, most}, -2, true}, {[]int64{most, most, most}, 0, false}, {[]int64{most, 1, -1}, most, true},
		{[]int64{1<<32 - 1, 1}, 1 << 32, true}, {[]int64{-1 << 32, -1, -1}, -1<<32 - 2, true}, {slices.Repeat([]int64{-3}, 1000), -3000, true},
		{slices.Repeat([]int64{least}, 1000), 0, false}, {slices.Repeat([]int64{most}, 1000), 0, false},
	} {
		var one, halves request.Sum
		var high, low int64 // as a database sums them
		for _, n := range test.add {
			one.Add(n)
			high, low = high+n>>32, low+n&(1<<32-1)
		}
		halves.AddHalves(high, low)
		for _, s := range []request.Sum{one, halves} {
			if got, err := s.Int64(); got != test.want || (err == nil) != test.fits {
				t.Errorf("%v: got %d, %v", test.add[:min(4, len(test.add))], got, err)
			}
		}
		if least, err := one.Holds(&crm.Limit{Least: true, Value: test.want}); least != test.fits || (err == nil) != test.fits {
			t.Errorf("%v is not at least itself: %v", test.add[:min(4, len(test.add))], err)
		}
	}
}

// query is a list of crmtest.Schema sorted by a column.
func query(sort, after string) *crm.Query {
	return &crm.Query{Tenant: "default", Type: "thing", Where: crm.Everything{}, Sort: sort, After: after, Limit: 1}
}

func TestCursorRoundTrip(t *testing.T) {
	for sort, values := range map[string][]crm.Value{
		"":        {{}},
		"stage":   {{}, crm.StringValue(""), crm.StringValue("负责")},
		"amount":  {{}, crm.IntValue(-1), crm.IntValue(1 << 62)},
		"primary": {crm.BoolValue(true), crm.BoolValue(false)},
		"due":     {crm.TimeValue(time.UnixMicro(-5)), crm.TimeValue(time.UnixMicro(0))},
	} {
		for _, v := range values {
			want := request.Cursor{Value: v, Row: 7}
			schema := crmtest.Schema()
			got, err := request.Page(query(sort, want.Encode(query(sort, ""))), &schema)
			if err != nil || got != want {
				t.Errorf("sort %q: got %v, %v, want %v", sort, got, err, want)
			}
		}
	}
}

func FuzzCursor(f *testing.F) {
	schema := crmtest.Schema()
	for _, sort := range []string{"", "stage", "amount", "primary", "due"} {
		f.Add(sort, "AQAAAA")
		f.Add(sort, request.Cursor{Row: 1}.Encode(query(sort, "")))
		f.Add(sort, request.Cursor{Row: 1, Value: crm.IntValue(2)}.Encode(query(sort, "")))
	}
	f.Fuzz(func(t *testing.T, sort, after string) {
		c, err := request.Page(query(sort, after), &schema)
		var r *crm.RequestError
		if err != nil {
			if !errors.As(err, &r) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		if after != "" && c.Encode(query(sort, "")) != after {
			t.Fatalf("two cursors of one place: %q", after)
		}
	})
}
