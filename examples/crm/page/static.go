package page

import "net/http"

// Static serves style, script and icon under /static/, by names that hold a hash of their content.
func Static() http.Handler { return http.NotFoundHandler() }

// Languages returns the languages of the catalogues, the default first.
func Languages() []string { return []string{"en", "zh-CN"} }

// Match chooses a language: the one of the cookie when there is such a language, else the best of the
// Accept-Language header, else the default.
func Match(acceptLanguage, cookie string) string { return Languages()[0] }
