package authzen

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/crmguard/crmguard/authz"
)

// results are a Search Response.
type results struct {
	Page    page    `json:"page"`
	Results []found `json:"results"`
}

type page struct {
	Next  string `json:"next_token"`
	Count int    `json:"count"`
}

type found struct {
	Type string `json:"type,omitempty"`
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
}

// search is a search under way.
type search struct {
	*lookups
	ctx   context.Context
	t     tuple
	r     authz.Request // without what is sought
	met   []authz.Obligation
	after string // id of the last result of the page before
	limit int
	token func(after string) string
}

// searching returns the handler of a search. sought is the field that a request need not have; find adds
// what is permitted.
func (h *handler) searching(sought string, find func(*search, *results) error) func(context.Context, object) (any, error) {
	return func(ctx context.Context, ask object) (any, error) {
		s := &search{lookups: h.lookups(), ctx: ctx}
		var err error
		if s.t, err = ask.tuple(tuple{}); err != nil {
			return nil, err
		}
		if err := s.t.need(sought); err != nil {
			return nil, err
		}
		if s.r.Environment, s.met, err = s.t.circumstances(h.opts.Now(), h.opts.TrustProperties); err != nil {
			return nil, err
		}
		if err := s.paging(sought, ask); err != nil {
			return nil, err
		}
		s.r.Action = authz.Action(s.t.action.id)
		if sought != "subject.id" {
			s.r.Subject, err = s.subject(ctx, s.t.subject)
		}
		if sought != "resource.id" && err == nil {
			s.r.Resource, err = s.resource(ctx, s.t.resource)
		}
		out := results{Results: []found{}}
		if errors.Is(err, ErrNotFound) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if err := find(s, &out); err != nil {
			return nil, err
		}
		out.Page.Count = len(out.Results)
		return out, nil
	}
}

// searchSubjects answers POST /access/v1/search/subject.
func (h *handler) searchSubjects(l SubjectLister) func(context.Context, object) (any, error) {
	return h.searching("subject.id", func(s *search, out *results) error {
		list := l.Subjects(s.ctx, s.r.Resource.Tenant, s.t.subject.typ, s.after)
		return fill(s, out, list, func(subject authz.Subject) found {
			s.r.Subject = subject
			return found{Type: s.t.subject.typ, ID: subject.ID}
		})
	})
}

// searchResources answers POST /access/v1/search/resource.
func (h *handler) searchResources(l ResourceLister) func(context.Context, object) (any, error) {
	return h.searching("resource.id", func(s *search, out *results) error {
		s.r.Resource = authz.Resource{Tenant: s.r.Subject.Tenant, Type: s.t.resource.typ}
		f, err := s.az.Filter(s.ctx, s.r)
		if err != nil {
			return fmt.Errorf("authzen: no filter: %w", err)
		}
		if f.IsNone() {
			return nil
		}
		list := l.Resources(s.ctx, s.r.Subject.Tenant, s.t.resource.typ, s.after, f)
		return fill(s, out, list, func(r authz.Resource) found {
			s.r.Resource = r
			return found{Type: s.t.resource.typ, ID: r.ID}
		})
	})
}

// searchActions answers POST /access/v1/search/action.
func (h *handler) searchActions(l ActionLister) func(context.Context, object) (any, error) {
	return h.searching("action.name", func(s *search, out *results) error {
		known, err := l.Actions(s.ctx, s.t.resource.typ)
		if err != nil {
			return fmt.Errorf("authzen: actions: %w", err)
		}
		list := func(yield func(authz.Action, error) bool) {
			for _, a := range slices.Sorted(slices.Values(known)) {
				if string(a) > s.after && !yield(a, nil) {
					return
				}
			}
		}
		return fill(s, out, list, func(a authz.Action) found {
			s.r.Action = a
			return found{Name: string(a)}
		})
	})
}

// fill decides about each of list until the page is full and one more is known. with puts an element into
// the request and returns it as a result.
func fill[T any](s *search, out *results, list iter.Seq2[T, error], with func(T) found) error {
	for v, err := range list {
		if err == nil {
			err = s.ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("authzen: list: %w", err)
		}
		f := with(v)
		d, err := s.az.Decide(s.ctx, s.r)
		if err != nil {
			return fmt.Errorf("authzen: no decision: %w", err)
		}
		if d.Proceed(s.met...) != nil || s.r.Subject.ID == "" {
			continue
		}
		if n := len(out.Results); n == s.limit {
			out.Page.Next = s.token(out.Results[n-1].ID + out.Results[n-1].Name)
			return nil
		}
		out.Results = append(out.Results, f)
	}
	return nil
}

// A token is, in base64url: a version, a digest of what is sought, the limit, and the id of the last result.
// It gives no access: each result is decided. The digest keeps it from continuing another search.
const (
	tokenVersion = 1
	digestSize   = 16
	tokenHead    = 1 + digestSize + 4
)

var tokens = base64.RawURLEncoding.Strict()

// paging reads the page of a search.
func (s *search) paging(sought string, ask object) error {
	same := object{}
	for _, name := range []string{"subject", "action", "resource", "context"} {
		if ask.has(name) {
			same[name] = ask[name]
		}
	}
	canonical, err := json.Marshal(same)
	if err != nil {
		return fmt.Errorf("authzen: digest: %w", err)
	}
	sum := sha256.Sum256(append([]byte(sought+"\n"), canonical...))
	digest := sum[:digestSize]

	p, err := ask.object("page", "page")
	if err != nil {
		return err
	}
	var token string
	var limit uint32
	if err := first(read(p, "token", "page.token", &token), read(p, "limit", "page.limit", &limit)); err != nil {
		return err
	}
	most := uint32(min(s.opts.PageSize, 1<<20)) // New refuses a negative one
	if limit == 0 && token == "" || limit > most {
		limit = most
	}
	if token != "" {
		b, err := tokens.DecodeString(token) // it overlooks line ends
		if err != nil || tokens.EncodeToString(b) != token || len(b) <= tokenHead || b[0] != tokenVersion || string(b[1:1+digestSize]) != string(digest) {
			return refuse("page.token is not of this search")
		}
		before := binary.BigEndian.Uint32(b[1+digestSize:])
		if limit != 0 && limit != before || before == 0 || before > most {
			return refuse("page.limit is not of this search")
		}
		limit, s.after = before, string(b[tokenHead:])
	}
	s.limit = int(limit)
	s.token = func(after string) string {
		b := append([]byte{tokenVersion}, digest...)
		b = binary.BigEndian.AppendUint32(b, limit)
		return tokens.EncodeToString(append(b, after...))
	}
	return nil
}
