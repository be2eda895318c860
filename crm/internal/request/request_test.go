package request_test

import (
	"errors"
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
