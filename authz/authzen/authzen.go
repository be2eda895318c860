package authzen

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/crmguard/crmguard/authz"
)

// What the program answers with, wrapped or not.
var (
	ErrNotFound        = errors.New("authzen: no such subject or resource") // by a Directory
	ErrUnauthenticated = errors.New("authzen: unknown caller")              // by authenticate: 401
	ErrForbidden       = errors.New("authzen: the caller may not ask")      // by authenticate: 403
	ErrOptions         = errors.New("authzen: what New was given")          // by New
)

// Directory knows subjects and resources by type and id. Both return [ErrNotFound] for one that there is
// not, or that the caller of ctx may not ask about; any other error is 500.
type Directory interface {
	Subject(ctx context.Context, typ, id string) (authz.Subject, error)
	Resource(ctx context.Context, typ, id string) (authz.Resource, error)
}

// SubjectLister is a Directory that can be searched for subjects: those of a tenant and a type that come
// after the one with id after, "" for all, always in the same order.
type SubjectLister interface {
	Subjects(ctx context.Context, tenant, typ, after string) iter.Seq2[authz.Subject, error]
}

// ResourceLister is a Directory that can be searched for resources, as a SubjectLister for subjects. It may
// leave out what f does not admit, for instance in SQL; it need not: each one is decided.
type ResourceLister interface {
	Resources(ctx context.Context, tenant, typ, after string, f authz.Filter) iter.Seq2[authz.Resource, error]
}

// ActionLister is a Directory that can be searched for actions: those that the policy knows for a type.
type ActionLister interface {
	Actions(ctx context.Context, typ string) ([]authz.Action, error)
}

// Options adjust New. The zero value serves no metadata and believes no properties.
type Options struct {
	URL             string           // of this decision point, https; paths are below it. "": at the root, without metadata
	TrustProperties bool             // properties and context of a caller override the directory, except id, tenant and active
	PageSize        int              // results of a search at most; 0: 100
	Challenge       string           // WWW-Authenticate of a 401; "": Bearer
	Now             func() time.Time // nil: time.Now
	Log             *slog.Logger     // gets the errors behind a 500; nil: nothing is logged
}

const (
	maxBody        = 1 << 20
	maxEvaluations = 1000
	wellKnown      = "/.well-known/authzen-configuration"
)

type handler struct {
	az           authz.Authorizer
	dir          Directory
	authenticate func(*http.Request) (context.Context, error)
	opts         Options
	routes       map[string]func(context.Context, object) (any, error)
	metadata     []byte
	wellKnown    string
}

// New returns the handler. authenticate says who asks: its context goes to the directory and the
// authorizer, so that it can carry the caller's tenant, and is derived from that of the request. It returns
// [ErrUnauthenticated] or [ErrForbidden] for a caller that may not ask; without it nobody may. The metadata
// are open to all.
func New(az authz.Authorizer, dir Directory, authenticate func(*http.Request) (context.Context, error), opts *Options) (http.Handler, error) {
	h := &handler{az: az, dir: dir, authenticate: authenticate}
	if opts != nil {
		h.opts = *opts
	}
	if az == nil || dir == nil || h.opts.PageSize < 0 {
		return nil, ErrOptions
	}
	if h.authenticate == nil {
		h.authenticate = func(*http.Request) (context.Context, error) { return nil, ErrUnauthenticated }
	}
	if h.opts.PageSize == 0 {
		h.opts.PageSize = 100
	}
	if h.opts.Challenge == "" {
		h.opts.Challenge = "Bearer"
	}
	if h.opts.Now == nil {
		h.opts.Now = time.Now
	}
	if h.opts.Log == nil {
		h.opts.Log = slog.New(slog.DiscardHandler)
	}
	return h, h.route()
}

// route fills in the paths and the metadata.
func (h *handler) route() error {
	u, err := url.Parse(h.opts.URL)
	if err != nil {
		return ErrOptions
	}
	if h.opts.URL != "" && (u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsAny(h.opts.URL, "?#")) {
		return ErrOptions
	}
	prefix, base := strings.TrimSuffix(u.Path, "/"), strings.TrimSuffix(h.opts.URL, "/")
	metadata := map[string]string{"policy_decision_point": h.opts.URL}
	h.routes = map[string]func(context.Context, object) (any, error){}
	add := func(path, name string, answer func(context.Context, object) (any, error)) {
		h.routes[prefix+path] = answer
		metadata[name] = base + path
	}
	add("/access/v1/evaluation", "access_evaluation_endpoint", h.evaluation)
	add("/access/v1/evaluations", "access_evaluations_endpoint", h.evaluations)
	if l, ok := h.dir.(SubjectLister); ok {
		add("/access/v1/search/subject", "search_subject_endpoint", h.searchSubjects(l))
	}
	if l, ok := h.dir.(ResourceLister); ok {
		add("/access/v1/search/resource", "search_resource_endpoint", h.searchResources(l))
	}
	if l, ok := h.dir.(ActionLister); ok {
		add("/access/v1/search/action", "search_action_endpoint", h.searchActions(l))
	}
	if h.opts.URL == "" {
		return nil
	}
	h.wellKnown = wellKnown + prefix
	h.metadata, err = json.Marshal(metadata)
	return err
}

// ServeHTTP answers one request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if id := r.Header.Get("X-Request-ID"); id != "" {
		w.Header().Set("X-Request-ID", id)
	}
	if h.metadata != nil && r.URL.Path == h.wellKnown {
		h.serveMetadata(w, r)
		return
	}
	answer, ok := h.routes[r.URL.Path]
	if !ok {
		http.Error(w, "not served", http.StatusNotFound)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "POST only", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	ctx, err := h.authenticate(r)
	if err == nil && ctx == nil {
		err = ErrUnauthenticated
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	ask, err := body(w, r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	a, err := answer(ctx, ask)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(a) //nolint:errcheck // the caller has gone; nobody is left to tell
}

func (h *handler) serveMetadata(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "GET only", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	w.Write(h.metadata) //nolint:errcheck // the caller has gone; nobody is left to tell
}

// fail answers an error with its status and one line.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	var bad *badRequest
	var big *http.MaxBytesError
	switch {
	case errors.Is(err, ErrUnauthenticated):
		w.Header().Set("WWW-Authenticate", h.opts.Challenge)
		http.Error(w, "unknown caller", http.StatusUnauthorized)
	case errors.Is(err, ErrForbidden):
		http.Error(w, "the caller may not ask", http.StatusForbidden)
	case errors.As(err, &bad):
		http.Error(w, bad.reason, http.StatusBadRequest)
	case errors.As(err, &big):
		http.Error(w, "body above 1 MiB", http.StatusRequestEntityTooLarge)
	default:
		h.opts.Log.ErrorContext(r.Context(), "authzen: no answer", "path", r.URL.Path, "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
	}
}

// body reads a request as an object.
func body(w http.ResponseWriter, r *http.Request) (object, error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" || (params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8")) {
		return nil, refuse("content type must be application/json")
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var big *http.MaxBytesError
		if errors.As(err, &big) {
			return nil, err
		}
		return nil, refuse("body cannot be read")
	}
	return parse(b)
}
