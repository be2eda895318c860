package csvfile_test

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"

	"github.com/crmguard/crmguard/crm/transfer/csvfile"
)

// read returns good records as text and bad ones as errors, in order.
func read(t testing.TB, in string) (out []string, encoding string) {
	t.Helper()
	r, err := csvfile.New(strings.NewReader(in))
	require.NoError(t, err)
	for rec, err := range r.Records() {
		if err != nil {
			out = append(out, "! "+err.Error())
			continue
		}
		out = append(out, fmt.Sprintf("%d %s", rec.Line, strings.Join(rec.Fields, "|")))
	}
	return out, r.Encoding()
}

func encode(t *testing.T, s string, e interface{ String(string) (string, error) }) string {
	out, err := e.String(s)
	require.NoError(t, err)
	return out
}

func TestRead(t *testing.T) {
	chinese := "姓名,手机\n张伟,13800138000\n"
	for name, c := range map[string]struct {
		in, encoding string
		want         []string
	}{
		"plain":             {"a,b\n1,2\n3,4\n", "UTF-8", []string{"2 1|2", "3 3|4"}},
		"no last break":     {"a,b\n1,2", "UTF-8", []string{"2 1|2"}},
		"CRLF and blanks":   {"a,b\r\n\r\n1,2\r\n", "UTF-8", []string{"3 1|2"}},
		"quotes and breaks": {"a,b\n\"1\nx\",\"say \"\"2\"\"\"\n3,4\n", "UTF-8", []string{"2 1\nx|say \"2\"", "4 3|4"}},
		"semicolons":        {"a;b\n1;2,5\n", "UTF-8", []string{"2 1|2,5"}},
		"tabs":              {"a\tb\n1\t2\n", "UTF-8", []string{"2 1|2"}},
		"byte order mark":   {"\ufeffa,b\n1,2\n", "UTF-8", []string{"2 1|2"}},
		"GBK":               {encode(t, chinese, simplifiedchinese.GBK.NewEncoder()), "GB18030", []string{"2 张伟|13800138000"}},
		"UTF-16 LE":         {encode(t, chinese, unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewEncoder()), "UTF-16", []string{"2 张伟|13800138000"}},
		"UTF-16 BE":         {encode(t, chinese, unicode.UTF16(unicode.BigEndian, unicode.UseBOM).NewEncoder()), "UTF-16", []string{"2 张伟|13800138000"}},
		"a field too many":  {"a,b\n1,2,3\n4,5\n", "UTF-8", []string{"! line 2: fields", "3 4|5"}},
		"a quote inside":    {"a,b\n1\"x\"y,2\n3,4\n", "UTF-8", []string{"! line 2: bare_quote", "3 3|4"}},
		"an open quote":     {"a,b\n\"1,2\n3,4\n5,6\n", "UTF-8", []string{"! line 2: unclosed_quote", "3 3|4", "4 5|6"}},
		"a long line":       {"a,b\n" + strings.Repeat("x", 10<<20) + ",2\n3,4\n", "UTF-8", []string{"! line 2: too_long", "3 3|4"}},
		"a long field":      {"a,b\n\"" + strings.Repeat("x", 10<<20) + "\n3,4\n", "UTF-8", []string{"! line 2: too_long", "3 3|4"}},
		"a zero byte":       {"a,b\n1\x00,2\n3,4\n", "UTF-8", []string{"! line 2: encoding", "3 3|4"}},
		"no UTF-8 later on": {"a,b\n" + strings.Repeat("1,2\n", 20000) + "\xff,2\n", "UTF-8", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, encoding := read(t, c.in)
			assert.Equal(t, c.encoding, encoding)
			if c.want == nil {
				assert.Equal(t, "! line 20002: encoding", got[len(got)-1])
				return
			}
			assert.Equal(t, c.want, got)
		})
	}
}

func TestRefusedFiles(t *testing.T) {
	for name, in := range map[string]string{
		"empty":             "",
		"two equal headers": "a,b,a\n",
		"an open header":    "\"a,b\n",
	} {
		_, err := csvfile.New(strings.NewReader(in))
		require.Error(t, err, name)
	}
	_, err := csvfile.New(failing{})
	require.ErrorIs(t, err, errDisk)
}

func TestTold(t *testing.T) {
	latin := encode(t, "Straße;Ort\nAllee;Köln\n", charmap.Windows1252.NewEncoder())
	for _, name := range []string{"windows-1252", "ISO-8859-1"} {
		r, err := csvfile.Open(strings.NewReader(latin), &csvfile.Options{Encoding: name})
		require.NoError(t, err)
		assert.Equal(t, []string{"Straße", "Ort"}, r.Header())
		assert.Equal(t, name, r.Encoding())
		assert.Equal(t, ';', r.Comma())
		for rec, err := range r.Records() {
			require.NoError(t, err)
			assert.Equal(t, []string{"Allee", "Köln"}, rec.Fields)
		}
	}
	r, err := csvfile.Open(strings.NewReader("a,b;c\n1,2;3\n"), &csvfile.Options{Comma: ';'})
	require.NoError(t, err)
	assert.Equal(t, []string{"a,b", "c"}, r.Header())
	for _, o := range []csvfile.Options{{Encoding: "UTF-7"}, {Comma: 'x'}, {Comma: '"'}} {
		_, err := csvfile.Open(strings.NewReader("a\n"), &o)
		require.ErrorIs(t, err, csvfile.ErrOptions)
	}
}

var errDisk = errors.New("disk")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errDisk }

func FuzzRead(f *testing.F) {
	for _, s := range []string{"a,b\n1,2\n", "a;b\n\"1\n2\";3\n\"x", "\xff\xfea\x00", "a\n\"\n\"\n\"\"\"\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := csvfile.New(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		last := 0
		for rec, err := range r.Records() {
			var re *csvfile.RowError
			switch {
			case err == nil:
				if len(rec.Fields) != len(r.Header()) {
					t.Fatal("another number of fields")
				}
			case errors.As(err, &re):
				rec.Line = re.Line
			case errors.Is(err, io.ErrUnexpectedEOF):
				return
			default:
				return
			}
			if rec.Line <= last {
				t.Fatalf("line %d after %d", rec.Line, last)
			}
			last = rec.Line
		}
	})
}

// Example reads a file with a fault: the record that has it is left out, and named by its line.
func Example() {
	r, err := csvfile.New(strings.NewReader("姓名;手机\n张伟;13800138000\n\"李\"娜;1\n王芳;13900139000\n"))
	if err != nil {
		panic(err)
	}
	fmt.Println(r.Header(), r.Encoding(), string(r.Comma()))
	for rec, err := range r.Records() {
		fmt.Println(rec.Line, rec.Fields, err)
	}
	// Output:
	// [姓名 手机] UTF-8 ;
	// 2 [张伟 13800138000] <nil>
	// 3 [] line 3: bare_quote
	// 4 [王芳 13900139000] <nil>
}

// ExampleOpen tells what a file cannot tell of itself.
func ExampleOpen() {
	r, err := csvfile.Open(strings.NewReader("name\tcity\nJ\xf6rg\tK\xf6ln\n"), &csvfile.Options{Encoding: "windows-1252", Comma: '\t'})
	if err != nil {
		panic(err)
	}
	for rec := range r.Records() {
		fmt.Println(rec.Fields)
	}
	_, err = csvfile.Open(strings.NewReader("a,b\n"), &csvfile.Options{Encoding: "EBCDIC"})
	fmt.Println(err)
	// Output:
	// [Jörg Köln]
	// csv: unknown encoding or separator
}

// TestPlainRows: a row without quotes is divided as encoding/csv divides it.
func TestPlainRows(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		row := ""
		for range r.IntN(12) {
			row += []string{"a", "é", "张", ",", ",", " ", "\t", "\r", ";", "#", "'", "\u2028"}[r.IntN(12)]
		}
		row += []string{"", "\n", "\r\n", "\r\r\n", "\r"}[r.IntN(5)]
		if strings.TrimSpace(row) == "" {
			continue
		}
		want := csv.NewReader(strings.NewReader(row))
		want.FieldsPerRecord = -1
		fields, err := want.Read()
		require.NoError(t, err)
		got, err := csvfile.New(strings.NewReader("h,i\n" + row))
		require.NoError(t, err)
		for rec := range got.Records() {
			assert.Equal(t, fields, rec.Fields, "%q", row)
		}
	}
}
