// Command oidcd runs a real OpenID Connect provider, the one of github.com/zitadel/oidc with its storage in memory,
// for tests only. It is a module of its own, so that the provider never reaches a user of the SDK.
//
// Users are test-user@HOST and test-user2, both with the password verysecure. Beside what the provider does itself,
// ID tokens get the claims groups and sid, answers of the authorization endpoint get the parameter iss (RFC 9207),
// and POST /test/sign signs a JWT of any claims with the provider's own key, which is how logout tokens and wrong
// tokens are made. POST /test/claims takes claims that ID tokens have from then on.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	client := flag.String("client", "", "ID:SECRET of a client")
	redirect := flag.String("redirect", "", "its redirect URI")
	groups := flag.String("groups", "", "what the claim groups holds, with commas between")
	flag.Parse()
	if err := run(*client, *redirect, *groups); err != nil {
		fmt.Fprintln(os.Stderr, "oidcd:", err)
		os.Exit(1)
	}
}

// withGroups adds claims to ID tokens.
type withGroups struct {
	*storage.Storage
	groups []string

	mu     sync.Mutex
	claims map[string]any // by /test/claims
}

func (s *withGroups) SetUserinfoFromRequest(ctx context.Context, info *oidc.UserInfo, token op.IDTokenRequest, scopes []string) error {
	if err := s.Storage.SetUserinfoFromRequest(ctx, info, token, scopes); err != nil {
		return err
	}
	info.AppendClaims("groups", s.groups)
	info.AppendClaims("sid", "session-of-"+token.GetSubject())
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, value := range s.claims {
		info.AppendClaims(name, value)
	}
	return nil
}

// aged is a request whose person signed in at another time.
type aged struct {
	op.AuthRequest
	at time.Time
}

func (a aged) GetAuthTime() time.Time { return a.at }

// AuthRequestByCode has the claim auth_time be what /test/claims says.
func (s *withGroups) AuthRequestByCode(ctx context.Context, code string) (op.AuthRequest, error) {
	r, err := s.Storage.AuthRequestByCode(ctx, code)
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.claims["auth_time"].(float64); ok && err == nil {
		return aged{r, time.Unix(int64(at), 0)}, nil
	}
	return r, err
}

// run serves until it is signalled. It prints its issuer when it listens.
func run(client, redirect, groups string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	issuer := "http://" + ln.Addr().String()
	id, secret, ok := strings.Cut(client, ":")
	if !ok || redirect == "" {
		return fmt.Errorf("a client is ID:SECRET and has a redirect URI")
	}
	storage.RegisterClients(storage.WebClient(id, secret, redirect))
	store := &withGroups{Storage: storage.NewStorage(storage.NewUserStore(issuer)), groups: strings.Split(groups, ",")}
	provider := exampleop.SetupServer(issuer, store, slog.New(slog.DiscardHandler), false)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /test/sign", func(w http.ResponseWriter, r *http.Request) { sign(w, r, store) })
	mux.HandleFunc("POST /test/claims", func(w http.ResponseWriter, r *http.Request) {
		var claims map[string]any
		if err := json.NewDecoder(r.Body).Decode(&claims); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		store.mu.Lock()
		defer store.mu.Unlock()
		store.claims = claims
	})
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) { discovery(w, r, provider) })
	mux.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		provider.ServeHTTP(&withIssuer{w, redirect, issuer}, r)
	}))
	server := &http.Server{Handler: mux}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	fmt.Println(issuer)
	if err := server.Serve(ln); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// sign answers with a JWT of the body's claims; ?typ= sets its type.
func sign(w http.ResponseWriter, r *http.Request, store *withGroups) {
	claims, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	key, err := store.SigningKey(r.Context())
	if err == nil {
		opts := (&jose.SignerOptions{}).WithType(jose.ContentType(r.FormValue("typ")))
		var signer jose.Signer
		signer, err = jose.NewSigner(jose.SigningKey{Algorithm: key.SignatureAlgorithm(), Key: jose.JSONWebKey{Key: key.Key(), KeyID: key.ID()}}, opts)
		if err == nil {
			var jws *jose.JSONWebSignature
			if jws, err = signer.Sign(claims); err == nil {
				var text string
				if text, err = jws.CompactSerialize(); err == nil {
					fmt.Fprint(w, text)
					return
				}
			}
		}
	}
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) WriteHeader(int)             {}

// discovery says that answers have the parameter iss and that back-channel logout is there.
func discovery(w http.ResponseWriter, r *http.Request, provider http.Handler) {
	rec := &recorder{header: http.Header{}}
	provider.ServeHTTP(rec, r)
	var doc map[string]any
	if err := json.Unmarshal(rec.body.Bytes(), &doc); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	doc["authorization_response_iss_parameter_supported"] = true
	doc["backchannel_logout_supported"] = true
	doc["backchannel_logout_session_supported"] = true
	out, _ := json.Marshal(doc)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	_, _ = w.Write(out)
}

// withIssuer adds iss to the answers that go to the client.
type withIssuer struct {
	http.ResponseWriter
	redirect, issuer string
}

func (w *withIssuer) WriteHeader(status int) {
	if to := w.Header().Get("Location"); strings.HasPrefix(to, w.redirect) {
		if u, err := url.Parse(to); err == nil {
			q := u.Query()
			q.Set("iss", w.issuer)
			u.RawQuery = q.Encode()
			w.Header().Set("Location", u.String())
		}
	}
	w.ResponseWriter.WriteHeader(status)
}
