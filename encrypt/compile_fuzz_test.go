package encrypt

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/encrypt/normalize"
)

// compileTag compiles a struct with one field F of a type and tag, and one field Other beside it. With joint, the
// tag is that of a compound index over both.
func compileTag(tag string, typ reflect.Type, joint bool) (*Codec[any], error) {
	field := func(name string, typ reflect.Type, tag string) reflect.StructField {
		f := reflect.StructField{Name: name, Type: typ, Tag: reflect.StructTag("protect:" + strconv.Quote(tag))}
		if name == "_" {
			f.PkgPath = "github.com/crmguard/crmguard/encrypt"
		}
		return f
	}
	fields := []reflect.StructField{field("F", typ, tag), field("Other", reflect.TypeFor[string](), "personal")}
	if joint {
		fields[0] = field("F", typ, "personal")
		fields = append(fields, field("_", reflect.TypeFor[struct{}](), tag))
	}
	c := new(Codec[any])
	err := c.compile(reflect.StructOf(fields), &CodecOptions{Type: "fuzz", Normalizers: normalize.Normalizers("CN"), Masks: normalize.Masks()})
	return c, err
}

var tagTypes = []reflect.Type{
	reflect.TypeFor[string](), reflect.TypeFor[Text](), reflect.TypeFor[*string](), reflect.TypeFor[[]byte](), reflect.TypeFor[[]Text](),
	reflect.TypeFor[map[string]Text](), reflect.TypeFor[int](), reflect.TypeFor[uint64](), reflect.TypeFor[bool](), reflect.TypeFor[float64](),
	reflect.TypeFor[time.Time](), reflect.TypeFor[[16]byte](), reflect.TypeFor[any](), reflect.TypeFor[*Text](), reflect.TypeFor[struct {
		A string `protect:"personal"`
	}](),
}

// FuzzTag: any tag of any type compiles into what it says, or is refused by an error that names the field.
func FuzzTag(f *testing.F) {
	for i, tag := range []string{
		"personal", "public,indexed", "internal,seal,retention=tax", "personal,mask=phone,unique=exact:phone",
		"personal,index=exact:text,leaks=equality,distinct=5000", "personal,index=ngram:person,index=suffix4:digits:12,leaks=fragments",
		"personal,person=F", "nested", "-", "", "personal,,", "personal,index=exact:text:10:10", "sensitive,index=prefix16:name:32", "personal,distinct=99999999999999999999",
	} {
		f.Add(tag, uint8(i), false)
	}
	f.Add("index=exact:text,of=f+other", uint8(0), true)
	f.Add("unique=exact:person:8,of=f+f+other", uint8(1), true)
	f.Fuzz(func(t *testing.T, tag string, typ uint8, joint bool) {
		c, err := compileTag(tag, tagTypes[int(typ)%len(tagTypes)], joint)
		if err != nil {
			if s := err.Error(); !strings.Contains(s, "field F") && !strings.Contains(s, "field _") && !strings.Contains(s, "compound index ") {
				t.Fatalf("%q: the error does not name the field: %v", tag, err)
			}
			return
		}
		for i := range c.plans {
			p := &c.plans[i]
			switch p.Class {
			case Personal, Sensitive, Financial:
				if p.Clear {
					t.Fatalf("%q: a clear column of class %s", tag, p.Class)
				}
			case Public, Internal:
			default:
				t.Fatalf("%q: class %q", tag, p.Class)
			}
			if len(p.Indexes) > 0 && (p.Clear || p.Kind != KindText || p.Distinct > 0 && p.Distinct < smallest) {
				t.Fatalf("%q: an index of %+v", tag, p.Field)
			}
			for _, x := range p.indexes {
				if x.Unique && (x.shape != whole || x.Bits != 64) || x.Bits != 64 && (x.Bits < 4 || x.Bits > 32) || len(x.versions) == 0 {
					t.Fatalf("%q: %+v", tag, x.Index)
				}
			}
		}
		for _, population := range []int{1, 100, 100_000, 1 << 40} {
			all, err := c.Plan(population)
			if err != nil && !errors.Is(err, errLeak) {
				t.Fatalf("%q: %v", tag, err)
			}
			if err == nil && slices.ContainsFunc(all, func(x Index) bool { return x.Kind == "exact" && len(x.Of) == 0 && !x.Unique && x.Normalizer == "text" }) &&
				c.plans[0].Distinct == 0 && c.plans[0].Leaks != leaksFragments {
				t.Fatalf("%q: values of any number are admitted", tag)
			}
		}
	})
}

// TestFewValues: an exact index over words says how many there are, so that no gender is indexed unawares.
func TestFewValues(t *testing.T) {
	for _, tag := range []string{
		"personal,index=exact:text,leaks=equality", "personal,index=exact:name,leaks=equality", "personal,index=exact:person,leaks=equality",
		"personal,index=exact:pinyin,leaks=equality", "personal,index=exact:company,leaks=equality", "personal,index=exact:address,leaks=equality",
		"personal,index=exact:text,leaks=fragments", "personal,index=exact:text,index=suffix4:digits:12,leaks=fragments",
		"personal,index=exact:text:10", "personal,index=ngram:text,index=exact:text,leaks=equality",
		"personal,index=ngram:text,index=exact:text:10,leaks=fragments", "personal,index=exact:phone,index=exact:text,leaks=equality",
	} {
		for _, typ := range []reflect.Type{reflect.TypeFor[string](), reflect.TypeFor[Text]()} {
			_, err := compileTag(tag, typ, false)
			if err == nil || !strings.Contains(err.Error(), "field F:") || !strings.Contains(err.Error(), "distinct=N") {
				t.Errorf("%q: %v", tag, err)
			}
		}
	}
	for tag, planned := range map[string]bool{
		"personal,unique=exact:text,leaks=equality":                         true,
		"personal,index=exact:text,leaks=equality,distinct=1000000":         true,
		"personal,index=exact:text,leaks=equality,distinct=1000":            false, // values that repeat
		"personal,index=exact:text:10,distinct=50000":                       true,
		"personal,index=exact:phone,leaks=equality":                         true,
		"personal,index=exact:digits,leaks=equality":                        true,
		"personal,index=ngram:person,index=exact:name,leaks=fragments":      true, // shows its fragments anyway
		"personal,index=exact:text":                                         false,
		"personal,index=exact:text,distinct=1000000":                        false,
		"personal,index=exact:idnumber,index=exact:uscc,leaks=equality":     true,
		"personal,index=exact:email,index=exact:bankcard,leaks=equality":    true,
		"personal,index=exact:plate,index=suffix4:digits:12,leaks=equality": true,
	} {
		c, err := compileTag(tag, reflect.TypeFor[string](), false)
		if err != nil {
			t.Errorf("%q: %v", tag, err)
			continue
		}
		if _, err := c.Plan(100_000); (err == nil) != planned {
			t.Errorf("%q: plan: %v", tag, err)
		}
	}
	if _, err := compileTag("personal,index=exact:text,leaks=equality,distinct=999", reflect.TypeFor[string](), false); err == nil {
		t.Error("999 values are indexed")
	}
}

func fileKeeper(t testing.TB) *Keeper {
	t.Helper()
	kek, err := localkek.Open(filepath.Join(t.TempDir(), "kek"), nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKeeper(kek, keys.NewMemory(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// FuzzOpenStream: no bytes in front of a sealed stream, in place of its header or in another length, and no
// length that the caller names, open anything but what was sealed.
func FuzzOpenStream(f *testing.F) {
	k, person, plain := fileKeeper(f), [16]byte{1}, []byte("a scan of a contract")
	var b bytes.Buffer
	w, err := k.SealStream(f.Context(), "t", person, "scan", nil, &b)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		f.Fatal(err)
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	sealed := b.Bytes()
	const heads = headerSize + 40 // of the key, and of the stream
	f.Add([]byte{}, int64(0), heads)
	f.Add([]byte{formatVersion, kindStream}, int64(0), 2)
	f.Add([]byte{formatVersion, kindStream}, int64(0), 0)
	f.Add([]byte{}, int64(-1), 0)
	f.Add([]byte{0}, int64(-1000), 0)
	f.Fuzz(func(t *testing.T, head []byte, more int64, cut int) {
		// head replaces the first cut bytes; the caller names more bytes than there are, or fewer.
		all := append(bytes.Clone(head), sealed[min(max(cut, 0), len(sealed)):]...)
		size := int64(len(all)) + more
		r, err := k.OpenStream(t.Context(), "t", person, "scan", nil, bytes.NewReader(all), size)
		if err != nil {
			if !errors.Is(err, ErrTampered) && !errors.Is(err, ErrKeyMissing) {
				t.Fatal(err)
			}
			return
		}
		got := make([]byte, len(plain)+1)
		n, err := r.ReadAt(got, 0)
		if !errors.Is(err, io.EOF) && !errors.Is(err, ErrTampered) || n > 0 && !bytes.Equal(got[:n], plain) {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if n > 0 && (more != 0 || !bytes.Equal(all, sealed)) {
			t.Fatal("another stream opened")
		}
	})
}

// TestLongTextIsFound: a text is found by its end up to the limit of its index, and refused beyond it.
func TestLongTextIsFound(t *testing.T) {
	type noted struct {
		Note  Text `protect:"personal,index=ngram:text,leaks=fragments"`
		Phone Text `protect:"personal,index=suffix4:digits:12"`
	}
	k := fileKeeper(t)
	c, err := NewCodec[*noted](&CodecOptions{Normalizers: normalize.Normalizers("CN")})
	if err != nil {
		t.Fatal(err)
	}
	rec := Record{Tenant: "t", ID: [16]byte{1}, Person: [16]byte{2}}
	found := func(v *noted, field, kind, typed string) bool {
		t.Helper()
		s, err := c.Seal(t.Context(), k, rec, v, nil)
		if err != nil {
			t.Fatal(err)
		}
		q, err := c.Query(t.Context(), k, rec.Tenant, field, kind, typed)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range q.Groups {
			if !slices.ContainsFunc(s.Fields, func(f SealedField) bool {
				return slices.ContainsFunc(f.Tokens, func(tok Token) bool { return slices.Contains(group, tok.Value) })
			}) {
				return false
			}
		}
		return c.Match(q, v)
	}
	long := strings.Repeat("长", maxParts-3) + "尾巴末端"
	if !found(&noted{Note: NewText(long)}, "note", "ngram", "尾巴末端") {
		t.Error("the end of a long text is not found")
	}
	if _, err := c.Seal(t.Context(), k, rec, &noted{Note: NewText(long + "外")}, nil); !errors.Is(err, errParts) {
		t.Errorf("a text beyond the limit: %v", err)
	}
	for _, typed := range []string{"138 0013 5678 转 12", "138 0013 5678…分机12", "138 0013 5678 ext. 12", "138 0013 5678 x12", "\u202a138 0013 5678\u202c"} {
		if !found(&noted{Phone: NewText(typed)}, "phone", "suffix4", "5678") {
			t.Errorf("%q is not found by 5678", typed)
		}
	}
}
