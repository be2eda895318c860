package session

import (
	"context"
	"errors"
	"time"
)

// Record is one session as a [Store] keeps it. docs/formats/sessions.md describes it.
type Record struct {
	Tenant, Person string
	ID             string    // names the session in lists and in the log; never changes, and opens nothing
	Hash           []byte    // 32 bytes: of the token that is valid now
	External       []byte    // 32 bytes: of the provider's session that it came from; empty for none
	Epoch          uint64    // of the person, when its roles were read
	Version        uint64    // raised by one with every change; 1 at first
	Seen           time.Time // when it was used last, in milliseconds
	Expires        time.Time // the first moment at which it is dead if it is not used before; milliseconds
	Body           []byte    // the rest, with a MAC over all of it
}

// ErrNone: there is no such session, or somebody else has changed it.
var ErrNone = errors.New("session: no such session")

// ErrStale: the person's epoch has moved: their sessions were ended or their rights changed.
var ErrStale = errors.New("session: the epoch has moved")

// Ending says which sessions of a person end. All of them when neither ID, Except nor External is given.
type Ending struct {
	Tenant, Person string
	ID             string // only this one
	Except         string // all but this one
	External       []byte // only those from this session of a provider; Person may be empty then
	Raise          bool   // raise the person's epoch as well; needs Person
}

// Store keeps sessions. sessiontest.TestStore says what it has to do. An epoch that was never raised is 1. Each
// method is one transaction.
type Store interface {
	// Epoch returns the epoch of a person.
	Epoch(ctx context.Context, tenant, person string) (uint64, error)
	// Add keeps a new session, and ends the ones of its person that were not used for the longest time, so that no
	// more than keep are left with it. ended has their ids. Errors: ErrStale when the person's epoch is not that of r.
	Add(ctx context.Context, r Record, keep int) (ended []string, err error)
	// Find returns the session that has one of the hashes, and the epoch of its person now. Errors: ErrNone.
	Find(ctx context.Context, hashes ...[]byte) (r Record, epoch uint64, err error)
	// Replace changes the session of r's tenant and id to r if its version is that of r less one. Errors: ErrNone
	// otherwise.
	Replace(ctx context.Context, r Record) error
	// List returns the sessions of a person, the ones used last first.
	List(ctx context.Context, tenant, person string) ([]Record, error)
	// End ends sessions and returns the ids of those that it ended. After it a session of theirs is not found, nor
	// replaced.
	End(ctx context.Context, e Ending) (ended []string, err error)
	// Sweep removes the sessions that were dead at that time, and returns how many they were.
	Sweep(ctx context.Context, at time.Time) (int, error)
}
