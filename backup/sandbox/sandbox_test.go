package sandbox_test

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/sandbox"
	"github.com/crmguard/crmguard/backup/sqlsource"
	"github.com/crmguard/crmguard/internal/dialect"
)

// shop is a database with real-looking persons and its backup.
type shop struct {
	db   *sql.DB
	repo *backup.Repository
	key  *backupkey.Private
	snap backup.Snapshot
	dead backup.Tombstones
}

func open(t testing.TB, folder string) *sql.DB {
	t.Helper()
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(folder, "shop.db"))
	require.NoError(t, err)
	t.Cleanup(func() { w.Close(); r.Close() })
	return w
}

const (
	anna  = "01890a5d-ac96-774b-bcce-b302099a8057"
	bert  = "01890a5d-ac96-774b-bcce-b302099a8058"
	early = int64(1_700_000_123_456_789)
)

func newShop(t testing.TB, dead backup.Tombstones, more ...string) *shop {
	t.Helper()
	s := &shop{db: open(t, t.TempDir()), dead: dead}
	for _, q := range append([]string{
		`CREATE TABLE people (id TEXT PRIMARY KEY, boss TEXT REFERENCES people (id), name TEXT, phone TEXT, email TEXT, born TEXT, joined INTEGER, city TEXT, sealed BLOB)`,
		`CREATE TABLE orders (id INTEGER PRIMARY KEY, raw BLOB, person TEXT NOT NULL REFERENCES people (id), at INTEGER, note TEXT, watchers TEXT, ext TEXT)`,
		`CREATE TABLE sessions (token TEXT PRIMARY KEY, person TEXT) WITHOUT ROWID`,
		`INSERT INTO people VALUES ('` + anna + `', NULL, 'Anna Marker1', '+49 30 Marker2', 'marker3@real.test', '1980-02-29', 1700000123456789, 'Ulm', x'00112233445566778899'),
			('` + bert + `', '` + anna + `', 'Anna Marker1', '', NULL, '1999-12-31', 1700000999999999, 'Ulm', x'ffeeddccbbaa99887766')`,
		`INSERT INTO orders VALUES (41, x'01890a5dac96774bbcceb302099a8057', '` + anna + `', 1700000123456789, 'call Marker4', '<` + anna + `><` + bert + `>', 'MARKER5-77'),
			(42, x'00', '` + anna + `', 1700006400000000, '', '', ''), (43, NULL, '` + bert + `', NULL, NULL, NULL, 'MARKER5-77')`,
		`INSERT INTO sessions VALUES ('Marker6token', '` + anna + `')`,
	}, more...) {
		_, err := s.db.Exec(q)
		require.NoError(t, err, q)
	}
	var err error
	s.key, err = backupkey.Generate()
	require.NoError(t, err)
	signer, err := backupkey.CreateSigner(filepath.Join(t.TempDir(), "signer"))
	require.NoError(t, err)
	s.repo, err = backup.Open(t.Context(), &backuptest.Bucket{}, signer.Public().(ed25519.PublicKey), &backup.Options{Signer: signer, Recipient: s.key.Public()})
	require.NoError(t, err)
	s.snap, err = s.repo.Backup(t.Context(), sqlsource.SQLite(s.db, nil), &backup.BackupOptions{Tombstones: dead})
	require.NoError(t, err)
	return s
}

func rules() map[string]sandbox.Table {
	return map[string]sandbox.Table{
		"people": {Columns: map[string]sandbox.Rule{
			"rowid": sandbox.Keep, "id": sandbox.Remap, "boss": sandbox.Remap, "name": sandbox.Name, "phone": sandbox.Phone, "email": sandbox.Email,
			"born": sandbox.Shift, "joined": sandbox.Shift, "city": sandbox.Keep, "sealed": sandbox.Seal,
		}},
		"orders": {Columns: map[string]sandbox.Rule{
			"id": sandbox.Remap, "raw": sandbox.Null, "person": sandbox.Remap, "at": sandbox.Shift, "note": sandbox.Text, "watchers": sandbox.Remap, "ext": sandbox.Remap,
		}},
		"sessions": {Empty: true},
	}
}

func options(tables map[string]sandbox.Table) *sandbox.Options {
	return &sandbox.Options{
		Tables: tables,
		Person: func(r sandbox.Row) ([]byte, error) {
			if id, ok := r.Get("person").(string); ok {
				return []byte(id), nil
			}
			id, _ := r.Get("id").(string)
			return []byte(id), nil
		},
		Seal: func(_ context.Context, r sandbox.Row, column string, _ any) (any, error) {
			return []byte("sealed anew: " + column + " of " + r.Get("name").(string)), nil
		},
	}
}

// restore restores into a new folder.
func (s *shop) restore(t testing.TB, v *sandbox.Inventor, o *sandbox.Options, with *backup.RestoreOptions) (*sql.DB, string, error) {
	t.Helper()
	folder := t.TempDir()
	db := open(t, folder)
	to, err := sandbox.Sink(sqlsource.SQLite(db, nil), v, o)
	require.NoError(t, err)
	_, err = s.repo.Restore(t.Context(), s.snap.ID, to, s.key, with)
	return db, folder, err
}

func column[T any](t testing.TB, db *sql.DB, query string) (out []T) {
	t.Helper()
	rows, err := db.Query(query)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var v T
		require.NoError(t, rows.Scan(&v))
		out = append(out, v)
	}
	require.NoError(t, rows.Err())
	return out
}

func TestSandbox(t *testing.T) {
	s := newShop(t, backup.Tombstones{})
	v := sandbox.NewInventor()
	db, folder, err := s.restore(t, v, options(rules()), nil)
	require.NoError(t, err)

	// Nobody is in it: not a marker, id or sealed byte in any file, the write-ahead log included.
	files := 0
	gone := []string{"marker", anna, bert, "\x01\x89\x0a\x5d\xac\x96", "\x00\x11\x22\x33\x44\x55\x66\x77", "\xff\xee\xdd\xcc\xbb\xaa\x99\x88", "1980-02-29", "1999-12-31"}
	require.NoError(t, filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files++
		for _, g := range gone {
			assert.NotContains(t, strings.ToLower(string(b)), strings.ToLower(g), path)
		}
		return err
	}))
	assert.GreaterOrEqual(t, files, 2, "the database and its log")

	// The shape is the true one.
	assert.Empty(t, column[string](t, db, `SELECT "table" FROM pragma_foreign_key_check`), "references hold")
	assert.Equal(t, []string{"ok"}, column[string](t, db, `PRAGMA integrity_check`))
	assert.Equal(t, []int{2, 3, 0}, column[int](t, db, `SELECT count(*) FROM people UNION ALL SELECT count(*) FROM orders UNION ALL SELECT count(*) FROM sessions`))
	assert.Equal(t, []int{1, 2}, column[int](t, db, `SELECT count(*) FROM orders JOIN people p ON p.id = person GROUP BY p.id ORDER BY 1`), "who has how many")
	names := column[string](t, db, `SELECT name FROM people`)
	assert.Equal(t, names[0], names[1], "duplicates stay duplicates")
	assert.Equal(t, []string{"Ulm", "Ulm"}, column[string](t, db, `SELECT city FROM people`), "what is kept")
	assert.Equal(t, []int{1}, column[int](t, db, `SELECT count(*) FROM people WHERE phone = ''`), "nothing stays nothing")
	assert.Equal(t, []int{1}, column[int](t, db, `SELECT count(*) FROM people WHERE email IS NULL`))
	assert.Regexp(t, `^\+1 \d{3} 555 01\d\d$`, column[string](t, db, `SELECT phone FROM people WHERE phone > ''`)[0])
	assert.Regexp(t, `^[a-z]+\.[a-z0-9]{12}@sandbox\.invalid$`, column[string](t, db, `SELECT email FROM people WHERE email > ''`)[0])
	assert.Equal(t, "sealed anew: sealed of "+names[0], column[string](t, db, `SELECT CAST(sealed AS TEXT) FROM people`)[0])

	// The list names the same two, and equal keys of other systems are equal.
	ids := column[string](t, db, `SELECT id FROM people ORDER BY boss IS NOT NULL`)
	assert.Equal(t, []string{"<" + ids[0] + "><" + ids[1] + ">"}, column[string](t, db, `SELECT watchers FROM orders WHERE watchers > ''`))
	assert.Equal(t, []int{2}, column[int](t, db, `SELECT count(*) FROM orders WHERE ext > '' GROUP BY ext`))

	// Times of a person move alike, days by days.
	joined := column[int64](t, db, `SELECT joined FROM people WHERE boss IS NULL`)[0]
	at := column[int64](t, db, `SELECT at FROM orders JOIN people p ON p.id = person WHERE boss IS NULL ORDER BY at`)
	by := time.Duration(joined-early) * time.Microsecond
	assert.Equal(t, v.Offset(anna), by)
	assert.Equal(t, joined, at[0])
	assert.Regexp(t, `^19(80|79)-\d\d-\d\d$`, column[string](t, db, `SELECT born FROM people WHERE boss IS NULL`)[0])

	// Another sandbox of the same backup shares nothing with it.
	other, _, err := s.restore(t, sandbox.NewInventor(), options(rules()), nil)
	require.NoError(t, err)
	assert.NotContains(t, ids, column[string](t, other, `SELECT id FROM people`)[0])
	// With the same key it is the same one.
	again, _, err := s.restore(t, v, options(rules()), nil)
	require.NoError(t, err)
	assert.Equal(t, column[string](t, db, `SELECT id || name || joined FROM people ORDER BY id`), column[string](t, again, `SELECT id || name || joined FROM people ORDER BY id`))
}

// TestRefused: what no rule names is an error with its name, and nothing was written; so is what a rule cannot change.
func TestRefused(t *testing.T) {
	without := func(table, column string) map[string]sandbox.Table {
		r := rules()
		if column == "" {
			delete(r, table)
			return r
		}
		c := maps.Clone(r[table].Columns)
		delete(c, column)
		r[table] = sandbox.Table{Columns: c}
		return r
	}
	with := func(table, column string, rule sandbox.Rule) map[string]sandbox.Table {
		r := without(table, column)
		r[table].Columns[column] = rule
		return r
	}
	for name, c := range map[string]struct {
		sql    string
		tables map[string]sandbox.Table
		want   sandbox.RefusedError
	}{
		"a table without rules":     {"", without("orders", ""), sandbox.RefusedError{Table: "orders"}},
		"a table made later":        {`CREATE TABLE diary (text TEXT)`, rules(), sandbox.RefusedError{Table: "diary"}},
		"a column without a rule":   {"", without("people", "city"), sandbox.RefusedError{Table: "people", Column: "city"}},
		"a column added later":      {`ALTER TABLE people ADD COLUMN nick TEXT`, rules(), sandbox.RefusedError{Table: "people", Column: "nick"}},
		"its name in other letters": {`ALTER TABLE orders ADD COLUMN Note2 TEXT`, with("orders", "note2", sandbox.Keep), sandbox.RefusedError{Table: "orders", Column: "Note2"}},
		"an empty list of columns":  {"", map[string]sandbox.Table{"people": {}, "orders": rules()["orders"], "sessions": {Empty: true}}, sandbox.RefusedError{Table: "people", Column: "rowid"}},
		"a name in bytes":           {"", with("people", "sealed", sandbox.Name), sandbox.RefusedError{Table: "people", Column: "sealed", Rule: sandbox.Name}},
		"a name in a number":        {"", with("orders", "at", sandbox.Name), sandbox.RefusedError{Table: "orders", Column: "at", Rule: sandbox.Name}},
		"a time that is none":       {"", with("people", "city", sandbox.Shift), sandbox.RefusedError{Table: "people", Column: "city", Rule: sandbox.Shift}},
		"a time in bytes":           {"", with("people", "sealed", sandbox.Shift), sandbox.RefusedError{Table: "people", Column: "sealed", Rule: sandbox.Shift}},
		"an id of one byte":         {"", with("orders", "raw", sandbox.Remap), sandbox.RefusedError{Table: "orders", Column: "raw", Rule: sandbox.Remap}},
		"an id that is a fraction":  {`UPDATE orders SET ext = 1.5; ALTER TABLE orders ADD COLUMN f REAL DEFAULT 1.5`, with("orders", "f", sandbox.Remap), sandbox.RefusedError{Table: "orders", Column: "f", Rule: sandbox.Remap}},
	} {
		t.Run(name, func(t *testing.T) {
			var more []string
			if c.sql != "" {
				more = append(more, c.sql)
			}
			s := newShop(t, backup.Tombstones{}, more...)
			db, _, err := s.restore(t, sandbox.NewInventor(), options(c.tables), nil)
			var refused *sandbox.RefusedError
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, c.want, *refused)
			assert.NotRegexp(t, regexp.MustCompile(`(?i)marker|1\.5`), err.Error())
			assert.Empty(t, column[string](t, db, `SELECT name FROM sqlite_master`), "nothing was made")
			if c.want.Rule == "" {
				check, err := sandbox.Sink(nil, sandbox.NewInventor(), options(c.tables))
				require.NoError(t, err)
				_, err = s.repo.Restore(t.Context(), "", check, s.key, nil)
				require.ErrorAs(t, err, &refused, "the look beforehand says the same")
				assert.Equal(t, c.want, *refused)
			}
		})
	}
}

// TestRules: rules that contradict themselves are refused before anything is opened.
func TestRules(t *testing.T) {
	v := sandbox.NewInventor()
	for name, c := range map[string]struct {
		v *sandbox.Inventor
		o *sandbox.Options
	}{
		"no options":  {v, nil},
		"no rules":    {v, &sandbox.Options{}},
		"no inventor": {nil, options(rules())},
		"unknown":     {v, &sandbox.Options{Tables: map[string]sandbox.Table{"a": {Columns: map[string]sandbox.Rule{"b": "shuffle"}}}}},
		"empty rule":  {v, &sandbox.Options{Tables: map[string]sandbox.Table{"a": {Columns: map[string]sandbox.Rule{"b": ""}}}}},
		"no sealing":  {v, &sandbox.Options{Tables: rules()}},
	} {
		_, err := sandbox.Sink(nil, c.v, c.o)
		assert.Error(t, err, name)
	}
	_, err := sandbox.Sink(nil, v, options(rules()))
	assert.NoError(t, err)
}

// TestAsOtherRestores: what refuses a restore refuses a sandbox.
func TestAsOtherRestores(t *testing.T) {
	dead := backup.Tombstones{Number: 1, Records: [][]byte{{1, 2, 3}}}
	s := newShop(t, dead)
	_, _, err := s.restore(t, sandbox.NewInventor(), options(rules()), nil)
	assert.ErrorIs(t, err, backup.ErrReplay, "erasures that nobody replays")
	failing := errors.New("not now")
	_, _, err = s.restore(t, sandbox.NewInventor(), options(rules()), &backup.RestoreOptions{Tombstones: func(context.Context, backup.Tombstones) error { return failing }})
	assert.ErrorIs(t, err, failing)
	_, _, err = s.restore(t, sandbox.NewInventor(), options(rules()), &backup.RestoreOptions{Tombstones: func(_ context.Context, list backup.Tombstones) error {
		assert.Equal(t, dead.Records, list.Records)
		return nil
	}})
	assert.NoError(t, err)

	s = newShop(t, backup.Tombstones{})
	other, err := backupkey.Generate()
	require.NoError(t, err)
	right := s.key
	s.key = other
	_, _, err = s.restore(t, sandbox.NewInventor(), options(rules()), nil)
	assert.ErrorIs(t, err, backup.ErrKey, "another key")
	s.key = nil
	_, _, err = s.restore(t, sandbox.NewInventor(), options(rules()), nil)
	assert.ErrorIs(t, err, backup.ErrKey, "no key")
	s.key = right

	o := options(rules())
	o.Seal = func(context.Context, sandbox.Row, string, any) (any, error) { return nil, failing }
	_, _, err = s.restore(t, sandbox.NewInventor(), o, nil)
	assert.ErrorIs(t, err, failing)
	o = options(rules())
	o.Person = func(sandbox.Row) ([]byte, error) { return nil, failing }
	db, _, err := s.restore(t, sandbox.NewInventor(), o, nil)
	assert.ErrorIs(t, err, failing)
	assert.Empty(t, column[string](t, db, `SELECT name FROM sqlite_master`))

	db, _, err = s.restore(t, sandbox.NewInventor(), options(rules()), nil)
	require.NoError(t, err)
	to, err := sandbox.Sink(sqlsource.SQLite(db, nil), sandbox.NewInventor(), options(rules()))
	require.NoError(t, err)
	_, err = s.repo.Restore(t.Context(), "", to, s.key, nil)
	assert.ErrorIs(t, err, backup.ErrNotEmpty)
}

func TestInventor(t *testing.T) {
	v := sandbox.NewInventor()
	for rule, form := range map[sandbox.Rule]string{
		sandbox.Name: `^(\p{Han}{2,3}|[A-Z]\w+ [A-Z]\w+)$`, sandbox.Company: `有限公司$|&`, sandbox.Phone: `^\+1 \d{3} 555 01\d\d$`,
		sandbox.Email: `@sandbox\.invalid$`, sandbox.Address: `号$|, `, sandbox.IDNumber: `^999901\d{11}[\dX]$`, sandbox.Text: `\[[a-z0-9]{6}\]$`,
	} {
		seen, same := map[string]bool{}, 0
		for _, who := range strings.Fields("a b c d e f g h i j k l m n o p q r s t") {
			x := v.Value(rule, who, "field")
			assert.Regexp(t, form, x)
			assert.Equal(t, x, v.Value(rule, who, "field"))
			if v.Value(rule, who+"field") == v.Value(rule, who, "fiel", "d") {
				same++ // by chance: there are some hundred companies
			}
			seen[x] = true
		}
		assert.Less(t, same, 5, rule)
		assert.Greater(t, len(seen), 10, rule)
	}
	assert.Equal(t, [16]byte{}, v.ID([16]byte{}), "nobody stays nobody")
	assert.NotEqual(t, [16]byte{1}, v.ID([16]byte{1}))
	assert.NotEqual(t, sandbox.NewInventor().ID([16]byte{1}), v.ID([16]byte{1}))
	forward, back := 0, 0
	for i := range 1000 {
		d := v.Offset(string(rune(i)))
		abs := d.Abs()
		assert.True(t, abs > 22*time.Hour && abs < 16*24*time.Hour, d)
		if d > 0 {
			forward++
		} else {
			back++
		}
	}
	assert.Greater(t, min(forward, back), 350)
	v.Forget()
	assert.Panics(t, func() { v.ID([16]byte{1}) })
	assert.Panics(t, func() { v.Value(sandbox.Name, "a") })
}

func TestTimes(t *testing.T) {
	const by = 3*24*time.Hour + 25*time.Minute
	for in, want := range map[any]any{
		"2026-01-31": "2026-02-03", "2026-01-31 10:00:00": "2026-02-03 10:25:00", "2026-01-31T10:00:00.5Z": "2026-02-03T10:25:00.5Z",
		"2026-01-31T10:00:00+08:00": "2026-02-03T10:25:00+08:00", "2026-01-31T00:00:00Z": "2026-02-03T00:00:00Z", "": "",
		int64(0): int64(0), int64(86_400_000_000): int64(4 * 86_400_000_000), int64(86_400_000_001): int64(4*86_400_000_000 + 1_500_000_001),
		time.Unix(1, 0).UTC(): time.Unix(1, 0).UTC().Add(by), time.Time{}: time.Time{},
	} {
		got, ok := sandbox.ShiftValue(in, by)
		assert.True(t, ok, in)
		assert.Equal(t, want, got)
	}
	for _, in := range []any{"soon", "2026-13-01", "9999-12-31", int64(1<<63 - 1), 1.5, true, []byte("2026-01-31")} {
		_, ok := sandbox.ShiftValue(in, by)
		assert.False(t, ok, in)
	}
}

func FuzzShift(f *testing.F) {
	for _, s := range []string{"2026-01-31", "2026-01-31 10:00:00", "2026-01-31T10:00:00.5Z", "2026-01-31 10:00:00.25+08", "2026-01-31 00:00:00-07:00", "x", "0001-01-01"} {
		f.Add(s, int64(3))
	}
	f.Fuzz(func(t *testing.T, s string, n int64) {
		by := time.Duration(n%15) * 24 * time.Hour
		there, ok := sandbox.ShiftValue(s, by)
		if !ok {
			return
		}
		back, ok := sandbox.ShiftValue(there, -by)
		if !ok {
			return // beyond the years
		}
		again, _ := sandbox.ShiftValue(back, by)
		if again != there {
			t.Fatalf("%q is %q and back %q and there %q", s, there, back, again)
		}
	})
}

func FuzzRemap(f *testing.F) {
	v := sandbox.NewInventor()
	for _, s := range []string{anna, "<" + anna + "><" + bert + ">", "[]", `["` + anna + `"]`, "Mr. Marker " + anna, "C-2026-0001", "a", " ", strings.ToUpper(anna)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		x, _ := v.Remap(s)
		again, _ := v.Remap(s)
		out := x.(string)
		if out != again {
			t.Fatal("not the same twice")
		}
		// Only what separates is left of the text.
		for _, word := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(`<>[]{}(),;|" `, r) }) {
			if len(word) >= 6 && strings.Contains(out, word) && word != "00000000-0000-0000-0000-000000000000" {
				t.Fatalf("%q is left in %q", word, out)
			}
		}
	})
}
