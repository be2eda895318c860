package encrypt_test

import (
	"bytes"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
)

func field(t testing.TB, s encrypt.Sealed, name string) *encrypt.SealedField {
	t.Helper()
	for i := range s.Fields {
		if s.Fields[i].Name == name {
			return &s.Fields[i]
		}
	}
	return nil
}

type address struct {
	Street encrypt.Text `protect:"personal,index=exact:f"`
	Zip    string       `protect:"internal"`
	Geo    struct {
		Lat, Long int64 `protect:"personal"`
	} `protect:"nested"`
}

type everything struct {
	address
	Home   address                 `protect:"nested"`
	Phones []encrypt.Text          `protect:"personal"`
	Custom map[string]encrypt.Text `json:"custom_fields,omitempty" protect:"sensitive"`
	Rat    big.Rat                 `protect:"financial"`
	RatP   *big.Rat                `protect:"financial"`
	Price  big.Rat                 `protect:"internal"`
	Limit  *big.Int                `protect:"financial"`
	When   time.Time               `protect:"personal"`
	WhenP  *time.Time              `protect:"personal"`
	Nick   *string                 `protect:"personal"`
	Small  int8                    `protect:"personal"`
	Wide   uint32                  `protect:"personal"`
	Flag   *bool                   `protect:"personal"`
	Ratio  float64                 `protect:"personal"`
	Ref    id                      `protect:"personal"`
	Raw    json.RawMessage         `protect:"personal"`
	Tags   []string                `protect:"personal"`
	Any    map[string]any          `protect:"personal"`
	Note   string                  `protect:"personal"`
	Cache  func()                  `protect:"-"`
}

func TestEveryType(t *testing.T) {
	c, err := encrypt.NewCodec[*everything](&encrypt.CodecOptions{Normalizers: onlyFolded})
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	zone := time.FixedZone("CST", 8*3600)
	when := time.Date(2026, 2, 29, 1, 2, 3, 999_999_999, zone)
	empty, nick, no := "", "小明", false
	nested := everything{Home: address{Street: encrypt.NewText("北京路 1"), Zip: "1"}}
	nested.Home.Geo.Lat, nested.Geo.Long, nested.Street = -1, math.MinInt64, encrypt.NewText("南京路 2")
	for name, v := range map[string]*everything{
		"nothing": {},
		"nested":  &nested,
		"texts": {
			Phones: []encrypt.Text{encrypt.NewText("1"), {}, encrypt.NewText("张")},
			Custom: map[string]encrypt.Text{"wechat": encrypt.NewText("zw"), "": encrypt.NewText("x"), "none": {}},
		},
		"no texts": {Phones: []encrypt.Text{}, Custom: map[string]encrypt.Text{}},
		"numbers": {
			Rat: *big.NewRat(-22, 7), RatP: big.NewRat(1, 3), Price: *big.NewRat(1, 8), Limit: new(big.Int).Lsh(big.NewInt(1), 200),
			Small: -128, Wide: math.MaxUint32, Ratio: 0.1, Flag: &no,
		},
		"times":            {When: when, WhenP: &when},
		"old":              {When: time.Date(-4000, 1, 1, 0, 0, 0, 1, time.UTC), WhenP: new(time.Time)},
		"far":              {When: time.Date(200_000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"pointers":         {Nick: &nick},
		"an empty pointee": {Nick: &empty},
		"others":           {Ref: id{1, 2}, Raw: json.RawMessage(`{"a" : 1}`), Tags: []string{"a", ""}, Any: map[string]any{"n": 1.5, "s": []any{"x"}}},
		"bytes":            {Note: "\xff\xfe张\x00\n", Nick: ptr("\xff")},
	} {
		s, err := c.Seal(ctx, k, rec, v, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		clearValues, err := c.ClearValues(v)
		if err != nil {
			t.Fatal(err)
		}
		got := everything{Note: "old", Phones: []encrypt.Text{encrypt.NewText("old")}, Custom: map[string]encrypt.Text{"old": {}}, Any: map[string]any{"old": 1}}
		if err := c.SetClear(&got, clearValues); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Open(ctx, k, rec, s.Fields, &got, c.SealedNames()...); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := *v
		want.When = want.When.UTC()
		if want.WhenP != nil {
			u := want.WhenP.UTC()
			want.WhenP = &u
		}
		if !reflect.DeepEqual(&got.address, &want.address) {
			t.Errorf("%s: the embedded fields differ", name)
		}
		for i := 1; i < reflect.TypeFor[everything]().NumField(); i++ { // one by one, for a short message
			a, b := reflect.ValueOf(&got).Elem().Field(i).Addr().Interface(), reflect.ValueOf(&want).Elem().Field(i).Addr().Interface()
			if r, ok := a.(*big.Rat); ok {
				if r.Cmp(b.(*big.Rat)) != 0 {
					t.Errorf("%s: field %d: %s, want %s", name, i, r, b)
				}
			} else if !reflect.DeepEqual(a, b) {
				t.Errorf("%s: field %s differs", name, reflect.TypeFor[everything]().Field(i).Name)
			}
		}
		if out, changed, err := c.Reseal(ctx, k, rec, v, s.Fields); err != nil || changed {
			t.Errorf("%s: resealed: %v, %v, %v", name, out, changed, err)
		}
	}
	var names []string
	for _, f := range c.Fields() {
		names = append(names, f.Name)
	}
	if want := []string{"street", "zip", "geo_lat", "geo_long", "home_street", "home_zip", "home_geo_lat", "home_geo_long", "phones", "custom_fields", "rat", "rat_p", "price"}; !slices.Equal(names[:13], want) {
		t.Errorf("names %q", names)
	}
	// What is absent is not stored; numbers that are held by value always are.
	s, err := c.Seal(ctx, k, rec, &everything{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	names = nil
	for _, f := range s.Fields {
		names = append(names, f.Name)
	}
	if want := []string{"geo_lat", "geo_long", "home_geo_lat", "home_geo_long", "rat", "ratio", "small", "wide"}; !slices.Equal(names, want) {
		t.Errorf("an empty record stores %q", names)
	}
	// JSON has no invalid UTF-8, so inside slices and maps it is refused. A text of its own is kept byte for byte.
	odd := &everything{Phones: []encrypt.Text{encrypt.NewText("a\xffb")}}
	if _, err = c.Seal(ctx, k, rec, odd, nil); err == nil || !strings.Contains(err.Error(), "UTF-8") || strings.Contains(err.Error(), "\xff") {
		t.Errorf("invalid UTF-8 in a slice: %v", err)
	}
	// What JSON cannot write is an error that shows nothing.
	if _, err := c.Seal(ctx, k, rec, &everything{Ratio: math.NaN()}, nil); err == nil || !strings.HasSuffix(err.Error(), "value does not fit its field: field ratio") {
		t.Errorf("NaN: %v", err)
	}
	if _, err := c.Seal(ctx, k, rec, &everything{Any: map[string]any{"secret": func() {}}}, nil); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a func: %v", err)
	}
}

func ptr[T any](v T) *T { return &v }

// TestManyTextsKept: a slice or map of texts is kept as a whole when one of them is not shown.
func TestManyTextsKept(t *testing.T) {
	type many struct {
		Phones []encrypt.Text          `protect:"personal"`
		Custom map[string]encrypt.Text `protect:"personal"`
	}
	c, err := encrypt.NewCodec[*many](nil)
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	s, err := c.Seal(ctx, k, rec, &many{[]encrypt.Text{encrypt.NewText("1"), encrypt.NewText("2")}, map[string]encrypt.Text{"a": encrypt.NewText("3")}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for st := encrypt.StateMasked; st <= encrypt.StateErased; st++ {
		var shown encrypt.Text
		shown.SetExposed("*", uint8(st))
		for _, v := range []*many{
			{Phones: []encrypt.Text{encrypt.NewText("1"), shown}}, {Custom: map[string]encrypt.Text{"a": shown}},
		} {
			if _, err := c.Seal(ctx, k, rec, v, nil); !errors.Is(err, encrypt.ErrNotClear) {
				t.Errorf("%s without the previous one: %v", st, err)
			}
			other := "custom" // nil does not say whether it was opened
			if v.Phones == nil {
				other = "phones"
			}
			if _, err := c.Seal(ctx, k, rec, v, s.Fields); !errors.Is(err, encrypt.ErrNotClear) {
				t.Errorf("%s beside a nil one: %v", st, err)
			}
			again, err := c.Seal(ctx, k, rec, v, s.Fields, other)
			if err != nil {
				t.Errorf("%s: %v", st, err)
				continue
			}
			var got many
			if _, err := c.Open(ctx, k, rec, again.Fields, &got, c.SealedNames()...); err != nil || len(got.Phones)+len(got.Custom) < 1 {
				t.Errorf("%s: %+v, %v", st, got, err)
			}
			if v.Phones != nil && (len(got.Phones) != 2 || got.Phones[1].Expose() != "2") {
				t.Errorf("%s: not kept", st)
			}
		}
	}
}

func TestHugeValue(t *testing.T) {
	if testing.Short() {
		t.Skip("64 MiB")
	}
	type file struct {
		Body  []byte       `protect:"personal"`
		Title encrypt.Text `protect:"personal"`
	}
	c, err := encrypt.NewCodec[*file](nil)
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	body := bytes.Repeat([]byte("0123456789abcdef"), 4<<20)
	s, err := c.Seal(ctx, k, rec, &file{Body: body, Title: encrypt.NewText("x")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(field(t, s, "body").Data); n != len(body)+38 {
		t.Errorf("%d bytes", n)
	}
	var got file
	if _, err := c.Open(ctx, k, rec, s.Fields, &got, "body", "title"); err != nil || !bytes.Equal(got.Body, body) || got.Title.Expose() != "x" {
		t.Fatalf("%d bytes, %v", len(got.Body), err)
	}
	data := field(t, s, "body").Data
	for _, at := range []int{0, 9, 10, 21, 22, len(data) / 2, len(data) - 1} {
		data[at] ^= 1
		if _, err := c.Open(ctx, k, rec, s.Fields, &got, "body"); !errors.Is(err, encrypt.ErrTampered) && !errors.Is(err, encrypt.ErrKeyMissing) {
			t.Errorf("bit flip at %d: %v", at, err)
		}
		data[at] ^= 1
	}
	if _, err := c.OpenTo(ctx, k, &rec, nil, "body", data[:len(data)-1]); !errors.Is(err, encrypt.ErrTampered) {
		t.Errorf("cut: %v", err)
	}
}

func TestCodecRefusals(t *testing.T) {
	check := func(err error, want ...string) {
		t.Helper()
		if err == nil {
			t.Errorf("compiled; want an error with %q", want)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q does not say %q", err, w)
			}
		}
	}
	o := &encrypt.CodecOptions{Type: "x"}
	type day time.Time
	type opaque struct{ _ string }
	_, err := encrypt.NewCodec[*struct {
		Born day `protect:"personal"`
	}](o)
	check(err, "field Born", "JSON")
	_, err = encrypt.NewCodec[*struct {
		Born *day `protect:"internal"`
	}](o)
	check(err, "field Born", "JSON")
	_, err = encrypt.NewCodec[*struct {
		Key opaque `protect:"personal"`
	}](o)
	check(err, "field Key", "JSON")
	_, err = encrypt.NewCodec[*struct {
		OwnerID id           `protect:"personal"`
		Name    encrypt.Text `protect:"personal,person=OwnerID"`
	}](o)
	check(err, "field Name", "person=OwnerID is sealed")
	_, err = encrypt.NewCodec[*struct {
		Name *encrypt.Text `protect:"personal"`
	}](o)
	check(err, "field Name", "by value")
	_, err = encrypt.NewCodec[*struct {
		Names [][]encrypt.Text `protect:"personal"`
	}](o)
	check(err, "field Names", "protected text")
	_, err = encrypt.NewCodec[*struct {
		Names map[int]encrypt.Text `protect:"personal"`
	}](o)
	check(err, "field Names", "protected text")
	_, err = encrypt.NewCodec[*struct {
		Names []encrypt.Text `protect:"internal"`
	}](o)
	check(err, "field Names", "protected text")
	_, err = encrypt.NewCodec[*struct {
		Name encrypt.Text `protect:"public,clear"`
	}](o)
	check(err, "field Name", "clear column")
	_, err = encrypt.NewCodec[*struct {
		Out chan int `protect:"personal"`
	}](o)
	check(err, "field Out", "cannot be stored")
	_, err = encrypt.NewCodec[*struct {
		Any any `protect:"personal"`
	}](o)
	check(err, "field Any", "cannot be stored")
	_, err = encrypt.NewCodec[*struct {
		N uint64 `protect:"personal"`
	}](o)
	check(err, "field N", "64-bit")
	_, err = encrypt.NewCodec[*struct {
		Home *address `protect:"nested"`
	}](o)
	check(err, "field Home", "by value")
	_, err = encrypt.NewCodec[*struct {
		*address
	}](o)
	check(err, "field address", "by value")
	_, err = encrypt.NewCodec[*struct {
		B struct {
			C string `json:"y" protect:"personal"`
		} `json:"x" protect:"nested"`
		D string `json:"x_y" protect:"personal"`
	}](o)
	check(err, "field D", `"x_y" is used twice`)
	_, err = encrypt.NewCodec[*struct {
		A string `protect:""`
	}](o)
	check(err, "field A", "unknown class")
	_, err = encrypt.NewCodec[*struct {
		A string `protect:"personal,"`
	}](o)
	check(err, "field A", "unknown word")
	_, err = encrypt.NewCodec[*struct {
		A string `protect:"personal,seal"`
	}](o)
	check(err, "field A", "always sealed")
	_, err = encrypt.NewCodec[*struct {
		A string `protect:"personal,indexed"`
	}](o)
	check(err, "field A", "indexed")
	_, err = encrypt.NewCodec[*struct {
		A string `protect:"internal,retention=tax"`
	}](o)
	check(err, "field A", "sealed fields")
	_, err = encrypt.NewCodec[*struct {
		A string `protect:"personal,retention=tax,retention=contract"`
	}](o)
	check(err, "field A", "twice")
	_, err = encrypt.NewCodec[*struct {
		A string `json:"a123456789a123456789a123456789a123456789a123456789a123456789a1234" protect:"personal"`
	}](o)
	check(err, "field A", "64 bytes")
	_, err = encrypt.NewCodec[*struct {
		A string `protect:"personal"`
	}](nil)
	check(err, "type name")
	_, err = encrypt.NewCodec[*single](&encrypt.CodecOptions{Migrating: []string{"fax"}})
	check(err, "fax")
	_, err = encrypt.NewCodec[*customer](&encrypt.CodecOptions{Normalizers: codecOptions().Normalizers, Masks: codecOptions().Masks, Migrating: []string{"stage"}})
	check(err, "stage")
	_, err = encrypt.NewCodec[*customer](&encrypt.CodecOptions{Normalizers: codecOptions().Normalizers, Masks: codecOptions().Masks, Migrating: []string{"income"}})
	check(err, "income", "only text")
	// And what is called with what does not fit.
	c, k := newCodec(t), newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	if _, err := c.Seal(ctx, k, encrypt.Record{Tenant: "acme", ID: [16]byte{1}}, &customer{Phone: text{s: "13800138000"}}, nil); err == nil || !strings.Contains(err.Error(), "no person") || strings.Contains(err.Error(), "138") {
		t.Errorf("no person: %v", err)
	}
	if _, err := c.Seal(ctx, k, rec, &customer{Signer: text{s: "x"}}, nil); err == nil || !strings.Contains(err.Error(), "field signer") {
		t.Errorf("no signatory: %v", err)
	}
	if _, err := c.Seal(ctx, k, rec, &customer{}, nil, "stage"); err == nil {
		t.Error("kept a clear column")
	}
	if _, err := c.Seal(ctx, k, rec, &customer{}, nil, "nope"); err == nil {
		t.Error("kept an unknown field")
	}
	if _, err := c.Open(ctx, k, rec, nil, &customer{}, "stage"); err == nil {
		t.Error("opened a clear column")
	}
	for _, tenant := range []string{"", strings.Repeat("x", 129)} {
		r := rec
		r.Tenant = tenant
		if _, err := c.Seal(ctx, k, r, &customer{Note: "x"}, nil); err == nil {
			t.Errorf("a tenant of %d bytes", len(tenant))
		}
	}
	other := rec
	other.Tenant = "other"
	if _, err := c.SealAll(ctx, k, []encrypt.Record{rec, other}, []*customer{{}, {}}); err == nil {
		t.Error("records of several tenants")
	}
	if _, err := c.SealAll(ctx, k, []encrypt.Record{rec}, nil); err == nil {
		t.Error("a record without a value")
	}
	if _, err := c.OpenAll(ctx, k, []encrypt.Record{rec, other}, make([][]encrypt.SealedField, 2), []*customer{{}, {}}, "phone"); err == nil {
		t.Error("records of several tenants")
	}
	if _, err := c.OpenAll(ctx, k, []encrypt.Record{rec}, nil, []*customer{{}}, "phone"); err == nil {
		t.Error("a record without fields")
	}
	if _, err := c.SealAll(ctx, k, []encrypt.Record{rec, rec}, []*customer{{}, {Note: "x", Phone: text{"*", 1}}}); !errors.Is(err, encrypt.ErrNotClear) || !strings.Contains(err.Error(), "record 1") {
		t.Errorf("a masked value in a batch: %v", err)
	}
}

// chatty is an id whose errors show what they were given.
type chatty [16]byte

func (i chatty) MarshalText() ([]byte, error) {
	if i[0] == 0xff {
		return nil, fmt.Errorf("secret %x", i[:])
	}
	return []byte(hex.EncodeToString(i[:])), nil
}

func (i *chatty) UnmarshalText(b []byte) error { return fmt.Errorf("secret %s", b) }

func TestErrorsShowNothing(t *testing.T) {
	type doc struct {
		Number chatty `protect:"sensitive"`
		Clear  chatty `protect:"internal"`
	}
	c, err := encrypt.NewCodec[*doc](nil)
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	s, err := c.Seal(ctx, k, rec, &doc{Number: chatty{1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := c.Open(ctx, k, rec, s.Fields, &doc{}, "number")
	_, err2 := c.Seal(ctx, k, rec, &doc{Number: chatty{0xff}}, nil)
	_, err3 := c.ClearValues(&doc{Clear: chatty{0xff}})
	err4 := c.SetClear(&doc{}, []any{"0102"})
	for i, err := range []error{err1, err2, err3, err4} {
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "0") {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestTextShowsNothing(t *testing.T) {
	const secret = "13800138000"
	shown := func(st encrypt.State, s string) (x encrypt.Text) { x.SetExposed(s, uint8(st)); return x }
	type deep struct {
		Name   encrypt.Text
		List   []encrypt.Text
		Map    map[string]encrypt.Text
		Ptr    *encrypt.Text
		hidden encrypt.Text
		inner  struct{ text encrypt.Text }
	}
	x := encrypt.NewText(secret)
	d := deep{Name: x, List: []encrypt.Text{x}, Map: map[string]encrypt.Text{"a": x}, Ptr: &x, hidden: x}
	d.inner.text = x
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		l := slog.New(h)
		l.Info("m", "x", x, "p", &x, "d", d, "dp", &d, "g", slog.GroupValue(slog.Any("x", x)), "any", []any{x, d})
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%o", "%c", "%e", "%p", "%T %v", "%10v", "%-5s"} {
		for _, v := range []any{x, &x, d, &d, []any{x}, map[string]any{"a": d}, errors.Join(fmt.Errorf("a: %v", x)), struct{ E any }{x}} {
			fmt.Fprintf(&log, verb+"\n", v, v)
		}
	}
	fmt.Fprintln(&log, x, d, &d)
	for _, v := range []any{x, &x, d, &d, map[string]any{"a": x}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		log.Write(b)
	}
	type element struct{ X encrypt.Text }
	b, err := xml.Marshal(element{x})
	if err != nil {
		t.Fatal(err)
	}
	log.Write(b)
	b, err = json.Marshal(map[encrypt.Text]int{x: 1})
	if err != nil {
		t.Fatal(err)
	}
	log.Write(b)
	for _, part := range []string{secret, hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret))), "138001", "31 33 38", "[49 51 56"} {
		if strings.Contains(log.String(), part) {
			i := strings.Index(log.String(), part)
			t.Errorf("it shows: %q", log.String()[max(0, i-100):i+len(part)])
		}
	}
	if !strings.Contains(log.String(), "***") {
		t.Error("it shows nothing at all")
	}
	for _, tc := range []struct {
		text    encrypt.Text
		prints  string
		exposes string
		state   encrypt.State
	}{
		{encrypt.Text{}, "", "", encrypt.StateClear},
		{encrypt.NewText(""), "", "", encrypt.StateClear},
		{x, "***", secret, encrypt.StateClear},
		{shown(encrypt.StateClear, ""), "", "", encrypt.StateClear},
		{shown(encrypt.StateMasked, "138***"), "***", "138***", encrypt.StateMasked},
		{shown(encrypt.StateMasked, ""), "***", "", encrypt.StateMasked},
		{shown(encrypt.StateHidden, ""), "***", "", encrypt.StateHidden},
		{shown(encrypt.StateSealed, ""), "***", "", encrypt.StateSealed},
		{shown(encrypt.StateErased, ""), "***", "", encrypt.StateErased},
		{shown(9, ""), "***", "", 9},
	} {
		b, err := tc.text.MarshalText()
		if tc.text.String() != tc.prints || tc.text.GoString() != tc.prints || tc.text.LogValue().String() != tc.prints || string(b) != tc.prints || err != nil {
			t.Errorf("%s prints %q", tc.state, tc.text)
		}
		if tc.text.Expose() != tc.exposes || encrypt.State(tc.text.ExposedState()) != tc.state {
			t.Errorf("%s: %q in state %d", tc.state, tc.text.Expose(), tc.text.ExposedState())
		}
	}
	// Texts that are the same are equal to tests, and changing one does not change another.
	if !reflect.DeepEqual(encrypt.NewText("a"), encrypt.NewText("a")) || reflect.DeepEqual(encrypt.NewText("a"), encrypt.NewText("b")) {
		t.Error("reflect.DeepEqual")
	}
	a := shown(encrypt.StateSealed, "")
	b2 := a
	b2.SetExposed("x", 0)
	if a.Expose() != "" || shown(encrypt.StateSealed, "").Expose() != "" || encrypt.State(a.ExposedState()) != encrypt.StateSealed {
		t.Error("a copy changed its original")
	}
	// A database gets nothing in the clear, and gives nothing.
	if v, err := x.Value(); err == nil || v != nil || strings.Contains(err.Error(), secret) {
		t.Errorf("Value: %v, %v", v, err)
	}
	var to encrypt.Text
	for _, src := range []any{secret, []byte(secret), nil, 1} {
		if err := to.Scan(src); err == nil || strings.Contains(err.Error(), secret) || to.Expose() != "" {
			t.Errorf("Scan: %v", err)
		}
	}
	var _ driver.Valuer = encrypt.Text{}
	var _ sql.Scanner = &encrypt.Text{}
	// From outside it comes in the clear.
	var in struct{ A, B encrypt.Text }
	if err := json.Unmarshal([]byte(`{"A":"138","B":null}`), &in); err != nil || in.A.Expose() != "138" || in.B.Expose() != "" {
		t.Errorf("%v, %v", in.A.Expose(), err)
	}
	for _, bad := range []string{`{"A":138}`, `{"A":{"secret":1}}`, `{"A":["secret"]}`, `{"A":true}`} {
		if err := json.Unmarshal([]byte(bad), &in); err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "138") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func sealedSample(t testing.TB) encrypt.Sealed {
	t.Helper()
	c := indexedCodec(t, onlyFolded)
	s, err := c.Seal(ctx, newKeeper(t, newKEK(t), keys.NewMemory(), nil), rec, &indexed{Name: encrypt.NewText("abcd"), Phone: encrypt.NewText("1")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealedColumn(t *testing.T) {
	s := sealedSample(t)
	value, err := s.Value()
	if err != nil {
		t.Fatal(err)
	}
	b, ok := value.([]byte)
	if !ok || !driver.IsValue(value) {
		t.Fatalf("a value of type %T", value)
	}
	var got encrypt.Sealed
	if err := got.Scan(b); err != nil || !reflect.DeepEqual(got, s) {
		t.Fatalf("%+v, %v", got, err)
	}
	if again, err := got.MarshalBinary(); err != nil || !bytes.Equal(again, b) {
		t.Errorf("%v", err)
	}
	if appended, err := s.AppendBinary([]byte("x")); err != nil || !bytes.Equal(appended[1:], b) || appended[0] != 'x' {
		t.Errorf("%v", err)
	}
	// A driver's buffer is not kept.
	was := bytes.Clone(got.Fields[0].Data)
	for i := range b {
		b[i] ^= 0xff
	}
	if !bytes.Equal(got.Fields[0].Data, was) {
		t.Error("Scan kept the driver's buffer")
	}
	for i := range b {
		b[i] ^= 0xff
	}
	canonical(t, b)
	for i := range b {
		canonical(t, b[:i])
		if new(encrypt.Sealed).UnmarshalBinary(b[:i]) == nil {
			t.Errorf("cut to %d of %d bytes, it is read", i, len(b))
		}
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << bit
			canonical(t, bad)
		}
	}
	for _, src := range []any{"x", 1, []byte{}, []byte{2}, []byte{1}, append(bytes.Clone(b), 0), time.Now(), true} {
		x := s
		if err := x.Scan(src); err == nil || !reflect.DeepEqual(x, s) {
			t.Errorf("%T is read: %v", src, err)
		}
	}
	if err := got.Scan(nil); err != nil || got.Fields != nil || got.Persons != nil {
		t.Errorf("NULL: %+v, %v", got, err)
	}
	if b, err := (encrypt.Sealed{}).MarshalBinary(); err != nil || !bytes.Equal(b, []byte{1, 0, 0, 0, 0, 0, 0, 0, 0}) {
		t.Errorf("nothing: %x, %v", b, err)
	}
	if _, err := (encrypt.Sealed{Fields: []encrypt.SealedField{{Name: "phone", Data: []byte("13800138000"), Clear: true}}}).Value(); err == nil || strings.Contains(err.Error(), "138") {
		t.Errorf("a value in the clear is written: %v", err)
	}
}

// canonical checks that what is read is written as the same bytes.
func canonical(t testing.TB, b []byte) {
	t.Helper()
	var s encrypt.Sealed
	if err := s.UnmarshalBinary(b); err != nil {
		if s.Fields != nil || s.Persons != nil {
			t.Errorf("%x: an error leaves something: %+v", b, s)
		}
		return
	}
	again, err := s.MarshalBinary()
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("%x is read and written as %x, %v", b, again, err)
	}
}

// TestFlippedColumn: whatever bit of a record's column flips, Open of all its fields says so or shows what was sealed; it
// never panics and never shows another value.
func TestFlippedColumn(t *testing.T) {
	type record struct {
		A encrypt.Text      `protect:"personal,index=exact:f,leaks=equality"`
		B encrypt.Text      `protect:"personal"`
		C string            `protect:"sensitive,retention=tax"`
		D int64             `protect:"financial"`
		E []encrypt.Text    `protect:"personal"`
		F encrypt.Text      `protect:"sensitive"`
		G map[string]string `protect:"personal"`
		H *string           `protect:"personal"`
	}
	c, err := encrypt.NewCodec[*record](&encrypt.CodecOptions{Normalizers: map[string]func(string) []string{"f": folded}})
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	in := record{
		encrypt.NewText("secret a"), encrypt.NewText("secret b"), "secret c", 4, []encrypt.Text{encrypt.NewText("secret e")},
		encrypt.NewText("secret f"), map[string]string{"k": "secret g"}, ptr("secret h"),
	}
	s, err := c.Seal(ctx, k, rec, &in, nil)
	if err != nil || len(s.Fields) != 8 {
		t.Fatalf("%d fields, %v", len(s.Fields), err)
	}
	column, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	shown := func(v *record) map[string]string {
		out := map[string]string{"a": v.A.Expose(), "b": v.B.Expose(), "c": v.C, "d": fmt.Sprint(v.D), "f": v.F.Expose(), "g": v.G["k"]}
		for _, e := range v.E {
			out["e"] += e.Expose()
		}
		if v.H != nil {
			out["h"] = *v.H
		}
		return out
	}
	want := shown(&in)
	form, refused, opened := 0, 0, 0
	for i := range column {
		for bit := range 8 {
			bad := bytes.Clone(column)
			bad[i] ^= 1 << bit
			var x encrypt.Sealed
			if x.UnmarshalBinary(bad) != nil {
				form++
				continue
			}
			var v record
			_, err := c.Open(ctx, k, rec, x.Fields, &v, c.SealedNames()...)
			if err != nil {
				if !errors.Is(err, encrypt.ErrTampered) && !errors.Is(err, encrypt.ErrKeyMissing) || strings.Contains(err.Error(), "secret") {
					t.Fatalf("byte %d, bit %d: %v", i, bit, err)
				}
				refused++
				continue
			}
			opened++ // a name or a token; a renamed field is one that the type does not have
			for name, got := range shown(&v) {
				if got != want[name] && got != "" && got != "0" {
					t.Fatalf("byte %d, bit %d: field %s shows %q", i, bit, name, got)
				}
			}
		}
	}
	if refused < 8*38*8 {
		t.Errorf("only %d refused", refused)
	}
	t.Logf("%d bits: %d no column, %d refused, %d opened", 8*len(column), form, refused, opened)
}

func FuzzSealed(f *testing.F) {
	b, err := sealedSample(f).MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) { canonical(t, b) })
}

func TestMigration(t *testing.T) {
	normal := &encrypt.CodecOptions{Normalizers: onlyFolded}
	moving := &encrypt.CodecOptions{Normalizers: onlyFolded, Migrating: []string{"name", "phone"}}
	strict, err := encrypt.NewCodec[*indexed](normal)
	if err != nil {
		t.Fatal(err)
	}
	c, err := encrypt.NewCodec[*indexed](moving)
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	plain, err := strict.SealTo(ctx, k, &rec, nil, "plain", []byte("p"))
	if err != nil {
		t.Fatal(err)
	}
	old := []encrypt.SealedField{
		{Name: "name", Data: []byte("Zhang Wei"), Clear: true}, {Name: "phone", Data: []byte("138"), Clear: true}, {Name: "plain", Data: plain},
	}
	tampered := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, encrypt.ErrTampered) || strings.Contains(err.Error(), "Zhang") {
			t.Errorf("%s: %v", what, err)
		}
	}
	var v indexed
	_, err = strict.Open(ctx, k, rec, old, &v, "name")
	tampered("a clear value that nobody announced", err)
	if v.Name.Expose() != "" {
		t.Error("it was opened")
	}
	_, err = strict.OpenAll(ctx, k, []encrypt.Record{rec, rec}, [][]encrypt.SealedField{old, old}, []*indexed{{}, {}}, "name")
	tampered("in a page", err)
	_, _, err = strict.Reseal(ctx, k, rec, &indexed{}, old)
	tampered("resealed", err)
	_, err = strict.Seal(ctx, k, rec, &indexed{}, old, "name", "phone", "plain")
	tampered("kept", err)
	_, err = c.Open(ctx, k, rec, []encrypt.SealedField{{Name: "plain", Data: []byte("Zhang"), Clear: true}}, &v, "plain")
	tampered("a field that does not move", err)
	_, err = c.Seal(ctx, k, rec, &indexed{}, []encrypt.SealedField{{Name: "plain", Data: []byte("Zhang"), Clear: true}}, "plain")
	tampered("a field that does not move, kept", err)
	// Read.
	states, err := c.Open(ctx, k, rec, old, &v, c.SealedNames()...)
	if err != nil || v.Name.Expose() != "Zhang Wei" || v.Phone.Expose() != "138" || v.Plain.Expose() != "p" || c.State(states, "name") != encrypt.StateClear {
		t.Fatalf("%q, %v", v.Name.Expose(), err)
	}
	if _, err := c.Open(ctx, k, rec, old, &v, "plain"); err != nil || v.Name.Expose() != "" || v.Name.ExposedState() != uint8(encrypt.StateSealed) {
		t.Errorf("a clear value is shown unasked: %v", err)
	}
	// Sealed: by a pass, by a write of what was opened, and by a write of what was not.
	var opened indexed
	if _, err := c.Open(ctx, k, rec, old, &opened, c.SealedNames()...); err != nil {
		t.Fatal(err)
	}
	unopened := indexed{Stage: "won"}
	if _, err := c.Open(ctx, k, rec, old, &unopened); err != nil {
		t.Fatal(err)
	}
	resealed, changed, err := c.Reseal(ctx, k, rec, &indexed{}, old)
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	if _, changed, err := c.Reseal(ctx, k, rec, &indexed{}, resealed.Fields); err != nil || changed {
		t.Errorf("resealed twice: %v, %v", changed, err)
	}
	written, err := c.Seal(ctx, k, rec, &opened, old)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := c.Seal(ctx, k, rec, &unopened, old)
	if err != nil {
		t.Fatal(err)
	}
	for what, s := range map[string]encrypt.Sealed{"resealed": resealed, "written": written, "kept": kept} {
		for _, f := range s.Fields {
			if f.Clear || bytes.Contains(f.Data, []byte("Zhang")) || bytes.Contains(f.Data, []byte("138")) {
				t.Errorf("%s: %s is still in the clear", what, f.Name)
			}
		}
		var v indexed
		if _, err := strict.Open(ctx, k, rec, s.Fields, &v, strict.SealedNames()...); err != nil || v.Name.Expose() != "Zhang Wei" || v.Phone.Expose() != "138" || v.Plain.Expose() != "p" {
			t.Errorf("%s: %v", what, err)
		}
		for _, q := range []struct {
			field string
			typed []string
		}{{"name", []string{"zhangwei"}}, {"phone", []string{"138"}}, {"name+phone", []string{"zhangwei", "138"}}} {
			query, err := strict.Query(ctx, k, "acme", q.field, "exact", q.typed...)
			if err != nil || !carries(s, query) {
				t.Errorf("%s: not found by %s: %v", what, q.field, err)
			}
		}
	}
	// The migration is over when no codec announces it.
	if _, changed, err := strict.Reseal(ctx, k, rec, &indexed{}, resealed.Fields); err != nil || changed {
		t.Errorf("afterwards: %v, %v", changed, err)
	}
}

func TestSealTo(t *testing.T) {
	type page struct {
		Title  encrypt.Text `protect:"personal"`
		Body   []byte       `protect:"sensitive"`
		Word   string       `protect:"internal,seal,retention=tax"`
		Signer encrypt.Text `protect:"personal,person=By"`
		By     id           `protect:"internal"`
		Stage  string       `protect:"internal"`
		N      int          `protect:"personal"`
	}
	c, err := encrypt.NewCodec[*page](nil)
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	v := &page{Title: encrypt.NewText("t"), Body: []byte("body"), Word: "w", Signer: encrypt.NewText("s"), By: id{7}}
	s, err := c.Seal(ctx, k, rec, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	signer := rec
	signer.Person = [16]byte{7}
	for _, tc := range []struct {
		field, text string
		rec         encrypt.Record
	}{{"title", "t", rec}, {"body", "body", rec}, {"word", "w", rec}, {"signer", "s", signer}} {
		// What Seal sealed, OpenTo opens, behind what is there already.
		for _, dst := range [][]byte{nil, []byte("before "), make([]byte, 0, 4), append(make([]byte, 0, 500), "before "...)} {
			was := string(dst)
			got, err := c.OpenTo(ctx, k, &tc.rec, dst, tc.field, field(t, s, tc.field).Data)
			if err != nil || string(got) != was+tc.text {
				t.Errorf("%s: %q, %v", tc.field, got, err)
			}
			sealed, err := c.SealTo(ctx, k, &tc.rec, dst, tc.field, []byte(tc.text))
			if err != nil || !bytes.HasPrefix(sealed, []byte(was)) || len(sealed) != len(was)+len(tc.text)+38 {
				t.Fatalf("%s: %d bytes, %v", tc.field, len(sealed), err)
			}
			var v page
			v.By = id{7}
			if _, err := c.Open(ctx, k, rec, []encrypt.SealedField{{Name: tc.field, Data: sealed[len(was):]}}, &v, tc.field); err != nil {
				t.Errorf("%s: %v", tc.field, err)
			}
			if all := v.Title.Expose() + string(v.Body) + v.Word + v.Signer.Expose(); all != tc.text {
				t.Errorf("%s: %q", tc.field, all)
			}
		}
		data := field(t, s, tc.field).Data
		for i := range data {
			bad := bytes.Clone(data)
			bad[i] ^= 0x80
			dst := []byte("before ")
			for _, d := range [][]byte{bad, data[:i]} {
				got, err := c.OpenTo(ctx, k, &tc.rec, dst, tc.field, d)
				if !errors.Is(err, encrypt.ErrTampered) && !errors.Is(err, encrypt.ErrKeyMissing) || string(got) != "before " {
					t.Fatalf("%s, byte %d: %q, %v", tc.field, i, got, err)
				}
			}
		}
	}
	if got, err := c.SealTo(ctx, k, &rec, []byte("x"), "title", nil); err != nil || string(got) != "x" {
		t.Errorf("an absent text: %q, %v", got, err)
	}
	for _, name := range []string{"stage", "n", "by", "nope", ""} {
		if got, err := c.SealTo(ctx, k, &rec, []byte("x"), name, []byte("y")); err == nil || string(got) != "x" {
			t.Errorf("sealed %q: %q", name, got)
		}
		if got, err := c.OpenTo(ctx, k, &rec, []byte("x"), name, field(t, s, "title").Data); err == nil || string(got) != "x" {
			t.Errorf("opened %q: %q", name, got)
		}
	}
	if _, err := c.SealTo(ctx, k, &encrypt.Record{Tenant: "acme"}, nil, "title", []byte("y")); err == nil {
		t.Error("no person")
	}
	if _, err := c.SealTo(ctx, k, &encrypt.Record{Person: rec.Person}, nil, "title", []byte("y")); err == nil {
		t.Error("no tenant")
	}
}

// TestSwaps puts every value in every other place. Nothing tells the places apart: one error, one text.
func TestSwaps(t *testing.T) {
	type base struct {
		A encrypt.Text `protect:"personal"`
		B encrypt.Text `protect:"personal"`
		S encrypt.Text `protect:"sensitive"`
		T encrypt.Text `protect:"personal,retention=tax"`
		N int64        `protect:"personal"`
	}
	type graver struct { // the same names in another class
		A encrypt.Text `protect:"sensitive"`
	}
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	grave, err := encrypt.NewCodec[*graver](&encrypt.CodecOptions{Type: "lead"})
	if err != nil {
		t.Fatal(err)
	}
	codecs := map[string]*encrypt.Codec[*base]{}
	for _, typ := range []string{"lead", "contact"} {
		if codecs[typ], err = encrypt.NewCodec[*base](&encrypt.CodecOptions{Type: typ}); err != nil {
			t.Fatal(err)
		}
	}
	type place struct {
		tenant, typ, field string
		id, person         byte
	}
	type value struct {
		place
		generation int
		data       []byte
	}
	var values []value
	whole := map[place][]encrypt.SealedField{} // the records, by a place without its field
	for g := range 2 {
		for _, tenant := range []string{"acme", "globex"} {
			if g == 1 {
				if _, err := k.Renew(ctx, tenant); err != nil {
					t.Fatal(err)
				}
			}
			for typ, c := range codecs {
				for id := byte(1); id <= 2; id++ {
					for person := byte(1); person <= 2; person++ {
						r := encrypt.Record{Tenant: tenant, ID: [16]byte{id}, Person: [16]byte{person}}
						x := encrypt.NewText("the same")
						s, err := c.Seal(ctx, k, r, &base{x, x, x, x, 5}, nil)
						if err != nil {
							t.Fatal(err)
						}
						for _, f := range s.Fields {
							values = append(values, value{place{tenant, typ, f.Name, id, person}, g, f.Data})
						}
						whole[place{tenant, typ, "", id, person}] = s.Fields
					}
				}
			}
		}
	}
	open := func(p place, data []byte) error {
		r := encrypt.Record{Tenant: p.tenant, ID: [16]byte{p.id}, Person: [16]byte{p.person}}
		var v, w base
		_, err := codecs[p.typ].Open(ctx, k, r, []encrypt.SealedField{{Name: p.field, Data: data}}, &v, p.field)
		if err != nil && (v.A.Expose()+v.B.Expose()+v.S.Expose()+v.T.Expose() != "" || v.N != 0) {
			t.Error("a refused value is shown")
		}
		of := p
		of.field = ""
		all := slices.Clone(whole[of])
		for i := range all {
			if all[i].Name == p.field {
				all[i].Data = data
			}
		}
		if _, among := codecs[p.typ].Open(ctx, k, r, all, &w, "a", "b", "s", "t", "n"); fmt.Sprint(among) != fmt.Sprint(err) {
			t.Fatalf("%+v: alone %v, among others %v", p, err, among)
		}
		return err
	}
	refused := func(from value, to place, data []byte) {
		t.Helper()
		err := open(to, data)
		if !errors.Is(err, encrypt.ErrTampered) || errors.Is(err, encrypt.ErrErased) || errors.Is(err, encrypt.ErrKeyMissing) || errors.Is(err, encrypt.ErrRetired) {
			t.Fatalf("%+v in the place of %+v: %v", from.place, to, err)
		}
		if want := encrypt.ErrTampered.Error() + ": field " + to.field; err.Error() != want {
			t.Fatalf("%+v in the place of %+v says %q", from.place, to, err)
		}
	}
	swaps, abroad := 0, 0
	for _, from := range values {
		if err := open(from.place, from.data); err != nil {
			t.Fatalf("%+v in its own place: %v", from.place, err)
		}
		for _, to := range values {
			switch {
			case to.place == from.place:
				if to.generation != from.generation { // under the other generation's key id
					mixed := append(bytes.Clone(to.data[:10]), from.data[10:]...)
					refused(from, to.place, mixed)
					swaps++
				}
			case to.tenant != from.tenant:
				// Key ids are random and belong to their tenant: one from elsewhere names a key that is not here.
				// Where the person has a key, that is damage and no lost key.
				refused(from, to.place, from.data)
				// With a key id of this tenant it does not open either.
				refused(from, to.place, append(bytes.Clone(to.data[:10]), from.data[10:]...))
				abroad++
			default:
				refused(from, to.place, from.data)
				refused(from, to.place, append(bytes.Clone(to.data[:10]), from.data[10:]...))
				swaps++
			}
		}
		if from.typ == "lead" && from.field == "a" {
			r := encrypt.Record{Tenant: from.tenant, ID: [16]byte{from.id}, Person: [16]byte{from.person}}
			if _, err := grave.Open(ctx, k, r, []encrypt.SealedField{{Name: "a", Data: from.data}}, &graver{}, "a"); !errors.Is(err, encrypt.ErrTampered) {
				t.Fatalf("in another class: %v", err)
			}
		}
	}
	// Details and secrets are no fields, nor of another label or person.
	detail, err := k.SealFor(ctx, "acme", [16]byte{1}, "log", []byte("ad"), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := k.SealTenant(ctx, "acme", "log", []byte("ad"), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for i, tc := range []struct {
		person byte
		label  string
		ad     string
		data   []byte
	}{
		{2, "log", "ad", detail}, {1, "file", "ad", detail}, {1, "log", "aD", detail}, {1, "log", "", detail}, {1, "log", "ad", secret},
		{1, "log", "ad", values[0].data}, {1, "log", "ad", nil}, {1, "log", "ad", detail[:37]},
	} {
		if _, err := k.OpenFor(ctx, "acme", [16]byte{tc.person}, tc.label, []byte(tc.ad), tc.data); err == nil || err.Error() != encrypt.ErrTampered.Error() {
			t.Errorf("detail %d: %v", i, err)
		}
	}
	for i, data := range [][]byte{detail, secret} {
		for name := range map[string]bool{"a": true, "n": true} {
			if err := open(place{"acme", "lead", name, 1, 1}, data); !errors.Is(err, encrypt.ErrTampered) && !(i == 1 && errors.Is(err, encrypt.ErrKeyMissing)) {
				t.Errorf("%d as field %s: %v", i, name, err)
			}
		}
	}
	for _, label := range []string{"", "field", "Log", "a b", strings.Repeat("x", 33), "日志"} {
		if _, err := k.SealFor(ctx, "acme", [16]byte{1}, label, nil, nil); err == nil {
			t.Errorf("label %q", label)
		}
		if _, err := k.SealTenant(ctx, "acme", label, nil, nil); err == nil {
			t.Errorf("label %q", label)
		}
	}
	t.Logf("%d values, %d places within a tenant, %d in another", len(values), swaps, abroad)
}

// TestTokensTo: the tokens of a text alone are those of Seal, but for compound indexes.
func TestTokensTo(t *testing.T) {
	c, k := indexedCodec(t, onlyFolded), newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	for _, name := range []string{"", "张", "Zhang Wei", "   ", "张伟ab"} {
		s, err := c.Seal(ctx, k, rec, &indexed{Name: encrypt.NewText(name)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		first := encrypt.Token{Value: 7}
		got, err := c.TokensTo(ctx, k, &rec, []encrypt.Token{first}, "name", name)
		if err != nil || got[0] != first || !slices.Equal(got[1:], tokensOf(s, "name")) {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	both, err := c.Seal(ctx, k, rec, &indexed{Name: encrypt.NewText("abc"), Phone: encrypt.NewText("1")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.TokensTo(ctx, k, &rec, nil, "name", "abc"); err != nil || len(got) != len(tokensOf(both, "name"))-1 {
		t.Errorf("beside a compound: %v, %v", got, err)
	}
	if got, err := c.TokensTo(ctx, k, &rec, nil, "name", strings.Repeat("secret", 1000)); err == nil || got != nil && len(got) > 512*2 || strings.Contains(err.Error(), "secret") {
		t.Errorf("too long: %d tokens, %v", len(got), err)
	}
	for _, name := range []string{"stage", "nope", ""} {
		if _, err := c.TokensTo(ctx, k, &rec, nil, name, "x"); err == nil {
			t.Errorf("tokens of %q", name)
		}
	}
	if _, err := c.TokensTo(ctx, k, &encrypt.Record{}, nil, "name", "x"); err == nil {
		t.Error("no tenant")
	}
}

// caller has a field with two exact terms and one without an index.
type caller struct {
	Mobile encrypt.Text `protect:"personal,index=exact:phone,index=suffix4:phone:12,leaks=equality"`
	Name   encrypt.Text `protect:"personal"`
	Stage  string       `protect:"internal"`
}

// TestTerms: the terms of a value are those of the whole exact indexes of its field, by every version of their normaliser.
func TestTerms(t *testing.T) {
	digits := func(prefix string) func(string) []string {
		return func(s string) []string { return []string{prefix + strings.ReplaceAll(s, " ", ""), ""} }
	}
	c, err := encrypt.NewCodec[*caller](&encrypt.CodecOptions{Normalizers: map[string]func(string) []string{"phone": digits(""), "phone/2": digits("+")}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	add := func(normalizer, term string) { got = append(got, normalizer+"="+term) }
	if err := c.Terms("mobile", "1 2 34", add); err != nil || !slices.Equal(got, []string{"phone/1=1234", "phone/2=+1234"}) {
		t.Errorf("%q, %v", got, err)
	}
	got = nil
	if err := c.Terms("name", "Ann", add); err != nil || got != nil {
		t.Errorf("without an index: %q, %v", got, err)
	}
	for _, name := range []string{"stage", "nope", ""} {
		if err := c.Terms(name, "secret", add); err == nil || strings.Contains(err.Error(), "secret") || got != nil {
			t.Errorf("terms of %q: %q, %v", name, got, err)
		}
	}
}

func TestConceal(t *testing.T) {
	type shown struct {
		Text  encrypt.Text `protect:"personal,mask=last"`
		Bare  encrypt.Text `protect:"personal"`
		Str   string       `protect:"personal,mask=last"`
		Ptr   *string      `protect:"personal,mask=last"`
		Plain string       `protect:"personal"`
		N     int          `protect:"personal"`
		Stage string       `protect:"internal"`
	}
	c, err := encrypt.NewCodec[*shown](&encrypt.CodecOptions{Masks: map[string]func(string) string{"last": func(s string) string { return "*" + s[len(s)-1:] }}})
	if err != nil {
		t.Fatal(err)
	}
	full := func() *shown {
		return &shown{encrypt.NewText("abc"), encrypt.NewText("abc"), "abc", ptr("abc"), "abc", 5, "lead"}
	}
	names := []string{"text", "bare", "str", "ptr", "plain", "n", "stage"}
	for _, tc := range []struct {
		state encrypt.State
		want  shown
	}{
		{encrypt.StateMasked, shown{Str: "*c", Ptr: ptr("*c")}}, {encrypt.StateHidden, shown{Str: "", Ptr: nil}},
	} {
		v := full()
		for range 2 { // twice is once
			for _, name := range names {
				if tc.state == encrypt.StateMasked && (name == "str" || name == "ptr") && v.Str == "*c" && v.Ptr != nil && *v.Ptr == "*c" {
					continue
				}
				if err := c.Conceal(v, name, tc.state); err != nil {
					t.Fatal(err)
				}
			}
		}
		mask := ""
		if tc.state == encrypt.StateMasked {
			mask = "*c"
		}
		if v.Text.Expose() != mask || v.Bare.Expose() != "" || v.Text.ExposedState() != uint8(tc.state) || v.Bare.ExposedState() != uint8(tc.state) {
			t.Errorf("%s: %q in state %d", tc.state, v.Text.Expose(), v.Text.ExposedState())
		}
		v.Text, v.Bare = encrypt.Text{}, encrypt.Text{}
		if !reflect.DeepEqual(*v, tc.want) {
			t.Errorf("%s: %+v", tc.state, v)
		}
	}
	// What shows less already shows no more: a hidden text does not become a mask, an erased one stays erased.
	var v shown
	v.Text.SetExposed("", uint8(encrypt.StateErased))
	v.Bare.SetExposed("", uint8(encrypt.StateErased))
	for _, st := range []encrypt.State{encrypt.StateMasked, encrypt.StateHidden} {
		if err := errors.Join(c.Conceal(&v, "text", st), c.Conceal(&v, "bare", st)); err != nil || v.Text.ExposedState() != uint8(encrypt.StateErased) {
			t.Errorf("%s of an erased text: state %d, %v", st, v.Text.ExposedState(), err)
		}
	}
	v = shown{}
	if err := errors.Join(c.Conceal(&v, "text", encrypt.StateMasked), c.Conceal(&v, "ptr", encrypt.StateMasked)); err != nil || v.Text.ExposedState() != 0 || v.Ptr != nil {
		t.Errorf("a mask of nothing: %+v, %v", v, err)
	}
	for _, st := range []encrypt.State{encrypt.StateClear, encrypt.StateSealed, encrypt.StateErased, 9} {
		v := full()
		if err := c.Conceal(v, "text", st); err == nil || v.Text.Expose() != "abc" {
			t.Errorf("concealed as %s", st)
		}
	}
	if err := c.Conceal(full(), "nope", encrypt.StateMasked); err == nil {
		t.Error("an unknown field")
	}
	for st, name := range map[encrypt.State]string{0: "clear", 1: "masked", 2: "hidden", 3: "sealed", 4: "erased", 5: "unknown"} {
		if st.String() != name {
			t.Errorf("%d is %s", st, st)
		}
	}
}

func TestSetClearRefusals(t *testing.T) {
	type columns struct {
		S string     `protect:"internal"`
		I int8       `protect:"internal"`
		U uint16     `protect:"internal"`
		B bool       `protect:"internal"`
		T time.Time  `protect:"internal"`
		P *time.Time `protect:"internal"`
		D id         `protect:"internal"`
		J []string   `protect:"internal"`
	}
	c, err := encrypt.NewCodec[*columns](nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	v := columns{"s", -128, 65535, true, now, &now, id{1}, []string{"a"}}
	values, err := c.ClearValues(&v)
	if err != nil {
		t.Fatal(err)
	}
	var got columns
	if err := c.SetClear(&got, values); err != nil || !reflect.DeepEqual(got, v) {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := c.SetClear(&got, make([]any, len(values))); err != nil || !reflect.DeepEqual(got, columns{}) {
		t.Errorf("nothing: %+v, %v", got, err)
	}
	for i, bad := range [][]any{
		{1, int64(1), true, 1.5, []byte("x")},
		{int64(128), int64(-129), "1", 1, true},
		{int64(-1), int64(65536), "1"},
		{int64(1), "true"},
		{"2026", int64(1)},
		{"2026", int64(1)},
		{"zz", int64(1), "01"},
		{"{", `{"secret":1}`, int64(1), `"secret"`},
	} {
		for _, x := range bad {
			all := slices.Clone(values)
			all[i] = x
			if err := c.SetClear(new(columns), all); err == nil || !strings.Contains(err.Error(), "field "+c.Fields()[i].Name) || strings.Contains(err.Error(), "secret") {
				t.Errorf("column %d of %T %v: %v", i, x, x, err)
			}
		}
	}
	for _, n := range []int{0, len(values) - 1, len(values) + 1} {
		if err := c.SetClear(new(columns), make([]any, n)); err == nil {
			t.Errorf("%d values", n)
		}
	}
}
