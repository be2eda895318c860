// Package authzen serves decisions over HTTP as the OpenID AuthZEN Authorization API 1.0 has them: any
// gateway, proxy or program that speaks it can ask an authz.Authorizer. [New] makes the handler; it serves
//
//	POST /access/v1/evaluation        one decision
//	POST /access/v1/evaluations       many, with defaults and a semantic
//	POST /access/v1/search/subject    who may; only with a SubjectLister
//	POST /access/v1/search/resource   on what; only with a ResourceLister
//	POST /access/v1/search/action     which actions; only with an ActionLister
//	GET  /.well-known/authzen-configuration   only with Options.URL
//
// # What is believed
//
// A caller names a subject and a resource; what they are like is looked up in the [Directory]. Properties
// that a caller sends are not read, unless Options.TrustProperties says so. The properties of an action are
// never read: authz has none. Of the context
//
//	met       array of strings   obligations that the caller meets, such as "reason" or "rows:100"
//	purpose   string             why personal data is processed
//	rows      integer            how many records the request would touch
//	time      string             RFC 3339; only with TrustProperties, else the clock of this server
//	ip        string             address of the client; only with TrustProperties, else unknown
//
// are read, and the rest is ignored.
//
// # Answers
//
// A decision is true only when the policy allows it and every obligation is among context.met: a caller that
// has never heard of obligations is denied. The context of an answer has
//
//	controls      ids of the controls that decided
//	obligations   objects with an id: those to be met; with decision false those that were not met
//	fields        classes and names of fields with hidden, masked or open; what is not named is hidden
//	revision      digest of the policy
//	error         in one of many evaluations: status and message
//
// An unknown subject or resource, and an unknown type or action, is decision false, never an error. A search
// returns what an evaluation with the same context permits, page by page.
//
// # Errors
//
// 400 for what is not as the specification says, 401 and 403 for a caller that may not ask, 404 for what is
// not served, 405 for another method, 413 for a body above 1 MiB, 500 when no decision was reached. The body
// is one line that names a field of the request at most, never a value.
//
// The parser is stricter than encoding/json: names are compared exactly, a name that occurs twice is refused,
// so that no two programs read the same body differently.
//
// # Not covered
//
// TLS, rate limits and who the caller is: the program around it does that. Signed metadata and capabilities.
package authzen
