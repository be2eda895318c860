package main_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"
	"golang.org/x/text/encoding/simplifiedchinese"
)

// soak says that the long forms of the tests run.
var soak = os.Getenv("CRMGUARD_SOAK") != ""

// long skips a test that takes more than ten seconds.
func long(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes more than ten seconds; run it without -short")
	}
}

// somebody is a row of a generated file.
type somebody struct {
	company, first, last, phone, e164, email string
}

func (s *somebody) contact() string { return s.first + " " + s.last }

// values is what must not be found outside of the seal.
func (s *somebody) values() []string {
	return []string{s.company, s.contact(), s.phone, s.e164, s.email}
}

// worlds makes the people of each test differ from those of all others: tests share database servers.
var worlds atomic.Uint64

// people generates n customers. The same world gives the same people.
func people(world uint64, n int) []somebody {
	rnd := rand.New(rand.NewPCG(world, 1))
	pick := func(s string) string { r := []rune(s); return string(r[rnd.IntN(len(r))]) }
	syllable := func() string { return pick("bdfghklmnprstvwz") + pick("aeiouäöüéå") }
	out := make([]somebody, n)
	for i := range out {
		p := &out[i]
		if i%2 == 0 {
			for range 5 {
				p.company += pick("华星贸易有限公司科技明远盛达恒通瑞祥海天创新未来东方鼎立安泰嘉禾")
			}
			p.company += "公司"
			p.first, p.last = pick("伟芳娜敏静丽强磊军洋")+pick("勇艳杰娟涛明超秀霞平"), pick("王李张刘陈杨赵黄周吴")+pick("欧阳司马上官诸葛")+pick("曾单仇解盖")
		} else {
			p.company = "Ges. " + syllable() + syllable() + syllable() + syllable() + " & Söhne"
			p.first, p.last = "J"+syllable()+syllable()+"rg", "M"+syllable()+syllable()+syllable()+"ß"
		}
		d := func(n int) (s string) {
			for range n {
				s += strconv.Itoa(rnd.IntN(10))
			}
			return s
		}
		mobile := "13" + strconv.Itoa(5+rnd.IntN(5)) + d(8)
		p.e164 = "+86" + mobile
		a, b, c := mobile[:3], mobile[3:7], mobile[7:]
		switch i % 8 {
		case 0:
			p.phone = a + " " + b + " " + c
		case 1:
			p.phone = "+86 " + a + "-" + b + "-" + c
		case 2:
			p.phone = "0086" + mobile
		case 3:
			p.phone = mobile
		case 4:
			p.phone = "(+86) " + a + " " + b + c
		case 5:
			local := "30" + d(8)
			p.phone, p.e164 = "+49 (0)30 "+local[2:], "+49"+local
		case 6:
			local := "2125" + d(6)
			p.phone, p.e164 = "+1 ("+local[:3]+") "+local[3:6]+"-"+local[6:], "+1"+local
		case 7:
			p.phone = "kein Telefon, " + syllable() + syllable() + syllable()
			p.e164 = p.phone
		}
		p.email = fmt.Sprintf("%s.%d@mail%d.example", strings.ToLower(pick("ABCDEFGHKLM"))+d(9), i, world)
	}
	return out
}

// csvOf writes a file as CRM systems export it.
func csvOf(t testing.TB, rows []somebody) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "customers.csv")
	f, err := os.Create(path)
	require.NoError(t, err)
	w := csv.NewWriter(f)
	require.NoError(t, w.Write([]string{"Customer Id", "First Name", "Last Name", "Company", "City", "Country", "Phone 1", "Email", "Subscription Date"}))
	for i := range rows {
		p := &rows[i]
		require.NoError(t, w.Write([]string{strconv.Itoa(i), p.first, p.last, p.company, "Ulm", "DE", p.phone, p.email, "2024-05-01"}))
	}
	w.Flush()
	require.NoError(t, w.Error())
	require.NoError(t, f.Close())
	return path
}

// rowsOf is how many rows a test imports.
func rowsOf() int {
	if soak {
		return 10_000
	}
	return 3_000
}

// verification is the answer of verify --json.
type verification struct {
	Log struct {
		State  string
		OK     bool
		Size   uint64
		At     *int64
		Reason string
	}
	Rows struct {
		Rows     int64
		Digest   string
		Findings []struct{ Type, ID, Problem string }
	}
	text string
}

// verify runs verify --json. Code is its exit status.
func verify(t testing.TB, env []string, args ...string) (v verification, code int) {
	t.Helper()
	v.text, code = run(t, env, append([]string{"verify", "--json"}, args...)...)
	text, _, _ := strings.Cut(v.text, "\ncrm: ")
	if strings.HasPrefix(text, "{") {
		require.NoError(t, json.Unmarshal([]byte(text), &v), "%s", v.text)
	}
	return v, code
}

// green is verify where everything must be right.
func green(t testing.TB, env []string, args ...string) verification {
	t.Helper()
	v, code := verify(t, env, args...)
	require.Zero(t, code, v.text)
	require.True(t, v.Log.OK, v.text)
	require.Empty(t, v.Rows.Findings, v.text)
	return v
}

// small makes a data folder with an administrator and no demo data.
func small(t testing.TB, env []string, args ...string) string {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	p := serve(t, data, env, append([]string{"--seed=false"}, args...)...)
	p.signIn(t, "admin")
	p.stop(t)
	return data
}

// founding are the rows that a first start makes: an employee, the certification of the role, an account, the series of contracts and the pipeline of sales.
const founding = 5

var importedLine = regexp.MustCompile(`(\d+) rows in \(([^)]+)\), (\d+) stored, (\d+) rejected, (\d+) with a phone kept as typed, (\d+) rows/s`)

func TestImport(t *testing.T) {
	rows := people(worlds.Add(1), rowsOf())
	data := filepath.Join(t.TempDir(), "data")
	out := mustRun(t, nil, "import", csvOf(t, rows), "--data", data, "--seed=false", "--duplicates", "off")
	m := importedLine.FindStringSubmatch(out)
	require.NotNil(t, m, out)
	n := strconv.Itoa(len(rows))
	assert.Equal(t, []string{n, "UTF-8", n, "0", strconv.Itoa(len(rows) / 8)}, m[1:6], out)
	t.Logf("%s rows/s", m[6])
	v := green(t, nil, "--data", data)
	assert.EqualValues(t, len(rows)+1+founding, v.Rows.Rows, "and the import itself")

	// Every row is found by its phone in another spelling and comes back as it was.
	once := strings.TrimPrefix(oneTime.FindString(mustRun(t, nil, "account", "reset", "admin@demo.example", "--data", data)), "one-time password: ")
	p := serve(t, data, nil)
	p.passwords["admin"] = once
	c := p.signIn(t, "admin")
	for i := 0; i < len(rows); i += len(rows) / 40 {
		term := rows[i].e164
		if i%8 == 7 { // a text that is no number is kept and not indexed
			term = rows[i].email
		}
		r := c.postJSON(t, "/api/v1/customers/search", `{"term":`+strconv.Quote(term)+`}`)
		require.Equal(t, http.StatusOK, r.status, r.body)
		found := items(t, r)
		require.Len(t, found, 1, "row %d", i)
		assert.Equal(t, "masked", found[0].Fields["phone"].State, "row %d", i)
		f := one(t, c.get(t, "/api/v1/customers/"+found[0].ID)).Fields
		for name, want := range map[string]string{"name": rows[i].company, "contact": rows[i].contact(), "phone": rows[i].phone, "email": rows[i].email} {
			assert.Equal(t, want, f[name].Value, "row %d, %s", i, name)
			assert.Equal(t, "clear", f[name].State, "row %d, %s", i, name)
		}
	}
}

// TestImportDuplicates: a row that is there already is stored and listed, refused, or not looked at.
func TestImportDuplicates(t *testing.T) {
	data := small(t, nil)
	file := csvOf(t, people(worlds.Add(1), 2))
	assert.NotContains(t, mustRun(t, nil, "import", file, "--data", data), "such a record")
	assert.Contains(t, mustRun(t, nil, "import", file, "--data", data, "--dry-run"), "2 rows were stored although there is such a record: lines 2, 3")
	out, code := run(t, nil, "import", file, "--data", data, "--duplicates", "refuse")
	assert.NotZero(t, code)
	assert.Contains(t, out, "0 stored, 2 rejected")
	assert.Contains(t, out, "line 2: repeated")
	assert.NotContains(t, mustRun(t, nil, "import", file, "--data", data, "--duplicates", "off"), "such a record")
	out, code = run(t, nil, "import", file, "--data", data, "--duplicates", "maybe")
	assert.NotZero(t, code)
	assert.Contains(t, out, "refuse, warn or off")
	out, code = run(t, nil, "import", file, "--data", data, "--separator", "x")
	assert.NotZero(t, code)
	assert.Contains(t, out, "unknown encoding or separator")
}

var oneTime = regexp.MustCompile(`one-time password: \S+`)

// record is a record of the API.
type record struct {
	ID      string
	Version int64
	Fields  map[string]struct {
		Value any
		State string
	}
}

// items reads the records of a page of the API.
func items(t testing.TB, r response) []record {
	t.Helper()
	var page struct{ Items []record }
	require.NoError(t, json.Unmarshal([]byte(r.body), &page), r.body)
	return page.Items
}

// one reads a record of the API.
func one(t testing.TB, r response) (out record) {
	t.Helper()
	require.Equal(t, http.StatusOK, r.status, r.body)
	require.NoError(t, json.Unmarshal([]byte(r.body), &out), r.body)
	return out
}

// TestImportBadFiles: what is wrong with a file costs the rows that have it, is said by line, shows no
// value, and ends with an exit status that is not zero.
// TestImportSheetCommand: of a workbook the sheet that is named is imported, no other and none that there is not; what it stored is undone by the id of the import alone, whatever its rows were.
func TestImportSheetCommand(t *testing.T) {
	x := excelize.NewFile()
	require.NoError(t, x.SetSheetRow("Sheet1", "A1", &[]string{"read me"}))
	_, err := x.NewSheet("People 2026")
	require.NoError(t, err)
	require.NoError(t, x.SetSheetRow("People 2026", "A1", &[]string{"name", "phone"}))
	for i, name := range []string{"Ann Leise", "Bob Leise"} {
		require.NoError(t, x.SetSheetRow("People 2026", "A"+strconv.Itoa(i+2), &[]string{name, "1380013567" + strconv.Itoa(i)}))
	}
	file := filepath.Join(t.TempDir(), "people.xlsx")
	require.NoError(t, x.SaveAs(file))
	data := small(t, nil)
	before := green(t, nil, "--data", data).Rows.Rows
	leads := func(args ...string) (string, int) {
		return run(t, nil, append([]string{"import", file, "--type", "lead", "--data", data}, args...)...)
	}
	for _, sheet := range []string{"People", "../People 2026", "people 2026 "} {
		out, code := leads("--sheet", sheet)
		assert.NotZero(t, code, sheet)
		assert.NotContains(t, out, "Leise", sheet)
	}
	out, _ := leads()
	assert.NotContains(t, out, "2 stored", "the first sheet has no such rows")
	out, code := leads("--sheet", "People 2026")
	require.Zero(t, code, out)
	assert.Contains(t, out, "2 rows in")
	assert.Contains(t, out, "2 stored, 0 rejected")
	m := regexp.MustCompile(`(?m)^import ([0-9a-f-]{36})$`).FindStringSubmatch(out)
	require.NotNil(t, m, out)
	stored := green(t, nil, "--data", data).Rows.Rows
	assert.GreaterOrEqual(t, stored, before+3, "two leads and the import")

	for name, id := range map[string]string{"no id": "people.xlsx", "no such import": "00000000-0000-7000-8000-000000000000"} {
		out, code = run(t, nil, "import", "-", "--undo", id, "--data", data)
		assert.NotZero(t, code, "%s: %s", name, out)
	}
	out, code = run(t, nil, "import", "-", "--undo", m[1], "--data", data) // no --type
	require.Zero(t, code, out)
	assert.Contains(t, out, "2 records undone, 0 left")
	green(t, nil, "--data", data)
}

func TestImportBadFiles(t *testing.T) {
	const header = "Company,Name,Phone,Email\n"
	good := func(n int) (s string) {
		for i := range n {
			s += fmt.Sprintf("Geheim%d GmbH,Jürgen Leise%d,+49 30 5550%04d,leise%d@mail.example\n", i, i, i, i)
		}
		return s
	}
	utf16le := func(s string) string {
		b := []byte{0xff, 0xfe}
		for _, u := range utf16.Encode([]rune(s)) {
			b = append(b, byte(u), byte(u>>8))
		}
		return string(b)
	}
	gbk := func(s string) string {
		b, err := simplifiedchinese.GBK.NewEncoder().String(s)
		require.NoError(t, err)
		return b
	}
	chinese := "公司名称,姓名,手机号,邮箱\n机密贸易公司,王秘密,138 0013 8000,mimi@mail.example\n"
	cases := []struct {
		name, file string
		stored     int
		fails      string // in the output; "" when it must succeed
	}{
		{"GBK", gbk(chinese), 1, ""},
		{"UTF-16 with a mark", utf16le(chinese), 1, ""},
		{"UTF-8 with a mark", "\ufeff" + chinese, 1, ""},
		{"semicolons", strings.ReplaceAll(header+good(2), ",", ";"), 2, ""},
		{"no final line break", strings.TrimSuffix(header+good(2), "\n"), 2, ""},
		{"a quote that is never closed", header + good(1) + "\"Geheim77 GmbH,Leise77,1,\n" + good(2), 3, "line 3: unclosed_quote"},
		{"a quote inside a field", header + "Geheim\"77\" GmbH,Leise77,1,\n" + good(2), 2, "line 2: bare_quote"},
		{"too few fields", header + "Geheim77 GmbH,Leise77\n" + good(2), 2, "line 2: fields"},
		{"no e-mail address", header + "Geheim77 GmbH,Leise77,1,Leise77 at home\n" + good(1), 1, "line 2: email "},
		{"no name in a row", header + ",,138 0013 8000,\n" + good(1), 1, "line 2: name "},
		{"a line of 10 MB", header + good(1) + "Geheim77 GmbH,Leise77,1," + strings.Repeat("Leise77", 10<<20/7) + "\n" + good(1), 2, "line 3: too_long"},
		{"a quoted field of 10 MB", header + "\"" + strings.Repeat(strings.Repeat("Leise77", 30)+"\n", 10<<20/211) + "\",Leise77,1,\n" + good(1), 1, "line 2: unclosed_quote"},
		{"NUL", header + "Geheim\x0077 GmbH,Leise77,1,\n" + good(1), 1, "line 2: encoding"},
		{"broken UTF-8 far behind", header + good(3000) + "Geheim77 \xff\xfe GmbH,Leise77,1,\n" + good(1), 3001, "line 3002: encoding"},
		{"cut UTF-16", utf16le(chinese + "秘密")[:len(utf16le(chinese+"秘密"))-1], 1, "line 3: "},
		{"empty", "", 0, "header cannot be read"},
		{"only a header", header, 0, ""},
		{"only line breaks", "\n\n\r\n", 0, "header cannot be read"},
		{"no column of names", "Phone,Email\n138 0013 8000,leise77@mail.example\n", 0, "no column of the file is a name"},
		{"the same header twice", "Name,Phone,Phone\nLeise77,1,2\n", 0, "same header"},
		{"binary", "\x7fELF\x02\x01\x01\x00\x00\x00Leise77\x00\xff\xfe\xfd", 0, "csv: "},
	}
	base := small(t, nil)
	secrets := regexp.MustCompile(`(?i)geheim\d|leise\d|jürgen|5550\d|0013|mimi@|秘密|机密|mail\.example`)
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			data := copied(t, base)
			path := filepath.Join(t.TempDir(), "in.csv")
			require.NoError(t, os.WriteFile(path, []byte(tc.file), 0o600))
			out, code := run(t, nil, "import", path, "--data", data, "--duplicates", "off")
			if tc.fails == "" {
				assert.Zero(t, code, out)
			} else {
				assert.Equal(t, 1, code, out)
				assert.Contains(t, out, tc.fails)
			}
			assert.NotRegexp(t, secrets, out)
			assert.Contains(t, out, fmt.Sprintf(", %d stored, ", tc.stored))
			want := tc.stored + founding
			if m := importedLine.FindStringSubmatch(out); m != nil { // the file could be read: the import is a record, and so are each hundred rows that it rejected
				rejected, err := strconv.Atoi(m[4])
				require.NoError(t, err)
				want += 1 + (rejected+99)/100
			}
			assert.EqualValues(t, want, green(t, nil, "--data", data).Rows.Rows)
		})
	}
	t.Run("no file", func(t *testing.T) {
		out, code := run(t, nil, "import", filepath.Join(t.TempDir(), "none.csv"), "--data", copied(t, base))
		assert.Equal(t, 1, code)
		assert.Contains(t, out, "no such file")
	})
	t.Run("a folder", func(t *testing.T) {
		_, code := run(t, nil, "import", t.TempDir(), "--data", copied(t, base))
		assert.Equal(t, 1, code)
	})
	t.Run("an owner who does not exist", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "in.csv")
		require.NoError(t, os.WriteFile(path, []byte(chinese), 0o600))
		out, code := run(t, nil, "import", path, "--data", copied(t, base), "--owner", "geheim1@mail.example")
		assert.Equal(t, 1, code)
		assert.Contains(t, out, "no employee with this address")
		assert.NotRegexp(t, secrets, out)
	})
}

// copied copies a data folder that no process has open.
func copied(t testing.TB, data string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "data")
	require.NoError(t, filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, data))
		if e.IsDir() {
			return os.Mkdir(target, 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o600)
	}))
	return to
}
