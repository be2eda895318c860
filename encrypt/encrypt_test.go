package encrypt_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/encrypt/normalize"
)

var ctx = context.Background()

// text is a protected text type as a domain package would write it.
type text struct {
	s     string
	state uint8
}

func (t text) Expose() string                 { return t.s }
func (t text) ExposedState() uint8            { return t.state }
func (t *text) SetExposed(s string, st uint8) { t.s, t.state = s, st }

type id [16]byte

func (i id) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%x", i[:]), nil }
func (i *id) UnmarshalText(b []byte) error {
	var raw []byte
	if _, err := fmt.Sscanf(string(b), "%x", &raw); err != nil || len(raw) != 16 {
		return errors.New("not an id")
	}
	copy(i[:], raw)
	return nil
}

type audit struct {
	Created time.Time `protect:"internal"`
}

type customer struct {
	audit
	Name     text              `protect:"personal,mask=name,index=exact:name"`
	Phone    text              `protect:"personal,mask=phone,unique=exact:phone"`
	Note     string            `json:"remark" protect:"sensitive"`
	Income   int64             `protect:"financial,retention=tax"`
	VIP      bool              `protect:"internal,seal"`
	Born     time.Time         `protect:"personal"`
	Photo    []byte            `protect:"sensitive"`
	Tags     []string          `protect:"internal"`
	Extra    map[string]string `protect:"personal"`
	Stage    string            `protect:"internal"`
	Score    int32             `protect:"public"`
	Closed   *time.Time        `protect:"internal"`
	Signer   text              `protect:"personal,person=SignerID,retention=contract"`
	SignerID id                `protect:"internal"`
	Draft    string            `protect:"-"`
}

func codecOptions() *encrypt.CodecOptions {
	return &encrypt.CodecOptions{Normalizers: normalize.Normalizers("CN"), Masks: normalize.Masks()}
}

func newCodec(t testing.TB) *encrypt.Codec[*customer] {
	t.Helper()
	c, err := encrypt.NewCodec[*customer](codecOptions())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKEK(t testing.TB) *encrypttest.FaultKEK {
	t.Helper()
	k, err := localkek.Open(filepath.Join(t.TempDir(), "kek"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return encrypttest.NewFaultKEK(k)
}

func newKeeper(t testing.TB, kek keys.KEK, store keys.Store, opts *encrypt.Options) *encrypt.Keeper {
	t.Helper()
	k, err := encrypt.NewKeeper(kek, store, opts)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sample() *customer {
	closed := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	return &customer{
		audit: audit{time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)},
		Name:  text{s: "张伟"}, Phone: text{s: "138 0013 8000"}, Note: "likes tea", Income: -5, VIP: true,
		Born: time.Date(1990, 1, 1, 0, 0, 0, 7, time.UTC), Photo: []byte{0, 1, 2}, Tags: []string{"a"},
		Extra: map[string]string{"wechat": "zw"}, Stage: "lead", Score: 7, Closed: &closed,
		Signer: text{s: "李娜"}, SignerID: id{9},
	}
}

var rec = encrypt.Record{Tenant: "acme", ID: [16]byte{1}, Person: [16]byte{2}}

// TestRoundTrip: a record is sealed, holds nothing in the clear, and opens to what it was, field by field.
//
//crm:item 17
func TestRoundTrip(t *testing.T) {
	c, k := newCodec(t), newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	v := sample()
	sealed, err := c.Seal(ctx, k, rec, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	clearValues, err := c.ClearValues(v)
	if err != nil {
		t.Fatal(err)
	}
	if want := [][16]byte{{2}, {9}}; !reflect.DeepEqual(sealed.Persons, want) {
		t.Fatalf("persons %v", sealed.Persons)
	}
	for i, f := range sealed.Fields {
		if i > 0 && sealed.Fields[i-1].Name >= f.Name {
			t.Fatal("fields are not sorted")
		}
		if strings.Contains(string(f.Data), "张伟") {
			t.Fatal("plaintext in a sealed field")
		}
	}
	var got customer
	if err := c.SetClear(&got, clearValues); err != nil {
		t.Fatal(err)
	}
	states, err := c.Open(ctx, k, rec, sealed.Fields, &got, c.SealedNames()...)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&got, v) {
		t.Fatalf("got %+v\nwant %+v", got, *v)
	}
	if s := c.State(states, "phone"); s != encrypt.StateClear {
		t.Fatalf("state %v", s)
	}
	// Only what was named is opened.
	got = customer{}
	if err := c.SetClear(&got, clearValues); err != nil {
		t.Fatal(err)
	}
	states, err = c.Open(ctx, k, rec, sealed.Fields, &got, "phone")
	if err != nil {
		t.Fatal(err)
	}
	if got.Phone.s != "138 0013 8000" || got.Name != (text{"", 3}) || got.Note != "" || c.State(states, "name") != encrypt.StateSealed {
		t.Fatalf("opened more than was named: %+v", got)
	}
	if err := c.Conceal(&got, "phone", encrypt.StateMasked); err != nil || got.Phone != (text{"138****8000", 1}) {
		t.Fatalf("masked: %+v, %v", got.Phone, err)
	}
	// What was masked or not opened is kept when the record is written back.
	got.Note, got.Stage = "likes coffee", "won"
	again, err := c.Seal(ctx, k, rec, &got, sealed.Fields, "born", "photo", "extra", "income", "vip")
	if err != nil {
		t.Fatal(err)
	}
	got = customer{SignerID: id{9}}
	if _, err := c.Open(ctx, k, rec, again.Fields, &got, c.SealedNames()...); err != nil {
		t.Fatal(err)
	}
	if got.Phone.s != "138 0013 8000" || got.Name.s != "张伟" || got.Note != "likes coffee" || !got.VIP || got.Income != -5 {
		t.Fatalf("written back: %+v", got)
	}
	for _, f := range again.Fields {
		if f.Name == "phone" && (len(f.Tokens) != 1 || !f.Tokens[0].Unique) {
			t.Fatal("tokens of a kept field are lost")
		}
	}
	got.Phone = text{"138****8000", 1}
	if _, err := c.Seal(ctx, k, rec, &got, nil); !errors.Is(err, encrypt.ErrNotClear) || strings.Contains(err.Error(), "138") {
		t.Fatalf("masked value without the previous one: %v", err)
	}
	other := rec
	other.Person = [16]byte{77}
	if _, err := c.Seal(ctx, k, other, &got, again.Fields); !errors.Is(err, encrypt.ErrTampered) {
		t.Fatalf("kept for another person: %v", err)
	}
}

func TestTokens(t *testing.T) {
	c, k := newCodec(t), newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	sealed, err := c.Seal(ctx, k, rec, sample(), nil)
	if err != nil {
		t.Fatal(err)
	}
	token := func(name string) int64 {
		for _, f := range sealed.Fields {
			if f.Name == name {
				return f.Tokens[0].Value
			}
		}
		t.Fatal("no field " + name)
		return 0
	}
	for _, typed := range []string{"13800138000", "+86 138-0013-8000", "0086 138 0013 8000"} {
		got, err := c.Query(ctx, k, "acme", "phone", "exact", typed)
		if err != nil || len(got.Groups) != 1 || len(got.Groups[0]) != 1 || got.Groups[0][0] != token("phone") {
			t.Fatalf("%q is not found: %v %v", typed, got, err)
		}
	}
	if _, err := c.Query(ctx, k, "other", "phone", "exact", "13800138000"); !errors.Is(err, encrypt.ErrKeyMissing) {
		t.Fatalf("a query of a tenant without keys: %v", err)
	}
	if _, err := k.MAC(ctx, "other", "row", nil); err != nil {
		t.Fatal(err)
	}
	elsewhere, err := c.Query(ctx, k, "other", "phone", "exact", "13800138000")
	if err != nil || elsewhere.Groups[0][0] == token("phone") {
		t.Fatal("two tenants share a token")
	}
	for _, q := range []struct{ field, typed string }{{"remark", "x"}, {"stage", "x"}, {"nope", "x"}, {"phone", ""}, {"phone", "ext"}, {"name", " · "}} {
		if got, err := c.Query(ctx, k, "acme", q.field, "exact", q.typed); !errors.Is(err, encrypt.ErrUnsupported) || got.Groups != nil {
			t.Fatalf("%+v: got %v, %v", q, got, err)
		}
	}
}

// TestQueryAll: many questions have the answers that each has by itself, and one that cannot be asked has none.
func TestQueryAll(t *testing.T) {
	c, k := newCodec(t), newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	asks := []encrypt.Ask{
		{"phone", "exact", []string{"13800138000"}}, {"phone", "exact", []string{"ext"}}, {"name", "exact", []string{"张伟"}}, {"nope", "exact", []string{"x"}},
		{"phone", "exact", []string{"+86 138-0013-8000"}}, {"phone", "exact", []string{""}}, {"stage", "", []string{"x"}}, {"phone", "exact", nil},
	}
	if _, err := c.QueryAll(ctx, k, "acme", asks); !errors.Is(err, encrypt.ErrKeyMissing) {
		t.Fatalf("of a tenant without keys: %v", err)
	}
	if _, err := c.Seal(ctx, k, rec, sample(), nil); err != nil {
		t.Fatal(err)
	}
	all, err := c.QueryAll(ctx, k, "acme", asks)
	if err != nil || len(all) != len(asks) {
		t.Fatalf("%d answers, %v", len(all), err)
	}
	answered := 0
	for i, a := range asks {
		one, err := c.Query(ctx, k, "acme", a.Field, a.Kind, a.Typed...)
		if err != nil && !errors.Is(err, encrypt.ErrUnsupported) {
			t.Fatal(err)
		}
		if len(one.Groups) != len(all[i].Groups) || len(one.Groups) > 0 && !slices.Equal(one.Groups[0], all[i].Groups[0]) {
			t.Errorf("%+v: %v by itself, %v with the others", a, one.Groups, all[i].Groups)
		}
		answered += min(len(one.Groups), 1)
	}
	if answered != 3 || all[0].Groups[0][0] != all[4].Groups[0][0] {
		t.Errorf("%d were answered", answered)
	}
	if none, err := c.QueryAll(ctx, k, "acme", nil); err != nil || len(none) != 0 {
		t.Errorf("nothing asked: %v, %v", none, err)
	}
}

func TestTamper(t *testing.T) {
	c, store := newCodec(t), keys.NewMemory()
	k := newKeeper(t, newKEK(t), store, nil)
	v := &customer{Phone: text{s: "13800138000"}, Name: text{s: "张伟"}, Note: "tea"}
	sealed, err := c.Seal(ctx, k, rec, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	neighbour := rec
	neighbour.ID, neighbour.Person = [16]byte{5}, [16]byte{6}
	theirs, err := c.Seal(ctx, k, neighbour, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	byName := func(s encrypt.Sealed, name string) []byte {
		for _, f := range s.Fields {
			if f.Name == name {
				return f.Data
			}
		}
		return nil
	}
	phone, name := byName(sealed, "phone"), byName(sealed, "name")
	refuse := func(what string, r encrypt.Record, field string, data []byte) {
		t.Helper()
		all := []encrypt.SealedField{{Name: field, Data: data}}
		_, alone := c.Open(ctx, k, r, all, &customer{}, field)
		// Among the texts of its record, of which some are open already.
		for _, f := range sealed.Fields {
			if f.Name != field {
				all = append(all, f)
			}
		}
		_, among := c.Open(ctx, k, r, all, &customer{}, c.SealedNames()...)
		for _, err := range []error{alone, among} {
			if !errors.Is(err, encrypt.ErrTampered) && !errors.Is(err, encrypt.ErrKeyMissing) {
				t.Fatalf("%s: %v", what, err)
			}
			if strings.Contains(err.Error(), "138") {
				t.Fatal("the error shows the value")
			}
		}
	}
	for i := range phone {
		bad := append([]byte(nil), phone...)
		bad[i] ^= 1
		refuse(fmt.Sprint("flip ", i), rec, "phone", bad)
		refuse(fmt.Sprint("cut ", i), rec, "phone", phone[:i])
	}
	refuse("longer", rec, "phone", append(append([]byte(nil), phone...), 0))
	refuse("another field's", rec, "phone", name)
	refuse("another record and person", rec, "phone", byName(theirs, "phone"))
	r := rec
	r.ID[15] = 1
	refuse("another record", r, "phone", phone)
	r = rec
	r.Person[15] = 1
	refuse("another person", r, "phone", phone)
	r = rec
	r.Tenant = "other"
	refuse("another tenant", r, "phone", phone)
	type lead struct {
		Phone text `protect:"personal"`
	}
	type customer2 struct {
		Phone text `protect:"sensitive"`
	}
	l, err := encrypt.NewCodec[*lead](nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Open(ctx, k, rec, []encrypt.SealedField{{Name: "phone", Data: phone}}, &lead{}, "phone"); !errors.Is(err, encrypt.ErrTampered) {
		t.Fatalf("another type: %v", err)
	}
	c2, err := encrypt.NewCodec[*customer2](&encrypt.CodecOptions{Type: "customer"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c2.Open(ctx, k, rec, []encrypt.SealedField{{Name: "phone", Data: phone}}, &customer2{}, "phone"); !errors.Is(err, encrypt.ErrTampered) {
		t.Fatalf("another class: %v", err)
	}
	twice := []encrypt.SealedField{{Name: "phone", Data: phone}, {Name: "phone", Data: phone}}
	if _, err := c.Open(ctx, k, rec, twice, &customer{}, "phone"); !errors.Is(err, encrypt.ErrTampered) {
		t.Fatalf("a field twice: %v", err)
	}
}

func TestCompileErrors(t *testing.T) {
	n := codecOptions()
	n.Type = "thing"
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
	_, err := encrypt.NewCodec[*struct{ Name string }](n)
	check(err, "Name", "no protect tag")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"private"`
	}](n)
	check(err, "Name", "unknown class")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,clear"`
	}](n)
	check(err, "Name", "clear column")
	_, err = encrypt.NewCodec[*struct {
		Name text `protect:"internal"`
	}](n)
	check(err, "Name", "clear column")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"internal,index=exact:name"`
	}](n)
	check(err, "Name", "blind index")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=exact:nope"`
	}](n)
	check(err, "Name", "unknown normaliser")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=fuzzy:name"`
	}](n)
	check(err, "Name", "unknown index kind")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,mask=nope"`
	}](n)
	check(err, "Name", "unknown mask")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,person=Other"`
	}](n)
	check(err, "Name", "person=Other")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,retention=ever"`
	}](n)
	check(err, "Name", "retention")
	_, err = encrypt.NewCodec[*struct {
		SignerID string `protect:"personal"`
		B        string `json:"signer_id" protect:"personal"`
	}](n)
	check(err, "B", "twice")
	_, err = encrypt.NewCodec[*struct {
		Rate float64 `protect:"public"`
	}](n)
	check(err, "Rate", "float64")
	_, err = encrypt.NewCodec[*struct {
		People []struct{ Name text } `protect:"personal"`
	}](n)
	check(err, "People", "protected text")
	_, err = encrypt.NewCodec[*struct {
		Age int `protect:"personal,index=exact:name"`
	}](n)
	check(err, "Age", "text")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"internal,seal,clear"`
	}](n)
	check(err, "Name", "both")
	_, err = encrypt.NewCodec[*struct {
		name string `protect:"internal"`
	}](n)
	check(err, "name", "unexported")
	_, err = encrypt.NewCodec[*int](n)
	check(err, "not a struct")
}

// TestErase: who is erased opens in no process, and keys that were exported before do not bring them back.
//
//crm:item 20
func TestErase(t *testing.T) {
	c, store, kek := newCodec(t), keys.NewMemory(), newKEK(t)
	atOnce := &encrypt.Options{Grace: -1}
	a, b := newKeeper(t, kek, store, atOnce), newKeeper(t, kek, store, atOnce)
	sealed, err := c.Seal(ctx, a, rec, sample(), nil)
	if err != nil {
		t.Fatal(err)
	}
	detail, err := a.SealFor(ctx, "acme", rec.Person, "log", []byte("event 1"), []byte("10.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	var backup [][]byte
	if err := a.ExportKeys(ctx, "acme", func(_ [8]byte, r []byte) error { backup = append(backup, r); return nil }); err != nil {
		t.Fatal(err)
	}
	open := func(k *encrypt.Keeper) (customer, []encrypt.State) {
		t.Helper()
		v := customer{SignerID: id{9}}
		st, err := c.Open(ctx, k, rec, sealed.Fields, &v, c.SealedNames()...)
		if err != nil {
			t.Fatal(err)
		}
		return v, st
	}
	if v, _ := open(b); v.Phone.s == "" {
		t.Fatal("does not open in another process")
	}
	receipt, err := a.Erase(ctx, "acme", rec.Person, nil)
	if err != nil || len(receipt.Keys) != 1 || receipt.Number != 2 {
		t.Fatalf("receipt %+v, %v", receipt, err)
	}
	for _, k := range []*encrypt.Keeper{a, b, newKeeper(t, kek, store, nil)} {
		v, st := open(k)
		if v.Phone != (text{"", 4}) || c.State(st, "phone") != encrypt.StateErased || v.Note != "" {
			t.Fatalf("still there: %+v", v)
		}
		if v.Signer.s != "李娜" || v.Income != -5 {
			t.Fatal("another person's or class's data is gone")
		}
		if _, err := k.OpenFor(ctx, "acme", rec.Person, "log", []byte("event 1"), detail); !errors.Is(err, encrypt.ErrErased) {
			t.Fatalf("detail: %v", err)
		}
	}
	// An old backup of the key records does not bring the person back.
	if err := a.ImportKeys(ctx, "acme", backup); err != nil {
		t.Fatal(err)
	}
	if v, _ := open(newKeeper(t, kek, store, nil)); v.Phone.s != "" {
		t.Fatal("an import undid the erasure")
	}
	// The same person comes back with a new key; the old values stay erased.
	fresh, err := c.Seal(ctx, b, rec, sample(), nil)
	if err != nil {
		t.Fatal(err)
	}
	v := customer{SignerID: id{9}}
	if _, err := c.Open(ctx, a, rec, fresh.Fields, &v, "phone"); err != nil || v.Phone.s == "" {
		t.Fatalf("a returning person: %v", err)
	}
	if v, _ := open(a); v.Phone.s != "" {
		t.Fatal("the new key opened an old value")
	}
	// Into an empty store, the keys from before the erasure do open; with the tombstones they do not.
	empty := keys.NewMemory()
	restored := newKeeper(t, kek, empty, nil)
	if err := restored.ImportKeys(ctx, "acme", backup); err != nil {
		t.Fatal(err)
	}
	if v, _ := open(restored); v.Phone.s == "" {
		t.Fatal("restored keys do not open")
	}
	var tombs [][]byte
	if err := a.ExportKeys(ctx, "acme", func(id [8]byte, r []byte) error {
		if keys.ID(id) == receipt.Keys[0] {
			tombs = append(tombs, r)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	forged := append([]byte(nil), tombs[0]...)
	forged[len(forged)-40] ^= 1
	if err := restored.ImportKeys(ctx, "acme", [][]byte{forged}); !errors.Is(err, encrypt.ErrTampered) {
		t.Fatalf("forged tombstone: %v", err)
	}
	if err := restored.ImportKeys(ctx, "acme", tombs); err != nil {
		t.Fatal(err)
	}
	if v, _ := open(restored); v.Phone.s != "" {
		t.Fatal("a replayed tombstone did nothing")
	}
}

func TestMissingKeyIsNoErasure(t *testing.T) {
	c, kek := newCodec(t), newKEK(t)
	sealed, err := c.Seal(ctx, newKeeper(t, kek, keys.NewMemory(), nil), rec, sample(), nil)
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, kek, keys.NewMemory(), nil)
	if _, err := c.Open(ctx, k, rec, sealed.Fields, &customer{SignerID: id{9}}, "phone"); !errors.Is(err, encrypt.ErrKeyMissing) {
		t.Fatalf("got %v, want ErrKeyMissing", err)
	}
}

// TestRotateWithReaders: keys are rotated beside readers, none of whom fails.
//
//crm:item 20
func TestRotateWithReaders(t *testing.T) {
	c, store, kek := newCodec(t), keys.NewMemory(), newKEK(t)
	writer := newKeeper(t, kek, store, nil)
	reader := newKeeper(t, kek, store, &encrypt.Options{CacheAge: time.Nanosecond})
	var recs []encrypt.Record
	var vs []*customer
	for i := range 1200 {
		recs = append(recs, encrypt.Record{Tenant: "acme", ID: [16]byte{byte(i), byte(i >> 8)}, Person: [16]byte{1, byte(i), byte(i >> 8)}})
		vs = append(vs, &customer{Phone: text{s: fmt.Sprint(13800000000 + i)}})
	}
	all, err := c.SealAll(ctx, writer, recs, vs)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var reads atomic.Int64
	for w := range 3 {
		wg.Go(func() {
			for n := w; ; n += 3 {
				select {
				case <-stop:
					return
				default:
				}
				i := n % len(recs)
				var v customer
				if _, err := c.Open(ctx, reader, recs[i], all[i].Fields, &v, "phone"); err != nil || v.Phone.s != vs[i].Phone.s {
					t.Errorf("read during rotation: %v", err)
					return
				}
				fresh := encrypt.Record{Tenant: "acme", ID: [16]byte{200}, Person: [16]byte{byte(w + 2), byte(n), byte(n >> 8), byte(n >> 16)}}
				if _, err := c.Seal(ctx, reader, fresh, &customer{Phone: text{s: "1"}}, nil); err != nil {
					t.Errorf("write during rotation: %v", err)
					return
				}
				reads.Add(1)
			}
		})
	}
	for range 3 {
		last, total := 0, 0
		if err := writer.Rotate(ctx, "acme", func(d, n int) { last, total = d, n }); err != nil {
			t.Error(err)
		}
		if last < 1200 || last != total {
			t.Errorf("progress %d of %d", last, total)
		}
	}
	close(stop)
	wg.Wait()
	live := 0
	records, err := store.Find(ctx, "acme", keys.Query{Tenant: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if r.Kind == keys.EpochKey && len(r.Wrapped) > 0 {
			live++
		}
	}
	if live != 1 {
		t.Fatalf("%d live epoch keys", live)
	}
	if _, err := c.OpenAll(ctx, newKeeper(t, kek, store, nil), recs, fieldsOf(all), make3(len(recs)), "phone"); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d reads and writes beside the rotations", reads.Load())
}

func fieldsOf(all []encrypt.Sealed) (out [][]encrypt.SealedField) {
	for _, s := range all {
		out = append(out, s.Fields)
	}
	return out
}

func make3(n int) (out []*customer) {
	for range n {
		out = append(out, &customer{})
	}
	return out
}

// clock is a clock that tests move.
type clock struct{ now atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Unix(0, c.now.Load()) }
func (c *clock) Advance(d time.Duration) { c.now.Add(int64(d)) }

func TestOutage(t *testing.T) {
	for _, fault := range []encrypttest.Fault{encrypttest.Away, encrypttest.Sealed} {
		c, kek, store := newCodec(t), newKEK(t), keys.NewMemory()
		var now clock
		now.Advance(time.Hour)
		k := newKeeper(t, kek, store, &encrypt.Options{
			Refresh: time.Minute, StaleReads: 10 * time.Minute, StaleWrites: 2 * time.Minute, Now: now.Now,
		})
		v := &customer{Phone: text{s: "1"}}
		sealed, err := c.Seal(ctx, k, rec, v, nil)
		if err != nil {
			t.Fatal(err)
		}
		read := func() error {
			_, err := c.Open(ctx, k, rec, sealed.Fields, &customer{}, "phone")
			return err
		}
		write := func() error { _, err := c.Seal(ctx, k, rec, v, nil); return err }
		calls := kek.Calls()
		kek.Set(fault)
		if read() != nil || write() != nil || kek.Calls() != calls {
			t.Fatal("a fresh key needs the KEK")
		}
		now.Advance(2 * time.Minute)
		if err := errors.Join(read(), write()); err != nil {
			t.Fatalf("within both windows: %v", err)
		}
		now.Advance(2 * time.Minute)
		if err := read(); err != nil {
			t.Fatalf("read within its window: %v", err)
		}
		if err := write(); !errors.Is(err, encrypt.ErrKMSUnavailable) {
			t.Fatalf("write past its bound: %v", err)
		}
		now.Advance(10 * time.Minute)
		if err := read(); !errors.Is(err, encrypt.ErrKMSUnavailable) {
			t.Fatalf("read past its window: %v", err)
		}
		kek.Set(encrypttest.None)
		now.Advance(2 * time.Second)
		if err := errors.Join(read(), write()); err != nil {
			t.Fatalf("after the outage: %v", err)
		}
	}
}

func TestKEKFaults(t *testing.T) {
	for _, tc := range []struct {
		fault encrypttest.Fault
		want  error
	}{{encrypttest.Refused, encrypt.ErrAuth}, {encrypttest.WrongKey, encrypt.ErrTampered}, {encrypttest.Away, encrypt.ErrKMSUnavailable}, {encrypttest.Hanging, context.DeadlineExceeded}} {
		kek, store := newKEK(t), keys.NewMemory()
		if _, err := newKeeper(t, kek, store, nil).MAC(ctx, "acme", "row", nil); err != nil {
			t.Fatal(err)
		}
		kek.Set(tc.fault)
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		if tc.fault != encrypttest.Hanging {
			cancel()
			short, cancel = context.WithTimeout(ctx, time.Minute)
		}
		_, err := newKeeper(t, kek, store, nil).MAC(short, "acme", "row", nil)
		cancel()
		if !errors.Is(err, tc.want) {
			t.Errorf("fault %d: got %v, want %v", tc.fault, err, tc.want)
		}
	}
}

func TestTenantSecretsAndMAC(t *testing.T) {
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	sealed, err := k.SealTenant(ctx, "acme", "password", []byte("user 1"), []byte("hash"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.OpenTenant(ctx, "acme", "password", []byte("user 1"), sealed); err != nil || string(got) != "hash" {
		t.Fatalf("%q, %v", got, err)
	}
	for i := range sealed {
		bad := append([]byte(nil), sealed...)
		bad[i] ^= 1
		if _, err := k.OpenTenant(ctx, "acme", "password", []byte("user 1"), bad); !errors.Is(err, encrypt.ErrTampered) {
			t.Fatalf("flip %d: %v", i, err)
		}
	}
	if _, err := k.MAC(ctx, "other", "row", nil); err != nil { // another tenant with keys
		t.Fatal(err)
	}
	for _, tc := range [][3]string{{"other", "password", "user 1"}, {"acme", "totp", "user 1"}, {"acme", "password", "user 2"}} {
		if _, err := k.OpenTenant(ctx, tc[0], tc[1], []byte(tc[2]), sealed); !errors.Is(err, encrypt.ErrTampered) {
			t.Fatalf("%v: %v", tc, err)
		}
	}
	mac, err := k.MAC(ctx, "acme", "row", []byte("data"))
	if err != nil || len(mac) != 32 {
		t.Fatal(err)
	}
	if err := k.VerifyMAC(ctx, "acme", "row", []byte("data"), mac); err != nil {
		t.Fatal(err)
	}
	for _, tc := range [][3]string{{"other", "row", "data"}, {"acme", "session", "data"}, {"acme", "row", "datA"}} {
		if err := k.VerifyMAC(ctx, tc[0], tc[1], []byte(tc[2]), mac); !errors.Is(err, encrypt.ErrTampered) {
			t.Fatalf("%v: %v", tc, err)
		}
	}
}

// TestMissingKeys: a key row that is gone is told from one that was destroyed.
func TestMissingKeys(t *testing.T) {
	ctx := t.Context()
	kek, err := localkek.Open(t.TempDir()+"/kek", nil)
	require.NoError(t, err)
	store := keys.NewMemory()
	k, err := encrypt.NewKeeper(kek, store, &encrypt.Options{Grace: -1})
	require.NoError(t, err)
	var sealed [][]byte
	for _, person := range [][16]byte{{1}, {2}, {3}} {
		b, err := k.SealFor(ctx, "acme", person, "log", nil, []byte("x"))
		require.NoError(t, err)
		sealed = append(sealed, b)
	}
	missing, err := k.MissingKeys(ctx, "acme", sealed)
	require.NoError(t, err)
	require.Empty(t, missing)
	_, err = k.Erase(ctx, "acme", [16]byte{2}, nil)
	require.NoError(t, err)
	missing, err = k.MissingKeys(ctx, "acme", append(sealed, []byte("x"), nil))
	require.NoError(t, err)
	require.Equal(t, []int{3, 4}, missing, "a destroyed key is known")
	other, err := encrypt.NewKeeper(kek, keys.NewMemory(), nil)
	require.NoError(t, err)
	missing, err = other.MissingKeys(ctx, "acme", sealed)
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 2}, missing)
	_, err = k.MissingKeys(ctx, "", sealed)
	require.Error(t, err)
}
