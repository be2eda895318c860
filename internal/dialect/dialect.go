// Package dialect holds what SQLite and PostgreSQL do not share: placeholders, what their errors mean,
// and how their schemas are brought up to date. It imports no driver: errors are known by the methods
// that drivers give them (SQLState of PostgreSQL's, Code of SQLite's) and by their text.
package dialect

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
)

// Dialect is one kind of database.
type Dialect string

// The dialects. Whatever speaks PostgreSQL's protocol and its portable SQL is Postgres.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres"
)

// Parse returns the dialect of that name.
func Parse(name string) (Dialect, error) {
	switch d := Dialect(name); d {
	case SQLite, Postgres:
		return d, nil
	}
	return "", errors.New("dialect: neither sqlite nor postgres")
}

// Rebind turns each ? of a query into $1, $2 and so on for PostgreSQL. Text in quotes and comments
// stays as it is.
func (d Dialect) Rebind(query string) string {
	if d != Postgres || !strings.Contains(query, "?") {
		return query
	}
	var b strings.Builder
	b.Grow(len(query) + 16)
	n := 0
	for i := 0; i < len(query); i++ {
		switch c := query[i]; {
		case c == '?':
			n++
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
		case c == '\'' || c == '"':
			end := strings.IndexByte(query[i+1:], c)
			if end < 0 {
				b.WriteString(query[i:])
				return b.String()
			}
			b.WriteString(query[i : i+end+2])
			i += end + 1
		case c == '-' && strings.HasPrefix(query[i:], "--"):
			end := strings.IndexByte(query[i:], '\n')
			if end < 0 {
				end = len(query) - i - 1
			}
			b.WriteString(query[i : i+end+1])
			i += end
		case c == '/' && strings.HasPrefix(query[i:], "/*"):
			end := strings.Index(query[i:], "*/")
			if end < 0 {
				b.WriteString(query[i:])
				return b.String()
			}
			b.WriteString(query[i : i+end+2])
			i += end + 1
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Quote makes an SQL identifier of a name. Both dialects double an inner quote.
func (d Dialect) Quote(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// Placeholders returns n groups of m question marks: Placeholders(2, 3) is "(?,?,?),(?,?,?)".
func Placeholders(n, m int) string {
	if n < 1 || m < 1 {
		return ""
	}
	group := "(" + strings.Repeat("?,", m-1) + "?)"
	return strings.Repeat(group+",", n-1) + group
}

// Code returns the SQLSTATE of a PostgreSQL error, "sqlite N" with the extended result code of an
// SQLite error, or "". It is safe to print, which the error's text is not: that may hold values and
// the connection string.
func Code(err error) string {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState()
	}
	if n := sqliteCode(err); n != 0 {
		return "sqlite " + strconv.Itoa(n)
	}
	return ""
}

// sqliteCode returns the extended result code, or 0.
func sqliteCode(err error) int {
	var coded interface{ Code() int }
	if errors.As(err, &coded) {
		return coded.Code()
	}
	return 0
}

// The primary result codes of SQLite, https://sqlite.org/rescode.html.
const (
	sqliteBusy      = 5
	sqliteLocked    = 6
	sqliteReadOnly  = 8
	sqliteIOErr     = 10
	sqliteCorrupt   = 11
	sqliteFull      = 13
	sqliteCantOpen  = 14
	sqliteNotADB    = 26
	sqliteUnique    = 2067 // extended
	sqlitePrimary   = 1555 // extended
	sqliteRowID     = 2579 // extended
	primaryCodeMask = 0xff
)

// IsRetryable tells whether the transaction was rolled back through no fault of its own and may succeed
// when it is run again: a serialization failure, a deadlock, a lock that another held too long.
func IsRetryable(err error) bool {
	if err == nil {
		return false
	}
	switch Code(err) {
	case "40001", "40P01", "55P03":
		return true
	}
	if n := sqliteCode(err); n != 0 {
		return n&primaryCodeMask == sqliteBusy || n&primaryCodeMask == sqliteLocked
	}
	text := err.Error()
	return strings.Contains(text, "database is locked") || strings.Contains(text, "database table is locked")
}

// IsUnique tells whether a unique index or primary key refused a row.
func IsUnique(err error) bool {
	if err == nil {
		return false
	}
	if Code(err) == "23505" {
		return true
	}
	switch sqliteCode(err) {
	case sqliteUnique, sqlitePrimary, sqliteRowID:
		return true
	case 0:
		return strings.Contains(err.Error(), "UNIQUE constraint failed")
	}
	return false
}

// IsUnavailable tells whether the database could not be reached, refused to serve, is locked or has no
// room: a matter of the machine, not of the statement.
func IsUnavailable(err error) bool {
	if err == nil {
		return false
	}
	if IsRetryable(err) || IsLost(err) {
		return true
	}
	if code := Code(err); len(code) == 5 {
		switch code[:2] {
		case "08", "53", "57", "58", "28", "3D":
			// connection, resources (disk full, too many connections), operator, system, login, no such database
			return code != "57014" // the statement was cancelled
		}
		return code == "25006" || code == "XX001" || code == "XX002" // read-only, damaged
	}
	switch sqliteCode(err) & primaryCodeMask {
	case sqliteReadOnly, sqliteIOErr, sqliteFull, sqliteCantOpen, sqliteNotADB:
		return true
	}
	text := err.Error()
	return strings.Contains(text, "database or disk is full") || strings.Contains(text, "disk I/O error") ||
		strings.Contains(text, "unable to open database file") || strings.Contains(text, "sql: database is closed")
}

// IsIO tells whether SQLite could not read or write its files.
func IsIO(err error) bool { return sqliteCode(err)&primaryCodeMask == sqliteIOErr }

// IsDamaged tells whether the database found its own files damaged.
func IsDamaged(err error) bool {
	switch Code(err) {
	case "XX001", "XX002":
		return true
	}
	n := sqliteCode(err) & primaryCodeMask
	return n == sqliteCorrupt || n == sqliteNotADB
}

// IsLost tells whether the connection broke or could not be made, so that the answer to the last
// statement, if it was a commit, is unknown.
func IsLost(err error) bool {
	if err == nil {
		return false
	}
	code := Code(err)
	if strings.HasPrefix(code, "08") || strings.HasPrefix(code, "57P") || code == "40003" {
		return true
	}
	if code != "" {
		return false
	}
	var network net.Error
	var dns *net.DNSError
	if errors.As(err, &network) && !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &dns) {
		return true
	}
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ENOENT) {
		return true
	}
	text := err.Error()
	return strings.Contains(text, "failed to connect") || strings.Contains(text, "conn closed") ||
		strings.Contains(text, "connection is already closed") || strings.Contains(text, "conn busy")
}
