package encrypt

import (
	"context"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Record says which record a value belongs to. All three ids are bound into every ciphertext.
type Record struct {
	Tenant string
	ID     [16]byte
	Person [16]byte // the record's own data subject: whose data its fields are by default
	// Erasure is the tenant's erasure number as it was read in the same query as the record.
	// 0 = the Keeper asks its Store.
	Erasure uint64
}

// SealedField is one encrypted value with the index tokens made from it. An absent value has none.
type SealedField struct {
	Name   string
	Data   []byte
	Tokens []Token
	// Clear says that Data is not sealed: the text of an old clear column that has not been migrated
	// yet. Open takes it only for fields that CodecOptions.Migrating names. Seal never sets it.
	Clear bool
}

// Format shows the name and the sizes: the data of an old clear column is the plaintext itself.
func (f SealedField) Format(s fmt.State, _ rune) {
	fmt.Fprintf(s, "{%s: %d bytes, %d tokens}", f.Name, len(f.Data), len(f.Tokens))
}

// Token is one entry of the blind index: a keyed hash of a normalised term, cut to 8 bytes.
type Token struct {
	Value  int64
	Unique bool // the index was declared with unique=
}

// Sealed is what a store keeps of the protected fields of one record.
type Sealed struct {
	Fields  []SealedField // sorted by name
	Persons [][16]byte    // everyone whose data is in Fields, each once, sorted
}

// State says how much of a field a value shows.
type State uint8

// The states of a field, shared by number with protected text types such as crm.Text.
const (
	StateClear  State = iota // the value itself
	StateMasked              // a masked form of it
	StateHidden              // nothing, by policy
	StateSealed              // nothing, because it was not opened
	StateErased              // nothing, because its key was destroyed
)

// String returns the state's name in lower case.
func (s State) String() string {
	switch s {
	case StateClear:
		return "clear"
	case StateMasked:
		return "masked"
	case StateHidden:
		return "hidden"
	case StateSealed:
		return "sealed"
	case StateErased:
		return "erased"
	}
	return "unknown"
}

// Options of a [Keeper]. The zero value is safe.
type Options struct {
	CacheAge      time.Duration // a person key is read anew after this; 0 = 10 minutes
	CacheEntries  int           // most person keys held; 0 = 50,000
	CacheBytes    int64         // most memory they may take, estimated; 0 = 64 MiB
	CacheMessages uint64        // values sealed by one cached key before it is read anew; 0 = 2^28
	Refresh       time.Duration // the KEK is asked again for cached epoch keys after this; 0 = 1 hour
	StaleReads    time.Duration // how long past Refresh they still open when the KEK is away; 0 = 4 hours
	StaleWrites   time.Duration // how long past Refresh they still seal when the KEK is away; 0 = 15 minutes

	// KEKFor gives a tenant a KEK of its own, such as a key that the customer brought; nil, or a nil
	// KEK, means the Keeper's. It is asked whenever an epoch key is made or opened; an error other than
	// ErrAuth counts as ErrKMSUnavailable.
	//
	// When it gives a tenant another KEK than before, the epoch keys that live are opened by the KEK that they
	// name, if that is the Keeper's or KEKByID finds it, and Rotate moves the tenant.
	KEKFor func(ctx context.Context, tenant string) (keys.KEK, error)
	// KEKByID finds the KEK of that name for a tenant that moves away from it; nil, or a nil KEK = there is none
	// but the Keeper's and KEKFor's.
	KEKByID func(ctx context.Context, id string) (keys.KEK, error)

	Grace      time.Duration // from the asking for an erasure to the destruction; 0 = 72 hours, below 0 = none
	EraseLimit int           // most persons blocked or destroyed in 24 hours without approval; 0 = 100, below 0 = no limit
	// Held asks the register of legal holds; true refuses an erasure. nil = there are no holds.
	Held   func(ctx context.Context, tenant string, person [16]byte, classes []keys.Retention) (bool, error)
	Epoch  time.Duration // how often Rotate is run for every tenant, for the date on a Receipt; 0 = 30 days
	Copies time.Duration // how long copies of keys outside the key store live, for the same; 0 = 7 days

	Now func() time.Time // 0 = time.Now
}

// CodecOptions of [NewCodec].
type CodecOptions struct {
	// Type names the record type in ciphertexts and tokens; it must never change. Empty = the
	// struct's name in lower snake case.
	Type string
	// Normalizers by the name that tags use: each turns what a person typed into the terms it is found
	// by, none when there is nothing to find it by. It must be pure. A key "phone/2" is version 2
	// of "phone"; a plain key is version 1. All versions given are written and queried, so that a
	// changed one is introduced beside the old, which is taken away when every record was resealed.
	// nil = no field has an index.
	Normalizers map[string]func(typed string) []string
	// Masks by the name that tags use. nil = no field has a mask.
	Masks map[string]func(string) string
	// Migrating names the fields whose values may still come from an old clear column: see
	// SealedField.Clear. It is emptied when the migration is done.
	Migrating []string
}

// Field describes one stored field of a codec.
type Field struct {
	Name      string // the json name, else the Go name in lower snake case
	GoName    string
	Class     Class
	Kind      Kind
	Clear     bool   // a clear column; otherwise sealed
	Indexed   bool   // a clear column that lists sort by or filter on
	Person    string // Go name of the field that holds the person's id; "" = the record's own person
	Retention keys.Retention
	Indexes   []Index
	Distinct  int    // how many values the field can have, as its tag says; 0 = as many as there are records
	Leaks     string // what its tag says that its indexes may show: "equality", "fragments"
	Mask      string // name of the mask; "" = a masked value shows nothing
}

// Index is a declared blind index.
type Index struct {
	Kind       string // "exact", "prefix3", "suffix4", "ngram", …
	Normalizer string // base name, without version
	Unique     bool
	Bits       int      // of a token; 64 unless the tag says fewer
	Of         []string // of a compound index: the names of its fields, the first one's carries the tokens

	// What [Codec.Plan] works out; empty elsewhere.
	Field  string
	Values int // different values that are indexed, as the field's tag and the population say; 0 as for Candidates
	// Candidates is how many records on average share a token: CipherSweet's coincidences. Below 2 a
	// token stands for a value. 0 for an n-gram index, whose fragments are as frequent as the language has them.
	Candidates float64
	Shows      string // "equality", "fragments", or "" when the tokens are cut enough to show neither
}

// Class says how delicate a field is.
type Class string

// The classes. Personal, sensitive and financial fields are always sealed.
const (
	Public    Class = "public"
	Internal  Class = "internal"
	Personal  Class = "personal"
	Sensitive Class = "sensitive"
	Financial Class = "financial" // account, card, tax number, income of a person; not the amounts of business records
)

// Kind says how a value is encoded.
type Kind string

// The kinds.
const (
	KindText  Kind = "text"
	KindInt   Kind = "int"
	KindBool  Kind = "bool"
	KindTime  Kind = "time"
	KindID    Kind = "id"    // a type with MarshalText over 16 bytes; a string, nil when zero
	KindBytes Kind = "bytes" // sealed fields only
	KindJSON  Kind = "json"
)
