package authz

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Subject is who acts.
type Subject struct {
	ID      string   // opaque id of the person or service
	Tenant  string   // whose records they may see at all
	Roles   []string // active in this session
	Team    string   // path of their team, "/east/1/"; "" for none
	Session string   // opaque id of the session, for the log
	Active  bool     // false: left or suspended; denied everything
}

// Action is what the subject wants to do. Policies may know further actions; an unknown one is denied.
type Action string

// The actions of the shipped policy.
const (
	List    Action = "list"
	Read    Action = "read"
	Search  Action = "search"
	Create  Action = "create"
	Update  Action = "update"
	Delete  Action = "delete"
	Restore Action = "restore"
	Reveal  Action = "reveal"  // one masked field in clear, for a reason
	History Action = "history" // the reasons that others gave for reveals of a record
	Import  Action = "import"
	Export  Action = "export"
	Manage  Action = "manage" // operate a function such as backup or keys
)

// Resource is what is acted on: a record, or a type when ID, Owner and Team are empty.
type Resource struct {
	Tenant string
	Type   string
	ID     string
	Owner  string // subject id of the record's owner; "" for none
	Team   string // path of the record's team
	State  string // lifecycle state, "" where the type has none
}

// Environment is under what circumstances.
type Environment struct {
	Time    time.Time
	Addr    netip.Addr // of the client; invalid when unknown
	Purpose string     // why personal data is processed, such as "sales"
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

// Obligation is something the caller must do or hold before it may proceed, such as
// "reason" or "step_up". An obligation that the caller does not know is a denial.
type Obligation string

// The obligations of the shipped policy.
const (
	NeedReason Obligation = "reason" // state why; the reason is logged
)

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
		if !slices.Contains(met, o) {
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
