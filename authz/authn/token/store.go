package token

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Record is one token or bound certificate as a [Store] keeps it. docs/formats/sessions.md describes it.
type Record struct {
	ID              string // unique among all tenants
	Tenant, Account string
	Name, By        string // what it is for, and the id of who made it
	Scopes          []string
	Sources         []netip.Prefix
	Created         time.Time // milliseconds, as all times here
	Expires         time.Time
	Used            time.Time // coarse; zero when never
	Revoked         time.Time // zero when not
	Hash            []byte    // 32 bytes; empty when revoked
	MAC             []byte    // 32 bytes, over all but Used, Revoked and Hash's absence
}

// Errors of stores.
var (
	ErrNone   = errors.New("token: there is no such token")
	ErrExists = errors.New("token: this key is bound already, or was")
)

// Query says which tokens are listed. Empty fields do not narrow.
type Query struct {
	Tenant  string // required
	Account string
	Prefix  string // what ids begin with
}

// Store keeps tokens. tokentest.TestStore says what it has to do.
type Store interface {
	// Add keeps a new one. Errors: ErrExists when the id is taken, in whatever tenant.
	Add(ctx context.Context, r Record) error
	// Find returns the one of an id. Errors: ErrNone.
	Find(ctx context.Context, id string) (Record, error)
	// Use notes when it was used; an earlier time than the one that is noted changes nothing.
	Use(ctx context.Context, id string, at time.Time) error
	// List returns what the query asks for, by id.
	List(ctx context.Context, q Query) ([]Record, error)
	// Revoke revokes those of the query that are not revoked yet, destroys their hashes, and returns their ids in
	// order. A query without Account and Prefix revokes nothing. Prefix is a whole id here.
	Revoke(ctx context.Context, q Query, at time.Time) ([]string, error)
}
