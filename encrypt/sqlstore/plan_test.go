package sqlstore_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

// No query of the store reads more of a tenant than it answers.
func TestIndexes(t *testing.T) {
	db, _ := rawSQLite(t, "_pragma=secure_delete(1)&_pragma=journal_mode(WAL)")
	if _, err := sqlstore.Open(t.Context(), db, "sqlite", nil); err != nil {
		t.Fatal(err)
	}
	for where, index := range map[string]string{
		"tenant = ? AND id IN (?, ?)":                       "sqlite_autoindex_encrypt_key_1 (tenant=? AND id=?)",
		sqlstore.TextOfIDs:                                  "SEARCH encrypt_key USING INDEX sqlite_autoindex_encrypt_key_1 (tenant=? AND id=?)",
		sqlstore.TextOfPersons:                              "SEARCH encrypt_key USING INDEX sqlite_autoindex_encrypt_key_2 (tenant=? AND slot>? AND slot<?)",
		"tenant = ? AND kind = 'join' AND person IN (?, ?)": "encrypt_key_join (tenant=? AND person=?)",
		"tenant = ? AND kind = 'join' AND purpose <> '' AND purpose IN (?, ?)":                          "encrypt_key_joined (tenant=? AND purpose=?)",
		"tenant = ? AND kind IN ('epoch', 'tenant') ORDER BY id":                                        "encrypt_key_root",
		"tenant = ? AND kind = 'person' AND blocked <> 4611686018427387904 ORDER BY id":                 "encrypt_key_blocked",
		"tenant = ? AND kind = 'tombstone' AND number > ? ORDER BY id":                                  "encrypt_key_number (tenant=? AND number>?)",
		"tenant = ? AND id > ? ORDER BY id LIMIT 500":                                                   "sqlite_autoindex_encrypt_key_1 (tenant=? AND id>?)",
		"tenant = ? AND id > ? AND epoch = ? ORDER BY id LIMIT 500":                                     "encrypt_key_epoch (tenant=? AND epoch=? AND id>?)",
		"kind = 'epoch' AND length(wrapped) > 0":                                                        "encrypt_key_alive",
		"tenant = ? AND id = ? AND kind = 'epoch'":                                                      "(tenant=? AND id=?)",
		"tenant = ? AND (id = ? OR slot = ?)":                                                           "sqlite_autoindex_encrypt_key_2 (tenant=? AND slot=?)",
		"tenant = ? AND kind IN ('person', 'tenant') AND length(wrapped) > 0 AND id IN (?) ORDER BY id": "(tenant=? AND id=?)",
	} {
		text := "SELECT * FROM encrypt_key WHERE " + strings.ReplaceAll(where, "?", "x'00'")
		if strings.HasPrefix(where, "WITH") {
			text = strings.NewReplacer("?1", "x'00'", "?2", "1", "?3", "x'00'").Replace(where)
		}
		rows, err := db.Query("EXPLAIN QUERY PLAN " + text)
		if err != nil {
			t.Fatal(err)
		}
		var plan []string
		for rows.Next() {
			var a, b, c int
			var step string
			if err := rows.Scan(&a, &b, &c, &step); err != nil {
				t.Fatal(err)
			}
			plan = append(plan, step)
		}
		rows.Close()
		if all := strings.Join(plan, "; "); !strings.Contains(all, index) || strings.Contains(all, "SCAN encrypt_key;") || strings.HasSuffix(all, "SCAN encrypt_key") {
			t.Errorf("%s\n\t%s\n\twant %s", where, all, index)
		}
	}
}

// TestManyOnPostgres: a batch of keys is found key by key while the statistics still say that the tenant has none, which for an IN would be a reading of
// the whole tenant.
func TestManyOnPostgres(t *testing.T) {
	const all, asked = 20_000, 64
	db := realtest.Postgres(t).DB
	db.SetMaxOpenConns(1) // whose counters are read
	s, err := sqlstore.Open(t.Context(), db, "postgres", nil)
	if err != nil {
		t.Fatal(err)
	}
	exec := func(text string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), text, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec("ALTER TABLE encrypt_key SET (autovacuum_enabled = false)")
	exec("ANALYZE encrypt_key")
	for from := 0; from < all; from += 1000 {
		var args []any
		for i := range 1000 {
			sum := sha256.Sum256([]byte{byte((from + i) >> 8), byte(from + i)})
			r := keys.Record{Tenant: "acme", ID: keys.ID(sum[:8]), Kind: keys.PersonKey, Person: [16]byte(sum[8:24]), Retention: keys.Ordinary}
			if i%2 == 0 {
				r.Kind, r.Retention, r.Purpose = keys.Join, "", hex.EncodeToString(sum[16:])
			}
			args = append(args, r.Tenant, r.ID[:], r.Slot(), string(r.Kind), 0, r.Purpose, r.Person[:], string(r.Retention), make([]byte, 8), []byte{1}, []byte{}, 0, 0, int64(1)<<62)
		}
		exec(dialect.Postgres.Rebind("INSERT INTO encrypt_key (tenant, id, slot, kind, version, purpose, person, retention, epoch, wrapped, commitment, created, number, blocked) VALUES "+
			dialect.Placeholders(1000, 14)), args...)
	}
	for name, q := range map[string]func(id keys.ID, person [16]byte, kind string, q *keys.Query){
		"ids": func(id keys.ID, _ [16]byte, _ string, q *keys.Query) { q.IDs = append(q.IDs, id) },
		"persons": func(_ keys.ID, person [16]byte, kind string, q *keys.Query) {
			if kind == "person" {
				q.Persons = append(q.Persons, person)
			}
		},
		"joins": func(_ keys.ID, person [16]byte, kind string, q *keys.Query) {
			if kind == "join" {
				q.Joins = append(q.Joins, person)
			}
		},
	} {
		var query keys.Query
		rows, err := db.QueryContext(t.Context(), "SELECT id, person, kind FROM encrypt_key ORDER BY id LIMIT $1", asked)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id, person []byte
			var kind string
			if err := rows.Scan(&id, &person, &kind); err != nil {
				t.Fatal(err)
			}
			q(keys.ID(id), [16]byte(person), kind, &query)
		}
		rows.Close()
		read := func() (n int64) {
			t.Helper()
			exec("SELECT pg_stat_force_next_flush()")
			err := db.QueryRowContext(t.Context(), `SELECT (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'encrypt_key') +
				(SELECT SUM(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'encrypt_key')`).Scan(&n)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		before := read()
		found, err := s.Find(t.Context(), "acme", query)
		if err != nil {
			t.Fatal(err)
		}
		if want := len(query.IDs) + len(query.Persons) + len(query.Joins); want < asked/4 || len(found) != want {
			t.Fatalf("%s: %d records of %d", name, len(found), want)
		}
		if n := read() - before; n > 4*asked {
			t.Errorf("%s: %d entries are read for %d records among %d", name, n, len(found), all)
		}
	}
}
