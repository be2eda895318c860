package authzbench

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"

	"github.com/crmguard/crmguard/authz"
)

//go:embed policy
var files embed.FS

// Policy is the policy that every engine answers by: 6 roles, 9 types, 162 grants of the depths own, team and all, a
// tree of teams, shares, clearance, a strong sign-in for some actions, frozen contracts, masks and obligations.
func Policy() fs.FS {
	sub, err := fs.Sub(files, "policy")
	if err != nil {
		panic(err) // go:embed guarantees the folder
	}
	return sub
}

// settings are those of the policy's data.json that the peers are made from.
type settings struct {
	Actions          []string
	Inherits         map[string][]string
	Grants           map[string]map[string]map[string]string
	Views            map[string]string
	Fields           map[string]map[string]map[string]string
	FieldOverrides   map[string]map[string]map[string]map[string]string `json:"field_overrides"`
	ObligationsOf    map[string][]authz.Obligation                      `json:"obligations_of"`
	FrozenStates     map[string][]string                                `json:"frozen_states"`
	ShareableActions []string                                           `json:"shareable_actions"`
	ShareableTypes   []string                                           `json:"shareable_types"`
	Context          struct {
		Device struct{ Actions []string }
	}
}

func readSettings() (*settings, error) {
	text, err := fs.ReadFile(Policy(), "data.json")
	if err != nil {
		return nil, err
	}
	var file struct{ Settings settings }
	err = json.Unmarshal(text, &file)
	return &file.Settings, err
}

// dataOf returns the data of a policy, as plain OPA takes it.
func dataOf(policy fs.FS) (map[string]any, error) {
	text, err := fs.ReadFile(policy, "data.json")
	if err != nil {
		return nil, err
	}
	var data map[string]any
	err = json.Unmarshal(text, &data)
	return data, err
}

var (
	roles = []string{"sales", "manager", "support", "finance", "auditor", "admin"}
	types = []string{"customer", "contact", "lead", "quote", "contract", "ticket", "task", "invoice", "report"}
)

// dice are pseudo-random numbers, the same in every run.
type dice uint64

func (d *dice) roll(n int) int {
	*d ^= *d << 13
	*d ^= *d >> 7
	*d ^= *d << 17
	return int(uint64(*d) >> 11 % uint64(n))
}

func (d *dice) percent(p int) bool { return d.roll(100) < p }

func team(d *dice, leaf bool) string {
	region := []string{"/east/", "/west/", "/north/", "/south/"}[d.roll(4)]
	if leaf || d.percent(60) {
		region += fmt.Sprint(1+d.roll(4)) + "/"
	}
	return region
}

// subjects makes n subjects of one or two roles.
func subjects(d *dice, n int) []authz.Subject {
	out := make([]authz.Subject, n)
	for i := range out {
		s := authz.Subject{
			ID: fmt.Sprintf("e%d", i), Tenant: "t", Roles: []string{roles[d.roll(len(roles))]}, Team: team(d, false),
			Active: !d.percent(3), Level: d.roll(3),
		}
		if second := roles[d.roll(len(roles))]; d.percent(30) && second != s.Roles[0] {
			s.Roles = append(s.Roles, second)
		}
		if d.percent(60) {
			s.Device = "key"
		}
		for range d.roll(4) {
			share := authz.Sharing{Record: record(d.roll(2000)), Actions: []authz.Action{authz.Read, authz.List}}
			if d.percent(30) {
				share.Actions = append(share.Actions, authz.Update)
			}
			s.Shares = append(s.Shares, share)
		}
		out[i] = s
	}
	return out
}

func record(i int) string { return fmt.Sprintf("r%d", i) }

// resource makes the i-th record.
func resource(d *dice, i, owners int) authz.Resource {
	r := authz.Resource{
		Tenant: "t", Type: types[i%len(types)], ID: record(i), Owner: fmt.Sprintf("e%d", d.roll(owners)), Team: team(d, true),
	}
	if d.percent(2) {
		r.Tenant = "other"
	}
	if d.percent(25) {
		r.Level = 1 + d.roll(3)
	}
	if r.Type == "contract" {
		r.State = []string{"draft", "running", "signed", "ended"}[d.roll(4)]
	}
	return r
}

// requests makes n of 240 subjects, each about one of 2,000 records: a third their own, some shared with them.
func requests(n int, actions []string) []authz.Request {
	d := dice(0x9e3779b97f4a7c15)
	people := subjects(&d, 240)
	records := make([]authz.Resource, 2000)
	for i := range records {
		records[i] = resource(&d, i, len(people))
	}
	out := make([]authz.Request, n)
	for i := range out {
		r := authz.Request{Subject: people[d.roll(len(people))], Resource: records[d.roll(len(records))]}
		r.Action = authz.Action(actions[d.roll(len(actions))])
		switch shares := r.Subject.Shares; {
		case d.percent(33):
			r.Resource.Owner = r.Subject.ID
		case len(shares) > 0 && d.percent(15):
			var at int
			if _, err := fmt.Sscanf(shares[0].Record, "r%d", &at); err == nil {
				r.Resource = records[at]
			}
		}
		if d.percent(40) {
			r.Action = []authz.Action{authz.List, authz.Read, authz.Read, authz.Update}[d.roll(4)]
		}
		out[i] = r
	}
	return out
}

// row is a record of a program, as its lists hold it.
type row struct {
	ID, Owner, Team, State string
	Level                  int
}

func (r *row) resource(into *authz.Resource) {
	into.Tenant, into.Type = "t", "customer"
	into.ID, into.Owner, into.Team, into.State, into.Level = r.ID, r.Owner, r.Team, r.State, r.Level
}

// rows makes n customers, and who sees about one in twenty of them: a manager of one team of sixteen, some records of
// which are beyond her level.
func rows(n int) ([]row, authz.Request) {
	d := dice(0x2545f4914f6cdd1d)
	out := make([]row, n)
	for i := range out {
		r := resource(&d, i, 1000)
		out[i] = row{ID: r.ID, Owner: r.Owner, Team: r.Team, Level: r.Level}
	}
	return out, authz.Request{
		Subject: authz.Subject{
			ID: "e1", Tenant: "t", Roles: []string{"manager"}, Team: "/east/1/", Active: true,
			Shares: []authz.Sharing{{Record: "r7", Actions: []authz.Action{authz.List}}},
		},
		Action:   authz.List,
		Resource: authz.Resource{Tenant: "t", Type: "customer"},
	}
}
