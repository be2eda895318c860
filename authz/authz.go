package authz

import (
	"context"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Subject is who acts. The composing program fills it in from what it has verified itself: the session,
// the directory, the records of shares, delegations and emergencies. It never comes from the client.
type Subject struct {
	ID      string   // opaque id of the person or service
	Tenant  string   // whose records they may see at all
	Roles   []string // activated in this session
	Team    string   // path of their team, "/east/1/"; "" for none
	Session string   // opaque id of the session, for the log
	Active  bool     // false: left or suspended; denied everything

	Level        int      // clearance; 0 is the lowest
	Compartments []string // need-to-know groups they are cleared for
	Zone         string   // IANA time zone of their working hours; "" for none
	Region       string   // where they work, as settings name it; "" for none
	Device       string   // what is known of the device, "managed"; "" for nothing
	Grants       []Grant  // certifications of roles
	Pools        []string // ids of the pools whose member they are

	Shares      []Sharing    // records that others have shared with them
	Delegations []Delegation // for whom they stand in
	Emergencies []Emergency  // break-glass accesses that were opened for them
}

// Grant is the certification of a role: where the policy demands one, a role counts only while it holds.
type Grant struct {
	Role  string
	Until time.Time // the first moment at which it no longer counts
}

// Sharing is one record that its owner has shared with the subject.
type Sharing struct {
	Record  string // its id
	By      string // who shared it
	Actions []Action
	Until   time.Time // the first moment at which it no longer counts
}

// Delegation lets the subject stand in for another one, as during a holiday. It never passes on.
type Delegation struct {
	From    string // the subject who is away
	Actions []Action
	Until   time.Time // the first moment at which it no longer counts
}

// Emergency is a break-glass access: opened for a reason, by several people, for a while.
type Emergency struct {
	Type      string   // of the records it opens
	Approvers []string // ids of those who approved it
	Until     time.Time
}

// Action is what the subject wants to do. Policies may know further actions; an unknown one is denied.
type Action string

// The actions of the shipped policy.
const (
	List       Action = "list"
	Read       Action = "read"
	Search     Action = "search"
	Create     Action = "create"
	Update     Action = "update"
	Delete     Action = "delete"
	Restore    Action = "restore"
	Reveal     Action = "reveal"  // one masked field in clear, for a reason
	History    Action = "history" // the reasons that others gave for reveals of a record
	Import     Action = "import"
	Export     Action = "export"
	Aggregate  Action = "aggregate"  // numbers over groups of records, never a record
	Approve    Action = "approve"    // what somebody else has asked for
	Certify    Action = "certify"    // that a person still needs a role
	Share      Action = "share"      // a record of one's own with somebody
	Declassify Action = "declassify" // lower the level of a record
	Erase      Action = "erase"      // a person's data
	Purge      Action = "purge"      // a record leaves the recycle bin for good
	Manage     Action = "manage"     // operate a function such as backup or keys
	Check      Action = "check"      // whether a record is there already, without reading it
	Merge      Action = "merge"      // two records of one thing into one
)

// The actions by which a record changes hands. None of them changes what the record says.
const (
	Browse   Action = "browse"   // list the free records of a pool, before the claim
	Claim    Action = "claim"    // take a free record of a pool
	Assign   Action = "assign"   // give a free record to a member of its pool
	Transfer Action = "transfer" // give a record that somebody has to another
	Release  Action = "release"  // give it back to its pool
	Recycle  Action = "recycle"  // its clock ran out and it goes back; nobody does that but the program
	Handover Action = "handover" // give it to another because its owner leaves
	Enter    Action = "enter"    // put a record into a pool
	Lock     Action = "lock"     // keep it from going back by itself, or no longer
)

// Resource is what is acted on: a record, or a type when the rest is empty.
type Resource struct {
	Tenant string
	Type   string
	ID     string
	Owner  string // subject id of the record's owner; "" for none
	Team   string // path of the record's team
	State  string // lifecycle state, "" where the type has none

	Level        int      // sensitivity; 0 is the lowest
	Compartments []string // need-to-know groups: who reads it is cleared for all of them
	Actors       []string // ids of the subjects who have asked for it or changed it so far
	Consents     []string // purposes to which the person has agreed
	Held         bool     // under a legal hold
	Amount       int64    // in minor units of the tenant's currency; 0 for none
	Pool         string   // the pool in which it is free to be claimed; "" when somebody has it or it is in none
}

// Environment is under what circumstances.
type Environment struct {
	Time    time.Time
	Addr    netip.Addr // of the client; invalid when unknown
	Purpose string     // why personal data is processed, such as "sales"
	Rows    int        // how many records the request would touch, as for an export; 0 for one
}

// Request asks for one decision.
type Request struct {
	Subject     Subject
	Action      Action
	Resource    Resource
	Environment Environment
}

// Access is how much of a field may be seen. The zero Access hides.
type Access uint8

// The levels of access, in ascending order.
const (
	Hidden Access = iota // not even whether it has a value
	Masked               // a mask of the value
	Open                 // the value
)

// String returns hidden, masked or open.
func (a Access) String() string {
	switch a {
	case Masked:
		return "masked"
	case Open:
		return "open"
	}
	return "hidden"
}

// Fields is the field policy of one decision. A field that neither rule names is hidden.
type Fields struct {
	ByClass map[string]Access // class of a field -> access
	ByName  map[string]Access // overrides for single fields
}

// Access returns the access to the field of this name and class.
func (f Fields) Access(name, class string) Access {
	if a, ok := f.ByName[name]; ok {
		return a
	}
	return f.ByClass[class]
}

// Obligation is something the caller must do or hold before it may proceed. One that the caller does not
// name as met is a denial, so an obligation that a caller has never heard of denies.
type Obligation string

// The obligations of the shipped policy. There is also "rows:N"; see AtMost.
const (
	NeedReason    Obligation = "reason"        // state why; the reason is logged
	NeedStepUp    Obligation = "step_up"       // sign in again, strongly, a short while ago
	NeedSecond    Obligation = "second_person" // somebody else has approved this very request
	NeedWatermark Obligation = "watermark"     // the output names who took it
	NeedReview    Obligation = "review"        // a review by somebody else is opened
	NeedGroups    Obligation = "groups"        // numbers of small groups are left out
)

// AtMost is how a caller says that it returns n records at most. It meets every obligation "rows:N" with
// N of n or more.
func AtMost(n int) Obligation { return Obligation(rowsPrefix + strconv.Itoa(n)) }

const rowsPrefix = "rows:"

// Rows returns N of an obligation "rows:N": no more records than that.
func (o Obligation) Rows() (n int, ok bool) {
	text, ok := strings.CutPrefix(string(o), rowsPrefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 0
}

// metBy tells whether one of met meets o.
func (o Obligation) metBy(met []Obligation) bool {
	most, rows := o.Rows()
	for _, m := range met {
		if n, ok := m.Rows(); m == o || ok && rows && n <= most {
			return true
		}
	}
	return false
}

// Decision is the answer to a Request. The zero Decision denies.
type Decision struct {
	Allowed     bool
	Controls    []string     // ids of the controls that decided: all that were met, or those that failed
	Fields      Fields       // empty when denied
	Obligations []Obligation // to be met before proceeding
	Revision    string       // digest of policy and data, hex
}

// Proceed returns nil when d allows and every obligation is among met, else a *DeniedError.
func (d Decision) Proceed(met ...Obligation) error {
	if !d.Allowed {
		return &DeniedError{Controls: d.Controls}
	}
	var open []Obligation
	for _, o := range d.Obligations {
		if !o.metBy(met) {
			open = append(open, o)
		}
	}
	if len(open) > 0 {
		return &DeniedError{Controls: d.Controls, Unmet: open}
	}
	return nil
}

// DeniedError is a denial.
type DeniedError struct {
	Controls []string     // the controls that failed, or, with Unmet, those that allow
	Unmet    []Obligation // obligations that were not met; empty for a plain denial
}

// Error names controls and obligations.
func (e *DeniedError) Error() string {
	if len(e.Unmet) > 0 {
		s := make([]string, len(e.Unmet))
		for i, o := range e.Unmet {
			s[i] = string(o)
		}
		return "authz: denied: not met: " + strings.Join(s, ", ")
	}
	return "authz: denied by " + strings.Join(e.Controls, ", ")
}

// Authorizer decides. Its methods are safe for concurrent use.
type Authorizer interface {
	// Decide answers one request.
	Decide(ctx context.Context, r Request) (Decision, error)
	// Filter returns which resources of r.Resource.Type the subject may act on. Of r.Resource only
	// Tenant and Type are read. It admits a record exactly when Decide allows it.
	Filter(ctx context.Context, r Request) (Filter, error)
}
