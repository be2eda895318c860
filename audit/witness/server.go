package witness

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Server is a witness: a handler of POST add-checkpoint. It signs a checkpoint
// only after its Store has made it durable, so that a crash at any point costs
// at most a signature that the log asks for again.
type Server struct {
	cosigner *Cosigner
	logs     map[string]logKeys
	store    Store
	opts     ServerOptions
	mu       sync.Mutex // one checkpoint at a time
}

// ServerOptions of NewServer. Nil means the zero value of each field.
type ServerOptions struct {
	Clock  func() time.Time                     // nil: time.Now
	Answer func(h Head, old uint64, status int) // gets the checkpoint and the status of each request that names a known log with its signature; nil: none
	Error  func(err error)                      // gets what the client is not told: failures of Store and Cosigner; nil: none
}

// NewServer returns a witness of the logs with the given verifier keys. Several
// keys of one name are keys of one log.
func NewServer(cosigner *Cosigner, logs []string, store Store, opts *ServerOptions) (*Server, error) {
	if cosigner == nil || store == nil {
		return nil, errors.New("witness: a server needs a cosigner and a store")
	}
	s := &Server{cosigner: cosigner, store: store, logs: map[string]logKeys{}}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.Clock == nil {
		s.opts.Clock = time.Now
	}
	for _, key := range logs {
		v, err := note.NewVerifier(strings.TrimSpace(key))
		if err != nil {
			return nil, errors.New("witness: not the key of a log")
		}
		s.logs[v.Name()] = append(s.logs[v.Name()], v)
	}
	return s, nil
}

// ServeHTTP answers as C2SP tlog-witness says. Mount it at the submission
// prefix: the last part of the path counts.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/add-checkpoint") {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "POST only", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, "not a request", http.StatusBadRequest)
		return
	}
	status, answer := s.add(r, body)
	switch status {
	case http.StatusConflict:
		w.Header().Set("Content-Type", sizeType)
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

// add is add-checkpoint.
func (s *Server) add(r *http.Request, body []byte) (status int, answer []byte) {
	plain := func(status int, text string) (int, []byte) { return status, []byte(text + "\n") }
	req, err := parseRequest(body)
	if err != nil {
		return plain(http.StatusBadRequest, "not a request")
	}
	head, text, err := parseHead(req.note)
	if err != nil {
		return plain(http.StatusBadRequest, "not a checkpoint")
	}
	keys, ok := s.logs[head.Origin]
	if !ok {
		return plain(http.StatusNotFound, "unknown log")
	}
	if err := signedBy(req.note, keys); err != nil {
		return plain(http.StatusForbidden, "not signed by a known key of the log")
	}
	defer func() {
		if s.opts.Answer != nil {
			s.opts.Answer(head, req.old, status)
		}
	}()
	if req.old > head.Size {
		return plain(http.StatusBadRequest, "old size is beyond the checkpoint")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx := r.Context()
	last, err := s.store.Head(ctx, head.Origin)
	if err == nil && last.Size > 0 && last.Origin != head.Origin {
		err = ErrState
	}
	if err != nil {
		return s.broken(err)
	}
	conflict := func(n uint64) (int, []byte) { return http.StatusConflict, fmt.Appendf(nil, "%d\n", n) }
	if req.old != last.Size {
		return conflict(last.Size)
	}
	if last.Size == head.Size && last.Size > 0 && last.Root != head.Root {
		return conflict(last.Size)
	}
	if !consistent(req.proof, head.Size, head.Root, last.Size, last.Root) {
		return plain(http.StatusUnprocessableEntity, "the consistency proof does not verify")
	}
	if head.Size > last.Size {
		switch err := s.store.Swap(ctx, last.Size, head); {
		case errors.Is(err, ErrConflict):
			if last, err = s.store.Head(ctx, head.Origin); err != nil {
				return s.broken(err)
			}
			return conflict(last.Size)
		case err != nil:
			return s.broken(err)
		}
	}
	line, err := s.cosigner.sign(text, s.opts.Clock())
	if err != nil {
		return s.broken(err)
	}
	return http.StatusOK, line
}

// broken answers for a witness that cannot sign at present.
func (s *Server) broken(err error) (int, []byte) {
	if s.opts.Error != nil {
		s.opts.Error(err)
	}
	return http.StatusServiceUnavailable, []byte("not available\n")
}
