package transfer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// KeepRejected is how long rows that were rejected, and the values that an undo needs, are kept after the import.
const KeepRejected = 14 * 24 * time.Hour

// State says how far an import has come.
type State string

// The states of an import.
const (
	Running State = "running" // or cut off: it can be gone on with
	Done    State = "done"
	Undoing State = "undoing" // or cut off: the undo can be gone on with
	Undone  State = "undone"  // final
)

// Lifecycle returns the transition table of imports.
func Lifecycle() crm.Lifecycle[State] {
	return crm.NewLifecycle(crm.TypeImport, []State{Running, Done, Undoing, Undone}, map[State][]State{
		Running: {Done, Undoing}, Done: {Undoing}, Undoing: {Undone},
	})
}

// Mode says what an import does with a row whose key a record has, or none has.
type Mode string

// The modes of an import. Without a key field there is only Create.
const (
	Create Mode = "create" // a record that exists is rejected as repeated
	Update Mode = "update" // a row without a record is rejected as bad_reference
	Both   Mode = "both"
)

// Counts are what became of the rows of a file.
type Counts struct {
	Rows      int64 // read
	Created   int64
	Updated   int64
	Unchanged int64 // a record has these values already
	Rejected  int64
	Matched   int64 // of the created ones: the Checker takes them for records that are there
	Unchecked int64 // of the created ones: the Checker or the Eraser was not asked, for the caller had asked enough
	Erased    int64 // of the created ones: they have a term of somebody who was erased
}

// Import is one import of one file: what was asked, how far it has come, and what became of the rows. Its person is nobody but the import itself, under
// whose key the name of the file, its columns and the rejected rows lie.
type Import struct {
	crm.Meta[Import]
	RecordType string    `protect:"internal,indexed" json:"record_type"`
	Name       crm.Text  `protect:"personal" json:"name"`    // of the file
	Mapping    crm.Text  `protect:"personal" json:"mapping"` // JSON; the names of columns are whatever somebody wrote there
	Mode       Mode      `protect:"internal" json:"mode"`
	Digest     string    `protect:"internal" json:"digest"` // SHA-256 of the mapping and the header, hex: what goes on must be the same
	State      State     `protect:"internal,indexed" json:"state"`
	Position   int64     `protect:"internal" json:"position"` // rows of the file that are done with
	Seen       string    `protect:"internal" json:"seen"`     // HMAC-SHA-256 of those rows, hex, under a key that is kept with the mapping
	Created    int64     `protect:"internal" json:"created"`
	Updated    int64     `protect:"internal" json:"updated"`
	Unchanged  int64     `protect:"internal" json:"unchanged"`
	Rejected   int64     `protect:"internal" json:"rejected"`
	Matched    int64     `protect:"internal" json:"matched"`
	Unchecked  int64     `protect:"internal" json:"unchecked"`
	Erased     int64     `protect:"internal" json:"erased"`
	Reasons    string    `protect:"internal" json:"reasons"` // JSON: how many rows were rejected for what
	Undone     int64     `protect:"internal" json:"undone"`
	Left       int64     `protect:"internal" json:"left"`      // not undone, for somebody changed them since
	UndoneTo   int64     `protect:"internal" json:"undone_to"` // rows of the file that the undo is done with
	FinishedAt time.Time `protect:"internal,indexed" json:"finished_at"`
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (i *Import) Validate() error {
	v := crm.Checks{Type: crm.TypeImport}
	v.Team(i.Team)
	v.Required("owner", i.Owner.IsZero())
	v.Str("record_type", i.RecordType, true, 40)
	v.Text("name", i.Name, false, crm.MaxName)
	v.Text("mapping", i.Mapping, true, crm.MaxText)
	v.OneOf("mode", string(i.Mode), string(Create), string(Update), string(Both))
	v.Str("digest", i.Digest, true, 64)
	v.OneOf("state", string(i.State), string(Running), string(Done), string(Undoing), string(Undone))
	for name, n := range map[string]int64{
		"position": i.Position, "created": i.Created, "updated": i.Updated, "unchanged": i.Unchanged, "rejected": i.Rejected,
		"matched": i.Matched, "unchecked": i.Unchecked, "erased": i.Erased, "undone": i.Undone, "left": i.Left, "undone_to": i.UndoneTo,
	} {
		v.NotNegative(name, n)
	}
	return v.Err()
}

// CheckNew refuses an import that does not begin at its begin: a *crm.InvalidError.
func (i *Import) CheckNew() error {
	v := crm.Checks{Type: crm.TypeImport}
	if i.State != Running {
		v.Add("state", "fixed")
	}
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become i: a *crm.TransitionError for a step that the table does not have, a
// *crm.InvalidError for an import that would become one of something else.
func (i *Import) CheckUpdate(prev *Import) error {
	if err := Lifecycle().CheckUpdate(prev.State, i.State); err != nil {
		return err
	}
	v := crm.Checks{Type: crm.TypeImport}
	v.Unchanged("record_type", i.RecordType == prev.RecordType)
	v.Unchanged("mode", i.Mode == prev.Mode)
	v.Unchanged("digest", i.Digest == prev.Digest)
	v.Unchanged("position", i.Position >= prev.Position)
	return v.Err()
}

// Reserved names the fields that no update sets: they are what happened.
func (i *Import) Reserved(isNew bool) []string {
	counts := []string{"position", "seen", "created", "updated", "unchanged", "rejected", "matched", "unchecked", "erased", "reasons", "undone", "left", "undone_to", "finished_at"}
	if isNew {
		return counts
	}
	return append(counts, "record_type", "mode", "digest", "state")
}

// Counts returns what became of the rows so far.
func (i *Import) Counts() Counts {
	return Counts{Rows: i.Position, Created: i.Created, Updated: i.Updated, Unchanged: i.Unchanged, Rejected: i.Rejected, Matched: i.Matched, Unchecked: i.Unchecked, Erased: i.Erased}
}

// Means returns the mapping of the import; ok is false when the caller may not see it, or its person is erased.
func (i *Import) Means() (m Mapping, ok bool) {
	var kept keptMapping
	if i.Mapping.State() != crm.Clear || json.Unmarshal([]byte(i.Mapping.Expose()), &kept) != nil {
		return m, false
	}
	return kept.Mapping, true
}

// ByReason returns how many rows were rejected for what. Only the reasons that came first are told apart; "other" counts the rest.
func (i *Import) ByReason() map[string]int64 {
	m := map[string]int64{}
	_ = json.Unmarshal([]byte(i.Reasons), &m) // it is ours, and empty when it is not
	return m
}

// maxReasons is how many reasons an import tells apart.
const maxReasons = 40

// count notes rejected rows by their reasons.
func (i *Import) count(rejected []Rejected) {
	m := i.ByReason()
	for _, r := range rejected {
		for _, f := range r.Reasons {
			key := f.Field + ":" + f.Rule
			if _, known := m[key]; !known && len(m) >= maxReasons {
				key = "other"
			}
			m[key]++
		}
	}
	b, err := json.Marshal(m)
	if err == nil && len(m) > 0 {
		i.Reasons = string(b)
	}
}

// What a Kept is.
const (
	keptRejected = "rejected" // some rows that were not stored
	keptFormer   = "former"   // the values of one record before the import changed it
	keptMatched  = "matched"  // which rows were made although there was such a record
	keptErased   = "erased"   // which rows were made although they have a term of somebody who was erased
	keptBeside   = "beside"   // what the program needs to go on: Options.Beside
)

// Kept is what an import keeps for later, sealed: rejected rows, and the like, under the import's own person, and former values under the person of the record whose they are,
// so that they go when that person is erased. It is made by imports only.
type Kept struct {
	crm.Meta[Kept]
	Import crm.ID[Import] `protect:"internal,indexed" json:"import"`
	Kind   string         `protect:"internal,indexed" json:"kind"`
	Row    int64          `protect:"internal,indexed" json:"row"` // the first row of the file that it is about
	Record crm.UUID       `protect:"internal" json:"record"`      // whose former values they are
	After  int64          `protect:"internal" json:"after"`       // the version that the import made of that record
	Values crm.Text       `protect:"personal" json:"values"`      // JSON
}

// MadeByActs says that no Kept is made by itself.
func (k *Kept) MadeByActs() {}

// maxKept is how long the values of a Kept are, in bytes: one row of a file is 1 MiB at most, and JSON may write six bytes for one.
const maxKept = 8 << 20

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (k *Kept) Validate() error {
	v := crm.Checks{Type: crm.TypeKept}
	v.Team(k.Team)
	v.Required("import", k.Import.IsZero())
	v.OneOf("kind", k.Kind, keptRejected, keptFormer, keptMatched, keptErased, keptBeside)
	v.NotNegative("row", k.Row)
	v.Text("values", k.Values, true, maxKept)
	return v.Err()
}

// CheckUpdate returns a *crm.InvalidError: what is kept does not change.
func (k *Kept) CheckUpdate(*Kept) error {
	v := crm.Checks{Type: crm.TypeKept}
	v.Unchanged("values", false)
	return v.Err()
}

// derived makes an id that follows from an import, what it is for, and a number: a UUID of version 8 (RFC 9562 section 5.8). Its first 48 bits are the time
// of the import's id, the next 32 the number, the last 42 from a hash of all, so that ids lie in the indexes in the order in which they are stored.
func derived(of crm.UUID, use string, n int64) crm.UUID {
	var u crm.UUID
	copy(u[:6], of[:6])
	h := hashed(of, use, n)
	binary.BigEndian.PutUint64(u[8:], binary.BigEndian.Uint64(h[:])>>22|uint64(n&0xfffff)<<42|2<<62)
	binary.BigEndian.PutUint16(u[6:], uint16(n>>20&0xfff)|8<<12)
	return u
}

// derivedFirst is what version 1 of the format derived.
func derivedFirst(of crm.UUID, use string, n int64) crm.UUID {
	var u crm.UUID
	copy(u[:6], of[:6])
	h := hashed(of, use, n)
	copy(u[6:], h[:])
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return u
}

func hashed(of crm.UUID, use string, n int64) [sha256.Size]byte {
	b := append([]byte("crmguard import\x00"+use+"\x00"), of[:]...)
	return sha256.Sum256(binary.BigEndian.AppendUint64(b, uint64(n)))
}

// derive is how ids are derived now.
var derive = derived
