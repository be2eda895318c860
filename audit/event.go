package audit

import (
	"time"
)

// Activity is what an event did, in the classes of OCSF.
type Activity uint8

// The activities. The numbers are part of the format.
const (
	Other Activity = iota
	Create
	Read
	Update
	Delete
	List
	Search
	Export
	Import
	Encrypt
	Decrypt
	Logon
	Logoff
	Grant
	Revoke
	Erase
	Backup
	Restore
	Configure
	Approve
)

// Outcome is how an event ended.
type Outcome uint8

// The outcomes. The numbers are part of the format.
const (
	Allowed  Outcome = iota + 1 // decided and carried out
	Denied                      // refused by policy
	Failed                      // allowed, but went wrong
	Intended                    // logged before the write it announces
	Aborted                     // an intended write that did not happen
)

// Event is one thing that happened. No field but Details may hold personal
// data: ids are opaque, Note is short machine text.
type Event struct {
	Time     time.Time // zero: the clock of the log; kept to the nanosecond, in UTC
	Action   string    // what was done, as "customer.read"; required
	Activity Activity  // class of Action
	Outcome  Outcome   // required
	Actor    string    // opaque id of who acted; "audit" is the log itself, whose actions begin with "audit."
	Session  string    // opaque id of the session
	Tenant   string    // opaque id of the tenant
	Targets  []Target  // what it was done to
	Fields   []string  // names of the fields shown or changed
	Purpose  string    // name of the purpose
	Decision string    // id of the decision
	Policy   string    // digest of the policy revision
	Controls []string  // names of the controls that decided
	Ref      uint64    // index of the event this one refers to; see HasRef
	HasRef   bool      // whether Ref is set
	Count    int64     // rows, bytes or attempts, as Action says
	Details  []Detail  // personal data, see Personal
	Note     string    // short machine text, never personal
}

// Target is one record that an event touched.
type Target struct {
	Type    string // "customer"
	ID      string // opaque id
	Version uint64 // version of the record after the event, 0 when none
	Digest  []byte // digest of the row that was written, at most 64 bytes
}
