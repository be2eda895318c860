// Package page renders the pages of the example CRM: view models, templates, style and two catalogues
// of words. It knows no database, no policy and no domain type; a handler fills a view model and hands
// it over.
//
// Every page works without script. No page holds inline script or style, so it can be served under
//
//	default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';
//	form-action 'self'; base-uri 'none'; frame-ancestors 'none'
//
// The script, where there is one, fetches the same pages: links of a [List] and the two steps of
// [Reveal] carry htmx attributes. A handler may answer a request with the header HX-Request by a
// fragment, and must then say Vary: HX-Request; a whole page is as good for a List.
package page
