package authzen

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/crmguard/crmguard/authz"
)

// badRequest is a request that is not as the specification says. Its reason names fields, never values.
type badRequest struct{ reason string }

func (e *badRequest) Error() string { return "authzen: " + e.reason }

func refuse(reason string) error { return &badRequest{reason} }

// object is a JSON object whose values are not read yet. A value that is null is as good as absent.
type object map[string]json.RawMessage

// maxDepth is how deep a request may nest.
const maxDepth = 32

// parse reads a body that is one object in UTF-8, without a name twice in any object and without a number that
// other parsers could read as another one: those beyond a double are refused, as I-JSON (RFC 7493) asks.
func parse(body []byte) (object, error) {
	if !utf8.Valid(body) || !json.Valid(body) {
		return nil, refuse("body is not JSON")
	}
	type frame struct {
		names map[string]bool // nil in an array
		name  bool            // the next token of an object is a name
	}
	var stack []frame
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	for {
		tok, err := dec.Token()
		if err != nil { // the end, as the body is valid
			break
		}
		if n := len(stack); n > 0 && stack[n-1].name {
			if name, ok := tok.(string); ok {
				if stack[n-1].names[name] {
					return nil, refuse("a name occurs twice")
				}
				stack[n-1].names[name], stack[n-1].name = true, false
				continue
			}
		}
		if n, ok := tok.(json.Number); ok {
			if _, err := n.Float64(); err != nil {
				return nil, refuse("a number is out of range")
			}
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, frame{names: map[string]bool{}, name: true})
		case json.Delim('['):
			stack = append(stack, frame{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
		}
		if len(stack) > maxDepth {
			return nil, refuse("nested too deep")
		}
		if tok != json.Delim('{') && tok != json.Delim('[') && len(stack) > 0 {
			stack[len(stack)-1].name = stack[len(stack)-1].names != nil // a value has ended
		}
	}
	return toObject(body, "body")
}

func toObject(raw json.RawMessage, what string) (object, error) {
	var o object
	if json.Unmarshal(raw, &o) != nil || o == nil {
		return nil, refuse(what + " must be an object")
	}
	return o, nil
}

// has tells whether o has a value of this name.
func (o object) has(name string) bool {
	raw, ok := o[name]
	return ok && string(raw) != "null"
}

// object returns the object of this name, nil when there is none.
func (o object) object(name, what string) (object, error) {
	if !o.has(name) {
		return nil, nil
	}
	return toObject(o[name], what)
}

// read fills in into from the value of this name, if there is one. what is the name for people.
func read[T any](o object, name, what string, into *T) error {
	if o.has(name) && json.Unmarshal(o[name], into) != nil {
		return refuse(what + " has a wrong type")
	}
	return nil
}

// text reads a string. One that held half a surrogate is refused: two such ids would be the same one.
func text(o object, name, what string, into *string) error {
	if err := read(o, name, what, into); err != nil {
		return err
	}
	if strings.ContainsRune(*into, unicode.ReplacementChar) {
		return refuse(what + " is not text")
	}
	return nil
}

// texts reads an array of strings.
func texts[T ~string](o object, name, what string, into *[]T) error {
	var list []*T // a null among them is no string
	if err := read(o, name, what, &list); err != nil || list == nil {
		return err
	}
	out := make([]T, len(list))
	for i, s := range list {
		if s == nil {
			return refuse(what + " has a wrong type")
		}
		out[i] = *s
	}
	*into = out
	return nil
}

// entity is a subject, a resource, or an action by its id.
type entity struct {
	typ, id    string
	properties object
}

// entity reads the entity of this name. Its required parts may be missing.
func (o object) entity(name string) (entity, error) {
	e := entity{}
	in, err := o.object(name, name)
	if err != nil {
		return e, err
	}
	if e.properties, err = in.object("properties", name+".properties"); err != nil {
		return e, err
	}
	if name == "action" {
		err = text(in, "name", "action.name", &e.id)
		return e, err
	}
	err = first(text(in, "type", name+".type", &e.typ), text(in, "id", name+".id", &e.id))
	return e, err
}

// tuple is what an evaluation or a search is about.
type tuple struct {
	subject, action, resource entity
	context                   object
}

// tuple reads o, with defaults where it has no value. An entity of o replaces the default one, except for a
// type or an id that it lacks.
func (o object) tuple(defaults tuple) (tuple, error) {
	t := defaults
	for _, part := range []struct {
		name string
		into *entity
	}{{"subject", &t.subject}, {"action", &t.action}, {"resource", &t.resource}} {
		if !o.has(part.name) {
			continue
		}
		e, err := o.entity(part.name)
		if err != nil {
			return t, err
		}
		e.typ, e.id = cmp.Or(e.typ, part.into.typ), cmp.Or(e.id, part.into.id)
		*part.into = e
	}
	c, err := o.object("context", "context")
	if c != nil {
		t.context = c
	}
	return t, err
}

// need refuses a tuple without what it must have; sought is what a search looks for: it needs no id.
func (t tuple) need(sought string) error {
	for _, f := range []struct{ value, name string }{
		{t.subject.typ, "subject.type"}, {t.subject.id, "subject.id"}, {t.action.id, "action.name"},
		{t.resource.typ, "resource.type"}, {t.resource.id, "resource.id"},
	} {
		if f.value == "" && f.name != sought {
			return refuse(f.name + " is required")
		}
	}
	return nil
}

// circumstances reads the context: the environment, and the obligations that the caller meets.
func (t tuple) circumstances(now time.Time, trust bool) (env authz.Environment, met []authz.Obligation, err error) {
	env.Time = now
	var at, ip string
	o := t.context
	err = first(
		texts(o, "met", "context.met", &met),
		text(o, "purpose", "context.purpose", &env.Purpose),
		read(o, "rows", "context.rows", &env.Rows),
	)
	if err == nil && env.Rows < 0 {
		err = refuse("context.rows is negative")
	}
	if err == nil && trust {
		err = first(text(o, "time", "context.time", &at), text(o, "ip", "context.ip", &ip))
	}
	if err == nil && at != "" {
		if env.Time, err = time.Parse(time.RFC3339, at); err != nil {
			env.Time, err = time.Parse("2006-01-02T15:04Z07:00", at) // as the specification writes it
		}
		if err != nil {
			err = refuse("context.time is not a time")
		}
	}
	if err == nil && ip != "" {
		if env.Addr, err = netip.ParseAddr(ip); err != nil {
			err = refuse("context.ip is not an address")
		}
	}
	return env, met, err
}

// overrideSubject writes properties over what the directory says.
func overrideSubject(s *authz.Subject, p object) error {
	return first(
		texts(p, "roles", "subject.properties.roles", &s.Roles),
		text(p, "team", "subject.properties.team", &s.Team),
		text(p, "session", "subject.properties.session", &s.Session),
		read(p, "level", "subject.properties.level", &s.Level),
		texts(p, "compartments", "subject.properties.compartments", &s.Compartments),
		text(p, "zone", "subject.properties.zone", &s.Zone),
		text(p, "region", "subject.properties.region", &s.Region),
		text(p, "device", "subject.properties.device", &s.Device),
		texts(p, "pools", "subject.properties.pools", &s.Pools),
	)
}

// overrideResource writes properties over what the directory says.
func overrideResource(r *authz.Resource, p object) error {
	return first(
		text(p, "owner", "resource.properties.owner", &r.Owner),
		text(p, "team", "resource.properties.team", &r.Team),
		text(p, "state", "resource.properties.state", &r.State),
		read(p, "level", "resource.properties.level", &r.Level),
		texts(p, "compartments", "resource.properties.compartments", &r.Compartments),
		texts(p, "actors", "resource.properties.actors", &r.Actors),
		texts(p, "consents", "resource.properties.consents", &r.Consents),
		read(p, "held", "resource.properties.held", &r.Held),
		read(p, "amount", "resource.properties.amount", &r.Amount),
		text(p, "pool", "resource.properties.pool", &r.Pool),
	)
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
