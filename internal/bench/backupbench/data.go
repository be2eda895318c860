package backupbench

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// column is one of a table, with its type in SQLite; PostgreSQL has its own names.
type column struct{ name, kind string }

// tables are those of the source, parents first. The first column is the key.
var tables = []struct {
	name    string
	columns []column
	parent  string // column, and the table that it refers to
	of      string
}{
	{"companies", []column{
		{"id", "TEXT PRIMARY KEY"}, {"seq", "INTEGER NOT NULL"}, {"name", "TEXT"}, {"domain", "TEXT"}, {"country", "TEXT"},
		{"about", "TEXT"}, {"changed", "TEXT"},
	}, "", ""},
	{"contacts", []column{
		{"id", "TEXT PRIMARY KEY"}, {"company", "TEXT REFERENCES companies(id)"}, {"seq", "INTEGER NOT NULL"},
		{"owner", "TEXT"}, {"stage", "TEXT"}, {"country", "TEXT"}, {"created", "TEXT"}, {"changed", "TEXT"},
		{"name", "TEXT"}, {"email", "TEXT"}, {"phone", "BLOB"}, {"email_index", "BLOB"}, {"tags", "TEXT"}, {"about", "TEXT"},
	}, "company", "companies"},
	{"activities", []column{
		{"id", "INTEGER PRIMARY KEY"}, {"contact", "TEXT REFERENCES contacts(id)"}, {"seq", "INTEGER NOT NULL"},
		{"at", "TEXT"}, {"changed", "TEXT"}, {"kind", "TEXT"}, {"minutes", "INTEGER"}, {"subject", "TEXT"}, {"body", "TEXT"}, {"note", "BLOB"},
	}, "contact", "contacts"},
	{"attachments", []column{
		{"id", "INTEGER PRIMARY KEY"}, {"contact", "TEXT REFERENCES contacts(id)"}, {"seq", "INTEGER NOT NULL"},
		{"name", "TEXT"}, {"changed", "TEXT"}, {"body", "BLOB"},
	}, "contact", "contacts"},
}

const attachment = 2 << 20 // bytes of one

// postgres makes the type of a column that of PostgreSQL.
func postgres(kind string) string {
	kind, _, _ = strings.Cut(kind, " REFERENCES")
	kind = strings.Replace(kind, "INTEGER", "BIGINT", 1)
	return strings.Replace(kind, "BLOB", "BYTEA", 1)
}

// schema returns what is created before the rows, and what after them.
func schema(pg bool) (before, after []string) {
	for _, t := range tables {
		var list []string
		for _, c := range t.columns {
			kind := c.kind
			if pg {
				kind = postgres(kind)
			}
			list = append(list, c.name+" "+kind)
		}
		before = append(before, "CREATE TABLE "+t.name+" ("+strings.Join(list, ", ")+")")
		index := "CREATE INDEX " + t.name + "_seq ON " + t.name + " (seq)"
		if !pg {
			after = append(after, index)
			continue
		}
		before = append(before, index) // prepared tables have it before they have rows
		if t.parent != "" {
			after = append(after, "ALTER TABLE "+t.name+" ADD FOREIGN KEY ("+t.parent+") REFERENCES "+t.of+"(id)")
		}
	}
	return before, after
}

// source makes rows. Equal seeds make equal rows.
type source struct {
	r       *rand.Rand
	words   []string
	random  [8]byte
	sealed  int64 // bytes of values that are random
	encoded int64 // of them, added by base64
	plain   int64 // other bytes
}

func newSource(seed uint64) *source {
	s := &source{r: rand.New(rand.NewPCG(seed, 1))}
	for range 3000 {
		b := make([]byte, 2+s.r.IntN(9))
		for i := range b {
			b[i] = "etaoinshrdlucmfwypvbgkqjxz"[min(s.r.IntN(26), s.r.IntN(26))]
		}
		s.words = append(s.words, string(b))
	}
	return s
}

func (s *source) text(n int) string {
	b := make([]byte, 0, n+12)
	for len(b) < n {
		b = append(append(b, s.words[s.r.IntN(1+s.r.IntN(len(s.words)))]...), ' ')
	}
	s.plain += int64(n)
	return string(b[:n])
}

func (s *source) pick(list ...string) string {
	v := list[s.r.IntN(len(list))]
	s.plain += int64(len(v))
	return v
}

// blob is a value as sealing makes it.
func (s *source) blob(n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, s.r.Uint64())
	}
	s.sealed += int64(n)
	return b[:n]
}

func (s *source) base64(n int) string {
	v := base64.StdEncoding.EncodeToString(s.blob(n))
	s.encoded += int64(len(v) - n)
	return v
}

func (s *source) time() string {
	s.plain += 20
	return fmt.Sprintf("20%02d-%02d-%02dT%02d:%02d:%02dZ", 18+s.r.IntN(8), 1+s.r.IntN(12), 1+s.r.IntN(28), s.r.IntN(24), s.r.IntN(60), s.r.IntN(60))
}

// key is the id of a row: random, as those of the CRM are, and the same for the same number.
func (s *source) key(table string, n int) string {
	s.plain += 32
	return fmt.Sprintf("%s%015x%016x", table[:1], n, uint64(n+1)*0x9e3779b97f4a7c15)
}

func (s *source) row(table string, n, companies, contacts int) []any {
	seq := int64(n + 1)
	s.plain += 8
	switch table {
	case "companies":
		return []any{s.key(table, n), seq, s.text(24), s.text(14), s.pick("NO", "DE", "JP", "US"), s.text(300), s.time()}
	case "contacts":
		return []any{
			s.key(table, n), s.key("companies", s.r.IntN(companies)), seq, s.pick("anna", "boris", "chen", "dora"),
			s.pick("lead", "customer", "former"), s.pick("NO", "DE", "JP", "US"), s.time(), s.time(), s.base64(60), s.base64(66), s.blob(48),
			s.blob(16), s.pick(`["news"]`, `["news","fair"]`, `[]`), s.text(140 + s.r.IntN(80)),
		}
	case "activities":
		return []any{
			seq, s.key("contacts", s.r.IntN(contacts)), seq, s.time(), s.time(), s.pick("call", "mail", "meeting"), int64(s.r.IntN(90)),
			s.text(40), s.text(180 + s.r.IntN(160)), s.blob(130),
		}
	}
	body := s.blob(attachment)
	if n%2 == 0 {
		s.sealed -= attachment
		body = []byte(s.text(attachment))
	}
	return []any{seq, s.key("contacts", s.r.IntN(contacts)), seq, s.text(20), s.time(), body}
}

// counts says how many rows each table has.
func counts(rows int, attachments int64) map[string]int {
	n := map[string]int{"companies": max(1, rows/20), "contacts": max(1, rows*2/5), "attachments": int(attachments / attachment)}
	n["activities"] = max(1, rows-n["companies"]-n["contacts"])
	return n
}

// generate fills a new SQLite database.
func generate(ctx context.Context, p params) (figures, error) {
	s := newSource(uint64(p.Rows))
	n := counts(p.Rows, p.Attachments)
	var rows int64
	err := fillSQLite(ctx, p.DB, func(table string, row func([]any) error) error {
		for i := range n[table] {
			rows++
			if err := row(s.row(table, i, n["companies"], n["contacts"])); err != nil {
				return err
			}
		}
		return nil
	})
	return figures{"rows": float64(rows), "sealed": float64(s.sealed), "bytes": float64(s.sealed + s.encoded + s.plain)}, err
}

// change alters one row of a hundred, in scattered places, and numbers the changes.
func change(ctx context.Context, p params) (figures, error) {
	db, err := sql.Open("sqlite", "file:"+p.DB)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	var changed int64
	for table, set := range map[string]string{
		"companies":  "about = substr(about, 2) || 'x'",
		"contacts":   "stage = 'changed', email = substr(hex(randomblob(44)), 1, 88)",
		"activities": "minutes = minutes + 1, note = randomblob(130)",
	} {
		r, err := tx.ExecContext(ctx, "UPDATE "+table+" SET "+set+", changed = '2026-01-01T00:00:00Z', seq = ? + rowid WHERE (rowid * 2654435761 >> 9) % 100 = ?",
			100_000_000*int64(p.Round), p.Round)
		if err != nil {
			return nil, err
		}
		n, err := r.RowsAffected()
		if err != nil {
			return nil, err
		}
		changed += n
	}
	return figures{"rows": float64(changed)}, tx.Commit()
}

// flat writes the rows of a database to a plain file, from which bare inserts read them.
func flat(ctx context.Context, p params) (figures, error) {
	db, err := sql.Open("sqlite", "file:"+p.DB)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	f, err := os.Create(p.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	for i, t := range tables {
		rows, err := db.QueryContext(ctx, "SELECT * FROM "+t.name)
		if err != nil {
			return nil, err
		}
		values, into := make([]any, len(t.columns)), make([]any, len(t.columns))
		for k := range values {
			into[k] = &values[k]
		}
		var b []byte
		for rows.Next() {
			if err := rows.Scan(into...); err != nil {
				return nil, err
			}
			b = append(b[:0], byte(i))
			for _, v := range values {
				switch v := v.(type) {
				case int64:
					b = binary.AppendVarint(append(b, 'i'), v)
				case string:
					b = append(binary.AppendUvarint(append(b, 's'), uint64(len(v))), v...)
				case []byte:
					b = append(binary.AppendUvarint(append(b, 'b'), uint64(len(v))), v...)
				default:
					return nil, fmt.Errorf("a value of type %T", v)
				}
			}
			if _, err := w.Write(b); err != nil {
				return nil, err
			}
		}
		if err := rows.Err(); err != nil {
			return nil, err
		}
		rows.Close()
	}
	return figures{}, w.Flush()
}

// flatRows reads them, table by table; each call of the function it returns gives one table.
func flatRows(f io.Reader) func(table string, row func([]any) error) error {
	r := bufio.NewReaderSize(f, 1<<20)
	return func(table string, row func([]any) error) error {
		for i, t := range tables {
			if t.name != table {
				continue
			}
			values := make([]any, len(t.columns))
			for {
				b, err := r.Peek(1)
				if err == io.EOF || err == nil && int(b[0]) != i {
					return nil
				}
				if err != nil {
					return err
				}
				_, _ = r.Discard(1)
				for k := range values {
					tag, err := r.ReadByte()
					if err != nil {
						return err
					}
					if tag == 'i' {
						if values[k], err = binary.ReadVarint(r); err != nil {
							return err
						}
						continue
					}
					n, err := binary.ReadUvarint(r)
					if err != nil {
						return err
					}
					v := make([]byte, n)
					if _, err := io.ReadFull(r, v); err != nil {
						return err
					}
					if values[k] = v; tag == 's' {
						values[k] = string(v)
					}
				}
				if err := row(values); err != nil {
					return err
				}
			}
		}
		return nil
	}
}
