package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestPatternOf(t *testing.T) {
	for at, want := range map[string]string{
		"/":                                 "/",
		"/customers?show=bin&after=Qx1&of=": "/customers?after&of&show=bin",
		"/customers/0197-no-id":             "/customers/0197-no-id",
		"/quotes/12/print":                  "/quotes/{id}/print",
		"/leads/01a21df9-80d8-8cf3-be53-01333e58ef8c": "/leads/{id}",
	} {
		if got := patternOf(at); got != want {
			t.Errorf("%s is %s, want %s", at, got, want)
		}
	}
}

// TestCrawl signs in to a small site, finds every page of it once or as often as asked, and leaves it for nothing else.
func TestCrawl(t *testing.T) {
	var asked []string
	password := "once"
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("password") != password {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
	})
	mux.HandleFunc("POST /password", func(_ http.ResponseWriter, r *http.Request) { password = r.FormValue("new") })
	var terms []string
	mux.HandleFunc("POST /search", func(w http.ResponseWriter, r *http.Request) {
		terms = append(terms, r.PostFormValue("q"))
		if r.URL.RawQuery != "" {
			http.Error(w, "a term is in no address", http.StatusBadRequest)
		}
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		if _, err := r.Cookie("session"); err != nil {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		asked = append(asked, r.URL.String())
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		switch r.URL.Path {
		case "/":
			fmt.Fprint(w, `<a href="/list">l</a><a href="https://example.com/">out</a><a href="/static/x.css">s</a><a href="/file" download>f</a>`)
		case "/list":
			fmt.Fprint(w, `<form method="get" action="/elsewhere"><input name="q"></form><form method="post" action="/search"><input name="q"></form><form method="post" action="/delete"><input name="z"></form><a href="/list/1">1</a><a href="/list/2">2</a><a href="/list/3">3</a>`)
			if after := r.FormValue("after"); len(after) < 4 {
				fmt.Fprintf(w, `<a rel="next" href="/list?after=%sx">n</a>`, after)
			}
		case "/list/3":
			http.Error(w, "broken", http.StatusInternalServerError)
		}
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	c, err := newCrawler(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.signIn(t.Context(), "a@example.com", "wrong", "new"); err == nil {
		t.Fatal("signed in with a wrong password")
	}
	if err := c.signIn(t.Context(), "a@example.com", "once", "new"); err != nil {
		t.Fatal(err)
	}
	c.times, c.samples, c.deep, c.terms = 4, 3, 3, []string{"a b", "c"}
	if err := c.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := c.print(&out); err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]struct{ pages, times int }{
		"/": {1, 4}, "/list": {1, 4}, "/search for term 1": {1, 4}, "/search for term 2": {1, 4}, "/list/{id}": {3, 12}, "/list?after": {3, 12}, "/list?after far": {1, 4},
	} {
		k := c.kinds[pattern]
		if k == nil || k.pages != want.pages || len(k.took) != want.times {
			t.Errorf("%s: %+v, want %+v", pattern, k, want)
		}
	}
	if k := c.kinds["/list/{id}"]; k == nil || k.status[http.StatusInternalServerError] != 4 || !strings.Contains(out.String(), "200,500") {
		t.Errorf("a page that breaks is not told:\n%s", out.String())
	}
	if want := []string{"a b", "a b", "a b", "a b", "c", "c", "c", "c"}; !slices.Equal(terms, want) {
		t.Errorf("searched for %q", terms)
	}
	for _, at := range asked {
		if strings.Contains(at, "static") || strings.Contains(at, "file") {
			t.Errorf("%s was asked for", at)
		}
	}
}
