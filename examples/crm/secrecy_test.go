package main_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	bits "encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unicode/utf16"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/blobstore"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/examples/crm/seed"
	"github.com/crmguard/crmguard/internal/realtest"
)

// needles finds many byte strings in one pass: the first eight bytes of each are looked up.
type needles struct {
	filter [1 << 17]uint64 // one bit for each of 2^23 hashes of eight bytes
	first  map[uint64][]needle
	found  map[string]string // value -> the first place and spelling it was found in
}

type needle struct {
	bytes           []byte
	value, spelling string
}

func hash8(v uint64) uint64 { return v * 0x9e3779b97f4a7c15 >> (64 - 23) }

// newNeedles searches for values as UTF-8, UTF-16, base64 at each alignment, and hexadecimal, as they are
// and in lower case.
func newNeedles(t testing.TB, values []string) *needles {
	n := &needles{first: map[uint64][]needle{}, found: map[string]string{}}
	add := func(value, spelling string, b []byte) {
		require.GreaterOrEqual(t, len(b), 8, "a value is too short to be searched for")
		v := bits.LittleEndian.Uint64(b)
		n.filter[hash8(v)>>6] |= 1 << (hash8(v) & 63)
		n.first[v] = append(n.first[v], needle{bytes.Clone(b), value, spelling})
	}
	for _, value := range values {
		forms := []string{value}
		if l := strings.ToLower(value); l != value {
			forms = append(forms, l)
		}
		for _, s := range forms {
			b := []byte(s)
			add(value, "UTF-8", b)
			var le, be []byte
			for _, u := range utf16.Encode([]rune(s)) {
				le, be = append(le, byte(u), byte(u>>8)), append(be, byte(u>>8), byte(u))
			}
			add(value, "UTF-16LE", le)
			add(value, "UTF-16BE", be)
			h := hex.EncodeToString(b)
			add(value, "hex", []byte(h))
			add(value, "HEX", []byte(strings.ToUpper(h)))
			for shift := range 3 {
				// Only the characters that the value alone decides, whatever stands around it.
				at := (8*shift + 5) / 6
				whole := (len(b) + shift) * 8 / 6
				in := append(make([]byte, shift), b...)
				add(value, "base64", []byte(base64.RawStdEncoding.EncodeToString(in)[at:whole]))
				add(value, "base64url", []byte(base64.RawURLEncoding.EncodeToString(in)[at:whole]))
			}
		}
	}
	return n
}

// search looks through data; place says where it comes from.
func (n *needles) search(place string, data []byte) {
	for i := 0; i+8 <= len(data); i++ {
		v := bits.LittleEndian.Uint64(data[i:])
		h := hash8(v)
		if n.filter[h>>6]&(1<<(h&63)) == 0 {
			continue
		}
		for _, c := range n.first[v] {
			if _, ok := n.found[c.value]; !ok && bytes.HasPrefix(data[i:], c.bytes) {
				n.found[c.value] = fmt.Sprintf("%s at %d as %s", place, i, c.spelling)
			}
		}
	}
}

// zstdFrame begins each zstd frame, RFC 8878.
var zstdFrame = []byte{0x28, 0xb5, 0x2f, 0xfd}

// folder searches every file below dir, and what is compressed in it. It returns the bytes it read.
func (n *needles) folder(t testing.TB, dir string) (size int64) {
	t.Helper()
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(1<<28))
	require.NoError(t, err)
	defer dec.Close()
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a file of a running server that is gone
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		size += int64(len(b))
		n.search(path, b)
		for rest, at := b, 0; ; {
			i := bytes.Index(rest, zstdFrame)
			if i < 0 {
				return nil
			}
			at += i
			if plain, err := dec.DecodeAll(b[at:], nil); err == nil || len(plain) > 0 {
				n.search(fmt.Sprintf("%s, the frame at %d", path, at), plain)
			}
			at += len(zstdFrame)
			rest = b[at:]
		}
	})
	require.NoError(t, err)
	return size
}

// backups decodes every row of the newest snapshot with the recovery key and searches its values.
func (n *needles) backups(t testing.TB, data string) (rows int) {
	t.Helper()
	ctx := context.Background()
	text, err := os.ReadFile(filepath.Join(data, "backup-signing.pub"))
	require.NoError(t, err)
	pin, err := hex.DecodeString(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	key, err := backupkey.Read(filepath.Join(data, "recovery.key"))
	require.NoError(t, err)
	bucket, err := blobstore.Open(ctx, "file://"+filepath.Join(data, "backup"))
	require.NoError(t, err)
	defer bucket.Close()
	shards, err := blobstore.Open(ctx, "file://"+filepath.Join(data, "backup-keys"))
	require.NoError(t, err)
	defer shards.Close()
	r, err := backup.Open(ctx, bucket, ed25519.PublicKey(pin), &backup.Options{Shards: shards})
	require.NoError(t, err)
	s := &searchingSink{needles: n}
	_, err = r.Restore(ctx, "", s, key, nil)
	require.NoError(t, err)
	return s.rows
}

// searchingSink searches what is restored and keeps nothing.
type searchingSink struct {
	*needles
	rows int
}

func (s *searchingSink) Load(_ context.Context, r *backup.Reader) error {
	s.search("the schema in the backup", r.Schema().Data)
	for {
		table, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for row, err := range r.Rows() {
			if err != nil {
				return err
			}
			s.rows++
			for i, v := range row {
				place := fmt.Sprintf("table %s column %s in the backup", table.Name, table.Columns[i])
				switch x := v.(type) {
				case []byte:
					s.search(place, x)
				case string:
					s.search(place, []byte(x))
				}
			}
		}
	}
}

// unsealed is the program without sealing: the AEAD of every person key keeps the plaintext and puts a
// tag of zeros behind it. It shows that the search would find what is not sealed.
var unsealed = sync.OnceValues(func() (string, error) {
	path, err := binary()
	if err != nil {
		return "", err
	}
	source, err := filepath.Abs("../../encrypt/format.go")
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	const sealed = "	return cipher.NewGCM(block)\n}\n"
	if strings.Count(string(b), sealed) != 1 {
		return "", errors.New("the sealing in encrypt/format.go is not where it was")
	}
	dir := filepath.Dir(path)
	changed := strings.Replace(string(b), sealed, `	a, err := cipher.NewGCM(block)
	return noSeal{a}, err
}

type noSeal struct{ cipher.AEAD }

func (noSeal) Seal(dst, _, plain, _ []byte) []byte {
	return append(append(dst, plain...), make([]byte, 16)...)
}

func (noSeal) Open(dst, _, sealed, _ []byte) ([]byte, error) {
	return append(dst, sealed[:len(sealed)-16]...), nil
}
`, 1)
	replacement := filepath.Join(dir, "format.go")
	if err := os.WriteFile(replacement, []byte(changed), 0o600); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {source: replacement}})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", err
	}
	return build(filepath.Join(dir, "crm-unsealed"), "-overlay", list)
})

// sample is about a hundred of the rows, of each kind of name and phone.
func sample(rows []somebody) (values []string) {
	for i := range 100 {
		values = append(values, rows[(i*len(rows)/100)|i&7].values()...)
	}
	return values
}

// TestSecrecy: names, phones and e-mail addresses of an import are nowhere outside of the seal: not in
// the database, its WAL, the log, a backup or the key shards. The same search finds them all where the
// same program does not seal.
func TestSecrecy(t *testing.T) {
	long(t)
	t.Run("SQLite", func(t *testing.T) { secrecy(t, "") })
	t.Run("PostgreSQL", func(t *testing.T) {
		pg := realtest.Postgres(t)
		if pg.Dir == "" {
			t.Skip("the data folder of a server that CRMGUARD_TEST_POSTGRES names cannot be read")
		}
		secrecy(t, pg.DSN, pg)
	})
}

func secrecy(t *testing.T, dsn string, pg ...*realtest.PostgresServer) {
	flags := func(data string, dsn string) []string {
		f := []string{"--data", data, "--seed=false"}
		if dsn != "" {
			f = append(f, "--db", dsn)
		}
		return f
	}
	rows := people(worlds.Add(1), rowsOf())
	values := sample(rows)
	data := filepath.Join(t.TempDir(), "data")
	f := flags(data, dsn)
	p := serve(t, data, nil, f[2:]...)
	p.signIn(t, "admin")
	p.stop(t)
	mustRun(t, nil, append([]string{"import", csvOf(t, rows), "--duplicates", "off"}, f...)...)
	// Searches, readings and reveals leave openings in the log; the WAL is looked at while it is in use.
	p = serve(t, data, nil, f[2:]...)
	c := p.signIn(t, "admin")
	for i := range 20 {
		row := rows[i*len(rows)/100|i&7]
		found := items(t, c.postJSON(t, "/api/v1/customers/search", `{"term":"`+row.email+`"}`))
		require.Len(t, found, 1)
		require.Equal(t, row.phone, one(t, c.get(t, "/api/v1/customers/"+found[0].ID)).Fields["phone"].Value)
		r := c.postJSON(t, "/api/v1/customers/"+found[0].ID+"/reveal", `{"field":"phone","reason":"call `+row.email+` back"}`)
		require.Equal(t, http.StatusOK, r.status, r.body)
		r = c.post(t, "/follow-ups", url.Values{"customer": {found[0].ID}, "channel": {"call"}, "at": {"2026-01-02T10:00"}, "text": {"asked for " + row.phone}})
		require.Equal(t, http.StatusOK, r.status)
	}
	require.Equal(t, http.StatusOK, c.post(t, "/search", url.Values{"q": {rows[7].email}}).status)
	mustRun(t, nil, append([]string{"backup"}, f...)...)

	n := newNeedles(t, values)
	size := n.folder(t, data)
	where := "the data folder"
	if pg != nil {
		_, err := pg[0].DB.Exec("CHECKPOINT")
		require.NoError(t, err)
		size += n.folder(t, pg[0].Dir)
		where += " and the cluster"
	} else {
		assert.FileExists(t, filepath.Join(data, "crm.db-wal"))
	}
	decoded := n.backups(t, data)
	assert.Greater(t, decoded, len(rows))
	n.search("the program's output", []byte(p.output.String()))
	assert.Empty(t, n.found, "found outside of the seal")
	t.Logf("%d values, not one found in %d bytes of %s and %d rows of the backup", len(values), size, where, decoded)
	p.stop(t)
	n.folder(t, data)
	assert.Empty(t, n.found, "found outside of the seal after the end")

	// The control.
	path, err := unsealed()
	require.NoError(t, err)
	rows = people(worlds.Add(1), rowsOf())
	values = unique(sample(rows))
	data = filepath.Join(t.TempDir(), "open")
	if pg != nil {
		dsn = realtest.Postgres(t).DSN
	}
	f = flags(data, dsn)
	out, code := runBinary(t, path, nil, append([]string{"import", csvOf(t, rows), "--duplicates", "off"}, f...)...)
	require.Zero(t, code, out)
	out, code = runBinary(t, path, nil, append([]string{"backup"}, f...)...)
	require.Zero(t, code, out)
	stored := unique(typed(rows))
	in := newNeedles(t, values)
	if pg != nil {
		_, err := pg[0].DB.Exec("CHECKPOINT")
		require.NoError(t, err)
		in.folder(t, pg[0].Dir)
	} else {
		in.folder(t, data)
	}
	for _, v := range stored {
		assert.NotEmpty(t, in.found[v], "the search misses a value that is there in the clear")
	}
	in = newNeedles(t, values)
	in.backups(t, data)
	for _, v := range stored {
		assert.NotEmpty(t, in.found[v], "the search misses a value that is in the backup in the clear")
	}
	t.Logf("without sealing all of %d values are found, in the database and in the backup", len(stored))
}

// typed is what of the sample is stored as it is: all but the normalised phones.
func typed(rows []somebody) (out []string) {
	for i := range 100 {
		r := rows[(i*len(rows)/100)|i&7]
		out = append(out, r.company, r.contact(), r.phone, r.email)
	}
	return out
}

func unique(in []string) (out []string) {
	seen := map[string]bool{}
	for _, s := range in {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// TestAnotherSalesPersonsCustomer: to a sales person the customer of another one does not exist, by
// whatever way it is asked for, and phones in lists are masked.
//
//crm:item 24
func TestAnotherSalesPersonsCustomer(t *testing.T) {
	p := serve(t, filepath.Join(t.TempDir(), "data"), nil)
	admin, sales := p.signIn(t, "admin"), p.signIn(t, "sales")

	// Everything there is, and what the sales person gets of it.
	all := walk(t, admin, "/api/v1/customers?limit=200")
	require.Len(t, all, 2000+seed.FreeCustomers)
	mine := walk(t, sales, "/api/v1/customers?limit=200")
	require.NotEmpty(t, mine)
	require.Less(t, len(mine), len(all))
	visible := map[string]bool{}
	owner := mine[0].Fields["owner"].Value
	masked := regexp.MustCompile(`^\d{3}\*{4}\d{4}$|^\*+$|^\+?[\d ]*\*{2,}\d{0,4}$`)
	for _, r := range mine {
		visible[r.ID] = true
		require.Equal(t, owner, r.Fields["owner"].Value)
		require.Equal(t, "masked", r.Fields["phone"].State)
		require.Regexp(t, masked, r.Fields["phone"].Value)
		if v, ok := r.Fields["email"]; ok && v.State != "hidden" {
			require.Equal(t, "masked", v.State)
		}
	}
	var others []record
	for _, r := range all {
		if who := r.Fields["owner"].Value; who != owner && who != (crm.UUID{}).String() { // what nobody has is for the pools
			require.False(t, visible[r.ID])
			others = append(others, one(t, admin.get(t, "/api/v1/customers/"+r.ID)))
		}
		if len(others) == 3 {
			break
		}
	}
	require.Len(t, others, 3)
	binned := others[2]
	require.Equal(t, http.StatusOK, admin.post(t, "/customers/"+binned.ID+"/delete", url.Values{"version": {fmt.Sprint(binned.Version)}}).status)

	// The pages of the list, to the end.
	seen := map[string]bool{}
	phones := regexp.MustCompile(`\d{3}\*{4}\d{4}`)
	for path, n := "/customers", 0; path != ""; n++ {
		require.Less(t, n, 200)
		r := sales.get(t, path)
		require.Equal(t, http.StatusOK, r.status)
		require.Regexp(t, phones, r.body)
		for _, m := range regexp.MustCompile(`href="/customers/([0-9a-f-]{36})"`).FindAllStringSubmatch(r.body, -1) {
			seen[m[1]] = true
			require.True(t, visible[m[1]], "the list shows another's customer")
		}
		path = ""
		if m := regexp.MustCompile(`href="(/customers\?after=[^"]+)"`).FindStringSubmatch(r.body); m != nil {
			path = html.UnescapeString(m[1])
		}
	}
	assert.Len(t, seen, len(mine), "the pages of the list show all that the API lists")

	absent := sales.get(t, "/customers/00000000-0000-7000-8000-000000000000")
	require.Equal(t, http.StatusNotFound, absent.status)
	blank := func(body, id string) string { return strings.ReplaceAll(body, id, "ID") }
	for _, o := range others {
		f := o.Fields
		name, phone := f["name"].Value.(string), f["phone"].Value.(string)
		email, _ := f["email"].Value.(string)
		contact, _ := f["contact"].Value.(string)
		digits := regexp.MustCompile(`\D`).ReplaceAllString(phone, "")
		version := url.Values{"version": {fmt.Sprint(o.Version)}, "to": {"negotiation"}, "reason": {"curious"}, "city": {"Ulm"}, "name": {"x"}}
		bodies := map[string]string{}
		keep := func(what string, r response, want int) {
			assert.Equal(t, want, r.status, what)
			bodies[what] = r.body
		}
		base := "/customers/" + o.ID
		page := sales.get(t, base)
		keep("page", page, http.StatusNotFound)
		assert.Equal(t, blank(absent.body, "00000000-0000-7000-8000-000000000000"), blank(page.body, o.ID), "as if there were no such customer")
		keep("edit page", sales.get(t, base+"/edit"), http.StatusNotFound)
		keep("reveal page", sales.get(t, base+"/reveal/phone"), http.StatusNotFound)
		for _, action := range []string{"", "/delete", "/move", "/restore", "/reveal/phone", "/reveal/id_number"} {
			keep("post "+action, sales.post(t, base+action, version), http.StatusNotFound)
		}
		keep("API", sales.get(t, "/api/v1/customers/"+o.ID), http.StatusNotFound)
		keep("API reveal", sales.postJSON(t, "/api/v1/customers/"+o.ID+"/reveal", `{"field":"phone","reason":"curious"}`), http.StatusNotFound)
		terms := []string{name, contact, phone, digits, "+" + digits, " " + digits[:len(digits)-4] + "-" + digits[len(digits)-4:], strings.ToUpper(email)}
		for _, term := range terms {
			if strings.TrimSpace(term) == "" {
				continue
			}
			body, err := json.Marshal(map[string]string{"term": term})
			require.NoError(t, err)
			r := sales.postJSON(t, "/api/v1/customers/search", string(body))
			require.Equal(t, http.StatusOK, r.status, r.body)
			for _, hit := range items(t, r) {
				assert.True(t, visible[hit.ID], "the search of the API shows another's customer")
			}
			r = sales.post(t, "/search", url.Values{"q": {term}})
			require.Equal(t, http.StatusOK, r.status)
			assert.NotContains(t, r.body, o.ID, "the search page shows another's customer")
			if o.ID != binned.ID && term == digits {
				r := items(t, admin.postJSON(t, "/api/v1/customers/search", string(body)))
				assert.NotEmpty(t, r, "the same search finds it for who may see it")
			}
		}
		for _, list := range []string{"?show=mine", "?show=bin", "?show=overdue"} {
			keep("list "+list, sales.get(t, "/customers"+list), http.StatusOK)
			assert.NotContains(t, bodies["list "+list], o.ID)
		}
		for _, kind := range []string{"contacts", "follow-ups", "quotes", "contracts", "tickets"} {
			r := sales.get(t, "/"+kind+"?customer="+o.ID)
			require.Equal(t, http.StatusOK, r.status)
			assert.NotContains(t, r.body, `/customers/`+o.ID+`"`, kind)
		}
		for what, body := range bodies {
			for _, v := range []string{phone, digits, email} {
				if v != "" {
					assert.NotContains(t, body, v, what)
				}
			}
			if strings.HasPrefix(what, "list") {
				continue // demo names repeat
			}
			for _, v := range []string{name, contact} {
				if v != "" {
					assert.NotContains(t, body, html.EscapeString(v), what)
				}
			}
		}
		after := admin.get(t, "/api/v1/customers/"+o.ID)
		if o.ID != binned.ID {
			assert.Equal(t, o.Version, one(t, after).Version, "nothing was changed")
		}
	}
	for _, path := range []string{"/log", "/log/5", "/backups"} {
		assert.Equal(t, http.StatusForbidden, sales.get(t, path).status, path)
	}
	assert.Equal(t, http.StatusForbidden, sales.post(t, "/backups", nil).status)
	for _, path := range []string{"/customers/" + others[0].ID, "/log"} {
		r := p.client(t).get(t, path)
		assert.Contains(t, r.body, `name="password"`, "%s without a session", path)
	}
	assert.Equal(t, http.StatusUnauthorized, p.client(t).get(t, "/api/v1/customers").status)
	p.stop(t)
	green(t, nil, "--data", p.data)
}

// walk reads every page of a list of the API.
func walk(t testing.TB, c *client, path string) (out []record) {
	t.Helper()
	for after := ""; ; {
		r := c.get(t, path+after)
		require.Equal(t, http.StatusOK, r.status, r.body)
		var page struct {
			Items []record
			Next  string
		}
		require.NoError(t, json.Unmarshal([]byte(r.body), &page))
		out = append(out, page.Items...)
		if page.Next == "" {
			return out
		}
		after = "&after=" + url.QueryEscape(page.Next)
	}
}
