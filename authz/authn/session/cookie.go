package session

import (
	"errors"
	"net/http"
)

// Cookie reads and writes the cookie of a session. The zero Cookie is "__Host-session", SameSite=Lax.
type Cookie struct {
	Name   string // without its prefix; "" = "session"
	Strict bool   // SameSite=Strict: links from other sites arrive signed out
	// InsecureHTTP leaves the prefix __Host- and the attribute Secure off, for development without TLS on loopback.
	InsecureHTTP bool
}

func (c Cookie) name() string {
	name := c.Name
	if name == "" {
		name = "session"
	}
	if c.InsecureHTTP {
		return name
	}
	return "__Host-" + name
}

func (c Cookie) cookie(value string) *http.Cookie {
	same := http.SameSiteLaxMode
	if c.Strict {
		same = http.SameSiteStrictMode
	}
	// No Domain, as __Host- demands, and no Max-Age: it goes with the browser, and the server counts the time.
	return &http.Cookie{Name: c.name(), Value: value, Path: "/", Secure: !c.InsecureHTTP, HttpOnly: true, SameSite: same}
}

// Read returns the token of a request; the zero Token when it has none, one that is malformed, or more than one,
// which somebody else must have planted.
func (c Cookie) Read(r *http.Request) Token {
	found := r.CookiesNamed(c.name())
	if len(found) != 1 {
		return Token{}
	}
	t, err := ParseToken(found[0].Value)
	if err != nil {
		return Token{}
	}
	return t
}

// Write sets the cookie. The answer that carries it is not to be stored by anybody.
func (c Cookie) Write(w http.ResponseWriter, t Token) error {
	if t.text == "" {
		return errors.New("session: no token")
	}
	http.SetCookie(w, c.cookie(t.text))
	w.Header().Set("Cache-Control", "no-store")
	return nil
}

// Clear signs a browser out: the cookie goes, and with Clear-Site-Data all that the browser has kept of the site.
func (c Cookie) Clear(w http.ResponseWriter) {
	gone := c.cookie("")
	gone.MaxAge = -1
	http.SetCookie(w, gone)
	w.Header().Set("Clear-Site-Data", `"cache", "cookies", "storage"`)
	w.Header().Set("Cache-Control", "no-store")
}
