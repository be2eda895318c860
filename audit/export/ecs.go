package export

import (
	"fmt"
	"time"

	"github.com/crmguard/crmguard/audit"
)

const ecsVersion = "8.17.0"

type ecsEvent struct {
	Timestamp    string         `json:"@timestamp"`
	Crmguard     ecsCrmguard    `json:"crmguard"`
	ECS          ecsVersionOf   `json:"ecs"`
	Event        ecsEventFields `json:"event"`
	Message      string         `json:"message"`
	Observer     ecsObserver    `json:"observer"`
	Organization *ecsID         `json:"organization,omitempty"`
	Related      *ecsRelated    `json:"related,omitempty"`
	User         *ecsUser       `json:"user,omitempty"`
}

type ecsCrmguard struct {
	Audit receipt `json:"audit"`
}

type ecsVersionOf struct {
	Version string `json:"version"`
}

type ecsEventFields struct {
	Action   string   `json:"action"`
	Category []string `json:"category"`
	Code     string   `json:"code"`
	Dataset  string   `json:"dataset"`
	Hash     string   `json:"hash"`
	ID       string   `json:"id"`
	Kind     string   `json:"kind"`
	Module   string   `json:"module"`
	Outcome  string   `json:"outcome"`
	Provider string   `json:"provider"`
	Reason   string   `json:"reason,omitempty"`
	Sequence uint64   `json:"sequence"`
	Severity int      `json:"severity"`
	Type     []string `json:"type"`
}

type ecsObserver struct {
	Name    string `json:"name,omitempty"`
	Product string `json:"product"`
	Type    string `json:"type"`
	Vendor  string `json:"vendor"`
	Version string `json:"version"`
}

type ecsID struct {
	ID string `json:"id"`
}

type ecsUser struct {
	ID     string `json:"id,omitempty"`
	Target *ecsID `json:"target,omitempty"`
}

type ecsRelated struct {
	User []string `json:"user"`
}

// ecsKinds are event.category and event.type of each activity.
var ecsKinds = map[audit.Activity][2][]string{
	audit.Other:     {{"configuration"}, {"info"}},
	audit.Create:    {{"database"}, {"change"}},
	audit.Read:      {{"database"}, {"access"}},
	audit.Update:    {{"database"}, {"change"}},
	audit.Delete:    {{"database"}, {"change"}},
	audit.List:      {{"database"}, {"access"}},
	audit.Search:    {{"database"}, {"access"}},
	audit.Export:    {{"database"}, {"access"}},
	audit.Import:    {{"database"}, {"change"}},
	audit.Encrypt:   {{"database"}, {"change"}},
	audit.Decrypt:   {{"database"}, {"access"}},
	audit.Logon:     {{"authentication"}, {"start"}},
	audit.Logoff:    {{"authentication"}, {"end"}},
	audit.Grant:     {{"iam"}, {"user", "change"}},
	audit.Revoke:    {{"iam"}, {"user", "change"}},
	audit.Erase:     {{"database"}, {"change"}},
	audit.Backup:    {{"database"}, {"access"}},
	audit.Restore:   {{"database"}, {"change"}},
	audit.Configure: {{"configuration"}, {"change"}},
	audit.Approve:   {{"configuration"}, {"info"}},
}

var accountKinds = map[audit.Activity][]string{
	audit.Create: {"user", "creation"}, audit.Delete: {"user", "deletion"}, audit.Erase: {"user", "deletion"},
	audit.Update: {"user", "change"}, audit.Configure: {"user", "change"},
}

// ECS returns the format of the Elastic Common Schema, version 8.17.0, as JSON.
// What has no place there is under crmguard.audit.
func ECS(src Source) Format {
	src = src.fill()
	return func(e audit.Entry) []byte { return toJSON(src.ecs(&e)) }
}

func (s *Source) ecs(e *audit.Entry) *ecsEvent {
	ev := &e.Event
	rec := newReceipt(s, e)
	kind, ok := ecsKinds[ev.Activity]
	if !ok {
		kind = ecsKinds[audit.Other]
	}
	subject, account := s.account(ev)
	if types, ok := accountKinds[ev.Activity]; ok && account {
		kind = [2][]string{{"iam"}, types}
	}
	outcome := "unknown"
	switch ev.Outcome {
	case audit.Allowed:
		outcome = "success"
	case audit.Denied, audit.Failed, audit.Aborted:
		outcome = "failure"
	}
	out := &ecsEvent{
		Timestamp: ev.Time.UTC().Format(time.RFC3339Nano), Crmguard: ecsCrmguard{rec}, ECS: ecsVersionOf{ecsVersion},
		Event: ecsEventFields{Action: rec.Action, Category: kind[0], Type: kind[1], Code: rec.Action, Dataset: "crmguard.audit",
			Hash: rec.Leaf, ID: fmt.Sprintf("%s/%d", rec.Origin, e.Index), Kind: "event", Module: "crmguard", Outcome: outcome,
			Provider: clean(s.Product), Reason: rec.Note, Sequence: e.Index, Severity: cefSeverity(severity(ev))},
		Message:  rec.Action + " " + rec.Outcome,
		Observer: ecsObserver{Name: rec.Origin, Product: clean(s.Product), Type: "audit-log", Vendor: clean(s.Vendor), Version: clean(s.Version)},
	}
	if rec.Tenant != "" {
		out.Organization = &ecsID{rec.Tenant}
	}
	var related []string
	u := ecsUser{ID: rec.Actor}
	if rec.Actor != "" {
		related = append(related, rec.Actor)
	}
	if account && subject.ID != "" {
		u.Target = &ecsID{clean(subject.ID)}
		if u.Target.ID != rec.Actor {
			related = append(related, u.Target.ID)
		}
	}
	if len(related) > 0 {
		out.User, out.Related = &u, &ecsRelated{related}
	}
	return out
}
