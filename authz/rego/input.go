package rego

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/crmguard/crmguard/authz"
)

// nanos returns t in nanoseconds since 1970, as policies have times; the zero time, which is no time, is 0, and what
// lies beyond the range of the number is its end.
func nanos(t time.Time) int64 {
	switch s := t.Unix(); {
	case s < 0:
		return 0
	case s >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	}
	return t.UnixNano()
}

func number(n int64) *ast.Term { return ast.NumberTerm(json.Number(strconv.FormatInt(n, 10))) }

func wordTerms[S ~string](list []S) *ast.Term {
	out := make([]*ast.Term, len(list))
	for i, s := range list {
		out[i] = ast.StringTerm(string(s))
	}
	return ast.ArrayTerm(out...)
}

// object builds an object term from names and terms in turn.
func object(pairs ...any) *ast.Term {
	o := ast.NewObject()
	for i := 0; i < len(pairs); i += 2 {
		var v *ast.Term
		switch x := pairs[i+1].(type) {
		case string:
			v = ast.StringTerm(x)
		case int:
			v = number(int64(x))
		case int64:
			v = number(x)
		case bool:
			v = ast.BooleanTerm(x)
		case *ast.Term:
			v = x
		}
		o.Insert(ast.StringTerm(pairs[i].(string)), v)
	}
	return ast.NewTerm(o)
}

func list[T any](items []T, each func(*T) *ast.Term) *ast.Term {
	out := make([]*ast.Term, len(items))
	for i := range items {
		out[i] = each(&items[i])
	}
	return ast.ArrayTerm(out...)
}

// zones are the names of time zones that were met; there are some hundreds.
var zones sync.Map

// zone returns the name of a time zone, "" for one that there is not, of which policies could ask nothing.
func zone(name string) string {
	if name == "" {
		return ""
	}
	if _, ok := zones.Load(name); ok {
		return name
	}
	if _, err := time.LoadLocation(name); err != nil {
		return ""
	}
	zones.Store(name, true)
	return name
}

// input writes a request as the term that the schema describes. Only the time and the address may be missing.
func input(r *authz.Request) ast.Value {
	s, res := &r.Subject, &r.Resource
	subject := object(
		"id", s.ID, "tenant", s.Tenant, "team", s.Team, "session", s.Session, "active", s.Active,
		"roles", wordTerms(s.Roles), "level", s.Level, "compartments", wordTerms(s.Compartments),
		"zone", zone(s.Zone), "region", s.Region, "device", s.Device, "pools", wordTerms(s.Pools),
		"grants", list(s.Grants, func(g *authz.Grant) *ast.Term {
			return object("role", g.Role, "until", nanos(g.Until))
		}),
		"shares", list(s.Shares, func(x *authz.Sharing) *ast.Term {
			return object("record", x.Record, "by", x.By, "actions", wordTerms(x.Actions), "until", nanos(x.Until))
		}),
		"delegations", list(s.Delegations, func(x *authz.Delegation) *ast.Term {
			return object("from", x.From, "actions", wordTerms(x.Actions), "until", nanos(x.Until))
		}),
		"emergencies", list(s.Emergencies, func(x *authz.Emergency) *ast.Term {
			return object("type", x.Type, "approvers", wordTerms(x.Approvers), "until", nanos(x.Until))
		}),
	)
	resource := object(
		"tenant", res.Tenant, "type", res.Type, "id", res.ID, "owner", res.Owner, "team", res.Team, "state", res.State,
		"level", res.Level, "compartments", wordTerms(res.Compartments), "actors", wordTerms(res.Actors),
		"consents", wordTerms(res.Consents), "held", res.Held, "amount", res.Amount, "pool", res.Pool,
	)
	return object("subject", subject, "action", string(r.Action), "resource", resource,
		"environment", ast.NewTerm(environment(&r.Environment))).Value
}

func environment(e *authz.Environment) ast.Value {
	env := object("purpose", e.Purpose, "rows", e.Rows)
	o := env.Value.(ast.Object)
	if e.Addr.IsValid() {
		// The zone of a link-local address names an interface of this machine; networks of policies have none.
		o.Insert(ast.StringTerm("address"), ast.StringTerm(e.Addr.Unmap().WithZone("").String()))
	}
	if !e.Time.IsZero() {
		o.Insert(ast.StringTerm("time"), number(nanos(e.Time)))
	}
	return o
}

// question is what a plan is made for: the action, the type and the facts that have a value.
func question(action authz.Action, typ string, facts ast.Value) ast.Value {
	return object("action", string(action), "resource", object("type", typ), "facts", ast.NewTerm(facts)).Value
}

// inputText writes a request as JSON, keys in order. What is no UTF-8 becomes U+FFFD.
func inputText(r *authz.Request) ([]byte, error) {
	v, err := ast.JSON(input(r))
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// parseInput reads what inputText wrote, and nothing else: no missing or other names, nothing twice, nothing after it. White
// space and the way in which characters are escaped do not matter.
func parseInput(text []byte) (authz.Request, error) {
	var in struct {
		Subject struct {
			ID, Tenant, Team, Session, Zone, Region, Device string
			Active                                          bool
			Level                                           int
			Roles, Compartments, Pools                      []string
			Grants                                          []struct {
				Role  string
				Until int64
			}
			Shares []struct {
				Record, By string
				Actions    []authz.Action
				Until      int64
			}
			Delegations []struct {
				From    string
				Actions []authz.Action
				Until   int64
			}
			Emergencies []struct {
				Type      string
				Approvers []string
				Until     int64
			}
		}
		Action   authz.Action
		Resource struct {
			Tenant, Type, ID, Owner, Team, State string
			Level                                int
			Compartments, Actors, Consents       []string
			Held                                 bool
			Amount                               int64
			Pool                                 string
		}
		Environment struct {
			Purpose string
			Rows    int
			Address *netip.Addr
			Time    *int64
		}
	}
	bad := errors.New("it is no request")
	if json.Unmarshal(text, &in) != nil {
		return authz.Request{}, bad
	}
	r := authz.Request{Action: in.Action, Resource: authz.Resource(in.Resource)}
	s := &in.Subject
	r.Subject = authz.Subject{
		ID: s.ID, Tenant: s.Tenant, Team: s.Team, Session: s.Session, Zone: s.Zone, Region: s.Region, Device: s.Device,
		Active: s.Active, Level: s.Level, Roles: s.Roles, Compartments: s.Compartments, Pools: s.Pools,
	}
	for _, g := range s.Grants {
		r.Subject.Grants = append(r.Subject.Grants, authz.Grant{Role: g.Role, Until: moment(g.Until)})
	}
	for _, x := range s.Shares {
		r.Subject.Shares = append(r.Subject.Shares, authz.Sharing{Record: x.Record, By: x.By, Actions: x.Actions, Until: moment(x.Until)})
	}
	for _, x := range s.Delegations {
		r.Subject.Delegations = append(r.Subject.Delegations, authz.Delegation{From: x.From, Actions: x.Actions, Until: moment(x.Until)})
	}
	for _, x := range s.Emergencies {
		r.Subject.Emergencies = append(r.Subject.Emergencies, authz.Emergency{Type: x.Type, Approvers: x.Approvers, Until: moment(x.Until)})
	}
	r.Environment.Purpose, r.Environment.Rows = in.Environment.Purpose, in.Environment.Rows
	if in.Environment.Address != nil {
		r.Environment.Addr = *in.Environment.Address
	}
	if in.Environment.Time != nil {
		r.Environment.Time = time.Unix(0, *in.Environment.Time)
	}
	again, err := inputText(&r)
	if err != nil || !sameInput(again, text) {
		return authz.Request{}, bad
	}
	return r, nil
}

// sameInput tells whether what inputText wrote and a text hold the same value, to the letter of names and numbers. Entries that were kept
// before there were pools name none: neither the subject's nor the record's.
func sameInput(written, text []byte) bool {
	var x, y map[string]any
	if decode(written, &x) != nil || decode(text, &y) != nil {
		return false
	}
	old := true
	for part, name := range map[string]string{"subject": "pools", "resource": "pool"} {
		of, _ := y[part].(map[string]any)
		_, has := of[name]
		old = old && !has
	}
	if old {
		delete(x["subject"].(map[string]any), "pools")
		delete(x["resource"].(map[string]any), "pool")
	}
	return reflect.DeepEqual(x, y)
}

// decode reads one JSON value and nothing after it, numbers as they are written. An object has no name twice.
func decode(text []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := once(dec, 0); err != nil {
		return err
	}
	dec = json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("there is more after the end")
	}
	return nil
}

func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// once reads a value of which no object has a name twice.
func once(dec *json.Decoder, depth int) error {
	t, err := dec.Token()
	switch {
	case err != nil:
		return err
	case depth > 100:
		return errors.New("too deep")
	}
	seen := map[string]bool{}
	switch t {
	case json.Delim('{'):
		for dec.More() {
			name, err := dec.Token()
			if err != nil {
				return err
			}
			word := name.(string)
			if seen[word] {
				return fmt.Errorf("%q stands twice in an object", word)
			}
			seen[word] = true
			if err := once(dec, depth+1); err != nil {
				return err
			}
		}
	case json.Delim('['):
		for dec.More() {
			if err := once(dec, depth+1); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	_, err = dec.Token() // the end of the object or list
	return err
}
