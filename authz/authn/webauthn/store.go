package webauthn

import (
	"context"
	"errors"
	"time"
)

// Record is one credential as a [Store] keeps it. docs/formats/sessions.md describes it.
type Record struct {
	ID             []byte // that the authenticator chose, at most 1,023 bytes; unique
	Tenant, Person string
	Handle         []byte // of the person
	Name           []byte // sealed
	PublicKey      []byte // COSE_Key
	Model          []byte // AAGUID, 16 bytes
	Format         string // of the attestation, "none" mostly
	Transports     string // with commas between, as the browser named them
	BackupEligible bool   // it may be synced
	BackedUp       bool
	Count          uint32
	Created, Used  time.Time // milliseconds; Used is zero when never
	Cloned         time.Time // when a clone was noticed; zero when not
	MAC            []byte    // over all that never changes
}

// Errors of stores, and reasons of refusals.
var (
	ErrUnknown = errors.New("webauthn: there is no such credential")
	ErrExists  = errors.New("webauthn: this credential is enrolled already")
	ErrTooMany = errors.New("webauthn: too many credentials of one person")
	ErrCount   = errors.New("webauthn: the counter did not go up")
)

// Store keeps credentials. webauthntest.TestStore says what it has to do.
type Store interface {
	// Handle returns the user handle of a person: the one given now, when they have none yet.
	Handle(ctx context.Context, tenant, person string, fresh []byte) ([]byte, error)
	// Add keeps a new credential. Errors: ErrExists when the id is there, whoever's it is; ErrTooMany when the person
	// has most already.
	Add(ctx context.Context, r Record, most int) error
	// Find returns a credential. Errors: ErrUnknown.
	Find(ctx context.Context, id []byte) (Record, error)
	// List returns the credentials of a person, the oldest first.
	List(ctx context.Context, tenant, person string) ([]Record, error)
	// Use notes a sign-in. The count must be above the one that is stored, or both 0; else the credential is noted as
	// cloned at that time, and so it stays. Errors: ErrCount then, and for one that was cloned before; ErrUnknown.
	Use(ctx context.Context, id []byte, count uint32, backedUp bool, at time.Time) error
	// Rename gives a person's credential another sealed name. Errors: ErrUnknown.
	Rename(ctx context.Context, tenant, person string, id, name []byte) error
	// Remove removes a person's credential. Errors: ErrUnknown.
	Remove(ctx context.Context, tenant, person string, id []byte) error
}
