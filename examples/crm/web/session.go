package web

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"sync"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// How long a session lasts without use, and at all.
const (
	idleTime     = 30 * time.Minute
	absoluteTime = 12 * time.Hour
)

// session is one signed-in browser. Sessions are kept in memory: a restart signs everybody out.
type session struct {
	id       string // opaque, for the log: not the secret
	employee crm.UUID
	login    string
	oneTime  bool // the password must be changed before anything else
	created  time.Time
	proved   time.Time // when the password was entered last
	seen     time.Time
}

// sessions are found by the hash of the cookie, so that a dump of the memory of the map shows no cookie.
type sessions struct {
	mu  sync.Mutex
	all map[[32]byte]*session
	now func() time.Time
}

func newSessions() *sessions {
	return &sessions{all: map[[32]byte]*session{}, now: time.Now}
}

// cookieName has the __Host- prefix where TLS allows it: bound to this host, this path, and TLS.
func cookieName(plain bool) string {
	if plain {
		return "crm-session"
	}
	return "__Host-crm-session"
}

// newID returns an opaque id of a session.
func newID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// start makes a session and its cookie, a new one at every sign-in.
func (s *sessions) start(w http.ResponseWriter, plain bool, in session) {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	now := s.now()
	in.created, in.seen, in.proved = now, now, now
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, o := range s.all {
		if s.over(o, now) {
			delete(s.all, k)
		}
	}
	s.all[sha256.Sum256(secret[:])] = &in
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(plain), Value: base64.RawURLEncoding.EncodeToString(secret[:]), Path: "/",
		Secure: !plain, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: int(absoluteTime.Seconds()),
	})
}

func (s *sessions) over(o *session, now time.Time) bool {
	return now.Sub(o.seen) > idleTime || now.Sub(o.created) > absoluteTime
}

// key returns where the cookie of a request is kept.
func key(r *http.Request, plain bool) (k [32]byte, ok bool) {
	c, err := r.Cookie(cookieName(plain))
	if err != nil {
		return k, false
	}
	secret, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil || len(secret) != 32 {
		return k, false
	}
	return sha256.Sum256(secret), true
}

// find returns the session of a request, and whether there was one that is over.
func (s *sessions) find(r *http.Request, plain bool) (in session, ok, ended bool) {
	k, has := key(r, plain)
	if !has {
		return session{}, false, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, has := s.all[k]
	if !has {
		return session{}, false, true
	}
	now := s.now()
	if s.over(o, now) {
		delete(s.all, k)
		return session{}, false, true
	}
	o.seen = now
	return *o, true, false
}

// fresh is how long a password that was entered counts for what asks for it again.
const fresh = 5 * time.Minute

// prove notes that the password of the session of a request was entered again.
func (s *sessions) prove(r *http.Request, plain bool) {
	k, ok := key(r, plain)
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.all[k]; ok && o != nil {
		o.proved = s.now()
	}
}

// end ends the session of a request.
func (s *sessions) end(w http.ResponseWriter, r *http.Request, plain bool) {
	if k, ok := key(r, plain); ok {
		s.mu.Lock()
		delete(s.all, k)
		s.mu.Unlock()
	}
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(plain), Path: "/", Secure: !plain, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: -1,
	})
}

// endOf ends every session of an employee, whose rights have changed.
func (s *sessions) endOf(employee crm.UUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, o := range s.all {
		if o.employee == employee {
			delete(s.all, k)
		}
	}
}

// attempts slows guessing: after five failures of one login from one address that pair waits a
// quarter of an hour. Other addresses are not held up, so that nobody can lock an account from afar.
type attempts struct {
	mu  sync.Mutex
	all map[[32]byte]attempt
	now func() time.Time
}

type attempt struct {
	tried int
	until time.Time
	last  time.Time
}

const (
	maxAttempts  = 5
	attemptsWait = 15 * time.Minute
)

func newAttempts() *attempts { return &attempts{all: map[[32]byte]attempt{}, now: time.Now} }

func pair(login, source string) [32]byte { return sha256.Sum256([]byte(login + "\x00" + source)) }

// take counts an attempt before it is made, so that many at once are counted too; false when the pair
// has to wait.
func (a *attempts) take(login, source string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if len(a.all) > 50_000 {
		for k, v := range a.all {
			if now.Sub(v.last) > attemptsWait {
				delete(a.all, k)
			}
		}
	}
	k := pair(login, source)
	v := a.all[k]
	if now.Before(v.until) {
		return false
	}
	if now.Sub(v.last) > attemptsWait {
		v.tried = 0
	}
	v.tried++
	v.last = now
	if v.tried >= maxAttempts {
		v.until, v.tried = now.Add(attemptsWait), 0
	}
	a.all[k] = v
	return true
}

// succeeded forgets the attempts of a pair.
func (a *attempts) succeeded(login, source string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.all, pair(login, source))
}
