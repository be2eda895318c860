package outbox

import (
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// State is that of an endpoint or a delivery.
type State string

// The states of an endpoint.
const (
	Active  State = "active"
	Paused  State = "paused"  // by a person, or because the receiver said 410 Gone; nothing is read and nothing is sent
	Failing State = "failing" // a message was given up, or its owner may not read; it is tried on, and active again with the next success
)

// The states of a delivery.
const (
	Waiting   State = "waiting"
	Delivered State = "delivered"
	Dead      State = "dead" // given up; Replay sends it again
)

// Acts that messages tell of.
const (
	ActChanged = "changed" // the record is as the message says
	ActDeleted = "deleted" // it is in the recycle bin or was purged
	ActTest    = "test"
)

// Why the last try of a delivery failed.
const (
	ReasonStatus   = "status"   // the receiver did not answer 2xx; Status has what it did
	ReasonRedirect = "redirect" // it answered 3xx, which is not followed
	ReasonGone     = "gone"     // it answered 410
	ReasonTimeout  = "timeout"
	ReasonName     = "name"     // the name of the host does not resolve
	ReasonAddress  = "address"  // it leads to an address that is not dialled
	ReasonTLS      = "tls"      // the certificate is not right
	ReasonNetwork  = "network"  // anything else on the way
	ReasonErased   = "erased"   // the person that it told of was erased
	ReasonBlocked  = "blocked"  // and is about to be
	ReasonEndpoint = "endpoint" // it has no URL or no secret
	ReasonSubject  = "subject"  // of an endpoint: its owner may not read
)

// Endpoint is where messages go to. It is made by Outbox.Create, and reads as its owner.
type Endpoint struct {
	crm.Meta[Endpoint]
	Name      string   `protect:"internal" json:"name"`
	URL       crm.Text `protect:"sensitive" json:"url"` // it may hold a token
	Host      string   `protect:"internal" json:"host"` // of the URL; set by Validate
	Types     []string `protect:"internal" json:"types"`
	Acts      []string `protect:"internal" json:"acts"`   // changed, deleted
	Fields    []string `protect:"internal" json:"fields"` // names of fields that are sent; none: all that the owner sees in a list
	Secret    crm.Text `protect:"sensitive" json:"secret"`
	OldSecret crm.Text `protect:"sensitive" json:"old_secret"` // signs beside the other one until OldUntil

	State    State     `protect:"internal,indexed" json:"state"`
	Reason   string    `protect:"internal" json:"reason"` // of Paused and Failing
	OldUntil time.Time `protect:"internal" json:"old_until"`
	LastAt   time.Time `protect:"internal" json:"last_at"` // when the state was last found anew
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil. It sets Host where the URL is clear.
func (e *Endpoint) Validate() error {
	v := crm.Checks{Type: crm.TypeEndpoint}
	v.Team(e.Team)
	v.Required("owner", e.Owner.IsZero())
	v.Str("name", e.Name, true, crm.MaxName)
	if e.URL.State() == crm.Clear {
		if u, ok := parseURL(e.URL.Expose()); ok {
			e.Host = u.Host
		} else {
			v.Add("url", "unknown_value")
		}
	}
	v.Str("host", e.Host, true, crm.MaxLine)
	words(&v, "types", e.Types, 1, 40)
	words(&v, "acts", e.Acts, 1, 2)
	words(&v, "fields", e.Fields, 0, 100)
	for _, act := range e.Acts {
		v.OneOf("acts", act, ActChanged, ActDeleted)
	}
	v.OneOf("state", string(e.State), string(Active), string(Paused), string(Failing))
	v.Str("reason", e.Reason, false, 40)
	v.Time("old_until", e.OldUntil)
	v.Time("last_at", e.LastAt)
	return v.Err()
}

// words checks a list of names, each once.
func words(v *crm.Checks, field string, list []string, least, most int) {
	if len(list) < least {
		v.Add(field, "required")
	}
	if len(list) > most {
		v.Add(field, "too_long")
	}
	for i, w := range list {
		v.Str(field, w, true, 40)
		if slices.Contains(list[:i], w) {
			v.Add(field, "twice")
		}
	}
}

// CheckUpdate tells whether the stored record prev may become e: an endpoint keeps the eyes that it reads with.
func (e *Endpoint) CheckUpdate(prev *Endpoint) error {
	v := crm.Checks{Type: crm.TypeEndpoint}
	v.Unchanged("owner", e.Owner == prev.Owner)
	if e.URL.State() != crm.Clear {
		v.Unchanged("host", e.Host == prev.Host)
	}
	return v.Err()
}

// MadeByActs says that an endpoint is made by Outbox.Create, in the name of who makes it.
func (e *Endpoint) MadeByActs() {}

// Reserved names the fields that no update sets.
func (e *Endpoint) Reserved(isNew bool) []string {
	if isNew {
		return []string{"reason", "old_until", "last_at"}
	}
	return []string{"state", "reason", "old_until", "last_at"}
}

// Delivery is one message to one endpoint. Its id is the header webhook-id. Its fields are set by acts only.
type Delivery struct {
	crm.Meta[Delivery]
	Endpoint      crm.ID[Endpoint]   `protect:"internal,indexed" json:"endpoint"`
	RecordType    string             `protect:"internal,indexed" json:"record_type"`
	Record        crm.UUID           `protect:"internal,indexed" json:"record"`
	RecordVersion int64              `protect:"internal" json:"record_version"`
	Act           string             `protect:"internal" json:"act"`
	Made          time.Time          `protect:"internal" json:"made"` // when the record was read
	Payload       crm.Text           `protect:"personal" json:"payload"`
	OtherPerson   crm.ID[crm.Person] `protect:"internal" json:"other_person"`
	Other         crm.Text           `protect:"personal,person=OtherPerson" json:"other"` // fields of another person

	State  State     `protect:"internal,indexed" json:"state"`
	Tries  int64     `protect:"internal" json:"tries"` // since it was made or replayed
	NextAt time.Time `protect:"internal,indexed" json:"next_at"`
	Status int64     `protect:"internal" json:"status"` // of HTTP, of the last try; 0: there was no answer
	Reason string    `protect:"internal" json:"reason"` // why the last try failed
	DoneAt time.Time `protect:"internal,indexed" json:"done_at"`
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (d *Delivery) Validate() error {
	v := crm.Checks{Type: crm.TypeDelivery}
	v.Team(d.Team)
	v.Required("endpoint", d.Endpoint.IsZero())
	v.Required("record", d.Record.IsZero())
	v.Str("record_type", d.RecordType, true, 40)
	v.OneOf("act", d.Act, ActChanged, ActDeleted, ActTest)
	v.OneOf("state", string(d.State), string(Waiting), string(Delivered), string(Dead))
	v.NotNegative("record_version", d.RecordVersion)
	v.NotNegative("tries", d.Tries)
	v.Range("status", d.Status, 0, 999)
	v.Str("reason", d.Reason, false, 40)
	v.Required("next_at", d.State == Waiting && d.NextAt.IsZero())
	v.Required("done_at", d.State != Waiting && d.DoneAt.IsZero())
	v.Time("next_at", d.NextAt)
	v.Time("done_at", d.DoneAt)
	return v.Err()
}

// MadeByActs says that a delivery is made with the place up to which changes were read.
func (d *Delivery) MadeByActs() {}

// Reserved names the fields that no update sets: all.
func (d *Delivery) Reserved(isNew bool) []string {
	if isNew {
		return []string{"tries", "status", "reason", "done_at"}
	}
	return []string{"owner", "team", "endpoint", "record_type", "record", "record_version", "act", "made", "other_person", "state", "tries", "next_at", "status", "reason", "done_at"}
}

// CheckUpdate tells whether the stored record prev may become d.
func (d *Delivery) CheckUpdate(prev *Delivery) error {
	v := crm.Checks{Type: crm.TypeDelivery}
	v.Unchanged("endpoint", d.Endpoint == prev.Endpoint)
	v.Unchanged("record", d.Record == prev.Record && d.RecordType == prev.RecordType && d.RecordVersion == prev.RecordVersion && d.Act == prev.Act)
	v.Unchanged("other_person", d.OtherPerson == prev.OtherPerson)
	v.Unchanged("state", prev.State != Delivered || d.State == Delivered)
	return v.Err()
}

// Cursor is the place up to which an endpoint has read the changes of a type.
type Cursor struct {
	crm.Meta[Cursor]
	Endpoint   crm.ID[Endpoint] `protect:"internal,indexed" json:"endpoint"`
	RecordType string           `protect:"internal" json:"record_type"`
	Seq        int64            `protect:"internal" json:"seq"`
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (c *Cursor) Validate() error {
	v := crm.Checks{Type: crm.TypeCursor}
	v.Team(c.Team)
	v.Required("endpoint", c.Endpoint.IsZero())
	v.Str("record_type", c.RecordType, true, 40)
	v.NotNegative("seq", c.Seq)
	return v.Err()
}

// MadeByActs says that a cursor moves with the deliveries of its reading.
func (c *Cursor) MadeByActs() {}

// Reserved names the fields that no update sets.
func (c *Cursor) Reserved(isNew bool) []string {
	if isNew {
		return nil
	}
	return []string{"endpoint", "record_type", "seq"}
}

// CheckUpdate tells whether the stored record prev may become c: a place never goes back.
func (c *Cursor) CheckUpdate(prev *Cursor) error {
	v := crm.Checks{Type: crm.TypeCursor}
	v.Unchanged("endpoint", c.Endpoint == prev.Endpoint && c.RecordType == prev.RecordType)
	v.Unchanged("seq", c.Seq >= prev.Seq)
	return v.Err()
}

// derived is an id that follows from what it is of: a UUID of version 8.
func derived(parts ...string) (u crm.UUID) {
	sum := sha256.Sum256([]byte("crmguard outbox 1\n" + strings.Join(parts, "\n")))
	copy(u[:], sum[:])
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return u
}
