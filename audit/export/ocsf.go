package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/crmguard/crmguard/audit"
)

// Classes of OCSF, and the version of the schema that is spoken.
const (
	ocsfVersion = "1.7.0"

	classAccount        = 3001
	classAuthentication = 3002
	classAccess         = 3005
	classAPI            = 6003
	classDatastore      = 6005
)

var classNames = map[int]string{classAccount: "Account Change", classAuthentication: "Authentication",
	classAccess: "User Access Management", classAPI: "API Activity", classDatastore: "Datastore Activity"}

const ocsfOther = 99

// ocsfActivity is the place of an activity in a class; a name for Other.
type ocsfActivity struct {
	class, id int
	name      string
}

var ocsfActivities = map[audit.Activity]ocsfActivity{
	audit.Other:     {classAPI, ocsfOther, "Other"},
	audit.Create:    {classDatastore, 6, "Create"},
	audit.Read:      {classDatastore, 1, "Read"},
	audit.Update:    {classDatastore, 2, "Update"},
	audit.Delete:    {classDatastore, 7, "Delete"},
	audit.List:      {classDatastore, 8, "List"},
	audit.Search:    {classDatastore, 4, "Query"},
	audit.Export:    {classDatastore, ocsfOther, "Export"},
	audit.Import:    {classDatastore, 5, "Write"},
	audit.Encrypt:   {classDatastore, 9, "Encrypt"},
	audit.Decrypt:   {classDatastore, 10, "Decrypt"},
	audit.Logon:     {classAuthentication, 1, "Logon"},
	audit.Logoff:    {classAuthentication, 2, "Logoff"},
	audit.Grant:     {classAccess, 1, "Assign Privileges"},
	audit.Revoke:    {classAccess, 2, "Revoke Privileges"},
	audit.Erase:     {classDatastore, 7, "Delete"},
	audit.Backup:    {classAPI, ocsfOther, "Backup"},
	audit.Restore:   {classAPI, ocsfOther, "Restore"},
	audit.Configure: {classAPI, 3, "Update"},
	audit.Approve:   {classAPI, ocsfOther, "Approve"},
}

// accountVerbs are last words of actions on accounts.
var accountVerbs = map[string]ocsfActivity{
	"enable": {classAccount, 2, "Enable"}, "enabled": {classAccount, 2, "Enable"},
	"password": {classAccount, 3, "Password Change"}, "password_reset": {classAccount, 4, "Password Reset"},
	"disable": {classAccount, 5, "Disable"}, "disabled": {classAccount, 5, "Disable"},
	"lock": {classAccount, 9, "Lock"}, "locked": {classAccount, 9, "Lock"},
	"mfa_enable": {classAccount, 10, "MFA Factor Enable"}, "mfa_disable": {classAccount, 11, "MFA Factor Disable"},
}

// ocsfOf finds the class of an event. What changes an account is of class
// Account Change.
func (s *Source) ocsfOf(e *audit.Event) ocsfActivity {
	_, account := s.account(e)
	if account {
		switch e.Activity {
		case audit.Create:
			return ocsfActivity{classAccount, 1, "Create"}
		case audit.Delete, audit.Erase:
			return ocsfActivity{classAccount, 6, "Delete"}
		case audit.Update, audit.Configure, audit.Other:
			if a, ok := accountVerbs[e.Action[strings.LastIndexByte(e.Action, '.')+1:]]; ok {
				return a
			}
			return ocsfActivity{classAccount, ocsfOther, activityName(e.Activity)}
		}
	}
	if a, ok := ocsfActivities[e.Activity]; ok {
		return a
	}
	return ocsfActivities[audit.Other]
}

type ocsfEvent struct {
	ActivityID   int            `json:"activity_id"`
	ActivityName string         `json:"activity_name"`
	Actor        *ocsfActor     `json:"actor,omitempty"`
	API          *ocsfAPI       `json:"api,omitempty"`
	CategoryName string         `json:"category_name"`
	CategoryUID  int            `json:"category_uid"`
	ClassName    string         `json:"class_name"`
	ClassUID     int            `json:"class_uid"`
	Database     *ocsfDatabase  `json:"database,omitempty"`
	Message      string         `json:"message"`
	Metadata     ocsfMetadata   `json:"metadata"`
	Privileges   []string       `json:"privileges,omitempty"`
	Resources    []ocsfResource `json:"resources,omitempty"`
	Service      *ocsfName      `json:"service,omitempty"`
	Session      *ocsfUID       `json:"session,omitempty"`
	Severity     string         `json:"severity"`
	SeverityID   int            `json:"severity_id"`
	SrcEndpoint  *ocsfName      `json:"src_endpoint,omitempty"`
	Status       string         `json:"status"`
	StatusID     int            `json:"status_id"`
	StatusDetail string         `json:"status_detail,omitempty"`
	Table        *ocsfName      `json:"table,omitempty"`
	Time         int64          `json:"time"`
	TypeName     string         `json:"type_name"`
	TypeUID      int            `json:"type_uid"`
	Unmapped     ocsfUnmapped   `json:"unmapped"`
	User         *ocsfUID       `json:"user,omitempty"`
}

type ocsfUnmapped struct {
	Audit receipt `json:"audit"`
}

type ocsfUID struct {
	UID string `json:"uid"`
}

type ocsfName struct {
	Name string `json:"name"`
}

type ocsfActor struct {
	AppName        string              `json:"app_name,omitempty"`
	Authorizations []ocsfAuthorization `json:"authorizations,omitempty"`
	Session        *ocsfUID            `json:"session,omitempty"`
	User           *ocsfUID            `json:"user,omitempty"`
}

type ocsfAuthorization struct {
	Decision string   `json:"decision"`
	Policy   *ocsfUID `json:"policy,omitempty"`
}

type ocsfAPI struct {
	Operation string   `json:"operation"`
	Service   ocsfName `json:"service"`
}

type ocsfDatabase struct {
	Name   string `json:"name"`
	TypeID int    `json:"type_id"`
}

type ocsfResource struct {
	Type    string `json:"type,omitempty"`
	UID     string `json:"uid"`
	Version string `json:"version,omitempty"`
}

type ocsfMetadata struct {
	EventCode string      `json:"event_code"`
	LogName   string      `json:"log_name,omitempty"`
	Product   ocsfProduct `json:"product"`
	Sequence  uint64      `json:"sequence"`
	TenantUID string      `json:"tenant_uid,omitempty"`
	UID       string      `json:"uid"`
	Version   string      `json:"version"`
}

type ocsfProduct struct {
	Name       string `json:"name"`
	VendorName string `json:"vendor_name"`
	Version    string `json:"version"`
}

// OCSF returns the format of the Open Cybersecurity Schema Framework, version
// 1.7.0, as JSON: classes Authentication, Account Change, User Access
// Management, Datastore Activity and API Activity.
func OCSF(src Source) Format {
	src = src.fill()
	return func(e audit.Entry) []byte { return toJSON(src.ocsf(&e)) }
}

func (s *Source) ocsf(e *audit.Entry) *ocsfEvent {
	ev := &e.Event
	a := s.ocsfOf(ev)
	rec := newReceipt(s, e)
	product := clean(s.Product)
	out := &ocsfEvent{
		ActivityID: a.id, ActivityName: a.name, ClassUID: a.class, ClassName: classNames[a.class],
		CategoryUID: a.class / 1000, CategoryName: "Application Activity",
		TypeUID: a.class*100 + a.id, TypeName: classNames[a.class] + ": " + a.name,
		Message:    rec.Action + " " + rec.Outcome,
		SeverityID: severity(ev), Severity: severityNames[severity(ev)], Time: ev.Time.UnixMilli(),
		StatusDetail: rec.Note, Unmapped: ocsfUnmapped{rec},
		Metadata: ocsfMetadata{EventCode: rec.Action, LogName: rec.Origin, Sequence: e.Index, TenantUID: rec.Tenant,
			UID: fmt.Sprintf("%s/%d", rec.Origin, e.Index), Version: ocsfVersion,
			Product: ocsfProduct{product, clean(s.Vendor), clean(s.Version)}},
	}
	if out.CategoryUID == 3 {
		out.CategoryName = "Identity & Access Management"
	}
	switch ev.Outcome {
	case audit.Allowed:
		out.StatusID, out.Status = 1, "Success"
	case audit.Denied, audit.Failed:
		out.StatusID, out.Status = 2, "Failure"
	case audit.Intended:
		out.StatusID, out.Status = ocsfOther, "Intended"
	case audit.Aborted:
		out.StatusID, out.Status = ocsfOther, "Aborted"
	default:
		out.StatusID, out.Status = 0, "Unknown"
	}
	out.Actor = &ocsfActor{AppName: product, User: &ocsfUID{orUnknown(rec.Actor)}}
	if rec.Session != "" {
		out.Actor.Session = &ocsfUID{rec.Session}
	}
	if rec.Policy != "" || rec.Decision != "" {
		auth := ocsfAuthorization{Decision: rec.Outcome}
		if rec.Policy != "" {
			auth.Policy = &ocsfUID{rec.Policy}
		}
		out.Actor.Authorizations = []ocsfAuthorization{auth}
	}
	subject, ok := s.account(ev)
	if !ok && len(ev.Targets) > 0 {
		subject = ev.Targets[0]
	}
	switch a.class {
	case classAuthentication:
		out.User = &ocsfUID{orUnknown(rec.Actor)}
		out.Service = &ocsfName{product}
		out.Session = out.Actor.Session
	case classAccount:
		out.User = &ocsfUID{orUnknown(clean(subject.ID))}
	case classAccess:
		out.User = &ocsfUID{orUnknown(clean(subject.ID))}
		out.Privileges, out.Resources = rec.Fields, resources(rec.Targets)
	case classAPI:
		out.API = &ocsfAPI{rec.Action, ocsfName{product}}
		out.SrcEndpoint = &ocsfName{product}
		out.Resources = resources(rec.Targets)
	case classDatastore:
		out.Database = &ocsfDatabase{Name: product} // type 0: unknown
		out.SrcEndpoint = &ocsfName{product}
		if len(rec.Targets) > 0 {
			out.Table = &ocsfName{rec.Targets[0].Type}
		}
	}
	return out
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func resources(list []target) (out []ocsfResource) {
	for _, t := range list {
		r := ocsfResource{Type: t.Type, UID: t.ID}
		if t.Version > 0 {
			r.Version = fmt.Sprint(t.Version)
		}
		out = append(out, r)
	}
	return out
}

// toJSON writes one line, and characters as they are.
func toJSON(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("export: " + err.Error()) // the types are ours and have no cycles
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
