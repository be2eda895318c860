package encrypt_test

import (
	"cmp"
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/normalize"
	"github.com/crmguard/crmguard/internal/dialect"
)

var customers = flag.Int("customers", 0, "how many customers TestSearchCustomers seals; 0 = 3,000, or 100,000 with CRMGUARD_SOAK")

// shopper is what TestSearchCustomers seals and searches.
type shopper struct {
	Name  encrypt.Text `protect:"personal,index=exact:name,index=ngram:person,index=exact:pinyin,leaks=fragments"`
	Phone encrypt.Text `protect:"personal,index=exact:phone,index=suffix4:digits:12,leaks=equality"`
}

// TestSearchCustomers seals and indexes customers into SQLite, searches them by the last four digits of the phone,
// by two Chinese characters and by pinyin, and compares with a scan of the plain list.
func TestSearchCustomers(t *testing.T) {
	n := *customers
	if n == 0 {
		if n = 3000; os.Getenv("CRMGUARD_SOAK") != "" {
			n = 100_000
		}
	}
	people := shoppers(n)
	db, reads, err := dialect.OpenSQLite(ctx, filepath.Join(t.TempDir(), "search.db"))
	require.NoError(t, err)
	defer db.Close()
	defer reads.Close()
	for _, q := range []string{
		"CREATE TABLE sealed (row INTEGER PRIMARY KEY, fields BLOB NOT NULL)",
		"CREATE TABLE token (value INTEGER NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (value, row)) WITHOUT ROWID",
	} {
		_, err := db.Exec(q)
		require.NoError(t, err)
	}
	c, err := encrypt.NewCodec[*shopper](codecOptions())
	require.NoError(t, err)
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	start := time.Now()
	tokens := 0
	for from := 0; from < n; from += 1000 {
		to := min(n, from+1000)
		recs := make([]encrypt.Record, 0, 1000)
		values := make([]*shopper, 0, 1000)
		for i := from; i < to; i++ {
			recs, values = append(recs, shopperAt(i)), append(values, &people[i])
		}
		sealed, err := c.SealAll(ctx, k, recs, values)
		require.NoError(t, err)
		tokens += store(t, db, from, sealed)
	}
	took := time.Since(start)
	t.Logf("%d customers sealed, indexed and stored in %.1f s (%.0f a second), %.1f tokens each", n, took.Seconds(), float64(n)/took.Seconds(), float64(tokens)/float64(n))

	folded := normalize.Normalizers("CN")
	for _, q := range []struct {
		what, field, kind, typed string
		plain                    func(s *shopper) bool
	}{
		{"last four digits", "phone", "suffix4", "5678", func(s *shopper) bool {
			return strings.HasSuffix(folded["digits"](s.Phone.Expose())[0], "5678")
		}},
		{"two characters", "name", "ngram", "小明", func(s *shopper) bool { return strings.Contains(s.Name.Expose(), "小明") }},
		{"surname and a character", "name", "ngram", "曾小", func(s *shopper) bool { return strings.Contains(s.Name.Expose(), "曾小") }},
		{"pinyin", "name", "exact:pinyin", "zeng", func(s *shopper) bool { return strings.HasPrefix(s.Name.Expose(), "曾") }},
		{"pinyin, full", "name", "exact:pinyin", "Zeng Xiaoming", func(s *shopper) bool { return s.Name.Expose() == "曾小明" }},
		{"pinyin, 单 as shan", "name", "exact:pinyin", "shanxiao", func(s *shopper) bool { return strings.HasPrefix(s.Name.Expose(), "单小") }},
		{"whole name", "name", "exact:name", "曾小明", func(s *shopper) bool { return s.Name.Expose() == "曾小明" }},
		{"whole phone", "phone", "exact:phone", people[n/2].Phone.Expose(), func(s *shopper) bool { return s.Phone.Expose() == people[n/2].Phone.Expose() }},
	} {
		start := time.Now()
		query, err := c.Query(ctx, k, "acme", q.field, q.kind, q.typed)
		require.NoError(t, err, q.what)
		hits, candidates := search(t, reads, c, k, query, q.field)
		took := time.Since(start)
		start = time.Now()
		var want []int
		for i := range people {
			if q.plain(&people[i]) {
				want = append(want, i)
			}
		}
		scan := time.Since(start)
		require.Equal(t, want, hits, q.what)
		require.NotEmpty(t, want, "%s: the list has nothing to find", q.what)
		t.Logf("%-24s %-14q %5d hits of %5d candidates in %8s; plain scan %8s", q.what, q.typed, len(hits), candidates, took.Round(10*time.Microsecond), scan.Round(10*time.Microsecond))
	}
}

func shopperAt(i int) encrypt.Record {
	r := encrypt.Record{Tenant: "acme", Erasure: 1}
	copy(r.ID[:], fmt.Sprintf("r%015d", i))
	copy(r.Person[:], fmt.Sprintf("p%015d", i))
	return r
}

// shoppers makes a list that is the same each time.
func shoppers(n int) []shopper {
	r := rand.New(rand.NewPCG(1, 2))
	surnames := []rune("王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈单仇解查区")
	given := []rune("伟芳娜敏静秀丽强磊军洋勇艳杰娟涛明超霞平刚桂英华建国文志小红玉兰春梅海波云鹏飞鑫宇浩然子轩")
	out := make([]shopper, n)
	for i := range out {
		name := string(surnames[r.IntN(len(surnames))]) + string(given[r.IntN(len(given))])
		if r.IntN(4) > 0 {
			name += string(given[r.IntN(len(given))])
		}
		phone := fmt.Sprintf("1%d%09d", 3+r.IntN(7), r.IntN(1_000_000_000))
		switch i {
		case n / 3:
			name, phone = "曾小明", "13800135678"
		case n / 4:
			name = "单小红"
		}
		out[i] = shopper{encrypt.NewText(name), encrypt.NewText(phone)}
	}
	return out
}

// store writes a batch into both tables and returns how many tokens it had.
func store(t *testing.T, db *sql.DB, from int, sealed []encrypt.Sealed) int {
	t.Helper()
	tx, err := db.Begin()
	require.NoError(t, err)
	defer tx.Rollback()
	type pair struct {
		token int64
		row   int
	}
	var pairs []pair
	put, err := tx.Prepare("INSERT INTO sealed (row, fields) VALUES (?, ?)")
	require.NoError(t, err)
	defer put.Close()
	for i := range sealed {
		_, err := put.Exec(from+i, sealed[i])
		require.NoError(t, err)
		for _, f := range sealed[i].Fields {
			for _, tok := range f.Tokens {
				pairs = append(pairs, pair{tok.Value, from + i})
			}
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if a.token != b.token {
			return cmp.Compare(a.token, b.token)
		}
		return a.row - b.row
	})
	index, err := tx.Prepare("INSERT OR IGNORE INTO token (value, row) VALUES (?, ?)")
	require.NoError(t, err)
	defer index.Close()
	for _, p := range pairs {
		_, err := index.Exec(p.token, p.row)
		require.NoError(t, err)
	}
	require.NoError(t, tx.Commit())
	return len(pairs)
}

// search finds the candidates of a query by its first group, opens them and keeps those that match.
func search(t *testing.T, db *sql.DB, c *encrypt.Codec[*shopper], k *encrypt.Keeper, q encrypt.Query, field string) (hits []int, candidates int) {
	t.Helper()
	var args []any
	for _, token := range q.Groups[0] {
		args = append(args, token)
	}
	rows, err := db.Query("SELECT row, fields FROM sealed WHERE row IN (SELECT row FROM token WHERE value IN "+
		dialect.Placeholders(1, len(args))+") ORDER BY row", args...)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var row int
		var s encrypt.Sealed
		require.NoError(t, rows.Scan(&row, &s))
		candidates++
		var v shopper
		_, err := c.Open(ctx, k, shopperAt(row), s.Fields, &v, field)
		require.NoError(t, err)
		if c.Match(q, &v) {
			hits = append(hits, row)
		}
	}
	require.NoError(t, rows.Err())
	return hits, candidates
}
