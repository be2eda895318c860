package sqlstore_test

import (
	"strings"
	"testing"

	"github.com/crmguard/crmguard/encrypt/sqlstore"
)

// No query of the store reads more of a tenant than it answers.
func TestIndexes(t *testing.T) {
	db, _ := rawSQLite(t, "_pragma=secure_delete(1)&_pragma=journal_mode(WAL)")
	if _, err := sqlstore.Open(t.Context(), db, "sqlite", nil); err != nil {
		t.Fatal(err)
	}
	for where, index := range map[string]string{
		"tenant = ? AND id IN (?, ?)":                                                                   "sqlite_autoindex_encrypt_key_1 (tenant=? AND id=?)",
		sqlstore.TextOfIDs:                                                                              "SEARCH encrypt_key USING INDEX sqlite_autoindex_encrypt_key_1 (tenant=? AND id=?)",
		sqlstore.TextOfPersons:                                                                          "SEARCH encrypt_key USING INDEX sqlite_autoindex_encrypt_key_2 (tenant=? AND slot>? AND slot<?)",
		"tenant = ? AND kind = 'join' AND person IN (?, ?)":                                             "encrypt_key_join (tenant=? AND person=?)",
		"tenant = ? AND kind = 'join' AND purpose IN (?, ?)":                                            "encrypt_key_joined (tenant=? AND purpose=?)",
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
