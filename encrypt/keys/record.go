package keys

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"
)

// ID names one wrapped key within its tenant: 8 random bytes, never reused. Keys that are made together may share the first four.
type ID [8]byte

// String returns the id in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Kind says what a [Record] holds.
type Kind string

// The kinds of key record.
const (
	EpochKey  Kind = "epoch"     // wrapped by the KEK
	TenantKey Kind = "tenant"    // wrapped by an epoch key: index, mac, secret, tombstone
	PersonKey Kind = "person"    // wrapped by an epoch key
	Tombstone Kind = "tombstone" // stands in the place of a destroyed person key
	Join      Kind = "join"      // says that two person ids are one human; wraps nothing
)

// Retention is the class of law under which a person's data is kept. A person has one key for
// each class, so that one class can be destroyed and another kept.
type Retention string

// The retention classes.
const (
	Ordinary Retention = "ordinary"
	Contract Retention = "contract"
	Tax      Retention = "tax"
	Evidence Retention = "evidence"
)

// Record is one row of a [Store]. It never holds a key in the clear.
type Record struct {
	Tenant    string
	ID        ID
	Kind      Kind
	Version   uint32    // of epoch and tenant keys, from 1; of person keys their generation, 0 for the first
	Purpose   string    // of tenant keys; of epoch keys the KEK's id; of joins the other person in hexadecimal
	Person    [16]byte  // of person keys and joins; zero in a tombstone
	Retention Retention // of person keys and tombstones
	Epoch     ID        // the epoch key that wraps this one; zero for epoch keys, tombstones and joins
	// Wrapped is the encrypted key. A retired key has none. A tombstone and a join have their HMAC here.
	Wrapped []byte
	// Commitment binds the record to one key. A tombstone has the keyed hash of its person here.
	Commitment []byte
	Created    time.Time // UTC, whole seconds; of a tombstone the time of erasure
	Number     uint64    // of tombstones: the erasure number that the erasure raised the tenant to
	Blocked    time.Time // of person keys: since when they serve nobody, UTC, whole seconds; zero = they serve
	// Fence goes with a new epoch key to Add: what Store.Fence returned before the KEK wrapped it. It is not
	// kept.
	Fence uint64
}

// Slot names the place that at most one record of a tenant takes: a person has one key for each
// retention class and generation, a tenant one key for each purpose and version. Stores keep
// (tenant, slot) unique.
func (r *Record) Slot() string {
	switch r.Kind {
	case EpochKey:
		return fmt.Sprintf("e:%d", r.Version)
	case TenantKey:
		return fmt.Sprintf("t:%s:%d", r.Purpose, r.Version)
	case PersonKey:
		b := append(make([]byte, 0, 64), "p:"...)
		b = append(hex.AppendEncode(b, r.Person[:]), ':')
		b = append(b, r.Retention...)
		if r.Version > 0 {
			b = strconv.AppendUint(append(b, ':'), uint64(r.Version), 10)
		}
		return string(b)
	case Join:
		return "j:" + hex.EncodeToString(r.Person[:]) + ":" + r.Purpose
	default:
		return "x:" + r.ID.String()
	}
}

// Query selects records of one tenant. Set exactly one of IDs, Persons, Joins, Tenant, Blocked, Since
// and All; Under, After and Limit narrow All. Records come ordered by ID.
type Query struct {
	IDs     []ID       // these records, of any kind, tombstones too
	Persons [][16]byte // all person keys of these persons
	Joins   [][16]byte // all joins of these persons
	Tenant  bool       // all epoch and tenant keys
	Blocked bool       // all blocked person keys
	Since   uint64     // tombstones whose Number is above Since; the lowest number is 1
	All     bool       // every record
	Under   ID         // with All: only keys that this epoch key wraps; zero = any
	After   ID         // with All: only ids above this one
	Limit   int        // with All: at most so many; 0 = no limit
}

// Store keeps wrapped key records. Implementations are safe for concurrent use by many processes and
// pass encrypttest.TestKeyStore. Each method is one transaction.
//
// Each tenant has an erasure number. It starts at 1 and is raised by one whenever a cached key may have
// become wrong: by Erase, by Block, by Retire of anything but an epoch key, and by Add of a tenant key
// of a version above 1, always in the same transaction.
type Store interface {
	// Find returns the records that q selects. Those that do not exist are simply absent.
	Find(ctx context.Context, tenant string, q Query) ([]Record, error)
	// Add inserts records. One whose id or slot is taken is skipped, so that two writers who make
	// the same key at once agree on the first; read again to learn which won. A record wrapped by
	// a retired epoch key is refused: [ErrRetired], and nothing is added; so is a new epoch key whose
	// Fence is not that of its KEK any more: wrap it again. Joins have no epoch key.
	// Tombstones go to Erase; a Blocked time is kept as it is.
	Add(ctx context.Context, tenant string, records []Record) error
	// Rewrap replaces Epoch and Wrapped of records that still exist with the same ID and Kind and
	// are not retired, and skips the others: a destroyed key does not come back. ErrRetired as for Add.
	Rewrap(ctx context.Context, tenant string, records []Record) error
	// Retire empties Wrapped and Epoch of these tenant and person keys for good, and Wrapped of
	// those epoch keys that wrap nothing. It returns how many keys the others still wrap.
	Retire(ctx context.Context, tenant string, ids ...ID) (inUse int, err error)
	// Block sets Blocked of these person keys to at, to nothing when at is zero.
	Block(ctx context.Context, tenant string, ids []ID, at time.Time) error
	// Erase puts tombstones in the places of the person keys with their ids, retired ones too, sets
	// their Number and raises the tenant's erasure number by one, all at once. A tombstone whose key
	// is not here is kept too; one that is here already is skipped. When none is new the number stays.
	// When it returns, the store has done what it can to overwrite the wrapped keys. With [ErrTraces]
	// it could not yet: the erasure is done all the same and number is valid. Erasing again, of
	// what is erased already, tries again to overwrite.
	Erase(ctx context.Context, tenant string, tombstones []Record) (number uint64, err error)
	// Erasures returns the tenant's erasure number.
	Erasures(ctx context.Context, tenant string) (uint64, error)
	// Fence returns a number for a KEK, 0 at first. Epochs raises it.
	Fence(ctx context.Context, kek string) (uint64, error)
	// Epochs raises the fence of a KEK and returns its epoch keys of all tenants that are not retired,
	// ordered by tenant and ID, in one transaction. Whoever then ends the versions of the KEK that none of
	// these needs ends none that another process has just used: its Add comes before and is among
	// them, or comes after and is refused.
	Epochs(ctx context.Context, kek string) ([]Record, error)
}

// Counting is a [Store] that says with an insertion how many records it took, which saves its user to read them again. What it inserts is
// stored as by Add.
type Counting interface {
	Store
	// AddCounted is Add, and returns how many of the records were inserted; the others were skipped.
	AddCounted(ctx context.Context, tenant string, records []Record) (added int, err error)
}
