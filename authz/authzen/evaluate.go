package authzen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/crmguard/crmguard/authz"
)

// answer is an Access Evaluation Response.
type answer struct {
	Decision bool    `json:"decision"`
	Context  *reason `json:"context,omitempty"`
}

// reason is the context of an answer.
type reason struct {
	Controls    []string     `json:"controls,omitempty"`
	Obligations []obligation `json:"obligations,omitempty"`
	Fields      *fields      `json:"fields,omitempty"`
	Revision    string       `json:"revision,omitempty"`
	Error       *failure     `json:"error,omitempty"`
}

type obligation struct {
	ID authz.Obligation `json:"id"`
}

type fields struct {
	Classes map[string]string `json:"classes,omitempty"`
	Names   map[string]string `json:"names,omitempty"`
}

type failure struct {
	Status  int    `json:"status"`
	Message string `json:"message"`
}

// unknown is the answer about a subject or a resource that there is not. It does not say which.
func unknown() answer { return answer{Context: &reason{Controls: []string{"authzen.known"}}} }

// lookups are the answers of a directory while one HTTP request lasts.
type lookups struct {
	*handler
	subjects  map[[2]string]authz.Subject
	resources map[[2]string]authz.Resource
}

func (h *handler) lookups() *lookups {
	return &lookups{h, map[[2]string]authz.Subject{}, map[[2]string]authz.Resource{}}
}

// subject returns the subject of an entity, with its properties if they are trusted.
func (l *lookups) subject(ctx context.Context, e entity) (authz.Subject, error) {
	s, ok := l.subjects[[2]string{e.typ, e.id}]
	if !ok {
		var err error
		if s, err = l.dir.Subject(ctx, e.typ, e.id); err != nil {
			return s, fmt.Errorf("authzen: subject: %w", err)
		}
		l.subjects[[2]string{e.typ, e.id}] = s
	}
	if s.ID == "" {
		return s, ErrNotFound
	}
	if l.opts.TrustProperties {
		err := overrideSubject(&s, e.properties)
		return s, err
	}
	return s, nil
}

// resource returns the resource of an entity, with its properties if they are trusted.
func (l *lookups) resource(ctx context.Context, e entity) (authz.Resource, error) {
	r, ok := l.resources[[2]string{e.typ, e.id}]
	if !ok {
		var err error
		if r, err = l.dir.Resource(ctx, e.typ, e.id); err != nil {
			return r, fmt.Errorf("authzen: resource: %w", err)
		}
		l.resources[[2]string{e.typ, e.id}] = r
	}
	if l.opts.TrustProperties {
		err := overrideResource(&r, e.properties)
		return r, err
	}
	return r, nil
}

// decide answers one tuple.
func (l *lookups) decide(ctx context.Context, t tuple) (answer, error) {
	if err := t.need(""); err != nil {
		return answer{}, err
	}
	r := authz.Request{Action: authz.Action(t.action.id)}
	env, met, err := t.circumstances(l.opts.Now(), l.opts.TrustProperties)
	if err != nil {
		return answer{}, err
	}
	r.Environment = env
	if r.Subject, err = l.subject(ctx, t.subject); err == nil {
		r.Resource, err = l.resource(ctx, t.resource)
	}
	if errors.Is(err, ErrNotFound) {
		return unknown(), nil
	}
	if err != nil {
		return answer{}, err
	}
	d, err := l.az.Decide(ctx, r)
	if err != nil {
		return answer{}, fmt.Errorf("authzen: no decision: %w", err)
	}
	return answerOf(d, met), nil
}

func answerOf(d authz.Decision, met []authz.Obligation) answer {
	a := answer{Context: &reason{Controls: d.Controls, Revision: d.Revision}}
	var denied *authz.DeniedError
	open := d.Obligations
	if errors.As(d.Proceed(met...), &denied) {
		open = denied.Unmet
	} else {
		a.Decision = true
		if len(d.Fields.ByClass)+len(d.Fields.ByName) > 0 {
			a.Context.Fields = &fields{accesses(d.Fields.ByClass), accesses(d.Fields.ByName)}
		}
	}
	for _, o := range open {
		a.Context.Obligations = append(a.Context.Obligations, obligation{o})
	}
	return a
}

func accesses(in map[string]authz.Access) map[string]string {
	out := make(map[string]string, len(in))
	for k, a := range in {
		out[k] = a.String()
	}
	return out
}

// evaluation answers POST /access/v1/evaluation.
func (h *handler) evaluation(ctx context.Context, ask object) (any, error) {
	t, err := ask.tuple(tuple{})
	if err != nil {
		return nil, err
	}
	return h.lookups().decide(ctx, t)
}

// evaluations answers POST /access/v1/evaluations.
func (h *handler) evaluations(ctx context.Context, ask object) (any, error) {
	stop, err := semantic(ask)
	if err != nil {
		return nil, err
	}
	var items []json.RawMessage
	if err := read(ask, "evaluations", "evaluations", &items); err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return h.evaluation(ctx, ask)
	}
	if len(items) > maxEvaluations {
		return nil, refuse("more than 1000 evaluations")
	}
	defaults, err := ask.tuple(tuple{})
	if err != nil {
		return nil, err
	}
	look := h.lookups()
	out := struct {
		Evaluations []answer `json:"evaluations"`
	}{}
	for _, raw := range items {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		a := look.item(ctx, raw, defaults)
		out.Evaluations = append(out.Evaluations, a)
		if stop != nil && *stop == a.Decision {
			break
		}
	}
	return out, nil
}

// item answers one of many evaluations. An error is a denial that says so.
func (l *lookups) item(ctx context.Context, raw json.RawMessage, defaults tuple) answer {
	o, err := toObject(raw, "evaluation")
	var t tuple
	if err == nil {
		t, err = o.tuple(defaults)
	}
	var a answer
	if err == nil {
		a, err = l.decide(ctx, t)
	}
	if err == nil {
		return a
	}
	f := &failure{http.StatusInternalServerError, "internal error"}
	var bad *badRequest
	if errors.As(err, &bad) {
		f = &failure{http.StatusBadRequest, bad.reason}
	} else {
		l.opts.Log.ErrorContext(ctx, "authzen: no answer to one of many evaluations", "error", err)
	}
	return answer{Context: &reason{Error: f}}
}

// semantic returns the decision after which no further evaluation is answered, nil for none.
func semantic(ask object) (*bool, error) {
	options, err := ask.object("options", "options")
	if err != nil {
		return nil, err
	}
	s := "execute_all"
	if err := read(options, "evaluations_semantic", "options.evaluations_semantic", &s); err != nil {
		return nil, err
	}
	switch s {
	case "execute_all":
		return nil, nil
	case "deny_on_first_deny":
		return new(bool), nil
	case "permit_on_first_permit":
		permit := true
		return &permit, nil
	}
	return nil, refuse("options.evaluations_semantic is unknown")
}
