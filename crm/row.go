package crm

import (
	"context"
	"time"
)

// Kind is the type of a clear column.
type Kind uint8

// The kinds of a clear column.
const (
	KindString Kind = iota + 1 // UTF-8 text; ids and states too
	KindInt                    // 64-bit signed; money in minor units
	KindBool
	KindTime // UTC, microseconds
)

// Value is one clear column of one row. The zero Value is null.
type Value struct {
	kind Kind
	s    string
	i    int64
}

// StringValue holds s.
func StringValue(s string) Value { return Value{kind: KindString, s: s} }

// IntValue holds i.
func IntValue(i int64) Value { return Value{kind: KindInt, i: i} }

// BoolValue holds b.
func BoolValue(b bool) Value {
	v := Value{kind: KindBool}
	if b {
		v.i = 1
	}
	return v
}

// TimeValue holds t, cut to microseconds; the zero time is null.
func TimeValue(t time.Time) Value {
	if t.IsZero() {
		return Value{}
	}
	return Value{kind: KindTime, i: t.UnixMicro()}
}

// Kind returns the kind, or 0 for null.
func (v Value) Kind() Kind { return v.kind }

// Str returns the text of a KindString, else "".
func (v Value) Str() string { return v.s }

// Int returns the number of a KindInt, 0 or 1 of a KindBool, and microseconds since 1970 of a KindTime.
func (v Value) Int() int64 { return v.i }

// Any returns nil, string, int64, bool or time.Time.
func (v Value) Any() any {
	switch v.kind {
	case KindString:
		return v.s
	case KindInt:
		return v.i
	case KindBool:
		return v.i != 0
	case KindTime:
		return time.UnixMicro(v.i).UTC()
	}
	return nil
}

// ValueOf is the inverse of Any; ok is false for any other type.
func ValueOf(a any) (v Value, ok bool) {
	switch x := a.(type) {
	case nil:
		return Value{}, true
	case string:
		return StringValue(x), true
	case int64:
		return IntValue(x), true
	case bool:
		return BoolValue(x), true
	case time.Time:
		return TimeValue(x), true
	}
	return Value{}, false
}

// Schema declares how rows of one type are stored. Declaring again with more columns adds them;
// removing a column or changing its kind is refused.
type Schema struct {
	Type    string   // lower-case letters, digits and _, at most 40, a letter first
	Columns []Column // the clear columns, at most 100
}

// Column is one clear column.
type Column struct {
	Name    string // as a type's name
	Kind    Kind
	Indexed bool // lists sort by it or filter on it
}

// SealedField is one field as the codec sealed it, with the index tokens that were made from it.
type SealedField struct {
	Name   string
	Data   []byte
	Tokens []Token
}

// Token is one blind-index entry of a row: a keyed hash that says which rows hold a term.
type Token struct {
	Value  int64
	Unique bool // at most one living row of the tenant and type may have it
}

// Row is a record as stored. It never holds plaintext of a field of class personal, sensitive or
// financial.
type Row struct {
	Tenant    string
	Type      string
	ID        UUID
	Persons   []UUID // whose keys seal fields of this row: the record's own person, then the others, ascending
	Version   int64  // 1 when created, one more at each write
	ChangeSeq int64  // set by the store: grows with every write of any row, in commit order
	Deleted   bool   // in the recycle bin
	Clear     []Value
	Sealed    []SealedField // sorted by name
	MAC       []byte        // covers all of the above but ChangeSeq
}

// ColumnID is the name under which a Condition compares the id of a row: a UUID among the arguments of SQL, its
// text in Match. A type has no clear column of that name.
const ColumnID = "id"

// Condition is a policy's filter. It is matched against one row's clear columns or pushed into SQL;
// both must give the same answer. A column that is null matches no comparison.
type Condition interface {
	// Match evaluates against the named attributes; column returns nil for null or unknown.
	Match(column func(name string) any) bool
	// SQL writes the condition with ? for each argument. column gives the quoted SQL name; an unknown
	// name is an error.
	SQL(column func(name string) (string, error)) (text string, args []any, err error)
}

// Everything is the Condition that every row meets. A Query without a condition is refused, so that a
// forgotten filter cannot become "all rows".
type Everything struct{}

// Match returns true.
func (Everything) Match(func(string) any) bool { return true }

// SQL returns a true condition.
func (Everything) SQL(func(string) (string, error)) (string, []any, error) { return "1=1", nil, nil }

// Op compares a clear column in a Clause.
type Op uint8

// The operators of a Clause.
const (
	Equal Op = iota + 1
	NotEqual
	Less
	LessOrEqual
	Greater
	GreaterOrEqual
	In     // one of Values
	Prefix // KindString only, case-sensitive
	IsNull
	NotNull
)

// Clause is one comparison that the asker wrote; the clauses of a Query must all hold.
type Clause struct {
	Column string
	Op     Op
	Values []Value // one, or several for In, or none for IsNull and NotNull
}

// Which rows a Query sees with respect to the recycle bin.
type Deletion uint8

// The zero Deletion sees living rows only.
const (
	Living Deletion = iota
	InBin
	LivingAndBin
)

// Query asks for one page of rows of one type.
type Query struct {
	Tenant   string
	Type     string
	Where    Condition // required; Everything for no restriction
	Clauses  []Clause
	Tokens   []int64 // when not nil, only rows that carry at least one of these tokens
	IDs      []UUID  // when not nil, only these rows
	Persons  []UUID  // when not nil, only rows that name at least one of these persons, at most 1,000; none names the zero UUID
	Deletion Deletion
	Changes  bool   // in the order of changes: rows by their ChangeSeq, those above Since. Sort and After are empty, and so is Page.Next: the last row says where to go on
	Since    int64  // with Changes, and not negative
	Sort     string // a column's name; empty sorts by creation
	Desc     bool
	After    string // Page.Next of the page before; empty for the first
	Limit    int    // 1 to 1,000
	Most     int64  // where Count ends: more rows are not looked for; 0: it counts all
}

// Page is one page of rows. Next is empty on the last page; it holds only clear column values and ids.
type Page struct {
	Rows []Row
	Next string
}

// Write stores one row.
type Write struct {
	Row    Row
	Expect int64 // the version that must be stored now; 0: the row must not exist
}

// Batch is applied in one transaction: all of it or nothing.
type Batch struct {
	Writes []Write // at most 1,000
	Limits []Limit // what must hold when the writes are done, at most 100
	Log    string  // which log holds the event of this batch; empty: none
	Event  uint64  // its index there

	// Rehearse does all of it and takes it back: Apply answers with the same errors and keeps nothing. Such a batch has no Log.
	Rehearse bool
}

// Measure is how many living rows of a type meet the clauses, or the sum of one of their columns, where null is 0.
type Measure struct {
	Type    string
	Clauses []Clause
	Sum     string // a column of KindInt; "": the rows are counted
}

// Limit bounds the sum of its measures over a tenant's rows, as they are when the writes of a batch are done and as
// no other batch can change them before it is: a quota that holds under concurrent claims, a stock that is never below zero.
type Limit struct {
	Tenant string
	Of     []Measure // at least one, at most 10
	Least  bool      // the sum is Value or more; false: Value or less
	Value  int64
}

// Need is what an update needs of other records when it is stored, in its transaction: that there are none that its measures count. Refused makes the error when there are,
// of how many there were of each type.
type Need struct {
	Of      []Measure // at least one, at most 10
	Refused func(found map[string]int64) error
}

// Grouping says how Group divides the rows of a query.
type Grouping struct {
	By   []string // columns, at most 3; none: one group of all rows
	Sums []string // columns of KindInt to be summed, at most 10; null is 0
}

// Group is the rows that have the same values in the columns of Grouping.By.
type Group struct {
	Keys  []Value // as Grouping.By; null is a key too
	Count int64
	Sums  []int64 // as Grouping.Sums
}

// MaxGroups is how many groups a Grouping makes at most.
const MaxGroups = 10_000

// Store keeps rows. Its methods are safe for concurrent use; a row is read whole or not at all.
// Implementations: crm/memstore and crm/sqlstore, both held to crm/crmtest.
type Store interface {
	// Declare makes the store ready for rows of these types. It may be called again at every start.
	Declare(ctx context.Context, schemas ...Schema) error
	// Types returns the names of all types that were ever declared, in any process, in ascending order.
	Types(ctx context.Context) ([]string, error)
	// Load returns the rows of these ids, in the recycle bin or not, in the order of ids; a row that
	// does not exist has Version 0.
	Load(ctx context.Context, tenant, typ string, ids []UUID) ([]Row, error)
	// List returns one page.
	List(ctx context.Context, q Query) (Page, error)
	// Carriers tells which rows carry which of the tokens, at most 10,000 of them: their ids in ascending order, in the recycle bin or not. A token that
	// more than most rows carry (1 to 1,000) is not in the answer, nor is one that no row carries.
	Carriers(ctx context.Context, tenant, typ string, tokens []int64, most int) (map[int64][]UUID, error)
	// Count counts the rows that q's filters admit, paging aside, up to q.Most.
	Count(ctx context.Context, q Query) (int64, error)
	// Group divides the rows that q's filters admit, paging aside, and returns the groups that are not empty in ascending
	// order of their keys, null first, texts by their bytes. A grouping without columns has one group always. A sum that
	// does not fit is a *RequestError, and so are more than MaxGroups groups.
	Group(ctx context.Context, q Query, g Grouping) ([]Group, error)
	// Apply stores a batch and returns the ChangeSeq of its first write; the others follow by one.
	// Errors are a *WriteError that names the write, around ErrConflict (another version is stored,
	// or the row exists) or ErrDuplicate (a unique token is taken by a living row), or a *LimitError. The number that a rehearsal
	// returns is given again.
	Apply(ctx context.Context, b Batch) (seq int64, err error)
	// Applied returns which events of the log from index on have been applied, in ascending order.
	Applied(ctx context.Context, log string, from uint64) ([]uint64, error)
	// Prune forgets applied events of the log below the index.
	Prune(ctx context.Context, log string, below uint64) error
}
